/* test_http.c - HTTP/1.1 (RFC 9110, RFC 9112): every request and every chunked body is fed whole,
 * byte by byte and cut at every place, each time in memory of exactly its size. */
#include "http.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOST "Host: a\r\n"
#define END "\r\n\r\n"
#define MAX_HEAD 8192
#define UNCACHED "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

static void append_text(struct buf *out, const char *text)
{
    buf_append(out, str_from(text));
}

/* Says which vector of a table a failed check belongs to. */
static void name_failed(const char *table, size_t row, bool good)
{
    if (!good)
        printf("     in row %zu of %s\n", row, table);
}

/* Writes what was understood: METHOD|path|query|minor|flags|content length|Name=value;... */
static void describe_request(const struct http_request *request, struct buf *out)
{
    buf_append(out, request->method);
    append_text(out, "|");
    buf_append(out, request->path);
    append_text(out, "|");
    buf_append(out, request->query);
    append_text(out, "|");
    buf_append_number(out, request->minor);
    append_text(out, request->keep_alive ? "|k" : "|");
    append_text(out, request->expect_continue ? "e" : "");
    append_text(out, request->chunked ? "c|" : "|");
    buf_append_number(out, (int64_t)request->content_length);
    append_text(out, "|");
    for (size_t i = 0; i < request->header_count; i++) {
        buf_append(out, request->headers[i].name);
        append_text(out, "=");
        buf_append(out, request->headers[i].value);
        append_text(out, ";");
    }
}

static const struct {
    struct str bytes;
    const char *meaning;
} accepted[] = {
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET / HTTP/1.0" END), "GET|/||0||0|"},
    {STR_INIT("GET / HTTP/1.2\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("get / HTTP/1.1\r\n" HOST "\r\n"), "get|/||1|k|0|Host=a;"},
    {STR_INIT("M-SEARCH /~a HTTP/1.1\r\n" HOST "\r\n"), "M-SEARCH|/~a||1|k|0|Host=a;"},
    {STR_INIT("GET /ws?systemId=x HTTP/1.1\r\n" HOST "\r\n"), "GET|/ws|systemId=x|1|k|0|Host=a;"},
    {STR_INIT("GET //a//b?c?d=/ HTTP/1.1\r\n" HOST "\r\n"), "GET|//a//b|c?d=/|1|k|0|Host=a;"},
    {STR_INIT("GET /? HTTP/1.1\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET /%00%20 HTTP/1.1\r\n" HOST "\r\n"), "GET|/%00%20||1|k|0|Host=a;"},
    /* RFC 9112, 3.2.2 and 3.2.4: absolute form, asterisk form */
    {STR_INIT("GET http://a.example/b?c HTTP/1.1\r\n" HOST "\r\n"), "GET|/b|c|1|k|0|Host=a;"},
    {STR_INIT("GET HTTPS://a:1/ HTTP/1.1\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET http://a HTTP/1.1\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET http://a?x=1 HTTP/1.1\r\n" HOST "\r\n"), "GET|/|x=1|1|k|0|Host=a;"},
    {STR_INIT("GET http://a?b/c HTTP/1.1\r\n" HOST "\r\n"), "GET|/|b/c|1|k|0|Host=a;"},
    {STR_INIT("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), "OPTIONS|*||1|k|0|Host=a;"},
    /* RFC 9112, 2.2: one empty line before the request */
    {STR_INIT("\r\nGET / HTTP/1.1\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    /* RFC 9110, 5.5 and 5.6.2: values and names */
    {STR_INIT("GET / HTTP/1.1\r\nhOST:a\r\nX: \t b \tc\t \r\n\r\n"),
     "GET|/||1|k|0|hOST=a;X=b \tc;"},
    {STR_INIT("GET / HTTP/1.1\r\nHost:\r\nX:\r\nY:  \r\n\r\n"), "GET|/||1|k|0|Host=;X=;Y=;"},
    {STR_INIT("GET / HTTP/1.1\r\nHost: [::1]:80\r\n!#$%&'*+-.^_`|~09azAZ: :\xff\x80\r\n\r\n"),
     "GET|/||1|k|0|Host=[::1]:80;!#$%&'*+-.^_`|~09azAZ=:\xff\x80;"},
    /* RFC 9112, 9.3: whether the connection stays */
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "connection: x, CLOSE ,y\r\n\r\n"),
     "GET|/||1||0|Host=a;connection=x, CLOSE ,y;"},
    {STR_INIT("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
     "GET|/||0|k|0|Connection=Keep-Alive;"},
    {STR_INIT("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"),
     "GET|/||0||0|Connection=keep-alive;Connection=close;"},
    /* RFC 9112, 6: the length of the body */
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
     "POST|/||1|k|5|Host=a;Content-Length=5;"},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 00012" END),
     "POST|/||1|k|12|Host=a;Content-Length=00012;"},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775807" END),
     "POST|/||1|k|9223372036854775807|Host=a;Content-Length=9223372036854775807;"},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \t chunked\t \r\n\r\n0" END),
     "POST|/||1|kc|0|Host=a;Transfer-Encoding=chunked;"},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n0" END),
     "POST|/||1|kc|0|Host=a;Transfer-Encoding=Chunked;"},
    /* RFC 9110, 10.1.1 */
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n1"),
     "POST|/||1|ke|1|Host=a;Expect=100-Continue;Content-Length=1;"},
    {STR_INIT("POST / HTTP/1.0\r\nExpect: 100-continue" END), "POST|/||0||0|Expect=100-continue;"},
};

static const struct {
    struct str bytes;
    int status;
} refused[] = {
    /* RFC 9112, 3: the request line */
    {STR_INIT("GET /" END), 400},
    {STR_INIT("GET" END), 400},
    {STR_INIT("GET  HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET  / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET /  HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT(" GET / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.1 \r\n" HOST "\r\n"), 400},
    {STR_INIT("GET\t/ HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET /\tHTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("G(T / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.10\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1x1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.x\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/x.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / http/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/2.0\r\n" HOST "\r\n"), 505},
    {STR_INIT("GET / HTTP/0.9\r\n" HOST "\r\n"), 505},
    {STR_INIT("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("\x16\x03\x01\x02"), 400}, /* someone speaks TLS */
    /* RFC 9112, 3.2: the target */
    {STR_INIT("GET a HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET * HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("OPTIONS ** HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET ?a HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http:/a HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http:///a HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http:// HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http://?a HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http://user@a/ HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http://a:b/ HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET http://a\\b/ HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET /a#b HTTP/1.1\r\n" HOST "\r\n"), 400},
    {STR_INIT("GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"), 400},
    /* RFC 9112, 2.2: CR and LF come in pairs, and no line has control bytes */
    {STR_INIT("GET / HTTP/1.1\n" HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\n\r\n"), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "\n"), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\rb" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "\rX"), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X: a\0b" END), 400},
    {STR_INIT("GET /\0 HTTP/1.1\r\n" HOST "\r\n"), 400},
    /* RFC 9112, 5: header lines */
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X : a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X: a\r\n b" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb: c" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n Host: a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST ": a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST "X\xc3\xa4: a" END), 400},
    /* RFC 9112, 3.2: Host */
    {STR_INIT("GET / HTTP/1.1" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nX: a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\n" HOST HOST "\r\n"), 400},
    {STR_INIT("GET / HTTP/1.0\r\n" HOST "host: b" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a b" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a/b" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: user@a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a:80:80" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a:8x" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: ::1" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a[::1]" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: [::1" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: []" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: [::1]a" END), 400},
    {STR_INIT("GET / HTTP/1.1\r\nHost: a, b" END), 400},
    {STR_INIT("GET / HTTP/1.0\r\nHost: \xc3\xa4" END), 400},
    /* RFC 9112, 6: the length of the body is said once and without doubt */
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5, 5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: +5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: -5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5 5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 0x5" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5.0" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length:" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 000000000000000000005" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked" END),
     400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5" END),
     400},
    {STR_INIT("POST / HTTP/1.0\r\nTransfer-Encoding: chunked" END), 400},
    /* 6.1 and 6.3: chunked is the last coding, once (else 400), and the only one (else 501) */
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunkedx" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked;a=b" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked," END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, gzip" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked" END), 501},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: , chunked" END), 501},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity, chunked" END), 501},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST
              "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked" END),
     400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST
              "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip" END),
     400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding:" END),
     400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST
              "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked" END),
     501},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\v" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \vchunked" END), 400},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\0" END), 400},
    /* RFC 9110, 10.1.1 */
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Expect: 200-ok" END), 417},
    {STR_INIT("POST / HTTP/1.1\r\n" HOST "Expect:" END), 417},
};

/* Parses an exact copy of the first `length` bytes; the request's views end with this call. */
static enum http_result parse_prefix(struct str bytes, size_t length, size_t max_head,
                                     struct http_request *request)
{
    char *copy = exact_bytes((struct str){bytes.at, length});
    enum http_result result = http_parse_request((struct str){copy, length}, max_head, request);

    free(copy);
    return result;
}

/* Parses all the bytes and compares what was understood. */
static bool means(struct str bytes, const char *meaning)
{
    struct http_request request;
    struct buf text = {0};
    char *copy = exact_bytes(bytes);
    bool good;

    memset(&request, 0x5a, sizeof request); /* nothing may be left of what was there before */
    good =
        CHECK(http_parse_request((struct str){copy, bytes.length}, MAX_HEAD, &request) == HTTP_OK);
    if (good) {
        describe_request(&request, &text);
        good = CHECK(str_equal(str_of(&text), str_from(meaning)));
    }
    good &= CHECK(bytes.length == 0 || memcmp(copy, bytes.at, bytes.length) == 0);
    buf_free(&text);
    free(copy);
    return good;
}

/* However little of a request is there, more is asked for until the head's end, and the rest then
 * completes it. */
static bool accepted_at_every_prefix(struct str bytes, size_t head_length)
{
    struct http_request request;
    bool good = true;

    for (size_t n = 0; good && n <= bytes.length; n++) {
        enum http_result result = parse_prefix(bytes, n, MAX_HEAD, &request);

        good = CHECK(result == (n < head_length ? HTTP_MORE : HTTP_OK)) &&
               CHECK(n < head_length || request.head_length == head_length);
        good = good && CHECK(parse_prefix(bytes, bytes.length, MAX_HEAD, &request) == HTTP_OK) &&
               CHECK(request.head_length == head_length);
    }
    return good;
}

static size_t length_of_head(struct str bytes)
{
    size_t n = 4;

    while (n < bytes.length && memcmp(bytes.at + n - 4, "\r\n\r\n", 4) != 0)
        n++;
    return n;
}

static void accepts_requests(void)
{
    for (size_t i = 0; i < COUNT(accepted); i++) {
        struct str bytes = accepted[i].bytes;
        bool good = means(bytes, accepted[i].meaning) &&
                    accepted_at_every_prefix(bytes, length_of_head(bytes));

        name_failed("accepted", i, good);
    }
}

/* A prefix of a refused request is never accepted, and once refused it stays so. */
static bool refused_at_every_prefix(struct str bytes, int status)
{
    struct http_request request;
    enum http_result result = HTTP_MORE;
    bool good = true;

    for (size_t n = 0; good && n <= bytes.length; n++) {
        enum http_result before = result;

        result = parse_prefix(bytes, n, MAX_HEAD, &request);
        good = CHECK(result == HTTP_BAD || (result == HTTP_MORE && before == HTTP_MORE)) &&
               CHECK(result == HTTP_MORE || (request.status == status && request.error));
    }
    return good && CHECK(result == HTTP_BAD);
}

static void refuses_requests(void)
{
    for (size_t i = 0; i < COUNT(refused); i++)
        name_failed("refused", i, refused_at_every_prefix(refused[i].bytes, refused[i].status));
}

static bool is_letter_digit_or(const char *others, int byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= 'a' && byte <= 'z') || (byte && strchr(others, byte));
}

/* RFC 9110, 9.1: a token, as of 5.6.2. */
static bool in_method(int byte)
{
    return is_letter_digit_or("!#$%&'*+-.^_`|~", byte);
}

static bool in_target(int byte)
{
    return byte > ' ' && byte < 0x7f && byte != '#';
}

/* RFC 9110, 5.1. */
static bool in_name(int byte)
{
    return in_method(byte) || byte == ':'; /* the second colon starts the value */
}

/* RFC 9110, 5.5. */
static bool in_value(int byte)
{
    return byte == '\t' || (byte >= ' ' && byte != 0x7f);
}

/* RFC 3986, 3.2.2. */
static bool in_host(int byte)
{
    return is_letter_digit_or("-._~%!$&'()*+,;=", byte);
}

static bool in_address(int byte)
{
    return is_letter_digit_or(".:", byte);
}

/* 3.2.3. */
static bool in_port(int byte)
{
    return byte >= '0' && byte <= '9';
}

/* Every byte at a place of each kind; '?' marks the place. */
static void knows_every_byte(void)
{
    static const struct {
        struct str bytes;
        bool (*allowed)(int byte);
    } places[] = {
        {STR_INIT("G?T / HTTP/1.1\r\n" HOST "\r\n"), in_method},
        {STR_INIT("GET /a?b HTTP/1.1\r\n" HOST "\r\n"), in_target},
        {STR_INIT("GET / HTTP/1.1\r\n" HOST "X?Y: a" END), in_name},
        {STR_INIT("GET / HTTP/1.1\r\n" HOST "X: a?b" END), in_value},
        {STR_INIT("GET / HTTP/1.1\r\nHost: a?b" END), in_host},
        {STR_INIT("GET / HTTP/1.1\r\nHost: [a?b]" END), in_address},
        {STR_INIT("GET / HTTP/1.1\r\nHost: a:0?9" END), in_port},
    };
    struct http_request request;

    for (size_t i = 0; i < COUNT(places); i++) {
        struct str bytes = places[i].bytes;
        char *copy = exact_bytes(bytes), *place = memchr(copy, '?', bytes.length);
        bool good = true;

        for (int byte = 0; good && byte < 256; byte++) {
            enum http_result wanted = places[i].allowed(byte) ? HTTP_OK : HTTP_BAD;

            *place = (char)byte;
            good = CHECK(http_parse_request((struct str){copy, bytes.length}, MAX_HEAD, &request) ==
                         wanted);
            if (!good)
                printf("     byte %d in place %zu\n", byte, i);
        }
        free(copy);
    }
}

static void takes_pipelined_requests(void)
{
    static const struct {
        const char *bytes, *meaning;
    } line[] = {
        {"POST /1 HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\n\r\n\r\n",
         "POST|/1||1|k|4|Host=a;Content-Length=4;"},
        {"GET /2 HTTP/1.0" END, "GET|/2||0||0|"},
        {"GET /3?x HTTP/1.1\r\n" HOST "\r\n", "GET|/3|x|1|k|0|Host=a;"},
    };
    struct buf bytes = {0};
    struct str rest;
    struct http_request request;

    for (size_t i = 0; i < COUNT(line); i++)
        append_text(&bytes, line[i].bytes);
    rest = str_of(&bytes);
    for (size_t i = 0; i < COUNT(line); i++) {
        size_t length = strlen(line[i].bytes);

        means(rest, line[i].meaning);
        CHECK(http_parse_request(rest, MAX_HEAD, &request) == HTTP_OK);
        CHECK(request.head_length + request.content_length == length);
        rest = (struct str){rest.at + length, rest.length - length};
    }
    CHECK(rest.length == 0);
    CHECK(http_parse_request(rest, MAX_HEAD, &request) == HTTP_MORE);
    buf_free(&bytes);
}

static void limits_the_head(void)
{
    struct str bytes = STR("GET / HTTP/1.1\r\n" HOST "\r\nbehind");
    struct http_request request;
    size_t head = bytes.length - strlen("behind");

    for (size_t n = 0; n <= bytes.length; n++) {
        CHECK(parse_prefix(bytes, n, head, &request) == (n < head ? HTTP_MORE : HTTP_OK));
        /* one byte less: refused as soon as the limit is reached */
        CHECK(parse_prefix(bytes, n, head - 1, &request) == (n < head - 1 ? HTTP_MORE : HTTP_BAD));
        CHECK(request.status == (n < head - 1 ? 0 : 431));
    }
}

static void limits_the_headers(void)
{
    struct buf bytes = {0};
    struct http_request request;

    append_text(&bytes, "GET / HTTP/1.1\r\n" HOST);
    for (int count = 1; count <= HTTP_HEADERS_MAX + 1; count++) {
        size_t length = bytes.length;
        bool good = count <= HTTP_HEADERS_MAX;

        append_text(&bytes, "\r\n");
        CHECK(parse_prefix(str_of(&bytes), bytes.length, MAX_HEAD, &request) ==
              (good ? HTTP_OK : HTTP_BAD));
        CHECK(request.status == (good ? 0 : 431));
        CHECK(good || str_equal(str_from(request.error), STR("more than 100 header lines")));
        CHECK(request.header_count == (size_t)(good ? count : HTTP_HEADERS_MAX));
        bytes.length = length;
        append_text(&bytes, "X: y\r\n");
    }
    buf_free(&bytes);
}

static void finds_headers(void)
{
    struct str value = {0};
    struct http_request request;

    CHECK(http_parse_request(STR("GET / HTTP/1.1\r\n" HOST "X-A:  1 \r\nx-a: 2\r\nX-AB: 3" END),
                             MAX_HEAD, &request) == HTTP_OK);
    CHECK(http_header(&request, STR("x-A"), &value) == 2 && str_equal(value, STR("1")));
    CHECK(http_header(&request, STR("X-Ab"), &value) == 1 && str_equal(value, STR("3")));
    CHECK(http_header(&request, STR("X-"), &value) == 0 && str_equal(value, STR("3")));
}

/* RFC 9112, section 3.2.2: the authority of an absolute target goes before Host. */
static void knows_whom_it_is_for(void)
{
    static const struct {
        const char *target, *host, *meant, *name;
    } rows[] = {
        {"/", "a", "a", "a"},
        {"/", "a:80", "a:80", "a"},
        {"/", "a:", "a:", "a"},
        {"/", "80", "80", "80"},
        {"/", ":80", ":80", ""},
        {"/", "1.2.3.4", "1.2.3.4", "1.2.3.4"},
        {"/", "[::1]", "[::1]", "[::1]"},
        {"/", "[::1]:80", "[::1]:80", "[::1]"},
        {"/", "", "", ""},
        {"http://b/a", "a", "b", "b"},
        {"http://b:1?a", "a:2", "b:1", "b"},
        {"https://[::1]:80", "", "[::1]:80", "[::1]"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct http_request request;
        char head[200];

        snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", rows[i].target,
                 rows[i].host);
        CHECK(http_parse_request(str_from(head), MAX_HEAD, &request) == HTTP_OK);
        CHECK(str_equal(request.host, str_from(rows[i].meant)));
        CHECK(str_equal(http_host_name(request.host), str_from(rows[i].name)));
    }
}

static void finds_tokens_in_lists(void)
{
    static const struct {
        struct str token;
        bool there;
    } tokens[] = {
        {STR_INIT("upgrade"), true},    {STR_INIT("KEEP-ALIVE"), true}, {STR_INIT("b"), true},
        {STR_INIT("a b"), true},        {STR_INIT("last"), true},       {STR_INIT("keep"), false},
        {STR_INIT("upgraded"), false},  {STR_INIT("a"), false},         {STR_INIT("x"), false},
        {STR_INIT("upgrade,b"), false},
    };
    struct http_request request;

    CHECK(
        http_parse_request(STR("GET / HTTP/1.1\r\n" HOST "Connection: keep-alive,\t Upgrade ,,b\r\n"
                               "Other: x\r\nCONNECTION: a b,last" END),
                           MAX_HEAD, &request) == HTTP_OK);
    for (size_t i = 0; i < COUNT(tokens); i++)
        name_failed("tokens", i,
                    CHECK(http_header_has(&request, STR("connection"), tokens[i].token) ==
                          tokens[i].there));
    CHECK(!http_header_has(&request, STR("Missing"), STR("x")));
}

static void decodes_query_parameters(void)
{
    static const struct {
        struct str query, name, value;
        bool there;
    } queries[] = {
        {STR_INIT("systemId=x"), STR_INIT("systemId"), STR_INIT("x"), true},
        {STR_INIT("a=1&b=2&b=3"), STR_INIT("b"), STR_INIT("2"), true},
        {STR_INIT("a=1&&ab=2&"), STR_INIT("ab"), STR_INIT("2"), true},
        {STR_INIT("a=b=c?d"), STR_INIT("a"), STR_INIT("b=c?d"), true},
        {STR_INIT("a=%41%5a%7E%2f%2F"), STR_INIT("a"), STR_INIT("AZ~//"), true},
        {STR_INIT("a=%00%ff%26b=1"), STR_INIT("a"), STR_INIT("\0\xff&b=1"), true},
        {STR_INIT("a=1+1"), STR_INIT("a"), STR_INIT("1+1"), true},
        {STR_INIT("a="), STR_INIT("a"), STR_INIT(""), true},
        {STR_INIT("a"), STR_INIT("a"), STR_INIT(""), true},
        {STR_INIT("A=1"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("ab=1"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("b=a"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT(""), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%4"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%4&b=1"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%4g"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%g4"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=%%41"), STR_INIT("a"), STR_INIT(""), false},
        {STR_INIT("a=12345678901234567"), STR_INIT("a"), STR_INIT(""), false}, /* the limit is 16 */
    };

    for (size_t i = 0; i < COUNT(queries); i++) {
        struct buf out = {.limit = 16};
        char *copy = exact_bytes(queries[i].query);
        struct str query = {copy, queries[i].query.length};
        bool there = http_query(query, queries[i].name, &out);

        name_failed("queries", i,
                    CHECK(there == queries[i].there) &&
                        CHECK(!there || str_equal(str_of(&out), queries[i].value)));
        buf_free(&out);
        free(copy);
    }
    CHECK(!http_query((struct str){0}, STR("a"), &(struct buf){0}));
}

/* A chunked body on its way: what has arrived lies in memory of exactly its size. */
struct body {
    struct http_chunks chunks;
    char *at;
    size_t length, max;
    enum http_result result;
    int status;
};

static void body_arrives(struct body *body, struct str piece)
{
    char *at = malloc(body->length + piece.length + 1);

    if (!at)
        abort();
    if (body->length)
        memcpy(at, body->at, body->length);
    if (piece.length)
        memcpy(at + body->length, piece.at, piece.length);
    body->length += piece.length;
    free(body->at);
    body->at = exact_bytes((struct str){at, body->length});
    free(at);
    if (body->result == HTTP_MORE)
        body->result =
            http_read_chunks(&body->chunks, body->at, &body->length, body->max, &body->status);
}

/* Writes "OK content|what follows", "MORE content" or "BAD status". */
static void describe_body(const struct body *body, struct buf *out)
{
    append_text(out, body->result == HTTP_OK     ? "OK "
                     : body->result == HTTP_MORE ? "MORE "
                                                 : "BAD ");
    if (body->result == HTTP_BAD) {
        buf_append_number(out, body->status);
        return;
    }
    buf_append(out, (struct str){body->at, body->chunks.length});
    if (body->result == HTTP_OK) {
        append_text(out, "|");
        buf_append(
            out, (struct str){body->at + body->chunks.length, body->length - body->chunks.length});
    }
}

/* Feeds a body in two pieces, or byte by byte if `first` is past the end. */
static bool body_gives(struct str bytes, size_t max, size_t first, struct str wanted)
{
    struct body body = {.max = max, .result = HTTP_MORE};
    struct buf text = {0};
    bool good;

    if (first <= bytes.length) {
        body_arrives(&body, (struct str){bytes.at, first});
        body_arrives(&body, (struct str){bytes.at + first, bytes.length - first});
    } else {
        for (size_t i = 0; i < bytes.length; i++)
            body_arrives(&body, (struct str){bytes.at + i, 1});
    }
    describe_body(&body, &text);
    good = CHECK(str_equal(str_of(&text), wanted));
    if (!good)
        printf("     cut at %zu: %.*s\n", first, (int)text.length, text.at);
    buf_free(&text);
    free(body.at);
    return good;
}

static bool body_gives_at_every_cut(struct str bytes, size_t max, struct str wanted)
{
    bool good = true;

    for (size_t first = 0; good && first <= bytes.length + 1; first++)
        good = body_gives(bytes, max, first, wanted);
    return good;
}

static const struct {
    struct str bytes, wanted;
} bodies[] = {
    /* RFC 9112, 7.1 */
    {STR_INIT("0" END), STR_INIT("OK |")},
    {STR_INIT("5\r\nhello\r\n0" END), STR_INIT("OK hello|")},
    {STR_INIT("5\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0" END), STR_INIT("OK hello, world|")},
    {STR_INIT("6\r\n\r\n\0\r\n0\r\n0" END), STR_INIT("OK \r\n\0\r\n0|")},
    {STR_INIT("a\r\n0123456789\r\nA\r\n0123456789\r\n0" END), STR_INIT("OK 01234567890123456789|")},
    {STR_INIT("00000000000000A\r\n0123456789\r\n000" END), STR_INIT("OK 0123456789|")},
    {STR_INIT("0" END "GET / HTTP/1.1\r\n"), STR_INIT("OK |GET / HTTP/1.1\r\n")},
    {STR_INIT("2\r\nhi\r\n0" END "0" END), STR_INIT("OK hi|0\r\n\r\n")},
    {STR_INIT("64\r\n0123456789012345678901234567890123456789012345678901234567890123456789"
              "012345678901234567890123456789\r\n0" END),
     STR_INIT("OK 01234567890123456789012345678901234567890123456789012345678901234567890123456789"
              "01234567890123456789|")},
    /* 7.1.1: extensions, 7.1.2: trailers; both are ignored */
    {STR_INIT("2;a\r\nhi\r\n0;b=c;d=\"e;\tf\"" END), STR_INIT("OK hi|")},
    {STR_INIT("2;a;b\r\nhi\r\n0; \ta \t=\t \"\\\"\\\\\xff\"; b\t= c ;d" END), STR_INIT("OK hi|")},
    {STR_INIT("2\r\nhi\r\n0\r\nA: b\r\nC:\r\n\r\nmore"), STR_INIT("OK hi|more")},
    /* not whole */
    {STR_INIT(""), STR_INIT("MORE ")},
    {STR_INIT("5"), STR_INIT("MORE ")},
    {STR_INIT("5\r"), STR_INIT("MORE ")},
    {STR_INIT("5\r\nhel"), STR_INIT("MORE hel")},
    {STR_INIT("5\r\nhello"), STR_INIT("MORE hello")},
    {STR_INIT("5\r\nhello\r\n0\r\n"), STR_INIT("MORE hello")},
    {STR_INIT("5\r\nhello\r\n0\r\nA: b\r\n\r"), STR_INIT("MORE hello")},
    /* sizes that are none */
    {STR_INIT("\r\nhi"), STR_INIT("BAD 400")},
    {STR_INIT(";a\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("g\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("-1\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("+1\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("0x1\r\n"), STR_INIT("BAD 400")},
    {STR_INIT(" 1\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1 \r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a\rb\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a\0b\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("0000000000000001\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("ffffffffffffffff\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("10000000000000001\r\n"), STR_INIT("BAD 400")},
    /* extensions that are none */
    {STR_INIT("1;\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;;a\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;=a\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a=\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a=b c\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a b\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a=\"b\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a=\"b\\\"\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;a=\"b\"c\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1;\xe4\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("1,a\r\n"), STR_INIT("BAD 400")},
    /* data that is longer or shorter than was said */
    {STR_INIT("2\r\nhi!\r\n0" END), STR_INIT("BAD 400")},
    {STR_INIT("2\r\nhi0" END), STR_INIT("BAD 400")},
    {STR_INIT("2\r\nhi\n0" END), STR_INIT("BAD 400")},
    {STR_INIT("3\r\nhi\r\n0" END), STR_INIT("BAD 400")},
    {STR_INIT("4\r\nhi\r\n0" END), STR_INIT("BAD 400")},
    /* trailers that are none */
    {STR_INIT("0\r\nA" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA: b\r\n c: d" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\n A: b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\n: b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA : b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA(: b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA\xe4: b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA\0: b" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA: b\rC: d" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nGET / HTTP/1.1\r\nHost: a" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA: b\n\r\n"), STR_INIT("BAD 400")},
    {STR_INIT("0\r\nA: \0" END), STR_INIT("BAD 400")},
    {STR_INIT("0\r\n\n"), STR_INIT("BAD 400")},
    /* more than the 100 bytes allowed: refused before the data has come */
    {STR_INIT("65\r\n"), STR_INIT("BAD 413")},
    {STR_INIT("5\r\nhello\r\n60\r\n"), STR_INIT("BAD 413")},
    {STR_INIT("fffffffffffffff\r\n"), STR_INIT("BAD 413")},
};

/* RFC 9110, section 6.5.1: fields of the head, in whatever case, and names that only look alike. */
static void knows_what_may_trail(void)
{
    static const struct {
        const char *line;
        bool good;
    } rows[] = {
        {"Content-Length: 5", false},
        {"transfer-encoding: x", false},
        {"HOST: a", false},
        {"Connection: close", false},
        {"Upgrade: x", false},
        {"Expect: 100-continue", false},
        {"TE: x", false},
        {"Trailer: x", false},
        {"Content-Type: x", false},
        {"Content-Range: x", false},
        {"Content-Encoding: x", false},
        {"Authorization: x", false},
        {"Cookie: x", false},
        {"Token: x", false},
        {"Register-Key: x", false},
        {"Origin: x", false},
        {"Sec-Fetch-Site: x", false},
        {"X-Forwarded-For: x", false},
        {"A: b\r\nHost: a\r\nC: d", false},
        {"Content-Lengt: 5", true},
        {"Content-Length5: 5", true},
        {"X-Host: a", true},
        {"Hos: a", true},
        {"Digest: x", true},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char bytes[100];

        snprintf(bytes, sizeof bytes, "2\r\nhi\r\n0\r\n%s\r\n\r\n", rows[i].line);
        name_failed("rows", i,
                    body_gives_at_every_cut(str_from(bytes), 100,
                                            rows[i].good ? STR("OK hi|") : STR("BAD 400")));
    }
}

static void decodes_chunks(void)
{
    for (size_t i = 0; i < COUNT(bodies); i++)
        name_failed("bodies", i, body_gives_at_every_cut(bodies[i].bytes, 100, bodies[i].wanted));
}

/* A line of a chunk's size may have 256 bytes, a trailer fewer than 4,096 in all. */
static void limits_chunk_lines(void)
{
    static const struct {
        const char *before, *after, *wanted;
        size_t filled;
    } lines[] = {
        {"0;", END, "OK |", 254},
        {"0;", END, "BAD 400", 255},
        {"0\r\nA:", END, "OK |", 4093},
        {"0\r\nA:", END, "BAD 400", 4094},
        {"0;", "", "BAD 400", 300},
        {"0\r\nA:", "", "BAD 400", 4200},
        {"0\r\nA:", "\r\nB:" END, "OK |", 4091},
        {"0\r\nA:", "\r\nB:" END, "BAD 400", 4092},
    };

    for (size_t i = 0; i < COUNT(lines); i++) {
        struct buf bytes = {0};
        struct str wanted = str_from(lines[i].wanted);
        bool good;

        append_text(&bytes, lines[i].before);
        while (lines[i].filled + strlen(lines[i].before) > bytes.length)
            append_text(&bytes, "x");
        append_text(&bytes, lines[i].after);
        good = body_gives(str_of(&bytes), 100, 0, wanted);
        for (size_t back = 0; back <= 8; back++)
            good &= body_gives(str_of(&bytes), 100, bytes.length - back, wanted);
        good &= body_gives(str_of(&bytes), 100, SIZE_MAX, wanted);
        name_failed("lines", i, good);
        buf_free(&bytes);
    }
}

static const struct {
    struct http_response answer;
    const char *bytes;
} answers[] = {
    {{.status = 200, .body = STR_INIT("{}")},
     "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
     "Content-Length: 2\r\n" UNCACHED "\r\n{}"},
    {{.status = 405,
      .date = STR_INIT("Sun, 06 Nov 1994 08:49:37 GMT"),
      .allow = "GET, POST",
      .retry_after = 7,
      .close = true,
      .keep_alive = true,
      .fields = "A: b\r\nC: d\r\n",
      .body = STR_INIT("[1]")},
     "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
     "Allow: GET, POST\r\nRetry-After: 7\r\nConnection: close\r\n"
     "Content-Type: application/json; charset=utf-8\r\nContent-Length: 3\r\n" UNCACHED
     "A: b\r\nC: d\r\n\r\n[1]"},
    {{.status = 404, .keep_alive = true, .head = true, .body = STR_INIT("0123456789")},
     "HTTP/1.1 404 Not Found\r\nConnection: keep-alive\r\n"
     "Content-Type: application/json; charset=utf-8\r\nContent-Length: 10\r\n" UNCACHED "\r\n"},
    {{.status = 401, .timeout = 74, .body = STR_INIT("{}")},
     "HTTP/1.1 401 Unauthorized\r\nKeep-Alive: timeout=74\r\nWWW-Authenticate: Token\r\n"
     "Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n" UNCACHED "\r\n{}"},
    {{.status = 200, .timeout = 74, .close = true, .type = "text/plain"},
     "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n"
     "Content-Length: 0\r\n\r\n"},
    {{.status = 304,
      .type = "text/html",
      .fields = "A: b\r\n",
      .head = true,
      .body = STR_INIT("x")},
     "HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nContent-Length: 1\r\nA: b\r\n\r\n"},
};

static void writes_answers(void)
{
    for (size_t i = 0; i < COUNT(answers); i++) {
        struct buf out = {0}, full = {.limit = strlen(answers[i].bytes) - 1};

        http_write_response(&out, &answers[i].answer);
        name_failed("answers", i, CHECK(str_equal(str_of(&out), str_from(answers[i].bytes))));
        http_write_response(&full, &answers[i].answer);
        CHECK(!out.failed && full.failed);
        buf_free(&out);
        buf_free(&full);
    }
}

static void writes_every_status(void)
{
    static const struct {
        int status;
        const char *line;
    } lines[] = {
        {200, "HTTP/1.1 200 OK\r\n"},
        {304, "HTTP/1.1 304 Not Modified\r\n"},
        {400, "HTTP/1.1 400 Bad Request\r\n"},
        {401, "HTTP/1.1 401 Unauthorized\r\n"},
        {403, "HTTP/1.1 403 Forbidden\r\n"},
        {404, "HTTP/1.1 404 Not Found\r\n"},
        {405, "HTTP/1.1 405 Method Not Allowed\r\n"},
        {408, "HTTP/1.1 408 Request Timeout\r\n"},
        {413, "HTTP/1.1 413 Content Too Large\r\n"},
        {415, "HTTP/1.1 415 Unsupported Media Type\r\n"},
        {417, "HTTP/1.1 417 Expectation Failed\r\n"},
        {426, "HTTP/1.1 426 Upgrade Required\r\n"},
        {429, "HTTP/1.1 429 Too Many Requests\r\n"},
        {431, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
        {500, "HTTP/1.1 500 Internal Server Error\r\n"},
        {501, "HTTP/1.1 501 Not Implemented\r\n"},
        {503, "HTTP/1.1 503 Service Unavailable\r\n"},
        {505, "HTTP/1.1 505 HTTP Version Not Supported\r\n"},
    };

    for (size_t i = 0; i < COUNT(lines); i++) {
        struct buf out = {0};

        http_write_response(&out, &(struct http_response){.status = lines[i].status});
        CHECK(out.length > strlen(lines[i].line));
        out.length = strlen(lines[i].line);
        name_failed("lines", i, CHECK(str_equal(str_of(&out), str_from(lines[i].line))));
        buf_free(&out);
    }
}

static void writes_dates(void)
{
    static const struct {
        int64_t seconds;
        const char *text;
    } dates[] = {
        {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"}, /* the example of RFC 9110, 5.6.7 */
        {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
        {951868799, "Tue, 29 Feb 2000 23:59:59 GMT"},
        {1709164800, "Thu, 29 Feb 2024 00:00:00 GMT"},
        {1234567890, "Fri, 13 Feb 2009 23:31:30 GMT"},
        {1678158735, "Tue, 07 Mar 2023 03:12:15 GMT"},
        {1680927380, "Sat, 08 Apr 2023 04:16:20 GMT"},
        {1683609625, "Tue, 09 May 2023 05:20:25 GMT"},
        {1686378270, "Sat, 10 Jun 2023 06:24:30 GMT"},
        {1689060515, "Tue, 11 Jul 2023 07:28:35 GMT"},
        {1691829160, "Sat, 12 Aug 2023 08:32:40 GMT"},
        {1694597805, "Wed, 13 Sep 2023 09:36:45 GMT"},
        {1697280050, "Sat, 14 Oct 2023 10:40:50 GMT"},
        {1675649290, "Mon, 06 Feb 2023 02:08:10 GMT"},
        {4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"},
    };

    for (size_t i = 0; i < COUNT(dates); i++) {
        char text[30];

        if ((time_t)dates[i].seconds != dates[i].seconds)
            continue; /* beyond the clock of a machine whose time_t has 32 bits */
        memset(text, 'x', sizeof text);
        http_date(dates[i].seconds, text);
        name_failed("dates", i, CHECK(text[29] == '\0' && strcmp(text, dates[i].text) == 0));
    }
}

int main(void)
{
    test_run("http accepts requests, whole and at every prefix", accepts_requests);
    test_run("http refuses requests, whole and at every prefix", refuses_requests);
    test_run("http knows which byte may stand where", knows_every_byte);
    test_run("http takes pipelined requests one by one", takes_pipelined_requests);
    test_run("http limits the length of the head", limits_the_head);
    test_run("http limits the number of headers", limits_the_headers);
    test_run("http finds headers", finds_headers);
    test_run("http knows whom a request is for", knows_whom_it_is_for);
    test_run("http finds tokens in lists", finds_tokens_in_lists);
    test_run("http decodes query parameters", decodes_query_parameters);
    test_run("http decodes chunked bodies, cut at every place", decodes_chunks);
    test_run("http knows which fields may trail a body", knows_what_may_trail);
    test_run("http limits the lines of chunked bodies", limits_chunk_lines);
    test_run("http writes answers byte for byte", writes_answers);
    test_run("http writes every status", writes_every_status);
    test_run("http writes dates", writes_dates);
    return test_finish();
}

/* test_http.c - HTTP/1.1 (RFC 9110, RFC 9112): every request and every chunked body is fed whole,
 * byte by byte and cut at every place, each time in memory of exactly its size. */
#include "http.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOST "Host: a\r\n"
#define END "\r\n\r\n"
#define REST " HTTP/1.1\r\n" HOST "\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST
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
    {STR_INIT(GET "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET / HTTP/1.0" END), "GET|/||0||0|"},
    {STR_INIT("GET / HTTP/1.2\r\n" HOST "\r\n"), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("get /" REST), "get|/||1|k|0|Host=a;"},
    {STR_INIT("M-SEARCH /~a" REST), "M-SEARCH|/~a||1|k|0|Host=a;"},
    {STR_INIT("GET /ws?systemId=x" REST), "GET|/ws|systemId=x|1|k|0|Host=a;"},
    {STR_INIT("GET //a//b?c?d=/" REST), "GET|//a//b|c?d=/|1|k|0|Host=a;"},
    {STR_INIT("GET /?" REST), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET /%00%20" REST), "GET|/%00%20||1|k|0|Host=a;"},
    /* RFC 9112, 3.2.2 and 3.2.4: absolute form, asterisk form */
    {STR_INIT("GET http://a.example/b?c" REST), "GET|/b|c|1|k|0|Host=a;"},
    {STR_INIT("GET HTTPS://a:1/" REST), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET http://a" REST), "GET|/||1|k|0|Host=a;"},
    {STR_INIT("GET http://a?x=1" REST), "GET|/|x=1|1|k|0|Host=a;"},
    {STR_INIT("GET http://a?b/c" REST), "GET|/|b/c|1|k|0|Host=a;"},
    {STR_INIT("OPTIONS *" REST), "OPTIONS|*||1|k|0|Host=a;"},
    /* RFC 9112, 2.2: one empty line before the request */
    {STR_INIT("\r\nGET /" REST), "GET|/||1|k|0|Host=a;"},
    /* RFC 9110, 5.5 and 5.6.2: values and names */
    {STR_INIT("GET / HTTP/1.1\r\nhOST:a\r\nX: \t b \tc\t \r\n\r\n"),
     "GET|/||1|k|0|hOST=a;X=b \tc;"},
    {STR_INIT("GET / HTTP/1.1\r\nHost:\r\nX:\r\nY:  \r\n\r\n"), "GET|/||1|k|0|Host=;X=;Y=;"},
    {STR_INIT("GET / HTTP/1.1\r\nHost: [::1]:80\r\n!#$%&'*+-.^_`|~09azAZ: :\xff\x80\r\n\r\n"),
     "GET|/||1|k|0|Host=[::1]:80;!#$%&'*+-.^_`|~09azAZ=:\xff\x80;"},
    /* RFC 9112, 9.3: whether the connection stays */
    {STR_INIT(GET "connection: x, CLOSE ,y\r\n\r\n"), "GET|/||1||0|Host=a;connection=x, CLOSE ,y;"},
    {STR_INIT("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
     "GET|/||0|k|0|Connection=Keep-Alive;"},
    {STR_INIT("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"),
     "GET|/||0||0|Connection=keep-alive;Connection=close;"},
    /* RFC 9112, 6: the length of the body */
    {STR_INIT(POST "Content-Length: 5\r\n\r\nhello"), "POST|/||1|k|5|Host=a;Content-Length=5;"},
    {STR_INIT(POST "Content-Length: 00012" END), "POST|/||1|k|12|Host=a;Content-Length=00012;"},
    {STR_INIT(POST "Content-Length: 9223372036854775807" END),
     "POST|/||1|k|9223372036854775807|Host=a;Content-Length=9223372036854775807;"},
    {STR_INIT(POST "Transfer-Encoding: \t chunked\t \r\n\r\n0" END),
     "POST|/||1|kc|0|Host=a;Transfer-Encoding=chunked;"},
    {STR_INIT(POST "Transfer-Encoding: Chunked\r\n\r\n0" END),
     "POST|/||1|kc|0|Host=a;Transfer-Encoding=Chunked;"},
    /* RFC 9110, 10.1.1 */
    {STR_INIT(POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n1"),
     "POST|/||1|ke|1|Host=a;Expect=100-Continue;Content-Length=1;"},
    {STR_INIT("POST / HTTP/1.0\r\nExpect: 100-continue" END), "POST|/||0||0|Expect=100-continue;"},
};

/* Requests that are refused: each of `middles`, separated by |, stands between `before` and
 * `after`. */
static const struct {
    int status;
    const char *before, *after;
    struct str middles;
} refused[] = {
    /* RFC 9112, 3: the request line */
    {400, "", "", STR_INIT("GET /\r\n\r\n|GET\r\n\r\n|\x16\x03\x01\x02" /* TLS */)},
    {400, "", "\r\n" HOST "\r\n",
     STR_INIT("GET  HTTP/1.1|GET  / HTTP/1.1|GET /  HTTP/1.1| GET / HTTP/1.1|GET / HTTP/1.1 |"
              "GET\t/ HTTP/1.1|GET /\tHTTP/1.1|G(T / HTTP/1.1|GET / HTTP/1.|GET / HTTP/1.10|"
              "GET / HTTP/1x1|GET / HTTP/1.x|GET / HTTP/x.1|GET / http/1.1|"
              "\r\n\r\nGET / HTTP/1.1")},
    {505, "", "\r\n" HOST "\r\n", STR_INIT("GET / HTTP/2.0|GET / HTTP/0.9")},
    /* RFC 9112, 3.2: the target */
    {400, "", "\r\n" HOST "\r\n",
     STR_INIT("GET a HTTP/1.1|GET * HTTP/1.1|OPTIONS ** HTTP/1.1|CONNECT a:80 HTTP/1.1|"
              "GET ?a HTTP/1.1|GET ftp://a/ HTTP/1.1|GET http:/a HTTP/1.1|"
              "GET http:///a HTTP/1.1|GET http:// HTTP/1.1|GET http://?a HTTP/1.1|"
              "GET http://user@a/ HTTP/1.1|GET http://a:b/ HTTP/1.1|GET http://a\\b/ HTTP/1.1|"
              "GET /a#b HTTP/1.1|GET /\xc3\xa4 HTTP/1.1")},
    /* RFC 9112, 2.2: CR and LF come in pairs, and no line has control bytes */
    {400, "", "",
     STR_INIT("GET / HTTP/1.1\nHost: a\r\n\r\n|GET / HTTP/1.1\r\nHost: a\n\r\n|"
              "GET / HTTP/1.1\r\nHost: a\r\n\n|GET / HTTP/1.1\r\nHost: a\r\n\rX")},
    {400, "GET / HTTP/1.1\r\nHost: ", END, STR_INIT("a\rb|a\r")},
    {400, GET, END, STR_INIT("X: a\0b")},
    {400, "", "\r\n" HOST "\r\n", STR_INIT("GET /\0 HTTP/1.1")},
    /* RFC 9112, 5: header lines */
    {400, GET, END, STR_INIT("X : a|X: a\r\n b|X: a\r\n\tb: c|X|: a|X\xc3\xa4: a")},
    {400, "", "", STR_INIT("GET / HTTP/1.1\r\n Host: a\r\n\r\n")},
    /* RFC 9112, 3.2: Host */
    {400, "", "",
     STR_INIT("GET / HTTP/1.1\r\n\r\n|GET / HTTP/1.1\r\nX: a\r\n\r\n|"
              "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n|"
              "GET / HTTP/1.0\r\nHost: \xc3\xa4\r\n\r\n")},
    {400, GET, END, STR_INIT("Host: a")},
    {400, "GET / HTTP/1.1\r\nHost: ", END,
     STR_INIT("a b|a/b|user@a|a:80:80|a:8x|::1|a[::1]|[::1|[]|[::1]a|a, b")},
    /* RFC 9112, 6: the length of the body is said once and without doubt */
    {400, POST "Content-Length: ", END,
     STR_INIT("5\r\nContent-Length: 5|5, 5|+5|-5|5 5|0x5|5.0|18446744073709551616|"
              "000000000000000000005|5\r\nTransfer-Encoding: chunked")},
    {400, "", "",
     STR_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n|"
              "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")},
    {400, POST "Transfer-Encoding: ", END, STR_INIT("chunked\r\nContent-Length: 5")},
    /* 6.1 and 6.3: chunked is the last coding, once (else 400), and the only one (else 501) */
    {400, POST "Transfer-Encoding: ", END,
     STR_INIT("gzip|identity|xchunked|chunkedx|chunked;a=b|\"chunked\"|chunked,|chunked, gzip|"
              "chunked, chunked|chunked\r\nTransfer-Encoding: chunked|"
              "chunked\r\nTransfer-Encoding: gzip|chunked\r\nTransfer-Encoding:|chunked\v|"
              "\vchunked|chunked\0")},
    {400, "", "", STR_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n")},
    {501, POST "Transfer-Encoding: ", END,
     STR_INIT("gzip, chunked|, chunked|identity, chunked|gzip\r\nTransfer-Encoding: chunked")},
    /* RFC 9110, 10.1.1 */
    {417, "", "",
     STR_INIT("POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n|"
              "POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n")},
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
        for (struct str rest = refused[i].middles; rest.at;) {
            struct buf bytes = {0};

            append_text(&bytes, refused[i].before);
            buf_append(&bytes, str_cut(&rest, '|'));
            append_text(&bytes, refused[i].after);
            if (!refused_at_every_prefix(str_of(&bytes), refused[i].status))
                printf("     in row %zu: %.*s\n", i, (int)bytes.length, bytes.at);
            buf_free(&bytes);
        }
}

/* True if `ranges` has the byte: each two of its bytes are the first and the last of a range. */
static bool is_in(const char *ranges, int byte)
{
    for (; *ranges; ranges += 2)
        if (byte >= (unsigned char)ranges[0] && byte <= (unsigned char)ranges[1])
            return true;
    return false;
}

/* Every byte at a place of each kind; '?' marks the place. */
static void knows_every_byte(void)
{
    static const struct {
        struct str bytes;
        const char *allowed;
    } places[] = {
        /* RFC 9110, 9.1 and 5.6.2: a token; 5.1: the same, and the colon before the value; 5.5 */
        {STR_INIT("G?T / HTTP/1.1\r\n" HOST "\r\n"), "!!#'*+-.09AZ^z||~~"},
        {STR_INIT("GET / HTTP/1.1\r\n" HOST "X?Y: a" END), "!!#'*+-.0:AZ^z||~~"},
        {STR_INIT("GET / HTTP/1.1\r\n" HOST "X: a?b" END), "\t\t ~\x80\xff"},
        {STR_INIT("GET /a?b HTTP/1.1\r\n" HOST "\r\n"), "!\"$~"},
        /* RFC 3986, 3.2.2 and 3.2.3 */
        {STR_INIT("GET / HTTP/1.1\r\nHost: a?b" END), "!!$.09;;==AZ__az~~"},
        {STR_INIT("GET / HTTP/1.1\r\nHost: [a?b]" END), "..0:AZaz"},
        {STR_INIT("GET / HTTP/1.1\r\nHost: a:0?9" END), "09"},
    };
    struct http_request request;

    for (size_t i = 0; i < COUNT(places); i++) {
        struct str bytes = places[i].bytes;
        char *copy = exact_bytes(bytes), *place = memchr(copy, '?', bytes.length);
        bool good = true;

        for (int byte = 0; good && byte < 256; byte++) {
            enum http_result wanted = is_in(places[i].allowed, byte) ? HTTP_OK : HTTP_BAD;

            *place = (char)byte;
            good = CHECK(http_parse_request((struct str){copy, bytes.length}, MAX_HEAD, &request) ==
                         wanted);
            if (!good)
                printf("     byte %d in place %zu\n", byte, i);
        }
        free(copy);
    }
}

/* What is understood of responses: status|flags|content length. */
static const struct {
    struct str bytes;
    const char *meaning;
} responses[] = {
    {STR_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "200|k|5"},
    {STR_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close" END), "200||5"},
    {STR_INIT("HTTP/1.0 200 OK\r\nContent-Length: 5" END), "200||5"},
    {STR_INIT("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5" END), "200|k|5"},
    {STR_INIT("HTTP/1.1 999 What \xe4 phrase\r\nTransfer-Encoding: chunked" END), "999|kc|0"},
    {STR_INIT("HTTP/1.1 500 \r\nContent-Length: 0" END), "500|k|0"},
    {STR_INIT("HTTP/1.1 500\r\nContent-Length: 0" END), "500|k|0"},
    /* RFC 9112, 6.3: no body, and one that ends with the connection */
    {STR_INIT("HTTP/1.1 100 Continue" END), "100|k|0"},
    {STR_INIT("HTTP/1.1 204 No Content\r\nContent-Length: 5" END), "204|k|0"},
    {STR_INIT("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked" END), "304|k|0"},
    {STR_INIT("HTTP/1.1 200 OK" END), "200||all"},
    {STR_INIT("HTTP/1.1 200 OK\r\nConnection: keep-alive" END), "200||all"},
};

static struct str bad_responses = STR_INIT(
    "GET / HTTP/1.1|HTTP/2.0 200 OK|http/1.1 200 OK|HTTP/1.1 20 OK|HTTP/1.1 2000 OK|HTTP/1.1 0200 OK|"
    "HTTP/1.1 099 OK|HTTP/1.1 +20 OK|HTTP/1.1  200 OK|HTTP/1.1|HTTP/1.1 200 O\nK|ICY 200 OK|"
    "HTTP/1.1 200 OK\r\n X: a|HTTP/1.1 200 OK\r\nX|HTTP/1.1 200 OK\r\nX\n: a|"
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1|"
    "HTTP/1.1 200 OK\r\nContent-Length: -1|"
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked|"
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked|"
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked");

/* Parses an exact copy of the first `length` bytes; writes what is understood of a whole head. */
static enum http_result parse_response(struct str bytes, size_t length, struct buf *meaning)
{
    char *copy = exact_bytes((struct str){bytes.at, length});
    struct http_request head;
    enum http_result result;

    memset(&head, 0x5a, sizeof head);
    result = http_parse_response((struct str){copy, length}, MAX_HEAD, &head);
    CHECK((result == HTTP_BAD) == (head.error != NULL));
    if (result == HTTP_OK) {
        buf_print(meaning, "%d|%s%s|", head.status, head.keep_alive ? "k" : "",
                  head.chunked ? "c" : "");
        if (head.content_length == UINT64_MAX)
            append_text(meaning, "all");
        else
            buf_append_number(meaning, (int64_t)head.content_length);
        CHECK(head.head_length == length_of_head(bytes));
    }
    free(copy);
    return result;
}

static void takes_responses(void)
{
    for (size_t i = 0; i < COUNT(responses); i++)
        for (size_t n = 0; n <= responses[i].bytes.length; n++) {
            struct str bytes = responses[i].bytes;
            struct buf meaning = {0};
            bool whole = n >= length_of_head(bytes);

            name_failed(
                "responses", i,
                CHECK(parse_response(bytes, n, &meaning) == (whole ? HTTP_OK : HTTP_MORE)) &&
                    CHECK(!whole || str_equal(str_of(&meaning), str_from(responses[i].meaning))));
            buf_free(&meaning);
        }
}

/* Once bad, a response stays so, and none of its beginnings is whole. */
static void rejects_responses(void)
{
    for (struct str rest = bad_responses; rest.at;) {
        enum http_result result = HTTP_MORE;
        struct buf bytes = {0}, meaning = {0};

        buf_append(&bytes, str_cut(&rest, '|'));
        append_text(&bytes, END);
        for (size_t n = 0; n <= bytes.length; n++) {
            enum http_result before = result;

            result = parse_response(str_of(&bytes), n, &meaning);
            CHECK(result == HTTP_BAD || (result == HTTP_MORE && before == HTTP_MORE));
        }
        if (!CHECK(result == HTTP_BAD))
            printf("     in %.*s\n", (int)bytes.length, bytes.at);
        buf_free(&bytes);
        buf_free(&meaning);
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
    struct str there = STR("upgrade|KEEP-ALIVE|b|a b|last"),
               missing = STR("keep|upgraded|a|x|upgrade,b");
    struct http_request request;

    CHECK(
        http_parse_request(STR("GET / HTTP/1.1\r\n" HOST "Connection: keep-alive,\t Upgrade ,,b\r\n"
                               "Other: x\r\nCONNECTION: a b,last" END),
                           MAX_HEAD, &request) == HTTP_OK);
    while (there.at)
        CHECK(http_header_has(&request, STR("connection"), str_cut(&there, '|')));
    while (missing.at)
        CHECK(!http_header_has(&request, STR("connection"), str_cut(&missing, '|')));
    CHECK(!http_header_has(&request, STR("Missing"), STR("x")));
}

static void decodes_query_parameters(void)
{
    static const struct {
        struct str query, name, value;
    } queries[] = {
        {STR_INIT("systemId=x"), STR_INIT("systemId"), STR_INIT("x")},
        {STR_INIT("a=1&b=2&b=3"), STR_INIT("b"), STR_INIT("2")},
        {STR_INIT("a=1&&ab=2&"), STR_INIT("ab"), STR_INIT("2")},
        {STR_INIT("a=b=c?d"), STR_INIT("a"), STR_INIT("b=c?d")},
        {STR_INIT("a=%41%5a%7E%2f%2F"), STR_INIT("a"), STR_INIT("AZ~//")},
        {STR_INIT("a=%00%ff%26b=1"), STR_INIT("a"), STR_INIT("\0\xff&b=1")},
        {STR_INIT("a=1+1"), STR_INIT("a"), STR_INIT("1+1")},
        {STR_INIT("a="), STR_INIT("a"), STR_INIT("")},
        {STR_INIT("a"), STR_INIT("a"), STR_INIT("")},
    };
    struct str bad = STR("A=1|ab=1|b=a||a=%|a=%4|a=%4&b=1|a=%4g|a=%g4|a=%%41|"
                         "a=12345678901234567"); /* the limit is 16 */

    for (size_t i = 0; i < COUNT(queries); i++) {
        struct buf out = {.limit = 16};
        char *copy = exact_bytes(queries[i].query);
        struct str query = {copy, queries[i].query.length};

        name_failed("queries", i,
                    CHECK(http_query(query, queries[i].name, &out)) &&
                        CHECK(str_equal(str_of(&out), queries[i].value)));
        buf_free(&out);
        free(copy);
    }
    while (bad.at) {
        struct buf out = {.limit = 16};
        struct str query = exact_copy(str_cut(&bad, '|'));

        if (!CHECK(!http_query(query, STR("a"), &out)))
            printf("     with %.*s\n", (int)query.length, query.at);
        buf_free(&out);
        free_copy(query);
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
    struct buf all = {0};

    buf_append(&all, (struct str){body->at, body->length});
    buf_append(&all, piece);
    free(body->at);
    body->length = all.length;
    body->at = exact_bytes(str_of(&all));
    buf_free(&all);
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
};

/* Chunked bodies that are refused, separated by |. */
static const struct {
    int status;
    struct str bytes;
} bad_bodies[] = {
    /* sizes that are none */
    {400, STR_INIT("\r\nhi|;a\r\n|g\r\n|-1\r\n|+1\r\n|0x1\r\n| 1\r\n|1 \r\n|1\n|1;a\n|"
                   "1;a\rb\r\n|1;a\0b\r\n|0000000000000001\r\n|ffffffffffffffff\r\n|"
                   "10000000000000001\r\n")},
    /* extensions that are none */
    {400, STR_INIT("1;\r\n|1;;a\r\n|1;=a\r\n|1;a=\r\n|1;a=b c\r\n|1;a b\r\n|1;a=\"b\r\n|"
                   "1;a=\"b\\\"\r\n|1;a=\"b\"c\r\n|1;\xe4\r\n|1,a\r\n")},
    /* data that is longer or shorter than was said */
    {400, STR_INIT("2\r\nhi!\r\n0\r\n\r\n|2\r\nhi0\r\n\r\n|2\r\nhi\n0\r\n\r\n|"
                   "3\r\nhi\r\n0\r\n\r\n|4\r\nhi\r\n0\r\n\r\n")},
    /* trailers that are none */
    {400, STR_INIT("0\r\nA\r\n\r\n|0\r\nA: b\r\n c: d\r\n\r\n|0\r\n A: b\r\n\r\n|"
                   "0\r\n: b\r\n\r\n|0\r\nA : b\r\n\r\n|0\r\nA(: b\r\n\r\n|"
                   "0\r\nA\xe4: b\r\n\r\n|0\r\nA\0: b\r\n\r\n|0\r\nA: b\rC: d\r\n\r\n|"
                   "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n|0\r\nA: b\n\r\n|0\r\nA: \0\r\n\r\n|"
                   "0\r\n\n")},
    /* more than the 100 bytes allowed: refused before the data has come */
    {413, STR_INIT("65\r\n|5\r\nhello\r\n60\r\n|fffffffffffffff\r\n")},
};

/* RFC 9110, section 6.5.1: fields of the head, in whatever case, and names that only look alike. */
static void knows_what_may_trail(void)
{
    static const char *const lines[2] = {
        "Content-Length: 5|transfer-encoding: x|HOST: a|Connection: close|Upgrade: x|"
        "Expect: 100-continue|TE: x|Trailer: x|Content-Type: x|Content-Range: x|"
        "Content-Encoding: x|Authorization: x|Cookie: x|Token: x|Register-Key: x|Origin: x|"
        "Sec-Fetch-Site: x|X-Forwarded-For: x|A: b\r\nHost: a\r\nC: d",
        "Content-Lengt: 5|Content-Length5: 5|X-Host: a|Hos: a|Digest: x",
    };

    for (int good = 0; good < 2; good++)
        for (struct str rest = str_from(lines[good]); rest.at;) {
            struct str line = str_cut(&rest, '|');
            char bytes[100];

            snprintf(bytes, sizeof bytes, "2\r\nhi\r\n0\r\n%.*s\r\n\r\n", (int)line.length,
                     line.at);
            if (!body_gives_at_every_cut(str_from(bytes), 100,
                                         good ? STR("OK hi|") : STR("BAD 400")))
                printf("     with %s\n", bytes);
        }
}

static void decodes_chunks(void)
{
    for (size_t i = 0; i < COUNT(bodies); i++)
        name_failed("bodies", i, body_gives_at_every_cut(bodies[i].bytes, 100, bodies[i].wanted));
    for (size_t i = 0; i < COUNT(bad_bodies); i++)
        for (struct str rest = bad_bodies[i].bytes; rest.at;)
            name_failed("bad_bodies", i,
                        body_gives_at_every_cut(str_cut(&rest, '|'), 100,
                                                bad_bodies[i].status == 400 ? STR("BAD 400")
                                                                            : STR("BAD 413")));
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
    struct str rest = STR("200 OK|304 Not Modified|400 Bad Request|401 Unauthorized|403 Forbidden|"
                          "404 Not Found|405 Method Not Allowed|408 Request Timeout|"
                          "413 Content Too Large|415 Unsupported Media Type|417 Expectation Failed|"
                          "426 Upgrade Required|429 Too Many Requests|"
                          "431 Request Header Fields Too Large|500 Internal Server Error|"
                          "501 Not Implemented|503 Service Unavailable|"
                          "505 HTTP Version Not Supported");

    while (rest.at) {
        struct str line = str_cut(&rest, '|'), begin = line;
        struct buf out = {0};
        uint64_t status = 0;

        CHECK(str_number(str_cut(&begin, ' '), 999, &status));
        http_write_response(&out, &(struct http_response){.status = (int)status});
        if (!CHECK(out.length > 9 + line.length && out.at[9 + line.length] == '\r') ||
            !CHECK(memcmp(out.at, "HTTP/1.1 ", 9) == 0 &&
                   memcmp(out.at + 9, line.at, line.length) == 0))
            printf("     with status %d\n", (int)status);
        buf_free(&out);
    }
}

static void writes_dates(void)
{
    /* the first one is the example of RFC 9110, 5.6.7 */
    struct str rest =
        STR("784111777 Sun, 06 Nov 1994 08:49:37|0 Thu, 01 Jan 1970 00:00:00|"
            "951868799 Tue, 29 Feb 2000 23:59:59|1709164800 Thu, 29 Feb 2024 00:00:00|"
            "1234567890 Fri, 13 Feb 2009 23:31:30|"
            "1678158735 Tue, 07 Mar 2023 03:12:15|"
            "1680927380 Sat, 08 Apr 2023 04:16:20|"
            "1683609625 Tue, 09 May 2023 05:20:25|"
            "1686378270 Sat, 10 Jun 2023 06:24:30|"
            "1689060515 Tue, 11 Jul 2023 07:28:35|"
            "1691829160 Sat, 12 Aug 2023 08:32:40|"
            "1694597805 Wed, 13 Sep 2023 09:36:45|"
            "1697280050 Sat, 14 Oct 2023 10:40:50|"
            "1675649290 Mon, 06 Feb 2023 02:08:10|4102444799 Thu, 31 Dec 2099 23:59:59");

    while (rest.at) {
        struct str line = str_cut(&rest, '|'), number = str_cut(&line, ' ');
        uint64_t seconds = 0;
        char text[30], wanted[30];

        CHECK(str_number(number, INT64_MAX, &seconds));
        if ((uint64_t)(time_t)seconds != seconds)
            continue; /* beyond the clock of a machine whose time_t has 32 bits */
        snprintf(wanted, sizeof wanted, "%.*s GMT", (int)line.length, line.at);
        memset(text, 'x', sizeof text);
        http_date((int64_t)seconds, text);
        if (!CHECK(text[29] == '\0' && strcmp(text, wanted) == 0))
            printf("     wanted: %s\n", wanted);
    }
}

int main(void)
{
    test_run("http accepts requests, whole and at every prefix", accepts_requests);
    test_run("http refuses requests, whole and at every prefix", refuses_requests);
    test_run("http knows which byte may stand where", knows_every_byte);
    test_run("http takes responses, whole and at every prefix", takes_responses);
    test_run("http rejects responses, whole and at every prefix", rejects_responses);
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

/* http.c - HTTP/1.1: bytes to a view of a request or a response, and back.
 *
 * A request's head is parsed from its first byte each time, until it is whole: line by line, the
 * request line, then the header fields into an array of views, and at the end what they mean for
 * host, framing and persistence. Nothing is copied and nothing kept between calls, so the result
 * depends on the bytes alone, not on how they were cut into reads.
 *
 * Request smuggling is the hazard: two servers in a row that disagree where a request ends. So
 * whatever RFC 9112 lets a recipient repair is rejected here instead: bare LF, folded lines, a
 * space before a colon, doubled or contradicting length fields, unknown transfer codings.
 *
 * A chunked body is decoded in place, while it comes in: http_chunks says how far. Content moves
 * together at the body's beginning, behind it follows what is not decoded yet. */
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static enum http_result http_bad(struct http_request *request, int status, const char *error)
{
    request->status = status;
    request->error = error;
    return HTTP_BAD;
}

static bool http_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* True for letters, digits, and the bytes of `others`. */
static bool http_is_one_of(char c, const char *others)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || http_is_digit(c) ||
           (c && strchr(others, c));
}

/* The length of the token that `text` begins with (RFC 9110, section 5.6.2); 0: of none. */
static size_t http_token_length(struct str text)
{
    size_t i = 0;

    while (i < text.length && http_is_one_of(text.at[i], "!#$%&'*+-.^_`|~"))
        i++;
    return i;
}

/* True for methods and field names. */
static bool http_is_token(struct str text)
{
    return text.length > 0 && http_token_length(text) == text.length;
}

/* Cuts the next line off. CR and LF must stand together, and a line may have no NUL or other
 * control byte but the tab: other servers read such bytes differently. */
static enum http_result http_next_line(struct str *rest, struct str *line)
{
    for (size_t i = 0; i < rest->length; i++) {
        unsigned char c = (unsigned char)rest->at[i];

        if ((c >= 0x20 && c != 0x7f) || c == '\t')
            continue;
        if (c == '\r' && i + 1 == rest->length)
            return HTTP_MORE;
        if (c != '\r' || rest->at[i + 1] != '\n')
            return HTTP_BAD;
        *line = (struct str){rest->at, i};
        *rest = str_skip(*rest, i + 2);
        return HTTP_OK;
    }
    return HTTP_MORE;
}

/* RFC 3986, section 3.2.2: a name, or an address in brackets, and perhaps a port. */
static bool http_is_host(struct str text)
{
    bool bracket = text.length && text.at[0] == '[';
    size_t i = bracket;

    while (i < text.length && http_is_one_of(text.at[i], bracket ? ".:" : "-._~%!$&'()*+,;="))
        i++;
    if (bracket && (i == 1 || i == text.length || text.at[i++] != ']'))
        return false;
    if (i < text.length && text.at[i++] != ':')
        return false;
    while (i < text.length && http_is_digit(text.at[i]))
        i++;
    return i == text.length;
}

struct str http_host_name(struct str host)
{
    size_t end = host.length;

    while (end > 0 && http_is_digit(host.at[end - 1]))
        end--;
    return end > 0 && host.at[end - 1] == ':' ? (struct str){host.at, end - 1} : host;
}

/* Cuts "http://authority" off an absolute target (RFC 9112, section 3.2.2) and returns the
 * authority; empty if the target is not absolute. */
static struct str http_cut_authority(struct str *target)
{
    struct str rest = *target, scheme = str_cut(&rest, ':'), authority;
    size_t end = 2;

    if (rest.length < 2 || memcmp(rest.at, "//", 2) != 0 ||
        (!str_equal_nocase(scheme, STR("http")) && !str_equal_nocase(scheme, STR("https"))))
        return (struct str){0};
    while (end < rest.length && rest.at[end] != '/' && rest.at[end] != '?')
        end++;
    authority = (struct str){rest.at + 2, end - 2};
    if (!authority.length || !http_is_host(authority))
        return (struct str){0};
    *target = str_skip(rest, end);
    return authority;
}

static enum http_result http_parse_version(struct http_request *request, struct str version)
{
    if (version.length != 8 || memcmp(version.at, "HTTP/", 5) != 0 || version.at[6] != '.' ||
        !http_is_digit(version.at[5]) || !http_is_digit(version.at[7]))
        return http_bad(request, 400, "malformed request line");
    if (version.at[5] != '1')
        return http_bad(request, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    request->minor = version.at[7] > '0';
    return HTTP_OK;
}

static enum http_result http_parse_request_line(struct http_request *request, struct str line)
{
    struct str rest = line, target;

    request->method = str_cut(&rest, ' ');
    target = str_cut(&rest, ' ');
    if (!http_is_token(request->method) || target.length == 0)
        return http_bad(request, 400, "malformed request line");
    for (size_t i = 0; i < target.length; i++)
        if ((unsigned char)target.at[i] <= 0x20 || (unsigned char)target.at[i] >= 0x7f ||
            target.at[i] == '#')
            return http_bad(request, 400,
                            "the request target has a byte that must be percent-encoded");
    if (http_parse_version(request, rest) == HTTP_BAD)
        return HTTP_BAD;
    request->host = http_cut_authority(&target);
    request->query = target;
    request->path = str_cut(&request->query, '?');
    if (request->host.length && !request->path.length)
        request->path = STR("/"); /* RFC 9110, section 4.2.3: http://a?x=1 */
    if ((request->path.length && request->path.at[0] == '/') ||
        (str_equal(target, STR("*")) && str_equal(request->method, STR("OPTIONS"))))
        return HTTP_OK;
    return http_bad(request, 400, "the request target must begin with /");
}

/* RFC 9112, section 5: a line of a head or a trailer. Returns what is wrong with it, or NULL. */
static const char *http_parse_field(struct str line, struct http_header *field)
{
    struct str value = line;

    if (line.at[0] == ' ' || line.at[0] == '\t')
        return "folded header lines are refused";
    if (!memchr(line.at, ':', line.length))
        return "header line without a colon";
    field->name = str_cut(&value, ':');
    field->value = str_trim(value);
    return http_is_token(field->name) ? NULL : "malformed header name";
}

_Static_assert(HTTP_HEADERS_MAX == 100, "a message names the number");

static enum http_result http_parse_header(struct http_request *request, struct str line)
{
    struct http_header field;
    const char *error = http_parse_field(line, &field);

    if (error)
        return http_bad(request, 400, error);
    if (request->header_count == HTTP_HEADERS_MAX)
        return http_bad(request, 431, "more than 100 header lines");
    request->headers[request->header_count++] = field;
    return HTTP_OK;
}

size_t http_header(const struct http_request *request, struct str name, struct str *value)
{
    size_t count = 0;

    for (size_t i = 0; i < request->header_count; i++)
        if (str_equal_nocase(request->headers[i].name, name) && count++ == 0)
            *value = request->headers[i].value;
    return count;
}

bool http_next_entry(const struct http_request *request, struct str name,
                     struct http_cursor *cursor, struct str *entry)
{
    while (!cursor->rest.at && cursor->header < request->header_count) {
        const struct http_header *header = &request->headers[cursor->header++];

        if (str_equal_nocase(header->name, name))
            cursor->rest = header->value;
    }
    if (!cursor->rest.at)
        return false;
    *entry = str_trim(str_cut(&cursor->rest, ','));
    return true;
}

bool http_header_has(const struct http_request *request, struct str name, struct str token)
{
    struct http_cursor cursor = {0};
    struct str entry;

    while (http_next_entry(request, name, &cursor, &entry))
        if (str_equal_nocase(entry, token))
            return true;
    return false;
}

/* RFC 9112, sections 6.1 and 6.3: a body ends where chunked, the last coding, and once, says so. */
static enum http_result http_parse_codings(struct http_request *request)
{
    size_t chunked = 0, codings = 0;
    struct http_cursor cursor = {0};
    struct str coding = {0};

    for (; http_next_entry(request, STR("Transfer-Encoding"), &cursor, &coding); codings++)
        chunked += str_equal_nocase(coding, STR("chunked"));
    if (chunked != 1 || !str_equal_nocase(coding, STR("chunked")))
        return http_bad(request, 400, "Transfer-Encoding must end with chunked, and have it once");
    if (codings > 1)
        return http_bad(request, 501, "the only Transfer-Encoding understood is chunked");
    request->chunked = true;
    return HTTP_OK;
}

/* RFC 9112, section 6: the body's length must be stated once and unambiguously. */
static enum http_result http_parse_framing(struct http_request *request)
{
    struct str value = {0};
    size_t lengths = http_header(request, STR("Content-Length"), &value);

    if (lengths > 1)
        return http_bad(request, 400, "more than one Content-Length");
    if (lengths && !str_number(value, UINT64_MAX, &request->content_length))
        return http_bad(request, 400, "Content-Length is not a number");
    if (!http_header(request, STR("Transfer-Encoding"), &value))
        return HTTP_OK;
    if (lengths)
        return http_bad(request, 400, "Content-Length beside Transfer-Encoding");
    if (request->minor == 0)
        return http_bad(request, 400, "Transfer-Encoding in HTTP/1.0");
    return http_parse_codings(request);
}

static void http_parse_persistence(struct http_request *head)
{
    head->keep_alive =
        !http_header_has(head, STR("Connection"), STR("close")) &&
        (head->minor > 0 || http_header_has(head, STR("Connection"), STR("keep-alive")));
}

static enum http_result http_parse_meaning(struct http_request *request)
{
    struct str value = {0};
    size_t hosts = http_header(request, STR("Host"), &value);

    if (hosts > 1 || (hosts == 0 && request->minor > 0))
        return http_bad(request, 400, hosts ? "more than one Host" : "Host is missing");
    if (!http_is_host(value))
        return http_bad(request, 400, "Host has a byte that no host may have");
    if (!request->host.length)
        request->host = value;
    http_parse_persistence(request);
    if (http_header(request, STR("Expect"), &value)) {
        if (!str_equal_nocase(value, STR("100-continue")))
            return http_bad(request, 417, "the only expectation understood is 100-continue");
        request->expect_continue = request->minor > 0;
    }
    return http_parse_framing(request);
}

/* The first line's parser makes it a request or a response. */
static enum http_result http_parse_lines(struct http_request *head, struct str *rest,
                                         enum http_result (*parse_first)(struct http_request *,
                                                                         struct str))
{
    struct str line;
    enum http_result result = http_next_line(rest, &line);

    /* RFC 9112, section 2.2: an empty line before a request is ignored */
    if (result == HTTP_OK && line.length == 0)
        result = http_next_line(rest, &line);
    if (result == HTTP_OK)
        result = parse_first(head, line);
    while (result == HTTP_OK) {
        result = http_next_line(rest, &line);
        if (result == HTTP_OK && line.length == 0)
            return HTTP_OK;
        if (result == HTTP_OK)
            result = http_parse_header(head, line);
    }
    if (result == HTTP_BAD && !head->error)
        return http_bad(head, 400, "a byte that no request may have, or a line not ended by CRLF");
    return result;
}

static enum http_result
http_parse_head(struct str bytes, size_t max_head, struct http_request *head,
                enum http_result (*parse_first)(struct http_request *, struct str))
{
    struct str rest = {bytes.at, bytes.length < max_head ? bytes.length : max_head};
    enum http_result result;

    memset(head, 0, offsetof(struct http_request, headers)); /* valid up to header_count */
    result = http_parse_lines(head, &rest, parse_first);
    if (result == HTTP_MORE && bytes.length >= max_head)
        return http_bad(head, 431, "the request's head is longer than max_head");
    if (result == HTTP_OK)
        head->head_length = (size_t)(rest.at - bytes.at);
    return result;
}

enum http_result http_parse_request(struct str bytes, size_t max_head, struct http_request *request)
{
    enum http_result result = http_parse_head(bytes, max_head, request, http_parse_request_line);

    return result == HTTP_OK ? http_parse_meaning(request) : result;
}

/* RFC 9112, section 4. */
static enum http_result http_parse_status_line(struct http_request *response, struct str line)
{
    struct str rest = line, version = str_cut(&rest, ' '), code = str_cut(&rest, ' ');
    uint64_t status = 0;

    if (http_parse_version(response, version) == HTTP_BAD || code.length != 3 ||
        !str_number(code, 999, &status) || status < 100)
        return http_bad(response, 502, "malformed status line");
    response->status = (int)status;
    return HTTP_OK;
}

enum http_result http_parse_response(struct str bytes, size_t max_head,
                                     struct http_request *response)
{
    enum http_result result = http_parse_head(bytes, max_head, response, http_parse_status_line);
    struct str value;

    if (result == HTTP_OK)
        result = http_parse_framing(response);
    if (result != HTTP_OK)
        return result;
    http_parse_persistence(response);
    if (response->status < 200 || response->status == 204 || response->status == 304) {
        response->chunked = false; /* RFC 9112, section 6.3: whatever the fields say */
        response->content_length = 0;
    } else if (!response->chunked && !http_header(response, STR("Content-Length"), &value)) {
        response->content_length = UINT64_MAX;
        response->keep_alive = false;
    }
    return HTTP_OK;
}

static bool http_append_decoded(struct str text, struct buf *out)
{
    buf_append(out, str_cut(&text, '%'));
    while (text.at) {
        int high = text.length >= 2 ? str_hex_digit(text.at[0]) : -1;
        int low = high >= 0 ? str_hex_digit(text.at[1]) : -1;

        if (low < 0)
            return false;
        buf_append(out, (struct str){&(char){(char)(high * 16 + low)}, 1});
        text = str_skip(text, 2);
        buf_append(out, str_cut(&text, '%'));
    }
    return !out->failed;
}

bool http_query(struct str query, struct str name, struct buf *out)
{
    while (query.at) {
        struct str value = str_cut(&query, '&');

        if (str_equal(str_cut(&value, '='), name)) {
            out->failed |= !http_append_decoded(value, out);
            return !out->failed;
        }
    }
    return false;
}

#define CHUNK_LINE_MAX 256
#define TRAILER_MAX 4096

/* The length of the quoted string that `text` begins with; 0: it has no end. */
static size_t http_quoted_length(struct str text)
{
    for (size_t i = 1; i < text.length; i++) {
        if (text.at[i] == '"')
            return i + 1;
        i += text.at[i] == '\\';
    }
    return 0;
}

/* True if `rest` is extensions of a chunk, or nothing. They are ignored, but must be well-formed:
 * for a server that lets a quotation go on past the line's end, the chunk would begin elsewhere. */
static bool http_are_extensions(struct str rest)
{
    while (rest.length) {
        size_t length;

        if (rest.at[0] != ';')
            return false;
        rest = str_trim(str_skip(rest, 1));
        length = http_token_length(rest);
        if (length == 0)
            return false;
        rest = str_trim(str_skip(rest, length));
        if (!rest.length || rest.at[0] != '=')
            continue;
        rest = str_trim(str_skip(rest, 1));
        length =
            rest.length && rest.at[0] == '"' ? http_quoted_length(rest) : http_token_length(rest);
        if (length == 0)
            return false;
        rest = str_trim(str_skip(rest, length));
    }
    return true;
}

/* RFC 9112, section 7.1: hex digits, then perhaps extensions. */
static bool http_parse_chunk_size(struct str line, uint32_t *size)
{
    size_t i = 0;
    uint64_t value = 0;

    while (i < line.length && str_hex_digit(line.at[i]) >= 0) {
        if (i == 15)
            return false;
        value = value << 4 | (uint64_t)str_hex_digit(line.at[i++]);
    }
    /* the greatest number is too long for every body */
    *size = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    return i > 0 && http_are_extensions(str_skip(line, i));
}

/* RFC 9110, section 6.5.1: fields for framing, routing, authentication and content count in the
 * head alone. A server behind that merged them from a trailer would be deceived. */
static bool http_may_trail(struct str name)
{
    struct str heads =
        STR("Content-Length,Transfer-Encoding,Host,Connection,Upgrade,Expect,TE,Trailer,"
            "Content-Type,Content-Range,Content-Encoding,Authorization,Cookie,Token,Register-Key,"
            "Origin,Sec-Fetch-Site,X-Forwarded-For");

    while (heads.at)
        if (str_equal_nocase(str_cut(&heads, ','), name))
            return false;
    return true;
}

/* Reads a line that is a chunk's size, the end of its data, a field of the trailer, which is
 * ignored, or the trailer's end. */
static enum http_result http_read_chunk_line(struct http_chunks *chunks, struct str *rest)
{
    size_t limit = chunks->state == CHUNK_TRAILER ? chunks->trailer_left : CHUNK_LINE_MAX;
    struct http_header field;
    struct str line;
    enum http_result result = http_next_line(rest, &line);
    bool good;

    if (result == HTTP_MORE)
        return rest->length > limit + 1 ? HTTP_BAD : HTTP_MORE; /* its CR may be there */
    if (result == HTTP_BAD || line.length > limit)
        return HTTP_BAD;
    if (chunks->state == CHUNK_DATA_END) {
        good = line.length == 0;
        chunks->state = CHUNK_SIZE;
    } else if (chunks->state == CHUNK_SIZE) {
        good = http_parse_chunk_size(line, &chunks->left);
        chunks->state = chunks->left ? CHUNK_DATA : CHUNK_TRAILER;
        chunks->trailer_left = TRAILER_MAX;
    } else if (line.length) {
        good = line.length < chunks->trailer_left && !http_parse_field(line, &field) &&
               http_may_trail(field.name);
        chunks->trailer_left -= (uint32_t)line.length;
    } else {
        good = true;
        chunks->state = CHUNK_DONE;
    }
    return good ? HTTP_OK : HTTP_BAD;
}

/* Moves what is there of the chunk's data to the end of the content. */
static enum http_result http_take_chunk_data(struct http_chunks *chunks, char *at, struct str *rest)
{
    size_t ready = rest->length < chunks->left ? rest->length : chunks->left;

    if (ready == 0)
        return HTTP_MORE;
    memmove(at + chunks->length, rest->at, ready);
    *rest = str_skip(*rest, ready);
    chunks->length += (uint32_t)ready;
    chunks->left -= (uint32_t)ready;
    if (chunks->left == 0)
        chunks->state = CHUNK_DATA_END;
    return HTTP_OK;
}

enum http_result http_read_chunks(struct http_chunks *chunks, char *at, size_t *length,
                                  size_t max_body, int *status)
{
    struct str rest = {at + chunks->length, *length - chunks->length};
    enum http_result result = HTTP_OK;

    *status = chunks->length > max_body ? 413 : 400; /* the limit may be lower than it was */
    if (chunks->length > max_body)
        return HTTP_BAD;
    while (result == HTTP_OK && chunks->state != CHUNK_DONE) {
        if (chunks->state != CHUNK_DATA) {
            result = http_read_chunk_line(chunks, &rest);
        } else if (chunks->left > max_body - chunks->length) {
            *status = 413;
            return HTTP_BAD;
        } else {
            result = http_take_chunk_data(chunks, at, &rest);
        }
    }
    if (rest.length)
        memmove(at + chunks->length, rest.at, rest.length);
    *length = chunks->length + rest.length;
    return result;
}

static struct str http_reason_phrase(int status)
{
    static const struct {
        int status;
        struct str phrase;
    } phrases[] = {
        {200, STR_INIT("200 OK")},
        {304, STR_INIT("304 Not Modified")},
        {400, STR_INIT("400 Bad Request")},
        {401, STR_INIT("401 Unauthorized")},
        {403, STR_INIT("403 Forbidden")},
        {404, STR_INIT("404 Not Found")},
        {405, STR_INIT("405 Method Not Allowed")},
        {408, STR_INIT("408 Request Timeout")},
        {413, STR_INIT("413 Content Too Large")},
        {415, STR_INIT("415 Unsupported Media Type")},
        {417, STR_INIT("417 Expectation Failed")},
        {426, STR_INIT("426 Upgrade Required")},
        {429, STR_INIT("429 Too Many Requests")},
        {431, STR_INIT("431 Request Header Fields Too Large")},
        {501, STR_INIT("501 Not Implemented")},
        {503, STR_INIT("503 Service Unavailable")},
        {505, STR_INIT("505 HTTP Version Not Supported")},
    };

    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return STR("500 Internal Server Error");
}

/* Appends a header field unless its value is empty. */
static void http_write_field(struct buf *out, struct str name, struct str value)
{
    if (!value.length)
        return;
    buf_append(out, name);
    buf_append(out, value);
    buf_append(out, STR("\r\n"));
}

void http_write_response(struct buf *out, const struct http_response *response)
{
    struct str type =
        response->type ? str_from(response->type) : STR("application/json; charset=utf-8");

    http_write_field(out, STR("HTTP/1.1 "), http_reason_phrase(response->status));
    http_write_field(out, STR("Date: "), response->date);
    http_write_field(out, STR("Allow: "), str_from(response->allow));
    if (response->retry_after)
        buf_print(out, "Retry-After: %u\r\n", response->retry_after);
    if (response->close)
        buf_append(out, STR("Connection: close\r\n"));
    else if (response->keep_alive)
        buf_append(out, STR("Connection: keep-alive\r\n"));
    if (!response->close && response->timeout)
        buf_print(out, "Keep-Alive: timeout=%u\r\n", response->timeout);
    if (response->status == 401)
        buf_append(out, STR("WWW-Authenticate: Token\r\n"));
    http_write_field(out, STR("Content-Type: "), type);
    buf_print(out, "Content-Length: %zu\r\n", response->body.length);
    buf_append(out, response->type ? (struct str){0} : STR(HTTP_UNCACHED));
    buf_append(out, str_from(response->fields));
    buf_append(out, STR("\r\n"));
    if (!response->head)
        buf_append(out, response->body);
}

void http_date(int64_t unix_seconds, char text[30])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)unix_seconds;
    struct tm utc = {0};

    gmtime_r(&seconds, &utc); /* not strftime: its names follow the locale */
    snprintf(text, 30, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * utc.tm_wday,
             (unsigned)utc.tm_mday % 100, months + 3 * utc.tm_mon,
             (unsigned)(utc.tm_year + 1900) % 10000, (unsigned)utc.tm_hour % 100,
             (unsigned)utc.tm_min % 100, (unsigned)utc.tm_sec % 100);
}

/* http.c - HTTP/1.1: bytes to a request view, an answer to bytes. */
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static enum http_result bad(struct http_request *request, int status, const char *error)
{
    request->status = status;
    request->error = error;
    return HTTP_BAD;
}

/* True for letters, digits, and the bytes of `others`. */
static bool is_one_of(char c, const char *others)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(others, c));
}

/* RFC 9110, section 5.6.2: methods and field names. */
static bool is_token(struct str text)
{
    for (size_t i = 0; i < text.length; i++)
        if (!is_one_of(text.at[i], "!#$%&'*+-.^_`|~"))
            return false;
    return text.length > 0;
}

/* How many bytes at the front, in eights, are sure to have no control byte among them: each byte is
 * less 0x20, or apart from 0x7f less 1, and a borrow shows in its highest bit. */
static size_t plain_eights(struct str text)
{
    const uint64_t ones = 0x0101010101010101u;
    size_t i = 0;
    uint64_t eight, apart;

    for (; text.length - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, text.at + i, sizeof eight);
        apart = eight ^ (ones * 0x7f);
        if ((((eight - ones * 0x20) & ~eight) | ((apart - ones) & ~apart)) & (ones * 0x80))
            break;
    }
    return i;
}

/* Cuts the next line off. A CR must be followed by LF, an LF must follow a CR, and no NUL or other
 * control byte but the tab may stand in a line: such bytes are read differently elsewhere. */
static enum http_result next_line(struct str *rest, struct str *line)
{
    for (size_t i = plain_eights(*rest); i < rest->length; i++) {
        unsigned char c = (unsigned char)rest->at[i];

        if ((c >= 0x20 && c != 0x7f) || c == '\t')
            continue;
        if (c != '\r')
            return HTTP_BAD;
        if (i + 1 == rest->length)
            return HTTP_MORE;
        if (rest->at[i + 1] != '\n')
            return HTTP_BAD;
        *line = (struct str){rest->at, i};
        *rest = (struct str){rest->at + i + 2, rest->length - i - 2};
        return HTTP_OK;
    }
    return HTTP_MORE;
}

/* RFC 3986, section 3.2.2: a name, or an address in brackets, and perhaps a port. */
static bool is_host(struct str text)
{
    bool bracket = text.length && text.at[0] == '[';
    size_t i = bracket;

    while (i < text.length && is_one_of(text.at[i], bracket ? ".:" : "-._~%!$&'()*+,;="))
        i++;
    if (bracket && (i == 1 || i == text.length || text.at[i++] != ']'))
        return false;
    if (i < text.length && text.at[i++] != ':')
        return false;
    while (i < text.length && text.at[i] >= '0' && text.at[i] <= '9')
        i++;
    return i == text.length;
}

struct str http_host_name(struct str host)
{
    size_t end = host.length;

    while (end > 0 && host.at[end - 1] >= '0' && host.at[end - 1] <= '9')
        end--;
    return end > 0 && host.at[end - 1] == ':' ? (struct str){host.at, end - 1} : host;
}

/* Cuts "http://authority" off an absolute target (RFC 9112, section 3.2.2) and returns the
 * authority; empty if the target is not absolute. */
static struct str cut_authority(struct str *target)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < 2; i++) {
        struct str scheme = str_from(schemes[i]), authority;
        size_t end = scheme.length;

        if (target->length < end ||
            !str_equal_nocase((struct str){target->at, scheme.length}, scheme))
            continue;
        while (end < target->length && target->at[end] != '/' && target->at[end] != '?')
            end++;
        authority = (struct str){target->at + scheme.length, end - scheme.length};
        if (!authority.length || !is_host(authority))
            break; /* without an authority it is no target at all */
        *target = (struct str){target->at + end, target->length - end};
        return authority;
    }
    return (struct str){0};
}

static enum http_result parse_version(struct http_request *request, struct str version)
{
    if (version.length != 8 || memcmp(version.at, "HTTP/", 5) != 0 || version.at[6] != '.' ||
        version.at[5] < '0' || version.at[5] > '9' || version.at[7] < '0' || version.at[7] > '9')
        return bad(request, 400, "malformed request line");
    if (version.at[5] != '1')
        return bad(request, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    request->minor = version.at[7] == '0' ? 0 : 1;
    return HTTP_OK;
}

static enum http_result parse_request_line(struct http_request *request, struct str line)
{
    struct str rest = line, target;

    request->method = str_cut(&rest, ' ');
    target = str_cut(&rest, ' ');
    if (!is_token(request->method) || target.length == 0)
        return bad(request, 400, "malformed request line");
    for (size_t i = 0; i < target.length; i++)
        if ((unsigned char)target.at[i] <= 0x20 || (unsigned char)target.at[i] >= 0x7f ||
            target.at[i] == '#')
            return bad(request, 400, "the request target has a byte that must be percent-encoded");
    if (parse_version(request, rest) == HTTP_BAD)
        return HTTP_BAD;
    request->host = cut_authority(&target);
    request->query = target;
    request->path = str_cut(&request->query, '?');
    if (request->host.length && !request->path.length)
        request->path = STR("/"); /* RFC 9110, section 4.2.3: http://a?x=1 */
    if (request->path.length && request->path.at[0] == '/')
        return HTTP_OK;
    if (str_equal(target, STR("*")) && str_equal(request->method, STR("OPTIONS")))
        return HTTP_OK;
    return bad(request, 400, "the request target must begin with /");
}

/* RFC 9112, section 5: a line of a head or a trailer. Says what is wrong with it, or NULL. */
static const char *parse_field(struct str line, struct http_header *field)
{
    struct str value = line;

    if (line.at[0] == ' ' || line.at[0] == '\t')
        return "folded header lines are refused";
    if (!memchr(line.at, ':', line.length))
        return "header line without a colon";
    field->name = str_cut(&value, ':');
    field->value = str_trim(value);
    return is_token(field->name) ? NULL : "malformed header name";
}

_Static_assert(HTTP_HEADERS_MAX == 100, "a message names the number");

static enum http_result parse_header(struct http_request *request, struct str line)
{
    struct http_header field;
    const char *error = parse_field(line, &field);

    if (error)
        return bad(request, 400, error);
    if (request->header_count == HTTP_HEADERS_MAX)
        return bad(request, 431, "more than 100 header lines");
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

bool http_header_has(const struct http_request *request, struct str name, struct str token)
{
    for (size_t i = 0; i < request->header_count; i++) {
        struct str rest = request->headers[i].value;

        if (!str_equal_nocase(request->headers[i].name, name))
            continue;
        while (rest.at)
            if (str_equal_nocase(str_trim(str_cut(&rest, ',')), token))
                return true;
    }
    return false;
}

/* RFC 9112, sections 6.1 and 6.3: chunked as the last coding, once, is what gives the body an end.
 */
static enum http_result parse_codings(struct http_request *request)
{
    size_t chunked = 0, others = 0;
    bool last = false;

    for (size_t i = 0; i < request->header_count; i++) {
        struct str rest = request->headers[i].value;

        if (!str_equal_nocase(request->headers[i].name, STR("Transfer-Encoding")))
            continue;
        do {
            last = str_equal_nocase(str_trim(str_cut(&rest, ',')), STR("chunked"));
            chunked += last;
            others += !last;
        } while (rest.at);
    }
    if (!last || chunked > 1)
        return bad(request, 400, "Transfer-Encoding must end with chunked, and have it once");
    if (others)
        return bad(request, 501, "the only Transfer-Encoding understood is chunked");
    request->chunked = true;
    return HTTP_OK;
}

/* RFC 9112, section 6: how long the body is must be said once and without doubt. */
static enum http_result parse_framing(struct http_request *request)
{
    struct str value = {0};
    size_t lengths = http_header(request, STR("Content-Length"), &value);

    if (lengths > 1)
        return bad(request, 400, "more than one Content-Length");
    if (lengths && !str_number(value, UINT64_MAX, &request->content_length))
        return bad(request, 400, "Content-Length is not a number");
    if (!http_header(request, STR("Transfer-Encoding"), &value))
        return HTTP_OK;
    if (lengths)
        return bad(request, 400, "Content-Length beside Transfer-Encoding");
    if (request->minor == 0)
        return bad(request, 400, "Transfer-Encoding in HTTP/1.0");
    return parse_codings(request);
}

static enum http_result parse_meaning(struct http_request *request)
{
    struct str value = {0};
    size_t hosts = http_header(request, STR("Host"), &value);

    if (hosts > 1 || (hosts == 0 && request->minor > 0))
        return bad(request, 400, hosts ? "more than one Host" : "Host is missing");
    if (!is_host(value))
        return bad(request, 400, "Host has a byte that no host may have");
    if (!request->host.length)
        request->host = value;
    request->keep_alive =
        !http_header_has(request, STR("Connection"), STR("close")) &&
        (request->minor > 0 || http_header_has(request, STR("Connection"), STR("keep-alive")));
    if (http_header(request, STR("Expect"), &value)) {
        if (!str_equal_nocase(value, STR("100-continue")))
            return bad(request, 417, "the only expectation understood is 100-continue");
        request->expect_continue = request->minor > 0;
    }
    return parse_framing(request);
}

static enum http_result parse_lines(struct http_request *request, struct str *rest)
{
    struct str line;
    enum http_result result = next_line(rest, &line);

    /* RFC 9112, section 2.2: an empty line before a request is forgiven */
    if (result == HTTP_OK && line.length == 0)
        result = next_line(rest, &line);
    if (result == HTTP_OK)
        result = parse_request_line(request, line);
    while (result == HTTP_OK) {
        result = next_line(rest, &line);
        if (result == HTTP_OK && line.length == 0)
            return HTTP_OK;
        if (result == HTTP_OK)
            result = parse_header(request, line);
    }
    if (result == HTTP_BAD && !request->status)
        return bad(request, 400, "a byte that no request may have, or a line not ended by CRLF");
    return result;
}

enum http_result http_parse_request(struct str bytes, size_t max_head, struct http_request *request)
{
    struct str rest = {bytes.at, bytes.length < max_head ? bytes.length : max_head};
    enum http_result result;

    /* the headers are valid up to header_count; clearing all of them would cost more than parsing
     */
    request->method = request->path = request->query = request->host = (struct str){0};
    request->head_length = request->header_count = 0;
    request->minor = 0;
    request->keep_alive = request->expect_continue = request->chunked = false;
    request->content_length = 0;
    request->status = 0;
    request->error = NULL;
    result = parse_lines(request, &rest);
    if (result == HTTP_MORE && bytes.length >= max_head)
        return bad(request, 431, "the request's head is longer than max_head");
    if (result != HTTP_OK)
        return result;
    request->head_length = (size_t)(rest.at - bytes.at);
    return parse_meaning(request);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool append_decoded(struct str text, struct buf *out)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];

        if (c == '%') {
            int high = i + 2 < text.length ? hex_value(text.at[i + 1]) : -1;
            int low = high >= 0 ? hex_value(text.at[i + 2]) : -1;

            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (!buf_append(out, (struct str){&c, 1}))
            return false;
    }
    return true;
}

bool http_query(struct str query, struct str name, struct buf *out)
{
    while (query.at) {
        struct str value = str_cut(&query, '&');

        if (str_equal(str_cut(&value, '='), name))
            return append_decoded(value, out);
    }
    return false;
}

#define CHUNK_LINE_MAX 256
#define TRAILER_MAX 4096

static void skip_blanks(struct str *rest)
{
    while (rest->length && (rest->at[0] == ' ' || rest->at[0] == '\t'))
        *rest = (struct str){rest->at + 1, rest->length - 1};
}

static bool skip_token(struct str *rest)
{
    size_t i = 0;

    while (i < rest->length && is_token((struct str){rest->at + i, 1}))
        i++;
    *rest = (struct str){rest->at + i, rest->length - i};
    return i > 0;
}

static bool skip_quoted(struct str *rest)
{
    for (size_t i = 1; i < rest->length; i++) {
        if (rest->at[i] == '\\') {
            i++;
        } else if (rest->at[i] == '"') {
            *rest = (struct str){rest->at + i + 1, rest->length - i - 1};
            return true;
        }
    }
    return false;
}

/* True if `rest` is extensions of a chunk, or nothing. They are ignored, but must be what they
 * should: to whom a quotation goes on past the line's end, the chunk begins elsewhere. */
static bool are_extensions(struct str rest)
{
    while (rest.length) {
        if (rest.at[0] != ';')
            return false;
        rest = (struct str){rest.at + 1, rest.length - 1};
        skip_blanks(&rest);
        if (!skip_token(&rest))
            return false;
        skip_blanks(&rest);
        if (!rest.length || rest.at[0] != '=')
            continue;
        rest = (struct str){rest.at + 1, rest.length - 1};
        skip_blanks(&rest);
        if (rest.length && rest.at[0] == '"' ? !skip_quoted(&rest) : !skip_token(&rest))
            return false;
        skip_blanks(&rest);
    }
    return true;
}

/* RFC 9112, section 7.1: hex digits, then perhaps extensions. */
static bool parse_chunk_size(struct str line, uint32_t *size)
{
    size_t i = 0;
    uint64_t value = 0;

    while (i < line.length && hex_value(line.at[i]) >= 0) {
        if (i == 15)
            return false;
        value = value << 4 | (uint64_t)hex_value(line.at[i++]);
    }
    /* the greatest number is too long for every body */
    *size = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    return i > 0 && are_extensions((struct str){line.at + i, line.length - i});
}

/* RFC 9110, section 6.5.1: what says where a message ends, whom it is for, who sends it and what
 * its body is counts in the head alone. A server that merged it from here would be deceived. */
static bool may_trail(struct str name)
{
    static const struct str heads[] = {
        STR_INIT("Content-Length"),
        STR_INIT("Transfer-Encoding"),
        STR_INIT("Host"),
        STR_INIT("Connection"),
        STR_INIT("Upgrade"),
        STR_INIT("Expect"),
        STR_INIT("TE"),
        STR_INIT("Trailer"),
        STR_INIT("Content-Type"),
        STR_INIT("Content-Range"),
        STR_INIT("Content-Encoding"),
        STR_INIT("Authorization"),
        STR_INIT("Cookie"),
        STR_INIT("Token"),
        STR_INIT("Register-Key"),
        STR_INIT("Origin"),
        STR_INIT("Sec-Fetch-Site"),
        STR_INIT("X-Forwarded-For"),
    };

    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (str_equal_nocase(heads[i], name))
            return false;
    return true;
}

/* Reads the line that ends a trailer, or one of its fields, which are ignored. */
static enum http_result read_trailer(struct http_chunks *chunks, struct str line, bool *done)
{
    struct http_header field;

    *done = line.length == 0;
    if (line.length >= chunks->trailer_left)
        return HTTP_BAD;
    chunks->trailer_left -= (uint32_t)line.length;
    return *done || (!parse_field(line, &field) && may_trail(field.name)) ? HTTP_OK : HTTP_BAD;
}

static enum http_result read_chunk_line(struct http_chunks *chunks, struct str *rest, bool *done)
{
    size_t limit = chunks->state == CHUNK_TRAILER ? chunks->trailer_left : CHUNK_LINE_MAX;
    struct str line;
    enum http_result result = next_line(rest, &line);

    if (result == HTTP_MORE)
        return rest->length > limit + 1 ? HTTP_BAD : HTTP_MORE; /* its CR may be there */
    if (result == HTTP_BAD || line.length > limit)
        return HTTP_BAD;
    if (chunks->state == CHUNK_TRAILER)
        return read_trailer(chunks, line, done);
    if (chunks->state == CHUNK_DATA_END) {
        chunks->state = CHUNK_SIZE;
        return line.length == 0 ? HTTP_OK : HTTP_BAD;
    }
    if (!parse_chunk_size(line, &chunks->left))
        return HTTP_BAD;
    chunks->state = chunks->left ? CHUNK_DATA : CHUNK_TRAILER;
    chunks->trailer_left = TRAILER_MAX;
    return HTTP_OK;
}

/* Moves what is there of the chunk's data to the end of the content. */
static enum http_result take_chunk_data(struct http_chunks *chunks, char *at, struct str *rest)
{
    size_t ready = rest->length < chunks->left ? rest->length : chunks->left;

    if (ready == 0)
        return HTTP_MORE;
    memmove(at + chunks->length, rest->at, ready);
    *rest = (struct str){rest->at + ready, rest->length - ready};
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
    bool done = false;

    *status = chunks->length > max_body ? 413 : 400; /* the limit may be lower than it was */
    if (chunks->length > max_body)
        return HTTP_BAD;
    while (result == HTTP_OK && !done) {
        if (chunks->state != CHUNK_DATA) {
            result = read_chunk_line(chunks, &rest, &done);
        } else if (chunks->left > max_body - chunks->length) {
            *status = 413;
            return HTTP_BAD;
        } else {
            result = take_chunk_data(chunks, at, &rest);
        }
    }
    if (rest.length)
        memmove(at + chunks->length, rest.at, rest.length);
    *length = chunks->length + rest.length;
    return result;
}

static struct str reason_phrase(int status)
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

void http_write_response(struct buf *out, const struct http_response *answer)
{
    buf_append(out, STR("HTTP/1.1 "));
    buf_append(out, reason_phrase(answer->status));
    if (answer->date.length) {
        buf_append(out, STR("\r\nDate: "));
        buf_append(out, answer->date);
    }
    if (answer->allow) {
        buf_append(out, STR("\r\nAllow: "));
        buf_append(out, str_from(answer->allow));
    }
    if (answer->retry_after) {
        buf_append(out, STR("\r\nRetry-After: "));
        buf_append_number(out, answer->retry_after);
    }
    if (answer->close)
        buf_append(out, STR("\r\nConnection: close"));
    else if (answer->keep_alive)
        buf_append(out, STR("\r\nConnection: keep-alive"));
    if (answer->timeout && !answer->close) {
        buf_append(out, STR("\r\nKeep-Alive: timeout="));
        buf_append_number(out, answer->timeout);
    }
    if (answer->status == 401)
        buf_append(out, STR("\r\nWWW-Authenticate: Token"));
    buf_append(out, STR("\r\nContent-Type: "));
    buf_append(out, str_from(answer->type ? answer->type : "application/json; charset=utf-8"));
    buf_append(out, STR("\r\nContent-Length: "));
    buf_append_number(out, (int64_t)answer->body.length);
    buf_append(out, answer->type ? STR("\r\n") : STR("\r\n" HTTP_UNCACHED));
    buf_append(out, str_from(answer->fields));
    buf_append(out, STR("\r\n"));
    if (!answer->head)
        buf_append(out, answer->body);
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

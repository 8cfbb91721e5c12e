/* fuzz_http.c - http.c, and the handshake of ws.c: a head, a chunked body, a query, an answer. What
 * is found does not depend on how the bytes come; what is written again means the same. */
#include "http.h"
#include "ws.h"

#include "fuzz.h"

/* --- heads ----------------------------------------------------------------------------------- */

static struct str header_at(const struct http_request *request, size_t i)
{
    return request->headers[i].name;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* What decides where a request ends, or whom it is for, has been said once. */
static void require_no_doubt(const struct http_request *request)
{
    struct str value = {0};
    size_t lengths = http_header(request, STR("content-length"), &value);
    size_t codings = http_header(request, STR("transfer-encoding"), &value);

    REQUIRE(lengths + codings <= 1 && request->chunked == (codings == 1));
    REQUIRE(codings == 0 || str_equal_nocase(value, STR("chunked")));
    REQUIRE(request->content_length == 0 || lengths == 1);
    REQUIRE(http_header(request, STR("HOST"), &value) == 1 || request->minor == 0);
    REQUIRE(http_header(request, STR("HOST"), &value) <= 1);
}

static void require_views(const struct http_request *request, struct str bytes)
{
    struct str head = {bytes.at, request->head_length};

    REQUIRE(request->head_length <= bytes.length && ends_with(head, STR("\r\n\r\n")));
    REQUIRE(request->method.length > 0 && is_inside(request->method, head));
    /* the one path that the bytes need not have: that of http://authority */
    REQUIRE(is_inside(request->path, head) || str_equal(request->path, STR("/")));
    REQUIRE(request->path.length > 0 && is_inside(request->query, head));
    REQUIRE(request->header_count <= HTTP_HEADERS_MAX);
    REQUIRE(!request->chunked || request->content_length == 0);
    for (size_t i = 0; i < request->header_count; i++) {
        struct str value = request->headers[i].value, first = {0};

        REQUIRE(header_at(request, i).length > 0 && is_inside(header_at(request, i), head));
        REQUIRE(is_inside(value, head));
        REQUIRE(!value.length || !is_blank(value.at[0]));
        REQUIRE(!value.length || !is_blank(value.at[value.length - 1]));
        REQUIRE(!value.length ||
                (!memchr(value.at, '\r', value.length) && !memchr(value.at, '\n', value.length)));
        REQUIRE(http_header(request, header_at(request, i), &first) > 0);
        REQUIRE(first.at <= value.at);
        if (value.length && !memchr(value.at, ',', value.length))
            REQUIRE(http_header_has(request, header_at(request, i), value));
    }
}

static void require_same(const struct http_request *a, const struct http_request *b)
{
    REQUIRE(str_equal(a->method, b->method) && str_equal(a->path, b->path));
    REQUIRE(str_equal(a->query, b->query) && !a->query.at == !b->query.at);
    REQUIRE(a->minor == b->minor && a->keep_alive == b->keep_alive && a->chunked == b->chunked);
    REQUIRE(a->expect_continue == b->expect_continue && a->content_length == b->content_length);
    REQUIRE(a->header_count == b->header_count);
    for (size_t i = 0; i < a->header_count; i++) {
        REQUIRE(str_equal(header_at(a, i), header_at(b, i)));
        REQUIRE(str_equal(a->headers[i].value, b->headers[i].value));
    }
}

/* Writes the request again in its plainest form, and reads that. */
static void require_same_when_written(const struct http_request *request)
{
    struct buf text = {0};
    struct http_request again;
    struct str copy;

    buf_append(&text, request->method);
    buf_append(&text, STR(" "));
    buf_append(&text, request->path);
    buf_append(&text, request->query.at ? STR("?") : STR(""));
    buf_append(&text, request->query);
    buf_append(&text, request->minor ? STR(" HTTP/1.1\r\n") : STR(" HTTP/1.0\r\n"));
    for (size_t i = 0; i < request->header_count; i++) {
        buf_append(&text, header_at(request, i));
        buf_append(&text, STR(": "));
        buf_append(&text, request->headers[i].value);
        buf_append(&text, STR("\r\n"));
    }
    buf_append(&text, STR("\r\n"));
    copy = exact_copy(str_of(&text));
    REQUIRE(http_parse_request(copy, SIZE_MAX, &again) == HTTP_OK);
    REQUIRE(again.head_length == copy.length);
    require_same(request, &again);
    free_copy(copy);
    buf_free(&text);
}

/* The first `length` bytes tell as much of the request as they can, and nothing else. */
static void require_prefix(struct str bytes, size_t length, size_t max_head,
                           const struct http_request *whole, enum http_result expected)
{
    struct str prefix = exact_copy((struct str){bytes.at, length});
    struct http_request request;
    enum http_result result = http_parse_request(prefix, max_head, &request);

    if (expected == HTTP_OK && length >= whole->head_length) {
        REQUIRE(result == HTTP_OK && request.head_length == whole->head_length);
        require_same(&request, whole);
    } else if (expected != HTTP_BAD) {
        REQUIRE(result == HTTP_MORE);
    } else if (result == HTTP_BAD) { /* what is bad stays so, for the same reason */
        REQUIRE(request.status == whole->status && strcmp(request.error, whole->error) == 0);
    } else {
        REQUIRE(result == HTTP_MORE);
    }
    free_copy(prefix);
}

static void try_upgrade(const struct http_request *request)
{
    struct str key = {0};
    const char *error = NULL;
    struct buf out = {0};
    int status = ws_check_upgrade(request, &key, &error);

    REQUIRE(status ? (status == 400 || status == 426) && error : key.length == 24);
    if (!status) {
        REQUIRE(ws_write_upgrade(&out, key, (struct str){0}) &&
                begins_with(str_of(&out), STR("HTTP/1.1 101 ")));
        REQUIRE(ends_with(str_of(&out), STR("=\r\n\r\n")));
    }
    buf_free(&out);
}

static void try_chunks(struct str bytes, size_t max_body, uint32_t split);

static void try_head(struct str bytes, size_t max_head, uint32_t split)
{
    struct str copy = exact_copy(bytes);
    struct http_request request;
    enum http_result result = http_parse_request(copy, max_head, &request);
    uint32_t state = split + 2;

    REQUIRE((result == HTTP_BAD) == (request.status != 0) && !request.status == !request.error);
    if (result == HTTP_OK) {
        REQUIRE(request.head_length <= max_head);
        require_views(&request, copy);
        require_no_doubt(&request);
        require_same_when_written(&request);
        require_prefix(copy, request.head_length, max_head, &request, result);
        require_prefix(copy, request.head_length - 1, max_head, &request, result);
        try_upgrade(&request);
    }
    if (result == HTTP_MORE)
        REQUIRE(bytes.length < max_head);
    for (size_t i = 0; i < (bytes.length < 150 ? bytes.length : 12); i++)
        require_prefix(copy, bytes.length < 150 ? i : next_random(&state) % bytes.length, max_head,
                       &request, result);
    if (result == HTTP_OK && request.chunked)
        try_chunks(behind(copy, request.head_length), 256, split);
    free_copy(copy);
}

/* --- chunked bodies -------------------------------------------------------------------------- */

struct body {
    enum http_result result;
    int status;
    size_t length;      /* of the content, which is the first of */
    struct buf decoded; /* all that is left: content, and what is not decoded or follows */
};

static void read_body(struct str bytes, size_t max_body, uint32_t split, struct body *body)
{
    struct http_chunks chunks = {0};
    struct feed feed = {0};

    *body = (struct body){.result = HTTP_MORE};
    do {
        size_t piece = next_piece(&split, bytes.length), length;

        feed_next(&feed, 0, (struct str){bytes.at, piece});
        bytes = behind(bytes, piece);
        length = feed.length;
        body->result = http_read_chunks(&chunks, feed.at, &length, max_body, &body->status);
        REQUIRE(length <= feed.length && chunks.length <= length && chunks.length <= max_body);
        feed.length = length;
    } while (body->result == HTTP_MORE && bytes.length);
    body->length = chunks.length;
    buf_append(&body->decoded, feed_view(&feed));
    buf_append(&body->decoded, bytes);
    feed_free(&feed);
}

static void try_chunks(struct str bytes, size_t max_body, uint32_t split)
{
    struct body whole, pieces;

    read_body(bytes, max_body, 0, &whole);
    for (uint32_t how = 1; how <= 2; how++) {
        read_body(bytes, max_body, how == 1 ? 1 : split + 2, &pieces);
        REQUIRE(pieces.result == whole.result);
        if (whole.result == HTTP_BAD) {
            REQUIRE(pieces.status == whole.status && (whole.status == 400 || whole.status == 413));
        } else {
            REQUIRE(pieces.length == whole.length);
            REQUIRE(str_equal(str_of(&pieces.decoded), str_of(&whole.decoded)));
        }
        buf_free(&pieces.decoded);
    }
    buf_free(&whole.decoded);
}

/* What is written in chunks is read as it was. */
static void try_coding(struct str content, uint32_t split)
{
    struct buf text = {0};
    struct body body;
    struct str rest = content;
    uint32_t state = split;
    char size[40];

    while (rest.length) {
        size_t piece = next_piece(&state, rest.length);

        snprintf(size, sizeof size, piece % 3 ? "%zx" : "%zX;name=value", piece);
        buf_append(&text, str_from(size));
        buf_append(&text, piece % 2 ? STR("\r\n") : STR("; a = \"\\\";b\" ;c\r\n"));
        buf_append(&text, (struct str){rest.at, piece});
        buf_append(&text, STR("\r\n"));
        rest = behind(rest, piece);
    }
    buf_append(&text, split % 3 ? STR("0\r\n\r\n") : STR("000\r\nSum: 7\r\n\r\n"));
    buf_append(&text, STR("GET"));
    read_body(str_of(&text), content.length, split ^ 1, &body);
    REQUIRE(body.result == HTTP_OK && body.length == content.length);
    REQUIRE(begins_with(str_of(&body.decoded), content));
    REQUIRE(str_equal(behind(str_of(&body.decoded), body.length), STR("GET")));
    buf_free(&body.decoded);
    if (content.length) {
        read_body(str_of(&text), content.length - 1, split, &body);
        REQUIRE(body.result == HTTP_BAD && body.status == 413);
        buf_free(&body.decoded);
    }
    buf_free(&text);
}

/* --- queries and answers --------------------------------------------------------------------- */

static void try_query(struct str text)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    struct str copy = exact_copy(text);
    struct buf out = {.limit = 16}, query = {0};

    if (http_query(copy, STR("systemId"), &out))
        REQUIRE(out.length <= 16 && out.length < copy.length);
    buf_free(&out);
    out.limit = 0;
    out.failed = false;
    buf_append(&query, STR("a&=b&systemI=d&systemId="));
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        char coded[] = {'%', hex[c >> 4], hex[(c & 15) + ((c & 15) > 9 && c & 16 ? 6 : 0)]};

        buf_append(&query, (struct str){coded, 3});
    }
    buf_append(&query, STR("&systemId=e"));
    REQUIRE(http_query(str_of(&query), STR("systemId"), &out));
    REQUIRE(str_equal(str_of(&out), text));
    buf_free(&query);
    buf_free(&out);
    free_copy(copy);
}

static void try_answer(struct fuzz *fuzz)
{
    unsigned flags = fuzz_byte(fuzz), status = 200 + fuzz_byte(fuzz) * 2;
    char date[30], length[64];
    struct http_response answer = {.status = (int)status,
                                   .allow = flags & 1 ? "GET" : NULL,
                                   .fields = flags & 2 ? "Upgrade: websocket\r\n" : NULL,
                                   .retry_after = flags & 4 ? 5 : 0,
                                   .close = flags & 8,
                                   .keep_alive = flags & 16,
                                   .head = flags & 32};
    struct buf out = {0};
    struct str rest, line;

    http_date((int64_t)fuzz_byte(fuzz) << 24 | fuzz_byte(fuzz) << 16, date);
    REQUIRE(strlen(date) == 29 && ends_with(str_from(date), STR(" GMT")));
    answer.date = str_from(date);
    answer.body = fuzz_rest(fuzz);
    http_write_response(&out, &answer);
    rest = str_of(&out);
    REQUIRE(begins_with(rest, STR("HTTP/1.1 ")));
    snprintf(length, sizeof length, "Content-Length: %zu\r", answer.body.length);
    do
        line = str_cut(&rest, '\n');
    while (!str_equal(line, str_from(length)));
    do
        line = str_cut(&rest, '\n');
    while (!str_equal(line, STR("\r")));
    REQUIRE(str_equal(rest, answer.head ? (struct str){0} : answer.body));
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};
    unsigned kind = fuzz_byte(&fuzz);
    uint32_t split = fuzz_byte(&fuzz);

    switch (kind & 7) {
    default:
        try_head(fuzz_rest(&fuzz), 256 + (size_t)(kind >> 3) * 64, split);
        break;
    case 4:
    case 5:
        try_chunks(fuzz_rest(&fuzz), kind >> 3, split);
        break;
    case 6:
        try_coding(fuzz_rest(&fuzz), split);
        break;
    case 7:
        if (kind & 8)
            try_query(fuzz_rest(&fuzz));
        else
            try_answer(&fuzz);
    }
    return 0;
}

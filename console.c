/* console.c - the page at GET /. */
#include "console.h"

#include "crypto.h"

#include <string.h>

/* The bytes of console.html, as the Makefile writes them, and a NUL for strstr. */
static const unsigned char console_page[] = {
#include "build/console.inc"
    0};

#define CONSOLE_LENGTH (sizeof console_page - 1)

/* Appends a source of the policy: the hash of the text between two marks, as a browser computes it.
 */
static bool console_append_hash(struct buf *out, const char *before, const char *after)
{
    const char *begin = strstr((const char *)console_page, before);
    const char *end = begin ? strstr(begin, after) : NULL;
    unsigned char hash[CRYPTO_HASH_SIZE];

    if (!end)
        return false;
    begin += strlen(before);
    if (!crypto_sha256((struct str){begin, (size_t)(end - begin)}, hash))
        return false;
    buf_append(out, STR("'sha256-"));
    crypto_base64(out, (struct str){(const char *)hash, sizeof hash});
    return buf_append(out, STR("'"));
}

static bool console_write_fields(struct buf *out, const char *etag)
{
    bool good;

    buf_print(out, "ETag: %s\r\n", etag);
    /* kept, but revalidated each time: the page changes when the program does */
    buf_append(out, STR("Cache-Control: no-cache\r\n"
                        "X-Content-Type-Options: nosniff\r\n"
                        "Referrer-Policy: no-referrer\r\n"
                        "Content-Security-Policy: default-src 'none'; style-src "));
    good = console_append_hash(out, "<style>", "</style>");
    buf_append(out, STR("; script-src "));
    good = console_append_hash(out, "<script>", "</script>") && good;
    /* 'self' covers ws: and wss: to this origin (CSP 3, section 6.7.2.8) */
    buf_append(out, STR("; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                        "frame-ancestors 'none'; require-trusted-types-for 'script'; "
                        "trusted-types 'none'\r\n"));
    return good && buf_append(out, (struct str){"", 1}); /* a NUL: the fields are a C string */
}

bool console_open(struct console *console)
{
    struct str text = {(const char *)console_page, CONSOLE_LENGTH};
    struct buf fields = BUF_INIT(console->fields), etag = BUF_INIT(console->etag);
    unsigned char hash[CRYPTO_HASH_SIZE];

    *console = (struct console){.page = rcbuf_copy(text)};
    if (!console->page || !crypto_sha256(text, hash))
        return false;
    buf_append(&etag, STR("\""));
    buf_append_hex(&etag, (struct str){(const char *)hash, 8});
    buf_append(&etag, STR("\""));
    return buf_append(&etag, (struct str){"", 1}) && console_write_fields(&fields, console->etag);
}

/* RFC 9110, section 13.1.2. A proxy that compresses makes the tag a weak one. */
static bool console_is_known(const struct console *console, const struct http_request *request)
{
    char space[sizeof "W/" + sizeof console->etag];
    struct buf weak = BUF_INIT(space);
    struct str name = STR("If-None-Match"), etag = str_from(console->etag);

    buf_append(&weak, STR("W/"));
    buf_append(&weak, etag);
    return http_header_has(request, name, etag) || http_header_has(request, name, str_of(&weak)) ||
           http_header_has(request, name, STR("*"));
}

struct rcbuf *console_respond(const struct console *console, const struct http_request *request,
                              struct http_response *response)
{
    bool known = console_is_known(console, request);

    *response = (struct http_response){.status = known ? 304 : 200,
                                       .body = {console->page->bytes, console->page->length},
                                       .type = "text/html; charset=utf-8",
                                       .fields = console->fields,
                                       .head = true};
    return known || str_equal(request->method, STR("HEAD")) ? NULL : console->page;
}

void console_close(struct console *console)
{
    rcbuf_release(console->page);
    console->page = NULL;
}

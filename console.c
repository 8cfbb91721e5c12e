/* console.c - the page at GET /. */
#include "console.h"

#include "crypto.h"

#include <string.h>

/* The bytes of console.html, as the Makefile writes them down. */
static const unsigned char page[] = {
#include "build/console.inc"
};

/* Where `mark` stands in `text`, from `begin` on; the length of `text` if it does not. */
static size_t find(struct str text, size_t begin, struct str mark)
{
    for (size_t i = begin; i + mark.length <= text.length; i++)
        if (memcmp(text.at + i, mark.at, mark.length) == 0)
            return i;
    return text.length;
}

/* Cuts out what stands between two marks, the first of which must be there just once. */
static bool find_between(struct str text, struct str before, struct str behind, struct str *inner)
{
    size_t begin = find(text, 0, before) + before.length;
    size_t end = find(text, begin, behind);

    if (end >= text.length || find(text, begin, before) != text.length)
        return false;
    *inner = (struct str){text.at + begin, end - begin};
    return true;
}

/* Appends a source of the policy: the hash of an element's text, as a browser computes it. */
static bool append_hash(struct buf *out, struct str text)
{
    unsigned char hash[CRYPTO_HASH_SIZE];

    if (!crypto_sha256(text, hash))
        return false;
    buf_append(out, STR("'sha256-"));
    crypto_base64(out, (struct str){(const char *)hash, sizeof hash});
    buf_append(out, STR("'"));
    return true;
}

static bool write_fields(struct buf *out, struct str etag, struct str style, struct str script)
{
    bool good;

    buf_append(out, STR("ETag: "));
    buf_append(out, etag);
    /* kept, but asked for each time: it changes when the program does */
    buf_append(out, STR("\r\nCache-Control: no-cache\r\n"
                        "X-Content-Type-Options: nosniff\r\n"
                        "Referrer-Policy: no-referrer\r\n"
                        "Content-Security-Policy: default-src 'none'; style-src "));
    good = append_hash(out, style);
    buf_append(out, STR("; script-src "));
    good = append_hash(out, script) && good;
    /* 'self' covers ws: and wss: to this origin (CSP 3, section 6.7.2.8) */
    buf_append(out, STR("; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                        "frame-ancestors 'none'; require-trusted-types-for 'script'; "
                        "trusted-types 'none'\r\n"));
    return good && buf_append(out, (struct str){"", 1}); /* to be read as a C string */
}

bool console_open(struct console *console)
{
    struct str text = {(const char *)page, sizeof page}, style, script;
    struct buf fields = {.at = console->fields, .limit = sizeof console->fields};
    struct buf etag = {.at = console->etag, .limit = sizeof console->etag};
    unsigned char hash[CRYPTO_HASH_SIZE];

    fields.capacity = fields.limit;
    etag.capacity = etag.limit;
    *console = (struct console){.page = rcbuf_copy(text)};
    if (!find_between(text, STR("<style>"), STR("</style>"), &style) ||
        !find_between(text, STR("<script>"), STR("</script>"), &script) ||
        !crypto_sha256(text, hash))
        return false;
    buf_append(&etag, STR("\""));
    buf_append_hex(&etag, (struct str){(const char *)hash, 8});
    buf_append(&etag, STR("\""));
    return console->page && !etag.failed && write_fields(&fields, str_of(&etag), style, script);
}

/* RFC 9110, section 13.1.2. A proxy that compresses makes the tag a weak one. */
static bool is_known(const struct http_request *request, struct str etag)
{
    char room[sizeof "W/" + sizeof((struct console *)0)->etag];
    struct buf weak = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct str name = STR("If-None-Match");

    buf_append(&weak, STR("W/"));
    buf_append(&weak, etag);
    return http_header_has(request, name, etag) || http_header_has(request, name, str_of(&weak)) ||
           http_header_has(request, name, STR("*"));
}

struct rcbuf *console_respond(const struct console *console, const struct http_request *request,
                              struct http_response *answer)
{
    bool known = is_known(request, str_from(console->etag));

    *answer = (struct http_response){.status = known ? 304 : 200,
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

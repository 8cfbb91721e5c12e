/* console.c - the page at GET / and the client module at GET /wspush.js. */
#include "console.h"

#include "crypto.h"

/* As the Makefile writes them from console.html: the hashes of its style and its script, and the
 * page as gzip has compressed it. */
static const unsigned char console_bytes[] = {
#include "build/console.inc"
};

/* wspush.js as gzip has compressed it. */
static const unsigned char console_client[] = {
#include "build/client.inc"
};

#define CONSOLE_PAGE                                                                               \
    ((struct str){(const char *)console_bytes + 2 * CRYPTO_HASH_SIZE,                              \
                  sizeof console_bytes - 2 * CRYPTO_HASH_SIZE})

/* Appends a source of the policy: the first or the second hash. */
static void console_append_hash(struct buf *out, size_t number)
{
    buf_append(out, STR("'sha256-"));
    crypto_base64(out, (struct str){(const char *)console_bytes + number * CRYPTO_HASH_SIZE,
                                    CRYPTO_HASH_SIZE});
    buf_append(out, STR("'"));
}

/* Copies a file; begins its header lines, and appends those given. */
static bool console_open_file(struct console *console, struct buf *fields, struct str file,
                              const char *type, const char *more)
{
    struct buf etag = BUF_INIT(console->etag);
    unsigned char hash[CRYPTO_HASH_SIZE];

    *console = (struct console){.file = rcbuf_copy(file), .type = type};
    if (!console->file || !crypto_sha256(file, hash))
        return false;
    buf_append(&etag, STR("\""));
    buf_append_hex(&etag, (struct str){(const char *)hash, 8});
    buf_append(&etag, STR("\""));
    buf_append(&etag, (struct str){"", 1});
    return buf_print(fields,
                     "ETag: %s\r\nContent-Encoding: gzip\r\nX-Content-Type-Options: nosniff\r\n%s",
                     console->etag, more);
}

bool console_open(struct console *console)
{
    struct buf fields = BUF_INIT(console->fields);

    /* kept, but revalidated each time: the page changes when the program does */
    if (!console_open_file(console, &fields, CONSOLE_PAGE, "text/html; charset=utf-8",
                           "Cache-Control: no-cache\r\n"
                           "Referrer-Policy: no-referrer\r\n"
                           "Content-Security-Policy: default-src 'none'; style-src "))
        return false;
    console_append_hash(&fields, 0);
    buf_append(&fields, STR("; script-src "));
    console_append_hash(&fields, 1);
    /* 'self' covers ws: and wss: to this origin (CSP 3, section 6.7.2.8), and /wspush.js */
    buf_append(&fields, STR(" 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
                            "form-action 'none'; frame-ancestors 'none'; "
                            "require-trusted-types-for 'script'; trusted-types 'none'\r\n"));
    return buf_append(&fields, (struct str){"", 1}); /* a NUL: the fields are a C string */
}

bool console_open_client(struct console *console)
{
    struct buf fields = BUF_INIT(console->fields);
    struct str file = {(const char *)console_client, sizeof console_client};

    return console_open_file(console, &fields, file, "text/javascript; charset=utf-8",
                             "Cache-Control: max-age=300\r\n"
                             "Access-Control-Allow-Origin: *\r\n") &&
           buf_append(&fields, (struct str){"", 1});
}

/* RFC 9110, section 13.1.2. A proxy that unpacks a file makes the tag a weak one. */
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
                                       .body = {console->file->bytes, console->file->length},
                                       .type = console->type,
                                       .fields = console->fields,
                                       .head = true};
    return known || str_equal(request->method, STR("HEAD")) ? NULL : console->file;
}

void console_close(struct console *console)
{
    rcbuf_release(console->file);
    console->file = NULL;
}

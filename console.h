/* console.h - two files that the binary has, compressed: console.html, the page at GET /, and
 * wspush.js, the client module at GET /wspush.js; and the header lines that go with them. Every
 * request gets them compressed by gzip, whatever its Accept-Encoding (RFC 9110, section 12.5.3).
 * What the page does, it does through the API; this module knows no system, client or token. */
#ifndef WSPUSH_CONSOLE_H
#define WSPUSH_CONSOLE_H

#include "buf.h"
#include "http.h"

struct console {
    struct rcbuf *file; /* as gzip makes it */
    const char *type;
    char etag[19];    /* with its quotes */
    char fields[672]; /* of every response, each with its CRLF; a C string */
};

/* Copies the page and computes its ETag; its Content-Security-Policy has a hash of the one style
 * and the one script. False without memory, or if OpenSSL fails. */
bool console_open(struct console *console);

/* The same for the client module, which pages of every origin may import. */
bool console_open_client(struct console *console);

/* Fills the response to a GET or HEAD of the file. Returns the body to queue after the response's
 * head, without a reference for the caller; NULL if the response has none. */
struct rcbuf *console_respond(const struct console *console, const struct http_request *request,
                              struct http_response *response);

/* Frees the file; a zeroed console has none. */
void console_close(struct console *console);

#endif

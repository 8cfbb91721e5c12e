/* console.h - the page at GET /: console.html, compiled in, and the header lines that go with it.
 * Knows the page and no system, client or token: what the page does, it does through the API.
 * Refuses: to be opened if the page is not one style and one script without attributes, for which
 * the Content-Security-Policy has a hash each. */
#ifndef WSPUSH_CONSOLE_H
#define WSPUSH_CONSOLE_H

#include "buf.h"
#include "http.h"

struct console {
    struct rcbuf *page;
    char etag[19];    /* with its quotes */
    char fields[640]; /* of every answer, each with its CRLF */
};

/* Copies the page and computes what goes with it. False if there is no memory, or OpenSSL fails. */
bool console_open(struct console *console);

/* Fills the answer to a GET or HEAD of the page; its body, if it is to have one, is the message
 * returned, which is to be queued behind the answer's head. */
struct rcbuf *console_respond(const struct console *console, const struct http_request *request,
                               struct http_response *answer);

/* Frees the page; a zeroed console has none. */
void console_close(struct console *console);

#endif

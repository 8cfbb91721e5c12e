/* webhook_client.h - a receiver of webhooks: its URL, and an HTTP/1.1 connection to it that is kept
 * from one request to the next. For threads that may wait; one thread at a time uses a receiver.
 *
 * Redirects are not followed, proxies not used; a response's body is read to RECEIVER_BODY_MAX
 * bytes and dropped. */
#ifndef WSPUSH_WEBHOOK_CLIENT_H
#define WSPUSH_WEBHOOK_CLIENT_H

#include "tls.h"

#define RECEIVER_URL_MAX 2048
#define RECEIVER_BODY_MAX 65536 /* bytes of a body after which the connection ends */

/* The parts of a URL. */
struct receiver_url {
    bool secure;    /* https */
    char host[256]; /* without brackets */
    uint64_t port;
    struct str authority, path; /* views; the path begins with '/' and has the query */
};

/* Reads http[s]://HOST[:PORT][/PATH] of at most RECEIVER_URL_MAX bytes. False for another text, for
 * one with a user, and for a path that could mean another one (`..`, or '.', '/' or '\' encoded).
 */
bool receiver_read_url(struct str text, struct receiver_url *url);

/* True if scheme, host and port of `text` equal those of a URL in `list`, separated by spaces or
 * commas, and its path begins with that one's. */
bool receiver_is_allowed(struct str list, struct str text);

/* Zeroed except for fd, -1, it is not connected. */
struct receiver {
    int fd;
    struct tls *tls;
};

/* What became of a request. */
struct receiver_result {
    int status;        /* of the response; 0: none that is HTTP/1.1 */
    bool stale;        /* a kept connection had ended before: connect, and send it again */
    const char *error; /* static: why there is no status */
};

/* Makes a connection of a socket that does not block, and owns it. False: no memory, or https and
 * `tls` is NULL. */
bool receiver_open(struct receiver *receiver, int fd, const struct tls_context *tls,
                   const struct receiver_url *url);

/* True if there is a connection on which nothing has come: it may take a request. Closes others. */
bool receiver_is_open(struct receiver *receiver);

/* Sends a request and reads the response, for at most `timeout` ms; gives up once the descriptor
 * `stop` is readable. Keeps the connection if it can serve another request, else closes it. */
void receiver_post(struct receiver *receiver, const struct buf *request, int64_t timeout, int stop,
                   struct receiver_result *result);

/* Closes the connection if there is one. */
void receiver_close(struct receiver *receiver);

#endif

/* cluster_tls.h - TLS 1.2 and 1.3 to Redis and RabbitMQ, whose libraries own the connections: what
 * is trusted, and that a certificate is for the host that was dialled.
 *
 * Rejects: a certificate that no trusted one has signed, that has expired, or that is for another
 * host; older versions of TLS; keys with a passphrase. */
#ifndef WSPUSH_CLUSTER_TLS_H
#define WSPUSH_CLUSTER_TLS_H

#include "config.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */
struct ssl_st;     /* OpenSSL's SSL */

/* One attempt to connect. Zeroed is valid; it must outlive the context that was set up with it. */
struct cluster_tls {
    char host[256];  /* as dialled */
    char error[400]; /* why it failed, in plain English; may be empty, see cluster_tls_reason */
};

/* True if the files of [redis] and [rabbitmq] can be used. Else `error`, cut to `room` bytes, names
 * key and file. */
bool cluster_tls_check(const struct config *config, char *error, size_t room);

/* Sets a client's context up: reads the files, which may have changed since the last connection.
 * False: `tls->error` says why. */
bool cluster_tls_set_up(struct cluster_tls *tls, const struct config_tls *files, const char *host,
                        struct ssl_ctx_st *context);

/* A connection's state, with a context of its own, for a library that takes one. NULL: `tls->error`
 * says why. */
struct ssl_st *cluster_tls_new(struct cluster_tls *tls, const struct config_tls *files,
                               const char *host);
void cluster_tls_free(struct ssl_st *ssl);

/* Does, or goes on with, the handshake on a socket that does not block, until `deadline`
 * (os_now_ms). False: see cluster_tls_reason. */
bool cluster_tls_shake_hands(struct ssl_st *ssl, int fd, int64_t deadline);

/* Why a handshake has failed on this thread, in plain English. */
const char *cluster_tls_reason(const struct cluster_tls *tls);

#endif

/* tls.h - TLS 1.2 and 1.3 (RFC 5246, RFC 8446) over one socket, and the certificate that all
 * connections share. The caller owns the socket, which must not block; nothing here waits.
 *
 * Not accepted: older versions, ciphers without forward secrecy, expensive key exchange, handshakes
 * of more than TLS_HANDSHAKE_MAX bytes, compression, renegotiation, keys with a passphrase, clients
 * whose ALPN lacks http/1.1. */
#ifndef WSPUSH_TLS_H
#define WSPUSH_TLS_H

#include "crypto.h"

#define TLS_RECORD_MAX 16384     /* bytes of content in one record */
#define TLS_HANDSHAKE_MAX 8192   /* bytes that a client may need for its handshake */
#define TLS_TICKET_KEY_AGE 86400 /* seconds for which a ticket key is used */

/* A certificate with its key, and how it is used. For tls.c and cluster_crypto.c alone. */
struct tls_context {
    struct ssl_ctx_st *ssl; /* OpenSSL's SSL_CTX */
    int64_t renewed_at;     /* unix time of the present ticket key */
};

/* One connection; others only read. */
struct tls {
    struct ssl_st *ssl; /* OpenSSL's SSL; its application data is this struct */
    const char *reason; /* why it ended, as OpenSSL says it; NULL if the peer closed it properly */
    size_t pending; /* bytes given to tls_write, counted once the socket has taken their record */
};

/* Loads a chain of certificates, the server's own first, and its private key, both PEM. NULL:
 * `error` says what is wrong with which file, cut to `size` bytes. */
struct tls_context *tls_context_new(const char *cert, const char *key, char *error, size_t size);

/* Replaces the key of tickets if it is a day old. Call now and then, with the unix time. Older
 * tickets are no longer accepted: their clients do a full handshake. Without random bytes there are
 * no more tickets. */
void tls_context_renew(struct tls_context *context, int64_t now);

/* Sets how records are buffered and retried: part of making a context. */
void tls_context_set_modes(const struct tls_context *context);

/* Days until the certificate expires; negative if it has. */
int tls_context_days(const struct tls_context *context);

/* Unix time at which the certificate expires; 0 if it cannot be told. */
int64_t tls_context_expiry(const struct tls_context *context);

/* Frees a context; connections opened with it live on. NULL is allowed. */
void tls_context_free(struct tls_context *context);

/* Prepares the server's handshake on a socket; tls_read does it. NULL: no memory. */
struct tls *tls_open(const struct tls_context *context, int fd);

/* For a client: trusts the certificates in the PEM file `ca`, or, if that is "", those that the
 * system trusts. Reads files. NULL: as with tls_context_new. */
struct tls_context *tls_client_context_new(const char *ca, char *error, size_t size);

/* Prepares the client's handshake with `host`, a name or an address (IPv6 without brackets), for
 * which the server's certificate must be; the first tls_write does it. NULL: no memory. */
struct tls *tls_connect(const struct tls_context *context, int fd, const char *host);

/* True until the handshake is over. */
bool tls_is_opening(const struct tls *tls);

enum tls_status {
    TLS_DONE,        /* *count bytes were read or written */
    TLS_WANTS_READ,  /* come again once the socket is readable, */
    TLS_WANTS_WRITE, /* or writable */
    TLS_PLAIN_HTTP,  /* the peer's first bytes are a plain HTTP request; nothing has been sent */
    TLS_ENDED        /* closed by the peer, or failed: see `reason` */
};

/* Reads at most one record's content. With size for TLS_RECORD_MAX bytes nothing is left behind
 * that poll() would not report. */
enum tls_status tls_read(struct tls *tls, char *at, size_t size, size_t *count);

/* Writes up to TLS_RECORD_MAX bytes as one record. If the socket did not take it, the next call
 * must begin with the same bytes, at any address: see `pending`. */
enum tls_status tls_write(struct tls *tls, const char *at, size_t length, size_t *count);

/* Sends close_notify, unless the connection has failed. */
void tls_finish(struct tls *tls);

/* Frees the connection's state, not its socket. NULL is allowed. */
void tls_close(struct tls *tls);

#endif

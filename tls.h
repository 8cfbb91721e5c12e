/* tls.h - TLS 1.2 and 1.3 (RFC 5246, RFC 8446) over one socket, and the certificate that all
 * connections share; between nodes TLS 1.3 with a pre-shared key instead, both sides. The only user
 * of libssl. The socket is the caller's and non-blocking; nothing here waits or polls.
 * Refuses: older versions, ciphers without forward secrecy, key exchange that is expensive,
 * handshakes of TLS_HANDSHAKE_MAX bytes, compression, renegotiation, keys that want a passphrase,
 * and clients whose ALPN has no http/1.1. */
#ifndef WSPUSH_TLS_H
#define WSPUSH_TLS_H

#include "crypto.h"

#define TLS_RECORD_MAX 16384     /* bytes of content in one record */
#define TLS_HANDSHAKE_MAX 8192   /* bytes that a client may need for its handshake */
#define TLS_TICKET_KEY_AGE 86400 /* seconds for which a ticket key is used */

/* A certificate with its key, and how it is used. */
struct tls_context;

/* Loads a chain of certificates, the server's own first, and its private key, both PEM. NULL:
 * `error` says what is wrong with which file, cut to `room` bytes. */
struct tls_context *tls_context_new(const char *cert, const char *key, char *error, size_t room);

/* Replaces the key of tickets if it is a day old. Call it now and then, with the unix time. Tickets
 * of before are not accepted any more: their clients do a whole handshake. Without random bytes
 * there are no tickets from then on. */
void tls_context_renew(struct tls_context *context, int64_t now);

/* Has no certificate: both ends prove by the key `link` of one of `keys`, which must outlive the
 * context. NULL: no memory, or OpenSSL has no TLS 1.3. */
struct tls_context *tls_context_new_psk(const struct crypto_keyring *keys);

/* Days until the certificate expires; negative if it has. */
int tls_context_days(const struct tls_context *context);

/* Gives a context up; connections that were opened with it live on. NULL is nothing. */
void tls_context_free(struct tls_context *context);

/* One connection. */
struct tls;

/* Prepares the server's handshake on a socket; it happens as tls_read is called. NULL: no memory.
 */
struct tls *tls_open(const struct tls_context *context, int fd);

/* The same for the client of a context with pre-shared keys, which offers its key number `key`. */
struct tls *tls_open_client(const struct tls_context *context, int fd, size_t key);

/* True until the handshake is over. */
bool tls_is_opening(const struct tls *tls);

enum tls_status {
    TLS_DONE,        /* *count bytes were read or written */
    TLS_WANTS_READ,  /* come again once the socket is readable, */
    TLS_WANTS_WRITE, /* or writable */
    TLS_PLAIN_HTTP,  /* the peer's first bytes are a plain HTTP request; nothing has been sent */
    TLS_ENDED        /* closed by the peer, or failed: see tls_reason */
};

/* Reads at most one record's content. With room for TLS_RECORD_MAX bytes or more nothing is left
 * behind that poll() would not tell of. */
enum tls_status tls_read(struct tls *tls, char *at, size_t room, size_t *count);

/* Writes up to TLS_RECORD_MAX bytes as one record. When it could not leave, the next call must be
 * given the same bytes first, if not at the same place: see tls_pending. */
enum tls_status tls_write(struct tls *tls, const char *at, size_t length, size_t *count);

/* Bytes that were given to tls_write and will be counted once their record has left. */
size_t tls_pending(const struct tls *tls);

/* Why the connection ended, in OpenSSL's words; NULL if the peer closed it as it should. */
const char *tls_reason(const struct tls *tls);

/* True if a handshake with pre-shared keys failed because the ends have different ones. */
bool tls_has_wrong_key(const struct tls *tls);

/* Tells the peer that nothing more will come, unless the connection has failed. */
void tls_finish(struct tls *tls);

/* Frees the connection's state, not its socket. NULL is nothing. */
void tls_close(struct tls *tls);

#endif

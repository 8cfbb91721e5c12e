/* cluster_crypto.h - the keys, seals and TLS contexts that only nodes of a cluster need. A user of
 * libcrypto and libssl beside crypto.c and tls.c. */
#ifndef WSPUSH_CLUSTER_CRYPTO_H
#define WSPUSH_CLUSTER_CRYPTO_H

#include "crypto.h"
#include "hub.h"
#include "tls.h"

#define CLUSTER_ID_SIZE 23 /* bytes that a client id seals; its text has HUB_ID_TEXT */

/* Derives the keys of a cluster for each crypto_key of the ring. False if OpenSSL fails. */
bool cluster_crypto_derive(struct crypto_keyring *keys);

/* Seals `plain` into a client id: AES-256-GCM under a nonce that is a keyed hash of `plain`, so
 * that the same bytes always give the same id. False if OpenSSL fails. */
bool cluster_crypto_seal_id(const struct crypto_keys *keys,
                            const unsigned char plain[CLUSTER_ID_SIZE], char text[HUB_ID_TEXT]);

/* Opens an id that was sealed under the same keys; false for every other text. */
bool cluster_crypto_open_id(const struct crypto_keys *keys, struct str text,
                            unsigned char plain[CLUSTER_ID_SIZE]);

/* A context for links between nodes: TLS 1.3 with a pre-shared key, no certificate. Both ends
 * authenticate by the key `link` of one of `keys`, which must have been derived and must outlive
 * the context. NULL: no memory, or OpenSSL has no TLS 1.3. Free it with tls_context_free. */
struct tls_context *cluster_crypto_new_context(const struct crypto_keyring *keys);

/* Prepares the handshake of the connecting end, which offers key number `key`. NULL: no memory. The
 * accepting end uses tls_open. */
struct tls *cluster_crypto_connect(const struct tls_context *context, int fd, size_t key);

/* True if a handshake failed because the ends have different keys; NULL is false. */
bool cluster_crypto_has_wrong_key(const struct tls *tls);

#endif

/* crypto.h - the only user of OpenSSL's crypto: random bytes, SHA-1 for the handshake, SHA-256,
 * base64, signed tokens, sealed client ids, proofs between nodes, password hashes. Everything
 * secret is compared in constant time. Refuses: to go on without random bytes (it reports; the
 * caller decides). */
#ifndef WSPUSH_CRYPTO_H
#define WSPUSH_CRYPTO_H

#include "buf.h"

#define CRYPTO_KEY_SIZE 16
#define CRYPTO_SALT_SIZE 16
#define CRYPTO_HASH_SIZE 32
#define CRYPTO_ID_SIZE 23 /* of what a client id seals, */
#define CRYPTO_ID_TEXT 68 /* and of the id: base64 without padding */

/* Fills `out` with `length` random bytes from OpenSSL's generator. False if it has none to give. */
bool crypto_random(void *out, size_t length);

/* Compares in a time that depends on the length alone. */
bool crypto_equal(struct str a, struct str b);

/* Overwrites memory that held a secret, in a way that no compiler leaves out. */
void crypto_erase(void *at, size_t length);

/* Appends base64 (RFC 4648, section 4, with padding). */
bool crypto_base64(struct buf *out, struct str bytes);

/* SHA-256. False if OpenSSL fails. */
bool crypto_sha256(struct str bytes, unsigned char hash[CRYPTO_HASH_SIZE]);

/* RFC 6455, section 4.2.2: appends the 28 bytes that answer a Sec-WebSocket-Key. */
bool crypto_websocket_accept(struct buf *out, struct str key);

/* What is derived from one crypto_key: a key for each purpose, so that what signs tokens never
 * seals anything else. */
struct crypto_keys {
    unsigned char name[8];                       /* tells the keys apart, and nothing about them */
    unsigned char token[CRYPTO_HASH_SIZE];       /* signs tokens */
    unsigned char id[CRYPTO_HASH_SIZE];          /* seals client ids */
    unsigned char nonce[CRYPTO_HASH_SIZE];       /* makes their nonces */
    unsigned char link[CRYPTO_HASH_SIZE];        /* the pre-shared key of TLS between nodes */
    unsigned char publication[CRYPTO_HASH_SIZE]; /* of the MACs of what nodes publish */
    unsigned char registry[CRYPTO_HASH_SIZE];    /* of the proof in Redis that nodes have one key */
};

#define CRYPTO_KEYS_MAX 2

/* The first is used, all are accepted: a crypto_key can be changed one node after the other. */
struct crypto_keyring {
    struct crypto_keys keys[CRYPTO_KEYS_MAX];
    size_t count;
};

/* Adds the keys of a crypto_key of 16 bytes: HKDF-SHA-256 (RFC 5869) with a label each, and before
 * it, if `stretch` is set, PBKDF2: for a key that a person may have chosen; one of random bytes
 * needs none. False if OpenSSL fails or the ring is full. */
bool crypto_add_key(struct crypto_keyring *keys, struct str crypto_key, bool stretch);

/* Appends a token that names `system` (1 to 128 bytes) and the generation of its account, and ends
 * at `expires` (unix seconds). It is EXPIRES.GENERATION.SYSTEM.SIGNATURE, in hex digits; nothing
 * about it is stored. */
bool crypto_sign_token(const struct crypto_keys *keys, struct str system, uint64_t generation,
                       int64_t expires, struct buf *out);

#define CRYPTO_TOKEN_MAX (16 + 1 + 16 + 1 + 2 * 128 + 1 + 2 * CRYPTO_HASH_SIZE)
#define CRYPTO_TOKENS_KNOWN 16

/* Tokens whose signature was found good lately: most calls carry the token of the one before, and
 * comparing costs a tenth of what hashing does. Zeroed is empty; one for each keyring. */
struct crypto_known {
    struct {
        size_t length;
        char text[CRYPTO_TOKEN_MAX];
    } tokens[CRYPTO_TOKENS_KNOWN];
};

/* True if the token is one of crypto_sign_token under one of the keys and has not expired at `now`;
 * then its system has been appended to `system`. Whether `generation` is still that of the account
 * is the caller's to ask each time. */
bool crypto_check_token(const struct crypto_keyring *keys, struct crypto_known *known,
                        struct str token, int64_t now, struct buf *system, uint64_t *generation);

/* Seals `plain` into a client id: AES-256-GCM under a nonce that is a keyed hash of `plain`, so
 * that the same bytes always give the same id. False if OpenSSL fails. */
bool crypto_seal_id(const struct crypto_keys *keys, const unsigned char plain[CRYPTO_ID_SIZE],
                    char text[CRYPTO_ID_TEXT]);

/* Opens an id of crypto_seal_id under the same keys; false for every other text. */
bool crypto_open_id(const struct crypto_keys *keys, struct str text,
                    unsigned char plain[CRYPTO_ID_SIZE]);

/* HMAC-SHA-256 (RFC 2104). False if OpenSSL fails. */
bool crypto_hmac(const unsigned char key[CRYPTO_HASH_SIZE], struct str text,
                 unsigned char out[CRYPTO_HASH_SIZE]);

/* HMAC-SHA-256 of `text` under the key that only nodes of the same crypto_key have. */
bool crypto_prove(const struct crypto_keys *keys, struct str text,
                  unsigned char proof[CRYPTO_HASH_SIZE]);

/* PBKDF2-HMAC-SHA-256 (RFC 8018). Takes about a tenth of a second at 600,000 iterations: not for
 * the loop's thread. False if OpenSSL fails. */
bool crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                          unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE]);

#endif

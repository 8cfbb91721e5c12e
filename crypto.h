/* crypto.h - the user of libcrypto: random bytes, hashes, HMAC, base64, signed tokens, password
 * hashes. Secrets are compared in constant time. What only nodes of a cluster need is in
 * cluster_crypto.h. */
#ifndef WSPUSH_CRYPTO_H
#define WSPUSH_CRYPTO_H

#include "buf.h"

#define CRYPTO_KEY_SIZE 16
#define CRYPTO_SALT_SIZE 16
#define CRYPTO_HASH_SIZE 32

/* Of PBKDF2, for new passwords and to stretch a crypto_key. Builds for tests have fewer. */
#ifndef CRYPTO_ITERATIONS
#define CRYPTO_ITERATIONS 600000
#endif

/* A view of an array of unsigned char. */
#define CRYPTO_BYTES(array) ((struct str){(const char *)(array), sizeof(array)})

/* Keeps OpenSSL from loading the texts of its errors, which cost 0.5 MB of memory. Call at
 * start-up, before any other function here or in tls.h, on a node without TLS: nothing else shows
 * them. */
void crypto_skip_error_texts(void);

/* Fills `out` with `length` random bytes from OpenSSL's generator. False if it fails. */
bool crypto_random(void *out, size_t length);

/* Compares in a time that depends on the length alone. */
bool crypto_equal(struct str a, struct str b);

/* Overwrites a secret in memory; no compiler leaves it out. */
void crypto_erase(void *at, size_t length);

/* Appends base64 (RFC 4648, section 4, with padding). */
bool crypto_base64(struct buf *out, struct str bytes);

/* Appends base64url (RFC 4648, section 5, without padding); needs room for padding all the same. */
bool crypto_base64url(struct buf *out, struct str bytes);

/* Appends the bytes that such a text says. False for every other spelling of them. */
bool crypto_read_base64url(struct str text, struct buf *out);

/* SHA-256. False if OpenSSL fails. */
bool crypto_sha256(struct str bytes, unsigned char hash[CRYPTO_HASH_SIZE]);

/* HMAC-SHA-256 (RFC 2104). False if OpenSSL fails. */
bool crypto_hmac(const unsigned char key[CRYPTO_HASH_SIZE], struct str text,
                 unsigned char out[CRYPTO_HASH_SIZE]);

/* A key that is ready for many texts: 0.4 µs instead of 1.7 for a short one. Zeroed has no key; for
 * one thread at a time. */
struct crypto_mac {
    struct evp_mac_ctx_st *context;
};

/* Sets, or replaces, the key. False without memory or if OpenSSL fails: it has none then. */
bool crypto_mac_set_key(struct crypto_mac *mac, const unsigned char key[CRYPTO_HASH_SIZE]);

/* The same as crypto_hmac. */
bool crypto_mac_sign(struct crypto_mac *mac, struct str text, unsigned char out[CRYPTO_HASH_SIZE]);

void crypto_mac_free(struct crypto_mac *mac);

/* RFC 6455, section 4.2.2: appends the 28 bytes that answer a Sec-WebSocket-Key of at most 64. */
bool crypto_websocket_accept(struct buf *out, struct str key);

/* PBKDF2-HMAC-SHA-256 (RFC 8018). Takes a tenth of a second for 600,000 iterations: not for the
 * loop's thread. False if OpenSSL fails. */
bool crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                          unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE]);

/* The keys derived from one crypto_key, one for each purpose. */
struct crypto_keys {
    unsigned char secret[CRYPTO_HASH_SIZE]; /* the others are derived from it */
    unsigned char token[CRYPTO_HASH_SIZE];  /* signs tokens */
    unsigned char ticket[CRYPTO_HASH_SIZE]; /* keys of tickets are derived from it */
    /* set by cluster_crypto_derive alone: */
    unsigned char name[8];                       /* tells keys apart, and nothing about them */
    char name_text[16];                          /* the same in hex digits */
    unsigned char id[CRYPTO_HASH_SIZE];          /* seals client ids */
    unsigned char nonce[CRYPTO_HASH_SIZE];       /* makes their nonces */
    unsigned char link[CRYPTO_HASH_SIZE];        /* TLS's pre-shared key between nodes */
    unsigned char publication[CRYPTO_HASH_SIZE]; /* of the MACs of what nodes publish */
    unsigned char registry[CRYPTO_HASH_SIZE];    /* of the proof in Redis that nodes share a key */
};

#define CRYPTO_KEYS_MAX 2

/* The first is used, both are accepted: a crypto_key can be changed one node after the other. */
struct crypto_keyring {
    struct crypto_keys keys[CRYPTO_KEYS_MAX];
    size_t count;
};

/* Adds the keys of a crypto_key of 16 bytes. `stretch` it by PBKDF2 (0.2 s) if a person may have
 * chosen it. False if OpenSSL fails or the ring is full. */
bool crypto_add_key(struct crypto_keyring *keys, struct str crypto_key, bool stretch);

/* HKDF-Expand (RFC 5869) of `secret`: writes the first `length` bytes (at most CRYPTO_HASH_SIZE) of
 * the key for the purpose that `label` (at most 30 bytes) names. False if OpenSSL fails. */
bool crypto_derive(const struct crypto_keys *keys, struct str label, void *out, size_t length);

/* Appends a token that names `system` (1 to 128 bytes) and the generation of its account, and is
 * valid until `expires` (unix seconds): EXPIRES.GENERATION.SYSTEM.SIGNATURE in hex digits. */
bool crypto_sign_token(const struct crypto_keys *keys, struct str system, uint64_t generation,
                       int64_t expires, struct buf *out);

#define CRYPTO_TOKEN_MAX (16 + 1 + 16 + 1 + 2 * 128 + 1 + 2 * CRYPTO_HASH_SIZE)
#define CRYPTO_TOKENS_KNOWN 16

/* Tokens whose signature was verified lately: most calls carry the token of the one before, and
 * comparing costs a tenth of hashing. Zeroed is empty; one for each keyring. */
struct crypto_known {
    struct {
        size_t length;
        char text[CRYPTO_TOKEN_MAX];
    } tokens[CRYPTO_TOKENS_KNOWN];
};

/* True if one of the keys has signed the token and it is valid at `now`; then its system has been
 * appended to `system`. The caller checks each time that `generation` is still the account's. */
bool crypto_check_token(const struct crypto_keyring *keys, struct crypto_known *known,
                        struct str token, int64_t now, struct buf *system, uint64_t *generation);

#endif

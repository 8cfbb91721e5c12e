/* crypto.c - the only user of OpenSSL's crypto. */
#include "crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <limits.h>
#include <string.h>

bool crypto_random(void *out, size_t length)
{
    return length <= INT_MAX && RAND_bytes(out, (int)length) == 1;
}

bool crypto_equal(struct str a, struct str b)
{
    return a.length == b.length && CRYPTO_memcmp(a.at, b.at, a.length) == 0;
}

void crypto_erase(void *at, size_t length)
{
    OPENSSL_cleanse(at, length);
}

bool crypto_base64(struct buf *out, struct str bytes)
{
    size_t length = (bytes.length + 2) / 3 * 4;

    if (bytes.length > INT_MAX / 2 || !buf_reserve(out, length + 1))
        return false;
    EVP_EncodeBlock((unsigned char *)out->at + out->length, (const unsigned char *)bytes.at,
                    (int)bytes.length);
    out->length += length;
    return true;
}

bool crypto_sha256(struct str bytes, unsigned char hash[CRYPTO_HASH_SIZE])
{
    return SHA256((const unsigned char *)bytes.at, bytes.length, hash) != NULL;
}

bool crypto_websocket_accept(struct buf *out, struct str key)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[64 + sizeof guid], digest[SHA_DIGEST_LENGTH];
    size_t length = key.length + sizeof guid - 1;

    if (key.length > 64)
        return false;
    memcpy(text, key.at, key.length);
    memcpy(text + key.length, guid, sizeof guid - 1);
    SHA1(text, length, digest);
    return crypto_base64(out, (struct str){(const char *)digest, sizeof digest});
}

static bool hmac_sha256(struct str key, struct str text, unsigned char out[CRYPTO_HASH_SIZE])
{
    unsigned length = CRYPTO_HASH_SIZE;

    return key.length <= INT_MAX && HMAC(EVP_sha256(), key.at, (int)key.length,
                                         (const unsigned char *)text.at, text.length, out, &length);
}

bool crypto_hmac(const unsigned char key[CRYPTO_HASH_SIZE], struct str text,
                 unsigned char out[CRYPTO_HASH_SIZE])
{
    return hmac_sha256((struct str){(const char *)key, CRYPTO_HASH_SIZE}, text, out);
}

static void append_number(struct buf *out, uint64_t number)
{
    unsigned char bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> (56 - 8 * i));
    buf_append_hex(out, (struct str){(const char *)bytes, sizeof bytes});
}

bool crypto_sign_token(const struct crypto_keys *keys, struct str system, uint64_t generation,
                       int64_t expires, struct buf *out)
{
    size_t begin = out->length;
    unsigned char signature[CRYPTO_HASH_SIZE];

    append_number(out, (uint64_t)expires);
    buf_append(out, STR("."));
    append_number(out, generation);
    buf_append(out, STR("."));
    buf_append_hex(out, system);
    if (out->failed ||
        !crypto_hmac(keys->token, (struct str){out->at + begin, out->length - begin}, signature))
        return false;
    buf_append(out, STR("."));
    return buf_append_hex(out, (struct str){(const char *)signature, sizeof signature});
}

/* True if the end of `token`, in hex digits, signs what stands before it, under one of the keys. */
static bool is_signed(const struct crypto_keyring *keys, struct crypto_known *known,
                      struct str token, struct str signature)
{
    unsigned char expected[CRYPTO_HASH_SIZE], given[CRYPTO_HASH_SIZE];
    int place = str_hex_digit(token.at[token.length - 1]) & (CRYPTO_TOKENS_KNOWN - 1);
    struct str text = {token.at, token.length - signature.length - 1};
    bool good = false;

    if (crypto_equal(token, (struct str){known->tokens[place].text, known->tokens[place].length}))
        return true;
    if (!str_read_hex(signature, given, sizeof given))
        return false;
    for (size_t i = 0; i < keys->count && !good; i++)
        good = crypto_hmac(keys->keys[i].token, text, expected) &&
               CRYPTO_memcmp(expected, given, sizeof given) == 0;
    if (!good)
        return false;
    if (token.length <= CRYPTO_TOKEN_MAX) {
        memcpy(known->tokens[place].text, token.at, token.length);
        known->tokens[place].length = token.length;
    }
    return true;
}

static bool read_number(struct str digits, uint64_t *number)
{
    unsigned char bytes[8];

    if (!str_read_hex(digits, bytes, sizeof bytes))
        return false;
    *number = bytes_get_be(bytes, sizeof bytes);
    return true;
}

bool crypto_check_token(const struct crypto_keyring *keys, struct crypto_known *known,
                        struct str token, int64_t now, struct buf *system, uint64_t *generation)
{
    struct str rest = token, time = str_cut(&rest, '.'), which = str_cut(&rest, '.');
    struct str name = str_cut(&rest, '.');
    uint64_t expires = 0;

    if (!read_number(time, &expires) || !read_number(which, generation) || name.length % 2 ||
        rest.length == 0 || !is_signed(keys, known, token, rest))
        return false;
    /* an end before 1970 was signed as a number past INT64_MAX */
    if (now < 0 || expires > INT64_MAX || expires <= (uint64_t)now ||
        !buf_reserve(system, name.length / 2))
        return false;
    if (!str_read_hex(name, system->at + system->length, name.length / 2))
        return false;
    system->length += name.length / 2;
    return true;
}

#define NONCE_SIZE 12
#define TAG_SIZE 16
#define SEALED_SIZE (NONCE_SIZE + CRYPTO_ID_SIZE + TAG_SIZE)

_Static_assert(SEALED_SIZE % 3 == 0 && SEALED_SIZE / 3 * 4 == CRYPTO_ID_TEXT,
               "an id has no padding: no two texts mean the same bytes");

/* The first bytes of a keyed hash of what is sealed: two different ones never share a nonce. */
static bool make_nonce(const struct crypto_keys *keys, const unsigned char plain[CRYPTO_ID_SIZE],
                       unsigned char nonce[NONCE_SIZE])
{
    unsigned char hash[CRYPTO_HASH_SIZE];

    if (!crypto_hmac(keys->nonce, (struct str){(const char *)plain, CRYPTO_ID_SIZE}, hash))
        return false;
    memcpy(nonce, hash, NONCE_SIZE);
    return true;
}

bool crypto_seal_id(const struct crypto_keys *keys, const unsigned char plain[CRYPTO_ID_SIZE],
                    char text[CRYPTO_ID_TEXT])
{
    unsigned char sealed[SEALED_SIZE], encoded[CRYPTO_ID_TEXT + 1];
    unsigned char *body = sealed + NONCE_SIZE, *tag = body + CRYPTO_ID_SIZE;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length = 0, rest = 0;
    bool good = context && make_nonce(keys, plain, sealed) &&
                EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, keys->id, sealed) == 1 &&
                EVP_EncryptUpdate(context, body, &length, plain, CRYPTO_ID_SIZE) == 1 &&
                EVP_EncryptFinal_ex(context, body + length, &rest) == 1 &&
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, tag) == 1;

    EVP_CIPHER_CTX_free(context);
    if (!good)
        return false;
    EVP_EncodeBlock(encoded, sealed, SEALED_SIZE);
    memcpy(text, encoded, CRYPTO_ID_TEXT);
    return true;
}

/* OpenSSL's decoder skips white space and ends at a '='; an id has neither. */
static bool is_base64(struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/'))
            return false;
    }
    return true;
}

bool crypto_open_id(const struct crypto_keys *keys, struct str text,
                    unsigned char plain[CRYPTO_ID_SIZE])
{
    unsigned char sealed[SEALED_SIZE], *body = sealed + NONCE_SIZE, *tag = body + CRYPTO_ID_SIZE;
    EVP_CIPHER_CTX *context;
    int length = 0, rest = 0;
    bool good;

    if (text.length != CRYPTO_ID_TEXT || !is_base64(text) ||
        EVP_DecodeBlock(sealed, (const unsigned char *)text.at, CRYPTO_ID_TEXT) != SEALED_SIZE)
        return false;
    context = EVP_CIPHER_CTX_new();
    good = context && EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, keys->id, sealed) == 1 &&
           EVP_DecryptUpdate(context, plain, &length, body, CRYPTO_ID_SIZE) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) == 1 &&
           EVP_DecryptFinal_ex(context, plain + length, &rest) == 1;
    EVP_CIPHER_CTX_free(context);
    return good;
}

bool crypto_prove(const struct crypto_keys *keys, struct str text,
                  unsigned char proof[CRYPTO_HASH_SIZE])
{
    return crypto_hmac(keys->registry, text, proof);
}

bool crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                          unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE])
{
    return password.length <= INT_MAX && iterations <= INT_MAX &&
           PKCS5_PBKDF2_HMAC(password.at, (int)password.length, salt, CRYPTO_SALT_SIZE,
                             (int)iterations, EVP_sha256(), CRYPTO_HASH_SIZE, hash) == 1;
}

/* A person's 16 bytes are guessed at this price each; once a start it costs some 0.2 s. */
#define STRETCH_ITERATIONS 600000

/* RFC 5869: HKDF-Expand to one block, under a label for each purpose. */
static bool crypto_expand(const unsigned char secret[CRYPTO_HASH_SIZE], struct str label,
                          unsigned char *out, size_t length)
{
    unsigned char info[32], block[CRYPTO_HASH_SIZE];
    struct str key = {(const char *)secret, CRYPTO_HASH_SIZE};
    bool good = label.length < sizeof info;

    if (!good)
        return false;
    memcpy(info, label.at, label.length);
    info[label.length] = 1;
    good = hmac_sha256(key, (struct str){(const char *)info, label.length + 1}, block);
    memcpy(out, block, length);
    crypto_erase(block, sizeof block);
    return good;
}

bool crypto_add_key(struct crypto_keyring *keys, struct str crypto_key, bool stretch)
{
    static const unsigned char salt[CRYPTO_SALT_SIZE] = "wspush key salt";
    struct crypto_keys *to = &keys->keys[keys->count];
    unsigned char stretched[CRYPTO_HASH_SIZE], secret[CRYPTO_HASH_SIZE];
    bool good = keys->count < CRYPTO_KEYS_MAX;

    if (good && stretch) {
        good = crypto_hash_password(crypto_key, salt, STRETCH_ITERATIONS, stretched);
        crypto_key = (struct str){(const char *)stretched, sizeof stretched};
    }
    good = good && hmac_sha256(STR("wspush"), crypto_key, secret) && /* HKDF-Extract */
           crypto_expand(secret, STR("name"), to->name, sizeof to->name) &&
           crypto_expand(secret, STR("token"), to->token, CRYPTO_HASH_SIZE) &&
           crypto_expand(secret, STR("id"), to->id, CRYPTO_HASH_SIZE) &&
           crypto_expand(secret, STR("nonce"), to->nonce, CRYPTO_HASH_SIZE) &&
           crypto_expand(secret, STR("link"), to->link, CRYPTO_HASH_SIZE) &&
           crypto_expand(secret, STR("publication"), to->publication, CRYPTO_HASH_SIZE) &&
           crypto_expand(secret, STR("registry"), to->registry, CRYPTO_HASH_SIZE);
    crypto_erase(stretched, sizeof stretched);
    crypto_erase(secret, sizeof secret);
    keys->count += good;
    return good;
}

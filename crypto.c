/* crypto.c - the user of libcrypto: random bytes, hashes, HMAC, base64, tokens, password hashes.
 *
 * Keys. crypto_key, 16 bytes, is never used itself. If a person may have chosen it, PBKDF2
 * stretches it first, so that nothing a client or a page sees lets a guess be tested faster than a
 * password hash allows. HKDF (RFC 5869) makes a key for each purpose of it, so that what signs
 * tokens never seals anything else.
 *
 * Tokens are not stored: EXPIRES.GENERATION.SYSTEM.SIGNATURE, where the signature is an HMAC of
 * what stands before it. The generation is that of the system's account, so that a new password
 * ends all old tokens. Verified tokens are remembered, at a slot that their last digit names.
 *
 * Any thread may call these functions; OpenSSL locks what it shares. */
#include "crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <limits.h>
#include <string.h>

void crypto_skip_error_texts(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS, NULL);
}

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

bool crypto_base64url(struct buf *out, struct str bytes)
{
    size_t begin = out->length;

    if (!crypto_base64(out, bytes))
        return false;
    for (size_t i = begin; i < out->length; i++)
        out->at[i] = out->at[i] == '+' ? '-' : out->at[i] == '/' ? '_' : out->at[i];
    while (out->length > begin && out->at[out->length - 1] == '=')
        out->length--;
    return true;
}

/* What a digit of base64url stands for, or -1. */
static int crypto_base64url_digit(char c)
{
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool crypto_read_base64url(struct str text, struct buf *out)
{
    unsigned bits = 0, count = 0; /* of the low bits that no byte has yet */

    if (!buf_reserve(out, text.length / 4 * 3 + 2))
        return false;
    for (size_t i = 0; i < text.length; i++) {
        int digit = crypto_base64url_digit(text.at[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (unsigned)digit;
        count += 6;
        if (count < 8)
            continue;
        count -= 8;
        out->at[out->length++] = (char)(bits >> count);
    }
    return count < 6 && !(bits & ((1u << count) - 1));
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
    return crypto_base64(out, CRYPTO_BYTES(digest));
}

bool crypto_hmac(const unsigned char key[CRYPTO_HASH_SIZE], struct str text,
                 unsigned char out[CRYPTO_HASH_SIZE])
{
    return HMAC(EVP_sha256(), key, CRYPTO_HASH_SIZE, (const unsigned char *)text.at, text.length,
                out, NULL);
}

void crypto_mac_free(struct crypto_mac *mac)
{
    EVP_MAC_CTX_free(mac->context);
    mac->context = NULL;
}

bool crypto_mac_set_key(struct crypto_mac *mac, const unsigned char key[CRYPTO_HASH_SIZE])
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    EVP_MAC *hmac = mac->context ? NULL : EVP_MAC_fetch(NULL, OSSL_MAC_NAME_HMAC, NULL);

    if (hmac)
        mac->context = EVP_MAC_CTX_new(hmac);
    EVP_MAC_free(hmac);
    if (mac->context && EVP_MAC_init(mac->context, key, CRYPTO_HASH_SIZE, params) == 1)
        return true;
    crypto_mac_free(mac);
    return false;
}

bool crypto_mac_sign(struct crypto_mac *mac, struct str text, unsigned char out[CRYPTO_HASH_SIZE])
{
    size_t length;

    return EVP_MAC_init(mac->context, NULL, 0, NULL) == 1 &&
           EVP_MAC_update(mac->context, (const unsigned char *)text.at, text.length) == 1 &&
           EVP_MAC_final(mac->context, out, &length, CRYPTO_HASH_SIZE) == 1;
}

bool crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                          unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE])
{
    return password.length <= INT_MAX && iterations <= INT_MAX &&
           PKCS5_PBKDF2_HMAC(password.at, (int)password.length, salt, CRYPTO_SALT_SIZE,
                             (int)iterations, EVP_sha256(), CRYPTO_HASH_SIZE, hash) == 1;
}

/* --- keys ------------------------------------------------------------------------------------ */

bool crypto_derive(const struct crypto_keys *keys, struct str label, void *out, size_t length)
{
    unsigned char block[CRYPTO_HASH_SIZE];
    char bytes[31];
    struct buf info = BUF_INIT(bytes);
    bool good;

    buf_append(&info, label);
    good = buf_append(&info, STR("\1")) && crypto_hmac(keys->secret, str_of(&info), block);
    if (good)
        memcpy(out, block, length);
    crypto_erase(block, sizeof block);
    return good;
}

bool crypto_add_key(struct crypto_keyring *keys, struct str crypto_key, bool stretch)
{
    static const unsigned char salt[CRYPTO_SALT_SIZE] = "wspush key salt";
    static const unsigned char name[CRYPTO_HASH_SIZE] = "wspush"; /* HMAC pads a key with zeros */
    struct crypto_keys *to = &keys->keys[keys->count];
    unsigned char stretched[CRYPTO_HASH_SIZE];
    bool good = keys->count < CRYPTO_KEYS_MAX;

    if (good && stretch) {
        good = crypto_hash_password(crypto_key, salt, CRYPTO_ITERATIONS, stretched);
        crypto_key = CRYPTO_BYTES(stretched);
    }
    good = good && crypto_hmac(name, crypto_key, to->secret) && /* HKDF-Extract */
           crypto_derive(to, STR("token"), to->token, sizeof to->token) &&
           crypto_derive(to, STR("ticket"), to->ticket, sizeof to->ticket);
    crypto_erase(stretched, sizeof stretched);
    keys->count += good;
    return good;
}

/* --- tokens ---------------------------------------------------------------------------------- */

static bool crypto_read_number(struct str digits, uint64_t *number)
{
    unsigned char bytes[8];

    if (!str_read_hex(digits, bytes, sizeof bytes))
        return false;
    *number = bytes_get_be(bytes, sizeof bytes);
    return true;
}

bool crypto_sign_token(const struct crypto_keys *keys, struct str system, uint64_t generation,
                       int64_t expires, struct buf *out)
{
    size_t begin = out->length;
    unsigned char signature[CRYPTO_HASH_SIZE];

    buf_print(out, "%016llx.%016llx.", (unsigned long long)expires, (unsigned long long)generation);
    buf_append_hex(out, system);
    if (out->failed || !crypto_hmac(keys->token, str_skip(str_of(out), begin), signature))
        return false;
    buf_append(out, STR("."));
    return buf_append_hex(out, CRYPTO_BYTES(signature));
}

/* True if the last part of `token` signs the parts before it, under one of the keys. */
static bool crypto_is_signed(const struct crypto_keyring *keys, struct crypto_known *known,
                             struct str token, struct str signature)
{
    unsigned char expected[CRYPTO_HASH_SIZE], given[CRYPTO_HASH_SIZE];
    int slot = str_hex_digit(token.at[token.length - 1]) & (CRYPTO_TOKENS_KNOWN - 1);
    struct str text = {token.at, token.length - signature.length - 1};
    bool good = false;

    if (crypto_equal(token, (struct str){known->tokens[slot].text, known->tokens[slot].length}))
        return true;
    if (!str_read_hex(signature, given, sizeof given))
        return false;
    for (size_t i = 0; i < keys->count && !good; i++)
        good = crypto_hmac(keys->keys[i].token, text, expected) &&
               CRYPTO_memcmp(expected, given, sizeof given) == 0;
    if (!good)
        return false;
    if (token.length <= CRYPTO_TOKEN_MAX) {
        memcpy(known->tokens[slot].text, token.at, token.length);
        known->tokens[slot].length = token.length;
    }
    return true;
}

bool crypto_check_token(const struct crypto_keyring *keys, struct crypto_known *known,
                        struct str token, int64_t now, struct buf *system, uint64_t *generation)
{
    struct str rest = token, time = str_cut(&rest, '.'), which = str_cut(&rest, '.');
    struct str name = str_cut(&rest, '.');
    uint64_t expires = 0;

    if (!crypto_read_number(time, &expires) || !crypto_read_number(which, generation) ||
        name.length % 2 || rest.length == 0 || !crypto_is_signed(keys, known, token, rest))
        return false;
    /* a time before 1970 was signed as a number above INT64_MAX */
    if (now < 0 || expires > INT64_MAX || expires <= (uint64_t)now ||
        !buf_reserve(system, name.length / 2))
        return false;
    if (!str_read_hex(name, system->at + system->length, name.length / 2))
        return false;
    system->length += name.length / 2;
    return true;
}

/* cluster_crypto.c - the keys, seals and TLS contexts that only nodes of a cluster need.
 *
 * A client id tells which node owns the client, sealed so that nobody can make or read one. The
 * nonce is derived from the plain text (as in SIV), so an id is always written the same way.
 *
 * Links speak TLS 1.3 with an external pre-shared key (RFC 8446, section 2.2) whose identity is the
 * key's name in hex digits. A key exchange comes with it, so that a stolen key opens no recordings;
 * there is no certificate to fall back to, no request_id and no early data. ChaCha20 is preferred:
 * AES-GCM wears out after 400 GB (section 5.5), and a link may last for months.
 *
 * The keyring is the SSL_CTX's application data, the struct tls that of an SSL. The key that a
 * connecting end offers is chosen by its callback, of which there is one for each. */
#include "cluster_crypto.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <stdlib.h>
#include <string.h>

#define NONCE_SIZE 12
#define TAG_SIZE 16
#define SEALED_SIZE (NONCE_SIZE + CLUSTER_ID_SIZE + TAG_SIZE)

_Static_assert(SEALED_SIZE % 3 == 0 && SEALED_SIZE / 3 * 4 == HUB_ID_TEXT,
               "an id has no padding: no two texts mean the same bytes");

static const char wrong_key[] = "the other end has another key";

bool cluster_crypto_derive(struct crypto_keyring *keys)
{
    bool good = true;

    for (size_t i = 0; i < keys->count && good; i++) {
        struct crypto_keys *to = &keys->keys[i];
        struct buf name = BUF_INIT(to->name_text);

        good = crypto_derive(to, STR("name"), to->name, sizeof to->name) &&
               crypto_derive(to, STR("id"), to->id, sizeof to->id) &&
               crypto_derive(to, STR("nonce"), to->nonce, sizeof to->nonce) &&
               crypto_derive(to, STR("link"), to->link, sizeof to->link) &&
               crypto_derive(to, STR("publication"), to->publication, sizeof to->publication) &&
               crypto_derive(to, STR("registry"), to->registry, sizeof to->registry) &&
               buf_append_hex(&name, CRYPTO_BYTES(to->name));
    }
    return good;
}

/* --- client ids ------------------------------------------------------------------------------- */

/* The first bytes of a keyed hash of `plain`: two different ones never share a nonce. */
static bool cluster_crypto_make_nonce(const struct crypto_keys *keys,
                                      const unsigned char plain[CLUSTER_ID_SIZE],
                                      unsigned char nonce[NONCE_SIZE])
{
    unsigned char hash[CRYPTO_HASH_SIZE];
    bool good = crypto_hmac(keys->nonce, (struct str){(const char *)plain, CLUSTER_ID_SIZE}, hash);

    memcpy(nonce, hash, NONCE_SIZE);
    return good;
}

bool cluster_crypto_seal_id(const struct crypto_keys *keys,
                            const unsigned char plain[CLUSTER_ID_SIZE], char text[HUB_ID_TEXT])
{
    unsigned char sealed[SEALED_SIZE], encoded[HUB_ID_TEXT + 1];
    unsigned char *body = sealed + NONCE_SIZE, *tag = body + CLUSTER_ID_SIZE;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length = 0, rest = 0;
    bool good = context && cluster_crypto_make_nonce(keys, plain, sealed) &&
                EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, keys->id, sealed) == 1 &&
                EVP_EncryptUpdate(context, body, &length, plain, CLUSTER_ID_SIZE) == 1 &&
                EVP_EncryptFinal_ex(context, body + length, &rest) == 1 &&
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, tag) == 1;

    EVP_CIPHER_CTX_free(context);
    if (!good)
        return false;
    EVP_EncodeBlock(encoded, sealed, SEALED_SIZE);
    memcpy(text, encoded, HUB_ID_TEXT);
    return true;
}

/* OpenSSL's decoder skips white space and stops at '=': an id must have neither. */
static bool cluster_crypto_is_base64(struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/'))
            return false;
    }
    return true;
}

bool cluster_crypto_open_id(const struct crypto_keys *keys, struct str text,
                            unsigned char plain[CLUSTER_ID_SIZE])
{
    unsigned char sealed[SEALED_SIZE], *body = sealed + NONCE_SIZE, *tag = body + CLUSTER_ID_SIZE;
    EVP_CIPHER_CTX *context;
    int length = 0, rest = 0;
    bool good;

    if (text.length != HUB_ID_TEXT || !cluster_crypto_is_base64(text) ||
        EVP_DecodeBlock(sealed, (const unsigned char *)text.at, HUB_ID_TEXT) != SEALED_SIZE)
        return false;
    context = EVP_CIPHER_CTX_new();
    good = context && EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, keys->id, sealed) == 1 &&
           EVP_DecryptUpdate(context, plain, &length, body, CLUSTER_ID_SIZE) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) == 1 &&
           EVP_DecryptFinal_ex(context, plain + length, &rest) == 1;
    EVP_CIPHER_CTX_free(context);
    return good;
}

/* --- links ------------------------------------------------------------------------------------ */

/* A session that stands for a key; OpenSSL owns it. NULL without memory. */
static SSL_SESSION *cluster_crypto_make_session(SSL *ssl, const struct crypto_keys *keys)
{
    static const unsigned char suite[2] = {0x13, 0x01}; /* stands for all with SHA-256 */
    SSL_SESSION *session = SSL_SESSION_new();

    if (session && SSL_SESSION_set1_master_key(session, keys->link, sizeof keys->link) == 1 &&
        SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suite)) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static const struct crypto_keyring *cluster_crypto_keys_of(const SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

static int cluster_crypto_offer(SSL *ssl, size_t key, const unsigned char **name, size_t *length,
                                SSL_SESSION **session)
{
    const struct crypto_keys *keys = &cluster_crypto_keys_of(ssl)->keys[key];

    *name = (const unsigned char *)keys->name_text;
    *length = sizeof keys->name_text;
    *session = cluster_crypto_make_session(ssl, keys);
    return *session != NULL;
}

/* OpenSSL asks again, with `hash` set, after a retry of its hello. */
static int cluster_crypto_offer_first(SSL *ssl, const EVP_MD *hash, const unsigned char **name,
                                      size_t *length, SSL_SESSION **session)
{
    (void)hash;
    return cluster_crypto_offer(ssl, 0, name, length, session);
}

static int cluster_crypto_offer_second(SSL *ssl, const EVP_MD *hash, const unsigned char **name,
                                       size_t *length, SSL_SESSION **session)
{
    (void)hash;
    return cluster_crypto_offer(ssl, 1, name, length, session);
}

/* The accepting end's key of this name. Without one the handshake fails: there is no certificate.
 */
static int cluster_crypto_find_key(SSL *ssl, const unsigned char *name, size_t length,
                                   SSL_SESSION **session)
{
    const struct crypto_keyring *keys = cluster_crypto_keys_of(ssl);
    struct tls *tls = SSL_get_app_data(ssl);

    *session = NULL;
    for (size_t i = 0; i < keys->count; i++) {
        const char *known = keys->keys[i].name_text;

        if (length == sizeof keys->keys[i].name_text && memcmp(known, name, length) == 0) {
            *session = cluster_crypto_make_session(ssl, &keys->keys[i]);
            return *session != NULL;
        }
    }
    tls->reason = wrong_key;
    return 1;
}

static bool cluster_crypto_configure(SSL_CTX *ssl)
{
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
    SSL_CTX_set_psk_find_session_callback(ssl, cluster_crypto_find_key);
    return SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
           SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519:P-256") == 1 &&
           SSL_CTX_set_ciphersuites(ssl, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256") ==
               1;
}

struct tls_context *cluster_crypto_new_context(const struct crypto_keyring *keys)
{
    struct tls_context *context = calloc(1, sizeof *context);

    if (!context)
        return NULL;
    context->ssl = SSL_CTX_new(TLS_method());
    if (context->ssl && SSL_CTX_set_app_data(context->ssl, (void *)(uintptr_t)keys) == 1 &&
        cluster_crypto_configure(context->ssl)) {
        tls_context_set_modes(context);
        return context;
    }
    tls_context_free(context);
    return NULL;
}

struct tls *cluster_crypto_connect(const struct tls_context *context, int fd, size_t key)
{
    struct tls *tls = tls_open(context, fd);

    if (!tls)
        return NULL;
    SSL_set_psk_use_session_callback(tls->ssl, key ? cluster_crypto_offer_second
                                                   : cluster_crypto_offer_first);
    SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL); /* no certificate is good: only the key is */
    SSL_set_connect_state(tls->ssl);
    return tls;
}

bool cluster_crypto_has_wrong_key(const struct tls *tls)
{
    /* an accepting end that does not know the offered key sends this alert */
    unsigned long alert = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE);

    return tls && tls->reason &&
           (tls->reason == wrong_key ||
            (tls_is_opening(tls) && tls->reason == ERR_reason_error_string(alert)));
}

/* tls.c - TLS 1.2 and 1.3 over one socket, with a certificate or, between nodes, pre-shared keys.
 *
 * The loop's thread does the handshakes, so what a peer can make it compute is bounded. Key
 * exchange is with X25519, P-256 and P-384 alone: OpenSSL's defaults offer P-521 and finite fields
 * as well, where a recorded ClientHello of 1,191 bytes (ffdhe8192) costs 170 ms (CVE-2002-20001).
 * What a handshake reads is counted below OpenSSL, by a callback on its BIO: OpenSSL alone would
 * take 128 KiB, and 64 KiB of key shares cost it 80 ms. Later messages cost 20 us each, one a call.
 * Tickets carry the keys of their session (TLS 1.2), under a key that all connections share:
 * tls_context_renew replaces it, so that a stolen one opens a day's recordings at the most.
 * Pre-shared keys (RFC 8446, 2.2) are external ones, whose identity is the key's name in hex
 * digits. They come with a key exchange, so that a stolen one opens no recordings; there is no
 * certificate to fall back to, no ticket and no early data. ChaCha20 goes first: AES-GCM wears out
 * after 400 GB (5.5), and a link may last for months. */
#include "tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TLS_TICKET_KEYS_MAX 128 /* OpenSSL's have 80 bytes: a name, a key, a key for the MAC */

#define TLS_PSK_NAME (2 * sizeof((struct crypto_keys *)0)->name)

struct tls_context {
    SSL_CTX *ssl;
    int64_t renewed;                   /* unix time of the present ticket key */
    const struct crypto_keyring *keys; /* pre-shared, or NULL */
    char names[CRYPTO_KEYS_MAX][TLS_PSK_NAME];
};

struct tls {
    SSL *ssl;
    const struct tls_context *context;
    size_t key;     /* client: the number of the key that it offers */
    bool wrong_key; /* the other end has another one */
    const char *reason;
    size_t pending;
};

/* --- the certificate ------------------------------------------------------------------------- */

/* A server has nobody to ask for a passphrase. */
static int no_passphrase(char *out, int size, int writing, void *argument)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)argument;
    return -1;
}

/* RFC 7301: http/1.1 is all there is, also for a client that would rather have something else. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                           const unsigned char *offered, unsigned length, void *argument)
{
    static const unsigned char spoken[] = "\x08http/1.1";
    unsigned char *chosen = NULL;

    (void)ssl;
    (void)argument;
    if (SSL_select_next_proto(&chosen, out_length, spoken, sizeof spoken - 1, offered, length) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool configure(SSL_CTX *ssl)
{
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* a quiet client keeps no record buffers: they are 34 kB */
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* else one call reads on for as long as a peer sends records without content */
    SSL_CTX_clear_mode(ssl, SSL_MODE_AUTO_RETRY);
    /* sessions resume from the ticket that the client keeps; one is what a client uses */
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ssl, 1);
    SSL_CTX_set_alpn_select_cb(ssl, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384") == 1 &&
           SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

/* OpenSSL's words for what has just failed, or the system's: what failed first caused the rest. */
static const char *first_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);

    if (!reason && ERR_SYSTEM_ERROR(code))
        reason = strerror(ERR_GET_REASON(code));
    return reason ? reason : "failed";
}

/* RFC 5246, 7.4.2: each certificate behind the first has issued the one before. Returns the number
 * of the first that has not; 0 if all have. */
static int tls_find_disorder(SSL_CTX *ssl)
{
    X509 *cert = SSL_CTX_get0_certificate(ssl);
    STACK_OF(X509) *chain = NULL;

    SSL_CTX_get0_chain_certs(ssl, &chain);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        X509 *issuer = sk_X509_value(chain, i);

        if (X509_check_issued(issuer, cert) != X509_V_OK)
            return i + 2;
        cert = issuer;
    }
    return 0;
}

static bool load(SSL_CTX *ssl, const char *cert, const char *key, char *error, size_t room)
{
    const char *file = cert;
    bool good = SSL_CTX_use_certificate_chain_file(ssl, cert) == 1;
    int wrong;

    if (good) {
        file = key;
        good = SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) == 1 &&
               SSL_CTX_check_private_key(ssl) == 1;
    }
    if (!good) {
        snprintf(error, room, "%s: %s", file, first_reason());
        return false;
    }
    wrong = tls_find_disorder(ssl);
    if (wrong)
        snprintf(error, room, "%s: certificate %d has not issued the one before it", cert, wrong);
    return !wrong;
}

struct tls_context *tls_context_new(const char *cert, const char *key, char *error, size_t room)
{
    struct tls_context *context = calloc(1, sizeof *context);

    snprintf(error, room, "out of memory");
    if (!context)
        return NULL;
    ERR_clear_error();
    context->ssl = SSL_CTX_new(TLS_server_method());
    if (context->ssl && configure(context->ssl) && load(context->ssl, cert, key, error, room))
        return context;
    tls_context_free(context);
    return NULL;
}

/* --- pre-shared keys ------------------------------------------------------------------------- */

/* A session that stands for a key, for OpenSSL to own; NULL without memory. */
static SSL_SESSION *tls_make_session(SSL *ssl, const struct crypto_keys *keys)
{
    static const unsigned char sha256_suite[2] = {0x13,
                                                  0x01}; /* any suite with this hash is good */
    SSL_SESSION *session = SSL_SESSION_new();

    if (session && SSL_SESSION_set1_master_key(session, keys->link, sizeof keys->link) == 1 &&
        SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, sha256_suite)) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

/* The client's key; OpenSSL asks again, with `hash` set, after a retry of its hello. */
static int tls_offer_key(SSL *ssl, const EVP_MD *hash, const unsigned char **name, size_t *length,
                         SSL_SESSION **session)
{
    const struct tls *tls = SSL_get_app_data(ssl);

    (void)hash;
    *name = (const unsigned char *)tls->context->names[tls->key];
    *length = TLS_PSK_NAME;
    *session = tls_make_session(ssl, &tls->context->keys->keys[tls->key]);
    return *session != NULL;
}

/* The server's key of this name. Without one the handshake fails: there is no certificate. */
static int tls_find_key(SSL *ssl, const unsigned char *name, size_t length, SSL_SESSION **session)
{
    struct tls *tls = SSL_get_app_data(ssl);
    const struct tls_context *context = tls->context;

    *session = NULL;
    for (size_t i = 0; i < context->keys->count; i++)
        if (length == TLS_PSK_NAME && memcmp(context->names[i], name, length) == 0) {
            *session = tls_make_session(ssl, &context->keys->keys[i]);
            return *session != NULL;
        }
    tls->wrong_key = true;
    return 1;
}

static bool tls_configure_psk(SSL_CTX *ssl)
{
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_clear_mode(ssl, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_psk_use_session_callback(ssl, tls_offer_key);
    SSL_CTX_set_psk_find_session_callback(ssl, tls_find_key);
    return SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
           SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519:P-256") == 1 &&
           SSL_CTX_set_ciphersuites(ssl, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256") ==
               1;
}

struct tls_context *tls_context_new_psk(const struct crypto_keyring *keys)
{
    struct tls_context *context = calloc(1, sizeof *context);
    bool good;

    if (!context)
        return NULL;
    context->keys = keys;
    context->ssl = SSL_CTX_new(TLS_method());
    good = context->ssl && tls_configure_psk(context->ssl);
    for (size_t i = 0; i < keys->count; i++) {
        struct str name = {(const char *)keys->keys[i].name, sizeof keys->keys[i].name};
        struct buf hex = {.at = context->names[i], .capacity = TLS_PSK_NAME, .limit = TLS_PSK_NAME};

        good = good && buf_append_hex(&hex, name);
    }
    if (good)
        return context;
    tls_context_free(context);
    return NULL;
}

void tls_context_renew(struct tls_context *context, int64_t now)
{
    unsigned char keys[TLS_TICKET_KEYS_MAX];
    long length = SSL_CTX_get_tlsext_ticket_keys(context->ssl, NULL, 0);

    if (now >= context->renewed && now - context->renewed < TLS_TICKET_KEY_AGE)
        return;
    if (length <= 0 || length > TLS_TICKET_KEYS_MAX || RAND_bytes(keys, (int)length) != 1 ||
        SSL_CTX_set_tlsext_ticket_keys(context->ssl, keys, length) != 1)
        SSL_CTX_set_options(context->ssl, SSL_OP_NO_TICKET);
    OPENSSL_cleanse(keys, sizeof keys);
    context->renewed = now;
}

int tls_context_days(const struct tls_context *context)
{
    const X509 *cert = SSL_CTX_get0_certificate(context->ssl);
    int days = 0, seconds = 0;

    if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)))
        return 0;
    return days == 0 && seconds < 0 ? -1 : days;
}

void tls_context_free(struct tls_context *context)
{
    if (context)
        SSL_CTX_free(context->ssl);
    free(context);
}

/* --- connections ----------------------------------------------------------------------------- */

bool tls_is_opening(const struct tls *tls)
{
    return !SSL_is_init_finished(tls->ssl);
}

/* Fails a read with which a handshake would pass TLS_HANDSHAKE_MAX bytes. */
static long tls_limit_handshake(BIO *bio, int operation, const char *at, size_t room, int argument,
                                long number, int result, size_t *count)
{
    struct tls *tls = (void *)BIO_get_callback_arg(bio);

    (void)at;
    (void)argument;
    (void)number;
    (void)count;
    if (operation != BIO_CB_READ || !tls_is_opening(tls) ||
        BIO_number_read(bio) + room <= TLS_HANDSHAKE_MAX)
        return result;
    tls->reason = "the handshake is too long";
    return 0;
}

static struct tls *tls_prepare(const struct tls_context *context, int fd)
{
    struct tls *tls = calloc(1, sizeof *tls);

    if (!tls)
        return NULL;
    tls->context = context->keys ? context : NULL;
    tls->ssl = SSL_new(context->ssl);
    if (tls->ssl && SSL_set_fd(tls->ssl, fd) == 1 && SSL_set_app_data(tls->ssl, tls) == 1) {
        BIO_set_callback_ex(SSL_get_rbio(tls->ssl), tls_limit_handshake);
        BIO_set_callback_arg(SSL_get_rbio(tls->ssl), (char *)tls);
        return tls;
    }
    tls_close(tls);
    return NULL;
}

struct tls *tls_open(const struct tls_context *context, int fd)
{
    struct tls *tls = tls_prepare(context, fd);

    if (tls)
        SSL_set_accept_state(tls->ssl);
    return tls;
}

struct tls *tls_open_client(const struct tls_context *context, int fd, size_t key)
{
    struct tls *tls = tls_prepare(context, fd);

    if (!tls)
        return NULL;
    tls->key = key;
    SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL); /* no certificate is good: only the key is */
    SSL_set_connect_state(tls->ssl);
    return tls;
}

/* True if the server of a pre-shared key does not know the one that was offered. */
static bool tls_is_refused(const struct tls *tls)
{
    return tls->context && tls_is_opening(tls) &&
           ERR_GET_REASON(ERR_peek_error()) == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE;
}

/* What a call that gave nothing means. */
static enum tls_status explain(struct tls *tls)
{
    switch (SSL_get_error(tls->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_ENDED;
    case SSL_ERROR_SYSCALL:
        if (!tls->reason)
            tls->reason = errno ? strerror(errno) : "closed without notice";
        return TLS_ENDED;
    default:
        tls->wrong_key = tls->wrong_key || tls_is_refused(tls);
        if (!tls->reason)
            tls->reason = tls->wrong_key ? "the other end has another key" : first_reason();
        return ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST ? TLS_PLAIN_HTTP : TLS_ENDED;
    }
}

enum tls_status tls_read(struct tls *tls, char *at, size_t room, size_t *count)
{
    *count = 0;
    ERR_clear_error(); /* what is said of this connection must not be another one's */
    return SSL_read_ex(tls->ssl, at, room, count) == 1 ? TLS_DONE : explain(tls);
}

enum tls_status tls_write(struct tls *tls, const char *at, size_t length, size_t *count)
{
    enum tls_status status = TLS_DONE;

    *count = 0;
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, at, length, count) != 1)
        status = explain(tls);
    tls->pending = status == TLS_DONE ? 0 : length;
    return status;
}

size_t tls_pending(const struct tls *tls)
{
    return tls->pending;
}

bool tls_has_wrong_key(const struct tls *tls)
{
    return tls->wrong_key;
}

const char *tls_reason(const struct tls *tls)
{
    return tls->reason;
}

void tls_finish(struct tls *tls)
{
    ERR_clear_error();
    if (tls->reason)
        return;             /* it has failed, and the peer was told so where that was possible */
    SSL_shutdown(tls->ssl); /* if that fails, the end of the stream says the same, less politely */
}

void tls_close(struct tls *tls)
{
    if (tls)
        SSL_free(tls->ssl);
    free(tls);
}

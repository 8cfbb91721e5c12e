/* tls.c - TLS 1.2 and 1.3 over one socket: the user of libssl.
 *
 * The loop's thread does the handshakes, so what a peer can make it compute is bounded. Key
 * exchange is X25519, P-256 or P-384: OpenSSL's defaults offer P-521 and finite fields too, where a
 * recorded ClientHello of 1,191 bytes (ffdhe8192) costs 170 ms (CVE-2002-20001). A callback on the
 * BIO counts what a handshake reads: OpenSSL alone would take 128 KiB, and 64 KiB of key shares
 * cost it 80 ms. Later handshake messages cost 20 us each, one a call.
 *
 * A quiet connection keeps no record buffers (34 kB). A call reads or writes one record at most.
 *
 * Tickets carry the keys of their session (TLS 1.2), under a key that all connections share. It is
 * replaced every day, so that a stolen one opens a day's recordings at most.
 *
 * OpenSSL's errors are a queue per thread: it is cleared before each call, so that a reason is that
 * of this connection. Contexts for links between nodes are made in cluster_crypto.c. */
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

/* --- the certificate ------------------------------------------------------------------------- */

/* Nobody is there to type a passphrase: fail instead of asking at the terminal. */
static int tls_refuse_passphrase(char *out, int size, int writing, void *argument)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)argument;
    return -1;
}

/* RFC 7301: http/1.1, whatever else a client offers before it. */
static int tls_choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length,
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

void tls_context_set_modes(const struct tls_context *context)
{
    SSL_CTX_set_mode(context->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* else one call reads on for as long as a peer sends records without content */
    SSL_CTX_clear_mode(context->ssl, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(context->ssl, SSL_SESS_CACHE_OFF);
}

static bool tls_configure(SSL_CTX *ssl)
{
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_num_tickets(ssl, 1); /* a client resumes with the last one */
    SSL_CTX_set_alpn_select_cb(ssl, tls_choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(ssl, tls_refuse_passphrase);
    return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384") == 1 &&
           SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

/* The text of OpenSSL's first error, or the system's: the first one caused the others. */
static const char *tls_first_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);

    if (!reason && ERR_SYSTEM_ERROR(code))
        reason = strerror(ERR_GET_REASON(code));
    return reason ? reason : "failed";
}

/* Checks that each certificate has issued the one before it (RFC 5246, section 7.4.2). Returns the
 * number of the first that has not, 0 if all have. */
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

static bool tls_load(SSL_CTX *ssl, const char *cert, const char *key, char *error, size_t size)
{
    bool has_cert = SSL_CTX_use_certificate_chain_file(ssl, cert) == 1;
    int wrong;

    if (!has_cert || SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ssl) != 1) {
        snprintf(error, size, "%s: %s", has_cert ? key : cert, tls_first_reason());
        return false;
    }
    wrong = tls_find_disorder(ssl);
    if (wrong)
        snprintf(error, size, "%s: certificate %d has not issued the one before it", cert, wrong);
    return !wrong;
}

struct tls_context *tls_context_new(const char *cert, const char *key, char *error, size_t size)
{
    struct tls_context *context = calloc(1, sizeof *context);

    snprintf(error, size, "out of memory");
    if (!context)
        return NULL;
    ERR_clear_error();
    context->ssl = SSL_CTX_new(TLS_server_method());
    if (context->ssl && tls_configure(context->ssl) &&
        tls_load(context->ssl, cert, key, error, size)) {
        tls_context_set_modes(context);
        return context;
    }
    tls_context_free(context);
    return NULL;
}

struct tls_context *tls_client_context_new(const char *ca, char *error, size_t size)
{
    struct tls_context *context = calloc(1, sizeof *context);

    snprintf(error, size, "out of memory");
    if (!context)
        return NULL;
    ERR_clear_error();
    context->ssl = SSL_CTX_new(TLS_client_method());
    if (context->ssl && SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION) == 1) {
        if ((ca[0] ? SSL_CTX_load_verify_locations(context->ssl, ca, NULL)
                   : SSL_CTX_set_default_verify_paths(context->ssl)) == 1) {
            SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
            tls_context_set_modes(context);
            return context;
        }
        snprintf(error, size, "%s: %s", ca, tls_first_reason());
    }
    tls_context_free(context);
    return NULL;
}

void tls_context_renew(struct tls_context *context, int64_t now)
{
    unsigned char keys[TLS_TICKET_KEYS_MAX];
    long length = SSL_CTX_get_tlsext_ticket_keys(context->ssl, NULL, 0);

    if (now >= context->renewed_at && now - context->renewed_at < TLS_TICKET_KEY_AGE)
        return;
    if (length <= 0 || length > TLS_TICKET_KEYS_MAX || RAND_bytes(keys, (int)length) != 1 ||
        SSL_CTX_set_tlsext_ticket_keys(context->ssl, keys, length) != 1)
        SSL_CTX_set_options(context->ssl, SSL_OP_NO_TICKET);
    OPENSSL_cleanse(keys, sizeof keys);
    context->renewed_at = now;
}

int tls_context_days(const struct tls_context *context)
{
    const X509 *cert = SSL_CTX_get0_certificate(context->ssl);
    int days = 0, seconds = 0;

    if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)))
        return 0;
    return days == 0 && seconds < 0 ? -1 : days;
}

int64_t tls_context_expiry(const struct tls_context *context)
{
    const X509 *cert = SSL_CTX_get0_certificate(context->ssl);
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0;
    bool good = epoch && ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(cert));

    ASN1_TIME_free(epoch);
    return good ? (int64_t)days * 86400 + seconds : 0;
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

/* A callback of the BIO: fails a read with which a handshake would exceed TLS_HANDSHAKE_MAX. */
static long tls_limit_handshake(BIO *bio, int operation, const char *at, size_t size, int argument,
                                long number, int result, size_t *count)
{
    struct tls *tls = (void *)BIO_get_callback_arg(bio);

    (void)at;
    (void)argument;
    (void)number;
    (void)count;
    if (operation != BIO_CB_READ || !tls_is_opening(tls) ||
        BIO_number_read(bio) + size <= TLS_HANDSHAKE_MAX)
        return result;
    tls->reason = "the handshake is too long";
    return 0;
}

static struct tls *tls_new(const struct tls_context *context, int fd)
{
    struct tls *tls = calloc(1, sizeof *tls);

    if (!tls)
        return NULL;
    tls->ssl = SSL_new(context->ssl);
    if (tls->ssl && SSL_set_fd(tls->ssl, fd) == 1 && SSL_set_app_data(tls->ssl, tls) == 1)
        return tls;
    tls_close(tls);
    return NULL;
}

struct tls *tls_open(const struct tls_context *context, int fd)
{
    struct tls *tls = tls_new(context, fd);

    if (!tls)
        return NULL;
    BIO_set_callback_ex(SSL_get_rbio(tls->ssl), tls_limit_handshake);
    BIO_set_callback_arg(SSL_get_rbio(tls->ssl), (char *)tls);
    SSL_set_accept_state(tls->ssl);
    return tls;
}

struct tls *tls_connect(const struct tls_context *context, int fd, const char *host)
{
    struct tls *tls = tls_new(context, fd);

    /* RFC 6066, section 3: an address is no server name */
    if (tls && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), host) != 1 &&
        (SSL_set1_host(tls->ssl, host) != 1 || SSL_set_tlsext_host_name(tls->ssl, host) != 1)) {
        tls_close(tls);
        return NULL;
    }
    if (tls) {
        SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        SSL_set_connect_state(tls->ssl);
    }
    return tls;
}

/* What it means that a call read or wrote nothing. */
static enum tls_status tls_explain(struct tls *tls)
{
    long verdict = SSL_get_verify_result(tls->ssl);
    const char *reason;

    switch (SSL_get_error(tls->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_ENDED;
    case SSL_ERROR_SYSCALL:
        reason = errno ? strerror(errno) : "closed without notice";
        break;
    default:
        reason = verdict == X509_V_OK ? tls_first_reason() : X509_verify_cert_error_string(verdict);
    }
    if (!tls->reason)
        tls->reason = reason;
    return ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST ? TLS_PLAIN_HTTP : TLS_ENDED;
}

enum tls_status tls_read(struct tls *tls, char *at, size_t size, size_t *count)
{
    *count = 0;
    ERR_clear_error();
    return SSL_read_ex(tls->ssl, at, size, count) == 1 ? TLS_DONE : tls_explain(tls);
}

enum tls_status tls_write(struct tls *tls, const char *at, size_t length, size_t *count)
{
    enum tls_status status = TLS_DONE;

    *count = 0;
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, at, length, count) != 1)
        status = tls_explain(tls);
    tls->pending = status == TLS_DONE ? 0 : length;
    return status;
}

void tls_finish(struct tls *tls)
{
    ERR_clear_error();
    if (!tls->reason) /* else it has failed, and an alert has told the peer where possible */
        SSL_shutdown(tls->ssl);
}

void tls_close(struct tls *tls)
{
    if (tls)
        SSL_free(tls->ssl);
    free(tls);
}

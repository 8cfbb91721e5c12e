/* cluster_tls.c - TLS to Redis and RabbitMQ.
 *
 * hiredis and rabbitmq-c speak TLS through OpenSSL, but neither checks names as needed: hiredis
 * checks none, rabbitmq-c knows no addresses and does not say what a certificate is for. So OpenSSL
 * checks the name itself, as part of the chain, and cluster_tls_judge, which it calls for each
 * failure, keeps the reason with both names.
 *
 * The struct cluster_tls is the application data of the SSL_CTX. What a certificate says is the
 * peer's: it goes to the log with '?' for every byte that is not printable.
 *
 * Threads: each of Redis's and RabbitMQ's has contexts of its own. OpenSSL's error queue is the
 * thread's. */
#include "cluster_tls.h"

#include "os.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 200 /* bytes of a certificate's names that are told */

/* --- the peer's certificate ------------------------------------------------------------------- */

/* Appends one name, behind a comma if it is not the first. */
static void cluster_tls_add_name(struct buf *names, const unsigned char *at, size_t length)
{
    if (names->length)
        buf_append(names, STR(", "));
    for (size_t i = 0; i < length; i++)
        buf_append(names,
                   at[i] > ' ' && at[i] <= '~' ? (struct str){(const char *)at + i, 1} : STR("?"));
}

static void cluster_tls_add_alternative(struct buf *names, const GENERAL_NAME *name)
{
    int kind;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &kind);
    const unsigned char *bytes;
    char text[INET6_ADDRSTRLEN];

    if (kind != GEN_DNS && kind != GEN_IPADD)
        return;
    bytes = ASN1_STRING_get0_data(value);
    if (kind == GEN_DNS)
        cluster_tls_add_name(names, bytes, (size_t)ASN1_STRING_length(value));
    else if (inet_ntop(ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6, bytes, text,
                       sizeof text))
        cluster_tls_add_name(names, (const unsigned char *)text, strlen(text));
}

/* Writes what a certificate is for: its alternative names, or else its common name. */
static void cluster_tls_write_names(X509 *cert, struct buf *names)
{
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    char common[128];
    int length;

    for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); i++)
        cluster_tls_add_alternative(names, sk_GENERAL_NAME_value(alternatives, i));
    GENERAL_NAMES_free(alternatives);
    length = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, common,
                                       sizeof common);
    if (!names->length && length > 0)
        cluster_tls_add_name(names, (const unsigned char *)common, (size_t)length);
}

/* OpenSSL's verify callback: keeps why a certificate is rejected; the first reason counts. */
static int cluster_tls_judge(int good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct cluster_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    int code = X509_STORE_CTX_get_error(store);
    char bytes[NAMES_MAX];
    struct buf names = BUF_INIT(bytes);

    if (good || tls->error[0])
        return good;
    if (code == X509_V_ERR_HOSTNAME_MISMATCH || code == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        cluster_tls_write_names(X509_STORE_CTX_get0_cert(store), &names);
        snprintf(tls->error, sizeof tls->error, "its certificate is for %.*s, not for %s",
                 names.length ? (int)names.length : 6, names.length ? bytes : "nobody", tls->host);
    } else {
        snprintf(tls->error, sizeof tls->error, "its certificate is not trusted: %s",
                 X509_verify_cert_error_string(code));
    }
    return 0;
}

/* --- contexts --------------------------------------------------------------------------------- */

/* The text of OpenSSL's first error, or the system's. */
static const char *cluster_tls_first_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);

    if (!reason && ERR_SYSTEM_ERROR(code))
        reason = strerror(ERR_GET_REASON(code));
    return reason;
}

/* Always false. */
static bool cluster_tls_fail(struct cluster_tls *tls, const char *key, const char *file)
{
    const char *reason = cluster_tls_first_reason();

    snprintf(tls->error, sizeof tls->error, "%s = %.200s: %s", key, file,
             reason ? reason : "cannot be used");
    return false;
}

/* Never asks at a terminal. */
static int cluster_tls_reject_passphrase(char *text, int size, int writing, void *state)
{
    (void)text, (void)size, (void)writing, (void)state;
    return -1;
}

static bool cluster_tls_load(struct cluster_tls *tls, const struct config_tls *files,
                             SSL_CTX *context)
{
    ERR_clear_error();
    SSL_CTX_set_default_passwd_cb(context, cluster_tls_reject_passphrase);
    if (!files->ca[0] && SSL_CTX_set_default_verify_paths(context) != 1)
        return cluster_tls_fail(tls, "ca", "");
    if (files->ca[0] && SSL_CTX_load_verify_locations(context, files->ca, NULL) != 1)
        return cluster_tls_fail(tls, "ca", files->ca);
    if (files->cert[0] && SSL_CTX_use_certificate_chain_file(context, files->cert) != 1)
        return cluster_tls_fail(tls, "cert", files->cert);
    if (files->key[0] && (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1 ||
                          SSL_CTX_check_private_key(context) != 1))
        return cluster_tls_fail(tls, "key", files->key);
    return true;
}

bool cluster_tls_set_up(struct cluster_tls *tls, const struct config_tls *files, const char *host,
                        struct ssl_ctx_st *context)
{
    X509_VERIFY_PARAM *check = SSL_CTX_get0_param(context);

    *tls = (struct cluster_tls){{0}, {0}};
    snprintf(tls->host, sizeof tls->host, "%s", host);
    if (!cluster_tls_load(tls, files, context))
        return false;
    X509_VERIFY_PARAM_set_hostflags(check, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_app_data(context, tls) != 1 ||
        (X509_VERIFY_PARAM_set1_ip_asc(check, host) != 1 &&
         X509_VERIFY_PARAM_set1_host(check, host, 0) != 1)) {
        snprintf(tls->error, sizeof tls->error, "out of memory");
        return false;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, cluster_tls_judge);
    ERR_clear_error();
    return true;
}

struct ssl_st *cluster_tls_new(struct cluster_tls *tls, const struct config_tls *files,
                               const char *host)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    unsigned char address[16];
    SSL *ssl = NULL;

    snprintf(tls->error, sizeof tls->error, "out of memory");
    if (context && cluster_tls_set_up(tls, files, host, context))
        ssl = SSL_new(context);
    SSL_CTX_free(context); /* the connection has a reference */
    /* RFC 6066, section 3: an address is no server name */
    if (ssl && inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1)
        SSL_set_tlsext_host_name(ssl, host);
    return ssl;
}

void cluster_tls_free(struct ssl_st *ssl)
{
    SSL_free(ssl);
}

bool cluster_tls_shake_hands(struct ssl_st *ssl, int fd, int64_t deadline)
{
    struct pollfd polled = {.fd = fd};
    int status;

    ERR_clear_error();
    errno = 0;
    while ((status = SSL_do_handshake(ssl)) != 1) {
        int64_t left = deadline - os_now_ms();
        int error = SSL_get_error(ssl, status);

        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            return false;
        polled.events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        errno = ETIMEDOUT;
        if (left <= 0 || (poll(&polled, 1, (int)left) < 0 && errno != EINTR))
            return false;
        errno = 0;
    }
    return true;
}

const char *cluster_tls_reason(const struct cluster_tls *tls)
{
    const char *reason = cluster_tls_first_reason();

    if (tls->error[0])
        return tls->error;
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER)
        return "it does not speak TLS at this port";
    if (reason)
        return reason;
    return errno == ETIMEDOUT ? "no answer in time to the TLS handshake (is this a TLS port?)"
                              : "it ended the TLS handshake without a reason";
}

/* --- configuration ---------------------------------------------------------------------------- */

static bool cluster_tls_check_section(const char *section, const struct config_tls *files,
                                      char *error, size_t room)
{
    struct cluster_tls tls;
    SSL_CTX *context;
    bool good;

    if (!files->enabled) {
        snprintf(error, room, "[%s] ca, cert and key have no effect without tls = true: set it",
                 section);
        return !files->ca[0] && !files->cert[0] && !files->key[0];
    }
    if (!files->cert[0] != !files->key[0]) {
        snprintf(error, room,
                 "[%s] cert and key belong together: give both, or none if no certificate is "
                 "asked of clients",
                 section);
        return false;
    }
    snprintf(error, room, "out of memory");
    context = SSL_CTX_new(TLS_client_method());
    if (!context)
        return false;
    good = cluster_tls_set_up(&tls, files, "localhost", context);
    SSL_CTX_free(context);
    if (!good)
        snprintf(error, room,
                 "[%s] %s: give PEM files that can be read: the certificates to trust, and this "
                 "client's own chain with its key, which has no passphrase",
                 section, tls.error);
    return good;
}

bool cluster_tls_check(const struct config *config, char *error, size_t room)
{
    return cluster_tls_check_section("redis", &config->redis_tls, error, room) &&
           cluster_tls_check_section("rabbitmq", &config->rabbitmq_tls, error, room);
}

/* certificate.h - certificates for tests of TLS. */
#ifndef WSPUSH_CERTIFICATE_H
#define WSPUSH_CERTIFICATE_H

#include "test.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* Writes a certificate for `names` (as OpenSSL's configuration has them), which signs itself and is
 * good for a day, and its key. */
static inline void certificate_write(const char *path, const char *key_path, const char *names)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_EXTENSION *extension =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, (char *)(uintptr_t)names);
    FILE *file = fopen(path, "w"), *key_file = fopen(key_path, "w");

    X509_set_version(cert, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(cert), -86400L);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400L);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)names, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    CHECK(extension && X509_add_ext(cert, extension, -1) == 1);
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
    CHECK(file && PEM_write_X509(file, cert) == 1 && fclose(file) == 0);
    CHECK(key_file && PEM_write_PrivateKey(key_file, key, NULL, NULL, 0, NULL, NULL) == 1 &&
          fclose(key_file) == 0);
    X509_EXTENSION_free(extension);
    X509_free(cert);
    EVP_PKEY_free(key);
}

#endif

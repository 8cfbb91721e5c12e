/* test_cluster_crypto.c - ids: what was sealed is opened, and nothing that differs from it in
 * anything; links: both ends have the key, or there is no link. */
#include "cluster_crypto.h"
#include "conn.h"

#include "test.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURNS_MAX 200000
#define NO_LIMIT SIZE_MAX

static struct crypto_keyring ring_of_str(struct str key)
{
    struct crypto_keyring keys = {.count = 0};

    CHECK(crypto_add_key(&keys, key, false) && cluster_crypto_derive(&keys));
    return keys;
}

static struct crypto_keyring ring_of(const char *first, const char *second)
{
    struct crypto_keyring keys = {.count = 0};

    CHECK(crypto_add_key(&keys, str_from(first), false));
    CHECK(!second || crypto_add_key(&keys, str_from(second), false));
    CHECK(cluster_crypto_derive(&keys));
    return keys;
}

/* --- keys ------------------------------------------------------------------------------------ */

static bool is_key(const unsigned char *key, const char *hex)
{
    unsigned char wanted[CRYPTO_HASH_SIZE];
    size_t length = strlen(hex) / 2;

    return str_read_hex(str_from(hex), wanted, length) && memcmp(key, wanted, length) == 0;
}

/* HKDF-SHA-256 with the salt "wspush"; computed with Python's cryptography. */
static void derives_known_keys(void)
{
    struct crypto_keyring keys = ring_of("0123456789abcdef", NULL);
    const struct crypto_keys *plain = &keys.keys[0];

    CHECK(is_key(plain->name, "ad69ba226c9db8b8"));
    CHECK(memcmp(plain->name_text, "ad69ba226c9db8b8", 16) == 0);
    CHECK(is_key(plain->id, "25c58f0e7c4b3ae35080dfc64c120451330828fd548284f84358c1cc88f3ddbb"));
    CHECK(is_key(plain->nonce, "7297358f54fb993df2fa34c22524772d58c2a850b8f26962ced090e233726176"));
    CHECK(is_key(plain->link, "2e02373bb799ba30805c89ff874f3ad3475c845e0762d9fd8fb66959ac894620"));
    CHECK(is_key(plain->publication,
                 "5f159323d3f61a17749cf8e88d771510953028f677ef337f840efe2c65ac436f"));
    CHECK(is_key(plain->registry,
                 "92c65fbaa5d8fb6f1619bf8afe2482c3917c0d94bfdf039d35238d6bc93ad185"));
}

/* --- client ids ------------------------------------------------------------------------------ */

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void number_bytes(unsigned char plain[CLUSTER_ID_SIZE], unsigned from)
{
    for (unsigned i = 0; i < CLUSTER_ID_SIZE; i++)
        plain[i] = (unsigned char)(from + i);
}

/* Opens an exact copy of the text. */
static bool opens(const struct crypto_keys *keys, struct str text,
                  unsigned char plain[CLUSTER_ID_SIZE])
{
    struct str copy = exact_copy(text);
    bool good = cluster_crypto_open_id(keys, copy, plain);

    free_copy(copy);
    return good;
}

/* AES-256-GCM with a nonce of 12 bytes: the first of HMAC-SHA-256 of what is sealed. The keys are
 * HKDF's "id" and "nonce"; the ids here were computed with Python's hmac and cryptography. */
static void seals_known_ids(void)
{
    static const struct {
        const char *key;
        unsigned from;
        struct str id;
    } vectors[] = {
        {"0123456789abcdef", 0,
         STR_INIT("oLVxSvCxK7H/3Yiw7XW3SBxQGz4OQDcDeoDsk88YX/qXnYRW5ate4LR61iNYrLAaWJmN")},
        {"0123456789abcdef", 233,
         STR_INIT("MRLYqCQ+zrewNp0LIwBWX9KH1co9R77vJgFW5sbqZQqwoGsrQLEpFppLd28oSg+gAGFk")},
        {"another key here", 0,
         STR_INIT("zGgTcK6rlaYY+0g/huydayFdVf7NF2OEcsjfhPkSOqPcTQ1Q/gXBxtIfaICeN1dGHvHB")},

    };

    for (size_t i = 0; i < COUNT(vectors); i++) {
        struct crypto_keyring keys = ring_of_str(str_from(vectors[i].key));
        unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE] = {0};
        char id[HUB_ID_TEXT];

        number_bytes(plain, vectors[i].from);
        CHECK(cluster_crypto_seal_id(keys.keys, plain, id));
        CHECK(str_equal((struct str){id, sizeof id}, vectors[i].id));
        CHECK(opens(keys.keys, vectors[i].id, opened) && memcmp(opened, plain, sizeof plain) == 0);
    }
}

/* The same always gives the same id, and what differs in one bit another one. */
static void ids_follow_from_what_they_seal(void)
{
    static char ids[8 * CLUSTER_ID_SIZE + 1][HUB_ID_TEXT];
    struct crypto_keyring keys = ring_of_str(STR("0123456789abcdef"));
    unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE];
    char again[HUB_ID_TEXT];

    number_bytes(plain, 0);
    for (size_t i = 0; i < COUNT(ids); i++) {
        bool changed = i < 8 * CLUSTER_ID_SIZE;

        if (changed)
            plain[i / 8] ^= (unsigned char)(1u << i % 8);
        CHECK(cluster_crypto_seal_id(keys.keys, plain, ids[i]) &&
              cluster_crypto_seal_id(keys.keys, plain, again));
        CHECK(memcmp(ids[i], again, sizeof again) == 0);
        CHECK(opens(keys.keys, (struct str){ids[i], HUB_ID_TEXT}, opened));
        CHECK(memcmp(opened, plain, sizeof plain) == 0);
        for (size_t k = 0; k < HUB_ID_TEXT; k++)
            CHECK(memchr(digits64, ids[i][k], 64));
        for (size_t k = 0; k < i; k++) /* not even the nonces in front are the same */
            CHECK(memcmp(ids[i], ids[k], 16) != 0);
        if (changed)
            plain[i / 8] ^= (unsigned char)(1u << i % 8);
    }
}

/* At each place every other byte. */
static void changed_ids_do_not_open(void)
{
    struct crypto_keyring keys = ring_of_str(STR("0123456789abcdef"));
    unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE];
    char id[HUB_ID_TEXT];
    bool good;

    number_bytes(plain, 100);
    CHECK(cluster_crypto_seal_id(keys.keys, plain, id));
    good = CHECK(opens(keys.keys, (struct str){id, sizeof id}, opened));
    for (size_t i = 0; good && i < sizeof id; i++) {
        char right = id[i];

        for (int c = 0; good && c < 256; c++) {
            id[i] = (char)c;
            good = CHECK(id[i] == right || !opens(keys.keys, (struct str){id, sizeof id}, opened));
        }
        if (!good)
            printf("     at %zu\n", i);
        id[i] = right;
    }
    /* two places exchanged, or changed */
    for (size_t i = 0; i + 1 < sizeof id; i++) {
        char before[2] = {id[i], id[i + 1]};

        id[i] = before[1];
        id[i + 1] = before[0];
        CHECK(before[0] == before[1] || !opens(keys.keys, (struct str){id, sizeof id}, opened));
        id[i] = before[0] == 'A' ? 'B' : 'A';
        id[i + 1] = before[1] == 'A' ? 'B' : 'A';
        CHECK(!opens(keys.keys, (struct str){id, sizeof id}, opened));
        memcpy(id + i, before, 2);
    }
    CHECK(opens(keys.keys, (struct str){id, sizeof id}, opened));
}

/* Cut at either end, or with more behind it. */
static void ids_of_another_length_do_not_open(void)
{
    struct crypto_keyring keys = ring_of_str(STR("0123456789abcdef"));
    unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE];
    char text[4 * HUB_ID_TEXT];

    number_bytes(plain, 3);
    for (size_t filler = 0; filler < 5; filler++) {
        memset(text, "A=\n \0"[filler], sizeof text);
        CHECK(cluster_crypto_seal_id(keys.keys, plain, text));
        for (size_t length = 0; length <= 100; length++)
            CHECK(opens(keys.keys, (struct str){text, length}, opened) == (length == HUB_ID_TEXT));
        for (size_t from = 1; from < HUB_ID_TEXT; from++) {
            CHECK(!opens(keys.keys, (struct str){text + from, HUB_ID_TEXT}, opened));
            CHECK(!opens(keys.keys, (struct str){text + from, HUB_ID_TEXT - from}, opened));
        }
    }
    CHECK(!cluster_crypto_open_id(keys.keys, (struct str){0}, opened));
    memset(text, 'A', sizeof text);
    CHECK(!opens(keys.keys, (struct str){text, HUB_ID_TEXT}, opened));
}

/* White space and padding inside are no base64 of an id, whether the whole is longer or not. */
static void ids_have_one_spelling(void)
{
    static const struct str insertions[] = {STR_INIT("\n"), STR_INIT(" "),  STR_INIT("\r\n"),
                                            STR_INIT("="),  STR_INIT("=="), STR_INIT("-"),
                                            STR_INIT("\0")};
    struct crypto_keyring keys = ring_of_str(STR("0123456789abcdef"));
    unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE];
    char id[HUB_ID_TEXT];

    number_bytes(plain, 50);
    CHECK(cluster_crypto_seal_id(keys.keys, plain, id));
    for (size_t i = 0; i < COUNT(insertions); i++)
        for (size_t at = 0; at <= sizeof id; at++) {
            struct buf text = {0};

            buf_append(&text, (struct str){id, at});
            buf_append(&text, insertions[i]);
            buf_append(&text, (struct str){id + at, sizeof id - at});
            CHECK(!opens(keys.keys, str_of(&text), opened));
            CHECK(opens(keys.keys, (struct str){text.at, HUB_ID_TEXT}, opened) ==
                  (at == HUB_ID_TEXT));
            buf_free(&text);
        }
}

static void ids_of_other_keys_do_not_open(void)
{
    struct crypto_keyring keys = ring_of_str(STR("0123456789abcdef")), mixed;
    unsigned char plain[CLUSTER_ID_SIZE], opened[CLUSTER_ID_SIZE];
    char other[] = "0123456789abcdef", id[HUB_ID_TEXT], others_id[HUB_ID_TEXT];

    number_bytes(plain, 7);
    CHECK(cluster_crypto_seal_id(keys.keys, plain, id));
    for (size_t i = 0; i < CRYPTO_KEY_SIZE; i++) {
        struct crypto_keyring others;

        other[i] ^= 1;
        others = ring_of_str((struct str){other, CRYPTO_KEY_SIZE});
        CHECK(!opens(others.keys, (struct str){id, sizeof id}, opened));
        CHECK(cluster_crypto_seal_id(others.keys, plain, others_id));
        CHECK(memcmp(id, others_id, 16) != 0);
        CHECK(!opens(keys.keys, (struct str){others_id, sizeof others_id}, opened));
        other[i] ^= 1;
    }
    /* it is the key of ids that opens: those of tokens and of peers have nothing to do with it */
    mixed = keys;
    mixed.keys[0].token[0] ^= 1;
    mixed.keys[0].link[0] ^= 1;
    CHECK(opens(mixed.keys, (struct str){id, sizeof id}, opened));
    mixed.keys[0].id[31] ^= 1;
    CHECK(!opens(mixed.keys, (struct str){id, sizeof id}, opened));
}

/* --- links ----------------------------------------------------------------------------------- */

/* Both ends are ours. */
struct pair {
    struct conn_shared *shared;
    struct conn client, server;
};

/* True if `got` is `counts[i]` times the letter of `letters`, one after the other. */
static bool is_rows(const struct buf *got, const char *letters, const size_t *counts)
{
    size_t at = 0;

    for (size_t i = 0; letters[i]; i++)
        for (size_t k = 0; k < counts[i]; k++, at++)
            if (at >= got->length || got->at[at] != letters[i])
                return false;
    return at == got->length;
}

/* Turns one end; what it reads is appended to `got`. */
static enum conn_status turn_end(struct conn *conn, struct buf *got)
{
    struct conn_bytes bytes;
    enum conn_status status;

    if (conn->want_write)
        conn_writable(conn);
    if (!conn_is_opening(conn))
        conn_flush(conn);
    status = conn_fill(conn, NO_LIMIT, &bytes);
    if (status == CONN_READY && got)
        buf_append(got, (struct str){bytes.at, bytes.length});
    return status;
}

static bool with_psk = true;

static bool connect_end(struct conn *conn, const struct tls_context *context, size_t key)
{
    conn->tls =
        with_psk ? cluster_crypto_connect(context, conn->fd, key) : tls_open(context, conn->fd);
    if (!with_psk)
        SSL_set_connect_state(conn->tls->ssl);
    return conn->tls;
}

/* Opens both ends, and does the handshake as far as it comes. True if it is done. */
static bool open_pair(struct pair *pair, const struct tls_context *server,
                      const struct tls_context *client, size_t key)
{
    enum conn_status ends[2] = {CONN_BLOCKED, CONN_BLOCKED};
    int fds[2];
    char byte;

    *pair = (struct pair){.shared = calloc(1, sizeof *pair->shared)};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    for (int i = 0; i < 2; i++)
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    conn_open(&pair->client, fds[0], pair->shared);
    conn_open(&pair->server, fds[1], pair->shared);
    CHECK(conn_secure(&pair->server, server) && connect_end(&pair->client, client, key));
    for (int turn = 0; turn < 20; turn++) {
        if (ends[0] == CONN_BLOCKED)
            ends[0] = turn_end(&pair->client, NULL);
        if (ends[1] == CONN_BLOCKED)
            ends[1] = turn_end(&pair->server, NULL);
        if (!conn_is_opening(&pair->server) && ends[1] == CONN_BLOCKED)
            CHECK(recv(pair->client.fd, &byte, 1, MSG_PEEK) < 0); /* not even a request_id comes */
    }
    return ends[0] == CONN_BLOCKED && ends[1] == CONN_BLOCKED && !conn_is_opening(&pair->client) &&
           !conn_is_opening(&pair->server);
}

static void close_pair(struct pair *pair)
{
    while (conn_next_dirty(pair->shared))
        ;
    conn_close(&pair->client);
    conn_close(&pair->server);
    free(pair->shared);
}

static void a_shared_key_secures_both_ways(void)
{
    struct crypto_keyring keys = ring_of("0123456789abcdef", NULL);
    struct tls_context *context = cluster_crypto_new_context(&keys);
    struct buf there = {0}, back = {0};
    struct pair pair;

    CHECK(open_pair(&pair, context, context, 0));
    CHECK(!conn_failure(&pair.client) && !cluster_crypto_has_wrong_key(pair.client.tls));
    for (int i = 0; i < 2; i++) {
        struct rcbuf *message = rcbuf_new(i ? 300000 : 200000);

        memset(message->bytes, i ? 's' : 'c', message->length);
        CHECK(conn_queue(i ? &pair.server : &pair.client, message, NO_LIMIT));
        rcbuf_release(message);
    }
    for (int turn = 0; turn < TURNS_MAX && (there.length < 200000 || back.length < 300000);
         turn++) {
        turn_end(&pair.client, &back);
        turn_end(&pair.server, &there);
    }
    CHECK(is_rows(&there, "c", (const size_t[]){200000}));
    CHECK(is_rows(&back, "s", (const size_t[]){300000}));
    conn_finish(&pair.client);
    CHECK(turn_end(&pair.server, NULL) == CONN_ENDED && !conn_failure(&pair.server));
    buf_free(&there);
    buf_free(&back);
    close_pair(&pair);
    tls_context_free(context);
}

/* The name of the key that is offered tells which one of the server's is meant. */
static void a_server_has_a_ring_of_keys(void)
{
    static const char *const rings[][2] = {
        {"0123456789abcdef", NULL},
        {"0123456789abcdef", "another key here"},
        {"another key here", "0123456789abcdef"},
        {"another key here", NULL},
    };

    for (size_t i = 0; i < COUNT(rings); i++)
        for (size_t j = 0; j < COUNT(rings); j++) {
            struct crypto_keyring server_keys = ring_of(rings[i][0], rings[i][1]);
            struct crypto_keyring client_keys = ring_of(rings[j][0], rings[j][1]);
            struct tls_context *server = cluster_crypto_new_context(&server_keys);
            struct tls_context *client = cluster_crypto_new_context(&client_keys);

            for (size_t key = 0; key < client_keys.count; key++) {
                bool known = strcmp(rings[j][key], rings[i][0]) == 0 ||
                             (rings[i][1] && strcmp(rings[j][key], rings[i][1]) == 0);
                struct pair pair;

                CHECK(open_pair(&pair, server, client, key) == known);
                CHECK(cluster_crypto_has_wrong_key(pair.server.tls) == !known);
                if (!CHECK(cluster_crypto_has_wrong_key(pair.client.tls) == !known))
                    printf("  %s\n", conn_failure(&pair.client));
                close_pair(&pair);
            }
            tls_context_free(server);
            tls_context_free(client);
        }
}

/* The name is no secret: who knows it but not the key is refused, at either end. */
static void a_name_is_no_key(void)
{
    struct crypto_keyring keys = ring_of("0123456789abcdef", NULL), forged = keys;
    struct tls_context *context = cluster_crypto_new_context(&keys),
                       *other = cluster_crypto_new_context(&forged);
    struct pair pair;

    for (size_t i = 0; i < CRYPTO_HASH_SIZE; i++) {
        forged.keys[0].link[i] ^= 1;
        CHECK(!open_pair(&pair, context, other, 0));
        CHECK(conn_is_opening(&pair.client) && conn_failure(&pair.client));
        close_pair(&pair);
        CHECK(!open_pair(&pair, other, context, 0));
        CHECK(conn_is_opening(&pair.server) && conn_failure(&pair.server));
        close_pair(&pair);
        forged.keys[0].link[i] ^= 1;
    }
    CHECK(open_pair(&pair, context, other, 0));
    close_pair(&pair);
    tls_context_free(context);
    tls_context_free(other);
}

/* A server's context with a certificate that signs itself. */
static struct tls_context *new_certificate(void)
{
    struct tls_context *context = calloc(1, sizeof *context);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    context->ssl = SSL_CTX_new(TLS_server_method());
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0 &&
          SSL_CTX_use_certificate(context->ssl, cert) == 1 &&
          SSL_CTX_use_PrivateKey(context->ssl, key) == 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    return context;
}

/* Neither a certificate nor an older version is good for a key. */
static void nothing_else_is_good_for_a_key(void)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct crypto_keyring keys = ring_of("0123456789abcdef", NULL);
    struct tls_context *context = cluster_crypto_new_context(&keys), *with_cert = new_certificate();
    struct pair pair;

    CHECK(!open_pair(&pair, with_cert, context, 0));
    CHECK(!cluster_crypto_has_wrong_key(pair.client.tls));
    CHECK(conn_is_opening(&pair.client) && conn_failure(&pair.client));
    close_pair(&pair);
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct tls_context plain = {.ssl = SSL_CTX_new(TLS_method())};

        SSL_CTX_set_min_proto_version(plain.ssl, versions[i]);
        SSL_CTX_set_max_proto_version(plain.ssl, versions[i]);
        SSL_CTX_set_app_data(plain.ssl, &keys);
        with_psk = false;
        CHECK(!open_pair(&pair, context, &plain, 0));
        with_psk = true;
        CHECK(conn_failure(&pair.server) && conn_is_opening(&pair.server));
        close_pair(&pair);
        SSL_CTX_free(plain.ssl);
    }
    tls_context_free(context);
    tls_context_free(with_cert);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_run("derives_known_keys", derives_known_keys);
    test_run("seals_known_ids", seals_known_ids);
    test_run("ids_follow_from_what_they_seal", ids_follow_from_what_they_seal);
    test_run("changed_ids_do_not_open", changed_ids_do_not_open);
    test_run("ids_of_another_length_do_not_open", ids_of_another_length_do_not_open);
    test_run("ids_have_one_spelling", ids_have_one_spelling);
    test_run("ids_of_other_keys_do_not_open", ids_of_other_keys_do_not_open);
    test_run("a_shared_key_secures_both_ways", a_shared_key_secures_both_ways);
    test_run("a_server_has_a_ring_of_keys", a_server_has_a_ring_of_keys);
    test_run("a_name_is_no_key", a_name_is_no_key);
    test_run("nothing_else_is_good_for_a_key", nothing_else_is_good_for_a_key);
    return test_finish();
}

/* test_tls.c - tests tls.c, and conn.c over it: in whatever pieces bytes move, they arrive as they
 * were sent; protocols that are not accepted are refused. The client is OpenSSL's own; this test
 * carries its bytes. */
#include "conn.h"
#include "tls.h"

#include "certificate.h"
#include "test.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fcntl.h>
#include <signal.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STEPS_MAX 200000
#define NO_LIMIT SIZE_MAX
#define CERT "cert.pem"
#define KEY "key.pem"

/* --- OpenSSL's memory ------------------------------------------------------------------------ */

static bool counting;             /* allocations are being counted, */
static unsigned long allocations; /* so many there were, */
static unsigned long spare;       /* and the one with this number fails; 0 for none */

static bool fails(void)
{
    return counting && ++allocations == spare;
}

static void *allocate(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return size == 0 || fails() ? NULL : malloc(size);
}

static void *reallocate(void *at, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails() ? NULL : realloc(at, size);
}

static void release(void *at, const char *file, int line)
{
    (void)file;
    (void)line;
    free(at);
}

/* --- certificates ---------------------------------------------------------------------------- */

static void write_key(const char *path, EVP_PKEY *key, const char *passphrase)
{
    FILE *file = fopen(path, "w");

    CHECK(file && PEM_write_PrivateKey(file, key, passphrase ? EVP_aes_128_cbc() : NULL, NULL, 0,
                                       NULL, (void *)(uintptr_t)passphrase) == 1);
    if (file)
        fclose(file);
}

static void write_cert(const char *path, EVP_PKEY *key, long seconds)
{
    X509 *cert = X509_new();
    FILE *file = fopen(path, "w");

    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -20L * 86400);
    X509_gmtime_adj(X509_getm_notAfter(cert), seconds);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
    CHECK(file && PEM_write_X509(file, cert) == 1);
    if (file)
        fclose(file);
    X509_free(cert);
}

/* A key of its own with a certificate that has `seconds` to live. */
static void write_pair(const char *cert, const char *key, long seconds)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");

    write_key(key, pair, NULL);
    write_cert(cert, pair, seconds);
    EVP_PKEY_free(pair);
}

static struct tls_context *context; /* of most tests */

static struct tls_context *load(const char *cert, const char *key)
{
    char error[300];
    struct tls_context *loaded = tls_context_new(cert, key, error, sizeof error);

    if (!CHECK(loaded))
        printf("%s\n", error);
    return loaded;
}

/* --- both ends ------------------------------------------------------------------------------- */

/* A connection of ours, and the client at the far end of its socket. */
struct wire {
    struct conn_shared *shared;
    struct conn conn;
    struct buf got;  /* by the server */
    struct buf read; /* by the client */
    int far;
    size_t piece; /* bytes that are passed on at a time */
    SSL_CTX *settings;
    SSL *client;
    BIO *in, *out; /* the client's */
};

static void open_wire(struct wire *wire, const struct tls_context *own)
{
    int ends[2], little = 4096;
    bool secured;

    *wire = (struct wire){.piece = 65536, .shared = calloc(1, sizeof *wire->shared)};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    }
    conn_open(&wire->conn, ends[0], wire->shared);
    wire->far = ends[1];
    counting = spare > 0;
    secured = conn_secure(&wire->conn, own);
    counting = false;
    CHECK(secured || spare);
    wire->settings = SSL_CTX_new(TLS_client_method());
    wire->client = SSL_new(wire->settings);
    wire->in = BIO_new(BIO_s_mem());
    wire->out = BIO_new(BIO_s_mem());
    SSL_set_bio(wire->client, wire->in, wire->out);
    SSL_set_connect_state(wire->client);
}

static void close_wire(struct wire *wire)
{
    while (conn_next_dirty(wire->shared))
        ;
    conn_close(&wire->conn);
    free(wire->shared);
    buf_free(&wire->got);
    buf_free(&wire->read);
    if (wire->far >= 0)
        close(wire->far);
    SSL_free(wire->client);
    SSL_CTX_free(wire->settings);
    ERR_clear_error();
}

/* Passes on what the client has written, a piece at a time. True if something moved. */
static bool carry_there(struct wire *wire)
{
    char *at;
    long length = BIO_get_mem_data(wire->out, &at);
    size_t piece = (size_t)length < wire->piece ? (size_t)length : wire->piece;
    ssize_t n = piece ? send(wire->far, at, piece, 0) : 0;
    char sent[65536];

    return n > 0 && BIO_read(wire->out, sent, (int)n) == (int)n;
}

static bool carry_back(struct wire *wire)
{
    char bytes[65536];
    ssize_t n = recv(wire->far, bytes, wire->piece, 0);

    return n > 0 && BIO_write(wire->in, bytes, (int)n) == (int)n;
}

/* One iteration of the server: reads once, keeps all, and writes what it can. */
static enum conn_status serve(struct wire *wire)
{
    struct conn_bytes bytes;
    enum conn_status status;

    counting = spare > 0;
    if (wire->conn.want_write)
        conn_writable(&wire->conn);
    conn_flush(&wire->conn);
    status = conn_fill(&wire->conn, NO_LIMIT, &bytes);
    counting = false;
    if (status == CONN_READY) {
        buf_append(&wire->got, (struct str){bytes.at, bytes.length});
        conn_keep(&wire->conn, (struct conn_bytes){0});
    }
    return status;
}

/* Moves bytes both ways until nothing moves. Returns the server's last status. */
static enum conn_status exchange(struct wire *wire)
{
    enum conn_status status = CONN_BLOCKED;
    bool moved = true;

    for (int step = 0; moved && step < STEPS_MAX; step++) {
        char bytes[65536];
        size_t n = 0;

        ERR_clear_error();
        moved = SSL_read_ex(wire->client, bytes, sizeof bytes, &n) == 1;
        buf_append(&wire->read, (struct str){bytes, n});
        moved = carry_there(wire) || moved;
        status = wire->conn.tls ? serve(wire) : CONN_PLAIN;
        if (status == CONN_ENDED || status == CONN_PLAIN)
            return status;
        moved = carry_back(wire) || moved || status == CONN_READY;
    }
    return status;
}

/* A connection whose handshake is over. */
static void connect_wire(struct wire *wire)
{
    open_wire(wire, context);
    CHECK(exchange(wire) == CONN_BLOCKED && SSL_is_init_finished(wire->client));
}

static void client_says(struct wire *wire, struct str text)
{
    size_t n = 0;

    CHECK(SSL_write_ex(wire->client, text.at, text.length, &n) == 1 && n == text.length);
}

static void queue(struct wire *wire, size_t length, char fill)
{
    struct rcbuf *message = rcbuf_new(length);

    memset(message->bytes, fill, length);
    CHECK(conn_queue(&wire->conn, message, NO_LIMIT));
    rcbuf_release(message);
}

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

/* --- tests ----------------------------------------------------------------------------------- */

static void both_ways_in_any_pieces(void)
{
    static const size_t pieces[] = {1, 2, 5, 100, 65536};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    for (size_t i = 0; i < 2 * COUNT(pieces); i++) {
        struct wire wire;
        const unsigned char *protocol;
        unsigned length;

        open_wire(&wire, context);
        SSL_set_max_proto_version(wire.client, versions[i % 2]);
        SSL_set_alpn_protos(wire.client, (const unsigned char *)"\2h2\x08http/1.1", 12);
        wire.piece = pieces[i / 2];
        CHECK(exchange(&wire) == CONN_BLOCKED);
        CHECK(SSL_is_init_finished(wire.client));
        CHECK(SSL_version(wire.client) == versions[i % 2]);
        SSL_get0_alpn_selected(wire.client, &protocol, &length);
        CHECK(length == 8 && memcmp(protocol, "http/1.1", 8) == 0);
        client_says(&wire, STR("GET / HTTP/1.1\r\n\r\n"));
        queue(&wire, 5, 'a');
        queue(&wire, 40000, 'b');
        queue(&wire, 1, 'c');
        CHECK(exchange(&wire) == CONN_BLOCKED);
        CHECK(str_equal(str_of(&wire.got), STR("GET / HTTP/1.1\r\n\r\n")));
        CHECK(is_rows(&wire.read, "abc", (const size_t[]){5, 40000, 1}));
        CHECK(wire.conn.queued == 0 && !wire.conn.first && wire.shared->waiting == 0);
        CHECK(wire.shared->received == 18 && wire.shared->sent == 40006); /* what is within TLS */
        close_wire(&wire);
    }
}

static void small_messages_share_a_record(void)
{
    struct wire wire;
    char *at;
    long before;

    connect_wire(&wire);
    for (int i = 0; i < 10; i++)
        queue(&wire, 10, 'x');
    before = BIO_get_mem_data(wire.in, &at);
    conn_flush(&wire.conn);
    carry_back(&wire);
    /* a header of 5 bytes, a type of 1, a tag of 16, once for all */
    CHECK(BIO_get_mem_data(wire.in, &at) - before == 100 + 22);
    close_wire(&wire);
}

static void whole_records_are_read(void)
{
    static char many[TLS_RECORD_MAX];
    static const size_t lengths[] = {5000, 3000, TLS_RECORD_MAX, 7000, TLS_RECORD_MAX};
    struct wire wire;
    struct conn_bytes bytes;
    size_t kept = 0;
    int large = 4 * CONN_SCRATCH;

    connect_wire(&wire);
    setsockopt(wire.far, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        client_says(&wire, (struct str){many, lengths[i]});
        while (carry_there(&wire))
            ;
        CHECK(conn_fill(&wire.conn, NO_LIMIT, &bytes) == CONN_READY);
        /* what poll() cannot see any more must not be left behind */
        CHECK(bytes.length == kept + lengths[i]);
        kept = bytes.length;
        conn_keep(&wire.conn, bytes);
        CHECK(conn_fill(&wire.conn, NO_LIMIT, &bytes) == CONN_BLOCKED);
    }
    close_wire(&wire);
}

static void input_has_a_limit(void)
{
    static char many[TLS_RECORD_MAX];
    struct wire wire;
    struct conn_bytes bytes = {0};
    enum conn_status status = CONN_BLOCKED;

    connect_wire(&wire);
    for (int i = 0; i < 100 && status != CONN_ENDED; i++) {
        client_says(&wire, (struct str){many, sizeof many});
        while (carry_there(&wire))
            ;
        while ((status = conn_fill(&wire.conn, 100000, &bytes)) == CONN_READY)
            conn_keep(&wire.conn, bytes);
    }
    CHECK(status == CONN_ENDED);
    CHECK(bytes.length >= 100000 && bytes.length < 100000 + TLS_RECORD_MAX);
    close_wire(&wire);
}

/* A record that was sent in part is finished when the queue behind it is dropped. */
static void a_dropped_queue_ends_with_a_whole_record(void)
{
    for (size_t length = 1000; length <= 50000; length += 7000) {
        struct wire wire;
        size_t kept;

        open_wire(&wire, context);
        exchange(&wire);
        for (int i = 0; i < 40; i++)
            queue(&wire, length, 'a');
        conn_flush(&wire.conn);
        CHECK(wire.conn.want_write && wire.conn.tls->pending > 0);
        conn_drop_queue(&wire.conn);
        CHECK(wire.conn.queued >= wire.conn.tls->pending);
        CHECK(wire.conn.queued < 40 * length && wire.shared->waiting == wire.conn.queued);
        kept = wire.conn.queued;
        queue(&wire, 9, 'z');
        CHECK(wire.conn.queued == kept + 9);
        CHECK(exchange(&wire) == CONN_BLOCKED);
        CHECK(wire.read.length > 9 && (wire.read.length - 9) % length == 0);
        CHECK(is_rows(&wire.read, "az", (const size_t[]){wire.read.length - 9, 9}));
        CHECK(wire.conn.queued == 0 && !wire.conn.first && !wire.conn.ring);
        CHECK(wire.shared->waiting == 0 && wire.shared->sent == wire.read.length);
        close_wire(&wire);
    }
}

static void a_queue_is_dropped_or_killed(void)
{
    struct wire wire;

    connect_wire(&wire);
    queue(&wire, 100, 'a');
    conn_drop_queue(&wire.conn); /* no record of it has begun */
    CHECK(wire.conn.queued == 0 && !wire.conn.first && !wire.conn.ring);
    queue(&wire, 3, 'b');
    exchange(&wire);
    CHECK(is_rows(&wire.read, "b", (const size_t[]){3}));
    queue(&wire, 500000, 'a');
    conn_flush(&wire.conn);
    CHECK(wire.conn.tls->pending > 0);
    conn_kill(&wire.conn);
    CHECK(wire.conn.queued == 0 && !wire.conn.first && wire.shared->waiting == 0);
    close_wire(&wire);
}

static void both_ends_send_close_notify(void)
{
    struct wire wire;
    char byte;
    size_t n;

    connect_wire(&wire);
    queue(&wire, 2, 'a');
    conn_flush(&wire.conn);
    conn_finish(&wire.conn);
    while (carry_back(&wire))
        ;
    CHECK(SSL_read_ex(wire.client, &byte, 1, &n) == 1 && byte == 'a');
    CHECK(SSL_read_ex(wire.client, &byte, 1, &n) == 1);
    CHECK(SSL_read_ex(wire.client, &byte, 1, &n) != 1);
    CHECK(SSL_get_error(wire.client, 0) == SSL_ERROR_ZERO_RETURN);
    client_says(&wire, STR("bye")); /* its own side is still open */
    CHECK(exchange(&wire) == CONN_BLOCKED);
    CHECK(str_equal(str_of(&wire.got), STR("bye")));
    SSL_shutdown(wire.client);
    CHECK(exchange(&wire) == CONN_ENDED);
    CHECK(conn_failure(&wire.conn) == NULL);
    close_wire(&wire);
}

static void an_end_without_notice_is_an_end(void)
{
    struct wire wire;

    connect_wire(&wire);
    close(wire.far);
    wire.far = -1;
    CHECK(serve(&wire) == CONN_ENDED);
    CHECK(conn_failure(&wire.conn) != NULL);
    close_wire(&wire);
}

static void plain_http_is_answered_in_plain(void)
{
    static const char request[] = "GET / HTTP/1.1\r\n\r\n";
    struct wire wire;
    char got[100];

    open_wire(&wire, context);
    CHECK(send(wire.far, request, sizeof request - 1, 0) > 0);
    CHECK(serve(&wire) == CONN_PLAIN);
    queue(&wire, 3, 'p');
    conn_flush(&wire.conn);
    CHECK(recv(wire.far, got, sizeof got, 0) == 3 && memcmp(got, "ppp", 3) == 0);
    close_wire(&wire);
}

/* The first flight of the handshake finds the socket full. */
static void a_handshake_waits_until_it_can_be_written(void)
{
    static char junk[100000];
    struct wire wire;
    ssize_t filled = 0, n;

    open_wire(&wire, context);
    for (size_t piece = sizeof junk; piece > 0; piece = n > 0 ? piece : piece / 2) {
        n = send(wire.conn.fd, junk, piece, 0);
        filled += n > 0 ? n : 0;
    }
    SSL_do_handshake(wire.client);
    CHECK(carry_there(&wire));
    CHECK(serve(&wire) == CONN_BLOCKED);
    CHECK(wire.conn.want_write && wire.conn.tls_wants_write);
    while (filled > 0 && (n = recv(wire.far, junk, (size_t)filled, 0)) > 0)
        filled -= n;
    CHECK(filled == 0);
    CHECK(exchange(&wire) == CONN_BLOCKED);
    CHECK(SSL_is_init_finished(wire.client) && !wire.conn.tls_wants_write);
    queue(&wire, 10, 'a');
    CHECK(exchange(&wire) == CONN_BLOCKED);
    CHECK(is_rows(&wire.read, "a", (const size_t[]){10}));
    close_wire(&wire);
}

static void bytes_to_be_written_again_may_have_moved(void)
{
    static char first[TLS_RECORD_MAX], second[TLS_RECORD_MAX];
    struct wire wire;
    enum tls_status status = TLS_WANTS_WRITE;
    size_t count;

    connect_wire(&wire);
    while (tls_write(wire.conn.tls, first, sizeof first, &count) == TLS_DONE)
        ;
    CHECK(wire.conn.tls->pending == sizeof first);
    for (int i = 0; i < 100 && status == TLS_WANTS_WRITE; i++) {
        carry_back(&wire);
        status = tls_write(wire.conn.tls, second, sizeof second, &count);
    }
    CHECK(status == TLS_DONE);
    CHECK(count == sizeof second && wire.conn.tls->pending == 0);
    close_wire(&wire);
}

static void garbage_is_refused(void)
{
    static const struct str garbage[] = {
        STR_INIT("\0\0\0\0\0\0\0\0\0\0\0"),
        STR_INIT("\x16\x03\x01\xff\xff\1\0\0\0"),
        STR_INIT("\x16\x03\x01\0\5\1\0\0\1\0\0\0\0\0"),
        STR_INIT("\x15\x03\x03\0\2\2\x28"),
        STR_INIT("\x80\x80\1\3\1\0\x57\0\0\0\x20"),
        STR_INIT("SSH-2.0-OpenSSH_9\r\n"),
    };
    struct wire good;

    connect_wire(&good); /* the failures of others are not its own */
    for (size_t i = 0; i < COUNT(garbage); i++) {
        struct wire wire;

        open_wire(&wire, context);
        CHECK(send(wire.far, garbage[i].at, garbage[i].length, 0) > 0);
        shutdown(wire.far, SHUT_WR);
        CHECK(serve(&wire) == CONN_ENDED);
        CHECK(conn_failure(&wire.conn) != NULL);
        CHECK(serve(&good) == CONN_BLOCKED && conn_failure(&good.conn) == NULL);
        close_wire(&wire);
    }
    close_wire(&good);
}

static void forbidden_settings_are_refused(void)
{
    static const struct {
        int version;
        const char *ciphers, *protocols;
    } cases[] = {{TLS1_1_VERSION, "ALL", "\x08http/1.1"},
                 {TLS1_2_VERSION, "kRSA:ALL:!ECDHE:!DHE", "\x08http/1.1"},
                 {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA", "\x08http/1.1"},
                 {TLS1_3_VERSION, "ALL", "\2h2\3foo"}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *protocols = cases[i].protocols;
        struct wire wire;

        open_wire(&wire, context);
        SSL_set_security_level(wire.client, 0);
        SSL_set_min_proto_version(wire.client, TLS1_VERSION);
        SSL_set_max_proto_version(wire.client, cases[i].version);
        SSL_set_cipher_list(wire.client, cases[i].ciphers);
        SSL_set_alpn_protos(wire.client, (const unsigned char *)protocols,
                            (unsigned)strlen(protocols));
        CHECK(exchange(&wire) == CONN_ENDED);
        CHECK(conn_failure(&wire.conn) != NULL);
        CHECK(!SSL_is_init_finished(wire.client));
        close_wire(&wire);
    }
}

/* Groups that are expensive for a server, which a recorded ClientHello could ask for, are refused.
 */
static void only_cheap_key_exchange_is_accepted(void)
{
    static const struct {
        const char *groups;
        int chosen; /* 0: none */
    } cases[] = {
        {"X25519:P-256", NID_X25519},
        {"P-256", NID_X9_62_prime256v1},
        {"P-384:P-256", NID_secp384r1},
        {"P-521:ffdhe8192:P-256", NID_X9_62_prime256v1}, /* it is asked to try again */
        {"P-521", 0},
        {"X448", 0},
        {"ffdhe2048", 0},
        {"ffdhe8192", 0},
        {"ffdhe8192:P-521", 0},
    };

    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        struct wire wire;

        open_wire(&wire, context);
        if (i % 2)
            SSL_set_max_proto_version(wire.client, TLS1_2_VERSION);
        if (!CHECK(SSL_set1_groups_list(wire.client, cases[i / 2].groups) == 1) ||
            !CHECK((exchange(&wire) == CONN_BLOCKED) == (cases[i / 2].chosen != 0)) ||
            !CHECK(SSL_is_init_finished(wire.client) == (cases[i / 2].chosen != 0)) ||
            (i % 2 == 0 && cases[i / 2].chosen &&
             !CHECK(SSL_get_negotiated_group(wire.client) == cases[i / 2].chosen)))
            printf("  groups %s\n", cases[i / 2].groups);
        close_wire(&wire);
    }
}

/* OpenSSL would take 128 KiB, and look for each of thousands of key shares in a list as long. */
static void handshakes_have_a_limit(void)
{
    static const struct {
        unsigned names;
        bool good;
    } cases[] = {{1, true}, {300, true}, {1100, false}, {8000, false}};
    static const size_t pieces[] = {100, 65536};
    static unsigned char names[65536];

    for (size_t i = 0; i < COUNT(pieces) * COUNT(cases); i++) {
        bool good = cases[i % COUNT(cases)].good;
        unsigned length = 0;
        struct wire wire;

        open_wire(&wire, context);
        wire.piece = pieces[i / COUNT(cases)];
        if (wire.piece == 100) /* in records as small as can be */
            SSL_set_max_send_fragment(wire.client, 512);
        for (unsigned name = 1; name < cases[i % COUNT(cases)].names; name++, length += 8)
            memcpy(names + length, "\7unknown", 8);
        memcpy(names + length, "\x08http/1.1", 9);
        CHECK(SSL_set_alpn_protos(wire.client, names, length + 9) == 0);
        CHECK(exchange(&wire) == (good ? CONN_BLOCKED : CONN_ENDED));
        CHECK(!!SSL_is_init_finished(wire.client) == good);
        if (!good) { /* not even looked at */
            const char *why = conn_failure(&wire.conn);

            CHECK(why && strcmp(why, "the handshake is too long") == 0);
            CHECK(recv(wire.far, names, 1, 0) < 0);
        }
        close_wire(&wire);
    }
}

/* A request that comes with the end of the handshake is not part of it. */
static void what_follows_a_handshake_has_no_limit(void)
{
    static char many[TLS_RECORD_MAX];
    struct wire wire;
    int large = 4 * CONN_SCRATCH;

    memset(many, 'm', sizeof many);
    open_wire(&wire, context);
    setsockopt(wire.far, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    SSL_do_handshake(wire.client);
    CHECK(carry_there(&wire) && serve(&wire) == CONN_BLOCKED && carry_back(&wire));
    CHECK(SSL_do_handshake(wire.client) == 1);
    for (int i = 0; i < 3; i++)
        client_says(&wire, (struct str){many, sizeof many});
    CHECK(exchange(&wire) == CONN_BLOCKED);
    CHECK(wire.got.length == 3 * sizeof many);
    close_wire(&wire);
}

/* Connects with a ticket, or none, and leaves a new one in its place; true if it was accepted. */
static bool resumes(const struct tls_context *own, int version, SSL_SESSION **ticket)
{
    struct wire wire;
    bool reused;

    open_wire(&wire, own);
    SSL_set_max_proto_version(wire.client, version);
    CHECK(!*ticket || SSL_set_session(wire.client, *ticket) == 1);
    CHECK(exchange(&wire) == CONN_BLOCKED && SSL_is_init_finished(wire.client));
    queue(&wire, 1, 'a'); /* the ticket of TLS 1.3 has come before it */
    CHECK(exchange(&wire) == CONN_BLOCKED && wire.read.length == 1);
    reused = SSL_session_reused(wire.client);
    SSL_SESSION_free(*ticket);
    *ticket = SSL_get1_session(wire.client);
    SSL_shutdown(wire.client);
    close_wire(&wire);
    return reused;
}

/* A stolen ticket key opens what was recorded of TLS 1.2 under it. */
static void tickets_are_good_for_a_day(void)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    const int64_t began = 1700000000;

    for (size_t i = 0; i < COUNT(versions); i++) {
        struct tls_context *own = load(CERT, KEY);
        SSL_SESSION *ticket = NULL;

        tls_context_renew(own, began);
        CHECK(!resumes(own, versions[i], &ticket));
        CHECK(SSL_SESSION_has_ticket(ticket));
        tls_context_renew(own, began + TLS_TICKET_KEY_AGE - 1);
        CHECK(resumes(own, versions[i], &ticket));
        tls_context_renew(own, began + TLS_TICKET_KEY_AGE);
        CHECK(!resumes(own, versions[i], &ticket));
        CHECK(resumes(own, versions[i], &ticket));
        tls_context_renew(own, began + 2 * TLS_TICKET_KEY_AGE - 1);
        CHECK(resumes(own, versions[i], &ticket));
        tls_context_renew(own, began); /* the clock has been put back */
        CHECK(!resumes(own, versions[i], &ticket));
        SSL_SESSION_free(ticket);
        tls_context_free(own);
    }
}

static void keys_can_be_updated(void)
{
    struct wire wire;

    open_wire(&wire, context);
    wire.piece = 3;
    exchange(&wire);
    for (int i = 0; i < 3; i++) {
        CHECK(SSL_key_update(wire.client, SSL_KEY_UPDATE_REQUESTED) == 1);
        client_says(&wire, STR("x"));
        queue(&wire, 1000, 'a');
        CHECK(exchange(&wire) == CONN_BLOCKED);
    }
    CHECK(str_equal(str_of(&wire.got), STR("xxx")));
    CHECK(is_rows(&wire.read, "a", (const size_t[]){3000}));
    close_wire(&wire);
}

static void a_call_reads_one_record(void)
{
    struct wire wire;

    connect_wire(&wire);
    for (int i = 0; i < 3; i++) {
        CHECK(SSL_key_update(wire.client, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        CHECK(SSL_do_handshake(wire.client) == 1);
    }
    client_says(&wire, STR("x"));
    CHECK(carry_there(&wire));
    for (int i = 0; i < 3; i++)
        CHECK(serve(&wire) == CONN_BLOCKED);
    CHECK(serve(&wire) == CONN_READY);
    CHECK(str_equal(str_of(&wire.got), STR("x")));
    close_wire(&wire);
}

static void renegotiation_is_refused(void)
{
    struct wire wire;

    open_wire(&wire, context);
    SSL_set_max_proto_version(wire.client, TLS1_2_VERSION);
    exchange(&wire);
    CHECK(SSL_renegotiate(wire.client) == 1);
    SSL_do_handshake(wire.client);
    exchange(&wire);
    CHECK(!SSL_is_init_finished(wire.client));
    close_wire(&wire);
}

/* --- the client ------------------------------------------------------------------------------ */

/* Does a handshake of our client with our server, and sends `ping` and `pong`. Returns why it
 * failed, NULL if it did not. */
static const char *talk(const struct tls_context *server, const struct tls_context *trust,
                        const char *host)
{
    int ends[2];
    enum tls_status there = TLS_WANTS_READ, back = TLS_WANTS_READ;
    char got[2][TLS_RECORD_MAX];
    size_t count, sent = 0;
    struct tls *near, *far;
    const char *reason;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    for (int i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    far = tls_open(server, ends[0]);
    near = tls_connect(trust, ends[1], host);
    CHECK(near && far);
    for (int step = 0; step < 100 && back != TLS_DONE && back != TLS_ENDED; step++) {
        if (!sent)
            tls_write(near, "ping", 4, &sent);
        there = there == TLS_DONE ? there : tls_read(far, got[0], sizeof got[0], &count);
        if (there == TLS_DONE)
            tls_write(far, "pong", 4, &count);
        back = tls_read(near, got[1], sizeof got[1], &count);
    }
    CHECK(back != TLS_DONE || (memcmp(got[0], "ping", 4) == 0 && memcmp(got[1], "pong", 4) == 0));
    reason = back == TLS_DONE ? NULL : near->reason ? near->reason : "";
    tls_close(near);
    tls_close(far);
    close(ends[0]);
    close(ends[1]);
    return reason;
}

static void a_client_knows_with_whom_it_talks(void)
{
    static const struct {
        const char *host, *error;
    } rows[] = {
        {"good.com", NULL},
        {"GOOD.com", NULL},
        {"a.wild.com", NULL},
        {"127.0.0.1", NULL},
        {"::1", NULL},
        {"evil.com", "hostname mismatch"},
        {"good.com.evil", "hostname mismatch"},
        {"a.b.wild.com", "hostname mismatch"},
        {"common", "hostname mismatch"},
        {"127.0.0.2", "IP address mismatch"},
        {"::2", "IP address mismatch"},
    };
    char error[300];
    struct tls_context *server, *trust, *others;
    const char *reason;

    certificate_write("named.pem", "namedkey.pem",
                      "DNS:good.com,DNS:*.wild.com,IP:127.0.0.1,IP:::1");
    server = load("named.pem", "namedkey.pem");
    trust = tls_client_context_new("named.pem", error, sizeof error);
    others = tls_client_context_new(CERT, error, sizeof error);
    CHECK(trust && others);
    for (size_t i = 0; i < COUNT(rows); i++) {
        reason = talk(server, trust, rows[i].host);
        if (!CHECK(rows[i].error ? reason && strcasecmp(reason, rows[i].error) == 0 : !reason))
            printf("     with %s: %s\n", rows[i].host, reason ? reason : "good");
    }
    reason = talk(server, others, "good.com");
    CHECK(reason && strncmp(reason, "self", 4) == 0); /* "self-signed certificate" */
    tls_context_free(server);
    tls_context_free(trust);
    tls_context_free(others);
    /* the system's certificates, whatever they are, have none of this test */
    trust = tls_client_context_new("", error, sizeof error);
    server = load("named.pem", "namedkey.pem");
    CHECK(trust && talk(server, trust, "good.com"));
    tls_context_free(server);
    tls_context_free(trust);
    CHECK(!tls_client_context_new("no.pem", error, sizeof error));
    CHECK(strncmp(error, "no.pem: ", 8) == 0);
    CHECK(!tls_client_context_new(KEY, error, sizeof error));
    unlink("named.pem");
    unlink("namedkey.pem");
}

static void connections_outlive_their_context(void)
{
    struct tls_context *own = load(CERT, KEY);
    struct wire wire;

    open_wire(&wire, own);
    tls_context_free(own);
    CHECK(exchange(&wire) == CONN_BLOCKED);
    queue(&wire, 70000, 'a');
    CHECK(exchange(&wire) == CONN_BLOCKED);
    CHECK(is_rows(&wire.read, "a", (const size_t[]){70000}));
    close_wire(&wire);
}

/* Loads what cannot be used; the error must name the file and say so much. */
static bool is_refused(const char *cert, const char *key, const char *file, const char *what)
{
    char error[300];
    struct tls_context *own = tls_context_new(cert, key, error, sizeof error);
    bool good = !own && strstr(error, file) == error && strstr(error, what);

    if (!good)
        printf("%s, %s: %s\n", cert, key, error);
    tls_context_free(own);
    return good;
}

static void unusable_files_are_named(void)
{
    EVP_PKEY *locked = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048);
    FILE *file = fopen("text.pem", "w");

    fputs("no certificate\n", file);
    fclose(file);
    write_pair("other.pem", "otherkey.pem", 86400);
    write_key("locked.pem", locked, "secret");
    write_cert("lockedcert.pem", locked, 86400);
    write_key("rsa.pem", rsa, NULL);
    EVP_PKEY_free(locked);
    EVP_PKEY_free(rsa);
    CHECK(is_refused("none.pem", KEY, "none.pem", "No such file"));
    CHECK(is_refused(CERT, "none.pem", "none.pem", "No such file"));
    CHECK(is_refused("text.pem", KEY, "text.pem", "no start line"));
    CHECK(is_refused(CERT, "text.pem", "text.pem", ""));
    CHECK(is_refused(KEY, KEY, KEY, "no start line"));
    CHECK(is_refused(CERT, "otherkey.pem", "otherkey.pem", "mismatch"));
    CHECK(is_refused(CERT, "rsa.pem", "rsa.pem", ""));
    CHECK(is_refused("lockedcert.pem", "locked.pem", "locked.pem", "interrupted"));
}

/* And the time itself is told. */
static void days_are_counted(void)
{
    static const struct {
        long seconds;
        int days;
    } cases[] = {{90 * 86400 + 60, 90}, {3600, 0}, {-3600, -1}, {-3 * 86400 - 60, -3}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t before = (int64_t)time(NULL);
        struct tls_context *own;

        write_pair("days.pem", "dayskey.pem", cases[i].seconds);
        own = load("days.pem", "dayskey.pem");
        CHECK(tls_context_days(own) == cases[i].days);
        CHECK(tls_context_expiry(own) >= before + cases[i].seconds &&
              tls_context_expiry(own) <= (int64_t)time(NULL) + cases[i].seconds);
        tls_context_free(own);
    }
}

/* A connection's life, in which one allocation of OpenSSL fails. It goes on, or ends; another one
 * does not notice. Returns whether the life was over before that allocation. */
static bool lives_without(unsigned long number)
{
    struct wire victim, witness;
    enum conn_status status;
    bool survived;

    connect_wire(&witness);
    spare = number;
    allocations = 0;
    open_wire(&victim, context);
    status = exchange(&victim);
    if (status == CONN_BLOCKED) {
        SSL_key_update(victim.client, SSL_KEY_UPDATE_REQUESTED);
        client_says(&victim, STR("hello"));
        queue(&victim, 20000, 'a');
        status = exchange(&victim);
    }
    survived = allocations < spare;
    spare = 0;
    if (survived)
        CHECK(status == CONN_BLOCKED && victim.read.length == 20000 &&
              str_equal(str_of(&victim.got), STR("hello")));
    else /* whole or cut off, but never wrong */
        CHECK(is_rows(&victim.read, "a", (const size_t[]){victim.read.length}) &&
              (status == CONN_ENDED || !victim.conn.tls || victim.conn.broken ||
               victim.read.length == 20000));
    client_says(&witness, STR("here"));
    CHECK(exchange(&witness) == CONN_BLOCKED);
    CHECK(str_equal(str_of(&witness.got), STR("here")));
    close_wire(&victim);
    close_wire(&witness);
    return survived;
}

static void each_allocation_may_fail(void)
{
    unsigned long number = 1;

    while (number < 5000 && !lives_without(number))
        number++;
    CHECK(number > 50 && number < 5000);
    printf("a life has %lu allocations of OpenSSL\n", number - 1);
}

int main(void)
{
    char folder[] = "/tmp/wspush-tls.XXXXXX";

    if (CRYPTO_set_mem_functions(allocate, reallocate, release) != 1)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(folder) || chdir(folder) != 0)
        return 1;
    write_pair(CERT, KEY, 86400);
    context = load(CERT, KEY);
    test_run("both ways, in any pieces", both_ways_in_any_pieces);
    test_run("small messages share a record", small_messages_share_a_record);
    test_run("whole records are read", whole_records_are_read);
    test_run("input has a limit", input_has_a_limit);
    test_run("a dropped queue ends with a whole record", a_dropped_queue_ends_with_a_whole_record);
    test_run("a queue is dropped or killed", a_queue_is_dropped_or_killed);
    test_run("both ends send close_notify", both_ends_send_close_notify);
    test_run("an end without notice is an end", an_end_without_notice_is_an_end);
    test_run("plain HTTP is answered in plain", plain_http_is_answered_in_plain);
    test_run("a handshake waits until it can be written",
             a_handshake_waits_until_it_can_be_written);
    test_run("bytes to be written again may have moved", bytes_to_be_written_again_may_have_moved);
    test_run("garbage is refused", garbage_is_refused);
    test_run("forbidden settings are refused", forbidden_settings_are_refused);
    test_run("only cheap key exchange is accepted", only_cheap_key_exchange_is_accepted);
    test_run("handshakes have a limit", handshakes_have_a_limit);
    test_run("what follows a handshake has no limit", what_follows_a_handshake_has_no_limit);
    test_run("tickets are good for a day", tickets_are_good_for_a_day);
    test_run("keys can be updated", keys_can_be_updated);
    test_run("a call reads one record", a_call_reads_one_record);
    test_run("renegotiation is refused", renegotiation_is_refused);
    test_run("a client knows with whom it talks", a_client_knows_with_whom_it_talks);
    test_run("connections outlive their context", connections_outlive_their_context);
    test_run("unusable files are named", unusable_files_are_named);
    test_run("days are counted", days_are_counted);
    test_run("each allocation may fail", each_allocation_may_fail);
    tls_close(NULL);
    tls_context_free(NULL);
    tls_context_free(context);
    for (const char *const *name =
             (const char *const[]){CERT, KEY, "other.pem", "otherkey.pem", "locked.pem",
                                   "lockedcert.pem", "rsa.pem", "text.pem", "days.pem",
                                   "dayskey.pem", NULL};
         *name; name++)
        unlink(*name);
    if (chdir("/") != 0 || rmdir(folder) != 0)
        return 1;
    return test_finish();
}

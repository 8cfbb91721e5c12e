/* test_webhook_client.c - URLs and which of them are allowed; responses of receivers, read whole,
 * byte by byte, and cut at every place. The receiver is the other end of a socket pair. */
#include "webhook_client.h"

#include "os.h"

#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST "POST / HTTP/1.1\r\n\r\n"
#define OK "HTTP/1.1 200 OK\r\n"
#define END "\r\n\r\n"
static const struct buf small = {.at = (char[]){REQUEST}, .length = sizeof REQUEST - 1};

#define LONG 10000 /* milliseconds that a test never waits */

/* --- URLs ------------------------------------------------------------------------------------ */

static void reads_urls(void)
{
    static const struct {
        const char *text, *authority, *host, *path;
        bool secure;
        unsigned port;
    } rows[] = {
        {"http://good.com", "good.com", "good.com", "/", false, 80},
        {"HTTPS://Good.Com/", "Good.Com", "Good.Com", "/", true, 443},
        {"http://good.com:8080/a/b?c=../d#", NULL, NULL, NULL, false, 0},
        {"http://good.com:8080/a/b?c=../%2e", "good.com:8080", "good.com", "/a/b?c=../%2e", false,
         8080},
        {"http://[::1]:81/x", "[::1]:81", "::1", "/x", false, 81},
        {"https://[2001:DB8::1]", "[2001:DB8::1]", "2001:DB8::1", "/", true, 443},
        {"http://127.0.0.1/@x:y", "127.0.0.1", "127.0.0.1", "/@x:y", false, 80},
        {"http://under_score/.well-known/x", "under_score", "under_score", "/.well-known/x", false,
         80},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct receiver_url url;
        struct str text = exact_copy(str_from(rows[i].text));
        bool good = receiver_read_url(text, &url);

        if (!CHECK(good == (rows[i].host != NULL)) ||
            !CHECK(!good || (strcmp(url.host, rows[i].host) == 0 &&
                             str_equal(url.authority, str_from(rows[i].authority)) &&
                             str_equal(url.path, str_from(rows[i].path)) &&
                             url.port == rows[i].port && url.secure == rows[i].secure)))
            printf("     with %s\n", rows[i].text);
        free_copy(text);
    }
}

static void rejects_urls(void)
{
    struct str rest =
        STR("|good.com|http:|http:/|http://|http:///a|http://:80/|ftp://good.com/|"
            "//good.com/|http//good.com|http://good.com@evil/|http://good@evil.com/|"
            "http://good.com:80@evil.com/|http://good.com:/|http://good.com:0/|"
            "http://good.com:65536/|http://good.com:8x/|http://good.com?x|"
            "http://good.com\\@evil/|http://good.com/\\evil|http://good.com/a b|"
            "http://good.com/\t|http://good.com/\xc3\xa4|http://g\xc3\xb6od.com/|"
            "http://good.com/#a|http://good.com./|http://.good.com/|http://-a.com/|"
            "http://::1/|http://::1:80/|http://[::1/|http://[good.com]/|"
            "http://[::1]x/|http://0.0.0.0/|http://127.1/|http://256.0.0.1/|"
            "http://2130706433/|http://0x7f000001/|http://0X7F.1/|http://127.0.0.0x1/|"
            "http://0177.0.0.1/|http://127.0.0.1./|http://good.com/a/../b|http://good.com/..|"
            "http://good.com/a/%2E%2e/b|http://good.com/a%2fb|http://good.com/a%5Cb|"
            "http://good.com%2eevil/|http://good.com%00/|http://good,com/");
    struct receiver_url url;
    char text[RECEIVER_URL_MAX + 20] = "http://good.com/";

    while (rest.at) {
        struct str bad = exact_copy(str_cut(&rest, '|'));

        if (!CHECK(!receiver_read_url(bad, &url)))
            printf("     with %.*s\n", (int)bad.length, bad.at);
        free_copy(bad);
    }
    memset(text + strlen(text), 'a', sizeof text - strlen(text));
    CHECK(receiver_read_url((struct str){text, RECEIVER_URL_MAX}, &url));
    CHECK(!receiver_read_url((struct str){text, RECEIVER_URL_MAX + 1}, &url));
    memset(text + 7, 'a', 256);
    CHECK(!receiver_read_url((struct str){text, 263}, &url)); /* a host of 256 bytes */
}

static void allows_by_prefix(void)
{
    static const struct {
        const char *list, *allowed, *refused;
    } rows[] = {
        {"", "", "http://good.com/"},
        {"http://good.com",
         "http://good.com|http://GOOD.com/x|HTTP://good.com:80/|http://good.com/?a",
         "https://good.com/|https://good.com:80/|http://good.com:81/|http://good.com:443/|http://good.com.evil/|"
         "http://good.comevil/|http://evil.com/good.com|http://good.com@evil/|http://www.good.com/|"
         "http://good.com:80:81/|http://good.co/|http://[::1]/|http://127.0.0.1/"},
        {"https://good.com:8443/hooks/, http://[::1]:9000", //
         "https://good.com:8443/hooks/|https://good.com:8443/hooks/x|http://[::1]:9000/a",
         "https://good.com:8443/hooks|https://good.com:8443/|https://good.com/hooks/|"
         "https://good.com:8443/Hooks/|https://good.com:8443/hooks/../x|"
         "https://good.com:8443/hooks/%2e%2E/x|https://good.com:8443/x/hooks/|http://[::1]/|"
         "http://[::2]:9000/|http://[0:0:0:0:0:0:0:1]:9000/|http://::1:9000/"},
        {"nonsense http://a/b", "http://a/bc|http://a/b?c", "http://a/B|nonsense|http://nonsense/"},
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        for (int wanted = 0; wanted < 2; wanted++) {
            struct str rest = str_from(wanted ? rows[i].allowed : rows[i].refused);

            while (rest.length) {
                struct str text = str_cut(&rest, '|');

                if (!CHECK(receiver_is_allowed(str_from(rows[i].list), text) == (wanted == 1)))
                    printf("     with %.*s\n", (int)text.length, text.at);
            }
        }
}

/* --- responses ------------------------------------------------------------------------------- */

static size_t piece = SIZE_MAX; /* recv() returns no more */

ssize_t __real_recv(int fd, void *at, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *at, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *at, size_t size, int flags)
{
    return __real_recv(fd, at, size < piece ? size : piece, flags);
}

/* A receiver and the far end of its connection; nothing stops it. */
struct pair {
    struct receiver receiver;
    int far, stop[2];
    struct receiver_result result;
};

static void open_pair(struct pair *pair)
{
    static const struct receiver_url url = {.host = "localhost"};
    int ends[2], large = 1 << 20;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && pipe(pair->stop) == 0);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    pair->far = ends[1];
    CHECK(receiver_open(&pair->receiver, ends[0], NULL, &url));
    CHECK(receiver_is_open(&pair->receiver));
}

static void close_pair(struct pair *pair)
{
    receiver_close(&pair->receiver);
    if (pair->far >= 0)
        close(pair->far);
    close(pair->stop[0]);
    close(pair->stop[1]);
}

/* Posts a request that is answered with these bytes; then the receiver ends the connection, if it
 * `ends`. Returns whether the connection is kept. */
static bool post(struct str bytes, bool ends, struct receiver_result *result)
{
    struct pair pair;
    bool kept;

    open_pair(&pair);
    CHECK(write(pair.far, bytes.at, bytes.length) == (ssize_t)bytes.length);
    if (ends)
        CHECK(shutdown(pair.far, SHUT_WR) == 0);
    receiver_post(&pair.receiver, &small, LONG, pair.stop[0], result);
    kept = pair.receiver.fd >= 0;
    close_pair(&pair);
    return kept;
}

static const struct {
    struct str bytes;
    int status;
    bool kept;
} responses[] = {
    {STR_INIT(OK "Content-Length: 0" END), 200, true},
    {STR_INIT(OK "Content-Length: 5\r\n\r\nhello"), 200, true},
    {STR_INIT(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\nA: b" END),
     200, true},
    {STR_INIT("HTTP/1.1 204 No Content" END), 204, true},
    {STR_INIT("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0" END),
     302, true},
    {STR_INIT("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"), 500, true},
    {STR_INIT("HTTP/1.1 100 Continue" END "HTTP/1.1 103 Early\r\nLink: x" END OK
              "Content-Length: 1\r\n\r\nx"),
     200, true},
    {STR_INIT(OK "Content-Length: 1\r\nConnection: close\r\n\r\nx"), 200, false},
    {STR_INIT("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"), 200, false},
    {STR_INIT(OK "Content-Length: 1\r\n\r\nxHTTP"), 200, false}, /* something follows */
    {STR_INIT(OK "Transfer-Encoding: chunked\r\n\r\n0" END "x"), 200, false},
    {STR_INIT(OK "Transfer-Encoding: chunked\r\n\r\nx\r\n"), 200, false},
    {STR_INIT("HTTP/1.1 410 Gone" END "until the end"), 410, false},
    {STR_INIT("HTTP/2 200" END), 0, false},
    {STR_INIT("SSH-2.0-OpenSSH\r\n"), 0, false},
    {STR_INIT(OK "Content-Length: x" END), 0, false},
};

static size_t length_of_head(struct str bytes)
{
    size_t end = 4;

    for (size_t n = 4; n <= bytes.length; n++)
        if (memcmp(bytes.at + n - 4, END, 4) == 0) {
            end = n;
            if (bytes.at[9] != '1' || memcmp(bytes.at + n, "HTTP/1.1 1", 10) != 0)
                break;
        }
    return end;
}

static void reads_responses(void)
{
    static const size_t pieces[] = {1, 2, 7, SIZE_MAX};

    for (size_t i = 0; i < COUNT(responses) * COUNT(pieces); i++) {
        size_t row = i / COUNT(pieces);
        struct receiver_result result;
        bool kept;

        piece = pieces[i % COUNT(pieces)];
        kept = post(responses[row].bytes, !responses[row].kept, &result);
        /* of what follows a response in another piece, the next request finds out */
        if (!CHECK(result.status == responses[row].status && !result.stale) ||
            !CHECK(kept == responses[row].kept || piece < SIZE_MAX) ||
            !CHECK(!result.status == (result.error != NULL)))
            printf("     in row %zu, %zu bytes at a time\n", row, piece);
    }
}

/* A head that is not whole is no response; after it, only the connection suffers. */
static void reads_responses_that_are_cut(void)
{
    for (size_t i = 0; i < COUNT(responses); i++)
        for (size_t n = 0; responses[i].status && n < responses[i].bytes.length; n++) {
            struct str bytes = {responses[i].bytes.at, n};
            struct receiver_result result;
            bool kept = post(bytes, true, &result), interim = bytes.at[9] == '1';

            if (!CHECK(interim || result.stale == (n == 0)) ||
                !CHECK(interim ||
                       result.status ==
                           (n < length_of_head(responses[i].bytes) ? 0 : responses[i].status)) ||
                !CHECK(!kept || result.status))
                printf("     in row %zu, cut at %zu\n", i, n);
        }
}

/* A body is read to its limit, whatever frames it. */
static void limits_bodies(void)
{
    for (size_t i = 0; i < 3; i++)
        for (size_t more = 0; more < 2; more++) {
            size_t length = RECEIVER_BODY_MAX + more;
            struct buf bytes = {0};
            struct receiver_result result;
            bool kept;

            buf_append(&bytes, STR(OK));
            if (i == 0)
                buf_print(&bytes, "Content-Length: %zu" END, length);
            else
                buf_append(&bytes, i == 1 ? STR("Transfer-Encoding: chunked" END) : STR("\r\n"));
            if (i == 1)
                buf_print(&bytes, "%zx\r\n", length);
            buf_reserve(&bytes, length);
            memset(bytes.at + bytes.length, 'x', length);
            bytes.length += length;
            if (i == 1)
                buf_append(&bytes, STR("\r\n0" END));
            kept = post(str_of(&bytes), i == 2 && !more, &result);
            CHECK(result.status == 200 && kept == (i < 2 && !more));
            buf_free(&bytes);
        }
}

/* Beyond the limit nothing is waited for. */
static void waits_for_no_long_body(void)
{
    struct buf bytes = {0};
    struct receiver_result result;
    int64_t before = os_now_ms();

    buf_append(&bytes, STR(OK "Content-Length: 1000000" END));
    buf_reserve(&bytes, RECEIVER_BODY_MAX + 1);
    memset(bytes.at + bytes.length, 'x', RECEIVER_BODY_MAX + 1);
    bytes.length += RECEIVER_BODY_MAX + 1;
    CHECK(!post(str_of(&bytes), false, &result) && result.status == 200);
    CHECK(os_now_ms() - before < LONG);
    buf_free(&bytes);
}

static void limits_heads(void)
{
    static char bytes[100000] = OK "X: ";
    struct receiver_result result;
    struct buf interim = {0};

    memset(bytes + strlen(bytes), 'x', sizeof bytes - strlen(bytes));
    post((struct str){bytes, sizeof bytes}, false, &result);
    CHECK(result.status == 0 && !result.stale);
    CHECK(strcmp(result.error, "the response is not HTTP/1.1") == 0);
    for (int i = 0; i < 100; i++)
        buf_append(&interim, STR("HTTP/1.1 100 Continue" END));
    post(str_of(&interim), false, &result);
    CHECK(result.status == 0 && strcmp(result.error, "the response is not HTTP/1.1") == 0);
    buf_free(&interim);
}

static void keeps_a_connection(void)
{
    struct pair pair;
    char request[100];

    open_pair(&pair);
    for (int i = 0; i < 3; i++) {
        CHECK(write(pair.far, OK "Content-Length: 0" END, 38) == 38);
        receiver_post(&pair.receiver, &small, LONG, pair.stop[0], &pair.result);
        CHECK(pair.result.status == 200);
        CHECK(read(pair.far, request, sizeof request) == (ssize_t)strlen(REQUEST));
        CHECK(receiver_is_open(&pair.receiver));
    }
    CHECK(write(pair.far, "x", 1) == 1); /* nobody has asked */
    CHECK(!receiver_is_open(&pair.receiver) && pair.receiver.fd < 0);
    close_pair(&pair);
    open_pair(&pair);
    close(pair.far);
    pair.far = -1;
    receiver_post(&pair.receiver, &small, LONG, pair.stop[0], &pair.result);
    CHECK(pair.result.stale && pair.result.status == 0 && pair.receiver.fd < 0);
    close_pair(&pair);
}

/* A receiver may answer before it has read all, and end the connection. */
static void hears_early_responses(void)
{
    static char large[4 << 20];
    struct pair pair;

    open_pair(&pair);
    CHECK(write(pair.far, "HTTP/1.1 410 Gone" END, 21) == 21);
    CHECK(shutdown(pair.far, SHUT_RDWR) == 0);
    receiver_post(&pair.receiver, &(struct buf){.at = large, .length = sizeof large}, LONG,
                  pair.stop[0], &pair.result);
    CHECK(pair.result.status == 410 && pair.receiver.fd < 0);
    close_pair(&pair);
}

static void gives_up(void)
{
    static char large[4 << 20];
    const struct buf request[] = {small, {.at = large, .length = sizeof large}};

    for (size_t i = 0; i < 2; i++)
        for (int stops = 0; stops < 2; stops++) {
            struct pair pair;

            open_pair(&pair);
            if (stops)
                CHECK(write(pair.stop[1], "x", 1) == 1);
            receiver_post(&pair.receiver, &request[i], stops ? LONG : 20, pair.stop[0],
                          &pair.result);
            CHECK(pair.result.status == 0 && !pair.result.stale && pair.receiver.fd < 0);
            CHECK(pair.result.error &&
                  strcmp(pair.result.error, stops ? "stopped" : "no response in time") == 0);
            close_pair(&pair);
        }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_run("a URL is read", reads_urls);
    test_run("what two readers could take for two things is no URL", rejects_urls);
    test_run("a URL is allowed by scheme, host, port and the beginning of its path",
             allows_by_prefix);
    test_run("a response is read in any pieces", reads_responses);
    test_run("a response may be cut anywhere", reads_responses_that_are_cut);
    test_run("a body has a limit", limits_bodies);
    test_run("a body beyond it is not waited for", waits_for_no_long_body);
    test_run("a head, and interim responses, have a limit", limits_heads);
    test_run("a connection is kept", keeps_a_connection);
    test_run("a response may come before the request is whole", hears_early_responses);
    test_run("a receiver that does nothing is given up, at once on a stop", gives_up);
    return test_finish();
}

/* test_listener.c - listener.c: who is a trusted proxy, whom it names, how many connections there
 * are of each address, and what is accepted. */
#include "listener.h"

#include "conn.h"
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct config config;
static struct log quiet;
static struct listener listener;

static void open_with(const char *trusted, uint64_t max_per_ip)
{
    config_defaults(&config);
    snprintf(config.trusted_proxies, sizeof config.trusted_proxies, "%s", trusted);
    config.max_per_ip = max_per_ip;
    listener = (struct listener){.config = &config,
                                 .log = &quiet,
                                 .clients = -1,
                                 .admin = -1,
                                 .max_connections = 10,
                                 .seed = 7};
    CHECK(listener_open(&listener));
}

/* An address as connections have it; "" is that of a peer on a Unix-domain socket. */
static void put_address(unsigned char address[16], const char *text)
{
    memset(address, 0, 16);
    if (!text[0] || inet_pton(AF_INET6, text, address) == 1)
        return;
    address[10] = address[11] = 0xff;
    CHECK(inet_pton(AF_INET, text, address + 12) == 1);
}

static bool trusts(const char *text)
{
    unsigned char address[16];

    put_address(address, text);
    return listener_trusts(&listener, address);
}

static void networks_are_trusted(void)
{
    open_with("10.1.2.3/8, 192.0.2.7 198.51.100.128/25,2001:db8:7000::/36 ::1", 0);
    CHECK(trusts("10.0.0.0") && trusts("10.255.255.255") && !trusts("11.0.0.0") &&
          !trusts("9.9.9.9"));
    CHECK(trusts("192.0.2.7") && !trusts("192.0.2.6") && !trusts("192.0.2.8"));
    CHECK(trusts("198.51.100.128") && trusts("198.51.100.255") && !trusts("198.51.100.127"));
    CHECK(trusts("2001:db8:7fff::1") && trusts("2001:db8:7000::") && !trusts("2001:db8:8000::"));
    CHECK(trusts("::1") && !trusts("::2") && !trusts("1::1"));
    CHECK(trusts("::ffff:10.0.0.1") && !trusts("::10.0.0.1"));
    CHECK(trusts(""));
    listener_close(&listener);
    open_with("", 0);
    CHECK(trusts("") && !trusts("127.0.0.1") && !trusts("::1") && !trusts("0.0.0.0"));
    listener_close(&listener);
    open_with("0.0.0.0/0", 0);
    CHECK(trusts("127.0.0.1") && !trusts("::1") && !trusts("2001:db8::1"));
    listener_close(&listener);
    open_with("::/0", 0);
    CHECK(trusts("2001:db8::1"));
    listener_close(&listener);
}

/* As many entries as the text has room for. */
static void all_networks_are_kept(void)
{
    char text[sizeof config.trusted_proxies] = "";

    for (int i = 0; i < 680; i++)
        memcpy(text + 3 * i, ",::", 4);
    open_with(text, 0);
    CHECK(listener.proxy_count == 680);
    listener_close(&listener);
}

/* True if a request of `peer` with up to three fields is that of `expected`. */
static bool finds(const char *peer, const char *const fields[3], const char *expected)
{
    struct http_request request = {0};
    unsigned char address[16], wanted[16];

    for (int i = 0; i < 3 && fields[i]; i++) {
        request.headers[request.header_count++] =
            (struct http_header){STR("Forwarded"), STR("for=203.0.113.99")};
        request.headers[request.header_count++] = (struct http_header){
            i ? STR("x-forwarded-for") : STR("X-Forwarded-For"), str_from(fields[i])};
        request.headers[request.header_count++] =
            (struct http_header){STR("X-Forwarded-For-Not"), STR("203.0.113.98")};
    }
    put_address(address, peer);
    put_address(wanted, expected);
    listener_find_client(&listener, &request, address);
    return memcmp(address, wanted, 16) == 0;
}

static void the_last_address_that_is_no_proxy_is_the_client(void)
{
    static const struct {
        const char *peer, *fields[3], *client;
    } cases[] = {
        {"10.0.0.1", {NULL}, "10.0.0.1"},
        {"10.0.0.1", {""}, "10.0.0.1"},
        {"10.0.0.1", {"203.0.113.5"}, "203.0.113.5"},
        {"10.0.0.1", {"1.1.1.1, 203.0.113.5"}, "203.0.113.5"}, /* the client has sent the first */
        {"10.0.0.1", {"10.9.9.9, 203.0.113.5"}, "203.0.113.5"},
        {"10.0.0.1", {"1.1.1.1,203.0.113.5,10.0.0.2"}, "203.0.113.5"},
        {"10.0.0.1", {"1.1.1.1 , 203.0.113.5\t,10.0.0.3,  10.0.0.2"}, "203.0.113.5"},
        {"10.0.0.1", {"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
        {"10.0.0.1", {"2001:db8::5"}, "2001:db8::5"},
        {"10.0.0.1", {"203.0.113.5, fd00::1"}, "203.0.113.5"},
        {"10.0.0.1", {"::ffff:203.0.113.5"}, "203.0.113.5"},
        {"10.0.0.1", {"203.0.113.5, ::ffff:10.0.0.2"}, "203.0.113.5"},
        {"fd00::1", {"203.0.113.5"}, "203.0.113.5"},
        {"::ffff:10.0.0.1", {"203.0.113.5"}, "203.0.113.5"},
        {"", {"203.0.113.5"}, "203.0.113.5"},
        {"", {NULL}, ""},
        /* several fields are one list */
        {"10.0.0.1", {"1.1.1.1", "203.0.113.5"}, "203.0.113.5"},
        {"10.0.0.1", {"1.1.1.1", "203.0.113.5", "10.0.0.2"}, "203.0.113.5"},
        {"10.0.0.1", {"203.0.113.5", "10.0.0.2", "garbage"}, "10.0.0.1"},
        {"10.0.0.1", {"203.0.113.5", "garbage", "10.0.0.2"}, "10.0.0.2"},
        {"10.0.0.1", {"203.0.113.5", "", ","}, "203.0.113.5"},
        /* X-Forwarded-For of other peers is ignored */
        {"203.0.113.9", {"203.0.113.5"}, "203.0.113.9"},
        {"203.0.113.9", {"10.0.0.2"}, "203.0.113.9"},
        {"127.0.0.1", {"203.0.113.5"}, "127.0.0.1"},
        {"::1", {"203.0.113.5", "10.0.0.2"}, "::1"},
        /* ports */
        {"10.0.0.1", {"203.0.113.5:567"}, "203.0.113.5"},
        {"10.0.0.1", {"203.0.113.5:1, 10.0.0.2:65535"}, "203.0.113.5"},
        {"10.0.0.1", {"[2001:db8::5]:5"}, "2001:db8::5"},
        {"10.0.0.1", {"[2001:db8::5]"}, "2001:db8::5"},
        {"10.0.0.1", {"2001:db8::5:80"}, "2001:db8::5:80"},
        /* separators alone */
        {"10.0.0.1", {",,"}, "10.0.0.1"},
        {"10.0.0.1", {",203.0.113.5, ,"}, "203.0.113.5"},
    };

    open_with("10.0.0.0/8 fd00::/8", 0);
    for (size_t i = 0; i < COUNT(cases); i++)
        if (!CHECK(finds(cases[i].peer, cases[i].fields, cases[i].client)))
            printf("  case %zu\n", i);
    listener_close(&listener);
}

static void what_is_no_address_ends_the_walk(void)
{
    static const char *const bad[] = {
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.5.6",
        "203.0.113.5:",
        ":567",
        "203.0.113.5:x",
        "203.0.113.5:65536",
        "203.0.113.5:-1",
        "203.0.113.5:80:",
        "[::1",
        "[]",
        "[]:80",
        "[::1]80",
        "[::1]:",
        "[::1]:x",
        "[::1]:65536",
        "::1]",
        "[[::1]]",
        "[fe80::1%eth0]",
        "fe80::1%eth0",
        "1::2::3",
        ":",
        "203.0.113.5 203.0.113.6",
        "203.0.113.5/32",
        "2001:db8::/32",
        "\"203.0.113.5\"",
        "for=203.0.113.5",
        "203.0.113.5;",
        "0x7f.1.1.1",
        "1",
        "2130706433",
        "203.0.113.5\xff",
        "\xd9\xa1.1.1.1",
        "[203.0.113.5",
        "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    };

    open_with("10.0.0.0/8 fd00::/8", 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        char list[200];

        CHECK(finds("10.0.0.1", (const char *const[3]){bad[i]}, "10.0.0.1"));
        snprintf(list, sizeof list, "203.0.113.7, %s", bad[i]);
        CHECK(finds("10.0.0.1", (const char *const[3]){list}, "10.0.0.1"));
        snprintf(list, sizeof list, "203.0.113.7, %s, 10.0.0.2", bad[i]);
        if (!CHECK(finds("10.0.0.1", (const char *const[3]){list}, "10.0.0.2")))
            printf("  %s\n", bad[i]);
    }
    listener_close(&listener);
}

static void a_nul_is_no_end(void)
{
    struct http_request request = {
        .headers = {{STR_INIT("X-Forwarded-For"), STR_INIT("203.0.113.5\0")}}, .header_count = 1};
    unsigned char address[16], proxy[16];

    open_with("10.0.0.0/8", 0);
    put_address(address, "10.0.0.1");
    put_address(proxy, "10.0.0.1");
    listener_find_client(&listener, &request, address);
    CHECK(memcmp(address, proxy, 16) == 0);
    listener_close(&listener);
}

static bool counts(const char *text)
{
    unsigned char address[16];

    put_address(address, text);
    return listener_count(&listener, address);
}

static void uncount(const char *text)
{
    unsigned char address[16];

    put_address(address, text);
    listener_uncount(&listener, address);
}

static void connections_are_counted(void)
{
    open_with("", 2);
    CHECK(counts("203.0.113.5") && counts("203.0.113.5") && !counts("203.0.113.5"));
    CHECK(counts("203.0.113.6")); /* IPv4: each address counts by itself, */
    CHECK(counts("::ffff:203.0.113.6") && !counts("203.0.113.6"));
    CHECK(counts("2001:db8::1") && counts("2001:db8::2:3:4:5") && !counts("2001:db8::1"));
    CHECK(counts("2001:db8:0:1::1")); /* IPv6: each network of 64 bits */
    uncount("203.0.113.5");
    CHECK(!counts("203.0.113.5"));
    uncount("203.0.113.5");
    uncount("203.0.113.5");
    CHECK(counts("203.0.113.5"));
    uncount("203.0.113.5");
    uncount("203.0.113.5");
    uncount("203.0.113.5"); /* it is not there */
    CHECK(counts("203.0.113.5"));
    listener_forget(&listener);
    CHECK(counts("203.0.113.6") && counts("203.0.113.6") && !counts("203.0.113.6"));
    config.max_per_ip = 0; /* as a reload may have it */
    CHECK(counts("203.0.113.6"));
    listener_close(&listener);
    listener_close(&listener);
}

/* Connects to the clients' socket. */
static int connect_to(int socket_of_listener)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(getsockname(socket_of_listener, (struct sockaddr *)&address, &length) == 0);
    CHECK(connect(fd, (struct sockaddr *)&address, length) == 0);
    return fd;
}

static void accept_fixture(const char *trusted)
{
    open_with(trusted, 2);
    listener.max_connections = 3;
    listener.clients = listener_bind("test", "127.0.0.1", 0, NULL, LISTENER_SERVE);
    listener.admin = listener_bind("test", "127.0.0.1", 0, NULL, LISTENER_SERVE);
}

/* Connects and accepts; `over_limit` is what is expected. */
static bool accepts(size_t open, bool by_proxy, bool over_limit)
{
    struct listener_connection connection = {.fd = -1};
    int peer = connect_to(listener.clients);
    bool good = listener_accept(&listener, listener.clients, open, 1000, &connection) &&
                connection.by_proxy == by_proxy && connection.over_limit == over_limit &&
                connection.address[12] == 127;

    close(connection.fd);
    close(peer);
    return good;
}

static void limits_are_noticed_when_accepting(void)
{
    accept_fixture("");
    CHECK(accepts(0, false, false) && accepts(1, false, false));
    CHECK(accepts(2, false, true)); /* max_per_ip */
    uncount("127.0.0.1");
    uncount("127.0.0.1");
    CHECK(accepts(2, false, false));
    uncount("127.0.0.1");
    CHECK(accepts(3, false, true)); /* max_connections */
    listener_close(&listener);
    CHECK(listener.clients == -1 && listener.admin == -1);
    accept_fixture("127.0.0.1");
    for (int i = 0; i < 4; i++)
        CHECK(accepts(0, true, false));
    CHECK(accepts(3, true, true));
    listener_close(&listener);
}

static void accepting_pauses_and_stops(void)
{
    struct listener_connection connection;
    int peer;

    accept_fixture("");
    CHECK(
        !listener_accept(&listener, listener.clients, 0, 1000, &connection)); /* nobody is there */
    CHECK(!listener_is_paused(&listener, 1000));
    peer = connect_to(listener.clients);
    listener_pause(&listener, EMFILE, 0, 1000);
    CHECK(listener_is_paused(&listener, 1000 + LISTENER_PAUSE - 1));
    CHECK(!listener_accept(&listener, listener.clients, 0, 1000 + LISTENER_PAUSE - 1, &connection));
    CHECK(!listener_accept(&listener, listener.admin, 0, 1000, &connection));
    CHECK(!listener_is_paused(&listener, 1000 + LISTENER_PAUSE));
    CHECK(listener_accept(&listener, listener.clients, 0, 1000 + LISTENER_PAUSE, &connection));
    close(connection.fd);
    close(peer);
    listener_stop(&listener);
    CHECK(!listener_accept(&listener, listener.clients, 0, 5000, &connection));
    peer = connect_to(listener.admin);
    CHECK(listener_accept(&listener, listener.admin, 99, 5000, &connection));
    CHECK(!connection.over_limit && !connection.by_proxy);
    close(connection.fd);
    close(peer);
    listener_close(&listener);
}

static void hosts_overlap(void)
{
    CHECK(listener_overlaps("127.0.0.1", "127.0.0.1") && listener_overlaps("0.0.0.0", "10.0.0.1"));
    CHECK(listener_overlaps("10.0.0.1", "::") && !listener_overlaps("10.0.0.1", "127.0.0.1"));
}

int main(void)
{
    quiet = (struct log){.file = tmpfile()};
    test_run("networks are trusted", networks_are_trusted);
    test_run("all networks are kept", all_networks_are_kept);
    test_run("the last address that is no proxy is the client",
             the_last_address_that_is_no_proxy_is_the_client);
    test_run("what is no address ends the walk", what_is_no_address_ends_the_walk);
    test_run("a NUL is no end", a_nul_is_no_end);
    test_run("connections are counted", connections_are_counted);
    test_run("limits are noticed when accepting", limits_are_noticed_when_accepting);
    test_run("accepting pauses and stops", accepting_pauses_and_stops);
    test_run("hosts overlap", hosts_overlap);
    fclose(quiet.file);
    return test_finish();
}

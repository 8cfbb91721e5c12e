/* test_host.c - tests which origins a list may have and which pages it allows, and networks. */
#include "host.h"
#include "test.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static void check_origins(struct str list, bool good)
{
    while (list.at) {
        struct str entry = exact_copy(str_cut(&list, '|'));

        if (!CHECK(host_origin_is_good(entry) == good))
            printf("  %.*s\n", (int)entry.length, entry.at);
        free_copy(entry);
    }
}

static void entries_are_origins(void)
{
    check_origins(
        STR("*|null|NULL|https://shop.example|HTTPS://Shop.Example|https://shop.example:443|"
            "https://shop.example:8443|https://shop.example:8443/|https://shop.example/|"
            "https://*.example|https://*.shop.example:8443/|http://localhost:5173|http://10.0.0.1|"
            "http://[::1]:8080|http://[fd00::1]|chrome-extension://abcdefghijklmnop|"
            "capacitor://localhost|https://xn--bcher-kva.example|https://a_b.example"),
        true);
    check_origins(
        STR("|shop.example|shop.example:443|//shop.example|://shop.example|https:shop.example|"
            "https:/shop.example|https//shop.example|https://|https:///|https:////|"
            "https://shop.example//|https://shop.example/path|https://shop.example/?|"
            "https://shop.example?x|https://shop.example#x|https://user@shop.example|"
            "https://shop.example:|https://shop.example:0|https://shop.example:65536|"
            "https://shop.example:x|https://shop.example:80:80|https://*|https://*.|"
            "https://*shop.example|https://shop.*.example|https://*.*.example|*.example|"
            "*://shop.example|**|http://[::1|http://[]|http://[::1]x|http://[::1]:|http://*.[::1]|"
            "http://::1|ws://shop.example|WSS://shop.example|https://b\xc3\xbc"
            "cher.example|"
            "https://shop.example\t|\"https://shop.example\""),
        false);
    CHECK(!host_origin_is_good(STR("https://shop.example\0")));
}

static const struct {
    const char *list;
    struct str origin;
    bool allowed;
} cases[] = {
    {"", STR_INIT("https://any.example"), true},
    {"", STR_INIT(""), true},
    {"", {NULL, 0}, true},
    {"", STR_INIT("null"), true},
    {"*", STR_INIT("https://any.example"), true},
    {"*", STR_INIT("null"), true},
    {"*", STR_INIT("no origin"), true},
    {"https://a.example *", STR_INIT("https://any.example"), true},
    {"https://a.example", STR_INIT("https://a.example"), true},
    {"https://a.example", STR_INIT("HTTPS://A.Example"), true},
    {"HTTPS://A.example", STR_INIT("https://a.example"), true},
    {"https://a.example", STR_INIT("https://b.example"), false},
    {"https://a.example", STR_INIT("http://a.example"), false},
    {"https://a.example", STR_INIT("https://a.example:8443"), false},
    {"https://a.example", STR_INIT("https://a.example.evil"), false},
    {"https://a.example", STR_INIT("https://a.exampl"), false},
    {"https://a.example", STR_INIT("https://x.a.example"), false},
    {"https://a.example", STR_INIT("https://a.example\0"), false},
    {"https://a.example", STR_INIT("https://a.example/x"), false},
    {"https://a.example", STR_INIT("https://a.example@b.example"), false},
    {"https://a.example", STR_INIT("a.example"), false},
    {"https://a.example", STR_INIT("null"), false},
    {"https://a.example", STR_INIT("*"), false},
    {"https://a.example", STR_INIT(""), false},
    {"https://a.example", {NULL, 0}, false},
    /* ports and a slash that are the same are the same */
    {"https://a.example:443", STR_INIT("https://a.example"), true},
    {"https://a.example", STR_INIT("https://a.example:443"), true},
    {"http://a.example:80/", STR_INIT("http://a.example"), true},
    {"https://a.example/", STR_INIT("https://a.example"), true},
    {"https://a.example:8443/", STR_INIT("https://a.example:8443"), true},
    {"https://a.example:8443", STR_INIT("https://a.example"), false},
    {"https://a.example:80", STR_INIT("https://a.example"), false},
    {"http://a.example:443", STR_INIT("http://a.example"), false},
    {"http://a.example:80", STR_INIT("https://a.example"), false},
    {"app://a:80", STR_INIT("app://a"), false},
    {"app://a:80", STR_INIT("app://a:80"), true},
    {"app://a", STR_INIT("app://a"), true},
    {"http://[::1]:80", STR_INIT("http://[::1]"), true},
    {"http://[::1]:81", STR_INIT("http://[::1]"), false},
    {"http://[FD00::1]", STR_INIT("http://[fd00::1]"), true},
    /* subdomains */
    {"https://*.example", STR_INIT("https://a.example"), true},
    {"https://*.example", STR_INIT("https://a.B.Example"), true},
    {"https://*.example", STR_INIT("https://example"), false},
    {"https://*.example", STR_INIT("https://.example"), false},
    {"https://*.example", STR_INIT("https://aexample"), false},
    {"https://*.example", STR_INIT("https://abcexample"), false},
    {"https://*.example", STR_INIT("https://a.example.evil"), false},
    {"https://*.example", STR_INIT("http://a.example"), false},
    {"https://*.example", STR_INIT("https://a.example:8443"), false},
    {"https://*.example:8443", STR_INIT("https://a.example:8443"), true},
    {"https://*.example:443", STR_INIT("https://a.example"), true},
    {"https://*.a.example", STR_INIT("https://b.example"), false},
    {"https://*.example", STR_INIT("https://*.example"), false},
    {"https://*.example", STR_INIT("https://*.a.example"), false},
    {"https://a.example", STR_INIT("https://*.a.example"), false},
    /* lists */
    {"https://a.example https://b.example", STR_INIT("https://b.example"), true},
    {"https://a.example https://b.example", STR_INIT("https://a.example https://b.example"), false},
    {"https://a.example   https://b.example", STR_INIT("https://b.example"), true},
    {"https://a.example   https://b.example", STR_INIT(""), false},
    {"https://a.example, https://b.example", STR_INIT("https://a.example"), true},
    {"https://a.example, https://b.example", STR_INIT("https://b.example"), true},
    {"https://a.example, https://b.example", STR_INIT("https://a.example,"), false},
    {"https://a.example,https://b.example", STR_INIT("https://b.example"), true},
    {"https://a.example,https://b.example", STR_INIT("https://a.example,https://b.example"), false},
    {"https://a.example,", STR_INIT(""), false},
    {"null https://a.example:81", STR_INIT("null"), true},
    {"null https://a.example:81", STR_INIT("nul"), false},
    {"null https://a.example:81", STR_INIT("https://a.example:81"), true},
    {"null https://a.example:81", STR_INIT("https://a.example"), false},
};

static void lists_allow_origins(void)
{
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct str list = exact_copy(str_from(cases[i].list));
        struct str origin = exact_copy(cases[i].origin);

        if (!CHECK(host_origin_is_allowed(list, origin) == cases[i].allowed))
            printf("  in case %s: %.*s\n", cases[i].list, (int)origin.length, origin.at);
        free_copy(list);
        free_copy(origin);
    }
}

/* Whatever a peer sends: nothing behind it is read. */
static void every_part_of_an_origin_is_read_safely(void)
{
    static const char whole[] = "https://*.[a:1]:8443/x";

    for (size_t from = 0; from < sizeof whole; from++)
        for (size_t to = from; to < sizeof whole; to++) {
            struct str part = exact_copy((struct str){whole + from, to - from});

            CHECK(!host_origin_is_allowed(STR("https://a.example http://*.[a null"), part));
            free_copy(part);
        }
}

/* One network of a list: how many bits of which address count. */
static void check_network(const char *list, const char *address, unsigned bits)
{
    char *copy = exact_bytes(str_from(list));
    struct str rest = {copy, strlen(list)};
    unsigned char found[16] = {0}, expected[16] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";
    unsigned number = 0;
    bool ipv6 = strchr(address, ':') != NULL;

    CHECK(inet_pton(ipv6 ? AF_INET6 : AF_INET, address, ipv6 ? expected : expected + 12) == 1);
    if (!CHECK(host_next_network(&rest, found, &number)) ||
        !CHECK(memcmp(found, expected, 16) == 0 && number == bits) ||
        !CHECK(!host_next_network(&rest, found, &number) && rest.length == 0))
        printf("  %s: %u\n", list, number);
    free(copy);
}

static void networks_are_addresses_and_bits(void)
{
    check_network("10.1.2.3", "10.1.2.3", 128);
    check_network("10.0.0.0/8", "10.0.0.0", 104);
    check_network("0.0.0.0/0", "0.0.0.0", 96);
    check_network("255.255.255.255/32", "255.255.255.255", 128);
    check_network("::1", "::1", 128);
    check_network("fd00::/8", "fd00::", 8);
    check_network("::/0", "::", 0);
    check_network("2001:db8:1:2:3:4:5:6/128", "2001:db8:1:2:3:4:5:6", 128);
    check_network("::ffff:10.0.0.0/104", "::ffff:10.0.0.0", 104);
    check_network(" ,, 10.1.2.3 , ", "10.1.2.3", 128);
}

static void networks_come_in_turn(void)
{
    static const unsigned expected[] = {104, 8, 128, 120};
    char *copy = exact_bytes(STR("10.0.0.0/8 fd00::/8,  ::1,192.0.2.0/24"));
    struct str rest = {copy, 38};
    unsigned char address[16];
    unsigned bits = 0;

    for (size_t i = 0; i < COUNT(expected); i++)
        CHECK(host_next_network(&rest, address, &bits) && bits == expected[i]);
    CHECK(memcmp(address, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\0", 16) == 0);
    CHECK(!host_next_network(&rest, address, &bits) && rest.length == 0);
    free(copy);
    rest = (struct str){NULL, 0};
    CHECK(!host_next_network(&rest, address, &bits));
}

/* An index beyond the last entry begins again with the first. */
static void a_list_of_hosts_is_a_ring(void)
{
    static const struct {
        const char *list, *host;
        size_t index;
        uint64_t port;
    } rows[] = {
        {"a", "a", 0, 0},
        {"a", "a", 7, 0},
        {"a:1, b:2 [::1]:3,,::2", "a", 0, 1},
        {"a:1, b:2 [::1]:3,,::2", "b", 1, 2},
        {"a:1, b:2 [::1]:3,,::2", "::1", 2, 3},
        {"a:1, b:2 [::1]:3,,::2", "::2", 3, 0},
        {"a:1, b:2 [::1]:3,,::2", "a", 4, 1},
        {"a:1, b:2 [::1]:3,,::2", "b", 4000001, 2},
    };
    struct str host = {0};
    uint64_t port = 1;

    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK(host_of_list(str_from(rows[i].list), rows[i].index, &host, &port) &&
              str_equal(host, str_from(rows[i].host)) && port == rows[i].port);
    CHECK(!host_of_list(STR(""), 0, &host, &port) && !host_of_list(STR(" , "), 3, &host, &port));
    CHECK(!host_of_list((struct str){0}, 0, &host, &port));
    CHECK(!host_of_list(STR("a b:x"), 1, &host, &port));
}

int main(void)
{
    test_run("a_list_of_hosts_is_a_ring", a_list_of_hosts_is_a_ring);
    test_run("entries_are_origins", entries_are_origins);
    test_run("lists_allow_origins", lists_allow_origins);
    test_run("every_part_of_an_origin_is_read_safely", every_part_of_an_origin_is_read_safely);
    test_run("networks_are_addresses_and_bits", networks_are_addresses_and_bits);
    test_run("networks_come_in_turn", networks_come_in_turn);
    return test_finish();
}

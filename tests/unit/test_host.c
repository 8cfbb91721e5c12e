/* test_host.c - tests which origins a list may have, and which pages it lets in. */
#include "host.h"
#include "test.h"

static bool is_good(const char *entry)
{
    struct str copy = exact_copy(str_from(entry));
    bool good = host_origin_is_good(copy);

    free_copy(copy);
    return good;
}

static void entries_are_origins(void)
{
    static const char *const good[] = {"*",
                                       "null",
                                       "NULL",
                                       "https://shop.example",
                                       "HTTPS://Shop.Example",
                                       "https://shop.example:443",
                                       "https://shop.example:8443",
                                       "https://shop.example:8443/",
                                       "https://shop.example/",
                                       "https://*.example",
                                       "https://*.shop.example:8443/",
                                       "http://localhost:5173",
                                       "http://10.0.0.1",
                                       "http://[::1]:8080",
                                       "http://[fd00::1]",
                                       "chrome-extension://abcdefghijklmnop",
                                       "capacitor://localhost",
                                       "https://xn--bcher-kva.example",
                                       "https://a_b.example"};
    static const char *const bad[] = {"",
                                      "shop.example",
                                      "shop.example:443",
                                      "//shop.example",
                                      "://shop.example",
                                      "https:shop.example",
                                      "https:/shop.example",
                                      "https//shop.example",
                                      "https://",
                                      "https:///",
                                      "https:////",
                                      "https://shop.example//",
                                      "https://shop.example/path",
                                      "https://shop.example/?",
                                      "https://shop.example?x",
                                      "https://shop.example#x",
                                      "https://user@shop.example",
                                      "https://shop.example:",
                                      "https://shop.example:0",
                                      "https://shop.example:65536",
                                      "https://shop.example:x",
                                      "https://shop.example:80:80",
                                      "https://*",
                                      "https://*.",
                                      "https://*shop.example",
                                      "https://shop.*.example",
                                      "https://*.*.example",
                                      "*.example",
                                      "*://shop.example",
                                      "**",
                                      "http://[::1",
                                      "http://[]",
                                      "http://[::1]x",
                                      "http://[::1]:",
                                      "http://*.[::1]",
                                      "http://::1",
                                      "ws://shop.example",
                                      "WSS://shop.example",
                                      "https://b\xc3\xbc"
                                      "cher.example",
                                      "https://shop.example\t",
                                      "\"https://shop.example\""};

    for (size_t i = 0; i < COUNT(good); i++)
        if (!CHECK(is_good(good[i])))
            printf("  %s\n", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (!CHECK(!is_good(bad[i])))
            printf("  %s\n", bad[i]);
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

int main(void)
{
    test_run("entries_are_origins", entries_are_origins);
    test_run("lists_allow_origins", lists_allow_origins);
    test_run("every_part_of_an_origin_is_read_safely", every_part_of_an_origin_is_read_safely);
    return test_finish();
}

/* origin.c - the origins of pages (RFC 6454), and lists of those that are allowed. */
#include "origin.h"

#include <string.h>

/* Views of the parts of an origin, its port filled in. */
struct origin {
    struct str scheme, host;
    uint64_t port;   /* 0: none was given, and the scheme has no known default */
    bool subdomains; /* of an entry: "*." stands before the host */
};

/* True if there are bytes, and all of them are ASCII letters, digits or one of `others`. */
static bool origin_is_made_of(struct str text, const char *others)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              memchr(others, c, strlen(others))))
            return false;
    }
    return text.length > 0;
}

/* Reads "scheme://host[:port]"; one slash may end it. */
static bool origin_read(struct str text, struct origin *origin)
{
    struct str rest = text, host;
    bool brackets;

    *origin = (struct origin){.scheme = str_cut(&rest, ':')};
    if (rest.length < 3 || memcmp(rest.at, "//", 2) != 0)
        return false;
    rest = (struct str){rest.at + 2, rest.length - 2};
    if (rest.at[rest.length - 1] == '/')
        rest.length--;
    origin->subdomains = rest.length > 2 && memcmp(rest.at, "*.", 2) == 0;
    if (origin->subdomains)
        rest = (struct str){rest.at + 2, rest.length - 2};
    brackets = rest.length && *rest.at == '[';
    origin->host = host = str_cut(&rest, brackets ? ']' : ':');
    if (brackets) {
        if (origin->subdomains)
            return false;
        host = (struct str){host.at + 1, host.length - 1};
        origin->host.length++;
        if (!rest.at || (rest.length && *rest.at != ':')) /* what is behind the bracket */
            return false;
        rest = rest.length ? (struct str){rest.at + 1, rest.length - 1} : (struct str){0};
    }
    if (str_equal_nocase(origin->scheme, STR("http")))
        origin->port = 80;
    else if (str_equal_nocase(origin->scheme, STR("https")))
        origin->port = 443;
    return origin_is_made_of(origin->scheme, "+-.") &&
           origin_is_made_of(host, brackets ? ":." : "-._") &&
           (!rest.at || (str_number(rest, 65535, &origin->port) && origin->port));
}

bool origin_is_good(struct str entry)
{
    struct origin origin;

    if (str_equal(entry, STR("*")) || str_equal_nocase(entry, STR("null")))
        return true;
    /* a page that opens wss:// has itself come by https:// */
    return origin_read(entry, &origin) && !str_equal_nocase(origin.scheme, STR("ws")) &&
           !str_equal_nocase(origin.scheme, STR("wss"));
}

static bool origin_matches(const struct origin *allowed, const struct origin *origin)
{
    struct str host = origin->host;

    if (allowed->subdomains) {
        if (host.length <= allowed->host.length + 1)
            return false;
        host = (struct str){host.at + host.length - allowed->host.length, allowed->host.length};
        if (host.at[-1] != '.')
            return false;
    }
    return !origin->subdomains && str_equal_nocase(allowed->host, host) &&
           str_equal_nocase(allowed->scheme, origin->scheme) && allowed->port == origin->port;
}

bool origin_is_allowed(struct str list, struct str origin)
{
    struct str rest = list, entry;
    struct origin allowed, asked;
    bool known = origin_read(origin, &asked);

    if (list.length == 0)
        return true;
    while ((entry = str_entry(&rest)).length)
        if (str_equal(entry, STR("*")) ||
            (str_equal_nocase(entry, STR("null")) && str_equal(origin, STR("null"))) ||
            (known && origin_read(entry, &allowed) && origin_matches(&allowed, &asked)))
            return true;
    return false;
}

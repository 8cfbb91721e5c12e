/* host.c - hosts as text: addresses, names, HOST:PORT, networks, origins of pages.
 *
 * Pure functions of bytes that do not end in a NUL; nothing is allocated. inet_pton reads addresses
 * from a bounded copy. Networks are IPv6: IPv4 ones are mapped (::ffff:0:0/96), so that one
 * comparison serves both. An origin is read into views of its parts, then compared part by part:
 * RFC 6454, section 5, except that "*." in an allowed one stands for all subdomains. */
#include "host.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* True if there are bytes, and all of them are ASCII letters, digits or one of `others`. */
static bool host_is_made_of(struct str text, const char *others)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              memchr(others, c, strlen(others))))
            return false;
    }
    return text.length > 0;
}

/* RFC 1123, section 2.1, and '_', which names of containers have. A last label of digits alone, or
 * one that begins with 0x, would make it a mistyped address, or one that only some programs read.
 */
static bool host_is_name(struct str name)
{
    struct str rest = name, label = {0};

    while (rest.at) {
        label = str_cut(&rest, '.');
        if (!host_is_made_of(label, "-_") || label.length > 63 || label.at[0] == '-' ||
            label.at[label.length - 1] == '-')
            return false;
    }
    if (label.length > 1 && label.at[0] == '0' && (label.at[1] | 0x20) == 'x')
        return false;
    for (size_t i = 0; i < label.length; i++)
        if (label.at[i] < '0' || label.at[i] > '9')
            return true;
    return false;
}

static bool host_has(struct str text, char c)
{
    return text.length && memchr(text.at, c, text.length);
}

/* Copies a host that is short enough to be an address, for inet_pton. */
static bool host_copy(struct str host, char text[INET6_ADDRSTRLEN])
{
    if (host.length == 0 || host.length >= INET6_ADDRSTRLEN || host_has(host, '\0'))
        return false;
    memcpy(text, host.at, host.length);
    text[host.length] = '\0';
    return true;
}

static bool host_is_ipv6(struct str host)
{
    unsigned char address[16];
    char text[INET6_ADDRSTRLEN];

    return host_copy(host, text) && inet_pton(AF_INET6, text, address) == 1;
}

bool host_is_reachable(struct str host)
{
    static const unsigned char any[16] = {0};
    unsigned char address[16];
    char text[INET6_ADDRSTRLEN];
    bool is_short = host_copy(host, text);

    if (is_short && inet_pton(AF_INET, text, address) == 1)
        return address[0] != 0 && address[0] < 224;
    if (is_short && inet_pton(AF_INET6, text, address) == 1)
        return address[0] != 0xff && memcmp(address, any, sizeof any) != 0;
    return host.length > 0 && host_is_name(host);
}

bool host_split(struct str text, struct str *host, uint64_t *port)
{
    struct str rest = text;
    bool has_port = true;

    *port = 0;
    if (text.length && text.at[0] == '[') {
        rest = str_skip(text, 1);
        *host = str_cut(&rest, ']');
        if (!rest.at || !host_has(*host, ':') || (rest.length && rest.at[0] != ':'))
            return false;
        has_port = rest.length > 0;
        rest = str_skip(rest, has_port);
    } else {
        *host = str_cut(&rest, ':');
        if (host_has(rest, ':')) {
            *host = text;
            return host_is_ipv6(text);
        }
        has_port = rest.at != NULL;
    }
    return host->length && !host_has(*host, '[') && !host_has(*host, ']') &&
           (!has_port || (str_number(rest, 65535, port) && *port > 0));
}

size_t host_list_length(struct str list)
{
    size_t count = 0;

    while (str_entry(&list).length)
        count++;
    return count;
}

bool host_of_list(struct str list, size_t index, struct str *host, uint64_t *port)
{
    size_t count = host_list_length(list);
    struct str entry = {0};

    if (!count)
        return false;
    for (index = index % count + 1; index; index--)
        entry = str_entry(&list);
    return host_split(entry, host, port);
}

bool host_next_network(struct str *rest, unsigned char address[16], unsigned *bits)
{
    struct str after = *rest, entry = str_entry(&after), length = entry;
    struct str host = str_cut(&length, '/');
    bool ipv6 = host_has(host, ':');
    uint64_t number = ipv6 ? 128 : 32;
    char text[INET6_ADDRSTRLEN];

    *rest = (struct str){entry.at, entry.length + after.length};
    if (!host_copy(host, text))
        return false;
    memcpy(address, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    if (inet_pton(ipv6 ? AF_INET6 : AF_INET, text, ipv6 ? address : address + 12) != 1 ||
        (length.at && !str_number(length, number, &number)))
        return false;
    *bits = (unsigned)number + (ipv6 ? 0 : 96);
    *rest = after;
    return true;
}

/* --- origins (RFC 6454) ---------------------------------------------------------------------- */

/* Views of its parts, the port filled in. */
struct origin {
    struct str scheme, host;
    uint64_t port;   /* 0: none given, and the scheme has no default */
    bool subdomains; /* of an entry: "*." stands before the host */
};

/* Reads "scheme://host[:port]"; one slash may end it. */
static bool host_read_origin(struct str text, struct origin *origin)
{
    struct str rest = text, host;
    bool brackets;

    *origin = (struct origin){.scheme = str_cut(&rest, ':')};
    if (rest.length < 3 || memcmp(rest.at, "//", 2) != 0)
        return false;
    rest = str_skip(rest, 2);
    if (rest.at[rest.length - 1] == '/')
        rest.length--;
    origin->subdomains = rest.length > 2 && memcmp(rest.at, "*.", 2) == 0;
    if (origin->subdomains)
        rest = str_skip(rest, 2);
    brackets = rest.length && *rest.at == '[';
    origin->host = host = str_cut(&rest, brackets ? ']' : ':');
    if (brackets) {
        host = str_skip(host, 1);
        origin->host.length++;
        if (origin->subdomains || !rest.at || (rest.length && *rest.at != ':'))
            return false;
        rest = rest.length ? str_skip(rest, 1) : (struct str){0};
    }
    if (str_equal_nocase(origin->scheme, STR("http")))
        origin->port = 80;
    else if (str_equal_nocase(origin->scheme, STR("https")))
        origin->port = 443;
    return host_is_made_of(origin->scheme, "+-.") &&
           host_is_made_of(host, brackets ? ":." : "-._") &&
           (!rest.at || (str_number(rest, 65535, &origin->port) && origin->port));
}

bool host_origin_is_good(struct str entry)
{
    struct origin origin;

    if (str_equal(entry, STR("*")) || str_equal_nocase(entry, STR("null")))
        return true;
    return host_read_origin(entry, &origin) && !str_equal_nocase(origin.scheme, STR("ws")) &&
           !str_equal_nocase(origin.scheme, STR("wss"));
}

static bool host_origin_matches(const struct origin *allowed, const struct origin *origin)
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

bool host_origin_is_allowed(struct str list, struct str origin)
{
    struct str rest = list, entry;
    struct origin allowed, asked;
    bool known = host_read_origin(origin, &asked);

    if (list.length == 0)
        return true;
    while ((entry = str_entry(&rest)).length)
        if (str_equal(entry, STR("*")) ||
            (str_equal_nocase(entry, STR("null")) && str_equal(origin, STR("null"))) ||
            (known && host_read_origin(entry, &allowed) && host_origin_matches(&allowed, &asked)))
            return true;
    return false;
}

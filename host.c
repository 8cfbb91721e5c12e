/* host.c - hosts as text. */
#include "host.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* RFC 1123, 2.1, and the underscore that containers' names have. A last label of digits alone would
 * make it an address with a mistake. */
static bool host_is_name(struct str name)
{
    struct str rest = name;
    bool good = true, number = false;

    while (good && rest.at) {
        struct str label = str_cut(&rest, '.');

        number = true;
        good = label.length > 0 && label.length <= 63 && label.at[0] != '-' &&
               label.at[label.length - 1] != '-';
        for (size_t i = 0; i < label.length && good; i++) {
            char c = label.at[i];
            bool digit = c >= '0' && c <= '9';

            number = number && digit;
            good =
                digit || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
        }
    }
    return good && !number;
}

static bool host_has(struct str text, char c)
{
    return text.length && memchr(text.at, c, text.length);
}

/* Copies a host, for inet_pton. */
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
        rest = (struct str){text.at + 1, text.length - 1};
        *host = str_cut(&rest, ']');
        if (!rest.at || !host_has(*host, ':') || (rest.length && rest.at[0] != ':'))
            return false;
        has_port = rest.length > 0;
        rest = (struct str){rest.at + has_port, rest.length - has_port};
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

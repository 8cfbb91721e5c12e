/* address.c - whose a connection is, and how many each address has. */
#include "address.h"

#include "conn.h"
#include "host.h"

#include <stdlib.h>
#include <string.h>

/* How many connections an address has. */
struct address_tally {
    unsigned char address[16];
    uint64_t connections;
};

/* --- trusted proxies -------------------------------------------------------------------------- */

bool addresses_open(struct addresses *addresses, const struct config *config, uint32_t seed)
{
    struct str rest = str_from(config->trusted_proxies);
    struct address_network network;
    size_t room = 1 + rest.length / 2; /* an entry and its separator have two bytes at least */

    *addresses = (struct addresses){.config = config, .seed = seed};
    addresses->proxies = malloc(room * sizeof *addresses->proxies);
    if (!addresses->proxies)
        return false;
    while (host_next_network(&rest, network.address, &network.bits))
        addresses->proxies[addresses->proxy_count++] = network;
    return true;
}

void addresses_close(struct addresses *addresses)
{
    addresses_forget(addresses);
    free(addresses->proxies);
    *addresses = (struct addresses){0};
}

static bool address_is_within(const struct address_network *network,
                              const unsigned char address[16])
{
    unsigned bytes = network->bits / 8, left = 8 - network->bits % 8;

    return memcmp(network->address, address, bytes) == 0 &&
           (bytes == 16 || network->address[bytes] >> left == address[bytes] >> left);
}

bool address_is_trusted(const struct addresses *addresses, const unsigned char address[16])
{
    static const unsigned char none[16];

    if (memcmp(address, none, sizeof none) == 0)
        return true;
    for (size_t i = 0; i < addresses->proxy_count; i++)
        if (address_is_within(&addresses->proxies[i], address))
            return true;
    return false;
}

/* --- X-Forwarded-For -------------------------------------------------------------------------- */

/* Takes the port off an address: 192.0.2.1:80, [2001:db8::1]:80. False: it has something else. */
static bool address_cut_port(struct str *entry)
{
    const char *end = NULL;
    struct str port;
    uint64_t number;

    if (entry->length && entry->at[0] == '[') {
        end = memchr(entry->at, ']', entry->length);
        if (!end)
            return false;
        port = (struct str){end + 1, entry->length - (size_t)(end + 1 - entry->at)};
        *entry = (struct str){entry->at + 1, (size_t)(end - entry->at) - 1};
        return port.length == 0 ||
               (port.at[0] == ':' &&
                str_number((struct str){port.at + 1, port.length - 1}, 65535, &number));
    }
    port = *entry;
    str_cut(&port, ':');
    if (!port.at || memchr(port.at, ':', port.length))
        return true; /* there is none, or it is IPv6 */
    *entry = (struct str){entry->at, (size_t)(port.at - entry->at) - 1};
    return str_number(port, 65535, &number);
}

static bool address_parse(struct str entry, unsigned char address[16])
{
    unsigned bits;

    return address_cut_port(&entry) && !memchr(entry.at, '/', entry.length) &&
           host_next_network(&entry, address, &bits) && entry.length == 0;
}

/* Cuts the last entry off a list; separators alone are none. */
static struct str address_cut_last(struct str *list)
{
    size_t begin = list->length;
    struct str entry;

    while (begin && list->at[begin - 1] != ',')
        begin--;
    entry = (struct str){list->at + begin, list->length - begin};
    list->length = begin ? begin - 1 : 0;
    return str_trim(entry);
}

/* Goes through the list of one field. False: the walk is over. */
static bool address_walk(const struct addresses *addresses, struct str list,
                         unsigned char address[16])
{
    unsigned char found[16];

    while (list.length) {
        struct str entry = address_cut_last(&list);

        if (!entry.length)
            continue;
        if (!address_is_trusted(addresses, address) || !address_parse(entry, found))
            return false;
        memcpy(address, found, sizeof found);
    }
    return true;
}

void address_find(const struct addresses *addresses, const struct http_request *request,
                  unsigned char address[16])
{
    for (size_t i = request->header_count; i-- > 0;)
        if (str_equal_nocase(request->headers[i].name, STR("X-Forwarded-For")) &&
            !address_walk(addresses, request->headers[i].value, address))
            return;
}

/* --- connections of one address --------------------------------------------------------------- */

static uint32_t address_hash(const struct addresses *addresses, const unsigned char address[16])
{
    return str_hash(conn_owner(address), addresses->seed);
}

static struct address_tally *address_find_tally(const struct addresses *addresses,
                                                const unsigned char address[16])
{
    struct table_cursor cursor = {.hash = address_hash(addresses, address)};
    struct address_tally *tally;

    while ((tally = table_next(&addresses->counts, &cursor)))
        if (str_equal(conn_owner(tally->address), conn_owner(address)))
            return tally;
    return NULL;
}

bool address_count(struct addresses *addresses, const unsigned char address[16])
{
    struct address_tally *tally;

    if (!addresses->config->max_per_ip)
        return true;
    tally = address_find_tally(addresses, address);
    if (!tally) {
        tally = calloc(1, sizeof *tally);
        if (!tally)
            return true;
        memcpy(tally->address, address, 16);
        if (!table_add(&addresses->counts, address_hash(addresses, address), tally)) {
            free(tally);
            return true;
        }
    }
    return ++tally->connections <= addresses->config->max_per_ip;
}

void address_uncount(struct addresses *addresses, const unsigned char address[16])
{
    struct address_tally *tally = address_find_tally(addresses, address);

    if (!tally || --tally->connections)
        return;
    table_remove(&addresses->counts, address_hash(addresses, address), tally);
    free(tally);
}

void addresses_forget(struct addresses *addresses)
{
    struct address_tally *tally;
    size_t place = 0;

    while ((tally = table_walk(&addresses->counts, &place)))
        free(tally);
    table_free(&addresses->counts);
}

/* address.h - whose a connection is: the peer's, or the client's that a trusted proxy names in
 * X-Forwarded-For; and how many connections each of them has.
 * Refuses: to believe the header of anybody else, and what is no address in it. */
#ifndef WSPUSH_ADDRESS_H
#define WSPUSH_ADDRESS_H

#include "config.h"
#include "http.h"
#include "table.h"

struct address_network {
    unsigned char address[16];
    unsigned bits; /* that count, from the first on */
};

struct addresses {
    const struct config *config;
    struct address_network *proxies; /* those of trusted_proxies */
    size_t proxy_count;
    struct table counts; /* of connections, by conn_owner of the address; used with max_per_ip */
    uint32_t seed;
};

/* Reads trusted_proxies. False: no memory. */
bool addresses_open(struct addresses *addresses, const struct config *config, uint32_t seed);

/* Frees everything; what is zeroed may be closed as well. */
void addresses_close(struct addresses *addresses);

/* True for an address of trusted_proxies, and for a peer without one (all zero), which has come
 * over the Unix-domain socket. */
bool address_is_trusted(const struct addresses *addresses, const unsigned char address[16]);

/* Replaces the address of a peer by that of the client whose request it passes on: goes through
 * X-Forwarded-For from its end, as long as the address found so far is a trusted proxy's. Several
 * fields are one list. What is no address ends the walk. */
void address_find(const struct addresses *addresses, const struct http_request *request,
                  unsigned char address[16]);

/* Counts a connection; false if its address has more than max_per_ip then. It is counted in any
 * case: address_uncount takes it off again. */
bool address_count(struct addresses *addresses, const unsigned char address[16]);

void address_uncount(struct addresses *addresses, const unsigned char address[16]);

/* Forgets all connections, which are then to be counted anew: max_per_ip has changed. */
void addresses_forget(struct addresses *addresses);

#endif

/* cluster_resolver.h - looks up host names: getaddrinfo may take minutes, so a thread of its own
 * waits for it. Refuses: to be waited for. A resolver is closed at once; its thread owns what it
 * uses, and ends when the system lets it. */
#ifndef WSPUSH_CLUSTER_RESOLVER_H
#define WSPUSH_CLUSTER_RESOLVER_H

#include "buf.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define RESOLVER_ADDRESSES_MAX 8

/* An address of IPv4 or IPv6, with a port. */
union resolver_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

/* Reads a numeric address, without brackets; false for a name. */
bool resolver_read(struct str host, union resolver_address *address);

void resolver_set_port(union resolver_address *address, unsigned port);

/* The size that connect() wants to be told. */
socklen_t resolver_size(const union resolver_address *address);

struct resolver;

/* What has been found for a host. */
struct resolver_result {
    struct resolver_result *next;
    const char *error; /* static; NULL: there is an address */
    size_t count;
    union resolver_address addresses[RESOLVER_ADDRESSES_MAX]; /* port 0 */
    char host[];
};

/* A byte is written to `wake` when there is a result. NULL without memory. */
struct resolver *resolver_open(int wake);

/* Asks for the addresses of a host, up to 255 bytes: a result follows. False without memory or
 * thread. The thread is started by the first question. */
bool resolver_ask(struct resolver *resolver, struct str host);

/* Takes the oldest result, to be freed; NULL if there is none. */
struct resolver_result *resolver_take(struct resolver *resolver);

/* Ends at once, also in the middle of a look-up: nothing is written to `wake` from now on. NULL is
 * allowed. */
void resolver_close(struct resolver *resolver);

#endif

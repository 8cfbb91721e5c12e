/* cluster_lookup.h - looks up host names: getaddrinfo may take minutes, so a thread of its own
 * waits for it. Refuses: to be waited for. A look-up is closed at once; its thread owns what it
 * uses, and ends when the system lets it. */
#ifndef WSPUSH_CLUSTER_LOOKUP_H
#define WSPUSH_CLUSTER_LOOKUP_H

#include "buf.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define LOOKUP_ADDRESSES_MAX 8

/* An address of IPv4 or IPv6, with a port. */
union lookup_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

/* Reads a numeric address, without brackets; false for a name. */
bool lookup_read(struct str host, union lookup_address *address);

void lookup_set_port(union lookup_address *address, unsigned port);

/* The size that connect() wants to be told. */
socklen_t lookup_size(const union lookup_address *address);

struct lookup;

/* What has been found for a host. */
struct lookup_result {
    struct lookup_result *next;
    const char *error; /* static; NULL: there is an address */
    size_t count;
    union lookup_address addresses[LOOKUP_ADDRESSES_MAX]; /* port 0 */
    char host[];
};

/* A byte is written to `wake` when there is a result. NULL without memory. */
struct lookup *lookup_open(int wake);

/* Asks for the addresses of a host, up to 255 bytes: a result follows. False without memory or
 * thread. The thread is started by the first question. */
bool lookup_ask(struct lookup *lookup, struct str host);

/* Takes the oldest result, to be freed; NULL if there is none. */
struct lookup_result *lookup_take(struct lookup *lookup);

/* Ends at once, also in the middle of a look-up: nothing is written to `wake` from now on. NULL is
 * allowed. */
void lookup_close(struct lookup *lookup);

/* --- for a thread that waits ------------------------------------------------------------------ */

#define RESOLVER_TEXT_MAX 64 /* an IPv6 address with its zone, and a NUL */
#define RESOLVER_ADDRESSES_MAX 8

/* One name that is looked up again and again. Zeroed is valid. */
struct resolver {
    struct lookup *lookup;
    int pipe[2];
    bool asked; /* a look-up has not been answered */
};

/* The addresses of a name, as numbers, in the order in which to try them. */
struct resolver_result {
    size_t count;
    char addresses[RESOLVER_ADDRESSES_MAX][RESOLVER_TEXT_MAX];
    const char *error; /* count 0: why. Static text */
};

/* Looks up `host`, the same at each call, and waits up to `limit` milliseconds. An address needs no
 * look-up. A look-up that ends after its call has given up answers the next call. */
void resolver_find(struct resolver *resolver, const char *host, int64_t limit,
                   struct resolver_result *result);

/* Ends at once; a look-up that hangs frees itself. */
void resolver_close(struct resolver *resolver);

#endif

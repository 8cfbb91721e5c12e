/* cluster_lookup.h - host names to addresses, with a limit on waiting: getaddrinfo may take minutes
 * and cannot be interrupted, so a thread of its own calls it. Closing never waits: the thread owns
 * what it uses and ends when getaddrinfo returns.
 * Rejects: a second look-up of a resolver beside one that hangs; the next call waits for that. */
#ifndef WSPUSH_CLUSTER_LOOKUP_H
#define WSPUSH_CLUSTER_LOOKUP_H

#include "buf.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define LOOKUP_ADDRESSES_MAX 8

/* An IPv4 or IPv6 address with a port. */
union lookup_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

/* Reads a numeric address, without brackets. False for a name. */
bool lookup_read(struct str host, union lookup_address *address);

void lookup_set_port(union lookup_address *address, unsigned port);

/* The length that connect() expects. */
socklen_t lookup_size(const union lookup_address *address);

struct lookup;

/* The result of a look-up. */
struct lookup_result {
    struct fifo_link fifo;
    const char *error; /* static; NULL: there is at least one address */
    size_t count;
    union lookup_address addresses[LOOKUP_ADDRESSES_MAX]; /* port 0 */
    char host[];
};

/* A byte is written to `wake` when there is a result. NULL without memory. */
struct lookup *lookup_open(int wake);

/* Asks for the addresses of a host of up to 255 bytes; a result follows. False without memory or
 * thread: the first call starts the thread. */
bool lookup_ask(struct lookup *lookup, struct str host);

/* Takes the oldest result, which the caller frees; NULL if there is none. */
struct lookup_result *lookup_take(struct lookup *lookup);

/* Returns at once, also during a look-up; `wake` is not written to any more. NULL is allowed. */
void lookup_close(struct lookup *lookup);

/* --- for a thread that waits ------------------------------------------------------------------ */

#define RESOLVER_TEXT_MAX 64 /* an IPv6 address with zone, and NUL */
#define RESOLVER_ADDRESSES_MAX 8

/* Names that are looked up one after the other, by a thread that may wait. Zeroed is valid. */
struct resolver {
    struct lookup *lookup;
    int pipe[2];
    bool asked; /* a look-up is unanswered */
};

/* Numeric addresses of a name, in the order in which to try them. */
struct resolver_result {
    size_t count;
    char addresses[RESOLVER_ADDRESSES_MAX][RESOLVER_TEXT_MAX];
    const char *error; /* static: why count is 0 */
};

/* Looks up `host` for at most `limit` milliseconds. A numeric address needs no look-up. A look-up
 * that outlives its call answers the next one, if that is for the same host; else it is waited for
 * first. */
void resolver_find(struct resolver *resolver, const char *host, int64_t limit,
                   struct resolver_result *result);

/* Returns at once; a look-up that hangs frees itself. */
void resolver_close(struct resolver *resolver);

#endif

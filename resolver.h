/* resolver.h - looks names up, for threads that may wait, but no longer than they say:
 * getaddrinfo has no limit of its own, and waits half a minute for name servers that are silent.
 * Refuses: a second look-up beside one that still hangs. The next call waits for that one. */
#ifndef WSPUSH_RESOLVER_H
#define WSPUSH_RESOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESOLVER_TEXT_MAX 64 /* an IPv6 address with its zone, and a NUL */
#define RESOLVER_ADDRESSES_MAX 8

struct lookup;

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

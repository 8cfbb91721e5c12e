/* dial.h - a TCP connection to a host, for a thread that may wait. */
#ifndef WSPUSH_DIAL_H
#define WSPUSH_DIAL_H

#include "buf.h"

#include <stdatomic.h>

#define DIAL_TIME 2 /* seconds for each address */

struct dial_result {
    bool unknown;      /* the name has no address */
    const char *error; /* what failed; valid until the next strerror or gai_strerror */
};

/* Looks the host up, which takes any time, and connects to the first of its addresses that accepts.
 * Gives up before the next address once *stop is set. Returns a socket that does not block, or -1:
 * *result says why. */
int dial_tcp(const char *host, unsigned port, const atomic_bool *stop, struct dial_result *result);

/* Keeps dead peers from going unnoticed, and small writes from waiting; closes on exec. */
void dial_set_options(int fd);

#endif

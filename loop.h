/* loop.h - the event loop: one thread that polls, accepts connections, lets sessions work, flushes
 * and reaps them.
 * Rejects: connections beyond the limits, with a response as long as there are few of them. */
#ifndef WSPUSH_LOOP_H
#define WSPUSH_LOOP_H

#include "poller.h"
#include "session.h"
#include "tls.h"

#include <signal.h>

#define LOOP_DRAIN_GRACE 2000 /* milliseconds for the last clients to close, after `drain` */

struct loop;

/* What a loop works with. All parts are open, and outlive the loop. */
struct loop_options {
    struct session_context *context; /* the loop keeps the times and the state of stopping */
    struct conn_shared *shared;
    struct pollers *pollers;      /* which write to the wake pipe, as the other threads do */
    struct tls_context *tls;      /* NULL: connections are plain; owned by the loop from now on */
    int wake;                     /* the reading end of the wake pipe */
    volatile sig_atomic_t *stops; /* counts requests to stop: one drains, two end at once */
    volatile sig_atomic_t *calls; /* counts requests for which loop_run returns */
};

/* The descriptors that a loop needs for this many connections: theirs, those of a few beyond the
 * limits that get a response, the admin listener's, and the wake pipes of the pollers. */
uint64_t loop_descriptors(uint64_t connections);

/* Opens a loop. NULL without memory: then the caller still owns `tls`. */
struct loop *loop_open(const struct loop_options *options);

/* Serves. True: `calls` has grown, so the caller does what is wanted and calls again. False: the
 * loop was asked to stop and has drained, or the node can never serve (see cluster_fatal_error). */
bool loop_run(struct loop *loop);

/* Call when live keys of the configuration, or the listener's max_connections, have changed. Uses
 * `tls`, which the loop owns from now on, for connections to come; NULL leaves them as they are. */
void loop_reload(struct loop *loop, struct tls_context *tls);

/* Closes all sessions. The pollers must be closed before, the hub after. */
void loop_close(struct loop *loop);

#endif

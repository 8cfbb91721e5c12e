/* rabbit.h - one connection to RabbitMQ, and a node's exchanges and queues. The only user of
 * rabbitmq-c.
 *
 * Topology, below a name that ends in the layout's version (EXCHANGE.1):
 *   NAME.order.N  for each partition a fanout exchange and a queue without consumer, with TTL 0:
 *                 RabbitMQ moves what comes to the exchange NAME at once, in order
 *   NAME          a direct exchange
 *   NAME.NODE     the node's queue, bound to NAME under "@NODE" and under slots in decimal
 * With [rabbitmq] queue_type = quorum all queues are replicated, NAME ends in a "q", and
 *   NAME.unrouted takes and drops what NAME has no queue for.
 * Rejects: content of more than RABBIT_CONTENT_MAX bytes: it is skipped. */
#ifndef WSPUSH_RABBIT_H
#define WSPUSH_RABBIT_H

#include "config.h"

/* Raise it when the arguments of a queue or the type of an exchange change: RabbitMQ refuses to
 * declare a queue with other arguments, so nodes of two layouts need two names. */
#define RABBIT_LAYOUT "1"

#define RABBIT_CONTENT_MAX (16 * 1024 * 1024 + 65536)
#define RABBIT_KEYS_MAX 64 /* receivers of a publication, beside its own node */
/* Deliveries without acknowledgement. What a frozen node has in its socket outlives RabbitMQ; the
 * bytes have a limit of their own. */
#define RABBIT_PREFETCH 4096
#define RABBIT_QUEUE_BYTES (64 * 1024 * 1024) /* waiting in the node's queue */

struct rabbit;

struct rabbit_options {
    const struct config *config; /* the part that is used is copied */
    struct str node;             /* text of the node that owns the queue; copied */
    unsigned partitions;
    size_t headroom; /* bytes that DELIVERED and RETURNED leave free before the content */
};

enum rabbit_event_kind {
    RABBIT_NOTHING,   /* nothing more has come yet */
    RABBIT_LOST,      /* give the connection up: see rabbit_error */
    RABBIT_DELIVERED, /* content from the node's queue; the n-th such event has delivery tag n */
    RABBIT_RETURNED,  /* content that no order queue took */
    RABBIT_BOUND      /* the oldest unanswered rabbit_bind is done */
};

struct rabbit_event {
    enum rabbit_event_kind kind;
    char *memory;  /* headroom and content, which the caller frees; NULL: it was too large */
    size_t length; /* of the content */
};

/* NULL without memory. */
struct rabbit *rabbit_open(const struct rabbit_options *options);

/* Connects, declares everything, and consumes the node's queue. Takes up to some seconds; the name
 * look-up takes any time. *kept: the queue is that of the last connection, with its bindings.
 * False: see rabbit_error. */
bool rabbit_connect(struct rabbit *rabbit, bool *kept);

/* Makes rabbit_connect give up before its next step. For another thread. */
void rabbit_stop(struct rabbit *rabbit);

/* Declares the exchange and the queue of a partition, and binds them. */
bool rabbit_declare_order(struct rabbit *rabbit, unsigned partition);

/* Sets rabbit_error: what happened, and the remedy. Always false. */
bool rabbit_fail(struct rabbit *rabbit, const char *what, const char *remedy);

/* Why the last call failed, and the remedy; names host and port. */
const char *rabbit_error(const struct rabbit *rabbit);

bool rabbit_connected(const struct rabbit *rabbit);

/* The descriptor to poll for input, and for output while something waits. */
int rabbit_fd(const struct rabbit *rabbit);

/* True if rabbit_next may have something without new input. */
bool rabbit_has_input(const struct rabbit *rabbit);

/* The next event; never waits. */
struct rabbit_event rabbit_next(struct rabbit *rabbit);

/* True if something can be sent without waiting. Ask before each call below. */
bool rabbit_writable(const struct rabbit *rabbit);

/* Publishes `content` through a partition, to the queues bound under `keys` and, with `own`, to the
 * node's own; without `own` one of `keys` must lead there. RETURNED follows unless an order queue
 * takes it. `content` must stay until rabbit_publish_rest has sent all of it; nothing else can be
 * published before. */
bool rabbit_publish(struct rabbit *rabbit, unsigned partition, bool own, const struct str *keys,
                    size_t count, struct str content);

/* True if the last publication is not sent to its end. */
bool rabbit_publishing(const struct rabbit *rabbit);

/* Sends more of it, without waiting. */
bool rabbit_publish_rest(struct rabbit *rabbit);

/* Binds the node's queue to a slot, or unbinds it; BOUND follows. */
bool rabbit_bind(struct rabbit *rabbit, uint16_t slot, bool bound);

/* Acknowledges the first `count` deliveries of this connection. */
bool rabbit_acknowledge(struct rabbit *rabbit, uint64_t count);

void rabbit_disconnect(struct rabbit *rabbit);

/* Deletes the node's queue and closes the connection; waits for a second each at most. */
void rabbit_leave(struct rabbit *rabbit);

/* Disconnects and frees; NULL is allowed. */
void rabbit_free(struct rabbit *rabbit);

#endif

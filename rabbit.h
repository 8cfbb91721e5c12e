/* rabbit.h - one connection to RabbitMQ, and the exchanges and queues of a node. The only user of
 * rabbitmq-c.
 *
 * Topology, below a name that ends in the layout's version (EXCHANGE.1):
 *   NAME.order.N  a fanout exchange and a queue each, for partition N: no consumer, TTL 0, so that
 *                 RabbitMQ moves what comes on to the exchange NAME at once, in order
 *   NAME          a direct exchange
 *   NAME.NODE     the node's queue, bound to NAME under "@NODE" and under slots in decimal
 * Refuses: content of more than RABBIT_CONTENT_MAX bytes: it is skipped. */
#ifndef WSPUSH_RABBIT_H
#define WSPUSH_RABBIT_H

#include "config.h"

/* Raise it when the arguments of a queue or the kind of an exchange change: RabbitMQ refuses to
 * declare a queue with other arguments, so nodes of two layouts need two names. */
#define RABBIT_LAYOUT "1"

#define RABBIT_CONTENT_MAX (16 * 1024 * 1024 + 65536)
#define RABBIT_KEYS_MAX 64 /* receivers of one publication, beside its own node */
/* Deliveries that have not been acknowledged. What RabbitMQ has handed over to a node that stands
 * still survives RabbitMQ; the bytes are bounded apart from this. */
#define RABBIT_PREFETCH 4096
#define RABBIT_QUEUE_BYTES (64 * 1024 * 1024) /* that wait in the node's queue */

struct rabbit;

struct rabbit_options {
    const struct config *config; /* copied, as far as it is used */
    struct str node;             /* the text of the node that the queue is for; copied */
    unsigned partitions;
    size_t room; /* bytes that RABBIT_DELIVERED and RABBIT_RETURNED leave before the content */
};

enum rabbit_event_kind {
    RABBIT_NOTHING,   /* nothing more has come yet */
    RABBIT_LOST,      /* the connection is of no use any more: rabbit_error */
    RABBIT_DELIVERED, /* content from the node's queue; its number is the count of such events */
    RABBIT_RETURNED,  /* content that no order queue took */
    RABBIT_BOUND      /* the oldest unanswered rabbit_bind has been done */
};

struct rabbit_event {
    enum rabbit_event_kind kind;
    char *memory;  /* the caller's to free: the room, then the content; NULL: it was too large */
    size_t length; /* of the content */
};

/* NULL without memory. */
struct rabbit *rabbit_open(const struct rabbit_options *options);

/* Connects, declares everything, and consumes the node's queue. Takes up to some seconds; the name
 * look-up may take any time. *kept: the queue is the one of the last connection, with its bindings.
 * False: rabbit_error. */
bool rabbit_connect(struct rabbit *rabbit, bool *kept);

/* Makes rabbit_connect give up between two of its steps; for another thread. */
void rabbit_stop(struct rabbit *rabbit);

/* Declares the exchange and the queue of a partition again, and binds them. */
bool rabbit_declare_order(struct rabbit *rabbit, unsigned partition);

/* Says why the connection is given up: what happened, and what helps. Always false. */
bool rabbit_fail(struct rabbit *rabbit, const char *what, const char *remedy);

/* Why the last call failed; names host and port. */
const char *rabbit_error(const struct rabbit *rabbit);

bool rabbit_connected(const struct rabbit *rabbit);

/* The descriptor to poll for input, and for output if something is to be sent. */
int rabbit_fd(const struct rabbit *rabbit);

/* True if rabbit_next may have something though there is no input. */
bool rabbit_has_input(const struct rabbit *rabbit);

/* The next that has come; never waits. */
struct rabbit_event rabbit_next(struct rabbit *rabbit);

/* True if something can be sent without waiting. Ask before each of the calls below. */
bool rabbit_writable(const struct rabbit *rabbit);

/* Publishes `content` through a partition, to the queues bound under `keys` and with `own` to the
 * node's own, which without it must be among them; it is returned unless an order queue takes it.
 * Nothing else can be published until rabbit_publish_rest has sent it all; `content` must stay
 * until then. */
bool rabbit_publish(struct rabbit *rabbit, unsigned partition, bool own, const struct str *keys,
                    size_t count, struct str content);

/* True if there is more of the last publication to send. */
bool rabbit_publishing(const struct rabbit *rabbit);

/* Sends more of it, as far as that needs no waiting. */
bool rabbit_publish_rest(struct rabbit *rabbit);

/* Binds the node's queue to a slot, or unbinds it; RABBIT_BOUND follows. */
bool rabbit_bind(struct rabbit *rabbit, uint16_t slot, bool bound);

/* Acknowledges the first `count` deliveries of this connection. */
bool rabbit_acknowledge(struct rabbit *rabbit, uint64_t count);

void rabbit_disconnect(struct rabbit *rabbit);

/* Deletes the node's queue, and says good-bye: a second each at most. */
void rabbit_leave(struct rabbit *rabbit);

/* Disconnects and frees; NULL is allowed. */
void rabbit_free(struct rabbit *rabbit);

#endif

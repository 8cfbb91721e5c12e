/* cluster_bus.h - publications to all nodes that need them, through RabbitMQ (rabbit.h).
 *
 * Routing: a publication goes to a slot or to one node. A node's queue is bound to the slots with
 * members on it, and to the node's own key. A node's own publications go to that key too, unless it
 * has bound one of their slots: each comes back, and that echo is success. All publications of a
 * partition pass its order queue (no consumer, TTL 0, dead-letter exchange), so every node receives
 * them in one order. What waits for a partition leaves as one AMQP message, a batch.
 *
 * Thread: the bus's own thread does all waiting. It connects, with back-off and jitter after a
 * failure, declares, binds, and sends a probe through every partition; the bus is up once all
 * probes have come back. An idle partition gets a probe every 5 s, so what is missing there is
 * declared again before the next send.
 *
 * Lost connection: a publication of LANE_SEND that has not come back has FAILED ("unknown"). One of
 * LANE_NOTICE that is still missing when the probes of the next connection are back is published
 * again under its old seq.
 *
 * An echo means: routed to the queues of all nodes that had bound the slot. One node still misses
 * it
 *   - when RabbitMQ dies: what the node had not taken from its queue;
 *   - when the node takes no more than 64 MiB: the oldest. If the node's own are among them they
 *     FAIL, for a later one comes back first;
 *   - when the node is away for 2 * node_ttl and a minute: its whole queue.
 * Rejects: more than BUS_BYTES_MAX bytes waiting in a lane or in flight, messages longer than
 * BUS_MESSAGE_MAX, and sends while the bus is not up. */
#ifndef WSPUSH_CLUSTER_BUS_H
#define WSPUSH_CLUSTER_BUS_H

#include "cluster_stream.h"
#include "config.h"

#define BUS_BYTES_MAX (64 * 1024 * 1024)
#define BUS_MESSAGE_MAX (16 * 1024 * 1024) /* RabbitMQ's default limit, at least */

struct bus;

/* Options of bus_open; all is copied, but `wake` must stay open until bus_close. */
struct bus_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct str cluster;  /* the cluster's name: covered by the MACs */
    struct node_id self; /* names the node's queue */
    int wake;            /* a byte is written here when there is an event */
};

struct bus_publication {
    uint64_t id; /* LANE_SEND: in FAILED */
    enum wire_lane lane;
    unsigned partition;
    const struct node_id *to; /* the receiver; NULL: the nodes that have bound */
    uint16_t slot;            /* this slot */
    struct str text;          /* copied */
    int64_t deadline;         /* LANE_SEND, os_now_ms: not published later */
};

/* Starts the thread. NULL without memory or thread. */
struct bus *bus_open(const struct bus_options *options);

/* Publishes behind everything published before in its lane and partition; a notice also waits for
 * the partition's sends. Returns false if too much waits, without memory, or for a send while the
 * bus is not up: then nobody gets it. Else a send's batch comes back or FAILED follows; a notice's
 * batch comes back as long as the node lives. */
bool bus_publish(struct bus *bus, const struct bus_publication *publication);

/* Binds or unbinds a slot. BOUND follows once RabbitMQ has the binding, and again after each
 * reconnect; a call overtaken by a later one for its slot may stay unanswered. `version` must be
 * larger than in the last call for the slot; BOUND repeats it. */
void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound);

/* Takes all events as a list, oldest first; the caller frees each. */
struct bus_event *bus_take(struct bus *bus);

/* Call after a standstill of this process: CAUGHT_UP follows all that RabbitMQ has sent meanwhile.
 */
void bus_catch_up(struct bus *bus);

/* Call when `count` batches of bus_take are done: the bus may read as many more. */
void bus_acknowledge(struct bus *bus, uint64_t count);

void bus_read_stats(struct bus *bus, struct bus_stats *stats);

/* True if nothing waits or is in flight. */
bool bus_is_idle(struct bus *bus);

/* Ends the thread, deletes the node's queue and frees everything; NULL is allowed. Takes at most
 * 2 s: a thread that hangs in a name look-up frees everything when it returns. */
void bus_close(struct bus *bus);

#endif

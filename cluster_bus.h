/* cluster_bus.h - what goes to all nodes that need it, through RabbitMQ (rabbit.h).
 *
 * A publication goes under a slot or to a node. A node's queue is bound to the slots in which it
 * has members, and to the node's own key, under which each of its own publications goes too, unless
 * it has bound one of their slots: so each comes back, and that is success. On its way it passes
 * the order queue of its partition (no consumer, TTL 0, dead-letter exchange), so all nodes get
 * what is published in one partition in one order. What waits for one partition leaves together,
 * as one message of AMQP (a batch).
 *
 * A thread of its own does the waiting: it connects, and again after a failure with back-off and
 * jitter, declares, binds, and publishes a probe through every partition; the bus is up once all of
 * them have come back. While a partition is idle a probe goes through it every 5 s, so what is
 * missing there is found and made again before the next send. What of LANE_SEND has not come back
 * when the connection breaks has FAILED (unknown); what of LANE_NOTICE has not come back by the
 * time the probes of the next connection have, is published again with the numbers it had.
 *
 * What came back has been routed to the queues of all nodes that had bound its slot. It is still
 * lost, for one node each:
 *   - when RabbitMQ dies: what the node had not taken from its queue;
 *   - when the node does not take 64 MiB: the oldest of them. If the node's own are among them they
 *     fail, since one behind them comes back first;
 *   - when the node is away for twice its node_ttl and a minute: its queue.
 * Refuses: more than BUS_BYTES_MAX bytes that wait in a lane or are in flight, what does not fit a
 * message of BUS_MESSAGE_MAX, and sends while the bus is not up.
 */
#ifndef WSPUSH_CLUSTER_BUS_H
#define WSPUSH_CLUSTER_BUS_H

#include "cluster_stream.h"
#include "config.h"

#define BUS_BYTES_MAX (64 * 1024 * 1024)
#define BUS_MESSAGE_MAX (16 * 1024 * 1024) /* what RabbitMQ takes by default, at least */

struct bus;

/* What a bus is opened with; all is copied, but `wake` must stay open until bus_close. */
struct bus_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct str cluster;  /* the cluster's name, which the MACs cover */
    struct node_id self; /* names the node's queue */
    int wake;            /* written to when there is an event */
};

struct bus_publication {
    uint64_t id; /* LANE_SEND: told by FAILED */
    enum wire_lane lane;
    unsigned partition;
    const struct node_id *to; /* the node it is for; NULL: */
    uint16_t slot;            /* those that have bound this slot */
    struct str text;          /* copied */
    int64_t deadline;         /* LANE_SEND, milliseconds of the steady clock: not published later */
};

/* Starts the thread. NULL without memory or thread. */
struct bus *bus_open(const struct bus_options *options);

/* Publishes behind all of its lane and partition that was published before. A notice waits while
 * sends of its partition wait. False if too much waits, there is no memory, or, in LANE_SEND, the
 * bus is not up: then nobody will get it. Else, in LANE_SEND, either its batch comes back or FAILED
 * follows; in LANE_NOTICE its batch comes back as long as the node lives. */
bool bus_publish(struct bus *bus, const struct bus_publication *publication);

/* Binds a slot, or unbinds it. BOUND follows, once RabbitMQ has the binding, and after each
 * connection again; a call overtaken by a later one for its slot may have no answer. A higher
 * `version` than that of the last call for this slot tells the answers apart. */
void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound);

/* Takes all events as a list of struct bus_event; each is the caller's to free. */
struct bus_event *bus_take(struct bus *bus);

/* Call it after a standstill of this process: CAUGHT_UP follows what RabbitMQ has sent meanwhile.
 */
void bus_catch_up(struct bus *bus);

/* `count` batches that bus_take gave have been dealt with: as many more may come. */
void bus_acknowledge(struct bus *bus, uint64_t count);

void bus_read_stats(struct bus *bus, struct bus_stats *stats);

/* True if nothing waits to be published or to come back. */
bool bus_is_idle(struct bus *bus);

/* Ends the thread and frees everything; NULL is allowed. The node's queue goes too. Takes 2 s at
 * most: a thread that hangs longer, in a name look-up, frees everything when it returns. */
void bus_close(struct bus *bus);

#endif

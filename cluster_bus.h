/* cluster_bus.h - what goes to all nodes that need it, through RabbitMQ. The only user of
 * rabbitmq-c.
 *
 * A publication goes under a slot or to a node. A node's queue is bound to the slots in which it
 * has members, and to the node's own key, under which each of its own publications goes too: so
 * each comes back, and that is success. On its way it passes the order queue of its partition (no
 * consumer, TTL 0, dead-letter exchange), so all nodes get what is published in one partition in
 * one order. What waits for one partition leaves together, as one message of AMQP (a batch).
 *
 * A thread of its own does the waiting: it connects, and again after a failure with back-off and
 * jitter, declares, binds, and publishes a probe through every partition; the bus is up once all of
 * them have come back. What of LANE_SEND has not come back when the connection breaks has FAILED
 * (unknown); what of LANE_NOTICE has not come back by the time the probes of the next connection
 * have, is published again with the numbers it had.
 * Refuses: more than BUS_BYTES_MAX bytes that wait in a lane, and more than BUS_MESSAGE_MAX at
 * once.
 */
#ifndef WSPUSH_CLUSTER_BUS_H
#define WSPUSH_CLUSTER_BUS_H

#include "cluster_wire.h"
#include "config.h"
#include "mailbox.h"

#define BUS_BYTES_MAX (64 * 1024 * 1024)
#define BUS_MESSAGE_MAX (16 * 1024 * 1024) /* what RabbitMQ takes by default, at least */

struct bus;

/* What a bus is opened with; config and keys must outlive it. */
struct bus_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct str cluster;  /* the cluster's name, which the MACs cover; must outlive the bus */
    struct node_id self; /* names the node's queue */
    int wake;            /* written to when there is an event */
};

enum bus_event_kind {
    BUS_UP,     /* connected, all slots bound, a probe came back through each partition */
    BUS_DOWN,   /* not connected: `text` says why and what helps */
    BUS_SLOW,   /* the oldest publication has not come back for rpc_timeout: `text` says so */
    BUS_MOVING, /* it has, or has failed */
    BUS_BOUND,  /* `slot` is bound */
    BUS_FAILED, /* the publication `id` of batch.partition, not a notice, is not known to have
                   reached anybody: `text` says why */
    BUS_BATCH,  /* `batch` has come, its views valid as long as the event */
    BUS_NOTED /* `text` is for the log, at level warn: a queue was made again, strangers publish */
};

struct bus_event {
    struct mail mail;
    enum bus_event_kind kind;
    uint64_t id;
    uint16_t slot;
    uint32_t version; /* BOUND: of the bus_bind that asked for it */
    struct str text;
    struct wire_batch batch;
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

/* Publishes behind all of its lane and partition that was published before, and its lane behind
 * LANE_SEND. False if too much waits or there is no memory. Else, in LANE_SEND, either its batch
 * comes back or FAILED follows; in LANE_NOTICE its batch comes back as long as the node lives. */
bool bus_publish(struct bus *bus, const struct bus_publication *publication);

/* Binds a slot, or unbinds it. BOUND follows, once RabbitMQ has the binding. A higher `version`
 * than that of the last call for this slot tells the answers apart. */
void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound);

/* Takes all events as a list of struct bus_event; each is the caller's to free. */
struct bus_event *bus_take(struct bus *bus);

/* `count` batches that bus_take gave have been dealt with: as many more may come. */
void bus_acknowledge(struct bus *bus, uint64_t count);

/* Upper bounds in microseconds of all buckets of the histogram but the last. */
#define BUS_ECHO_BUCKETS 12
extern const uint32_t bus_echo_bounds[BUS_ECHO_BUCKETS - 1];

struct bus_stats {
    uint64_t published, returned; /* publications that came back; that no order queue took */
    uint64_t failed;              /* of LANE_SEND: all that FAILED */
    uint64_t strange;             /* batches dropped for their MAC or version */
    uint64_t notices_dropped;     /* refused by bus_publish */
    uint64_t notices_waiting;     /* that have not come back */
    uint64_t bytes_published;     /* of batches */
    uint64_t echoes[BUS_ECHO_BUCKETS], echo_sum; /* microseconds from publishing to coming back */
};

void bus_read_stats(struct bus *bus, struct bus_stats *stats);

/* True if nothing waits to be published or to come back. */
bool bus_is_idle(struct bus *bus);

/* Ends the thread, within a second or two, and frees everything; NULL is allowed. The node's queue
 * goes too. */
void bus_close(struct bus *bus);

#endif

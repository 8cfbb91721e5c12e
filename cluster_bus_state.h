/* cluster_bus_state.h - the bus's state and primitives: events, failures, wake-up. Only
 * cluster_bus.c, which stands above it, includes it. */
#ifndef WSPUSH_CLUSTER_BUS_STATE_H
#define WSPUSH_CLUSTER_BUS_STATE_H

#include "cluster_stream.h"
#include "rabbit.h"

/* The probes of a partition. A probe that may be lost is followed by another; `out`: none of them
 * has come back. */
struct bus_probe {
    bool due, out;
    uint64_t first_seq; /* of the first of them */
    int64_t at, at_us;  /* the first was published: `clock`, and os_now_us */
    int64_t last_at;    /* the last was published */
    int64_t echo_at;    /* last echo of the partition */
};

struct bus {
    struct mailbox events;
    int pipe[2]; /* wakes the thread */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* guards: */
    bool woken, up, stop, ended, abandoned, paused, catching_up;
    struct stream_list arrived;
    uint64_t acknowledged; /* by the loop */
    size_t bytes[LANE_COUNT];
    uint64_t pending; /* publications without echo or failure */
    struct slots slots;
    struct bus_stats stats;

    /* only the thread's: */
    struct rabbit *rabbit;
    struct crypto_keyring keys;
    struct buf cluster;
    struct node_id self;
    int64_t rpc_timeout;
    struct stream streams[WIRE_PARTITIONS][LANE_COUNT];
    struct bus_probe probes[WIRE_PARTITIONS];
    unsigned probes_missing;  /* before the bus is up */
    unsigned first_partition; /* served first in the next iteration */
    struct buf out;           /* the batch being sent */
    bool want_write;          /* wait until the socket takes more */
    bool slow;
    bool was_up; /* on an earlier connection, until lost_at */
    int64_t lost_at;
    struct {
        size_t size;
        bool given; /* to the loop */
    } deliveries[RABBIT_PREFETCH];
    size_t deliveries_first, deliveries_count, deliveries_bytes;
    uint64_t stale;          /* given on earlier connections, not acknowledged yet */
    uint64_t handled, acked; /* deliveries handled on this connection, and acknowledged of them */
    size_t unacked_bytes;
    int64_t unacked_since;
    int64_t clock, seen_at; /* see cluster_bus.c; seen_at: os_now_ms when it last advanced */
    int64_t retry_at, pause;
    int64_t warned_foreign, warned_queue;
    uint64_t probe_seq;    /* of the last probe, over all connections */
    char down_reason[600]; /* of the last DOWN */
};

/* Wakes the thread. Call with the lock held. */
void bus_wake(struct bus *bus);

/* Posts an event, and gives it away. Once the bus is abandoned it is freed: nobody takes it. */
void bus_post(struct bus *bus, struct bus_event *event);

/* Posts a new event with a copy of `text`. */
void bus_post_new(struct bus *bus, enum bus_event_kind kind, const char *text);

/* Posts a WARNING, unless the last one was less than `pause` ms before (`*noted`, on `clock`). */
void bus_warn(struct bus *bus, int64_t *noted, int64_t pause, const char *text);

/* Accounts for publications that are over: by an echo (`good`) or a failure. */
void bus_complete(struct bus *bus, enum wire_lane lane, size_t bytes, uint32_t count, bool good);

/* Fails one entry, or all of a list, of LANE_SEND. `text` is a literal. */
void bus_fail_entry(struct bus *bus, struct stream_entry *entry, const char *text);
void bus_fail_list(struct bus *bus, struct stream_list *list, const char *text);

/* Call when a batch leaves the flight: stops relying on its binding. */
void bus_release(struct bus *bus, struct stream_batch *batch);

/* Fails a batch in flight, and removes it from its stream. */
void bus_fail_batch(struct bus *bus, struct stream *stream, struct stream_batch *batch,
                    const char *text);

/* A probe published at `probed_us` is back. Its partition keeps its order, so what was published
 * before it and is not back is lost: fails those sends, marks those notices for resending. */
void bus_drop_lost(struct bus *bus, unsigned partition, int64_t probed_us);

/* True if the partition needs a probe: it is idle, or what was published may be lost. */
bool bus_wants_probe(const struct bus *bus, unsigned partition);

/* Call when the connection is lost: fails all sends, and marks notices in flight for resending. */
void bus_fail_sends(struct bus *bus);

/* Moves what the loop has published into the streams. */
void bus_sort_arrived(struct bus *bus);

/* Sends are rejected while the bus is not up. */
void bus_set_up(struct bus *bus, bool up);

/* Frees everything. Call it when the thread has ended, or from the thread at its end. */
void bus_free(struct bus *bus);

#endif

/* cluster_bus_state.h - the bus's data, and what all of it needs: events, failures, time. Below
 * cluster_bus.c, which alone uses it. */
#ifndef WSPUSH_CLUSTER_BUS_STATE_H
#define WSPUSH_CLUSTER_BUS_STATE_H

#include "cluster_stream.h"
#include "rabbit.h"

struct bus_probe {
    bool due, out;
    int64_t at, at_us; /* when it was published */
    int64_t echo_at;   /* the last echo of its partition */
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
    uint64_t pending; /* publications that have not come to their end */
    struct slots slots;
    struct bus_stats stats;

    /* the thread's own */
    struct rabbit *rabbit;
    struct crypto_keyring keys;
    struct buf cluster;
    struct node_id self;
    int64_t rpc_timeout;
    struct stream streams[WIRE_PARTITIONS][LANE_COUNT];
    struct bus_probe probes[WIRE_PARTITIONS];
    unsigned probes_missing;  /* before the bus is up */
    unsigned first_partition; /* the partition that is served first */
    struct buf out;           /* the batch that is being sent */
    bool want_write;          /* something waits until the socket takes more */
    bool slow;
    bool was_up; /* on an earlier connection, */
    int64_t lost_at;
    struct {
        size_t size;
        bool given; /* to the loop */
    } deliveries[RABBIT_PREFETCH];
    size_t deliveries_first, deliveries_count, deliveries_bytes;
    uint64_t stale;          /* given on earlier connections, and not acknowledged yet */
    uint64_t handled, acked; /* deliveries that were dealt with; that RabbitMQ knows to be */
    size_t unacked_bytes;
    int64_t unacked_since;
    int64_t clock, seen_at; /* see above */
    int64_t retry_at, pause;
    int64_t warned_foreign, warned_queue;
    uint32_t generation;   /* of the connection: the number of its probes */
    char down_reason[600]; /* the text of the last DOWN */
};

/* Wakes the thread. Call it with the lock. */
void bus_wake(struct bus *bus);

/* Posts an event, which belongs to the taker then; nobody takes it once the bus is abandoned. */
void bus_post(struct bus *bus, struct bus_event *event);

/* Posts a new event. */
void bus_post_new(struct bus *bus, enum bus_event_kind kind, const char *text);

/* The same for the log, unless that was said less than `pause` milliseconds before `*noted`. */
void bus_warn(struct bus *bus, int64_t *noted, int64_t pause, const char *text);

/* Publications of a lane have come to their end: by an echo, or by a failure. */
void bus_complete(struct bus *bus, enum wire_lane lane, size_t bytes, uint32_t count, bool good);

/* Fails what waits in LANE_SEND. `text` is a literal. */
void bus_fail_entry(struct bus *bus, struct stream_entry *entry, const char *text);
void bus_fail_list(struct bus *bus, struct stream_list *list, const char *text);

/* A batch is not in flight any more: its binding is not relied on. */
void bus_release(struct bus *bus, struct stream_batch *batch);

/* Fails a batch in flight. */
void bus_fail_batch(struct bus *bus, struct stream *stream, struct stream_batch *batch,
                    const char *text);

/* A probe has come back that was published at `probed_us`. One partition keeps its order: what was
 * published before it and has not come back is lost, and would hold its stream for ever. */
void bus_drop_lost(struct bus *bus, unsigned partition, int64_t probed_us);

/* True if a batch of a partition should have come back by now. */
bool bus_is_overdue(const struct bus *bus, unsigned partition);

/* The connection is lost: fails all sends; the notices in flight are to be published again. */
void bus_fail_sends(struct bus *bus);

/* Moves what the loop has published to its streams. */
void bus_sort_arrived(struct bus *bus);

/* While the bus is not up, sends are refused. */
void bus_set_up(struct bus *bus, bool up);

/* Frees everything; the thread has ended, or is the caller. */
void bus_free(struct bus *bus);

#endif

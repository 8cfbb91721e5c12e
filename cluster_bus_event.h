/* cluster_bus_event.h - what the bus tells: events and figures. */
#ifndef WSPUSH_CLUSTER_BUS_EVENT_H
#define WSPUSH_CLUSTER_BUS_EVENT_H

#include "cluster_wire.h"
#include "mailbox.h"

enum bus_event_kind {
    BUS_UP,        /* connected, all slots bound, a probe came back through each partition */
    BUS_DOWN,      /* not connected: `text` says why and what helps */
    BUS_SLOW,      /* the oldest publication has not come back for rpc_timeout: `text` says so */
    BUS_MOVING,    /* it has, or has failed */
    BUS_BOUND,     /* `slot` is bound */
    BUS_FAILED,    /* the publication `id` of batch.partition, not a notice, is not known to have
                      reached anybody: `text` says why */
    BUS_BATCH,     /* `batch` has come, its views valid as long as the event */
    BUS_CAUGHT_UP, /* all that had come when bus_catch_up was called has been left as events before
                    */
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

/* A new event; without memory it waits for some, for nobody would ask again. */
struct bus_event *bus_new_event(enum bus_event_kind kind, const char *text);

/* Counts an echo that took so many microseconds. */
void bus_count_echo(struct bus_stats *stats, int64_t took);

#endif

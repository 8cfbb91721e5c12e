/* cluster_stream.h - the bus's data: the events that it leaves, the streams that it publishes, the
 * slots that its queue is bound to. No connection, no lock and no thread of its own.
 * Rejects: more than STREAM_KEYS_MAX receivers of a batch; more than SLOTS_ASKED_MAX bindings that
 * wait for their answer. */
#ifndef WSPUSH_CLUSTER_STREAM_H
#define WSPUSH_CLUSTER_STREAM_H

#include "cluster_wire.h"
#include "os.h"

/* --- events ----------------------------------------------------------------------------------- */

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
    BUS_WARNING /* `text` is for the log, at level warn: a queue was made again, strangers publish
                 */
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
    uint64_t foreign;             /* batches dropped for their MAC or version */
    uint64_t notices_dropped;     /* refused by bus_publish */
    uint64_t notices_waiting;     /* that have not come back */
    uint64_t bytes_published;     /* of batches */
    uint64_t echoes[BUS_ECHO_BUCKETS], echo_sum; /* microseconds from publishing to coming back */
};

/* A new event; without memory it waits for some, for nobody would ask again. */
struct bus_event *bus_new_event(enum bus_event_kind kind, const char *text);

/* Counts an echo that took so many microseconds. */
void bus_count_echo(struct bus_stats *stats, int64_t took);

/* --- streams ---------------------------------------------------------------------------------- */

#define STREAM_KEYS_MAX 64
#define STREAM_BATCH_BYTES 65536 /* of entries; a larger one goes alone */

/* A publication. */
struct stream_entry {
    struct stream_entry *next;
    uint64_t id;
    enum wire_lane lane;
    unsigned partition;
    int64_t deadline;
    struct str key; /* the routing key of its receivers, in `bytes` */
    struct str text;
    char bytes[];
};

/* Zeroed is empty. */
struct stream_list {
    struct stream_entry *first, *last;
    uint32_t count;
};

/* A batch keeps its entries until it comes back; its bytes are made each time it is published. */
struct stream_batch {
    struct stream_batch *next;
    uint64_t first_seq; /* the number of its first entry: given when it is formed, so what was
                       dropped before leaves no hole */
    struct stream_list entries;
    size_t cost; /* of its entries */
    struct str keys[STREAM_KEYS_MAX];
    size_t key_count;
    int carrier;       /* the slot through whose binding it comes back, or -1: its node's own key */
    bool resend;       /* to be published again */
    int64_t at, at_us; /* when it was published */
};

/* Zeroed is empty. */
struct stream {
    struct stream_list waiting;
    struct stream_batch *in_flight; /* oldest first */
    unsigned in_flight_count;       /* how many */
    uint64_t next_seq;              /* of the next entry */
};

/* A new entry, with copies of both texts, in at least `least` bytes of memory, so that it can
 * become an event that tells of it. NULL without memory. */
struct stream_entry *stream_new(struct str key, struct str text, size_t least);

/* What an entry costs in memory. */
size_t stream_cost(const struct stream_entry *entry);

void stream_append(struct stream_list *list, struct stream_entry *entry);

/* The first entry, which is the caller's now, or NULL. */
struct stream_entry *stream_take(struct stream_list *list);

/* Moves what waits into a new batch in flight: as much as one takes, `most` entries at most.
 * Something must wait. NULL without memory. */
struct stream_batch *stream_form(struct stream *stream, uint32_t most);

/* The batch in flight whose first number this is, or NULL. */
struct stream_batch *stream_find(const struct stream *stream, uint64_t first);

/* Takes a batch out of those in flight; it is the caller's to free, with stream_free_batch. */
void stream_remove(struct stream *stream, struct stream_batch *batch);

/* Frees a batch and its entries. */
void stream_free_batch(struct stream_batch *batch);

/* Frees all entries of a list. */
void stream_free_list(struct stream_list *list);

/* Frees everything that waits or is in flight. */
void stream_free(struct stream *stream);

/* --- slots ------------------------------------------------------------------------------------ */

#define SLOTS_ASKED_MAX 64
#define SLOTS_RECENT 60000 /* milliseconds: younger bindings may not survive RabbitMQ's death */

struct slots_binding {
    uint16_t slot;
    uint32_t version; /* of slots_set */
    bool bound;
    int64_t at; /* when it was asked for */
};

/* Zeroed, no slot is bound. */
struct slots {
    struct {
        bool wanted, dirty; /* to be bound; in the ring of those to be asked for */
        bool maybe;         /* bound, for all we know */
        bool sure;          /* bound, as RabbitMQ has answered on this connection */
        bool restoring;     /* waited for after a connection */
        uint32_t relied;    /* publications that come back through this binding alone */
        uint32_t version;
        int64_t changed_at;
    } slots[WIRE_SLOTS];
    uint16_t dirty[WIRE_SLOTS]; /* a ring of those to be asked for */
    size_t dirty_first, dirty_count;
    struct slots_binding asked[SLOTS_ASKED_MAX]; /* a ring, in RabbitMQ's order */
    size_t asked_first, asked_count;
    size_t restoring; /* how many */
};

/* A slot is to be bound, or not. The last call counts. */
void slots_set(struct slots *slots, uint16_t slot, uint32_t version, bool bound, int64_t now);

/* True if a slot is to be asked for, and not too many are already. */
bool slots_can_ask(const struct slots *slots);

/* Takes the next slot to be asked for: true, and RabbitMQ is to be asked for it now. One that is
 * relied on is not unbound. */
bool slots_ask(struct slots *slots, int64_t now, struct slots_binding *binding);

/* RabbitMQ has answered the oldest that was asked for: false if there is none. */
bool slots_answer(struct slots *slots, struct slots_binding *binding);

/* A new connection: has every wanted slot bound again, and those unbound that may have stayed
 * behind. `restoring` counts those changed at `since` or later, until they are answered; they are
 * asked for first. */
void slots_restore(struct slots *slots, int64_t since);

/* True if what is published under a slot comes to this node for certain; the slot stays bound until
 * slots_release. */
bool slots_rely(struct slots *slots, uint16_t slot);
void slots_release(struct slots *slots, uint16_t slot);

/* When the oldest unanswered one was asked for, or `otherwise`. */
int64_t slots_oldest(const struct slots *slots, int64_t otherwise);

#endif

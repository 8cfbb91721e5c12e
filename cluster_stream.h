/* cluster_stream.h - the bus's data: events for the loop, streams of publications, and the slots
 * that the node's queue is bound to. No connection, no lock, no thread.
 * Rejects: more than STREAM_KEYS_MAX receivers of a batch; more than SLOTS_ASKED_MAX unanswered
 * bindings. */
#ifndef WSPUSH_CLUSTER_STREAM_H
#define WSPUSH_CLUSTER_STREAM_H

#include "cluster_wire.h"
#include "os.h"

/* --- events ----------------------------------------------------------------------------------- */

enum bus_event_kind {
    BUS_UP,     /* connected, all slots bound, a probe came back through each partition */
    BUS_DOWN,   /* not connected: `text` says why, and the remedy */
    BUS_SLOW,   /* the oldest publication has been in flight for rpc_timeout: `text` says so */
    BUS_MOVING, /* it has come back, or has failed */
    BUS_BOUND,  /* `slot` is bound */
    BUS_FAILED, /* publication `id` of batch.partition may have reached nobody: `text` says why */
    BUS_BATCH,  /* `batch` has come; its views live as long as the event */
    BUS_CAUGHT_UP, /* all that had come when bus_catch_up was called is in the events before */
    BUS_WARNING    /* `text` is for the log: a queue was declared again, strangers publish */
};

struct bus_event {
    struct fifo_link mail;
    enum bus_event_kind kind;
    uint64_t id;
    uint16_t slot;
    uint32_t version; /* BOUND: of its bus_bind */
    struct str text;
    struct wire_batch batch;
};

/* Upper bounds in microseconds of the histogram's buckets; the last bucket has none. */
#define BUS_ECHO_BUCKETS 12
extern const uint32_t bus_echo_bounds[BUS_ECHO_BUCKETS - 1];

struct bus_stats {
    uint64_t published, returned; /* publications that came back; that no order queue took */
    uint64_t failed;              /* sends that FAILED */
    uint64_t foreign;             /* batches dropped for their MAC or version */
    uint64_t echoes[BUS_ECHO_BUCKETS], echo_sum; /* microseconds from publishing to the echo */
};

/* A new event with a copy of `text`. Waits for memory: an event that is lost is never repeated. */
struct bus_event *bus_new_event(enum bus_event_kind kind, const char *text);

/* Counts an echo that took `took` microseconds. */
void bus_count_echo(struct bus_stats *stats, int64_t took);

/* --- streams ---------------------------------------------------------------------------------- */

#define STREAM_KEYS_MAX 64
#define STREAM_BATCH_BYTES 65536 /* of entries; a larger entry goes alone */

/* A publication that waits or is in flight. */
struct stream_entry {
    struct fifo_link fifo;
    uint64_t id;
    enum wire_lane lane;
    unsigned partition;
    int64_t deadline;
    struct str key; /* the routing key, in `bytes` */
    struct str text;
    char bytes[];
};

/* Zeroed is empty. */
struct stream_list {
    struct fifo fifo;
    uint32_t count;
};

/* Entries that are published together. They are kept until the batch comes back, and written into
 * bytes each time it is published. */
struct stream_batch {
    struct stream_batch *next;
    uint64_t first_seq; /* given when the batch is formed: entries dropped before leave no hole */
    struct stream_list entries;
    size_t cost; /* of its entries */
    struct str keys[STREAM_KEYS_MAX];
    size_t key_count;
    int carrier;       /* the slot through whose binding it comes back; -1: the node's own key */
    bool resend;       /* publish it again */
    int64_t at, at_us; /* published */
};

/* Zeroed is empty. */
struct stream {
    struct stream_list waiting;
    struct stream_batch *in_flight; /* oldest first */
    unsigned in_flight_count;
    uint64_t next_seq; /* of the next entry */
};

/* A new entry with copies of both texts, in at least `least` bytes, so that it can become an event.
 * NULL without memory. */
struct stream_entry *stream_new(struct str key, struct str text, size_t least);

/* Bytes that an entry counts for. */
size_t stream_cost(const struct stream_entry *entry);

void stream_append(struct stream_list *list, struct stream_entry *entry);

/* The first entry, or NULL; stream_take removes it, and the caller owns it. */
struct stream_entry *stream_first(const struct stream_list *list);
struct stream_entry *stream_take(struct stream_list *list);

/* Moves waiting entries into a new batch in flight: as many as fit, at most `most`. Call only while
 * something waits. NULL without memory. */
struct stream_batch *stream_form(struct stream *stream, uint32_t most);

/* The batch in flight with this first_seq, or NULL. */
struct stream_batch *stream_find(const struct stream *stream, uint64_t first);

/* Removes a batch from those in flight; the caller frees it with stream_free_batch. */
void stream_remove(struct stream *stream, struct stream_batch *batch);

/* Frees a batch and its entries. */
void stream_free_batch(struct stream_batch *batch);

/* Frees all entries of a list. */
void stream_free_list(struct stream_list *list);

/* Frees all that waits or is in flight. */
void stream_free(struct stream *stream);

/* --- slots ------------------------------------------------------------------------------------ */

#define SLOTS_ASKED_MAX 64
#define SLOTS_RECENT 60000 /* milliseconds: younger bindings may be lost when RabbitMQ dies */

struct slots_binding {
    uint16_t slot;
    uint32_t version; /* of slots_set */
    bool bound;
    int64_t at; /* when it was asked for, os_now_ms or the caller's clock */
};

/* Zeroed: no slot is bound. */
struct slots {
    struct {
        bool wanted, dirty; /* should be bound; is in the ring `dirty` */
        bool maybe_bound;   /* as far as is known */
        bool confirmed;     /* RabbitMQ has answered so on this connection */
        bool restoring;     /* its answer is waited for after a reconnect */
        uint32_t relied;    /* publications that come back through this binding alone */
        uint32_t version;
        int64_t changed_at;
    } slots[WIRE_SLOTS];
    uint16_t dirty[WIRE_SLOTS]; /* ring: slots to ask for */
    size_t dirty_first, dirty_count;
    struct slots_binding asked[SLOTS_ASKED_MAX]; /* ring: unanswered, in RabbitMQ's order */
    size_t asked_first, asked_count;
    size_t restoring; /* slots with that flag */
};

/* Says whether a slot should be bound. The last call counts. */
void slots_set(struct slots *slots, uint16_t slot, uint32_t version, bool bound, int64_t now);

/* True if a slot has to be asked for and fewer than SLOTS_ASKED_MAX are unanswered. */
bool slots_can_ask(const struct slots *slots);

/* Takes the next slot to ask for: returns true, and the caller asks RabbitMQ now. A slot that is
 * relied on is not unbound. */
bool slots_ask(struct slots *slots, int64_t now, struct slots_binding *binding);

/* Call when RabbitMQ answers: gives the oldest binding asked for; false if there is none. */
bool slots_answer(struct slots *slots, struct slots_binding *binding);

/* Call after a reconnect: every wanted slot is asked for again, and the unbinding of those that may
 * still be bound. Slots changed at `since` or later come first and count as `restoring`. */
void slots_restore(struct slots *slots, int64_t since);

/* True if publications under a slot are certain to reach this node. The slot then stays bound until
 * slots_release. */
bool slots_rely(struct slots *slots, uint16_t slot);
void slots_release(struct slots *slots, uint16_t slot);

/* When the oldest unanswered binding was asked for; `otherwise` if there is none. */
int64_t slots_oldest(const struct slots *slots, int64_t otherwise);

#endif

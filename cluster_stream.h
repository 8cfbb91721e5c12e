/* cluster_stream.h - what is published in one lane of one partition: entries that wait, and batches
 * in flight, which come back in their order. No connection and no lock of its own.
 * Refuses: more than STREAM_KEYS_MAX receivers of a batch. */
#ifndef WSPUSH_CLUSTER_STREAM_H
#define WSPUSH_CLUSTER_STREAM_H

#include "cluster_wire.h"

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
    uint64_t first; /* the number of its first entry: given when it is formed, so what was dropped
                       before leaves no hole */
    struct stream_list entries;
    size_t cost; /* of its entries */
    struct str keys[STREAM_KEYS_MAX];
    size_t key_count;
    int carrier;       /* the slot through whose binding it comes back, or -1: its node's own key */
    bool again;        /* to be published again */
    int64_t at, at_us; /* when it was published */
};

/* Zeroed is empty. */
struct stream {
    struct stream_list waiting;
    struct stream_batch *in_flight; /* oldest first */
    unsigned flying;                /* how many */
    uint64_t next;                  /* the number of the next entry */
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

#endif

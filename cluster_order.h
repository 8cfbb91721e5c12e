/* cluster_order.h - order between nodes: which publications of each origin have come, and how old a
 * request is.
 *
 * Each origin numbers its publications, for each lane and partition (a stream). A stream arrives in
 * the order of its seqs, also when some of it is published or delivered again after a reconnect: a
 * seq not above the last one is a repetition.
 * Rejects: a seq far above the last one (ORDER_JUMP_MAX). */
#ifndef WSPUSH_CLUSTER_ORDER_H
#define WSPUSH_CLUSTER_ORDER_H

#include "cluster_wire.h"

#define ORDER_STREAMS (LANE_COUNT * WIRE_PARTITIONS)
#define ORDER_JUMP_MAX ((uint64_t)1 << 24)

/* The last seq of each stream of one origin. */
struct order_sender {
    struct order_sender *next;
    struct node_id node;
    uint64_t last[ORDER_STREAMS];
};

/* All origins that have published, last heard of first. Zeroed is empty. */
struct order_senders {
    struct order_sender *first;
    size_t count;
};

enum order_result {
    ORDER_NEW,        /* the next one, and recorded */
    ORDER_REPETITION, /* it has come before */
    ORDER_JUMP,       /* too far ahead: not recorded */
    ORDER_NO_MEMORY   /* not recorded */
};

/* Takes the seq of a publication. */
enum order_result order_take(struct order_senders *senders, const struct node_id *node,
                             enum wire_lane lane, unsigned partition, uint64_t number);

/* Undoes an ORDER_NEW that order_take has just returned. */
void order_take_back(struct order_senders *senders, enum wire_lane lane, unsigned partition);

/* Appends what has come in a partition, as a JSON array: of each origin its text, and its last seq
 * in each lane. False without memory. */
bool order_write(const struct order_senders *senders, unsigned partition, struct buf *out);

/* Notes the first seq of a stream. Without memory it is not noted. */
void order_note(struct order_senders *firsts, const struct node_id *node, enum wire_lane lane,
                unsigned partition, uint64_t number);

/* Takes what another node has written at a point of the partition's order: what had come there
 * before it is a repetition here, too. `firsts` is of what has come here since that point; false if
 * some of it is such a repetition, or the array is malformed: then part of it may be taken. */
bool order_merge(struct order_senders *senders, struct order_senders *firsts, unsigned partition,
                 struct str array);

void order_free(struct order_senders *senders);

/* --- ages ------------------------------------------------------------------------------------- */

#define ORDER_WINDOW 2000 /* milliseconds of each half of the window */

/* The age of messages, by the clocks of two nodes that share nothing but their pace: the fastest
 * message of the last 2 to 4 s counts as age 0. The window moves with messages, not with time: one
 * that has waited unread is compared with those before. A clock that stood still is believed again
 * within 4 s. Zeroed is empty. */
struct order_clock {
    bool known, has_before;
    int64_t least, before; /* smallest differences in this half of the window, and in the last */
    int64_t begun;         /* start of this half */
};

/* Takes the time in a message; returns the message's age in milliseconds, at least 0. `now` is this
 * node's clock. */
int64_t order_age(struct order_clock *clock, int64_t at, int64_t now);

#endif

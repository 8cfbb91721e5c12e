/* cluster_order.h - order between nodes: which publications of each origin have come, which of this
 * node's own have come back, and how old a request is.
 *
 * Each origin numbers what it publishes, for each lane and partition (a stream). All of one stream
 * comes in the order of its numbers, also when some of it is published or delivered again after a
 * connection was lost: a number that is not larger than the last is a repetition.
 * Refuses: a number far ahead of the last (ORDER_JUMP_MAX). */
#ifndef WSPUSH_CLUSTER_ORDER_H
#define WSPUSH_CLUSTER_ORDER_H

#include "cluster_wire.h"

#define ORDER_STREAMS (LANE_COUNT * WIRE_PARTITIONS)
#define ORDER_JUMP_MAX ((uint64_t)1 << 24)

/* The last number of each stream of one origin. */
struct order_sender {
    struct order_sender *next;
    struct node_id node;
    uint64_t last[ORDER_STREAMS];
};

/* All origins whose publications have come, last heard of first. Zeroed is empty. */
struct order_senders {
    struct order_sender *first;
    size_t count;
};

enum order_result {
    ORDER_NEW,        /* it is the next one, and noted */
    ORDER_REPETITION, /* it has come before */
    ORDER_JUMP        /* too far ahead: nothing is noted */
};

/* Takes the number of a publication. Without memory it is taken for a repetition. */
enum order_result order_take(struct order_senders *senders, const struct node_id *node,
                             enum wire_lane lane, unsigned partition, uint64_t number);

void order_free(struct order_senders *senders);

/* --- ages ------------------------------------------------------------------------------------- */

#define ORDER_WINDOW 2000 /* milliseconds of each of the two halves */

/* The clocks of two nodes have nothing in common but their pace, so the quickest message of the
 * last 2 to 4 s counts as no time at all. The window slides with the messages, not with the time:
 * what has waited while nobody read it is compared with what came before. A clock that stood still
 * is believed again within 4 s. Zeroed is empty. */
struct order_clock {
    bool known, has_before;
    int64_t least, before; /* smallest differences in this half of the window, and in the last */
    int64_t begun;         /* when this half began */
};

/* Takes the time that a message names, and returns its age in milliseconds, 0 or more. `now` is
 * this node's clock. */
int64_t order_age(struct order_clock *clock, int64_t at, int64_t now);

#endif

/* order.h - which publications have come, and which must come before a command is applied.
 *
 * Each node numbers what it publishes, for each order separately. All that is published for one
 * system has one order, and comes in it, also when it is published or delivered again after a
 * connection was lost: so a number that is not larger than the last is a repetition. Refuses:
 * nothing. */
#ifndef WSPUSH_ORDER_H
#define WSPUSH_ORDER_H

#include "identity.h"

#define ORDERS 16

/* How long a publication may be under way for a command to be held back for it, in milliseconds. */
#define ORDER_RECENT 500

/* Publications of one node as another sees them. */
struct origin {
    struct origin *next;
    struct identity identity;
    uint64_t numbers[ORDERS]; /* the last one that has come */
    uint64_t waived[ORDERS];  /* up to here they are not waited for any more */
};

/* All nodes whose publications have come, last heard of first. Zeroed is empty. */
struct origins {
    struct origin *first;
    size_t count;
};

/* Takes a publication; false if it has been taken before, or there is no memory. */
bool origins_take(struct origins *origins, const struct identity *node, unsigned order,
                  uint64_t number);

/* True if a publication has come, or is not waited for. */
bool origins_have(const struct origins *origins, const struct identity *node, unsigned order,
                  uint64_t number);

/* Gives up waiting for this publication and those before it. */
void origins_waive(struct origins *origins, const struct identity *node, unsigned order,
                   uint64_t number);

void origins_free(struct origins *origins);

#define RECENTS_KEPT 16

/* What this node has last published in one order. Zeroed is empty. */
struct recents {
    struct {
        uint64_t number;
        int64_t at; /* milliseconds */
        uint16_t slot;
    } entries[RECENTS_KEPT]; /* the newest first, each slot once */
};

/* Notes a publication. */
void recents_note(struct recents *recents, uint16_t slot, uint64_t number, int64_t now);

/* Appends the recent ones as a JSON array of slots and numbers; nothing if there are none. */
bool recents_write(const struct recents *recents, int64_t now, struct buf *out);

/* The largest number among what another node has written, of slots for which `wanted` is true, or
 * 0; `slots` is how many there are. */
uint64_t recents_read_last(struct str array, const bool wanted[], size_t slots);

#endif

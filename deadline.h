/* deadline.h - the nearest of many points in time: a binary heap over small numbers (the slots of
 * sessions). Knows neither clock nor session.
 *
 * A slot has at most one deadline. It may be earlier than what the caller really waits for: the
 * caller looks at its state when the deadline comes, and sets the next one. So a sign of life
 * costs no work here. */
#ifndef WSPUSH_DEADLINE_H
#define WSPUSH_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deadline {
    int64_t at; /* milliseconds of the caller's clock */
    uint32_t slot;
};

/* Zeroed is empty. `place[slot]` is where the slot stands in the heap, plus one; 0 if nowhere. */
struct deadlines {
    struct deadline *heap;
    uint32_t *place;
    size_t count, slots;
};

/* Makes room for slots 0 to `slots` - 1. False when there is no memory; nothing has changed then.
 */
bool deadlines_reserve(struct deadlines *deadlines, size_t slots);

/* Sets or moves the deadline of a slot, which must have been reserved. Cannot fail. */
void deadlines_set(struct deadlines *deadlines, uint32_t slot, int64_t at);

/* Like deadlines_set, but never makes a deadline later. */
void deadlines_bring_forward(struct deadlines *deadlines, uint32_t slot, int64_t at);

/* Takes the slot out; nothing happens if it has no deadline. */
void deadlines_clear(struct deadlines *deadlines, uint32_t slot);

/* The earliest deadline, or NULL when there is none; it ends with the next change. */
const struct deadline *deadlines_first(const struct deadlines *deadlines);

void deadlines_free(struct deadlines *deadlines);

#endif

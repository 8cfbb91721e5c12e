/* timer.h - the earliest of many timers: a min-heap over small ids (indices of sessions). Knows
 * neither a clock nor a session.
 *
 * An id has at most one timer. It may be set for an earlier time than its owner waits for: the
 * owner looks at its state when the timer expires and sets the next one. So a sign of life from a
 * peer costs no work here. */
#ifndef WSPUSH_TIMER_H
#define WSPUSH_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
    int64_t at; /* milliseconds of the caller's clock */
    uint32_t id;
};

/* Zeroed is empty. */
struct timers {
    struct timer *heap;
    uint32_t *position; /* by id: the index in the heap plus one; 0: not set */
    size_t count, ids;  /* timers set; ids reserved */
};

/* Makes room for the ids 0 to `ids` - 1, which are more than before. False without memory: nothing
 * has changed then. */
bool timer_reserve(struct timers *timers, size_t ids);

/* Sets the timer of an id, which must be reserved, or moves it to an earlier time. Cannot fail. */
void timer_advance(struct timers *timers, uint32_t id, int64_t at);

/* Removes the timer of an id, which must be reserved, if it is set. */
void timer_clear(struct timers *timers, uint32_t id);

/* The earliest timer, valid until the next change; NULL if none is set. */
const struct timer *timer_first(const struct timers *timers);

/* Frees everything and empties `timers`, which may be used again. */
void timer_free(struct timers *timers);

#endif

/* timer.c - a binary min-heap; `position` finds an id's entry in it, so moving one is O(log n). */
#include "timer.h"

#include <stdlib.h>
#include <string.h>

bool timer_reserve(struct timers *timers, size_t ids)
{
    struct timer *heap = realloc(timers->heap, ids * sizeof *heap);
    uint32_t *position;

    if (!heap)
        return false;
    timers->heap = heap;
    position = realloc(timers->position, ids * sizeof *position);
    if (!position)
        return false;
    memset(position + timers->ids, 0, (ids - timers->ids) * sizeof *position);
    timers->position = position;
    timers->ids = ids;
    return true;
}

static void timer_put(struct timers *timers, size_t index, struct timer timer)
{
    timers->heap[index] = timer;
    timers->position[timer.id] = (uint32_t)index + 1;
}

/* Restores the heap's order: moves a timer from a free position up or down to where it belongs. */
static void timer_sift(struct timers *timers, size_t index, struct timer timer)
{
    struct timer *heap = timers->heap;

    while (index > 0 && heap[(index - 1) / 2].at > timer.at) {
        timer_put(timers, index, heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        size_t child = index * 2 + 1;

        if (child + 1 < timers->count && heap[child + 1].at < heap[child].at)
            child++;
        if (child >= timers->count || heap[child].at >= timer.at)
            break;
        timer_put(timers, index, heap[child]);
        index = child;
    }
    timer_put(timers, index, timer);
}

void timer_advance(struct timers *timers, uint32_t id, int64_t at)
{
    uint32_t position = timers->position[id];

    if (position && timers->heap[position - 1].at <= at)
        return;
    if (!position)
        position = (uint32_t)++timers->count;
    timer_sift(timers, position - 1, (struct timer){at, id});
}

void timer_clear(struct timers *timers, uint32_t id)
{
    size_t index = timers->position[id];

    if (!index--)
        return;
    timers->position[id] = 0;
    if (index < --timers->count)
        timer_sift(timers, index, timers->heap[timers->count]);
}

const struct timer *timer_first(const struct timers *timers)
{
    return timers->count ? timers->heap : NULL;
}

void timer_free(struct timers *timers)
{
    free(timers->heap);
    free(timers->position);
    *timers = (struct timers){0};
}

/* deadline.c - the nearest of many points in time. */
#include "deadline.h"

#include <stdlib.h>
#include <string.h>

bool deadlines_reserve(struct deadlines *deadlines, size_t slots)
{
    struct deadline *heap;
    uint32_t *place;

    if (slots <= deadlines->slots)
        return true;
    if (slots > UINT32_MAX / sizeof *heap)
        return false;
    heap = realloc(deadlines->heap, slots * sizeof *heap);
    if (!heap)
        return false;
    deadlines->heap = heap;
    place = calloc(slots, sizeof *place);
    if (!place)
        return false;
    if (deadlines->slots)
        memcpy(place, deadlines->place, deadlines->slots * sizeof *place);
    free(deadlines->place);
    deadlines->place = place;
    deadlines->slots = slots;
    return true;
}

static void put(struct deadlines *deadlines, size_t index, struct deadline entry)
{
    deadlines->heap[index] = entry;
    deadlines->place[entry.slot] = (uint32_t)index + 1;
}

/* Moves an entry from a free place up or down to where it belongs. */
static void settle(struct deadlines *deadlines, size_t index, struct deadline entry)
{
    struct deadline *heap = deadlines->heap;

    while (index > 0 && heap[(index - 1) / 2].at > entry.at) {
        put(deadlines, index, heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        size_t child = index * 2 + 1;

        if (child + 1 < deadlines->count && heap[child + 1].at < heap[child].at)
            child++;
        if (child >= deadlines->count || heap[child].at >= entry.at)
            break;
        put(deadlines, index, heap[child]);
        index = child;
    }
    put(deadlines, index, entry);
}

void deadlines_set(struct deadlines *deadlines, uint32_t slot, int64_t at)
{
    size_t index = deadlines->place[slot] ? deadlines->place[slot] - 1 : deadlines->count++;

    settle(deadlines, index, (struct deadline){at, slot});
}

void deadlines_bring_forward(struct deadlines *deadlines, uint32_t slot, int64_t at)
{
    uint32_t place = deadlines->place[slot];

    if (!place || at < deadlines->heap[place - 1].at)
        deadlines_set(deadlines, slot, at);
}

void deadlines_clear(struct deadlines *deadlines, uint32_t slot)
{
    size_t index;

    if (slot >= deadlines->slots || !deadlines->place[slot])
        return;
    index = deadlines->place[slot] - 1;
    deadlines->place[slot] = 0;
    deadlines->count--;
    if (index < deadlines->count)
        settle(deadlines, index, deadlines->heap[deadlines->count]);
}

const struct deadline *deadlines_first(const struct deadlines *deadlines)
{
    return deadlines->count ? deadlines->heap : NULL;
}

void deadlines_free(struct deadlines *deadlines)
{
    free(deadlines->heap);
    free(deadlines->place);
    *deadlines = (struct deadlines){0};
}

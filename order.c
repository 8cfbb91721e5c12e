/* order.c - which publications have come, and which must come before a command is applied. */
#include "order.h"

#include "json.h"

#include <stdlib.h>
#include <string.h>

#define ORIGINS_KEPT 1024

static struct origin *find(const struct origins *origins, const struct identity *node)
{
    struct origin *origin = origins->first;

    while (origin && !identity_same(&origin->identity, node))
        origin = origin->next;
    return origin;
}

/* Frees the node last heard of before all others, which has long gone. */
static void forget_oldest(struct origins *origins)
{
    struct origin **at = &origins->first;

    while ((*at)->next)
        at = &(*at)->next;
    free(*at);
    *at = NULL;
    origins->count--;
}

/* The node's entry, moved to the front; a new one if there is none. NULL without memory. */
static struct origin *touch(struct origins *origins, const struct identity *node)
{
    struct origin **at = &origins->first, *origin;

    while (*at && !identity_same(&(*at)->identity, node))
        at = &(*at)->next;
    origin = *at;
    if (origin) {
        *at = origin->next;
    } else {
        origin = calloc(1, sizeof *origin);
        if (!origin)
            return NULL;
        if (origins->count == ORIGINS_KEPT)
            forget_oldest(origins);
        origin->identity = *node;
        origins->count++;
    }
    origin->next = origins->first;
    origins->first = origin;
    return origin;
}

bool origins_take(struct origins *origins, const struct identity *node, unsigned order,
                  uint64_t number)
{
    struct origin *origin = touch(origins, node);

    if (!origin || number <= origin->numbers[order])
        return false;
    origin->numbers[order] = number;
    return true;
}

bool origins_have(const struct origins *origins, const struct identity *node, unsigned order,
                  uint64_t number)
{
    const struct origin *origin = number ? find(origins, node) : NULL;

    return number == 0 ||
           (origin && (number <= origin->numbers[order] || number <= origin->waived[order]));
}

void origins_waive(struct origins *origins, const struct identity *node, unsigned order,
                   uint64_t number)
{
    struct origin *origin = touch(origins, node);

    if (origin && origin->waived[order] < number)
        origin->waived[order] = number;
}

void origins_free(struct origins *origins)
{
    while (origins->count)
        forget_oldest(origins);
}

void recents_note(struct recents *recents, uint16_t slot, uint64_t number, int64_t now)
{
    size_t i = 0;

    /* of one slot the last number says it all; of the slots, the last ones say most */
    while (i < RECENTS_KEPT - 1 && recents->entries[i].number && recents->entries[i].slot != slot)
        i++;
    memmove(&recents->entries[1], &recents->entries[0], i * sizeof recents->entries[0]);
    recents->entries[0].slot = slot;
    recents->entries[0].number = number;
    recents->entries[0].at = now;
}

bool recents_write(const struct recents *recents, int64_t now, struct buf *out)
{
    bool first = true;

    for (unsigned i = 0; i < RECENTS_KEPT; i++) {
        if (!recents->entries[i].number || now - recents->entries[i].at >= ORDER_RECENT)
            continue;
        buf_append(out, first ? STR("[") : STR(","));
        buf_append_number(out, recents->entries[i].slot);
        buf_append(out, STR(","));
        buf_append_number(out, (int64_t)recents->entries[i].number);
        first = false;
    }
    return first || buf_append(out, STR("]"));
}

uint64_t recents_read_last(struct str array, const bool wanted[], size_t slots)
{
    struct json_value slot, number;
    uint64_t last = 0;

    while (json_next_element(&array, &slot) && json_next_element(&array, &number)) {
        int64_t which = 0, value = 0;

        if (json_decode_integer(slot, &which) && json_decode_integer(number, &value) &&
            which >= 0 && (uint64_t)which < slots && value > 0 && wanted[which] &&
            (uint64_t)value > last)
            last = (uint64_t)value;
    }
    return last;
}

/* cluster_slots.c - which slots are to be bound. */
#include "cluster_slots.h"

/* Puts a slot into the ring, unless it is there. */
static void slots_mark(struct slots *slots, uint16_t slot)
{
    if (slots->slots[slot].dirty)
        return;
    slots->slots[slot].dirty = true;
    slots->dirty[(slots->dirty_first + slots->dirty_count++) % WIRE_SLOTS] = slot;
}

void slots_set(struct slots *slots, uint16_t slot, uint32_t version, bool bound, int64_t now)
{
    slots->slots[slot].wanted = bound;
    slots->slots[slot].version = version;
    slots->slots[slot].changed_at = now;
    slots_mark(slots, slot);
}

bool slots_can_ask(const struct slots *slots)
{
    return slots->dirty_count && slots->asked_count < SLOTS_ASKED_MAX;
}

bool slots_ask(struct slots *slots, int64_t now, struct slots_binding *binding)
{
    uint16_t slot;

    if (!slots_can_ask(slots))
        return false;
    slot = slots->dirty[slots->dirty_first];
    slots->dirty_first = (slots->dirty_first + 1) % WIRE_SLOTS;
    slots->dirty_count--;
    slots->slots[slot].dirty = false;
    *binding =
        (struct slots_binding){slot, slots->slots[slot].version, slots->slots[slot].wanted, now};
    slots->slots[slot].maybe |= binding->bound;
    slots->asked[(slots->asked_first + slots->asked_count++) % SLOTS_ASKED_MAX] = *binding;
    return true;
}

bool slots_answer(struct slots *slots, struct slots_binding *binding)
{
    uint16_t slot;

    if (slots->asked_count == 0)
        return false;
    *binding = slots->asked[slots->asked_first];
    slots->asked_first = (slots->asked_first + 1) % SLOTS_ASKED_MAX;
    slots->asked_count--;
    slot = binding->slot;
    slots->slots[slot].maybe &= binding->bound;
    slots->restoring -= slots->slots[slot].restoring;
    slots->slots[slot].restoring = false;
    return true;
}

void slots_restore(struct slots *slots, int64_t since)
{
    slots->asked_count = slots->dirty_count = slots->restoring = 0;
    for (unsigned i = 0; i < WIRE_SLOTS; i++)
        slots->slots[i].dirty = slots->slots[i].restoring = false;
    for (int recent = 1; recent >= 0; recent--) {
        for (unsigned i = 0; i < WIRE_SLOTS; i++) {
            if ((!slots->slots[i].wanted && !slots->slots[i].maybe) ||
                (slots->slots[i].changed_at >= since) != recent)
                continue;
            slots_mark(slots, (uint16_t)i);
            slots->slots[i].restoring = recent;
            slots->restoring += (size_t)recent;
        }
    }
}

int64_t slots_oldest(const struct slots *slots, int64_t otherwise)
{
    return slots->asked_count ? slots->asked[slots->asked_first].at : otherwise;
}

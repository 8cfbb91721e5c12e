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

static uint16_t slots_pop(struct slots *slots)
{
    uint16_t slot = slots->dirty[slots->dirty_first];

    slots->dirty_first = (slots->dirty_first + 1) % WIRE_SLOTS;
    slots->dirty_count--;
    slots->slots[slot].dirty = false;
    return slot;
}

/* True if a slot is to be unbound and must not be yet. */
static bool slots_is_kept(const struct slots *slots, uint16_t slot)
{
    return slots->slots[slot].relied && !slots->slots[slot].wanted;
}

bool slots_ask(struct slots *slots, int64_t now, struct slots_binding *binding)
{
    size_t relied = 0;
    uint16_t slot;

    if (!slots_can_ask(slots))
        return false;
    while (slots_is_kept(slots, slot = slots_pop(slots))) {
        slots_mark(slots, slot);
        if (++relied == slots->dirty_count)
            return false;
    }
    *binding =
        (struct slots_binding){slot, slots->slots[slot].version, slots->slots[slot].wanted, now};
    slots->slots[slot].maybe |= binding->bound;
    slots->slots[slot].sure &= binding->bound;
    slots->asked[(slots->asked_first + slots->asked_count++) % SLOTS_ASKED_MAX] = *binding;
    return true;
}

/* True if there is another question about a slot under way. */
static bool slots_is_asked(const struct slots *slots, uint16_t slot)
{
    for (size_t i = 0; i < slots->asked_count; i++)
        if (slots->asked[(slots->asked_first + i) % SLOTS_ASKED_MAX].slot == slot)
            return true;
    return false;
}

bool slots_rely(struct slots *slots, uint16_t slot)
{
    if (!slots->slots[slot].sure || !slots->slots[slot].wanted)
        return false;
    slots->slots[slot].relied++;
    return true;
}

void slots_release(struct slots *slots, uint16_t slot)
{
    slots->slots[slot].relied--;
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
    slots->slots[slot].sure = binding->bound && !slots_is_asked(slots, slot);
    slots->restoring -= slots->slots[slot].restoring;
    slots->slots[slot].restoring = false;
    return true;
}

void slots_restore(struct slots *slots, int64_t since)
{
    slots->asked_count = slots->dirty_count = slots->restoring = 0;
    for (unsigned i = 0; i < WIRE_SLOTS; i++)
        slots->slots[i].dirty = slots->slots[i].restoring = slots->slots[i].sure = false;
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

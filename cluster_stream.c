/* cluster_stream.c - the bus's data: events, streams, slots.
 *
 * Streams: one for each lane of each partition. Entries wait in a FIFO; a batch takes as many as
 * fit, gives them consecutive seqs, and stays in the list in flight until it comes back or fails.
 * Its receivers are the distinct keys of its entries.
 *
 * Slots: what is wanted changes at any time, and RabbitMQ answers bindings in the order in which it
 * was asked, so both are rings: `dirty` has each changed slot once, `asked` each unanswered
 * binding. A slot is `confirmed` only by the answer to the last binding asked for it. After a
 * reconnect nothing is confirmed, and all that is wanted is asked for again.
 *
 * Threads: none; the bus calls these functions with its lock where both its sides do. */
#include "cluster_stream.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* --- events ----------------------------------------------------------------------------------- */

const uint32_t bus_echo_bounds[BUS_ECHO_BUCKETS - 1] = {250,   500,   1000,   2000,    4000,   8000,
                                                        16000, 50000, 200000, 1000000, 5000000};

struct bus_event *bus_new_event(enum bus_event_kind kind, const char *text)
{
    size_t length = strlen(text);
    struct bus_event *event;

    while (!(event = malloc(sizeof *event + length)))
        poll(NULL, 0, 10);
    *event = (struct bus_event){.kind = kind, .text = {(const char *)(event + 1), length}};
    memcpy(event + 1, text, length);
    return event;
}

void bus_count_echo(struct bus_stats *stats, int64_t took)
{
    size_t bucket = 0;

    while (bucket < BUS_ECHO_BUCKETS - 1 && took > bus_echo_bounds[bucket])
        bucket++;
    stats->echoes[bucket]++;
    stats->echo_sum += (uint64_t)took;
}

/* --- streams ---------------------------------------------------------------------------------- */

struct stream_entry *stream_new(struct str key, struct str text, size_t least)
{
    size_t size = sizeof(struct stream_entry) + key.length + text.length;
    struct stream_entry *entry = malloc(size < least ? least : size);

    if (!entry)
        return NULL;
    *entry = (struct stream_entry){.key = {entry->bytes, key.length},
                                   .text = {entry->bytes + key.length, text.length}};
    memcpy(entry->bytes, key.at, key.length);
    if (text.length)
        memcpy(entry->bytes + key.length, text.at, text.length);
    return entry;
}

size_t stream_cost(const struct stream_entry *entry)
{
    return sizeof *entry + entry->key.length + entry->text.length;
}

void stream_append(struct stream_list *list, struct stream_entry *entry)
{
    fifo_push(&list->fifo, &entry->fifo);
    list->count++;
}

struct stream_entry *stream_first(const struct stream_list *list)
{
    return (struct stream_entry *)list->fifo.first;
}

struct stream_entry *stream_take(struct stream_list *list)
{
    struct stream_entry *entry = (struct stream_entry *)fifo_pop(&list->fifo);

    list->count -= entry != NULL;
    return entry;
}

/* Adds a receiver to a batch. False if it has STREAM_KEYS_MAX. */
static bool stream_add_key(struct stream_batch *batch, struct str key)
{
    for (size_t i = 0; i < batch->key_count; i++)
        if (str_equal(batch->keys[i], key))
            return true;
    if (batch->key_count == STREAM_KEYS_MAX)
        return false;
    batch->keys[batch->key_count++] = key;
    return true;
}

struct stream_batch *stream_form(struct stream *stream, uint32_t most)
{
    struct stream_batch *batch = calloc(1, sizeof *batch), **end = &stream->in_flight;
    struct stream_entry *entry;
    size_t length = 0;

    if (!batch)
        return NULL;
    batch->first_seq = stream->next_seq;
    batch->carrier = -1;
    while ((entry = stream_first(&stream->waiting)) && batch->entries.count < most) {
        length += 4 + entry->text.length;
        if ((batch->entries.count && length > STREAM_BATCH_BYTES) ||
            !stream_add_key(batch, entry->key))
            break;
        batch->cost += stream_cost(entry);
        stream_append(&batch->entries, stream_take(&stream->waiting));
    }
    stream->next_seq += batch->entries.count;
    while (*end)
        end = &(*end)->next;
    *end = batch;
    stream->in_flight_count++;
    return batch;
}

struct stream_batch *stream_find(const struct stream *stream, uint64_t first)
{
    struct stream_batch *batch = stream->in_flight;

    while (batch && batch->first_seq != first)
        batch = batch->next;
    return batch;
}

void stream_remove(struct stream *stream, struct stream_batch *batch)
{
    struct stream_batch **at = &stream->in_flight;

    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    stream->in_flight_count--;
}

void stream_free_list(struct stream_list *list)
{
    struct stream_entry *entry;

    while ((entry = stream_take(list)))
        free(entry);
}

void stream_free_batch(struct stream_batch *batch)
{
    stream_free_list(&batch->entries);
    free(batch);
}

void stream_free(struct stream *stream)
{
    struct stream_batch *batch;

    stream_free_list(&stream->waiting);
    while ((batch = stream->in_flight)) {
        stream_remove(stream, batch);
        stream_free_batch(batch);
    }
}

/* --- slots ------------------------------------------------------------------------------------ */

/* Puts a slot into the ring once. */
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

/* True if a slot should be unbound but is relied on. */
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
    slots->slots[slot].maybe_bound |= binding->bound;
    slots->slots[slot].confirmed &= binding->bound;
    slots->asked[(slots->asked_first + slots->asked_count++) % SLOTS_ASKED_MAX] = *binding;
    return true;
}

/* True if a later binding of the slot is unanswered. */
static bool slots_is_asked(const struct slots *slots, uint16_t slot)
{
    for (size_t i = 0; i < slots->asked_count; i++)
        if (slots->asked[(slots->asked_first + i) % SLOTS_ASKED_MAX].slot == slot)
            return true;
    return false;
}

bool slots_rely(struct slots *slots, uint16_t slot)
{
    if (!slots->slots[slot].confirmed || !slots->slots[slot].wanted)
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
    slots->slots[slot].maybe_bound &= binding->bound;
    slots->slots[slot].confirmed = binding->bound && !slots_is_asked(slots, slot);
    slots->restoring -= slots->slots[slot].restoring;
    slots->slots[slot].restoring = false;
    return true;
}

void slots_restore(struct slots *slots, int64_t since)
{
    slots->asked_count = slots->dirty_count = slots->restoring = 0;
    for (unsigned i = 0; i < WIRE_SLOTS; i++)
        slots->slots[i].dirty = slots->slots[i].restoring = slots->slots[i].confirmed = false;
    for (int recent = 1; recent >= 0; recent--) {
        for (unsigned i = 0; i < WIRE_SLOTS; i++) {
            if ((!slots->slots[i].wanted && !slots->slots[i].maybe_bound) ||
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

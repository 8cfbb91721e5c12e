/* cluster_stream.c - entries that wait, batches in flight. */
#include "cluster_stream.h"

#include <stdlib.h>
#include <string.h>

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
    entry->next = NULL;
    if (list->last)
        list->last->next = entry;
    else
        list->first = entry;
    list->last = entry;
    list->count++;
}

struct stream_entry *stream_take(struct stream_list *list)
{
    struct stream_entry *entry = list->first;

    if (!entry)
        return NULL;
    list->first = entry->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return entry;
}

/* Adds a receiver to a batch. False if it has too many. */
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
    batch->first = stream->next;
    batch->carrier = -1;
    while ((entry = stream->waiting.first) && batch->entries.count < most) {
        length += 4 + entry->text.length;
        if ((batch->entries.count && length > STREAM_BATCH_BYTES) ||
            !stream_add_key(batch, entry->key))
            break;
        batch->cost += stream_cost(entry);
        stream_append(&batch->entries, stream_take(&stream->waiting));
    }
    stream->next += batch->entries.count;
    while (*end)
        end = &(*end)->next;
    *end = batch;
    stream->flying++;
    return batch;
}

struct stream_batch *stream_find(const struct stream *stream, uint64_t first)
{
    struct stream_batch *batch = stream->in_flight;

    while (batch && batch->first != first)
        batch = batch->next;
    return batch;
}

void stream_remove(struct stream *stream, struct stream_batch *batch)
{
    struct stream_batch **at = &stream->in_flight;

    while (*at != batch)
        at = &(*at)->next;
    *at = batch->next;
    stream->flying--;
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

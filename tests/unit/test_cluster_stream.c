/* test_cluster_stream.c - cluster_stream.c: batches take what waits in its order, up to their
 * limits, and are numbered without holes. */
#include "cluster_stream.h"

#include "test.h"

#define LEAST 500

static struct stream stream;

static void add(unsigned slot, size_t length)
{
    char *text = calloc(1, length ? length : 1), key[8];
    struct stream_entry *entry;

    if (!text)
        abort();
    snprintf(key, sizeof key, "%u", slot);
    entry = stream_new(str_from(key), (struct str){text, length}, LEAST);
    free(text);
    if (!entry)
        abort();
    entry->id = slot;
    CHECK(stream_cost(entry) == sizeof *entry + strlen(key) + length);
    stream_append(&stream.waiting, entry);
}

/* Forms a batch and compares it; it stays in flight. */
static bool forms(uint32_t most, uint64_t first, uint32_t count, size_t keys)
{
    struct stream_batch *batch = stream_form(&stream, most);

    return batch && batch->first == first && batch->entries.count == count &&
           batch->key_count == keys && stream_find(&stream, first) == batch;
}

static void an_entry_copies_its_texts(void)
{
    char *key = exact_bytes(STR("@a")), *text = exact_bytes(STR("text"));
    struct stream_entry *entry = stream_new((struct str){key, 2}, (struct str){text, 4}, LEAST);

    free(key);
    free(text);
    CHECK(entry && str_equal(entry->key, STR("@a")) && str_equal(entry->text, STR("text")));
    memset(entry, 1, LEAST); /* there is room for what it becomes */
    free(entry);
    entry = stream_new(STR("1"), (struct str){0}, 1);
    CHECK(entry && entry->text.length == 0);
    free(entry);
}

static void batches_are_numbered_without_holes(void)
{
    memset(&stream, 0, sizeof stream);
    stream.next = 1;
    for (unsigned i = 0; i < 10; i++)
        add(i % 3, 10);
    free(stream_take(&stream.waiting)); /* one that is dropped */
    CHECK(forms(4, 1, 4, 3) && stream.flying == 1 && stream.waiting.count == 5);
    CHECK(forms(UINT32_MAX, 5, 5, 3) && stream.flying == 2 && !stream.waiting.first);
    add(1, 10);
    CHECK(forms(UINT32_MAX, 10, 1, 1) && stream.flying == 3 && stream.in_flight->first == 1);
    CHECK(!stream_find(&stream, 2) && !stream_find(&stream, 0) && !stream_find(&stream, 11));
    for (uint64_t first = 5; first; first = first == 5 ? 10 : first == 10 ? 1 : 0) {
        struct stream_batch *batch = stream_find(&stream, first);

        stream_remove(&stream, batch);
        CHECK(!stream_find(&stream, first));
        stream_free_batch(batch);
    }
    CHECK(stream.flying == 0 && !stream.in_flight);
    add(1, 10);
    CHECK(forms(UINT32_MAX, 11, 1, 1));
    stream_free(&stream);
}

static void a_batch_has_limits(void)
{
    memset(&stream, 0, sizeof stream);
    for (int i = 0; i < 10; i++)
        add(1, STREAM_BATCH_BYTES / 4 - 4);
    CHECK(forms(UINT32_MAX, 0, 4, 1) && forms(UINT32_MAX, 4, 4, 1) && forms(UINT32_MAX, 8, 2, 1));
    add(1, 1);
    add(1, 10 * STREAM_BATCH_BYTES); /* alone */
    add(1, 1);
    CHECK(forms(UINT32_MAX, 10, 1, 1) && forms(UINT32_MAX, 11, 1, 1));
    CHECK(forms(UINT32_MAX, 12, 1, 1) && !stream.waiting.first);
    for (unsigned i = 0; i < 2 * STREAM_KEYS_MAX + 1; i++)
        add(i / 2, 1);
    CHECK(forms(UINT32_MAX, 13, 2 * STREAM_KEYS_MAX, STREAM_KEYS_MAX));
    CHECK(forms(UINT32_MAX, 13 + 2 * STREAM_KEYS_MAX, 1, 1));
    stream_free(&stream);
}

int main(void)
{
    test_run("an_entry_copies_its_texts", an_entry_copies_its_texts);
    test_run("batches_are_numbered_without_holes", batches_are_numbered_without_holes);
    test_run("a_batch_has_limits", a_batch_has_limits);
    return test_finish();
}

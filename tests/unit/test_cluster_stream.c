/* test_cluster_stream.c - cluster_stream.c: batches take entries in order, up to their limits, and
 * are numbered without holes; each slot is asked for as it was last set, once, and on a new
 * connection again, the recent ones first. */
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

    return batch && batch->first_seq == first && batch->entries.count == count &&
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
    stream.next_seq = 1;
    for (unsigned i = 0; i < 10; i++)
        add(i % 3, 10);
    free(stream_take(&stream.waiting)); /* one that is dropped */
    CHECK(forms(4, 1, 4, 3) && stream.in_flight_count == 1 && stream.waiting.count == 5);
    CHECK(forms(UINT32_MAX, 5, 5, 3) && stream.in_flight_count == 2 && !stream.waiting.count);
    add(1, 10);
    CHECK(forms(UINT32_MAX, 10, 1, 1) && stream.in_flight_count == 3 &&
          stream.in_flight->first_seq == 1);
    CHECK(!stream_find(&stream, 2) && !stream_find(&stream, 0) && !stream_find(&stream, 11));
    for (uint64_t first = 5; first; first = first == 5 ? 10 : first == 10 ? 1 : 0) {
        struct stream_batch *batch = stream_find(&stream, first);

        stream_remove(&stream, batch);
        CHECK(!stream_find(&stream, first));
        stream_free_batch(batch);
    }
    CHECK(stream.in_flight_count == 0 && !stream.in_flight);
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
    CHECK(forms(UINT32_MAX, 12, 1, 1) && !stream.waiting.count);
    for (unsigned i = 0; i < 2 * STREAM_KEYS_MAX + 1; i++)
        add(i / 2, 1);
    CHECK(forms(UINT32_MAX, 13, 2 * STREAM_KEYS_MAX, STREAM_KEYS_MAX));
    CHECK(forms(UINT32_MAX, 13 + 2 * STREAM_KEYS_MAX, 1, 1));
    stream_free(&stream);
}

/* --- slots ------------------------------------------------------------------------------------ */

static struct slots slots;

/* True if this is asked for next. */
static bool asks(uint16_t slot, uint32_t version, bool bound)
{
    struct slots_binding binding;

    return slots_ask(&slots, 100, &binding) && binding.slot == slot && binding.version == version &&
           binding.bound == bound && binding.at == 100;
}

static bool answers(uint16_t slot, uint32_t version, bool bound)
{
    struct slots_binding binding;

    return slots_answer(&slots, &binding) && binding.slot == slot && binding.version == version &&
           binding.bound == bound;
}

static void the_last_call_counts(void)
{
    struct slots_binding binding;

    memset(&slots, 0, sizeof slots);
    CHECK(!slots_can_ask(&slots) && !slots_ask(&slots, 1, &binding));
    CHECK(!slots_answer(&slots, &binding) && slots_oldest(&slots, 7) == 7);
    slots_set(&slots, 5, 1, true, 10);
    slots_set(&slots, 16383, 1, true, 11);
    slots_set(&slots, 5, 2, false, 12);
    slots_set(&slots, 5, 3, true, 13);
    CHECK(asks(5, 3, true) && slots_oldest(&slots, 7) == 100 && asks(16383, 1, true));
    CHECK(!slots_can_ask(&slots) && answers(5, 3, true) && answers(16383, 1, true));
    slots_set(&slots, 5, 4, false, 14);
    CHECK(asks(5, 4, false));
    slots_set(&slots, 5, 5, true, 15); /* while the other is under way */
    CHECK(asks(5, 5, true) && answers(5, 4, false) && answers(5, 5, true));
    CHECK(!slots_answer(&slots, &binding) && slots_oldest(&slots, 7) == 7);
}

static void no_more_are_asked_for_than_can_be_noted(void)
{
    memset(&slots, 0, sizeof slots);
    for (unsigned i = 0; i < WIRE_SLOTS; i++)
        slots_set(&slots, (uint16_t)i, i, true, 10);
    for (unsigned i = 0; i < WIRE_SLOTS; i++) {
        CHECK(asks((uint16_t)i, i, true));
        if (i >= SLOTS_ASKED_MAX - 1)
            CHECK(!slots_can_ask(&slots) &&
                  answers((uint16_t)(i - SLOTS_ASKED_MAX + 1), i - SLOTS_ASKED_MAX + 1, true));
    }
    for (unsigned i = WIRE_SLOTS - SLOTS_ASKED_MAX + 1; i < WIRE_SLOTS; i++)
        CHECK(answers((uint16_t)i, i, true));
    CHECK(!slots_can_ask(&slots));
}

static void all_is_restored(void)
{
    struct slots_binding binding;

    memset(&slots, 0, sizeof slots);
    for (uint16_t slot = 1; slot <= 4; slot++)
        slots_set(&slots, slot, slot, true, slot * 10);
    CHECK(asks(1, 1, true) && asks(2, 2, true) && answers(1, 1, true)); /* 2 may be bound or not */
    slots_set(&slots, 1, 9, false, 50);
    CHECK(asks(3, 3, true) && asks(4, 4, true) && asks(1, 9, false));
    CHECK(answers(2, 2, true) && answers(3, 3, true) && answers(4, 4, true));
    /* 1 may still be bound */
    slots_restore(&slots, 30);
    CHECK(slots.restoring == 3 && !slots_answer(&slots, &binding));
    CHECK(asks(1, 9, false) && asks(3, 3, true) && asks(4, 4, true) && asks(2, 2, true));
    CHECK(answers(1, 9, false) && slots.restoring == 2);
    slots_set(&slots, 4, 10, false, 60); /* what is set meanwhile is not waited for as well */
    CHECK(asks(4, 10, false) && answers(3, 3, true) && answers(4, 4, true));
    CHECK(slots.restoring == 0 && answers(2, 2, true) && answers(4, 10, false));
    CHECK(slots.restoring == 0);
    slots_restore(&slots, INT64_MIN); /* all: but 1 and 4, which are known to be unbound */
    CHECK(slots.restoring == 2 && asks(2, 2, true) && asks(3, 3, true) && !slots_can_ask(&slots));
}

static void what_is_relied_on_stays_bound(void)
{
    memset(&slots, 0, sizeof slots);
    CHECK(!slots_rely(&slots, 5));
    slots_set(&slots, 5, 1, true, 10);
    CHECK(!slots_rely(&slots, 5) && asks(5, 1, true) && !slots_rely(&slots, 5));
    CHECK(answers(5, 1, true) && slots_rely(&slots, 5) && slots_rely(&slots, 5));
    slots_set(&slots, 5, 2, false, 11);
    CHECK(!slots_rely(&slots, 5) && !asks(5, 2, false));
    slots_set(&slots, 6, 1, true, 12); /* others do not wait for it */
    CHECK(asks(6, 1, true) && !asks(5, 2, false));
    slots_release(&slots, 5);
    CHECK(!asks(5, 2, false));
    slots_release(&slots, 5);
    CHECK(asks(5, 2, false) && !slots_rely(&slots, 5));
    slots_set(&slots, 5, 3, true, 13);
    CHECK(asks(5, 3, true) && answers(6, 1, true) && answers(5, 2, false));
    CHECK(!slots_rely(&slots, 5) && answers(5, 3, true) && slots_rely(&slots, 5));
    slots_release(&slots, 5);
    slots_set(&slots, 5, 4, false, 14);
    CHECK(asks(5, 4, false));
    slots_set(&slots, 5, 5, true, 15);
    CHECK(!slots_rely(&slots, 5) && asks(5, 5, true) && !slots_rely(&slots, 5));
    CHECK(answers(5, 4, false) && answers(5, 5, true) && slots_rely(&slots, 5));
    slots_release(&slots, 5);
    slots_restore(&slots, INT64_MIN); /* a new connection */
    CHECK(!slots_rely(&slots, 5) && asks(5, 5, true));
}

int main(void)
{
    test_run("an_entry_copies_its_texts", an_entry_copies_its_texts);
    test_run("batches_are_numbered_without_holes", batches_are_numbered_without_holes);
    test_run("a_batch_has_limits", a_batch_has_limits);
    test_run("the_last_call_counts", the_last_call_counts);
    test_run("no_more_are_asked_for_than_can_be_noted", no_more_are_asked_for_than_can_be_noted);
    test_run("all_is_restored", all_is_restored);
    test_run("what_is_relied_on_stays_bound", what_is_relied_on_stays_bound);
    return test_finish();
}

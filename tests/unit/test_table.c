/* test_table.c - tests the hash table of pointers against a plain list of what should be in it. */
#include "table.h"
#include "test.h"

#include <stdlib.h>

#define ITEMS 600
#define STEPS 12000

/* An entry, and the reference: whether it should be in the table. */
struct item {
    uint32_t hash;
    bool in;
};

/* How often a search for the item's hash meets it; *strangers counts what has another hash. */
static size_t times_found(const struct table *table, const struct item *item, size_t *strangers)
{
    struct table_cursor cursor = {.hash = item->hash};
    size_t times = 0;

    for (struct item *found; (found = table_next(table, &cursor)) != NULL;) {
        times += found == item;
        *strangers += found->hash != item->hash || !found->in;
    }
    *strangers += table_next(table, &cursor) != NULL; /* the end stays the end */
    return times;
}

/* Looks for every item, walks over all, and compares both with the reference. */
static bool agrees(const struct table *table, const struct item items[ITEMS])
{
    size_t expected = 0, wrong = 0, walked = 0, place = 0;
    bool seen[ITEMS] = {false};

    for (size_t i = 0; i < ITEMS; i++) {
        expected += items[i].in;
        wrong += times_found(table, &items[i], &wrong) != items[i].in;
    }
    for (struct item *item; (item = table_walk(table, &place)) != NULL; walked++) {
        wrong += !item->in || seen[item - items];
        seen[item - items] = true;
    }
    wrong += table_walk(table, &place) != NULL;
    wrong += (table->capacity & (table->capacity - 1)) != 0 && table->capacity != 0;
    return wrong == 0 && walked == expected && table->count == expected;
}

/* Adds and removes at random; with `fill` of 8 steps adding, so that the table grows or shrinks. */
static bool random_steps(struct table *table, struct item items[ITEMS], uint32_t *random,
                         unsigned fill)
{
    for (size_t step = 0; step < STEPS; step++) {
        struct item *item = &items[next_random(random) % ITEMS];
        bool add = next_random(random) % 8 < fill;
        size_t strangers = 0;

        if (add && !item->in)
            item->in = table_add(table, item->hash, item);
        else if (!add && table_remove(table, item->hash, item) != item->in)
            return false;
        else if (!add)
            item->in = false;
        if (times_found(table, item, &strangers) != item->in || strangers)
            return false;
        if (step % 1000 == 0 && !agrees(table, items))
            return false;
    }
    return agrees(table, items);
}

/* `range` different hashes, `stride` apart. */
static void check_random(uint32_t range, uint32_t stride)
{
    static struct item items[ITEMS];
    static const unsigned fills[] = {6, 4, 2, 7, 1};
    struct table table = {0};
    uint32_t random = 2463534242u;

    for (size_t i = 0; i < ITEMS; i++)
        items[i] = (struct item){next_random(&random) % range * stride, false};
    for (size_t i = 0; i < sizeof fills / sizeof fills[0]; i++)
        if (!CHECK(random_steps(&table, items, &random, fills[i])))
            printf("  with %u hashes %u apart, round %zu\n", range, stride, i);
    table_free(&table);
    CHECK(table.entries == NULL && table.hashes == NULL && !table.capacity && !table.count);
}

static void random_hashes(void)
{
    check_random(UINT32_MAX, 1);
}

static void neighbouring_hashes(void)
{
    check_random(ITEMS, 1);
    check_random(ITEMS, 0x10000);
    check_random(16, 0x10000000);
}

static void colliding_hashes(void)
{
    check_random(20, 0x9e3779b1);
    check_random(5, 1);
}

static void one_hash_for_all(void)
{
    struct item items[40];
    struct table table = {0};
    size_t strangers = 0;

    for (size_t i = 0; i < 40; i++) {
        items[i] = (struct item){UINT32_MAX, true};
        CHECK(table_add(&table, UINT32_MAX, &items[i]));
    }
    for (size_t i = 0; i < 40; i += 2) {
        CHECK(table_remove(&table, UINT32_MAX, &items[i]));
        items[i].in = false;
    }
    for (size_t i = 0; i < 40; i++)
        CHECK(times_found(&table, &items[i], &strangers) == i % 2);
    CHECK(strangers == 0 && table.count == 20);
    table_free(&table);
}

static void an_empty_table_holds_nothing(void)
{
    struct item item = {1, false};
    struct table table = {0};
    size_t strangers = 0, place = 0;

    CHECK(times_found(&table, &item, &strangers) == 0 && strangers == 0);
    CHECK(table_walk(&table, &place) == NULL);
    CHECK(!table_remove(&table, 1, &item));
    table_free(&table);
    CHECK(table_add(&table, 1, &item) && table.count == 1);
    CHECK(table_remove(&table, 1, &item) && table.count == 0);
    CHECK(!table_remove(&table, 1, &item));
    CHECK(times_found(&table, &item, &strangers) == 0 && table_walk(&table, &place) == NULL);
    table_free(&table);
    table_free(&table);
}

static void what_is_not_there_is_not_removed(void)
{
    static struct item items[ITEMS];
    struct item stranger = {0, false};
    struct table table = {0};
    size_t removed = 0;

    for (size_t i = 0; i < ITEMS; i++) {
        items[i] = (struct item){(uint32_t)i % 50, true};
        CHECK(table_add(&table, items[i].hash, &items[i]));
    }
    for (uint32_t hash = 0; hash < 60; hash++) {
        removed += table_remove(&table, hash, &stranger);
        removed += table_remove(&table, hash, NULL);
        for (size_t i = 0; i < ITEMS; i++) /* there, but under another hash */
            removed += items[i].hash != hash && table_remove(&table, hash, &items[i]);
    }
    CHECK(removed == 0 && agrees(&table, items));
    table_free(&table);
}

/* A walk in pieces, while a third of the items leave and others come: it visits all that stay. */
static void a_scan_goes_on_after_changes(void)
{
    static struct item items[ITEMS];
    struct table table = {0};
    struct table_scan scan = {0};
    size_t missed = 0, visits = 0;
    uint32_t random = 88172645u;

    for (size_t i = 0; i < ITEMS; i++) { /* long runs, also around the end */
        items[i] = (struct item){next_random(&random) % 100 * 0x9e3779b1, false};
        if (i < ITEMS / 3 * 2)
            CHECK(table_add(&table, items[i].hash, &items[i]));
    }
    for (size_t next = 0;; visits++) {
        struct item *item = table_scan_next(&table, &scan);

        if (!item)
            break;
        item->in = true;
        if (visits % 3 || next == ITEMS / 3)
            continue;
        CHECK(table_remove(&table, items[next].hash, &items[next]));
        CHECK(table_add(&table, items[next + ITEMS / 3 * 2].hash, &items[next + ITEMS / 3 * 2]));
        next++;
        scan.probes = 0;
    }
    for (size_t i = ITEMS / 3; i < ITEMS / 3 * 2; i++)
        missed += !items[i].in;
    CHECK(missed == 0 && visits < 20 * ITEMS && table_scan_next(&table, &scan) == NULL);
    table_free(&table);
    scan = (struct table_scan){0};
    CHECK(table_scan_next(&table, &scan) == NULL);
}

static void null_is_refused(void)
{
    struct item item = {7, true};
    struct table table = {0};
    size_t strangers = 0;

    CHECK(!table_add(&table, 7, NULL) && table.count == 0);
    CHECK(!table_remove(&table, 7, NULL));
    CHECK(table_add(&table, 7, &item) && !table_add(&table, 7, NULL));
    CHECK(!table_remove(&table, 7, NULL) && !table_remove(&table, 8, NULL));
    CHECK(table.count == 1 && times_found(&table, &item, &strangers) == 1 && strangers == 0);
    table_free(&table);
}

static void entries_are_not_freed(void)
{
    struct table table = {0};
    struct item *item = calloc(1, sizeof *item);

    if (!CHECK(item != NULL))
        return;
    CHECK(table_add(&table, 3, item));
    table_free(&table);
    CHECK(item->hash == 0 && !item->in);
    CHECK(table_add(&table, 3, item) && table_remove(&table, 3, item));
    CHECK(item->hash == 0);
    table_free(&table);
    free(item);
}

/* Walks that begin behind a rank: all items with that rank or a larger one are visited, homes in
 * the order of ranks, and in the same order after the table has grown. */
static void a_scan_begins_at_a_rank(void)
{
    static struct item items[ITEMS];
    struct table table = {0};
    struct table_scan scan = {0};
    uint32_t random = 1234567u, from, last = 0;

    for (size_t i = 0; i < ITEMS; i++) {
        items[i] = (struct item){next_random(&random), false};
        CHECK(table_add(&table, items[i].hash, &items[i]));
    }
    for (int round = 0; round < 100; round++) {
        size_t before = 0, missed = 0;
        struct item *item;

        from = next_random(&random);
        for (size_t i = 0; i < ITEMS; i++)
            items[i].in = false;
        table_scan_seek(&table, &scan, from);
        CHECK(table_scan_rank(&scan) <= from);
        for (last = 0; (item = table_scan_next(&table, &scan)); last = table_scan_rank(&scan)) {
            item->in = true;
            before += table_scan_rank(&scan) < last || table_rank(item->hash) < last;
        }
        for (size_t i = 0; i < ITEMS; i++)
            missed += table_rank(items[i].hash) >= from && !items[i].in;
        CHECK(!before && !missed);
    }
    table_free(&table);
}

int main(void)
{
    test_run("random_hashes", random_hashes);
    test_run("neighbouring_hashes", neighbouring_hashes);
    test_run("colliding_hashes", colliding_hashes);
    test_run("one_hash_for_all", one_hash_for_all);
    test_run("an_empty_table_holds_nothing", an_empty_table_holds_nothing);
    test_run("what_is_not_there_is_not_removed", what_is_not_there_is_not_removed);
    test_run("a_scan_goes_on_after_changes", a_scan_goes_on_after_changes);
    test_run("a_scan_begins_at_a_rank", a_scan_begins_at_a_rank);
    test_run("null_is_refused", null_is_refused);
    test_run("entries_are_not_freed", entries_are_not_freed);
    return test_finish();
}

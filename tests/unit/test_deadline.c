/* test_deadline.c - tests the heap of deadlines against a plain array of them. */
#include "deadline.h"
#include "test.h"

#define SLOTS 500
#define STEPS 30000

/* The reference: what each slot's deadline should be, if it has one. */
struct slot {
    int64_t at;
    bool set;
};

/* The first deadline is one of the earliest of the reference, and the count is right. */
static bool agrees(const struct deadlines *deadlines, const struct slot *slots, size_t count)
{
    const struct deadline *first = deadlines_first(deadlines);
    const struct slot *earliest = NULL;
    size_t set = 0;

    for (size_t i = 0; i < count; i++) {
        set += slots[i].set;
        if (slots[i].set && (!earliest || slots[i].at < earliest->at))
            earliest = &slots[i];
    }
    if (deadlines->count != set || !first != !earliest)
        return false;
    return !first || (first->at == earliest->at && first->slot < count && slots[first->slot].set &&
                      slots[first->slot].at == first->at);
}

/* Takes the earliest until none is left: they come in order, each once. */
static bool drains_in_order(struct deadlines *deadlines, struct slot *slots, size_t count)
{
    int64_t before = INT64_MIN;

    for (const struct deadline *first; (first = deadlines_first(deadlines)) != NULL;) {
        uint32_t slot = first->slot;

        if (first->at < before || !agrees(deadlines, slots, count))
            return false;
        before = first->at;
        deadlines_clear(deadlines, slot);
        slots[slot].set = false;
    }
    return agrees(deadlines, slots, count);
}

/* Sets, moves and clears at random, times within `range`, reserving more slots as it goes. */
static void check_random(uint32_t range, unsigned clears)
{
    struct slot slots[SLOTS] = {{0, false}};
    struct deadlines deadlines = {0};
    uint32_t random = 88172645u;
    size_t count = 1;
    bool good = true;

    for (size_t step = 0; good && step < STEPS; step++) {
        uint32_t slot = next_random(&random) % (uint32_t)count;
        int64_t at = (int64_t)(next_random(&random) % range) - range / 2;

        if (step % (STEPS / SLOTS) == 0 && count < SLOTS)
            good = deadlines_reserve(&deadlines, ++count);
        if (next_random(&random) % 8 < clears) {
            deadlines_clear(&deadlines, slot);
            slots[slot].set = false;
        } else {
            deadlines_set(&deadlines, slot, at);
            slots[slot] = (struct slot){at, true};
        }
        good = good && agrees(&deadlines, slots, count);
    }
    CHECK(good && count == SLOTS);
    CHECK(drains_in_order(&deadlines, slots, count));
    deadlines_free(&deadlines);
}

static void random_times(void)
{
    check_random(1000000000, 2);
    check_random(1000000000, 5);
}

static void equal_times(void)
{
    check_random(3, 2);
    check_random(50, 4);
}

static void rising_and_falling_times(void)
{
    struct slot slots[SLOTS] = {{0, false}};
    struct deadlines deadlines = {0};

    CHECK(deadlines_reserve(&deadlines, SLOTS));
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < SLOTS; i++) {
            slots[i] = (struct slot){round ? -(int64_t)i : (int64_t)i, true};
            deadlines_set(&deadlines, i, slots[i].at);
        }
        CHECK(drains_in_order(&deadlines, slots, SLOTS));
    }
    deadlines_free(&deadlines);
}

static void a_slot_has_one_deadline(void)
{
    static const int64_t times[] = {50, 10, 90, 50, INT64_MAX, INT64_MIN, 0};
    struct deadlines deadlines = {0};
    const struct deadline *first;

    CHECK(deadlines_reserve(&deadlines, 3));
    deadlines_set(&deadlines, 1, 40);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        deadlines_set(&deadlines, 2, times[i]);
        first = deadlines_first(&deadlines);
        CHECK(deadlines.count == 2 && first->at == (times[i] < 40 ? times[i] : 40));
        CHECK(first->slot == (times[i] < 40 ? 2 : 1));
    }
    deadlines_free(&deadlines);
}

static void nothing_is_first_of_none(void)
{
    struct deadlines deadlines = {0};

    CHECK(deadlines_first(&deadlines) == NULL);
    deadlines_clear(&deadlines, 0);
    deadlines_clear(&deadlines, UINT32_MAX);
    CHECK(deadlines_reserve(&deadlines, 4));
    deadlines_clear(&deadlines, 0);
    deadlines_clear(&deadlines, 3);
    deadlines_clear(&deadlines, 4);
    CHECK(deadlines_first(&deadlines) == NULL && deadlines.count == 0);
    deadlines_set(&deadlines, 3, 5);
    deadlines_clear(&deadlines, 2);
    CHECK(deadlines_first(&deadlines) && deadlines_first(&deadlines)->slot == 3);
    deadlines_clear(&deadlines, 3);
    deadlines_clear(&deadlines, 3);
    CHECK(deadlines_first(&deadlines) == NULL && deadlines.count == 0);
    deadlines_free(&deadlines);
}

static void reserving_keeps_what_is_set(void)
{
    struct deadlines deadlines = {0};

    CHECK(deadlines_reserve(&deadlines, 0) && deadlines_reserve(&deadlines, 2));
    deadlines_set(&deadlines, 1, 10);
    CHECK(deadlines_reserve(&deadlines, 1000) && deadlines.slots == 1000);
    deadlines_set(&deadlines, 999, 5);
    CHECK(deadlines_reserve(&deadlines, 1) && deadlines.slots == 1000);
    CHECK(deadlines_first(&deadlines)->slot == 999);
    deadlines_clear(&deadlines, 999);
    CHECK(deadlines_first(&deadlines)->slot == 1 && deadlines_first(&deadlines)->at == 10);
    deadlines_free(&deadlines);
}

static void absurd_numbers_of_slots_are_refused(void)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX / 2 + 1, SIZE_MAX / 16 + 1,
                                   SIZE_MAX / 16 + 3};
    struct deadlines deadlines = {0};

    CHECK(deadlines_reserve(&deadlines, 2));
    deadlines_set(&deadlines, 1, 7);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        CHECK(!deadlines_reserve(&deadlines, sizes[i]) && deadlines.slots == 2);
    CHECK(deadlines_first(&deadlines) && deadlines_first(&deadlines)->at == 7);
    deadlines_free(&deadlines);
}

static void freed_is_empty_and_usable(void)
{
    struct deadlines deadlines = {0};

    CHECK(deadlines_reserve(&deadlines, 3));
    deadlines_set(&deadlines, 2, 1);
    deadlines_free(&deadlines);
    CHECK(!deadlines.heap && !deadlines.place && !deadlines.count && !deadlines.slots);
    CHECK(deadlines_first(&deadlines) == NULL);
    CHECK(deadlines_reserve(&deadlines, 3) && deadlines_first(&deadlines) == NULL);
    deadlines_free(&deadlines);
    deadlines_free(&deadlines);
}

int main(void)
{
    test_run("random_times", random_times);
    test_run("equal_times", equal_times);
    test_run("rising_and_falling_times", rising_and_falling_times);
    test_run("a_slot_has_one_deadline", a_slot_has_one_deadline);
    test_run("nothing_is_first_of_none", nothing_is_first_of_none);
    test_run("reserving_keeps_what_is_set", reserving_keeps_what_is_set);
    test_run("absurd_numbers_of_slots_are_refused", absurd_numbers_of_slots_are_refused);
    test_run("freed_is_empty_and_usable", freed_is_empty_and_usable);
    return test_finish();
}

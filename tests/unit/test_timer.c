/* test_timer.c - tests the heap of timers against a plain array of them. */
#include "timer.h"
#include "test.h"

#define IDS 500
#define STEPS 30000

/* The reference: the time each id should have, if any. */
struct expected {
    int64_t at;
    bool set;
};

/* The first timer is one of the earliest of the reference, and the count is right. */
static bool agrees(const struct timers *timers, const struct expected *expected, size_t count)
{
    const struct timer *first = timer_first(timers);
    const struct expected *earliest = NULL;
    size_t set = 0;

    for (size_t i = 0; i < count; i++) {
        set += expected[i].set;
        if (expected[i].set && (!earliest || expected[i].at < earliest->at))
            earliest = &expected[i];
    }
    if (timers->count != set || !first != !earliest)
        return false;
    return !first || (first->at == earliest->at && first->id < count && expected[first->id].set &&
                      expected[first->id].at == first->at);
}

/* Takes the earliest until none is left: they come in order, each once. */
static bool drains_in_order(struct timers *timers, struct expected *expected, size_t count)
{
    int64_t before = INT64_MIN;

    for (const struct timer *first; (first = timer_first(timers)) != NULL;) {
        uint32_t id = first->id;

        if (first->at < before || !agrees(timers, expected, count))
            return false;
        before = first->at;
        timer_clear(timers, id);
        expected[id].set = false;
    }
    return agrees(timers, expected, count);
}

/* Sets, advances and clears at random, times within `range`, reserving more ids as it goes. */
static void check_random(uint32_t range, unsigned clears)
{
    struct expected expected[IDS] = {{0, false}};
    struct timers timers = {0};
    uint32_t random = 88172645u;
    size_t count = 1;
    bool good = true;

    for (size_t step = 0; good && step < STEPS; step++) {
        uint32_t id = next_random(&random) % (uint32_t)count;
        int64_t at = (int64_t)(next_random(&random) % range) - range / 2;

        if (step % (STEPS / IDS) == 0 && count < IDS)
            good = timer_reserve(&timers, ++count);
        if (next_random(&random) % 8 < clears) {
            timer_clear(&timers, id);
            expected[id].set = false;
        } else {
            timer_advance(&timers, id, at);
            if (!expected[id].set || at < expected[id].at)
                expected[id] = (struct expected){at, true};
        }
        good = good && agrees(&timers, expected, count);
    }
    CHECK(good && count == IDS);
    CHECK(drains_in_order(&timers, expected, count));
    timer_free(&timers);
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
    struct expected expected[IDS] = {{0, false}};
    struct timers timers = {0};

    CHECK(timer_reserve(&timers, IDS));
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < IDS; i++) {
            expected[i] = (struct expected){round ? -(int64_t)i : (int64_t)i, true};
            timer_advance(&timers, i, expected[i].at);
        }
        CHECK(drains_in_order(&timers, expected, IDS));
    }
    timer_free(&timers);
}

static void an_id_has_one_timer(void)
{
    static const int64_t times[] = {INT64_MAX, 50, 90, 50, 10, 50, INT64_MIN, 0};
    struct timers timers = {0};
    int64_t earliest = INT64_MAX;

    CHECK(timer_reserve(&timers, 3));
    timer_advance(&timers, 1, 40);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        const struct timer *first;

        if (times[i] < earliest)
            earliest = times[i];
        timer_advance(&timers, 2, times[i]);
        first = timer_first(&timers);
        CHECK(timers.count == 2 && first->at == (earliest < 40 ? earliest : 40));
        CHECK(first->id == (earliest < 40 ? 2 : 1));
    }
    timer_free(&timers);
}

static void nothing_is_first_of_none(void)
{
    struct timers timers = {0};

    CHECK(timer_first(&timers) == NULL);
    CHECK(timer_reserve(&timers, 4));
    timer_clear(&timers, 0);
    timer_clear(&timers, 3);
    CHECK(timer_first(&timers) == NULL && timers.count == 0);
    timer_advance(&timers, 3, 5);
    timer_clear(&timers, 2);
    CHECK(timer_first(&timers) && timer_first(&timers)->id == 3);
    timer_clear(&timers, 3);
    timer_clear(&timers, 3);
    CHECK(timer_first(&timers) == NULL && timers.count == 0);
    timer_free(&timers);
}

static void reserving_keeps_what_is_set(void)
{
    struct timers timers = {0};

    CHECK(timer_reserve(&timers, 2));
    timer_advance(&timers, 1, 10);
    CHECK(timer_reserve(&timers, 1000) && timers.ids == 1000);
    timer_advance(&timers, 999, 5);
    CHECK(timer_first(&timers)->id == 999);
    timer_clear(&timers, 999);
    CHECK(timer_first(&timers)->id == 1 && timer_first(&timers)->at == 10);
    timer_free(&timers);
}

static void freed_is_empty_and_usable(void)
{
    struct timers timers = {0};

    CHECK(timer_reserve(&timers, 3));
    timer_advance(&timers, 2, 1);
    timer_free(&timers);
    CHECK(!timers.heap && !timers.position && !timers.count && !timers.ids);
    CHECK(timer_first(&timers) == NULL);
    CHECK(timer_reserve(&timers, 3) && timer_first(&timers) == NULL);
    timer_free(&timers);
    timer_free(&timers);
}

int main(void)
{
    test_run("random times", random_times);
    test_run("equal times", equal_times);
    test_run("rising and falling times", rising_and_falling_times);
    test_run("an id has one timer", an_id_has_one_timer);
    test_run("nothing is first of none", nothing_is_first_of_none);
    test_run("reserving keeps what is set", reserving_keeps_what_is_set);
    test_run("freed is empty and usable", freed_is_empty_and_usable);
    return test_finish();
}

/* test_limit.c - attempts.c: so many failures at once, then one at a time. */
#include "limit.h"

#include "test.h"

#define START 5000000

static void a_burst_is_forgiven(void)
{
    struct throttle throttle = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 3; i++) {
        CHECK(throttle_wait(&throttle, 7, START) == 0);
        throttle_fail(&throttle, 7, START);
    }
    CHECK(throttle_wait(&throttle, 7, START) == 1000);
    CHECK(throttle_wait(&throttle, 7, START + 999) == 1);
    CHECK(throttle_wait(&throttle, 7, START + 1000) == 0);
}

static void then_one_at_a_time(void)
{
    struct throttle throttle = {.burst = 3, .pause = 1000};
    int64_t now = START;
    int allowed = 0;

    for (; now < START + 60000; now += 10)
        if (throttle_wait(&throttle, 7, now) == 0) {
            throttle_fail(&throttle, 7, now);
            allowed++;
        }
    CHECK(allowed == 3 + 59);
}

static void concurrent_failures_all_count(void)
{
    struct throttle throttle = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 10; i++)
        throttle_fail(&throttle, 7, START);
    CHECK(throttle_wait(&throttle, 7, START) == 8000);
    CHECK(throttle_wait(&throttle, 7, START + 8000) == 0);
}

static void time_forgives_a_burst_at_most(void)
{
    struct throttle throttle = {.burst = 3, .pause = 1000};

    for (int round = 0; round < 3; round++) {
        int64_t now = START + round * 100000;

        for (int i = 0; i < 3; i++) {
            CHECK(throttle_wait(&throttle, 7, now) == 0);
            throttle_fail(&throttle, 7, now);
        }
        CHECK(throttle_wait(&throttle, 7, now) == 1000); /* and no more than a burst is saved up */
    }
}

/* An attempt that was good, or was never made, leaves nothing behind; a burst does not grow by it.
 */
static void a_failure_can_be_taken_back(void)
{
    struct throttle throttle = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 10; i++) {
        throttle_fail(&throttle, 7, START + i);
        CHECK(throttle_wait(&throttle, 7, START + i) == 0);
        throttle_forgive(&throttle, 7);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(throttle_wait(&throttle, 7, START + 20) == 0);
        throttle_fail(&throttle, 7, START + 20);
    }
    CHECK(throttle_wait(&throttle, 7, START + 20) == 1000);
    throttle_forgive(&throttle, 7);
    CHECK(throttle_wait(&throttle, 7, START + 20) == 0);
    throttle_fail(&throttle, 7, START + 20);
    CHECK(throttle_wait(&throttle, 7, START + 20) == 1000);
    for (int i = 0; i < 10; i++) /* more than there were */
        throttle_forgive(&throttle, 7);
    for (int i = 0; i < 3; i++)
        throttle_fail(&throttle, 7, START + 20);
    CHECK(throttle_wait(&throttle, 7, START + 20) == 1000);
}

static void others_are_not_concerned(void)
{
    struct throttle throttle = {.burst = 1, .pause = 1000};
    int concerned = 0;

    throttle_fail(&throttle, 7, START);
    for (uint32_t who = 0; who < 10 * THROTTLE_CELLS; who++)
        concerned += throttle_wait(&throttle, who * 2654435761u, START) > 0;
    CHECK(concerned == 10);
    CHECK(throttle_wait(&throttle, UINT32_MAX, START) == 0);
    throttle_fail(&throttle, UINT32_MAX, START);
    CHECK(throttle_wait(&throttle, UINT32_MAX, START) > 0);
}

static void a_bucket_is_filled_at_its_rate(void)
{
    static const struct {
        int wait;
        const char *name;
        bool good;
    } rows[] = {
        {0, "shop", true},       {0, "shop", true},   {0, "shop", true},    {0, "shop", true},
        {0, "shop", false},      {0, "other", true},  {249, "shop", false}, {1, "shop", true},
        {0, "shop", false},      {500, "shop", true}, {0, "shop", true},    {0, "shop", false},
        {1000000, "shop", true}, {0, "shop", true},   {0, "shop", true},    {0, "shop", true},
        {0, "shop", false},      {0, "other", true},  {0, "other", true},   {0, "other", true},
        {0, "other", true},      {0, "other", false},
    };
    struct table buckets = {0};
    int64_t now = START;

    /* all names have the same hash, and yet a bucket each */
    for (size_t i = 0; i < COUNT(rows); i++) {
        now += rows[i].wait;
        if (!CHECK(buckets_take(&buckets, str_from(rows[i].name), 7, 4, now) == rows[i].good))
            printf("  that was row %zu\n", i);
    }
    CHECK(buckets.count == 2);
    CHECK(buckets_take(&buckets, STR("shop"), 7, 0, now) &&
          buckets_take(&buckets, STR("new"), 7, 0, now));
    CHECK(buckets.count == 2);
    CHECK(!buckets_take(&buckets, STR("shop"), 7, 10, now + 99));
    CHECK(buckets_take(&buckets, STR("shop"), 7, 10, now + 100));
    buckets_free(&buckets);
    CHECK(buckets.count == 0 && buckets_take(&buckets, STR("shop"), 7, 1, now));
    buckets_free(&buckets);
}

static void a_quota_counts_what_it_holds(void)
{
    static const struct {
        int64_t wait;
        bool passes;
        uint64_t held;
    } rows[] = {{0, true, 0},   {0, true, 0},  {0, false, 0},   {999, false, 0}, {1, true, 2},
                {500, true, 0}, {1, false, 0}, {498, false, 0}, {1, true, 2},    {5000, true, 0},
                {0, true, 0},   {0, false, 0}, {1000, true, 1}};
    struct quota quota = {.most = 2, .period = 1000};
    int64_t now = START;

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t held = 0;

        now += rows[i].wait;
        if (!CHECK(quota_take(&quota, now, &held) == rows[i].passes && held == rows[i].held))
            printf("  that was row %zu\n", i);
    }
}

int main(void)
{
    test_run("a_burst_is_forgiven", a_burst_is_forgiven);
    test_run("then_one_at_a_time", then_one_at_a_time);
    test_run("concurrent_failures_all_count", concurrent_failures_all_count);
    test_run("time_forgives_a_burst_at_most", time_forgives_a_burst_at_most);
    test_run("a_failure_can_be_taken_back", a_failure_can_be_taken_back);
    test_run("others_are_not_concerned", others_are_not_concerned);
    test_run("a_bucket_is_filled_at_its_rate", a_bucket_is_filled_at_its_rate);
    test_run("a_quota_counts_what_it_holds", a_quota_counts_what_it_holds);
    return test_finish();
}

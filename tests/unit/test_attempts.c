/* test_attempts.c - attempts.c: so many failures at once, then one at a time. */
#include "attempts.h"

#include "test.h"

#define START 5000000

static void a_burst_is_forgiven(void)
{
    struct attempts attempts = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 3; i++) {
        CHECK(attempts_wait(&attempts, 7, START) == 0);
        attempts_fail(&attempts, 7, START);
    }
    CHECK(attempts_wait(&attempts, 7, START) == 1000);
    CHECK(attempts_wait(&attempts, 7, START + 999) == 1);
    CHECK(attempts_wait(&attempts, 7, START + 1000) == 0);
}

static void then_one_at_a_time(void)
{
    struct attempts attempts = {.burst = 3, .pause = 1000};
    int64_t now = START;
    int allowed = 0;

    for (; now < START + 60000; now += 10)
        if (attempts_wait(&attempts, 7, now) == 0) {
            attempts_fail(&attempts, 7, now);
            allowed++;
        }
    CHECK(allowed == 3 + 59);
}

static void failures_that_were_under_way_are_paid_for(void)
{
    struct attempts attempts = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 10; i++)
        attempts_fail(&attempts, 7, START);
    CHECK(attempts_wait(&attempts, 7, START) == 8000);
    CHECK(attempts_wait(&attempts, 7, START + 8000) == 0);
}

static void time_makes_good(void)
{
    struct attempts attempts = {.burst = 3, .pause = 1000};

    for (int round = 0; round < 3; round++) {
        int64_t now = START + round * 100000;

        for (int i = 0; i < 3; i++) {
            CHECK(attempts_wait(&attempts, 7, now) == 0);
            attempts_fail(&attempts, 7, now);
        }
        CHECK(attempts_wait(&attempts, 7, now) == 1000); /* and no more than a burst is saved up */
    }
}

/* An attempt that was good, or was never made, leaves nothing behind; a burst does not grow by it.
 */
static void a_failure_can_be_taken_back(void)
{
    struct attempts attempts = {.burst = 3, .pause = 1000};

    for (int i = 0; i < 10; i++) {
        attempts_fail(&attempts, 7, START + i);
        CHECK(attempts_wait(&attempts, 7, START + i) == 0);
        attempts_forgive(&attempts, 7);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(attempts_wait(&attempts, 7, START + 20) == 0);
        attempts_fail(&attempts, 7, START + 20);
    }
    CHECK(attempts_wait(&attempts, 7, START + 20) == 1000);
    attempts_forgive(&attempts, 7);
    CHECK(attempts_wait(&attempts, 7, START + 20) == 0);
    attempts_fail(&attempts, 7, START + 20);
    CHECK(attempts_wait(&attempts, 7, START + 20) == 1000);
    for (int i = 0; i < 10; i++) /* more than there were */
        attempts_forgive(&attempts, 7);
    for (int i = 0; i < 3; i++)
        attempts_fail(&attempts, 7, START + 20);
    CHECK(attempts_wait(&attempts, 7, START + 20) == 1000);
}

static void others_are_not_concerned(void)
{
    struct attempts attempts = {.burst = 1, .pause = 1000};
    int concerned = 0;

    attempts_fail(&attempts, 7, START);
    for (uint32_t who = 0; who < 10 * ATTEMPTS_CELLS; who++)
        concerned += attempts_wait(&attempts, who * 2654435761u, START) > 0;
    CHECK(concerned == 10);
    CHECK(attempts_wait(&attempts, UINT32_MAX, START) == 0);
    attempts_fail(&attempts, UINT32_MAX, START);
    CHECK(attempts_wait(&attempts, UINT32_MAX, START) > 0);
}

int main(void)
{
    test_run("a burst is forgiven", a_burst_is_forgiven);
    test_run("then one at a time", then_one_at_a_time);
    test_run("failures that were under way are paid for",
             failures_that_were_under_way_are_paid_for);
    test_run("time makes good", time_makes_good);
    test_run("a failure can be taken back", a_failure_can_be_taken_back);
    test_run("others are not concerned", others_are_not_concerned);
    return test_finish();
}

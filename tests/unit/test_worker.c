/* test_worker.c - the clock, the start and the pauses of threads that may wait. */
#include "worker.h"

#include "test.h"

#include <signal.h>
#include <time.h>

static void the_clock_goes_on(void)
{
    int64_t before = worker_now();

    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    CHECK(worker_now() >= before + 20 && worker_now() < before + 20000);
}

static void *read_mask(void *argument)
{
    pthread_sigmask(SIG_SETMASK, NULL, argument);
    return NULL;
}

static void threads_get_no_signals(void)
{
    sigset_t there, here;
    pthread_t thread;

    CHECK(worker_start(&thread, read_mask, &there) && pthread_join(thread, NULL) == 0);
    CHECK(sigismember(&there, SIGTERM) == 1 && sigismember(&there, SIGINT) == 1);
    /* and the one that starts them goes on getting them */
    pthread_sigmask(SIG_SETMASK, NULL, &here);
    CHECK(sigismember(&here, SIGTERM) == 0);
}

static void pauses_grow_to_a_limit(void)
{
    static const int64_t expected[] = {100, 200, 400, 800, 1000, 1000};

    for (int round = 0; round < 100; round++) {
        int64_t pause = 0;

        for (size_t i = 0; i < COUNT(expected); i++) {
            int64_t wait = worker_pause(&pause, 1000);

            CHECK(pause == expected[i]);
            CHECK(wait >= pause / 2 && wait <= pause);
        }
    }
}

static void pauses_differ(void)
{
    int64_t first = 0, seen = 0, pause = 0;

    first = worker_pause(&pause, 3000);
    for (int i = 0; i < 100; i++) {
        pause = 0;
        seen += worker_pause(&pause, 3000) != first;
    }
    CHECK(seen > 50);
}

int main(void)
{
    test_run("the_clock_goes_on", the_clock_goes_on);
    test_run("threads_get_no_signals", threads_get_no_signals);
    test_run("pauses_grow_to_a_limit", pauses_grow_to_a_limit);
    test_run("pauses_differ", pauses_differ);
    return test_finish();
}

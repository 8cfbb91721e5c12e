/* worker.c - what threads that may wait, and whoever tries again, have in common. */
#include "worker.h"

#include "crypto.h"

#include <signal.h>
#include <time.h>

int64_t worker_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool worker_start(pthread_t *thread, void *(*work)(void *), void *argument)
{
    sigset_t all, before;
    bool started;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    started = pthread_create(thread, NULL, work, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

int64_t worker_pause(int64_t *pause, int64_t most)
{
    uint32_t random = 0;

    *pause = *pause ? *pause * 2 : WORKER_PAUSE_LEAST;
    if (*pause > most)
        *pause = most;
    crypto_random(&random, sizeof random);
    return *pause / 2 + random % (*pause / 2 + 1);
}

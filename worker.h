/* worker.h - what threads that may wait, and whoever tries again, have in common: a clock, a start
 * without signals, pauses that grow. */
#ifndef WSPUSH_WORKER_H
#define WSPUSH_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Milliseconds of the steady clock. */
int64_t worker_now(void);

/* Starts a thread that gets no signals: those are for the loop's. */
bool worker_start(pthread_t *thread, void *(*work)(void *), void *argument);

#define WORKER_PAUSE_LEAST 100

/* The next pause after a failure, in milliseconds: *pause doubles from WORKER_PAUSE_LEAST to
 * `most`, and the value is between half of it and all of it, so that those who failed together do
 * not try again together. Set *pause to 0 after a success. */
int64_t worker_pause(int64_t *pause, int64_t most);

#endif

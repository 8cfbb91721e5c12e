/* attempts.h - login throttle (GCRA): `burst` failures are forgiven at once, later ones one by one
 * as time passes. Every attempt counts as a failure from its start until attempts_forgive: attempts
 * that run at the same time cannot pass the limit together. Nobody is stored by name: each falls
 * into one of a fixed number of cells, so that strangers cannot make this grow. Who shares a cell
 * with others shares their failures. Refuses: nothing itself; it says when. */
#ifndef WSPUSH_ATTEMPTS_H
#define WSPUSH_ATTEMPTS_H

#include <stdint.h>

#define ATTEMPTS_CELLS 1024

/* Zeroed but for the first two, nobody has failed yet. */
struct attempts {
    int64_t burst;                    /* failures that are forgiven at once */
    int64_t pause;                    /* milliseconds in which one more is */
    int64_t paid_off[ATTEMPTS_CELLS]; /* when the last failure of a cell will be forgiven */
};

/* Milliseconds until `who`, a keyed hash, may try again; 0 for now. */
int64_t attempts_wait(const struct attempts *attempts, uint32_t who, int64_t now);

/* Counts an attempt as a failure. */
void attempts_fail(struct attempts *attempts, uint32_t who, int64_t now);

/* Takes one failure back: the attempt was good, or has not been made. */
void attempts_forgive(struct attempts *attempts, uint32_t who);

#endif

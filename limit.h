/* limit.h - how often something may be done: a token bucket per name, a login throttle (GCRA), and
 * a quota for lines of the log.
 *
 * All are pure functions of their state and of `now`, milliseconds of a steady clock. */
#ifndef WSPUSH_LIMIT_H
#define WSPUSH_LIMIT_H

#include "buf.h"
#include "table.h"

#define THROTTLE_CELLS 1024

/* Login throttle (GCRA): `burst` failures pass at once, then one per `pause` ms. Zeroed except for
 * these two, nothing has failed yet. */
struct throttle {
    int64_t burst;               /* failures that pass at once, at least 1 */
    int64_t pause;               /* milliseconds in which one more failure is forgiven */
    int64_t tat[THROTTLE_CELLS]; /* "theoretical arrival time": when a cell's last failure is
                                    forgiven */
};

/* Milliseconds until `key`, a keyed hash, may try again; 0: now. */
int64_t throttle_wait(const struct throttle *throttle, uint32_t key, int64_t now);

/* Counts an attempt as a failure. Call it when the attempt starts, so that attempts that run at the
 * same time cannot pass the limit together. */
void throttle_fail(struct throttle *throttle, uint32_t key, int64_t now);

/* Takes one failure back: the attempt succeeded, or was never made. */
void throttle_forgive(struct throttle *throttle, uint32_t key);

/* Takes a token of the bucket of `name`, one of those in `buckets`; `hash` is the name's keyed
 * hash. A bucket is filled at `rate` tokens a second up to one second's worth, and a new one is
 * full. False: it is empty. A rate of 0 sets no limit; without memory for a new bucket the call
 * passes. */
bool buckets_take(struct table *buckets, struct str name, uint32_t hash, uint64_t rate,
                  int64_t now);

/* Frees all buckets and the table. */
void buckets_free(struct table *buckets);

/* Quota: `most` events pass in a period of `period` ms; the others are counted. Zeroed except for
 * these two, nothing has happened yet. */
struct quota {
    uint64_t most;
    int64_t period;
    int64_t began;   /* when the present period did */
    uint64_t passed; /* events of the present period that passed */
    uint64_t held;   /* events that did not pass since the last one that did */
};

/* True if an event passes; *held is then the number of those before it that did not. */
bool quota_take(struct quota *quota, int64_t now, uint64_t *held);

#endif

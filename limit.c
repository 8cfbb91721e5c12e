/* limit.c - how often something may be done: a token bucket per name, a login throttle (GCRA), and
 * a quota for lines of the log.
 *
 * The throttle stores no names: a key falls into one of a fixed number of cells, so strangers that
 * try many names cannot make it grow, and keys that share a cell share their failures. Buckets are
 * kept by name and never dropped, so they are only for names that are known to exist: registered
 * systems. */
#include "limit.h"

#include <stdlib.h>
#include <string.h>

/* --- login throttle -------------------------------------------------------------------------- */

int64_t throttle_wait(const struct throttle *throttle, uint32_t key, int64_t now)
{
    int64_t debt = throttle->tat[key % THROTTLE_CELLS] - now;
    int64_t wait = debt - (throttle->burst - 1) * throttle->pause;

    return wait > 0 ? wait : 0;
}

void throttle_fail(struct throttle *throttle, uint32_t key, int64_t now)
{
    int64_t *tat = &throttle->tat[key % THROTTLE_CELLS];

    if (*tat < now) /* time without failures is not saved up */
        *tat = now;
    *tat += throttle->pause;
}

void throttle_forgive(struct throttle *throttle, uint32_t key)
{
    throttle->tat[key % THROTTLE_CELLS] -= throttle->pause;
}

/* --- token buckets --------------------------------------------------------------------------- */

struct bucket {
    double tokens;
    int64_t filled_at; /* milliseconds */
    size_t name_length;
    char name[];
};

/* The bucket of a name, a new one if need be; NULL without memory. */
static struct bucket *buckets_find(struct table *buckets, struct str name, uint32_t hash)
{
    struct table_cursor cursor = {.hash = hash};
    struct bucket *bucket;

    while ((bucket = table_next(buckets, &cursor)))
        if (str_equal((struct str){bucket->name, bucket->name_length}, name))
            return bucket;
    bucket = calloc(1, sizeof *bucket + name.length);
    if (!bucket || !table_add(buckets, hash, bucket)) {
        free(bucket);
        return NULL;
    }
    bucket->filled_at = INT64_MIN; /* never: it is filled now */
    bucket->name_length = name.length;
    memcpy(bucket->name, name.at, name.length);
    return bucket;
}

bool buckets_take(struct table *buckets, struct str name, uint32_t hash, uint64_t rate, int64_t now)
{
    struct bucket *bucket = rate ? buckets_find(buckets, name, hash) : NULL;

    if (!bucket)
        return true;
    bucket->tokens += ((double)now - (double)bucket->filled_at) * (double)rate / 1000;
    if (bucket->tokens > (double)rate)
        bucket->tokens = (double)rate;
    bucket->filled_at = now;
    if (bucket->tokens < 1)
        return false;
    bucket->tokens -= 1;
    return true;
}

void buckets_free(struct table *buckets)
{
    size_t place = 0;
    struct bucket *bucket;

    while ((bucket = table_walk(buckets, &place)))
        free(bucket);
    table_free(buckets);
}

/* --- quotas ---------------------------------------------------------------------------------- */

bool quota_take(struct quota *quota, int64_t now, uint64_t *held)
{
    if (now - quota->began >= quota->period) {
        quota->began = now;
        quota->passed = 0;
    }
    if (quota->passed >= quota->most) {
        quota->held++;
        return false;
    }
    quota->passed++;
    *held = quota->held;
    quota->held = 0;
    return true;
}

/* attempts.c - who may try again, and when. */
#include "attempts.h"

int64_t attempts_wait(const struct attempts *attempts, uint32_t who, int64_t now)
{
    int64_t debt = attempts->paid_off[who % ATTEMPTS_CELLS] - now;
    int64_t wait = debt - (attempts->burst - 1) * attempts->pause;

    return wait > 0 ? wait : 0;
}

void attempts_fail(struct attempts *attempts, uint32_t who, int64_t now)
{
    int64_t *paid_off = &attempts->paid_off[who % ATTEMPTS_CELLS];

    if (*paid_off < now)
        *paid_off = now;
    *paid_off += attempts->pause;
}

void attempts_forgive(struct attempts *attempts, uint32_t who)
{
    attempts->paid_off[who % ATTEMPTS_CELLS] -= attempts->pause;
}

/* account_queue.c - jobs that wait for the worker of account.c, shared out fairly among origins.
 *
 * A client that guesses passwords must not keep others out. Served in turn: the origin whose last
 * job is the longest ago comes first, as far as the ring of ACCOUNT_SERVED_MAX jobs remembers.
 * Evicted by share: of a full queue the origin with most jobs loses its newest. Queues are short
 * (48 jobs), so every question is a walk through the list. */
#include "account_queue.h"

#include "os.h"

#include <stdlib.h>
#include <string.h>

/* --- jobs ------------------------------------------------------------------------------------ */

enum account_job_kind account_job_queue(enum account_job_kind kind)
{
    switch (kind) {
    case ACCOUNT_REGISTER:
    case ACCOUNT_RESET_PASSWORD:
    case ACCOUNT_ROTATE_KEY:
    case ACCOUNT_SET_WEBHOOK:
        return ACCOUNT_REGISTER;
    case ACCOUNT_LOGIN:
    case ACCOUNT_SET_PASSWORD:
    case ACCOUNT_DELETE:
        return ACCOUNT_LOGIN;
    default:
        return ACCOUNT_REFRESH;
    }
}

struct account_job *account_job_new(const struct account_request *request)
{
    struct str first = request->password, second = request->new_password;
    struct str url = request->url;
    struct account_job *job = calloc(1, sizeof *job + first.length + second.length + url.length);

    if (!job)
        return NULL;
    job->result = (struct account_result){.request_id = request->request_id,
                                          .origin = request->origin,
                                          .kind = request->kind,
                                          .name_length = request->name.length};
    memcpy(job->result.address, request->address, sizeof job->result.address);
    memcpy(job->result.name, request->name.at, request->name.length);
    job->password_length = first.length;
    job->new_password_length = second.length;
    if (first.length)
        memcpy(job->passwords, first.at, first.length);
    if (second.length)
        memcpy(job->passwords + first.length, second.at, second.length);
    job->url_length = url.length;
    if (url.length)
        memcpy(job->passwords + first.length + second.length, url.at, url.length);
    job->events = request->events;
    job->rotate = request->rotate;
    job->due = request->delay ? os_now_ms() + request->delay : 0;
    return job;
}

void account_job_erase(struct account_job *job)
{
    crypto_erase(job->passwords, job->password_length + job->new_password_length);
}

void account_job_free(struct account_job *job)
{
    account_job_erase(job);
    crypto_erase(job, sizeof *job);
    free(job);
}

bool account_job_same_target(const struct account_job *a, const struct account_job *b)
{
    return a->result.origin == b->result.origin &&
           str_equal(account_job_name(a), account_job_name(b));
}

/* --- queues ---------------------------------------------------------------------------------- */

bool account_queue_push(struct account_queue *queue, struct account_job *job)
{
    if (queue->count >= queue->limit)
        return false;
    fifo_push(&queue->jobs, &job->link);
    queue->count++;
    return true;
}

struct account_job *account_queue_pop(struct account_queue *queue, struct account_job *before)
{
    struct fifo_link *link = fifo_remove_after(&queue->jobs, before ? &before->link : NULL);

    queue->count -= link != NULL;
    return (struct account_job *)link;
}

/* How many jobs ago this origin was served; ACCOUNT_SERVED_MAX if that is forgotten. */
static size_t account_served_ago(const struct account_served *served, uint32_t origin)
{
    size_t known = served->count < ACCOUNT_SERVED_MAX ? served->count : ACCOUNT_SERVED_MAX;

    for (size_t ago = 0; ago < known; ago++)
        if (served->origins[(served->count - 1 - ago) % ACCOUNT_SERVED_MAX] == origin)
            return ago;
    return ACCOUNT_SERVED_MAX;
}

struct account_job *account_queue_pop_fair(struct account_queue *queue,
                                           struct account_served *served, int64_t now)
{
    struct account_job *before = NULL, *best_before = NULL, *job;
    size_t most = 0;

    for (job = account_queue_first(queue); job; before = job, job = account_queue_next(job)) {
        size_t rank = job->due <= now ? 1 + account_served_ago(served, job->result.origin) : 0;

        if (rank > most) {
            most = rank;
            best_before = before;
        }
    }
    if (!most)
        return NULL;
    job = account_queue_pop(queue, best_before);
    served->origins[served->count++ % ACCOUNT_SERVED_MAX] = job->result.origin;
    return job;
}

/* The share of an origin if it had `more` jobs in the queue: first their number, then how recently
 * it was served. */
static size_t account_queue_share(const struct account_queue *queue,
                                  const struct account_served *served, uint32_t origin, size_t more)
{
    const struct account_job *job = account_queue_first(queue);

    for (; job; job = account_queue_next(job))
        more += job->result.origin == origin;
    return more * (ACCOUNT_SERVED_MAX + 1) + ACCOUNT_SERVED_MAX -
           account_served_ago(served, origin);
}

struct account_job *account_queue_evict(struct account_queue *queue,
                                        const struct account_served *served, uint32_t origin)
{
    struct account_job *before = NULL, *victim_before = NULL, *job;
    size_t most = 0;

    for (job = account_queue_first(queue); job; before = job, job = account_queue_next(job)) {
        size_t share = account_queue_share(queue, served, job->result.origin, 0);

        if (share >= most) {
            most = share;
            victim_before = before;
        }
    }
    return most > account_queue_share(queue, served, origin, 1)
               ? account_queue_pop(queue, victim_before)
               : NULL;
}

/* account_queue.h - jobs that wait for the worker of account.c, shared out fairly among origins.
 *
 * Holds no lock: the caller does. */
#ifndef WSPUSH_ACCOUNT_QUEUE_H
#define WSPUSH_ACCOUNT_QUEUE_H

#include "account_store.h"

#define ACCOUNT_PASSWORD_MAX 256
#define ACCOUNT_SERVED_MAX 256 /* jobs whose origins are remembered */

enum account_job_kind {
    ACCOUNT_REGISTER, /* the first three name the queues as well */
    ACCOUNT_LOGIN,
    ACCOUNT_REFRESH, /* has no result */
    ACCOUNT_LOOK_UP, /* asks the shared store what an account is now */
    /* changes: */
    ACCOUNT_ROTATE_KEY,     /* gives it the next ticket_version */
    ACCOUNT_SET_WEBHOOK,    /* sets `url` and `events`, and with `rotate` the next version */
    ACCOUNT_SET_PASSWORD,   /* verifies `password` and sets `new_password` */
    ACCOUNT_RESET_PASSWORD, /* sets `new_password` */
    ACCOUNT_DELETE          /* verifies `password` */
};

struct account_result {
    uint64_t request_id;       /* the caller's */
    uint32_t origin;           /* as submitted */
    unsigned char address[16]; /* the same */
    bool coalesced;            /* the outcome is that of another login with the same password */
    enum account_job_kind kind;
    enum account_outcome outcome;
    char reason[ACCOUNT_REASON_MAX]; /* with ACCOUNT_UNSAVED and ACCOUNT_UNREACHABLE */
    uint64_t generation;             /* of the account, if DONE */
    uint64_t ticket_version;         /* the same, of LOOK_UP and ROTATE_KEY */
    uint64_t webhook_version;        /* of SET_WEBHOOK */
    size_t name_length;
    char name[ACCOUNT_NAME_MAX];
};

struct account_request {
    enum account_job_kind kind;
    uint64_t request_id;
    uint32_t origin;           /* a hash of the client's address: jobs are shared out by it */
    unsigned char address[16]; /* the client's, for the log */
    struct str name, password; /* copied, as the next */
    struct str new_password;
    int64_t delay;   /* of a throttled login: milliseconds before it may start */
    struct str url;  /* of SET_WEBHOOK, as the next two; copied */
    uint64_t events; /* see struct account_webhook */
    bool rotate;
    bool likely; /* a login that is ACCOUNT_RECALL_LIKELY goes before others */
};

struct account_job {
    struct fifo_link link;         /* first */
    struct account_job *coalesced; /* the next of those that wait for the same outcome */
    struct account_result result;
    int64_t due;        /* os_now_ms() at which it may start; 0: now */
    bool was_throttled; /* the same password was throttled before */
    uint64_t events;
    bool rotate;
    size_t password_length, new_password_length, url_length;
    char passwords[]; /* the two, and the URL */
};

/* Zeroed except for its limit, it is empty. */
struct account_queue {
    struct fifo jobs;
    size_t count, limit;
};

/* The origins of the jobs done last, a ring. Zeroed is empty. */
struct account_served {
    uint32_t origins[ACCOUNT_SERVED_MAX];
    size_t count; /* of all time */
};

/* The queue of a kind: jobs that verify a password wait with the logins, those that hash or store
 * without that with the registrations, those that only ask the store with the refreshes. */
enum account_job_kind account_job_queue(enum account_job_kind kind);

/* True for jobs that are DENIED if a password is wrong. */
static inline bool account_job_verifies(enum account_job_kind kind)
{
    return account_job_queue(kind) == ACCOUNT_LOGIN;
}

static inline bool account_job_changes(enum account_job_kind kind)
{
    return kind >= ACCOUNT_ROTATE_KEY;
}

/* Makes a job of a request, whose name and passwords must not be too long. `delay` becomes `due`.
 * NULL without memory. */
struct account_job *account_job_new(const struct account_request *request);

/* Overwrites the passwords of a job. */
void account_job_erase(struct account_job *job);

/* Erases and frees a job. */
void account_job_free(struct account_job *job);

static inline struct str account_job_name(const struct account_job *job)
{
    return (struct str){job->result.name, job->result.name_length};
}

static inline struct str account_job_password(const struct account_job *job)
{
    return (struct str){job->passwords, job->password_length};
}

static inline struct str account_job_new_password(const struct account_job *job)
{
    return (struct str){job->passwords + job->password_length, job->new_password_length};
}

static inline struct str account_job_url(const struct account_job *job)
{
    return (struct str){job->passwords + job->password_length + job->new_password_length,
                        job->url_length};
}

/* True if both are of the same origin and name. */
bool account_job_same_target(const struct account_job *a, const struct account_job *b);

/* The first job and the one behind a job; NULL: none. */
static inline struct account_job *account_queue_first(const struct account_queue *queue)
{
    return (struct account_job *)queue->jobs.first;
}

static inline struct account_job *account_queue_next(const struct account_job *job)
{
    return (struct account_job *)job->link.next;
}

/* Appends a job. False if the queue is full. */
bool account_queue_push(struct account_queue *queue, struct account_job *job);

/* Takes out the job after `before`, the first one if that is NULL. NULL: there is none. */
struct account_job *account_queue_pop(struct account_queue *queue, struct account_job *before);

/* Takes the oldest job that is due of the origin that was served least recently, and notes that it
 * is served now. NULL: none is due. */
struct account_job *account_queue_pop_fair(struct account_queue *queue,
                                           struct account_served *served, int64_t now);

/* Of a full queue, takes the newest job of the origin that has most jobs (of equals, the one served
 * most recently) to make a slot for a job of `origin`. NULL: that would not have fewer. */
struct account_job *account_queue_evict(struct account_queue *queue,
                                        const struct account_served *served, uint32_t origin);

#endif

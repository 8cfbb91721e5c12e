/* cluster_registry.c - the registry's thread, its jobs, and the accounts in Redis.
 *
 * Flow: the loop posts jobs, the thread posts events. A round of the thread: one pipeline of
 * look-ups (a client waits for each), one pipeline of operations on records, one step of a cleanup,
 * and before each of these the heartbeat if it is due (cluster_member.c, cluster_cleanup.c). Each
 * waits for at most REDIS_TIMEOUT, so no flood of jobs delays a heartbeat, and registry_close ends
 * after two or three of them.
 *
 * Records: operations are not kept while they cannot be done; their result is NOT_DONE at once.
 * Their pipeline begins with a GET of this node's key. If the key is gone, another node may have
 * removed records before or after these operations: their results are withheld until the next
 * heartbeat has found out, and so come behind REVIVED.
 *
 * Threads: the loop's, the registry's, and the accounts', which has its own connection. */
#include "cluster_registry.h"

#include "cluster_cleanup.h"
#include "cluster_member.h"
#include "redis.h"
#include "os.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REASON_MAX 250 /* bytes for the reason behind a FOUND event */
#define REPLACE_TRIES 5
#define REPLACE_PAUSE 150 /* milliseconds before a lost connection is made again */

enum registry_job_kind {
    JOB_LOOK_UP,
    JOB_WRITE,
    JOB_CLEAR,
    JOB_CLEAN_UP,
    JOB_CONTINUE,
    JOB_LEAVE,
    JOB_STOP
};

struct registry_job {
    struct fifo_link mail;
    enum registry_job_kind kind;
    uint64_t id;
    struct node_id node;
    struct registry_event *found; /* LOOK_UP: the event, allocated with the job */
    struct str name, text;
    char bytes[];
};

struct registry {
    struct mailbox mail, events;
    int pipe[2]; /* wakes the thread */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* guards `stats` */
    struct registry_stats stats;

    /* only the thread's: */
    struct store store;
    struct cluster_member member;
    struct cleanups cleanups;
    struct fifo look_ups, writes; /* struct registry_job */
    struct registry_event *withheld;
    bool stop, leave;

    /* only the accounts' thread's: */
    struct store account_store; /* its connection; names keys */
    struct account_store accounts;
};

/* --- jobs ------------------------------------------------------------------------------------ */

static void registry_free_job(struct registry_job *job)
{
    free(job->found);
    free(job);
}

static size_t registry_count(const struct fifo *jobs)
{
    size_t count = 0;

    for (struct fifo_link *job = jobs->first; job && count < REGISTRY_OPS_MAX; job = job->next)
        count++;
    return count;
}

/* Sorts a job into its queue, or does it. */
static void registry_take_job(struct registry *registry, struct registry_job *job)
{
    switch (job->kind) {
    case JOB_LOOK_UP:
        fifo_push(&registry->look_ups, &job->mail);
        return;
    case JOB_WRITE:
    case JOB_CLEAR:
        fifo_push(&registry->writes, &job->mail);
        return;
    case JOB_CLEAN_UP:
        cleanup_begin(&registry->cleanups, &job->node);
        break;
    case JOB_CONTINUE:
        cleanup_continue(&registry->cleanups, &job->node);
        break;
    case JOB_LEAVE:
    case JOB_STOP:
        registry->stop = true;
        registry->leave = job->kind == JOB_LEAVE;
        break;
    }
    registry_free_job(job);
}

static void registry_take_jobs(struct registry *registry)
{
    struct fifo_link *mail = mailbox_take(&registry->mail), *next;

    for (; mail; mail = next) {
        next = mail->next;
        registry_take_job(registry, (struct registry_job *)mail);
    }
}

/* --- look-ups -------------------------------------------------------------------------------- */

static void registry_post_found(struct registry *registry, struct registry_job *job,
                                const struct redis_reply *reply)
{
    struct registry_event *answer = job->found;
    char *reason = (char *)(answer + 1) + answer->text.length;

    job->found = NULL;
    answer->id = job->id;
    answer->found = reply->type != REDIS_NUMBER ? REGISTRY_UNREACHABLE
                    : reply->number             ? REGISTRY_YES
                                                : REGISTRY_NO;
    if (answer->found == REGISTRY_UNREACHABLE) {
        snprintf(reason, REASON_MAX, "%s", redis_reason(registry->store.redis));
        answer->reason = str_from(reason);
    }
    mailbox_post(&registry->events, &answer->mail);
}

/* One pipeline of look-ups. */
static void registry_look_up_some(struct registry *registry)
{
    struct store *store = &registry->store;
    struct store_key room;
    struct str accounts = store_name(store, "accounts", "", &room);
    struct fifo_link *next = registry->look_ups.first;
    size_t count = registry_count(&registry->look_ups);
    bool sent = true;

    for (size_t i = 0; sent && i < count; i++, next = next->next)
        sent = store_send_two(store, STR("HEXISTS"), accounts, ((struct registry_job *)next)->name);
    for (; count; count--) {
        struct registry_job *job = (struct registry_job *)fifo_pop(&registry->look_ups);
        struct redis_reply reply = {0};

        if (sent)
            store_next(store, &reply);
        registry_post_found(registry, job, &reply);
        registry_free_job(job);
    }
}

/* --- records --------------------------------------------------------------------------------- */

static bool registry_send_write(struct store *store, const struct registry_job *job,
                                struct str records)
{
    if (job->kind == JOB_CLEAR)
        return store_send_one(store, STR("DEL"), records);
    if (!job->text.length)
        return store_send_two(store, STR("HDEL"), records, job->name);
    return store_send(store, (struct str[]){STR("HSET"), records, job->name, job->text, {0}});
}

/* Sends a GET of this node's key and the first `count` operations. */
static bool registry_send_writes(struct registry *registry, size_t count)
{
    struct store *store = &registry->store;
    struct store_key node_room, room;
    struct str records = store_name(store, "records:", store->text, &room);
    struct fifo_link *job = registry->writes.first;
    bool sent =
        store_send_one(store, STR("GET"), store_name(store, "node:", store->self.name, &node_room));

    for (; sent && count; count--, job = job->next)
        sent = registry_send_write(store, (struct registry_job *)job, records);
    return sent;
}

static enum registry_change registry_read_change(struct store *store)
{
    struct redis_reply reply;

    if (store_next(store, &reply))
        return reply.number ? REGISTRY_CHANGED : REGISTRY_UNCHANGED;
    return reply.type == REDIS_ERROR ? REGISTRY_NOT_DONE : REGISTRY_UNKNOWN;
}

/* True if replies came so late that this node may have been cleaned up since they were sent: the
 * process stood still. */
static bool registry_is_late(const struct registry *registry)
{
    return registry->store.in_touch && !member_is_alive(&registry->member);
}

/* Does the first `count` operations and frees them. Returns false if this node was, or may have
 * been, cleaned up: then the results are withheld until a heartbeat has told, and REVIVED comes
 * before them. */
static bool registry_do_writes(struct registry *registry, size_t count,
                               struct registry_event *written)
{
    struct registry_result *results = (struct registry_result *)(written + 1);
    struct redis_reply reply = {0};
    bool sent = member_is_alive(&registry->member) && !registry->withheld &&
                registry_send_writes(registry, count);
    bool gone = sent && store_next(&registry->store, &reply) &&
                !str_equal(reply.text, str_from(registry->member.incarnation));

    for (; count; count--) {
        struct registry_job *job = (struct registry_job *)fifo_pop(&registry->writes);
        enum registry_change change =
            sent ? registry_read_change(&registry->store) : REGISTRY_NOT_DONE;

        if (job->kind == JOB_WRITE)
            results[written->count++] = (struct registry_result){job->id, change};
        registry_free_job(job);
    }
    written->results = results;
    return !gone && !(sent && registry_is_late(registry));
}

/* One pipeline of operations on records. */
static void registry_write_some(struct registry *registry)
{
    size_t count = registry_count(&registry->writes);
    struct registry_event *written;

    if (!count)
        return;
    written = store_new_event(REGISTRY_WRITTEN, count * sizeof(struct registry_result));
    if (!written)
        return; /* perhaps the next round has memory */
    if (!registry_do_writes(registry, count, written)) {
        registry->withheld = written;
        registry->store.beat_now = true;
    } else if (written->count) {
        mailbox_post(&registry->events, &written->mail);
    } else {
        free(written);
    }
}

/* --- the thread ------------------------------------------------------------------------------ */

/* Call before each piece of work: takes new jobs, does the heartbeat. Returns false to end. */
static bool registry_begin(struct registry *registry)
{
    registry_take_jobs(registry);
    if (registry->stop)
        return false;
    member_step(&registry->member);
    pthread_mutex_lock(&registry->lock);
    registry->stats.beat_at = registry->member.beat_at;
    pthread_mutex_unlock(&registry->lock);
    if (registry->withheld && member_is_alive(&registry->member)) {
        mailbox_post(&registry->events, &registry->withheld->mail);
        registry->withheld = NULL;
    }
    return !registry->member.name_conflict;
}

/* Waits until there is something to do. */
static void registry_wait(struct registry *registry)
{
    struct pollfd wake = {registry->pipe[0], POLLIN, 0};
    int64_t until = registry->member.next_beat, cleanup = cleanup_deadline(&registry->cleanups);
    int64_t wait = (cleanup < until ? cleanup : until) - os_now_ms();

    if (registry->look_ups.first || registry->writes.first || registry->store.beat_now || wait < 0)
        wait = 0;
    poll(&wake, 1, wait < INT_MAX ? (int)wait : INT_MAX);
    os_drain(registry->pipe[0]);
}

static void *registry_work(void *argument)
{
    struct registry *registry = argument;

    while (registry_begin(registry)) {
        registry_look_up_some(registry);
        if (!registry_begin(registry))
            break;
        registry_write_some(registry);
        if (!registry_begin(registry))
            break;
        cleanup_step(&registry->cleanups);
        registry_wait(registry);
    }
    if (registry->leave)
        member_leave(&registry->member);
    return NULL;
}

/* --- accounts -------------------------------------------------------------------------------- */

static enum account_outcome registry_find_account(void *state, struct str name, struct buf *record)
{
    struct store *store = state;
    struct store_key room;
    struct redis_reply reply;

    if (!redis_call_again(
            store->redis,
            (struct str[]){STR("HGET"), store_name(store, "accounts", "", &room), name, {0}},
            &reply))
        return ACCOUNT_UNREACHABLE;
    if (reply.type != REDIS_TEXT)
        return ACCOUNT_DENIED;
    buf_append(record, reply.text);
    return ACCOUNT_DONE;
}

static enum account_outcome registry_add_account(void *state, struct str name, struct str record)
{
    struct store *store = state;
    struct store_key room;
    struct redis_reply reply;
    struct str words[] = {
        STR("HSETNX"), store_name(store, "accounts", "", &room), name, record, {0}};
    struct buf present = {0};
    enum account_outcome result = ACCOUNT_EXISTS;

    if (!redis_call_again(store->redis, words, &reply))
        return ACCOUNT_UNREACHABLE;
    if (reply.number)
        return ACCOUNT_DONE;
    /* no two records are alike: this one may be from an attempt whose reply was lost */
    if (registry_find_account(state, name, &present) == ACCOUNT_DONE &&
        str_equal(str_of(&present), record))
        result = ACCOUNT_DONE;
    buf_free(&present);
    return result;
}

/* Watches the accounts, and gets the record of one. */
static bool registry_watch_account(struct store *store, struct str name, struct redis_reply *record)
{
    struct store_key room;
    struct str accounts = store_name(store, "accounts", "", &room);

    redis_renew(store->redis);
    return redis_append(store->redis, (struct str[]){STR("WATCH"), accounts, {0}}) &&
           redis_append(store->redis, (struct str[]){STR("HGET"), accounts, name, {0}}) &&
           redis_next(store->redis, record) && record->type != REDIS_ERROR &&
           redis_next(store->redis, record) && record->type != REDIS_ERROR;
}

/* Puts a record in the place of the one that was got, or nothing. `reply` is nil if an account has
 * changed since. */
static bool registry_put_account(struct store *store, struct str name, struct str record,
                                 struct redis_reply *reply)
{
    struct store_key room, list;
    struct str accounts = store_name(store, "accounts", "", &room);
    struct str remove[] = {STR("HDEL"), accounts, name, {0}};
    struct str set[] = {STR("HSET"), accounts, name, record, {0}};
    bool hooked = account_record_webhook(record).length;
    bool good = redis_append(store->redis, (struct str[]){STR("MULTI"), {0}}) &&
                redis_append(store->redis, record.length ? set : remove) &&
                redis_append(store->redis, (struct str[]){hooked ? STR("SADD") : STR("SREM"),
                                                          store_name(store, "webhooks", "", &list),
                                                          name,
                                                          {0}}) &&
                redis_append(store->redis, (struct str[]){STR("EXEC"), {0}});

    for (int i = 0; good && i < 4; i++)
        good = redis_next(store->redis, reply) && reply->type != REDIS_ERROR;
    return good;
}

/* A connection that breaks leaves open whether the record was put there: the next one tells. */
static enum account_outcome registry_replace_account(void *state, struct str name, struct str old,
                                                     struct str record)
{
    struct store *store = state;
    struct redis_reply reply;
    bool lost = false;

    for (int tries = 0; tries < REPLACE_TRIES; tries++) {
        if (lost)
            poll(NULL, 0, REPLACE_PAUSE);
        if (!registry_watch_account(store, name, &reply)) {
            if (!lost)
                return ACCOUNT_UNREACHABLE;
            continue;
        }
        if (!str_equal(reply.text, old)) {
            bool done = lost && str_equal(reply.text, record);

            redis_call(store->redis, (struct str[]){STR("UNWATCH"), {0}}, &reply);
            return done ? ACCOUNT_DONE : ACCOUNT_CHANGED;
        }
        lost = !registry_put_account(store, name, record, &reply);
        if (!lost && reply.type == REDIS_LIST)
            return ACCOUNT_DONE;
        if (lost && redis_is_connected(store->redis))
            return ACCOUNT_UNREACHABLE; /* refused */
    }
    return lost ? ACCOUNT_UNREACHABLE : ACCOUNT_CHANGED;
}

static enum account_outcome registry_find_hooked(void *state, struct buf *names)
{
    struct store *store = state;
    struct store_key room;
    struct redis_reply reply;

    if (!redis_call_again(
            store->redis,
            (struct str[]){STR("SMEMBERS"), store_name(store, "webhooks", "", &room), {0}}, &reply))
        return ACCOUNT_UNREACHABLE;
    for (size_t i = 0; i < reply.count; i++) {
        buf_append(names, redis_element(&reply, i).text);
        buf_append(names, STR("\n"));
    }
    return ACCOUNT_DONE;
}

static const char *registry_account_reason(void *state)
{
    const struct store *store = state;

    return redis_reason(store->redis);
}

const struct account_store *registry_accounts(struct registry *registry)
{
    return &registry->accounts;
}

/* --- the loop's side ------------------------------------------------------------------------- */

static bool registry_post(struct registry *registry, struct registry_job job, struct str name,
                          struct str text)
{
    struct registry_job *copy = malloc(sizeof *copy + name.length + text.length);

    if (!copy)
        return false;
    *copy = job;
    if (name.length)
        memcpy(copy->bytes, name.at, name.length);
    if (text.length)
        memcpy(copy->bytes + name.length, text.at, text.length);
    copy->name = (struct str){copy->bytes, name.length};
    copy->text = (struct str){copy->bytes + name.length, text.length};
    mailbox_post(&registry->mail, &copy->mail);
    return true;
}

struct registry_event *registry_take(struct registry *registry)
{
    return (struct registry_event *)mailbox_take(&registry->events);
}

bool registry_look_up(struct registry *registry, uint64_t id, struct str system)
{
    struct registry_event *answer = store_new_event(REGISTRY_FOUND, system.length + REASON_MAX);
    struct registry_job job = {.kind = JOB_LOOK_UP, .id = id, .found = answer};

    if (!answer)
        return false;
    if (system.length)
        memcpy(answer + 1, system.at, system.length);
    answer->text = (struct str){(const char *)(answer + 1), system.length};
    if (registry_post(registry, job, system, (struct str){0}))
        return true;
    free(answer);
    return false;
}

bool registry_write(struct registry *registry, uint64_t id, struct str name, struct str text)
{
    return registry_post(registry, (struct registry_job){.kind = JOB_WRITE, .id = id}, name, text);
}

void registry_clear(struct registry *registry)
{
    registry_post(registry, (struct registry_job){.kind = JOB_CLEAR}, (struct str){0},
                  (struct str){0});
}

void registry_clean_up(struct registry *registry, const struct node_id *dead)
{
    registry_post(registry, (struct registry_job){.kind = JOB_CLEAN_UP, .node = *dead},
                  (struct str){0}, (struct str){0});
}

void registry_continue(struct registry *registry, const struct node_id *dead)
{
    registry_post(registry, (struct registry_job){.kind = JOB_CONTINUE, .node = *dead},
                  (struct str){0}, (struct str){0});
}

void registry_read_stats(struct registry *registry, struct registry_stats *stats)
{
    pthread_mutex_lock(&registry->lock);
    *stats = registry->stats;
    pthread_mutex_unlock(&registry->lock);
}

/* --- open and close -------------------------------------------------------------------------- */

static bool registry_start(struct registry *registry, const struct registry_options *options)
{
    registry->store = (struct store){.config = options->config,
                                     .redis = redis_new(options->config),
                                     .events = &registry->events,
                                     .self = options->self};
    registry->account_store =
        (struct store){.config = options->config, .redis = redis_new(options->config)};
    registry->accounts = (struct account_store){&registry->account_store, registry_find_account,
                                                registry_add_account,     registry_replace_account,
                                                registry_find_hooked,     registry_account_reason};
    registry->cleanups.store = &registry->store;
    if (!registry->store.redis || !registry->account_store.redis || !os_wake_pipe(registry->pipe))
        return false;
    registry->mail.wake = registry->pipe[1];
    registry->has_thread = member_open(&registry->member, &registry->store, options->keys) &&
                           os_thread_start(&registry->thread, registry_work, registry);
    return registry->has_thread;
}

struct registry *registry_open(const struct registry_options *options)
{
    struct registry *registry = calloc(1, sizeof *registry);

    if (!registry)
        return NULL;
    registry->pipe[0] = registry->pipe[1] = -1;
    pthread_mutex_init(&registry->lock, NULL);
    mailbox_open(&registry->events, options->wake);
    mailbox_open(&registry->mail, -1);
    if (registry_start(registry, options))
        return registry;
    registry_close(registry, false);
    return NULL;
}

/* Frees jobs and events that nobody has taken. */
static void registry_drop(struct registry *registry)
{
    struct registry_event *event = registry_take(registry), *later;
    struct fifo_link *job;

    registry_take_jobs(registry);
    while ((job = fifo_pop(&registry->look_ups)) || (job = fifo_pop(&registry->writes)))
        registry_free_job((struct registry_job *)job);
    for (; event; event = later) {
        later = (struct registry_event *)event->mail.next;
        free(event);
    }
    free(registry->withheld);
    cleanup_close(&registry->cleanups);
}

void registry_close(struct registry *registry, bool clean)
{
    struct registry_job stop = {.kind = clean ? JOB_LEAVE : JOB_STOP};

    if (!registry)
        return;
    if (registry->has_thread) {
        while (!registry_post(registry, stop, (struct str){0}, (struct str){0}))
            poll(NULL, 0, 10);
        pthread_join(registry->thread, NULL);
    }
    registry_drop(registry);
    mailbox_close(&registry->mail);
    mailbox_close(&registry->events);
    pthread_mutex_destroy(&registry->lock);
    for (int i = 0; i < 2; i++)
        if (registry->pipe[i] >= 0)
            close(registry->pipe[i]);
    redis_free(registry->store.redis);
    redis_free(registry->account_store.redis);
    free(registry);
}

/* account.c - systems, their passwords, their tokens' generations; jobs in a worker thread.
 *
 * Accounts. A hash table by name, under `lock`. On a single node it has all accounts: those of the
 * file at start-up, and new ones once they are on disk. With a shared store it is a cache, whose
 * entries are refreshed when they are older than REFRESH_MS. A token whose generation differs from
 * the entry may be newer than it: the store is asked once for each such generation.
 *
 * Jobs. The loop submits logins and registrations; one worker thread, started with the first job,
 * does them one at a time. Hashing and the store are used outside the lock. A finished job goes to
 * `done` and the loop is woken. Refreshes, and logins that need no hashing, have a queue that comes
 * first; the others share the worker out fairly among origins (account_queue.c).
 *
 * Secrets. Passwords are erased when their job is done; of a good login an HMAC under a random key
 * of this process stays. An unknown name costs the same hashing as a known one. */
#include "account.h"

#include "os.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAC_SIZE 16
#define THROTTLED_MAX 1024 /* hashes of passwords that were throttled */
#define REFRESH_MS 10000   /* age at which an entry of the cache is looked up again */
#define FRESH_MS 1000      /* age up to which a differing generation is not asked about */

struct account {
    struct account_record record;
    uint64_t generation;
    bool has_mac; /* `mac` is of the last good login */
    unsigned char mac[MAC_SIZE];
    /* in the cache of a shared store: */
    int64_t looked_up_at; /* 0: not yet */
    int64_t refresh_at;
    uint64_t disputed; /* the last generation that differed, */
    bool refuted;      /* and the store has been asked since it came */
    size_t name_length;
    char name[];
};

struct accounts {
    const struct account_store *store;
    struct account_file file; /* unless the store is shared */
    int wake;
    unsigned iterations;
    uint32_t seed;
    unsigned char key[CRYPTO_HASH_SIZE]; /* of MACs */
    pthread_t worker;
    bool has_worker;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct table table; /* of struct account */
    size_t evict_at;    /* table_walk's place, for the next entry to leave the cache */
    struct account_queue queues[ACCOUNT_REFRESH + 1]; /* the last has likely logins too */
    struct fifo done;
    size_t coalesced;
    bool logs_in; /* the job started last, refreshes aside, is a login */
    struct account_served served;
    uint64_t throttled[THROTTLED_MAX];
    bool stop;
};

/* --- results --------------------------------------------------------------------------------- */

/* Hands the results of a job, and of those coalesced with it, to the loop. Holds the lock. */
static void account_finish(struct accounts *accounts, struct account_job *job,
                           enum account_outcome outcome)
{
    struct account_result result = job->result;

    result.outcome = outcome;
    for (; job; job = job->coalesced) {
        result.request_id = job->result.request_id;
        result.coalesced = job->result.coalesced;
        job->result = result;
        accounts->coalesced -= result.coalesced;
        crypto_erase(job->password, sizeof job->password);
        fifo_push(&accounts->done, &job->link);
    }
    os_wake(accounts->wake);
}

bool account_take_result(struct accounts *accounts, struct account_result *result)
{
    struct account_job *job;

    pthread_mutex_lock(&accounts->lock);
    job = (struct account_job *)fifo_pop(&accounts->done);
    pthread_mutex_unlock(&accounts->lock);
    if (!job)
        return false;
    *result = job->result;
    account_job_free(job);
    return true;
}

/* --- the table ------------------------------------------------------------------------------- */

static uint32_t account_hash(const struct accounts *accounts, const struct account *account)
{
    return str_hash((struct str){account->name, account->name_length}, accounts->seed);
}

/* NULL if there is none. Holds the lock, or no worker runs yet. */
static struct account *account_find(const struct accounts *accounts, struct str name)
{
    struct table_cursor cursor = {.hash = str_hash(name, accounts->seed)};
    struct account *account;

    while ((account = table_next(&accounts->table, &cursor)))
        if (str_equal((struct str){account->name, account->name_length}, name))
            return account;
    return NULL;
}

/* Copies the entry of this name, except the name. False: no such account is known here. */
static bool account_read(struct accounts *accounts, struct str name, struct account *copy)
{
    const struct account *account;

    pthread_mutex_lock(&accounts->lock);
    account = account_find(accounts, name);
    *copy = account ? *account : (struct account){0};
    pthread_mutex_unlock(&accounts->lock);
    return copy->record.iterations > 0;
}

static void account_remove(struct accounts *accounts, struct account *account)
{
    table_remove(&accounts->table, account_hash(accounts, account), account);
    free(account);
}

/* The entry of this name, a new one without a record if there was none; NULL without memory. A full
 * cache loses the next entry in the order of the table. */
static struct account *account_find_or_add(struct accounts *accounts, struct str name)
{
    struct account *account = account_find(accounts, name), *evicted = NULL;

    if (account)
        return account;
    account = calloc(1, sizeof *account + name.length);
    if (!account)
        return NULL;
    account->name_length = name.length;
    memcpy(account->name, name.at, name.length);
    if (accounts->store->find && accounts->table.count >= ACCOUNT_CACHE_MAX) {
        while (!(evicted = table_walk(&accounts->table, &accounts->evict_at)))
            accounts->evict_at = 0;
        account_remove(accounts, evicted);
    }
    if (table_add(&accounts->table, account_hash(accounts, account), account))
        return account;
    free(account);
    return NULL;
}

/* Sets what the store has of an account now; a record without iterations: there is none. */
static void account_set_record(struct account *account, const struct account_record *record)
{
    if (memcmp(&account->record, record, sizeof *record) != 0)
        account->has_mac = false;
    account->record = *record;
    account->generation = account_record_generation(record);
    account->looked_up_at = os_now_ms();
    account->refresh_at = account->looked_up_at + REFRESH_MS;
    account->refuted = true;
}

static void account_learn(struct accounts *accounts, struct str name,
                          const struct account_record *record)
{
    struct account *account;

    pthread_mutex_lock(&accounts->lock);
    account = account_find_or_add(accounts, name);
    if (account)
        account_set_record(account, record);
    pthread_mutex_unlock(&accounts->lock);
}

bool account_exists(struct accounts *accounts, struct str name)
{
    struct account account;

    return !accounts->store->find && account_read(accounts, name, &account);
}

/* --- good logins ----------------------------------------------------------------------------- */

/* HMAC of a record, a name and a password under this process's key. */
static bool account_make_mac(const struct accounts *accounts, const struct account_record *record,
                             struct str name, struct str password,
                             unsigned char mac[CRYPTO_HASH_SIZE])
{
    char bytes[sizeof *record + 1 + ACCOUNT_NAME_MAX + ACCOUNT_PASSWORD_MAX];
    struct buf text = BUF_INIT(bytes);
    bool good;

    buf_append(&text, (struct str){(const char *)record, sizeof *record});
    buf_append(&text, (struct str){&(char){(char)name.length}, 1});
    buf_append(&text, name);
    good = buf_append(&text, password) && crypto_hmac(accounts->key, str_of(&text), mac);
    crypto_erase(bytes, sizeof bytes);
    return good;
}

/* True if this password was good for the account as it is known here, which is copied. */
static bool account_recall(struct accounts *accounts, struct str name, struct str password,
                           struct account *known)
{
    unsigned char mac[CRYPTO_HASH_SIZE];

    return account_read(accounts, name, known) && known->has_mac &&
           account_make_mac(accounts, &known->record, name, password, mac) &&
           crypto_equal((struct str){(const char *)mac, MAC_SIZE}, CRYPTO_BYTES(known->mac));
}

enum account_recall account_recall_login(struct accounts *accounts, struct str name,
                                         struct str password, uint64_t *generation)
{
    struct account known;

    if (!account_recall(accounts, name, password, &known))
        return ACCOUNT_RECALL_MISS;
    *generation = known.generation;
    return accounts->store->find ? ACCOUNT_RECALL_LIKELY : ACCOUNT_RECALL_HIT;
}

static void account_remember_login(struct accounts *accounts, struct str name, struct str password,
                                   const struct account_record *record)
{
    unsigned char mac[CRYPTO_HASH_SIZE];
    struct account *account;

    if (!account_make_mac(accounts, record, name, password, mac))
        return;
    pthread_mutex_lock(&accounts->lock);
    account = account_find(accounts, name);
    if (account && memcmp(&account->record, record, sizeof *record) == 0) {
        memcpy(account->mac, mac, sizeof account->mac);
        account->has_mac = true;
    }
    pthread_mutex_unlock(&accounts->lock);
}

/* --- the worker ------------------------------------------------------------------------------ */

/* Gets the record of this name. DONE, DENIED (there is none), or why that is not known. */
static enum account_outcome account_look_up(struct accounts *accounts, struct str name,
                                            struct account_record *record)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome;
    struct account known;
    struct buf text = {0};
    struct str rest;

    if (!store->find) {
        if (!account_read(accounts, name, &known))
            return ACCOUNT_DENIED;
        *record = known.record;
        return ACCOUNT_DONE;
    }
    outcome = store->find(store->state, name, &text);
    rest = str_of(&text);
    if (outcome == ACCOUNT_DONE && (text.failed || account_record_read(&rest, record)))
        outcome = ACCOUNT_FAILED;
    buf_free(&text);
    return outcome;
}

/* Stores a new account, then makes it known here. Its entry is made before, so that no account is
 * stored that could not be known. */
static enum account_outcome account_add(struct accounts *accounts, struct str name,
                                        const struct account_record *record)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome = ACCOUNT_FAILED;
    struct buf text = {0};
    struct account *account;

    pthread_mutex_lock(&accounts->lock);
    account = account_find_or_add(accounts, name);
    pthread_mutex_unlock(&accounts->lock);
    if (account && account_record_append(&text, record))
        outcome = store->add(store->state, name, str_of(&text));
    buf_free(&text);
    if (outcome == ACCOUNT_DONE) {
        account_learn(accounts, name, record);
    } else if (account && !store->find) {
        pthread_mutex_lock(&accounts->lock);
        account_remove(accounts, account);
        pthread_mutex_unlock(&accounts->lock);
    }
    return outcome;
}

static enum account_outcome account_register(struct accounts *accounts, struct account_job *job)
{
    struct str name = account_job_name(job);
    struct account_record record = {.iterations = accounts->iterations}, ignored;
    enum account_outcome outcome = account_look_up(accounts, name, &ignored);

    if (outcome != ACCOUNT_DENIED)
        return outcome == ACCOUNT_DONE ? ACCOUNT_EXISTS : outcome;
    if (!crypto_random(record.salt, sizeof record.salt) ||
        !crypto_hash_password(account_job_password(job), record.salt, record.iterations,
                              record.hash))
        return ACCOUNT_FAILED;
    job->result.generation = account_record_generation(&record);
    return account_add(accounts, name, &record);
}

static enum account_outcome account_log_in(struct accounts *accounts, struct account_job *job)
{
    struct str name = account_job_name(job), password = account_job_password(job);
    struct account_record record = {.iterations = accounts->iterations};
    enum account_outcome found = account_look_up(accounts, name, &record);
    unsigned char hash[CRYPTO_HASH_SIZE];
    struct account known;

    if (found != ACCOUNT_DONE && found != ACCOUNT_DENIED)
        return found;
    job->result.generation = account_record_generation(&record);
    if (found == ACCOUNT_DONE && account_recall(accounts, name, password, &known) &&
        memcmp(&known.record, &record, sizeof record) == 0)
        return ACCOUNT_DONE;
    /* for an unknown name as well: the time must not tell which names are known */
    if (!crypto_hash_password(password, record.salt, record.iterations, hash))
        return ACCOUNT_FAILED;
    if (accounts->store->find && found == ACCOUNT_DONE)
        account_learn(accounts, name, &record);
    if (!crypto_equal(CRYPTO_BYTES(hash), CRYPTO_BYTES(record.hash)) || found != ACCOUNT_DONE)
        return ACCOUNT_DENIED;
    account_remember_login(accounts, name, password, &record);
    return ACCOUNT_DONE;
}

static void account_refresh(struct accounts *accounts, const struct account_job *job)
{
    struct account_record record = {0};
    enum account_outcome outcome = account_look_up(accounts, account_job_name(job), &record);

    if (outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED)
        account_learn(accounts, account_job_name(job), &record);
}

/* The next job to start; logins and registrations alternate. NULL: none is due. */
static struct account_job *account_choose_job(struct accounts *accounts)
{
    struct account_job *job = account_queue_pop(&accounts->queues[ACCOUNT_REFRESH], NULL);

    for (int tries = 0; !job && tries < 2; tries++) {
        accounts->logs_in = !accounts->logs_in;
        job = account_queue_pop_fair(
            &accounts->queues[accounts->logs_in ? ACCOUNT_LOGIN : ACCOUNT_REGISTER],
            &accounts->served, os_now_ms());
    }
    return job;
}

/* Waits until a job may be due. Condition variables wait for the wall clock, which may be set: so
 * for a second at most. */
static void account_wait(struct accounts *accounts)
{
    const struct account_job *job = account_queue_first(&accounts->queues[ACCOUNT_LOGIN]);
    int64_t now = os_now_ms(), wait = 1000;
    struct timespec until;

    if (!job) {
        pthread_cond_wait(&accounts->changed, &accounts->lock);
        return;
    }
    for (; job; job = account_queue_next(job))
        if (job->due - now < wait)
            wait = job->due - now;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(wait * 1000000 + 1000000);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&accounts->changed, &accounts->lock, &until);
}

/* Unlocks while the job is done. */
static void account_do_job(struct accounts *accounts, struct account_job *job)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome = ACCOUNT_DONE;

    pthread_mutex_unlock(&accounts->lock);
    if (job->result.kind == ACCOUNT_REGISTER)
        outcome = account_register(accounts, job);
    else if (job->result.kind == ACCOUNT_LOGIN)
        outcome = account_log_in(accounts, job);
    else
        account_refresh(accounts, job);
    if (outcome == ACCOUNT_UNREACHABLE || outcome == ACCOUNT_UNSAVED)
        snprintf(job->result.reason, sizeof job->result.reason, "%s", store->reason(store->state));
    pthread_mutex_lock(&accounts->lock);
    if (job->result.kind == ACCOUNT_REFRESH)
        account_job_free(job);
    else
        account_finish(accounts, job, outcome);
}

static void *account_run_worker(void *argument)
{
    struct accounts *accounts = argument;
    struct account_job *job;

    pthread_mutex_lock(&accounts->lock);
    while (!accounts->stop)
        if ((job = account_choose_job(accounts)))
            account_do_job(accounts, job);
        else
            account_wait(accounts);
    pthread_mutex_unlock(&accounts->lock);
    return NULL;
}

/* --- submitting ------------------------------------------------------------------------------ */

static bool account_start_worker(struct accounts *accounts)
{
    if (!accounts->has_worker)
        accounts->has_worker = os_thread_start(&accounts->worker, account_run_worker, accounts);
    return accounts->has_worker;
}

/* Lets a login wait for the outcome of a queued one that is the same; false if there is none. A
 * running one may have looked the account up before it changed. */
static bool account_coalesce(struct accounts *accounts, struct account_job *job)
{
    struct account_job *other = account_queue_first(&accounts->queues[ACCOUNT_LOGIN]);

    if (accounts->coalesced >= ACCOUNT_COALESCED_MAX)
        return false;
    while (other && !(account_job_same_target(other, job) &&
                      crypto_equal(account_job_password(other), account_job_password(job))))
        other = account_queue_next(other);
    if (!other)
        return false;
    job->result.coalesced = true;
    job->coalesced = other->coalesced;
    other->coalesced = job;
    accounts->coalesced++;
    return true;
}

/* True if this password was throttled lately; from now on it was. */
static bool account_note_throttled(struct accounts *accounts, const struct account_job *job)
{
    static const struct account_record none;
    unsigned char mac[CRYPTO_HASH_SIZE];
    uint64_t tag = 0, *slot;
    bool before;

    if (!account_make_mac(accounts, &none, account_job_name(job), account_job_password(job), mac))
        return false;
    memcpy(&tag, mac, sizeof tag);
    slot = &accounts->throttled[tag % THROTTLED_MAX];
    before = *slot == tag;
    *slot = tag;
    return before;
}

/* True if a delayed login may wait: as the only one of its system and origin. May evict that. */
static bool account_may_wait(struct accounts *accounts, struct account_job *job)
{
    struct account_queue *queue = &accounts->queues[ACCOUNT_LOGIN];
    struct account_job *before = NULL, *waiting = account_queue_first(queue);

    while (waiting && !(waiting->due && account_job_same_target(waiting, job))) {
        before = waiting;
        waiting = account_queue_next(waiting);
    }
    if (!waiting)
        return true;
    job->was_throttled = account_note_throttled(accounts, job);
    if (!job->was_throttled || waiting->was_throttled)
        return false;
    job->due = waiting->due;
    account_finish(accounts, account_queue_pop(queue, before), ACCOUNT_EVICTED);
    return true;
}

/* Queues a job; holds the lock. `likely`: before those that hash. */
static enum account_submission account_enqueue(struct accounts *accounts, struct account_job *job,
                                               bool likely)
{
    enum account_job_kind kind = job->result.kind;
    struct account_queue *queue = &accounts->queues[likely ? ACCOUNT_REFRESH : kind];
    struct account_job *victim = NULL;

    if (kind == ACCOUNT_LOGIN && !likely && account_coalesce(accounts, job))
        return ACCOUNT_COALESCED;
    if (job->due && !likely && !account_may_wait(accounts, job))
        return ACCOUNT_THROTTLED;
    if (!account_queue_push(queue, job)) {
        if (!likely)
            victim = account_queue_evict(queue, &accounts->served, job->result.origin);
        if (!victim)
            return ACCOUNT_QUEUE_FULL;
        account_finish(accounts, victim, ACCOUNT_EVICTED);
        account_queue_push(queue, job);
    }
    pthread_cond_signal(&accounts->changed);
    return ACCOUNT_SUBMITTED;
}

/* Has the worker look an entry of the cache up again. */
static void account_ask_store(struct accounts *accounts, struct str name)
{
    struct account_request request = {.kind = ACCOUNT_REFRESH, .name = name, .password = STR("")};
    struct account_job *job = account_start_worker(accounts) ? account_job_new(&request) : NULL;

    if (job && account_enqueue(accounts, job, true) != ACCOUNT_SUBMITTED)
        account_job_free(job);
}

enum account_submission account_submit(struct accounts *accounts,
                                       const struct account_request *request)
{
    enum account_submission submission = ACCOUNT_NO_RESOURCES;
    struct account_job *job = NULL;

    if (request->name.length <= ACCOUNT_NAME_MAX &&
        request->password.length <= ACCOUNT_PASSWORD_MAX)
        job = account_job_new(request);
    if (!job)
        return ACCOUNT_NO_RESOURCES;
    pthread_mutex_lock(&accounts->lock);
    if (account_start_worker(accounts))
        submission = account_enqueue(accounts, job, request->likely);
    pthread_mutex_unlock(&accounts->lock);
    if (submission != ACCOUNT_SUBMITTED && submission != ACCOUNT_COALESCED)
        account_job_free(job);
    return submission;
}

/* --- generations ----------------------------------------------------------------------------- */

static enum account_token_status account_compare(const struct account *account, uint64_t generation)
{
    if (!account->record.iterations)
        return ACCOUNT_TOKEN_ORPHAN;
    return account->generation == generation ? ACCOUNT_TOKEN_VALID : ACCOUNT_TOKEN_REVOKED;
}

/* Checks against the cache; holds the lock. */
static enum account_token_status account_check_cache(struct accounts *accounts, struct str name,
                                                     uint64_t generation)
{
    struct account *account = account_find_or_add(accounts, name);
    enum account_token_status status = ACCOUNT_TOKEN_VALID;
    int64_t now = os_now_ms();

    if (!account)
        return status;
    if (account->looked_up_at)
        status = account_compare(account, generation);
    if (status != ACCOUNT_TOKEN_VALID && account->disputed != generation) {
        account->disputed = generation;
        account->refuted = now - account->looked_up_at < FRESH_MS;
        if (!account->refuted)
            account->refresh_at = now;
    }
    if (now >= account->refresh_at) {
        account->refresh_at = now + REFRESH_MS;
        account_ask_store(accounts, name);
    }
    return status == ACCOUNT_TOKEN_VALID || account->refuted ? status : ACCOUNT_TOKEN_UNKNOWN;
}

enum account_token_status account_check_generation(struct accounts *accounts, struct str name,
                                                   uint64_t generation)
{
    enum account_token_status status;
    struct account known;

    if (!accounts->store->find) {
        account_read(accounts, name, &known);
        return account_compare(&known, generation);
    }
    pthread_mutex_lock(&accounts->lock);
    status = account_check_cache(accounts, name, generation);
    pthread_mutex_unlock(&accounts->lock);
    return status;
}

/* --- opening and closing --------------------------------------------------------------------- */

void account_close(struct accounts *accounts)
{
    struct account_result result;
    struct account *account;
    struct account_job *job;
    size_t place = 0;

    if (!accounts)
        return;
    pthread_mutex_lock(&accounts->lock);
    accounts->stop = true;
    pthread_cond_signal(&accounts->changed);
    pthread_mutex_unlock(&accounts->lock);
    if (accounts->has_worker)
        pthread_join(accounts->worker, NULL);
    for (int kind = ACCOUNT_REGISTER; kind <= ACCOUNT_REFRESH; kind++)
        while ((job = account_queue_pop(&accounts->queues[kind], NULL)))
            account_finish(accounts, job, ACCOUNT_EVICTED);
    while (account_take_result(accounts, &result))
        ;
    while ((account = table_walk(&accounts->table, &place)))
        free(account);
    table_free(&accounts->table);
    pthread_cond_destroy(&accounts->changed);
    pthread_mutex_destroy(&accounts->lock);
    crypto_erase(accounts, sizeof *accounts);
    free(accounts);
}

struct accounts *account_open_store(const struct account_store *store, int wake,
                                    unsigned iterations, char *error, size_t size)
{
    struct accounts *accounts = calloc(1, sizeof *accounts);

    snprintf(error, size, "out of memory");
    if (!accounts)
        return NULL;
    pthread_mutex_init(&accounts->lock, NULL);
    pthread_cond_init(&accounts->changed, NULL);
    accounts->store = store ? store : &accounts->file.store;
    accounts->wake = wake;
    accounts->iterations = iterations;
    accounts->queues[ACCOUNT_REGISTER].limit = ACCOUNT_REGISTRATIONS_MAX;
    accounts->queues[ACCOUNT_LOGIN].limit = ACCOUNT_LOGINS_MAX;
    accounts->queues[ACCOUNT_REFRESH].limit = ACCOUNT_CACHE_MAX;
    if (crypto_random(&accounts->seed, sizeof accounts->seed) &&
        crypto_random(accounts->key, sizeof accounts->key)) {
        error[0] = '\0';
        return accounts;
    }
    account_close(accounts);
    return NULL;
}

static const char *account_load(void *argument, struct str name,
                                const struct account_record *record)
{
    struct accounts *accounts = argument;
    struct account *account;

    if (account_find(accounts, name))
        return "this name is in the file twice";
    account = account_find_or_add(accounts, name);
    if (!account)
        return "out of memory";
    account_set_record(account, record);
    return NULL;
}

struct accounts *account_open(const char *directory, int wake, unsigned iterations, char *error,
                              size_t size)
{
    struct accounts *accounts = account_open_store(NULL, wake, iterations, error, size);

    if (accounts &&
        account_file_open(&accounts->file, directory, account_load, accounts, error, size))
        return accounts;
    account_close(accounts);
    return NULL;
}

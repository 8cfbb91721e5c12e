/* account.c - systems, their passwords, their tokens' generations; jobs in a worker thread.
 *
 * Accounts. They are in account_table.c. With a shared store that is a cache, whose entries are
 * refreshed when they are older than ACCOUNT_REFRESH_MS. A token whose generation differs from the
 * entry may be newer than it: the store is asked once for each such generation.
 *
 * Jobs. The loop submits them; one worker thread, started with the first job, does them one at a
 * time. Hashing and the store are used outside the lock. A finished job goes to `done` and the loop
 * is woken. Refreshes, and logins that need no hashing, have a queue that comes first; the others
 * share the worker out fairly among origins (account_queue.c).
 *
 * Changes. A change begins with the record as it is stored, and replaces that and no other: what
 * two nodes change at once is changed once after the other. The table learns of it last.
 *
 * Secrets. Passwords are erased when their job is done; of a good login an HMAC under a random key
 * of this process stays. An unknown name costs the same hashing as a known one. */
#include "account.h"

#include "account_table.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THROTTLED_MAX 1024 /* hashes of passwords that were throttled */
#define FRESH_MS 1000      /* age up to which a differing generation is not asked about */
#define CHANGE_TRIES 3     /* of a change, while other nodes change the account */

struct accounts {
    const struct account_store *store;
    struct account_file file; /* unless the store is shared */
    int wake;
    unsigned iterations;
    pthread_t worker;
    bool has_worker;

    struct account_table table; /* its lock guards what follows, too */
    pthread_cond_t changed;
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
        account_job_erase(job);
        fifo_push(&accounts->done, &job->link);
    }
    os_wake(accounts->wake);
}

bool account_take_result(struct accounts *accounts, struct account_result *result)
{
    struct account_job *job;

    pthread_mutex_lock(&accounts->table.lock);
    job = (struct account_job *)fifo_pop(&accounts->done);
    pthread_mutex_unlock(&accounts->table.lock);
    if (!job)
        return false;
    *result = job->result;
    account_job_free(job);
    return true;
}

bool account_exists(struct accounts *accounts, struct str name)
{
    struct account account;

    return !accounts->table.is_cache && account_read(&accounts->table, name, &account);
}

enum account_recall account_recall_login(struct accounts *accounts, struct str name,
                                         struct str password, uint64_t *generation)
{
    struct account known;

    if (!account_recall(&accounts->table, name, password, &known))
        return ACCOUNT_RECALL_MISS;
    *generation = known.generation;
    return accounts->table.is_cache ? ACCOUNT_RECALL_LIKELY : ACCOUNT_RECALL_HIT;
}

/* --- the worker ------------------------------------------------------------------------------ */

/* Gets the record of this name, and its text. DONE, DENIED (there is none), or why that is not
 * known. */
static enum account_outcome account_find_record(struct accounts *accounts, struct str name,
                                                struct account_record *record, struct buf *text)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome;
    struct account_record known;
    struct str rest, webhook;

    if (!store->find) {
        if (!account_read_text(&accounts->table, name, &known, text))
            return ACCOUNT_DENIED;
        *record = known;
        return text->failed ? ACCOUNT_FAILED : ACCOUNT_DONE;
    }
    outcome = store->find(store->state, name, text);
    rest = str_of(text);
    if (outcome == ACCOUNT_DONE && (text->failed || account_record_read(&rest, record) ||
                                    (rest.length && account_record_read_ticket(&rest, record))))
        outcome = ACCOUNT_FAILED;
    if (outcome == ACCOUNT_DONE)
        account_record_read_webhook(&rest, record, &webhook);
    return outcome;
}

/* The same without the text. */
static enum account_outcome account_look_up(struct accounts *accounts, struct str name,
                                            struct account_record *record)
{
    struct buf text = {0};
    enum account_outcome outcome = account_find_record(accounts, name, record, &text);

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

    pthread_mutex_lock(&accounts->table.lock);
    account = account_find_or_add(&accounts->table, name);
    pthread_mutex_unlock(&accounts->table.lock);
    if (account && account_record_append(&text, record, true))
        outcome = store->add(store->state, name, str_of(&text));
    buf_free(&text);
    if (outcome == ACCOUNT_DONE) {
        account_learn(&accounts->table, name, record, (struct str){0});
    } else if (account && !store->find) {
        pthread_mutex_lock(&accounts->table.lock);
        account_remove(&accounts->table, account);
        pthread_mutex_unlock(&accounts->table.lock);
    }
    return outcome;
}

/* Hashes a password under a new salt. */
static bool account_set_password(const struct accounts *accounts, struct str password,
                                 struct account_record *record)
{
    record->iterations = accounts->iterations;
    return crypto_random(record->salt, sizeof record->salt) &&
           crypto_hash_password(password, record->salt, accounts->iterations, record->hash);
}

static enum account_outcome account_register(struct accounts *accounts, struct account_job *job)
{
    struct str name = account_job_name(job);
    struct account_record record = {0};
    enum account_outcome outcome = account_look_up(accounts, name, &record);

    if (outcome != ACCOUNT_DENIED)
        return outcome == ACCOUNT_DONE ? ACCOUNT_EXISTS : outcome;
    if (!account_set_password(accounts, account_job_password(job), &record))
        return ACCOUNT_FAILED;
    record.ticket_version = account_record_first_version(&record);
    job->result.generation = account_record_generation(&record);
    return account_add(accounts, name, &record);
}

/* Verifies the password of a job. DONE: the account's record is in `record`, and of a shared store
 * in `text`. */
static enum account_outcome account_verify(struct accounts *accounts, struct account_job *job,
                                           struct account_record *record, struct buf *text)
{
    struct str name = account_job_name(job), password = account_job_password(job);
    enum account_outcome found;
    unsigned char hash[CRYPTO_HASH_SIZE];
    struct account known;

    *record = (struct account_record){.iterations = accounts->iterations};
    found = account_find_record(accounts, name, record, text);
    if (found != ACCOUNT_DONE && found != ACCOUNT_DENIED)
        return found;
    job->result.generation = account_record_generation(record);
    if (found == ACCOUNT_DONE && account_recall(&accounts->table, name, password, &known) &&
        memcmp(&known.record, record, sizeof *record) == 0)
        return ACCOUNT_DONE;
    /* for an unknown name as well: the time must not tell which names are known */
    if (!crypto_hash_password(password, record->salt, (unsigned)record->iterations, hash))
        return ACCOUNT_FAILED;
    if (accounts->table.is_cache && found == ACCOUNT_DONE)
        account_learn(&accounts->table, name, record, account_record_webhook(str_of(text)));
    if (!crypto_equal(CRYPTO_BYTES(hash), CRYPTO_BYTES(record->hash)) || found != ACCOUNT_DONE)
        return ACCOUNT_DENIED;
    account_remember_login(&accounts->table, name, password, record);
    return ACCOUNT_DONE;
}

static enum account_outcome account_log_in(struct accounts *accounts, struct account_job *job)
{
    struct account_record record;
    struct buf text = {0};
    enum account_outcome outcome = account_verify(accounts, job, &record, &text);

    buf_free(&text);
    return outcome;
}

/* Asks the store, and makes known here what it has. */
static enum account_outcome account_refresh(struct accounts *accounts, struct account_job *job)
{
    struct account_record record = {0};
    struct str name = account_job_name(job);
    struct buf text = {0};
    enum account_outcome outcome = account_find_record(accounts, name, &record, &text);

    if (accounts->table.is_cache && (outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED))
        account_learn(&accounts->table, name, &record, account_record_webhook(str_of(&text)));
    buf_free(&text);
    job->result.generation = account_record_generation(&record);
    job->result.ticket_version = record.ticket_version;
    return outcome;
}

/* Makes known here what a shared store has of all accounts with a webhook. */
static void account_refresh_hooked(struct accounts *accounts)
{
    struct buf names = {0}, text = {0};
    struct str rest, name;

    accounts->store->find_hooked(accounts->store->state, &names);
    for (rest = str_of(&names); (name = str_cut(&rest, '\n')).length; buf_free(&text)) {
        struct account_record record = {0};
        enum account_outcome outcome = account_find_record(accounts, name, &record, &text);

        if (outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED)
            account_learn(&accounts->table, name, &record, account_record_webhook(str_of(&text)));
    }
    buf_free(&names);
}

/* --- changes --------------------------------------------------------------------------------- */

/* Makes the text of the webhook that a job asks for of the present one. */
static bool account_make_webhook(struct account_job *job, const struct account_record *record,
                                 struct buf *text)
{
    struct account_webhook webhook;
    bool was = account_webhook_read(str_of(text), &webhook);

    if (!was)
        webhook = (struct account_webhook){.version = account_record_first_version(record)};
    if (was && job->rotate) {
        webhook.version++;
        webhook.since = (int64_t)time(NULL);
    }
    webhook.url = account_job_url(job);
    webhook.events = job->events;
    job->result.webhook_version = webhook.version;
    buf_free(text);
    return account_webhook_append(text, &webhook);
}

/* Makes the record that a job asks for of the present one, and the text of the webhook. False if
 * OpenSSL fails, or without memory. */
static bool account_make_change(const struct accounts *accounts, struct account_job *job,
                                struct account_record *record, struct buf *webhook)
{
    switch (job->result.kind) {
    case ACCOUNT_DELETE:
        *record = (struct account_record){0};
        return true;
    case ACCOUNT_ROTATE_KEY:
        record->ticket_version++;
        record->ticket_since = (int64_t)time(NULL);
        return true;
    case ACCOUNT_SET_WEBHOOK:
        return account_make_webhook(job, record, webhook);
    default:
        return account_set_password(accounts, account_job_new_password(job), record);
    }
}

/* Replaces the record that is `old` in the store by another one, and makes that known here. What a
 * later version of wspush has put behind it stays. */
static enum account_outcome account_replace(struct accounts *accounts, struct str name,
                                            struct str old, struct account_record *record,
                                            struct str webhook)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome = ACCOUNT_FAILED;
    struct account_record ignored;
    struct buf text = {0};
    struct str rest = old, word;

    if (record->iterations) {
        account_record_append(&text, record, false);
        account_record_set_webhook(record, webhook);
        buf_append(&text, webhook.length ? STR(" webhook=") : STR(""));
        buf_append(&text, webhook);
        if (!account_record_read(&rest, &ignored) && !account_record_read_ticket(&rest, &ignored))
            account_record_read_webhook(&rest, &ignored, &word);
        buf_append(&text, rest.length ? STR(" ") : STR(""));
        buf_append(&text, rest);
    }
    if (!text.failed)
        outcome = store->replace(store->state, name, old, str_of(&text));
    buf_free(&text);
    if (outcome == ACCOUNT_DONE)
        account_learn(&accounts->table, name, record,
                      record->iterations ? webhook : (struct str){0});
    return outcome;
}

/* Changes an account, or deletes it. */
static enum account_outcome account_change(struct accounts *accounts, struct account_job *job)
{
    enum account_outcome outcome = ACCOUNT_CHANGED;
    struct account_record record = {0};
    struct buf text = {0}, webhook = {0};

    for (int tries = 0; outcome == ACCOUNT_CHANGED && tries < CHANGE_TRIES; tries++) {
        if (account_job_verifies(job->result.kind))
            outcome = account_verify(accounts, job, &record, &text);
        else
            outcome = account_find_record(accounts, account_job_name(job), &record, &text);
        buf_append(&webhook, account_record_webhook(str_of(&text)));
        if (outcome == ACCOUNT_DONE)
            outcome = account_make_change(accounts, job, &record, &webhook) && !webhook.failed
                          ? account_replace(accounts, account_job_name(job), str_of(&text), &record,
                                            str_of(&webhook))
                          : ACCOUNT_FAILED;
        buf_free(&text);
        buf_free(&webhook);
    }
    job->result.generation = account_record_generation(&record);
    job->result.ticket_version = record.ticket_version;
    return outcome == ACCOUNT_CHANGED ? ACCOUNT_EVICTED : outcome;
}

/* --- the jobs -------------------------------------------------------------------------------- */

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
        pthread_cond_wait(&accounts->changed, &accounts->table.lock);
        return;
    }
    for (; job; job = account_queue_next(job))
        if (job->due - now < wait)
            wait = job->due - now;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(wait * 1000000 + 1000000);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&accounts->changed, &accounts->table.lock, &until);
}

/* Unlocks while the job is done. */
static void account_do_job(struct accounts *accounts, struct account_job *job)
{
    const struct account_store *store = accounts->store;
    enum account_outcome outcome = ACCOUNT_DONE;

    pthread_mutex_unlock(&accounts->table.lock);
    if (job->result.kind == ACCOUNT_REFRESH && !job->result.name_length)
        account_refresh_hooked(accounts);
    else if (job->result.kind == ACCOUNT_REGISTER)
        outcome = account_register(accounts, job);
    else if (job->result.kind == ACCOUNT_LOGIN)
        outcome = account_log_in(accounts, job);
    else if (account_job_queue(job->result.kind) == ACCOUNT_REFRESH)
        outcome = account_refresh(accounts, job);
    else
        outcome = account_change(accounts, job);
    if (outcome == ACCOUNT_UNREACHABLE || outcome == ACCOUNT_UNSAVED)
        snprintf(job->result.reason, sizeof job->result.reason, "%s", store->reason(store->state));
    pthread_mutex_lock(&accounts->table.lock);
    if (accounts->table.hooked.first)
        os_wake(accounts->wake);
    if (job->result.kind == ACCOUNT_REFRESH)
        account_job_free(job);
    else
        account_finish(accounts, job, outcome);
}

static void *account_run_worker(void *argument)
{
    struct accounts *accounts = argument;
    struct account_job *job;

    pthread_mutex_lock(&accounts->table.lock);
    while (!accounts->stop)
        if ((job = account_choose_job(accounts)))
            account_do_job(accounts, job);
        else
            account_wait(accounts);
    pthread_mutex_unlock(&accounts->table.lock);
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
    while (other && !(other->result.kind == ACCOUNT_LOGIN && account_job_same_target(other, job) &&
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

    if (!account_make_mac(&accounts->table, &none, account_job_name(job), account_job_password(job),
                          mac))
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
    struct account_queue *queue =
        &accounts->queues[likely ? ACCOUNT_REFRESH : account_job_queue(kind)];
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
        request->password.length <= ACCOUNT_PASSWORD_MAX &&
        request->new_password.length <= ACCOUNT_PASSWORD_MAX &&
        request->url.length <= ACCOUNT_URL_MAX)
        job = account_job_new(request);
    if (!job)
        return ACCOUNT_NO_RESOURCES;
    pthread_mutex_lock(&accounts->table.lock);
    if (account_start_worker(accounts))
        submission = account_enqueue(
            accounts, job, request->likely || account_job_queue(request->kind) == ACCOUNT_REFRESH);
    pthread_mutex_unlock(&accounts->table.lock);
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

/* Has the store asked about an entry that is too old. Holds the lock. */
static void account_refresh_old(struct accounts *accounts, struct account *account, int64_t now)
{
    if (now < account->refresh_at)
        return;
    account->refresh_at = now + ACCOUNT_REFRESH_MS;
    account_ask_store(accounts, (struct str){account->name, account->name_length});
}

/* Checks against the cache; holds the lock. */
static enum account_token_status account_check_cache(struct accounts *accounts, struct str name,
                                                     uint64_t generation)
{
    struct account *account = account_find_or_add(&accounts->table, name);
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
    account_refresh_old(accounts, account, now);
    return status == ACCOUNT_TOKEN_VALID || account->refuted ? status : ACCOUNT_TOKEN_UNKNOWN;
}

enum account_token_status account_check_generation(struct accounts *accounts, struct str name,
                                                   uint64_t generation)
{
    enum account_token_status status;
    struct account known;

    if (!accounts->table.is_cache) {
        account_read(&accounts->table, name, &known);
        return account_compare(&known, generation);
    }
    pthread_mutex_lock(&accounts->table.lock);
    status = account_check_cache(accounts, name, generation);
    pthread_mutex_unlock(&accounts->table.lock);
    return status;
}

enum account_token_status account_ticket_version(struct accounts *accounts, struct str name,
                                                 uint64_t *version, int64_t *since)
{
    enum account_token_status status = ACCOUNT_TOKEN_ORPHAN;
    bool shared = accounts->table.is_cache;
    struct account *account;

    pthread_mutex_lock(&accounts->table.lock);
    account = account_find(&accounts->table, name);
    if (shared && !(account && account->looked_up_at))
        status = ACCOUNT_TOKEN_UNKNOWN;
    else if (account && account->record.iterations)
        status = ACCOUNT_TOKEN_VALID;
    if (status == ACCOUNT_TOKEN_VALID) {
        *version = account->record.ticket_version;
        *since = account->record.ticket_since;
    }
    if (shared && account)
        account_refresh_old(accounts, account, os_now_ms());
    pthread_mutex_unlock(&accounts->table.lock);
    return status;
}

void account_forget(struct accounts *accounts, struct str name)
{
    struct account *account;

    if (!accounts->table.is_cache)
        return;
    pthread_mutex_lock(&accounts->table.lock);
    account = account_find_or_add(&accounts->table, name);
    if (account) {
        account->refresh_at = 0;
        account_refresh_old(accounts, account, os_now_ms());
    }
    pthread_mutex_unlock(&accounts->table.lock);
}

/* --- webhooks -------------------------------------------------------------------------------- */

bool account_next_webhook(struct accounts *accounts, struct buf *name, struct buf *text,
                          struct account_webhook *webhook)
{
    *webhook = (struct account_webhook){0};
    if (!account_next_hooked(&accounts->table, name, text))
        return false;
    if (text->failed || !account_webhook_read(str_of(text), webhook))
        *webhook = (struct account_webhook){0};
    return true;
}

void account_repeat_webhooks(struct accounts *accounts)
{
    account_repeat_hooked(&accounts->table, false);
    if (!accounts->store->find_hooked)
        return;
    pthread_mutex_lock(&accounts->table.lock);
    account_ask_store(accounts, STR("")); /* see account_refresh_hooked */
    pthread_mutex_unlock(&accounts->table.lock);
}

/* --- opening and closing --------------------------------------------------------------------- */

void account_close(struct accounts *accounts)
{
    struct account_result result;
    struct account_job *job;

    if (!accounts)
        return;
    pthread_mutex_lock(&accounts->table.lock);
    accounts->stop = true;
    pthread_cond_signal(&accounts->changed);
    pthread_mutex_unlock(&accounts->table.lock);
    if (accounts->has_worker)
        pthread_join(accounts->worker, NULL);
    for (int kind = ACCOUNT_REGISTER; kind <= ACCOUNT_REFRESH; kind++)
        while ((job = account_queue_pop(&accounts->queues[kind], NULL)))
            account_finish(accounts, job, ACCOUNT_EVICTED);
    while (account_take_result(accounts, &result))
        ;
    pthread_cond_destroy(&accounts->changed);
    account_table_close(&accounts->table);
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
    pthread_cond_init(&accounts->changed, NULL);
    accounts->store = store ? store : &accounts->file.store;
    accounts->wake = wake;
    accounts->iterations = iterations;
    accounts->queues[ACCOUNT_REGISTER].limit = ACCOUNT_REGISTRATIONS_MAX;
    accounts->queues[ACCOUNT_LOGIN].limit = ACCOUNT_LOGINS_MAX;
    accounts->queues[ACCOUNT_REFRESH].limit = ACCOUNT_CACHE_MAX;
    if (account_table_open(&accounts->table, store != NULL)) {
        error[0] = '\0';
        return accounts;
    }
    account_close(accounts);
    return NULL;
}

static const char *account_load(void *state, struct str name, const struct account_record *record,
                                struct str webhook, bool is_new)
{
    struct accounts *accounts = state;

    if (is_new && account_find(&accounts->table, name))
        return "this name is in the file twice";
    account_learn(&accounts->table, name, record, webhook);
    return account_find(&accounts->table, name) || !record->iterations ? NULL : "out of memory";
}

static bool account_is_current(void *state, struct str name, const struct account_record *record)
{
    struct accounts *accounts = state;
    struct account known;

    return account_read(&accounts->table, name, &known) &&
           memcmp(&known.record, record, sizeof *record) == 0;
}

struct accounts *account_open(const char *directory, int wake, unsigned iterations, char *error,
                              size_t size)
{
    struct accounts *accounts = account_open_store(NULL, wake, iterations, error, size);
    struct account_loader loader = {accounts, account_load, account_is_current};

    if (accounts && account_file_open(&accounts->file, directory, &loader, error, size)) {
        account_repeat_hooked(&accounts->table, true); /* not of what was superseded */
        return accounts;
    }
    account_close(accounts);
    return NULL;
}

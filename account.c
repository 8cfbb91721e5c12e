/* account.c - systems, passwords, the accounts file or store. */
#include "account.h"

#include "crypto.h"
#include "os.h"
#include "table.h"
#include "os.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FILE_NAME "accounts"
#define TORN_NAME "accounts.torn"
#define FILE_HEADER "# wspush accounts: method iterations salt hash name\n"
#define FILE_LIMIT (256u * 1024 * 1024)
#define METHOD "pbkdf2-sha256"
#define MAC_SIZE 16
#define TURNS 256         /* of origins, that are remembered */
#define TAGS 1024         /* of passwords that were refused as throttled */
#define LOOK_AGAIN 10000  /* milliseconds for which what a store said is taken as it is */
#define JUST_LEARNED 1000 /* and for which it is not doubted */

/* What a line of the file, or the store, has of an account. */
struct record {
    unsigned iterations; /* 0: there is no such account */
    unsigned char salt[CRYPTO_SALT_SIZE], hash[CRYPTO_HASH_SIZE];
};

_Static_assert(sizeof(struct record) == 4 + CRYPTO_SALT_SIZE + CRYPTO_HASH_SIZE, "no padding");

struct account {
    struct record record;
    bool remembered; /* `mac` is of the last good login */
    unsigned char mac[MAC_SIZE];
    uint64_t generation;
    /* of a store's account: */
    bool refuted;       /* the store was asked after `doubted` had come */
    int64_t learned_at; /* 0: nothing is known yet */
    int64_t look_at;    /* when it is to be looked up again */
    uint64_t doubted;   /* the last generation that differed */
    size_t name_length;
    char name[];
};

/* Look-ups are the worker's own errands: nobody waits for a result. Their list has those logins as
 * well that most likely need no hashing. */
enum { LOOK_UP = ACCOUNT_LOGIN + 1, KINDS };

struct job {
    struct job *next, *joined;
    struct account_result result;
    int64_t due; /* milliseconds of the steady clock; 0: now */
    bool insists;
    size_t password_length;
    char password[ACCOUNT_PASSWORD_MAX];
};

struct job_list {
    struct job *first, *last;
    size_t count;
};

struct accounts {
    const struct account_store *store; /* NULL: the file in `directory` */
    char directory[PATH_MAX], path[PATH_MAX + sizeof FILE_NAME];
    int wake;
    unsigned iterations;
    uint32_t seed;
    unsigned char key[CRYPTO_HASH_SIZE]; /* of what is kept of passwords */
    pthread_t worker;
    bool has_worker;
    bool has_file; /* the worker's own once it runs */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct table table; /* of struct account; with a store, those it was asked about */
    size_t sweep;       /* where in it room is made next */
    struct job_list waiting[KINDS], done;
    enum account_job_kind last_kind; /* of the last job that was begun, look-ups aside */
    size_t joined;
    uint64_t tags[TAGS];
    uint32_t begun[TURNS]; /* origins of jobs in the order they were begun, a ring, */
    size_t begun_count;    /* and how many there have been */
    bool stop;
};

static const size_t places[KINDS] = {
    [ACCOUNT_REGISTER] = ACCOUNT_REGISTRATIONS_MAX, [ACCOUNT_LOGIN] = ACCOUNT_LOGINS_MAX};

/* --- lists of jobs --------------------------------------------------------------------------- */

static void push(struct job_list *list, struct job *job)
{
    job->next = NULL;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
    list->count++;
}

/* Takes out the job behind `before`, or the first one. */
static struct job *pop_behind(struct job_list *list, struct job *before)
{
    struct job **link = before ? &before->next : &list->first, *job = *link;

    if (!job)
        return NULL;
    *link = job->next;
    if (!*link)
        list->last = before;
    list->count--;
    return job;
}

static struct job *pop(struct job_list *list)
{
    return pop_behind(list, NULL);
}

/* How many jobs ago one of this origin was begun, as far as is remembered. */
static size_t turns_since(const struct accounts *accounts, uint32_t origin)
{
    size_t ago = 0;

    while (ago < TURNS && ago < accounts->begun_count &&
           accounts->begun[(accounts->begun_count - 1 - ago) % TURNS] != origin)
        ago++;
    return ago < accounts->begun_count ? ago : TURNS;
}

/* Of the jobs that are due, the oldest of the origin whose last turn is the longest ago. */
static struct job *pop_in_turn(struct accounts *accounts, struct job_list *list, int64_t now)
{
    struct job *before = NULL, *best_before = NULL, *best = NULL;

    for (struct job *job = list->first; job; before = job, job = job->next)
        if (job->due <= now && (!best || turns_since(accounts, job->result.origin) >
                                             turns_since(accounts, best->result.origin))) {
            best_before = before;
            best = job;
        }
    return best ? pop_behind(list, best_before) : NULL;
}

/* How much of a list is an origin's, with so many more jobs; of two that have as many, whose last
 * turn is the longer ago has less. */
static size_t share_of(const struct accounts *accounts, const struct job_list *list,
                       uint32_t origin, size_t more)
{
    for (const struct job *job = list->first; job; job = job->next)
        more += job->result.origin == origin;
    return more * (TURNS + 1) + TURNS - turns_since(accounts, origin);
}

/* Has the result of a job, and of those that joined it, taken by the owner. The lock is held. */
static void finish(struct accounts *accounts, struct job *job, enum account_outcome outcome)
{
    ssize_t n;

    crypto_erase(job->password, sizeof job->password);
    job->result.outcome = outcome;
    for (struct job *joined = job->joined; joined; joined = joined->joined) {
        joined->result.outcome = outcome;
        joined->result.error = job->result.error;
        memcpy(joined->result.reason, job->result.reason, sizeof job->result.reason);
        joined->result.generation = job->result.generation;
        push(&accounts->done, joined);
        accounts->joined--;
    }
    push(&accounts->done, job);
    n = write(accounts->wake, "a", 1);
    (void)n; /* a full pipe wakes the loop as well */
}

/* True if there is a place for one more job of this origin, which may have been made. */
static bool make_room(struct accounts *accounts, enum account_job_kind kind, uint32_t origin)
{
    struct job_list *list = &accounts->waiting[kind];
    struct job *before = NULL, *victim_before = NULL;
    size_t most = 0;

    if (list->count < places[kind])
        return true;
    for (struct job *job = list->first; job; before = job, job = job->next) {
        size_t share = share_of(accounts, list, job->result.origin, 0);

        if (share >= most) {
            most = share;
            victim_before = before;
        }
    }
    if (most <= share_of(accounts, list, origin, 1))
        return false;
    finish(accounts, pop_behind(list, victim_before), ACCOUNT_EVICTED);
    return true;
}

static void free_job(struct job *job)
{
    crypto_erase(job, sizeof *job);
    free(job);
}

/* --- records --------------------------------------------------------------------------------- */

/* The account of this name, or NULL. The lock is held, or no worker runs yet. */
static struct account *find(const struct accounts *accounts, struct str name)
{
    struct table_cursor cursor = {.hash = str_hash(name, accounts->seed)};
    struct account *account;

    while ((account = table_next(&accounts->table, &cursor)))
        if (str_equal((struct str){account->name, account->name_length}, name))
            return account;
    return NULL;
}

static uint64_t generation_of(const struct record *record);

static struct account *new_account(struct str name, const struct record *record)
{
    struct account *account = calloc(1, sizeof *account + name.length);

    if (account) {
        account->record = *record;
        account->generation = generation_of(record);
        account->name_length = name.length;
        memcpy(account->name, name.at, name.length);
    }
    return account;
}

static struct str bytes_of(const unsigned char *at, size_t length)
{
    return (struct str){(const char *)at, length};
}

static void append_record(struct buf *out, const struct record *record)
{
    buf_append(out, STR(METHOD " "));
    buf_append_number(out, record->iterations);
    buf_append(out, STR(" "));
    buf_append_hex(out, bytes_of(record->salt, sizeof record->salt));
    buf_append(out, STR(" "));
    buf_append_hex(out, bytes_of(record->hash, sizeof record->hash));
}

static void append_line(struct buf *out, const struct account *account)
{
    append_record(out, &account->record);
    buf_append(out, STR(" "));
    buf_append(out, (struct str){account->name, account->name_length});
    buf_append(out, STR("\n"));
}

/* Reads a record off the front of `rest`; returns what is wrong with it, or NULL. */
static const char *read_record(struct str *rest, struct record *record)
{
    struct str method = str_cut(rest, ' '), count = str_cut(rest, ' ');
    struct str salt = str_cut(rest, ' '), hash = str_cut(rest, ' ');
    uint64_t iterations = 0;

    if (!str_equal(method, STR(METHOD)))
        return "unknown method of hashing";
    if (!str_number(count, INT_MAX, &iterations) || iterations == 0)
        return "malformed number of iterations";
    record->iterations = (unsigned)iterations;
    if (!str_read_hex(salt, record->salt, sizeof record->salt) ||
        !str_read_hex(hash, record->hash, sizeof record->hash))
        return "malformed salt or hash";
    return NULL;
}

/* The first bytes of the salt's hash: an account that is made anew, or gets another password, has
 * another salt. A token shows it, so it is not the salt itself. */
static uint64_t generation_of(const struct record *record)
{
    unsigned char hash[CRYPTO_HASH_SIZE] = {0};
    uint64_t generation = 0;

    crypto_sha256(bytes_of(record->salt, sizeof record->salt), hash);
    for (int i = 0; i < 8; i++)
        generation = generation << 8 | hash[i];
    return generation;
}

/* --- the file -------------------------------------------------------------------------------- */

/* Adds the account of one line of the file; returns what is wrong with it, or NULL. */
static const char *load_line(struct accounts *accounts, struct str line)
{
    struct record record;
    struct str name = line;
    const char *wrong = read_record(&name, &record);
    struct account *account;

    if (wrong)
        return wrong;
    if (name.length == 0 || name.length > ACCOUNT_NAME_MAX)
        return "malformed name";
    if (find(accounts, name))
        return "this name stands in the file twice";
    account = new_account(name, &record);
    if (!account || !table_add(&accounts->table, str_hash(name, accounts->seed), account)) {
        free(account);
        return "out of memory";
    }
    return NULL;
}

static bool load_lines(struct accounts *accounts, struct str rest, char *error, size_t room)
{
    for (unsigned number = 1; rest.length; number++) {
        struct str line = str_cut(&rest, '\n');
        const char *wrong = line.length && line.at[0] != '#' ? load_line(accounts, line) : NULL;

        if (wrong) {
            snprintf(error, room, "%s:%u: %s", accounts->path, number, wrong);
            return false;
        }
    }
    return true;
}

/* A last line without its line feed is one that a crash has torn: what looks like its name may be a
 * part of it. It was never answered with success. It is moved to a file beside, for it may also be
 * what somebody wrote with an editor. */
static bool move_torn_line(const struct accounts *accounts, struct str text, size_t whole,
                           char *error, size_t room)
{
    struct str torn = {text.at + whole, text.length - whole};
    int code = os_replace_file(accounts->directory, TORN_NAME, torn);

    if (!code)
        code = os_truncate_file(accounts->path, whole);
    snprintf(error, room,
             code ? "%s: the last line is torn, and cannot be moved to " TORN_NAME ": %s"
                  : "%s: the last line was torn, and has been moved to " TORN_NAME,
             accounts->path, strerror(code));
    return code == 0;
}

static bool load(struct accounts *accounts, char *error, size_t room)
{
    struct buf text = {.limit = FILE_LIMIT};
    int code = os_read_file(accounts->path, &text);
    size_t whole = text.length;
    bool good = false;

    error[0] = '\0';
    while (whole && text.at[whole - 1] != '\n')
        whole--;
    if (code && code != ENOENT)
        snprintf(error, room, "%s: %s", accounts->path, strerror(code));
    else
        good =
            load_lines(accounts, (struct str){text.at, whole}, error, room) &&
            (whole == text.length || move_torn_line(accounts, str_of(&text), whole, error, room));
    accounts->has_file = code == 0;
    buf_free(&text);
    return good;
}

static struct accounts *new_accounts(int wake, unsigned iterations, char *error, size_t room)
{
    struct accounts *accounts = calloc(1, sizeof *accounts);

    snprintf(error, room, "out of memory");
    if (!accounts)
        return NULL;
    pthread_mutex_init(&accounts->lock, NULL);
    pthread_cond_init(&accounts->changed, NULL);
    accounts->wake = wake;
    accounts->iterations = iterations;
    if (crypto_random(&accounts->seed, sizeof accounts->seed) &&
        crypto_random(accounts->key, sizeof accounts->key))
        return accounts;
    account_close(accounts);
    return NULL;
}

struct accounts *account_open(const char *directory, int wake, unsigned iterations, char *error,
                               size_t room)
{
    struct accounts *accounts = new_accounts(wake, iterations, error, room);

    if (!accounts)
        return NULL;
    snprintf(accounts->directory, sizeof accounts->directory, "%s", directory);
    snprintf(accounts->path, sizeof accounts->path, "%s/" FILE_NAME, directory);
    if (load(accounts, error, room))
        return accounts;
    account_close(accounts);
    return NULL;
}

struct accounts *account_open_store(const struct account_store *store, int wake,
                                     unsigned iterations, char *error, size_t room)
{
    struct accounts *accounts = new_accounts(wake, iterations, error, room);

    if (accounts) {
        accounts->store = store;
        error[0] = '\0';
    }
    return accounts;
}

bool account_exists(struct accounts *accounts, struct str name)
{
    bool known;

    pthread_mutex_lock(&accounts->lock);
    known = !accounts->store && find(accounts, name) != NULL;
    pthread_mutex_unlock(&accounts->lock);
    return known;
}

static bool make_known(struct accounts *accounts, struct account *account)
{
    struct str name = {account->name, account->name_length};
    bool added;

    pthread_mutex_lock(&accounts->lock);
    added = table_add(&accounts->table, str_hash(name, accounts->seed), account);
    pthread_mutex_unlock(&accounts->lock);
    return added;
}

/* Appends the new account to the file, then makes it known. */
static enum account_outcome commit_to_file(struct accounts *accounts, struct account *account,
                                           int *error)
{
    struct buf line = {0};
    size_t before = 0;

    append_line(&line, account);
    *error = line.failed ? ENOMEM : 0;
    if (!*error && !accounts->has_file) {
        *error = os_replace_file(accounts->directory, FILE_NAME, STR(FILE_HEADER));
        accounts->has_file = !*error;
    }
    if (!*error)
        *error = os_append_file(accounts->path, str_of(&line), FILE_LIMIT, &before);
    buf_free(&line);
    if (*error)
        return ACCOUNT_UNSAVED;
    if (make_known(accounts, account))
        return ACCOUNT_DONE;
    /* a line that stays would stand there twice when the same name comes again */
    os_truncate_file(accounts->path, before);
    *error = ENOMEM;
    return ACCOUNT_UNSAVED;
}

/* --- what a store has said ------------------------------------------------------------------- */

/* Adds a store's account of which nothing is known yet; another one may be forgotten for it. */
static struct account *add_learned(struct accounts *accounts, struct str name)
{
    struct table *table = &accounts->table;
    struct account *account = new_account(name, &(struct record){0}), *other;

    if (account && table->count >= ACCOUNT_CACHE_MAX) {
        other = table_walk(table, &accounts->sweep);
        if (!other) {
            accounts->sweep = 0;
            other = table_walk(table, &accounts->sweep);
        }
        table_remove(table, str_hash((struct str){other->name, other->name_length}, accounts->seed),
                     other);
        free(other);
    }
    if (account && table_add(table, str_hash(name, accounts->seed), account))
        return account;
    free(account);
    return NULL;
}

/* Keeps what the store says of an account now; a record without iterations: there is none. */
static void learn(struct accounts *accounts, struct str name, const struct record *record)
{
    struct account *account;

    pthread_mutex_lock(&accounts->lock);
    account = find(accounts, name);
    if (!account)
        account = add_learned(accounts, name);
    if (account) {
        if (memcmp(&account->record, record, sizeof *record) != 0)
            account->remembered = false;
        account->record = *record;
        account->generation = generation_of(record);
        account->learned_at = os_now_ms();
        account->look_at = account->learned_at + LOOK_AGAIN;
        account->refuted = true;
    }
    pthread_mutex_unlock(&accounts->lock);
}

static void ask_store(struct accounts *accounts, struct str name);

static enum account_token_status check_learned(struct accounts *accounts, struct str name,
                                           uint64_t generation)
{
    struct account *account = find(accounts, name);
    int64_t now = os_now_ms();
    bool differs, doubt;

    if (!account)
        account = add_learned(accounts, name);
    if (!account)
        return ACCOUNT_TOKEN_VALID;
    differs = account->learned_at &&
              (generation != account->generation || account->record.iterations == 0);
    /* the account may have been made anew through another node, and the token be newer than what is
     * known here */
    doubt = differs && account->doubted != generation;
    if (doubt) {
        account->doubted = generation;
        account->refuted = now - account->learned_at < JUST_LEARNED;
    }
    if ((doubt && !account->refuted) || now >= account->look_at) {
        account->look_at = now + LOOK_AGAIN;
        ask_store(accounts, name);
    }
    if (!differs)
        return ACCOUNT_TOKEN_VALID;
    if (!account->refuted)
        return ACCOUNT_TOKEN_UNKNOWN;
    return account->record.iterations ? ACCOUNT_TOKEN_REVOKED : ACCOUNT_TOKEN_ORPHAN;
}

enum account_token_status account_check_generation(struct accounts *accounts, struct str name,
                                     uint64_t generation)
{
    enum account_token_status standing;

    pthread_mutex_lock(&accounts->lock);
    if (accounts->store) {
        standing = check_learned(accounts, name, generation);
    } else {
        const struct account *account = find(accounts, name);

        standing = !account                            ? ACCOUNT_TOKEN_ORPHAN
                   : account->generation == generation ? ACCOUNT_TOKEN_VALID
                                                       : ACCOUNT_TOKEN_REVOKED;
    }
    pthread_mutex_unlock(&accounts->lock);
    return standing;
}

static enum account_outcome commit_to_store(struct accounts *accounts,
                                            const struct account *account)
{
    const struct account_store *store = accounts->store;
    struct str name = {account->name, account->name_length};
    struct buf record = {0};
    enum account_outcome outcome;

    append_record(&record, &account->record);
    outcome = record.failed ? ACCOUNT_FAILED : store->add(store->state, name, str_of(&record));
    buf_free(&record);
    if (outcome == ACCOUNT_DONE)
        learn(accounts, name, &account->record);
    return outcome;
}

/* --- logins that were good ------------------------------------------------------------------- */

/* An HMAC under this process's key over a record, a name and a password. */
static bool make_mac(const struct accounts *accounts, const struct record *record, struct str name,
                     struct str password, unsigned char mac[CRYPTO_HASH_SIZE])
{
    unsigned char room[sizeof *record + 1 + ACCOUNT_NAME_MAX + ACCOUNT_PASSWORD_MAX], *at = room;
    bool good;

    if (name.length > ACCOUNT_NAME_MAX || password.length > ACCOUNT_PASSWORD_MAX)
        return false;
    memcpy(at, record, sizeof *record);
    at += sizeof *record;
    *at++ = (unsigned char)name.length;
    memcpy(at, name.at, name.length);
    at += name.length;
    memcpy(at, password.at, password.length);
    at += password.length;
    good = crypto_hmac(accounts->key, bytes_of(room, (size_t)(at - room)), mac);
    crypto_erase(room, sizeof room);
    return good;
}

/* True if this password was good for the account as it is known here; its record is copied. */
static bool recall(struct accounts *accounts, struct str name, struct str password,
                   struct record *record)
{
    unsigned char kept[MAC_SIZE], mac[CRYPTO_HASH_SIZE];
    const struct account *account;
    bool known;

    pthread_mutex_lock(&accounts->lock);
    account = find(accounts, name);
    known = account && account->remembered;
    if (known) {
        *record = account->record;
        memcpy(kept, account->mac, sizeof kept);
    }
    pthread_mutex_unlock(&accounts->lock);
    return known && make_mac(accounts, record, name, password, mac) &&
           crypto_equal(bytes_of(mac, sizeof kept), bytes_of(kept, sizeof kept));
}

enum account_recall account_recall_login(struct accounts *accounts, struct str name,
                                          struct str password, uint64_t *generation)
{
    struct record record;

    if (!recall(accounts, name, password, &record))
        return ACCOUNT_RECALL_MISS;
    *generation = generation_of(&record);
    return accounts->store ? ACCOUNT_RECALL_LIKELY : ACCOUNT_RECALL_HIT;
}

static void remember(struct accounts *accounts, struct str name, struct str password,
                     const struct record *record)
{
    unsigned char mac[CRYPTO_HASH_SIZE];
    struct account *account;

    if (!make_mac(accounts, record, name, password, mac))
        return;
    pthread_mutex_lock(&accounts->lock);
    account = find(accounts, name);
    if (account && memcmp(&account->record, record, sizeof *record) == 0) {
        memcpy(account->mac, mac, sizeof account->mac);
        account->remembered = true;
    }
    pthread_mutex_unlock(&accounts->lock);
}

/* --- the worker ------------------------------------------------------------------------------ */

/* Finds the record of this name. DONE, DENIED (there is none), or why it cannot be told. */
static enum account_outcome look_up(struct accounts *accounts, struct str name,
                                    struct record *record)
{
    const struct account_store *store = accounts->store;
    struct buf text = {0};
    const struct account *account;
    enum account_outcome outcome;

    if (store) {
        struct str rest;

        outcome = store->find(store->state, name, &text);
        rest = str_of(&text);
        if (outcome == ACCOUNT_DONE && (text.failed || read_record(&rest, record)))
            outcome = ACCOUNT_FAILED;
        buf_free(&text);
        return outcome;
    }
    pthread_mutex_lock(&accounts->lock);
    account = find(accounts, name);
    outcome = account ? ACCOUNT_DONE : ACCOUNT_DENIED;
    if (account)
        *record = account->record;
    pthread_mutex_unlock(&accounts->lock);
    return outcome;
}

static enum account_outcome do_register(struct accounts *accounts, struct job *job)
{
    struct str name = {job->result.name, job->result.name_length};
    struct record record = {.iterations = accounts->iterations}, ignored;
    struct account *account;
    enum account_outcome outcome = look_up(accounts, name, &ignored);
    bool kept = false;

    if (outcome != ACCOUNT_DENIED)
        return outcome == ACCOUNT_DONE ? ACCOUNT_EXISTS : outcome;
    if (!crypto_random(record.salt, sizeof record.salt) ||
        !crypto_hash_password((struct str){job->password, job->password_length}, record.salt,
                              record.iterations, record.hash))
        return ACCOUNT_FAILED;
    account = new_account(name, &record);
    if (!account)
        return ACCOUNT_FAILED;
    job->result.generation = account->generation;
    outcome = accounts->store ? commit_to_store(accounts, account)
                              : commit_to_file(accounts, account, &job->result.error);
    kept = outcome == ACCOUNT_DONE && !accounts->store;
    if (!kept)
        free(account);
    return outcome;
}

static enum account_outcome do_login(struct accounts *accounts, struct job *job)
{
    struct str name = {job->result.name, job->result.name_length};
    struct str password = {job->password, job->password_length};
    /* an unknown name costs the same hashing as a known one, and so is not told by the time */
    struct record record = {.iterations = accounts->iterations}, known;
    unsigned char hash[CRYPTO_HASH_SIZE];
    enum account_outcome found = look_up(accounts, name, &record);

    if (found != ACCOUNT_DONE && found != ACCOUNT_DENIED)
        return found;
    if (found == ACCOUNT_DONE)
        job->result.generation = generation_of(&record);
    if (found == ACCOUNT_DONE && recall(accounts, name, password, &known) &&
        memcmp(&known, &record, sizeof record) == 0)
        return ACCOUNT_DONE;
    if (!crypto_hash_password(password, record.salt, record.iterations, hash))
        return ACCOUNT_FAILED;
    if (accounts->store && found == ACCOUNT_DONE)
        learn(accounts, name, &record);
    if (!crypto_equal(bytes_of(hash, sizeof hash), bytes_of(record.hash, sizeof record.hash)) ||
        found != ACCOUNT_DONE)
        return ACCOUNT_DENIED;
    remember(accounts, name, password, &record);
    return ACCOUNT_DONE;
}

static void do_look_up(struct accounts *accounts, const struct job *job)
{
    struct str name = {job->result.name, job->result.name_length};
    struct record record = {0};
    enum account_outcome outcome = look_up(accounts, name, &record);

    if (outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED)
        learn(accounts, name, &record);
}

/* The next job that is due: a look-up, or a login and a registration in turn. */
static struct job *choose_job(struct accounts *accounts)
{
    int64_t now = os_now_ms();
    enum account_job_kind other =
        accounts->last_kind == ACCOUNT_LOGIN ? ACCOUNT_REGISTER : ACCOUNT_LOGIN;
    struct job *job = pop(&accounts->waiting[LOOK_UP]);

    if (job)
        return job;
    job = pop_in_turn(accounts, &accounts->waiting[other], now);
    if (!job)
        job = pop_in_turn(accounts, &accounts->waiting[accounts->last_kind], now);
    if (!job)
        return NULL;
    accounts->last_kind = job->result.kind;
    accounts->begun[accounts->begun_count++ % TURNS] = job->result.origin;
    return job;
}

/* Waits until there may be a job. The steady clock says what is due; a clock that is set wakes the
 * worker too early or, at the most a second, too late. */
static void wait_for_job(struct accounts *accounts)
{
    int64_t now = os_now_ms(), wait = INT64_MAX;
    struct timespec until;

    for (const struct job *job = accounts->waiting[ACCOUNT_LOGIN].first; job; job = job->next)
        if (job->due - now < wait)
            wait = job->due - now;
    if (wait == INT64_MAX) {
        pthread_cond_wait(&accounts->changed, &accounts->lock);
        return;
    }
    wait = wait > 1000 ? 1000 : wait;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(wait * 1000000 + 1000000);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&accounts->changed, &accounts->lock, &until);
}

static struct job *next_job(struct accounts *accounts)
{
    struct job *job = NULL;

    pthread_mutex_lock(&accounts->lock);
    while (!accounts->stop && !(job = choose_job(accounts)))
        wait_for_job(accounts);
    pthread_mutex_unlock(&accounts->lock);
    return job;
}

static void *work(void *argument)
{
    struct accounts *accounts = argument;
    struct job *job;

    while ((job = next_job(accounts))) {
        enum account_outcome outcome = ACCOUNT_DONE;

        if (job->result.kind == ACCOUNT_REGISTER)
            outcome = do_register(accounts, job);
        else if (job->result.kind == ACCOUNT_LOGIN)
            outcome = do_login(accounts, job);
        else
            do_look_up(accounts, job);
        if (outcome == ACCOUNT_UNREACHABLE)
            snprintf(job->result.reason, sizeof job->result.reason, "%s",
                     accounts->store->reason(accounts->store->state));
        pthread_mutex_lock(&accounts->lock);
        if ((int)job->result.kind == LOOK_UP)
            free_job(job);
        else
            finish(accounts, job, outcome);
        pthread_mutex_unlock(&accounts->lock);
    }
    return NULL;
}

/* --- submitting ------------------------------------------------------------------------------ */

static bool start_worker(struct accounts *accounts)
{
    if (!accounts->has_worker)
        accounts->has_worker = os_thread_start(&accounts->worker, work, accounts);
    return accounts->has_worker;
}

static struct job *new_job(const struct account_request *request)
{
    struct job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    job->result = (struct account_result){.request_id = request->request_id,
                                          .origin = request->origin,
                                          .kind = request->kind,
                                          .name_length = request->name.length};
    memcpy(job->result.name, request->name.at, request->name.length);
    job->password_length = request->password.length;
    memcpy(job->password, request->password.at, request->password.length);
    job->due = request->delay ? os_now_ms() + request->delay : 0;
    return job;
}

/* Puts a job before those that hash. The lock is held. */
static enum account_submission place_first(struct accounts *accounts, struct job *job)
{
    if (accounts->waiting[LOOK_UP].count >= ACCOUNT_CACHE_MAX)
        return ACCOUNT_QUEUE_FULL;
    push(&accounts->waiting[LOOK_UP], job);
    pthread_cond_signal(&accounts->changed);
    return ACCOUNT_SUBMITTED;
}

/* Has the worker look up a store's account. The lock is held. */
static void ask_store(struct accounts *accounts, struct str name)
{
    struct account_request request = {
        .kind = (enum account_job_kind)LOOK_UP, .name = name, .password = STR("")};
    struct job *job = start_worker(accounts) ? new_job(&request) : NULL;

    if (job && place_first(accounts, job) != ACCOUNT_SUBMITTED)
        free_job(job);
}

static bool same_account(const struct job *a, const struct job *b)
{
    return a->result.origin == b->result.origin &&
           str_equal((struct str){a->result.name, a->result.name_length},
                     (struct str){b->result.name, b->result.name_length});
}

static bool same_login(const struct job *a, const struct job *b)
{
    return a->result.kind == b->result.kind && same_account(a, b) &&
           crypto_equal((struct str){a->password, a->password_length},
                        (struct str){b->password, b->password_length});
}

/* Lets a login wait for the outcome of one that is the same; false if there is none. One that has
 * begun may have looked the account up before it changed. */
static bool join(struct accounts *accounts, struct job *job)
{
    struct job *other = accounts->waiting[ACCOUNT_LOGIN].first;

    if (accounts->joined >= ACCOUNT_COALESCED_MAX)
        return false;
    while (other && !same_login(other, job))
        other = other->next;
    if (!other)
        return false;
    job->result.joined = true;
    job->joined = other->joined;
    other->joined = job;
    accounts->joined++;
    return true;
}

/* True if the password was refused as throttled lately; it counts as refused now. */
static bool insists(struct accounts *accounts, const struct job *job)
{
    static const struct record none;
    unsigned char mac[CRYPTO_HASH_SIZE];
    uint64_t tag = 0;
    bool before;

    if (!make_mac(accounts, &none, (struct str){job->result.name, job->result.name_length},
                  (struct str){job->password, job->password_length}, mac))
        return false;
    memcpy(&tag, mac, sizeof tag);
    before = accounts->tags[tag % TAGS] == tag;
    accounts->tags[tag % TAGS] = tag;
    return before;
}

/* True if a delayed login may wait: the first of its system and origin, or one that pushes it out.
 */
static bool may_wait(struct accounts *accounts, struct job *job)
{
    struct job_list *list = &accounts->waiting[ACCOUNT_LOGIN];
    struct job *before = NULL, *held = list->first;

    while (held && !(held->due && same_account(held, job))) {
        before = held;
        held = held->next;
    }
    if (!held)
        return true;
    job->insists = insists(accounts, job);
    if (!job->insists || held->insists)
        return false;
    job->due = held->due;
    finish(accounts, pop_behind(list, before), ACCOUNT_EVICTED);
    return true;
}

static enum account_submission place(struct accounts *accounts, struct job *job)
{
    enum account_job_kind kind = job->result.kind;

    if (kind == ACCOUNT_LOGIN && join(accounts, job))
        return ACCOUNT_COALESCED;
    if (job->due && !may_wait(accounts, job))
        return ACCOUNT_THROTTLED;
    if (!make_room(accounts, kind, job->result.origin))
        return ACCOUNT_QUEUE_FULL;
    push(&accounts->waiting[kind], job);
    pthread_cond_signal(&accounts->changed);
    return ACCOUNT_SUBMITTED;
}

enum account_submission account_submit(struct accounts *accounts,
                                        const struct account_request *request)
{
    enum account_submission submission = ACCOUNT_NO_RESOURCES;
    struct job *job = NULL;

    if (request->name.length <= ACCOUNT_NAME_MAX &&
        request->password.length <= ACCOUNT_PASSWORD_MAX)
        job = new_job(request);
    if (!job)
        return ACCOUNT_NO_RESOURCES;
    pthread_mutex_lock(&accounts->lock);
    if (start_worker(accounts))
        submission = request->likely ? place_first(accounts, job) : place(accounts, job);
    pthread_mutex_unlock(&accounts->lock);
    if (submission != ACCOUNT_SUBMITTED && submission != ACCOUNT_COALESCED)
        free_job(job);
    return submission;
}

bool account_take_result(struct accounts *accounts, struct account_result *result)
{
    struct job *job;

    pthread_mutex_lock(&accounts->lock);
    job = pop(&accounts->done);
    pthread_mutex_unlock(&accounts->lock);
    if (!job)
        return false;
    *result = job->result;
    free_job(job);
    return true;
}

/* Frees what is left of a list, with those that have joined jobs which are not done. */
static void free_jobs(struct job_list *list, bool with_joined)
{
    struct job *job, *joined;

    while ((job = pop(list)))
        for (; job; job = with_joined ? joined : NULL) {
            joined = job->joined;
            free_job(job);
        }
}

void account_close(struct accounts *accounts)
{
    size_t place = 0;
    struct account *account;

    if (!accounts)
        return;
    pthread_mutex_lock(&accounts->lock);
    accounts->stop = true;
    pthread_cond_signal(&accounts->changed);
    pthread_mutex_unlock(&accounts->lock);
    if (accounts->has_worker)
        pthread_join(accounts->worker, NULL);
    for (int kind = 0; kind < KINDS; kind++)
        free_jobs(&accounts->waiting[kind], true);
    free_jobs(&accounts->done, false);
    while ((account = table_walk(&accounts->table, &place)))
        free(account);
    table_free(&accounts->table);
    crypto_erase(accounts->key, sizeof accounts->key);
    pthread_cond_destroy(&accounts->changed);
    pthread_mutex_destroy(&accounts->lock);
    free(accounts);
}

/* account.c - systems, passwords, the accounts file or store. */
#include "account.h"

#include "crypto.h"
#include "file.h"
#include "table.h"
#include "worker.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "accounts"
#define FILE_HEADER "# wspush accounts: method iterations salt hash name\n"
#define FILE_LIMIT (256u * 1024 * 1024)
#define METHOD "pbkdf2-sha256"

struct account {
    unsigned iterations;
    unsigned char salt[CRYPTO_SALT_SIZE], hash[CRYPTO_HASH_SIZE];
    size_t name_length;
    char name[];
};

struct job {
    struct job *next;
    struct account_result result;
    size_t password_length;
    char password[ACCOUNT_PASSWORD_MAX];
};

struct job_list {
    struct job *first, *last;
    size_t count;
};

struct accounts {
    const struct account_store *store; /* NULL: the file in `directory` */
    char directory[PATH_MAX];
    int wake;
    unsigned iterations;
    uint32_t seed;
    pthread_t worker;
    bool has_worker;
    struct buf image; /* the file's text; the worker's own once it runs */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct table table; /* of struct account */
    struct job_list waiting, done;
    uint32_t begun[ACCOUNT_JOBS_MAX]; /* origins of jobs in the order they were begun, a ring, */
    size_t begun_count;               /* and how many there have been */
    bool stop;
};

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

static struct job *pop(struct job_list *list)
{
    struct job *job = list->first;

    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return job;
}

/* How many jobs ago one of this origin was begun, as far as is remembered. */
static size_t turns_since(const struct accounts *accounts, uint32_t origin)
{
    size_t ago = 0;

    while (ago < ACCOUNT_JOBS_MAX && ago < accounts->begun_count &&
           accounts->begun[(accounts->begun_count - 1 - ago) % ACCOUNT_JOBS_MAX] != origin)
        ago++;
    return ago < accounts->begun_count ? ago : ACCOUNT_JOBS_MAX;
}

/* The oldest job of the origin whose last turn is the longest ago. */
static struct job *pop_in_turn(struct accounts *accounts)
{
    struct job_list *list = &accounts->waiting;
    struct job *best = list->first, *before = NULL;

    for (struct job *job = list->first; job && job->next; job = job->next)
        if (turns_since(accounts, job->next->result.origin) >
            turns_since(accounts, best->result.origin)) {
            before = job;
            best = job->next;
        }
    if (!before)
        return pop(list);
    before->next = best->next;
    if (list->last == best)
        list->last = before;
    list->count--;
    return best;
}

static size_t count_from(const struct job_list *list, uint32_t origin)
{
    size_t count = 0;

    for (const struct job *job = list->first; job; job = job->next)
        count += job->result.origin == origin;
    return count;
}

static void free_job(struct job *job)
{
    crypto_erase(job, sizeof *job);
    free(job);
}

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

static struct account *new_account(struct str name)
{
    struct account *account = calloc(1, sizeof *account + name.length);

    if (account) {
        account->name_length = name.length;
        memcpy(account->name, name.at, name.length);
    }
    return account;
}

static struct str bytes_of(const unsigned char *at, size_t length)
{
    return (struct str){(const char *)at, length};
}

static void append_record(struct buf *out, const struct account *account)
{
    buf_append(out, STR(METHOD " "));
    buf_append_number(out, account->iterations);
    buf_append(out, STR(" "));
    crypto_hex(out, bytes_of(account->salt, sizeof account->salt));
    buf_append(out, STR(" "));
    crypto_hex(out, bytes_of(account->hash, sizeof account->hash));
}

static void append_line(struct buf *out, const struct account *account)
{
    append_record(out, account);
    buf_append(out, STR(" "));
    buf_append(out, (struct str){account->name, account->name_length});
    buf_append(out, STR("\n"));
}

/* Reads a record off the front of `rest`; returns what is wrong with it, or NULL. */
static const char *read_record(struct str *rest, struct account *account)
{
    struct str method = str_cut(rest, ' '), count = str_cut(rest, ' ');
    struct str salt = str_cut(rest, ' '), hash = str_cut(rest, ' ');
    uint64_t iterations = 0;

    if (!str_equal(method, STR(METHOD)))
        return "unknown method of hashing";
    if (!str_number(count, INT_MAX, &iterations) || iterations == 0)
        return "malformed number of iterations";
    account->iterations = (unsigned)iterations;
    if (!crypto_unhex(salt, account->salt, sizeof account->salt) ||
        !crypto_unhex(hash, account->hash, sizeof account->hash))
        return "malformed salt or hash";
    return NULL;
}

/* Adds the account of one line of the file; returns what is wrong with it, or NULL. */
static const char *load_line(struct accounts *accounts, struct str line)
{
    struct account read = {0};
    struct str name = line;
    const char *wrong = read_record(&name, &read);
    struct account *account;

    if (wrong)
        return wrong;
    if (name.length == 0 || name.length > ACCOUNT_NAME_MAX)
        return "malformed name";
    if (find(accounts, name))
        return "this name stands in the file twice";
    account = new_account(name);
    if (!account)
        return "out of memory";
    read.name_length = name.length;
    *account = read; /* the name behind it stays */
    if (!table_add(&accounts->table, str_hash(name, accounts->seed), account)) {
        free(account);
        return "out of memory";
    }
    return NULL;
}

static bool load(struct accounts *accounts, char *error, size_t room)
{
    char path[PATH_MAX + sizeof FILE_NAME];
    struct str rest;
    int code;

    accounts->image.limit = FILE_LIMIT;
    snprintf(path, sizeof path, "%s/" FILE_NAME, accounts->directory);
    code = file_read(path, &accounts->image);
    if (code == ENOENT)
        return buf_append(&accounts->image, STR(FILE_HEADER));
    if (code) {
        snprintf(error, room, "%s: %s", path, strerror(code));
        return false;
    }
    rest = str_of(&accounts->image);
    for (unsigned number = 1; rest.length; number++) {
        struct str line = str_cut(&rest, '\n');
        const char *wrong = line.length && line.at[0] != '#' ? load_line(accounts, line) : NULL;

        if (wrong) {
            snprintf(error, room, "%s:%u: %s", path, number, wrong);
            return false;
        }
    }
    /* an edited file may lack its last line feed; the next account needs a line of its own */
    return accounts->image.length == 0 || accounts->image.at[accounts->image.length - 1] == '\n' ||
           buf_append(&accounts->image, STR("\n"));
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
    if (crypto_random(&accounts->seed, sizeof accounts->seed))
        return accounts;
    accounts_close(accounts);
    return NULL;
}

struct accounts *accounts_open(const char *directory, int wake, unsigned iterations, char *error,
                               size_t room)
{
    struct accounts *accounts = new_accounts(wake, iterations, error, room);

    if (!accounts)
        return NULL;
    snprintf(accounts->directory, sizeof accounts->directory, "%s", directory);
    if (load(accounts, error, room))
        return accounts;
    accounts_close(accounts);
    return NULL;
}

struct accounts *accounts_open_store(const struct account_store *store, int wake,
                                     unsigned iterations, char *error, size_t room)
{
    struct accounts *accounts = new_accounts(wake, iterations, error, room);

    if (accounts)
        accounts->store = store;
    return accounts;
}

bool accounts_know(struct accounts *accounts, struct str name)
{
    bool known;

    pthread_mutex_lock(&accounts->lock);
    known = find(accounts, name) != NULL;
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

/* Writes the file with the new account in it, then makes the account known. */
static enum account_outcome commit_to_file(struct accounts *accounts, struct account *account,
                                           int *error)
{
    size_t before = accounts->image.length;

    append_line(&accounts->image, account);
    *error = accounts->image.failed
                 ? EFBIG
                 : file_replace(accounts->directory, FILE_NAME, str_of(&accounts->image));
    if (!*error) {
        if (make_known(accounts, account))
            return ACCOUNT_DONE;
        *error = ENOMEM;
    }
    accounts->image.length = before;
    accounts->image.failed = false;
    /* it may have been the last step that failed, behind the rename; and a line that stays would
     * stand there twice when the same name comes again */
    file_replace(accounts->directory, FILE_NAME, str_of(&accounts->image));
    return ACCOUNT_UNSAVED;
}

static enum account_outcome commit_to_store(const struct account_store *store,
                                            const struct account *account)
{
    struct str name = {account->name, account->name_length};
    struct buf record = {0};
    enum account_outcome outcome;

    append_record(&record, account);
    outcome = record.failed ? ACCOUNT_FAILED : store->add(store->state, name, str_of(&record));
    buf_free(&record);
    return outcome;
}

/* Finds the account of this name and copies it, but for the name. DONE, DENIED (there is none), or
 * why it cannot be told. */
static enum account_outcome look_up(struct accounts *accounts, struct str name,
                                    struct account *copy)
{
    const struct account_store *store = accounts->store;
    struct buf record = {0};
    const struct account *account;
    enum account_outcome outcome;

    if (store) {
        struct str rest;

        outcome = store->find(store->state, name, &record);
        rest = str_of(&record);
        if (outcome == ACCOUNT_DONE && (record.failed || read_record(&rest, copy)))
            outcome = ACCOUNT_FAILED;
        buf_free(&record);
        return outcome;
    }
    pthread_mutex_lock(&accounts->lock);
    account = find(accounts, name);
    outcome = account ? ACCOUNT_DONE : ACCOUNT_DENIED;
    if (account)
        *copy = *account;
    pthread_mutex_unlock(&accounts->lock);
    return outcome;
}

static enum account_outcome do_register(struct accounts *accounts, struct job *job)
{
    struct str name = {job->result.name, job->result.name_length};
    struct account *account, ignored;
    enum account_outcome outcome = look_up(accounts, name, &ignored);
    bool kept = false;

    if (outcome != ACCOUNT_DENIED)
        return outcome == ACCOUNT_DONE ? ACCOUNT_EXISTS : outcome;
    account = new_account(name);
    outcome = ACCOUNT_FAILED;
    if (!account)
        return outcome;
    account->iterations = accounts->iterations;
    if (crypto_random(account->salt, sizeof account->salt) &&
        crypto_hash_password((struct str){job->password, job->password_length}, account->salt,
                             account->iterations, account->hash)) {
        outcome = accounts->store ? commit_to_store(accounts->store, account)
                                  : commit_to_file(accounts, account, &job->result.error);
        kept = outcome == ACCOUNT_DONE && !accounts->store;
    }
    if (!kept)
        free(account);
    return outcome;
}

static enum account_outcome do_login(struct accounts *accounts, struct job *job)
{
    /* an unknown name costs the same hashing as a known one, and so is not told by the time */
    struct account copy = {.iterations = accounts->iterations};
    unsigned char hash[CRYPTO_HASH_SIZE];
    enum account_outcome found =
        look_up(accounts, (struct str){job->result.name, job->result.name_length}, &copy);
    bool same;

    if (found != ACCOUNT_DONE && found != ACCOUNT_DENIED)
        return found;
    if (!crypto_hash_password((struct str){job->password, job->password_length}, copy.salt,
                              copy.iterations, hash))
        return ACCOUNT_FAILED;
    same = crypto_equal(bytes_of(hash, sizeof hash), bytes_of(copy.hash, sizeof copy.hash));
    return found == ACCOUNT_DONE && same ? ACCOUNT_DONE : ACCOUNT_DENIED;
}

static struct job *next_job(struct accounts *accounts)
{
    struct job *job;

    pthread_mutex_lock(&accounts->lock);
    while (!accounts->stop && !accounts->waiting.first)
        pthread_cond_wait(&accounts->changed, &accounts->lock);
    job = accounts->stop ? NULL : pop_in_turn(accounts);
    if (job)
        accounts->begun[accounts->begun_count++ % ACCOUNT_JOBS_MAX] = job->result.origin;
    pthread_mutex_unlock(&accounts->lock);
    return job;
}

static void *work(void *argument)
{
    struct accounts *accounts = argument;
    struct job *job;

    while ((job = next_job(accounts))) {
        ssize_t n;

        job->result.outcome = job->result.kind == ACCOUNT_REGISTER ? do_register(accounts, job)
                                                                   : do_login(accounts, job);
        pthread_mutex_lock(&accounts->lock);
        push(&accounts->done, job);
        pthread_mutex_unlock(&accounts->lock);
        n = write(accounts->wake, "a", 1);
        (void)n; /* a full pipe wakes the loop as well */
    }
    return NULL;
}

static bool start_worker(struct accounts *accounts)
{
    if (!accounts->has_worker)
        accounts->has_worker = worker_start(&accounts->worker, work, accounts);
    return accounts->has_worker;
}

enum account_submission accounts_submit(struct accounts *accounts, enum account_job_kind kind,
                                        uint64_t ticket, uint32_t origin, struct str name,
                                        struct str password)
{
    struct job *job;
    bool room;

    if (name.length > ACCOUNT_NAME_MAX || password.length > ACCOUNT_PASSWORD_MAX ||
        !start_worker(accounts))
        return ACCOUNT_SCARCE;
    job = calloc(1, sizeof *job);
    if (!job)
        return ACCOUNT_SCARCE;
    job->result = (struct account_result){
        .ticket = ticket, .origin = origin, .kind = kind, .name_length = name.length};
    memcpy(job->result.name, name.at, name.length);
    job->password_length = password.length;
    memcpy(job->password, password.at, password.length);
    pthread_mutex_lock(&accounts->lock);
    room = accounts->waiting.count < ACCOUNT_JOBS_MAX &&
           count_from(&accounts->waiting, origin) < ACCOUNT_ORIGIN_MAX;
    if (room) {
        push(&accounts->waiting, job);
        pthread_cond_signal(&accounts->changed);
    }
    pthread_mutex_unlock(&accounts->lock);
    if (!room)
        free_job(job);
    return room ? ACCOUNT_SUBMITTED : ACCOUNT_CROWDED;
}

bool accounts_take_result(struct accounts *accounts, struct account_result *result)
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

static void free_jobs(struct job_list *list)
{
    struct job *job;

    while ((job = pop(list)))
        free_job(job);
}

void accounts_close(struct accounts *accounts)
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
    free_jobs(&accounts->waiting);
    free_jobs(&accounts->done);
    while ((account = table_walk(&accounts->table, &place)))
        free(account);
    table_free(&accounts->table);
    buf_free(&accounts->image);
    pthread_cond_destroy(&accounts->changed);
    pthread_mutex_destroy(&accounts->lock);
    free(accounts);
}

/* account.h - the systems that may use the server, their passwords, and their tokens' generations:
 * in data_dir/accounts, or in a store that many nodes share.
 *
 * The loop looks a system up, checks a generation and recalls a login that was good: that is quick.
 * Registering and logging in take a tenth of a second of hashing and a sync of the disk: a worker
 * thread does them, one after the other, and writes a byte to the wake descriptor when it has a
 * result.
 * Refuses: more jobs than it can do in reasonable time, and to report success before the account
 * is on the disk, or in the store. */
#ifndef WSPUSH_ACCOUNT_H
#define WSPUSH_ACCOUNT_H

#include "buf.h"

#define ACCOUNT_NAME_MAX 128
#define ACCOUNT_PASSWORD_MAX 256
#define ACCOUNT_ITERATIONS 600000 /* of PBKDF2, for new accounts */
/* Jobs that wait: neither kind uses up the other's places. */
#define ACCOUNT_LOGINS_MAX 48
#define ACCOUNT_REGISTRATIONS_MAX 16
#define ACCOUNT_COALESCED_MAX 1024   /* logins that wait for the outcome of another one */
#define ACCOUNT_CACHE_MAX 16384 /* of a store's accounts, those kept in memory */

struct accounts;

enum account_job_kind { ACCOUNT_REGISTER, ACCOUNT_LOGIN };

enum account_outcome {
    ACCOUNT_DONE,        /* registered and on the disk, or the password is right */
    ACCOUNT_EXISTS,      /* the name is taken */
    ACCOUNT_DENIED,      /* unknown name or wrong password: which of them is not said */
    ACCOUNT_UNSAVED,     /* the file could not be written: nothing has changed */
    ACCOUNT_UNREACHABLE, /* the store cannot be reached, or refuses: `reason` says why */
    ACCOUNT_EVICTED,  /* not done: its place went to a job from elsewhere */
    ACCOUNT_FAILED       /* OpenSSL failed or there was no memory */
};

/* Where accounts are kept instead of in a file. The worker calls these, and they may wait. */
struct account_store {
    void *state; /* the store's own */
    /* Appends the record of `name` to `record`. DONE, DENIED (there is none) or UNREACHABLE. */
    enum account_outcome (*find)(void *state, struct str name, struct buf *record);
    /* Adds a record unless there is one. DONE, EXISTS or UNREACHABLE. */
    enum account_outcome (*add)(void *state, struct str name, struct str record);
    /* Why the last of these was UNREACHABLE, for anybody to read; valid until the next. */
    const char *(*reason)(void *state);
};

#define ACCOUNT_REASON_MAX 250

/* What became of a job. */
struct account_result {
    uint64_t request_id; /* the caller's */
    uint32_t origin; /* from where it was submitted */
    bool joined;     /* the outcome is that of another login with the same password */
    enum account_job_kind kind;
    enum account_outcome outcome;
    int error;                       /* errno, with ACCOUNT_UNSAVED */
    char reason[ACCOUNT_REASON_MAX]; /* with ACCOUNT_UNREACHABLE */
    uint64_t generation;             /* of the account, if DONE */
    size_t name_length;
    char name[ACCOUNT_NAME_MAX];
};

/* Opens, or prepares, the accounts in an existing directory. New passwords are hashed with
 * `iterations`. NULL: `error` says what is wrong (with FILE:LINE), cut to `room` bytes. Otherwise
 * `error` is empty, or says that a last line which a crash had torn was moved out of the file. */
struct accounts *account_open(const char *directory, int wake, unsigned iterations, char *error,
                               size_t room);

/* The same, but in a store, which must outlive the accounts. */
struct accounts *account_open_store(const struct account_store *store, int wake,
                                     unsigned iterations, char *error, size_t room);

/* True if a system of this name is registered; of a store's accounts nothing is known. */
bool account_exists(struct accounts *accounts, struct str name);

enum account_token_status {
    ACCOUNT_TOKEN_VALID, /* the token's generation is that of the account */
    ACCOUNT_TOKEN_REVOKED,    /* the account has another one: it was made anew, or has another password */
    ACCOUNT_TOKEN_ORPHAN,    /* there is no such account */
    ACCOUNT_TOKEN_UNKNOWN   /* the store is being asked: try again */
};

/* Whether a token of this generation is still good. A generation is derived from the account's
 * salt.
 *
 * With a store, what this node knows of an account is used, and looked up again in the background
 * when it is more than 10 s old. As long as nothing is known of it, every generation is current. A
 * generation that differs from the known one is unsure until the store has been asked. */
enum account_token_status account_check_generation(struct accounts *accounts, struct str name,
                                     uint64_t generation);

enum account_recall {
    ACCOUNT_RECALL_MISS, /* nothing is known of such a login */
    ACCOUNT_RECALL_LIKELY,    /* it was good, unless the account in the store has changed: needs a job */
    ACCOUNT_RECALL_HIT   /* it is good: needs no job */
};

/* Whether the last login to this account that was good had this password. Costs one HMAC. What is
 * kept of a login is an HMAC under a random key of this process. `generation` is set if RECALLED.
 */
enum account_recall account_recall_login(struct accounts *accounts, struct str name,
                                          struct str password, uint64_t *generation);

struct account_request {
    enum account_job_kind kind;
    uint64_t request_id;
    uint32_t origin;
    struct str name, password; /* copied */
    int64_t delay;             /* of a login that is throttled: milliseconds before it may start */
    bool likely;               /* a login that is ACCOUNT_RECALL_LIKELY: it goes before others */
};

enum account_submission {
    ACCOUNT_SUBMITTED,
    ACCOUNT_COALESCED,    /* to a login with the same password from the same origin */
    ACCOUNT_QUEUE_FULL,   /* all places are taken, and nobody has more of them than this origin */
    ACCOUNT_THROTTLED, /* a delayed login of this system and origin waits already */
    ACCOUNT_NO_RESOURCES     /* no thread or memory is to be had, or the name or password is too long */
};

/* Gives the worker a job.
 *
 * Logins and registrations alternate. Among the jobs of a kind, the origin whose last turn is the
 * longest ago comes first. When all places of a kind are taken, a new job pushes out the newest job
 * of the origin that has the most, or, of those that have the same, had a turn most recently.
 *
 * Of delayed logins, one of each system and origin waits. A password that was refused as throttled
 * before takes the place of one that was not: whoever guesses does not repeat, whoever knows does.
 */
enum account_submission account_submit(struct accounts *accounts,
                                        const struct account_request *request);

/* Takes the next result; false if there is none. */
bool account_take_result(struct accounts *accounts, struct account_result *result);

/* Waits for the job being done, drops the others, and frees everything; NULL is allowed. */
void account_close(struct accounts *accounts);

#endif

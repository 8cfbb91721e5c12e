/* account.h - the systems that may use the server, and their passwords: in data_dir/accounts, or in
 * a store that many nodes share.
 *
 * Looking a system up is quick and done by the loop. Registering and logging in take a tenth of a
 * second of hashing and a sync of the disk: a worker thread does them, one after the other, and
 * writes a byte to the wake descriptor when it has a result.
 * Refuses: more jobs than it can do in reasonable time, and to report success before the account
 * is on the disk, or in the store. */
#ifndef WSPUSH_ACCOUNT_H
#define WSPUSH_ACCOUNT_H

#include "buf.h"

#define ACCOUNT_NAME_MAX 128
#define ACCOUNT_PASSWORD_MAX 256
#define ACCOUNT_ITERATIONS 600000 /* of PBKDF2, for new accounts */
#define ACCOUNT_JOBS_MAX 64
#define ACCOUNT_ORIGIN_MAX (ACCOUNT_JOBS_MAX * 3 / 4) /* of them, from one origin */

struct accounts;

enum account_job_kind { ACCOUNT_REGISTER, ACCOUNT_LOGIN };

enum account_outcome {
    ACCOUNT_DONE,        /* registered and on the disk, or the password is right */
    ACCOUNT_EXISTS,      /* the name is taken */
    ACCOUNT_DENIED,      /* unknown name or wrong password: which of them is not said */
    ACCOUNT_UNSAVED,     /* the file could not be written: nothing has changed */
    ACCOUNT_UNREACHABLE, /* the store cannot be reached */
    ACCOUNT_FAILED       /* OpenSSL failed or there was no memory */
};

/* Where accounts are kept instead of in a file. The worker calls these, and they may wait. */
struct account_store {
    void *state; /* the store's own */
    /* Appends the record of `name` to `record`. DONE, DENIED (there is none) or UNREACHABLE. */
    enum account_outcome (*find)(void *state, struct str name, struct buf *record);
    /* Adds a record unless there is one. DONE, EXISTS or UNREACHABLE. */
    enum account_outcome (*add)(void *state, struct str name, struct str record);
};

/* What became of a job. */
struct account_result {
    uint64_t ticket; /* the caller's */
    uint32_t origin; /* from where it was submitted */
    enum account_job_kind kind;
    enum account_outcome outcome;
    int error; /* errno, with ACCOUNT_UNSAVED */
    size_t name_length;
    char name[ACCOUNT_NAME_MAX];
};

/* Opens, or prepares, the accounts in an existing directory. New passwords are hashed with
 * `iterations`. NULL: `error` says what is wrong (with FILE:LINE), cut to `room` bytes. */
struct accounts *accounts_open(const char *directory, int wake, unsigned iterations, char *error,
                               size_t room);

/* The same, but in a store, which must outlive the accounts. */
struct accounts *accounts_open_store(const struct account_store *store, int wake,
                                     unsigned iterations, char *error, size_t room);

/* True if a system of this name is registered; of a store's accounts nothing is known. */
bool accounts_know(struct accounts *accounts, struct str name);

enum account_submission {
    ACCOUNT_SUBMITTED,
    ACCOUNT_CROWDED, /* ACCOUNT_JOBS_MAX jobs are waiting, or ACCOUNT_ORIGIN_MAX from there */
    ACCOUNT_SCARCE   /* no thread or memory is to be had, or the name or password is too long */
};

/* Gives the worker a job; name and password are copied, at most ACCOUNT_NAME_MAX and
 * ACCOUNT_PASSWORD_MAX bytes. Who submits many does not keep others waiting: whose last turn
 * is the longest ago comes first. */
enum account_submission accounts_submit(struct accounts *accounts, enum account_job_kind kind,
                                        uint64_t ticket, uint32_t origin, struct str name,
                                        struct str password);

/* Takes the next result; false if there is none. */
bool accounts_take_result(struct accounts *accounts, struct account_result *result);

/* Waits for the job being done, drops the others, and frees everything; NULL is allowed. */
void accounts_close(struct accounts *accounts);

#endif

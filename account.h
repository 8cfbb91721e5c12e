/* account.h - the systems that may use the server, their passwords, and their tokens' generations.
 *
 * The loop looks an account up, checks a token's generation and recalls a login that was good
 * before: none of these waits. Registering, logging in and changing an account take a tenth of a
 * second of hashing and wait for the disk or the store: a worker thread does these jobs one at a
 * time, and wakes the loop when it has a result. The number of waiting jobs is bounded. */
#ifndef WSPUSH_ACCOUNT_H
#define WSPUSH_ACCOUNT_H

#include "account_queue.h"

/* Waiting jobs of each queue. */
#define ACCOUNT_LOGINS_MAX 48
#define ACCOUNT_REGISTRATIONS_MAX 16
#define ACCOUNT_COALESCED_MAX 1024 /* logins that wait for the outcome of another one */

struct accounts;

/* Opens the accounts in an existing directory. Results are announced at `wake` (os_wake). New
 * passwords are hashed with `iterations`. NULL: `error` says what is wrong, cut to `size` bytes.
 * Else `error` is empty, or says that a torn last line was moved out of the file. */
struct accounts *account_open(const char *directory, int wake, unsigned iterations, char *error,
                              size_t size);

/* Opens the accounts of a store that nodes share; it must outlive them. NULL for a store: part of
 * account_open. */
struct accounts *account_open_store(const struct account_store *store, int wake,
                                    unsigned iterations, char *error, size_t size);

/* True if a system of this name is registered here; false with a shared store. */
bool account_exists(struct accounts *accounts, struct str name);

enum account_token_status {
    ACCOUNT_TOKEN_VALID,   /* the token's generation is that of the account */
    ACCOUNT_TOKEN_REVOKED, /* the account has another one */
    ACCOUNT_TOKEN_ORPHAN,  /* there is no such account */
    ACCOUNT_TOKEN_UNKNOWN  /* the shared store is being asked: try again */
};

/* Whether a token of this generation is still valid.
 *
 * With a shared store the answer comes from a cache, which the worker refreshes in the background
 * when an entry is older than 10 s. Without an entry every generation is valid; one that differs
 * from the entry is unknown until the store has been asked about it. */
enum account_token_status account_check_generation(struct accounts *accounts, struct str name,
                                                   uint64_t generation);

enum account_recall {
    ACCOUNT_RECALL_MISS,   /* no such login is remembered */
    ACCOUNT_RECALL_LIKELY, /* it was good; ask the shared store, by a job with `likely` set */
    ACCOUNT_RECALL_HIT     /* it is good: needs no job */
};

/* The version of a system's ticket key, and since when (unix seconds) it has been that: the version
 * before is good until *since + ticket_max. *since is 0 if the account has had no other. VALID, or
 * ORPHAN; UNKNOWN: a job of kind ACCOUNT_LOOK_UP must ask the shared store first. */
enum account_token_status account_ticket_version(struct accounts *accounts, struct str name,
                                                 uint64_t *version, int64_t *since);

/* Takes a system whose webhook has changed since the last call, or, at first, that has one: `name`
 * and `text` are empty buffers, `webhook` has views of `text`. It is off if the account is gone.
 * False: there is none. A change wakes the loop. */
bool account_next_webhook(struct accounts *accounts, struct buf *name, struct buf *text,
                          struct account_webhook *webhook);

/* Has account_next_webhook tell of all webhooks again, those of a shared store as it has them. */
void account_repeat_webhooks(struct accounts *accounts);

/* Another node has changed an account of the shared store: has the store asked about it. */
void account_forget(struct accounts *accounts, struct str name);

/* Whether the last good login to this account had this password. Costs one HMAC; what is remembered
 * of a login is an HMAC under a random key of this process. Sets *generation unless it is a miss.
 */
enum account_recall account_recall_login(struct accounts *accounts, struct str name,
                                         struct str password, uint64_t *generation);

enum account_submission {
    ACCOUNT_SUBMITTED,
    ACCOUNT_COALESCED,   /* with a waiting login that has the same password and origin */
    ACCOUNT_QUEUE_FULL,  /* and no origin has more jobs in it than this one */
    ACCOUNT_THROTTLED,   /* a delayed login of this system and origin is already waiting */
    ACCOUNT_NO_RESOURCES /* no thread or memory, or the name or a password is too long */
};

/* Gives the worker a job; after SUBMITTED and COALESCED there will be a result.
 *
 * Logins and registrations, and what waits with them (account_job_queue), alternate. Among jobs of
 * a queue, the least recently served origin comes first. When a queue is full, a new job evicts the
 * newest job of the origin that has most jobs in it (of equals, the most recently served one).
 *
 * Of delayed logins one waits for each system and origin. A password that was throttled before
 * takes the slot of one that was not: a guesser does not repeat itself, the owner does. */
enum account_submission account_submit(struct accounts *accounts,
                                       const struct account_request *request);

/* Takes the next result; false if there is none. After DONE of a change, the account is what it is
 * for every function above: tokens of an old password are REVOKED, those of a deleted account
 * ORPHAN. */
bool account_take_result(struct accounts *accounts, struct account_result *result);

/* Waits for the running job, drops the others, frees everything; NULL is allowed. */
void account_close(struct accounts *accounts);

#endif

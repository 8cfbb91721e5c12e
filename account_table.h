/* account_table.h - accounts in memory, by name, and the logins that were good: all accounts of a
 * single node, or a cache of a shared store.
 *
 * Part of account.c, which shares its lock. Functions that do not say so take the lock themselves.
 */
#ifndef WSPUSH_ACCOUNT_TABLE_H
#define WSPUSH_ACCOUNT_TABLE_H

#include "account_queue.h"
#include "table.h"

#include <pthread.h>

#define ACCOUNT_CACHE_MAX 16384  /* accounts of a shared store that are kept in memory */
#define ACCOUNT_REFRESH_MS 10000 /* age at which an entry of the cache is looked up again */
#define ACCOUNT_MAC_SIZE 16

struct account {
    struct account_record record; /* without iterations: there is no such account */
    uint64_t generation;
    bool has_mac; /* `mac` is of the last good login */
    unsigned char mac[ACCOUNT_MAC_SIZE];
    /* in the cache of a shared store: */
    int64_t looked_up_at; /* 0: not yet */
    int64_t refresh_at;
    uint64_t disputed;     /* the last generation that differed, */
    bool refuted;          /* and the store has been asked since it came */
    struct rcbuf *webhook; /* its text; NULL: none */
    size_t name_length;
    char name[];
};

struct account_table {
    bool is_cache;
    uint32_t seed;
    unsigned char key[CRYPTO_HASH_SIZE]; /* of MACs */
    pthread_mutex_t lock;                /* guards the entries, and what account.c says */
    struct table entries;                /* of struct account */
    size_t evict_at;    /* table_walk's place, for the next entry to leave the cache */
    struct fifo hooked; /* names of accounts whose webhooks have changed, see account_next_hooked */
};

/* Prepares an empty table; close it in any case. False if OpenSSL fails. */
bool account_table_open(struct account_table *table, bool is_cache);

void account_table_close(struct account_table *table);

/* The entry of this name; NULL if there is none. The caller holds the lock, as for the next. */
struct account *account_find(const struct account_table *table, struct str name);

/* The same, with a new entry without a record if there was none; NULL without memory. A full cache
 * loses another entry. */
struct account *account_find_or_add(struct account_table *table, struct str name);

/* Removes an entry; the caller holds the lock. */
void account_remove(struct account_table *table, struct account *account);

/* Copies the entry of this name, except name and webhook. False: no such account is known here. */
bool account_read(struct account_table *table, struct str name, struct account *copy);

/* The same, with the text of the record as a store has it. */
bool account_read_text(struct account_table *table, struct str name, struct account_record *record,
                       struct buf *text);

/* Makes known here what the store has, and the text of the webhook; a record without iterations:
 * the account is deleted. */
void account_learn(struct account_table *table, struct str name,
                   const struct account_record *record, struct str webhook);

/* Appends the name of an account whose webhook has changed, and the text of that; empty: there is
 * none any more. False: no other has changed. */
bool account_next_hooked(struct account_table *table, struct buf *name, struct buf *webhook);

/* Has account_next_hooked tell of all webhooks as they are now; `anew`: and of nothing else. */
void account_repeat_hooked(struct account_table *table, bool anew);

/* HMAC of a record, a name and a password under this process's key; needs no lock. False if
 * OpenSSL fails. */
bool account_make_mac(const struct account_table *table, const struct account_record *record,
                      struct str name, struct str password, unsigned char mac[CRYPTO_HASH_SIZE]);

/* Remembers that this password is good, while the record is the account's. */
void account_remember_login(struct account_table *table, struct str name, struct str password,
                            const struct account_record *record);

/* True if that is remembered of this password; the account is copied. */
bool account_recall(struct account_table *table, struct str name, struct str password,
                    struct account *known);

#endif

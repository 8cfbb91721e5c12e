/* account_store.h - where accounts are kept: an account's record as text, the interface of a store,
 * and the store of a single node, a file. A cluster has a store in Redis behind the same interface.
 *
 * A store is used by the worker thread of account.c alone, and may wait. */
#ifndef WSPUSH_ACCOUNT_STORE_H
#define WSPUSH_ACCOUNT_STORE_H

#include "crypto.h"

#include <limits.h>

#define ACCOUNT_NAME_MAX 128
#define ACCOUNT_REASON_MAX 250

enum account_outcome {
    ACCOUNT_DONE,        /* registered, changed or deleted in the store; or the password is right */
    ACCOUNT_EXISTS,      /* the name is taken */
    ACCOUNT_CHANGED,     /* the record is not the expected one: another node has changed it */
    ACCOUNT_DENIED,      /* unknown name or wrong password: a client must not learn which */
    ACCOUNT_UNSAVED,     /* the file could not be written, nothing has changed: see `reason` */
    ACCOUNT_UNREACHABLE, /* the store cannot be reached, or refuses: see `reason` */
    ACCOUNT_EVICTED,     /* not done: the queue was full, and another origin took the slot */
    ACCOUNT_FAILED       /* OpenSSL failed, or there was no memory */
};

/* What a store has of an account besides its name. Compared as bytes. */
struct account_record {
    uint64_t iterations;     /* of PBKDF2; 0: there is no such account */
    uint64_t ticket_version; /* of the key that signs tickets */
    int64_t ticket_since;    /* unix second at which that replaced the version before it; 0: it is
                                the account's first */
    uint64_t webhook_hash;   /* of the webhook's text; 0: it has none */
    unsigned char salt[CRYPTO_SALT_SIZE], hash[CRYPTO_HASH_SIZE];
};

_Static_assert(sizeof(struct account_record) == 32 + CRYPTO_SALT_SIZE + CRYPTO_HASH_SIZE,
               "no padding");

#define ACCOUNT_URL_MAX 2048

/* What an account has of its webhook; `url` is a view. */
struct account_webhook {
    uint64_t version; /* of the secret */
    int64_t since;    /* unix second at which that replaced the version before it; 0: it is the
                         first */
    uint64_t events;  /* bits: 1 << enum webhook_kind */
    struct str url;   /* without spaces; empty: it is off */
};

/* Appends "pbkdf2-sha256 ITERATIONS SALT HASH", salt and hash in hex, and unless this is a new
 * account " ticket=VERSION@SINCE". A new account's version follows from its salt, so it is another
 * one each time a name is registered. */
bool account_record_append(struct buf *out, const struct account_record *record, bool is_new);

/* Takes such a text, without the ticket, and the space behind it off the front of `rest`. Returns
 * NULL, or what is wrong with it. */
const char *account_record_read(struct str *rest, struct account_record *record);

/* The same for the ticket, which follows if the account was changed. */
const char *account_record_read_ticket(struct str *rest, struct account_record *record);

/* The same for " webhook=TEXT", which may follow then; *webhook becomes that text, or empty. */
void account_record_read_webhook(struct str *rest, struct account_record *record,
                                 struct str *webhook);

/* The text of a webhook in that of a record. */
struct str account_record_webhook(struct str record);

/* Makes a webhook of its text, VERSION@SINCE:EVENTS:URL. False: it is malformed. */
bool account_webhook_read(struct str text, struct account_webhook *webhook);

bool account_webhook_append(struct buf *out, const struct account_webhook *webhook);

/* Notes in a record that its webhook has this text. */
void account_record_set_webhook(struct account_record *record, struct str text);

/* The first 8 bytes of the salt's SHA-256. A password that is set again has another salt, so old
 * tokens end. Tokens show this number, which is why it is not the salt itself. */
uint64_t account_record_generation(const struct account_record *record);

/* A new account's ticket version: the next 6 bytes of that. */
uint64_t account_record_first_version(const struct account_record *record);

struct account_store {
    void *state;
    /* Appends the record of `name`. DONE, DENIED (there is none), UNREACHABLE or FAILED. NULL: all
     * accounts are known from the start, none is looked up. */
    enum account_outcome (*find)(void *state, struct str name, struct buf *record);
    /* Adds a record unless there is one. DONE, EXISTS, UNSAVED, UNREACHABLE or FAILED. */
    enum account_outcome (*add)(void *state, struct str name, struct str record);
    /* Replaces the record that is `old`, as found, by another one; removes it if that is empty.
     * DONE, CHANGED, UNSAVED, UNREACHABLE or FAILED. */
    enum account_outcome (*replace)(void *state, struct str name, struct str old,
                                    struct str record);
    /* Appends the names of all accounts with a webhook, each with a line feed behind it. DONE or
     * UNREACHABLE. NULL where `find` is. */
    enum account_outcome (*find_hooked)(void *state, struct buf *names);
    /* Why the last of these was UNSAVED or UNREACHABLE, for clients to read; valid until the next
     * call. */
    const char *(*reason)(void *state);
};

/* The accounts that a file is loaded into. */
struct account_loader {
    void *state;
    /* Loads one, and the text of its webhook; a record without iterations deletes it. NULL, or what
     * is wrong with it. */
    const char *(*load)(void *state, struct str name, const struct account_record *record,
                        struct str webhook, bool is_new);
    /* True if this is what the account is now. */
    bool (*is_current)(void *state, struct str name, const struct account_record *record);
};

/* The file DIRECTORY/accounts. */
struct account_file {
    struct account_store store; /* its `state` is this struct, which must not move */
    struct account_loader loader;
    char directory[PATH_MAX], path[PATH_MAX + 16];
    bool exists;
    size_t lines, superseded; /* of accounts: all, and those that later ones supersede */
    char reason[ACCOUNT_REASON_MAX];
};

/* Reads the file, if there is one, and loads each account. A last line that a crash has torn is
 * moved to DIRECTORY/accounts.torn, and `error` says so; else `error` is empty. False: `error` says
 * what is wrong, as FILE:LINE: TEXT. */
bool account_file_open(struct account_file *file, const char *directory,
                       const struct account_loader *loader, char *error, size_t size);

#endif

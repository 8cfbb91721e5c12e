/* account_table.c - accounts in memory, by name, and the logins that were good.
 *
 * On a single node the table has all accounts: those of the file at start-up, and new ones once
 * they are on disk. With a shared store it is a cache of ACCOUNT_CACHE_MAX entries; when it is full
 * the next entry in the order of the table makes room.
 *
 * Of a good login an HMAC under a random key of this process stays, never the password. It covers
 * the account's record, so it ends with any change of it.
 *
 * Threads: the loop's and the worker's of account.c, which share `lock`. */
#include "account_table.h"

#include "os.h"

#include <stdlib.h>
#include <string.h>

/* --- the table ------------------------------------------------------------------------------- */

static uint32_t account_hash(const struct account_table *table, const struct account *account)
{
    return str_hash((struct str){account->name, account->name_length}, table->seed);
}

struct account *account_find(const struct account_table *table, struct str name)
{
    struct table_cursor cursor = {.hash = str_hash(name, table->seed)};
    struct account *account;

    while ((account = table_next(&table->entries, &cursor)))
        if (str_equal((struct str){account->name, account->name_length}, name))
            return account;
    return NULL;
}

bool account_read(struct account_table *table, struct str name, struct account *copy)
{
    const struct account *account;

    pthread_mutex_lock(&table->lock);
    account = account_find(table, name);
    *copy = account ? *account : (struct account){0};
    copy->webhook = NULL;
    pthread_mutex_unlock(&table->lock);
    return copy->record.iterations > 0;
}

static struct str account_webhook_text(const struct account *account)
{
    const struct rcbuf *webhook = account ? account->webhook : NULL;

    return webhook ? (struct str){webhook->bytes, webhook->length} : (struct str){0};
}

bool account_read_text(struct account_table *table, struct str name, struct account_record *record,
                       struct buf *text)
{
    const struct account *account;

    pthread_mutex_lock(&table->lock);
    account = account_find(table, name);
    *record = account ? account->record : (struct account_record){0};
    account_record_append(text, record, false);
    if (record->webhook_hash) {
        buf_append(text, STR(" webhook="));
        buf_append(text, account_webhook_text(account));
    }
    pthread_mutex_unlock(&table->lock);
    return record->iterations > 0;
}

static void account_free(struct account *account)
{
    rcbuf_release(account->webhook);
    free(account);
}

void account_remove(struct account_table *table, struct account *account)
{
    table_remove(&table->entries, account_hash(table, account), account);
    account_free(account);
}

struct account *account_find_or_add(struct account_table *table, struct str name)
{
    struct account *account = account_find(table, name), *evicted = NULL;

    if (account)
        return account;
    account = calloc(1, sizeof *account + name.length);
    if (!account)
        return NULL;
    account->name_length = name.length;
    memcpy(account->name, name.at, name.length);
    if (table->is_cache && table->entries.count >= ACCOUNT_CACHE_MAX) {
        while (!(evicted = table_walk(&table->entries, &table->evict_at)))
            table->evict_at = 0;
        account_remove(table, evicted);
    }
    if (table_add(&table->entries, account_hash(table, account), account))
        return account;
    free(account);
    return NULL;
}

/* --- webhooks -------------------------------------------------------------------------------- */

struct account_hooked {
    struct fifo_link link;
    size_t length, text_length;
    char name[]; /* and the text */
};

/* Notes that the webhook of an account has changed. Without memory that is forgotten. */
static void account_push_hooked(struct account_table *table, const struct account *account)
{
    struct str text = account_webhook_text(account);
    struct account_hooked *hooked = malloc(sizeof *hooked + account->name_length + text.length);

    if (!hooked)
        return;
    hooked->length = account->name_length;
    hooked->text_length = text.length;
    memcpy(hooked->name, account->name, account->name_length);
    if (text.length)
        memcpy(hooked->name + hooked->length, text.at, text.length);
    fifo_push(&table->hooked, &hooked->link);
}

bool account_next_hooked(struct account_table *table, struct buf *name, struct buf *webhook)
{
    struct account_hooked *hooked;

    pthread_mutex_lock(&table->lock);
    hooked = (struct account_hooked *)fifo_pop(&table->hooked);
    if (hooked) {
        buf_append(name, (struct str){hooked->name, hooked->length});
        buf_append(webhook, (struct str){hooked->name + hooked->length, hooked->text_length});
    }
    pthread_mutex_unlock(&table->lock);
    free(hooked);
    return hooked != NULL;
}

void account_repeat_hooked(struct account_table *table, bool anew)
{
    const struct account *account;
    size_t place = 0;

    pthread_mutex_lock(&table->lock);
    while (anew && table->hooked.first)
        free(fifo_pop(&table->hooked));
    while ((account = table_walk(&table->entries, &place)))
        if (account->webhook)
            account_push_hooked(table, account);
    pthread_mutex_unlock(&table->lock);
}

/* Sets the text of an account's webhook. Of an account that is gone it is told in any case: the
 * cache may have lost that it had one. */
static void account_set_webhook(struct account_table *table, struct account *account,
                                struct str webhook, bool gone)
{
    if (!gone && str_equal(account_webhook_text(account), webhook))
        return;
    rcbuf_release(account->webhook);
    account->webhook = webhook.length ? rcbuf_copy(webhook) : NULL;
    account_push_hooked(table, account);
}

/* --- what the store has ---------------------------------------------------------------------- */

/* Sets what the store has of an account now; a record without iterations: there is none. */
static void account_set_record(struct account *account, const struct account_record *record)
{
    if (memcmp(&account->record, record, sizeof *record) != 0)
        account->has_mac = false;
    account->record = *record;
    account->generation = account_record_generation(record);
    account->looked_up_at = os_now_ms();
    account->refresh_at = account->looked_up_at + ACCOUNT_REFRESH_MS;
    account->refuted = true;
}

void account_learn(struct account_table *table, struct str name,
                   const struct account_record *record, struct str webhook)
{
    bool keep = table->is_cache || record->iterations;
    struct account *account;

    pthread_mutex_lock(&table->lock);
    account = keep ? account_find_or_add(table, name) : account_find(table, name);
    if (account)
        account_set_webhook(table, account, webhook, !record->iterations);
    if (account && keep)
        account_set_record(account, record);
    else if (account)
        account_remove(table, account);
    pthread_mutex_unlock(&table->lock);
}

/* --- good logins ----------------------------------------------------------------------------- */

bool account_make_mac(const struct account_table *table, const struct account_record *record,
                      struct str name, struct str password, unsigned char mac[CRYPTO_HASH_SIZE])
{
    char bytes[sizeof *record + 1 + ACCOUNT_NAME_MAX + ACCOUNT_PASSWORD_MAX];
    struct buf text = BUF_INIT(bytes);
    bool good;

    buf_append(&text, (struct str){(const char *)record, sizeof *record});
    buf_append(&text, (struct str){&(char){(char)name.length}, 1});
    buf_append(&text, name);
    good = buf_append(&text, password) && crypto_hmac(table->key, str_of(&text), mac);
    crypto_erase(bytes, sizeof bytes);
    return good;
}

bool account_recall(struct account_table *table, struct str name, struct str password,
                    struct account *known)
{
    unsigned char mac[CRYPTO_HASH_SIZE];

    return account_read(table, name, known) && known->has_mac &&
           account_make_mac(table, &known->record, name, password, mac) &&
           crypto_equal((struct str){(const char *)mac, ACCOUNT_MAC_SIZE},
                        CRYPTO_BYTES(known->mac));
}

void account_remember_login(struct account_table *table, struct str name, struct str password,
                            const struct account_record *record)
{
    unsigned char mac[CRYPTO_HASH_SIZE];
    struct account *account;

    if (!account_make_mac(table, record, name, password, mac))
        return;
    pthread_mutex_lock(&table->lock);
    account = account_find(table, name);
    if (account && memcmp(&account->record, record, sizeof *record) == 0) {
        memcpy(account->mac, mac, sizeof account->mac);
        account->has_mac = true;
    }
    pthread_mutex_unlock(&table->lock);
}

/* --- opening and closing --------------------------------------------------------------------- */

bool account_table_open(struct account_table *table, bool is_cache)
{
    *table = (struct account_table){.is_cache = is_cache};
    pthread_mutex_init(&table->lock, NULL);
    return crypto_random(&table->seed, sizeof table->seed) &&
           crypto_random(table->key, sizeof table->key);
}

void account_table_close(struct account_table *table)
{
    struct account *account;
    size_t place = 0;

    while ((account = table_walk(&table->entries, &place)))
        account_free(account);
    while (table->hooked.first)
        free(fifo_pop(&table->hooked));
    table_free(&table->entries);
    pthread_mutex_destroy(&table->lock);
}

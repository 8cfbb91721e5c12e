/* once.c - which sends have been delivered on this node.
 *
 * Data: a ring of entries, numbered from 0 in the order in which they came, and hash buckets. A
 * bucket holds the number of its newest entry, each entry the number of the next older one in its
 * bucket. A number below `first` ends the chain, so advancing `first` forgets the oldest entry, and
 * no chain needs repair.
 *
 * The ring doubles until it holds `max` entries; then each new entry replaces the oldest. Entries
 * older than `ttl` are ignored; each new entry removes at most two of them, so no call takes long.
 */
#include "once.h"

#include <stdlib.h>

#define ONCE_CAPACITY_MIN 16
#define ONCE_EXPIRED_EACH 2 /* removed at most with each new entry */

struct once_entry {
    struct once_key key;
    int64_t at;     /* when it was added */
    uint64_t older; /* 1 + the number of the next older entry in its bucket; 0: none */
};

bool once_make_key(const uint64_t secret[2], char kind, struct str system, struct str name,
                   struct str id, struct str frame, struct once_key *key)
{
    struct buf text = {0};
    bool good;

    buf_append(&text, (struct str){&kind, 1});
    buf_append(&text, system);
    buf_append(&text, STR("\0"));
    buf_append(&text, name);
    buf_append(&text, STR("\0"));
    /* decoded, for it may be spelled in another way the next time */
    good = json_decode_string((struct json_value){JSON_STRING, id}, &text) && !text.failed;
    if (good)
        *key = (struct once_key){str_siphash(str_of(&text), secret), str_siphash(frame, secret)};
    buf_free(&text);
    return good;
}

static uint64_t *once_newest(const struct once *once, const struct once_key *key)
{
    return &once->newest[key->target & (once->capacity - 1)];
}

static struct once_entry *once_entry(const struct once *once, uint64_t number)
{
    return &once->ring[number & (once->capacity - 1)];
}

/* Puts an entry at its place in the ring and at the front of its chain. */
static void once_put(struct once *once, uint64_t number, const struct once_key *key, int64_t at)
{
    uint64_t *newest = once_newest(once, key);

    *once_entry(once, number) = (struct once_entry){*key, at, *newest};
    *newest = number + 1;
}

static bool once_grow(struct once *once)
{
    struct once bigger = *once;

    bigger.capacity = once->capacity ? once->capacity * 2 : ONCE_CAPACITY_MIN;
    bigger.ring = calloc(bigger.capacity, sizeof *bigger.ring);
    bigger.newest = calloc(bigger.capacity, sizeof *bigger.newest);
    if (!bigger.ring || !bigger.newest) {
        free(bigger.ring);
        free(bigger.newest);
        return false;
    }
    for (uint64_t number = once->first; number < once->next; number++)
        once_put(&bigger, number, &once_entry(once, number)->key, once_entry(once, number)->at);
    free(once->ring);
    free(once->newest);
    *once = bigger;
    return true;
}

/* Makes space for one more entry. False without memory. */
static bool once_reserve(struct once *once, int64_t now, int64_t ttl, uint64_t max)
{
    for (int i = 0; i < ONCE_EXPIRED_EACH && once->first < once->next &&
                    now - once_entry(once, once->first)->at >= ttl;
         i++)
        once->first++;
    if (once->next - once->first >= max)
        once->first = max ? once->next - max + 1 : once->next;
    return once->next - once->first < once->capacity || once_grow(once);
}

enum once_result once_take(struct once *once, const struct once_key *key, int64_t now, int64_t ttl,
                           uint64_t max)
{
    uint64_t number = once->capacity ? *once_newest(once, key) : 0;

    for (; number > once->first; number = once_entry(once, number - 1)->older) {
        const struct once_entry *entry = once_entry(once, number - 1);

        if (entry->key.target == key->target && now - entry->at < ttl)
            return entry->key.content == key->content ? ONCE_REPEATED : ONCE_CONFLICT;
    }
    if (!once_reserve(once, now, ttl, max))
        return ONCE_NO_MEMORY;
    once_put(once, once->next++, key, now);
    return ONCE_NEW;
}

void once_undo(struct once *once)
{
    const struct once_entry *entry = once_entry(once, --once->next);

    *once_newest(once, &entry->key) = entry->older;
}

void once_free(struct once *once)
{
    free(once->ring);
    free(once->newest);
    *once = (struct once){0};
}

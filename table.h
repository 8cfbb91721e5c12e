/* table.h - a hash table of pointers: open addressing, linear probing. It stores each entry's
 * pointer and hash; the keys stay in the entries, so the caller compares and owns them. */
#ifndef WSPUSH_TABLE_H
#define WSPUSH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed is empty. `capacity` is a power of two, or 0. */
struct table {
    void **entries;
    uint32_t *hashes;
    size_t capacity, count;
};

/* The position of a search; begin with the hash that is looked for. */
struct table_cursor {
    uint32_t hash;
    size_t probes;
};

/* The next entry with the cursor's hash, or NULL. The caller compares keys, and calls again while
 * they differ. The table must not change in between. */
void *table_next(const struct table *table, struct table_cursor *cursor);

/* Walks over all entries: the next one from slot *slot on (start with 0); NULL at the end. The
 * table must not change meanwhile. */
void *table_walk(const struct table *table, size_t *slot);

/* The position of a walk that survives changes of the table. Zeroed is the beginning. */
struct table_scan {
    size_t capacity, home, probes;
};

/* The next entry of such a walk, or NULL at the end. Set `probes` to 0 after each change: then
 * every entry that stays is visited, some twice. Walks go from home to home, a home being a few
 * entries with neighbouring ranks in no order. */
void *table_scan_next(const struct table *table, struct table_scan *scan);

/* Where an entry with this hash stands in the order of walks, which no change of the table alters.
 */
static inline uint32_t table_rank(uint32_t hash)
{
    return (uint32_t)((hash * 0x9e3779b97f4a7c15u) >> 32);
}

/* Places a walk at the home of a rank. */
void table_scan_seek(const struct table *table, struct table_scan *scan, uint32_t rank);

/* The least rank of the home where a walk stands. */
static inline uint32_t table_scan_rank(const struct table_scan *scan)
{
    return (uint32_t)(((uint64_t)scan->home << 32) / scan->capacity);
}

/* Adds an entry, which must not be there yet, under a hash. False without memory, or for NULL. */
bool table_add(struct table *table, uint32_t hash, void *entry);

/* Removes the entry; false if it is not there under this hash. */
bool table_remove(struct table *table, uint32_t hash, const void *entry);

/* Frees the table, not the entries. */
void table_free(struct table *table);

#endif

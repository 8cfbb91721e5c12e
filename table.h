/* table.h - a hash table of pointers: open addressing, linear probing, nothing per entry but the
 * pointer and its hash. The keys stay in the entries, so the caller compares and owns them.
 * Refuses: NULL entries. */
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

/* Where a search stands; start one with the hash looked for. */
struct table_cursor {
    uint32_t hash;
    size_t probes;
};

/* The next entry whose hash is the cursor's, or NULL when there is none left. The caller compares
 * keys and asks again while they differ. The table must not change in between. */
void *table_next(const struct table *table, struct table_cursor *cursor);

/* Any entry, from place *place on, for a walk over all of them (start with 0); NULL at the end. */
void *table_walk(const struct table *table, size_t *place);

/* Where a walk stands that goes on after the table has changed; zeroed is the beginning. */
struct table_scan {
    size_t capacity, home, probes;
};

/* The next entry of such a walk, or NULL at the end. Set `probes` to 0 after each change: then
 * every entry that stays in the table is visited, some of them twice, all again after the table has
 * grown.
 */
void *table_scan_next(const struct table *table, struct table_scan *scan);

/* Adds an entry under a hash; it must not be in the table. False when there is no memory. */
bool table_add(struct table *table, uint32_t hash, void *entry);

/* Removes the entry; false if it is not there under this hash. */
bool table_remove(struct table *table, uint32_t hash, const void *entry);

/* Frees the table, not the entries. */
void table_free(struct table *table);

#endif

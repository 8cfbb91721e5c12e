/* table.c - a hash table of pointers. */
#include "table.h"

#include <stdlib.h>

/* The slot where a search begins: by the upper bits of the rank, so that homes are in the order of
 * ranks in a table of any capacity. A rank is multiplied, so that hashes in a row do not fill slots
 * in a row: each search would step over the whole run. */
static size_t table_home(const struct table *table, uint32_t hash)
{
    return (size_t)((uint64_t)table_rank(hash) * table->capacity >> 32);
}

void *table_next(const struct table *table, struct table_cursor *cursor)
{
    if (table->capacity == 0)
        return NULL;
    for (;;) {
        size_t at = (table_home(table, cursor->hash) + cursor->probes) & (table->capacity - 1);

        if (!table->entries[at])
            return NULL;
        cursor->probes++;
        if (table->hashes[at] == cursor->hash)
            return table->entries[at];
    }
}

void *table_walk(const struct table *table, size_t *slot)
{
    while (*slot < table->capacity) {
        void *entry = table->entries[(*slot)++];

        if (entry)
            return entry;
    }
    return NULL;
}

void table_scan_seek(const struct table *table, struct table_scan *scan, uint32_t rank)
{
    *scan = (struct table_scan){.capacity = table->capacity,
                                .home = (size_t)((uint64_t)rank * table->capacity >> 32)};
}

/* In the order of homes: a removal moves entries, but never their homes. */
void *table_scan_next(const struct table *table, struct table_scan *scan)
{
    size_t mask = table->capacity - 1, at;

    if (scan->capacity != table->capacity) /* it has grown, or the scan is zeroed */
        table_scan_seek(table, scan, scan->capacity ? table_scan_rank(scan) : 0);
    for (; scan->home < table->capacity; scan->home++, scan->probes = 0) {
        while (table->entries[at = (scan->home + scan->probes) & mask]) {
            scan->probes++;
            if (table_home(table, table->hashes[at]) == scan->home)
                return table->entries[at];
        }
    }
    return NULL;
}

static void table_put(struct table *table, uint32_t hash, void *entry)
{
    size_t at = table_home(table, hash);

    while (table->entries[at])
        at = (at + 1) & (table->capacity - 1);
    table->entries[at] = entry;
    table->hashes[at] = hash;
}

static bool table_grow(struct table *table)
{
    struct table bigger = {.capacity = table->capacity ? table->capacity * 2 : 16};

    bigger.entries = calloc(bigger.capacity, sizeof *bigger.entries);
    bigger.hashes = calloc(bigger.capacity, sizeof *bigger.hashes);
    if (!bigger.entries || !bigger.hashes) {
        table_free(&bigger);
        return false;
    }
    for (size_t i = 0; i < table->capacity; i++)
        if (table->entries[i])
            table_put(&bigger, table->hashes[i], table->entries[i]);
    bigger.count = table->count;
    table_free(table);
    *table = bigger;
    return true;
}

bool table_add(struct table *table, uint32_t hash, void *entry)
{
    if (!entry)
        return false;
    /* at most three slots in four are taken, so that a search ends soon */
    if ((table->count + 1) * 4 > table->capacity * 3 && !table_grow(table))
        return false;
    table_put(table, hash, entry);
    table->count++;
    return true;
}

bool table_remove(struct table *table, uint32_t hash, const void *entry)
{
    size_t mask = table->capacity - 1, hole, at;

    if (table->capacity == 0)
        return false;
    for (hole = table_home(table, hash); table->entries[hole] != entry; hole = (hole + 1) & mask)
        if (!table->entries[hole])
            return false;
    if (!entry || table->hashes[hole] != hash)
        return false;
    table->count--;
    /* later entries of the run move up into the hole if their home allows it: left open, it would
     * end searches for them too early */
    for (at = (hole + 1) & mask; table->entries[at]; at = (at + 1) & mask) {
        size_t distance = (at - table_home(table, table->hashes[at])) & mask;

        if (distance >= ((at - hole) & mask)) {
            table->entries[hole] = table->entries[at];
            table->hashes[hole] = table->hashes[at];
            hole = at;
        }
    }
    table->entries[hole] = NULL;
    return true;
}

void table_free(struct table *table)
{
    free(table->entries);
    free(table->hashes);
    *table = (struct table){0};
}

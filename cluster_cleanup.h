/* cluster_cleanup.h - the presence records of dead nodes: this node removes them, if no other one
 * does, and its loop tells what was removed. Used by the registry's thread, which may wait. */
#ifndef WSPUSH_CLUSTER_CLEANUP_H
#define WSPUSH_CLUSTER_CLEANUP_H

#include "cluster_store.h"

#define CLEANUP_RECORDS_MAX 100 /* removed in one transaction */

struct cleanup;

/* Those under way. Zeroed but for `store` is valid. */
struct cleanups {
    struct store *store;
    struct cleanup *first;
    uint64_t steps;
};

/* Begins to clean up a node, unless that is under way. */
void cleanup_begin(struct cleanups *cleanups, const struct node_id *dead);

/* What the last REMOVED of this node told of has been told. */
void cleanup_continue(struct cleanups *cleanups, const struct node_id *dead);

/* One step of one cleanup that has something to do; they take turns. Posts REMOVED. */
void cleanup_step(struct cleanups *cleanups);

/* When cleanup_step has something to do, milliseconds of the steady clock; INT64_MAX for never. */
int64_t cleanup_deadline(const struct cleanups *cleanups);

void cleanup_close(struct cleanups *cleanups);

#endif

/* cluster_cleanup.h - removes the presence records of dead nodes, if no other node does; the loop
 * publishes their leaves. Used by the registry's thread, which may wait. */
#ifndef WSPUSH_CLUSTER_CLEANUP_H
#define WSPUSH_CLUSTER_CLEANUP_H

#include "cluster_store.h"

#define CLEANUP_RECORDS_MAX 100 /* in one transaction */

struct cleanup;

/* All cleanups under way. Zeroed except for `store`, it is valid. */
struct cleanups {
    struct store *store;
    struct cleanup *first;
    uint64_t steps;
};

/* Begins to clean up a node, unless that is under way. */
void cleanup_begin(struct cleanups *cleanups, const struct node_id *dead);

/* Call when all leaves of the node's last REMOVED are published. */
void cleanup_continue(struct cleanups *cleanups, const struct node_id *dead);

/* Does one step of one cleanup that is due, in turn. Posts REMOVED. */
void cleanup_step(struct cleanups *cleanups);

/* When cleanup_step has something to do, os_now_ms; INT64_MAX for never. */
int64_t cleanup_deadline(const struct cleanups *cleanups);

void cleanup_close(struct cleanups *cleanups);

#endif

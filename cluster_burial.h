/* cluster_burial.h - the presence records of dead nodes: this node removes them, if no other one
 * does, and its loop tells what was removed. Used by the registry's thread, which may wait. */
#ifndef WSPUSH_CLUSTER_BURIAL_H
#define WSPUSH_CLUSTER_BURIAL_H

#include "cluster_store.h"

#define BURIAL_RECORDS_MAX 100 /* removed in one transaction */

struct burial;

/* Those under way. Zeroed but for `store` is valid. */
struct burials {
    struct store *store;
    struct burial *first;
    uint64_t steps;
};

/* Begins to bury a node, unless that is under way. */
void burial_begin(struct burials *burials, const struct node_id *dead);

/* What the last REMOVED of this node told of has been told. */
void burial_go_on(struct burials *burials, const struct node_id *dead);

/* One step of one burial that has something to do; they take turns. Posts REMOVED. */
void burial_step(struct burials *burials);

/* When burial_step has something to do, milliseconds of the steady clock; INT64_MAX for never. */
int64_t burial_deadline(const struct burials *burials);

void burial_close(struct burials *burials);

#endif

/* cluster_presence.h - joins and leaves across nodes: presence records in Redis, and the notices
 * 1001 and 1002.
 *
 * A record says that a client of this node is in a group. The node that makes the record publishes
 * 1001. The node that removes it publishes 1002: this one or, if it is dead, the one that cleans up
 * after it. So 1001 and 1002 alternate, and each comes once. */
#ifndef WSPUSH_CLUSTER_PRESENCE_H
#define WSPUSH_CLUSTER_PRESENCE_H

#include "cluster_state.h"

/* False without memory. */
bool presence_open(struct cluster *cluster);
void presence_close(struct cluster *cluster);

/* Hook of the hub: a client joined, left or is still there. */
void presence_change(void *cluster, const struct hub_presence *presence);

/* The configured scope has changed: replaces all records; nothing is published. */
void presence_republish(struct cluster *cluster);

/* Redis is connected again and may have lost records: writes all again; nothing is published. */
void presence_restore(struct cluster *cluster);

/* This node was presumed dead: writes all records again, and publishes 1001 where another node has
 * published 1002. */
void presence_revive(struct cluster *cluster);

/* Events of the registry: records were written, or those of a dead node removed. */
void presence_take_written(struct cluster *cluster, const struct registry_event *event);
void presence_take_removed(struct cluster *cluster, const struct registry_event *event);

/* A notice has come through RabbitMQ. */
void presence_take_notice(struct cluster *cluster, const struct wire_batch *batch,
                          const struct cluster_msg *msg);

/* Reports a batch of clients again, after presence_republish, _restore or _revive. Call it in each
 * iteration. */
void presence_walk(struct cluster *cluster);

/* Gives waiting operations to the registry, as many as it may have. Call it in each iteration. */
void presence_pump(struct cluster *cluster);

/* The time by which presence_walk and presence_pump must be called; INT64_MAX for never. */
int64_t presence_deadline(const struct cluster *cluster);

/* True if all records are written and all notices have come back. */
bool presence_is_idle(const struct cluster *cluster);

/* True if records were, or may have been, removed whose 1002 has not come back: no other node can
 * publish it any more. */
bool presence_is_unfinished(const struct cluster *cluster);

/* Records that are not what they should be, and notices that have not come back. */
size_t presence_waiting(const struct cluster *cluster);

#endif

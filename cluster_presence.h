/* cluster_presence.h - joins and leaves across nodes: presence records in Redis, and the notices
 * 1001 and 1002 that go with them.
 *
 * A record says that a client of this node is in a group. 1001 is published by whoever made the
 * record, 1002 by whoever removed it: this node, or if it is dead the one that cleans up after it.
 * So they alternate, and each comes once. */
#ifndef WSPUSH_CLUSTER_PRESENCE_H
#define WSPUSH_CLUSTER_PRESENCE_H

#include "cluster_state.h"

/* False without memory. */
bool presence_open(struct cluster *cluster);
void presence_close(struct cluster *cluster);

/* A hub's hook: a client came, went or is still there. */
void presence_change(void *cluster, const struct hub_presence *presence);

/* The configured scope has changed: what is recorded is replaced, and nobody is told. */
void presence_republish(struct cluster *cluster);

/* Redis is in touch again and may have lost records: all are written again, and nobody is told. */
void presence_restore(struct cluster *cluster);

/* This node was taken for dead: those who were told that its clients have gone are told that they
 * are there. */
void presence_revive(struct cluster *cluster);

/* Results of the registry: records were written, or those of a dead node removed. */
void presence_take_written(struct cluster *cluster, const struct registry_event *event);
void presence_take_removed(struct cluster *cluster, const struct registry_event *event);

/* A notice has come through RabbitMQ. */
void presence_take_notice(struct cluster *cluster, const struct wire_batch *batch,
                          const struct cluster_msg *msg);

/* Reports a batch of all clients, if presence_republish, _restore or _revive have begun that. Call
 * it in each iteration. */
void presence_walk(struct cluster *cluster);

/* Gives the registry what waits, as far as it may have it. Call it in each iteration. */
void presence_pump(struct cluster *cluster);

/* When presence_pump is to be called at the latest; INT64_MAX for never. */
int64_t presence_deadline(const struct cluster *cluster);

/* True if all that happened here has been recorded and told. */
bool presence_is_idle(const struct cluster *cluster);

/* Clients in groups whose record is not what it should be, and notices that have not come back. */
size_t presence_waiting(const struct cluster *cluster);

#endif

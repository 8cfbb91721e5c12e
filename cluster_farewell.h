/* cluster_farewell.h - clients that have moved to another node: their ends are not forgotten.
 *
 * A client that moves has no `disconnect` here; the other node's `connect` takes its place for the
 * receivers of webhooks. But that node may not have got it, or may die before it has told of it.
 * So this node keeps who has moved. It tells of the end itself
 *
 *   - if the other node has not said in time that the client is there (MSG_MOVED),
 *   - or leaves or dies within `[webhook] retry` after that; later, its `connect` has arrived, or
 *     its receiver knows that events were lost.
 *
 * A receiver may so hear of the end of a client whose place is taken already, and skips it. */
#ifndef WSPUSH_CLUSTER_FAREWELL_H
#define WSPUSH_CLUSTER_FAREWELL_H

#include "cluster_state.h"

/* Of 20,000 clients. Beyond that, ends are told early. */
#define FAREWELL_BYTES_MAX (4 * 1024 * 1024)

/* A client is given to a peer, which has asked for it with this id. Call before it is forgotten. */
void farewell_add(struct cluster *cluster, const struct peer *peer, uint64_t id,
                  const struct client *client);

/* A node says that a client has come to it. */
void farewell_take_moved(struct cluster *cluster, const struct peer *peer, uint64_t id);

/* A node has ended. `flushed`: it has told its receivers of all whom it has said to have. */
void farewell_end_node(struct cluster *cluster, const struct node_tag *node, bool flushed);

/* Call once an iteration: tells of the ends that are due. */
void farewell_expire(struct cluster *cluster);

/* When the next is due, by cluster->now; INT64_MAX: none is kept. */
int64_t farewell_deadline(const struct cluster *cluster);

/* Frees all, and tells of nothing: this node's own end covers them. */
void farewell_close(struct cluster *cluster);

#endif

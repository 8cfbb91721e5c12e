/* cluster_route.h - which nodes a command goes to, and what they reply. */
#ifndef WSPUSH_CLUSTER_ROUTE_H
#define WSPUSH_CLUSTER_ROUTE_H

#include "cluster_state.h"

/* Does what a command of a session says. True: `result`, which must be zeroed, is filled in.
 * False: a result for `id` follows. */
bool route_apply(struct cluster *cluster, const struct command *command, bool receipt, uint64_t id,
                 struct result *result);

/* A node has sent a message over its link. */
void route_take_message(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg);

/* A send, or a request, has come through RabbitMQ. */
void route_take_publication(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg);

/* A publication of this node is not known to have reached anybody. */
void route_take_failed(struct cluster *cluster, uint64_t id, unsigned partition, struct str why);

/* RabbitMQ is gone: no send of this node will come back. */
void route_take_bus_down(struct cluster *cluster);

/* RabbitMQ has bound a slot. */
void route_take_bound(struct cluster *cluster, uint16_t slot, uint32_t version);

/* Whether a client of this system may be let in: it must be registered, and its slot bound, else
 * the client would be deaf to it. As route_apply. */
bool route_admit(struct cluster *cluster, struct str system, uint64_t id, struct result *result);

/* The answer to whether a waiting client's system is registered: 0, or why it is not let in;
 * `error` is copied. */
void route_take_found(struct cluster *cluster, struct pending *pending, enum result_code code,
                      struct str error);

/* The link to a node is down: it will not reply to what it was asked. */
void route_give_up_node(struct cluster *cluster, const struct node_id *node);

/* Ends what is overdue. */
void route_expire(struct cluster *cluster);

/* When route_expire is to be called at the latest; INT64_MAX for never. */
int64_t route_deadline(const struct cluster *cluster);

#endif

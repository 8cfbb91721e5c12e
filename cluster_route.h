/* cluster_route.h - which nodes a command goes to, and what they reply. */
#ifndef WSPUSH_CLUSTER_ROUTE_H
#define WSPUSH_CLUSTER_ROUTE_H

#include "cluster_state.h"

/* Applies a command of a session. Returns true if `result`, which must be zeroed, is filled in, or
 * false if a result for `id` follows. */
bool route_apply(struct cluster *cluster, const struct command *command, bool receipt, uint64_t id,
                 struct result *result);

/* A node has sent a message over its link. */
void route_take_message(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg);

/* A send or a request has come through RabbitMQ. False without memory for a send: nobody got it. */
bool route_take_publication(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg);

/* A publication of this node may have reached nobody. */
void route_take_failed(struct cluster *cluster, uint64_t id, unsigned partition, struct str why);

/* RabbitMQ is down: no send of this node comes back any more. */
void route_take_bus_down(struct cluster *cluster);

/* RabbitMQ has bound a slot. */
void route_take_bound(struct cluster *cluster, uint16_t slot, uint32_t version);

/* Whether a client may connect: its system must be registered, and the slots of its system, user
 * and groups bound, or the client would miss sends. As route_apply. */
bool route_admit(struct cluster *cluster, const struct ticket_claims *claims, uint64_t id,
                 struct result *result);

/* Redis has answered whether a waiting client's system is registered: `code` is 0, or why the
 * client is rejected; `error` is copied. */
void route_take_found(struct cluster *cluster, struct pending *pending, enum result_code code,
                      struct str error);

/* The link to a node is down: fails what it has not replied to. */
void route_give_up_node(struct cluster *cluster, const struct node_id *node);

/* Ends overdue requests. Call it in each iteration. */
void route_expire(struct cluster *cluster);

/* The time by which route_expire must be called; INT64_MAX for never. */
int64_t route_deadline(const struct cluster *cluster);

#endif

/* cluster_change.h - accounts that a node has changed: what it tells the other nodes, and what they
 * do then. */
#ifndef WSPUSH_CLUSTER_CHANGE_H
#define WSPUSH_CLUSTER_CHANGE_H

#include "cluster_state.h"

#define CHANGES_MAX 256 /* that are kept for nodes whose link is down */

/* This node has changed an account, or deleted it, in the shared store. */
void change_tell(struct cluster *cluster, struct str system, bool deleted);

/* Another node has. */
void change_take(struct cluster *cluster, const struct cluster_msg *msg);

/* A link is up: tells the node what it may have missed. */
void change_tell_again(struct cluster *cluster, struct peer *peer);

/* Redis has answered whether a system is registered. */
void change_take_found(struct cluster *cluster, const struct registry_event *event);

/* Redis is there, for the first time or again: asks for the webhooks of all systems. */
void change_find_webhooks(struct cluster *cluster);

/* A dead node has no presence record any more, and this node has removed the last: tells the
 * receivers of events. */
void change_tell_end(struct cluster *cluster, const struct registry_event *event);

void change_free(struct cluster *cluster);

#endif

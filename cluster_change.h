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

/* The registry has said what Redis's clock shows: webhooks go by it. Asks for the webhooks of all
 * systems if Redis is there for the first time or again. */
void change_take_clock(struct cluster *cluster, const struct registry_event *event);

/* A dead node has no presence record any more: tells the receivers of events. */
void change_tell_end(struct cluster *cluster, const struct registry_event *event);

/* True if no webhook has anything left to deliver. A node that stops with something left leaves the
 * telling of its end to others: it goes as if it had died. */
bool change_webhooks_are_idle(const struct cluster *cluster);

void change_free(struct cluster *cluster);

#endif

/* cluster_census.h - the commands of roster.h in a cluster: whom to ask, and what the replies make.
 *
 * A count adds up those of all nodes. A page of groups is merged from a page of each node, which
 * all have one order, see census_set_order. A page of clients is of one node: the position names
 * the node, and the last page of a node ends with the beginning of the next one, in the order of
 * tags.
 */
#ifndef WSPUSH_CLUSTER_CENSUS_H
#define WSPUSH_CLUSTER_CENSUS_H

#include "cluster_state.h"
#include "roster.h"

/* Gives the channels of all nodes one order. Call before the hub has any. False if OpenSSL fails.
 */
bool census_set_order(struct cluster *cluster);

/* Begins a walk here, for BIND_USER once RabbitMQ has bound the group's slot. As route_apply. */
bool census_walk_here(struct cluster *cluster, const struct command *command,
                      const struct pending_origin *origin, struct result *result);

/* Expects replies of the nodes to ask, of this one first, and makes `command` what to ask them;
 * `after` is an empty buffer with room for a position, and keeps it. False: `result` says why. */
bool census_expect(struct cluster *cluster, struct pending *pending, struct command *command,
                   struct buf *after, struct result *result);

/* Makes the result of a finished request of the replies. */
void census_merge(struct cluster *cluster, struct pending *pending);

/* Finishes the requests whose walks here are done. Call in each iteration. */
void census_take_walks(struct cluster *cluster);

#endif

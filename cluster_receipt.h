/* cluster_receipt.h - how many clients a send has reached: each node that takes a send counts them,
 * and its origin asks all nodes over the links, under the id of the send. Question and send may
 * come in either order. Keeps the last RECEIPT_COUNTS_KEPT counts. */
#ifndef WSPUSH_CLUSTER_RECEIPT_H
#define WSPUSH_CLUSTER_RECEIPT_H

#include "cluster_state.h"

#define RECEIPT_COUNTS_KEPT 1024

/* False without memory. */
bool receipt_open(struct cluster *cluster);
void receipt_close(struct cluster *cluster);

void receipt_add(struct result *sum, const struct result *counts);

/* Another node's send has been applied here: keeps its count, or replies if it was asked for. */
void receipt_keep(struct cluster *cluster, const struct node_id *origin, uint64_t id,
                  const struct result *result);

/* A node asks for the count of its send: replies now, or when the send comes. */
void receipt_take_question(struct cluster *cluster, const struct peer *peer,
                           const struct cluster_msg *msg);

/* A question is not waited for any longer. */
void receipt_forget(struct cluster *cluster, struct pending *pending);

#endif

/* cluster_receipt.h - receipts: how many clients a send has reached. Each node that takes a send
 * counts; its origin asks all nodes over the links, under the send's id. Question and send may come
 * in either order. The last RECEIPT_COUNTS_KEPT counts are kept. */
#ifndef WSPUSH_CLUSTER_RECEIPT_H
#define WSPUSH_CLUSTER_RECEIPT_H

#include "cluster_state.h"

#define RECEIPT_COUNTS_KEPT 1024

/* False without memory. */
bool receipt_open(struct cluster *cluster);
void receipt_close(struct cluster *cluster);

void receipt_add(struct result *sum, const struct result *counts);

/* Call when another node's send was applied here: keeps the count, or replies to a question. */
void receipt_keep(struct cluster *cluster, const struct node_id *origin, uint64_t id,
                  const struct result *result);

/* A node asks for the count of its send: replies now, or when the send comes. */
void receipt_take_question(struct cluster *cluster, const struct peer *peer,
                           const struct cluster_msg *msg);

/* Call when a question has expired: no reply follows. */
void receipt_forget(struct cluster *cluster, struct pending *pending);

#endif

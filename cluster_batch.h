/* cluster_batch.h - batches of publications that RabbitMQ delivers. */
#ifndef WSPUSH_CLUSTER_BATCH_H
#define WSPUSH_CLUSTER_BATCH_H

#include "cluster_state.h"

/* Applies the entries of a batch, and takes them off it. False: there are more. The budget of the
 * iteration is spent, or there is no memory for the next one: call again. */
bool batch_take(struct cluster *cluster, struct wire_batch *batch);

#endif

/* cluster_receipt.c - receipts: how many clients a send has reached. */
#include "cluster_receipt.h"

#include "table.h"

#include <stdlib.h>

/* The count of another node's send. */
struct receipt {
    uint32_t hash;
    bool used;
    struct node_id origin;
    uint64_t id;
    struct result result;
};

struct receipt_counts {
    struct receipt ring[RECEIPT_COUNTS_KEPT];
    size_t next;
    struct table kept;    /* struct receipt, by receipt_hash */
    struct table waiting; /* struct pending of PENDING_COUNT, by receipt_hash */
};

bool receipt_open(struct cluster *cluster)
{
    cluster->receipts = calloc(1, sizeof *cluster->receipts);
    return cluster->receipts != NULL;
}

void receipt_close(struct cluster *cluster)
{
    if (!cluster->receipts)
        return;
    table_free(&cluster->receipts->kept);
    table_free(&cluster->receipts->waiting);
    free(cluster->receipts);
    cluster->receipts = NULL;
}

static uint32_t receipt_hash(const struct node_id *origin, uint64_t id)
{
    return (uint32_t)(id ^ origin->incarnation);
}

static const struct receipt *receipt_find(const struct cluster *cluster,
                                          const struct node_id *origin, uint64_t id)
{
    struct table_cursor cursor = {.hash = receipt_hash(origin, id)};
    const struct receipt *count;

    while ((count = table_next(&cluster->receipts->kept, &cursor)))
        if (count->id == id && node_equal(&count->origin, origin))
            return count;
    return NULL;
}

/* Takes the question that waits for a count; NULL if there is none. */
static struct pending *receipt_take_waiting(struct cluster *cluster, const struct node_id *origin,
                                            uint64_t id)
{
    struct table_cursor cursor = {.hash = receipt_hash(origin, id)};
    struct pending *pending;

    while ((pending = table_next(&cluster->receipts->waiting, &cursor)))
        if (pending->send_id == id && node_equal(&pending->origin.node, origin)) {
            table_remove(&cluster->receipts->waiting, receipt_hash(origin, id), pending);
            return pending;
        }
    return NULL;
}

void receipt_add(struct result *sum, const struct result *counts)
{
    sum->matched += counts->matched;
    sum->queued += counts->queued;
    sum->held += counts->held;
    sum->dropped += counts->dropped;
    sum->repeated |= counts->repeated;
    if (counts->code == RESULT_MALFORMED) { /* other content than before under its messageId */
        sum->code = counts->code;
        sum->error = counts->error;
    }
}

/* Replies if the origin has asked already; else keeps the count in the ring, in place of the
 * oldest. */
void receipt_keep(struct cluster *cluster, const struct node_id *origin, uint64_t id,
                  const struct result *result)
{
    struct receipt_counts *counts = cluster->receipts;
    struct receipt *count = &counts->ring[counts->next++ % RECEIPT_COUNTS_KEPT];
    struct pending *pending = receipt_take_waiting(cluster, origin, id);

    if (pending) {
        receipt_add(&pending->result, result);
        state_finish(cluster, pending);
        return;
    }
    if (count->used)
        table_remove(&counts->kept, count->hash, count);
    *count = (struct receipt){
        .hash = receipt_hash(origin, id), .origin = *origin, .id = id, .result = *result};
    count->used = table_add(&counts->kept, count->hash, count);
}

/* Replies with a kept count; else waits for the send, if it can still come here. */
void receipt_take_question(struct cluster *cluster, const struct peer *peer,
                           const struct cluster_msg *msg)
{
    struct pending_origin origin = {.is_node = true, .id = msg->id, .node = peer->id};
    const struct state_slot *slot = &cluster->slots[msg->slot % WIRE_SLOTS];
    const struct receipt *count = receipt_find(cluster, &peer->id, msg->id);
    struct result none = {0};
    struct pending *pending = NULL;

    if (!count && slot->wanted)
        pending =
            state_begin(cluster, PENDING_COUNT, &(struct command){.kind = COMMAND_SEND_TO_GROUP},
                        false, &origin, &none);
    if (!pending) {
        state_reply(cluster, &origin, count ? &count->result : &none);
        return;
    }
    pending->send_id = msg->id;
    if (!table_add(&cluster->receipts->waiting, receipt_hash(&peer->id, msg->id), pending))
        state_finish(cluster, pending);
}

void receipt_forget(struct cluster *cluster, struct pending *pending)
{
    table_remove(&cluster->receipts->waiting, receipt_hash(&pending->origin.node, pending->send_id),
                 pending);
}

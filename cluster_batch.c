/* cluster_batch.c - batches of publications that RabbitMQ delivers.
 *
 * Threads: only the loop's. */
#include "cluster_batch.h"

#include "cluster_adopt.h"
#include "cluster_presence.h"
#include "cluster_route.h"

/* False without memory: it is to be taken again, for nobody would know that it was lost. What
 * failed has done nothing. */
static bool batch_take_entry(struct cluster *cluster, const struct wire_batch *batch,
                             struct str entry)
{
    struct cluster_msg msg;
    bool good, done;

    switch (order_take(&cluster->sender_seqs, &batch->origin, batch->lane, batch->partition,
                       batch->first_seq)) {
    case ORDER_NO_MEMORY:
        return false;
    case ORDER_REPETITION:
        return true;
    case ORDER_JUMP:
        log_write(cluster->log, LOG_WARN,
                  "a publication was dropped: its number is far ahead of the one before", NULL);
        return true;
    case ORDER_NEW:
        adopt_note(cluster, batch);
        break;
    }
    good = msg_read(entry, &cluster->decoded, &msg);
    done = good || !cluster->decoded.failed;
    if (good && batch->lane == LANE_NOTICE)
        presence_take_notice(cluster, batch, &msg);
    else if (good)
        done = route_take_publication(cluster, batch, &msg);
    else if (done)
        log_write(cluster->log, LOG_WARN, "a malformed publication was dropped", NULL);
    if (!done)
        order_take_back(&cluster->sender_seqs, batch->lane, batch->partition);
    return done;
}

bool batch_take(struct cluster *cluster, struct wire_batch *batch)
{
    struct str entry;

    while (!conn_over_budget(cluster->shared)) {
        struct str entries = batch->entries;

        if (!wire_next_entry(batch, &entry))
            return true;
        if (!batch_take_entry(cluster, batch, entry)) {
            batch->entries = entries;
            return false;
        }
        batch->first_seq++;
        cluster->shared->spent += CONN_READ_COST;
    }
    return false;
}

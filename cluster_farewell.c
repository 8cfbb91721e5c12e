/* cluster_farewell.c - clients that have moved to another node: their ends are not forgotten.
 *
 * Two lists, each in the order of its deadlines: those that are `open`, until the other node says
 * that they are there, and those that are `told` of by it. Only clients of systems that want to
 * hear of ends are kept.
 *
 * Threads: only the loop's. */
#include "cluster_farewell.h"

#include "event.h"

#include <stdlib.h>
#include <string.h>

#define FAREWELL_SLACK 10000 /* milliseconds; events are dropped a little later than at `retry` */

struct farewell {
    struct fifo_link link;
    struct node_tag to;
    uint64_t id; /* of its request */
    int64_t until;
    int64_t seconds; /* for which it was connected */
    size_t size;     /* bytes of all this */
    struct event_client client;
    char text[]; /* of `client` */
};

static struct str farewell_copy(struct farewell *farewell, struct str text)
{
    char *at = (char *)farewell + farewell->size;

    if (text.length)
        memcpy(at, text.at, text.length);
    farewell->size += text.length;
    return (struct str){at, text.length};
}

/* NULL without memory. */
static struct farewell *farewell_new(const struct event_client *client)
{
    size_t length =
        client->system.length + client->id.length + client->user.length + client->extend.length;
    struct farewell *farewell = malloc(sizeof *farewell + length);

    if (!farewell)
        return NULL;
    *farewell = (struct farewell){.size = sizeof *farewell};
    farewell->client.system = farewell_copy(farewell, client->system);
    farewell->client.id = farewell_copy(farewell, client->id);
    farewell->client.user = farewell_copy(farewell, client->user);
    farewell->client.extend = farewell_copy(farewell, client->extend);
    return farewell;
}

static void farewell_tell(struct cluster *cluster, const struct event_client *client,
                          int64_t seconds)
{
    event_disconnect(cluster->hub->webhooks, client, WS_CLOSE_ABNORMAL,
                     STR("moved to a node that is gone"), seconds);
}

/* Removes the one behind `before`, or the first; `is_told`: its end is told of. */
static void farewell_remove(struct cluster *cluster, struct fifo *list, struct fifo_link *before,
                            bool is_told)
{
    struct farewell *farewell = (struct farewell *)fifo_remove_after(list, before);

    if (is_told)
        farewell_tell(cluster, &farewell->client, farewell->seconds);
    cluster->farewells.bytes -= farewell->size;
    free(farewell);
}

void farewell_add(struct cluster *cluster, const struct peer *peer, uint64_t id,
                  const struct client *client)
{
    struct state_farewells *all = &cluster->farewells;
    struct event_client about = event_about(client);
    int64_t seconds = cluster->hub->now - client->connected_at;
    struct farewell *farewell;

    if (!event_wants(cluster->hub->webhooks, client, WEBHOOK_DISCONNECT))
        return;
    farewell = farewell_new(&about);
    if (!farewell) {
        farewell_tell(cluster, &about, seconds);
        return;
    }
    farewell->to = peer->tag;
    farewell->id = id;
    farewell->seconds = seconds;
    farewell->until = cluster->now + 2 * state_timeout(cluster);
    fifo_push(&all->open, &farewell->link);
    all->bytes += farewell->size;
    while (all->bytes > FAREWELL_BYTES_MAX)
        farewell_remove(cluster, all->told.first ? &all->told : &all->open, NULL, true);
}

void farewell_take_moved(struct cluster *cluster, const struct peer *peer, uint64_t id)
{
    struct fifo *open = &cluster->farewells.open;
    struct fifo_link *before = NULL;

    for (struct fifo_link *at = open->first; at; before = at, at = at->next) {
        struct farewell *farewell = (struct farewell *)at;

        if (farewell->id != id || !node_has_tag(&farewell->to, &peer->tag))
            continue;
        fifo_remove_after(open, before);
        farewell->until = cluster->now + (int64_t)cluster->config->webhook_retry + FAREWELL_SLACK;
        fifo_push(&cluster->farewells.told, at);
        return;
    }
}

void farewell_end_node(struct cluster *cluster, const struct node_tag *node, bool flushed)
{
    struct fifo *told = &cluster->farewells.told;
    struct fifo_link *before = NULL, *next;

    for (struct fifo_link *at = told->first; at; at = next) {
        next = at->next;
        if (node_has_tag(&((struct farewell *)at)->to, node))
            farewell_remove(cluster, told, before, !flushed);
        else
            before = at;
    }
}

static int64_t farewell_first(const struct fifo *list)
{
    return list->first ? ((const struct farewell *)list->first)->until : INT64_MAX;
}

void farewell_expire(struct cluster *cluster)
{
    while (farewell_first(&cluster->farewells.open) <= cluster->now)
        farewell_remove(cluster, &cluster->farewells.open, NULL, true);
    while (farewell_first(&cluster->farewells.told) <= cluster->now)
        farewell_remove(cluster, &cluster->farewells.told, NULL, false);
}

int64_t farewell_deadline(const struct cluster *cluster)
{
    int64_t open = farewell_first(&cluster->farewells.open);
    int64_t told = farewell_first(&cluster->farewells.told);

    return open < told ? open : told;
}

void farewell_close(struct cluster *cluster)
{
    while (cluster->farewells.open.first)
        farewell_remove(cluster, &cluster->farewells.open, NULL, false);
    while (cluster->farewells.told.first)
        farewell_remove(cluster, &cluster->farewells.told, NULL, false);
}

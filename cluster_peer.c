/* cluster_peer.c - the other nodes that this one knows.
 *
 * Data: a list of peers, some tens at most. An attempt to connect to one goes through the addresses
 * of its host (a numeric one is the only one; those of a name are looked up for each attempt), with
 * the first key that this node has; if a node there refused the key, again with the next one. When
 * all have failed, a pause with back-off follows, and the next attempt begins from the front.
 * Two nodes: the one that joined later connects at once, the earlier one only after
 * PEER_CONNECT_LATER without a link, for it may not be reached from there, or the two may have seen
 * each other too late.
 * Threads: only the loop's. */
#include "cluster_peer.h"

#include "os.h"

#include <stdlib.h>
#include <string.h>

/* --- the list --------------------------------------------------------------------------------- */

struct peer *peer_find(struct peer *first, const struct node_id *id)
{
    while (first && !node_equal(&first->id, id))
        first = first->next;
    return first;
}

struct peer *peer_find_tag(struct peer *first, const struct node_tag *tag)
{
    while (first && !node_has_tag(&first->tag, tag))
        first = first->next;
    return first;
}

struct peer *peer_add(struct peer **first, const struct node_id *id)
{
    struct peer *peer = peer_find(*first, id);

    if (peer)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (!peer || !node_make_tag(id, &peer->tag)) {
        free(peer);
        return NULL;
    }
    peer->id = *id;
    peer->next = *first;
    *first = peer;
    return peer;
}

void peer_remove(struct peer **first, struct peer *peer)
{
    while (*first != peer)
        first = &(*first)->next;
    *first = peer->next;
    free(peer->resolved);
    free(peer);
}

/* --- when ------------------------------------------------------------------------------------- */

bool peer_is_earlier(const struct peer *peer, const struct node_id *self)
{
    if (self->incarnation != peer->id.incarnation)
        return peer->id.incarnation < self->incarnation;
    return strcmp(peer->id.name, self->name) < 0;
}

int64_t peer_connect_at(const struct peer *peer, const struct node_id *self, int64_t now)
{
    int64_t at = peer->missing_since ? peer->missing_since : now;

    if (peer->link || peer->connecting || peer->looking_up || !peer->listed ||
        node_equal(&peer->id, self))
        return INT64_MAX;
    if (!peer_is_earlier(peer, self))
        at += PEER_CONNECT_LATER;
    return peer->retry_at > at ? peer->retry_at : at;
}

void peer_pause(struct peer *peer, int64_t now)
{
    peer->retry_at = now + os_backoff(&peer->pause, PEER_PAUSE_MAX);
}

/* --- where ------------------------------------------------------------------------------------ */

static void peer_end_attempt(struct peer *peer)
{
    free(peer->resolved);
    peer->resolved = NULL;
    peer->address = peer->key = 0;
    peer->key_rejected = false;
}

bool peer_next_address(struct peer *peer, struct lookup *lookup, int64_t now,
                       union lookup_address *address)
{
    struct str host = {0};
    unsigned port = 0;

    peer->retry_at = now + PEER_LOOK_UP_TIME; /* also when nobody can be asked */
    node_split_name(&peer->id, &host, &port);
    if (peer->resolved) {
        *address = peer->resolved->addresses[peer->address++];
    } else if (!lookup_read(host, address)) {
        peer->looking_up = lookup_ask(lookup, host);
        return false;
    }
    lookup_set_port(address, port);
    return true;
}

struct peer *peer_take_result(struct peer *first, struct lookup_result *result, int64_t now)
{
    struct str host = {0};
    unsigned port;

    while (first && !(first->looking_up && node_split_name(&first->id, &host, &port) &&
                      str_equal(host, str_from(result->host))))
        first = first->next;
    if (!first) {
        free(result);
        return NULL;
    }
    first->looking_up = false;
    first->resolved = result;
    first->retry_at = now;
    return first;
}

bool peer_fail(struct peer *peer, bool refused, size_t key_count, int64_t now)
{
    peer->key_rejected = peer->key_rejected || refused;
    peer->retry_at = now;
    if (peer->resolved && peer->address < peer->resolved->count)
        return true;
    if (peer->key_rejected && peer->key + 1 < key_count) {
        peer->key++;
        peer->address = 0;
        peer->key_rejected = false;
        return true;
    }
    peer_end_attempt(peer);
    peer_pause(peer, now);
    return false;
}

void peer_succeed(struct peer *peer)
{
    peer_end_attempt(peer);
    peer->pause = peer->missing_since = 0;
    peer->failure_logged = false;
}

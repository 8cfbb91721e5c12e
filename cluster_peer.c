/* cluster_peer.c - the known nodes, and when and where to connect.
 *
 * Data: a list of peers, some tens at most.
 *
 * Attempt: it tries the addresses of the peer's host in turn (a numeric host has one; a name is
 * looked up for each attempt) with this node's first key. If a node there did not know the key, it
 * tries them again with the next key. When all have failed, the next attempt waits for a back-off.
 *
 * Who connects: the node that joined later, at once. The earlier one connects after
 * PEER_CONNECT_LATER without a link: it may not be reachable from there, or the two may have seen
 * each other too late.
 *
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

    peer->retry_at = now + PEER_LOOK_UP_TIME; /* also if the look-up cannot be asked for */
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

bool peer_fail(struct peer *peer, bool rejected, size_t key_count, int64_t now)
{
    peer->key_rejected = peer->key_rejected || rejected;
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

/* cluster_peer.h - the known nodes, and when and where to connect to each: back-off, the addresses
 * of its name in turn, the keys it may have. No sockets. */
#ifndef WSPUSH_CLUSTER_PEER_H
#define WSPUSH_CLUSTER_PEER_H

#include "cluster_order.h"
#include "cluster_lookup.h"
#include "cluster_wire.h"

#define PEER_CONNECT_LATER 250 /* milliseconds that the earlier node waits for the later one */
#define PEER_PAUSE_MAX 3200
#define PEER_LOOK_UP_TIME 2000 /* milliseconds after which a look-up is logged as slow */

struct link;

/* Another node. */
struct peer {
    struct node_id id;
    struct node_tag tag;
    struct link *link; /* that is up, or NULL */
    unsigned version;  /* of the last link: the highest that both understand */

    /* of cluster_link.c: how to get a link */
    struct link *connecting;
    int64_t retry_at, pause;
    int64_t missing_since;          /* without a link since; 0: linked, or not listed */
    size_t key;                     /* index of the key that is offered */
    bool key_rejected;              /* an address of this attempt did not know the key */
    bool looking_up;                /* its name */
    struct lookup_result *resolved; /* the addresses of its name, or NULL */
    size_t address;                 /* how many of them have been tried */
    bool failure_logged;            /* that it cannot be reached */

    /* of cluster.c and cluster_route.c */
    bool listed;                      /* by the registry: only then it is connected to */
    bool alive;                       /* says the registry */
    bool ready;                       /* has all its bindings, */
    bool was_ready;                   /* or had them once: it may have clients */
    int64_t status_at;                /* when its last status came */
    struct order_clock clock;         /* ages of its messages */
    uint64_t passed[WIRE_PARTITIONS]; /* the last of this node's sends that it has taken there */
    struct peer *next;
};

/* The node of this id, or of a client id's tag, in a list; NULL if it is not there. */
struct peer *peer_find(struct peer *first, const struct node_id *id);
struct peer *peer_find_tag(struct peer *first, const struct node_tag *tag);

/* Adds a node to the list, or finds it there; NULL without memory. */
struct peer *peer_add(struct peer **first, const struct node_id *id);

/* Removes a node from the list and frees it. */
void peer_remove(struct peer **first, struct peer *peer);

/* True if `self` joined after the peer: then `self` connects. */
bool peer_is_earlier(const struct peer *peer, const struct node_id *self);

/* When to connect to a peer; INT64_MAX if it is not due. */
int64_t peer_connect_at(const struct peer *peer, const struct node_id *self, int64_t now);

/* Begins an attempt, or continues it. Returns true with the address to connect to, false if the
 * name must be looked up first, which has been asked for. */
bool peer_next_address(struct peer *peer, struct lookup *lookup, int64_t now,
                       union lookup_address *address);

/* Gives the result of a look-up to a peer that waits for it, or frees it. Returns the peer (without
 * addresses if the result has an error), or NULL if none waits. */
struct peer *peer_take_result(struct peer *first, struct lookup_result *result, int64_t now);

/* An address gave no link. `rejected`: the node there does not know the key. Returns true if
 * another address or key should be tried at once. */
bool peer_fail(struct peer *peer, bool rejected, size_t key_count, int64_t now);

/* Call when the link that was up has broken: the next attempt waits for the back-off. */
void peer_pause(struct peer *peer, int64_t now);

/* Call when a link is up: ends the attempt and resets the back-off. */
void peer_succeed(struct peer *peer);

#endif

/* cluster_peer.h - the other nodes that this one knows, and when and where each is to be connected
 * to: back-off, the addresses of its name one after the other, the keys it may have. No sockets. */
#ifndef WSPUSH_CLUSTER_PEER_H
#define WSPUSH_CLUSTER_PEER_H

#include "cluster_order.h"
#include "cluster_lookup.h"
#include "cluster_wire.h"

#define PEER_CONNECT_LATER 250 /* milliseconds that the earlier node waits for the later one */
#define PEER_PAUSE_MAX 3200
#define PEER_LOOK_UP_TIME 2000 /* milliseconds after which a look-up is worth a line in the log */

struct link;

/* Another node. */
struct peer {
    struct node_id id;
    struct node_tag tag;
    struct link *link; /* the link that is up, or NULL */
    unsigned version;  /* that both understand; of the last link */

    /* the links' own: how to get one */
    struct link *connecting;
    int64_t retry_at, pause;
    int64_t missing_since;          /* no link since then; 0: there is one, or it is not listed */
    size_t key;                     /* number of the key that is offered */
    bool key_rejected;              /* an address of this attempt did not know it */
    bool looking_up;                /* its name */
    struct lookup_result *resolved; /* the addresses of its name, or NULL, */
    size_t address;                 /* and how many of them have been tried */
    bool failure_logged;            /* that it cannot be reached */

    /* the cluster's */
    bool listed;                      /* the registry has it: set before it is connected to */
    bool alive;                       /* the registry says so */
    bool ready;                       /* it has all its bindings, */
    bool was_ready;                   /* or had them once: then it may have clients */
    struct order_clock clock;         /* of the times in its messages */
    uint64_t passed[WIRE_PARTITIONS]; /* up to here it has taken what this node has sent there */
    struct peer *next;
};

/* In a list of peers: the node of this id, or NULL; the same by what a client id tells of it. */
struct peer *peer_find(struct peer *first, const struct node_id *id);
struct peer *peer_find_tag(struct peer *first, const struct node_tag *tag);

/* Adds a node to the list, unless it is there; NULL without memory. */
struct peer *peer_add(struct peer **first, const struct node_id *id);

/* Takes a node off the list, and frees it. */
void peer_remove(struct peer **first, struct peer *peer);

/* True if `self` joined after the other, so that it is the one to connect. */
bool peer_is_earlier(const struct peer *peer, const struct node_id *self);

/* When it is to be connected to; INT64_MAX if that is not due. */
int64_t peer_connect_at(const struct peer *peer, const struct node_id *self, int64_t now);

/* Begins an attempt, or goes on with it: true, and where to connect. False: its name has to be
 * looked up, and that has been asked for. */
bool peer_next_address(struct peer *peer, struct lookup *lookup, int64_t now,
                       union lookup_address *address);

/* Gives the result of a look-up to one of the peers that wait for it, or frees it. The peer, which
 * has no address if the result has an error; NULL: none waits. */
struct peer *peer_take_result(struct peer *first, struct lookup_result *result, int64_t now);

/* An address gave no link, `refused`: because the node there does not know the key. True if there
 * is another address, or key, to be tried at once. */
bool peer_fail(struct peer *peer, bool refused, size_t key_count, int64_t now);

/* The link that was up has broken. */
void peer_pause(struct peer *peer, int64_t now);

/* There is a link. */
void peer_succeed(struct peer *peer);

#endif

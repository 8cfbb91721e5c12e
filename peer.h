/* peer.h - the links between the nodes of a cluster: one for each pair, WebSocket frames over TCP
 * on the rpc port, text both ways. The node that started later dials, and dials again with
 * back-off.
 *
 * Both ends prove that they hold crypto_key before anything else is said: the one that accepts
 * gives a challenge, the one that dials answers it with one of its own and a keyed hash of both,
 * and is answered by another. A captured proof is of no use: the challenges are new each time.
 * Refuses: whoever cannot prove it, with silence, after at most PEER_UNPROVED_MAX bytes. */
#ifndef WSPUSH_PEER_H
#define WSPUSH_PEER_H

#include "config.h"
#include "crypto.h"
#include "identity.h"
#include "log.h"

#include <poll.h>

#define PEER_UNPROVED_MAX 2048

struct peers;
struct link;

/* Another node. */
struct peer {
    struct identity identity;
    struct link *link; /* the link that is up, or NULL */

    /* how to get one, if it is for us to dial */
    struct link *dialing;
    int64_t retry_at, pause;
    bool listed; /* the registry has it */
    bool told;   /* that it cannot be reached */

    /* the cluster's */
    bool alive;              /* the registry says so */
    bool ready;              /* it has all its bindings */
    bool clock_known;        /* the smallest difference seen between our clock and the one */
    int64_t clock, clock_at; /* in its letters, and when that was last allowed to grow */
    struct peer *next;
};

struct peers_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keys *keys;
    int listener; /* listening, non-blocking; the peers close it */
};

enum peer_event_kind { PEER_UP, PEER_DOWN, PEER_LETTER };

struct peer_event {
    struct peer_event *next;
    enum peer_event_kind kind;
    struct identity from;
    struct buf text; /* LETTER; to be freed */
};

/* NULL without memory. */
struct peers *peers_open(const struct peers_options *options);

/* Who this node is; before that nobody is talked to. */
void peers_join(struct peers *peers, const struct identity *self);

/* The node of this identity, or NULL. */
struct peer *peers_find(const struct peers *peers, const struct identity *identity);

/* All nodes known, as a list. */
struct peer *peers_all(const struct peers *peers);

/* The node is in the registry: it becomes known, and dialled if that is for us. */
struct peer *peers_add(struct peers *peers, const struct identity *identity);

/* The node is dead, or has left. */
void peers_remove(struct peers *peers, struct peer *peer);

/* True if letters can be sent to a peer, as far as is known. */
bool peers_reach(const struct peers *peers, const struct peer *peer);

/* Sends a letter; false if the peer is out of reach, or does not read what it is sent. */
bool peers_send(struct peers *peers, struct peer *peer, struct str text);

/* How many entries peers_poll fills. */
size_t peers_poll_count(const struct peers *peers);

/* Fills in what to poll for. */
void peers_poll(const struct peers *peers, struct pollfd *polls);

/* Does what poll() says can be done, with the same entries, and what is due at `now` (milliseconds
 * of the steady clock). */
void peers_serve(struct peers *peers, const struct pollfd *polls, int64_t now);

/* Writes what has been queued, and frees links that have ended. */
void peers_flush(struct peers *peers);

/* When peers_serve is to be called at the latest. */
int64_t peers_deadline(const struct peers *peers);

/* Takes the oldest event, to be freed; NULL if there is none. */
struct peer_event *peers_take(struct peers *peers);

/* Frees everything; NULL is allowed. */
void peers_close(struct peers *peers);

#endif

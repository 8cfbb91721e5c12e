/* cluster_link.h - the links between the nodes of a cluster: one for each pair, frames of RFC 6455
 * over TLS 1.3 with a pre-shared key, without an HTTP upgrade. The node that joined later connects,
 * and connects again with back-off; if it does not come, the other one connects as well.
 *
 * The key of TLS is derived from crypto_key, so both ends have it or there is no link; the end that
 * listens proves it first. Then the end that listens says who it is and which versions it
 * understands, the other checks that it is the one it meant, says the same of itself, and is told
 * with a ping that the link is up.
 * Refuses: a node without a key of ours, with a text that says so; one whose version is too old, or
 * that names none; more than LINK_PREAUTH_MAX bytes before the link is up; messages longer than
 * LINK_MESSAGE_MAX. */
#ifndef WSPUSH_CLUSTER_LINK_H
#define WSPUSH_CLUSTER_LINK_H

#include "cluster_peer.h"
#include "config.h"
#include "log.h"

#include <poll.h>

#define LINK_PREAUTH_MAX 2048 /* bytes above TLS before the other is known */
#define LINK_MESSAGE_MAX (64u * 1024 * 1024)

struct links;

/* What links are opened with; all must outlive them. */
struct links_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    int listener; /* listening, non-blocking; the links close it */
    int wake;     /* written to when a name has been looked up */
};

enum link_event_kind { LINK_EVENT_UP, LINK_EVENT_DOWN, LINK_EVENT_MESSAGE };

struct link_event {
    struct link_event *next;
    enum link_event_kind kind;
    struct node_id from;
    struct buf text; /* MESSAGE; to be freed */
};

/* NULL without memory, or if TLS cannot be prepared. */
struct links *links_open(const struct links_options *options);

/* Who this node is; before that nobody is talked to. */
void links_join(struct links *links, const struct node_id *self);

/* The node of this id, or NULL; the same by what a client id tells of it. */
struct peer *links_find(const struct links *links, const struct node_id *id);
struct peer *links_find_tag(const struct links *links, const struct node_tag *tag);

/* All nodes known, as a list. */
struct peer *links_all(const struct links *links);

/* A node becomes known; NULL without memory. It is connected to once `listed` is set. */
struct peer *links_add(struct links *links, const struct node_id *id);

/* The node is dead, or has left: forgets it. */
void links_remove(struct links *links, struct peer *peer);

/* True if messages can be sent to a peer, as far as is known. */
bool links_reach(const struct links *links, const struct peer *peer);

/* Sends a message; false if the peer is out of reach, or does not read what it is sent. */
bool links_send(struct links *links, struct peer *peer, struct str text);

/* How many entries links_poll fills. */
size_t links_poll_count(const struct links *links);

/* Fills in what to poll for. */
void links_poll(const struct links *links, struct pollfd *polls);

/* Does what poll() says can be done, with the same entries, and what is due at `now` (milliseconds
 * of the steady clock). */
void links_serve(struct links *links, const struct pollfd *polls, int64_t now);

/* Writes what has been queued, and frees links that have ended. */
void links_flush(struct links *links);

/* When links_serve is to be called at the latest. */
int64_t links_deadline(const struct links *links);

/* Takes the oldest event, to be freed; NULL if there is none. */
struct link_event *links_take(struct links *links);

/* Frees everything; NULL is allowed. */
void links_close(struct links *links);

#endif

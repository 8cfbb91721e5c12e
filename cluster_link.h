/* cluster_link.h - links between nodes: one for each pair, RFC 6455 frames over TLS 1.3 with a
 * pre-shared key, without an HTTP upgrade. The node that joined later connects, with back-off; if
 * it does not, the earlier one connects too.
 *
 * Authentication: the TLS key is derived from crypto_key; the listening end proves it first. Then
 * both ends say hello (cluster_wire.h), the listening end first, and its ping confirms the link.
 * Rejects: nodes without a key of this node, with a reason that says so; nodes of a version too
 * old, or without one; more than LINK_PREAUTH_MAX bytes before the link is up; messages longer than
 * LINK_MESSAGE_MAX. */
#ifndef WSPUSH_CLUSTER_LINK_H
#define WSPUSH_CLUSTER_LINK_H

#include "cluster_peer.h"
#include "config.h"
#include "log.h"

#include <poll.h>

#define LINK_PREAUTH_MAX 2048 /* bytes above TLS before the other node is known */
#define LINK_MESSAGE_MAX (64u * 1024 * 1024)

struct links;

/* Options of links_open; all must outlive the links. */
struct links_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    int listener; /* listening, non-blocking; owned by the links */
    int wake;     /* a byte is written here when a name has been looked up */
};

enum link_event_kind { LINK_EVENT_UP, LINK_EVENT_DOWN, LINK_EVENT_MESSAGE };

struct link_event {
    struct fifo_link fifo;
    enum link_event_kind kind;
    struct node_id from;
    struct buf text; /* MESSAGE; the caller frees it */
};

/* NULL without memory, or if TLS cannot be prepared. */
struct links *links_open(const struct links_options *options);

/* Sets this node's id. Before that nothing is connected or accepted. */
void links_join(struct links *links, const struct node_id *self);

/* The node of this id, or of a client id's tag; NULL if it is not known. */
struct peer *links_find(const struct links *links, const struct node_id *id);
struct peer *links_find_tag(const struct links *links, const struct node_tag *tag);

/* The list of all known nodes. */
struct peer *links_all(const struct links *links);

/* Adds a node; NULL without memory. It is connected to once `listed` is set. */
struct peer *links_add(struct links *links, const struct node_id *id);

/* Forgets a node that is dead or has left, and ends its links. */
void links_remove(struct links *links, struct peer *peer);

/* True if the link to a peer is up and was heard of lately. */
bool links_reach(const struct links *links, const struct peer *peer);

/* Sends a message. False if the peer is out of reach or does not read. */
bool links_send(struct links *links, struct peer *peer, struct str text);

/* How many entries links_poll fills. */
size_t links_poll_count(const struct links *links);

/* Fills in what to poll for. */
void links_poll(const struct links *links, struct pollfd *polls);

/* Does what poll() allows, with the same entries, and what is due at `now` (os_now_ms). */
void links_serve(struct links *links, const struct pollfd *polls, int64_t now);

/* Writes queued frames, and frees links that have ended. Call at the end of an iteration. */
void links_flush(struct links *links);

/* The time by which links_serve must be called. */
int64_t links_deadline(const struct links *links);

/* Takes the oldest event, which the caller frees; NULL if there is none. */
struct link_event *links_take(struct links *links);

/* Frees everything; NULL is allowed. */
void links_close(struct links *links);

#endif

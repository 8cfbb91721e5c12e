/* hub_resume.h - clients that come back: found by their keys, given another connection and the
 * frames that they missed; and the end of those that stay away. See resume.h for what is kept. */
#ifndef WSPUSH_HUB_RESUME_H
#define WSPUSH_HUB_RESUME_H

#include "hub.h"

/* The client of this node that a key belongs to, whose bytes are then in *secret; NULL: the key is
 * not good. */
struct client *hub_resume_find(const struct hub *hub, struct str key, uint64_t *secret);

/* Lets a client, which is away or has another connection, go on with this one: queues its first
 * frame, which says what became of its frames after the first `received`, and behind it those that
 * are kept. `key` is what hub_resume_find has found. The other connection is closed (4409). False
 * without memory: the connection is of no use. */
bool hub_resume_client(struct hub *hub, struct client *client, struct conn *conn, uint64_t key,
                       uint64_t received);

/* --- clients that move to another node of a cluster ------------------------------------------ */

/* Closes a client's connection (4409), if it has one: the client is away. */
void hub_resume_detach(struct hub *hub, struct client *client);

/* Makes a client that is away, of which nobody is told. NULL without memory, or without linger. */
struct client *hub_resume_hold(struct hub *hub, const struct ticket_claims *claims);

/* Tells the others of a client that was held, and had the id `previous` on its node. */
void hub_resume_announce(struct hub *hub, struct client *client, struct str previous);

/* The same as hub_resume_client for one that comes from another node, with that: it is announced if
 * that has not been done. */
bool hub_resume_moved(struct hub *hub, struct client *client, struct conn *conn, uint64_t key,
                      uint64_t received, struct str previous);

/* Forgets a client that is away: it has moved, and its channels are notified; or it was held, and
 * nobody knows it. */
void hub_resume_forget(struct hub *hub, struct client *client, bool has_moved);

/* --- clients that stay away ------------------------------------------------------------------ */

/* Ends clients that have been away for `linger`, and those away longest while there are more than
 * `most` clients. Call once an iteration; a call ends a bounded number. True if there are more. */
bool hub_resume_expire(struct hub *hub, uint64_t most);

/* When the first client that is away ends, by hub->now_ms; INT64_MAX: none is. */
int64_t hub_resume_deadline(const struct hub *hub);

#endif

/* event.h - what becomes of clients, as events for the webhooks of their systems.
 *
 * `webhooks` may be NULL: then nothing is done. Events of systems without a webhook, and those that
 * it does not want, are dropped. All are of the time of the call. */
#ifndef WSPUSH_EVENT_H
#define WSPUSH_EVENT_H

#include "channel.h"
#include "webhook.h"

/* Whom an event is about. */
struct event_client {
    struct str system, id, user, extend;
};

/* Views of a client's strings. */
struct event_client event_about(const struct client *client);

/* A client can be sent to; it is in its groups already. `previous`: the id that it had before it
 * came from another node; or empty. */
void event_connect(struct webhooks *webhooks, const struct client *client, struct str previous);

/* A client ends, after so many seconds, with this close code and the reason that this server
 * gives. */
void event_disconnect(struct webhooks *webhooks, const struct event_client *client, unsigned code,
                      struct str reason, int64_t seconds);

/* A client has joined a group, or has another user or `extend` than when it did. */
void event_join(struct webhooks *webhooks, const struct client *client, struct str group);

/* A client has left a group, and stays connected. */
void event_leave(struct webhooks *webhooks, const struct client *client, struct str group);

/* This node was declared dead, and is not: receivers forget what they know of its clients and list
 * them again. */
void event_restart(struct webhooks *webhooks, const struct channels *channels);

/* For one webhook: another node has died, its clients in epochs up to this one are gone. */
void event_end(struct webhooks *webhooks, struct webhook *webhook, struct str node, int64_t epoch);

/* True if the webhook of the client's system takes such events. */
bool event_wants(struct webhooks *webhooks, const struct client *client, enum webhook_kind kind);

/* A client has sent a text. False: the queue is full, and the text is dropped. */
bool event_message(struct webhooks *webhooks, const struct client *client, struct str text);

#endif

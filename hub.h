/* hub.h - the clients, users, groups and systems of this node; turns a command into queued frames.
 *
 * A system, a user and a group are all the same thing: an audience, a set of clients with a name
 * inside a system. A frame is encoded once and queued, by reference, to each member.
 * Refuses: client ids that are forged or another system's; they look like those of clients that
 * have gone. A client too slow for what it is sent is ended; nobody else is delayed. */
#ifndef WSPUSH_HUB_H
#define WSPUSH_HUB_H

#include "command.h"
#include "config.h"
#include "conn.h"
#include "log.h"
#include "table.h"
#include "ws.h"

#define HUB_ID_LENGTH 16 /* of a client id */

struct hub {
    const struct config *config;
    const struct log *log;
    uint32_t seed;
    struct table clients;   /* by number */
    struct table audiences; /* by kind, system and name */
    struct client *slow;    /* to be ended once the present command is done */
};

/* Prepares a hub. False if there are no random bytes. */
bool hub_open(struct hub *hub, const struct config *config, const struct log *log);

/* Makes a client of a connection whose handshake is done: it gets its id as the first frame, and
 * the system is told if the configuration says so. `now` in unix seconds. False if there was no
 * memory: nothing has changed. */
bool hub_connect(struct hub *hub, struct conn *conn, struct str system, int64_t now);

/* The connection of this client has ended: it leaves everything, and those who are to know are
 * told. Frees the client. */
void hub_disconnect(struct hub *hub, struct client *client);

/* Ends a client from this side: as hub_disconnect, and its connection gets a close frame behind
 * what is queued. */
void hub_end(struct hub *hub, struct client *client, unsigned code, struct str reason);

/* Ends a client that is too slow: as hub_end, with 1013, but what is queued is dropped. */
void hub_end_slow(struct hub *hub, struct client *client);

/* Does what a command says. `outcome` must be zeroed; its list is the caller's to free. */
void hub_apply(struct hub *hub, const struct command *command, struct outcome *outcome);

/* Queues a message to one connection outside of the hub's own sends (a pong, a refusal); the text
 * is encoded as one frame. False when there is no memory or the queue is full. */
bool hub_queue_frame(struct hub *hub, struct conn *conn, enum ws_opcode opcode, struct str payload);

/* Queues a close frame, behind which nothing more is queued. */
void hub_send_close(struct conn *conn, unsigned code, struct str reason);

/* Frees everything; connections are left alone. */
void hub_close(struct hub *hub);

#endif

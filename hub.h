/* hub.h - the clients, users, groups and systems of this node; turns a command into queued frames.
 *
 * A system, a user and a group are all the same thing: an audience, a set of clients with a name
 * inside a system. A frame is encoded once and queued, by reference, to each member.
 * On a node that is alone it tells the members of a group who comes and goes: who comes at once,
 * who has gone when hub_flush_notices is called, so that many who go together are not told of each
 * other. In a cluster it tells that its hooks, which reach the members on other nodes too. Refuses:
 * client ids that are forged or another system's; they look like those of clients that have gone. A
 * client too slow for what it is sent is ended; nobody else is delayed. */
#ifndef WSPUSH_HUB_H
#define WSPUSH_HUB_H

#include "command.h"
#include "config.h"
#include "conn.h"
#include "crypto.h"
#include "log.h"
#include "table.h"
#include "ws.h"

#define HUB_ID_LENGTH 16 /* of a client id on a node that is alone */

enum channel_kind { CHANNEL_SYSTEM, CHANNEL_USER, CHANNEL_GROUP };

enum presence_kind {
    PRESENCE_JOIN,   /* a client has come to a channel */
    PRESENCE_LEAVE,  /* it has left, or gone */
    PRESENCE_REFRESH /* it is still there, and what is recorded of it may have changed or be lost */
};

/* What has become of a client in a group (or, if the group is empty, in its system). All views are
 * the hub's, and valid during the call. */
struct hub_presence {
    enum presence_kind kind;
    bool notify; /* the members are to be told: 1001 of a join, 1002 of a leave */
    struct str system, group;
    struct str id;          /* the client's; JSON */
    struct str client_json; /* {"clientId":…,"userId":…,"extend":…} and in a group "groupName":… */
};

/* What a hub asks of the cluster it is part of, and tells it. The calls are made in the middle of a
 * command: they must not call the hub. */
struct hub_hooks {
    void *state;
    /* Writes the id of the client with this number. False if that fails. */
    bool (*seal_id)(void *state, uint64_t number, char id[CRYPTO_ID_TEXT]);
    /* Opens an id of this node: JSON, a string. False for every other value. */
    bool (*open_id)(void *state, struct json_value id, uint64_t *number);
    /* A channel got its first member here, or has lost its last one. */
    void (*change_channel)(void *state, enum channel_kind kind, struct str system, struct str name,
                           bool exists);
    void (*change_presence)(void *state, const struct hub_presence *presence);
};

/* The close codes that are counted each; all others together are the last. */
#define HUB_CLOSE_CODES 10
extern const uint16_t hub_close_codes[HUB_CLOSE_CODES];

#define HUB_LOST 1006 /* stands for a close code where a connection ended without a close frame */

/* What a hub counts. */
struct hub_counts {
    uint64_t sent;    /* messages queued for clients: their ids, pushes and notices, */
    uint64_t dropped; /* and not queued, for their clients were too slow */
    uint64_t slow;    /* clients ended for that */
    uint64_t closes[HUB_CLOSE_CODES + 1];
};

struct hub {
    const struct config *config;
    const struct log *log;
    uint32_t seed;
    int64_t now; /* unix seconds; the owner keeps it right */
    struct hub_counts counts;
    size_t kinds[CHANNEL_GROUP + 1];         /* audiences of each kind */
    struct table clients;                    /* by number */
    struct table audiences;                  /* by kind, system and name */
    struct client *slow;                     /* to be ended once the present command is done */
    struct audience *to_tell, *last_to_tell; /* those whose members have notices coming, in turn */
    const struct hub_hooks *hooks;           /* in a cluster, else NULL */
};

/* Prepares a hub. False if there are no random bytes. */
bool hub_open(struct hub *hub, const struct config *config, const struct log *log);

/* Makes the hub one of a cluster, before its first client. The hooks must outlive it. */
void hub_set_hooks(struct hub *hub, const struct hub_hooks *hooks);

/* True if notices to a group (without a name: to the system) are told here: it has members, and no
 * more than max_members. */
bool hub_may_notify(struct hub *hub, struct str system, struct str group);

#define HUB_REPORT_BATCH 1000 /* memberships */

/* Reports PRESENCE_REFRESH to the cluster for each client in each group (or its system, by the
 * scope). `told`: the members get 1001 again, if they got 1002. One call reports about
 * HUB_REPORT_BATCH of them: returns true while there are more. `scan` is zeroed before the first.
 */
bool hub_refresh_presence(struct hub *hub, struct table_scan *scan, bool told);

/* Makes a client of a connection whose handshake is done: it gets its id as the first frame, and
 * the system is told if the configuration says so. False if there was no memory: nothing has
 * changed. */
bool hub_connect(struct hub *hub, struct conn *conn, struct str system);

/* Sends a client its id: the first frame that it gets, and again when it asks. False without
 * memory, or if the client is too slow to take it. */
bool hub_send_id(struct hub *hub, const struct client *client);

/* Tells members who has left, up to `frames` of them or a few more; who has left meanwhile is not
 * told. True if there is more to tell. */
bool hub_flush_notices(struct hub *hub, size_t frames);

/* The connection of this client has ended without a close frame, and `why` is for the log: it
 * leaves everything, and those who are to know are told. Frees the client. */
void hub_disconnect(struct hub *hub, struct client *client, const char *why);

/* Ends a client from this side: as hub_disconnect, and its connection gets a close frame behind
 * what is queued. */
void hub_end(struct hub *hub, struct client *client, unsigned code, struct str reason);

/* The same for one that has sent a close frame, and gets one back. */
void hub_end_closed(struct hub *hub, struct client *client, unsigned code);

/* Ends a client that is too slow: as hub_end, with 1013, but what is queued is dropped. */
void hub_end_slow(struct hub *hub, struct client *client);

/* True if a client of this system and id is online here. */
bool hub_is_online(const struct hub *hub, struct str system, struct json_value id);

/* Does what a command says. `result` must be zeroed; its list is the caller's to free. */
void hub_apply(struct hub *hub, const struct command *command, struct result *result);

/* Queues a message to one connection outside of the hub's own sends (a pong, a refusal); the text
 * is encoded as one frame. False when there is no memory or the queue is full. */
bool hub_queue_frame(struct hub *hub, struct conn *conn, enum ws_opcode opcode, struct str payload);

/* Queues a close frame, behind which nothing more is queued. */
void hub_send_close(struct hub *hub, struct conn *conn, unsigned code, struct str reason);

/* Frees everything; connections are left alone. */
void hub_close(struct hub *hub);

#endif

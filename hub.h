/* hub.h - commands, what comes of them, and the frames, closes and notices they cause on this node.
 *
 * api makes commands, hub applies them, a cluster carries them between nodes. A frame is encoded
 * once and queued, by reference, on each member of a channel. Members of a group are notified of
 * joins (code 1001) at once and of leaves (1002) when hub_flush_notices is called, so that clients
 * that leave together are not notified of each other. In a cluster its hooks notify instead, for
 * they reach members on other nodes too.
 * Refuses: client ids that are forged or another system's; they look like those of clients that are
 * gone. A client that reads too slowly for what it is sent is closed; no other is delayed. */
#ifndef WSPUSH_HUB_H
#define WSPUSH_HUB_H

#include "channel.h"
#include "command.h"
#include "config.h"
#include "conn.h"
#include "crypto.h"
#include "event.h"
#include "json.h"
#include "log.h"
#include "once.h"
#include "table.h"
#include "ticket.h"
#include "ws.h"

#define HUB_ID_LENGTH 16 /* of a client id on a node that is alone */

/* --- hooks of a cluster ---------------------------------------------------------------------- */

enum presence_kind {
    PRESENCE_JOIN,   /* a client was added to a channel */
    PRESENCE_LEAVE,  /* it was removed */
    PRESENCE_REFRESH /* it is still there; its presence record may have changed or be lost */
};

/* What became of a client in a group (or, if the group is empty, in its system). The hub owns the
 * views, which are valid during the call. */
struct hub_presence {
    enum presence_kind kind;
    bool notify; /* send the members 1001 of a join, 1002 of a leave */
    struct str system, group;
    struct str id;          /* the client's; JSON */
    struct str client_json; /* {"clientId":…,"userId":…,"extend":…} and in a group "groupName":… */
};

/* Bytes of a client id in a cluster: base64 without padding. */
#define HUB_ID_TEXT 68

/* What a hub asks its cluster and reports to it; called in the middle of a command: a hook must not
 * call the hub. */
struct hub_hooks {
    void *state;
    /* Writes the id of the client with this number. False if that fails. */
    bool (*seal_id)(void *state, uint64_t number, char id[HUB_ID_TEXT]);
    /* Opens an id of this node: JSON, a string. False for every other value. */
    bool (*open_id)(void *state, struct json_value id, uint64_t *number);
    /* A channel got its first member here, or lost its last one. */
    void (*change_channel)(void *state, enum channel_kind kind, struct str system, struct str name,
                           bool exists);
    void (*change_presence)(void *state, const struct hub_presence *presence);
};

/* --- the hub --------------------------------------------------------------------------------- */

/* The close codes that are counted each; the last count is that of all others. */
#define HUB_CLOSE_TICKET 4401  /* the peer needs a new ticket, and may come back with it */
#define HUB_CLOSE_RESUMED 4409 /* the client goes on with another connection */
#define HUB_CLOSE_CODES 13
extern const uint16_t hub_close_codes[HUB_CLOSE_CODES];

struct hub_counts {
    uint64_t sent;     /* messages queued for clients: their ids, pushes and notices */
    uint64_t dropped;  /* messages not queued because their clients were too slow */
    uint64_t slow;     /* clients closed for that */
    uint64_t repeated; /* sends that were not delivered again */
    uint64_t closes[HUB_CLOSE_CODES + 1];
};

struct hub {
    const struct config *config;
    const struct log *log;
    int64_t now;    /* unix seconds; the owner keeps both right */
    int64_t now_ms; /* milliseconds of a steady clock */
    struct hub_counts counts;
    size_t kinds[CHANNEL_GROUP + 1]; /* channels of each kind */
    struct channels channels;
    struct once once;
    const struct hub_hooks *hooks; /* NULL on a node that is alone; set before the first client */
    struct webhooks *webhooks;     /* NULL: there are none */
    int64_t clock;                 /* of their epochs, see webhook_set_clock */
    struct fifo walks, walked;     /* of roster.c: under way, and done; */
    unsigned list_count;           /* how many of both are lists */
};

/* How a client ends. */
enum hub_end {
    HUB_END_LOST,    /* its connection ended without a close frame, or it did not come back */
    HUB_END_PEER,    /* it sent a close frame and is sent one back */
    HUB_END_CLOSED,  /* this server closes it, behind what is queued */
    HUB_END_SILENT,  /* the same, because it does not answer pings */
    HUB_END_LEAVING, /* the same, because this server stops: another node may take it over */
    HUB_END_SLOW     /* the same as CLOSED, but what is queued is dropped */
};

/* Prepares a hub. False if there are no random bytes. */
bool hub_open(struct hub *hub, const struct config *config, const struct log *log);

/* Makes a client of a connection whose handshake is done: subscribes it to its system, its user and
 * its groups, queues its id as the first frame, then notifies the channels in scope. False without
 * memory: it is none, and the connection is of no use. */
bool hub_connect(struct hub *hub, struct conn *conn, const struct ticket_claims *claims);

/* Makes a client, in its system, its user and its groups, of which nobody is told: before
 * hub_announce it is no client to others. `conn` may be NULL. NULL without memory. */
struct client *hub_add_client(struct hub *hub, struct conn *conn,
                              const struct ticket_claims *claims);

/* Tells the webhook and the channels in scope of a new client. `previous`: the id that it had on
 * another node, or empty. */
void hub_announce(struct hub *hub, const struct client *client, struct str previous);

/* Takes a client out of all its channels and frees it; `notify` their members, later. */
void hub_remove_client(struct hub *hub, struct client *client, bool notify);

/* Ends a client and frees it: takes it out of its channels, whose members are notified, and, unless
 * it is lost, queues a close frame with the code and, unless it echoes one, the reason. The code of
 * a lost client is WS_CLOSE_ABNORMAL. A client that may come back, and is lost, silent or slow,
 * loses its connection alone: it is away then. */
void hub_end_client(struct hub *hub, struct client *client, enum hub_end end, unsigned code,
                    struct str reason);

/* How many clients of a system are online here. */
size_t hub_count_clients(const struct hub *hub, struct str system);

/* True if a client of this system and id is online here. */
bool hub_is_online(const struct hub *hub, struct str system, struct json_value id);

/* Does what a command says; those of roster.h are for roster_apply. `result` must be zeroed; its
 * list is the caller's to free. */
void hub_apply(struct hub *hub, const struct command *command, struct result *result);

/* Reads the number of a client of this node from its id. */
bool hub_read_id(const struct hub *hub, struct json_value id, uint64_t *number);

/* Does what BIND, UNBIND, CLOSE_CLIENT or CLIENT_INFO says to a client. Call hub_close_slow_clients
 * afterwards. */
void hub_apply_to(struct hub *hub, const struct command *command, struct client *client,
                  struct result *result);

/* Marks, or unmarks, the clients that a command leaves out: client->is_excluded. */
void hub_exclude(const struct hub *hub, const struct command *command, bool is_excluded);

/* Closes the clients that deliveries found to be slow. */
void hub_close_slow_clients(struct hub *hub);

/* Begins one more entry of the result's list. */
struct buf *hub_next_entry(struct result *result);

/* Deletes a system here: from now on no command finds it, or its clients, who are not notified of
 * each other's leaves. hub_flush_notices closes them with HUB_CLOSE_TICKET, a few at a time.
 */
void hub_delete_system(struct hub *hub, struct str system);

/* Sends pending notices of leaves, up to `frames` of them or a few more, and closes clients of
 * deleted systems. Call once an iteration. True if there are more. */
bool hub_flush_notices(struct hub *hub, size_t frames);

/* True if members of a group (without a name: of the system) are notified here: it has members, and
 * no more than max_members. */
bool hub_may_notify(struct hub *hub, struct str system, struct str group);

#define HUB_REFRESH_BATCH 1000 /* subscriptions */

/* Reports PRESENCE_REFRESH to the cluster for each client in each group (or its system, by the
 * scope). `notify`: the members get 1001 again, if they got 1002. One call reports about
 * HUB_REFRESH_BATCH of them: returns true while there are more. `scan` is zeroed before the first.
 */
bool hub_refresh_presence(struct hub *hub, struct table_scan *scan, bool notify);

/* Queues one frame on one connection, outside of commands: not counted (see resume.h), so pings,
 * pongs, and texts for peers that are no clients. False without memory or when the queue is full.
 */
bool hub_queue_frame(struct hub *hub, struct conn *conn, enum ws_opcode opcode, struct str payload);

/* Queues a text, which is freed, on a connection; if that serves a client, it is counted. False as
 * above. */
bool hub_queue_text(struct hub *hub, struct conn *conn, struct buf *text);

/* Queues a close frame, behind which nothing more is queued. */
void hub_send_close(struct hub *hub, struct conn *conn, unsigned code, struct str reason);

/* Frees everything; connections are left alone. */
void hub_close(struct hub *hub);

#endif

/* command.h - what callers ask for, what comes of it, and what clients are told of it as JSON: the
 * envelope, pushes, the description of a client.
 *
 * The functions append to a buffer; without memory the buffer has failed, or the frame is NULL. */
#ifndef WSPUSH_COMMAND_H
#define WSPUSH_COMMAND_H

#include "channel.h"
#include "json.h"
#include "ws.h"

enum command_kind {
    COMMAND_SEND_TO_CLIENT,
    COMMAND_SEND_TO_CLIENTS,
    COMMAND_SEND_TO_GROUP,
    COMMAND_SEND_TO_USER,
    COMMAND_SEND_TO_SYSTEM,
    COMMAND_BIND,
    COMMAND_UNBIND,
    COMMAND_ONLINE_LIST,
    COMMAND_CLOSE_CLIENT,
    COMMAND_CLIENT_INFO,
    /* of roster.h */
    COMMAND_COUNT_CLIENTS,
    COMMAND_LIST_CLIENTS,
    COMMAND_LIST_GROUPS,
    COMMAND_BIND_USER,
    COMMAND_UNBIND_USER,
    COMMAND_CLOSE_USER
};

/* A checked command; its maker owns all views. Those marked JSON are values as they were sent, not
 * decoded; empty means absent. */
struct command {
    enum command_kind kind;
    struct str system;

    struct json_value client; /* client id; JSON */
    struct str clients;       /* JSON array of client ids: to send to, or to leave out */
    struct str group, user;   /* LIST_GROUPS: `group` is what names begin with */
    struct str extend;
    bool has_user,
        has_extend; /* BIND: an empty one takes the old one off, an absent one does not */

    int64_t code;                                /* of the message to push */
    struct str msg, data, send_user, message_id; /* JSON */
    bool once; /* a send with a messageId: each target gets it once, see once.h */

    unsigned close_code;
    struct str reason;

    struct str groups, users; /* COUNT_CLIENTS: JSON arrays of names */
    bool wide;                /* COUNT_CLIENTS: of the system, too; LIST_CLIENTS: with groups */
    struct str after;         /* LIST_*: the position behind which to begin */
    unsigned limit;           /* LIST_*: of entries */
};

/* The codes of the contract. */
enum result_code {
    RESULT_SUCCESS = 0,
    RESULT_MALFORMED = -1,
    RESULT_UNKNOWN_SYSTEM = -1001,
    RESULT_NO_TOKEN = -1002,
    RESULT_OFFLINE = -1003,
    RESULT_REGISTERED = -1004,
    RESULT_DENIED = -1005,
    RESULT_LIMIT = -1006,
    RESULT_UNREACHABLE = -1007,
    NOTICE_ONLINE = 1001,
    NOTICE_OFFLINE = 1002
};

/* The result of a command. */
struct result {
    enum result_code code;
    const char *error; /* in plain English, if code is not success */
    uint64_t matched;  /* clients the command was for */
    uint64_t queued;   /* of them: clients the message is on its way to */
    uint64_t held;     /* of these: it is kept for clients that are away */
    uint64_t dropped;  /* of them: clients too slow to take it, or away for too much */
    bool repeated;     /* some of those it is for got it before, and do not get it again */
    uint64_t count;    /* entries of `list` */
    struct buf list;   /* JSON, separated by commas: client ids (online, or failed to reach); for
                          COMMAND_CLIENT_INFO the one object; for those of roster.h see there */
};

/* True for the codes that a client may be closed with: 1000, and 3000 to 4999 except 4400 to 4499,
 * which are wspush's own. */
bool command_may_close_with(int64_t code);

/* Appends the frame that a send pushes: {"code":…,"msg":…,"data":…} and what belongs behind it. */
bool command_write_push(struct buf *out, const struct command *command);

/* Appends the envelope {"code":…,"msg":"…","data":…}; `data` is JSON, empty gives []. */
bool command_write_envelope(struct buf *out, int code, struct str msg, struct str data);

/* The text frame of a text, or of an envelope around `data`; either is freed. The reference is the
 * caller's. NULL without memory. */
struct rcbuf *command_encode(struct buf *text);
struct rcbuf *command_encode_envelope(int code, struct str msg, struct buf *data);

/* Appends the envelope of a client's first frame: its id, the user if a ticket named one, and its
 * key and `linger` if it may come back; then `more`, JSON that begins with a comma. */
bool command_write_first(struct buf *out, const struct client *client, uint64_t linger,
                         struct str more);

/* How an object begins that tells of a client. */
#define COMMAND_CLIENT_BEGIN "{\"clientId\":"

/* Appends {"clientId":…,"userId":…,"extend":… and leaves the object open. */
void command_append_client(struct buf *out, const struct client *client);

/* Appends what CLIENT_INFO and LIST_CLIENTS tell of a client: an object. */
void command_describe_client(const struct client *client, bool with_groups, struct buf *out);

#endif

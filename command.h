/* command.h - the one vocabulary in which the rooms and the nodes speak: what is to be done, what
 * came of it, and the JSON of both. Made by api, applied by hub, carried by cluster.
 * Refuses: nothing; who makes a command has checked it. */
#ifndef WSPUSH_COMMAND_H
#define WSPUSH_COMMAND_H

#include "json.h"

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
    COMMAND_CLIENT_INFO
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

/* All views belong to the maker of the command. Those marked JSON are values as they were sent,
 * checked and not decoded; empty means absent. */
struct command {
    enum command_kind kind;
    struct str system;

    struct json_value client; /* client id; JSON */
    struct str clients;       /* JSON array of client ids: to send to, or to leave out */
    struct str group, user;
    struct str extend;
    bool has_user,
        has_extend; /* BIND: an empty one takes the old one off, an absent one does not */

    int64_t code;                                /* of the message to push */
    struct str msg, data, send_user, message_id; /* JSON */

    unsigned close_code;
    struct str reason;
};

/* What came of a command. */
struct result {
    enum result_code code;
    const char *error; /* in plain English, if code is not success */
    uint64_t matched;  /* clients the command was for */
    uint64_t queued;   /* of them: clients the message is on its way to */
    uint64_t dropped;  /* of them: clients too slow to take it */
    uint64_t count;    /* entries of `list` */
    struct buf list;   /* JSON: client ids separated by commas (online, or failed to reach); for
                          COMMAND_CLIENT_INFO the one object */
};

/* True for the codes that a client may be closed with: 1000, and 3000 to 4999 but for 4400 to 4499,
 * which are wspush's own. */
bool hub_may_close_with(int64_t code);

/* True if a command that another node has sent may be done: what clients get of it is JSON, or a
 * close frame, that they can read, and a group has a name. */
bool wire_command_is_valid(const struct command *command);

/* True if a command is for a group, a user or a system: for clients on any node. */
bool wire_command_is_published(const struct command *command);

/* Appends the frame that a send pushes: {"code":…,"msg":…,"data":…} and what belongs behind it. */
bool hub_write_push(struct buf *out, const struct command *command);

/* Appends the envelope {"code":…,"msg":"…","data":…}; `data` is JSON, empty gives []. */
bool hub_write_envelope(struct buf *out, int code, struct str msg, struct str data);

#endif

/* command.h - the one vocabulary in which the rooms and the nodes speak: what is to be done, what
 * came of it, and the JSON of both. Made by api, applied by hub, carried by cluster.
 * Refuses: letters of other nodes that are malformed; who makes a command here has checked it. */
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
enum outcome_code {
    OUTCOME_SUCCESS = 0,
    OUTCOME_MALFORMED = -1,
    OUTCOME_UNKNOWN_SYSTEM = -1001,
    OUTCOME_NO_TOKEN = -1002,
    OUTCOME_OFFLINE = -1003,
    OUTCOME_REGISTERED = -1004,
    OUTCOME_DENIED = -1005,
    OUTCOME_LIMIT = -1006,
    OUTCOME_UNREACHABLE = -1007,
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
struct outcome {
    enum outcome_code code;
    const char *error; /* in plain English, if code is not success */
    uint64_t matched;  /* clients the command was for */
    uint64_t queued;   /* of them: clients the message is on its way to */
    uint64_t dropped;  /* of them: clients too slow to take it */
    uint64_t count;    /* entries of `list` */
    struct buf list;   /* JSON: client ids separated by commas (online, or failed to reach); for
                          COMMAND_CLIENT_INFO the one object */
};

/* What one node says to another. */
enum letter_kind {
    LETTER_REQUEST, /* do this command for me; answered by LETTER_ANSWER of the same id */
    LETTER_ANSWER,
    LETTER_PUBLISH, /* to all nodes that have members: a send, numbered by its origin */
    LETTER_COUNT,   /* how many has the publication `number` of the asker reached with you? */
    LETTER_STATE,   /* whether the sender has all its bindings */
    LETTER_LEAVE    /* the sender leaves, and has told all that was to be told */
};

/* All views belong to the text it was read from, or to the buffer given to letter_read. */
struct letter {
    enum letter_kind kind;
    uint64_t id;            /* of a request, a count and their answer */
    int64_t at;             /* REQUEST, STATE: milliseconds of the sender's clock */
    struct str origin;      /* PUBLISH: the node that published it, and its start */
    uint64_t number;        /* PUBLISH, COUNT: of the publication */
    uint64_t slot;          /* COUNT: where it was published, */
    uint64_t order;         /* and in which order */
    struct str after;       /* REQUEST: what the sender has published before, see order.h; JSON */
    bool counted;           /* PUBLISH: its origin will ask for the count */
    bool ready;             /* STATE */
    struct command command; /* REQUEST, PUBLISH */
    struct outcome outcome; /* ANSWER; `error` is in `error`, and `list` a view in `list` */
    struct str error, list;
};

/* Appends a letter as one JSON object. ANSWER: `outcome` is what is written. */
bool letter_write(struct buf *out, const struct letter *letter);

/* Reads a letter. `decoded` holds the strings that had to be decoded; what it held is dropped.
 * False if it is malformed or there is no memory. */
bool letter_read(struct str text, struct buf *decoded, struct letter *letter);

/* True for the codes that a client may be closed with: 1000, and 3000 to 4999 but for 4400 to 4499,
 * which are wspush's own. */
bool command_may_close_with(int64_t code);

/* True if a command that another node has sent may be done: what clients get of it is JSON, or a
 * close frame, that they can read, and a group has a name. */
bool command_is_whole(const struct command *command);

/* Appends the frame that a send pushes: {"code":…,"msg":…,"data":…} and what belongs behind it. */
bool command_write_push(struct buf *out, const struct command *command);

/* Appends the envelope {"code":…,"msg":"…","data":…}; `data` is JSON, empty gives []. */
bool command_write_envelope(struct buf *out, int code, struct str msg, struct str data);

#endif

/* cluster_wire.h - what nodes say to each other, as bytes: node ids, messages, batches with their
 * MAC, sealed client ids, hash slots, hellos. Pure functions of bytes.
 *
 * A message is one JSON object, sent over a link or as an entry of a batch. A batch is one AMQP
 * message:
 *
 *   "wsp" | MAC (32) | VERSION (1) | KEY (8) | length (1), text of the origin | LANE (1)
 *   | PARTITION (1) | FIRST (8) | COUNT (4) | COUNT times: length (4), entry
 *
 * Numbers are big-endian. The MAC is HMAC-SHA-256 under the publication key named KEY, over the
 * cluster's name and all that follows the MAC.
 * Rejects: everything that no node of this version, the one before or the one after would write. */
#ifndef WSPUSH_CLUSTER_WIRE_H
#define WSPUSH_CLUSTER_WIRE_H

#include "hub.h"
#include "crypto.h"

/* The protocol version: a node of version N understands N - 1, N and N + 1, so that nodes can be
 * replaced one at a time. Nodes before version 1 named no version and are rejected. Version 2 added
 * MSG_ACCOUNT, MSG_MOVED, MSG_ADOPT, MSG_ADOPTED and commands; a node of version 1 would drop them
 * as malformed, so none is sent to it (peer->version). Members that it does not know it ignores. */
#ifndef WIRE_VERSION
#define WIRE_VERSION 2
#endif

/* --- nodes ------------------------------------------------------------------------------------ */

#define NODE_HOST_MAX 100
#define NODE_NAME_MAX (NODE_HOST_MAX + 8) /* "[", "]", ":" and a port */
#define NODE_TEXT_MAX (NODE_NAME_MAX + 22)

/* One incarnation of a node. Its name is HOST:PORT, an IPv6 address in brackets; its text is
 * NAME/INCARNATION. A node has another incarnation after each restart. */
struct node_id {
    char name[NODE_NAME_MAX + 1];
    uint64_t incarnation; /* milliseconds of Redis's clock at joining */
};

/* Makes the name of a host (an address or a name, without brackets) and a port. False if there is
 * no host, or it is too long. */
bool node_set_name(struct node_id *node, struct str host, unsigned port);

/* Splits a name; `host` is a view of it, without brackets. */
bool node_split_name(const struct node_id *node, struct str *host, unsigned *port);

/* Writes the text and a NUL; returns the length without it. */
size_t node_write(const struct node_id *node, char text[NODE_TEXT_MAX]);

/* Reads what node_write writes; false for any other spelling. */
bool node_read(struct str text, struct node_id *node);

/* True if both are the same incarnation of the same node. */
bool node_equal(const struct node_id *a, const struct node_id *b);

/* True if both are the same node, in any incarnation. */
bool node_equal_name(const struct node_id *a, const struct node_id *b);

/* --- client ids ------------------------------------------------------------------------------- */

/* What a client id tells of its owner: enough to find it among the known nodes. */
struct node_tag {
    unsigned char bytes[7]; /* of SHA-256 of the name */
    uint64_t incarnation;
};

bool node_make_tag(const struct node_id *node, struct node_tag *tag);
bool node_has_tag(const struct node_tag *tag, const struct node_tag *other);

/* Seals a client's number under the first key. False if OpenSSL fails. */
bool wire_seal_client(const struct crypto_keyring *keys, const struct node_tag *owner,
                      uint64_t number, char text[HUB_ID_TEXT]);

/* Opens an id (JSON, a string). False for every value that no holder of the keys has made. */
bool wire_open_client(const struct crypto_keyring *keys, struct json_value id,
                      struct node_tag *owner, uint64_t *number);

/* --- slots ------------------------------------------------------------------------------------ */

#define WIRE_SLOTS 16384
#define WIRE_PARTITIONS 16

enum wire_channel { WIRE_SYSTEM, WIRE_USER, WIRE_GROUP };

/* The slot of a channel: CRC16 (XMODEM) of "SYSTEM", "SYSTEM@USER" or "SYSTEM:GROUP". A system
 * ignores `name`. */
uint16_t wire_slot(enum wire_channel kind, struct str system, struct str name);

/* The partition of a system. All its publications have one order, for a client is in one system. */
unsigned wire_partition(struct str system);

/* --- messages --------------------------------------------------------------------------------- */

enum msg_kind {
    MSG_REQUEST, /* apply this command; answered by MSG_REPLY with the same id */
    MSG_REPLY,
    MSG_SEND,   /* a send, published to all nodes with members */
    MSG_COUNT,  /* how many clients has your send `id` reached? Answered by MSG_REPLY */
    MSG_STATUS, /* the sender's clock, and whether it has all its bindings */
    MSG_LEAVE,  /* the sender leaves, and has published everything */
    /* version 2: */
    MSG_ACCOUNT, /* the sender has changed the account of command.system */
    MSG_MOVED,   /* the client of ADOPT `id` is here */
    MSG_ADOPT,   /* whose session is this? In a batch: let it go. See cluster_adopt.h */
    MSG_ADOPTED  /* the reply to it */
};

/* All views belong to the text it was read from, or to the buffer given to msg_read. */
struct cluster_msg {
    enum msg_kind kind;
    uint64_t id;            /* of a request, a counted send, a count, and their replies */
    int64_t at;             /* REQUEST, STATUS, ADOPT: milliseconds of the sender's clock; ADOPTED:
                               unix second at which the client's ticket ends; 0: never */
    struct str to;          /* REQUEST, ADOPT in a batch: the text of the node it is for */
    uint64_t slot;          /* COUNT: of the send */
    bool counted;           /* SEND: its origin asks for counts */
    bool ready;             /* STATUS */
    bool deleted;           /* ACCOUNT: that was the change */
    struct command command; /* REQUEST, SEND; ACCOUNT, ADOPT: the system; ADOPTED: user, extend and
                               groups of the client */
    struct result result;   /* REPLY, ADOPTED; read: `error` and `list` are in the members below */
    struct str error, list; /* ADOPTED: the list is of frames, each a string */

    struct str key;     /* ADOPT: of the session */
    uint64_t messages;  /* ADOPT: that the client has; ADOPTED: that it was sent */
    uint64_t state;     /* ADOPTED: of the client; ADOPT in a batch: that of the reply before */
    bool is_signed;     /* ADOPTED: the client has a ticket */
    struct str numbers; /* ADOPTED to one in a batch: see order_write */
};

/* Appends a message as one JSON object. REPLY writes `result`. */
bool msg_write(struct buf *out, const struct cluster_msg *msg);

/* Reads a message. `decoded` is emptied and holds the strings that had escapes. Unknown members are
 * ignored. False if the message is malformed, or without memory: then decoded->failed. */
bool msg_read(struct str text, struct buf *decoded, struct cluster_msg *msg);

/* --- batches ---------------------------------------------------------------------------------- */

enum wire_lane {
    LANE_SEND,   /* sends, and requests that must come behind them */
    LANE_NOTICE, /* 1001 and 1002: behind all sends */
    LANE_COUNT
};

#define WIRE_BATCH_HEAD_MAX (4 + CRYPTO_HASH_SIZE + 8 + 1 + NODE_TEXT_MAX + 2 + 8 + 4)

struct wire_batch {
    struct node_id origin;
    enum wire_lane lane;
    unsigned partition;
    uint64_t first_seq; /* of the first entry, within origin, lane and partition; seqs have no
                           holes. A probe has no entry, and any number */
    uint32_t count;     /* entries */
    struct str entries; /* that wire_next_entry has not taken */
};

/* Begins a batch: writes its head, and leaves room for MAC and count. */
bool wire_begin_batch(struct buf *out, const struct crypto_keyring *keys,
                      const struct wire_batch *head);

bool wire_append_entry(struct buf *out, struct str entry);

/* Writes MAC and count into the batch that begins at the buffer's first byte. `cluster` is the
 * cluster's name. False if OpenSSL fails or the buffer has failed. */
bool wire_seal_batch(struct buf *out, const struct crypto_keyring *keys, struct str cluster,
                     uint32_t count);

enum wire_result {
    WIRE_GOOD,
    WIRE_VERSION_UNKNOWN, /* of a version that this node does not understand */
    WIRE_FOREIGN,         /* the MAC is another cluster's, or forged */
    WIRE_MALFORMED,       /* no batch; or the MAC is good and the rest is not */
};

/* Opens a batch. GOOD: `batch` is filled in, with views of `bytes`. */
enum wire_result wire_open_batch(struct str bytes, const struct crypto_keyring *keys,
                                 struct str cluster, struct wire_batch *batch);

/* Takes the next entry; false at the end. */
bool wire_next_entry(struct wire_batch *batch, struct str *entry);

/* --- hello ------------------------------------------------------------------------------------ */

/* The first message of each end of a link: its node, and the versions it understands, as
 * {"node":TEXT,"version":N,"oldest":M}. Unknown members are ignored. */
#define HELLO_MAX (NODE_TEXT_MAX + 64)

struct hello {
    struct node_id node;
    unsigned version, oldest; /* understood; so is the one after `version` */
};

/* Writes this node's hello and a NUL; returns the length without it. */
size_t hello_write(const struct node_id *self, char text[HELLO_MAX]);

bool hello_read(struct str text, struct hello *hello);

/* True if both nodes understand each other. Else `reason`, cut to `room` bytes, says which is too
 * old, and the remedy. */
bool hello_overlaps(const struct hello *hello, char *reason, size_t room);

/* The version from which nodes know the commands of roster.h. */
#define WIRE_VERSION_ROSTER 2

/* True if a command of another node may be applied: what it sends to clients is JSON, or a close
 * frame they can read, and a group has a name. */
bool wire_command_is_valid(const struct command *command);

/* True if a command goes to a group, a user or a system: to clients on any node. */
bool wire_command_is_published(const struct command *command);

#endif

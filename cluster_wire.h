/* cluster_wire.h - what nodes say to each other, as bytes: node ids, messages, batches of
 * publications with their MAC, sealed client ids, hash slots. Pure functions of bytes.
 *
 * A message is one JSON object, over a link or as an entry of a batch. A batch is one message of
 * AMQP:
 *   "wsp" | MAC (32) | VERSION | KEY (8) | length, text of the origin | LANE PARTITION | FIRST (8)
 * | COUNT (4) | COUNT times: length (4), entry Numbers are big-endian. The MAC is HMAC-SHA-256
 * under the publication key whose name is KEY, over the cluster's name and all that follows the
 * MAC. Refuses: everything that no node of this protocol version, the one before or the one after
 * would write. */
#ifndef WSPUSH_CLUSTER_WIRE_H
#define WSPUSH_CLUSTER_WIRE_H

#include "command.h"
#include "crypto.h"

/* The protocol's version: a node of version N understands N - 1, N and N + 1, so that nodes can be
 * replaced one at a time. Nodes before version 1 named no version and are refused. */
#ifndef WIRE_VERSION
#define WIRE_VERSION 1
#endif

/* --- nodes ------------------------------------------------------------------------------------ */

#define NODE_HOST_MAX 100
#define NODE_NAME_MAX (NODE_HOST_MAX + 8) /* "[", "]", ":" and a port */
#define NODE_TEXT_MAX (NODE_NAME_MAX + 22)

/* One life of a node. Its name is HOST:PORT, an IPv6 address in brackets; as text it is
 * NAME/INCARNATION. The same node has another incarnation after each restart. */
struct node_id {
    char name[NODE_NAME_MAX + 1];
    uint64_t incarnation; /* milliseconds of Redis's clock when it joined */
};

/* Makes the name of a host (an address or a name, without brackets) and a port. False: too long,
 * or no host. */
bool node_set_name(struct node_id *node, struct str host, unsigned port);

/* Splits a name. `host` is a view of it, without brackets. */
bool node_split_name(const struct node_id *node, struct str *host, unsigned *port);

/* Writes the text, and a NUL; returns its length. */
size_t node_write(const struct node_id *node, char text[NODE_TEXT_MAX]);

/* Reads what node_write writes; false for every other spelling. */
bool node_read(struct str text, struct node_id *node);

/* True if both are the same life of the same node. */
bool node_equal(const struct node_id *a, const struct node_id *b);

/* True if both are the same node, in whatever life. */
bool node_equal_name(const struct node_id *a, const struct node_id *b);

/* --- client ids ------------------------------------------------------------------------------- */

/* What a client id tells of its owner: enough to find it among the nodes that are known. */
struct node_tag {
    unsigned char bytes[7]; /* of SHA-256 of the name */
    uint64_t incarnation;
};

bool node_make_tag(const struct node_id *node, struct node_tag *tag);
bool node_has_tag(const struct node_tag *tag, const struct node_tag *other);

/* Seals a client's number under the first key. False if OpenSSL fails. */
bool wire_seal_client(const struct crypto_keyring *keys, const struct node_tag *owner,
                      uint64_t number, char text[CRYPTO_ID_TEXT]);

/* Opens an id: JSON, a string. False for every value that no holder of the keys has made. */
bool wire_open_client(const struct crypto_keyring *keys, struct json_value id,
                      struct node_tag *owner, uint64_t *number);

/* --- slots ------------------------------------------------------------------------------------ */

#define WIRE_SLOTS 16384
#define WIRE_PARTITIONS 16

enum wire_channel { WIRE_SYSTEM, WIRE_USER, WIRE_GROUP };

/* The slot of a channel: CRC16 (XMODEM) of its name with its system's before it. `name` is unused
 * for a system itself. */
uint16_t wire_slot(enum wire_channel kind, struct str system, struct str name);

/* The partition whose one order all publications of a system have: a client belongs to one system.
 */
unsigned wire_partition(struct str system);

/* --- messages --------------------------------------------------------------------------------- */

enum msg_kind {
    MSG_REQUEST, /* do this command for me; answered by MSG_REPLY of the same id */
    MSG_REPLY,
    MSG_SEND,  /* to all nodes that have members: a send */
    MSG_COUNT, /* how many has the send `id` of the asker reached with you? Answered by MSG_REPLY */
    MSG_STATUS, /* the sender's clock, and whether it has all its bindings */
    MSG_LEAVE   /* the sender leaves, and has told all that was to be told */
};

/* All views belong to the text it was read from, or to the buffer given to msg_read. */
struct cluster_msg {
    enum msg_kind kind;
    uint64_t id;            /* of a request, a counted send, a count and their reply */
    int64_t at;             /* REQUEST, STATUS: milliseconds of the sender's clock */
    struct str to;          /* REQUEST in a batch: the text of the node that it is for */
    uint64_t slot;          /* COUNT: where it was published */
    bool counted;           /* SEND: its origin asks for the count */
    bool ready;             /* STATUS */
    struct command command; /* REQUEST, SEND */
    struct result result; /* REPLY; `error` is in `error`, and `list` a view in `list` */
    struct str error, list;
};

/* Appends a message as one JSON object. REPLY: `result` is what is written. */
bool msg_write(struct buf *out, const struct cluster_msg *msg);

/* Reads a message. `decoded` holds the strings that had to be decoded; what it held is dropped.
 * Unknown members are ignored. False if it is malformed or there is no memory. */
bool msg_read(struct str text, struct buf *decoded, struct cluster_msg *msg);

/* --- batches ---------------------------------------------------------------------------------- */

enum wire_lane {
    LANE_SEND,   /* sends, and requests that have to come behind them */
    LANE_NOTICE, /* 1001 and 1002: behind all sends */
    LANE_COUNT
};

#define WIRE_BATCH_HEAD_MAX (4 + CRYPTO_HASH_SIZE + 8 + 1 + NODE_TEXT_MAX + 2 + 8 + 4)

struct wire_batch {
    struct node_id origin;
    enum wire_lane lane;
    unsigned partition;
    uint64_t first_seq; /* the number of the first entry among all of its origin, lane and
                       partition: numbers have no holes. A probe has no entry, and any number */
    uint32_t count;     /* entries */
    struct str entries; /* those that wire_next_entry has not taken */
};

/* Begins a batch: its head, with room for the MAC. */
bool wire_begin_batch(struct buf *out, const struct crypto_keyring *keys,
                      const struct wire_batch *head);

bool wire_append_entry(struct buf *out, struct str entry);

/* Writes the MAC and the number of entries of a batch that begins at the buffer's first byte.
 * `cluster` is the cluster's name. False if OpenSSL fails or the buffer has failed. */
bool wire_seal_batch(struct buf *out, const struct crypto_keyring *keys, struct str cluster,
                     uint32_t count);

enum wire_result {
    WIRE_GOOD,
    WIRE_VERSION_UNKNOWN, /* it names a version that this node does not understand */
    WIRE_FOREIGN,         /* its MAC is not one of this cluster's: another cluster's, or forged */
    WIRE_MALFORMED,       /* it is no batch, or the MAC is good and the rest is not */
};

/* Opens a batch. GOOD: `batch` is filled in, with a view of `bytes`. */
enum wire_result wire_open_batch(struct str bytes, const struct crypto_keyring *keys,
                                 struct str cluster, struct wire_batch *batch);

/* Takes the next entry of a batch; false at the end. */
bool wire_next_entry(struct wire_batch *batch, struct str *entry);

/* --- the first words on a link ---------------------------------------------------------------- */

/* Hello: what each end of a link says first, one JSON object: the node and the versions that it
 * understands, {"node":TEXT,"version":N,"oldest":M}. Unknown members are ignored. */
#define HELLO_MAX (NODE_TEXT_MAX + 64)

struct hello {
    struct node_id node;
    unsigned version, oldest; /* that it understands; it understands the one behind `version` too */
};

/* Writes the hello of a node of this version, and a NUL; returns its length. */
size_t hello_write(const struct node_id *self, char text[HELLO_MAX]);

bool hello_read(struct str text, struct hello *hello);

/* True if a node of this version and the other understand each other. False: `reason` says which of
 * them is too old, and what helps. */
bool hello_overlaps(const struct hello *hello, char *reason, size_t room);

#endif

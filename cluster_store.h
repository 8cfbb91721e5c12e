/* cluster_store.h - what the registry's modules share: events, the connection to Redis, the names
 * of keys. All but the events is only the registry thread's.
 *
 * Keys, each behind the configured prefix; TEXT is NAME/INCARNATION, NAME is HOST:PORT:
 *   accounts        hash: system -> record
 *   webhooks        set of systems whose records have a webhook, and perhaps of others
 *   nodes           set of TEXT: joined, not left, not cleaned up
 *   node:NAME       incarnation of the node that lives under this name; expires after node_ttl
 *   records:TEXT    hash: presence records of a node
 *   lease:TEXT      the node that cleans up that node; expires after 3 s, or node_ttl if less
 *   ends            set of NAME/CLOCK: nodes that were cleaned up in the last day, or longer ago;
 *                   CLOCK lies between those of that incarnation and those of a later one
 *   tombstone:TEXT  the node that last removed records of that node, and its step; a day
 *   key             VERSION EXCHANGE KEY: MACs that joining nodes compare; 2 * node_ttl */
#ifndef WSPUSH_CLUSTER_STORE_H
#define WSPUSH_CLUSTER_STORE_H

#include "cluster_wire.h"
#include "config.h"
#include "os.h"
#include "redis.h"

enum registry_event_kind {
    REGISTRY_WAITING,       /* not joined yet, or disconnected: `text` says why, and the remedy */
    REGISTRY_NAME_CONFLICT, /* a live node has this name: `text` says which */
    REGISTRY_JOINED,        /* `self` has its incarnation */
    REGISTRY_RECONNECTED,   /* connected again: records may be lost */
    REGISTRY_REVIVED, /* the same, but this node was presumed dead: another node has removed some
                         or all of its records, published their leaves, and is done */
    REGISTRY_NODES,   /* `nodes`, with each heartbeat */
    REGISTRY_FOUND,   /* answers registry_look_up: `id`, `found`; `text` is the system */
    REGISTRY_WRITTEN, /* `results` of operations on records */
    REGISTRY_REMOVED, /* `records` of the dead node `self` are removed: publish their leaves, then
                         call registry_continue; `count` 0: none is left, and `id` is the CLOCK of
                         `ends`, all of which a node is told once before JOINED, too */
    REGISTRY_WARNING  /* `text` is for the log: Redis may lose accounts */
};

enum registry_found { REGISTRY_YES, REGISTRY_NO, REGISTRY_UNREACHABLE };

/* A registered node; it is dead if it is not alive. */
struct registry_node {
    struct node_id id;
    bool alive;
};

enum registry_change {
    REGISTRY_CHANGED,   /* this operation has made, or removed, the record */
    REGISTRY_UNCHANGED, /* it was there (its text is the new one), or was not there */
    REGISTRY_UNKNOWN,   /* the connection broke: it may be done or not */
    REGISTRY_NOT_DONE   /* it was not tried, or rejected; RECONNECTED or REVIVED follows when it may
                           be tried again */
};

struct registry_result {
    uint64_t id;
    enum registry_change change;
};

struct registry_event {
    struct fifo_link mail;
    enum registry_event_kind kind;
    struct node_id self;
    uint64_t id;
    uint64_t clock; /* of Redis: of JOINED, RECONNECTED, REVIVED and NODES; else 0 */
    enum registry_found found;
    struct str text, reason; /* `reason`: why UNREACHABLE; names no host, so clients may see it */
    size_t count;            /* of the array below */
    const struct registry_node *nodes;
    const struct registry_result *results;
    const struct str *records;
};

/* A new event with `room` bytes behind it; NULL without memory. */
struct registry_event *store_new_event(enum registry_event_kind kind, size_t room);

struct store {
    const struct config *config;
    struct redis *redis;
    struct mailbox *events;
    struct node_id self; /* without its incarnation before joining */
    char text[NODE_TEXT_MAX];
    uint64_t clock; /* of Redis, unix milliseconds: at joining, then at the last heartbeat */
    bool in_touch;  /* the last heartbeat was good, and nothing has failed since */
    bool renewed;   /* the connection was replaced: records may be lost */
    bool beat_now;  /* the heartbeat is due now */
    char last_reason[REDIS_ERROR_MAX]; /* of the last WAITING */
};

/* Posts an event with a copy of `text`. Without memory it is lost, as if Redis had not answered. */
void store_post(struct store *store, enum registry_event_kind kind, struct str text);

/* Disconnected: posts WAITING if the reason is a new one. Always false. */
bool store_wait(struct store *store, const char *text);

/* Connected, for the first time or again: posts an event of this kind. */
void store_on_connect(struct store *store, enum registry_event_kind kind);

/* Bytes for the name of a key. */
struct store_key {
    char at[128 + 16 + NODE_TEXT_MAX];
};

/* Writes the name of a key: `what` from the list above, up to the colon, and `of` behind it. */
struct str store_name(const struct store *store, const char *what, const char *of,
                      struct store_key *room);

/* The calls below return false if Redis did not do it; then the node is disconnected. */

/* Appends a command to the pipeline. */
bool store_send(struct store *store, const struct str *words);

/* The same for a command with one argument, or two. */
bool store_send_one(struct store *store, struct str command, struct str name);
bool store_send_two(struct store *store, struct str command, struct str name, struct str value);

/* Appends a SET of a key that expires after `ttl` milliseconds. `once`: only if the key is not
 * there; else the reply is nil. */
bool store_send_set(struct store *store, struct str name, struct str value, const char *ttl,
                    bool once);

/* Takes the next reply; an error reply is a failure. */
bool store_next(struct store *store, struct redis_reply *reply);

/* Takes `count` replies, and keeps the last. */
bool store_skip(struct store *store, size_t count, struct redis_reply *reply);

/* Reads a reply to TIME: unix milliseconds. False if it is none. */
bool store_read_clock(struct redis_reply reply, uint64_t *clock);

/* Sends one command, and takes its reply. */
bool store_call(struct store *store, struct redis_reply *reply, const struct str *words);

/* Sets a key unless it is there, and gets its value. `*made`: this call has set it. */
bool store_set_once(struct store *store, struct redis_reply *reply, struct str name,
                    struct str value, const char *ttl, bool *made);

#endif

/* cluster_store.h - what the parts of the registry share: its events, its connection to Redis, the
 * names of its keys. All but the events is the thread's own.
 *
 * Keys, each behind the configured prefix; TEXT is NAME/INCARNATION, NAME is HOST:PORT:
 *   accounts        hash: system -> record
 *   nodes           set of TEXT: joined, not left, not cleaned up
 *   node:NAME       incarnation of the node that lives under this name; expires after node_ttl
 *   records:TEXT    hash: presence records of a node
 *   lease:TEXT      who cleans up that node; expires after 3 s, or node_ttl if that is less
 *   tombstone:TEXT  who last removed records of that node, and in which step; a day
 *   key             VERSION EXCHANGE KEY: macs that nodes which join compare; 2 * node_ttl */
#ifndef WSPUSH_CLUSTER_STORE_H
#define WSPUSH_CLUSTER_STORE_H

#include "cluster_wire.h"
#include "config.h"
#include "os.h"
#include "redis.h"

enum registry_event_kind {
    REGISTRY_WAITING,       /* not joined yet, or out of touch: `text` says why and what helps */
    REGISTRY_NAME_CONFLICT, /* a living node has this one's name: `text` says which */
    REGISTRY_JOINED,        /* `self` has its incarnation now */
    REGISTRY_RECONNECTED,   /* in touch again: records may be gone */
    REGISTRY_REVIVED,       /* in touch again, but this node was taken for dead: some or all of its
                               records were removed and told by another, which has ended doing so */
    REGISTRY_NODES,         /* `nodes`; also when nothing has changed, with each heartbeat */
    REGISTRY_FOUND,         /* the answer to a look-up: `id`, `text` the system, `found` */
    REGISTRY_WRITTEN,       /* `results` of operations on records */
    REGISTRY_REMOVED, /* `records` of the dead node `self` are gone: this node is to tell that, and
                         to call registry_continue when it has; `count` 0: all are */
    REGISTRY_WARNING  /* `text` is for the log, at level warn: Redis may lose accounts */
};

enum registry_found { REGISTRY_YES, REGISTRY_NO, REGISTRY_UNREACHABLE };

/* A node that has joined and not left; it is dead if it is not alive. */
struct registry_node {
    struct node_id id;
    bool alive;
};

enum registry_change {
    REGISTRY_CHANGED,   /* the record was made, or removed, by this operation */
    REGISTRY_UNCHANGED, /* it was there already (its text is the new one), or was not there */
    REGISTRY_UNKNOWN,   /* the connection broke: it may have been done or not */
    REGISTRY_NOT_DONE   /* it was not tried, or refused; BACK or REVIVED follows when it may be
                           tried again */
};

struct registry_result {
    uint64_t id;
    enum registry_change change;
};

struct registry_event {
    struct mail mail;
    enum registry_event_kind kind;
    struct node_id self;
    uint64_t id;
    enum registry_found found;
    struct str text, reason; /* `reason`: of UNREACHABLE, for anybody to read */
    size_t count;            /* of what follows */
    const struct registry_node *nodes;
    const struct registry_result *results;
    const struct str *records;
};

/* An event with room behind it; NULL without memory. */
struct registry_event *store_new_event(enum registry_event_kind kind, size_t room);

struct store {
    const struct config *config;
    struct redis *redis;
    struct mailbox *events;
    struct node_id self; /* without its incarnation before it has joined */
    char text[NODE_TEXT_MAX];
    bool in_touch;         /* the last heartbeat was good, and nothing has failed since */
    bool beat_now;         /* the connection broke: the next heartbeat is due now */
    char last_reason[500]; /* the last REGISTRY_WAITING */
};

/* Posts an event with a copy of `text`; without memory it is lost, as if Redis had not answered. */
void store_post(struct store *store, enum registry_event_kind kind, struct str text);

/* Out of touch: says what is waited for, once for each thing. Its value is false. */
bool store_wait(struct store *store, const char *text);

/* In touch for the first time, or again: posts an event of this kind. */
void store_on_connect(struct store *store, enum registry_event_kind kind);

/* Room for the name of a key. */
struct store_key {
    char at[128 + 16 + NODE_TEXT_MAX];
};

/* The name of a key: one of the list above, up to the colon, and what stands behind it. */
struct str store_name(const struct store *store, const char *what, const char *of,
                      struct store_key *room);

/* Each of these is false if Redis did not do it; then the node is out of touch. */

/* Appends a command to the pipeline. */
bool store_send(struct store *store, const struct str *words);

/* The same for a command with one argument, or with two. */
bool store_send_one(struct store *store, struct str command, struct str name);
bool store_send_two(struct store *store, struct str command, struct str name, struct str value);

/* Appends a SET of a key that expires after `ttl` milliseconds; with `once` only if it is not
 * there, or else the reply is nil. */
bool store_send_set(struct store *store, struct str name, struct str value, const char *ttl,
                    bool once);

/* Takes the next reply, which is no refusal. */
bool store_next(struct store *store, struct redis_reply *reply);

/* Takes `count` replies, of which the last is kept. */
bool store_skip(struct store *store, size_t count, struct redis_reply *reply);

/* A pipeline of one command. */
bool store_call(struct store *store, struct redis_reply *reply, const struct str *words);

/* Sets a key unless it is there, and gets it. */
bool store_set_once(struct store *store, struct redis_reply *reply, struct str name,
                    struct str value, const char *ttl);

#endif

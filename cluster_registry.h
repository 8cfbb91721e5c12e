/* cluster_registry.h - what the nodes of a cluster know together, in Redis: which nodes live, the
 * accounts, and for each node its presence records: who is in which group there, so that its death
 * can be told.
 *
 * A thread of its own does the waiting. Each round of it begins with the heartbeat, if that is due;
 * everything else is done in pieces between two of them. No record is written or removed unless the
 * last heartbeat was good and younger than node_ttl / 3 at the start of its piece (a node that
 * stood still first finds out whether it was taken for dead). Refuses: to join beside a living node
 * of the same name, beside nodes of another crypto_key, of another exchange, or of a version that
 * names none. */
#ifndef WSPUSH_CLUSTER_REGISTRY_H
#define WSPUSH_CLUSTER_REGISTRY_H

#include "account.h"
#include "cluster_wire.h"
#include "config.h"
#include "mailbox.h"

#define REGISTRY_OPS_MAX 256     /* written in one pipeline */
#define REGISTRY_REMOVED_MAX 100 /* records of a dead node removed in one transaction */

struct registry;

struct registry_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct node_id self; /* without its incarnation */
    int wake;
};

enum registry_event_kind {
    REGISTRY_WAITING,  /* not joined yet, or out of touch: `text` says why and what helps */
    REGISTRY_CONFLICT, /* a living node has this one's name: `text` says which */
    REGISTRY_JOINED,   /* `self` has its incarnation now */
    REGISTRY_BACK,     /* in touch again: records may be gone */
    REGISTRY_REVIVED,  /* this node was taken for dead: some or all of its records were removed and
                          told by another, which has ended doing so */
    REGISTRY_NODES,    /* `nodes`; also when nothing has changed, with each heartbeat */
    REGISTRY_FOUND,    /* the answer to a look-up: `id`, `text` the system, `found` */
    REGISTRY_WRITTEN,  /* `results` of operations on records */
    REGISTRY_REMOVED   /* `records` of the dead node `self` are gone: this node is to tell that, and
                          to call registry_go_on when it has; `count` 0: all are */
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
    REGISTRY_NOT_DONE   /* it was not tried */
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
    struct str text;
    size_t count; /* of what follows */
    const struct registry_node *nodes;
    const struct registry_result *results;
    const struct str *records;
};

/* Starts the thread, which joins the cluster as soon as it can. NULL without memory or thread. */
struct registry *registry_open(const struct registry_options *options);

/* The accounts in Redis, for a worker thread: it has a connection of its own. */
const struct account_store *registry_accounts(struct registry *registry);

/* Takes all events as a list of struct registry_event; each is the caller's to free. */
struct registry_event *registry_take(struct registry *registry);

/* Asks whether a system is registered. False without memory. */
bool registry_look_up(struct registry *registry, uint64_t id, struct str system);

/* Writes this node's record `name`, or with an empty text removes it. WRITTEN follows with the id.
 * False without memory. */
bool registry_write(struct registry *registry, uint64_t id, struct str name, struct str text);

/* Removes all records of this node; nobody is told. */
void registry_clear(struct registry *registry);

/* Begins to remove the records of a dead node, unless another node does; REMOVED follows for as
 * long as there are records. Call it each time the node is listed as dead. */
void registry_bury(struct registry *registry, const struct node_id *dead);

/* What REMOVED told of has been told: goes on, or ends. */
void registry_go_on(struct registry *registry, const struct node_id *dead);

struct registry_stats {
    int64_t
        beat_at; /* when the last good heartbeat was, milliseconds of the steady clock; 0: never */
};

void registry_read_stats(struct registry *registry, struct registry_stats *stats);

/* Ends the thread, within a second or two. `clean`: all records were removed and told, so the node
 * leaves no trace; else the others find it dead. Frees everything; NULL is allowed. */
void registry_close(struct registry *registry, bool clean);

#endif

/* registry.h - what the nodes of a cluster know together, in Redis: which nodes live, the accounts,
 * and for each node a note of who is in which group there, so that its death can be told.
 *
 * A thread of its own does the waiting. It is given jobs and leaves events, and writes to the wake
 * descriptor when there is one.
 * Refuses: to join beside a living node of the same name, or beside nodes of another crypto_key. */
#ifndef WSPUSH_REGISTRY_H
#define WSPUSH_REGISTRY_H

#include "account.h"
#include "config.h"
#include "crypto.h"
#include "identity.h"
#include "mailbox.h"

struct registry;

struct registry_options {
    const struct config *config;
    const struct crypto_keys *keys;
    struct identity self; /* without its start */
    int wake;
};

enum registry_event_kind {
    REGISTRY_WAITING, /* not joined yet, or out of touch: `text` says why and what helps */
    REGISTRY_CLASH,   /* a living node has this one's name: `text` says which */
    REGISTRY_JOINED,  /* `self` has its start now */
    REGISTRY_BACK,    /* in touch again: what had been noted may be gone */
    REGISTRY_REVIVED, /* this node was taken for dead, and its clients' groups were told so */
    REGISTRY_NODES,   /* `nodes` */
    REGISTRY_KNOWN,   /* the answer to a look-up: `ticket`, `text` the system, `known` */
    REGISTRY_MOURN    /* `text` was noted by a node that is dead now: it is for this one to tell */
};

enum registry_known { REGISTRY_YES, REGISTRY_NO, REGISTRY_UNREACHABLE };

/* A node that has joined and not left; it is dead if it is not alive. */
struct registry_node {
    struct identity identity;
    bool alive;
};

struct registry_event {
    struct mail mail;
    enum registry_event_kind kind;
    struct identity self;
    uint64_t ticket;
    enum registry_known known;
    struct str text;
    size_t count; /* of `nodes` */
    const struct registry_node *nodes;
};

/* Starts the thread, which joins the cluster as soon as it can. NULL without memory or thread. */
struct registry *registry_open(const struct registry_options *options);

/* The accounts in Redis, for a worker thread: it has a connection of its own. */
const struct account_store *registry_accounts(struct registry *registry);

/* Takes all events as a list of struct registry_event; each is the caller's to free. */
struct registry_event *registry_take(struct registry *registry);

/* Asks whether a system is registered. False without memory. */
bool registry_look_up(struct registry *registry, uint64_t ticket, struct str system);

/* Notes `text` under `name`, or with an empty text removes the note. */
void registry_note(struct registry *registry, struct str name, struct str text);

/* Removes all notes of this node. */
void registry_forget(struct registry *registry);

/* Has the notes of a dead node told by whichever node comes first: see REGISTRY_MOURN. */
void registry_bury(struct registry *registry, const struct identity *dead);

/* Ends the thread. `clean`: all that was noted has been told, so the node leaves no trace; else the
 * others find it dead. Frees everything; NULL is allowed. */
void registry_close(struct registry *registry, bool clean);

#endif

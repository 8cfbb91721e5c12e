/* cluster_registry.h - what the nodes of a cluster know together, in Redis: which nodes live, the
 * accounts, and for each node its presence records: who is in which group there, so that its death
 * can be told.
 *
 * A thread of its own does the waiting. Each round of it begins with the heartbeat, if that is due;
 * everything else is done in pieces between two of them. No record is written or removed unless the
 * last heartbeat was good and younger than node_ttl / 3 at the start of its piece (a node that
 * stood still first finds out whether it was taken for dead).
 *
 * Refuses: to join beside a living node of the same name, beside nodes of another crypto_key, of
 * another exchange or vhost, or of a version that this one does not understand. */
#ifndef WSPUSH_CLUSTER_REGISTRY_H
#define WSPUSH_CLUSTER_REGISTRY_H

#include "account.h"
#include "cluster_store.h"
#include "cluster_wire.h"
#include "config.h"

#define REGISTRY_OPS_MAX 256 /* written in one pipeline */

struct registry;

struct registry_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct node_id self; /* without its incarnation */
    int wake;
};

/* Starts the thread, which joins the cluster as soon as it can. NULL without memory or thread. */
struct registry *registry_open(const struct registry_options *options);

/* The accounts in Redis, for a worker thread: it has a connection of its own. */
const struct account_store *registry_accounts(struct registry *registry);

/* Takes all events (cluster_store.h has them) as a list; each is the caller's to free. */
struct registry_event *registry_take(struct registry *registry);

/* Asks whether a system is registered. False without memory. */
bool registry_look_up(struct registry *registry, uint64_t id, struct str system);

/* Writes this node's record `name`, or with an empty text removes it. WRITTEN follows with the id.
 * False without memory. */
bool registry_write(struct registry *registry, uint64_t id, struct str name, struct str text);

/* Removes all records of this node; nobody is told. */
void registry_clear(struct registry *registry);

/* Begins to remove the records of a dead node, unless another node does; REMOVED follows for as
 * long as there are records. It ends without a word if the node comes back, or Redis loses the
 * lease; so call it each time the node is listed as dead. */
void registry_clean_up(struct registry *registry, const struct node_id *dead);

/* What REMOVED told of has been told: goes on, or ends. */
void registry_continue(struct registry *registry, const struct node_id *dead);

struct registry_stats {
    int64_t beat_at; /* the last good heartbeat, milliseconds of the steady clock; 0: none */
};

void registry_read_stats(struct registry *registry, struct registry_stats *stats);

/* Ends the thread, within a second or two. `clean`: all records were removed and told, so the node
 * leaves no trace; else the others find it dead. Frees everything; NULL is allowed. */
void registry_close(struct registry *registry, bool clean);

#endif

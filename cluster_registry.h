/* cluster_registry.h - what nodes know together, in Redis: which nodes live, the accounts, and each
 * node's presence records (which client is in which group there), so that the leaves of a dead node
 * can be published.
 *
 * Its own thread does all waiting. Each round begins with the heartbeat if it is due; the rest is
 * done in pieces between two heartbeats. A record is written or removed only while the last
 * heartbeat was good and is younger than node_ttl / 3: a node that stood still first finds out
 * whether it was presumed dead.
 *
 * Rejects: joining beside a live node of the same name, or beside nodes of another crypto_key, of
 * another exchange, vhost or queue type, or of a version that this one does not understand. */
#ifndef WSPUSH_CLUSTER_REGISTRY_H
#define WSPUSH_CLUSTER_REGISTRY_H

#include "account.h"
#include "cluster_store.h"
#include "cluster_wire.h"
#include "config.h"

#define REGISTRY_OPS_MAX 256 /* in one pipeline */

struct registry;

struct registry_options {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct node_id self; /* without its incarnation */
    int wake;
};

/* Starts the thread, which joins as soon as it can. NULL without memory or thread. */
struct registry *registry_open(const struct registry_options *options);

/* The accounts in Redis, over a connection of their own, for a thread that may wait. */
const struct account_store *registry_accounts(struct registry *registry);

/* Takes all events (cluster_store.h) as a list, oldest first; the caller frees each. */
struct registry_event *registry_take(struct registry *registry);

/* Asks whether a system is registered: FOUND follows. False without memory. */
bool registry_look_up(struct registry *registry, uint64_t id, struct str system);

/* Writes this node's record `name`; an empty text removes it. WRITTEN follows with the id. False
 * without memory. */
bool registry_write(struct registry *registry, uint64_t id, struct str name, struct str text);

/* Removes all records of this node; nothing is published. */
void registry_clear(struct registry *registry);

/* Begins to remove a dead node's records, unless another node does it. REMOVED follows while there
 * are records. The cleanup ends in silence if the node comes back or Redis loses the lease, so call
 * it each time the node is listed as dead. */
void registry_clean_up(struct registry *registry, const struct node_id *dead);

/* Call when all leaves of the last REMOVED are published: the cleanup continues, or ends. */
void registry_continue(struct registry *registry, const struct node_id *dead);

struct registry_stats {
    int64_t beat_at; /* the last good heartbeat, os_now_ms; 0: none */
};

void registry_read_stats(struct registry *registry, struct registry_stats *stats);

/* Ends the thread within a second or two, and frees everything; NULL is allowed. `clean`: all
 * records were removed and published, so the node leaves no trace. Else the others find it dead. */
void registry_close(struct registry *registry, bool clean);

#endif

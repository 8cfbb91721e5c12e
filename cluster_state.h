/* cluster_state.h - the state of a cluster's node, and the primitives that routing and presence are
 * made of: send, publish, keep slots bound, begin and finish a request. It decides nothing.
 *
 * Only the loop's thread calls it; the threads of bus and registry leave events. */
#ifndef WSPUSH_CLUSTER_STATE_H
#define WSPUSH_CLUSTER_STATE_H

#include "cluster_bus.h"
#include "cluster_link.h"
#include "cluster_order.h"
#include "cluster_pending.h"
#include "cluster_registry.h"
#include "config.h"
#include "conn.h"
#include "hub.h"
#include "log.h"

#define STATE_REASON_MAX 500

enum cluster_phase {
    CLUSTER_JOINING, /* not registered yet */
    CLUSTER_LINKING, /* registered; links and RabbitMQ are not up yet */
    CLUSTER_SERVING, /* takes commands and clients */
    CLUSTER_FAILED   /* can never serve: see fatal_error */
};

struct state_slot {
    uint32_t channels;                     /* with members on this node */
    uint32_t version;                      /* of the last bus_bind */
    uint32_t keepers;                      /* pending requests that need it bound */
    bool wanted;                           /* bus_bind was asked to bind it */
    bool bound;                            /* RabbitMQ has the binding */
    bool changed;                          /* in cluster->changed */
    struct pending *waiters, *last_waiter; /* until it is bound, oldest first */
};

#define STATE_MOVED_MAX 256

/* A client that has come from another node, and the key that it came with. */
struct state_moved {
    uint64_t key, number;
};

/* See cluster_farewell.c. */
struct state_farewells {
    struct fifo open, told;
    size_t bytes;
};

struct state_counters {
    uint64_t links, redis_reconnects, bus_connects;
    uint64_t late;            /* requests dropped for their age */
    uint64_t notices_dropped; /* refused by the bus, or lost without memory */
    size_t slots_unbound;     /* wanted and not bound */
};

struct presence_work;  /* see cluster_presence.c */
struct receipt_counts; /* see cluster_receipt.c */
struct adoption;       /* see cluster_adopt.c */

struct cluster {
    const struct config *config;
    const struct log *log;
    struct crypto_keyring keyring; /* a copy, with the keys of a cluster */
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct conn_shared *shared; /* the loop's, for its budget */
    int wake;

    struct links *links;
    struct registry *registry;
    struct bus *bus; /* NULL before the node has joined */
    struct node_id self;
    struct node_tag tag;
    char text[NODE_TEXT_MAX]; /* of `self` */
    char name[200];           /* of the cluster: Redis prefix and db */
    struct hub_hooks hooks;
    int64_t now;

    int64_t opened_at, status_at; /* status_at: the next status is due */
    enum cluster_phase phase;
    char fatal_error[STATE_REASON_MAX];
    int64_t joined_at;

    bool redis_up;                       /* the last heartbeat was good */
    char redis_reason[STATE_REASON_MAX]; /* why not, or what joining waits for */
    bool listed;                         /* the registry has listed all nodes once */
    uint64_t newest;                     /* largest incarnation ever known, of any node */
    int64_t trust_at;                    /* from then on the registry's deaths are believed */
    int64_t announce_by;                 /* presumed dead: announce when linked, or then; 0: now */

    bool bus_up, bus_tried, bus_slow;
    char bus_reason[STATE_REASON_MAX];
    int64_t bus_since;      /* when it last connected or disconnected */
    int64_t catch_up_until; /* after a standstill: until then links wait for RabbitMQ's backlog */
    struct fifo events;     /* struct bus_event: taken from the bus, not handled yet */

    uint64_t sent[WIRE_PARTITIONS];   /* id of the last send published there */
    uint64_t echoed[WIRE_PARTITIONS]; /* id of the last send that came back or failed */
    struct order_senders sender_seqs;

    struct state_slot slots[WIRE_SLOTS];
    uint16_t changed[WIRE_SLOTS]; /* slots whose channels came or went in this iteration */
    size_t changed_count;

    struct pending_table pendings;
    struct pending_list requests;                   /* all but those below */
    struct pending_list held_back[WIRE_PARTITIONS]; /* commands that wait for sends before them */
    struct fifo results;                            /* struct pending, for sessions of this node */

    struct table systems; /* known to be registered */
    uint32_t seed;
    struct accounts *accounts; /* of the store that the nodes share; NULL at first */
    /* of cluster_change.c: */
    struct fifo changes;
    struct fifo ends;   /* of nodes, that webhooks are told */
    uint64_t ends_told; /* Redis's clock then */
    size_t change_count;
    uint64_t deleted_at; /* the newest request when a system was deleted last */

    struct presence_work *presence;
    struct receipt_counts *receipts;
    struct adoption *adoptions;                /* a list */
    struct state_moved moved[STATE_MOVED_MAX]; /* a ring: those that came last */
    size_t moved_next;
    size_t holding; /* of them: have a client that is held */
    struct state_farewells farewells;
    struct state_counters counters;
    struct buf decoded, written; /* scratch: the message being read, and being written */
};

/* Sets a failure. `error` is static. */
void state_fail(struct result *result, enum result_code code, const char *error);

/* rpc_timeout: milliseconds within which every request is answered. */
int64_t state_timeout(const struct cluster *cluster);

/* --- what can be done now */

/* Why nothing can be published now, or NULL. The text is static. */
const char *state_publishing_reason(const struct cluster *cluster);

/* True if all live nodes are known: a client on none of them is offline. */
bool state_knows_all(const struct cluster *cluster);

/* True if every live node is linked. */
bool state_is_linked(const struct cluster *cluster);

/* True if a live node has had no link for node_ttl: a frozen or just killed node has none either,
 * and must not make the others unready. */
bool state_lacks_link(const struct cluster *cluster);

/* Call when a node becomes known: keeps the largest incarnation. */
void state_track_incarnation(struct cluster *cluster, const struct node_id *node);

/* --- hooks of the hub: the ids of this node's clients */

bool state_seal_id(void *cluster, uint64_t number, char id[HUB_ID_TEXT]);
bool state_open_id(void *cluster, struct json_value id, uint64_t *number);

/* --- messages */

/* Sends a message over the link. False if the node is out of reach. */
bool state_send(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg);

/* Replies to a request of another node; without a link the reply is lost. To this node itself:
 * takes the reply at once. */
void state_reply(struct cluster *cluster, const struct pending_origin *origin,
                 const struct result *result);

/* Publishes a message to the nodes that have bound `slot`, or to node `to` alone. False if too much
 * waits for RabbitMQ already. */
bool state_publish(struct cluster *cluster, const struct cluster_msg *msg, enum wire_lane lane,
                   uint16_t slot, const struct node_id *to);

/* The slot of the channel that a send goes to. */
uint16_t state_slot_of(const struct command *command);

/* --- slots */

/* Hook of the hub: counts the channels of a slot. */
void state_change_channel(void *cluster, enum channel_kind kind, struct str system, struct str name,
                          bool exists);

/* Binds and unbinds the slots whose channels came or went. Call at the end of an iteration. */
void state_follow_slots(struct cluster *cluster);

/* Has a slot bound, and kept bound until the request is freed. */
void state_need_slot(struct cluster *cluster, struct pending *pending, uint16_t slot);

/* True if all slots of a request are bound; else it waits for the next one. Call once all are
 * named, and each time that the request is among those that state_take_bound returns. */
bool state_await_slots(struct cluster *cluster, struct pending *pending);

/* RabbitMQ has bound a slot. Returns the requests that waited for it, linked by `next_waiter`; NULL
 * also if the slot was asked for again since. */
struct pending *state_take_bound(struct cluster *cluster, uint16_t slot, uint32_t version);

/* Unbinds a slot without channels and keepers. */
void state_drop_slot(struct cluster *cluster, uint16_t slot);

/* --- systems known to be registered: they stay so until MSG_ACCOUNT says otherwise */

bool state_knows_system(const struct cluster *cluster, struct str system);

/* Without memory the system is looked up again the next time. */
void state_add_system(struct cluster *cluster, struct str system);

void state_forget_system(struct cluster *cluster, struct str system);
void state_forget_systems(struct cluster *cluster);

/* --- requests in flight */

/* Begins a request for a command. NULL without memory, with the failure in `result`. */
struct pending *state_begin(struct cluster *cluster, enum pending_kind kind,
                            const struct command *command, bool receipt,
                            const struct pending_origin *origin, struct result *result);

/* The same, and keeps the command as a message, to apply it later. */
struct pending *state_keep(struct cluster *cluster, enum pending_kind kind,
                           const struct command *command, bool receipt,
                           const struct pending_origin *origin, struct result *result);

/* Frees a request that has just begun; nobody is told. */
void state_abandon(struct cluster *cluster, struct pending *pending);

/* The same, with a static `error` in `result`. Returns true: the result is there. */
bool state_reject(struct cluster *cluster, struct pending *pending, struct result *result,
                  const char *error);

/* Ends a request: replies to its origin node, or queues the result for its session. */
void state_finish(struct cluster *cluster, struct pending *pending);

void state_finish_if_done(struct cluster *cluster, struct pending *pending);

/* Frees a request that is in no list, and releases its slots. */
void state_free(struct cluster *cluster, struct pending *pending);

#endif

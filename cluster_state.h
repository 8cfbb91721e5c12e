/* cluster_state.h - what a node of a cluster is, and the primitives that routing and presence are
 * made of: send a message, publish, keep slots bound, begin and finish a request. Decides nothing.
 *
 * Only the loop's thread is here; the bus and the registry have threads of their own, and leave
 * events. */
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
    CLUSTER_JOINING, /* not in the registry yet */
    CLUSTER_LINKING, /* in it; the links, or RabbitMQ, have not been tried yet */
    CLUSTER_SERVING, /* commands and clients are taken */
    CLUSTER_FAILED   /* it can never serve: see fatal_error */
};

struct state_slot {
    uint32_t channels;                     /* that have members here */
    uint32_t version;                      /* of the last thing asked of the bus */
    uint32_t keepers;                      /* pending requests that keep it bound */
    bool wanted;                           /* asked to be bound */
    bool bound;                            /* RabbitMQ has the binding */
    bool changed;                          /* on the list of those to be looked at */
    struct pending *waiters, *last_waiter; /* that wait until it is bound, oldest first */
};

struct state_counters {
    uint64_t links, redis_reconnects, bus_connects;
    uint64_t late;            /* requests that were dropped for their age */
    uint64_t notices_dropped; /* and other presence that was lost for want of memory */
    size_t slots_unbound;     /* wanted and not bound */
};

struct presence_work;  /* see cluster_presence.c */
struct receipt_counts; /* see cluster_receipt.c */

struct cluster {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct conn_shared *shared; /* the loop's: its budget */
    int wake;

    struct links *links;
    struct registry *registry;
    struct bus *bus; /* from when the node has joined */
    struct node_id self;
    struct node_tag tag;
    char text[NODE_TEXT_MAX]; /* of `self` */
    char name[200];           /* the cluster's: Redis prefix and db */
    struct hub_hooks hooks;
    int64_t now;

    int64_t opened_at, status_at; /* when it was opened; when the next status is due */
    enum cluster_phase phase;
    char fatal_error[STATE_REASON_MAX];
    int64_t joined_at;

    bool redis_up;                       /* the last heartbeat was good */
    char redis_reason[STATE_REASON_MAX]; /* why not, or what joining waits for */
    bool listed;                         /* all nodes have been listed once */
    uint64_t newest;     /* incarnation of the node that joined last, of all that were ever known */
    int64_t trust_at;    /* from when on the registry is believed that a node is dead */
    int64_t announce_by; /* this node was taken for dead: its clients are announced once it is
                            linked, or then; 0: now */

    bool bus_up, bus_tried, bus_slow;
    char bus_reason[STATE_REASON_MAX];
    int64_t bus_since; /* when it last came up or went down */
    int64_t
        catch_up_until; /* after a standstill: the links wait for what RabbitMQ has sent before */
    struct bus_event *events, *last_event; /* taken from the bus, not dealt with yet */

    uint64_t sent[WIRE_PARTITIONS];   /* number of the last send published there, and */
    uint64_t echoed[WIRE_PARTITIONS]; /* of the last one that came back or failed */
    struct order_senders sender_seqs;

    struct state_slot slots[WIRE_SLOTS];
    uint16_t changed[WIRE_SLOTS]; /* slots whose channels came or went */
    size_t changed_count;

    struct pending_table pendings;
    struct pending_list requests;                   /* all but: */
    struct pending_list held_back[WIRE_PARTITIONS]; /* those that wait for sends */
    struct pending_list results;                    /* finished, for sessions of this node */

    struct table systems; /* known to be registered */
    uint32_t seed;

    struct presence_work *presence;
    struct receipt_counts *receipts;
    struct state_counters counters;
    struct buf decoded, written; /* scratch: of the message being read, and being written */
};

/* The result becomes a failure. `error` is static. */
void state_fail(struct result *result, enum result_code code, const char *error);

/* Milliseconds after which an answer is given in any case. */
int64_t state_timeout(const struct cluster *cluster);

/* --- what can be done now */

/* Why nothing can be published now, or NULL. */
const char *state_publishing_reason(const struct cluster *cluster);

/* True if all nodes that live are known: a client of none of them is not online. */
bool state_knows_all(const struct cluster *cluster);

/* Another node, or this one, is known now. */
void state_track_incarnation(struct cluster *cluster, const struct node_id *node);

/* --- the ids of clients of this node: hooks of the hub */

bool state_seal_id(void *cluster, uint64_t number, char id[CRYPTO_ID_TEXT]);
bool state_open_id(void *cluster, struct json_value id, uint64_t *number);

/* --- messages */

/* Sends a message over the link to a node; false if it is out of reach. */
bool state_send(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg);

/* Replies to a request of another node; without a link it is lost. */
void state_reply(struct cluster *cluster, const struct pending_origin *origin,
                 const struct result *result);

/* Publishes a message to the nodes that have bound `slot`, or to the node `to` alone. False if too
 * much waits for RabbitMQ already. */
bool state_publish(struct cluster *cluster, const struct cluster_msg *msg, enum wire_lane lane,
                   uint16_t slot, const struct node_id *to);

/* The slot of the channel that a send is for. */
uint16_t state_slot_of(const struct command *command);

/* --- slots */

/* A hub's hook: counts the channels of a slot. */
void state_change_channel(void *cluster, enum channel_kind kind, struct str system,
                          struct str name, bool exists);

/* Binds and unbinds the slots whose channels came or went. */
void state_follow_slots(struct cluster *cluster);

/* The pending request needs this slot: it is bound, or will be, and stays so until the request is
 * freed. */
void state_need_slot(struct cluster *cluster, struct pending *pending, uint16_t slot);

bool state_has_slots(const struct cluster *cluster, const struct pending *pending);

/* RabbitMQ has bound a slot. Returns those that waited for it, as a list by the member of
 * slot_next that state_waiter_after follows; NULL too if something else has been asked for since.
 */
struct pending *state_take_bound(struct cluster *cluster, uint16_t slot, uint32_t version);

struct pending *state_waiter_after(const struct pending *pending, uint16_t slot);

/* Unbinds a slot that has no member and no pending request. */
void state_drop_slot(struct cluster *cluster, uint16_t slot);

/* --- systems that are known to be registered: once registered they stay so */

bool state_knows_system(const struct cluster *cluster, struct str system);

/* Without memory it is asked for again the next time. */
void state_add_system(struct cluster *cluster, struct str system);

void state_forget_systems(struct cluster *cluster);

/* --- requests in flight */

/* Begins one for a command. NULL, with the result set, without memory. */
struct pending *state_begin(struct cluster *cluster, enum pending_kind kind,
                            const struct command *command, bool receipt,
                            const struct pending_origin *origin, struct result *result);

/* Gives up one that has just begun. */
void state_abandon(struct cluster *cluster, struct pending *pending);

/* The same, and the result says why; `error` is static. Its value is true: the result is there.
 */
bool state_reject(struct cluster *cluster, struct pending *pending, struct result *result,
                  const char *error);

/* Nothing is waited for any more, or not longer: the origin is told. */
void state_finish(struct cluster *cluster, struct pending *pending);

void state_finish_if_done(struct cluster *cluster, struct pending *pending);

/* Frees one that is in no list, and lets its slots go. */
void state_free(struct cluster *cluster, struct pending *pending);

#endif

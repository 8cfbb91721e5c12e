/* cluster_pending.h - requests in flight: who waits for the result of a command, what has been
 * collected of it, and which nodes have still to reply. Knows no socket and does nothing itself. */
#ifndef WSPUSH_CLUSTER_PENDING_H
#define WSPUSH_CLUSTER_PENDING_H

#include "cluster_wire.h"
#include "table.h"

/* Another node that has to reply. */
struct pending_reply {
    struct node_id node;
    bool done;
    uint64_t after_send; /* the request went through RabbitMQ, behind this send of ours; 0: over the
                            link */
    struct buf list;     /* what the node replied: as in an result */
};

enum pending_kind {
    PENDING_COMMAND,   /* nodes have to reply, or a send has to come back */
    PENDING_BIND,      /* slots have to be bound before the command is applied here */
    PENDING_HELD_BACK, /* sends before it have to come back before the command is applied here */
    PENDING_COUNT,     /* a node asks for the count of a send that has not come yet */
    PENDING_ADMIT /* a system has to be found, and its slot bound, before its client is let in */
};

/* Who waits: a session of this node, or another node. */
struct pending_origin {
    bool is_node;
    uint64_t id;         /* the session's, or the request's at that node */
    struct node_id node; /* if is_node */
    int64_t expires;     /* it waits until then on our clock; 0: as long as all do */
};

#define PENDING_SLOTS_MAX 2

struct pending {
    struct pending *next, *previous; /* in its list, older first */
    enum pending_kind kind;
    uint64_t id;
    int64_t deadline;
    struct pending_origin origin;

    /* what for */
    struct buf text;       /* BIND, HELD: the message; COMMAND: clientIds as they were given */
    struct buf message_id; /* JSON */
    struct str system;     /* ADMIT: a view of `text` */
    enum command_kind command;
    bool receipt;
    unsigned partition;                /* of the system */
    uint64_t send_id;                  /* HELD: waits for this send of ours; COUNT: the asker's */
    uint16_t slots[PENDING_SLOTS_MAX]; /* BIND, ADMIT: kept bound until it is freed */
    struct pending *slot_next[PENDING_SLOTS_MAX]; /* others that wait for the same slot */
    unsigned slot_count;

    /* how far it has come */
    bool looking_up;   /* ADMIT: Redis has not said yet whether the system is registered */
    bool echo_missing; /* the send has not come back yet */
    bool incomplete;   /* somebody stayed silent */
    struct result result;
    char error[200];               /* what result.error points to, if another node said it */
    struct pending_reply *replies; /* replies[0] is this node if `owners` is set */
    size_t reply_count, replies_missing;
    uint32_t *owners; /* send_to_clients: for each id the part it went to */
    size_t owner_count;
};

/* A list in the order of deadlines. Zeroed is empty. */
struct pending_list {
    struct pending *first, *last;
    size_t count;
};

/* All that is in flight, in whichever list, by number. Zeroed is empty. */
struct pending_table {
    struct table by_id;
    uint64_t last_id; /* numbers grow: the larger of two began later */
};

/* A new one with a number of its own, in its place in a list; NULL without memory. */
struct pending *pending_new(struct pending_table *table, struct pending_list *list,
                            enum pending_kind kind, int64_t deadline);

/* The one of this number, or NULL. */
struct pending *pending_find(const struct pending_table *table, uint64_t id);

/* Takes one out of its list and the table; it is the caller's now. */
void pending_unlink(struct pending_table *table, struct pending_list *list,
                    struct pending *pending);

/* Frees one that is in no list, and all that it has. */
void pending_free(struct pending *pending);

/* Adds a part that is not done. NULL without memory. */
struct pending_reply *pending_expect(struct pending *pending, const struct node_id *node);

/* The part of this node that is not done yet, or NULL. */
struct pending_reply *pending_expected(const struct pending *pending, const struct node_id *node);

/* Adds what a part's node replied: counts, and its list for later. The part is done. */
void pending_take_reply(struct pending *pending, struct pending_reply *reply,
                        const struct cluster_msg *msg);

/* A node has not replied, and will not: what is collected is incomplete, or for a command that was
 * for it alone, the result is that it cannot be reached. */
void pending_give_up(struct pending *pending, struct pending_reply *reply);

/* send_to_clients: the same, and all ids of the part have failed. */
void pending_fail_ids(struct pending *pending, size_t index);

/* send_to_clients: appends the ids of one part as an array. */
bool pending_write_ids(const struct pending *pending, struct str clients, size_t index,
                       struct buf *out);

/* The result becomes that something cannot be reached. `error` is static. */
void pending_fail(struct pending *pending, const char *error);

/* The result becomes this failure. `error` is copied, cut to the room there is. */
void pending_set_error(struct pending *pending, enum result_code code, struct str error);

/* True if nothing is waited for any more. */
bool pending_is_done(const struct pending *pending);

/* Puts the lists of all replies together into the result's. */
void pending_merge(struct pending *pending);

#endif

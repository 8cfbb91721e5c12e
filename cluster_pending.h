/* cluster_pending.h - requests in flight: the origin of each, what has been collected, and which
 * nodes have still to reply. It has no sockets and starts nothing. */
#ifndef WSPUSH_CLUSTER_PENDING_H
#define WSPUSH_CLUSTER_PENDING_H

#include "cluster_wire.h"
#include "table.h"
#include "ticket.h"

/* A reply that another node owes, or has given. */
struct pending_reply {
    struct node_id node;
    bool done;
    uint64_t after_send; /* asked through RabbitMQ, behind this send; 0: over the link */
    struct buf list;     /* of the reply, as in a result */
};

enum pending_kind {
    PENDING_COMMAND,   /* waits for replies, or for the echo of a send */
    PENDING_BIND,      /* waits for slots; then the command is applied here */
    PENDING_HELD_BACK, /* waits for echoes of earlier sends; then the command is applied here */
    PENDING_COUNT,     /* a node asks for the count of a send that has not come yet */
    PENDING_WALK,      /* waits for a walk here, see roster.h */
    PENDING_ADMIT,     /* waits for Redis to find a system, then for slots */
    PENDING_ADOPT      /* takes a session over: see cluster_adopt.h */
};

/* The origin of a request: a session of this node, or another node. */
struct pending_origin {
    bool is_node;
    uint64_t id;         /* the session's request_id, or the request's id at that node */
    struct node_id node; /* if is_node */
    int64_t expires;     /* it waits until then, on this node's clock; 0: rpc_timeout */
};

#define PENDING_SLOTS_MAX (2 + TICKET_GROUPS_MAX)

struct pending {
    struct fifo_link fifo;           /* in cluster->results */
    struct pending *next, *previous; /* in its list, earlier deadlines first */
    enum pending_kind kind;
    uint64_t id;
    int64_t deadline;
    struct pending_origin origin;

    /* what it is for */
    struct buf text;       /* BIND, HELD_BACK, COMMAND of roster.h: the message; other COMMAND:
                              clientIds as given; ADMIT, ADOPT: what `claims` are views of */
    struct buf message_id; /* JSON */
    struct ticket_claims claims; /* ADMIT, ADOPT */
    struct adoption *adoption;   /* ADOPT; NULL once the result is there */
    enum command_kind command;
    bool receipt;
    unsigned partition;               /* of the system */
    uint64_t send_id;                 /* HELD_BACK: waits for this send; COUNT: the origin's send */
    uint16_t *slots;                  /* BIND, ADMIT, ADOPT: kept bound until it is freed */
    uint16_t room[PENDING_SLOTS_MAX]; /* for them, unless ADOPT has more */
    unsigned slot_count, slots_bound; /* it waits for the first of them that is not bound */
    struct pending *next_waiter;      /* of the same slot */

    /* what is missing */
    bool looking_up;   /* ADMIT: Redis's answer */
    bool echo_missing; /* the send's echo */
    bool incomplete;   /* a node stayed silent */
    struct result result;
    char error[200];               /* copy of another node's error, for result.error */
    struct pending_reply *replies; /* replies[0] is this node's if `owners` is set */
    size_t reply_count, replies_missing;
    uint32_t *owners; /* send_to_clients: for each id the index of its owner's reply */
    size_t owner_count;
};

/* A list in the order of deadlines. Zeroed is empty. */
struct pending_list {
    struct pending *first, *last;
    size_t count;
};

/* All requests in flight, by id. Zeroed is empty. */
struct pending_table {
    struct table by_id;
    uint64_t last_id; /* ids grow: the larger of two began later */
};

/* A new request with an id of its own, in its place in a list; NULL without memory. */
struct pending *pending_new(struct pending_table *table, struct pending_list *list,
                            enum pending_kind kind, int64_t deadline);

/* Gives a request another deadline, and its place in its list. */
void pending_prolong(struct pending_list *list, struct pending *pending, int64_t deadline);

/* The request with this id, or NULL. */
struct pending *pending_find(const struct pending_table *table, uint64_t id);

/* Removes a request from its list and the table; the caller owns it. */
void pending_unlink(struct pending_table *table, struct pending_list *list,
                    struct pending *pending);

/* Frees a request that is in no list. */
void pending_free(struct pending *pending);

/* Expects a reply of a node. NULL without memory. */
struct pending_reply *pending_expect(struct pending *pending, const struct node_id *node);

/* The reply that is expected of a node; NULL if it owes none. */
struct pending_reply *pending_expected(const struct pending *pending, const struct node_id *node);

/* Takes a node's reply: adds its counts, and keeps its list. */
void pending_take_reply(struct pending *pending, struct pending_reply *reply,
                        const struct cluster_msg *msg);

/* A node will not reply: the result is incomplete or, if the command was for that node alone, that
 * it cannot be reached. */
void pending_give_up(struct pending *pending, struct pending_reply *reply);

/* send_to_clients: the same, and all ids of that reply have failed. */
void pending_fail_ids(struct pending *pending, size_t index);

/* send_to_clients: appends the ids that belong to one reply as a JSON array. */
bool pending_write_ids(const struct pending *pending, struct str clients, size_t index,
                       struct buf *out);

/* The result becomes "unreachable". `error` is static. */
void pending_fail(struct pending *pending, const char *error);

/* The result becomes this failure. `error` is copied, cut to the size of its field. */
void pending_set_error(struct pending *pending, enum result_code code, struct str error);

/* True if nothing is missing. */
bool pending_is_done(const struct pending *pending);

/* Joins the lists of all replies into the result's. */
void pending_merge(struct pending *pending);

#endif

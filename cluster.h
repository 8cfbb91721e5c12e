/* cluster.h - makes many hubs look like one. A command is applied here, sent to the node that owns
 * the client, or published to all nodes with members; its result may come later.
 *
 * A node that is alone passes NULL for the cluster: every call goes straight to the hub. In a
 * single-node build the functions are inline and do only that.
 * Rejects: ids of unknown nodes, without trying to reach them; and, at once, what cannot be done
 * now. */
#ifndef WSPUSH_CLUSTER_H
#define WSPUSH_CLUSTER_H

#include "account.h"
#include "config.h"
#include "crypto.h"
#include "hub.h"
#include "log.h"
#include "roster.h"
#include "ticket.h"

#include <poll.h>

struct cluster;

/* Options of cluster_open; all must outlive the cluster. */
struct cluster_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct conn_shared *shared; /* the loop's, for its budget */
    struct str host;            /* where the others find this node: an address or a name */
    unsigned port;
    int listener; /* for the other nodes, listening, non-blocking; owned by the cluster */
    int wake;
};

#define CLUSTER_ECHO_BUCKETS 12 /* of the histogram of echoes; the last bucket has no bound */

/* Gauges and counters of a node. */
struct cluster_stats {
    uint64_t nodes, links, linked; /* other nodes; their links; links that ever came up */
    bool redis_up, rabbitmq_up;
    uint64_t redis_reconnects, rabbitmq_connects;
    uint64_t publishes, confirms, refusals; /* publications: all, come back, failed */
    uint64_t returned;                      /* publications that no order queue took */
    uint64_t foreign;                       /* messages dropped for their MAC or version */
    uint64_t held_back;                     /* commands that wait for sends before them */
    uint64_t late;                          /* requests of nodes dropped for their age */
    uint64_t presence_waiting;              /* presence records and notices under way */
    uint64_t notices_dropped;
    uint64_t slots_unbound; /* wanted, and not bound yet */
    int64_t heartbeat_age;  /* milliseconds since the last good one, or since the start */
    /* microseconds from publishing to the echo */
    const uint32_t *echo_bounds; /* upper bounds of all buckets but the last */
    uint64_t echoes[CLUSTER_ECHO_BUCKETS], echo_sum;
};

enum cluster_status { CLUSTER_DONE, CLUSTER_LATER };

enum cluster_admission {
    CLUSTER_ADMITTED,    /* the system is registered, and all slots are bound */
    CLUSTER_UNKNOWN,     /* the system is not registered */
    CLUSTER_UNREACHABLE, /* Redis or RabbitMQ cannot say now */
    CLUSTER_ADOPTED,     /* it is the client of a number, see hub_resume_client */
    CLUSTER_NOT_ADOPTED, /* it is another client than before: ask again, without its key */
    CLUSTER_ASKED        /* a result with the request_id follows */
};

/* A result that came later. */
struct cluster_result {
    uint64_t request_id;
    bool is_admission;
    enum cluster_admission admission;
    struct ticket_claims claims; /* of an admission */
    uint64_t client;             /* ADOPTED: its number */

    enum command_kind command;
    bool receipt;
    struct str message_id; /* JSON */
    struct result result;
    bool incomplete; /* a node stayed silent: lists and counts lack its part */
};

#ifdef WSPUSH_CLUSTER

/* Opens a node and begins to join. NULL without memory or threads. */
struct cluster *cluster_open(const struct cluster_options *options);

/* The accounts that all nodes share; NULL if the node is alone. */
const struct account_store *cluster_accounts(const struct cluster *cluster);

/* Why the node cannot serve yet, or NULL. Until it can, give it no command. */
const char *cluster_not_ready_reason(const struct cluster *cluster);

/* Why the node can never serve, or NULL: a live node has its name. */
const char *cluster_fatal_error(const struct cluster *cluster);

/* Why some commands are rejected now, or why the node is not ready; NULL if all is well. */
const char *cluster_degraded_reason(const struct cluster *cluster);

struct cluster_stats cluster_stats(const struct cluster *cluster);

/* Call when the configured scope of notices has changed: replaces this node's presence records. */
void cluster_republish(struct cluster *cluster);

/* Applies a command. DONE: `result`, which must be zeroed, is filled in. LATER: a result with
 * `request_id` follows, from roster_take on a node that is alone; what it needs of the command is
 * copied. */
enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                  const struct command *command, bool receipt, uint64_t request_id,
                                  struct result *result);

/* Whether a client may connect, to its system, its user and its groups: to all of them or none. One
 * with the key of a session that is not here (claims->key) is adopted, see cluster_adopt.h. */
enum cluster_admission cluster_admit(struct cluster *cluster, struct accounts *accounts,
                                     const struct ticket_claims *claims, uint64_t request_id);

/* Sets the accounts of cluster_accounts, of which other nodes tell what they change. */
void cluster_use_accounts(struct cluster *cluster, struct accounts *accounts);

/* Call when an account was changed here, in the store: tells the other nodes. If it was deleted,
 * its clients are closed here, too. */
void cluster_change_account(struct cluster *cluster, struct hub *hub, struct str system,
                            bool deleted);

/* Takes the next result, valid until the next call; NULL if there is none. */
const struct cluster_result *cluster_result(struct cluster *cluster);

/* How many entries cluster_poll fills; and fills them. */
size_t cluster_poll_count(const struct cluster *cluster);
void cluster_poll(const struct cluster *cluster, struct pollfd *polls);

/* Does what poll() allows, with the same entries, what threads have left, and what is due at `now`
 * (os_now_ms). Call once an iteration. */
void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now);

/* Tells the other nodes what has changed in the hub, and writes. Call at the end of an iteration.
 */
void cluster_flush(struct cluster *cluster);

/* The time by which cluster_serve must be called; INT64_MAX for never. */
int64_t cluster_deadline(const struct cluster *cluster);

/* True if all records are written and all notices published: the node may stop. */
bool cluster_is_idle(const struct cluster *cluster);

/* Leaves the cluster and frees everything; NULL is allowed. */
void cluster_close(struct cluster *cluster);

#else /* a single-node build */

static inline struct cluster *cluster_open(const struct cluster_options *options)
{
    (void)options;
    return NULL;
}

static inline const struct account_store *cluster_accounts(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

static inline const char *cluster_not_ready_reason(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

static inline const char *cluster_fatal_error(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

static inline const char *cluster_degraded_reason(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

static inline struct cluster_stats cluster_stats(const struct cluster *cluster)
{
    (void)cluster;
    return (struct cluster_stats){0};
}

static inline void cluster_republish(struct cluster *cluster)
{
    (void)cluster;
}

static inline enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                                const struct command *command, bool receipt,
                                                uint64_t request_id, struct result *result)
{
    (void)cluster, (void)receipt;
    return roster_apply(hub, command, request_id, result) ? CLUSTER_DONE : CLUSTER_LATER;
}

static inline enum cluster_admission cluster_admit(struct cluster *cluster,
                                                   struct accounts *accounts,
                                                   const struct ticket_claims *claims,
                                                   uint64_t request_id)
{
    (void)cluster, (void)request_id;
    return account_exists(accounts, claims->system) ? CLUSTER_ADMITTED : CLUSTER_UNKNOWN;
}

static inline void cluster_use_accounts(struct cluster *cluster, struct accounts *accounts)
{
    (void)cluster, (void)accounts;
}

static inline void cluster_change_account(struct cluster *cluster, struct hub *hub,
                                          struct str system, bool deleted)
{
    (void)cluster;
    if (deleted)
        hub_delete_system(hub, system);
}

static inline const struct cluster_result *cluster_result(struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

static inline size_t cluster_poll_count(const struct cluster *cluster)
{
    (void)cluster;
    return 0;
}

static inline void cluster_poll(const struct cluster *cluster, struct pollfd *polls)
{
    (void)cluster, (void)polls;
}

static inline void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now)
{
    (void)cluster, (void)polls, (void)now;
}

static inline void cluster_flush(struct cluster *cluster)
{
    (void)cluster;
}

static inline int64_t cluster_deadline(const struct cluster *cluster)
{
    (void)cluster;
    return INT64_MAX;
}

static inline bool cluster_is_idle(const struct cluster *cluster)
{
    (void)cluster;
    return true;
}

static inline void cluster_close(struct cluster *cluster)
{
    (void)cluster;
}

#endif

#endif

/* cluster.h - makes many hubs look like one. A command is applied here, sent to the node that owns
 * the client, or published to all nodes that have members; what comes of it may come later.
 *
 * On a node that is alone there is no cluster: NULL stands for it in every call, and all of them go
 * straight to the hub. In a single-node build these functions are inline and do only that.
 * Refuses: ids of nodes that are not known, without trying to reach them; and whatever cannot be
 * done now, at once. */
#ifndef WSPUSH_CLUSTER_H
#define WSPUSH_CLUSTER_H

#include "account.h"
#include "command.h"
#include "config.h"
#include "crypto.h"
#include "hub.h"
#include "listener.h"
#include "log.h"

#include <poll.h>
#include <stdio.h>

struct cluster;

/* What a cluster is opened with; all must outlive the cluster. */
struct cluster_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct conn_shared *shared; /* the loop's: the budget of an iteration */
    struct str host;            /* at which the others find this node: an address or a name */
    unsigned port;
    int listener; /* listening for them, non-blocking; owned from now on */
    int wake;
};

#define CLUSTER_ECHO_BUCKETS 12 /* of the histogram of echoes; the last has no bound */

/* What a node of a cluster counts. */
struct cluster_stats {
    uint64_t nodes, links, linked; /* other nodes, links to them, and all links there have been */
    bool redis_up, rabbitmq_up;
    uint64_t redis_reconnects, rabbitmq_connects;
    uint64_t publishes, confirms, refusals; /* publications: all, come back, failed */
    uint64_t returned;                      /* that no order queue took */
    uint64_t foreign;                       /* messages of strangers on the same RabbitMQ */
    uint64_t held_back;                     /* commands that wait for sends before them */
    uint64_t late;                          /* requests of nodes that were dropped for their age */
    uint64_t presence_waiting;              /* records and notices that are not written and told */
    uint64_t notices_dropped;
    uint64_t slots_unbound; /* that RabbitMQ has not bound yet */
    int64_t heartbeat_age;  /* milliseconds since the last good one, or since the start */
    /* how long publications took to come back, in microseconds */
    const uint32_t *echo_bounds; /* upper bounds of all buckets but the last */
    uint64_t echoes[CLUSTER_ECHO_BUCKETS], echo_sum;
};

enum cluster_status { CLUSTER_DONE, CLUSTER_LATER };

enum cluster_admission {
    CLUSTER_ADMITTED,    /* the system is registered, and its clients can be reached */
    CLUSTER_UNKNOWN,     /* it is not registered */
    CLUSTER_UNREACHABLE, /* that cannot be told now */
    CLUSTER_ASKED        /* a result with the request_id will follow */
};

/* What came of something that was to come later. */
struct cluster_result {
    uint64_t request_id;
    bool is_admission;
    enum cluster_admission admission;
    struct str system; /* of an admission */

    enum command_kind command;
    bool receipt;
    struct str message_id; /* JSON */
    struct result result;
    bool incomplete; /* nodes stayed silent: lists and counts lack theirs */
};

#ifdef WSPUSH_CLUSTER

/* Checks what a node must have been told, and sets the default of rpc_port. False: `error`, cut to
 * `room` bytes, says what is missing. */
bool cluster_check_config(struct config *config, char *error, size_t room);

/* The socket for the other nodes, as listener_bind opens it; writes the host they are told. */
int cluster_listen(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1],
                   enum listener_purpose purpose);

/* Opens a cluster's node and begins to join. NULL without memory or threads. */
struct cluster *cluster_open(const struct cluster_options *options);

/* The accounts that all nodes share; NULL on a node that is alone. */
const struct account_store *cluster_accounts(const struct cluster *cluster);

/* Why the node cannot serve yet, or NULL if it can: until then it is given no command. */
const char *cluster_not_ready_reason(const struct cluster *cluster);

/* Why the node can never serve, or NULL: another one has its name. */
const char *cluster_fatal_error(const struct cluster *cluster);

/* Why something that it takes cannot be reached, so that some commands are refused, or that the
 * node cannot serve yet; NULL if all is well. */
const char *cluster_degraded_reason(const struct cluster *cluster);

struct cluster_stats cluster_stats(const struct cluster *cluster);

/* The configured scope of notices has changed: what is recorded of this node's clients is replaced.
 */
void cluster_republish(struct cluster *cluster);

/* Does what a command says. DONE: `result`, which must be zeroed, is filled in. LATER: a result
 * with `request_id` will follow; what it needs of the command has been copied. */
enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                  const struct command *command, bool receipt, uint64_t request_id,
                                  struct result *result);

/* Whether a client of this system may be let in. */
enum cluster_admission cluster_admit(struct cluster *cluster, struct accounts *accounts,
                                     struct str system, uint64_t request_id);

/* Gives the next result, which is valid until the next call; NULL if there is none. */
const struct cluster_result *cluster_result(struct cluster *cluster);

/* How many entries cluster_poll fills, and fills them. */
size_t cluster_poll_count(const struct cluster *cluster);
void cluster_poll(const struct cluster *cluster, struct pollfd *polls);

/* Does what poll() says can be done, with the same entries, what threads have left, and what is
 * due. `now` in milliseconds of the steady clock. */
void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now);

/* To be called at the end of each turn: tells the others what has happened in the hub, and writes.
 */
void cluster_flush(struct cluster *cluster);

/* When cluster_serve is to be called at the latest; INT64_MAX for never. */
int64_t cluster_deadline(const struct cluster *cluster);

/* True if all that was to be told to others has been told. */
bool cluster_is_idle(const struct cluster *cluster);

/* Leaves the cluster and frees everything. */
void cluster_close(struct cluster *cluster);

#else /* a single-node build */

static inline bool cluster_check_config(struct config *config, char *error, size_t room)
{
    (void)config;
    snprintf(error, room,
             "[common] cluster = true, but this binary is built without cluster support: build one "
             "with make CLUSTER=1, or set cluster = false");
    return false;
}

static inline int cluster_listen(const struct config *config, char *host,
                                 enum listener_purpose purpose)
{
    (void)config, (void)host, (void)purpose;
    return -1;
}

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
    (void)cluster, (void)receipt, (void)request_id;
    hub_apply(hub, command, result);
    return CLUSTER_DONE;
}

static inline enum cluster_admission cluster_admit(struct cluster *cluster,
                                                   struct accounts *accounts, struct str system,
                                                   uint64_t request_id)
{
    (void)cluster, (void)request_id;
    return account_exists(accounts, system) ? CLUSTER_ADMITTED : CLUSTER_UNKNOWN;
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

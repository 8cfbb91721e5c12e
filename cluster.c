/* cluster.c - joining, event dispatch, readiness and results of a cluster's node.
 *
 * Flow: the loop calls cluster_serve once an iteration. It takes the events that threads and links
 * have left and hands each to its module: of the registry (which nodes live, which records were
 * written), of the links (messages of nodes), of the bus (batches, failed publications, bound
 * slots). A batch costs what its sends cost, so its entries are applied one by one within the
 * loop's budget. The rest waits here and is acknowledged to the bus only when it is done: RabbitMQ
 * keeps what this node cannot take.
 *
 * Phases: a node joins the registry, links to the live nodes, connects to RabbitMQ, then serves.
 * Before that every command is answered at once with the reason. A serving node is ready while it
 * can publish and its publications come back; /readyz says what is missing.
 *
 * Deaths: the registry says which node is dead. That is not believed while the node's link
 * delivers, nor during node_ttl after this node itself has been out of touch.
 *
 * Threads: only the loop's. */
#include "cluster.h"

#include "cluster_adopt.h"
#include "cluster_batch.h"
#include "cluster_census.h"
#include "cluster_change.h"
#include "cluster_crypto.h"
#include "cluster_farewell.h"
#include "cluster_presence.h"
#include "cluster_receipt.h"
#include "cluster_route.h"
#include "cluster_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTER_START_GRACE 2000  /* milliseconds after joining for links and RabbitMQ */
#define CLUSTER_STANDSTILL 1500   /* milliseconds between two iterations; a status ends each wait */
#define CLUSTER_STATUS_EVERY 1000 /* milliseconds; also keeps the nodes' clocks compared */

_Static_assert((int)CLUSTER_ECHO_BUCKETS == (int)BUS_ECHO_BUCKETS, "one histogram");

/* A node: the state that all modules share, and what only this one needs. */
struct cluster_node {
    struct cluster cluster;      /* first */
    struct pending *last_result; /* returned last; freed by the next call */
    struct cluster_result result;
};

static struct cluster_node *cluster_node_of(struct cluster *cluster)
{
    return (struct cluster_node *)cluster;
}

/* Copies a reason, cut to the size of its field. */
static void cluster_copy_reason(char reason[STATE_REASON_MAX], struct str text)
{
    snprintf(reason, STATE_REASON_MAX, "%.*s", (int)text.length, text.length ? text.at : "");
}

/* --- readiness -------------------------------------------------------------------------------- */

const char *cluster_fatal_error(const struct cluster *cluster)
{
    return cluster && cluster->phase == CLUSTER_FAILED ? cluster->fatal_error : NULL;
}

const char *cluster_not_ready_reason(const struct cluster *cluster)
{
    if (!cluster || cluster->phase == CLUSTER_SERVING)
        return NULL;
    if (cluster->phase == CLUSTER_JOINING)
        return cluster->redis_reason[0] ? cluster->redis_reason : "joining the cluster";
    return "joining the cluster: the links to the other nodes are not up yet";
}

const char *cluster_degraded_reason(const struct cluster *cluster)
{
    const char *why = cluster_not_ready_reason(cluster);

    if (why || !cluster)
        return why;
    if (!cluster->redis_up)
        return cluster->redis_reason;
    if ((!cluster->bus_up || cluster->bus_slow) && cluster->bus_reason[0])
        return cluster->bus_reason;
    why = state_publishing_reason(cluster);
    if (!why && state_lacks_link(cluster))
        why = "there is no link to a live node: see its log and this one's";
    return why;
}

struct cluster_stats cluster_stats(const struct cluster *cluster)
{
    struct bus_stats bus = {0};
    struct registry_stats registry = {0};
    struct cluster_stats stats = {.linked = cluster->counters.links,
                                  .redis_up = cluster->redis_up,
                                  .rabbitmq_up = cluster->bus_up,
                                  .redis_reconnects = cluster->counters.redis_reconnects,
                                  .rabbitmq_connects = cluster->counters.bus_connects,
                                  .late = cluster->counters.late,
                                  .presence_waiting = presence_waiting(cluster),
                                  .notices_dropped = cluster->counters.notices_dropped,
                                  .slots_unbound = cluster->counters.slots_unbound,
                                  .echo_bounds = bus_echo_bounds};

    for (const struct peer *peer = links_all(cluster->links); peer; peer = peer->next) {
        stats.nodes++;
        stats.links += peer->link != NULL;
    }
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++)
        stats.held_back += cluster->held_back[partition].count;
    registry_read_stats(cluster->registry, &registry);
    stats.heartbeat_age = cluster->now - (registry.beat_at ? registry.beat_at : cluster->opened_at);
    if (!cluster->bus)
        return stats;
    bus_read_stats(cluster->bus, &bus);
    stats.publishes = bus.published + bus.failed;
    stats.confirms = bus.published;
    stats.refusals = bus.failed;
    stats.returned = bus.returned;
    stats.foreign = bus.foreign;
    memcpy(stats.echoes, bus.echoes, sizeof stats.echoes);
    stats.echo_sum = bus.echo_sum;
    return stats;
}

/* After it was presumed dead, a node announces its clients only when the others can reach them
 * again: they would answer -1003 for a client they were just notified of. */
static bool cluster_may_announce(struct cluster *cluster)
{
    if (cluster->now >= cluster->announce_by || state_is_linked(cluster))
        cluster->announce_by = 0;
    return !cluster->announce_by;
}

/* Starts to serve once all nodes are linked, or after CLUSTER_START_GRACE. Before that a client of
 * an unlinked node is -1007, never -1003. */
static void cluster_check_phase(struct cluster *cluster)
{
    struct log_field fields[] = {{.name = "node", .text = str_from(cluster->text)}, {0}};
    bool waited = cluster->now - cluster->joined_at >= CLUSTER_START_GRACE;

    if (cluster->phase != CLUSTER_LINKING ||
        !(waited || (state_is_linked(cluster) && cluster->bus_tried)))
        return;
    cluster->phase = CLUSTER_SERVING;
    log_write(cluster->log, LOG_INFO, "joined the cluster", fields);
}

/* --- links ------------------------------------------------------------------------------------ */

static void cluster_send_status(struct cluster *cluster, struct peer *peer)
{
    struct cluster_msg status = {.kind = MSG_STATUS, .at = cluster->now, .ready = cluster->bus_up};

    state_send(cluster, peer, &status);
}

static void cluster_send_all_status(struct cluster *cluster)
{
    for (struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        if (peer->link)
            cluster_send_status(cluster, peer);
    cluster->status_at = cluster->now + CLUSTER_STATUS_EVERY;
}

/* The node has left or died: fails what it has not replied to, and stops connecting to it.
 * `flushed`: its webhooks have told all. */
static void cluster_remove_node(struct cluster *cluster, struct peer *peer, enum log_level level,
                                const char *message, bool flushed)
{
    struct node_id node = peer->id;
    struct log_field fields[] = {{.name = "node", .text = str_from(node.name)}, {0}};

    log_write(cluster->log, level, message, fields);
    farewell_end_node(cluster, &peer->tag, flushed);
    links_remove(cluster->links, peer);
    route_give_up_node(cluster, &node);
}

static void cluster_take_message(struct cluster *cluster, struct peer *peer, struct str text)
{
    struct cluster_msg msg;

    if (!msg_read(text, &cluster->decoded, &msg))
        log_write(cluster->log, LOG_WARN, "a malformed message of a node was dropped", NULL);
    else if (msg.kind == MSG_LEAVE)
        cluster_remove_node(cluster, peer, LOG_INFO, "a node has left", true);
    else if (msg.kind == MSG_ACCOUNT)
        change_take(cluster, &msg);
    else
        route_take_message(cluster, peer, &msg);
}

static void cluster_take_link_events(struct cluster *cluster)
{
    struct link_event *event;

    while ((event = links_take(cluster->links))) {
        struct peer *peer = links_find(cluster->links, &event->from);

        if (event->kind == LINK_EVENT_DOWN) {
            route_give_up_node(cluster, &event->from);
        } else if (event->kind == LINK_EVENT_UP && peer) {
            peer->ready = false;
            state_track_incarnation(cluster, &peer->id);
            cluster->counters.links++;
            cluster_send_status(cluster, peer); /* first: the other learns our clock */
            change_tell_again(cluster, peer);
        } else if (peer) {
            cluster_take_message(cluster, peer, str_of(&event->text));
        }
        buf_free(&event->text);
        free(event);
    }
}

/* --- RabbitMQ --------------------------------------------------------------------------------- */

static void cluster_on_bus_change(struct cluster *cluster, const struct bus_event *event, bool up)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    cluster->bus_up = up;
    cluster->bus_tried = true;
    cluster->bus_slow = false;
    cluster->bus_since = cluster->now;
    cluster->counters.bus_connects += up;
    cluster_copy_reason(cluster->bus_reason, event->text);
    if (up)
        log_write(cluster->log, LOG_INFO, "RabbitMQ is connected", NULL);
    else
        log_write(cluster->log, LOG_WARN, "RabbitMQ cannot be used", fields);
    cluster_send_all_status(cluster);
}

static void cluster_on_bus_slow(struct cluster *cluster, const struct bus_event *event, bool slow)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    cluster->bus_slow = slow;
    cluster_copy_reason(cluster->bus_reason, event->text);
    if (slow)
        log_write(cluster->log, LOG_WARN, "RabbitMQ does not answer", fields);
    else
        log_write(cluster->log, LOG_INFO, "RabbitMQ answers again", NULL);
}

/* Handles an event of the bus. Returns false if the budget ran out before its end. */
static bool cluster_take_bus_event(struct cluster *cluster, struct bus_event *event)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    switch (event->kind) {
    case BUS_UP:
        cluster_on_bus_change(cluster, event, true);
        break;
    case BUS_DOWN:
        cluster_on_bus_change(cluster, event, false);
        route_take_bus_down(cluster);
        break;
    case BUS_SLOW:
    case BUS_MOVING:
        cluster_on_bus_slow(cluster, event, event->kind == BUS_SLOW);
        break;
    case BUS_BOUND:
        route_take_bound(cluster, event->slot, event->version);
        break;
    case BUS_FAILED:
        route_take_failed(cluster, event->id, event->batch.partition, event->text);
        break;
    case BUS_CAUGHT_UP:
        cluster->catch_up_until = 0;
        break;
    case BUS_WARNING:
        log_write(cluster->log, LOG_WARN, "RabbitMQ", fields);
        break;
    case BUS_BATCH:
        if (!batch_take(cluster, &event->batch))
            return false;
        bus_acknowledge(cluster->bus, 1);
        break;
    }
    return true;
}

static void cluster_take_bus_events(struct cluster *cluster)
{
    struct bus_event *event = cluster->bus ? bus_take(cluster->bus) : NULL, *next;

    for (; event; event = next) {
        next = (struct bus_event *)event->mail.next;
        fifo_push(&cluster->events, &event->mail);
    }
    while ((event = (struct bus_event *)cluster->events.first) &&
           cluster_take_bus_event(cluster, event))
        free(fifo_pop(&cluster->events));
}

/* --- admission -------------------------------------------------------------------------------- */

enum cluster_admission cluster_admit(struct cluster *cluster, struct accounts *accounts,
                                     const struct ticket_claims *claims, uint64_t request_id)
{
    struct result result = {0};

    if (!cluster)
        return account_exists(accounts, claims->system) ? CLUSTER_ADMITTED : CLUSTER_UNKNOWN;
    if (claims->key.length && !adopt_begin(cluster, claims, request_id, &result))
        return result.code == RESULT_UNREACHABLE ? CLUSTER_UNREACHABLE : CLUSTER_NOT_ADOPTED;
    if (claims->key.length || !route_admit(cluster, claims, request_id, &result))
        return CLUSTER_ASKED;
    return result.code == RESULT_SUCCESS ? CLUSTER_ADMITTED : CLUSTER_UNREACHABLE;
}

void cluster_use_accounts(struct cluster *cluster, struct accounts *accounts)
{
    if (cluster)
        cluster->accounts = accounts;
}

void cluster_change_account(struct cluster *cluster, struct hub *hub, struct str system,
                            bool deleted)
{
    if (cluster)
        change_tell(cluster, system, deleted);
    else if (deleted)
        hub_delete_system(hub, system);
}

/* --- the registry ----------------------------------------------------------------------------- */

static void cluster_fail(struct cluster *cluster, struct str why)
{
    cluster->phase = CLUSTER_FAILED;
    cluster_copy_reason(cluster->fatal_error, why);
}

static void cluster_join(struct cluster *cluster, const struct node_id *self)
{
    struct bus_options with = {.config = cluster->config,
                               .keys = cluster->keys,
                               .cluster = str_from(cluster->name),
                               .self = *self,
                               .wake = cluster->wake};

    cluster->self = *self;
    state_track_incarnation(cluster, self);
    node_write(self, cluster->text);
    cluster->bus = node_make_tag(self, &cluster->tag) ? bus_open(&with) : NULL;
    if (!cluster->bus) {
        cluster_fail(cluster, STR("out of memory, or of threads"));
        return;
    }
    cluster->hub->hooks = &cluster->hooks;
    links_join(cluster->links, self);
    cluster->phase = CLUSTER_LINKING;
    cluster->redis_up = true;
    cluster->joined_at = cluster->now;
    cluster->trust_at = cluster->now + (int64_t)cluster->config->node_ttl;
}

static bool cluster_is_listed(const struct registry_event *event, const struct peer *peer)
{
    for (size_t i = 0; i < event->count; i++)
        if (node_equal(&event->nodes[i].id, &peer->id))
            return true;
    return false;
}

/* The registry lists a node as dead. Its link decides: a node that is heard of lives. */
static void cluster_take_dead(struct cluster *cluster, const struct node_id *dead)
{
    struct peer *peer = links_find(cluster->links, dead);

    if (peer && links_reach(cluster->links, peer))
        return;
    if (peer)
        cluster_remove_node(cluster, peer, LOG_WARN, "a node is dead", false);
    registry_clean_up(cluster->registry, dead);
}

static void cluster_take_node(struct cluster *cluster, const struct registry_node *node)
{
    struct peer *peer;
    bool trusted = cluster->now >= cluster->trust_at;

    if (node_equal(&node->id, &cluster->self) ||
        (node_equal_name(&node->id, &cluster->self) && !trusted))
        return; /* this node, or an earlier incarnation of it */
    if (!node->alive && trusted) {
        cluster_take_dead(cluster, &node->id);
        return;
    }
    /* a node that may be dead is connected to as well: only the registry may have lost it */
    peer = links_add(cluster->links, &node->id);
    if (!peer)
        return;
    state_track_incarnation(cluster, &node->id);
    peer->listed = true;
    peer->alive = node->alive;
}

static void cluster_take_nodes(struct cluster *cluster, const struct registry_event *event)
{
    struct peer *next;

    for (size_t i = 0; i < event->count; i++)
        cluster_take_node(cluster, &event->nodes[i]);
    for (struct peer *peer = links_all(cluster->links); peer; peer = next) {
        next = peer->next;
        if (!cluster_is_listed(event, peer) && !links_reach(cluster->links, peer))
            cluster_remove_node(cluster, peer, LOG_INFO, "a node has left", false);
    }
    cluster->listed = true;
}

static void cluster_on_disconnect(struct cluster *cluster, const struct registry_event *event)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};
    bool joined = cluster->phase != CLUSTER_JOINING;

    cluster->redis_up = false;
    cluster_copy_reason(cluster->redis_reason, event->text);
    log_write(cluster->log, LOG_WARN,
              joined ? "Redis cannot be used" : "waiting to join the cluster", fields);
}

static void cluster_on_reconnect(struct cluster *cluster)
{
    cluster->trust_at = cluster->now + (int64_t)cluster->config->node_ttl;
    if (!cluster->redis_up) {
        log_write(cluster->log, LOG_INFO, "Redis is back", NULL);
        cluster->counters.redis_reconnects++;
    }
    cluster->redis_up = true;
}

static void cluster_take_registry_event(struct cluster *cluster, const struct registry_event *event)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    switch (event->kind) {
    case REGISTRY_WAITING:
        cluster_on_disconnect(cluster, event);
        break;
    case REGISTRY_WARNING:
        log_write(cluster->log, LOG_WARN, "Redis", fields);
        break;
    case REGISTRY_NAME_CONFLICT:
        cluster_fail(cluster, event->text);
        break;
    case REGISTRY_JOINED:
        cluster_join(cluster, &event->self);
        break;
    case REGISTRY_RECONNECTED:
        cluster_on_reconnect(cluster);
        presence_restore(cluster);
        break;
    case REGISTRY_REVIVED:
        log_write(cluster->log, LOG_WARN,
                  "this node was presumed dead: its clients are announced again", NULL);
        cluster_on_reconnect(cluster);
        presence_revive(cluster);
        cluster->announce_by = cluster->now + CLUSTER_START_GRACE;
        break;
    case REGISTRY_NODES:
        cluster_take_nodes(cluster, event);
        break;
    case REGISTRY_FOUND:
        change_take_found(cluster, event);
        break;
    case REGISTRY_WRITTEN:
        presence_take_written(cluster, event);
        break;
    case REGISTRY_REMOVED:
        presence_take_removed(cluster, event);
        break;
    }
    if (event->clock)
        change_take_clock(cluster, event);
}

static void cluster_take_registry_events(struct cluster *cluster)
{
    struct registry_event *event = registry_take(cluster->registry), *next;

    for (; event; event = next) {
        next = (struct registry_event *)event->mail.next;
        if (cluster->phase != CLUSTER_FAILED)
            cluster_take_registry_event(cluster, event);
        free(event);
    }
}

/* --- commands and results --------------------------------------------------------------------- */

enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                  const struct command *command, bool receipt, uint64_t request_id,
                                  struct result *result)
{
    if (cluster)
        return route_apply(cluster, command, receipt, request_id, result) ? CLUSTER_DONE
                                                                          : CLUSTER_LATER;
    return roster_apply(hub, command, request_id, result) ? CLUSTER_DONE : CLUSTER_LATER;
}

const struct cluster_result *cluster_result(struct cluster *cluster)
{
    struct cluster_node *node = cluster ? cluster_node_of(cluster) : NULL;
    struct pending *pending;

    if (!cluster)
        return NULL;
    if (node->last_result)
        state_free(cluster, node->last_result);
    node->last_result = pending = (struct pending *)fifo_pop(&cluster->results);
    if (!pending)
        return NULL;
    adopt_end(cluster, pending);
    if (pending->command >= COMMAND_COUNT_CLIENTS)
        census_merge(cluster, pending);
    node->result = (struct cluster_result){
        .request_id = pending->origin.id,
        .is_admission = pending->kind >= PENDING_ADMIT,
        .client = pending->result.matched,
        .claims = pending->claims,
        .command = pending->command,
        .receipt = pending->receipt,
        .message_id = str_of(&pending->message_id),
        .result = pending->result,
        .incomplete = pending->incomplete,
    };
    if (pending->result.code == RESULT_UNKNOWN_SYSTEM)
        node->result.admission = CLUSTER_UNKNOWN;
    else if (pending->result.code == RESULT_OFFLINE)
        node->result.admission = CLUSTER_NOT_ADOPTED;
    else if (pending->result.code != RESULT_SUCCESS)
        node->result.admission = CLUSTER_UNREACHABLE;
    else if (pending->kind == PENDING_ADOPT)
        node->result.admission = CLUSTER_ADOPTED;
    return &node->result;
}

/* --- the iteration ---------------------------------------------------------------------------- */

void cluster_republish(struct cluster *cluster)
{
    if (cluster && cluster->bus)
        presence_republish(cluster);
}

size_t cluster_poll_count(const struct cluster *cluster)
{
    return cluster ? links_poll_count(cluster->links) : 0;
}

void cluster_poll(const struct cluster *cluster, struct pollfd *polls)
{
    if (cluster)
        links_poll(cluster->links, polls);
}

/* After a standstill RabbitMQ's events come before the links': a send to a client must not overtake
 * what the same node sent to a group before. */
static void cluster_check_standstill(struct cluster *cluster, int64_t now)
{
    if (!cluster->opened_at)
        cluster->opened_at = now;
    else if (cluster->bus && now - cluster->now > CLUSTER_STANDSTILL) {
        cluster->catch_up_until = now + state_timeout(cluster);
        bus_catch_up(cluster->bus);
    }
    cluster->now = now;
}

void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now)
{
    if (!cluster)
        return;
    cluster_check_standstill(cluster, now);
    links_serve(cluster->links, polls, now);
    /* echoes before registry events: a cleanup counts its notices, see cluster_presence.c */
    cluster_take_bus_events(cluster);
    cluster_take_registry_events(cluster);
    if (now >= cluster->catch_up_until)
        cluster_take_link_events(cluster);
    route_expire(cluster);
    farewell_expire(cluster);
    if (now >= cluster->status_at)
        cluster_send_all_status(cluster);
    cluster_check_phase(cluster);
}

void cluster_flush(struct cluster *cluster)
{
    if (!cluster)
        return;
    if (cluster->bus) {
        census_take_walks(cluster);
        state_follow_slots(cluster);
        presence_walk(cluster);
        if (cluster_may_announce(cluster))
            presence_pump(cluster);
    }
    links_flush(cluster->links);
}

static int64_t cluster_earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t cluster_deadline(const struct cluster *cluster)
{
    int64_t earliest;

    if (!cluster)
        return INT64_MAX;
    /* work that the budget of this iteration left over */
    if (cluster->events.first || cluster->results.first || (cluster->bus && cluster->changed_count))
        return cluster->now;
    earliest = cluster_earlier(links_deadline(cluster->links), route_deadline(cluster));
    earliest = cluster_earlier(earliest, presence_deadline(cluster));
    earliest = cluster_earlier(earliest, farewell_deadline(cluster));
    if (cluster->bus)
        earliest = cluster_earlier(earliest, cluster->status_at);
    if (cluster->catch_up_until > cluster->now)
        earliest = cluster_earlier(earliest, cluster->catch_up_until);
    if (cluster->announce_by)
        earliest = cluster_earlier(earliest, cluster->announce_by);
    if (cluster->phase == CLUSTER_LINKING)
        earliest = cluster_earlier(earliest, cluster->joined_at + CLUSTER_START_GRACE);
    return earliest;
}

bool cluster_is_idle(const struct cluster *cluster)
{
    if (!cluster || !cluster->bus)
        return true;
    if (!cluster->redis_up || !cluster->bus_up) /* the others will find records, and remove them */
        return !presence_is_unfinished(cluster);
    return presence_is_idle(cluster) && bus_is_idle(cluster->bus);
}

/* --- opening and closing ---------------------------------------------------------------------- */

const struct account_store *cluster_accounts(const struct cluster *cluster)
{
    return cluster ? registry_accounts(cluster->registry) : NULL;
}

/* Opens the modules below. False without memory or threads. */
static bool cluster_open_parts(struct cluster *cluster, const struct cluster_options *options)
{
    struct links_options links = {options->config, options->log, cluster->keys, options->listener,
                                  options->wake};
    struct registry_options registry = {
        .config = options->config, .keys = cluster->keys, .wake = options->wake};

    cluster->links = links_open(&links);
    if (!cluster->links || !receipt_open(cluster) || !presence_open(cluster) ||
        !crypto_random(&cluster->seed, sizeof cluster->seed) ||
        !node_set_name(&registry.self, options->host, options->port))
        return false;
    cluster->registry = registry_open(&registry);
    return cluster->registry != NULL;
}

struct cluster *cluster_open(const struct cluster_options *options)
{
    struct cluster_node *node = calloc(1, sizeof *node);
    struct cluster *cluster = &node->cluster;

    if (!node)
        return NULL;
    cluster->config = options->config;
    cluster->log = options->log;
    cluster->keyring = *options->keys;
    cluster->keys = &cluster->keyring;
    cluster->hub = options->hub;
    cluster->shared = options->shared;
    cluster->wake = options->wake;
    cluster->hooks = (struct hub_hooks){cluster, state_seal_id, state_open_id, state_change_channel,
                                        presence_change};
    snprintf(cluster->name, sizeof cluster->name, "%s %llu", options->config->redis_prefix,
             (unsigned long long)options->config->redis_db);
    if (cluster_crypto_derive(&cluster->keyring) && census_set_order(cluster) &&
        cluster_open_parts(cluster, options))
        return cluster;
    cluster_close(cluster);
    return NULL;
}

/* Tells the other nodes that this one leaves: they need not wait for its key to expire. */
static void cluster_send_leave(struct cluster *cluster)
{
    struct cluster_msg leave = {.kind = MSG_LEAVE};

    for (struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        state_send(cluster, peer, &leave);
    links_flush(cluster->links);
}

static void cluster_free_list(struct cluster *cluster, struct pending_list *list)
{
    while (list->first) {
        struct pending *pending = list->first;

        pending_unlink(&cluster->pendings, list, pending);
        pending_free(pending);
    }
}

static void cluster_free(struct cluster *cluster)
{
    struct cluster_node *node = cluster_node_of(cluster);
    struct pending *pending;

    adopt_close(cluster);
    if (node->last_result)
        pending_free(node->last_result);
    while ((pending = (struct pending *)fifo_pop(&cluster->results)))
        pending_free(pending);
    cluster_free_list(cluster, &cluster->requests);
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++)
        cluster_free_list(cluster, &cluster->held_back[partition]);
    while (cluster->events.first)
        free(fifo_pop(&cluster->events));
    table_free(&cluster->pendings.by_id);
    state_forget_systems(cluster);
    change_free(cluster);
    farewell_close(cluster);
    order_free(&cluster->sender_seqs);
    presence_close(cluster);
    receipt_close(cluster);
    buf_free(&cluster->decoded);
    buf_free(&cluster->written);
    crypto_erase(&cluster->keyring, sizeof cluster->keyring);
    free(node);
}

void cluster_close(struct cluster *cluster)
{
    bool clean;

    if (!cluster)
        return;
    clean = cluster->bus && cluster->redis_up && cluster->bus_up && presence_is_idle(cluster) &&
            bus_is_idle(cluster->bus) && !cluster->hub->channels.clients.count &&
            change_webhooks_are_idle(cluster);
    bus_close(cluster->bus);
    registry_close(cluster->registry, clean);
    if (clean)
        cluster_send_leave(cluster);
    links_close(cluster->links);
    cluster_free(cluster);
}

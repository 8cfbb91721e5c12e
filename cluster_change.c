/* cluster_change.c - accounts that a node has changed, and what webhooks are told of dead nodes.
 *
 * A node that has changed an account says so to each node that it has a link to. That one asks the
 * store about the account: from then on it knows the new generation and ticket key. If the account
 * was deleted, both forget that the system is registered, end the admissions under way, and have
 * the hub close its clients.
 *
 * The link may be down, or break with the message: the last CHANGES_MAX changes are kept, and a
 * node that is linked again is told those from a while before it was last heard of. What a change
 * says is the same when it is said twice; but clients of a system that was deleted and registered
 * again meanwhile are closed and have to come back. A node that misses a change learns of a
 * password or key when it next asks the store, at the latest ACCOUNT_REFRESH_MS later.
 *
 * Dead nodes. The one that cleans up tells their ends. It may die before that is heard, and an
 * event may be lost: so a node that starts is given the ends of the last day, and each node keeps
 * those that it has told for as long as an event may wait, and tells them in each new epoch again.
 * Hence epochs are of Redis's clock, as the clocks of ends are: each heartbeat says what it shows.
 *
 * Threads: only the loop's. */
#include "cluster_change.h"

#include "account.h"
#include "cluster_route.h"

#include <stdlib.h>
#include <string.h>

#define CHANGE_VERSION 2   /* of the protocol: earlier nodes do not know the message */
#define CHANGE_SLACK 10000 /* milliseconds before a node was last heard of */

struct change {
    struct fifo_link link;
    int64_t at;
    bool deleted;
    size_t length;
    char name[];
};

static void change_send(struct cluster *cluster, struct peer *peer, struct str system, bool deleted)
{
    struct cluster_msg msg = {
        .kind = MSG_ACCOUNT, .deleted = deleted, .command = {.system = system}};

    if (peer->link && peer->version >= CHANGE_VERSION)
        state_send(cluster, peer, &msg);
}

/* Keeps a change for nodes that are out of reach; the oldest makes room. */
static void change_keep(struct cluster *cluster, struct str system, bool deleted)
{
    struct change *change = malloc(sizeof *change + system.length);

    if (!change)
        return;
    *change = (struct change){.at = cluster->now, .deleted = deleted, .length = system.length};
    memcpy(change->name, system.at, system.length);
    fifo_push(&cluster->changes, &change->link);
    if (++cluster->change_count > CHANGES_MAX) {
        free(fifo_pop(&cluster->changes));
        cluster->change_count--;
    }
}

/* --- a system that is deleted ----------------------------------------------------------------- */

static bool change_admits(const struct pending *pending, struct str system)
{
    return pending->kind == PENDING_ADMIT && str_equal(pending->claims.system, system);
}

/* Whether the system is registered may have been asked before it was deleted. */
static void change_end_admissions(struct cluster *cluster, struct str system)
{
    struct str error = STR("systemId is not registered");
    struct pending *next;

    for (struct pending *pending = cluster->requests.first; pending; pending = next) {
        next = pending->next;
        if (!change_admits(pending, system))
            continue;
        pending_set_error(pending, RESULT_UNKNOWN_SYSTEM, error);
        state_finish(cluster, pending);
    }
    for (struct fifo_link *link = cluster->results.first; link; link = link->next)
        if (change_admits((struct pending *)link, system))
            pending_set_error((struct pending *)link, RESULT_UNKNOWN_SYSTEM, error);
}

static void change_delete_here(struct cluster *cluster, struct str system)
{
    cluster->deleted_at = cluster->pendings.last_id;
    state_forget_system(cluster, system);
    change_end_admissions(cluster, system);
    hub_delete_system(cluster->hub, system);
}

/* --- telling and taking ----------------------------------------------------------------------- */

void change_tell(struct cluster *cluster, struct str system, bool deleted)
{
    change_keep(cluster, system, deleted);
    for (struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        change_send(cluster, peer, system, deleted);
    if (deleted)
        change_delete_here(cluster, system);
}

void change_take(struct cluster *cluster, const struct cluster_msg *msg)
{
    struct str system = msg->command.system;
    struct log_field fields[] = {{.name = "system", .text = system}, {0}};

    if (!system.length || system.length > ACCOUNT_NAME_MAX)
        return;
    if (cluster->accounts)
        account_forget(cluster->accounts, system);
    if (!msg->deleted)
        return;
    log_write(cluster->log, LOG_INFO, "system deleted through another node", fields);
    change_delete_here(cluster, system);
}

void change_tell_again(struct cluster *cluster, struct peer *peer)
{
    for (struct fifo_link *link = cluster->changes.first; link; link = link->next) {
        const struct change *change = (const struct change *)link;

        if (change->at >= peer->status_at - CHANGE_SLACK)
            change_send(cluster, peer, (struct str){change->name, change->length}, change->deleted);
    }
}

void change_take_found(struct cluster *cluster, const struct registry_event *event)
{
    struct pending *pending = pending_find(&cluster->pendings, event->id);

    /* of one that was given up, what was asked before a deletion may not be so any more */
    if (event->found == REGISTRY_YES && (pending || event->id > cluster->deleted_at))
        state_add_system(cluster, event->text);
    if (!pending)
        return;
    if (event->found == REGISTRY_NO)
        route_take_found(cluster, pending, RESULT_UNKNOWN_SYSTEM,
                         STR("systemId is not registered"));
    else
        route_take_found(cluster, pending,
                         event->found == REGISTRY_YES ? RESULT_SUCCESS : RESULT_UNREACHABLE,
                         event->reason);
}

/* --- webhooks --------------------------------------------------------------------------------- */

/* A node that has died; its incarnation is the last epoch that can have been its own. */
struct change_end {
    struct fifo_link link;
    int64_t at;
    struct node_id node;
};

/* Tells all webhooks whose epoch is not before this one of the ends from `first` on. */
static void change_push_ends(struct hub *hub, const struct fifo_link *first, int64_t since)
{
    struct webhook_report report;
    struct webhook *webhook;
    size_t place = 0;

    while (first && (webhook = webhook_next(hub->webhooks, &place))) {
        webhook_read_report(hub->webhooks, webhook, &report);
        for (const struct fifo_link *at = first; at && report.epoch >= since; at = at->next) {
            const struct node_id *node = &((const struct change_end *)at)->node;

            event_end(hub->webhooks, webhook, str_from(node->name), (int64_t)node->incarnation);
        }
    }
}

void change_tell_end(struct cluster *cluster, const struct registry_event *event)
{
    struct change_end *end = malloc(sizeof *end), *other;
    struct fifo_link *before = NULL;

    if (!end)
        return;
    *end = (struct change_end){.at = cluster->now, .node = event->self};
    end->node.incarnation = event->id;
    other = (struct change_end *)cluster->ends.first;
    while (other && !node_equal_name(&other->node, &end->node)) {
        before = &other->link;
        other = (struct change_end *)before->next;
    }
    if (other && other->node.incarnation > event->id)
        end->node.incarnation = other->node.incarnation;
    if (other)
        free(fifo_remove_after(&cluster->ends, before));
    fifo_push(&cluster->ends, &end->link);
    change_push_ends(cluster->hub, &end->link, 0);
}

bool change_webhooks_are_idle(const struct cluster *cluster)
{
    struct webhook_stats stats = {0};

    if (cluster->hub->webhooks)
        webhook_measure(cluster->hub->webhooks, &stats);
    return stats.waiting == 0;
}

/* A webhook whose epoch has begun since the last call may have lost what it was told. */
static void change_tell_ends_again(struct cluster *cluster, uint64_t clock)
{
    int64_t oldest = cluster->now - (int64_t)cluster->config->webhook_retry - CHANGE_SLACK;
    const struct change_end *end;

    while ((end = (const struct change_end *)cluster->ends.first) && end->at < oldest)
        free(fifo_pop(&cluster->ends));
    change_push_ends(cluster->hub, cluster->ends.first, (int64_t)cluster->ends_told);
    cluster->ends_told = clock;
}

void change_take_clock(struct cluster *cluster, const struct registry_event *event)
{
    struct hub *hub = cluster->hub;

    hub->clock = (int64_t)event->clock - os_now_ms();
    if (hub->webhooks)
        webhook_set_clock(hub->webhooks, hub->clock);
    if (event->kind == REGISTRY_REVIVED)
        event_restart(hub->webhooks, &hub->channels);
    change_tell_ends_again(cluster, event->clock);
    if (event->kind != REGISTRY_NODES && cluster->accounts && cluster->config->webhook_allow[0])
        account_repeat_webhooks(cluster->accounts);
}

void change_free(struct cluster *cluster)
{
    while (cluster->changes.first)
        free(fifo_pop(&cluster->changes));
    while (cluster->ends.first)
        free(fifo_pop(&cluster->ends));
}

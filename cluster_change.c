/* cluster_change.c - accounts that a node has changed.
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

void change_find_webhooks(struct cluster *cluster)
{
    if (cluster->accounts && cluster->config->webhook_allow[0])
        account_repeat_webhooks(cluster->accounts);
}

/* Which epochs of the dead node end. It was found dead node_ttl after its last heartbeat, and its
 * next incarnation cannot have joined before: the last epoch of this one and the first of that lie
 * half a node_ttl or more before and behind the time halfway, so clocks may differ by that. */
void change_tell_end(struct cluster *cluster, const struct registry_event *event)
{
    uint64_t epoch = event->id - cluster->config->node_ttl / 2;

    for (const struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        if (node_equal_name(&peer->id, &event->self) && peer->id.incarnation <= epoch &&
            peer->id.incarnation > event->self.incarnation)
            epoch = peer->id.incarnation - 1;
    event_end(cluster->hub->webhooks, str_from(event->self.name), (int64_t)epoch);
}

void change_free(struct cluster *cluster)
{
    while (cluster->changes.first)
        free(fifo_pop(&cluster->changes));
}

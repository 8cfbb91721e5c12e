/* cluster_state.c - the primitives of routing and presence.
 *
 * Slots: a slot is wanted while one of its channels has a member here or a pending request keeps
 * it, and bound once RabbitMQ says so. Each bus_bind has a version, so that the answer to a binding
 * given up meanwhile is not taken for the answer to the next one. A slot is dropped with its last
 * channel or keeper, but never while it is being bound: it is checked again when that is done. A
 * request keeps all the slots it needs, and waits for one of them at a time. The
 * hub's hook runs in the middle of a command, so it only counts; state_follow_slots does the rest.
 *
 * Requests: each has an id that grows. It names the request in messages, and orders it among the
 * sends of its partition. A request is in one list: `requests` and `held_back` are in order of
 * deadlines, `results` in order of completion. Its origin is told exactly once: a node by a reply,
 * a session by an entry in `results`.
 *
 * Threads: only the loop's. */
#include "cluster_state.h"

#include <stdlib.h>
#include <string.h>

#define STATE_REBIND_TIME 3000 /* milliseconds for the other nodes to find RabbitMQ again */

void state_fail(struct result *result, enum result_code code, const char *error)
{
    result->code = code;
    result->error = error;
}

int64_t state_timeout(const struct cluster *cluster)
{
    return (int64_t)cluster->config->rpc_timeout;
}

/* --- what can be done now --------------------------------------------------------------------- */

/* After RabbitMQ has come back other nodes may not have bound their slots yet: a publication would
 * echo and not reach them. A node that joined later than this one has no clients to miss it. */
const char *state_publishing_reason(const struct cluster *cluster)
{
    if (!cluster->bus_up)
        return "RabbitMQ cannot be reached";
    if (cluster->bus_slow)
        return "RabbitMQ does not answer";
    if (cluster->now - cluster->bus_since >= STATE_REBIND_TIME)
        return NULL;
    for (const struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        if (!peer->ready && links_reach(cluster->links, peer) &&
            (peer->was_ready || peer->id.incarnation < cluster->self.incarnation))
            return "RabbitMQ has come back, and not all nodes have found it yet";
    return NULL;
}

bool state_knows_all(const struct cluster *cluster)
{
    return cluster->listed && cluster->redis_up;
}

bool state_is_linked(const struct cluster *cluster)
{
    for (const struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        if (peer->listed && peer->alive && !peer->link)
            return false;
    return cluster->listed;
}

bool state_lacks_link(const struct cluster *cluster)
{
    for (const struct peer *peer = links_all(cluster->links); peer; peer = peer->next)
        if (peer->alive && peer->missing_since &&
            cluster->now - peer->missing_since > (int64_t)cluster->config->node_ttl)
            return true;
    return false;
}

void state_track_incarnation(struct cluster *cluster, const struct node_id *node)
{
    if (cluster->newest < node->incarnation)
        cluster->newest = node->incarnation;
}

/* --- the ids of clients of this node ---------------------------------------------------------- */

bool state_seal_id(void *state, uint64_t number, char id[HUB_ID_TEXT])
{
    const struct cluster *cluster = state;

    return wire_seal_client(cluster->keys, &cluster->tag, number, id);
}

bool state_open_id(void *state, struct json_value id, uint64_t *number)
{
    const struct cluster *cluster = state;
    struct node_tag owner;

    return wire_open_client(cluster->keys, id, &owner, number) &&
           node_has_tag(&owner, &cluster->tag);
}

/* --- messages --------------------------------------------------------------------------------- */

/* Writes a message into the scratch buffer. */
static bool state_write(struct cluster *cluster, const struct cluster_msg *msg)
{
    if (cluster->written.capacity > CONN_SCRATCH)
        buf_free(&cluster->written); /* do not keep the largest message ever */
    cluster->written.length = 0;
    if (msg_write(&cluster->written, msg))
        return true;
    buf_free(&cluster->written);
    return false;
}

bool state_send(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg)
{
    return state_write(cluster, msg) && links_send(cluster->links, peer, str_of(&cluster->written));
}

/* This node's own part of a request to all nodes is done. */
static void state_take_own(struct cluster *cluster, struct cluster_msg *msg)
{
    struct pending *pending = pending_find(&cluster->pendings, msg->id);
    struct pending_reply *reply = pending ? pending_expected(pending, &cluster->self) : NULL;

    if (!reply)
        return;
    msg->error = str_from(msg->result.error);
    msg->list = str_of(&msg->result.list);
    pending_take_reply(pending, reply, msg);
    state_finish_if_done(cluster, pending);
}

void state_reply(struct cluster *cluster, const struct pending_origin *origin,
                 const struct result *result)
{
    struct cluster_msg reply = {.kind = MSG_REPLY, .id = origin->id, .result = *result};
    struct peer *peer = links_find(cluster->links, &origin->node);

    if (node_equal(&origin->node, &cluster->self))
        state_take_own(cluster, &reply);
    else if (peer)
        state_send(cluster, peer, &reply);
}

bool state_publish(struct cluster *cluster, const struct cluster_msg *msg, enum wire_lane lane,
                   uint16_t slot, const struct node_id *to)
{
    struct bus_publication publication = {.id = msg->id,
                                          .lane = lane,
                                          .partition = wire_partition(msg->command.system),
                                          .to = to,
                                          .slot = slot,
                                          .deadline = cluster->now + state_timeout(cluster)};

    if (!state_write(cluster, msg))
        return false;
    publication.text = str_of(&cluster->written);
    return bus_publish(cluster->bus, &publication);
}

uint16_t state_slot_of(const struct command *command)
{
    if (command->kind == COMMAND_SEND_TO_SYSTEM)
        return wire_slot(WIRE_SYSTEM, command->system, (struct str){0});
    if (command->kind == COMMAND_SEND_TO_USER)
        return wire_slot(WIRE_USER, command->system, command->user);
    return wire_slot(WIRE_GROUP, command->system, command->group);
}

/* --- slots ------------------------------------------------------------------------------------ */

void state_change_channel(void *state, enum channel_kind kind, struct str system, struct str name,
                          bool exists)
{
    struct cluster *cluster = state;
    enum wire_channel channel = kind == CHANNEL_SYSTEM ? WIRE_SYSTEM
                                : kind == CHANNEL_USER ? WIRE_USER
                                                       : WIRE_GROUP;
    uint16_t number = wire_slot(channel, system, name);
    struct state_slot *slot = &cluster->slots[number];

    slot->channels = exists ? slot->channels + 1 : slot->channels - 1;
    if (!slot->changed)
        cluster->changed[cluster->changed_count++] = number;
    slot->changed = true;
}

static void state_want_slot(struct cluster *cluster, uint16_t number)
{
    struct state_slot *slot = &cluster->slots[number];

    if (slot->wanted)
        return;
    slot->wanted = true;
    cluster->counters.slots_unbound++;
    bus_bind(cluster->bus, number, ++slot->version, true);
}

void state_drop_slot(struct cluster *cluster, uint16_t number)
{
    struct state_slot *slot = &cluster->slots[number];

    if (!slot->bound || slot->keepers || slot->channels)
        return;
    slot->wanted = slot->bound = false;
    bus_bind(cluster->bus, number, ++slot->version, false);
}

void state_follow_slots(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->changed_count; i++) {
        uint16_t number = cluster->changed[i];

        cluster->slots[number].changed = false;
        if (cluster->slots[number].channels)
            state_want_slot(cluster, number);
        else
            state_drop_slot(cluster, number);
    }
    cluster->changed_count = 0;
}

void state_need_slot(struct cluster *cluster, struct pending *pending, uint16_t number)
{
    for (unsigned i = 0; i < pending->slot_count; i++)
        if (pending->slots[i] == number)
            return; /* channels may share a slot */
    pending->slots[pending->slot_count++] = number;
    cluster->slots[number].keepers++;
    state_want_slot(cluster, number);
}

bool state_await_slots(struct cluster *cluster, struct pending *pending)
{
    struct state_slot *slot;

    while (pending->slots_bound < pending->slot_count) {
        slot = &cluster->slots[pending->slots[pending->slots_bound]];
        if (slot->bound) { /* and stays so: the request keeps it */
            pending->slots_bound++;
            continue;
        }
        pending->next_waiter = NULL;
        if (slot->waiters)
            slot->last_waiter->next_waiter = pending;
        else
            slot->waiters = pending;
        slot->last_waiter = pending;
        return false;
    }
    return true;
}

struct pending *state_take_bound(struct cluster *cluster, uint16_t number, uint32_t version)
{
    struct state_slot *slot = &cluster->slots[number];
    struct pending *waiters = slot->waiters;

    if (version != slot->version || !slot->wanted || slot->bound)
        return NULL;
    slot->bound = true;
    cluster->counters.slots_unbound--;
    slot->waiters = slot->last_waiter = NULL;
    return waiters;
}

/* --- systems ---------------------------------------------------------------------------------- */

struct state_system {
    size_t length;
    char name[];
};

static struct state_system *state_find_system(const struct cluster *cluster, struct str system)
{
    struct table_cursor cursor = {.hash = str_hash(system, cluster->seed)};
    struct state_system *known;

    while ((known = table_next(&cluster->systems, &cursor)))
        if (str_equal((struct str){known->name, known->length}, system))
            return known;
    return NULL;
}

bool state_knows_system(const struct cluster *cluster, struct str system)
{
    return state_find_system(cluster, system) != NULL;
}

void state_add_system(struct cluster *cluster, struct str system)
{
    struct state_system *known =
        state_knows_system(cluster, system) ? NULL : malloc(sizeof *known + system.length);

    if (!known)
        return;
    known->length = system.length;
    memcpy(known->name, system.at, system.length);
    if (!table_add(&cluster->systems, str_hash(system, cluster->seed), known))
        free(known);
}

void state_forget_system(struct cluster *cluster, struct str system)
{
    struct state_system *known = state_find_system(cluster, system);

    if (known)
        table_remove(&cluster->systems, str_hash(system, cluster->seed), known);
    free(known);
}

void state_forget_systems(struct cluster *cluster)
{
    struct state_system *known;
    size_t place = 0;

    while ((known = table_walk(&cluster->systems, &place)))
        free(known);
    table_free(&cluster->systems);
}

/* --- requests in flight ----------------------------------------------------------------------- */

static struct pending_list *state_list_of(struct cluster *cluster, const struct pending *pending)
{
    return pending->kind == PENDING_HELD_BACK ? &cluster->held_back[pending->partition]
                                              : &cluster->requests;
}

/* Removes a request from the waiters of the slot that it waits for. */
static void state_stop_waiting(struct cluster *cluster, const struct pending *pending)
{
    struct pending *before = NULL, *waiter;
    struct state_slot *slot;

    if (pending->slots_bound == pending->slot_count)
        return;
    slot = &cluster->slots[pending->slots[pending->slots_bound]];
    waiter = slot->waiters;
    while (waiter && waiter != pending) {
        before = waiter;
        waiter = waiter->next_waiter;
    }
    if (!waiter)
        return;
    if (before)
        before->next_waiter = waiter->next_waiter;
    else
        slot->waiters = waiter->next_waiter;
    if (slot->last_waiter == waiter)
        slot->last_waiter = before;
}

void state_free(struct cluster *cluster, struct pending *pending)
{
    state_stop_waiting(cluster, pending);
    for (unsigned i = 0; i < pending->slot_count; i++) {
        cluster->slots[pending->slots[i]].keepers--;
        state_drop_slot(cluster, pending->slots[i]);
    }
    pending_free(pending);
}

struct pending *state_begin(struct cluster *cluster, enum pending_kind kind,
                            const struct command *command, bool receipt,
                            const struct pending_origin *origin, struct result *result)
{
    unsigned partition = wire_partition(command->system);
    struct pending_list *list =
        kind == PENDING_HELD_BACK ? &cluster->held_back[partition] : &cluster->requests;
    int64_t deadline = cluster->now + state_timeout(cluster);
    struct pending *pending =
        pending_new(&cluster->pendings, list, kind,
                    origin->expires && origin->expires < deadline ? origin->expires : deadline);

    if (pending) {
        pending->origin = *origin;
        pending->command = command->kind;
        pending->receipt = receipt;
        pending->partition = partition;
        if ((!receipt && !command->once) || buf_append(&pending->message_id, command->message_id))
            return pending;
        state_abandon(cluster, pending);
    }
    state_fail(result, RESULT_UNREACHABLE, "out of memory");
    return NULL;
}

void state_abandon(struct cluster *cluster, struct pending *pending)
{
    pending_unlink(&cluster->pendings, state_list_of(cluster, pending), pending);
    state_free(cluster, pending);
}

bool state_reject(struct cluster *cluster, struct pending *pending, struct result *result,
                  const char *error)
{
    state_abandon(cluster, pending);
    state_fail(result, RESULT_UNREACHABLE, error);
    return true;
}

struct pending *state_keep(struct cluster *cluster, enum pending_kind kind,
                           const struct command *command, bool receipt,
                           const struct pending_origin *origin, struct result *result)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .command = *command};
    struct pending *pending = state_begin(cluster, kind, command, receipt, origin, result);

    if (!pending || msg_write(&pending->text, &msg))
        return pending;
    state_reject(cluster, pending, result, "out of memory");
    return NULL;
}

void state_finish(struct cluster *cluster, struct pending *pending)
{
    pending_unlink(&cluster->pendings, state_list_of(cluster, pending), pending);
    pending_merge(pending);
    if (pending->result.list.failed)
        pending_fail(pending, "out of memory");
    if (pending->origin.is_node) {
        state_reply(cluster, &pending->origin, &pending->result);
        state_free(cluster, pending);
        return;
    }
    state_stop_waiting(cluster, pending);
    fifo_push(&cluster->results, &pending->fifo);
}

void state_finish_if_done(struct cluster *cluster, struct pending *pending)
{
    if (pending_is_done(pending))
        state_finish(cluster, pending);
}

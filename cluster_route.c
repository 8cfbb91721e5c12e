/* cluster_route.c - which nodes a command goes to, and their replies.
 *
 * One client: the id names its owner. If this node is the owner, the command is applied here, held
 * back behind this node's sends that have not come back. If another node is, the command goes over
 * the link, unless the owner may not have taken all this node has sent in the system's partition:
 * then the request goes through RabbitMQ, behind those sends, to the owner alone. Its reply, always
 * over the link, proves that the owner has taken them (peer->passed), and the next request goes
 * over the link again. So frames reach a client in the order in which their calls were answered,
 * however slow RabbitMQ is, and no clock decides about it.
 *
 * A group, a user, a system: the send is published, and a success once it has come back.
 *
 * once: each node decides for its members when the publication arrives. A node that bound the slot
 * later, or lost the first send with RabbitMQ, delivers. The origin asks all nodes: "repeated" if
 * one knew the send and no client got it now, -1 if one knew other content.
 *
 * Many clients: each owner gets the ids of its own, and the lists are joined.
 *
 * Age: a request carries its origin's time. The owner rejects what comes later than the origin
 * waits: the caller has been answered -1007, and must not see the effect seconds later.
 *
 * Threads: only the loop's. */
#include "cluster_route.h"

#include "cluster_adopt.h"
#include "cluster_census.h"
#include "cluster_receipt.h"

#include <stdlib.h>
#include <string.h>

/* The id of a message: the pending request's id, the index of the reply it asks for, and whether it
 * is a send. */
#define ROUTE_REPLY_SHIFT 48
#define ROUTE_SEND ((uint64_t)1 << 62)

/* The pending request's id in the id of a message. */
static uint64_t route_request_id(uint64_t id)
{
    return id & (((uint64_t)1 << ROUTE_REPLY_SHIFT) - 1);
}

/* --- commands for one client of this node ----------------------------------------------------- */

/* Binds a client of this node, once RabbitMQ has the slots bound. */
static bool route_bind_here(struct cluster *cluster, const struct command *command,
                            const struct pending_origin *origin, struct result *result)
{
    uint16_t group = wire_slot(WIRE_GROUP, command->system, command->group);
    uint16_t user = wire_slot(WIRE_USER, command->system, command->user);
    struct pending *pending;

    if (!hub_is_online(cluster->hub, command->system, command->client) ||
        (cluster->slots[group].bound && (!command->user.length || cluster->slots[user].bound))) {
        hub_apply(cluster->hub, command, result);
        return true;
    }
    if (!cluster->bus_up) {
        state_fail(result, RESULT_UNREACHABLE, state_publishing_reason(cluster));
        return true;
    }
    pending = state_keep(cluster, PENDING_BIND, command, false, origin, result);
    if (!pending)
        return true;
    state_need_slot(cluster, pending, group);
    if (command->user.length)
        state_need_slot(cluster, pending, user);
    state_await_slots(cluster, pending); /* one of them is not bound */
    return false;
}

static bool route_apply_here(struct cluster *cluster, const struct command *command,
                             const struct pending_origin *origin, struct result *result)
{
    if (command->kind == COMMAND_BIND)
        return route_bind_here(cluster, command, origin, result);
    if (command->kind > COMMAND_COUNT_CLIENTS)
        return census_walk_here(cluster, command, origin, result);
    return roster_apply(cluster->hub, command, 0, result);
}

/* True for commands whose place among the client's frames matters. */
static bool route_is_ordered(const struct command *command)
{
    return command->kind != COMMAND_CLIENT_INFO && command->kind != COMMAND_ONLINE_LIST &&
           (command->kind < COMMAND_COUNT_CLIENTS || command->kind >= COMMAND_BIND_USER);
}

static bool route_must_wait(const struct cluster *cluster, const struct command *command)
{
    unsigned partition = wire_partition(command->system);

    return route_is_ordered(command) && cluster->echoed[partition] < cluster->sent[partition];
}

/* Holds a command back until the earlier sends of this node have come back. */
static bool route_hold_back(struct cluster *cluster, const struct command *command, bool receipt,
                            const struct pending_origin *origin, struct result *result)
{
    struct pending *pending =
        state_keep(cluster, PENDING_HELD_BACK, command, receipt, origin, result);

    if (!pending)
        return true;
    pending->send_id = cluster->sent[pending->partition];
    return false;
}

static bool route_apply_local(struct cluster *cluster, const struct command *command, bool receipt,
                              const struct pending_origin *origin, struct result *result)
{
    if (!origin->is_node && route_must_wait(cluster, command))
        return route_hold_back(cluster, command, receipt, origin, result);
    return route_apply_here(cluster, command, origin, result);
}

/* --- commands for one client of another node -------------------------------------------------- */

/* True if a request may go over the link while this node is without RabbitMQ: the owner has taken
 * all it gets of the earlier sends. Either it has lost RabbitMQ as well, which it reports behind
 * all that had come; or it was heard of a while after the loss, so it has not stood still
 * meanwhile. */
static bool route_may_pass(const struct cluster *cluster, const struct peer *peer)
{
    int64_t later = cluster->bus_since + state_timeout(cluster);

    return cluster->now >= later && (!peer->ready || peer->status_at >= later);
}

/* Sends a request to a node from which a reply is expected: over the link, or through RabbitMQ
 * behind the earlier sends. Shortly after RabbitMQ was lost nobody knows what the owner has taken:
 * then it is rejected. */
static bool route_request(struct cluster *cluster, struct pending *pending, size_t index,
                          const struct command *command)
{
    struct peer *peer = links_find(cluster->links, &pending->replies[index].node);
    unsigned partition = pending->partition;
    char to[NODE_TEXT_MAX];
    struct cluster_msg msg = {.kind = MSG_REQUEST,
                              .id = pending->id | (uint64_t)index << ROUTE_REPLY_SHIFT,
                              .at = pending->deadline - state_timeout(cluster),
                              .command = *command};

    if (!peer || !links_reach(cluster->links, peer))
        return false;
    if (!route_is_ordered(command) || peer->passed[partition] >= cluster->sent[partition])
        return state_send(cluster, peer, &msg);
    if (!cluster->bus_up)
        return route_may_pass(cluster, peer) && state_send(cluster, peer, &msg);
    if (state_publishing_reason(cluster))
        return false;
    msg.to = (struct str){to, node_write(&peer->id, to)};
    pending->replies[index].after_send = cluster->sent[partition];
    return state_publish(cluster, &msg, LANE_SEND, 0, &peer->id);
}

/* The owner of an id: this node (*is_own), a peer, or NULL. */
static struct peer *route_find_owner(const struct cluster *cluster, struct json_value id,
                                     bool *is_own)
{
    struct node_tag owner;
    uint64_t number;

    *is_own = false;
    if (!wire_open_client(cluster->keys, id, &owner, &number))
        return NULL;
    *is_own = node_has_tag(&owner, &cluster->tag);
    return *is_own ? NULL : links_find_tag(cluster->links, &owner);
}

/* True if the id may be of a client that this node cannot see now, of a node that joined after the
 * last list for example. */
static bool route_may_be_online(const struct cluster *cluster, struct json_value id)
{
    struct node_tag owner;
    uint64_t number;

    return wire_open_client(cluster->keys, id, &owner, &number) &&
           (!state_knows_all(cluster) || owner.incarnation > cluster->newest);
}

static bool route_apply_to_owner(struct cluster *cluster, const struct command *command,
                                 bool receipt, const struct pending_origin *origin,
                                 struct result *result)
{
    bool is_own;
    const struct peer *peer = route_find_owner(cluster, command->client, &is_own);
    struct pending *pending;

    if (is_own)
        return route_apply_local(cluster, command, receipt, origin, result);
    if (!peer) {
        if (route_may_be_online(cluster, command->client))
            state_fail(result, RESULT_UNREACHABLE, "not all nodes are known now");
        else
            state_fail(result, RESULT_OFFLINE, "client not online");
        return true;
    }
    pending = state_begin(cluster, PENDING_COMMAND, command, receipt, origin, result);
    if (!pending)
        return true;
    if (pending_expect(pending, &peer->id) && route_request(cluster, pending, 0, command))
        return false;
    return state_reject(cluster, pending, result, "the client's node cannot be reached");
}

/* --- send_to_clients -------------------------------------------------------------------------- */

/* The index of the reply that an id belongs to: its owner's, else 0, this node's, which will find
 * the client offline. */
static size_t route_reply_index(struct cluster *cluster, struct pending *pending,
                                struct json_value id)
{
    bool is_own;
    const struct peer *peer = route_find_owner(cluster, id, &is_own);

    if (!peer)
        return 0;
    for (size_t i = 1; i < pending->reply_count; i++)
        if (node_equal(&pending->replies[i].node, &peer->id))
            return i;
    return pending_expect(pending, &peer->id) ? pending->reply_count - 1 : 0;
}

/* Finds for each id the index of its reply. */
static bool route_split(struct cluster *cluster, struct pending *pending,
                        const struct command *command)
{
    struct str rest = command->clients;
    struct json_value id;

    pending->owner_count = ticket_count_groups(command->clients);
    pending->owners = calloc(pending->owner_count + 1, sizeof *pending->owners);
    if (!pending->owners || !buf_append(&pending->text, command->clients) ||
        !pending_expect(pending, &cluster->self))
        return false;
    for (size_t i = 0; json_next_element(&rest, &id); i++)
        pending->owners[i] = (uint32_t)route_reply_index(cluster, pending, id);
    return true;
}

static void route_send_subset(struct cluster *cluster, struct pending *pending,
                              const struct command *command, size_t index)
{
    struct buf clients = {0};
    struct command share = *command;
    struct result result = {0};
    struct cluster_msg reply;

    if (!pending_write_ids(pending, command->clients, index, &clients)) {
        pending_give_up(pending, &pending->replies[index]);
        buf_free(&clients);
        return;
    }
    share.clients = str_of(&clients);
    if (index == 0) {
        hub_apply(cluster->hub, &share, &result);
        reply = (struct cluster_msg){.result = result, .list = str_of(&result.list)};
        pending_take_reply(pending, &pending->replies[0], &reply);
        buf_free(&result.list);
    } else if (!route_request(cluster, pending, index, &share)) {
        pending_fail_ids(pending, index);
    }
    buf_free(&clients);
}

static bool route_apply_to_owners(struct cluster *cluster, const struct command *command,
                                  bool receipt, const struct pending_origin *origin,
                                  struct result *result)
{
    struct pending *pending;

    if (!origin->is_node && route_must_wait(cluster, command))
        return route_hold_back(cluster, command, receipt, origin, result);
    pending = state_begin(cluster, PENDING_COMMAND, command, receipt, origin, result);
    if (!pending)
        return true;
    if (!route_split(cluster, pending, command))
        return state_reject(cluster, pending, result, "out of memory");
    for (size_t index = 0; index < pending->reply_count; index++)
        route_send_subset(cluster, pending, command, index);
    state_finish_if_done(cluster, pending);
    return false;
}

/* --- all nodes -------------------------------------------------------------------------------- */

/* Sends a message to all nodes, and expects a reply of each. False without memory. */
static bool route_ask_all(struct cluster *cluster, struct pending *pending,
                          const struct cluster_msg *msg)
{
    for (struct peer *peer = links_all(cluster->links); peer; peer = peer->next) {
        struct pending_reply *reply = pending_expect(pending, &peer->id);

        if (!reply)
            return false;
        if (!state_send(cluster, peer, msg))
            pending_give_up(pending, reply);
    }
    return true;
}

static bool route_list_online(struct cluster *cluster, const struct command *command,
                              const struct pending_origin *origin, struct result *result)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .at = cluster->now, .command = *command};
    struct pending *pending = state_begin(cluster, PENDING_COMMAND, command, false, origin, result);

    if (!pending)
        return true;
    hub_apply(cluster->hub, command, &pending->result);
    msg.id = pending->id;
    pending->incomplete = !state_knows_all(cluster);
    if (!route_ask_all(cluster, pending, &msg))
        return state_reject(cluster, pending, result, "out of memory");
    state_finish_if_done(cluster, pending);
    return false;
}

/* Asks a node that a command of roster.h is for; this one as well. */
static void route_ask(struct cluster *cluster, struct pending *pending, size_t index,
                      const struct command *command)
{
    const struct node_id *node = &pending->replies[index].node;
    struct pending_origin origin = {.is_node = true, .id = pending->id, .node = cluster->self};
    const struct peer *peer = links_find(cluster->links, node);
    struct result result = {0};

    if (!node_equal(node, &cluster->self)) {
        if (!peer || peer->version < WIRE_VERSION_ROSTER ||
            !route_request(cluster, pending, index, command))
            pending_give_up(pending, &pending->replies[index]);
    } else if (route_apply_here(cluster, command, &origin, &result)) {
        state_reply(cluster, &origin, &result);
        buf_free(&result.list);
    }
}

/* A command of roster.h, for one node or for all. */
static bool route_apply_to_nodes(struct cluster *cluster, const struct command *given,
                                 const struct pending_origin *origin, struct result *result)
{
    char position[ROSTER_POSITION_MAX];
    struct buf after = BUF_INIT(position);
    struct command command = *given;
    struct pending *pending;

    if (!origin->is_node && route_must_wait(cluster, given))
        return route_hold_back(cluster, given, false, origin, result);
    pending = state_keep(cluster, PENDING_COMMAND, given, false, origin, result);
    if (!pending)
        return true;
    if (!census_expect(cluster, pending, &command, &after, result)) {
        state_abandon(cluster, pending);
        return true;
    }
    for (size_t index = pending->reply_count; index-- > 0;)
        route_ask(cluster, pending, index, &command); /* this node last: that may finish it */
    if (!node_equal(&pending->replies[0].node, &cluster->self))
        state_finish_if_done(cluster, pending);
    return false;
}

static bool route_publish(struct cluster *cluster, const struct command *command, bool receipt,
                          const struct pending_origin *origin, struct result *result)
{
    const char *reason = state_publishing_reason(cluster);
    uint16_t slot = state_slot_of(command);
    bool counted = receipt || command->once;
    struct cluster_msg msg = {.kind = MSG_SEND, .counted = counted, .command = *command};
    struct cluster_msg question = {.kind = MSG_COUNT, .slot = slot};
    struct pending *pending = NULL;

    if (reason)
        state_fail(result, RESULT_UNREACHABLE, reason);
    else
        pending = state_begin(cluster, PENDING_COMMAND, command, receipt, origin, result);
    if (!pending)
        return true;
    msg.id = question.id = pending->id | ROUTE_SEND;
    if (!state_publish(cluster, &msg, LANE_SEND, slot, NULL))
        return state_reject(cluster, pending, result, "too much is waiting for RabbitMQ already");
    cluster->sent[pending->partition] = pending->id;
    pending->echo_missing = true;
    if (counted && !route_ask_all(cluster, pending, &question))
        pending->incomplete = true;
    return false;
}

bool route_apply(struct cluster *cluster, const struct command *command, bool receipt, uint64_t id,
                 struct result *result)
{
    struct pending_origin origin = {.id = id};

    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_BIND:
    case COMMAND_UNBIND:
    case COMMAND_CLOSE_CLIENT:
    case COMMAND_CLIENT_INFO:
        return route_apply_to_owner(cluster, command, receipt, &origin, result);
    case COMMAND_SEND_TO_CLIENTS:
        return route_apply_to_owners(cluster, command, receipt, &origin, result);
    case COMMAND_ONLINE_LIST:
        return route_list_online(cluster, command, &origin, result);
    case COMMAND_COUNT_CLIENTS:
    case COMMAND_LIST_CLIENTS:
    case COMMAND_LIST_GROUPS:
    case COMMAND_BIND_USER:
    case COMMAND_UNBIND_USER:
    case COMMAND_CLOSE_USER:
        return route_apply_to_nodes(cluster, command, &origin, result);
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        break;
    }
    return route_publish(cluster, command, receipt, &origin, result);
}

/* --- held back -------------------------------------------------------------------------------- */

/* Applies a command whose earlier sends have come back. */
static void route_release(struct cluster *cluster, struct pending *pending)
{
    struct buf decoded = {0}; /* its own: applying it may write and read messages */
    struct pending_origin origin = pending->origin;
    struct cluster_msg msg;
    bool done = true;

    origin.expires = pending->deadline; /* the time it was held back counts */
    if (msg_read(str_of(&pending->text), &decoded, &msg)) {
        msg.command.message_id =
            pending->receipt ? str_of(&pending->message_id) : msg.command.message_id;
        if (pending->command == COMMAND_SEND_TO_CLIENTS)
            done = route_apply_to_owners(cluster, &msg.command, pending->receipt, &origin,
                                         &pending->result);
        else if (pending->command >= COMMAND_COUNT_CLIENTS)
            done = route_apply_to_nodes(cluster, &msg.command, &origin, &pending->result);
        else
            done = route_apply_here(cluster, &msg.command, &origin, &pending->result);
    } else {
        pending_fail(pending, "out of memory");
    }
    buf_free(&decoded);
    if (done)
        state_finish(cluster, pending);
    else
        state_abandon(cluster, pending); /* a new request continues */
}

static void route_release_held(struct cluster *cluster, unsigned partition)
{
    struct pending_list *held = &cluster->held_back[partition];

    while (held->first && held->first->send_id <= cluster->echoed[partition])
        route_release(cluster, held->first);
}

/* A send has come back or failed, and with it all earlier ones of its partition. */
static void route_on_echo(struct cluster *cluster, unsigned partition, uint64_t id)
{
    if (cluster->echoed[partition] < id)
        cluster->echoed[partition] = id;
    route_release_held(cluster, partition);
}

/* --- publications that come ------------------------------------------------------------------- */

static bool route_take_send(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg)
{
    bool is_own = node_equal(&batch->origin, &cluster->self);
    struct result result = {0};
    struct pending *pending;

    hub_apply(cluster->hub, &msg->command, &result);
    if (result.code == RESULT_UNREACHABLE)
        return false;
    if (!is_own) {
        if (msg->counted)
            receipt_keep(cluster, &batch->origin, msg->id, &result);
        return true;
    }
    pending = pending_find(&cluster->pendings, route_request_id(msg->id));
    if (pending && pending->echo_missing) {
        pending->echo_missing = false;
        receipt_add(&pending->result, &result);
        state_finish_if_done(cluster, pending);
    }
    route_on_echo(cluster, batch->partition, route_request_id(msg->id));
    return true;
}

/* A node will not reply; it may have done what it was asked. */
static void route_give_up(struct pending *pending, size_t index)
{
    if (!pending->owners) {
        pending_give_up(pending, &pending->replies[index]);
        return;
    }
    pending->incomplete = true; /* a receipt lacks its counts */
    pending_fail_ids(pending, index);
}

void route_take_failed(struct cluster *cluster, uint64_t id, unsigned partition, struct str why)
{
    uint64_t number = route_request_id(id);
    size_t index = (size_t)((id & ~ROUTE_SEND) >> ROUTE_REPLY_SHIFT);
    struct pending *pending = pending_find(&cluster->pendings, number);

    if (id & ROUTE_SEND) {
        if (pending && pending->echo_missing) {
            pending_set_error(pending, RESULT_UNREACHABLE, why);
            state_finish(cluster, pending);
        }
        route_on_echo(cluster, partition, number);
    } else if (pending && index < pending->reply_count && !pending->replies[index].done) {
        route_give_up(pending, index);
        state_finish_if_done(cluster, pending);
    }
}

void route_take_bus_down(struct cluster *cluster)
{
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++)
        route_on_echo(cluster, partition, cluster->sent[partition]);
}

/* --- messages of nodes ------------------------------------------------------------------------ */

/* Logs a request that came later than its origin waits: it is not done. */
static void route_log_late(struct cluster *cluster, const struct peer *peer, int64_t age)
{
    char name[NODE_TEXT_MAX];
    struct log_field fields[] = {{.name = "node", .text = {name, node_write(&peer->id, name)}},
                                 {.name = "age", .number = age},
                                 {0}};

    log_write(cluster->log, LOG_WARN,
              "a request from another node came too late and was not carried out", fields);
    cluster->counters.late++;
}

static void route_take_request(struct cluster *cluster, struct peer *peer,
                               const struct cluster_msg *msg)
{
    int64_t age = order_age(&peer->clock, msg->at, cluster->now);
    struct pending_origin origin = {.is_node = true,
                                    .id = msg->id,
                                    .node = peer->id,
                                    .expires = cluster->now + state_timeout(cluster) - age};
    struct result result = {0};
    bool done = true;

    if (origin.expires <= cluster->now) {
        route_log_late(cluster, peer, age);
        state_fail(&result, RESULT_UNREACHABLE,
                   "the request came too late and was not carried out");
    } else if (!wire_command_is_valid(&msg->command) || wire_command_is_published(&msg->command)) {
        state_fail(&result, RESULT_MALFORMED, "this is not a request for one node");
    } else {
        done = route_apply_here(cluster, &msg->command, &origin, &result);
    }
    if (done)
        state_reply(cluster, &origin, &result);
    buf_free(&result.list);
}

static void route_take_reply(struct cluster *cluster, struct peer *peer,
                             const struct cluster_msg *msg)
{
    struct pending *pending = pending_find(&cluster->pendings, route_request_id(msg->id));
    struct pending_reply *reply = pending ? pending_expected(pending, &peer->id) : NULL;

    if (!reply)
        return; /* given up already */
    if (reply->after_send > peer->passed[pending->partition])
        peer->passed[pending->partition] = reply->after_send;
    if (pending->owners && msg->result.code != RESULT_SUCCESS)
        pending_fail_ids(pending, (size_t)(reply - pending->replies));
    else
        pending_take_reply(pending, reply, msg);
    state_finish_if_done(cluster, pending);
}

void route_take_message(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg)
{
    switch (msg->kind) {
    case MSG_REQUEST:
        route_take_request(cluster, peer, msg);
        break;
    case MSG_REPLY:
        route_take_reply(cluster, peer, msg);
        break;
    case MSG_COUNT:
        receipt_take_question(cluster, peer, msg);
        break;
    case MSG_STATUS:
        order_age(&peer->clock, msg->at, cluster->now);
        peer->status_at = cluster->now;
        peer->ready = msg->ready;
        peer->was_ready |= msg->ready;
        break;
    case MSG_MOVED:
    case MSG_ADOPT:
    case MSG_ADOPTED:
        adopt_take_message(cluster, peer, msg);
        break;
    case MSG_SEND: /* comes only through RabbitMQ */
    case MSG_LEAVE:
    case MSG_ACCOUNT:
        break;
    }
}

bool route_take_publication(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg)
{
    struct peer *peer;

    if (msg->kind == MSG_SEND && wire_command_is_valid(&msg->command) &&
        wire_command_is_published(&msg->command)) {
        return route_take_send(cluster, batch, msg);
    } else if (msg->kind == MSG_ADOPT) {
        adopt_take_publication(cluster, batch, msg);
    } else if (msg->kind == MSG_REQUEST && str_equal(msg->to, str_from(cluster->text))) {
        peer = links_find(cluster->links, &batch->origin);
        if (peer && peer->link) /* else there is no way to reply, and no clock to compare */
            route_take_request(cluster, peer, msg);
    }
    return true;
}

/* --- slots and systems ------------------------------------------------------------------------ */

/* A slot is bound, or a system found: finishes the request if nothing else is missing. */
static void route_resume(struct cluster *cluster, struct pending *pending)
{
    struct buf decoded = {0};
    struct cluster_msg msg;

    if (pending->looking_up || !state_await_slots(cluster, pending))
        return;
    if (pending->deadline <= cluster->now) {
        pending_fail(pending, "RabbitMQ did not bind in time");
    } else if (pending->kind == PENDING_BIND) {
        if (!msg_read(str_of(&pending->text), &decoded, &msg))
            pending_fail(pending, "out of memory");
        else if (!roster_apply(cluster->hub, &msg.command, pending->id, &pending->result))
            pending->kind = PENDING_WALK;
        buf_free(&decoded);
    }
    if (pending->kind != PENDING_WALK)
        state_finish(cluster, pending);
}

void route_take_bound(struct cluster *cluster, uint16_t slot, uint32_t version)
{
    struct pending *pending = state_take_bound(cluster, slot, version), *next;

    for (; pending; pending = next) {
        next = pending->next_waiter;
        (pending->kind == PENDING_ADOPT ? adopt_take_bound : route_resume)(cluster, pending);
    }
    state_drop_slot(cluster, slot);
}

/* The slots of the channels that a client is to be in. Returns how many. */
static size_t route_claimed_slots(const struct ticket_claims *claims,
                                  uint16_t slots[PENDING_SLOTS_MAX])
{
    char room[TICKET_NAME_MAX];
    struct str rest = claims->groups, name = {0};
    size_t count = 0;

    slots[count++] = wire_slot(WIRE_SYSTEM, claims->system, name);
    if (claims->user.length)
        slots[count++] = wire_slot(WIRE_USER, claims->system, claims->user);
    while (count < PENDING_SLOTS_MAX && ticket_next_group(&rest, room, &name))
        slots[count++] = wire_slot(WIRE_GROUP, claims->system, name);
    return count;
}

/* Has the slots bound that an admission needs. */
static void route_need_claimed(struct cluster *cluster, struct pending *pending)
{
    uint16_t slots[PENDING_SLOTS_MAX];
    size_t count = route_claimed_slots(&pending->claims, slots);

    for (size_t i = 0; i < count; i++)
        state_need_slot(cluster, pending, slots[i]);
}

bool route_admit(struct cluster *cluster, const struct ticket_claims *claims, uint64_t id,
                 struct result *result)
{
    struct pending_origin origin = {.id = id};
    struct command command = {.system = claims->system};
    uint16_t slots[PENDING_SLOTS_MAX];
    size_t count = route_claimed_slots(claims, slots), bound = 0;
    bool known = state_knows_system(cluster, claims->system);
    struct pending *pending;

    while (bound < count && cluster->slots[slots[bound]].bound)
        bound++;
    if (known && bound == count)
        return true;
    pending = state_begin(cluster, PENDING_ADMIT, &command, false, &origin, result);
    if (!pending)
        return true;
    pending->looking_up = !known;
    if (!ticket_copy_claims(claims, &pending->text, &pending->claims) ||
        (!known && !registry_look_up(cluster->registry, pending->id, claims->system)))
        return state_reject(cluster, pending, result, "out of memory");
    if (known) {
        route_need_claimed(cluster, pending);
        state_await_slots(cluster, pending);
    }
    return false;
}

void route_take_found(struct cluster *cluster, struct pending *pending, enum result_code code,
                      struct str error)
{
    pending->looking_up = false;
    if (code != RESULT_SUCCESS) {
        pending_set_error(pending, code, error);
        state_finish(cluster, pending);
        return;
    }
    route_need_claimed(cluster, pending);
    route_resume(cluster, pending);
}

/* --- timeouts --------------------------------------------------------------------------------- */

void route_give_up_node(struct cluster *cluster, const struct node_id *node)
{
    struct pending *next;

    for (struct pending *pending = cluster->requests.first; pending; pending = next) {
        struct pending_reply *reply = pending_expected(pending, node);

        next = pending->next;
        if (!reply)
            continue;
        route_give_up(pending, (size_t)(reply - pending->replies));
        state_finish_if_done(cluster, pending);
    }
}

/* Ends a request with what is still missing. */
static void route_expire_one(struct cluster *cluster, struct pending *pending)
{
    for (size_t index = 0; index < pending->reply_count; index++)
        if (!pending->replies[index].done)
            route_give_up(pending, index);
    if (pending->echo_missing)
        pending_fail(pending, "the message did not come back from RabbitMQ in time: whether it was "
                              "delivered is not known");
    if (pending->kind == PENDING_BIND || pending->kind == PENDING_ADMIT)
        pending_fail(pending, pending->looking_up ? "Redis does not answer in time"
                                                  : "RabbitMQ did not bind in time");
    if (pending->kind == PENDING_WALK)
        pending_fail(pending, "too many lists are under way");
    if (pending->kind == PENDING_HELD_BACK)
        pending_fail(pending, "what was sent before did not come back from RabbitMQ in time");
    if (pending->kind == PENDING_COUNT) {
        receipt_forget(cluster, pending);
        pending_fail(pending, "the message did not come in time");
    }
    state_finish(cluster, pending);
}

static void route_expire_list(struct cluster *cluster, struct pending_list *list)
{
    while (list->first && list->first->deadline <= cluster->now)
        route_expire_one(cluster, list->first);
}

void route_expire(struct cluster *cluster)
{
    route_expire_list(cluster, &cluster->requests);
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++)
        route_expire_list(cluster, &cluster->held_back[partition]);
}

int64_t route_deadline(const struct cluster *cluster)
{
    const struct pending *first = cluster->requests.first;
    int64_t earliest = first ? first->deadline : INT64_MAX;

    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++) {
        first = cluster->held_back[partition].first;
        if (first && first->deadline < earliest)
            earliest = first->deadline;
    }
    return earliest;
}

/* cluster.c - makes many hubs look like one. */
#include "cluster.h"

#include "broker.h"
#include "identity.h"
#include "json.h"
#include "order.h"
#include "peer.h"
#include "registry.h"
#include "table.h"
#include "task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_GRACE 2000  /* milliseconds after joining for links and broker, before serving */
#define SETTLE_TIME 3000  /* milliseconds after coming back to RabbitMQ for the others to do so */
#define CONFIRM_TIME 1000 /* milliseconds without a confirm after which nothing is published */
#define BREAK_TIME 20000  /* and after which the connection is given up */
#define COUNTS_KEPT 1024  /* counts of publications that their origin may still ask for */
#define NOTICE_TICKET ((uint64_t)1 << 63) /* marks the number of a notice's task */
#define HOLD_TIME 300 /* milliseconds for which a command waits for publications before it */

/* What became of a publication on this node. */
struct count {
    struct identity origin;
    uint64_t number;
    unsigned order;
    struct outcome outcome;
};

/* A system that is known to be registered. */
struct known {
    size_t length;
    char name[];
};

/* Who waits for the outcome of a command. */
struct requester {
    bool is_node;
    uint64_t ticket;
    struct identity node;
};

struct cluster {
    struct cluster_options options;
    struct hub *hub;
    struct registry *registry;
    struct broker *broker; /* from when the node has joined */
    struct peers *peers;
    struct identity self;
    char life[IDENTITY_TEXT_MAX];
    uint32_t seed;
    int64_t now;

    bool joined, listed, served; /* in the registry; others were listed; can serve */
    int64_t joined_at;
    int64_t trust_at; /* from when on the registry is believed that a node is dead */
    bool waiting;     /* for the registry */
    char waiting_for[500], clash[500];

    struct cluster_figures figures; /* as far as they are counted */
    bool up, tried;                 /* RabbitMQ is connected; that has been tried at least once */
    int64_t up_since;
    uint64_t outstanding;      /* publications neither confirmed nor refused */
    int64_t outstanding_since; /* when the first of them was published, or the last confirm came */
    uint64_t numbers[ORDERS];  /* of the last publication of this node, */
    struct recents recents[ORDERS]; /* and of some before it */
    struct origins origins;
    struct {
        uint64_t number;
        int64_t at;
    } own[ORDERS]; /* the last publication that comes back to this node */
    bool wants_slot[HUB_SLOTS], has_slot[HUB_SLOTS]; /* asked to be bound; is bound */
    uint32_t slot_versions[HUB_SLOTS];               /* of the last thing asked for */
    uint32_t slot_waits[HUB_SLOTS];                  /* tasks that wait for this one */

    struct tasks tasks;
    struct tasks held;    /* commands that wait for publications before them */
    struct tasks notices; /* that are published and not confirmed */
    bool dropping;        /* notices, and that has been told */
    int64_t announce_by;  /* when at the latest this node's clients are announced anew; 0: never */
    struct task *done, *last_done, *given; /* for sessions: to be given, and the one given last */
    struct cluster_result result;

    struct table known;
    struct count counts[COUNTS_KEPT]; /* a ring */
    size_t next_count;
    struct buf decoded, text; /* of the letter being read, and of the one being written */
};

/* --- what can be done now -------------------------------------------------------------------- */

static void fail(struct outcome *outcome, enum outcome_code code, const char *error)
{
    outcome->code = code;
    outcome->error = error;
}

const char *cluster_broken(const struct cluster *cluster)
{
    return cluster && cluster->clash[0] ? cluster->clash : NULL;
}

static bool are_all_linked(const struct cluster *cluster)
{
    for (const struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next)
        if (peer->listed && peer->alive && !peer->link)
            return false;
    return cluster->listed;
}

const char *cluster_unready(const struct cluster *cluster)
{
    if (!cluster || cluster->served)
        return NULL;
    if (!cluster->joined)
        return cluster->waiting_for[0] ? cluster->waiting_for : "joining the cluster";
    return "joining the cluster: the links to the other nodes are not up yet";
}

/* Why nothing can be published now, or NULL. Right after RabbitMQ has come back the other nodes may
 * not have bound their slots yet: what is published then would not reach them. */
static const char *publishing_trouble(const struct cluster *cluster)
{
    if (!cluster->up)
        return "RabbitMQ cannot be reached";
    if (cluster->outstanding && cluster->now - cluster->outstanding_since > CONFIRM_TIME)
        return "RabbitMQ does not answer";
    if (cluster->now - cluster->up_since >= SETTLE_TIME)
        return NULL;
    for (const struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next)
        if (!peer->ready && peers_reach(cluster->peers, peer))
            return "RabbitMQ has come back, and not all nodes have found it yet";
    return NULL;
}

const char *cluster_trouble(const struct cluster *cluster)
{
    const char *why = cluster_unready(cluster);

    if (why || !cluster)
        return why;
    if (cluster->waiting)
        return cluster->waiting_for;
    return publishing_trouble(cluster);
}

struct cluster_figures cluster_figures(const struct cluster *cluster)
{
    struct cluster_figures figures = cluster->figures;

    for (const struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next) {
        figures.nodes++;
        figures.links += peer->link != NULL;
    }
    figures.redis_up = cluster->joined && !cluster->waiting;
    figures.rabbitmq_up = cluster->up;
    return figures;
}

/* Begins to serve once the others can be reached, or have been waited for long enough. */
static void check_ready(struct cluster *cluster)
{
    struct log_field fields[] = {{.name = "node", .text = str_from(cluster->life)}, {0}};
    bool waited = cluster->now - cluster->joined_at >= START_GRACE;

    if (cluster->served || !cluster->joined ||
        !(waited || (are_all_linked(cluster) && cluster->tried)))
        return;
    cluster->served = true;
    log_write(cluster->options.log, LOG_INFO, "joined the cluster", fields);
}

/* --- letters --------------------------------------------------------------------------------- */

static bool write_letter(struct cluster *cluster, const struct letter *letter)
{
    cluster->text.length = 0;
    if (letter_write(&cluster->text, letter))
        return true;
    buf_free(&cluster->text);
    return false;
}

static bool send_letter(struct cluster *cluster, struct peer *peer, const struct letter *letter)
{
    return write_letter(cluster, letter) &&
           peers_send(cluster->peers, peer, str_of(&cluster->text));
}

static void answer_node(struct cluster *cluster, const struct identity *node, uint64_t id,
                        const struct outcome *outcome)
{
    struct letter letter = {.kind = LETTER_ANSWER, .id = id, .outcome = *outcome};
    struct peer *peer = peers_find(cluster->peers, node);

    if (peer)
        send_letter(cluster, peer, &letter);
}

/* --- the end of tasks ------------------------------------------------------------------------ */

static void drop_slot_if_unused(struct cluster *cluster, uint16_t slot);
static void take_hub_events(struct cluster *cluster);

/* Frees a task that is in no list, and the slots that it kept bound. */
static void free_task(struct cluster *cluster, struct task *task)
{
    for (unsigned i = 0; i < task->slot_count; i++) {
        cluster->slot_waits[task->slots[i]]--;
        drop_slot_if_unused(cluster, task->slots[i]);
    }
    task_free(task);
}

static struct tasks *list_of(struct cluster *cluster, enum task_kind kind)
{
    return kind == TASK_HELD     ? &cluster->held
           : kind == TASK_NOTICE ? &cluster->notices
                                 : &cluster->tasks;
}

/* Nothing is waited for any more, or not longer: whoever waits is told. */
static void finish(struct cluster *cluster, struct task *task)
{
    task_unlink(list_of(cluster, task->kind), task);
    task_merge(task);
    if (task->outcome.list.failed)
        task_fail(task, "out of memory");
    if (task->for_node) {
        answer_node(cluster, &task->asker, task->ticket, &task->outcome);
        free_task(cluster, task);
        return;
    }
    if (cluster->last_done)
        cluster->last_done->next = task;
    else
        cluster->done = task;
    cluster->last_done = task;
}

static void finish_if_done(struct cluster *cluster, struct task *task)
{
    if (task_is_done(task))
        finish(cluster, task);
}

const struct cluster_result *cluster_result(struct cluster *cluster)
{
    struct task *task;

    if (!cluster)
        return NULL;
    if (cluster->given)
        free_task(cluster, cluster->given);
    cluster->given = task = cluster->done;
    if (!task)
        return NULL;
    cluster->done = task->next;
    if (!cluster->done)
        cluster->last_done = NULL;
    cluster->result = (struct cluster_result){
        .ticket = task->ticket,
        .is_admission = task->kind == TASK_ADMIT,
        .system = task->system,
        .command = task->command,
        .receipt = task->receipt,
        .message_id = str_of(&task->message_id),
        .outcome = task->outcome,
        .incomplete = task->incomplete,
    };
    if (task->outcome.code == OUTCOME_UNKNOWN_SYSTEM)
        cluster->result.admission = CLUSTER_UNKNOWN;
    else if (task->outcome.code != OUTCOME_SUCCESS)
        cluster->result.admission = CLUSTER_UNREACHABLE;
    return &cluster->result;
}

/* Begins a task for a command. NULL, with the outcome set, without memory. */
static struct task *begin(struct cluster *cluster, enum task_kind kind,
                          const struct command *command, bool receipt, const struct requester *who,
                          struct outcome *outcome)
{
    int64_t patience =
        kind == TASK_HELD ? HOLD_TIME : (int64_t)cluster->options.config->rpc_timeout;
    struct task *task = task_new(list_of(cluster, kind), kind, cluster->now + patience);

    if (task) {
        task->for_node = who->is_node;
        task->ticket = who->ticket;
        task->asker = who->node;
        task->command = command->kind;
        task->receipt = receipt;
        if (!receipt || buf_append(&task->message_id, command->message_id))
            return task;
        task_unlink(list_of(cluster, kind), task);
        free_task(cluster, task);
    }
    fail(outcome, OUTCOME_UNREACHABLE, "out of memory");
    return NULL;
}

/* Gives a task up that has just begun. Its value is DONE. */
static enum cluster_status abandon(struct cluster *cluster, struct task *task,
                                   struct outcome *outcome, const char *error)
{
    task_unlink(list_of(cluster, task->kind), task);
    free_task(cluster, task);
    fail(outcome, OUTCOME_UNREACHABLE, error);
    return CLUSTER_DONE;
}

/* --- slots ----------------------------------------------------------------------------------- */

static void want_slot(struct cluster *cluster, uint16_t slot)
{
    if (cluster->wants_slot[slot])
        return;
    cluster->wants_slot[slot] = true;
    broker_bind(cluster->broker, slot, ++cluster->slot_versions[slot], true);
}

/* A slot that is being bound is looked at again when that is done. */
static void drop_slot_if_unused(struct cluster *cluster, uint16_t slot)
{
    if (!cluster->has_slot[slot] || cluster->slot_waits[slot] ||
        cluster->hub->shared->audiences[slot])
        return;
    cluster->wants_slot[slot] = cluster->has_slot[slot] = false;
    broker_bind(cluster->broker, slot, ++cluster->slot_versions[slot], false);
}

static void follow_changed_slots(struct cluster *cluster)
{
    struct hub_shared *shared = cluster->hub->shared;

    for (size_t i = 0; i < shared->changed_count; i++) {
        uint16_t slot = shared->changed[i];

        shared->is_changed[slot] = false;
        if (shared->audiences[slot])
            want_slot(cluster, slot);
        else
            drop_slot_if_unused(cluster, slot);
    }
    shared->changed_count = 0;
}

/* The task needs this slot: it is bound, or will be, and stays so until the task is freed. */
static void need_slot(struct cluster *cluster, struct task *task, uint16_t slot)
{
    task->slots[task->slot_count++] = slot;
    cluster->slot_waits[slot]++;
    want_slot(cluster, slot);
}

static bool has_its_slots(const struct cluster *cluster, const struct task *task)
{
    for (unsigned i = 0; i < task->slot_count; i++)
        if (!cluster->has_slot[task->slots[i]])
            return false;
    return !task->looking_up;
}

/* A slot has been bound, or a system found: does what waited for that alone. */
static void go_on(struct cluster *cluster, struct task *task)
{
    struct letter letter;

    if (!has_its_slots(cluster, task))
        return;
    if (task->kind == TASK_BIND) {
        if (letter_read(str_of(&task->text), &cluster->decoded, &letter)) {
            hub_apply(cluster->hub, &letter.command, &task->outcome);
            take_hub_events(cluster);
        } else {
            task_fail(task, "out of memory");
        }
    }
    finish(cluster, task);
}

static void take_bound(struct cluster *cluster, uint16_t slot, uint32_t version)
{
    struct task *next;

    if (version != cluster->slot_versions[slot])
        return; /* something else has been asked for since */
    cluster->has_slot[slot] = cluster->wants_slot[slot];
    for (struct task *task = cluster->tasks.first; task; task = next) {
        next = task->next;
        if (task->slot_count)
            go_on(cluster, task);
    }
    drop_slot_if_unused(cluster, slot);
}

/* --- commands for one client ----------------------------------------------------------------- */

/* Binds a client of this node, once the broker has the bindings that this needs. */
static enum cluster_status bind_here(struct cluster *cluster, const struct command *command,
                                     const struct requester *who, struct outcome *outcome)
{
    struct letter letter = {.kind = LETTER_REQUEST, .command = *command};
    uint16_t group = hub_slot(AUDIENCE_GROUP, command->system, command->group);
    uint16_t user = hub_slot(AUDIENCE_USER, command->system, command->user);
    bool needs_user = command->user.length && !cluster->has_slot[user];
    struct task *task;

    if (!hub_is_online(cluster->hub, command->system, command->client) ||
        (cluster->has_slot[group] && !needs_user)) {
        hub_apply(cluster->hub, command, outcome);
        return CLUSTER_DONE;
    }
    if (!cluster->up) {
        fail(outcome, OUTCOME_UNREACHABLE, "RabbitMQ cannot be reached");
        return CLUSTER_DONE;
    }
    task = begin(cluster, TASK_BIND, command, false, who, outcome);
    if (!task)
        return CLUSTER_DONE;
    if (!letter_write(&task->text, &letter))
        return abandon(cluster, task, outcome, "out of memory");
    need_slot(cluster, task, group);
    if (command->user.length)
        need_slot(cluster, task, user);
    return CLUSTER_LATER;
}

static enum cluster_status apply_here(struct cluster *cluster, const struct command *command,
                                      const struct requester *who, struct outcome *outcome)
{
    if (command->kind == COMMAND_BIND)
        return bind_here(cluster, command, who, outcome);
    hub_apply(cluster->hub, command, outcome);
    return CLUSTER_DONE;
}

/* --- what must come before ------------------------------------------------------------------- */

static unsigned order_of(struct str system);

/* The publications that a command here must wait for: those that were published before it by this
 * node and by the one that asks, and are for this node too. Without that a message to one client
 * would overtake one to its group. */
struct prior {
    uint64_t own, asker;
};

static struct prior find_prior(const struct cluster *cluster, unsigned order,
                               const struct requester *who, struct str after)
{
    struct prior prior = {0};

    if (cluster->outstanding && cluster->now - cluster->outstanding_since > HOLD_TIME)
        return prior; /* nothing comes from RabbitMQ now: what need not wait does not */
    if (cluster->now - cluster->own[order].at < ORDER_RECENT)
        prior.own = cluster->own[order].number;
    if (who->is_node)
        prior.asker = recents_read_last(after, cluster->has_slot, HUB_SLOTS);
    return prior;
}

static bool has_come(const struct cluster *cluster, unsigned order, const struct identity *asker,
                     struct prior prior)
{
    return origins_have(&cluster->origins, &cluster->self, order, prior.own) &&
           origins_have(&cluster->origins, asker, order, prior.asker);
}

static enum cluster_status hold(struct cluster *cluster, const struct command *command,
                                bool receipt, const struct requester *who, struct prior prior,
                                struct outcome *outcome)
{
    struct letter letter = {.kind = LETTER_REQUEST, .command = *command};
    struct task *task = begin(cluster, TASK_HELD, command, receipt, who, outcome);

    if (!task)
        return CLUSTER_DONE;
    if (!letter_write(&task->text, &letter))
        return abandon(cluster, task, outcome, "out of memory");
    task->origin = who->node;
    task->order = order_of(command->system);
    task->number = prior.asker;
    task->own_number = prior.own;
    return CLUSTER_LATER;
}

/* Applies a command behind the publications that were published before it. */
static enum cluster_status apply_in_order(struct cluster *cluster, const struct command *command,
                                          bool receipt, const struct requester *who,
                                          struct str after, struct outcome *outcome)
{
    unsigned order = order_of(command->system);
    struct prior prior = find_prior(cluster, order, who, after);
    enum cluster_status status;

    if (command->kind != COMMAND_CLIENT_INFO && command->kind != COMMAND_ONLINE_LIST &&
        !has_come(cluster, order, &who->node, prior))
        return hold(cluster, command, receipt, who, prior, outcome);
    status = apply_here(cluster, command, who, outcome);
    take_hub_events(cluster); /* at once: what is asked for next must come behind them */
    return status;
}

static enum cluster_status apply_to_owners(struct cluster *cluster, const struct command *command,
                                           bool receipt, const struct requester *who,
                                           struct outcome *outcome);

/* What a held command waited for has come, or is not waited for any more. */
static void release(struct cluster *cluster, struct task *task)
{
    struct requester who = {.is_node = task->for_node, .ticket = task->ticket, .node = task->asker};
    struct letter letter;
    enum cluster_status status = CLUSTER_DONE;

    if (!letter_read(str_of(&task->text), &cluster->decoded, &letter)) {
        task_fail(task, "out of memory");
    } else if (task->command == COMMAND_SEND_TO_CLIENTS && !task->for_node) {
        status = apply_to_owners(cluster, &letter.command, task->receipt, &who, &task->outcome);
    } else {
        status = apply_here(cluster, &letter.command, &who, &task->outcome);
        take_hub_events(cluster);
    }
    if (status == CLUSTER_DONE) {
        finish(cluster, task);
        return;
    }
    task_unlink(&cluster->held, task); /* another task goes on with it */
    free_task(cluster, task);
}

/* Publications have come: applies the commands that waited for them, in the order they came. */
static void release_held(struct cluster *cluster)
{
    struct task *next;

    for (struct task *task = cluster->held.first; task; task = next) {
        struct prior prior = {task->own_number, task->number};

        next = task->next;
        if (has_come(cluster, task->order, &task->origin, prior))
            release(cluster, task);
    }
}

/* What was waited for does not come: RabbitMQ has lost it, or is stuck. */
static void stop_holding(struct cluster *cluster, struct task *task)
{
    origins_waive(&cluster->origins, &cluster->self, task->order, task->own_number);
    if (task->for_node)
        origins_waive(&cluster->origins, &task->origin, task->order, task->number);
    release_held(cluster);
}

/* --- commands for one client, wherever it is ------------------------------------------------- */

/* Sends a request to a node that is a part of the task already. */
static bool send_request(struct cluster *cluster, struct peer *peer, const struct task *task,
                         const struct command *command)
{
    struct buf after = {0};
    struct letter letter = {
        .kind = LETTER_REQUEST, .id = task->id, .at = cluster->now, .command = *command};
    bool sent = recents_write(&cluster->recents[order_of(command->system)], cluster->now, &after);

    letter.after = str_of(&after);
    sent = sent && send_letter(cluster, peer, &letter);
    buf_free(&after);
    return sent;
}

static enum cluster_status apply_to_owner(struct cluster *cluster, const struct command *command,
                                          bool receipt, const struct requester *who,
                                          struct outcome *outcome)
{
    struct identity owner;
    uint64_t number;
    bool opened = hub_open_id(cluster->hub, command->client, &owner, &number);
    struct peer *peer;
    struct task *task;

    if (opened && identity_same(&owner, &cluster->self))
        return apply_in_order(cluster, command, receipt, who, (struct str){0}, outcome);
    peer = opened ? peers_find(cluster->peers, &owner) : NULL;
    if (!peer) {
        fail(outcome, OUTCOME_OFFLINE, "client not online");
        return CLUSTER_DONE;
    }
    task = begin(cluster, TASK_COMMAND, command, receipt, who, outcome);
    if (!task)
        return CLUSTER_DONE;
    if (!task_add_part(task, &owner) || !send_request(cluster, peer, task, command))
        return abandon(cluster, task, outcome, "the client's node cannot be reached");
    return CLUSTER_LATER;
}

/* --- send_to_clients ------------------------------------------------------------------------- */

/* The part that an id goes to: that of its owner if it can be reached, else part 0, this node,
 * where it is found not to be online. */
static size_t part_of(struct cluster *cluster, struct task *task, struct json_value id)
{
    struct identity owner;
    uint64_t number;
    const struct peer *peer = NULL;

    if (hub_open_id(cluster->hub, id, &owner, &number))
        peer = peers_find(cluster->peers, &owner);
    if (!peer || !peers_reach(cluster->peers, peer))
        return 0;
    for (size_t i = 1; i < task->part_count; i++)
        if (identity_same(&task->parts[i].node, &owner))
            return i;
    return task_add_part(task, &owner) ? task->part_count - 1 : 0;
}

static size_t count_elements(struct str array)
{
    struct json_value element;
    size_t count = 0;

    while (json_next_element(&array, &element))
        count++;
    return count;
}

/* Notes for each id the part that it goes to. */
static bool share_out(struct cluster *cluster, struct task *task, const struct command *command)
{
    struct str rest = command->clients;
    struct json_value id;

    task->owner_count = count_elements(command->clients);
    task->owners = calloc(task->owner_count + 1, sizeof *task->owners);
    if (!task->owners || !buf_append(&task->text, command->clients) ||
        !task_add_part(task, &cluster->self))
        return false;
    for (size_t i = 0; json_next_element(&rest, &id); i++)
        task->owners[i] = (uint32_t)part_of(cluster, task, id);
    return true;
}

/* Appends the ids of one part as an array. */
static bool write_share(const struct task *task, struct str clients, size_t part, struct buf *out)
{
    struct json_value id;

    buf_append(out, STR("["));
    for (size_t i = 0; json_next_element(&clients, &id); i++) {
        if (task->owners[i] != part)
            continue;
        if (out->length > 1)
            buf_append(out, STR(","));
        buf_append(out, id.text);
    }
    return buf_append(out, STR("]"));
}

/* All ids of a part have failed. */
static void fail_share(struct task *task, size_t part, struct str share)
{
    struct letter letter = {.list = {share.at + 1, share.length - 2}};

    task_add_outcome(task, &task->parts[part], &letter);
}

static void send_share(struct cluster *cluster, struct task *task, const struct command *command,
                       size_t part)
{
    struct buf clients = {0};
    struct command share = *command;
    struct outcome outcome = {0};
    struct letter letter = {.kind = LETTER_REQUEST, .id = task->id, .at = cluster->now};
    struct peer *peer = peers_find(cluster->peers, &task->parts[part].node);

    if (!write_share(task, command->clients, part, &clients)) {
        task_give_up_part(task, &task->parts[part]);
        buf_free(&clients);
        return;
    }
    share.clients = str_of(&clients);
    letter.command = share;
    if (part == 0) {
        hub_apply(cluster->hub, &share, &outcome);
        letter = (struct letter){.outcome = outcome, .list = str_of(&outcome.list)};
        task_add_outcome(task, &task->parts[0], &letter);
        buf_free(&outcome.list);
    } else if (!peer || !send_request(cluster, peer, task, &share)) {
        fail_share(task, part, share.clients);
    }
    buf_free(&clients);
}

static enum cluster_status apply_to_owners(struct cluster *cluster, const struct command *command,
                                           bool receipt, const struct requester *who,
                                           struct outcome *outcome)
{
    struct task *task = begin(cluster, TASK_COMMAND, command, receipt, who, outcome);

    if (!task)
        return CLUSTER_DONE;
    if (!share_out(cluster, task, command))
        return abandon(cluster, task, outcome, "out of memory");
    for (size_t part = 0; part < task->part_count; part++)
        send_share(cluster, task, command, part);
    finish_if_done(cluster, task);
    return CLUSTER_LATER;
}

/* The share of this node must not overtake what was published before. */
static enum cluster_status apply_to_all_owners(struct cluster *cluster,
                                               const struct command *command, bool receipt,
                                               const struct requester *who, struct outcome *outcome)
{
    unsigned order = order_of(command->system);
    struct prior prior = find_prior(cluster, order, who, (struct str){0});

    if (!has_come(cluster, order, &who->node, prior))
        return hold(cluster, command, receipt, who, prior, outcome);
    return apply_to_owners(cluster, command, receipt, who, outcome);
}

/* A node has not answered for its share of the ids: they have failed. */
static void give_up_share(struct task *task, struct task_part *part)
{
    struct buf share = {0};
    size_t index = (size_t)(part - task->parts);

    if (write_share(task, str_of(&task->text), index, &share))
        fail_share(task, index, str_of(&share));
    else
        task_give_up_part(task, part);
    buf_free(&share);
}

static void give_up(struct task *task, struct task_part *part)
{
    if (task->owners)
        give_up_share(task, part);
    else
        task_give_up_part(task, part);
}

/* --- the online list ------------------------------------------------------------------------- */

/* Sends a letter to all nodes, each of which is a part of the task. */
static bool ask_all(struct cluster *cluster, struct task *task, const struct letter *letter)
{
    bool written = write_letter(cluster, letter);

    for (struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next) {
        struct task_part *part = task_add_part(task, &peer->identity);

        if (!part)
            return false;
        if (!written || !peers_send(cluster->peers, peer, str_of(&cluster->text)))
            task_give_up_part(task, part);
    }
    return true;
}

static enum cluster_status list_online(struct cluster *cluster, const struct command *command,
                                       const struct requester *who, struct outcome *outcome)
{
    struct letter letter = {.kind = LETTER_REQUEST, .at = cluster->now, .command = *command};
    struct task *task = begin(cluster, TASK_COMMAND, command, false, who, outcome);

    if (!task)
        return CLUSTER_DONE;
    hub_apply(cluster->hub, command, &task->outcome);
    letter.id = task->id;
    if (!ask_all(cluster, task, &letter))
        return abandon(cluster, task, outcome, "out of memory");
    finish_if_done(cluster, task);
    return CLUSTER_LATER;
}

/* --- publications ---------------------------------------------------------------------------- */

static uint16_t slot_of(const struct command *command)
{
    if (command->kind == COMMAND_SEND_TO_SYSTEM)
        return hub_slot(AUDIENCE_SYSTEM, command->system, (struct str){0});
    if (command->kind == COMMAND_SEND_TO_USER)
        return hub_slot(AUDIENCE_USER, command->system, command->user);
    return hub_slot(AUDIENCE_GROUP, command->system, command->group);
}

/* All that is published for one system has one order: a client belongs to one system. */
static unsigned order_of(struct str system)
{
    return hub_slot(AUDIENCE_SYSTEM, system, (struct str){0}) % ORDERS;
}

/* Publishes a send. `ticket` is a task's number, or 0 if nobody waits. *number becomes its number.
 */
static bool publish(struct cluster *cluster, const struct command *command, bool counted,
                    uint64_t ticket, int64_t deadline, uint64_t *number)
{
    uint16_t slot = slot_of(command);
    unsigned order = order_of(command->system);
    struct letter letter = {.kind = LETTER_PUBLISH,
                            .origin = str_from(cluster->life),
                            .number = cluster->numbers[order] + 1,
                            .counted = counted,
                            .command = *command};

    if (!write_letter(cluster, &letter) ||
        !broker_publish(cluster->broker, ticket, slot, order, str_of(&cluster->text), deadline))
        return false;
    cluster->figures.publishes++;
    *number = ++cluster->numbers[order];
    recents_note(&cluster->recents[order], slot, *number, cluster->now);
    if (cluster->has_slot[slot]) {
        cluster->own[order].number = *number;
        cluster->own[order].at = cluster->now;
    }
    if (cluster->outstanding++ == 0)
        cluster->outstanding_since = cluster->now;
    return true;
}

/* Asks all nodes how many of their clients a publication has reached. */
static bool ask_counts(struct cluster *cluster, struct task *task, const struct command *command)
{
    uint16_t slot = slot_of(command);
    struct letter letter = {.kind = LETTER_COUNT,
                            .id = task->id,
                            .number = task->number,
                            .slot = slot,
                            .order = order_of(command->system)};

    task->origin = cluster->self;
    task->order = (unsigned)letter.order;
    task->to_count = cluster->wants_slot[slot];
    return ask_all(cluster, task, &letter);
}

static enum cluster_status publish_command(struct cluster *cluster, const struct command *command,
                                           bool receipt, const struct requester *who,
                                           struct outcome *outcome)
{
    const char *trouble = publishing_trouble(cluster);
    struct task *task;

    if (trouble) {
        fail(outcome, OUTCOME_UNREACHABLE, trouble);
        return CLUSTER_DONE;
    }
    task = begin(cluster, TASK_COMMAND, command, receipt, who, outcome);
    if (!task)
        return CLUSTER_DONE;
    if (!publish(cluster, command, receipt, task->id, task->deadline, &task->number))
        return abandon(cluster, task, outcome, "too much waits for RabbitMQ already");
    task->to_confirm = true;
    if (receipt && !ask_counts(cluster, task, command))
        task->incomplete = true;
    return CLUSTER_LATER;
}

/* What a notice has told is noted in the registry, so that it is told there should this node die.
 */
static void end_notice(struct cluster *cluster, struct task *task, bool confirmed)
{
    if (confirmed)
        registry_note(cluster->registry, str_of(&task->text), str_of(&task->note));
    task_unlink(&cluster->notices, task);
    task_free(task);
}

static void take_confirm(struct cluster *cluster, uint64_t ticket, bool confirmed)
{
    bool is_notice = ticket & NOTICE_TICKET;
    struct task *task =
        task_find(is_notice ? &cluster->notices : &cluster->tasks, ticket & ~NOTICE_TICKET);

    cluster->outstanding--;
    cluster->outstanding_since = cluster->now;
    if (confirmed)
        cluster->figures.confirms++;
    else
        cluster->figures.refusals++;
    if (!task)
        return;
    if (is_notice) {
        end_notice(cluster, task, confirmed);
        return;
    }
    task->to_confirm = false;
    if (!confirmed)
        task_fail(task, "RabbitMQ did not take the message");
    if (!confirmed || task_is_done(task))
        finish(cluster, task);
}

/* --- what was published ---------------------------------------------------------------------- */

static void add_counts(struct outcome *sum, const struct outcome *counts)
{
    sum->matched += counts->matched;
    sum->queued += counts->queued;
    sum->dropped += counts->dropped;
}

static bool waits_for_count(const struct task *task, const struct count *count)
{
    return task->to_count && task->number == count->number && task->order == count->order &&
           identity_same(&task->origin, &count->origin);
}

/* Keeps a count for who asks later, and gives it to who has asked. */
static void keep_count(struct cluster *cluster, const struct count *count)
{
    struct task *next;

    cluster->counts[cluster->next_count++ % COUNTS_KEPT] = *count;
    for (struct task *task = cluster->tasks.first; task; task = next) {
        next = task->next;
        if (!waits_for_count(task, count))
            continue;
        add_counts(&task->outcome, &count->outcome);
        task->to_count = false;
        finish_if_done(cluster, task);
    }
}

static void take_publication(struct cluster *cluster, struct str text)
{
    struct letter letter;
    struct count count = {0};

    if (!letter_read(text, &cluster->decoded, &letter) || letter.kind != LETTER_PUBLISH ||
        !command_is_whole(&letter.command) || !identity_read(letter.origin, &count.origin)) {
        log_write(cluster->options.log, LOG_WARN, "a malformed message from RabbitMQ was dropped",
                  NULL);
        return;
    }
    count.number = letter.number;
    count.order = order_of(letter.command.system);
    if (!origins_take(&cluster->origins, &count.origin, count.order, count.number))
        return;
    if (letter.command.kind == COMMAND_SEND_TO_GROUP ||
        letter.command.kind == COMMAND_SEND_TO_USER ||
        letter.command.kind == COMMAND_SEND_TO_SYSTEM)
        hub_apply(cluster->hub, &letter.command, &count.outcome);
    if (letter.counted)
        keep_count(cluster, &count);
    release_held(cluster);
}

static void take_broker_event(struct cluster *cluster, const struct broker_event *event);
static void tell_state(struct cluster *cluster);

static void take_broker_events(struct cluster *cluster)
{
    struct broker_event *event = cluster->broker ? broker_take(cluster->broker) : NULL, *next;

    for (; event; event = next) {
        next = (struct broker_event *)event->mail.next;
        take_broker_event(cluster, event);
        free(event);
    }
}

static void take_broker_event(struct cluster *cluster, const struct broker_event *event)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    switch (event->kind) {
    case BROKER_UP:
        log_write(cluster->options.log, LOG_INFO, "RabbitMQ is connected", NULL);
        cluster->up = cluster->tried = true;
        cluster->figures.rabbitmq_connects++;
        cluster->up_since = cluster->outstanding_since = cluster->now;
        tell_state(cluster);
        break;
    case BROKER_DOWN:
        log_write(cluster->options.log, LOG_WARN, "RabbitMQ cannot be used", fields);
        cluster->up = false;
        cluster->tried = true;
        tell_state(cluster);
        break;
    case BROKER_CONFIRMED:
    case BROKER_REFUSED:
        take_confirm(cluster, event->ticket, event->kind == BROKER_CONFIRMED);
        break;
    case BROKER_BOUND:
        take_bound(cluster, event->slot, event->version);
        break;
    case BROKER_ARRIVED:
        take_publication(cluster, event->text);
        break;
    }
}

/* --- letters from nodes ---------------------------------------------------------------------- */

/* How long a letter was under way, in milliseconds, as far as can be told: the clocks of two nodes
 * have nothing in common but their pace, so the quickest letter so far counts as no time at all. */
static int64_t age_of(struct cluster *cluster, struct peer *peer, int64_t at)
{
    int64_t difference = cluster->now - at;

    if (!peer->clock_known || difference < peer->clock) {
        peer->clock = difference;
        peer->clock_at = cluster->now;
        peer->clock_known = true;
    }
    if (cluster->now - peer->clock_at >= 1000) { /* nor is their pace quite the same */
        peer->clock += (cluster->now - peer->clock_at) / 1000;
        peer->clock_at = cluster->now;
    }
    return difference - peer->clock;
}

/* Does what another node asks for. What comes so late that the asker has given it up is not done:
 * its caller was told so. */
static void take_request(struct cluster *cluster, struct peer *peer, const struct letter *letter)
{
    struct requester who = {.is_node = true, .ticket = letter->id, .node = peer->identity};
    struct outcome outcome = {0};
    enum cluster_status status = CLUSTER_DONE;

    if (age_of(cluster, peer, letter->at) >= (int64_t)cluster->options.config->rpc_timeout)
        return;
    switch (letter->command.kind) {
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        fail(&outcome, OUTCOME_MALFORMED, "this is not for a single node");
        break;
    default:
        if (command_is_whole(&letter->command))
            status =
                apply_in_order(cluster, &letter->command, false, &who, letter->after, &outcome);
        else
            fail(&outcome, OUTCOME_MALFORMED, "a malformed command");
        break;
    }
    if (status == CLUSTER_DONE)
        answer_node(cluster, &peer->identity, letter->id, &outcome);
    buf_free(&outcome.list);
}

static void take_answer(struct cluster *cluster, const struct peer *peer,
                        const struct letter *letter)
{
    struct task *task = task_find(&cluster->tasks, letter->id);
    struct task_part *part = task ? task_open_part(task, &peer->identity) : NULL;

    if (!part)
        return; /* it was given up */
    task_add_outcome(task, part, letter);
    finish_if_done(cluster, task);
}

static const struct count *find_count(const struct cluster *cluster, const struct identity *origin,
                                      unsigned order, uint64_t number)
{
    for (size_t i = 0; i < COUNTS_KEPT; i++) {
        const struct count *count = &cluster->counts[i];

        if (count->number == number && count->order == order &&
            identity_same(&count->origin, origin))
            return count;
    }
    return NULL;
}

/* Tells a node how many clients its publication has reached here, now or when it comes. */
static void take_count(struct cluster *cluster, const struct peer *peer,
                       const struct letter *letter)
{
    struct requester who = {.is_node = true, .ticket = letter->id, .node = peer->identity};
    uint16_t slot = (uint16_t)(letter->slot % HUB_SLOTS);
    unsigned order = (unsigned)(letter->order % ORDERS);
    const struct count *count = find_count(cluster, &peer->identity, order, letter->number);
    struct outcome none = {0};
    struct task *task = NULL;

    if (!count && cluster->wants_slot[slot])
        task = begin(cluster, TASK_COUNT, &(struct command){.kind = COMMAND_SEND_TO_GROUP}, false,
                     &who, &none);
    if (!task) {
        answer_node(cluster, &peer->identity, letter->id, count ? &count->outcome : &none);
        return;
    }
    task->origin = peer->identity;
    task->number = letter->number;
    task->order = order;
    task->to_count = true;
}

/* The link to a node has broken: it will not answer what it was asked. */
static void give_up_node(struct cluster *cluster, const struct identity *node)
{
    struct task *next;

    for (struct task *task = cluster->tasks.first; task; task = next) {
        struct task_part *part = task_open_part(task, node);

        next = task->next;
        if (!part)
            continue;
        give_up(task, part);
        finish_if_done(cluster, task);
    }
}

static void lose_node(struct cluster *cluster, struct peer *peer, enum log_level level,
                      const char *message);

static void take_letter(struct cluster *cluster, struct peer *peer, struct str text)
{
    struct letter letter;

    if (!letter_read(text, &cluster->decoded, &letter)) {
        log_write(cluster->options.log, LOG_WARN, "a malformed letter from a node was dropped",
                  NULL);
        return;
    }
    switch (letter.kind) {
    case LETTER_REQUEST:
        take_request(cluster, peer, &letter);
        break;
    case LETTER_ANSWER:
        take_answer(cluster, peer, &letter);
        break;
    case LETTER_COUNT:
        take_count(cluster, peer, &letter);
        break;
    case LETTER_STATE:
        age_of(cluster, peer, letter.at); /* the first letter of a link, so its clock is known */
        peer->ready = letter.ready;
        break;
    case LETTER_LEAVE:
        lose_node(cluster, peer, LOG_INFO, "a node has left");
        break;
    case LETTER_PUBLISH:
        break; /* these come through RabbitMQ alone */
    }
}

static void tell_state(struct cluster *cluster)
{
    struct letter letter = {.kind = LETTER_STATE, .at = cluster->now, .ready = cluster->up};

    for (struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next)
        send_letter(cluster, peer, &letter);
}

static void take_peer_events(struct cluster *cluster)
{
    struct letter state = {.kind = LETTER_STATE, .at = cluster->now, .ready = cluster->up};
    struct peer_event *event;

    while ((event = peers_take(cluster->peers))) {
        struct peer *peer = peers_find(cluster->peers, &event->from);

        if (event->kind == PEER_DOWN) {
            give_up_node(cluster, &event->from);
        } else if (event->kind == PEER_UP && peer) {
            peer->ready = peer->clock_known = false;
            cluster->figures.linked++;
            send_letter(cluster, peer, &state);
        } else if (peer) {
            take_letter(cluster, peer, str_of(&event->text));
        }
        buf_free(&event->text);
        free(event);
    }
}

/* --- notices --------------------------------------------------------------------------------- */

/* A notice: who has come to, or left, a group, or without a group the system. */
struct notice {
    struct str system, group;
    struct str id, identity; /* JSON */
    bool online;
};

/* Publishes 1001 or 1002. `ticket` as for publish. */
static bool publish_notice(struct cluster *cluster, const struct notice *notice, uint64_t ticket)
{
    char room[CRYPTO_ID_TEXT + sizeof "[\"\"]"];
    struct buf about = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct command command = {
        .kind = notice->group.length ? COMMAND_SEND_TO_GROUP : COMMAND_SEND_TO_SYSTEM,
        .system = notice->system,
        .group = notice->group,
        .code = notice->online ? NOTICE_ONLINE : NOTICE_OFFLINE,
        .msg = notice->online ? STR("\"client online\"") : STR("\"client offline\""),
        .data = notice->identity,
    };
    uint64_t number;
    bool published;

    buf_append(&about, STR("["));
    buf_append(&about, notice->id);
    buf_append(&about, STR("]"));
    if (!notice->online) /* it may be back already: it is not told of itself */
        command.clients = str_of(&about);
    published = !about.failed && publish(cluster, &command, false, ticket, INT64_MAX, &number);
    if (!published && !cluster->dropping)
        log_write(cluster->options.log, LOG_WARN,
                  "notices are dropped: too much waits for RabbitMQ", NULL);
    cluster->dropping = !published;
    return published;
}

enum note_field { NOTE_SYSTEM, NOTE_GROUP, NOTE_ID, NOTE_IDENTITY, NOTE_COUNT };

/* Puts together what is noted of an event, and under which name; nothing if the client has left. */
static bool write_note(const struct hub_event *event, struct buf *name, struct buf *text)
{
    buf_append(name, event->id);
    buf_append(name, event->group);
    if (event->kind == HUB_LEFT || event->kind == HUB_GONE)
        return !name->failed;
    buf_append(text, STR("{\"system\":"));
    json_append_quoted(text, event->system);
    buf_append(text, STR(",\"group\":"));
    json_append_quoted(text, event->group);
    buf_append(text, STR(",\"id\":"));
    buf_append(text, event->id);
    buf_append(text, STR(",\"identity\":"));
    buf_append(text, event->identity);
    buf_append(text, STR("}"));
    return !name->failed && !text->failed;
}

/* Nobody is to be told: it is noted at once. */
static void note_presence(struct cluster *cluster, const struct hub_event *event)
{
    struct buf name = {0}, text = {0};

    if (write_note(event, &name, &text))
        registry_note(cluster->registry, str_of(&name), str_of(&text));
    buf_free(&name);
    buf_free(&text);
}

/* Tells the others of an event, and notes it once that is confirmed. */
static void tell_event(struct cluster *cluster, const struct hub_event *event)
{
    struct notice notice = {event->system, event->group, event->id, event->identity,
                            event->kind == HUB_ARRIVED};
    struct task *task = task_new(&cluster->notices, TASK_NOTICE, INT64_MAX);

    if (task && write_note(event, &task->text, &task->note) &&
        publish_notice(cluster, &notice, task->id | NOTICE_TICKET))
        return;
    if (task)
        end_notice(cluster, task, false);
}

static void take_hub_events(struct cluster *cluster)
{
    struct hub_event *event;

    while ((event = hub_take_event(cluster->hub))) {
        if (event->kind == HUB_PRESENT || event->kind == HUB_GONE)
            note_presence(cluster, event);
        else
            tell_event(cluster, event);
        free(event);
    }
}

/* A note of a dead node: its client is gone. What is in Redis may have been written by anybody. */
static void mourn(struct cluster *cluster, struct str text)
{
    struct json_field fields[NOTE_COUNT] = {[NOTE_SYSTEM] = {.name = STR_INIT("system")},
                                            [NOTE_GROUP] = {.name = STR_INIT("group")},
                                            [NOTE_ID] = {.name = STR_INIT("id")},
                                            [NOTE_IDENTITY] = {.name = STR_INIT("identity")}};
    struct json_error error;
    struct buf names = {.limit = 2 * 128};
    bool good = json_parse_object(text, fields, NOTE_COUNT, &error) &&
                fields[NOTE_ID].value.type == JSON_STRING &&
                fields[NOTE_ID].value.text.length == CRYPTO_ID_TEXT + 2 &&
                fields[NOTE_IDENTITY].value.type == JSON_OBJECT &&
                buf_reserve(&names, names.limit) &&
                json_decode_string(fields[NOTE_SYSTEM].value, &names);
    size_t system = names.length;
    struct notice notice;

    good = good && json_decode_string(fields[NOTE_GROUP].value, &names);
    if (good) {
        notice = (struct notice){{names.at, system},
                                 {names.at + system, names.length - system},
                                 fields[NOTE_ID].value.text,
                                 fields[NOTE_IDENTITY].value.text,
                                 false};
        publish_notice(cluster, &notice, 0);
    } else {
        log_write(cluster->options.log, LOG_WARN, "a malformed note in Redis was dropped", NULL);
    }
    buf_free(&names);
}

/* --- the registry ---------------------------------------------------------------------------- */

static void join(struct cluster *cluster, const struct identity *self)
{
    struct broker_options with = {
        .config = cluster->options.config, .self = *self, .wake = cluster->options.wake};

    cluster->self = *self;
    identity_write(self, cluster->life);
    cluster->broker = broker_open(&with);
    if (!cluster->broker || !hub_join(cluster->hub, cluster->options.keys, self)) {
        snprintf(cluster->clash, sizeof cluster->clash, "out of memory, or of threads");
        return;
    }
    peers_join(cluster->peers, self);
    cluster->joined = true;
    cluster->joined_at = cluster->now;
    cluster->trust_at = cluster->now + (int64_t)cluster->options.config->node_ttl;
}

static bool is_in(const struct registry_event *event, const struct peer *peer)
{
    for (size_t i = 0; i < event->count; i++)
        if (identity_same(&event->nodes[i].identity, &peer->identity))
            return true;
    return false;
}

/* A node is not there any more: it answers nothing, and nobody dials it. */
static void lose_node(struct cluster *cluster, struct peer *peer, enum log_level level,
                      const char *message)
{
    struct identity node = peer->identity;
    char name[IDENTITY_TEXT_MAX];
    struct log_field fields[] = {{.name = "node"}, {0}};

    fields[0].text = (struct str){name, identity_write_name(&node, name)};
    log_write(cluster->options.log, level, message, fields);
    peers_remove(cluster->peers, peer);
    give_up_node(cluster, &node);
}

/* The registry says that a node is dead. It is believed, unless the node is heard of. */
static void take_dead(struct cluster *cluster, const struct identity *dead)
{
    struct peer *peer = peers_find(cluster->peers, dead);

    if (peer && peers_reach(cluster->peers, peer))
        return;
    if (peer)
        lose_node(cluster, peer, LOG_WARN, "a node is dead");
    registry_bury(cluster->registry, dead);
}

static void take_nodes(struct cluster *cluster, const struct registry_event *event)
{
    struct peer *next;

    for (size_t i = 0; i < event->count; i++) {
        const struct registry_node *node = &event->nodes[i];
        struct peer *peer;

        if (identity_same(&node->identity, &cluster->self) ||
            (identity_same_name(&node->identity, &cluster->self) &&
             cluster->now < cluster->trust_at))
            continue; /* this one, or a life of it before */
        if (!node->alive && cluster->now >= cluster->trust_at) {
            take_dead(cluster, &node->identity);
            continue;
        }
        /* one that may be dead is dialled too: it may be the registry that it cannot reach */
        peer = peers_add(cluster->peers, &node->identity);
        if (!peer)
            continue;
        peer->listed = true;
        peer->alive = node->alive;
    }
    for (struct peer *peer = peers_all(cluster->peers); peer; peer = next) {
        next = peer->next;
        if (!is_in(event, peer) && !peers_reach(cluster->peers, peer))
            lose_node(cluster, peer, LOG_INFO, "a node has left");
    }
    cluster->listed = true;
}

static void add_known(struct cluster *cluster, struct str system);

/* Whether the system of a client that waits is registered. */
static void take_known(struct cluster *cluster, const struct registry_event *event)
{
    struct task *task = task_find(&cluster->tasks, event->ticket);

    if (event->known == REGISTRY_YES)
        add_known(cluster, event->text);
    if (!task)
        return;
    task->looking_up = false;
    if (event->known == REGISTRY_NO)
        fail(&task->outcome, OUTCOME_UNKNOWN_SYSTEM, "systemId is not registered");
    else if (event->known == REGISTRY_UNREACHABLE)
        task_fail(task, "Redis cannot be reached");
    else if (cluster->up)
        need_slot(cluster, task, hub_slot(AUDIENCE_SYSTEM, event->text, (struct str){0}));
    if (task->outcome.code)
        finish(cluster, task);
    else
        go_on(cluster, task);
}

void cluster_rescope(struct cluster *cluster)
{
    if (!cluster || !cluster->joined)
        return;
    registry_forget(cluster->registry);
    hub_report(cluster->hub, HUB_PRESENT);
}

static void come_back(struct cluster *cluster)
{
    cluster->trust_at = cluster->now + (int64_t)cluster->options.config->node_ttl;
    if (cluster->waiting) {
        log_write(cluster->options.log, LOG_INFO, "Redis is back", NULL);
        cluster->figures.redis_reconnects++;
    }
    cluster->waiting = false;
    cluster_rescope(cluster);
}

/* Those who were told that the clients of this node have gone are told that they are there, once
 * they can be reached again. */
static void announce_anew(struct cluster *cluster)
{
    if (!cluster->announce_by || (!are_all_linked(cluster) && cluster->now < cluster->announce_by))
        return;
    cluster->announce_by = 0;
    hub_report(cluster->hub, HUB_ARRIVED);
}

static void take_registry_event(struct cluster *cluster, const struct registry_event *event)
{
    struct log_field fields[] = {{.name = "reason", .text = event->text}, {0}};

    switch (event->kind) {
    case REGISTRY_WAITING:
        snprintf(cluster->waiting_for, sizeof cluster->waiting_for, "%.*s", (int)event->text.length,
                 event->text.at);
        cluster->waiting = true;
        log_write(cluster->options.log, LOG_WARN,
                  cluster->joined ? "out of touch with the other nodes' registry"
                                  : "waiting to join the cluster",
                  fields);
        break;
    case REGISTRY_CLASH:
        snprintf(cluster->clash, sizeof cluster->clash, "%.*s", (int)event->text.length,
                 event->text.at);
        break;
    case REGISTRY_JOINED:
        cluster->waiting = false;
        join(cluster, &event->self);
        break;
    case REGISTRY_BACK:
        come_back(cluster);
        break;
    case REGISTRY_REVIVED:
        log_write(cluster->options.log, LOG_WARN,
                  "this node was taken for dead: its clients are announced anew", NULL);
        come_back(cluster);
        cluster->announce_by = cluster->now + (int64_t)cluster->options.config->node_ttl;
        break;
    case REGISTRY_NODES:
        take_nodes(cluster, event);
        break;
    case REGISTRY_KNOWN:
        take_known(cluster, event);
        break;
    case REGISTRY_MOURN:
        mourn(cluster, event->text);
        break;
    }
}

static void take_registry_events(struct cluster *cluster)
{
    struct registry_event *event = registry_take(cluster->registry), *next;

    for (; event; event = next) {
        next = (struct registry_event *)event->mail.next;
        if (!cluster->clash[0])
            take_registry_event(cluster, event);
        free(event);
    }
}

/* --- admission ------------------------------------------------------------------------------- */

static bool is_known(const struct cluster *cluster, struct str system)
{
    struct table_cursor cursor = {.hash = str_hash(system, cluster->seed)};
    const struct known *known;

    while ((known = table_next(&cluster->known, &cursor)))
        if (str_equal((struct str){known->name, known->length}, system))
            return true;
    return false;
}

static void add_known(struct cluster *cluster, struct str system)
{
    struct known *known = is_known(cluster, system) ? NULL : malloc(sizeof *known + system.length);

    if (!known)
        return;
    known->length = system.length;
    memcpy(known->name, system.at, system.length);
    if (!table_add(&cluster->known, str_hash(system, cluster->seed), known))
        free(known);
}

enum cluster_admission cluster_admit(struct cluster *cluster, struct accounts *accounts,
                                     struct str system, uint64_t ticket)
{
    struct requester who = {.ticket = ticket};
    struct outcome ignored = {0};
    struct task *task;
    uint16_t slot;
    bool known;

    if (!cluster)
        return accounts_know(accounts, system) ? CLUSTER_ADMITTED : CLUSTER_UNKNOWN;
    slot = hub_slot(AUDIENCE_SYSTEM, system, (struct str){0});
    known = is_known(cluster, system);
    /* without RabbitMQ a client can still be sent to by its id; its slot is bound later */
    if (known && (cluster->has_slot[slot] || !cluster->up))
        return CLUSTER_ADMITTED;
    task = begin(cluster, TASK_ADMIT, &(struct command){0}, false, &who, &ignored);
    if (!task)
        return CLUSTER_UNREACHABLE;
    task->looking_up = !known;
    if (!buf_append(&task->text, system) ||
        (!known && !registry_look_up(cluster->registry, task->id, system))) {
        abandon(cluster, task, &ignored, "out of memory");
        return CLUSTER_UNREACHABLE;
    }
    task->system = str_of(&task->text);
    if (known)
        need_slot(cluster, task, slot);
    return CLUSTER_ASKED;
}

/* --- the turn -------------------------------------------------------------------------------- */

enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                  const struct command *command, bool receipt, uint64_t ticket,
                                  struct outcome *outcome)
{
    struct requester who = {.ticket = ticket};

    if (!cluster) {
        hub_apply(hub, command, outcome);
        return CLUSTER_DONE;
    }
    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_BIND:
    case COMMAND_UNBIND:
    case COMMAND_CLOSE_CLIENT:
    case COMMAND_CLIENT_INFO:
        return apply_to_owner(cluster, command, receipt, &who, outcome);
    case COMMAND_SEND_TO_CLIENTS:
        return apply_to_all_owners(cluster, command, receipt, &who, outcome);
    case COMMAND_ONLINE_LIST:
        return list_online(cluster, command, &who, outcome);
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        break;
    }
    return publish_command(cluster, command, receipt, &who, outcome);
}

/* What is still missing will not be waited for. */
static void expire(struct cluster *cluster, struct task *task)
{
    for (size_t i = 0; i < task->part_count; i++)
        if (!task->parts[i].done)
            give_up(task, &task->parts[i]);
    if (task->to_count)
        task->incomplete = true;
    if (task->to_confirm)
        task_fail(task, "RabbitMQ did not confirm in time");
    if (task->kind == TASK_BIND)
        task_fail(task, "RabbitMQ did not bind in time");
    if (task->kind == TASK_COUNT || task->looking_up)
        task_fail(task, "no answer in time");
    finish(cluster, task);
}

size_t cluster_poll_count(const struct cluster *cluster)
{
    return cluster ? peers_poll_count(cluster->peers) : 0;
}

void cluster_poll(const struct cluster *cluster, struct pollfd *polls)
{
    if (cluster)
        peers_poll(cluster->peers, polls);
}

void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now)
{
    if (!cluster)
        return;
    cluster->now = now;
    peers_serve(cluster->peers, polls, now);
    take_registry_events(cluster);
    take_peer_events(cluster);
    take_broker_events(cluster);
    while (cluster->held.first && cluster->held.first->deadline <= now)
        stop_holding(cluster, cluster->held.first);
    while (cluster->tasks.first && cluster->tasks.first->deadline <= now)
        expire(cluster, cluster->tasks.first);
    if (cluster->up && cluster->outstanding && now - cluster->outstanding_since > BREAK_TIME)
        broker_break(cluster->broker);
    check_ready(cluster);
    announce_anew(cluster);
}

void cluster_flush(struct cluster *cluster)
{
    if (!cluster)
        return;
    if (cluster->joined) {
        take_hub_events(cluster);
        follow_changed_slots(cluster);
    }
    peers_flush(cluster->peers);
}

int64_t cluster_deadline(const struct cluster *cluster)
{
    int64_t earliest = cluster ? peers_deadline(cluster->peers) : INT64_MAX;

    /* what came up after this turn's share of the work */
    if (cluster && (cluster->done || (cluster->joined && (cluster->hub->shared->first ||
                                                          cluster->hub->shared->changed_count))))
        return cluster->now;
    if (cluster && cluster->tasks.first && cluster->tasks.first->deadline < earliest)
        earliest = cluster->tasks.first->deadline;
    if (cluster && cluster->held.first && cluster->held.first->deadline < earliest)
        earliest = cluster->held.first->deadline;
    if (cluster && cluster->joined && !cluster->served &&
        cluster->joined_at + START_GRACE < earliest)
        earliest = cluster->joined_at + START_GRACE;
    return earliest;
}

bool cluster_is_settled(const struct cluster *cluster)
{
    return !cluster || !cluster->joined || (!cluster->outstanding && !cluster->hub->shared->first);
}

/* --- opening and closing --------------------------------------------------------------------- */

const struct account_store *cluster_accounts(const struct cluster *cluster)
{
    return cluster ? registry_accounts(cluster->registry) : NULL;
}

struct cluster *cluster_open(const struct cluster_options *options)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    struct peers_options peers = {options->config, options->log, options->keys, options->listener};
    struct registry_options registry = {
        .config = options->config, .keys = options->keys, .wake = options->wake};

    if (!cluster)
        return NULL;
    cluster->options = *options;
    cluster->hub = options->hub;
    memcpy(registry.self.address, options->address, 4);
    registry.self.port = (uint16_t)options->config->rpc_port;
    cluster->peers = peers_open(&peers);
    if (cluster->peers && crypto_random(&cluster->seed, sizeof cluster->seed))
        cluster->registry = registry_open(&registry);
    if (cluster->registry)
        return cluster;
    cluster_close(cluster);
    return NULL;
}

static void free_tables(struct cluster *cluster)
{
    size_t place = 0;
    struct known *known;

    while ((known = table_walk(&cluster->known, &place)))
        free(known);
    table_free(&cluster->known);
    origins_free(&cluster->origins);
}

/* The others need not wait for the registry to learn that this node has gone. */
static void say_goodbye(struct cluster *cluster)
{
    struct letter letter = {.kind = LETTER_LEAVE};

    for (struct peer *peer = peers_all(cluster->peers); peer; peer = peer->next)
        send_letter(cluster, peer, &letter);
    peers_flush(cluster->peers);
}

static void free_tasks(struct tasks *tasks)
{
    while (tasks->first) {
        struct task *task = tasks->first;

        task_unlink(tasks, task);
        task_free(task);
    }
    table_free(&tasks->by_id);
}

void cluster_close(struct cluster *cluster)
{
    bool clean;

    if (!cluster)
        return;
    clean = cluster->joined && !cluster->outstanding && !cluster->hub->clients.count;
    while (cluster_result(cluster))
        ;
    broker_close(cluster->broker);
    registry_close(cluster->registry, clean);
    if (clean)
        say_goodbye(cluster);
    peers_close(cluster->peers);
    free_tasks(&cluster->tasks);
    free_tasks(&cluster->held);
    free_tasks(&cluster->notices);
    free_tables(cluster);
    buf_free(&cluster->decoded);
    buf_free(&cluster->text);
    free(cluster);
}

/* cluster_fake.h - a node of a cluster whose bus, links and registry are fakes: they note what they
 * are asked to do, and a test feeds the events. One cluster at a time: `fake`. */
#ifndef WSPUSH_TEST_CLUSTER_FAKE_H
#define WSPUSH_TEST_CLUSTER_FAKE_H

#include "cluster.h"
#include "cluster_crypto.h"
#include "cluster_presence.h"
#include "cluster_route.h"
#include "cluster_state.h"

#include "node.h"

#define FAKE_MAX 8192
#define FAKE_CLIENTS 8
#define FAKE_TIMEOUT 2000 /* rpc_timeout */
#define FAKE_TTL 10000    /* node_ttl */

/* A publication that bus_publish took. */
struct fake_publication {
    struct bus_publication with; /* `text` is freed with the fake, `to` points to: */
    struct node_id to;
    uint64_t number; /* of its stream */
    bool done;       /* it came back or failed */
};

struct fake_binding {
    uint16_t slot;
    uint32_t version;
    bool bound;
    bool done; /* BOUND was told */
};

/* A message that links_send took. */
struct fake_message {
    struct node_id to;
    struct str text;
};

/* An operation on a record. */
struct fake_operation {
    uint64_t id;
    struct str name, text;
    bool done;
};

static struct fake {
    struct cluster *cluster;
    int64_t now;
    struct node_id self;

    struct fake_publication publications[FAKE_MAX];
    size_t publication_count;
    uint64_t numbers[LANE_COUNT][WIRE_PARTITIONS];
    struct fake_binding bindings[FAKE_MAX];
    size_t binding_count;
    uint64_t acknowledged;
    bool bus_is_full, binds_at_once, bus_is_behind;
    struct fifo bus_events;

    struct peer *peers;
    struct fake_message messages[FAKE_MAX];
    size_t message_count, message_taken;
    struct fifo link_events;

    struct fake_operation operations[FAKE_MAX];
    size_t operation_count;
    struct fake_operation look_ups[64];
    size_t look_up_count;
    struct node_id cleaned_up[64], gone_on[64];
    size_t cleaned_count, gone_on_count, cleared;
    struct fifo registry_events;
    bool registry_is_full, closed_clean;
} fake;

/* What stands for a link that is up. */
static char fake_link;

static const struct node_id fake_nodes[] = {
    {"10.0.0.2:8800", 200}, {"[::1]:8800", 300}, {"node4.example:8800", 400}};

/* Allocations are the fake's own: a test of scarce memory lets them be. Volatile, for a compiler
 * knows that malloc looks at nothing. */
static volatile bool fake_spares;

static inline struct str fake_keep(struct str text)
{
    struct str copy;

    fake_spares = true;
    copy = exact_copy(text);
    fake_spares = false;
    return copy;
}

static inline struct fifo_link *fake_take_all(struct fifo *fifo)
{
    struct fifo_link *first = fifo->first;

    *fifo = (struct fifo){0};
    return first;
}

/* --- the bus ---------------------------------------------------------------------------------- */

struct bus *bus_open(const struct bus_options *options)
{
    fake.self = options->self;
    return (struct bus *)&fake_link;
}

/* An event with `text` behind it, which it owns. */
static inline struct bus_event *fake_bus_event(enum bus_event_kind kind, struct str text)
{
    struct bus_event *event;

    fake_spares = true;
    event = calloc(1, sizeof *event + text.length);
    fake_spares = false;
    if (!event)
        abort();
    event->kind = kind;
    event->text = (struct str){(char *)(event + 1), text.length};
    if (text.length)
        memcpy((char *)(event + 1), text.at, text.length);
    fifo_push(&fake.bus_events, &event->mail);
    return event;
}

bool bus_publish(struct bus *bus, const struct bus_publication *publication)
{
    struct fake_publication *kept = &fake.publications[fake.publication_count];

    CHECK(bus == (struct bus *)&fake_link);
    if (fake.bus_is_full || !CHECK(fake.publication_count < FAKE_MAX))
        return false;
    fake.publication_count++;
    *kept = (struct fake_publication){
        .with = *publication, .number = ++fake.numbers[publication->lane][publication->partition]};
    kept->with.text = fake_keep(publication->text);
    if (publication->to)
        kept->to = *publication->to;
    kept->with.to = publication->to ? &kept->to : NULL;
    return true;
}

/* A batch of one entry comes. */
static inline void fake_batch(const struct node_id *origin, enum wire_lane lane, unsigned partition,
                              uint64_t number, struct str entry)
{
    struct buf bytes = {0};
    struct bus_event *event;

    wire_append_entry(&bytes, entry);
    event = fake_bus_event(BUS_BATCH, str_of(&bytes));
    event->batch = (struct wire_batch){*origin, lane, partition, number, 1, event->text};
    buf_free(&bytes);
}

/* RabbitMQ has a binding. */
static inline void fake_bound(struct fake_binding *binding)
{
    struct bus_event *event = fake_bus_event(BUS_BOUND, (struct str){0});

    CHECK(!binding->done);
    binding->done = true;
    event->slot = binding->slot;
    event->version = binding->version;
}

void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound)
{
    struct fake_binding *kept = &fake.bindings[fake.binding_count];

    if (!CHECK(bus == (struct bus *)&fake_link && fake.binding_count < FAKE_MAX))
        return;
    for (size_t i = 0; i < fake.binding_count; i++)
        CHECK(fake.bindings[i].slot != slot || fake.bindings[i].version < version);
    fake.binding_count++;
    *kept = (struct fake_binding){slot, version, bound, false};
    if (fake.binds_at_once)
        fake_bound(kept);
}

struct bus_event *bus_take(struct bus *bus)
{
    CHECK(bus == (struct bus *)&fake_link);
    return (struct bus_event *)fake_take_all(&fake.bus_events);
}

void bus_catch_up(struct bus *bus)
{
    (void)bus;
    if (!fake.bus_is_behind)
        fake_bus_event(BUS_CAUGHT_UP, (struct str){0});
}

void bus_acknowledge(struct bus *bus, uint64_t count)
{
    (void)bus;
    fake.acknowledged += count;
}

void bus_read_stats(struct bus *bus, struct bus_stats *stats)
{
    (void)bus;
    *stats = (struct bus_stats){.published = 1, .failed = 2, .returned = 3, .foreign = 4};
}

bool bus_is_idle(struct bus *bus)
{
    size_t open = 0;

    (void)bus;
    for (size_t i = 0; i < fake.publication_count; i++)
        open += !fake.publications[i].done;
    return open == 0;
}

void bus_close(struct bus *bus)
{
    (void)bus;
}

/* --- the links -------------------------------------------------------------------------------- */

struct links *links_open(const struct links_options *options)
{
    (void)options;
    return (struct links *)&fake_link;
}

void links_join(struct links *links, const struct node_id *self)
{
    (void)links;
    CHECK(node_equal(self, &fake.self));
}

struct peer *links_find(const struct links *links, const struct node_id *id)
{
    struct peer *peer = fake.peers;

    (void)links;
    while (peer && !node_equal(&peer->id, id))
        peer = peer->next;
    return peer;
}

struct peer *links_find_tag(const struct links *links, const struct node_tag *tag)
{
    struct peer *peer = fake.peers;

    (void)links;
    while (peer && !node_has_tag(&peer->tag, tag))
        peer = peer->next;
    return peer;
}

struct peer *links_all(const struct links *links)
{
    (void)links;
    return fake.peers;
}

struct peer *links_add(struct links *links, const struct node_id *id)
{
    struct peer *peer = links_find(links, id);

    if (peer)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->id = *id;
    CHECK(node_make_tag(id, &peer->tag));
    peer->next = fake.peers;
    fake.peers = peer;
    return peer;
}

void links_remove(struct links *links, struct peer *peer)
{
    struct peer **at = &fake.peers;

    (void)links;
    while (*at && *at != peer)
        at = &(*at)->next;
    if (CHECK(*at != NULL))
        *at = peer->next;
    free(peer);
}

bool links_reach(const struct links *links, const struct peer *peer)
{
    (void)links;
    return peer->link != NULL;
}

bool links_send(struct links *links, struct peer *peer, struct str text)
{
    struct fake_message *kept = &fake.messages[fake.message_count];

    if (!links_reach(links, peer) || !CHECK(fake.message_count < FAKE_MAX))
        return false;
    fake.message_count++;
    *kept = (struct fake_message){peer->id, fake_keep(text)};
    return true;
}

size_t links_poll_count(const struct links *links)
{
    (void)links;
    return 0;
}

void links_poll(const struct links *links, struct pollfd *polls)
{
    (void)links;
    (void)polls;
}

void links_serve(struct links *links, const struct pollfd *polls, int64_t now)
{
    (void)links;
    (void)polls;
    CHECK(now == fake.now);
}

void links_flush(struct links *links)
{
    (void)links;
}

int64_t links_deadline(const struct links *links)
{
    (void)links;
    return INT64_MAX;
}

struct link_event *links_take(struct links *links)
{
    (void)links;
    return (struct link_event *)fifo_pop(&fake.link_events);
}

void links_close(struct links *links)
{
    (void)links;
    while (fake.peers)
        links_remove(links, fake.peers);
}

static inline void fake_link_event(enum link_event_kind kind, const struct node_id *from,
                                   struct str text)
{
    struct link_event *event = calloc(1, sizeof *event);

    if (!event)
        abort();
    event->kind = kind;
    event->from = *from;
    if (text.length)
        CHECK(buf_append(&event->text, text));
    fifo_push(&fake.link_events, &event->fifo);
}

/* --- the registry ----------------------------------------------------------------------------- */

struct registry *registry_open(const struct registry_options *options)
{
    fake.self = options->self;
    return (struct registry *)&fake_link;
}

const struct account_store *registry_accounts(struct registry *registry)
{
    (void)registry;
    return NULL;
}

struct registry_event *registry_take(struct registry *registry)
{
    (void)registry;
    return (struct registry_event *)fake_take_all(&fake.registry_events);
}

static inline struct registry_event *fake_registry_event(enum registry_event_kind kind,
                                                         const char *text)
{
    size_t length = strlen(text);
    struct registry_event *event = calloc(1, sizeof *event + length + 1);

    if (!event)
        abort();
    event->kind = kind;
    memcpy(event + 1, text, length);
    event->text = (struct str){(char *)(event + 1), length};
    fifo_push(&fake.registry_events, &event->mail);
    return event;
}

static inline bool fake_take_operation(struct fake_operation *kept, uint64_t id, struct str name,
                                       struct str text)
{
    *kept = (struct fake_operation){id, fake_keep(name), fake_keep(text), false};
    return true;
}

bool registry_look_up(struct registry *registry, uint64_t id, struct str system)
{
    (void)registry;
    return !fake.registry_is_full && CHECK(fake.look_up_count < COUNT(fake.look_ups)) &&
           fake_take_operation(&fake.look_ups[fake.look_up_count++], id, system, (struct str){0});
}

bool registry_write(struct registry *registry, uint64_t id, struct str name, struct str text)
{
    (void)registry;
    return !fake.registry_is_full && CHECK(fake.operation_count < FAKE_MAX) &&
           fake_take_operation(&fake.operations[fake.operation_count++], id, name, text);
}

void registry_clear(struct registry *registry)
{
    (void)registry;
    fake.cleared++;
}

void registry_clean_up(struct registry *registry, const struct node_id *dead)
{
    (void)registry;
    if (CHECK(fake.cleaned_count < COUNT(fake.cleaned_up)))
        fake.cleaned_up[fake.cleaned_count++] = *dead;
}

void registry_continue(struct registry *registry, const struct node_id *dead)
{
    (void)registry;
    if (CHECK(fake.gone_on_count < COUNT(fake.gone_on)))
        fake.gone_on[fake.gone_on_count++] = *dead;
}

void registry_read_stats(struct registry *registry, struct registry_stats *stats)
{
    (void)registry;
    stats->beat_at = fake.now - 7;
}

void registry_close(struct registry *registry, bool clean)
{
    (void)registry;
    fake.closed_clean = clean;
}

/* --- the node --------------------------------------------------------------------------------- */

/* One iteration of the loop, as far as it concerns the cluster. */
static inline void fake_serve(void)
{
    conn_begin_batch(&node.shared);
    cluster_serve(fake.cluster, NULL, fake.now);
    cluster_flush(fake.cluster);
    flush();
}

static inline void fake_wait(int64_t milliseconds)
{
    fake.now += milliseconds;
    fake_serve();
}

/* The registry lists this node and the first `count` others, all alive. */
static inline void fake_list(size_t count)
{
    static struct registry_node nodes[1 + COUNT(fake_nodes)];
    struct registry_event *event = fake_registry_event(REGISTRY_NODES, "");

    nodes[0] = (struct registry_node){fake.self, true};
    for (size_t i = 0; i < count; i++)
        nodes[1 + i] = (struct registry_node){fake_nodes[i], true};
    event->nodes = nodes;
    event->count = 1 + count;
}

static inline struct peer *fake_peer(size_t which)
{
    struct peer *peer = links_find(NULL, &fake_nodes[which]);

    if (!CHECK(peer != NULL))
        abort();
    return peer;
}

/* Another node sends a message. */
static inline void fake_say(size_t which, const struct cluster_msg *msg)
{
    struct buf text = {0};

    CHECK(msg_write(&text, msg));
    fake_link_event(LINK_EVENT_MESSAGE, &fake_nodes[which], str_of(&text));
    buf_free(&text);
}

static inline void fake_tell(size_t which, const struct cluster_msg *msg)
{
    fake_say(which, msg);
    fake_serve();
}

/* Another node reports whether it is ready. */
static inline void fake_report(size_t which, bool ready)
{
    fake_tell(which, &(struct cluster_msg){.kind = MSG_STATUS, .at = fake.now, .ready = ready});
}

/* The link to a node comes up, and it reports that it is ready. */
static inline void fake_link_up(size_t which)
{
    fake_peer(which)->link = (struct link *)&fake_link;
    fake_link_event(LINK_EVENT_UP, &fake_nodes[which], (struct str){0});
    fake_say(which, &(struct cluster_msg){.kind = MSG_STATUS, .at = fake.now, .ready = true});
}

static inline void fake_link_down(size_t which)
{
    fake_peer(which)->link = NULL;
    fake_link_event(LINK_EVENT_DOWN, &fake_nodes[which], (struct str){0});
}

static inline void fake_lose_link(size_t which)
{
    fake_link_down(which);
    fake_serve();
}

static inline void fake_lose_bus(void)
{
    fake_bus_event(BUS_DOWN, STR("gone"));
    fake_serve();
}

/* Forgets what was sent, published, bound and written so far. */
static inline void fake_forget(void)
{
    for (size_t i = 0; i < fake.message_count; i++)
        free_copy(fake.messages[i].text);
    for (size_t i = 0; i < fake.publication_count; i++)
        free_copy(fake.publications[i].with.text);
    for (size_t i = 0; i < fake.operation_count; i++) {
        free_copy(fake.operations[i].name);
        free_copy(fake.operations[i].text);
    }
    for (size_t i = 0; i < fake.look_up_count; i++) {
        free_copy(fake.look_ups[i].name);
        free_copy(fake.look_ups[i].text);
    }
    fake.message_count = fake.message_taken = fake.publication_count = 0;
    fake.operation_count = fake.look_up_count = 0;
    fake.cleaned_count = fake.gone_on_count = 0;
}

/* Opens a cluster's node that has not joined. */
static inline void fake_open(void)
{
    struct cluster_options options = {.config = &node.config,
                                      .log = &node.log,
                                      .keys = &node.keys,
                                      .hub = &node.hub,
                                      .shared = &node.shared,
                                      .host = STR("10.0.0.1"),
                                      .port = 8800,
                                      .listener = -1,
                                      .wake = -1};

    node_open();
    memset(&fake, 0, sizeof fake);
    fake.now = 1000000;
    fake.binds_at_once = true;
    node.config.rpc_timeout = FAKE_TIMEOUT;
    node.config.node_ttl = FAKE_TTL;
    CHECK(cluster_crypto_derive(&node.keys));
    fake.cluster = cluster_open(&options);
    CHECK(fake.cluster && strcmp(fake.self.name, "10.0.0.1:8800") == 0);
    node.api.cluster = fake.cluster;
}

/* It joins, beside the first `count` other nodes, and RabbitMQ is up; all have been for long. */
static inline void fake_join(size_t count)
{
    struct registry_event *joined = fake_registry_event(REGISTRY_JOINED, "");

    fake.self.incarnation = 100;
    joined->self = fake.self;
    fake_list(count);
    fake_serve();
    for (size_t i = 0; i < count; i++)
        fake_link_up(i);
    fake_bus_event(BUS_UP, (struct str){0});
    fake_serve();
    fake_wait(60000);
    for (size_t i = 0; i < count; i++)
        fake_report(i, true);
    fake_list(count);
    fake_serve();
    CHECK(!cluster_not_ready_reason(fake.cluster) && !cluster_degraded_reason(fake.cluster));
    fake_forget();
}

static inline void fake_start(size_t count)
{
    fake_open();
    fake_join(count);
}

/* --- clients ---------------------------------------------------------------------------------- */

struct fake_client {
    struct conn conn;
    struct far_end far;
    char id[HUB_ID_TEXT + 3]; /* as JSON */
    bool is_open;
};

static struct fake_client clients[FAKE_CLIENTS];

/* A client connects to this node; its slot is bound in time. */
static inline void fake_arrive(size_t who, const char *system)
{
    struct fake_client *client = &clients[who];
    struct far_frame frame = {0};

    conn_open(&client->conn, far_open(&client->far), &node.shared);
    CHECK(
        hub_connect(&node.hub, &client->conn, &(struct ticket_claims){.system = str_from(system)}));
    flush();
    client->is_open = true;
    memset(client->id, 0, sizeof client->id);
    if (CHECK(far_next(&client->far, &frame) && frame.payload.length > HUB_ID_TEXT + 5))
        memcpy(client->id, frame.payload.at + frame.payload.length - 5 - HUB_ID_TEXT + 1,
               HUB_ID_TEXT + 2);
    fake_serve();
    fake_serve();
}

static inline void fake_depart(size_t who)
{
    struct fake_client *client = &clients[who];

    if (client->conn.client)
        hub_end_client(&node.hub, client->conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       STR("test"));
    flush();
    conn_kill(&client->conn);
    flush();
    conn_close(&client->conn);
    far_close(&client->far);
    client->is_open = false;
}

/* Ends all clients and closes everything. */
static inline void fake_end(void)
{
    for (size_t who = 0; who < FAKE_CLIENTS; who++)
        if (clients[who].is_open)
            fake_depart(who);
    cluster_close(fake.cluster);
    node.hub.hooks = NULL;
    node.api.cluster = NULL;
    fake_forget();
    while (fake.bus_events.first)
        free(fifo_pop(&fake.bus_events));
    for (struct link_event *event; (event = links_take(NULL));) {
        buf_free(&event->text);
        free(event);
    }
    while (fake.registry_events.first)
        free(fifo_pop(&fake.registry_events));
    node_close();
}

/* --- what comes through the bus --------------------------------------------------------------- */

/* A publication comes back to this node, which sees it in its next iteration. */
static inline void fake_echo(size_t which)
{
    struct fake_publication *kept = &fake.publications[which];

    if (!CHECK(which < fake.publication_count && !kept->done))
        return;
    kept->done = true;
    fake_batch(&fake.self, kept->with.lane, kept->with.partition, kept->number, kept->with.text);
}

static inline void fake_return(size_t which)
{
    fake_echo(which);
    fake_serve();
}

/* All that has not come back does. */
static inline void fake_return_all(void)
{
    for (size_t i = 0; i < fake.publication_count; i++)
        if (!fake.publications[i].done)
            fake_echo(i);
    fake_serve();
}

/* A publication fails. */
static inline void fake_fail(size_t which, const char *why)
{
    struct fake_publication *kept = &fake.publications[which];
    struct bus_event *event = fake_bus_event(BUS_FAILED, str_from(why));

    CHECK(!kept->done && kept->with.lane == LANE_SEND);
    kept->done = true;
    event->id = kept->with.id;
    event->batch.partition = kept->with.partition;
}

/* Another node publishes a message. */
static inline void fake_publish(size_t which, enum wire_lane lane, uint64_t number,
                                const struct cluster_msg *msg)
{
    struct buf text = {0};

    CHECK(msg_write(&text, msg));
    fake_batch(&fake_nodes[which], lane, wire_partition(msg->command.system), number,
               str_of(&text));
    buf_free(&text);
}

/* --- what this node has said ------------------------------------------------------------------ */

/* A message read; its views are the fake's until fake_forget. */
struct fake_reading {
    struct buf decoded;
    struct cluster_msg msg;
};

static struct fake_reading fake_reading;

/* The message that a text is. */
static inline const struct cluster_msg *fake_read(struct str text)
{
    if (!CHECK(msg_read(text, &fake_reading.decoded, &fake_reading.msg)))
        fake_reading.msg = (struct cluster_msg){.kind = MSG_LEAVE};
    return &fake_reading.msg;
}

/* The next message, other than a status, that was sent to this node; NULL if there is none. Others
 * before it are passed over. */
static inline const struct cluster_msg *fake_sent_to(size_t which)
{
    while (fake.message_taken < fake.message_count) {
        const struct fake_message *message = &fake.messages[fake.message_taken++];

        if (node_equal(&message->to, &fake_nodes[which]) &&
            fake_read(message->text)->kind != MSG_STATUS)
            return &fake_reading.msg;
    }
    return NULL;
}

/* True if nothing but its status was sent. */
static inline bool fake_sent_nothing(void)
{
    bool good = true;

    while (fake.message_taken < fake.message_count) {
        struct str text = fake.messages[fake.message_taken++].text;

        if (fake_read(text)->kind != MSG_STATUS) {
            printf("  sent: %.*s\n", (int)text.length, text.at);
            good = false;
        }
    }
    return good;
}

/* The publications that have not come back. */
static inline size_t fake_open_publications(void)
{
    size_t count = 0;

    for (size_t i = 0; i < fake.publication_count; i++)
        count += !fake.publications[i].done;
    return count;
}

/* A reply of another node. */
static inline struct cluster_msg fake_reply_to(uint64_t id, int code, const char *error)
{
    return (struct cluster_msg){
        .kind = MSG_REPLY,
        .id = id,
        .result = {.code = (enum result_code)code, .error = error, .matched = 1, .queued = 1}};
}

/* Another node replies, and it is dealt with. */
static inline void fake_say_reply(size_t which, struct cluster_msg reply)
{
    fake_tell(which, &reply);
}

/* True if the next thing sent to a node is a reply to this request with this code. */
static inline bool fake_replied(size_t which, uint64_t id, int code)
{
    const struct cluster_msg *msg = fake_sent_to(which);

    if (msg && msg->kind == MSG_REPLY && msg->id == id && (int)msg->result.code == code)
        return true;
    printf("  reply to %llu: %d %.*s\n", msg ? (unsigned long long)msg->id : 0,
           msg ? (int)msg->result.code : 1, msg ? (int)msg->error.length : 0,
           msg && msg->error.length ? msg->error.at : "");
    return false;
}

/* --- results ---------------------------------------------------------------------------------- */

/* The next result; it must be this request_id's. */
static inline const struct cluster_result *fake_result(uint64_t request_id)
{
    const struct cluster_result *result = cluster_result(fake.cluster);

    if (!CHECK(result && result->request_id == request_id)) {
        static struct cluster_result none;

        printf("  request_id %llu, not %llu\n", result ? (unsigned long long)result->request_id : 0,
               (unsigned long long)request_id);
        return result ? result : &none;
    }
    return result;
}

static inline bool fake_no_result(void)
{
    const struct cluster_result *result = cluster_result(fake.cluster);

    if (result)
        printf("  a result of %llu: %d %s\n", (unsigned long long)result->request_id,
               (int)result->result.code, result->result.error ? result->result.error : "");
    return !result;
}

/* --- commands --------------------------------------------------------------------------------- */

static inline struct json_value fake_id(size_t who)
{
    return (struct json_value){JSON_STRING, str_from(clients[who].id)};
}

/* The id of a client of another node. */
static inline struct json_value fake_foreign_id(const struct node_id *owner, uint64_t number)
{
    struct node_tag tag;
    char id[HUB_ID_TEXT];

    CHECK(node_make_tag(owner, &tag) && wire_seal_client(&node.keys, &tag, number, id));
    return (struct json_value){JSON_STRING, str_from(textf("\"%.*s\"", HUB_ID_TEXT, id))};
}

static inline struct command fake_command(enum command_kind kind)
{
    return (struct command){.kind = kind,
                            .system = STR("shop"),
                            .group = STR("g"),
                            .msg = STR("\"m\""),
                            .data = STR("1"),
                            .close_code = 4000};
}

static inline struct command fake_send(const char *data)
{
    struct command command = fake_command(COMMAND_SEND_TO_GROUP);

    command.data = str_from(data);
    return command;
}

static inline struct command fake_to_client(struct json_value client, const char *data)
{
    struct command command = fake_command(COMMAND_SEND_TO_CLIENT);

    command.client = client;
    command.data = str_from(data);
    return command;
}

static inline struct command fake_bind(struct json_value client, const char *group)
{
    struct command command = fake_command(COMMAND_BIND);

    command.client = client;
    command.group = str_from(group);
    return command;
}

static struct result fake_applied; /* of the last command that was done at once */

/* Gives the cluster a command. True if the result is there at once, in fake_applied. */
static inline bool fake_done(struct command command, bool receipt, uint64_t request_id)
{
    buf_free(&fake_applied.list);
    fake_applied = (struct result){0};
    if (receipt)
        command.message_id = STR("\"id\"");
    return cluster_apply(fake.cluster, &node.hub, &command, receipt, request_id, &fake_applied) ==
           CLUSTER_DONE;
}

/* The same, for one whose result follows. */
static inline bool fake_later(struct command command, uint64_t request_id)
{
    return !fake_done(command, false, request_id);
}

/* True if the next result is a success. */
static inline bool fake_succeeds(uint64_t request_id)
{
    const struct cluster_result *result = fake_result(request_id);

    if (result->result.code)
        printf("  %d %s\n", (int)result->result.code,
               result->result.error ? result->result.error : "");
    return result->result.code == RESULT_SUCCESS;
}

/* True if the next result has this code and an error with this text in it. */
static inline bool fake_fails(uint64_t request_id, int code, const char *error)
{
    const struct cluster_result *result = fake_result(request_id);

    return CHECK((int)result->result.code == code) &&
           contains(str_from(result->result.error), error);
}

/* A client of this node is in a group, and everybody was told. */
static inline void fake_put_into(size_t who, const char *group)
{
    if (!fake_done(fake_bind(fake_id(who), group), false, 999)) {
        fake_serve();
        CHECK(fake_succeeds(999));
    } else {
        CHECK(fake_applied.code == RESULT_SUCCESS);
    }
}

/* The frame that a send pushes. */
static inline const char *fake_pushed(const char *data)
{
    return textf("{\"code\":0,\"msg\":\"m\",\"data\":%s}", data);
}

/* True if this is what a client of this node has next: the frame of a send; or nothing. */
static inline bool fake_got(size_t who, const char *data)
{
    return got_text(&clients[who].far, fake_pushed(data));
}

static inline bool fake_got_nothing(size_t who)
{
    return got_nothing(&clients[who].far);
}

/* True if a command is done at once, with this result. */
static inline bool fake_done_with(struct command command, uint64_t request_id, int code)
{
    return fake_done(command, false, request_id) && (int)fake_applied.code == code;
}

/* The results of all operations that have none. */
static inline void fake_written(enum registry_change change)
{
    static struct registry_result results[FAKE_MAX];
    struct registry_event *event = fake_registry_event(REGISTRY_WRITTEN, "");

    event->results = results;
    for (size_t i = 0; i < fake.operation_count; i++)
        if (!fake.operations[i].done) {
            fake.operations[i].done = true;
            results[event->count++] = (struct registry_result){fake.operations[i].id, change};
        }
    fake_serve();
}

/* All records are written, all notices come back, until nothing is left; clients read it all. */
static inline void fake_settle(void)
{
    for (int round = 0; round < 20 && !presence_is_idle(fake.cluster); round++) {
        fake_serve();
        fake_written(REGISTRY_CHANGED);
        fake_return_all();
    }
    CHECK(presence_is_idle(fake.cluster));
    fake_forget();
}

/* A client of this node is in the group "g", and all that follows from it is done and read. */
static inline void fake_add_member(size_t who)
{
    fake_arrive(who, "shop");
    fake_put_into(who, "g");
    fake_settle();
    far_forget(&clients[who].far);
}

/* --- tests ------------------------------------------------------------------------------------ */

#define FAKE_CLOSED (-1) /* the test opens its own node */

static inline void fake_test_begin(int others)
{
    if (others != FAKE_CLOSED)
        fake_start((size_t)others);
}

static inline void fake_test_end(int others)
{
    if (others != FAKE_CLOSED)
        fake_end();
}

/* Runs tests of a node that has joined beside `fixture` other nodes; returns the exit status. */
static inline int fake_run(const struct test *tests, size_t count)
{
    test_run_all(tests, count, fake_test_begin, fake_test_end);
    buf_free(&fake_applied.list);
    buf_free(&fake_reading.decoded);
    return test_finish();
}

#endif

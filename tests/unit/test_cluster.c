/* test_cluster.c - cluster.c: joining, who may come in and when, events and their budget, who is
 * dead, what is ready, and how a node leaves. */
#include "cluster_fake.h"

#include "scarce.h"

/* --- joining ---------------------------------------------------------------------------------- */

static void it_serves_once_it_is_linked_and_connected(void)
{
    fake_open();
    fake_serve();
    CHECK(contains(str_from(cluster_not_ready_reason(fake.cluster)), "joining the cluster"));
    CHECK(cluster_degraded_reason(fake.cluster) == cluster_not_ready_reason(fake.cluster));
    fake_registry_event(REGISTRY_WAITING, "Redis refuses: NOAUTH");
    fake_serve();
    CHECK(contains(str_from(cluster_not_ready_reason(fake.cluster)), "NOAUTH"));
    CHECK(node_logged("waiting to join the cluster reason=\"Redis refuses: NOAUTH\""));
    CHECK(!node.hub.hooks);
    fake.self.incarnation = 100;
    fake_registry_event(REGISTRY_JOINED, "")->self = fake.self;
    fake_list(1);
    fake_serve();
    CHECK(node.hub.hooks && contains(str_from(cluster_not_ready_reason(fake.cluster)), "links"));
    CHECK(cluster_deadline(fake.cluster) <= fake.now + 2000);
    fake_link_up(0);
    fake_serve();
    CHECK(cluster_not_ready_reason(fake.cluster)); /* RabbitMQ has not been tried */
    fake_bus_event(BUS_DOWN, STR("refused"));
    fake_serve();
    CHECK(!cluster_not_ready_reason(fake.cluster) && node_logged("joined the cluster"));
    CHECK(contains(str_from(cluster_degraded_reason(fake.cluster)), "refused"));
    CHECK(!cluster_fatal_error(fake.cluster));
    fake_end();
}

/* Without a link, or RabbitMQ's word, it serves after two seconds: others may be dead. */
static void it_does_not_wait_for_ever(void)
{
    fake_open();
    fake_registry_event(REGISTRY_JOINED, "")->self = fake.self;
    fake_list(1);
    fake_serve();
    fake_wait(1999);
    CHECK(cluster_not_ready_reason(fake.cluster));
    fake_wait(1);
    CHECK(!cluster_not_ready_reason(fake.cluster));
    fake_end();
}

static void a_conflict_of_names_is_final(void)
{
    fake_open();
    fake_registry_event(REGISTRY_NAME_CONFLICT, "10.0.0.1:8800 is taken");
    fake_registry_event(REGISTRY_JOINED, "")->self = fake.self; /* is not looked at */
    fake_serve();
    CHECK(contains(str_from(cluster_fatal_error(fake.cluster)), "is taken"));
    CHECK(cluster_not_ready_reason(fake.cluster) && !node.hub.hooks);
    fake_end();
}

/* NULL is a node that is alone. */
static void alone_all_goes_to_the_hub(void)
{
    struct command command = fake_command(COMMAND_ONLINE_LIST);
    struct result result = {0};

    CHECK(!cluster_not_ready_reason(NULL) && !cluster_degraded_reason(NULL) &&
          !cluster_fatal_error(NULL));
    CHECK(!cluster_accounts(NULL) && !cluster_result(NULL) && cluster_poll_count(NULL) == 0);
    CHECK(cluster_deadline(NULL) == INT64_MAX && cluster_is_idle(NULL));
    cluster_poll(NULL, NULL);
    cluster_serve(NULL, NULL, 1);
    cluster_flush(NULL);
    cluster_republish(NULL);
    CHECK(cluster_apply(NULL, &node.hub, &command, false, 1, &result) == CLUSTER_DONE);
    CHECK(cluster_admit(NULL, node.accounts, &(struct ticket_claims){.system = STR("nobody")}, 1) ==
          CLUSTER_UNKNOWN);
    node_register(STR("shop"), STR("password"));
    CHECK(cluster_admit(NULL, node.accounts, &(struct ticket_claims){.system = STR("shop")}, 1) ==
          CLUSTER_ADMITTED);
    cluster_close(NULL);
}

/* --- admission -------------------------------------------------------------------------------- */

/* Redis answers the look-up made last. */
static void found(enum registry_found answer, const char *system)
{
    struct registry_event *event = fake_registry_event(REGISTRY_FOUND, system);

    CHECK(fake.look_up_count > 0);
    event->id = fake.look_ups[fake.look_up_count - 1].id;
    event->found = answer;
    if (answer == REGISTRY_UNREACHABLE)
        event->reason = STR("Redis says LOADING");
    fake_serve();
}

static enum cluster_admission admit(const char *system, uint64_t request_id)
{
    return cluster_admit(fake.cluster, node.accounts,
                         &(struct ticket_claims){.system = str_from(system)}, request_id);
}

/* A client would be deaf to its system before the slot is bound: it is not admitted yet. */
static void clients_are_admitted_once_the_slot_is_bound(void)
{
    const uint16_t slot = wire_slot(WIRE_SYSTEM, STR("shop"), STR(""));
    const struct cluster_result *result;

    fake.binds_at_once = false;
    CHECK(admit("shop", 1) == CLUSTER_ASKED && fake.look_up_count == 1);
    CHECK(same(fake.look_ups[0].name, STR("shop")) && fake.binding_count == 0);
    fake_serve();
    CHECK(fake_no_result());
    found(REGISTRY_YES, "shop");
    CHECK(fake_no_result() && fake.binding_count == 1 && fake.bindings[0].slot == slot);
    CHECK(admit("shop", 2) == CLUSTER_ASKED && fake.look_up_count == 1); /* it is known now */
    fake_bound(&fake.bindings[0]);
    fake_serve();
    result = fake_result(1);
    CHECK(result->is_admission && result->admission == CLUSTER_ADMITTED);
    CHECK(same(result->claims.system, STR("shop")));
    /* bound and kept, until the results have been taken */
    CHECK(fake.cluster->slots[slot].bound);
    CHECK(admit("shop", 3) == CLUSTER_ADMITTED);
    result = fake_result(2);
    CHECK(result->admission == CLUSTER_ADMITTED);
    fake_arrive(0, "shop");
    CHECK(fake_no_result() && fake.cluster->slots[slot].bound);
    fake.binds_at_once = true;
    fake_depart(0);
    fake_serve();
    CHECK(!fake.cluster->slots[slot].wanted);
    /* whose client does not come lets the slot go */
    CHECK(admit("shop", 4) == CLUSTER_ASKED);
    fake_serve();
    CHECK(fake_result(4)->admission == CLUSTER_ADMITTED && fake.cluster->slots[slot].bound);
    CHECK(fake_no_result() && !fake.cluster->slots[slot].wanted);
}

static void a_rejected_client_is_told_why(void)
{
    const struct cluster_result *result;

    fake.binds_at_once = false;
    CHECK(admit("nobody", 1) == CLUSTER_ASKED);
    found(REGISTRY_NO, "nobody");
    result = fake_result(1);
    CHECK(result->admission == CLUSTER_UNKNOWN && same(result->claims.system, STR("nobody")));
    CHECK(admit("shop", 2) == CLUSTER_ASKED);
    found(REGISTRY_UNREACHABLE, "shop");
    result = fake_result(2);
    CHECK(result->admission == CLUSTER_UNREACHABLE);
    CHECK(same(str_from(result->result.error), STR("Redis says LOADING")));
    CHECK(admit("shop", 3) == CLUSTER_ASKED && fake.look_up_count == 3);
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(3);
    CHECK(result->admission == CLUSTER_UNREACHABLE);
    CHECK(contains(str_from(result->result.error), "Redis does not answer in time"));
    found(REGISTRY_YES, "shop"); /* too late for that one, and good to know */
    CHECK(fake_no_result());
    CHECK(admit("shop", 4) == CLUSTER_ASKED && fake.look_up_count == 3);
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(4);
    CHECK(result->admission == CLUSTER_UNREACHABLE);
    CHECK(contains(str_from(result->result.error), "RabbitMQ did not bind in time"));
    CHECK(fake_no_result());
    fake.registry_is_full = true;
    CHECK(admit("other", 5) == CLUSTER_UNREACHABLE && fake_no_result());
    CHECK(fake.cluster->pendings.by_id.count == 0);
}

/* A client with a ticket comes to its system, its user and its groups, or to none of them. */
static void a_ticket_needs_all_slots(void)
{
    const struct ticket_claims claims = {.system = STR("shop"),
                                         .user = STR("u1"),
                                         .extend = STR("e"),
                                         .groups = STR("[\"g\",\"h\",\"g\"]"),
                                         .end = 9,
                                         .is_signed = true};
    const struct cluster_result *result;

    fake.binds_at_once = false;
    CHECK(cluster_admit(fake.cluster, node.accounts, &claims, 1) == CLUSTER_ASKED);
    found(REGISTRY_YES, "shop");
    CHECK(fake.binding_count == 4);
    for (size_t i = 4; i-- > 0;) { /* in another order than they were asked for */
        CHECK(fake_no_result());
        fake_bound(&fake.bindings[i]);
        fake_serve();
    }
    result = fake_result(1);
    CHECK(result->admission == CLUSTER_ADMITTED && result->claims.is_signed);
    CHECK(same(result->claims.system, STR("shop")) && same(result->claims.user, STR("u1")));
    CHECK(same(result->claims.extend, STR("e")) && same(result->claims.groups, claims.groups));
    CHECK(result->claims.end == 9);
    /* all are there now */
    CHECK(cluster_admit(fake.cluster, node.accounts, &claims, 2) == CLUSTER_ADMITTED);
    CHECK(fake_no_result());
    for (size_t i = 0; i < 4; i++) /* nobody came */
        CHECK(!fake.cluster->slots[fake.bindings[i].slot].wanted);
}

static void a_ticket_with_a_slot_missing_joins_nothing(void)
{
    const struct ticket_claims claims = {.system = STR("shop"), .groups = STR("[\"g\",\"h\"]")};
    const struct cluster_result *result;

    fake.binds_at_once = false;
    CHECK(cluster_admit(fake.cluster, node.accounts, &claims, 1) == CLUSTER_ASKED);
    found(REGISTRY_YES, "shop");
    CHECK(fake.binding_count == 3);
    fake_bound(&fake.bindings[0]);
    fake_bound(&fake.bindings[2]);
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(1);
    CHECK(result->admission == CLUSTER_UNREACHABLE);
    CHECK(contains(str_from(result->result.error), "RabbitMQ did not bind in time"));
    CHECK(fake_no_result() && fake.cluster->pendings.by_id.count == 0);
    CHECK(!fake.cluster->slots[fake.bindings[0].slot].wanted);
    fake_bound(&fake.bindings[1]); /* late: it is given up at once */
    fake_serve();
    CHECK(!fake.cluster->slots[fake.bindings[1].slot].wanted);
}

/* --- what comes from RabbitMQ ----------------------------------------------------------------- */

/* Repetitions, jumps and what cannot be read are dropped; the next one is taken. */
static void publications_are_taken_once(void)
{
    struct cluster_msg msg = {.kind = MSG_SEND, .id = 1, .command = fake_send("1")};
    unsigned partition = wire_partition(STR("shop"));

    fake_add_member(0);
    fake_publish(0, LANE_SEND, 5, &msg);
    fake_publish(0, LANE_SEND, 5, &msg);
    fake_publish(0, LANE_SEND, 4, &msg);
    fake_publish(0, LANE_SEND, 5 + ORDER_JUMP_MAX + 1, &msg);
    fake_batch(&fake_nodes[0], LANE_SEND, partition, 6, STR("{\"message\":\"send\"}"));
    fake_batch(&fake_nodes[0], LANE_NOTICE, partition, 1, STR("nonsense"));
    msg.command.data = STR("2");
    fake_publish(0, LANE_SEND, 7, &msg);
    fake_serve();
    CHECK(fake_got(0, "1") && fake_got(0, "2"));
    CHECK(fake_got_nothing(0) && fake.acknowledged == 7 + 1); /* and its own notice */
    CHECK(node_logged("its number is far ahead of the one before"));
    CHECK(node_logged("a malformed publication was dropped"));
    /* sends of an unpublished kind, or that clients could not read */
    msg.command.kind = COMMAND_CLOSE_CLIENT;
    msg.command.client = fake_id(0);
    fake_publish(0, LANE_SEND, 8, &msg);
    msg.command.kind = COMMAND_SEND_TO_GROUP;
    msg.command.msg = (struct str){0};
    fake_publish(0, LANE_SEND, 9, &msg);
    fake_serve();
    CHECK(fake_got_nothing(0) && clients[0].conn.client);
}

/* Several entries in one batch, as the bus makes them. */
static void batch_of(const struct node_id *origin, uint64_t first, uint32_t count)
{
    struct buf bytes = {0};
    struct bus_event *event;

    for (uint32_t i = 0; i < count; i++) {
        struct cluster_msg msg = {.kind = MSG_SEND, .id = first + i, .command = fake_send("0")};
        struct buf text = {0};

        msg.command.data = str_from(textf("%llu", (unsigned long long)(first + i)));
        CHECK(msg_write(&text, &msg) && wire_append_entry(&bytes, str_of(&text)));
        buf_free(&text);
    }
    event = fake_bus_event(BUS_BATCH, str_of(&bytes));
    event->batch = (struct wire_batch){*origin, LANE_SEND, wire_partition(STR("shop")),
                                       first,   count,     event->text};
    buf_free(&bytes);
}

/* An iteration deals with what its budget allows, within a batch as well; nothing is lost, passed
 * or acknowledged before it is done. */
static void batches_are_dealt_with_within_the_budget(void)
{
    const uint32_t each = 3000;
    uint64_t expected = 1;
    size_t iterations = 0;

    fake_add_member(0);
    fake.acknowledged = 0;
    for (uint32_t i = 0; i < 5; i++)
        batch_of(&fake_nodes[0], 1 + i * each, each);
    fake_bus_event(BUS_DOWN, STR("gone")); /* it comes behind them */
    while (fake.cluster->bus_up && iterations < 100) {
        struct far_frame frame;

        fake_serve();
        iterations++;
        if (fake.cluster->bus_up)
            CHECK(cluster_deadline(fake.cluster) == fake.now);
        while (far_next(&clients[0].far, &frame))
            CHECK(str_equal(frame.payload,
                            str_from(fake_pushed(textf("%llu", (unsigned long long)expected++)))));
        CHECK(fake.acknowledged == (expected - 1) / each);
    }
    CHECK(expected == 5 * each + 1 && fake.acknowledged == 5);
    CHECK(iterations > 2 && iterations < 100);
}

/* --- what comes from nodes -------------------------------------------------------------------- */

/* A node that comes up is told this one's clock first, and each second after that. */
static void nodes_are_told_the_state(void)
{
    const struct cluster_msg *msg;

    fake_lose_link(0);
    fake_forget();
    fake_link_up(0);
    fake_serve();
    CHECK(fake.message_count == 1 && node_equal(&fake.messages[0].to, &fake_nodes[0]));
    msg = fake_read(fake.messages[0].text);
    CHECK(msg->kind == MSG_STATUS && msg->at == fake.now && msg->ready);
    fake_wait(1000);
    CHECK(fake.message_count == 3);
    fake_wait(999);
    CHECK(fake.message_count == 3 && cluster_deadline(fake.cluster) == fake.now + 1);
    fake_wait(1);
    CHECK(fake.message_count == 5);
    fake_lose_bus();
    CHECK(fake.message_count == 7 && !fake_read(fake.messages[6].text)->ready);
}

static void messages_of_nodes_are_taken(void)
{
    struct cluster_msg leave = {.kind = MSG_LEAVE};

    fake_link_event(LINK_EVENT_MESSAGE, &fake_nodes[0], STR("{\"message\":\"nonsense\"}"));
    fake_serve();
    CHECK(node_logged("a malformed message of a node was dropped") && fake_peer(0)->link);
    /* one that nobody knows any more */
    fake_say(2, &leave);
    fake_link_event(LINK_EVENT_UP, &fake_nodes[2], STR(""));
    fake_link_event(LINK_EVENT_DOWN, &fake_nodes[2], STR(""));
    fake_serve();
    /* it leaves: what it was asked is not waited for, and its clients are offline */
    CHECK(fake_later(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), 1));
    fake_tell(0, &leave);
    CHECK(fake_fails(1, -1007, "cannot be reached") && node_logged("a node has left"));
    CHECK(!links_find(NULL, &fake_nodes[0]) && links_find(NULL, &fake_nodes[1]));
    CHECK(fake_done_with(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), 2,
                         RESULT_OFFLINE) &&
          fake.cleaned_count == 0);
}

/* --- who is dead ------------------------------------------------------------------------------ */

/* The registry lists these nodes. */
static void list(const struct registry_node *nodes, size_t count)
{
    struct registry_event *event = fake_registry_event(REGISTRY_NODES, "");

    event->nodes = nodes;
    event->count = count;
    fake_serve();
}

/* Whoever is heard of is not dead, whatever Redis says; who is not is cleaned up, each time anew.
 */
static void the_dead_are_cleaned_up(void)
{
    struct registry_node nodes[] = {{fake_nodes[0], false}, {fake_nodes[1], true}};

    list(nodes, 2);
    CHECK(fake.cleaned_count == 0 && fake_peer(0)->link); /* it is heard of */
    CHECK(fake_later(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), 1));
    fake_lose_link(0);
    CHECK(fake_fails(1, -1007, "cannot be reached"));
    list(nodes, 2);
    CHECK(fake.cleaned_count == 1 && node_equal(&fake.cleaned_up[0], &fake_nodes[0]));
    CHECK(!links_find(NULL, &fake_nodes[0]) && node_logged("a node is dead"));
    CHECK(
        fake_done_with(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), 2, RESULT_OFFLINE));
    list(nodes, 2);
    CHECK(fake.cleaned_count == 2); /* until it is done */
    list(nodes + 1, 1);
    CHECK(fake.cleaned_count == 2);
}

/* A node that was out of touch itself believes in no death for node_ttl: all may be as it was. */
static void after_a_silence_nobody_is_dead(void)
{
    struct registry_node nodes[] = {
        {fake_nodes[0], false}, {fake_nodes[1], true}, {{"10.0.0.1:8800", 50}, false}};

    fake_registry_event(REGISTRY_WAITING, "no route");
    fake_serve();
    CHECK(contains(str_from(cluster_degraded_reason(fake.cluster)), "no route"));
    CHECK(node_logged("Redis cannot be used"));
    fake_link_down(0);
    fake_registry_event(REGISTRY_RECONNECTED, "");
    list(nodes, 3);
    CHECK(fake.cleaned_count == 0 && links_find(NULL, &fake_nodes[0]) && !fake_peer(0)->alive);
    CHECK(node_logged("Redis is back") && cluster_stats(fake.cluster).redis_reconnects == 1);
    fake_wait(FAKE_TTL - 1);
    list(nodes, 3);
    CHECK(fake.cleaned_count == 0);
    fake_wait(1);
    list(nodes, 3);
    /* and the incarnation of this node before the present one */
    CHECK(fake.cleaned_count == 2 && node_equal(&fake.cleaned_up[0], &fake_nodes[0]));
    CHECK(fake.cleaned_up[1].incarnation == 50);
}

/* A node that is not listed any more has left, unless it is heard of. */
static void who_is_not_listed_has_left(void)
{
    fake_list(1);
    fake_serve();
    CHECK(links_find(NULL, &fake_nodes[1]));
    fake_link_down(1);
    fake_list(1);
    fake_serve();
    CHECK(!links_find(NULL, &fake_nodes[1]) && fake.cleaned_count == 0);
}

static void a_missing_link_degrades(void)
{
    fake_link_down(0);
    fake_peer(0)->missing_since = fake.now;
    fake_serve();
    CHECK(!cluster_degraded_reason(fake.cluster)); /* it may be dead */
    fake_wait(FAKE_TTL);
    CHECK(!cluster_degraded_reason(fake.cluster));
    fake_wait(1);
    CHECK(contains(str_from(cluster_degraded_reason(fake.cluster)), "no link"));
    fake_peer(0)->alive = false;
    CHECK(!cluster_degraded_reason(fake.cluster));
}

/* --- figures ---------------------------------------------------------------------------------- */

static void stats_are_counted(void)
{
    struct cluster_stats stats;

    fake_start(2);
    stats = cluster_stats(fake.cluster);
    CHECK(stats.nodes == 2 && stats.links == 2 && stats.linked == 2 && stats.redis_up);
    CHECK(stats.rabbitmq_up && stats.rabbitmq_connects == 1 && stats.redis_reconnects == 0);
    CHECK(stats.publishes == 3 && stats.confirms == 1 && stats.refusals == 2);
    CHECK(stats.returned == 3 && stats.foreign == 4 && stats.heartbeat_age == 7);
    CHECK(stats.echo_bounds == bus_echo_bounds && stats.late == 0 && stats.held_back == 0);
    fake_lose_link(1);
    CHECK(cluster_stats(fake.cluster).links == 1 && cluster_stats(fake.cluster).linked == 2);
    fake_registry_event(REGISTRY_WARNING, "maxmemory-policy is allkeys-lru");
    fake_bus_event(BUS_WARNING, STR("an order queue was made again"));
    fake_serve();
    CHECK(node_logged("allkeys-lru") && node_logged("an order queue was made again"));
    CHECK(!cluster_degraded_reason(fake.cluster));
    fake_end();

    fake_open(); /* there is no bus yet */
    fake_serve();
    stats = cluster_stats(fake.cluster);
    CHECK(stats.publishes == 0 && stats.nodes == 0 && !stats.redis_up && !stats.rabbitmq_up);
    cluster_republish(fake.cluster);
    CHECK(fake.cleared == 0 && cluster_is_idle(fake.cluster));
    fake_end();
}

/* --- ids -------------------------------------------------------------------------------------- */

/* An id is opened by its own node alone, in the incarnation that has made it. */
static void ids_belong_to_one_incarnation(void)
{
    const struct node_id before = {"10.0.0.1:8800", 99};
    uint64_t number = 0;

    fake_arrive(0, "shop");
    CHECK(node.hub.hooks->open_id(node.hub.hooks->state, fake_id(0), &number) && number);
    CHECK(same(fake_foreign_id(&fake.self, number).text, str_from(clients[0].id)));
    CHECK(hub_is_online(&node.hub, STR("shop"), fake_foreign_id(&fake.self, number)));
    CHECK(!hub_is_online(&node.hub, STR("shop"), fake_foreign_id(&before, number)));
    CHECK(!hub_is_online(&node.hub, STR("shop"), fake_foreign_id(&fake_nodes[0], number)));
    CHECK(!hub_is_online(&node.hub, STR("shop"),
                         (struct json_value){JSON_STRING, STR("\"0000000000000001\"")}));
}

/* --- leaving ---------------------------------------------------------------------------------- */

/* Told and recorded all: the others are told that it leaves, and find no trace. */
static void it_leaves_when_all_is_told(void)
{
    size_t leaves = 0;

    fake_add_member(0);
    CHECK(cluster_is_idle(fake.cluster));
    fake_depart(0);
    CHECK(!cluster_is_idle(fake.cluster)); /* its 1002 */
    fake_serve();
    fake_written(REGISTRY_CHANGED);
    CHECK(!cluster_is_idle(fake.cluster));
    fake_return_all();
    CHECK(cluster_is_idle(fake.cluster));
    fake_forget();
    cluster_close(fake.cluster);
    CHECK(fake.closed_clean);
    for (size_t i = 0; i < fake.message_count; i++)
        leaves += fake_read(fake.messages[i].text)->kind == MSG_LEAVE;
    CHECK(leaves == 2);
    fake.cluster = NULL;
}

/* Without Redis or RabbitMQ, or with something untold, it leaves its records to who cleans up after
 * it. */
static void it_is_cleaned_up_when_something_is_untold(void)
{
    for (int way = 0; way < 5; way++) {
        fake_start(1);
        fake_add_member(0);
        if (way == 0)
            fake_registry_event(REGISTRY_WAITING, "no route");
        if (way == 1)
            fake_bus_event(BUS_DOWN, STR("gone"));
        if (way < 4) /* 2: its 1002 is untold */
            fake_depart(0);
        fake_serve();
        if (way == 3) { /* a send has not come back */
            fake_settle();
            CHECK(fake_later(fake_send("1"), 1));
        }
        CHECK(cluster_is_idle(fake.cluster) == (way < 2 || way == 4));
        fake.message_taken = fake.message_count;
        cluster_close(fake.cluster);
        CHECK(!fake.closed_clean && fake_sent_nothing());
        fake.cluster = NULL;
        node.hub.hooks = NULL;
        if (way == 4) /* its client was still there */
            fake_depart(0);
        fake_end();
    }
}

/* A record may be removed, and the reply lost: nobody else can publish its 1002, so the node waits
 * for Redis, and then for the notice. */
static void it_waits_for_what_only_it_can_tell(void)
{
    fake_add_member(0);
    fake_depart(0);
    fake_serve();
    fake_registry_event(REGISTRY_WAITING, "no reply");
    CHECK(!cluster_is_idle(fake.cluster));
    fake_written(REGISTRY_UNKNOWN);
    CHECK(!cluster_is_idle(fake.cluster));
    fake_registry_event(REGISTRY_RECONNECTED, "");
    fake_wait(100);
    fake_written(REGISTRY_UNCHANGED);
    fake_lose_bus();
    CHECK(!cluster_is_idle(fake.cluster)); /* its 1002 was published, and may be lost */
    fake_bus_event(BUS_UP, STR(""));
    fake_return_all();
    fake_settle();
    CHECK(cluster_is_idle(fake.cluster));
}

/* --- scarce memory ---------------------------------------------------------------------------- */

static struct {
    bool on;          /* allocations are the cluster's */
    long made, fails; /* how many there were, and the number of the one that fails */
    bool all;         /* and all behind it */
} scarce;

static bool scarce_refuses(void)
{
    if (!scarce.on || fake_spares)
        return false;
    scarce.made++;
    return scarce.all ? scarce.made >= scarce.fails : scarce.made == scarce.fails;
}

#define SCARCE_TICKETS 16

/* How often each request_id was answered: at once, or by a result. */
static unsigned answered[SCARCE_TICKETS];

static void scarce_serve(void)
{
    const struct cluster_result *result;

    scarce.on = true;
    cluster_serve(fake.cluster, NULL, fake.now);
    while ((result = cluster_result(fake.cluster)))
        answered[result->request_id % SCARCE_TICKETS]++;
    cluster_flush(fake.cluster);
    scarce.on = false;
    flush();
}

static void scarce_apply(struct command command, bool receipt, uint64_t request_id)
{
    struct result result = {0};

    command.message_id = receipt ? STR("\"id\"") : (struct str){0};
    scarce.on = true;
    if (cluster_apply(fake.cluster, &node.hub, &command, receipt, request_id, &result) ==
        CLUSTER_DONE)
        answered[request_id]++;
    scarce.on = false;
    CHECK(!result.code == !result.error);
    buf_free(&result.list);
}

static void scarce_commands(void)
{
    struct command bind = fake_bind(fake_id(0), "new");
    struct command many = fake_command(COMMAND_SEND_TO_CLIENTS);
    enum cluster_admission admission;

    bind.user = STR("u");
    bind.has_user = true;
    bind.extend = STR("e");
    bind.has_extend = true;
    many.clients = str_from(textf("[%s,%.70s,%.70s]", clients[0].id,
                                  fake_foreign_id(&fake_nodes[0], 1).text.at,
                                  fake_foreign_id(&fake_nodes[1], 1).text.at));
    scarce_apply(bind, false, 1);
    scarce_apply(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), false, 2);
    scarce_apply(fake_command(COMMAND_ONLINE_LIST), false, 3);
    scarce_apply(many, false, 4);
    scarce_apply(fake_send("1"), true, 5);
    scarce_apply(fake_to_client(fake_id(0), "2"), false, 6);
    scarce_apply(many, true, 7);
    scarce_apply(fake_to_client(fake_foreign_id(&fake_nodes[1], 1), "3"), false, 8);
    scarce.on = true;
    admission = cluster_admit(fake.cluster, node.accounts,
                              &(struct ticket_claims){.system = STR("other")}, 9);
    scarce.on = false;
    answered[9] += admission != CLUSTER_ASKED;
}

/* What other nodes and the registry say meanwhile. */
static void scarce_events(void)
{
    static const struct str record = STR_INIT(
        "{\"system\":\"shop\",\"group\":\"g\",\"id\":\"0123456789abcdefghijklmnopqrstuvwxyz"
        "0123456789abcdefghijklmnopqrst+/\",\"identity\":{}}");
    struct registry_event *event = fake_registry_event(REGISTRY_REMOVED, "");
    struct cluster_msg sent = {.kind = MSG_SEND, .id = 7, .counted = true},
                       request = {.kind = MSG_REQUEST, .id = 8, .at = fake.now},
                       count = {.kind = MSG_COUNT, .id = 9};

    event->self = fake_nodes[2];
    event->records = &record;
    event->count = 1;
    for (size_t i = 0; i < fake.look_up_count; i++) {
        event = fake_registry_event(REGISTRY_FOUND, "other");
        event->id = fake.look_ups[i].id;
    }
    fake_registry_event(REGISTRY_RECONNECTED, "");
    fake_list(3);
    sent.command = fake_send("4");
    fake_publish(0, LANE_SEND, 1, &sent);
    request.command = fake_bind(fake_id(0), "newer");
    fake_say(0, &request);
    request.command = fake_command(COMMAND_CLIENT_INFO);
    request.command.client = fake_id(0);
    fake_say(1, &request);
    count.slot = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    fake_say(1, &count);
}

/* A run in which one allocation fails, or all from one on. True if it came to that. */
static bool lead_scarce_life(long fails, bool all)
{
    fake_start(2);
    fake_add_member(0);
    memset(answered, 0, sizeof answered);
    scarce.made = 0;
    scarce.fails = fails;
    scarce.all = all;
    scarce_commands();
    scarce_serve();
    scarce_events();
    scarce_serve();
    for (size_t i = 0; i < fake.publication_count; i++)
        if (!fake.publications[i].done)
            fake_echo(i);
    scarce_serve();
    fails = scarce.made - fails;
    scarce.fails = 0; /* there is memory again */
    scarce.all = false;
    fake_written(REGISTRY_CHANGED);
    fake.now += FAKE_TIMEOUT;
    scarce_serve();
    fake_return_all();
    scarce_serve();
    for (size_t i = 1; i <= 9; i++)
        if (!CHECK(answered[i] == 1))
            printf("  request_id %zu was answered %u times\n", i, answered[i]);
    CHECK(fake.cluster->requests.count == 0 && !fake.cluster->results.first);
    fake_depart(0);
    fake_end();
    return fails >= 0;
}

/* Whatever allocation fails, each who waits is told once, and nothing leaks. */
static void without_memory_all_are_told_once(void)
{
    for (int all = 0; all < 2; all++) {
        long fails = 1;

        while (test_good && lead_scarce_life(fails, all))
            fails++;
        if (!CHECK(fails > 100))
            printf("  allocation %ld failed%s\n", fails, all ? ", with all behind it" : "");
    }
}

/* After a standstill what RabbitMQ has brought comes before what the links have. */
static void the_links_wait_for_the_bus_after_a_standstill(void)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .id = 9};

    for (int round = 0; round < 2; round++) {
        fake_start(1);
        fake_arrive(0, "shop");
        fake.bus_is_behind = true;
        fake_tell(0, &(struct cluster_msg){.kind = MSG_STATUS, .at = fake.now, .ready = true});
        fake.now += 3000;
        msg.at = fake.now;
        msg.command = fake_to_client(fake_id(0), "1");
        fake_tell(0, &msg);
        CHECK(fake_got_nothing(0));
        if (round == 0)
            fake_bus_event(BUS_CAUGHT_UP, (struct str){0});
        else /* it is not waited for for ever */
            fake.now += 1000;
        fake_serve();
        CHECK(round == 0 ? fake_got(0, "1") : fake_got_nothing(0));
        fake.now += 1001;
        fake_serve();
        CHECK(cluster_stats(fake.cluster).late == (round == 0 ? 0 : 1));
        fake_depart(0);
        fake_forget();
        fake_end();
    }
}

static const struct test tests[] = {
    TEST(it_serves_once_it_is_linked_and_connected, FAKE_CLOSED),
    TEST(it_does_not_wait_for_ever, FAKE_CLOSED),
    TEST(a_conflict_of_names_is_final, FAKE_CLOSED),
    TEST(alone_all_goes_to_the_hub, 0),
    TEST(clients_are_admitted_once_the_slot_is_bound, 0),
    TEST(a_rejected_client_is_told_why, 0),
    TEST(a_ticket_needs_all_slots, 0),
    TEST(a_ticket_with_a_slot_missing_joins_nothing, 0),
    TEST(publications_are_taken_once, 1),
    TEST(batches_are_dealt_with_within_the_budget, 1),
    TEST(nodes_are_told_the_state, 2),
    TEST(messages_of_nodes_are_taken, 2),
    TEST(the_dead_are_cleaned_up, 2),
    TEST(after_a_silence_nobody_is_dead, 2),
    TEST(who_is_not_listed_has_left, 2),
    TEST(a_missing_link_degrades, 1),
    TEST(stats_are_counted, FAKE_CLOSED),
    TEST(ids_belong_to_one_incarnation, 1),
    TEST(it_leaves_when_all_is_told, 2),
    TEST(it_waits_for_what_only_it_can_tell, 1),
    TEST(it_is_cleaned_up_when_something_is_untold, FAKE_CLOSED),
    TEST(without_memory_all_are_told_once, FAKE_CLOSED),
    TEST(the_links_wait_for_the_bus_after_a_standstill, FAKE_CLOSED),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

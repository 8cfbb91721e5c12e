/* test_cluster_route.c - cluster_route.c: a success is one, -1007 is not done later, and frames
 * come to a client in the order in which their calls were answered. */
#include "cluster_fake.h"

/* The next request sent to a node over its link; its id, or 0. */
static uint64_t request_to(size_t which, enum command_kind kind)
{
    const struct cluster_msg *msg = fake_sent_to(which);

    if (!msg || msg->kind != MSG_REQUEST || msg->command.kind != kind || msg->at != fake.now)
        return 0;
    return msg->id;
}

/* --- sends ------------------------------------------------------------------------------------ */

/* Nothing but its own batch makes a send a success: members get it then, and not before. */
static void a_send_is_a_success_when_it_came_back(void)
{
    struct cluster_msg other = {.kind = MSG_SEND, .id = 1, .command = fake_send("7")};

    fake_add_member(0);
    CHECK(fake_later(fake_send("1"), 5) && fake_later(fake_send("2"), 6));
    CHECK(fake.publication_count == 2 && fake_sent_nothing());
    CHECK(fake.publications[0].with.lane == LANE_SEND && !fake.publications[0].with.to);
    CHECK(fake.publications[0].with.slot == wire_slot(WIRE_GROUP, STR("shop"), STR("g")));
    CHECK(fake.publications[0].with.partition == wire_partition(STR("shop")));
    CHECK(fake.publications[0].with.deadline == fake.now + FAKE_TIMEOUT);
    fake_wait(1000);
    CHECK(fake_no_result() && fake_got_nothing(0));
    other.id = fake.publications[0].with.id; /* another node's numbers are its own */
    fake_publish(0, LANE_SEND, 1, &other);
    fake_serve();
    CHECK(fake_no_result() && fake_got(0, "7"));
    fake_return(0);
    CHECK(fake_succeeds(5) && fake_no_result());
    CHECK(fake_got(0, "1") && fake_got_nothing(0));
    fake_return(1);
    CHECK(fake_succeeds(6) && fake_no_result() && fake_got(0, "2"));
}

/* Each kind goes under the slot of its channel. */
static void sends_go_to_their_slots(void)
{
    struct command command = fake_send("1");

    command.kind = COMMAND_SEND_TO_USER;
    command.user = STR("g");
    CHECK(fake_later(command, 1));
    command.kind = COMMAND_SEND_TO_SYSTEM;
    CHECK(fake_later(command, 2));
    CHECK(fake.publications[0].with.slot == wire_slot(WIRE_USER, STR("shop"), STR("g")));
    CHECK(fake.publications[1].with.slot == wire_slot(WIRE_SYSTEM, STR("shop"), STR("")));
    CHECK(fake_read(fake.publications[1].with.text)->command.kind == COMMAND_SEND_TO_SYSTEM);
    fake_return_all();
    CHECK(fake_succeeds(1) && fake_succeeds(2) && fake_no_result());
}

/* Failed, late, or without RabbitMQ: -1007, once, and what the text says. */
static void a_send_that_failed_is_told(void)
{
    static const char lengthy[] =
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567";

    CHECK(fake_later(fake_send("1"), 1) && fake_later(fake_send("2"), 2));
    fake_fail(0, "no order queue took it");
    fake_fail(1, lengthy);
    fake_serve();
    CHECK(fake_fails(1, -1007, "no order queue took it"));
    CHECK(fake_fails(2, -1007, "012345678901234567890123456789") && fake_no_result());
    /* it does not come back in time: then it is not known, and what comes later is not told */
    CHECK(fake_later(fake_send("3"), 3));
    fake_wait(FAKE_TIMEOUT - 1);
    CHECK(fake_no_result() && route_deadline(fake.cluster) == fake.now + 1);
    fake_wait(1);
    CHECK(fake_fails(3, -1007, "whether it was delivered is not known") && fake_no_result());
    fake_return_all();
    CHECK(fake_no_result());
    CHECK(fake_later(fake_send("4"), 4));
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake_fails(4, -1007, "not known"));
    fake_fail(3, "the connection broke");
    fake_serve();
    CHECK(fake_no_result());
    /* at once */
    fake.bus_is_full = true;
    CHECK(fake_done_with(fake_send("5"), 5, RESULT_UNREACHABLE));
    fake.bus_is_full = false;
    fake_bus_event(BUS_SLOW, STR("slow"));
    fake_serve();
    CHECK(fake_done_with(fake_send("6"), 6, RESULT_UNREACHABLE));
    CHECK(contains(str_from(fake_applied.error), "RabbitMQ does not answer"));
    fake_lose_bus();
    CHECK(fake_done_with(fake_send("7"), 7, RESULT_UNREACHABLE));
    CHECK(contains(str_from(fake_applied.error), "RabbitMQ cannot be reached"));
    CHECK(fake_no_result() && fake.publication_count == 4);
    CHECK(!fake.cluster->requests.first && fake.cluster->pendings.by_id.count == 0);
}

/* --- requests --------------------------------------------------------------------------------- */

static void requests_go_by_link(void)
{
    uint64_t id;
    struct json_value client = fake_foreign_id(&fake_nodes[1], 7);

    CHECK(fake_later(fake_to_client(client, "1"), 1));
    id = request_to(1, COMMAND_SEND_TO_CLIENT);
    CHECK(id && same(fake_reading.msg.command.client.text, client.text));
    CHECK(!fake_reading.msg.to.length && same(fake_reading.msg.command.data, STR("1")));
    CHECK(fake_sent_nothing() && fake.publication_count == 0 && fake_no_result());
    fake_say_reply(0, fake_reply_to(id, 0, NULL)); /* another node's word counts nothing */
    fake_say_reply(1, fake_reply_to(id + 1, 0, NULL));
    CHECK(fake_no_result());
    fake_say_reply(1, fake_reply_to(id, 0, NULL));
    CHECK(fake_succeeds(1));
    fake_say_reply(1, fake_reply_to(id, -1003, "twice"));
    CHECK(fake_no_result());
    /* the owner's word is the result */
    CHECK(fake_later(fake_bind(client, "g"), 2));
    fake_say_reply(1, fake_reply_to(request_to(1, COMMAND_BIND), -1003, "client not online"));
    CHECK(fake_fails(2, -1003, "client not online") && fake_no_result());
}

static void a_node_that_does_not_reply_is_given_up(void)
{
    uint64_t id;
    struct json_value client = fake_foreign_id(&fake_nodes[1], 7);

    CHECK(fake_later(fake_to_client(client, "1"), 1));
    id = request_to(1, COMMAND_SEND_TO_CLIENT);
    fake_wait(FAKE_TIMEOUT - 1);
    CHECK(fake_no_result());
    fake_wait(1);
    CHECK(fake_fails(1, -1007, "the client's node cannot be reached"));
    fake_say_reply(1, fake_reply_to(id, 0, NULL));
    CHECK(fake_no_result());
    /* its link goes down: then it is known at once */
    CHECK(fake_later(fake_to_client(client, "2"), 2));
    fake_lose_link(0);
    CHECK(fake_no_result());
    fake_lose_link(1);
    CHECK(fake_fails(2, -1007, "cannot be reached"));
    CHECK(fake_done_with(fake_to_client(client, "3"), 3, RESULT_UNREACHABLE) && fake_no_result());
}

/* -1003 is a promise: all nodes are known, and none has the client. */
static void offline_is_said_only_when_all_is_known(void)
{
    struct json_value gone;
    struct node_id before = fake_nodes[2]; /* a node that is not listed */
    const struct json_value forged = {JSON_STRING, STR("\"forged\"")};

    fake_start(1);
    /* one that joined after all that are known may have clients: the next listing will tell */
    CHECK(fake_done_with(fake_to_client(fake_foreign_id(&before, 7), "1"), 1, RESULT_UNREACHABLE));
    before.incarnation = 1;
    gone = fake_foreign_id(&before, 7);
    for (int round = 0; round < 2; round++) {
        CHECK(fake_done(fake_to_client(gone, "1"), false, 1));
        CHECK(fake_applied.code == (round ? RESULT_UNREACHABLE : RESULT_OFFLINE));
        CHECK(fake_done(fake_bind(gone, "g"), false, 1));
        CHECK(fake_applied.code == (round ? RESULT_UNREACHABLE : RESULT_OFFLINE));
        /* what is no id of this cluster is nobody's in any case */
        CHECK(fake_done_with(fake_to_client(forged, "1"), 1, RESULT_OFFLINE));
        fake_registry_event(REGISTRY_WAITING, "no route"); /* out of touch: not all are known */
        fake_serve();
    }
    CHECK(fake_sent_nothing() && fake_no_result());
    fake_end();

    fake_open(); /* nobody has been listed yet */
    fake_registry_event(REGISTRY_JOINED, "")->self = fake.self;
    fake_serve();
    CHECK(fake_done_with(fake_to_client(fake_foreign_id(&fake_nodes[2], 7), "1"), 1,
                         RESULT_UNREACHABLE));
    fake_end();
}

/* --- the order of one client ------------------------------------------------------------------ */

/* Behind a send that the owner may not have taken a request goes the same way, to the owner alone;
 * its reply proves that the owner has taken the send, and the next goes over the link again. */
static void a_request_goes_behind_the_sends_before_it(void)
{
    const struct fake_publication *kept;
    uint64_t id;
    struct json_value client = fake_foreign_id(&fake_nodes[1], 7);

    CHECK(fake_later(fake_send("1"), 1));
    CHECK(fake_later(fake_to_client(client, "2"), 2));
    CHECK(fake_sent_nothing() && fake.publication_count == 2);
    kept = &fake.publications[1];
    id = kept->with.id;
    CHECK(kept->with.lane == LANE_SEND && kept->with.partition == wire_partition(STR("shop")));
    CHECK(kept->with.to && node_equal(&kept->to, &fake_nodes[1]));
    CHECK(fake_read(kept->with.text)->kind == MSG_REQUEST && fake_reading.msg.id == id);
    CHECK(same(fake_reading.msg.to, STR("[::1]:8800/300")) && fake_reading.msg.at == fake.now);
    /* it comes back here too, where it is nobody's */
    fake_return_all();
    CHECK(fake_succeeds(1) && fake_no_result() && fake_sent_nothing());
    /* that the send came back here says nothing about the owner */
    CHECK(fake_later(fake_to_client(client, "3"), 3));
    CHECK(fake.publication_count == 3 && fake_sent_nothing());
    /* other owners, other systems and what has no place among frames are not concerned */
    CHECK(fake_later(fake_to_client(fake_foreign_id(&fake_nodes[0], 7), "4"), 4));
    CHECK(fake.publication_count == 4);
    {
        struct command command = fake_to_client(client, "5");

        command.system = STR("shop2");
        CHECK(wire_partition(STR("shop2")) != wire_partition(STR("shop")));
        CHECK(fake_later(command, 5) && request_to(1, COMMAND_SEND_TO_CLIENT));
        command = fake_command(COMMAND_CLIENT_INFO);
        command.client = client;
        CHECK(fake_later(command, 6) && request_to(1, COMMAND_CLIENT_INFO));
    }
    fake_say_reply(1, fake_reply_to(id, 0, NULL));
    CHECK(fake_succeeds(2));
    CHECK(fake_later(fake_to_client(client, "7"), 7) && request_to(1, COMMAND_SEND_TO_CLIENT));
    fake.message_taken = 0;
    id = 0;
    for (const struct cluster_msg *msg; (msg = fake_sent_to(1));)
        id = msg->id;
    fake_say_reply(1, fake_reply_to(id, 0, NULL));
    CHECK(fake_succeeds(7));
    CHECK(fake_later(fake_to_client(client, "7"), 70) && request_to(1, COMMAND_SEND_TO_CLIENT));
    /* a new send, and it begins again */
    CHECK(fake_later(fake_send("8"), 8));
    CHECK(fake_later(fake_bind(client, "g"), 9) && fake_sent_nothing());
    /* the reply to what was before it does not count */
    fake_say_reply(1, fake_reply_to(fake.publications[2].with.id, 0, NULL));
    CHECK(fake_succeeds(3));
    CHECK(fake_later(fake_to_client(client, "10"), 10) && fake_sent_nothing());
    /* each proves what was before it, and no more */
    CHECK(fake_later(fake_send("10"), 100) && fake_later(fake_to_client(client, "10"), 101));
    fake_say_reply(1, fake_reply_to(fake.publications[5].with.id, -1003, "client not online"));
    CHECK(fake_fails(9, -1003, "not online"));
    CHECK(fake_later(fake_to_client(client, "10"), 102) && fake_sent_nothing());
    fake_say_reply(1, fake_reply_to(fake.publications[8].with.id, 0, NULL));
    CHECK(fake_succeeds(101));
    CHECK(fake_later(fake_to_client(client, "11"), 11) && request_to(1, COMMAND_SEND_TO_CLIENT));
}

/* The request fails on its way, or the bus is gone: it is not known what the owner has taken. */
static void a_request_may_fail_on_its_way(void)
{
    struct json_value client = fake_foreign_id(&fake_nodes[1], 7);

    CHECK(fake_later(fake_send("1"), 1) && fake_later(fake_to_client(client, "2"), 2));
    fake_fail(1, "no order queue took it");
    fake_serve();
    CHECK(fake_fails(2, -1007, "the client's node cannot be reached") && fake_no_result());
    fake_fail(0, "broken");
    fake_lose_bus();
    CHECK(fake_fails(1, -1007, "broken"));
    /* for as long as its sends may still be under way nothing passes them, then by link */
    CHECK(fake_done_with(fake_to_client(client, "3"), 3, RESULT_UNREACHABLE) &&
          fake_sent_nothing());
    fake_wait(FAKE_TIMEOUT - 1);
    CHECK(fake_done(fake_to_client(client, "4"), false, 4) && fake_sent_nothing());
    fake_wait(1);
    CHECK(fake_done(fake_to_client(client, "5"), false, 5) && fake_sent_nothing());
    /* and not before the owner is heard of: it may stand still, with RabbitMQ's messages unread */
    fake_report(1, true);
    CHECK(fake_later(fake_to_client(client, "6"), 6) && request_to(1, COMMAND_SEND_TO_CLIENT));
}

/* An owner that has lost RabbitMQ too gets no more of the sends before. */
static void a_request_passes_what_rabbitmq_lost(void)
{
    struct json_value client = fake_foreign_id(&fake_nodes[1], 7);

    CHECK(fake_later(fake_send("1"), 1));
    fake_fail(0, "broken");
    fake_bus_event(BUS_DOWN, STR("gone"));
    fake_report(1, false);
    CHECK(fake_fails(1, -1007, "broken"));
    CHECK(fake_done(fake_to_client(client, "2"), false, 2) && fake_sent_nothing());
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake_later(fake_to_client(client, "3"), 3) && request_to(1, COMMAND_SEND_TO_CLIENT));
}

/* A command for a client of this node waits for the sends before it, and no others. */
static void local_commands_are_held_back(void)
{
    struct command command;

    for (size_t i = 0; i < 2; i++)
        fake_arrive(i, i ? "shop2" : "shop");
    fake_put_into(0, "g");
    fake_settle();
    far_forget(&clients[0].far);
    CHECK(fake_done(fake_to_client(fake_id(0), "0"), false, 1)); /* nothing is before it */
    CHECK(fake_got_nothing(0) || true);
    flush();
    CHECK(fake_got(0, "0"));
    CHECK(fake_later(fake_send("1"), 1) && fake_later(fake_send("2"), 2));
    CHECK(fake_later(fake_to_client(fake_id(0), "3"), 3));
    CHECK(fake_later(fake_send("4"), 4) && fake_later(fake_to_client(fake_id(0), "5"), 5));
    CHECK(cluster_stats(fake.cluster).held_back == 2);
    command = fake_command(COMMAND_CLIENT_INFO);
    command.client = fake_id(0);
    CHECK(fake_done_with(command, 6, RESULT_SUCCESS));
    command = fake_to_client(fake_id(1), "x");
    command.system = STR("shop2");
    CHECK(fake_done_with(command, 7, RESULT_SUCCESS));
    fake_return(0);
    CHECK(fake_succeeds(1) && fake_no_result());
    fake_return(1);
    CHECK(fake_succeeds(2) && fake_succeeds(3) && fake_no_result());
    fake_return(2);
    CHECK(fake_succeeds(4) && fake_succeeds(5) && fake_no_result());
    for (int i = 1; i <= 5; i++)
        CHECK(fake_got(0, textf("%d", i)));
    CHECK(fake_got_nothing(0) && cluster_stats(fake.cluster).held_back == 0);
}

/* What was held back for too long is -1007 and is not done, neither then nor later. */
static void what_was_held_too_long_is_not_done(void)
{
    fake_add_member(0);
    CHECK(fake_later(fake_send("1"), 1));
    fake_wait(500);
    CHECK(fake_later(fake_to_client(fake_id(0), "2"), 2));
    CHECK(fake_later(fake_bind(fake_id(0), "h"), 3));
    fake_wait(FAKE_TIMEOUT - 500);
    CHECK(fake_fails(1, -1007, "not known") && fake_no_result());
    CHECK(route_deadline(fake.cluster) == fake.now + 500);
    fake_wait(500);
    CHECK(fake_fails(2, -1007, "did not come back from RabbitMQ in time"));
    CHECK(fake_fails(3, -1007, "did not come back from RabbitMQ in time") && fake_no_result());
    CHECK(route_deadline(fake.cluster) == INT64_MAX);
    fake_return_all();
    CHECK(fake_got(0, "1") && fake_got_nothing(0));
    CHECK(fake_no_result());
    /* and then nothing is before it any more */
    CHECK(fake_done(fake_to_client(fake_id(0), "4"), false, 4));
    flush();
    CHECK(fake_got(0, "4"));
}

/* A send that failed holds nothing back: on its own, or with all that RabbitMQ had. */
static void failed_sends_hold_nothing_back(void)
{
    fake_arrive(0, "shop");
    CHECK(fake_later(fake_send("1"), 1) && fake_later(fake_to_client(fake_id(0), "2"), 2));
    fake_fail(0, "no queue");
    fake_serve();
    CHECK(fake_fails(1, -1007, "no queue") && fake_succeeds(2));
    CHECK(fake_later(fake_send("3"), 3) && fake_later(fake_to_client(fake_id(0), "4"), 4));
    fake_lose_bus();
    CHECK(fake_succeeds(4) && fake_no_result());
    CHECK(fake_done(fake_to_client(fake_id(0), "5"), false, 5));
    flush();
    CHECK(fake_got(0, "2") && fake_got(0, "4"));
    CHECK(fake_got(0, "5"));
}

/* --- binding ---------------------------------------------------------------------------------- */

/* The binding that was asked for last of this slot; it must be there. */
static struct fake_binding *binding_of(uint16_t slot)
{
    struct fake_binding *found = NULL;

    for (size_t i = 0; i < fake.binding_count; i++)
        if (fake.bindings[i].slot == slot)
            found = &fake.bindings[i];
    if (!found)
        abort();
    return found;
}

static void a_bind_waits_for_its_slots(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    const uint16_t u = wire_slot(WIRE_USER, STR("shop"), STR("u"));
    struct command command;

    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    command = fake_bind(fake_id(0), "g");
    command.user = STR("u");
    command.has_user = true;
    CHECK(fake_later(command, 1) && fake_later(fake_bind(fake_id(0), "g"), 2));
    CHECK(binding_of(g)->bound && binding_of(u)->bound);
    CHECK(cluster_stats(fake.cluster).slots_unbound == 2 && !node.hub.kinds[CHANNEL_GROUP]);
    fake_bound(binding_of(g));
    fake_serve();
    CHECK(fake_succeeds(2) && fake_no_result() && node.hub.kinds[CHANNEL_GROUP] == 1);
    CHECK(node.hub.kinds[CHANNEL_USER] == 0);
    fake_bound(binding_of(u));
    fake_serve();
    CHECK(fake_succeeds(1) && fake_no_result() && node.hub.kinds[CHANNEL_USER] == 1);
    CHECK(cluster_stats(fake.cluster).slots_unbound == 0);
    /* it is bound: the next one need not wait, nor one for nobody */
    CHECK(fake_done_with(command, 3, RESULT_SUCCESS));
    command.user = STR("v");
    CHECK(fake_later(command, 30));
    fake_bound(binding_of(wire_slot(WIRE_USER, STR("shop"), STR("v"))));
    fake_serve();
    CHECK(fake_succeeds(30) && fake_no_result());
    command = fake_bind(fake_id(0), "other");
    fake_depart(0);
    CHECK(fake_done_with(command, 4, RESULT_OFFLINE));
    fake.binds_at_once = true;
    fake_settle();
    CHECK(!fake.cluster->slots[g].wanted && !fake.cluster->slots[u].wanted);
}

/* A group and a user whose names have one slot: it is asked for once. */
static void two_slots_may_be_one(void)
{
    const uint16_t slot = wire_slot(WIRE_GROUP, STR("shop"), STR("0"));
    const char *user = "";
    struct command command;

    for (int i = 0; i < 200000 && !user[0]; i++)
        if (wire_slot(WIRE_USER, STR("shop"), str_from(textf("%d", i))) == slot)
            user = textf("%d", i);
    fake_start(0);
    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    command = fake_bind(fake_id(0), "0");
    command.user = str_from(user);
    command.has_user = true;
    CHECK(user[0] && fake_later(command, 1));
    CHECK(cluster_stats(fake.cluster).slots_unbound == 1);
    fake_bound(binding_of(slot));
    fake_serve();
    CHECK(fake_succeeds(1) && node.hub.kinds[CHANNEL_USER] == 1);
    CHECK(fake.cluster->slots[slot].channels == 2);
    fake.binds_at_once = true;
    fake_depart(0);
    fake_settle();
    CHECK(fake_no_result() && !fake.cluster->slots[slot].wanted);
    CHECK(fake.cluster->slots[slot].keepers == 0);
    fake_end();
}

/* Too late is not done: neither at the deadline nor when RabbitMQ binds at last. */
static void a_bind_that_is_late_is_not_done(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));

    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    CHECK(fake_later(fake_bind(fake_id(0), "g"), 1));
    fake_wait(100);
    CHECK(fake_later(fake_bind(fake_id(0), "g"), 2));
    fake_wait(FAKE_TIMEOUT - 100);
    CHECK(fake_fails(1, -1007, "RabbitMQ did not bind in time") && fake_no_result());
    fake_bound(binding_of(g));
    fake_serve();
    CHECK(fake_succeeds(2) && fake_no_result() && node.hub.kinds[CHANNEL_GROUP] == 1);
    CHECK(fake_done(
        (struct command){
            .kind = COMMAND_UNBIND, .system = STR("shop"), .group = STR("g"), .client = fake_id(0)},
        false, 3));
    fake_serve();
    CHECK(!binding_of(g)->bound); /* nobody needs it any more */
    CHECK(fake_later(fake_bind(fake_id(0), "g"), 4));
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake_fails(4, -1007, "RabbitMQ did not bind in time") && fake_no_result());
    CHECK(node.hub.kinds[CHANNEL_GROUP] == 0);
    fake_bound(binding_of(g));
    fake_serve();
    CHECK(node.hub.kinds[CHANNEL_GROUP] == 0 && !binding_of(g)->bound); /* and let go again */
    /* without RabbitMQ it is told at once */
    fake_lose_bus();
    CHECK(fake_done_with(fake_bind(fake_id(0), "g"), 5, RESULT_UNREACHABLE));
}

/* A bind held back behind sends has no more time than others: it is answered in time. */
static void a_bind_that_was_held_is_answered_in_time(void)
{
    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    CHECK(fake_later(fake_send("1"), 1) && fake_later(fake_bind(fake_id(0), "g"), 2));
    fake_wait(FAKE_TIMEOUT - 100);
    fake_return(0);
    CHECK(fake_succeeds(1) && fake_no_result());
    CHECK(fake_later(fake_send("3"), 3));
    fake_wait(100);
    CHECK(fake_fails(2, -1007, "RabbitMQ did not bind in time") && fake_no_result());
    CHECK(node.hub.kinds[CHANNEL_GROUP] == 0);
    CHECK(route_deadline(fake.cluster) == fake.now + FAKE_TIMEOUT - 100);
    fake_wait(FAKE_TIMEOUT - 100);
    CHECK(fake_fails(3, -1007, "not known"));
}

/* --- what other nodes ask --------------------------------------------------------------------- */

/* A request of another node, sent now by a clock of its own. */
static struct cluster_msg request_of(uint64_t id, struct command command, int64_t at)
{
    return (struct cluster_msg){.kind = MSG_REQUEST, .id = id, .at = at, .command = command};
}

static void requests_of_other_nodes_are_done(void)
{
    struct cluster_msg msg;

    fake_arrive(0, "shop");
    msg = request_of(41, fake_to_client(fake_id(0), "1"), fake.now);
    fake_tell(1, &msg);
    CHECK(fake_replied(1, 41, 0) && fake_reading.msg.result.matched == 1 && fake_sent_nothing());
    CHECK(fake_got(0, "1"));
    msg = request_of(42, fake_to_client(fake_foreign_id(&fake.self, 1), "1"), fake.now);
    fake_tell(0, &msg);
    CHECK(fake_replied(0, 42, -1003));
    /* what is for all nodes, or what clients could not read, is no request */
    msg = request_of(43, fake_send("1"), fake.now);
    fake_say(0, &msg);
    msg = request_of(44, fake_to_client(fake_id(0), "1"), fake.now);
    msg.command.msg = (struct str){0};
    fake_tell(0, &msg);
    CHECK(fake_replied(0, 43, -1) && fake_replied(0, 44, -1) && fake_got_nothing(0));
    /* through RabbitMQ, behind the sends of its node */
    msg = request_of(45, fake_to_client(fake_id(0), "3"), fake.now);
    msg.to = STR("10.0.0.1:8800/100");
    {
        struct cluster_msg before = {.kind = MSG_SEND, .id = 1, .command = fake_send("2")};

        before.command.kind = COMMAND_SEND_TO_SYSTEM;
        fake_publish(0, LANE_SEND, 1, &before);
    }
    fake_publish(0, LANE_SEND, 2, &msg);
    msg.to = STR("10.0.0.1:8800/99"); /* another incarnation of this node */
    fake_publish(0, LANE_SEND, 3, &msg);
    msg.to = (struct str){0};
    fake_publish(0, LANE_SEND, 4, &msg);
    fake_serve();
    CHECK(fake_replied(0, 45, 0) && fake_sent_nothing());
    CHECK(fake_got(0, "2") && fake_got(0, "3"));
    CHECK(fake_got_nothing(0));
    /* nobody could be told without a link */
    fake_link_down(0);
    msg.to = STR("10.0.0.1:8800/100");
    fake_publish(0, LANE_SEND, 5, &msg);
    fake_serve();
    CHECK(fake_got_nothing(0) && fake_sent_nothing());
}

/* What its sender does not wait for any more is not done; it is answered, counted and logged. */
static void late_requests_are_not_done(void)
{
    struct cluster_msg msg;

    fake_arrive(0, "shop");
    msg = request_of(1, fake_to_client(fake_id(0), "1"), fake.now - FAKE_TIMEOUT + 1);
    fake_tell(0, &msg);
    CHECK(fake_replied(0, 1, 0) && fake_got(0, "1"));
    msg = request_of(2, fake_to_client(fake_id(0), "2"), fake.now - FAKE_TIMEOUT);
    fake_tell(0, &msg);
    CHECK(fake_replied(0, 2, -1007) && contains(fake_reading.msg.error, "came too late"));
    CHECK(fake_got_nothing(0) && cluster_stats(fake.cluster).late == 1);
    CHECK(node_logged("a request from another node came too late and was not carried out "
                      "node=\"10.0.0.2:8800/200\" age=2000"));
    /* the same through RabbitMQ */
    msg.to = STR("10.0.0.1:8800/100");
    fake_publish(0, LANE_SEND, 1, &msg);
    fake_serve();
    CHECK(fake_replied(0, 2, -1007) && fake_got_nothing(0));
    CHECK(cluster_stats(fake.cluster).late == 2);
}

/* A bind of another node waits for its slot, and has the time that its sender waits. */
static void binds_of_other_nodes_have_their_senders_time(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    struct cluster_msg msg;

    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    msg = request_of(1, fake_bind(fake_id(0), "g"), fake.now - 1500);
    fake_say(0, &msg);
    msg = request_of(2, fake_bind(fake_id(0), "g"), fake.now);
    fake_tell(0, &msg);
    CHECK(fake_sent_nothing());
    fake.now += 500; /* now the first one's sender has gone */
    fake_bound(binding_of(g));
    fake_serve();
    CHECK(fake_replied(0, 1, -1007) && fake_replied(0, 2, 0) && node.hub.kinds[CHANNEL_GROUP] == 1);
    fake.binds_at_once = true;
    fake_depart(0);
    fake_settle();
    /* alone it is not applied at all */
    fake_arrive(0, "shop");
    fake.binds_at_once = false;
    msg = request_of(3, fake_bind(fake_id(0), "h"), fake.now - 1500);
    fake_tell(0, &msg);
    fake.now += 500;
    fake_bound(binding_of(wire_slot(WIRE_GROUP, STR("shop"), STR("h"))));
    fake_serve();
    CHECK(fake_replied(0, 3, -1007) && node.hub.kinds[CHANNEL_GROUP] == 0);
    fake.binds_at_once = true;
}

/* --- many clients ----------------------------------------------------------------------------- */

/* Ids of three nodes, one that is forged and one of a node that is not there. */
static const char *many_ids(void)
{
    return textf("[%s,%s,\"forged\",%s, %s,%s,%s]",
                 textf("%.*s", 70, fake_foreign_id(&fake_nodes[1], 1).text.at), clients[0].id,
                 textf("%.*s", 70, fake_foreign_id(&fake_nodes[0], 2).text.at),
                 textf("%.*s", 70, fake_foreign_id(&fake_nodes[1], 3).text.at),
                 textf("%.*s", 70, fake_foreign_id(&fake_nodes[2], 4).text.at),
                 textf("%.*s", 70, fake_foreign_id(&fake.self, 5).text.at));
}

static const char *foreign(size_t which, uint64_t number)
{
    return textf("%.*s", 70,
                 fake_foreign_id(which == 9 ? &fake.self : &fake_nodes[which], number).text.at);
}

static void a_send_to_many_is_shared_out(void)
{
    struct command command = fake_command(COMMAND_SEND_TO_CLIENTS);
    const struct cluster_result *result;
    struct cluster_msg reply;
    uint64_t first, second;

    fake_arrive(0, "shop");
    command.clients = str_from(many_ids());
    CHECK(!fake_done(command, true, 1));
    flush();
    CHECK(got_text(&clients[0].far, "{\"code\":0,\"msg\":\"m\",\"data\":1,\"messageId\":\"id\"}"));
    first = request_to(0, COMMAND_SEND_TO_CLIENTS);
    CHECK(first && same(fake_reading.msg.command.clients, str_from(textf("[%s]", foreign(0, 2)))));
    fake.message_taken = 0;
    second = request_to(1, COMMAND_SEND_TO_CLIENTS);
    CHECK(second && same(fake_reading.msg.command.clients,
                         str_from(textf("[%s,%s]", foreign(1, 1), foreign(1, 3)))));
    reply = fake_reply_to(second, 0, NULL);
    buf_append(&reply.result.list, str_from(foreign(1, 3)));
    reply.result.count = 1;
    fake_say_reply(1, reply);
    buf_free(&reply.result.list);
    CHECK(fake_no_result());
    /* one stays silent: its ids have failed, and the counts lack its own */
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(1);
    CHECK(result->result.code == 0 && result->result.matched == 2 && result->incomplete);
    CHECK(same(str_of(&result->result.list),
               str_from(textf("\"forged\",%s,%s,%s,%s", foreign(0, 2), foreign(1, 3), foreign(2, 4),
                              foreign(9, 5)))));
    fake_say_reply(0, fake_reply_to(first, 0, NULL));
    CHECK(fake_no_result());
}

/* Out of reach, or with an error: all ids of the node have failed, and no more is unknown. */
static void shares_may_fail(void)
{
    struct command command = fake_command(COMMAND_SEND_TO_CLIENTS);
    const struct cluster_result *result;

    fake_arrive(0, "shop");
    fake_lose_link(1);
    command.clients = str_from(many_ids());
    CHECK(!fake_done(command, false, 1));
    fake_say_reply(0,
                   fake_reply_to(request_to(0, COMMAND_SEND_TO_CLIENTS), -1007, "out of memory"));
    result = fake_result(1);
    CHECK(result->result.code == 0 && result->result.matched == 1 && !result->incomplete);
    CHECK(same(str_of(&result->result.list),
               str_from(textf("%s,\"forged\",%s,%s,%s,%s", foreign(1, 1), foreign(0, 2),
                              foreign(1, 3), foreign(2, 4), foreign(9, 5)))));
    /* for this node alone, or for nobody, there is nothing to wait for */
    command.clients = str_from(textf("[%s]", clients[0].id));
    CHECK(!fake_done(command, false, 2) && fake_succeeds(2));
    command.clients = STR("[]");
    CHECK(!fake_done(command, false, 3) && fake_succeeds(3) && fake_no_result());
}

/* Behind a send all shares keep the order: here it is held back, others get it through the bus. */
static void a_send_to_many_is_held_back(void)
{
    struct command command = fake_command(COMMAND_SEND_TO_CLIENTS);
    const struct cluster_result *result;

    fake_add_member(0);
    CHECK(fake_later(fake_send("1"), 1));
    command.clients = str_from(textf("[%s,%s]", clients[0].id, foreign(1, 7)));
    command.data = STR("2");
    CHECK(!fake_done(command, true, 2) && fake.publication_count == 1 && fake_sent_nothing());
    fake_wait(700);
    fake_return(0);
    CHECK(fake_succeeds(1) && fake_no_result() && fake.publication_count == 2);
    CHECK(node_equal(&fake.publications[1].to, &fake_nodes[1]) && fake_sent_nothing());
    /* it names when its caller began to wait, so that it is not done after that has ended */
    CHECK(fake_read(fake.publications[1].with.text)->at == fake.now - 700);
    CHECK(fake_got(0, "1"));
    CHECK(got_text(&clients[0].far, "{\"code\":0,\"msg\":\"m\",\"data\":2,\"messageId\":\"id\"}"));
    fake_say_reply(1, fake_reply_to(fake.publications[1].with.id, 0, NULL));
    result = fake_result(2);
    CHECK(result->receipt && same(result->message_id, STR("\"id\"")));
    CHECK(result->result.matched == 2 && !result->incomplete);
    /* the share fails on its way */
    CHECK(fake_later(fake_send("3"), 3));
    fake_return_all();
    CHECK(fake_succeeds(3) && fake_later(command, 4));
    fake_fail(3, "no queue");
    fake_serve();
    result = fake_result(4);
    CHECK(same(str_of(&result->result.list), str_from(foreign(1, 7))) && fake_no_result());
}

/* --- the online list -------------------------------------------------------------------------- */

static void the_online_list_is_merged(void)
{
    struct command command = fake_command(COMMAND_ONLINE_LIST);
    const struct cluster_result *result;
    struct cluster_msg reply;

    fake_start(2);
    fake_add_member(0);
    CHECK(fake_later(command, 1));
    reply = fake_reply_to(request_to(0, COMMAND_ONLINE_LIST), 0, NULL);
    buf_append(&reply.result.list, STR("\"x\",\"y\""));
    reply.result.count = 2;
    fake_say_reply(0, reply);
    CHECK(fake_no_result());
    fake_say_reply(1, fake_reply_to(reply.id, 0, NULL)); /* all are asked under one number */
    result = fake_result(1);
    CHECK(result->result.count == 3 && !result->incomplete);
    CHECK(contains(str_of(&result->result.list), clients[0].id));
    CHECK(contains(str_of(&result->result.list), "\"x\",\"y\""));
    buf_free(&reply.result.list);
    /* who is silent or out of reach is not in it */
    CHECK(fake_later(command, 2));
    fake_lose_link(0);
    CHECK(fake_no_result());
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(2);
    CHECK(result->result.code == 0 && result->result.count == 1 && result->incomplete);
    CHECK(fake_later(command, 3));
    fake_lose_link(1);
    CHECK(fake_result(3)->incomplete);
    CHECK(fake_later(command, 4) && fake_result(4)->incomplete);
    fake_depart(0);
    fake_settle();
    fake_end();

    /* alone it is complete, unless not all nodes are known */
    fake_start(0);
    CHECK(fake_later(command, 1) && !fake_result(1)->incomplete);
    fake_registry_event(REGISTRY_WAITING, "no route");
    fake_serve();
    CHECK(fake_later(command, 2) && fake_result(2)->incomplete && fake_no_result());
    fake_end();
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Whatever is under way when the node closes is freed: a sanitizer sees what is not. */
static void closing_frees_what_is_under_way(void)
{
    struct command many = fake_command(COMMAND_SEND_TO_CLIENTS);
    struct cluster_msg asked;

    fake_add_member(0);
    many.clients = str_from(many_ids());
    CHECK(fake_later(many, 1));
    CHECK(!fake_done(fake_send("1"), true, 2));
    CHECK(fake_later(fake_to_client(fake_id(0), "1"), 3));
    CHECK(fake_later(fake_to_client(fake_foreign_id(&fake_nodes[0], 1), "1"), 4));
    fake.binds_at_once = false;
    {
        struct cluster_msg msg = request_of(1, fake_bind(fake_id(0), "new"), fake.now);

        fake_say(0, &msg);
    }
    asked = (struct cluster_msg){
        .kind = MSG_COUNT, .id = 99, .slot = wire_slot(WIRE_GROUP, STR("shop"), STR("g"))};
    fake_tell(0, &asked);
    fake_return_all();
    CHECK(fake_later(fake_send("2"), 5));
    CHECK(cluster_result(fake.cluster) != NULL);
}

static const struct test tests[] = {
    TEST(a_send_is_a_success_when_it_came_back, 2),
    TEST(sends_go_to_their_slots, 0),
    TEST(a_send_that_failed_is_told, 1),
    TEST(requests_go_by_link, 2),
    TEST(a_node_that_does_not_reply_is_given_up, 2),
    TEST(offline_is_said_only_when_all_is_known, FAKE_CLOSED),
    TEST(a_request_goes_behind_the_sends_before_it, 2),
    TEST(a_request_may_fail_on_its_way, 2),
    TEST(a_request_passes_what_rabbitmq_lost, 2),
    TEST(local_commands_are_held_back, 0),
    TEST(what_was_held_too_long_is_not_done, 0),
    TEST(failed_sends_hold_nothing_back, 0),
    TEST(a_bind_waits_for_its_slots, 1),
    TEST(two_slots_may_be_one, FAKE_CLOSED),
    TEST(a_bind_that_is_late_is_not_done, 0),
    TEST(a_bind_that_was_held_is_answered_in_time, 0),
    TEST(requests_of_other_nodes_are_done, 2),
    TEST(late_requests_are_not_done, 1),
    TEST(binds_of_other_nodes_have_their_senders_time, 1),
    TEST(a_send_to_many_is_shared_out, 2),
    TEST(shares_may_fail, 2),
    TEST(a_send_to_many_is_held_back, 2),
    TEST(the_online_list_is_merged, FAKE_CLOSED),
    TEST(closing_frees_what_is_under_way, 2),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

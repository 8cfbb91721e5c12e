/* test_cluster_receipt.c - cluster_receipt.c: how many a send has reached on all nodes, whichever
 * comes first, the send or the question. */
#include "cluster_fake.h"

static struct cluster_msg count_of(uint64_t id, uint16_t slot)
{
    return (struct cluster_msg){.kind = MSG_COUNT, .id = id, .slot = slot};
}

/* All nodes are asked over the links, under the number of the send. */
static void a_receipt_sums_up_all_nodes(void)
{
    const struct cluster_result *result;
    const struct cluster_msg *msg;
    uint64_t id;

    fake_add_member(0);
    CHECK(!fake_done(fake_send("1"), true, 1));
    id = fake.publications[0].with.id;
    CHECK(fake_read(fake.publications[0].with.text)->counted && fake_reading.msg.id == id);
    for (size_t i = 3; i-- > 0;) {
        fake.message_taken = 0;
        msg = fake_sent_to(i);
        CHECK(msg && msg->kind == MSG_COUNT && msg->id == id);
        CHECK(msg->slot == wire_slot(WIRE_GROUP, STR("shop"), STR("g")));
    }
    fake_say_reply(0, fake_reply_to(id, 0, NULL));
    fake_return_all();
    fake_say_reply(2, fake_reply_to(id, 0, NULL));
    CHECK(fake_no_result());
    fake_say_reply(1, fake_reply_to(id, 0, NULL));
    result = fake_result(1);
    CHECK(result->receipt && result->result.matched == 4 && result->result.queued == 4);
    CHECK(same(result->message_id, STR("\"id\"")) && !result->incomplete);
    /* a node that stays silent, or is out of reach, makes it incomplete, and no failure */
    CHECK(!fake_done(fake_send("2"), true, 2));
    fake_link_down(0);
    fake_return_all();
    fake_say_reply(1, fake_reply_to(fake.publications[1].with.id, -1007, "it did not come"));
    CHECK(fake_no_result());
    fake_wait(FAKE_TIMEOUT);
    result = fake_result(2);
    CHECK(result->result.code == 0 && result->incomplete && result->result.matched == 2);
    /* which did not come back is a failure, whatever the others say */
    CHECK(!fake_done(fake_send("3"), true, 3));
    fake_say_reply(1, fake_reply_to(fake.publications[2].with.id, 0, NULL));
    fake_say_reply(2, fake_reply_to(fake.publications[2].with.id, 0, NULL));
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake_fails(3, -1007, "not known") && fake_no_result());
    fake_depart(0);
    fake_return_all();
    fake_settle();
}

/* The question may come before the send or behind it. */
static void counts_are_told_in_either_order(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    struct cluster_msg sent = {.kind = MSG_SEND, .id = 7, .counted = true}, asked;

    sent.command = fake_send("1");
    fake_add_member(0);
    /* behind it: at once, and each node's numbers are its own */
    fake_publish(0, LANE_SEND, 1, &sent);
    asked = count_of(7, g);
    fake_tell(0, &asked);
    CHECK(fake_replied(0, 7, 0) && fake_reading.msg.result.matched == 1 && fake_sent_nothing());
    /* before it: when it has come */
    fake_tell(1, &asked);
    CHECK(fake_sent_nothing());
    sent.id = 7 + ((uint64_t)1 << 32); /* whose hash is the same */
    fake_publish(1, LANE_SEND, 1, &sent);
    fake_serve();
    CHECK(fake_sent_nothing());
    sent.id = 7;
    fake_publish(1, LANE_SEND, 2, &sent);
    fake_serve();
    CHECK(fake_replied(1, 7, 0) && fake_reading.msg.result.matched == 1 && fake_sent_nothing());
    /* it does not come */
    asked = count_of(9, g);
    fake_tell(1, &asked);
    fake_wait(FAKE_TIMEOUT - 1);
    CHECK(fake_sent_nothing());
    fake_wait(1);
    CHECK(fake_replied(1, 9, -1007));
    /* there is no such channel here: none, at once; and a slot that does not exist is no harm */
    asked = count_of(10, (uint16_t)(g + 1));
    fake_say(1, &asked);
    asked.id = 11;
    asked.slot = UINT64_MAX >> 1;
    fake_tell(1, &asked);
    CHECK(fake_replied(1, 10, 0) && fake_reading.msg.result.matched == 0 && fake_replied(1, 11, 0));
}

/* The last 1,024 counts are kept; one that was given is not kept for long. */
static void counts_are_bounded(void)
{
    const uint16_t other = wire_slot(WIRE_GROUP, STR("shop"), STR("h"));
    struct cluster_msg sent = {.kind = MSG_SEND, .counted = true}, asked;

    sent.command = fake_send("1");
    fake_add_member(0);
    for (uint64_t id = 1; id <= 1025; id++) {
        sent.id = id;
        fake_publish(0, LANE_SEND, id, &sent);
        fake_serve();
        far_forget(&clients[0].far);
    }
    for (uint64_t id = 1; id <= 1025; id++) {
        asked = count_of(id, other); /* one that is not known is no member's */
        fake_tell(0, &asked);
        CHECK(fake_replied(0, id, 0) && fake_reading.msg.result.matched == (id > 1));
    }
}

/* A node that asks the same twice harms itself alone. */
static void a_count_asked_for_twice_is_told(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    struct cluster_msg sent = {.kind = MSG_SEND, .id = 7, .counted = true};
    struct cluster_msg asked = count_of(7, g);

    sent.command = fake_send("1");
    fake_add_member(0);
    for (int i = 0; i < 40; i++) {
        fake_say(0, &asked);
        fake_wait(i % 2);
    }
    fake_wait(FAKE_TIMEOUT - 20);
    for (int i = 0; i < 20; i++) {
        fake_wait(1);
        fake_tell(0, &asked);
    }
    fake_publish(0, LANE_SEND, 1, &sent);
    fake_serve();
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake.cluster->pendings.by_id.count == 0);
}

/* --- once ------------------------------------------------------------------------------------- */

static struct command once_send(const char *data)
{
    struct command command = fake_send(data);

    command.once = true;
    command.message_id = STR("\"m\"");
    return command;
}

static bool got_once(size_t who, const char *data)
{
    return got_text(&clients[who].far,
                    textf("{\"code\":0,\"msg\":\"m\",\"data\":%s,\"messageId\":\"m\"}", data));
}

/* A reply of a node to the question about the last publication. */
static void reply_count(size_t which, int code, uint64_t matched, bool repeated)
{
    uint64_t id = fake.publications[fake.publication_count - 1].with.id;
    struct cluster_msg reply =
        fake_reply_to(id, code, code ? "messageId was used for another message" : NULL);

    reply.result.matched = reply.result.queued = matched;
    reply.result.repeated = repeated;
    fake_say_reply(which, reply);
}

/* All nodes are asked, receipt or not. It is repeated if some node had it before and none has sent
 * it now. */
static void all_nodes_are_asked_for_repetitions(void)
{
    static const struct {
        bool own_knows, other_knows;
        uint64_t other_matched;
        bool repeated;
        uint64_t matched;
    } rows[] = {
        {false, false, 0, false, 1}, {true, false, 0, true, 0}, {true, true, 0, true, 0},
        {true, false, 2, true, 2},   {false, true, 0, true, 1},
    };
    struct command command = once_send("1");

    fake_add_member(0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct cluster_result *result;

        if (!rows[i].own_knows)
            command.message_id = str_from(textf("\"%zu\"", i));
        CHECK(fake_later(command, i));
        CHECK(fake_read(fake.publications[fake.publication_count - 1].with.text)->counted &&
              fake_reading.msg.command.once);
        reply_count(0, 0, rows[i].other_matched, rows[i].other_knows);
        fake_return_all();
        CHECK(fake_no_result());
        reply_count(1, 0, 0, false);
        result = fake_result(i);
        if (!CHECK(result->result.code == 0 && !result->receipt && !result->incomplete &&
                   result->result.repeated == rows[i].repeated &&
                   result->result.matched == rows[i].matched &&
                   same(result->message_id, command.message_id)))
            printf("  that was row %zu\n", i);
        CHECK(far_next(&clients[0].far, &(struct far_frame){0}) == !rows[i].own_knows);
    }
}

/* Whichever node knows other content, the answer is -1. */
static void other_content_is_refused(void)
{
    fake_add_member(0);
    CHECK(fake_later(once_send("1"), 1));
    fake_return_all();
    reply_count(0, 0, 0, false);
    CHECK(fake_succeeds(1) && got_once(0, "1"));
    /* this node does */
    CHECK(fake_later(once_send("2"), 2));
    fake_return_all();
    reply_count(0, 0, 0, false);
    CHECK(fake_fails(2, -1, "messageId was used for another message"));
    CHECK(fake_got_nothing(0));
    /* the other one does */
    CHECK(fake_later(once_send("1"), 3));
    reply_count(0, -1, 0, false);
    fake_return_all();
    CHECK(fake_fails(3, -1, "messageId was used for another message"));
    CHECK(fake_got_nothing(0));
}

/* A node tells the one that repeats a send what it knows of it, whoever sent it first. */
static void repetitions_are_told_to_other_nodes(void)
{
    const uint16_t g = wire_slot(WIRE_GROUP, STR("shop"), STR("g"));
    struct cluster_msg sent = {.kind = MSG_SEND, .id = 7, .counted = true}, asked = count_of(8, g);

    fake_add_member(0);
    sent.command = once_send("1");
    fake_publish(0, LANE_SEND, 1, &sent);
    fake_serve();
    CHECK(got_once(0, "1"));
    sent.id = 8;
    fake_publish(1, LANE_SEND, 1, &sent);
    fake_tell(1, &asked); /* behind it */
    CHECK(fake_replied(1, 8, 0) && fake_reading.msg.result.repeated &&
          fake_reading.msg.result.matched == 0);
    asked.id = sent.id = 9;
    fake_tell(1, &asked); /* before it */
    fake_publish(1, LANE_SEND, 2, &sent);
    fake_serve();
    CHECK(fake_replied(1, 9, 0) && fake_reading.msg.result.repeated);
    for (int before = 0; before < 2; before++) {
        asked.id = sent.id = 10 + (uint64_t)before;
        sent.command = once_send("2");
        if (before)
            fake_tell(1, &asked);
        fake_publish(1, LANE_SEND, 3 + (uint64_t)before, &sent);
        fake_serve();
        if (!before)
            fake_tell(1, &asked);
        CHECK(fake_replied(1, asked.id, -1));
        CHECK(same(fake_reading.msg.error, STR("messageId was used for another message")));
    }
    CHECK(fake_got_nothing(0));
}

/* A send to one client is known where the client is: whether it comes from here, held back behind
 * others or not, or from another node. */
static void the_owner_knows_what_a_client_has_got(void)
{
    struct command command = fake_to_client((struct json_value){0}, "1");
    struct cluster_msg request = {.kind = MSG_REQUEST, .id = 5};
    const struct cluster_result *result;
    struct cluster_msg reply;

    fake_add_member(0);
    command.client = fake_id(0);
    command.once = true;
    command.message_id = STR("\"m\"");
    request.command = command;
    request.at = fake.now;
    fake_tell(0, &request);
    CHECK(fake_replied(0, 5, 0) && !fake_reading.msg.result.repeated && got_once(0, "1"));
    CHECK(fake_done_with(command, 1, 0) && fake_applied.repeated);
    fake_tell(0, &request);
    CHECK(fake_replied(0, 5, 0) && fake_reading.msg.result.repeated);
    command.data = STR("2");
    CHECK(fake_done_with(command, 1, -1) && fake_got_nothing(0));
    command.data = STR("1");
    CHECK(fake_later(fake_send("3"), 2) && fake_later(command, 3));
    fake_return_all();
    CHECK(fake_succeeds(2) && fake_got(0, "3"));
    result = fake_result(3);
    CHECK(result->result.code == 0 && result->result.repeated && fake_got_nothing(0));
    CHECK(same(result->message_id, STR("\"m\"")));
    /* of another node */
    command.client = fake_foreign_id(&fake_nodes[0], 9);
    CHECK(fake_later(command, 4));
    reply = fake_reply_to(fake_read(fake.publications[fake.publication_count - 1].with.text)->id, 0,
                          NULL);
    CHECK(fake_reading.msg.command.once);
    reply.result.matched = 0;
    reply.result.repeated = true;
    fake_say_reply(0, reply);
    result = fake_result(4);
    CHECK(result->result.code == 0 && result->result.repeated);
    CHECK(same(result->message_id, STR("\"m\"")));
}

static const struct test tests[] = {
    TEST(a_receipt_sums_up_all_nodes, 3),
    TEST(counts_are_told_in_either_order, 2),
    TEST(counts_are_bounded, 2),
    TEST(a_count_asked_for_twice_is_told, 1),
    TEST(all_nodes_are_asked_for_repetitions, 2),
    TEST(other_content_is_refused, 1),
    TEST(repetitions_are_told_to_other_nodes, 2),
    TEST(the_owner_knows_what_a_client_has_got, 1),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

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

static const struct test tests[] = {
    TEST(a_receipt_sums_up_all_nodes, 3),
    TEST(counts_are_told_in_either_order, 2),
    TEST(counts_are_bounded, 2),
    TEST(a_count_asked_for_twice_is_told, 1),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

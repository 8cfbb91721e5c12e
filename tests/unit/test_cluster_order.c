/* test_cluster_order.c - cluster_order.c: which publications have come before, and how old a
 * request is that names the time of another clock. */
#include "cluster_order.h"

#include "scarce.h"
#include "test.h"

#include <stdio.h>

static bool refuses;

static bool scarce_refuses(void)
{
    return refuses;
}

static struct node_id node_of(unsigned port, uint64_t incarnation)
{
    struct node_id node = {.incarnation = incarnation};

    CHECK(node_set_name(&node, STR("127.0.0.1"), port));
    return node;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static void a_number_is_taken_once_and_in_order(void)
{
    struct order_senders senders = {0};
    struct node_id a = node_of(1, 5), b = node_of(2, 5), later = node_of(1, 6);

    CHECK(order_take(&senders, &a, LANE_SEND, 0, 1) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, 1) == ORDER_REPETITION);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, 7) == ORDER_NEW);
    for (uint64_t number = 0; number <= 7; number++)
        CHECK(order_take(&senders, &a, LANE_SEND, 0, number) == ORDER_REPETITION);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, 8) == ORDER_NEW);
    /* nodes and incarnations of a node count for themselves */
    CHECK(order_take(&senders, &b, LANE_SEND, 0, 1) == ORDER_NEW);
    CHECK(order_take(&senders, &later, LANE_SEND, 0, 1) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, 8) == ORDER_REPETITION);
    CHECK(senders.count == 3);
    order_free(&senders);
    CHECK(!senders.first && senders.count == 0);
}

/* What cannot be taken now can be taken again. */
static void a_number_is_given_back(void)
{
    struct order_senders senders = {0};
    struct node_id a = node_of(1, 5);

    refuses = true;
    CHECK(order_take(&senders, &a, LANE_SEND, 3, 7) == ORDER_NO_MEMORY);
    refuses = false;
    for (int i = 0; i < 2; i++) {
        CHECK(order_take(&senders, &a, LANE_SEND, 3, 7) == ORDER_NEW);
        order_take_back(&senders, LANE_SEND, 3);
    }
    CHECK(order_take(&senders, &a, LANE_SEND, 3, 6) == ORDER_REPETITION);
    CHECK(order_take(&senders, &a, LANE_SEND, 3, 7) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 3, 7) == ORDER_REPETITION);
    order_free(&senders);
}

/* Each lane and partition is a stream of its own. */
static void streams_do_not_touch_each_other(void)
{
    struct order_senders senders = {0};
    struct node_id a = node_of(1, 5);

    for (int round = 0; round < 2; round++)
        for (int lane = 0; lane < LANE_COUNT; lane++)
            for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++)
                for (uint64_t number = 1; number <= 3 + partition; number++)
                    CHECK(order_take(&senders, &a, (enum wire_lane)lane, partition, number) ==
                          (round ? ORDER_REPETITION : ORDER_NEW));
    CHECK(senders.count == 1);
    order_free(&senders);
}

/* A node that was not there from the beginning begins wherever the stream is; from there on a jump
 * is refused, and what was there before still counts. */
static void jumps_are_refused(void)
{
    struct order_senders senders = {0};
    struct node_id a = node_of(1, 5);
    uint64_t first = (uint64_t)1 << 40;

    CHECK(order_take(&senders, &a, LANE_SEND, 0, first) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, UINT64_MAX) == ORDER_JUMP);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, first + ORDER_JUMP_MAX + 1) == ORDER_JUMP);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, first + 1) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, first + 1 + ORDER_JUMP_MAX) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, first + ORDER_JUMP_MAX) == ORDER_REPETITION);
    CHECK(order_take(&senders, &a, LANE_SEND, 0, first + 2 + ORDER_JUMP_MAX) == ORDER_NEW);
    /* the last numbers of all */
    CHECK(order_take(&senders, &a, LANE_NOTICE, 0, UINT64_MAX - 1) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_NOTICE, 0, UINT64_MAX) == ORDER_NEW);
    CHECK(order_take(&senders, &a, LANE_NOTICE, 0, 1) == ORDER_REPETITION);
    order_free(&senders);
}

static void nodes_long_gone_are_forgotten(void)
{
    struct order_senders senders = {0};
    struct node_id first = node_of(1, 1), second = node_of(1, 2);

    for (uint64_t incarnation = 1; incarnation <= 1024; incarnation++) {
        struct node_id one = node_of(1, incarnation);

        CHECK(order_take(&senders, &one, LANE_SEND, 0, 3) == ORDER_NEW);
    }
    /* whoever was heard of last stays */
    CHECK(order_take(&senders, &first, LANE_SEND, 0, 3) == ORDER_REPETITION);
    for (uint64_t incarnation = 2001; incarnation <= 2100; incarnation++) {
        struct node_id one = node_of(1, incarnation);

        CHECK(order_take(&senders, &one, LANE_SEND, 0, 1) == ORDER_NEW && senders.count == 1024);
    }
    CHECK(order_take(&senders, &first, LANE_SEND, 0, 3) == ORDER_REPETITION);
    CHECK(order_take(&senders, &second, LANE_SEND, 0, 1) == ORDER_NEW); /* it was forgotten */
    order_free(&senders);
}

/* At random, against a simple model. */
static void numbers_follow_the_model(void)
{
    struct order_senders senders = {0};
    uint64_t last[3][LANE_COUNT][WIRE_PARTITIONS] = {{{0}}};
    uint32_t state = 7;

    for (int step = 0; step < 100000 && test_good; step++) {
        uint32_t draw = next_random(&state);
        struct node_id node = node_of(1 + draw % 3, 1);
        unsigned lane = draw >> 4 & 1, partition = draw >> 8 & 15;
        uint64_t *known = &last[draw % 3][lane][partition], number = *known + (draw >> 16 & 3);
        enum order_result result;

        number -= number >= 2 ? 2 : number;
        result = order_take(&senders, &node, (enum wire_lane)lane, partition, number);
        CHECK(result == (number > *known ? ORDER_NEW : ORDER_REPETITION));
        if (number > *known)
            *known = number;
    }
    order_free(&senders);
}

/* What another node writes is a repetition here as well. */
static void numbers_of_another_node_are_taken(void)
{
    struct order_senders there = {0}, here = {0}, firsts = {0};
    struct node_id a = node_of(1, 5), b = node_of(2, 5);
    struct buf array = {0};

    order_take(&there, &a, LANE_SEND, 3, 10);
    order_take(&there, &a, LANE_NOTICE, 3, 4);
    order_take(&there, &b, LANE_SEND, 4, 99); /* of another partition */
    order_take(&here, &a, LANE_SEND, 3, 7);
    order_note(&firsts, &a, LANE_SEND, 3, 11);
    order_note(&firsts, &a, LANE_SEND, 3, 12);
    order_write(&there, 3, &array);
    CHECK(str_equal(str_of(&array), STR("[\"127.0.0.1:1/5\",10,4]")));
    CHECK(order_merge(&here, &firsts, 3, str_of(&array)));
    CHECK(order_take(&here, &a, LANE_SEND, 3, 10) == ORDER_REPETITION);
    CHECK(order_take(&here, &a, LANE_NOTICE, 3, 4) == ORDER_REPETITION);
    CHECK(order_take(&here, &a, LANE_SEND, 3, 11) == ORDER_NEW);
    CHECK(order_take(&here, &a, LANE_SEND, 2, 1) == ORDER_NEW);
    CHECK(order_merge(&here, &firsts, 3, str_of(&array))); /* what is newer here stays */
    CHECK(order_take(&here, &a, LANE_SEND, 3, 11) == ORDER_REPETITION);
    buf_free(&array);
    order_free(&there);
    order_free(&here);
    order_free(&firsts);
}

/* What came here since, and had come there before, was taken twice. */
static void a_repetition_since_is_told(void)
{
    struct order_senders there = {0}, here = {0}, firsts = {0};
    struct node_id a = node_of(1, 5);
    struct buf array = {0};

    order_take(&there, &a, LANE_NOTICE, 3, 10);
    order_note(&firsts, &a, LANE_NOTICE, 3, 10);
    order_write(&there, 3, &array);
    CHECK(!order_merge(&here, &firsts, 3, str_of(&array)));
    CHECK(order_merge(&here, &firsts, 3, STR("[]")));
    CHECK(!order_merge(&here, &firsts, 3, STR("[\"127.0.0.1:1/5\",1]")));
    CHECK(!order_merge(&here, &firsts, 3, STR("[\"127.0.0.1:1/5\",1,-1]")));
    CHECK(!order_merge(&here, &firsts, 3, STR("[\"127.0.0.1\",1,1]")));
    CHECK(!order_merge(&here, &firsts, 3, STR("[1,1,1]")));
    buf_free(&array);
    order_free(&there);
    order_free(&here);
    order_free(&firsts);
}

/* --- ages ------------------------------------------------------------------------------------- */

/* Two machines, and what is on its way from one to the other. */
struct machines {
    struct order_clock clock;
    int64_t sender, receiver; /* what their clocks show */
};

/* `milliseconds` pass for both. */
static void pass(struct machines *machines, int64_t milliseconds)
{
    machines->sender += milliseconds;
    machines->receiver += milliseconds;
}

/* A message comes after `delay`; returns the age it is given. */
static int64_t hear(struct machines *machines, int64_t delay)
{
    int64_t at = machines->sender;

    pass(machines, delay);
    return order_age(&machines->clock, at, machines->receiver);
}

/* Messages each `every` milliseconds for `milliseconds`, each taking `delay`. The greatest age. */
static int64_t hear_for(struct machines *machines, int64_t milliseconds, int64_t every,
                        int64_t delay)
{
    int64_t most = 0;

    for (int64_t passed = 0; passed < milliseconds; passed += every + delay) {
        int64_t age = hear(machines, delay);

        most = age > most ? age : most;
        pass(machines, every);
    }
    return most;
}

static const struct machines fresh[] = {{.sender = 1000, .receiver = 5000000000},
                                        {.sender = 5000000000, .receiver = 1000},
                                        {.sender = 0, .receiver = 0},
                                        {.sender = (int64_t)1 << 60, .receiver = 1}};

static void the_quickest_message_is_as_young_as_can_be(void)
{
    for (size_t i = 0; i < COUNT(fresh); i++) {
        struct machines machines = fresh[i];

        CHECK(hear(&machines, 30) == 0); /* nothing is known: it counts as no time */
        CHECK(hear(&machines, 130) == 100);
        CHECK(hear(&machines, 10) == 0);
        CHECK(hear(&machines, 30) == 20);
        CHECK(hear_for(&machines, 60000, 1000, 10) == 0);
        CHECK(hear(&machines, 2510) == 2500);
    }
}

/* What waits is old, however much of it there is, if something quick came within the window. */
static void what_has_waited_is_old(void)
{
    struct machines machines = fresh[0];

    CHECK(hear_for(&machines, 10000, 100, 1) == 0);
    for (int i = 0; i < 100; i++) { /* 100 messages that were sent before the standstill */
        int64_t at = machines.sender - 100 + i;

        CHECK(order_age(&machines.clock, at, machines.receiver + 12000) >= 12000 - 1);
    }
}

/* The sender's clock stands still for 3 s: what it sends looks 3 s older than it is. It is believed
 * again within 4 s, and not for ever 3 s too old. */
static void a_sender_that_stood_still_is_believed_again(void)
{
    static const int64_t paces[] = {1, 10, 100, 500, 1000};

    for (size_t i = 0; i < COUNT(paces); i++) {
        struct machines machines = fresh[0];
        int64_t since;

        hear_for(&machines, 20000, paces[i], 1);
        machines.receiver += 3000; /* the sender's clock has not moved */
        CHECK(hear(&machines, 1) >= 3000 - 1);
        for (since = 0; since <= 6000; since += paces[i] + 1) {
            pass(&machines, paces[i]);
            if (hear(&machines, 1) < 100)
                break;
        }
        /* within two halves of the window, and one message more */
        if (!CHECK(since <= 2 * ORDER_WINDOW + 2 * (paces[i] + 1)))
            printf("  a message each %lld ms: %lld ms\n", (long long)paces[i], (long long)since);
        CHECK(hear_for(&machines, 20000, paces[i], 1) <= 1);
    }
}

/* The receiver's clock stands still, so that messages look younger than they are: afterwards none
 * is given a negative age, and a quick one counts as none. */
static void a_receiver_whose_clock_stood_still_goes_on(void)
{
    struct machines machines = fresh[0];

    hear_for(&machines, 20000, 100, 1);
    machines.sender += 3000;
    CHECK(hear(&machines, 1) == 0);
    CHECK(hear(&machines, 501) == 500);
    CHECK(hear_for(&machines, 20000, 100, 1) == 0);
}

/* The receiver does not run for 12 s while its clock goes on. What has waited for it is not young:
 * not the first of it, and not the last, though no quick message came for longer than the window.
 */
static void a_receiver_that_was_frozen_makes_nothing_young(void)
{
    static const int64_t paces[] = {10, 100, 1000};

    for (size_t i = 0; i < COUNT(paces); i++) {
        struct machines machines = fresh[1];
        int64_t begun;

        hear_for(&machines, 20000, paces[i], 1);
        begun = machines.sender;
        pass(&machines, 12000);
        for (int64_t at = begun; at < machines.sender; at += paces[i]) {
            int64_t age = order_age(&machines.clock, at, machines.receiver);

            if (!CHECK(age >= machines.sender - at - 1))
                printf("  sent %lld ms before: %lld\n", (long long)(machines.sender - at),
                       (long long)age);
        }
        CHECK(hear(&machines, 1) <= 1);
    }
}

/* A slow reader takes what has waited bit by bit: as long as the first half of the window remembers
 * a quick one, the last of the backlog is still known to be old. */
static void a_backlog_read_slowly_stays_old(void)
{
    struct machines machines = fresh[0];
    int64_t begun, read = 0;

    hear_for(&machines, 20000, 100, 1);
    begun = machines.sender;
    pass(&machines, 12000);
    for (; read < ORDER_WINDOW - 100; read += 50) {
        int64_t at = begun + read;

        CHECK(order_age(&machines.clock, at, machines.receiver + read) >= 12000 - 1);
    }
}

/* The pace of two clocks differs a little: ages do not add up. */
static void drift_does_not_add_up(void)
{
    struct machines machines = fresh[0];

    for (int i = 0; i < 100000; i++) {
        machines.sender += 100;
        machines.receiver += i % 100 ? 100 : 101; /* 100 replies in a million */
        CHECK(order_age(&machines.clock, machines.sender, machines.receiver) <= 2);
    }
}

int main(void)
{
    test_run("a_number_is_taken_once_and_in_order", a_number_is_taken_once_and_in_order);
    test_run("a_number_is_given_back", a_number_is_given_back);
    test_run("streams_do_not_touch_each_other", streams_do_not_touch_each_other);
    test_run("jumps_are_refused", jumps_are_refused);
    test_run("nodes_long_gone_are_forgotten", nodes_long_gone_are_forgotten);
    test_run("numbers_follow_the_model", numbers_follow_the_model);
    test_run("numbers_of_another_node_are_taken", numbers_of_another_node_are_taken);
    test_run("a_repetition_since_is_told", a_repetition_since_is_told);
    test_run("the_quickest_message_is_as_young_as_can_be",
             the_quickest_message_is_as_young_as_can_be);
    test_run("what_has_waited_is_old", what_has_waited_is_old);
    test_run("a_sender_that_stood_still_is_believed_again",
             a_sender_that_stood_still_is_believed_again);
    test_run("a_receiver_whose_clock_stood_still_goes_on",
             a_receiver_whose_clock_stood_still_goes_on);
    test_run("a_receiver_that_was_frozen_makes_nothing_young",
             a_receiver_that_was_frozen_makes_nothing_young);
    test_run("a_backlog_read_slowly_stays_old", a_backlog_read_slowly_stays_old);
    test_run("drift_does_not_add_up", drift_does_not_add_up);
    return test_finish();
}

/* test_cluster_state.c - cluster_state.c: slots are bound as long as somebody needs them, requests
 * are told once, and what can be published now. */
#include "cluster_fake.h"

/* --- slots ------------------------------------------------------------------------------------ */

/* The last thing asked of the bus about a slot, or NULL. */
static struct fake_binding *asked_of(uint16_t slot)
{
    struct fake_binding *found = NULL;

    for (size_t i = 0; i < fake.binding_count; i++)
        if (fake.bindings[i].slot == slot)
            found = &fake.bindings[i];
    return found;
}

static void channel(const char *group, bool exists)
{
    state_change_channel(fake.cluster, CHANNEL_GROUP, STR("shop"), str_from(group), exists);
}

static uint16_t slot_of(const char *group)
{
    return wire_slot(WIRE_GROUP, STR("shop"), str_from(group));
}

/* A second group with the same slot. */
static const char *twin_of(const char *group)
{
    for (int i = 0; i < 200000; i++) {
        const char *name = textf("twin%d", i);

        if (slot_of(name) == slot_of(group))
            return name;
    }
    abort();
}

static void a_slot_is_bound_while_it_has_channels(void)
{
    const char *twin = twin_of("g");
    size_t asked = fake.binding_count;

    channel("g", true);
    CHECK(fake.binding_count == asked); /* in the middle of a command */
    channel("g", false);
    channel("g", true);
    state_follow_slots(fake.cluster);
    CHECK(fake.binding_count == asked + 1 && asked_of(slot_of("g"))->bound);
    fake_serve();
    CHECK(fake.cluster->slots[slot_of("g")].bound);
    CHECK(cluster_stats(fake.cluster).slots_unbound == 0);
    /* another channel of the same slot, and that one goes first */
    channel(twin, true);
    channel("g", false);
    fake_serve();
    CHECK(fake.binding_count == asked + 1);
    channel(twin, false);
    fake_serve();
    CHECK(fake.binding_count == asked + 2 && !asked_of(slot_of("g"))->bound);
    /* there and gone before anybody looked: nothing is asked */
    channel("g", true);
    channel("g", false);
    fake_serve();
    CHECK(fake.binding_count == asked + 2 && cluster_stats(fake.cluster).slots_unbound == 0);
}

/* The three kinds of channels have slots of their own. */
static void each_kind_has_its_slot(void)
{
    state_change_channel(fake.cluster, CHANNEL_SYSTEM, STR("shop"), STR("shop"), true);
    state_change_channel(fake.cluster, CHANNEL_USER, STR("shop"), STR("g"), true);
    channel("g", true);
    fake_serve();
    fake_serve();
    CHECK(fake.cluster->slots[wire_slot(WIRE_SYSTEM, STR("shop"), STR(""))].bound);
    CHECK(fake.cluster->slots[wire_slot(WIRE_USER, STR("shop"), STR("g"))].bound);
    CHECK(fake.cluster->slots[slot_of("g")].bound);
    for (int kind = COMMAND_SEND_TO_GROUP; kind <= COMMAND_SEND_TO_SYSTEM; kind++) {
        struct command command = {.kind = (enum command_kind)kind,
                                  .system = STR("shop"),
                                  .group = STR("g"),
                                  .user = STR("u")};

        CHECK(state_slot_of(&command) == (kind == COMMAND_SEND_TO_GROUP ? slot_of("g")
                                          : kind == COMMAND_SEND_TO_USER
                                              ? wire_slot(WIRE_USER, STR("shop"), STR("u"))
                                              : wire_slot(WIRE_SYSTEM, STR("shop"), STR(""))));
    }
}

/* While a slot is being bound it is not let go: the answer to the one is not that to the next. */
static void answers_are_told_apart(void)
{
    const uint16_t g = slot_of("g");
    struct state_slot *slot;
    struct fake_binding *first;

    fake.binds_at_once = false;
    slot = &fake.cluster->slots[g];
    channel("g", true);
    fake_serve();
    first = asked_of(g);
    CHECK(first && slot->wanted && !slot->bound && cluster_stats(fake.cluster).slots_unbound == 1);
    channel("g", false);
    fake_serve();
    CHECK(asked_of(g) == first && slot->wanted);
    channel("g", true);
    channel("g", false);
    fake_bound(first);
    fake_serve(); /* nobody wants it any more */
    CHECK(!asked_of(g)->bound && !slot->wanted && !slot->bound);
    CHECK(cluster_stats(fake.cluster).slots_unbound == 0);
    fake_bound(asked_of(g));
    fake_serve();
    CHECK(!slot->bound);
    channel("g", true);
    fake_serve();
    CHECK(asked_of(g)->bound && slot->wanted && !slot->bound);
    /* answers of before */
    CHECK(!state_take_bound(fake.cluster, g, first->version) && !slot->bound);
    CHECK(!state_take_bound(fake.cluster, g, slot->version + 1) && !slot->bound);
    fake_bound(asked_of(g));
    fake_serve();
    CHECK(slot->bound && cluster_stats(fake.cluster).slots_unbound == 0);
    CHECK(!state_take_bound(fake.cluster, g, slot->version)); /* it was bound already */
    CHECK(cluster_stats(fake.cluster).slots_unbound == 0);
}

/* A request that needs slots. */
static struct pending *need(const char *group, const char *other)
{
    struct command command = {.kind = COMMAND_BIND, .system = STR("shop")};
    struct pending_origin origin = {.id = 1};
    struct result result = {0};
    struct pending *pending =
        state_begin(fake.cluster, PENDING_BIND, &command, false, &origin, &result);

    if (!pending)
        abort();
    state_need_slot(fake.cluster, pending, slot_of(group));
    if (other)
        state_need_slot(fake.cluster, pending, slot_of(other));
    state_await_slots(fake.cluster, pending);
    return pending;
}

/* The requests that wait for a slot, oldest first, given up in any order. */
static void waiters_are_a_list(void)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}};
    const uint16_t g = slot_of("g");

    for (size_t i = 0; i < COUNT(orders); i++) {
        struct pending *made[4];

        fake_start(0);
        fake.binds_at_once = false;
        for (int k = 0; k < 4; k++)
            made[k] = need("g", "h"); /* waits for the first */
        for (int k = 0; k < 4; k++) {
            struct pending *waiter = fake.cluster->slots[g].waiters, *last = NULL;

            CHECK(fake.cluster->slots[g].keepers == (uint32_t)(4 - k));
            for (int j = 0; j < 4; j++) {
                if (!made[j])
                    continue;
                CHECK(waiter == made[j]);
                last = waiter;
                waiter = waiter ? waiter->next_waiter : NULL;
            }
            CHECK(!waiter && fake.cluster->slots[g].last_waiter == last);
            state_abandon(fake.cluster, made[orders[i][k]]);
            made[orders[i][k]] = NULL;
        }
        CHECK(!fake.cluster->slots[g].waiters && !fake.cluster->slots[g].last_waiter);
        CHECK(fake.cluster->slots[g].keepers == 0 && fake.cluster->slots[g].wanted);
        fake_bound(asked_of(g));
        fake_bound(asked_of(slot_of("h")));
        fake_serve();
        CHECK(!asked_of(g)->bound && !fake.cluster->slots[g].wanted);
        fake_end();
    }
}

static void keepers_keep_a_slot_bound(void)
{
    const uint16_t g = slot_of("g"), h = slot_of("h");
    struct pending *both, *one;

    fake.binds_at_once = false;
    both = need("g", "h");
    one = need("g", twin_of("g")); /* which is the same: it counts once */
    CHECK(one->slot_count == 1 && fake.cluster->slots[g].keepers == 2);
    CHECK(!fake.cluster->slots[h].waiters);
    CHECK(state_take_bound(fake.cluster, g, asked_of(g)->version) == both);
    CHECK(both->next_waiter == one && !one->next_waiter);
    CHECK(!state_await_slots(fake.cluster, both) && state_await_slots(fake.cluster, one));
    CHECK(fake.cluster->slots[h].waiters == both && !both->next_waiter);
    CHECK(state_take_bound(fake.cluster, h, asked_of(h)->version) == both);
    CHECK(state_await_slots(fake.cluster, both));
    channel("g", true);
    channel("g", false);
    state_follow_slots(fake.cluster);
    state_drop_slot(fake.cluster, g);
    CHECK(fake.cluster->slots[g].bound);
    state_abandon(fake.cluster, both);
    CHECK(fake.cluster->slots[g].bound && !fake.cluster->slots[h].bound && !asked_of(h)->bound);
    channel("g", true);
    state_abandon(fake.cluster, one);
    state_follow_slots(fake.cluster);
    CHECK(fake.cluster->slots[g].bound);
}

/* At random: what is wanted is what is needed, once RabbitMQ has answered. */
static void slots_follow_the_model(void)
{
    static const char *const groups[] = {"g", "h", "i", "k"};
    bool exists[4] = {false};
    struct pending *kept[8] = {NULL};
    uint32_t state = 4711;

    fake.binds_at_once = false;
    for (int step = 0; step < 4000 && test_good; step++) {
        uint32_t draw = next_random(&state);
        size_t which = draw >> 8 & 3, place = draw >> 12 & 7;
        size_t unbound = 0;
        struct pending *waiter;

        if (draw % 8 < 3) {
            exists[which] = !exists[which];
            channel(groups[which], exists[which]);
        } else if (draw % 8 < 5 && kept[place]) {
            state_abandon(fake.cluster, kept[place]);
            kept[place] = NULL;
        } else if (draw % 8 < 5) {
            kept[place] = need(groups[which], draw & 1 << 16 ? groups[draw >> 20 & 3] : NULL);
        } else if (draw % 8 == 5) {
            state_follow_slots(fake.cluster);
        } else { /* RabbitMQ answers the oldest question of this slot */
            for (size_t i = 0; i < fake.binding_count; i++) {
                struct fake_binding *binding = &fake.bindings[i];

                if (binding->done || binding->slot != slot_of(groups[which]))
                    continue;
                binding->done = true;
                waiter = state_take_bound(fake.cluster, binding->slot, binding->version);
                for (struct pending *next; waiter; waiter = next) {
                    next = waiter->next_waiter;
                    state_await_slots(fake.cluster, waiter);
                }
                state_drop_slot(fake.cluster, binding->slot);
                break;
            }
        }
        for (size_t i = 0; i < 4; i++) {
            const struct state_slot *slot = &fake.cluster->slots[slot_of(groups[i])];
            const struct fake_binding *asked = asked_of(slot_of(groups[i]));
            uint32_t keepers = 0;

            for (size_t k = 0; k < 8; k++)
                for (unsigned j = 0; kept[k] && j < kept[k]->slot_count; j++)
                    keepers += kept[k]->slots[j] == slot_of(groups[i]);
            CHECK(slot->channels == exists[i] && slot->keepers == keepers);
            CHECK(slot->wanted == (asked && asked->bound) && (slot->wanted || !slot->bound));
            CHECK(!slot->bound || asked->done);
            CHECK(slot->wanted || !keepers);
            CHECK(slot->changed || slot->wanted || !exists[i]);
            CHECK(slot->changed || !slot->bound || keepers || exists[i]);
            unbound += slot->wanted && !slot->bound;
            for (waiter = slot->waiters; waiter; waiter = waiter->next_waiter)
                CHECK(!slot->bound && waiter->slots[waiter->slots_bound] == slot_of(groups[i]));
        }
        CHECK(fake.cluster->counters.slots_unbound == unbound);
    }
    for (size_t k = 0; k < 8; k++)
        if (kept[k])
            state_abandon(fake.cluster, kept[k]);
}

/* --- what can be done now --------------------------------------------------------------------- */

/* Right after RabbitMQ's return nodes that have not found it are waited for, three seconds. */
static void publishing_waits_for_the_others(void)
{
    struct cluster_msg status = {.kind = MSG_STATUS, .ready = false};

    CHECK(!state_publishing_reason(fake.cluster));
    fake_lose_bus();
    CHECK(contains(str_from(state_publishing_reason(fake.cluster)), "cannot be reached"));
    status.at = fake.now;
    fake_say(0, &status);
    fake_bus_event(BUS_UP, STR(""));
    fake_serve();
    CHECK(contains(str_from(state_publishing_reason(fake.cluster)), "not all nodes"));
    CHECK(cluster_degraded_reason(fake.cluster) != NULL);
    status.ready = true;
    fake_tell(0, &status);
    CHECK(!state_publishing_reason(fake.cluster));
    status.ready = false;
    fake_tell(1, &status);
    CHECK(state_publishing_reason(fake.cluster) != NULL);
    fake_wait(2999);
    CHECK(state_publishing_reason(fake.cluster) != NULL);
    fake_wait(1);
    CHECK(!state_publishing_reason(fake.cluster));
    /* one that is out of reach is not waited for */
    fake_bus_event(BUS_DOWN, STR("gone"));
    fake_link_down(1);
    fake_bus_event(BUS_UP, STR(""));
    fake_serve();
    CHECK(!state_publishing_reason(fake.cluster));
    /* slow, and moving again */
    fake_bus_event(BUS_SLOW, STR("for 2 s"));
    fake_serve();
    CHECK(contains(str_from(state_publishing_reason(fake.cluster)), "does not answer"));
    CHECK(contains(str_from(cluster_degraded_reason(fake.cluster)), "for 2 s"));
    fake_bus_event(BUS_MOVING, STR(""));
    fake_serve();
    CHECK(!state_publishing_reason(fake.cluster) && !cluster_degraded_reason(fake.cluster));
}

static void all_is_known_when_all_were_listed(void)
{
    fake_open();
    CHECK(!state_knows_all(fake.cluster));
    fake_registry_event(REGISTRY_JOINED, "")->self = fake.self;
    fake_serve();
    CHECK(!state_knows_all(fake.cluster));
    fake_list(0);
    fake_serve();
    CHECK(state_knows_all(fake.cluster));
    fake_registry_event(REGISTRY_WAITING, "READONLY");
    fake_serve();
    CHECK(!state_knows_all(fake.cluster));
    fake_registry_event(REGISTRY_RECONNECTED, "");
    fake_serve();
    CHECK(state_knows_all(fake.cluster));
    fake_end();
}

/* --- requests --------------------------------------------------------------------------------- */

/* Begins one of this kind, for a session or for a node. */
static struct pending *begin(enum pending_kind kind, const struct pending_origin *origin)
{
    struct command command = {
        .kind = COMMAND_SEND_TO_CLIENT, .system = STR("shop"), .message_id = STR("\"id\"")};
    struct result result = {0};
    struct pending *pending = state_begin(fake.cluster, kind, &command, true, origin, &result);

    if (!pending)
        abort();
    CHECK(!result.code && str_equal(str_of(&pending->message_id), STR("\"id\"")));
    CHECK(pending->partition == wire_partition(STR("shop")) && pending->receipt);
    CHECK(pending->command == COMMAND_SEND_TO_CLIENT && pending->origin.id == origin->id);
    return pending;
}

static void requests_stand_in_their_list(void)
{
    struct pending_origin origin = {.id = 5};
    unsigned partition = wire_partition(STR("shop"));
    struct pending *held, *command;

    held = begin(PENDING_HELD_BACK, &origin);
    command = begin(PENDING_COMMAND, &origin);
    CHECK(fake.cluster->held_back[partition].first == held &&
          fake.cluster->requests.first == command);
    CHECK(held->deadline == fake.now + FAKE_TIMEOUT && command->id > held->id);
    CHECK(pending_find(&fake.cluster->pendings, held->id) == held);
    state_abandon(fake.cluster, held);
    CHECK(!fake.cluster->held_back[partition].first && fake.cluster->pendings.by_id.count == 1);
    state_abandon(fake.cluster, command);
    /* what has waited already has that less time, and nobody has more than all */
    origin.expires = fake.now + 10;
    command = begin(PENDING_COMMAND, &origin);
    CHECK(command->deadline == fake.now + 10);
    state_abandon(fake.cluster, command);
    origin.expires = fake.now + FAKE_TIMEOUT + 10;
    command = begin(PENDING_BIND, &origin);
    CHECK(command->deadline == fake.now + FAKE_TIMEOUT);
    state_abandon(fake.cluster, command);
    CHECK(!fake.cluster->requests.first && fake_no_result());
}

/* Each is told once: a session by a result, in the order in which they end, a node by a reply. */
static void who_waits_is_told_once(void)
{
    struct pending_origin session = {.id = 5},
                          other = {.is_node = true, .id = 77, .node = fake_nodes[1]};
    const struct cluster_result *result;
    const struct cluster_msg *msg;
    struct pending *first, *second, *third;

    first = begin(PENDING_COMMAND, &session);
    session.id = 6;
    second = begin(PENDING_HELD_BACK, &session);
    third = begin(PENDING_COMMAND, &other);
    first->echo_missing = true;
    state_finish_if_done(fake.cluster, first);
    CHECK(fake_no_result());
    first->echo_missing = false;
    pending_fail(second, "because");
    second->incomplete = true;
    state_finish_if_done(fake.cluster, second);
    state_finish_if_done(fake.cluster, first);
    CHECK(cluster_deadline(fake.cluster) == fake.now); /* results are to be taken */
    result = fake_result(6);
    CHECK(result->result.code == RESULT_UNREACHABLE && result->incomplete && result->receipt);
    CHECK(same(str_from(result->result.error), STR("because")));
    CHECK(same(result->message_id, STR("\"id\"")) && !result->is_admission);
    CHECK(fake_succeeds(5) && fake_no_result() && fake_sent_nothing());
    third->result.matched = 3;
    buf_append(&third->result.list, STR("\"a\""));
    state_finish(fake.cluster, third);
    msg = fake_sent_to(1);
    CHECK(msg && msg->kind == MSG_REPLY && msg->id == 77 && msg->result.matched == 3);
    CHECK(same(msg->list, STR("\"a\"")) && fake_no_result() && fake_sent_nothing());
    /* a node that has gone is not told, and that is all */
    third = begin(PENDING_COMMAND, &other);
    fake_link_down(1);
    state_finish(fake.cluster, third);
    other.node = fake_nodes[2];
    state_finish(fake.cluster, begin(PENDING_COMMAND, &other));
    CHECK(fake_sent_nothing() && fake.cluster->pendings.by_id.count == 0);
}

/* A list for which there was no memory is a failure. */
static void a_list_without_memory_fails(void)
{
    struct pending_origin session = {.id = 5};
    struct pending *pending = begin(PENDING_COMMAND, &session);

    pending->result.list.failed = true;
    state_finish(fake.cluster, pending);
    CHECK(fake_fails(5, -1007, "out of memory"));
}

/* --- messages --------------------------------------------------------------------------------- */

/* The buffer of the largest message of all does not stay. */
static void a_large_message_leaves_no_large_buffer(void)
{
    struct cluster_msg msg = {.kind = MSG_SEND, .command = fake_send("1")};
    size_t length = 4u * CONN_SCRATCH;
    char *text = malloc(length);

    if (!text)
        abort();
    memset(text, ' ', length);
    text[0] = '1';
    fake_start(1);
    msg.command.data = (struct str){text, length};
    CHECK(state_send(fake.cluster, fake_peer(0), &msg));
    CHECK(fake.cluster->written.capacity >= length);
    CHECK(state_publish(fake.cluster, &msg, LANE_NOTICE, 7, NULL));
    msg.command.data = STR("1");
    CHECK(state_send(fake.cluster, fake_peer(0), &msg));
    CHECK(fake.cluster->written.capacity <= CONN_SCRATCH);
    fake_link_down(0);
    CHECK(!state_send(fake.cluster, fake_peer(0), &msg));
    CHECK(fake.publications[0].with.slot == 7 && fake.publications[0].with.text.length > length);
    free(text);
    fake_end();
}

/* --- systems ---------------------------------------------------------------------------------- */

static void systems_are_remembered(void)
{
    CHECK(!state_knows_system(fake.cluster, STR("shop")));
    for (int i = 0; i < 1000; i++) {
        state_add_system(fake.cluster, str_from(textf("%d", i)));
        state_add_system(fake.cluster, str_from(textf("%d", i / 2)));
    }
    for (int i = 0; i < 1000; i++)
        CHECK(state_knows_system(fake.cluster, str_from(textf("%d", i))));
    CHECK(fake.cluster->systems.count == 1000 && !state_knows_system(fake.cluster, STR("1000")));
    CHECK(!state_knows_system(fake.cluster, STR("")) &&
          !state_knows_system(fake.cluster, STR("1\0")));
    state_add_system(fake.cluster, STR("a\0b"));
    CHECK(state_knows_system(fake.cluster, STR("a\0b")) &&
          !state_knows_system(fake.cluster, STR("a")));
}

static const struct test tests[] = {
    TEST(a_slot_is_bound_while_it_has_channels, 0),
    TEST(each_kind_has_its_slot, 0),
    TEST(answers_are_told_apart, 0),
    TEST(waiters_are_a_list, FAKE_CLOSED),
    TEST(keepers_keep_a_slot_bound, 0),
    TEST(slots_follow_the_model, 0),
    TEST(publishing_waits_for_the_others, 2),
    TEST(all_is_known_when_all_were_listed, FAKE_CLOSED),
    TEST(requests_stand_in_their_list, 0),
    TEST(who_waits_is_told_once, 2),
    TEST(a_list_without_memory_fails, 0),
    TEST(a_large_message_leaves_no_large_buffer, FAKE_CLOSED),
    TEST(systems_are_remembered, 0),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

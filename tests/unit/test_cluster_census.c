/* test_cluster_census.c - cluster_census.c: whom a node asks about who is there, what it makes of
 * the replies, and what is done to the clients of a user on all nodes. */
#include "cluster_census.h"

#include "cluster_fake.h"

/* The version of all nodes. */
static void use_version(unsigned version)
{
    for (struct peer *peer = fake.peers; peer; peer = peer->next)
        peer->version = version;
}

static struct command make_command(enum command_kind kind)
{
    struct command command = fake_command(kind);

    command.group = command.user = (struct str){0};
    command.limit = 3;
    return command;
}

static struct command asked; /* of the last request */

/* The id of the request of this kind that a node was sent since fake_forget; 0 if there is none. */
static uint64_t request_to(size_t which, enum command_kind kind)
{
    const struct cluster_msg *msg;

    fake.message_taken = 0;
    while ((msg = fake_sent_to(which)))
        if (msg->kind == MSG_REQUEST && msg->command.kind == kind) {
            asked = msg->command;
            return msg->id;
        }
    return 0;
}

static void reply(size_t which, uint64_t id, const char *list)
{
    struct cluster_msg msg = fake_reply_to(id, 0, NULL);

    buf_append(&msg.result.list, str_from(list));
    fake_say_reply(which, msg);
    buf_free(&msg.result.list);
}

/* Gives this node a command whose result follows, and lets its walk end. */
static bool begins(struct command command, uint64_t request_id)
{
    bool follows;

    fake_forget();
    follows = fake_later(command, request_id);
    do
        fake_serve();
    while (roster_run(&node.hub));
    cluster_flush(fake.cluster);
    return follows;
}

/* The first node asks this one; lets the walk end. */
static void ask_here(struct command command, uint64_t id)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .id = id, .at = fake.now, .command = command};

    fake_forget();
    fake_tell(0, &msg);
    while (roster_run(&node.hub))
        ;
    cluster_flush(fake.cluster);
}

static bool gives(const struct cluster_result *result, bool incomplete, const char *list)
{
    if (result->result.code)
        printf("  %d %s\n", (int)result->result.code, result->result.error);
    return CHECK(result->result.code == RESULT_SUCCESS) &&
           CHECK(result->incomplete == incomplete) &&
           same(str_of(&result->result.list), str_from(list));
}

/* A client of this node is in the group g, and of the user u. */
static void put_user(void)
{
    struct command bind;

    fake_arrive(0, "shop");
    bind = fake_bind(fake_id(0), "g");
    bind.user = STR("u");
    bind.has_user = true;
    if (!fake_done(bind, false, 1)) {
        fake_serve();
        CHECK(fake_succeeds(1));
    }
    fake_settle();
}

/* --- counts ----------------------------------------------------------------------------------- */

static void counts_are_added_up(void)
{
    struct command command = make_command(COMMAND_COUNT_CLIENTS);
    uint64_t id;

    fake_add_member(0);
    use_version(WIRE_VERSION_ROSTER);
    command.wide = true;
    command.groups = STR("[\"g\",\"h\"]");
    command.users = STR("[ \"u\" ]");
    CHECK(begins(command, 1));
    id = request_to(0, COMMAND_COUNT_CLIENTS);
    CHECK(id && asked.wide);
    CHECK(same(asked.groups, command.groups) && same(asked.users, command.users));
    reply(0, id, "1000,200,30,4");
    CHECK(fake_no_result());
    reply(1, id, "1,1,1,1");
    CHECK(gives(fake_result(1), false,
                "\"system\":1002,\"groups\":{\"g\":202,\"h\":31},\"users\":{\"u\":5}"));
    /* a node that is silent is missed */
    CHECK(begins(command, 2));
    reply(1, request_to(1, COMMAND_COUNT_CLIENTS), "1,1,1,1");
    fake_wait(FAKE_TIMEOUT);
    CHECK(gives(fake_result(2), true,
                "\"system\":2,\"groups\":{\"g\":2,\"h\":1},\"users\":{\"u\":1}"));
    /* and so is one that does not know the command: it is not asked */
    use_version(WIRE_VERSION_ROSTER - 1);
    CHECK(begins(command, 3) && !request_to(0, COMMAND_COUNT_CLIENTS));
    CHECK(gives(fake_result(3), true,
                "\"system\":1,\"groups\":{\"g\":1,\"h\":0},\"users\":{\"u\":0}"));
    /* and without Redis there may be nodes that nobody here knows */
    use_version(WIRE_VERSION_ROSTER);
    fake_registry_event(REGISTRY_WAITING, "no route");
    fake_serve();
    CHECK(begins(command, 4));
    for (size_t peer = 0; peer < 2; peer++)
        reply(peer, request_to(peer, COMMAND_COUNT_CLIENTS), "1,1,1,1");
    CHECK(gives(fake_result(4), true,
                "\"system\":3,\"groups\":{\"g\":3,\"h\":2},\"users\":{\"u\":2}"));
}

static void a_node_is_asked_for_its_counts(void)
{
    struct command command = make_command(COMMAND_COUNT_CLIENTS);

    fake_add_member(0);
    command.groups = STR("[\"g\",\"g\"]");
    ask_here(command, 77);
    CHECK(fake_replied(0, 77, 0) && same(fake_reading.msg.list, STR("1,1")));
}

/* --- groups ----------------------------------------------------------------------------------- */

/* Sorts names of groups into their order. */
static void sort_names(const char *names[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++) {
            struct roster_place a = roster_place_group(&node.hub, STR("shop"), str_from(names[i]));
            struct roster_place b = roster_place_group(&node.hub, STR("shop"), str_from(names[j]));
            const char *name = names[i];

            if (roster_is_before(&b, &a))
                names[i] = names[j], names[j] = name;
        }
}

static const char *entry(const char *name, unsigned members)
{
    return textf("{\"groupName\":\"%s\",\"clients\":%u}", name, members);
}

/* The position behind a group, as a JSON string. */
static const char *position(const char *name)
{
    struct command command = make_command(COMMAND_LIST_GROUPS);
    struct buf text = {0};
    const char *copy;

    roster_write_position(&node.hub, &command, str_from(name), &text);
    copy = textf("\"%.*s\"", (int)text.length, text.at);
    buf_free(&text);
    return copy;
}

/* Groups come in their order, those of several nodes once, up to the limit; the page ends where a
 * node that has more has listed no further. */
static void groups_are_merged(void)
{
    static const struct {
        const char *lists[2]; /* digits are groups; + at the end: there are more */
        unsigned limit;
        const char *merged;
    } rows[] = {
        {{"", ""}, 3, ""},
        {{"1", ""}, 3, "1"},
        {{"123", "456"}, 3, "123+"},
        {{"123", ""}, 3, "123"},
        {{"135", "246"}, 100, "123456"},
        {{"1234", "1234"}, 4, "1234"},
        {{"1234", "1234+"}, 4, "1234+"},
        {{"12+", "3456"}, 100, "12+"},
        {{"12+", "13+"}, 100, "12+"},
        {{"13", "2+"}, 100, "12+"},
        {{"27", "27"}, 1, "2+"},
    };
    struct command command = make_command(COMMAND_LIST_GROUPS);
    const char *names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

    use_version(WIRE_VERSION_ROSTER);
    sort_names(names, COUNT(names));
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *lists[3] = {"", "", ""},
                   *sources[3] = {rows[i].lists[0], rows[i].lists[1], rows[i].merged};
        uint64_t id;

        for (size_t j = 0; j < 3; j++) {
            const char *last = "";

            for (const char *at = sources[j]; *at >= '0'; at++) {
                bool both = strchr(sources[0], *at) && strchr(sources[1], *at);

                last = names[*at - '0'];
                lists[j] = textf("%s%s,", lists[j], entry(last, j == 2 && both ? 14 : 7));
            }
            lists[j] = textf("%s%s", lists[j], strchr(sources[j], '+') ? position(last) : "\"\"");
        }
        command.limit = rows[i].limit;
        CHECK(begins(command, i));
        id = request_to(0, COMMAND_LIST_GROUPS);
        CHECK(id && asked.limit == command.limit && asked.after.length > 0);
        reply(0, id, lists[0]);
        CHECK(fake_no_result());
        reply(1, id, lists[1]);
        CHECK(gives(fake_result(i), false, lists[2]));
    }
    /* this node's own are among them, and it goes on where a page has ended */
    fake_add_member(0);
    for (int pass = 0; pass < 2; pass++) {
        command.limit = 100;
        command.after = str_from(pass ? position("g") + 1 : "");
        command.after.length -= pass ? 1 : 0;
        CHECK(begins(command, 50));
        reply(0, request_to(0, COMMAND_LIST_GROUPS), "\"\"");
        CHECK(!pass || same(asked.after, command.after));
        reply(1, request_to(1, COMMAND_LIST_GROUPS), "\"\"");
        CHECK(gives(fake_result(50), false, pass ? "\"\"" : textf("%s,\"\"", entry("g", 1))));
    }
}

/* A forged position is refused before any node is asked; a node whose order is another one refuses
 * as well, and is missed. */
static void orders_must_be_the_same(void)
{
    struct command command = make_command(COMMAND_LIST_GROUPS);
    struct cluster_msg msg = {.kind = MSG_REPLY,
                              .result = {.code = RESULT_UNREACHABLE, .error = ROSTER_BAD_POSITION}};

    use_version(WIRE_VERSION_ROSTER);
    command.after = STR("0011223344");
    CHECK(fake_done_with(command, 1, RESULT_MALFORMED) && fake_sent_nothing());
    command.kind = COMMAND_LIST_CLIENTS;
    CHECK(fake_done_with(command, 2, RESULT_MALFORMED) && fake_sent_nothing());
    ask_here(command, 77);
    CHECK(fake_replied(0, 77, RESULT_UNREACHABLE));
    command = make_command(COMMAND_LIST_GROUPS);
    CHECK(begins(command, 3));
    msg.id = request_to(0, COMMAND_LIST_GROUPS);
    fake_say_reply(0, msg);
    reply(1, msg.id, textf("%s,\"\"", entry("x", 1)));
    CHECK(gives(fake_result(3), true, textf("%s,\"\"", entry("x", 1))));
}

/* --- clients ---------------------------------------------------------------------------------- */

/* The nodes are asked one after the other; one that is silent is passed over, and so is one that
 * has left behind its own page. */
static void clients_are_listed_node_by_node(void)
{
    struct command command = make_command(COMMAND_LIST_CLIENTS);
    char after[ROSTER_POSITION_MAX + 1];

    use_version(WIRE_VERSION_ROSTER);
    fake_add_member(0);
    for (int pass = 0; pass < 2; pass++) {
        bool silent = pass == 1;
        size_t own = 0, others = 0, incomplete = 0, pages = 0;

        for (after[0] = '\0'; pages == 0 || (after[0] && pages < 10); pages++) {
            const struct cluster_result *result;
            struct str list, next;

            command.after = str_from(after);
            CHECK(begins(command, 9));
            for (size_t which = 0; which < 2; which++) {
                uint64_t id = request_to(which, COMMAND_LIST_CLIENTS);

                others += id != 0;
                if (id && silent)
                    fake_wait(FAKE_TIMEOUT);
                else if (id)
                    reply(which, id, "{\"x\":1},\"\"");
            }
            result = fake_result(9);
            incomplete += result->incomplete;
            list = str_of(&result->result.list);
            next = roster_split(&list);
            own += list.length > 10;
            snprintf(after, sizeof after, "%.*s", (int)next.length - 2, next.at + 1);
        }
        CHECK(own == 1 && others == 2 && pages == 3 && incomplete == (silent ? 2 : 0));
    }
}

static void a_page_within_a_node_ends_with_its_position(void)
{
    struct command command = make_command(COMMAND_LIST_CLIENTS);
    struct buf next = {0};
    char id[HUB_ID_TEXT + 1] = "";

    use_version(WIRE_VERSION_ROSTER);
    snprintf(id, sizeof id, "%.*s", HUB_ID_TEXT, fake_foreign_id(&fake_nodes[0], 7).text.at + 1);
    roster_write_position(&node.hub, &command, str_from(id), &next);
    command.after = str_of(&next);
    CHECK(begins(command, 1));
    CHECK(request_to(0, COMMAND_LIST_CLIENTS) && same(asked.after, command.after));
    reply(0, request_to(0, COMMAND_LIST_CLIENTS), textf("{\"x\":1},\"%s\"", "012345678a"));
    CHECK(gives(fake_result(1), false, "{\"x\":1},\"012345678a\""));
    /* the node leaves: the others are asked from their beginning, if there are any behind it */
    fake_tell(0, &(struct cluster_msg){.kind = MSG_LEAVE});
    CHECK(begins(command, 2) && !request_to(0, COMMAND_LIST_CLIENTS));
    if (request_to(1, COMMAND_LIST_CLIENTS)) {
        CHECK(!asked.after.length);
        reply(1, request_to(1, COMMAND_LIST_CLIENTS), "\"\"");
    }
    CHECK(fake_result(2)->result.code == RESULT_SUCCESS);
    buf_free(&next);
}

/* --- the clients of a user -------------------------------------------------------------------- */

/* A success is that of all nodes. */
static void all_nodes_close_a_user(void)
{
    struct command command = make_command(COMMAND_CLOSE_USER);
    struct cluster_msg msg;
    const struct cluster_result *result;

    use_version(WIRE_VERSION_ROSTER);
    put_user();
    command.user = STR("u");
    CHECK(begins(command, 2) && !clients[0].conn.client);
    msg = fake_reply_to(request_to(0, COMMAND_CLOSE_USER), 0, NULL);
    CHECK(msg.id && same(asked.user, STR("u")) && asked.close_code == 4000);
    msg.result.matched = 5;
    fake_say_reply(0, msg);
    msg.id = request_to(1, COMMAND_CLOSE_USER);
    fake_say_reply(1, msg);
    result = fake_result(2);
    CHECK(result->result.code == 0 && result->result.matched == 11);
    /* one is silent: it may be repeated */
    CHECK(begins(command, 3));
    fake_say_reply(0, fake_reply_to(request_to(0, COMMAND_CLOSE_USER), 0, NULL));
    fake_wait(FAKE_TIMEOUT);
    CHECK(fake_fails(3, RESULT_UNREACHABLE, "repeat"));
    use_version(WIRE_VERSION_ROSTER - 1);
    CHECK(begins(command, 4) && fake_fails(4, RESULT_UNREACHABLE, "repeat"));
}

/* Behind a send it waits here, and goes to the others through RabbitMQ. */
static void it_comes_behind_the_sends_before(void)
{
    struct command command = make_command(COMMAND_CLOSE_USER);

    use_version(WIRE_VERSION_ROSTER);
    put_user();
    command.user = STR("u");
    CHECK(fake_later(fake_send("1"), 1));
    CHECK(begins(command, 2) && fake.publication_count == 0 && clients[0].conn.client);
    fake_end(); /* what is under way is freed */
    fake_start(2);
    use_version(WIRE_VERSION_ROSTER);
    CHECK(fake_later(fake_send("1"), 1) && fake_later(command, 2));
    CHECK(fake.publication_count == 1);
    fake_return(0);
    while (roster_run(&node.hub))
        ;
    CHECK(fake_succeeds(1) && fake.publication_count == 3);
    for (size_t i = 1; i < 3; i++) {
        size_t which = node_equal(&fake.publications[i].to, &fake_nodes[0]) ? 0 : 1;

        fake_say_reply(which, fake_reply_to(fake.publications[i].with.id, 0, NULL));
    }
    cluster_flush(fake.cluster);
    CHECK(fake_succeeds(2));
}

/* The slot of the group is bound before; without RabbitMQ no client is bound. */
static void the_slot_is_bound_before_a_user(void)
{
    struct command command = make_command(COMMAND_BIND_USER);

    use_version(WIRE_VERSION_ROSTER);
    put_user();
    command.user = STR("u");
    command.group = STR("late");
    command.extend = STR("of no meaning");
    command.has_extend = true;
    fake.binds_at_once = false;
    ask_here(command, 77);
    CHECK(clients[0].conn.client->subscription_count == 3); /* system, user, g */
    fake_bound(&fake.bindings[fake.binding_count - 1]);
    fake_serve();
    while (roster_run(&node.hub))
        ;
    cluster_flush(fake.cluster);
    CHECK(clients[0].conn.client->subscription_count == 4 &&
          !channel_extend(clients[0].conn.client).length);
    CHECK(fake_replied(0, 77, 0) && fake_reading.msg.result.matched == 1);
    fake_lose_bus();
    command.group = STR("later");
    ask_here(command, 78);
    CHECK(fake_replied(0, 78, RESULT_UNREACHABLE));
    CHECK(clients[0].conn.client->subscription_count == 4);
    /* for a user without clients here nothing has to be bound */
    command.user = STR("nobody");
    ask_here(command, 79);
    CHECK(fake_replied(0, 79, 0));
}

/* A walk that takes too long is given up; its end finds nobody. */
static void a_late_walk_is_given_up(void)
{
    struct command command = make_command(COMMAND_LIST_GROUPS);

    use_version(WIRE_VERSION_ROSTER);
    CHECK(fake_later(command, 1));
    reply(0, request_to(0, COMMAND_LIST_GROUPS), "\"\"");
    reply(1, request_to(1, COMMAND_LIST_GROUPS), "\"\"");
    fake_wait(FAKE_TIMEOUT);
    CHECK(gives(fake_result(1), true, "\"\""));
    while (roster_run(&node.hub))
        ;
    cluster_flush(fake.cluster);
    CHECK(fake_no_result());
}

static const struct test tests[] = {
    TEST(counts_are_added_up, 2),
    TEST(a_node_is_asked_for_its_counts, 1),
    TEST(groups_are_merged, 2),
    TEST(orders_must_be_the_same, 2),
    TEST(clients_are_listed_node_by_node, 2),
    TEST(a_page_within_a_node_ends_with_its_position, 2),
    TEST(all_nodes_close_a_user, 2),
    TEST(it_comes_behind_the_sends_before, 2),
    TEST(the_slot_is_bound_before_a_user, 1),
    TEST(a_late_walk_is_given_up, 2),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}

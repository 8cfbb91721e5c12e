/* test_hub.c - hub.c: which clients get which frames when clients connect, bind, are sent to and
 * end; a random walk beside a simple model of the same; and what is different in a cluster. */
#include "node.h"

#define CLIENTS 8

static struct test_client clients[CLIENTS];
static struct result result; /* of the last command */

/* --- commands -------------------------------------------------------------------------------- */

/* Does a command without sending what it queued. */
static const struct result *apply_only(struct command command)
{
    buf_free(&result.list);
    result = (struct result){0};
    hub_apply(&node.hub, &command, &result);
    return &result;
}

static const struct result *apply(struct command command)
{
    apply_only(command);
    flush();
    return &result;
}

static bool succeeds(struct command command)
{
    const struct result *done = apply(command);

    return done->code == RESULT_SUCCESS && !done->error;
}

static struct command bind_to(const char *system, const struct test_client *client,
                              const char *group)
{
    return (struct command){.kind = COMMAND_BIND,
                            .system = str_from(system),
                            .client = quoted(id_of(client)),
                            .group = str_from(group)};
}

static struct command unbind_from(const char *system, const struct test_client *client,
                                  const char *group)
{
    struct command command = bind_to(system, client, group);

    command.kind = COMMAND_UNBIND;
    return command;
}

static struct command bind_user(const struct test_client *client, const char *group,
                                const char *user, const char *extend)
{
    struct command command = bind_to("shop", client, group);

    command.user = str_from(user);
    command.has_user = user != NULL;
    command.extend = str_from(extend);
    command.has_extend = extend != NULL;
    return command;
}

/* A send whose frame is {"code":1,"msg":"m","data":DATA}. */
static struct command send_to(enum command_kind kind, const char *system, const char *data)
{
    return (struct command){.kind = kind,
                            .system = str_from(system),
                            .code = 1,
                            .msg = STR("\"m\""),
                            .data = str_from(data)};
}

static struct command send_to_group(const char *system, const char *group, const char *data)
{
    struct command command = send_to(COMMAND_SEND_TO_GROUP, system, data);

    command.group = str_from(group);
    return command;
}

static struct command send_to_client(const char *system, struct str id, const char *data)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENT, system, data);

    command.client = quoted(id);
    return command;
}

static struct command about_client(enum command_kind kind, const char *system, struct str id)
{
    return (struct command){.kind = kind, .system = str_from(system), .client = quoted(id)};
}

static struct command list_of(const char *system, const char *group)
{
    return (struct command){
        .kind = COMMAND_ONLINE_LIST, .system = str_from(system), .group = str_from(group)};
}

static const char *pushed(const char *data)
{
    return textf("{\"code\":1,\"msg\":\"m\",\"data\":%s}", data);
}

/* What a notice is about; `group` is NULL if the scope is the system. */
static const char *subject(const char *id, const char *user, const char *extend, const char *group)
{
    return textf("{\"clientId\":\"%s\",\"userId\":\"%s\",\"extend\":\"%s\"%s%s%s}", id, user,
                 extend, group ? ",\"groupName\":\"" : "", group ? group : "", group ? "\"" : "");
}

static const char *notice(unsigned code, const char *id, const char *user, const char *extend,
                          const char *group)
{
    return textf("{\"code\":%u,\"msg\":\"client %s\",\"data\":%s}", code,
                 code == NOTICE_ONLINE ? "online" : "offline", subject(id, user, extend, group));
}

/* --- clients, named by letters -------------------------------------------------------------- */

static void set_up(size_t count)
{
    node_open();
    for (size_t i = 0; i < count; i++)
        arrive(&clients[i], STR("shop"));
}

static void tear_down(size_t count)
{
    for (size_t i = 0; i < count; i++)
        depart(&clients[i]);
    buf_free(&result.list);
    node_close();
}

static void bind_all(size_t count, const char *group)
{
    for (size_t i = 0; i < count; i++)
        CHECK(succeeds(bind_to("shop", &clients[i], group)));
    for (size_t i = 0; i < count; i++)
        far_forget(&clients[i].far);
}

/* True if the clients named, 'a' being the first, have got this text, and no client anything else.
 */
static bool only_got(const char *letters, size_t count, const char *text)
{
    bool good = true;

    for (size_t i = 0; i < count; i++) {
        bool right = !strchr(letters, (int)('a' + i)) || got_text(&clients[i].far, text);

        right = right && got_nothing(&clients[i].far);
        if (!right)
            printf("  that was client %c\n", (char)('a' + i));
        good = good && right;
    }
    return good;
}

static bool is_gone(const struct test_client *client)
{
    return apply(about_client(COMMAND_CLIENT_INFO, "shop", id_of(client)))->code == RESULT_OFFLINE;
}

/* --- JSON ----------------------------------------------------------------------------------- */

static bool holds(struct buf *out, const char *expected)
{
    bool good = str_equal(str_of(out), str_from(expected)) && !out->failed;

    if (!good)
        printf("  expected %s\n  got %.*s\n", expected, (int)out->length, out->at ? out->at : "");
    buf_free(out);
    return good;
}

static void pushes_are_written(void)
{
    static const struct {
        int64_t code;
        const char *msg, *data, *send_user, *message_id, *expected;
    } rows[] = {
        {0, "\"\"", "[]", NULL, NULL, "{\"code\":0,\"msg\":\"\",\"data\":[]}"},
        {INT64_MAX, "\"m\"", "null", NULL, NULL,
         "{\"code\":9223372036854775807,\"msg\":\"m\",\"data\":null}"},
        {INT64_MIN, "\"m\"", "1.0", NULL, NULL,
         "{\"code\":-9223372036854775808,\"msg\":\"m\",\"data\":1.0}"},
        {-7, "\"\\u0041\\\"\"", "{ \"a\" : [ 1e400 ] }", NULL, NULL,
         "{\"code\":-7,\"msg\":\"\\u0041\\\"\",\"data\":{ \"a\" : [ 1e400 ] }}"},
        {1, "\"m\"", "123456789012345678901234567890", "\"u\"", NULL,
         "{\"code\":1,\"msg\":\"m\",\"data\":123456789012345678901234567890,"
         "\"sendUserId\":\"u\"}"},
        {1, "\"m\"", "true", NULL, "\"id\"",
         "{\"code\":1,\"msg\":\"m\",\"data\":true,\"messageId\":\"id\"}"},
        {1, "\"m\"", "\"\"", "\"\"", "\"\"",
         "{\"code\":1,\"msg\":\"m\",\"data\":\"\",\"sendUserId\":\"\",\"messageId\":\"\"}"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = {.code = rows[i].code,
                                  .msg = str_from(rows[i].msg),
                                  .data = str_from(rows[i].data),
                                  .send_user = str_from(rows[i].send_user),
                                  .message_id = str_from(rows[i].message_id)};
        struct buf out = {0};

        CHECK(command_write_push(&out, &command));
        CHECK(holds(&out, rows[i].expected));
    }
}

static void envelopes_are_written(void)
{
    static const struct {
        int code;
        const char *msg, *data, *expected;
    } rows[] = {
        {0, "success", NULL, "{\"code\":0,\"msg\":\"success\",\"data\":[]}"},
        {0, "success", "", "{\"code\":0,\"msg\":\"success\",\"data\":[]}"},
        {-1001, "no", "{\"a\":1}", "{\"code\":-1001,\"msg\":\"no\",\"data\":{\"a\":1}}"},
        {1001, "\"\\\n\001", "0", "{\"code\":1001,\"msg\":\"\\\"\\\\\\u000a\\u0001\",\"data\":0}"},
        {1, "", "[]", "{\"code\":1,\"msg\":\"\",\"data\":[]}"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct buf out = {0};

        CHECK(command_write_envelope(&out, rows[i].code, str_from(rows[i].msg),
                                     str_from(rows[i].data)));
        CHECK(holds(&out, rows[i].expected));
    }
}

static const struct ticket_claims in_shop = {.system = STR_INIT("shop")};

/* --- ids ------------------------------------------------------------------------------------- */

/* Sends the first client its id, as a session does that is asked for it. */
static bool send_id(void)
{
    struct buf text = {0};

    command_write_first(&text, clients[0].conn.client, 60, STR(""));
    return hub_queue_text(&node.hub, &clients[0].conn, &text);
}

static void an_id_can_be_sent_again(void)
{
    set_up(2);
    for (int i = 0; i < 2; i++) {
        char id[HUB_ID_TEXT + 1];

        CHECK(send_id());
        flush();
        CHECK(got_id_frame(&clients[0].far, id) && strcmp(id, clients[0].id) == 0);
    }
    CHECK(only_got("", 2, "") && node.hub.counts.sent == 4);
    node.config.send_queue = 1;
    CHECK(send_id());
    clients[0].conn.want_write = true; /* as if the socket took no more */
    CHECK(!send_id() && node.hub.counts.sent == 5);
    clients[0].conn.want_write = false;
    tear_down(2);
}

static void the_first_frame_has_the_id(void)
{
    struct test_client *client = &clients[0];
    struct str bytes;

    node_open();
    conn_open(&client->conn, far_open(&client->far), &node.shared);
    CHECK(hub_connect(&node.hub, &client->conn, &in_shop));
    CHECK(client->conn.client && node.hub.channels.clients.count == 1 &&
          node.hub.channels.names.count == 1);
    CHECK(got_nothing(&client->far)); /* what is queued leaves when it is flushed */
    flush();
    bytes = far_receive(&client->far);
    CHECK(bytes.length == 67 && bytes.at[0] == '\x81' && bytes.at[1] == 65);
    CHECK(got_id_frame(&client->far, client->id) && got_nothing(&client->far));
    CHECK(strspn(client->id, "0123456789abcdef") == HUB_ID_LENGTH);
    tear_down(1);
}

/* --- notices --------------------------------------------------------------------------------- */

/* Ends a client; nothing is sent before flush. */
static void lose(char who)
{
    hub_end_client(&node.hub, clients[who - 'a'].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("test"));
}

static const char *left_group(char who, const char *group)
{
    return notice(NOTICE_OFFLINE, clients[who - 'a'].id, "", "", group);
}

/* A call sends so many frames, and at most those of one notice more; no frame is lost for that. */
static void notices_are_sent_in_bounded_batches(void)
{
    static const size_t bounds[] = {1, 2, 3, 4, 5, 7, 100};

    for (size_t i = 0; i < COUNT(bounds); i++) {
        bool more = true;

        set_up(CLIENTS);
        bind_all(CLIENTS, "g");
        for (char who = 'a'; who < 'f'; who++)
            lose(who);
        for (uint64_t all = 0, sent; more; all += sent) {
            sent = node.hub.counts.sent;
            more = hub_flush_notices(&node.hub, bounds[i]);
            sent = node.hub.counts.sent - sent;
            CHECK(sent > 0 && sent < bounds[i] + 3 && more == (all + sent < 15));
            CHECK(sent >= bounds[i] || !more);
        }
        flush();
        for (char who = 'a'; who < 'f'; who++)
            for (size_t stays = 5; stays < 8; stays++)
                CHECK(got_text(&clients[stays].far, left_group(who, "g")));
        CHECK(only_got("", CLIENTS, ""));
        tear_down(CLIENTS);
    }
}

/* An unbind is notified at once. */
static void a_pending_notice_skips_who_was_unbound(void)
{
    set_up(4);
    bind_all(4, "g");
    lose('a');
    apply_only(unbind_from("shop", &clients[1], "g"));
    flush();
    for (int i = 2; i < 4; i++) {
        CHECK(got_text(&clients[i].far, left_group('b', "g")));
        CHECK(got_text(&clients[i].far, left_group('a', "g")));
    }
    CHECK(only_got("", 4, ""));
    tear_down(4);
}

/* --- max_members ----------------------------------------------------------------------------- */

/* How often the log has this text. */
static size_t count_logged(const char *text)
{
    static char room[65536];
    size_t length, count = 0, size = strlen(text);

    rewind(node.log.file);
    length = fread(room, 1, sizeof room, node.log.file);
    fseek(node.log.file, 0, SEEK_END);
    for (size_t i = 0; i + size <= length; i++)
        count += memcmp(room + i, text, size) == 0;
    return count;
}

#define CROWDED "info notices are off: more members than max_members system=\"shop\" "

/* Members are notified of each other while they are at most so many: who comes counts, who goes
 * not.
 */
static void a_crowded_group_gets_no_notices(void)
{
    set_up(5);
    node.config.max_members = 3;
    CHECK(succeeds(bind_to("shop", &clients[0], "g")) &&
          succeeds(bind_to("shop", &clients[1], "g")));
    far_forget(&clients[0].far);
    far_forget(&clients[1].far);
    CHECK(succeeds(bind_to("shop", &clients[2], "g")));
    CHECK(only_got("abc", 5, notice(NOTICE_ONLINE, clients[2].id, "", "", "g")));
    CHECK(count_logged(CROWDED) == 0);
    CHECK(succeeds(bind_to("shop", &clients[3], "g")) && only_got("", 5, ""));
    CHECK(count_logged(CROWDED "group=\"g\" max_members=3\n") == 1);
    CHECK(succeeds(bind_to("shop", &clients[4], "g")) && only_got("", 5, ""));
    leave(&clients[0]); /* four are left */
    CHECK(only_got("", 5, "") && !node.hub.channels.notified.first);
    CHECK(succeeds(unbind_from("shop", &clients[1], "g")));
    CHECK(only_got("cde", 5, left_group('b', "g")));
    CHECK(succeeds(bind_to("shop", &clients[1], "g")) && only_got("", 5, ""));
    leave(&clients[1]);
    CHECK(only_got("cde", 5, left_group('b', "g")));
    CHECK(count_logged("max_members") == 2); /* once, in one line */
    /* another group is another matter */
    for (size_t i = 2; i < 5; i++)
        CHECK(succeeds(bind_to("shop", &clients[i], "h")));
    for (size_t i = 2; i < 5; i++)
        far_forget(&clients[i].far);
    node.config.max_members = 1;
    leave(&clients[2]);
    CHECK(only_got("", 5, ""));
    CHECK(count_logged(CROWDED) == 2 && count_logged("group=\"h\" max_members=1\n") == 1);
    leave(&clients[3]);
    CHECK(got_text(&clients[4].far, left_group('d', "h")));
    CHECK(only_got("e", 5, left_group('d', "g")));
    tear_down(5);
}

static void a_crowded_system_gets_no_notices(void)
{
    set_up(0);
    node.config.scope = NOTICE_SYSTEM;
    node.config.max_members = 2;
    for (size_t i = 0; i < 4; i++)
        arrive(&clients[i], STR("shop"));
    CHECK(got_text(&clients[0].far, notice(NOTICE_ONLINE, clients[0].id, "", "", NULL)));
    CHECK(only_got("ab", 4, notice(NOTICE_ONLINE, clients[1].id, "", "", NULL)));
    CHECK(count_logged(CROWDED "max_members=2\n") == 1 && count_logged("more members") == 1);
    leave(&clients[3]);
    CHECK(only_got("", 4, ""));
    leave(&clients[2]);
    CHECK(only_got("ab", 4, left_group('c', NULL)));
    tear_down(4);
}

/* --- binding --------------------------------------------------------------------------------- */

static const char *info_of(const struct test_client *client, const char *user, const char *extend,
                           const char *groups)
{
    return textf("{\"clientId\":\"%s\",\"userId\":\"%s\",\"extend\":\"%s\",\"groups\":[%s],"
                 "\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}",
                 client->id, user, extend, groups);
}

static bool has_info(const struct test_client *client, const char *expected)
{
    return succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(client))) &&
           same(str_of(&result.list), str_from(expected));
}

static void user_and_extend_belong_to_the_client(void)
{
    static const struct {
        const char *group, *user, *extend;              /* of the bind; NULL is absent */
        const char *user_now, *extend_now, *groups_now; /* what there is afterwards */
        bool notified;
    } rows[] = {
        {"g", NULL, NULL, "", "", "\"g\"", true},
        {"g", "ann", NULL, "ann", "", "\"g\"", false},
        {"h", NULL, "red", "ann", "red", "\"g\",\"h\"", true},
        {"h", NULL, NULL, "ann", "red", "\"g\",\"h\"", false},
        {"i", "ann", "blue", "ann", "blue", "\"g\",\"h\",\"i\"", true},
        {"i", "bob", NULL, "bob", "blue", "\"g\",\"h\",\"i\"", false},
        {"g", "bob", "", "bob", "", "\"g\",\"h\",\"i\"", false},
        {"k", NULL, NULL, "bob", "", "\"g\",\"h\",\"i\",\"k\"", true},
    };
    struct test_client *client = &clients[0];

    set_up(1);
    CHECK(has_info(client, info_of(client, "", "", "")));
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(succeeds(bind_user(client, rows[i].group, rows[i].user, rows[i].extend)));
        CHECK(has_info(client,
                       info_of(client, rows[i].user_now, rows[i].extend_now, rows[i].groups_now)));
        CHECK(only_got(rows[i].notified ? "a" : "", 1,
                       notice(NOTICE_ONLINE, client->id, rows[i].user_now, rows[i].extend_now,
                              rows[i].group)));
    }
    /* the system, one user, four groups: the user before has gone with its last client */
    CHECK(node.hub.channels.names.count == 6);
    tear_down(1);
}

/* What a JSON string must escape is escaped wherever it is shown. */
static void names_are_quoted(void)
{
    struct test_client *client = &clients[0];

    set_up(1);
    CHECK(succeeds(bind_user(client, "g\"\\\xc3\xa9", "u\"", "\\\n\x01")));
    CHECK(got_text(&client->far, notice(NOTICE_ONLINE, client->id, "u\\\"", "\\\\\\u000a\\u0001",
                                        "g\\\"\\\\\xc3\xa9")));
    CHECK(
        has_info(client, info_of(client, "u\\\"", "\\\\\\u000a\\u0001", "\"g\\\"\\\\\xc3\xa9\"")));
    tear_down(1);
}

/* --- max_groups ------------------------------------------------------------------------------ */

static void fill_groups(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CHECK(succeeds(bind_to("shop", &clients[0], textf("%zu", i))));
        CHECK(only_got("a", 1, notice(NOTICE_ONLINE, clients[0].id, "", "", textf("%zu", i))));
    }
}

/* At the limit nothing of a bind to one group more is done; a bind to one of its own is success. */
static void groups_of_a_client_are_limited(void)
{
    static const size_t limits[] = {1, 2, 31, 32, 33, 40};
    struct test_client *client = &clients[0];

    for (size_t i = 0; i < COUNT(limits); i++) {
        struct command command = bind_user(client, "more", "ann", "x");

        set_up(1);
        node.config.max_groups = limits[i];
        command.client = quoted(id_of(client));
        fill_groups(limits[i]);
        CHECK(apply(command)->code == RESULT_LIMIT);
        CHECK(same(str_from(result.error), STR("the client is in max_groups groups already")));
        CHECK(only_got("", 1, "") && node.hub.channels.names.count == 1 + limits[i]);
        CHECK(succeeds(bind_user(client, "0", "ann", "x")) && only_got("", 1, ""));
        CHECK(node.hub.channels.names.count == 2 + limits[i]);
        command.client = quoted(id_of(client));
        CHECK(apply(command)->code == RESULT_LIMIT); /* a user is no group */
        CHECK(succeeds(unbind_from("shop", client, "0")) && succeeds(command));
        CHECK(only_got("a", 1, notice(NOTICE_ONLINE, client->id, "ann", "x", "more")));
        CHECK(apply(bind_to("shop", client, "0"))->code == RESULT_LIMIT);
        CHECK(succeeds(command) && only_got("", 1, ""));
        tear_down(1);
    }
}

/* --- sending --------------------------------------------------------------------------------- */

/* a and b are user ann, c is bob; a, b and c are in g, d is in h. */
static void set_up_groups(void)
{
    set_up(4);
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", NULL)));
    CHECK(succeeds(bind_user(&clients[1], "g", "ann", NULL)));
    CHECK(succeeds(bind_user(&clients[2], "g", "bob", NULL)));
    CHECK(succeeds(bind_user(&clients[3], "h", NULL, NULL)));
    for (size_t i = 0; i < 4; i++)
        far_forget(&clients[i].far);
}

/* The ids of those named as a JSON array. */
static struct str ids_of(const char *letters)
{
    static char room[400];
    size_t length = 0;

    room[length++] = '[';
    for (const char *letter = letters; *letter; letter++)
        length += (size_t)snprintf(room + length, sizeof room - length, "%s\"%s\"",
                                   length > 1 ? ", " : "", clients[*letter - 'a'].id);
    room[length++] = ']';
    return (struct str){room, length};
}

static void sends_reach_their_targets(void)
{
    static const struct {
        enum command_kind kind;
        const char *name;
        const char *clients; /* to send to, or to leave out; NULL is absent */
        const char *reached;
    } rows[] = {
        {COMMAND_SEND_TO_GROUP, "g", NULL, "abc"},
        {COMMAND_SEND_TO_GROUP, "h", NULL, "d"},
        {COMMAND_SEND_TO_GROUP, "ann", NULL, ""},
        {COMMAND_SEND_TO_GROUP, "shop", NULL, ""},
        {COMMAND_SEND_TO_GROUP, "", NULL, ""},
        {COMMAND_SEND_TO_GROUP, "g", "", "abc"},
        {COMMAND_SEND_TO_GROUP, "g", "b", "ac"},
        {COMMAND_SEND_TO_GROUP, "g", "cdbb", "a"},
        {COMMAND_SEND_TO_GROUP, "g", "abc", ""},
        {COMMAND_SEND_TO_GROUP, "g", NULL, "abc"}, /* exclusion lasts for one send */
        {COMMAND_SEND_TO_USER, "ann", NULL, "ab"},
        {COMMAND_SEND_TO_USER, "bob", NULL, "c"},
        {COMMAND_SEND_TO_USER, "g", NULL, ""},
        {COMMAND_SEND_TO_USER, "", NULL, ""},
        {COMMAND_SEND_TO_SYSTEM, NULL, NULL, "abcd"},
        {COMMAND_SEND_TO_CLIENTS, NULL, "", ""},
        {COMMAND_SEND_TO_CLIENTS, NULL, "a", "a"},
        {COMMAND_SEND_TO_CLIENTS, NULL, "dba", "abd"},
    };

    set_up_groups();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = send_to(rows[i].kind, "shop", textf("%zu", i));
        uint64_t count = strlen(rows[i].reached);

        command.group = command.user = str_from(rows[i].name);
        if (rows[i].clients)
            command.clients = ids_of(rows[i].clients);
        if (!CHECK(succeeds(command) && result.list.length == 0) ||
            !CHECK(result.matched == count && result.queued == count && !result.dropped) ||
            !CHECK(only_got(rows[i].reached, 4, pushed(textf("%zu", i)))))
            printf("  that was row %zu\n", i);
    }
    tear_down(4);
}

/* Ids that reach nobody are listed as they were written; others get the message all the same. */
static void ids_that_fail_are_listed(void)
{
    static const char *const bad[] = {
        "\"\"",
        "\"0000000000000000\"",
        "\"abc\"",
        "\"0123456789abcdef0\"",
        "\"\\u0030123456789abcde\"",
        "\"\xc3\xa9\"",
        "\"\\ud800\"",
        "\"0123456789ABCDEF\"",
        "\"a very long one, longer than any buffer that is made for an id can be: 0123456789\"",
    };
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1");
    struct buf ids = {0}, failed = {0};

    set_up(2);
    for (size_t i = 0; i < COUNT(bad); i++) {
        buf_append(&ids, str_from(textf("%c%s", i ? ',' : '[', bad[i])));
        buf_append(&failed, str_from(textf("%s%s", i ? "," : "", bad[i])));
    }
    /* the first digit of an id written as an escape is that digit */
    buf_append(&ids, str_from(textf(",\"\\u00%02x%s\"\n, \"%s\" ]", (unsigned)clients[0].id[0],
                                    clients[0].id + 1, clients[1].id)));
    command.clients = str_of(&ids);
    CHECK(succeeds(command) && result.count == COUNT(bad));
    CHECK(result.matched == 2 && result.queued == 2);
    CHECK(same(str_of(&result.list), str_of(&failed)));
    CHECK(only_got("ab", 2, pushed("1")));
    buf_free(&ids);
    buf_free(&failed);
    tear_down(2);
}

/* Sends on until all has left; takes in what arrives. */
static void pump(struct test_client *client)
{
    do {
        conn_writable(&client->conn);
        far_receive(&client->far);
    } while (client->conn.first && !client->conn.broken);
}

/* What was queued in one turn, by whatever command, leaves in its order. */
static void order_is_kept(void)
{
    set_up(2);
    bind_all(2, "g");
    for (int i = 0; i < 300; i += 3) {
        apply_only(send_to_group("shop", "g", textf("%d", i)));
        apply_only(send_to_client("shop", id_of(&clients[i % 2]), textf("%d", i + 1)));
        apply_only(send_to(COMMAND_SEND_TO_SYSTEM, "shop", textf("%d", i + 2)));
    }
    flush();
    for (int i = 0; i < 300; i++)
        for (int who = 0; who < 2; who++)
            if (i % 3 != 1 || (i - 1) % 2 == who)
                CHECK(got_text(&clients[who].far, pushed(textf("%d", i))));
    CHECK(only_got("", 2, ""));
    tear_down(2);
}

/* --- other systems, unknown ids -------------------------------------------------------------- */

/* Also systems whose names share a hash, so that all of their groups do. */
static void systems_that_collide_stay_apart(void)
{
    const char *systems[2];

    node_open();
    node.hub.channels.key[0] = node.hub.channels.key[1] =
        1; /* any: the test is the same each time */
    find_collision(&node.hub.channels, systems);
    if (CHECK(systems[0])) {
        for (size_t i = 0; i < 2; i++) {
            arrive(&clients[i], str_from(systems[i]));
            CHECK(succeeds(bind_to(systems[i], &clients[i], "g")));
            far_forget(&clients[i].far);
        }
        CHECK(node.hub.channels.names.count == 4);
        CHECK(succeeds(send_to_group(systems[0], "g", "1")));
        CHECK(only_got("a", 2, pushed("1")));
        CHECK(succeeds(send_to(COMMAND_SEND_TO_SYSTEM, systems[1], "1")));
        CHECK(only_got("b", 2, pushed("1")));
    }
    tear_down(systems[0] ? 2 : 0);
}

/* Another system's clients can neither be sent to nor left out of a send. */
static void foreign_ids_in_lists_are_unknown(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "other", "1");

    set_up(2);
    arrive(&clients[2], STR("other"));
    bind_all(2, "g");
    command.clients = ids_of("ab");
    CHECK(succeeds(command) && result.matched == 0 && result.count == 2);
    CHECK(only_got("", 3, ""));
    command = send_to(COMMAND_SEND_TO_GROUP, "shop", "2");
    command.group = STR("g");
    command.clients = ids_of("cb");
    CHECK(succeeds(command) && result.matched == 1);
    CHECK(only_got("a", 3, pushed("2")));
    tear_down(3);
}

static void unknown_and_foreign_ids_look_alike(void)
{
    static const enum command_kind kinds[] = {COMMAND_SEND_TO_CLIENT, COMMAND_BIND, COMMAND_UNBIND,
                                              COMMAND_CLOSE_CLIENT, COMMAND_CLIENT_INFO};
    struct str ids[10] = {STR(""),
                          STR("0000000000000000"),
                          STR("0123456789abcde"),
                          STR("0123456789abcdef0"),
                          STR("0123456789ABCDEF"),
                          STR("g123456789abcdef"),
                          STR("\\ud800"),
                          STR("\\u0000123456789abcde")};

    set_up(2);
    arrive(&clients[2], STR("other"));
    leave(&clients[1]);
    ids[8] = id_of(&clients[1]);
    ids[9] = id_of(&clients[2]);
    for (size_t kind = 0; kind < COUNT(kinds); kind++)
        for (size_t i = 0; i < COUNT(ids); i++) {
            struct command command = send_to(kinds[kind], "shop", "1");

            command.group = STR("g");
            command.client = quoted(ids[i]);
            CHECK(apply(command)->code == RESULT_OFFLINE);
            CHECK(same(str_from(result.error), STR("client not online")));
            CHECK(!result.matched && !result.queued && !result.dropped && !result.count &&
                  !result.list.length);
        }
    CHECK(only_got("", 3, ""));
    CHECK(node.hub.channels.clients.count == 2 && node.hub.channels.names.count == 2);
    tear_down(3);
}

/* --- the end of a client --------------------------------------------------------------------- */

static void a_client_is_closed_by_command(void)
{
    static const struct {
        unsigned code;
        const char *reason;
    } rows[] = {{1000, ""}, {3000, "bye"}, {4999, "\xc3\xa9\xe2\x82\xac"}};

    set_up(1);
    bind_all(1, "g");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct test_client *client = &clients[1];
        struct command command;

        arrive(client, STR("shop"));
        CHECK(succeeds(bind_user(client, "g", "u", "e")));
        CHECK(got_text(&client->far, notice(NOTICE_ONLINE, client->id, "u", "e", "g")));
        far_forget(&clients[0].far);
        command = about_client(COMMAND_CLOSE_CLIENT, "shop", id_of(client));
        command.close_code = rows[i].code;
        command.reason = str_from(rows[i].reason);
        apply_only(send_to_client("shop", id_of(client), "1"));
        CHECK(succeeds(command));
        CHECK(client->conn.close_queued && !client->conn.client && !client->conn.broken);
        CHECK(apply(command)->code == RESULT_OFFLINE);
        /* what was queued before leaves before, and nothing follows */
        CHECK(hub_queue_frame(&node.hub, &client->conn, 1, STR("late")));
        flush();
        CHECK(got_text(&client->far, pushed("1")));
        CHECK(got_close(&client->far, rows[i].code, rows[i].reason));
        CHECK(only_got("a", 2, notice(NOTICE_OFFLINE, client->id, "u", "e", "g")));
        depart(client);
    }
    tear_down(1);
}

/* A connection that breaks in the middle of a send takes nothing from the others, and what it was
 * to get is freed. */
static void a_broken_connection_is_not_slow(void)
{
    set_up(3);
    bind_all(3, "g");
    node.config.send_queue = 1;
    far_close(&clients[1].far);
    for (int i = 0; i < 3; i++) {
        apply_only(send_to_group("shop", "g", textf("%d", i)));
        CHECK(result.matched == 3 && result.queued == 3 && result.dropped == 0);
    }
    CHECK(clients[1].conn.broken && clients[1].conn.client && !clients[1].conn.first);
    flush();
    for (int i = 0; i < 3; i++) {
        CHECK(got_text(&clients[0].far, pushed(textf("%d", i))));
        CHECK(got_text(&clients[2].far, pushed(textf("%d", i))));
    }
    leave(&clients[1]);
    CHECK(got_text(&clients[0].far, notice(NOTICE_OFFLINE, clients[1].id, "", "", "g")));
    tear_down(3);
}

/* Frames queued outside of sends keep the limit as well, and their sender may end the client. A
 * pong takes the place of the one before. */
static void a_full_queue_is_reported(void)
{
    struct test_client *client = &clients[0];

    set_up(2);
    bind_all(2, "g");
    node.config.send_queue = 10;
    CHECK(hub_queue_frame(&node.hub, &client->conn, 10, STR("pong payload")));
    client->conn.want_write = true; /* as if the socket took no more */
    CHECK(hub_queue_frame(&node.hub, &client->conn, 10, STR("another")));
    CHECK(client->conn.queued == 2 + 7 && !client->conn.ring);
    CHECK(!hub_queue_frame(&node.hub, &client->conn, 9, STR("a ping")));
    CHECK(client->conn.client && !client->conn.close_queued);
    hub_end_client(&node.hub, client->conn.client, HUB_END_SLOW, WS_CLOSE_TRY_LATER, STR("slow"));
    CHECK(!client->conn.client && client->conn.close_queued);
    pump(client);
    flush();
    CHECK(got_close(&client->far, 1013, "slow") && got_nothing(&client->far));
    CHECK(got_text(&clients[1].far, notice(NOTICE_OFFLINE, client->id, "", "", "g")));
    tear_down(2);
}

/* --- slow clients ---------------------------------------------------------------------------- */

#define QUEUE 10000

/* A long text as JSON. */
static const char *long_text(void)
{
    static char text[1000];

    memset(text, 'b', sizeof text - 1);
    text[0] = text[sizeof text - 2] = '"';
    return text;
}

static void shrink_buffer(struct test_client *client)
{
    int bytes = 4096;

    CHECK(setsockopt(client->conn.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
}

/* Sends long_text to the group until somebody is dropped; `readers` read meanwhile. Returns how
 * often. */
static int send_until_one_drops(const char *readers, const char *text)
{
    int sends = 0;

    do {
        apply(send_to_group("shop", "g", long_text()));
        CHECK(result.matched == 3 && result.queued + result.dropped == 3);
        for (const char *letter = readers; *letter; letter++)
            CHECK(got_text(&clients[*letter - 'a'].far, text));
    } while (++sends < 1000 && !result.dropped);
    return sends;
}

static void a_slow_client_is_closed_alone(void)
{
    struct test_client *slow = &clients[1];
    const char *text;
    struct far_frame frame = {0};
    int sends, whole = 0;

    set_up(3);
    bind_all(3, "g");
    node.config.send_queue = QUEUE;
    shrink_buffer(slow);
    text = pushed(long_text());
    sends = send_until_one_drops("ac", text);
    CHECK(sends > QUEUE / 1000 && sends < 200);
    CHECK(result.code == RESULT_SUCCESS && result.dropped == 1 && result.queued == 2);
    CHECK(!slow->conn.client && slow->conn.close_queued && slow->conn.queued < 2000);
    for (int i = 0; i < 3; i += 2) {
        CHECK(got_text(&clients[i].far, notice(NOTICE_OFFLINE, slow->id, "", "", "g")));
        CHECK(got_nothing(&clients[i].far));
    }
    CHECK(is_gone(slow) && node_logged(slow->id) && node_logged("127.0.0.1"));
    pump(slow); /* what had begun to leave is whole, the rest of the queue is gone */
    while (far_next(&slow->far, &frame) && frame.opcode == 1) {
        CHECK(same(frame.payload, str_from(text)));
        whole++;
    }
    CHECK(frame.opcode == 8 && same(frame.payload, STR("\x03\xf5slow")));
    CHECK(whole > 0 && whole <= sends - QUEUE / 1100);
    tear_down(3);
}

/* Fills a client's socket and queue so that the next frame finds it slow. */
static void fill_queue(struct test_client *client)
{
    shrink_buffer(client);
    for (int i = 0; i < 1000 && conn_cost(&client->conn) < QUEUE; i++)
        CHECK(succeeds(send_to_client("shop", id_of(client), long_text())));
    CHECK(client->conn.want_write && conn_cost(&client->conn) >= QUEUE);
}

/* An id that stands twice, in whatever spelling, gets one frame; so it does in the next send, too.
 */
static void an_id_twice_gets_one_frame(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1");
    struct str a;

    set_up(2);
    a = id_of(&clients[0]);
    command.clients = str_from(textf("[\"%s\",\"%s\", \"\\u%04x%s\",\"none\",\"%s\",\"none\"]",
                                     a.at, clients[1].id, (unsigned)a.at[0], a.at + 1, a.at));
    for (int i = 0; i < 2; i++) {
        CHECK(succeeds(command) && result.matched == 2 && result.queued == 2);
        CHECK(result.count == 2 && same(str_of(&result.list), STR("\"none\",\"none\"")));
        for (int who = 0; who < 2; who++) {
            CHECK(got_text(&clients[who].far, pushed("1")) && got_nothing(&clients[who].far));
            CHECK(!clients[who].conn.client ||
                  succeeds(send_to_client("shop", id_of(&clients[who]), "2")));
            far_forget(&clients[who].far);
        }
    }
    tear_down(2);
}

/* A user is taken off by an empty name, and by no other bind. */
static void a_user_is_taken_off(void)
{
    struct command command, send = send_to(COMMAND_SEND_TO_USER, "shop", "1");

    set_up(2);
    send.user = STR("u");
    for (int i = 0; i < 2; i++)
        CHECK(succeeds(bind_user(&clients[i], "g", "u", "e")));
    CHECK(node.hub.kinds[CHANNEL_USER] == 1);
    CHECK(succeeds(bind_to("shop", &clients[0], "h")));
    CHECK(succeeds(send) && result.matched == 2);
    command = bind_user(&clients[0], "g", "", NULL);
    CHECK(succeeds(command) && succeeds(command)); /* a second time there is nothing left */
    CHECK(succeeds(send) && result.matched == 1);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(&clients[0]))));
    CHECK(contains(str_of(&result.list), "\"userId\":\"\",\"extend\":\"e\""));
    command = bind_user(&clients[1], "g", "", "");
    CHECK(succeeds(command) && node.hub.kinds[CHANNEL_USER] == 0);
    CHECK(succeeds(send) && result.matched == 0);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(&clients[1]))));
    CHECK(contains(str_of(&result.list), "\"userId\":\"\",\"extend\":\"\""));
    CHECK(succeeds(bind_user(&clients[0], "g", "v", NULL)) && node.hub.kinds[CHANNEL_USER] == 1);
    tear_down(2);
}

static void a_send_to_a_slow_client_fails(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1");
    struct str id;

    set_up(3);
    node.config.send_queue = QUEUE;
    fill_queue(&clients[0]);
    fill_queue(&clients[1]);
    CHECK(apply(send_to_client("shop", id_of(&clients[0]), "1"))->code == RESULT_OFFLINE);
    CHECK(contains(str_from(result.error), "slow"));
    CHECK(result.matched == 1 && result.queued == 0 && result.dropped == 1);
    CHECK(apply(send_to_client("shop", id_of(&clients[0]), "1"))->matched == 0);
    CHECK(same(str_from(result.error), STR("client not online")));
    command.clients = ids_of("cbb");
    id = id_of(&clients[1]);
    CHECK(succeeds(command) && result.matched == 2 && result.queued == 1);
    CHECK(result.dropped == 1 && result.count == 1);
    CHECK(same(str_of(&result.list), str_from(textf("\"%s\"", id.at))));
    CHECK(got_text(&clients[2].far, pushed("1")) && got_nothing(&clients[2].far));
    tear_down(3);
}

/* --- once ------------------------------------------------------------------------------------ */

static struct command with_once(struct command command, const char *id)
{
    command.once = true;
    command.message_id = str_from(textf("\"%s\"", id));
    return command;
}

static const char *pushed_once(const char *data, const char *id)
{
    return textf("{\"code\":1,\"msg\":\"m\",\"data\":%s,\"messageId\":\"%s\"}", data, id);
}

/* Does a send that is repeated: a success, of which nobody gets anything. */
static bool is_repeated(struct command command)
{
    return succeeds(command) && result.repeated && !result.matched && !result.count &&
           only_got("", 4, "");
}

/* The same messageId, and the same name, for targets of each kind: each gets the message, and not
 * again. */
static void each_target_gets_a_send_once(void)
{
    static const struct {
        enum command_kind kind;
        const char *reached;
    } rows[] = {
        {COMMAND_SEND_TO_CLIENT, "a"},
        {COMMAND_SEND_TO_GROUP, "abc"},
        {COMMAND_SEND_TO_USER, "ab"},
        {COMMAND_SEND_TO_SYSTEM, "abcd"},
    };
    struct command commands[COUNT(rows)], other;

    set_up_groups();
    CHECK(succeeds(bind_user(&clients[0], "g", "g", NULL)));
    CHECK(succeeds(bind_user(&clients[1], "g", "g", NULL)));
    CHECK(node.hub.once.capacity == 0); /* no memory without use */
    for (size_t i = 0; i < COUNT(rows); i++) {
        commands[i] = with_once(send_to(rows[i].kind, "shop", "1"), "m");
        if (rows[i].kind == COMMAND_SEND_TO_CLIENT)
            commands[i].client = quoted(id_of(&clients[0]));
        if (rows[i].kind == COMMAND_SEND_TO_GROUP)
            commands[i].group = STR("g");
        if (rows[i].kind == COMMAND_SEND_TO_USER)
            commands[i].user = STR("g");
        CHECK(succeeds(commands[i]) && !result.repeated);
        CHECK(result.matched == strlen(rows[i].reached));
        CHECK(only_got(rows[i].reached, 4, pushed_once("1", "m")));
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(is_repeated(commands[i]));
        other = commands[i];
        other.data = STR("2");
        CHECK(apply(other)->code == RESULT_MALFORMED && !result.repeated && only_got("", 4, ""));
        CHECK(same(str_from(result.error), STR("messageId was used for another message")));
        CHECK(is_repeated(commands[i]));
    }
    CHECK(node.hub.counts.repeated == 2 * COUNT(rows));
    /* without once nothing is remembered, or compared */
    commands[0].once = false;
    CHECK(succeeds(commands[0]) && !result.repeated && only_got("a", 4, pushed_once("1", "m")));
    tear_down(4);
}

/* A group of no members is a target; so is a client that has left since. */
static void a_target_need_not_be_there(void)
{
    struct command command = with_once(send_to_group("shop", "none", "1"), "m");

    set_up(2);
    CHECK(succeeds(command) && !result.repeated && !result.matched);
    CHECK(succeeds(bind_to("shop", &clients[0], "none")));
    far_forget(&clients[0].far);
    CHECK(succeeds(command) && result.repeated && only_got("", 2, ""));
    command = with_once(send_to_client("shop", id_of(&clients[0]), "1"), "m");
    CHECK(succeeds(command) && only_got("a", 2, pushed_once("1", "m")));
    leave(&clients[0]);
    CHECK(succeeds(command) && result.repeated && !result.matched);
    command.data = STR("2");
    CHECK(apply(command)->code == RESULT_MALFORMED);
    command = with_once(command, "m2");
    CHECK(apply(command)->code == RESULT_OFFLINE && !result.repeated);
    CHECK(apply(command)->code == RESULT_OFFLINE && !result.repeated);
    tear_down(2);
}

/* Of several clients each is a target: those that have got it are skipped, whichever call it was
 * in; those that have got other content have failed. */
static void each_of_several_clients_gets_a_send_once(void)
{
    struct command command = with_once(send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1"), "m");
    struct command other;

    set_up(4);
    CHECK(succeeds(with_once(send_to_client("shop", id_of(&clients[1]), "1"), "m")));
    CHECK(succeeds(with_once(send_to_client("shop", id_of(&clients[2]), "2"), "m")));
    for (size_t i = 0; i < 4; i++)
        far_forget(&clients[i].far);
    command.clients = ids_of("abca");
    CHECK(succeeds(command) && result.repeated && result.matched == 1 && result.count == 1);
    CHECK(same(str_of(&result.list), quoted(id_of(&clients[2])).text));
    CHECK(only_got("a", 4, pushed_once("1", "m")));
    command.clients = ids_of("abd");
    CHECK(succeeds(command) && result.repeated && result.matched == 1 && !result.count);
    CHECK(only_got("d", 4, pushed_once("1", "m")));
    CHECK(is_repeated(command));
    CHECK(is_repeated(with_once(send_to_client("shop", id_of(&clients[3]), "1"), "m")));
    other = command;
    other.system = STR("other");
    CHECK(succeeds(other) && result.count == 3 && !result.repeated);
    tear_down(4);
}

/* A client that is too slow has not got it. */
static void a_slow_client_has_not_got_it(void)
{
    struct command command;

    set_up(3);
    node.config.send_queue = QUEUE;
    fill_queue(&clients[0]);
    fill_queue(&clients[1]);
    command = with_once(send_to_client("shop", id_of(&clients[0]), "1"), "m");
    CHECK(apply(command)->code == RESULT_OFFLINE && result.dropped == 1);
    CHECK(apply(command)->code == RESULT_OFFLINE && !result.repeated);
    command = with_once(send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1"), "m");
    command.clients = ids_of("bc");
    CHECK(succeeds(command) && result.count == 1 && result.queued == 1);
    command.clients = ids_of("b");
    CHECK(succeeds(command) && result.count == 1 && !result.repeated);
    CHECK(got_text(&clients[2].far, pushed_once("1", "m")) && got_nothing(&clients[2].far));
    tear_down(3);
}

/* After once_ttl, and once_max newer ones, a send is new. */
static void sends_are_forgotten(void)
{
    struct command command = with_once(send_to_group("shop", "g", "1"), "m");

    set_up_groups();
    node.config.once_max = 10;
    node.config.once_ttl = 2500;
    CHECK(succeeds(command) && only_got("abc", 4, pushed_once("1", "m")));
    node.hub.now_ms += 2499;
    CHECK(is_repeated(command));
    node.hub.now_ms++;
    CHECK(succeeds(command) && only_got("abc", 4, pushed_once("1", "m")));
    for (int i = 0; i < 9; i++)
        CHECK(succeeds(with_once(send_to_group("shop", "none", "1"), textf("%d", i))));
    CHECK(is_repeated(command));
    CHECK(succeeds(with_once(send_to_group("shop", "none", "1"), "9")));
    CHECK(succeeds(command) && only_got("abc", 4, pushed_once("1", "m")));
    tear_down(4);
}

enum trigger { BY_SEND, BY_LEAVING, BY_CLOSING, BY_UNBINDING, BY_BINDING };

static void cause(enum trigger trigger)
{
    struct command command = about_client(COMMAND_CLOSE_CLIENT, "shop", id_of(&clients[0]));

    command.close_code = 1000;
    if (trigger == BY_SEND)
        CHECK(apply(send_to_client("shop", id_of(&clients[0]), "1"))->dropped == 1);
    else if (trigger == BY_LEAVING)
        leave(&clients[0]);
    else if (trigger == BY_CLOSING)
        CHECK(succeeds(command));
    else if (trigger == BY_UNBINDING)
        CHECK(succeeds(unbind_from("shop", &clients[0], "g")));
    else
        CHECK(succeeds(bind_to("shop", &clients[6], "g")));
}

/* The notice of one slow client's end finds the next: a to e go, each once; f, who reads, is
 * notified of each of them. */
static void check_cascade(enum trigger trigger)
{
    unsigned notified[7] = {0};
    struct far_frame frame = {0};

    set_up(7);
    bind_all(6, "g");
    node.config.send_queue = QUEUE;
    for (size_t i = trigger == BY_SEND || trigger == BY_BINDING ? 0 : 1; i < 5; i++)
        fill_queue(&clients[i]);
    cause(trigger);
    while (far_next(&clients[5].far, &frame))
        for (size_t i = 0; i < 7; i++)
            for (unsigned code = NOTICE_ONLINE; code <= NOTICE_OFFLINE; code++)
                notified[i] +=
                    str_equal(frame.payload, str_from(notice(code, clients[i].id, "", "", "g")));
    for (size_t i = 0; i < 5; i++)
        CHECK(notified[i] == 1 && (trigger == BY_UNBINDING && i == 0) == !is_gone(&clients[i]));
    CHECK(notified[5] == 0 && notified[6] == (trigger == BY_BINDING));
    CHECK(!is_gone(&clients[5]) && !is_gone(&clients[6]));
    CHECK(succeeds(list_of("shop", "g")) && result.count == 1u + (trigger == BY_BINDING));
    tear_down(7);
}

static void closing_one_slow_client_finds_the_next(void)
{
    for (enum trigger trigger = BY_SEND; trigger <= BY_BINDING; trigger++)
        check_cascade(trigger);
}

/* The last two of a group are slow at once: there is no member left to notify. */
static void a_group_of_slow_clients_is_dropped(void)
{
    set_up(2);
    bind_all(2, "g");
    node.config.send_queue = QUEUE;
    fill_queue(&clients[0]);
    fill_queue(&clients[1]);
    apply(send_to_group("shop", "g", "1"));
    CHECK(result.matched == 2 && result.queued == 0 && result.dropped == 2);
    CHECK(node.hub.channels.clients.count == 0 && node.hub.channels.names.count == 0);
    tear_down(2);
}

/* With the system as scope a newcomer is notified of itself; one whose socket takes nothing may be
 * too slow even for that. */
static void a_new_client_may_be_slow(void)
{
    struct test_client *client = &clients[2];

    set_up(2);
    node.config.scope = NOTICE_SYSTEM;
    node.config.send_queue = 10;
    conn_open(&client->conn, far_open(&client->far), &node.shared);
    client->conn.want_write = true;
    CHECK(hub_connect(&node.hub, &client->conn, &in_shop));
    CHECK(!client->conn.client && client->conn.close_queued &&
          node.hub.channels.clients.count == 2);
    flush();
    for (int i = 0; i < 2; i++) {
        struct far_frame frame = {0};

        CHECK(far_next(&clients[i].far, &frame) && contains(frame.payload, "client online"));
        CHECK(far_next(&clients[i].far, &frame) && contains(frame.payload, "client offline"));
        CHECK(got_nothing(&clients[i].far));
    }
    pump(client);
    CHECK(got_close(&client->far, 1013, "slow") && got_nothing(&client->far));
    tear_down(3);
}

/* --- what is counted ------------------------------------------------------------------------- */

static uint64_t closes_of(unsigned code)
{
    size_t place = 0;

    while (place < HUB_CLOSE_CODES && hub_close_codes[place] != code)
        place++;
    return node.hub.counts.closes[place];
}

static uint64_t closes_in_all(void)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < COUNT(node.hub.counts.closes); i++)
        sum += node.hub.counts.closes[i];
    return sum;
}

/* Each end is counted once, under its code, and has a line of its own. */
static void ends_are_counted_by_code(void)
{
    static const unsigned codes[] = {1000, 1001, 1002, 1003, 1005, 1007, 1008,
                                     1009, 1011, 1013, 3000, 4000, 4999};
    uint64_t ends = 0;

    set_up(0);
    for (size_t i = 0; i < COUNT(codes); i++)
        for (int closed = 0; closed < 2; closed++) {
            struct test_client *client = &clients[0];
            const char *reason = closed ? "closed by the client" : "because \"x\"";

            arrive(client, STR("shop"));
            node.hub.now += 61;
            if (closed)
                hub_end_client(&node.hub, client->conn.client, HUB_END_PEER, codes[i],
                               STR("closed by the client"));
            else
                hub_end_client(&node.hub, client->conn.client, HUB_END_CLOSED, codes[i],
                               str_from("because \"x\""));
            ends++;
            CHECK(closes_of(codes[i]) ==
                  (codes[i] >= 3000 ? 2 * (i - 10) : 0) + 1 + (uint64_t)closed);
            CHECK(closes_in_all() == ends);
            depart(client); /* which is no other end */
            CHECK(closes_in_all() == ends);
            CHECK(node_logged(
                textf(" info client closed client=\"%s\" system=\"shop\" "
                      "remote=\"127.0.0.1\" code=%u reason=\"%s\" seconds=61 queued=0\n",
                      client->id, codes[i], closed ? reason : "because \\\"x\\\"")));
        }
    arrive(&clients[0], STR("shop"));
    hub_end_client(&node.hub, clients[0].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("reset"));
    CHECK(closes_of(WS_CLOSE_ABNORMAL) == 1 && closes_in_all() == ends + 1);
    CHECK(node_logged("info client lost") && node_logged(" code=1006 reason=\"reset\" seconds=0"));
    depart(&clients[0]);
    arrive(&clients[0], STR("shop"));
    hub_end_client(&node.hub, clients[0].conn.client, HUB_END_CLOSED, 1000, (struct str){0});
    CHECK(node_logged(" code=1000 reason=\"\" seconds=0 queued=0\n"));
    CHECK(node.hub.counts.slow == 0);
    tear_down(1);
}

/* Ids, notices and pushes, each for each of its clients; pongs and refusals are no messages. */
static void messages_are_counted(void)
{
    set_up(3);
    CHECK(node.hub.counts.sent == 3);
    for (int i = 0; i < 3; i++)
        CHECK(succeeds(bind_to("shop", &clients[i], "g")));
    CHECK(node.hub.counts.sent == 3 + 3 + 2 + 1);
    apply(send_to_group("shop", "g", "1"));
    CHECK(node.hub.counts.sent == 12);
    apply(send_to_group("shop", "none", "1"));
    apply(send_to_client("shop", STR("0123456789abcdef"), "1"));
    CHECK(node.hub.counts.sent == 12);
    apply(send_to_client("shop", id_of(&clients[0]), "1"));
    CHECK(node.hub.counts.sent == 13);
    hub_queue_frame(&node.hub, &clients[0].conn, WS_PONG, STR("x"));
    CHECK(node.hub.counts.sent == 13);
    node.config.scope = NOTICE_OFF;
    leave(&clients[0]);
    CHECK(node.hub.counts.sent == 13);
    node.config.scope = NOTICE_GROUP;
    leave(&clients[1]); /* one is left, and is notified */
    CHECK(node.hub.counts.sent == 14 && node.hub.counts.dropped == 0);
    tear_down(3);
}

/* A slow client is counted as dropped, and closed, once. */
static void slow_clients_are_counted(void)
{
    uint64_t sent;
    unsigned queued;

    set_up(3);
    node.config.send_queue = QUEUE;
    node.config.scope = NOTICE_OFF;
    for (int i = 0; i < 3; i++)
        CHECK(succeeds(bind_to("shop", &clients[i], "g")));
    fill_queue(&clients[0]);
    fill_queue(&clients[1]);
    CHECK(node.hub.counts.dropped == 0 && node.hub.counts.slow == 0);
    sent = node.hub.counts.sent;
    queued = clients[1].conn.queued;
    apply(send_to_group("shop", "g", "1"));
    CHECK(node.hub.counts.dropped == 2 && node.hub.counts.slow == 2);
    CHECK(node.hub.counts.sent == sent + 1);
    CHECK(closes_of(1013) == 2 && closes_in_all() == 2);
    CHECK(node_logged(" warn client closed: it reads too slowly client="));
    CHECK(node_logged(textf(" code=1013 reason=\"slow\" seconds=0 queued=%u\n", queued)));
    fill_queue(&clients[2]);
    hub_end_client(&node.hub, clients[2].conn.client, HUB_END_SLOW, WS_CLOSE_TRY_LATER,
                   STR("slow"));
    CHECK(node.hub.counts.dropped == 2 && node.hub.counts.slow == 3 && closes_of(1013) == 3);
    tear_down(3);
    CHECK(node.hub.kinds[0] + node.hub.kinds[1] + node.hub.kinds[2] == 0);
}

/* --- the end of the hub ---------------------------------------------------------------------- */

/* --- a random walk --------------------------------------------------------------------------- */

#define WALKERS 20
#define GROUPS 4
#define USERS 3
#define WALK 2500

/* What the hub should know of a client, and what is to arrive there after the present step. */
struct walker {
    bool online;
    unsigned system, user; /* user 0 is none */
    char extend[8];
    bool in[GROUPS];
    int list[1 + GROUPS]; /* groups in the order in which the hub lists them; USER_PLACE */
    unsigned listed;
    const char *expected[GROUPS];
    unsigned expected_count;
};

#define USER_PLACE (-1) /* of the user, who stands first once there is one */

struct walk {
    uint64_t state;
    struct test_client clients[WALKERS];
    struct walker walkers[WALKERS];
};

static struct walk walk;

static const char *const walk_systems[] = {"shop", "other"};
static const char *const walk_groups[GROUPS] = {"g0", "g1", "g2", "g3"};
static const char *const walk_users[USERS + 1] = {"", "u1", "u2", "u3"};

static unsigned draw(unsigned below)
{
    walk.state = walk.state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(walk.state >> 33) % below;
}

static const char *walk_notice(size_t who, unsigned code, int group)
{
    const struct walker *walker = &walk.walkers[who];

    return notice(code, walk.clients[who].id, walk_users[walker->user], walker->extend,
                  group < 0 ? NULL : walk_groups[group]);
}

/* Expects a frame at everybody of a system, or of one of its groups. */
static void expect_at(unsigned system, int group, const char *text)
{
    for (size_t i = 0; i < WALKERS; i++) {
        struct walker *walker = &walk.walkers[i];

        if (walker->online && walker->system == system && (group < 0 || walker->in[group]))
            walker->expected[walker->expected_count++] = text;
    }
}

/* The same, but for the notices about somebody in a group, or (-1) in the system. */
static void expect_notice(size_t who, unsigned code, int group)
{
    enum config_notice scope = group < 0 ? NOTICE_SYSTEM : NOTICE_GROUP;

    if (node.config.scope == scope)
        expect_at(walk.walkers[who].system, group, walk_notice(who, code, group));
}

static void walk_in(size_t who)
{
    struct walker *walker = &walk.walkers[who];

    *walker = (struct walker){.online = true, .system = draw(2)};
    if (walk.clients[who].id[0])
        depart(&walk.clients[who]);
    arrive(&walk.clients[who], str_from(walk_systems[walker->system]));
    expect_notice(who, NOTICE_ONLINE, -1);
}

/* It leaves its groups from the end of its list, and then the system. */
static void walk_out(size_t who)
{
    struct walker *walker = &walk.walkers[who];

    walker->online = false;
    while (walker->listed)
        if (walker->list[--walker->listed] != USER_PLACE)
            expect_notice(who, NOTICE_OFFLINE, walker->list[walker->listed]);
    expect_notice(who, NOTICE_OFFLINE, -1);
    if (draw(2)) {
        leave(&walk.clients[who]);
        return;
    }
    hub_end_client(&node.hub, walk.clients[who].conn.client, HUB_END_CLOSED, 1001, STR("x"));
    flush();
    CHECK(got_close(&walk.clients[who].far, 1001, "x"));
}

/* Puts the user in front, and what stood there at the end. */
static void list_user(struct walker *walker)
{
    if (!walker->user) {
        walker->list[walker->listed] = walker->list[0];
        walker->list[0] = USER_PLACE;
        walker->listed++;
    }
}

static void walk_bind(size_t who)
{
    struct walker *walker = &walk.walkers[who];
    unsigned group = draw(GROUPS), user = draw(USERS + 1);
    bool is_new = !walker->in[group];
    struct command command =
        bind_to(walk_systems[walker->system], &walk.clients[who], walk_groups[group]);

    if (is_new)
        walker->list[walker->listed++] = (int)group;
    if (user) {
        list_user(walker);
        walker->user = user;
        command.user = str_from(walk_users[user]);
        command.has_user = true;
    }
    if (draw(2)) {
        snprintf(walker->extend, sizeof walker->extend, "%.*s", (int)draw(4), "abc");
        command.extend = str_from(walker->extend);
        command.has_extend = true;
    }
    walker->in[group] = true;
    if (is_new)
        expect_notice(who, NOTICE_ONLINE, (int)group);
    CHECK(succeeds(command));
}

/* The last in the list takes the place of a group that is left. */
static void unlist(struct walker *walker, int group)
{
    unsigned place = 0;

    while (walker->list[place] != group)
        place++;
    walker->list[place] = walker->list[--walker->listed];
}

static void walk_unbind(size_t who)
{
    struct walker *walker = &walk.walkers[who];
    unsigned group = draw(GROUPS);
    bool was_in = walker->in[group];

    walker->in[group] = false;
    if (was_in) {
        unlist(walker, (int)group);
        expect_notice(who, NOTICE_OFFLINE, (int)group);
    }
    CHECK(succeeds(
        unbind_from(walk_systems[walker->system], &walk.clients[who], walk_groups[group])));
}

static void check_walk_counts(void)
{
    uint64_t expected = 0;

    for (size_t i = 0; i < WALKERS; i++)
        expected += walk.walkers[i].expected_count;
    CHECK(result.matched == expected && result.queued == expected && !result.dropped);
}

/* Sends to a group without two clients, to a user, or to a system. */
static void walk_send(void)
{
    static const enum command_kind kinds[] = {COMMAND_SEND_TO_GROUP, COMMAND_SEND_TO_USER,
                                              COMMAND_SEND_TO_SYSTEM};
    unsigned system = draw(2), group = draw(GROUPS), user = 1 + draw(USERS), kind = draw(3);
    const char *number = textf("%u", draw(1000));
    struct command command = send_to(kinds[kind], walk_systems[system], number);
    size_t out[2] = {draw(WALKERS), draw(WALKERS)};

    command.group = str_from(walk_groups[group]);
    command.user = str_from(walk_users[user]);
    expect_at(system, kind == 0 ? (int)group : -1, pushed(number));
    for (size_t i = 0; i < WALKERS && kind == 1; i++)
        if (walk.walkers[i].user != user)
            walk.walkers[i].expected_count = 0;
    if (kind == 0) {
        command.clients =
            str_from(textf("[\"%s\",\"%s\"]", walk.clients[out[0]].id, walk.clients[out[1]].id));
        walk.walkers[out[0]].expected_count = walk.walkers[out[1]].expected_count = 0;
    }
    CHECK(succeeds(command));
    check_walk_counts();
}

/* Sends to one client, perhaps not online, perhaps in the name of the other system. */
static void walk_send_to_one(size_t who)
{
    struct walker *walker = &walk.walkers[who];
    unsigned system = draw(2);
    bool reached = walker->online && walker->system == system;

    walker->expected[0] = pushed("1");
    walker->expected_count = reached;
    apply(send_to_client(walk_systems[system], id_of(&walk.clients[who]), "1"));
    CHECK(result.code == (reached ? RESULT_SUCCESS : RESULT_OFFLINE));
    check_walk_counts();
}

/* The list has each member once, in an order that is the hub's own. */
static void walk_list(void)
{
    unsigned system = draw(2), group = draw(GROUPS);
    uint64_t count = 0;
    bool good = succeeds(list_of(walk_systems[system], walk_groups[group]));

    for (size_t i = 0; i < WALKERS; i++) {
        const struct walker *walker = &walk.walkers[i];

        if (!walker->online || walker->system != system || !walker->in[group])
            continue;
        count++;
        good = good && contains(str_of(&result.list), textf("\"%s\"", walk.clients[i].id));
    }
    CHECK(good && result.count == count);
    CHECK(result.list.length == (count ? count * (HUB_ID_LENGTH + 3) - 1 : 0));
}

/* The groups come in the order of the hub's list. */
static void walk_info(size_t who)
{
    const struct walker *walker = &walk.walkers[who];
    const char *groups = "";

    for (unsigned i = 0; i < walker->listed; i++)
        if (walker->list[i] != USER_PLACE)
            groups =
                textf("%s%s\"%s\"", groups, groups[0] ? "," : "", walk_groups[walker->list[i]]);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, walk_systems[walker->system],
                                id_of(&walk.clients[who]))));
    CHECK(same(str_of(&result.list), str_from(info_of(&walk.clients[who], walk_users[walker->user],
                                                      walker->extend, groups))));
}

static void take_walk_step(void)
{
    size_t who = draw(WALKERS);
    bool online = walk.walkers[who].online;
    unsigned what = draw(10);

    if (what == 0 || (what < 5 && !online))
        online ? walk_out(who) : walk_in(who);
    else if (what < 4 && online)
        walk_bind(who);
    else if (what == 4 && online)
        walk_unbind(who);
    else if (what == 5 && online)
        walk_info(who);
    else if (what == 6)
        walk_list();
    else if (what == 7 && walk.clients[who].id[0])
        walk_send_to_one(who);
    else
        walk_send();
}

static bool walk_frames_are_right(void)
{
    bool good = true;

    for (size_t i = 0; i < WALKERS; i++) {
        struct test_client *client = &walk.clients[i];

        for (unsigned k = 0; k < walk.walkers[i].expected_count; k++)
            good = got_text(&client->far, walk.walkers[i].expected[k]) && good;
        walk.walkers[i].expected_count = 0;
        if (client->id[0])
            good = got_nothing(&client->far) && good;
    }
    return good;
}

/* True if the hub's count of each kind of channel is right. */
static bool walk_kinds_are_right(void)
{
    bool found[COUNT(walk_systems)][1 + GROUPS + USERS + 1] = {{false}};
    size_t expected[CHANNEL_GROUP + 1] = {0}, count = 0;

    for (size_t i = 0; i < WALKERS; i++) {
        const struct walker *walker = &walk.walkers[i];

        found[walker->system][0] |= walker->online;
        for (size_t k = 0; walker->online && k < GROUPS; k++)
            found[walker->system][1 + k] |= walker->in[k];
        if (walker->online && walker->user)
            found[walker->system][1 + GROUPS + walker->user] = true;
    }
    for (size_t system = 0; system < COUNT(walk_systems); system++)
        for (size_t k = 0; k < COUNT(found[0]); k++)
            expected[k == 0        ? CHANNEL_SYSTEM
                     : k <= GROUPS ? CHANNEL_GROUP
                                   : CHANNEL_USER] += found[system][k];
    for (size_t kind = 0; kind < COUNT(expected); kind++)
        count += expected[kind];
    return node.hub.channels.names.count == count &&
           memcmp(node.hub.kinds, expected, sizeof expected) == 0;
}

static void walk_about(enum config_notice scope)
{
    bool good = true;

    node_open();
    node.config.scope = scope;
    memset(&walk, 0, sizeof walk);
    walk.state = 42 + (uint64_t)scope;
    for (size_t i = 0; i < WALKERS; i++)
        walk.clients[i].far.fd = -1;
    for (int step = 0; step < WALK && good && test_good; step++) {
        take_walk_step();
        good = CHECK(walk_frames_are_right()) && CHECK(walk_kinds_are_right());
        if (!good || !test_good)
            printf("  that was step %d, scope %u\n", step, (unsigned)scope);
    }
    for (size_t i = 0; i < WALKERS; i++)
        if (walk.clients[i].id[0])
            depart(&walk.clients[i]);
    tear_down(0);
}

static void a_random_walk_follows_the_model(void)
{
    walk_about(NOTICE_GROUP);
    walk_about(NOTICE_SYSTEM);
    walk_about(NOTICE_OFF);
}

/* --- systems that are deleted ---------------------------------------------------------------- */

#define CROWD 600

static struct test_client crowd[CROWD];

static size_t crowd_online(void)
{
    size_t online = 0;

    for (size_t i = 0; i < CROWD; i++)
        online += crowd[i].conn.client != NULL;
    return online;
}

/* The clients of a deleted system are closed a few at a time, are found by nobody meanwhile, and
 * are not notified of each other; another system may have the name at once. */
static void a_deleted_system_is_closed_by_and_by(void)
{
    set_up(0);
    for (size_t i = 0; i < CROWD; i++)
        arrive(&crowd[i], STR("shop"));
    arrive(&clients[1], STR("other"));
    for (size_t i = 0; i < 20; i++)
        CHECK(succeeds(bind_user(&crowd[i], "g", "u", "e")));
    for (size_t i = 0; i < 20; i++)
        far_forget(&crowd[i].far);
    hub_delete_system(&node.hub, STR("shop"));
    hub_delete_system(&node.hub, STR("shop"));
    hub_delete_system(&node.hub, STR("nobody"));
    CHECK(crowd_online() == CROWD && hub_count_clients(&node.hub, STR("shop")) == 0);
    CHECK(apply_only(send_to_client("shop", id_of(&crowd[0]), "1"))->code == RESULT_OFFLINE);
    CHECK(apply_only(send_to(COMMAND_SEND_TO_SYSTEM, "shop", "1"))->matched == 0);
    CHECK(apply_only(send_to_group("shop", "g", "1"))->matched == 0);
    CHECK(apply_only(list_of("shop", "g"))->count == 0);
    CHECK(apply_only(bind_to("shop", &crowd[30], "g"))->code == RESULT_OFFLINE);
    CHECK(hub_flush_notices(&node.hub, SIZE_MAX));
    CHECK(crowd_online() > 0 && crowd_online() < CROWD);
    /* the next system of this name, and its group, have nothing to do with those */
    conn_open(&clients[0].conn, far_open(&clients[0].far), &node.shared);
    CHECK(hub_connect(&node.hub, &clients[0].conn, &in_shop));
    send_queued();
    CHECK(got_id_frame(&clients[0].far, clients[0].id));
    apply_only(bind_to("shop", &clients[0], "g"));
    CHECK(apply_only(send_to(COMMAND_SEND_TO_SYSTEM, "shop", "1"))->matched == 1);
    CHECK(apply_only(send_to_group("shop", "g", "2"))->matched == 1);
    flush();
    CHECK(crowd_online() == 0);
    for (size_t i = 0; i < CROWD; i++)
        CHECK(got_close(&crowd[i].far, 4401, "system deleted") && got_nothing(&crowd[i].far));
    far_forget(&clients[0].far);
    CHECK(succeeds(send_to_group("shop", "g", "3")));
    CHECK(only_got("a", 2, pushed("3")) && clients[1].conn.client);
    for (size_t i = 0; i < CROWD; i++)
        depart(&crowd[i]);
    tear_down(2);
}

/* Notices that were pending for the system are dropped, whether its clients end before their turn
 * or with the hub. */
static void notices_of_a_deleted_system_are_dropped(void)
{
    for (int ends = 0; ends < 2; ends++) {
        set_up(0);
        node.config.scope = NOTICE_SYSTEM;
        for (size_t i = 0; i < 3; i++)
            arrive(&clients[i], STR("shop"));
        for (size_t i = 0; i < 3; i++)
            far_forget(&clients[i].far);
        hub_end_client(&node.hub, clients[0].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       STR("test"));
        hub_delete_system(&node.hub, STR("shop"));
        if (ends) /* before the notice has its turn */
            for (size_t i = 1; i < 3; i++)
                hub_end_client(&node.hub, clients[i].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                               STR("test"));
        flush();
        for (size_t i = 1; i < 3; i++)
            CHECK((ends || got_close(&clients[i].far, 4401, "system deleted")) &&
                  got_nothing(&clients[i].far));
        tear_down(3);
    }
    /* the hub is closed meanwhile (the address sanitizer looks for what is left) */
    set_up(2);
    hub_end_client(&node.hub, clients[0].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL, STR("test"));
    hub_delete_system(&node.hub, STR("shop"));
    hub_close(&node.hub);
    clients[1].conn.client = NULL;
    node.hub.channels = (struct channels){0};
    tear_down(2);
}

/* --- a hub in a cluster ---------------------------------------------------------------------- */

#define NOTES 4096

/* What the hooks were told of a client, until the test takes it. */
struct note {
    enum presence_kind kind;
    bool notified;
    char system[64], group[64], id[HUB_ID_TEXT + 3], json[512];
};

/* A channel that came (exists) or went. */
struct change {
    enum channel_kind kind;
    bool exists;
    char system[64], name[64];
};

/* The cluster of a test. */
static struct {
    struct note notes[NOTES];
    size_t first, count;
    struct change changes[NOTES];
    size_t changes_first, changes_count;
    bool cannot_seal;
} seen;

static void keep_text(char *room, size_t size, struct str text)
{
    if (CHECK(text.length < size))
        snprintf(room, size, "%.*s", (int)text.length, text.length ? text.at : "");
}

/* The id of the client with this number on this node. */
static const char *id_of_number(uint64_t number)
{
    return textf("here%064llx", (unsigned long long)number);
}

static bool seal_number(void *state, uint64_t number, char id[HUB_ID_TEXT])
{
    CHECK(state == &seen);
    memcpy(id, id_of_number(number), HUB_ID_TEXT);
    return !seen.cannot_seal;
}

static bool open_number(void *state, struct json_value id, uint64_t *number)
{
    char room[HUB_ID_TEXT];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    unsigned char bytes[32];

    CHECK(state == &seen);
    if (!json_decode_string(id, &text) || text.length != HUB_ID_TEXT ||
        memcmp(text.at, "here", 4) != 0 ||
        !str_read_hex((struct str){text.at + 4, 64}, bytes, sizeof bytes))
        return false;
    for (size_t i = 24; i < 32; i++)
        *number = *number << 8 | bytes[i];
    return true;
}

static void note_channel(void *state, enum channel_kind kind, struct str system, struct str name,
                         bool exists)
{
    struct change *change = &seen.changes[seen.changes_count];

    if (!CHECK(state == &seen && seen.changes_count < NOTES))
        return;
    seen.changes_count++;
    *change = (struct change){.kind = kind, .exists = exists};
    keep_text(change->system, sizeof change->system, system);
    keep_text(change->name, sizeof change->name, name);
}

static void note_presence(void *state, const struct hub_presence *presence)
{
    struct note *note = &seen.notes[seen.count];

    if (!CHECK(state == &seen && seen.count < NOTES))
        return;
    seen.count++;
    *note = (struct note){.kind = presence->kind, .notified = presence->notify};
    keep_text(note->system, sizeof note->system, presence->system);
    keep_text(note->group, sizeof note->group, presence->group);
    keep_text(note->id, sizeof note->id, presence->id);
    keep_text(note->json, sizeof note->json, presence->client_json);
}

static const struct hub_hooks hooks = {&seen, seal_number, open_number, note_channel,
                                       note_presence};

/* The next note, or NULL. */
static const struct note *next_note(void)
{
    return seen.first < seen.count ? &seen.notes[seen.first++] : NULL;
}

/* Takes all notes; how many they were. */
static size_t drop_notes(void)
{
    size_t count = seen.count - seen.first;

    seen.first = seen.count = 0;
    return count;
}

/* A hub of a cluster with the first `count` clients in the system shop. */
static void set_up_cluster(size_t count)
{
    node_open();
    memset(&seen, 0, sizeof seen);
    CHECK(!node.hub.hooks);
    node.hub.hooks = &hooks;
    for (size_t i = 0; i < count; i++)
        arrive(&clients[i], STR("shop"));
}

/* The channels that came must have gone. */
static void tear_down_cluster(size_t count)
{
    int open = 0;

    for (size_t i = 0; i < count; i++)
        depart(&clients[i]);
    for (size_t i = 0; i < seen.changes_count; i++)
        open += seen.changes[i].exists ? 1 : -1;
    CHECK(open == 0);
    buf_free(&result.list);
    node_close();
}

/* True if no client has got anything. */
static bool none_got(size_t count)
{
    bool good = true;

    flush();
    for (size_t i = 0; i < count; i++)
        good = got_nothing(&clients[i].far) && good;
    return good;
}

/* --- their ids ------------------------------------------------------------------------------- */

/* A client is online in its own system only; the cluster's hook opens its id. */
static void online_means_on_this_node(void)
{
    struct json_value ids[2];
    uint64_t number = 0;

    set_up_cluster(2);
    for (size_t i = 0; i < 2; i++) {
        ids[i] = quoted(id_of(&clients[i]));
        CHECK(hub_is_online(&node.hub, STR("shop"), ids[i]));
        CHECK(!hub_is_online(&node.hub, STR("other"), ids[i]));
        CHECK(!hub_is_online(&node.hub, STR(""), ids[i]));
        CHECK(open_number(&seen, ids[i], &number) && number != 0);
        CHECK(!hub_is_online(&node.hub, STR("shop"), quoted(str_from(id_of_number(number + 1)))));
        /* the number alone, as on a node that is alone, is no id */
        CHECK(!hub_is_online(&node.hub, STR("shop"),
                             quoted(str_from(textf("%016llx", (unsigned long long)number)))));
    }
    depart(&clients[0]);
    CHECK(!hub_is_online(&node.hub, STR("shop"), ids[0]));
    CHECK(hub_is_online(&node.hub, STR("shop"), ids[1]));
    arrive(&clients[0], STR("shop"));
    CHECK(!hub_is_online(&node.hub, STR("shop"), ids[0]));
    tear_down_cluster(2);

    set_up(1);
    CHECK(hub_is_online(&node.hub, STR("shop"), quoted(id_of(&clients[0]))));
    CHECK(!hub_is_online(&node.hub, STR("other"), quoted(id_of(&clients[0]))));
    CHECK(!hub_is_online(&node.hub, STR("shop"), quoted(STR("0123456789abcdef"))));
    leave(&clients[0]);
    CHECK(!hub_is_online(&node.hub, STR("shop"), quoted(id_of(&clients[0]))));
    tear_down(1);
}

/* A client without an id could not be reached: it is refused, and nothing has changed. */
static void a_client_without_an_id_is_rejected(void)
{
    struct conn conn;
    struct far_end far;

    set_up_cluster(0);
    seen.cannot_seal = true;
    conn_open(&conn, far_open(&far), &node.shared);
    CHECK(!hub_connect(&node.hub, &conn, &in_shop));
    CHECK(!conn.client && node.hub.channels.clients.count == 0 &&
          node.hub.channels.names.count == 0);
    CHECK(seen.changes_count == 0 && drop_notes() == 0);
    conn_close(&conn);
    far_close(&far);
    tear_down_cluster(0);
}

/* All commands take and give the long ids. */
static void commands_use_sealed_ids(void)
{
    struct command command;
    const char *foreign = textf("\"%068d\"", 0);

    set_up_cluster(3);
    node.config.scope = NOTICE_OFF;
    for (size_t i = 0; i < 3; i++)
        CHECK(succeeds(bind_user(&clients[i], "g", "u", "e")));
    CHECK(succeeds(list_of("shop", "g")) && result.count == 3);
    CHECK(same(str_of(&result.list), str_from(textf("\"%s\",\"%s\",\"%s\"", clients[0].id,
                                                    clients[1].id, clients[2].id))));
    command = about_client(COMMAND_CLIENT_INFO, "shop", (struct str){0});
    command.client = quoted(id_of(&clients[1]));
    CHECK(succeeds(command));
    CHECK(same(str_of(&result.list),
               str_from(textf("{\"clientId\":\"%s\",\"userId\":\"u\",\"extend\":\"e\",\"groups\":"
                              "[\"g\"],\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}",
                              clients[1].id))));
    command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "2");
    command.clients = str_from(textf("[\"%s\",%s,\"x\"]", clients[0].id, foreign));
    CHECK(succeeds(command) && result.count == 2 && result.queued == 1);
    CHECK(same(str_of(&result.list), str_from(textf("%s,\"x\"", foreign))));
    CHECK(got_text(&clients[0].far, pushed("2")) && none_got(3));
    command = send_to_group("shop", "g", "3");
    command.clients = str_from(textf("[\"%s\",%s]", clients[1].id, foreign));
    CHECK(succeeds(command) && result.matched == 2);
    CHECK(got_text(&clients[0].far, pushed("3")) && got_text(&clients[2].far, pushed("3")));
    CHECK(none_got(3));
    tear_down_cluster(3);
}

/* --- channels -------------------------------------------------------------------------------- */

/* Takes the next change of a channel, which must be this one. */
static bool channel_changed(enum channel_kind kind, const char *system, const char *name,
                            bool exists)
{
    const struct change *change = &seen.changes[seen.changes_first];
    bool good = seen.changes_first < seen.changes_count && change->kind == kind &&
                change->exists == exists && strcmp(change->system, system) == 0 &&
                strcmp(change->name, name) == 0;

    if (!good)
        printf("  no change of %s %s\n", system, name);
    seen.changes_first += seen.changes_first < seen.changes_count;
    return good;
}

static bool no_channel_changed(void)
{
    return seen.changes_first == seen.changes_count;
}

/* The hook is told of a channel when its first member joins and when its last one has left. */
static void channels_come_and_go(void)
{
    set_up_cluster(0);
    arrive(&clients[0], STR("shop"));
    CHECK(channel_changed(CHANNEL_SYSTEM, "shop", "shop", true) && no_channel_changed());
    arrive(&clients[1], STR("shop")); /* the channel is there: nothing has changed */
    CHECK(no_channel_changed());
    arrive(&clients[2], STR("other"));
    CHECK(channel_changed(CHANNEL_SYSTEM, "other", "other", true) && no_channel_changed());
    CHECK(succeeds(bind_user(&clients[0], "g", "u", NULL)));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "g", true));
    CHECK(channel_changed(CHANNEL_USER, "shop", "u", true) && no_channel_changed());
    CHECK(succeeds(bind_user(&clients[1], "g", "u", NULL)) && no_channel_changed());
    CHECK(succeeds(bind_user(&clients[1], "g", "v", NULL)));
    CHECK(channel_changed(CHANNEL_USER, "shop", "v", true) && no_channel_changed());
    CHECK(succeeds(bind_user(&clients[0], "h", "v", NULL)));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "h", true));
    CHECK(channel_changed(CHANNEL_USER, "shop", "u", false) && no_channel_changed());
    CHECK(succeeds(unbind_from("shop", &clients[0], "g")) && no_channel_changed());
    CHECK(succeeds(unbind_from("shop", &clients[1], "g")));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "g", false) && no_channel_changed());
    CHECK(succeeds(unbind_from("shop", &clients[1], "never")) && no_channel_changed());
    depart(&clients[0]);
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "h", false) && no_channel_changed());
    depart(&clients[1]);
    CHECK(channel_changed(CHANNEL_USER, "shop", "v", false));
    CHECK(channel_changed(CHANNEL_SYSTEM, "shop", "shop", false) && no_channel_changed());
    depart(&clients[2]);
    CHECK(channel_changed(CHANNEL_SYSTEM, "other", "other", false) && no_channel_changed());
    tear_down_cluster(0);
}

/* --- presence -------------------------------------------------------------------------------- */

/* Takes the next note, which must be this one; the group is empty where it is the system's. */
static bool noted(enum presence_kind kind, bool notify, const char *system, const char *group,
                  size_t who, const char *user, const char *extend)
{
    const char *json = subject(clients[who].id, user, extend, group[0] ? group : NULL);
    const struct note *note = next_note();
    bool good = note && note->kind == kind && note->notified == notify &&
                same(str_from(note->system), str_from(system)) &&
                same(str_from(note->group), str_from(group)) &&
                same(str_from(note->id), quoted(id_of(&clients[who])).text) &&
                same(str_from(note->json), str_from(json));

    if (!good)
        printf("  %s, kind %d, expected %d of %s\n", note ? "another note" : "no note",
               note ? (int)note->kind : -1, (int)kind, group);
    return good;
}

static bool noted_nothing(void)
{
    const struct note *note = next_note();

    if (note)
        printf("  a note of kind %d\n", (int)note->kind);
    return !note;
}

/* A hub in a cluster sends no notices itself: the hooks reach the members on all nodes. */
static void joins_and_leaves_go_to_the_hooks(void)
{
    set_up_cluster(2);
    CHECK(noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 0, "", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)) &&
          noted_nothing()); /* it is there already */
    CHECK(succeeds(bind_user(&clients[1], "g", NULL, NULL)) &&
          succeeds(bind_user(&clients[1], "h", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 1, "", ""));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "h", 1, "", "") && noted_nothing());
    CHECK(succeeds(unbind_from("shop", &clients[1], "g")));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(succeeds(unbind_from("shop", &clients[1], "g")) &&
          succeeds(unbind_from("shop", &clients[1], "never")) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[1], "g", NULL, NULL)) && drop_notes() == 1);
    CHECK(none_got(2));
    depart(&clients[1]);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", ""));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "h", 1, "", "") && noted_nothing());
    CHECK(none_got(1));
    hub_end_client(&node.hub, clients[0].conn.client, HUB_END_CLOSED, 1001, STR("x"));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 0, "", "") && noted_nothing());
    flush();
    CHECK(got_close(&clients[0].far, 1001, "x") && none_got(1));
    tear_down_cluster(1);
}

/* Joins and leaves of a crowd are reported, with no notice to its members. */
static void a_crowd_is_reported_without_notices(void)
{
    set_up_cluster(4);
    node.config.max_members = 2;
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)) &&
          succeeds(bind_user(&clients[1], "g", NULL, NULL)));
    CHECK(drop_notes() == 2);
    for (size_t i = 2; i < 4; i++) {
        CHECK(succeeds(bind_user(&clients[i], "g", NULL, NULL)));
        CHECK(noted(PRESENCE_JOIN, false, "shop", "g", i, "", "") && noted_nothing());
    }
    CHECK(count_logged(CROWDED "group=\"g\" max_members=2\n") == 1);
    CHECK(succeeds(unbind_from("shop", &clients[3], "g")));
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "g", 3, "", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[3], "g", NULL, NULL)) && drop_notes() == 1);
    depart(&clients[3]);
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "g", 3, "", "") && noted_nothing());
    depart(&clients[2]); /* two are left */
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 2, "", "") && noted_nothing());
    CHECK(succeeds(unbind_from("shop", &clients[1], "g")));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[1], "g", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(none_got(2) && !node.hub.channels.notified.first);
    node.config.scope = NOTICE_SYSTEM;
    node.config.max_members = 1;
    arrive(&clients[2], STR("shop"));
    CHECK(noted(PRESENCE_JOIN, false, "shop", "", 2, "", "") && noted_nothing());
    depart(&clients[2]);
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "", 2, "", "") && noted_nothing());
    depart(&clients[1]);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "", 1, "", "") && noted_nothing());
    tear_down_cluster(1);
}

/* Changes of what a presence record says are reported, and nothing else; without notices. */
static void changes_of_user_and_extend_are_reported(void)
{
    set_up_cluster(1);
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)) &&
          succeeds(bind_user(&clients[0], "h", NULL, NULL)));
    CHECK(drop_notes() == 2);
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", NULL))); /* which moves g behind h */
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", ""));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "h", NULL, "red\"\x01")));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", "red\\\"\\u0001"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "red\\\"\\u0001"));
    CHECK(noted_nothing());
    /* the same again, or a part of it, changes nothing: 100 clients in 150 groups each */
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", "red\"\x01")) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "h", "ann", NULL)) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "h", NULL, "red\"\x01")) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "h", NULL, "")));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", ""));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "h", NULL, "")) && noted_nothing());
    /* the join of a new group comes first, then a refresh of all */
    CHECK(succeeds(bind_user(&clients[0], "i", "bob", "blue")));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "i", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "i", 0, "bob", "blue"));
    CHECK(noted_nothing() && none_got(1));
    CHECK(succeeds(bind_user(&clients[0], "k", "bob", "blue")));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "k", 0, "bob", "blue") && noted_nothing());
    CHECK(succeeds(unbind_from("shop", &clients[0], "k")) && drop_notes() == 1);
    /* the user is taken off */
    CHECK(succeeds(bind_user(&clients[0], "i", "", NULL)) && drop_notes() == 3);
    CHECK(succeeds(bind_user(&clients[0], "i", "", NULL)) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "i", "bob", NULL)) && drop_notes() == 3);
    /* a leave has the user and extend of before */
    depart(&clients[0]);
    {
        static const char *const groups[] = {"i", "g", "h"};
        size_t found = 0;
        const struct note *note;

        for (; (note = next_note()); found++)
            CHECK(note->kind == PRESENCE_LEAVE && note->notified &&
                  contains(str_from(note->json), "bob") && contains(str_from(note->json), "blue"));
        CHECK(found == COUNT(groups));
    }
    tear_down_cluster(0);
}

/* With the system as scope the notes are its own, and groups have none; with `off` there are none.
 */
static void reports_follow_the_scope(void)
{
    set_up_cluster(0);
    node.config.scope = NOTICE_SYSTEM;
    arrive(&clients[0], STR("shop"));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "", 0, "", "") && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)) && noted_nothing());
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", NULL)));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(unbind_from("shop", &clients[0], "g")) && noted_nothing());
    arrive(&clients[1], STR("other"));
    CHECK(noted(PRESENCE_JOIN, true, "other", "", 1, "", "") && noted_nothing());
    depart(&clients[0]);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "", 0, "ann", "") && noted_nothing());
    CHECK(none_got(0) && got_nothing(&clients[1].far));
    node.config.scope = NOTICE_OFF;
    arrive(&clients[0], STR("shop"));
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", "x")) &&
          succeeds(unbind_from("shop", &clients[0], "g")));
    depart(&clients[0]);
    depart(&clients[1]);
    CHECK(noted_nothing());
    tear_down_cluster(0);
}

/* All clients are reported again: Redis may have lost them, or this node was taken for dead. */
static void a_refresh_reports_all(void)
{
    set_up_cluster(3);
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    CHECK(noted_nothing()); /* no client is in a group */
    CHECK(succeeds(bind_user(&clients[0], "g", "ann", "x")) &&
          succeeds(bind_user(&clients[0], "h", NULL, NULL)));
    CHECK(succeeds(bind_user(&clients[1], "g", NULL, NULL)));
    for (int notify = 0; notify < 2; notify++) {
        unsigned found[3] = {0};
        const struct note *note;

        drop_notes();
        hub_refresh_presence(&node.hub, &(struct table_scan){0}, notify);
        while ((note = next_note())) {
            bool is_first = str_equal(str_from(note->id), quoted(id_of(&clients[0])).text);
            bool is_h = strcmp(note->group, "h") == 0;

            CHECK(note->kind == PRESENCE_REFRESH && note->notified == notify);
            CHECK(strcmp(note->system, "shop") == 0);
            CHECK(same(str_from(note->json),
                       str_from(is_first ? subject(clients[0].id, "ann", "x", note->group)
                                         : subject(clients[1].id, "", "", note->group))));
            CHECK(is_h ? is_first : strcmp(note->group, "g") == 0);
            found[is_first ? is_h : 2]++;
        }
        CHECK(found[0] == 1 && found[1] == 1 && found[2] == 1);
    }
    node.config.max_members = 1; /* g is a crowd now: it is reported without notices */
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    for (const struct note *note; (note = next_note());)
        CHECK(note->notified == (strcmp(note->group, "h") == 0));
    node.config.max_members = 0;
    node.config.scope = NOTICE_SYSTEM;
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, false);
    CHECK(drop_notes() >= 3);
    node.config.scope = NOTICE_OFF;
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    CHECK(noted_nothing() && none_got(3));
    tear_down_cluster(3);
}

/* A report is cut into batches, and misses none that stays although another leaves in between. */
static void a_refresh_comes_in_batches(void)
{
    struct table_scan scan = {0};
    unsigned found[2] = {0};
    size_t batches = 1;

    set_up_cluster(3);
    for (int i = 0; i < 400; i++)
        for (size_t who = 0; who < 3; who++)
            CHECK(succeeds(bind_user(&clients[who], textf("g%d", i), NULL, NULL)));
    drop_notes();
    CHECK(hub_refresh_presence(&node.hub, &scan, false));
    CHECK(seen.count >= HUB_REFRESH_BATCH && seen.count < HUB_REFRESH_BATCH + 400);
    hub_end_client(&node.hub, clients[2].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL, STR("test"));
    for (; hub_refresh_presence(&node.hub, &scan, false); batches++)
        ;
    for (const struct note *note; (note = next_note());)
        for (size_t who = 0; who < 2; who++)
            found[who] += note->kind == PRESENCE_REFRESH &&
                          str_equal(str_from(note->id), quoted(id_of(&clients[who])).text);
    CHECK(batches < 3 && found[0] >= 400 && found[1] >= 400);
    tear_down_cluster(3);
}

/* Notices of other nodes are sent where there are members, but no crowd. */
static void notices_need_members_and_no_crowd(void)
{
    set_up_cluster(3);
    CHECK(succeeds(bind_user(&clients[0], "g", NULL, NULL)) &&
          succeeds(bind_user(&clients[1], "g", NULL, NULL)));
    CHECK(succeeds(bind_user(&clients[0], "h", NULL, NULL)));
    CHECK(hub_may_notify(&node.hub, STR("shop"), STR("g")));
    CHECK(hub_may_notify(&node.hub, STR("shop"), STR("")));
    CHECK(!hub_may_notify(&node.hub, STR("shop"), STR("never")));
    CHECK(!hub_may_notify(&node.hub, STR("other"), STR("")));
    CHECK(!hub_may_notify(&node.hub, STR("other"), STR("g")));
    node.config.max_members = 2;
    CHECK(hub_may_notify(&node.hub, STR("shop"), STR("g")));
    CHECK(!hub_may_notify(&node.hub, STR("shop"), STR(""))); /* three */
    node.config.max_members = 1;
    CHECK(!hub_may_notify(&node.hub, STR("shop"), STR("g")));
    CHECK(hub_may_notify(&node.hub, STR("shop"), STR("h")));
    node.config.max_members = 0;
    CHECK(succeeds(unbind_from("shop", &clients[0], "h")));
    CHECK(!hub_may_notify(&node.hub, STR("shop"), STR("h")));
    tear_down_cluster(3);
}

#define RUN(test) test_run(#test, test)

/* In a cluster the hooks are told of each leave, to notify nobody. */
static void a_deleted_system_is_reported(void)
{
    const struct note *note;

    set_up_cluster(2);
    CHECK(succeeds(bind_to("shop", &clients[0], "g")) &&
          succeeds(bind_to("shop", &clients[1], "g")));
    drop_notes();
    hub_delete_system(&node.hub, STR("shop"));
    flush();
    for (size_t i = 0; i < 2; i++) {
        note = next_note();
        CHECK(note && note->kind == PRESENCE_LEAVE && !note->notified &&
              strcmp(note->group, "g") == 0 && strcmp(note->system, "shop") == 0);
    }
    CHECK(!next_note());
    tear_down_cluster(2);
}

int main(void)
{
    RUN(pushes_are_written);
    RUN(envelopes_are_written);
    RUN(the_first_frame_has_the_id);
    RUN(an_id_can_be_sent_again);
    RUN(notices_are_sent_in_bounded_batches);
    RUN(a_pending_notice_skips_who_was_unbound);
    RUN(a_crowded_group_gets_no_notices);
    RUN(a_crowded_system_gets_no_notices);
    RUN(user_and_extend_belong_to_the_client);
    RUN(names_are_quoted);
    RUN(groups_of_a_client_are_limited);
    RUN(sends_reach_their_targets);
    RUN(ids_that_fail_are_listed);
    RUN(order_is_kept);
    RUN(systems_that_collide_stay_apart);
    RUN(foreign_ids_in_lists_are_unknown);
    RUN(unknown_and_foreign_ids_look_alike);
    RUN(a_client_is_closed_by_command);
    RUN(a_broken_connection_is_not_slow);
    RUN(a_full_queue_is_reported);
    RUN(a_slow_client_is_closed_alone);
    RUN(a_send_to_a_slow_client_fails);
    RUN(each_target_gets_a_send_once);
    RUN(a_target_need_not_be_there);
    RUN(each_of_several_clients_gets_a_send_once);
    RUN(a_slow_client_has_not_got_it);
    RUN(sends_are_forgotten);
    RUN(an_id_twice_gets_one_frame);
    RUN(a_user_is_taken_off);
    RUN(closing_one_slow_client_finds_the_next);
    RUN(a_group_of_slow_clients_is_dropped);
    RUN(a_new_client_may_be_slow);
    RUN(ends_are_counted_by_code);
    RUN(a_deleted_system_is_closed_by_and_by);
    RUN(notices_of_a_deleted_system_are_dropped);
    RUN(messages_are_counted);
    RUN(slow_clients_are_counted);
    RUN(a_random_walk_follows_the_model);
    RUN(online_means_on_this_node);
    RUN(a_client_without_an_id_is_rejected);
    RUN(commands_use_sealed_ids);
    RUN(channels_come_and_go);
    RUN(joins_and_leaves_go_to_the_hooks);
    RUN(a_crowd_is_reported_without_notices);
    RUN(changes_of_user_and_extend_are_reported);
    RUN(reports_follow_the_scope);
    RUN(a_refresh_reports_all);
    RUN(a_refresh_comes_in_batches);
    RUN(notices_need_members_and_no_crowd);
    RUN(a_deleted_system_is_reported);
    return test_finish();
}

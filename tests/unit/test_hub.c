/* test_hub.c - hub.c: who gets which frames when clients come, are bound, are sent to and go; a
 * random walk beside a simple model of the same; and what is different in a cluster. */
#include "node.h"

#define VISITORS 8

static struct test_client visitors[VISITORS];
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

static struct command bind_to(const char *system, const struct test_client *visitor,
                              const char *group)
{
    return (struct command){.kind = COMMAND_BIND,
                            .system = str_from(system),
                            .client = quoted(id_of(visitor)),
                            .group = str_from(group)};
}

static struct command unbind_from(const char *system, const struct test_client *visitor,
                                  const char *group)
{
    struct command command = bind_to(system, visitor, group);

    command.kind = COMMAND_UNBIND;
    return command;
}

static struct command bind_user(const struct test_client *visitor, const char *group,
                                const char *user, const char *extend)
{
    struct command command = bind_to("shop", visitor, group);

    command.user = str_from(user);
    command.has_user = user && *user;
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
    return say("{\"code\":1,\"msg\":\"m\",\"data\":%s}", data);
}

/* What a notice is about; `group` is NULL where the system is told. */
static const char *subject(const char *id, const char *user, const char *extend, const char *group)
{
    return say("{\"clientId\":\"%s\",\"userId\":\"%s\",\"extend\":\"%s\"%s%s%s}", id, user, extend,
               group ? ",\"groupName\":\"" : "", group ? group : "", group ? "\"" : "");
}

static const char *notice(unsigned code, const char *id, const char *user, const char *extend,
                          const char *group)
{
    return say("{\"code\":%u,\"msg\":\"client %s\",\"data\":%s}", code,
               code == NOTICE_ONLINE ? "online" : "offline", subject(id, user, extend, group));
}

/* --- visitors, named by letters -------------------------------------------------------------- */

static void open_house(size_t count)
{
    node_open();
    for (size_t i = 0; i < count; i++)
        arrive(&visitors[i], STR("shop"));
}

static void close_house(size_t count)
{
    for (size_t i = 0; i < count; i++)
        depart(&visitors[i]);
    buf_free(&result.list);
    node_close();
}

static void bind_all(size_t count, const char *group)
{
    for (size_t i = 0; i < count; i++)
        CHECK(succeeds(bind_to("shop", &visitors[i], group)));
    for (size_t i = 0; i < count; i++)
        far_forget(&visitors[i].far);
}

/* True if those named, 'a' being the first visitor, have got this text, and nobody anything else.
 */
static bool only_these_got(const char *letters, size_t count, const char *text)
{
    bool good = true;

    for (size_t i = 0; i < count; i++) {
        bool right = !strchr(letters, (int)('a' + i)) || got_text(&visitors[i].far, text);

        right = right && got_nothing(&visitors[i].far);
        if (!right)
            printf("  that was visitor %c\n", (char)('a' + i));
        good = good && right;
    }
    return good;
}

static bool is_gone(const struct test_client *visitor)
{
    return apply(about_client(COMMAND_CLIENT_INFO, "shop", id_of(visitor)))->code == RESULT_OFFLINE;
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

        CHECK(hub_write_push(&out, &command));
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

        CHECK(
            hub_write_envelope(&out, rows[i].code, str_from(rows[i].msg), str_from(rows[i].data)));
        CHECK(holds(&out, rows[i].expected));
    }
}

/* What is there already stays in front. */
static void writing_appends(void)
{
    struct command command = {.msg = STR("\"m\""), .data = STR("1")};
    struct buf out = {0};

    buf_append(&out, STR("before "));
    CHECK(hub_write_push(&out, &command));
    CHECK(hub_write_envelope(&out, 2, STR("n"), STR("3")));
    CHECK(holds(&out, "before {\"code\":0,\"msg\":\"m\",\"data\":1}"
                      "{\"code\":2,\"msg\":\"n\",\"data\":3}"));
}

/* Whatever the room, the text is whole or the failure is told. */
static void too_little_room_is_told(void)
{
    struct command command = {.msg = STR("\"m\""), .data = STR("1"), .message_id = STR("\"i\"")};
    const size_t push = strlen("{\"code\":0,\"msg\":\"m\",\"data\":1,\"messageId\":\"i\"}");
    const size_t envelope = strlen("{\"code\":0,\"msg\":\"m\",\"data\":[]}");

    for (size_t room = 1; room <= push; room++) {
        struct buf first = {.limit = room}, second = {.limit = room};

        hub_write_push(&first, &command);
        hub_write_envelope(&second, 0, STR("m"), (struct str){0});
        CHECK(first.failed == (room < push));
        CHECK(second.failed == (room < envelope));
        buf_free(&first);
        buf_free(&second);
    }
}

/* --- ids ------------------------------------------------------------------------------------- */

static void an_id_is_sent_again(void)
{
    open_house(2);
    for (int i = 0; i < 2; i++) {
        char id[HUB_ID_LENGTH + 1];

        CHECK(hub_send_id(&node.hub, visitors[0].conn.client));
        flush();
        CHECK(got_id_frame(&visitors[0].far, id) && strcmp(id, visitors[0].id) == 0);
    }
    CHECK(only_these_got("", 2, "") && node.hub.counts.sent == 4);
    node.config.send_queue = 1;
    CHECK(hub_send_id(&node.hub, visitors[0].conn.client));
    visitors[0].conn.want_write = true; /* as if the socket took no more */
    CHECK(!hub_send_id(&node.hub, visitors[0].conn.client) && node.hub.counts.sent == 5);
    visitors[0].conn.want_write = false;
    close_house(2);
}

static void the_first_frame_tells_the_id(void)
{
    struct test_client *visitor = &visitors[0];
    struct str bytes;

    node_open();
    conn_open(&visitor->conn, far_open(&visitor->far), &node.shared);
    CHECK(hub_connect(&node.hub, &visitor->conn, STR("shop")));
    CHECK(visitor->conn.client && node.hub.channels.clients.count == 1 &&
          node.hub.channels.names.count == 1);
    CHECK(got_nothing(&visitor->far)); /* what is queued leaves when it is flushed */
    flush();
    bytes = far_receive(&visitor->far);
    CHECK(bytes.length == 67 && bytes.at[0] == '\x81' && bytes.at[1] == 65);
    CHECK(got_id_frame(&visitor->far, visitor->id));
    CHECK(got_nothing(&visitor->far));
    close_house(1);
}

static void ids_are_16_hex_digits_and_distinct(void)
{
    static struct test_client crowd[100];

    node_open();
    for (size_t i = 0; i < COUNT(crowd); i++) {
        arrive(&crowd[i], STR("shop"));
        CHECK(strspn(crowd[i].id, "0123456789abcdef") == HUB_ID_LENGTH);
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(crowd[i].id, crowd[j].id) != 0);
    }
    for (size_t i = 0; i < COUNT(crowd); i++)
        depart(&crowd[i]);
    node_close();
}

/* --- notices --------------------------------------------------------------------------------- */

enum step_kind { ARRIVE, LEAVE, END, CLOSE, BIND, UNBIND };

/* What one visitor does, and who is told so under each scope: group, system, off. Who leaves has
 * been in g alone. The last visitor is of another system; all use the same group names. */
struct step {
    enum step_kind kind;
    char who;
    const char *group;
    const char *told[3];
};

static const struct step steps[] = {
    {ARRIVE, 'a', NULL, {"", "a", ""}},   {ARRIVE, 'b', NULL, {"", "ab", ""}},
    {ARRIVE, 'c', NULL, {"", "abc", ""}}, {ARRIVE, 'd', NULL, {"", "d", ""}},
    {BIND, 'a', "g", {"a", "", ""}},      {BIND, 'b', "g", {"ab", "", ""}},
    {BIND, 'b', "g", {"", "", ""}},       {BIND, 'd', "g", {"d", "", ""}},
    {BIND, 'c', "h", {"c", "", ""}},      {BIND, 'b', "h", {"bc", "", ""}},
    {BIND, 'a', "h", {"abc", "", ""}},    {UNBIND, 'a', "g", {"b", "", ""}},
    {UNBIND, 'a', "g", {"", "", ""}},     {UNBIND, 'a', "never", {"", "", ""}},
    {BIND, 'a', "g", {"ab", "", ""}},     {UNBIND, 'c', "h", {"ab", "", ""}},
    {BIND, 'c', "g", {"abc", "", ""}},    {UNBIND, 'd', "g", {"", "", ""}},
    {LEAVE, 'c', NULL, {"ab", "ab", ""}}, {LEAVE, 'd', NULL, {"", "", ""}},
    {ARRIVE, 'c', NULL, {"", "abc", ""}}, {BIND, 'c', "g", {"abc", "", ""}},
    {UNBIND, 'b', "h", {"a", "", ""}},    {END, 'c', NULL, {"ab", "ab", ""}},
    {CLOSE, 'b', NULL, {"a", "a", ""}},   {UNBIND, 'a', "g", {"", "", ""}},
    {LEAVE, 'a', NULL, {"", "", ""}},
};

static void take_step(const struct step *step)
{
    struct test_client *visitor = &visitors[step->who - 'a'];
    const char *system = step->who == 'd' ? "other" : "shop";

    if (step->kind == ARRIVE) {
        if (visitor->id[0])
            depart(visitor);
        arrive(visitor, str_from(system));
    } else if (step->kind == LEAVE) {
        leave(visitor);
    } else if (step->kind == END) {
        hub_end_client(&node.hub, visitor->conn.client, HUB_END_CLOSED, 1001, STR("bye"));
        flush();
        CHECK(got_close(&visitor->far, 1001, "bye"));
    } else if (step->kind == CLOSE) {
        struct command command = about_client(COMMAND_CLOSE_CLIENT, system, id_of(visitor));

        command.close_code = 1000;
        CHECK(succeeds(command));
        CHECK(got_close(&visitor->far, 1000, ""));
    } else {
        CHECK(succeeds(step->kind == BIND ? bind_to(system, visitor, step->group)
                                          : unbind_from(system, visitor, step->group)));
    }
}

static void check_notices(enum config_notice scope)
{
    node_open();
    node.config.scope = scope;
    memset(visitors, 0, sizeof visitors);
    for (size_t i = 0; i < VISITORS; i++)
        visitors[i].far.fd = visitors[i].conn.fd = -1;
    for (size_t i = 0; i < COUNT(steps); i++) {
        bool comes = steps[i].kind == ARRIVE || steps[i].kind == BIND;
        const char *group = steps[i].group ? steps[i].group : "g";

        take_step(&steps[i]);
        if (!CHECK(only_these_got(steps[i].told[scope], 4,
                                  notice(comes ? NOTICE_ONLINE : NOTICE_OFFLINE,
                                         visitors[steps[i].who - 'a'].id, "", "",
                                         scope == NOTICE_GROUP ? group : NULL))))
            printf("  that was step %zu, scope %u\n", i, (unsigned)scope);
    }
    close_house(4);
}

static void notices_go_to_the_groups(void)
{
    check_notices(NOTICE_GROUP);
}

static void notices_go_to_the_system(void)
{
    check_notices(NOTICE_SYSTEM);
}

static void notices_can_be_off(void)
{
    check_notices(NOTICE_OFF);
}

/* Who shares two groups with a client that ends has seen it leave both. */
static void the_end_is_told_to_each_group(void)
{
    open_house(3);
    bind_all(2, "g");
    bind_all(3, "h");
    leave(&visitors[0]);
    for (size_t i = 1; i < 3; i++)
        CHECK(got_text(&visitors[i].far, notice(NOTICE_OFFLINE, visitors[0].id, "", "", "h")));
    CHECK(only_these_got("b", 3, notice(NOTICE_OFFLINE, visitors[0].id, "", "", "g")));
    close_house(3);
}

/* --- who leaves is told later ---------------------------------------------------------------- */

/* Ends a visitor's connection; nobody is told, and nothing is sent, before flush. */
static void vanish(char who)
{
    hub_end_client(&node.hub, visitors[who - 'a'].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("test"));
}

static const char *left_group(char who, const char *group)
{
    return notice(NOTICE_OFFLINE, visitors[who - 'a'].id, "", "", group);
}

/* Six of eight go in one moment: they are told nothing, and each of the others of all six. */
static void who_leave_together_are_not_told_of_each_other(void)
{
    open_house(VISITORS);
    bind_all(VISITORS, "g");
    node.hub.counts.sent = 0;
    for (char who = 'a'; who <= 'h'; who++)
        if (who != 'c' && who != 'f')
            vanish(who);
    CHECK(node.hub.channels.clients.count == 2 && node.hub.counts.sent == 0);
    flush();
    for (char who = 'a'; who <= 'h'; who++)
        for (int i = 2; i < 6 && who != 'c' && who != 'f'; i += 3)
            CHECK(got_text(&visitors[i].far, left_group(who, "g")));
    CHECK(only_these_got("", VISITORS, "") && node.hub.counts.sent == 12);
    CHECK(!hub_flush_notices(&node.hub, 1));
    close_house(VISITORS);
}

/* A call sends so many frames, and at most those of one notice more; no frame is lost for that. */
static void notices_are_told_a_bounded_number_at_a_time(void)
{
    static const size_t bounds[] = {1, 2, 3, 4, 5, 7, 100};

    for (size_t i = 0; i < COUNT(bounds); i++) {
        bool more = true;

        open_house(VISITORS);
        bind_all(VISITORS, "g");
        for (char who = 'a'; who < 'f'; who++)
            vanish(who);
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
                CHECK(got_text(&visitors[stays].far, left_group(who, "g")));
        CHECK(only_these_got("", VISITORS, ""));
        close_house(VISITORS);
    }
}

/* That somebody is taken out of a group is told at once. */
static void who_is_unbound_meanwhile_is_not_told(void)
{
    open_house(4);
    bind_all(4, "g");
    vanish('a');
    apply_only(unbind_from("shop", &visitors[1], "g"));
    flush();
    for (int i = 2; i < 4; i++) {
        CHECK(got_text(&visitors[i].far, left_group('b', "g")));
        CHECK(got_text(&visitors[i].far, left_group('a', "g")));
    }
    CHECK(only_these_got("", 4, ""));
    close_house(4);
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

/* Members are told of each other while they are at most so many: who comes counts, who goes not. */
static void a_crowded_group_is_not_told(void)
{
    open_house(5);
    node.config.max_members = 3;
    CHECK(succeeds(bind_to("shop", &visitors[0], "g")) &&
          succeeds(bind_to("shop", &visitors[1], "g")));
    far_forget(&visitors[0].far);
    far_forget(&visitors[1].far);
    CHECK(succeeds(bind_to("shop", &visitors[2], "g")));
    CHECK(only_these_got("abc", 5, notice(NOTICE_ONLINE, visitors[2].id, "", "", "g")));
    CHECK(count_logged(CROWDED) == 0);
    CHECK(succeeds(bind_to("shop", &visitors[3], "g")) && only_these_got("", 5, ""));
    CHECK(count_logged(CROWDED "group=\"g\" max_members=3\n") == 1);
    CHECK(succeeds(bind_to("shop", &visitors[4], "g")) && only_these_got("", 5, ""));
    leave(&visitors[0]); /* four are left */
    CHECK(only_these_got("", 5, "") && !node.hub.channels.notified.first);
    CHECK(succeeds(unbind_from("shop", &visitors[1], "g")));
    CHECK(only_these_got("cde", 5, left_group('b', "g")));
    CHECK(succeeds(bind_to("shop", &visitors[1], "g")) && only_these_got("", 5, ""));
    leave(&visitors[1]);
    CHECK(only_these_got("cde", 5, left_group('b', "g")));
    CHECK(count_logged("max_members") == 2); /* once, in one line */
    /* another group is another matter */
    for (size_t i = 2; i < 5; i++)
        CHECK(succeeds(bind_to("shop", &visitors[i], "h")));
    for (size_t i = 2; i < 5; i++)
        far_forget(&visitors[i].far);
    node.config.max_members = 1;
    leave(&visitors[2]);
    CHECK(only_these_got("", 5, ""));
    CHECK(count_logged(CROWDED) == 2 && count_logged("group=\"h\" max_members=1\n") == 1);
    leave(&visitors[3]);
    CHECK(got_text(&visitors[4].far, left_group('d', "h")));
    CHECK(only_these_got("e", 5, left_group('d', "g")));
    close_house(5);
}

static void a_crowded_system_is_not_told(void)
{
    open_house(0);
    node.config.scope = NOTICE_SYSTEM;
    node.config.max_members = 2;
    for (size_t i = 0; i < 4; i++)
        arrive(&visitors[i], STR("shop"));
    CHECK(got_text(&visitors[0].far, notice(NOTICE_ONLINE, visitors[0].id, "", "", NULL)));
    CHECK(only_these_got("ab", 4, notice(NOTICE_ONLINE, visitors[1].id, "", "", NULL)));
    CHECK(count_logged(CROWDED "max_members=2\n") == 1 && count_logged("more members") == 1);
    leave(&visitors[3]);
    CHECK(only_these_got("", 4, ""));
    leave(&visitors[2]);
    CHECK(only_these_got("ab", 4, left_group('c', NULL)));
    close_house(4);
}

static void without_max_members_all_are_told(void)
{
    open_house(VISITORS);
    node.config.max_members = 0;
    for (size_t i = 0; i < VISITORS; i++) {
        CHECK(succeeds(bind_to("shop", &visitors[i], "g")));
        CHECK(only_these_got(say("%.*s", (int)(i + 1), "abcdefgh"), VISITORS,
                             notice(NOTICE_ONLINE, visitors[i].id, "", "", "g")));
    }
    vanish('a');
    flush();
    CHECK(only_these_got("bcdefgh", VISITORS, left_group('a', "g")) &&
          !count_logged("max_members"));
    close_house(VISITORS);
}

/* --- binding --------------------------------------------------------------------------------- */

static const char *info_of(const struct test_client *visitor, const char *user, const char *extend,
                           const char *groups)
{
    return say("{\"clientId\":\"%s\",\"userId\":\"%s\",\"extend\":\"%s\",\"groups\":[%s],"
               "\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}",
               visitor->id, user, extend, groups);
}

static bool has_info(const struct test_client *visitor, const char *expected)
{
    return succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(visitor))) &&
           same(str_of(&result.list), str_from(expected));
}

static void user_and_extend_belong_to_the_client(void)
{
    static const struct {
        const char *group, *user, *extend;              /* of the bind; NULL is absent */
        const char *user_now, *extend_now, *groups_now; /* what there is afterwards */
        bool told;
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
    struct test_client *visitor = &visitors[0];

    open_house(1);
    CHECK(has_info(visitor, info_of(visitor, "", "", "")));
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(succeeds(bind_user(visitor, rows[i].group, rows[i].user, rows[i].extend)));
        CHECK(has_info(visitor,
                       info_of(visitor, rows[i].user_now, rows[i].extend_now, rows[i].groups_now)));
        CHECK(only_these_got(rows[i].told ? "a" : "", 1,
                             notice(NOTICE_ONLINE, visitor->id, rows[i].user_now,
                                    rows[i].extend_now, rows[i].group)));
    }
    /* the system, one user, four groups: the user before has gone with its last client */
    CHECK(node.hub.channels.names.count == 6);
    close_house(1);
}

/* What a JSON string must escape is escaped wherever it is shown. */
static void names_are_quoted(void)
{
    struct test_client *visitor = &visitors[0];

    open_house(1);
    CHECK(succeeds(bind_user(visitor, "g\"\\\xc3\xa9", "u\"", "\\\n\x01")));
    CHECK(got_text(&visitor->far, notice(NOTICE_ONLINE, visitor->id, "u\\\"", "\\\\\\u000a\\u0001",
                                         "g\\\"\\\\\xc3\xa9")));
    CHECK(has_info(visitor,
                   info_of(visitor, "u\\\"", "\\\\\\u000a\\u0001", "\"g\\\"\\\\\xc3\xa9\"")));
    close_house(1);
}

/* --- max_groups ------------------------------------------------------------------------------ */

static void fill_groups(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CHECK(succeeds(bind_to("shop", &visitors[0], say("%zu", i))));
        CHECK(only_these_got("a", 1, notice(NOTICE_ONLINE, visitors[0].id, "", "", say("%zu", i))));
    }
}

/* At the limit nothing of a bind to one group more is done; a bind to one of its own is success. */
static void groups_of_a_client_are_limited(void)
{
    static const size_t limits[] = {1, 2, 31, 32, 33, 40};
    struct test_client *visitor = &visitors[0];

    for (size_t i = 0; i < COUNT(limits); i++) {
        struct command command = bind_user(visitor, "more", "ann", "x");

        open_house(1);
        node.config.max_groups = limits[i];
        command.client = quoted(id_of(visitor));
        fill_groups(limits[i]);
        CHECK(apply(command)->code == RESULT_LIMIT);
        CHECK(same(str_from(result.error), STR("the client is in max_groups groups already")));
        CHECK(only_these_got("", 1, "") && node.hub.channels.names.count == 1 + limits[i]);
        CHECK(succeeds(bind_user(visitor, "0", "ann", "x")) && only_these_got("", 1, ""));
        CHECK(node.hub.channels.names.count == 2 + limits[i]);
        command.client = quoted(id_of(visitor));
        CHECK(apply(command)->code == RESULT_LIMIT); /* a user is no group */
        CHECK(succeeds(unbind_from("shop", visitor, "0")) && succeeds(command));
        CHECK(only_these_got("a", 1, notice(NOTICE_ONLINE, visitor->id, "ann", "x", "more")));
        CHECK(apply(bind_to("shop", visitor, "0"))->code == RESULT_LIMIT);
        CHECK(succeeds(command) && only_these_got("", 1, ""));
        close_house(1);
    }
}

/* Seven at a time, each in a group, and with a user, that nobody had before. */
static void tables_do_not_grow_with_those_who_come_and_go(void)
{
    enum { ROUNDS = 20000, FIRST = 500 };
    struct table clients = {0}, audiences = {0};

    open_house(VISITORS);
    node.config.scope = NOTICE_OFF;
    for (int round = 0; round < ROUNDS; round++) {
        struct test_client *visitor = &visitors[1 + round % (VISITORS - 1)];
        char name[16];

        snprintf(name, sizeof name, "%d", round);
        depart(visitor);
        arrive(visitor, STR("shop"));
        CHECK(succeeds(bind_user(visitor, name, name, "e")));
        if (round == FIRST) {
            clients = node.hub.channels.clients;
            audiences = node.hub.channels.names;
        }
    }
    CHECK(node.hub.channels.clients.count == VISITORS &&
          node.hub.channels.clients.count == clients.count);
    CHECK(node.hub.channels.names.count == 1 + 2 * (VISITORS - 1));
    CHECK(node.hub.channels.names.count == audiences.count);
    CHECK(node.hub.channels.clients.capacity == clients.capacity);
    CHECK(node.hub.channels.names.capacity == audiences.capacity);
    close_house(VISITORS);
}

static void the_online_list_is_of_the_group(void)
{
    open_house(3);
    CHECK(succeeds(list_of("shop", "g")) && result.count == 0 && result.list.length == 0);
    bind_all(3, "g");
    bind_all(1, "h");
    CHECK(succeeds(list_of("shop", "g")) && result.count == 3);
    CHECK(same(str_of(&result.list), str_from(say("\"%s\",\"%s\",\"%s\"", visitors[0].id,
                                                  visitors[1].id, visitors[2].id))));
    CHECK(succeeds(list_of("shop", "h")) && result.count == 1);
    CHECK(same(str_of(&result.list), str_from(say("\"%s\"", visitors[0].id))));
    CHECK(succeeds(unbind_from("shop", &visitors[0], "h")));
    CHECK(succeeds(list_of("shop", "h")) && result.count == 0 && result.list.length == 0);
    CHECK(succeeds(list_of("nobody", "g")) && result.count == 0 && result.list.length == 0);
    close_house(3);
}

/* --- sending --------------------------------------------------------------------------------- */

/* a and b are user ann, c is bob; a, b and c are in g, d is in h. */
static void open_furnished_house(void)
{
    open_house(4);
    CHECK(succeeds(bind_user(&visitors[0], "g", "ann", NULL)));
    CHECK(succeeds(bind_user(&visitors[1], "g", "ann", NULL)));
    CHECK(succeeds(bind_user(&visitors[2], "g", "bob", NULL)));
    CHECK(succeeds(bind_user(&visitors[3], "h", NULL, NULL)));
    for (size_t i = 0; i < 4; i++)
        far_forget(&visitors[i].far);
}

/* The ids of those named as a JSON array. */
static struct str ids_of(const char *letters)
{
    static char room[400];
    size_t length = 0;

    room[length++] = '[';
    for (const char *letter = letters; *letter; letter++)
        length += (size_t)snprintf(room + length, sizeof room - length, "%s\"%s\"",
                                   length > 1 ? ", " : "", visitors[*letter - 'a'].id);
    room[length++] = ']';
    return (struct str){room, length};
}

static void sends_reach_whom_they_name(void)
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

    open_furnished_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = send_to(rows[i].kind, "shop", say("%zu", i));
        uint64_t count = strlen(rows[i].reached);

        command.group = command.user = str_from(rows[i].name);
        if (rows[i].clients)
            command.clients = ids_of(rows[i].clients);
        if (!CHECK(succeeds(command) && result.list.length == 0) ||
            !CHECK(result.matched == count && result.queued == count && !result.dropped) ||
            !CHECK(only_these_got(rows[i].reached, 4, pushed(say("%zu", i)))))
            printf("  that was row %zu\n", i);
    }
    close_house(4);
}

static void a_send_to_one_reaches_it_alone(void)
{
    open_furnished_house();
    for (size_t i = 0; i < 4; i++) {
        CHECK(succeeds(send_to_client("shop", id_of(&visitors[i]), "7")));
        CHECK(result.matched == 1 && result.queued == 1 && result.dropped == 0);
        CHECK(only_these_got(say("%c", (int)('a' + i)), 4, pushed("7")));
    }
    close_house(4);
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

    open_house(2);
    for (size_t i = 0; i < COUNT(bad); i++) {
        buf_append(&ids, str_from(say("%c%s", i ? ',' : '[', bad[i])));
        buf_append(&failed, str_from(say("%s%s", i ? "," : "", bad[i])));
    }
    /* the first digit of an id written as an escape is that digit */
    buf_append(&ids, str_from(say(",\"\\u00%02x%s\"\n, \"%s\" ]", (unsigned)visitors[0].id[0],
                                  visitors[0].id + 1, visitors[1].id)));
    command.clients = str_of(&ids);
    CHECK(succeeds(command) && result.count == COUNT(bad));
    CHECK(result.matched == 2 && result.queued == 2);
    CHECK(same(str_of(&result.list), str_of(&failed)));
    CHECK(only_these_got("ab", 2, pushed("1")));
    buf_free(&ids);
    buf_free(&failed);
    close_house(2);
}

static void data_arrives_byte_for_byte(void)
{
    static const char *const rows[] = {
        "123456789012345678901234567890",
        "1e400",
        "1.0",
        "-0",
        "-0.0E+00",
        "null",
        "false",
        "\"\\u0041\"",
        "\"\\/\\ud83d\\ude00\"",
        "\"\xf0\x9f\x98\x80 \x7f\"",
        "{ \"b\":[1 ,\n2] }",
        "[]",
        "\"\"",
    };

    open_house(1);
    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(succeeds(send_to(COMMAND_SEND_TO_SYSTEM, "shop", rows[i])));
        CHECK(got_text(&visitors[0].far, pushed(rows[i])));
    }
    close_house(1);
}

/* Sends on until all has left; takes in what arrives. */
static void pump(struct test_client *visitor)
{
    do {
        conn_writable(&visitor->conn);
        far_receive(&visitor->far);
    } while (visitor->conn.first && !visitor->conn.broken);
}

/* Every length at which the header of a frame changes, and 1 MiB. */
static void long_data_arrives_whole(void)
{
    static const size_t rows[] = {125, 126, 127, 65535, 65536, 65537, 1 << 20};
    const size_t around = strlen("{\"code\":1,\"msg\":\"m\",\"data\":}");

    open_house(1);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = send_to(COMMAND_SEND_TO_SYSTEM, "shop", "");
        struct buf data = {0}, text = {0};

        CHECK(buf_reserve(&data, rows[i]));
        data.length = rows[i] - around;
        memset(data.at, 'x', data.length);
        data.at[0] = data.at[data.length - 1] = '"';
        command.data = str_of(&data);
        CHECK(succeeds(command));
        hub_write_push(&text, &command);
        CHECK(text.length == rows[i]);
        pump(&visitors[0]);
        CHECK(got_frame(&visitors[0].far, 1, str_of(&text)));
        buf_free(&data);
        buf_free(&text);
    }
    close_house(1);
}

/* The frame is the same object in every queue, and its count of references is theirs. */
static void a_frame_is_encoded_once(void)
{
    const struct rcbuf *message;

    open_house(VISITORS);
    bind_all(VISITORS, "g");
    CHECK(apply_only(send_to_group("shop", "g", "1"))->queued == VISITORS);
    message = visitors[0].conn.first;
    CHECK(message->references == VISITORS);
    for (size_t i = 0; i < VISITORS; i++)
        CHECK(visitors[i].conn.first == message && !visitors[i].conn.ring);
    flush();
    CHECK(only_these_got("abcdefgh", VISITORS, pushed("1")));
    close_house(VISITORS);
}

/* What was queued in one turn, by whatever command, leaves in its order. */
static void order_is_kept(void)
{
    open_house(2);
    bind_all(2, "g");
    for (int i = 0; i < 300; i += 3) {
        apply_only(send_to_group("shop", "g", say("%d", i)));
        apply_only(send_to_client("shop", id_of(&visitors[i % 2]), say("%d", i + 1)));
        apply_only(send_to(COMMAND_SEND_TO_SYSTEM, "shop", say("%d", i + 2)));
    }
    flush();
    for (int i = 0; i < 300; i++)
        for (int who = 0; who < 2; who++)
            if (i % 3 != 1 || (i - 1) % 2 == who)
                CHECK(got_text(&visitors[who].far, pushed(say("%d", i))));
    CHECK(only_these_got("", 2, ""));
    close_house(2);
}

/* --- other systems, and who is not there ----------------------------------------------------- */

static void systems_do_not_touch_each_other(void)
{
    static const char *const systems[] = {"shop", "other"};

    node_open();
    for (size_t i = 0; i < 2; i++) {
        struct command command = {
            .kind = COMMAND_BIND, .group = STR("g"), .user = STR("u"), .has_user = true};

        arrive(&visitors[i], str_from(systems[i]));
        command.system = str_from(systems[i]);
        command.client = quoted(id_of(&visitors[i]));
        CHECK(succeeds(command));
        far_forget(&visitors[i].far);
    }
    CHECK(node.hub.channels.names.count == 6);
    for (size_t i = 0; i < 2; i++) {
        static const enum command_kind kinds[] = {COMMAND_SEND_TO_GROUP, COMMAND_SEND_TO_USER,
                                                  COMMAND_SEND_TO_SYSTEM};

        for (size_t kind = 0; kind < COUNT(kinds); kind++) {
            struct command command = send_to(kinds[kind], systems[i], "1");

            command.group = STR("g");
            command.user = STR("u");
            CHECK(succeeds(command) && result.matched == 1);
            CHECK(only_these_got(i == 0 ? "a" : "b", 2, pushed("1")));
        }
        CHECK(succeeds(list_of(systems[i], "g")));
        CHECK(same(str_of(&result.list), str_from(say("\"%s\"", visitors[i].id))));
    }
    close_house(2);
}

/* Also systems whose names share a hash, so that all of their groups do. */
static void systems_that_collide_stay_apart(void)
{
    const char *systems[2];

    node_open();
    node.hub.channels.seed = 1; /* any: the test is the same each time */
    find_collision(node.hub.channels.seed, systems);
    if (CHECK(systems[0])) {
        for (size_t i = 0; i < 2; i++) {
            arrive(&visitors[i], str_from(systems[i]));
            CHECK(succeeds(bind_to(systems[i], &visitors[i], "g")));
            far_forget(&visitors[i].far);
        }
        CHECK(node.hub.channels.names.count == 4);
        CHECK(succeeds(send_to_group(systems[0], "g", "1")));
        CHECK(only_these_got("a", 2, pushed("1")));
        CHECK(succeeds(send_to(COMMAND_SEND_TO_SYSTEM, systems[1], "1")));
        CHECK(only_these_got("b", 2, pushed("1")));
    }
    close_house(systems[0] ? 2 : 0);
}

/* Another system's clients can neither be sent to nor left out of a send. */
static void foreign_ids_in_lists_are_unknown(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "other", "1");

    open_house(2);
    arrive(&visitors[2], STR("other"));
    bind_all(2, "g");
    command.clients = ids_of("ab");
    CHECK(succeeds(command) && result.matched == 0 && result.count == 2);
    CHECK(only_these_got("", 3, ""));
    command = send_to(COMMAND_SEND_TO_GROUP, "shop", "2");
    command.group = STR("g");
    command.clients = ids_of("cb");
    CHECK(succeeds(command) && result.matched == 1);
    CHECK(only_these_got("a", 3, pushed("2")));
    close_house(3);
}

static void who_is_not_online_cannot_be_told_apart(void)
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

    open_house(2);
    arrive(&visitors[2], STR("other"));
    leave(&visitors[1]);
    ids[8] = id_of(&visitors[1]);
    ids[9] = id_of(&visitors[2]);
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
    CHECK(only_these_got("", 3, ""));
    CHECK(node.hub.channels.clients.count == 2 && node.hub.channels.names.count == 2);
    close_house(3);
}

/* --- the end of a client --------------------------------------------------------------------- */

static void a_client_is_closed_by_command(void)
{
    static const struct {
        unsigned code;
        const char *reason;
    } rows[] = {{1000, ""}, {3000, "bye"}, {4999, "\xc3\xa9\xe2\x82\xac"}};

    open_house(1);
    bind_all(1, "g");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct test_client *visitor = &visitors[1];
        struct command command;

        arrive(visitor, STR("shop"));
        CHECK(succeeds(bind_user(visitor, "g", "u", "e")));
        CHECK(got_text(&visitor->far, notice(NOTICE_ONLINE, visitor->id, "u", "e", "g")));
        far_forget(&visitors[0].far);
        command = about_client(COMMAND_CLOSE_CLIENT, "shop", id_of(visitor));
        command.close_code = rows[i].code;
        command.reason = str_from(rows[i].reason);
        apply_only(send_to_client("shop", id_of(visitor), "1"));
        CHECK(succeeds(command));
        CHECK(visitor->conn.close_queued && !visitor->conn.client && !visitor->conn.broken);
        CHECK(apply(command)->code == RESULT_OFFLINE);
        /* what was queued before leaves before, and nothing follows */
        CHECK(hub_queue_frame(&node.hub, &visitor->conn, 1, STR("late")));
        flush();
        CHECK(got_text(&visitor->far, pushed("1")));
        CHECK(got_close(&visitor->far, rows[i].code, rows[i].reason));
        CHECK(only_these_got("a", 2, notice(NOTICE_OFFLINE, visitor->id, "u", "e", "g")));
        depart(visitor);
    }
    close_house(1);
}

/* A connection that breaks in the middle of a send takes nothing from the others, and what it was
 * to get is freed. */
static void a_broken_connection_is_not_slow(void)
{
    open_house(3);
    bind_all(3, "g");
    node.config.send_queue = 1;
    far_close(&visitors[1].far);
    for (int i = 0; i < 3; i++) {
        apply_only(send_to_group("shop", "g", say("%d", i)));
        CHECK(result.matched == 3 && result.queued == 3 && result.dropped == 0);
    }
    CHECK(visitors[1].conn.broken && visitors[1].conn.client && !visitors[1].conn.first);
    flush();
    for (int i = 0; i < 3; i++) {
        CHECK(got_text(&visitors[0].far, pushed(say("%d", i))));
        CHECK(got_text(&visitors[2].far, pushed(say("%d", i))));
    }
    leave(&visitors[1]);
    CHECK(got_text(&visitors[0].far, notice(NOTICE_OFFLINE, visitors[1].id, "", "", "g")));
    close_house(3);
}

/* Frames queued outside of sends keep the limit as well, and their sender may end the client. A
 * pong takes the place of the one before. */
static void a_full_queue_is_reported(void)
{
    struct test_client *visitor = &visitors[0];

    open_house(2);
    bind_all(2, "g");
    node.config.send_queue = 10;
    CHECK(hub_queue_frame(&node.hub, &visitor->conn, 10, STR("pong payload")));
    visitor->conn.want_write = true; /* as if the socket took no more */
    CHECK(hub_queue_frame(&node.hub, &visitor->conn, 10, STR("another")));
    CHECK(visitor->conn.queued == 2 + 7 && !visitor->conn.ring);
    CHECK(!hub_queue_frame(&node.hub, &visitor->conn, 9, STR("a ping")));
    CHECK(visitor->conn.client && !visitor->conn.close_queued);
    hub_end_client(&node.hub, visitor->conn.client, HUB_END_SLOW, WS_CLOSE_TRY_LATER, STR("slow"));
    CHECK(!visitor->conn.client && visitor->conn.close_queued);
    pump(visitor);
    flush();
    CHECK(got_close(&visitor->far, 1013, "slow") && got_nothing(&visitor->far));
    CHECK(got_text(&visitors[1].far, notice(NOTICE_OFFLINE, visitor->id, "", "", "g")));
    close_house(2);
}

/* --- slow clients ---------------------------------------------------------------------------- */

#define QUEUE 10000

/* A long text as JSON. */
static const char *ballast(void)
{
    static char text[1000];

    memset(text, 'b', sizeof text - 1);
    text[0] = text[sizeof text - 2] = '"';
    return text;
}

static void have_little_room(struct test_client *visitor)
{
    int bytes = 4096;

    CHECK(setsockopt(visitor->conn.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
}

/* Sends ballast to the group until somebody is dropped; `readers` read meanwhile. Returns how
 * often. */
static int send_until_one_drops(const char *readers, const char *text)
{
    int sends = 0;

    do {
        apply(send_to_group("shop", "g", ballast()));
        CHECK(result.matched == 3 && result.queued + result.dropped == 3);
        for (const char *letter = readers; *letter; letter++)
            CHECK(got_text(&visitors[*letter - 'a'].far, text));
    } while (++sends < 1000 && !result.dropped);
    return sends;
}

static void a_slow_client_is_closed_and_nobody_else_loses(void)
{
    struct test_client *slow = &visitors[1];
    const char *text;
    struct far_frame frame = {0};
    int sends, whole = 0;

    open_house(3);
    bind_all(3, "g");
    node.config.send_queue = QUEUE;
    have_little_room(slow);
    text = pushed(ballast());
    sends = send_until_one_drops("ac", text);
    CHECK(sends > QUEUE / 1000 && sends < 200);
    CHECK(result.code == RESULT_SUCCESS && result.dropped == 1 && result.queued == 2);
    CHECK(!slow->conn.client && slow->conn.close_queued && slow->conn.queued < 2000);
    for (int i = 0; i < 3; i += 2) {
        CHECK(got_text(&visitors[i].far, notice(NOTICE_OFFLINE, slow->id, "", "", "g")));
        CHECK(got_nothing(&visitors[i].far));
    }
    CHECK(is_gone(slow) && node_logged(slow->id) && node_logged("127.0.0.1"));
    pump(slow); /* what had begun to leave is whole, the rest of the queue is gone */
    while (far_next(&slow->far, &frame) && frame.opcode == 1) {
        CHECK(same(frame.payload, str_from(text)));
        whole++;
    }
    CHECK(frame.opcode == 8 && same(frame.payload, STR("\x03\xf5slow")));
    CHECK(whole > 0 && whole <= sends - QUEUE / 1100);
    close_house(3);
}

/* Fills a visitor's socket and queue so that the next frame finds it slow. */
static void stuff(struct test_client *visitor)
{
    have_little_room(visitor);
    for (int i = 0; i < 1000 && conn_cost(&visitor->conn) < QUEUE; i++)
        CHECK(succeeds(send_to_client("shop", id_of(visitor), ballast())));
    CHECK(visitor->conn.want_write && conn_cost(&visitor->conn) >= QUEUE);
}

/* An id that stands twice, in whatever spelling, gets one frame; so it does in the next send, too.
 */
static void an_id_twice_gets_one_frame(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1");
    struct str a;

    open_house(2);
    a = id_of(&visitors[0]);
    command.clients = str_from(say("[\"%s\",\"%s\", \"\\u%04x%s\",\"none\",\"%s\",\"none\"]", a.at,
                                   visitors[1].id, (unsigned)a.at[0], a.at + 1, a.at));
    for (int i = 0; i < 2; i++) {
        CHECK(succeeds(command) && result.matched == 2 && result.queued == 2);
        CHECK(result.count == 2 && same(str_of(&result.list), STR("\"none\",\"none\"")));
        for (int who = 0; who < 2; who++) {
            CHECK(got_text(&visitors[who].far, pushed("1")) && got_nothing(&visitors[who].far));
            CHECK(!visitors[who].conn.client ||
                  succeeds(send_to_client("shop", id_of(&visitors[who]), "2")));
            far_forget(&visitors[who].far);
        }
    }
    close_house(2);
}

/* A user is taken off by an empty name, and by no other bind. */
static void a_user_is_taken_off(void)
{
    struct command command, send = send_to(COMMAND_SEND_TO_USER, "shop", "1");

    open_house(2);
    send.user = STR("u");
    for (int i = 0; i < 2; i++)
        CHECK(succeeds(bind_user(&visitors[i], "g", "u", "e")));
    CHECK(node.hub.kinds[CHANNEL_USER] == 1);
    CHECK(succeeds(bind_to("shop", &visitors[0], "h")));
    CHECK(succeeds(send) && result.matched == 2);
    command = bind_user(&visitors[0], "g", "", NULL);
    command.has_user = true;
    CHECK(succeeds(command) && succeeds(command)); /* a second time there is nothing left */
    CHECK(succeeds(send) && result.matched == 1);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(&visitors[0]))));
    CHECK(contains(str_of(&result.list), "\"userId\":\"\",\"extend\":\"e\""));
    command = bind_user(&visitors[1], "g", "", "");
    command.has_user = true;
    CHECK(succeeds(command) && node.hub.kinds[CHANNEL_USER] == 0);
    CHECK(succeeds(send) && result.matched == 0);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, "shop", id_of(&visitors[1]))));
    CHECK(contains(str_of(&result.list), "\"userId\":\"\",\"extend\":\"\""));
    CHECK(succeeds(bind_user(&visitors[0], "g", "v", NULL)) && node.hub.kinds[CHANNEL_USER] == 1);
    close_house(2);
}

static void a_send_to_a_slow_client_fails(void)
{
    struct command command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "1");
    struct str id;

    open_house(3);
    node.config.send_queue = QUEUE;
    stuff(&visitors[0]);
    stuff(&visitors[1]);
    CHECK(apply(send_to_client("shop", id_of(&visitors[0]), "1"))->code == RESULT_OFFLINE);
    CHECK(contains(str_from(result.error), "slow"));
    CHECK(result.matched == 1 && result.queued == 0 && result.dropped == 1);
    CHECK(apply(send_to_client("shop", id_of(&visitors[0]), "1"))->matched == 0);
    CHECK(same(str_from(result.error), STR("client not online")));
    command.clients = ids_of("cbb");
    id = id_of(&visitors[1]);
    CHECK(succeeds(command) && result.matched == 2 && result.queued == 1);
    CHECK(result.dropped == 1 && result.count == 1);
    CHECK(same(str_of(&result.list), str_from(say("\"%s\"", id.at))));
    CHECK(got_text(&visitors[2].far, pushed("1")) && got_nothing(&visitors[2].far));
    close_house(3);
}

enum trigger { BY_SEND, BY_LEAVING, BY_CLOSING, BY_UNBINDING, BY_BINDING };

static void pull(enum trigger trigger)
{
    struct command command = about_client(COMMAND_CLOSE_CLIENT, "shop", id_of(&visitors[0]));

    command.close_code = 1000;
    if (trigger == BY_SEND)
        CHECK(apply(send_to_client("shop", id_of(&visitors[0]), "1"))->dropped == 1);
    else if (trigger == BY_LEAVING)
        leave(&visitors[0]);
    else if (trigger == BY_CLOSING)
        CHECK(succeeds(command));
    else if (trigger == BY_UNBINDING)
        CHECK(succeeds(unbind_from("shop", &visitors[0], "g")));
    else
        CHECK(succeeds(bind_to("shop", &visitors[6], "g")));
}

/* The notice of one slow client's end finds the next: a to e go, each once; f, who reads, is told
 * of each of them. */
static void check_cascade(enum trigger trigger)
{
    unsigned told[7] = {0};
    struct far_frame frame = {0};

    open_house(7);
    bind_all(6, "g");
    node.config.send_queue = QUEUE;
    for (size_t i = trigger == BY_SEND || trigger == BY_BINDING ? 0 : 1; i < 5; i++)
        stuff(&visitors[i]);
    pull(trigger);
    while (far_next(&visitors[5].far, &frame))
        for (size_t i = 0; i < 7; i++)
            for (unsigned code = NOTICE_ONLINE; code <= NOTICE_OFFLINE; code++)
                told[i] +=
                    str_equal(frame.payload, str_from(notice(code, visitors[i].id, "", "", "g")));
    for (size_t i = 0; i < 5; i++)
        CHECK(told[i] == 1 && (trigger == BY_UNBINDING && i == 0) == !is_gone(&visitors[i]));
    CHECK(told[5] == 0 && told[6] == (trigger == BY_BINDING));
    CHECK(!is_gone(&visitors[5]) && !is_gone(&visitors[6]));
    CHECK(succeeds(list_of("shop", "g")) && result.count == 1u + (trigger == BY_BINDING));
    close_house(7);
}

static void one_slow_end_finds_the_next(void)
{
    for (enum trigger trigger = BY_SEND; trigger <= BY_BINDING; trigger++)
        check_cascade(trigger);
}

/* The last two of a group find each other slow: nobody is left to be told. */
static void a_group_of_slow_clients_vanishes(void)
{
    open_house(2);
    bind_all(2, "g");
    node.config.send_queue = QUEUE;
    stuff(&visitors[0]);
    stuff(&visitors[1]);
    apply(send_to_group("shop", "g", "1"));
    CHECK(result.matched == 2 && result.queued == 0 && result.dropped == 2);
    CHECK(node.hub.channels.clients.count == 0 && node.hub.channels.names.count == 0);
    close_house(2);
}

/* With the system as scope a newcomer is told of itself; one whose socket takes nothing may be too
 * slow even for that. */
static void a_newcomer_may_be_slow(void)
{
    struct test_client *visitor = &visitors[2];

    open_house(2);
    node.config.scope = NOTICE_SYSTEM;
    node.config.send_queue = 10;
    conn_open(&visitor->conn, far_open(&visitor->far), &node.shared);
    visitor->conn.want_write = true;
    CHECK(hub_connect(&node.hub, &visitor->conn, STR("shop")));
    CHECK(!visitor->conn.client && visitor->conn.close_queued &&
          node.hub.channels.clients.count == 2);
    flush();
    for (int i = 0; i < 2; i++) {
        struct far_frame frame = {0};

        CHECK(far_next(&visitors[i].far, &frame) && contains(frame.payload, "client online"));
        CHECK(far_next(&visitors[i].far, &frame) && contains(frame.payload, "client offline"));
        CHECK(got_nothing(&visitors[i].far));
    }
    pump(visitor);
    CHECK(got_close(&visitor->far, 1013, "slow") && got_nothing(&visitor->far));
    close_house(3);
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
    static const unsigned codes[] = {1000, 1001, 1002, 1005, 1007, 1008,
                                     1009, 1011, 1013, 3000, 4000, 4999};
    uint64_t ends = 0;

    open_house(0);
    node.hub.now = UNIX_NOW;
    for (size_t i = 0; i < COUNT(codes); i++)
        for (int closed = 0; closed < 2; closed++) {
            struct test_client *visitor = &visitors[0];
            const char *reason = closed ? "closed by the client" : "because \"x\"";

            arrive(visitor, STR("shop"));
            node.hub.now += 61;
            if (closed)
                hub_end_client(&node.hub, visitor->conn.client, HUB_END_PEER, codes[i],
                               STR("closed by the client"));
            else
                hub_end_client(&node.hub, visitor->conn.client, HUB_END_CLOSED, codes[i],
                               str_from("because \"x\""));
            ends++;
            CHECK(closes_of(codes[i]) ==
                  (codes[i] >= 3000 ? 2 * (i - 9) : 0) + 1 + (uint64_t)closed);
            CHECK(closes_in_all() == ends);
            depart(visitor); /* which is no other end */
            CHECK(closes_in_all() == ends);
            CHECK(
                node_logged(say(" info client closed client=\"%s\" system=\"shop\" "
                                "remote=\"127.0.0.1\" code=%u reason=\"%s\" seconds=61 queued=0\n",
                                visitor->id, codes[i], closed ? reason : "because \\\"x\\\"")));
        }
    arrive(&visitors[0], STR("shop"));
    hub_end_client(&node.hub, visitors[0].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("reset"));
    CHECK(closes_of(WS_CLOSE_ABNORMAL) == 1 && closes_in_all() == ends + 1);
    CHECK(node_logged("info client lost") && node_logged(" code=1006 reason=\"reset\" seconds=0"));
    depart(&visitors[0]);
    arrive(&visitors[0], STR("shop"));
    hub_end_client(&node.hub, visitors[0].conn.client, HUB_END_CLOSED, 1000, (struct str){0});
    CHECK(node_logged(" code=1000 reason=\"\" seconds=0 queued=0\n"));
    CHECK(node.hub.counts.slow == 0);
    close_house(1);
}

/* Close frames to those who have become no clients are counted too. */
static void whoever_is_sent_a_close_frame_is_counted(void)
{
    struct test_client *visitor = &visitors[0];

    open_house(0);
    conn_open(&visitor->conn, far_open(&visitor->far), &node.shared);
    hub_send_close(&node.hub, &visitor->conn, 1008, STR("unknown system"));
    flush();
    CHECK(got_close(&visitor->far, 1008, "unknown system"));
    CHECK(closes_of(1008) == 1 && closes_in_all() == 1);
    close_house(1);
}

/* Ids, notices and pushes, each for each of its clients; pongs and refusals are no messages. */
static void messages_are_counted(void)
{
    open_house(3);
    CHECK(node.hub.counts.sent == 3);
    for (int i = 0; i < 3; i++)
        CHECK(succeeds(bind_to("shop", &visitors[i], "g")));
    CHECK(node.hub.counts.sent == 3 + 3 + 2 + 1);
    apply(send_to_group("shop", "g", "1"));
    CHECK(node.hub.counts.sent == 12);
    apply(send_to_group("shop", "none", "1"));
    apply(send_to_client("shop", STR("0123456789abcdef"), "1"));
    CHECK(node.hub.counts.sent == 12);
    apply(send_to_client("shop", id_of(&visitors[0]), "1"));
    CHECK(node.hub.counts.sent == 13);
    hub_queue_frame(&node.hub, &visitors[0].conn, WS_PONG, STR("x"));
    CHECK(node.hub.counts.sent == 13);
    node.config.scope = NOTICE_OFF;
    leave(&visitors[0]);
    CHECK(node.hub.counts.sent == 13);
    node.config.scope = NOTICE_GROUP;
    leave(&visitors[1]); /* one is left, who is told */
    CHECK(node.hub.counts.sent == 14 && node.hub.counts.dropped == 0);
    close_house(3);
}

/* Who is too slow is dropped, and closed, once. */
static void slow_ones_are_counted(void)
{
    uint64_t sent;
    unsigned queued;

    open_house(3);
    node.config.send_queue = QUEUE;
    node.config.scope = NOTICE_OFF;
    for (int i = 0; i < 3; i++)
        CHECK(succeeds(bind_to("shop", &visitors[i], "g")));
    stuff(&visitors[0]);
    stuff(&visitors[1]);
    CHECK(node.hub.counts.dropped == 0 && node.hub.counts.slow == 0);
    sent = node.hub.counts.sent;
    queued = visitors[1].conn.queued;
    apply(send_to_group("shop", "g", "1"));
    CHECK(node.hub.counts.dropped == 2 && node.hub.counts.slow == 2);
    CHECK(node.hub.counts.sent == sent + 1);
    CHECK(closes_of(1013) == 2 && closes_in_all() == 2);
    CHECK(node_logged(" warn client closed: it reads slower than it is sent to client="));
    CHECK(node_logged(say(" code=1013 reason=\"slow\" seconds=0 queued=%u\n", queued)));
    stuff(&visitors[2]);
    hub_end_client(&node.hub, visitors[2].conn.client, HUB_END_SLOW, WS_CLOSE_TRY_LATER,
                   STR("slow"));
    CHECK(node.hub.counts.dropped == 2 && node.hub.counts.slow == 3 && closes_of(1013) == 3);
    close_house(3);
    CHECK(node.hub.kinds[0] + node.hub.kinds[1] + node.hub.kinds[2] == 0);
}

/* Ends below the level of the log leave no line, and are counted all the same. */
static void a_quiet_log_counts_too(void)
{
    open_house(2);
    node.log.level = LOG_WARN;
    leave(&visitors[0]);
    hub_end_client(&node.hub, visitors[1].conn.client, HUB_END_CLOSED, 1000, STR(""));
    CHECK(closes_of(WS_CLOSE_ABNORMAL) == 1 && closes_of(1000) == 1);
    CHECK(ftell(node.log.file) == 0);
    close_house(2);
}

/* --- the end of the hub ---------------------------------------------------------------------- */

/* A hub that is closed with clients in it frees all of them; their connections are left alone. */
static void closing_frees_everything(void)
{
    struct hub hub;

    node_open();
    CHECK(hub_open(&hub, &node.config, &node.log));
    for (size_t i = 0; i < 4; i++) {
        struct command command = {.kind = COMMAND_BIND,
                                  .system = i % 2 ? STR("shop") : STR("other"),
                                  .group = STR("g"),
                                  .user = STR("u"),
                                  .has_user = true,
                                  .extend = STR("e"),
                                  .has_extend = true};
        struct test_client *visitor = &visitors[i];

        conn_open(&visitor->conn, far_open(&visitor->far), &node.shared);
        CHECK(hub_connect(&hub, &visitor->conn, command.system));
        flush();
        CHECK(got_id_frame(&visitor->far, visitor->id));
        command.client = quoted(id_of(visitor));
        result = (struct result){0};
        hub_apply(&hub, &command, &result);
        CHECK(result.code == RESULT_SUCCESS);
    }
    hub_close(&hub);
    for (size_t i = 0; i < 4; i++) {
        CHECK(!visitors[i].conn.broken);
        visitors[i].conn.client = NULL;
    }
    close_house(4);
}

/* --- a random walk --------------------------------------------------------------------------- */

#define WALKERS 20
#define GROUPS 4
#define USERS 3
#define WALK 2500

/* What the hub should know of a visitor, and what is to arrive there after the present step. */
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
    struct test_client visitors[WALKERS];
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

    return notice(code, walk.visitors[who].id, walk_users[walker->user], walker->extend,
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
    if (walk.visitors[who].id[0])
        depart(&walk.visitors[who]);
    arrive(&walk.visitors[who], str_from(walk_systems[walker->system]));
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
        leave(&walk.visitors[who]);
        return;
    }
    hub_end_client(&node.hub, walk.visitors[who].conn.client, HUB_END_CLOSED, 1001, STR("x"));
    flush();
    CHECK(got_close(&walk.visitors[who].far, 1001, "x"));
}

/* Puts the user in front, and whoever stood there at the end. */
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
        bind_to(walk_systems[walker->system], &walk.visitors[who], walk_groups[group]);

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
        unbind_from(walk_systems[walker->system], &walk.visitors[who], walk_groups[group])));
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
    const char *number = say("%u", draw(1000));
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
            str_from(say("[\"%s\",\"%s\"]", walk.visitors[out[0]].id, walk.visitors[out[1]].id));
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
    apply(send_to_client(walk_systems[system], id_of(&walk.visitors[who]), "1"));
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
        good = good && contains(str_of(&result.list), say("\"%s\"", walk.visitors[i].id));
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
            groups = say("%s%s\"%s\"", groups, groups[0] ? "," : "", walk_groups[walker->list[i]]);
    CHECK(succeeds(about_client(COMMAND_CLIENT_INFO, walk_systems[walker->system],
                                id_of(&walk.visitors[who]))));
    CHECK(same(str_of(&result.list), str_from(info_of(&walk.visitors[who], walk_users[walker->user],
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
    else if (what == 7 && walk.visitors[who].id[0])
        walk_send_to_one(who);
    else
        walk_send();
}

static bool walk_frames_are_right(void)
{
    bool good = true;

    for (size_t i = 0; i < WALKERS; i++) {
        struct test_client *visitor = &walk.visitors[i];

        for (unsigned k = 0; k < walk.walkers[i].expected_count; k++)
            good = got_text(&visitor->far, walk.walkers[i].expected[k]) && good;
        walk.walkers[i].expected_count = 0;
        if (visitor->id[0])
            good = got_nothing(&visitor->far) && good;
    }
    return good;
}

/* The audiences there must be: those with a member. */
static size_t count_walk_audiences(void)
{
    bool systems[2] = {0}, groups[2][GROUPS] = {0}, users[2][USERS + 1] = {0};
    size_t count = 0;

    for (size_t i = 0; i < WALKERS; i++) {
        const struct walker *walker = &walk.walkers[i];

        if (!walker->online)
            continue;
        systems[walker->system] = users[walker->system][walker->user] = true;
        for (int group = 0; group < GROUPS; group++)
            groups[walker->system][group] |= walker->in[group];
    }
    for (int system = 0; system < 2; system++) {
        count += systems[system];
        for (int group = 0; group < GROUPS; group++)
            count += groups[system][group];
        for (int user = 1; user <= USERS; user++)
            count += users[system][user];
    }
    return count;
}

/* True if the hub's count of each kind of audience is right. */
static bool walk_kinds_are_right(void)
{
    bool found[COUNT(walk_systems)][1 + GROUPS + USERS + 1] = {{false}};
    size_t expected[CHANNEL_GROUP + 1] = {0};

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
    return memcmp(node.hub.kinds, expected, sizeof expected) == 0;
}

static void walk_about(enum config_notice scope)
{
    bool good = true;

    node_open();
    node.config.scope = scope;
    memset(&walk, 0, sizeof walk);
    walk.state = 42 + (uint64_t)scope;
    for (size_t i = 0; i < WALKERS; i++)
        walk.visitors[i].far.fd = -1;
    for (int step = 0; step < WALK && good && test_good; step++) {
        take_walk_step();
        good = CHECK(walk_frames_are_right()) &&
               CHECK(node.hub.channels.names.count == count_walk_audiences()) &&
               CHECK(walk_kinds_are_right());
        if (!good || !test_good)
            printf("  that was step %d, scope %u\n", step, (unsigned)scope);
    }
    for (size_t i = 0; i < WALKERS; i++)
        if (walk.visitors[i].id[0])
            depart(&walk.visitors[i]);
    close_house(0);
}

static void a_random_walk_follows_the_model(void)
{
    walk_about(NOTICE_GROUP);
    walk_about(NOTICE_SYSTEM);
    walk_about(NOTICE_OFF);
}

/* --- a hub in a cluster ---------------------------------------------------------------------- */

#define RESIDENTS 6
#define NOTES 4096

/* What the hooks were told of a client, until the test takes it. */
struct note {
    enum presence_kind kind;
    bool told;
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
} told;

static void keep_text(char *room, size_t size, struct str text)
{
    if (CHECK(text.length < size))
        snprintf(room, size, "%.*s", (int)text.length, text.length ? text.at : "");
}

/* The id of the client with this number on this node. */
static const char *id_of_number(uint64_t number)
{
    return say("here%064llx", (unsigned long long)number);
}

static bool seal_number(void *state, uint64_t number, char id[HUB_ID_TEXT])
{
    CHECK(state == &told);
    memcpy(id, id_of_number(number), HUB_ID_TEXT);
    return !told.cannot_seal;
}

static bool open_number(void *state, struct json_value id, uint64_t *number)
{
    char room[HUB_ID_TEXT];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    unsigned char bytes[32];

    CHECK(state == &told);
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
    struct change *change = &told.changes[told.changes_count];

    if (!CHECK(state == &told && told.changes_count < NOTES))
        return;
    told.changes_count++;
    *change = (struct change){.kind = kind, .exists = exists};
    keep_text(change->system, sizeof change->system, system);
    keep_text(change->name, sizeof change->name, name);
}

static void note_presence(void *state, const struct hub_presence *presence)
{
    struct note *note = &told.notes[told.count];

    if (!CHECK(state == &told && told.count < NOTES))
        return;
    told.count++;
    *note = (struct note){.kind = presence->kind, .told = presence->notify};
    keep_text(note->system, sizeof note->system, presence->system);
    keep_text(note->group, sizeof note->group, presence->group);
    keep_text(note->id, sizeof note->id, presence->id);
    keep_text(note->json, sizeof note->json, presence->client_json);
}

static const struct hub_hooks hooks = {&told, seal_number, open_number, note_channel,
                                       note_presence};

/* The next note, or NULL. */
static const struct note *take_note(void)
{
    return told.first < told.count ? &told.notes[told.first++] : NULL;
}

/* Takes all notes; how many they were. */
static size_t drop_notes(void)
{
    size_t count = told.count - told.first;

    told.first = told.count = 0;
    return count;
}

/* A client of a hub in a cluster, whose ids are longer. */
struct resident {
    struct conn conn;
    struct far_end far;
    char id[HUB_ID_TEXT + 1];
};

static struct resident residents[RESIDENTS];

static struct str resident_id(size_t who)
{
    return str_from(residents[who].id);
}

/* An id of a cluster as JSON. */
static struct json_value quoted_id(struct str id)
{
    return (struct json_value){JSON_STRING, str_from(say("\"%.*s\"", (int)id.length, id.at))};
}

static bool got_sealed_hello(struct resident *resident)
{
    static const char before[] = "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"";
    struct far_frame frame = {0};

    memset(resident->id, 0, sizeof resident->id);
    if (!far_next(&resident->far, &frame) ||
        frame.payload.length != sizeof before - 1 + HUB_ID_TEXT + 3)
        return false;
    memcpy(resident->id, frame.payload.at + sizeof before - 1, HUB_ID_TEXT);
    return same(frame.payload, str_from(say("%s%s\"}}", before, resident->id)));
}

static void move_in(size_t who, const char *system)
{
    static const unsigned char local[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};
    struct resident *resident = &residents[who];

    conn_open(&resident->conn, far_open(&resident->far), &node.shared);
    memcpy(resident->conn.address, local, sizeof local);
    CHECK(hub_connect(&node.hub, &resident->conn, str_from(system)));
    flush();
    CHECK(got_sealed_hello(resident));
}

static void move_out(size_t who)
{
    struct resident *resident = &residents[who];

    if (resident->conn.client)
        hub_end_client(&node.hub, resident->conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       STR("test"));
    flush();
    conn_kill(&resident->conn);
    flush();
    conn_close(&resident->conn);
    far_close(&resident->far);
}

/* A hub of a cluster with the first `count` residents in the system shop. */
static void open_settlement(size_t count)
{
    node_open();
    memset(&told, 0, sizeof told);
    CHECK(!node.hub.hooks);
    node.hub.hooks = &hooks;
    for (size_t i = 0; i < count; i++)
        move_in(i, "shop");
}

/* The channels that came must have gone. */
static void close_settlement(size_t count)
{
    int open = 0;

    for (size_t i = 0; i < count; i++)
        move_out(i);
    for (size_t i = 0; i < told.changes_count; i++)
        open += told.changes[i].exists ? 1 : -1;
    CHECK(open == 0);
    buf_free(&result.list);
    node_close();
}

static struct command settle_in(size_t who, const char *group, const char *user, const char *extend)
{
    return (struct command){.kind = COMMAND_BIND,
                            .system = STR("shop"),
                            .client = quoted_id(resident_id(who)),
                            .group = str_from(group),
                            .user = str_from(user),
                            .has_user = user != NULL,
                            .extend = str_from(extend),
                            .has_extend = extend != NULL};
}

static struct command settle_out(size_t who, const char *group)
{
    struct command command = settle_in(who, group, NULL, NULL);

    command.kind = COMMAND_UNBIND;
    return command;
}

/* True if nobody has got anything. */
static bool nobody_got_anything(size_t count)
{
    bool good = true;

    flush();
    for (size_t i = 0; i < count; i++)
        good = got_nothing(&residents[i].far) && good;
    return good;
}

/* --- their ids ------------------------------------------------------------------------------- */

/* Who is online here is so in its own system, and what an id is the cluster says. */
static void online_is_who_is_here(void)
{
    struct json_value ids[2];
    uint64_t number = 0;

    open_settlement(2);
    for (size_t i = 0; i < 2; i++) {
        ids[i] = quoted_id(resident_id(i));
        CHECK(hub_is_online(&node.hub, STR("shop"), ids[i]));
        CHECK(!hub_is_online(&node.hub, STR("other"), ids[i]));
        CHECK(!hub_is_online(&node.hub, STR(""), ids[i]));
        CHECK(open_number(&told, ids[i], &number) && number != 0);
        CHECK(
            !hub_is_online(&node.hub, STR("shop"), quoted_id(str_from(id_of_number(number + 1)))));
        /* the number alone, as on a node that is alone, is nobody's id */
        CHECK(!hub_is_online(&node.hub, STR("shop"),
                             quoted_id(str_from(say("%016llx", (unsigned long long)number)))));
    }
    move_out(0);
    CHECK(!hub_is_online(&node.hub, STR("shop"), ids[0]));
    CHECK(hub_is_online(&node.hub, STR("shop"), ids[1]));
    move_in(0, "shop");
    CHECK(!hub_is_online(&node.hub, STR("shop"), ids[0]));
    close_settlement(2);

    open_house(1);
    CHECK(hub_is_online(&node.hub, STR("shop"), quoted(id_of(&visitors[0]))));
    CHECK(!hub_is_online(&node.hub, STR("other"), quoted(id_of(&visitors[0]))));
    CHECK(!hub_is_online(&node.hub, STR("shop"), quoted(STR("0123456789abcdef"))));
    leave(&visitors[0]);
    CHECK(!hub_is_online(&node.hub, STR("shop"), quoted(id_of(&visitors[0]))));
    close_house(1);
}

/* A client without an id could not be reached: it is refused, and nothing has changed. */
static void who_gets_no_id_is_refused(void)
{
    struct conn conn;
    struct far_end far;

    open_settlement(0);
    told.cannot_seal = true;
    conn_open(&conn, far_open(&far), &node.shared);
    CHECK(!hub_connect(&node.hub, &conn, STR("shop")));
    CHECK(!conn.client && node.hub.channels.clients.count == 0 &&
          node.hub.channels.names.count == 0);
    CHECK(told.changes_count == 0 && drop_notes() == 0);
    conn_close(&conn);
    far_close(&far);
    close_settlement(0);
}

/* All commands take and give the long ids. */
static void commands_use_sealed_ids(void)
{
    struct command command;
    const char *foreign = say("\"%068d\"", 0);

    open_settlement(3);
    node.config.scope = NOTICE_OFF;
    for (size_t i = 0; i < 3; i++)
        CHECK(succeeds(settle_in(i, "g", "u", "e")));
    CHECK(succeeds(list_of("shop", "g")) && result.count == 3);
    CHECK(same(str_of(&result.list), str_from(say("\"%s\",\"%s\",\"%s\"", residents[0].id,
                                                  residents[1].id, residents[2].id))));
    command = about_client(COMMAND_CLIENT_INFO, "shop", (struct str){0});
    command.client = quoted_id(resident_id(1));
    CHECK(succeeds(command));
    CHECK(same(str_of(&result.list),
               str_from(say("{\"clientId\":\"%s\",\"userId\":\"u\",\"extend\":\"e\",\"groups\":"
                            "[\"g\"],\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}",
                            residents[1].id))));
    command = send_to(COMMAND_SEND_TO_CLIENT, "shop", "1");
    command.client = quoted_id(resident_id(2));
    CHECK(succeeds(command) && result.matched == 1);
    CHECK(got_text(&residents[2].far, pushed("1")) && nobody_got_anything(3));
    command = send_to(COMMAND_SEND_TO_CLIENTS, "shop", "2");
    command.clients = str_from(say("[\"%s\",%s,\"x\"]", residents[0].id, foreign));
    CHECK(succeeds(command) && result.count == 2 && result.queued == 1);
    CHECK(same(str_of(&result.list), str_from(say("%s,\"x\"", foreign))));
    CHECK(got_text(&residents[0].far, pushed("2")) && nobody_got_anything(3));
    command = send_to_group("shop", "g", "3");
    command.clients = str_from(say("[\"%s\",%s]", residents[1].id, foreign));
    CHECK(succeeds(command) && result.matched == 2);
    CHECK(got_text(&residents[0].far, pushed("3")) && got_text(&residents[2].far, pushed("3")));
    CHECK(nobody_got_anything(3));
    command = about_client(COMMAND_CLOSE_CLIENT, "shop", (struct str){0});
    command.client = quoted_id(resident_id(0));
    command.close_code = 4000;
    command.reason = STR("bye");
    CHECK(succeeds(command) && got_close(&residents[0].far, 4000, "bye"));
    CHECK(apply(command)->code == RESULT_OFFLINE);
    CHECK(succeeds(list_of("shop", "g")) && result.count == 2 && nobody_got_anything(3));
    close_settlement(3);
}

static void slow_clients_are_named_by_their_sealed_id(void)
{
    struct command command;

    open_settlement(2);
    for (size_t i = 0; i < 2; i++)
        CHECK(succeeds(settle_in(i, "g", NULL, NULL)));
    drop_notes();
    hub_end_client(&node.hub, residents[0].conn.client, HUB_END_SLOW, WS_CLOSE_TRY_LATER,
                   STR("slow"));
    CHECK(node_logged(residents[0].id) && drop_notes() == 1);
    CHECK(nobody_got_anything(0) && got_close(&residents[0].far, 1013, "slow"));
    command = send_to(COMMAND_SEND_TO_SYSTEM, "shop", "1");
    CHECK(succeeds(command) && result.matched == 1 && got_text(&residents[1].far, pushed("1")));
    close_settlement(2);
}

/* --- channels -------------------------------------------------------------------------------- */

/* Takes the next change of a channel, which must be this one. */
static bool channel_changed(enum channel_kind kind, const char *system, const char *name,
                            bool exists)
{
    const struct change *change = &told.changes[told.changes_first];
    bool good = told.changes_first < told.changes_count && change->kind == kind &&
                change->exists == exists && strcmp(change->system, system) == 0 &&
                strcmp(change->name, name) == 0;

    if (!good)
        printf("  no change of %s %s\n", system, name);
    told.changes_first += told.changes_first < told.changes_count;
    return good;
}

static bool no_channel_changed(void)
{
    return told.changes_first == told.changes_count;
}

/* A channel is told once when its first member comes, and once when its last one has gone. */
static void channels_come_and_go(void)
{
    open_settlement(0);
    move_in(0, "shop");
    CHECK(channel_changed(CHANNEL_SYSTEM, "shop", "shop", true) && no_channel_changed());
    move_in(1, "shop"); /* the channel is there: nothing has changed */
    CHECK(no_channel_changed());
    move_in(2, "other");
    CHECK(channel_changed(CHANNEL_SYSTEM, "other", "other", true) && no_channel_changed());
    CHECK(succeeds(settle_in(0, "g", "u", NULL)));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "g", true));
    CHECK(channel_changed(CHANNEL_USER, "shop", "u", true) && no_channel_changed());
    CHECK(succeeds(settle_in(1, "g", "u", NULL)) && no_channel_changed());
    CHECK(succeeds(settle_in(1, "g", "v", NULL)));
    CHECK(channel_changed(CHANNEL_USER, "shop", "v", true) && no_channel_changed());
    CHECK(succeeds(settle_in(0, "h", "v", NULL)));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "h", true));
    CHECK(channel_changed(CHANNEL_USER, "shop", "u", false) && no_channel_changed());
    CHECK(succeeds(settle_out(0, "g")) && no_channel_changed());
    CHECK(succeeds(settle_out(1, "g")));
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "g", false) && no_channel_changed());
    CHECK(succeeds(settle_out(1, "never")) && no_channel_changed());
    move_out(0);
    CHECK(channel_changed(CHANNEL_GROUP, "shop", "h", false) && no_channel_changed());
    move_out(1);
    CHECK(channel_changed(CHANNEL_USER, "shop", "v", false));
    CHECK(channel_changed(CHANNEL_SYSTEM, "shop", "shop", false) && no_channel_changed());
    move_out(2);
    CHECK(channel_changed(CHANNEL_SYSTEM, "other", "other", false) && no_channel_changed());
    close_settlement(0);
}

/* --- presence -------------------------------------------------------------------------------- */

/* Takes the next note, which must be this one; the group is empty where it is the system's. */
static bool noted(enum presence_kind kind, bool is_told, const char *system, const char *group,
                  size_t who, const char *user, const char *extend)
{
    const char *json = subject(residents[who].id, user, extend, group[0] ? group : NULL);
    const struct note *note = take_note();
    bool good = note && note->kind == kind && note->told == is_told &&
                same(str_from(note->system), str_from(system)) &&
                same(str_from(note->group), str_from(group)) &&
                same(str_from(note->id), quoted_id(resident_id(who)).text) &&
                same(str_from(note->json), str_from(json));

    if (!good)
        printf("  %s, kind %d, expected %d of %s\n", note ? "another note" : "no note",
               note ? (int)note->kind : -1, (int)kind, group);
    return good;
}

static bool noted_nothing(void)
{
    const struct note *note = take_note();

    if (note)
        printf("  a note of kind %d\n", (int)note->kind);
    return !note;
}

/* A hub in a cluster tells nobody itself: the hooks reach the members on all nodes. */
static void joins_and_leaves_are_for_the_hooks(void)
{
    open_settlement(2);
    CHECK(noted_nothing());
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 0, "", "") && noted_nothing());
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)) && noted_nothing()); /* it is there already */
    CHECK(succeeds(settle_in(1, "g", NULL, NULL)) && succeeds(settle_in(1, "h", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 1, "", ""));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "h", 1, "", "") && noted_nothing());
    CHECK(succeeds(settle_out(1, "g")));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(succeeds(settle_out(1, "g")) && succeeds(settle_out(1, "never")) && noted_nothing());
    CHECK(succeeds(settle_in(1, "g", NULL, NULL)) && drop_notes() == 1);
    CHECK(nobody_got_anything(2));
    move_out(1);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", ""));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "h", 1, "", "") && noted_nothing());
    CHECK(nobody_got_anything(1));
    hub_end_client(&node.hub, residents[0].conn.client, HUB_END_CLOSED, 1001, STR("x"));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 0, "", "") && noted_nothing());
    flush();
    CHECK(got_close(&residents[0].far, 1001, "x") && nobody_got_anything(1));
    close_settlement(1);
}

/* The records of a crowd follow who comes and goes, and nobody is told. */
static void a_crowd_is_recorded_and_not_told(void)
{
    open_settlement(4);
    node.config.max_members = 2;
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)) && succeeds(settle_in(1, "g", NULL, NULL)));
    CHECK(drop_notes() == 2);
    for (size_t i = 2; i < 4; i++) {
        CHECK(succeeds(settle_in(i, "g", NULL, NULL)));
        CHECK(noted(PRESENCE_JOIN, false, "shop", "g", i, "", "") && noted_nothing());
    }
    CHECK(count_logged(CROWDED "group=\"g\" max_members=2\n") == 1);
    CHECK(succeeds(settle_out(3, "g")));
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "g", 3, "", "") && noted_nothing());
    CHECK(succeeds(settle_in(3, "g", NULL, NULL)) && drop_notes() == 1);
    move_out(3);
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "g", 3, "", "") && noted_nothing());
    move_out(2); /* two are left */
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 2, "", "") && noted_nothing());
    CHECK(succeeds(settle_out(1, "g")));
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(succeeds(settle_in(1, "g", NULL, NULL)));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "g", 1, "", "") && noted_nothing());
    CHECK(nobody_got_anything(2) && !node.hub.channels.notified.first);
    node.config.scope = NOTICE_SYSTEM;
    node.config.max_members = 1;
    move_in(2, "shop");
    CHECK(noted(PRESENCE_JOIN, false, "shop", "", 2, "", "") && noted_nothing());
    move_out(2);
    CHECK(noted(PRESENCE_LEAVE, false, "shop", "", 2, "", "") && noted_nothing());
    move_out(1);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "", 1, "", "") && noted_nothing());
    close_settlement(1);
}

/* Records are written again when what they say changes, and only then; nobody is told. */
static void changes_of_user_and_extend_are_recorded(void)
{
    open_settlement(1);
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)) && succeeds(settle_in(0, "h", NULL, NULL)));
    CHECK(drop_notes() == 2);
    CHECK(succeeds(settle_in(0, "g", "ann", NULL))); /* which moves g behind h */
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", ""));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(settle_in(0, "h", NULL, "red\"\x01")));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", "red\\\"\\u0001"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "red\\\"\\u0001"));
    CHECK(noted_nothing());
    /* the same again, or a part of it, changes nothing: 100 clients in 150 groups each */
    CHECK(succeeds(settle_in(0, "g", "ann", "red\"\x01")) && noted_nothing());
    CHECK(succeeds(settle_in(0, "h", "ann", NULL)) && noted_nothing());
    CHECK(succeeds(settle_in(0, "h", NULL, "red\"\x01")) && noted_nothing());
    CHECK(succeeds(settle_in(0, "h", NULL, "")));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "ann", ""));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(settle_in(0, "h", NULL, "")) && noted_nothing());
    /* a group that is new is told first, and the others are written again */
    CHECK(succeeds(settle_in(0, "i", "bob", "blue")));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "i", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "h", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "g", 0, "bob", "blue"));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "i", 0, "bob", "blue"));
    CHECK(noted_nothing() && nobody_got_anything(1));
    CHECK(succeeds(settle_in(0, "k", "bob", "blue")));
    CHECK(noted(PRESENCE_JOIN, true, "shop", "k", 0, "bob", "blue") && noted_nothing());
    CHECK(succeeds(settle_out(0, "k")) && drop_notes() == 1);
    /* the user is taken off */
    CHECK(succeeds(settle_in(0, "i", "", NULL)) && drop_notes() == 3);
    CHECK(succeeds(settle_in(0, "i", "", NULL)) && noted_nothing());
    CHECK(succeeds(settle_in(0, "i", "bob", NULL)) && drop_notes() == 3);
    /* who leaves is told with what it was */
    move_out(0);
    {
        static const char *const groups[] = {"i", "g", "h"};
        size_t found = 0;
        const struct note *note;

        for (; (note = take_note()); found++)
            CHECK(note->kind == PRESENCE_LEAVE && note->told &&
                  contains(str_from(note->json), "bob") && contains(str_from(note->json), "blue"));
        CHECK(found == COUNT(groups));
    }
    close_settlement(0);
}

/* With the system as scope the notes are its own, and groups have none; with `off` nobody has. */
static void notes_follow_the_scope(void)
{
    open_settlement(0);
    node.config.scope = NOTICE_SYSTEM;
    move_in(0, "shop");
    CHECK(noted(PRESENCE_JOIN, true, "shop", "", 0, "", "") && noted_nothing());
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)) && noted_nothing());
    CHECK(succeeds(settle_in(0, "g", "ann", NULL)));
    CHECK(noted(PRESENCE_REFRESH, false, "shop", "", 0, "ann", "") && noted_nothing());
    CHECK(succeeds(settle_out(0, "g")) && noted_nothing());
    move_in(1, "other");
    CHECK(noted(PRESENCE_JOIN, true, "other", "", 1, "", "") && noted_nothing());
    move_out(0);
    CHECK(noted(PRESENCE_LEAVE, true, "shop", "", 0, "ann", "") && noted_nothing());
    CHECK(nobody_got_anything(0) && got_nothing(&residents[1].far));
    node.config.scope = NOTICE_OFF;
    move_in(0, "shop");
    CHECK(succeeds(settle_in(0, "g", "ann", "x")) && succeeds(settle_out(0, "g")));
    move_out(0);
    move_out(1);
    CHECK(noted_nothing());
    close_settlement(0);
}

/* Several slow clients at once: each leaves once, and no notice of it makes others slow. */
static void slow_clients_leave_once(void)
{
    open_settlement(3);
    for (size_t i = 0; i < 3; i++)
        CHECK(succeeds(settle_in(i, "g", NULL, NULL)));
    CHECK(drop_notes() == 3);
    node.config.send_queue = 10;
    for (size_t i = 0; i < 2; i++) {
        residents[i].conn.want_write = true;
        CHECK(hub_queue_frame(&node.hub, &residents[i].conn, WS_TEXT, STR("0123456789")));
    }
    apply_only(send_to_group("shop", "g", "1"));
    CHECK(result.matched == 3 && result.queued == 1 && result.dropped == 2);
    CHECK(drop_notes() == 2 && node.hub.channels.clients.count == 1);
    for (size_t i = 0; i < 2; i++)
        residents[i].conn.want_write = false;
    flush();
    CHECK(got_text(&residents[2].far, pushed("1")) && got_nothing(&residents[2].far));
    close_settlement(3);
}

/* All that is here is told again: Redis may have lost it, or this node was taken for dead. */
static void all_that_is_here_is_reported(void)
{
    open_settlement(3);
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    CHECK(noted_nothing()); /* nobody is in a group */
    CHECK(succeeds(settle_in(0, "g", "ann", "x")) && succeeds(settle_in(0, "h", NULL, NULL)));
    CHECK(succeeds(settle_in(1, "g", NULL, NULL)));
    for (int is_told = 0; is_told < 2; is_told++) {
        unsigned found[3] = {0};
        const struct note *note;

        drop_notes();
        hub_refresh_presence(&node.hub, &(struct table_scan){0}, is_told);
        while ((note = take_note())) {
            bool is_first = str_equal(str_from(note->id), quoted_id(resident_id(0)).text);
            bool is_h = strcmp(note->group, "h") == 0;

            CHECK(note->kind == PRESENCE_REFRESH && note->told == is_told);
            CHECK(strcmp(note->system, "shop") == 0);
            CHECK(same(str_from(note->json),
                       str_from(is_first ? subject(residents[0].id, "ann", "x", note->group)
                                         : subject(residents[1].id, "", "", note->group))));
            CHECK(is_h ? is_first : strcmp(note->group, "g") == 0);
            found[is_first ? is_h : 2]++;
        }
        CHECK(found[0] == 1 && found[1] == 1 && found[2] == 1);
    }
    node.config.max_members = 1; /* g is a crowd now: it is recorded, and not told */
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    for (const struct note *note; (note = take_note());)
        CHECK(note->told == (strcmp(note->group, "h") == 0));
    node.config.max_members = 0;
    node.config.scope = NOTICE_SYSTEM;
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, false);
    CHECK(drop_notes() >= 3);
    drop_notes();
    node.config.scope = NOTICE_OFF;
    hub_refresh_presence(&node.hub, &(struct table_scan){0}, true);
    CHECK(noted_nothing() && nobody_got_anything(3));
    close_settlement(3);
}

/* A report is cut into batches, and misses none that stays although another leaves in between. */
static void a_report_comes_in_batches(void)
{
    struct table_scan scan = {0};
    unsigned found[2] = {0};
    size_t batches = 1;

    open_settlement(3);
    for (int i = 0; i < 400; i++)
        for (size_t who = 0; who < 3; who++)
            CHECK(succeeds(settle_in(who, say("g%d", i), NULL, NULL)));
    drop_notes();
    CHECK(hub_refresh_presence(&node.hub, &scan, false));
    CHECK(told.count >= HUB_REFRESH_BATCH && told.count < HUB_REFRESH_BATCH + 400);
    hub_end_client(&node.hub, residents[2].conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("test"));
    for (; hub_refresh_presence(&node.hub, &scan, false); batches++)
        ;
    for (const struct note *note; (note = take_note());)
        for (size_t who = 0; who < 2; who++)
            found[who] += note->kind == PRESENCE_REFRESH &&
                          str_equal(str_from(note->id), quoted_id(resident_id(who)).text);
    CHECK(batches < 3 && found[0] >= 400 && found[1] >= 400);
    close_settlement(3);
}

/* Notices of other nodes are told where there is somebody to tell, but for a crowd. */
static void notices_are_taken_where_they_are_told(void)
{
    open_settlement(3);
    CHECK(succeeds(settle_in(0, "g", NULL, NULL)) && succeeds(settle_in(1, "g", NULL, NULL)));
    CHECK(succeeds(settle_in(0, "h", NULL, NULL)));
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
    CHECK(succeeds(settle_out(0, "h")));
    CHECK(!hub_may_notify(&node.hub, STR("shop"), STR("h")));
    close_settlement(3);
}

/* Clients that are still there are freed with the hub. */
static void closing_a_hub_of_a_cluster_frees_everything(void)
{
    struct hub hub;
    struct conn conn;
    struct far_end far;

    node_open();
    memset(&told, 0, sizeof told);
    CHECK(hub_open(&hub, &node.config, &node.log));
    hub.hooks = &hooks;
    node.config.scope = NOTICE_SYSTEM;
    conn_open(&conn, far_open(&far), &node.shared);
    CHECK(hub_connect(&hub, &conn, STR("shop")));
    hub_refresh_presence(&hub, &(struct table_scan){0}, false);
    hub_close(&hub);
    flush();
    conn_close(&conn);
    far_close(&far);
    node_close();
}

/* --- a random walk in a cluster -------------------------------------------------------------- */

/* What a resident is in, as letters. */
struct stay {
    bool online;
    bool groups[3];
    unsigned user; /* 0 is none */
};

/* The channels that the hooks were told of. */
struct seen_channels {
    bool system, groups[3], users[3];
};

static void follow_channels(struct seen_channels *channels)
{
    for (; told.changes_first < told.changes_count; told.changes_first++) {
        const struct change *change = &told.changes[told.changes_first];
        unsigned number = (unsigned)(change->name[0] - '0');
        bool *channel = change->kind == CHANNEL_SYSTEM  ? &channels->system
                        : change->kind == CHANNEL_GROUP ? &channels->groups[number % 3]
                                                        : &channels->users[number % 3];

        CHECK(*channel != change->exists && strcmp(change->system, "shop") == 0);
        *channel = change->exists;
    }
    told.changes_first = told.changes_count = 0;
}

static void check_channels(const struct seen_channels *channels, const struct stay stays[RESIDENTS])
{
    struct seen_channels expected = {0};

    for (size_t i = 0; i < RESIDENTS; i++) {
        expected.system |= stays[i].online;
        for (size_t k = 0; k < 3; k++)
            expected.groups[k] |= stays[i].groups[k];
        if (stays[i].user)
            expected.users[stays[i].user] = true;
    }
    CHECK(memcmp(channels, &expected, sizeof expected) == 0);
}

/* Channels and notes follow a simple model. */
static void channels_and_notes_follow_the_model(void)
{
    struct stay stays[RESIDENTS] = {{0}};
    struct seen_channels channels = {0};
    uint32_t state = 99;

    open_settlement(0);
    for (int step = 0; step < 3000 && test_good; step++) {
        size_t who = next_random(&state) % RESIDENTS, group = next_random(&state) % 3;
        unsigned user = next_random(&state) % 3, what = next_random(&state) % 6;
        struct stay *stay = &stays[who];
        size_t notes = 0, expected = 0;

        if (!stay->online) {
            move_in(who, "shop");
            *stay = (struct stay){.online = true};
        } else if (what == 0) {
            for (size_t k = 0; k < 3; k++)
                expected += stay->groups[k];
            move_out(who);
            *stay = (struct stay){0};
        } else if (what < 3) {
            expected = stay->groups[group];
            CHECK(succeeds(settle_out(who, say("%zu", group))));
            stay->groups[group] = false;
        } else {
            bool is_new = !stay->groups[group], changes = user && user != stay->user;

            stay->groups[group] = true;
            stay->user = user ? user : stay->user;
            CHECK(succeeds(settle_in(who, say("%zu", group), user ? say("%u", user) : NULL, NULL)));
            for (size_t k = 0; k < 3; k++)
                expected += changes && stay->groups[k];
            expected += is_new;
        }
        notes = drop_notes();
        if (!CHECK(notes == expected))
            printf("  step %d: %zu notes, not %zu\n", step, notes, expected);
        follow_channels(&channels);
        check_channels(&channels, stays);
    }
    for (size_t i = 0; i < RESIDENTS; i++)
        if (stays[i].online)
            move_out(i);
    follow_channels(&channels);
    CHECK(!channels.system);
    close_settlement(0);
}

int main(void)
{
    test_run("pushes_are_written", pushes_are_written);
    test_run("envelopes_are_written", envelopes_are_written);
    test_run("writing_appends", writing_appends);
    test_run("too_little_room_is_told", too_little_room_is_told);
    test_run("the_first_frame_tells_the_id", the_first_frame_tells_the_id);
    test_run("an_id_is_sent_again", an_id_is_sent_again);
    test_run("ids_are_16_hex_digits_and_distinct", ids_are_16_hex_digits_and_distinct);
    test_run("notices_go_to_the_groups", notices_go_to_the_groups);
    test_run("notices_go_to_the_system", notices_go_to_the_system);
    test_run("notices_can_be_off", notices_can_be_off);
    test_run("the_end_is_told_to_each_group", the_end_is_told_to_each_group);
    test_run("who_leave_together_are_not_told_of_each_other",
             who_leave_together_are_not_told_of_each_other);
    test_run("notices_are_told_a_bounded_number_at_a_time",
             notices_are_told_a_bounded_number_at_a_time);
    test_run("who_is_unbound_meanwhile_is_not_told", who_is_unbound_meanwhile_is_not_told);
    test_run("a_crowded_group_is_not_told", a_crowded_group_is_not_told);
    test_run("a_crowded_system_is_not_told", a_crowded_system_is_not_told);
    test_run("without_max_members_all_are_told", without_max_members_all_are_told);
    test_run("user_and_extend_belong_to_the_client", user_and_extend_belong_to_the_client);
    test_run("names_are_quoted", names_are_quoted);
    test_run("groups_of_a_client_are_limited", groups_of_a_client_are_limited);
    test_run("tables_do_not_grow_with_those_who_come_and_go",
             tables_do_not_grow_with_those_who_come_and_go);
    test_run("the_online_list_is_of_the_group", the_online_list_is_of_the_group);
    test_run("sends_reach_whom_they_name", sends_reach_whom_they_name);
    test_run("a_send_to_one_reaches_it_alone", a_send_to_one_reaches_it_alone);
    test_run("ids_that_fail_are_listed", ids_that_fail_are_listed);
    test_run("data_arrives_byte_for_byte", data_arrives_byte_for_byte);
    test_run("long_data_arrives_whole", long_data_arrives_whole);
    test_run("a_frame_is_encoded_once", a_frame_is_encoded_once);
    test_run("order_is_kept", order_is_kept);
    test_run("systems_do_not_touch_each_other", systems_do_not_touch_each_other);
    test_run("systems_that_collide_stay_apart", systems_that_collide_stay_apart);
    test_run("foreign_ids_in_lists_are_unknown", foreign_ids_in_lists_are_unknown);
    test_run("who_is_not_online_cannot_be_told_apart", who_is_not_online_cannot_be_told_apart);
    test_run("a_client_is_closed_by_command", a_client_is_closed_by_command);
    test_run("a_broken_connection_is_not_slow", a_broken_connection_is_not_slow);
    test_run("a_full_queue_is_reported", a_full_queue_is_reported);
    test_run("a_slow_client_is_closed_and_nobody_else_loses",
             a_slow_client_is_closed_and_nobody_else_loses);
    test_run("a_send_to_a_slow_client_fails", a_send_to_a_slow_client_fails);
    test_run("an_id_twice_gets_one_frame", an_id_twice_gets_one_frame);
    test_run("a_user_is_taken_off", a_user_is_taken_off);
    test_run("one_slow_end_finds_the_next", one_slow_end_finds_the_next);
    test_run("a_group_of_slow_clients_vanishes", a_group_of_slow_clients_vanishes);
    test_run("a_newcomer_may_be_slow", a_newcomer_may_be_slow);
    test_run("ends_are_counted_by_code", ends_are_counted_by_code);
    test_run("whoever_is_sent_a_close_frame_is_counted", whoever_is_sent_a_close_frame_is_counted);
    test_run("messages_are_counted", messages_are_counted);
    test_run("slow_ones_are_counted", slow_ones_are_counted);
    test_run("a_quiet_log_counts_too", a_quiet_log_counts_too);
    test_run("closing_frees_everything", closing_frees_everything);
    test_run("a_random_walk_follows_the_model", a_random_walk_follows_the_model);
    test_run("online_is_who_is_here", online_is_who_is_here);
    test_run("who_gets_no_id_is_refused", who_gets_no_id_is_refused);
    test_run("commands_use_sealed_ids", commands_use_sealed_ids);
    test_run("slow_clients_are_named_by_their_sealed_id",
             slow_clients_are_named_by_their_sealed_id);
    test_run("channels_come_and_go", channels_come_and_go);
    test_run("joins_and_leaves_are_for_the_hooks", joins_and_leaves_are_for_the_hooks);
    test_run("a_crowd_is_recorded_and_not_told", a_crowd_is_recorded_and_not_told);
    test_run("changes_of_user_and_extend_are_recorded", changes_of_user_and_extend_are_recorded);
    test_run("notes_follow_the_scope", notes_follow_the_scope);
    test_run("slow_clients_leave_once", slow_clients_leave_once);
    test_run("all_that_is_here_is_reported", all_that_is_here_is_reported);
    test_run("a_report_comes_in_batches", a_report_comes_in_batches);
    test_run("notices_are_taken_where_they_are_told", notices_are_taken_where_they_are_told);
    test_run("closing_a_hub_of_a_cluster_frees_everything",
             closing_a_hub_of_a_cluster_frees_everything);
    test_run("channels_and_notes_follow_the_model", channels_and_notes_follow_the_model);
    return test_finish();
}

/* test_command.c - command.c: the JSON that is pushed and answered, byte for byte; and which
 * commands of another node may be done. */
#include "command.h"

#include "test.h"

#include <string.h>

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

static void says_what_clients_could_not_read(void)
{
    static const char reason[124];
    const struct command whole = {.kind = COMMAND_CLOSE_CLIENT,
                                  .group = STR("g"),
                                  .msg = STR("\"\""),
                                  .data = STR("0"),
                                  .close_code = 1000,
                                  .reason = {reason, 123}};
    static const struct {
        unsigned code;
        bool good;
    } rows[] = {{0, false},   {999, false},  {1001, false}, {1005, false}, {2999, false},
                {3000, true}, {4399, true},  {4400, false}, {4499, false}, {4500, true},
                {4999, true}, {5000, false}, {1000, true}};

    for (int kind = 0; kind <= COMMAND_CLIENT_INFO; kind++) {
        struct command command = whole, bare = {.kind = (enum command_kind)kind};
        bool sends = kind <= COMMAND_SEND_TO_SYSTEM;

        command.kind = (enum command_kind)kind;
        CHECK(wire_command_is_valid(&command));
        CHECK(
            wire_command_is_valid(&bare) ==
            (kind == COMMAND_UNBIND || kind == COMMAND_ONLINE_LIST || kind == COMMAND_CLIENT_INFO));
        command.msg = (struct str){0};
        CHECK(wire_command_is_valid(&command) != sends);
        command.msg = whole.msg;
        command.data = (struct str){0};
        CHECK(wire_command_is_valid(&command) != sends);
        command.data = whole.data;
        command.group = (struct str){0};
        CHECK(wire_command_is_valid(&command) == (kind != COMMAND_BIND));
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = whole;

        command.close_code = rows[i].code;
        CHECK(wire_command_is_valid(&command) == rows[i].good);
        command.reason.length++;
        CHECK(!wire_command_is_valid(&command));
    }
}

static void only_three_kinds_are_published(void)
{
    for (int kind = 0; kind <= COMMAND_CLIENT_INFO; kind++) {
        struct command command = {.kind = (enum command_kind)kind};

        CHECK(wire_command_is_published(&command) ==
              (kind == COMMAND_SEND_TO_GROUP || kind == COMMAND_SEND_TO_USER ||
               kind == COMMAND_SEND_TO_SYSTEM));
    }
}

int main(void)
{
    test_run("pushes_are_written", pushes_are_written);
    test_run("envelopes_are_written", envelopes_are_written);
    test_run("writing_appends", writing_appends);
    test_run("too_little_room_is_told", too_little_room_is_told);
    test_run("says_what_clients_could_not_read", says_what_clients_could_not_read);
    test_run("only_three_kinds_are_published", only_three_kinds_are_published);
    return test_finish();
}

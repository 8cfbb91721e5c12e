/* test_command.c - command.c: the JSON that is pushed and answered, byte for byte; and the letters
 * between nodes, which say there what was said here. */
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

/* What is there already stays in front. */
static void writing_appends(void)
{
    struct command command = {.msg = STR("\"m\""), .data = STR("1")};
    struct buf out = {0};

    buf_append(&out, STR("before "));
    CHECK(command_write_push(&out, &command));
    CHECK(command_write_envelope(&out, 2, STR("n"), STR("3")));
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

        command_write_push(&first, &command);
        command_write_envelope(&second, 0, STR("m"), (struct str){0});
        CHECK(first.failed == (room < push));
        CHECK(second.failed == (room < envelope));
        buf_free(&first);
        buf_free(&second);
    }
}

/* --- letters --------------------------------------------------------------------------------- */

#define SEED 4711

/* Reads from memory of just the text's size, which stays the caller's to free. */
struct reading {
    struct str text;
    struct buf decoded;
    struct letter letter;
    bool good;
};

static bool reads(struct reading *reading, struct str text)
{
    *reading = (struct reading){.text = exact_copy(text)};
    reading->good = letter_read(reading->text, &reading->decoded, &reading->letter);
    return reading->good;
}

static void end_reading(struct reading *reading)
{
    free_copy(reading->text);
    buf_free(&reading->decoded);
}

static bool same(struct str got, struct str expected)
{
    if (str_equal(got, expected))
        return true;
    printf("  expected %.*s\n  got %.*s\n", (int)expected.length, expected.at ? expected.at : "",
           (int)got.length, got.at ? got.at : "");
    return false;
}

static bool same_command(const struct command *a, const struct command *b)
{
    bool good = a->kind == b->kind && a->has_extend == b->has_extend &&
                a->has_user == b->has_user && a->code == b->code &&
                a->close_code == b->close_code && a->client.type == b->client.type;

    return same(a->system, b->system) && same(a->client.text, b->client.text) &&
           same(a->clients, b->clients) && same(a->group, b->group) && same(a->user, b->user) &&
           same(a->extend, b->extend) && same(a->msg, b->msg) && same(a->data, b->data) &&
           same(a->send_user, b->send_user) && same(a->message_id, b->message_id) &&
           same(a->reason, b->reason) && good;
}

/* What was written with `outcome` was read into it, `error` and `list`. */
static bool same_outcome(const struct letter *read, const struct outcome *written)
{
    const struct outcome *got = &read->outcome;

    return got->code == written->code && got->matched == written->matched &&
           got->queued == written->queued && got->dropped == written->dropped &&
           got->count == written->count && same(read->error, str_from(written->error)) &&
           same(read->list, str_of(&written->list));
}

static bool same_letter(const struct letter *a, const struct letter *b)
{
    return a->kind == b->kind && a->id == b->id && a->at == b->at && a->number == b->number &&
           a->slot == b->slot && a->order == b->order && a->counted == b->counted &&
           a->ready == b->ready && same(a->after, b->after) && same(a->origin, b->origin) &&
           same_command(&a->command, &b->command);
}

/* Writes a letter and reads it. */
static bool survives(const struct letter *letter)
{
    struct buf text = {0};
    struct reading reading;
    bool good = CHECK(letter_write(&text, letter)) && CHECK(reads(&reading, str_of(&text)));

    if (good)
        good = CHECK(same_letter(&reading.letter, letter)) &&
               CHECK(same_outcome(&reading.letter, &letter->outcome));
    if (!good)
        printf("  that was %.*s\n", (int)text.length, text.at ? text.at : "");
    end_reading(&reading);
    buf_free(&text);
    return good;
}

#define ID_TEXT "\"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/0123\""

/* A command with something in each field, none of which any kind has to do without. */
static struct command full_command(enum command_kind kind)
{
    return (struct command){.kind = kind,
                            .system = STR("shop \"1\" \\ \xc3\xa9\x01"),
                            .client = {JSON_STRING, STR(ID_TEXT)},
                            .clients = STR("[" ID_TEXT ", \"\\u0061\" ,1]"),
                            .group = STR("g\n\xf0\x9f\x94\x91"),
                            .user = STR("u\"\""),
                            .extend = STR("e\0x\x7f"),
                            .has_user = true,
                            .has_extend = true,
                            .code = -4711,
                            .msg = STR("\"m\\u0041\\n\\\\\""),
                            .data = STR("{ \"a\" : [ 1e400 , -0.0 , \"\\ud83d\\ude00\" ] }"),
                            .send_user = STR("\"\\u0000\""),
                            .message_id = STR("\"id\""),
                            .close_code = 4999,
                            .reason = STR("because \"so\"")};
}

static const struct letter_of {
    enum letter_kind kind;
    const char *name;
} letters_of[] = {
    {LETTER_REQUEST, "request"}, {LETTER_ANSWER, "answer"}, {LETTER_PUBLISH, "publish"},
    {LETTER_COUNT, "count"},     {LETTER_STATE, "state"},   {LETTER_LEAVE, "leave"},
};

static void commands_survive_in_letters(void)
{
    static const enum letter_kind carriers[] = {LETTER_REQUEST, LETTER_PUBLISH};

    for (int kind = COMMAND_SEND_TO_CLIENT; kind <= COMMAND_CLIENT_INFO; kind++)
        for (size_t i = 0; i < COUNT(carriers); i++) {
            struct letter letter = {.kind = carriers[i],
                                    .id = 7,
                                    .at = 1700000000123,
                                    .origin = STR("10.0.0.1:8800/1700000000000"),
                                    .number = 8,
                                    .slot = 16383,
                                    .order = 15,
                                    .after = STR("[[\"10.0.0.1:8800/1\",1,2], {} ]"),
                                    .counted = true,
                                    .ready = true,
                                    .command = full_command((enum command_kind)kind)};

            CHECK(survives(&letter));
            /* and with nothing in it but what must be */
            letter = (struct letter){.kind = carriers[i], .command.kind = (enum command_kind)kind};
            CHECK(survives(&letter));
        }
}

/* Each field alone: it is there afterwards, and no other is. */
static void each_field_survives_alone(void)
{
    const struct command full = full_command(COMMAND_BIND);

    for (int i = 0; i < 13; i++) {
        struct letter letter = {.kind = LETTER_REQUEST, .command.kind = COMMAND_BIND};
        struct command *command = &letter.command;
        struct str *const texts[] = {&command->system, &command->clients,   &command->group,
                                     &command->user,   &command->extend,    &command->msg,
                                     &command->data,   &command->send_user, &command->message_id,
                                     &command->reason};
        const struct str values[] = {full.system,     full.clients, full.group, full.user,
                                     full.extend,     full.msg,     full.data,  full.send_user,
                                     full.message_id, full.reason};

        if (i < 10)
            *texts[i] = values[i];
        command->has_user = i == 3;
        command->has_extend = i == 4;
        if (i == 10)
            command->client = full.client;
        if (i == 11)
            command->code = full.code;
        if (i == 12)
            command->close_code = full.close_code;
        CHECK(survives(&letter));
    }
}

/* A user or an extend that is empty is another thing than none. */
static void an_empty_extend_is_not_none(void)
{
    struct letter letter = {.kind = LETTER_REQUEST, .command.kind = COMMAND_BIND};

    CHECK(survives(&letter));
    letter.command.has_extend = true;
    CHECK(survives(&letter));
    letter.command.has_extend = false;
    letter.command.has_user = true;
    CHECK(survives(&letter));
}

static void numbers_survive(void)
{
    static const int64_t numbers[] = {0,         1,         -1,        9,         10,
                                      INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1700000000000};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        struct letter letter = {.kind = LETTER_PUBLISH,
                                .id = (uint64_t)(numbers[i] & INT64_MAX),
                                .at = numbers[i] & INT32_MAX,
                                .number = (uint64_t)(numbers[i] & INT64_MAX),
                                .slot = (uint64_t)(numbers[i] & INT64_MAX),
                                .order = (uint64_t)(numbers[i] & INT64_MAX),
                                .command = {.kind = COMMAND_SEND_TO_GROUP, .code = numbers[i]}};

        CHECK(survives(&letter));
    }
}

static void answers_survive(void)
{
    static const struct {
        int code;
        const char *error, *list_text;
        uint64_t counts[4];
    } rows[] = {
        {0, NULL, "", {0, 0, 0, 0}},
        {0, "", "", {1, 0, 0, 0}},
        {0, NULL, "\"a\"", {0, 1, 0, 0}},
        {0, NULL, "\"a\",\"b\",\"\\u0061\"", {0, 0, 1, 3}},
        {0, NULL, "{\"clientId\":\"x\",\"groups\":[\"a\",\"b\"]}", {0, 0, 0, 1}},
        {-1003, "client not online", "", {5, 6, 7, 8}},
        {-1007, "quoted \"\\\n", "", {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct letter letter = {.kind = LETTER_ANSWER,
                                .id = i,
                                .outcome = {.code = (enum outcome_code)rows[i].code,
                                            .error = rows[i].error,
                                            .matched = rows[i].counts[0],
                                            .queued = rows[i].counts[1],
                                            .dropped = rows[i].counts[2],
                                            .count = rows[i].counts[3]}};

        buf_append(&letter.outcome.list, str_from(rows[i].list_text));
        CHECK(survives(&letter));
        buf_free(&letter.outcome.list);
    }
}

static void other_letters_survive(void)
{
    for (size_t i = 3; i < COUNT(letters_of); i++) {
        struct letter letter = {.kind = letters_of[i].kind};

        CHECK(survives(&letter));
        letter.id = 1;
        letter.at = 2;
        letter.number = 3;
        letter.slot = 4;
        letter.order = 5;
        letter.ready = true;
        CHECK(survives(&letter));
        letter.ready = false;
        letter.counted = true;
        letter.origin = STR("10.0.0.1:8800/1");
        letter.after = STR("[]");
        CHECK(survives(&letter));
    }
}

/* Nodes of different builds speak with each other: the text is part of the contract. */
static void letters_are_written(void)
{
    struct letter letter = {.kind = LETTER_REQUEST,
                            .id = 1,
                            .at = 2,
                            .command = {.kind = COMMAND_SEND_TO_CLIENT,
                                        .system = STR("s"),
                                        .client = {JSON_STRING, STR("\"c\"")},
                                        .code = 3,
                                        .msg = STR("\"m\""),
                                        .data = STR("[ 1.0 ]")}};
    struct buf out = {0};

    CHECK(letter_write(&out, &letter));
    CHECK(holds(&out,
                "{\"letter\":\"request\",\"id\":1,\"at\":2,\"command\":\"send_to_client\","
                "\"system\":\"s\",\"client\":\"c\",\"code\":3,\"msg\":\"m\",\"data\":[ 1.0 ]}"));
    letter = (struct letter){.kind = LETTER_ANSWER,
                             .id = 1,
                             .outcome = {.code = OUTCOME_OFFLINE, .error = "e", .matched = 2}};
    CHECK(letter_write(&out, &letter));
    CHECK(holds(&out, "{\"letter\":\"answer\",\"id\":1,\"code\":-1003,\"error\":\"e\","
                      "\"matched\":2,\"list\":[]}"));
    letter = (struct letter){.kind = LETTER_STATE, .ready = true};
    CHECK(letter_write(&out, &letter));
    CHECK(holds(&out, "{\"letter\":\"state\",\"ready\":true}"));
    letter = (struct letter){.kind = LETTER_LEAVE};
    CHECK(letter_write(&out, &letter));
    CHECK(holds(&out, "{\"letter\":\"leave\"}"));
    /* what is there already stays in front */
    buf_append(&out, STR("before "));
    CHECK(letter_write(&out, &letter));
    CHECK(holds(&out, "before {\"letter\":\"leave\"}"));
}

/* Whatever the room, the letter is whole or the failure is told. */
static void too_little_room_for_a_letter_is_told(void)
{
    struct letter letter = {.kind = LETTER_REQUEST, .id = 1, .command = full_command(COMMAND_BIND)};
    struct buf whole = {0};

    CHECK(letter_write(&whole, &letter));
    for (size_t room = 1; room <= whole.length; room++) {
        struct buf out = {.limit = room};

        CHECK(letter_write(&out, &letter) == (room == whole.length) &&
              out.failed == (room < whole.length));
        buf_free(&out);
    }
    buf_free(&whole);
}

/* Members in any order, white space, escapes and members of a later version are all the same. */
static void letters_may_be_written_otherwise(void)
{
    static const char *const texts[] = {
        "{\"letter\":\"request\",\"id\":1,\"command\":\"bind\",\"system\":\"s\",\"group\":\"g\"}",
        " { \"group\" : \"g\" , \"system\":\"s\",\n\"command\":\"bind\",\t\"id\" : 1,"
        "\"letter\":\"request\" } ",
        "{\"\\u006cetter\":\"\\u0072equest\",\"\\u0069d\":1,\"command\":\"\\u0062ind\","
        "\"system\":\"\\u0073\",\"group\":\"\\u0067\"}",
        "{\"later\":{\"letter\":\"leave\"},\"letter\":\"request\",\"id\":1,\"command\":\"bind\","
        "\"system\":\"s\",\"group\":\"g\",\"x\":[]}",
        "{\"letter\":\"request\",\"id\":1,\"command\":\"bind\",\"system\":\"s\",\"group\":\"g\","
        "\"counted\":false,\"ready\":false,\"code\":0}",
    };
    const struct letter expected = {
        .kind = LETTER_REQUEST,
        .id = 1,
        .command = {.kind = COMMAND_BIND, .system = STR("s"), .group = STR("g")}};

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct reading reading;

        if (!CHECK(reads(&reading, str_from(texts[i])) && same_letter(&reading.letter, &expected)))
            printf("  that was %s\n", texts[i]);
        end_reading(&reading);
    }
}

#define REQUEST "{\"letter\":\"request\",\"command\":\"bind\""
#define ANSWER "{\"letter\":\"answer\""

static void malformed_letters_are_refused(void)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "null",
        "\"letter\"",
        "{\"letter\":\"leave\"",
        "{\"letter\":\"leave\"}}",
        "{\"letter\":\"leave\"}{\"letter\":\"leave\"}",
        "{\"letter\":\"leave\",}",
        "{\"letter\":\"leave\",\"letter\":\"leave\"}",
        "{\"letter\":\"leave\",\"\\u006cetter\":\"leave\"}",
        "{\"letter\":\"\xff\"}",
        /* no letter, or none that is known */
        "{\"id\":1,\"command\":\"bind\"}",
        "{\"letter\":\"\"}",
        "{\"letter\":\"Leave\"}",
        "{\"letter\":\"leave \"}",
        "{\"letter\":\"leav\"}",
        "{\"letter\":\"leave\\u0000\"}",
        "{\"letter\":null}",
        "{\"letter\":1}",
        "{\"letter\":true}",
        "{\"letter\":[\"leave\"]}",
        "{\"letter\":{\"letter\":\"leave\"}}",
        "{\"Letter\":\"leave\"}",
        /* commands */
        "{\"letter\":\"request\"}",
        "{\"letter\":\"publish\"}",
        "{\"letter\":\"request\",\"command\":\"\"}",
        "{\"letter\":\"request\",\"command\":\"Bind\"}",
        "{\"letter\":\"request\",\"command\":\"binds\"}",
        "{\"letter\":\"request\",\"command\":1}",
        "{\"letter\":\"request\",\"command\":null}",
        REQUEST ",\"system\":1}",
        REQUEST ",\"system\":null}",
        REQUEST ",\"system\":[]}",
        REQUEST ",\"group\":{}}",
        REQUEST ",\"user\":true}",
        REQUEST ",\"extend\":null}",
        REQUEST ",\"extend\":0}",
        REQUEST ",\"reason\":[]}",
        REQUEST ",\"clients\":\"\"}",
        REQUEST ",\"clients\":{}}",
        REQUEST ",\"clients\":null}",
        REQUEST ",\"origin\":1}",
        /* half surrogates, which no UTF-8 can say */
        REQUEST ",\"system\":\"\\ud800\"}",
        REQUEST ",\"group\":\"\\udc00\"}",
        REQUEST ",\"user\":\"\\ud83dx\"}",
        REQUEST ",\"extend\":\"\\ude00\\ud83d\"}",
        REQUEST ",\"reason\":\"\\ud83d\\u0041\"}",
        REQUEST ",\"origin\":\"\\ud83d\"}",
        ANSWER ",\"list\":[],\"error\":\"\\ud83d\"}",
        /* numbers */
        REQUEST ",\"id\":\"1\"}",
        REQUEST ",\"id\":null}",
        REQUEST ",\"id\":true}",
        REQUEST ",\"id\":1.0}",
        REQUEST ",\"id\":1e3}",
        REQUEST ",\"id\":9223372036854775808}",
        REQUEST ",\"id\":-9223372036854775809}",
        REQUEST ",\"id\":99999999999999999999999999}",
        REQUEST ",\"at\":\"\"}",
        REQUEST ",\"at\":9223372036854775808}",
        REQUEST ",\"number\":[]}",
        REQUEST ",\"number\":0.5}",
        REQUEST ",\"slot\":{}}",
        REQUEST ",\"order\":true}",
        REQUEST ",\"after\":{}}",
        REQUEST ",\"after\":\"[]\"}",
        REQUEST ",\"after\":null}",
        REQUEST ",\"code\":\"1\"}",
        REQUEST ",\"code\":9223372036854775808}",
        REQUEST ",\"closeCode\":\"1000\"}",
        REQUEST ",\"closeCode\":1e3}",
        /* answers */
        ANSWER "}",
        ANSWER ",\"list\":null}",
        ANSWER ",\"list\":\"\"}",
        ANSWER ",\"list\":{}}",
        ANSWER ",\"list\":[],\"code\":\"0\"}",
        ANSWER ",\"list\":[],\"error\":1}",
        ANSWER ",\"list\":[],\"matched\":\"1\"}",
        ANSWER ",\"list\":[],\"queued\":1.5}",
        ANSWER ",\"list\":[],\"dropped\":[]}",
        ANSWER ",\"list\":[],\"total\":null}",
        ANSWER ",\"list\":[],\"matched\":9223372036854775808}",
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct reading reading;

        if (!CHECK(!reads(&reading, str_from(texts[i]))))
            printf("  that was %s\n", texts[i]);
        end_reading(&reading);
    }
}

/* What is a JSON value, but none that a node writes. */
static void letters_that_no_node_writes_are_refused(void)
{
    static const char *const texts[] = {
        REQUEST ",\"counted\":1}",
        REQUEST ",\"counted\":\"true\"}",
        "{\"letter\":\"state\",\"ready\":\"true\"}",
        "{\"letter\":\"state\",\"ready\":null}",
        REQUEST ",\"client\":1}",
        REQUEST ",\"msg\":1}",
        REQUEST ",\"sendUserId\":[]}",
        REQUEST ",\"messageId\":{}}",
        REQUEST ",\"closeCode\":-1}",
        REQUEST ",\"closeCode\":4294968296}", /* 1000, cut to 32 bits */
        ANSWER ",\"list\":[],\"code\":4294966293}",
        ANSWER ",\"list\":[],\"matched\":-1}",
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct reading reading;

        if (!CHECK(!reads(&reading, str_from(texts[i]))))
            printf("  that was %s\n", texts[i]);
        end_reading(&reading);
    }
}

/* One buffer serves many letters; nothing of those before is left, whatever became of them. */
static void what_was_decoded_before_is_dropped(void)
{
    static const struct {
        const char *text, *system;
    } rows[] = {
        {REQUEST ",\"system\":\"a much longer one than those that follow\"}",
         "a much longer one than those that follow"},
        {REQUEST ",\"system\":\"short\"}", "short"},
        {REQUEST ",\"system\":\"b\\ud800\"}", NULL},
        {"{", NULL},
        {REQUEST ",\"system\":\"last\"}", "last"},
    };
    struct buf decoded = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct str text = exact_copy(str_from(rows[i].text));
        struct letter letter;
        bool good = letter_read(text, &decoded, &letter);

        CHECK(good == (rows[i].system != NULL));
        CHECK(!good || same(letter.command.system, str_from(rows[i].system)));
        CHECK(decoded.length <= text.length);
        free_copy(text);
    }
    CHECK(!decoded.failed);
    buf_free(&decoded);
    /* without room it is refused, and the next one is another matter */
    decoded.limit = 10;
    for (int i = 0; i < 2; i++) {
        struct letter letter;

        CHECK(!letter_read(str_from(rows[1].text), &decoded, &letter) && !decoded.failed);
    }
    decoded.limit = 0;
    {
        struct letter letter;

        CHECK(letter_read(str_from(rows[1].text), &decoded, &letter));
        CHECK(same(letter.command.system, STR("short")));
    }
    buf_free(&decoded);
}

/* A letter whose strings are all as long as can be, each with escapes: the views do not move. */
static void long_strings_are_decoded(void)
{
    struct letter letter = {.kind = LETTER_REQUEST, .command.kind = COMMAND_CLOSE_CLIENT};
    struct buf texts[4] = {{0}};

    for (size_t i = 0; i < 4; i++)
        for (int k = 0; k < 5000; k++)
            buf_append(&texts[i], (struct str){&"\"\\\n\x01\0xyz"[(k + (int)i) % 8], 1});
    letter.command.system = str_of(&texts[0]);
    letter.command.group = str_of(&texts[1]);
    letter.command.user = str_of(&texts[2]);
    letter.command.has_user = true;
    letter.command.reason = str_of(&texts[3]);
    CHECK(survives(&letter));
    for (size_t i = 0; i < 4; i++)
        buf_free(&texts[i]);
}

static bool is_json(struct str text)
{
    struct json_error error;

    return json_parse_object(text, NULL, 0, &error);
}

/* Changes a text in one to four places: bytes changed, dropped, doubled, or pieces moved about. */
static void mutate(struct buf *text, uint32_t *state)
{
    static const char alphabet[] = "{}[]\",:\\u0123456789deltrsn-+. \x80\xc3\xff";

    for (unsigned changes = 1 + next_random(state) % 4; changes; changes--) {
        size_t at = text->length ? next_random(state) % text->length : 0;
        size_t length = 1 + next_random(state) % 8;
        unsigned what = next_random(state) % 5;

        if (!text->length)
            return;
        if (length > text->length - at)
            length = text->length - at;
        if (what == 0) {
            text->at[at] = (char)next_random(state);
        } else if (what == 1) {
            text->at[at] = alphabet[next_random(state) % (sizeof alphabet - 1)];
        } else if (what == 2) {
            memmove(text->at + at, text->at + at + length, text->length - at - length);
            text->length -= length;
        } else if (what == 3 && buf_reserve(text, length)) {
            memmove(text->at + at + length, text->at + at, text->length - at);
            text->length += length;
        } else {
            size_t to = next_random(state) % (text->length - length + 1);

            memmove(text->at + to, text->at + at, length);
        }
    }
}

/* Whatever it is that comes, reading neither crashes nor takes what is no JSON; and what it takes
 * is a letter that can be written and read again. */
static void letters_at_random_do_no_harm(void)
{
    struct letter letters[16] = {{.kind = LETTER_ANSWER,
                                  .id = 9,
                                  .outcome = {.code = OUTCOME_OFFLINE, .error = "e", .count = 1}},
                                 {.kind = LETTER_COUNT, .id = 1, .number = 2, .slot = 3},
                                 {.kind = LETTER_STATE, .ready = true}};
    size_t count = 3, taken = 0, refused = 0;
    uint32_t state = 20261122;

    buf_append(&letters[0].outcome.list, STR("\"a\",\"b\""));
    for (int kind = COMMAND_SEND_TO_CLIENT; kind <= COMMAND_CLIENT_INFO; kind++)
        letters[count++] = (struct letter){.kind = kind % 2 ? LETTER_REQUEST : LETTER_PUBLISH,
                                           .id = 1,
                                           .origin = STR("10.0.0.1:8800/1"),
                                           .counted = true,
                                           .command = full_command((enum command_kind)kind)};
    for (int round = 0; round < 60000 && test_good; round++) {
        struct buf text = {0}, again = {0};
        struct reading reading, second;

        CHECK(letter_write(&text, &letters[next_random(&state) % count]));
        mutate(&text, &state);
        if (reads(&reading, str_of(&text))) {
            taken++;
            CHECK(is_json(reading.text));
            buf_append(&reading.letter.outcome.list, reading.letter.list);
            CHECK(letter_write(&again, &reading.letter));
            if (!CHECK(reads(&second, str_of(&again)) &&
                       same_letter(&second.letter, &reading.letter)))
                printf("  that was %.*s\n", (int)text.length, text.at);
            end_reading(&second);
            buf_free(&reading.letter.outcome.list);
        } else {
            refused++;
        }
        end_reading(&reading);
        buf_free(&text);
        buf_free(&again);
    }
    CHECK(taken > 1000 && refused > 1000);
    buf_free(&letters[0].outcome.list);
}

/* Cut anywhere it is no letter. */
static void letters_that_are_cut_are_refused(void)
{
    struct letter letter = {.kind = LETTER_REQUEST, .id = 1, .command = full_command(COMMAND_BIND)};
    struct buf text = {0};

    CHECK(letter_write(&text, &letter));
    for (size_t length = 0; length < text.length; length++) {
        struct reading reading;

        CHECK(!reads(&reading, (struct str){text.at, length}));
        end_reading(&reading);
    }
    buf_free(&text);
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
        CHECK(command_is_whole(&command));
        CHECK(command_is_whole(&bare) == (kind == COMMAND_UNBIND || kind == COMMAND_ONLINE_LIST ||
                                          kind == COMMAND_CLIENT_INFO));
        command.msg = (struct str){0};
        CHECK(command_is_whole(&command) != sends);
        command.msg = whole.msg;
        command.data = (struct str){0};
        CHECK(command_is_whole(&command) != sends);
        command.data = whole.data;
        command.group = (struct str){0};
        CHECK(command_is_whole(&command) == (kind != COMMAND_BIND));
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct command command = whole;

        command.close_code = rows[i].code;
        CHECK(command_is_whole(&command) == rows[i].good);
        command.reason.length++;
        CHECK(!command_is_whole(&command));
    }
}

int main(void)
{
    test_run("pushes_are_written", pushes_are_written);
    test_run("envelopes_are_written", envelopes_are_written);
    test_run("writing_appends", writing_appends);
    test_run("too_little_room_is_told", too_little_room_is_told);
    test_run("commands_survive_in_letters", commands_survive_in_letters);
    test_run("each_field_survives_alone", each_field_survives_alone);
    test_run("an_empty_extend_is_not_none", an_empty_extend_is_not_none);
    test_run("numbers_survive", numbers_survive);
    test_run("answers_survive", answers_survive);
    test_run("other_letters_survive", other_letters_survive);
    test_run("letters_are_written", letters_are_written);
    test_run("too_little_room_for_a_letter_is_told", too_little_room_for_a_letter_is_told);
    test_run("letters_may_be_written_otherwise", letters_may_be_written_otherwise);
    test_run("malformed_letters_are_refused", malformed_letters_are_refused);
    test_run("letters_that_no_node_writes_are_refused", letters_that_no_node_writes_are_refused);
    test_run("what_was_decoded_before_is_dropped", what_was_decoded_before_is_dropped);
    test_run("long_strings_are_decoded", long_strings_are_decoded);
    test_run("letters_at_random_do_no_harm", letters_at_random_do_no_harm);
    test_run("letters_that_are_cut_are_refused", letters_that_are_cut_are_refused);
    test_run("says_what_clients_could_not_read", says_what_clients_could_not_read);
    return test_finish();
}

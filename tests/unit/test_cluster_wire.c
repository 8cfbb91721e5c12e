/* test_cluster_wire.c - cluster_wire.c: what nodes write is read as it was meant, and nothing else
 * is read: node ids, sealed client ids, slots, messages, batches. */
#include "cluster_wire.h"

#include "cluster_crypto.h"
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

/* --- nodes ------------------------------------------------------------------------------------ */

/* Fills a room with a letter, and ends it. */
static const char *letters(char room[512], char letter, size_t count, const char *behind)
{
    memset(room, letter, count);
    snprintf(room + count, 512 - count, "%s", behind);
    return room;
}

static void names_are_made_and_split(void)
{
    static const struct {
        const char *host;
        unsigned port;
        const char *name;
    } rows[] = {
        {"127.0.0.1", 8800, "127.0.0.1:8800"},
        {"255.255.255.255", 65535, "255.255.255.255:65535"},
        {"::1", 1, "[::1]:1"},
        {"fe80:0:0:0:0:0:0:1", 8800, "[fe80:0:0:0:0:0:0:1]:8800"},
        {"a", 0, "a:0"},
        {"node-1.example_x.COM", 8800, "node-1.example_x.COM:8800"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct node_id node = {.incarnation = 5};
        struct str host = str_from(rows[i].host), split = {0};
        unsigned port = 99999;
        char *exact = exact_bytes(host);

        CHECK(node_set_name(&node, (struct str){exact, host.length}, rows[i].port));
        CHECK(strcmp(node.name, rows[i].name) == 0 && node.incarnation == 5);
        CHECK(node_split_name(&node, &split, &port));
        CHECK(str_equal(split, host) && port == rows[i].port);
        free(exact);
    }
}

static void names_have_bounds(void)
{
    struct node_id node = {.name = "kept:1"};
    char room[512];
    struct str host;
    unsigned port;

    CHECK(!node_set_name(&node, STR(""), 1) && !node_set_name(&node, STR("a"), 65536));
    CHECK(!node_set_name(&node, str_from(letters(room, 'a', NODE_HOST_MAX + 1, "")), 1));
    CHECK(strcmp(node.name, "kept:1") == 0);
    CHECK(node_set_name(&node, str_from(letters(room, 'a', NODE_HOST_MAX, "")), 65535));
    CHECK(node_split_name(&node, &host, &port) && host.length == NODE_HOST_MAX && port == 65535);
    CHECK(node_set_name(&node, str_from(letters(room, ':', NODE_HOST_MAX, "")), 65535));
    CHECK(strlen(node.name) == NODE_NAME_MAX);
    CHECK(node_split_name(&node, &host, &port) && host.length == NODE_HOST_MAX && port == 65535);
    node = (struct node_id){.name = ""};
    CHECK(!node_split_name(&node, &host, &port));
}

static void node_ids_survive(void)
{
    static const char *const texts[] = {
        "127.0.0.1:8800/1",
        "10.0.0.1:8800/1700000000000",
        "[::1]:1/18446744073709551615",
        "[fe80:0:0:0:0:0:0:1]:65535/7",
        "a:0/10",
        "node-1.example_x.COM:8800/1700000000000",
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct node_id node = {.name = "old"}, again = {.name = ""};
        char text[NODE_TEXT_MAX];
        struct str copy = exact_copy(str_from(texts[i]));

        CHECK(node_read(copy, &node));
        CHECK(node_write(&node, text) == strlen(texts[i]) && strcmp(text, texts[i]) == 0);
        CHECK(node_read(str_from(text), &again) && node_equal(&node, &again));
        free_copy(copy);
    }
}

/* The longest of all has room, and one byte more is refused. */
static void the_longest_node_id_survives(void)
{
    char host[512], text[NODE_TEXT_MAX];
    struct node_id node = {.incarnation = UINT64_MAX}, again = {.name = ""};

    letters(host, 'f', NODE_HOST_MAX, "");
    host[1] = ':';
    CHECK(node_set_name(&node, str_from(host), 65535));
    CHECK(node_write(&node, text) == NODE_TEXT_MAX - 1 && node_read(str_from(text), &again));
    CHECK(node_equal(&node, &again));
    letters(host, 'f', NODE_HOST_MAX + 1, ":1/1");
    CHECK(!node_read(str_from(host), &again));
}

static void other_spellings_are_refused(void)
{
    static const struct str texts[] = {
        STR_INIT(""),
        STR_INIT("/"),
        STR_INIT(":"),
        STR_INIT(":1/1"),
        STR_INIT("a"),
        STR_INIT("a/1"),
        STR_INIT("a:1"),
        STR_INIT("a:1/"),
        STR_INIT("a:/1"),
        STR_INIT("/1"),
        /* the incarnation */
        STR_INIT("a:1/0"),
        STR_INIT("a:1/01"),
        STR_INIT("a:1/+1"),
        STR_INIT("a:1/-1"),
        STR_INIT("a:1/ 1"),
        STR_INIT("a:1/1 "),
        STR_INIT("a:1/0x1"),
        STR_INIT("a:1/1.0"),
        STR_INIT("a:1/18446744073709551616"),
        STR_INIT("a:1/1/1"),
        STR_INIT("a:1/1\0"),
        STR_INIT("a:1/1\n"),
        /* the port */
        STR_INIT("a:01/1"),
        STR_INIT("a:+1/1"),
        STR_INIT("a: 1/1"),
        STR_INIT("a:65536/1"),
        STR_INIT("a:1x/1"),
        STR_INIT("a:1\0/1"),
        /* the host */
        STR_INIT("a b:1/1"),
        STR_INIT("a\0:1/1"),
        STR_INIT("\0:1/1"),
        STR_INIT("\xc3\xa9:1/1"),
        STR_INIT("a\n:1/1"),
        STR_INIT("\"a\":1/1"),
        STR_INIT("a*:1/1"),
        STR_INIT("[]:1/1"),
        STR_INIT("[a]:1/1"),
        STR_INIT("[127.0.0.1]:1/1"),
        STR_INIT("::1:1/1"),
        STR_INIT("[::1:1/1"),
        STR_INIT("::1]:1/1"),
        STR_INIT("[[::1]]:1/1"),
        STR_INIT("[::1]1/1"),
        STR_INIT("[::1]/1"),
        STR_INIT("[::1%eth0]:1/1"),
    };
    struct node_id node = {.name = "kept:1", .incarnation = 7};

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct str copy = exact_copy(texts[i]);

        if (!CHECK(!node_read(copy, &node)))
            printf("  that was %.*s\n", (int)copy.length, copy.at);
        free_copy(copy);
    }
    CHECK(strcmp(node.name, "kept:1") == 0 && node.incarnation == 7);
}

/* Each piece of an id, and an id with each byte changed: whatever is read is written the same. */
static void every_change_is_another_node_or_none(void)
{
    static const char *const texts[] = {"10.0.0.1:8800/17000", "[::1]:88/1", "ab-c.d:1/9"};

    for (size_t i = 0; i < COUNT(texts); i++)
        for (size_t at = 0; at < strlen(texts[i]); at++) {
            struct node_id node, whole;
            char text[64], written[NODE_TEXT_MAX];

            CHECK(node_read(str_from(texts[i]), &whole));
            for (unsigned byte = 0; byte < 256; byte++) {
                strcpy(text, texts[i]);
                text[at] = (char)byte;
                if (!node_read((struct str){text, strlen(texts[i])}, &node))
                    continue;
                CHECK(node_write(&node, written) == strlen(texts[i]) && strcmp(text, written) == 0);
                CHECK(node_equal(&node, &whole) == (text[at] == texts[i][at]));
            }
            if (node_read((struct str){texts[i], at}, &node))
                CHECK(!node_equal(&node, &whole));
        }
}

static void nodes_are_compared(void)
{
    struct node_id a = {"a:1", 1}, later = {"a:1", 2}, b = {"b:1", 1}, prefix = {"a:11", 1};

    CHECK(node_equal(&a, &a) && node_equal_name(&a, &later));
    CHECK(!node_equal(&a, &later) && !node_equal(&a, &b) && !node_equal_name(&a, &b));
    CHECK(!node_equal_name(&a, &prefix) && !node_equal(&a, &prefix));
}

/* --- client ids ------------------------------------------------------------------------------- */

static struct crypto_keyring keys_of(const char *first, const char *second)
{
    struct crypto_keyring keys = {.count = 0};

    CHECK(crypto_add_key(&keys, str_from(first), false));
    if (second)
        CHECK(crypto_add_key(&keys, str_from(second), false));
    CHECK(cluster_crypto_derive(&keys));
    return keys;
}

#define OLD_KEY "0123456789abcdef"
#define NEW_KEY "fedcba9876543210"

/* An id as JSON, in the room. */
static struct json_value quoted_id(char room[HUB_ID_TEXT + 2], const char id[HUB_ID_TEXT])
{
    room[0] = room[HUB_ID_TEXT + 1] = '"';
    memcpy(room + 1, id, HUB_ID_TEXT);
    return (struct json_value){JSON_STRING, {room, HUB_ID_TEXT + 2}};
}

static void tags_tell_nodes_apart(void)
{
    struct node_id nodes[] = {{"a:1", 1},     {"a:1", 2},  {"b:1", 1},
                              {"[::1]:1", 1}, {"a:11", 1}, {"a:1", UINT64_MAX}};
    struct node_tag tags[COUNT(nodes)];

    for (size_t i = 0; i < COUNT(nodes); i++)
        CHECK(node_make_tag(&nodes[i], &tags[i]));
    for (size_t i = 0; i < COUNT(nodes); i++)
        for (size_t k = 0; k < COUNT(nodes); k++)
            CHECK(node_has_tag(&tags[i], &tags[k]) == (i == k));
    /* SHA-256 of "a:1" */
    CHECK(memcmp(tags[0].bytes, tags[1].bytes, 7) == 0 && tags[5].incarnation == UINT64_MAX);
}

static void client_ids_name_their_owner(void)
{
    static const uint64_t numbers[] = {0, 1, 0x0807060504030201, UINT64_MAX};
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL), others = keys_of(NEW_KEY, NULL);
    struct node_id node = {"[::1]:8800", UINT64_MAX - 1};
    struct node_tag tag, owner;
    char id[HUB_ID_TEXT], again[HUB_ID_TEXT], room[HUB_ID_TEXT + 2];
    uint64_t number;

    CHECK(node_make_tag(&node, &tag));
    for (size_t i = 0; i < COUNT(numbers); i++) {
        CHECK(wire_seal_client(&keys, &tag, numbers[i], id));
        CHECK(wire_seal_client(&keys, &tag, numbers[i], again) &&
              memcmp(id, again, sizeof id) == 0);
        number = 9;
        CHECK(wire_open_client(&keys, quoted_id(room, id), &owner, &number));
        CHECK(node_has_tag(&owner, &tag) && number == numbers[i]);
        CHECK(!wire_open_client(&others, quoted_id(room, id), &owner, &number));
        CHECK(wire_seal_client(&others, &tag, numbers[i], again) &&
              memcmp(id, again, sizeof id) != 0);
    }
}

/* While a key is changed the ids of both are opened, whichever is used: no client is lost. */
static void ids_are_opened_under_both_keys(void)
{
    struct crypto_keyring rings[] = {keys_of(OLD_KEY, NULL), keys_of(OLD_KEY, NEW_KEY),
                                     keys_of(NEW_KEY, OLD_KEY), keys_of(NEW_KEY, NULL)};
    static const bool opens[4][4] = {/* who seals, who opens */
                                     {true, true, true, false},
                                     {true, true, true, false},
                                     {false, true, true, true},
                                     {false, true, true, true}};
    struct node_id node = {"a:1", 1};
    struct node_tag tag, owner;
    char id[HUB_ID_TEXT], room[HUB_ID_TEXT + 2];
    uint64_t number;

    CHECK(node_make_tag(&node, &tag));
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) {
            CHECK(wire_seal_client(&rings[i], &tag, 7, id));
            CHECK(wire_open_client(&rings[k], quoted_id(room, id), &owner, &number) == opens[i][k]);
        }
}

/* Other lengths, spellings and kinds of value; test_cluster_crypto.c changes each byte. */
static void what_is_no_id_is_not_opened(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NEW_KEY), empty = {.count = 0};
    struct node_id node = {"a:1", 1};
    struct node_tag tag, owner;
    char id[HUB_ID_TEXT], room[HUB_ID_TEXT + 2], text[256];
    static const struct {
        const char *before;
        int length; /* of the id */
        const char *behind;
    } rows[] = {
        {"\"", 0, "\""},         {"\"", 67, "\""},    {"\"", 68, "=\""},       {"\"", 68, " \""},
        {"\" ", 68, "\""},       {"\"", 68, "\\n\""}, {"\"", 68, "\\u0000\""}, {"\"", 67, "\\n\""},
        {"\"", 67, "\\ud800\""}, {"[\"", 68, "\"]"},  {"null", 0, ""},         {"1", 0, ""},
        {"{}", 0, ""},           {"true", 0, ""},     {"\"", 68, "A\""},       {"\"A", 68, "\""},
        {"\"\\u0000", 68, "\""},
    };
    static const enum json_type types[COUNT(rows)] = {[9] = JSON_ARRAY,
                                                      [10] = JSON_NULL,
                                                      [11] = JSON_NUMBER,
                                                      [12] = JSON_OBJECT,
                                                      [13] = JSON_BOOLEAN};
    uint64_t number = 0;
    char whole[HUB_ID_TEXT + 1] = "";

    CHECK(node_make_tag(&node, &tag) && wire_seal_client(&keys, &tag, 7, id));
    memcpy(whole, id, sizeof id);
    for (size_t i = 0; i < COUNT(rows); i++) {
        enum json_type type = types[i] ? types[i] : JSON_STRING;
        struct str copy;

        snprintf(text, sizeof text, "%s%.*s%s", rows[i].before, rows[i].length, whole,
                 rows[i].behind);
        copy = exact_copy(str_from(text));
        if (!CHECK(!wire_open_client(&keys, (struct json_value){type, copy}, &owner, &number)))
            printf("  that was %s\n", text);
        free_copy(copy);
    }
    CHECK(!wire_open_client(&keys, (struct json_value){0}, &owner, &number));
    CHECK(!wire_open_client(&empty, quoted_id(room, id), &owner, &number));
    /* the same string, spelt as JSON may */
    snprintf(text, sizeof text, "\"\\u%04x%s\"", (unsigned)whole[0], whole + 1);
    CHECK(wire_open_client(&keys, (struct json_value){JSON_STRING, str_from(text)}, &owner,
                           &number) &&
          node_has_tag(&owner, &tag) && number == 7);
}

/* --- slots ------------------------------------------------------------------------------------ */

/* CRC16 of XMODEM (its check value is 0x31c3), as Redis hashes its slots: that of somekey is in the
 * documentation of CLUSTER KEYSLOT. */
static void slots_are_those_of_redis(void)
{
    static const struct {
        struct str name;
        uint16_t slot;
    } rows[] = {
        {STR_INIT(""), 0},
        {STR_INIT("123456789"), 0x31c3},
        {STR_INIT("foo"), 12182},
        {STR_INIT("bar"), 5061},
        {STR_INIT("somekey"), 11058},
        {STR_INIT("A"), 0x58e5 % 16384},
        {STR_INIT("\xff\x80"), 4727},
        {STR_INIT("\0"), 0},
        {STR_INIT("\0\x01"), 0x1021},
    };
    static const struct str names[] = {STR_INIT("g"), STR_INIT(""), STR_INIT("\xc3\xa9 :@")};

    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(wire_slot(WIRE_SYSTEM, rows[i].name, STR("is not looked at")) == rows[i].slot);
        CHECK(wire_partition(rows[i].name) == rows[i].slot % 16u);
    }
    for (size_t i = 0; i < COUNT(rows) * COUNT(names); i++) {
        struct str system = rows[i / COUNT(names)].name, name = names[i % COUNT(names)];
        static const struct str separators[] = {
            [WIRE_USER] = STR_INIT("@"), [WIRE_GROUP] = STR_INIT(":")};

        for (int kind = WIRE_USER; kind <= WIRE_GROUP; kind++) {
            struct buf whole = {0};

            buf_append(&whole, system);
            buf_append(&whole, separators[kind]);
            buf_append(&whole, name);
            CHECK(wire_slot((enum wire_channel)kind, system, name) ==
                  wire_slot(WIRE_SYSTEM, str_of(&whole), (struct str){0}));
            buf_free(&whole);
        }
    }
    CHECK(wire_slot(WIRE_GROUP, STR("shop"), STR("g")) == 13222);
    CHECK(wire_slot(WIRE_USER, STR("shop"), STR("g")) == 5172);
}

/* --- messages --------------------------------------------------------------------------------- */

/* Reads from memory of just the text's size, which stays the caller's to free. */
struct reading {
    struct str text;
    struct buf decoded;
    struct cluster_msg msg;
    bool good;
};

static bool reads(struct reading *reading, struct str text)
{
    *reading = (struct reading){.text = exact_copy(text)};
    reading->good = msg_read(reading->text, &reading->decoded, &reading->msg);
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
                a->has_user == b->has_user && a->once == b->once && a->code == b->code &&
                a->close_code == b->close_code && a->client.type == b->client.type;

    return same(a->system, b->system) && same(a->client.text, b->client.text) &&
           same(a->clients, b->clients) && same(a->group, b->group) && same(a->user, b->user) &&
           same(a->extend, b->extend) && same(a->msg, b->msg) && same(a->data, b->data) &&
           same(a->send_user, b->send_user) && same(a->message_id, b->message_id) &&
           same(a->reason, b->reason) && good;
}

/* What was written with `result` was read into it, `error` and `list`. */
static bool same_result(const struct cluster_msg *read, const struct result *written)
{
    const struct result *got = &read->result;

    return got->code == written->code && got->matched == written->matched &&
           got->queued == written->queued && got->dropped == written->dropped &&
           got->repeated == written->repeated && got->count == written->count &&
           same(read->error, str_from(written->error)) && same(read->list, str_of(&written->list));
}

static bool same_msg(const struct cluster_msg *a, const struct cluster_msg *b)
{
    return a->kind == b->kind && a->id == b->id && a->at == b->at && a->slot == b->slot &&
           a->counted == b->counted && a->ready == b->ready && same(a->to, b->to) &&
           same_command(&a->command, &b->command);
}

/* Writes a msg and reads it. */
static bool survives(const struct cluster_msg *msg)
{
    struct buf text = {0};
    struct reading reading;
    bool good = CHECK(msg_write(&text, msg)) && CHECK(reads(&reading, str_of(&text)));

    if (good)
        good = CHECK(same_msg(&reading.msg, msg)) && CHECK(same_result(&reading.msg, &msg->result));
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
                            .once = true,
                            .close_code = 4999,
                            .reason = STR("because \"so\"")};
}

static const struct msg_of {
    enum msg_kind kind;
    const char *name;
} msgs_of[] = {
    {MSG_REQUEST, "request"}, {MSG_REPLY, "reply"},   {MSG_SEND, "send"},
    {MSG_COUNT, "count"},     {MSG_STATUS, "status"}, {MSG_LEAVE, "leave"},
    {MSG_ACCOUNT, "account"}, {MSG_ADOPT, "adopt"},   {MSG_ADOPTED, "adopted"},
};

static void commands_survive_in_messages(void)
{
    static const enum msg_kind carriers[] = {MSG_REQUEST, MSG_SEND};

    for (int kind = COMMAND_SEND_TO_CLIENT; kind <= COMMAND_CLIENT_INFO; kind++)
        for (size_t i = 0; i < COUNT(carriers); i++) {
            struct cluster_msg msg = {.kind = carriers[i],
                                      .id = 7,
                                      .at = 1700000000123,
                                      .to = STR("10.0.0.1:8800/1700000000000"),
                                      .slot = 16383,
                                      .counted = true,
                                      .ready = true,
                                      .command = full_command((enum command_kind)kind)};

            CHECK(survives(&msg));
            /* and with nothing in it but what must be */
            msg =
                (struct cluster_msg){.kind = carriers[i], .command.kind = (enum command_kind)kind};
            CHECK(survives(&msg));
        }
}

/* Each field alone: it is there afterwards, and no other is. */
static void each_field_survives_alone(void)
{
    const struct command full = full_command(COMMAND_BIND);

    for (int i = 0; i < 14; i++) {
        struct cluster_msg msg = {.kind = MSG_REQUEST, .command.kind = COMMAND_BIND};
        struct command *command = &msg.command;
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
        command->once = i == 13;
        CHECK(survives(&msg));
    }
}

/* A user or an extend that is empty is another thing than none. */
static void an_empty_extend_is_not_none(void)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .command.kind = COMMAND_BIND};

    CHECK(survives(&msg));
    msg.command.has_extend = true;
    CHECK(survives(&msg));
    msg.command.has_extend = false;
    msg.command.has_user = true;
    CHECK(survives(&msg));
}

static void numbers_survive(void)
{
    static const int64_t numbers[] = {0,         1,         -1,        9,         10,
                                      INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1700000000000};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        struct cluster_msg msg = {.kind = MSG_SEND,
                                  .id = (uint64_t)(numbers[i] & INT64_MAX),
                                  .at = numbers[i] & INT32_MAX,
                                  .slot = (uint64_t)(numbers[i] & INT64_MAX),
                                  .command = {.kind = COMMAND_SEND_TO_GROUP, .code = numbers[i]}};

        CHECK(survives(&msg));
    }
}

static void replies_survive(void)
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
        struct cluster_msg msg = {.kind = MSG_REPLY,
                                  .id = i,
                                  .result = {.code = (enum result_code)rows[i].code,
                                             .error = rows[i].error,
                                             .matched = rows[i].counts[0],
                                             .queued = rows[i].counts[1],
                                             .dropped = rows[i].counts[2],
                                             .repeated = i % 2 == 1,
                                             .count = rows[i].counts[3]}};

        buf_append(&msg.result.list, str_from(rows[i].list_text));
        CHECK(survives(&msg));
        buf_free(&msg.result.list);
    }
}

static void other_messages_survive(void)
{
    for (size_t i = 3; i < COUNT(msgs_of); i++) {
        struct cluster_msg msg = {.kind = msgs_of[i].kind};

        CHECK(survives(&msg));
        msg.id = 1;
        msg.at = 2;
        msg.slot = 4;
        msg.ready = true;
        CHECK(survives(&msg));
        msg.ready = false;
        msg.counted = true;
        msg.to = STR("10.0.0.1:8800/1");
        CHECK(survives(&msg));
    }
}

/* Nodes of different builds speak with each other: the text is part of the contract. */
static void messages_are_written(void)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST,
                              .id = 1,
                              .at = 2,
                              .command = {.kind = COMMAND_SEND_TO_CLIENT,
                                          .system = STR("s"),
                                          .client = {JSON_STRING, STR("\"c\"")},
                                          .code = 3,
                                          .msg = STR("\"m\""),
                                          .data = STR("[ 1.0 ]")}};
    struct buf out = {0};

    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out,
                "{\"message\":\"request\",\"id\":1,\"at\":2,\"command\":\"send_to_client\","
                "\"system\":\"s\",\"client\":\"c\",\"code\":3,\"msg\":\"m\",\"data\":[ 1.0 ]}"));
    msg = (struct cluster_msg){
        .kind = MSG_REPLY, .id = 1, .result = {.code = RESULT_OFFLINE, .error = "e", .matched = 2}};
    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out, "{\"message\":\"reply\",\"id\":1,\"code\":-1003,\"error\":\"e\","
                      "\"matched\":2,\"list\":[]}"));
    msg = (struct cluster_msg){.kind = MSG_STATUS, .ready = true};
    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out, "{\"message\":\"status\",\"ready\":true}"));
    msg = (struct cluster_msg){.kind = MSG_LEAVE};
    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out, "{\"message\":\"leave\"}"));
    msg = (struct cluster_msg){.kind = MSG_ACCOUNT, .deleted = true, .command.system = STR("s")};
    CHECK(msg_write(&out, &msg) && survives(&msg));
    CHECK(holds(&out, "{\"message\":\"account\",\"deleted\":true,\"system\":\"s\"}"));
    msg = (struct cluster_msg){.kind = MSG_ADOPT,
                               .id = 5,
                               .command = {.kind = COMMAND_CLIENT_INFO, .system = STR("s")},
                               .key = STR("k"),
                               .messages = 7,
                               .state = INT64_MAX};
    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out,
                "{\"message\":\"adopt\",\"id\":5,\"command\":\"client_info\",\"system\":\"s\","
                "\"key\":\"k\",\"messages\":7,\"state\":9223372036854775807}"));
    msg = (struct cluster_msg){.kind = MSG_LEAVE};
    /* what is there already stays in front */
    buf_append(&out, STR("before "));
    CHECK(msg_write(&out, &msg));
    CHECK(holds(&out, "before {\"message\":\"leave\"}"));
}

/* A session that moves: frames are strings, so whatever is in them comes out as it went in. */
static void adoptions_survive(void)
{
    struct cluster_msg msg = {.kind = MSG_ADOPTED,
                              .id = 5,
                              .at = 1800000000,
                              .command = {.kind = COMMAND_CLIENT_INFO,
                                          .user = STR("ann"),
                                          .has_user = true,
                                          .has_extend = true,
                                          .groups = STR("[\"a\",\"\\u0062\"]")},
                              .messages = 12,
                              .state = 34,
                              .is_signed = true,
                              .numbers = STR("[\"a:1/2\",3,4]")};
    struct buf text = {0};
    struct reading reading;

    json_append_quoted(&msg.result.list, STR("{\"data\":\t[1.0,\"\\n\"]}"));
    msg.result.count = 1;
    CHECK(msg_write(&text, &msg) && reads(&reading, str_of(&text)));
    CHECK(same_msg(&reading.msg, &msg) && same_result(&reading.msg, &msg.result));
    CHECK(reading.msg.messages == 12 && reading.msg.state == 34 && reading.msg.is_signed &&
          reading.msg.at == 1800000000 && str_equal(reading.msg.numbers, msg.numbers) &&
          str_equal(reading.msg.command.groups, msg.command.groups) &&
          str_equal(reading.msg.command.user, STR("ann")));
    end_reading(&reading);
    buf_free(&text);
    buf_free(&msg.result.list);
}

/* Whatever the room, the msg is whole or the failure is told. */
static void too_little_room_for_a_message_is_told(void)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .id = 1, .command = full_command(COMMAND_BIND)};
    struct buf whole = {0};

    CHECK(msg_write(&whole, &msg));
    for (size_t room = 1; room <= whole.length; room++) {
        struct buf out = {.limit = room};

        CHECK(msg_write(&out, &msg) == (room == whole.length) &&
              out.failed == (room < whole.length));
        buf_free(&out);
    }
    buf_free(&whole);
}

/* Members in any order, white space, escapes and members of a later version are all the same. */
static void messages_may_be_written_otherwise(void)
{
    static const char *const texts[] = {
        "{\"message\":\"request\",\"id\":1,\"command\":\"bind\",\"system\":\"s\",\"group\":\"g\"}",
        " { \"group\" : \"g\" , \"system\":\"s\",\n\"command\":\"bind\",\t\"id\" : 1,"
        "\"message\":\"request\" } ",
        "{\"\\u006dessage\":\"\\u0072equest\",\"\\u0069d\":1,\"command\":\"\\u0062ind\","
        "\"system\":\"\\u0073\",\"group\":\"\\u0067\"}",
        "{\"later\":{\"message\":\"leave\"},\"message\":\"request\",\"id\":1,\"command\":\"bind\","
        "\"system\":\"s\",\"group\":\"g\",\"x\":[]}",
        "{\"message\":\"request\",\"id\":1,\"command\":\"bind\",\"system\":\"s\",\"group\":\"g\","
        "\"counted\":false,\"ready\":false,\"code\":0}",
    };
    const struct cluster_msg expected = {
        .kind = MSG_REQUEST,
        .id = 1,
        .command = {.kind = COMMAND_BIND, .system = STR("s"), .group = STR("g")}};

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct reading reading;

        if (!CHECK(reads(&reading, str_from(texts[i])) && same_msg(&reading.msg, &expected)))
            printf("  that was %s\n", texts[i]);
        end_reading(&reading);
    }
}

#define REQUEST "{\"message\":\"request\",\"command\":\"bind\""
#define REPLY "{\"message\":\"reply\""

/* What is no JSON object is in test_json.c, messages changed at random in fuzz_command.c. */
static void malformed_messages_are_refused(void)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"message\":\"leave\"",
        "{\"message\":\"leave\",\"message\":\"leave\"}",
        "{\"message\":\"leave\",\"\\u006dessage\":\"leave\"}",
        /* no msg, or none that is known */
        "{\"id\":1,\"command\":\"bind\"}",
        "{\"message\":\"\"}",
        "{\"message\":\"leave \"}",
        "{\"message\":\"leav\"}",
        "{\"message\":\"leave\\u0000\"}",
        "{\"message\":null}",
        "{\"message\":1}",
        "{\"message\":[\"leave\"]}",
        "{\"Message\":\"leave\"}",
        /* commands */
        "{\"message\":\"request\"}",
        "{\"message\":\"send\"}",
        "{\"message\":\"request\",\"command\":\"\"}",
        "{\"message\":\"request\",\"command\":\"Bind\"}",
        "{\"message\":\"request\",\"command\":\"binds\"}",
        "{\"message\":\"request\",\"command\":1}",
        "{\"message\":\"request\",\"command\":null}",
        REQUEST ",\"system\":1}",
        REQUEST ",\"group\":{}}",
        REQUEST ",\"user\":true}",
        REQUEST ",\"extend\":null}",
        REQUEST ",\"reason\":[]}",
        REQUEST ",\"clients\":\"\"}",
        REQUEST ",\"clients\":{}}",
        REQUEST ",\"clients\":null}",
        REQUEST ",\"to\":1}",
        /* half surrogates, which no UTF-8 can say */
        REQUEST ",\"system\":\"\\ud800\"}",
        REQUEST ",\"user\":\"\\ud83dx\"}",
        REQUEST ",\"to\":\"\\ud83d\"}",
        REPLY ",\"list\":[],\"error\":\"\\ud83d\"}",
        /* numbers */
        REQUEST ",\"id\":\"1\"}",
        REQUEST ",\"id\":null}",
        REQUEST ",\"id\":1.0}",
        REQUEST ",\"id\":1e3}",
        REQUEST ",\"id\":9223372036854775808}",
        REQUEST ",\"id\":-9223372036854775809}",
        REQUEST ",\"at\":\"\"}",
        REQUEST ",\"slot\":{}}",
        REQUEST ",\"code\":\"1\"}",
        REQUEST ",\"code\":9223372036854775808}",
        REQUEST ",\"closeCode\":\"1000\"}",
        REQUEST ",\"closeCode\":1e3}",
        /* answers */
        REPLY "}",
        REPLY ",\"list\":null}",
        REPLY ",\"list\":\"\"}",
        REPLY ",\"list\":{}}",
        REPLY ",\"list\":[],\"code\":\"0\"}",
        REPLY ",\"list\":[],\"error\":1}",
        REPLY ",\"list\":[],\"matched\":\"1\"}",
        REPLY ",\"list\":[],\"queued\":1.5}",
        REPLY ",\"list\":[],\"dropped\":[]}",
        REPLY ",\"list\":[],\"total\":null}",
        REPLY ",\"list\":[],\"matched\":9223372036854775808}",
        /* JSON that no node writes */
        REQUEST ",\"counted\":1}",
        REQUEST ",\"counted\":\"true\"}",
        REQUEST ",\"once\":1}",
        REPLY ",\"list\":[],\"repeated\":\"true\"}",
        "{\"message\":\"status\",\"ready\":\"true\"}",
        "{\"message\":\"status\",\"ready\":null}",
        REQUEST ",\"client\":1}",
        REQUEST ",\"msg\":1}",
        REQUEST ",\"sendUserId\":[]}",
        REQUEST ",\"messageId\":{}}",
        REQUEST ",\"messageId\":\"\\ud800\"}",
        REQUEST ",\"closeCode\":-1}",
        REQUEST ",\"closeCode\":4294968296}", /* 1000, cut to 32 bits */
        REPLY ",\"list\":[],\"code\":4294966293}",
        REPLY ",\"list\":[],\"matched\":-1}",
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct reading reading;

        if (!CHECK(!reads(&reading, str_from(texts[i]))))
            printf("  that was %s\n", texts[i]);
        end_reading(&reading);
    }
}

/* One buffer serves many messages; nothing of those before is left, whatever became of them. */
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
        struct cluster_msg msg;
        bool good = msg_read(text, &decoded, &msg);

        CHECK(good == (rows[i].system != NULL));
        CHECK(!good || same(msg.command.system, str_from(rows[i].system)));
        CHECK(decoded.length <= text.length && !decoded.failed);
        free_copy(text);
    }
    buf_free(&decoded);
    /* without room it is refused, and the next one is another matter */
    decoded.limit = 10;
    for (int i = 0; i < 2; i++) {
        struct cluster_msg msg;

        CHECK(!msg_read(str_from(rows[1].text), &decoded, &msg) && decoded.failed);
    }
    decoded.limit = 0;
    {
        struct cluster_msg msg;

        CHECK(msg_read(str_from(rows[1].text), &decoded, &msg));
        CHECK(same(msg.command.system, STR("short")));
    }
    buf_free(&decoded);
}

/* A msg whose strings are all as long as can be, each with escapes: the views do not move. */
static void long_strings_are_decoded(void)
{
    struct cluster_msg msg = {.kind = MSG_REQUEST, .command.kind = COMMAND_CLOSE_CLIENT};
    struct buf texts[4] = {{0}};

    for (size_t i = 0; i < 4; i++)
        for (int k = 0; k < 5000; k++)
            buf_append(&texts[i], (struct str){&"\"\\\n\x01\0xyz"[(k + (int)i) % 8], 1});
    msg.command.system = str_of(&texts[0]);
    msg.command.group = str_of(&texts[1]);
    msg.command.user = str_of(&texts[2]);
    msg.command.has_user = true;
    msg.command.reason = str_of(&texts[3]);
    CHECK(survives(&msg));
    for (size_t i = 0; i < 4; i++)
        buf_free(&texts[i]);
}

/* --- batches ---------------------------------------------------------------------------------- */

static const struct node_id origin = {"[::1]:8800", 1700000000123};

static const struct wire_batch head_of_batch = {.origin = {"[::1]:8800", 1700000000123},
                                                .lane = LANE_NOTICE,
                                                .partition = 15,
                                                .first_seq = 0x0102030405060708};

/* A batch of these entries. */
static struct buf batch_of(const struct crypto_keyring *keys, const struct wire_batch *head,
                           const struct str *entries, uint32_t count)
{
    struct buf out = {0};

    CHECK(wire_begin_batch(&out, keys, head));
    for (uint32_t i = 0; i < count; i++)
        CHECK(wire_append_entry(&out, entries[i]));
    CHECK(wire_seal_batch(&out, keys, STR("wspush 0"), count));
    return out;
}

static enum wire_result open_copy(struct str bytes, const struct crypto_keyring *keys,
                                  const char *cluster)
{
    struct wire_batch batch = {.count = 0};
    struct str copy = exact_copy(bytes), entry;
    enum wire_result result = wire_open_batch(copy, keys, str_from(cluster), &batch);

    while (result == WIRE_GOOD && wire_next_entry(&batch, &entry))
        CHECK(entry.at >= copy.at && entry.at + entry.length <= copy.at + copy.length);
    free_copy(copy);
    return result;
}

static void batches_survive(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    static const struct str entries[] = {STR_INIT("one"), STR_INIT(""), STR_INIT("\0\xff{}"),
                                         STR_INIT("four")};

    for (uint32_t count = 0; count <= COUNT(entries); count++) {
        struct buf bytes = batch_of(&keys, &head_of_batch, entries, count);
        struct str copy = exact_copy(str_of(&bytes)), entry;
        struct wire_batch batch = {.count = 0};

        CHECK(wire_open_batch(copy, &keys, STR("wspush 0"), &batch) == WIRE_GOOD);
        CHECK(node_equal(&batch.origin, &origin) && batch.lane == LANE_NOTICE);
        CHECK(batch.partition == 15 && batch.first_seq == 0x0102030405060708 &&
              batch.count == count);
        for (uint32_t i = 0; i < count; i++)
            CHECK(wire_next_entry(&batch, &entry) && str_equal(entry, entries[i]));
        CHECK(!wire_next_entry(&batch, &entry) && batch.entries.length == 0);
        free_copy(copy);
        buf_free(&bytes);
    }
}

/* The layout is the contract between versions: magic, MAC, version, key, origin, stream, numbers.
 */
static void batches_are_written(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    struct wire_batch head = head_of_batch;
    struct buf bytes;
    struct str entry = STR("e");
    struct str behind = {0};

    head.lane = LANE_SEND;
    bytes = batch_of(&keys, &head, &entry, 1);
    CHECK(bytes.length == 3 + 32 + 1 + 8 + 1 + 24 + 2 + 8 + 4 + 4 + 1);
    CHECK(memcmp(bytes.at, "wsp", 3) == 0 && bytes.at[35] == WIRE_VERSION);
    CHECK(memcmp(bytes.at + 36, keys.keys[0].name, 8) == 0);
    behind = (struct str){bytes.at + 44, bytes.length - 44};
    CHECK(str_equal(behind, STR("\x18[::1]:8800/1700000000123\0\x0f\x01\x02\x03\x04\x05\x06\x07"
                                "\x08\0\0\0\x01\0\0\0\x01"
                                "e")));
    buf_free(&bytes);
}

static void large_entries_survive(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    static const size_t lengths[] = {1024 * 1024, 0, 65536, 1024 * 1024 + 1};
    char *text = malloc(1024 * 1024 + 1);
    struct str entries[COUNT(lengths)], entry;
    struct wire_batch batch = {.count = 0};
    struct buf bytes;

    if (!text)
        abort();
    for (size_t i = 0; i < 1024 * 1024 + 1; i++)
        text[i] = (char)(i * 7 / 3);
    for (size_t i = 0; i < COUNT(lengths); i++)
        entries[i] = (struct str){text, lengths[i]};
    bytes = batch_of(&keys, &head_of_batch, entries, COUNT(entries));
    CHECK(wire_open_batch(str_of(&bytes), &keys, STR("wspush 0"), &batch) == WIRE_GOOD);
    for (size_t i = 0; i < COUNT(lengths); i++)
        CHECK(wire_next_entry(&batch, &entry) && str_equal(entry, entries[i]));
    CHECK(!wire_next_entry(&batch, &entry));
    buf_free(&bytes);
    free(text);
}

/* Every byte and every length is covered: by the MAC, or it names the key or the magic. */
static void changed_batches_are_refused(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NEW_KEY);
    static const struct str entries[] = {STR_INIT("one"), STR_INIT("two")};
    struct buf bytes = batch_of(&keys, &head_of_batch, entries, 2);

    for (size_t at = 0; at < bytes.length; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes.at[at] = (char)(bytes.at[at] ^ (int)(1u << bit));
            CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") ==
                  (at < 3 ? WIRE_MALFORMED : WIRE_FOREIGN));
            bytes.at[at] = (char)(bytes.at[at] ^ (int)(1u << bit));
        }
    for (size_t length = 0; length < bytes.length; length++)
        CHECK(open_copy((struct str){bytes.at, length}, &keys, "wspush 0") ==
              (length < 45 ? WIRE_MALFORMED : WIRE_FOREIGN));
    CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") == WIRE_GOOD);
    buf_append(&bytes, (struct str){"", 1});
    CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") == WIRE_FOREIGN);
    buf_free(&bytes);
}

/* Two environments on one RabbitMQ: another name, or another key, and it is foreign. */
static void foreign_batches_are_refused(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL), others = keys_of(NEW_KEY, NULL);
    struct crypto_keyring both = keys_of(NEW_KEY, OLD_KEY), none = {.count = 0};
    struct str entry = STR("e");
    struct buf bytes = batch_of(&keys, &head_of_batch, &entry, 1);

    CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") == WIRE_GOOD);
    CHECK(open_copy(str_of(&bytes), &both, "wspush 0") == WIRE_GOOD);
    CHECK(open_copy(str_of(&bytes), &keys, "wspush 1") == WIRE_FOREIGN);
    CHECK(open_copy(str_of(&bytes), &keys, "wspush 00") == WIRE_FOREIGN);
    CHECK(open_copy(str_of(&bytes), &keys, "") == WIRE_FOREIGN);
    CHECK(open_copy(str_of(&bytes), &others, "wspush 0") == WIRE_FOREIGN);
    CHECK(open_copy(str_of(&bytes), &none, "wspush 0") == WIRE_FOREIGN);
    /* the name of a key is no proof of it */
    memcpy(bytes.at + 36, others.keys[0].name, 8);
    CHECK(open_copy(str_of(&bytes), &both, "wspush 0") == WIRE_FOREIGN);
    buf_free(&bytes);
}

/* Puts the right MAC on changed bytes, as only a node of the cluster can. */
static void seal_again(struct buf *bytes, const struct crypto_keyring *keys, struct str cluster)
{
    unsigned char key[CRYPTO_HASH_SIZE];

    CHECK(crypto_hmac(keys->keys[0].publication, cluster, key));
    CHECK(crypto_hmac(key, (struct str){bytes->at + 35, bytes->length - 35},
                      (unsigned char *)bytes->at + 3));
}

/* A node of the version before, and of the one after, is understood, and no other. */
static void versions_beside_are_understood(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    struct str entry = STR("e");
    struct buf bytes = batch_of(&keys, &head_of_batch, &entry, 1);

    for (int version = 0; version < 256; version++) {
        bytes.at[35] = (char)version;
        CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") ==
              (version == WIRE_VERSION ? WIRE_GOOD : WIRE_FOREIGN));
        seal_again(&bytes, &keys, STR("wspush 0"));
        CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") ==
              (version >= WIRE_VERSION - 1 && version <= WIRE_VERSION + 1 ? WIRE_GOOD
                                                                          : WIRE_VERSION_UNKNOWN));
        bytes.at[35] = WIRE_VERSION;
        seal_again(&bytes, &keys, STR("wspush 0"));
    }
    buf_free(&bytes);
}

/* A good MAC, and what is behind it is not what a node writes. */
static void malformed_batches_are_refused(void)
{
    static const struct {
        size_t at; /* from the origin's length on */
        const char *bytes;
        size_t length;
    } rows[] = {
        {0, "\0", 1},                /* no origin */
        {0, "\x17", 1},              /* one that is cut */
        {0, "\xff", 1},              /* and one that is longer than the batch */
        {1, "(", 1},                 /* none */
        {24, "\0", 1},               /* no digit */
        {25, "\x02", 1},             /* no lane */
        {25, "\xff", 1},             /* nor this */
        {26, "\x10", 1},             /* no partition */
        {35, "\0\0\0\x01", 4},       /* a count that lies: less, */
        {35, "\0\0\0\x03", 4},       /* more, */
        {35, "\0\0\0\0", 4},         /* none, */
        {35, "\xff\xff\xff\xff", 4}, /* all */
        {39, "\0\0\0\x02", 4},       /* lengths that do */
        {39, "\0\0\0\x04", 4},
        {39, "\xff\xff\xff\xff", 4},
        {39, "\x7f\xff\xff\xff", 4},
        {46, "\0\0\0\x02", 4},
        {46, "\0\0\0\x04", 4},
        {46, "\0\0\x01\x03", 4},
    };
    static const struct str entries[] = {STR_INIT("one"), STR_INIT("two")};
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    struct buf bytes = batch_of(&keys, &head_of_batch, entries, 2);
    struct str whole = exact_copy(str_of(&bytes));

    for (size_t i = 0; i < COUNT(rows); i++) {
        memcpy(bytes.at, whole.at, whole.length);
        memcpy(bytes.at + 44 + rows[i].at, rows[i].bytes, rows[i].length);
        seal_again(&bytes, &keys, STR("wspush 0"));
        if (!CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") == WIRE_MALFORMED))
            printf("  that was row %zu\n", i);
    }
    /* cut anywhere, or with something behind it */
    memcpy(bytes.at, whole.at, whole.length);
    for (size_t length = 45; length < whole.length; length++) {
        struct buf cut = {0};

        buf_append(&cut, (struct str){whole.at, length});
        seal_again(&cut, &keys, STR("wspush 0"));
        CHECK(open_copy(str_of(&cut), &keys, "wspush 0") == WIRE_MALFORMED);
        buf_free(&cut);
    }
    for (size_t i = 0; i < 8; i++) {
        buf_append(&bytes, (struct str){"", 1});
        seal_again(&bytes, &keys, STR("wspush 0"));
        CHECK(open_copy(str_of(&bytes), &keys, "wspush 0") == WIRE_MALFORMED);
    }
    buf_free(&bytes);
    free_copy(whole);
}

/* Without room a batch is not written in part and sealed. */
static void a_batch_without_room_is_not_sealed(void)
{
    struct crypto_keyring keys = keys_of(OLD_KEY, NULL);
    struct str entry = STR("entry");
    struct buf whole = batch_of(&keys, &head_of_batch, &entry, 1);

    for (size_t room = 1; room <= whole.length; room++) {
        struct buf out = {.limit = room};

        wire_begin_batch(&out, &keys, &head_of_batch);
        wire_append_entry(&out, entry);
        CHECK(wire_seal_batch(&out, &keys, STR("wspush 0"), 1) == (room == whole.length));
        buf_free(&out);
    }
    CHECK(whole.length - 5 - 4 <= WIRE_BATCH_HEAD_MAX);
    buf_free(&whole);
}

/* --- commands of other nodes ----------------------------------------------------------------- */

static void commands_that_clients_could_not_read_are_invalid(void)
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
        command.once = true; /* but no messageId */
        CHECK(wire_command_is_valid(&command) != sends);
        command.message_id = STR("\"\"");
        CHECK(wire_command_is_valid(&command));
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
    test_run("names_are_made_and_split", names_are_made_and_split);
    test_run("names_have_bounds", names_have_bounds);
    test_run("node_ids_survive", node_ids_survive);
    test_run("the_longest_node_id_survives", the_longest_node_id_survives);
    test_run("other_spellings_are_refused", other_spellings_are_refused);
    test_run("every_change_is_another_node_or_none", every_change_is_another_node_or_none);
    test_run("nodes_are_compared", nodes_are_compared);
    test_run("tags_tell_nodes_apart", tags_tell_nodes_apart);
    test_run("client_ids_name_their_owner", client_ids_name_their_owner);
    test_run("ids_are_opened_under_both_keys", ids_are_opened_under_both_keys);
    test_run("what_is_no_id_is_not_opened", what_is_no_id_is_not_opened);
    test_run("slots_are_those_of_redis", slots_are_those_of_redis);
    test_run("commands_survive_in_messages", commands_survive_in_messages);
    test_run("each_field_survives_alone", each_field_survives_alone);
    test_run("an_empty_extend_is_not_none", an_empty_extend_is_not_none);
    test_run("numbers_survive", numbers_survive);
    test_run("replies_survive", replies_survive);
    test_run("other_messages_survive", other_messages_survive);
    test_run("messages_are_written", messages_are_written);
    test_run("adoptions_survive", adoptions_survive);
    test_run("too_little_room_for_a_message_is_told", too_little_room_for_a_message_is_told);
    test_run("messages_may_be_written_otherwise", messages_may_be_written_otherwise);
    test_run("malformed_messages_are_refused", malformed_messages_are_refused);
    test_run("what_was_decoded_before_is_dropped", what_was_decoded_before_is_dropped);
    test_run("long_strings_are_decoded", long_strings_are_decoded);
    test_run("batches_survive", batches_survive);
    test_run("batches_are_written", batches_are_written);
    test_run("large_entries_survive", large_entries_survive);
    test_run("changed_batches_are_refused", changed_batches_are_refused);
    test_run("foreign_batches_are_refused", foreign_batches_are_refused);
    test_run("versions_beside_are_understood", versions_beside_are_understood);
    test_run("malformed_batches_are_refused", malformed_batches_are_refused);
    test_run("a_batch_without_room_is_not_sealed", a_batch_without_room_is_not_sealed);
    test_run("commands_that_clients_could_not_read_are_invalid",
             commands_that_clients_could_not_read_are_invalid);
    test_run("only_three_kinds_are_published", only_three_kinds_are_published);
    return test_finish();
}

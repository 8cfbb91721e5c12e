/* fuzz_command.c - messages and batches of nodes: what is read is the same when written again, and
 * a command that another node sends does no harm here: what clients get of it is whole frames of
 * whole JSON. */
#include "cluster_wire.h"
#include "hub.h"

#include "fuzz.h"

#define NOW 1700000000
#define CLIENTS 2

/* Called instead of crypto_random, so that the ids of clients are the same in every run. */
bool __wrap_crypto_random(void *out, size_t length);

static unsigned char next_number;

bool __wrap_crypto_random(void *out, size_t length)
{
    memset(out, ++next_number, length);
    return true;
}

/* --- messages that are the same -------------------------------------------------------------- */

static void require_same_command(const struct command *a, const struct command *b)
{
    REQUIRE(a->kind == b->kind && str_equal(a->system, b->system));
    REQUIRE(a->client.type == b->client.type && str_equal(a->client.text, b->client.text));
    REQUIRE(str_equal(a->clients, b->clients) && str_equal(a->group, b->group));
    REQUIRE(str_equal(a->user, b->user) && str_equal(a->extend, b->extend));
    REQUIRE(a->has_user == b->has_user && a->once == b->once);
    REQUIRE(a->has_extend == b->has_extend && a->code == b->code && str_equal(a->msg, b->msg));
    REQUIRE(str_equal(a->data, b->data) && str_equal(a->send_user, b->send_user));
    REQUIRE(str_equal(a->message_id, b->message_id) && a->close_code == b->close_code);
    REQUIRE(str_equal(a->reason, b->reason));
}

static void require_same(const struct cluster_msg *a, const struct cluster_msg *b)
{
    REQUIRE(a->kind == b->kind && a->id == b->id && a->at == b->at && str_equal(a->to, b->to));
    REQUIRE(a->slot == b->slot && a->counted == b->counted && a->ready == b->ready);
    if (a->kind == MSG_REQUEST || a->kind == MSG_SEND)
        require_same_command(&a->command, &b->command);
    if (a->kind != MSG_REPLY)
        return;
    REQUIRE(a->result.code == b->result.code && a->result.matched == b->result.matched);
    REQUIRE(a->result.queued == b->result.queued && a->result.dropped == b->result.dropped);
    REQUIRE(a->result.count == b->result.count && str_equal(a->error, b->error));
    REQUIRE(a->result.repeated == b->result.repeated);
    REQUIRE(str_equal(a->list, b->list));
}

/* Writes a message and reads that; `msg` has its error and its list as views. */
static void require_same_when_written(const struct cluster_msg *msg)
{
    struct cluster_msg copy = *msg, again;
    struct buf error = {0}, text = {0}, decoded = {0};
    struct str bytes;

    buf_append(&error, msg->error);
    buf_append(&error, (struct str){"", 1});
    copy.result.error = error.at;
    copy.error = str_from(error.at); /* one with a NUL ends there */
    copy.result.list.at = (char *)(uintptr_t)msg->list.at;
    copy.result.list.length = msg->list.length;
    REQUIRE(msg_write(&text, &copy));
    bytes = exact_copy(str_of(&text));
    REQUIRE(msg_read(bytes, &decoded, &again));
    require_same(&copy, &again);
    free_copy(bytes);
    buf_free(&error);
    buf_free(&text);
    buf_free(&decoded);
}

/* --- what a command does here ---------------------------------------------------------------- */

static struct crypto_keyring keys;
static const struct node_id self = {"127.0.0.1:8800", NOW};
static struct node_tag tag;
static struct config config;
static unsigned channels[WIRE_SLOTS];

static void require_object(struct str text)
{
    struct json_error error;

    REQUIRE(json_parse_object(text, NULL, 0, &error));
}

static bool seal_id(void *state, uint64_t number, char id[HUB_ID_TEXT])
{
    (void)state;
    return wire_seal_client(&keys, &tag, number, id);
}

static bool open_id(void *state, struct json_value id, uint64_t *number)
{
    struct node_tag owner;

    (void)state;
    return wire_open_client(&keys, id, &owner, number) && node_has_tag(&owner, &tag);
}

static void change_channel(void *state, enum channel_kind kind, struct str system, struct str name,
                           bool exists)
{
    unsigned *count = &channels[wire_slot((enum wire_channel)kind, system, name)];

    (void)state;
    REQUIRE(exists || *count);
    *count += exists ? 1u : -1u;
}

static void change_presence(void *state, const struct hub_presence *presence)
{
    (void)state;
    REQUIRE(presence->id.length == HUB_ID_TEXT + 2 && presence->system.length);
    require_object(presence->client_json);
}

static const struct hub_hooks hooks = {NULL, seal_id, open_id, change_channel, change_presence};

struct fuzz_node {
    struct hub hub;
    struct conn_shared shared;
    struct conn conns[CLIENTS];
};

static void require_envelope(struct str text)
{
    struct json_field fields[] = {
        {.name = STR_INIT("code")}, {.name = STR_INIT("msg")}, {.name = STR_INIT("data")}};
    struct json_error error;

    REQUIRE(json_parse_object(text, fields, COUNT(fields), &error));
    REQUIRE(fields[0].value.type == JSON_NUMBER && fields[1].value.type == JSON_STRING);
    REQUIRE(fields[2].value.type != JSON_NONE);
}

/* Each message in a queue is one frame, as a client can read it. */
static void require_frames(const struct conn *conn)
{
    struct conn_cursor cursor = {0};
    const struct rcbuf *message;

    while ((message = conn_next_queued(conn, &cursor))) {
        struct ws_reader reader = {.from_server = true, .limit = UINT32_MAX};
        struct ws_event event;
        char *copy = exact_bytes((struct str){message->bytes, message->length});

        REQUIRE(ws_read(&reader, copy, message->length, &event) == message->length);
        if (event.type == WS_EVENT_DATA) {
            REQUIRE(event.last && event.opcode == WS_TEXT);
            require_envelope(event.payload);
        } else {
            REQUIRE(event.type == WS_EVENT_CONTROL && event.opcode == WS_CLOSE &&
                    !conn_next_queued(conn, &cursor));
        }
        free(copy);
    }
}

static void open_node(struct fuzz_node *node, enum config_notice scope)
{
    static const struct log log = {.level = (enum log_level)(LOG_ERROR + 1)};

    next_number = 0;
    config.scope = scope;
    memset(node, 0, sizeof *node);
    REQUIRE(hub_open(&node->hub, &config, &log));
    node->hub.hooks = &hooks;
    for (size_t i = 0; i < CLIENTS; i++) {
        conn_open(&node->conns[i], -1, &node->shared);
        REQUIRE(hub_connect(&node->hub, &node->conns[i],
                            &(struct ticket_claims){.system = STR("shop")}));
    }
}

static void close_node(struct fuzz_node *node)
{
    for (size_t i = 0; i < CLIENTS; i++)
        if (node->conns[i].client)
            hub_end_client(&node->hub, node->conns[i].client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                           STR("test"));
    REQUIRE(node->hub.channels.clients.count == 0 && node->hub.channels.names.count == 0);
    for (size_t i = 0; i < WIRE_SLOTS; i++)
        REQUIRE(channels[i] == 0);
    hub_close(&node->hub);
    while (conn_next_dirty(&node->shared))
        ;
    for (size_t i = 0; i < CLIENTS; i++)
        conn_close(&node->conns[i]);
}

static void require_outcome(const struct command *command, const struct result *result)
{
    struct buf list = {0};

    REQUIRE(!result->code == !result->error);
    REQUIRE(result->matched == result->queued + result->dropped);
    REQUIRE(result->matched <= CLIENTS || command->kind == COMMAND_SEND_TO_CLIENTS);
    buf_append(&list, STR("{\"list\":["));
    buf_append(&list, str_of(&result->list));
    if (command->kind == COMMAND_CLIENT_INFO && !result->code) {
        require_object(str_of(&result->list));
    } else {
        buf_append(&list, STR("]}"));
        require_object(str_of(&list));
    }
    buf_free(&list);
}

static void try_command(const struct command *command, enum config_notice scope)
{
    static struct fuzz_node node;

    open_node(&node, scope);
    for (int i = 0; i < 2; i++) { /* the second time finds what the first has left */
        struct result result = {0};

        hub_apply(&node.hub, command, &result);
        require_outcome(command, &result);
        buf_free(&result.list);
        hub_refresh_presence(&node.hub, &(struct table_scan){0}, i);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        require_frames(&node.conns[i]);
    close_node(&node);
}

/* --- messages received ---------------------------------------------------------------------- */

static void require_views(const struct cluster_msg *msg, struct str text, struct str decoded)
{
    const struct command *command = &msg->command;
    const struct str raw[] = {msg->list,     command->client.text, command->clients,   command->msg,
                              command->data, command->send_user,   command->message_id};
    const struct str strings[] = {msg->to,       msg->error,      command->system, command->group,
                                  command->user, command->extend, command->reason};

    for (size_t i = 0; i < COUNT(raw); i++)
        REQUIRE(is_inside(raw[i], text));
    for (size_t i = 0; i < COUNT(strings); i++)
        REQUIRE(is_inside(strings[i], decoded) && utf8_valid(strings[i]));
}

static void try_msg(struct str bytes)
{
    struct str text = exact_copy(bytes);
    struct buf decoded = {0};
    struct cluster_msg msg;
    bool good = msg_read(text, &decoded, &msg);

    if (good) {
        require_views(&msg, text, str_of(&decoded));
        require_same_when_written(&msg);
        if ((msg.kind == MSG_REQUEST || msg.kind == MSG_SEND) &&
            wire_command_is_valid(&msg.command))
            try_command(&msg.command, (enum config_notice)(bytes.length % 3));
    }
    buf_free(&decoded);
    free_copy(text);
}

/* --- messages made here --------------------------------------------------------------------- */

/* Some valid UTF-8, which goes to `room`, quoted or not; the room is large enough not to move. */
static struct str make_text(struct fuzz *fuzz, struct buf *room, bool quoted)
{
    struct str text = fuzz_take(fuzz, fuzz_byte(fuzz) % 24);
    size_t begin = room->length;

    if (!utf8_valid(text))
        text = STR("\xc3\xa9\"\x01\\");
    if (quoted)
        json_append_quoted(room, text);
    else
        buf_append(room, text);
    return (struct str){room->at + begin, room->length - begin};
}

/* An array of strings, with its brackets or without. */
static struct str make_list(struct fuzz *fuzz, struct buf *room, bool brackets)
{
    size_t begin = room->length;
    unsigned count = fuzz_byte(fuzz) % 4;

    buf_append(room, brackets ? STR("[") : STR(""));
    for (unsigned i = 0; i < count; i++) {
        buf_append(room, i ? STR(",") : STR(""));
        make_text(fuzz, room, true);
    }
    buf_append(room, brackets ? STR("]") : STR(""));
    return (struct str){room->at + begin, room->length - begin};
}

static uint64_t make_number(struct fuzz *fuzz)
{
    uint64_t number = fuzz_byte(fuzz);

    return number < 128 ? number : (number << 55 | fuzz_byte(fuzz)) & INT64_MAX;
}

static void make_command(struct fuzz *fuzz, struct buf *room, struct command *command)
{
    command->kind = (enum command_kind)(fuzz_byte(fuzz) % (COMMAND_CLIENT_INFO + 1));
    command->system = make_text(fuzz, room, false);
    command->client = (struct json_value){JSON_STRING, make_text(fuzz, room, true)};
    command->clients = make_list(fuzz, room, true);
    command->group = make_text(fuzz, room, false);
    command->user = make_text(fuzz, room, false);
    command->has_user = command->user.length > 0;
    command->has_extend = fuzz_byte(fuzz) & 1;
    if (command->has_extend)
        command->extend = make_text(fuzz, room, false);
    command->code = (int64_t)(make_number(fuzz) << 1);
    command->msg = make_text(fuzz, room, true);
    command->data = make_list(fuzz, room, true);
    command->send_user = make_text(fuzz, room, true);
    command->message_id = make_text(fuzz, room, true);
    command->close_code = 3000 + fuzz_byte(fuzz);
    command->once = command->close_code & 1;
    command->reason = make_text(fuzz, room, false);
}

static void try_making(struct fuzz *fuzz)
{
    struct cluster_msg msg = {.kind = (enum msg_kind)(fuzz_byte(fuzz) % (MSG_ACCOUNT + 1))};
    struct buf room = {0};
    struct buf push = {0};

    REQUIRE(buf_reserve(&room, 65536));
    msg.id = make_number(fuzz);
    msg.at = (int64_t)(make_number(fuzz) >> 3);
    msg.to = make_text(fuzz, &room, false);
    msg.slot = make_number(fuzz);
    msg.counted = fuzz_byte(fuzz) & 1;
    msg.ready = fuzz_byte(fuzz) & 1;
    make_command(fuzz, &room, &msg.command);
    msg.result.code = (enum result_code) - (int)(fuzz_byte(fuzz) * 3);
    msg.result.matched = make_number(fuzz);
    msg.result.queued = make_number(fuzz);
    msg.result.dropped = make_number(fuzz);
    msg.result.repeated = msg.result.dropped & 1;
    msg.result.count = make_number(fuzz);
    msg.error = make_text(fuzz, &room, false);
    msg.list = make_list(fuzz, &room, false);
    require_same_when_written(&msg);
    REQUIRE(command_write_push(&push, &msg.command));
    require_object(str_of(&push));
    buf_free(&push);
    buf_free(&room);
}

/* --- batches --------------------------------------------------------------------------------- */

/* What stands behind the MAC is anything at all, under a MAC that is right: the head and the
 * entries are looked at, which no stranger's are. */
static void try_batch(struct str bytes)
{
    struct wire_batch head = {.origin = self}, batch;
    struct buf out = {0}, again = {0};
    struct str entry, whole;
    uint32_t count = 0;
    bool good = wire_begin_batch(&out, &keys, &head);
    size_t begin = out.length - 14 - strlen("127.0.0.1:8800/1700000000") - 1;

    out.length = begin; /* the length of the origin stands there, */
    buf_append(&out, bytes);
    REQUIRE(good && !out.failed);
    if (!bytes.length || bytes.length < 15 + (size_t)(unsigned char)bytes.at[0]) {
        buf_free(&out);
        return;
    }
    /* where wire_seal_batch writes the count: it stays what it was */
    for (size_t i = 0; i < 4; i++)
        count = count << 8 | (unsigned char)bytes.at[11 + (size_t)(unsigned char)bytes.at[0] + i];
    REQUIRE(wire_seal_batch(&out, &keys, STR("c"), count));
    whole = exact_copy(str_of(&out));
    if (wire_open_batch(whole, &keys, STR("c"), &batch) == WIRE_GOOD) {
        REQUIRE(wire_begin_batch(&again, &keys, &batch));
        for (count = 0; wire_next_entry(&batch, &entry); count++) {
            REQUIRE(is_inside(entry, whole));
            wire_append_entry(&again, entry);
        }
        REQUIRE(count == batch.count && wire_seal_batch(&again, &keys, STR("c"), count));
        REQUIRE(str_equal(str_of(&again), whole));
    }
    buf_free(&out);
    buf_free(&again);
    free_copy(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};

    if (!keys.count) {
        config_defaults(&config);
        REQUIRE(crypto_add_key(&keys, STR("0123456789abcdef"), false));
        REQUIRE(node_make_tag(&self, &tag));
    }
    /* messages stand as they are; a first byte that none has makes one of what follows */
    if (length && at[0] == 0xff) {
        fuzz_byte(&fuzz);
        try_making(&fuzz);
    } else if (length && at[0] == 0xfe) {
        fuzz_byte(&fuzz);
        try_batch(fuzz_rest(&fuzz));
    } else {
        try_msg(fuzz_rest(&fuzz));
    }
    return 0;
}

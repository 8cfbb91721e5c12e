/* cluster_wire.c - what nodes say to each other, as bytes.
 *
 * Messages: one flat JSON object each, so that a node of another version skips the members it does
 * not know. What clients get (msg, data) is in it byte for byte as the business system sent it.
 *
 * Batches: a binary frame around messages. It names its origin, its stream and its first seq, and
 * has a MAC over that, the entries and the cluster's name. The MAC is checked before anything
 * behind it is read, so what a stranger publishes on the same RabbitMQ costs one hash.
 *
 * Client ids: an id seals 23 bytes: 7 of a hash of the owner's name, the owner's incarnation, the
 * client's number. The name itself does not fit; the opener compares the hash with those of the
 * nodes it knows. */
#include "cluster_wire.h"

#include "cluster_crypto.h"

#include <stdio.h>
#include <string.h>

#define WIRE_CLOSE_CODE_MAX 4999
#define WIRE_LIMIT_MAX 1000              /* entries of a page */
#define WIRE_TIME_MAX ((int64_t)1 << 60) /* milliseconds; no clock shows more */

/* --- nodes ------------------------------------------------------------------------------------ */

bool node_set_name(struct node_id *node, struct str host, unsigned port)
{
    bool is_ipv6 = host.length && memchr(host.at, ':', host.length);

    if (!host.length || host.length > NODE_HOST_MAX || port > 65535)
        return false;
    snprintf(node->name, sizeof node->name, is_ipv6 ? "[%.*s]:%u" : "%.*s:%u", (int)host.length,
             host.at, port);
    return true;
}

bool node_split_name(const struct node_id *node, struct str *host, unsigned *port)
{
    const char *colon = strrchr(node->name, ':');
    uint64_t number = 0;

    if (!colon || !str_number(str_from(colon + 1), 65535, &number))
        return false;
    *port = (unsigned)number;
    *host = (struct str){node->name, (size_t)(colon - node->name)};
    if (host->length >= 2 && host->at[0] == '[' && host->at[host->length - 1] == ']')
        *host = (struct str){host->at + 1, host->length - 2};
    return host->length > 0;
}

size_t node_write(const struct node_id *node, char text[NODE_TEXT_MAX])
{
    return (size_t)snprintf(text, NODE_TEXT_MAX, "%s/%llu", node->name,
                            (unsigned long long)node->incarnation);
}

/* True if all bytes may be in an address or a host name. */
static bool node_is_host(struct str host)
{
    for (size_t i = 0; i < host.length; i++) {
        char c = host.at[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '.' || c == '-' || c == '_' || c == ':'))
            return false;
    }
    return true;
}

bool node_read(struct str text, struct node_id *node)
{
    struct node_id read = {.name = ""}, again = {.name = ""};
    struct str rest = text, name = str_cut(&rest, '/'), host;
    unsigned port;

    if (!name.length || name.length > NODE_NAME_MAX || !rest.length || rest.at[0] == '0' ||
        !str_number(rest, UINT64_MAX, &read.incarnation))
        return false;
    memcpy(read.name, name.at, name.length);
    /* a leading zero or a needless bracket would give a node a second name */
    if (strlen(read.name) != name.length || !node_split_name(&read, &host, &port) ||
        !node_is_host(host) || !node_set_name(&again, host, port) ||
        !node_equal_name(&read, &again))
        return false;
    *node = read;
    return true;
}

bool node_equal_name(const struct node_id *a, const struct node_id *b)
{
    return strcmp(a->name, b->name) == 0;
}

bool node_equal(const struct node_id *a, const struct node_id *b)
{
    return a->incarnation == b->incarnation && node_equal_name(a, b);
}

/* --- client ids ------------------------------------------------------------------------------- */

bool node_make_tag(const struct node_id *node, struct node_tag *tag)
{
    unsigned char hash[CRYPTO_HASH_SIZE];

    if (!crypto_sha256(str_from(node->name), hash))
        return false;
    memcpy(tag->bytes, hash, sizeof tag->bytes);
    tag->incarnation = node->incarnation;
    return true;
}

bool node_has_tag(const struct node_tag *tag, const struct node_tag *other)
{
    return tag->incarnation == other->incarnation &&
           memcmp(tag->bytes, other->bytes, sizeof tag->bytes) == 0;
}

_Static_assert(CLUSTER_ID_SIZE == 7 + 8 + 8, "an id seals a tag and a number");

bool wire_seal_client(const struct crypto_keyring *keys, const struct node_tag *owner,
                      uint64_t number, char text[HUB_ID_TEXT])
{
    unsigned char plain[CLUSTER_ID_SIZE];

    memcpy(plain, owner->bytes, 7);
    bytes_put_be(plain + 7, 8, owner->incarnation);
    bytes_put_be(plain + 15, 8, number);
    return cluster_crypto_seal_id(&keys->keys[0], plain, text);
}

bool wire_open_client(const struct crypto_keyring *keys, struct json_value id,
                      struct node_tag *owner, uint64_t *number)
{
    char room[HUB_ID_TEXT + 1];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    unsigned char plain[CLUSTER_ID_SIZE];
    bool opened = false;

    if (!json_decode_string(id, &text))
        return false;
    for (size_t i = 0; i < keys->count && !opened; i++)
        opened = cluster_crypto_open_id(&keys->keys[i], str_of(&text), plain);
    if (!opened)
        return false;
    memcpy(owner->bytes, plain, 7);
    owner->incarnation = bytes_get_be(plain + 7, 8);
    *number = bytes_get_be(plain + 15, 8);
    return true;
}

/* --- slots ------------------------------------------------------------------------------------ */

static uint16_t wire_crc16(uint16_t crc, struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        crc = (uint16_t)(crc ^ (unsigned)(unsigned char)text.at[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (unsigned)crc << 1 ^ 0x1021 : (unsigned)crc << 1);
    }
    return crc;
}

uint16_t wire_slot(enum wire_channel kind, struct str system, struct str name)
{
    uint16_t crc = wire_crc16(0, system);

    if (kind != WIRE_SYSTEM)
        crc = wire_crc16(wire_crc16(crc, kind == WIRE_GROUP ? STR(":") : STR("@")), name);
    return crc % WIRE_SLOTS;
}

unsigned wire_partition(struct str system)
{
    return wire_slot(WIRE_SYSTEM, system, (struct str){0}) % WIRE_PARTITIONS;
}

/* --- messages --------------------------------------------------------------------------------- */

static const struct str wire_msg_names[] = {
    [MSG_REQUEST] = STR_INIT("request"), [MSG_REPLY] = STR_INIT("reply"),
    [MSG_SEND] = STR_INIT("send"),       [MSG_COUNT] = STR_INIT("count"),
    [MSG_STATUS] = STR_INIT("status"),   [MSG_LEAVE] = STR_INIT("leave"),
    [MSG_ACCOUNT] = STR_INIT("account"), [MSG_MOVED] = STR_INIT("moved"),
    [MSG_ADOPT] = STR_INIT("adopt"),     [MSG_ADOPTED] = STR_INIT("adopted"),
};

static const struct str wire_command_names[] = {
    [COMMAND_SEND_TO_CLIENT] = STR_INIT("send_to_client"),
    [COMMAND_SEND_TO_CLIENTS] = STR_INIT("send_to_clients"),
    [COMMAND_SEND_TO_GROUP] = STR_INIT("send_to_group"),
    [COMMAND_SEND_TO_USER] = STR_INIT("send_to_user"),
    [COMMAND_SEND_TO_SYSTEM] = STR_INIT("send_to_system"),
    [COMMAND_BIND] = STR_INIT("bind"),
    [COMMAND_UNBIND] = STR_INIT("unbind"),
    [COMMAND_ONLINE_LIST] = STR_INIT("online_list"),
    [COMMAND_CLOSE_CLIENT] = STR_INIT("close_client"),
    [COMMAND_CLIENT_INFO] = STR_INIT("client_info"),
    [COMMAND_COUNT_CLIENTS] = STR_INIT("count"),
    [COMMAND_LIST_CLIENTS] = STR_INIT("list_clients"),
    [COMMAND_LIST_GROUPS] = STR_INIT("list_groups"),
    [COMMAND_BIND_USER] = STR_INIT("bind_user"),
    [COMMAND_UNBIND_USER] = STR_INIT("unbind_user"),
    [COMMAND_CLOSE_USER] = STR_INIT("close_user"),
};

enum wire_member {
    MEMBER_KIND,
    MEMBER_ID,
    MEMBER_AT,
    MEMBER_TO,
    MEMBER_SLOT,
    MEMBER_COUNTED,
    MEMBER_READY,
    MEMBER_DELETED,
    MEMBER_COMMAND,
    MEMBER_SYSTEM,
    MEMBER_CLIENT,
    MEMBER_CLIENTS,
    MEMBER_GROUP,
    MEMBER_USER,
    MEMBER_EXTEND,
    MEMBER_CODE,
    MEMBER_MSG,
    MEMBER_DATA,
    MEMBER_SEND_USER,
    MEMBER_MESSAGE_ID,
    MEMBER_ONCE,
    MEMBER_CLOSE_CODE,
    MEMBER_REASON,
    MEMBER_GROUPS,
    MEMBER_USERS,
    MEMBER_WIDE,
    MEMBER_AFTER,
    MEMBER_LIMIT,
    MEMBER_ERROR,
    MEMBER_MATCHED,
    MEMBER_QUEUED,
    MEMBER_HELD,
    MEMBER_DROPPED,
    MEMBER_REPEATED,
    MEMBER_TOTAL,
    MEMBER_LIST,
    MEMBER_KEY,
    MEMBER_MESSAGES,
    MEMBER_STATE,
    MEMBER_SIGNED,
    MEMBER_NUMBERS,
    MEMBER_COUNT
};

static const struct str wire_member_names[MEMBER_COUNT] = {
    [MEMBER_KIND] = STR_INIT("message"),
    [MEMBER_ID] = STR_INIT("id"),
    [MEMBER_AT] = STR_INIT("at"),
    [MEMBER_TO] = STR_INIT("to"),
    [MEMBER_SLOT] = STR_INIT("slot"),
    [MEMBER_COUNTED] = STR_INIT("counted"),
    [MEMBER_READY] = STR_INIT("ready"),
    [MEMBER_DELETED] = STR_INIT("deleted"),
    [MEMBER_COMMAND] = STR_INIT("command"),
    [MEMBER_SYSTEM] = STR_INIT("system"),
    [MEMBER_CLIENT] = STR_INIT("client"),
    [MEMBER_CLIENTS] = STR_INIT("clients"),
    [MEMBER_GROUP] = STR_INIT("group"),
    [MEMBER_USER] = STR_INIT("user"),
    [MEMBER_EXTEND] = STR_INIT("extend"),
    [MEMBER_CODE] = STR_INIT("code"),
    [MEMBER_MSG] = STR_INIT("msg"),
    [MEMBER_DATA] = STR_INIT("data"),
    [MEMBER_SEND_USER] = STR_INIT("sendUserId"),
    [MEMBER_MESSAGE_ID] = STR_INIT("messageId"),
    [MEMBER_ONCE] = STR_INIT("once"),
    [MEMBER_CLOSE_CODE] = STR_INIT("closeCode"),
    [MEMBER_REASON] = STR_INIT("reason"),
    [MEMBER_GROUPS] = STR_INIT("groups"),
    [MEMBER_USERS] = STR_INIT("users"),
    [MEMBER_WIDE] = STR_INIT("wide"),
    [MEMBER_AFTER] = STR_INIT("after"),
    [MEMBER_LIMIT] = STR_INIT("limit"),
    [MEMBER_ERROR] = STR_INIT("error"),
    [MEMBER_MATCHED] = STR_INIT("matched"),
    [MEMBER_QUEUED] = STR_INIT("queued"),
    [MEMBER_HELD] = STR_INIT("held"),
    [MEMBER_DROPPED] = STR_INIT("dropped"),
    [MEMBER_REPEATED] = STR_INIT("repeated"),
    [MEMBER_TOTAL] = STR_INIT("total"),
    [MEMBER_LIST] = STR_INIT("list"),
    [MEMBER_KEY] = STR_INIT("key"),
    [MEMBER_MESSAGES] = STR_INIT("messages"),
    [MEMBER_STATE] = STR_INIT("state"),
    [MEMBER_SIGNED] = STR_INIT("signed"),
    [MEMBER_NUMBERS] = STR_INIT("numbers"),
};

static void wire_write_name(struct buf *out, enum wire_member member)
{
    buf_append(out, member == MEMBER_KIND ? STR("{\"") : STR(",\""));
    buf_append(out, wire_member_names[member]);
    buf_append(out, STR("\":"));
}

/* Writes a value that is JSON already; an absent one is left out. */
static void wire_write_raw(struct buf *out, enum wire_member member, struct str value)
{
    if (!value.length)
        return;
    wire_write_name(out, member);
    buf_append(out, value);
}

static void wire_write_text(struct buf *out, enum wire_member member, struct str text)
{
    if (!text.length)
        return;
    wire_write_name(out, member);
    json_append_quoted(out, text);
}

static void wire_write_number(struct buf *out, enum wire_member member, int64_t number)
{
    if (!number)
        return;
    wire_write_name(out, member);
    buf_append_number(out, number);
}

static void wire_write_true(struct buf *out, enum wire_member member, bool value)
{
    wire_write_raw(out, member, value ? STR("true") : (struct str){0});
}

static void wire_write_command(struct buf *out, const struct command *command)
{
    wire_write_text(out, MEMBER_COMMAND, wire_command_names[command->kind]);
    wire_write_text(out, MEMBER_SYSTEM, command->system);
    wire_write_raw(out, MEMBER_CLIENT, command->client.text);
    wire_write_raw(out, MEMBER_CLIENTS, command->clients);
    wire_write_text(out, MEMBER_GROUP, command->group);
    if (command->has_user || command->user.length) {
        wire_write_name(out, MEMBER_USER);
        json_append_quoted(out, command->user);
    }
    if (command->has_extend) {
        wire_write_name(out, MEMBER_EXTEND);
        json_append_quoted(out, command->extend);
    }
    wire_write_number(out, MEMBER_CODE, command->code);
    wire_write_raw(out, MEMBER_MSG, command->msg);
    wire_write_raw(out, MEMBER_DATA, command->data);
    wire_write_raw(out, MEMBER_SEND_USER, command->send_user);
    wire_write_raw(out, MEMBER_MESSAGE_ID, command->message_id);
    wire_write_true(out, MEMBER_ONCE, command->once);
    wire_write_number(out, MEMBER_CLOSE_CODE, command->close_code);
    wire_write_text(out, MEMBER_REASON, command->reason);
    wire_write_raw(out, MEMBER_GROUPS, command->groups);
    wire_write_raw(out, MEMBER_USERS, command->users);
    wire_write_true(out, MEMBER_WIDE, command->wide);
    wire_write_text(out, MEMBER_AFTER, command->after);
    wire_write_number(out, MEMBER_LIMIT, command->limit);
}

static void wire_write_result(struct buf *out, const struct result *result)
{
    wire_write_number(out, MEMBER_CODE, result->code);
    wire_write_text(out, MEMBER_ERROR, str_from(result->error));
    wire_write_number(out, MEMBER_MATCHED, (int64_t)result->matched);
    wire_write_number(out, MEMBER_QUEUED, (int64_t)result->queued);
    wire_write_number(out, MEMBER_HELD, (int64_t)result->held);
    wire_write_number(out, MEMBER_DROPPED, (int64_t)result->dropped);
    wire_write_true(out, MEMBER_REPEATED, result->repeated);
    wire_write_number(out, MEMBER_TOTAL, (int64_t)result->count);
    wire_write_name(out, MEMBER_LIST);
    buf_append(out, STR("["));
    buf_append(out, str_of(&result->list));
    buf_append(out, STR("]"));
}

static void wire_write_adoption(struct buf *out, const struct cluster_msg *msg)
{
    wire_write_text(out, MEMBER_KEY, msg->key);
    wire_write_number(out, MEMBER_MESSAGES, (int64_t)msg->messages);
    wire_write_number(out, MEMBER_STATE, (int64_t)msg->state);
    wire_write_true(out, MEMBER_SIGNED, msg->is_signed);
    wire_write_raw(out, MEMBER_NUMBERS, msg->numbers);
}

bool msg_write(struct buf *out, const struct cluster_msg *msg)
{
    wire_write_text(out, MEMBER_KIND, wire_msg_names[msg->kind]);
    wire_write_number(out, MEMBER_ID, (int64_t)msg->id);
    wire_write_number(out, MEMBER_AT, msg->at);
    wire_write_text(out, MEMBER_TO, msg->to);
    wire_write_number(out, MEMBER_SLOT, (int64_t)msg->slot);
    wire_write_true(out, MEMBER_COUNTED, msg->counted);
    wire_write_true(out, MEMBER_READY, msg->ready);
    wire_write_true(out, MEMBER_DELETED, msg->deleted);
    if (msg->kind == MSG_REQUEST || msg->kind == MSG_SEND || msg->kind >= MSG_ADOPT)
        wire_write_command(out, &msg->command);
    if (msg->kind == MSG_ACCOUNT)
        wire_write_text(out, MEMBER_SYSTEM, msg->command.system);
    if (msg->kind >= MSG_ADOPT)
        wire_write_adoption(out, msg);
    if (msg->kind == MSG_REPLY || msg->kind == MSG_ADOPTED)
        wire_write_result(out, &msg->result);
    return buf_append(out, STR("}"));
}

/* A message while it is read: its members, and whether all were good so far. */
struct wire_reading {
    struct json_field fields[MEMBER_COUNT];
    struct buf *decoded;
    bool good;
};

static struct str wire_read_raw(const struct wire_reading *reading, enum wire_member member)
{
    return reading->fields[member].value.text;
}

/* A value of this type as it stands, or nothing. */
static struct str wire_read_typed(struct wire_reading *reading, enum wire_member member,
                                  enum json_type type)
{
    struct json_value value = reading->fields[member].value;

    reading->good &= value.type == JSON_NONE || value.type == type;
    return value.text;
}

static bool wire_read_boolean(struct wire_reading *reading, enum wire_member member)
{
    wire_read_typed(reading, member, JSON_BOOLEAN);
    return json_is_true(reading->fields[member].value);
}

static struct str wire_read_text(struct wire_reading *reading, enum wire_member member)
{
    struct json_value value = reading->fields[member].value;
    size_t begin = reading->decoded->length;

    if (value.type == JSON_NONE)
        return (struct str){0};
    reading->good &= json_decode_string(value, reading->decoded);
    return (struct str){reading->decoded->at + begin, reading->decoded->length - begin};
}

/* A number from `min` to `max`; 0 if there is none. */
static int64_t wire_read_number(struct wire_reading *reading, enum wire_member member, int64_t min,
                                int64_t max)
{
    struct json_value value = reading->fields[member].value;
    int64_t number = 0;

    if (value.type != JSON_NONE)
        reading->good &= json_decode_integer(value, &number) && number >= min && number <= max;
    return number;
}

static uint64_t wire_read_count(struct wire_reading *reading, enum wire_member member)
{
    return (uint64_t)wire_read_number(reading, member, 0, INT64_MAX);
}

/* The index of a text among `names`; `count` if it is not there. */
static size_t wire_read_word(struct wire_reading *reading, enum wire_member member,
                             const struct str *names, size_t count)
{
    struct str text = wire_read_text(reading, member);
    size_t i = 0;

    while (i < count && !str_equal(names[i], text))
        i++;
    reading->good &= i < count;
    return i;
}

static void wire_read_command(struct wire_reading *reading, struct command *command)
{
    const struct json_field *fields = reading->fields;

    command->kind =
        (enum command_kind)wire_read_word(reading, MEMBER_COMMAND, wire_command_names,
                                          sizeof wire_command_names / sizeof wire_command_names[0]);
    command->system = wire_read_text(reading, MEMBER_SYSTEM);
    wire_read_typed(reading, MEMBER_CLIENT, JSON_STRING);
    command->client = fields[MEMBER_CLIENT].value;
    command->clients = wire_read_typed(reading, MEMBER_CLIENTS, JSON_ARRAY);
    command->group = wire_read_text(reading, MEMBER_GROUP);
    command->has_user = fields[MEMBER_USER].value.type != JSON_NONE;
    command->user = wire_read_text(reading, MEMBER_USER);
    command->has_extend = fields[MEMBER_EXTEND].value.type != JSON_NONE;
    command->extend = wire_read_text(reading, MEMBER_EXTEND);
    command->code = wire_read_number(reading, MEMBER_CODE, INT64_MIN, INT64_MAX);
    command->msg = wire_read_typed(reading, MEMBER_MSG, JSON_STRING);
    command->data = wire_read_raw(reading, MEMBER_DATA);
    command->send_user = wire_read_typed(reading, MEMBER_SEND_USER, JSON_STRING);
    wire_read_text(reading, MEMBER_MESSAGE_ID); /* for it must mean something */
    command->message_id = fields[MEMBER_MESSAGE_ID].value.text;
    command->once = wire_read_boolean(reading, MEMBER_ONCE);
    command->close_code =
        (unsigned)wire_read_number(reading, MEMBER_CLOSE_CODE, 0, WIRE_CLOSE_CODE_MAX);
    command->reason = wire_read_text(reading, MEMBER_REASON);
    command->groups = wire_read_typed(reading, MEMBER_GROUPS, JSON_ARRAY);
    command->users = wire_read_typed(reading, MEMBER_USERS, JSON_ARRAY);
    command->wide = wire_read_boolean(reading, MEMBER_WIDE);
    command->after = wire_read_text(reading, MEMBER_AFTER);
    command->limit = (unsigned)wire_read_number(reading, MEMBER_LIMIT, 0, WIRE_LIMIT_MAX);
}

static void wire_read_result(struct wire_reading *reading, struct cluster_msg *msg)
{
    struct result *result = &msg->result;
    struct str list = wire_read_raw(reading, MEMBER_LIST);

    result->code = (enum result_code)wire_read_number(reading, MEMBER_CODE, RESULT_UNREACHABLE, 0);
    msg->error = wire_read_text(reading, MEMBER_ERROR);
    result->matched = wire_read_count(reading, MEMBER_MATCHED);
    result->queued = wire_read_count(reading, MEMBER_QUEUED);
    result->held = wire_read_count(reading, MEMBER_HELD);
    result->dropped = wire_read_count(reading, MEMBER_DROPPED);
    result->repeated = wire_read_boolean(reading, MEMBER_REPEATED);
    result->count = wire_read_count(reading, MEMBER_TOTAL);
    reading->good &= reading->fields[MEMBER_LIST].value.type == JSON_ARRAY;
    if (list.length > 2)
        msg->list = (struct str){list.at + 1, list.length - 2};
}

static void wire_read_adoption(struct wire_reading *reading, struct cluster_msg *msg)
{
    msg->key = wire_read_text(reading, MEMBER_KEY);
    msg->messages = wire_read_count(reading, MEMBER_MESSAGES);
    msg->state = wire_read_count(reading, MEMBER_STATE);
    msg->is_signed = wire_read_boolean(reading, MEMBER_SIGNED);
    msg->numbers = wire_read_typed(reading, MEMBER_NUMBERS, JSON_ARRAY);
}

bool msg_read(struct str text, struct buf *decoded, struct cluster_msg *msg)
{
    struct wire_reading reading = {.decoded = decoded, .good = true};
    struct json_error error;

    for (int i = 0; i < MEMBER_COUNT; i++)
        reading.fields[i].name = wire_member_names[i];
    if (decoded->failed)
        buf_free(decoded); /* this one may fit */
    decoded->length = 0;
    /* a decoded string is never longer than its JSON: the views do not move */
    if (!json_parse_object(text, reading.fields, MEMBER_COUNT, &error))
        return false;
    if (!buf_reserve(decoded, text.length))
        return false;
    *msg = (struct cluster_msg){0};
    msg->kind = (enum msg_kind)wire_read_word(&reading, MEMBER_KIND, wire_msg_names,
                                              sizeof wire_msg_names / sizeof wire_msg_names[0]);
    msg->id = wire_read_count(&reading, MEMBER_ID);
    msg->at = wire_read_number(&reading, MEMBER_AT, 0, WIRE_TIME_MAX);
    msg->to = wire_read_text(&reading, MEMBER_TO);
    msg->slot = wire_read_count(&reading, MEMBER_SLOT);
    msg->counted = wire_read_boolean(&reading, MEMBER_COUNTED);
    msg->ready = wire_read_boolean(&reading, MEMBER_READY);
    msg->deleted = wire_read_boolean(&reading, MEMBER_DELETED);
    if (msg->kind == MSG_REQUEST || msg->kind == MSG_SEND || msg->kind >= MSG_ADOPT)
        wire_read_command(&reading, &msg->command);
    if (msg->kind == MSG_ACCOUNT)
        msg->command.system = wire_read_text(&reading, MEMBER_SYSTEM);
    if (msg->kind >= MSG_ADOPT)
        wire_read_adoption(&reading, msg);
    if (msg->kind == MSG_REPLY || msg->kind == MSG_ADOPTED)
        wire_read_result(&reading, msg);
    return reading.good;
}

/* --- batches ---------------------------------------------------------------------------------- */

static const char wire_magic[3] = {'w', 's', 'p'};

#define WIRE_MAC_AT sizeof wire_magic
#define WIRE_VERSION_AT (WIRE_MAC_AT + CRYPTO_HASH_SIZE)
#define WIRE_KEY_AT (WIRE_VERSION_AT + 1)
#define WIRE_KEY_SIZE sizeof((struct crypto_keys *)0)->name
#define WIRE_ORIGIN_AT (WIRE_KEY_AT + WIRE_KEY_SIZE)

bool wire_begin_batch(struct buf *out, const struct crypto_keyring *keys,
                      const struct wire_batch *head)
{
    unsigned char first[WIRE_ORIGIN_AT + 1] = {0}, last[2 + 8 + 4] = {0};
    char origin[NODE_TEXT_MAX];
    size_t length = node_write(&head->origin, origin);

    memcpy(first, wire_magic, sizeof wire_magic);
    first[WIRE_VERSION_AT] = WIRE_VERSION;
    memcpy(first + WIRE_KEY_AT, keys->keys[0].name, WIRE_KEY_SIZE);
    first[WIRE_ORIGIN_AT] = (unsigned char)length;
    last[0] = (unsigned char)head->lane;
    last[1] = (unsigned char)head->partition;
    bytes_put_be(last + 2, 8, head->first_seq);
    buf_append(out, (struct str){(const char *)first, sizeof first});
    buf_append(out, (struct str){origin, length});
    return buf_append(out, (struct str){(const char *)last, sizeof last});
}

bool wire_append_entry(struct buf *out, struct str entry)
{
    unsigned char length[4];

    bytes_put_be(length, sizeof length, entry.length);
    buf_append(out, (struct str){(const char *)length, sizeof length});
    return buf_append(out, entry);
}

/* The MAC of a batch over `text`, all that follows the MAC. */
static bool wire_make_mac(const struct crypto_keys *keys, struct str cluster, struct str text,
                          unsigned char mac[CRYPTO_HASH_SIZE])
{
    unsigned char key[CRYPTO_HASH_SIZE]; /* only this cluster's */

    return crypto_hmac(keys->publication, cluster, key) && crypto_hmac(key, text, mac);
}

bool wire_seal_batch(struct buf *out, const struct crypto_keyring *keys, struct str cluster,
                     uint32_t count)
{
    unsigned char *at = (unsigned char *)out->at;

    if (out->failed)
        return false;
    bytes_put_be(at + WIRE_ORIGIN_AT + 1 + at[WIRE_ORIGIN_AT] + 2 + 8, 4, count);
    return wire_make_mac(&keys->keys[0], cluster,
                         (struct str){out->at + WIRE_VERSION_AT, out->length - WIRE_VERSION_AT},
                         at + WIRE_MAC_AT);
}

/* The keys with this name, or NULL. */
static const struct crypto_keys *wire_find_keys(const struct crypto_keyring *keys,
                                                const unsigned char *name)
{
    for (size_t i = 0; i < keys->count; i++)
        if (memcmp(keys->keys[i].name, name, WIRE_KEY_SIZE) == 0)
            return &keys->keys[i];
    return NULL;
}

/* Reads the head behind the key's name. False if it is malformed. */
static bool wire_read_head(struct str rest, struct wire_batch *batch)
{
    const unsigned char *at = (const unsigned char *)rest.at;
    size_t length = at[0], last = 1 + length;
    unsigned lane;

    if (rest.length < last + 2 + 8 + 4 ||
        !node_read((struct str){rest.at + 1, length}, &batch->origin))
        return false;
    lane = at[last];
    batch->partition = at[last + 1];
    if (lane >= LANE_COUNT || batch->partition >= WIRE_PARTITIONS)
        return false;
    batch->lane = (enum wire_lane)lane;
    batch->first_seq = bytes_get_be(at + last + 2, 8);
    batch->count = (uint32_t)bytes_get_be(at + last + 10, 4);
    batch->entries = (struct str){rest.at + last + 14, rest.length - last - 14};
    return true;
}

bool wire_next_entry(struct wire_batch *batch, struct str *entry)
{
    struct str *rest = &batch->entries;
    size_t length;

    if (rest->length < 4)
        return false;
    length = (size_t)bytes_get_be(rest->at, 4);
    if (length > rest->length - 4)
        return false;
    *entry = (struct str){rest->at + 4, length};
    *rest = (struct str){rest->at + 4 + length, rest->length - 4 - length};
    return true;
}

/* True if there are `count` entries, and nothing behind them. */
static bool wire_has_entries(struct wire_batch batch)
{
    struct str entry;
    uint32_t count = 0;

    while (count <= batch.count && wire_next_entry(&batch, &entry))
        count++;
    return count == batch.count && batch.entries.length == 0;
}

enum wire_result wire_open_batch(struct str bytes, const struct crypto_keyring *keys,
                                 struct str cluster, struct wire_batch *batch)
{
    const unsigned char *at = (const unsigned char *)bytes.at;
    const struct crypto_keys *key;
    unsigned char mac[CRYPTO_HASH_SIZE];
    struct str text;

    if (bytes.length < WIRE_ORIGIN_AT + 1 || memcmp(at, wire_magic, sizeof wire_magic) != 0)
        return WIRE_MALFORMED;
    key = wire_find_keys(keys, at + WIRE_KEY_AT);
    text = (struct str){bytes.at + WIRE_VERSION_AT, bytes.length - WIRE_VERSION_AT};
    if (!key || !wire_make_mac(key, cluster, text, mac) ||
        !crypto_equal((struct str){bytes.at + WIRE_MAC_AT, CRYPTO_HASH_SIZE},
                      (struct str){(const char *)mac, sizeof mac}))
        return WIRE_FOREIGN;
    if (at[WIRE_VERSION_AT] + 1 < WIRE_VERSION || at[WIRE_VERSION_AT] > WIRE_VERSION + 1)
        return WIRE_VERSION_UNKNOWN;
    return wire_read_head((struct str){bytes.at + WIRE_ORIGIN_AT, bytes.length - WIRE_ORIGIN_AT},
                          batch) &&
                   wire_has_entries(*batch)
               ? WIRE_GOOD
               : WIRE_MALFORMED;
}

/* --- hello ------------------------------------------------------------------------------------ */

#define VERSION_MAX 1000000
#define HELLO_OLDEST (WIRE_VERSION > 1 ? WIRE_VERSION - 1 : 1)

size_t hello_write(const struct node_id *self, char text[HELLO_MAX])
{
    char node[NODE_TEXT_MAX];

    node_write(self, node);
    return (size_t)snprintf(text, HELLO_MAX, "{\"node\":\"%s\",\"version\":%d,\"oldest\":%d}", node,
                            WIRE_VERSION, HELLO_OLDEST);
}

bool hello_read(struct str text, struct hello *hello)
{
    struct json_field fields[] = {
        {.name = STR_INIT("node")}, {.name = STR_INIT("version")}, {.name = STR_INIT("oldest")}};
    struct json_error error;
    struct str node;
    int64_t version = 0, oldest = 0;

    if (!json_parse_object(text, fields, 3, &error) || fields[0].value.type != JSON_STRING)
        return false;
    node = fields[0].value.text;
    if (!node_read((struct str){node.at + 1, node.length - 2}, &hello->node) ||
        !json_decode_integer(fields[1].value, &version) ||
        !json_decode_integer(fields[2].value, &oldest) || oldest < 1 || oldest > version ||
        version > VERSION_MAX)
        return false;
    hello->version = (unsigned)version;
    hello->oldest = (unsigned)oldest;
    return true;
}

bool hello_overlaps(const struct hello *hello, char *reason, size_t room)
{
    if (hello->oldest > WIRE_VERSION)
        snprintf(reason, room,
                 "it has protocol version %u and understands %u and later, this node has %u: "
                 "replace this node by one of version %u first",
                 hello->version, hello->oldest, WIRE_VERSION, hello->oldest);
    else if (hello->version < HELLO_OLDEST)
        snprintf(reason, room,
                 "it has protocol version %u, this node has %u and understands %u and later: "
                 "replace it by one of version %u first",
                 hello->version, WIRE_VERSION, HELLO_OLDEST, HELLO_OLDEST);
    else
        return true;
    return false;
}

/* --- commands of other nodes ------------------------------------------------------------------ */

#define WIRE_CLOSE_REASON_MAX (WS_CONTROL_MAX - 2)

bool wire_command_is_valid(const struct command *command)
{
    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_SEND_TO_CLIENTS:
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        return command->msg.length && command->data.length &&
               (command->message_id.length || !command->once);
    case COMMAND_BIND:
    case COMMAND_BIND_USER:
    case COMMAND_UNBIND_USER:
        return command->group.length;
    case COMMAND_CLOSE_USER:
    case COMMAND_CLOSE_CLIENT:
        return command_may_close_with(command->close_code) &&
               command->reason.length <= WIRE_CLOSE_REASON_MAX;
    default:
        return true;
    }
}

bool wire_command_is_published(const struct command *command)
{
    return command->kind == COMMAND_SEND_TO_GROUP || command->kind == COMMAND_SEND_TO_USER ||
           command->kind == COMMAND_SEND_TO_SYSTEM;
}

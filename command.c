/* command.c - the JSON of the common vocabulary. */
#include "command.h"

#define CLOSE_CODE_MAX 4999
#define CLOSE_REASON_MAX 123        /* bytes that a close frame has room for */
#define TIME_MAX ((int64_t)1 << 60) /* milliseconds: no clock shows as much */

static void begin(struct buf *out, int64_t code)
{
    buf_append(out, STR("{\"code\":"));
    buf_append_number(out, code);
    buf_append(out, STR(",\"msg\":"));
}

static void append_member(struct buf *out, struct str name, struct str value)
{
    if (value.length == 0)
        return;
    buf_append(out, name);
    buf_append(out, value);
}

bool command_write_push(struct buf *out, const struct command *command)
{
    begin(out, command->code);
    buf_append(out, command->msg);
    append_member(out, STR(",\"data\":"), command->data);
    append_member(out, STR(",\"sendUserId\":"), command->send_user);
    append_member(out, STR(",\"messageId\":"), command->message_id);
    return buf_append(out, STR("}"));
}

bool command_write_envelope(struct buf *out, int code, struct str msg, struct str data)
{
    begin(out, code);
    json_append_quoted(out, msg);
    append_member(out, STR(",\"data\":"), data.length ? data : STR("[]"));
    return buf_append(out, STR("}"));
}

bool command_may_close_with(int64_t code)
{
    return code == 1000 || (code >= 3000 && code < 4400) ||
           (code >= 4500 && code <= CLOSE_CODE_MAX);
}

bool command_is_whole(const struct command *command)
{
    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_SEND_TO_CLIENTS:
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        return command->msg.length && command->data.length;
    case COMMAND_BIND:
        return command->group.length;
    case COMMAND_CLOSE_CLIENT:
        return command_may_close_with(command->close_code) &&
               command->reason.length <= CLOSE_REASON_MAX;
    case COMMAND_UNBIND:
    case COMMAND_ONLINE_LIST:
    case COMMAND_CLIENT_INFO:
        break;
    }
    return true;
}

/* --- letters between nodes ------------------------------------------------------------------- */

static const struct str letter_names[] = {
    [LETTER_REQUEST] = STR_INIT("request"), [LETTER_ANSWER] = STR_INIT("answer"),
    [LETTER_PUBLISH] = STR_INIT("publish"), [LETTER_COUNT] = STR_INIT("count"),
    [LETTER_STATE] = STR_INIT("state"),     [LETTER_LEAVE] = STR_INIT("leave"),
};

static const struct str command_names[] = {
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
};

enum member {
    MEMBER_LETTER,
    MEMBER_ID,
    MEMBER_AT,
    MEMBER_ORIGIN,
    MEMBER_NUMBER,
    MEMBER_SLOT,
    MEMBER_ORDER,
    MEMBER_AFTER,
    MEMBER_COUNTED,
    MEMBER_READY,
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
    MEMBER_CLOSE_CODE,
    MEMBER_REASON,
    MEMBER_ERROR,
    MEMBER_MATCHED,
    MEMBER_QUEUED,
    MEMBER_DROPPED,
    MEMBER_TOTAL,
    MEMBER_LIST,
    MEMBER_COUNT
};

static const struct str member_names[MEMBER_COUNT] = {
    [MEMBER_LETTER] = STR_INIT("letter"),
    [MEMBER_ID] = STR_INIT("id"),
    [MEMBER_AT] = STR_INIT("at"),
    [MEMBER_ORIGIN] = STR_INIT("origin"),
    [MEMBER_NUMBER] = STR_INIT("number"),
    [MEMBER_SLOT] = STR_INIT("slot"),
    [MEMBER_ORDER] = STR_INIT("order"),
    [MEMBER_AFTER] = STR_INIT("after"),
    [MEMBER_COUNTED] = STR_INIT("counted"),
    [MEMBER_READY] = STR_INIT("ready"),
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
    [MEMBER_CLOSE_CODE] = STR_INIT("closeCode"),
    [MEMBER_REASON] = STR_INIT("reason"),
    [MEMBER_ERROR] = STR_INIT("error"),
    [MEMBER_MATCHED] = STR_INIT("matched"),
    [MEMBER_QUEUED] = STR_INIT("queued"),
    [MEMBER_DROPPED] = STR_INIT("dropped"),
    [MEMBER_TOTAL] = STR_INIT("total"),
    [MEMBER_LIST] = STR_INIT("list"),
};

static void write_name(struct buf *out, enum member member)
{
    buf_append(out, member == MEMBER_LETTER ? STR("{\"") : STR(",\""));
    buf_append(out, member_names[member]);
    buf_append(out, STR("\":"));
}

/* A value that is JSON already; an absent one is left out. */
static void write_raw(struct buf *out, enum member member, struct str value)
{
    if (!value.length)
        return;
    write_name(out, member);
    buf_append(out, value);
}

static void write_text(struct buf *out, enum member member, struct str text)
{
    if (!text.length)
        return;
    write_name(out, member);
    json_append_quoted(out, text);
}

static void write_number(struct buf *out, enum member member, int64_t number)
{
    if (!number)
        return;
    write_name(out, member);
    buf_append_number(out, number);
}

static void write_command(struct buf *out, const struct command *command)
{
    write_text(out, MEMBER_COMMAND, command_names[command->kind]);
    write_text(out, MEMBER_SYSTEM, command->system);
    write_raw(out, MEMBER_CLIENT, command->client.text);
    write_raw(out, MEMBER_CLIENTS, command->clients);
    write_text(out, MEMBER_GROUP, command->group);
    if (command->has_user || command->user.length) {
        write_name(out, MEMBER_USER);
        json_append_quoted(out, command->user);
    }
    if (command->has_extend) {
        write_name(out, MEMBER_EXTEND);
        json_append_quoted(out, command->extend);
    }
    write_number(out, MEMBER_CODE, command->code);
    write_raw(out, MEMBER_MSG, command->msg);
    write_raw(out, MEMBER_DATA, command->data);
    write_raw(out, MEMBER_SEND_USER, command->send_user);
    write_raw(out, MEMBER_MESSAGE_ID, command->message_id);
    write_number(out, MEMBER_CLOSE_CODE, command->close_code);
    write_text(out, MEMBER_REASON, command->reason);
}

static void write_outcome(struct buf *out, const struct outcome *outcome)
{
    write_number(out, MEMBER_CODE, outcome->code);
    write_text(out, MEMBER_ERROR, str_from(outcome->error));
    write_number(out, MEMBER_MATCHED, (int64_t)outcome->matched);
    write_number(out, MEMBER_QUEUED, (int64_t)outcome->queued);
    write_number(out, MEMBER_DROPPED, (int64_t)outcome->dropped);
    write_number(out, MEMBER_TOTAL, (int64_t)outcome->count);
    write_name(out, MEMBER_LIST);
    buf_append(out, STR("["));
    buf_append(out, str_of(&outcome->list));
    buf_append(out, STR("]"));
}

bool letter_write(struct buf *out, const struct letter *letter)
{
    write_text(out, MEMBER_LETTER, letter_names[letter->kind]);
    write_number(out, MEMBER_ID, (int64_t)letter->id);
    write_number(out, MEMBER_AT, letter->at);
    write_text(out, MEMBER_ORIGIN, letter->origin);
    write_number(out, MEMBER_NUMBER, (int64_t)letter->number);
    write_number(out, MEMBER_SLOT, (int64_t)letter->slot);
    write_number(out, MEMBER_ORDER, (int64_t)letter->order);
    write_raw(out, MEMBER_AFTER, letter->after);
    write_raw(out, MEMBER_COUNTED, letter->counted ? STR("true") : (struct str){0});
    write_raw(out, MEMBER_READY, letter->ready ? STR("true") : (struct str){0});
    if (letter->kind == LETTER_REQUEST || letter->kind == LETTER_PUBLISH)
        write_command(out, &letter->command);
    if (letter->kind == LETTER_ANSWER)
        write_outcome(out, &letter->outcome);
    return buf_append(out, STR("}"));
}

/* The fields of a letter while it is read. */
struct reading {
    struct json_field fields[MEMBER_COUNT];
    struct buf *decoded;
    bool good;
};

static struct str read_raw(const struct reading *reading, enum member member)
{
    return reading->fields[member].value.text;
}

/* A value of this type, or nothing, as it stands. */
static struct str read_typed(struct reading *reading, enum member member, enum json_type type)
{
    struct json_value value = reading->fields[member].value;

    reading->good &= value.type == JSON_NONE || value.type == type;
    return value.text;
}

static bool read_boolean(struct reading *reading, enum member member)
{
    read_typed(reading, member, JSON_BOOLEAN);
    return json_is_true(reading->fields[member].value);
}

static struct str read_text(struct reading *reading, enum member member)
{
    struct json_value value = reading->fields[member].value;
    size_t begin = reading->decoded->length;

    if (value.type == JSON_NONE)
        return (struct str){0};
    reading->good &= json_decode_string(value, reading->decoded);
    return (struct str){reading->decoded->at + begin, reading->decoded->length - begin};
}

/* A number from `min` to `max`; 0 if there is none. */
static int64_t read_number(struct reading *reading, enum member member, int64_t min, int64_t max)
{
    struct json_value value = reading->fields[member].value;
    int64_t number = 0;

    if (value.type != JSON_NONE)
        reading->good &= json_decode_integer(value, &number) && number >= min && number <= max;
    return number;
}

static uint64_t read_count(struct reading *reading, enum member member)
{
    return (uint64_t)read_number(reading, member, 0, INT64_MAX);
}

/* Which of the names a text is; `count` if none. */
static size_t read_word(struct reading *reading, enum member member, const struct str *names,
                        size_t count)
{
    struct str text = read_text(reading, member);
    size_t i = 0;

    while (i < count && !str_equal(names[i], text))
        i++;
    reading->good &= i < count;
    return i;
}

static void read_command(struct reading *reading, struct command *command)
{
    const struct json_field *fields = reading->fields;

    command->kind = (enum command_kind)read_word(reading, MEMBER_COMMAND, command_names,
                                                 sizeof command_names / sizeof command_names[0]);
    command->system = read_text(reading, MEMBER_SYSTEM);
    read_typed(reading, MEMBER_CLIENT, JSON_STRING);
    command->client = fields[MEMBER_CLIENT].value;
    command->clients = read_typed(reading, MEMBER_CLIENTS, JSON_ARRAY);
    command->group = read_text(reading, MEMBER_GROUP);
    command->has_user = fields[MEMBER_USER].value.type != JSON_NONE;
    command->user = read_text(reading, MEMBER_USER);
    command->has_extend = fields[MEMBER_EXTEND].value.type != JSON_NONE;
    command->extend = read_text(reading, MEMBER_EXTEND);
    command->code = read_number(reading, MEMBER_CODE, INT64_MIN, INT64_MAX);
    command->msg = read_typed(reading, MEMBER_MSG, JSON_STRING);
    command->data = read_raw(reading, MEMBER_DATA);
    command->send_user = read_typed(reading, MEMBER_SEND_USER, JSON_STRING);
    command->message_id = read_typed(reading, MEMBER_MESSAGE_ID, JSON_STRING);
    command->close_code = (unsigned)read_number(reading, MEMBER_CLOSE_CODE, 0, CLOSE_CODE_MAX);
    command->reason = read_text(reading, MEMBER_REASON);
}

static void read_outcome(struct reading *reading, struct letter *letter)
{
    struct outcome *outcome = &letter->outcome;
    struct str list = read_raw(reading, MEMBER_LIST);

    outcome->code = (enum outcome_code)read_number(reading, MEMBER_CODE, OUTCOME_UNREACHABLE, 0);
    letter->error = read_text(reading, MEMBER_ERROR);
    outcome->matched = read_count(reading, MEMBER_MATCHED);
    outcome->queued = read_count(reading, MEMBER_QUEUED);
    outcome->dropped = read_count(reading, MEMBER_DROPPED);
    outcome->count = read_count(reading, MEMBER_TOTAL);
    reading->good &= reading->fields[MEMBER_LIST].value.type == JSON_ARRAY;
    if (list.length > 2)
        letter->list = (struct str){list.at + 1, list.length - 2};
}

bool letter_read(struct str text, struct buf *decoded, struct letter *letter)
{
    struct reading reading = {.decoded = decoded, .good = true};
    struct json_error error;

    for (int i = 0; i < MEMBER_COUNT; i++)
        reading.fields[i].name = member_names[i];
    decoded->length = 0;
    /* what strings mean is never longer than what they are: the views do not move */
    if (!json_parse_object(text, reading.fields, MEMBER_COUNT, &error))
        return false;
    if (!buf_reserve(decoded, text.length)) {
        buf_free(decoded); /* and with it the failure: the next letter is another one */
        return false;
    }
    *letter = (struct letter){0};
    letter->kind = (enum letter_kind)read_word(&reading, MEMBER_LETTER, letter_names,
                                               sizeof letter_names / sizeof letter_names[0]);
    letter->id = read_count(&reading, MEMBER_ID);
    letter->at = read_number(&reading, MEMBER_AT, 0, TIME_MAX);
    letter->origin = read_text(&reading, MEMBER_ORIGIN);
    letter->number = read_count(&reading, MEMBER_NUMBER);
    letter->slot = read_count(&reading, MEMBER_SLOT);
    letter->order = read_count(&reading, MEMBER_ORDER);
    letter->after = read_typed(&reading, MEMBER_AFTER, JSON_ARRAY);
    letter->counted = read_boolean(&reading, MEMBER_COUNTED);
    letter->ready = read_boolean(&reading, MEMBER_READY);
    if (letter->kind == LETTER_REQUEST || letter->kind == LETTER_PUBLISH)
        read_command(&reading, &letter->command);
    if (letter->kind == LETTER_ANSWER)
        read_outcome(&reading, letter);
    return reading.good;
}

/* command.c - what clients are told, as JSON. */
#include "command.h"

static void command_write_code(struct buf *out, int64_t code)
{
    buf_append(out, STR("{\"code\":"));
    buf_append_number(out, code);
    buf_append(out, STR(",\"msg\":"));
}

/* Appends a member's name and its value, nothing if the value is absent. */
static void command_write_member(struct buf *out, struct str name, struct str value)
{
    if (value.length == 0)
        return;
    buf_append(out, name);
    buf_append(out, value);
}

bool command_write_push(struct buf *out, const struct command *command)
{
    command_write_code(out, command->code);
    buf_append(out, command->msg);
    command_write_member(out, STR(",\"data\":"), command->data);
    command_write_member(out, STR(",\"sendUserId\":"), command->send_user);
    command_write_member(out, STR(",\"messageId\":"), command->message_id);
    return buf_append(out, STR("}"));
}

bool command_write_envelope(struct buf *out, int code, struct str msg, struct str data)
{
    command_write_code(out, code);
    json_append_quoted(out, msg);
    command_write_member(out, STR(",\"data\":"), data.length ? data : STR("[]"));
    return buf_append(out, STR("}"));
}

bool command_may_close_with(int64_t code)
{
    return code == 1000 || (code >= 3000 && code < 4400) || (code >= 4500 && code <= 4999);
}

/* The frame of a text, which is freed. NULL without memory. */
struct rcbuf *command_encode(struct buf *text)
{
    struct rcbuf *frame = text->failed ? NULL : ws_frame(WS_TEXT, str_of(text));

    buf_free(text);
    return frame;
}

/* The frame of an envelope around `data`, which is freed. NULL without memory. */
struct rcbuf *command_encode_envelope(int code, struct str msg, struct buf *data)
{
    struct buf text = {0};

    command_write_envelope(&text, code, msg, str_of(data));
    text.failed |= data->failed;
    buf_free(data);
    return command_encode(&text);
}

bool command_write_first(struct buf *out, const struct client *client, uint64_t linger,
                         struct str more)
{
    struct buf data = {0};

    buf_append(&data, STR(COMMAND_CLIENT_BEGIN));
    json_append_quoted(&data, channel_client_id(client));
    if (client->has_ticket && channel_user(client).length) {
        buf_append(&data, STR(",\"userId\":"));
        json_append_quoted(&data, channel_user(client));
    }
    if (client->has_resume) {
        buf_append(&data, STR(",\"resume\":\""));
        resume_write_key(channel_resume(client), channel_client_id(client), &data);
        buf_append(&data, STR("\",\"linger\":"));
        buf_append_number(&data, (int64_t)linger);
    }
    buf_append(&data, more);
    buf_append(&data, STR("}"));
    out->failed |= data.failed;
    command_write_envelope(out, RESULT_SUCCESS, STR("success"), str_of(&data));
    buf_free(&data);
    return !out->failed;
}

void command_append_client(struct buf *out, const struct client *client)
{
    buf_append(out, STR(COMMAND_CLIENT_BEGIN));
    json_append_quoted(out, channel_client_id(client));
    buf_append(out, STR(",\"userId\":"));
    json_append_quoted(out, channel_user(client));
    buf_append(out, STR(",\"extend\":"));
    json_append_quoted(out, channel_extend(client));
}

void command_describe_client(const struct client *client, bool with_groups, struct buf *out)
{
    char address[CONN_ADDRESS_MAX] = "";
    uint32_t first = channel_first_group(client);

    command_append_client(out, client);
    if (with_groups)
        buf_append(out, STR(",\"groups\":["));
    for (uint32_t i = first; with_groups && i < client->subscription_count; i++) {
        buf_append(out, i > first ? STR(",") : STR(""));
        json_append_quoted(out, channel_name(client->subscriptions[i].channel));
    }
    buf_append(out, with_groups ? STR("],\"connectedAt\":") : STR(",\"connectedAt\":"));
    buf_append_number(out, client->connected_at);
    buf_append(out, STR(",\"remote\":"));
    if (client->conn)
        conn_address(client->conn->address, address);
    json_append_quoted(out, str_from(address));
    buf_append(out, client->conn ? STR("}") : STR(",\"away\":true}"));
}

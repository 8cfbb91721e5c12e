/* command.c - the JSON of the common vocabulary. */
#include "command.h"

#define CLOSE_CODE_MAX 4999
#define CLOSE_REASON_MAX 123 /* bytes that a close frame has room for */

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

bool hub_write_push(struct buf *out, const struct command *command)
{
    begin(out, command->code);
    buf_append(out, command->msg);
    append_member(out, STR(",\"data\":"), command->data);
    append_member(out, STR(",\"sendUserId\":"), command->send_user);
    append_member(out, STR(",\"messageId\":"), command->message_id);
    return buf_append(out, STR("}"));
}

bool hub_write_envelope(struct buf *out, int code, struct str msg, struct str data)
{
    begin(out, code);
    json_append_quoted(out, msg);
    append_member(out, STR(",\"data\":"), data.length ? data : STR("[]"));
    return buf_append(out, STR("}"));
}

bool hub_may_close_with(int64_t code)
{
    return code == 1000 || (code >= 3000 && code < 4400) ||
           (code >= 4500 && code <= CLOSE_CODE_MAX);
}

bool wire_command_is_valid(const struct command *command)
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
        return hub_may_close_with(command->close_code) &&
               command->reason.length <= CLOSE_REASON_MAX;
    case COMMAND_UNBIND:
    case COMMAND_ONLINE_LIST:
    case COMMAND_CLIENT_INFO:
        break;
    }
    return true;
}

bool wire_command_is_published(const struct command *command)
{
    return command->kind == COMMAND_SEND_TO_GROUP || command->kind == COMMAND_SEND_TO_USER ||
           command->kind == COMMAND_SEND_TO_SYSTEM;
}

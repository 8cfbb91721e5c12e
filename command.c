/* command.c - the JSON of the common vocabulary. */
#include "command.h"

#include "json.h"

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

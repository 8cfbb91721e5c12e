/* hub.c - commands become frames, closes and notices for the clients of this node.
 *
 * hub_apply dispatches a command. A send encodes one frame, which is queued by reference on the
 * client or on each member of a channel. Clients found to be too slow are listed during delivery
 * and closed at the end of the command, since that changes the channels.
 *
 * Sends with once: what was delivered here is remembered (once.h) by target and messageId; a
 * repetition is a success and reaches nobody, other content is rejected.
 *
 * A client's id is its random number: as 16 hex digits on a node that is alone, sealed by the
 * cluster's hook otherwise. An id that cannot be opened, or is another system's, is answered like
 * that of a client that is gone.
 *
 * Presence: members of the channels in scope (groups, systems or none, as configured) are notified
 * of joins and of unbinds at once. A client that ends leaves its channels at once, with one pending
 * notice for each; hub_flush_notices sends a bounded number of frames an iteration, to those
 * who are members by then, so that n clients that leave together cost O(n), not n². A cluster's
 * hooks are told instead. hub_end_client is the only way for a client to end. Only the loop's
 * thread calls this module. */
#include "hub.h"

#include <inttypes.h>

#define HUB_DELETED_BATCH 128 /* clients of deleted systems that are closed in an iteration */

/* --- results, and their JSON ----------------------------------------------------------------- */

static void hub_fail(struct result *result, enum result_code code, const char *error)
{
    result->code = code;
    result->error = error;
}

/* --- ids ------------------------------------------------------------------------------------- */

bool hub_read_id(const struct hub *hub, struct json_value id, uint64_t *number)
{
    char room[HUB_ID_LENGTH];
    struct buf text = BUF_INIT(room);
    unsigned char bytes[HUB_ID_LENGTH / 2];

    if (hub->hooks)
        return hub->hooks->open_id(hub->hooks->state, id, number);
    if (!json_decode_string(id, &text) || !str_read_hex(str_of(&text), bytes, sizeof bytes))
        return false;
    *number = bytes_get_be(bytes, sizeof bytes);
    return true;
}

/* The client whose id is this JSON string, if it is online and of this system. */
static struct client *hub_find_client(const struct hub *hub, struct str system,
                                      struct json_value id)
{
    const struct channel *own;
    uint64_t number = 0;
    struct client *client =
        hub_read_id(hub, id, &number) ? channel_find_client(&hub->channels, number) : NULL;

    if (!client)
        return NULL;
    own = client->subscriptions[0].channel;
    return !own->is_detached && str_equal(channel_name(own), system) ? client : NULL;
}

bool hub_is_online(const struct hub *hub, struct str system, struct json_value id)
{
    return hub_find_client(hub, system, id) != NULL;
}

/* --- channels -------------------------------------------------------------------------------- */

/* A channel got its first member (exists) or lost its last one. */
static void hub_change_channel(struct hub *hub, const struct channel *channel, bool exists)
{
    hub->kinds[channel->kind] += exists ? 1 : (size_t)-1;
    if (hub->hooks)
        hub->hooks->change_channel(hub->hooks->state, channel->kind,
                                   channel_name(channel_system(channel)), channel_name(channel),
                                   exists);
}

static struct channel *hub_subscribe(struct hub *hub, struct client *client, enum channel_kind kind,
                                     struct str name, bool *is_new)
{
    struct channel *channel = channel_subscribe(&hub->channels, client, kind, name, is_new);

    if (channel && *is_new && channel->count == 1)
        hub_change_channel(hub, channel, true);
    return channel;
}

static void hub_drop_if_empty(struct hub *hub, struct channel *channel)
{
    if (channel->count)
        return;
    hub_change_channel(hub, channel, false);
    channel_drop(&hub->channels, channel);
}

/* Sets a client's user; an empty name takes it off. False without memory. */
static bool hub_set_user(struct hub *hub, struct client *client, struct str user)
{
    bool had_one = channel_user(client).length > 0, is_new = true;

    if (user.length && !hub_subscribe(hub, client, CHANNEL_USER, user, &is_new))
        return false;
    if (is_new && had_one)
        hub_drop_if_empty(hub, channel_unsubscribe(client, 1)); /* the new one moves there */
    else if (is_new && user.length)
        channel_move_user(client);
    return true;
}

static struct channel *hub_find_target(const struct hub *hub, const struct command *command)
{
    struct channel *system = channel_find(&hub->channels, CHANNEL_SYSTEM, NULL, command->system);

    if (!system || command->kind == COMMAND_SEND_TO_SYSTEM)
        return system;
    if (command->kind == COMMAND_SEND_TO_USER)
        return channel_find(&hub->channels, CHANNEL_USER, system, command->user);
    return channel_find(&hub->channels, CHANNEL_GROUP, system, command->group);
}

/* Bytes that may wait for one client; the configuration keeps them below what 32 bits hold. */
static size_t hub_queue_limit(const struct hub *hub)
{
    return (size_t)hub->config->send_queue;
}

bool hub_queue_frame(struct hub *hub, struct conn *conn, enum ws_opcode opcode, struct str payload)
{
    struct rcbuf *frame = ws_frame(opcode, payload);
    bool queued = frame && (opcode == WS_PONG ? conn_queue_pong(conn, frame, hub_queue_limit(hub))
                                              : conn_queue(conn, frame, hub_queue_limit(hub)));

    rcbuf_release(frame);
    return queued;
}

bool hub_queue_text(struct hub *hub, struct conn *conn, struct buf *text)
{
    struct rcbuf *frame = command_encode(text);
    size_t limit = hub_queue_limit(hub);
    bool queued = frame && (conn->client ? channel_queue(&hub->channels, conn->client, frame, limit)
                                         : conn_queue(conn, frame, limit));

    hub->counts.sent += queued && conn->client;
    rcbuf_release(frame);
    return queued;
}

static void hub_count_delivery(struct hub *hub, const struct delivery *sum)
{
    hub->counts.sent += sum->queued;
    hub->counts.dropped += sum->matched - sum->queued;
}

/* --- presence -------------------------------------------------------------------------------- */

/* True for the channels whose members are notified by the configured scope. */
static bool hub_is_in_scope(const struct hub *hub, const struct channel *channel)
{
    return (hub->config->scope == NOTICE_GROUP && channel->kind == CHANNEL_GROUP) ||
           (hub->config->scope == NOTICE_SYSTEM && channel->kind == CHANNEL_SYSTEM);
}

/* True if a channel in scope has at most max_members: the frames of notices grow with the square of
 * the members. Logs once for each channel that it has more. */
static bool hub_is_notified(const struct hub *hub, struct channel *channel)
{
    struct log_field fields[] = {
        {.name = "system", .text = channel_name(channel_system(channel))},
        {.name = "group", .text = channel_name(channel)},
        {.name = "max_members", .number = (int64_t)hub->config->max_members},
        {0}};

    if (!hub->config->max_members || channel->count <= hub->config->max_members)
        return true;
    if (!channel->system)
        fields[1] = fields[2], fields[2].name = NULL;
    if (!channel->is_crowded)
        log_write(hub->log, LOG_INFO, "notices are off: more members than max_members", fields);
    channel->is_crowded = true;
    return false;
}

bool hub_may_notify(struct hub *hub, struct str system, struct str group)
{
    enum command_kind kind = group.length ? COMMAND_SEND_TO_GROUP : COMMAND_SEND_TO_SYSTEM;
    struct command command = {.kind = kind, .system = system, .group = group};
    struct channel *channel = hub_find_target(hub, &command);

    return channel && hub_is_notified(hub, channel);
}

/* Reports a client's presence in a channel, which `json` describes, to the cluster. */
static void hub_report_presence(const struct hub *hub, const struct channel *channel,
                                const struct client *client, struct str json,
                                enum presence_kind kind, bool notify)
{
    struct hub_presence presence = {
        .kind = kind,
        .notify = notify,
        .system = channel_name(channel_system(channel)),
        .group = channel->system ? channel_name(channel) : (struct str){0},
        .id = {json.at + sizeof COMMAND_CLIENT_BEGIN - 1, client->id_length + 2},
        .client_json = json};

    hub->hooks->change_presence(hub->hooks->state, &presence);
}

/* Notifies the members of a channel in scope of a client's presence; in a cluster the hook does,
 * and is told if they are not to be notified. With `about`, what command_append_client wrote before
 * the client was removed, members here are notified later. */
static void hub_notify(struct hub *hub, struct channel *channel, const struct client *client,
                       const struct buf *about, enum presence_kind kind, bool notify)
{
    struct delivery sum = {.limit = hub_queue_limit(hub)};
    struct buf data = {.failed = about && about->failed};
    struct rcbuf *frame = NULL;
    bool joins = kind == PRESENCE_JOIN;

    if (!hub_is_in_scope(hub, channel))
        return;
    notify = notify && !channel_system(channel)->is_detached && hub_is_notified(hub, channel);
    if (!hub->hooks && (!notify || !channel->count))
        return;
    if (about)
        buf_append(&data, str_of(about));
    else
        command_append_client(&data, client);
    if (channel->kind == CHANNEL_GROUP) {
        buf_append(&data, STR(",\"groupName\":"));
        json_append_quoted(&data, channel_name(channel));
    }
    buf_append(&data, STR("}"));
    if (!hub->hooks)
        frame =
            command_encode_envelope(joins ? NOTICE_ONLINE : NOTICE_OFFLINE,
                                    joins ? STR("client online") : STR("client offline"), &data);
    else if (!data.failed)
        hub_report_presence(hub, channel, client, str_of(&data), kind, notify);
    if (frame && about)
        channel_push_notice(&hub->channels, channel, frame);
    else if (frame)
        channel_deliver_to_all(&hub->channels, channel, frame, &sum);
    hub_count_delivery(hub, &sum);
    rcbuf_release(frame);
    buf_free(&data);
}

/* Reports PRESENCE_REFRESH of a client in all its channels in scope. */
static void hub_refresh_client(struct hub *hub, const struct client *client, bool notify)
{
    struct buf about = {0};

    command_append_client(&about, client);
    for (uint32_t i = 0; i < client->subscription_count; i++)
        hub_notify(hub, client->subscriptions[i].channel, client, &about, PRESENCE_REFRESH, notify);
    buf_free(&about);
}

bool hub_refresh_presence(struct hub *hub, struct table_scan *scan, bool notify)
{
    const struct client *client = NULL;
    size_t reported = 0;

    scan->probes = 0; /* clients have come and gone since */
    while (reported < HUB_REFRESH_BATCH &&
           (client = table_scan_next(&hub->channels.clients, scan))) {
        hub_refresh_client(hub, client, notify);
        reported += client->subscription_count;
    }
    return client != NULL;
}

/* --- the end of a client --------------------------------------------------------------------- */

const uint16_t hub_close_codes[HUB_CLOSE_CODES] = {
    WS_CLOSE_NORMAL,    WS_CLOSE_GOING_AWAY,     WS_CLOSE_PROTOCOL,        WS_CLOSE_UNSUPPORTED,
    WS_CLOSE_NO_STATUS, WS_CLOSE_ABNORMAL,       WS_CLOSE_INVALID_PAYLOAD, WS_CLOSE_POLICY,
    WS_CLOSE_TOO_BIG,   WS_CLOSE_INTERNAL_ERROR, WS_CLOSE_TRY_LATER,       HUB_CLOSE_TICKET,
    HUB_CLOSE_RESUMED};

static void hub_count_close(struct hub *hub, unsigned code)
{
    unsigned i = 0;

    while (i < HUB_CLOSE_CODES && hub_close_codes[i] != code)
        i++;
    hub->counts.closes[i]++;
}

void hub_send_close(struct hub *hub, struct conn *conn, unsigned code, struct str reason)
{
    struct rcbuf *frame = ws_close_frame(code, reason);

    hub_count_close(hub, code);
    if (frame)
        conn_queue(conn, frame, SIZE_MAX);
    else /* it must not stay open without having been closed */
        conn_kill(conn);
    rcbuf_release(frame);
    conn->close_queued = true;
}

/* True if a client that ends so is away for a while instead, and may come back. */
static bool hub_may_return(const struct hub *hub, const struct client *client, enum hub_end end)
{
    return client->has_resume && client->conn && hub->config->linger &&
           !client->subscriptions[0].channel->is_detached &&
           (end == HUB_END_LOST || end == HUB_END_SILENT || end == HUB_END_SLOW ||
            (end == HUB_END_LEAVING && hub->hooks));
}

/* Logs one line for the end of each client, and of each connection that it has had before. */
static void hub_log_end(const struct hub *hub, const struct client *client, enum hub_end end,
                        unsigned code, struct str reason, bool is_away)
{
    const char *message = end == HUB_END_SLOW   ? "client closed: it reads too slowly"
                          : is_away             ? "client away"
                          : end == HUB_END_LOST ? "client lost"
                                                : "client closed";
    char address[CONN_ADDRESS_MAX] = "";
    const struct channel *system = client->subscriptions[0].channel;
    struct log_field fields[] = {{.name = "client", .text = channel_client_id(client)},
                                 {.name = "system", .text = channel_name(system)},
                                 {.name = "remote"},
                                 {.name = "code", .number = code},
                                 {.name = "reason", .text = reason.at ? reason : STR("")},
                                 {.name = "seconds", .number = hub->now - client->connected_at},
                                 {.name = "queued"},
                                 {0}};

    if (client->conn) {
        conn_address(client->conn->address, address);
        fields[6].number = (int64_t)client->conn->queued;
    }
    fields[2].text = str_from(address);
    log_write(hub->log, end == HUB_END_SLOW ? LOG_WARN : LOG_INFO, message, fields);
}

void hub_remove_client(struct hub *hub, struct client *client, bool notify)
{
    struct buf about = {0};

    if (hub->config->scope != NOTICE_OFF)
        command_append_client(&about, client); /* before its user is unsubscribed */
    while (client->subscription_count) {       /* the system, which is first, goes last */
        struct channel *channel = channel_unsubscribe(client, client->subscription_count - 1);

        hub_notify(hub, channel, client, &about, PRESENCE_LEAVE, notify);
        hub_drop_if_empty(hub, channel);
    }
    buf_free(&about);
    channel_remove_client(&hub->channels, client);
}

/* Takes a client's connection away from it, and closes it unless it is lost. */
static void hub_end_connection(struct hub *hub, struct client *client, enum hub_end end,
                               unsigned code, struct str reason, bool is_away)
{
    hub_log_end(hub, client, end, code, reason, is_away);
    if (!client->conn)
        return;
    if (end == HUB_END_SLOW) {
        hub->counts.slow++;
        conn_drop_queue(client->conn);
    }
    if (end == HUB_END_LOST)
        hub_count_close(hub, code);
    else
        hub_send_close(hub, client->conn, code, end == HUB_END_PEER ? (struct str){0} : reason);
    client->conn->client = NULL;
    client->conn = NULL;
}

void hub_end_client(struct hub *hub, struct client *client, enum hub_end end, unsigned code,
                    struct str reason)
{
    struct str given = end == HUB_END_LOST || end == HUB_END_PEER ? (struct str){0} : reason;
    bool is_away = hub_may_return(hub, client, end);
    bool is_known = !client->has_resume || !channel_resume(client)->is_held;
    struct event_client about = event_about(client);

    if (hub->webhooks && !is_away && is_known)
        event_disconnect(hub->webhooks, &about, code, given, hub->now - client->connected_at);
    hub_end_connection(hub, client, end, code, reason, is_away);
    if (!is_away) {
        hub_remove_client(hub, client, is_known);
        return;
    }
    client->is_slow = false;
    if (end == HUB_END_SLOW)
        resume_lose(&hub->channels.resumes, channel_resume(client), RESUME_GAP_SLOW);
    resume_leave(&hub->channels.resumes, channel_resume(client), hub->now_ms);
}

void hub_close_slow_clients(struct hub *hub)
{
    struct client *client;

    while ((client = channel_next_slow(&hub->channels)))
        hub_end_client(hub, client, HUB_END_SLOW, WS_CLOSE_TRY_LATER, STR("slow"));
}

/* Closes clients of deleted systems. */
static void hub_close_detached(struct hub *hub)
{
    struct client *client;

    for (int i = 0; i < HUB_DELETED_BATCH && (client = channel_next_detached(&hub->channels)); i++)
        hub_end_client(hub, client, HUB_END_CLOSED, HUB_CLOSE_TICKET, STR("system deleted"));
}

void hub_delete_system(struct hub *hub, struct str system)
{
    struct channel *channel = channel_find(&hub->channels, CHANNEL_SYSTEM, NULL, system);

    if (!channel || channel_detach(&hub->channels, channel))
        return;
    for (uint32_t left = channel->count; left > 0; left--) /* no memory to do it by and by */
        hub_end_client(hub, channel->members[left - 1].client, HUB_END_CLOSED, HUB_CLOSE_TICKET,
                       STR("system deleted"));
}

/* --- opening, clients that connect, notices -------------------------------------------------- */

bool hub_open(struct hub *hub, const struct config *config, const struct log *log)
{
    *hub = (struct hub){.config = config, .log = log, .channels.resumes.config = config};
    return crypto_random(hub->channels.key, sizeof hub->channels.key);
}

size_t hub_count_clients(const struct hub *hub, struct str system)
{
    const struct channel *channel = channel_find(&hub->channels, CHANNEL_SYSTEM, NULL, system);

    return channel ? channel->count : 0;
}

/* Makes a client all that its ticket says. False without memory. */
static bool hub_join_claims(struct hub *hub, struct client *client,
                            const struct ticket_claims *claims)
{
    char room[TICKET_NAME_MAX];
    struct str rest = claims->groups, name;
    bool good = hub_set_user(hub, client, claims->user), is_new;

    if (claims->extend.length)
        good &= (client->extend = rcbuf_copy(claims->extend)) != NULL;
    while (good && ticket_next_group(&rest, room, &name))
        good = hub_subscribe(hub, client, CHANNEL_GROUP, name, &is_new);
    if (client->has_ticket)
        channel_set_end(client, claims->end);
    return good;
}

struct client *hub_add_client(struct hub *hub, struct conn *conn,
                              const struct ticket_claims *claims)
{
    char text[HUB_ID_TEXT];
    struct buf id = BUF_INIT(text);
    uint64_t number = 0;
    struct client *client;

    while (number == 0 || channel_find_client(&hub->channels, number))
        if (!crypto_random(&number, sizeof number))
            return NULL;
    if (!hub->hooks)
        buf_print(&id, "%016" PRIx64, number);
    else if (hub->hooks->seal_id(hub->hooks->state, number, text))
        id.length = sizeof text;
    else
        return NULL;
    client = channel_add_client(&hub->channels, conn, claims->system, number, str_of(&id),
                                claims->is_signed, claims->resume && hub->config->linger);
    if (!client)
        return NULL;
    client->connected_at = (uint32_t)hub->now;
    if (client->subscriptions[0].channel->count == 1)
        hub_change_channel(hub, client->subscriptions[0].channel, true);
    if (hub_join_claims(hub, client, claims))
        return client;
    hub_remove_client(hub, client, false);
    return NULL;
}

void hub_announce(struct hub *hub, const struct client *client, struct str previous)
{
    event_connect(hub->webhooks, client, previous);
    for (uint32_t i = 0; i < client->subscription_count; i++)
        hub_notify(hub, client->subscriptions[i].channel, client, NULL, PRESENCE_JOIN, true);
    hub_close_slow_clients(hub);
}

bool hub_connect(struct hub *hub, struct conn *conn, const struct ticket_claims *claims)
{
    struct client *client = hub_add_client(hub, conn, claims);
    bool is_lost = claims->resume == CLAIMS_RESUME_LOST;
    struct buf first = {0};

    if (!client)
        return false;
    command_write_first(&first, client, hub->config->linger,
                        is_lost ? STR(",\"resumed\":false") : STR(""));
    if (!hub_queue_text(hub, conn, &first)) { /* no webhook has been told of it */
        hub_remove_client(hub, client, false);
        return false;
    }
    conn->client = client; /* from now on what is sent to it counts */
    hub->counts.sent++;
    hub->channels.resumes.results[RESUME_UNKNOWN] += is_lost;
    hub_announce(hub, client, (struct str){0});
    return true;
}

bool hub_flush_notices(struct hub *hub, size_t frames)
{
    struct delivery sum = {.limit = hub_queue_limit(hub)};
    struct channel *channel;
    struct rcbuf *frame;

    while (sum.matched < frames && (frame = channel_next_notice(&hub->channels, &channel))) {
        channel_deliver_to_all(&hub->channels, channel, frame, &sum);
        rcbuf_release(frame);
    }
    hub_count_delivery(hub, &sum);
    hub_close_slow_clients(hub);
    hub_close_detached(hub);
    return hub->channels.notified.first || hub->channels.detached.first;
}

void hub_close(struct hub *hub)
{
    channel_close(&hub->channels);
    once_free(&hub->once);
}

/* --- commands: sends ------------------------------------------------------------------------- */

void hub_exclude(const struct hub *hub, const struct command *command, bool is_excluded)
{
    struct str rest = command->clients;
    struct json_value id;

    while (json_next_element(&rest, &id)) {
        struct client *client = hub_find_client(hub, command->system, id);

        if (client)
            client->is_excluded = is_excluded;
    }
}

struct buf *hub_next_entry(struct result *result)
{
    if (result->count++)
        buf_append(&result->list, STR(","));
    return &result->list;
}

/* The frame that a send pushes and, with once, its key, still without a client's number. NULL
 * without memory. */
static struct rcbuf *hub_make_frame(const struct hub *hub, const struct command *command,
                                    struct once_key *key)
{
    bool to_clients = command->kind == COMMAND_SEND_TO_CLIENTS;
    struct buf text = {0};

    command_write_push(&text, command);
    if (command->once &&
        !once_make_key(hub->channels.key,
                       (char)(to_clients ? COMMAND_SEND_TO_CLIENT : command->kind), command->system,
                       command->group.length ? command->group : command->user, command->message_id,
                       str_of(&text), key))
        text.failed = true;
    return command_encode(&text);
}

/* Remembers a send with once to a client, online or not, or (without an id) to a channel. Call
 * once_undo if the result is NEW and delivery fails. */
static enum once_result hub_take_once(struct hub *hub, const struct command *command,
                                      struct once_key key, struct json_value client,
                                      struct result *result)
{
    uint64_t number = 0;
    enum once_result known;

    if (!command->once)
        return ONCE_NEW;
    if (client.type != JSON_NONE && hub_read_id(hub, client, &number))
        key.target ^= number; /* random, no peer chooses it: as good as hashing it */
    known = once_take(&hub->once, &key, hub->now_ms, (int64_t)hub->config->once_ttl,
                      hub->config->once_max);
    hub->counts.repeated += known == ONCE_REPEATED;
    result->repeated |= known == ONCE_REPEATED;
    return known;
}

/* Each client is a target of its own. One that was sent other content under the messageId fails. */
static void hub_send_to_clients(struct hub *hub, const struct command *command, struct rcbuf *frame,
                                struct once_key key, struct delivery *sum, struct result *result)
{
    struct str rest = command->clients;
    struct json_value id;

    /* reserve for all ids: a frame that is queued cannot be taken back when the list fails */
    if (!buf_reserve(&result->list, rest.length))
        return;
    while (json_next_element(&rest, &id)) {
        struct client *client = hub_find_client(hub, command->system, id);
        enum once_result known;
        bool sent;

        if (client && client->is_excluded)
            continue; /* its id stands here twice */
        known = hub_take_once(hub, command, key, id, result);
        sent = known == ONCE_NEW && client && channel_deliver(&hub->channels, client, frame, sum);
        if (command->once && known == ONCE_NEW && !sent)
            once_undo(&hub->once);
        if (!sent && known != ONCE_REPEATED)
            buf_append(hub_next_entry(result), id.text);
        if (client)
            client->is_excluded = true;
    }
    hub_exclude(hub, command, false);
}

/* Sends a message to one client (NULL: it is not online), or to those that the command says. */
static void hub_send(struct hub *hub, const struct command *command, struct client *client,
                     struct result *result)
{
    bool to_one = command->kind == COMMAND_SEND_TO_CLIENT;
    bool to_many = command->kind == COMMAND_SEND_TO_CLIENTS;
    const struct channel *channel = to_one ? NULL : hub_find_target(hub, command);
    struct delivery sum = {.limit = hub_queue_limit(hub)};
    struct once_key key = {0};
    struct rcbuf *frame = hub_make_frame(hub, command, &key);
    enum once_result known = ONCE_NEW;

    if (frame && !to_many)
        known = hub_take_once(hub, command, key, command->client, result);
    if (!frame || known == ONCE_NO_MEMORY) {
        hub_fail(result, RESULT_UNREACHABLE, "out of memory");
    } else if (known == ONCE_CONFLICT) {
        hub_fail(result, RESULT_MALFORMED, "messageId was used for another message");
    } else if (to_many) {
        hub_send_to_clients(hub, command, frame, key, &sum, result);
    } else if (to_one && known == ONCE_NEW &&
               (!client || !channel_deliver(&hub->channels, client, frame, &sum))) {
        hub_fail(result, RESULT_OFFLINE,
                 !client        ? "client not online"
                 : client->conn ? "client not online: it was closed for being slow"
                                : "away, and too much was sent to it");
        if (command->once)
            once_undo(&hub->once);
    } else if (channel && known == ONCE_NEW) {
        hub_exclude(hub, command, true);
        channel_deliver_to_all(&hub->channels, channel, frame, &sum);
        hub_exclude(hub, command, false);
    }
    rcbuf_release(frame);
    hub_count_delivery(hub, &sum);
    result->matched = sum.matched;
    result->queued = sum.queued;
    result->held = sum.held;
    result->dropped = sum.matched - sum.queued;
}

/* --- commands: groups, users, clients -------------------------------------------------------- */

/* Does all that a bind says, or, without memory, nothing of it: then NULL. */
static struct channel *hub_bind_all(struct hub *hub, struct client *client,
                                    const struct command *command, bool *is_new)
{
    struct rcbuf *extend = command->extend.length ? rcbuf_copy(command->extend) : NULL;
    struct channel *group = NULL;

    if (!command->extend.length || extend)
        group = hub_subscribe(hub, client, CHANNEL_GROUP, command->group, is_new);
    if (group && command->has_user && !hub_set_user(hub, client, command->user)) {
        if (*is_new) /* it is the client's last subscription */
            hub_drop_if_empty(hub, channel_unsubscribe(client, client->subscription_count - 1));
        group = NULL;
    }
    if (!group || !command->has_extend) {
        rcbuf_release(extend);
        return group;
    }
    rcbuf_release(client->extend);
    client->extend = extend;
    return group;
}

/* True if a bind gives the client another user or extend than it has. */
static bool hub_bind_changes(const struct client *client, const struct command *command)
{
    return (command->has_user && !str_equal(channel_user(client), command->user)) ||
           (command->has_extend && !str_equal(channel_extend(client), command->extend));
}

static void hub_bind(struct hub *hub, const struct command *command, struct client *client,
                     struct result *result)
{
    struct channel *group = hub_find_target(hub, command);
    bool is_new = !group || channel_position(client, group) == client->subscription_count;
    bool changes = hub_bind_changes(client, command);

    if (is_new &&
        client->subscription_count - channel_first_group(client) >= hub->config->max_groups) {
        hub_fail(result, RESULT_LIMIT, "the client is in max_groups groups already");
        return;
    }
    group = hub_bind_all(hub, client, command, &is_new);
    if (!group) {
        hub_fail(result, RESULT_UNREACHABLE, "out of memory");
        return;
    }
    if (is_new || changes)
        event_join(hub->webhooks, client, channel_name(group));
    if (is_new)
        hub_notify(hub, group, client, NULL, PRESENCE_JOIN, true);
    if (hub->hooks && changes)
        hub_refresh_client(hub, client, false);
}

/* To leave a group that the client is not in is success. */
static void hub_unbind(struct hub *hub, const struct command *command, struct client *client)
{
    struct channel *group = hub_find_target(hub, command);
    uint32_t position = group ? channel_position(client, group) : 0;

    if (!group || position == client->subscription_count)
        return;
    channel_unsubscribe(client, position);
    event_leave(hub->webhooks, client, channel_name(group));
    hub_notify(hub, group, client, NULL, PRESENCE_LEAVE, true);
    hub_drop_if_empty(hub, group);
}

static void hub_list_online(struct hub *hub, const struct command *command, struct result *result)
{
    const struct channel *group = hub_find_target(hub, command);

    for (uint32_t i = 0; group && i < group->count; i++)
        json_append_quoted(hub_next_entry(result), channel_client_id(group->members[i].client));
}

void hub_apply_to(struct hub *hub, const struct command *command, struct client *client,
                  struct result *result)
{
    if (command->kind == COMMAND_BIND)
        hub_bind(hub, command, client, result);
    else if (command->kind == COMMAND_UNBIND)
        hub_unbind(hub, command, client);
    else if (command->kind == COMMAND_CLIENT_INFO)
        command_describe_client(client, true, &result->list);
    else
        hub_end_client(hub, client, HUB_END_CLOSED, command->close_code, command->reason);
}

/* Does what a command says to the client that it names. */
static void hub_apply_to_named(struct hub *hub, const struct command *command,
                               struct result *result)
{
    struct client *client = hub_find_client(hub, command->system, command->client);

    if (command->kind == COMMAND_SEND_TO_CLIENT && (client || command->once))
        hub_send(hub, command, client, result); /* one that is gone may have got it before */
    else if (client)
        hub_apply_to(hub, command, client, result);
    else
        hub_fail(result, RESULT_OFFLINE, "client not online");
}

void hub_apply(struct hub *hub, const struct command *command, struct result *result)
{
    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_BIND:
    case COMMAND_UNBIND:
    case COMMAND_CLOSE_CLIENT:
    case COMMAND_CLIENT_INFO:
        hub_apply_to_named(hub, command, result);
        break;
    case COMMAND_ONLINE_LIST:
        hub_list_online(hub, command, result);
        break;
    default:
        hub_send(hub, command, NULL, result);
    }
    hub_close_slow_clients(hub);
    if (result->list.failed)
        hub_fail(result, RESULT_UNREACHABLE, "out of memory");
}

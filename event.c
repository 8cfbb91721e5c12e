/* event.c - what becomes of clients, as events for the webhooks of their systems. */
#include "event.h"

#include "json.h"

static struct webhook *event_find(const struct webhooks *webhooks, const struct client *client)
{
    return webhooks ? webhook_find(webhooks, channel_name(client->subscriptions[0].channel)) : NULL;
}

struct event_client event_about(const struct client *client)
{
    return (struct event_client){.system = channel_name(client->subscriptions[0].channel),
                                 .id = channel_client_id(client),
                                 .user = channel_user(client),
                                 .extend = channel_extend(client)};
}

/* How the fields of most events begin. */
#define EVENT_CLIENT(client)                                                                       \
    {.name = "clientId", .text = (client)->id}, {.name = "userId", .text = (client)->user},        \
    {                                                                                              \
        .name = "extend", .text = (client)->extend                                                 \
    }

/* Writes the names of a client's groups, as JSON. */
static void event_write_groups(struct buf *out, const struct client *client)
{
    uint32_t first = channel_first_group(client);

    buf_append(out, STR("["));
    for (uint32_t i = first; i < client->subscription_count; i++) {
        buf_append(out, i > first ? STR(",") : STR(""));
        json_append_quoted(out, channel_name(client->subscriptions[i].channel));
    }
    buf_append(out, STR("]"));
}

void event_connect(struct webhooks *webhooks, const struct client *client, struct str previous)
{
    struct webhook *webhook = event_find(webhooks, client);
    const struct event_client about = event_about(client);
    char address[CONN_ADDRESS_MAX] = "";
    struct buf groups = {0};

    if (!webhook)
        return;
    if (client->conn)
        conn_address(client->conn->address, address);
    event_write_groups(&groups, client);
    webhook_push(
        webhooks, webhook, WEBHOOK_CONNECT,
        (struct webhook_field[]){EVENT_CLIENT(&about),
                                 {.name = "remote", .text = str_from(address)},
                                 {.name = "groups",
                                  .type = WEBHOOK_JSON,
                                  .text = groups.failed ? STR("") : str_of(&groups)},
                                 {.name = previous.length ? "previous" : NULL, .text = previous},
                                 {0}});
    buf_free(&groups);
}

void event_disconnect(struct webhooks *webhooks, const struct event_client *client, unsigned code,
                      struct str reason, int64_t seconds)
{
    struct webhook *webhook = webhooks ? webhook_find(webhooks, client->system) : NULL;

    if (webhook)
        webhook_push(
            webhooks, webhook, WEBHOOK_DISCONNECT,
            (struct webhook_field[]){EVENT_CLIENT(client),
                                     {.name = "code", .type = WEBHOOK_NUMBER, .number = code},
                                     {.name = "reason", .text = reason},
                                     {.name = "seconds", .type = WEBHOOK_NUMBER, .number = seconds},
                                     {0}});
}

static void event_push_group(struct webhooks *webhooks, enum webhook_kind kind,
                             const struct client *client, struct str group)
{
    struct webhook *webhook = event_find(webhooks, client);
    const struct event_client about = event_about(client);

    if (webhook)
        webhook_push(webhooks, webhook, kind,
                     (struct webhook_field[]){
                         EVENT_CLIENT(&about), {.name = "groupName", .text = group}, {0}});
}

void event_join(struct webhooks *webhooks, const struct client *client, struct str group)
{
    event_push_group(webhooks, WEBHOOK_JOIN, client, group);
}

void event_leave(struct webhooks *webhooks, const struct client *client, struct str group)
{
    event_push_group(webhooks, WEBHOOK_LEAVE, client, group);
}

void event_restart(struct webhooks *webhooks, const struct channels *channels)
{
    const struct channel *system;
    struct webhook *webhook;
    size_t place = 0;

    while ((webhook = webhook_next(webhooks, &place))) {
        system = channel_find(channels, CHANNEL_SYSTEM, NULL, webhook_system(webhook));
        webhook_restart(webhooks, webhook, system ? system->count : 0);
    }
}

void event_end(struct webhooks *webhooks, struct webhook *webhook, struct str node, int64_t epoch)
{
    webhook_push(webhooks, webhook, WEBHOOK_END,
                 (struct webhook_field[]){{.name = "node", .text = node},
                                          {"epoch", .type = WEBHOOK_NUMBER, .number = epoch},
                                          {0}});
}

bool event_wants(struct webhooks *webhooks, const struct client *client, enum webhook_kind kind)
{
    const struct webhook *webhook = event_find(webhooks, client);

    return webhook && webhook_wants(webhooks, webhook, kind);
}

bool event_message(struct webhooks *webhooks, const struct client *client, struct str text)
{
    struct webhook *webhook = event_find(webhooks, client);

    return !webhook || webhook_push(webhooks, webhook, WEBHOOK_MESSAGE,
                                    (struct webhook_field[]){
                                        {.name = "clientId", .text = channel_client_id(client)},
                                        {.name = "userId", .text = channel_user(client)},
                                        {.name = "text", .text = text},
                                        {0}});
}

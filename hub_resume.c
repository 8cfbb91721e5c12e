/* hub_resume.c - clients that come back, and those that do not.
 *
 * hub_end_client takes the connection from a client that may come back and leaves all else: its id,
 * its channels, and a place on the list of those away (resume.h). Deliveries to it then go to its
 * ring (channel_queue). hub_resume_client gives it another connection and queues what the ring has,
 * in one step, so nothing newer can come in between. A client that has not been missed yet is taken
 * over in the same way: its old connection is closed, and its end touches nothing, because it
 * serves no client any more.
 *
 * Those away end in the order of going away, as they would have when their connections were lost.
 * Only the loop's thread calls this module. */
#include "hub_resume.h"

#include <inttypes.h>

#define HUB_RESUME_BATCH 128 /* clients away that are ended in an iteration */

/* --- coming back ----------------------------------------------------------------------------- */

struct client *hub_resume_find(const struct hub *hub, struct str key, uint64_t *secret)
{
    char room[RESUME_KEY_MAX + 2];
    struct buf id = BUF_INIT(room);
    uint64_t number;
    struct client *client = NULL;

    buf_append(&id, STR("\""));
    if (resume_read_key(key, &id, secret) && buf_append(&id, STR("\"")) &&
        hub_read_id(hub, (struct json_value){JSON_STRING, str_of(&id)}, &number))
        client = channel_find_client(&hub->channels, number);
    if (!client || !client->has_resume || client->subscriptions[0].channel->is_detached ||
        !resume_has_key(channel_resume(client), *secret))
        return NULL;
    return client;
}

static void hub_resume_log(const struct hub *hub, const struct client *client,
                           const struct resume_answer *answer)
{
    const struct channel *system = client->subscriptions[0].channel;
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {
        {.name = "client", .text = channel_client_id(client)},
        {.name = "system", .text = channel_name(system)},
        {.name = "remote"},
        {.name = answer->recovered ? "replay" : "missed", .number = (int64_t)answer->count},
        {0}};

    conn_address(client->conn->address, address);
    fields[2].text = str_from(address);
    log_write(hub->log, LOG_INFO, "client resumed", fields);
}

/* Takes the connection from a client that goes on with another one. */
static void hub_resume_take_over(struct hub *hub, struct client *client)
{
    struct conn *conn = client->conn;

    if (!conn)
        return;
    conn->client = NULL;
    conn_drop_queue(conn);
    hub_send_close(hub, conn, HUB_CLOSE_RESUMED, STR("resumed elsewhere"));
}

void hub_resume_detach(struct hub *hub, struct client *client)
{
    if (!client->conn)
        return;
    hub_resume_take_over(hub, client);
    client->conn = NULL;
    resume_leave(&hub->channels.resumes, channel_resume(client), hub->now_ms);
}

struct client *hub_resume_hold(struct hub *hub, const struct ticket_claims *claims)
{
    struct client *client = hub_add_client(hub, NULL, claims);

    if (client && client->has_resume) {
        channel_resume(client)->is_held = true;
        resume_leave(&hub->channels.resumes, channel_resume(client), hub->now_ms);
        return client;
    }
    if (client)
        hub_remove_client(hub, client, false);
    return NULL;
}

void hub_resume_announce(struct hub *hub, struct client *client, struct str previous)
{
    if (!channel_resume(client)->is_held)
        return;
    channel_resume(client)->is_held = false;
    hub->channels.resumes.moved++;
    hub_announce(hub, client, previous);
}

void hub_resume_forget(struct hub *hub, struct client *client, bool has_moved)
{
    struct log_field fields[] = {{.name = "client", .text = channel_client_id(client)}, {0}};

    if (has_moved)
        log_write(hub->log, LOG_INFO, "client moved to another node", fields);
    hub_remove_client(hub, client, has_moved);
}

bool hub_resume_moved(struct hub *hub, struct client *client, struct conn *conn, uint64_t key,
                      uint64_t received, struct str previous)
{
    struct resume *resume = channel_resume(client);
    char room[96 + HUB_ID_TEXT + 16];
    struct buf more = BUF_INIT(room), first = {0};
    struct resume_answer answer;

    if (!resume_return(&hub->channels.resumes, resume, key, received, &answer))
        return false;
    hub_resume_take_over(hub, client);
    client->conn = conn;
    buf_print(&more, ",\"resumed\":true,\"recovered\":%s,\"%s\":%" PRIu64,
              answer.recovered ? "true" : "false", answer.recovered ? "replay" : "missed",
              answer.count);
    if (previous.length) {
        buf_append(&more, STR(",\"previous\":"));
        json_append_quoted(&more, previous);
    }
    hub_resume_log(hub, client, &answer);
    command_write_first(&first, client, hub->config->linger, str_of(&more));
    if (!hub_queue_text(hub, conn, &first)) /* not counted: the connection serves no client yet */
        conn_kill(conn);
    conn->client = client;
    for (uint32_t i = 0; i < resume->kept; i++)
        conn_queue(conn, resume_frame(resume, i), SIZE_MAX);
    hub->counts.sent += 1 + resume->kept;
    hub_resume_announce(hub, client, previous);
    return true;
}

bool hub_resume_client(struct hub *hub, struct client *client, struct conn *conn, uint64_t key,
                       uint64_t received)
{
    return hub_resume_moved(hub, client, conn, key, received, (struct str){0});
}

/* --- staying away ---------------------------------------------------------------------------- */

int64_t hub_resume_deadline(const struct hub *hub)
{
    const struct resume *first = hub->channels.resumes.first;

    return first ? first->since + (int64_t)hub->config->linger * 1000 : INT64_MAX;
}

bool hub_resume_expire(struct hub *hub, uint64_t most)
{
    const struct resumes *resumes = &hub->channels.resumes;
    int ended = 0;

    while (resumes->first &&
           (hub_resume_deadline(hub) <= hub->now_ms || hub->channels.clients.count > most)) {
        if (ended++ == HUB_RESUME_BATCH)
            return true;
        hub_end_client(hub, resumes->first->client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       STR("it did not come back"));
    }
    return false;
}

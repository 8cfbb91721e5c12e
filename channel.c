/* channel.c - the clients of this node and the channels they are subscribed to.
 *
 * A subscription stands in two arrays, its client's subscriptions and its channel's members. Each
 * entry holds the index of the other,
 *
 *     channel->members[client->subscriptions[p].index] == {client, p}
 *
 * so unsubscribing is O(1): the last entry of each array moves into the gap. Whether a client is
 * subscribed is found by a scan of the shorter array: at most about the square root of all
 * subscriptions. A client's first subscription is its system's; its user's is second.
 *
 * Delivery walks a channel's members and queues the same bytes on each connection. Nobody is
 * unsubscribed during a walk: slow clients are listed, and the hub closes them afterwards. A
 * channel that is dropped with notices pending is freed when its turn comes, so that the line needs
 * no links backwards.
 *
 * A system that is deleted is detached: it leaves the table of names at once, so that no command
 * reaches what is in it, and is freed when its clients, which end a few at a time, have gone. The
 * names of its groups lead to it alone, and so to nothing. Only the loop's thread calls this
 * module. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

/* A notice that a channel's members are to get. */
struct channel_notice {
    struct fifo_link link;
    struct rcbuf *bytes;
};

/* Makes room for one more entry behind `count`: doubles an array that is full at 0 or a power of
 * two, so no capacity is kept. NULL, and the array stays, without memory. */
static void *channel_grow(void *array, uint32_t count, size_t size)
{
    if (count & (count - 1))
        return array;
    return realloc(array, (count ? 2 * (size_t)count : 1) * size);
}

/* --- lookups --------------------------------------------------------------------------------- */

uint32_t channel_hash(const struct channels *channels, enum channel_kind kind, uint32_t system,
                      struct str name)
{
    return (uint32_t)str_siphash(name, channels->key) + (uint32_t)kind * 0x9e3779b9u + system;
}

struct channel *channel_find(const struct channels *channels, enum channel_kind kind,
                             const struct channel *system, struct str name)
{
    uint32_t hash = channel_hash(channels, kind, system ? system->hash : 0, name);
    struct table_cursor cursor = {.hash = hash};
    struct channel *channel;

    while ((channel = table_next(&channels->names, &cursor)))
        if (channel->kind == kind && channel->system == system &&
            str_equal(channel_name(channel), name))
            return channel;
    return NULL;
}

struct client *channel_find_client(const struct channels *channels, uint64_t number)
{
    struct table_cursor cursor = {.hash = (uint32_t)number};
    struct client *client;

    while ((client = table_next(&channels->clients, &cursor)))
        if (client->number == number)
            return client;
    return NULL;
}

/* --- channels that come and go --------------------------------------------------------------- */

/* The oldest notice, whose reference is the caller's then; NULL if there is none. */
static struct rcbuf *channel_pop_notice(struct channel *channel)
{
    struct channel_notice *notice = (struct channel_notice *)fifo_pop(&channel->notices);
    struct rcbuf *bytes = notice ? notice->bytes : NULL;

    free(notice);
    return bytes;
}

static void channel_drop_notices(struct channel *channel)
{
    struct rcbuf *bytes;

    while ((bytes = channel_pop_notice(channel)))
        rcbuf_release(bytes);
}

static void channel_free(struct channel *channel)
{
    channel_drop_notices(channel);
    free(channel->members);
    free(channel);
}

/* The channel of this name; a new, empty one if there is none. NULL without memory. */
static struct channel *channel_make(struct channels *channels, enum channel_kind kind,
                                    struct channel *system, struct str name)
{
    struct channel *channel = channel_find(channels, kind, system, name);

    if (channel)
        return channel;
    channel = calloc(1, sizeof *channel + name.length);
    if (!channel)
        return NULL;
    *channel =
        (struct channel){.kind = kind,
                         .system = system,
                         .hash = channel_hash(channels, kind, system ? system->hash : 0, name),
                         .name_length = name.length};
    if (name.length)
        memcpy(channel->name, name.at, name.length);
    if (table_add(&channels->names, channel->hash, channel))
        return channel;
    free(channel);
    return NULL;
}

void channel_drop(struct channels *channels, struct channel *channel)
{
    if (channel->is_detached)
        return; /* channel_next_detached frees it */
    table_remove(&channels->names, channel->hash, channel);
    if (!channel->notices.first)
        channel_free(channel);
}

/* --- subscriptions --------------------------------------------------------------------------- */

uint32_t channel_position(const struct client *client, const struct channel *channel)
{
    uint32_t i = 0;

    if (client->subscription_count <= channel->count) {
        while (i < client->subscription_count && client->subscriptions[i].channel != channel)
            i++;
        return i;
    }
    while (i < channel->count && channel->members[i].client != client)
        i++;
    return i < channel->count ? channel->members[i].position : client->subscription_count;
}

/* Puts a subscription at a position of the client's array, and tells its other end. */
static void channel_place(struct client *client, struct subscription subscription,
                          uint32_t position)
{
    client->subscriptions[position] = subscription;
    subscription.channel->members[subscription.index].position = position;
}

/* The same for a client's subscriptions, the first of which are in the client itself. */
static struct subscription *channel_grow_subscriptions(struct client *client)
{
    struct subscription *old = client->subscriptions, *at;
    uint32_t count = client->subscription_count;

    if (count < CHANNEL_OWN)
        return old;
    if (old != client->own)
        return channel_grow(old, count, sizeof *old);
    at = channel_grow(NULL, count, sizeof *at);
    if (at)
        memcpy(at, old, sizeof client->own);
    return at;
}

static bool channel_join(struct client *client, struct channel *channel)
{
    struct subscription *subscriptions = channel_grow_subscriptions(client);
    struct channel_member *members;

    if (!subscriptions)
        return false;
    client->subscriptions = subscriptions;
    members = channel_grow(channel->members, channel->count, sizeof *channel->members);
    if (!members)
        return false;
    channel->members = members;
    channel->members[channel->count].client = client;
    channel_place(client, (struct subscription){channel, channel->count++},
                  client->subscription_count++);
    return true;
}

struct channel *channel_subscribe(struct channels *channels, struct client *client,
                                  enum channel_kind kind, struct str name, bool *is_new)
{
    struct channel *system = client->subscription_count ? client->subscriptions[0].channel : NULL;
    struct channel *channel = channel_make(channels, kind, system, name);

    if (!channel)
        return NULL;
    *is_new = channel_position(client, channel) == client->subscription_count;
    if (!*is_new || channel_join(client, channel))
        return channel;
    if (channel->count == 0)
        channel_drop(channels, channel);
    return NULL;
}

struct channel *channel_unsubscribe(struct client *client, uint32_t position)
{
    struct subscription gone = client->subscriptions[position];
    struct channel *channel = gone.channel;
    struct channel_member moved = channel->members[--channel->count];

    channel->members[gone.index] = moved;
    moved.client->subscriptions[moved.position].index = gone.index;
    if (position != --client->subscription_count)
        channel_place(client, client->subscriptions[client->subscription_count], position);
    return channel;
}

struct str channel_user(const struct client *client)
{
    const struct channel *second =
        client->subscription_count > 1 ? client->subscriptions[1].channel : NULL;

    return second && second->kind == CHANNEL_USER ? channel_name(second) : (struct str){0};
}

void channel_move_user(struct client *client)
{
    uint32_t last = client->subscription_count - 1;
    struct subscription user = client->subscriptions[last], second = client->subscriptions[1];

    channel_place(client, user, 1);
    if (last != 1)
        channel_place(client, second, last);
}

/* --- clients --------------------------------------------------------------------------------- */

static void channel_free_client(struct channels *channels, struct client *client)
{
    if (client->has_resume)
        resume_close(&channels->resumes, channel_resume(client));
    if (client->subscriptions != client->own)
        free(client->subscriptions);
    rcbuf_release(client->extend);
    free(client);
}

void channel_remove_client(struct channels *channels, struct client *client)
{
    table_remove(&channels->clients, (uint32_t)client->number, client);
    channel_free_client(channels, client);
}

struct client *channel_add_client(struct channels *channels, struct conn *conn, struct str system,
                                  uint64_t number, struct str id, bool has_ticket, bool has_resume)
{
    size_t more = has_resume ? sizeof(struct resume) + _Alignof(struct resume) : 0;
    struct client *client = calloc(1, sizeof *client + id.length + (has_ticket ? 8 : 0) + more);

    if (!client)
        return NULL;
    client->conn = conn;
    client->number = number;
    client->id_length = id.length & 0x7f;
    client->has_ticket = has_ticket;
    client->has_resume = has_resume;
    client->subscriptions = client->own;
    memcpy(client->id, id.at, id.length);
    if ((!has_resume || resume_open(&channels->resumes, channel_resume(client), client)) &&
        table_add(&channels->clients, (uint32_t)number, client) &&
        channel_subscribe(channels, client, CHANNEL_SYSTEM, system, &(bool){false}))
        return client;
    channel_remove_client(channels, client);
    return NULL;
}

/* --- systems that are deleted ---------------------------------------------------------------- */

struct channel_detached {
    struct fifo_link link;
    struct channel *system;
};

bool channel_detach(struct channels *channels, struct channel *system)
{
    struct channel_detached *entry = malloc(sizeof *entry);

    if (!entry)
        return false;
    entry->system = system;
    fifo_push(&channels->detached, &entry->link);
    table_remove(&channels->names, system->hash, system);
    system->is_detached = true;
    return true;
}

struct client *channel_next_detached(struct channels *channels)
{
    struct channel_detached *entry;
    struct channel *system;

    while ((entry = (struct channel_detached *)channels->detached.first)) {
        system = entry->system;
        if (system->count)
            return system->members[system->count - 1].client;
        fifo_pop(&channels->detached);
        free(entry);
        system->is_detached = false;
        if (!system->notices.first) /* else it is freed when its turn comes */
            channel_free(system);
    }
    return NULL;
}

/* --- delivery -------------------------------------------------------------------------------- */

bool channel_queue(struct channels *channels, struct client *client, struct rcbuf *bytes,
                   size_t limit)
{
    bool kept;

    if (!client->has_resume)
        return conn_queue(client->conn, bytes, limit);
    kept = resume_add(&channels->resumes, channel_resume(client), bytes);
    return client->conn ? conn_queue(client->conn, bytes, limit) : kept;
}

struct channel_slow {
    struct fifo_link link;
    struct client *client;
};

/* Lists a client as slow; without memory its connection breaks, which ends it as well. It is not
 * slow then: what comes until its end is counted, and kept, for a client that may come back. */
static void channel_list_slow(struct channels *channels, struct client *client)
{
    struct channel_slow *entry = malloc(sizeof *entry);

    if (!entry) {
        conn_kill(client->conn);
        return;
    }
    client->is_slow = true;
    entry->client = client;
    fifo_push(&channels->slow, &entry->link);
}

bool channel_deliver(struct channels *channels, struct client *client, struct rcbuf *bytes,
                     struct delivery *sum)
{
    bool queued = !client->is_slow && channel_queue(channels, client, bytes, sum->limit);

    sum->matched++;
    sum->queued += queued;
    sum->held += queued && !client->conn;
    if (!queued && !client->is_slow && client->conn)
        channel_list_slow(channels, client);
    return queued;
}

void channel_deliver_to_all(struct channels *channels, const struct channel *channel,
                            struct rcbuf *bytes, struct delivery *sum)
{
    for (uint32_t i = 0; i < channel->count; i++)
        if (!channel->members[i].client->is_excluded)
            channel_deliver(channels, channel->members[i].client, bytes, sum);
}

struct client *channel_next_slow(struct channels *channels)
{
    struct channel_slow *entry = (struct channel_slow *)fifo_pop(&channels->slow);
    struct client *client = entry ? entry->client : NULL;

    free(entry);
    return client;
}

/* --- notices --------------------------------------------------------------------------------- */

void channel_push_notice(struct channels *channels, struct channel *channel, struct rcbuf *bytes)
{
    struct channel_notice *notice = malloc(sizeof *notice);

    if (!notice)
        return;
    notice->bytes = bytes;
    bytes->references++;
    if (!channel->notices.first)
        fifo_push(&channels->notified, &channel->link);
    fifo_push(&channel->notices, &notice->link);
}

struct rcbuf *channel_next_notice(struct channels *channels, struct channel **channel)
{
    struct rcbuf *bytes;

    while ((*channel = (struct channel *)fifo_pop(&channels->notified))) {
        if ((*channel)->is_detached) {
            channel_drop_notices(*channel);
            continue;
        }
        if ((*channel)->count == 0) {
            channel_free(*channel); /* it was dropped meanwhile */
            continue;
        }
        bytes = channel_pop_notice(*channel);
        if ((*channel)->notices.first)
            fifo_push(&channels->notified, &(*channel)->link);
        return bytes;
    }
    return NULL;
}

void channel_close(struct channels *channels)
{
    size_t place = 0;
    struct channel_detached *entry;
    struct client *client;
    struct channel *channel;

    while ((channel = (struct channel *)fifo_pop(&channels->notified)))
        if (channel->count == 0 && !channel->is_detached)
            channel_free(channel);
    while (channel_next_slow(channels)) {
    }
    while ((entry = (struct channel_detached *)fifo_pop(&channels->detached))) {
        channel_free(entry->system);
        free(entry);
    }
    while ((client = table_walk(&channels->clients, &place)))
        channel_free_client(channels, client);
    place = 0;
    while ((channel = table_walk(&channels->names, &place)))
        channel_free(channel);
    table_free(&channels->clients);
    table_free(&channels->names);
}

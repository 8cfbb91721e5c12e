/* channel.c - the clients of this node and the channels they are subscribed to.
 *
 * A subscription is an edge between a client and a channel, and stands at both ends: in the
 * client's array of subscriptions and in the channel's array of members. Each end holds the other's
 * index,
 *
 *     channel->members[client->subscriptions[p].index] == {client, p}
 *
 * so that unsubscribing is O(1) from either end: the last entry of each array moves into the gap,
 * and its other end is told. Whether a client is subscribed to a channel is found by a scan of the
 * shorter array: among n subscriptions in all that costs at most about the square root of n, and on
 * average a few entries.
 *
 * Arrays grow by doubling whenever their count is 0 or a power of two, so that no capacity is kept.
 * A client's first subscription is its system's, for as long as it lives; its user's is second.
 *
 * Delivery walks the members of one channel and queues the same bytes on each connection. Nobody is
 * unsubscribed during a walk: slow clients are put on a list, and the hub closes them afterwards.
 * A channel that ceases to exist while it has notices pending stays allocated until its turn comes,
 * so that the line needs no links backwards. Only the loop's thread calls this module. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

/* A notice that a channel's members are to get. */
struct channel_notice {
    struct fifo_link link;
    struct rcbuf *bytes;
};

/* Makes room for one more entry behind `count`. NULL, and the array stays, without memory. */
static void *channel_grow(void *array, uint32_t count, size_t size)
{
    if (count & (count - 1))
        return array;
    return realloc(array, (count ? 2 * (size_t)count : 1) * size);
}

/* --- lookups --------------------------------------------------------------------------------- */

static uint32_t channel_hash(const struct channels *channels, enum channel_kind kind,
                             const struct channel *system, struct str name)
{
    return str_hash(name, channels->seed) + (uint32_t)kind * 0x9e3779b9u +
           (system ? system->hash : 0);
}

struct channel *channel_find(const struct channels *channels, enum channel_kind kind,
                             const struct channel *system, struct str name)
{
    struct table_cursor cursor = {.hash = channel_hash(channels, kind, system, name)};
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
    channel->kind = kind;
    channel->system = system;
    channel->hash = channel_hash(channels, kind, system, name);
    channel->name_length = name.length;
    if (name.length)
        memcpy(channel->name, name.at, name.length);
    if (table_add(&channels->names, channel->hash, channel))
        return channel;
    free(channel);
    return NULL;
}

void channel_drop(struct channels *channels, struct channel *channel)
{
    table_remove(&channels->names, channel->hash, channel);
    if (channel->is_notified)
        channel_drop_notices(channel);
    else
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

/* Puts a subscription at a position of the client's array. */
static void channel_place(struct client *client, struct subscription subscription,
                          uint32_t position)
{
    client->subscriptions[position] = subscription;
    subscription.channel->members[subscription.index].position = position;
}

static bool channel_join(struct client *client, struct channel *channel)
{
    struct subscription *subscriptions = channel_grow(
        client->subscriptions, client->subscription_count, sizeof *client->subscriptions);
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

const struct channel *channel_user(const struct client *client)
{
    const struct channel *second =
        client->subscription_count > 1 ? client->subscriptions[1].channel : NULL;

    return second && second->kind == CHANNEL_USER ? second : NULL;
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

static void channel_free_client(struct client *client)
{
    free(client->subscriptions);
    rcbuf_release(client->extend);
    free(client);
}

struct client *channel_add_client(struct channels *channels, struct conn *conn, struct str system,
                                  uint64_t number, struct str id)
{
    struct client *client = calloc(1, sizeof *client + id.length);
    struct channel *channel;
    bool is_new;

    if (!client)
        return NULL;
    client->conn = conn;
    client->number = number;
    client->id_length = (uint8_t)id.length;
    memcpy(client->id, id.at, id.length);
    if (channel_subscribe(channels, client, CHANNEL_SYSTEM, system, &is_new)) {
        if (table_add(&channels->clients, (uint32_t)number, client))
            return client;
        channel = channel_unsubscribe(client, 0);
        if (channel->count == 0)
            channel_drop(channels, channel);
    }
    channel_free_client(client);
    return NULL;
}

void channel_remove_client(struct channels *channels, struct client *client)
{
    table_remove(&channels->clients, (uint32_t)client->number, client);
    channel_free_client(client);
}

/* --- delivery -------------------------------------------------------------------------------- */

void channel_deliver(struct channels *channels, struct client *client, struct rcbuf *bytes,
                     struct delivery *sum)
{
    sum->matched++;
    if (!client->is_slow && conn_queue(client->conn, bytes, sum->limit)) {
        sum->queued++;
        return;
    }
    sum->dropped++;
    if (client->is_slow)
        return;
    client->is_slow = true;
    client->next_slow = channels->slow;
    channels->slow = client;
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
    struct client *client = channels->slow;

    if (client)
        channels->slow = client->next_slow;
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
    fifo_push(&channel->notices, &notice->link);
    if (!channel->is_notified)
        fifo_push(&channels->notified, &channel->link);
    channel->is_notified = true;
}

struct rcbuf *channel_next_notice(struct channels *channels, struct channel **channel)
{
    struct rcbuf *bytes;

    while ((*channel = (struct channel *)fifo_pop(&channels->notified))) {
        bytes = channel_pop_notice(*channel);
        (*channel)->is_notified = (*channel)->notices.first != NULL;
        if ((*channel)->is_notified)
            fifo_push(&channels->notified, &(*channel)->link);
        if (bytes)
            return bytes;
        channel_free(*channel); /* it has ceased to exist meanwhile */
    }
    return NULL;
}

void channel_close(struct channels *channels)
{
    size_t place = 0;
    struct client *client;
    struct channel *channel;

    while ((channel = (struct channel *)fifo_pop(&channels->notified)))
        if (channel->count == 0)
            channel_free(channel);
    while ((client = table_walk(&channels->clients, &place)))
        channel_free_client(client);
    place = 0;
    while ((channel = table_walk(&channels->names, &place)))
        channel_free(channel);
    table_free(&channels->clients);
    table_free(&channels->names);
}

/* channel.h - the clients of this node and the channels they are subscribed to: lookups, delivery,
 * pending notices.
 *
 * A system, a user and a group are all a channel: a set of clients with a name inside a system. A
 * channel exists while it has a subscriber. Bytes to deliver come encoded: this module knows no
 * frames, no JSON and no client ids as text.
 * Refuses: nothing; callers check names and limits. */
#ifndef WSPUSH_CHANNEL_H
#define WSPUSH_CHANNEL_H

#include "buf.h"
#include "conn.h"
#include "resume.h"
#include "table.h"

enum channel_kind { CHANNEL_SYSTEM, CHANNEL_USER, CHANNEL_GROUP };

#define CHANNEL_OWN 2 /* subscriptions in the client itself: the system, and a user or a group */

/* A client's end of a subscription: the channel, and where the client stands among its members. */
struct subscription {
    struct channel *channel;
    uint32_t index;
};

/* A channel's end of it: the client, and where the channel stands among its subscriptions. */
struct channel_member {
    struct client *client;
    uint32_t position;
};

struct channel {
    struct fifo_link link;  /* in channels.notified, while it has notices */
    struct channel *system; /* NULL for a system itself */
    struct channel_member *members;
    uint32_t count, hash;
    enum channel_kind kind;
    bool is_crowded;     /* the hub has logged that it has more than max_members */
    bool is_detached;    /* a system: see channel_detach */
    struct fifo notices; /* pending, oldest first */
    size_t name_length;
    char name[];
};

struct client {
    struct conn *conn;                  /* NULL: it is away, see resume.h */
    struct subscription *subscriptions; /* the system, then the user if there is one, then groups */
    unsigned subscription_count : 21;
    bool is_excluded : 1; /* from the send under way, or reached by it already */
    bool is_slow : 1;     /* on channels.slow */
    bool has_ticket : 1;  /* then `id` is followed by 8 bytes: see channel_end, */
    bool has_resume : 1;  /* and by a struct resume: see channel_resume */
    unsigned id_length : 7;
    uint32_t connected_at; /* unix seconds */
    uint64_t number;
    struct rcbuf *extend;                 /* NULL is empty */
    struct subscription own[CHANNEL_OWN]; /* most clients need no more */
    char id[];                            /* as its peer and API callers know it */
};

/* All clients and channels of a node. Zeroed except for the key, it is empty. */
struct channels {
    uint64_t key[2];        /* of the hashes of names: random */
    struct table clients;   /* by number */
    struct table names;     /* channels by kind, system and name */
    struct fifo notified;   /* channels with pending notices, in turn; some without members */
    struct fifo slow;       /* clients that a delivery found to be slow: see channel_next_slow */
    struct fifo detached;   /* systems that are to lose their clients: see channel_next_detached */
    struct resumes resumes; /* of clients that may come back */
};

/* A delivery: the limit of each client's queue in bytes, the clients that it was for, and how many
 * of them took it; the others were too slow. */
struct delivery {
    size_t limit;
    uint64_t matched, queued;
    uint64_t held; /* of those that took it: kept for clients that are away */
};

static inline struct str channel_name(const struct channel *channel)
{
    return (struct str){channel->name, channel->name_length};
}

static inline struct str channel_client_id(const struct client *client)
{
    return (struct str){client->id, client->id_length};
}

/* The system that a channel is in or is. */
static inline const struct channel *channel_system(const struct channel *channel)
{
    return channel->system ? channel->system : channel;
}

static inline struct str channel_extend(const struct client *client)
{
    const struct rcbuf *extend = client->extend;

    return extend ? (struct str){extend->bytes, extend->length} : (struct str){0};
}

/* The hash of a channel's name in its system, whose hash is given; that is 0 for a system. */
uint32_t channel_hash(const struct channels *channels, enum channel_kind kind, uint32_t system,
                      struct str name);

/* The unix second at which a client with a ticket ends; 0: none. */
static inline int64_t channel_end(const struct client *client)
{
    return client->has_ticket ? (int64_t)bytes_get_be(client->id + client->id_length, 8) : 0;
}

/* Sets it; the client must have a ticket. */
static inline void channel_set_end(struct client *client, int64_t end)
{
    bytes_put_be(client->id + client->id_length, 8, (uint64_t)end);
}

/* What is kept for a client that may come back; NULL: it may not. */
static inline struct resume *channel_resume(const struct client *client)
{
    size_t before = sizeof *client + client->id_length + (client->has_ticket ? 8 : 0);

    before += -before % _Alignof(struct resume);
    return client->has_resume ? (struct resume *)(void *)((char *)client + before) : NULL;
}

/* The channel of this name, NULL if there is none; `system` is NULL for a system. */
struct channel *channel_find(const struct channels *channels, enum channel_kind kind,
                             const struct channel *system, struct str name);

/* The client with this number, or NULL. */
struct client *channel_find_client(const struct channels *channels, uint64_t number);

/* Makes a client with this number, which no other has, and an id of at most 127 bytes, and
 * subscribes it to its system. NULL without memory or random bytes: nothing has changed. */
struct client *channel_add_client(struct channels *channels, struct conn *conn, struct str system,
                                  uint64_t number, struct str id, bool has_ticket, bool has_resume);

/* Frees a client, which must have no subscription left. */
void channel_remove_client(struct channels *channels, struct client *client);

/* Subscribes a client to the channel of this name in its system, which is made if need be; *is_new
 * tells whether it was not subscribed yet. NULL without memory: nothing has changed. */
struct channel *channel_subscribe(struct channels *channels, struct client *client,
                                  enum channel_kind kind, struct str name, bool *is_new);

/* Takes a client off the channel at this position of its subscriptions; the last subscription and
 * the last member move into the gaps. The channel may be empty now: then call channel_drop. */
struct channel *channel_unsubscribe(struct client *client, uint32_t position);

/* Removes a channel without members; its notices are never sent. */
void channel_drop(struct channels *channels, struct channel *channel);

/* Takes a system out of the names: from now on neither it, nor what is in it, is found by name, and
 * another system may have its name. False without memory: nothing has changed. */
bool channel_detach(struct channels *channels, struct channel *system);

/* A client of a detached system, to be taken off all its channels; NULL if there is none left. */
struct client *channel_next_detached(struct channels *channels);

/* Where a channel stands among a client's subscriptions, or their number. */
uint32_t channel_position(const struct client *client, const struct channel *channel);

/* The name of a client's user; empty if it has none. */
struct str channel_user(const struct client *client);

/* Where a client's subscriptions of groups begin: behind its system's and its user's. */
static inline uint32_t channel_first_group(const struct client *client)
{
    return channel_user(client).length ? 2 : 1;
}

/* Moves the last subscription, a user's, behind the system's. */
void channel_move_user(struct client *client);

/* Queues a text frame on a client's connection and, if the client may come back, counts and keeps
 * it. False if the queue costs the limit or more, or the client is away and it is not kept. */
bool channel_queue(struct channels *channels, struct client *client, struct rcbuf *bytes,
                   size_t limit);

/* Queues bytes on a client's connection, or on all of a channel's members but the excluded ones,
 * and adds to *sum. One whose queue costs the limit or more is slow: it gets nothing (false). */
bool channel_deliver(struct channels *channels, struct client *client, struct rcbuf *bytes,
                     struct delivery *sum);
void channel_deliver_to_all(struct channels *channels, const struct channel *channel,
                            struct rcbuf *bytes, struct delivery *sum);

/* Takes a client off the list of slow ones; NULL at the end. Deliveries only list them: closing one
 * changes the channels that they walk. */
struct client *channel_next_slow(struct channels *channels);

/* Keeps bytes to be delivered to a channel's members later; without memory they are dropped. */
void channel_push_notice(struct channels *channels, struct channel *channel, struct rcbuf *bytes);

/* Takes the oldest notice of the channel whose turn it is, which goes to the end of the line if it
 * has more. The reference is the caller's then. NULL if there is none. */
struct rcbuf *channel_next_notice(struct channels *channels, struct channel **channel);

/* Frees all clients and channels; connections are left alone. */
void channel_close(struct channels *channels);

#endif

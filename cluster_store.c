/* cluster_store.c - what the registry's modules share: events, the connection, keys. */
#include "cluster_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registry_event *store_new_event(enum registry_event_kind kind, size_t room)
{
    struct registry_event *event = calloc(1, sizeof *event + room);

    if (event)
        event->kind = kind;
    return event;
}

void store_post(struct store *store, enum registry_event_kind kind, struct str text)
{
    struct registry_event *event = store_new_event(kind, text.length);

    if (!event)
        return;
    event->self = store->self;
    if (text.length)
        memcpy(event + 1, text.at, text.length);
    event->text = (struct str){(const char *)(event + 1), text.length};
    mailbox_post(store->events, &event->mail);
}

bool store_wait(struct store *store, const char *text)
{
    store->in_touch = false;
    if (strncmp(text, store->last_reason, sizeof store->last_reason - 1) != 0) {
        snprintf(store->last_reason, sizeof store->last_reason, "%s", text);
        store_post(store, REGISTRY_WAITING, str_from(store->last_reason));
    }
    return false;
}

void store_on_connect(struct store *store, enum registry_event_kind kind)
{
    struct registry_event *event = store_new_event(kind, 0);

    store->in_touch = true;
    store->last_reason[0] = '\0';
    if (!event)
        return;
    event->self = store->self;
    event->clock = store->clock;
    mailbox_post(store->events, &event->mail);
}

struct str store_name(const struct store *store, const char *what, const char *of,
                      struct store_key *room)
{
    int length =
        snprintf(room->at, sizeof room->at, "%s%s%s", store->config->redis_prefix, what, of);

    return (struct str){room->at, (size_t)length};
}

/* Redis did not do what it was asked. Always false. */
static bool store_fail(struct store *store)
{
    store->beat_now |= !redis_is_connected(store->redis);
    return store_wait(store, redis_error(store->redis));
}

bool store_send(struct store *store, const struct str *words)
{
    return redis_append(store->redis, words) || store_fail(store);
}

bool store_send_one(struct store *store, struct str command, struct str name)
{
    return store_send(store, (struct str[]){command, name, {0}});
}

bool store_send_two(struct store *store, struct str command, struct str name, struct str value)
{
    return store_send(store, (struct str[]){command, name, value, {0}});
}

bool store_send_set(struct store *store, struct str name, struct str value, const char *ttl,
                    bool once)
{
    return store_send(store, (struct str[]){STR("SET"),
                                            name,
                                            value,
                                            STR("PX"),
                                            str_from(ttl),
                                            once ? STR("NX") : (struct str){0},
                                            {0}});
}

bool store_next(struct store *store, struct redis_reply *reply)
{
    return (redis_next(store->redis, reply) && reply->type != REDIS_ERROR) || store_fail(store);
}

bool store_skip(struct store *store, size_t count, struct redis_reply *reply)
{
    while (count && store_next(store, reply))
        count--;
    return count == 0;
}

bool store_read_clock(struct redis_reply reply, uint64_t *clock)
{
    uint64_t seconds = 0, micros = 0;

    if (reply.count != 2 ||
        !str_number(redis_element(&reply, 0).text, UINT64_MAX / 2000, &seconds) ||
        !str_number(redis_element(&reply, 1).text, 999999, &micros))
        return false;
    *clock = seconds * 1000 + micros / 1000;
    return true;
}

bool store_call(struct store *store, struct redis_reply *reply, const struct str *words)
{
    return store_send(store, words) && store_next(store, reply);
}

bool store_set_once(struct store *store, struct redis_reply *reply, struct str name,
                    struct str value, const char *ttl, bool *made)
{
    if (!store_send_set(store, name, value, ttl, true) ||
        !store_send_one(store, STR("GET"), name) || !store_next(store, reply))
        return false;
    *made = reply->type != REDIS_NIL;
    return store_next(store, reply);
}

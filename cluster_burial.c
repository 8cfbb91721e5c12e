/* cluster_burial.c - the presence records of dead nodes.
 *
 * lease:TEXT says who buries a node. It is taken with SET NX and expires soon: a holder that dies
 * delays the burial by LEASE_MOST, and one that lives renews it, also while the loop still tells
 * what was removed. So once the lease is gone, all has been told, or its holder is dead.
 *
 * A step reads some records, and removes them in one transaction, which fails if the node's key or
 * the lease has changed since they were read (WATCH). The transaction writes the tombstone too: a
 * node that comes back knows from it that records of its own are gone. HDEL's replies say which
 * records this step removed; those alone are told. When the hash is empty, the node is taken off
 * the list and the lease is given up.
 *
 * If the reply to a transaction is lost, the mark in the tombstone, which no two steps have in
 * common, says whether it was done. If the node comes back and takes the tombstone away before that
 * can be read, what the step removed is not told. */
#include "cluster_burial.h"

#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_MOST 3000 /* milliseconds */
#define TOMBSTONE_TTL "86400000"
#define MARK_MAX (NODE_TEXT_MAX + 24)

enum burial_state {
    BURIAL_LEASE,  /* asks for the lease */
    BURIAL_STEP,   /* removes the next records */
    BURIAL_UNSURE, /* the reply to a transaction is lost: `removal` is what it would have removed */
    BURIAL_TOLD,   /* waits for burial_go_on */
    BURIAL_ENDED
};

struct burial {
    struct burial *next;
    struct node_id node;
    char text[NODE_TEXT_MAX], incarnation[24];
    enum burial_state state;
    char cursor[24]; /* of HSCAN */
    char mark[MARK_MAX];
    struct registry_event *removal;
    int64_t renew_at;
};

static struct burial **burial_find(struct burials *burials, const struct node_id *dead)
{
    struct burial **at = &burials->first;

    while (*at && !node_equal(&(*at)->node, dead))
        at = &(*at)->next;
    return at;
}

void burial_begin(struct burials *burials, const struct node_id *dead)
{
    struct burial **end = burial_find(burials, dead), *burial;

    if (*end || !(burial = calloc(1, sizeof *burial)))
        return; /* without memory: it will be listed as dead again */
    burial->node = *dead;
    node_write(dead, burial->text);
    snprintf(burial->incarnation, sizeof burial->incarnation, "%llu",
             (unsigned long long)dead->incarnation);
    burial->cursor[0] = '0';
    *end = burial;
}

void burial_go_on(struct burials *burials, const struct node_id *dead)
{
    struct burial *burial = *burial_find(burials, dead);

    if (burial && burial->state == BURIAL_TOLD)
        burial->state = BURIAL_STEP;
}

static int64_t burial_lease_ttl(const struct store *store)
{
    int64_t ttl = (int64_t)store->config->node_ttl;

    return ttl < LEASE_MOST ? ttl : LEASE_MOST;
}

/* Milliseconds as text. */
struct burial_number {
    char at[24];
};

static const char *burial_write_ttl(const struct store *store, struct burial_number *number)
{
    snprintf(number->at, sizeof number->at, "%lld", (long long)burial_lease_ttl(store));
    return number->at;
}

static void burial_note_lease(struct burial *burial, const struct store *store)
{
    burial->renew_at = worker_now() + burial_lease_ttl(store) / 3;
}

/* Takes the lease; another node that has it buries. */
static void burial_take_lease(struct burial *burial, struct store *store)
{
    struct store_key room;
    struct burial_number ttl;
    struct redis_reply reply;
    struct str self = str_from(store->text);

    if (!store_claim(store, &reply, store_name(store, "lease:", burial->text, &room), self,
                     burial_write_ttl(store, &ttl)))
        return;
    burial_note_lease(burial, store);
    burial->state = str_equal(reply.text, self) ? BURIAL_STEP : BURIAL_ENDED;
}

/* Runs one command on the lease, if it is this node's. */
static void burial_touch_lease(struct burial *burial, struct store *store, const struct str *words)
{
    struct store_key room;
    struct str lease = store_name(store, "lease:", burial->text, &room);
    struct redis_reply reply;

    if (!store_send_one(store, STR("WATCH"), lease) || !store_send_one(store, STR("GET"), lease) ||
        !store_skip(store, 2, &reply))
        return;
    if (!str_equal(reply.text, str_from(store->text)))
        store_call(store, &reply, (struct str[]){STR("UNWATCH"), {0}});
    else if (store_send(store, (struct str[]){STR("MULTI"), {0}}) && store_send(store, words) &&
             store_send(store, (struct str[]){STR("EXEC"), {0}}))
        store_skip(store, 3, &reply);
}

static void burial_renew_lease(struct burial *burial, struct store *store)
{
    struct store_key room;
    struct burial_number ttl;

    burial_note_lease(burial, store);
    burial_touch_lease(burial, store,
                       (struct str[]){STR("PEXPIRE"),
                                      store_name(store, "lease:", burial->text, &room),
                                      str_from(burial_write_ttl(store, &ttl)),
                                      {0}});
}

/* The node is back, or another one has the lease. */
static void burial_end(struct burial *burial, struct store *store)
{
    struct store_key room;

    burial->state = BURIAL_ENDED;
    burial_touch_lease(
        burial, store,
        (struct str[]){STR("DEL"), store_name(store, "lease:", burial->text, &room), {0}});
}

/* --- one step -------------------------------------------------------------------------------- */

/* What was read of a dead node's records: the event REMOVED, if all of them are removed, and behind
 * it their names. */
static struct registry_event *burial_new_removal(const struct burial *burial,
                                                 const struct redis_reply *list, size_t count)
{
    size_t room = 2 * count * sizeof(struct str);
    struct registry_event *event;
    struct str *views;
    char *at;

    for (size_t i = 0; i < 2 * count; i++)
        room += redis_element(list, i).text.length;
    event = store_new_event(REGISTRY_REMOVED, room);
    if (!event)
        return NULL;
    views = (struct str *)(event + 1);
    at = (char *)(views + 2 * count);
    for (size_t i = 0; i < 2 * count; i++) {
        struct str text = redis_element(list, i).text;

        if (text.length)
            memcpy(at, text.at, text.length);
        views[i / 2 + (i % 2 ? 0 : count)] = (struct str){at, text.length};
        at += text.length;
    }
    event->self = burial->node;
    event->records = views;
    event->count = count;
    return event;
}

/* The commands that begin each step, and their replies. Until EXEC or UNWATCH they are watched. */
static bool burial_send_reads(const struct burial *burial, struct store *store)
{
    struct store_key room[3];
    struct str node = store_name(store, "node:", burial->node.name, &room[0]);
    struct str lease = store_name(store, "lease:", burial->text, &room[1]);
    struct str records = store_name(store, "records:", burial->text, &room[2]);

    return store_send_two(store, STR("WATCH"), node, lease) &&
           store_send_one(store, STR("GET"), node) && store_send_one(store, STR("GET"), lease) &&
           store_send_one(store, STR("HLEN"), records) &&
           store_send(
               store,
               (struct str[]){
                   STR("HSCAN"), records, str_from(burial->cursor), STR("COUNT"), STR("100"), {0}});
}

enum burial_finding { FOUND_NOTHING, FOUND_RECORDS, FOUND_EMPTY, FOUND_OVER, FOUND_FAILURE };

/* Reads some records. RECORDS: `removal` has them. NOTHING: some are elsewhere in the hash. EMPTY:
 * there are none. OVER: the node lives, or the lease is another's. */
static enum burial_finding burial_read(struct burial *burial, struct store *store,
                                       struct registry_event **removal)
{
    struct redis_reply reply, list;
    bool over;
    size_t count;

    if (!burial_send_reads(burial, store) || !store_skip(store, 2, &reply))
        return FOUND_FAILURE;
    over = str_equal(reply.text, str_from(burial->incarnation));
    if (!store_next(store, &reply))
        return FOUND_FAILURE;
    over |= !str_equal(reply.text, str_from(store->text));
    if (!store_next(store, &reply))
        return FOUND_FAILURE;
    if (over || reply.number == 0)
        return over ? FOUND_OVER : FOUND_EMPTY;
    if (!store_next(store, &reply) || reply.count != 2)
        return FOUND_FAILURE;
    list = redis_element(&reply, 1);
    count = list.count / 2 < BURIAL_RECORDS_MAX ? list.count / 2 : BURIAL_RECORDS_MAX;
    if (count && !(*removal = burial_new_removal(burial, &list, count)))
        return FOUND_NOTHING;    /* the next step may have memory */
    if (2 * count == list.count) /* else the others are read again, from here */
        snprintf(burial->cursor, sizeof burial->cursor, "%.*s",
                 (int)redis_element(&reply, 0).text.length, redis_element(&reply, 0).text.at);
    return count ? FOUND_RECORDS : FOUND_NOTHING;
}

static bool burial_send_removal(const struct burial *burial, struct store *store,
                                const struct registry_event *removal)
{
    struct store_key room[3];
    struct str records = store_name(store, "records:", burial->text, &room[0]);
    const struct str *names = removal->records + removal->count;
    struct burial_number ttl;
    bool sent =
        store_send(store, (struct str[]){STR("MULTI"), {0}}) &&
        store_send_set(store, store_name(store, "tombstone:", burial->text, &room[1]),
                       str_from(burial->mark), TOMBSTONE_TTL, false) &&
        store_send_two(store, STR("PEXPIRE"), store_name(store, "lease:", burial->text, &room[2]),
                       str_from(burial_write_ttl(store, &ttl)));

    for (size_t i = 0; sent && i < removal->count; i++)
        sent = store_send_two(store, STR("HDEL"), records, names[i]);
    return sent && store_send(store, (struct str[]){STR("EXEC"), {0}});
}

/* Tells what was removed: those records for which `replies`, behind two others, are 1; all without
 * replies. */
static void burial_tell(struct burial *burial, struct store *store, struct registry_event *removal,
                        const struct redis_reply *replies)
{
    struct str *records = (struct str *)(removal + 1);
    size_t count = 0;

    for (size_t i = 0; i < removal->count; i++)
        if (!replies || (i + 2 < replies->count && redis_element(replies, i + 2).number == 1))
            records[count++] = records[i];
    removal->count = count;
    burial->state = count ? BURIAL_TOLD : BURIAL_STEP;
    if (count)
        mailbox_post(store->events, &removal->mail);
    else
        free(removal); /* zero would say that all are gone */
}

static void burial_remove(struct burial *burial, struct burials *burials,
                          struct registry_event *removal)
{
    struct store *store = burials->store;
    struct redis_reply reply;
    bool done;

    snprintf(burial->mark, sizeof burial->mark, "%s %llu", store->text,
             (unsigned long long)++burials->steps);
    if (!burial_send_removal(burial, store, removal)) {
        free(removal);
        return;
    }
    done = store_skip(store, removal->count + 4, &reply);
    burial_note_lease(burial, store);
    if (done && reply.type == REDIS_LIST) {
        burial_tell(burial, store, removal, &reply);
    } else if (!done && !redis_is_connected(store->redis)) {
        burial->state = BURIAL_UNSURE;
        burial->removal = removal;
    } else {
        free(removal); /* refused, or something has changed: the next step sees what */
    }
}

/* No record is left: the node leaves the list, and the lease is given up. */
static void burial_finish(struct burial *burial, struct store *store)
{
    struct store_key room[2];
    struct registry_event *event = store_new_event(REGISTRY_REMOVED, 0);
    struct redis_reply reply;

    if (event && store_send(store, (struct str[]){STR("MULTI"), {0}}) &&
        store_send_two(store, STR("SREM"), store_name(store, "nodes", "", &room[0]),
                       str_from(burial->text)) &&
        store_send_one(store, STR("DEL"), store_name(store, "lease:", burial->text, &room[1])) &&
        store_send(store, (struct str[]){STR("EXEC"), {0}}) && store_skip(store, 4, &reply) &&
        reply.type == REDIS_LIST) {
        event->self = burial->node;
        mailbox_post(store->events, &event->mail);
        burial->state = BURIAL_ENDED;
        return;
    }
    free(event);
}

/* Was the transaction done whose reply was lost? */
static void burial_make_sure(struct burial *burial, struct store *store)
{
    struct store_key room;
    struct redis_reply reply;
    struct registry_event *removal = burial->removal;

    if (!store_send_one(store, STR("GET"), store_name(store, "tombstone:", burial->text, &room)) ||
        !store_next(store, &reply))
        return;
    burial->removal = NULL;
    burial->state = BURIAL_STEP;
    if (str_equal(reply.text, str_from(burial->mark)))
        burial_tell(burial, store, removal, NULL);
    else
        free(removal);
}

static void burial_work(struct burial *burial, struct burials *burials)
{
    struct store *store = burials->store;
    struct registry_event *removal = NULL;

    switch (burial_read(burial, store, &removal)) {
    case FOUND_RECORDS:
        burial_remove(burial, burials, removal);
        break;
    case FOUND_NOTHING: /* WATCH is ended by the next transaction, or harmless */
    case FOUND_FAILURE:
        break;
    case FOUND_EMPTY:
        burial_finish(burial, store);
        break;
    case FOUND_OVER:
        burial_end(burial, store);
        break;
    }
}

/* --- all of them ----------------------------------------------------------------------------- */

/* When a burial has something to do. */
static int64_t burial_due(const struct burial *burial)
{
    return burial->state == BURIAL_TOLD ? burial->renew_at : 0;
}

int64_t burial_deadline(const struct burials *burials)
{
    int64_t deadline = INT64_MAX;

    if (!burials->store->in_touch)
        return deadline; /* the heartbeat comes first */
    for (const struct burial *burial = burials->first; burial; burial = burial->next)
        if (burial_due(burial) < deadline)
            deadline = burial_due(burial);
    return deadline;
}

static void burial_free(struct burial *burial)
{
    free(burial->removal);
    free(burial);
}

void burial_step(struct burials *burials)
{
    struct burial **at = &burials->first, *burial;

    if (burial_deadline(burials) > worker_now())
        return;
    while (burial_due(*at) > worker_now())
        at = &(*at)->next;
    burial = *at;
    *at = burial->next;
    burial->next = NULL;
    if (burial->state == BURIAL_LEASE)
        burial_take_lease(burial, burials->store);
    else if (burial->state == BURIAL_STEP)
        burial_work(burial, burials);
    else if (burial->state == BURIAL_UNSURE)
        burial_make_sure(burial, burials->store);
    else
        burial_renew_lease(burial, burials->store);
    if (burial->state == BURIAL_ENDED) {
        burial_free(burial);
        return;
    }
    *burial_find(burials, &burial->node) = burial; /* behind the others */
}

void burial_close(struct burials *burials)
{
    while (burials->first) {
        struct burial *next = burials->first->next;

        burial_free(burials->first);
        burials->first = next;
    }
}

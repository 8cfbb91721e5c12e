/* cluster_cleanup.c - the presence records of dead nodes.
 *
 * Lease: lease:TEXT names the node that cleans up. It is set with NX and expires soon: a holder
 * that dies delays the cleanup by LEASE_MAX; one that lives renews it, also while the loop
 * publishes. So once the lease is gone, all removed records are published, or its holder is dead.
 *
 * Step: it reads some records, and removes them in one transaction, which WATCH makes fail if the
 * node's key or the lease has changed. The transaction writes the tombstone too: a node that comes
 * back learns from it that records are gone. HDEL's replies say which records this step removed;
 * only those are published. When none is left the node is taken off the list, and the lease given
 * up.
 *
 * Lost reply: the mark in the tombstone is unique to a step, so it says whether the transaction was
 * done. If the node comes back and deletes the tombstone before that is read, the step's leaves are
 * not published.
 *
 * Threads: the registry's. */
#include "cluster_cleanup.h"

#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_MAX 3000 /* milliseconds */
#define TOMBSTONE_TTL "86400000"
#define MARK_MAX (NODE_TEXT_MAX + 24)

enum cleanup_state {
    CLEANUP_LEASE,  /* takes the lease */
    CLEANUP_STEP,   /* removes the next records */
    CLEANUP_UNSURE, /* the transaction's reply is lost: `removal` is what it would have removed */
    CLEANUP_POSTED, /* waits for cleanup_continue */
    CLEANUP_ENDED
};

struct cleanup {
    struct cleanup *next;
    struct node_id node;
    char text[NODE_TEXT_MAX], incarnation[24];
    enum cleanup_state state;
    char cursor[24]; /* of HSCAN */
    char mark[MARK_MAX];
    struct registry_event *removal;
    int64_t renew_at;
    uint64_t last_clock; /* of Redis, that this incarnation can have lived to see */
    bool finishing;      /* the last transaction may have been done */
};

static struct cleanup **cleanup_find(struct cleanups *cleanups, const struct node_id *dead)
{
    struct cleanup **at = &cleanups->first;

    while (*at && !node_equal(&(*at)->node, dead))
        at = &(*at)->next;
    return at;
}

void cleanup_begin(struct cleanups *cleanups, const struct node_id *dead)
{
    struct cleanup **end = cleanup_find(cleanups, dead), *cleanup;

    if (*end || !(cleanup = calloc(1, sizeof *cleanup)))
        return; /* without memory: the node will be listed as dead again */
    cleanup->node = *dead;
    node_write(dead, cleanup->text);
    snprintf(cleanup->incarnation, sizeof cleanup->incarnation, "%llu",
             (unsigned long long)dead->incarnation);
    cleanup->cursor[0] = '0';
    *end = cleanup;
}

void cleanup_continue(struct cleanups *cleanups, const struct node_id *dead)
{
    struct cleanup *cleanup = *cleanup_find(cleanups, dead);

    if (cleanup && cleanup->state == CLEANUP_POSTED)
        cleanup->state = CLEANUP_STEP;
}

static int64_t cleanup_lease_ttl(const struct store *store)
{
    int64_t ttl = (int64_t)store->config->node_ttl;

    return ttl < LEASE_MAX ? ttl : LEASE_MAX;
}

/* Milliseconds as text. */
struct cleanup_number {
    char at[24];
};

static const char *cleanup_write_ttl(const struct store *store, struct cleanup_number *number)
{
    snprintf(number->at, sizeof number->at, "%lld", (long long)cleanup_lease_ttl(store));
    return number->at;
}

static void cleanup_schedule_renewal(struct cleanup *cleanup, const struct store *store)
{
    cleanup->renew_at = os_now_ms() + cleanup_lease_ttl(store) / 3;
}

/* Takes the lease. If another node has it, that one cleans up. */
static void cleanup_take_lease(struct cleanup *cleanup, struct store *store)
{
    struct store_key room;
    struct cleanup_number ttl;
    struct redis_reply reply;
    struct str self = str_from(store->text);
    bool made;

    if (!store_set_once(store, &reply, store_name(store, "lease:", cleanup->text, &room), self,
                        cleanup_write_ttl(store, &ttl), &made))
        return;
    cleanup_schedule_renewal(cleanup, store);
    cleanup->state = str_equal(reply.text, self) ? CLEANUP_STEP : CLEANUP_ENDED;
}

/* Runs one command on the lease, if this node holds it. */
static void cleanup_run_on_lease(struct cleanup *cleanup, struct store *store,
                                 const struct str *words)
{
    struct store_key room;
    struct str lease = store_name(store, "lease:", cleanup->text, &room);
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

static void cleanup_renew_lease(struct cleanup *cleanup, struct store *store)
{
    struct store_key room;
    struct cleanup_number ttl;

    cleanup_schedule_renewal(cleanup, store);
    cleanup_run_on_lease(cleanup, store,
                         (struct str[]){STR("PEXPIRE"),
                                        store_name(store, "lease:", cleanup->text, &room),
                                        str_from(cleanup_write_ttl(store, &ttl)),
                                        {0}});
}

/* Posts that no record is left. */
static void cleanup_post_end(const struct cleanup *cleanup, const struct store *store,
                             struct registry_event *event)
{
    event->self = cleanup->node;
    event->id = cleanup->last_clock;
    mailbox_post(store->events, &event->mail);
}

/* The node is back, or another one holds the lease: gives up. The lease of a cleanup that may have
 * finished is gone if it has: the end is posted, which is harmless if it has not. */
static void cleanup_end(struct cleanup *cleanup, struct store *store)
{
    struct registry_event *event = cleanup->finishing ? store_new_event(REGISTRY_REMOVED, 0) : NULL;
    struct store_key room;

    cleanup->state = CLEANUP_ENDED;
    if (event)
        cleanup_post_end(cleanup, store, event);
    cleanup_run_on_lease(
        cleanup, store,
        (struct str[]){STR("DEL"), store_name(store, "lease:", cleanup->text, &room), {0}});
}

/* --- one step -------------------------------------------------------------------------------- */

/* The event REMOVED for records that were read, as if all were removed; behind them their names. */
static struct registry_event *cleanup_new_removal(const struct cleanup *cleanup,
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
    event->self = cleanup->node;
    event->records = views;
    event->count = count;
    return event;
}

/* Sends the reads of a step. Their keys are watched until EXEC or UNWATCH. */
static bool cleanup_send_reads(const struct cleanup *cleanup, struct store *store)
{
    struct store_key room[3];
    struct str node = store_name(store, "node:", cleanup->node.name, &room[0]);
    struct str lease = store_name(store, "lease:", cleanup->text, &room[1]);
    struct str records = store_name(store, "records:", cleanup->text, &room[2]);

    return store_send_two(store, STR("WATCH"), node, lease) &&
           store_send(store, (struct str[]){STR("TIME"), {0}}) &&
           store_send_one(store, STR("GET"), node) && store_send_one(store, STR("GET"), lease) &&
           store_send_one(store, STR("HLEN"), records) &&
           store_send(store, (struct str[]){STR("HSCAN"),
                                            records,
                                            str_from(cleanup->cursor),
                                            STR("COUNT"),
                                            STR("100"),
                                            {0}});
}

enum cleanup_finding { FOUND_NOTHING, FOUND_RECORDS, FOUND_EMPTY, FOUND_OVER, FOUND_FAILURE };

/* Reads some records. RECORDS: they are in `removal`. NOTHING: none in this part of the hash.
 * EMPTY: the hash is empty. OVER: the node lives, or another one holds the lease. */
static enum cleanup_finding cleanup_read(struct cleanup *cleanup, struct store *store,
                                         struct registry_event **removal)
{
    struct redis_reply reply, list;
    bool over;
    size_t count;

    if (!cleanup_send_reads(cleanup, store) || !store_skip(store, 2, &reply) ||
        !store_read_clock(reply, &cleanup->last_clock) || !store_next(store, &reply))
        return FOUND_FAILURE;
    str_number(reply.text, UINT64_MAX, &cleanup->last_clock); /* of the next incarnation, if any */
    cleanup->last_clock--;
    over = str_equal(reply.text, str_from(cleanup->incarnation));
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
    count = list.count / 2 < CLEANUP_RECORDS_MAX ? list.count / 2 : CLEANUP_RECORDS_MAX;
    if (count && !(*removal = cleanup_new_removal(cleanup, &list, count)))
        return FOUND_NOTHING;    /* perhaps the next step has memory */
    if (2 * count == list.count) /* else read the rest from the same cursor */
        snprintf(cleanup->cursor, sizeof cleanup->cursor, "%.*s",
                 (int)redis_element(&reply, 0).text.length, redis_element(&reply, 0).text.at);
    return count ? FOUND_RECORDS : FOUND_NOTHING;
}

static bool cleanup_send_removal(const struct cleanup *cleanup, struct store *store,
                                 const struct registry_event *removal)
{
    struct store_key room[3];
    struct str records = store_name(store, "records:", cleanup->text, &room[0]);
    const struct str *names = removal->records + removal->count;
    struct cleanup_number ttl;
    bool sent =
        store_send(store, (struct str[]){STR("MULTI"), {0}}) &&
        store_send_set(store, store_name(store, "tombstone:", cleanup->text, &room[1]),
                       str_from(cleanup->mark), TOMBSTONE_TTL, false) &&
        store_send_two(store, STR("PEXPIRE"), store_name(store, "lease:", cleanup->text, &room[2]),
                       str_from(cleanup_write_ttl(store, &ttl)));

    for (size_t i = 0; sent && i < removal->count; i++)
        sent = store_send_two(store, STR("HDEL"), records, names[i]);
    return sent && store_send(store, (struct str[]){STR("EXEC"), {0}});
}

/* Posts REMOVED with the records whose reply, behind two others, is 1; with all if `replies` is
 * NULL. */
static void cleanup_post_removed(struct cleanup *cleanup, struct store *store,
                                 struct registry_event *removal, const struct redis_reply *replies)
{
    struct str *records = (struct str *)(removal + 1);
    size_t count = 0;

    for (size_t i = 0; i < removal->count; i++)
        if (!replies || (i + 2 < replies->count && redis_element(replies, i + 2).number == 1))
            records[count++] = records[i];
    removal->count = count;
    cleanup->state = count ? CLEANUP_POSTED : CLEANUP_STEP;
    if (count)
        mailbox_post(store->events, &removal->mail);
    else
        free(removal); /* a count of 0 would say that none is left */
}

static void cleanup_remove(struct cleanup *cleanup, struct cleanups *cleanups,
                           struct registry_event *removal)
{
    struct store *store = cleanups->store;
    struct redis_reply reply;
    bool done;

    snprintf(cleanup->mark, sizeof cleanup->mark, "%s %llu", store->text,
             (unsigned long long)++cleanups->steps);
    if (!cleanup_send_removal(cleanup, store, removal)) {
        free(removal);
        return;
    }
    done = store_skip(store, removal->count + 4, &reply);
    cleanup_schedule_renewal(cleanup, store);
    if (done && reply.type == REDIS_LIST) {
        cleanup_post_removed(cleanup, store, removal, &reply);
    } else if (!done && !redis_is_connected(store->redis)) {
        cleanup->state = CLEANUP_UNSURE;
        cleanup->removal = removal;
    } else {
        free(removal); /* rejected, or a watched key has changed: the next step finds out */
    }
}

/* No record is left: takes the node off the list, and gives up the lease. The tombstone is for a
 * node that had no record, and is told of, too. */
static void cleanup_finish(struct cleanup *cleanup, struct store *store)
{
    struct store_key room[4];
    struct registry_event *event = store_new_event(REGISTRY_REMOVED, 0);
    struct node_id end = cleanup->node;
    struct redis_reply reply;
    char text[NODE_TEXT_MAX];

    end.incarnation = cleanup->last_clock;
    node_write(&end, text);
    cleanup->finishing = event != NULL;
    if (event && store_send(store, (struct str[]){STR("MULTI"), {0}}) &&
        store_send_two(store, STR("SREM"), store_name(store, "nodes", "", &room[0]),
                       str_from(cleanup->text)) &&
        store_send_one(store, STR("DEL"), store_name(store, "lease:", cleanup->text, &room[1])) &&
        store_send_set(store, store_name(store, "tombstone:", cleanup->text, &room[2]),
                       str_from(store->text), TOMBSTONE_TTL, false) &&
        store_send_two(store, STR("SADD"), store_name(store, "ends", "", &room[3]),
                       str_from(text)) &&
        store_send(store, (struct str[]){STR("EXEC"), {0}}) && store_skip(store, 6, &reply) &&
        reply.type == REDIS_LIST) {
        cleanup_post_end(cleanup, store, event);
        cleanup->state = CLEANUP_ENDED;
        return;
    }
    free(event);
}

/* Finds out whether the transaction was done whose reply was lost. */
static void cleanup_resolve(struct cleanup *cleanup, struct store *store)
{
    struct store_key room;
    struct redis_reply reply;
    struct registry_event *removal = cleanup->removal;

    if (!store_send_one(store, STR("GET"), store_name(store, "tombstone:", cleanup->text, &room)) ||
        !store_next(store, &reply))
        return;
    cleanup->removal = NULL;
    cleanup->state = CLEANUP_STEP;
    if (str_equal(reply.text, str_from(cleanup->mark)))
        cleanup_post_removed(cleanup, store, removal, NULL);
    else
        free(removal);
}

static void cleanup_remove_some(struct cleanup *cleanup, struct cleanups *cleanups)
{
    struct store *store = cleanups->store;
    struct registry_event *removal = NULL;

    switch (cleanup_read(cleanup, store, &removal)) {
    case FOUND_RECORDS:
        cleanup_remove(cleanup, cleanups, removal);
        break;
    case FOUND_NOTHING: /* the next transaction ends WATCH */
    case FOUND_FAILURE:
        break;
    case FOUND_EMPTY:
        cleanup_finish(cleanup, store);
        break;
    case FOUND_OVER:
        cleanup_end(cleanup, store);
        break;
    }
}

/* --- all of them ----------------------------------------------------------------------------- */

/* When a cleanup has something to do; 0 for now. */
static int64_t cleanup_due(const struct cleanup *cleanup)
{
    return cleanup->state == CLEANUP_POSTED ? cleanup->renew_at : 0;
}

int64_t cleanup_deadline(const struct cleanups *cleanups)
{
    int64_t deadline = INT64_MAX;

    if (!cleanups->store->in_touch)
        return deadline; /* the heartbeat comes first */
    for (const struct cleanup *cleanup = cleanups->first; cleanup; cleanup = cleanup->next)
        if (cleanup_due(cleanup) < deadline)
            deadline = cleanup_due(cleanup);
    return deadline;
}

static void cleanup_free(struct cleanup *cleanup)
{
    free(cleanup->removal);
    free(cleanup);
}

void cleanup_step(struct cleanups *cleanups)
{
    struct cleanup **at = &cleanups->first, *cleanup;

    if (cleanup_deadline(cleanups) > os_now_ms())
        return;
    while (cleanup_due(*at) > os_now_ms())
        at = &(*at)->next;
    cleanup = *at;
    *at = cleanup->next;
    cleanup->next = NULL;
    if (cleanup->state == CLEANUP_LEASE)
        cleanup_take_lease(cleanup, cleanups->store);
    else if (cleanup->state == CLEANUP_STEP)
        cleanup_remove_some(cleanup, cleanups);
    else if (cleanup->state == CLEANUP_UNSURE)
        cleanup_resolve(cleanup, cleanups->store);
    else
        cleanup_renew_lease(cleanup, cleanups->store);
    if (cleanup->state == CLEANUP_ENDED) {
        cleanup_free(cleanup);
        return;
    }
    *cleanup_find(cleanups, &cleanup->node) = cleanup; /* behind the others */
}

void cleanup_close(struct cleanups *cleanups)
{
    while (cleanups->first) {
        struct cleanup *next = cleanups->first->next;

        cleanup_free(cleanups->first);
        cleanups->first = next;
    }
}

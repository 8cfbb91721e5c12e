/* cluster_presence.c - joins and leaves across nodes.
 *
 * Entries: there is one for each client and group whose record in Redis is not, or may not be, what
 * it should be. A change finds the entry of the change before it and replaces what is wanted. So
 * what came and went before anything was written costs nothing, and of ten changes behind a slow
 * Redis one is written; two, if the client left and came back, since somebody may have joined in
 * between. An entry without an operation under way is in the queue, oldest first.
 *
 * Flow: presence_pump gives the registry up to PRESENCE_OPS_MAX operations, while Redis and
 * RabbitMQ are up and few notices are in flight. The backlog stays here, where it cancels out; its
 * bound is the number of connected clients and of records. The result of an operation says whether
 * it made or removed the record; if so its notice is published, in the lane behind the sends.
 *
 * What is known of a record decides the rest: the leave of a record that Redis lost is published
 * all the same, its return is not, and a record that a broken connection may have written counts as
 * written now. While RabbitMQ is down nothing is written: a node that dies then leaves its records
 * as they were published, and the node that cleans up publishes the leaves.
 *
 * Cleanup: the registry removes some records of a dead node, this module publishes their 1002, and
 * when all have come back the registry continues. A cleanup that is cut short loses the notices of
 * one step at most, and never delays sends.
 *
 * Threads: only the loop's. */
#include "cluster_presence.h"

#include "cluster_change.h"

#include "json.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

#define PRESENCE_OPS_MAX 1024     /* operations at the registry */
#define PRESENCE_NOTICES_MAX 4096 /* notices in flight, before no more operations are begun */
#define PRESENCE_PAUSE 100        /* milliseconds after the registry did not do an operation */

enum presence_known {
    PRESENCE_ABSENT,        /* there is no record */
    PRESENCE_PRESENT,       /* there is one, and 1001 was published */
    PRESENCE_MAYBE_WRITTEN, /* there was none, and the connection broke while it was written */
    PRESENCE_MAYBE_CLEANED, /* there was one, and this node was presumed dead */
    PRESENCE_NOTIFIED       /* the same, but 1001 came back behind all 1002 of the cleanup */
};

struct presence_entry {
    struct presence_entry *next, *previous; /* in the queue, if `queued` */
    bool queued;
    uint64_t id; /* of its operation */
    uint32_t hash;
    enum presence_known known;
    bool wanted;        /* the record should be there */
    bool rejoins;       /* but is removed first: the client has left and come back */
    bool notify;        /* the members get a notice of the change */
    bool busy;          /* an operation is under way */
    bool writes;        /* it writes the record; else it removes it */
    bool changed;       /* what is wanted has changed since it began */
    bool in_doubt;      /* whether its record was removed is not known: the reply was lost */
    uint64_t notice_id; /* of its 1001 in flight; 0: none */
    char *bytes;        /* of all the views */
    struct str system, group, id_json, client_json, name;
};

/* The notices of one step of a cleanup. */
struct presence_cleanup {
    struct presence_cleanup *next;
    struct node_id dead;
    uint64_t id;
    size_t waiting; /* notices in flight */
};

struct presence_work {
    struct table by_name;   /* all entries */
    struct table by_id;     /* those that are busy */
    struct table by_notice; /* those whose 1001 is in flight */
    struct presence_entry *first, *last;
    struct presence_cleanup *cleanups;
    size_t busy, queued, in_doubt;
    size_t notices; /* in flight */
    uint64_t last_id;
    int64_t retry_at; /* begin no operation before */
    uint32_t seed;

    /* the walk over all clients: */
    bool walking;
    bool notify_all; /* a record that it writes is published */
    bool was_dead;   /* this node was presumed dead: records not reported yet may be removed */
    struct table_scan scan;
};

bool presence_open(struct cluster *cluster)
{
    cluster->presence = calloc(1, sizeof *cluster->presence);
    return cluster->presence &&
           crypto_random(&cluster->presence->seed, sizeof cluster->presence->seed);
}

/* --- entries ---------------------------------------------------------------------------------- */

static void presence_free_entry(struct presence_work *work, struct presence_entry *entry)
{
    work->in_doubt -= entry->in_doubt;
    free(entry->bytes);
    free(entry);
}

static struct str presence_copy(char **at, struct str text)
{
    struct str copy = {*at, text.length};

    if (text.length)
        memcpy(*at, text.at, text.length);
    *at += text.length;
    return copy;
}

/* Copies the names and JSON of a change. A record's name is the id and the group, which are views
 * of the same bytes. */
static bool presence_describe(struct presence_entry *entry, const struct hub_presence *presence)
{
    size_t length = presence->id.length + presence->group.length + presence->system.length +
                    presence->client_json.length;
    char *bytes = malloc(length), *at = bytes;

    if (!bytes)
        return false;
    free(entry->bytes);
    entry->bytes = bytes;
    entry->id_json = presence_copy(&at, presence->id);
    entry->group = presence_copy(&at, presence->group);
    entry->name = (struct str){bytes, presence->id.length + presence->group.length};
    entry->system = presence_copy(&at, presence->system);
    entry->client_json = presence_copy(&at, presence->client_json);
    return true;
}

static void presence_queue(struct presence_work *work, struct presence_entry *entry)
{
    entry->queued = true;
    work->queued++;
    entry->next = NULL;
    entry->previous = work->last;
    if (work->last)
        work->last->next = entry;
    else
        work->first = entry;
    work->last = entry;
}

static void presence_unqueue(struct presence_work *work, struct presence_entry *entry)
{
    entry->queued = false;
    work->queued--;
    if (entry->previous)
        entry->previous->next = entry->next;
    else
        work->first = entry->next;
    if (entry->next)
        entry->next->previous = entry->previous;
    else
        work->last = entry->previous;
}

/* A new entry. Until now its record was as it should be: there, unless the client joins. */
static struct presence_entry *presence_add(struct presence_work *work,
                                           const struct hub_presence *presence, uint32_t hash)
{
    struct presence_entry *entry = calloc(1, sizeof *entry);

    if (entry && presence_describe(entry, presence)) {
        entry->hash = hash;
        entry->known = presence->kind == PRESENCE_JOIN ? PRESENCE_ABSENT
                       : work->was_dead                ? PRESENCE_MAYBE_CLEANED
                                                       : PRESENCE_PRESENT;
        if (table_add(&work->by_name, hash, entry)) {
            presence_queue(work, entry);
            return entry;
        }
    }
    if (entry)
        presence_free_entry(work, entry);
    return NULL;
}

/* Call when an operation or a notice of an entry has ended: frees it if nothing is left to do. */
static void presence_release(struct presence_work *work, struct presence_entry *entry)
{
    if (entry->busy || entry->queued || entry->notice_id)
        return;
    table_remove(&work->by_name, entry->hash, entry);
    presence_free_entry(work, entry);
}

static struct presence_entry *presence_find_id(const struct table *table, uint64_t id)
{
    struct table_cursor cursor = {.hash = (uint32_t)id};
    struct presence_entry *entry;

    while ((entry = table_next(table, &cursor)))
        if (entry->id == id || entry->notice_id == id)
            return entry;
    return NULL;
}

/* True if a client came and went before anything was written. */
static bool presence_is_cancelled(const struct presence_entry *entry)
{
    return !entry->wanted && entry->known == PRESENCE_ABSENT;
}

/* True if a record should be removed that is there, may be there or is being written. */
static bool presence_is_leaving(const struct presence_entry *entry)
{
    return !entry->wanted && (entry->known != PRESENCE_ABSENT || (entry->busy && entry->writes));
}

/* --- changes ---------------------------------------------------------------------------------- */

static uint32_t presence_hash(const struct presence_work *work, const struct hub_presence *presence)
{
    return str_hash(presence->id, work->seed) + 31 * str_hash(presence->group, work->seed);
}

static struct presence_entry *presence_find_changed(const struct presence_work *work,
                                                    const struct hub_presence *presence)
{
    struct table_cursor cursor = {.hash = presence_hash(work, presence)};
    struct presence_entry *entry;

    while ((entry = table_next(&work->by_name, &cursor)))
        if (str_equal(entry->id_json, presence->id) && str_equal(entry->group, presence->group))
            return entry;
    return NULL;
}

void presence_change(void *state, const struct hub_presence *presence)
{
    struct cluster *cluster = state;
    struct presence_work *work = cluster->presence;
    struct presence_entry *entry = presence_find_changed(work, presence);

    if (entry && !presence_describe(entry, presence))
        entry = NULL;
    else if (!entry)
        entry = presence_add(work, presence, presence_hash(work, presence));
    if (!entry) {
        cluster->counters.notices_dropped++;
        return;
    }
    entry->changed = entry->busy;
    if (presence->kind != PRESENCE_REFRESH)
        entry->rejoins = presence->kind == PRESENCE_JOIN && presence_is_leaving(entry);
    entry->wanted = presence->kind != PRESENCE_LEAVE;
    if (!entry->busy && !entry->queued)
        presence_queue(work, entry);
    if (presence->kind != PRESENCE_REFRESH || presence->notify)
        entry->notify = presence->notify;
    if (entry->busy || !presence_is_cancelled(entry))
        return;
    presence_unqueue(work, entry);
    presence_release(work, entry);
}

/* This node may have been cleaned up: records whose 1001 was published may be gone, and 1002
 * published. One whose 1001 has still to come stays as it is. */
static void presence_mark_uncertain(struct presence_work *work)
{
    size_t place = 0;
    struct presence_entry *entry;

    while ((entry = table_walk(&work->by_name, &place)))
        if (entry->known == PRESENCE_PRESENT)
            entry->known = entry->notice_id ? PRESENCE_NOTIFIED : PRESENCE_MAYBE_CLEANED;
}

static void presence_forget_all(struct presence_work *work)
{
    size_t place = 0;
    struct presence_entry *entry;

    while ((entry = table_walk(&work->by_name, &place)))
        presence_free_entry(work, entry);
    table_free(&work->by_name);
    table_free(&work->by_id);
    table_free(&work->by_notice);
    work->first = work->last = NULL;
    work->busy = work->queued = 0;
}

/* Begins a walk over all clients, or begins it again. */
static void presence_start_walk(struct presence_work *work)
{
    work->walking = true;
    work->scan = (struct table_scan){0};
}

void presence_walk(struct cluster *cluster)
{
    struct presence_work *work = cluster->presence;

    if (!work->walking || hub_refresh_presence(cluster->hub, &work->scan, work->notify_all))
        return;
    work->walking = work->notify_all = work->was_dead = false;
}

void presence_republish(struct cluster *cluster)
{
    presence_forget_all(cluster->presence); /* operations under way are done before the clearing */
    registry_clear(cluster->registry);
    cluster->presence->notify_all = cluster->presence->was_dead = false;
    presence_start_walk(cluster->presence);
}

void presence_restore(struct cluster *cluster)
{
    presence_start_walk(cluster->presence);
}

void presence_revive(struct cluster *cluster)
{
    cluster->presence->notify_all = cluster->presence->was_dead = true;
    presence_mark_uncertain(cluster->presence);
    presence_start_walk(cluster->presence);
}

/* --- notices ---------------------------------------------------------------------------------- */

/* Publishes 1001 or 1002. `id`: the notice's, or the cleanup's, or 0. False if too much waits. */
static bool presence_publish(struct cluster *cluster, const struct presence_entry *entry,
                             bool online, uint64_t id)
{
    char room[HUB_ID_TEXT + sizeof "[\"\"]"];
    struct buf self = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct cluster_msg msg = {
        .kind = MSG_SEND,
        .id = id,
        .command = {.kind = entry->group.length ? COMMAND_SEND_TO_GROUP : COMMAND_SEND_TO_SYSTEM,
                    .system = entry->system,
                    .group = entry->group,
                    .code = online ? NOTICE_ONLINE : NOTICE_OFFLINE,
                    .msg = online ? STR("\"client online\"") : STR("\"client offline\""),
                    .data = entry->client_json}};

    buf_append(&self, STR("["));
    buf_append(&self, entry->id_json);
    buf_append(&self, STR("]"));
    if (!online) /* the client may be back already: do not notify it of itself */
        msg.command.clients = str_of(&self);
    if (self.failed ||
        !state_publish(cluster, &msg, LANE_NOTICE, state_slot_of(&msg.command), NULL)) {
        cluster->counters.notices_dropped++;
        return false;
    }
    cluster->presence->notices++;
    return true;
}

/* Publishes the notice of an entry. A 1001 is remembered until it comes back. */
static void presence_notify(struct cluster *cluster, struct presence_entry *entry, bool online)
{
    struct presence_work *work = cluster->presence;
    uint64_t id = online ? ++work->last_id : 0;

    if (!presence_publish(cluster, entry, online, id) || !online)
        return;
    if (entry->notice_id)
        table_remove(&work->by_notice, (uint32_t)entry->notice_id, entry);
    entry->notice_id = table_add(&work->by_notice, (uint32_t)id, entry) ? id : 0;
}

/* Takes a 1001 that came back. False if no entry has this notice. */
static bool presence_on_notified(struct presence_work *work, uint64_t id)
{
    struct presence_entry *entry = presence_find_id(&work->by_notice, id);

    if (!entry)
        return false;
    table_remove(&work->by_notice, (uint32_t)id, entry);
    entry->notice_id = 0;
    presence_release(work, entry);
    return true;
}

/* Takes a 1002 of a cleanup that came back; after the last of a step the registry continues. */
static void presence_on_removal_notified(struct cluster *cluster, uint64_t id)
{
    struct presence_cleanup **at = &cluster->presence->cleanups, *cleanup;

    while (*at && (*at)->id != id)
        at = &(*at)->next;
    cleanup = *at;
    if (!cleanup || --cleanup->waiting)
        return;
    *at = cleanup->next;
    registry_continue(cluster->registry, &cleanup->dead);
    free(cleanup);
}

void presence_take_notice(struct cluster *cluster, const struct wire_batch *batch,
                          const struct cluster_msg *msg)
{
    struct result ignored = {0};

    if (msg->kind != MSG_SEND || !wire_command_is_valid(&msg->command) ||
        !wire_command_is_published(&msg->command))
        return;
    if (hub_may_notify(cluster->hub, msg->command.system, msg->command.group))
        hub_apply(cluster->hub, &msg->command, &ignored);
    if (!node_equal(&batch->origin, &cluster->self))
        return;
    cluster->presence->notices--;
    if (msg->id && !presence_on_notified(cluster->presence, msg->id))
        presence_on_removal_notified(cluster, msg->id);
}

/* --- operations ------------------------------------------------------------------------------- */

static bool presence_write_record(const struct presence_entry *entry, struct buf *out)
{
    buf_append(out, STR("{\"system\":"));
    json_append_quoted(out, entry->system);
    buf_append(out, STR(",\"group\":"));
    json_append_quoted(out, entry->group);
    buf_append(out, STR(",\"id\":"));
    buf_append(out, entry->id_json);
    buf_append(out, STR(",\"identity\":"));
    buf_append(out, entry->client_json);
    return buf_append(out, STR("}"));
}

/* Gives the operation of an entry to the registry. False without memory. */
static bool presence_begin(struct cluster *cluster, struct presence_entry *entry)
{
    struct presence_work *work = cluster->presence;
    struct buf record = {0};
    bool writes = entry->wanted && !entry->rejoins;
    bool begun = !writes || presence_write_record(entry, &record);

    entry->id = ++work->last_id;
    begun = begun && table_add(&work->by_id, (uint32_t)entry->id, entry);
    if (begun && !registry_write(cluster->registry, entry->id, entry->name, str_of(&record))) {
        table_remove(&work->by_id, (uint32_t)entry->id, entry);
        begun = false;
    }
    buf_free(&record);
    if (!begun)
        return false;
    entry->busy = true;
    entry->changed = false;
    entry->writes = writes;
    work->busy++;
    return true;
}

void presence_pump(struct cluster *cluster)
{
    struct presence_work *work = cluster->presence;
    struct presence_entry *entry;

    if (!cluster->redis_up || !cluster->bus_up || cluster->now < work->retry_at)
        return;
    while ((entry = work->first) && work->busy < PRESENCE_OPS_MAX &&
           work->notices < PRESENCE_NOTICES_MAX && presence_begin(cluster, entry))
        presence_unqueue(work, entry);
}

/* True if an operation changed something for the members. A record that is PRESENT or NOTIFIED was
 * published with 1001 and nothing since, wherever the record has been meanwhile. */
static bool presence_has_changed(const struct presence_entry *entry, bool changed)
{
    bool published = entry->known == PRESENCE_PRESENT || entry->known == PRESENCE_NOTIFIED;

    if (entry->writes)
        return entry->known == PRESENCE_MAYBE_WRITTEN || (changed && !published);
    return published || (changed && entry->known == PRESENCE_MAYBE_CLEANED);
}

static void presence_take_result(struct cluster *cluster, struct presence_entry *entry,
                                 enum registry_change change)
{
    struct presence_work *work = cluster->presence;

    if (change == REGISTRY_UNKNOWN && entry->writes && entry->known == PRESENCE_ABSENT)
        entry->known = PRESENCE_MAYBE_WRITTEN;
    if (change != REGISTRY_NOT_DONE) {
        work->in_doubt -= entry->in_doubt;
        entry->in_doubt = change == REGISTRY_UNKNOWN && !entry->writes;
        work->in_doubt += entry->in_doubt;
    }
    if (change == REGISTRY_UNKNOWN || change == REGISTRY_NOT_DONE) {
        work->retry_at = cluster->now + PRESENCE_PAUSE;
        entry->changed = true;
    } else {
        if (entry->notify && presence_has_changed(entry, change == REGISTRY_CHANGED))
            presence_notify(cluster, entry, entry->writes);
        entry->known = entry->writes ? PRESENCE_PRESENT : PRESENCE_ABSENT;
        entry->changed |= entry->rejoins;
        entry->rejoins &= entry->writes;
    }
    if (entry->changed && !presence_is_cancelled(entry))
        presence_queue(work, entry);
    presence_release(work, entry);
}

void presence_take_written(struct cluster *cluster, const struct registry_event *event)
{
    struct presence_work *work = cluster->presence;

    for (size_t i = 0; i < event->count; i++) {
        uint64_t id = event->results[i].id;
        struct presence_entry *entry = presence_find_id(&work->by_id, id);

        if (!entry)
            continue; /* the scope has changed since */
        table_remove(&work->by_id, (uint32_t)id, entry);
        entry->busy = false;
        work->busy--;
        presence_take_result(cluster, entry, event->results[i].change);
    }
}

/* --- dead nodes ------------------------------------------------------------------------------- */

enum presence_field { RECORD_SYSTEM, RECORD_GROUP, RECORD_ID, RECORD_CLIENT, RECORD_COUNT };

/* Publishes 1002 for a record of a dead node. Anybody may have written what is in Redis. */
static bool presence_notify_removed(struct cluster *cluster, struct str text, uint64_t cleanup)
{
    struct json_field fields[RECORD_COUNT] = {[RECORD_SYSTEM] = {.name = STR_INIT("system")},
                                              [RECORD_GROUP] = {.name = STR_INIT("group")},
                                              [RECORD_ID] = {.name = STR_INIT("id")},
                                              [RECORD_CLIENT] = {.name = STR_INIT("identity")}};
    struct json_error error;
    struct buf names = {.limit = 2 * 128};
    bool good = json_parse_object(text, fields, RECORD_COUNT, &error) &&
                fields[RECORD_ID].value.type == JSON_STRING &&
                fields[RECORD_ID].value.text.length == HUB_ID_TEXT + 2 &&
                fields[RECORD_CLIENT].value.type == JSON_OBJECT &&
                buf_reserve(&names, names.limit) &&
                json_decode_string(fields[RECORD_SYSTEM].value, &names);
    size_t system = names.length;
    struct presence_entry entry = {.id_json = fields[RECORD_ID].value.text,
                                   .client_json = fields[RECORD_CLIENT].value.text};

    good = good && json_decode_string(fields[RECORD_GROUP].value, &names);
    if (good) {
        entry.system = (struct str){names.at, system};
        entry.group = (struct str){names.at + system, names.length - system};
        good = presence_publish(cluster, &entry, false, cleanup);
    } else {
        log_write(cluster->log, LOG_WARN, "a malformed presence record in Redis was dropped", NULL);
    }
    buf_free(&names);
    return good;
}

void presence_take_removed(struct cluster *cluster, const struct registry_event *event)
{
    struct presence_work *work = cluster->presence;
    struct presence_cleanup *cleanup;
    uint64_t id = ++work->last_id;
    size_t published = 0;

    if (!event->count) { /* no record is left */
        change_tell_end(cluster, event);
        return;
    }
    cleanup = calloc(1, sizeof *cleanup);
    for (size_t i = 0; i < event->count; i++)
        published += presence_notify_removed(cluster, event->records[i], cleanup ? id : 0);
    if (!cleanup || !published) {
        free(cleanup);
        registry_continue(cluster->registry, &event->self);
        return;
    }
    *cleanup = (struct presence_cleanup){
        .next = work->cleanups, .dead = event->self, .id = id, .waiting = published};
    work->cleanups = cleanup;
}

int64_t presence_deadline(const struct cluster *cluster)
{
    const struct presence_work *work = cluster->presence;

    if (work->walking)
        return cluster->now;
    return work->first && cluster->now < work->retry_at ? work->retry_at : INT64_MAX;
}

/* --- what is waiting -------------------------------------------------------------------------- */

bool presence_is_idle(const struct cluster *cluster)
{
    return presence_waiting(cluster) == 0 && !cluster->presence->walking;
}

bool presence_is_unfinished(const struct cluster *cluster)
{
    const struct presence_work *work = cluster->presence;

    return work->busy || work->in_doubt || work->notices;
}

size_t presence_waiting(const struct cluster *cluster)
{
    const struct presence_work *work = cluster->presence;

    return work->busy + work->queued + work->notices;
}

void presence_close(struct cluster *cluster)
{
    struct presence_work *work = cluster->presence;

    if (!work)
        return;
    presence_forget_all(work);
    while (work->cleanups) {
        struct presence_cleanup *next = work->cleanups->next;

        free(work->cleanups);
        work->cleanups = next;
    }
    free(work);
    cluster->presence = NULL;
}

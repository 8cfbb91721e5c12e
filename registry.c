/* registry.c - what the nodes of a cluster know together, in Redis.
 *
 * Keys, each behind the configured prefix; LIFE is IP:PORT/START, NAME is IP:PORT:
 *   accounts     hash: system -> record
 *   nodes        set of LIFE: joined, not left, not buried
 *   node:NAME    START of the node that lives under this name; expires after node_ttl
 *   notes:LIFE   hash: who is in which group there
 *   claim:LIFE   who tells that this one is dead
 *   grave:LIFE   that has been told; there for a day
 *   key          what only holders of crypto_key can compute, as long as any node lives */
#include "registry.h"

#include "redis.h"
#include "worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN_PAUSE 250 /* milliseconds between two attempts to join */
#define NOTES_AT_ONCE 100
#define NODES_AT_ONCE 64
#define CLAIM_TTL "60000"
#define GRAVE_TTL "86400000"

enum job_kind { JOB_LOOK_UP, JOB_NOTE, JOB_FORGET, JOB_BURY, JOB_LEAVE, JOB_STOP };

struct job {
    struct mail mail;
    enum job_kind kind;
    uint64_t ticket;
    struct identity dead;
    struct str name, text;
    char bytes[];
};

struct registry {
    struct registry_options options;
    struct mailbox jobs, events;
    int pipe[2]; /* wakes the thread */
    pthread_t thread;
    bool has_thread;

    /* the thread's own */
    struct redis *redis;
    struct identity self;
    char name[IDENTITY_TEXT_MAX], life[IDENTITY_TEXT_MAX], start[24], ttl[24], key_ttl[24];
    char key_check[2 * CRYPTO_HASH_SIZE + 1];
    char told[500]; /* the last REGISTRY_WAITING */
    bool joined, out_of_touch, stop;
    bool unlisted; /* this node was not among the nodes, and has not asked why */
    int64_t next_beat;
    int64_t rival_since, rival_ttl; /* joining: a node of our name was first seen, and its TTL */

    /* the account worker's own */
    struct redis *account_redis;
    struct account_store store;
};

/* --- events ---------------------------------------------------------------------------------- */

/* Posts an event with a copy of `text`; without memory it is lost, as if Redis had not answered. */
static void post_event(struct registry *registry, struct registry_event event, struct str text)
{
    struct registry_event *copy = malloc(sizeof *copy + text.length);

    if (!copy)
        return;
    *copy = event;
    if (text.length)
        memcpy(copy + 1, text.at, text.length);
    copy->text = (struct str){(const char *)(copy + 1), text.length};
    if (event.count)
        copy->nodes = (const struct registry_node *)(copy + 1);
    mailbox_post(&registry->events, &copy->mail);
}

static void post_kind(struct registry *registry, enum registry_event_kind kind, struct str text)
{
    post_event(registry, (struct registry_event){.kind = kind, .self = registry->self}, text);
}

/* Says what is waited for, once for each thing. */
static void say_waiting(struct registry *registry, const char *text)
{
    if (strncmp(text, registry->told, sizeof registry->told - 1) == 0)
        return;
    snprintf(registry->told, sizeof registry->told, "%s", text);
    post_kind(registry, REGISTRY_WAITING, str_from(registry->told));
}

struct registry_event *registry_take(struct registry *registry)
{
    return (struct registry_event *)mailbox_take(&registry->events);
}

/* --- calls ----------------------------------------------------------------------------------- */

/* Room for the name of a key. */
struct key {
    char at[256];
};

static struct str key(const struct registry *registry, const char *what, const char *of,
                      struct key *room)
{
    int length = snprintf(room->at, sizeof room->at, "%s%s%s",
                          registry->options.config->redis_prefix, what, of);

    return (struct str){room->at, (size_t)length};
}

static bool call(struct registry *registry, struct redis_reply *reply, const struct str *words)
{
    return redis_call(registry->redis, words, reply);
}

/* SET key value, to expire after `ttl` milliseconds; with `once` only if it is not there, which the
 * reply then says by not being nil. */
static bool set(struct registry *registry, struct redis_reply *reply, struct str name,
                struct str value, const char *ttl, bool once)
{
    return call(registry, reply,
                (struct str[]){STR("SET"),
                               name,
                               value,
                               STR("PX"),
                               str_from(ttl),
                               once ? STR("NX") : (struct str){0},
                               {0}});
}

static bool get(struct registry *registry, struct redis_reply *reply, struct str name)
{
    return call(registry, reply, (struct str[]){STR("GET"), name, {0}});
}

/* --- joining --------------------------------------------------------------------------------- */

/* Redis's own clock counts the lives of nodes: it is the same for all. */
static bool read_clock(struct registry *registry)
{
    struct redis_reply reply;
    uint64_t seconds = 0, micros = 0;

    if (registry->self.start)
        return true; /* of an attempt before this one */
    if (!call(registry, &reply, (struct str[]){STR("TIME"), {0}}) || reply.count != 2 ||
        !str_number(redis_element(&reply, 0).text, UINT64_MAX / 2000, &seconds) ||
        !str_number(redis_element(&reply, 1).text, 999999, &micros))
        return false;
    registry->self.start = seconds * 1000 + micros / 1000;
    identity_write(&registry->self, registry->life);
    snprintf(registry->start, sizeof registry->start, "%llu",
             (unsigned long long)registry->self.start);
    return true;
}

/* True if no node of another crypto_key is there. */
static bool check_key(struct registry *registry)
{
    struct key room;
    struct str name = key(registry, "key", "", &room);
    struct str check = str_from(registry->key_check);
    struct redis_reply reply;

    if (!set(registry, &reply, name, check, registry->key_ttl, true) ||
        !get(registry, &reply, name))
        return false;
    if (reply.type == REDIS_TEXT && !crypto_equal(reply.text, check)) {
        say_waiting(registry, "the nodes that are running have another crypto_key: set the same "
                              "[common] crypto_key on every node and restart this one");
        return false;
    }
    return true;
}

/* A node of our name is registered. If it lives it will say so again, and then it is a clash; if it
 * does not, it was this node before a crash. */
static bool outwait_rival(struct registry *registry, struct str name)
{
    struct redis_reply reply;
    int64_t now = worker_now(), ttl = (int64_t)registry->options.config->node_ttl;
    char text[200];

    if (!call(registry, &reply, (struct str[]){STR("PTTL"), name, {0}}))
        return false;
    if (registry->rival_since && reply.number > registry->rival_ttl) {
        snprintf(text, sizeof text,
                 "a living node has the name %s already: give this one another [cluster] "
                 "advertise or rpc_port, or stop that one",
                 registry->name);
        post_kind(registry, REGISTRY_CLASH, str_from(text));
        registry->stop = true;
        return false;
    }
    if (!registry->rival_since)
        registry->rival_since = now;
    registry->rival_ttl = reply.number;
    if (now - registry->rival_since > ttl / 3 * 2)
        return true;
    snprintf(text, sizeof text,
             "a node with the name %s is registered: waiting to see whether it lives, or was this "
             "one before it was killed",
             registry->name);
    say_waiting(registry, text);
    return false;
}

static bool enter(struct registry *registry)
{
    struct key room;
    struct str node = key(registry, "node:", registry->name, &room);
    struct str start;
    struct redis_reply reply;

    if (!read_clock(registry) || !check_key(registry))
        return false;
    start = str_from(registry->start);
    if (!set(registry, &reply, node, start, registry->ttl, true) || !get(registry, &reply, node))
        return false;
    if (!str_equal(reply.text, start) &&
        (!outwait_rival(registry, node) ||
         !set(registry, &reply, node, start, registry->ttl, false)))
        return false;
    return call(registry, &reply,
                (struct str[]){
                    STR("SADD"), key(registry, "nodes", "", &room), str_from(registry->life), {0}});
}

static void join(struct registry *registry)
{
    if (enter(registry)) {
        registry->joined = true;
        registry->told[0] = '\0';
        post_kind(registry, REGISTRY_JOINED, (struct str){0});
        return;
    }
    if (!registry->stop && redis_error(registry->redis)[0])
        say_waiting(registry, redis_error(registry->redis));
    registry->next_beat = worker_now() + JOIN_PAUSE;
}

/* --- the heartbeat --------------------------------------------------------------------------- */

/* Looks up to NODES_AT_ONCE nodes up: alive is whose name has the node key of this life. */
static bool look_at_nodes(struct registry *registry, struct registry_node *nodes, size_t count)
{
    struct str words[NODES_AT_ONCE + 2] = {STR("MGET")};
    struct key rooms[NODES_AT_ONCE];
    struct redis_reply reply;

    for (size_t i = 0; i < count; i++) {
        char name[IDENTITY_TEXT_MAX];

        identity_write_name(&nodes[i].identity, name);
        words[1 + i] = key(registry, "node:", name, &rooms[i]);
    }
    if (!call(registry, &reply, words) || reply.count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t start = 0;

        nodes[i].alive = str_number(redis_element(&reply, i).text, UINT64_MAX, &start) &&
                         start == nodes[i].identity.start;
    }
    return true;
}

static bool post_nodes(struct registry *registry, struct registry_node *nodes, size_t count)
{
    struct registry_event event = {.kind = REGISTRY_NODES, .count = count};

    for (size_t i = 0; i < count; i += NODES_AT_ONCE)
        if (!look_at_nodes(registry, nodes + i,
                           count - i < NODES_AT_ONCE ? count - i : NODES_AT_ONCE))
            return false;
    post_event(registry, event, (struct str){(const char *)nodes, count * sizeof *nodes});
    return true;
}

static bool list_nodes(struct registry *registry)
{
    struct key room;
    struct redis_reply reply;
    struct registry_node *nodes;
    size_t count = 0;
    bool good;

    if (!call(registry, &reply,
              (struct str[]){STR("SMEMBERS"), key(registry, "nodes", "", &room), {0}}))
        return false;
    nodes = calloc(reply.count + 1, sizeof *nodes);
    if (!nodes)
        return true; /* the next beat may have memory */
    for (size_t i = 0; i < reply.count; i++)
        if (identity_read(redis_element(&reply, i).text, &nodes[count].identity))
            count++;
    good = post_nodes(registry, nodes, count);
    free(nodes);
    return good;
}

/* This life was not among the nodes any more: it was buried, or Redis has forgotten all. */
static bool look_for_grave(struct registry *registry)
{
    struct key room;
    struct redis_reply reply;

    if (!call(registry, &reply,
              (struct str[]){STR("DEL"), key(registry, "grave:", registry->life, &room), {0}}))
        return false;
    registry->unlisted = false;
    post_kind(registry, reply.number ? REGISTRY_REVIVED : REGISTRY_BACK, (struct str){0});
    return true;
}

static void note_contact(struct registry *registry, bool good)
{
    if (!good)
        say_waiting(registry, redis_error(registry->redis));
    else if (registry->out_of_touch) {
        registry->told[0] = '\0';
        post_kind(registry, REGISTRY_BACK, (struct str){0});
    }
    registry->out_of_touch = !good;
}

/* Says that this node lives, and asks who else does. */
static bool beat(struct registry *registry)
{
    struct key node_room, room;
    struct str node = key(registry, "node:", registry->name, &node_room);
    struct redis_reply reply;
    uint64_t start = 0;

    if (!get(registry, &reply, node))
        return false;
    if (reply.type == REDIS_TEXT && str_number(reply.text, UINT64_MAX, &start) &&
        start != registry->self.start) {
        say_waiting(registry, "another node has taken this one's name: give each its own [cluster] "
                              "advertise and rpc_port");
        return true;
    }
    if (!set(registry, &reply, node, str_from(registry->start), registry->ttl, false) ||
        !set(registry, &reply, key(registry, "key", "", &room), str_from(registry->key_check),
             registry->key_ttl, false) ||
        !call(registry, &reply,
              (struct str[]){
                  STR("SADD"), key(registry, "nodes", "", &room), str_from(registry->life), {0}}))
        return false;
    registry->unlisted |= reply.number > 0;
    /* before the nodes are listed: for a time after being out of touch that list is not trusted */
    note_contact(registry, true);
    return (!registry->unlisted || look_for_grave(registry)) && list_nodes(registry);
}

static void keep_time(struct registry *registry)
{
    int64_t ttl = (int64_t)registry->options.config->node_ttl;
    bool good;

    if (worker_now() < registry->next_beat)
        return;
    if (!registry->joined) {
        join(registry);
        if (!registry->joined)
            return;
    }
    good = beat(registry);
    if (!good)
        note_contact(registry, false);
    registry->next_beat = worker_now() + (good || ttl < 3 * JOIN_PAUSE ? ttl / 3 : JOIN_PAUSE);
}

/* --- the dead -------------------------------------------------------------------------------- */

#define NOTES_TOLD 200 /* at once */

enum told { TOLD_ALL, TOLD_SOME, TOLD_FAILED };

/* Posts some of the notes of a dead node and removes them; `cursor` goes on. */
static enum told tell_notes(struct registry *registry, struct str notes, char cursor[24])
{
    struct str words[NOTES_TOLD + 3] = {STR("HDEL"), notes};
    struct buf names = {0};
    size_t lengths[NOTES_TOLD], count = 0, at = 0;
    struct redis_reply reply, list;
    bool removed;

    if (!call(
            registry, &reply,
            (struct str[]){STR("HSCAN"), notes, str_from(cursor), STR("COUNT"), STR("50"), {0}}) ||
        reply.count != 2)
        return TOLD_FAILED;
    list = redis_element(&reply, 1);
    for (size_t i = 0; i + 1 < list.count && count < NOTES_TOLD; i += 2) {
        struct str name = redis_element(&list, i).text;

        post_kind(registry, REGISTRY_MOURN, redis_element(&list, i + 1).text);
        buf_append(&names, name);
        lengths[count++] = name.length;
    }
    if (2 * count == list.count) /* else those that had no room are looked for again */
        snprintf(cursor, 24, "%.*s", (int)redis_element(&reply, 0).text.length,
                 redis_element(&reply, 0).text.at);
    else
        count = NOTES_TOLD;
    for (size_t i = 0; i < count && !names.failed; at += lengths[i++])
        words[2 + i] = (struct str){names.at + at, lengths[i]};
    removed = !names.failed && (count == 0 || call(registry, &reply, words));
    buf_free(&names);
    if (!removed)
        return TOLD_FAILED;
    return count < NOTES_TOLD && strcmp(cursor, "0") == 0 ? TOLD_ALL : TOLD_SOME;
}

static void bury(struct registry *registry, const struct identity *dead)
{
    char life[IDENTITY_TEXT_MAX], cursor[24] = "0";
    struct key notes_room, claim_room, room;
    struct str notes, claim, self = str_from(registry->life);
    struct redis_reply reply;
    enum told told;

    identity_write(dead, life);
    notes = key(registry, "notes:", life, &notes_room);
    claim = key(registry, "claim:", life, &claim_room);
    if (!set(registry, &reply, claim, self, CLAIM_TTL, true) || !get(registry, &reply, claim) ||
        !str_equal(reply.text, self))
        return; /* another node tells */
    while ((told = tell_notes(registry, notes, cursor)) == TOLD_SOME)
        keep_time(registry); /* the dead must not take the living with them */
    if (told == TOLD_FAILED)
        return; /* the next beat finds it unburied, and the claim ours */
    if (set(registry, &reply, key(registry, "grave:", life, &room), self, GRAVE_TTL, false))
        call(registry, &reply,
             (struct str[]){STR("SREM"), key(registry, "nodes", "", &room), str_from(life), {0}});
}

/* --- jobs ------------------------------------------------------------------------------------ */

static void do_look_up(struct registry *registry, const struct job *job)
{
    struct key room;
    struct redis_reply reply;
    struct registry_event event = {
        .kind = REGISTRY_KNOWN, .ticket = job->ticket, .known = REGISTRY_UNREACHABLE};

    if (call(registry, &reply,
             (struct str[]){STR("HEXISTS"), key(registry, "accounts", "", &room), job->name, {0}}))
        event.known = reply.number ? REGISTRY_YES : REGISTRY_NO;
    post_event(registry, event, job->name);
}

/* Writes the notes at the front of a list in one call; returns the first job that is left. */
static struct job *write_notes(struct registry *registry, struct job *first)
{
    struct str words[REDIS_WORDS_MAX];
    struct key room;
    struct redis_reply reply;
    bool remove = first->text.length == 0;
    size_t count = 2, notes = 0;
    struct job *job = first;

    words[0] = remove ? STR("HDEL") : STR("HSET");
    words[1] = key(registry, "notes:", registry->life, &room);
    for (;
         job && job->kind == JOB_NOTE && (job->text.length == 0) == remove && notes < NOTES_AT_ONCE;
         job = (struct job *)job->mail.next, notes++) {
        words[count++] = job->name;
        if (!remove)
            words[count++] = job->text;
    }
    words[count] = (struct str){0};
    if (!call(registry, &reply, words))
        note_contact(registry, false);
    return job;
}

static void leave(struct registry *registry)
{
    struct key room;
    struct redis_reply reply;

    if (!registry->joined)
        return;
    call(registry, &reply,
         (struct str[]){STR("DEL"), key(registry, "notes:", registry->life, &room), {0}});
    call(registry, &reply,
         (struct str[]){
             STR("SREM"), key(registry, "nodes", "", &room), str_from(registry->life), {0}});
    call(registry, &reply,
         (struct str[]){STR("DEL"), key(registry, "node:", registry->name, &room), {0}});
}

static void do_job(struct registry *registry, const struct job *job)
{
    struct key room;
    struct redis_reply reply;

    switch (job->kind) {
    case JOB_LOOK_UP:
        do_look_up(registry, job);
        break;
    case JOB_FORGET:
        call(registry, &reply,
             (struct str[]){STR("DEL"), key(registry, "notes:", registry->life, &room), {0}});
        break;
    case JOB_BURY:
        bury(registry, &job->dead);
        break;
    case JOB_LEAVE:
        leave(registry);
        registry->stop = true;
        break;
    case JOB_STOP:
        registry->stop = true;
        break;
    case JOB_NOTE:
        break; /* written many at a time */
    }
}

static void free_jobs(struct job *list)
{
    while (list) {
        struct job *next = (struct job *)list->mail.next;

        free(list);
        list = next;
    }
}

static void do_jobs(struct registry *registry)
{
    struct job *list = (struct job *)mailbox_take(&registry->jobs);

    for (struct job *job = list; job;) {
        if (job->kind == JOB_NOTE) {
            job = write_notes(registry, job);
        } else {
            do_job(registry, job);
            job = (struct job *)job->mail.next;
        }
    }
    free_jobs(list);
}

static void *work(void *argument)
{
    struct registry *registry = argument;

    while (!registry->stop) {
        struct pollfd wake = {registry->pipe[0], POLLIN, 0};
        int64_t wait;

        keep_time(registry);
        wait = registry->next_beat - worker_now();
        if (!registry->stop)
            poll(&wake, 1, wait < 0 ? 0 : (int)wait);
        mailbox_drain(registry->pipe[0]);
        do_jobs(registry);
    }
    return NULL;
}

/* --- accounts -------------------------------------------------------------------------------- */

static enum account_outcome find_account(void *state, struct str name, struct buf *record)
{
    struct registry *registry = state;
    struct key room;
    struct redis_reply reply;

    if (!redis_call_again(
            registry->account_redis,
            (struct str[]){STR("HGET"), key(registry, "accounts", "", &room), name, {0}}, &reply))
        return ACCOUNT_UNREACHABLE;
    if (reply.type != REDIS_TEXT)
        return ACCOUNT_DENIED;
    buf_append(record, reply.text);
    return ACCOUNT_DONE;
}

static enum account_outcome add_account(void *state, struct str name, struct str record)
{
    struct registry *registry = state;
    struct key room;
    struct redis_reply reply;
    struct str words[] = {STR("HSETNX"), key(registry, "accounts", "", &room), name, record, {0}};
    struct buf present = {0};
    enum account_outcome outcome = ACCOUNT_EXISTS;

    if (!redis_call_again(registry->account_redis, words, &reply))
        return ACCOUNT_UNREACHABLE;
    if (reply.number)
        return ACCOUNT_DONE;
    /* it may be this very one, from an attempt whose answer was lost: no two records are alike */
    if (find_account(state, name, &present) == ACCOUNT_DONE && str_equal(str_of(&present), record))
        outcome = ACCOUNT_DONE;
    buf_free(&present);
    return outcome;
}

const struct account_store *registry_accounts(struct registry *registry)
{
    return &registry->store;
}

/* --- the loop's side ------------------------------------------------------------------------- */

static bool post_job(struct registry *registry, struct job job, struct str name, struct str text)
{
    struct job *copy = malloc(sizeof *copy + name.length + text.length);

    if (!copy)
        return false;
    *copy = job;
    if (name.length)
        memcpy(copy->bytes, name.at, name.length);
    if (text.length)
        memcpy(copy->bytes + name.length, text.at, text.length);
    copy->name = (struct str){copy->bytes, name.length};
    copy->text = (struct str){copy->bytes + name.length, text.length};
    mailbox_post(&registry->jobs, &copy->mail);
    return true;
}

bool registry_look_up(struct registry *registry, uint64_t ticket, struct str system)
{
    return post_job(registry, (struct job){.kind = JOB_LOOK_UP, .ticket = ticket}, system,
                    (struct str){0});
}

void registry_note(struct registry *registry, struct str name, struct str text)
{
    post_job(registry, (struct job){.kind = JOB_NOTE}, name, text);
}

void registry_forget(struct registry *registry)
{
    post_job(registry, (struct job){.kind = JOB_FORGET}, (struct str){0}, (struct str){0});
}

void registry_bury(struct registry *registry, const struct identity *dead)
{
    post_job(registry, (struct job){.kind = JOB_BURY, .dead = *dead}, (struct str){0},
             (struct str){0});
}

static bool start(struct registry *registry)
{
    registry->has_thread = worker_start(&registry->thread, work, registry);
    return registry->has_thread;
}

static bool prepare(struct registry *registry)
{
    const struct config *config = registry->options.config;
    unsigned char proof[CRYPTO_HASH_SIZE];
    struct buf hex = {.at = registry->key_check,
                      .capacity = sizeof registry->key_check - 1,
                      .limit = sizeof registry->key_check - 1};

    identity_write_name(&registry->self, registry->name);
    snprintf(registry->ttl, sizeof registry->ttl, "%llu", (unsigned long long)config->node_ttl);
    snprintf(registry->key_ttl, sizeof registry->key_ttl, "%llu",
             (unsigned long long)config->node_ttl * 2);
    return crypto_prove(registry->options.keys, STR("wspush nodes of one cluster"), proof) &&
           crypto_hex(&hex, (struct str){(const char *)proof, sizeof proof});
}

struct registry *registry_open(const struct registry_options *options)
{
    struct registry *registry = calloc(1, sizeof *registry);

    if (!registry)
        return NULL;
    registry->options = *options;
    registry->self = options->self;
    registry->store = (struct account_store){registry, find_account, add_account};
    registry->pipe[0] = registry->pipe[1] = -1;
    mailbox_open(&registry->events, options->wake);
    mailbox_open(&registry->jobs, -1);
    registry->redis = redis_new(options->config);
    registry->account_redis = redis_new(options->config);
    if (mailbox_pipe(registry->pipe)) {
        registry->jobs.wake = registry->pipe[1];
        if (registry->redis && registry->account_redis && prepare(registry) && start(registry))
            return registry;
    }
    registry_close(registry, false);
    return NULL;
}

void registry_close(struct registry *registry, bool clean)
{
    struct registry_event *event, *next;

    if (!registry)
        return;
    if (registry->has_thread) {
        struct job stop = {.kind = clean ? JOB_LEAVE : JOB_STOP};

        while (!post_job(registry, stop, (struct str){0}, (struct str){0}))
            poll(NULL, 0, 10);
        pthread_join(registry->thread, NULL);
    }
    free_jobs((struct job *)mailbox_take(&registry->jobs));
    for (event = registry_take(registry); event; event = next) {
        next = (struct registry_event *)event->mail.next;
        free(event);
    }
    mailbox_close(&registry->jobs);
    mailbox_close(&registry->events);
    for (int i = 0; i < 2; i++)
        if (registry->pipe[i] >= 0)
            close(registry->pipe[i]);
    redis_free(registry->redis);
    redis_free(registry->account_redis);
    free(registry);
}

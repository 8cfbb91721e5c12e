/* test_cluster_registry.c - nodes of the test's own and a real Redis, whose port is in REDIS_PORT
 * and whose data are this test's: tests/cluster/registry.sh starts it. */
#include "cluster_registry.h"

#include "cluster_cleanup.h"
#include "cluster_member.h"
#include "test.h"
#include "os.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <unistd.h>

#define LONG 15000 /* a node_ttl with which nothing expires during a test, */
#define SHORT 1500 /* and one with which it does */
#define IN_TIME 20000

/* --- Redis ----------------------------------------------------------------------------------- */

static struct config probe_config;
static struct redis *probe; /* the test's own connection */
static struct redis_reply reply;

/* Runs a command of words with single spaces between them. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
static bool
tell(const char *format, ...)
{
    static char text[600];
    struct str words[REDIS_WORDS_MAX] = {{0}}, rest;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    rest = str_from(text);
    for (size_t i = 0; rest.length; i++)
        words[i] = str_cut(&rest, ' ');
    for (int i = 0; i < 500; i++) {
        if (redis_call_again(probe, words, &reply))
            return true;
        if (reply.type == REDIS_ERROR)
            break;
        poll(NULL, 0, 10);
    }
    printf("%s: %s\n", text, redis_error(probe));
    return false;
}

/* The number that a command answers. */
#define NUMBER(...) (tell(__VA_ARGS__) ? reply.number : -100)

/* --- nodes ----------------------------------------------------------------------------------- */

struct node {
    struct config config;
    struct crypto_keyring keys;
    struct registry *registry;
    int wake[2];
    struct registry_event *next;  /* that have been taken and not looked at */
    struct registry_event *event; /* the last one looked at */
    size_t lists, notes;          /* NODES and WARNING looked at */
    char text[NODE_TEXT_MAX];     /* its id, once it has joined */
};

static void add_key(struct crypto_keyring *keys, int seed)
{
    memset(keys->keys[keys->count++].registry, seed, CRYPTO_HASH_SIZE);
}

static void prepare(struct node *node, uint64_t ttl)
{
    *node = (struct node){.config = {.node_ttl = ttl, .redis_port = probe_config.redis_port}};
    snprintf(node->config.redis_host, sizeof node->config.redis_host, "127.0.0.1");
    snprintf(node->config.redis_prefix, sizeof node->config.redis_prefix, "t:");
    snprintf(node->config.rabbitmq_exchange, sizeof node->config.rabbitmq_exchange, "wspush");
    snprintf(node->config.rabbitmq_vhost, sizeof node->config.rabbitmq_vhost, "/");
    add_key(&node->keys, 1);
}

static void launch(struct node *node, unsigned port)
{
    struct registry_options options = {.config = &node->config, .keys = &node->keys};

    CHECK(os_wake_pipe(node->wake));
    CHECK(node_set_name(&options.self, STR("127.0.0.1"), port));
    options.wake = node->wake[1];
    node->registry = registry_open(&options);
    if (!node->registry)
        abort();
}

/* The next event; NULL if none comes in time. */
static struct registry_event *take(struct node *node, int64_t limit)
{
    struct pollfd wake = {.fd = node->wake[0], .events = POLLIN};
    int64_t end = os_now_ms() + limit;

    free(node->event);
    node->event = NULL;
    while (!node->next && os_now_ms() < end) {
        poll(&wake, 1, 20);
        os_drain(node->wake[0]);
        node->next = registry_take(node->registry);
    }
    node->event = node->next;
    if (node->event) {
        node->next = (struct registry_event *)node->event->mail.next;
        node->lists += node->event->kind == REGISTRY_NODES;
        node->notes += node->event->kind == REGISTRY_WARNING;
    }
    return node->event;
}

/* The next event that is no list of nodes and nothing for the log. */
static struct registry_event *take_other(struct node *node)
{
    int64_t end = os_now_ms() + IN_TIME;
    struct registry_event *event;

    do
        event = take(node, end - os_now_ms());
    while (event && (event->kind == REGISTRY_NODES || event->kind == REGISTRY_WARNING));
    return event;
}

/* Waits for an event of a kind, whatever comes before it. */
static struct registry_event *await(struct node *node, enum registry_event_kind kind)
{
    int64_t end = os_now_ms() + IN_TIME;
    struct registry_event *event;

    do
        event = take(node, end - os_now_ms());
    while (event && event->kind != kind);
    return event;
}

/* Looks at all events that are there; returns how many of a kind. */
static size_t count_events(struct node *node, enum registry_event_kind kind)
{
    struct registry_event *event;
    size_t count = 0;

    while ((event = take(node, 0)))
        count += event->kind == kind;
    return count;
}

/* The node of this text in a list: 1 alive, 0 dead, -1 not there. */
static int listed(const struct registry_event *event, const char *text)
{
    struct node_id id;

    CHECK(node_read(str_from(text), &id));
    for (size_t i = 0; event && i < event->count; i++)
        if (node_equal(&event->nodes[i].id, &id))
            return event->nodes[i].alive;
    return -1;
}

/* Starts a node, and waits until it has joined. */
static void join(struct node *node, unsigned port)
{
    struct registry_event *event;

    launch(node, port);
    event = await(node, REGISTRY_JOINED);
    if (CHECK(event))
        node_write(&event->self, node->text);
}

static void start(struct node *node, uint64_t ttl, unsigned port)
{
    prepare(node, ttl);
    join(node, port);
}

/* Waits for the last of the lists that follow quickly on each other: the next heartbeat is far. */
static void await_rest(struct node *node)
{
    while (node->lists < 4)
        CHECK(await(node, REGISTRY_NODES));
}

static void leave(struct node *node, bool clean)
{
    struct registry_event *next;

    registry_close(node->registry, clean);
    free(node->event);
    node->event = NULL;
    for (; node->next; node->next = next) {
        next = (struct registry_event *)node->next->mail.next;
        free(node->next);
    }
    close(node->wake[0]);
    close(node->wake[1]);
}

static bool text_is(const struct registry_event *event, const char *part)
{
    size_t length = strlen(part);

    for (size_t i = 0; event && i + length <= event->text.length; i++)
        if (memcmp(event->text.at + i, part, length) == 0)
            return true;
    if (event)
        printf("kind %d: %.*s\n", event->kind, (int)event->text.length, event->text.at);
    return false;
}

static enum registry_change write_one(struct node *node, const char *name, const char *text)
{
    static uint64_t id;
    struct registry_event *event;

    CHECK(registry_write(node->registry, ++id, str_from(name), str_from(text)));
    event = await(node, REGISTRY_WRITTEN);
    return CHECK(event && event->count == 1 && event->results[0].id == id)
               ? event->results[0].change
               : REGISTRY_UNKNOWN;
}

/* --- replies that are lost ------------------------------------------------------------------- */

static pthread_mutex_t lose_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t lose;             /* the reply to a transaction of so many commands is lost, */
static bool lose_number;        /* the next number is lost, */
static const struct redis *cut; /* and its connection is broken, until it is used again */

static atomic_bool hold_number; /* a reply that is a number is not read yet */
static atomic_int meddle;       /* before so many transactions another account is written */

bool __wrap_redis_next(struct redis *redis, struct redis_reply *into);
bool __real_redis_next(struct redis *redis, struct redis_reply *into);
bool __wrap_redis_append(struct redis *redis, const struct str *words);
bool __real_redis_append(struct redis *redis, const struct str *words);
bool __wrap_redis_is_connected(const struct redis *redis);
bool __real_redis_is_connected(const struct redis *redis);

bool __wrap_redis_next(struct redis *redis, struct redis_reply *into)
{
    bool good = __real_redis_next(redis, into);

    for (int i = 0; i < 20000 && redis != probe && good && into->type == REDIS_NUMBER &&
                    atomic_load(&hold_number);
         i++)
        poll(NULL, 0, 1);
    pthread_mutex_lock(&lose_lock);
    if (good && ((lose && into->type == REDIS_LIST && into->count == lose) ||
                 (lose_number && into->type == REDIS_NUMBER))) {
        lose_number = false;
        lose = 0;
        cut = redis;
        *into = (struct redis_reply){0};
        good = false;
    }
    pthread_mutex_unlock(&lose_lock);
    return good;
}

bool __wrap_redis_append(struct redis *redis, const struct str *words)
{
    pthread_mutex_lock(&lose_lock);
    if (cut == redis)
        cut = NULL;
    pthread_mutex_unlock(&lose_lock);
    if (redis != probe && str_equal(words[0], STR("MULTI")) && atomic_load(&meddle) > 0) {
        atomic_fetch_sub(&meddle, 1);
        CHECK(tell("HSET t:accounts other %d", atomic_load(&meddle)));
    }
    return __real_redis_append(redis, words);
}

bool __wrap_redis_is_connected(const struct redis *redis)
{
    bool was_cut;

    pthread_mutex_lock(&lose_lock);
    was_cut = cut == redis;
    pthread_mutex_unlock(&lose_lock);
    return !was_cut && __real_redis_is_connected(redis);
}

/* What a node that joins next reads as its incarnation; 0: the time. */
static _Atomic uint64_t next_incarnation;

bool __wrap_store_read_clock(struct redis_reply time, uint64_t *clock);
bool __real_store_read_clock(struct redis_reply time, uint64_t *clock);

bool __wrap_store_read_clock(struct redis_reply time, uint64_t *clock)
{
    bool joins = *clock == 0;
    uint64_t given = joins ? atomic_exchange(&next_incarnation, 0) : 0;

    if (!__real_store_read_clock(time, clock))
        return false;
    *clock = given ? given : *clock;
    return true;
}

static struct node joined; /* see `tests` */

/* --- joining --------------------------------------------------------------------------------- */

static void a_node_joins_and_leaves(void)
{
    struct node a;
    struct registry_stats stats;
    struct registry_event *event;

    start(&a, LONG, 1);
    event = await(&a, REGISTRY_NODES);
    CHECK(event && event->count == 1 && listed(event, a.text) == 1);
    do
        registry_read_stats(a.registry, &stats);
    while (!stats.beat_at && take(&a, IN_TIME));
    CHECK(stats.beat_at > 0 && stats.beat_at <= os_now_ms());
    CHECK(NUMBER("SISMEMBER t:nodes %s", a.text) == 1 && NUMBER("PTTL t:node:127.0.0.1:1") > 0);
    CHECK(write_one(&a, "r", "x") == REGISTRY_CHANGED);
    leave(&a, false);
    CHECK(NUMBER("EXISTS t:nodes t:node:127.0.0.1:1 t:records:%s", a.text) == 3);
    CHECK(tell("FLUSHDB"));

    start(&a, LONG, 1);
    CHECK(write_one(&a, "r", "x") == REGISTRY_CHANGED);
    leave(&a, true);
    CHECK(NUMBER("DBSIZE") == 1 && NUMBER("EXISTS t:key") == 1);
}

/* Nodes that join together know each other long before the next regular heartbeat. */
static void nodes_that_join_together_see_each_other(void)
{
    struct node a, b;
    struct registry_event *event;

    prepare(&a, 6 * IN_TIME);
    prepare(&b, 6 * IN_TIME);
    join(&a, 1);
    event = await(&a, REGISTRY_NODES);
    CHECK(event && event->count == 1);
    join(&b, 2);
    CHECK(listed(await(&b, REGISTRY_NODES), a.text) == 1);
    do
        event = await(&a, REGISTRY_NODES);
    while (event && listed(event, b.text) < 0);
    CHECK(event);
    leave(&a, true);
    leave(&b, true);
}

/* Also if another begins in the same millisecond. */
static void a_living_node_keeps_its_name(void)
{
    struct node a, b;
    struct node_id id;

    prepare(&a, SHORT);
    prepare(&b, SHORT);
    join(&a, 1);
    CHECK(node_read(str_from(a.text), &id));
    atomic_store(&next_incarnation, id.incarnation);
    launch(&b, 1);
    CHECK(text_is(take_other(&b), "a node with the name 127.0.0.1:1 is registered"));
    CHECK(
        text_is(await(&b, REGISTRY_NAME_CONFLICT), "a live node already has the name 127.0.0.1:1"));
    leave(&b, false);
    leave(&a, false); /* as if it were killed */
    start(&b, SHORT, 1);
    leave(&b, true);
}

/* A node whose name another has taken says so, and lets the other be. */
static void a_name_that_was_taken_is_left_alone(void)
{
    CHECK(tell("SET t:node:127.0.0.1:1 77"));
    CHECK(text_is(await(&joined, REGISTRY_WAITING), "another node has taken this one's name"));
    CHECK(write_one(&joined, "r", "x") == REGISTRY_NOT_DONE);
    CHECK(tell("GET t:node:127.0.0.1:1") && str_equal(reply.text, STR("77")));
    CHECK(tell("DEL t:node:127.0.0.1:1"));
    CHECK(await(&joined, REGISTRY_RECONNECTED));
}

/* What a node that would join a cluster with another key, another exchange or another version says;
 * NULL: it joins. */
static void check_refusal(struct node *b, const char *text)
{
    struct registry_event *event;

    launch(b, 2);
    event = take_other(b);
    if (!text)
        CHECK(event && event->kind == REGISTRY_JOINED);
    else
        CHECK(event && event->kind == REGISTRY_WAITING && text_is(event, text));
    CHECK(NUMBER("EXISTS t:node:127.0.0.1:2") == !text);
    leave(b, true);
}

static void nodes_of_another_cluster_do_not_join(void)
{
    struct node a, b;

    start(&a, LONG, 1);
    prepare(&b, LONG);
    check_refusal(&b, NULL);
    prepare(&b, LONG);
    b.keys.count = 0;
    add_key(&b.keys, 2);
    check_refusal(&b, "the running nodes have another crypto_key");
    add_key(&b.keys, 1); /* the old key is one of the ring: it is being changed */
    check_refusal(&b, NULL);
    CHECK(tell("DEL t:key"));
    leave(&a, true);
    prepare(&a, 6 * IN_TIME);
    add_key(&a.keys, 2);
    join(&a, 1);
    await_rest(&a); /* a heartbeat would write the key again */
    prepare(&b, LONG);
    snprintf(b.config.rabbitmq_exchange, sizeof b.config.rabbitmq_exchange, "other");
    check_refusal(&b, "have another [rabbitmq] exchange, vhost or queue_type");
    prepare(&b, LONG);
    snprintf(b.config.rabbitmq_vhost, sizeof b.config.rabbitmq_vhost, "other");
    check_refusal(&b, "have another [rabbitmq] exchange, vhost or queue_type");
    prepare(&b, LONG);
    snprintf(b.config.redis_prefix, sizeof b.config.redis_prefix, "t:u:");
    snprintf(b.config.rabbitmq_exchange, sizeof b.config.rabbitmq_exchange, "other");
    launch(&b, 1); /* another environment: nothing is shared, not even the name */
    CHECK(await(&b, REGISTRY_JOINED));
    CHECK(listed(await(&b, REGISTRY_NODES), a.text) < 0);
    leave(&b, true);
    CHECK(tell("SET t:key 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    prepare(&b, LONG);
    check_refusal(&b, "use a version older than protocol 1");
    CHECK(tell("SET t:key 9"));
    check_refusal(&b, "use a version that this one does not understand");
    leave(&a, true);
}

/* A line is judged whole: no part of one will do, nor one that is changed anywhere. */
static void a_line_is_judged_whole(void)
{
    struct node a;
    struct store store = {0};
    struct cluster_member member;
    char line[200], *copy;
    size_t length;

    prepare(&a, LONG);
    store.config = &a.config;
    add_key(&a.keys, 2);
    CHECK(member_open(&member, &store, &a.keys));
    for (size_t key = 0; key < 2; key++) {
        length = (size_t)snprintf(line, sizeof line, "%d %.64s %.64s", WIRE_VERSION,
                                  member.macs[key].exchange, member.macs[key].key);
        CHECK(!member_check_line(&member, (struct str){line, length}));
        for (size_t i = 0; i < length; i++) {
            copy = exact_bytes((struct str){line, i});
            CHECK(member_check_line(&member, (struct str){copy, i}));
            free(copy);
            line[i] ^= 1;
            CHECK(member_check_line(&member, (struct str){line, length}) || i == 0);
            line[i] ^= 1;
        }
    }
    snprintf(line, sizeof line, "%d %.64s %.64s later words", WIRE_VERSION + 1,
             member.macs[1].exchange, member.macs[1].key);
    CHECK(!member_check_line(&member, str_from(line)));
    snprintf(line, sizeof line, "%d %.64s %.64s", WIRE_VERSION + 2, member.macs[1].exchange,
             member.macs[1].key);
    CHECK(member_check_line(&member, str_from(line)));
    snprintf(line, sizeof line, "%d %.64s %.64s", WIRE_VERSION, member.macs[0].exchange,
             member.macs[1].key);
    CHECK(member_check_line(&member, str_from(line)));
}

static void a_redis_that_may_lose_accounts_is_told_of(void)
{
    struct node a;

    start(&a, LONG, 1);
    CHECK(await(&a, REGISTRY_NODES) && a.notes == 0);
    leave(&a, true);
    CHECK(tell("CONFIG SET maxmemory-policy volatile-lru") && tell("CONFIG SET appendonly no"));
    start(&a, LONG, 1);
    CHECK(text_is(take(&a, IN_TIME), "set its maxmemory-policy to noeviction"));
    CHECK(a.event && a.event->kind == REGISTRY_WARNING);
    CHECK(text_is(take(&a, IN_TIME), "set its appendonly to yes"));
    leave(&a, true);
    CHECK(tell("CONFIG SET maxmemory-policy noeviction"));
    CHECK(redis_call(
        probe, (struct str[]){STR("CONFIG"), STR("SET"), STR("save"), STR("3600 1"), {0}}, &reply));
    start(&a, LONG, 1);
    CHECK(await(&a, REGISTRY_NODES) && a.notes == 0);
    leave(&a, true);
    CHECK(redis_call(probe, (struct str[]){STR("CONFIG"), STR("SET"), STR("save"), STR(""), {0}},
                     &reply));
    CHECK(tell("CONFIG SET appendonly yes"));
}

/* --- look-ups and records -------------------------------------------------------------------- */

static void systems_are_looked_up(void)
{
    struct buf record = {0};
    const struct account_store *accounts = registry_accounts(joined.registry);

    CHECK(accounts->find(accounts->state, STR("a b"), &record) == ACCOUNT_DENIED);
    CHECK(accounts->add(accounts->state, STR("a b"), STR("one")) == ACCOUNT_DONE);
    CHECK(accounts->add(accounts->state, STR("a b"), STR("two")) == ACCOUNT_EXISTS);
    CHECK(accounts->add(accounts->state, STR("a b"), STR("one")) == ACCOUNT_DONE);
    CHECK(accounts->find(accounts->state, STR("a b"), &record) == ACCOUNT_DONE);
    CHECK(str_equal(str_of(&record), STR("one")));
    for (uint64_t i = 0; i < 600; i++)
        CHECK(registry_look_up(joined.registry, i, i % 3 ? STR("a") : STR("a b")));
    for (uint64_t i = 0; i < 600; i++) {
        struct registry_event *event = take_other(&joined);

        if (!CHECK(event && event->kind == REGISTRY_FOUND && event->id == i &&
                   event->found == (i % 3 ? REGISTRY_NO : REGISTRY_YES) &&
                   str_equal(event->text, i % 3 ? STR("a") : STR("a b"))))
            break;
    }
    buf_free(&record);
}

static bool account_is(struct str name, struct str expected)
{
    const struct account_store *accounts = registry_accounts(joined.registry);
    struct buf record = {0};
    enum account_outcome found = accounts->find(accounts->state, name, &record);
    bool same = found == (expected.length ? ACCOUNT_DONE : ACCOUNT_DENIED) &&
                str_equal(str_of(&record), expected);

    buf_free(&record);
    return same;
}

static enum account_outcome replace(const char *old, const char *record)
{
    const struct account_store *accounts = registry_accounts(joined.registry);

    return accounts->replace(accounts->state, STR("a b"), str_from(old), str_from(record));
}

/* A record takes the place of the one it was made of, or of none. */
static void accounts_are_replaced(void)
{
    const struct account_store *accounts = registry_accounts(joined.registry);

    CHECK(replace("one", "two") == ACCOUNT_CHANGED && account_is(STR("a b"), STR("")));
    CHECK(accounts->add(accounts->state, STR("a b"), STR("one")) == ACCOUNT_DONE);
    CHECK(accounts->add(accounts->state, STR("c"), STR("c")) == ACCOUNT_DONE);
    CHECK(replace("two", "three") == ACCOUNT_CHANGED && account_is(STR("a b"), STR("one")));
    CHECK(replace("one", "two") == ACCOUNT_DONE && account_is(STR("a b"), STR("two")));
    CHECK(replace("one", "") == ACCOUNT_CHANGED && account_is(STR("a b"), STR("two")));
    CHECK(replace("two", "") == ACCOUNT_DONE && account_is(STR("a b"), STR("")));
    CHECK(accounts->add(accounts->state, STR("a b"), STR("one")) == ACCOUNT_DONE);
    /* what other nodes do to other accounts delays it, and no more */
    atomic_store(&meddle, 3);
    CHECK(replace("one", "two") == ACCOUNT_DONE && account_is(STR("a b"), STR("two")));
    CHECK(atomic_load(&meddle) == 0);
    atomic_store(&meddle, 1000);
    CHECK(replace("two", "three") == ACCOUNT_CHANGED && account_is(STR("a b"), STR("two")));
    atomic_store(&meddle, 0);
    /* the reply of the transaction is lost: it was done all the same */
    for (int i = 0; i < 2; i++) {
        pthread_mutex_lock(&lose_lock);
        lose = 2; /* replies of the transaction: of the record, and of the list of webhooks */
        pthread_mutex_unlock(&lose_lock);
        CHECK(replace(i ? "three" : "two", i ? "" : "three") == ACCOUNT_DONE);
        CHECK(account_is(STR("a b"), i ? STR("") : STR("three")));
    }
    CHECK(account_is(STR("c"), STR("c")));
    CHECK(tell("DEL t:accounts") && tell("SET t:accounts x"));
    CHECK(replace("one", "two") == ACCOUNT_UNREACHABLE &&
          strstr(accounts->reason(accounts->state), "WRONGTYPE"));
    CHECK(tell("DEL t:accounts"));
}

static void each_operation_has_its_result(void)
{
    struct registry_event *event;
    uint64_t id = 0;

    CHECK(write_one(&joined, "r", "x") == REGISTRY_CHANGED);
    CHECK(write_one(&joined, "r", "y") == REGISTRY_UNCHANGED);
    CHECK(tell("HGET t:records:%s r", joined.text) && str_equal(reply.text, STR("y")));
    CHECK(write_one(&joined, "s", "") == REGISTRY_UNCHANGED);
    CHECK(write_one(&joined, "r", "") == REGISTRY_CHANGED);
    for (uint64_t i = 0; i < 700; i++)
        CHECK(registry_write(joined.registry, i, i % 7 == 6 ? STR("no") : STR("n"),
                             i % 2 ? (struct str){0} : STR("x")));
    while (id < 700 && CHECK((event = await(&joined, REGISTRY_WRITTEN)) != NULL)) {
        CHECK(event->count <= REGISTRY_OPS_MAX);
        for (size_t i = 0; i < event->count; i++, id++)
            CHECK(event->results[i].id == id && event->results[i].change <= REGISTRY_UNCHANGED);
    }
    CHECK(write_one(&joined, "r", "x") == REGISTRY_CHANGED &&
          NUMBER("EXISTS t:records:%s", joined.text) == 1);
    registry_clear(joined.registry);
    CHECK(write_one(&joined, "r", "x") == REGISTRY_CHANGED &&
          NUMBER("HLEN t:records:%s", joined.text) == 1);
}

/* A flood of operations: the node's key never expires, and a look-up does not wait for its end. */
static void a_flood_does_not_delay_the_heartbeat(void)
{
    char name[24];
    size_t written = 0, missing = 0, before = 0, total = 60000;
    struct registry_event *event;

    for (size_t i = 0; i < total; i++) {
        snprintf(name, sizeof name, "record %zu", i % 500);
        CHECK(registry_write(joined.registry, i, str_from(name), i % 2 ? STR("") : STR("text")));
    }
    CHECK(registry_look_up(joined.registry, 7, STR("shop")));
    while (written < total && (event = take(&joined, IN_TIME))) {
        if (event->kind == REGISTRY_FOUND)
            before = total - written;
        if (event->kind != REGISTRY_WRITTEN)
            continue;
        written += event->count;
        for (size_t i = 0; i < event->count; i++)
            CHECK(event->results[i].change <= REGISTRY_UNCHANGED);
        missing += NUMBER("EXISTS t:node:127.0.0.1:1") != 1;
    }
    CHECK(written == total && missing == 0 && before > total / 2);
}

/* --- out of touch ---------------------------------------------------------------------------- */

/* Redis is a replica now, as after a failover: everything says so, and goes on when it is none. */
static void a_replica_is_told_of(void)
{
    struct registry_event *event;
    const struct account_store *accounts = registry_accounts(joined.registry);

    CHECK(tell("REPLICAOF 127.0.0.1 1"));
    CHECK(accounts->add(accounts->state, STR("a"), STR("one")) == ACCOUNT_UNREACHABLE);
    CHECK(strcmp(accounts->reason(accounts->state),
                 "Redis says: READONLY You can't write against a read only replica") == 0);
    CHECK(
        text_is(await(&joined, REGISTRY_WAITING), "READONLY You can't write against a read only"));
    CHECK(write_one(&joined, "r", "x") == REGISTRY_NOT_DONE);
    CHECK(tell("CONFIG SET replica-serve-stale-data no"));
    CHECK(text_is(await(&joined, REGISTRY_WAITING), "MASTERDOWN Link with MASTER is down"));
    CHECK(registry_look_up(joined.registry, 1, STR("a")));
    event = await(&joined, REGISTRY_FOUND);
    CHECK(event && event->found == REGISTRY_UNREACHABLE && event->reason.length > 40 &&
          memcmp(event->reason.at, "Redis says: MASTERDOWN ", 23) == 0);
    CHECK(tell("CONFIG SET replica-serve-stale-data yes") && tell("REPLICAOF NO ONE"));
    CHECK(await(&joined, REGISTRY_RECONNECTED));
    CHECK(write_one(&joined, "r", "x") == REGISTRY_CHANGED);
    CHECK(accounts->add(accounts->state, STR("a"), STR("one")) == ACCOUNT_DONE);
}

static void a_connection_that_breaks_is_made_again(void)
{
    struct registry_event *event;

    CHECK(write_one(&joined, "r", "x") == REGISTRY_CHANGED);
    pthread_mutex_lock(&lose_lock);
    lose_number = true;
    pthread_mutex_unlock(&lose_lock);
    CHECK(registry_write(joined.registry, 1000, STR("s"), STR("x")));
    event = await(&joined, REGISTRY_WRITTEN);
    CHECK(event && event->results[0].change == REGISTRY_UNKNOWN);
    CHECK(await(&joined, REGISTRY_RECONNECTED));
    CHECK(write_one(&joined, "u", "x") == REGISTRY_CHANGED);
}

/* Redis closes connections that are idle (its `timeout`, or an operator): no work fails for that,
 * and nobody is warned. */
static void an_idle_connection_is_replaced(void)
{
    struct registry_event *event;

    await_rest(&joined);
    CHECK(tell("CLIENT KILL TYPE normal SKIPME yes"));
    CHECK(registry_write(joined.registry, 1000, STR("s"), STR("x")));
    event = take_other(&joined);
    CHECK(event && event->kind == REGISTRY_RECONNECTED); /* it may be another Redis */
    event = take_other(&joined);
    CHECK(event && event->kind == REGISTRY_WRITTEN && event->results[0].change == REGISTRY_CHANGED);
}

/* What Redis has forgotten is made again, and the loop is told. */
static void a_redis_that_forgets_is_told_of(void)
{
    CHECK(tell("FLUSHDB") && await(&joined, REGISTRY_RECONNECTED));
    CHECK(NUMBER("SISMEMBER t:nodes %s", joined.text) == 1);
    CHECK(NUMBER("EXISTS t:node:127.0.0.1:1 t:key") == 2);
}

/* A Redis that is silent: operations are answered, and closing does not wait for it. */
static void a_silent_redis_holds_nobody_up(void)
{
    struct node a;
    int64_t begun;
    enum registry_change change;

    start(&a, SHORT, 1);
    begun = os_now_ms();
    CHECK(tell("CLIENT PAUSE 30000 ALL"));
    CHECK(text_is(await(&a, REGISTRY_WAITING), "it does not answer in time"));
    change = write_one(&a, "r", "x");
    CHECK(change == REGISTRY_NOT_DONE);
    leave(&a, true);
    CHECK(os_now_ms() - begun < 29000);
}

/* --- cleanups --------------------------------------------------------------------------------- */

#define DEAD "127.0.0.1:9/123"

static struct node_id dead_id(void)
{
    struct node_id id;

    CHECK(node_read(STR(DEAD), &id));
    return id;
}

/* A node that has died and left so many records. */
static void make_dead(size_t records)
{
    CHECK(tell("SADD t:nodes " DEAD));
    for (size_t i = 0; i < records; i++)
        CHECK(tell("HSET t:records:" DEAD " name%zu text%zu", i, i));
}

/* Notes which records an event tells of. */
static void note_removed(const struct registry_event *event, unsigned char *told, size_t records)
{
    CHECK(event->count <= CLEANUP_RECORDS_MAX);
    for (size_t i = 0; i < event->count; i++) {
        uint64_t number = records;
        struct str text = event->records[i];

        if (CHECK(text.length > 4 && memcmp(text.at, "text", 4) == 0 &&
                  str_number((struct str){text.at + 4, text.length - 4}, records - 1, &number)))
            told[number]++;
    }
}

/* Cleans up with two nodes at once, which tell their loops' time and again; each record is told
 * once.
 */
static void two_clean_up(size_t records, size_t lost, size_t *removals)
{
    struct node nodes[2];
    struct node_id dead = dead_id();
    unsigned char *told = calloc(records + 1, 1);
    bool over = false;

    make_dead(records);
    for (unsigned i = 0; i < 2; i++) {
        start(&nodes[i], LONG, i + 1);
        CHECK(listed(await(&nodes[i], REGISTRY_NODES), DEAD) == 0);
    }
    pthread_mutex_lock(&lose_lock);
    lose = lost;
    pthread_mutex_unlock(&lose_lock);
    for (size_t round = 0; round < 4000 && !over; round++) {
        struct node *node = &nodes[round % 2];
        struct registry_event *event;

        registry_clean_up(node->registry, &dead);
        while ((event = take(node, 5))) {
            if (event->kind != REGISTRY_REMOVED)
                continue;
            CHECK(node_equal(&event->self, &dead));
            over |= event->count == 0;
            (*removals)++;
            note_removed(event, told, records);
            registry_continue(node->registry, &dead);
        }
    }
    CHECK(over);
    for (size_t i = 0; i < records; i++)
        if (!CHECK(told[i] == 1))
            break;
    CHECK(NUMBER("SISMEMBER t:nodes " DEAD) == 0 && NUMBER("EXISTS t:lease:" DEAD) == 0);
    CHECK(NUMBER("EXISTS t:records:" DEAD) == 0);
    CHECK(NUMBER("EXISTS t:tombstone:" DEAD) == 1);
    free(told);
    for (int i = 0; i < 2; i++)
        leave(&nodes[i], true);
}

static void each_record_is_removed_once(void)
{
    static const size_t counts[] = {0, 1, 99, 100, 101, 1234};
    size_t removals;

    for (size_t i = 0; i < COUNT(counts); i++) {
        removals = 0;
        two_clean_up(counts[i], 0, &removals);
        CHECK(removals > counts[i] / CLEANUP_RECORDS_MAX);
        CHECK(tell("FLUSHDB"));
    }
}

/* The reply to a transaction is lost: what it has removed is told all the same. */
static void a_lost_reply_loses_no_record(void)
{
    size_t removals = 0;

    two_clean_up(100, 102, &removals);
    CHECK(removals == 2 && lose == 0);
}

static uint64_t redis_clock(void)
{
    uint64_t clock = 0;

    CHECK(tell("TIME") && store_read_clock(reply, &clock));
    return clock;
}

/* A time is told that no clock of the dead node has reached, and that all clocks of the next node
 * of its name have passed. */
static void an_end_lies_between_two_lives(void)
{
    struct node a, b;
    struct node_id dead = dead_id();
    const struct registry_event *event;
    uint64_t end, before;

    make_dead(0);
    start(&a, LONG, 1);
    before = redis_clock();
    registry_clean_up(a.registry, &dead);
    event = await(&a, REGISTRY_REMOVED);
    end = event ? event->id : 0;
    CHECK(event && event->count == 0 && end + 1 >= before && end < redis_clock());
    prepare(&b, LONG);
    launch(&b, 9);
    event = await(&b, REGISTRY_JOINED);
    CHECK(event && event->clock > end && event->clock >= event->self.incarnation);
    leave(&b, false);
    make_dead(0);
    CHECK(tell("SET t:node:127.0.0.1:9 456"));
    registry_clean_up(a.registry, &dead);
    event = await(&a, REGISTRY_REMOVED);
    CHECK(event && event->id == 455);
    leave(&a, true);
}

/* The reply to the last transaction is lost: the end is told, though nobody cleans up again. */
static void a_lost_reply_loses_no_end(void)
{
    struct node a;
    struct node_id dead = dead_id();
    const struct registry_event *event;

    make_dead(0);
    start(&a, LONG, 1);
    await_rest(&a);
    pthread_mutex_lock(&lose_lock);
    lose = 4;
    pthread_mutex_unlock(&lose_lock);
    registry_clean_up(a.registry, &dead);
    event = await(&a, REGISTRY_REMOVED);
    CHECK(event && event->count == 0 && lose == 0 && NUMBER("SISMEMBER t:nodes " DEAD) == 0);
    leave(&a, true);
}

/* Cleans up time and again, as a loop does; the first REMOVED, or NULL. */
static struct registry_event *clean_up_until_removed(struct node *node, const struct node_id *dead)
{
    for (int64_t end = os_now_ms() + IN_TIME; os_now_ms() < end;) {
        struct registry_event *event;

        registry_clean_up(node->registry, dead);
        while ((event = take(node, 20)))
            if (event->kind == REGISTRY_REMOVED)
                return event;
    }
    return NULL;
}

/* A node that comes back keeps the records that were not removed; the lease is given up. */
static void a_node_that_comes_back_is_not_cleaned_up(void)
{
    struct node a;
    struct node_id dead = dead_id();
    struct registry_event *event;
    int64_t left;

    make_dead(250);
    start(&a, LONG, 1);
    registry_clean_up(a.registry, &dead);
    event = await(&a, REGISTRY_REMOVED);
    CHECK(event && event->count == 100);
    CHECK(NUMBER("EXISTS t:lease:" DEAD) == 1 && NUMBER("EXISTS t:tombstone:" DEAD) == 1);
    CHECK(tell("SET t:node:127.0.0.1:9 123"));
    left = NUMBER("HLEN t:records:" DEAD);
    CHECK(left == 150);
    registry_continue(a.registry, &dead);
    for (int i = 0; i < 1000 && NUMBER("EXISTS t:lease:" DEAD); i++)
        poll(NULL, 0, 5);
    CHECK(NUMBER("EXISTS t:lease:" DEAD) == 0 && NUMBER("HLEN t:records:" DEAD) == left);
    CHECK(NUMBER("SISMEMBER t:nodes " DEAD) == 1);
    registry_clean_up(a.registry, &dead); /* it is alive: nothing happens */
    CHECK(write_one(&a, "r", "x") == REGISTRY_CHANGED);
    CHECK(count_events(&a, REGISTRY_REMOVED) == 0);
    CHECK(tell("SET t:node:127.0.0.1:9 124")); /* another incarnation: it is dead */
    event = clean_up_until_removed(&a, &dead);
    CHECK(event && event->count == 100);
    leave(&a, true);
}

/* The lease of another node is respected while it lives, and no longer. */
static void a_lease_ends_with_its_holder(void)
{
    struct node a;
    struct node_id dead = dead_id();
    struct registry_event *event;

    make_dead(1);
    CHECK(tell("SET t:lease:" DEAD " other"));
    start(&a, LONG, 1);
    for (int i = 0; i < 30; i++) {
        registry_clean_up(a.registry, &dead);
        CHECK(write_one(&a, "r", "x") <= REGISTRY_UNCHANGED);
    }
    CHECK(count_events(&a, REGISTRY_REMOVED) == 0 && NUMBER("HLEN t:records:" DEAD) == 1);
    CHECK(tell("GET t:lease:" DEAD) && str_equal(reply.text, STR("other")));
    CHECK(tell("PEXPIRE t:lease:" DEAD " 50"));
    event = clean_up_until_removed(&a, &dead);
    CHECK(event && event->count == 1);
    leave(&a, true);
}

/* Until all has been told the lease is renewed; a lease that is lost is not taken back. */
static void a_lease_is_held_while_the_loop_tells(void)
{
    struct node a;
    struct node_id dead = dead_id();

    make_dead(150);
    start(&a, SHORT, 1);
    registry_clean_up(a.registry, &dead);
    CHECK(await(&a, REGISTRY_REMOVED));
    for (int64_t begun = os_now_ms(); os_now_ms() - begun < 2 * SHORT;) {
        CHECK(NUMBER("EXISTS t:lease:" DEAD) == 1);
        poll(NULL, 0, 50);
    }
    CHECK(tell("SET t:lease:" DEAD " other"));
    registry_continue(a.registry, &dead);
    CHECK(write_one(&a, "r", "x") == REGISTRY_CHANGED &&
          write_one(&a, "s", "x") == REGISTRY_CHANGED);
    CHECK(count_events(&a, REGISTRY_REMOVED) == 0 && NUMBER("HLEN t:records:" DEAD) == 50);
    CHECK(tell("GET t:lease:" DEAD) && str_equal(reply.text, STR("other")));
    leave(&a, true);
}

/* --- taken for dead -------------------------------------------------------------------------- */

/* A node that finds its tombstone waits for the end of its cleanup; until then it writes nothing.
 */
static void a_node_that_was_cleaned_up_waits_and_is_revived(void)
{
    struct registry_event *event;

    CHECK(tell("SET t:lease:%s other", joined.text) &&
          tell("SET t:tombstone:%s other", joined.text));
    for (int i = 0; i < 1000 && write_one(&joined, "r", "x") != REGISTRY_NOT_DONE; i++)
        poll(NULL, 0, 10);
    CHECK(write_one(&joined, "r", "") == REGISTRY_NOT_DONE);
    CHECK(await(&joined, REGISTRY_NODES)); /* it goes on living */
    CHECK(NUMBER("EXISTS t:tombstone:%s", joined.text) == 1);
    CHECK(tell("DEL t:lease:%s", joined.text));
    event = take_other(&joined);
    CHECK(event && event->kind == REGISTRY_REVIVED);
    CHECK(NUMBER("EXISTS t:tombstone:%s", joined.text) == 0);
    CHECK(write_one(&joined, "s", "x") == REGISTRY_CHANGED);
}

/* Records that a node writes when it may have been cleaned up are told of behind that. */
static void results_wait_for_the_truth(void)
{
    struct node a;
    struct registry_event *event;

    for (int cleaned_up = 0; cleaned_up < 2; cleaned_up++) {
        start(&a, LONG, 1);
        await_rest(&a);
        CHECK(tell("DEL t:node:127.0.0.1:1"));
        if (cleaned_up)
            CHECK(tell("SET t:tombstone:%s other", a.text));
        CHECK(registry_write(a.registry, 5, STR("r"), STR("x")));
        event = take_other(&a);
        CHECK(event && event->kind == (cleaned_up ? REGISTRY_REVIVED : REGISTRY_RECONNECTED));
        event = take_other(&a);
        CHECK(event && event->kind == REGISTRY_WRITTEN && event->count == 1 &&
              event->results[0].change == REGISTRY_CHANGED);
        leave(&a, true);
        CHECK(tell("FLUSHDB"));
    }
}

/* So are those whose replies it read late: it stood still, and was cleaned up meanwhile. */
static void results_read_late_wait_for_the_truth(void)
{
    struct registry_event *event;

    atomic_store(&hold_number, true);
    CHECK(registry_write(joined.registry, 5, STR("r"), STR("x")));
    for (int i = 0; i < 20000 && NUMBER("HLEN t:records:%s", joined.text) != 1; i++)
        poll(NULL, 0, 1);
    CHECK(tell("SET t:tombstone:%s other", joined.text));
    poll(NULL, 0, SHORT);
    atomic_store(&hold_number, false);
    event = take_other(&joined);
    CHECK(event && event->kind == REGISTRY_REVIVED);
    event = take_other(&joined);
    CHECK(event && event->kind == REGISTRY_WRITTEN && event->count == 1 &&
          event->results[0].change == REGISTRY_CHANGED);
}

/* The heartbeat that made the node's key again had its reply lost: the tombstone is still found. */
static void a_tombstone_is_found_by_a_later_heartbeat(void)
{
    CHECK(tell("SET t:tombstone:%s other",
               joined.text)); /* its key and place on the list are there */
    CHECK(await(&joined, REGISTRY_REVIVED));
}

/* Each test begins with an empty Redis, and with a node `joined` if it has a TTL. */
static const struct test tests[] = {
    TEST(a_node_joins_and_leaves, 0),
    TEST(nodes_that_join_together_see_each_other, 0),
    TEST(a_living_node_keeps_its_name, 0),
    TEST(a_name_that_was_taken_is_left_alone, SHORT),
    TEST(nodes_of_another_cluster_do_not_join, 0),
    TEST(a_line_is_judged_whole, 0),
    TEST(a_redis_that_may_lose_accounts_is_told_of, 0),
    TEST(systems_are_looked_up, LONG),
    TEST(accounts_are_replaced, LONG),
    TEST(each_operation_has_its_result, LONG),
    TEST(a_flood_does_not_delay_the_heartbeat, 3000),
    TEST(a_replica_is_told_of, SHORT),
    TEST(a_connection_that_breaks_is_made_again, LONG),
    TEST(an_idle_connection_is_replaced, LONG),
    TEST(a_redis_that_forgets_is_told_of, SHORT),
    TEST(each_record_is_removed_once, 0),
    TEST(a_lost_reply_loses_no_record, 0),
    TEST(an_end_lies_between_two_lives, 0),
    TEST(a_lost_reply_loses_no_end, 0),
    TEST(a_node_that_comes_back_is_not_cleaned_up, 0),
    TEST(a_lease_ends_with_its_holder, 0),
    TEST(a_lease_is_held_while_the_loop_tells, 0),
    TEST(a_node_that_was_cleaned_up_waits_and_is_revived, SHORT),
    TEST(results_wait_for_the_truth, 0),
    TEST(results_read_late_wait_for_the_truth, SHORT),
    TEST(a_tombstone_is_found_by_a_later_heartbeat, SHORT),
    TEST(a_silent_redis_holds_nobody_up, 0),
};

static void begin(int ttl)
{
    if (!tell("FLUSHDB"))
        abort();
    if (ttl)
        start(&joined, (uint64_t)ttl, 1);
}

static void finish(int ttl)
{
    if (ttl)
        leave(&joined, true);
}

int main(void)
{
    const char *port = getenv("REDIS_PORT");

    if (!port)
        abort();
    signal(SIGPIPE, SIG_IGN);
    snprintf(probe_config.redis_host, sizeof probe_config.redis_host, "127.0.0.1");
    probe_config.redis_port = strtoul(port, NULL, 10);
    probe = redis_new(&probe_config);
    test_run_all(tests, COUNT(tests), begin, finish);
    redis_free(probe);
    return test_finish();
}

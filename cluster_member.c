/* cluster_member.c - joining and the heartbeat.
 *
 * Joining: the incarnation is Redis's time. The key "key" says whether the running nodes are of
 * this cluster. The node's key is set with NX. If another incarnation has it, its TTL tells whether
 * that one lives: a live node refreshes it, so it grows.
 *
 * Heartbeat: WATCH and GET the node's key, and leave it alone if it names another incarnation; in
 * one transaction refresh it, the key "key" and the set of nodes, and look for the tombstone; then
 * list the nodes. A heartbeat is due every node_ttl / 3. Three early ones follow joining, since
 * nodes that join together list each other before they are listed.
 *
 * Tombstone: another node has removed records of this one. Every heartbeat looks for it, not only
 * one that found the node's key gone: that reply may have been lost. REVIVED is posted once the
 * lease is gone: by then its holder has published all leaves.
 *
 * Threads: the registry's. */
#include "cluster_member.h"

#include "os.h"

#include <stdio.h>
#include <stdlib.h>

#define JOIN_PAUSE 250 /* milliseconds between two attempts to join, or to reconnect */
#define NODES_AT_ONCE 64
#define LEASE_POLL 75 /* milliseconds between two looks at the lease of another node's cleanup */
#define EARLY_BEATS 3 /* after joining: 100, 200 and 400 ms apart */
#define ENDS_KEPT 86400000 /* milliseconds for which the ends of nodes are kept */

/* --- joining --------------------------------------------------------------------------------- */

/* Takes the incarnation from Redis's clock, which is the same for all nodes. */
static bool member_read_clock(struct cluster_member *member)
{
    struct store *store = member->store;
    struct redis_reply reply;

    if (store->self.incarnation)
        return true; /* from an earlier attempt */
    if (!store_call(store, &reply, (struct str[]){STR("TIME"), {0}}) ||
        !store_read_clock(reply, &store->self.incarnation))
        return false;
    node_write(&store->self, store->text);
    snprintf(member->incarnation, sizeof member->incarnation, "%llu",
             (unsigned long long)store->self.incarnation);
    return true;
}

/* Bytes for this node's line in the key "key". */
struct member_line {
    char at[2 * MEMBER_MAC_TEXT + 24];
};

static struct str member_write_line(const struct cluster_member *member, struct member_line *line)
{
    const struct member_macs *proof = member->macs;
    int length = snprintf(line->at, sizeof line->at, "%d %.*s %.*s", WIRE_VERSION,
                          (int)MEMBER_MAC_TEXT, proof->exchange, (int)MEMBER_MAC_TEXT, proof->key);

    return (struct str){line->at, (size_t)length};
}

const char *member_check_line(const struct cluster_member *member, struct str line)
{
    struct str rest = line, number = str_cut(&rest, ' '), exchange = str_cut(&rest, ' ');
    struct str key = str_cut(&rest, ' ');
    uint64_t version = 0;

    if (number.length == MEMBER_MAC_TEXT)
        return "the running nodes use a version older than protocol 1, which this one "
               "cannot join: stop all of them, then start this one";
    if (!str_number(number, UINT32_MAX, &version) || version + 1 < WIRE_VERSION ||
        version > WIRE_VERSION + 1)
        return "the running nodes use a version that this one does not understand: "
               "replace nodes by those of the next version, one version after the other";
    for (size_t i = 0; i < member->mac_count; i++) {
        const struct member_macs *proof = &member->macs[i];

        if (crypto_equal(key, (struct str){proof->key, MEMBER_MAC_TEXT}))
            return crypto_equal(exchange, (struct str){proof->exchange, MEMBER_MAC_TEXT})
                       ? NULL
                       : "the running nodes have another [rabbitmq] exchange, vhost or queue_type: "
                         "set the same on every node and restart this one";
    }
    return "the running nodes have another crypto_key: set the same [common] crypto_key "
           "on every node and restart this one";
}

/* True if the running nodes are of this cluster. */
static bool member_check_key(struct cluster_member *member)
{
    struct store *store = member->store;
    struct member_line line;
    struct store_key room;
    struct redis_reply reply;
    const char *problem;
    bool made;

    if (!store_set_once(store, &reply, store_name(store, "key", "", &room),
                        member_write_line(member, &line), member->key_ttl, &made))
        return false;
    problem = reply.type == REDIS_TEXT ? member_check_line(member, reply.text) : NULL;
    return !problem || store_wait(store, problem);
}

/* A node of this name is registered. If it lives it refreshes its key: a name conflict. If it does
 * not, it was this node before a crash: returns true. */
static bool member_wait_for_other(struct cluster_member *member, struct str name)
{
    struct store *store = member->store;
    struct redis_reply reply;
    int64_t now = os_now_ms(), ttl = (int64_t)store->config->node_ttl;
    char text[120 + NODE_NAME_MAX];

    if (!store_call(store, &reply, (struct str[]){STR("PTTL"), name, {0}}))
        return false;
    if (member->other_since && reply.number > member->other_ttl) {
        snprintf(text, sizeof text,
                 "a live node already has the name %s: give this one another [cluster] "
                 "advertise or rpc_port, or stop that one",
                 store->self.name);
        store_post(store, REGISTRY_NAME_CONFLICT, str_from(text));
        member->name_conflict = true;
        return false;
    }
    if (!member->other_since)
        member->other_since = now;
    member->other_ttl = reply.number;
    if (now - member->other_since > ttl / 3 * 2)
        return true;
    snprintf(text, sizeof text,
             "a node with the name %s is registered: waiting to see whether it lives, or was this "
             "one before it was killed",
             store->self.name);
    return store_wait(store, text);
}

/* Takes the name, if no node has it. `*other`: one has. False if that is not known. */
static bool member_take_name(struct cluster_member *member, struct str name, bool *other)
{
    struct store *store = member->store;
    struct str incarnation = str_from(member->incarnation);
    struct redis_reply reply;
    bool tried = member->tried, made, equal;

    member->tried = true;
    if (!store_set_once(store, &reply, name, incarnation, member->ttl, &made))
        return false;
    member->tried = false;
    equal = str_equal(reply.text, incarnation);
    *other = !made && !(tried && equal);
    if (*other && equal)
        store->self.incarnation = 0; /* it began in the same millisecond: begin in another */
    return true;
}

static bool member_register(struct cluster_member *member)
{
    struct store *store = member->store;
    struct store_key node_room, room;
    struct str node = store_name(store, "node:", store->self.name, &node_room);
    struct redis_reply reply;
    bool other;

    if (!member_read_clock(member) || !member_check_key(member) ||
        !member_take_name(member, node, &other))
        return false;
    if (other && (!member_wait_for_other(member, node) || !store->self.incarnation ||
                  !store_send_set(store, node, str_from(member->incarnation), member->ttl, false) ||
                  !store_next(store, &reply)))
        return false;
    return store_send_two(store, STR("SADD"), store_name(store, "nodes", "", &room),
                          str_from(store->text)) &&
           store_send(store, (struct str[]){STR("TIME"), {0}}) && store_skip(store, 2, &reply) &&
           store_read_clock(reply, &store->clock);
}

/* The value of the line NAME:VALUE of INFO. */
static struct str member_info_value(struct str info, struct str name)
{
    while (info.length) {
        struct str value = str_cut(&info, '\n');

        if (str_equal(str_cut(&value, ':'), name))
            return str_cut(&value, '\r');
    }
    return (struct str){0};
}

/* Warns if Redis may lose accounts, as far as can be seen: INFO and CONFIG may be forbidden. */
static void member_check_durability(struct store *store)
{
    struct redis *redis = store->redis;
    struct redis_reply reply;
    struct str policy;
    bool no_file;

    if (!redis_append(redis, (struct str[]){STR("INFO"), STR("memory"), {0}}) ||
        !redis_append(redis, (struct str[]){STR("INFO"), STR("persistence"), {0}}) ||
        !redis_append(redis, (struct str[]){STR("CONFIG"), STR("GET"), STR("save"), {0}}))
        return;
    redis_next(redis, &reply);
    policy = member_info_value(reply.text, STR("maxmemory_policy"));
    if (policy.length && !str_equal(policy, STR("noeviction")))
        store_post(store, REGISTRY_WARNING,
                   STR("Redis drops keys when its memory is full: accounts and nodes may be lost; "
                       "set its maxmemory-policy to noeviction"));
    redis_next(redis, &reply);
    no_file = str_equal(member_info_value(reply.text, STR("aof_enabled")), STR("0"));
    redis_next(redis, &reply);
    if (no_file && reply.type == REDIS_LIST && reply.count == 2 &&
        redis_element(&reply, 1).text.length == 0)
        store_post(store, REGISTRY_WARNING,
                   STR("Redis writes nothing to its disk: when it stops, all accounts are lost; "
                       "set its appendonly to yes"));
}

/* Tells the ends of the last day again: who has told one may have died before it was heard. */
static bool member_post_ends(struct store *store)
{
    struct store_key room;
    struct str ends = store_name(store, "ends", "", &room);
    struct redis_reply reply;
    struct buf old = {0};
    struct str rest, text;
    bool good = true;

    if (!store_send_one(store, STR("SMEMBERS"), ends) || !store_next(store, &reply))
        return false;
    for (size_t i = 0; i < reply.count; i++) {
        struct registry_event *event = store_new_event(REGISTRY_REMOVED, 0);

        text = redis_element(&reply, i).text;
        if (event && node_read(text, &event->self) &&
            event->self.incarnation + ENDS_KEPT > store->clock) {
            event->id = event->self.incarnation;
            mailbox_post(store->events, &event->mail);
            continue;
        }
        free(event);
        buf_append(&old, text);
        buf_append(&old, STR("\n"));
    }
    for (rest = str_of(&old); good && (text = str_cut(&rest, '\n')).length;)
        good = store_send_two(store, STR("SREM"), ends, text) && store_next(store, &reply);
    buf_free(&old);
    return good;
}

static void member_join(struct cluster_member *member)
{
    if (member_register(member) && member_post_ends(member->store)) {
        member->joined = true;
        store_on_connect(member->store, REGISTRY_JOINED);
        member_check_durability(member->store);
    }
}

/* --- the heartbeat --------------------------------------------------------------------------- */

/* Sets `alive` of up to NODES_AT_ONCE nodes: the node's key must name the same incarnation. */
static bool member_read_alive(struct store *store, struct registry_node *nodes, size_t count)
{
    struct str words[NODES_AT_ONCE + 2] = {STR("MGET")};
    struct store_key rooms[NODES_AT_ONCE];
    struct redis_reply reply;

    for (size_t i = 0; i < count; i++)
        words[1 + i] = store_name(store, "node:", nodes[i].id.name, &rooms[i]);
    if (!store_call(store, &reply, words) || reply.count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t incarnation = 0;

        nodes[i].alive = str_number(redis_element(&reply, i).text, UINT64_MAX, &incarnation) &&
                         incarnation == nodes[i].id.incarnation;
    }
    return true;
}

static bool member_list_nodes(struct store *store)
{
    struct store_key room;
    struct redis_reply reply;
    struct registry_event *event;
    struct registry_node *nodes;
    size_t count = 0;

    if (!store_send_one(store, STR("SMEMBERS"), store_name(store, "nodes", "", &room)) ||
        !store_next(store, &reply))
        return false;
    event = store_new_event(REGISTRY_NODES, (reply.count + 1) * sizeof *nodes);
    if (!event)
        return true; /* perhaps the next heartbeat has memory */
    nodes = (struct registry_node *)(event + 1);
    for (size_t i = 0; i < reply.count; i++)
        count += node_read(redis_element(&reply, i).text, &nodes[count].id);
    for (size_t i = 0; i < count; i += NODES_AT_ONCE)
        if (!member_read_alive(store, nodes + i,
                               count - i < NODES_AT_ONCE ? count - i : NODES_AT_ONCE)) {
            free(event);
            return false;
        }
    event->clock = store->clock;
    event->nodes = nodes;
    event->count = count;
    mailbox_post(store->events, &event->mail);
    return true;
}

/* Appends the transaction of a heartbeat; member_refresh reads its five replies. */
static bool member_send_refresh(struct cluster_member *member, struct str node)
{
    struct store *store = member->store;
    struct store_key room[3];
    struct member_line line;

    return store_send(store, (struct str[]){STR("MULTI"), {0}}) &&
           store_send_set(store, node, str_from(member->incarnation), member->ttl, false) &&
           store_send_set(store, store_name(store, "key", "", &room[0]),
                          member_write_line(member, &line), member->key_ttl, false) &&
           store_send_two(store, STR("SADD"), store_name(store, "nodes", "", &room[1]),
                          str_from(store->text)) &&
           store_send_one(store, STR("EXISTS"),
                          store_name(store, "tombstone:", store->text, &room[2])) &&
           store_send(store, (struct str[]){STR("TIME"), {0}}) &&
           store_send(store, (struct str[]){STR("EXEC"), {0}});
}

/* Refreshes the node's key, unless it is another node's. `gone`: Redis had lost it. */
static bool member_refresh(struct cluster_member *member, bool *gone)
{
    static const char taken[] = "another node has taken this one's name: give each its own "
                                "[cluster] advertise and rpc_port";
    struct store *store = member->store;
    struct store_key room;
    struct str node = store_name(store, "node:", store->self.name, &room);
    struct redis_reply reply;

    if (!store_send_one(store, STR("WATCH"), node) || !store_send_one(store, STR("GET"), node) ||
        !store_skip(store, 2, &reply))
        return false;
    *gone = reply.type == REDIS_NIL;
    if (!*gone && !str_equal(reply.text, str_from(member->incarnation)))
        return store_wait(store, taken);
    if (!member_send_refresh(member, node) || !store_skip(store, 7, &reply))
        return false;
    if (reply.type != REDIS_LIST || reply.count != 5)
        return store_wait(store, taken); /* between GET and EXEC */
    if (redis_element(&reply, 2).type != REDIS_NUMBER)
        return store_wait(store, "the key of the nodes in Redis is none of wspush's: set another "
                                 "[redis] prefix");
    *gone |= redis_element(&reply, 2).number > 0;
    member->cleaned_up |= redis_element(&reply, 3).number > 0;
    store_read_clock(redis_element(&reply, 4), &store->clock);
    return true;
}

/* This node was presumed dead. It is back once the cleanup's lease is gone. */
static bool member_revive(struct cluster_member *member)
{
    struct store *store = member->store;
    struct store_key room;
    struct redis_reply reply;

    if (!store_send_one(store, STR("EXISTS"), store_name(store, "lease:", store->text, &room)) ||
        !store_next(store, &reply))
        return false;
    if (reply.number)
        return true;
    if (!store_send_one(store, STR("DEL"), store_name(store, "tombstone:", store->text, &room)) ||
        !store_next(store, &reply))
        return false;
    member->cleaned_up = false;
    store_on_connect(store, REGISTRY_REVIVED);
    return true;
}

/* One heartbeat: refreshes this node, and lists all nodes. */
static bool member_beat(struct cluster_member *member)
{
    struct store *store = member->store;
    bool gone = false;
    int64_t begun = os_now_ms();

    if (!member_refresh(member, &gone))
        return false;
    member->beat_at = begun;
    /* before the list of nodes: for some time after a reconnect its deaths are not believed */
    if (member->cleaned_up) {
        if (!member_revive(member))
            return false;
    } else if (!store->in_touch || gone || store->renewed) {
        store_on_connect(store, REGISTRY_RECONNECTED);
    }
    store->renewed = false;
    return member_list_nodes(store);
}

/* Milliseconds until the next heartbeat. */
static int64_t member_pause(struct cluster_member *member, bool good)
{
    int64_t most = (int64_t)member->store->config->node_ttl / 3, pause = most;

    if (!good)
        pause = JOIN_PAUSE;
    else if (member->cleaned_up)
        pause = LEASE_POLL;
    else if (member->early_beats < EARLY_BEATS)
        pause = (int64_t)100 << member->early_beats++;
    return pause < most ? pause : most;
}

void member_step(struct cluster_member *member)
{
    struct store *store = member->store;
    bool good;

    if (member->joined && store->in_touch && redis_renew(store->redis))
        store->renewed = store->beat_now = true;
    if (os_now_ms() < member->next_beat && !store->beat_now)
        return;
    store->beat_now = false;
    if (!member->joined)
        member_join(member);
    good = member->joined && member_beat(member);
    store->beat_now = false; /* what has just failed is tried again after the pause */
    member->next_beat = os_now_ms() + member_pause(member, good);
}

bool member_is_alive(const struct cluster_member *member)
{
    return member->joined && member->store->in_touch && !member->cleaned_up &&
           os_now_ms() < member->next_beat && !member->store->beat_now;
}

/* --- open and leave -------------------------------------------------------------------------- */

static bool member_write_mac(const struct crypto_keys *keys, struct str text,
                             char digits[MEMBER_MAC_TEXT])
{
    unsigned char proof[CRYPTO_HASH_SIZE];
    struct buf hex = {.at = digits, .capacity = MEMBER_MAC_TEXT, .limit = MEMBER_MAC_TEXT};

    return crypto_hmac(keys->registry, text, proof) &&
           buf_append_hex(&hex, (struct str){(const char *)proof, sizeof proof});
}

bool member_open(struct cluster_member *member, struct store *store,
                 const struct crypto_keyring *keys)
{
    const struct config *config = store->config;
    char room[sizeof config->rabbitmq_exchange + sizeof config->rabbitmq_vhost + 32];
    int length = snprintf(room, sizeof room, "wspush exchange %s%c%s%s", config->rabbitmq_exchange,
                          '\0', config->rabbitmq_vhost,
                          config->rabbitmq_queue_type == QUEUE_QUORUM ? "\nquorum" : "");

    *member = (struct cluster_member){.store = store};
    snprintf(member->ttl, sizeof member->ttl, "%llu", (unsigned long long)config->node_ttl);
    snprintf(member->key_ttl, sizeof member->key_ttl, "%llu",
             (unsigned long long)config->node_ttl * 2);
    for (; member->mac_count < keys->count; member->mac_count++) {
        const struct crypto_keys *key = &keys->keys[member->mac_count];
        struct member_macs *proof = &member->macs[member->mac_count];

        if (!member_write_mac(key, (struct str){room, (size_t)length}, proof->exchange) ||
            !member_write_mac(key, STR("wspush nodes of one cluster"), proof->key))
            return false;
    }
    return true;
}

void member_leave(struct cluster_member *member)
{
    struct store *store = member->store;
    struct store_key room[4];
    struct str node = store_name(store, "node:", store->self.name, &room[0]);
    struct redis_reply reply;

    if (!member->joined || !store_call(store, &reply, (struct str[]){STR("GET"), node, {0}}))
        return;
    if (!str_equal(reply.text, str_from(member->incarnation)))
        node = (struct str){0}; /* another node's */
    if (store_send(store, (struct str[]){STR("DEL"),
                                         store_name(store, "records:", store->text, &room[1]),
                                         store_name(store, "tombstone:", store->text, &room[2]),
                                         node,
                                         {0}}) &&
        store_send_two(store, STR("SREM"), store_name(store, "nodes", "", &room[3]),
                       str_from(store->text)))
        store_skip(store, 2, &reply);
}

/* cluster_adopt.c - a client whose session is on another node moves to this one.
 *
 * Data: each adoption is a PENDING_ADOPT in cluster->requests, which gives it an id, a deadline,
 * the reply of A that is missing and the slots that it keeps bound; routing ends it like any
 * request when A is gone or silent. struct adoption is what only this module needs.
 *
 * Flow on B: ASKING --ADOPTED--> BINDING --all slots bound, ADOPT published--> MOVING. Then ADOPT's
 * echo and ADOPTED come in either order. The echo makes a client that is held: in its channels,
 * away, not announced. ADOPTED brings A's frames, which go in front of those held. If A's client
 * has changed since it was described, A refuses with the new description, and B binds again: the
 * next attempt, of which messages of the one before are no part.
 *
 * Flow on A: what it is asked is done at once. It refuses what comes later than B waits, so that B
 * never gives up a client that A then gives away: B waits half as long again for the answer.
 *
 * Threads: only the loop's. */
#include "cluster_adopt.h"

#include "cluster_farewell.h"
#include "hub_resume.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

#define ADOPT_VERSION 2        /* of the nodes that know these messages */
#define ADOPT_ATTEMPT_SHIFT 48 /* the id of a message: the request's, and which attempt it is */

enum adopt_phase { ADOPT_ASKING, ADOPT_BINDING, ADOPT_MOVING };

struct adoption {
    struct adoption *next, *previous; /* all of this node */
    enum adopt_phase phase;
    struct buf text; /* of `about`: what A has said of the client */
    struct ticket_claims about;
    uint64_t state;
    uint64_t attempt; /* from 0 */

    bool echoed;                 /* ADOPT has come back: from here on */
    uint64_t number;             /* the client of this number is held, */
    struct order_senders firsts; /* and these are the first seqs that came */

    bool replied; /* A has let go: */
    uint64_t sent, count;
    struct buf frames, numbers;
};

/* --- this node gives a client away ------------------------------------------------------------ */

/* Describes a client in a message; `groups` has its groups, as JSON. False without memory. */
static bool adopt_describe(const struct client *client, struct buf *groups, struct cluster_msg *msg)
{
    uint32_t first = channel_first_group(client);
    unsigned char hash[CRYPTO_HASH_SIZE] = {0};
    struct buf all = {0};
    bool good;

    buf_append(groups, STR("["));
    for (uint32_t i = first; i < client->subscription_count; i++) {
        buf_append(groups, i > first ? STR(",") : STR(""));
        json_append_quoted(groups, channel_name(client->subscriptions[i].channel));
    }
    buf_append(groups, STR("]"));
    msg->command.user = channel_user(client);
    msg->command.extend = channel_extend(client);
    msg->command.has_extend = true;
    msg->command.groups = str_of(groups);
    msg->at = channel_end(client);
    msg->is_signed = client->has_ticket;
    buf_append(&all, msg->command.groups);
    json_append_quoted(&all, msg->command.user);
    json_append_quoted(&all, msg->command.extend);
    buf_append_number(&all, msg->at);
    good = !groups->failed && !all.failed && crypto_sha256(str_of(&all), hash);
    msg->state = bytes_get_be(hash, 8) >> 1;
    buf_free(&all);
    return good;
}

/* The client of a session, if this node has it and may give it away, and the bytes of its key;
 * `is_away`: it must be. Else the reply says why not. */
static struct client *adopt_find(struct cluster *cluster, const struct cluster_msg *msg,
                                 bool is_away, struct buf *groups, struct cluster_msg *reply,
                                 uint64_t *key)
{
    const char *reason = state_publishing_reason(cluster);
    struct client *client = hub_resume_find(cluster->hub, msg->key, key);

    if (!client || (is_away && client->conn) ||
        !str_equal(channel_name(client->subscriptions[0].channel), msg->command.system))
        state_fail(&reply->result, RESULT_OFFLINE, "no such session");
    else if (reason)
        state_fail(&reply->result, RESULT_UNREACHABLE, reason);
    else if (!adopt_describe(client, groups, reply))
        state_fail(&reply->result, RESULT_UNREACHABLE, "out of memory");
    return reply->result.code == RESULT_SUCCESS ? client : NULL;
}

/* B asks whose session it is. The client is away from here on: it has another connection. */
static void adopt_take_ask(struct cluster *cluster, struct peer *peer,
                           const struct cluster_msg *msg)
{
    struct cluster_msg reply = {
        .kind = MSG_ADOPTED, .id = msg->id, .command = {.kind = COMMAND_CLIENT_INFO}};
    struct buf groups = {0};
    uint64_t key;
    struct client *client = adopt_find(cluster, msg, false, &groups, &reply, &key);

    if (client)
        hub_resume_detach(cluster->hub, client);
    state_send(cluster, peer, &reply);
    buf_free(&groups);
}

/* Writes the frames that the client lacks as JSON strings. If they are not all here, or too much,
 * there are none: the client has a gap. */
static void adopt_write_frames(const struct resume *resume, uint64_t key, uint64_t received,
                               struct cluster_msg *reply)
{
    struct resume_answer answer = resume_judge(resume, key, received);
    struct buf list = {0};
    size_t bytes = 0;

    reply->messages = answer.sent;
    if (!answer.recovered)
        return;
    for (uint32_t i = resume->kept - (uint32_t)answer.count; i < resume->kept; i++) {
        struct str frame = ws_payload(resume_frame(resume, i));

        bytes += frame.length;
        buf_append(&list, list.length ? STR(",") : STR(""));
        json_append_quoted(&list, frame);
    }
    if (list.failed || bytes > ADOPT_BYTES_MAX) {
        buf_free(&list);
        return;
    }
    reply->result.count = answer.count;
    reply->result.list = list;
}

/* B's request to let a client go has come, in its place in the order. What the other node cannot
 * be told is not done. */
static void adopt_let_go(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg)
{
    struct cluster_msg reply = {
        .kind = MSG_ADOPTED, .id = msg->id, .command = {.kind = COMMAND_CLIENT_INFO}};
    struct buf groups = {0}, numbers = {0};
    uint64_t key;
    struct client *client = adopt_find(cluster, msg, true, &groups, &reply, &key);

    if (order_age(&peer->clock, msg->at, cluster->now) >= state_timeout(cluster)) {
        state_fail(&reply.result, RESULT_UNREACHABLE, "the request came too late");
        cluster->counters.late++;
    } else if (client && reply.state != msg->state) {
        state_fail(&reply.result, RESULT_LIMIT, "the client has changed");
    } else if (client &&
               !order_write(&cluster->sender_seqs, wire_partition(msg->command.system), &numbers)) {
        state_fail(&reply.result, RESULT_UNREACHABLE, "out of memory");
    } else if (client) {
        reply.numbers = str_of(&numbers);
        adopt_write_frames(channel_resume(client), key, msg->messages, &reply);
    }
    if (state_send(cluster, peer, &reply) && client && reply.result.code == RESULT_SUCCESS) {
        farewell_add(cluster, peer, msg->id, client);
        hub_resume_forget(cluster->hub, client, true);
    }
    buf_free(&reply.result.list);
    buf_free(&groups);
    buf_free(&numbers);
}

/* --- this node adopts ------------------------------------------------------------------------- */

/* Ends the client that is held, which nobody knows of. */
static void adopt_drop_held(struct cluster *cluster, struct adoption *adoption)
{
    struct client *client =
        adoption->number ? channel_find_client(&cluster->hub->channels, adoption->number) : NULL;

    if (client)
        hub_resume_forget(cluster->hub, client, false);
    cluster->holding -= adoption->echoed;
    adoption->number = 0;
    adoption->echoed = false;
    order_free(&adoption->firsts);
}

static void adopt_free(struct cluster *cluster, struct adoption *adoption)
{
    if (adoption->previous)
        adoption->previous->next = adoption->next;
    else
        cluster->adoptions = adoption->next;
    if (adoption->next)
        adoption->next->previous = adoption->previous;
    cluster->holding -= adoption->echoed;
    order_free(&adoption->firsts);
    buf_free(&adoption->text);
    buf_free(&adoption->frames);
    buf_free(&adoption->numbers);
    free(adoption);
}

/* The adoption whose present attempt a message is part of, or NULL. */
static struct pending *adopt_find_pending(const struct cluster *cluster, uint64_t id)
{
    uint64_t attempt = id >> ADOPT_ATTEMPT_SHIFT;
    struct pending *pending = pending_find(&cluster->pendings, id ^ attempt << ADOPT_ATTEMPT_SHIFT);

    return pending && pending->adoption && pending->adoption->attempt == attempt ? pending : NULL;
}

/* The id of the messages of its present attempt. */
static uint64_t adopt_id(const struct pending *pending)
{
    return pending->id | pending->adoption->attempt << ADOPT_ATTEMPT_SHIFT;
}

static void adopt_fail(struct cluster *cluster, struct pending *pending, enum result_code code,
                       struct str error)
{
    pending_set_error(pending, code, error);
    state_finish(cluster, pending);
}

/* What A has said of the client: its channels' slots are bound next. False without memory. */
static bool adopt_learn(struct cluster *cluster, struct pending *pending,
                        const struct cluster_msg *msg)
{
    struct adoption *adoption = pending->adoption;
    struct ticket_claims about = {.system = pending->claims.system,
                                  .user = msg->command.user,
                                  .extend = msg->command.extend,
                                  .groups = msg->command.groups,
                                  .end = msg->at,
                                  .is_signed = msg->is_signed,
                                  .resume = CLAIMS_RESUME};
    size_t count = pending->slot_count + 2 + ticket_count_groups(about.groups);
    char room[TICKET_NAME_MAX];
    struct str rest = about.groups, name = {0};
    uint16_t *slots = pending->slots == pending->room ? NULL : pending->slots;

    buf_free(&adoption->text);
    slots = ticket_copy_claims(&about, &adoption->text, &adoption->about)
                ? realloc(slots, count * sizeof *slots)
                : NULL;
    if (!slots)
        return false;
    if (pending->slots == pending->room)
        memcpy(slots, pending->room, pending->slot_count * sizeof *slots);
    pending->slots = slots;
    adoption->state = msg->state;
    adoption->phase = ADOPT_BINDING;
    pending_prolong(&cluster->requests, pending, cluster->now + state_timeout(cluster));
    state_need_slot(cluster, pending, wire_slot(WIRE_SYSTEM, about.system, name));
    if (about.user.length)
        state_need_slot(cluster, pending, wire_slot(WIRE_USER, about.system, about.user));
    while (ticket_next_group(&rest, room, &name))
        state_need_slot(cluster, pending, wire_slot(WIRE_GROUP, about.system, name));
    return true;
}

/* All slots are bound: publishes the request to let go. */
static void adopt_move(struct cluster *cluster, struct pending *pending)
{
    struct adoption *adoption = pending->adoption;
    const struct node_id *node = &pending->replies[0].node;
    char to[NODE_TEXT_MAX];
    struct cluster_msg msg = {
        .kind = MSG_ADOPT,
        .id = adopt_id(pending),
        .at = cluster->now,
        .to = {to, node_write(node, to)},
        .command = {.kind = COMMAND_CLIENT_INFO, .system = pending->claims.system},
        .key = pending->claims.key,
        .messages = pending->claims.received < INT64_MAX ? pending->claims.received
                                                         : INT64_MAX, /* more than it was sent */
        .state = adoption->state};
    const char *reason = state_publishing_reason(cluster);

    if (!reason && !state_publish(cluster, &msg, LANE_SEND, 0, node))
        reason = "too much is waiting for RabbitMQ already";
    if (reason) {
        adopt_fail(cluster, pending, RESULT_UNREACHABLE, str_from(reason));
        return;
    }
    adoption->phase = ADOPT_MOVING;
    pending_prolong(&cluster->requests, pending, cluster->now + state_timeout(cluster) * 3 / 2);
}

void adopt_take_bound(struct cluster *cluster, struct pending *pending)
{
    if (state_await_slots(cluster, pending))
        adopt_move(cluster, pending);
}

/* Takes the references of the frames that are held, `*count` of them. NULL without memory. */
static struct rcbuf **adopt_take_held(struct resumes *resumes, struct resume *resume,
                                      uint32_t *count)
{
    struct rcbuf **held = malloc((resume->kept + 1) * sizeof *held);

    *count = held ? resume->kept : 0;
    for (uint32_t i = 0; i < *count; i++) {
        held[i] = resume_frame(resume, i);
        held[i]->references++;
    }
    resume_ack(resumes, resume, resume->sent);
    return held;
}

/* Puts A's frames into the ring, which is empty. False if they are not all there. */
static bool adopt_add_frames(struct resumes *resumes, struct resume *resume,
                             const struct adoption *adoption)
{
    struct str list = str_of(&adoption->frames);
    struct json_value value;
    struct buf text = {0};
    bool good = !adoption->frames.failed;

    resume->sent = 0;
    while (good && json_next_element(&list, &value)) {
        struct rcbuf *frame = NULL;

        text.length = 0;
        if (json_decode_string(value, &text))
            frame = ws_frame(WS_TEXT, str_of(&text));
        good = frame && resume_add(resumes, resume, frame);
        rcbuf_release(frame);
    }
    buf_free(&text);
    return good && resume->sent == adoption->count;
}

/* Joins A's frames and those that are held, in this order; the counting goes on where A's was. */
static void adopt_join_frames(struct cluster *cluster, struct adoption *adoption, uint64_t received,
                              struct client *client)
{
    struct resumes *resumes = &cluster->hub->channels.resumes;
    struct resume *resume = channel_resume(client);
    uint64_t sent = adoption->sent + resume->sent;
    uint32_t count;
    struct rcbuf **held = adopt_take_held(resumes, resume, &count);
    bool good = held && !adoption->numbers.failed &&
                order_merge(&cluster->sender_seqs, &adoption->firsts,
                            wire_partition(adoption->about.system), str_of(&adoption->numbers)) &&
                adoption->sent - received == adoption->count &&
                adopt_add_frames(resumes, resume, adoption);

    for (uint32_t i = 0; i < count; i++) {
        good = good && resume_add(resumes, resume, held[i]);
        rcbuf_release(held[i]);
    }
    if (!good)
        resume_lose(resumes, resume, RESUME_GAP_MOVED);
    resume->sent = sent;
    free(held);
}

/* The client may not learn its new key: the one that it came with stays good on this node. */
static void adopt_keep_key(struct cluster *cluster, struct str key, const struct client *client)
{
    struct resume *resume = channel_resume(client);
    char room[RESUME_KEY_MAX];

    if (!resume_read_key(key, &(struct buf)BUF_INIT(room), &resume->key_before))
        return;
    resume->has_key_before = true;
    cluster->moved[cluster->moved_next++ % STATE_MOVED_MAX] =
        (struct state_moved){resume->key_before, client->number};
}

/* Both the echo and A's answer are there. */
static void adopt_complete(struct cluster *cluster, struct pending *pending)
{
    struct adoption *adoption = pending->adoption;
    struct client *client = channel_find_client(&cluster->hub->channels, adoption->number);

    if (!client) {
        adopt_fail(cluster, pending, RESULT_OFFLINE, STR("the client was ended meanwhile"));
        return;
    }
    adopt_join_frames(cluster, adoption, pending->claims.received, client);
    adopt_keep_key(cluster, pending->claims.key, client);
    pending->result.matched = adoption->number;
    adoption->number = 0; /* it is the session's now */
    state_finish(cluster, pending);
}

/* The echo of the request to let go: makes the client that is held. */
static void adopt_take_echo(struct cluster *cluster, const struct cluster_msg *msg)
{
    struct pending *pending = adopt_find_pending(cluster, msg->id);
    struct adoption *adoption = pending ? pending->adoption : NULL;
    struct client *client;

    if (!adoption || adoption->phase != ADOPT_MOVING || adoption->echoed)
        return;
    client = hub_resume_hold(cluster->hub, &adoption->about);
    if (!client) {
        adopt_fail(cluster, pending, RESULT_OFFLINE, STR("out of memory"));
        return;
    }
    adoption->number = client->number;
    adoption->echoed = true;
    cluster->holding++;
    if (adoption->replied)
        adopt_complete(cluster, pending);
}

void adopt_note(struct cluster *cluster, const struct wire_batch *batch)
{
    for (struct adoption *adoption = cluster->adoptions; cluster->holding && adoption;
         adoption = adoption->next)
        if (adoption->echoed && wire_partition(adoption->about.system) == batch->partition)
            order_note(&adoption->firsts, &batch->origin, batch->lane, batch->partition,
                       batch->first_seq);
}

/* A describes the client, or refuses. */
static void adopt_take_description(struct cluster *cluster, struct pending *pending,
                                   const struct cluster_msg *msg)
{
    const struct ticket_claims *claims = &pending->claims;

    if (msg->result.code != RESULT_SUCCESS && msg->result.code != RESULT_LIMIT)
        adopt_fail(cluster, pending, msg->result.code, msg->error);
    else if (claims->is_signed && (!msg->is_signed || !str_equal(claims->user, msg->command.user)))
        adopt_fail(cluster, pending, RESULT_OFFLINE, STR("the ticket is of another user"));
    else if (!adopt_learn(cluster, pending, msg))
        adopt_fail(cluster, pending, RESULT_OFFLINE, STR("out of memory"));
    else
        adopt_take_bound(cluster, pending);
}

/* A has let the client go; or it has changed, and all begins again with what it is now. */
static void adopt_take_client(struct cluster *cluster, struct pending *pending,
                              const struct cluster_msg *msg)
{
    struct adoption *adoption = pending->adoption;

    if (msg->result.code != RESULT_SUCCESS) {
        adoption->attempt++;
        adopt_drop_held(cluster, adoption);
        adopt_take_description(cluster, pending, msg);
        return;
    }
    adoption->replied = true;
    adoption->sent = msg->messages;
    adoption->count = msg->result.count;
    buf_append(&adoption->numbers, msg->numbers);
    buf_append(&adoption->frames, STR("["));
    buf_append(&adoption->frames, msg->list);
    buf_append(&adoption->frames, STR("]"));
    if (adoption->echoed)
        adopt_complete(cluster, pending);
}

void adopt_take_message(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg)
{
    struct pending *pending;

    if (msg->kind == MSG_ADOPT)
        adopt_take_ask(cluster, peer, msg);
    else if (msg->kind == MSG_MOVED)
        farewell_take_moved(cluster, peer, msg->id);
    if (msg->kind != MSG_ADOPTED)
        return;
    pending = adopt_find_pending(cluster, msg->id);
    if (!pending || !pending_expected(pending, &peer->id))
        return; /* given up already */
    if (pending->adoption->phase == ADOPT_ASKING)
        adopt_take_description(cluster, pending, msg);
    else if (pending->adoption->phase == ADOPT_MOVING)
        adopt_take_client(cluster, pending, msg);
}

void adopt_take_publication(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg)
{
    struct peer *peer = links_find(cluster->links, &batch->origin);

    if (node_equal(&batch->origin, &cluster->self))
        adopt_take_echo(cluster, msg);
    else if (str_equal(msg->to, str_from(cluster->text)) && peer && peer->link)
        adopt_let_go(cluster, peer, msg);
}

/* --- beginning and end ------------------------------------------------------------------------ */

/* The node that a key names, if it can be asked. */
static struct peer *adopt_find_owner(const struct cluster *cluster, struct str key)
{
    char room[RESUME_KEY_MAX + 2];
    struct buf id = BUF_INIT(room);
    struct node_tag owner;
    uint64_t number, secret;
    struct peer *peer = NULL;

    buf_append(&id, STR("\""));
    if (resume_read_key(key, &id, &secret) && buf_append(&id, STR("\"")) &&
        wire_open_client(cluster->keys, (struct json_value){JSON_STRING, str_of(&id)}, &owner,
                         &number))
        peer = links_find_tag(cluster->links, &owner);
    return peer && links_reach(cluster->links, peer) && peer->version >= ADOPT_VERSION ? peer
                                                                                       : NULL;
}

/* The number of a client that came here with this key, and is good for it still; or 0. */
static uint64_t adopt_find_moved(const struct cluster *cluster, const struct ticket_claims *claims)
{
    char room[RESUME_KEY_MAX];
    uint64_t key;

    if (!resume_read_key(claims->key, &(struct buf)BUF_INIT(room), &key))
        return 0;
    for (size_t i = 0; i < STATE_MOVED_MAX; i++) {
        const struct client *client =
            cluster->moved[i].key == key
                ? channel_find_client(&cluster->hub->channels, cluster->moved[i].number)
                : NULL;

        if (client && resume_has_key(channel_resume(client), key) &&
            str_equal(channel_name(client->subscriptions[0].channel), claims->system) &&
            (!claims->is_signed ||
             (client->has_ticket && str_equal(channel_user(client), claims->user))))
            return client->number;
    }
    return 0;
}

/* A new adoption, on the list. NULL without memory. */
static struct adoption *adopt_new(struct cluster *cluster)
{
    struct adoption *adoption = calloc(1, sizeof *adoption);

    if (!adoption)
        return NULL;
    adoption->next = cluster->adoptions;
    if (adoption->next)
        adoption->next->previous = adoption;
    cluster->adoptions = adoption;
    return adoption;
}

bool adopt_begin(struct cluster *cluster, const struct ticket_claims *claims, uint64_t request_id,
                 struct result *result)
{
    struct pending_origin origin = {.id = request_id};
    struct command command = {.kind = COMMAND_CLIENT_INFO, .system = claims->system};
    struct cluster_msg msg = {
        .kind = MSG_ADOPT, .at = cluster->now, .command = command, .key = claims->key};
    const char *reason = state_publishing_reason(cluster);
    uint64_t moved = adopt_find_moved(cluster, claims);
    struct peer *peer = adopt_find_owner(cluster, claims->key);
    struct pending *pending;

    if (!moved && (!peer || reason)) {
        state_fail(result, peer ? RESULT_UNREACHABLE : RESULT_OFFLINE,
                   peer ? reason : "the node of the session is gone");
        return false;
    }
    pending = state_begin(cluster, PENDING_ADOPT, &command, false, &origin, result);
    if (!pending)
        return false;
    msg.id = pending->id;
    if (moved && ticket_copy_claims(claims, &pending->text, &pending->claims)) {
        pending->result.matched = moved;
        state_finish(cluster, pending);
        return true;
    }
    pending->adoption = moved ? NULL : adopt_new(cluster);
    if (pending->adoption && pending_expect(pending, &peer->id) &&
        ticket_copy_claims(claims, &pending->text, &pending->claims) &&
        state_send(cluster, peer, &msg))
        return true;
    if (pending->adoption)
        adopt_free(cluster, pending->adoption);
    state_abandon(cluster, pending);
    state_fail(result, RESULT_OFFLINE, "the node of the session cannot be reached");
    return false;
}

/* Tells A that the client is here. */
static void adopt_confirm(struct cluster *cluster, const struct pending *pending)
{
    struct peer *peer = links_find(cluster->links, &pending->replies[0].node);
    struct cluster_msg msg = {.kind = MSG_MOVED, .id = adopt_id(pending)};

    if (peer)
        state_send(cluster, peer, &msg);
}

void adopt_end(struct cluster *cluster, struct pending *pending)
{
    struct adoption *adoption = pending->adoption;
    struct result *result = &pending->result;

    if (!adoption)
        return;
    if (result->code == RESULT_SUCCESS)
        adopt_confirm(cluster, pending);
    if (result->code == RESULT_UNREACHABLE && result->error != pending->error) {
        if (adoption->phase == ADOPT_BINDING)
            result->error = "RabbitMQ did not bind in time";
        else if (!state_publishing_reason(cluster))
            result->code = RESULT_OFFLINE; /* its node is silent or gone */
    }
    adopt_drop_held(cluster, adoption);
    adopt_free(cluster, adoption);
    pending->adoption = NULL;
}

void adopt_close(struct cluster *cluster)
{
    while (cluster->adoptions)
        adopt_free(cluster, cluster->adoptions);
}

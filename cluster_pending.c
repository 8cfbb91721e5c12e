/* cluster_pending.c - requests in flight.
 *
 * Lists: almost every request has the same timeout, so a new one belongs at the end of its list;
 * pending_link walks back over the few with a later deadline. A table finds a request by its id.
 *
 * Replies: a request that was sent to nodes has a struct pending_reply for each. Counts are added
 * as replies come; lists are kept apart and joined at the end, for send_to_clients in the order in
 * which the ids were given. A command for one client has one reply, which is the result.
 *
 * Threads: only the loop's. */
#include "cluster_pending.h"

#include <stdlib.h>
#include <string.h>

/* Puts a request where its deadline belongs. */
static void pending_link(struct pending_list *list, struct pending *pending)
{
    struct pending *before = list->last;

    while (before && before->deadline > pending->deadline)
        before = before->previous;
    pending->previous = before;
    pending->next = before ? before->next : list->first;
    if (before)
        before->next = pending;
    else
        list->first = pending;
    if (pending->next)
        pending->next->previous = pending;
    else
        list->last = pending;
    list->count++;
}

struct pending *pending_new(struct pending_table *table, struct pending_list *list,
                            enum pending_kind kind, int64_t deadline)
{
    struct pending *pending = calloc(1, sizeof *pending);

    if (!pending)
        return NULL;
    pending->kind = kind;
    pending->slots = pending->room;
    pending->deadline = deadline;
    pending->id = ++table->last_id;
    if (!table_add(&table->by_id, (uint32_t)pending->id, pending)) {
        free(pending);
        return NULL;
    }
    pending_link(list, pending);
    return pending;
}

struct pending *pending_find(const struct pending_table *table, uint64_t id)
{
    struct table_cursor cursor = {.hash = (uint32_t)id};
    struct pending *pending;

    while ((pending = table_next(&table->by_id, &cursor)))
        if (pending->id == id)
            return pending;
    return NULL;
}

/* Takes a request out of its list. */
static void pending_cut(struct pending_list *list, struct pending *pending)
{
    if (pending->previous)
        pending->previous->next = pending->next;
    else
        list->first = pending->next;
    if (pending->next)
        pending->next->previous = pending->previous;
    else
        list->last = pending->previous;
    pending->next = pending->previous = NULL;
    list->count--;
}

void pending_prolong(struct pending_list *list, struct pending *pending, int64_t deadline)
{
    pending_cut(list, pending);
    pending->deadline = deadline;
    pending_link(list, pending);
}

void pending_unlink(struct pending_table *table, struct pending_list *list, struct pending *pending)
{
    pending_cut(list, pending);
    table_remove(&table->by_id, (uint32_t)pending->id, pending);
}

void pending_free(struct pending *pending)
{
    for (size_t i = 0; i < pending->reply_count; i++)
        buf_free(&pending->replies[i].list);
    if (pending->slots != pending->room)
        free(pending->slots);
    free(pending->replies);
    free(pending->owners);
    buf_free(&pending->text);
    buf_free(&pending->message_id);
    buf_free(&pending->result.list);
    free(pending);
}

struct pending_reply *pending_expect(struct pending *pending, const struct node_id *node)
{
    struct pending_reply *replies =
        realloc(pending->replies, (pending->reply_count + 1) * sizeof *replies);

    if (!replies)
        return NULL;
    pending->replies = replies;
    replies[pending->reply_count] = (struct pending_reply){.node = *node};
    pending->replies_missing++;
    return &replies[pending->reply_count++];
}

struct pending_reply *pending_expected(const struct pending *pending, const struct node_id *node)
{
    for (size_t i = 0; i < pending->reply_count; i++)
        if (!pending->replies[i].done && node_equal(&pending->replies[i].node, node))
            return &pending->replies[i];
    return NULL;
}

static void pending_close(struct pending *pending, struct pending_reply *reply)
{
    reply->done = true;
    pending->replies_missing--;
}

/* True if the command was for one node, whose reply is the result. */
static bool pending_is_for_one(const struct pending *pending)
{
    switch (pending->command) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_BIND:
    case COMMAND_UNBIND:
    case COMMAND_CLOSE_CLIENT:
    case COMMAND_CLIENT_INFO:
        return true;
    default:
        return false;
    }
}

void pending_set_error(struct pending *pending, enum result_code code, struct str error)
{
    size_t length = error.length < sizeof pending->error ? error.length : sizeof pending->error - 1;

    if (length)
        memcpy(pending->error, error.at, length);
    pending->error[length] = '\0';
    pending->result.code = code;
    pending->result.error = pending->error;
}

void pending_take_reply(struct pending *pending, struct pending_reply *reply,
                        const struct cluster_msg *msg)
{
    struct result *sum = &pending->result;
    const struct result *said = &msg->result;

    pending_close(pending, reply);
    sum->matched += said->matched;
    sum->queued += said->queued;
    sum->held += said->held;
    sum->dropped += said->dropped;
    sum->repeated |= said->repeated;
    sum->count += said->count;
    buf_append(&reply->list, msg->list);
    if (pending_is_for_one(pending) || said->code == RESULT_MALFORMED) {
        pending_set_error(pending, said->code, msg->error);
    } else if (said->code != RESULT_SUCCESS) {
        pending->incomplete = true;
    }
}

void pending_fail(struct pending *pending, const char *error)
{
    pending->result.code = RESULT_UNREACHABLE;
    pending->result.error = error;
}

void pending_give_up(struct pending *pending, struct pending_reply *reply)
{
    pending_close(pending, reply);
    if (pending_is_for_one(pending))
        pending_fail(pending, "the client's node cannot be reached");
    else
        pending->incomplete = true;
}

bool pending_is_done(const struct pending *pending)
{
    return !pending->replies_missing && !pending->echo_missing;
}

/* send_to_clients: the ids that failed, in the order given; each node lists its own in that order.
 */
static void pending_merge_failed(struct pending *pending)
{
    struct buf *out = &pending->result.list;
    struct str *rests = calloc(pending->reply_count, sizeof *rests), given = str_of(&pending->text);
    struct json_value id;

    out->failed |= !rests;
    for (size_t i = 0; rests && i < pending->reply_count; i++)
        rests[i] = str_of(&pending->replies[i].list);
    for (size_t i = 0; rests && i < pending->owner_count && json_next_element(&given, &id); i++) {
        struct str *rest = &rests[pending->owners[i]];
        size_t length = id.text.length;

        /* an id is a JSON string, so what begins with it is the id */
        if (rest->length < length || memcmp(rest->at, id.text.at, length) != 0)
            continue;
        length += rest->length > length; /* the comma */
        *rest = (struct str){rest->at + length, rest->length - length};
        if (out->length)
            buf_append(out, STR(","));
        buf_append(out, id.text);
    }
    free(rests);
}

void pending_merge(struct pending *pending)
{
    struct buf *out = &pending->result.list;

    for (size_t i = 0; i < pending->reply_count; i++)
        out->failed |= pending->replies[i].list.failed;
    if (pending->owners) {
        pending_merge_failed(pending);
        return;
    }
    for (size_t i = 0; i < pending->reply_count; i++) {
        if (out->length && pending->replies[i].list.length)
            buf_append(out, STR(","));
        buf_append(out, str_of(&pending->replies[i].list));
    }
}

bool pending_write_ids(const struct pending *pending, struct str clients, size_t index,
                       struct buf *out)
{
    struct json_value id;

    buf_append(out, STR("["));
    for (size_t i = 0; json_next_element(&clients, &id); i++) {
        if (pending->owners[i] != index)
            continue;
        if (out->length > 1)
            buf_append(out, STR(","));
        buf_append(out, id.text);
    }
    return buf_append(out, STR("]"));
}

void pending_fail_ids(struct pending *pending, size_t index)
{
    struct buf ids = {0};
    struct cluster_msg msg = {.kind = MSG_REPLY};

    if (pending_write_ids(pending, str_of(&pending->text), index, &ids)) {
        msg.list = (struct str){ids.at + 1, ids.length - 2};
        pending_take_reply(pending, &pending->replies[index], &msg);
    } else {
        pending_give_up(pending, &pending->replies[index]);
    }
    buf_free(&ids);
}

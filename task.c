/* task.c - commands under way to other nodes. */
#include "task.h"

#include <stdlib.h>
#include <string.h>

struct task *task_new(struct tasks *tasks, enum task_kind kind, int64_t deadline)
{
    struct task *task = calloc(1, sizeof *task);

    if (!task)
        return NULL;
    task->kind = kind;
    task->deadline = deadline;
    task->id = ++tasks->next_id;
    if (!table_add(&tasks->by_id, (uint32_t)task->id, task)) {
        free(task);
        return NULL;
    }
    if (tasks->last)
        tasks->last->next = task;
    else
        tasks->first = task;
    tasks->last = task;
    return task;
}

struct task *task_find(const struct tasks *tasks, uint64_t id)
{
    struct table_cursor cursor = {.hash = (uint32_t)id};
    struct task *task;

    while ((task = table_next(&tasks->by_id, &cursor)))
        if (task->id == id)
            return task;
    return NULL;
}

struct task_part *task_add_part(struct task *task, const struct identity *node)
{
    struct task_part *parts = realloc(task->parts, (task->part_count + 1) * sizeof *parts);

    if (!parts)
        return NULL;
    task->parts = parts;
    parts[task->part_count] = (struct task_part){.node = *node};
    task->parts_open++;
    return &parts[task->part_count++];
}

struct task_part *task_open_part(const struct task *task, const struct identity *node)
{
    for (size_t i = 0; i < task->part_count; i++)
        if (!task->parts[i].done && identity_same(&task->parts[i].node, node))
            return &task->parts[i];
    return NULL;
}

static void close_part(struct task *task, struct task_part *part)
{
    part->done = true;
    task->parts_open--;
}

/* True if the command was for one node, whose word is the outcome. */
static bool is_for_one(const struct task *task)
{
    switch (task->command) {
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

void task_add_outcome(struct task *task, struct task_part *part, const struct letter *answer)
{
    struct outcome *sum = &task->outcome;
    const struct outcome *said = &answer->outcome;

    close_part(task, part);
    sum->matched += said->matched;
    sum->queued += said->queued;
    sum->dropped += said->dropped;
    sum->count += said->count;
    buf_append(&part->list, answer->list);
    if (is_for_one(task)) {
        size_t length = answer->error.length < sizeof task->error - 1 ? answer->error.length
                                                                      : sizeof task->error - 1;

        if (length)
            memcpy(task->error, answer->error.at, length);
        sum->code = said->code;
        sum->error = task->error;
    } else if (said->code != OUTCOME_SUCCESS) {
        task->incomplete = true;
    }
}

void task_fail(struct task *task, const char *error)
{
    task->outcome.code = OUTCOME_UNREACHABLE;
    task->outcome.error = error;
}

void task_give_up_part(struct task *task, struct task_part *part)
{
    close_part(task, part);
    if (is_for_one(task))
        task_fail(task, "the client's node cannot be reached");
    else
        task->incomplete = true;
}

bool task_is_done(const struct task *task)
{
    return !task->parts_open && !task->to_confirm && !task->to_count;
}

/* send_to_clients: those that failed, in the order in which they were given. Each node has listed
 * its own in that order too. */
static void merge_failed(struct task *task)
{
    struct buf *out = &task->outcome.list;
    struct str *rests = calloc(task->part_count, sizeof *rests), given = str_of(&task->text);
    struct json_value id;

    out->failed |= !rests;
    for (size_t i = 0; rests && i < task->part_count; i++)
        rests[i] = str_of(&task->parts[i].list);
    for (size_t i = 0; rests && i < task->owner_count && json_next_element(&given, &id); i++) {
        struct str *rest = &rests[task->owners[i]];
        size_t length = id.text.length;

        /* a string ends where its quotes say, so what begins with the id is the id */
        if (rest->length < length || memcmp(rest->at, id.text.at, length) != 0)
            continue;
        length += rest->length > length; /* the comma behind it */
        *rest = (struct str){rest->at + length, rest->length - length};
        if (out->length)
            buf_append(out, STR(","));
        buf_append(out, id.text);
    }
    free(rests);
}

void task_merge(struct task *task)
{
    struct buf *out = &task->outcome.list;

    for (size_t i = 0; i < task->part_count; i++)
        out->failed |= task->parts[i].list.failed;
    if (task->owners) {
        merge_failed(task);
        return;
    }
    for (size_t i = 0; i < task->part_count; i++) {
        if (out->length && task->parts[i].list.length)
            buf_append(out, STR(","));
        buf_append(out, str_of(&task->parts[i].list));
    }
}

void task_unlink(struct tasks *tasks, struct task *task)
{
    struct task **at = &tasks->first, *before = NULL;

    while (*at != task) {
        before = *at;
        at = &before->next;
    }
    *at = task->next;
    if (tasks->last == task)
        tasks->last = before;
    task->next = NULL;
    table_remove(&tasks->by_id, (uint32_t)task->id, task);
}

void task_free(struct task *task)
{
    for (size_t i = 0; i < task->part_count; i++)
        buf_free(&task->parts[i].list);
    free(task->parts);
    free(task->owners);
    buf_free(&task->text);
    buf_free(&task->message_id);
    buf_free(&task->note);
    buf_free(&task->outcome.list);
    free(task);
}

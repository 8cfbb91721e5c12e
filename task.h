/* task.h - commands under way to other nodes: who waits for the outcome, what has been collected of
 * it, and who has still to say something. Knows no socket and does nothing itself. */
#ifndef WSPUSH_TASK_H
#define WSPUSH_TASK_H

#include "command.h"
#include "identity.h"
#include "table.h"

/* Another node that has to say something. */
struct task_part {
    struct identity node;
    bool done;
    struct buf list; /* what it said: as in an outcome */
};

enum task_kind {
    TASK_COMMAND, /* parts answer, and a publication may have to be confirmed */
    TASK_BIND,    /* slots have to be bound before the command is applied here */
    TASK_COUNT,   /* another node asks for the count of a publication that has not come yet */
    TASK_HELD,    /* publications have to come before the command is applied here */
    TASK_NOTICE,  /* a notice has to be confirmed before it is noted what it told */
    TASK_ADMIT    /* a system has to be known, and its slot bound, before its client is let in */
};

struct task {
    struct task *next; /* older first: all have the same time */
    enum task_kind kind;
    uint64_t id;
    int64_t deadline;

    /* who waits: a session of this node, or another node */
    bool for_node;
    uint64_t ticket; /* the session's, or the request's number there */
    struct identity asker;

    /* what for */
    struct buf text;       /* BIND, HELD: the letter; COMMAND: clientIds as they were given */
    struct buf message_id; /* JSON */
    struct buf note;       /* NOTICE: what is to be noted under the name in `text` */
    struct str system;     /* ADMIT: a view of `text` */
    enum command_kind command;
    bool receipt;
    struct identity
        origin; /* of the publication: COUNT, HELD, and COMMAND if a receipt is wanted */
    uint64_t number;
    uint64_t own_number; /* HELD: of this node, that has to come as well */
    unsigned order;
    uint16_t slots[2]; /* BIND, ADMIT: that have to be bound, until the task is freed */
    unsigned slot_count;
    bool looking_up; /* ADMIT: whether the system is known is being asked */

    /* how far it has come */
    bool to_confirm; /* the publication is not confirmed yet */
    bool to_count;   /* nor has it arrived here */
    bool incomplete; /* somebody stayed silent */
    struct outcome outcome;
    char error[200];         /* what outcome.error points to, if another node said it */
    struct task_part *parts; /* parts[0] is this node if `owners` is set */
    size_t part_count, parts_open;
    uint32_t *owners; /* send_to_clients: for each id the part it went to */
    size_t owner_count;
};

/* All tasks under way. Zeroed is empty. */
struct tasks {
    struct task *first, *last;
    struct table by_id;
    uint64_t next_id;
};

/* A new task with a number of its own; NULL without memory. */
struct task *task_new(struct tasks *tasks, enum task_kind kind, int64_t deadline);

/* The task of this number, or NULL. */
struct task *task_find(const struct tasks *tasks, uint64_t id);

/* Adds a part that is not done. NULL without memory. */
struct task_part *task_add_part(struct task *task, const struct identity *node);

/* The part of this node that is not done yet, or NULL. */
struct task_part *task_open_part(const struct task *task, const struct identity *node);

/* Adds what a part's node said: counts, and its list for later. The part is done. */
void task_add_outcome(struct task *task, struct task_part *part, const struct letter *answer);

/* A node has not answered, and will not: what is collected is incomplete, or for a command that was
 * for it alone, the outcome is that it cannot be reached. */
void task_give_up_part(struct task *task, struct task_part *part);

/* The outcome becomes that something cannot be reached. `error` is static. */
void task_fail(struct task *task, const char *error);

/* True if nothing is waited for any more. */
bool task_is_done(const struct task *task);

/* Puts the lists of all parts together into the outcome's. */
void task_merge(struct task *task);

/* Takes a task out; it is the caller's now. */
void task_unlink(struct tasks *tasks, struct task *task);

/* Frees a task that is in no list, and all that it has. */
void task_free(struct task *task);

#endif

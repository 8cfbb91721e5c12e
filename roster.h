/* roster.h - who is there, and what is done to all clients of a user: counts at once, pages of
 * clients and groups, and BIND_USER, UNBIND_USER, CLOSE_USER as walks, a bounded slice of them an
 * iteration.
 *
 * A walk visits what it is about in an order that no change of the tables alters: what is there
 * from the first page to the last is in the list exactly once. A page has `limit` entries, fewer
 * if it is the last one or has reached ROSTER_PAGE_MAX. Nothing is kept between two pages.
 * Refuses: positions that no page has given. */
#ifndef WSPUSH_ROSTER_H
#define WSPUSH_ROSTER_H

#include "hub.h"

#define ROSTER_NAME_MAX 128 /* bytes of a group's name, or of a client's id */
#define ROSTER_POSITION_MAX (2 * (4 + ROSTER_NAME_MAX))
#define ROSTER_BAD_POSITION "field after is no position of this list: begin again without it"
#define ROSTER_PAGE_MAX (256 * 1024) /* bytes after which a page ends */

/* A place in the order of clients, by rank and number, or of groups, by rank and name. */
struct roster_place {
    uint32_t rank;
    uint64_t number;
    struct str name;
};

struct roster_walk {
    struct fifo_link link;
    uint64_t id;
    struct command command;     /* a copy of what the walk needs, with views of `text` */
    struct result result;       /* LIST_*: the list ends with the next position, see roster_split */
    int64_t epoch;              /* LIST_CLIENTS: of the webhook when the page began; 0: none, */
    uint64_t seq;               /* and its last event, which the page takes account of */
    struct roster_place at;     /* what comes behind it is still to be visited */
    char last[ROSTER_NAME_MAX]; /* the name of the last entry, */
    size_t last_length;         /* and its length */
    char text[];
};

/* Does what a command says, also those for hub_apply. Returns true if `result` is filled in, false
 * if a walk with this id follows from roster_take. */
bool roster_apply(struct hub *hub, const struct command *command, uint64_t id,
                  struct result *result);

/* Continues the walks: call once an iteration. True if some are not done. */
bool roster_run(struct hub *hub);

/* Takes a walk that is done, which the caller frees with its result; NULL if there is none. */
struct roster_walk *roster_take(struct hub *hub);
void roster_free(struct roster_walk *walk);

/* Frees all walks. */
void roster_close(struct hub *hub);

/* The channel whose clients, or groups, a walk visits; NULL if there is none here. */
struct channel *roster_find_channel(const struct hub *hub, const struct command *command);

/* COUNT_CLIENTS: a cluster adds up numbers, so a hub with hooks gives those, separated by commas.
 * This makes the members "system":n,"groups":{…},"users":{…} of them. */
void roster_name_counts(const struct command *command, struct result *result);

/* Appends a group as LIST_GROUPS tells of it: an object. */
void roster_write_group(struct buf *out, struct str name, uint64_t clients);

/* The place of a group among those of its system. */
struct roster_place roster_place_group(const struct hub *hub, struct str system, struct str name);

/* True if `a` comes before `b`. */
bool roster_is_before(const struct roster_place *a, const struct roster_place *b);

/* Appends the position behind an entry, which has this name or id. */
void roster_write_position(const struct hub *hub, const struct command *command, struct str name,
                           struct buf *out);

/* Ends a list with the position of the next page, a JSON string, which is empty if there are no
 * more entries. */
void roster_write_next(const struct hub *hub, const struct command *command, struct str name,
                       bool more, struct buf *list);

/* Reads command->after into the name, empty if there is no position. False for what
 * roster_write_position has not written for such a command. `name` has room for ROSTER_NAME_MAX. */
bool roster_read_position(const struct hub *hub, const struct command *command, struct buf *name);

/* Cuts the next position, a JSON string, off a list. */
struct str roster_split(struct str *list);

/* Takes what a page of clients says of events off the end of what is left of the list: an object,
 * empty if the system has no webhook. */
struct str roster_split_seen(struct str *list);

#endif

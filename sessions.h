/* sessions.h - the sessions of a loop: by index, in lists, with a timer each. The only place
 * that frees a session.
 * Rejects: nothing but sessions for which there is no memory. */
#ifndef WSPUSH_SESSIONS_H
#define WSPUSH_SESSIONS_H

#include "listener.h"
#include "poller.h"
#include "session.h"
#include "timer.h"

#define SESSIONS_REJECTED_MAX 32 /* sessions beyond a limit that get a response, at a time */
#define SESSIONS_ADMINS_MAX 8    /* sessions of the admin listener, at a time */

/* Indices of sessions. */
struct sessions_list {
    uint32_t *at;
    size_t count;
};

/* The owner sets the first three; the rest is zero. */
struct sessions {
    struct session_context *context;
    struct conn_shared *shared;
    struct pollers *pollers;

    struct session **by_index; /* NULL: free */
    size_t room, used, count;  /* indices, how many of them were ever used, sessions */
    uint32_t generation;
    struct timers timers; /* by index */
    union {
        struct {
            struct sessions_list free;   /* indices that were used before */
            struct sessions_list active; /* sessions that the loop polls itself */
            struct sessions_list held;   /* with unused input, because the budget is used up; oldest
                                            first */
            struct sessions_list dead;   /* to be reaped */
            /* of kinds with few places: a new one evicts the one that has been silent longest */
            struct sessions_list rejected, admins;
        };
        struct sessions_list lists[6]; /* all of these */
    };
};

/* Makes a session of what was accepted, in the list of active ones. NULL without memory: the
 * connection is still the caller's. */
struct session *sessions_add(struct sessions *sessions, const struct listener_connection *accepted);

/* The session with this request id, or NULL: it has gone. */
struct session *sessions_find(const struct sessions *sessions, uint64_t request_id);

/* Call after any work on a session: runs its post-flush hook if nothing waits to be flushed, sets
 * its timer, and queues it for being held or reaped. */
void sessions_update(struct sessions *sessions, struct session *session);

/* Has the loop poll a session, if it does not yet. */
void sessions_activate(struct sessions *sessions, struct session *session);

/* Adds a session to a list, in which it is not. */
void sessions_list_add(struct sessions_list *list, const struct session *session);

/* Ends the session of a list that has been silent longest, so that silent ones keep nobody out. Its
 * place is free in a later iteration. */
void sessions_evict(struct sessions *sessions, const struct sessions_list *list);

/* The session that keeps most input and output; NULL if none keeps any. */
struct session *sessions_largest(const struct sessions *sessions);

/* Call when timeouts or max_per_ip have changed: sets earlier timers, counts addresses again. */
void sessions_refresh(struct sessions *sessions);

/* Closes and frees the dead sessions. One that a poller, a list of dirty connections or the list of
 * held ones still has is skipped: it is updated when it comes from there, and reaped then. */
void sessions_reap(struct sessions *sessions);

/* Closes and frees all sessions. The pollers must be closed before. */
void sessions_close(struct sessions *sessions);

#endif

/* sessions.c - the sessions of a loop.
 *
 * A session has an index, under which `by_index` and the timers know it; freed indices are used
 * again, so work that another thread does carries index and generation (session_request_id), never
 * a pointer. The lists hold indices and all have room for every index, so that adding to them
 * cannot fail: only sessions_add allocates. (While the held ones are served, those held again
 * stand there twice: that list has double room.)
 *
 * Invariants: a session stands in a list at most once, as its flags say (see loop.c). It is freed
 * in sessions_reap alone, and only when no poller, no list of dirty connections and no list of
 * held sessions has it. A dead one that is polled elsewhere has been shut down and so becomes
 * ready. Its descriptor stays open until then: a poller may hold it, and a reused number would
 * alias a new connection. One thread, the loop's. */
#include "sessions.h"

#include <stdlib.h>
#include <string.h>

void sessions_list_add(struct sessions_list *list, const struct session *session)
{
    list->at[list->count++] = session->index;
}

static void sessions_list_remove(struct sessions_list *list, const struct session *session)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->at[i] == session->index)
            list->at[i] = list->at[--list->count];
}

static bool sessions_grow(struct sessions *sessions)
{
    size_t room = sessions->room ? sessions->room * 2 : 64;
    struct session **by_index = realloc(sessions->by_index, room * sizeof(struct session *));

    if (!by_index)
        return false;
    sessions->by_index = by_index;
    for (size_t i = 0; i < sizeof sessions->lists / sizeof sessions->lists[0]; i++) {
        struct sessions_list *list = &sessions->lists[i];
        uint32_t *at = malloc(2 * room * sizeof *at);

        if (!at)
            return false;
        if (list->count) /* realloc would touch all of it, also what was never used */
            memcpy(at, list->at, list->count * sizeof *at);
        free(list->at);
        list->at = at;
    }
    if (!timer_reserve(&sessions->timers, room))
        return false;
    sessions->room = room;
    return true;
}

struct session *sessions_add(struct sessions *sessions, const struct listener_connection *accepted)
{
    struct session *session = NULL;

    if (sessions->free.count || sessions->used < sessions->room || sessions_grow(sessions))
        session = malloc(sizeof *session);
    if (!session)
        return NULL;
    session_open(session, accepted->fd, sessions->shared, sessions->context->now);
    memcpy(session->conn.address, accepted->address, sizeof session->conn.address);
    session->by_proxy = accepted->by_proxy;
    session->over_limit = accepted->over_limit;
    session->index = sessions->free.count ? sessions->free.at[--sessions->free.count]
                                          : (uint32_t)sessions->used++;
    session->generation = ++sessions->generation;
    sessions->by_index[session->index] = session;
    sessions->count++;
    sessions_activate(sessions, session);
    return session;
}

struct session *sessions_find(const struct sessions *sessions, uint64_t request_id)
{
    uint32_t index = (uint32_t)request_id;
    struct session *session = index < sessions->used ? sessions->by_index[index] : NULL;

    return session && session_request_id(session) == request_id ? session : NULL;
}

/* Sets a session's timer to what it waits for, or leaves it if it is set for an earlier time. */
static void sessions_set_timer(struct sessions *sessions, const struct session *session)
{
    int64_t at = session_timer(sessions->context, session);

    if (at != INT64_MAX)
        timer_advance(&sessions->timers, session->index, at);
}

void sessions_update(struct sessions *sessions, struct session *session)
{
    if (session->state != SESSION_DEAD && !session->conn.dirty)
        session_flushed(sessions->context, session);
    if (session->state == SESSION_DEAD) {
        if (!session->on_dead_list)
            sessions_list_add(&sessions->dead, session);
        session->on_dead_list = true;
        return;
    }
    if (session->over_budget && !session->on_held_list) {
        session->on_held_list = true;
        sessions_list_add(&sessions->held, session);
    }
    sessions_set_timer(sessions, session);
}

void sessions_activate(struct sessions *sessions, struct session *session)
{
    if (!session->active)
        sessions_list_add(&sessions->active, session);
    session->active = true;
}

void sessions_evict(struct sessions *sessions, const struct sessions_list *list)
{
    struct session *silent = NULL;

    for (size_t i = 0; i < list->count; i++) {
        struct session *session = sessions->by_index[list->at[i]];

        if (session->state == SESSION_DEAD)
            return; /* a place is about to be free */
        if (!silent || session->last_seen < silent->last_seen)
            silent = session;
    }
    conn_kill(&silent->conn);
    sessions_update(sessions, silent);
}

/* --- all sessions ---------------------------------------------------------------------------- */

struct session *sessions_largest(const struct sessions *sessions)
{
    struct session *largest = NULL;
    size_t most = 0;

    for (size_t index = 0; index < sessions->used; index++) {
        struct session *session = sessions->by_index[index];
        size_t size = session ? conn_cost(&session->conn) + conn_kept(&session->conn).length : 0;

        if (size > most && session->state != SESSION_DEAD) {
            most = size;
            largest = session;
        }
    }
    return largest;
}

/* True for a connection that counts for its address. A trusted proxy's counts for its client's,
 * from the upgrade on. */
static bool sessions_counts(const struct sessions *sessions, const struct session *session)
{
    if (!session->by_proxy)
        return !session->is_admin;
    return session_is_websocket(session) &&
           !listener_trusts(sessions->context->listener, session->conn.address);
}

void sessions_refresh(struct sessions *sessions)
{
    listener_forget(sessions->context->listener);
    for (size_t index = 0; index < sessions->used; index++) {
        const struct session *session = sessions->by_index[index];

        if (!session)
            continue;
        sessions_set_timer(sessions, session);
        if (sessions_counts(sessions, session))
            listener_count(sessions->context->listener, session->conn.address);
    }
}

static void sessions_remove(struct sessions *sessions, struct session *session)
{
    if (session->poller_slot >= 0)
        poller_free_slot(sessions->pollers, session->poller_slot);
    timer_clear(&sessions->timers, session->index);
    sessions_list_remove(&sessions->admins, session);
    sessions_list_remove(&sessions->rejected, session);
    if (sessions_counts(sessions, session))
        listener_uncount(sessions->context->listener, session->conn.address);
    conn_close(&session->conn);
    sessions->by_index[session->index] = NULL;
    sessions_list_add(&sessions->free, session);
    sessions->count--;
    free(session);
}

void sessions_reap(struct sessions *sessions)
{
    size_t kept = 0;

    if (!sessions->dead.count)
        return;
    for (size_t i = 0; i < sessions->active.count; i++)
        if (sessions->by_index[sessions->active.at[i]]->state != SESSION_DEAD)
            sessions->active.at[kept++] = sessions->active.at[i];
    sessions->active.count = kept;
    for (size_t i = 0; i < sessions->dead.count; i++) {
        struct session *session = sessions->by_index[sessions->dead.at[i]];

        session->active = session->on_dead_list = false;
        if (!session->polled_elsewhere && !session->conn.dirty && !session->on_held_list)
            sessions_remove(sessions, session);
    }
    sessions->dead.count = 0;
}

void sessions_close(struct sessions *sessions)
{
    for (size_t index = 0; index < sessions->used; index++)
        if (sessions->by_index[index]) {
            sessions->by_index[index]->poller_slot = -1;
            sessions_remove(sessions, sessions->by_index[index]);
        }
    timer_free(&sessions->timers);
    free(sessions->by_index);
    for (size_t i = 0; i < sizeof sessions->lists / sizeof sessions->lists[0]; i++)
        free(sessions->lists[i].at);
}

/* loop.c - the turn of the loop. */
#include "loop.h"

#include "account.h"
#include "api.h"
#include "cluster.h"
#include "console.h"
#include "timer.h"
#include "hub.h"
#include "listener.h"
#include "os.h"
#include "os.h"
#include "poller.h"
#include "session.h"
#include "table.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ACCEPTS_A_TURN 64
#ifndef POLLER_FROM    /* the variant unparked of the build sets it */
#define POLLER_FROM 64 /* connections up to which nothing is parked and no thread runs */
#endif
#define HOT_MAX 128 /* connections that the loop polls itself once parking has begun */
#define HOT_KEPT 96 /* how many of them are left when there were too many */

#define HANDSHAKES_A_TURN 8
#define PARK_PAUSE 1000  /* milliseconds without asking for a thread that was refused */
#define LOG_PAUSE 1000   /* milliseconds between two tries of a log that takes nothing */
#define DRAIN_TICK 50    /* milliseconds between two shares of clients when stopping */
#define DRAIN_GRACE 2000 /* milliseconds for the last ones to close */
#define RETURNED_AT_ONCE 256
#define PUSHES_A_TURN 256   /* connections that are written to before the loop looks up again */
#define OWED_A_PUSH 16384   /* and one more for so much that has been queued in the turn */
#define ADMIN_MOST 8        /* connections to the admin listener at a time */
#define OVER_LIMIT_MOST 32  /* connections beyond a limit that are told so, at a time */
#define NOTICES_A_TURN 8192 /* frames of notices that members have coming */
#define SHED_A_TURN 16      /* connections that are ended for what they keep */
#define DRAIN_RATE 200      /* clients a second that are closed at least when stopping */
#define OWN_POLLS 3         /* entries for poll() before those of connections */

/* A few sessions that make room for others like them: who has been silent longest goes first. */
struct few {
    struct session *sessions[OVER_LIMIT_MOST];
    size_t count;
};

struct loop {
    const struct loop_options *options;
    const struct config *config;
    struct hub hub;
    struct cluster *cluster; /* NULL on a node that is alone */
    struct api api;
    struct console console;
    struct session_context context;
    struct conn_shared shared;
    struct pollers *park;

    struct session **sessions; /* by slot, NULL where one has left; from `fresh` on unset */
    uint32_t *free_slots;      /* those below `fresh`: a stack */
    uint32_t *hot;             /* slots of the sessions polled here */
    uint32_t *dead;            /* slots of those to be reaped */
    uint32_t *line;            /* slots of those whose input waits for a later turn, oldest first */
    struct pollfd *polls;      /* both listeners, the wake pipe, as in `hot`, the cluster's */
    size_t poll_room;
    size_t slots, fresh, free_count, hot_count, dead_count, line_count, session_count;
    size_t first_ready; /* among the hot ones: where serving begins */
    struct few over;    /* sessions beyond a limit, which are told so */
    struct few admins;  /* those that came to the admin listener */
    uint32_t generation;
    struct timers deadlines;
    struct listener listener;

    unsigned handshakes;      /* steps of handshakes in this turn */
    bool returned_wait;       /* some of what came back from parking waits for the next turn */
    bool notices_wait;        /* members have notices coming */
    struct tls_context *tls;  /* for connections to come; NULL: they are plain */
    sig_atomic_t calls;       /* requests to return that were met */
    enum config_notice scope; /* that is noted in the cluster */

    int64_t park_after; /* no new places in the car park before this time */

    int64_t stop_asked; /* when it became unready, which is `drain_wait` before stopping begins; */
    int64_t stop_began, stop_ends;
    size_t stop_total, stop_done; /* sessions when stopping began, and how many of them have been
                                     told */
    size_t stop_slot;             /* the slot with which the next share begins */
};

/* --- slots ----------------------------------------------------------------------------------- */

/* The entries are not kept: those of a turn have been looked at before it accepts anyone. */
static bool reserve_polls(struct loop *loop, size_t count)
{
    struct pollfd *polls;

    if (count <= loop->poll_room)
        return true;
    polls = malloc(count * sizeof *polls);
    if (!polls)
        return false;
    free(loop->polls);
    loop->polls = polls;
    loop->poll_room = count;
    return true;
}

/* Gives a list of slots room for `room` of them. Not realloc(), which copies the old list whole:
 * of a list that is mostly empty, pages that nobody has written to take no memory. */
static bool widen(uint32_t **list, size_t count, size_t room)
{
    uint32_t *wider = malloc(room * sizeof *wider);

    if (!wider)
        return false;
    if (count)
        memcpy(wider, *list, count * sizeof *wider);
    free(*list);
    *list = wider;
    return true;
}

/* Doubles the room for sessions; every list is as long as there are slots, so that none of them
 * can fail later. What no session needs yet is not touched, and takes no memory. */
static bool grow(struct loop *loop)
{
    size_t slots = loop->slots ? loop->slots * 2 : 64;
    struct session **sessions = realloc(loop->sessions, slots * sizeof(struct session *));

    if (!sessions)
        return false;
    loop->sessions = sessions;
    if (!widen(&loop->free_slots, loop->free_count, slots) ||
        !widen(&loop->hot, loop->hot_count, slots) ||
        !widen(&loop->dead, loop->dead_count, slots) ||
        /* while it is gone through, those who wait again stand there twice */
        !widen(&loop->line, loop->line_count, 2 * slots) ||
        !reserve_polls(loop, OWN_POLLS + slots) || !timer_reserve(&loop->deadlines, slots))
        return false;
    loop->slots = slots;
    return true;
}

static void make_hot(struct loop *loop, struct session *session)
{
    if (session->active)
        return;
    session->active = true;
    loop->hot[loop->hot_count++] = session->index;
}

static struct session *new_session(struct loop *loop, int fd)
{
    struct session *session;

    if (!loop->free_count && loop->fresh == loop->slots && !grow(loop))
        return NULL;
    session = malloc(sizeof *session);
    if (!session)
        return NULL;
    session_open(session, fd, &loop->shared, loop->context.now);
    session->index =
        loop->free_count ? loop->free_slots[--loop->free_count] : (uint32_t)loop->fresh++;
    session->generation = ++loop->generation;
    loop->sessions[session->index] = session;
    loop->session_count++;
    make_hot(loop, session);
    return session;
}

/* True for a connection that counts for its address. A trusted proxy's counts for its client's,
 * from the upgrade on. */
static bool loop_counts(const struct loop *loop, const struct session *session)
{
    if (!session->by_proxy)
        return !session->is_admin;
    return session->is_websocket && !listener_trusts(&loop->listener, session->conn.address);
}

/* --- accepting ------------------------------------------------------------------------------- */

/* Connections beyond the limit that are told so. */
static uint64_t over_limit_most(uint64_t connections)
{
    return connections < 256 ? 1 + connections / 8 : OVER_LIMIT_MOST;
}

uint64_t loop_descriptors(uint64_t connections)
{
    return connections + over_limit_most(connections) + ADMIN_MOST +
           2 * (connections / POLLER_SLOTS + 1);
}

/* Connections that count towards max_connections. */
static size_t loop_open_count(const struct loop *loop)
{
    return loop->session_count - loop->over.count - loop->admins.count;
}

static void settle(struct loop *loop, struct session *session);

/* A step of a handshake takes milliseconds: others are served between them. What is left unread,
 * also because the budget of the turn is used up, keeps the socket readable. */
static void read_session(struct loop *loop, struct session *session)
{
    const struct tls *tls = session->conn.tls;

    if (conn_over_budget(&loop->shared))
        return;
    if (!tls || !tls_is_opening(tls) || loop->handshakes++ < HANDSHAKES_A_TURN)
        session_read(&loop->context, session);
}

static void few_add(struct few *few, struct session *session)
{
    few->sessions[few->count++] = session;
}

static void few_remove(struct few *few, const struct session *session)
{
    size_t i = 0;

    while (i < few->count && few->sessions[i] != session)
        i++;
    if (i < few->count)
        few->sessions[i] = few->sessions[--few->count];
}

/* Ends the one that has been silent longest: those that say nothing must not keep out who asks. Its
 * place is free in a later turn. */
static void few_make_room(struct loop *loop, struct few *few)
{
    struct session *quiet = few->sessions[0];

    for (size_t i = 0; i < few->count; i++) {
        if (few->sessions[i]->state == SESSION_DEAD)
            return; /* a place is about to be free */
        if (few->sessions[i]->last_seen < quiet->last_seen)
            quiet = few->sessions[i];
    }
    conn_kill(&quiet->conn);
    settle(loop, quiet);
}

/* Makes a session of what was accepted; NULL without memory. */
static struct session *loop_begin_session(struct loop *loop,
                                          const struct listener_connection *accepted)
{
    struct session *session = new_session(loop, accepted->fd);

    if (session) {
        memcpy(session->conn.address, accepted->address, sizeof session->conn.address);
        return session;
    }
    close(accepted->fd);
    listener_pause(&loop->listener, ENOMEM, loop_open_count(loop), loop->context.now);
    return NULL;
}

static void loop_take_client(struct loop *loop, const struct listener_connection *accepted)
{
    struct session *session = NULL;

    loop->context.metrics.accepted++;
    loop->context.metrics.refused += accepted->over_limit;
    if (accepted->over_limit &&
        loop->over.count >= over_limit_most(loop->listener.max_connections)) {
        few_make_room(loop, &loop->over); /* for the next one; to tell this one there is no room */
        close(accepted->fd);
    } else {
        session = loop_begin_session(loop, accepted);
    }
    if (!session) {
        if (!accepted->by_proxy)
            listener_uncount(&loop->listener, accepted->address);
        return;
    }
    session->by_proxy = accepted->by_proxy;
    session->over_limit = accepted->over_limit;
    if (accepted->over_limit)
        few_add(&loop->over, session);
    if (loop->tls && !conn_secure(&session->conn, loop->tls))
        conn_kill(&session->conn);
    /* most clients have sent their request by now: that saves waiting for another iteration */
    read_session(loop, session);
    settle(loop, session);
}

static void loop_accept_clients(struct loop *loop)
{
    struct listener_connection accepted;

    for (int i = 0; i < ACCEPTS_A_TURN && listener_accept(&loop->listener, loop_open_count(loop),
                                                          loop->context.now, &accepted);
         i++)
        loop_take_client(loop, &accepted);
}

/* Plain, and not counted among the others: it must get in when they have used up their limits. */
static void loop_accept_admin(struct loop *loop)
{
    struct listener_connection accepted;
    struct session *session;

    if (loop->admins.count == ADMIN_MOST) {
        few_make_room(loop, &loop->admins);
        return;
    }
    if (!listener_accept_admin(&loop->listener, loop_open_count(loop), loop->context.now,
                               &accepted))
        return;
    session = loop_begin_session(loop, &accepted);
    if (!session)
        return;
    session->is_admin = true;
    few_add(&loop->admins, session);
    settle(loop, session);
}

/* --- sessions -------------------------------------------------------------------------------- */

static void note_deadline(struct loop *loop, const struct session *session)
{
    int64_t deadline = session_timer(&loop->context, session);

    if (deadline != INT64_MAX)
        timer_advance(&loop->deadlines, session->index, deadline);
}

/* After anything was done to a session: if nothing is to be flushed, it is told so now; then its
 * deadline is looked at, and whether it has died. */
static void settle(struct loop *loop, struct session *session)
{
    if (session->state != SESSION_DEAD && !session->conn.dirty)
        session_flushed(&loop->context, session);
    if (session->state == SESSION_DEAD) {
        if (!session->on_dead_list)
            loop->dead[loop->dead_count++] = session->index;
        session->on_dead_list = true;
        return;
    }
    if (session->over_budget && !session->on_held_list) {
        session->on_held_list = true;
        loop->line[loop->line_count++] = session->index;
    }
    note_deadline(loop, session);
}

static void serve_one(struct loop *loop, struct session *session, short events)
{
    if (session->conn.blocked && (events & (POLLOUT | POLLHUP | POLLERR))) {
        session_writable(&loop->context, session);
        if (session->conn.tls) /* it may have been the handshake that could not be written */
            events |= POLLIN;
    }
    if (events & (POLLIN | POLLHUP | POLLERR))
        read_session(loop, session);
    settle(loop, session);
}

/* Serves those that poll() found ready. Where the budget ends one turn, the next one begins. */
static void serve_ready(struct loop *loop, size_t count)
{
    size_t begin = loop->first_ready < count ? loop->first_ready : 0;

    loop->first_ready = 0;
    for (size_t i = 0; i < count; i++) {
        size_t place = begin + i < count ? begin + i : begin + i - count;
        struct session *session = loop->sessions[loop->hot[place]];
        short events = loop->polls[OWN_POLLS + place].revents;

        if (!events)
            continue;
        if (!loop->first_ready && conn_over_budget(&loop->shared))
            loop->first_ready = place;
        serve_one(loop, session, events);
    }
}

/* Goes on with those whose input used up the budget of a turn before, in the order in which they
 * have been waiting, as far as a budget of their own goes. */
static void serve_line(struct loop *loop)
{
    size_t count = loop->line_count, served = 0;

    conn_begin_share(&loop->shared);
    for (; served < count && !conn_over_budget(&loop->shared); served++) {
        struct session *session = loop->sessions[loop->line[served]];

        session->on_held_list = false;
        session_continue(&loop->context, session);
        settle(loop, session);
    }
    loop->line_count -= served;
    memmove(loop->line, loop->line + served, loop->line_count * sizeof *loop->line);
}

static void take_returned_one(struct loop *loop, struct session *session)
{
    session->polled_elsewhere = false;
    loop->context.metrics.parked--;
    make_hot(loop, session);
    if (session_wants_input(session))
        read_session(loop, session);
    settle(loop, session);
}

/* Takes the descriptors back that their parking threads have seen move, as far as the budget goes.
 */
static void take_returned(struct loop *loop)
{
    uint32_t slots[RETURNED_AT_ONCE];
    size_t count;

    do {
        loop->returned_wait = conn_over_budget(&loop->shared);
        if (loop->returned_wait)
            return;
        count = poller_ready(loop->park, slots, RETURNED_AT_ONCE);
        for (size_t i = 0; i < count; i++)
            take_returned_one(loop, loop->sessions[slots[i]]);
    } while (count == RETURNED_AT_ONCE);
}

/* The session that a late answer is for, if it is still there. */
static struct session *find_session(const struct loop *loop, uint64_t request_id)
{
    uint32_t slot = (uint32_t)request_id;
    struct session *session = slot < loop->fresh ? loop->sessions[slot] : NULL;

    return session && session_request_id(session) == request_id ? session : NULL;
}

static void answer_late(struct loop *loop, struct session *session, struct api_response *answer)
{
    session_respond(&loop->context, session, answer);
    settle(loop, session);
}

static void take_account_results(struct loop *loop)
{
    struct account_result result;
    struct api_response answer;

    while (account_take_result(loop->context.accounts, &result)) {
        struct session *session = find_session(loop, result.request_id);

        api_finish(&loop->api, &result, loop->context.unix_now, &answer);
        answer.system = (struct str){result.name, result.name_length};
        if (session && session->state == SESSION_WAIT)
            answer_late(loop, session, &answer);
        else
            buf_free(&answer.body);
    }
}

static void take_cluster_results(struct loop *loop)
{
    const struct cluster_result *result;
    struct api_response answer;

    while ((result = cluster_result(loop->cluster))) {
        struct session *session = find_session(loop, result->request_id);

        if (session && result->is_admission) {
            session_admit(&loop->context, session, result->admission, result->system,
                          result->result.error);
            settle(loop, session);
        } else if (session && session->state == SESSION_WAIT) {
            api_finish_command(result, &answer);
            answer_late(loop, session, &answer);
        }
    }
}

static void take_wakeups(struct loop *loop)
{
    os_drain(loop->options->wake[0]);
    take_returned(loop);
    take_account_results(loop);
}

/* A ping is due in a parking lot: its other clients get theirs now, so that their pongs wake its
 * thread together. */
static void ping_neighbours(struct loop *loop, const struct session *session)
{
    uint32_t slots[POLLER_SLOTS];
    size_t count =
        session->poller_slot < 0 ? 0 : poller_siblings(loop->park, session->poller_slot, slots);

    for (size_t i = 0; i < count; i++) {
        struct session *neighbour = loop->sessions[slots[i]];

        session_ping_early(&loop->context, neighbour);
        settle(loop, neighbour);
    }
}

static void run_deadlines(struct loop *loop)
{
    const struct timer *first;

    while ((first = timer_first(&loop->deadlines)) && first->at <= loop->context.now) {
        struct session *session = loop->sessions[first->id];

        timer_clear(&loop->deadlines, session->index);
        if (session_expire(&loop->context, session))
            ping_neighbours(loop, session);
        settle(loop, session);
    }
}

/* Everything queued to one connection leaves in one call, answers first. Of the pushes to a large
 * crowd a share leaves now, and the others wait for the next turns: what is sent to them until then
 * shares their call, and no request waits until thousands have been written to. The share grows
 * with what is queued, so that on average no more than some thirty short messages, or one of 16
 * KiB, wait for each: who sends faster than clients can be written to has to wait for his answer.
 */
static void flush(struct loop *loop)
{
    size_t owed = conn_end_shares(&loop->shared), pushes = 0;
    struct conn *conn;

    while ((pushes < PUSHES_A_TURN || pushes < owed / OWED_A_PUSH) &&
           (conn = conn_next_dirty(&loop->shared))) {
        struct session *session = (struct session *)conn; /* its first member */

        pushes += !conn->answering;
        conn_flush(conn);
        if (conn->blocked)
            make_hot(loop, session);
        /* for a client that stays nothing changes; its session's other half is not in the cache */
        if (conn->answering || conn->broken || conn->ending)
            settle(loop, session);
    }
}

/* --- parking --------------------------------------------------------------------------------- */

static bool park(struct loop *loop, struct session *session)
{
    if (session->poller_slot < 0 && loop->context.now >= loop->park_after)
        session->poller_slot = poller_take_slot(loop->park, session->index);
    if (session->poller_slot < 0) {
        if (loop->context.now >= loop->park_after)
            loop->park_after = loop->context.now + PARK_PAUSE;
        return false;
    }
    poller_arm(loop->park, session->poller_slot, session->conn.fd);
    session->polled_elsewhere = true;
    loop->context.metrics.parked++;
    return true;
}

static bool may_park(const struct session *session)
{
    return session->state != SESSION_DEAD && !session->polled_elsewhere &&
           session_wants_input(session);
}

/* Takes out of the hot ones what need not be there: clients of the WebSocket in any case, and up
 * to `surplus` others that were last heard of at `limit` or before. */
static void park_some(struct loop *loop, int64_t limit, size_t surplus)
{
    size_t kept = 0;

    for (size_t i = 0; i < loop->hot_count; i++) {
        struct session *session = loop->sessions[loop->hot[i]];
        bool old = surplus > 0 && session->last_seen <= limit;

        if ((old || session->state == SESSION_OPEN) && may_park(session) && park(loop, session) &&
            old)
            surplus--;
        session->active = !session->polled_elsewhere || session->conn.blocked;
        if (session->active)
            loop->hot[kept++] = session->index;
    }
    loop->hot_count = kept;
}

static int by_age(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

/* Parks the least recently active ones until HOT_KEPT are left. */
static void park_surplus(struct loop *loop)
{
    size_t surplus = loop->hot_count - HOT_KEPT;
    int64_t *seen = malloc(loop->hot_count * sizeof *seen);

    if (!seen)
        return;
    for (size_t i = 0; i < loop->hot_count; i++)
        seen[i] = loop->sessions[loop->hot[i]]->last_seen;
    qsort(seen, loop->hot_count, sizeof *seen, by_age);
    park_some(loop, seen[surplus - 1], surplus);
    free(seen);
}

/* Clients go back to their places once served; of the others only so many stay that poll() stays
 * quick. */
static void park_quiet(struct loop *loop)
{
    if (loop->session_count <= POLLER_FROM)
        return;
    park_some(loop, 0, 0);
    if (loop->hot_count > HOT_MAX)
        park_surplus(loop);
    poller_commit(loop->park);
}

/* --- reaping --------------------------------------------------------------------------------- */

static void free_session(struct loop *loop, struct session *session)
{
    if (session->poller_slot >= 0)
        poller_free_slot(loop->park, session->poller_slot);
    timer_clear(&loop->deadlines, session->index);
    few_remove(&loop->admins, session);
    few_remove(&loop->over, session);
    if (loop_counts(loop, session))
        listener_uncount(&loop->listener, session->conn.address);
    conn_close(&session->conn);
    loop->sessions[session->index] = NULL;
    loop->free_slots[loop->free_count++] = session->index;
    loop->session_count--;
    free(session);
}

static void forget_hot(struct loop *loop)
{
    size_t kept = 0;

    for (size_t i = 0; i < loop->hot_count; i++)
        if (loop->sessions[loop->hot[i]]->state != SESSION_DEAD)
            loop->hot[kept++] = loop->hot[i];
    loop->hot_count = kept;
}

/* The only place that closes and frees. One that is still watched has been shut down, comes back
 * for that reason, and is reaped then; so is one whose turn to be flushed, or served, is yet to
 * come. */
static void reap(struct loop *loop)
{
    if (!loop->dead_count)
        return;
    forget_hot(loop);
    for (size_t i = 0; i < loop->dead_count; i++) {
        struct session *session = loop->sessions[loop->dead[i]];

        session->active = session->on_dead_list = false;
        if (!session->polled_elsewhere && !session->conn.dirty && !session->on_held_list)
            free_session(loop, session);
    }
    loop->dead_count = 0;
}

/* --- max_buffered ---------------------------------------------------------------------------- */

/* The session that keeps most input and output; NULL if none keeps any. */
static struct session *find_largest(const struct loop *loop)
{
    struct session *largest = NULL;
    size_t most = 0;

    for (size_t slot = 0; slot < loop->fresh; slot++) {
        struct session *session = loop->sessions[slot];
        size_t size = session ? conn_cost(&session->conn) + conn_kept(&session->conn).length : 0;

        if (size > most && session->state != SESSION_DEAD) {
            most = size;
            largest = session;
        }
    }
    return largest;
}

/* While all connections together keep more than max_buffered, the largest are ended. */
static void shed(struct loop *loop)
{
    struct session *largest;

    for (int i = 0; i < SHED_A_TURN && loop->shared.buffered > loop->config->max_buffered; i++) {
        largest = find_largest(loop);
        if (!largest)
            return;
        session_shed(&loop->context, largest);
        settle(loop, largest);
        loop->context.metrics.shed++;
    }
}

/* --- what may change while it runs ----------------------------------------------------------- */

/* Connections are counted by address only while that is limited. */
static void recount_addresses(struct loop *loop)
{
    listener_forget(&loop->listener);
    for (size_t slot = 0; slot < loop->fresh; slot++)
        if (loop->sessions[slot] && loop_counts(loop, loop->sessions[slot]))
            listener_count(&loop->listener, loop->sessions[slot]->conn.address);
}

void loop_count_reload(struct loop *loop, bool good)
{
    loop->context.metrics.reloads[good]++;
}

void loop_renew(struct loop *loop, struct tls_context *tls)
{
    tls_context_free(loop->tls);
    loop->tls = tls;
}

void loop_reload(struct loop *loop, uint64_t max_connections)
{
    loop->listener.max_connections = max_connections;
    recount_addresses(loop);
    for (size_t slot = 0; slot < loop->fresh; slot++)
        if (loop->sessions[slot]) /* a timeout may be shorter now */
            note_deadline(loop, loop->sessions[slot]);
    if (loop->scope != loop->config->scope)
        cluster_republish(loop->cluster);
    loop->scope = loop->config->scope;
}

/* --- stopping -------------------------------------------------------------------------------- */

/* The first request to stop: no longer ready, so that balancers look elsewhere. */
static void announce_stop(struct loop *loop)
{
    struct log_field fields[] = {
        {.name = "connections", .number = (int64_t)loop->session_count},
        {.name = "drain_wait_ms", .number = (int64_t)loop->config->drain_wait},
        {.name = "drain_ms", .number = (int64_t)loop->config->drain},
        {0}};

    log_write(loop->options->log, LOG_INFO, "stopping; a second signal ends it at once", fields);
    os_notify("STOPPING=1\nSTATUS=draining");
    loop->context.leaving = true;
    loop->stop_asked = loop->context.now;
}

/* After drain_wait: nobody new, and everybody is told to go. At least DRAIN_RATE go in a second. */
static void begin_stop(struct loop *loop)
{
    int64_t drain = (int64_t)loop->config->drain;
    int64_t quickest = (int64_t)loop->session_count * 1000 / DRAIN_RATE;

    listener_stop(&loop->listener);
    loop->context.stopping = true;
    loop->stop_began = loop->context.now;
    loop->stop_ends = loop->context.now + (quickest < drain ? quickest : drain);
    loop->stop_total = loop->session_count;
}

/* Ends the share of the sessions that is due by now, so that the clients do not come back all at
 * once. */
static void stop_share(struct loop *loop)
{
    int64_t spread = loop->stop_ends - loop->stop_began;
    int64_t passed = loop->context.now - loop->stop_began;
    size_t due = SIZE_MAX;

    if (passed < spread)
        due = (size_t)((int64_t)loop->stop_total * passed / spread);
    for (; loop->stop_slot < loop->fresh && loop->stop_done < due; loop->stop_slot++) {
        struct session *session = loop->sessions[loop->stop_slot];

        if (!session || session->is_admin) /* which tells that this node is draining */
            continue;
        session_stop(&loop->context, session);
        settle(loop, session);
        loop->stop_done++;
    }
}

static void stop_if_asked(struct loop *loop)
{
    if (*loop->options->stops && !loop->context.leaving)
        announce_stop(loop);
    if (loop->context.leaving && !loop->context.stopping &&
        loop->context.now >= loop->stop_asked + (int64_t)loop->config->drain_wait)
        begin_stop(loop);
    if (loop->context.stopping)
        stop_share(loop);
}

/* True when there is nothing left to wait for. */
static bool stopped(const struct loop *loop)
{
    if (loop->context.leaving && *loop->options->stops > 1)
        return true;
    return loop->context.stopping &&
           ((loop->session_count == loop->admins.count && cluster_is_idle(loop->cluster)) ||
            loop->context.now >= loop->stop_ends + DRAIN_GRACE);
}

/* --- the turn -------------------------------------------------------------------------------- */

static void take_time(struct loop *loop)
{
    struct timespec steady, wall;

    clock_gettime(CLOCK_MONOTONIC, &steady);
    loop->context.now = (int64_t)steady.tv_sec * 1000 + steady.tv_nsec / 1000000;
    clock_gettime(CLOCK_REALTIME, &wall);
    if (loop->context.unix_now != (int64_t)wall.tv_sec) {
        loop->context.unix_now = loop->hub.now = (int64_t)wall.tv_sec;
        http_date(loop->context.unix_now, loop->context.date);
    }
}

/* Builds the array for poll() from the state of things; returns how many entries it has. */
static size_t build_polls(struct loop *loop)
{
    bool paused = listener_is_paused(&loop->listener, loop->context.now);

    if (!reserve_polls(loop, OWN_POLLS + loop->slots + cluster_poll_count(loop->cluster)))
        return 0;
    loop->polls[0] = (struct pollfd){paused ? -1 : loop->listener.clients, POLLIN, 0};
    loop->polls[1] = (struct pollfd){loop->options->wake[0], POLLIN, 0};
    loop->polls[2] = (struct pollfd){paused ? -1 : loop->listener.admin, POLLIN, 0};
    for (size_t i = 0; i < loop->hot_count; i++) {
        const struct session *session = loop->sessions[loop->hot[i]];
        bool reads = !session->polled_elsewhere && session_wants_input(session);
        int events = (reads ? POLLIN : 0) | (session->conn.blocked ? POLLOUT : 0);

        loop->polls[OWN_POLLS + i] =
            (struct pollfd){events ? session->conn.fd : -1, (short)events, 0};
    }
    cluster_poll(loop->cluster, loop->polls + OWN_POLLS + loop->hot_count);
    return OWN_POLLS + loop->hot_count + cluster_poll_count(loop->cluster);
}

static int poll_timeout(const struct loop *loop)
{
    const struct timer *first = timer_first(&loop->deadlines);
    int64_t until = first ? first->at - loop->context.now : INT64_MAX;
    int64_t cluster = cluster_deadline(loop->cluster);

    if (cluster != INT64_MAX && until > cluster - loop->context.now)
        until = cluster - loop->context.now;
    if (conn_any_dirty(&loop->shared) || loop->line_count || loop->returned_wait ||
        loop->notices_wait)
        return 0;
    if (loop->context.leaving && until > DRAIN_TICK)
        until = DRAIN_TICK;
    if (listener_is_paused(&loop->listener, loop->context.now) && until > LISTENER_PAUSE)
        until = LISTENER_PAUSE;
    if (until > LOG_PAUSE && !log_catch_up(loop->options->log))
        until = LOG_PAUSE;
    return until < 0 ? 0 : until > INT32_MAX ? -1 : (int)until;
}

static void turn(struct loop *loop)
{
    size_t count = build_polls(loop), hot = loop->hot_count;
    bool admin_knocks;

    if (count == 0) { /* without memory for poll() nothing can be known */
        poll(NULL, 0, LISTENER_PAUSE);
        return;
    }
    if (poll(loop->polls, (nfds_t)count, poll_timeout(loop)) < 0)
        for (size_t i = 0; i < count; i++)
            loop->polls[i].revents = 0;
    take_time(loop);
    if (loop->tls)
        tls_context_renew(loop->tls, loop->context.unix_now);
    loop->handshakes = 0;
    /* the pipe is emptied before what it told of is taken: what comes after that writes to it anew
     */
    if (loop->polls[1].revents || loop->returned_wait)
        take_wakeups(loop);
    conn_begin_share(&loop->shared);
    cluster_serve(loop->cluster, loop->polls + OWN_POLLS + hot, loop->context.now);
    /* hot[] grows at its end while sessions work: what was polled stays where it was */
    conn_begin_share(&loop->shared);
    serve_ready(loop, hot);
    admin_knocks = loop->polls[2].revents != 0; /* the entries are lost when sessions are added */
    if (loop->polls[0].revents)
        loop_accept_clients(loop);
    if (admin_knocks)
        loop_accept_admin(loop);
    serve_line(loop);
    take_cluster_results(loop);
    run_deadlines(loop);
    stop_if_asked(loop);
    loop->notices_wait = hub_flush_notices(&loop->hub, NOTICES_A_TURN);
    shed(loop);
    cluster_flush(loop->cluster);
    flush(loop);
    reap(loop);
    park_quiet(loop);
    loop->context.metrics.connections = loop->session_count - loop->admins.count;
    loop->context.metrics.threads = poller_count(loop->park);
}

const char *loop_broken(const struct loop *loop)
{
    return cluster_fatal_error(loop->cluster);
}

enum loop_result loop_run(struct loop *loop)
{
    take_time(loop);
    while (!stopped(loop) && !loop_broken(loop)) {
        turn(loop); /* in any case: calls without end must not keep clients waiting without end */
        if (*loop->options->calls != loop->calls) {
            loop->calls = *loop->options->calls;
            return LOOP_CALLED;
        }
    }
    log_write(loop->options->log, LOG_INFO, "stopped", NULL);
    return loop_broken(loop) ? LOOP_BROKEN : LOOP_STOPPED;
}

/* --- opening and closing --------------------------------------------------------------------- */

static bool open_parts(struct loop *loop)
{
    const struct loop_options *options = loop->options;

    loop->park =
        poller_open(options->wake[1], 1 + (size_t)(options->most_connections / POLLER_SLOTS));
    if (options->config->console) {
        if (!console_open(&loop->console))
            return false;
        loop->context.console = &loop->console;
    }
    return loop->park && grow(loop) && hub_open(&loop->hub, options->config, options->log) &&
           crypto_random(&loop->api.seed, sizeof loop->api.seed) &&
           crypto_random(&loop->listener.seed, sizeof loop->listener.seed) &&
           listener_open(&loop->listener);
}

/* The cluster, if there is one, and the accounts, which are its if it has them. */
static bool open_accounts(struct loop *loop, char *error, size_t room)
{
    const struct loop_options *options = loop->options;
    const struct account_store *store;
    struct cluster_options with = {.config = options->config,
                                   .log = options->log,
                                   .keys = options->keys,
                                   .hub = &loop->hub,
                                   .shared = &loop->shared,
                                   .host = str_from(options->rpc_host),
                                   .port = (unsigned)options->config->rpc_port,
                                   .listener = options->rpc_listener,
                                   .wake = options->wake[1]};

    if (options->config->cluster) {
        loop->cluster = cluster_open(&with);
        if (!loop->cluster)
            return false;
    }
    store = cluster_accounts(loop->cluster);
    loop->context.accounts =
        store ? account_open_store(store, options->wake[1], ACCOUNT_ITERATIONS, error, room)
              : account_open(options->config->data_dir, options->wake[1], ACCOUNT_ITERATIONS,
                              error, room);
    if (loop->context.accounts && error[0])
        log_write(
            options->log, LOG_WARN, "accounts: a crash had torn the last line",
            (struct log_field[]){{.name = "repair", .text = str_from(error)}, {.name = NULL}});
    loop->api.accounts = loop->context.accounts;
    loop->api.cluster = loop->context.cluster = loop->cluster;
    loop->context.metrics.cluster = loop->cluster;
    return loop->context.accounts != NULL;
}

struct loop *loop_open(const struct loop_options *options, char *error, size_t room)
{
    struct loop *loop = calloc(1, sizeof *loop);

    snprintf(error, room, "out of memory, or of threads");
    if (!loop)
        return NULL;
    loop->options = options;
    loop->config = options->config;
    loop->listener = (struct listener){.config = options->config,
                                       .log = options->log,
                                       .clients = options->listener,
                                       .admin = options->admin_listener,
                                       .max_connections = options->max_connections};
    loop->scope = options->config->scope;
    loop->tls = options->tls;
    loop->context = (struct session_context){.config = options->config,
                                             .log = options->log,
                                             .hub = &loop->hub,
                                             .api = &loop->api,
                                             .listener = &loop->listener,
                                             .metrics = {.hub = &loop->hub,
                                                         .api = &loop->api,
                                                         .shared = &loop->shared,
                                                         .log = options->log,
                                                         .version = options->version,
                                                         .started = (int64_t)time(NULL)}};
    loop->api = (struct api){.config = options->config, .keys = options->keys, .hub = &loop->hub};
    api_open(&loop->api);
    if (open_parts(loop) && open_accounts(loop, error, room))
        return loop;
    loop_close(loop);
    return NULL;
}

void loop_close(struct loop *loop)
{
    while (conn_next_dirty(&loop->shared))
        ; /* the list must not outlive those on it */
    poller_close(loop->park);
    account_close(loop->context.accounts);
    cluster_close(loop->cluster);
    for (size_t slot = 0; slot < loop->fresh; slot++)
        if (loop->sessions[slot]) {
            loop->sessions[slot]->poller_slot = -1;
            free_session(loop, loop->sessions[slot]);
        }
    listener_close(&loop->listener);
    hub_close(&loop->hub);
    api_free(&loop->api);
    console_close(&loop->console);
    conn_shared_free(&loop->shared);
    tls_context_free(loop->tls);
    timer_free(&loop->deadlines);
    free(loop->sessions);
    free(loop->free_slots);
    free(loop->hot);
    free(loop->dead);
    free(loop->line);
    free(loop->polls);
    free(loop);
}

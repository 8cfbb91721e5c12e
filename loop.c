/* loop.c - the event loop.
 *
 * One iteration (loop_iterate): poll; take what threads have left; let the cluster, ready sessions,
 * new connections and held sessions work; run timers; tell notices; flush; reap; hand idle sessions
 * to pollers. Only this thread touches sessions.
 *
 * Data: the sessions, in lists (sessions.h); the entries for poll(), built from them in each
 * iteration. Work that another thread does carries a request id, never a pointer.
 *
 * Budgets: what requests and new input cost is counted in conn_shared; when an iteration's share is
 * used up, sessions are held until the next one, oldest first. Handshakes, accepts, notices and
 * writes to a crowd are bounded by the constants below.
 *
 * The flags of a session that the loop goes by, what sets them, and what clears them:
 *
 *   active            new, ready, or output waits      only a poller's now, or reaped
 *   polled_elsewhere  loop_arm                         loop_take_ready
 *   over_budget       session_read: input is left      session_continue
 *   on_held_list      sessions_update: over_budget     loop_serve_held
 *   on_dead_list      sessions_update: SESSION_DEAD    sessions_reap
 *   conn.dirty        output queued, or broken         conn_next_dirty (loop_flush)
 *   conn.want_write   the socket took no more          session_writable, on POLLOUT
 *   by_proxy, over_limit, is_admin: set once, by what the listener says of the connection */
#include "loop.h"

#include "hub_resume.h"
#include "os.h"
#include "sessions.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef POLLER_FROM    /* a variant of the build sets it */
#define POLLER_FROM 64 /* sessions up to which all are polled here and no thread runs */
#endif
#define ACTIVE_MAX 128 /* sessions polled here when there are more than POLLER_FROM, */
#define ACTIVE_KEPT 96 /* and how many stay when there are more of them */
#define READY_BATCH 256

#define ACCEPTS_PER_ITERATION 64
#define HANDSHAKES_PER_ITERATION 8
#define NOTICES_PER_ITERATION 8192 /* frames */
#define PUSHES_PER_ITERATION 256   /* connections written to that wait for no response, */
#define BACKLOG_PER_PUSH 16384     /* and one more for so many bytes queued in the iteration */
#define SHED_PER_ITERATION 16      /* sessions ended for what they keep */

#define SLOT_PAUSE 1000 /* milliseconds without asking for a poller's slot after a failure */
#define LOG_PAUSE 1000  /* milliseconds between two tries of a log that takes nothing */
#define DRAIN_TICK 50   /* milliseconds between two batches of sessions when stopping */
#define DRAIN_RATE 200  /* sessions a second that are ended at least when stopping */

/* The entries for poll(): three of the loop's own, those of active sessions, the cluster's. */
enum { POLL_WAKE, POLL_CLIENTS, POLL_ADMIN, POLL_SESSIONS };

struct loop {
    struct loop_options options;
    struct session_context *context; /* of the options */
    struct conn_shared *shared;
    struct listener *listener;

    struct sessions sessions;
    struct pollfd *polls;
    size_t poll_room;

    size_t first_ready;  /* of the active sessions: where serving begins */
    unsigned handshakes; /* steps of handshakes in this iteration */
    bool ready_left;     /* pollers have more that is ready */
    bool away_left, notices_left, walks_left;
    sig_atomic_t calls;  /* requests to return that were met */
    int64_t slots_after; /* no asking for pollers' slots before this time */

    int64_t stop_asked; /* when the node became unready; stopping begins drain_wait later */
    int64_t stop_began, stop_ends; /* of closing clients */
    int64_t away_ends;             /* until then those that are away may move to other nodes */
    size_t stop_total, stop_done;  /* sessions when stopping began; how many were ended */
    size_t stop_index;             /* the next one */
    bool stop_told;                /* webhooks were told that this node ends */
};

/* --- accepting ------------------------------------------------------------------------------- */

/* Makes room for the entries of this many sessions; those that are there stay. */
static bool loop_reserve_polls(struct loop *loop, size_t sessions)
{
    size_t room = POLL_SESSIONS + sessions + cluster_poll_count(loop->context->cluster);
    struct pollfd *polls;

    if (room <= loop->poll_room)
        return true;
    polls = realloc(loop->polls, 2 * room * sizeof *polls);
    if (!polls)
        return false;
    loop->polls = polls;
    loop->poll_room = 2 * room;
    return true;
}

/* Reads, as far as the budget goes: what is left unread keeps the socket readable. A step of a TLS
 * handshake takes milliseconds, so others are served between them. */
static void loop_read(struct loop *loop, struct session *session)
{
    const struct tls *tls = session->conn.tls;

    if (conn_over_budget(loop->shared))
        return;
    if (!tls || !tls_is_opening(tls) || loop->handshakes++ < HANDSHAKES_PER_ITERATION)
        session_read(loop->context, session);
}

static uint64_t loop_rejected_max(uint64_t connections)
{
    return connections < 256 ? 1 + connections / 8 : SESSIONS_REJECTED_MAX;
}

uint64_t loop_descriptors(uint64_t connections)
{
    return connections + loop_rejected_max(connections) + SESSIONS_ADMINS_MAX +
           2 * (connections / POLLER_SLOTS + 1);
}

/* The connections that count towards max_connections. */
static size_t loop_open_count(const struct loop *loop)
{
    return loop->sessions.count - loop->sessions.rejected.count - loop->sessions.admins.count;
}

/* Makes a session of what was accepted. NULL without memory: the connection is closed. */
static struct session *loop_begin(struct loop *loop, const struct listener_connection *accepted)
{
    struct session *session = NULL;

    if (loop_reserve_polls(loop, loop->sessions.count + 1))
        session = sessions_add(&loop->sessions, accepted);
    if (!session) {
        close(accepted->fd);
        listener_pause(loop->listener, ENOMEM, loop_open_count(loop), loop->context->now);
    }
    return session;
}

/* Most clients have sent their request by now: reading at once saves an iteration. When the quota
 * of rejected sessions is full, the connection is closed without a response. */
static void loop_take_client(struct loop *loop, const struct listener_connection *accepted)
{
    struct session *session = NULL;

    loop->context->metrics.accepted++;
    loop->context->metrics.refused += accepted->over_limit;
    if (accepted->over_limit &&
        loop->sessions.rejected.count >= loop_rejected_max(loop->listener->max_connections)) {
        sessions_evict(&loop->sessions, &loop->sessions.rejected);
        close(accepted->fd);
    } else {
        session = loop_begin(loop, accepted);
    }
    if (!session) {
        if (!accepted->by_proxy)
            listener_uncount(loop->listener, accepted->address);
        return;
    }
    if (accepted->over_limit)
        sessions_list_add(&loop->sessions.rejected, session);
    if (loop->options.tls && !conn_secure(&session->conn, loop->options.tls))
        conn_kill(&session->conn);
    loop_read(loop, session);
    sessions_update(&loop->sessions, session);
}

static void loop_accept_clients(struct loop *loop)
{
    struct listener_connection accepted;

    for (int i = 0; i < ACCEPTS_PER_ITERATION; i++) {
        if (!listener_accept(loop->listener, loop->listener->clients, loop_open_count(loop),
                             loop->context->now, &accepted))
            return;
        loop_take_client(loop, &accepted);
    }
}

/* Plain, and beyond the limits of clients: operators get in when those are used up. */
static void loop_accept_admin(struct loop *loop)
{
    struct listener_connection accepted;
    struct session *session = NULL;

    if (loop->sessions.admins.count == SESSIONS_ADMINS_MAX)
        sessions_evict(&loop->sessions, &loop->sessions.admins);
    else if (listener_accept(loop->listener, loop->listener->admin, loop_open_count(loop),
                             loop->context->now, &accepted))
        session = loop_begin(loop, &accepted);
    if (!session)
        return;
    session->is_admin = true;
    sessions_list_add(&loop->sessions.admins, session);
    sessions_update(&loop->sessions, session);
}

/* --- serving --------------------------------------------------------------------------------- */

static void loop_serve(struct loop *loop, struct session *session, short events)
{
    if (session->conn.want_write && (events & (POLLOUT | POLLHUP | POLLERR))) {
        session_writable(loop->context, session);
        if (session->conn.tls) /* what could not be written may have been a handshake */
            events |= POLLIN;
    }
    if (events & (POLLIN | POLLHUP | POLLERR))
        loop_read(loop, session);
    sessions_update(&loop->sessions, session);
}

/* Serves the active sessions that poll() found ready, `count` of them polled. Where the budget
 * ends, the next iteration begins. `active` grows at its end meanwhile. */
static void loop_serve_ready(struct loop *loop, size_t count)
{
    size_t begin = loop->first_ready < count ? loop->first_ready : 0;

    conn_begin_batch(loop->shared);
    loop->first_ready = 0;
    for (size_t i = 0; i < count; i++) {
        size_t place = (begin + i) % count;
        short events = loop->polls[POLL_SESSIONS + place].revents;

        if (!events)
            continue;
        if (!loop->first_ready && conn_over_budget(loop->shared))
            loop->first_ready = place;
        loop_serve(loop, loop->sessions.by_index[loop->sessions.active.at[place]], events);
    }
}

/* Goes on with held sessions, oldest first, as far as a budget of their own goes. */
static void loop_serve_held(struct loop *loop)
{
    size_t count = loop->sessions.held.count, served = 0;

    conn_begin_batch(loop->shared);
    for (; served < count && !conn_over_budget(loop->shared); served++) {
        struct session *session = loop->sessions.by_index[loop->sessions.held.at[served]];

        session->on_held_list = false;
        session_continue(loop->context, session);
        sessions_update(&loop->sessions, session);
    }
    loop->sessions.held.count -= served;
    if (served)
        memmove(loop->sessions.held.at, loop->sessions.held.at + served,
                loop->sessions.held.count * sizeof *loop->sessions.held.at);
}

/* Takes back sessions that pollers found ready, as far as the budget goes. */
static void loop_take_ready(struct loop *loop)
{
    uint32_t ready[READY_BATCH];
    size_t count = READY_BATCH;

    while (count == READY_BATCH) {
        loop->ready_left = conn_over_budget(loop->shared);
        if (loop->ready_left)
            return;
        count = poller_ready(loop->options.pollers, ready, READY_BATCH);
        for (size_t i = 0; i < count; i++) {
            struct session *session = loop->sessions.by_index[ready[i]];

            session->polled_elsewhere = false;
            loop->context->metrics.parked--;
            sessions_activate(&loop->sessions, session);
            if (session_wants_input(session))
                loop_read(loop, session);
            sessions_update(&loop->sessions, session);
        }
    }
}

static void loop_take_account_results(struct loop *loop)
{
    struct account_result result;
    struct api_response response;

    api_take_webhooks(loop->context->api);
    while (account_take_result(loop->context->accounts, &result)) {
        struct session *session = sessions_find(&loop->sessions, result.request_id);

        if (result.kind == ACCOUNT_LOOK_UP) {
            if (session && session->state == SESSION_WAIT) {
                session_take_again(loop->context, session);
                sessions_update(&loop->sessions, session);
            }
            continue;
        }
        session_log_account(loop->context, &result);
        api_finish(loop->context->api, &result, loop->context->unix_now, &response);
        response.system = (struct str){result.name, result.name_length};
        if (session && session->state == SESSION_WAIT) {
            session_respond(loop->context, session, &response);
            sessions_update(&loop->sessions, session);
        } else {
            buf_free(&response.body);
        }
    }
}

static void loop_take_result(struct loop *loop, const struct cluster_result *result)
{
    struct session *session = sessions_find(&loop->sessions, result->request_id);
    struct api_response response;

    if (result->is_admission && result->admission == CLUSTER_ADOPTED)
        session_adopt(loop->context, session, result);
    if (!session)
        return;
    if (result->is_admission) {
        session_admit(loop->context, session, result->admission, &result->claims,
                      result->result.error);
    } else if (session->state == SESSION_WAIT) {
        api_finish_command(result, &response);
        session_respond(loop->context, session, &response);
    }
    sessions_update(&loop->sessions, session);
}

static void loop_take_cluster_results(struct loop *loop)
{
    const struct cluster_result *result;

    while ((result = cluster_result(loop->context->cluster)))
        loop_take_result(loop, result);
}

/* Continues walks. On a node that is alone they are of sessions, otherwise the cluster takes them.
 */
static void loop_run_walks(struct loop *loop)
{
    struct roster_walk *walk;

    loop->walks_left = roster_run(loop->context->hub);
    while (!loop->context->cluster && (walk = roster_take(loop->context->hub))) {
        struct cluster_result result = {
            .request_id = walk->id, .command = walk->command.kind, .result = walk->result};

        loop_take_result(loop, &result);
        roster_free(walk);
    }
}

/* --- timers and notices ---------------------------------------------------------------------- */

/* A client was pinged: pings those of the same poller, so that their pongs wake it together. */
static void loop_ping_siblings(struct loop *loop, const struct session *session)
{
    uint32_t siblings[POLLER_SLOTS];
    size_t count = 0;

    if (session->poller_slot >= 0)
        count = poller_siblings(loop->options.pollers, session->poller_slot, siblings);
    for (size_t i = 0; i < count; i++) {
        struct session *sibling = loop->sessions.by_index[siblings[i]];

        session_ping_early(loop->context, sibling);
        sessions_update(&loop->sessions, sibling);
    }
}

static void loop_run_timers(struct loop *loop)
{
    const struct timer *first;

    while ((first = timer_first(&loop->sessions.timers)) && first->at <= loop->context->now) {
        struct session *session = loop->sessions.by_index[first->id];

        timer_clear(&loop->sessions.timers, session->index);
        if (session_expire(loop->context, session))
            loop_ping_siblings(loop, session);
        sessions_update(&loop->sessions, session);
    }
}

/* While all sessions together keep more than max_buffered, ends the largest. */
static void loop_shed(struct loop *loop)
{
    struct session *largest;

    for (int i = 0;
         i < SHED_PER_ITERATION && loop->shared->buffered > loop->context->config->max_buffered &&
         (largest = sessions_largest(&loop->sessions));
         i++) {
        session_shed(loop->context, largest);
        sessions_update(&loop->sessions, largest);
        loop->context->metrics.shed++;
    }
}

/* --- flushing, reaping, handing over --------------------------------------------------------- */

/* Writes what is queued, one call per connection: a few pushes, else the responses, first. Of
 * pushes to a large crowd a batch leaves now; the others wait for the next iterations, and what is
 * sent to them until then shares their call, so that no request waits until thousands have been
 * written to. The batch grows with what is queued: some thirty short messages, or one of 16 KiB,
 * wait for each at the most. */
static void loop_flush(struct loop *loop)
{
    size_t batch = conn_end_batches(loop->shared) / BACKLOG_PER_PUSH, pushes = 0;
    struct conn *conn;

    if (batch < PUSHES_PER_ITERATION)
        batch = PUSHES_PER_ITERATION;
    while (pushes < batch && (conn = conn_next_dirty(loop->shared))) {
        struct session *session = (struct session *)conn; /* its first member */

        pushes += !conn->has_response;
        conn_flush(conn);
        if (conn->want_write)
            sessions_activate(&loop->sessions, session);
        /* a push changes nothing else for a client; its session's other half is not in the cache */
        if (conn->has_response || conn->broken || conn->close_queued)
            sessions_update(&loop->sessions, session);
    }
}

/* Hands a session to a poller, if it only waits for input and there is a slot. */
static bool loop_arm(struct loop *loop, struct session *session)
{
    if (session->state == SESSION_DEAD || session->polled_elsewhere ||
        !session_wants_input(session))
        return false;
    if (session->poller_slot < 0 && loop->context->now >= loop->slots_after) {
        session->poller_slot = poller_take_slot(loop->options.pollers, session->index);
        if (session->poller_slot < 0)
            loop->slots_after = loop->context->now + SLOT_PAUSE;
    }
    if (session->poller_slot < 0)
        return false;
    poller_arm(loop->options.pollers, session->poller_slot, session->conn.fd);
    session->polled_elsewhere = true;
    loop->context->metrics.parked++;
    return true;
}

/* Hands over the active WebSocket sessions, and `surplus` others: those active longest. */
static void loop_hand_over(struct loop *loop, size_t surplus)
{
    size_t kept = 0;

    for (size_t i = 0; i < loop->sessions.active.count; i++) {
        struct session *session = loop->sessions.by_index[loop->sessions.active.at[i]];

        if ((session->state == SESSION_OPEN || surplus > 0) && loop_arm(loop, session) &&
            session->state != SESSION_OPEN)
            surplus--;
        session->active = !session->polled_elsewhere || session->conn.want_write;
        if (session->active)
            loop->sessions.active.at[kept++] = session->index;
    }
    loop->sessions.active.count = kept;
}

static void loop_hand_over_idle(struct loop *loop)
{
    if (loop->sessions.count <= POLLER_FROM)
        return;
    loop_hand_over(loop, 0);
    if (loop->sessions.active.count > ACTIVE_MAX)
        loop_hand_over(loop, loop->sessions.active.count - ACTIVE_KEPT);
    poller_commit(loop->options.pollers);
}

/* --- stopping -------------------------------------------------------------------------------- */

/* The first request to stop: the node is no longer ready, so that balancers look elsewhere. */
static void loop_announce_stop(struct loop *loop)
{
    const struct config *config = loop->context->config;
    struct log_field fields[] = {{.name = "connections", .number = (int64_t)loop->sessions.count},
                                 {.name = "drain_wait_ms", .number = (int64_t)config->drain_wait},
                                 {.name = "drain_ms", .number = (int64_t)config->drain},
                                 {0}};

    log_write(loop->context->log, LOG_INFO,
              "stopping: clients are closed over drain_ms; a second signal ends it at once",
              fields);
    os_notify("STOPPING=1\nSTATUS=draining");
    loop->context->leaving = true;
    loop->stop_asked = loop->context->now;
}

/* After drain_wait: accepts no more, and begins to end sessions, DRAIN_RATE a second at least. */
static void loop_begin_stop(struct loop *loop)
{
    const struct config *config = loop->context->config;
    bool may_move = loop->context->cluster && config->linger;
    int64_t drain = (int64_t)config->drain, most = may_move ? drain / 2 : drain;
    int64_t quickest = (int64_t)loop->sessions.count * 1000 / DRAIN_RATE;

    listener_stop(loop->listener);
    loop->context->stopping = true;
    loop->stop_began = loop->context->now;
    loop->stop_ends = loop->context->now + (quickest < most ? quickest : most);
    loop->away_ends = may_move ? loop->context->now + drain : loop->stop_ends;
    loop->stop_total = loop->sessions.count;
}

/* Ends the sessions that are due by now, evenly over the time, so that clients do not all come back
 * at once. Sessions of the admin listener stay: they tell that this node is draining. */
static void loop_stop_batch(struct loop *loop)
{
    int64_t spread = loop->stop_ends - loop->stop_began;
    int64_t passed = loop->context->now - loop->stop_began;
    size_t due = SIZE_MAX;

    if (passed < spread)
        due = (size_t)((int64_t)loop->stop_total * passed / spread);
    for (; loop->stop_index < loop->sessions.used && loop->stop_done < due; loop->stop_index++) {
        struct session *session = loop->sessions.by_index[loop->stop_index];

        if (!session || session->is_admin)
            continue;
        session_stop(loop->context, session);
        sessions_update(&loop->sessions, session);
        loop->stop_done++;
    }
}

static void loop_stop_if_asked(struct loop *loop)
{
    if (*loop->options.stops && !loop->context->leaving)
        loop_announce_stop(loop);
    if (loop->context->leaving && !loop->context->stopping &&
        loop->context->now >= loop->stop_asked + (int64_t)loop->context->config->drain_wait)
        loop_begin_stop(loop);
    if (loop->context->stopping)
        loop_stop_batch(loop);
}

/* How many clients there may be with those that are away: when stopping, none of these in the end.
 */
static uint64_t loop_clients_max(const struct loop *loop)
{
    bool ends = loop->context->stopping && loop->context->now >= loop->away_ends;

    return ends ? 0 : loop->listener->max_connections;
}

/* Tells the webhooks that this node ends. True if they have been told, or `drain` is over. */
static bool loop_finish_webhooks(struct loop *loop)
{
    struct webhooks *webhooks = loop->context->hub->webhooks;
    int64_t ends = loop->stop_began + (int64_t)loop->context->config->drain + LOOP_DRAIN_GRACE;
    struct webhook_stats stats = {0};

    if (!webhooks)
        return true;
    if (!loop->stop_told)
        webhook_finish(webhooks);
    loop->stop_told = true;
    webhook_measure(webhooks, &stats);
    return !stats.waiting || loop->context->now >= ends;
}

/* True when there is nothing left to wait for. */
static bool loop_has_stopped(struct loop *loop)
{
    if (loop->context->leaving && *loop->options.stops > 1)
        return true;
    return loop->context->stopping &&
           ((loop->sessions.count == loop->sessions.admins.count &&
             !loop->context->hub->channels.resumes.away &&
             cluster_is_idle(loop->context->cluster)) ||
            loop->context->now >= loop->away_ends + LOOP_DRAIN_GRACE) &&
           loop_finish_webhooks(loop);
}

/* --- one iteration --------------------------------------------------------------------------- */

static void loop_take_time(struct loop *loop)
{
    struct session_context *context = loop->context;
    int64_t unix_now = (int64_t)time(NULL);

    context->now = context->hub->now_ms = os_now_ms();
    if (context->unix_now != unix_now) {
        context->unix_now = context->hub->now = unix_now;
        http_date(unix_now, context->date);
    }
    if (loop->options.tls)
        tls_context_renew(loop->options.tls, unix_now);
}

/* Builds the entries for poll() from the state of things; 0 without memory. */
static size_t loop_build_polls(struct loop *loop)
{
    bool paused = listener_is_paused(loop->listener, loop->context->now);
    size_t active = loop->sessions.active.count;
    struct pollfd *polls;

    if (!loop_reserve_polls(loop, active))
        return 0;
    polls = loop->polls;
    polls[POLL_WAKE] = (struct pollfd){loop->options.wake, POLLIN, 0};
    polls[POLL_CLIENTS] = (struct pollfd){paused ? -1 : loop->listener->clients, POLLIN, 0};
    polls[POLL_ADMIN] = (struct pollfd){paused ? -1 : loop->listener->admin, POLLIN, 0};
    for (size_t i = 0; i < active; i++) {
        const struct session *session = loop->sessions.by_index[loop->sessions.active.at[i]];
        bool reads = !session->polled_elsewhere && session_wants_input(session);
        int events = (reads ? POLLIN : 0) | (session->conn.want_write ? POLLOUT : 0);

        polls[POLL_SESSIONS + i] =
            (struct pollfd){events ? session->conn.fd : -1, (short)events, 0};
    }
    cluster_poll(loop->context->cluster, polls + POLL_SESSIONS + active);
    return POLL_SESSIONS + active + cluster_poll_count(loop->context->cluster);
}

static int loop_timeout(const struct loop *loop)
{
    const struct timer *first = timer_first(&loop->sessions.timers);
    int64_t now = loop->context->now, until = cluster_deadline(loop->context->cluster);

    if (conn_any_dirty(loop->shared) || loop->sessions.held.count || loop->ready_left ||
        loop->away_left || loop->notices_left || loop->walks_left)
        return 0;
    if (first && until > first->at)
        until = first->at;
    if (until > hub_resume_deadline(loop->context->hub))
        until = hub_resume_deadline(loop->context->hub);
    if (loop->context->leaving && until > now + DRAIN_TICK)
        until = now + DRAIN_TICK;
    if (listener_is_paused(loop->listener, now) && until > now + LISTENER_PAUSE)
        until = now + LISTENER_PAUSE;
    if (until > now + LOG_PAUSE && !log_catch_up(loop->context->log))
        until = now + LOG_PAUSE;
    return until <= now ? 0 : until - now > INT32_MAX ? -1 : (int)(until - now);
}

/* Leaves what is counted here where /metrics reads it. */
static void loop_measure(struct loop *loop)
{
    struct metrics *metrics = &loop->context->metrics;

    metrics->connections = loop->sessions.count - loop->sessions.admins.count;
    metrics->max_connections = loop->listener->max_connections;
    metrics->threads = poller_count(loop->options.pollers);
}

/* The phases of an iteration; see the head of this file. */
static void loop_iterate(struct loop *loop)
{
    struct session_context *context = loop->context;
    size_t count = loop_build_polls(loop), polled = loop->sessions.active.count;

    if (count == 0) { /* without memory for poll() nothing can be known */
        poll(NULL, 0, LISTENER_PAUSE);
        return;
    }
    if (poll(loop->polls, (nfds_t)count, loop_timeout(loop)) < 0)
        for (size_t i = 0; i < count; i++)
            loop->polls[i].revents = 0;
    loop_take_time(loop);
    loop->handshakes = 0;

    if (loop->polls[POLL_WAKE].revents || loop->ready_left) {
        os_drain(loop->options.wake);
        loop_take_ready(loop);
        loop_take_account_results(loop);
    }
    conn_begin_batch(loop->shared);
    cluster_serve(context->cluster, loop->polls + POLL_SESSIONS + polled, context->now);
    loop_serve_ready(loop, polled);
    if (loop->polls[POLL_CLIENTS].revents)
        loop_accept_clients(loop);
    if (loop->polls[POLL_ADMIN].revents)
        loop_accept_admin(loop);
    loop_serve_held(loop);
    loop_take_cluster_results(loop);
    loop_run_walks(loop);
    loop_run_timers(loop);
    loop_stop_if_asked(loop);
    loop->away_left = hub_resume_expire(context->hub, loop_clients_max(loop));
    loop->notices_left = hub_flush_notices(context->hub, NOTICES_PER_ITERATION);
    loop_shed(loop);

    cluster_flush(context->cluster);
    loop_flush(loop);
    sessions_reap(&loop->sessions);
    loop_hand_over_idle(loop);
    loop_measure(loop);
}

/* An iteration in any case: calls without end must not keep clients waiting without end. */
bool loop_run(struct loop *loop)
{
    loop_take_time(loop);
    while (!loop_has_stopped(loop) && !cluster_fatal_error(loop->context->cluster)) {
        loop_iterate(loop);
        if (*loop->options.calls != loop->calls) {
            loop->calls = *loop->options.calls;
            return true;
        }
    }
    log_write(loop->context->log, LOG_INFO, "stopped", NULL);
    return false;
}

/* --- opening, changing, closing -------------------------------------------------------------- */

struct loop *loop_open(const struct loop_options *options)
{
    struct loop *loop = malloc(sizeof *loop);

    if (loop)
        *loop = (struct loop){.options = *options,
                              .context = options->context,
                              .shared = options->shared,
                              .listener = options->context->listener,
                              .sessions = {.context = options->context,
                                           .shared = options->shared,
                                           .pollers = options->pollers}};
    if (loop && options->tls)
        options->context->metrics.certificate_expiry = tls_context_expiry(options->tls);
    return loop;
}

void loop_reload(struct loop *loop, struct tls_context *tls)
{
    sessions_refresh(&loop->sessions);
    if (!tls)
        return;
    tls_context_free(loop->options.tls);
    loop->options.tls = tls;
    loop->context->metrics.certificate_expiry = tls_context_expiry(tls);
}

void loop_close(struct loop *loop)
{
    while (conn_next_dirty(loop->shared))
        ; /* the list must not outlive those on it */
    sessions_close(&loop->sessions);
    tls_context_free(loop->options.tls);
    free(loop->polls);
    free(loop);
}

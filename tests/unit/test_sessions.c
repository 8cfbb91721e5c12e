/* test_sessions.c - sessions.c: which session an id finds, which is evicted, and when one is
 * reaped. */
#include "sessions.h"

#include "node.h"

static struct listener listener;
static struct session_context context;
static struct sessions sessions;
static struct far_end fars[200];
static size_t opened;

static void fixture_open(void)
{
    node_open();
    node.config.max_per_ip = 1000;
    listener = (struct listener){
        .config = &node.config, .log = &node.log, .clients = -1, .admin = -1, .seed = 3};
    CHECK(listener_open(&listener));
    context = (struct session_context){.config = &node.config,
                                       .log = &node.log,
                                       .hub = &node.hub,
                                       .api = &node.api,
                                       .listener = &listener,
                                       .accounts = node.accounts,
                                       .now = 1000};
    sessions = (struct sessions){.context = &context, .shared = &node.shared};
    opened = 0;
}

static void fixture_close(void)
{
    while (conn_next_dirty(&node.shared))
        ;
    sessions_close(&sessions);
    CHECK(listener.tallies.count == 0);
    listener_close(&listener);
    for (size_t i = 0; i < opened; i++)
        far_close(&fars[i]);
    node_close();
}

/* Adds a session from 127.0.0.1. */
static struct session *add(void)
{
    struct listener_connection accepted = {
        .fd = far_open(&fars[opened++]),
        .address = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}};
    struct session *session = sessions_add(&sessions, &accepted);

    CHECK(session && listener_count(&listener, accepted.address));
    return session;
}

/* Ends a session as a broken connection does. */
static void end(struct session *session)
{
    conn_kill(&session->conn);
    CHECK(conn_next_dirty(&node.shared) == &session->conn);
    sessions_update(&sessions, session);
    CHECK(session->state == SESSION_DEAD);
}

static void an_id_is_found_while_its_session_lives(void)
{
    struct session *first, *second;
    uint64_t id;

    fixture_open();
    for (int i = 0; i < 70; i++) /* more than there is room for at first */
        add();
    CHECK(sessions.count == 70 && sessions.active.count == 70);
    first = sessions.by_index[69];
    id = session_request_id(first);
    CHECK(sessions_find(&sessions, id) == first);
    CHECK(!sessions_find(&sessions, id + 1) && !sessions_find(&sessions, UINT64_MAX));
    end(first);
    sessions_reap(&sessions);
    CHECK(sessions.count == 69 && sessions.active.count == 69 && !sessions.by_index[69]);
    CHECK(!sessions_find(&sessions, id));
    second = add(); /* in the place of the first */
    CHECK(second->index == (uint32_t)id && !sessions_find(&sessions, id));
    CHECK(sessions_find(&sessions, session_request_id(second)) == second);
    fixture_close();
}

static void one_that_is_polled_or_held_is_reaped_later(void)
{
    struct session *session;

    fixture_open();
    session = add();
    session->polled_elsewhere = true;
    end(session);
    sessions_update(&sessions, session); /* is queued once */
    CHECK(sessions.dead.count == 1);
    sessions_reap(&sessions);
    CHECK(sessions.count == 1 && sessions.dead.count == 0 && sessions.active.count == 0);
    session->polled_elsewhere = false;
    session->on_held_list = true;
    sessions_update(&sessions, session);
    sessions_reap(&sessions);
    CHECK(sessions.count == 1);
    session->on_held_list = false;
    sessions_update(&sessions, session);
    sessions_reap(&sessions);
    CHECK(sessions.count == 0 && !timer_first(&sessions.timers));
    fixture_close();
}

static void the_one_silent_longest_is_evicted(void)
{
    static const int64_t seen[] = {30, 10, 20};
    struct session *list[COUNT(seen)];

    fixture_open();
    for (size_t i = 0; i < COUNT(seen); i++) {
        list[i] = add();
        list[i]->last_seen = seen[i];
        sessions_list_add(&sessions.rejected, list[i]);
    }
    sessions_evict(&sessions, &sessions.rejected);
    CHECK(conn_next_dirty(&node.shared) == &list[1]->conn);
    sessions_update(&sessions, list[1]);
    CHECK(list[1]->state == SESSION_DEAD);
    sessions_evict(&sessions, &sessions.rejected); /* a place is about to be free */
    CHECK(list[0]->state != SESSION_DEAD && list[2]->state != SESSION_DEAD);
    sessions_reap(&sessions);
    CHECK(sessions.rejected.count == 2 && sessions.count == 2);
    fixture_close();
}

static void a_refresh_counts_again_and_sets_earlier_timers(void)
{
    struct session *session;

    fixture_open();
    session = add();
    add()->is_admin = true; /* does not count */
    sessions_update(&sessions, session);
    CHECK(timer_first(&sessions.timers)->at == 1000 + (int64_t)node.config.head_timeout);
    node.config.head_timeout = 7;
    sessions_refresh(&sessions);
    CHECK(timer_first(&sessions.timers)->at == 1007);
    node.config.max_per_ip = 2;
    CHECK(listener_count(&listener, session->conn.address));
    CHECK(!listener_count(&listener, session->conn.address));
    listener_uncount(&listener, session->conn.address);
    listener_uncount(&listener, session->conn.address);
    fixture_close();
}

int main(void)
{
    test_run("an id is found while its session lives", an_id_is_found_while_its_session_lives);
    test_run("one that is polled or held is reaped later",
             one_that_is_polled_or_held_is_reaped_later);
    test_run("the one silent longest is evicted", the_one_silent_longest_is_evicted);
    test_run("a refresh counts again and sets earlier timers",
             a_refresh_counts_again_and_sets_earlier_timers);
    return test_finish();
}

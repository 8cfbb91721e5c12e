/* test_conn.c - conn.c: unused input is kept, and what is queued leaves whole and in order. */
#include "conn.h"

#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WIRES 3
#define NO_LIMIT SIZE_MAX

/* Connections of one loop, and the other ends of their sockets. */
struct wires {
    struct conn_shared shared;
    struct conn conns[WIRES];
    int peers[WIRES];
};

static struct wires wires; /* of the present test */

static void open_wires(struct wires *some)
{
    memset(some, 0, sizeof *some);
    for (int i = 0; i < WIRES; i++) {
        int ends[2] = {-1, -1}, little = 4096;

        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        for (int end = 0; end < 2; end++) {
            fcntl(ends[end], F_SETFL, O_NONBLOCK);
            setsockopt(ends[end], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
        }
        conn_open(&some->conns[i], ends[0], &some->shared);
        some->peers[i] = ends[1];
    }
}

static void close_wires(struct wires *some)
{
    while (conn_next_dirty(&some->shared))
        ;
    for (int i = 0; i < WIRES; i++) {
        if (some->conns[i].fd >= 0)
            conn_close(&some->conns[i]);
        if (some->peers[i] >= 0)
            close(some->peers[i]);
    }
    CHECK(conn_next_dirty(&some->shared) == NULL);
}

static void reopen_wires(void)
{
    close_wires(&wires);
    open_wires(&wires);
}

static void close_peer(int i)
{
    close(wires.peers[i]);
    wires.peers[i] = -1;
}

static bool peer_sends(int i, struct str bytes)
{
    return send(wires.peers[i], bytes.at, bytes.length, 0) == (ssize_t)bytes.length;
}

/* True if exactly these bytes, and nothing more, have reached the peer. */
static bool peer_has(int i, struct str bytes)
{
    char got[4096];
    ssize_t n = recv(wires.peers[i], got, sizeof got, 0);

    return str_equal((struct str){got, n > 0 ? (size_t)n : 0}, bytes);
}

static bool peer_sees_end(int i)
{
    char byte;

    return recv(wires.peers[i], &byte, 1, 0) == 0;
}

static bool is(struct conn_bytes bytes, const char *text)
{
    return str_equal((struct str){bytes.at, bytes.length}, str_from(text));
}

static struct conn_bytes without(struct conn_bytes bytes, size_t used)
{
    return (struct conn_bytes){bytes.at + used, bytes.length - used};
}

/* Fills once and compares the outcome. */
static bool fills(struct conn *conn, enum conn_status status, const char *text)
{
    struct conn_bytes bytes = {0};

    return conn_fill(conn, NO_LIMIT, &bytes) == status && is(bytes, text);
}

static void a_quiet_connection_owns_no_buffer(void)
{
    struct conn_bytes bytes;

    CHECK(fills(&wires.conns[0], CONN_BLOCKED, ""));
    CHECK(peer_sends(0, STR("hello")));
    CHECK(conn_fill(&wires.conns[0], NO_LIMIT, &bytes) == CONN_READY);
    CHECK(is(bytes, "hello"));
    CHECK(bytes.at == wires.shared.scratch);
    conn_keep(&wires.conns[0], without(bytes, 5));
    CHECK(wires.conns[0].input == NULL);
    CHECK(conn_kept(&wires.conns[0]).length == 0);
    CHECK(fills(&wires.conns[0], CONN_BLOCKED, ""));
}

static void keeps_what_was_not_used(void)
{
    struct conn *conn = &wires.conns[0];
    struct conn_bytes bytes;

    CHECK(peer_sends(0, STR("abc")));
    conn_fill(conn, NO_LIMIT, &bytes);
    conn_keep(conn, without(bytes, 1));
    CHECK(is(conn_kept(conn), "bc"));
    /* the scratch buffer is everybody's */
    CHECK(peer_sends(1, STR("xyz")));
    CHECK(fills(&wires.conns[1], CONN_READY, "xyz"));
    CHECK(is(conn_kept(conn), "bc"));
    CHECK(fills(conn, CONN_BLOCKED, "bc"));
    CHECK(peer_sends(0, STR("de")));
    CHECK(conn_fill(conn, NO_LIMIT, &bytes) == CONN_READY);
    CHECK(bytes.at == wires.shared.scratch); /* little is kept: it is read on behind a copy */
    conn_keep(conn, bytes);
    bytes = conn_kept(conn);
    CHECK(is(bytes, "bcde"));
    bytes.at[1] = 'C'; /* it is writable */
    conn_keep(conn, without(bytes, 1));
    CHECK(is(conn_kept(conn), "Cde"));
    conn_keep(conn, without(conn_kept(conn), 3));
    CHECK(conn->input == NULL);
    CHECK(fills(conn, CONN_BLOCKED, ""));
}

#define STREAM 300000

/* The byte at a place of a stream that repeats late. */
static char stream_byte(size_t at)
{
    return (char)(at * 31 + at / 251);
}

/* Sends more of the stream, as much as the socket takes of a random length. */
static void send_stream(int fd, size_t *sent, unsigned *seed)
{
    char bytes[3000];
    size_t length = 1 + (unsigned)rand_r(seed) % sizeof bytes;
    ssize_t n;

    if (length > STREAM - *sent)
        length = STREAM - *sent;
    for (size_t i = 0; i < length; i++)
        bytes[i] = stream_byte(*sent + i);
    n = send(fd, bytes, length, 0);
    if (n > 0)
        *sent += (size_t)n;
}

/* Compares bytes with the stream from `at` on. */
static bool in_stream(size_t at, struct conn_bytes bytes)
{
    for (size_t i = 0; i < bytes.length; i++)
        if (bytes.at[i] != stream_byte(at + i))
            return false;
    return true;
}

static void input_of_any_pieces_stays_whole(void)
{
    size_t sent = 0, used = 0, most = 0;
    unsigned seed = 3;
    bool good = true;

    while (good && used < STREAM) {
        struct conn_bytes bytes = {0};
        size_t take;

        send_stream(wires.peers[0], &sent, &seed);
        good = conn_fill(&wires.conns[0], NO_LIMIT, &bytes) != CONN_ENDED && in_stream(used, bytes);
        take = (unsigned)rand_r(&seed) % (bytes.length + 1);
        if (rand_r(&seed) % 4 == 0 || sent == STREAM)
            take = bytes.length;
        if (bytes.length - take > most)
            most = bytes.length - take;
        used += take;
        conn_keep(&wires.conns[0], without(bytes, take));
    }
    CHECK(good);
    CHECK(used == STREAM && sent == STREAM);
    CHECK(most > 2000); /* or this has not tried much */
}

static void keeps_no_more_than_its_limit(void)
{
    static const size_t limits[] = {1, 2, 63, 64, 65, 1000, 20000, 70000, 131073};
    static char many[CONN_SCRATCH];

    for (size_t i = 0; i < COUNT(limits); i++) {
        struct conn *conn = &wires.conns[0];
        struct conn_bytes bytes = {0};
        size_t kept = 0, sent = 0;
        bool good = true;

        while (good && kept < limits[i]) { /* below the limit it goes on */
            if (kept == sent) {
                size_t half = (limits[i] - kept + 1) / 2;
                ssize_t n = send(wires.peers[0], many, half < 4000 ? half : 4000, 0);

                sent += n > 0 ? (size_t)n : 0;
            }
            good = conn_fill(conn, limits[i], &bytes) == CONN_READY && bytes.length > kept;
            conn_keep(conn, bytes);
            kept = conn_kept(conn).length;
        }
        CHECK(good && kept == limits[i]);
        CHECK(peer_sends(0, STR("more")));
        CHECK(conn_fill(conn, limits[i], &bytes) == CONN_ENDED);
        CHECK(bytes.length == kept && conn_kept(conn).length == kept);
        CHECK(!conn->broken);
        reopen_wires();
    }
}

/* Sends as much as the socket takes. */
static void flood(int fd)
{
    char many[1000] = {0};

    while (send(fd, many, sizeof many, 0) > 0)
        ;
}

static void a_flood_grows_input_to_the_limit(void)
{
    static const size_t limits[] = {20000, 70000, 131073};

    for (size_t i = 0; i < COUNT(limits); i++) {
        struct conn_bytes bytes;

        flood(wires.peers[0]);
        while (conn_fill(&wires.conns[0], limits[i], &bytes) == CONN_READY) {
            conn_keep(&wires.conns[0], bytes);
            flood(wires.peers[0]);
        }
        CHECK(bytes.length == limits[i]);
        reopen_wires();
    }
}

static void one_read_fills_the_scratch_buffer_at_most(void)
{
    static const size_t kept[] = {0, 1, 4095, 4096, 4097};
    static char many[2 * CONN_SCRATCH];
    int large = 4 * CONN_SCRATCH;

    for (size_t i = 0; i < COUNT(kept); i++) {
        struct conn_bytes bytes = {0};

        setsockopt(wires.peers[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
        setsockopt(wires.conns[0].fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        conn_keep(&wires.conns[0], (struct conn_bytes){many, kept[i]});
        CHECK(send(wires.peers[0], many, sizeof many, 0) > CONN_SCRATCH);
        CHECK(conn_fill(&wires.conns[0], NO_LIMIT, &bytes) == CONN_READY);
        CHECK(bytes.length > kept[i] && bytes.length <= CONN_SCRATCH);
        reopen_wires();
    }
}

static void owners_are_told_apart(void)
{
    unsigned char one[16] = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}, other[16];

    memcpy(other, one, 16);
    CHECK(str_equal(conn_owner(one), conn_owner(other)));
    other[15] = 2; /* another IPv4 address is another's */
    CHECK(!str_equal(conn_owner(one), conn_owner(other)));
    memcpy(one, "\x20\x01\x0d\xb8\1\2\3\4", 8);
    memcpy(other, one, 16);
    other[8] = other[15] = 1; /* the same network of IPv6 */
    CHECK(str_equal(conn_owner(one), conn_owner(other)));
    other[7] = 5;
    CHECK(!str_equal(conn_owner(one), conn_owner(other)));
}

static void tells_the_end(void)
{
    struct conn_bytes bytes;

    CHECK(peer_sends(0, STR("last")));
    close_peer(0);
    CHECK(conn_fill(&wires.conns[0], NO_LIMIT, &bytes) == CONN_READY);
    conn_keep(&wires.conns[0], without(bytes, 1));
    CHECK(fills(&wires.conns[0], CONN_ENDED, "ast"));
    CHECK(fills(&wires.conns[0], CONN_ENDED, "ast"));

    close_peer(1);
    CHECK(fills(&wires.conns[1], CONN_ENDED, ""));

    CHECK(peer_sends(2, STR("ignored")));
    conn_kill(&wires.conns[2]);
    bytes = (struct conn_bytes){(char *)"stale", 5};
    CHECK(conn_fill(&wires.conns[2], NO_LIMIT, &bytes) == CONN_ENDED);
    CHECK(bytes.length == 0);
}

/* A unit of the input can be what kills its connection, while others wait behind it. */
static void input_in_use_outlives_a_kill(void)
{
    static const size_t lengths[] = {0, 3, 40000}; /* of what was kept before */
    static char many[1000];

    memset(many, 'm', sizeof many);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct conn *conn = &wires.conns[0];
        struct conn_bytes bytes = {0};
        size_t wrong = 0;

        while (bytes.length < lengths[i] && peer_sends(0, (struct str){many, 1000})) {
            conn_fill(conn, NO_LIMIT, &bytes);
            conn_keep(conn, bytes);
        }
        CHECK(peer_sends(0, STR("mmm")));
        CHECK(conn_fill(conn, NO_LIMIT, &bytes) == CONN_READY);
        conn_kill(conn);
        for (size_t at = 0; at < bytes.length; at++)
            wrong += bytes.at[at] != 'm';
        CHECK(wrong == 0);
        conn_keep(conn, without(bytes, 1));
        CHECK(conn_kept(conn).length == 0);
        reopen_wires();
    }
}

static void names_the_peer(void)
{
    static const struct {
        unsigned char address[16];
        const char *text;
    } rows[] = {
        {{[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}, "127.0.0.1"},
        {{[10] = 0xff, [11] = 0xff, 255, 255, 255, 255}, "255.255.255.255"},
        {{[15] = 1}, "::1"},
        {{0x20, 0x01, 0x0d, 0xb8, [15] = 0x2a}, "2001:db8::2a"},
        {{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0xff, 0xff},
         "2001:db8:1:2:3:4:5:ffff"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct conn conn = {0};
        char text[CONN_ADDRESS_MAX];

        memcpy(conn.address, rows[i].address, sizeof conn.address);
        conn_address(conn.address, text);
        CHECK(str_equal(str_from(text), str_from(rows[i].text)));
    }
}

static void queues_share_a_message(void)
{
    struct rcbuf *message = rcbuf_copy(STR("shared"));

    for (int i = 0; i < WIRES; i++) {
        CHECK(conn_queue(&wires.conns[i], message, NO_LIMIT));
        CHECK(message->references == 2 + (unsigned)i);
        CHECK(wires.conns[i].queued == 6);
    }
    CHECK(peer_has(0, STR(""))); /* nothing leaves before the flush */
    conn_flush(&wires.conns[0]);
    CHECK(message->references == 3);
    CHECK(wires.conns[0].queued == 0 && wires.conns[0].first == NULL);
    conn_kill(&wires.conns[1]);
    CHECK(message->references == 2);
    CHECK(conn_queue(&wires.conns[2], message, NO_LIMIT)); /* twice in one queue */
    CHECK(message->references == 3);
    conn_flush(&wires.conns[2]);
    CHECK(message->references == 1);
    CHECK(peer_has(0, STR("shared")));
    CHECK(peer_has(1, STR("")));
    CHECK(peer_has(2, STR("sharedshared")));
    rcbuf_release(message);
}

/* A ring turns, grows in the middle of its turn, and keeps the order. */
static void a_ring_grows_in_order(void)
{
    struct conn *conn = &wires.conns[0];
    size_t in = 0, out = 0;

    for (size_t most = 3; most < 200; most += 7) {
        while (in < out + most) {
            struct rcbuf *message = rcbuf_new(1);

            message->bytes[0] = (char)in++;
            CHECK(conn_queue(conn, message, NO_LIMIT) && message->references == 2);
            rcbuf_release(message);
        }
        for (size_t i = 0; i < most; i++) {
            struct conn_cursor cursor = {.passed = (uint32_t)i};

            CHECK(conn_next_queued(conn, &cursor)->bytes[0] == (char)(out + i));
        }
        CHECK(conn_cost(conn) == most * (1 + CONN_MESSAGE_COST));
        /* drops all but the first, which has begun, or, every other time, all */
        conn->sent = most % 2 ? 0 : 1;
        conn_drop_queue(conn);
        CHECK(conn->first == NULL || (most % 2 == 0 && conn->first->bytes[0] == (char)out));
        CHECK(conn->ring == NULL);
        conn->sent = 0;
        conn_drop_queue(conn);
        out = in;
    }
    CHECK(wires.shared.buffered == 0 && wires.shared.waiting == 0);
}

static struct rcbuf *number_message(char number)
{
    return rcbuf_copy((struct str){&number, 1});
}

/* Queues what `text` says: a digit is a message, a letter a pong. */
static void queue_all(struct conn *conn, const char *text)
{
    for (; *text; text++) {
        struct rcbuf *message = number_message(*text);

        if (*text >= 'a')
            CHECK(conn_queue_pong(conn, message, NO_LIMIT));
        else
            CHECK(conn_queue(conn, message, NO_LIMIT));
        CHECK(message->references == 2);
        rcbuf_release(message);
    }
}

static void only_the_newest_pong_waits(void)
{
    static const struct {
        const char *queued, *left;
    } rows[] = {
        {"a", "a"},
        {"abc", "c"},
        {"1a", "1a"},
        {"1ab2c", "1c2"},
        {"a1b", "b1"},
        {"12345678a9b", "12345678b9"},
        {"1a23456789012345b", "1b23456789012345"},
        {"12a", "12a"},
        {"a1b2c3d", "d123"},
    };
    struct conn *conn = &wires.conns[0];

    for (size_t i = 0; i < COUNT(rows); i++) {
        queue_all(conn, rows[i].queued);
        CHECK(conn->queued == strlen(rows[i].queued)); /* who reads has each ping answered */
        conn_flush(conn);
        CHECK(peer_has(0, str_from(rows[i].queued)));
        conn->want_write = true; /* and who does not, the newest */
        queue_all(conn, rows[i].queued);
        CHECK(conn->queued == strlen(rows[i].left));
        CHECK(conn_cost(conn) == strlen(rows[i].left) * (1 + CONN_MESSAGE_COST));
        conn_writable(conn);
        CHECK(peer_has(0, str_from(rows[i].left)));
        CHECK(wires.shared.buffered == 0);
        queue_all(conn, "z"); /* what has left is not replaced */
        conn_flush(conn);
        CHECK(peer_has(0, STR("z")));
    }
}

/* A pong that is next in the queue is replaced as well, one that has begun to leave is not. */
static void a_pong_that_has_begun_stays(void)
{
    struct conn *conn = &wires.conns[0];
    struct rcbuf *pong = rcbuf_copy(STR("long pong"));

    queue_all(conn, "1a2");
    conn_flush(conn);
    CHECK(peer_has(0, STR("1a2")));
    CHECK(conn_queue_pong(conn, pong, NO_LIMIT));
    conn->sent = 1; /* as if the socket had taken no more */
    conn->queued--;
    wires.shared.waiting--;
    conn->want_write = true;
    queue_all(conn, "bc");
    CHECK(conn->first == pong && conn->queued == 8 + 1);
    conn_writable(conn);
    CHECK(peer_has(0, STR("ong pongc")));
    CHECK(conn->queued == 0 && wires.shared.waiting == 0 && wires.shared.buffered == 0);
    rcbuf_release(pong);
}

/* Memory is counted once for a message, however many queues hold it, and input by what it takes. */
static void memory_is_counted(void)
{
    struct rcbuf *message = rcbuf_copy(STR("shared"));
    struct conn_bytes bytes;

    for (int i = 0; i < WIRES; i++)
        CHECK(conn_queue(&wires.conns[i], message, NO_LIMIT));
    CHECK(wires.shared.buffered == 6 + CONN_MESSAGE_COST);
    for (int i = 0; i < WIRES; i++)
        conn_flush(&wires.conns[i]);
    CHECK(wires.shared.buffered == 0);
    CHECK(peer_sends(0, STR("kept")));
    conn_fill(&wires.conns[0], NO_LIMIT, &bytes);
    conn_keep(&wires.conns[0], bytes);
    CHECK(wires.shared.buffered == wires.conns[0].input->capacity && wires.shared.buffered >= 4);
    conn_keep(&wires.conns[0], (struct conn_bytes){0});
    CHECK(wires.shared.buffered == 0);
    rcbuf_release(message);
}

/* Each share of an iteration has the whole budget. */
static void shares_have_budgets(void)
{
    struct conn_shared shared = {0};

    CHECK(!conn_over_budget(&shared));
    shared.spent = CONN_BUDGET - 1;
    CHECK(!conn_over_budget(&shared));
    shared.flush_backlog = 1;
    CHECK(conn_over_budget(&shared));
    conn_begin_batch(&shared);
    CHECK(!conn_over_budget(&shared));
    shared.flush_backlog += CONN_BUDGET;
    CHECK(conn_over_budget(&shared));
    CHECK(conn_end_batches(&shared) == CONN_BUDGET + 1);
    CHECK(!conn_over_budget(&shared) && !shared.flush_backlog && !shared.spent && !shared.batch);
    CHECK(shared.exhausted == 2);
    conn_begin_batch(&shared);
    conn_end_batches(&shared);
    CHECK(shared.exhausted == 2);
}

/* Queues a message of the stream's next `length` bytes. */
static bool queue_stream(struct conn *conn, size_t at, size_t length)
{
    struct rcbuf *message = rcbuf_new(length);
    bool queued;

    for (size_t i = 0; i < length; i++)
        message->bytes[i] = stream_byte(at + i);
    queued = conn_queue(conn, message, NO_LIMIT);
    rcbuf_release(message);
    return queued;
}

/* Receives some of the stream as a slow peer would; false if it is not the stream. */
static bool receive_stream(int fd, size_t *at, size_t most)
{
    char bytes[3000];
    ssize_t n = recv(fd, bytes, most < sizeof bytes ? most : sizeof bytes, 0);

    if (n <= 0)
        return true;
    *at += (size_t)n;
    return in_stream(*at - (size_t)n, (struct conn_bytes){bytes, (size_t)n});
}

/* Many small messages, then big ones: more than one writev takes, and more than a socket does. */
static size_t message_length(size_t queued, unsigned *seed)
{
    unsigned most = queued < STREAM / 10 ? 40 : 9000;
    size_t length = (unsigned)rand_r(seed) % most;

    return length < STREAM - queued ? length : STREAM - queued;
}

static void leaves_whole_and_in_order(void)
{
    struct conn *conn = &wires.conns[0];
    size_t queued = 0, received = 0;
    unsigned seed = 5, blocked = 0;
    bool good = true;

    while (good && received < STREAM) {
        for (int burst = rand_r(&seed) % 100; burst > 0 && conn->queued < 50000; burst--) {
            size_t length = message_length(queued, &seed);

            good = good && queue_stream(conn, queued, length);
            queued += length;
        }
        conn_writable(conn);
        blocked += conn->want_write;
        good = good && conn->queued <= queued - received && !conn->broken &&
               receive_stream(wires.peers[0], &received, 1 + (unsigned)rand_r(&seed) % 5000);
    }
    CHECK(good);
    CHECK(blocked > 20); /* or this has not tried much */
    CHECK(queued == STREAM && conn->queued == 0);
    conn_writable(conn);
    CHECK(conn->first == NULL && conn->ring == NULL && conn->sent == 0);
}

/* Queues and flushes until the socket takes no more. */
static void fill_socket(struct conn *conn)
{
    struct rcbuf *message = rcbuf_new(1000);

    memset(message->bytes, 'f', message->length);
    while (!conn->want_write && !conn->broken) {
        conn_queue(conn, message, NO_LIMIT);
        conn_flush(conn);
    }
    rcbuf_release(message);
}

/* Reads until nothing is left, with flushes in between; returns how many bytes came. */
static size_t drain(int i)
{
    char bytes[4096];
    ssize_t n;
    size_t total = 0;

    while ((n = recv(wires.peers[i], bytes, sizeof bytes, 0)) > 0) {
        total += (size_t)n;
        conn_writable(&wires.conns[i]);
    }
    return total;
}

static void refuses_only_when_the_limit_waits(void)
{
    struct conn *conn = &wires.conns[0];
    struct rcbuf *ten = rcbuf_copy(STR("0123456789")), *one = rcbuf_copy(STR("x"));
    size_t waiting;

    CHECK(!conn_queue(conn, one, 0));
    CHECK(conn_queue(conn, ten, 1)); /* one message may pass the limit */
    CHECK(conn->queued == 10);
    CHECK(conn_queue(conn, ten, 11 + CONN_MESSAGE_COST)); /* not at the limit yet: no flush */
    CHECK(conn->queued == 20);
    CHECK(conn_queue(conn, one, 20 + 2 * CONN_MESSAGE_COST)); /* a flush makes room */
    CHECK(conn->queued == 1);
    CHECK(peer_has(0, STR("01234567890123456789")));
    conn_flush(conn);
    CHECK(peer_has(0, STR("x")));

    fill_socket(conn);
    waiting = conn_cost(conn);
    CHECK(!conn_queue(conn, ten, waiting));
    CHECK(!conn_queue(conn, ten, waiting - 1));
    CHECK(conn_cost(conn) == waiting && ten->references == 1);
    CHECK(conn_queue(conn, ten, waiting + 1));
    CHECK(conn_cost(conn) == waiting + 10 + CONN_MESSAGE_COST);
    CHECK(!conn->broken);
    rcbuf_release(ten);
    rcbuf_release(one);
}

static void waits_while_blocked(void)
{
    struct conn *conn = &wires.conns[0];
    char bytes[4096];
    size_t waiting;

    CHECK(!conn->want_write);
    fill_socket(conn);
    CHECK(conn->want_write);
    while (recv(wires.peers[0], bytes, sizeof bytes, 0) > 0)
        ;
    waiting = conn->queued;
    CHECK(waiting > 0);
    conn_flush(conn);
    CHECK(conn->queued == waiting && peer_has(0, STR("")));
    CHECK(drain(0) == 0);
    conn_writable(conn);
    CHECK(!conn->want_write && conn->queued == 0);
    CHECK(drain(0) == waiting);
}

static void drops_all_but_what_has_begun(void)
{
    struct conn *conn = &wires.conns[0];
    struct rcbuf *big = rcbuf_new(100000), *other = rcbuf_copy(STR("other"));

    memset(big->bytes, 'b', big->length);
    for (size_t more = 0; more < 2; more++) {
        conn_queue(conn, big, NO_LIMIT);
        conn_flush(conn);
        CHECK(conn->want_write && conn->sent > 0);
        conn_queue(conn, other, NO_LIMIT);
        conn_queue(conn, big, NO_LIMIT);
        conn_drop_queue(conn);
        CHECK(big->references == 2 && other->references == 1);
        CHECK(conn->queued == big->length - conn->sent);
        if (more) /* the queue goes on behind it */
            conn_queue(conn, other, NO_LIMIT);
        CHECK(drain(0) == big->length + more * other->length);
        CHECK(big->references == 1 && other->references == 1 && conn->queued == 0);
    }
    rcbuf_release(big);
    rcbuf_release(other);
}

/* A kill drops the queue, also what has begun to leave, and marks the connection; its fd stays. */
static void a_killed_one_stays_open_and_shows(void)
{
    struct rcbuf *big = rcbuf_new(100000);

    memset(big->bytes, 'b', big->length);
    for (int begun = 0; begun < 2; begun++) {
        struct conn *conn = &wires.conns[begun];

        conn_queue(conn, big, NO_LIMIT);
        conn_queue(conn, big, NO_LIMIT);
        if (begun)
            conn_flush(conn);
        else
            CHECK(conn_next_dirty(&wires.shared) == conn);
        CHECK(begun == (conn->sent > 0));
        conn_kill(conn); /* one of them is in the list already */
        CHECK(conn->broken && conn->queued == 0 && !conn->first && !conn->ring);
        CHECK(big->references == 1);
        CHECK(begun || peer_sees_end(begun));
        CHECK(fcntl(conn->fd, F_GETFD) >= 0);
        conn_kill(conn);
        conn_flush(conn);
        CHECK(conn_next_dirty(&wires.shared) == conn);
        CHECK(conn_next_dirty(&wires.shared) == NULL);
    }
    rcbuf_release(big);
}

static void swallows_what_nobody_will_read(void)
{
    struct rcbuf *message = rcbuf_copy(STR("late"));

    conn_queue(&wires.conns[0], message, NO_LIMIT);
    wires.conns[0].close_queued = true;
    conn_kill(&wires.conns[1]);
    for (int i = 0; i < 2; i++)
        for (size_t limit = 0; limit < 10; limit += 9)
            CHECK(conn_queue(&wires.conns[i], message, limit));
    CHECK(message->references == 2);
    CHECK(wires.conns[0].queued == 4 && wires.conns[1].queued == 0);
    conn_flush(&wires.conns[0]); /* what was queued before the end still leaves */
    CHECK(message->references == 1);
    CHECK(peer_has(0, STR("late")));
    CHECK(peer_sees_end(1));
    rcbuf_release(message);
}

static void dirty_ones_come_in_order(void)
{
    struct rcbuf *message = rcbuf_copy(STR("x"));
    static const struct {
        bool has_response[WIRES];
        int queued[5], order[WIRES];
    } rows[] = {
        {{false, false, false}, {0, 1, 2, 0, 1}, {0, 1, 2}},
        {{false, false, false}, {2, 0, 2, 2, 1}, {2, 0, 1}},
        {{true, true, true}, {2, 0, 2, 2, 1}, {2, 0, 1}},
        {{false, true, false}, {0, 1, 2, 1, 2}, {0, 2, 1}},
        {{true, false, true}, {2, 1, 0, 1, 2}, {1, 2, 0}},
    };

    CHECK(conn_next_dirty(&wires.shared) == NULL);
    for (size_t row = 0; row < COUNT(rows); row++) {
        for (int i = 0; i < WIRES; i++)
            wires.conns[i].has_response = rows[row].has_response[i];
        for (int i = 0; i < 5; i++)
            CHECK(conn_queue(&wires.conns[rows[row].queued[i]], message, NO_LIMIT));
        for (int i = 0; i < WIRES; i++)
            CHECK(conn_next_dirty(&wires.shared) == &wires.conns[rows[row].order[i]]);
        CHECK(conn_next_dirty(&wires.shared) == NULL);
    }
    rcbuf_release(message);
}

/* One response, queued first, and some pushes. */
static void few_pushes_leave_before_responses(void)
{
    static struct conn conns[CONN_FEW_PUSHES + 2];
    static struct conn_shared shared;
    struct rcbuf *message = rcbuf_copy(STR("x"));

    for (size_t pushes = CONN_FEW_PUSHES; pushes <= CONN_FEW_PUSHES + 1; pushes++) {
        size_t before = pushes <= CONN_FEW_PUSHES ? pushes : 0;

        for (size_t i = 0; i <= pushes; i++) {
            conn_open(&conns[i], -1, &shared);
            conns[i].has_response = i == 0;
            CHECK(conn_queue(&conns[i], message, NO_LIMIT));
        }
        for (size_t i = 1; i <= before; i++)
            CHECK(conn_next_dirty(&shared) == &conns[i]);
        CHECK(conn_next_dirty(&shared) == &conns[0]);
        for (size_t i = before + 1; i <= pushes; i++)
            CHECK(conn_next_dirty(&shared) == &conns[i]);
        CHECK(conn_next_dirty(&shared) == NULL && shared.push_count == 0);
        for (size_t i = 0; i <= pushes; i++)
            conn_close(&conns[i]);
    }
    rcbuf_release(message);
}

static void changing_places_loses_nobody(void)
{
    struct rcbuf *message = rcbuf_copy(STR("x"));

    conn_queue(&wires.conns[0], message, NO_LIMIT);
    wires.conns[0].has_response = true; /* it keeps the place it has */
    conn_queue(&wires.conns[0], message, NO_LIMIT);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[0]);
    CHECK(conn_next_dirty(&wires.shared) == NULL);
    conn_queue(&wires.conns[0], message, NO_LIMIT);
    conn_queue(&wires.conns[1], message, NO_LIMIT);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[1]);
    conn_queue(&wires.conns[1], message, NO_LIMIT); /* queued to while the list is gone through */
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[1]);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[0]);
    CHECK(conn_next_dirty(&wires.shared) == NULL);
    rcbuf_release(message);
}

static void a_peer_that_is_gone_breaks_it(void)
{
    struct rcbuf *message = rcbuf_copy(STR("unread"));

    for (int i = 0; i < WIRES; i++) {
        struct conn *conn = &wires.conns[i];

        CHECK(conn_queue(conn, message, NO_LIMIT));
        CHECK(i != 2 || conn_queue(conn, message, NO_LIMIT)); /* through writev */
        CHECK(conn_next_dirty(&wires.shared) == conn);
        close_peer(i);
        if (i == 1)
            CHECK(conn_queue(conn, message, 6)); /* the flush inside finds out */
        else
            conn_flush(conn);
        CHECK(conn->broken && conn->queued == 0 && conn->first == NULL);
        CHECK(message->references == 1);
        CHECK(conn_next_dirty(&wires.shared) == conn);
        CHECK(conn_next_dirty(&wires.shared) == NULL);
    }
    rcbuf_release(message);
}

static void finishing_ends_the_way_out_alone(void)
{
    struct rcbuf *message = rcbuf_copy(STR("last"));

    conn_queue(&wires.conns[0], message, NO_LIMIT);
    conn_flush(&wires.conns[0]);
    conn_finish(&wires.conns[0]);
    CHECK(!wires.conns[0].broken);
    CHECK(peer_has(0, STR("last")));
    CHECK(peer_sees_end(0));
    CHECK(peer_sends(0, STR("yet")));
    CHECK(fills(&wires.conns[0], CONN_READY, "yet"));
    conn_queue(&wires.conns[0], message, NO_LIMIT); /* too late: there is no way out any more */
    conn_flush(&wires.conns[0]);
    CHECK(wires.conns[0].broken && message->references == 1);

    conn_kill(&wires.conns[1]);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[0]);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[1]);
    conn_finish(&wires.conns[1]);
    CHECK(conn_next_dirty(&wires.shared) == NULL);

    conn_close(&wires.conns[2]); /* a socket without a peer has no end that could be told */
    conn_open(&wires.conns[2], socket(AF_INET, SOCK_STREAM, 0), &wires.shared);
    conn_finish(&wires.conns[2]);
    CHECK(wires.conns[2].broken);
    CHECK(conn_next_dirty(&wires.shared) == &wires.conns[2]);
    rcbuf_release(message);
}

/* --- what is counted ------------------------------------------------------------------------- */

/* Bytes that wait, found by walking through every queue. */
static uint64_t bytes_waiting(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < WIRES; i++) {
        struct conn_cursor cursor = {0};
        const struct rcbuf *message;
        uint64_t queue = 0;

        while ((message = conn_next_queued(&wires.conns[i], &cursor)))
            queue += message->length;
        queue -= wires.conns[i].sent;
        CHECK(queue == wires.conns[i].queued);
        sum += queue;
    }
    return sum;
}

/* Takes in what has reached a peer; its value is how much that was. */
static uint64_t peer_takes(int i, size_t most)
{
    char room[4096];
    uint64_t sum = 0;
    ssize_t n = 1;

    while (sum < most && n > 0) {
        n = recv(wires.peers[i], room, sizeof room, 0);
        sum += n > 0 ? (uint64_t)n : 0;
    }
    return sum;
}

/* Whatever is done, what waits is the sum of the queues, and what was sent is what has left. */
static void bytes_are_counted(void)
{
    static char content[9000];
    struct rcbuf *messages[4] = {NULL};
    uint64_t taken = 0, given = 0;
    uint32_t state = 5;

    for (size_t i = 0; i < 4; i++)
        messages[i] = rcbuf_copy((struct str){content, (size_t[]){1, 100, 3000, 9000}[i]});
    for (int step = 0; step < 20000 && test_good; step++) {
        int i = (int)(next_random(&state) % WIRES);
        struct conn *conn = &wires.conns[i];
        unsigned what = next_random(&state) % 100;
        struct conn_bytes bytes;

        if (what < 50) {
            conn_queue(conn, messages[next_random(&state) % 4], what < 5 ? 3000 : NO_LIMIT);
        } else if (what < 70) {
            conn_flush(conn);
        } else if (what < 80) {
            taken += peer_takes(i, 5000);
            conn_writable(conn);
        } else if (what < 88) {
            given += send(wires.peers[i], content, what, 0) == (ssize_t)what ? what : 0;
        } else if (what < 97) {
            conn_fill(conn, NO_LIMIT, &bytes);
        } else if (what < 99) {
            conn_drop_queue(conn);
        } else if (step % 4 == 0) {
            conn_kill(conn);
        }
        CHECK(wires.shared.waiting == bytes_waiting());
        if (conn->broken) { /* another one comes */
            struct wires others;

            while (conn_next_dirty(&wires.shared))
                ;
            taken += peer_takes(i, SIZE_MAX);
            conn_close(conn);
            close_peer(i);
            open_wires(&others);
            conn_open(conn, dup(others.conns[0].fd), &wires.shared);
            wires.peers[i] = dup(others.peers[0]);
            close_wires(&others);
            CHECK(wires.shared.waiting == bytes_waiting());
        }
    }
    CHECK(taken > 100000 && given > 50000);
    for (int i = 0; i < WIRES; i++) {
        conn_drop_queue(&wires.conns[i]); /* what has begun is still to leave */
        while (wires.conns[i].first && !wires.conns[i].broken) {
            taken += peer_takes(i, SIZE_MAX);
            conn_writable(&wires.conns[i]);
        }
        taken += peer_takes(i, SIZE_MAX);
    }
    CHECK(wires.shared.waiting == 0 && wires.shared.sent == taken);
    CHECK(wires.shared.received <= given); /* a kill loses what has not been read */
    for (size_t i = 0; i < 4; i++)
        rcbuf_release(messages[i]);
}

/* What was received is what has been read, kept or not. */
static void received_bytes_are_counted(void)
{
    struct conn_bytes bytes;

    CHECK(peer_sends(0, STR("hello")) && peer_sends(1, STR("you")));
    CHECK(wires.shared.received == 0);
    conn_fill(&wires.conns[0], NO_LIMIT, &bytes);
    conn_keep(&wires.conns[0], without(bytes, 1));
    CHECK(wires.shared.received == 5);
    conn_fill(&wires.conns[0], NO_LIMIT, &bytes);
    conn_fill(&wires.conns[1], NO_LIMIT, &bytes);
    CHECK(wires.shared.received == 8);
    CHECK(peer_sends(0, STR("!")));
    conn_fill(&wires.conns[0], NO_LIMIT, &bytes); /* with what was kept, which is old */
    CHECK(bytes.length == 5 && wires.shared.received == 9);
    close_peer(2);
    conn_fill(&wires.conns[2], NO_LIMIT, &bytes);
    CHECK(wires.shared.received == 9 && wires.shared.sent == 0 && wires.shared.waiting == 0);
}

/* A connection that ends with a queue takes it out of the count. */
static void closing_counts_what_waited(void)
{
    struct rcbuf *message = rcbuf_copy(STR("waits"));

    for (int i = 0; i < WIRES; i++)
        for (int k = 0; k <= i; k++)
            conn_queue(&wires.conns[i], message, NO_LIMIT);
    CHECK(wires.shared.waiting == 30);
    while (conn_next_dirty(&wires.shared))
        ;
    conn_kill(&wires.conns[1]);
    CHECK(wires.shared.waiting == 20);
    while (conn_next_dirty(&wires.shared))
        ;
    conn_close(&wires.conns[2]);
    CHECK(wires.shared.waiting == 5);
    conn_close(&wires.conns[1]);
    CHECK(wires.shared.waiting == 5 && wires.shared.sent == 0);
    conn_queue(&wires.conns[0], message, 1); /* refused after a flush */
    CHECK(wires.shared.waiting == 5 && wires.shared.sent == 5);
    rcbuf_release(message);
    while (conn_next_dirty(&wires.shared))
        ;
    conn_close(&wires.conns[0]);
    CHECK(wires.shared.waiting == 0);
}

static void closing_leaves_nothing_behind(void)
{
    struct conn *conn = &wires.conns[0];
    struct rcbuf *message = rcbuf_copy(STR("lost"));
    struct conn_bytes bytes;

    CHECK(peer_sends(0, STR("kept")));
    conn_fill(conn, NO_LIMIT, &bytes);
    conn_keep(conn, bytes);
    conn_queue(conn, message, NO_LIMIT);
    CHECK(conn_next_dirty(&wires.shared) == conn);
    conn_close(conn);
    CHECK(message->references == 1);
    CHECK(conn->fd == -1 && conn->first == NULL && conn->input == NULL);
    CHECK(conn_next_dirty(&wires.shared) == NULL); /* its memory may be gone at once */
    /* the socket had bytes that were not read: some systems tell the peer of an end, some reset */
    CHECK(recv(wires.peers[0], &(char){0}, 1, 0) <= 0);
    rcbuf_release(message);
}

static void (*present)(void);

static void run_present(void)
{
    open_wires(&wires);
    present();
    close_wires(&wires);
}

static void run(const char *name, void (*test)(void))
{
    present = test;
    test_run(name, run_present);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    run("a quiet connection owns no buffer", a_quiet_connection_owns_no_buffer);
    run("keeps what was not used", keeps_what_was_not_used);
    run("input of any pieces stays whole", input_of_any_pieces_stays_whole);
    run("keeps no more than its limit", keeps_no_more_than_its_limit);
    run("a flood grows input to the limit", a_flood_grows_input_to_the_limit);
    run("one read fills the scratch buffer at most", one_read_fills_the_scratch_buffer_at_most);
    run("owners are told apart", owners_are_told_apart);
    run("tells the end", tells_the_end);
    run("input in use outlives a kill", input_in_use_outlives_a_kill);
    run("names the peer", names_the_peer);
    run("queues share a message", queues_share_a_message);
    run("a ring grows in order", a_ring_grows_in_order);
    run("only the newest pong waits", only_the_newest_pong_waits);
    run("a pong that has begun stays", a_pong_that_has_begun_stays);
    run("memory is counted", memory_is_counted);
    run("shares have budgets", shares_have_budgets);
    run("leaves whole and in order", leaves_whole_and_in_order);
    run("refuses only when the limit waits", refuses_only_when_the_limit_waits);
    run("waits while blocked", waits_while_blocked);
    run("drops all but what has begun", drops_all_but_what_has_begun);
    run("a killed one stays open and shows", a_killed_one_stays_open_and_shows);
    run("swallows what nobody will read", swallows_what_nobody_will_read);
    run("dirty ones come in order", dirty_ones_come_in_order);
    run("few pushes leave before responses", few_pushes_leave_before_responses);
    run("changing places loses nobody", changing_places_loses_nobody);
    run("a peer that is gone breaks it", a_peer_that_is_gone_breaks_it);
    run("finishing ends the way out alone", finishing_ends_the_way_out_alone);
    run("bytes are counted", bytes_are_counted);
    run("received bytes are counted", received_bytes_are_counted);
    run("closing counts what waited", closing_counts_what_waited);
    run("closing leaves nothing behind", closing_leaves_nothing_behind);
    return test_finish();
}

/* echo.c - a WebSocket echo server of buf, http, ws and conn: one thread, one poll().
 *
 *   - A connection is in one of four states. The state selects the function that reads its bytes
 * and its timeout; the events for poll() follow from its queue.
 *   - Back-pressure is one `if`, in wanted(): while echoes wait for a peer, nothing more is read
 * from it.
 *   - Any function may break a connection. Only reap() closes and frees, once an iteration, when
 * nothing points into a session.
 *   - What is queued in an iteration leaves at its end, in one system call for each connection.
 * Usage: echo PORT. It listens on 127.0.0.1; port 0 is any free one. SIGTERM and SIGINT end it. */
#include "buf.h"
#include "conn.h"
#include "http.h"
#include "ws.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX (16u << 20)
#define HEAD_MAX 8192
#define SESSIONS_MAX 256 /* few enough for every usual limit of open files */

enum state {
    HEAD,    /* the request for the upgrade is being read */
    OPEN,    /* messages are echoed */
    CLOSING, /* a close frame, or the response to a bad request, is queued */
    WAITING  /* it has left; the peer has not closed its side yet */
};

struct server {
    int listener, wake; /* `wake` is readable after SIGTERM or SIGINT; then both are -1 */
    bool stopping;
    int64_t now; /* milliseconds, taken once an iteration */
    size_t count;
    struct session *sessions[SESSIONS_MAX];
    struct conn_shared shared;
};

struct session {
    struct conn conn;
    struct server *server;
    enum state state;
    int64_t since; /* when the timeout of the state began */
    bool pinged;   /* a ping was sent to a quiet peer */
    struct ws_reader reader;
    struct buf message; /* the pieces so far of an unfinished message */
};

static void set_state(struct session *session, enum state state)
{
    session->state = state;
    session->since = session->server->now;
}

/* --- what is sent ---------------------------------------------------------------------------- */

/* Queues a message and releases it. NULL, out of memory, ends this connection alone. */
static void queue(struct session *session, struct rcbuf *message)
{
    if (message)
        conn_queue(&session->conn, message, SIZE_MAX);
    else
        conn_kill(&session->conn);
    rcbuf_release(message);
}

static void send_close(struct session *session, unsigned code, struct str reason)
{
    queue(session, ws_close_frame(code, reason));
    set_state(session, CLOSING);
}

/* Queues the response to a request that is no valid upgrade. */
static void reject(struct session *session, int status, const char *error)
{
    char date[30];
    struct buf body = {0}, bytes = {0};
    struct http_response answer = {.status = status, .close = true};

    buf_append(&body, STR("{\"code\":-1,\"msg\":\""));
    buf_append(&body, str_from(error)); /* a constant text without characters to escape */
    buf_append(&body, STR("\",\"data\":[]}"));
    http_date((int64_t)time(NULL), date);
    answer.date = str_from(date);
    answer.body = str_of(&body);
    if (status == 426)
        answer.fields =
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    http_write_response(&bytes, &answer);
    queue(session, body.failed || bytes.failed ? NULL : rcbuf_copy(str_of(&bytes)));
    buf_free(&body);
    buf_free(&bytes);
    set_state(session, CLOSING);
}

/* --- reading: one function for each state; each returns how many bytes it used ---------------- */

static size_t read_head(struct session *session, struct conn_bytes bytes)
{
    struct http_request request;
    struct buf answer = {0};
    struct str key = {0};
    enum http_result result =
        http_parse_request((struct str){bytes.at, bytes.length}, HEAD_MAX, &request);
    int status = request.status;

    if (result == HTTP_MORE)
        return 0;
    if (result == HTTP_OK)
        status = ws_check_upgrade(&request, &key, &request.error);
    if (status) {
        reject(session, status, request.error);
        return bytes.length;
    }
    /* extensions and subprotocols are declined by not naming any */
    queue(session, ws_write_upgrade(&answer, key, ws_offered_protocol(&request))
                       ? rcbuf_copy(str_of(&answer))
                       : NULL);
    buf_free(&answer);
    set_state(session, OPEN);
    return request.head_length;
}

static void take_piece(struct session *session, const struct ws_event *event)
{
    if (!buf_append(&session->message, event->payload)) {
        conn_kill(&session->conn);
    } else if (event->last) {
        queue(session, ws_frame(event->opcode, str_of(&session->message)));
        buf_free(&session->message);
    }
}

static size_t read_frames(struct session *session, struct conn_bytes bytes)
{
    struct ws_event event;
    size_t used = ws_read(&session->reader, bytes.at, bytes.length, &event);

    session->pinged = false; /* any byte proves that the peer lives, as a pong does */
    if (event.type == WS_EVENT_DATA)
        take_piece(session, &event);
    else if (event.type == WS_EVENT_CONTROL && event.opcode == WS_PING)
        queue(session, ws_frame(WS_PONG, event.payload));
    else if (event.type == WS_EVENT_CONTROL && event.opcode == WS_CLOSE)
        send_close(session, event.code, (struct str){0});
    else if (event.type == WS_EVENT_BAD)
        send_close(session, event.code, str_from(event.error));
    return session->state == OPEN ? used : bytes.length;
}

/* Discards what still comes: a socket closed with bytes unread resets the connection, and the peer
 * may never see the close frame. */
static size_t read_nothing(struct session *session, struct conn_bytes bytes)
{
    (void)session;
    return bytes.length;
}

static const struct {
    size_t (*read)(struct session *session, struct conn_bytes bytes);
    int64_t timeout; /* milliseconds */
    bool progress;   /* any byte read or written restarts it */
} states[] = {
    [HEAD] = {read_head, 10000, false},
    [OPEN] = {read_frames, 30000, true},
    [CLOSING] = {read_nothing, 10000, false},
    [WAITING] = {read_nothing, 2000, false},
};

/* --- one connection, once an iteration -------------------------------------------------------- */

static short wanted(const struct session *session)
{
    if (session->conn.queued)
        return POLLOUT; /* back-pressure */
    return POLLIN;
}

static int64_t deadline(const struct session *session)
{
    return session->since + states[session->state].timeout;
}

/* Reads unit after unit, across states, and keeps the rest. */
static void use(struct session *session, struct conn_bytes bytes)
{
    size_t used = 1;

    while (bytes.length && used && !session->conn.broken) {
        used = states[session->state].read(session, bytes);
        bytes.at += used;
        bytes.length -= used;
    }
    conn_keep(&session->conn, bytes);
}

/* Call when poll() reports an event; reading or writing shows an error. */
static void serve(struct session *session)
{
    struct conn_bytes bytes = {0};

    if (session->conn.queued) {
        conn_writable(&session->conn);
    } else {
        enum conn_status status = conn_fill(&session->conn, CONN_SCRATCH, &bytes);

        if (status == CONN_READY)
            use(session, bytes);
        else if (status == CONN_ENDED)
            conn_kill(&session->conn);
    }
    if (states[session->state].progress)
        session->since = session->server->now;
}

static void expire(struct session *session)
{
    if (session->state == HEAD) {
        reject(session, 408, "the request did not come in time");
    } else if (session->state == OPEN && !session->pinged && !session->conn.queued) {
        queue(session, ws_frame(WS_PING, (struct str){0}));
        session->pinged = true;
        session->since = session->server->now;
    } else {
        conn_kill(&session->conn);
    }
}

/* --- the server ------------------------------------------------------------------------------- */

static int64_t milliseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static bool set_nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

/* Accepts all pending connections up to SESSIONS_MAX; others wait in the backlog. */
static void accept_sessions(struct server *server)
{
    while (server->count < SESSIONS_MAX) {
        int fd = accept(server->listener, NULL, NULL), on = 1;
        struct session *session = fd >= 0 ? calloc(1, sizeof *session) : NULL;

        if (!session || !set_nonblocking(fd)) {
            free(session);
            if (fd >= 0)
                close(fd);
            return;
        }
        /* echoes leave whole, at once: Nagle would only delay them */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conn_open(&session->conn, fd, &server->shared);
        session->server = server;
        session->reader.limit = MESSAGE_MAX;
        session->message.limit = MESSAGE_MAX;
        set_state(session, HEAD);
        server->sessions[server->count++] = session;
    }
}

static void begin_to_stop(struct server *server)
{
    server->stopping = true;
    close(server->listener);
    close(server->wake);
    server->listener = server->wake = -1; /* poll() ignores -1 */
    for (size_t i = 0; i < server->count; i++) {
        if (server->sessions[i]->state == OPEN)
            send_close(server->sessions[i], WS_CLOSE_GOING_AWAY, STR("the server stops"));
        else if (server->sessions[i]->state == HEAD)
            conn_kill(&server->sessions[i]->conn);
    }
}

/* The only place that closes connections and frees sessions. */
static void reap(struct server *server)
{
    for (size_t i = server->count; i-- > 0;) {
        struct session *session = server->sessions[i];

        if (session->conn.broken) {
            conn_close(&session->conn);
            buf_free(&session->message);
            free(session);
            server->sessions[i] = server->sessions[--server->count];
        } else if (session->state == CLOSING && !session->conn.queued) {
            /* RFC 6455, section 7.1.1: half-close; the peer closes its side in return */
            conn_finish(&session->conn);
            set_state(session, WAITING);
        }
    }
}

static int time_left(const struct server *server)
{
    int64_t first = INT64_MAX;

    for (size_t i = 0; i < server->count; i++)
        if (deadline(server->sessions[i]) < first)
            first = deadline(server->sessions[i]);
    if (first == INT64_MAX)
        return -1;
    return first > server->now ? (int)(first - server->now) : 0;
}

static void run_once(struct server *server)
{
    struct pollfd polls[2 + SESSIONS_MAX];
    size_t count = server->count;
    struct conn *conn;

    polls[0] = (struct pollfd){.fd = server->wake, .events = POLLIN};
    polls[1] =
        (struct pollfd){.fd = count < SESSIONS_MAX ? server->listener : -1, .events = POLLIN};
    for (size_t i = 0; i < count; i++)
        polls[2 + i] = (struct pollfd){.fd = server->sessions[i]->conn.fd,
                                       .events = wanted(server->sessions[i])};
    if (poll(polls, (nfds_t)(2 + count), time_left(server)) < 0)
        return; /* a signal: the next iteration reads the pipe */
    server->now = milliseconds();
    for (size_t i = 0; i < count; i++) {
        if (polls[2 + i].revents)
            serve(server->sessions[i]);
        if (deadline(server->sessions[i]) <= server->now)
            expire(server->sessions[i]);
    }
    if (polls[1].revents)
        accept_sessions(server);
    if (polls[0].revents)
        begin_to_stop(server);
    while ((conn = conn_next_dirty(&server->shared)))
        conn_flush(conn);
    reap(server);
}

/* --- start and end ---------------------------------------------------------------------------- */

static int wake_pipe[2];

static void on_signal(int number)
{
    int saved = errno;
    ssize_t written = write(wake_pipe[1], "", 1);

    (void)number;
    (void)written;
    errno = saved;
}

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    if (pipe(wake_pipe) != 0 || !set_nonblocking(wake_pipe[0]) || !set_nonblocking(wake_pipe[1]))
        give_up("pipe");
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN; /* a write to a closed connection is an error of write() alone */
    sigaction(SIGPIPE, &action, NULL);
}

static int start_listening(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, SESSIONS_MAX) != 0 || !set_nonblocking(fd) ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        give_up("cannot listen");
    printf("echo: listening on 127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    struct server server = {0};
    uint64_t port = 0;

    if (argc != 2 || !str_number(str_from(argv[1]), UINT16_MAX, &port)) {
        fputs("usage: echo PORT\n", stderr);
        return 2;
    }
    catch_signals();
    server.listener = start_listening((uint16_t)port);
    server.wake = wake_pipe[0];
    server.now = milliseconds();
    while (!server.stopping || server.count > 0)
        run_once(&server);
    close(wake_pipe[1]);
    return 0;
}

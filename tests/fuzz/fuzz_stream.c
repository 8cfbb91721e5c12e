/* fuzz_stream.c - a whole server but for its sockets: what comes over some connections goes through
 * conn, session, http, ws, api and hub, while time passes, windows close, and peers vanish.
 *
 * The socket calls of conn.c end here (see WRAP_stream in the Makefile). Each input is run twice,
 * with the bytes cut in different ways: both runs must send the same. What is sent must be
 * responses with one envelope each and frames that a client can read; queues must keep to their
 * caps; and in the end nothing may be left. */
#include "session.h"

#include "fuzz.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define PEERS 4
#define FIRST_FD 1000000 /* no real descriptor is as large */
#define START 1000000
#define UNIX_NOW 1700000000
#define NO_WINDOW SIZE_MAX
#define REPEATED_MOST 256
#define OUTPUT_ENOUGH (256 * 1024) /* as in session.c */
#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

/* What stands for a socket. */
struct wire {
    struct buf in, out;
    size_t taken;  /* bytes of `in` that have been received */
    size_t window; /* bytes that it takes before it blocks */
    bool in_ended, reset, shut, closed;
    bool cut; /* not all that was sent may have come out */
};

struct peer {
    struct session session;
    struct wire wire;
    struct account_result job; /* that it waits for */
    bool open;
    char id[HUB_ID_LENGTH + 1]; /* of its client, once that has come out */
};

/* One run of an input. */
struct run {
    uint32_t read_split, write_split;
    unsigned char next_number;
    unsigned interrupted; /* calls since one was interrupted */
    unsigned repeated;    /* calls that were made again */
    bool continued;       /* 100 Continue has been sent */
    bool limited;         /* a window has been closed, or a connection reset */
    bool timed;           /* something was sent that depends on how input is cut into iterations */
    size_t spent;         /* work of others in each share of an iteration */
    struct buf received[PEERS]; /* what each has been sent, but for that and 100 Continue */
    struct peer peers[PEERS];
    struct hub hub;
    struct api api;
    struct conn_shared shared;
    struct session_context context;
    struct config config;
    struct log log;
};

static struct run *current;
static struct crypto_keyring keys;
static struct accounts *accounts;
static uint64_t generation; /* of all accounts: they have one salt */
static FILE *null_file;

/* --- what is called instead ------------------------------------------------------------------ */

bool __wrap_crypto_random(void *out, size_t length);
enum account_submission __wrap_account_submit(struct accounts *all,
                                              const struct account_request *request);
ssize_t __real_recv(int fd, void *at, size_t room, int flags);
ssize_t __wrap_recv(int fd, void *at, size_t room, int flags);
ssize_t __real_send(int fd, const void *at, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *at, size_t length, int flags);
ssize_t __real_writev(int fd, const struct iovec *vectors, int count);
ssize_t __wrap_writev(int fd, const struct iovec *vectors, int count);
int __real_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how);
int __real_close(int fd);
int __wrap_close(int fd);

/* The linker does not compare how they are called; here the compiler does. */
_Static_assert(sizeof(1 ? crypto_random : __wrap_crypto_random), "called alike");
_Static_assert(sizeof(1 ? account_submit : __wrap_account_submit), "called alike");

/* Client ids are the same in every run. */
bool __wrap_crypto_random(void *out, size_t length)
{
    memset(out, current ? ++current->next_number : 1, length);
    return true;
}

/* No worker runs: the input says when a result comes, and which. */
enum account_submission __wrap_account_submit(struct accounts *all,
                                              const struct account_request *request)
{
    struct account_result *job = &current->peers[(uint32_t)request->request_id % PEERS].job;
    struct str name = request->name, password = request->password;

    REQUIRE(all == accounts &&
            (request->kind == ACCOUNT_REGISTER || request->kind == ACCOUNT_LOGIN));
    REQUIRE(name.length > 0 && name.length <= ACCOUNT_NAME_MAX && utf8_valid(name));
    REQUIRE(password.length > 0 && password.length <= ACCOUNT_PASSWORD_MAX);
    REQUIRE(request->delay >= 0 && (request->kind == ACCOUNT_LOGIN || request->delay == 0));
    *job = (struct account_result){.request_id = request->request_id,
                                   .kind = request->kind,
                                   .origin = request->origin,
                                   .name_length = name.length};
    memcpy(job->name, name.at, name.length);
    if (str_equal(password, STR("too many")))
        return ACCOUNT_QUEUE_FULL;
    if (str_equal(password, STR("throttled")))
        return request->kind == ACCOUNT_LOGIN ? ACCOUNT_THROTTLED : ACCOUNT_QUEUE_FULL;
    return str_equal(password, STR("scarce")) ? ACCOUNT_NO_RESOURCES : ACCOUNT_SUBMITTED;
}

static struct wire *wire_of(int fd)
{
    struct wire *wire = fd >= FIRST_FD ? &current->peers[fd - FIRST_FD].wire : NULL;

    REQUIRE(!wire || !wire->closed);
    return wire;
}

static ssize_t fail_with(int error)
{
    errno = error;
    return -1;
}

/* Where there is much, the pieces are larger: small ones would take too long. */
static size_t next_part(uint32_t *split, size_t left)
{
    size_t part = next_piece(split, left) * (left > 1000 ? 64 : 1);

    return part < left ? part : left;
}

/* In the second run some calls are interrupted. */
static bool interrupts(void)
{
    return current->read_split && ++current->interrupted % 7 == 0;
}

ssize_t __wrap_recv(int fd, void *at, size_t room, int flags)
{
    struct wire *wire = wire_of(fd);
    size_t count = wire ? wire->in.length - wire->taken : 0;

    if (!wire)
        return __real_recv(fd, at, room, flags);
    REQUIRE(room > 0);
    if (wire->reset)
        return fail_with(ECONNRESET);
    if (interrupts())
        return fail_with(EINTR);
    if (!count)
        return wire->in_ended ? 0 : fail_with(EAGAIN);
    if (current->read_split && current->interrupted % 10 == 9)
        return fail_with(EAGAIN); /* poll() may have been wrong */
    count = next_part(&current->read_split, count < room ? count : room);
    memcpy(at, wire->in.at + wire->taken, count);
    wire->taken += count;
    return (ssize_t)count;
}

ssize_t __wrap_writev(int fd, const struct iovec *vectors, int count)
{
    struct wire *wire = wire_of(fd);
    size_t total = 0, room;

    if (!wire)
        return __real_writev(fd, vectors, count);
    REQUIRE(!wire->shut);
    if (wire->reset)
        return fail_with(EPIPE);
    if (interrupts())
        return fail_with(EINTR);
    for (int i = 0; i < count; i++)
        total += vectors[i].iov_len;
    REQUIRE(total > 0);
    if (!wire->window)
        return fail_with(EAGAIN);
    room = total < wire->window ? total : wire->window;
    room = next_part(&current->write_split, room);
    total = room;
    for (int i = 0; i < count && room; i++) {
        size_t piece = vectors[i].iov_len < room ? vectors[i].iov_len : room;

        buf_append(&wire->out, (struct str){vectors[i].iov_base, piece});
        room -= piece;
    }
    if (wire->window != NO_WINDOW)
        wire->window -= total;
    return (ssize_t)total;
}

ssize_t __wrap_send(int fd, const void *at, size_t length, int flags)
{
    struct iovec vector = {(void *)(uintptr_t)at, length};

    return wire_of(fd) ? __wrap_writev(fd, &vector, 1) : __real_send(fd, at, length, flags);
}

int __wrap_shutdown(int fd, int how)
{
    struct wire *wire = wire_of(fd);

    if (!wire)
        return __real_shutdown(fd, how);
    wire->shut = true;
    wire->cut |= how == SHUT_RDWR && current->limited;
    return 0;
}

int __wrap_close(int fd)
{
    struct wire *wire = fd >= FIRST_FD ? wire_of(fd) : NULL;

    if (!wire)
        return __real_close(fd);
    wire->closed = true;
    return 0;
}

/* --- what may be sent ------------------------------------------------------------------------ */

static void require_envelope(struct str text)
{
    struct json_field fields[] = {
        {.name = STR_INIT("code")}, {.name = STR_INIT("msg")}, {.name = STR_INIT("data")}};
    struct json_error error;
    int64_t code;

    REQUIRE(begins_with(text, STR("{\"code\":")));
    REQUIRE(json_parse_object(text, fields, COUNT(fields), &error));
    REQUIRE(json_decode_integer(fields[0].value, &code));
    REQUIRE(fields[1].value.type == JSON_STRING && fields[2].value.type != JSON_NONE);
}

/* The rest of what a WebSocket client was sent: whole frames, up to a close frame. */
static void require_frames(struct str bytes, bool cut)
{
    struct ws_reader reader = {.from_server = true, .limit = UINT32_MAX};
    char *copy = exact_bytes(bytes);
    size_t at = 0;
    bool closed = false;

    for (;;) {
        struct ws_event event;
        size_t used = ws_read(&reader, copy + at, bytes.length - at, &event);

        if (event.type == WS_EVENT_MORE) {
            REQUIRE(cut || at == bytes.length);
            break;
        }
        REQUIRE(event.type != WS_EVENT_BAD && !closed);
        at += used;
        if (event.type == WS_EVENT_DATA && !event.last)
            REQUIRE(cut && at == bytes.length);
        else if (event.type == WS_EVENT_DATA && !str_equal(event.payload, STR("pong")))
            require_envelope(event.payload);
        closed = event.type == WS_EVENT_CONTROL && event.opcode == WS_CLOSE;
    }
    free(copy);
}

/* The head of a response: its length, 0 if it is not whole, and how long the body is. */
static size_t read_response_head(struct str bytes, bool *upgraded, uint64_t *body)
{
    struct str rest = bytes, line = str_cut(&rest, '\n');
    uint64_t status = 0;

    if (!rest.at)
        return 0;
    REQUIRE(begins_with(line, STR("HTTP/1.1 ")) && line.length > 13 && line.at[12] == ' ');
    REQUIRE(str_number((struct str){line.at + 9, 3}, 599, &status) && status != 500);
    *upgraded = status == 101;
    *body = UINT64_MAX;
    while (rest.at && !str_equal(line, STR("\r"))) {
        struct str value;

        line = str_cut(&rest, '\n');
        if (!rest.at)
            return 0;
        REQUIRE(line.length > 0 && line.at[line.length - 1] == '\r');
        value = (struct str){line.at, line.length - 1};
        if (str_equal(str_cut(&value, ':'), STR("Content-Length")))
            REQUIRE(*body == UINT64_MAX && str_number(str_trim(value), 1u << 20, body));
    }
    REQUIRE(*upgraded || *body != UINT64_MAX);
    return (size_t)(rest.at - bytes.at);
}

/* True for pongs, of which one replaces another, and for notices of leaves,
 * which go to the members at the end of an iteration. */
static bool is_timed(struct str frame)
{
    struct str payload = behind(frame, (frame.at[1] & 127) == 126 ? 4 : 2);

    return (frame.at[0] & 15) == WS_PONG || begins_with(payload, STR("{\"code\":1002,"));
}

/* The length of the frame at the front, which a server has sent; that of the rest if it is cut. */
static size_t frame_length(struct str bytes)
{
    const unsigned char *at = (const unsigned char *)bytes.at;
    size_t length = bytes.length, extended, header;

    if (length < 2)
        return length;
    extended = at[1] == 127 ? 8 : at[1] == 126 ? 2 : 0;
    header = 2 + extended;
    if (length < header)
        return length;
    length = extended ? 0 : at[1];
    for (size_t i = 0; i < extended; i++)
        length = length << 8 | at[2 + i];
    return length < bytes.length - header ? header + length : bytes.length;
}

/* Adds to what a client was sent those frames that do not depend on iterations. */
static void keep_frames(struct run *run, struct buf *received, struct str rest)
{
    while (rest.length) {
        size_t length = frame_length(rest);

        if (length >= 4 && is_timed((struct str){rest.at, length}))
            run->timed = true;
        else
            buf_append(received, (struct str){rest.at, length});
        rest = behind(rest, length);
    }
}

/* Checks all that a connection was sent and adds it to what its peer was sent. */
static void take_output(struct run *run, struct peer *peer)
{
    struct str rest = str_of(&peer->wire.out);
    struct buf *received = &run->received[peer - run->peers];
    bool upgraded = false, cut = peer->wire.cut, after_continue = false;

    buf_append(received, STR("|"));
    while (rest.length && !upgraded) {
        uint64_t body = 0;
        size_t head;
        struct str response = rest;

        if (begins_with(rest, STR(CONTINUE)) || begins_with(STR(CONTINUE), rest)) {
            REQUIRE(!after_continue && (cut || rest.length >= sizeof CONTINUE - 1));
            rest = behind(rest, rest.length < sizeof CONTINUE ? rest.length : sizeof CONTINUE - 1);
            run->continued = after_continue = true;
            continue;
        }
        after_continue = false; /* once for each request */
        head = read_response_head(rest, &upgraded, &body);
        REQUIRE(head || cut);
        rest = behind(rest, head ? head : rest.length);
        if (head && !upgraded && rest.length && rest.at[0] == '{') { /* none behind HEAD */
            REQUIRE(cut || rest.length >= body);
            if (rest.length >= body)
                require_envelope((struct str){rest.at, (size_t)body});
            rest = behind(rest, rest.length < body ? rest.length : (size_t)body);
        }
        buf_append(received, (struct str){response.at, response.length - rest.length});
    }
    if (upgraded)
        require_frames(rest, cut);
    keep_frames(run, received, rest);
}

/* --- what may be queued ---------------------------------------------------------------------- */

/* What may wait before a message that is queued, with what each costs; a longer pong may have taken
 * the place of a shorter one since. */
static size_t queue_limit(const struct run *run, const struct rcbuf *message)
{
    bool response = begins_with((struct str){message->bytes, message->length}, STR("HTTP/1.1 "));

    if (response)
        return SIZE_MAX;
    if ((message->bytes[0] & 15) == WS_CLOSE)
        return SIZE_MAX;
    return (size_t)run->config.send_queue - 1 + WS_CONTROL_MAX;
}

static void require_queue(const struct run *run, const struct peer *peer)
{
    const struct conn *conn = &peer->session.conn;
    enum session_state state = peer->session.state;
    size_t waiting = 0, cost = 0, input = conn->input ? conn->input->length : 0;
    struct conn_cursor cursor = {0};
    const struct rcbuf *message;

    while ((message = conn_next_queued(conn, &cursor))) {
        REQUIRE(cost <= queue_limit(run, message) && message->references > 0);
        REQUIRE(waiting <= OUTPUT_ENOUGH + sizeof CONTINUE);
        REQUIRE(message->queues > 0 && message->queues <= message->references);
        waiting += message->length - (waiting ? 0 : conn->sent);
        cost = waiting + (cursor.passed * CONN_MESSAGE_COST);
    }
    REQUIRE(waiting == conn->queued && cost == conn_cost(conn) && (conn->first || !conn->ring));
    REQUIRE(!peer->session.over_budget);
    REQUIRE(input < run->config.max_head + run->config.max_body + 8192 + CONN_SCRATCH);
    if (state == SESSION_OPEN || state == SESSION_CLOSING)
        REQUIRE(input < 14 + WS_CONTROL_MAX);
    else
        REQUIRE(input <= 2 || state == SESSION_HTTP_HEAD || state == SESSION_HTTP_BODY ||
                conn->queued || state == SESSION_WAIT);
}

/* Each entry of a table is found under its hash, and there are as many as it says. */
static void require_table(const struct table *table)
{
    size_t place = 0, count = 0;
    const void *entry;

    while ((entry = table_walk(table, &place))) {
        struct table_cursor cursor = {.hash = table->hashes[place - 1]};
        const void *found;

        do
            found = table_next(table, &cursor);
        while (found && found != entry);
        REQUIRE(found == entry);
        count++;
    }
    REQUIRE(count == table->count);
}

/* What a connection keeps, as far as it is its own: shares of messages that others hold as well. */
static double memory_of(const struct conn *conn)
{
    struct conn_cursor cursor = {0};
    const struct rcbuf *message;
    double memory = conn->ring ? (double)(conn->ring->capacity * sizeof conn->ring->slots[0]) : 0;

    while ((message = conn_next_queued(conn, &cursor)))
        memory += (double)(message->length + CONN_MESSAGE_COST) / message->queues;
    return memory + (conn->input ? (double)conn->input->capacity : 0);
}

static void require_order(const struct run *run)
{
    size_t clients = 0;
    double memory = 0;

    for (size_t i = 0; i < PEERS; i++) {
        const struct session *session = &run->peers[i].session;
        int64_t deadline;

        if (!run->peers[i].open)
            continue;
        REQUIRE(session->state != SESSION_DEAD && !session->conn.dirty);
        require_queue(run, &run->peers[i]);
        memory += memory_of(&session->conn);
        clients += session->conn.client != NULL;
        REQUIRE(!session->conn.client || session->state == SESSION_OPEN);
        deadline = session_timer(&run->context, session);
        REQUIRE((deadline == INT64_MAX) == (session->state == SESSION_WAIT));
    }
    REQUIRE(run->hub.channels.clients.count == clients && !run->hub.channels.slow.first &&
            !run->hub.channels.notified.first);
    REQUIRE(memory > (double)run->shared.buffered - 0.5 &&
            memory < (double)run->shared.buffered + 0.5);
    REQUIRE(!run->hub.channels.names.count == !clients);
    require_table(&run->hub.channels.clients);
    require_table(&run->hub.channels.names);
    require_table(&run->api.rates);
}

/* --- an iteration ---------------------------------------------------------------------------- */

static void update(struct run *run, struct peer *peer)
{
    if (peer->session.state != SESSION_DEAD && !peer->session.conn.dirty)
        session_flushed(&run->context, &peer->session);
}

/* Does what poll() would wake the loop for; false if that is nothing. */
static bool serve(struct run *run, struct peer *peer)
{
    struct session *session = &peer->session;
    const struct wire *wire = &peer->wire;
    bool reads = peer->open && session_wants_input(session) &&
                 (wire->in.length > wire->taken || wire->in_ended || wire->reset);
    bool writes = peer->open && session->conn.want_write && (wire->window || wire->reset) &&
                  session->state != SESSION_DEAD;

    if (writes)
        session_writable(&run->context, session);
    if (reads)
        session_read(&run->context, session);
    if (reads || writes)
        update(run, peer);
    return reads || writes;
}

static void begin_batch(struct run *run)
{
    conn_begin_batch(&run->shared);
    run->shared.spent += run->spent;
}

/* Goes on with input that waits for that; false if there is none. */
static bool continue_held(struct run *run, struct peer *peer)
{
    if (!peer->open || !peer->session.over_budget)
        return false;
    session_continue(&run->context, &peer->session);
    update(run, peer);
    return true;
}

static void flush(struct run *run, bool *moved)
{
    struct conn *conn;

    while ((conn = conn_next_dirty(&run->shared))) {
        *moved = true;
        conn_flush(conn);
        update(run, (struct peer *)conn); /* its first member's first member */
    }
}

static void reap(struct run *run)
{
    for (size_t i = 0; i < PEERS; i++) {
        struct peer *peer = &run->peers[i];

        if (!peer->open || peer->session.state != SESSION_DEAD)
            continue;
        take_output(run, peer);
        conn_close(&peer->session.conn);
        REQUIRE(peer->wire.closed);
        buf_free(&peer->wire.in);
        buf_free(&peer->wire.out);
        peer->open = false;
    }
}

/* Turns until nothing moves. */
static void iterate(struct run *run)
{
    bool moved = true;
    int iterations = 0;

    while (moved) {
        REQUIRE(++iterations < 1000000);
        moved = false;
        begin_batch(run);
        for (size_t i = 0; i < PEERS; i++)
            moved |= serve(run, &run->peers[i]);
        begin_batch(run);
        for (size_t i = 0; i < PEERS; i++)
            moved |= continue_held(run, &run->peers[i]);
        moved |= hub_flush_notices(&run->hub, run->spent ? 1 : SIZE_MAX);
        conn_end_batches(&run->shared);
        flush(run, &moved);
        reap(run);
    }
    require_order(run);
}

/* The connection of a peer, a new one if it has none. */
static struct peer *connect_peer(struct run *run, size_t place)
{
    struct peer *peer = &run->peers[place];

    if (peer->open)
        return peer;
    *peer = (struct peer){.open = true, .wire.window = NO_WINDOW};
    session_open(&peer->session, FIRST_FD + (int)place, &run->shared, run->context.now);
    peer->session.index = (uint32_t)place;
    peer->session.generation = 1;
    return peer;
}

/* --- what peers do --------------------------------------------------------------------------- */

static void send_text(struct peer *peer, struct str bytes)
{
    buf_append(&peer->wire.in, bytes);
}

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static void
send_line(struct peer *peer, const char *format, ...)
{
    char line[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    send_text(peer, str_from(line));
    send_text(peer, STR("\r\n"));
}

/* A length: up to 239 bytes, or many more. */
static struct str take_text(struct fuzz *fuzz)
{
    unsigned length = fuzz_byte(fuzz);

    return fuzz_take(fuzz, length < 240 ? length : (length - 239) * 512);
}

static void send_many(struct peer *peer, char byte, unsigned count)
{
    while (count-- > 0)
        send_text(peer, (struct str){&byte, 1});
}

/* Learns the id that the first frame to a client has. */
static void learn_id(struct peer *peer)
{
    const struct str before = STR("\"clientId\":\"");
    struct str out = str_of(&peer->wire.out);

    if (peer->id[0] || !peer->session.conn.client)
        return;
    for (; out.length >= before.length + HUB_ID_LENGTH; out = behind(out, 1))
        if (begins_with(out, before)) {
            memcpy(peer->id, out.at + before.length, HUB_ID_LENGTH);
            return;
        }
}

/* A body: bytes 1 to 4, which no JSON has, stand for the ids of clients. */
static void write_body(struct run *run, struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c == 0 || c > PEERS) {
            buf_append(out, (struct str){text.at + i, 1});
            continue;
        }
        learn_id(&run->peers[c - 1]);
        buf_append(out, str_from(run->peers[c - 1].id));
    }
}

static void send_token(struct peer *peer, unsigned manner)
{
    static const struct str systems[] = {STR_INIT("shop"), STR_INIT("bank"), STR_INIT("shop"),
                                         STR_INIT("none")};
    struct buf token = {0};

    crypto_sign_token(keys.keys, systems[manner & 3], manner & 4 ? generation + 1 : generation,
                      UNIX_NOW + ((manner & 3) == 2 ? -1 : 60), &token);
    send_line(peer, "Token: %.*s", (int)token.length, token.at);
    buf_free(&token);
}

/* A request to the API; `manner` is how it is made. */
static void call(struct run *run, struct peer *peer, struct fuzz *fuzz)
{
    static const char *const names[] = {
        "send_to_client", "send_to_clients", "send_to_group",     "send_to_user",
        "send_to_system", "bind_to_group",   "unbind_from_group", "get_online_list",
        "close_client",   "client_info",     "register",          "login",
    };
    unsigned name = fuzz_byte(fuzz) % COUNT(names), manner = fuzz_byte(fuzz);
    struct buf body = {0};

    write_body(run, &body, take_text(fuzz));
    send_line(peer, "%s /api/%s HTTP/1.%d", (manner & 0xc0) == 0xc0 ? "OPTIONS" : "POST",
              names[name], !(manner & 4));
    send_line(peer, "Host: h");
    if ((manner & 0x18) != 0x18)
        send_token(peer, manner);
    if (manner & 8)
        send_line(peer, "Register-Key: sesame");
    if (manner & 16)
        send_line(peer, "Connection: %s", manner & 4 ? "keep-alive" : "close");
    if (manner & 64)
        send_line(peer, "Expect: 100-continue");
    if (manner & 32)
        send_line(peer, "Transfer-Encoding: chunked\r\n\r\n%zx", body.length);
    else
        send_line(peer, "Content-Length: %zu\r\n", body.length);
    if (body.length || !(manner & 32))
        send_text(peer, str_of(&body));
    if (manner & 32)
        send_text(peer, body.length ? STR("\r\n0\r\n\r\n") : STR("\r\n"));
    buf_free(&body);
}

static void upgrade(struct peer *peer, unsigned how)
{
    static const char *const queries[] = {"?systemId=shop", "?systemId=bank", "?systemId=none", "",
                                          "?systemId=%73hop"};

    send_line(peer, "GET /ws%s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade",
              queries[how % COUNT(queries)]);
    if (how & 64)
        send_line(peer, "Origin: https://%s.example", how & 32 ? "a" : "b");
    send_line(peer, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
}

static void send_frame(struct peer *peer, struct fuzz *fuzz)
{
    unsigned kind = fuzz_byte(fuzz);
    static const uint8_t mask[4] = {0, 0x11, 0x80, 0xff};
    struct rcbuf *message = ws_masked_frame((enum ws_opcode)(kind & 15), take_text(fuzz), mask);

    REQUIRE(message != NULL);
    message->bytes[0] = (char)(message->bytes[0] ^ (int)(kind & 0xf0));
    send_text(peer, (struct str){message->bytes, message->length});
    rcbuf_release(message);
}

static void set_window(struct run *run, struct peer *peer, unsigned width)
{
    peer->wire.window = width == 255 ? NO_WINDOW : width * width;
    if (width == 255)
        return;
    run->limited = true;
    peer->wire.cut = true;
}

static void respond_late(struct run *run, struct peer *peer, unsigned how)
{
    struct account_result result = peer->job;
    struct api_response response;

    if (!peer->open || peer->session.state != SESSION_WAIT)
        return;
    REQUIRE(result.request_id == session_request_id(&peer->session));
    result.outcome = (enum account_outcome)(how % 7);
    if (result.outcome >= ACCOUNT_CHANGED) /* which the worker keeps to itself */
        result.outcome++;
    snprintf(result.reason, sizeof result.reason, "no space");
    api_finish(&run->api, &result, run->context.unix_now, &response);
    session_respond(&run->context, &peer->session, &response);
    update(run, peer);
}

static void pass_time(struct run *run, unsigned how)
{
    static const int64_t times[] = {1, 100, 1000, 5000, 10000, 25000, 35000, 75000};

    run->context.now += times[how % COUNT(times)];
    for (size_t i = 0; i < PEERS; i++) {
        struct session *session = &run->peers[i].session;

        if (!run->peers[i].open)
            continue;
        if (how & 128)
            session_ping_early(&run->context, session);
        session_expire(&run->context, session);
        update(run, &run->peers[i]);
        /* what was due has been done: the loop would spin otherwise */
        REQUIRE(session->state == SESSION_DEAD ||
                session_timer(&run->context, session) > run->context.now);
    }
}

static void stop(struct run *run)
{
    run->context.stopping = true;
    for (size_t i = 0; i < PEERS; i++)
        if (run->peers[i].open && run->peers[i].session.state != SESSION_DEAD) {
            session_stop(&run->context, &run->peers[i].session);
            update(run, &run->peers[i]);
        }
}

static void reset(struct run *run, struct peer *peer)
{
    peer->wire.reset = peer->wire.cut = run->limited = true;
}

static void act(struct run *run, struct fuzz *fuzz)
{
    unsigned what = fuzz_byte(fuzz);
    struct peer *peer = connect_peer(run, what % PEERS);
    struct fuzz again;

    switch (what / PEERS % 13) {
    case 0:
        send_text(peer, take_text(fuzz));
        break;
    case 1:
        call(run, peer, fuzz);
        break;
    case 2: /* many times the same */
        what = fuzz_byte(fuzz);
        for (again = *fuzz; what > 0 && run->repeated < REPEATED_MOST; what--) {
            *fuzz = again;
            call(run, peer, fuzz);
            run->repeated++;
        }
        break;
    case 3:
        upgrade(peer, fuzz_byte(fuzz));
        break;
    case 4:
        send_frame(peer, fuzz);
        break;
    case 5:
        iterate(run); /* what has come is dealt with before time passes */
        pass_time(run, fuzz_byte(fuzz));
        break;
    case 6:
        set_window(run, peer, fuzz_byte(fuzz));
        break;
    case 7:
        peer->wire.in_ended = true;
        break;
    case 8:
        reset(run, peer);
        break;
    case 9:
        iterate(run);
        respond_late(run, peer, fuzz_byte(fuzz));
        break;
    case 10:
        iterate(run);
        stop(run);
        break;
    case 11:
        peer->session.over_limit = true;
        break;
    case 12:
        what = fuzz_byte(fuzz);
        send_many(peer, (char)what, fuzz_byte(fuzz) * 64);
    }
    iterate(run);
}

/* --- a run ----------------------------------------------------------------------------------- */

/* Without a split all that has come is read at once; else in pieces, each iteration has one unit of
 * it, and notices go out one by one. */
static void open_run(struct run *run, unsigned flags, uint32_t split)
{
    memset(run, 0, sizeof *run);
    current = run;
    run->spent = split ? CONN_BUDGET : 0;
    run->read_split = split;
    run->write_split = split;
    config_defaults(&run->config);
    run->config.linger = 0; /* who is lost is gone */
    run->config.scope = (enum config_notice)(flags % 3);
    run->config.registration = (enum config_register)((flags >> 2) % 3);
    snprintf(run->config.register_key, sizeof run->config.register_key, "sesame");
    run->config.api_rate = flags & 16 ? 3 : 0;
    if (flags & 32)
        snprintf(run->config.allowed_origins, 100, "https://a.example https://c.example");
    run->config.send_queue = flags & 128 ? 1024 : 4096;
    run->config.max_message = 256;
    run->config.max_body = 12000;
    run->config.max_head = 1024;
    run->log = (struct log){.file = null_file, .level = flags & 64 ? LOG_DEBUG : LOG_WARN};
    run->api = (struct api){
        .config = &run->config, .keys = &keys, .hub = &run->hub, .accounts = accounts, .seed = 1};
    run->context = (struct session_context){.config = &run->config,
                                            .log = &run->log,
                                            .hub = &run->hub,
                                            .api = &run->api,
                                            .accounts = accounts,
                                            .now = START,
                                            .unix_now = UNIX_NOW};
    api_open(&run->api);
    http_date(UNIX_NOW, run->context.date);
    REQUIRE(hub_open(&run->hub, &run->config, &run->log));
    run->hub.now = UNIX_NOW;
}

/* The group that a client says it is in has it among its members. */
static void require_member(struct run *run, struct str system, struct str group, const char *id)
{
    struct buf name = {0};
    struct command command = {.kind = COMMAND_ONLINE_LIST, .system = system};
    struct result outcome = {0};
    struct str rest;
    bool found = false;

    REQUIRE(json_decode_string((struct json_value){JSON_STRING, group}, &name));
    command.group = str_of(&name);
    hub_apply(&run->hub, &command, &outcome);
    rest = str_of(&outcome.list);
    while (rest.at)
        found |= str_equal(behind(str_cut(&rest, '"'), 0), str_from(id));
    REQUIRE(found && outcome.count > 0);
    buf_free(&outcome.list);
    buf_free(&name);
}

static void require_memberships(struct run *run, struct str system, struct peer *peer)
{
    char id[HUB_ID_LENGTH + 3];
    struct json_field groups = {.name = STR_INIT("groups")};
    struct command command = {.kind = COMMAND_CLIENT_INFO, .system = system};
    struct result outcome = {0};
    struct json_value group;
    struct json_error error;

    learn_id(peer);
    snprintf(id, sizeof id, "\"%s\"", peer->id);
    command.client = (struct json_value){JSON_STRING, str_from(id)};
    hub_apply(&run->hub, &command, &outcome);
    if (outcome.code == RESULT_SUCCESS) {
        struct str list = str_of(&outcome.list);

        REQUIRE(json_parse_object(list, &groups, 1, &error));
        while (json_next_element(&groups.value.text, &group))
            require_member(run, system, group.text, peer->id);
    }
    buf_free(&outcome.list);
}

/* Every peer vanishes, and with it all that was kept for it. */
static void close_run(struct run *run)
{
    for (size_t i = 0; i < PEERS; i++)
        if (run->peers[i].open && run->peers[i].session.conn.client) {
            require_memberships(run, STR("shop"), &run->peers[i]);
            require_memberships(run, STR("bank"), &run->peers[i]);
        }
    for (size_t i = 0; i < PEERS; i++) {
        struct peer *peer = &run->peers[i];

        if (!peer->open)
            continue;
        take_output(run, peer);
        buf_free(&peer->wire.out);
        peer->wire.reset = peer->wire.cut = true;
        respond_late(run, peer, 0);
    }
    iterate(run);
    for (size_t i = 0; i < PEERS; i++)
        REQUIRE(!run->peers[i].open);
    REQUIRE(!conn_next_dirty(&run->shared) && run->hub.channels.names.count == 0);
    hub_close(&run->hub);
    api_free(&run->api);
    current = NULL;
}

static void run_input(struct run *run, struct fuzz fuzz, unsigned flags, uint32_t split)
{
    open_run(run, flags, split);
    while (fuzz.length)
        act(run, &fuzz);
    close_run(run);
}

/* Two systems, in a file that is needed for this moment alone. */
static void prepare(void)
{
    char folder[] = "/tmp/wspush-fuzz.XXXXXX", path[64], error[200] = "";
    static const char salt[] = "00112233445566778899aabbccddeeff";
    unsigned char bytes[CRYPTO_SALT_SIZE], hash[CRYPTO_HASH_SIZE];
    FILE *file;

    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/accounts", folder);
    file = fopen(path, "w");
    REQUIRE(file != NULL);
    fprintf(file, "pbkdf2-sha256 1 %s %s%s shop\npbkdf2-sha256 1 %s %s%s bank\n", salt, salt, salt,
            salt, salt, salt);
    REQUIRE(fclose(file) == 0);
    accounts = account_open(folder, -1, 1, error, sizeof error);
    REQUIRE(accounts != NULL && unlink(path) == 0 && rmdir(folder) == 0);
    REQUIRE(crypto_add_key(&keys, STR("0123456789abcdef"), false));
    REQUIRE(str_read_hex(str_from(salt), bytes, sizeof bytes) &&
            crypto_sha256((struct str){(const char *)bytes, sizeof bytes}, hash));
    for (int i = 0; i < 8; i++)
        generation = generation << 8 | hash[i];
    null_file = fopen("/dev/null", "w");
    REQUIRE(null_file != NULL && setvbuf(null_file, NULL, _IONBF, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};
    unsigned flags = fuzz_byte(&fuzz);
    uint32_t split = fuzz_byte(&fuzz) + 1;
    bool same;
    static struct run whole, pieces;

    if (!accounts)
        prepare();
    run_input(&whole, fuzz, flags, 0);
    run_input(&pieces, fuzz, flags, split);
    /* whether 100 Continue is sent depends on whether the body has begun to come, and what it takes
     * of a window is lost to others */
    same =
        !whole.limited || (!whole.continued && !pieces.continued && !whole.timed && !pieces.timed);
    for (size_t i = 0; i < PEERS; i++) {
        REQUIRE(!same || str_equal(str_of(&whole.received[i]), str_of(&pieces.received[i])));
        buf_free(&whole.received[i]);
        buf_free(&pieces.received[i]);
    }
    return 0;
}

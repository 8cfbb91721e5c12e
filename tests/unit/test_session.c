/* test_session.c - session.c: what one connection says to whatever comes over it, in whatever
 * pieces, and when it is ended. */
#include "session.h"

#include "node.h"

#define GUESTS 3
#define START 1000000 /* milliseconds at which a test begins */
#define ODD_NAME "\xc3\xa9 +&"

/* A session and the far end of its connection. */
struct guest {
    struct session session;
    struct far_end far;
    char id[HUB_ID_LENGTH + 1]; /* of its client */
};

static struct guest guests[GUESTS];
static size_t guest_count;
static struct session_context context;
static bool worker_is_slow; /* results of account jobs do not come */
static size_t spent_before; /* work of others in each share of an iteration */

/* --- the turn, as the loop does it ----------------------------------------------------------- */

static void settle(struct guest *guest)
{
    if (guest->session.state != SESSION_DEAD && !guest->session.conn.dirty)
        session_flushed(&context, &guest->session);
}

/* True if part of a request or of a message is here. */
static bool is_receiving(const struct session *session)
{
    return session->state == SESSION_HTTP_HEAD || session->state == SESSION_HTTP_BODY ||
           session->state == SESSION_CLOSING ||
           (session->state == SESSION_OPEN && session->since != SESSION_NEVER);
}

/* Does what poll() would wake the loop for; false if that is nothing. */
static bool serve(struct guest *guest)
{
    struct session *session = &guest->session;
    bool reads = session_wants_input(session);
    struct pollfd poll_fd = {session->conn.fd, 0, 0};

    poll_fd.events = (short)((reads ? POLLIN : 0) | (session->conn.want_write ? POLLOUT : 0));
    if (!poll_fd.events || session->state == SESSION_DEAD || poll(&poll_fd, 1, 0) <= 0)
        return false;
    if (poll_fd.revents & POLLOUT)
        session_writable(&context, session);
    if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR))
        session_read(&context, session);
    settle(guest);
    return true;
}

static bool take_result(struct guest *guest)
{
    struct account_result result;
    struct api_response answer;

    if (guest->session.state != SESSION_WAIT || worker_is_slow || !node_await(&result))
        return false;
    CHECK(result.request_id == session_request_id(&guest->session));
    api_finish(&node.api, &result, context.unix_now, &answer);
    answer.system = (struct str){result.name, result.name_length};
    session_respond(&context, &guest->session, &answer);
    settle(guest);
    return true;
}

static void begin_share(void)
{
    conn_begin_batch(&node.shared);
    node.shared.spent += spent_before;
}

/* One turn; false if nothing has moved. */
static bool turn(void)
{
    struct conn *conn;
    bool moved = false;

    begin_share();
    for (size_t i = 0; i < guest_count; i++) {
        bool served = serve(&guests[i]);

        moved = take_result(&guests[i]) || served || moved;
    }
    for (size_t i = 0; i < guest_count; i++)
        if (guests[i].session.over_budget) {
            begin_share();
            session_continue(&context, &guests[i].session);
            settle(&guests[i]);
            moved = true;
        }
    moved = hub_flush_notices(&node.hub, SIZE_MAX) || moved;
    conn_end_batches(&node.shared);
    while ((conn = conn_next_dirty(&node.shared))) {
        moved = true;
        conn_flush(conn);
        settle((struct guest *)conn); /* its first member's first member */
    }
    return moved;
}

/* Turns until nothing moves. A session that waits for nothing holds no input then. */
static void run(void)
{
    int turns = 0;

    while (turn() && CHECK(++turns < 100000))
        ;
    for (size_t i = 0; i < guest_count; i++) {
        const struct session *session = &guests[i].session;

        /* or one line end in front of a request */
        CHECK(!session->conn.input || session->conn.input->length <= 2 || is_receiving(session) ||
              session->conn.queued || session->state == SESSION_WAIT ||
              session->state == SESSION_DEAD);
    }
}

/* Lets time pass, with what is due at its end. */
static void pass(int64_t milliseconds)
{
    context.now += milliseconds;
    for (size_t i = 0; i < guest_count; i++) {
        session_expire(&context, &guests[i].session);
        settle(&guests[i]);
        /* what was due has been done: the loop would do it again at once */
        CHECK(guests[i].session.state == SESSION_DEAD ||
              session_timer(&context, &guests[i].session) > context.now);
    }
    run();
}

/* True if a client has been sent this close frame and nothing else, and its own is waited for. */
static bool was_ended(struct guest *guest, unsigned code, const char *reason)
{
    return got_close(&guest->far, code, reason) && got_nothing(&guest->far) &&
           guest->session.state == SESSION_CLOSING && !guest->session.conn.client;
}

static int64_t deadline_of(const struct guest *guest)
{
    return session_timer(&context, &guest->session) - START;
}

/* --- coming, sending, going ------------------------------------------------------------------ */

static void open_house(void)
{
    node_open();
    guest_count = 0;
    worker_is_slow = false;
    spent_before = 0;
    context = (struct session_context){.config = &node.config,
                                       .log = &node.log,
                                       .hub = &node.hub,
                                       .api = &node.api,
                                       .accounts = node.accounts,
                                       .now = START,
                                       .unix_now = UNIX_NOW,
                                       .metrics = {.hub = &node.hub,
                                                   .api = &node.api,
                                                   .shared = &node.shared,
                                                   .log = &node.log,
                                                   .version = "test"}};
    http_date(UNIX_NOW, context.date);
    node_register(STR("shop"), STR("secret"));
}

static struct guest *receive_guest(void)
{
    struct guest *guest = &guests[guest_count++];

    session_open(&guest->session, far_open(&guest->far), &node.shared, context.now);
    guest->session.index = (uint32_t)guest_count;
    guest->session.generation = 7;
    run();
    return guest;
}

/* The far ends close: nobody stays. */
static void clear_house(void)
{
    for (size_t i = 0; i < guest_count; i++) {
        shutdown(guests[i].far.fd, SHUT_RDWR);
        far_receive(&guests[i].far);
    }
    worker_is_slow = false;
    run();
    for (size_t i = 0; i < guest_count; i++) {
        CHECK(guests[i].session.state == SESSION_DEAD);
        conn_close(&guests[i].session.conn);
        far_close(&guests[i].far);
    }
    guest_count = 0;
}

static void close_house(void)
{
    clear_house();
    node_close();
}

/* Sends in pieces of this size, each of which is dealt with before the next; 0 is all at once. */
static void send_pieces(struct guest *guest, struct str bytes, size_t size)
{
    do {
        size_t length = size && size < bytes.length ? size : bytes.length;

        CHECK(far_send(&guest->far, (struct str){bytes.at, length}));
        bytes.at += length;
        bytes.length -= length;
        run();
    } while (bytes.length);
}

static void say_to(struct guest *guest, const char *text)
{
    send_pieces(guest, str_from(text), 0);
}

/* True if what has come begins with this text, which has been looked at then. */
static bool got_bytes(struct guest *guest, const char *text)
{
    struct str bytes = far_receive(&guest->far);
    size_t length = strlen(text);

    guest->far.taken = length < bytes.length ? length : bytes.length;
    return same((struct str){bytes.at, guest->far.taken}, str_from(text));
}

/* True if exactly this has come. */
static bool got_all(struct guest *guest, const char *text)
{
    return got_bytes(guest, text) && got_nothing(&guest->far);
}

static bool sees_end(struct guest *guest)
{
    return got_nothing(&guest->far) && guest->far.ended;
}

/* True if the far end has been told that nothing more comes, and the session ends with it. */
static bool ends_politely(struct guest *guest)
{
    if (!sees_end(guest) || guest->session.state != SESSION_LINGER)
        return false;
    shutdown(guest->far.fd, SHUT_WR);
    run();
    return guest->session.state == SESSION_DEAD;
}

/* --- HTTP ------------------------------------------------------------------------------------ */

#define NOT_FOUND "{\"code\":-1,\"msg\":\"unknown path\",\"data\":[]}"
#define TAKES_POST "{\"code\":-1,\"msg\":\"this path takes POST\",\"data\":[]}"
#define SUCCESS "{\"code\":0,\"msg\":\"success\",\"data\":[]}"
#define WEBSOCKET "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define UPGRADED                                                                                   \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
#define GET_SHOP "GET /ws?systemId=shop HTTP/1.1\r\nHost: h\r\n" WEBSOCKET VERSION KEY "\r\n"
#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"
#define GET_NOTHING "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"

#define KEEP_ALIVE "Keep-Alive: timeout=74\r\n"

static const char *token_line(void)
{
    struct buf token = {0};
    const char *line;

    crypto_sign_token(node.keys.keys, STR("shop"), node_generation(STR("shop")), UNIX_NOW + 60,
                      &token);
    line = say("Token: %.*s\r\n", (int)token.length, token.at);
    buf_free(&token);
    return line;
}

/* A POST with a good token and whatever else is to stand in its head. */
static const char *post(const char *path, const char *headers, const char *body)
{
    return say("POST %s HTTP/1.1\r\nHost: h\r\n%s%sContent-Length: %zu\r\n\r\n%s", path,
               token_line(), headers, strlen(body), body);
}

/* An answer's bytes. */
static const char *answer(const char *status, const char *fields, const char *body)
{
    return say("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%s%sContent-Type: "
               "application/json; charset=utf-8\r\nContent-Length: %zu\r\n%s\r\n%s",
               status, fields, strstr(fields, "close") ? "" : KEEP_ALIVE,
               strncmp(status, "401", 3) == 0 ? "WWW-Authenticate: Token\r\n" : "", strlen(body),
               HTTP_UNCACHED, body);
}

static const char *not_found(void)
{
    return answer("404 Not Found", "", NOT_FOUND);
}

static const char *refusal(const char *status, const char *fields, const char *msg)
{
    return answer(status, fields, say("{\"code\":-1,\"msg\":\"%s\",\"data\":[]}", msg));
}

static const char *upgrade(const char *query, const char *headers)
{
    return say("GET /ws%s HTTP/1.1\r\nHost: h\r\n%s\r\n", query, headers);
}

/* Somebody connects, upgrades, and is a client of shop. */
static struct guest *receive_client(void)
{
    struct guest *guest = receive_guest();

    say_to(guest, upgrade("?systemId=shop", WEBSOCKET VERSION KEY));
    CHECK(got_bytes(guest, UPGRADED));
    CHECK(got_id_frame(&guest->far, guest->id) && got_nothing(&guest->far));
    CHECK(guest->session.state == SESSION_OPEN && guest->session.conn.client);
    CHECK(!guest->session.conn.has_response && !guest->session.conn.input);
    return guest;
}

static void a_connection_serves_many_requests(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    for (int i = 0; i < 3; i++) {
        say_to(guest, GET_NOTHING);
        CHECK(got_all(guest, not_found()));
        say_to(guest, post("/api/get_online_list", "", "{\"groupName\":\"g\"}"));
        CHECK(got_all(guest, answer("200 OK", "",
                                    "{\"code\":0,\"msg\":\"success\","
                                    "\"data\":{\"count\":0,\"list\":[]}}")));
        say_to(guest, post("/api/login", "", "{}"));
        CHECK(got_all(guest, refusal("400 Bad Request", "", "field systemId is missing")));
        CHECK(guest->session.state == SESSION_HTTP_IDLE && !guest->session.conn.input);
    }
    close_house();
}

static void the_version_says_whether_it_stays(void)
{
    static const struct {
        const char *version, *headers;
        const char *told; /* in the answer */
        bool stays;
    } rows[] = {
        {"1.1", "Host: h\r\n", "", true},
        {"1.1", "Host: h\r\nConnection: keep-alive\r\n", "", true},
        {"1.1", "Host: h\r\nConnection: foo, Close\r\n", "Connection: close\r\n", false},
        {"1.0", "", "Connection: close\r\n", false},
        {"1.0", "Connection: close\r\n", "Connection: close\r\n", false},
        {"1.0", "Connection: Keep-Alive\r\n", "Connection: keep-alive\r\n", true},
        {"1.0", "Connection: keep-alive, close\r\n", "Connection: close\r\n", false},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();

        say_to(guest, say("GET /nothing HTTP/%s\r\n%s\r\n", rows[i].version, rows[i].headers));
        CHECK(got_all(guest, answer("404 Not Found", rows[i].told, NOT_FOUND)));
        CHECK(guest->far.ended != rows[i].stays);
        say_to(guest, GET_NOTHING);
        if (rows[i].stays)
            CHECK(got_all(guest, not_found()));
        else
            CHECK(ends_politely(guest));
        clear_house();
    }
    close_house();
}

static void head_and_options_are_answered(void)
{
    static const struct {
        const char *method, *target, *status, *allow, *body;
    } rows[] = {
        {"HEAD", "/nothing", "404 Not Found", "", NOT_FOUND},
        {"HEAD", "/api/login", "405 Method Not Allowed", "Allow: POST, OPTIONS\r\n", TAKES_POST},
        {"HEAD", "/ws", "405 Method Not Allowed", "Allow: GET, OPTIONS\r\n",
         "{\"code\":-1,\"msg\":\"this path takes GET\",\"data\":[]}"},
        {"POST", "/ws", "405 Method Not Allowed", "Allow: GET, OPTIONS\r\n",
         "{\"code\":-1,\"msg\":\"this path takes GET\",\"data\":[]}"},
        {"OPTIONS", "/ws", "200 OK", "Allow: GET, OPTIONS\r\n", SUCCESS},
        {"OPTIONS", "/api/login", "200 OK", "Allow: POST, OPTIONS\r\n", SUCCESS},
        {"OPTIONS", "*", "200 OK", "Allow: GET, POST, OPTIONS\r\n", SUCCESS},
    };
    struct guest *guest;

    open_house();
    guest = receive_guest();
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *expected = answer(rows[i].status, rows[i].allow, rows[i].body);

        say_to(guest, say("%s %s HTTP/1.1\r\nHost: h\r\n\r\n", rows[i].method, rows[i].target));
        if (rows[i].method[0] == 'H') /* its length is told, its bytes are not sent */
            expected = say("%.*s", (int)(strlen(expected) - strlen(rows[i].body)), expected);
        CHECK(got_all(guest, expected));
    }
    close_house();
}

/* Requests of all kinds in one stream, and their answers. */
static void write_stream(struct buf *stream, struct buf *answers)
{
    static const char login[] = "{\"systemId\":\"shop\",\"password\":\"secret\"}";
    const struct {
        const char *request, *answer;
    } rows[] = {
        {post("/api/send_to_system", "", "{\"code\":1,\"msg\":\"m\",\"data\":1}"),
         answer("200 OK", "", SUCCESS)},
        {say("POST /api/get_online_list HTTP/1.1\r\nHost: h\r\n%sTransfer-Encoding: chunked\r\n\r\n"
             "5;x=y\r\n{\"gro\r\nC\r\nupName\":\"g\"}\r\n0\r\nT: x\r\n\r\n",
             token_line()),
         answer("200 OK", "",
                "{\"code\":0,\"msg\":\"success\",\"data\":{\"count\":0,\"list\":[]}}")},
        {"\r\nHEAD /nothing HTTP/1.1\r\nhost:h\r\n\r\n",
         say("%.*s", (int)(strlen(not_found()) - strlen(NOT_FOUND)), not_found())},
        {say("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", strlen(login),
             login),
         NULL},
        {"POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n"
         "{\"systemId\":\"x\",\"password\":\"y\"}  ",
         answer("200 OK", "",
                "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}")},
        {"POST /api/register HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 34\r\n\r\n"
         "{\"systemId\":\"shop\",\"password\":\"y\"}",
         answer("200 OK", "Connection: keep-alive\r\n",
                "{\"code\":-1004,\"msg\":\"systemId is already registered\",\"data\":[]}")},
    };
    struct buf token = {0};

    for (size_t i = 0; i < COUNT(rows); i++)
        buf_append(stream, str_from(rows[i].request));
    for (size_t i = 0; i < 3; i++)
        buf_append(answers, str_from(rows[i].answer));
    crypto_sign_token(node.keys.keys, STR("shop"), node_generation(STR("shop")),
                      UNIX_NOW + (int64_t)node.config.token_ttl, &token);
    buf_append(answers,
               str_from(answer("200 OK", "",
                               say("{\"code\":0,\"msg\":\"success\",\"data\":{\"token\":\"%.*s\","
                                   "\"expiresIn\":172800}}",
                                   (int)token.length, token.at))));
    buf_free(&token);
    for (size_t i = 4; i < COUNT(rows); i++)
        buf_append(answers, str_from(rows[i].answer));
    buf_append(stream,
               STR(GET_NOTHING "GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                               "what follows is dropped"));
    buf_append(answers, str_from(not_found()));
    buf_append(answers, str_from(answer("404 Not Found", "Connection: close\r\n", NOT_FOUND)));
}

/* Feeds `first` bytes and then pieces of `size`; the answers must be the same. */
static bool stream_is_answered(struct str stream, size_t first, size_t size, struct str answers)
{
    struct guest *guest = receive_guest();
    bool good;

    if (first)
        send_pieces(guest, (struct str){stream.at, first}, 0);
    send_pieces(guest, (struct str){stream.at + first, stream.length - first}, size);
    good = same(far_receive(&guest->far), answers) && guest->far.ended;
    if (!good)
        printf("  that was with %zu bytes, then pieces of %zu\n", first, size);
    clear_house();
    return good;
}

/* The head of an answer for the console's page. */
static const char *page_head(const struct console *console, const char *status, const char *fields)
{
    return say("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%sContent-Type: text/html; "
               "charset=utf-8\r\nContent-Length: %u\r\n%s\r\n",
               status, fields, *fields ? "" : KEEP_ALIVE, (unsigned)console->page->length,
               console->fields);
}

static bool got_page(struct guest *guest, const struct console *console)
{
    struct str bytes = far_receive(&guest->far);
    struct str page = {console->page->bytes, console->page->length};

    guest->far.taken = page.length < bytes.length ? page.length : bytes.length;
    return str_equal((struct str){bytes.at, guest->far.taken}, page);
}

static void the_console_is_a_page(void)
{
    static const char others[] = "{\"code\":-1,\"msg\":\"this path takes GET\",\"data\":[]}";
    const char *allow = "Allow: GET, HEAD, OPTIONS\r\n";
    struct console console;
    struct guest *guest;

    open_house();
    CHECK(console_open(&console));
    context.console = &console;
    guest = receive_guest();
    for (size_t size = 0; size < 3; size++) {
        send_pieces(guest,
                    STR("GET / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /?x HTTP/1.1\r\nHost: h\r\n\r\n"
                        "GET /?x HTTP/1.1\r\nHost: h\r\n\r\n" GET_NOTHING),
                    size * 7);
        CHECK(got_bytes(guest, page_head(&console, "200 OK", "")) && got_page(guest, &console));
        CHECK(got_bytes(guest, page_head(&console, "200 OK", "")));
        CHECK(got_bytes(guest, page_head(&console, "200 OK", "")) && got_page(guest, &console));
        CHECK(got_all(guest, not_found()));
    }
    CHECK(console.page->references == 1); /* nothing is kept of it */
    say_to(guest, say("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: %s\r\n\r\n", console.etag));
    CHECK(got_all(guest, page_head(&console, "304 Not Modified", "")));
    say_to(guest, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}");
    CHECK(got_all(guest, answer("405 Method Not Allowed", allow, others)));
    say_to(guest, "OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(guest, answer("200 OK", allow, SUCCESS)));
    say_to(guest, "GET / HTTP/1.0\r\n\r\n");
    CHECK(got_bytes(guest, page_head(&console, "200 OK", "Connection: close\r\n")));
    CHECK(got_page(guest, &console) && ends_politely(guest));
    context.console = NULL;
    guest = receive_guest();
    say_to(guest, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(guest, not_found()));
    close_house();
    console_close(&console);
}

static void a_stream_is_answered_in_order_however_cut(void)
{
    struct buf stream = {0}, answers = {0};

    open_house();
    write_stream(&stream, &answers);
    CHECK(stream_is_answered(str_of(&stream), 0, 0, str_of(&answers)));
    CHECK(stream_is_answered(str_of(&stream), 0, 1, str_of(&answers)));
    CHECK(stream_is_answered(str_of(&stream), 0, 7, str_of(&answers)));
    for (size_t cut = 1; cut < stream.length && test_good; cut++)
        CHECK(stream_is_answered(str_of(&stream), cut, 0, str_of(&answers)));
    spent_before = CONN_BUDGET; /* each turn has one request */
    CHECK(stream_is_answered(str_of(&stream), 0, 0, str_of(&answers)));
    for (size_t cut = 1; cut < stream.length && test_good; cut++)
        CHECK(stream_is_answered(str_of(&stream), cut, 0, str_of(&answers)));
    buf_free(&stream);
    buf_free(&answers);
    close_house();
}

/* Requests and their answers, in an order of their own, up to what one read takes. */
static size_t write_many(struct buf *requests, struct buf *answers)
{
    static const char *const lines[] = {"GET /nothing", "GET /api/login", "OPTIONS /api/login"};
    const char *const replies[] = {
        not_found(), answer("405 Method Not Allowed", "Allow: POST, OPTIONS\r\n", TAKES_POST),
        answer("200 OK", "Allow: POST, OPTIONS\r\n", SUCCESS)};
    uint32_t state = 5;
    size_t count = 0;

    for (; requests->length < CONN_SCRATCH - 100; count++) {
        size_t which = next_random(&state) % COUNT(lines);

        buf_append(requests, str_from(lines[which]));
        buf_append(requests, STR(" HTTP/1.1\r\nHost: h\r\n\r\n"));
        buf_append(answers, str_from(replies[which]));
    }
    return count;
}

/* What one read brings may be more than a turn's budget: the rest has other turns, in which more is
 * not read, and others are served. */
static void a_batch_beyond_the_budget_takes_turns(void)
{
    struct buf requests = {0}, answers = {0}, got = {0};
    struct guest *guest, *other;
    int turns = 0, held = 0;
    size_t count;

    open_house();
    spent_before = CONN_BUDGET / 4 * 3; /* by others */
    guest = receive_guest();
    other = receive_guest();
    count = write_many(&requests, &answers);
    CHECK(far_send(&guest->far, str_of(&requests)) && far_send(&guest->far, STR(GET_NOTHING)));
    buf_append(&answers, str_from(not_found()));
    for (bool moved = true; moved && CHECK(turns < 1000); turns++) {
        CHECK(far_send(&other->far, STR(GET_NOTHING)));
        moved = turn();
        CHECK(got_all(other, not_found()));
        moved = moved && got.length < answers.length;
        CHECK(session_wants_input(&guest->session) != guest->session.over_budget);
        CHECK(!guest->session.over_budget || guest->session.conn.input);
        held += guest->session.over_budget;
        buf_append(&got, far_receive(&guest->far));
        guest->far.taken = guest->far.received.length;
    }
    CHECK(same(str_of(&got), str_of(&answers)) && !guest->session.conn.input);
    CHECK(held >= 2 && count > 1000);
    buf_free(&requests);
    buf_free(&answers);
    buf_free(&got);
    close_house();
}

/* While an account job runs nothing more is read or answered, and no deadline passes. */
static void what_follows_a_login_waits_for_it(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    worker_is_slow = true;
    say_to(guest, say("%s%s%s", post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"),
                      GET_NOTHING, "GET /part"));
    CHECK(guest->session.state == SESSION_WAIT && guest->session.conn.input);
    CHECK(!session_wants_input(&guest->session));
    say_to(guest, "ial HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(session_timer(&context, &guest->session) == INT64_MAX);
    pass(1000000);
    CHECK(got_nothing(&guest->far) && !guest->far.ended);
    worker_is_slow = false;
    run();
    CHECK(got_all(guest,
                  say("%s%s%s",
                      answer("200 OK", "",
                             "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}"),
                      not_found(), not_found())));
    CHECK(guest->session.state == SESSION_HTTP_IDLE && !guest->session.conn.input);
    close_house();
}

static void a_late_answer_keeps_its_manner(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    say_to(guest,
           post("/api/login", "Connection: close\r\n", "{\"systemId\":\"a\",\"password\":\"b\"}"));
    CHECK(got_all(guest,
                  answer("200 OK", "Connection: close\r\n",
                         "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}")));
    CHECK(ends_politely(guest));
    close_house();
}

static void a_body_is_called_for_once(void)
{
    static const struct {
        const char *version, *headers; /* Content-Length is 2, unless it is chunked */
        const char *body;
        bool called;
    } rows[] = {
        {"1.1", "Expect: 100-continue\r\nContent-Length: 2\r\n", "{}", true},
        {"1.1", "expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n",
         true},
        {"1.1", "Content-Length: 2\r\n", "{}", false},
        {"1.0", "Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 2\r\n", "{}",
         false},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();
        const char *fields = rows[i].version[2] == '0' ? "Connection: keep-alive\r\n" : "";
        const char *head =
            say("POST /api/login HTTP/%s\r\nHost: h\r\n%s\r\n", rows[i].version, rows[i].headers);

        for (int times = 0; times < 2; times++) {
            send_pieces(guest, str_from(head), times ? 1 : 0);
            CHECK(got_all(guest, rows[i].called ? CONTINUE : ""));
            send_pieces(guest, str_from(rows[i].body), 1);
            CHECK(got_all(guest, refusal("400 Bad Request", fields, "field systemId is missing")));
        }
        say_to(guest, say("%s%s", head, rows[i].body)); /* it came uncalled */
        CHECK(got_all(guest, refusal("400 Bad Request", fields, "field systemId is missing")));
        for (int begun = 1; begun < (int)strlen(rows[i].body); begun++) {
            say_to(guest, say("%s%.*s", head, begun, rows[i].body));
            CHECK(got_nothing(&guest->far));
            clear_house();
            guest = receive_guest();
        }
        clear_house();
    }
    close_house();
}

#define MAX_BODY 1000

#define LOGIN "POST /api/login HTTP/1.1\r\nHost: h\r\n"
#define CHUNKED LOGIN "Transfer-Encoding: chunked\r\n\r\n"
#define TOO_LONG "413 Content Too Large", "the body is longer than max_body"
#define BAD_CHUNK "400 Bad Request", "malformed chunked body, or a trailer with a field of the head"

/* What cannot be served is refused, and the connection ends with the refusal. */
static void what_is_refused_is_the_last(void)
{
    static char long_chunk[MAX_BODY + 200];
    const struct {
        const char *request, *status, *msg;
    } rows[] = {
        {LOGIN "Content-Length: 1001\r\n\r\n", TOO_LONG},
        {LOGIN "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n", TOO_LONG},
        {LOGIN "Content-Length: 18446744073709551615\r\n\r\n", TOO_LONG},
        {CHUNKED "3E9\r\n", TOO_LONG},
        {long_chunk, TOO_LONG},
        {CHUNKED "G\r\n", BAD_CHUNK},
        {CHUNKED "1\r\nab\r\n", BAD_CHUNK},
        {"GET / HTTP/1.1\r\n\r\n", "400 Bad Request", "Host is missing"},
        {"GET /  HTTP/1.1\r\n", "400 Bad Request", "malformed request line"},
        {"GET / HTTP/2.0\r\n", "505 HTTP Version Not Supported",
         "only HTTP/1.0 and HTTP/1.1 are spoken here"},
        {"GET / HTTP/1.1\nHost: h\n\n", "400 Bad Request",
         "a byte that no request may have, or a line not ended by CRLF"},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "400 Bad Request", "Content-Length beside Transfer-Encoding"},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
         "501 Not Implemented", "the only Transfer-Encoding understood is chunked"},
        {"POST / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n", "417 Expectation Failed",
         "the only expectation understood is 100-continue"},
    };

    open_house();
    node.config.max_body = MAX_BODY;
    snprintf(long_chunk, sizeof long_chunk, CHUNKED "3e8\r\n%*s\r\n1\r\n", MAX_BODY, "");
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct guest *guest = receive_guest();

        send_pieces(guest, str_from(rows[i / 2].request), i % 2);
        CHECK(got_bytes(guest,
                        refusal(rows[i / 2].status, "Connection: close\r\n", rows[i / 2].msg)));
        say_to(guest, GET_NOTHING); /* dropped */
        if (!CHECK(ends_politely(guest)))
            printf("  that was row %zu\n", i / 2);
        clear_house();
    }
    close_house();
}

/* Who may not call is told so by the head. A short body is skipped, and what follows it is served;
 * a long one, or one that may not come, makes the answer the connection's last. None is kept. */
static void heads_are_judged_before_bodies(void)
{
    static const char foreign[] =
        "Origin http://x is foreign to Host h: pages of other sites may not "
        "call the API (a proxy passes Host on)";
    static const struct {
        const char *head, *status, *fields, *msg;
        int code;
        bool over_limit;
    } rows[] = {
        {"POST /nothing HTTP/1.1", "404 Not Found", "", "unknown path", -1, false},
        {"POST /api/login HTTP/1.1\r\nOrigin: http://x", "403 Forbidden", "", foreign, -1, false},
        {"PUT /api/login HTTP/1.1", "405 Method Not Allowed", "Allow: POST, OPTIONS\r\n",
         "this path takes POST", -1, false},
        {"POST /ws HTTP/1.1", "405 Method Not Allowed", "Allow: GET, OPTIONS\r\n",
         "this path takes GET", -1, false},
        {"POST / HTTP/1.1", "405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n",
         "this path takes GET", -1, false},
        {"POST /api/register HTTP/1.1", "403 Forbidden", "", "registration is closed", -1, false},
        {"POST /api/get_online_list HTTP/1.1\r\nToken: forged", "401 Unauthorized", "",
         "Token header forged or expired", -1002, false},
        {"POST /api/get_online_list HTTP/1.1", "401 Unauthorized", "", "Token header missing",
         -1002, false},
        {"POST /api/login HTTP/1.1\r\nContent-Encoding: gzip", "415 Unsupported Media Type", "",
         "Content-Encoding gzip is not understood: send the body as it is", -1, false},
        {"POST /api/login HTTP/1.1", "429 Too Many Requests", "Retry-After: 5\r\n",
         "too many connections: max_connections or max_per_ip is reached", -1006, true},
    };
    static const struct {
        const char *fields;
        size_t sent; /* bytes of the body that come */
        bool stays;
    } bodies[] = {
        {"Content-Length: 0", 0, true},
        {"Content-Length: 5", 5, true},
        {"Content-Length: 65536", 65536, true},
        {"Content-Length: 65537", 60000, false},
        {"Content-Length: 1048576", 200000, false},
        {"Content-Length: 1048577", 0, false},
        {"Transfer-Encoding: chunked", 50000, false},
        {"Content-Length: 5\r\nExpect: 100-continue", 5, false},
        {"Content-Length: 5\r\nExpect: 100-continue", 0, false},
    };
    static char bytes[200000];
    struct console console;

    memset(bytes, 'x', sizeof bytes);
    open_house();
    CHECK(console_open(&console));
    context.console = &console;
    node.config.registration = REGISTER_CLOSED;
    for (size_t i = 0; i < COUNT(rows) * COUNT(bodies) * 2; i++) {
        size_t row = i / 2 % COUNT(rows), body = i / 2 / COUNT(rows);
        struct guest *guest = receive_guest();
        bool stays = bodies[body].stays && !rows[row].over_limit;
        const char *told = say("%s%s", rows[row].fields, stays ? "" : "Connection: close\r\n");
        const char *text =
            say("{\"code\":%d,\"msg\":\"%s\",\"data\":[]}", rows[row].code, rows[row].msg);

        guest->session.over_limit = rows[row].over_limit;
        send_pieces(
            guest,
            str_from(say("%s\r\nHost: h\r\n%s\r\n\r\n", rows[row].head, bodies[body].fields)),
            i % 2);
        if (!CHECK(got_all(guest, answer(rows[row].status, told, text))))
            printf("  that was row %zu, body %zu\n", row, body);
        if (bodies[body].sent)
            send_pieces(guest, (struct str){bytes, bodies[body].sent}, i % 2 ? 4099 : 65536);
        CHECK(!guest->session.conn.input && got_nothing(&guest->far));
        say_to(guest, GET_NOTHING);
        CHECK(stays ? got_all(guest, not_found()) : ends_politely(guest));
        clear_house();
    }
    close_house();
    console_close(&console);
}

/* Probes of balancers, with and without Host, with and without a page. */
static void probes_are_answered(void)
{
    static const struct {
        const char *request;
        bool needs_page, head;
        const char *fields;
    } rows[] = {
        {"GET /healthz HTTP/1.1\r\nHost: attacker.example", false, false, ""},
        {"GET /healthz?a=b HTTP/1.1\r\nHost:", false, false, ""},
        {"HEAD /healthz HTTP/1.1\r\nHost: h", false, true, ""},
        {"OPTIONS /healthz HTTP/1.1\r\nHost: h", false, false, "Allow: GET, HEAD, OPTIONS\r\n"},
        {"GET /healthz HTTP/1.0", false, false, "Connection: close\r\n"},
        {"HEAD /healthz HTTP/1.0", false, true, "Connection: close\r\n"},
        {"OPTIONS / HTTP/1.0", true, false, "Allow: GET, HEAD, OPTIONS\r\nConnection: close\r\n"},
        {"OPTIONS / HTTP/1.0", false, false, "Allow: OPTIONS\r\nConnection: close\r\n"},
        {"OPTIONS * HTTP/1.0", false, false, "Allow: GET, POST, OPTIONS\r\nConnection: close\r\n"},
    };
    struct console console;

    open_house();
    CHECK(console_open(&console));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();
        const char *expected = answer("200 OK", rows[i].fields, SUCCESS);

        context.console = rows[i].needs_page ? &console : NULL;
        say_to(guest, say("%s\r\n\r\n", rows[i].request));
        if (rows[i].head)
            expected = say("%.*s", (int)(strlen(expected) - strlen(SUCCESS)), expected);
        if (!CHECK(got_all(guest, expected)))
            printf("  that was row %zu\n", i);
        clear_house();
    }
    CHECK(context.metrics.calls[0].microseconds == 0);
    close_house();
    console_close(&console);
}

/* Who asks for a WebSocket elsewhere than at /ws is told where it is, page or no page. */
static void clients_are_told_the_path(void)
{
    static const char *const paths[] = {"/", "/?systemId=shop", "/ws/", "/websocket", "/healthz"};
    struct console console;

    open_house();
    CHECK(console_open(&console));
    for (size_t i = 0; i < COUNT(paths) * 2; i++) {
        struct guest *guest = receive_guest();

        context.console = i % 2 ? &console : NULL;
        say_to(guest,
               say("GET %s HTTP/1.1\r\nHost: h\r\n" WEBSOCKET VERSION KEY "\r\n", paths[i / 2]));
        CHECK(got_all(guest, refusal("404 Not Found", "", "clients connect to /ws?systemId=…")));
        say_to(guest,
               say("GET %s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
                   paths[i / 2]));
        CHECK(contains(far_receive(&guest->far),
                       i / 2 == 4 || (i / 2 < 2 && i % 2) ? "200 OK" : "\"unknown path\""));
        clear_house();
    }
    close_house();
    console_close(&console);
}

/* A line end behind a body asks for nothing: no time runs for it, and the next request is whole. */
static void a_line_end_asks_for_nothing(void)
{
    struct guest *guest;

    open_house();
    for (int size = 0; size < 2; size++) {
        context.now = START;
        guest = receive_guest();
        send_pieces(guest, str_from(say("%s\r\n", post("/api/login", "", "{}"))), (size_t)size);
        CHECK(got_all(guest, refusal("400 Bad Request", "", "field systemId is missing")));
        CHECK(!is_receiving(&guest->session) && deadline_of(guest) == 75000);
        pass(20000);
        CHECK(got_nothing(&guest->far) && !guest->far.ended);
        say_to(guest, "GET /noth");
        CHECK(deadline_of(guest) == 20000 + 10000);
        say_to(guest, "ing HTTP/1.1\r\nHost: h\r\n\r\n\r");
        CHECK(got_all(guest, not_found()) && deadline_of(guest) == 20000 + 75000);
        pass(20000);
        say_to(guest, "\n");
        CHECK(deadline_of(guest) == 20000 + 75000);
        pass(55000);
        CHECK(sees_end(guest) && guest->session.state == SESSION_DEAD);
        clear_house();
    }
    /* one is forgiven, as ever */
    guest = receive_guest();
    say_to(guest, GET_NOTHING "\r\n");
    CHECK(got_all(guest, not_found()));
    say_to(guest, "\r\n");
    CHECK(got_all(guest,
                  refusal("400 Bad Request", "Connection: close\r\n", "malformed request line")));
    close_house();
}

/* The time told is a second less than the time kept. */
static void idle_time_is_told(void)
{
    static const struct {
        uint64_t timeout;
        const char *told;
    } rows[] = {{1000, ""},
                {1999, ""},
                {2000, "Keep-Alive: timeout=1\r\n"},
                {75999, "Keep-Alive: timeout=74\r\n"},
                {86400000, "Keep-Alive: timeout=86399\r\n"}};

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();

        node.config.idle_timeout = rows[i].timeout;
        say_to(guest, GET_NOTHING);
        CHECK(
            got_all(guest, say("HTTP/1.1 404 Not Found\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s"
                               "Content-Type: application/json; charset=utf-8\r\n"
                               "Content-Length: %zu\r\n%s\r\n%s",
                               rows[i].told, strlen(NOT_FOUND), HTTP_UNCACHED, NOT_FOUND)));
        clear_house();
    }
    close_house();
}

/* A limit that was gone past is in the log as it is by default, by its name; what is no request is
 * there for those who look. */
static void refusals_at_limits_are_logged(void)
{
    static const struct {
        const char *request, *logged;
    } rows[] = {
        {LOGIN "Content-Length: 1001\r\n\r\n",
         "info request rejected remote=\"::\" status=413 reason=\"the body is longer than max_body\""},
        {CHUNKED "3E9\r\n",
         "info request rejected remote=\"::\" status=413 reason=\"the body is longer than max_body\""},
        {"GET /0123456789012345678901234567890123456789",
         "info request rejected remote=\"::\" status=431 reason=\"the request's head is longer than "
         "max_head\""},
        {"GET / HTTP/1.1\r\n\r\n",
         "debug request rejected remote=\"::\" status=400 reason=\"Host is missing\""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        open_house();
        node.config.max_body = MAX_BODY;
        node.log.level = rows[i].logged[0] == 'd' ? LOG_DEBUG : LOG_INFO;
        if (strstr(rows[i].request, "0123456789"))
            node.config.max_head = 40;
        say_to(receive_guest(), rows[i].request);
        CHECK(node_logged(rows[i].logged));
        close_house();
    }
}

/* However many reads a call takes, it counts once towards api_rate, and is checked with its token
 * of then. */
static void a_call_in_pieces_counts_once(void)
{
    static const char body[] = "{\"groupName\":\"g\"}";
    const char *list = "{\"code\":0,\"msg\":\"success\",\"data\":{\"count\":0,\"list\":[]}}";
    struct guest *guest, *other;
    const char *head;

    open_house();
    node.config.api_rate = 3;
    guest = receive_guest();
    for (int i = 0; i < 3; i++) {
        send_pieces(guest, str_from(post("/api/get_online_list", "", body)), 1);
        CHECK(got_all(guest, answer("200 OK", "", list)));
    }
    /* the rate is used up: that is said before the body comes */
    head = post("/api/get_online_list", "", body);
    send_pieces(guest, (struct str){head, strlen(head) - strlen(body)}, 0);
    CHECK(got_all(guest, answer("429 Too Many Requests", "Retry-After: 1\r\n",
                                "{\"code\":-1006,\"msg\":\"more API calls a second than api_rate "
                                "allows\",\"data\":[]}")));
    say_to(guest, body);
    context.now += 1000;
    /* another system calls between a head and its body */
    node_register(STR("other"), STR("secret"));
    send_pieces(guest, (struct str){head, strlen(head) - strlen(body)}, 0);
    other = receive_guest();
    say_to(other, GET_NOTHING);
    CHECK(got_all(other, not_found()));
    memset(node.api.system, 'x', sizeof node.api.system);
    CHECK(got_nothing(&guest->far));
    say_to(guest, body);
    CHECK(got_all(guest, answer("200 OK", "", list)));
    /* the token ends meanwhile */
    send_pieces(guest, (struct str){head, strlen(head) - strlen(body)}, 0);
    context.unix_now += 61;
    say_to(guest, body);
    CHECK(got_all(guest, answer("401 Unauthorized", "",
                                "{\"code\":-1002,\"msg\":\"Token header forged or expired\","
                                "\"data\":[]}")));
    close_house();
}

/* Exactly at their limits bodies and heads are served, in one piece and in many. */
static void limits_are_inclusive(void)
{
    static char head[2000], body[MAX_BODY + 1], request[8000];
    struct guest *guest;

    open_house();
    node.config.max_body = MAX_BODY;
    memset(body, ' ', MAX_BODY);
    memcpy(body, "{\"groupName\":\"g\"}", 17);
    snprintf(head, sizeof head, "POST /api/get_online_list HTTP/1.1\r\nHost: h\r\n%s",
             token_line());
    guest = receive_guest();
    for (size_t size = 0; size < 300; size += 99) {
        const char *expected = answer(
            "200 OK", "", "{\"code\":0,\"msg\":\"success\",\"data\":{\"count\":0,\"list\":[]}}");

        snprintf(request, sizeof request, "%sContent-Length: %d\r\n\r\n%s", head, MAX_BODY, body);
        send_pieces(guest, str_from(request), size);
        CHECK(got_all(guest, expected));
        snprintf(
            request, sizeof request,
            "%sTransfer-Encoding: chunked\r\n\r\n1F4\r\n%.500s\r\n001f4\r\n%.500s\r\n0\r\n\r\n",
            head, body, body + 500);
        send_pieces(guest, str_from(request), size);
        CHECK(got_all(guest, expected));
    }
    close_house();
}

/* A body of 1 MiB, the default limit, in one chunk or none, comes in pieces and is pushed on. */
static void a_long_body_is_taken(void)
{
    const size_t length = 1 << 20;
    struct buf body = {0};
    struct guest *guest, *client;

    open_house();
    client = receive_client();
    guest = receive_guest();
    buf_append(&body, STR("{\"code\":1,\"msg\":\"m\",\"data\":\""));
    CHECK(node.config.max_body == length && buf_reserve(&body, length));
    memset(body.at + body.length, 'x', length - body.length);
    memcpy(body.at + length - 2, "\"}", 2);
    body.length = length;
    for (int chunked = 0; chunked < 2; chunked++) {
        struct buf request = {0};

        buf_append(
            &request,
            str_from(say("POST /api/send_to_system HTTP/1.1\r\nHost: h\r\n%s%s\r\n", token_line(),
                         chunked ? "Transfer-Encoding: chunked\r\n\r\n100000"
                                 : "Content-Length: 1048576\r\n")));
        buf_append(&request, str_of(&body));
        buf_append(&request, chunked ? STR("\r\n0\r\n\r\n") : STR(""));
        send_pieces(guest, str_of(&request), 50000);
        CHECK(got_all(guest, answer("200 OK", "", SUCCESS)) && !guest->session.conn.input);
        while (client->session.conn.first && !client->session.conn.broken) {
            far_receive(&client->far);
            run();
        }
        CHECK(got_frame(&client->far, 1, str_of(&body)) && got_nothing(&client->far));
        buf_free(&request);
    }
    buf_free(&body);
    close_house();
}

/* A limit that becomes lower than what has come of a body, or of a head, refuses it with an answer,
 * whether the next bytes come or not; one that is raised lets it in. */
static void limits_change_in_the_middle(void)
{
    static const struct {
        const char *head;
        size_t sent;                 /* bytes behind the head that come before the change, */
        uint64_t max_body, max_head; /* which is this */
        const char *status, *msg;    /* NULL: it goes on */
    } rows[] = {
        {"Content-Length: 600000\r\n\r\n", 100000, 1000, 8192, "413 Content Too Large",
         "the body is longer than max_body"},
        {"Content-Length: 6000\r\n\r\n", 5000, 1000, 8192, "413 Content Too Large",
         "the body is longer than max_body"},
        {"Content-Length: 6000\r\n\r\n", 5000, 6000, 8192, NULL, NULL},
        {"Transfer-Encoding: chunked\r\n\r\n90000\r\n", 100000, 1000, 8192, "413 Content Too Large",
         "the body is longer than max_body"},
        {"Transfer-Encoding: chunked\r\n\r\n1770\r\n", 5000, 4000, 8192, "413 Content Too Large",
         "the body is longer than max_body"},
        {"Transfer-Encoding: chunked\r\n\r\n1388\r\n", 5000, 4999, 8192, "413 Content Too Large",
         "the body is longer than max_body"},
        {"Transfer-Encoding: chunked\r\n\r\n1388\r\n", 5000, 5000, 8192, NULL, NULL},
        {"X: ", 5000, 1048576, 4000, "431 Request Header Fields Too Large",
         "the request's head is longer than max_head"},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        static char bytes[100000];
        struct guest *guest = receive_guest();

        config_defaults(&node.config);
        memset(bytes, ' ', sizeof bytes);
        say_to(guest, say(LOGIN "%s", rows[i].head));
        send_pieces(guest, (struct str){bytes, rows[i].sent}, 0);
        CHECK(got_nothing(&guest->far) && is_receiving(&guest->session));
        node.config.max_body = rows[i].max_body;
        node.config.max_head = rows[i].max_head;
        say_to(guest, rows[i].msg ? "x" : "\r\n");
        if (rows[i].msg)
            CHECK(got_all(guest, refusal(rows[i].status, "Connection: close\r\n", rows[i].msg)) &&
                  ends_politely(guest));
        else
            CHECK(got_nothing(&guest->far) && guest->session.state == SESSION_HTTP_BODY);
        clear_house();
    }
    close_house();
}

/* Memory is held for what is unfinished, and for nothing else. */
static void an_idle_session_owns_no_input(void)
{
    static const char *const requests[] = {
        GET_NOTHING,
        "POST /api/login HTTP/1.1\r\nHost: h\r\n"
        "Content-Length: 2\r\n\r\n{}",
        "POST /api/login HTTP/1.1\r\nHost: h\r\n"
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"};
    struct guest *guest;

    open_house();
    guest = receive_guest();
    for (size_t i = 0; i < COUNT(requests); i++) {
        size_t length = strlen(requests[i]);

        CHECK(!guest->session.conn.input);
        for (size_t cut = 1; cut < length; cut += 5) {
            send_pieces(guest, (struct str){requests[i], cut}, 0);
            CHECK(guest->session.conn.input);
            say_to(guest, requests[i] + cut);
            CHECK(!guest->session.conn.input);
        }
        far_forget(&guest->far);
    }
    close_house();
}

#define BATCHES 15
#define BATCH 200 /* requests that one read takes */

static void write_batch(int batch, struct buf *requests, struct buf *answers)
{
    for (int i = 0; i < BATCH; i++) {
        int number = batch * BATCH + i;

        buf_append(requests, str_from(post("/api/send_to_system", "",
                                           say("{\"code\":1,\"msg\":\"m\",\"data\":1,\"receipt\":"
                                               "true,\"messageId\":\"%d\"}",
                                               number))));
        buf_append(answers,
                   str_from(answer("200 OK", "",
                                   say("{\"code\":0,\"msg\":\"success\",\"data\":{\"messageId\":"
                                       "\"%d\",\"matched\":0,\"queued\":0,\"dropped\":0}}",
                                       number))));
    }
    CHECK(requests->length < CONN_SCRATCH);
}

/* A client that sends and sends and does not read is not read from either; nothing is lost. */
static void answers_that_wait_hold_back_requests(void)
{
    struct buf requests[BATCHES] = {{0}}, answers = {0};
    int next = 0, held = 0, little = 4096;
    struct guest *guest;

    open_house();
    guest = receive_guest();
    CHECK(setsockopt(guest->session.conn.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little) == 0);
    for (int i = 0; i < BATCHES; i++)
        write_batch(i, &requests[i], &answers);
    while (guest->far.received.length < answers.length && !guest->far.ended && test_good) {
        if (session_wants_input(&guest->session) && next < BATCHES) {
            CHECK(far_send(&guest->far, str_of(&requests[next++])));
        } else {
            held += guest->session.conn.input != NULL;
            far_receive(&guest->far);
        }
        run();
        CHECK(guest->session.conn.queued <= 256 * 1024 + 1000);
    }
    CHECK(held > 0 && next == BATCHES);
    CHECK(same(far_receive(&guest->far), str_of(&answers)));
    for (int i = 0; i < BATCHES; i++)
        buf_free(&requests[i]);
    buf_free(&answers);
    close_house();
}

/* TLS may have to write before it can read: what has come cannot be looked at until it has. */
static void nothing_is_read_while_writing_comes_first(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    guest->session.conn.want_write = guest->session.conn.tls_wants_write = true;
    CHECK(!session_wants_input(&guest->session));
    session_writable(&context, &guest->session);
    CHECK(session_wants_input(&guest->session));
    say_to(guest, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(got_bytes(guest, "HTTP/1.1 404 "));
    close_house();
}

/* Who has asked and will send no more still gets the answers. */
static void a_half_closed_connection_is_answered(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    CHECK(far_send(&guest->far,
                   str_from(say("%s%s%s", GET_NOTHING,
                                post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"),
                                GET_NOTHING))));
    shutdown(guest->far.fd, SHUT_WR);
    run();
    CHECK(got_bytes(guest, not_found()));
    CHECK(got_bytes(guest, answer("200 OK", "",
                                  "{\"code\":-1005,\"msg\":\"wrong systemId or password\","
                                  "\"data\":[]}")));
    CHECK(got_all(guest, not_found()) && guest->far.ended);
    CHECK(guest->session.state == SESSION_DEAD);
    close_house();
}

static void one_connection_too_many_is_refused(void)
{
    static const char *const requests[] = {GET_NOTHING, "POST /nothing HTTP/1.0\r\n\r\n", GET_SHOP};

    open_house();
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct guest *guest = receive_guest();

        guest->session.over_limit = true;
        run();
        CHECK(got_nothing(&guest->far) && !guest->far.ended);
        say_to(guest, requests[i]);
        CHECK(got_bytes(
            guest,
            answer(
                "429 Too Many Requests", "Retry-After: 5\r\nConnection: close\r\n",
                "{\"code\":-1006,\"msg\":\"too many connections: max_connections or max_per_ip is reached\",\"data\":[]}")));
        CHECK(ends_politely(guest));
        clear_house();
    }
    close_house();
}

/* --- upgrades -------------------------------------------------------------------------------- */

/* Appends a frame as clients send it: masked; `first` is its first byte. */
static void append_frame(struct buf *out, unsigned first, struct str payload)
{
    static const unsigned char mask[4] = {0x12, 0x34, 0x80, 0xff};
    size_t extended = payload.length > 65535 ? 8 : payload.length > 125 ? 2 : 0;
    char header[14] = {(char)first};

    header[1] = (char)(0x80 | (extended == 8 ? 127 : extended == 2 ? 126 : payload.length));
    for (size_t i = 0; i < extended; i++)
        header[2 + i] = (char)(payload.length >> (8 * (extended - 1 - i)) & 0xff);
    memcpy(header + 2 + extended, mask, 4);
    buf_append(out, (struct str){header, 6 + extended});
    buf_append(out, payload);
    for (size_t i = 0; i < payload.length && !out->failed; i++) {
        char *byte = &out->at[out->length - payload.length + i];

        *byte = (char)(*byte ^ mask[i & 3]);
    }
}

static void send_frame(struct guest *guest, unsigned first, struct str payload)
{
    struct buf frame = {0};

    append_frame(&frame, first, payload);
    send_pieces(guest, str_of(&frame), 0);
    buf_free(&frame);
}

/* Both are in one group from now on; what has come to them is forgotten. */
static void befriend(struct guest *one, struct guest *other)
{
    struct guest *both[] = {one, other};

    for (size_t i = 0; i < 2; i++) {
        struct command command = {.kind = COMMAND_BIND,
                                  .system = STR("shop"),
                                  .client = quoted(str_from(both[i]->id)),
                                  .group = STR("g")};
        struct result outcome = {0};

        hub_apply(&node.hub, &command, &outcome);
        CHECK(outcome.code == RESULT_SUCCESS);
    }
    run();
    far_forget(&one->far);
    far_forget(&other->far);
}

static bool saw_leave(struct guest *witness, const struct guest *gone)
{
    return got_text(&witness->far, say("{\"code\":1002,\"msg\":\"client offline\",\"data\":"
                                       "{\"clientId\":\"%s\",\"userId\":\"\",\"extend\":\"\","
                                       "\"groupName\":\"g\"}}",
                                       gone->id)) &&
           got_nothing(&witness->far);
}

static void systems_are_found_by_their_name(void)
{
    static const char *const queries[] = {"?systemId=shop", "?systemId=%73h%6F%70",
                                          "?a=b&systemId=shop&c", "?systemId=shop&systemId=x",
                                          "?systemId=%c3%a9%20+%26"};

    open_house();
    node_register(STR(ODD_NAME), STR("x"));
    for (size_t i = 0; i < COUNT(queries); i++) {
        struct guest *guest = receive_guest();

        say_to(guest, upgrade(queries[i], WEBSOCKET VERSION KEY));
        CHECK(got_bytes(guest, UPGRADED) && got_id_frame(&guest->far, guest->id));
        CHECK(guest->session.state == SESSION_OPEN && node.hub.channels.clients.count == 1);
        clear_house();
    }
    close_house();
}

/* A form writes a space as '+', a program may mean it: the name as written goes first. */
static void a_plus_is_a_space_where_nothing_else_is_known(void)
{
    static const struct {
        const char *query, *system; /* NULL: unknown */
    } rows[] = {
        {"a+b", "a b"},       {"a%20b", "a b"}, {"c+d", "c+d"}, {"c%20d", "c d"}, {"c%2Bd", "c+d"},
        {"+e+%20f", " e  f"}, {"c++d", NULL},   {"+", NULL},    {"a+b+", NULL},
    };
    static const char *const names[] = {"a b", "c+d", "c d", " e  f"};

    open_house();
    for (size_t i = 0; i < COUNT(names); i++)
        node_register(str_from(names[i]), STR("x"));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();
        struct result outcome = {0};
        struct command command = {.kind = COMMAND_CLIENT_INFO};

        say_to(guest, upgrade(say("?systemId=%s", rows[i].query), WEBSOCKET VERSION KEY));
        CHECK(got_bytes(guest, UPGRADED));
        if (rows[i].system) {
            CHECK(got_id_frame(&guest->far, guest->id));
            command.system = str_from(rows[i].system);
            command.client = quoted(str_from(guest->id));
            hub_apply(&node.hub, &command, &outcome);
            CHECK(outcome.code == RESULT_SUCCESS);
            buf_free(&outcome.list);
        } else {
            CHECK(got_text(&guest->far, "{\"code\":-1001,\"msg\":\"systemId is not registered\","
                                        "\"data\":[]}"));
            CHECK(got_close(&guest->far, 1008, "unknown system"));
        }
        clear_house();
    }
    close_house();
}

/* The first frame leaves in a call of its own: some clients lose what comes with the 101. */
static void the_first_frame_does_not_come_with_the_answer(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    CHECK(far_send(&guest->far, STR(GET_SHOP)));
    session_read(&context, &guest->session);
    CHECK(got_all(guest, UPGRADED) && guest->session.conn.first);
    run();
    CHECK(got_id_frame(&guest->far, guest->id) && got_nothing(&guest->far));
    close_house();
}

/* Of subprotocols the first is accepted. */
static void a_subprotocol_is_accepted(void)
{
    static const struct {
        const char *headers, *told;
    } rows[] = {
        {"Sec-WebSocket-Protocol: chat\r\n", "Sec-WebSocket-Protocol: chat\r\n"},
        {"sec-websocket-protocol: b , a\r\n", "Sec-WebSocket-Protocol: b\r\n"},
        {"Sec-WebSocket-Protocol:\r\n", ""},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();
        const char *head = UPGRADED;

        say_to(guest,
               upgrade("?systemId=shop", say("%s%s", rows[i].headers, WEBSOCKET VERSION KEY)));
        CHECK(got_bytes(guest, say("%.*s%s\r\n", (int)strlen(head) - 2, head, rows[i].told)));
        CHECK(got_id_frame(&guest->far, guest->id) && got_nothing(&guest->far));
        clear_house();
    }
    close_house();
}

/* A browser cannot read an HTTP error: who names no system is told so over the WebSocket. */
static void unknown_systems_are_told_and_closed(void)
{
    const char *const queries[] = {
        "",
        "?",
        "?systemId",
        "?systemId=",
        "?systemId=Shop",
        "?systemId=shop%",
        "?systemId=shop%2",
        "?systemId=%zz",
        "?systemId=shop%00",
        "?systemId=shopx",
        "?systemid=shop",
        "?x=systemId=shop",
        say("?systemId=%0128d", 0),
        say("?systemId=%0129d", 0),
    };
    struct buf frame = {0};

    open_house();
    append_frame(&frame, 0x81, STR("ping"));
    for (size_t i = 0; i < 2 * COUNT(queries); i++) {
        struct guest *guest = receive_guest();
        struct far_frame got = {0};

        /* with a frame behind it, to which there is nobody to listen */
        say_to(guest, say("%s%.*s", upgrade(queries[i / 2], WEBSOCKET VERSION KEY),
                          i % 2 ? (int)frame.length : 0, frame.at));
        CHECK(got_bytes(guest, UPGRADED) && far_next(&guest->far, &got) && got.opcode == 1);
        CHECK(contains(got.payload, "{\"code\":-1001,\"msg\":\"systemId is ") &&
              contains(got.payload, "\",\"data\":[]}"));
        CHECK(got_close(&guest->far, 1008, "unknown system") && got_nothing(&guest->far));
        CHECK(guest->session.state == SESSION_CLOSING && node.hub.channels.clients.count == 0);
        send_frame(guest, 0x88, STR("\x03\xf0"));
        CHECK(ends_politely(guest));
        clear_house();
    }
    buf_free(&frame);
    close_house();
}

static void bad_upgrades_are_refused(void)
{
    static const struct {
        const char *headers, *status, *fields, *msg;
    } rows[] = {
        {"", "400 Bad Request", "", "a WebSocket upgrade is expected here"},
        {WEBSOCKET VERSION KEY "Content-Length: 1\r\n", "400 Bad Request", "",
         "an upgrade request has no body"},
        {WEBSOCKET KEY "Sec-WebSocket-Version: 8\r\n", "426 Upgrade Required",
         "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
         "Sec-WebSocket-Version must be 13"},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();
        const char *body = say("{\"code\":-1,\"msg\":\"%s\",\"data\":[]}", rows[i].msg);
        bool has_body = strstr(rows[i].headers, "Content-Length") != NULL;

        say_to(guest, say("%s%s", upgrade("?systemId=shop", rows[i].headers), has_body ? "x" : ""));
        CHECK(got_all(guest, say("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n" KEEP_ALIVE
                                 "Content-Type: application/json; charset=utf-8\r\n"
                                 "Content-Length: %zu\r\n" HTTP_UNCACHED "%s\r\n%s",
                                 rows[i].status, strlen(body), rows[i].fields, body)));
        say_to(guest, GET_NOTHING); /* the request was whole: the connection goes on */
        CHECK(got_all(guest, not_found()));
        clear_house();
    }
    close_house();
}

static void origins_may_be_restricted(void)
{
    static const struct {
        const char *allowed, *origin;
        bool good;
    } rows[] = {
        {"", "", true},
        {"", "Origin: https://evil.example\r\n", true},
        {"https://a.example", "", true},
        {"https://a.example", "Origin: https://a.example\r\n", true},
        {"https://a.example", "Origin: https://A.EXAMPLE\r\n", true},
        {"https://a.example", "Origin: http://a.example\r\n", false},
        {"https://a.example", "Origin: https://a.example:444\r\n", false},
        {"https://a.example", "Origin: https://a.example.evil\r\n", false},
        {"https://a.example", "Origin: null\r\n", false},
        {"https://a.example", "Origin:\r\n", false},
        {"https://b.example, http://c.example:8080", "Origin: http://c.example:8080\r\n", true},
        {"https://b.example, http://c.example:8080", "Origin: http://c.example\r\n", false},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_guest();

        strcpy(node.config.allowed_origins, rows[i].allowed);
        say_to(guest, upgrade("?systemId=shop", say(WEBSOCKET VERSION KEY "%s", rows[i].origin)));
        if (rows[i].good)
            CHECK(got_bytes(guest, UPGRADED) && got_id_frame(&guest->far, guest->id));
        else
            CHECK(got_all(
                guest, refusal("403 Forbidden", "", "this Origin is not among allowed_origins")));
        clear_house();
    }
    close_house();
}

/* An upgrade, frames, and the end, in one stream; how it is cut makes no difference. */
static void cut_a_websocket_stream(size_t spent)
{
    struct buf stream = {0};

    open_house();
    spent_before = spent;
    buf_append(&stream, STR(GET_NOTHING));
    buf_append(&stream, str_from(upgrade("?systemId=shop", WEBSOCKET VERSION KEY)));
    append_frame(&stream, 0x81, STR("ping"));
    append_frame(&stream, 0x89, STR("are you there"));
    append_frame(&stream, 0x01, STR("p\xc3"));
    append_frame(&stream, 0x8a, STR("unasked"));
    append_frame(&stream, 0x80, STR("\xa9"));
    append_frame(&stream, 0x01, STR("pi"));
    append_frame(&stream, 0x80, STR("ng"));
    append_frame(&stream, 0x88,
                 STR("\x0f\xa0"
                     "bye"));
    buf_append(&stream, STR("what follows is dropped"));
    for (size_t cut = 0; cut < stream.length && test_good; cut++) {
        struct guest *guest = receive_guest();

        if (cut)
            send_pieces(guest, (struct str){stream.at, cut}, 0);
        send_pieces(guest, (struct str){stream.at + cut, stream.length - cut}, cut == 0);
        CHECK(got_bytes(guest, not_found()) && got_bytes(guest, UPGRADED));
        CHECK(got_id_frame(&guest->far, guest->id) && got_text(&guest->far, "pong"));
        CHECK(got_frame(&guest->far, 10, STR("are you there")) && got_text(&guest->far, "pong"));
        CHECK(got_close(&guest->far, 4000, "") && guest->far.received.length);
        if (!CHECK(ends_politely(guest)))
            printf("  that was cut at %zu\n", cut);
        clear_house();
    }
    buf_free(&stream);
    close_house();
}

static void a_websocket_stream_may_be_cut_anywhere(void)
{
    cut_a_websocket_stream(0);
}

static void a_websocket_stream_may_take_a_turn_for_each_frame(void)
{
    cut_a_websocket_stream(CONN_BUDGET);
}

/* What one read brings of frames may be more than a turn's budget as well. */
static void frames_beyond_the_budget_take_turns(void)
{
    struct buf frames = {0};
    struct guest *guest;
    uint32_t state = 9;
    int held = 0;
    size_t count = 0;

    open_house();
    guest = receive_client();
    spent_before = CONN_BUDGET / 4 * 3; /* by others */
    for (; frames.length < CONN_SCRATCH - 100; count++)
        append_frame(&frames, 0x81, next_random(&state) % 2 ? STR("ping") : STR("id"));
    CHECK(far_send(&guest->far, str_of(&frames)));
    while (turn()) {
        CHECK(session_wants_input(&guest->session) != guest->session.over_budget);
        far_receive(&guest->far);
        held += guest->session.over_budget;
    }
    state = 9;
    for (size_t i = 0; i < count && test_good; i++) {
        char id[HUB_ID_LENGTH + 1];

        CHECK(next_random(&state) % 2 ? got_text(&guest->far, "pong")
                                      : got_id_frame(&guest->far, id) && !strcmp(id, guest->id));
    }
    CHECK(got_nothing(&guest->far) && held >= 2 && !guest->session.conn.input);
    CHECK(guest->session.state == SESSION_OPEN && !is_receiving(&guest->session));
    buf_free(&frames);
    close_house();
}

/* --- frames ---------------------------------------------------------------------------------- */

struct text_frame {
    unsigned first;
    const char *payload;
};

static void the_texts_ping_and_id_are_answered(void)
{
    static const struct {
        struct text_frame frames[7]; /* one without a payload ends them */
        const char *answers; /* t for the text pong, i for the id, c for the control frame */
    } rows[] = {
        {{{0x81, "ping"}}, "t"},
        {{{0x82, "ping"}}, ""},
        {{{0x01, "p"}, {0x80, "ing"}}, "t"},
        {{{0x01, ""}, {0x00, "pi"}, {0x00, ""}, {0x00, "ng"}, {0x80, ""}}, "t"},
        {{{0x01, "pi"}, {0x89, "x"}, {0x80, "ng"}}, "ct"},
        {{{0x02, "pi"}, {0x80, "ng"}}, ""},
        {{{0x81, "pin"}}, ""},
        {{{0x81, "pingp"}}, ""},
        {{{0x81, "pingping"}}, ""},
        {{{0x81, "Ping"}}, ""},
        {{{0x81, "xping"}}, ""},
        {{{0x81, ""}}, ""},
        {{{0x81, "pin"}, {0x81, "g"}}, ""},
        {{{0x82, "pi"}, {0x81, "ng"}}, ""},
        {{{0x81, "ping"}, {0x81, "ping"}}, "tt"},
        {{{0x81, "pinx"}, {0x82, "ping"}, {0x81, "ping"}}, "t"},
        {{{0x89, "x"}, {0x8a, "x"}, {0x81, "ping"}, {0x89, "x"}}, "ctc"},
        {{{0x81, "id"}}, "i"},
        {{{0x82, "id"}}, ""},
        {{{0x01, "i"}, {0x80, "d"}}, "i"},
        {{{0x01, ""}, {0x00, "i"}, {0x89, "x"}, {0x00, ""}, {0x00, "d"}, {0x80, ""}}, "ci"},
        {{{0x02, "i"}, {0x80, "d"}}, ""},
        {{{0x81, "i"}}, ""},
        {{{0x81, "idx"}}, ""},
        {{{0x81, "idid"}}, ""},
        {{{0x81, "iid"}}, ""},
        {{{0x81, "ID"}}, ""},
        {{{0x81, "xid"}}, ""},
        {{{0x81, "pid"}}, ""},
        {{{0x81, "ing"}}, ""},
        {{{0x81, "pingid"}}, ""},
        {{{0x81, "idping"}}, ""},
        {{{0x81, "i"}, {0x81, "d"}}, ""},
        {{{0x81, "id"}, {0x81, "ping"}, {0x81, "id"}, {0x81, "id"}}, "itii"},
    };

    open_house();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct guest *guest = receive_client();
        struct buf bytes = {0};
        const char *expected = rows[i / 2].answers;
        char id[HUB_ID_LENGTH + 1];

        for (const struct text_frame *frame = rows[i / 2].frames; frame->payload; frame++)
            append_frame(&bytes, frame->first, str_from(frame->payload));
        send_pieces(guest, str_of(&bytes), i % 2);
        for (; *expected; expected++)
            CHECK(*expected == 't'   ? got_text(&guest->far, "pong")
                  : *expected == 'c' ? got_frame(&guest->far, 10, STR("x"))
                                     : got_id_frame(&guest->far, id) && !strcmp(id, guest->id));
        if (!CHECK(got_nothing(&guest->far) && !guest->session.conn.input))
            printf("  that was row %zu\n", i / 2);
        buf_free(&bytes);
        clear_house();
    }
    close_house();
}

/* The end of a text is that of its message, not a byte in it. */
static void a_nul_ends_no_text(void)
{
    static const struct str texts[] = {STR_INIT("ping\0"), STR_INIT("ping\0id"),
                                       STR_INIT("\0"),     STR_INIT("id\0"),
                                       STR_INIT("\0id"),   STR_INIT("p\0ing")};
    struct guest *guest;

    open_house();
    guest = receive_client();
    for (size_t i = 0; i < COUNT(texts); i++)
        send_frame(guest, 0x81, texts[i]);
    CHECK(got_nothing(&guest->far));
    send_frame(guest, 0x81, STR("ping"));
    CHECK(got_text(&guest->far, "pong"));
    close_house();
}

static void messages_are_taken_up_to_the_limit(void)
{
    static const struct {
        size_t lengths[3]; /* of its frames; 0 ends them */
        bool good;
    } rows[] = {
        {{8192}, true},
        {{8193}, false},
        {{1, 1, 8190}, true},
        {{1, 1, 8191}, false},
    };
    static char text[65536];

    open_house();
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < 4 * COUNT(rows); i++) {
        struct guest *guest = receive_client();
        const size_t *lengths = rows[i / 4].lengths;
        struct buf bytes = {0};

        for (size_t frame = 0; frame < 3 && lengths[frame]; frame++) {
            bool last = frame == 2 || !lengths[frame + 1];

            append_frame(&bytes,
                         (last ? 0x80u : 0) | (frame       ? 0
                                               : i % 4 < 2 ? 1u
                                                           : 2u),
                         (struct str){text, lengths[frame]});
        }
        append_frame(&bytes, 0x81, STR("ping"));
        send_pieces(guest, str_of(&bytes), i % 2 ? 1000 : 0);
        if (rows[i / 4].good)
            CHECK(got_text(&guest->far, "pong") && got_nothing(&guest->far));
        else
            CHECK(got_close(&guest->far, 1009, "message too long") && ends_politely(guest));
        buf_free(&bytes);
        clear_house();
    }
    close_house();
}

/* A breach ends the client at once: a close frame with the code, and nothing is read any more. */
static void breaches_of_the_protocol_are_closed(void)
{
    static const struct {
        struct str bytes;
        unsigned code;
        const char *reason;
    } rows[] = {
        {STR_INIT("\x81\x04ping"), 1002, "a client's frames must be masked"},
        {STR_INIT("\x01\x80\0\0\0\0\x81\x80"), 1002, "a new message before the last one's end"},
        {STR_INIT("\x88\x82\0\0\0\0\x03\xed"), 1002, "a close code that may not be sent"},
        {STR_INIT("\x81\x81\0\0\0\0\xc3"), 1007, "a text message that is not UTF-8"},
    };
    struct guest *guest, *witness;

    open_house();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        witness = receive_client();
        guest = receive_client();
        befriend(guest, witness);
        send_pieces(guest, rows[i / 2].bytes, i % 2);
        CHECK(!guest->session.conn.client && saw_leave(witness, guest));
        send_frame(guest, 0x81, STR("ping"));
        CHECK(got_close(&guest->far, rows[i / 2].code, rows[i / 2].reason));
        CHECK(deadline_of(guest) == 5000 && ends_politely(guest));
        clear_house();
    }
    CHECK(node_logged("code=1007 reason=\"a text message that is not UTF-8\""));
    close_house();
}

/* --- the end of a client --------------------------------------------------------------------- */

static void the_client_may_close(void)
{
    static const struct {
        struct str sent, answered;
    } rows[] = {
        {STR_INIT(""), STR_INIT("")},
        {STR_INIT("\x03\xe8"), STR_INIT("\x03\xe8")},
        {STR_INIT("\x03\xe9going"), STR_INIT("\x03\xe9")},
        {STR_INIT("\x0b\xb8"), STR_INIT("\x0b\xb8")},
        {STR_INIT("\x13\x87\xc3\xa9"), STR_INIT("\x13\x87")},
    };
    struct guest *guest, *witness;

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        witness = receive_client();
        guest = receive_client();
        befriend(guest, witness);
        send_frame(guest, 0x88, rows[i].sent);
        CHECK(saw_leave(witness, guest) && node.hub.channels.clients.count == 1);
        CHECK(got_frame(&guest->far, 8, rows[i].answered) && ends_politely(guest));
        clear_house();
    }
    close_house();
}

static void close_by_command(const struct guest *guest)
{
    struct command command = {.kind = COMMAND_CLOSE_CLIENT,
                              .system = STR("shop"),
                              .client = quoted(str_from(guest->id)),
                              .close_code = 4000,
                              .reason = STR("enough")};
    struct result outcome = {0};

    hub_apply(&node.hub, &command, &outcome);
    CHECK(outcome.code == RESULT_SUCCESS);
    run();
}

/* The server closes: what the client still sends is not acted on; its close frame ends it. */
static void the_server_may_close(void)
{
    struct guest *guest, *witness;

    open_house();
    witness = receive_client();
    guest = receive_client();
    befriend(guest, witness);
    close_by_command(guest);
    CHECK(got_close(&guest->far, 4000, "enough") && got_nothing(&guest->far));
    CHECK(saw_leave(witness, guest) && guest->session.state == SESSION_CLOSING);
    send_frame(guest, 0x81, STR("ping"));
    send_frame(guest, 0x89, STR("x"));
    CHECK(got_nothing(&guest->far) && !guest->far.ended);
    CHECK(guest->session.state == SESSION_CLOSING && deadline_of(guest) == 5000);
    send_frame(guest, 0x88, STR("\x0f\xa0"));
    CHECK(ends_politely(guest));
    close_house();
}

static void a_client_that_never_closes_is_ended(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    close_by_command(guest);
    CHECK(got_close(&guest->far, 4000, "enough"));
    pass(4999);
    CHECK(guest->session.state == SESSION_CLOSING && !guest->far.ended);
    pass(1);
    CHECK(guest->session.state == SESSION_DEAD && sees_end(guest));
    close_house();
}

/* A breach while our close frame is on its way ends the wait for theirs. */
static void a_breach_while_closing_ends_it(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    close_by_command(guest);
    CHECK(got_close(&guest->far, 4000, "enough"));
    say_to(guest, "\x81\x01x");
    CHECK(ends_politely(guest));
    close_house();
}

static void a_connection_that_ends_is_told_at_once(void)
{
    struct guest *guest, *witness;

    open_house();
    witness = receive_client();
    for (int half = 0; half < 2; half++) {
        guest_count = 1;
        guest = receive_client();
        befriend(guest, witness);
        send_pieces(guest, STR("\x81\xfe"), 0); /* in the middle of a frame */
        shutdown(guest->far.fd, half ? SHUT_WR : SHUT_RDWR);
        run();
        CHECK(guest->session.state == SESSION_DEAD && !guest->session.conn.client);
        CHECK(saw_leave(witness, guest));
        conn_close(&guest->session.conn);
        far_close(&guest->far);
    }
    guest_count = 1;
    close_house();
}

static void have_little_room(struct guest *guest)
{
    int little = 4096;

    CHECK(setsockopt(guest->session.conn.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little) == 0);
}

/* Who asks for more answers than it reads is slow. */
static void a_client_that_does_not_read_its_answers_is_slow(void)
{
    static const char *const texts[] = {"ping", "id"};

    open_house();
    node.config.send_queue = 1000;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct guest *guest = receive_client();
        struct far_frame frame = {0};
        int sent = 0, answers = 0;

        have_little_room(guest);
        for (; sent < 20000 && guest->session.state == SESSION_OPEN; sent++)
            send_frame(guest, 0x81, str_from(texts[i]));
        CHECK(sent < 20000 && !guest->session.conn.client && node.hub.channels.clients.count == 0);
        do
            run();
        while (far_next(&guest->far, &frame) && frame.opcode != 8 && ++answers);
        CHECK(answers > 0 && answers < sent && same(frame.payload, STR("\x03\xf5slow")));
        CHECK(guest->session.state == SESSION_CLOSING && node_logged("reads slower"));
        clear_house();
    }
    close_house();
}

/* Of pings whose pongs wait only the newest is answered: they never make a client slow. */
static void pongs_do_not_pile_up(void)
{
    struct far_frame frame = {0};
    struct guest *guest;
    int sent = 0, last = -1, pongs = 0;

    open_house();
    node.config.send_queue = 1000;
    guest = receive_client();
    have_little_room(guest);
    for (; sent < 5000; sent++) {
        send_frame(guest, 0x89, str_from(say("%d", sent)));
        CHECK(guest->session.conn.queued <= 2 * (2 + 4));
    }
    CHECK(guest->session.conn.want_write && guest->session.state == SESSION_OPEN);
    do {
        run();
        while (far_next(&guest->far, &frame)) {
            uint64_t number = 0;

            CHECK(frame.opcode == 10 && str_number(frame.payload, 5000, &number));
            CHECK((int)number > last);
            last = (int)number;
            pongs++;
        }
    } while (guest->session.conn.first);
    CHECK(last == sent - 1 && pongs < sent);
    close_house();
}

/* --- deadlines ------------------------------------------------------------------------------- */

/* Who does not ask, is closed; who does not finish asking, is told. */
static void requests_have_deadlines(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    CHECK(deadline_of(guest) == 10000);
    pass(9999);
    CHECK(guest->session.state == SESSION_HTTP_NEW);
    pass(1);
    CHECK(guest->session.state == SESSION_DEAD && sees_end(guest));
    clear_house();

    context.now = START;
    guest = receive_guest();
    pass(3000);
    say_to(guest, "GET /");
    for (int i = 0; i < 6; i++) { /* a byte now and then wins no time */
        pass(1000);
        say_to(guest, "x");
    }
    CHECK(deadline_of(guest) == 10000);
    pass(999);
    CHECK(got_nothing(&guest->far) && !guest->far.ended);
    pass(1);
    CHECK(got_bytes(guest, refusal("408 Request Timeout", "Connection: close\r\n",
                                   "the request's head did not come within head_timeout")));
    CHECK(deadline_of(guest) == 15000);
    say_to(guest, "dropped");
    CHECK(sees_end(guest));
    pass(5000);
    CHECK(guest->session.state == SESSION_DEAD && guest->session.conn.broken);
    close_house();
}

static void bodies_have_a_deadline_of_their_own(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    pass(4000);
    say_to(guest, "POST /api/login HTTP/1.1\r\n");
    CHECK(deadline_of(guest) == 10000);
    pass(5000);
    say_to(guest, "Host: h\r\nContent-Length: 100\r\n\r\n{");
    CHECK(deadline_of(guest) == 9000 + 75000);
    pass(60000);
    say_to(guest, "x");
    CHECK(deadline_of(guest) == 9000 + 75000);
    pass(14999);
    CHECK(got_nothing(&guest->far));
    pass(1);
    CHECK(got_bytes(guest, refusal("408 Request Timeout", "Connection: close\r\n",
                                   "the body did not come within idle_timeout")));
    CHECK(ends_politely(guest));
    close_house();
}

static void an_idle_connection_is_closed(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    for (int i = 1; i <= 3; i++) {
        pass(5000);
        say_to(guest, GET_NOTHING);
        CHECK(got_all(guest, not_found()));
        CHECK(deadline_of(guest) == i * 5000 + 75000);
    }
    pass(70000);
    say_to(guest, "G"); /* the next request has its own time */
    CHECK(deadline_of(guest) == 85000 + 10000);
    say_to(guest, &GET_NOTHING[1]);
    CHECK(got_all(guest, not_found()));
    pass(74999);
    CHECK(guest->session.state == SESSION_HTTP_IDLE);
    pass(1);
    CHECK(guest->session.state == SESSION_DEAD && sees_end(guest));
    close_house();
}

/* Pinged after 25 s; without a sign of life ended after 35, and the others are told at once. */
static void silent_clients_are_pinged_and_ended(void)
{
    struct guest *guest, *witness;

    open_house();
    witness = receive_client();
    guest = receive_client();
    befriend(guest, witness);
    CHECK(deadline_of(guest) == 25000);
    pass(24999);
    CHECK(got_nothing(&guest->far) && got_nothing(&witness->far));
    pass(1);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
    CHECK(got_frame(&witness->far, 9, STR("wspush")));
    CHECK(deadline_of(guest) == 35000);
    send_frame(witness, 0x8a, STR(""));
    pass(9999);
    CHECK(guest->session.state == SESSION_OPEN);
    pass(1);
    CHECK(was_ended(guest, 1001, "no pong") && deadline_of(guest) == 40000);
    CHECK(saw_leave(witness, guest) && witness->session.state == SESSION_OPEN);
    CHECK(deadline_of(witness) == 50000);
    pass(5000); /* no close frame comes from it, either */
    CHECK(guest->session.state == SESSION_DEAD && sees_end(guest));
    close_house();
}

/* Any byte is a sign of life; one that begins a frame also begins the wait for its end. */
static void any_byte_is_a_sign_of_life(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    for (int i = 1; i <= 4; i++) {
        pass(25000);
        CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
        pass(0); /* it is pinged once */
        CHECK(got_nothing(&guest->far) && deadline_of(guest) == i * 25000 + 10000);
        if (i == 1)
            send_frame(guest, 0x82, STR(""));
        else /* the header of a frame of four bytes, byte by byte */
            send_pieces(guest, (struct str){&"\x82\x84\0"[i - 2], 1}, 0);
        CHECK(deadline_of(guest) == (i + 1) * 25000);
    }
    CHECK(guest->session.conn.input->length == 3);
    pass(24999);
    CHECK(deadline_of(guest) == 50000 + 75000 && guest->session.state == SESSION_OPEN);
    send_pieces(guest, STR("\0"), 0);
    pass(1); /* 75 seconds for one frame are enough */
    CHECK(was_ended(guest, 1008, "the message did not come in time"));
    close_house();
}

static void unfinished_messages_have_a_deadline(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    pass(10000);
    send_frame(guest, 0x01, STR("begun"));
    CHECK(!guest->session.conn.input);
    for (int i = 0; i < 8; i++) {
        pass(9000);
        send_frame(guest, 0x8a, STR(""));
    }
    CHECK(guest->session.state == SESSION_OPEN && deadline_of(guest) == 85000);
    send_frame(guest, 0x80, STR("ended"));
    CHECK(deadline_of(guest) == 82000 + 25000);
    send_frame(guest, 0x01, STR("begun"));
    pass(30000);
    send_frame(guest, 0x8a, STR(""));
    pass(30000);
    send_frame(guest, 0x8a, STR(""));
    pass(14999);
    CHECK(guest->session.state == SESSION_OPEN);
    far_forget(&guest->far);
    pass(1);
    CHECK(was_ended(guest, 1008, "the message did not come in time"));
    close_house();
}

/* Each piece ends one message and begins another: that is no unfinished message. */
static void messages_cut_anywhere_are_in_time(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    send_pieces(guest, STR("\x81\x82\0\0\0\0h"), 0);
    for (int i = 0; i < 12; i++) {
        pass(9000);
        send_pieces(guest, STR("i\x81\x82\0\0\0\0h"), 0);
    }
    CHECK(guest->session.state == SESSION_OPEN);
    close_house();
}

/* Answers that fill the socket's buffer: so many requests in one write. */
#define MANY_REQUESTS 2000

static void ask_for_much(struct guest *guest)
{
    struct buf requests = {0};
    int small = 4096;

    setsockopt(guest->session.conn.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    for (int i = 0; i < MANY_REQUESTS; i++)
        buf_append(&requests, STR(GET_NOTHING));
    send_pieces(guest, str_of(&requests), 0);
    buf_free(&requests);
    CHECK(guest->session.conn.queued > 0);
}

/* Reads on until the end, so many milliseconds after each piece; returns how much has come. */
static size_t read_slowly(struct guest *guest, int64_t milliseconds)
{
    size_t all = 0, length = 1;

    while (length > 0) {
        length = far_receive(&guest->far).length;
        guest->far.taken = length;
        all += length;
        pass(milliseconds);
    }
    return all;
}

static void answers_are_written_to_who_reads_slowly(void)
{
    const char *one = answer("404 Not Found", "", NOT_FOUND);
    size_t length = strlen(one);
    struct guest *guest;

    open_house();
    guest = receive_guest();
    ask_for_much(guest);
    CHECK(read_slowly(guest, 60000) == MANY_REQUESTS * length);
    clear_house();

    context.now = START;
    guest = receive_guest();
    ask_for_much(guest);
    shutdown(guest->far.fd, SHUT_WR);
    run();
    CHECK(read_slowly(guest, 4000) == MANY_REQUESTS * length);
    CHECK(guest->far.ended && guest->session.state == SESSION_DEAD);
    close_house();
}

static void stopping_takes_no_new_client(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    context.stopping = true;
    say_to(guest, upgrade("?systemId=shop", WEBSOCKET VERSION KEY));
    CHECK(got_bytes(guest, "HTTP/1.1 503 Service Unavailable\r\n"));
    CHECK(guest->session.state == SESSION_LINGER);
    close_house();
}

static void pings_may_come_early(void)
{
    struct guest *guest, *visitor;

    open_house();
    guest = receive_client();
    visitor = receive_guest();
    context.now += 6249;
    session_ping_early(&context, &guest->session);
    run();
    CHECK(got_nothing(&guest->far));
    context.now += 1;
    session_ping_early(&context, &guest->session);
    session_ping_early(&context, &guest->session);
    session_ping_early(&context, &visitor->session);
    run();
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
    CHECK(got_nothing(&visitor->far) && deadline_of(guest) == 6250 + 25000);
    close_house();
}

static void expiring_says_whether_it_pinged(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    CHECK(!session_expire(&context, &guest->session));
    context.now += 25000;
    CHECK(session_expire(&context, &guest->session));
    CHECK(!session_expire(&context, &guest->session));
    context.now += 10000;
    CHECK(!session_expire(&context, &guest->session) && !guest->session.conn.client);
    settle(guest);
    run();
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && was_ended(guest, 1001, "no pong"));
    CHECK(!session_expire(&context, &guest->session));
    context.now += 5000;
    CHECK(!session_expire(&context, &guest->session));
    CHECK(guest->session.state == SESSION_DEAD);
    CHECK(session_timer(&context, &guest->session) == INT64_MAX);
    CHECK(!session_expire(&context, &guest->session));
    close_house();
}

/* --- max_buffered ---------------------------------------------------------------------------- */

static void shed(struct guest *guest)
{
    session_shed(&context, &guest->session);
    settle(guest);
    run();
}

/* Who keeps most is told why it is ended, as far as it can be. */
static void who_keeps_most_is_ended(void)
{
    static const char *const parts[] = {"POST /api/login HTTP/1.1\r\nHost: h\r\nX: ",
                                        "POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: "
                                        "100\r\n\r\n{"};
    struct guest *guest, *witness;

    open_house();
    for (size_t i = 0; i < COUNT(parts); i++) {
        guest = receive_guest();
        say_to(guest, parts[i]);
        CHECK(guest->session.conn.input);
        session_shed(&context, &guest->session);
        CHECK(!guest->session.conn.input); /* at once: who looks for the next to end counts it */
        settle(guest);
        run();
        CHECK(got_bytes(guest,
                        answer("503 Service Unavailable", "Retry-After: 5\r\nConnection: close\r\n",
                               "{\"code\":-1007,\"msg\":\"all connections together keep more "
                               "than max_buffered\",\"data\":[]}")));
        CHECK(!guest->session.conn.input && node.shared.buffered == 0 && ends_politely(guest));
        clear_house();
    }
    guest = receive_guest(); /* between two requests there is nothing to tell */
    shed(guest);
    CHECK(sees_end(guest) && guest->session.state == SESSION_DEAD);
    clear_house();
    guest = receive_guest(); /* nor is there where answers wait: they would have to go first */
    have_little_room(guest);
    for (int i = 0; i < 100; i++)
        say_to(guest, GET_NOTHING);
    say_to(guest, "GET /");
    CHECK(is_receiving(&guest->session) && guest->session.conn.queued && node.shared.buffered > 0);
    shed(guest);
    CHECK(guest->session.state == SESSION_DEAD);
    clear_house();
    witness = receive_client();
    guest = receive_client();
    befriend(guest, witness);
    send_pieces(guest, STR("\x81\xfe\xff"), 0);
    CHECK(guest->session.conn.input);
    shed(guest);
    CHECK(was_ended(guest, 1013, "slow") && saw_leave(witness, guest));
    close_house();
    CHECK(node.shared.buffered == 0);
}

/* --- stopping -------------------------------------------------------------------------------- */

static void stop(struct guest *guest)
{
    context.stopping = true;
    session_stop(&context, &guest->session);
    settle(guest);
    run();
}

static void stopping_ends_a_client(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    stop(guest);
    CHECK(got_close(&guest->far, 1001, "going away") && got_nothing(&guest->far));
    CHECK(guest->session.state == SESSION_CLOSING && node.hub.channels.clients.count == 0);
    stop(guest); /* once is enough */
    CHECK(got_nothing(&guest->far));
    send_frame(guest, 0x88, STR("\x03\xe9"));
    CHECK(ends_politely(guest));
    close_house();
}

static void stopping_closes_what_is_idle(void)
{
    struct guest *guest;

    open_house();
    for (int asked = 0; asked < 2; asked++) {
        context.stopping = false;
        guest = receive_guest();
        if (asked)
            say_to(guest, GET_NOTHING);
        far_forget(&guest->far);
        stop(guest);
        CHECK(ends_politely(guest));
        clear_house();
    }
    close_house();
}

/* A request that has begun is answered, and its answer is the last. */
static void stopping_waits_for_answers(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    say_to(guest, "GET /nothing HTTP/1.1\r\n");
    stop(guest);
    CHECK(guest->session.state == SESSION_HTTP_HEAD && !guest->far.ended);
    say_to(guest, "Host: h\r\n\r\n" GET_NOTHING);
    CHECK(got_all(guest, answer("404 Not Found", "Connection: close\r\n", NOT_FOUND)));
    CHECK(ends_politely(guest));
    clear_house();

    context.stopping = false;
    guest = receive_guest();
    worker_is_slow = true;
    say_to(guest, post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"));
    stop(guest);
    CHECK(guest->session.state == SESSION_WAIT && !guest->far.ended);
    worker_is_slow = false;
    run();
    CHECK(got_all(guest,
                  answer("200 OK", "Connection: close\r\n",
                         "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}")));
    CHECK(ends_politely(guest));
    close_house();
}

/* --- between connections --------------------------------------------------------------------- */

/* What is posted over one connection arrives at another. */
static void a_post_is_pushed(void)
{
    struct guest *guest, *client;

    open_house();
    client = receive_client();
    guest = receive_guest();
    say_to(guest, post("/api/bind_to_group", "",
                       say("{\"clientId\":\"%s\",\"groupName\":\"g\"}", client->id)));
    CHECK(got_all(guest, answer("200 OK", "", SUCCESS)));
    far_forget(&client->far);
    say_to(guest, post("/api/send_to_group", "",
                       "{\"groupName\":\"g\",\"code\":1,\"msg\":\"m\",\"data\": 1e400 }"));
    CHECK(got_all(guest, answer("200 OK", "", SUCCESS)));
    CHECK(got_text(&client->far, "{\"code\":1,\"msg\":\"m\",\"data\":1e400}"));
    say_to(guest, post("/api/close_client", "", say("{\"clientId\":\"%s\"}", client->id)));
    CHECK(got_all(guest, answer("200 OK", "", SUCCESS)));
    CHECK(got_close(&client->far, 1000, "") && client->session.state == SESSION_CLOSING);
    close_house();
}

static void tickets_name_slot_and_generation(void)
{
    struct session session = {.index = 5, .generation = 0xfedcba98};

    CHECK(session_request_id(&session) == 0xfedcba9800000005);
}

/* --- pings and silence ----------------------------------------------------------------------- */

/* When the whole process has stood still, a client that had no chance to answer is asked first. */
static void after_a_standstill_the_ping_goes_first(void)
{
    static const int64_t heard[] = {0, 1000, 20000, 24999};

    open_house();
    for (size_t i = 0; i < COUNT(heard); i++) {
        for (int answers = 0; answers < 2; answers++) {
            struct guest *guest;

            context.now = START;
            guest = receive_client();
            pass(heard[i]);
            if (heard[i])
                send_frame(guest, 0x8a, STR(""));
            context.now = START + 80000;
            CHECK(session_expire(&context, &guest->session));
            settle(guest);
            run();
            CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
            CHECK(guest->session.state == SESSION_OPEN && deadline_of(guest) == 90000);
            pass(9999);
            CHECK(guest->session.state == SESSION_OPEN && got_nothing(&guest->far));
            if (answers) {
                send_frame(guest, 0x8a, STR(""));
                CHECK(deadline_of(guest) == 105000);
            }
            pass(1);
            CHECK(answers ? guest->session.state == SESSION_OPEN
                          : was_ended(guest, 1001, "no pong"));
            clear_house();
        }
    }
    close_house();
}

/* So it is when earlier pings have been answered. */
static void an_answered_ping_does_not_count_after_a_standstill(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    pass(25000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")));
    send_frame(guest, 0x8a, STR(""));
    pass(60000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
    CHECK(guest->session.state == SESSION_OPEN && deadline_of(guest) == 95000);
    pass(10000);
    CHECK(was_ended(guest, 1001, "no pong"));
    close_house();
}

/* A ping that is unanswered when the process stands still was asking enough. */
static void an_unanswered_ping_is_not_repeated_after_a_standstill(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    pass(25000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 35000);
    pass(100000);
    CHECK(was_ended(guest, 1001, "no pong"));
    close_house();
}

/* Further pings do not put off the end, neither when they are due before it nor early ones. */
static void pings_do_not_put_off_the_end(void)
{
    struct guest *guest;
    int pings = 0;

    open_house();
    node.config.ping = 5000;
    guest = receive_client();
    for (int second = 1; second <= 14; second++) {
        pass(1000);
        CHECK(guest->session.state == SESSION_OPEN);
        while (far_receive(&guest->far).length) {
            CHECK(got_frame(&guest->far, 9, STR("wspush")));
            pings++;
        }
    }
    CHECK(pings == 2 && deadline_of(guest) == 15000);
    pass(1000);
    CHECK(was_ended(guest, 1001, "no pong"));
    clear_house();

    config_defaults(&node.config);
    context.now = START;
    guest = receive_client();
    pass(25000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 35000);
    context.now += 7000;
    session_ping_early(&context, &guest->session);
    run();
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 35000);
    pass(2999);
    CHECK(guest->session.state == SESSION_OPEN);
    pass(1);
    CHECK(was_ended(guest, 1001, "no pong"));
    close_house();
}

/* Who is pinged early has no less time: silence is counted from when it was heard last. */
static void an_early_ping_takes_no_time_away(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    context.now += 7000;
    session_ping_early(&context, &guest->session);
    run();
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 7000 + 25000);
    pass(25000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 35000);
    pass(3000);
    CHECK(was_ended(guest, 1001, "no pong"));
    clear_house();
    /* nor after a standstill */
    context.now = START;
    guest = receive_client();
    context.now += 60000;
    session_ping_early(&context, &guest->session);
    run();
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && deadline_of(guest) == 70000);
    pass(9999);
    CHECK(guest->session.state == SESSION_OPEN);
    pass(1);
    CHECK(was_ended(guest, 1001, "no pong"));
    close_house();
}

/* An unfinished message has its own deadline, which no ping is to delay. */
static void a_standstill_does_not_prolong_a_message(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    send_frame(guest, 0x01, STR("begun"));
    pass(75000);
    CHECK(was_ended(guest, 1008, "the message did not come in time"));
    close_house();
}

/* What ends it is said, also when a ping is unanswered by then. */
static void a_late_message_is_no_missing_pong(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    pass(25000);
    send_frame(guest, 0x01, STR("begun"));
    for (int i = 0; i < 2; i++) {
        pass(25000);
        send_frame(guest, 0x8a, STR("wspush"));
    }
    context.now += 20000;
    session_ping_early(&context, &guest->session);
    run();
    for (int i = 0; i < 4; i++)
        CHECK(got_frame(&guest->far, 9, STR("wspush")));
    CHECK(deadline_of(guest) == 100000);
    pass(5000);
    CHECK(was_ended(guest, 1008, "the message did not come in time"));
    close_house();
}

#define NO_OBJECT "the body is not valid JSON: a JSON object is expected, at byte 1"

/* What the kernel has of a client or of a request counts, however late this process looks. */
static void what_has_come_by_then_is_in_time(void)
{
    static char body[150000];
    struct guest *guest;
    struct buf bytes = {0};

    open_house();
    guest = receive_client(); /* a pong */
    pass(25000);
    CHECK(got_frame(&guest->far, 9, STR("wspush")));
    append_frame(&bytes, 0x8a, STR("wspush"));
    CHECK(far_send(&guest->far, str_of(&bytes)));
    pass(1000000);
    CHECK(guest->session.state == SESSION_OPEN && guest->session.conn.client);
    CHECK(got_frame(&guest->far, 9, STR("wspush")) && got_nothing(&guest->far));
    CHECK(deadline_of(guest) == 1025000 + 25000);
    clear_house();
    buf_free(&bytes);

    guest = receive_client(); /* the end of a message */
    send_frame(guest, 0x01, STR("pi"));
    append_frame(&bytes, 0x80, STR("ng"));
    CHECK(far_send(&guest->far, str_of(&bytes)));
    pass(80000);
    CHECK(got_text(&guest->far, "pong") && got_frame(&guest->far, 9, STR("wspush")));
    CHECK(got_nothing(&guest->far) && guest->session.conn.client);
    clear_house();
    buf_free(&bytes);

    for (int whole = 0; whole < 2; whole++) { /* the rest of a body, which takes several reads */
        memset(body, 'x', sizeof body);
        guest = receive_guest();
        say_to(guest, say("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\nx",
                          sizeof body + 1));
        CHECK(guest->session.state == SESSION_HTTP_BODY);
        CHECK(far_send(&guest->far, (struct str){body, sizeof body - !whole}));
        pass(80000);
        CHECK(got_all(guest, whole ? refusal("400 Bad Request", "", NO_OBJECT)
                                   : refusal("408 Request Timeout", "Connection: close\r\n",
                                             "the body did not come within idle_timeout")));
        CHECK(whole ? guest->session.state == SESSION_HTTP_IDLE : ends_politely(guest));
        clear_house();
    }
    guest = receive_guest(); /* the first request of a connection */
    CHECK(far_send(&guest->far, STR(GET_NOTHING)));
    pass(80000);
    CHECK(got_all(guest, not_found()) && guest->session.state == SESSION_HTTP_IDLE);
    close_house();
}

/* --- admission ------------------------------------------------------------------------------- */

static const enum cluster_admission admissions[] = {CLUSTER_ADMITTED, CLUSTER_UNKNOWN,
                                                    CLUSTER_UNREACHABLE, CLUSTER_ASKED};

/* A session that has been upgraded, and whose client has not been let in: on a node that is alone
 * nobody waits for that, so the client is taken out again. */
static struct guest *receive_waiting(void)
{
    struct guest *guest = receive_client();

    hub_end_client(&node.hub, guest->session.conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("test"));
    run();
    CHECK(guest->session.state == SESSION_OPEN && !guest->session.conn.client);
    CHECK(!guest->session.conn.close_queued && got_nothing(&guest->far) &&
          !node.hub.channels.clients.count);
    return guest;
}

static void admit(struct guest *guest, enum cluster_admission admission, const char *system)
{
    session_admit(&context, &guest->session, admission, str_from(system), "Redis said so");
    settle(guest);
    run();
}

static void who_is_admitted_is_a_client(void)
{
    struct guest *guest, *other;

    open_house();
    guest = receive_waiting();
    /* what it says meanwhile is nothing to anybody, but a sign of life */
    send_frame(guest, 0x81, STR("ping"));
    send_frame(guest, 0x89, STR("are you there"));
    send_frame(guest, 0x01, STR("pi"));
    CHECK(got_nothing(&guest->far) && guest->session.state == SESSION_OPEN);
    admit(guest, CLUSTER_ADMITTED, "shop");
    CHECK(got_id_frame(&guest->far, guest->id) && got_nothing(&guest->far));
    CHECK(guest->session.state == SESSION_OPEN && guest->session.conn.client);
    CHECK(hub_is_online(&node.hub, STR("shop"), quoted(str_from(guest->id))));
    send_frame(guest, 0x80, STR("")); /* the end of the message that it had begun */
    send_frame(guest, 0x81, STR("ping"));
    send_frame(guest, 0x89, STR("x"));
    CHECK(got_text(&guest->far, "pong") && got_frame(&guest->far, 10, STR("x")));
    CHECK(got_nothing(&guest->far));
    other = receive_client();
    befriend(guest, other);
    send_frame(guest, 0x88, STR("\x03\xe8"));
    CHECK(saw_leave(other, guest) && got_close(&guest->far, 1000, ""));
    close_house();
}

static void who_is_not_admitted_is_told_and_closed(void)
{
    static const struct {
        enum cluster_admission admission;
        const char *system, *text;
        unsigned code;
        const char *reason;
    } rows[] = {
        {CLUSTER_UNKNOWN, "nobody",
         "{\"code\":-1001,\"msg\":\"systemId is not registered\",\"data\":[]}", 1008,
         "unknown system"},
        {CLUSTER_UNKNOWN, "",
         "{\"code\":-1001,\"msg\":\"systemId is missing or malformed\",\"data\":[]}", 1008,
         "unknown system"},
        {CLUSTER_UNREACHABLE, "shop", NULL, 1013, "try again later"},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_waiting();
        struct far_frame frame = {0};

        admit(guest, rows[i].admission, rows[i].system);
        if (rows[i].text)
            CHECK(got_text(&guest->far, rows[i].text));
        else
            CHECK(far_next(&guest->far, &frame) && frame.opcode == 1 &&
                  contains(frame.payload, "{\"code\":-1007,\"msg\":\"") &&
                  contains(frame.payload, "\",\"data\":[]}"));
        CHECK(got_close(&guest->far, rows[i].code, rows[i].reason) && got_nothing(&guest->far));
        CHECK(guest->session.state == SESSION_CLOSING && !guest->session.conn.client);
        CHECK(node.hub.channels.clients.count == 0 && deadline_of(guest) == 5000);
        for (size_t k = 0; k < COUNT(admissions); k++)
            admit(guest, admissions[k], "shop"); /* it has been told */
        CHECK(got_nothing(&guest->far) && node.hub.channels.clients.count == 0);
        send_frame(guest, 0x88, STR("\x03\xf0"));
        if (!CHECK(ends_politely(guest)))
            printf("  that was row %zu\n", i);
        clear_house();
    }
    close_house();
}

static void who_is_asked_about_goes_on_waiting(void)
{
    struct guest *guest;

    open_house();
    guest = receive_waiting();
    admit(guest, CLUSTER_ASKED, "shop");
    CHECK(got_nothing(&guest->far) && guest->session.state == SESSION_OPEN);
    CHECK(!guest->session.conn.client && !guest->session.conn.close_queued && !guest->far.ended);
    admit(guest, CLUSTER_ADMITTED, "shop");
    CHECK(got_id_frame(&guest->far, guest->id) && guest->session.conn.client);
    close_house();
}

enum place {
    AT_HTTP,
    AT_PART_OF_HTTP,
    AT_WAIT,
    AT_OPEN,
    AT_ENDING,
    AT_CLOSING,
    AT_DRAIN,
    AT_DEAD,
    PLACES
};

/* A session that waits for no admission, in one of the states there are. */
static struct guest *receive_at(enum place place)
{
    struct guest *guest = place == AT_OPEN || place == AT_ENDING || place == AT_CLOSING
                              ? receive_client()
                              : receive_guest();

    if (place == AT_PART_OF_HTTP)
        say_to(guest, "GET /noth");
    if (place == AT_WAIT) {
        worker_is_slow = true;
        say_to(guest, post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"));
        CHECK(guest->session.state == SESSION_WAIT);
    }
    if (place == AT_ENDING) {
        hub_end_client(&node.hub, guest->session.conn.client, HUB_END_CLOSED, 1000, STR("end"));
        CHECK(guest->session.state == SESSION_OPEN && guest->session.conn.close_queued);
    }
    if (place == AT_CLOSING) {
        hub_end_client(&node.hub, guest->session.conn.client, HUB_END_CLOSED, 1000, STR("end"));
        run();
        CHECK(got_close(&guest->far, 1000, "end") && guest->session.state == SESSION_CLOSING);
    }
    if (place == AT_DRAIN) {
        say_to(guest, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        CHECK(guest->session.state == SESSION_LINGER);
        far_forget(&guest->far);
    }
    if (place == AT_DEAD) {
        shutdown(guest->far.fd, SHUT_WR);
        run();
        CHECK(guest->session.state == SESSION_DEAD);
    }
    return guest;
}

/* The answer to what a session has asked may come when it asks no more: nothing is said. */
static void an_admission_that_comes_too_late_is_nothing(void)
{
    open_house();
    for (int place = AT_HTTP; place < PLACES; place++)
        for (size_t i = 0; i < COUNT(admissions); i++) {
            struct guest *guest = receive_at((enum place)place);
            struct session before = guest->session;
            size_t clients = node.hub.channels.clients.count;

            session_admit(&context, &guest->session, admissions[i], STR("shop"), "");
            CHECK(guest->session.state == before.state &&
                  node.hub.channels.clients.count == clients);
            CHECK(guest->session.conn.client == before.conn.client);
            CHECK(guest->session.conn.queued == before.conn.queued);
            CHECK(guest->session.conn.close_queued == before.conn.close_queued);
            CHECK(guest->session.conn.broken == before.conn.broken);
            run();
            if (place == AT_ENDING)
                CHECK(got_close(&guest->far, 1000, "end"));
            if (!CHECK(got_nothing(&guest->far)))
                printf("  that was place %d, admission %zu\n", place, i);
            clear_house();
        }
    close_house();
}

/* Who waits may close, break the protocol or vanish like anybody else. */
static void who_waits_may_go(void)
{
    static const struct {
        const char *frame;
        size_t length;
        enum session_state state;
    } rows[] = {
        {"\x88\x82\0\0\0\0\x03\xe8", 8, SESSION_LINGER},
        {"\x88\x80\0\0\0\0", 6, SESSION_LINGER},
        {"\x81\x01x", 3, SESSION_LINGER},
        {NULL, 0, SESSION_DEAD},
    };

    open_house();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest *guest = receive_waiting();

        if (rows[i].frame)
            send_pieces(guest, (struct str){rows[i].frame, rows[i].length}, 0);
        else
            shutdown(guest->far.fd, SHUT_WR);
        run();
        CHECK(guest->session.state == rows[i].state);
        admit(guest, CLUSTER_ADMITTED, "shop");
        CHECK(guest->session.state == rows[i].state && node.hub.channels.clients.count == 0);
        clear_house();
    }
    close_house();
}

/* The server stops while somebody waits: nobody is let in any more, whatever the answer is. */
static void stopping_lets_nobody_in(void)
{
    open_house();
    for (size_t i = 0; i < COUNT(admissions); i++) {
        struct guest *guest = receive_waiting();

        stop(guest);
        admit(guest, admissions[i], "shop");
        if (!CHECK(node.hub.channels.clients.count == 0) ||
            !CHECK(admissions[i] == CLUSTER_ASKED || guest->session.state != SESSION_OPEN))
            printf("  that was admission %zu\n", i);
        context.stopping = false;
        clear_house();
    }
    close_house();
}

/* Who has waited longer than a ping's interval is given up only once a ping, which it did get, is
 * unanswered. */
static void who_has_waited_long_is_pinged_first(void)
{
    struct guest *guest;

    open_house();
    guest = receive_waiting();
    pass(25000);
    admit(guest, CLUSTER_ADMITTED, "shop");
    far_forget(&guest->far);
    for (int i = 0; i < 60 && guest->session.state == SESSION_OPEN; i++) {
        struct far_frame frame = {0};

        pass(1000);
        if (far_next(&guest->far, &frame) && frame.opcode == 9)
            break;
        if (!CHECK(guest->session.state == SESSION_OPEN))
            printf("  given up %d s after it was let in, and never pinged\n", i + 1);
    }
    close_house();
}

/* --- the admin listener ---------------------------------------------------------------------- */

static struct guest *receive_admin(void)
{
    struct guest *guest = receive_guest();

    guest->session.is_admin = true;
    return guest;
}

static const char *plain(const char *status, const char *fields, const char *body)
{
    return say(
        "HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%sContent-Type: text/plain; "
        "charset=utf-8\r\nContent-Length: %zu\r\n%s\r\n%s",
        status, fields, strstr(fields, "close") ? "" : KEEP_ALIVE, strlen(body), HTTP_UNCACHED,
        body);
}

/* It is HTTP like any other, also in many pieces, but no path of the API, no page and no client. */
static void the_admin_listener_has_paths_of_its_own(void)
{
    static const char none[] = "there are /metrics, /healthz and /readyz\n";
    const char *ok = plain("200 OK", "", "ok\n");
    struct console console;
    struct guest *guest;

    open_house();
    CHECK(console_open(&console));
    context.console = &console;
    guest = receive_admin();
    for (size_t size = 0; size < 8; size += 7) {
        send_pieces(guest,
                    STR("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "GET /readyz?x HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
                        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "GET /ws?systemId=shop HTTP/1.1\r\nHost: [::1]:1\r\n" WEBSOCKET VERSION KEY
                        "\r\n"),
                    size);
        CHECK(got_bytes(guest, ok) && got_bytes(guest, plain("200 OK", "", "ready\n")));
        CHECK(got_bytes(guest, say("%.*s", (int)(strlen(ok) - 3), ok)));
        CHECK(got_bytes(guest, plain("405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n",
                                     "this listener takes GET\n")));
        CHECK(got_bytes(guest, plain("404 Not Found", "", none)));
        CHECK(got_all(guest, plain("404 Not Found", "", none)));
    }
    say_to(guest, post("/api/login", "", "{\"systemId\":\"shop\",\"password\":\"secret\"}"));
    CHECK(got_all(guest, plain("403 Forbidden", "", "Host must be an address or localhost\n")));
    say_to(guest,
           "POST /api/login HTTP/1.1\r\nHost: 127.0.0.1:7801\r\nContent-Length: 2\r\n\r\n{}");
    CHECK(got_all(guest, plain("405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n",
                               "this listener takes GET\n")));
    CHECK(guest->session.state == SESSION_HTTP_IDLE && node.hub.channels.clients.count == 0);
    for (size_t i = 0; i <= METRICS_HANDSHAKES; i++)
        CHECK(context.metrics.handshakes[i] == 0);
    for (unsigned route = 0; route < API_ROUTES; route++)
        CHECK(context.metrics.calls[route].microseconds == 0);
    say_to(guest, "BAD\r\n\r\n");
    CHECK(contains(far_receive(&guest->far), "HTTP/1.1 400 Bad Request"));
    close_house();
    console_close(&console);
}

/* Many requests whose answers nobody reads: they wait, and so do the requests. */
static void metrics_are_not_piled_up(void)
{
    struct guest *guest;
    struct buf requests = {0};
    size_t most = 0;

    open_house();
    guest = receive_admin();
    for (int i = 0; i < 300; i++)
        buf_append(&requests, STR("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    CHECK(far_send(&guest->far, str_of(&requests)));
    for (size_t length = 0, i = 0; i < 2000; i++) {
        run();
        most = guest->session.conn.queued > most ? guest->session.conn.queued : most;
        far_forget(&guest->far);
        length = far_receive(&guest->far).length;
        if (!length && !guest->session.conn.queued)
            break;
    }
    CHECK(most > 100000 && most < 400000);
    CHECK(guest->session.state == SESSION_HTTP_IDLE && !guest->session.conn.queued);
    say_to(guest, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    CHECK(got_all(guest, plain("200 OK", "", "ok\n")));
    buf_free(&requests);
    close_house();
}

/* A node that is about to stop says so, and serves as before: balancers need time to look
 * elsewhere. While it stops each answer is its connection's last. */
static void an_admin_sees_the_node_stop(void)
{
    struct guest *guest;

    open_house();
    context.leaving = true;
    receive_client();
    guest = receive_guest();
    say_to(guest, GET_NOTHING);
    CHECK(got_all(guest, not_found()));
    guest = receive_admin();
    say_to(guest, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    CHECK(got_all(guest, plain("503 Service Unavailable", "", "not ready: draining\n")));
    context.stopping = true;
    say_to(guest, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    CHECK(got_bytes(
        guest, plain("503 Service Unavailable", "Connection: close\r\n", "not ready: draining\n")));
    CHECK(ends_politely(guest));
    close_house();
}

/* --- what is counted, and logged ------------------------------------------------------------- */

/* What has been logged since this was last called, without the times. */
static const char *logged(void)
{
    static char text[20000];
    static long seen;
    size_t length = 0;
    char line[2000];

    if (ftell(node.log.file) < seen)
        seen = 0; /* another house */
    fseek(node.log.file, seen, SEEK_SET);
    text[0] = '\0';
    while (fgets(line, sizeof line, node.log.file))
        length +=
            (size_t)snprintf(text + length, sizeof text - length, "%s", strchr(line, ' ') + 1);
    seen = ftell(node.log.file);
    return text;
}

static bool is_logged(const char *text)
{
    return same(str_from(logged()), str_from(text));
}

/* Every answer to a request for /ws is counted by its status, and no other answer is. */
static void handshakes_are_counted(void)
{
    static const struct {
        const char *request;
        size_t place;
    } rows[] = {
        {GET_SHOP, 0},
        {"GET /ws?systemId=nobody HTTP/1.1\r\nHost: h\r\n" WEBSOCKET VERSION KEY "\r\n", 0},
        {"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n", 1},
        {"GET /ws HTTP/1.1\r\nHost: h\r\nOrigin: https://b.example\r\n" WEBSOCKET VERSION KEY
         "\r\n",
         2},
        {"POST /ws HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 3},
        {"GET /ws HTTP/1.1\r\nHost: h\r\n" WEBSOCKET KEY "Sec-WebSocket-Version: 8\r\n\r\n", 4},
        {"OPTIONS /ws HTTP/1.1\r\nHost: h\r\n\r\n", 7},
        {GET_NOTHING, 9},
        {"GET /wss HTTP/1.1\r\nHost: h\r\n" WEBSOCKET VERSION KEY "\r\n", 9},
        {"GET /ws HTTP/1.1\r\n\r\n", 9}, /* no good request at all */
    };
    uint64_t expected[METRICS_HANDSHAKES + 1] = {0};

    open_house();
    strcpy(node.config.allowed_origins, "https://a.example");
    for (size_t i = 0; i < COUNT(rows) + 2; i++) { /* and one too many, and one too late */
        struct guest *guest = receive_guest();
        size_t place = i < COUNT(rows) ? rows[i].place : 5 + i - COUNT(rows);

        guest->session.over_limit = place == 5;
        context.stopping = place == 6;
        say_to(guest, i < COUNT(rows) ? rows[i].request : GET_SHOP);
        if (place <= METRICS_HANDSHAKES)
            expected[place]++;
        if (!CHECK(memcmp(context.metrics.handshakes, expected, sizeof expected) == 0))
            printf("  that was row %zu\n", i);
        CHECK(session_is_websocket(&guest->session) == (place == 0));
        clear_house();
    }
    close_house();
}

/* Messages count once, however many frames and pieces they have; control frames do not. */
static void messages_from_clients_are_counted(void)
{
    struct guest *guest;

    open_house();
    guest = receive_client();
    send_frame(guest, 0x81, STR("one"));
    CHECK(context.metrics.received_messages == 1);
    send_frame(guest, 0x01, STR("tw"));
    send_frame(guest, 0x89, STR("a ping between"));
    CHECK(context.metrics.received_messages == 1);
    send_frame(guest, 0x80, STR("o"));
    CHECK(context.metrics.received_messages == 2);
    send_pieces(guest, STR("\x82\x83\0\0\0\0abc"), 1);
    CHECK(context.metrics.received_messages == 3);
    send_frame(guest, 0x81, STR("ping"));
    CHECK(context.metrics.received_messages == 4);
    send_frame(guest, 0x88, STR("\x03\xe8"));
    CHECK(context.metrics.received_messages == 4);
    close_house();
}

/* Calls are counted and logged with their answers, late ones too, and nothing else is. */
static void calls_are_counted_and_logged(void)
{
    static const char *const lines[] = {
        "debug call path=\"/nothing\" status=404 code=-1 microseconds=",
        "debug call path=\"/api/get_online_list\" status=200 code=0 microseconds=",
        "debug call path=\"/api/login\" status=200 code=-1005 microseconds=",
        "debug call path=\"/no%22\" status=404 code=-1 microseconds=",
    };
    static const char *const ends[] = {
        " remote=\"127.0.0.1\"\n", " remote=\"127.0.0.1\" system=\"shop\"\n",
        " remote=\"127.0.0.1\" system=\"a\"\n", " remote=\"127.0.0.1\"\n"};
    unsigned list = api_route(STR("/api/get_online_list")), login = api_route(STR("/api/login"));
    int64_t before = os_now_us();
    struct guest *guest;

    open_house();
    node.log.level = LOG_DEBUG;
    guest = receive_guest();
    memcpy(guest->session.conn.address, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
    logged();
    for (size_t i = 0; i < COUNT(lines); i++) {
        const char *got, *rest;

        say_to(guest, i == 0   ? GET_NOTHING
                      : i == 1 ? post("/api/get_online_list", "", "{\"groupName\":\"g\"}")
                      : i == 2 ? post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}")
                               : "GET /no%22 HTTP/1.1\r\nHost: h\r\n\r\n");
        far_forget(&guest->far);
        got = logged();
        rest = got + (strlen(got) < strlen(lines[i]) ? 0 : strlen(lines[i]));
        if (!CHECK(strncmp(got, lines[i], strlen(lines[i])) == 0) ||
            !CHECK(strcmp(rest + strspn(rest, "0123456789"), ends[i]) == 0))
            printf("  got: %s", got);
    }
    CHECK(context.metrics.calls[API_ROUTES - 1].codes[1] == 2 &&
          context.metrics.calls[list].codes[0] == 1);
    CHECK(context.metrics.calls[login].codes[6] == 1 && node.api.login_failures == 1);
    CHECK(context.metrics.calls[login].microseconds > 0 &&
          context.metrics.calls[login].microseconds <= (uint64_t)(os_now_us() - before));
    say_to(guest, GET_SHOP);
    CHECK(is_logged(""));
    node.log.level = LOG_INFO;
    guest = receive_guest();
    say_to(guest, GET_NOTHING);
    CHECK(is_logged("") && context.metrics.calls[API_ROUTES - 1].codes[1] == 3);
    guest->session.over_limit = true; /* is answered before it is a call */
    say_to(guest, GET_NOTHING);
    CHECK(context.metrics.calls[API_ROUTES - 1].codes[METRICS_CODES - 2] == 0);
    close_house();
}

/* How a connection ends, and what is said of it at which level. */
enum ending {
    HANG_UP,
    BREAK_OFF,
    TIME_OUT,
    IDLE,
    REFUSED,
    CLOSE_FRAME,
    NO_PONG,
    NO_CLOSE,
    ADMIN_HANGS_UP
};

static void bring_about(struct guest *guest, enum ending ending)
{
    switch (ending) {
    case CLOSE_FRAME:
        send_frame(guest, 0x88, STR("\x03\xe8"));
        break;
    case TIME_OUT:
        pass(10000);
        break;
    case IDLE:
        pass(3000);
        say_to(guest, "GET /ws HTTP/1.1\r\nHost: h\r\n\r\n"); /* which is no call */
        pass(75000);
        break;
    case REFUSED:
        say_to(guest, "GET\r\n\r\n");
        pass(5000);
        break;
    case NO_CLOSE:
        close_by_command(guest);
        pass(5000);
        return;
    case NO_PONG:
        pass(25000);
        pass(10000);
        pass(5000);
        return;
    case BREAK_OFF:
        say_to(guest, "GET /part");
        break;
    case ADMIN_HANGS_UP:
        guest->session.is_admin = true;
        break;
    case HANG_UP:
        break;
    }
    shutdown(guest->far.fd, SHUT_RDWR);
    run();
}

/* A text with the guest's id in the place of "ID". */
static const char *with_id(const char *text, const struct guest *guest)
{
    const char *at = strstr(text, "ID");

    return at ? say("%.*s%s%s", (int)(at - text), text, guest->id, at + 2) : text;
}

/* One line tells the end of a client, and one for who went in the middle of something, at info;
 * what is usual is told at debug. */
static void ends_are_logged(void)
{
    static const struct {
        enum ending ending;
        bool client;
        const char *info, *debug; /* the lines at info, and those at debug alone */
    } rows[] = {
        {HANG_UP, false, "",
         "debug connection closed remote=\"::\" reason=\"closed by the peer\" milliseconds=0\n"},
        {ADMIN_HANGS_UP, false, "",
         "debug connection closed remote=\"::\" reason=\"closed by the peer\" milliseconds=0\n"},
        {BREAK_OFF, false,
         "info connection closed remote=\"::\" reason=\"closed by the peer\" milliseconds=0\n", ""},
        {TIME_OUT, false,
         "info connection closed remote=\"::\" reason=\"deadline passed\" milliseconds=10000\n",
         ""},
        {IDLE, false, "",
         "debug connection closed remote=\"::\" reason=\"deadline passed\" milliseconds=78000\n"},
        {REFUSED, false, "",
         "debug request rejected remote=\"::\" status=400 reason=\"malformed request line\"\n"
         "debug connection closed remote=\"::\" reason=\"deadline passed\" milliseconds=5000\n"},
        {HANG_UP, true,
         "info client lost client=\"ID\" system=\"shop\" remote=\"::\" code=1006 "
         "reason=\"closed by the peer\" seconds=0 queued=0\n",
         "debug connection closed remote=\"::\" reason=\"closed by the peer\"\n"},
        {CLOSE_FRAME, true,
         "info client closed client=\"ID\" system=\"shop\" remote=\"::\" code=1000 "
         "reason=\"closed by the client\" seconds=0 queued=0\n",
         "debug connection closed remote=\"::\" reason=\"closed by the peer\"\n"},
        {NO_PONG, true,
         "info client closed client=\"ID\" system=\"shop\" remote=\"::\" code=1001 "
         "reason=\"no pong\" seconds=0 queued=0\n",
         "debug connection closed remote=\"::\" reason=\"deadline passed\"\n"},
        {NO_CLOSE, true,
         "info client closed client=\"ID\" system=\"shop\" remote=\"::\" code=4000 "
         "reason=\"enough\" seconds=0 queued=0\n",
         "debug connection closed remote=\"::\" reason=\"deadline passed\"\n"},
    };

    open_house();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct guest *guest = rows[i / 2].client ? receive_client() : receive_guest();
        enum ending ending = rows[i / 2].ending;
        bool first = ending == CLOSE_FRAME || ending == NO_CLOSE || ending == NO_PONG;
        const char *debug = i % 2 ? rows[i / 2].debug : "", *info;

        node.log.level = i % 2 ? LOG_DEBUG : LOG_INFO;
        logged();
        info = with_id(rows[i / 2].info, guest);
        bring_about(guest, ending);
        /* a client that was closed has left before its connection ends; one that is lost, with it
         */
        CHECK(is_logged(say("%s%s", first ? info : debug, first ? debug : info)));
        context.now = START;
        clear_house();
    }
    close_house();
}

/* Who is not let in has a line for that. */
static void who_is_turned_away_is_logged(void)
{
    struct guest *guest;

    open_house();
    guest = receive_guest();
    logged();
    say_to(guest, upgrade("?systemId=nobody", WEBSOCKET VERSION KEY));
    CHECK(is_logged("info client rejected remote=\"::\" code=1008 reason=\"systemId is not "
                    "registered\"\n"));
    clear_house();
    CHECK(is_logged(""));
    close_house();
}

/* There may be a million of them. */
static void a_session_is_small(void)
{
#ifdef __x86_64__
    CHECK(sizeof(struct session) == 152);
#endif
    CHECK(sizeof(struct session) <= 152);
}

int main(void)
{
    test_run("a_connection_serves_many_requests", a_connection_serves_many_requests);
    test_run("the_version_says_whether_it_stays", the_version_says_whether_it_stays);
    test_run("head_and_options_are_answered", head_and_options_are_answered);
    test_run("the_console_is_a_page", the_console_is_a_page);
    test_run("a_stream_is_answered_in_order_however_cut",
             a_stream_is_answered_in_order_however_cut);
    test_run("a_batch_beyond_the_budget_takes_turns", a_batch_beyond_the_budget_takes_turns);
    test_run("what_follows_a_login_waits_for_it", what_follows_a_login_waits_for_it);
    test_run("a_late_answer_keeps_its_manner", a_late_answer_keeps_its_manner);
    test_run("a_body_is_called_for_once", a_body_is_called_for_once);
    test_run("heads_are_judged_before_bodies", heads_are_judged_before_bodies);
    test_run("refusals_at_limits_are_logged", refusals_at_limits_are_logged);
    test_run("probes_are_answered", probes_are_answered);
    test_run("clients_are_told_the_path", clients_are_told_the_path);
    test_run("a_line_end_asks_for_nothing", a_line_end_asks_for_nothing);
    test_run("idle_time_is_told", idle_time_is_told);
    test_run("a_call_in_pieces_counts_once", a_call_in_pieces_counts_once);
    test_run("what_is_refused_is_the_last", what_is_refused_is_the_last);
    test_run("limits_are_inclusive", limits_are_inclusive);
    test_run("a_long_body_is_taken", a_long_body_is_taken);
    test_run("limits_change_in_the_middle", limits_change_in_the_middle);
    test_run("an_idle_session_owns_no_input", an_idle_session_owns_no_input);
    test_run("answers_that_wait_hold_back_requests", answers_that_wait_hold_back_requests);
    test_run("nothing_is_read_while_writing_comes_first",
             nothing_is_read_while_writing_comes_first);
    test_run("a_half_closed_connection_is_answered", a_half_closed_connection_is_answered);
    test_run("one_connection_too_many_is_refused", one_connection_too_many_is_refused);
    test_run("systems_are_found_by_their_name", systems_are_found_by_their_name);
    test_run("a_plus_is_a_space_where_nothing_else_is_known",
             a_plus_is_a_space_where_nothing_else_is_known);
    test_run("the_first_frame_does_not_come_with_the_answer",
             the_first_frame_does_not_come_with_the_answer);
    test_run("a_subprotocol_is_accepted", a_subprotocol_is_accepted);
    test_run("unknown_systems_are_told_and_closed", unknown_systems_are_told_and_closed);
    test_run("bad_upgrades_are_refused", bad_upgrades_are_refused);
    test_run("origins_may_be_restricted", origins_may_be_restricted);
    test_run("a_websocket_stream_may_be_cut_anywhere", a_websocket_stream_may_be_cut_anywhere);
    test_run("a_websocket_stream_may_take_a_turn_for_each_frame",
             a_websocket_stream_may_take_a_turn_for_each_frame);
    test_run("frames_beyond_the_budget_take_turns", frames_beyond_the_budget_take_turns);
    test_run("the_texts_ping_and_id_are_answered", the_texts_ping_and_id_are_answered);
    test_run("a_nul_ends_no_text", a_nul_ends_no_text);
    test_run("messages_are_taken_up_to_the_limit", messages_are_taken_up_to_the_limit);
    test_run("breaches_of_the_protocol_are_closed", breaches_of_the_protocol_are_closed);
    test_run("the_client_may_close", the_client_may_close);
    test_run("the_server_may_close", the_server_may_close);
    test_run("a_client_that_never_closes_is_ended", a_client_that_never_closes_is_ended);
    test_run("a_breach_while_closing_ends_it", a_breach_while_closing_ends_it);
    test_run("a_connection_that_ends_is_told_at_once", a_connection_that_ends_is_told_at_once);
    test_run("a_client_that_does_not_read_its_answers_is_slow",
             a_client_that_does_not_read_its_answers_is_slow);
    test_run("pongs_do_not_pile_up", pongs_do_not_pile_up);
    test_run("requests_have_deadlines", requests_have_deadlines);
    test_run("bodies_have_a_deadline_of_their_own", bodies_have_a_deadline_of_their_own);
    test_run("an_idle_connection_is_closed", an_idle_connection_is_closed);
    test_run("silent_clients_are_pinged_and_ended", silent_clients_are_pinged_and_ended);
    test_run("any_byte_is_a_sign_of_life", any_byte_is_a_sign_of_life);
    test_run("unfinished_messages_have_a_deadline", unfinished_messages_have_a_deadline);
    test_run("messages_cut_anywhere_are_in_time", messages_cut_anywhere_are_in_time);
    test_run("answers_are_written_to_who_reads_slowly", answers_are_written_to_who_reads_slowly);
    test_run("stopping_takes_no_new_client", stopping_takes_no_new_client);
    test_run("pings_may_come_early", pings_may_come_early);
    test_run("expiring_says_whether_it_pinged", expiring_says_whether_it_pinged);
    test_run("who_keeps_most_is_ended", who_keeps_most_is_ended);
    test_run("stopping_ends_a_client", stopping_ends_a_client);
    test_run("stopping_closes_what_is_idle", stopping_closes_what_is_idle);
    test_run("stopping_waits_for_answers", stopping_waits_for_answers);
    test_run("a_post_is_pushed", a_post_is_pushed);
    test_run("tickets_name_slot_and_generation", tickets_name_slot_and_generation);
    test_run("after_a_standstill_the_ping_goes_first", after_a_standstill_the_ping_goes_first);
    test_run("an_answered_ping_does_not_count_after_a_standstill",
             an_answered_ping_does_not_count_after_a_standstill);
    test_run("an_unanswered_ping_is_not_repeated_after_a_standstill",
             an_unanswered_ping_is_not_repeated_after_a_standstill);
    test_run("pings_do_not_put_off_the_end", pings_do_not_put_off_the_end);
    test_run("an_early_ping_takes_no_time_away", an_early_ping_takes_no_time_away);
    test_run("a_standstill_does_not_prolong_a_message", a_standstill_does_not_prolong_a_message);
    test_run("a_late_message_is_no_missing_pong", a_late_message_is_no_missing_pong);
    test_run("what_has_come_by_then_is_in_time", what_has_come_by_then_is_in_time);
    test_run("who_is_admitted_is_a_client", who_is_admitted_is_a_client);
    test_run("who_is_not_admitted_is_told_and_closed", who_is_not_admitted_is_told_and_closed);
    test_run("who_is_asked_about_goes_on_waiting", who_is_asked_about_goes_on_waiting);
    test_run("an_admission_that_comes_too_late_is_nothing",
             an_admission_that_comes_too_late_is_nothing);
    test_run("who_waits_may_go", who_waits_may_go);
    test_run("stopping_lets_nobody_in", stopping_lets_nobody_in);
    test_run("who_has_waited_long_is_pinged_first", who_has_waited_long_is_pinged_first);
    test_run("the_admin_listener_has_paths_of_its_own", the_admin_listener_has_paths_of_its_own);
    test_run("metrics_are_not_piled_up", metrics_are_not_piled_up);
    test_run("an_admin_sees_the_node_stop", an_admin_sees_the_node_stop);
    test_run("handshakes_are_counted", handshakes_are_counted);
    test_run("messages_from_clients_are_counted", messages_from_clients_are_counted);
    test_run("calls_are_counted_and_logged", calls_are_counted_and_logged);
    test_run("ends_are_logged", ends_are_logged);
    test_run("who_is_turned_away_is_logged", who_is_turned_away_is_logged);
    test_run("a_session_is_small", a_session_is_small);
    return test_finish();
}

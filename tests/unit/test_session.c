/* test_session.c - session.c, session_http.c: what one connection sends for what it receives, in
 * whatever pieces, and when it ends. */
#include "session.h"

#include "hub_resume.h"

#include "node.h"

#define PEERS 3
#define START 1000000 /* milliseconds at which a test begins */
#define ODD_NAME "\xc3\xa9 +&"

/* A session and the far end of its connection. */
struct peer {
    struct session session;
    struct far_end far;
    char id[HUB_ID_TEXT + 1]; /* of its client */
};

static struct peer peers[PEERS];
static size_t peer_count;
static struct session_context context;
static bool worker_is_slow;  /* results of account jobs do not come */
static size_t spent_before;  /* work of others in each share of an iteration */
static int unknown_versions; /* how often the version of a ticket key is not known here */

enum account_token_status __wrap_account_ticket_version(struct accounts *accounts, struct str name,
                                                        uint64_t *version, int64_t *since);
enum account_token_status __real_account_ticket_version(struct accounts *accounts, struct str name,
                                                        uint64_t *version, int64_t *since);

enum account_token_status __wrap_account_ticket_version(struct accounts *accounts, struct str name,
                                                        uint64_t *version, int64_t *since)
{
    return unknown_versions && unknown_versions--
               ? ACCOUNT_TOKEN_UNKNOWN
               : __real_account_ticket_version(accounts, name, version, since);
}

/* --- the iterate, as the loop does it -----------------------------------------------------------
 */

static void update(struct peer *peer)
{
    if (peer->session.state != SESSION_DEAD && !peer->session.conn.dirty)
        session_flushed(&context, &peer->session);
}

/* True if part of a request or of a message is here. */
static bool is_receiving(const struct session *session)
{
    return session->state == SESSION_HTTP_HEAD || session->state == SESSION_HTTP_BODY ||
           session->state == SESSION_CLOSING ||
           (session->state == SESSION_OPEN && session->since != SESSION_NEVER);
}

/* Does what poll() would wake the loop for; false if that is nothing. */
static bool serve(struct peer *peer)
{
    struct session *session = &peer->session;
    bool reads = session_wants_input(session);
    struct pollfd poll_fd = {session->conn.fd, 0, 0};

    poll_fd.events = (short)((reads ? POLLIN : 0) | (session->conn.want_write ? POLLOUT : 0));
    if (!poll_fd.events || session->state == SESSION_DEAD || poll(&poll_fd, 1, 0) <= 0)
        return false;
    if (poll_fd.revents & POLLOUT)
        session_writable(&context, session);
    if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR))
        session_read(&context, session);
    update(peer);
    return true;
}

static bool take_result(struct peer *peer)
{
    struct account_result result;
    struct api_response response;

    if (peer->session.state != SESSION_WAIT || worker_is_slow || !node_await(&result))
        return false;
    CHECK(result.request_id == session_request_id(&peer->session));
    if (result.kind == ACCOUNT_LOOK_UP) {
        session_take_again(&context, &peer->session);
        update(peer);
        return true;
    }
    session_log_account(&context, &result);
    api_finish(&node.api, &result, context.unix_now, &response);
    response.system = (struct str){result.name, result.name_length};
    session_respond(&context, &peer->session, &response);
    update(peer);
    return true;
}

static void begin_batch(void)
{
    conn_begin_batch(&node.shared);
    node.shared.spent += spent_before;
}

/* One iterate; false if nothing has moved. */
static bool iterate(void)
{
    struct conn *conn;
    bool moved = false;

    begin_batch();
    for (size_t i = 0; i < peer_count; i++) {
        bool served = serve(&peers[i]);

        moved = take_result(&peers[i]) || served || moved;
    }
    for (size_t i = 0; i < peer_count; i++)
        if (peers[i].session.over_budget) {
            begin_batch();
            session_continue(&context, &peers[i].session);
            update(&peers[i]);
            moved = true;
        }
    moved = hub_flush_notices(&node.hub, SIZE_MAX) || moved;
    conn_end_batches(&node.shared);
    while ((conn = conn_next_dirty(&node.shared))) {
        moved = true;
        conn_flush(conn);
        update((struct peer *)conn); /* its first member's first member */
    }
    return moved;
}

/* Turns until nothing moves. A session that waits for nothing holds no input then. */
static void run(void)
{
    int iterations = 0;

    while (iterate() && CHECK(++iterations < 100000))
        ;
    for (size_t i = 0; i < peer_count; i++) {
        const struct session *session = &peers[i].session;

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
    for (size_t i = 0; i < peer_count; i++) {
        session_expire(&context, &peers[i].session);
        update(&peers[i]);
        /* what was due has been done: the loop would do it again at once */
        CHECK(peers[i].session.state == SESSION_DEAD ||
              session_timer(&context, &peers[i].session) > context.now);
    }
    run();
}

/* True if a client has been sent this close frame and nothing else, and its own is waited for. */
static bool was_ended(struct peer *peer, unsigned code, const char *reason)
{
    return got_close(&peer->far, code, reason) && got_nothing(&peer->far) &&
           peer->session.state == SESSION_CLOSING && !peer->session.conn.client;
}

static int64_t timer_of(const struct peer *peer)
{
    return session_timer(&context, &peer->session) - START;
}

/* --- coming, sending, going ------------------------------------------------------------------ */

static void set_up(void)
{
    node_open();
    peer_count = 0;
    worker_is_slow = false;
    spent_before = 0;
    unknown_versions = 0;
    context = (struct session_context){.config = &node.config,
                                       .log = &node.log,
                                       .hub = &node.hub,
                                       .api = &node.api,
                                       .accounts = node.accounts,
                                       .now = START,
                                       .unix_now = UNIX_NOW,
                                       .failed_logins = {.most = 2, .period = 10000},
                                       .metrics = {.hub = &node.hub,
                                                   .api = &node.api,
                                                   .shared = &node.shared,
                                                   .log = &node.log,
                                                   .version = "test"}};
    http_date(UNIX_NOW, context.date);
    node_register(STR("shop"), STR("secret"));
}

static struct peer *connect_peer(void)
{
    struct peer *peer = &peers[peer_count++];

    session_open(&peer->session, far_open(&peer->far), &node.shared, context.now);
    peer->session.index = (uint32_t)peer_count;
    peer->session.generation = 7;
    run();
    return peer;
}

/* The far ends close, and all sessions end. */
static void end_peers(void)
{
    for (size_t i = 0; i < peer_count; i++) {
        shutdown(peers[i].far.fd, SHUT_RDWR);
        far_receive(&peers[i].far);
    }
    worker_is_slow = false;
    run();
    for (size_t i = 0; i < peer_count; i++) {
        CHECK(peers[i].session.state == SESSION_DEAD);
        conn_close(&peers[i].session.conn);
        far_close(&peers[i].far);
    }
    peer_count = 0;
}

static void tear_down(void)
{
    end_peers();
    node.config.linger = 0;
    CHECK(!hub_resume_expire(&node.hub, 0));
    run();
    node_close();
}

/* Sends in pieces of this size, each of which is dealt with before the next; 0 is all at once. */
static void send_pieces(struct peer *peer, struct str bytes, size_t size)
{
    do {
        size_t length = size && size < bytes.length ? size : bytes.length;

        CHECK(far_send(&peer->far, (struct str){bytes.at, length}));
        bytes.at += length;
        bytes.length -= length;
        run();
    } while (bytes.length);
}

static void send_text(struct peer *peer, const char *text)
{
    send_pieces(peer, str_from(text), 0);
}

/* True if what has come begins with this text, which has been looked at then. */
static bool got_bytes(struct peer *peer, const char *text)
{
    struct str bytes = far_receive(&peer->far);
    size_t length = strlen(text);

    peer->far.taken = length < bytes.length ? length : bytes.length;
    return same((struct str){bytes.at, peer->far.taken}, str_from(text));
}

/* True if exactly this has come. */
static bool got_all(struct peer *peer, const char *text)
{
    return got_bytes(peer, text) && got_nothing(&peer->far);
}

static bool sees_end(struct peer *peer)
{
    return got_nothing(&peer->far) && peer->far.ended;
}

/* True if the near end has shut down its side, and the session ends when the far end does. */
static bool ends_politely(struct peer *peer)
{
    if (!sees_end(peer) || peer->session.state != SESSION_LINGER)
        return false;
    shutdown(peer->far.fd, SHUT_WR);
    run();
    return peer->session.state == SESSION_DEAD;
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
    line = textf("Token: %.*s\r\n", (int)token.length, token.at);
    buf_free(&token);
    return line;
}

/* A POST with a good token and whatever else is to stand in its head. */
static const char *post(const char *path, const char *headers, const char *body)
{
    return textf("POST %s HTTP/1.1\r\nHost: h\r\n%s%sContent-Length: %zu\r\n\r\n%s", path,
                 token_line(), headers, strlen(body), body);
}

/* An response's bytes. */
static const char *response(const char *status, const char *fields, const char *body)
{
    return textf("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%s%sContent-Type: "
                 "application/json; charset=utf-8\r\nContent-Length: %zu\r\n%s\r\n%s",
                 status, fields, strstr(fields, "close") ? "" : KEEP_ALIVE,
                 strncmp(status, "401", 3) == 0 ? "WWW-Authenticate: Token\r\n" : "", strlen(body),
                 HTTP_UNCACHED, body);
}

static const char *not_found(void)
{
    return response("404 Not Found", "", NOT_FOUND);
}

static const char *rejection(const char *status, const char *fields, const char *msg)
{
    return response(status, fields, textf("{\"code\":-1,\"msg\":\"%s\",\"data\":[]}", msg));
}

static const char *upgrade(const char *query, const char *headers)
{
    return textf("GET /ws%s HTTP/1.1\r\nHost: h\r\n%s\r\n", query, headers);
}

/* A peer connects, upgrades, and is a client of shop. */
static struct peer *connect_client(void)
{
    struct peer *peer = connect_peer();

    send_text(peer, upgrade("?systemId=shop", WEBSOCKET VERSION KEY));
    CHECK(got_bytes(peer, UPGRADED));
    CHECK(got_id_frame(&peer->far, peer->id) && got_nothing(&peer->far));
    CHECK(peer->session.state == SESSION_OPEN && peer->session.conn.client);
    CHECK(!peer->session.conn.has_response && !peer->session.conn.input);
    return peer;
}

static void version_and_connection_header_decide_keep_alive(void)
{
    static const struct {
        const char *version, *headers;
        const char *told; /* in the response */
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();

        send_text(peer, textf("GET /nothing HTTP/%s\r\n%s\r\n", rows[i].version, rows[i].headers));
        CHECK(got_all(peer, response("404 Not Found", rows[i].told, NOT_FOUND)));
        CHECK(peer->far.ended != rows[i].stays);
        send_text(peer, GET_NOTHING);
        if (rows[i].stays)
            CHECK(got_all(peer, not_found()));
        else
            CHECK(ends_politely(peer));
        end_peers();
    }
    tear_down();
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
    struct peer *peer;

    set_up();
    peer = connect_peer();
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *expected = response(rows[i].status, rows[i].allow, rows[i].body);

        send_text(peer, textf("%s %s HTTP/1.1\r\nHost: h\r\n\r\n", rows[i].method, rows[i].target));
        if (rows[i].method[0] == 'H') /* the length of the body, without the body */
            expected = textf("%.*s", (int)(strlen(expected) - strlen(rows[i].body)), expected);
        CHECK(got_all(peer, expected));
    }
    tear_down();
}

/* Requests of all kinds in one stream, and their responses. */
static void write_stream(struct buf *stream, struct buf *answers)
{
    static const char login[] = "{\"systemId\":\"shop\",\"password\":\"secret\"}";
    const struct {
        const char *request, *response;
    } rows[] = {
        {post("/api/send_to_system", "", "{\"code\":1,\"msg\":\"m\",\"data\":1}"),
         response("200 OK", "", SUCCESS)},
        {textf(
             "POST /api/get_online_list HTTP/1.1\r\nHost: h\r\n%sTransfer-Encoding: chunked\r\n\r\n"
             "5;x=y\r\n{\"gro\r\nC\r\nupName\":\"g\"}\r\n0\r\nT: x\r\n\r\n",
             token_line()),
         response("200 OK", "",
                  "{\"code\":0,\"msg\":\"success\",\"data\":{\"count\":0,\"list\":[]}}")},
        {"\r\nHEAD /nothing HTTP/1.1\r\nhost:h\r\n\r\n",
         textf("%.*s", (int)(strlen(not_found()) - strlen(NOT_FOUND)), not_found())},
        {textf("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s",
               strlen(login), login),
         NULL},
        {"POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n"
         "{\"systemId\":\"x\",\"password\":\"y\"}  ",
         response("200 OK", "",
                  "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}")},
        {"POST /api/register HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 34\r\n\r\n"
         "{\"systemId\":\"shop\",\"password\":\"y\"}",
         response("200 OK", "Connection: keep-alive\r\n",
                  "{\"code\":-1004,\"msg\":\"systemId is already registered\",\"data\":[]}")},
    };
    struct buf token = {0};

    for (size_t i = 0; i < COUNT(rows); i++)
        buf_append(stream, str_from(rows[i].request));
    for (size_t i = 0; i < 3; i++)
        buf_append(answers, str_from(rows[i].response));
    crypto_sign_token(node.keys.keys, STR("shop"), node_generation(STR("shop")),
                      UNIX_NOW + (int64_t)node.config.token_ttl, &token);
    buf_append(answers, str_from(response(
                            "200 OK", "",
                            textf("{\"code\":0,\"msg\":\"success\",\"data\":{\"token\":\"%.*s\","
                                  "\"expiresIn\":172800}}",
                                  (int)token.length, token.at))));
    buf_free(&token);
    for (size_t i = 4; i < COUNT(rows); i++)
        buf_append(answers, str_from(rows[i].response));
    buf_append(stream,
               STR(GET_NOTHING "GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                               "what follows is dropped"));
    buf_append(answers, str_from(not_found()));
    buf_append(answers, str_from(response("404 Not Found", "Connection: close\r\n", NOT_FOUND)));
}

/* Feeds `first` bytes and then pieces of `size`; the responses must be the same. */
static bool stream_is_answered(struct str stream, size_t first, size_t size, struct str answers)
{
    struct peer *peer = connect_peer();
    bool good;

    if (first)
        send_pieces(peer, (struct str){stream.at, first}, 0);
    send_pieces(peer, (struct str){stream.at + first, stream.length - first}, size);
    good = same(far_receive(&peer->far), answers) && peer->far.ended;
    if (!good)
        printf("  that was with %zu bytes, then pieces of %zu\n", first, size);
    end_peers();
    return good;
}

/* The head of a response for the console's page, or the client module. */
static const char *page_head(const struct console *console, const char *status, const char *fields)
{
    return textf("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%sContent-Type: %s\r\n"
                 "Content-Length: %u\r\n%s\r\n",
                 status, fields, *fields ? "" : KEEP_ALIVE, console->type,
                 (unsigned)console->file->length, console->fields);
}

static bool got_page(struct peer *peer, const struct console *console)
{
    struct str bytes = far_receive(&peer->far);
    struct str page = {console->file->bytes, console->file->length};

    peer->far.taken = page.length < bytes.length ? page.length : bytes.length;
    return str_equal((struct str){bytes.at, peer->far.taken}, page);
}

static void the_console_is_a_page(void)
{
    static const char others[] = "{\"code\":-1,\"msg\":\"this path takes GET\",\"data\":[]}";
    const char *allow = "Allow: GET, HEAD, OPTIONS\r\n";
    struct console console;
    struct peer *peer;

    set_up();
    CHECK(console_open(&console));
    context.console = &console;
    peer = connect_peer();
    for (size_t size = 0; size < 3; size++) {
        send_pieces(peer,
                    STR("GET / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /?x HTTP/1.1\r\nHost: h\r\n\r\n"
                        "GET /?x HTTP/1.1\r\nHost: h\r\n\r\n" GET_NOTHING),
                    size * 7);
        CHECK(got_bytes(peer, page_head(&console, "200 OK", "")) && got_page(peer, &console));
        CHECK(got_bytes(peer, page_head(&console, "200 OK", "")));
        CHECK(got_bytes(peer, page_head(&console, "200 OK", "")) && got_page(peer, &console));
        CHECK(got_all(peer, not_found()));
    }
    CHECK(console.file->references == 1); /* nothing is kept of it */
    send_text(peer, textf("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: %s\r\n\r\n", console.etag));
    CHECK(got_all(peer, page_head(&console, "304 Not Modified", "")));
    send_text(peer, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}");
    CHECK(got_all(peer, response("405 Method Not Allowed", allow, others)));
    send_text(peer, "OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(peer, response("200 OK", allow, SUCCESS)));
    send_text(peer, "GET / HTTP/1.0\r\n\r\n");
    CHECK(got_bytes(peer, page_head(&console, "200 OK", "Connection: close\r\n")));
    CHECK(got_page(peer, &console) && ends_politely(peer));
    context.console = NULL;
    peer = connect_peer();
    send_text(peer, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(peer, not_found()));
    tear_down();
    console_close(&console);
}

static void the_client_module_is_a_file(void)
{
    static const char others[] = "{\"code\":-1,\"msg\":\"this path takes GET\",\"data\":[]}";
    struct console module;
    struct peer *peer;

    set_up();
    CHECK(console_open_client(&module));
    context.client_module = &module;
    peer = connect_peer();
    send_text(peer, "GET /wspush.js?v=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_bytes(peer, page_head(&module, "200 OK", "")) && got_page(peer, &module));
    send_text(peer, "HEAD /wspush.js HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(peer, page_head(&module, "200 OK", "")));
    send_text(peer, textf("GET /wspush.js HTTP/1.1\r\nHost: h\r\nIf-None-Match: %s\r\n\r\n",
                          module.etag));
    CHECK(got_all(peer, page_head(&module, "304 Not Modified", "")));
    send_text(peer, "PUT /wspush.js HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    CHECK(
        got_all(peer, response("405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n", others)));
    send_text(peer, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); /* it goes without the page */
    CHECK(got_all(peer, not_found()));
    context.client_module = NULL;
    send_text(peer, "GET /wspush.js HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(got_all(peer, not_found()));
    end_peers();
    tear_down();
    console_close(&module);
}

static void pipelined_requests_are_answered_in_order(void)
{
    struct buf stream = {0}, answers = {0};

    set_up();
    write_stream(&stream, &answers);
    CHECK(stream_is_answered(str_of(&stream), 0, 0, str_of(&answers)));
    CHECK(stream_is_answered(str_of(&stream), 0, 1, str_of(&answers)));
    CHECK(stream_is_answered(str_of(&stream), 0, 7, str_of(&answers)));
    for (size_t cut = 1; cut < stream.length && test_good; cut++)
        CHECK(stream_is_answered(str_of(&stream), cut, 0, str_of(&answers)));
    spent_before = CONN_BUDGET; /* each iterate has one request */
    CHECK(stream_is_answered(str_of(&stream), 0, 0, str_of(&answers)));
    for (size_t cut = 1; cut < stream.length && test_good; cut++)
        CHECK(stream_is_answered(str_of(&stream), cut, 0, str_of(&answers)));
    buf_free(&stream);
    buf_free(&answers);
    tear_down();
}

/* While an account job runs nothing more is read or answered, and no timer runs. */
static void requests_behind_a_login_wait(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    worker_is_slow = true;
    send_text(peer,
              textf("%s%s%s", post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"),
                    GET_NOTHING, "GET /part"));
    CHECK(peer->session.state == SESSION_WAIT && peer->session.conn.input);
    CHECK(!session_wants_input(&peer->session));
    send_text(peer, "ial HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(session_timer(&context, &peer->session) == INT64_MAX);
    pass(1000000);
    CHECK(got_nothing(&peer->far) && !peer->far.ended);
    worker_is_slow = false;
    run();
    CHECK(got_all(
        peer, textf("%s%s%s",
                    response("200 OK", "",
                             "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}"),
                    not_found(), not_found())));
    CHECK(peer->session.state == SESSION_HTTP_IDLE && !peer->session.conn.input);
    tear_down();
}

static void continue_is_sent_once(void)
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();
        const char *fields = rows[i].version[2] == '0' ? "Connection: keep-alive\r\n" : "";
        const char *head =
            textf("POST /api/login HTTP/%s\r\nHost: h\r\n%s\r\n", rows[i].version, rows[i].headers);

        for (int times = 0; times < 2; times++) {
            send_pieces(peer, str_from(head), times ? 1 : 0);
            CHECK(got_all(peer, rows[i].called ? CONTINUE : ""));
            send_pieces(peer, str_from(rows[i].body), 1);
            CHECK(got_all(peer, rejection("400 Bad Request", fields, "field systemId is missing")));
        }
        send_text(peer, textf("%s%s", head, rows[i].body)); /* it came uncalled */
        CHECK(got_all(peer, rejection("400 Bad Request", fields, "field systemId is missing")));
        for (int begun = 1; begun < (int)strlen(rows[i].body); begun++) {
            send_text(peer, textf("%s%.*s", head, begun, rows[i].body));
            CHECK(got_nothing(&peer->far));
            end_peers();
            peer = connect_peer();
        }
        end_peers();
    }
    tear_down();
}

#define MAX_BODY 1000

#define LOGIN "POST /api/login HTTP/1.1\r\nHost: h\r\n"
#define CHUNKED LOGIN "Transfer-Encoding: chunked\r\n\r\n"
#define TOO_LONG "413 Content Too Large", "the body is longer than max_body"
#define BAD_CHUNK "400 Bad Request", "malformed chunked body, or a trailer with a field of the head"

/* What cannot be served is refused, and the connection ends with the rejection. */
static void a_rejection_closes_the_connection(void)
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
        {"GET / HTTP/2.0\r\n", "505 HTTP Version Not Supported",
         "only HTTP/1.0 and HTTP/1.1 are spoken here"},
        {"POST / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n", "417 Expectation Failed",
         "the only expectation understood is 100-continue"},
    };

    set_up();
    node.config.max_body = MAX_BODY;
    snprintf(long_chunk, sizeof long_chunk, CHUNKED "3e8\r\n%*s\r\n1\r\n", MAX_BODY, "");
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct peer *peer = connect_peer();

        send_pieces(peer, str_from(rows[i / 2].request), i % 2);
        CHECK(got_bytes(peer,
                        rejection(rows[i / 2].status, "Connection: close\r\n", rows[i / 2].msg)));
        send_text(peer, GET_NOTHING); /* dropped */
        if (!CHECK(ends_politely(peer)))
            printf("  that was row %zu\n", i / 2);
        end_peers();
    }
    tear_down();
}

/* A call that may not be made is rejected by its head. A short body is skipped, the next request
 * served; a long one, or one that may not come, makes the response the connection's last. None is
 * kept. */
static void heads_are_checked_before_bodies(void)
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
        {"POST /api/get_online_list HTTP/1.1\r\nsystemid: shop", "401 Unauthorized", "",
         "Token header missing: log in with the systemId's password and send the token in the Token "
         "header; SystemId has no meaning (docs/migrating-from-go-websocket.md)",
         -1002, false},
        {"POST /api/get_online_list HTTP/1.1\r\nSystemId: shop\r\nToken: forged",
         "401 Unauthorized", "", "Token header forged or expired", -1002, false},
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
    set_up();
    CHECK(console_open(&console));
    context.console = &console;
    node.config.registration = REGISTER_CLOSED;
    for (size_t i = 0; i < COUNT(rows) * COUNT(bodies) * 2; i++) {
        size_t row = i / 2 % COUNT(rows), body = i / 2 / COUNT(rows);
        struct peer *peer = connect_peer();
        bool stays = bodies[body].stays && !rows[row].over_limit;
        const char *told = textf("%s%s", rows[row].fields, stays ? "" : "Connection: close\r\n");
        const char *text =
            textf("{\"code\":%d,\"msg\":\"%s\",\"data\":[]}", rows[row].code, rows[row].msg);

        peer->session.over_limit = rows[row].over_limit;
        send_pieces(
            peer,
            str_from(textf("%s\r\nHost: h\r\n%s\r\n\r\n", rows[row].head, bodies[body].fields)),
            i % 2);
        if (!CHECK(got_all(peer, response(rows[row].status, told, text))))
            printf("  that was row %zu, body %zu\n", row, body);
        if (bodies[body].sent)
            send_pieces(peer, (struct str){bytes, bodies[body].sent}, i % 2 ? 4099 : 65536);
        CHECK(!peer->session.conn.input && got_nothing(&peer->far));
        send_text(peer, GET_NOTHING);
        CHECK(stays ? got_all(peer, not_found()) : ends_politely(peer));
        end_peers();
    }
    tear_down();
    console_close(&console);
}

/* Probes of balancers, with and without Host, with and without a page. */
static void health_probes_are_answered(void)
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

    set_up();
    CHECK(console_open(&console));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();
        const char *expected = response("200 OK", rows[i].fields, SUCCESS);

        context.console = rows[i].needs_page ? &console : NULL;
        send_text(peer, textf("%s\r\n\r\n", rows[i].request));
        if (rows[i].head)
            expected = textf("%.*s", (int)(strlen(expected) - strlen(SUCCESS)), expected);
        if (!CHECK(got_all(peer, expected)))
            printf("  that was row %zu\n", i);
        end_peers();
    }
    CHECK(context.metrics.calls[0].microseconds == 0);
    tear_down();
    console_close(&console);
}

/* A rejected upgrade at another path names /ws, page or no page. */
static void upgrades_elsewhere_name_the_path(void)
{
    static const char *const paths[] = {"/", "/?systemId=shop", "/ws/", "/websocket", "/healthz"};
    struct console console;

    set_up();
    CHECK(console_open(&console));
    for (size_t i = 0; i < COUNT(paths) * 2; i++) {
        struct peer *peer = connect_peer();

        context.console = i % 2 ? &console : NULL;
        send_text(peer, textf("GET %s HTTP/1.1\r\nHost: h\r\n" WEBSOCKET VERSION KEY "\r\n",
                              paths[i / 2]));
        CHECK(got_all(peer, rejection("404 Not Found", "", "clients connect to /ws?systemId=…")));
        send_text(peer,
                  textf("GET %s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
                        paths[i / 2]));
        CHECK(contains(far_receive(&peer->far),
                       i / 2 == 4 || (i / 2 < 2 && i % 2) ? "200 OK" : "\"unknown path\""));
        end_peers();
    }
    tear_down();
    console_close(&console);
}

/* A line end behind a body asks for nothing: no time runs for it, and the next request is whole. */
static void a_line_end_begins_no_request(void)
{
    struct peer *peer;

    set_up();
    for (int size = 0; size < 2; size++) {
        context.now = START;
        peer = connect_peer();
        send_pieces(peer, str_from(textf("%s\r\n", post("/api/login", "", "{}"))), (size_t)size);
        CHECK(got_all(peer, rejection("400 Bad Request", "", "field systemId is missing")));
        CHECK(!is_receiving(&peer->session) && timer_of(peer) == 75000);
        pass(20000);
        CHECK(got_nothing(&peer->far) && !peer->far.ended);
        send_text(peer, "GET /noth");
        CHECK(timer_of(peer) == 20000 + 10000);
        send_text(peer, "ing HTTP/1.1\r\nHost: h\r\n\r\n\r");
        CHECK(got_all(peer, not_found()) && timer_of(peer) == 20000 + 75000);
        pass(20000);
        send_text(peer, "\n");
        CHECK(timer_of(peer) == 20000 + 75000);
        pass(55000);
        CHECK(sees_end(peer) && peer->session.state == SESSION_DEAD);
        end_peers();
    }
    /* one is forgiven, as ever */
    peer = connect_peer();
    send_text(peer, GET_NOTHING "\r\n");
    CHECK(got_all(peer, not_found()));
    send_text(peer, "\r\n");
    CHECK(got_all(peer,
                  rejection("400 Bad Request", "Connection: close\r\n", "malformed request line")));
    tear_down();
}

/* The timeout sent is a second less than the timeout kept. */
static void keep_alive_timeout_is_sent(void)
{
    static const struct {
        uint64_t timeout;
        const char *told;
    } rows[] = {{1000, ""},
                {1999, ""},
                {2000, "Keep-Alive: timeout=1\r\n"},
                {75999, "Keep-Alive: timeout=74\r\n"},
                {86400000, "Keep-Alive: timeout=86399\r\n"}};

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();

        node.config.idle_timeout = rows[i].timeout;
        send_text(peer, GET_NOTHING);
        CHECK(got_all(peer,
                      textf("HTTP/1.1 404 Not Found\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s"
                            "Content-Type: application/json; charset=utf-8\r\n"
                            "Content-Length: %zu\r\n%s\r\n%s",
                            rows[i].told, strlen(NOT_FOUND), HTTP_UNCACHED, NOT_FOUND)));
        end_peers();
    }
    tear_down();
}

/* A limit that was gone past is in the log as it is by default, by its name; what is no request is
 * there for those who look. */
static void rejections_at_limits_are_logged(void)
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
        set_up();
        node.config.max_body = MAX_BODY;
        node.log.level = rows[i].logged[0] == 'd' ? LOG_DEBUG : LOG_INFO;
        if (strstr(rows[i].request, "0123456789"))
            node.config.max_head = 40;
        send_text(connect_peer(), rows[i].request);
        CHECK(node_logged(rows[i].logged));
        tear_down();
    }
}

/* However many reads a call takes, it counts once towards api_rate, and is checked with its token
 * of then. */
static void a_call_in_pieces_counts_once(void)
{
    static const char body[] = "{\"groupName\":\"g\"}";
    const char *list = "{\"code\":0,\"msg\":\"success\",\"data\":{\"count\":0,\"list\":[]}}";
    struct peer *peer, *other;
    const char *head;

    set_up();
    node.config.api_rate = 3;
    peer = connect_peer();
    for (int i = 0; i < 3; i++) {
        send_pieces(peer, str_from(post("/api/get_online_list", "", body)), 1);
        CHECK(got_all(peer, response("200 OK", "", list)));
    }
    /* the rate is used up: that is said before the body comes */
    head = post("/api/get_online_list", "", body);
    send_pieces(peer, (struct str){head, strlen(head) - strlen(body)}, 0);
    CHECK(got_all(peer, response("429 Too Many Requests", "Retry-After: 1\r\n",
                                 "{\"code\":-1006,\"msg\":\"more API calls a second than api_rate "
                                 "allows\",\"data\":[]}")));
    send_text(peer, body);
    context.now += 1000;
    /* another system calls between a head and its body */
    node_register(STR("other"), STR("secret"));
    send_pieces(peer, (struct str){head, strlen(head) - strlen(body)}, 0);
    other = connect_peer();
    send_text(other, GET_NOTHING);
    CHECK(got_all(other, not_found()));
    memset(node.api.system, 'x', sizeof node.api.system);
    CHECK(got_nothing(&peer->far));
    send_text(peer, body);
    CHECK(got_all(peer, response("200 OK", "", list)));
    /* the token ends meanwhile */
    send_pieces(peer, (struct str){head, strlen(head) - strlen(body)}, 0);
    context.unix_now += 61;
    send_text(peer, body);
    CHECK(got_all(peer, response("401 Unauthorized", "",
                                 "{\"code\":-1002,\"msg\":\"Token header forged or expired\","
                                 "\"data\":[]}")));
    tear_down();
}

/* A limit that becomes lower than what has come of a body, or of a head, refuses it with an
 * response, whether the next bytes come or not; one that is raised lets it in. */
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        static char bytes[100000];
        struct peer *peer = connect_peer();

        config_defaults(&node.config);
        memset(bytes, ' ', sizeof bytes);
        send_text(peer, textf(LOGIN "%s", rows[i].head));
        send_pieces(peer, (struct str){bytes, rows[i].sent}, 0);
        CHECK(got_nothing(&peer->far) && is_receiving(&peer->session));
        node.config.max_body = rows[i].max_body;
        node.config.max_head = rows[i].max_head;
        send_text(peer, rows[i].msg ? "x" : "\r\n");
        if (rows[i].msg)
            CHECK(got_all(peer, rejection(rows[i].status, "Connection: close\r\n", rows[i].msg)) &&
                  ends_politely(peer));
        else
            CHECK(got_nothing(&peer->far) && peer->session.state == SESSION_HTTP_BODY);
        end_peers();
    }
    tear_down();
}

/* TLS may have to write before it can read: what has come cannot be looked at until it has. */
static void nothing_is_read_while_tls_must_write(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    peer->session.conn.want_write = peer->session.conn.tls_wants_write = true;
    CHECK(!session_wants_input(&peer->session));
    session_writable(&context, &peer->session);
    CHECK(session_wants_input(&peer->session));
    send_text(peer, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(got_bytes(peer, "HTTP/1.1 404 "));
    tear_down();
}

/* A peer that has closed its side still gets its responses. */
static void a_half_closed_connection_is_answered(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    CHECK(far_send(&peer->far,
                   str_from(textf("%s%s%s", GET_NOTHING,
                                  post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"),
                                  GET_NOTHING))));
    shutdown(peer->far.fd, SHUT_WR);
    run();
    CHECK(got_bytes(peer, not_found()));
    CHECK(got_bytes(peer, response("200 OK", "",
                                   "{\"code\":-1005,\"msg\":\"wrong systemId or password\","
                                   "\"data\":[]}")));
    CHECK(got_all(peer, not_found()) && peer->far.ended);
    CHECK(peer->session.state == SESSION_DEAD);
    tear_down();
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

static void send_frame(struct peer *peer, unsigned first, struct str payload)
{
    struct buf frame = {0};

    append_frame(&frame, first, payload);
    send_pieces(peer, str_of(&frame), 0);
    buf_free(&frame);
}

/* Both are in one group from now on; what has come to them is forgotten. */
static void join_group(struct peer *one, struct peer *other)
{
    struct peer *both[] = {one, other};

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

static bool saw_leave(struct peer *witness, const struct peer *gone)
{
    return got_text(&witness->far, textf("{\"code\":1002,\"msg\":\"client offline\",\"data\":"
                                         "{\"clientId\":\"%s\",\"userId\":\"\",\"extend\":\"\","
                                         "\"groupName\":\"g\"}}",
                                         gone->id)) &&
           got_nothing(&witness->far);
}

/* A form writes a space as '+', a program may mean it: the name as written goes first. */
static void system_names_are_decoded(void)
{
    static const struct {
        const char *query, *system; /* NULL: unknown */
    } rows[] = {
        {"a+b", "a b"},
        {"c+d", "c+d"},
        {"c%20d", "c d"},
        {"c%2Bd", "c+d"},
        {"+e+%20f", " e  f"},
        {"c++d", NULL},
        {"a+b+", NULL},
        {"%73h%6F%70&systemId=x", "shop"},
        {"%c3%a9%20+%26", ODD_NAME},
    };
    static const char *const names[] = {"a b", "c+d", "c d", " e  f", ODD_NAME};

    set_up();
    for (size_t i = 0; i < COUNT(names); i++)
        node_register(str_from(names[i]), STR("x"));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();
        struct result outcome = {0};
        struct command command = {.kind = COMMAND_CLIENT_INFO};

        send_text(peer, upgrade(textf("?systemId=%s", rows[i].query), WEBSOCKET VERSION KEY));
        CHECK(got_bytes(peer, UPGRADED));
        if (rows[i].system) {
            CHECK(got_id_frame(&peer->far, peer->id));
            command.system = str_from(rows[i].system);
            command.client = quoted(str_from(peer->id));
            hub_apply(&node.hub, &command, &outcome);
            CHECK(outcome.code == RESULT_SUCCESS);
            buf_free(&outcome.list);
        } else {
            CHECK(got_text(&peer->far, "{\"code\":-1001,\"msg\":\"systemId is not registered\","
                                       "\"data\":[]}"));
            CHECK(got_close(&peer->far, 1008, "unknown system"));
        }
        end_peers();
    }
    tear_down();
}

/* The first frame leaves in a call of its own: some clients lose what comes with the 101. */
static void the_first_frame_follows_the_upgrade_response(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    CHECK(far_send(&peer->far, STR(GET_SHOP)));
    session_read(&context, &peer->session);
    CHECK(got_all(peer, UPGRADED) && peer->session.conn.first);
    run();
    CHECK(got_id_frame(&peer->far, peer->id) && got_nothing(&peer->far));
    tear_down();
}

/* A browser cannot read an HTTP error: an unknown system is rejected over the WebSocket. */
static void unknown_systems_are_closed(void)
{
    const char *const queries[] = {
        "",
        "?systemId=",
        "?systemId=Shop",
        "?systemId=shop%",
        "?systemId=%zz",
        "?systemId=shop%00",
        "?systemid=shop",
        "?x=systemId=shop",
        textf("?systemId=%0128d", 0),
        textf("?systemId=%0129d", 0),
    };
    struct buf frame = {0};

    set_up();
    append_frame(&frame, 0x81, STR("ping"));
    for (size_t i = 0; i < 2 * COUNT(queries); i++) {
        struct peer *peer = connect_peer();
        struct far_frame got = {0};

        /* with a frame behind it, which is ignored */
        send_text(peer, textf("%s%.*s", upgrade(queries[i / 2], WEBSOCKET VERSION KEY),
                              i % 2 ? (int)frame.length : 0, frame.at));
        CHECK(got_bytes(peer, UPGRADED) && far_next(&peer->far, &got) && got.opcode == 1);
        CHECK(contains(got.payload, "{\"code\":-1001,\"msg\":\"systemId is ") &&
              contains(got.payload, "\",\"data\":[]}"));
        CHECK(got_close(&peer->far, 1008, "unknown system") && got_nothing(&peer->far));
        CHECK(peer->session.state == SESSION_CLOSING && node.hub.channels.clients.count == 0);
        send_frame(peer, 0x88, STR("\x03\xf0"));
        CHECK(ends_politely(peer));
        end_peers();
    }
    buf_free(&frame);
    tear_down();
}

static void bad_upgrades_are_rejected(void)
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();
        const char *body = textf("{\"code\":-1,\"msg\":\"%s\",\"data\":[]}", rows[i].msg);
        bool has_body = strstr(rows[i].headers, "Content-Length") != NULL;

        send_text(peer,
                  textf("%s%s", upgrade("?systemId=shop", rows[i].headers), has_body ? "x" : ""));
        CHECK(
            got_all(peer, textf("HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n" KEEP_ALIVE
                                "Content-Type: application/json; charset=utf-8\r\n"
                                "Content-Length: %zu\r\n" HTTP_UNCACHED "%s\r\n%s",
                                rows[i].status, strlen(body), rows[i].fields, body)));
        send_text(peer, GET_NOTHING); /* the request was whole: the connection goes on */
        CHECK(got_all(peer, not_found()));
        end_peers();
    }
    tear_down();
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
        {"https://a.example", "Origin: null\r\n", false},
        {"https://a.example", "Origin:\r\n", false},
        {"https://b.example, http://c.example:8080", "Origin: http://c.example:8080\r\n", true},
    };

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_peer();

        strcpy(node.config.allowed_origins, rows[i].allowed);
        send_text(peer,
                  upgrade("?systemId=shop", textf(WEBSOCKET VERSION KEY "%s", rows[i].origin)));
        if (rows[i].good)
            CHECK(got_bytes(peer, UPGRADED) && got_id_frame(&peer->far, peer->id));
        else
            CHECK(got_all(
                peer, rejection("403 Forbidden", "", "this Origin is not among allowed_origins")));
        end_peers();
    }
    tear_down();
}

/* An upgrade, frames, and the end, in one stream; how it is cut makes no difference, nor whether an
 * iteration takes all of it or one frame. */
static void a_websocket_stream_may_be_cut_anywhere(void)
{
    struct buf stream = {0};

    set_up();
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
    for (size_t i = 0; i < 2 * stream.length && test_good; i++) {
        struct peer *peer = connect_peer();
        size_t cut = i / 2;

        spent_before = i % 2 ? CONN_BUDGET : 0;
        if (cut)
            send_pieces(peer, (struct str){stream.at, cut}, 0);
        send_pieces(peer, (struct str){stream.at + cut, stream.length - cut}, cut == 0);
        CHECK(got_bytes(peer, not_found()) && got_bytes(peer, UPGRADED));
        CHECK(got_id_frame(&peer->far, peer->id) && got_text(&peer->far, "pong"));
        CHECK(got_frame(&peer->far, 10, STR("are you there")) && got_text(&peer->far, "pong"));
        CHECK(got_close(&peer->far, 4000, "") && peer->far.received.length);
        if (!CHECK(ends_politely(peer)))
            printf("  that was cut at %zu\n", cut);
        end_peers();
    }
    buf_free(&stream);
    tear_down();
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
        {{{0x81, "pin"}}, ""},
        {{{0x81, "pingp"}}, ""},
        {{{0x81, "Ping"}}, ""},
        {{{0x81, ""}}, ""},
        {{{0x81, "pin"}, {0x81, "g"}}, ""},
        {{{0x82, "pi"}, {0x81, "ng"}}, ""},
        {{{0x81, "ping"}, {0x81, "ping"}}, "tt"},
        {{{0x81, "pinx"}, {0x82, "ping"}, {0x81, "ping"}}, "t"},
        {{{0x89, "x"}, {0x8a, "x"}, {0x81, "ping"}, {0x89, "x"}}, "ctc"},
        {{{0x81, "id"}}, "i"},
        {{{0x01, "i"}, {0x80, "d"}}, "i"},
        {{{0x01, ""}, {0x00, "i"}, {0x89, "x"}, {0x00, ""}, {0x00, "d"}, {0x80, ""}}, "ci"},
        {{{0x81, "i"}}, ""},
        {{{0x81, "idx"}}, ""},
        {{{0x81, "i"}, {0x81, "d"}}, ""},
        {{{0x81, "id"}, {0x81, "ping"}, {0x81, "id"}, {0x81, "id"}}, "itii"},
    };

    set_up();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct peer *peer = connect_client();
        struct buf bytes = {0};
        const char *expected = rows[i / 2].answers;
        char id[HUB_ID_TEXT + 1];

        for (const struct text_frame *frame = rows[i / 2].frames; frame->payload; frame++)
            append_frame(&bytes, frame->first, str_from(frame->payload));
        send_pieces(peer, str_of(&bytes), i % 2);
        for (; *expected; expected++)
            CHECK(*expected == 't'   ? got_text(&peer->far, "pong")
                  : *expected == 'c' ? got_frame(&peer->far, 10, STR("x"))
                                     : got_id_frame(&peer->far, id) && !strcmp(id, peer->id));
        if (!CHECK(got_nothing(&peer->far) && !peer->session.conn.input))
            printf("  that was row %zu\n", i / 2);
        buf_free(&bytes);
        end_peers();
    }
    tear_down();
}

/* A breach ends the client at once: a close frame with the code, and nothing is read any more. */
static void protocol_errors_close(void)
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
        {STR_INIT("\x82\xfe\x20\x01\0\0\0\0"), 1009, "message too long"},
    };
    struct peer *peer, *witness;

    set_up();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        witness = connect_client();
        peer = connect_client();
        join_group(peer, witness);
        send_pieces(peer, rows[i / 2].bytes, i % 2);
        CHECK(!peer->session.conn.client && saw_leave(witness, peer));
        send_frame(peer, 0x81, STR("ping"));
        CHECK(got_close(&peer->far, rows[i / 2].code, rows[i / 2].reason));
        CHECK(timer_of(peer) == 5000 && ends_politely(peer));
        end_peers();
    }
    CHECK(node_logged("code=1007 reason=\"a text message that is not UTF-8\""));
    tear_down();
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
    struct peer *peer, *witness;

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        witness = connect_client();
        peer = connect_client();
        join_group(peer, witness);
        send_frame(peer, 0x88, rows[i].sent);
        CHECK(saw_leave(witness, peer) && node.hub.channels.clients.count == 1);
        CHECK(got_frame(&peer->far, 8, rows[i].answered) && ends_politely(peer));
        end_peers();
    }
    tear_down();
}

static void close_by_command(const struct peer *peer)
{
    struct command command = {.kind = COMMAND_CLOSE_CLIENT,
                              .system = STR("shop"),
                              .client = quoted(str_from(peer->id)),
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
    struct peer *peer, *witness;

    set_up();
    witness = connect_client();
    peer = connect_client();
    join_group(peer, witness);
    close_by_command(peer);
    CHECK(got_close(&peer->far, 4000, "enough") && got_nothing(&peer->far));
    CHECK(saw_leave(witness, peer) && peer->session.state == SESSION_CLOSING);
    send_frame(peer, 0x81, STR("ping"));
    send_frame(peer, 0x89, STR("x"));
    CHECK(got_nothing(&peer->far) && !peer->far.ended);
    CHECK(peer->session.state == SESSION_CLOSING && timer_of(peer) == 5000);
    send_frame(peer, 0x88, STR("\x0f\xa0"));
    CHECK(ends_politely(peer));
    peer = connect_client(); /* a breach ends the wait as well */
    close_by_command(peer);
    CHECK(got_close(&peer->far, 4000, "enough"));
    send_text(peer, "\x81\x01x");
    CHECK(ends_politely(peer));
    tear_down();
}

static void a_lost_client_leaves_its_group(void)
{
    struct peer *peer, *witness;

    set_up();
    witness = connect_client();
    for (int half = 0; half < 2; half++) {
        peer_count = 1;
        peer = connect_client();
        join_group(peer, witness);
        send_pieces(peer, STR("\x81\xfe"), 0); /* in the middle of a frame */
        shutdown(peer->far.fd, half ? SHUT_WR : SHUT_RDWR);
        run();
        CHECK(peer->session.state == SESSION_DEAD && !peer->session.conn.client);
        CHECK(saw_leave(witness, peer));
        conn_close(&peer->session.conn);
        far_close(&peer->far);
    }
    peer_count = 1;
    tear_down();
}

static void shrink_buffer(struct peer *peer)
{
    int little = 4096;

    CHECK(setsockopt(peer->session.conn.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little) == 0);
}

/* A client that causes more frames than it reads is slow. */
static void a_client_that_reads_no_pongs_is_slow(void)
{
    static const char *const texts[] = {"ping", "id"};

    set_up();
    node.config.send_queue = 1000;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct peer *peer = connect_client();
        struct far_frame frame = {0};
        int sent = 0, answers = 0;

        shrink_buffer(peer);
        for (; sent < 20000 && peer->session.state == SESSION_OPEN; sent++)
            send_frame(peer, 0x81, str_from(texts[i]));
        CHECK(sent < 20000 && !peer->session.conn.client && node.hub.channels.clients.count == 0);
        do
            run();
        while (far_next(&peer->far, &frame) && frame.opcode != 8 && ++answers);
        CHECK(answers > 0 && answers < sent && same(frame.payload, STR("\x03\xf5slow")));
        CHECK(peer->session.state == SESSION_CLOSING && node_logged("reads too slowly"));
        end_peers();
    }
    tear_down();
}

/* --- deadlines ------------------------------------------------------------------------------- */

/* Scripts of what happens to a peer and what must be true of it then, a word each: +N lets N ms
 * pass, ~N passes them and pings early, =N is when its timer is due, sayN sends one of the texts;
 * begin, end, empty, half, h0 to h2 and pong send frames or parts. All other words name a state or
 * what has come. */
static const struct {
    const char *script;
    const char *texts[3]; /* of an HTTP peer; none: a client */
} scripts[] = {
    /* a head, a body and a pause have a time of their own each; single bytes win none */
    {"=10000 +9999 new +1 dead", {""}},
    {"+3000 say0 +3000 say1 +3000 say1 =10000 +999 quiet +1 late-head =15000 say1 +5000 dead",
     {"GET /", "x"}},
    {"+4000 say0 =10000 +5000 say1 =84000 +60000 say2 =84000 +14999 quiet +1 late-body lingers",
     {"POST /api/login HTTP/1.1\r\n", "Host: h\r\nContent-Length: 100\r\n\r\n{", "x"}},
    {"+5000 say0 404 =80000 +70000 say1 =85000 say2 404 +74999 idle +1 dead",
     {GET_NOTHING, "G", &GET_NOTHING[1]}},
    /* a client is pinged after 25 s and ended 10 s later, unless a byte comes */
    {"=25000 +24999 quiet +1 ping +0 quiet =35000 +9999 open +1 no-pong =40000 +5000 dead", {0}},
    {"+25000 ping empty =50000 +25000 ping pong =75000 +25000 ping pong =100000", {0}},
    /* a message has a time of its own, whatever is pinged, and is named as the reason */
    {"+10000 begin +24000 pong +24000 pong +24000 pong =85000 end =107000", {0}},
    {"begin +24000 quiet pong +24000 ping pong +24000 pong +2999 ping open +1 late-message", {0}},
    {"half +24000 half +24000 half +24000 half +24000 half open", {0}},
    {"+25000 ping h0 =50000 +25000 ping h1 =75000 +25000 ping h2 =100000 +24999 open +1 late-message",
     {0}},
    {"begin +75000 late-message", {0}},
    {"+25000 ping begin +25000 ping pong +25000 ping pong ~20000 ping =100000 +5000 late-message",
     {0}},
    /* early pings, from a quarter of the interval on, neither delay the end nor hasten it */
    {"~6249 quiet ~1 ping ~0 quiet =31250", {0}},
    {"~7000 ping =32000 +25000 ping =35000 +3000 no-pong", {0}},
    {"+25000 ping ~7000 ping =35000 +2999 open +1 no-pong", {0}},
    {"~60000 ping =70000 +9999 open +1 no-pong", {0}},
    /* after a standstill of the process a client is asked once more, unless it was asked before */
    {"+80000 ping =90000 +9999 open +1 no-pong", {0}},
    {"+1000 pong +79000 ping =90000 +9999 pong =105000 +1 open", {0}},
    {"+25000 ping pong +60000 ping =95000 +10000 no-pong", {0}},
    {"+25000 ping =35000 +100000 no-pong", {0}},
};

static bool is_in_state(struct peer *peer, const char *word)
{
    static const char *const names[] = {[SESSION_HTTP_NEW] = "new",
                                        [SESSION_HTTP_IDLE] = "idle",
                                        [SESSION_OPEN] = "open",
                                        [SESSION_LINGER] = "lingers",
                                        [SESSION_DEAD] = "dead"};
    const char *name = names[peer->session.state];

    return name && strcmp(name, word) == 0;
}

/* Checks what a word says. */
static bool is_true(struct peer *peer, const char *word)
{
    static const struct {
        const char *word;
        unsigned code;
        const char *text;
    } ends[] = {{"late-head", 408, "the request's head did not come within head_timeout"},
                {"late-body", 408, "the body did not come within idle_timeout"},
                {"late-message", 1008, "the message did not come in time"},
                {"no-pong", 1001, "no pong"}};

    if (word[0] == '=')
        return timer_of(peer) == atol(word + 1);
    if (strcmp(word, "quiet") == 0)
        return got_nothing(&peer->far) && !peer->far.ended;
    if (strcmp(word, "404") == 0)
        return got_all(peer, not_found());
    if (strcmp(word, "ping") == 0)
        return got_frame(&peer->far, 9, STR("wspush")) && got_nothing(&peer->far);
    if (is_in_state(peer, word))
        return true;
    for (size_t i = 0; i < COUNT(ends); i++)
        if (strcmp(word, ends[i].word) == 0)
            return ends[i].code == 408
                       ? got_all(peer, rejection("408 Request Timeout", "Connection: close\r\n",
                                                 ends[i].text))
                       : was_ended(peer, ends[i].code, ends[i].text);
    return false;
}

/* Does or checks one word; false if it is not true. */
static bool play_word(struct peer *peer, const char *word, const char *const texts[])
{
    static const struct {
        const char *word, *text;
        unsigned first;
    } frames[] = {
        {"begin", "begun", 0x01}, {"end", "ended", 0x80}, {"empty", "", 0x82}, {"pong", "", 0x8a}};

    for (size_t i = 0; i < COUNT(frames); i++)
        if (strcmp(word, frames[i].word) == 0) {
            send_frame(peer, frames[i].first, str_from(frames[i].text));
            return true;
        }
    if (word[0] == '+')
        pass(atol(word + 1));
    if (word[0] == '~') {
        context.now += atol(word + 1);
        session_ping_early(&context, &peer->session);
        run();
    }
    if (strncmp(word, "say", 3) == 0)
        send_text(peer, texts[word[3] - '0']);
    if (strcmp(word, "half") == 0) /* the end of a message, unless it is the first, and a new one */
        send_text(peer, peer->session.input.reader.message ? "m\x81\x82mmmmm" : "\x81\x82mmmmm");
    if (word[0] == 'h' && word[1] < 'a') /* the header of a frame of four bytes, byte by byte */
        send_pieces(peer, (struct str){&"\x82\x84\0"[word[1] - '0'], 1}, 0);
    return strchr("+~sh", word[0]) || is_true(peer, word);
}

static void timers_follow_their_scripts(void)
{
    set_up();
    for (size_t i = 0; i < COUNT(scripts); i++) {
        struct peer *peer;
        struct str rest = str_from(scripts[i].script), word;

        context.now = START;
        peer = scripts[i].texts[0] ? connect_peer() : connect_client();
        while ((word = str_entry(&rest)).length) {
            const char *text = textf("%.*s", (int)word.length, word.at);

            if (!CHECK(play_word(peer, text, scripts[i].texts)))
                printf("  that was %s in: %s\n", text, scripts[i].script);
        }
        end_peers();
    }
    tear_down();
}

/* Requests in one write whose responses fill the socket's buffer. */
#define MANY_REQUESTS 2000

static void ask_for_much(struct peer *peer)
{
    struct buf requests = {0};
    int small = 4096;

    setsockopt(peer->session.conn.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    for (int i = 0; i < MANY_REQUESTS; i++)
        buf_append(&requests, STR(GET_NOTHING));
    send_pieces(peer, str_of(&requests), 0);
    buf_free(&requests);
    CHECK(peer->session.conn.queued > 0 && peer->session.conn.queued <= 256 * 1024 + 1000);
    CHECK(peer->session.conn.input && !session_wants_input(&peer->session));
}

/* Reads on until the end, so many milliseconds after each piece; returns how much has come. */
static size_t read_slowly(struct peer *peer, int64_t milliseconds)
{
    size_t all = 0, length = 1;

    while (length > 0) {
        length = far_receive(&peer->far).length;
        peer->far.taken = length;
        all += length;
        pass(milliseconds);
    }
    return all;
}

static void slow_readers_get_all_responses(void)
{
    const char *one = response("404 Not Found", "", NOT_FOUND);
    size_t length = strlen(one);
    struct peer *peer;

    set_up();
    peer = connect_peer();
    ask_for_much(peer);
    CHECK(read_slowly(peer, 60000) == MANY_REQUESTS * length);
    end_peers();

    context.now = START;
    peer = connect_peer();
    ask_for_much(peer);
    shutdown(peer->far.fd, SHUT_WR);
    run();
    CHECK(read_slowly(peer, 4000) == MANY_REQUESTS * length);
    CHECK(peer->far.ended && peer->session.state == SESSION_DEAD);
    tear_down();
}

static void expiring_says_whether_it_pinged(void)
{
    struct peer *peer;

    set_up();
    peer = connect_client();
    CHECK(!session_expire(&context, &peer->session));
    context.now += 25000;
    CHECK(session_expire(&context, &peer->session));
    CHECK(!session_expire(&context, &peer->session));
    context.now += 10000;
    CHECK(!session_expire(&context, &peer->session) && !peer->session.conn.client);
    update(peer);
    run();
    CHECK(got_frame(&peer->far, 9, STR("wspush")) && was_ended(peer, 1001, "no pong"));
    CHECK(!session_expire(&context, &peer->session));
    context.now += 5000;
    CHECK(!session_expire(&context, &peer->session));
    CHECK(peer->session.state == SESSION_DEAD);
    CHECK(session_timer(&context, &peer->session) == INT64_MAX);
    CHECK(!session_expire(&context, &peer->session));
    tear_down();
}

/* --- max_buffered ---------------------------------------------------------------------------- */

static void shed(struct peer *peer)
{
    session_shed(&context, &peer->session);
    update(peer);
    run();
}

/* Shedding sends the reason where a response or a close frame can still be sent. */
static void shedding_tells_why(void)
{
    static const char *const parts[] = {"POST /api/login HTTP/1.1\r\nHost: h\r\nX: ",
                                        "POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: "
                                        "100\r\n\r\n{"};
    struct peer *peer, *witness;

    set_up();
    for (size_t i = 0; i < COUNT(parts); i++) {
        peer = connect_peer();
        send_text(peer, parts[i]);
        CHECK(peer->session.conn.input);
        session_shed(&context, &peer->session);
        CHECK(!peer->session.conn.input); /* at once: the search for the next to end counts it */
        update(peer);
        run();
        CHECK(got_bytes(
            peer, response("503 Service Unavailable", "Retry-After: 5\r\nConnection: close\r\n",
                           "{\"code\":-1007,\"msg\":\"all connections together keep more "
                           "than max_buffered\",\"data\":[]}")));
        CHECK(!peer->session.conn.input && node.shared.buffered == 0 && ends_politely(peer));
        end_peers();
    }
    peer = connect_peer(); /* between two requests there is nothing to tell */
    shed(peer);
    CHECK(sees_end(peer) && peer->session.state == SESSION_DEAD);
    end_peers();
    peer = connect_peer(); /* nor where responses wait: they would have to go first */
    shrink_buffer(peer);
    for (int i = 0; i < 100; i++)
        send_text(peer, GET_NOTHING);
    send_text(peer, "GET /");
    CHECK(is_receiving(&peer->session) && peer->session.conn.queued && node.shared.buffered > 0);
    shed(peer);
    CHECK(peer->session.state == SESSION_DEAD);
    end_peers();
    witness = connect_client();
    peer = connect_client();
    join_group(peer, witness);
    send_pieces(peer, STR("\x81\xfe\xff"), 0);
    CHECK(peer->session.conn.input);
    shed(peer);
    CHECK(was_ended(peer, 1013, "slow") && saw_leave(witness, peer));
    tear_down();
    CHECK(node.shared.buffered == 0);
}

/* --- stopping -------------------------------------------------------------------------------- */

static void stop(struct peer *peer)
{
    context.stopping = true;
    session_stop(&context, &peer->session);
    update(peer);
    run();
}

static void stopping_ends_a_client(void)
{
    struct peer *peer;

    set_up();
    peer = connect_client();
    stop(peer);
    CHECK(got_close(&peer->far, 1001, "going away") && got_nothing(&peer->far));
    CHECK(peer->session.state == SESSION_CLOSING && node.hub.channels.clients.count == 0);
    stop(peer); /* once is enough */
    CHECK(got_nothing(&peer->far));
    send_frame(peer, 0x88, STR("\x03\xe9"));
    CHECK(ends_politely(peer));
    tear_down();
}

static void stopping_closes_idle_connections(void)
{
    struct peer *peer;

    set_up();
    for (int asked = 0; asked < 2; asked++) {
        context.stopping = false;
        peer = connect_peer();
        if (asked)
            send_text(peer, GET_NOTHING);
        far_forget(&peer->far);
        stop(peer);
        CHECK(ends_politely(peer));
        end_peers();
    }
    tear_down();
}

/* A request that has begun is answered, and its response is the last. */
static void stopping_waits_for_responses(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    send_text(peer, "GET /nothing HTTP/1.1\r\n");
    stop(peer);
    CHECK(peer->session.state == SESSION_HTTP_HEAD && !peer->far.ended);
    send_text(peer, "Host: h\r\n\r\n" GET_NOTHING);
    CHECK(got_all(peer, response("404 Not Found", "Connection: close\r\n", NOT_FOUND)));
    CHECK(ends_politely(peer));
    end_peers();

    context.stopping = false;
    peer = connect_peer();
    worker_is_slow = true;
    send_text(peer, post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"));
    stop(peer);
    CHECK(peer->session.state == SESSION_WAIT && !peer->far.ended);
    worker_is_slow = false;
    run();
    CHECK(got_all(peer,
                  response("200 OK", "Connection: close\r\n",
                           "{\"code\":-1005,\"msg\":\"wrong systemId or password\",\"data\":[]}")));
    CHECK(ends_politely(peer));
    tear_down();
}

/* --- between connections --------------------------------------------------------------------- */

static void request_ids_hold_index_and_generation(void)
{
    struct session session = {.index = 5, .generation = 0xfedcba98};

    CHECK(session_request_id(&session) == 0xfedcba9800000005);
}

/* --- pings and silence ----------------------------------------------------------------------- */

#define NO_OBJECT "the body is not valid JSON: a JSON object is expected, at byte 1"

/* What the kernel has of a client or of a request counts, however late this process looks. */
static void received_bytes_count_before_a_timeout(void)
{
    static char body[150000];
    struct peer *peer;
    struct buf bytes = {0};

    set_up();
    peer = connect_client(); /* a pong */
    pass(25000);
    CHECK(got_frame(&peer->far, 9, STR("wspush")));
    append_frame(&bytes, 0x8a, STR("wspush"));
    CHECK(far_send(&peer->far, str_of(&bytes)));
    pass(1000000);
    CHECK(peer->session.state == SESSION_OPEN && peer->session.conn.client);
    CHECK(got_frame(&peer->far, 9, STR("wspush")) && got_nothing(&peer->far));
    CHECK(timer_of(peer) == 1025000 + 25000);
    end_peers();
    buf_free(&bytes);

    peer = connect_client(); /* the end of a message */
    send_frame(peer, 0x01, STR("pi"));
    append_frame(&bytes, 0x80, STR("ng"));
    CHECK(far_send(&peer->far, str_of(&bytes)));
    pass(80000);
    CHECK(got_text(&peer->far, "pong") && got_frame(&peer->far, 9, STR("wspush")));
    CHECK(got_nothing(&peer->far) && peer->session.conn.client);
    end_peers();
    buf_free(&bytes);

    for (int whole = 0; whole < 2; whole++) { /* the rest of a body, which takes several reads */
        memset(body, 'x', sizeof body);
        peer = connect_peer();
        send_text(peer, textf("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\nx",
                              sizeof body + 1));
        CHECK(peer->session.state == SESSION_HTTP_BODY);
        CHECK(far_send(&peer->far, (struct str){body, sizeof body - !whole}));
        pass(80000);
        CHECK(got_all(peer, whole ? rejection("400 Bad Request", "", NO_OBJECT)
                                  : rejection("408 Request Timeout", "Connection: close\r\n",
                                              "the body did not come within idle_timeout")));
        CHECK(whole ? peer->session.state == SESSION_HTTP_IDLE : ends_politely(peer));
        end_peers();
    }
    peer = connect_peer(); /* the first request of a connection */
    CHECK(far_send(&peer->far, STR(GET_NOTHING)));
    pass(80000);
    CHECK(got_all(peer, not_found()) && peer->session.state == SESSION_HTTP_IDLE);
    tear_down();
}

/* --- admission ------------------------------------------------------------------------------- */

static const enum cluster_admission admissions[] = {CLUSTER_ADMITTED, CLUSTER_UNKNOWN,
                                                    CLUSTER_UNREACHABLE, CLUSTER_ASKED};

/* max_clients is that of one system; who is there when it is lowered stays. */
static void a_system_has_max_clients(void)
{
    struct peer *first, *beyond, *other;

    set_up();
    node_register(STR("other"), STR("secret"));
    node.config.max_clients = 1;
    first = connect_client();
    beyond = connect_peer();
    send_text(beyond, upgrade("?systemId=shop", WEBSOCKET VERSION KEY));
    CHECK(got_bytes(beyond, UPGRADED));
    CHECK(got_text(&beyond->far, "{\"code\":-1006,\"msg\":\"too many clients: the system has "
                                 "max_clients\",\"data\":[]}"));
    CHECK(was_ended(beyond, 1013, "too many clients") && context.metrics.refused == 1);
    other = connect_peer();
    send_text(other, upgrade("?systemId=other", WEBSOCKET VERSION KEY));
    CHECK(got_bytes(other, UPGRADED));
    CHECK(got_id_frame(&other->far, other->id) && other->session.conn.client);
    CHECK(first->session.conn.client && got_nothing(&first->far));
    end_peers();
    node.config.max_clients = 2;
    first = connect_client();
    other = connect_client();
    node.config.max_clients = 1;
    run();
    CHECK(first->session.conn.client && other->session.conn.client);
    tear_down();
}

/* A session that has been upgraded, and whose client has not been let in: on a node that is alone
 * nobody waits for that, so the client is taken out again. */
static struct peer *connect_waiting(void)
{
    struct peer *peer = connect_client();

    hub_end_client(&node.hub, peer->session.conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                   STR("test"));
    run();
    CHECK(peer->session.state == SESSION_OPEN && !peer->session.conn.client);
    CHECK(!peer->session.conn.close_queued && got_nothing(&peer->far) &&
          !node.hub.channels.clients.count);
    return peer;
}

static void admit(struct peer *peer, enum cluster_admission admission, const char *system)
{
    session_admit(&context, &peer->session, admission,
                  &(struct ticket_claims){.system = str_from(system)}, "Redis said so");
    update(peer);
    run();
}

static void an_admitted_peer_is_a_client(void)
{
    struct peer *peer, *other;

    set_up();
    peer = connect_waiting();
    /* its frames meanwhile are ignored, but show that it is alive */
    send_frame(peer, 0x81, STR("ping"));
    send_frame(peer, 0x89, STR("are you there"));
    send_frame(peer, 0x01, STR("pi"));
    admit(peer, CLUSTER_ASKED, "shop"); /* a result follows: it goes on waiting */
    CHECK(got_nothing(&peer->far) && peer->session.state == SESSION_OPEN);
    admit(peer, CLUSTER_ADMITTED, "shop");
    CHECK(got_id_frame(&peer->far, peer->id) && got_nothing(&peer->far));
    CHECK(peer->session.state == SESSION_OPEN && peer->session.conn.client);
    CHECK(hub_is_online(&node.hub, STR("shop"), quoted(str_from(peer->id))));
    send_frame(peer, 0x80, STR("")); /* the end of the message that it had begun */
    send_frame(peer, 0x81, STR("ping"));
    send_frame(peer, 0x89, STR("x"));
    CHECK(got_text(&peer->far, "pong") && got_frame(&peer->far, 10, STR("x")));
    CHECK(got_nothing(&peer->far));
    other = connect_client();
    join_group(peer, other);
    send_frame(peer, 0x88, STR("\x03\xe8"));
    CHECK(saw_leave(other, peer) && got_close(&peer->far, 1000, ""));
    tear_down();
}

static void a_peer_not_admitted_is_closed(void)
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_waiting();
        struct far_frame frame = {0};

        admit(peer, rows[i].admission, rows[i].system);
        if (rows[i].text)
            CHECK(got_text(&peer->far, rows[i].text));
        else
            CHECK(far_next(&peer->far, &frame) && frame.opcode == 1 &&
                  contains(frame.payload, "{\"code\":-1007,\"msg\":\"") &&
                  contains(frame.payload, "\",\"data\":[]}"));
        CHECK(got_close(&peer->far, rows[i].code, rows[i].reason) && got_nothing(&peer->far));
        CHECK(peer->session.state == SESSION_CLOSING && !peer->session.conn.client);
        CHECK(node.hub.channels.clients.count == 0 && timer_of(peer) == 5000);
        for (size_t k = 0; k < COUNT(admissions); k++)
            admit(peer, admissions[k], "shop"); /* it has been rejected already */
        CHECK(got_nothing(&peer->far) && node.hub.channels.clients.count == 0);
        send_frame(peer, 0x88, STR("\x03\xf0"));
        if (!CHECK(ends_politely(peer)))
            printf("  that was row %zu\n", i);
        end_peers();
    }
    tear_down();
}

enum place { AT_HTTP, AT_WAIT, AT_OPEN, AT_ENDING, AT_CLOSING, AT_DEAD, PLACES };

/* A session that waits for no admission, in one of the states there are. */
static struct peer *connect_at(enum place place)
{
    struct peer *peer = place == AT_OPEN || place == AT_ENDING || place == AT_CLOSING
                            ? connect_client()
                            : connect_peer();

    if (place == AT_WAIT) {
        worker_is_slow = true;
        send_text(peer, post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}"));
        CHECK(peer->session.state == SESSION_WAIT);
    }
    if (place == AT_ENDING) {
        hub_end_client(&node.hub, peer->session.conn.client, HUB_END_CLOSED, 1000, STR("end"));
        CHECK(peer->session.state == SESSION_OPEN && peer->session.conn.close_queued);
    }
    if (place == AT_CLOSING) {
        hub_end_client(&node.hub, peer->session.conn.client, HUB_END_CLOSED, 1000, STR("end"));
        run();
        CHECK(got_close(&peer->far, 1000, "end") && peer->session.state == SESSION_CLOSING);
    }
    if (place == AT_DEAD) {
        shutdown(peer->far.fd, SHUT_WR);
        run();
        CHECK(peer->session.state == SESSION_DEAD);
    }
    return peer;
}

/* The response to what a session has asked may come when it asks no more: nothing is said. */
static void a_late_admission_is_ignored(void)
{
    set_up();
    for (int place = AT_HTTP; place < PLACES; place++)
        for (size_t i = 0; i < COUNT(admissions); i++) {
            struct peer *peer = connect_at((enum place)place);
            struct session before = peer->session;
            size_t clients = node.hub.channels.clients.count;

            session_admit(&context, &peer->session, admissions[i],
                          &(struct ticket_claims){.system = STR("shop")}, "");
            CHECK(peer->session.state == before.state &&
                  node.hub.channels.clients.count == clients);
            CHECK(peer->session.conn.client == before.conn.client);
            CHECK(peer->session.conn.queued == before.conn.queued);
            CHECK(peer->session.conn.close_queued == before.conn.close_queued);
            CHECK(peer->session.conn.broken == before.conn.broken);
            run();
            if (place == AT_ENDING)
                CHECK(got_close(&peer->far, 1000, "end"));
            if (!CHECK(got_nothing(&peer->far)))
                printf("  that was place %d, admission %zu\n", place, i);
            end_peers();
        }
    tear_down();
}

/* A peer that waits may close, break the protocol or disconnect. */
static void a_waiting_peer_may_close(void)
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

    set_up();
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer = connect_waiting();

        if (rows[i].frame)
            send_pieces(peer, (struct str){rows[i].frame, rows[i].length}, 0);
        else
            shutdown(peer->far.fd, SHUT_WR);
        run();
        CHECK(peer->session.state == rows[i].state);
        admit(peer, CLUSTER_ADMITTED, "shop");
        CHECK(peer->session.state == rows[i].state && node.hub.channels.clients.count == 0);
        end_peers();
    }
    tear_down();
}

/* The server stops while a peer waits: it is not admitted, whatever the result. */
static void stopping_admits_no_client(void)
{
    set_up();
    for (size_t i = 0; i < COUNT(admissions); i++) {
        struct peer *peer = connect_waiting();

        stop(peer);
        admit(peer, admissions[i], "shop");
        if (!CHECK(node.hub.channels.clients.count == 0) ||
            !CHECK(admissions[i] == CLUSTER_ASKED || peer->session.state != SESSION_OPEN))
            printf("  that was admission %zu\n", i);
        context.stopping = false;
        end_peers();
    }
    tear_down();
}

/* A client that waited longer than a ping's interval is closed only for a ping it has not answered.
 */
static void a_long_wait_for_admission_is_pinged_first(void)
{
    struct peer *peer;

    set_up();
    peer = connect_waiting();
    pass(25000);
    admit(peer, CLUSTER_ADMITTED, "shop");
    far_forget(&peer->far);
    for (int i = 0; i < 60 && peer->session.state == SESSION_OPEN; i++) {
        struct far_frame frame = {0};

        pass(1000);
        if (far_next(&peer->far, &frame) && frame.opcode == 9)
            break;
        if (!CHECK(peer->session.state == SESSION_OPEN))
            printf("  given up %d s after it was let in, and never pinged\n", i + 1);
    }
    tear_down();
}

/* --- the admin listener ---------------------------------------------------------------------- */

static struct peer *connect_admin(void)
{
    struct peer *peer = connect_peer();

    peer->session.is_admin = true;
    return peer;
}

static const char *plain(const char *status, const char *fields, const char *body)
{
    return textf(
        "HTTP/1.1 %s\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n%s%sContent-Type: text/plain; "
        "charset=utf-8\r\nContent-Length: %zu\r\n%s\r\n%s",
        status, fields, strstr(fields, "close") ? "" : KEEP_ALIVE, strlen(body), HTTP_UNCACHED,
        body);
}

/* It is HTTP like any other, also in many pieces, but no path of the API, no page and no client. */
static void the_admin_listener_has_its_own_paths(void)
{
    static const char none[] = "this listener has /metrics, /healthz and /readyz\n";
    const char *ok = plain("200 OK", "", "ok\n");
    struct console console;
    struct peer *peer;

    set_up();
    CHECK(console_open(&console));
    context.console = &console;
    peer = connect_admin();
    for (size_t size = 0; size < 8; size += 7) {
        send_pieces(peer,
                    STR("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "GET /readyz?x HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
                        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "GET /ws?systemId=shop HTTP/1.1\r\nHost: [::1]:1\r\n" WEBSOCKET VERSION KEY
                        "\r\n"),
                    size);
        CHECK(got_bytes(peer, ok) && got_bytes(peer, plain("200 OK", "", "ready\n")));
        CHECK(got_bytes(peer, textf("%.*s", (int)(strlen(ok) - 3), ok)));
        CHECK(got_bytes(peer, plain("405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n",
                                    "this listener takes GET\n")));
        CHECK(got_bytes(peer, plain("404 Not Found", "", none)));
        CHECK(got_all(peer, plain("404 Not Found", "", none)));
    }
    send_text(peer, post("/api/login", "", "{\"systemId\":\"shop\",\"password\":\"secret\"}"));
    CHECK(got_all(peer, plain("403 Forbidden", "", "Host must be an address or localhost\n")));
    send_text(peer,
              "POST /api/login HTTP/1.1\r\nHost: 127.0.0.1:7801\r\nContent-Length: 2\r\n\r\n{}");
    CHECK(got_all(peer, plain("405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n",
                              "this listener takes GET\n")));
    CHECK(peer->session.state == SESSION_HTTP_IDLE && node.hub.channels.clients.count == 0);
    for (size_t i = 0; i <= METRICS_HANDSHAKES; i++)
        CHECK(context.metrics.handshakes[i] == 0);
    for (unsigned route = 0; route < API_ROUTES; route++)
        CHECK(context.metrics.calls[route].microseconds == 0);
    send_text(peer, "BAD\r\n\r\n");
    CHECK(contains(far_receive(&peer->far), "HTTP/1.1 400 Bad Request"));
    tear_down();
    console_close(&console);
}

/* A node that is about to stop says so, and serves as before: balancers need time to look
 * elsewhere. While it stops each response is its connection's last. */
static void readyz_shows_draining(void)
{
    struct peer *peer;

    set_up();
    context.leaving = true;
    connect_client();
    peer = connect_peer();
    send_text(peer, GET_NOTHING);
    CHECK(got_all(peer, not_found()));
    peer = connect_admin();
    send_text(peer, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    CHECK(got_all(peer, plain("503 Service Unavailable", "", "not ready: draining\n")));
    context.stopping = true;
    send_text(peer, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    CHECK(got_bytes(
        peer, plain("503 Service Unavailable", "Connection: close\r\n", "not ready: draining\n")));
    CHECK(ends_politely(peer));
    tear_down();
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

/* Every response to a request for /ws is counted by its status, and no other response is. */
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

    set_up();
    strcpy(node.config.allowed_origins, "https://a.example");
    for (size_t i = 0; i < COUNT(rows) + 2; i++) { /* and one too many, and one too late */
        struct peer *peer = connect_peer();
        size_t place = i < COUNT(rows) ? rows[i].place : 5 + i - COUNT(rows);

        peer->session.over_limit = place == 5;
        context.stopping = place == 6;
        send_text(peer, i < COUNT(rows) ? rows[i].request : GET_SHOP);
        if (place <= METRICS_HANDSHAKES)
            expected[place]++;
        if (!CHECK(memcmp(context.metrics.handshakes, expected, sizeof expected) == 0))
            printf("  that was row %zu\n", i);
        CHECK(session_is_websocket(&peer->session) == (place == 0));
        end_peers();
    }
    tear_down();
}

/* Messages count once, however many frames and pieces they have; control frames do not. */
static void messages_from_clients_are_counted(void)
{
    struct peer *peer;

    set_up();
    peer = connect_client();
    send_frame(peer, 0x81, STR("one"));
    CHECK(context.metrics.received_messages == 1);
    send_frame(peer, 0x01, STR("tw"));
    send_frame(peer, 0x89, STR("a ping between"));
    CHECK(context.metrics.received_messages == 1);
    send_frame(peer, 0x80, STR("o"));
    CHECK(context.metrics.received_messages == 2);
    send_pieces(peer, STR("\x82\x83\0\0\0\0abc"), 1);
    CHECK(context.metrics.received_messages == 3);
    send_frame(peer, 0x81, STR("ping"));
    CHECK(context.metrics.received_messages == 4);
    send_frame(peer, 0x88, STR("\x03\xe8"));
    CHECK(context.metrics.received_messages == 4);
    tear_down();
}

/* Who registers and who fails to log in is in the log, with escaped names and without passwords; a
 * flood of failures is counted there. */
static void accounts_are_logged(void)
{
    struct peer *peer;
    struct account_result failed = {.kind = ACCOUNT_LOGIN,
                                    .outcome = ACCOUNT_DENIED,
                                    .name_length = 4,
                                    .name = "a\x1b\"b",
                                    .address = {[10] = 255, [11] = 255, 10, 0, 0, 7}};

    set_up();
    peer = connect_peer();
    send_text(peer, post("/api/register", "", "{\"systemId\":\"new\",\"password\":\"hunter2\"}"));
    run();
    send_text(peer, post("/api/register", "", "{\"systemId\":\"new\",\"password\":\"hunter2\"}"));
    run();
    send_text(peer, post("/api/login", "", "{\"systemId\":\"new\",\"password\":\"hunter2\"}"));
    run();
    CHECK(node_logged("info system registered system=\"new\" remote="));
    CHECK(!strstr(logged(), "hunter"));
    send_text(peer, post("/api/login", "", "{\"systemId\":\"new\",\"password\":\"hunter3\"}"));
    run();
    CHECK(node_logged("info login failed system=\"new\" remote=") && !strstr(logged(), "hunter"));
    session_log_account(&context, &failed);
    CHECK(node_logged("info login failed system=\"a\\x1b\\\"b\" remote=\"10.0.0.7\"\n"));
    for (int i = 0; i < 1000; i++)
        session_log_account(&context, &failed);
    context.now += 10000;
    CHECK(!strstr(logged(), "untold"));
    session_log_account(&context, &failed);
    CHECK(node_logged("remote=\"10.0.0.7\" untold=1000\n"));
    tear_down();
}

/* Calls are counted and logged with their responses, late ones too, and nothing else is. */
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
    struct peer *peer;

    set_up();
    node.log.level = LOG_DEBUG;
    context.failed_logins.most = 0;
    peer = connect_peer();
    memcpy(peer->session.conn.address, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
    logged();
    for (size_t i = 0; i < COUNT(lines); i++) {
        const char *got, *rest;

        send_text(peer, i == 0   ? GET_NOTHING
                        : i == 1 ? post("/api/get_online_list", "", "{\"groupName\":\"g\"}")
                        : i == 2 ? post("/api/login", "", "{\"systemId\":\"a\",\"password\":\"b\"}")
                                 : "GET /no%22 HTTP/1.1\r\nHost: h\r\n\r\n");
        far_forget(&peer->far);
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
    send_text(peer, GET_SHOP);
    CHECK(is_logged(""));
    node.log.level = LOG_INFO;
    peer = connect_peer();
    send_text(peer, GET_NOTHING);
    CHECK(is_logged("") && context.metrics.calls[API_ROUTES - 1].codes[1] == 3);
    peer->session.over_limit = true; /* its response comes before it is a call */
    send_text(peer, GET_NOTHING);
    CHECK(context.metrics.calls[API_ROUTES - 1].codes[METRICS_CODES - 2] == 0);
    tear_down();
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

static void bring_about(struct peer *peer, enum ending ending)
{
    switch (ending) {
    case CLOSE_FRAME:
        send_frame(peer, 0x88, STR("\x03\xe8"));
        break;
    case TIME_OUT:
        pass(10000);
        break;
    case IDLE:
        pass(3000);
        send_text(peer, "GET /ws HTTP/1.1\r\nHost: h\r\n\r\n"); /* which is no call */
        pass(75000);
        break;
    case REFUSED:
        send_text(peer, "GET\r\n\r\n");
        pass(5000);
        break;
    case NO_CLOSE:
        close_by_command(peer);
        pass(5000);
        return;
    case NO_PONG:
        pass(25000);
        pass(10000);
        pass(5000);
        return;
    case BREAK_OFF:
        send_text(peer, "GET /part");
        break;
    case ADMIN_HANGS_UP:
        peer->session.is_admin = true;
        break;
    case HANG_UP:
        break;
    }
    shutdown(peer->far.fd, SHUT_RDWR);
    run();
}

/* A text with the peer's id in the place of "ID". */
static const char *with_id(const char *text, const struct peer *peer)
{
    const char *at = strstr(text, "ID");

    return at ? textf("%.*s%s%s", (int)(at - text), text, peer->id, at + 2) : text;
}

/* One line at info for the end of a client, and for a connection that ends within a request; one at
 * debug for what is usual. */
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

    set_up();
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        struct peer *peer = rows[i / 2].client ? connect_client() : connect_peer();
        enum ending ending = rows[i / 2].ending;
        bool first = ending == CLOSE_FRAME || ending == NO_CLOSE || ending == NO_PONG;
        const char *debug = i % 2 ? rows[i / 2].debug : "", *info;

        node.log.level = i % 2 ? LOG_DEBUG : LOG_INFO;
        logged();
        info = with_id(rows[i / 2].info, peer);
        bring_about(peer, ending);
        /* a client that was closed has left before its connection ends; one that is lost, with it
         */
        CHECK(is_logged(textf("%s%s", first ? info : debug, first ? debug : info)));
        context.now = START;
        end_peers();
    }
    tear_down();
}

/* A rejected client has a line. */
static void an_unknown_system_is_logged(void)
{
    struct peer *peer;

    set_up();
    peer = connect_peer();
    logged();
    send_text(peer, upgrade("?systemId=nobody", WEBSOCKET VERSION KEY));
    CHECK(is_logged("info client rejected remote=\"::\" code=1008 reason=\"systemId is not "
                    "registered\"\n"));
    end_peers();
    CHECK(is_logged(""));
    tear_down();
}

/* Sessions may be many: each byte counts. */
static void a_session_is_small(void)
{
#ifdef __x86_64__
    CHECK(sizeof(struct session) == 152);
#endif
    CHECK(sizeof(struct session) <= 152);
}

/* --- tickets --------------------------------------------------------------------------------- */

static const char *ticket_with(const struct ticket_claims *claims, int64_t expires)
{
    uint64_t version = 0;
    int64_t since;
    struct buf text = {0};
    const char *ticket;

    CHECK(__real_account_ticket_version(node.accounts, claims->system, &version, &since) ==
          ACCOUNT_TOKEN_VALID);
    CHECK(ticket_write(&text, &node.keys.keys[0], version, claims, expires));
    ticket = textf("%.*s", (int)text.length, text.at);
    buf_free(&text);
    return ticket;
}

/* A ticket of u1, in the group g. */
static const char *good_ticket(int64_t end)
{
    return ticket_with(&(struct ticket_claims){.system = STR("shop"),
                                               .user = STR("u1"),
                                               .extend = STR("e"),
                                               .groups = STR("[\"g\"]"),
                                               .end = end},
                       UNIX_NOW + 60);
}

/* A peer asks to be a client, in pieces of this size. */
static struct peer *knock(const char *query, const char *headers, size_t size)
{
    struct peer *peer = connect_peer();

    send_pieces(peer, str_from(upgrade(query, textf("%s" WEBSOCKET VERSION KEY, headers))), size);
    return peer;
}

/* True if a peer has become u1, in the group g. */
static bool is_u1(struct peer *peer)
{
    struct far_frame frame = {0};
    const struct client *client;

    if (!got_bytes(peer, UPGRADED) || !far_next(&peer->far, &frame) ||
        !contains(frame.payload, "\",\"userId\":\"u1\"}}") || !peer->session.conn.client)
        return false;
    client = peer->session.conn.client;
    memcpy(peer->id, client->id, HUB_ID_LENGTH);
    peer->id[HUB_ID_LENGTH] = '\0';
    return got_text(&peer->far,
                    textf("{\"code\":1001,\"msg\":\"client online\",\"data\":{\"clientId\":\"%s\","
                          "\"userId\":\"u1\",\"extend\":\"e\",\"groupName\":\"g\"}}",
                          peer->id)) &&
           got_nothing(&peer->far) && client->subscription_count == 3 &&
           str_equal(channel_user(client), STR("u1"));
}

static bool is_refused(struct peer *peer, const char *result)
{
    return got_bytes(peer, UPGRADED) &&
           got_text(&peer->far,
                    textf("{\"code\":-1002,\"msg\":\"ticket %s\",\"data\":[]}", result)) &&
           was_ended(peer, 4401, textf("ticket %s", result));
}

static void a_ticket_makes_a_client_what_it_says(void)
{
    set_up();
    for (int mode = CONNECT_OPEN; mode <= CONNECT_TICKET; mode++) {
        node.config.connect = (enum config_connect)mode;
        CHECK(is_u1(knock(textf("?systemId=shop&ticket=%s", good_ticket(0)), "", 0)));
        end_peers();
        CHECK(is_u1(knock("?systemId=shop", textf("ticket: %s\r\n", good_ticket(0)), 100)));
        end_peers();
    }
    CHECK(context.metrics.tickets[TICKET_OK] == 4);
    tear_down();
}

static void a_bad_ticket_is_refused(void)
{
    const char *good, *old, *other;

    set_up();
    node_register(STR("other"), STR("secret"));
    for (int mode = CONNECT_OPEN; mode <= CONNECT_TICKET; mode++) {
        node.config.connect = (enum config_connect)mode;
        good = good_ticket(0);
        old = ticket_with(&(struct ticket_claims){.system = STR("shop")}, UNIX_NOW - 5);
        other = ticket_with(&(struct ticket_claims){.system = STR("other")}, UNIX_NOW + 60);
        CHECK(is_refused(knock("?systemId=shop&ticket=", "", 0), "malformed"));
        CHECK(is_refused(knock("?systemId=shop&ticket=a.%4", "", 0), "malformed"));
        end_peers();
        CHECK(is_refused(knock("?systemId=shop", "Ticket:\r\n", 0), "malformed"));
        CHECK(is_refused(
            knock(textf("?ticket=%s&systemId=shop", good), textf("Ticket: %s\r\n", good), 0),
            "malformed"));
        CHECK(is_refused(
            knock("?systemId=shop", textf("Ticket: %s\r\nTicket: %s\r\n", good, good), 0),
            "malformed"));
        end_peers();
        CHECK(is_refused(knock(textf("?systemId=shop&ticket=%sA", good), "", 0), "forged"));
        CHECK(is_refused(knock(textf("?systemId=shop&ticket=%s", other), "", 0), "forged"));
        CHECK(is_refused(knock(textf("?systemId=shop&ticket=%s", old), "", 0), "expired"));
        end_peers();
    }
    CHECK(is_refused(knock("?systemId=shop", "", 0), "missing"));
    CHECK(context.metrics.tickets[TICKET_MALFORMED] == 10);
    CHECK(context.metrics.tickets[TICKET_FORGED] == 4);
    CHECK(context.metrics.tickets[TICKET_EXPIRED] == 2);
    CHECK(context.metrics.tickets[TICKET_MISSING] == 1);
    end_peers();
    CHECK(node.hub.channels.clients.count == 0);
    tear_down();
}

/* More than max_groups is no ticket's fault, and another one does not help. */
static void a_ticket_keeps_to_max_groups(void)
{
    const struct ticket_claims two = {.system = STR("shop"), .groups = STR("[\"g\",\"h\"]")};
    struct peer *peer;

    set_up();
    node.config.max_groups = 1;
    CHECK(is_u1(knock(textf("?systemId=shop&ticket=%s", good_ticket(0)), "", 0)));
    peer = knock(textf("?systemId=shop&ticket=%s", ticket_with(&two, UNIX_NOW + 60)), "", 0);
    CHECK(got_bytes(peer, UPGRADED));
    CHECK(got_text(&peer->far,
                   "{\"code\":-1006,\"msg\":\"too many groups: the ticket has more than "
                   "max_groups\",\"data\":[]}"));
    CHECK(was_ended(peer, 1013, "too many groups"));
    tear_down();
}

/* The request waits, unused, and is taken again once the account is known. */
static void a_ticket_waits_for_its_account(void)
{
    struct peer *peer;

    set_up();
    for (size_t size = 0; size < 200; size += 70) {
        unknown_versions = 1;
        worker_is_slow = true;
        peer = knock(textf("?systemId=shop&ticket=%s", good_ticket(0)), "", size);
        CHECK(got_nothing(&peer->far) && peer->session.state == SESSION_WAIT);
        pass(60000);
        CHECK(got_nothing(&peer->far) && peer->session.state == SESSION_WAIT);
        worker_is_slow = false;
        run();
        CHECK(is_u1(peer) && !unknown_versions);
        end_peers();
    }
    /* the store does not answer */
    unknown_versions = 2;
    peer = knock(textf("?systemId=shop&ticket=%s", good_ticket(0)), "", 0);
    CHECK(got_bytes(peer, UPGRADED));
    CHECK(got_text(&peer->far,
                   "{\"code\":-1007,\"msg\":\"the ticket cannot be checked now\",\"data\":[]}"));
    CHECK(was_ended(peer, 1013, "try again later") && !unknown_versions);
    tear_down();
}

#define LOOK_UP_FAILED                                                                             \
    "{\"code\":-1007,\"msg\":\"the system's account cannot be looked up now\",\"data\":[]}"

static void a_call_for_a_ticket_waits_for_the_account(void)
{
    const char *chunked;
    struct peer *peer;

    for (int variant = 0; variant < 4; variant++) {
        set_up();
        node.config.api_rate = 1; /* it is one call */
        peer = connect_peer();
        unknown_versions = 1;
        chunked = textf("POST /api/ticket HTTP/1.1\r\nHost: h\r\n%sTransfer-Encoding: "
                        "chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
                        token_line());
        send_pieces(peer,
                    str_from(textf("%s" GET_NOTHING,
                                   variant & 1 ? chunked : post("/api/ticket", "", "{}"))),
                    variant & 2 ? 11 : 0);
        CHECK(contains(far_receive(&peer->far),
                       "{\"code\":0,\"msg\":\"success\",\"data\":{\"ticket"));
        CHECK(contains(far_receive(&peer->far), NOT_FOUND) && !unknown_versions);
        CHECK(peer->session.state == SESSION_HTTP_IDLE && !peer->session.looked_up);
        tear_down();
    }
    set_up();
    peer = connect_peer();
    unknown_versions = 2;
    send_text(peer, post("/api/ticket", "", "{}"));
    CHECK(got_all(peer, response("503 Service Unavailable", "Retry-After: 1\r\n", LOOK_UP_FAILED)));
    tear_down();
}

/* Wherever its bytes are cut, and between other frames. */
static void a_ticket_can_be_renewed(void)
{
    struct buf bytes = {0};
    struct peer *peer;

    set_up();
    append_frame(&bytes, 0x81, STR("ping"));
    append_frame(&bytes, 0x81, str_from(textf("ticket %s", good_ticket(UNIX_NOW + 900))));
    append_frame(&bytes, 0x81, STR("ping"));
    for (size_t size = 0; size < bytes.length; size = 2 * size + 1) {
        peer = knock(textf("?systemId=shop&ticket=%s", good_ticket(UNIX_NOW + 10)), "", 0);
        CHECK(is_u1(peer) && timer_of(peer) == 10000);
        send_pieces(peer, str_of(&bytes), size);
        CHECK(got_text(&peer->far, "pong") && got_text(&peer->far, "pong"));
        CHECK(got_nothing(&peer->far));
        CHECK(channel_end(peer->session.conn.client) == UNIX_NOW + 900);
        end_peers();
    }
    buf_free(&bytes);
    tear_down();
}

static void a_bad_renewal_changes_nothing(void)
{
    const struct ticket_claims other = {.system = STR("shop"), .user = STR("u2")};
    const char *texts[5];
    static const char *const answers[] = {"forged", "forged", "malformed", "malformed", "expired"};
    struct peer *peer, *plain;

    set_up();
    texts[0] = textf("%sA", good_ticket(UNIX_NOW + 900));
    texts[1] = ticket_with(&other, UNIX_NOW + 60);
    texts[2] = textf("%4097s", "x");
    texts[3] = "";
    texts[4] = good_ticket(UNIX_NOW - 1);
    peer = knock(textf("?systemId=shop&ticket=%s", good_ticket(UNIX_NOW + 10)), "", 0);
    CHECK(is_u1(peer));
    for (size_t i = 0; i < COUNT(texts); i++) {
        send_frame(peer, 0x81, str_from(textf("ticket %.4090s", texts[i])));
        CHECK(got_text(&peer->far,
                       textf("{\"code\":-1002,\"msg\":\"ticket %s\",\"data\":[]}", answers[i])));
    }
    /* in one frame, whatever its length; what is no ticket is ignored */
    send_frame(peer, 0x01, STR("ticket "));
    send_frame(peer, 0x80, str_from(good_ticket(UNIX_NOW + 900)));
    CHECK(got_text(&peer->far, "{\"code\":-1002,\"msg\":\"ticket malformed\",\"data\":[]}"));
    send_frame(peer, 0x81, STR("ticket"));
    send_frame(peer, 0x81, STR("tickets x"));
    send_frame(peer, 0x82, str_from(textf("ticket %s", good_ticket(UNIX_NOW + 900))));
    unknown_versions = 1;
    send_frame(peer, 0x81, str_from(textf("ticket %s", good_ticket(UNIX_NOW + 900))));
    unknown_versions = 0;
    CHECK(channel_end(peer->session.conn.client) == UNIX_NOW + 10);
    plain = connect_client(); /* who came without has none to renew */
    send_frame(plain, 0x81, str_from(textf("ticket %s", good_ticket(UNIX_NOW + 900))));
    CHECK(got_nothing(&plain->far) && plain->session.conn.client);
    tear_down();
}

static void a_client_ends_when_its_ticket_says(void)
{
    struct peer *peer, *renewed;

    set_up();
    peer = knock(textf("?systemId=shop&ticket=%s", good_ticket(UNIX_NOW + 10)), "", 0);
    renewed = knock(textf("?systemId=shop&ticket=%s", good_ticket(UNIX_NOW + 10)), "", 0);
    far_receive(&peer->far);
    far_receive(&renewed->far);
    CHECK(timer_of(peer) == 10000);
    context.unix_now += 9;
    pass(9999);
    CHECK(peer->session.conn.client && renewed->session.conn.client);
    /* a ticket that is here already counts, though this process stood still */
    context.unix_now++;
    {
        struct buf bytes = {0};

        append_frame(&bytes, 0x81, str_from(textf("ticket %s", good_ticket(UNIX_NOW + 30))));
        CHECK(far_send(&renewed->far, str_of(&bytes)));
        buf_free(&bytes);
    }
    pass(1);
    CHECK(!peer->session.conn.client && peer->session.state == SESSION_CLOSING);
    CHECK(contains(far_receive(&peer->far), "session over"));
    CHECK(renewed->session.conn.client && timer_of(renewed) == 25000); /* a ping is next */
    tear_down();
}

/* --- clients that come back ------------------------------------------------------------------ */

static char first[700]; /* the first frame that came last */

/* A peer asks to be a client, and reads its first frame; "" if there is none. */
static const char *come(struct peer *peer, const char *query)
{
    struct far_frame frame = {0};
    struct str id;

    send_text(peer, upgrade(query, WEBSOCKET VERSION KEY));
    CHECK(got_bytes(peer, UPGRADED));
    first[0] = '\0';
    if (far_next(&peer->far, &frame))
        snprintf(first, sizeof first, "%.*s", (int)frame.payload.length, frame.payload.at);
    id = value_of(str_from(first), "clientId");
    if (id.length == HUB_ID_LENGTH)
        memcpy(peer->id, id.at, id.length), peer->id[id.length] = '\0';
    return first;
}

static struct peer *come_new(const char *more)
{
    struct peer *peer = connect_peer();

    come(peer, textf("?systemId=shop&resume=%s", more));
    CHECK(peer->session.conn.client && value_of(str_from(first), "resume").length == 27);
    return peer;
}

/* The key of the first frame that came last. */
static const char *last_key(void)
{
    struct str key = value_of(str_from(first), "resume");

    return textf("%.*s", (int)key.length, key.length ? key.at : "");
}

/* Ends a peer's connection as it is, without a close frame, and makes another. */
static void connect_once_more(struct peer *peer)
{
    shutdown(peer->far.fd, SHUT_RDWR);
    run();
    CHECK(peer->session.state == SESSION_DEAD && !peer->session.conn.client);
    conn_close(&peer->session.conn);
    far_close(&peer->far);
    session_open(&peer->session, far_open(&peer->far), &node.shared, context.now);
    peer->session.index = (uint32_t)(peer - peers) + 1;
    run();
}

static const char *return_with(struct peer *peer, const char *key, const char *more)
{
    return come(peer, textf("?systemId=shop&resume=%s%s", key, more));
}

static void push_to(const struct peer *peer, const char *data)
{
    struct result outcome = {0};

    hub_apply(&node.hub,
              &(struct command){.kind = COMMAND_SEND_TO_CLIENT,
                                .system = STR("shop"),
                                .client = quoted(str_from(peer->id)),
                                .msg = STR("\"\""),
                                .data = str_from(data)},
              &outcome);
    CHECK(outcome.code == RESULT_SUCCESS);
    run();
}

static bool got_push(struct peer *peer, const char *data)
{
    return got_text(&peer->far, textf("{\"code\":0,\"msg\":\"\",\"data\":%s}", data));
}

/* True if the first frame that came last ends so, behind the id, the key and linger. */
static bool says(const char *end)
{
    return same(
        str_from(first),
        str_from(textf("{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"%.*s\","
                       "\"resume\":\"%s\",\"linger\":60%s}}",
                       HUB_ID_LENGTH, strstr(first, "Id\":\"") ? strstr(first, "Id\":\"") + 5 : "",
                       last_key(), end)));
}

static size_t away(void)
{
    return node.hub.channels.resumes.away;
}

static uint64_t sent_to(const struct peer *peer)
{
    return channel_resume(peer->session.conn.client)->sent;
}

/* What was sent while it was away is there, in order, behind the first frame. */
static void a_client_comes_back(void)
{
    struct peer *peer, *witness;
    const char *key;

    set_up();
    witness = connect_client();
    peer = come_new("");
    CHECK(says(""));
    key = last_key();
    join_group(peer, witness); /* two notices */
    push_to(peer, "1");
    CHECK(got_push(peer, "1"));
    connect_once_more(peer);
    CHECK(away() == 1 && got_nothing(&witness->far));
    push_to(peer, "2");
    push_to(peer, "3");
    return_with(peer, key, "&received=3");
    CHECK(says(",\"resumed\":true,\"recovered\":true,\"replay\":2") && away() == 0);
    CHECK(strcmp(key, last_key()) != 0);
    CHECK(got_push(peer, "2") && got_push(peer, "3") && got_nothing(&peer->far));
    push_to(peer, "4");
    CHECK(got_push(peer, "4") && got_nothing(&witness->far));
    CHECK(context.hub->counts.closes[5] == 1); /* 1006 */
    tear_down();
}

/* Counted is all that comes as text but the first frame and "pong". */
static void texts_are_counted(void)
{
    struct peer *peer;

    set_up();
    peer = come_new(textf("&ticket=%s", good_ticket(0)));
    CHECK(sent_to(peer) == 1); /* 1001 of its group */
    send_frame(peer, 0x81, STR("ping"));
    send_frame(peer, 0x89, STR("x"));
    CHECK(sent_to(peer) == 1);
    send_frame(peer, 0x81, STR("id"));
    CHECK(sent_to(peer) == 2);
    send_frame(peer, 0x81, STR("ticket x"));
    CHECK(sent_to(peer) == 3);
    push_to(peer, "1");
    CHECK(sent_to(peer) == 4);
    pass(25000); /* a ping */
    CHECK(sent_to(peer) == 4 && channel_resume(peer->session.conn.client)->kept == 4);
    tear_down();
}

/* A number that it cannot have received, or that is none, is answered like 0. */
static void what_was_received_is_checked(void)
{
    static const struct {
        const char *received;
        unsigned replay;
        bool recovered;
    } rows[] = {{"&received=3", 0, true},
                {"&received=2", 1, true},
                {"&received=000000000000000003", 0, true},
                {"", 3, false},
                {"&received=", 3, false},
                {"&received=4", 3, false},
                {"&received=-1", 3, false},
                {"&received=%2B1", 3, false},
                {"&received=1x", 3, false},
                {"&received=18446744073709551615", 3, false},
                {"&received=18446744073709551616", 3, false},
                {"&received=99999999999999999999999999999999999999", 3, false}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct peer *peer;
        const char *key;

        set_up();
        peer = come_new("");
        key = last_key();
        for (int k = 0; k < 3; k++)
            push_to(peer, "0");
        connect_once_more(peer);
        return_with(peer, key, rows[i].received);
        CHECK(says(textf(",\"resumed\":true,\"recovered\":%s,\"%s\":%u",
                         rows[i].recovered ? "true" : "false",
                         rows[i].recovered ? "replay" : "missed", rows[i].replay)));
        CHECK(sent_to(peer) == (rows[i].recovered ? 3 : 0));
        CHECK(channel_resume(peer->session.conn.client)->kept ==
              (rows[i].recovered ? rows[i].replay : 0));
        tear_down();
    }
}

static void a_key_that_is_not_good_makes_another_client(void)
{
    struct peer *peer, *other;
    char key[64], odd[64];

    set_up();
    node_register(STR("other"), STR("secret"));
    peer = come_new("");
    snprintf(key, sizeof key, "%s", last_key());
    other = connect_peer();
    for (size_t i = 0; i < strlen(key) + 3; i++) {
        snprintf(odd, sizeof odd, "%s", key);
        if (i < strlen(key))
            odd[i] = odd[i] == '1' ? '0' : '1';
        else
            snprintf(odd, sizeof odd, "%s", i % 3 ? i % 2 ? "x" : "%00" : key + 1);
        return_with(other, odd, "&received=0");
        CHECK(says(",\"resumed\":false") && strncmp(first + 47, key, HUB_ID_LENGTH) != 0);
        send_frame(other, 0x88, STR("\x03\xe8"));
        connect_once_more(other);
    }
    come(other, textf("?systemId=other&resume=%s&received=0", key));
    CHECK(says(",\"resumed\":false"));
    send_frame(other, 0x88, STR("\x03\xe8"));
    connect_once_more(other);
    memset(odd, 'a', sizeof odd - 1);
    come(other, textf("?systemId=shop&resume=%.60s%.60s%.60s%.60s%.60s%.60s", odd, odd, odd, odd,
                      odd, odd));
    CHECK(says(",\"resumed\":false"));
    CHECK(peer->session.conn.client && away() == 0);
    tear_down();
}

/* The connection for which it was fetched may be lost meanwhile. */
static void a_client_from_another_node_is_announced_if_nobody_waits_for_it(void)
{
    struct cluster_result result = {.admission = CLUSTER_ADOPTED};
    struct client *client;
    struct buf key = {0};

    set_up();
    result.claims = (struct ticket_claims){.system = STR("shop"), .resume = CLAIMS_RESUME};
    client = hub_resume_hold(&node.hub, &result.claims);
    CHECK(client && channel_resume(client)->is_held);
    CHECK(resume_write_key(channel_resume(client), STR("0123456789abcdef"), &key));
    result.client = client->number;
    result.claims.key = str_of(&key);
    session_adopt(&context, NULL, &result);
    CHECK(!channel_resume(client)->is_held && away() == 1);
    CHECK(node.hub.channels.resumes.moved == 1);
    session_adopt(&context, NULL, &result);
    CHECK(node.hub.channels.resumes.moved == 1);
    buf_free(&key);
    tear_down();
}

static void acks_are_checked(void)
{
    static const char *const ignored[] = {
        "ack", "ack ", "ack x", "ack -1", "ack 1 ", "ack  1", "ack 18446744073709551616"};
    struct peer *peer, *plain;

    set_up();
    peer = come_new("");
    for (int k = 0; k < 3; k++)
        push_to(peer, "0");
    far_forget(&peer->far);
    for (size_t i = 0; i < COUNT(ignored); i++)
        send_frame(peer, 0x81, str_from(ignored[i]));
    CHECK(channel_resume(peer->session.conn.client)->kept == 3);
    send_frame(peer, 0x01, STR("ack 1"));
    send_frame(peer, 0x80, STR("0"));
    CHECK(channel_resume(peer->session.conn.client)->kept == 3);
    send_frame(peer, 0x81, STR("ack 2"));
    send_frame(peer, 0x81, STR("ack 1"));
    CHECK(channel_resume(peer->session.conn.client)->kept == 1 && got_nothing(&peer->far));
    send_frame(peer, 0x81, STR("ack 4"));
    CHECK(was_ended(peer, 1008, "ack of messages that were not sent") && away() == 0);
    plain = connect_client();
    send_frame(plain, 0x81, STR("ack 4"));
    CHECK(plain->session.conn.client && got_nothing(&plain->far));
    tear_down();
}

/* Three hundred returns of one client, half of which have no message in between. */
static void a_client_comes_back_often(void)
{
    struct peer *peer;
    unsigned received = 0;
    char key[64];

    set_up();
    peer = come_new("");
    for (int i = 0; i < 300 && test_good; i++) {
        snprintf(key, sizeof key, "%s", last_key());
        connect_once_more(peer);
        for (int k = 0; k < i % 4 - 1; k++)
            push_to(peer, textf("%d", i + k));
        return_with(peer, key, textf("&received=%u", received));
        CHECK(says(textf(",\"resumed\":true,\"recovered\":true,\"replay\":%d",
                         i % 4 > 1 ? i % 4 - 1 : 0)));
        for (int k = 0; k < i % 4 - 1; k++, received++)
            CHECK(got_push(peer, textf("%d", i + k)));
        CHECK(got_nothing(&peer->far));
        if (i % 7 == 0)
            send_frame(peer, 0x81, str_from(textf("ack %u", received)));
    }
    CHECK(node.hub.channels.resumes.results[RESUME_RECOVERED] == 300);
    CHECK(node.hub.channels.clients.count == 1);
    tear_down();
}

/* How many of the frames at the front of `bytes` are texts. */
static unsigned count_texts(struct str bytes)
{
    struct far_frame frame;
    size_t length;
    unsigned count = 0;

    while ((length = read_far_frame(bytes, &frame))) {
        count += frame.opcode == WS_TEXT;
        bytes = str_skip(bytes, length);
    }
    return count;
}

/* The line breaks behind each byte of what a client is sent: its first frame, pushes, a pong, and
 * the same again when it comes back. */
static void a_connection_may_break_anywhere(void)
{
    size_t end = 1;

    for (size_t n = 0; n < end && test_good; n++) {
        struct peer *peer;
        unsigned seen = 0, received = 0;
        char key[64];

        set_up();
        peer = come_new("");
        snprintf(key, sizeof key, "%s", last_key());
        for (int k = 0; k < 4; k++)
            push_to(peer, textf("%d", k));
        end = far_receive(&peer->far).length; /* behind the first frame, which it has got */
        seen = count_texts((struct str){peer->far.received.at, n});
        connect_once_more(peer);
        push_to(peer, "4");
        send_text(peer, upgrade(textf("?systemId=shop&resume=%s&received=%u", key, seen),
                                WEBSOCKET VERSION KEY));
        received = count_texts(str_skip(far_receive(&peer->far), sizeof UPGRADED - 1));
        CHECK(received == 1 + 5 - seen);
        connect_once_more(peer); /* all of that is lost: the key before is still good */
        return_with(peer, key, textf("&received=%u", seen));
        CHECK(says(textf(",\"resumed\":true,\"recovered\":true,\"replay\":%u", 5 - seen)));
        for (; seen < 5; seen++)
            CHECK(got_push(peer, textf("%u", seen)));
        CHECK(got_nothing(&peer->far));
        tear_down();
    }
}

/* What is sent to one that is away is held, or, once that is too much, fails. */
static void sends_to_one_away_say_so(void)
{
    struct peer *peer;

    set_up();
    node.config.resume_frames = 2;
    peer = come_new("");
    connect_once_more(peer);
    for (int k = 0; k < 4; k++) {
        struct result outcome = {0};
        struct command command = {.kind = COMMAND_SEND_TO_CLIENT,
                                  .system = STR("shop"),
                                  .client = quoted(str_from(peer->id)),
                                  .msg = STR("\"\""),
                                  .data = STR("1")};

        hub_apply(&node.hub, &command, &outcome);
        CHECK(outcome.matched == 1 && outcome.queued == (k < 2) && outcome.held == (k < 2) &&
              outcome.dropped == (k >= 2));
        CHECK(outcome.code == (k < 2 ? RESULT_SUCCESS : RESULT_OFFLINE));
        CHECK(k < 2 || same(str_from(outcome.error), STR("away, and too much was sent to it")));
    }
    tear_down();
}

/* The old socket seems alive: it is closed, and its end touches nothing. */
static void another_socket_takes_over(void)
{
    struct peer *old, *taker, *third;
    const char *key;

    set_up();
    old = come_new("");
    key = last_key();
    push_to(old, "1");
    taker = connect_peer();
    third = connect_peer();
    return_with(taker, key, "&received=0");
    CHECK(says(",\"resumed\":true,\"recovered\":true,\"replay\":1") && got_push(taker, "1"));
    CHECK(got_push(old, "1") && was_ended(old, 4409, "resumed elsewhere"));
    push_to(taker, "2");
    CHECK(got_push(taker, "2") && got_nothing(&old->far));
    return_with(third, key, "&received=0"); /* at the same moment: its key is good still */
    CHECK(says(",\"resumed\":true,\"recovered\":true,\"replay\":2"));
    CHECK(was_ended(taker, 4409, "resumed elsewhere"));
    CHECK(got_push(third, "1") && got_push(third, "2"));
    send_frame(third, 0x81, STR("ping")); /* from now on the key before is void */
    connect_once_more(old);
    return_with(old, key, "&received=2");
    CHECK(says(",\"resumed\":false") && third->session.conn.client && away() == 0);
    tear_down();
}

/* Which ends leave a client away. */
static void some_ends_are_final(void)
{
    struct peer *peer;
    const char *key;

    set_up();
    peer = come_new("");
    key = last_key();
    pass(25000);
    pass(10000);
    CHECK(!peer->session.conn.client && away() == 1); /* no pong */
    CHECK(contains(far_receive(&peer->far), "no pong"));
    far_forget(&peer->far);
    send_frame(peer, 0x88, STR("\x03\xe9"));
    connect_once_more(peer);
    return_with(peer, key, "&received=0");
    CHECK(says(",\"resumed\":true,\"recovered\":true,\"replay\":0") && away() == 0);
    session_shed(&context, &peer->session);
    update(peer);
    run();
    CHECK(was_ended(peer, 1013, "slow") && away() == 1);
    CHECK(node.hub.channels.resumes.gaps[RESUME_GAP_SLOW] == 1);
    key = last_key();
    send_frame(peer, 0x88, STR("\x03\xf5"));
    connect_once_more(peer);
    return_with(peer, key, "&received=0");
    CHECK(says(",\"resumed\":true,\"recovered\":true,\"replay\":0")); /* nothing was lost */
    close_by_command(peer);
    CHECK(got_close(&peer->far, 4000, "enough") && away() == 0);
    connect_once_more(peer);
    come(peer, "?systemId=shop&resume=");
    send_frame(peer, 0x88, STR("\x03\xe8"));
    CHECK(away() == 0);
    connect_once_more(peer);
    come(peer, "?systemId=shop&resume=");
    session_stop(&context, &peer->session);
    CHECK(away() == 0);
    connect_once_more(peer);
    node.config.linger = 0; /* since a SIGHUP */
    come(peer, "?systemId=shop&resume=");
    CHECK(same(str_from(first), str_from(textf("{\"code\":0,\"msg\":\"success\",\"data\":{"
                                               "\"clientId\":\"%s\"}}",
                                               peer->id))));
    connect_once_more(peer);
    return_with(peer, "x", "");
    CHECK(same(str_from(first), str_from(textf("{\"code\":0,\"msg\":\"success\",\"data\":{"
                                               "\"clientId\":\"%s\",\"resumed\":false}}",
                                               peer->id))));
    tear_down();
}

/* Those away end by time, or when there are too many clients, the longest away first. */
static void those_away_end(void)
{
    struct peer *peer, *witness, *other;

    set_up();
    witness = connect_client();
    peer = come_new("");
    join_group(peer, witness);
    other = come_new("");
    node.hub.now_ms = 1000;
    connect_once_more(peer);
    node.hub.now_ms = 2000;
    connect_once_more(other);
    CHECK(away() == 2 && hub_resume_deadline(&node.hub) == 61000);
    node.hub.now_ms = 60999;
    CHECK(!hub_resume_expire(&node.hub, 3) && away() == 2);
    CHECK(!hub_resume_expire(&node.hub, 2) && away() == 1); /* the longest away */
    run();
    CHECK(saw_leave(witness, peer));
    node.hub.now_ms = 62000;
    CHECK(!hub_resume_expire(&node.hub, 3) && away() == 0 && node.hub.channels.clients.count == 1);
    CHECK(hub_resume_deadline(&node.hub) == INT64_MAX);
    tear_down();
}

static void a_ticket_comes_back_too(void)
{
    const struct ticket_claims other = {.system = STR("shop"), .user = STR("u2")};
    struct peer *peer;
    const char *key;

    set_up();
    node.config.connect = CONNECT_TICKET;
    peer = come_new(textf("&ticket=%s", good_ticket(UNIX_NOW + 100)));
    key = last_key();
    connect_once_more(peer);
    return_with(peer, key, "&received=0"); /* the key is enough, while the end has not come */
    CHECK(contains(str_from(first), "\"userId\":\"u1\"") &&
          contains(str_from(first), "\"recovered\":true,\"replay\":1"));
    key = last_key();
    connect_once_more(peer);
    come(peer, textf("?systemId=shop&resume=%s&received=1&ticket=x", key));
    CHECK(was_ended(peer, 4401, "ticket malformed") && away() == 1);
    connect_once_more(peer);
    context.unix_now += 100;
    come(peer, textf("?systemId=shop&resume=%s&received=1", key)); /* its end has come */
    CHECK(same(str_from(first), STR("{\"code\":-1002,\"msg\":\"ticket missing\",\"data\":[]}")));
    CHECK(was_ended(peer, 4401, "ticket missing") && away() == 1);
    context.unix_now -= 50;
    connect_once_more(peer);
    come(peer,
         textf("?systemId=shop&resume=%s&received=1&ticket=%s", key, good_ticket(UNIX_NOW + 900)));
    CHECK(contains(str_from(first), "\"recovered\":true,\"replay\":0") && away() == 0);
    CHECK(channel_end(peer->session.conn.client) == UNIX_NOW + 900);
    key = last_key();
    connect_once_more(peer);
    come(peer, textf("?systemId=shop&resume=%s&received=1&ticket=%s", key,
                     ticket_with(&other, UNIX_NOW + 60)));
    CHECK(contains(str_from(first), "\"userId\":\"u2\"") &&
          contains(str_from(first), "\"resumed\":false") && away() == 1);
    connect_once_more(peer);
    come(peer, "?systemId=shop&resume=x");
    CHECK(was_ended(peer, 4401, "ticket missing"));
    hub_delete_system(&node.hub, STR("shop"));
    run();
    CHECK(away() == 0 && node.hub.channels.clients.count == 0);
    tear_down();
}

#define RUN(test) test_run(#test, test)

int main(void)
{
    RUN(a_client_comes_back);
    RUN(texts_are_counted);
    RUN(what_was_received_is_checked);
    RUN(a_key_that_is_not_good_makes_another_client);
    RUN(a_client_from_another_node_is_announced_if_nobody_waits_for_it);
    RUN(acks_are_checked);
    RUN(a_client_comes_back_often);
    RUN(a_connection_may_break_anywhere);
    RUN(sends_to_one_away_say_so);
    RUN(another_socket_takes_over);
    RUN(some_ends_are_final);
    RUN(those_away_end);
    RUN(a_ticket_comes_back_too);
    RUN(a_ticket_makes_a_client_what_it_says);
    RUN(a_bad_ticket_is_refused);
    RUN(a_ticket_keeps_to_max_groups);
    RUN(a_ticket_waits_for_its_account);
    RUN(a_call_for_a_ticket_waits_for_the_account);
    RUN(a_ticket_can_be_renewed);
    RUN(a_bad_renewal_changes_nothing);
    RUN(a_client_ends_when_its_ticket_says);
    RUN(timers_follow_their_scripts);
    RUN(a_websocket_stream_may_be_cut_anywhere);
    RUN(version_and_connection_header_decide_keep_alive);
    RUN(head_and_options_are_answered);
    RUN(the_console_is_a_page);
    RUN(the_client_module_is_a_file);
    RUN(pipelined_requests_are_answered_in_order);
    RUN(requests_behind_a_login_wait);
    RUN(continue_is_sent_once);
    RUN(heads_are_checked_before_bodies);
    RUN(rejections_at_limits_are_logged);
    RUN(health_probes_are_answered);
    RUN(upgrades_elsewhere_name_the_path);
    RUN(a_line_end_begins_no_request);
    RUN(keep_alive_timeout_is_sent);
    RUN(a_call_in_pieces_counts_once);
    RUN(a_rejection_closes_the_connection);
    RUN(limits_change_in_the_middle);
    RUN(nothing_is_read_while_tls_must_write);
    RUN(a_half_closed_connection_is_answered);
    RUN(system_names_are_decoded);
    RUN(the_first_frame_follows_the_upgrade_response);
    RUN(unknown_systems_are_closed);
    RUN(bad_upgrades_are_rejected);
    RUN(origins_may_be_restricted);
    RUN(the_texts_ping_and_id_are_answered);
    RUN(protocol_errors_close);
    RUN(the_client_may_close);
    RUN(the_server_may_close);
    RUN(a_lost_client_leaves_its_group);
    RUN(a_client_that_reads_no_pongs_is_slow);
    RUN(slow_readers_get_all_responses);
    RUN(expiring_says_whether_it_pinged);
    RUN(shedding_tells_why);
    RUN(stopping_ends_a_client);
    RUN(stopping_closes_idle_connections);
    RUN(stopping_waits_for_responses);
    RUN(request_ids_hold_index_and_generation);
    RUN(received_bytes_count_before_a_timeout);
    RUN(an_admitted_peer_is_a_client);
    RUN(a_system_has_max_clients);
    RUN(a_peer_not_admitted_is_closed);
    RUN(a_late_admission_is_ignored);
    RUN(a_waiting_peer_may_close);
    RUN(stopping_admits_no_client);
    RUN(a_long_wait_for_admission_is_pinged_first);
    RUN(the_admin_listener_has_its_own_paths);
    RUN(readyz_shows_draining);
    RUN(handshakes_are_counted);
    RUN(messages_from_clients_are_counted);
    RUN(accounts_are_logged);
    RUN(calls_are_counted_and_logged);
    RUN(ends_are_logged);
    RUN(an_unknown_system_is_logged);
    RUN(a_session_is_small);
    return test_finish();
}

/* session.c - what one connection is doing: HTTP requests, or a WebSocket client, or its end. */
#include "session.h"

#include "os.h"

#include <string.h>

#define LINGER 5000                /* milliseconds for a peer to close once we have */
#define OUTPUT_ENOUGH (256 * 1024) /* bytes of answers that wait before requests do */
#define CODING_SLACK 8192          /* bytes of chunk headers that may stand undecoded */
#define SKIP_MAX 65536             /* bytes of a body that nobody wants, and the connection stays */
/* The texts that are answered, each with its NUL, and how far into them a message has matched. */
#define TEXTS "ping\0id"
#define TEXT_PING 4
#define TEXT_ID_BEGIN 5
#define TEXT_ID 7
#define TEXT_OTHER 8
#define REQUEST_COST                                                                               \
    4096              /* of the budget of an iteration: what a request costs beside its bytes, */
#define FRAME_COST 64 /* and a frame */

void session_open(struct session *session, int fd, struct conn_shared *shared, int64_t now)
{
    *session = (struct session){.since = now, .last_seen = now, .opened = now, .poller_slot = -1};
    conn_open(&session->conn, fd, shared);
    session->conn.answering = true;
}

uint64_t session_request_id(const struct session *session)
{
    return (uint64_t)session->generation << 32 | session->index;
}

static void enter(struct session_context *context, struct session *session,
                  enum session_state state)
{
    session->state = state;
    session->since = context->now;
}

#define CLOSED_BY_PEER "closed by the peer"

/* A line for the end of a connection. A client has one of its own, which the hub writes; and that
 * an HTTP connection ends between two requests is not worth telling. */
static void log_end(const struct session_context *context, const struct session *session,
                    const char *reason)
{
    bool usual =
        session->is_websocket || session->state == SESSION_DRAIN ||
        (!session->receiving && (session->asked_before || strcmp(reason, CLOSED_BY_PEER) == 0));
    enum log_level level = usual ? LOG_DEBUG : LOG_INFO;
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "remote"}, {.name = "reason"}, {0}, {0}};

    if (context->log->level > level)
        return;
    conn_address(&session->conn, address);
    fields[0].text = str_from(address);
    fields[1].text = str_from(reason);
    if (!session->is_websocket)
        fields[2] =
            (struct log_field){.name = "milliseconds", .number = context->now - session->opened};
    log_write(context->log, level, "connection closed", fields);
}

/* The end of a session, whatever its state; the client it served goes with it. */
static void end(struct session_context *context, struct session *session, const char *reason)
{
    if (session->state == SESSION_DEAD)
        return;
    log_end(context, session, reason);
    session->state = SESSION_DEAD;
    if (session->conn.client)
        hub_disconnect(context->hub, session->conn.client, reason);
    /* over TLS an end without notice looks as if something were missing: only then it is one */
    if (session->conn.tls && !session->conn.first && !session->shut)
        conn_finish(&session->conn);
    conn_kill(&session->conn);
}

/* --- answers --------------------------------------------------------------------------------- */

/* Queues bytes that were put together in `bytes`, which is freed. */
static void queue(struct session *session, struct buf *bytes)
{
    struct rcbuf *message = bytes->failed ? NULL : rcbuf_copy(str_of(bytes));

    buf_free(bytes);
    if (message)
        conn_queue(&session->conn, message, SIZE_MAX);
    else
        conn_kill(&session->conn);
    rcbuf_release(message);
}

/* Sends an answer; `page`, if there is one, is what comes behind its head, and is not copied. */
static void send_http(struct session_context *context, struct session *session,
                      struct http_response *http, struct rcbuf *page,
                      struct response_flags manner)
{
    struct buf bytes = {0};

    http->date = str_from(context->date);
    http->close = manner.close || context->stopping;
    http->keep_alive = manner.keep_alive;
    if (context->config->idle_timeout >=
        2000) /* a second less: else a request may meet our close */
        http->timeout = (unsigned)(context->config->idle_timeout / 1000 - 1);
    http->head |= manner.head;
    http_write_response(&bytes, http);
    queue(session, &bytes);
    if (page)
        conn_queue(&session->conn, page, SIZE_MAX);
    session->receiving = session->head_done = false;
    session->asked_before = true;
    memset(&session->input, 0, sizeof session->input);
    if (session->by_proxy) /* the next request may be another client's */
        conn_reset_address(&session->conn);
    enter(context, session, http->close ? SESSION_DRAIN : SESSION_HTTP);
}

/* Sends an answer of the API and frees it. */
static void send_answer(struct session_context *context, struct session *session,
                        struct api_response *answer, struct response_flags manner)
{
    struct http_response http = {.status = answer->status,
                                 .body = str_of(&answer->body),
                                 .type = answer->type,
                                 .allow = answer->allow,
                                 .fields = answer->fields,
                                 .retry_after = answer->retry_after};

    if (answer->body.failed)
        conn_kill(&session->conn);
    send_http(context, session, &http, NULL, manner);
    buf_free(&answer->body);
}

/* A line for each call, for those who look for what went wrong. */
static void log_call(const struct session_context *context, const struct session *session,
                     struct str path, const struct api_response *answer, uint32_t microseconds)
{
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "path", .text = path},
                                 {.name = "status", .number = answer->status},
                                 {.name = "code", .number = answer->code},
                                 {.name = "microseconds", .number = microseconds},
                                 {.name = "remote"},
                                 {0},
                                 {0}};

    if (context->log->level > LOG_DEBUG)
        return;
    conn_address(&session->conn, address);
    fields[4].text = str_from(address);
    if (answer->system.length)
        fields[5] = (struct log_field){.name = "system", .text = answer->system};
    log_write(context->log, LOG_DEBUG, "call", fields);
}

/* Counts and sends the answer to a call of the API, and frees it. */
static void send_call_answer(struct session_context *context, struct session *session,
                             const struct session_call *call, struct str path,
                             struct api_response *answer, struct response_flags manner)
{
    uint32_t microseconds = (uint32_t)os_now_us() - call->began;

    metrics_count_call(&context->metrics, call->route, answer->code, microseconds);
    log_call(context, session, path, answer, microseconds);
    send_answer(context, session, answer, manner);
}

/* A limit that a request goes past is the operator's business; that it is malformed, its sender's.
 */
static void log_refusal(const struct session_context *context, const struct session *session,
                        int status, const char *error)
{
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "remote"},
                                 {.name = "status", .number = status},
                                 {.name = "reason", .text = str_from(error)},
                                 {0}};

    conn_address(&session->conn, address);
    fields[0].text = str_from(address);
    log_write(context->log, status == 413 || status == 431 ? LOG_INFO : LOG_DEBUG,
              "request refused", fields);
}

/* Refuses what is not known to be for any path with its connection's last answer. */
static void refuse(struct session_context *context, struct session *session, int status,
                   const char *error)
{
    struct api_response answer;

    log_refusal(context, session, status, error);
    api_reject(&answer, status, RESULT_MALFORMED, str_from(error));
    send_answer(context, session, &answer, (struct response_flags){.close = true});
}

/* Refuses a call for its body with its connection's last answer. It is counted like those that are
 * whole. */
static void refuse_body(struct session_context *context, struct session *session,
                        const struct http_request *request, int status)
{
    struct session_call call = {.route = api_route(request->path),
                                .began = (uint32_t)os_now_us()};
    const char *error = status == 413
                            ? "the body is longer than max_body"
                            : "malformed chunked body, or a trailer with a field of the head";
    struct api_response answer;

    log_refusal(context, session, status, error);
    api_reject(&answer, status, RESULT_MALFORMED, str_from(error));
    send_call_answer(context, session, &call, request->path, &answer,
                     (struct response_flags){.close = true});
}

static struct response_flags manner_of(const struct http_request *request)
{
    return (struct response_flags){.close = !request->keep_alive,
                                   .head = str_equal(request->method, STR("HEAD")),
                                   .keep_alive = request->minor == 0};
}

/* The answer to a method that a path does not take, which for OPTIONS is a good one; returns its
 * status. */
static int refuse_method(struct session_context *context, struct session *session,
                         const struct http_request *request, const char *allow,
                         struct response_flags manner)
{
    bool options = str_equal(request->method, STR("OPTIONS"));
    struct api_response answer;

    api_reject(&answer, options ? 200 : 405, options ? RESULT_SUCCESS : RESULT_MALFORMED,
               options ? STR("success") : STR("this path takes GET"));
    answer.allow = allow;
    send_answer(context, session, &answer, manner);
    return options ? 200 : 405;
}

/* The console at / and /healthz, which need no token; and proxies probe with OPTIONS /, page or no
 * page. False: it is none of them. */
static bool handle_page(struct session_context *context, struct session *session,
                        const struct http_request *request, struct response_flags manner)
{
    bool health = str_equal(request->path, STR("/healthz"));
    bool page = context->console && str_equal(request->path, STR("/"));
    bool probe = str_equal(request->path, STR("/")) && str_equal(request->method, STR("OPTIONS"));
    struct api_response answer;
    struct http_response http;
    struct rcbuf *message;

    if ((!health && !page && !probe) || http_header_has(request, STR("Upgrade"), STR("websocket")))
        return false;
    if (!str_equal(request->method, STR("GET")) && !str_equal(request->method, STR("HEAD"))) {
        refuse_method(context, session, request, health || page ? "GET, HEAD, OPTIONS" : "OPTIONS",
                      manner);
    } else if (health) {
        api_reject(&answer, 200, RESULT_SUCCESS, STR("success"));
        send_answer(context, session, &answer, manner);
    } else {
        message = console_respond(context->console, request, &http);
        send_http(context, session, &http, message, manner);
    }
    return true;
}

/* --- upgrades -------------------------------------------------------------------------------- */

static void log_turned_away(const struct session_context *context, const struct session *session,
                            struct str why, unsigned close_code)
{
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "remote"},
                                 {.name = "code", .number = close_code},
                                 {.name = "reason", .text = why},
                                 {0}};

    conn_address(&session->conn, address);
    fields[0].text = str_from(address);
    log_write(context->log, LOG_INFO, "client turned away", fields);
}

/* Says why this is no client, and closes. */
static void turn_away(struct session_context *context, struct session *session,
                      enum result_code code, struct str why, unsigned close_code)
{
    struct buf text = {0};

    log_turned_away(context, session, why, close_code);
    hub_write_envelope(&text, code, why, (struct str){0});
    if (text.failed || !hub_queue_frame(context->hub, &session->conn, WS_TEXT, str_of(&text)))
        conn_kill(&session->conn);
    buf_free(&text);
    hub_send_close(context->hub, &session->conn, close_code,
                   code == RESULT_UNREACHABLE ? STR("try again later") : STR("unknown system"));
}

/* Lets a client in, or asks whether it may come in. */
static void admit(struct session_context *context, struct session *session, struct str system)
{
    enum cluster_admission admission = CLUSTER_UNKNOWN;

    if (system.length)
        admission =
            cluster_admit(context->cluster, context->accounts, system, session_request_id(session));
    session_admit(context, session, admission, system, "out of memory");
}

/* A form writes a space as '+': asks for the name with spaces, where the one as written is unknown.
 * False if it has no '+'. */
static bool admit_with_spaces(struct session_context *context, struct session *session,
                              struct str system)
{
    char name[ACCOUNT_NAME_MAX];
    bool differs = false;

    if (system.length > sizeof name)
        return false;
    for (size_t i = 0; i < system.length; i++) {
        differs |= system.at[i] == '+';
        name[i] = system.at[i];
        if (name[i] == '+')
            name[i] = ' ';
    }
    if (differs)
        admit(context, session, (struct str){name, system.length});
    return differs;
}

void session_admit(struct session_context *context, struct session *session,
                   enum cluster_admission admission, struct str system, const char *why)
{
    if (session->state != SESSION_OPEN || session->conn.client || session->conn.ending)
        return; /* it has ended while it waited */
    switch (admission) {
    case CLUSTER_ADMITTED:
        if (!hub_connect(context->hub, &session->conn, system))
            conn_kill(&session->conn);
        break;
    case CLUSTER_UNKNOWN:
        if (admit_with_spaces(context, session, system))
            break;
        turn_away(context, session, RESULT_UNKNOWN_SYSTEM,
                  system.length ? STR("systemId is not registered")
                                : STR("systemId is missing or malformed"),
                  WS_CLOSE_POLICY);
        break;
    case CLUSTER_UNREACHABLE:
        turn_away(context, session, RESULT_UNREACHABLE, str_from(why), WS_CLOSE_TRY_LATER);
        break;
    case CLUSTER_ASKED:
        break; /* nothing is said before that is answered */
    }
}

/* Becomes a client of a system that is registered; else says so and closes. */
static void greet(struct session_context *context, struct session *session, struct str query)
{
    char room[ACCOUNT_NAME_MAX];
    struct buf name = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    /* a name that is too long for the room is not registered */
    bool given = http_query(query, STR("systemId"), &name);
    struct str system = given ? str_of(&name) : (struct str){0};

    admit(context, session, system);
}

static void upgrade(struct session_context *context, struct session *session,
                    const struct http_request *request, struct str key)
{
    struct buf bytes = {0};

    ws_write_upgrade(&bytes, key, ws_offered_protocol(request));
    queue(session, &bytes);
    conn_flush(&session->conn); /* some clients lose a frame that comes in the same segment */
    metrics_count_handshake(&context->metrics, 101);
    session->is_websocket = true;
    session->conn.answering = false;
    session->last_ping = context->now;
    session->receiving = false;
    session->input.reader = (struct ws_reader){.limit = (uint32_t)context->config->max_message};
    enter(context, session, SESSION_OPEN);
    greet(context, session, request->query);
}

static void refuse_upgrade(struct session_context *context, struct session *session,
                           struct api_response *answer, struct response_flags manner)
{
    metrics_count_handshake(&context->metrics, answer->status);
    send_answer(context, session, answer, manner);
}

static void session_log_origin(const struct session_context *context, const struct session *session,
                               struct str origin)
{
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {
        {.name = "remote"}, {.name = "origin", .text = origin.length ? origin : STR("")}, {0}};

    conn_address(&session->conn, address);
    fields[0].text = str_from(address);
    log_write(context->log, LOG_INFO, "client turned away: its Origin is not among allowed_origins",
              fields);
}

static void session_refuse_limit(struct session_context *context, struct session *session,
                                 bool is_upgrade, struct response_flags manner)
{
    struct api_response answer;

    api_reject(&answer, 429, RESULT_LIMIT,
               STR("too many connections: max_connections or max_per_ip is reached"));
    answer.retry_after = 5;
    manner.close = true;
    if (is_upgrade)
        metrics_count_handshake(&context->metrics, 429);
    send_answer(context, session, &answer, manner);
}

/* The client of a proxy is counted from its upgrade on. False: its address has too many. */
static bool session_count_client(struct session_context *context, struct session *session)
{
    const unsigned char *address = session->conn.address;

    if (!session->by_proxy || listener_trusts(context->listener, address) ||
        listener_count(context->listener, address))
        return true;
    listener_uncount(context->listener, address);
    context->metrics.refused++;
    log_turned_away(context, session, STR("max_per_ip is reached"), 429);
    return false;
}

/* GET /ws: an upgrade, or why not. */
static void handle_ws(struct session_context *context, struct session *session,
                      const struct http_request *request, struct response_flags manner)
{
    struct api_response answer;
    struct str key = {0}, origin = {0};
    const char *error = NULL;
    size_t origins;
    int status = 0;

    if (!str_equal(request->method, STR("GET"))) {
        status = refuse_method(context, session, request, "GET, OPTIONS", manner);
        metrics_count_handshake(&context->metrics, status);
        return;
    }
    if (context->stopping) {
        api_reject(&answer, 503, RESULT_UNREACHABLE, STR("the server is stopping"));
        refuse_upgrade(context, session, &answer, manner);
        return;
    }
    if (cluster_not_ready_reason(context->cluster)) { /* a proxy may try another node */
        api_reject(&answer, 503, RESULT_UNREACHABLE,
                   str_from(cluster_not_ready_reason(context->cluster)));
        answer.retry_after = 1;
        refuse_upgrade(context, session, &answer, manner);
        return;
    }
    status = ws_check_upgrade(request, &key, &error);
    origins = http_header(request, STR("Origin"), &origin);
    if (!status && origins && (origins > 1 || !config_allows_origin(context->config, origin))) {
        session_log_origin(context, session, origin);
        status = 403;
        error = "this Origin is not among allowed_origins";
    }
    if (!status && session_count_client(context, session)) {
        upgrade(context, session, request, key);
        return;
    }
    if (!status) {
        session_refuse_limit(context, session, true, manner);
        return;
    }
    api_reject(&answer, status, RESULT_MALFORMED, str_from(error));
    if (status == 426)
        answer.fields = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\n";
    refuse_upgrade(context, session, &answer, manner);
}

/* --- requests -------------------------------------------------------------------------------- */

/* Answers a request that is judged by its head alone. False: it is a call that may be made, and its
 * body is to be read. */
static bool answer_head(struct session_context *context, struct session *session,
                        const struct http_request *request, struct api_call *call,
                        struct response_flags manner)
{
    struct session_call counted = {.route = call->route, .began = (uint32_t)os_now_us()};
    struct api_response answer;
    bool is_upgrade = str_equal(request->path, STR("/ws"));

    if (session->is_admin) {
        metrics_respond(&context->metrics, context->leaving, request, &answer);
        send_answer(context, session, &answer, manner);
    } else if (session->over_limit) {
        session_refuse_limit(context, session, is_upgrade, manner);
    } else if (is_upgrade) {
        handle_ws(context, session, request, manner);
    } else if (!handle_page(context, session, request, manner)) {
        if (api_check(context->api, call, &answer))
            return false;
        send_call_answer(context, session, &counted, request->path, &answer, manner);
    }
    return true;
}

/* True if the body of a request that is answered by its head costs nothing to skip: it is short,
 * and sure to come. Else the answer is the connection's last. */
static bool is_skippable(const struct http_request *request)
{
    return !request->chunked && request->content_length <= SKIP_MAX &&
           !(request->expect_continue && request->content_length);
}

/* Judges a request whose head has become whole. False: it has been answered. */
static bool judge_head(struct session_context *context, struct session *session,
                       const struct http_request *request, struct api_call *call)
{
    struct response_flags manner = manner_of(request);

    manner.close |= !is_skippable(request);
    session->head_done = !answer_head(context, session, request, call, manner);
    if (!session->head_done && session->state == SESSION_HTTP)
        session->input.skip = (uint32_t)request->content_length;
    return session->head_done;
}

/* A call with its whole body. */
static void handle_call(struct session_context *context, struct session *session,
                        const struct api_call *call)
{
    struct session_call counted = {.route = call->route, .began = (uint32_t)os_now_us()};
    struct response_flags manner = manner_of(call->request);
    struct api_response answer;

    if (api_handle(context->api, call, &answer) == API_DONE) {
        send_call_answer(context, session, &counted, call->request->path, &answer, manner);
        return;
    }
    session->manner = manner;
    session->input.call = counted;
    enter(context, session, SESSION_WAIT);
}

/* Finds the body behind the head. HTTP_OK: *body is whole, and *used counts all of the request. */
static enum http_result take_body(struct session_context *context, struct session *session,
                                  const struct http_request *request, struct conn_bytes *bytes,
                                  struct str *body, size_t *used)
{
    size_t head = request->head_length, length = bytes->length - head;
    size_t limit = (size_t)context->config->max_body;
    enum http_result result = HTTP_MORE;
    int status = 413;

    if (request->chunked) {
        result =
            http_read_chunks(&session->input.chunks, bytes->at + head, &length, limit, &status);
        bytes->length = head + length;
        *body = (struct str){bytes->at + head, session->input.chunks.length};
    } else if (request->content_length > limit) {
        result = HTTP_BAD;
    } else {
        *body = (struct str){bytes->at + head, (size_t)request->content_length};
        result = length >= body->length ? HTTP_OK : HTTP_MORE;
    }
    *used = head + body->length;
    if (result == HTTP_BAD)
        refuse_body(context, session, request, status);
    return result;
}

/* A call may be made, and waits for its body, which has a time of its own. Its sender is told to go
 * on unless it has begun already. */
static void await_body(struct session_context *context, struct session *session,
                       const struct http_request *request, bool begun)
{
    struct buf bytes = {0};

    session->since = context->now;
    if (!request->expect_continue || begun)
        return;
    buf_append(&bytes, STR("HTTP/1.1 100 Continue\r\n\r\n"));
    queue(session, &bytes);
}

/* Goes on with a request whose head is whole. */
static size_t take_rest(struct session_context *context, struct session *session,
                        const struct http_request *request, struct conn_bytes *bytes)
{
    struct api_call call = {.request = request,
                            .route = api_route(request->path),
                            .request_id = session_request_id(session),
                            .address = session->conn.address,
                            .now = context->now,
                            .unix_now = context->unix_now};
    bool judged = session->head_done, begun = bytes->length > request->head_length;
    enum http_result result;
    size_t used;

    if (!judged && session->by_proxy)
        listener_find_client(context->listener, request, session->conn.address);
    if (!judged && !judge_head(context, session, request, &call))
        return request->head_length;
    result = take_body(context, session, request, bytes, &call.body, &used);
    if (result == HTTP_MORE && !judged)
        await_body(context, session, request, begun);
    if (result == HTTP_OK)
        handle_call(context, session, &call);
    return result == HTTP_OK ? used : result == HTTP_BAD ? bytes->length : 0;
}

static size_t skip_body(struct session *session, size_t length)
{
    size_t used = length < session->input.skip ? length : session->input.skip;

    session->input.skip -= (uint32_t)used;
    return used;
}

/* True for what RFC 9112, section 2.2, forgives in front of a request, and no more. */
static bool is_line_end(const struct conn_bytes *bytes)
{
    return bytes->at[0] == '\r' &&
           (bytes->length == 1 || (bytes->length == 2 && bytes->at[1] == '\n'));
}

/* SESSION_HTTP: takes one request off the front of `bytes`; returns how many bytes it used, 0 if
 * the request is not whole. */
static size_t take_request(struct session_context *context, struct session *session,
                           struct conn_bytes *bytes)
{
    struct http_request request;

    session->held = session->conn.queued > OUTPUT_ENOUGH;
    if (session->held)
        return 0; /* answers wait to be read: so do requests */
    if (session->input.skip)
        return skip_body(session, bytes->length);
    if (!session->receiving && is_line_end(bytes))
        return 0; /* it may stand behind a body, and asks for nothing */
    if (!session->receiving && session->asked_before)
        session->since = context->now; /* the first request's time runs from the accept on */
    session->receiving = true;
    switch (http_parse_request((struct str){bytes->at, bytes->length},
                               (size_t)context->config->max_head, &request)) {
    case HTTP_MORE:
        return 0;
    case HTTP_BAD:
        refuse(context, session, request.status, request.error);
        return bytes->length;
    case HTTP_OK:
        break;
    }
    return take_rest(context, session, &request, bytes);
}

void session_respond(struct session_context *context, struct session *session,
                     struct api_response *answer)
{
    struct session_call call = session->input.call; /* whose place the next request takes */

    send_call_answer(context, session, &call, api_path(call.route), answer, session->manner);
    session_resume(context, session);
}

/* --- WebSocket ------------------------------------------------------------------------------- */

/* How far a message has matched once `c` has come behind what had matched up to `so_far`. */
static uint8_t match_char(uint8_t so_far, char c)
{
    if (so_far == 0 && c == TEXTS[TEXT_ID_BEGIN])
        return TEXT_ID_BEGIN + 1;
    return c && so_far < TEXT_OTHER && c == TEXTS[so_far] ? so_far + 1 : TEXT_OTHER;
}

/* The text "ping" is answered with the text "pong", for browsers cannot send ping frames; "id" with
 * the client's id again. */
static void match_text(struct session_context *context, struct session *session,
                       const struct ws_event *event)
{
    struct client *client = session->conn.client;
    bool queued = true;

    for (size_t i = 0; i < event->payload.length && session->text < TEXT_OTHER; i++)
        session->text = match_char(session->text, event->payload.at[i]);
    if (!event->last)
        return;
    if (session->text == TEXT_PING && event->opcode == WS_TEXT)
        queued = hub_queue_frame(context->hub, &session->conn, WS_TEXT, STR("pong"));
    else if (session->text == TEXT_ID && event->opcode == WS_TEXT)
        queued = hub_send_id(context->hub, client);
    if (!queued)
        hub_end_slow(context->hub, client);
    session->text = 0;
}

static void handle_control(struct session_context *context, struct session *session,
                           const struct ws_event *event)
{
    struct client *client = session->conn.client;

    if (event->opcode == WS_CLOSE) {
        /* section 5.5.1: the answer to a close frame carries the same code */
        if (client)
            hub_end_closed(context->hub, client, event->code);
        else if (!session->conn.ending)
            hub_send_close(context->hub, &session->conn, event->code, (struct str){0});
        enter(context, session, SESSION_DRAIN);
    } else if (event->opcode == WS_PING && client &&
               !hub_queue_frame(context->hub, &session->conn, WS_PONG, event->payload)) {
        hub_end_slow(context->hub, client);
    }
}

static void handle_breach(struct session_context *context, struct session *session,
                          const struct ws_event *event)
{
    if (session->conn.client)
        hub_end(context->hub, session->conn.client, event->code, str_from(event->error));
    else if (!session->conn.ending)
        hub_send_close(context->hub, &session->conn, event->code, str_from(event->error));
    enter(context, session, SESSION_DRAIN);
}

/* SESSION_OPEN and SESSION_CLOSING: takes one event off the front of `bytes`. */
static size_t take_frame(struct session_context *context, struct session *session,
                         struct conn_bytes *bytes)
{
    struct ws_event event;
    size_t used = ws_read(&session->input.reader, bytes->at, bytes->length, &event);

    switch (event.type) {
    case WS_EVENT_MORE:
        break;
    case WS_EVENT_DATA:
        if (session->conn.client)
            match_text(context, session, &event);
        if (event.last) {
            session->receiving = false; /* what follows has its own time */
            context->metrics.received_messages++;
        }
        break;
    case WS_EVENT_CONTROL:
        if (!session->input.reader.message)
            session->receiving = false;
        handle_control(context, session, &event);
        break;
    case WS_EVENT_BAD:
        handle_breach(context, session, &event);
        return bytes->length;
    }
    return used;
}

/* --- the way through the states -------------------------------------------------------------- */

/* One unit of input, by the state; 0 when there is none to take. */
static size_t take_unit(struct session_context *context, struct session *session,
                        struct conn_bytes *bytes)
{
    switch (session->state) {
    case SESSION_HTTP:
        return take_request(context, session, bytes);
    case SESSION_OPEN:
    case SESSION_CLOSING:
        return take_frame(context, session, bytes);
    case SESSION_WAIT:
        session->held = true;
        return 0;
    case SESSION_DRAIN:
    case SESSION_DEAD:
        break;
    }
    return bytes->length;
}

/* Takes whole units in a loop, until the budget is used up, and keeps the rest. */
static void consume(struct session_context *context, struct session *session,
                    struct conn_bytes bytes)
{
    struct conn_shared *shared = session->conn.shared;
    size_t used = 1;

    session->over_budget = false;
    while (bytes.length && used && !session->conn.broken && !session->over_budget) {
        shared->spent += session->state == SESSION_HTTP ? REQUEST_COST : FRAME_COST;
        used = take_unit(context, session, &bytes);
        shared->spent += used;
        bytes.at += used;
        bytes.length -= used;
        session->over_budget = bytes.length && used && conn_over_budget(shared);
    }
    if (session->conn.broken) {
        end(context, session, "connection broken");
        return;
    }
    conn_keep(&session->conn, bytes);
    if (session->state == SESSION_OPEN) {
        bool unfinished = bytes.length || session->input.reader.message;

        if (unfinished && !session->receiving)
            session->since = context->now;
        session->receiving = unfinished;
    }
}

static size_t input_limit(const struct session_context *context, const struct session *session)
{
    if (session->state == SESSION_HTTP || session->state == SESSION_WAIT)
        return (size_t)(context->config->max_head + context->config->max_body) + CODING_SLACK;
    return CONN_SCRATCH;
}

/* The peer has closed its side. Answers that still wait for it are written all the same. */
static void read_end(struct session_context *context, struct session *session)
{
    bool answers = session->state == SESSION_HTTP || session->state == SESSION_DRAIN;

    if (!answers || !session->conn.queued || session->conn.broken) {
        const char *failure = conn_failure(&session->conn);

        end(context, session, failure ? failure : CLOSED_BY_PEER);
        return;
    }
    session->deaf = true;
    enter(context, session, SESSION_DRAIN);
}

void session_read(struct session_context *context, struct session *session)
{
    struct conn_shared *shared = session->conn.shared;
    uint64_t received = shared->received;
    struct conn_bytes bytes;

    if (session->state == SESSION_DEAD)
        return;
    /* what is kept may hold whole requests: they come first; or more than limits that were lowered
     * allow, which is refused */
    session_resume(context, session);
    if (!session_wants_input(session))
        return;
    switch (conn_fill(&session->conn, input_limit(context, session), &bytes)) {
    case CONN_READY:
        shared->spent += CONN_READ_COST + (size_t)(shared->received - received);
        session->last_seen = context->now;
        session->pinged = false;
        consume(context, session, bytes);
        break;
    case CONN_PLAIN:
        refuse(context, session, 400, "TLS is spoken here: use https:// or wss://");
        break;
    case CONN_ENDED:
        shared->spent += CONN_READ_COST;
        read_end(context, session);
        break;
    case CONN_BLOCKED:
        break;
    }
}

void session_resume(struct session_context *context, struct session *session)
{
    struct conn_bytes bytes = conn_kept(&session->conn);

    if (session->state == SESSION_DRAIN)
        conn_keep(&session->conn, (struct conn_bytes){0}); /* nobody will look at it */
    else if (session->state == SESSION_HTTP && !session->over_budget &&
             (session->held || bytes.length >= input_limit(context, session)))
        consume(context, session, bytes);
}

void session_continue(struct session_context *context, struct session *session)
{
    if (session->over_budget && session->state != SESSION_DEAD)
        consume(context, session, conn_kept(&session->conn));
}

void session_flushed(struct session_context *context, struct session *session)
{
    struct conn *conn = &session->conn;

    if (conn->broken) {
        end(context, session, "connection broken");
        return;
    }
    if (session->state == SESSION_OPEN && conn->ending)
        enter(context, session, SESSION_CLOSING);
    if (conn->first)
        return;
    if (session->state == SESSION_DRAIN && !session->shut) {
        session->shut = true;
        conn_finish(conn);
        if (session->deaf)
            end(context, session, CLOSED_BY_PEER);
    }
    session_resume(context, session);
}

bool session_wants_input(const struct session *session)
{
    return session->state != SESSION_WAIT && session->state != SESSION_DEAD && !session->deaf &&
           !session->conn.stuck && !session->over_budget &&
           (session->state != SESSION_HTTP || session->conn.queued <= OUTPUT_ENOUGH);
}

void session_writable(struct session_context *context, struct session *session)
{
    size_t before = session->conn.queued;
    bool requests = session->state == SESSION_HTTP && session->receiving;

    conn_writable(&session->conn);
    /* who takes what waits for it, however slowly, is not overdue; a request's time is its own */
    if (session->conn.queued < before && !requests && session->state != SESSION_OPEN)
        session->since = context->now;
}

/* --- deadlines ------------------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t request_deadline(const struct config *config, const struct session *session)
{
    bool head = session->receiving ? !session->head_done : !session->asked_before;

    return session->since + (int64_t)(head ? config->head_timeout : config->idle_timeout);
}

/* When a client is given up that has not answered a ping. */
static int64_t session_pong_deadline(const struct config *config, const struct session *session)
{
    return session->pinged ? session->last_seen + (int64_t)(config->ping + config->pong_timeout)
                           : INT64_MAX;
}

static int64_t silence_deadline(const struct config *config, const struct session *session)
{
    int64_t silent = session_pong_deadline(config, session);

    if (session->receiving)
        return earlier(silent, session->since + (int64_t)config->idle_timeout);
    return silent;
}

int64_t session_timer(const struct session_context *context, const struct session *session)
{
    const struct config *config = context->config;

    switch (session->state) {
    case SESSION_HTTP:
        return request_deadline(config, session);
    case SESSION_OPEN:
        return earlier(session->last_ping + (int64_t)config->ping,
                       silence_deadline(config, session));
    case SESSION_CLOSING:
    case SESSION_DRAIN:
        return session->since + LINGER;
    case SESSION_WAIT:
    case SESSION_DEAD:
        break;
    }
    return INT64_MAX;
}

static void ping(struct session_context *context, struct session *session)
{
    /* if the whole process has stood still, the client has had no ping to answer: its time to do so
     * runs from this one */
    if (!session->pinged && session->last_seen < context->now - (int64_t)context->config->ping)
        session->last_seen = context->now - (int64_t)context->config->ping;
    session->last_ping = context->now;
    if (!session->conn.client)
        return;
    session->pinged = true;
    if (!hub_queue_frame(context->hub, &session->conn, WS_PING, STR("wspush")))
        hub_end_slow(context->hub, session->conn.client);
}

/* At most: as many as the longest body takes that the kernel may have of one that is late. */
#define OVERDUE_READS 64

/* True if a session is to be ended: a ping that is due does not count. */
static bool is_overdue(const struct session_context *context, const struct session *session)
{
    int64_t deadline = session->state == SESSION_OPEN ? silence_deadline(context->config, session)
                                                      : session_timer(context, session);

    return session->state != SESSION_DEAD && deadline <= context->now;
}

/* Reads what the kernel has of a session that is overdue. False: it no longer is. */
static bool stays_overdue(struct session_context *context, struct session *session)
{
    uint64_t received;

    for (int i = 0; i < OVERDUE_READS; i++) {
        received = session->conn.shared->received;
        session_read(context, session);
        if (!is_overdue(context, session))
            return false;
        if (received == session->conn.shared->received)
            break;
    }
    return true;
}

/* Ends a client whose pong or message has not come. */
static void session_end_late(struct session_context *context, struct session *session)
{
    struct client *client = session->conn.client;

    if (session_pong_deadline(context->config, session) <= context->now)
        hub_end(context->hub, client, WS_CLOSE_GOING_AWAY, STR("no pong"));
    else
        hub_end(context->hub, client, WS_CLOSE_POLICY, STR("the message did not come in time"));
    enter(context, session, SESSION_CLOSING); /* the deadlines it missed are no more */
}

/* Ends what is overdue, with an answer or a close frame where one can be sent. */
static void expire(struct session_context *context, struct session *session)
{
    if (session->state == SESSION_HTTP && session->receiving) {
        refuse(context, session, 408,
               session->head_done ? "the body did not come within idle_timeout"
                                  : "the request's head did not come within head_timeout");
        conn_keep(&session->conn, (struct conn_bytes){0});
    } else if (session->conn.client) {
        session_end_late(context, session);
    } else {
        end(context, session, "deadline passed");
    }
}

bool session_expire(struct session_context *context, struct session *session)
{
    if (is_overdue(context, session) && stays_overdue(context, session)) {
        expire(context, session);
        return false;
    }
    if (session->state != SESSION_OPEN || session_timer(context, session) > context->now)
        return false;
    ping(context, session);
    return true;
}

void session_ping_early(struct session_context *context, struct session *session)
{
    if (session->state == SESSION_OPEN &&
        session->last_ping + (int64_t)context->config->ping / 4 <= context->now)
        ping(context, session);
}

void session_stop(struct session_context *context, struct session *session)
{
    if (session->conn.client)
        hub_end(context->hub, session->conn.client, WS_CLOSE_GOING_AWAY, STR("going away"));
    else if (session->state == SESSION_OPEN && !session->conn.ending) /* it waits to be let in */
        hub_send_close(context->hub, &session->conn, WS_CLOSE_GOING_AWAY, STR("going away"));
    else if (session->state == SESSION_HTTP && !session->receiving)
        enter(context, session, SESSION_DRAIN);
}

void session_shed(struct session_context *context, struct session *session)
{
    struct api_response answer;

    if (session->conn.client) {
        hub_end_slow(context->hub, session->conn.client);
    } else if (session->state == SESSION_HTTP && session->receiving && !session->conn.queued) {
        api_reject(&answer, 503, RESULT_UNREACHABLE,
                   STR("all connections together keep more than max_buffered"));
        answer.retry_after = 5;
        send_answer(context, session, &answer, (struct response_flags){.close = true});
        conn_keep(&session->conn, (struct conn_bytes){0});
    } else {
        end(context, session, "max_buffered is reached");
    }
}

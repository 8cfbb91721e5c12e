/* session.c - one connection: HTTP requests, or a WebSocket client, and its end.
 *
 *   HTTP_NEW --> HTTP_HEAD --> HTTP_BODY --> WAIT --> HTTP_IDLE --> HTTP_HEAD ...
 *                HTTP_HEAD, HTTP_BODY --> WAIT --> the same again (session_take_again)
 *                HTTP_HEAD --> OPEN --> CLOSING --> DRAIN --> LINGER --> DEAD
 *
 * A request may skip BODY (its head is enough to reject it) and WAIT (it is answered at once), and
 * any state may go to DRAIN, FLUSH or DEAD. session_consume takes one unit at a time (a request, a
 * piece of a message) until nothing whole is left or the budget of the iteration is used up; the
 * connection keeps the rest. Requests wait while SESSION_OUTPUT_ENOUGH bytes of responses do, and
 * session_flushed goes on with them.
 *
 * session_timer derives from the state and from `since`, when the present wait began, when a
 * connection is overdue: a head, a body and a message have a time of their own each, and a client
 * is judged by its pongs. The hub ends clients and queues their close frames, which session_flushed
 * sees. Only the loop's thread calls this module, and only the loop frees. */
#include "session.h"

#include "hub_resume.h"

#include <string.h>

#define LINGER 5000        /* milliseconds for a peer to close once we have */
#define CODING_SLACK 8192  /* bytes of chunk headers that may stand undecoded */
#define REQUEST_COST 4096  /* of the budget: for a request beside its bytes */
#define FRAME_COST 64      /* and for a frame */
#define END_MAX 1000000000 /* seconds: an end further away is none */
#define OVERDUE_READS 64   /* reads before a session is judged overdue: the longest body */
#define CLOSED_BY_PEER "closed by the peer"

void session_open(struct session *session, int fd, struct conn_shared *shared, int64_t now)
{
    *session = (struct session){.since = now, .last_seen = now, .opened = now, .poller_slot = -1};
    conn_open(&session->conn, fd, shared);
    session->conn.has_response = true;
}

/* --- ends ------------------------------------------------------------------------------------ */

/* Ends a session, whatever its state, and the client it serves. Logs that at level debug where it
 * is usual: between two requests, and for a client, for which the hub has a line. */
static void session_end(struct session_context *context, struct session *session,
                        const char *reason)
{
    struct log_field fields[] = {{.name = "remote"},
                                 {.name = "reason", .text = str_from(reason)},
                                 {.name = "milliseconds", .number = context->now - session->opened},
                                 {0}};
    bool usual = session->state == SESSION_HTTP_NEW
                     ? strcmp(reason, CLOSED_BY_PEER) == 0
                     : session->state == SESSION_HTTP_IDLE || session->state > SESSION_WAIT;

    if (session->state == SESSION_DEAD)
        return;
    if (session_is_websocket(session)) /* the hub's line has its seconds */
        fields[2].name = NULL;
    session_log(context, session, usual ? LOG_DEBUG : LOG_INFO, "connection closed", fields);
    if (session->conn.client)
        hub_end_client(context->hub, session->conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       str_from(reason));
    if (context->inbox.clients.count)
        inbox_forget(&context->inbox, session_request_id(session));
    /* without a close_notify TLS would report a truncated stream: only if something is missing */
    if (session->conn.tls && !session->conn.queued && session->state != SESSION_LINGER)
        conn_finish(&session->conn);
    conn_kill(&session->conn);
    session->state = SESSION_DEAD;
}

/* Ends the client, or closes an upgraded connection that has none. */
static void session_close(struct session_context *context, struct session *session,
                          enum hub_end end, unsigned code, struct str reason)
{
    if (session->conn.client)
        hub_end_client(context->hub, session->conn.client, end, code, reason);
    else if (!session->conn.close_queued)
        hub_send_close(context->hub, &session->conn, code,
                       end == HUB_END_PEER ? (struct str){0} : reason);
}

/* Ends a client whose queue is full. */
static void session_close_slow(struct session_context *context, struct session *session)
{
    session_close(context, session, HUB_END_SLOW, WS_CLOSE_TRY_LATER, STR("slow"));
}

/* --- WebSocket ------------------------------------------------------------------------------- */

/* Takes a new ticket from a client that connected with one: it moves the client's end, and nothing
 * else. It must come in one frame. A bad one is answered, and changes nothing. False if the client
 * is too slow for that. */
static bool session_renew(struct session_context *context, struct session *session, struct str text)
{
    char bytes[TICKET_ROOM];
    struct buf room = BUF_INIT(bytes);
    struct ticket ticket;
    const char *why = NULL;
    enum result_code code =
        session_judge_ticket(context, session, text, (struct str){0}, &room, &ticket, &why);

    if (code == RESULT_SUCCESS) {
        channel_set_end(session->conn.client, ticket.claims.end);
        return true;
    }
    if (code == RESULT_UNREACHABLE) /* nobody waits for the result: the client sends it again */
        session_look_up(context, session, ticket.claims.system);
    return session_send_refusal(context, session, code, str_from(why));
}

/* Takes the first frame of a text, which came in one piece, if it is "ticket ..." of a client with
 * a ticket, or "ack N" of one that may come back. False if the client is too slow for the answer.
 */
static bool session_take_order(struct session_context *context, struct session *session,
                               const struct ws_event *event)
{
    struct client *client = session->conn.client;
    struct str text = event->payload, word = str_cut(&text, ' ');
    uint64_t received;

    if (client->has_ticket && text.at && str_equal(word, STR("ticket")))
        return session_renew(context, session, text);
    if (client->has_resume && event->last && str_equal(word, STR("ack")) &&
        str_number(text, UINT64_MAX, &received) &&
        !resume_ack(&context->hub->channels.resumes, channel_resume(client), received))
        session_close(context, session, HUB_END_CLOSED, WS_CLOSE_POLICY,
                      STR("ack of messages that were not sent"));
    return true;
}

/* True for texts that are for wspush itself: "ping", "id", "ack N", "ticket ...". */
static bool session_is_command(struct str text)
{
    struct str rest = text, word = str_cut(&rest, ' ');
    uint64_t number;

    if (!rest.at)
        return str_equal(word, STR("ping")) || str_equal(word, STR("id"));
    return str_equal(word, STR("ticket")) ||
           (str_equal(word, STR("ack")) && str_number(rest, UINT64_MAX, &number));
}

/* A client has sent a whole text that its webhook wants. False if the client is too slow to be told
 * that it is dropped. */
static bool session_pass_message(struct session_context *context, struct session *session,
                                 const struct buf *joined, struct str text)
{
    const char *why = joined && joined->failed ? "the message is dropped: out of memory" : NULL;

    switch (inbox_judge(&context->inbox, session_request_id(session), context->config->message_rate,
                        context->now)) {
    case INBOX_IS_FLOOD:
        session_close(context, session, HUB_END_CLOSED, WS_CLOSE_POLICY, STR("too many messages"));
        return true;
    case INBOX_TOO_FAST:
        why = "the message is dropped: more than message_rate allows";
        break;
    case INBOX_PASSES:
        if (!why && !event_message(context->hub->webhooks, session->conn.client, text))
            why = "the message is dropped: too many wait for the receiver";
        break;
    }
    return !why || session_send_refusal(context, session, RESULT_LIMIT, str_from(why));
}

/* Passes a piece of a message on to the webhook of the client's system, if it wants messages: once
 * the message is whole. False if the client has ended. */
static bool session_pass_piece(struct session_context *context, struct session *session,
                               const struct ws_event *event)
{
    uint64_t id = session_request_id(session);
    bool first = !session->text_length;
    const struct buf *joined = NULL;
    struct str text = event->payload;

    if (!event_wants(context->hub->webhooks, session->conn.client, WEBHOOK_MESSAGE)) {
        inbox_clear(&context->inbox, id); /* it will not be whole */
        return true;
    }
    if (event->opcode != WS_TEXT) {
        session_close(context, session, HUB_END_CLOSED, WS_CLOSE_UNSUPPORTED,
                      STR("messages must be text"));
        return false;
    }
    session->input.reader.whole = true; /* fewer pieces */
    if (!first || !event->last) {
        joined = inbox_append(&context->inbox, id, text, first);
        text = joined ? str_of(joined) : (struct str){0};
    }
    if (event->last && (text.at || joined) && !session_is_command(text) &&
        !session_pass_message(context, session, joined, text))
        session_close_slow(context, session);
    if (event->last && joined)
        inbox_clear(&context->inbox, id);
    return session->conn.client != NULL;
}

/* Answers the text "ping" with "pong", for browsers cannot send ping frames, and "id" with the
 * client's id; takes "ticket " and what follows. Other texts may be for a webhook. */
static void session_take_text(struct session_context *context, struct session *session,
                              const struct ws_event *event)
{
    char *room = session->input.text;
    struct str text = {room, session->text_length};
    struct client *client = session->conn.client;
    struct buf first = {0};
    bool queued = true;

    if (client->has_resume)
        resume_confirm(channel_resume(client));
    if (context->hub->webhooks && !session_pass_piece(context, session, event))
        return;
    if (session->input.reader.whole && !text.length && event->opcode == WS_TEXT)
        queued = session_take_order(context, session, event);
    for (size_t i = 0; i < event->payload.length && text.length <= SESSION_TEXT_MAX; i++)
        if (text.length++ < SESSION_TEXT_MAX)
            room[text.length - 1] = event->payload.at[i];
    session->text_length = event->last ? 0 : (uint8_t)text.length;
    if (!event->last || event->opcode != WS_TEXT || !session->conn.client)
        return;
    if (str_equal(text, STR("ping")))
        queued = hub_queue_frame(context->hub, &session->conn, WS_TEXT, STR("pong"));
    else if (str_equal(text, STR("id")) &&
             command_write_first(&first, client, context->config->linger, STR("")))
        queued = hub_queue_text(context->hub, &session->conn, &first);
    if (!queued)
        session_close_slow(context, session);
}

static void session_take_control(struct session_context *context, struct session *session,
                                 const struct ws_event *event)
{
    if (event->opcode == WS_CLOSE) { /* section 5.5.1: echo its code */
        session_close(context, session, HUB_END_PEER, event->code, STR("closed by the client"));
        session_enter(context, session, SESSION_DRAIN);
    } else if (event->opcode == WS_PING && session->conn.client &&
               !hub_queue_frame(context->hub, &session->conn, WS_PONG, event->payload)) {
        session_close_slow(context, session);
    }
}

/* OPEN, CLOSING: one piece of a message, or a control frame. */
static size_t session_take_frame(struct session_context *context, struct session *session,
                                 struct conn_bytes *bytes)
{
    struct ws_event event;
    size_t used = ws_read(&session->input.reader, bytes->at, bytes->length, &event);

    if (event.type == WS_EVENT_MORE)
        return used;
    if (event.type == WS_EVENT_BAD) {
        session_close(context, session, HUB_END_CLOSED, event.code, str_from(event.error));
        session_enter(context, session, SESSION_DRAIN);
        return bytes->length;
    }
    if (!session->input.reader.message && session->state == SESSION_OPEN)
        session->since = SESSION_NEVER; /* the next message has its own time */
    if (event.type == WS_EVENT_CONTROL) {
        session_take_control(context, session, &event);
        return used;
    }
    if (session->conn.client)
        session_take_text(context, session, &event);
    context->metrics.received_messages += event.last;
    return used;
}

/* --- input ----------------------------------------------------------------------------------- */

/* Takes one unit off the front of `bytes`; returns how many it used, 0: nothing whole is there. */
static size_t session_take(struct session_context *context, struct session *session,
                           struct conn_bytes *bytes)
{
    if (session->state < SESSION_WAIT)
        return session_take_http(context, session, bytes);
    if (session->state == SESSION_WAIT)
        return 0; /* requests that are pipelined wait as well */
    if (session->state <= SESSION_CLOSING)
        return session_take_frame(context, session, bytes);
    return bytes->length;
}

/* Takes whole units until the budget is used up, and keeps the rest. */
static void session_consume(struct session_context *context, struct session *session,
                            struct conn_bytes bytes)
{
    struct conn_shared *shared = session->conn.shared;
    size_t used = 1;

    session->over_budget = false;
    while (bytes.length && used && !session->conn.broken && !session->over_budget) {
        shared->spent += session->state <= SESSION_HTTP_BODY ? REQUEST_COST : FRAME_COST;
        used = session_take(context, session, &bytes);
        shared->spent += used;
        bytes.at += used;
        bytes.length -= used;
        session->over_budget = bytes.length && used && conn_over_budget(shared);
    }
    if (session->conn.broken) {
        session_end(context, session, "connection broken");
        return;
    }
    conn_keep(&session->conn, bytes);
    if (session->state != SESSION_OPEN)
        return;
    if (!bytes.length && !session->input.reader.message)
        session->since = SESSION_NEVER;
    else if (session->since == SESSION_NEVER)
        session->since = context->now;
}

static size_t session_input_limit(const struct session_context *context,
                                  const struct session *session)
{
    if (session->state <= SESSION_WAIT)
        return (size_t)(context->config->max_head + context->config->max_body) + CODING_SLACK;
    return CONN_SCRATCH;
}

/* Goes on with input that was kept: requests behind one that was answered late, or until responses
 * had left; more than limits that were lowered allow, to reject it. */
static void session_take_kept(struct session_context *context, struct session *session)
{
    struct conn_bytes bytes = conn_kept(&session->conn);
    bool between = session->state == SESSION_HTTP_NEW || session->state == SESSION_HTTP_IDLE;

    if (session->state > SESSION_CLOSING && session->state < SESSION_DEAD)
        conn_keep(&session->conn, (struct conn_bytes){0});
    else if (session->state <= SESSION_HTTP_BODY && !session->over_budget && bytes.length &&
             ((between && session->conn.queued <= SESSION_OUTPUT_ENOUGH) ||
              bytes.length >= session_input_limit(context, session)))
        session_consume(context, session, bytes);
}

/* The peer has closed its side. Responses that still wait for it are written all the same. */
static void session_read_end(struct session_context *context, struct session *session)
{
    bool responds = session->state <= SESSION_HTTP_BODY || session->state == SESSION_DRAIN;
    const char *failure = conn_failure(&session->conn);

    if (responds && session->conn.queued && !session->conn.broken)
        session_enter(context, session, SESSION_FLUSH);
    else
        session_end(context, session, failure ? failure : CLOSED_BY_PEER);
}

bool session_wants_input(const struct session *session)
{
    return session->state != SESSION_WAIT && session->state != SESSION_FLUSH &&
           session->state != SESSION_DEAD && !session->conn.tls_wants_write &&
           !session->over_budget &&
           (session->state > SESSION_HTTP_BODY || session->conn.queued <= SESSION_OUTPUT_ENOUGH);
}

void session_read(struct session_context *context, struct session *session)
{
    struct conn_shared *shared = session->conn.shared;
    uint64_t received = shared->received;
    struct conn_bytes bytes;

    session_take_kept(context, session); /* whole requests that are kept come first */
    if (!session_wants_input(session))
        return;
    switch (conn_fill(&session->conn, session_input_limit(context, session), &bytes)) {
    case CONN_READY:
        shared->spent += CONN_READ_COST + (size_t)(shared->received - received);
        session->last_seen = context->now;
        if (session->state == SESSION_OPEN)
            session->ping_pending = false;
        session_consume(context, session, bytes);
        break;
    case CONN_PLAIN:
        session_reject(context, session, NULL, 400, "TLS is spoken here: use https:// or wss://");
        break;
    case CONN_ENDED:
        shared->spent += CONN_READ_COST;
        session_read_end(context, session);
        break;
    case CONN_BLOCKED:
        break;
    }
}

void session_continue(struct session_context *context, struct session *session)
{
    if (session->over_budget && session->state != SESSION_DEAD)
        session_consume(context, session, conn_kept(&session->conn));
}

void session_flushed(struct session_context *context, struct session *session)
{
    struct conn *conn = &session->conn;

    if (conn->broken) {
        session_end(context, session, "connection broken");
        return;
    }
    if (session->state == SESSION_OPEN && conn->close_queued)
        session_enter(context, session, SESSION_CLOSING);
    if (conn->queued)
        return;
    if (session->state == SESSION_FLUSH) {
        session_end(context, session, CLOSED_BY_PEER);
    } else if (session->state == SESSION_DRAIN) {
        session->state = SESSION_LINGER; /* its time goes on */
        conn_finish(conn);
    }
    session_take_kept(context, session);
}

void session_writable(struct session_context *context, struct session *session)
{
    size_t before = session->conn.queued;

    conn_writable(&session->conn);
    /* any write progress restarts the time; a request that comes in and a message keep their own */
    if (session->conn.queued < before && session->state != SESSION_OPEN &&
        session->state != SESSION_HTTP_HEAD && session->state != SESSION_HTTP_BODY)
        session->since = context->now;
}

void session_take_again(struct session_context *context, struct session *session)
{
    bool is_call = api_path(session->input.call.route).length > 0;

    session->state = is_call ? SESSION_HTTP_BODY : SESSION_HTTP_HEAD;
    session_consume(context, session, conn_kept(&session->conn));
}

void session_respond(struct session_context *context, struct session *session,
                     struct api_response *response)
{
    session_send_call(context, session, api_path(session->input.call.route), response);
    session_take_kept(context, session);
}

/* --- timers ---------------------------------------------------------------------------------- */

static int64_t session_earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t session_after(int64_t since, uint64_t milliseconds)
{
    return since == SESSION_NEVER ? SESSION_NEVER : since + (int64_t)milliseconds;
}

/* When a client is given up that has not answered a ping. */
static int64_t session_pong_timer(const struct config *config, const struct session *session)
{
    return session_after(session->ping_pending ? session->last_seen : SESSION_NEVER,
                         config->ping + config->pong_timeout);
}

/* When the end comes that a client's ticket names; the wall clock may be set meanwhile, so the
 * timer is judged again. */
static int64_t session_end_timer(const struct session_context *context,
                                 const struct session *session)
{
    int64_t end = session->conn.client ? channel_end(session->conn.client) : 0;

    if (!end || end - context->unix_now > END_MAX)
        return SESSION_NEVER;
    return context->now + (end - context->unix_now) * 1000;
}

/* When a session is overdue. */
static int64_t session_overdue_timer(const struct session_context *context,
                                     const struct session *session)
{
    const struct config *config = context->config;

    switch (session->state) {
    case SESSION_HTTP_NEW:
    case SESSION_HTTP_HEAD:
        return session_after(session->since, config->head_timeout);
    case SESSION_HTTP_IDLE:
    case SESSION_HTTP_BODY:
        return session_after(session->since, config->idle_timeout);
    case SESSION_OPEN:
        return session_earlier(
            session_end_timer(context, session),
            session_earlier(session_pong_timer(config, session),
                            session_after(session->since, config->idle_timeout)));
    case SESSION_WAIT:
    case SESSION_DEAD:
        return SESSION_NEVER;
    default:
        return session_after(session->since, LINGER);
    }
}

int64_t session_timer(const struct session_context *context, const struct session *session)
{
    int64_t overdue = session_overdue_timer(context, session);

    if (session->state != SESSION_OPEN)
        return overdue;
    return session_earlier(overdue, session_after(session->last_ping, context->config->ping));
}

static void session_ping(struct session_context *context, struct session *session)
{
    int64_t ping = (int64_t)context->config->ping;

    /* after a standstill of the process the client has had no ping to answer: its time to do so
     * runs from this one */
    if (!session->ping_pending && session->last_seen < context->now - ping)
        session->last_seen = context->now - ping;
    session->last_ping = context->now;
    if (!session->conn.client)
        return;
    session->ping_pending = true;
    if (!hub_queue_frame(context->hub, &session->conn, WS_PING, STR("wspush")))
        session_close_slow(context, session);
}

static bool session_is_overdue(const struct session_context *context, const struct session *session)
{
    return session_overdue_timer(context, session) <= context->now;
}

/* Reads what the kernel has of a session that is overdue. False: it no longer is. */
static bool session_stays_overdue(struct session_context *context, struct session *session)
{
    for (int i = 0; i < OVERDUE_READS; i++) {
        uint64_t received = session->conn.shared->received;

        session_read(context, session);
        if (!session_is_overdue(context, session))
            return false;
        if (received == session->conn.shared->received)
            break;
    }
    return true;
}

/* Ends what is overdue, with a response or a close frame where one can be sent. */
static void session_end_overdue(struct session_context *context, struct session *session)
{
    bool head = session->state == SESSION_HTTP_HEAD;
    bool silent = session_pong_timer(context->config, session) <= context->now;

    if (head || session->state == SESSION_HTTP_BODY) {
        session_reject(context, session, NULL, 408,
                       head ? "the request's head did not come within head_timeout"
                            : "the body did not come within idle_timeout");
        conn_keep(&session->conn, (struct conn_bytes){0});
    } else if (session_end_timer(context, session) <= context->now) {
        session_close(context, session, HUB_END_CLOSED, HUB_CLOSE_TICKET, STR("session over"));
        session_enter(context, session, SESSION_CLOSING);
    } else if (session->conn.client) {
        session_close(context, session, silent ? HUB_END_SILENT : HUB_END_CLOSED,
                      silent ? WS_CLOSE_GOING_AWAY : WS_CLOSE_POLICY,
                      silent ? STR("no pong") : STR("the message did not come in time"));
        session_enter(context, session, SESSION_CLOSING);
    } else {
        session_end(context, session, "deadline passed");
    }
}

bool session_expire(struct session_context *context, struct session *session)
{
    if (session_is_overdue(context, session) && session_stays_overdue(context, session)) {
        session_end_overdue(context, session);
        return false;
    }
    if (session->state != SESSION_OPEN || session_timer(context, session) > context->now)
        return false;
    session_ping(context, session);
    return true;
}

void session_ping_early(struct session_context *context, struct session *session)
{
    if (session->state == SESSION_OPEN &&
        session->last_ping + (int64_t)context->config->ping / 4 <= context->now)
        session_ping(context, session);
}

void session_adopt(struct session_context *context, struct session *session,
                   const struct cluster_result *result)
{
    const struct ticket_claims *claims = &result->claims;
    struct client *client = channel_find_client(&context->hub->channels, result->client);
    bool waits = session && session->state == SESSION_OPEN && !session->conn.close_queued;
    char room[HUB_ID_TEXT];
    struct buf id = BUF_INIT(room);
    uint64_t key = 0;
    bool good = resume_read_key(claims->key, &id, &key) && client && waits &&
                (claims->is_signed || !session_is_over(context, client));

    if (good && claims->is_signed)
        channel_set_end(client, claims->end);
    if (good && hub_resume_moved(context->hub, client, &session->conn, key, claims->received,
                                 str_of(&id))) {
        session->input.reader.whole = true;
        return;
    }
    if (client) /* it is away, and may still come back */
        hub_resume_announce(context->hub, client, str_of(&id));
    if (good) /* without memory */
        conn_kill(&session->conn);
    else if (waits)
        session_admit(context, session, CLUSTER_NOT_ADOPTED, claims, "");
}

void session_stop(struct session_context *context, struct session *session)
{
    if (session->state == SESSION_OPEN || session->conn.client)
        session_close(context, session, HUB_END_LEAVING, WS_CLOSE_GOING_AWAY, STR("going away"));
    else if (session->state <= SESSION_HTTP_IDLE)
        session_enter(context, session, SESSION_DRAIN);
}

void session_shed(struct session_context *context, struct session *session)
{
    struct api_response response = {
        .status = 503, .code = RESULT_UNREACHABLE, .retry_after = SESSION_RETRY_AFTER};

    if (session->conn.client) {
        session_close_slow(context, session);
    } else if ((session->state == SESSION_HTTP_HEAD || session->state == SESSION_HTTP_BODY) &&
               !session->conn.queued) {
        session->input.call.flags = (struct response_flags){.close = true};
        session_send_envelope(context, session, response,
                              "all connections together keep more than max_buffered");
        conn_keep(&session->conn, (struct conn_bytes){0});
    } else {
        session_end(context, session, "max_buffered is reached");
    }
}

/* session_http.c - the HTTP half of a session: requests to responses, upgrades, admission.
 *
 * session_take_http takes what it can of a request off the input. The head is parsed again each
 * time, because a request consists of views of the bytes, which move.
 *
 * session_serve_head decides by the head alone whom a request is for: the admin listener, /ws, a
 * page, or the API. Only a call that the API lets pass has its body read; every other request is
 * answered at once, and what is sent of its body is skipped (HTTP_IDLE) or ends the connection.
 * session_send_http is where every response leaves, and where the state after it is chosen:
 * HTTP_IDLE or, if it is the connection's last, DRAIN.
 *
 * An upgrade leaves HTTP for good: the peer becomes a client of the hub once its system is known
 * and, in a cluster, all its slots are bound (session_admit). A ticket is judged before the
 * upgrade, for that may take a question to the store of accounts: then the whole request stays in
 * the input, in WAIT, and session_take_again takes it once more. So nothing of it has to be kept
 * elsewhere. */
#include "session_http.h"

#include "host.h"
#include "hub_resume.h"
#include "os.h"

#include <string.h>

#define SKIP_MAX 65536    /* bytes of an unwanted body for which a connection stays */
#define TICKET_COST 32768 /* of the budget: two hashes, and decoding */

uint64_t session_request_id(const struct session *session)
{
    return (uint64_t)session->generation << 32 | session->index;
}

void session_enter(struct session_context *context, struct session *session,
                   enum session_state state)
{
    session->state = state;
    session->since = context->now;
}

void session_log(const struct session_context *context, const struct session *session,
                 enum log_level level, const char *message, struct log_field *fields)
{
    char address[CONN_ADDRESS_MAX];

    if (context->log->level > level)
        return;
    conn_address(session->conn.address, address);
    for (struct log_field *field = fields; field->name; field++)
        if (strcmp(field->name, "remote") == 0)
            field->text = str_from(address);
    log_write(context->log, level, message, fields);
}

/* --- responses ------------------------------------------------------------------------------- */

/* Queues `bytes`, which are freed. */
static void session_queue(struct session *session, struct buf *bytes)
{
    struct rcbuf *copy = bytes->failed ? NULL : rcbuf_copy(str_of(bytes));

    buf_free(bytes);
    if (copy)
        conn_queue(&session->conn, copy, SIZE_MAX);
    else
        conn_kill(&session->conn);
    rcbuf_release(copy);
}

/* Sends a response; `page`, if there is one, follows its head and is not copied. */
static void session_send_http(struct session_context *context, struct session *session,
                              struct http_response *http, struct rcbuf *page)
{
    struct response_flags flags = session->input.call.flags;
    struct buf bytes = {0};

    http->date = str_from(context->date);
    http->close = flags.close || context->stopping;
    http->keep_alive = flags.keep_alive;
    if (context->config->idle_timeout >=
        2000) /* a second less: else a request may meet our close */
        http->timeout = (unsigned)(context->config->idle_timeout / 1000 - 1);
    http->head |= flags.head;
    http_write_response(&bytes, http);
    session_queue(session, &bytes);
    if (page)
        conn_queue(&session->conn, page, SIZE_MAX);
    memset(&session->input, 0, sizeof session->input);
    session->looked_up = false;
    if (session->by_proxy) /* the next request may be another client's */
        conn_reset_address(&session->conn);
    session_enter(context, session, http->close ? SESSION_DRAIN : SESSION_HTTP_IDLE);
}

/* Sends a response of the API and frees it. */
static void session_send(struct session_context *context, struct session *session,
                         struct api_response *response)
{
    struct http_response http = {.status = response->status,
                                 .body = str_of(&response->body),
                                 .type = response->type,
                                 .allow = response->allow,
                                 .fields = response->fields,
                                 .retry_after = response->retry_after};

    if (response->body.failed)
        conn_kill(&session->conn);
    session_send_http(context, session, &http, NULL);
    buf_free(&response->body);
}

void session_send_call(struct session_context *context, struct session *session, struct str path,
                       struct api_response *response)
{
    uint32_t microseconds = (uint32_t)os_now_us() - session->input.call.began;
    struct log_field fields[] = {{.name = "path", .text = path},
                                 {.name = "status", .number = response->status},
                                 {.name = "code", .number = response->code},
                                 {.name = "microseconds", .number = microseconds},
                                 {.name = "remote"},
                                 {0},
                                 {0}};

    metrics_count_call(&context->metrics, session->input.call.route, response->code, microseconds);
    if (response->system.length)
        fields[5] = (struct log_field){.name = "system", .text = response->system};
    session_log(context, session, LOG_DEBUG, "call", fields);
    session_send(context, session, response);
}

void session_log_account(struct session_context *context, const struct account_result *result)
{
    static const char *const done[] = {
        [ACCOUNT_REGISTER] = "system registered",    [ACCOUNT_ROTATE_KEY] = "ticket key rotated",
        [ACCOUNT_SET_WEBHOOK] = "webhook set",       [ACCOUNT_SET_PASSWORD] = "password set",
        [ACCOUNT_RESET_PASSWORD] = "password reset", [ACCOUNT_DELETE] = "system deleted"};
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "system", .text = {result->name, result->name_length}},
                                 {.name = "remote"},
                                 {0},
                                 {0}};
    uint64_t untold = 0;

    conn_address(result->address, address);
    fields[1].text = str_from(address);
    if (result->outcome == ACCOUNT_DONE && done[result->kind])
        log_write(context->log, LOG_INFO, done[result->kind], fields);
    if (result->outcome != ACCOUNT_DENIED || !account_job_verifies(result->kind) ||
        !quota_take(&context->failed_logins, context->now, &untold))
        return;
    if (untold)
        fields[2] = (struct log_field){.name = "untold", .number = (int64_t)untold};
    log_write(context->log, LOG_INFO, "login failed", fields);
}

/* A limit that is exceeded is the operator's business, malformed bytes are their sender's. */
void session_reject(struct session_context *context, struct session *session,
                    const struct http_request *request, int status, const char *error)
{
    struct log_field fields[] = {{.name = "remote"},
                                 {.name = "status", .number = status},
                                 {.name = "reason", .text = str_from(error)},
                                 {0}};
    struct api_response response;

    session->input.call.flags = (struct response_flags){.close = true};
    session_log(context, session, status == 413 || status == 431 ? LOG_INFO : LOG_DEBUG,
                "request rejected", fields);
    api_reject(&response, status, RESULT_MALFORMED, error);
    if (request)
        session_send_call(context, session, request->path, &response);
    else
        session_send(context, session, &response);
}

void session_send_envelope(struct session_context *context, struct session *session,
                           struct api_response response, const char *msg)
{
    command_write_envelope(&response.body, response.code, str_from(msg), (struct str){0});
    session_send(context, session, &response);
}

/* Responds to a method that a path does not take, which is good for OPTIONS; returns the status. */
static int session_reject_method(struct session_context *context, struct session *session,
                                 const struct http_request *request, const char *allow)
{
    bool options = str_equal(request->method, STR("OPTIONS"));
    struct api_response response = {.status = options ? 200 : 405,
                                    .code = options ? RESULT_SUCCESS : RESULT_MALFORMED,
                                    .allow = allow};

    session_send_envelope(context, session, response, options ? "success" : "this path takes GET");
    return response.status;
}

static void session_reject_limit(struct session_context *context, struct session *session)
{
    struct api_response response = {
        .status = 429, .code = RESULT_LIMIT, .retry_after = SESSION_RETRY_AFTER};

    session->input.call.flags.close = true;
    session_send_envelope(context, session, response,
                          "too many connections: max_connections or max_per_ip is reached");
}

/* Responds to the paths that need no token: / (the console), /wspush.js and /healthz; and to
 * OPTIONS /, with which proxies probe, page or no page. False: it is none of them. */
static bool session_serve_page(struct session_context *context, struct session *session,
                               const struct http_request *request)
{
    bool root = str_equal(request->path, STR("/")),
         health = str_equal(request->path, STR("/healthz"));
    const struct console *file = root ? context->console
                                 : str_equal(request->path, STR("/wspush.js"))
                                     ? context->client_module
                                     : NULL;
    bool probe = root && str_equal(request->method, STR("OPTIONS"));
    struct http_response http;
    struct rcbuf *body;

    if ((!health && !file && !probe) || http_header_has(request, STR("Upgrade"), STR("websocket")))
        return false;
    if (!str_equal(request->method, STR("GET")) && !str_equal(request->method, STR("HEAD"))) {
        session_reject_method(context, session, request,
                              health || file ? "GET, HEAD, OPTIONS" : "OPTIONS");
    } else if (health) {
        session_send_envelope(context, session, (struct api_response){.status = 200}, "success");
    } else {
        body = console_respond(file, request, &http);
        session_send_http(context, session, &http, body);
    }
    return true;
}

/* --- upgrades -------------------------------------------------------------------------------- */

static void session_log_rejection(const struct session_context *context,
                                  const struct session *session, struct str reason, unsigned code)
{
    struct log_field fields[] = {{.name = "remote"},
                                 {.name = "code", .number = code},
                                 {.name = "reason", .text = reason},
                                 {0}};

    session_log(context, session, LOG_INFO, "client rejected", fields);
}

bool session_send_refusal(struct session_context *context, struct session *session,
                          enum result_code code, struct str why)
{
    struct buf text = {0};

    command_write_envelope(&text, code, why, (struct str){0});
    return hub_queue_text(context->hub, &session->conn, &text);
}

/* Tells an upgraded peer why it does not become a client, and closes. */
static void session_reject_client(struct session_context *context, struct session *session,
                                  enum result_code code, struct str why)
{
    unsigned close_code = code == RESULT_UNKNOWN_SYSTEM ? WS_CLOSE_POLICY
                          : code == RESULT_NO_TOKEN     ? HUB_CLOSE_TICKET
                                                        : WS_CLOSE_TRY_LATER;

    session_log_rejection(context, session, why, close_code);
    if (!session_send_refusal(context, session, code, why))
        conn_kill(&session->conn);
    hub_send_close(context->hub, &session->conn, close_code,
                   code == RESULT_UNREACHABLE      ? STR("try again later")
                   : code == RESULT_UNKNOWN_SYSTEM ? STR("unknown system")
                                                   : str_cut(&why, ':'));
}

/* Makes a client of an upgraded connection, unless a limit is reached. */
static void session_connect(struct session_context *context, struct session *session,
                            const struct ticket_claims *claims)
{
    const struct client *client;
    uint64_t most = context->config->max_clients;

    if (most && hub_count_clients(context->hub, claims->system) >= most) {
        context->metrics.refused++;
        session_reject_client(context, session, RESULT_LIMIT,
                              STR("too many clients: the system has max_clients"));
    } else if (ticket_count_groups(claims->groups) > context->config->max_groups) {
        session_reject_client(context, session, RESULT_LIMIT,
                              STR("too many groups: the ticket has more than max_groups"));
    } else if (!hub_connect(context->hub, &session->conn, claims)) {
        conn_kill(&session->conn);
    }
    client = session->conn.client; /* "ticket ..." and "ack N" must come whole */
    session->input.reader.whole = client && (client->has_ticket || client->has_resume);
}

/* Admits a client, or asks the cluster whether it may be. */
static void session_ask_admission(struct session_context *context, struct session *session,
                                  const struct ticket_claims *claims)
{
    enum cluster_admission admission = CLUSTER_UNKNOWN;

    if (claims->system.length)
        admission =
            cluster_admit(context->cluster, context->accounts, claims, session_request_id(session));
    session_admit(context, session, admission, claims, "out of memory");
}

/* A form writes a space as '+': asks for the name with spaces where the one as written is unknown.
 * False if it has no '+'. */
static bool session_admit_with_spaces(struct session_context *context, struct session *session,
                                      const struct ticket_claims *claims)
{
    struct str system = claims->system;
    char name[ACCOUNT_NAME_MAX];
    bool differs = false;

    if (system.length > sizeof name)
        return false;
    for (size_t i = 0; i < system.length; i++) {
        differs |= system.at[i] == '+';
        name[i] = system.at[i] == '+' ? ' ' : system.at[i];
    }
    if (differs)
        session_ask_admission(
            context, session,
            &(struct ticket_claims){.system = {name, system.length}, .resume = claims->resume});
    return differs;
}

void session_admit(struct session_context *context, struct session *session,
                   enum cluster_admission admission, const struct ticket_claims *claims,
                   const char *why)
{
    struct ticket_claims anew = *claims;

    if (session->state != SESSION_OPEN || session->conn.client || session->conn.close_queued)
        return; /* it has ended while it waited */
    anew.key = (struct str){0};
    switch (admission) {
    case CLUSTER_ADMITTED:
        if (claims->is_signed || context->config->connect == CONNECT_OPEN)
            session_connect(context, session, claims);
        else
            session_reject_client(context, session, RESULT_NO_TOKEN, STR("ticket missing"));
        break;
    case CLUSTER_NOT_ADOPTED:
        session_ask_admission(context, session, &anew);
        break;
    case CLUSTER_UNKNOWN:
        if (claims->is_signed || !session_admit_with_spaces(context, session, claims))
            session_reject_client(context, session, RESULT_UNKNOWN_SYSTEM,
                                  claims->system.length ? STR("systemId is not registered")
                                                        : STR("systemId is missing or malformed"));
        break;
    case CLUSTER_UNREACHABLE:
        session_reject_client(context, session, RESULT_UNREACHABLE, str_from(why));
        break;
    case CLUSTER_ADOPTED: /* see session_adopt */
    case CLUSTER_ASKED:
        break; /* a result follows; until then nothing is sent */
    }
}

/* --- tickets --------------------------------------------------------------------------------- */

bool session_look_up(const struct session_context *context, const struct session *session,
                     struct str system)
{
    struct account_request job = {
        .kind = ACCOUNT_LOOK_UP,
        .request_id = session_request_id(session),
        .origin = str_hash(conn_owner(session->conn.address), context->api->seed),
        .name = system,
        .password = STR("")};
    enum account_submission submission = account_submit(context->accounts, &job);

    return submission == ACCOUNT_SUBMITTED || submission == ACCOUNT_COALESCED;
}

/* Has a request wait, unused, until the account of a system is looked up. False: it was already, or
 * that cannot be done now. */
static bool session_wait_for_account(const struct session_context *context, struct session *session,
                                     struct str system)
{
    if (session->looked_up || !session_look_up(context, session, system))
        return false;
    session->looked_up = true;
    session->state = SESSION_WAIT;
    return true;
}

/* True if a peer has named this system; '+' may stand for a space. */
static bool session_names(struct str named, struct str system)
{
    bool same = named.length == system.length;

    for (size_t i = 0; same && i < named.length; i++)
        same = named.at[i] == system.at[i] || (named.at[i] == '+' && system.at[i] == ' ');
    return same;
}

/* True if a ticket is of a client's system and user. */
static bool session_is_of(const struct client *client, const struct ticket_claims *claims)
{
    return str_equal(channel_name(client->subscriptions[0].channel), claims->system) &&
           str_equal(channel_user(client), claims->user);
}

enum result_code session_judge_ticket(struct session_context *context,
                                      const struct session *session, struct str text,
                                      struct str named, struct buf *room, struct ticket *ticket,
                                      const char **why)
{
    static const char *const errors[TICKET_RESULTS] = {"", "ticket missing", "ticket malformed",
                                                       "ticket forged", "ticket expired"};
    struct ticket_terms terms = {.now = context->unix_now,
                                 .longest = (int64_t)context->config->ticket_max,
                                 .last = &context->api->ticket_key};
    enum ticket_result result = text.at ? TICKET_MALFORMED : TICKET_MISSING;
    bool is_ticket = ticket_read(text, room, ticket);

    session->conn.shared->spent += TICKET_COST;
    if (is_ticket && !(session->conn.client ? session_is_of(session->conn.client, &ticket->claims)
                                            : session_names(named, ticket->claims.system))) {
        result = TICKET_FORGED;
    } else if (is_ticket) {
        switch (account_ticket_version(context->accounts, ticket->claims.system, &terms.version,
                                       &terms.since)) {
        case ACCOUNT_TOKEN_VALID:
            result = ticket_check(ticket, context->api->keys, &terms);
            break;
        case ACCOUNT_TOKEN_UNKNOWN:
            *why = "the ticket cannot be checked now";
            return RESULT_UNREACHABLE;
        default:
            *why = "systemId is not registered";
            return RESULT_UNKNOWN_SYSTEM;
        }
    }
    context->metrics.tickets[result]++;
    *why = errors[result];
    return result == TICKET_OK ? RESULT_SUCCESS : RESULT_NO_TOKEN;
}

/* What a request to become a client says. */
struct session_entry {
    enum result_code refusal; /* and why, unless it is SUCCESS */
    const char *why;
    struct ticket_claims claims;
    struct client *client; /* that it is, and comes back as; NULL: it is a new one */
    uint64_t key, received;
    struct str elsewhere; /* the key of a session that another node may have */
    char resume[RESUME_KEY_MAX];
    char name[ACCOUNT_NAME_MAX], text[TICKET_MAX], room[TICKET_ROOM];
};

/* Reads whether a peer wants to be able to come back, or does. A number of messages that is none
 * counts as one that it cannot have received. */
static enum claims_resume session_read_resume(const struct session_context *context,
                                              const struct http_request *request,
                                              struct session_entry *entry)
{
    char digits[20];
    struct buf key = BUF_INIT(entry->resume), received = BUF_INIT(digits);
    struct client *client = NULL;

    entry->received = UINT64_MAX;
    if (http_query(request->query, STR("received"), &received))
        str_number(str_of(&received), UINT64_MAX, &entry->received);
    if (!http_query(request->query, STR("resume"), &key) && !key.failed)
        return CLAIMS_NO_RESUME;
    if (!key.length && !key.failed)
        return CLAIMS_RESUME;
    if (!key.failed)
        client = hub_resume_find(context->hub, str_of(&key), &entry->key);
    if (client &&
        session_names(entry->claims.system, channel_name(client->subscriptions[0].channel)))
        entry->client = client;
    else if (context->cluster && !key.failed)
        entry->elsewhere = str_of(&key);
    return CLAIMS_RESUME_LOST;
}

/* Reads who asks to be a client. A ticket that is given is judged, also where none is needed; one
 * of another user makes another client. False: the request waits. */
static bool session_read_entry(struct session_context *context, struct session *session,
                               const struct http_request *request, struct session_entry *entry)
{
    struct buf name = BUF_INIT(entry->name), text = BUF_INIT(entry->text);
    struct buf room = BUF_INIT(entry->room);
    struct str given = {0};
    size_t count = http_header(request, STR("Ticket"), &given);
    enum claims_resume resume;
    struct ticket ticket;

    /* a name that is too long for the room is not registered */
    entry->refusal = RESULT_SUCCESS;
    entry->claims = (struct ticket_claims){0};
    entry->client = NULL;
    entry->elsewhere = (struct str){0};
    if (http_query(request->query, STR("systemId"), &name))
        entry->claims.system = str_of(&name);
    if (http_query(request->query, STR("ticket"), &text) || text.failed) {
        count++;
        given = text.failed ? STR("") : str_of(&text);
    }
    entry->claims.resume = resume = session_read_resume(context, request, entry);
    if (!name.length || (!count && (entry->client ? !session_is_over(context, entry->client)
                                                  : context->config->connect == CONNECT_OPEN ||
                                                        entry->elsewhere.length)))
        return true;
    if (count > 1)
        given = STR("");
    entry->refusal = session_judge_ticket(context, session, given, entry->claims.system, &room,
                                          &ticket, &entry->why);
    if (entry->refusal == RESULT_SUCCESS) {
        entry->claims = ticket.claims;
        entry->claims.resume = resume;
        if (entry->client &&
            (!entry->client->has_ticket || !session_is_of(entry->client, &ticket.claims)))
            entry->client = NULL;
    }
    return entry->refusal != RESULT_UNREACHABLE ||
           !session_wait_for_account(context, session, ticket.claims.system);
}

/* Gives a client that comes back its connection. */
static void session_connect_again(struct session_context *context, struct session *session,
                                  const struct session_entry *entry)
{
    if (entry->claims.is_signed)
        channel_set_end(entry->client, entry->claims.end);
    if (!hub_resume_client(context->hub, entry->client, &session->conn, entry->key,
                           entry->received))
        conn_kill(&session->conn);
    session->input.reader.whole = true;
}

static void session_upgrade(struct session_context *context, struct session *session,
                            const struct http_request *request, struct str key,
                            const struct session_entry *entry)
{
    struct ticket_claims claims = entry->claims;
    struct buf bytes = {0};

    claims.key = entry->elsewhere;
    claims.received = entry->received;
    ws_write_upgrade(&bytes, key, ws_offered_protocol(request));
    session_queue(session, &bytes);
    conn_flush(&session->conn); /* some clients lose a frame that comes in the same segment */
    metrics_count_handshake(&context->metrics, 101);
    session->conn.has_response = false;
    session->state = SESSION_OPEN;
    session->since = SESSION_NEVER;
    memset(&session->input, 0, sizeof session->input);
    session->input.reader = (struct ws_reader){.limit = (uint32_t)context->config->max_message};
    session->last_ping = context->now;
    if (entry->refusal)
        session_reject_client(context, session, entry->refusal, str_from(entry->why));
    else if (entry->client)
        session_connect_again(context, session, entry);
    else
        session_ask_admission(context, session, &claims);
}

/* True if a request's Origin is missing or allowed; logs if not. */
static bool session_allows_origin(const struct session_context *context,
                                  const struct session *session, const struct http_request *request)
{
    struct str origin = {0};
    size_t origins = http_header(request, STR("Origin"), &origin);
    struct log_field fields[] = {
        {.name = "remote"}, {.name = "origin", .text = origin.length ? origin : STR("")}, {0}};

    if (!origins || (origins == 1 &&
                     host_origin_is_allowed(str_from(context->config->allowed_origins), origin)))
        return true;
    session_log(context, session, LOG_INFO,
                "client rejected: its Origin is not among allowed_origins", fields);
    return false;
}

/* Counts the client of a proxy, from its upgrade on. False: its address has too many. */
static bool session_count_client(struct session_context *context, struct session *session)
{
    const unsigned char *address = session->conn.address;

    if (!session->by_proxy || listener_trusts(context->listener, address) ||
        listener_count(context->listener, address))
        return true;
    listener_uncount(context->listener, address);
    context->metrics.refused++;
    session_log_rejection(context, session, STR("max_per_ip is reached"), 429);
    return false;
}

/* Judges the head of GET /ws. True: upgrade, with this key. Else *response says why not. */
static bool session_check_upgrade(struct session_context *context, struct session *session,
                                  const struct http_request *request, struct str *key,
                                  struct api_response *response)
{
    const char *unready =
        context->stopping ? "the server is stopping" : cluster_not_ready_reason(context->cluster);
    const char *error = NULL;
    int status;

    if (unready) {
        api_reject(response, 503, RESULT_UNREACHABLE, unready);
        response->retry_after = !context->stopping; /* a proxy may try another node */
        return false;
    }
    status = ws_check_upgrade(request, key, &error);
    if (!status && !session_allows_origin(context, session, request)) {
        status = 403;
        error = "this Origin is not among allowed_origins";
    }
    if (!status)
        return true;
    api_reject(response, status, RESULT_MALFORMED, error);
    if (status == 426)
        response->fields = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\n";
    return false;
}

static void session_serve_ws(struct session_context *context, struct session *session,
                             const struct http_request *request)
{
    struct session_entry entry;
    struct api_response response;
    struct str key = {0};
    int status = 429;

    if (session->over_limit) {
        session_reject_limit(context, session);
    } else if (!str_equal(request->method, STR("GET"))) {
        status = session_reject_method(context, session, request, "GET, OPTIONS");
    } else if (!session_check_upgrade(context, session, request, &key, &response)) {
        status = response.status;
        session_send(context, session, &response);
    } else if (!session_read_entry(context, session, request, &entry)) {
        return;
    } else if (session_count_client(context, session)) {
        session_upgrade(context, session, request, key, &entry);
        return;
    } else {
        session_reject_limit(context, session);
    }
    metrics_count_handshake(&context->metrics, status);
}

/* --- HTTP: one function for each state ------------------------------------------------------- */

/* Responds to a request that is judged by its head alone. False: it is a call that may be made,
 * and its body must be read. The connection stays if the body, which is not read, is short and
 * sure to come. */
static bool session_serve_head(struct session_context *context, struct session *session,
                               struct api_call *call)
{
    const struct http_request *request = call->request;
    struct response_flags *flags = &session->input.call.flags;
    struct api_response response;

    flags->close |= request->chunked || request->content_length > SKIP_MAX ||
                    (request->expect_continue && request->content_length);
    if (session->is_admin) {
        metrics_respond(&context->metrics, context->leaving, request, &response);
        session_send(context, session, &response);
    } else if (str_equal(request->path, STR("/ws"))) {
        session_serve_ws(context, session, request);
    } else if (session->over_limit) {
        session_reject_limit(context, session);
    } else if (!session_serve_page(context, session, request)) {
        if (api_check(context->api, call, &response)) {
            flags->close = !request->keep_alive;
            return false;
        }
        session_send_call(context, session, request->path, &response);
    }
    if (session->state == SESSION_HTTP_IDLE)
        session->input.skip = (uint32_t)request->content_length;
    return true;
}

/* Makes a call with its whole body. False: it waits, unused. */
static bool session_make_call(struct session_context *context, struct session *session,
                              const struct api_call *call)
{
    struct api_response response;
    enum api_result result = api_handle(context->api, call, &response);

    if (result == API_LATER) {
        session_enter(context, session, SESSION_WAIT);
        return true;
    }
    if (result == API_LOOK_UP && session_wait_for_account(context, session, response.system)) {
        buf_free(&response.body);
        return false;
    }
    session_send_call(context, session, call->request->path, &response);
    return true;
}

/* Takes the body behind the head, and makes the call if it is whole. Returns how many bytes the
 * request used, 0 if its body is not whole. */
static size_t session_take_content(struct session_context *context, struct session *session,
                                   struct api_call *call, struct conn_bytes *bytes)
{
    const struct http_request *request = call->request;
    size_t head = request->head_length, length = bytes->length - head;
    size_t limit = (size_t)context->config->max_body;
    struct http_chunks *chunks = &session->input.chunks;
    enum http_result result = HTTP_BAD;
    int status = 413;

    if (request->chunked) {
        result = http_read_chunks(chunks, bytes->at + head, &length, limit, &status);
        bytes->length = head + length;
        call->body = (struct str){bytes->at + head, chunks->length};
    } else if (request->content_length <= limit) {
        call->body = (struct str){bytes->at + head, (size_t)request->content_length};
        result = length >= call->body.length ? HTTP_OK : HTTP_MORE;
    }
    if (result == HTTP_MORE)
        return 0;
    if (result == HTTP_OK)
        return session_make_call(context, session, call) ? head + call->body.length : 0;
    session_reject(context, session, request, status,
                   status == 413 ? "the body is longer than max_body"
                                 : "malformed chunked body, or a trailer with a field of the head");
    return bytes->length;
}

/* HTTP_HEAD, HTTP_BODY: a request whose first bytes are there. */
static size_t session_take_request(struct session_context *context, struct session *session,
                                   struct conn_bytes *bytes)
{
    struct http_request request;
    enum http_result result = http_parse_request((struct str){bytes->at, bytes->length},
                                                 (size_t)context->config->max_head, &request);
    struct api_call call = {.request = &request,
                            .request_id = session_request_id(session),
                            .address = session->conn.address,
                            .now = context->now,
                            .unix_now = context->unix_now};
    struct buf interim = {0};
    size_t used;
    bool begun;

    if (result == HTTP_MORE)
        return 0;
    if (result == HTTP_BAD) {
        session_reject(context, session, NULL, request.status, request.error);
        return bytes->length;
    }
    call.route = api_route(request.path);
    session->input.call =
        (struct session_call){.route = (uint16_t)call.route,
                              .began = (uint32_t)os_now_us(),
                              .flags = {.close = !request.keep_alive,
                                        .head = str_equal(request.method, STR("HEAD")),
                                        .keep_alive = request.minor == 0}};
    if (session->state == SESSION_HTTP_BODY)
        return session_take_content(context, session, &call, bytes);
    begun = bytes->length > request.head_length;
    if (session->by_proxy)
        listener_find_client(context->listener, &request, session->conn.address);
    if (session_serve_head(context, session, &call))
        return session->state == SESSION_WAIT ? 0 : request.head_length;
    session_enter(context, session, SESSION_HTTP_BODY);
    used = session_take_content(context, session, &call, bytes);
    if (used == 0 && request.expect_continue && !begun) {
        buf_append(&interim, STR("HTTP/1.1 100 Continue\r\n\r\n"));
        session_queue(session, &interim);
    }
    return used;
}

size_t session_take_http(struct session_context *context, struct session *session,
                         struct conn_bytes *bytes)
{
    size_t skipped = bytes->length < session->input.skip ? bytes->length : session->input.skip;

    if (session->state == SESSION_HTTP_HEAD || session->state == SESSION_HTTP_BODY)
        return session_take_request(context, session, bytes);
    if (session->conn.queued > SESSION_OUTPUT_ENOUGH)
        return 0;
    session->input.skip -= (uint32_t)skipped;
    if (skipped)
        return skipped;
    /* a line end in front of a request is forgiven (RFC 9112, section 2.2): it begins none */
    if (bytes->at[0] == '\r' &&
        (bytes->length == 1 || (bytes->length == 2 && bytes->at[1] == '\n')))
        return 0;
    if (session->state == SESSION_HTTP_IDLE)
        session->since = context->now; /* the first request's time runs from the accept */
    session->state = SESSION_HTTP_HEAD;
    return session_take_request(context, session, bytes);
}

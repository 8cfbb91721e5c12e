/* api.c - an HTTP request to a checked command to a JSON response.
 *
 * A call passes three stages, the cheap ones first, so that one that will be rejected costs little:
 *   api_check   looks at the head alone: path, method, site, readiness, Register-Key or Token,
 *               coding, rate. Only then does the session read the body.
 *   api_handle  reads the body: it is one JSON object, and the fields that the route takes are
 *               checked by the table of fields; other members are ignored.
 *   a handler   (register, log in, command) does what is asked, see the table of routes.
 * A stage that fails makes the response and returns false; its callers only pass that on.
 *
 * A handler that has to wait, for an account job's thread or for other nodes, returns API_LATER.
 * The result comes with the call's request_id, and api_finish or api_finish_command makes the
 * response then; after API_LOOK_UP the session handles the call once more instead. Nothing of the
 * request is kept meanwhile but what the job or the cluster copied.
 *
 * Decoded strings of the present request are in api->decoded. They are never longer than the body,
 * and that much is reserved first, so views of them stay valid. Passwords are erased after use.
 * Only the loop's thread runs this. */
#include "api.h"

#include "conn.h"
#include "host.h"
#include "json.h"
#include "ws.h"

#include <inttypes.h>
#include <string.h>

#define API_PAGE 100 /* entries of a list, unless `limit` is given */

/* --- commands -------------------------------------------------------------------------------- */

static bool api_make_command(struct api_request *request, enum command_kind kind,
                             struct command *command)
{
    const struct json_field *json = request->json;
    enum api_field clients = api_has(request, FIELD_EXCLUDE)  ? FIELD_EXCLUDE
                             : api_has(request, FIELD_EXCEPT) ? FIELD_EXCEPT
                                                              : FIELD_CLIENT_IDS;
    enum api_field group = kind == COMMAND_LIST_GROUPS ? FIELD_PREFIX : FIELD_GROUP_NAME;

    *command = (struct command){
        .kind = kind,
        .system = request->system,
        .client = json[FIELD_CLIENT_ID].value,
        .clients = json[clients].value.text,
        .group = request->text[group],
        .user = request->text[FIELD_USER_ID],
        .has_user = api_has(request, FIELD_USER_ID),
        .extend = request->text[FIELD_EXTEND],
        .has_extend = api_has(request, FIELD_EXTEND),
        .code = request->code,
        .msg = json[FIELD_MSG].value.text,
        .data = json[FIELD_DATA].value.text,
        .send_user = json[FIELD_SEND_USER_ID].value.text,
        .message_id = json[FIELD_MESSAGE_ID].value.text,
        .once = json_is_true(json[FIELD_ONCE].value),
        .close_code = WS_CLOSE_NORMAL,
        .reason = request->text[FIELD_REASON],
        .groups = json[FIELD_GROUP_NAMES].value.text,
        .users = json[FIELD_USER_IDS].value.text,
        .wide = json_is_true(json[FIELD_SYSTEM].value) || json_is_true(json[FIELD_GROUPS].value),
        .after = request->text[FIELD_AFTER],
        .limit = api_has(request, FIELD_LIMIT) ? (unsigned)request->limit : API_PAGE,
    };
    if (command->once && !request->text[FIELD_MESSAGE_ID].length)
        return api_bad_field(request, FIELD_MESSAGE_ID, "is missing: once needs it");
    if ((kind != COMMAND_CLOSE_CLIENT && kind != COMMAND_CLOSE_USER) ||
        !api_has(request, FIELD_CODE))
        return true;
    command->close_code = (unsigned)request->code;
    return command_may_close_with(request->code) ||
           api_bad_field(request, FIELD_CODE,
                         "must be 1000, from 3000 to 4399, or from 4500 to 4999");
}

/* The `data` of a response to a command of roster.h. */
static void api_write_roster(struct buf *out, const struct cluster_result *done)
{
    const struct result *result = &done->result;
    struct str list = str_of(&result->list), next, seen = {0};

    switch (done->command) {
    case COMMAND_COUNT_CLIENTS:
        buf_append(out, STR("{"));
        buf_append(out, list);
        break;
    case COMMAND_LIST_CLIENTS:
    case COMMAND_LIST_GROUPS:
        next = roster_split(&list);
        if (done->command == COMMAND_LIST_CLIENTS)
            seen = roster_split_seen(&list);
        buf_append(out, done->command == COMMAND_LIST_GROUPS ? STR("{\"groups\":[")
                                                             : STR("{\"clients\":["));
        buf_append(out, list);
        buf_append(out, STR("],\"next\":"));
        buf_append(out, next);
        buf_append(out, seen.length ? STR(",\"seen\":[") : STR(""));
        buf_append(out, seen);
        buf_append(out, seen.length ? STR("]") : STR(""));
        break;
    case COMMAND_CLOSE_USER:
        buf_print(out, "{\"closed\":%" PRIu64, result->matched);
        break;
    default:
        buf_print(out, "{\"matched\":%" PRIu64 ",\"queued\":%" PRIu64 ",\"dropped\":%" PRIu64,
                  result->matched, result->queued, result->dropped);
    }
    buf_append(out, done->incomplete ? STR(",\"incomplete\":true}") : STR("}"));
}

/* The `data` of a response to a command that succeeded; empty if there is none. */
static void api_write_data(struct buf *out, const struct cluster_result *done)
{
    const struct result *result = &done->result;
    bool sent = done->command == COMMAND_SEND_TO_CLIENTS;
    bool list = done->command == COMMAND_ONLINE_LIST;
    bool repeated = result->repeated && !result->matched; /* and nothing was sent now */
    bool receipt = done->receipt || repeated;

    if (done->command >= COMMAND_COUNT_CLIENTS) {
        api_write_roster(out, done);
        return;
    }
    if (done->command == COMMAND_CLIENT_INFO)
        buf_append(out, str_of(&result->list));
    if (!sent && !list && !receipt)
        return;
    buf_append(out, sent ? STR("{\"failed\":[") : STR("{"));
    if (list)
        buf_print(out, "\"count\":%" PRIu64 ",\"list\":[", result->count);
    buf_append(out, str_of(&result->list));
    if (sent || list)
        buf_append(out, STR("]"));
    if (receipt) {
        buf_append(out, sent ? STR(",\"messageId\":") : STR("\"messageId\":"));
        buf_append(out, done->message_id);
        buf_print(out, ",\"matched\":%" PRIu64 ",\"queued\":%" PRIu64 ",\"dropped\":%" PRIu64,
                  result->matched, result->queued, result->dropped);
        if (result->held)
            buf_print(out, ",\"held\":%" PRIu64, result->held);
    }
    if (repeated)
        buf_append(out, STR(",\"repeated\":true"));
    if ((list || receipt) && done->incomplete)
        buf_append(out, STR(",\"incomplete\":true"));
    buf_append(out, STR("}"));
}

void api_finish_command(const struct cluster_result *done, struct api_response *response)
{
    enum result_code code = done->result.code;
    struct buf data = {0};
    /* a receipt itself says what became of the message, also that a slow client dropped it */
    bool success =
        code == RESULT_SUCCESS || (code == RESULT_OFFLINE && done->receipt && done->result.matched);
    int status = code == RESULT_UNREACHABLE ? 503
                 : code == RESULT_LIMIT     ? 429
                 : code == RESULT_MALFORMED ? 400
                                            : 200;

    if (!success) {
        api_reject(response, status, code, done->result.error);
        return;
    }
    api_write_data(&data, done);
    api_succeed(response, &data);
}

/* Makes a message id, for a receipt that was asked for without one. */
static bool api_make_id(struct buf *id)
{
    unsigned char number[8];
    bool good = crypto_random(number, sizeof number);

    buf_append(id, STR("\""));
    buf_append_hex(id, (struct str){(const char *)number, sizeof number});
    buf_append(id, STR("\""));
    return good;
}

static enum api_result api_run_command(struct api_request *request, enum command_kind kind)
{
    struct api *api = request->api;
    struct cluster_result done = {.command = kind,
                                  .receipt = json_is_true(request->json[FIELD_RECEIPT].value)};
    char space[18];
    struct buf id = BUF_INIT(space);
    struct command command;
    enum cluster_status status;

    if (!api_make_command(request, kind, &command))
        return API_DONE;
    if (done.receipt && !command.message_id.length) {
        if (!api_make_id(&id)) {
            api_reject(request->response, 503, RESULT_UNREACHABLE, "no random bytes are available");
            return API_DONE;
        }
        command.message_id = str_of(&id);
    }
    done.message_id = command.message_id;
    status = cluster_apply(api->cluster, api->hub, &command, done.receipt,
                           request->call->request_id, &done.result);
    if (status == CLUSTER_DONE)
        api_finish_command(&done, request->response);
    buf_free(&done.result.list);
    return status == CLUSTER_DONE ? API_DONE : API_LATER;
}

/* --- tickets --------------------------------------------------------------------------------- */

#define SESSION_MAX (3650 * 86400) /* seconds */

/* Reads a number of seconds, if the body has it. */
static bool api_read_seconds(struct api_request *request, enum api_field field, int64_t least,
                             int64_t most, int64_t *seconds)
{
    if (!api_has(request, field) || (json_decode_integer(request->json[field].value, seconds) &&
                                     *seconds >= least && *seconds <= most))
        return true;
    return api_print(request->response, 400, RESULT_MALFORMED,
                     "field %s must be from %" PRId64 " to %" PRId64 " seconds%s",
                     request->json[field].name.at, least, most,
                     field == FIELD_TTL ? ", ticket_max" : "");
}

/* Makes the claims of a ticket, and finds how long it is good for. */
static bool api_make_claims(struct api_request *request, struct ticket_claims *claims, int64_t *ttl)
{
    const struct config *config = request->api->config;
    int64_t most = (int64_t)config->ticket_max, session = 0;
    struct json_value groups = request->json[FIELD_TICKET_GROUPS].value;

    *ttl = (int64_t)config->ticket_ttl < most ? (int64_t)config->ticket_ttl : most;
    if (!api_read_seconds(request, FIELD_TTL, 1, most, ttl) ||
        !api_read_seconds(request, FIELD_SESSION, 0, SESSION_MAX, &session))
        return false;
    if (api_has(request, FIELD_TICKET_GROUPS) && !ticket_check_groups(groups))
        return api_bad_field(
            request, FIELD_TICKET_GROUPS,
            "must be at most 64 names of 1 to 128 bytes, without control characters");
    *claims = (struct ticket_claims){.system = request->system,
                                     .user = request->text[FIELD_USER_ID],
                                     .extend = request->text[FIELD_EXTEND],
                                     .groups = groups.text,
                                     .end = session ? request->call->unix_now + session : 0};
    return true;
}

static enum api_result api_give_ticket(struct api_request *request)
{
    struct api *api = request->api;
    struct ticket_claims claims;
    struct buf data = {0};
    uint64_t version = 0;
    int64_t ttl = 0;
    enum api_result result;
    bool good;

    if (!api_find_ticket_version(request, &version, &result))
        return result;
    if (!api_make_claims(request, &claims, &ttl))
        return API_DONE;
    buf_append(&data, STR("{\"ticket\":\""));
    good =
        ticket_write(&data, &api->keys->keys[0], version, &claims, request->call->unix_now + ttl);
    buf_print(&data, "\",\"expiresIn\":%" PRId64 "}", ttl);
    if (good || data.failed) {
        api_succeed(request->response, &data);
        return API_DONE;
    }
    buf_free(&data);
    api_reject(request->response, 400, RESULT_MALFORMED,
               "userId, extend and groups are too long together: a ticket has at most 4096 bytes");
    return API_DONE;
}

/* --- routes ---------------------------------------------------------------------------------- */

/* A path takes POST and OPTIONS. The action decides what the head must have: to register the
 * Register-Key, to log in nothing, for the others the Token; a password is set with either. */
struct api_route {
    struct str path;
    enum {
        ACTION_REGISTER,
        ACTION_LOGIN,
        ACTION_SET_PASSWORD,
        ACTION_ACCOUNT,
        ACTION_TICKET,
        ACTION_WEBHOOK_STATUS,
        ACTION_COMMAND
    } action;
    int kind;                    /* enum command_kind of a command, else enum account_job_kind */
    unsigned required, optional; /* sets of fields; a string in both may be empty */
};

#define F(field) (1u << FIELD_##field)
#define MESSAGE (F(CODE) | F(MSG) | F(DATA))
#define EXTRAS (F(SEND_USER_ID) | F(MESSAGE_ID) | F(RECEIPT) | F(ONCE))
#define PAGE (F(AFTER) | F(LIMIT))
#define ACCOUNT (F(SYSTEM_ID) | F(PASSWORD))
#define COMMAND(path, kind) STR_INIT("/api/" path), ACTION_COMMAND, COMMAND_##kind
#define JOB(path, action, kind) STR_INIT("/api/" path), ACTION_##action, ACCOUNT_##kind

static const struct api_route api_routes[] = {
    {JOB("register", REGISTER, REGISTER), ACCOUNT, 0},
    {JOB("login", LOGIN, LOGIN), ACCOUNT, 0},
    {JOB("set_password", SET_PASSWORD, SET_PASSWORD), F(NEW_PASSWORD), ACCOUNT},
    {JOB("delete_system", ACCOUNT, DELETE), F(PASSWORD), 0},
    {JOB("ticket_key", ACCOUNT, ROTATE_KEY), 0, F(ROTATE)},
    {JOB("set_webhook", ACCOUNT, SET_WEBHOOK), F(URL), F(URL) | F(EVENTS) | F(ROTATE)},
    {STR_INIT("/api/webhook_status"), ACTION_WEBHOOK_STATUS, 0, 0, 0},
    {COMMAND("send_to_client", SEND_TO_CLIENT), F(CLIENT_ID) | MESSAGE, EXTRAS},
    {COMMAND("send_to_clients", SEND_TO_CLIENTS), F(CLIENT_IDS) | MESSAGE, EXTRAS},
    {COMMAND("send_to_group", SEND_TO_GROUP), F(GROUP_NAME) | MESSAGE, EXTRAS | F(EXCLUDE)},
    {COMMAND("send_to_user", SEND_TO_USER), F(USER_ID) | MESSAGE, EXTRAS},
    {COMMAND("send_to_system", SEND_TO_SYSTEM), MESSAGE, EXTRAS},
    {COMMAND("bind_to_group", BIND), F(CLIENT_ID) | F(GROUP_NAME), F(USER_ID) | F(EXTEND)},
    {COMMAND("unbind_from_group", UNBIND), F(CLIENT_ID) | F(GROUP_NAME), 0},
    {COMMAND("get_online_list", ONLINE_LIST), F(GROUP_NAME), 0},
    {COMMAND("close_client", CLOSE_CLIENT), F(CLIENT_ID), F(CODE) | F(REASON)},
    {COMMAND("client_info", CLIENT_INFO), F(CLIENT_ID), 0},
    {COMMAND("count", COUNT_CLIENTS), 0, F(SYSTEM) | F(GROUP_NAMES) | F(USER_IDS)},
    {COMMAND("list_clients", LIST_CLIENTS), 0, F(GROUP_NAME) | F(USER_ID) | F(GROUPS) | PAGE},
    {COMMAND("list_groups", LIST_GROUPS), 0, F(PREFIX) | PAGE},
    {COMMAND("bind_user_to_group", BIND_USER), F(USER_ID) | F(GROUP_NAME), 0},
    {COMMAND("unbind_user_from_group", UNBIND_USER), F(USER_ID) | F(GROUP_NAME), 0},
    {COMMAND("close_user", CLOSE_USER), F(USER_ID), F(CODE) | F(REASON) | F(EXCEPT)},
    {STR_INIT("/api/ticket"), ACTION_TICKET, 0, 0,
     F(USER_ID) | F(EXTEND) | F(TICKET_GROUPS) | F(TTL) | F(SESSION)},
};

#define KNOWN_ROUTES (API_ROUTES - 1)
_Static_assert(sizeof api_routes / sizeof api_routes[0] == KNOWN_ROUTES, "API_ROUTES counts them");

unsigned api_route(struct str path)
{
    unsigned route = 0;

    while (route < KNOWN_ROUTES && !str_equal(api_routes[route].path, path))
        route++;
    return route;
}

struct str api_path(unsigned route)
{
    return route < KNOWN_ROUTES ? api_routes[route].path : (struct str){0};
}

/* --- the head -------------------------------------------------------------------------------- */

static bool api_check_register_key(const struct api *api, const struct http_request *request,
                                   struct api_response *response)
{
    struct str key = {0};

    if (api->config->registration == REGISTER_OPEN)
        return true;
    if (api->config->registration == REGISTER_CLOSED)
        return api_reject(response, 403, RESULT_MALFORMED, "registration is closed");
    return (http_header(request, STR("Register-Key"), &key) == 1 &&
            crypto_equal(key, str_from(api->config->register_key))) ||
           api_reject(response, 401, RESULT_NO_TOKEN, "Register-Key header missing or wrong");
}

/* Whoever has the Register-Key sets a forgotten password. */
static bool api_check_reset(const struct api *api, const struct http_request *request,
                            struct api_response *response)
{
    if (api->config->registration != REGISTER_KEY)
        return api_reject(response, 403, RESULT_MALFORMED,
                          "only where [auth] register has a key does it set a password");
    return api_check_register_key(api, request, response);
}

/* Why a call has no good token. Programs written for go-websocket 1.0 send their name alone. */
static const char *api_token_error(const struct http_request *request, struct str token)
{
    struct str name;

    if (token.at)
        return "Token header forged or expired";
    return http_header(request, STR("SystemId"), &name)
               ? "Token header missing: log in with the systemId's password and send the token in "
                 "the Token header; SystemId has no meaning (docs/migrating-from-go-websocket.md)"
               : "Token header missing";
}

/* Finds the system that the Token header names, if it is registered and the token is of its
 * account. */
static bool api_check_token(struct api *api, const struct api_call *call, struct buf *system,
                            struct api_response *response)
{
    struct str token = {0};
    uint64_t generation;

    if (http_header(call->request, STR("Token"), &token) != 1 ||
        !crypto_check_token(api->keys, &api->tokens, token, call->unix_now, system, &generation))
        return api_reject(response, 401, RESULT_NO_TOKEN, api_token_error(call->request, token));
    switch (account_check_generation(api->accounts, str_of(system), generation)) {
    case ACCOUNT_TOKEN_REVOKED:
        return api_reject(response, 401, RESULT_NO_TOKEN,
                          "Token header revoked: the account is a new one, or has a new password");
    case ACCOUNT_TOKEN_ORPHAN: /* the accounts' file was restored or removed */
        return api_reject(response, 200, RESULT_UNKNOWN_SYSTEM, "systemId is not registered");
    case ACCOUNT_TOKEN_UNKNOWN:
        return api_reject_for(response, 503, RESULT_UNREACHABLE,
                              "it is not known yet whether the Token was revoked", 1);
    default:
        return true;
    }
}

/* True for POST on a known path. OPTIONS gets a good response, everything else is rejected. */
static bool api_check_method(const struct http_request *request, const struct api_route *route,
                             struct api_response *response)
{
    bool options = str_equal(request->method, STR("OPTIONS"));

    if (!route && !(options && str_equal(request->path, STR("*"))))
        return api_reject(response, 404, RESULT_MALFORMED,
                          http_header_has(request, STR("Upgrade"), STR("websocket"))
                              ? "clients connect to /ws?systemId=…"
                              : "unknown path");
    if (route && str_equal(request->method, STR("POST")))
        return true;
    if (options)
        api_reject(response, 200, RESULT_SUCCESS, "success");
    else
        api_reject(response, 405, RESULT_MALFORMED, "this path takes POST");
    response->allow = route ? "POST, OPTIONS" : "GET, POST, OPTIONS";
    return false;
}

/* The host of "scheme://host[:port]"; empty if there is none. */
static struct str api_origin_host(struct str origin)
{
    str_cut(&origin, ':');
    if (origin.length < 2 || memcmp(origin.at, "//", 2) != 0)
        return (struct str){0};
    return http_host_name(str_skip(origin, 2));
}

/* True if a browser sends the request for a page of another site. Today's browsers say so in
 * Sec-Fetch-Site, older ones send Origin alone, and programs neither. */
static bool api_is_foreign(const struct config *config, const struct http_request *request,
                           struct str *origin)
{
    struct str site = {0}, host;
    size_t sites = http_header(request, STR("Sec-Fetch-Site"), &site);
    size_t origins = http_header(request, STR("Origin"), origin);

    if (sites || !origins)
        return http_header_has(request, STR("Sec-Fetch-Site"), STR("cross-site"));
    host = api_origin_host(*origin);
    if (origins == 1 && host.length && str_equal_nocase(host, http_host_name(request->host)))
        return false;
    return origins > 1 || !config->allowed_origins[0] ||
           !host_origin_is_allowed(str_from(config->allowed_origins), *origin);
}

#define PRINTABLE_MAX 100

/* Writes the beginning of a header's value, which may have any bytes, as printable ASCII. */
static const char *api_printable(char out[PRINTABLE_MAX + 1], struct str text)
{
    size_t i = 0;

    for (; i < text.length && i < PRINTABLE_MAX; i++)
        out[i] = (char)(text.at[i] > 0x20 && text.at[i] < 0x7f ? text.at[i] : '?');
    out[i] = '\0';
    return out;
}

static bool api_check_site(const struct api *api, const struct http_request *request,
                           struct api_response *response)
{
    char from[PRINTABLE_MAX + 1], host[PRINTABLE_MAX + 1];
    struct str origin = STR("(none)");

    return !api_is_foreign(api->config, request, &origin) ||
           api_print(response, 403, RESULT_MALFORMED,
                     "Origin %s is foreign to Host %s: pages of other sites may not call the "
                     "API (a proxy passes Host on)",
                     api_printable(from, origin), api_printable(host, request->host));
}

static bool api_check_coding(const struct http_request *request, struct api_response *response)
{
    char text[PRINTABLE_MAX + 1];
    struct str coding = {0};
    size_t codings = http_header(request, STR("Content-Encoding"), &coding);

    return codings == 0 ||
           (codings == 1 && (!coding.length || str_equal_nocase(coding, STR("identity")))) ||
           api_print(response, 415, RESULT_MALFORMED,
                     "Content-Encoding %s is not understood: send the body as it is",
                     api_printable(text, coding));
}

static bool api_check_ready(const struct api *api, struct api_response *response)
{
    const char *reason = cluster_not_ready_reason(api->cluster);

    return !reason || api_reject_for(response, 503, RESULT_UNREACHABLE, reason, 1);
}

static bool api_check_rate(struct api *api, struct str system, int64_t now,
                           struct api_response *response)
{
    uint32_t hash = str_hash(system, api->seed);

    return buckets_take(&api->rates, system, hash, api->config->api_rate, now) ||
           api_reject_for(response, 429, RESULT_LIMIT,
                          "more API calls a second than api_rate allows", 1);
}

/* Checks what says who calls; `system` receives the name, if it is that of a Token. */
static bool api_check_caller(struct api *api, const struct api_call *call,
                             const struct api_route *route, struct buf *system,
                             struct api_response *response)
{
    struct str ignored;

    switch (route->action) {
    case ACTION_LOGIN:
        return true;
    case ACTION_REGISTER:
        return api_check_register_key(api, call->request, response);
    case ACTION_SET_PASSWORD:
        if (http_header(call->request, STR("Register-Key"), &ignored) &&
            !http_header(call->request, STR("Token"), &ignored))
            return api_check_reset(api, call->request, response);
        break;
    default:
        break;
    }
    return api_check_token(api, call, system, response);
}

/* Makes all checks of the head; `system` receives the caller's name. */
static bool api_check_head(struct api *api, const struct api_call *call, struct buf *system,
                           struct api_response *response)
{
    const struct http_request *request = call->request;
    const struct api_route *route = call->route < KNOWN_ROUTES ? &api_routes[call->route] : NULL;

    return api_check_method(request, route, response) && api_check_site(api, request, response) &&
           api_check_ready(api, response) && api_check_caller(api, call, route, system, response) &&
           api_check_coding(request, response) &&
           (!system->length || api_check_rate(api, str_of(system), call->now, response));
}

bool api_check(struct api *api, struct api_call *call, struct api_response *response)
{
    struct buf system = BUF_INIT(api->system);
    bool good = api_check_head(api, call, &system, response);

    call->system = str_of(&system);
    if (!good)
        response->system = call->system;
    return good;
}

/* --- handling -------------------------------------------------------------------------------- */

#define DECODED_KEPT 65536 /* bytes of memory kept from one request to the next */

enum api_result api_handle(struct api *api, const struct api_call *call,
                           struct api_response *response)
{
    struct api_request request = {
        .api = api, .call = call, .system = call->system, .response = response};
    const struct api_route *route = &api_routes[call->route];
    struct buf system = BUF_INIT(api->system);
    enum api_result result;

    /* the body came later than the head: the token may be revoked now, the cluster not ready */
    if (!call->system.length && route->action > ACTION_LOGIN) {
        if (!api_check_ready(api, response) ||
            !api_check_caller(api, call, route, &system, response))
            return API_DONE;
        request.system = str_of(&system);
    }
    if (!api_read_fields(&request, route->required, route->optional))
        result = API_DONE;
    else if (route->action == ACTION_COMMAND)
        result = api_run_command(&request, (enum command_kind)route->kind);
    else if (route->action == ACTION_TICKET)
        result = api_give_ticket(&request);
    else if (route->action == ACTION_WEBHOOK_STATUS)
        result = api_send_webhook_status(&request);
    else
        result = api_start_job(&request, (enum account_job_kind)route->kind);
    if (result != API_LATER)
        response->system = request.system;
    if (api->decoded.capacity > DECODED_KEPT)
        buf_free(&api->decoded);
    return result;
}

void api_free(struct api *api)
{
    buckets_free(&api->rates);
    buf_free(&api->decoded);
    crypto_mac_free(&api->ticket_key.mac);
}

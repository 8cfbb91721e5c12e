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
 * response then. Nothing of the request is kept meanwhile but what the job or the cluster copied.
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
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- fields ---------------------------------------------------------------------------------- */

enum api_field {
    FIELD_SYSTEM_ID,
    FIELD_PASSWORD,
    FIELD_CLIENT_ID,
    FIELD_CLIENT_IDS,
    FIELD_GROUP_NAME,
    FIELD_USER_ID,
    FIELD_EXTEND,
    FIELD_CODE,
    FIELD_MSG,
    FIELD_DATA,
    FIELD_SEND_USER_ID,
    FIELD_MESSAGE_ID,
    FIELD_RECEIPT,
    FIELD_EXCLUDE,
    FIELD_REASON,
    FIELD_COUNT
};

enum api_field_type {
    TYPE_NAME,    /* a string of up to `max` bytes without control characters */
    TYPE_TEXT,    /* a string of up to `max` bytes */
    TYPE_RAW,     /* the same, passed on as it is; with a `max` of 0 it has no limit */
    TYPE_ANY,     /* any value, passed on as it is */
    TYPE_INTEGER, /* of 64 bits */
    TYPE_BOOLEAN,
    TYPE_STRINGS /* an array of strings */
};

struct api_field_rule {
    struct str name;
    enum api_field_type type;
    size_t max;
};

#define MESSAGE_ID_MAX 64
#define REASON_MAX (WS_CONTROL_MAX - 2)

static const struct api_field_rule api_fields[FIELD_COUNT] = {
    [FIELD_SYSTEM_ID] = {STR_INIT("systemId"), TYPE_NAME, ACCOUNT_NAME_MAX},
    [FIELD_PASSWORD] = {STR_INIT("password"), TYPE_TEXT, ACCOUNT_PASSWORD_MAX},
    [FIELD_CLIENT_ID] = {STR_INIT("clientId"), TYPE_RAW, 0},
    [FIELD_CLIENT_IDS] = {STR_INIT("clientIds"), TYPE_STRINGS, 0},
    [FIELD_GROUP_NAME] = {STR_INIT("groupName"), TYPE_NAME, 128},
    [FIELD_USER_ID] = {STR_INIT("userId"), TYPE_NAME, 128},
    [FIELD_EXTEND] = {STR_INIT("extend"), TYPE_TEXT, 1024},
    [FIELD_CODE] = {STR_INIT("code"), TYPE_INTEGER, 0},
    [FIELD_MSG] = {STR_INIT("msg"), TYPE_RAW, 0},
    [FIELD_DATA] = {STR_INIT("data"), TYPE_ANY, 0},
    [FIELD_SEND_USER_ID] = {STR_INIT("sendUserId"), TYPE_RAW, 0},
    [FIELD_MESSAGE_ID] = {STR_INIT("messageId"), TYPE_RAW, MESSAGE_ID_MAX},
    [FIELD_RECEIPT] = {STR_INIT("receipt"), TYPE_BOOLEAN, 0},
    [FIELD_EXCLUDE] = {STR_INIT("exclude"), TYPE_STRINGS, 0},
    [FIELD_REASON] = {STR_INIT("reason"), TYPE_TEXT, REASON_MAX},
};

/* A call while it is handled. */
struct api_request {
    struct api *api;
    const struct api_call *call;
    struct str system;                   /* the caller's, if the route needs a token */
    struct json_field json[FIELD_COUNT]; /* JSON_NONE: absent, or not for this route */
    struct str text[FIELD_COUNT];        /* strings, decoded */
    int64_t code;
    struct api_response *response;
};

/* --- responses ------------------------------------------------------------------------------- */

bool api_reject(struct api_response *response, int status, enum result_code code, const char *error)
{
    *response = (struct api_response){.status = status, .code = code};
    hub_write_envelope(&response->body, code, str_from(error), (struct str){0});
    return false;
}

static bool api_reject_for(struct api_response *response, int status, enum result_code code,
                           const char *error, unsigned retry_after)
{
    api_reject(response, status, code, error);
    response->retry_after = retry_after;
    return false;
}

#ifdef __GNUC__
__attribute__((format(printf, 4, 5)))
#endif
static bool
api_print(struct api_response *response, int status, enum result_code code, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return api_reject(response, status, code, text);
}

static bool api_bad_field(struct api_request *request, enum api_field field, const char *problem)
{
    return api_print(request->response, 400, RESULT_MALFORMED, "field %s %s",
                     api_fields[field].name.at, problem);
}

static void api_succeed(struct api_response *response, struct buf *data)
{
    *response = (struct api_response){.status = 200};
    hub_write_envelope(&response->body, RESULT_SUCCESS, STR("success"), str_of(data));
    response->body.failed |= data->failed;
    buf_free(data);
}

/* --- the body -------------------------------------------------------------------------------- */

static bool api_has(const struct api_request *request, enum api_field field)
{
    return request->json[field].value.type != JSON_NONE;
}

/* True for C0, DEL, and C1, whose UTF-8 form has two bytes. */
static bool api_has_control(struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text.at[i + 1] < 0xa0))
            return true;
    }
    return false;
}

/* Checks and decodes a string. An `optional` one may be empty: an empty name removes it. */
static bool api_check_string(struct api_request *request, enum api_field field, bool optional)
{
    const struct api_field_rule *rule = &api_fields[field];
    struct json_value value = request->json[field].value;
    struct buf *decoded = &request->api->decoded;
    size_t begin = decoded->length;
    struct str text;

    if (value.type != JSON_STRING)
        return api_bad_field(request, field, "must be a string");
    if (!rule->max)
        return true;
    if (!json_decode_string(value, decoded))
        return api_bad_field(request, field, "has half of a surrogate pair");
    text = (struct str){decoded->at + begin, decoded->length - begin};
    if (!text.length && !optional)
        return api_bad_field(request, field, "must not be empty");
    if (text.length > rule->max)
        return api_print(request->response, 400, RESULT_MALFORMED,
                         "field %s is too long; the limit in bytes is %zu", rule->name.at,
                         rule->max);
    if (rule->type == TYPE_NAME && api_has_control(text))
        return api_bad_field(request, field, "has a control character");
    request->text[field] = text;
    return true;
}

static bool api_are_strings(struct json_value array)
{
    struct json_value element;
    bool good = array.type == JSON_ARRAY;

    while (good && json_next_element(&array.text, &element))
        good = element.type == JSON_STRING;
    return good;
}

static bool api_check_field(struct api_request *request, enum api_field field, bool optional)
{
    struct json_value value = request->json[field].value;

    switch (api_fields[field].type) {
    case TYPE_ANY:
        return true;
    case TYPE_INTEGER:
        return json_decode_integer(value, &request->code) ||
               api_bad_field(request, field, "must be an integer of 64 bits");
    case TYPE_BOOLEAN:
        return value.type == JSON_BOOLEAN || api_bad_field(request, field, "must be true or false");
    case TYPE_STRINGS:
        return api_are_strings(value) ||
               api_bad_field(request, field, "must be an array of strings");
    default:
        return api_check_string(request, field, optional);
    }
}

/* Reads the body into the fields that the route takes. */
static bool api_read_fields(struct api_request *request, unsigned required, unsigned optional)
{
    static const char mark[] = {'\xef', '\xbb', '\xbf'}; /* byte order mark: no meaning in UTF-8 */
    struct str body = request->call->body, text = body;
    struct buf *decoded = &request->api->decoded;
    struct json_error error;

    for (int i = 0; i < FIELD_COUNT; i++)
        request->json[i].name = api_fields[i].name;
    if (body.length >= sizeof mark && memcmp(body.at, mark, sizeof mark) == 0)
        text = str_skip(body, sizeof mark);
    if (!json_parse_object(text, request->json, FIELD_COUNT, &error))
        return api_print(request->response, 400, RESULT_MALFORMED,
                         "the body is not valid JSON: %s, at byte %zu", error.reason,
                         body.length - text.length + error.offset + 1);
    decoded->length = 0;
    if (!buf_reserve(decoded, body.length)) {
        buf_free(decoded); /* clears the failure: it was of this request alone */
        return api_reject(request->response, 503, RESULT_UNREACHABLE, "out of memory");
    }
    for (enum api_field i = 0; i < FIELD_COUNT; i++) {
        if (!((required | optional) >> i & 1))
            request->json[i].value = (struct json_value){0};
        else if (api_has(request, i) && !api_check_field(request, i, optional >> i & 1))
            return false;
        else if (!api_has(request, i) && (required >> i & 1))
            return api_bad_field(request, i, "is missing");
    }
    return true;
}

/* --- commands -------------------------------------------------------------------------------- */

static bool api_make_command(struct api_request *request, enum command_kind kind,
                             struct command *command)
{
    const struct json_field *json = request->json;
    enum api_field clients = api_has(request, FIELD_EXCLUDE) ? FIELD_EXCLUDE : FIELD_CLIENT_IDS;

    *command = (struct command){
        .kind = kind,
        .system = request->system,
        .client = json[FIELD_CLIENT_ID].value,
        .clients = json[clients].value.text,
        .group = request->text[FIELD_GROUP_NAME],
        .user = request->text[FIELD_USER_ID],
        .has_user = api_has(request, FIELD_USER_ID),
        .extend = request->text[FIELD_EXTEND],
        .has_extend = api_has(request, FIELD_EXTEND),
        .code = request->code,
        .msg = json[FIELD_MSG].value.text,
        .data = json[FIELD_DATA].value.text,
        .send_user = json[FIELD_SEND_USER_ID].value.text,
        .message_id = json[FIELD_MESSAGE_ID].value.text,
        .close_code = WS_CLOSE_NORMAL,
        .reason = request->text[FIELD_REASON],
    };
    if (kind != COMMAND_CLOSE_CLIENT || !api_has(request, FIELD_CODE))
        return true;
    command->close_code = (unsigned)request->code;
    return hub_may_close_with(request->code) ||
           api_bad_field(request, FIELD_CODE,
                         "must be 1000, from 3000 to 4399, or from 4500 to 4999");
}

/* The `data` of a response to a command that succeeded; empty if there is none. */
static void api_write_data(struct buf *out, const struct cluster_result *done)
{
    const struct result *result = &done->result;
    bool sent = done->command == COMMAND_SEND_TO_CLIENTS;
    bool list = done->command == COMMAND_ONLINE_LIST;

    if (done->command == COMMAND_CLIENT_INFO)
        buf_append(out, str_of(&result->list));
    if (!sent && !list && !done->receipt)
        return;
    buf_append(out, sent ? STR("{\"failed\":[") : STR("{"));
    if (list)
        buf_print(out, "\"count\":%" PRIu64 ",\"list\":[", result->count);
    buf_append(out, str_of(&result->list));
    if (sent || list)
        buf_append(out, STR("]"));
    if (done->receipt) {
        buf_append(out, sent ? STR(",\"messageId\":") : STR("\"messageId\":"));
        buf_append(out, done->message_id);
        buf_print(out, ",\"matched\":%" PRIu64 ",\"queued\":%" PRIu64 ",\"dropped\":%" PRIu64,
                  result->matched, result->queued, result->dropped);
    }
    if ((list || done->receipt) && done->incomplete)
        buf_append(out, STR(",\"incomplete\":true"));
    buf_append(out, STR("}"));
}

void api_finish_command(const struct cluster_result *done, struct api_response *response)
{
    enum result_code code = done->result.code;
    struct buf data = {0};
    /* a receipt itself says what became of the message, also that a slow client dropped it */
    bool success = code == RESULT_SUCCESS ||
                   (code != RESULT_UNREACHABLE && done->receipt && done->result.matched);
    int status = code == RESULT_UNREACHABLE ? 503 : code == RESULT_LIMIT ? 429 : 200;

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

/* --- accounts -------------------------------------------------------------------------------- */

/* In the long run a password can be guessed once a second from everywhere together, and ten times a
 * minute from one address. */
void api_open(struct api *api)
{
    api->system_logins = (struct throttle){.burst = 100, .pause = 1000};
    api->address_logins = (struct throttle){.burst = 10, .pause = 6000};
}

static void api_reject_throttled(struct api_response *response, int64_t wait)
{
    api_reject_for(response, 429, RESULT_LIMIT, "too many logins of this system have failed",
                   wait > 1000 ? (unsigned)((wait + 999) / 1000) : 1);
}

/* The response to a job that failed. */
static void api_reject_job(struct api_response *response, enum account_outcome outcome,
                           const char *reason)
{
    static const struct {
        int status;
        enum result_code code;
        const char *error;
    } errors[] = {
        [ACCOUNT_EXISTS] = {200, RESULT_REGISTERED, "systemId is already registered"},
        [ACCOUNT_DENIED] = {200, RESULT_DENIED, "wrong systemId or password"},
        [ACCOUNT_UNSAVED] = {503, RESULT_UNREACHABLE, "the account could not be saved: "},
        [ACCOUNT_UNREACHABLE] = {503, RESULT_UNREACHABLE, ""},
        [ACCOUNT_FAILED] = {503, RESULT_UNREACHABLE, "the password could not be hashed"},
        [ACCOUNT_EVICTED] = {429, RESULT_LIMIT, "too many registrations and logins at once"},
    };
    bool reasoned = outcome == ACCOUNT_UNSAVED || outcome == ACCOUNT_UNREACHABLE;

    api_print(response, errors[outcome].status, errors[outcome].code, "%s%s", errors[outcome].error,
              reasoned ? reason : "");
    response->retry_after = outcome == ACCOUNT_EVICTED ? 5 : 0;
}

static void api_send_token(const struct api *api, struct str system, uint64_t generation,
                           int64_t unix_now, struct api_response *response)
{
    int64_t ttl = (int64_t)api->config->token_ttl;
    struct buf data = {0};

    buf_append(&data, STR("{\"token\":\""));
    data.failed |=
        !crypto_sign_token(&api->keys->keys[0], system, generation, unix_now + ttl, &data);
    buf_append(&data, STR("\",\"expiresIn\":"));
    buf_append_number(&data, ttl);
    buf_append(&data, STR("}"));
    api_succeed(response, &data);
}

static enum api_result api_submit(struct api_request *request, const struct account_request *job)
{
    struct api *api = request->api;

    switch (account_submit(api->accounts, job)) {
    case ACCOUNT_SUBMITTED:
        if (job->kind == ACCOUNT_LOGIN) { /* counts as a failure until api_finish knows better */
            throttle_fail(&api->system_logins, str_hash(job->name, api->seed), request->call->now);
            throttle_fail(&api->address_logins, str_hash(job->name, job->origin),
                          request->call->now);
        }
        return API_LATER;
    case ACCOUNT_COALESCED:
        return API_LATER;
    case ACCOUNT_QUEUE_FULL:
        api_reject_job(request->response, ACCOUNT_EVICTED, NULL);
        break;
    case ACCOUNT_THROTTLED: /* until the one that waits has had its turn */
        api_reject_throttled(request->response, job->delay - api->address_logins.pause);
        break;
    case ACCOUNT_NO_RESOURCES:
        api_reject_for(request->response, 503, RESULT_UNREACHABLE, "out of memory, or of threads",
                       5);
        break;
    }
    return API_DONE;
}

/* Verifies a password: one that was right before at once, others in a job. Where too many have
 * failed, the job is delayed until the throttle's pause is over. */
static enum api_result api_log_in(struct api_request *request, struct account_request *job)
{
    struct api *api = request->api;
    int64_t now = request->call->now;
    int64_t wait = throttle_wait(&api->system_logins, str_hash(job->name, api->seed), now);
    int64_t here = throttle_wait(&api->address_logins, str_hash(job->name, job->origin), now);
    uint64_t generation;

    switch (account_recall_login(api->accounts, job->name, job->password, &generation)) {
    case ACCOUNT_RECALL_HIT:
        api_send_token(api, job->name, generation, request->call->unix_now, request->response);
        return API_DONE;
    case ACCOUNT_RECALL_LIKELY:
        job->likely = true;
        return api_submit(request, job);
    default:
        break;
    }
    if (wait > api->address_logins.pause) { /* too long to keep a connection waiting */
        api_reject_throttled(request->response, wait);
        return API_DONE;
    }
    job->delay = wait > here ? wait : here;
    return api_submit(request, job);
}

static enum api_result api_start_job(struct api_request *request, enum account_job_kind kind)
{
    struct api *api = request->api;
    struct account_request job = {
        .kind = kind,
        .request_id = request->call->request_id,
        .origin = str_hash(conn_owner(request->call->address), api->seed),
        .name = request->text[FIELD_SYSTEM_ID],
        .password = request->text[FIELD_PASSWORD],
    };
    enum api_result result;

    memcpy(job.address, request->call->address, sizeof job.address);
    result = kind == ACCOUNT_LOGIN ? api_log_in(request, &job) : api_submit(request, &job);
    crypto_erase(api->decoded.at, api->decoded.length);
    return result;
}

void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *response)
{
    struct str name = {result->name, result->name_length};

    if (result->kind == ACCOUNT_LOGIN && result->outcome != ACCOUNT_DENIED && !result->coalesced) {
        throttle_forgive(&api->system_logins, str_hash(name, api->seed));
        throttle_forgive(&api->address_logins, str_hash(name, result->origin));
    }
    api->login_failures += result->outcome == ACCOUNT_DENIED;
    if (result->outcome != ACCOUNT_DONE)
        api_reject_job(response, result->outcome, result->reason);
    else if (result->kind == ACCOUNT_LOGIN)
        api_send_token(api, name, result->generation, unix_now, response);
    else
        api_reject(response, 200, RESULT_SUCCESS, "success");
}

/* --- routes ---------------------------------------------------------------------------------- */

/* A path takes POST and OPTIONS. The action decides what the head must have: to register the
 * Register-Key, for a command the Token. */
struct api_route {
    struct str path;
    enum { ACTION_REGISTER, ACTION_LOGIN, ACTION_COMMAND } action;
    enum command_kind command;
    unsigned required, optional; /* sets of fields */
};

#define F(field) (1u << FIELD_##field)
#define MESSAGE (F(CODE) | F(MSG) | F(DATA))
#define EXTRAS (F(SEND_USER_ID) | F(MESSAGE_ID) | F(RECEIPT))
#define ACCOUNT (F(SYSTEM_ID) | F(PASSWORD))
#define COMMAND(path, kind) STR_INIT("/api/" path), ACTION_COMMAND, COMMAND_##kind

static const struct api_route api_routes[] = {
    {STR_INIT("/api/register"), ACTION_REGISTER, 0, ACCOUNT, 0},
    {STR_INIT("/api/login"), ACTION_LOGIN, 0, ACCOUNT, 0},
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

/* Makes all checks of the head; `system` receives the caller's name. */
static bool api_check_head(struct api *api, const struct api_call *call, struct buf *system,
                           struct api_response *response)
{
    const struct http_request *request = call->request;
    const struct api_route *route = call->route < KNOWN_ROUTES ? &api_routes[call->route] : NULL;

    if (!api_check_method(request, route, response) || !api_check_site(api, request, response) ||
        !api_check_ready(api, response))
        return false;
    if (route->action == ACTION_REGISTER && !api_check_register_key(api, request, response))
        return false;
    if (route->action == ACTION_COMMAND && !api_check_token(api, call, system, response))
        return false;
    return api_check_coding(request, response) &&
           (route->action != ACTION_COMMAND ||
            api_check_rate(api, str_of(system), call->now, response));
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
    if (!call->system.length && route->action == ACTION_COMMAND) {
        if (!api_check_ready(api, response) || !api_check_token(api, call, &system, response))
            return API_DONE;
        request.system = str_of(&system);
    }
    if (!api_read_fields(&request, route->required, route->optional))
        result = API_DONE;
    else if (route->action == ACTION_COMMAND)
        result = api_run_command(&request, route->command);
    else
        result = api_start_job(&request,
                               route->action == ACTION_LOGIN ? ACCOUNT_LOGIN : ACCOUNT_REGISTER);
    if (result == API_DONE)
        response->system = request.system;
    if (api->decoded.capacity > DECODED_KEPT)
        buf_free(&api->decoded);
    return result;
}

void api_free(struct api *api)
{
    buckets_free(&api->rates);
    buf_free(&api->decoded);
}

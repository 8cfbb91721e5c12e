/* api.c - an HTTP request to a checked command to a JSON answer. */
#include "api.h"

#include "conn.h"
#include "json.h"
#include "ws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- fields ---------------------------------------------------------------------------------- */

enum field {
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

enum field_type {
    TYPE_NAME,    /* a string of `min` to `max` bytes without control characters */
    TYPE_TEXT,    /* a string of `min` to `max` bytes */
    TYPE_RAW,     /* a string, passed on as it is */
    TYPE_ANY,     /* any value, passed on as it is */
    TYPE_INTEGER, /* of 64 bits */
    TYPE_BOOLEAN,
    TYPE_STRINGS /* an array of strings */
};

struct field_rule {
    struct str name;
    enum field_type type;
    size_t min, max;
};

#define MESSAGE_ID_MAX 64
#define REASON_MAX (WS_CONTROL_MAX - 2)

static const struct field_rule rules[FIELD_COUNT] = {
    [FIELD_SYSTEM_ID] = {STR_INIT("systemId"), TYPE_NAME, 1, ACCOUNT_NAME_MAX},
    [FIELD_PASSWORD] = {STR_INIT("password"), TYPE_TEXT, 1, ACCOUNT_PASSWORD_MAX},
    [FIELD_CLIENT_ID] = {STR_INIT("clientId"), TYPE_RAW, 0, SIZE_MAX},
    [FIELD_CLIENT_IDS] = {STR_INIT("clientIds"), TYPE_STRINGS, 0, 0},
    [FIELD_GROUP_NAME] = {STR_INIT("groupName"), TYPE_NAME, 1, 128},
    [FIELD_USER_ID] = {STR_INIT("userId"), TYPE_NAME, 1, 128},
    [FIELD_EXTEND] = {STR_INIT("extend"), TYPE_TEXT, 0, 1024},
    [FIELD_CODE] = {STR_INIT("code"), TYPE_INTEGER, 0, 0},
    [FIELD_MSG] = {STR_INIT("msg"), TYPE_RAW, 0, SIZE_MAX},
    [FIELD_DATA] = {STR_INIT("data"), TYPE_ANY, 0, 0},
    [FIELD_SEND_USER_ID] = {STR_INIT("sendUserId"), TYPE_RAW, 0, SIZE_MAX},
    [FIELD_MESSAGE_ID] = {STR_INIT("messageId"), TYPE_RAW, 0, MESSAGE_ID_MAX},
    [FIELD_RECEIPT] = {STR_INIT("receipt"), TYPE_BOOLEAN, 0, 0},
    [FIELD_EXCLUDE] = {STR_INIT("exclude"), TYPE_STRINGS, 0, 0},
    [FIELD_REASON] = {STR_INIT("reason"), TYPE_TEXT, 0, REASON_MAX},
};

/* --- routes ---------------------------------------------------------------------------------- */

enum action { ACTION_REGISTER, ACTION_LOGIN, ACTION_COMMAND };

struct route {
    struct str path;
    enum action action;
    enum command_kind command;
    unsigned required, optional; /* sets of fields */
};

#define F(field) (1u << FIELD_##field)
#define MESSAGE (F(CODE) | F(MSG) | F(DATA))
#define MESSAGE_EXTRAS (F(SEND_USER_ID) | F(MESSAGE_ID) | F(RECEIPT))
#define ACCOUNT (F(SYSTEM_ID) | F(PASSWORD))

static const struct route routes[] = {
    {STR_INIT("/api/register"), ACTION_REGISTER, 0, ACCOUNT, 0},
    {STR_INIT("/api/login"), ACTION_LOGIN, 0, ACCOUNT, 0},
    {STR_INIT("/api/send_to_client"), ACTION_COMMAND, COMMAND_SEND_TO_CLIENT,
     F(CLIENT_ID) | MESSAGE, MESSAGE_EXTRAS},
    {STR_INIT("/api/send_to_clients"), ACTION_COMMAND, COMMAND_SEND_TO_CLIENTS,
     F(CLIENT_IDS) | MESSAGE, MESSAGE_EXTRAS},
    {STR_INIT("/api/send_to_group"), ACTION_COMMAND, COMMAND_SEND_TO_GROUP, F(GROUP_NAME) | MESSAGE,
     MESSAGE_EXTRAS | F(EXCLUDE)},
    {STR_INIT("/api/send_to_user"), ACTION_COMMAND, COMMAND_SEND_TO_USER, F(USER_ID) | MESSAGE,
     MESSAGE_EXTRAS},
    {STR_INIT("/api/send_to_system"), ACTION_COMMAND, COMMAND_SEND_TO_SYSTEM, MESSAGE,
     MESSAGE_EXTRAS},
    {STR_INIT("/api/bind_to_group"), ACTION_COMMAND, COMMAND_BIND, F(CLIENT_ID) | F(GROUP_NAME),
     F(USER_ID) | F(EXTEND)},
    {STR_INIT("/api/unbind_from_group"), ACTION_COMMAND, COMMAND_UNBIND,
     F(CLIENT_ID) | F(GROUP_NAME), 0},
    {STR_INIT("/api/get_online_list"), ACTION_COMMAND, COMMAND_ONLINE_LIST, F(GROUP_NAME), 0},
    {STR_INIT("/api/close_client"), ACTION_COMMAND, COMMAND_CLOSE_CLIENT, F(CLIENT_ID),
     F(CODE) | F(REASON)},
    {STR_INIT("/api/client_info"), ACTION_COMMAND, COMMAND_CLIENT_INFO, F(CLIENT_ID), 0},
};

#define KNOWN_ROUTES (API_ROUTES - 1)
_Static_assert(sizeof routes / sizeof routes[0] == KNOWN_ROUTES, "API_ROUTES counts them");

unsigned api_route(struct str path)
{
    unsigned route = 0;

    while (route < KNOWN_ROUTES && !str_equal(routes[route].path, path))
        route++;
    return route;
}

struct str api_path(unsigned route)
{
    return route < KNOWN_ROUTES ? routes[route].path : (struct str){0};
}

/* --- answers --------------------------------------------------------------------------------- */

void api_reject(struct api_response *answer, int status, enum result_code code, struct str error)
{
    *answer = (struct api_response){.status = status, .code = code};
    hub_write_envelope(&answer->body, code, error, (struct str){0});
}

/* Refuses with 400 and a message of up to four parts. Its value is false. */
static bool malformed(struct api_response *answer, struct str part1, struct str part2,
                      const char *part3, size_t number)
{
    char room[400];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};

    buf_append(&text, part1);
    buf_append(&text, part2);
    buf_append(&text, str_from(part3));
    if (number)
        buf_append_number(&text, (int64_t)number);
    api_reject(answer, 400, RESULT_MALFORMED, str_of(&text));
    return false;
}

static bool bad_field(struct api_response *answer, const struct field_rule *rule, const char *what,
                      size_t number)
{
    return malformed(answer, STR("field "), rule->name, what, number);
}

/* --- checking a body ------------------------------------------------------------------------- */

/* A request's fields: their JSON, and for strings what they mean. */
struct fields {
    struct json_field json[FIELD_COUNT];
    struct str text[FIELD_COUNT];
    int64_t code;
};

static bool has(const struct fields *fields, enum field field)
{
    return fields->json[field].value.type != JSON_NONE;
}

/* C0, DEL, and C1 as UTF-8 writes it. */
static bool has_control(struct str text)
{
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c < 0x20 || c == 0x7f)
            return true;
        if (c == 0xc2 && i + 1 < text.length && (unsigned char)text.at[i + 1] < 0xa0)
            return true;
    }
    return false;
}

static bool check_string(struct api *api, struct fields *fields, enum field field, bool optional,
                         struct api_response *answer)
{
    const struct field_rule *rule = &rules[field];
    struct json_value value = fields->json[field].value;
    size_t begin = api->decoded.length;
    struct str text;

    if (value.type != JSON_STRING)
        return bad_field(answer, rule, " must be a string", 0);
    if (rule->type == TYPE_RAW && rule->max == SIZE_MAX)
        return true; /* passed on as it is: what it means does not matter here */
    if (!json_decode_string(value, &api->decoded))
        return bad_field(answer, rule, " has half of a surrogate pair", 0);
    text = (struct str){api->decoded.at + begin, api->decoded.length - begin};
    if (text.length < rule->min && !optional)
        return bad_field(answer, rule, " must not be empty", 0);
    if (text.length > rule->max)
        return bad_field(answer, rule, " is too long; the limit in bytes is ", rule->max);
    if (rule->type == TYPE_NAME && has_control(text))
        return bad_field(answer, rule, " has a control character", 0);
    fields->text[field] = text;
    return true;
}

static bool check_strings(const struct fields *fields, enum field field,
                          struct api_response *answer)
{
    struct str rest = fields->json[field].value.text;
    struct json_value element;

    if (fields->json[field].value.type != JSON_ARRAY)
        return bad_field(answer, &rules[field], " must be an array of strings", 0);
    while (json_next_element(&rest, &element))
        if (element.type != JSON_STRING)
            return bad_field(answer, &rules[field], " must be an array of strings", 0);
    return true;
}

/* An `optional` name may be empty: that takes it off. */
static bool check_field(struct api *api, struct fields *fields, enum field field, bool optional,
                        struct api_response *answer)
{
    struct json_value value = fields->json[field].value;

    switch (rules[field].type) {
    case TYPE_NAME:
    case TYPE_TEXT:
    case TYPE_RAW:
        return check_string(api, fields, field, optional, answer);
    case TYPE_INTEGER:
        return json_decode_integer(value, &fields->code) ||
               bad_field(answer, &rules[field], " must be an integer of 64 bits", 0);
    case TYPE_BOOLEAN:
        return value.type == JSON_BOOLEAN ||
               bad_field(answer, &rules[field], " must be true or false", 0);
    case TYPE_STRINGS:
        return check_strings(fields, field, answer);
    case TYPE_ANY:
        break;
    }
    return true;
}

static bool out_of_memory(struct api_response *answer)
{
    api_reject(answer, 503, RESULT_UNREACHABLE, STR("out of memory"));
    return false;
}

/* Reads a body into fields. False and an answer if something the route needs is not right. */
static bool read_fields(struct api *api, const struct route *route, struct str body,
                        struct fields *fields, struct api_response *answer)
{
    static const char mark[] = {'\xef', '\xbb', '\xbf'}; /* of the byte order: it says nothing */
    struct json_error error;
    struct str text = body;

    for (int i = 0; i < FIELD_COUNT; i++)
        fields->json[i].name = rules[i].name;
    if (body.length >= sizeof mark && memcmp(body.at, mark, sizeof mark) == 0)
        text = (struct str){body.at + sizeof mark, body.length - sizeof mark};
    if (!json_parse_object(text, fields->json, FIELD_COUNT, &error))
        return malformed(answer, STR("the body is not valid JSON: "), str_from(error.reason),
                         ", at byte ", (size_t)(text.at - body.at) + error.offset + 1);
    /* what strings mean is never longer than what they are: the views do not move */
    api->decoded.length = 0;
    if (!buf_reserve(&api->decoded, body.length)) {
        buf_free(&api->decoded); /* and with it the failure: the next request is another one */
        return out_of_memory(answer);
    }
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (!has(fields, (enum field)i)) {
            if (route->required >> i & 1)
                return bad_field(answer, &rules[i], " is missing", 0);
        } else if ((route->required | route->optional) >> i & 1) {
            if (!check_field(api, fields, (enum field)i, route->optional >> i & 1, answer))
                return false;
        } else {
            fields->json[i].value = (struct json_value){0}; /* unknown to this route */
        }
    }
    return true;
}

/* --- commands -------------------------------------------------------------------------------- */

static bool make_command(const struct route *route, const struct fields *fields, struct str system,
                         struct command *command, struct api_response *answer)
{
    *command = (struct command){
        .kind = route->command,
        .system = system,
        .client = fields->json[FIELD_CLIENT_ID].value,
        .clients =
            fields->json[has(fields, FIELD_EXCLUDE) ? FIELD_EXCLUDE : FIELD_CLIENT_IDS].value.text,
        .group = fields->text[FIELD_GROUP_NAME],
        .user = fields->text[FIELD_USER_ID],
        .has_user = has(fields, FIELD_USER_ID),
        .extend = fields->text[FIELD_EXTEND],
        .has_extend = has(fields, FIELD_EXTEND),
        .code = fields->code,
        .msg = fields->json[FIELD_MSG].value.text,
        .data = fields->json[FIELD_DATA].value.text,
        .send_user = fields->json[FIELD_SEND_USER_ID].value.text,
        .message_id = fields->json[FIELD_MESSAGE_ID].value.text,
        .close_code = WS_CLOSE_NORMAL,
        .reason = fields->text[FIELD_REASON],
    };
    if (route->command != COMMAND_CLOSE_CLIENT || !has(fields, FIELD_CODE))
        return true;
    if (!hub_may_close_with(fields->code))
        return bad_field(answer, &rules[FIELD_CODE],
                         " must be 1000, from 3000 to 4399, or from 4500 to 4999", 0);
    command->close_code = (unsigned)fields->code;
    return true;
}

static void write_list(struct buf *out, const char *begin, const struct result *done)
{
    buf_append(out, str_from(begin));
    buf_append(out, str_of(&done->list));
    buf_append(out, STR("]"));
}

static void write_receipt(struct buf *out, const struct cluster_result *result)
{
    buf_append(out, STR("\"messageId\":"));
    buf_append(out, result->message_id);
    buf_append(out, STR(",\"matched\":"));
    buf_append_number(out, (int64_t)result->result.matched);
    buf_append(out, STR(",\"queued\":"));
    buf_append_number(out, (int64_t)result->result.queued);
    buf_append(out, STR(",\"dropped\":"));
    buf_append_number(out, (int64_t)result->result.dropped);
}

/* The `data` of a successful answer; empty if there is none. */
static void write_data(struct buf *out, const struct cluster_result *result)
{
    bool failed = result->command == COMMAND_SEND_TO_CLIENTS;
    bool counts = result->receipt || result->command == COMMAND_ONLINE_LIST;

    if (result->command == COMMAND_CLIENT_INFO)
        buf_append(out, str_of(&result->result.list));
    if (!failed && !counts)
        return;
    buf_append(out, STR("{"));
    if (failed)
        write_list(out, "\"failed\":[", &result->result);
    if (failed && result->receipt)
        buf_append(out, STR(","));
    if (result->receipt)
        write_receipt(out, result);
    if (result->command == COMMAND_ONLINE_LIST) {
        buf_append(out, STR("\"count\":"));
        buf_append_number(out, (int64_t)result->result.count);
        write_list(out, ",\"list\":[", &result->result);
    }
    if (counts && result->incomplete)
        buf_append(out, STR(",\"incomplete\":true"));
    buf_append(out, STR("}"));
}

void api_finish_command(const struct cluster_result *result, struct api_response *answer)
{
    const struct result *done = &result->result;
    struct buf data = {0};
    /* a receipt says itself what became of the message, also that a slow client dropped it */
    bool success = done->code == RESULT_SUCCESS || (result->receipt && done->matched);

    if (done->code == RESULT_UNREACHABLE || !success) {
        int status = done->code == RESULT_UNREACHABLE ? 503
                     : done->code == RESULT_LIMIT     ? 429
                                                          : 200;

        api_reject(answer, status, done->code, str_from(done->error));
        return;
    }
    write_data(&data, result);
    *answer = (struct api_response){.status = 200};
    hub_write_envelope(&answer->body, RESULT_SUCCESS, STR("success"), str_of(&data));
    answer->body.failed |= data.failed;
    buf_free(&data);
}

static enum api_result run_command(struct api *api, const struct route *route,
                                   const struct fields *fields, struct str system,
                                   uint64_t request_id, struct api_response *answer)
{
    struct cluster_result result = {.command = route->command,
                                    .receipt = json_is_true(fields->json[FIELD_RECEIPT].value)};
    char room[18] = "\"";
    struct buf id = {.at = room, .length = 1, .capacity = sizeof room, .limit = sizeof room};
    unsigned char number[8];
    struct command command;
    enum cluster_status status;

    if (!make_command(route, fields, system, &command, answer))
        return API_DONE;
    if (result.receipt && !command.message_id.length) {
        if (!crypto_random(number, sizeof number)) {
            api_reject(answer, 503, RESULT_UNREACHABLE, STR("no random bytes to be had"));
            return API_DONE;
        }
        buf_append_hex(&id, (struct str){(const char *)number, sizeof number});
        buf_append(&id, STR("\""));
        command.message_id = str_of(&id);
    }
    result.message_id = command.message_id;
    status = cluster_apply(api->cluster, api->hub, &command, result.receipt, request_id,
                           &result.result);
    if (status == CLUSTER_DONE)
        api_finish_command(&result, answer);
    buf_free(&result.result.list);
    return status == CLUSTER_DONE ? API_DONE : API_LATER;
}

/* --- who may call ---------------------------------------------------------------------------- */

static bool check_register_key(const struct api *api, const struct http_request *request,
                               struct api_response *answer)
{
    struct str key = {0};

    if (api->config->registration == REGISTER_OPEN)
        return true;
    if (api->config->registration == REGISTER_CLOSED) {
        api_reject(answer, 403, RESULT_MALFORMED, STR("registration is closed"));
        return false;
    }
    if (http_header(request, STR("Register-Key"), &key) == 1 &&
        crypto_equal(key, str_from(api->config->register_key)))
        return true;
    api_reject(answer, 401, RESULT_NO_TOKEN, STR("Register-Key header missing or wrong"));
    return false;
}

/* In the long run a password can be guessed once a second from everywhere together, and ten times a
 * minute from one address. */
void api_open(struct api *api)
{
    api->system_logins = (struct throttle){.burst = 100, .pause = 1000};
    api->address_logins = (struct throttle){.burst = 10, .pause = 6000};
}

static void answer_throttled(struct api_response *answer, int64_t wait)
{
    api_reject(answer, 429, RESULT_LIMIT, STR("too many logins of this system have failed"));
    answer->retry_after = wait > 1000 ? (unsigned)((wait + 999) / 1000) : 1;
}

static void answer_login(const struct api *api, struct str system, uint64_t generation,
                         int64_t unix_now, struct api_response *answer)
{
    int64_t ttl = (int64_t)api->config->token_ttl;
    struct buf data = {0};

    buf_append(&data, STR("{\"token\":\""));
    data.failed |=
        !crypto_sign_token(&api->keys->keys[0], system, generation, unix_now + ttl, &data);
    buf_append(&data, STR("\",\"expiresIn\":"));
    buf_append_number(&data, ttl);
    buf_append(&data, STR("}"));
    *answer = (struct api_response){.status = 200};
    hub_write_envelope(&answer->body, RESULT_SUCCESS, STR("success"), str_of(&data));
    answer->body.failed |= data.failed;
    buf_free(&data);
}

static void answer_crowded(struct api_response *answer)
{
    api_reject(answer, 429, RESULT_LIMIT, STR("too many registrations and logins at once"));
    answer->retry_after = 5;
}

static enum api_result submit(struct api *api, const struct account_request *request, int64_t now,
                              struct api_response *answer)
{
    switch (account_submit(api->accounts, request)) {
    case ACCOUNT_SUBMITTED:
        if (request->kind == ACCOUNT_LOGIN) { /* a failure, until it is known to be none */
            throttle_fail(&api->system_logins, str_hash(request->name, api->seed), now);
            throttle_fail(&api->address_logins, str_hash(request->name, request->origin), now);
        }
        return API_LATER;
    case ACCOUNT_COALESCED:
        return API_LATER;
    case ACCOUNT_QUEUE_FULL:
        answer_crowded(answer);
        break;
    case ACCOUNT_THROTTLED: /* until the one that waits has had its turn */
        answer_throttled(answer, request->delay - api->address_logins.pause);
        break;
    case ACCOUNT_NO_RESOURCES:
        api_reject(answer, 503, RESULT_UNREACHABLE, STR("out of memory, or of threads"));
        answer->retry_after = 5;
        break;
    }
    return API_DONE;
}

/* Has a password verified: one that was good before at once, others in their turn, and where too
 * many have failed, one when the throttle's next pause is over. */
static enum api_result log_in(struct api *api, struct account_request *request,
                              const struct api_call *call, struct api_response *answer)
{
    int64_t wait =
        throttle_wait(&api->system_logins, str_hash(request->name, api->seed), call->now);
    int64_t here =
        throttle_wait(&api->address_logins, str_hash(request->name, request->origin), call->now);
    enum account_recall recollection;
    uint64_t generation;

    recollection = account_recall_login(api->accounts, request->name, request->password, &generation);
    if (recollection == ACCOUNT_RECALL_HIT) {
        answer_login(api, request->name, generation, call->unix_now, answer);
        return API_DONE;
    }
    request->likely = recollection == ACCOUNT_RECALL_LIKELY;
    if (request->likely)
        return submit(api, request, call->now, answer);
    if (wait > api->address_logins.pause) { /* too long for a connection to be kept waiting */
        answer_throttled(answer, wait);
        return API_DONE;
    }
    request->delay = wait > here ? wait : here;
    return submit(api, request, call->now, answer);
}

static enum api_result start_job(struct api *api, const struct route *route,
                                 const struct fields *fields, const struct api_call *call,
                                 struct api_response *answer)
{
    struct account_request request = {.kind = route->action == ACTION_REGISTER ? ACCOUNT_REGISTER
                                                                               : ACCOUNT_LOGIN,
                                      .request_id = call->request_id,
                                      .origin = str_hash(conn_owner(call->address), api->seed),
                                      .name = fields->text[FIELD_SYSTEM_ID],
                                      .password = fields->text[FIELD_PASSWORD]};
    enum api_result result = request.kind == ACCOUNT_LOGIN
                                 ? log_in(api, &request, call, answer)
                                 : submit(api, &request, call->now, answer);

    crypto_erase(api->decoded.at, api->decoded.length);
    return result;
}

void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *answer)
{
    struct str name = {result->name, result->name_length};
    char text[ACCOUNT_REASON_MAX + 40];

    if (result->kind == ACCOUNT_LOGIN && result->outcome != ACCOUNT_DENIED && !result->joined) {
        throttle_forgive(&api->system_logins, str_hash(name, api->seed));
        throttle_forgive(&api->address_logins, str_hash(name, result->origin));
    }
    switch (result->outcome) {
    case ACCOUNT_EXISTS:
        api_reject(answer, 200, RESULT_REGISTERED, STR("systemId is already registered"));
        return;
    case ACCOUNT_DENIED:
        api->login_failures++;
        api_reject(answer, 200, RESULT_DENIED, STR("wrong systemId or password"));
        return;
    case ACCOUNT_UNSAVED:
        snprintf(text, sizeof text, "the account could not be saved: %s", result->reason);
        api_reject(answer, 503, RESULT_UNREACHABLE, str_from(text));
        return;
    case ACCOUNT_UNREACHABLE:
        api_reject(answer, 503, RESULT_UNREACHABLE, str_from(result->reason));
        return;
    case ACCOUNT_FAILED:
        api_reject(answer, 503, RESULT_UNREACHABLE, STR("the password could not be hashed"));
        return;
    case ACCOUNT_EVICTED:
        answer_crowded(answer);
        return;
    case ACCOUNT_DONE:
        break;
    }
    if (result->kind == ACCOUNT_LOGIN)
        answer_login(api, name, result->generation, unix_now, answer);
    else
        api_reject(answer, 200, RESULT_SUCCESS, STR("success"));
}

/* The system that the Token header names, if it is registered and the token is of its account. */
static bool check_token(struct api *api, const struct http_request *request, int64_t unix_now,
                        struct buf *system, struct api_response *answer)
{
    struct str token = {0};
    uint64_t generation;

    if (http_header(request, STR("Token"), &token) != 1 ||
        !crypto_check_token(api->keys, &api->tokens, token, unix_now, system, &generation)) {
        api_reject(answer, 401, RESULT_NO_TOKEN,
                   token.at ? STR("Token header forged or expired") : STR("Token header missing"));
        return false;
    }
    switch (account_check_generation(api->accounts, str_of(system), generation)) {
    case ACCOUNT_TOKEN_VALID:
        return true;
    case ACCOUNT_TOKEN_REVOKED:
        api_reject(answer, 401, RESULT_NO_TOKEN,
                   STR("Token header revoked: the account is a new one, or has a new password"));
        break;
    case ACCOUNT_TOKEN_ORPHAN: /* its file was put back or removed */
        api_reject(answer, 200, RESULT_UNKNOWN_SYSTEM, STR("systemId is not registered"));
        break;
    case ACCOUNT_TOKEN_UNKNOWN:
        api_reject(answer, 503, RESULT_UNREACHABLE,
                   STR("whether the Token was revoked is not known yet"));
        answer->retry_after = 1;
        break;
    }
    return false;
}

/* True if the method is right; else an answer, which for OPTIONS is a good one. */
static bool check_method(const struct http_request *request, const struct route *route,
                         struct api_response *answer)
{
    bool options = str_equal(request->method, STR("OPTIONS"));

    if (!route && !(options && str_equal(request->path, STR("*")))) {
        api_reject(answer, 404, RESULT_MALFORMED,
                   http_header_has(request, STR("Upgrade"), STR("websocket"))
                       ? STR("clients connect to /ws?systemId=…")
                       : STR("unknown path"));
        return false;
    }
    if (route && str_equal(request->method, STR("POST")))
        return true;
    if (options)
        api_reject(answer, 200, RESULT_SUCCESS, STR("success"));
    else
        api_reject(answer, 405, RESULT_MALFORMED, STR("this path takes POST"));
    answer->allow = route ? "POST, OPTIONS" : "GET, POST, OPTIONS";
    return false;
}

/* The host of "scheme://host[:port]"; empty if there is none. */
static struct str origin_host(struct str origin)
{
    str_cut(&origin, ':');
    if (origin.length < 2 || memcmp(origin.at, "//", 2) != 0)
        return (struct str){0};
    return http_host_name((struct str){origin.at + 2, origin.length - 2});
}

/* True if a browser sends the request for a page of another site. Browsers of today say so in
 * Sec-Fetch-Site, older ones send Origin alone, and programs neither. */
static bool is_foreign(const struct config *config, const struct http_request *request,
                       struct str *origin)
{
    struct str site = {0}, host;
    size_t sites = http_header(request, STR("Sec-Fetch-Site"), &site);
    size_t origins = http_header(request, STR("Origin"), origin);

    if (sites || !origins)
        return http_header_has(request, STR("Sec-Fetch-Site"), STR("cross-site"));
    host = origin_host(*origin);
    if (origins == 1 && host.length && str_equal_nocase(host, http_host_name(request->host)))
        return false;
    return origins > 1 || !config->allowed_origins[0] || !config_allows_origin(config, *origin);
}

/* Appends a header's value, which may have any bytes and any length, as printable ASCII. */
static void append_printable(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.length && i < 100; i++) {
        char c = text.at[i] > 0x20 && text.at[i] < 0x7f ? text.at[i] : '?';

        buf_append(out, (struct str){&c, 1});
    }
}

static bool check_site(const struct api *api, const struct http_request *request,
                       struct api_response *answer)
{
    char room[400];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct str origin = STR("(none)");

    if (!is_foreign(api->config, request, &origin))
        return true;
    buf_append(&text, STR("Origin "));
    append_printable(&text, origin);
    buf_append(&text, STR(" is foreign to Host "));
    append_printable(&text, request->host);
    buf_append(&text, STR(": pages of other sites may not call the API (a proxy passes Host on)"));
    api_reject(answer, 403, RESULT_MALFORMED, str_of(&text));
    return false;
}

static bool check_coding(const struct http_request *request, struct api_response *answer)
{
    char room[200];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct str coding = {0};
    size_t codings = http_header(request, STR("Content-Encoding"), &coding);

    if (codings == 0 ||
        (codings == 1 && (!coding.length || str_equal_nocase(coding, STR("identity")))))
        return true;
    buf_append(&text, STR("Content-Encoding "));
    append_printable(&text, coding);
    buf_append(&text, STR(" is not understood: send the body as it is"));
    api_reject(answer, 415, RESULT_MALFORMED, str_of(&text));
    return false;
}

static bool check_ready(const struct api *api, struct api_response *answer)
{
    const char *unready = cluster_not_ready_reason(api->cluster);

    if (!unready)
        return true;
    api_reject(answer, 503, RESULT_UNREACHABLE, str_from(unready));
    answer->retry_after = 1;
    return false;
}

static bool check_rate(struct api *api, struct str system, int64_t now, struct api_response *answer)
{
    if (buckets_take(&api->rates, system, str_hash(system, api->seed), api->config->api_rate, now))
        return true;
    api_reject(answer, 429, RESULT_LIMIT, STR("more API calls a second than api_rate allows"));
    answer->retry_after = 1;
    return false;
}

/* On behalf of a `system` that is found out. */
static bool check(struct api *api, const struct api_call *call, struct buf *system,
                  struct api_response *answer)
{
    const struct http_request *request = call->request;
    const struct route *route = call->route < KNOWN_ROUTES ? &routes[call->route] : NULL;

    if (!check_method(request, route, answer) || !check_site(api, request, answer) ||
        !check_ready(api, answer))
        return false;
    if (route->action == ACTION_REGISTER && !check_register_key(api, request, answer))
        return false;
    if (route->action == ACTION_COMMAND &&
        !check_token(api, request, call->unix_now, system, answer))
        return false;
    return check_coding(request, answer) &&
           (route->action != ACTION_COMMAND || check_rate(api, str_of(system), call->now, answer));
}

static struct buf system_room(struct api *api)
{
    return (struct buf){
        .at = api->system, .capacity = sizeof api->system, .limit = sizeof api->system};
}

bool api_check(struct api *api, struct api_call *call, struct api_response *answer)
{
    struct buf system = system_room(api);
    bool may = check(api, call, &system, answer);

    call->system = str_of(&system);
    if (!may)
        answer->system = call->system;
    return may;
}

#define DECODED_KEPT 65536 /* memory kept from one request to the next */

static enum api_result run(struct api *api, const struct route *route, const struct api_call *call,
                           struct str system, struct api_response *answer)
{
    struct fields fields = {0};
    enum api_result result = API_DONE;

    if (read_fields(api, route, call->body, &fields, answer)) {
        if (route->action == ACTION_COMMAND)
            result = run_command(api, route, &fields, system, call->request_id, answer);
        else
            result = start_job(api, route, &fields, call, answer);
    }
    if (api->decoded.capacity > DECODED_KEPT)
        buf_free(&api->decoded);
    return result;
}

enum api_result api_handle(struct api *api, const struct api_call *call,
                           struct api_response *answer)
{
    const struct route *route = &routes[call->route];
    struct buf room = system_room(api);
    struct str system = call->system;
    enum api_result result;

    /* the body came later than the head: the token, and the cluster, may not be what they were */
    if (!system.length && route->action == ACTION_COMMAND) {
        if (!check_ready(api, answer) ||
            !check_token(api, call->request, call->unix_now, &room, answer))
            return API_DONE;
        system = str_of(&room);
    }
    result = run(api, route, call, system, answer);
    if (result == API_DONE)
        answer->system = system;
    return result;
}

void api_free(struct api *api)
{
    buckets_free(&api->rates);
    buf_free(&api->decoded);
}

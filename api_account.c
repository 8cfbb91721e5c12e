/* api_account.c - registering, logging in and changing an account: jobs of the accounts' thread.
 *
 * A login that was good before is answered at once.
 * Others wait for their turn in a job. While a job runs that verifies a password, a login or not,
 * it counts as a failure on two throttles (GCRA), one of the system and one of the system and the
 * address, and is taken off when it turns out to be good. So many logins at once fail at most as
 * often as the throttles allow, and a wrong password from one address never locks out another.
 * Passwords are erased after use. Only the loop's thread runs this. */
#include "api_account.h"

#include "conn.h"
#include "ticket.h"
#include "webhook_client.h"

#include <inttypes.h>
#include <string.h>

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

static void api_reject_unknown(struct api_response *response)
{
    api_reject(response, 200, RESULT_UNKNOWN_SYSTEM, "systemId is not registered");
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

static void api_send_ticket_key(const struct api *api, struct str system, uint64_t version,
                                struct api_response *response)
{
    unsigned char key[CRYPTO_HASH_SIZE];
    struct buf data = {0};

    buf_append(&data, STR("{\"key\":\""));
    data.failed |= !ticket_derive_key(&api->keys->keys[0], version, system, key) ||
                   !crypto_base64url(&data, CRYPTO_BYTES(key));
    buf_append(&data, STR("\",\"version\":"));
    buf_append_number(&data, (int64_t)version);
    buf_append(&data, STR("}"));
    api_succeed(response, &data);
    crypto_erase(key, sizeof key);
}

static void api_send_secret(const struct api *api, struct str system, uint64_t version,
                            struct api_response *response)
{
    struct buf data = {0};

    buf_append(&data, STR("{\"secret\":\""));
    data.failed |= !webhook_append_secret(&data, api->keys, system, version);
    buf_append(&data, STR("\"}"));
    api_succeed(response, &data);
}

static enum api_result api_submit(struct api_request *request, const struct account_request *job)
{
    struct api *api = request->api;

    switch (account_submit(api->accounts, job)) {
    case ACCOUNT_SUBMITTED:
        if (account_job_verifies(
                job->kind)) { /* counts as a failure until api_finish knows better */
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

/* Answers a login with a password that was right before at once. Sets `likely` if only the shared
 * store must be asked. */
static bool api_recall(struct api_request *request, struct account_request *job)
{
    struct api *api = request->api;
    uint64_t generation;

    switch (account_recall_login(api->accounts, job->name, job->password, &generation)) {
    case ACCOUNT_RECALL_HIT:
        api_send_token(api, job->name, generation, request->call->unix_now, request->response);
        return true;
    case ACCOUNT_RECALL_LIKELY:
        job->likely = true;
        break;
    default:
        break;
    }
    return false;
}

/* Has a password verified by a job. Where too many have failed, the job is delayed until the
 * throttle's pause is over. */
static enum api_result api_verify(struct api_request *request, struct account_request *job)
{
    struct api *api = request->api;
    int64_t now = request->call->now;
    int64_t wait = throttle_wait(&api->system_logins, str_hash(job->name, api->seed), now);
    int64_t here = throttle_wait(&api->address_logins, str_hash(job->name, job->origin), now);

    if (job->kind == ACCOUNT_LOGIN && api_recall(request, job))
        return API_DONE;
    if (job->likely)
        return api_submit(request, job);
    if (wait > api->address_logins.pause) { /* too long to keep a connection waiting */
        api_reject_throttled(request->response, wait);
        return API_DONE;
    }
    job->delay = wait > here ? wait : here;
    return api_submit(request, job);
}

/* A field that this way of the call needs, though another one does not. */
static bool api_require(struct api_request *request, enum api_field field)
{
    if (!api_has(request, field))
        return api_bad_field(request, field, "is missing");
    return request->text[field].length || api_bad_field(request, field, "must not be empty");
}

/* With a Token the password must be right; with the Register-Key the system must be named. */
static enum api_result api_set_password(struct api_request *request, struct account_request *job)
{
    if (!api_require(request, request->system.length ? FIELD_PASSWORD : FIELD_SYSTEM_ID))
        return API_DONE;
    if (request->system.length)
        return api_verify(request, job);
    job->kind = ACCOUNT_RESET_PASSWORD;
    job->password = (struct str){0};
    return api_submit(request, job);
}

bool api_find_ticket_version(struct api_request *request, uint64_t *version,
                             enum api_result *result)
{
    int64_t since;

    *result = API_DONE;
    switch (account_ticket_version(request->api->accounts, request->system, version, &since)) {
    case ACCOUNT_TOKEN_VALID:
        return true;
    case ACCOUNT_TOKEN_UNKNOWN:
        api_reject_for(request->response, 503, RESULT_UNREACHABLE,
                       "the system's account cannot be looked up now", 1);
        *result = API_LOOK_UP;
        return false;
    default:
        api_reject_unknown(request->response);
        return false;
    }
}

/* The key of tickets: a new one, or that of now. */
static enum api_result api_ticket_key(struct api_request *request, struct account_request *job)
{
    enum api_result result;
    uint64_t version;

    if (json_is_true(request->json[FIELD_ROTATE].value))
        return api_submit(request, job);
    if (api_find_ticket_version(request, &version, &result))
        api_send_ticket_key(request->api, job->name, version, request->response);
    return result;
}

/* --- webhooks -------------------------------------------------------------------------------- */

static const struct str api_events[] = {[WEBHOOK_CONNECT] = STR_INIT("connect"),
                                        [WEBHOOK_DISCONNECT] = STR_INIT("disconnect"),
                                        [WEBHOOK_JOIN] = STR_INIT("join"),
                                        [WEBHOOK_LEAVE] = STR_INIT("leave"),
                                        [WEBHOOK_MESSAGE] = STR_INIT("message")};

/* The events that a webhook is to have, as bits. */
static bool api_read_events(struct api_request *request, uint64_t *events)
{
    struct str rest = request->json[FIELD_EVENTS].value.text;
    struct json_value name;

    *events = api_has(request, FIELD_EVENTS) ? 0 : (1u << WEBHOOK_MESSAGE) - 1;
    while (api_has(request, FIELD_EVENTS) && json_next_element(&rest, &name)) {
        char room[16];
        struct buf text = BUF_INIT(room);
        unsigned kind = 0;

        json_decode_string(name, &text);
        while (kind < WEBHOOK_END && !str_equal(api_events[kind], str_of(&text)))
            kind++;
        if (kind == WEBHOOK_END)
            return api_bad_field(request, FIELD_EVENTS,
                                 "must be of connect, disconnect, join, leave and message");
        *events |= 1u << kind;
    }
    return true;
}

static enum api_result api_set_webhook(struct api_request *request, struct account_request *job)
{
    struct str allow = str_from(request->api->config->webhook_allow), rest = allow;

    job->url = request->text[FIELD_URL];
    job->rotate = json_is_true(request->json[FIELD_ROTATE].value);
    if (job->url.length && !str_entry(&rest).length)
        api_bad_field(request, FIELD_URL, "must be empty: [webhook] allow names no receivers");
    else if (job->url.length && !receiver_is_allowed(allow, job->url))
        api_bad_field(request, FIELD_URL, "must begin with a URL that [webhook] allow names");
    else if (api_read_events(request, &job->events))
        return api_submit(request, job);
    return API_DONE;
}

/* Sets one webhook, unless the configuration does not allow its URL. */
static void api_apply_webhook(struct api *api, struct str name, const struct account_webhook *found)
{
    struct hub *hub = api->hub;
    bool allowed = receiver_is_allowed(str_from(api->config->webhook_allow), found->url);
    struct webhook_settings settings = {.url = allowed ? found->url : (struct str){0},
                                        .events = (unsigned)found->events,
                                        .version = found->version,
                                        .rotated_at = found->since};
    const char *why = NULL;

    if (found->url.length && !allowed)
        why = "[webhook] allow does not name its URL";
    if (hub->webhooks && (allowed || webhook_find(hub->webhooks, name)) &&
        !webhook_set(hub->webhooks, name, &settings, hub_count_clients(hub, name)))
        why = "out of memory";
    if (why)
        log_write(hub->log, LOG_WARN, "webhook is off",
                  (struct log_field[]){{.name = "system", .text = name},
                                       {.name = "reason", .text = str_from(why)},
                                       {0}});
}

void api_take_webhooks(struct api *api)
{
    struct account_webhook webhook;
    struct buf name = {0}, text = {0};

    while (account_next_webhook(api->accounts, &name, &text, &webhook)) {
        if (!name.failed)
            api_apply_webhook(api, str_of(&name), &webhook);
        buf_free(&name);
        buf_free(&text);
    }
}

static void api_write_delivery(struct buf *out, const struct webhook_delivery *delivery)
{
    buf_print(out, "{\"at\":%" PRId64 ",\"status\":%d,\"error\":", delivery->at, delivery->status);
    json_append_quoted(out, str_from(delivery->error ? delivery->error : ""));
    buf_print(out, ",\"events\":%u,\"attempt\":%u,\"ms\":%u}", delivery->events, delivery->attempt,
              delivery->took);
}

enum api_result api_send_webhook_status(struct api_request *request)
{
    struct webhooks *webhooks = request->api->hub->webhooks;
    const struct webhook *webhook = webhook_find(webhooks, request->system);
    struct webhook_report report = {.off = true};
    struct buf data = {0};
    const char *comma = "";

    if (webhook)
        webhook_read_report(webhooks, webhook, &report);
    buf_append(&data, STR("{\"url\":"));
    json_append_quoted(&data, report.settings.url);
    buf_append(&data, STR(",\"events\":["));
    for (unsigned kind = 0; kind < WEBHOOK_END; kind++)
        if (report.settings.events & 1u << kind) {
            buf_print(&data, "%s\"%s\"", comma, api_events[kind].at);
            comma = ",";
        }
    buf_print(&data, "],\"active\":%s,\"node\":", report.off ? "false" : "true");
    json_append_quoted(&data, str_from(webhook ? webhook_node(webhooks) : ""));
    buf_print(&data, ",\"epoch\":%" PRId64 ",\"queued\":%zu,\"lost\":%" PRIu64 ",\"deliveries\":[",
              report.epoch, report.count, report.lost);
    for (uint64_t i = 0; i < report.deliveries && i < WEBHOOK_DELIVERIES; i++) {
        buf_append(&data, i ? STR(",") : STR(""));
        api_write_delivery(&data, &report.last[(report.deliveries - 1 - i) % WEBHOOK_DELIVERIES]);
    }
    buf_append(&data, STR("]}"));
    api_succeed(request->response, &data);
    return API_DONE;
}

/* --- jobs ------------------------------------------------------------------------------------ */

static enum api_result api_begin_job(struct api_request *request, struct account_request *job)
{
    switch (job->kind) {
    case ACCOUNT_SET_PASSWORD:
        return api_set_password(request, job);
    case ACCOUNT_ROTATE_KEY:
        return api_ticket_key(request, job);
    case ACCOUNT_SET_WEBHOOK:
        return api_set_webhook(request, job);
    case ACCOUNT_LOGIN:
    case ACCOUNT_DELETE:
        return api_verify(request, job);
    default:
        return api_submit(request, job);
    }
}

enum api_result api_start_job(struct api_request *request, enum account_job_kind kind)
{
    struct api *api = request->api;
    struct account_request job = {
        .kind = kind,
        .request_id = request->call->request_id,
        .origin = str_hash(conn_owner(request->call->address), api->seed),
        .name = request->system.length ? request->system : request->text[FIELD_SYSTEM_ID],
        .password = request->text[FIELD_PASSWORD],
        .new_password = request->text[FIELD_NEW_PASSWORD],
    };
    enum api_result result;

    memcpy(job.address, request->call->address, sizeof job.address);
    result = api_begin_job(request, &job);
    crypto_erase(api->decoded.at, api->decoded.length);
    return result;
}

/* The response to a job that is done. */
static void api_send_done(const struct api *api, const struct account_result *result,
                          int64_t unix_now, struct api_response *response)
{
    struct str name = {result->name, result->name_length};

    if (result->kind == ACCOUNT_LOGIN)
        api_send_token(api, name, result->generation, unix_now, response);
    else if (result->kind == ACCOUNT_ROTATE_KEY)
        api_send_ticket_key(api, name, result->ticket_version, response);
    else if (result->kind == ACCOUNT_SET_WEBHOOK)
        api_send_secret(api, name, result->webhook_version, response);
    else
        api_reject(response, 200, RESULT_SUCCESS, "success");
}

void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *response)
{
    struct str name = {result->name, result->name_length};
    bool verifies = account_job_verifies(result->kind);

    if (verifies && result->outcome != ACCOUNT_DENIED && !result->coalesced) {
        throttle_forgive(&api->system_logins, str_hash(name, api->seed));
        throttle_forgive(&api->address_logins, str_hash(name, result->origin));
    }
    api_take_webhooks(api); /* it is set before that is answered */
    api->login_failures += verifies && result->outcome == ACCOUNT_DENIED;
    if (result->outcome == ACCOUNT_DONE && account_job_changes(result->kind))
        cluster_change_account(api->cluster, api->hub, name, result->kind == ACCOUNT_DELETE);
    if (result->outcome == ACCOUNT_DONE)
        api_send_done(api, result, unix_now, response);
    else if (result->outcome == ACCOUNT_DENIED && !verifies)
        api_reject_unknown(response);
    else
        api_reject_job(response, result->outcome, result->reason);
}

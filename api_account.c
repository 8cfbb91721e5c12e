/* api_account.c - registering and logging in: jobs of the accounts' thread.
 *
 * A login that was good before is answered at once. Others wait for their turn in a job; while it
 * runs, each counts as a failure on two throttles (GCRA), one of the system and one of the system
 * and the address, and is taken off when it turns out to be good. So many logins at once fail at
 * most as often as the throttles allow, and a wrong password from one address never locks out
 * another. Passwords are erased after use. Only the loop's thread runs this. */
#include "api_account.h"

#include "conn.h"

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

enum api_result api_start_job(struct api_request *request, enum account_job_kind kind)
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

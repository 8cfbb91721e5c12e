/* api_account.h - the calls that register, log in, set a password, delete a system and tell its
 * ticket key: at once where that needs no job, else as jobs of the accounts' thread, behind a
 * throttle of failed logins. */
#ifndef WSPUSH_API_ACCOUNT_H
#define WSPUSH_API_ACCOUNT_H

#include "api_request.h"

/* Starts the job of a call whose fields have been read, and erases its decoded strings. */
enum api_result api_start_job(struct api_request *request, enum account_job_kind kind);

/* The version of the caller's ticket key. False: `*result` says what comes of the call. */
bool api_find_ticket_version(struct api_request *request, uint64_t *version,
                             enum api_result *result);

/* Makes the response of a finished account job. Call it even if no session waits for it any more:
 * it takes a login that did not fail off the throttle, and tells the other nodes of a change. */
void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *response);

/* Answers how the webhook of the caller is doing on this node: its last deliveries, newest first.
 */
enum api_result api_send_webhook_status(struct api_request *request);

/* Sets the webhooks that have changed, and at first all. Call once an iteration in which the wake
 * pipe was written to. */
void api_take_webhooks(struct api *api);

/* Sets the limits of failed logins. */
void api_open(struct api *api);

#endif

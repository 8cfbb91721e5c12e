/* api.h - an HTTP request to a checked command to a JSON response.
 *
 * Every call is answered with the envelope {"code":…,"msg":…,"data":…}; what the contract
 * (docs/api.md) does not allow is rejected with a message that names the field or the limit. */
#ifndef WSPUSH_API_H
#define WSPUSH_API_H

#include "api_account.h"
#include "api_request.h"

/* Paths have numbers, under which calls are counted; the last one is for all unknown paths. */
#define API_ROUTES 25

/* The number of a path. */
unsigned api_route(struct str path);

/* The path of a number, NUL-terminated; empty for the number of unknown paths. */
struct str api_path(unsigned route);

/* Checks a call by its head: path, method, site, Register-Key, Token, rate. Call it once for each
 * request: a call that passes takes a token from its system's bucket. False: `response` says why it
 * did not pass. */
bool api_check(struct api *api, struct api_call *call, struct api_response *response);

/* Handles a call that has passed api_check. If another call has been checked since, `system` must
 * be empty: then the token is checked again. With API_DONE the response is filled in. */
enum api_result api_handle(struct api *api, const struct api_call *call,
                           struct api_response *response);

/* Makes the response of a command for which other nodes had to be asked. */
void api_finish_command(const struct cluster_result *done, struct api_response *response);

/* Frees what api keeps. */
void api_free(struct api *api);

#endif

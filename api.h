/* api.h - an HTTP request to a checked command to a JSON response.
 *
 * Every call is answered with the envelope {"code":…,"msg":…,"data":…}; what the contract
 * (docs/api.md) does not allow is rejected with a message that names the field or the limit. */
#ifndef WSPUSH_API_H
#define WSPUSH_API_H

#include "account.h"
#include "cluster.h"
#include "config.h"
#include "crypto.h"
#include "http.h"
#include "hub.h"
#include "limit.h"
#include "table.h"

/* Paths have numbers, under which calls are counted; the last one is for all unknown paths. */
#define API_ROUTES 13

/* What calls need. The owner zeroes it, fills in the first members, and calls api_open. */
struct api {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct cluster *cluster; /* NULL on a node that is alone */
    struct accounts *accounts;
    uint32_t seed; /* keys hashes: any secret number */

    struct table rates;             /* token buckets by system */
    struct throttle system_logins;  /* failed logins, by system */
    struct throttle address_logins; /* the same, by system and address */
    struct crypto_known tokens;     /* verified lately */
    uint64_t login_failures;
    struct buf decoded;            /* the strings of the present request */
    char system[ACCOUNT_NAME_MAX]; /* the caller of the present request */
};

/* A response to send. */
struct api_response {
    int status;
    enum result_code code; /* as in the body, if that is an envelope */
    const char *type;      /* the body's media type; NULL: JSON */
    const char *allow;     /* methods, or NULL */
    const char *fields;    /* further header lines, each with its CRLF, or NULL */
    unsigned retry_after;  /* seconds, or 0 */
    struct str system;     /* the caller, as far as known; valid until the next call */
    struct buf body;       /* the receiver frees it */
};

enum api_result {
    API_DONE, /* the response is there */
    API_LATER /* an account job runs, or other nodes are asked: a result with the request_id will
                 follow */
};

/* A request and its circumstances. */
struct api_call {
    const struct http_request *request;
    unsigned route;               /* see api_route */
    struct str system;            /* the caller, set by api_check; empty: not known (any more) */
    struct str body;              /* for api_handle: the whole of it */
    uint64_t request_id;          /* names the connection for a late response */
    const unsigned char *address; /* the peer's, 16 bytes as in struct conn */
    int64_t now;                  /* milliseconds of a steady clock */
    int64_t unix_now;             /* seconds */
};

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

/* Makes the response of a finished account job. Call it even if no session waits for it any more:
 * it takes a login that did not fail off the throttle. */
void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *response);

/* Makes the response of a command for which other nodes had to be asked. */
void api_finish_command(const struct cluster_result *done, struct api_response *response);

/* Fills a response with an envelope; for other modules too. Always false, for callers to pass on.
 */
bool api_reject(struct api_response *response, int status, enum result_code code,
                const char *error);

/* Sets the limits of failed logins. */
void api_open(struct api *api);

/* Frees what api keeps. */
void api_free(struct api *api);

#endif

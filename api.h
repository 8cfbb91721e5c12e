/* api.h - an HTTP request to a checked command to a JSON answer.
 * Refuses, with the envelope and a message that names the field or the limit: everything that the
 * contract does not allow. */
#ifndef WSPUSH_API_H
#define WSPUSH_API_H

#include "account.h"
#include "limit.h"
#include "cluster.h"
#include "command.h"
#include "config.h"
#include "crypto.h"
#include "http.h"
#include "hub.h"
#include "table.h"

/* Calls are counted by the path they are for; the last number is that of all unknown ones. */
#define API_ROUTES 13
/* What answers need; zeroed and then filled in by the owner, then api_open. */
struct api {
    const struct config *config;
    const struct crypto_keyring *keys;
    struct hub *hub;
    struct cluster *cluster; /* NULL on a node that is alone */
    struct accounts *accounts;
    uint32_t seed;                  /* keys hashes: any secret number */
    struct table rates;             /* by system: calls that may still be made */
    struct throttle system_logins;  /* that failed, of a system, */
    struct throttle address_logins; /* and of a system from one address */
    struct crypto_known tokens;     /* that were good lately */
    uint64_t login_failures;
    struct buf decoded;            /* the strings of the present request */
    char system[ACCOUNT_NAME_MAX]; /* whose it is */
};

/* An answer to be sent. */
struct api_response {
    int status;
    enum result_code code; /* as in the body, if that is an envelope */
    const char *type;       /* the body's media type; NULL: JSON */
    const char *allow;      /* methods, or NULL */
    const char *fields;     /* further header lines, each with its CRLF, or NULL */
    unsigned retry_after;   /* seconds, or 0 */
    struct str system;      /* who has called, as far as it is known; valid until the next call */
    struct buf body;        /* mostly the envelope; the receiver frees it */
};

enum api_result {
    API_DONE,
    API_LATER /* an account job runs, or other nodes are asked: the result comes with the request_id */
};

/* A request and the circumstances. */
struct api_call {
    const struct http_request *request;
    unsigned route;               /* see api_route */
    struct str system;            /* the caller's, set by api_check; empty: not known (any more) */
    struct str body;              /* for api_handle: the whole of it */
    uint64_t request_id;              /* names the connection for a late answer */
    const unsigned char *address; /* the peer's, 16 bytes as in struct conn */
    int64_t now;                  /* milliseconds of a steady clock */
    int64_t unix_now;             /* seconds */
};

/* The number under which calls of this path are counted. */
unsigned api_route(struct str path);

/* The path of a number, "" for that of unknown paths. */
struct str api_path(unsigned route);

/* Judges a call by its head: path, method, site, Register-Key, Token. Call it once for each
 * request: a call that may be made counts towards api_rate. False: `answer` says why not. */
bool api_check(struct api *api, struct api_call *call, struct api_response *answer);

/* Does what a call asks for that api_check has let pass. If another call has been checked since,
 * `system` must be empty: then the token is checked again. */
enum api_result api_handle(struct api *api, const struct api_call *call, struct api_response *answer);

/* Makes the answer of a finished account job. To be called also if nobody waits for it any more: a
 * login that has not failed is forgiven here. */
void api_finish(struct api *api, const struct account_result *result, int64_t unix_now,
                struct api_response *answer);

/* Makes the answer of a command for which other nodes had to be asked. */
void api_finish_command(const struct cluster_result *result, struct api_response *answer);

/* Fills an answer with an envelope: for refusals, also those that other rooms decide on. */
void api_reject(struct api_response *answer, int status, enum result_code code, struct str error);

/* Sets the limits of logins that fail. */
void api_open(struct api *api);

/* Frees what api keeps. */
void api_free(struct api *api);

#endif

/* api_request.h - what a call of the API is, the fields of its body, and its response.
 *
 * Rejects: bodies that are not one JSON object, and fields that are missing, ill-typed or longer
 * than their limits, with a message that names the field. */
#ifndef WSPUSH_API_REQUEST_H
#define WSPUSH_API_REQUEST_H

#include "account.h"
#include "cluster.h"
#include "config.h"
#include "crypto.h"
#include "http.h"
#include "hub.h"
#include "json.h"
#include "limit.h"
#include "table.h"

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
    struct ticket_key ticket_key;   /* of the last ticket */
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
    API_DONE,   /* the response is there */
    API_LATER,  /* an account job runs, or other nodes are asked: a result with the request_id will
                   follow */
    API_LOOK_UP /* the caller's account is not known here: have it looked up and handle the call
                   again, or send the response, whose `system` names it */
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

enum api_field {
    FIELD_SYSTEM_ID,
    FIELD_PASSWORD,
    FIELD_NEW_PASSWORD,
    FIELD_ROTATE,
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
    FIELD_ONCE,
    FIELD_EXCLUDE,
    FIELD_REASON,
    FIELD_SYSTEM,
    FIELD_GROUP_NAMES,
    FIELD_USER_IDS,
    FIELD_GROUPS,
    FIELD_PREFIX,
    FIELD_AFTER,
    FIELD_LIMIT,
    FIELD_EXCEPT,
    FIELD_TICKET_GROUPS,
    FIELD_TTL,
    FIELD_SESSION,
    FIELD_URL,
    FIELD_EVENTS,
    FIELD_COUNT
};

/* A call while it is handled. */
struct api_request {
    struct api *api;
    const struct api_call *call;
    struct str system;                   /* the caller's, if the route needs a token */
    struct json_field json[FIELD_COUNT]; /* JSON_NONE: absent, or not for this route */
    struct str text[FIELD_COUNT];        /* strings, decoded */
    int64_t code, limit;
    struct api_response *response;
};

/* Fills a response with an envelope; for other modules too. Always false, for callers to pass on.
 */
bool api_reject(struct api_response *response, int status, enum result_code code,
                const char *error);

/* The same, with the seconds after which the peer may try again. */
bool api_reject_for(struct api_response *response, int status, enum result_code code,
                    const char *error, unsigned retry_after);

/* The same as api_reject, with a text of at most 511 bytes as by printf. */
#ifdef __GNUC__
__attribute__((format(printf, 4, 5)))
#endif
bool api_print(struct api_response *response, int status, enum result_code code,
               const char *format, ...);

/* Rejects a call for one of its fields; `problem` follows the field's name. Always false. */
bool api_bad_field(struct api_request *request, enum api_field field, const char *problem);

/* Fills a response with success and `data`, JSON or empty, which it frees. */
void api_succeed(struct api_response *response, struct buf *data);

/* True if the body had this field, and the route takes it. */
bool api_has(const struct api_request *request, enum api_field field);

/* Reads the body into the fields that the route takes: sets of them, as bits. False: the response
 * says what is wrong. */
bool api_read_fields(struct api_request *request, unsigned required, unsigned optional);

#endif

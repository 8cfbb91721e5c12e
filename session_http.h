/* session_http.h - what one connection is, and the half of it that speaks HTTP: requests to
 * responses, and the upgrade to a WebSocket client with its admission.
 *
 * One enum says what a session does; what takes its input, whether it reads and when its timer is
 * due follow from that state.
 * Rejects input past its limits, with a response where one can still be sent. */
#ifndef WSPUSH_SESSION_HTTP_H
#define WSPUSH_SESSION_HTTP_H

#include "account.h"
#include "api.h"
#include "cluster.h"
#include "config.h"
#include "conn.h"
#include "console.h"
#include "http.h"
#include "hub.h"
#include "inbox.h"
#include "listener.h"
#include "log.h"
#include "metrics.h"
#include "ticket.h"
#include "ws.h"

/* The order counts: requests come in up to HTTP_BODY, HTTP is spoken up to WAIT. */
enum session_state {
    SESSION_HTTP_NEW,  /* accepted; nothing of a request has come */
    SESSION_HTTP_IDLE, /* between requests; what is left of a rejected one's body is skipped */
    SESSION_HTTP_HEAD, /* part of a head has come */
    SESSION_HTTP_BODY, /* the head is good; its body is awaited */
    SESSION_WAIT,      /* a thread or other nodes work on a request: nothing is read */
    SESSION_OPEN,      /* a WebSocket client, or one that waits to be admitted */
    SESSION_CLOSING,   /* our close frame is queued; the client's is awaited */
    SESSION_DRAIN,     /* the last bytes are leaving; input is dropped */
    SESSION_FLUSH,     /* the same, but the peer has closed its side: nothing is read */
    SESSION_LINGER,    /* all has left, our side is shut down; the peer's end is awaited */
    SESSION_DEAD       /* waits to be reaped */
};

/* How the response to a request is sent. */
struct response_flags {
    bool close : 1;      /* it is the connection's last */
    bool head : 1;       /* the request was HEAD: no body */
    bool keep_alive : 1; /* the peer speaks HTTP/1.0: say that the connection stays */
};

/* What sessions need of their surroundings. */
struct session_context {
    const struct config *config;
    const struct log *log;
    struct hub *hub;
    struct cluster *cluster; /* NULL on a node that is alone */
    struct api *api;
    struct listener *listener;
    struct accounts *accounts;
    const struct console *console, *client_module; /* NULL: not served */
    int64_t now;                /* milliseconds of a steady clock, taken once an iteration */
    int64_t unix_now;           /* seconds */
    char date[30];              /* the same as an HTTP date */
    bool leaving;               /* this node is no longer ready, */
    bool stopping;              /* and every response is its connection's last */
    struct quota failed_logins; /* those that the log tells */
    struct inbox inbox;         /* messages for webhooks, by session_request_id */
    struct metrics metrics;
};

/* The present request, from its head on, and how its response is sent. */
struct session_call {
    uint16_t route;
    struct response_flags flags;
    uint32_t began; /* the low half of os_now_us */
};

#define SESSION_OUTPUT_ENOUGH (256 * 1024) /* bytes of responses that wait before requests do */
#define SESSION_RETRY_AFTER 5              /* seconds, in rejections for a limit */
#define SESSION_NEVER INT64_MAX
#define SESSION_TEXT_MAX 4 /* bytes of a message that may be a command */

struct session {
    struct conn conn;
    enum session_state state : 8;
    bool over_limit : 1;   /* set at the accept: too many connections, the first request fails */
    bool by_proxy : 1;     /* set at the accept: each request names its client */
    bool is_admin : 1;     /* set at the accept: it came to the admin listener */
    bool over_budget : 1;  /* input is kept for session_continue, which clears this */
    bool ping_pending : 1; /* OPEN: set by a ping, cleared by any input */
    bool looked_up : 1;    /* WAIT, and after it: for the account of the present request */
    /* the loop's own, as are poller_slot and the last two members: sessions do not look at them */
    bool active : 1;           /* polled by the loop */
    bool polled_elsewhere : 1; /* read interest is with a poller */
    bool on_dead_list : 1;
    bool on_held_list : 1; /* waits for session_continue */

    uint8_t text_length; /* OPEN: bytes of the present message, no further than past input.text */
    int32_t poller_slot; /* -1: none */
    int64_t since;       /* when the present wait began; OPEN: when the unfinished message did, or
                            SESSION_NEVER */
    int64_t last_seen;   /* when the peer last sent something */
    union {
        int64_t opened;    /* before an upgrade: when it was accepted */
        int64_t last_ping; /* from it on: when it was last pinged */
    };
    union {
        struct {
            struct session_call call; /* up to WAIT; zeroed by its response */
            union {
                struct http_chunks chunks; /* HTTP_BODY */
                uint32_t skip;             /* HTTP_IDLE: bytes still to be dropped */
            };
        };
        struct { /* from an upgrade on */
            struct ws_reader reader;
            char text[SESSION_TEXT_MAX]; /* the first bytes of the present message */
        };
    } input;
    uint32_t index;      /* where it stands, */
    uint32_t generation; /* and which of those that stood there it is */
};

/* True from an upgrade on: only then the flushes of its connection are not responses. */
static inline bool session_is_websocket(const struct session *session)
{
    return !session->conn.has_response;
}

/* The id under which work done elsewhere finds the session again, if it is still the same. */
uint64_t session_request_id(const struct session *session);

/* Goes to another state; the wait for what it awaits begins now. */
void session_enter(struct session_context *context, struct session *session,
                   enum session_state state);

/* Logs `fields`; that of the name "remote" gets the peer's address. */
void session_log(const struct session_context *context, const struct session *session,
                 enum log_level level, const char *message, struct log_field *fields);

/* Takes a request, or what is there of one, off the front of `bytes`, in one of the states up to
 * HTTP_BODY. Returns how many bytes it used, 0 if the request is not whole, or waits until
 * responses have left. */
size_t session_take_http(struct session_context *context, struct session *session,
                         struct conn_bytes *bytes);

/* Rejects a request with its connection's last response. If its head is good it is counted by its
 * path; else `request` is NULL. */
void session_reject(struct session_context *context, struct session *session,
                    const struct http_request *request, int status, const char *error);

/* Sends an envelope without data; the status, the code and header fields are those of `response`.
 */
void session_send_envelope(struct session_context *context, struct session *session,
                           struct api_response response, const char *msg);

/* Counts, logs and sends the response to a call of the API, and frees it. */
void session_send_call(struct session_context *context, struct session *session, struct str path,
                       struct api_response *response);

/* Logs what an account job has done, though its connection may be gone: a registration, a change,
 * and a password that was wrong. */
void session_log_account(struct session_context *context, const struct account_result *result);

/* Has the account of a system looked up. False: that cannot be done now. */
bool session_look_up(const struct session_context *context, const struct session *session,
                     struct str system);

/* Judges a ticket that a peer has sent, and counts the result: at an upgrade it must be of the
 * system that the peer `named`, later of the client's system and user. With SUCCESS *ticket is what
 * it says, as views of `room`. Else *why: NO_TOKEN; UNKNOWN_SYSTEM; or UNREACHABLE, until the
 * account of the system in *ticket is looked up. */
enum result_code session_judge_ticket(struct session_context *context,
                                      const struct session *session, struct str text,
                                      struct str named, struct buf *room, struct ticket *ticket,
                                      const char **why);

/* Tells an upgraded peer why something is not done. False without memory, or if it is too slow. */
bool session_send_refusal(struct session_context *context, struct session *session,
                          enum result_code code, struct str why);

/* Admits a WebSocket client that was waiting for that, or rejects it; `why` is the error if the
 * admission is CLUSTER_UNREACHABLE. */
void session_admit(struct session_context *context, struct session *session,
                   enum cluster_admission admission, const struct ticket_claims *claims,
                   const char *why);

/* True if the end has come that a client's ticket names. */
static inline bool session_is_over(const struct session_context *context,
                                   const struct client *client)
{
    int64_t end = channel_end(client);

    return end && end <= context->unix_now;
}

#endif

/* session.h - what one connection is doing: HTTP requests, or a WebSocket client, or its end.
 * One enum of states; who reads the input, what to poll for and which deadline comes next are read
 * off the state. Knows no poll() and no other session; the loop owns it.
 * Refuses: input past its limits, with an answer where one can still be sent. */
#ifndef WSPUSH_SESSION_H
#define WSPUSH_SESSION_H

#include "account.h"
#include "listener.h"
#include "metrics.h"
#include "api.h"
#include "cluster.h"
#include "config.h"
#include "conn.h"
#include "console.h"
#include "http.h"
#include "hub.h"
#include "log.h"
#include "ws.h"

enum session_state {
    SESSION_HTTP,    /* requests come in and are answered */
    SESSION_WAIT,    /* a request is being worked on elsewhere: nothing is read */
    SESSION_OPEN,    /* a WebSocket client */
    SESSION_CLOSING, /* our close frame is on its way, the client's is waited for */
    SESSION_DRAIN,   /* the last bytes are on their way; what comes in is dropped */
    SESSION_DEAD     /* to be reaped */
};

/* How the answer to a request goes out. */
struct response_flags {
    bool close : 1;      /* it is the connection's last */
    bool head : 1;       /* the request was HEAD: no body */
    bool keep_alive : 1; /* the client speaks HTTP/1.0 and has to be told */
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
    const struct console *console; /* NULL: there is no page */
    int64_t now;                   /* milliseconds of a steady clock, taken once a turn */
    int64_t unix_now;              /* seconds */
    char date[30];                 /* the same as an HTTP date */
    bool leaving;                  /* this node is no longer ready, */
    bool stopping;                 /* and every answer is its connection's last */
    struct metrics metrics;
};

/* A call that is answered, or will be. */
struct session_call {
    unsigned route;
    uint32_t began; /* microseconds of a steady clock, of which the upper half is cut off */
};

/* A connection and its state. */
struct session {
    struct conn conn;
    enum session_state state;
    bool over_limit : 1;   /* one connection too many: refused as soon as it asks for something */
    bool by_proxy : 1;     /* a trusted proxy has opened it: each request names its client */
    bool is_admin : 1;     /* it came to the admin listener */
    bool is_websocket : 1; /* it speaks, or spoke, WebSocket */
    bool held : 1;         /* HTTP, WAIT: whole requests may be among the input kept */
    bool receiving : 1;    /* HTTP: part of a request is here */
    bool head_done : 1;    /* HTTP: its head is whole, and is good for reading its body */
    bool asked_before : 1; /* HTTP: this is not the connection's first request */
    bool shut : 1;         /* DRAIN: the sending side has been shut down */
    bool deaf : 1;         /* DRAIN: the peer has closed its side, nothing more will come */
    bool pinged : 1;       /* OPEN: a ping is unanswered */
    bool over_budget : 1;  /* input kept waits for a later iteration */
    bool on_held_list : 1; /* the loop's: among those that wait for that */
    bool polled_elsewhere : 1; /* the loop's: by the car park, so that read interest is there, not
                                  here */
    bool active : 1;           /* the loop's: among those polled by it */
    bool on_dead_list : 1;     /* the loop's: dead, and on the list of those to be reaped */
    struct response_flags manner; /* WAIT: of the answer that is waited for */
    uint8_t text;      /* OPEN: how far the present message has matched one that is answered */
    int64_t since;     /* when what is being waited for began */
    int64_t last_seen; /* when the peer last sent something */
    union {
        int64_t opened;    /* before an upgrade: when it was accepted */
        int64_t last_ping; /* OPEN: when it was last pinged */
    };
    union {
        struct {
            struct http_chunks chunks;
            uint32_t skip; /* bytes still to come of the body of a request that was refused */
        };                 /* HTTP */
        struct session_call call; /* WAIT */
        struct ws_reader reader;  /* OPEN, CLOSING */
    } input;
    uint32_t index;      /* the loop's: where it stands, */
    uint32_t generation; /* which of those that stood there it is, */
    int32_t poller_slot; /* and its place in the car park, or -1 */
};

/* Prepares a session for an accepted, non-blocking socket. */
void session_open(struct session *session, int fd, struct conn_shared *shared, int64_t now);

/* The name under which work done elsewhere finds the session again, if it is still the same. */
uint64_t session_request_id(const struct session *session);

/* The socket is readable: reads once and does what has become possible. */
void session_read(struct session_context *context, struct session *session);

/* The socket takes bytes again: writes on. */
void session_writable(struct session_context *context, struct session *session);

/* Goes on with input that was kept while answers waited, if there is some;
 * refuses what limits that were lowered do not allow any more; drops what nobody will look at. */
void session_resume(struct session_context *context, struct session *session);

/* Goes on with input that was kept because the budget was used up. */
void session_continue(struct session_context *context, struct session *session);

/* Sends the answer that a session in SESSION_WAIT waits for, and frees it. */
void session_respond(struct session_context *context, struct session *session,
                     struct api_response *answer);

/* Lets a client in that has been waiting for this, or says why not; `why` it could not be told, if
 * it could not. */
void session_admit(struct session_context *context, struct session *session,
                   enum cluster_admission admission, struct str system, const char *why);

/* To be called after each flush: draws the conclusions of what has left and of what the hub has
 * wished. */
void session_flushed(struct session_context *context, struct session *session);

/* The time at which session_expire is to be called; INT64_MAX for never. */
int64_t session_timer(const struct session_context *context, const struct session *session);

/* Does what is due at this time: pings, gives up waiting, ends what is overdue. Before that it
 * reads what the kernel already has: after a standstill of this process the peer's bytes are
 * waiting. True if a ping was due and has been queued. */
bool session_expire(struct session_context *context, struct session *session);

/* Pings a client if a quarter of the interval or more has passed: the clients that are watched
 * together are pinged together. */
void session_ping_early(struct session_context *context, struct session *session);

/* Ends a session from this side because the server stops: a client gets 1001, an idle HTTP
 * connection is closed, one with a request under way ends with its answer. */
void session_stop(struct session_context *context, struct session *session);

/* Ends a session that keeps more than others while max_buffered is reached: a request is refused
 * with 503, a client gets 1013. */
void session_shed(struct session_context *context, struct session *session);

/* True if the session wants to read more now. */
bool session_wants_input(const struct session *session);

#endif

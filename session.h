/* session.h - one connection's life: what the loop calls to have a session read, write, wait and
 * end. Its data is in session_http.h. Knows no poll() and no other session: the loop owns it. */
#ifndef WSPUSH_SESSION_H
#define WSPUSH_SESSION_H

#include "hub.h"
#include "session_http.h"

/* Prepares a session for an accepted, non-blocking socket. */
void session_open(struct session *session, int fd, struct conn_shared *shared, int64_t now);

/* True if the session wants to read more now. */
bool session_wants_input(const struct session *session);

/* The socket is readable: reads once and does what has become possible. */
void session_read(struct session_context *context, struct session *session);

/* The socket takes bytes again: writes on. */
void session_writable(struct session_context *context, struct session *session);

/* Goes on with input that was kept because the budget was used up. */
void session_continue(struct session_context *context, struct session *session);

/* Call after each flush: acts on what has left, on what the hub has queued and on what broke; goes
 * on with requests that were kept until responses had left. */
void session_flushed(struct session_context *context, struct session *session);

/* Sends the response that a session in SESSION_WAIT waits for, and frees it. */
void session_respond(struct session_context *context, struct session *session,
                     struct api_response *response);

/* Goes on with a request that waited, unused, in SESSION_WAIT for its system's account. */
void session_take_again(struct session_context *context, struct session *session);

/* When to call session_expire; SESSION_NEVER: no timer. */
int64_t session_timer(const struct session_context *context, const struct session *session);

/* Does what is due: pings, or ends what is overdue. Reads before that what the kernel already has:
 * after a standstill of this process the peer's bytes are waiting there. True if a ping was queued.
 */
bool session_expire(struct session_context *context, struct session *session);

/* Pings a client if a quarter of the interval or more has passed: the loop pings the clients of one
 * poller together. */
void session_ping_early(struct session_context *context, struct session *session);

/* Gives a session the client that the cluster has adopted for it; one that does not wait for it any
 * more, or is gone (NULL), does not take it. */
void session_adopt(struct session_context *context, struct session *session,
                   const struct cluster_result *result);

/* Ends a session because the server stops: a client gets 1001, an idle HTTP connection is closed,
 * one with a request under way ends with its response. */
void session_stop(struct session_context *context, struct session *session);

/* Ends a session that keeps more than others when max_buffered is reached: a request is rejected
 * with 503, a client gets 1013. */
void session_shed(struct session_context *context, struct session *session);

#endif

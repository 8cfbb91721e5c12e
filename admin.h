/* admin.h - what the admin listener answers: GET /metrics (Prometheus text), /healthz, /readyz.
 *
 * Rooms count what they do in plain members of their own; here these are read and named. No metric
 * has a label whose values come from peers.
 * Refuses: every other path (404) and method (405), and a Host that is a name (403). */
#ifndef WSPUSH_ADMIN_H
#define WSPUSH_ADMIN_H

#include "api.h"
#include "cluster.h"
#include "conn.h"
#include "http.h"
#include "hub.h"
#include "log.h"

/* The statuses with which upgrades are answered; all others together are the last. */
#define ADMIN_HANDSHAKES 7

/* Whom to ask, and what is counted by sessions and by the loop. */
struct admin {
    const struct hub *hub;
    const struct api *api;
    const struct conn_shared *shared;
    const struct cluster *cluster; /* NULL on a node that is alone */
    const struct log *log;
    const char *version;
    int64_t started; /* unix seconds */

    uint64_t handshakes[ADMIN_HANDSHAKES + 1];
    uint64_t received_messages;
    uint64_t accepted, refused; /* connections in all, */
    uint64_t shed;              /* and those ended because of max_buffered */
    uint64_t connections, parked, threads;
    uint64_t reloads[2]; /* of the configuration: that failed, and that did not */
};

/* Microseconds of the steady clock. */
uint64_t admin_clock(void);

/* Counts an upgrade that has been answered with this status. */
void admin_count_handshake(struct admin *admin, int status);

/* Why this node is not ready to be sent clients and calls, or NULL if it is. */
const char *admin_unready(const struct admin *admin, bool stopping);

/* Answers a request that came to the admin listener. */
void admin_answer(const struct admin *admin, bool stopping, const struct http_request *request,
                  struct api_answer *answer);

#endif

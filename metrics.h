/* metrics.h - what the admin listener serves: GET /metrics (Prometheus text), /healthz, /readyz.
 *
 * Modules count what they do in plain members of their own; a table here names these and says how
 * each is read. No metric has a label whose values come from peers. Rejects every other path (404)
 * and method (405), and a Host that is a name (403). */
#ifndef WSPUSH_METRICS_H
#define WSPUSH_METRICS_H

#include "api.h"
#include "cluster.h"
#include "conn.h"
#include "http.h"
#include "hub.h"
#include "log.h"
#include "ticket.h"

#define METRICS_HANDSHAKES 7 /* statuses of handshakes with a count each; all others share one */
#define METRICS_CODES 9      /* codes of API responses: success, -1, -1001 to -1007 */
#define METRICS_BUCKETS 12   /* buckets of durations that have an upper bound */

/* The calls of one path. */
struct metrics_calls {
    uint64_t codes[METRICS_CODES];
    uint64_t buckets[METRICS_BUCKETS + 1]; /* by duration, each without those before it */
    uint64_t microseconds;                 /* in all */
};

/* Where the values are, and what sessions and the loop count. Zeroed except for the first members,
 * it is valid. */
struct metrics {
    const struct hub *hub;
    const struct api *api;
    const struct conn_shared *shared;
    const struct cluster *cluster; /* NULL on a node that is alone */
    const struct log *log;
    const char *version, *features; /* of this binary */
    int64_t started;                /* unix seconds */

    uint64_t handshakes[METRICS_HANDSHAKES + 1];
    uint64_t tickets[TICKET_RESULTS];
    uint64_t received_messages;
    uint64_t accepted, refused; /* connections in all */
    uint64_t shed;              /* connections closed because of max_buffered */
    uint64_t connections, max_connections, parked, threads;
    int64_t certificate_expiry;             /* unix seconds; 0: no TLS */
    uint64_t reloads[2];                    /* of the configuration: failed, successful */
    struct metrics_calls calls[API_ROUTES]; /* by number of the path */
};

/* Counts a response to an upgrade request. */
void metrics_count_handshake(struct metrics *metrics, int status);

/* Counts a response of the API: the number of its path, its code, and how long the call took. */
void metrics_count_call(struct metrics *metrics, unsigned route, enum result_code code,
                        uint64_t microseconds);

/* Makes the response to a request that came to the admin listener. The caller frees its body. */
void metrics_respond(const struct metrics *metrics, bool stopping,
                     const struct http_request *request, struct api_response *response);

#endif

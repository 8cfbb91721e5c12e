/* metrics.c - what the admin listener serves: metrics, health and readiness.
 *
 * Most metrics are one number that some module counts in a plain member. They are read and written
 * when a request for /metrics comes, section by section, in the order of the output.
 *
 * Names, help texts and order are an interface: dashboards and alerts depend on them. Everything is
 * read on the loop's thread, which is the one that counts. */
#include "metrics.h"

#include "os.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define PLAIN_TEXT "text/plain; charset=utf-8"
#define PROMETHEUS_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define MICROSECONDS 1000000

/* --- counting -------------------------------------------------------------------------------- */

static const uint16_t metrics_handshakes[METRICS_HANDSHAKES] = {101, 400, 403, 405, 426, 429, 503};

static const int metrics_codes[METRICS_CODES] = {
    RESULT_SUCCESS,    RESULT_MALFORMED, RESULT_UNKNOWN_SYSTEM, RESULT_NO_TOKEN,   RESULT_OFFLINE,
    RESULT_REGISTERED, RESULT_DENIED,    RESULT_LIMIT,          RESULT_UNREACHABLE};

static const char *const metrics_tickets[TICKET_RESULTS] = {"ok", "missing", "malformed", "forged",
                                                            "expired"};

/* Upper bounds in microseconds. */
static const uint32_t metrics_bounds[METRICS_BUCKETS] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 5000000};

void metrics_count_handshake(struct metrics *metrics, int status)
{
    unsigned i = 0;

    while (i < METRICS_HANDSHAKES && metrics_handshakes[i] != status)
        i++;
    metrics->handshakes[i]++;
}

void metrics_count_call(struct metrics *metrics, unsigned route, enum result_code code,
                        uint64_t microseconds)
{
    struct metrics_calls *calls = &metrics->calls[route];
    unsigned i = 0, bucket = 0;

    while (i < METRICS_CODES - 1 && metrics_codes[i] != (int)code)
        i++;
    calls->codes[i]++;
    while (bucket < METRICS_BUCKETS && microseconds > metrics_bounds[bucket])
        bucket++;
    calls->buckets[bucket]++;
    calls->microseconds += microseconds;
}

/* --- writing --------------------------------------------------------------------------------- */

static void metrics_begin(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_print(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void metrics_gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    metrics_begin(out, name, "gauge", help);
    buf_print(out, "%s %" PRIu64 "\n", name, value);
}

static void metrics_counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    metrics_begin(out, name, "counter", help);
    buf_print(out, "%s %" PRIu64 "\n", name, value);
}

/* Microseconds as seconds, without zeros at the end. */
static const char *metrics_seconds(char text[32], uint64_t microseconds)
{
    int end = snprintf(text, 32, "%" PRIu64 ".%06u", microseconds / MICROSECONDS,
                       (unsigned)(microseconds % MICROSECONDS));

    while (text[end - 1] == '0')
        end--;
    text[text[end - 1] == '.' ? end - 1 : end] = '\0';
    return text;
}

static void metrics_write_seconds(struct buf *out, const char *name, const char *type,
                                  const char *help, uint64_t microseconds)
{
    char text[32];

    metrics_begin(out, name, type, help);
    buf_print(out, "%s %s\n", name, metrics_seconds(text, microseconds));
}

/* One sample for each key, and one for all others, whose count stands behind theirs. */
static void metrics_write_by(struct buf *out, const char *name, const char *label,
                             const uint16_t *keys, size_t count, const uint64_t *counts)
{
    for (size_t i = 0; i < count; i++)
        buf_print(out, "%s{%s=\"%d\"} %" PRIu64 "\n", name, label, keys[i], counts[i]);
    buf_print(out, "%s{%s=\"other\"} %" PRIu64 "\n", name, label, counts[count]);
}

/* Writes one histogram: `count` buckets in microseconds, the last of which has no bound, and the
 * sum. `label` is empty or a label; a bucket in the output includes those before it. */
static void metrics_write_histogram(struct buf *out, const char *name, const char *label,
                                    const uint32_t *bounds, const uint64_t *buckets, size_t count,
                                    uint64_t sum)
{
    const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
    char text[32];
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++) {
        total += buckets[i];
        buf_print(out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, label, comma,
                  i < count - 1 ? metrics_seconds(text, bounds[i]) : "+Inf", total);
    }
    buf_print(out, "%s_sum%s%s%s %s\n", name, open, label, close, metrics_seconds(text, sum));
    buf_print(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, total);
}

/* --- metrics --------------------------------------------------------------------------------- */

/* Why this node is not ready for clients and calls; NULL if it is. */
static const char *metrics_not_ready_reason(const struct metrics *metrics, bool stopping)
{
    return stopping ? "draining" : cluster_degraded_reason(metrics->cluster);
}

/* The names that Prometheus's own clients use, and two that are older here. */
static void metrics_write_usage(struct buf *out, const struct metrics *metrics)
{
    static const char cpu_help[] = "CPU time used, user and system.",
                      start_help[] = "Unix time of the start.";
    struct os_usage usage;

    os_measure(&usage);
    metrics_gauge(out, "wspush_start_time_seconds", start_help, (uint64_t)metrics->started);
    metrics_gauge(out, "process_start_time_seconds", start_help, (uint64_t)metrics->started);
    metrics_write_seconds(out, "wspush_cpu_seconds_total", "counter", cpu_help, usage.cpu);
    metrics_write_seconds(out, "process_cpu_seconds_total", "counter", cpu_help, usage.cpu);
    if (usage.resident)
        metrics_gauge(out, "process_resident_memory_bytes", "Memory in use.", usage.resident);
    if (usage.descriptors)
        metrics_gauge(out, "process_open_fds", "Open file descriptors.", usage.descriptors);
    if (usage.descriptor_limit)
        metrics_gauge(out, "process_max_fds", "File descriptors that may be open.",
                      usage.descriptor_limit);
    if (metrics->certificate_expiry)
        metrics_gauge(out, "wspush_tls_certificate_expiry_timestamp_seconds",
                      "Unix time at which the certificate of [tls] expires.",
                      (uint64_t)metrics->certificate_expiry);
}

static void metrics_write_process(struct buf *out, const struct metrics *metrics, bool stopping)
{
    metrics_begin(out, "wspush_build_info", "gauge", "What is running.");
    buf_print(out, "wspush_build_info{version=\"%s\",features=\"%s\"} 1\n", metrics->version,
              metrics->features);
    metrics_write_usage(out, metrics);
    metrics_gauge(out, "wspush_ready", "1 if /readyz says so.",
                  !metrics_not_ready_reason(metrics, stopping));
    metrics_begin(out, "wspush_reloads_total", "counter",
                  "SIGHUPs, by whether the file could be used.");
    for (int good = 0; good < 2; good++)
        buf_print(out, "wspush_reloads_total{result=\"%s\"} %" PRIu64 "\n",
                  good ? "success" : "failure", metrics->reloads[good]);
    metrics_counter(out, "wspush_log_lines_lost_total", "Lines that the log did not take at once.",
                    log_lost(metrics->log));
}

static void metrics_write_connections(struct buf *out, const struct metrics *metrics)
{
    const struct hub *hub = metrics->hub;

    metrics_gauge(out, "wspush_connections", "Open connections, including those of the API.",
                  metrics->connections);
    metrics_gauge(out, "wspush_max_connections", "How many may be open.", metrics->max_connections);
    metrics_gauge(out, "wspush_clients", "WebSocket clients that are online.",
                  hub->channels.clients.count);
    metrics_gauge(out, "wspush_systems", "Systems with clients here.", hub->kinds[CHANNEL_SYSTEM]);
    metrics_gauge(out, "wspush_groups", "Groups with members here.", hub->kinds[CHANNEL_GROUP]);
    metrics_gauge(out, "wspush_users", "Users with clients here.", hub->kinds[CHANNEL_USER]);
    metrics_gauge(out, "wspush_parked_connections", "Idle connections watched by poller threads.",
                  metrics->parked);
    metrics_gauge(out, "wspush_parking_threads", "Poller threads, which watch idle connections.",
                  metrics->threads);
    metrics_counter(out, "wspush_connections_accepted_total", "Connections accepted.",
                    metrics->accepted);
    metrics_counter(out, "wspush_connections_refused_total",
                    "Connections beyond max_connections or max_per_ip, clients beyond max_clients.",
                    metrics->refused);
    metrics_begin(out, "wspush_handshakes_total", "counter",
                  "Requests to /ws, by status of the answer.");
    metrics_write_by(out, "wspush_handshakes_total", "status", metrics_handshakes,
                     METRICS_HANDSHAKES, metrics->handshakes);
    metrics_begin(out, "wspush_tickets_total", "counter",
                  "Tickets that were checked, and clients without one, by result.");
    for (unsigned i = 0; i < TICKET_RESULTS; i++)
        buf_print(out, "wspush_tickets_total{result=\"%s\"} %" PRIu64 "\n", metrics_tickets[i],
                  metrics->tickets[i]);
    metrics_begin(out, "wspush_closes_total", "counter",
                  "WebSocket connections ended, by close code; 1006: without a close frame.");
    metrics_write_by(out, "wspush_closes_total", "code", hub_close_codes, HUB_CLOSE_CODES,
                     hub->counts.closes);
    metrics_counter(out, "wspush_slow_closes_total", "Clients closed because they read too slowly.",
                    hub->counts.slow);
}

static void metrics_write_traffic(struct buf *out, const struct metrics *metrics)
{
    const struct hub *hub = metrics->hub;
    const struct conn_shared *shared = metrics->shared;

    metrics_counter(out, "wspush_received_messages_total", "Messages from clients.",
                    metrics->received_messages);
    metrics_counter(out, "wspush_sent_messages_total",
                    "Messages queued for clients: their ids, pushes and notices.",
                    hub->counts.sent);
    metrics_counter(out, "wspush_dropped_messages_total",
                    "Messages not queued because the client was too slow.", hub->counts.dropped);
    metrics_counter(out, "wspush_once_repeated_total",
                    "Sends with once that were repeated, and not delivered again.",
                    hub->counts.repeated);
    metrics_counter(out, "wspush_received_bytes_total",
                    "Bytes received, including the API, without TLS overhead.", shared->received);
    metrics_counter(out, "wspush_sent_bytes_total",
                    "Bytes sent, including the API, without TLS overhead.", shared->sent);
    metrics_gauge(out, "wspush_queued_bytes", "Bytes waiting to be sent.", shared->waiting);
    metrics_gauge(out, "wspush_buffered_bytes", "Memory of unfinished input and queued output.",
                  shared->buffered);
    metrics_counter(out, "wspush_shed_connections_total",
                    "Connections ended because max_buffered was reached.", metrics->shed);
    metrics_counter(out, "wspush_budget_exhausted_total",
                    "Batches of work that used up their budget: others waited for the next.",
                    shared->exhausted);
}

static void metrics_write_resumes(struct buf *out, const struct metrics *metrics)
{
    static const char *const results[RESUME_RESULTS] = {"recovered", "missed", "unknown"};
    static const char *const gaps[RESUME_GAPS] = {"frames", "bytes", "memory", "slow", "moved"};
    const struct resumes *resumes = &metrics->hub->channels.resumes;

    metrics_gauge(out, "wspush_resume_clients", "Clients that may come back.", resumes->count);
    metrics_gauge(out, "wspush_resume_away", "Those of them that are away.", resumes->away);
    metrics_gauge(out, "wspush_resume_memory_bytes", "Memory of messages kept for them.",
                  resumes->memory);
    metrics_begin(out, "wspush_resumes_total", "counter", "Returns of clients, by result.");
    for (unsigned i = 0; i < RESUME_RESULTS; i++)
        buf_print(out, "wspush_resumes_total{result=\"%s\"} %" PRIu64 "\n", results[i],
                  resumes->results[i]);
    metrics_counter(out, "wspush_resume_moved_total", "Returns from other nodes.", resumes->moved);
    metrics_counter(out, "wspush_resume_replayed_total", "Messages sent again.", resumes->replayed);
    metrics_begin(out, "wspush_resume_gaps_total", "counter",
                  "Clients away for which no more was kept, by the limit that was reached.");
    for (unsigned i = 0; i < RESUME_GAPS; i++)
        buf_print(out, "wspush_resume_gaps_total{reason=\"%s\"} %" PRIu64 "\n", gaps[i],
                  resumes->gaps[i]);
}

static void metrics_write_webhooks(struct buf *out, const struct metrics *metrics)
{
    struct webhook_stats stats = {0};

    if (metrics->hub->webhooks)
        webhook_measure(metrics->hub->webhooks, &stats);
    metrics_begin(out, "wspush_webhook_events_total", "counter",
                  "Events of webhooks, by result; refused: messages that did not fit.");
    buf_print(out,
              "wspush_webhook_events_total{result=\"delivered\"} %" PRIu64
              "\nwspush_webhook_events_total{result=\"lost\"} %" PRIu64
              "\nwspush_webhook_events_total{result=\"refused\"} %" PRIu64 "\n",
              stats.delivered, stats.lost, stats.refused);
    metrics_gauge(out, "wspush_webhook_queued_bytes", "Memory of events that wait for receivers.",
                  stats.queued);
    metrics_write_seconds(out, "wspush_webhook_lag_seconds", "gauge",
                          "Time for which the oldest of them has waited.",
                          (uint64_t)stats.lag * 1000);
}

/* The path of a number, NUL-terminated, for a label. */
static const char *metrics_path(unsigned route)
{
    struct str path = api_path(route);

    return path.length ? path.at : "other";
}

static void metrics_write_api(struct buf *out, const struct metrics *metrics)
{
    char label[64];

    metrics_begin(out, "wspush_api_requests_total", "counter",
                  "API calls, by path and by `code` of the answer.");
    for (unsigned route = 0; route < API_ROUTES; route++)
        for (unsigned i = 0; i < METRICS_CODES; i++)
            buf_print(out, "wspush_api_requests_total{route=\"%s\",code=\"%d\"} %" PRIu64 "\n",
                      metrics_path(route), metrics_codes[i], metrics->calls[route].codes[i]);
    metrics_counter(out, "wspush_login_failures_total", "Logins with a wrong name or password.",
                    metrics->api->login_failures);
    metrics_begin(out, "wspush_api_request_duration_seconds", "histogram",
                  "Time from a complete request to its answer, by path.");
    for (unsigned route = 0; route < API_ROUTES; route++) {
        const struct metrics_calls *calls = &metrics->calls[route];

        snprintf(label, sizeof label, "route=\"%s\"", metrics_path(route));
        metrics_write_histogram(out, "wspush_api_request_duration_seconds", label, metrics_bounds,
                                calls->buckets, METRICS_BUCKETS + 1, calls->microseconds);
    }
}

#ifdef WSPUSH_CLUSTER
/* These follow on a node that is in a cluster. */
static void metrics_write_cluster(struct buf *out, const struct metrics *metrics)
{
    struct cluster_stats stats = cluster_stats(metrics->cluster);

    metrics_gauge(out, "wspush_cluster_nodes", "Other nodes that are known.", stats.nodes);
    metrics_gauge(out, "wspush_cluster_links", "Links to other nodes that are up.", stats.links);
    metrics_counter(out, "wspush_cluster_links_total", "Links that have come up.", stats.linked);
    metrics_gauge(out, "wspush_cluster_held_back",
                  "Commands that wait for sends before them to come back.", stats.held_back);
    metrics_counter(out, "wspush_cluster_late_requests_total",
                    "Requests from other nodes that came too late and were not carried out.",
                    stats.late);
    metrics_gauge(out, "wspush_cluster_presence_waiting",
                  "Presence records not written yet, and notices not published yet.",
                  stats.presence_waiting);
    metrics_counter(out, "wspush_cluster_notices_dropped_total",
                    "Notices that were dropped: too many waited.", stats.notices_dropped);
    metrics_gauge(out, "wspush_cluster_slots_unbound",
                  "Hash slots with members that RabbitMQ has not bound yet.", stats.slots_unbound);
    metrics_gauge(out, "wspush_redis_up", "1 if Redis can be reached.", stats.redis_up);
    metrics_counter(out, "wspush_redis_reconnects_total", "Times Redis has come back.",
                    stats.redis_reconnects);
    metrics_write_seconds(out, "wspush_redis_heartbeat_age_seconds", "gauge",
                          "Time since Redis last took a heartbeat of this node.",
                          (uint64_t)stats.heartbeat_age * 1000);
    metrics_gauge(out, "wspush_rabbitmq_up", "1 if RabbitMQ is connected.", stats.rabbitmq_up);
    metrics_counter(out, "wspush_rabbitmq_connects_total", "Times RabbitMQ has been connected.",
                    stats.rabbitmq_connects);
    metrics_counter(out, "wspush_rabbitmq_publishes_total", "Publications given to RabbitMQ.",
                    stats.publishes);
    metrics_counter(out, "wspush_rabbitmq_confirms_total",
                    "Publications that came back through RabbitMQ.", stats.confirms);
    metrics_counter(out, "wspush_rabbitmq_refusals_total",
                    "Publications that failed, or could not be made in time.", stats.refusals);
    metrics_counter(out, "wspush_rabbitmq_returned_total", "Publications that no order queue took.",
                    stats.returned);
    metrics_counter(out, "wspush_rabbitmq_strange_total",
                    "Messages dropped for their MAC or version.", stats.foreign);
    metrics_begin(out, "wspush_rabbitmq_echo_seconds", "histogram",
                  "Time from a publication to its return through RabbitMQ.");
    metrics_write_histogram(out, "wspush_rabbitmq_echo_seconds", "", stats.echo_bounds,
                            stats.echoes, CLUSTER_ECHO_BUCKETS, stats.echo_sum);
}
#endif

/* --- responses ------------------------------------------------------------------------------- */

static void metrics_write_readiness(const struct metrics *metrics, bool stopping,
                                    struct api_response *response)
{
    const char *reason = metrics_not_ready_reason(metrics, stopping);

    response->status = reason ? 503 : 200;
    buf_print(&response->body, "%s%s\n", reason ? "not ready: " : "", reason ? reason : "ready");
}

/* Rejects DNS rebinding: a page whose own name resolves to this listener has that name in Host. An
 * HTTP/1.0 request has no Host, and browsers do not send such. */
static bool metrics_trusts_host(struct str host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address; /* large enough for IPv4 too */
    struct str name = http_host_name(host);
    bool bracket = name.length > 2 && name.at[0] == '[';

    if (bracket)
        name = (struct str){name.at + 1, name.length - 2};
    if (host.length == 0 || str_equal_nocase(name, STR("localhost")))
        return true;
    if (name.length >= sizeof text)
        return false;
    memcpy(text, name.at, name.length);
    text[name.length] = '\0';
    return inet_pton(bracket ? AF_INET6 : AF_INET, text, &address) == 1;
}

void metrics_respond(const struct metrics *metrics, bool stopping,
                     const struct http_request *request, struct api_response *response)
{
    bool options = str_equal(request->method, STR("OPTIONS"));
    struct buf *body = &response->body;

    *response = (struct api_response){.status = 200, .type = PLAIN_TEXT, .fields = HTTP_UNCACHED};
    if (!metrics_trusts_host(request->host)) {
        response->status = 403;
        buf_append(body, STR("Host must be an address or localhost\n"));
    } else if (options || (!str_equal(request->method, STR("GET")) &&
                           !str_equal(request->method, STR("HEAD")))) {
        response->status = options ? 200 : 405; /* proxies probe with OPTIONS */
        response->allow = "GET, HEAD, OPTIONS";
        buf_append(body, STR("this listener takes GET\n"));
    } else if (str_equal(request->path, STR("/metrics"))) {
        response->type = PROMETHEUS_TEXT;
        metrics_write_process(body, metrics, stopping);
        metrics_write_connections(body, metrics);
        metrics_write_traffic(body, metrics);
        metrics_write_resumes(body, metrics);
        metrics_write_webhooks(body, metrics);
        metrics_write_api(body, metrics);
#ifdef WSPUSH_CLUSTER
        if (metrics->cluster)
            metrics_write_cluster(body, metrics);
#endif
    } else if (str_equal(request->path, STR("/healthz"))) {
        buf_append(body, STR("ok\n"));
    } else if (str_equal(request->path, STR("/readyz"))) {
        metrics_write_readiness(metrics, stopping, response);
    } else {
        response->status = 404;
        buf_append(body, STR("this listener has /metrics, /healthz and /readyz\n"));
    }
}

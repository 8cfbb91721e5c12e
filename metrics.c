/* metrics.c - what the admin listener serves: metrics, health and readiness.
 *
 * All metrics are one table, in the order of the output: name, type, help, and where the value is.
 * Most are one number that some module counts in a plain member: the table has the module's struct,
 * the member's offset and its size. Metrics with labels have a function that writes their samples.
 * What no module keeps as a member (CPU time, readiness, the cluster's statistics) is put into a
 * `struct metrics_scrape` when a request for /metrics comes, and read from there by the same table.
 *
 * Names, help texts and order are an interface: dashboards and alerts depend on them. Everything is
 * read on the loop's thread, which is the one that counts. */
#include "metrics.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define PLAIN_TEXT "text/plain; charset=utf-8"
#define PROMETHEUS_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define MICROSECONDS 1000000

/* --- counting -------------------------------------------------------------------------------- */

static const uint16_t metrics_handshakes[METRICS_HANDSHAKES] = {101, 400, 403, 405, 426, 429, 503};

static const int metrics_codes[METRICS_CODES] = {
    RESULT_SUCCESS,    RESULT_MALFORMED, RESULT_UNKNOWN_SYSTEM, RESULT_NO_TOKEN,   RESULT_OFFLINE,
    RESULT_REGISTERED, RESULT_DENIED,    RESULT_LIMIT,          RESULT_UNREACHABLE};

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

/* --- the table ------------------------------------------------------------------------------- */

/* The structs that have the values. */
enum metrics_source {
    METRICS_SCRAPE,
    METRICS_OWN,
    METRICS_HUB,
    METRICS_API,
    METRICS_CONN,
    METRICS_SOURCES
};

/* One request for /metrics, and the values that no module keeps as a member. */
struct metrics_scrape {
    const void *sources[METRICS_SOURCES];
    const struct metrics *metrics;
    uint64_t ready, lost_lines;
    uint64_t cpu; /* microseconds, user and system */
#ifdef WSPUSH_CLUSTER
    struct cluster_stats stats;
    uint64_t heartbeat_age; /* microseconds */
#endif
};

struct metric {
    const char *name, *type, *help;
    enum metrics_source source;
    size_t offset, size; /* of the member there */
    /* writes the samples; NULL: one, an integer */
    void (*write)(struct buf *out, const struct metric *metric,
                  const struct metrics_scrape *scrape);
};

/* The member's value: a size_t, a uint64_t, or a bool. */
static uint64_t metrics_value(const struct metric *metric, const struct metrics_scrape *scrape)
{
    const char *at = (const char *)scrape->sources[metric->source] + metric->offset;
    uint64_t wide;
    uint32_t narrow;

    if (metric->size == sizeof(bool))
        return *(const bool *)at;
    if (metric->size == sizeof narrow) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
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

static void metrics_write_seconds(struct buf *out, const struct metric *metric,
                                  const struct metrics_scrape *scrape)
{
    char text[32];

    buf_print(out, "wspush_%s %s\n", metric->name,
              metrics_seconds(text, metrics_value(metric, scrape)));
}

static void metrics_write_version(struct buf *out, const struct metric *metric,
                                  const struct metrics_scrape *scrape)
{
    buf_print(out, "wspush_%s{version=\"%s\"} 1\n", metric->name, scrape->metrics->version);
}

static void metrics_write_reloads(struct buf *out, const struct metric *metric,
                                  const struct metrics_scrape *scrape)
{
    for (int good = 0; good < 2; good++)
        buf_print(out, "wspush_%s{result=\"%s\"} %" PRIu64 "\n", metric->name,
                  good ? "success" : "failure", scrape->metrics->reloads[good]);
}

/* One sample for each key, and one for the others, whose count stands behind theirs. */
static void metrics_write_by(struct buf *out, const char *name, const char *label,
                             const uint16_t *keys, size_t count, const uint64_t *counts)
{
    for (size_t i = 0; i < count; i++)
        buf_print(out, "wspush_%s{%s=\"%d\"} %" PRIu64 "\n", name, label, keys[i], counts[i]);
    buf_print(out, "wspush_%s{%s=\"other\"} %" PRIu64 "\n", name, label, counts[count]);
}

static void metrics_write_handshakes(struct buf *out, const struct metric *metric,
                                     const struct metrics_scrape *scrape)
{
    metrics_write_by(out, metric->name, "status", metrics_handshakes, METRICS_HANDSHAKES,
                     scrape->metrics->handshakes);
}

static void metrics_write_closes(struct buf *out, const struct metric *metric,
                                 const struct metrics_scrape *scrape)
{
    metrics_write_by(out, metric->name, "code", hub_close_codes, HUB_CLOSE_CODES,
                     scrape->metrics->hub->counts.closes);
}

/* The path of a number, NUL-terminated, for a label. */
static const char *metrics_path(unsigned route)
{
    struct str path = api_path(route);

    return path.length ? path.at : "other";
}

static void metrics_write_calls(struct buf *out, const struct metric *metric,
                                const struct metrics_scrape *scrape)
{
    for (unsigned route = 0; route < API_ROUTES; route++)
        for (unsigned i = 0; i < METRICS_CODES; i++)
            buf_print(out, "wspush_%s{route=\"%s\",code=\"%d\"} %" PRIu64 "\n", metric->name,
                      metrics_path(route), metrics_codes[i],
                      scrape->metrics->calls[route].codes[i]);
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
        buf_print(out, "wspush_%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, label, comma,
                  i < count - 1 ? metrics_seconds(text, bounds[i]) : "+Inf", total);
    }
    buf_print(out, "wspush_%s_sum%s%s%s %s\n", name, open, label, close,
              metrics_seconds(text, sum));
    buf_print(out, "wspush_%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, total);
}

static void metrics_write_durations(struct buf *out, const struct metric *metric,
                                    const struct metrics_scrape *scrape)
{
    char label[64];

    for (unsigned route = 0; route < API_ROUTES; route++) {
        const struct metrics_calls *calls = &scrape->metrics->calls[route];

        snprintf(label, sizeof label, "route=\"%s\"", metrics_path(route));
        metrics_write_histogram(out, metric->name, label, metrics_bounds, calls->buckets,
                                METRICS_BUCKETS + 1, calls->microseconds);
    }
}

#ifdef WSPUSH_CLUSTER
static void metrics_write_echoes(struct buf *out, const struct metric *metric,
                                 const struct metrics_scrape *scrape)
{
    const struct cluster_stats *stats = &scrape->stats;

    metrics_write_histogram(out, metric->name, "", stats->echo_bounds, stats->echoes,
                            CLUSTER_ECHO_BUCKETS, stats->echo_sum);
}
#endif

#define MEMBER(source, type, member)                                                               \
    METRICS_##source, offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define SCRAPE(member) MEMBER(SCRAPE, metrics_scrape, member)
#define OWN(member) MEMBER(OWN, metrics, member), NULL
#define HUB(member) MEMBER(HUB, hub, member), NULL
#define CONN(member) MEMBER(CONN, conn_shared, member), NULL
#define WRITE(verb) METRICS_SCRAPE, 0, 0, metrics_write_##verb

static const struct metric metrics_table[] = {
    {"build_info", "gauge", "What is running.", WRITE(version)},
    {"start_time_seconds", "gauge", "Unix time of the start.", OWN(started)},
    {"cpu_seconds_total", "counter", "CPU time used, user and system.", SCRAPE(cpu),
     metrics_write_seconds},
    {"ready", "gauge", "1 if /readyz says so.", SCRAPE(ready), NULL},
    {"reloads_total", "counter", "SIGHUPs, by whether the file could be used.", WRITE(reloads)},
    {"log_lines_lost_total", "counter", "Lines that the log did not take at once.",
     SCRAPE(lost_lines), NULL},
    {"connections", "gauge", "Open connections, those of the API included.", OWN(connections)},
    {"clients", "gauge", "WebSocket clients that are online.", HUB(channels.clients.count)},
    {"systems", "gauge", "Systems with clients here.", HUB(kinds[CHANNEL_SYSTEM])},
    {"groups", "gauge", "Groups with members here.", HUB(kinds[CHANNEL_GROUP])},
    {"users", "gauge", "Users with clients here.", HUB(kinds[CHANNEL_USER])},
    {"parked_connections", "gauge", "Quiet connections watched by threads.", OWN(parked)},
    {"parking_threads", "gauge", "Threads that watch quiet connections.", OWN(threads)},
    {"connections_accepted_total", "counter", "Connections accepted.", OWN(accepted)},
    {"connections_refused_total", "counter", "Connections beyond max_connections or max_per_ip.",
     OWN(refused)},
    {"handshakes_total", "counter", "Requests to /ws, by status of the answer.", WRITE(handshakes)},
    {"closes_total", "counter",
     "WebSocket connections ended, by close code; 1006: without a close frame.", WRITE(closes)},
    {"slow_closes_total", "counter",
     "Clients closed because they read slower than they were sent to.", HUB(counts.slow)},
    {"received_messages_total", "counter", "Messages from clients.", OWN(received_messages)},
    {"sent_messages_total", "counter",
     "Messages queued for clients: their ids, pushes and notices.", HUB(counts.sent)},
    {"dropped_messages_total", "counter", "Messages not queued because the client was too slow.",
     HUB(counts.dropped)},
    {"received_bytes_total", "counter", "Bytes received, API included, TLS not.", CONN(received)},
    {"sent_bytes_total", "counter", "Bytes sent, API included, TLS not.", CONN(sent)},
    {"queued_bytes", "gauge", "Bytes that wait to be sent.", CONN(waiting)},
    {"buffered_bytes", "gauge", "Memory of input that is kept and output that waits.",
     CONN(buffered)},
    {"shed_connections_total", "counter", "Connections ended because max_buffered was reached.",
     OWN(shed)},
    {"api_requests_total", "counter", "Calls of the API, by path and by `code` of the answer.",
     WRITE(calls)},
    {"login_failures_total", "counter", "Logins with a wrong name or password.",
     MEMBER(API, api, login_failures), NULL},
    {"api_request_duration_seconds", "histogram", "From a whole request to its answer, by path.",
     WRITE(durations)},
};

#ifdef WSPUSH_CLUSTER
#define STAT(member) SCRAPE(stats.member), NULL

/* These follow on a node that is in a cluster. */
static const struct metric metrics_cluster_table[] = {
    {"cluster_nodes", "gauge", "Other nodes that are known.", STAT(nodes)},
    {"cluster_links", "gauge", "Links to other nodes that are up.", STAT(links)},
    {"cluster_links_total", "counter", "Links that have come up.", STAT(linked)},
    {"cluster_held_back", "gauge", "Commands that wait for sends before them to come back.",
     STAT(held_back)},
    {"cluster_late_requests_total", "counter",
     "Requests of other nodes that came too late and were not done.", STAT(late)},
    {"cluster_presence_waiting", "gauge",
     "Presence records and notices that are not written and told yet.", STAT(presence_waiting)},
    {"cluster_notices_dropped_total", "counter", "Notices that were dropped: too many waited.",
     STAT(notices_dropped)},
    {"cluster_slots_unbound", "gauge", "Hash slots with members that RabbitMQ has not bound yet.",
     STAT(slots_unbound)},
    {"redis_up", "gauge", "1 if Redis can be reached.", STAT(redis_up)},
    {"redis_reconnects_total", "counter", "Times Redis has come back.", STAT(redis_reconnects)},
    {"redis_heartbeat_age_seconds", "gauge", "Since Redis last took a heartbeat of this node.",
     SCRAPE(heartbeat_age), metrics_write_seconds},
    {"rabbitmq_up", "gauge", "1 if RabbitMQ is connected.", STAT(rabbitmq_up)},
    {"rabbitmq_connects_total", "counter", "Times RabbitMQ has been connected.",
     STAT(rabbitmq_connects)},
    {"rabbitmq_publishes_total", "counter", "Publications given to RabbitMQ.", STAT(publishes)},
    {"rabbitmq_confirms_total", "counter", "Publications that came back through RabbitMQ.",
     STAT(confirms)},
    {"rabbitmq_refusals_total", "counter",
     "Publications that failed, or could not be made in time.", STAT(refusals)},
    {"rabbitmq_returned_total", "counter", "Publications that no order queue took.",
     STAT(returned)},
    {"rabbitmq_strange_total", "counter",
     "Messages of strangers that were dropped for their MAC or version.", STAT(foreign)},
    {"rabbitmq_echo_seconds", "histogram", "From a publication to its return through RabbitMQ.",
     WRITE(echoes)},
};
#endif

static void metrics_write_table(struct buf *out, const struct metric *table, size_t count,
                                const struct metrics_scrape *scrape)
{
    for (const struct metric *metric = table; metric < table + count; metric++) {
        buf_print(out, "# HELP wspush_%s %s\n# TYPE wspush_%s %s\n", metric->name, metric->help,
                  metric->name, metric->type);
        if (metric->write)
            metric->write(out, metric, scrape);
        else
            buf_print(out, "wspush_%s %" PRIu64 "\n", metric->name, metrics_value(metric, scrape));
    }
}

static void metrics_write(struct buf *out, const struct metrics *metrics, bool stopping)
{
    struct rusage used = {0};
    struct metrics_scrape scrape = {.sources = {[METRICS_OWN] = metrics,
                                                [METRICS_HUB] = metrics->hub,
                                                [METRICS_API] = metrics->api,
                                                [METRICS_CONN] = metrics->shared},
                                    .metrics = metrics,
                                    .ready = !metrics_not_ready_reason(metrics, stopping),
                                    .lost_lines = log_lost(metrics->log)};

    scrape.sources[METRICS_SCRAPE] = &scrape;
    getrusage(RUSAGE_SELF, &used);
    scrape.cpu = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * MICROSECONDS +
                 (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    metrics_write_table(out, metrics_table, sizeof metrics_table / sizeof metrics_table[0],
                        &scrape);
#ifdef WSPUSH_CLUSTER
    if (!metrics->cluster)
        return;
    scrape.stats = cluster_stats(metrics->cluster);
    scrape.heartbeat_age = (uint64_t)scrape.stats.heartbeat_age * 1000;
    metrics_write_table(out, metrics_cluster_table,
                        sizeof metrics_cluster_table / sizeof metrics_cluster_table[0], &scrape);
#endif
}

/* --- responses ------------------------------------------------------------------------------- */

const char *metrics_not_ready_reason(const struct metrics *metrics, bool stopping)
{
    return stopping ? "draining" : cluster_degraded_reason(metrics->cluster);
}

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
        metrics_write(body, metrics, stopping);
    } else if (str_equal(request->path, STR("/healthz"))) {
        buf_append(body, STR("ok\n"));
    } else if (str_equal(request->path, STR("/readyz"))) {
        metrics_write_readiness(metrics, stopping, response);
    } else {
        response->status = 404;
        buf_append(body, STR("there are /metrics, /healthz and /readyz\n"));
    }
}

/* admin.c - what the admin listener answers. */
#include "admin.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define PLAIN_TEXT "text/plain; charset=utf-8"
#define PROMETHEUS_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define MICROSECONDS 1000000

static const int handshake_statuses[ADMIN_HANDSHAKES] = {101, 400, 403, 405, 426, 429, 503};

uint64_t admin_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * MICROSECONDS + (uint64_t)now.tv_nsec / 1000;
}

void admin_count_handshake(struct admin *admin, int status)
{
    unsigned place = 0;

    while (place < ADMIN_HANDSHAKES && handshake_statuses[place] != status)
        place++;
    admin->handshakes[place]++;
}

/* --- the format ------------------------------------------------------------------------------ */

/* A metric's first two lines. Names are without the program's. */
static void write_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_append(out, STR("# HELP wspush_"));
    buf_append(out, str_from(name));
    buf_append(out, STR(" "));
    buf_append(out, str_from(help));
    buf_append(out, STR("\n# TYPE wspush_"));
    buf_append(out, str_from(name));
    buf_append(out, STR(" "));
    buf_append(out, str_from(type));
    buf_append(out, STR("\n"));
}

/* A sample's beginning, up to its value; `labels` without braces, or empty. */
static void write_name(struct buf *out, const char *name, struct str labels)
{
    buf_append(out, STR("wspush_"));
    buf_append(out, str_from(name));
    if (labels.length) {
        buf_append(out, STR("{"));
        buf_append(out, labels);
        buf_append(out, STR("}"));
    }
    buf_append(out, STR(" "));
}

static void write_sample(struct buf *out, const char *name, struct str labels, uint64_t value)
{
    write_name(out, name, labels);
    buf_append_number(out, (int64_t)value);
    buf_append(out, STR("\n"));
}

/* A metric that is one number. */
static void write_number(struct buf *out, const char *name, const char *type, const char *help,
                         uint64_t value)
{
    write_family(out, name, type, help);
    write_sample(out, name, (struct str){0}, value);
}

/* Microseconds as seconds, without zeros at the end. */
static void append_seconds(struct buf *out, uint64_t microseconds)
{
    char digits[] = ".000000";
    size_t length = sizeof digits - 1;
    uint64_t rest = microseconds % MICROSECONDS;

    for (size_t i = length; --i > 0; rest /= 10)
        digits[i] = (char)('0' + rest % 10);
    while (length && (digits[length - 1] == '0' || length == 1))
        length--;
    buf_append_number(out, (int64_t)(microseconds / MICROSECONDS));
    buf_append(out, (struct str){digits, length});
}

/* One label, in the room of the caller. */
struct label {
    char room[160];
    struct buf text;
};

static struct str make_label(struct label *label, const char *name, struct str value)
{
    label->text = (struct buf){
        .at = label->room, .capacity = sizeof label->room, .limit = sizeof label->room};
    buf_append(&label->text, str_from(name));
    buf_append(&label->text, STR("=\""));
    buf_append(&label->text, value);
    buf_append(&label->text, STR("\""));
    return str_of(&label->text);
}

static struct str number_label(struct label *label, const char *name, int64_t value)
{
    char room[24];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};

    buf_append_number(&text, value);
    return make_label(label, name, str_of(&text));
}

/* --- metrics --------------------------------------------------------------------------------- */

static void write_process(struct buf *out, const struct admin *admin, bool stopping)
{
    struct rusage used;
    struct label label;

    write_family(out, "build_info", "gauge", "What is running.");
    write_sample(out, "build_info", make_label(&label, "version", str_from(admin->version)), 1);
    write_number(out, "start_time_seconds", "gauge", "Unix time of the start.",
                 (uint64_t)admin->started);
    if (getrusage(RUSAGE_SELF, &used) == 0) {
        write_family(out, "cpu_seconds_total", "counter", "CPU time used, user and system.");
        write_name(out, "cpu_seconds_total", (struct str){0});
        append_seconds(out, (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * MICROSECONDS +
                                (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec));
        buf_append(out, STR("\n"));
    }
    write_number(out, "ready", "gauge", "1 if /readyz says so.", !admin_unready(admin, stopping));
    write_family(out, "reloads_total", "counter", "SIGHUPs, by whether the file could be used.");
    write_sample(out, "reloads_total", STR("result=\"failure\""), admin->reloads[0]);
    write_sample(out, "reloads_total", STR("result=\"success\""), admin->reloads[1]);
    write_number(out, "log_lines_lost_total", "counter", "Lines that the log did not take at once.",
                 log_lost(admin->log));
}

static void write_connections(struct buf *out, const struct admin *admin)
{
    const struct hub *hub = admin->hub;

    write_number(out, "connections", "gauge", "Open connections, those of the API included.",
                 admin->connections);
    write_number(out, "clients", "gauge", "WebSocket clients that are online.", hub->clients.count);
    write_number(out, "systems", "gauge", "Systems with clients here.",
                 hub->kinds[AUDIENCE_SYSTEM]);
    write_number(out, "groups", "gauge", "Groups with members here.", hub->kinds[AUDIENCE_GROUP]);
    write_number(out, "users", "gauge", "Users with clients here.", hub->kinds[AUDIENCE_USER]);
    write_number(out, "parked_connections", "gauge", "Quiet connections watched by threads.",
                 admin->parked);
    write_number(out, "parking_threads", "gauge", "Threads that watch quiet connections.",
                 admin->threads);
    write_number(out, "connections_accepted_total", "counter", "Connections accepted.",
                 admin->accepted);
    write_number(out, "connections_refused_total", "counter",
                 "Connections beyond max_connections or max_per_ip.", admin->refused);
}

static void write_handshakes(struct buf *out, const struct admin *admin)
{
    struct label label;

    write_family(out, "handshakes_total", "counter", "Requests to /ws, by status of the answer.");
    for (size_t i = 0; i < ADMIN_HANDSHAKES; i++)
        write_sample(out, "handshakes_total", number_label(&label, "status", handshake_statuses[i]),
                     admin->handshakes[i]);
    write_sample(out, "handshakes_total", STR("status=\"other\""),
                 admin->handshakes[ADMIN_HANDSHAKES]);
}

static void write_closes(struct buf *out, const struct hub *hub)
{
    struct label label;

    write_family(out, "closes_total", "counter",
                 "WebSocket connections ended, by close code; 1006: without a close frame.");
    for (size_t i = 0; i < HUB_CLOSE_CODES; i++)
        write_sample(out, "closes_total", number_label(&label, "code", hub_close_codes[i]),
                     hub->counts.closes[i]);
    write_sample(out, "closes_total", STR("code=\"other\""), hub->counts.closes[HUB_CLOSE_CODES]);
    write_number(out, "slow_closes_total", "counter",
                 "Clients closed because they read slower than they were sent to.",
                 hub->counts.slow);
}

static void write_traffic(struct buf *out, const struct admin *admin)
{
    write_number(out, "received_messages_total", "counter", "Messages from clients.",
                 admin->received_messages);
    write_number(out, "sent_messages_total", "counter",
                 "Messages queued for clients: their ids, pushes and notices.",
                 admin->hub->counts.sent);
    write_number(out, "dropped_messages_total", "counter",
                 "Messages not queued because the client was too slow.",
                 admin->hub->counts.dropped);
    write_number(out, "received_bytes_total", "counter", "Bytes received, API included, TLS not.",
                 admin->shared->received);
    write_number(out, "sent_bytes_total", "counter", "Bytes sent, API included, TLS not.",
                 admin->shared->sent);
    write_number(out, "queued_bytes", "gauge", "Bytes that wait to be sent.",
                 admin->shared->waiting);
    write_number(out, "buffered_bytes", "gauge",
                 "Memory of input that is kept and output that waits.", admin->shared->buffered);
    write_number(out, "shed_connections_total", "counter",
                 "Connections ended because max_buffered was reached.", admin->shed);
}

static struct str route_label(struct label *label, unsigned route)
{
    struct str path = api_path(route);

    return make_label(label, "route", path.length ? path : STR("other"));
}

static void write_calls(struct buf *out, const struct api *api)
{
    struct label label;

    write_family(out, "api_requests_total", "counter",
                 "Calls of the API, by path and by `code` of the answer.");
    for (unsigned route = 0; route < API_ROUTES; route++)
        for (unsigned code = 0; code < API_CODES; code++) {
            route_label(&label, route);
            buf_append(&label.text, STR(",code=\""));
            buf_append_number(&label.text, code == 0 ? 0 : code == 1 ? -1 : -999 - (int64_t)code);
            buf_append(&label.text, STR("\""));
            write_sample(out, "api_requests_total", str_of(&label.text),
                         api->counts[route].codes[code]);
        }
    write_number(out, "login_failures_total", "counter", "Logins with a wrong name or password.",
                 api->login_failures);
}

/* The buckets of one path, which in this format include those before them. */
static void write_buckets(struct buf *out, const struct api_count *count, unsigned route)
{
    struct label label;
    uint64_t sum = 0;

    for (unsigned range = 0; range < API_RANGES; range++) {
        sum += count->ranges[range];
        route_label(&label, route);
        buf_append(&label.text, STR(",le=\""));
        append_seconds(&label.text, api_ranges[range]);
        buf_append(&label.text, STR("\""));
        write_sample(out, "api_request_duration_seconds_bucket", str_of(&label.text), sum);
    }
    sum = 0;
    for (unsigned code = 0; code < API_CODES; code++)
        sum += count->codes[code];
    route_label(&label, route);
    buf_append(&label.text, STR(",le=\"+Inf\""));
    write_sample(out, "api_request_duration_seconds_bucket", str_of(&label.text), sum);
    write_name(out, "api_request_duration_seconds_sum", route_label(&label, route));
    append_seconds(out, count->microseconds);
    buf_append(out, STR("\n"));
    write_sample(out, "api_request_duration_seconds_count", str_of(&label.text), sum);
}

static void write_durations(struct buf *out, const struct api *api)
{
    write_family(out, "api_request_duration_seconds", "histogram",
                 "From a whole request to its answer, by path.");
    for (unsigned route = 0; route < API_ROUTES; route++)
        write_buckets(out, &api->counts[route], route);
}

/* How long publications took to come back. */
static void admin_write_echoes(struct buf *out, const struct cluster_stats *stats)
{
    struct label label;
    char room[24];
    uint64_t sum = 0;

    write_family(out, "rabbitmq_echo_seconds", "histogram",
                 "From a publication to its return through RabbitMQ.");
    for (unsigned range = 0; range < CLUSTER_ECHO_BUCKETS; range++) {
        struct buf bound = {.at = room, .capacity = sizeof room, .limit = sizeof room};

        sum += stats->echoes[range];
        if (range < CLUSTER_ECHO_BUCKETS - 1)
            append_seconds(&bound, stats->echo_bounds[range]);
        else
            buf_append(&bound, STR("+Inf"));
        write_sample(out, "rabbitmq_echo_seconds_bucket", make_label(&label, "le", str_of(&bound)),
                     sum);
    }
    write_name(out, "rabbitmq_echo_seconds_sum", (struct str){0});
    append_seconds(out, stats->echo_sum);
    buf_append(out, STR("\n"));
    write_sample(out, "rabbitmq_echo_seconds_count", (struct str){0}, sum);
}

static void admin_write_bus(struct buf *out, const struct cluster_stats *stats)
{
    write_number(out, "rabbitmq_up", "gauge", "1 if RabbitMQ is connected.", stats->rabbitmq_up);
    write_number(out, "rabbitmq_connects_total", "counter", "Times RabbitMQ has been connected.",
                 stats->rabbitmq_connects);
    write_number(out, "rabbitmq_publishes_total", "counter", "Publications given to RabbitMQ.",
                 stats->publishes);
    write_number(out, "rabbitmq_confirms_total", "counter",
                 "Publications that came back through RabbitMQ.", stats->confirms);
    write_number(out, "rabbitmq_refusals_total", "counter",
                 "Publications that failed, or could not be made in time.", stats->refusals);
    write_number(out, "rabbitmq_returned_total", "counter",
                 "Publications that no order queue took.", stats->returned);
    write_number(out, "rabbitmq_strange_total", "counter",
                 "Messages of strangers that were dropped for their MAC or version.",
                 stats->strange);
    admin_write_echoes(out, stats);
}

static void write_cluster(struct buf *out, const struct cluster *cluster)
{
    struct cluster_stats stats = cluster_stats(cluster);

    write_number(out, "cluster_nodes", "gauge", "Other nodes that are known.", stats.nodes);
    write_number(out, "cluster_links", "gauge", "Links to other nodes that are up.", stats.links);
    write_number(out, "cluster_links_total", "counter", "Links that have come up.", stats.linked);
    write_number(out, "cluster_held_back", "gauge",
                 "Commands that wait for sends before them to come back.", stats.held_back);
    write_number(out, "cluster_late_requests_total", "counter",
                 "Requests of other nodes that came too late and were not done.", stats.late);
    write_number(out, "cluster_presence_waiting", "gauge",
                 "Presence records and notices that are not written and told yet.",
                 stats.presence_waiting);
    write_number(out, "cluster_notices_dropped_total", "counter",
                 "Notices that were dropped: too many waited.", stats.notices_dropped);
    write_number(out, "cluster_slots_unbound", "gauge",
                 "Hash slots with members that RabbitMQ has not bound yet.", stats.slots_unbound);
    write_number(out, "redis_up", "gauge", "1 if Redis can be reached.", stats.redis_up);
    write_number(out, "redis_reconnects_total", "counter", "Times Redis has come back.",
                 stats.redis_reconnects);
    write_family(out, "redis_heartbeat_age_seconds", "gauge",
                 "Since Redis last took a heartbeat of this node.");
    write_name(out, "redis_heartbeat_age_seconds", (struct str){0});
    append_seconds(out, (uint64_t)stats.heartbeat_age * 1000);
    buf_append(out, STR("\n"));
    admin_write_bus(out, &stats);
}

/* --- answers --------------------------------------------------------------------------------- */

const char *admin_unready(const struct admin *admin, bool stopping)
{
    return stopping ? "draining" : cluster_trouble(admin->cluster);
}

static void write_metrics(struct buf *out, const struct admin *admin, bool stopping)
{
    write_process(out, admin, stopping);
    write_connections(out, admin);
    write_handshakes(out, admin);
    write_closes(out, admin->hub);
    write_traffic(out, admin);
    write_calls(out, admin->api);
    write_durations(out, admin->api);
    if (admin->cluster)
        write_cluster(out, admin->cluster);
}

static void write_readiness(const struct admin *admin, bool stopping, struct api_answer *answer)
{
    const char *why = admin_unready(admin, stopping);

    if (why) {
        answer->status = 503;
        buf_append(&answer->body, STR("not ready: "));
    }
    buf_append(&answer->body, str_from(why ? why : "ready"));
    buf_append(&answer->body, STR("\n"));
}

/* A page whose own name was made to lead here (DNS rebinding) has its name in Host. HTTP/1.0 needs
 * no Host, and browsers do not speak it. */
static bool is_trusted_host(struct str host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address; /* room for either kind */
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

void admin_answer(const struct admin *admin, bool stopping, const struct http_request *request,
                  struct api_answer *answer)
{
    bool options = str_equal(request->method, STR("OPTIONS"));

    *answer = (struct api_answer){.status = 200, .type = PLAIN_TEXT, .fields = HTTP_UNCACHED};
    if (!is_trusted_host(request->host)) {
        answer->status = 403;
        buf_append(&answer->body, STR("Host must be an address or localhost\n"));
    } else if (options || (!str_equal(request->method, STR("GET")) &&
                           !str_equal(request->method, STR("HEAD")))) {
        answer->status = options ? 200 : 405; /* proxies probe with OPTIONS */
        answer->allow = "GET, HEAD, OPTIONS";
        buf_append(&answer->body, STR("this listener takes GET\n"));
    } else if (str_equal(request->path, STR("/metrics"))) {
        answer->type = PROMETHEUS_TEXT;
        write_metrics(&answer->body, admin, stopping);
    } else if (str_equal(request->path, STR("/healthz"))) {
        buf_append(&answer->body, STR("ok\n"));
    } else if (str_equal(request->path, STR("/readyz"))) {
        write_readiness(admin, stopping, answer);
    } else {
        answer->status = 404;
        buf_append(&answer->body, STR("there are /metrics, /healthz and /readyz\n"));
    }
}

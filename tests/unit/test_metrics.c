/* test_metrics.c - metrics.c: every metric's name, place and value, the histograms, and the
 * responses of the admin listener. */
#include "metrics.h"

#include "node.h"
#include "os.h"

#include <time.h>

static struct metrics metrics;
static struct log_state log_state;
static const struct log quiet = {.state = &log_state};
static struct str text; /* of the last answer */
static struct api_response answer;

static const char *host = ""; /* of the next request */

static void set_up(void)
{
    node_open();
    metrics = (struct metrics){.hub = &node.hub,
                               .api = &node.api,
                               .shared = &node.shared,
                               .log = &quiet,
                               .version = "1.2.3",
                               .features = "single node",
                               .started = UNIX_NOW};
}

static void tear_down(void)
{
    buf_free(&answer.body);
    text = (struct str){0};
    node_close();
}

static void ask(const char *method, const char *path, bool stopping)
{
    struct http_request request = {
        .method = str_from(method), .path = str_from(path), .host = str_from(host)};

    buf_free(&answer.body);
    metrics_respond(&metrics, stopping, &request, &answer);
    text = str_of(&answer.body);
}

/* True if the answer has this line, once. */
static bool has_line(const char *line)
{
    struct str rest = text;
    int found = 0;

    while (rest.at)
        found += str_equal(str_cut(&rest, '\n'), str_from(line));
    if (found != 1)
        printf("  %d lines are: %s\n", found, line);
    return found == 1;
}

/* The families, in their order, and what is in each but for its help. */
static const char *const families[] = {
    "wspush_build_info gauge",
    "wspush_start_time_seconds gauge",
    "process_start_time_seconds gauge",
    "wspush_cpu_seconds_total counter",
    "process_cpu_seconds_total counter",
    "process_resident_memory_bytes gauge",
    "process_open_fds gauge",
    "process_max_fds gauge",
    "wspush_tls_certificate_expiry_timestamp_seconds gauge",
    "wspush_ready gauge",
    "wspush_reloads_total counter",
    "wspush_log_lines_lost_total counter",
    "wspush_connections gauge",
    "wspush_max_connections gauge",
    "wspush_clients gauge",
    "wspush_systems gauge",
    "wspush_groups gauge",
    "wspush_users gauge",
    "wspush_parked_connections gauge",
    "wspush_parking_threads gauge",
    "wspush_connections_accepted_total counter",
    "wspush_connections_refused_total counter",
    "wspush_handshakes_total counter",
    "wspush_tickets_total counter",
    "wspush_closes_total counter",
    "wspush_slow_closes_total counter",
    "wspush_received_messages_total counter",
    "wspush_sent_messages_total counter",
    "wspush_dropped_messages_total counter",
    "wspush_once_repeated_total counter",
    "wspush_received_bytes_total counter",
    "wspush_sent_bytes_total counter",
    "wspush_queued_bytes gauge",
    "wspush_buffered_bytes gauge",
    "wspush_shed_connections_total counter",
    "wspush_budget_exhausted_total counter",
    "wspush_resume_clients gauge",
    "wspush_resume_away gauge",
    "wspush_resume_memory_bytes gauge",
    "wspush_resumes_total counter",
    "wspush_resume_moved_total counter",
    "wspush_resume_replayed_total counter",
    "wspush_resume_gaps_total counter",
    "wspush_webhook_events_total counter",
    "wspush_webhook_queued_bytes gauge",
    "wspush_webhook_lag_seconds gauge",
    "wspush_api_requests_total counter",
    "wspush_login_failures_total counter",
    "wspush_api_request_duration_seconds histogram",
};

/* True if a sample belongs to a family, whose name ends at a space. */
static bool is_sample_of(struct str line, const char *family)
{
    static const char *const ends[] = {"_bucket", "_sum", "_count"};
    struct str name = str_from(family), rest = line;
    bool histogram;

    name = str_cut(&name, ' ');
    histogram = strcmp(family + name.length, " histogram") == 0;
    line = str_cut(&rest, ' ');
    rest = line;
    line = str_cut(&rest, '{');
    for (size_t i = 0; histogram && i < COUNT(ends); i++)
        if (str_equal(line, str_from(textf("%.*s%s", (int)name.length, name.at, ends[i]))))
            return true;
    return !histogram && str_equal(line, name);
}

/* False for what this system does not tell of a process, and so has no family. */
static bool is_told(const char *family)
{
    struct os_usage usage;

    os_measure(&usage);
    return !(strncmp(family, "process_res", 11) == 0 && usage.resident == 0) &&
           !(strncmp(family, "process_open", 12) == 0 && usage.descriptors == 0) &&
           !(strncmp(family, "process_max", 11) == 0 && usage.descriptor_limit == 0);
}

/* Each family has its help, its type and its samples together, and there is nothing else. */
static void families_come_in_order(void)
{
    struct str rest;
    size_t samples = 0, untold = 0;

    metrics.certificate_expiry = UNIX_NOW;

    ask("GET", "/metrics", false);
    CHECK(answer.status == 200 && !answer.allow);
    CHECK(strcmp(answer.type, "text/plain; version=0.0.4; charset=utf-8") == 0);
    CHECK(text.length > 0 && text.at[text.length - 1] == '\n');
    rest = (struct str){text.at, text.length ? text.length - 1 : 0};
    for (size_t i = 0; i < COUNT(families); i++) {
        struct str help, name = str_from(families[i]);

        if (!is_told(families[i])) {
            untold++;
            continue;
        }
        help = str_cut(&rest, '\n');
        name = str_cut(&name, ' ');
        CHECK(contains(help, textf("# HELP %.*s ", (int)name.length, name.at)));
        CHECK(help.length > 10 && help.at[help.length - 1] == '.');
        CHECK(same(str_cut(&rest, '\n'), str_from(textf("# TYPE %s", families[i]))));
        CHECK(rest.at && is_sample_of(rest, families[i]));
        while (rest.at && is_sample_of(rest, families[i])) {
            samples++;
            str_cut(&rest, '\n');
        }
    }
    CHECK(!rest.at);
    /* counters for handshakes, tickets, closes, reloads, webhooks, returns, gaps, calls; the others
     * are one number
     */
    CHECK(samples == 8 + 5 + 14 + 2 + 3 + 3 + 5 + API_ROUTES * 9 + API_ROUTES * (12 + 3) +
                         COUNT(families) - 9 - untold);
}

/* Every member of its own number, so that none can stand for another. */
static void every_number_has_its_name(void)
{
    static const char *const lines[] = {
        "wspush_build_info{version=\"1.2.3\",features=\"single node\"} 1",
        "wspush_start_time_seconds 1700000000",
        "process_start_time_seconds 1700000000",
        "wspush_tls_certificate_expiry_timestamp_seconds 1900000000",
        "wspush_ready 1",
        "wspush_reloads_total{result=\"failure\"} 101",
        "wspush_reloads_total{result=\"success\"} 102",
        "wspush_log_lines_lost_total 117",
        "wspush_connections 103",
        "wspush_max_connections 119",
        "wspush_clients 0",
        "wspush_systems 104",
        "wspush_groups 105",
        "wspush_users 106",
        "wspush_parked_connections 107",
        "wspush_parking_threads 108",
        "wspush_connections_accepted_total 109",
        "wspush_connections_refused_total 110",
        "wspush_slow_closes_total 111",
        "wspush_received_messages_total 112",
        "wspush_sent_messages_total 113",
        "wspush_dropped_messages_total 114",
        "wspush_once_repeated_total 121",
        "wspush_received_bytes_total 5000000000",
        "wspush_sent_bytes_total 9223372036854775807",
        "wspush_queued_bytes 115",
        "wspush_buffered_bytes 117",
        "wspush_shed_connections_total 118",
        "wspush_budget_exhausted_total 120",
        "wspush_resume_clients 122",
        "wspush_resume_away 123",
        "wspush_resume_memory_bytes 124",
        "wspush_resume_moved_total 133",
        "wspush_resume_replayed_total 125",
        "wspush_resumes_total{result=\"recovered\"} 126",
        "wspush_resumes_total{result=\"missed\"} 127",
        "wspush_resumes_total{result=\"unknown\"} 128",
        "wspush_resume_gaps_total{reason=\"frames\"} 129",
        "wspush_resume_gaps_total{reason=\"bytes\"} 130",
        "wspush_resume_gaps_total{reason=\"memory\"} 131",
        "wspush_resume_gaps_total{reason=\"slow\"} 132",
        "wspush_resume_gaps_total{reason=\"moved\"} 134",
        "wspush_login_failures_total 116",
    };

    metrics.reloads[0] = 101;
    metrics.reloads[1] = 102;
    log_state.lost = 117;
    metrics.connections = 103;
    node.hub.kinds[CHANNEL_SYSTEM] = 104;
    node.hub.kinds[CHANNEL_GROUP] = 105;
    node.hub.kinds[CHANNEL_USER] = 106;
    metrics.parked = 107;
    metrics.threads = 108;
    metrics.accepted = 109;
    metrics.refused = 110;
    node.hub.counts.slow = 111;
    metrics.received_messages = 112;
    node.hub.counts.sent = 113;
    node.hub.counts.dropped = 114;
    node.hub.counts.repeated = 121;
    node.shared.received = 5000000000;
    node.shared.sent = INT64_MAX;
    node.shared.waiting = 115;
    node.api.login_failures = 116;
    node.shared.buffered = 117;
    metrics.shed = 118;
    metrics.max_connections = 119;
    node.shared.exhausted = 120;
    metrics.certificate_expiry = 1900000000;
    node.hub.channels.resumes = (struct resumes){.count = 122,
                                                 .away = 123,
                                                 .memory = 124,
                                                 .replayed = 125,
                                                 .moved = 133,
                                                 .results = {126, 127, 128},
                                                 .gaps = {129, 130, 131, 132, 134}};
    ask("GET", "/metrics", false);
    for (size_t i = 0; i < COUNT(lines); i++)
        CHECK(has_line(lines[i]));
}

static void clients_are_counted_as_they_are(void)
{
    static struct test_client clients[3];

    for (size_t i = 0; i < COUNT(clients); i++)
        arrive(&clients[i], i ? STR("shop") : STR("other"));
    ask("GET", "/metrics", false);
    CHECK(has_line("wspush_clients 3") && has_line("wspush_systems 2"));
    for (size_t i = 0; i < COUNT(clients); i++)
        depart(&clients[i]);
    ask("GET", "/metrics", false);
    CHECK(has_line("wspush_clients 0") && has_line("wspush_systems 0"));
}

static void handshakes_are_counted_by_status(void)
{
    static const struct {
        int status;
        const char *label;
    } rows[] = {{101, "101"}, {400, "400"}, {403, "403"}, {405, "405"},
                {426, "426"}, {429, "429"}, {503, "503"}, {500, "other"}};

    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t times = 0; times <= i; times++)
            metrics_count_handshake(&metrics, rows[i].status);
    metrics_count_handshake(&metrics, 0); /* another of the others */
    ask("GET", "/metrics", false);
    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK(has_line(textf("wspush_handshakes_total{status=\"%s\"} %zu", rows[i].label,
                             i + 1 + (i == COUNT(rows) - 1))));
}

static void closes_are_counted_by_code(void)
{
    static const char *const codes[] = {"1000", "1001", "1002", "1003", "1005", "1006", "1007",
                                        "1008", "1009", "1011", "1013", "4401", "4409", "other"};

    CHECK(COUNT(codes) == COUNT(node.hub.counts.closes));
    for (size_t i = 0; i < COUNT(codes); i++)
        node.hub.counts.closes[i] = 7 + i;
    ask("GET", "/metrics", false);
    for (size_t i = 0; i < COUNT(codes); i++)
        CHECK(has_line(textf("wspush_closes_total{code=\"%s\"} %zu", codes[i], 7 + i)));
}

static void calls_are_counted_by_path_and_code(void)
{
    static const int codes[METRICS_CODES] = {0,     -1,    -1001, -1002, -1003,
                                             -1004, -1005, -1006, -1007};

    for (unsigned route = 0; route < API_ROUTES; route++)
        for (unsigned code = 0; code < METRICS_CODES; code++)
            for (unsigned times = 0; times <= 9 * route + code; times++)
                metrics_count_call(&metrics, route, (enum result_code)codes[code], 1);
    ask("GET", "/metrics", false);
    for (unsigned route = 0; route < API_ROUTES; route++)
        for (unsigned code = 0; code < METRICS_CODES; code++) {
            struct str path = route == API_ROUTES - 1 ? STR("other") : api_path(route);

            CHECK(has_line(textf("wspush_api_requests_total{route=\"%.*s\",code=\"%d\"} %u",
                                 (int)path.length, path.at, codes[code], 9 * route + code + 1)));
        }
}

/* A duration that is a bound falls into the bucket below it. A bucket of the output includes those
 * before it, and the last one all. */
static void durations_fall_into_buckets(void)
{
    static const struct {
        uint64_t bound;
        const char *seconds;
    } rows[METRICS_BUCKETS] = {{100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},
                               {1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},
                               {10000, "0.01"},  {25000, "0.025"}, {100000, "0.1"},
                               {250000, "0.25"}, {1000000, "1"},   {5000000, "5"}};
    const unsigned route = API_ROUTES - 1;
    uint64_t sum = 5000001;

    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        metrics_count_call(&metrics, route, i % 2 ? RESULT_LIMIT : RESULT_SUCCESS, rows[i].bound);
        metrics_count_call(&metrics, route, RESULT_SUCCESS, i ? rows[i - 1].bound + 1 : 0);
        sum += rows[i].bound + (i ? rows[i - 1].bound + 1 : 0);
    }
    metrics_count_call(&metrics, route, RESULT_SUCCESS, 5000001);
    ask("GET", "/metrics", false);
    for (unsigned i = 0; i < METRICS_BUCKETS; i++)
        CHECK(
            has_line(textf("wspush_api_request_duration_seconds_bucket{route=\"other\",le=\"%s\"} "
                           "%u",
                           rows[i].seconds, 2 * (i + 1))));
    CHECK(has_line("wspush_api_request_duration_seconds_bucket{route=\"other\",le=\"+Inf\"} 25"));
    CHECK(has_line("wspush_api_request_duration_seconds_count{route=\"other\"} 25"));
    CHECK(has_line(textf("wspush_api_request_duration_seconds_sum{route=\"other\"} %u.%06u",
                         (unsigned)(sum / 1000000), (unsigned)(sum % 1000000))));
    CHECK(has_line("wspush_api_request_duration_seconds_count{route=\"/api/login\"} 0"));
}

static void seconds_have_no_zeros_at_their_end(void)
{
    struct str rest = STR("0 0|1 0.000001|10 0.00001|100000 0.1|100001 0.100001|999999 0.999999|"
                          "1000000 1|1000001 1.000001|10000000 10|20500000 20.5|"
                          "18446744073709551615 18446744073709.551615");

    while (rest.at) {
        struct str seconds = str_cut(&rest, '|'), number = str_cut(&seconds, ' ');

        CHECK(str_number(number, UINT64_MAX, &metrics.calls[0].microseconds));
        ask("GET", "/metrics", false);
        CHECK(
            has_line(textf("wspush_api_request_duration_seconds_sum{route=\"/api/register\"} %.*s",
                           (int)seconds.length, seconds.at)));
    }
}

/* The number of a metric; -1: it is not there. */
static double number(const char *name)
{
    struct str rest = text;

    while (rest.at) {
        struct str line = str_cut(&rest, '\n'), first = line;

        if (str_equal(str_cut(&first, ' '), str_from(name)))
            return strtod(textf("%.*s", (int)first.length, first.at), NULL);
    }
    return -1;
}

/* The time that the process has used is what the system says. */
static void cpu_time_is_reported(void)
{
    clock_t before = clock(), after;

    ask("GET", "/metrics", false);
    after = clock();
    for (int i = 0; i < 2; i++) {
        double seconds = number(i ? "wspush_cpu_seconds_total" : "process_cpu_seconds_total");

        CHECK(seconds >= (double)before / CLOCKS_PER_SEC - 0.1 &&
              seconds <= (double)after / CLOCKS_PER_SEC + 0.1);
    }
}

/* A number that is not known has no line, rather than one that says 0. */
static void what_is_not_known_is_left_out(void)
{
    struct os_usage usage;

    os_measure(&usage);
    ask("GET", "/metrics", false);
    CHECK(number("wspush_tls_certificate_expiry_timestamp_seconds") < 0);
    CHECK(usage.resident ? number("process_resident_memory_bytes") >= 500000
                         : number("process_resident_memory_bytes") < 0);
    CHECK(usage.descriptors ? number("process_open_fds") >= 3 : number("process_open_fds") < 0);
    CHECK(usage.descriptor_limit ? number("process_max_fds") == (double)usage.descriptor_limit
                                 : number("process_max_fds") < 0);
}

static void answers_follow_path_and_method(void)
{
    static const struct {
        const char *method, *path;
        int status;
        const char *body; /* NULL: metrics */
    } rows[] = {
        {"GET", "/healthz", 200, "ok\n"},
        {"HEAD", "/healthz", 200, "ok\n"}, /* the writer leaves the body out */
        {"GET", "/readyz", 200, "ready\n"},
        {"HEAD", "/readyz", 200, "ready\n"},
        {"HEAD", "/metrics", 200, NULL},
        {"GET", "/", 404, "this listener has /metrics, /healthz and /readyz\n"},
        {"GET", "/metrics/", 404, "this listener has /metrics, /healthz and /readyz\n"},
        {"GET", "/Metrics", 404, "this listener has /metrics, /healthz and /readyz\n"},
        {"GET", "/ws", 404, "this listener has /metrics, /healthz and /readyz\n"},
        {"GET", "*", 404, "this listener has /metrics, /healthz and /readyz\n"},
        {"POST", "/metrics", 405, "this listener takes GET\n"},
        {"get", "/metrics", 405, "this listener takes GET\n"},
        {"OPTIONS", "*", 200, "this listener takes GET\n"}, /* as proxies probe */
        {"OPTIONS", "/", 200, "this listener takes GET\n"},
        {"OPTIONS", "/healthz", 200, "this listener takes GET\n"},
        {"DELETE", "/none", 405, "this listener takes GET\n"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        bool allows = rows[i].body && strcmp(rows[i].body, "this listener takes GET\n") == 0;

        ask(rows[i].method, rows[i].path, false);
        CHECK(answer.status == rows[i].status);
        CHECK(rows[i].body ? same(text, str_from(rows[i].body)) : contains(text, "# HELP wspush_"));
        CHECK(strcmp(answer.type, rows[i].body ? "text/plain; charset=utf-8"
                                               : "text/plain; version=0.0.4; charset=utf-8") == 0);
        CHECK(allows ? strcmp(answer.allow, "GET, HEAD, OPTIONS") == 0 : !answer.allow);
        CHECK(strcmp(answer.fields, HTTP_UNCACHED) == 0 && !answer.retry_after);
    }
}

/* A name in Host may be that of a page which was made to lead here. */
static void hosts_are_addresses(void)
{
    /* the first one: HTTP/1.0 */
    static const char *const hosts[2] = {
        "|127.0.0.1|127.0.0.1:7801|10.0.0.5:|255.255.255.255|[::1]|[::1]:7801|"
        "[::ffff:10.0.0.5]:7801|[2001:db8:1111:2222:3333:4444:5555:6666]:65535|localhost|"
        "LocalHost:7801",
        "attacker.example|attacker.example:7801|localhost.attacker.example|localhosts|"
        "xlocalhost|127.0.0.1.attacker.example|127.1|2130706433|127.0.0.256|0127.0.0.1|:7801|"
        "[127.0.0.1]|[::1|[]|[v1.x]|::1|"
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222:3333:4444",
    };
    char name[100];

    host = name;
    for (int good = 0; good < 2; good++)
        for (struct str rest = str_from(hosts[!good]); rest.at;) {
            struct str next = str_cut(&rest, '|');

            snprintf(name, sizeof name, "%.*s", (int)next.length, next.at);
            for (int path = 0; path < 2; path++) {
                ask(path ? "OPTIONS" : "GET", path ? "/" : "/healthz", false);
                if (!CHECK(answer.status == (good ? 200 : 403)))
                    printf("  that was Host: %s\n", host);
                CHECK(good || contains(text, "Host must be an address or localhost"));
            }
        }
    host = "";
}

/* Draining is not dead. What a cluster says is in the tests of the cluster. */
static void draining_is_not_ready(void)
{
    ask("GET", "/readyz", true);
    CHECK(answer.status == 503 && same(text, STR("not ready: draining\n")));
    ask("HEAD", "/readyz", true);
    CHECK(answer.status == 503);
    ask("GET", "/healthz", true);
    CHECK(answer.status == 200 && same(text, STR("ok\n")));
    ask("GET", "/metrics", true);
    CHECK(answer.status == 200 && has_line("wspush_ready 0"));
}

static void run(const char *name, void (*test)(void))
{
    test_run_between(name, set_up, test, tear_down);
}

int main(void)
{
    run("families come in order", families_come_in_order);
    run("every number has its name", every_number_has_its_name);
    run("clients are counted as they are", clients_are_counted_as_they_are);
    run("handshakes are counted by status", handshakes_are_counted_by_status);
    run("closes are counted by code", closes_are_counted_by_code);
    run("calls are counted by path and code", calls_are_counted_by_path_and_code);
    run("durations fall into buckets", durations_fall_into_buckets);
    run("seconds have no zeros at their end", seconds_have_no_zeros_at_their_end);
    run("cpu time is reported", cpu_time_is_reported);
    run("what is not known is left out", what_is_not_known_is_left_out);
    run("answers follow path and method", answers_follow_path_and_method);
    run("hosts are addresses", hosts_are_addresses);
    run("draining is not ready", draining_is_not_ready);
    return test_finish();
}

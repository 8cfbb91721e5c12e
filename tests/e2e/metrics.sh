#!/usr/bin/env bash
# metrics.sh - the admin listener: /metrics, /healthz and /readyz, read by curl, promtool and Prometheus.
# build: asan/wspush release/load_client
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# admin PATH [CURL-ARGUMENT...]: prints "STATUS CONTENT-TYPE BODY".
admin() {
    local path=$1
    shift
    curl -s --max-time 10 -o "$DIR/admin" -w '%{http_code} %{content_type}' "$@" "http://$ADMIN$path"
    echo " $(cat "$DIR/admin")"
}

# becomes NAME VALUE: waits until a metric has that value.
# shellcheck disable=SC2317,SC2329 # called by wait_for
is_now() {
    [ "$(metric "$1")" = "$2" ]
}

becomes() {
    wait_for is_now "$1" "$2"
    expect "$1" "$2" "$(metric "$1")"
}

paths() {
    local path port probe
    expect 'healthz' '200 text/plain; charset=utf-8 ok' "$(admin /healthz)"
    expect 'readyz' '200 text/plain; charset=utf-8 ready' "$(admin /readyz)"
    expect_match 'metrics' '200 text/plain; version=0.0.4; charset=utf-8 # HELP wspush_*' "$(admin /metrics)"
    expect 'HEAD' '200 3' "$(curl -s -I -o /dev/null -w '%{http_code} %header{content-length}' "http://$ADMIN/healthz")"
    expect_match 'another path' '404 text/plain*' "$(admin /)"
    expect_match 'the API is not here' '404 text/plain*' "$(admin /api/login)"
    expect_match 'nor are clients' '404 text/plain*' "$(admin /ws?systemId=shop)"
    expect_match 'another method' '405 text/plain*' "$(admin /metrics -d x)"
    expect 'a page whose name leads here reads nothing' '403 text/plain; charset=utf-8 Host must be an address or localhost' \
        "$(admin /metrics -H 'Host: attacker.example')"
    expect_match 'localhost does' '200 text/plain*' "$(admin /metrics -H 'Host: localhost:1')"
    for port in "$PORT" "${ADMIN#*:}"; do
        for probe in 'OPTIONS / HTTP/1.0' 'GET /healthz HTTP/1.0' 'HEAD /healthz HTTP/1.0' 'OPTIONS /healthz HTTP/1.0'; do
            expect "$probe, as balancers probe port ${port/$PORT/of clients}" 'HTTP/1.1 200 OK' \
                "$(lines "$probe" | PORT=$port talk | head -n 1 | tr -d '\r')"
        done
    done
    expect 'healthz of the port of clients is an empty envelope' '200 application/json; charset=utf-8 {"code":0,"msg":"success","data":[]}' \
        "$(ADMIN=127.0.0.1:$PORT admin /healthz)"
    curl -s -D "$DIR/headers" -o /dev/null -d x "http://$ADMIN/metrics"
    expect 'which is told what there is' 1 "$(grep -c '^Allow: GET, HEAD, OPTIONS' "$DIR/headers")"
    for path in /metrics /readyz; do
        expect "$path is not on the port of the API" 404 \
            "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT$path")"
    done
}

checked() {
    need promtool
    curl -s "http://$ADMIN/metrics" >"$DIR/metrics"
    expect 'promtool has nothing to say' '0 ' "$(promtool check metrics <"$DIR/metrics" 2>&1; echo "$? ")"
    expect 'every metric has a help and a type' "$(grep -c '^# HELP' "$DIR/metrics")" \
        "$(grep -c '^# TYPE' "$DIR/metrics")"
    expect 'all begin with wspush_ or process_' '' "$(grep -v -e '^#' -e '^wspush_' -e '^process_' "$DIR/metrics")"
}

# The files that read these metrics. That each metric they name exists is in documents.sh.
watched() {
    expect_match 'promtool accepts the rules' '0 *SUCCESS: * rules found*' \
        "$(promtool check rules contrib/prometheus-rules.yml >"$DIR/said" 2>&1; echo "$? $(cat "$DIR/said")")"
    expect_match 'each rule fires when it has to, and only then' '0 *SUCCESS*' \
        "$(promtool test rules tests/support/prometheus-rules-test.yml >"$DIR/said" 2>&1; echo "$? $(cat "$DIR/said")")"
    expect 'each rule has both tests' "$(sed -n 's/^      - alert: \(.*\)/\1 2/p' contrib/prometheus-rules.yml | sort)" \
        "$(sed -n 's/.*alertname="\([A-Za-z]*\)".*/\1/p' tests/support/prometheus-rules-test.yml | sort | uniq -c | awk '{ print $2, $1 }')"
    # shellcheck disable=SC2016 # Grafana's variables
    jq -r '.panels[].targets[]?.expr' contrib/grafana-dashboard.json |
        sed 's/\$__rate_interval/5m/g; s/\$instance/.*/g' | awk '{ print "      - record: panel:" NR "\n        expr: >-\n          " $0 }' |
        cat <(printf 'groups:\n  - name: dashboard\n    rules:\n') - >"$DIR/panels.yml"
    expect_match 'promtool accepts what the panels ask' '0 *SUCCESS: [3-9][0-9] rules found*' \
        "$(promtool check rules "$DIR/panels.yml" >"$DIR/said" 2>&1; echo "$? $(cat "$DIR/said")")"
    expect 'panels have ids of their own and do not overlap' true "$(jq '[.panels[].id] as $ids | ($ids | length) == ($ids | unique | length) and
        ([.panels[].gridPos | .x as $x | .y as $y | range(.w) as $i | range(.h) as $j | [$x + $i, $y + $j]] | length == (unique | length)) and
        ([.panels[].gridPos | .x + .w] | max) <= 24' contrib/grafana-dashboard.json)"
}

# process NAME: prints a metric of the process.
process() {
    curl -s --max-time 20 "http://$ADMIN/metrics" | awk -v name="process_$1" '$1 == name { print $2 }'
}

# What runs, and what it takes of the machine, against what the system says of the process.
used() {
    local features limit
    features=$("$WSPUSH" -v | sed -n 's/^features: //p')
    expect 'build_info: the version and the features' "$("$WSPUSH" -v | sed -n 's/^wspush //p')|$features|1" \
        "$(curl -s "http://$ADMIN/metrics" | sed -nE 's/^wspush_build_info\{version="(.*)",features="(.*)"\} (.*)/\1|\2|\3/p')"
    limit=$(metric max_connections)
    expect 'as many connections as descriptors allow' yes "$([ "$limit" -gt 100 ] && [ "$limit" -lt "$(process max_fds)" ] && echo yes)"
    expect 'since when it runs' "$(metric start_time_seconds)" "$(process start_time_seconds)"
    expect 'CPU time' yes "$(awk -v a="$(metric cpu_seconds_total)" -v b="$(process cpu_seconds_total)" \
        'BEGIN { if (a > 0 && b >= a && b < a + 1) print "yes" }')"
    if [ -r "/proc/$SERVER/statm" ]; then
        expect 'resident memory, give or take a tenth' yes "$(awk -v said="$(process resident_memory_bytes)" \
            '/^VmRSS:/ && said > 922 * $2 && said < 1127 * $2 { print "yes" }' "/proc/$SERVER/status")"
    fi
    if [ "$(stat -c %s "/proc/$SERVER/fd" 2>/dev/null || echo 0)" -gt 0 ]; then # Linux 6.2 and later
        expect 'open descriptors' yes "$(awk -v said="$(process open_fds)" -v are="$(find "/proc/$SERVER/fd" -type l | wc -l)" \
            'BEGIN { if (said >= are && said <= are + 3) print "yes" }')" # it counts those of the question too
    else
        expect 'open descriptors are left out where the system does not count them' '' "$(process open_fds)"
    fi
    expect 'there is no certificate' '' "$(metric tls_certificate_expiry_timestamp_seconds)"
}

# A certificate's end, also that of one which is loaded while the server runs.
expires() {
    date -d "$(openssl x509 -noout -enddate -in "$DIR/tls.pem" | sed 's/^notAfter=//')" +%s
}

renewed() {
    local first
    first=$(expires)
    becomes tls_certificate_expiry_timestamp_seconds "$first"
    openssl req -x509 -key "$DIR/tls.key" -days 60 -subj /CN=tls -out "$DIR/tls.pem" 2>"$DIR/openssl"
    expect 'the new certificate lasts longer' yes "$([ "$(expires)" -gt "$first" ] && echo yes)"
    kill -HUP "$SERVER"
    becomes tls_certificate_expiry_timestamp_seconds "$(expires)"
}

# What a few clients and calls must add up to; all of it is from here.
counted() {
    local bytes=0 name
    sign_up shop
    call login "{'systemId':'shop','password':'wrong'}" >/dev/null
    call login "{'systemId':'none','password':'wrong'}" >/dev/null
    call send_to_client "{'clientId':'x','code':1,'msg':'','data':1}" >/dev/null
    call send_to_client "{'clientId':'x'}" >/dev/null
    post /api/none '{}' >/dev/null
    lines 'POST /api/send_to_client HTTP/1.1' 'Host: h' "Token: $TOKEN" 'Content-Length: 1048577' | talk >/dev/null
    lines 'POST /api/send_to_client HTTP/1.1' 'Host: h' "Token: $TOKEN" 'Transfer-Encoding: chunked' '' 'none' |
        talk >/dev/null
    lines 'POST /api/send_to_client HTTP/1.1' | talk >/dev/null # which is nothing yet
    for name in one two three; do
        client $name shop
        IDS[$name]=$ID PROCESS[$name]=$CLIENT
        call bind_to_group "{'clientId':'$ID','groupName':'g','userId':'u'}" >/dev/null
    done
    curl -s -o /dev/null "http://127.0.0.1:$PORT/ws?systemId=shop"
    client stranger nobody
    frames one 3 >/dev/null
    call send_to_group "{'groupName':'g','code':1,'msg':'','data':'0123456789'}" >/dev/null
    frames one 1 >/dev/null
    frames two 3 >/dev/null
    frames three 2 >/dev/null
    echo hello >"$DIR/one.in"
    becomes received_messages_total 1
    becomes clients 3
    becomes groups 1
    becomes users 1
    becomes systems 1
    becomes connections 3
    becomes sent_messages_total 12 # three ids, 3 + 2 + 1 notices, three messages
    becomes dropped_messages_total 0
    becomes queued_bytes 0
    becomes 'handshakes_total{status="101"}' 4
    becomes 'handshakes_total{status="400"}' 1
    becomes 'closes_total{code="1008"}' 1
    becomes login_failures_total 2
    becomes 'api_requests_total{route="/api/register",code="0"}' 1
    becomes 'api_requests_total{route="/api/login",code="0"}' 1
    becomes 'api_requests_total{route="/api/login",code="-1005"}' 2
    becomes 'api_requests_total{route="/api/bind_to_group",code="0"}' 3
    becomes 'api_requests_total{route="/api/send_to_client",code="-1003"}' 1
    becomes 'api_requests_total{route="/api/send_to_client",code="-1"}' 3
    expect 'a body that is too long is in the log' 1 \
        "$(grep -c 'debug call path="/api/send_to_client" status=413 code=-1 ' "$DIR/log")"
    expect 'as a limit, at the level that is the default' 1 \
        "$(grep -c 'info request rejected remote="127.0.0.1" status=413 reason="the body is longer than max_body"' "$DIR/log")"
    expect 'and so is what is no request' 2 \
        "$(grep -c 'debug request rejected remote="127.0.0.1" status=400 reason="' "$DIR/log")"
    becomes 'api_requests_total{route="other",code="-1"}' 3 # with the two above
    becomes 'api_request_duration_seconds_count{route="/api/login"}' 3
    becomes 'api_request_duration_seconds_bucket{route="/api/login",le="+Inf"}' 3
    becomes 'api_request_duration_seconds_bucket{route="/api/login",le="0.0001"}' 0
    expect 'hashing a password takes its time' 1 \
        "$(metric 'api_request_duration_seconds_sum{route="/api/login"}' | awk '{ print ($1 > 0.01) }')"
    for name in one two three; do
        bytes=$((bytes + $(wc -c <"$DIR/$name.out")))
    done
    expect 'as many bytes were sent as came, and more' 1 "$(($(metric sent_bytes_total) > bytes))"
    expect 'connections are counted when they come' 1 "$(($(metric connections_accepted_total) > 15))"
    expect 'and received' 1 "$(($(metric received_bytes_total) > 1000))"
}

closes() {
    call close_client "{'clientId':'${IDS[one]}','code':4000,'reason':'enough'}" >/dev/null
    becomes 'closes_total{code="other"}' 1
    call close_client "{'clientId':'${IDS[two]}'}" >/dev/null
    becomes 'closes_total{code="1000"}' 1
    kill_process "${PROCESS[three]}"
    becomes 'closes_total{code="1006"}' 1
    becomes clients 0
    becomes groups 0
    becomes slow_closes_total 0
}

polled() {
    start_load
    ask 'open 100'
    becomes clients 100
    becomes parking_threads 1
    becomes parked_connections 100
    becomes budget_exhausted_total 0
    head -c 60000 /dev/zero | tr '\0' x | jq -Rc '{code: 1, msg: "", data: .}' >"$DIR/large" # 100 of them are 6 MB
    post /api/send_to_system "@$DIR/large" >/dev/null
    expect 'more than 4 MiB at once use up a budget' yes "$([ "$(metric budget_exhausted_total)" -ge 1 ] && echo yes)"
    stop_load
    becomes parked_connections 0
}

# All places are taken, and more come than are told so.
crowded() {
    local fds=() fd
    for _ in 1 2 3; do
        exec {fd}<>"/dev/tcp/${ADMIN%:*}/${ADMIN#*:}"
        lines 'GET /healthz HTTP/1.1' 'Host: localhost' >&"$fd"
        read -r -t 10 <&"$fd"
        fds+=("$fd")
    done
    start_load
    ask 'open 5'
    becomes clients 5
    expect_match 'one too many' '429 *' "$(curl -s -w '%{http_code} ' -o /dev/null "http://127.0.0.1:$PORT/")"
    expect 'the admin listener has places of its own' '200 text/plain; charset=utf-8 ready' "$(admin /readyz)"
    becomes connections_refused_total 1
    curl -s -o /dev/null "http://127.0.0.1:$PORT/"
    becomes connections_refused_total 2
    expect 'the log says so, once a minute at most' 1 "$(grep -c 'warn connections are rejected: .* max_connections=5 ' "$DIR/log")"
    stop_load
    becomes clients 0
    expect_match 'which take none from others' '404 *' "$(call none '{}')"
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
}

# Who asks the admin listener is not counted among the connections of its address.
neighbours() {
    local one fd
    exec {fd}<>"/dev/tcp/${ADMIN%:*}/${ADMIN#*:}"
    lines 'GET /healthz HTTP/1.1' 'Host: localhost' >&"$fd"
    read -r -t 10 <&"$fd"
    client one shop
    one=$CLIENT
    client two shop
    for _ in 1 2 3; do
        admin /healthz >/dev/null
    done
    kill -HUP "$SERVER" # the limits on connections are read again
    becomes 'reloads_total{result="success"}' 1
    echo 'nonsense' >>"$DIR/config.ini"
    kill -HUP "$SERVER"
    becomes 'reloads_total{result="failure"}' 1
    expect 'a third of that address is one too many' 429 \
        "$(curl -s -w '%{http_code}' -o /dev/null "http://127.0.0.1:$PORT/")"
    kill_process "$one"
    becomes clients 1
    expect_match 'and then it is not' '404 *' "$(call none '{}')"
    exec {fd}>&-
}

# healthy FD: asks over a connection that stays, and waits for the answer.
healthy() {
    lines 'GET /healthz HTTP/1.1' 'Host: localhost' >&"$1"
    timeout 60 sed '/^ok/q' <&"$1" | grep -c '^ok'
}

# The admin listener answers anybody who reaches it, so the connections it keeps have a limit: at the limit the one
# that has been silent longest is closed.
many_at_once() {
    local fds=() fd gone=0
    for _ in {1..8}; do
        exec {fd}<>"/dev/tcp/${ADMIN%:*}/${ADMIN#*:}"
        fds+=("$fd")
        healthy "$fd" >/dev/null
    done
    sleep 0.01 # so that the first is not as silent as the others
    healthy "${fds[0]}" >/dev/null
    expect '8 that stay do not keep the ninth out' '200 text/plain; charset=utf-8 ok' "$(admin /healthz)"
    for fd in "${fds[@]:1}"; do
        read -r -t 0.05 <&"$fd"
        gone=$((gone + ($? == 1)))
    done
    expect 'one of those that were silent has gone for it' 1 "$gone"
    expect 'who had asked meanwhile has not' 1 "$(healthy "${fds[0]}")"
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
}

# A real Prometheus, which reads what it finds every second.
scrape() {
    need prometheus
    local port pid query="up{job=\"wspush\"}"
    free_port
    port=$FREE
    cat >"$DIR/prometheus.yml" <<YAML
scrape_configs:
  - job_name: wspush
    scrape_interval: 1s
    scrape_timeout: 1s
    static_configs:
      - targets: ['$ADMIN']
YAML
    prometheus --config.file="$DIR/prometheus.yml" --storage.tsdb.path="$DIR/tsdb" \
        --web.listen-address="127.0.0.1:$port" --log.level=error >"$DIR/prometheus.log" 2>&1 &
    pid=$!
    asked() {
        curl -s --max-time 5 "http://127.0.0.1:$port/api/v1/query" --data-urlencode "query=$1" |
            jq -r '.data.result[0].value[1]' 2>/dev/null
    }
    is_up() { [ "$(asked "$query")" = 1 ]; }
    wait_for is_up
    expect 'Prometheus scrapes it' 1 "$(asked "$query")"
    expect 'and has what curl has' "$(metric login_failures_total)" "$(asked wspush_login_failures_total)"
    expect 'histograms too' 3 "$(asked 'sum(wspush_api_request_duration_seconds_bucket{route="/api/login",le="+Inf"})')"
    expect_match 'which are one' '[0-9]*' \
        "$(asked 'histogram_quantile(0.5, wspush_api_request_duration_seconds_bucket{route="/api/login"})')"
    expect 'and knows what the types are' counter "$(curl -s --max-time 5 \
        "http://127.0.0.1:$port/api/v1/metadata?metric=wspush_sent_bytes_total" | jq -r '.data[][0].type')"
    kill_process $pid TERM
}

# While it is about to stop, the admin listener tells so.
draining() {
    client stays shop
    kill -TERM "$SERVER"
    not_ready() { [[ $(admin /readyz) == 503* ]]; }
    wait_for not_ready
    expect 'draining: not ready' '503 text/plain; charset=utf-8 not ready: draining' "$(admin /readyz)"
    expect 'but alive' '200 text/plain; charset=utf-8 ok' "$(admin /healthz)"
    expect 'as the metric says' 0 "$(metric ready)"
    expect 'others get in until drain_wait is over' 200 \
        "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    expect 'the client is told to go' '1001 going away' "$(closed stays)"
    ended
}

declare -A IDS PROCESS
free_port
ADMIN=127.0.0.1:$FREE
DRAIN=2
configure
sed -i 's/^drain = .*/&\ndrain_wait = 4/' "$DIR/config.ini"
start
paths
used
counted
checked
watched
scrape
closes
polled
draining
configure '[limits]
max_connections = 5'
start
becomes max_connections 5
crowded
many_at_once
stop
configure '[limits]
max_per_ip = 2'
start
neighbours
stop
secure
configure
start
renewed
stop
SCHEME=http
expect 'the port is closed with the server' 000 "$(admin /healthz | cut -c 1-3)"
was=$ADMIN ADMIN=
configure
start
ADMIN=$was
expect 'without [admin] listen there is none' 000 "$(admin /healthz | cut -c 1-3)"
stop
finish

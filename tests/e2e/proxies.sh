#!/usr/bin/env bash
# proxies.sh [nginx|caddy|haproxy...] - contrib/nginx.conf, Caddyfile and haproxy.cfg, each run by the real program over
# TLS: who may do what, whose address and Host wspush sees, a client that is idle, one that does not read, a node that
# is down. With IDLE=60 the times are those of the files; without it they are shorter, so that only pings keep an idle
# client connected.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

PROXY='' SERVER_PORT=''

# proxy_file: prints the file with the test's ports, certificate and times. HAProxy and Caddy are started by who runs
# the test: they do not become another user, and write nothing outside of $DIR.
proxy_file() {
    local dead=$1
    case $NAME in
    nginx)
        sed -e '/^    listen 80;/d; s/^    # \(listen 443\|ssl_\|add_header\)/    \1/' \
            -e "s,/etc/nginx/tls/fullchain.pem,$DIR/tls.pem,; s,/etc/nginx/tls/privkey.pem,$DIR/tls.key," \
            -e "s/listen 443 /listen 127.0.0.1:$PORT /; s,/var/log/nginx/access.log,$DIR/access.log," \
            -e "s/^    server 127.0.0.1:7800;/    server 127.0.0.1:$SERVER_PORT; ${dead:+server $dead;}/" \
            contrib/nginx.conf
        ;;
    caddy)
        sed -e "s,^{$,{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system $DIR/caddy," \
            -e "s/^push.example.com {/https:\/\/localhost:$PORT, https:\/\/127.0.0.1:$PORT {/" \
            -e "s,^\t# tls .*,\ttls $DIR/tls.pem $DIR/tls.key," \
            -e "s/^\t\tto 127.0.0.1:7800/\t\tto 127.0.0.1:$SERVER_PORT/" contrib/Caddyfile |
            if [ -z "$dead" ]; then cat; else
                sed -e "/^\t\tto 127/d; s/^\t\t# \(to\|health_\|fail_\)/\t\t\1/; s/health_port .*/health_port ${ADMIN#*:}/" \
                    -e "s/10.0.0.11:7800/127.0.0.1:$SERVER_PORT/; s/10.0.0.12:7800/$dead/"
            fi
        ;;
    haproxy)
        cat "$DIR/tls.pem" "$DIR/tls.key" >"$DIR/push.pem"
        sed -e '/^    \(chroot\|user\|group\)/d; /^    bind :80/d; s/^    # bind :443/    bind :443/' \
            -e 's/log \/dev\/log local0/log stdout format raw local0/' \
            -e "s/bind :443 ssl crt [^ ]*/bind 127.0.0.1:$PORT ssl crt ${DIR//\//\\/}\/push.pem/" \
            -e 's/maxconn 32768/maxconn 500 /' \
            -e "s/^    server node1 127.0.0.1:7800/    server node1 127.0.0.1:$SERVER_PORT/" contrib/haproxy.cfg |
            if [ -z "$dead" ]; then cat; else
                sed -e '/^    server/d' -e "s/^    # \(option httpchk\|http-check\|option redis\|default-server\|server\)/    \1/" \
                    -e "s/check port 7801 inter 2s/check port ${ADMIN#*:} inter 100ms/" \
                    -e "s/10.0.0.11:7800/127.0.0.1:$SERVER_PORT/; s/10.0.0.12:7800/$dead/"
            fi
        ;;
    esac
}

# launch [OTHER]: starts the proxy; with a second node at the address OTHER.
launch() {
    local times='s/^$//'
    free_port
    PORT=$FREE
    [ -n "${IDLE-}" ] || times='s/75s/3s/'
    proxy_file "${1-}" | sed "$times" >"$DIR/$NAME.conf"
    if [ "$NAME" = nginx ]; then
        start_nginx "$(cat "$DIR/nginx.conf")" "$PORT"
        return
    elif [ "$NAME" = caddy ]; then
        HOME=$DIR caddy run --adapter caddyfile --config "$DIR/caddy.conf" >"$DIR/proxy.out" 2>&1 &
    else
        haproxy -db -f "$DIR/haproxy.conf" >"$DIR/proxy.out" 2>&1 &
    fi
    PROXY=$!
    if ! wait_for listens "$PORT" || ! runs "$PROXY"; then
        broken "$NAME starts" "$DIR/proxy.out"
    fi
}

land() {
    stop_nginx
    [ -z "$PROXY" ] || kill_process "$PROXY" TERM
    PROXY=''
}

stop() {
    land
    halt
}

# visit PATH [CURL-ARGUMENT...]: prints the status.
visit() {
    local path=$1
    shift
    curl -s --max-time 10 -o "$DIR/visited" -w '%{http_code}' "$@" "https://127.0.0.1:$PORT$path"
}

# upgraded [CURL-ARGUMENT...]: connects a client by curl, which can choose its address; its id is in $ID.
upgraded() {
    curl -sN --max-time 60 --http1.1 -o "$DIR/upgraded" -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$@" \
        "https://127.0.0.1:$PORT/ws?systemId=shop" &
    CLIENT=$!
    CLIENTS+=("$CLIENT")
    wait_for grep -qa '"clientId":"[0-9a-f]*"' "$DIR/upgraded"
    ID=$(grep -ao '"clientId":"[0-9a-f]*"' "$DIR/upgraded" | cut -d '"' -f 4)
}

# send ID: what the call is answered.
send() {
    call send_to_client "{'clientId':'$1',$MESSAGE}"
}

rules() {
    local path remote
    for path in /metrics /healthz /readyz /ws/ /x /api; do
        expect "$NAME: $path from outside" 404 "$(visit $path)"
    done
    expect "$NAME: the page" 200 "$(visit /)"
    # 127.0.0.2 is not among those who may call
    for path in / /api/login; do
        expect_match "$NAME: $path for others" 40[34] "$(visit $path --interface 127.0.0.2)"
    done
    expect "$NAME: the client module for others" 200 "$(visit /wspush.js --interface 127.0.0.2)"
    expect "$NAME: a page of this origin may call: Host is passed on" '200' \
        "$(visit /api/login -d '{"systemId":"shop","password":"secret"}' -H "Origin: https://127.0.0.1:$PORT")"
    expect "$NAME: a page of another one may not" '403 1' \
        "$(visit /api/login -d '{}' -H 'Origin: https://evil.example') $(grep -c 'Origin https://evil.example is foreign' "$DIR/visited")"
    rm -f "$DIR/upgraded"
    upgraded --interface 127.0.0.2 -H 'X-Forwarded-For: 10.9.8.7'
    remote=$(call client_info "{'clientId':'$ID'}")
    expect "$NAME: a client's own address is its remote, whatever it claims" 127.0.0.2 "$(jq -r .data.remote <<<"${remote#* }")"
    kill_process "$CLIENT"
}

# The query of /ws may have a ticket.
logs() {
    local log=$DIR/proxy.out
    [ "$NAME" != nginx ] || log=$DIR/access.log
    visit '/ws?systemId=shop&ticket=confidential' >"$DIR/ignored"
    [ "$NAME" = caddy ] || wait_for grep -q 'GET.* /ws.* HTTP' "$log" # which logs no request that is served
    expect "$NAME: no query of /ws is in the log" 0 "$(grep -c confidential "$log")"
}

# An idle client, which only answers pings, gets what is sent to it after that.
idle() {
    client idle shop
    IDLE_ID=$ID
}

idle_ends() {
    local left=$((${IDLE:-4} - SECONDS + IDLE_SINCE))
    [ $left -le 0 ] || sleep "$left"
    expect "$NAME: a client that was idle for ${IDLE:-4} s gets a push" "$SUCCESS $FRAME" "$(send "$IDLE_ID") $(frames idle 1)"
}

# One that reads nothing is closed once its queue, and what the proxy buffers, is full; others notice nothing.
slow() {
    local id answer i
    client slow shop
    id=$ID
    freeze "$CLIENT"
    client other shop
    head -c 900000 /dev/zero | tr '\0' x | jq -Rc --arg id "$id" '{clientId: $id, code: 1, msg: "", data: .}' >"$DIR/large"
    for i in {1..60}; do
        answer=$(post /api/send_to_client "@$DIR/large" | jq .code)
        [ "$answer" = 0 ] || break
    done
    expect "$NAME: a client that does not read is closed" "-1003 $SLOW" "$answer $(metric slow_closes_total)"
    expect "$NAME: another one notices nothing" "$SUCCESS $FRAME" "$(send "$ID") $(frames other 1)"
    thaw "$CLIENT"
    kill_process "${CLIENTS[-2]}"
    kill_process "${CLIENTS[-1]}"
}

# visits: six calls and six pages, and a client that gets a push.
visits() {
    expect "$NAME: $1: calls" '400 400 400 400 400 400' \
        "$(for _ in {1..6}; do visit /api/login -d '{}'; echo; done | paste -sd ' ')"
    expect "$NAME: $1: pages" '200 200 200 200 200 200' "$(for _ in {1..6}; do visit /; echo; done | paste -sd ' ')"
    client visitor shop
    expect "$NAME: $1: a client gets a push" "$SUCCESS $FRAME" "$(send "$ID") $(frames visitor 1)"
    kill_process "$CLIENT"
}

is_not_ready() {
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.3:${ADMIN#*:}/readyz")" = 503 ]
}

# With a node that does not run, and with one that runs, but is not ready, all comes to the other one.
two_nodes() {
    local port=$PORT other=127.0.0.3:$SERVER_PORT node
    launch "$other"
    expect "$NAME: there are two nodes" 1 "$(grep -c "$other" "$DIR/$NAME.conf")"
    visits 'one node is down'
    land
    [ "$NAME" != nginx ] || return 0 # which does not ask whether a node is ready

    sed -e "s/127.0.0.1/127.0.0.3/; s/127.0.0.1:/127.0.0.3:/; s/^drain = .*/drain_wait = 60\n&/" \
        -e "s,$DIR/data,$DIR/other,; s,$DIR/log,$DIR/other.log," "$DIR/config.ini" >"$DIR/other.ini"
    "$WSPUSH" -c "$DIR/other.ini" "$SERVER_PORT" >"$DIR/other.out" 2>&1 &
    node=$!
    wait_for listens "$SERVER_PORT" 127.0.0.3
    kill -TERM $node
    wait_for is_not_ready
    launch "$other"
    sleep 0.5 # a health check
    : >"$DIR/other.log"
    visits 'one node is not ready'
    expect "$NAME: it has served nobody" 0 "$(grep -c '/api/' "$DIR/other.log")"
    land
    kill_process $node TERM # the second one ends it at once
    expect "$NAME: it has printed nothing" '' "$(cat "$DIR/other.out")"
    PORT=$port
}

need openssl
PROXIES=(nginx caddy haproxy)
[ $# = 0 ] || PROXIES=("$@")
need "${PROXIES[@]}"
quick_hashes
free_port
ADMIN=127.0.0.1:$FREE SLOW=0
configure "$([ -n "${IDLE-}" ] || printf '[websocket]\nping = 1\npong_timeout = 60\n')"
sed -i 's/^host/trusted_proxies = 127.0.0.1\nhost/' "$DIR/config.ini"
start
SERVER_PORT=$PORT
sign_up shop
certificate tls
SCHEME=https
export CURL_CA_BUNDLE=$DIR/tls.pem SSL_CERT_FILE=$DIR/tls.pem
for NAME in "${PROXIES[@]}"; do
    launch
    IDLE_SINCE=$SECONDS SLOW=$((SLOW + 1))
    idle
    rules
    logs
    slow
    idle_ends
    land
    two_nodes
done
SCHEME=http PORT=$SERVER_PORT
finish

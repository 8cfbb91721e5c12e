#!/usr/bin/env bash
# idle_connections.sh - the connections of quiet clients are polled by threads of their own; clients see no difference.
# build: asan/wspush release/load_client
. "$(dirname "$0")/../support/lib.sh"

CROWD=600 POLLERS=2
[ "$SCHEME" = http ] || CROWD=300 POLLERS=1 # each notice is encrypted for each of them
configure '[websocket]
ping = 2
pong_timeout = 2
[limits]
idle_timeout = 20'
start
sign_up shop

LOAD_PORT=$PORT
if [ "$SCHEME" = https ]; then # load_client speaks no TLS: nginx does it for its clients
    free_port
    start_nginx "
    upstream wspush { server 127.0.0.1:$PORT; keepalive 8; }
    server {
        listen 127.0.0.1:$FREE;
        location / {
            proxy_pass https://wspush;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate $DIR/tls.pem;
            proxy_ssl_name localhost;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_upgrade;
        }
    }
    map \$http_upgrade \$connection_upgrade { default upgrade; '' ''; }" "$FREE"
    LOAD_PORT=$NGINX_PORT
fi

start_load "$LOAD_PORT"

threads() {
    ls "/proc/$SERVER/task" 2>/dev/null | wc -l
}

# has_threads COUNT
# shellcheck disable=SC2329 # called by wait_for
has_threads() {
    [ "$(threads)" = "$1" ]
}

BASE=$(threads) # the loop, the worker for passwords, and what a sanitizer adds
ask 'open 60'
expect 'up to 64 connections no poller is started' "$BASE" "$(threads)"
ask "open $((CROWD - 60))"
expect 'clients are taken' "open $CROWD" "$REPLY"
wait_for has_threads $((BASE + POLLERS))
expect "$CROWD clients are polled by $POLLERS threads" $((BASE + POLLERS)) "$(threads)"
ask 'ping'
expect 'each polled client is answered' "pongs $CROWD" "$REPLY"
ask 'ping'
expect 'and again, once it is back in its place' "pongs $CROWD" "$REPLY"
ask 'bind g'
expect 'each polled client can be bound' "bound $CROWD" "$REPLY"

# each one that joined told those already there, and itself
JOINED=$((CROWD * (CROWD + 1) / 2))
ask "frames $JOINED"
expect 'every notice has come' "frames $JOINED" "$REPLY"
post /api/send_to_group '{"groupName":"g","code":1,"msg":"m","data":1}' >/dev/null
ask "frames $((JOINED + CROWD))"
expect 'a send to the group reaches every polled client' "frames $((JOINED + CROWD))" "$REPLY"

ask 'requests 300'
expect 'more connections with requests than the loop polls itself' 'answers 900' "$REPLY"

ask 'wait 6000'
expect_match 'polled clients are pinged, and live as long as they answer' \
    'closed 0 going_away 0 pings *' "$REPLY"
read -r _ _ _ _ _ PINGS _ TOOK <<<"$REPLY"
if [[ ${TOOK-} == [1-9]* ]] && ((PINGS * 2000 >= (TOOK - 2000) * CROWD && PINGS * 2000 <= (TOOK + 6000) * CROWD)); then
    ok 'in the interval that is configured'
else
    bad 'in the interval that is configured' "$PINGS pings in $TOOK ms for $CROWD clients, interval 2 s"
fi

ask 'drop 200'
gone() { [ "$(online_count g)" = $((CROWD - 200)) ]; }
if wait_for gone; then
    ok 'polled clients that vanish are noticed'
else
    bad 'polled clients that vanish are noticed' "$(online_count g) are online"
fi
ask 'open 100'
expect 'their places are taken again' "open $((CROWD - 100))" "$REPLY"
ask 'ping'
expect 'by clients that are answered' "pongs $((CROWD - 100))" "$REPLY"

kill -TERM "$SERVER"
ask "closed $((CROWD - 100))"
expect_match 'on SIGTERM polled clients are told' "closed $((CROWD - 100)) going_away $((CROWD - 100)) pings *" "$REPLY"
ended
stop_load
finish

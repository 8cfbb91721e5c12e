#!/usr/bin/env bash
# joining.sh - what keeps a node from joining a cluster: where waiting cannot help it does not start and
# names the remedy; where it can, it waits, says so, and joins without being started again.
# build: cluster-asan/wspush asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

ACCOUNT="{'systemId':'shop','password':'secret'}"

# refused NAME PATTERN [BINARY]: the node n, as it is configured, must not start, and say why on
# stderr alone.
refused() {
    local out status
    out=$(timeout 60 "${3:-$CLUSTER_WSPUSH}" -c "$DIR/n.ini" "${NODE_PORT[n]}" 2>"$DIR/err")
    status=$?
    expect_match "$1" "1 wspush: $2" "$status $(cat "$DIR/err")$out"
}

# says NAME NODE PATTERN: expects that the node logs this once.
says() {
    wait_for node_says "$2" "$3"
    expect "$1" 1 "$(node_log "$2" | grep -c -- "$3")"
}

# waits WHAT NODE: expects that a node that waits answers so, in time, and does not flood its log.
waits() {
    local call
    for call in login register; do
        expect_match "$1: $call" "$UNREACHABLE" \
            "$(in_time 3000 on "$2" call $call "$ACCOUNT")"
    done
    expect_match "$1: /ws" 503 "$(in_time 3000 curl -s -o /dev/null -w '%{http_code}' --max-time 60 \
        -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
        -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
        "http://127.0.0.1:${NODE_PORT[$2]}/ws?systemId=shop")"
    sleep "${3:-2}"
    expect_match "$1: it is not ready" 'not ready: *Redis*' "$(readiness "$2")"
    expect "$1: as metrics say" '0 0 0' "$(figure "$2" ready) $(figure "$2" redis_up) $(figure "$2" rabbitmq_up)"
    expect "$1: it says so once" 1 "$(node_log "$2" | grep -c ' warn ')"
    expect "$1: it has not joined" 0 "$(node_log "$2" | grep -c 'joined the cluster')"
}

# serves WHAT NODE: expects that it has joined and serves.
serves() {
    expect "$1: it joins" 1 \
        "$(await_node "$2" 'joined the cluster' 'RabbitMQ is connected' && echo 1)"
    expect_match "$1: login" '200 {"code":0,*' "$(on "$2" call login "$ACCOUNT")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    on "$2" client "of $2" shop
    expect "$1: bind" "$SUCCESS" \
        "$(on "$2" call bind_to_group "{'clientId':'$ID','groupName':'g'}")"
    expect "$1: send_to_group" "$SUCCESS" \
        "$(on "$2" call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect_match "$1: it arrives" '*"code":1001,*'$'\n'"$FRAME" \
        "$(frames "of $2" 2)"
    expect "$1: it is ready" ready "$(readiness "$2")"
    expect "$1: as metrics say" '1 1 1' "$(figure "$2" ready) $(figure "$2" redis_up) $(figure "$2" rabbitmq_up)"
    kill "$CLIENT"
}

# --- what waiting cannot help -----------------------------------------------------------------

configurations() {
    local advertise
    configure_node n
    refused 'cluster = true in a single-node build' '*cluster*make CLUSTER=1*' build/asan/wspush
    configure_node n common.crypto_key=
    refused 'no crypto_key' '*crypto_key*every node*'
    configure_node n common.crypto_key=short
    refused 'a short crypto_key' '*crypto_key must have exactly 16 bytes*'
    for advertise in 127.0.0 127.0.0.1.1 256.0.0.1 127.0.0.1:80 '[::1]' a..b ::1::; do
        configure_node n "cluster.advertise=$advertise"
        refused "advertise = $advertise" \
            "*: advertise must be an address of this machine or a host name, *not ${advertise//[/\\[}"
    done
    configure_node n cluster.advertise=192.0.2.1
    refused 'an advertise of another machine' \
        '*192.0.2.1*advertise*advertise must be an address of this machine, or set *rpc_listen*'
    for advertise in 0.0.0.0 255.255.255.255 224.0.0.1; do
        configure_node n cluster.advertise=$advertise
        refused "advertise = $advertise, which is nobody's" '*advertise*address of this machine*'
    done
    configure_node n "cluster.rpc_port=${NODE_PORT[n]}"
    refused 'rpc_port = port' '*rpc_port*'
    configure_node n cluster.rpc_port=0
    sed -i 's/^rpc_port.*//' "$DIR/n.ini"
    NODE_PORT[n]=64999
    refused 'no rpc_port, and a port that leaves none' '*rpc_port*'
    unset 'NODE_PORT[n]'
    configure_node n "cluster.rpc_port=$REDIS_PORT"
    refused 'an rpc_port that is taken' \
        "*127.0.0.1 port $REDIS_PORT*in use*another port*"
}

# --- Redis and RabbitMQ are not there ---------------------------------------------------------

no_redis() {
    stop_redis
    configure_node a
    launch_node a
    says 'no Redis: it says so' a "warn waiting to join.*Redis at 127.0.0.1 port $REDIS_PORT.*start it"
    waits 'no Redis' a
    stop_node a
    ok 'SIGTERM while it waits ends it with 0'
    launch_node a
    wait_for node_says a 'waiting to join'
    start_redis
    await_node a 'joined the cluster'
    on a call register "$ACCOUNT" >/dev/null
    serves 'Redis has come' a
    stop_node a
}

redis_password() {
    stop_redis
    REDIS_PASSWORD=sesame
    start_redis
    configure_node a redis.password=wrong
    launch_node a
    says 'a wrong password of Redis: it says so' a 'warn waiting to join.*Redis.*correct .redis. password'
    waits 'a wrong password of Redis' a
    expect 'the password is not logged' 0 "$(grep -c -e wrong -e sesame "$DIR/a.log")"
    stop_node a
    configure_node a redis.password=
    launch_node a
    says 'no password for Redis: it says so' a 'warn waiting to join.*Redis.*NOAUTH.*redis'
    waits 'no password for Redis' a
    redis CONFIG SET requirepass '' >/dev/null
    serves 'Redis asks for none any more' a
    stop_node a
    redis CONFIG SET requirepass "$REDIS_PASSWORD" >/dev/null
    configure_node a
    launch_node a
    serves 'the right password of Redis' a
    stop_node a
    redis CONFIG SET requirepass '' >/dev/null
    REDIS_PASSWORD=
}

no_rabbit() {
    kill_rabbit
    configure_node a
    launch_node a
    await_node a 'joined the cluster'
    says 'no RabbitMQ: it says so' a "warn.*RabbitMQ at 127.0.0.1 port $RABBIT_PORT.*start it"
    expect_match 'no RabbitMQ: login' '200 {"code":0,*' "$(on a call login "$ACCOUNT")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    on a client early shop
    expect_match 'no RabbitMQ: a client would be deaf to its system' '{"code":-1007,"msg":"RabbitMQ *' \
        "$(head -n 1 "$DIR/early.out")"
    expect_match 'no RabbitMQ: send_to_group' "$UNREACHABLE" "$(in_time 3000 on a call send_to_group \
        "{'groupName':'g',$MESSAGE}")"
    sleep 2
    expect_match 'no RabbitMQ: it is not ready' \
        'not ready: RabbitMQ at 127.0.0.1 port *: connection refused: *' "$(readiness a)"
    expect 'no RabbitMQ: as metrics say' '1 0' "$(figure a redis_up) $(figure a rabbitmq_up)"
    expect 'no RabbitMQ: it says so once' 1 "$(node_log a | grep -c ' warn ')"
    start_rabbit
    serves 'RabbitMQ has come' a
    stop_node a
}

# --- a node of the same name ------------------------------------------------------------------

# A node of another machine is played by who writes what such a one writes.
same_name() {
    local key="wspush:node:127.0.0.1:${NODE_RPC[a]}" start=1000000000000 player
    redis SADD wspush:nodes "127.0.0.1:${NODE_RPC[a]}/$start" >/dev/null
    while redis SET "$key" $start PX 3000 >/dev/null; do sleep 0.3; done &
    player=$!
    sleep 0.5
    launch_node a
    for _ in {1..100}; do
        runs "${NODE[a]}" || break
        sleep 0.1
    done
    if runs "${NODE[a]}"; then
        bad 'a living node of the same name stops the start' "$(cat "$DIR/a.log")"
        stop_node a
    else
        wait "${NODE[a]}"
        expect_match 'a living node of the same name stops the start' \
            "1 wspush: *a live node already has the name 127.0.0.1:${NODE_RPC[a]}: *advertise*rpc_port*" \
            "$? $(cat "$DIR/a.stderr")"
        expect 'on stdout it says nothing' '' "$(cat "$DIR/a.stdout")"
        unset 'NODE[a]'
    fi
    expect 'the other one stays registered' $start "$(redis GET "$key")"
    kill $player
    wait $player 2>/dev/null
    redis SET "$key" $start PX 20000 >/dev/null # however slowly a node starts here
    launch_node a
    serves 'the other one has died' a
    says 'it has waited, and said so' a 'warn.*name 127.0.0.1.*waiting'
    kill_node a
    launch_node a
    expect_match 'killed and started at once: it waits' "$UNREACHABLE" \
        "$(wait_for on a answers; on a call login "$ACCOUNT")"
    serves 'and takes its name over' a
    stop_node a
    launch_node a
    serves 'stopped and started' a
    expect 'then there is nothing to wait for' 0 "$(node_log a | grep -c ' warn ')"
    expect 'of its former lives none is left' 1 "$(sleep 4; redis SCARD wspush:nodes)"
    stop_node a
    expect 'nor of itself, once it is stopped' 0 \
        "$(redis KEYS '*' | grep -c -e wspush:node -e wspush:records)"
}

launch_rabbit
start_redis
configurations
await_rabbit
no_redis
redis_password
no_rabbit
same_name
finish

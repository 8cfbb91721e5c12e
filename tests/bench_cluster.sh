#!/usr/bin/env bash
# bench_cluster.sh - what a cluster costs: a send to a client of the same node and of the other one,
# sends to a group through RabbitMQ, and what the build for clusters costs a node that is alone. All
# on one machine, which Redis and RabbitMQ share; ratios of one run count. Whatever was lost,
# repeated, out of order or misdelivered is an error; a goal that is missed is not.
set -u
CLUSTER_WSPUSH=build/cluster/wspush
# shellcheck source=tests/cluster_lib.sh
. "$(dirname "$0")/cluster_lib.sh"
# shellcheck source=tests/bench_lib.sh
. tests/bench_lib.sh

ALONE=build/release/wspush
ROUNDS=${ROUNDS:-5} MS=${MS:-2000}
FLIGHTS=(1 16 64)
declare -A CASE=(
    [fan1]='fanout clients=1000' [fan16]='fanout clients=1000 inflight=16'
    [uni8]='unicast clients=1000 http=8' [shake]='handshakes clients=5000'
)
TITLES=(fan1 'fan-out to 1,000 clients, 1 message in flight' fan16 'fan-out to 1,000 clients, 16 messages in flight'
    uni8 'unicast among 1,000 clients, 8 HTTP connections' shake 'handshakes of 5,000 clients, 128 under way')

# both CASE ARGUMENT...: clients on both nodes in turn, requests to the first.
both() {
    local name=$1
    shift
    run "$name" nodes "$@" ms="$MS" port="${NODE_PORT[a]},${NODE_PORT[b]}" \
        pid="${NODE[a]},${NODE[b]}" token="$TOKEN"
    cat "$DIR/line"
}

# The nodes, Redis and RabbitMQ share the machine, so nothing is pinned but the generator.
cluster_rounds() {
    local i flights
    for ((i = 1; i <= ROUNDS; i++)); do
        echo "round $i of two nodes:"
        both unicast unicast clients=200
        for flights in "${FLIGHTS[@]}"; do
            both "group$flights" fanout clients=40 inflight="$flights"
        done
    done
}

alone_rounds() {
    local i name who
    for ((i = 1; i <= ROUNDS; i++)); do
        for name in fan1 fan16 uni8 shake; do
            for who in $(in_turn $i "$ALONE" "$CLUSTER_WSPUSH"); do
                # shellcheck disable=SC2086 # a list of words
                against $name "$(basename "$(dirname "$who")")" "$who" ${CASE[$name]} ms=1000
            done
            echo "round $i of one node: $name: build for clusters $(figures $name cluster rate | tail -n 1)," \
                "alone $(figures $name release rate | tail -n 1)"
        done
    done
}

table() {
    local flights i
    echo
    machine
    echo 'one node that is alone, the build for clusters to the other, medians (of each round):'
    for ((i = 0; i < ${#TITLES[@]}; i += 2)); do
        ratio_line "${TITLES[i + 1]}" "${TITLES[i]}" cluster rate "${TITLES[i]}" release
    done
    echo
    echo 'two nodes, medians of the rounds:'
    printf '  %-44s p50 %6.0f us, p99 %6.0f us\n' \
        'send_to_client, client of the same node' "$(figure unicast nodes latency_a_p50)" "$(figure unicast nodes latency_a_p99)" \
        'send_to_client, client of the other node' "$(figure unicast nodes latency_b_p50)" "$(figure unicast nodes latency_b_p99)"
    for flights in "${FLIGHTS[@]}"; do
        printf '  send_to_group, 20 members on each, %2d in flight %7.0f sends/s %8.0f deliveries/s, HTTP p50 %.1f ms\n' "$flights" \
            "$(calc "$(figure "group$flights" nodes rate) / 40")" "$(figure "group$flights" nodes rate)" \
            "$(calc "$(figure "group$flights" nodes http_p50) / 1000")"
    done
    echo
    echo 'goals:'
    goal 'the other node to the same node, p50' \
        "$(shares unicast nodes latency_a_p50 latency_b_p50 | middle)" most 2.5
}

launch_rabbit
start_redis
await_rabbit
for node in a b; do
    start_node $node log.level=info notice.scope=off cluster.node_ttl=15
done
on a sign_up bench
cluster_rounds
stop
TOKEN='' # of the nodes
alone_rounds
table
conclude

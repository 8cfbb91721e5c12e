#!/usr/bin/env bash
# bench_cluster.sh - what a cluster costs: a send to a client of the same node and of the other one, sends to
# groups through RabbitMQ, binds, and what the build for clusters costs a node that is alone. All on one machine,
# which Redis and RabbitMQ share; ratios of one run count. Whatever was lost, repeated, out of order or
# misdelivered is an error; a goal that is missed is not.
#
#   OLD=FILE   another binary: two nodes of it take turns with ours in each round, and ratios are shown. They share
#              Redis and RabbitMQ, but neither keys nor exchange.
#   ROUNDS=5 MS=2000 PARTS='nodes alone'
#
# Bytes are RabbitMQ's own count of what its connections have read and written (rabbitmqctl list_connections).
set -u
CLUSTER_WSPUSH=${CLUSTER_WSPUSH:-build/cluster/wspush}
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"
# shellcheck source=tests/bench/bench_lib.sh
. tests/bench/bench_lib.sh

ALONE=build/release/wspush
NEW=$CLUSTER_WSPUSH OLD=${OLD-}
ROUNDS=${ROUNDS:-5} MS=${MS:-2000} PARTS=${PARTS:-nodes alone}
FLIGHTS=(1 16 64)
GROUPS_OF=(40 1000)
WHO=(new ${OLD:+old}) # whose nodes there are
declare -A PORTS_OF PIDS_OF TOKEN_OF
declare -A CASE=(
    [fan1]='fanout clients=1000' [fan16]='fanout clients=1000 inflight=16'
    [uni8]='unicast clients=1000 http=8' [shake]='handshakes clients=5000'
)
TITLES=(fan1 'fan-out to 1,000 clients, 1 message in flight' fan16 'fan-out to 1,000 clients, 16 messages in flight'
    uni8 'unicast among 1,000 clients, 8 HTTP connections' shake 'handshakes of 5,000 clients, 128 under way')

# start_pair WHO BINARY: two nodes of a cluster of their own.
start_pair() {
    local node pair=("$1a" "$1b")
    CLUSTER_WSPUSH=$2
    for node in "${pair[@]}"; do
        start_node "$node" log.level=info notice.scope=off cluster.node_ttl=15 \
            redis.prefix="bench-$1:" rabbitmq.exchange="bench-$1"
    done
    on "${pair[0]}" sign_up bench
    TOKEN_OF[$1]=$TOKEN
    PORTS_OF[$1]=${NODE_PORT[${pair[0]}]},${NODE_PORT[${pair[1]}]}
    PIDS_OF[$1]=${NODE[${pair[0]}]},${NODE[${pair[1]}]}
}

# both CASE WHO ARGUMENT...: clients on both nodes in turn, requests to the first. The nodes, Redis and RabbitMQ
# share the machine, so nothing is pinned but the generator.
both() {
    local name=$1 who=$2
    shift 2
    run "$name" "$who" "$@" ms="$MS" port="${PORTS_OF[$who]}" pid="${PIDS_OF[$who]}" token="${TOKEN_OF[$who]}"
    [ "$who" != new ] || cat "$DIR/line"
}

# rabbit_bytes: prints how many bytes RabbitMQ has read and written on the connections that are open.
rabbit_bytes() {
    rabbit_ctl -q list_connections recv_oct send_oct | awk '{ sum += $1 + $2 } END { printf "%.0f\n", sum }'
}

# bytes_of WHO FLIGHTS: one more run, for the bytes of each send.
bytes_of() {
    local before after
    before=$(rabbit_bytes)
    "$BENCH" fanout clients=40 inflight="$2" ms="$MS" port="${PORTS_OF[$1]}" token="${TOKEN_OF[$1]}" \
        cpu="$CPU" >"$DIR/line" || bad "bytes with $2 in flight, $1" "$(cat "$DIR/line")"
    after=$(rabbit_bytes)
    echo "bytes=$(calc "($after - $before) / $(sed -n 's/.* published=\([0-9]*\).*/\1/p' "$DIR/line")") " |
        sed 's/^/case=bytes /' >>"$DIR/figures.bytes$2.$1"
}

cluster_rounds() {
    local i flights members who
    for ((i = 1; i <= ROUNDS; i++)); do
        echo "round $i of two nodes:"
        # shellcheck disable=SC2046 # words
        for who in $([ -n "$OLD" ] && in_turn $i new old || echo new); do
            both unicast "$who" unicast clients=200
        done
        for members in "${GROUPS_OF[@]}"; do
            for flights in "${FLIGHTS[@]}"; do
                for who in $([ -n "$OLD" ] && in_turn $i new old || echo new); do
                    both "group$members.$flights" "$who" fanout clients="$members" inflight="$flights"
                done
            done
        done
        # shellcheck disable=SC2046 # words
        for who in $([ -n "$OLD" ] && in_turn $i new old || echo new); do
            both binds1 "$who" binds clients=2000
            both binds2000 "$who" binds clients=2000 groups=2000
            sleep 3 # until what they were bound to is unbound
        done
    done
    for who in "${WHO[@]}"; do
        for flights in "${FLIGHTS[@]}"; do
            bytes_of "$who" "$flights"
        done
    done
}

alone_rounds() {
    local i name who
    for ((i = 1; i <= ROUNDS; i++)); do
        for name in fan1 fan16 uni8 shake; do
            for who in $(in_turn $i "$ALONE" "$NEW"); do
                # shellcheck disable=SC2086 # a list of words
                against $name "$(basename "$(dirname "$who")")" "$who" ${CASE[$name]} ms=1000
            done
            echo "round $i of one node: $name: build for clusters $(figures $name cluster rate | tail -n 1)," \
                "alone $(figures $name release rate | tail -n 1)"
        done
    done
}

alone_table() {
    local i
    echo
    echo 'one node that is alone, the build for clusters to the other, medians (of each round):'
    for ((i = 0; i < ${#TITLES[@]}; i += 2)); do
        ratio_line "${TITLES[i + 1]}" "${TITLES[i]}" cluster rate "${TITLES[i]}" release
    done
}

# nodes_table WHO
nodes_table() {
    local who=$1 flights members
    printf '  %-44s p50 %6.0f us, p99 %6.0f us\n' \
        'send_to_client, client of the same node' "$(figure unicast "$who" latency_a_p50)" "$(figure unicast "$who" latency_a_p99)" \
        'send_to_client, client of the other node' "$(figure unicast "$who" latency_b_p50)" "$(figure unicast "$who" latency_b_p99)"
    for members in "${GROUPS_OF[@]}"; do
        for flights in "${FLIGHTS[@]}"; do
            printf '  send_to_group, %4d members, %2d in flight %7.0f sends/s %8.0f deliveries/s, to the last member p50 %.2f ms, p99 %.2f ms\n' \
                "$members" "$flights" "$(calc "$(figure "group$members.$flights" "$who" rate) / $members")" \
                "$(figure "group$members.$flights" "$who" rate)" \
                "$(calc "$(figure "group$members.$flights" "$who" last_p50) / 1000")" \
                "$(calc "$(figure "group$members.$flights" "$who" last_p99) / 1000")"
        done
    done
    printf '  binds of 2,000 clients, 8 at a time: to one group %7.0f a second, to 2,000 groups %7.0f a second\n' \
        "$(figure binds1 "$who" rate)" "$(figure binds2000 "$who" rate)"
    for flights in "${FLIGHTS[@]}"; do
        printf '  bytes of RabbitMQ a send to 40 members, %2d in flight %7.0f\n' "$flights" "$(figure "bytes$flights" "$who" bytes)"
    done
}

# ratio_table: ours to the other binary's.
ratio_table() {
    local members flights
    echo
    echo "$NEW to $OLD, medians (of each round):"
    for members in "${GROUPS_OF[@]}"; do
        for flights in "${FLIGHTS[@]}"; do
            ratio_line "sends/s, $members members, $flights in flight" "group$members.$flights" new rate "group$members.$flights" old
            ratio_line '  p50 to the last member' "group$members.$flights" new last_p50 "group$members.$flights" old
        done
    done
    ratio_line 'unicast to the same node, p50' unicast new latency_a_p50 unicast old
    ratio_line 'unicast to the other node, p50' unicast new latency_b_p50 unicast old
    ratio_line 'binds a second to one group' binds1 new rate binds1 old
    ratio_line 'binds a second to 2,000 groups' binds2000 new rate binds2000 old
}

goals() {
    echo
    echo 'goals:'
    goal 'the other node to the same node, p50' "$(shares unicast new latency_a_p50 latency_b_p50 | middle)" most 2.5
    [ -n "$OLD" ] || return 0
    goal 'sends/s to the old, 40 members, 64 in flight' "$(ratio group40.64 new rate group40.64 old)" least 2.5
    goal 'latency to the old, 40 members, 1 in flight' "$(ratio group40.1 new last_p50 group40.1 old)" most 1.05
}

run_nodes() {
    launch_rabbit
    start_redis
    await_rabbit
    for who in "${WHO[@]}"; do
        start_pair "$who" "$([ "$who" = new ] && echo "$NEW" || echo "$OLD")"
    done
    cluster_rounds
    echo
    machine
    for who in "${WHO[@]}"; do
        echo "two nodes of $([ "$who" = new ] && echo "$NEW" || echo "$OLD"), medians of the rounds:"
        nodes_table "$who"
    done
    [ -z "$OLD" ] || ratio_table
    goals
    stop
    TOKEN='' # of the nodes
}

case " $PARTS " in *' nodes '*) run_nodes ;; esac
case " $PARTS " in *' alone '*) alone_rounds && alone_table ;; esac
conclude

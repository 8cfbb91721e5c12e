#!/usr/bin/env bash
# broker_cluster.sh - a RabbitMQ of two clustered nodes, whose first one, with all order queues, is killed: what
# was answered with success arrives, everything else is -1007, /readyz says why, and when it is back sends succeed
# without a restart of any node.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need redis-server rabbitmq-server jq
UNREACHABLE='503 {"code":-1007,'
declare -A PORT_OF DIST_PORT_OF # of RabbitMQ's nodes

# as RABBIT COMMAND...: runs a command of cluster_lib.sh for one of RabbitMQ's nodes.
as() {
    local RABBIT_NODE=$1 RABBIT_PORT=${PORT_OF[$1]} RABBIT_DIST_PORT=${DIST_PORT_OF[$1]}
    shift
    "$@"
}

# start_second: starts RabbitMQ's second node, and has it join the first.
start_second() {
    local base=$DIR/second
    mkdir -p "$base"
    echo '[].' >"$base/plugins"
    install -m 600 "$DIR/rabbit/.erlang.cookie" "$base"
    free_port && PORT_OF[second]=$FREE
    free_port && DIST_PORT_OF[second]=$FREE
    as second rabbit_run rabbitmq-server >"$base/out" 2>&1 </dev/null &
    SECOND=$!
    for _ in {1..6}; do # up to a minute
        wait_for as second rabbit_answers && break
    done
    {
        as second rabbit_ctl -q stop_app && as second rabbit_ctl -q join_cluster rabbit@localhost &&
            as second rabbit_ctl -q start_app
    } >"$base/ctl" 2>&1 || broken 'a second RabbitMQ starts and joins the first' <(cat "$base/out" "$base/ctl")
}

# load: sends from both nodes until the file $DIR/loaded is there; leaves what was answered in $DIR/answers.
load() {
    local i=0 node
    while [ ! -e "$DIR/loaded" ]; do
        for node in a b; do
            i=$((i + 1))
            echo "$node $i $(on $node call send_to_group "{'groupName':'g','code':$i,'msg':'m','data':1}")" >>"$DIR/answers"
        done
    done
}

# answered NODE CODE: prints the numbers of the sends of a node that were answered so.
answered() {
    sed -n "s/^$1 \([0-9]*\) [0-9]* {\"code\":$2,.*/\1/p" "$DIR/answers"
}

# got NAME: prints the numbers that a client has got.
got() {
    received messages "$1" | jq -r 'select(.msg == "m").code'
}

start_redis
start_rabbit
PORT_OF[first]=$RABBIT_PORT DIST_PORT_OF[first]=$RABBIT_DIST_PORT
start_second
start_node a
start_node b "rabbitmq.port=${PORT_OF[second]}"
at a
sign_up shop
join a x
join b y
for name in x y; do
    bind a $name g >/dev/null
done
load &
LOADER=$!
wait_for eval '[ "$(answered b 0 | wc -l)" -ge 20 ]'
kill_rabbit
for node in a b; do
    wait_for node_says $node 'RabbitMQ cannot be used'
    expect_match "the first RabbitMQ is dead: $node is not ready, and says why" 'not ready: RabbitMQ at 127.0.0.1 port *' \
        "$(readiness $node)"
done
# RabbitMQ 4 neither delivers nor answers where version 3 says what is down
MISSING='*order.*is down*start the node that has the queue*'
[ "$(rabbit_ctl version | cut -d . -f 1)" -lt 4 ] || MISSING='*port *within ? s: see whether it hangs*'
expect_match 'it says what is missing to the one with a living RabbitMQ' "$MISSING" "$(readiness b)"
before=$(grep -c -- -1007 "$DIR/answers")
wait_for eval '[ "$(grep -c -- -1007 "$DIR/answers")" -ge $((before + 6)) ]'
down=$(wc -l <"$DIR/answers")
start_rabbit
for node in a b; do
    wait_for eval "[ \"\$(readiness $node)\" = ready ]" || wait_for eval "[ \"\$(readiness $node)\" = ready ]"
    expect "the first RabbitMQ is back: $node is ready" ready "$(readiness $node)"
    wait_for eval "[ \"\$(tail -n +$down \"$DIR/answers\" | grep -c '^$node .*\"code\":0')\" -ge 10 ]"
done
: >"$DIR/loaded"
wait "$LOADER"
expect 'all answers are success or -1007' '' "$(grep -v -e '200 {"code":0,"msg":"success"' -e "$UNREACHABLE" "$DIR/answers" | head -n 3)"
for pair in 'a x' 'b y'; do # RabbitMQ's death may cost the other node what waits in its queue
    read -r node name <<<"$pair"
    expect "what $node has answered with success arrives" '' \
        "$(comm -23 <(answered "$node" 0 | sort) <(got "$name" | sort) | head -n 3)"
done
expect 'sends succeed again' 1 "$(($(tail -n +$((down + 1)) "$DIR/answers" | grep -c '"code":0') >= 20))"
expect 'both clients get the last ones' "$(tail -n 4 "$DIR/answers" | cut -d' ' -f2)" "$(
    wait_for eval "[ \"\$(got x | tail -n 1)\" = \"\$(tail -n 1 \"$DIR/answers\" | cut -d' ' -f2)\" ]"
    got x | tail -n 4)"
kill_process "$SECOND"
finish

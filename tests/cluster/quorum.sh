#!/usr/bin/env bash
# quorum.sh - queue_type = quorum with a RabbitMQ of three nodes: one is killed under load. What was answered
# with success arrives at every member, once and in one order; everything else is -1007; the nodes of wspush go on
# with the next host, and sends succeed while a broker is gone.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need redis-server rabbitmq-server jq
UNREACHABLE='503 {"code":-1007,'
declare -A PORT_OF DIST_PORT_OF BROKER # of RabbitMQ's nodes: rabbit, second, third
LOADS=(1 2 3 4 5 6) SINCE=() LOADERS=()

# as NAME COMMAND...: runs a command of cluster_lib.sh for one of RabbitMQ's nodes.
as() {
    local RABBIT_NODE=$1 RABBIT_PORT=${PORT_OF[$1]} RABBIT_DIST_PORT=${DIST_PORT_OF[$1]}
    shift
    "$@"
}

# launch_broker NAME: starts one of RabbitMQ's nodes but the first.
launch_broker() {
    local base=$DIR/$1
    mkdir -p "$base"
    echo '[].' >"$base/plugins"
    install -m 600 "$DIR/rabbit/.erlang.cookie" "$base"
    as "$1" rabbit_run rabbitmq-server >"$base/out" 2>&1 </dev/null &
    BROKER[$1]=$!
}

await_broker() {
    for _ in {1..6}; do # up to a minute
        wait_for as "$1" rabbit_answers && return
    done
    broken "the RabbitMQ $1 starts" "$DIR/$1/out"
}

# join_broker NAME: has it join the first.
join_broker() {
    await_broker "$1"
    {
        as "$1" rabbit_ctl -q stop_app && as "$1" rabbit_ctl -q join_cluster rabbit@localhost &&
            as "$1" rabbit_ctl -q start_app
    } >"$DIR/$1/ctl" 2>&1 || broken "the RabbitMQ $1 joins the first" <(cat "$DIR/$1/out" "$DIR/$1/ctl")
}

start_brokers() {
    local name
    launch_rabbit
    await_rabbit
    BROKER[rabbit]=$RABBIT PORT_OF[rabbit]=$RABBIT_PORT DIST_PORT_OF[rabbit]=$RABBIT_DIST_PORT RABBIT=''
    for name in second third; do
        free_port && PORT_OF[$name]=$FREE
        free_port && DIST_PORT_OF[$name]=$FREE
        launch_broker $name
    done
    for name in second third; do
        join_broker $name
    done
}

kill_broker() {
    kill_process "${BROKER[$1]}"
    unset "BROKER[$1]"
}

# load NUMBER: sends in turn to both nodes until the file $DIR/loaded is there; leaves what was answered in
# $DIR/answers.NUMBER.
load() {
    local i=0 node id
    while [ ! -e "$DIR/loaded" ]; do
        for node in a b; do
            i=$((i + 1)) id=$((i * 10 + $1))
            echo "$node $id $(DIR=$DIR/load.$1 on $node call send_to_group "{'groupName':'g','code':$id,'msg':'m','data':1}")" >>"$DIR/answers.$1"
        done
    done
}

# answered CODE: prints the numbers of the sends that were answered so.
answered() {
    cat "$DIR"/answers.* | sed -n "s/^[ab] \([0-9]*\) [0-9]* {\"code\":$1,.*/\1/p"
}

# succeed COUNT: whether so many sends of each node have been answered with success since `mark_answers`.
# shellcheck disable=SC2317,SC2329 # called by wait_for
succeed() {
    local i count node
    for node in a b; do
        count=0
        for i in "${LOADS[@]}"; do
            count=$((count + $(tail -n +$((SINCE[i] + 1)) "$DIR/answers.$i" | grep -c "^$node .*\"code\":0,")))
        done
        [ $count -ge "$1" ] || return 1
    done
}

mark_answers() {
    local i
    for i in "${LOADS[@]}"; do
        SINCE[i]=$(wc -l <"$DIR/answers.$i")
    done
}

# got NAME: prints the numbers that a client has got.
got() {
    received messages "$1" | jq -r 'select(.msg == "m").code'
}

# goes_on NODE...: waits until these nodes are ready and sends to them succeed again.
goes_on() {
    local node
    for node in "$@"; do
        wait_for is_ready "$node" || wait_for is_ready "$node"
        expect "$WHAT: $node is ready" ready "$(readiness "$node")"
    done
    mark_answers
    wait_for succeed 50 || wait_for succeed 50
    expect "$WHAT: sends to both succeed" 0 $?
}

start_redis
start_brokers
for node in a b; do
    hosts="127.0.0.1:${PORT_OF[rabbit]} localhost:${PORT_OF[second]}, 127.0.0.1:${PORT_OF[third]}"
    [ $node = a ] || hosts="127.0.0.1:${PORT_OF[second]} 127.0.0.1:${PORT_OF[third]} 127.0.0.1:${PORT_OF[rabbit]}"
    configure_node $node rabbitmq.port=1 "rabbitmq.hosts=$hosts" rabbitmq.queue_type=quorum
    launch_node $node
done
for node in a b; do
    for _ in {1..4}; do # 16 queues of three replicas take their time
        await_node $node 'joined the cluster' 'RabbitMQ is connected' && break
    done
    node_says $node 'RabbitMQ is connected' || broken "the node $node starts" "$DIR/$node.log"
done
at a
sign_up shop
join a x
join b y
for name in x y; do
    [ $name = x ] && node=a || node=b
    expect "$name is in the group" "$SUCCESS" "$(bind $node $name g)"
done
for i in "${LOADS[@]}"; do
    mkdir "$DIR/load.$i"
    : >"$DIR/answers.$i"
    load $i &
    LOADERS+=($!)
done
WHAT='before'
goes_on a b
kill_broker rabbit
wait_for node_says a "RabbitMQ cannot be used.*127.0.0.1 port ${PORT_OF[rabbit]}"
WHAT='the RabbitMQ of a, with half of all leaders, is killed'
goes_on a b
: >"$DIR/loaded"
wait "${LOADERS[@]}"
expect 'all answers are success or -1007' '' \
    "$(cat "$DIR"/answers.* | grep -v -e '200 {"code":0,"msg":"success"' -e "$UNREACHABLE" | head -n 3)"
call send_to_group "{'groupName':'g','code':-1,'msg':'m','data':1}" >/dev/null
for name in x y; do
    wait_for eval "[ \"\$(got $name | tail -n 1)\" = -1 ]"
    got $name >"$DIR/got.$name"
    expect "$name gets what was answered with success" '' \
        "$(comm -23 <(answered 0 | sort) <(sort "$DIR/got.$name") | head -n 3)"
    expect "$name gets nothing twice" '' "$(sort "$DIR/got.$name" | uniq -d | head -n 3)"
done
grep -Fxf "$DIR/got.x" "$DIR/got.y" >"$DIR/both.y"
grep -Fxf "$DIR/got.y" "$DIR/got.x" >"$DIR/both.x"
expect 'both get them in one order' '' "$(cmp "$DIR/both.x" "$DIR/both.y" 2>&1)"
echo "$(answered 0 | wc -l) sends succeeded, $(answered -1007 | wc -l) were -1007"
finish

#!/usr/bin/env bash
# scale.sh - what a send to a group costs with 2, 4 and 8 nodes, whose members are on one, half and
# all of them: confirmed sends a second, and how many messages RabbitMQ has delivered for each. What
# waits for a partition leaves as one message, so these are fewer than the sends. A node without
# members gets its own messages back, and no others. Nodes on one machine share it, so sends a second
# fall with every node.
set -u
CLUSTER_WSPUSH=${CLUSTER_WSPUSH:-build/cluster/wspush}
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

SENDERS=16 # connections, spread over the nodes
SENDS=250  # on each of them
COUNTS=(2 4 8)

# deliver_counts: prints for each node's queue that had any how many deliveries it has had, from
# RabbitMQ's own book-keeping.
deliver_counts() {
    rabbit_ctl -q eval '
        [io:format("~s ~b~n", [Name, element(4, Row)])
            || Row <- ets:tab2list(channel_queue_metrics),
               {resource, _, queue, Name} <- [element(2, element(1, Row))]], ok.' |
        awk 'NF == 2 && $1 !~ /order/ { all[$1] += $2 } END { for (name in all) print name, all[name] }'
}

# load GROUP NODE...: sends to a group at all these nodes; prints how many sends were answered with
# success, and how long that took in microseconds.
load() {
    local group=$1 i begin pids=()
    shift
    local nodes=("$@")
    for ((i = 0; i < SENDERS; i++)); do
        on "${nodes[i % $#]}" talk <"$DIR/load.$group" >"$DIR/answers.$i" &
        pids+=($!)
        [ "$i" != 0 ] || begin=${EPOCHREALTIME/[.,]/}
    done
    wait "${pids[@]}"
    echo "$(cat "$DIR"/answers.* | grep -oF '{"code":0,"msg":"success","data":[]}' | wc -l)" \
        $((${EPOCHREALTIME/[.,]/} - begin))
}

# write_load GROUP: what each sender sends.
write_load() {
    local i
    for ((i = 0; i < SENDS; i++)); do
        request send_to_group "{'groupName':'$1','code':$i,'msg':'m','data':'$DATA'}"
    done >"$DIR/load.$1"
    request get_online_list '{}' 'Connection: close' >>"$DIR/load.$1"
}

# measure NODES MEMBERS NODE...
measure() {
    local count=$1 with=$2 group=$1.$2 node sends micros all=$((SENDERS * SENDS))
    shift 2
    for node in "${@:1:with}"; do
        on "$node" client "$group.$node" scale
        on "$node" call bind_to_group "{'clientId':'$ID','groupName':'$group'}" >/dev/null
    done
    sleep 1
    write_load "$group"
    deliver_counts >"$DIR/before"
    load "$group" "$@" >"$DIR/load"
    read -r sends micros <"$DIR/load"
    sleep 1
    deliver_counts >"$DIR/after"
    for node in "$@"; do # the deliveries to each, those with members first
        awk -v queue=":${NODE_RPC[$node]}/" '
            index($1, queue) { sum += (FILENAME ~ /before/ ? -1 : 1) * $2 }
            END { print sum + 0 }' "$DIR/before" "$DIR/after"
    done >"$DIR/got"
    awk -v count=$count -v with=$with -v sends=$sends -v micros=$micros '
        { if (NR <= with) inside += $1; else outside += $1 }
        END { printf "%5d %8d %7d %9.0f %17.2f %21.2f\n", count, with, sends,
            sends * 1000000 / micros, inside / sends, outside / sends }' "$DIR/got"
    awk -v with=$with '
        NR <= with && (NR == 1 || $1 < least) { least = $1 }
        NR > with && $1 > most { most = $1 }
        END { exit !(most < least) }' "$DIR/got" || bad "$count nodes, members on $with" "$(xargs <"$DIR/got")"
    [ "$sends" = $all ] || bad "$count nodes, members on $with" "$sends of $all sends"
    for node in "${@:1:with}"; do
        [ "$(grep -c '"msg":"m"' "$DIR/$group.$node.out")" = "$sends" ] ||
            bad "$count nodes, members on $with" "a member at $node has not got all"
    done
    for node in "${CLIENTS[@]}"; do
        kill "$node"
    done
    CLIENTS=()
}

DATA=$(printf '%100s' '' | tr ' ' x)
launch_rabbit
start_redis
await_rabbit
rabbit_ctl -q eval 'application:set_env(rabbit, collect_statistics, fine).' >/dev/null
echo "$((SENDERS * SENDS)) sends of 100 bytes by $SENDERS connections to all nodes; messages delivered per send to"
echo 'nodes  members on   sends   sends/s  nodes with members  nodes without members'
nodes=()
for count in "${COUNTS[@]}"; do
    while [ ${#nodes[@]} -lt "$count" ]; do
        nodes+=("n$((${#nodes[@]} + 1))")
        start_node "${nodes[-1]}" log.level=info
    done
    [ -n "$TOKEN" ] || on n1 sign_up scale
    for with in $(printf '%s\n' 1 $((count / 2)) "$count" | sort -nu); do
        measure "$count" "$with" "${nodes[@]}"
    done
done
finish

#!/usr/bin/env bash
# once.sh - a send with `once` reaches each client once, through whichever node of a cluster it is repeated: one that
# was a success, and all that are answered -1007 while RabbitMQ is killed under load, some of which have been delivered.
# build: cluster-asan/wspush
# shellcheck source=tests/support/faults_lib.sh
. "$(dirname "$0")/../support/faults_lib.sh"

need python3
NODES=(a b)
USED='400 {"code":-1,"msg":"messageId was used for another message","data":[]}'
ONCE="'once':true,$MESSAGE"

# again ID [FIELDS]: prints the answer to a send that is repeated.
again() {
    success "{${2:+$2,}'messageId':'$1','matched':0,'queued':0,'dropped':0,'repeated':true}"
}

# came ID NAME...: expects that these clients get the send with this messageId, once.
came() {
    local id=$1 name
    shift
    for name in "$@"; do
        expect "$WHAT: $name gets it, once" "${FRAME%?},\"messageId\":\"$id\"}" "$(messages "$name" 1)"
    done
}

# each_once CALL TARGET NAME...: a send at one node that is repeated at each.
each_once() {
    local WHAT=$1 call=$1 node body="{$2'messageId':'m',$ONCE}"
    shift 2
    expect "$WHAT: sent" "$SUCCESS" "$(on a call "$call" "$body")"
    came m "$@"
    for node in b a b; do
        expect "$WHAT: repeated at $node" "$(again m)" "$(on $node call "$call" "$body")"
        expect "$WHAT: other content at $node" "$USED" "$(on $node call "$call" "${body%1\}}2}")"
    done
}

kinds() {
    local WHAT node
    each_once send_to_group "'groupName':'g'," a b
    each_once send_to_user "'userId':'u'," a b
    each_once send_to_system '' a b
    each_once send_to_client "'clientId':'${IDS[b]}'," b
    WHAT=send_to_clients
    expect "$WHAT: to one that has got it, and one that has not" "$(success "{'failed':[]}")" \
        "$(on a call send_to_clients "{'clientIds':['${IDS[a]}','${IDS[b]}'],'messageId':'m',$ONCE}")"
    came m a
    for node in a b; do
        expect "$WHAT: repeated at $node" "$(again m "'failed':[]")" \
            "$(on $node call send_to_clients "{'clientIds':['${IDS[a]}','${IDS[b]}'],'messageId':'m',$ONCE}")"
    done
    quiet a b
}

# A node that was not there has not delivered it.
a_node_joins() {
    local WHAT='a node that joins' body="{'groupName':'g','messageId':'j',$ONCE}" node
    expect "$WHAT: sent before" "$SUCCESS" "$(on a call send_to_group "$body")"
    came j a b
    start_node c cluster.node_ttl=15 notice.scope=off
    NODES+=(c)
    join c c
    bind c c g >/dev/null
    expect "$WHAT: repeated at b, it delivers" "$SUCCESS" "$(on b call send_to_group "$body")"
    came j c
    for node in "${NODES[@]}"; do
        expect "$WHAT: repeated at $node" "$(again j)" "$(on "$node" call send_to_group "$body")"
    done
    quiet a b c
}

# --- RabbitMQ killed ---------------------------------------------------------------------------

# insist NAME NODE OTHER: as `flow`, but each send is repeated, at the other node and this one in turn, until it is a
# success. A line of $DIR/NAME.flow has the code, the last status, how often it was repeated, and the last answer.
insist() {
    local name=$1 nodes=("$2" "$3") fds=() node body tries
    CODE=$((CODE / 10000 * 10000 + 10000))
    (
        for node in "${nodes[@]}"; do
            exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[$node]}"
            fds+=("$fd")
        done
        while [ ! -e "$DIR/flow.stop" ]; do
            CODE=$((CODE + 1)) tries=0
            printf -v body '{"groupName":"g","code":%d,"msg":"flow","data":1,"messageId":"%d","once":true}' $CODE $CODE
            until ask_on "${fds[tries % 2]}" send_to_group "$body" && [ "$STATUS" = 200 ] || [ $tries = 600 ]; do
                tries=$((tries + 1))
                pause 0.1
            done
            echo "$CODE $STATUS $tries $ANSWER"
            pause 0.01
        done >"$DIR/$name.flow"
    ) &
    FLOWS+=($!)
}

# has_all NAME FLOW...: whether as much has come as was sent.
# shellcheck disable=SC2317,SC2329 # called by wait_for
has_all() {
    [ "$(arrived "$@" | wc -l)" -ge "$(shift; for flow; do cat "$DIR/$flow.flow"; done | wc -l)" ]
}

# For a while nothing comes back to a of what b and c get; then RabbitMQ is gone, and what it had for a.
killed_under_load() {
    local WHAT='RabbitMQ killed under load' flow flows=(a1 a2 a3 a4 a5 a6 b1 c1) name
    for flow in a1 a3 a5; do
        insist $flow a b
    done
    for flow in a2 a4 a6; do
        insist $flow a c
    done
    sleep 1
    way a deaf
    sleep 0.5
    kill_rabbit
    way a cut
    insist b1 b c
    insist c1 c a
    launch_rabbit
    await_rabbit
    way a pass
    all_ready a b c
    sleep 0.5
    stop_flows
    for flow in "${flows[@]}"; do
        expect "$WHAT: flow $flow: each send is a success in the end" '' "$(awk '$2 != 200' "$DIR/$flow.flow" | head -n 3)"
    done
    expect "$WHAT: some had to be repeated" yes "$(awk '$3' "$DIR"/??.flow | grep -q . && echo yes)"
    expect "$WHAT: some of those were skipped where they had come" yes "$([ "$(figure b once_repeated_total)" -gt \
        "$SKIPPED" ] && echo yes)"
    for name in "${NODES[@]}"; do
        wait_for has_all "$name" "${flows[@]}"
        expect "$WHAT: $name gets each once" '' "$(diff <(for flow in "${flows[@]}"; do cut -d ' ' -f 1 "$DIR/$flow.flow"
            done | sort) <(arrived "$name" "${flows[@]}" | sort) | head -n 5)"
    done
    echo "     $(cat "$DIR"/??.flow | wc -l) sends, $(awk '$3' "$DIR"/??.flow | wc -l) of them repeated, $(
        figure b once_repeated_total) times skipped by b"
}

launch_rabbit
start_redis
open_ways "a:$RABBIT_PORT"
await_rabbit
start_node a rabbitmq.port="${WAY[a]}" cluster.node_ttl=15 notice.scope=off
start_node b cluster.node_ttl=15 notice.scope=off
at a
sign_up shop
for node in "${NODES[@]}"; do
    join "$node" "$node"
    bind "$node" "$node" g u >/dev/null
done
kinds
a_node_joins
SKIPPED=$(figure b once_repeated_total)
killed_under_load
finish

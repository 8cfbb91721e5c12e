#!/usr/bin/env bash
# faults.sh [FAULT...] - what goes wrong between three nodes, with real servers: in each fault what
# still can be done is done, what cannot is answered with 503 and -1007 in time, and after it all is
# well again without a restart.
# build: cluster-asan/wspush
# shellcheck source=tests/support/faults_lib.sh
. "$(dirname "$0")/../support/faults_lib.sh"

need python3 openssl
NODES=(a b c) # the clients that stay have the names of their nodes

# --- what must go on --------------------------------------------------------------------------

# each_one NODE...: from each of these nodes to a client of each.
each_one() {
    local node name
    for node in "$@"; do
        for name in "$@"; do
            timely "send_to_client at $node to $name" "${SUCCESS//[\[\]]/\\&}" \
                on "$node" call send_to_client "{'clientId':'${IDS[$name]}',$MESSAGE}"
        done
    done
    for name in "$@"; do
        expect "$WHAT: $name gets what is sent to it" \
            "$(for node in "$@"; do echo "$FRAME"; done)" "$(messages "$name" $#)"
    done
}

# groups NODE...: from each of these nodes to g, to u1 and to the system; the clients there of these
# names are all in g, and of u1.
groups() {
    local node name
    for node in "$@"; do
        timely "send_to_group at $node" "${SUCCESS//[\[\]]/\\&}" \
            on "$node" call send_to_group "{'groupName':'g',$MESSAGE}"
        timely "send_to_user at $node" "${SUCCESS//[\[\]]/\\&}" \
            on "$node" call send_to_user "{'userId':'u1',$MESSAGE}"
        timely "send_to_system at $node" "${SUCCESS//[\[\]]/\\&}" \
            on "$node" call send_to_system "{$MESSAGE}"
    done
    for name in "$@"; do
        expect "$WHAT: $name gets what is sent to all" \
            "$(for node in "$@"; do printf '%s\n' "$FRAME" "$FRAME" "$FRAME"; done)" \
            "$(messages "$name" $((3 * $#)))"
    done
}

# lists PRINTER NAME... -- NODE...: expects what these nodes, asked at the same time, answer to get_online_list
# of g.
lists() {
    local printer=$1 names=() node askers=()
    shift
    while [ "$1" != -- ]; do
        names+=("$1")
        shift
    done
    shift
    for node in "$@"; do
        aside "$node" get_online_list "{'groupName':'g'}" >"$DIR/$node.list" &
        askers+=($!)
    done
    wait "${askers[@]}"
    for node in "$@"; do
        expect "$WHAT: get_online_list at $node" "200 $($printer "${names[@]}") in time" \
            "$(sorted_list <"$DIR/$node.list")"
    done
}

# all_well: nothing is left of the fault.
all_well() {
    local node WHAT="$WHAT, afterwards"
    SERIAL=$((${SERIAL-0} + 1))
    lists members a b c -- "${NODES[@]}"
    each_one "${NODES[@]}"
    groups "${NODES[@]}"
    for node in "${NODES[@]}"; do
        timely "login at $node" '200 {"code":0,*' \
            on "$node" call login "{'systemId':'shop',$ACCOUNT"
        timely "register at $node" "${SUCCESS//[\[\]]/\\&}" \
            on "$node" call register "{'systemId':'new $SERIAL $node',$ACCOUNT"
        timely "bind at $node" "${SUCCESS//[\[\]]/\\&}" bind "$node" "$node" "new $SERIAL"
        expect "$WHAT: it is told" \
            "$(IN="new $SERIAL" notice 1001 "${IDS[$node]}" u1)" "$(notices "$node" 1)"
        on "$node" call unbind_from_group "{'clientId':'${IDS[$node]}','groupName':'new $SERIAL'}" \
            >/dev/null
    done
    quiet a b c
}

# --- Redis ------------------------------------------------------------------------------------

redis_killed() {
    local WHAT='Redis killed' begin node name
    mark
    kill_redis
    now && begin=$NOW
    for node in "${NODES[@]}"; do
        timely "login at $node" "$UNREACHABLE" \
            on "$node" call login "{'systemId':'shop',$ACCOUNT"
        timely "register at $node" "$UNREACHABLE" \
            on "$node" call register "{'systemId':'other',$ACCOUNT"
        timely "/ws of a system that $node has not seen" '{"code":-1007,"msg":"?*","data":\[\]}' \
            first_frame "$node" depot
        expect_match "$WHAT: how $node closes that" '1013 *' "$(closed first)"
    done
    each_one "${NODES[@]}"
    groups "${NODES[@]}"
    # a node that cannot ask Redis does not know whether there are others
    lists incomplete a b c -- "${NODES[@]}"
    join b d
    expect "$WHAT: a client of a system that the node has seen" "$SUCCESS" "$(bind c d g)"
    expect "$WHAT: a new group" "$SUCCESS" "$(bind c d 'while Redis was gone')"
    join c e
    expect "$WHAT: a client that comes" "$SUCCESS" "$(bind a e g)"
    kill "${PROCESS[e]}" # and goes
    until_ms $((begin + TTL + 2000))
    for node in "${NODES[@]}"; do
        expect "$WHAT: nobody is taken for dead by $node" '' \
            "$(warnings "$node" | grep -v 'Redis cannot be used')"
    done
    lists incomplete a b c d -- "${NODES[@]}"
    quiet a b c d # a notice waits for its record
    start_redis
    say 'Redis is back' "${NODES[@]}"
    say 'warn.*Redis cannot be used.*start it' "${NODES[@]}"
    wait_for registered_again
    expect "$WHAT: all nodes are registered again" 3 "$(redis SCARD wspush:nodes)"
    for node in "${NODES[@]}"; do
        expect "$WHAT: $node is alive" 1 \
            "$(redis EXISTS "wspush:node:127.0.0.1:${NODE_RPC[$node]}")"
        expect_match "$WHAT: the system is found by $node again" '*"clientId":*' \
            "$(first_frame "$node" depot)"
    done
    told 1001 d '' '' a b c
    expect "$WHAT: d is told 1001 of itself, in both groups" \
        "$({ notice 1001 "${IDS[d]}"; IN='while Redis was gone' notice 1001 "${IDS[d]}"; } | sort)" \
        "$(notices d 2 | sort)"
    kill "${PROCESS[d]}"
    told 1002 d '' '' a b c
    all_well
    calm "${NODES[@]}"
}

# registered_again: whether each node is, and has written the record of its client.
# shellcheck disable=SC2317,SC2329 # called by wait_for
registered_again() {
    local node
    [ "$(redis SCARD wspush:nodes)" = 3 ] || return 1
    for node in "${NODES[@]}"; do
        [ "$(redis EXISTS "wspush:node:127.0.0.1:${NODE_RPC[$node]}")" = 1 ] &&
            [ "$(redis HLEN "$(redis KEYS "wspush:records:127.0.0.1:${NODE_RPC[$node]}/*")")" -ge 1 ] || return 1
    done
}

# first_frame NODE SYSTEM: connects a client for a moment and prints what it gets first.
first_frame() {
    on "$1" client first "$2"
    head -n 1 "$DIR/first.out"
    pause 0.1
    kill "$CLIENT" 2>/dev/null
}

# --- RabbitMQ ---------------------------------------------------------------------------------

rabbit_killed() {
    local WHAT='RabbitMQ killed' node name back
    mark
    group_flows
    pause 0.7
    kill_rabbit
    launch_rabbit
    pause 0.1
    for node in "${NODES[@]}"; do
        at_once "send_to_group at $node" "$UNREACHABLE" \
            on "$node" call send_to_group "{'groupName':'g',$MESSAGE}"
        at_once "send_to_user at $node" "$UNREACHABLE" \
            on "$node" call send_to_user "{'userId':'u1',$MESSAGE}"
        at_once "send_to_system at $node" "$UNREACHABLE" \
            on "$node" call send_to_system "{$MESSAGE}"
        at_once "a new group at $node" "$UNREACHABLE" bind "$node" b 'never'
        at_once "client_info at $node" "200 {\"code\":0,*\"${IDS[c]}\"*" \
            on "$node" call client_info "{'clientId':'${IDS[c]}'}"
        timely "login at $node" '200 {"code":0,*' \
            on "$node" call login "{'systemId':'shop',$ACCOUNT"
    done
    lists members a b c -- "${NODES[@]}"
    # at first what was sent before may still be on its way
    wait_for eval '[ "$(bind a b g u1)" = "$SUCCESS" ]'
    join b d
    expect "$WHAT: a bind to a group that the node has bound" "$SUCCESS" "$(bind a d g)"
    timely "send_to_client to the new one" "${SUCCESS//[\[\]]/\\&}" \
        on c call send_to_client "{'clientId':'${IDS[d]}',$MESSAGE}"
    expect "$WHAT: it gets it" "$FRAME" "$(messages d 1)"
    lists members a b c d -- "${NODES[@]}"
    await_rabbit
    now && back=$NOW
    say 'warn.*RabbitMQ cannot be used.*start it there' "${NODES[@]}"
    say 'RabbitMQ is connected' "${NODES[@]}"
    for name in "${NODES[@]}"; do
        wait_for succeeds_since "$back" "$name"
    done
    pause 1.5
    stop_flows
    told 1001 d '' '' a b c d
    for name in a b c; do
        answered "$name"
        all_arrived "$name" a b c
        expect "$WHAT: $name gets again what is sent to the group" 1 "$(awk -v back=$back \
            '$5 > back && $2 == 200 { found = 1 } END { print found + 0 }' "$DIR/$name.flow")"
        awk -v name=$name -v back=$back '$5 > back && $2 == 200 {
            print "     the first success at " name ": " $5 - back " ms after the return"; exit }' \
            "$DIR/$name.flow"
    done
    same_order a b c
    kill "${PROCESS[d]}"
    told 1002 d '' '' a b c
    all_well
    calm "${NODES[@]}"
}

# --- a node -----------------------------------------------------------------------------------

# sends_until PATTERN NAME NODE LIMIT: sends to a client until the answer is like that, which must be
# so after the limit in milliseconds at the latest; prints what was answered that was not one of the
# two, late, or behind such an answer.
sends_until() {
    local pattern=$1 name=$2 node=$3 limit=$4 fd begin tail=0
    exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[$node]}"
    now && begin=$NOW
    while now && ! late $((NOW - begin)) "$limit" && [ $tail -lt 5 ]; do
        ask_on "$fd" send_to_client \
            "{\"clientId\":\"${IDS[$name]}\",\"code\":0,\"msg\":\"late\",\"data\":1}"
        ! late $((TOOK / 1000)) $PATIENCE || echo "$((TOOK / 1000)) ms: $STATUS $ANSWER"
        # shellcheck disable=SC2254 # a pattern
        case "$STATUS $ANSWER" in
        $pattern) tail=$((tail + 1)) ;;
        $UNREACHABLE) [ $tail = 0 ] || echo "after $pattern: $STATUS $ANSWER" ;;
        *) echo "$STATUS $ANSWER" ;;
        esac
        pause 0.1
    done
    exec {fd}>&-
    [ $tail = 5 ] || echo "no $pattern in $limit ms"
}

GONE=${OFFLINE//[\[\]]/\\&}

# arrivals CODE NAME: prints when the notice came to a client, as lines of times in milliseconds.
# It runs beside the fault: awaited by who waits for its process.
watch_notice() {
    local begin=$1 name=$2 text
    text=$(notice "$3" "$4" "$5")
    wait_for grep -qF -- "$text" "$DIR/$name.out"
    now
    echo $((NOW - begin))
}

node_killed() {
    local WHAT='a node killed' begin node name old
    join c d
    bind c d g >/dev/null
    told 1001 d '' '' a b c d
    mark
    flow a a 0.05 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    kill_node c
    now && begin=$NOW
    for node in a b; do
        for name in c d; do
            sends_until "$GONE" $name $node 10000 >"$DIR/$node.$name.answers" &
            FLOWS+=($!)
        done
        watch_notice "$begin" $node 1002 "${IDS[c]}" u1 >"$DIR/$node.when" &
        FLOWS+=($!)
    done
    lists incomplete a b -- a b
    at_once 'send_to_clients' '200 {"code":0,"msg":"success","data":{"failed":\["'"${IDS[c]}"'"\]}}' \
        on b call send_to_clients "{'clientIds':['${IDS[a]}','${IDS[c]}'],$MESSAGE}"
    expect "$WHAT: send_to_clients reaches the other" "$FRAME" "$(messages a 1)"
    pause $((TTL / 1000 + 2))
    stop_flows
    for node in a b; do
        for name in c d; do
            expect "$WHAT: what $node answers for $name" '' "$(cat "$DIR/$node.$name.answers")"
        done
        # its last sign of life was at most a third of the TTL before
        expect_time "$WHAT: $node is told after the TTL" $((TTL * 2 / 3 - 200)) $((TTL + 2500)) \
            "$(cat "$DIR/$node.when")"
        notices $node 2 | sort >"$DIR/told"
        expect "$WHAT: $node is told 1002 of both, and once" \
            "$({ notice 1002 "${IDS[c]}" u1; notice 1002 "${IDS[d]}"; } | sort)" \
            "$(cat "$DIR/told")"
        answered a
        all_arrived $node a
    done
    lists members a b -- a b
    calm a b
    old="${IDS[c]} ${IDS[d]}"
    restart_node c
    WHAT='a node killed and started again'
    for name in $old; do
        for node in "${NODES[@]}"; do
            timely "an old id at $node" "$GONE" \
                on "$node" call send_to_client "{'clientId':'$name',$MESSAGE}"
        done
    done
    join c c
    bind a c g u1 >/dev/null
    told 1001 c u1 '' a b c
    all_well
}

# The same, but it is started again before the others know it to be dead.
node_restarted() {
    local WHAT='a node killed and started at once' begin node old=${IDS[c]}
    mark
    kill_node c
    now && begin=$NOW
    for node in a b; do
        sends_until "$GONE" c $node 10000 >"$DIR/$node.c.answers" &
        FLOWS+=($!)
    done
    restart_node c
    now
    echo "     it has joined again after $((NOW - begin)) ms"
    timely 'its old id at itself' "$GONE" on c call client_info "{'clientId':'$old'}"
    stop_flows
    for node in a b; do
        expect "$WHAT: what $node answers for its client" '' "$(cat "$DIR/$node.c.answers")"
    done
    told 1002 c u1 '' a b
    join c c
    bind b c g u1 >/dev/null
    told 1001 c u1 '' a b c
    all_well
    calm "${NODES[@]}"
}

node_frozen() {
    local WHAT='a node frozen' node ANSWERS=()
    mark
    for node in a b; do
        flow $node $node 0.05 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    done
    freeze_node c
    for node in a b; do
        sends_until "$GONE" c $node 10000 >"$DIR/$node.c.answers" &
        ANSWERS+=($!)
        aside $node bind_to_group "{'clientId':'${IDS[c]}','groupName':'never'}" \
            >"$DIR/$node.bind" &
        ANSWERS+=($!)
    done
    lists incomplete a b -- a b
    told 1002 c u1 '' a b
    wait "${ANSWERS[@]}"
    for node in a b; do
        expect "$WHAT: what $node answers for its client" '' "$(cat "$DIR/$node.c.answers")"
        expect_match "$WHAT: a bind at $node" "$UNREACHABLE in time" "$(cat "$DIR/$node.bind")"
    done
    pause "${1:-1}"
    thaw_node c
    told 1001 c u1 '' a b c
    lists members a b c -- "${NODES[@]}"
    stop_flows
    for node in "${NODES[@]}"; do
        all_arrived "$node" a b
        expect "$WHAT: $node gets nothing that was answered otherwise" '' "$(ghosts "$node" a)"
    done
    answered a
    answered b
    same_order a b c
    expect "$WHAT: nothing of what was refused has come" 0 "$(grep -c late "$DIR/c.out")"
    timely 'no group was bound that was refused' '*"groups":\["g"\],*' \
        on c call client_info "{'clientId':'${IDS[c]}'}"
    all_well
    calm "${NODES[@]}"
}

# Longer than a link and a connection to RabbitMQ live.
node_frozen_long() {
    node_frozen 20
}

# --- Redis and RabbitMQ frozen ----------------------------------------------------------------

services_frozen() {
    local WHAT='Redis and RabbitMQ frozen' name i
    mark
    join a qa attic # a system of which no group is sent to
    join c qc attic
    freeze_redis
    freeze_rabbit
    TOKEN=$ATTIC steady local a qa
    TOKEN=$ATTIC steady linked b qc
    flow behind b 0.05 send_to_client "{'clientId':'${IDS[c]}','code':CODE,'msg':'flow','data':1}"
    flow group a 0.02 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    flow group2 b 0.02 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    flow bind a 0.1 bind_to_group "{'clientId':'${IDS[a]}','groupName':'gCODE'}"
    for i in 1 2; do
        flow "login$i" a 0.1 login "{'systemId':'shop','password':'secret'}"
    done
    flow register c 0.1 register "{'systemId':'sCODE','password':'secret'}"
    pings ping a
    pause 5
    timely '/ws of a system that the node has not seen' '{"code":-1007,*' first_frame b other
    for i in "${NODES[@]}"; do
        expect_match "$WHAT: $i is not ready" 'not ready: *' "$(readiness "$i")"
    done
    pause 5
    thaw_redis
    thaw_rabbit
    pause 4
    stop_flows
    for name in local linked behind group group2 bind login1 login2 register ping; do
        answered $name
    done
    for name in local linked ping; do
        expect "$WHAT: flow $name: success only" 0 "$(awk '$2 != 200' "$DIR/$name.flow" | wc -l)"
    done
    for name in local linked behind ping group bind login1 register; do
        percentiles $name
    done
    for name in local:qa linked:qc; do
        expect "$WHAT: ${name#*:} gets each of flow ${name%:*}" \
            "$(wc -l <"$DIR/${name%:*}.flow")" \
            "$(received flows "${name#*:}" | grep -c '"data":"steady"')"
    done
    for name in a b; do
        all_arrived $name group group2
    done
    all_arrived c group group2 behind
    same_order a b c
    kill "${PROCESS[qa]}" "${PROCESS[qc]}"
    say 'RabbitMQ is connected' # if it has been told to be gone
    for name in $(awk '$2 == 200 { print $1 }' "$DIR/bind.flow"); do
        call unbind_from_group "{'clientId':'${IDS[a]}','groupName':'g$name'}" >/dev/null
    done
    pause 1
    notices a 0 >/dev/null # of the binds
    all_well
    for i in "${NODES[@]}"; do
        expect "$WHAT: $i is ready again" ready "$(readiness "$i")"
    done
    calm "${NODES[@]}"
}

# --- two nodes cut off from each other --------------------------------------------------------

# restart_redirected NAME FROM:TO: as restart_node, but the node's links to the one port go to the other.
restart_redirected() {
    local CLUSTER_WSPUSH
    preload "PRELOAD_PORTS=$2"
    restart_node "$1"
}

# ways COMMAND: for both directions.
ways() {
    way ab "$1"
    way ba "$1"
}

# apart PREFIX: what is to be seen while a and b are cut off from each other.
apart() {
    local node
    timely 'from a to b' "$UNREACHABLE" \
        on a call send_to_client "{'clientId':'${IDS[b]}','code':0,'msg':'late','data':1}"
    timely 'from b to a' "$UNREACHABLE" \
        on b call send_to_client "{'clientId':'${IDS[a]}','code':0,'msg':'late','data':1}"
    timely 'bind from a to b' "$UNREACHABLE" bind a b 'never'
    timely 'close_client from a to b' "$UNREACHABLE" \
        on a call close_client "{'clientId':'${IDS[b]}'}"
    timely 'send_to_clients from a' \
        "200 {*\"failed\":\\[\"${IDS[b]}\"\\]}}" \
        on a call send_to_clients "{'clientIds':['${IDS[b]}','${IDS[c]}'],$MESSAGE}"
    expect "$WHAT: c gets its share" "$FRAME" "$(messages c 1)"
    timely 'a receipt at a' \
        '200 {"code":0,*"matched":2,"queued":2,"dropped":0,"incomplete":true}}' \
        on a call send_to_group "{'groupName':'g','receipt':true,'messageId':'m1',$MESSAGE}"
    for node in a b c; do
        expect "$WHAT: $node gets what that was of" "${FRAME%\}},\"messageId\":\"m1\"}" \
            "$(messages $node 1)"
    done
    for node in a b c; do
        timely "from c to $node" "${SUCCESS//[\[\]]/\\&}" \
            on c call send_to_client "{'clientId':'${IDS[$node]}',$MESSAGE}"
        expect "$WHAT: $node gets it" "$FRAME" "$(messages $node 1)"
    done
    lists incomplete a c -- a
    lists incomplete b c -- b
    lists members a b c -- c
    groups "${NODES[@]}"
}

# together: the way is open again.
together() {
    local node
    ways pass
    for node in a b; do
        expect "$WHAT: $node finds the other again" 1 "$(wait_for complete $node && echo 1)"
    done
    expect "$WHAT: nothing of what was refused has come" '0 0' \
        "$(grep -c late "$DIR/a.out") $(grep -c late "$DIR/b.out")"
    timely 'no group was bound that was refused' '*"groups":\["g"\],*' \
        on b call client_info "{'clientId':'${IDS[b]}'}"
    all_well
    calm "${NODES[@]}"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
complete() {
    [ "$(online "$1")" = "$(members a b c)" ]
}

link_cut() {
    local WHAT='a link cut'
    mark
    group_flows
    ways cut
    apart
    pause $((TTL / 1000 + 1))
    quiet
    stop_flows
    together
    for name in a b c; do
        all_arrived $name a b c
        answered $name
    done
    same_order a b c
}

link_frozen() {
    local WHAT='a link frozen'
    mark
    each_one "${NODES[@]}" # so that nothing has to wait for RabbitMQ, which would bring it around the link
    ways hold
    timely 'a request in flight' "$UNREACHABLE" \
        on b call send_to_client "{'clientId':'${IDS[a]}','code':0,'msg':'late','data':1}"
    apart
    pause "${1:-1}"
    together
}

link_frozen_long() {
    link_frozen 8
}

# --- a broker that refuses the password -------------------------------------------------------

password_refused() {
    local WHAT='a password refused' node
    mark
    rabbit_ctl -q change_password guest another >"$DIR/rabbit/change" 2>&1
    kill_rabbit
    start_rabbit
    say 'warn.*RabbitMQ.*correct .rabbitmq. user, password' "${NODES[@]}"
    configure_node d
    launch_node d
    await_node d 'joined the cluster' || broken 'the node d starts' "$DIR/d.log"
    MARK[d]=0
    say 'warn.*RabbitMQ.*correct .rabbitmq. user, password' d
    timely 'a client of d would be deaf to its system' '{"code":-1007,"msg":"RabbitMQ*' first_frame d shop
    each_one a b c
    lists members a b c -- a b c d
    for node in a b c d; do
        at_once "send_to_group at $node" "$UNREACHABLE" \
            on "$node" call send_to_group "{'groupName':'g',$MESSAGE}"
        at_once "a new group at $node" "$UNREACHABLE" bind "$node" a never
    done
    pause 2
    rabbit_ctl -q change_password guest guest >"$DIR/rabbit/change" 2>&1
    say 'RabbitMQ is connected' a b c d
    join d d
    expect "$WHAT: the node that has found it so binds" "$SUCCESS" "$(bind a d g u1)"
    told 1001 d u1 '' a b c d
    wait_for settled
    groups a b c d
    calm d
    stop_node d
    told 1002 d u1 '' a b c
    all_well
    calm "${NODES[@]}"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
settled() {
    local node
    for node in "${!NODE[@]}"; do
        [ "$(on "$node" call send_to_group "{'groupName':'nobody',$MESSAGE}")" = "$SUCCESS" ] ||
            return 1
    done
}

# --- a node of another crypto_key -------------------------------------------------------------

wrong_key() {
    local WHAT='another crypto_key' node
    mark
    configure_node e common.crypto_key=fedcba9876543210
    launch_node e
    wait_for node_says e 'crypto_key'
    MARK[e]=0
    say 'warn waiting to join.*another crypto_key: set the same .common. crypto_key on every node' e
    timely 'login' "$UNREACHABLE" on e call login "{'systemId':'shop',$ACCOUNT"
    timely 'register' "$UNREACHABLE" on e call register "{'systemId':'e',$ACCOUNT"
    timely '/ws' '503' on e curl -s -o /dev/null -w '%{http_code}' --max-time 60 \
        -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
        -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
        "http://127.0.0.1:${NODE_PORT[e]}/ws?systemId=shop"
    pause $((TTL / 1000))
    calm e
    expect "$WHAT: it does not join" 0 "$(node_log e | grep -c 'joined the cluster')"
    expect "$WHAT: nor is it registered" 0 "$(redis KEYS '*' | grep -c ":${NODE_RPC[e]}")"
    stop_node e
    for node in "${NODES[@]}"; do
        expect "$WHAT: $node is not disturbed" '' "$(warnings "$node")"
    done
    all_well
}

# --- foreign connections at the rpc port -----------------------------------------------------

# send_raw FILE: sends it to the rpc port of a; what comes back until it is closed is in $DIR/raw, and its
# length and how many milliseconds that took in $LENGTH and $TOOK.
send_raw() {
    local fd begin reader
    exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_RPC[a]}"
    timeout 60 cat <&"$fd" >"$DIR/raw" 2>/dev/null &
    reader=$!
    now && begin=$NOW
    cat "$1" >&"$fd" 2>/dev/null
    wait $reader
    exec {fd}>&-
    now
    TOOK=$((NOW - begin)) LENGTH=$(wc -c <"$DIR/raw")
}

# rejected NAME MILLISECONDS: sends its input, and expects that nothing is answered, and that the
# connection is closed in time.
rejected() {
    cat >"$DIR/raw.in"
    send_raw "$DIR/raw.in"
    late "$TOOK" "$2" || TOOK=in\ time
    expect "$WHAT: $1: closed, without an answer" '0 bytes, in time' "$LENGTH bytes, $TOOK"
}

# More kinds of bytes are in tests/unit/test_cluster_link.c and links.sh.
foreign_connections() {
    local WHAT='foreign connections' fds=() fd i begin links
    mark
    head -c 1500 /dev/urandom | rejected 'random bytes' $PATIENCE
    lines 'GET / HTTP/1.1' 'Host: x' | rejected 'HTTP' 1000
    printf 'GET /peer HTTP/1.1\r\nHost: x' | rejected 'half a head' $PATIENCE
    rejected 'silence' $PATIENCE </dev/null
    printf '\x16\x03\x01\x02' | rejected 'a piece of a TLS record' $PATIENCE
    expect "$WHAT: TLS without the key: no certificate, no handshake" '0 1' "$(
        openssl s_client -connect "127.0.0.1:${NODE_RPC[a]}" -tls1_3 </dev/null >"$DIR/raw" 2>&1
        echo "$(grep -c 'BEGIN CERTIFICATE' "$DIR/raw") $(grep -c 'alert handshake failure' "$DIR/raw")")"

    way ba cut
    way ba record "$DIR/handshake"
    way ba pass
    wait_for complete a
    wait_for has_bytes "$DIR/handshake" 200
    links=$(figure a cluster_links_total)
    send_raw "$DIR/handshake"
    late "$TOOK" $PATIENCE || TOOK='in time'
    expect "$WHAT: a handshake played back: closed, and no link" "in time $links" \
        "$TOOK $(figure a cluster_links_total)"

    for ((i = 0; i < 100; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_RPC[a]}"
        fds+=("$fd")
    done
    now && begin=$NOW
    each_one "${NODES[@]}"
    for fd in "${fds[@]}"; do
        timeout 60 cat <&"$fd" 2>/dev/null
    done | wc -c >"$DIR/raw"
    now
    late $((NOW - begin)) $PATIENCE || NOW='in time'
    expect "$WHAT: 100 idle connections: closed, without an answer" '0 in time' \
        "$(cat "$DIR/raw") $NOW"
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
    for node in "${NODES[@]}"; do
        expect "$WHAT: $node loses no link by them" '' \
            "$(warnings "$node" | grep -v -e 'warn refused a link' -e 'has broken.*Connection reset')" # cut above
    done
    all_well
    calm "${NODES[@]}"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_bytes() {
    [ "$(wc -c <"$1")" -ge "$2" ]
}

launch_rabbit
start_redis
for node in "${NODES[@]}"; do
    configure_node "$node"
done
open_ways "ab:${NODE_RPC[b]}" "ba:${NODE_RPC[a]}" # b takes the second: it joins later
await_rabbit
restart_redirected a "${NODE_RPC[b]}:${WAY[ab]}"
restart_redirected b "${NODE_RPC[a]}:${WAY[ba]}"
restart_node c
on a sign_up depot
on a sign_up attic
ATTIC=$TOKEN
on a sign_up shop
for node in "${NODES[@]}"; do
    join "$node" "$node"
    bind "$node" "$node" g u1 >/dev/null
done
notices a 3 >/dev/null
notices b 2 >/dev/null
notices c 1 >/dev/null
if [ $# = 0 ]; then
    set -- redis_killed rabbit_killed node_killed node_restarted node_frozen services_frozen link_cut \
        link_frozen link_frozen_long password_refused wrong_key foreign_connections
fi
run_faults "$@"
finish

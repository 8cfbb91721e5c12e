#!/usr/bin/env bash
# links.sh - links between nodes: over IPv6, by name, through a forwarder; foreign connections at the port; a
# crypto_key that is changed, and nodes of the next protocol version that are put in, one after the
# other, under load.
# build: cluster-asan/wspush cluster-v3/wspush cluster-v4/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need openssl websocat
NEXT=build/cluster-v3/wspush   # of the next protocol version
LATER=build/cluster-v4/wspush  # and of the one behind it
OLD_KEY=0123456789abcdef NEW_KEY='another key here'

# linked NODE NODE: waits until the first has a link to the other, whose name is its second argument or
# that of the node.
linked() {
    wait_for node_says "$1" "linked to a node node=\"${2}\""
}

# pair NODE NODE: connects a client to each of two nodes; their names are in $ONE and $TWO.
PAIRS=0
pair() {
    ONE=one$((++PAIRS)) TWO=two$PAIRS
    join "$1" "$ONE"
    join "$2" "$TWO"
}

# reach NAME NODE NODE: expects that messages go both ways between clients of two nodes.
reach() {
    local what=$1 from to
    pair "$2" "$3"
    for from in "$2" "$3"; do
        for to in "$ONE" "$TWO"; do
            expect "$what: from $from to a client of $([ "$to" = "$ONE" ] && echo "$2" || echo "$3")" "$SUCCESS" \
                "$(on "$from" call send_to_client "{'clientId':'${IDS[$to]}',$MESSAGE}")"
        done
    done
    for to in "$ONE" "$TWO"; do
        expect "$what: what the client gets" "$FRAME"$'\n'"$FRAME" "$(messages "$to" 2)"
        kill "${PROCESS[$to]}"
    done
}

# --- where nodes are --------------------------------------------------------------------------

ipv6() {
    configure_node b cluster.advertise=::1
    launch_node b
    if ! await_node b 'joined the cluster'; then
        echo '     this machine has no ::1'
        unset 'NODE[b]'
        return
    fi
    await_node b 'RabbitMQ is connected'
    expect 'IPv6: the nodes link' 0 "$(linked b "127.0.0.1:${NODE_RPC[a]}" && linked a "\[::1]:${NODE_RPC[b]}"; echo $?)"
    reach 'IPv6' a b
    stop_node b
}

# The later node looks the name of the earlier one up.
host_name() {
    local TIMES
    stop_node a
    start_node a cluster.advertise=LocalHost cluster.rpc_listen=127.0.0.1
    start_node b
    expect 'a name: the nodes link' 0 "$(linked b "localhost:${NODE_RPC[a]}"; echo $?)"
    reach 'a name' a b
    stop_node b
    stop_node a
    start_node a cluster.advertise=localhost # and listens at all addresses
    start_node b
    expect 'a name, at all addresses: the nodes link' 0 "$(linked b "localhost:${NODE_RPC[a]}"; echo $?)"
    reach 'a name, at all addresses' a b
    TIMES=$(node_log b | grep -c ' warn ')
    expect 'a name: nothing is to be warned of' 0 "$TIMES"
    stop_node b
    stop_node a
}

# A container: what is advertised is a port of its host, which is forwarded to where it listens.
forwarder() {
    local inner outer forwarder
    free_port && inner=$FREE
    configure_node a
    outer=${NODE_RPC[a]}
    websocat -b "tcp-l:127.0.0.1:$outer" "tcp:127.0.0.1:$inner" 2>/dev/null &
    forwarder=$!
    wait_for listens "$outer"
    start_node a "cluster.rpc_listen=127.0.0.1:$inner"
    start_node b
    expect 'through a forwarder: the nodes link' 0 "$(linked b "127.0.0.1:$outer"; echo $?)"
    expect 'through a forwarder: it is b that connects' 1 \
        "$(node_log b | grep -c "linked to a node")"
    reach 'through a forwarder' a b
    kill_process "$forwarder"
    # now a connects to b, although a was there first
    wait_for node_says b 'the link to a node has broken'
    expect 'without it the earlier node connects' 0 \
        "$(wait_for has_links 2; echo $?)"
    reach 'without it' a b
    stop_node b
    stop_node a
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_links() {
    [ "$(node_log b | grep -c 'linked to a node')" -ge "$1" ]
}

# --- who comes to the port ---------------------------------------------------------------------

# refused NAME PATTERN: expects a line about a refused link. One in ten seconds is written.
refused() {
    expect "$1" 0 "$(wait_for node_says a "warn refused a link address=\"127.0.0.1\" reason=\"$2"; echo $?)"
}

foreign_connections() {
    local PORT=${NODE_RPC[a]} answer
    answer=$(lines 'GET /peer HTTP/1.1' "${UPGRADE[@]}" | talk)
    refused 'a node without a version is told of' \
        'it speaks plain HTTP: a node without a protocol version (replace it)'
    expect 'a node without a version: it gets no answer' '' "$answer"
    answer=$(curl -s --max-time 10 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")
    expect 'plain HTTP: no answer' 000 "$answer"
    answer=$(curl -sk --max-time 10 -o /dev/null -w '%{http_code}' "https://127.0.0.1:$PORT/")
    expect 'TLS without the key: no answer' 000 "$answer"
    answer=$(openssl s_client -connect "127.0.0.1:$PORT" -tls1_2 </dev/null 2>&1 | grep -c 'BEGIN CERTIFICATE')
    expect 'TLS 1.2: no certificate' 0 "$answer"
    stop_node a
    restart_node a # its next line is written at once
    answer=$(openssl s_client -connect "127.0.0.1:$PORT" -tls1_3 -psk_identity 0123456789abcdef \
        -psk "$(printf '%064d' 0)" </dev/null 2>&1 | grep -c 'alert handshake failure')
    expect 'another key: it is refused' 1 "$answer"
    refused 'another key is told of' 'it has another key: set the same .common. crypto_key on every node'
    for _ in {1..80}; do # more than may wait
        exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
    done
    start_node b
    expect 'beside 80 silent connections: a node links' 0 "$(linked b "127.0.0.1:$PORT"; echo $?)"
    stop_node b
}

# --- one node after the other -------------------------------------------------------------------

# load NODE NODE: sends from both nodes to a client of each and to a group of both, until the file
# $DIR/loaded is there; what is no success is in $DIR/failures, and how many were sent in $DIR/sends.
load() {
    local sends=0 from answer
    : >"$DIR/failures"
    while [ ! -e "$DIR/loaded" ]; do
        for from in "$1" "$2"; do
            for answer in "$(on "$from" call send_to_client "{'clientId':'${IDS[$ONE]}',$MESSAGE}")" \
                "$(on "$from" call send_to_client "{'clientId':'${IDS[$TWO]}',$MESSAGE}")" \
                "$(on "$from" call send_to_group "{'groupName':'load',$MESSAGE}")"; do
                [ "$answer" = "$SUCCESS" ] || echo "$from: $answer" >>"$DIR/failures"
            done
            sends=$((sends + 2)) # to each client
        done
    done
    echo $sends >"$DIR/sends"
}

# replace WHAT NODE [SECTION.KEY=VALUE...]: stops a node and starts it as it is to be now, while the
# two others are under load, which must see nothing of it.
replace() {
    local what=$1 node=$2 others=() other loader sends
    shift 2
    for other in a b c; do
        [ $other = "$node" ] || others+=("$other")
    done
    for other in "${others[@]}"; do
        wait_for is_ready "$other"
    done
    pair "${others[@]}"
    for other in "$ONE" "$TWO"; do
        expect "$what: bind" "$SUCCESS" \
            "$(on "${others[0]}" call bind_to_group "{'clientId':'${IDS[$other]}','groupName':'load'}")"
    done
    rm -f "$DIR/loaded"
    load "${others[@]}" &
    loader=$!
    stop_node "$node"
    configure_node "$node" "$@"
    restart_node "$node"
    for other in "${others[@]}"; do
        linked "$node" "127.0.0.1:${NODE_RPC[$other]}" || bad "$what: $node and $other link" "no link"
    done
    : >"$DIR/loaded"
    wait $loader
    sends=$(cat "$DIR/sends")
    expect "$what: while $node is replaced all calls succeed" '' "$(head -n 3 "$DIR/failures")"
    for other in "$ONE" "$TWO"; do
        expect "$what: while $node is replaced each message comes once" "$sends" \
            "$(messages "$other" "$sends" | grep -cF "$FRAME")"
        kill "${PROCESS[$other]}"
    done
}

# incarnation NODE: prints it.
incarnation() {
    redis SMEMBERS wspush:nodes | sed -n "s|^127.0.0.1:${NODE_RPC[$1]}/||p"
}

# With a silent Redis both wait for its clock, and get it in the same moment. A node that was not listed when the
# other one joined must be found at once, not with the next heartbeat (a third of node_ttl).
together() {
    local begin apart
    for _ in 1 2 3 4 5; do
        configure_node a cluster.node_ttl=30
        configure_node b cluster.node_ttl=30
        freeze_redis
        launch_node a
        launch_node b
        wait_for node_says a 'is listening'
        wait_for node_says b 'is listening'
        sleep 0.2
        thaw_redis
        await_node a 'joined the cluster' 'RabbitMQ is connected' &&
            await_node b 'joined the cluster' 'RabbitMQ is connected'
        begin=${EPOCHREALTIME/[.,]/}
        reach 'nodes that join together' a b
        expect_time 'nodes that join together: they are linked at once' 0 3000 \
            $(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
        apart=$(($(incarnation a) - $(incarnation b)))
        stop_node a
        stop_node b
        [ "${apart#-}" -gt 5 ] || break
    done
    expect 'nodes that join together: within 5 ms' 0 "$((${apart#-} > 5))"
}

three_nodes() {
    local node
    for node in a b c; do
        start_node $node
    done
}

# What nodes have signed under the old key is good until the last step.
rotation() {
    local node old=$TOKEN told
    told=$(cat "$DIR"/?.log | grep -c crypto_key)
    for node in a b c; do
        replace 'the new key is accepted' $node "common.crypto_key_accepted=$NEW_KEY"
    done
    for node in a b c; do
        replace 'the new key is used' $node "common.crypto_key=$NEW_KEY" \
            "common.crypto_key_accepted=$OLD_KEY"
    done
    reach 'the new key is used' a c
    expect_match 'a token of the old key is good' '200 {"code":0,*' "$(on a call "${LIST[@]}")"
    login shop
    for node in a b c; do
        replace 'the old key goes' $node "common.crypto_key=$NEW_KEY"
    done
    reach 'the old key goes' b c
    expect_match 'a token of the new key is good' '200 {"code":0,*' "$(on a call "${LIST[@]}")"
    expect_match 'a token of the old key is not' '401 {"code":-1002,*' "$(TOKEN=$old on a call "${LIST[@]}")"
    expect 'nobody has complained of a key' "$told" "$(cat "$DIR"/?.log | grep -c crypto_key)"
    for node in a b c; do
        stop_node $node
    done
}

versions() {
    local node first=$CLUSTER_WSPUSH
    three_nodes
    login shop
    CLUSTER_WSPUSH=$NEXT
    for node in a b c; do
        replace 'the next version' $node
    done
    reach 'the next version' a b
    expect 'the last one talks the next version to the others' 2 \
        "$(node_log c | grep -c 'linked to a node.*version=3')"
    CLUSTER_WSPUSH=$LATER
    configure_node d
    launch_node d
    expect 'the version behind it joins' 0 "$(await_node d 'joined the cluster' && linked d "127.0.0.1:${NODE_RPC[a]}"; echo $?)"
    expect 'in the version that both know' 3 "$(wait_for has_three; node_log d | grep -c 'linked to a node.*version=3')"
    for node in a b c d; do
        stop_node $node
    done
    CLUSTER_WSPUSH=$first
    start_node a
    CLUSTER_WSPUSH=$LATER
    launch_node d
    expect 'two versions apart a node waits, and says what helps' 0 \
        "$(wait_for node_says d 'warn waiting to join.*version.*one version after the other'; echo $?)"
    stop_node d
    stop_node a
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_three() {
    [ "$(node_log d | grep -c 'linked to a node')" -ge 3 ]
}

start_redis
start_rabbit
start_node a
at a
sign_up shop
ipv6
host_name
forwarder
start_node a
foreign_connections
stop_node a
together
three_nodes
at a
rotation
versions
finish

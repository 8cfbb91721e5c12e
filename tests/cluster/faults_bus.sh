#!/usr/bin/env bash
# faults_bus.sh [FAULT...] - what goes wrong with RabbitMQ and on the way to it, and with clocks: no success is
# lost, no order is broken, nothing that was refused comes later, and foreign messages are dropped.
# build: cluster-asan/wspush
# shellcheck source=tests/support/faults_lib.sh
. "$(dirname "$0")/../support/faults_lib.sh"

need python3
NODES=(a b)

# --- what is asked ----------------------------------------------------------------------------

# send_group NODE CODE: prints what is answered.
send_group() {
    on "$1" call send_to_group "{'groupName':'g','code':$2,'msg':'flow','data':1}"
}

# send_one NODE NAME CODE
send_one() {
    on "$1" call send_to_client "{'clientId':'${IDS[$2]}','code':$3,'msg':'flow','data':1}"
}

# codes_of NAME FIRST LAST: prints the codes of this range that a client has received, in one line.
codes_of() {
    received flows "$1" | codes | awk -v first="$2" -v last="$3" \
        '$1 >= first && $1 <= last' | paste -sd ' '
}

# await_codes NAME FIRST LAST COUNT: waits for so many of them, and prints them.
await_codes() {
    wait_for eval "[ \$(codes_of $1 $2 $3 | wc -w) -ge $4 ]"
    codes_of "$1" "$2" "$3"
}

# flows COUNT PAUSE: as many flows to the group at each node; their names are in $NAMES.
flows() {
    local i node
    NAMES=()
    for node in "${NODES[@]}"; do
        for ((i = 0; i < $1; i++)); do
            NAMES+=("$node$i")
            flow "$node$i" "$node" "$2" send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
        done
    done
}

# kept_word: what the flows were answered is true, and the order is one.
kept_word() {
    local name
    for name in "${NAMES[@]}"; do
        answered "$name"
    done
    for name in "${NODES[@]}"; do
        all_arrived "$name" "${NAMES[@]}"
    done
    same_order "${NODES[@]}"
}

# sum NAME: prints a metric of all nodes together.
sum() {
    local node sum=0
    for node in "${NODES[@]}"; do
        sum=$((sum + $(figure "$node" "$1")))
    done
    echo $sum
}

# rabbit_do ERLANG: has RabbitMQ do this, with R the name of the order queue of the system shop.
rabbit_do() {
    rabbit_ctl -q eval "R = rabbit_misc:r(<<\"/\">>, queue, <<\"$ORDER\">>),
        Delete = fun() -> {ok, Q} = rabbit_amqqueue:lookup(R),
            rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) end, $1." >"$DIR/rabbit/eval" 2>&1 ||
        bad "$WHAT: RabbitMQ does what it is told" "$(cat "$DIR/rabbit/eval")"
}

# crc16 TEXT: sets $CRC.
crc16() {
    local i byte
    CRC=0
    for ((i = 0; i < ${#1}; i++)); do
        printf -v byte %d "'${1:i:1}"
        CRC=$((CRC ^ byte << 8))
        for _ in {1..8}; do
            CRC=$((CRC & 0x8000 ? (CRC << 1 ^ 0x1021) & 0xffff : CRC << 1))
        done
    done
}

# --- order queues -----------------------------------------------------------------------------

queue_gone_idle() {
    local WHAT='an order queue deleted while idle' i answer
    mark
    rabbit_do 'Delete()'
    wait_for eval "says a 'warn.*no order queue' || says b 'warn.*no order queue'" # whose probe comes first
    for i in 1 2 3; do
        expect "$WHAT: a send is a success" "$SUCCESS" "$(send_group a $((100 + i)))"
    done
    for i in a b; do
        expect "$WHAT: $i gets them" '101 102 103' "$(await_codes $i 101 103 3)"
    done
    expect "$WHAT: no send met its absence" 0 "$(sum rabbitmq_returned_total)"
    all_ready a b
}

queue_gone_busy() {
    local WHAT='an order queue deleted under sends' node
    mark
    flows 3 0.005
    for _ in 1 2 3 4 5; do # a probe may meet its absence before them
        pause 0.5
        rabbit_do 'Delete()'
        pause 1
        [ "$(sum rabbitmq_returned_total)" = 0 ] || break
    done
    stop_flows
    kept_word
    expect "$WHAT: sends met its absence" yes "$([ "$(sum rabbitmq_returned_total)" -gt 0 ] && echo yes)"
    expect "$WHAT: they were told so" yes "$(awk '$2 != 200' "$DIR"/[ab]?.flow | grep -q . && echo yes)"
    for node in a b; do
        expect "$WHAT: sends at $node succeed afterwards" 0 \
            "$(wait_for eval "[ \"\$(send_group $node 110)\" = '$SUCCESS' ]"; echo $?)"
    done
    expect "$WHAT: it is created again, and the log says so" yes "$(cat "$DIR"/[ab].log |
        grep -q 'warn.*no order queue for partition.*created again' && echo yes)"
    all_ready a b
    calm a b
}

# A queue of this name that RabbitMQ has not made for wspush.
queue_of_another() {
    local WHAT='an order queue that cannot be made' node
    mark
    rabbit_do 'Delete(), rabbit_amqqueue:declare(R, true, false, [], none, <<"test">>)'
    for node in a b; do
        wait_for eval "[ \"\$(send_group $node 120 | cut -c 1-3)\" = 503 ]"
        timely "a send at $node" "$UNREACHABLE" send_group "$node" 121
        expect_match "$WHAT: $node says why" 'not ready: RabbitMQ*PRECONDITION_FAILED*order*' "$(readiness "$node")"
        timely "a client of $node" "${SUCCESS//[\[\]]/\\&}" send_one "$node" "$node" 122
    done
    rabbit_do 'Delete()'
    all_ready a b
    for node in a b; do
        expect "$WHAT: sends at $node succeed afterwards" "$SUCCESS" "$(send_group "$node" 123)"
    done
    for node in a b; do
        expect "$WHAT: $node gets what was a success" '122 123 123' "$(await_codes "$node" 122 123 3)"
        expect "$WHAT: $node does not get what was refused" '' "$(codes_of "$node" 121 121)"
    done
    calm a b
}

# --- RabbitMQ killed --------------------------------------------------------------------------

# What was answered with success has left RabbitMQ for b, though b does not read.
killed_beside_frozen() {
    local WHAT='RabbitMQ killed under load, a node frozen' NODES=(a) node begin
    flows 2 0.02 # b takes 128 batches, though it does not read
    pause 0.5
    freeze_node b
    now && begin=$NOW
    pause 0.7
    kill_rabbit
    launch_rabbit
    await_rabbit
    until_ms $((begin + 12000)) # longer than the pause between two heartbeats of AMQP
    thaw_node b
    stop_flows
    all_ready a b
    NODES=(a b)
    kept_word
    for node in a b; do
        expect "$WHAT: sends at $node succeed afterwards" "$SUCCESS" "$(send_group "$node" 130)"
    done
    for node in a b; do
        expect "$WHAT: and come to $node" '130 130' "$(await_codes "$node" 130 130 2)"
    done
}

# --- the order of one client -------------------------------------------------------------------

overtaking() {
    local WHAT lag i first=200 begin
    for lag in 400 1000; do
        WHAT="the way to RabbitMQ slow by $lag ms"
        way b lag $lag
        for i in 1 2 3; do
            expect "$WHAT: a send to the group" "$SUCCESS" "$(send_group a $first)"
            expect "$WHAT: one behind it to the member at b" "$SUCCESS" "$(send_one a b $((first + 1)))"
            expect "$WHAT: they come in order" "$first $((first + 1))" "$(await_codes b $first $((first + 1)) 2)"
            first=$((first + 2))
        done
        way b pass
    done
    WHAT='the way to RabbitMQ blocked'
    mark
    way b hold
    expect "$WHAT: a send to the group" "$SUCCESS" "$(send_group a 250)"
    begin=$EPOCHREALTIME
    timely 'one behind it to the member at b' "$UNREACHABLE" send_one a b 251
    until_ms $((${begin/[.,]/} / 1000 + 3000)) # later than the caller waited
    way b pass
    expect "$WHAT: only the first one comes" 250 "$(await_codes b 250 251 1)"
    say 'warn a request from another node came too late and was not carried out' b
    expect "$WHAT: the second one never" 250 "$(codes_of b 250 251)"
    expect "$WHAT: b counts it" 1 "$(figure b cluster_late_requests_total)"
    expect "$WHAT: then they do again" "$SUCCESS" "$(wait_for settled; send_one a b 252)"
    expect "$WHAT: in order" '250 252' "$(await_codes b 250 252 2)"
}

# settled: whether the client of b can be reached from a.
# shellcheck disable=SC2317,SC2329 # called by wait_for
settled() {
    [ "$(send_one a b 9)" = "$SUCCESS" ]
}

# A node that holds a request, and is frozen until its caller has gone.
held_late() {
    local WHAT='frozen with a request behind a slow RabbitMQ' asker
    way b lag 300
    expect "$WHAT: a send to the group" "$SUCCESS" "$(send_group a 260)"
    aside a send_to_client "{'clientId':'${IDS[b]}','code':261,'msg':'flow','data':1}" >"$DIR/held" &
    asker=$!
    pause 0.1
    freeze_node b
    wait $asker
    expect_match "$WHAT: the caller is told" "$UNREACHABLE in time" "$(cat "$DIR/held")"
    pause 0.5
    thaw_node b
    way b pass
    expect "$WHAT: the send comes" 260 "$(await_codes b 260 261 1)"
    wait_for settled
    expect "$WHAT: the request never does" 260 "$(codes_of b 260 261)"
}

# --- a client that would be deaf ---------------------------------------------------------------

# b has no client of this system, so its slot has to be bound.
admitted_deaf() {
    local WHAT='RabbitMQ frozen' answer
    on a join a heard club
    freeze_rabbit
    TOKEN=$CLUB on b client deaf club
    expect_match "$WHAT: the first client of a system" '{"code":-1007,"msg":"RabbitMQ*' "$(head -n 1 "$DIR/deaf.out")"
    expect_match "$WHAT: how it is closed" '1013 *' "$(closed deaf)"
    thaw_rabbit
    all_ready a b
    join b hears club
    answer=$(TOKEN=$CLUB on a call send_to_system "{$MESSAGE}")
    expect "$WHAT: afterwards a client is admitted, and hears" "$SUCCESS $FRAME" "$answer $(messages hears 1)"
    kill "${PROCESS[hears]}" "${PROCESS[heard]}"
}

# --- clocks -----------------------------------------------------------------------------------

# The clock of d stands still for three seconds, as that of a paused virtual machine does.
clock_stands() {
    local WHAT='a clock that stood still' CLUSTER_WSPUSH i
    mark
    head -c 8 /dev/zero >"$DIR/clock"
    preload "PRELOAD_CLOCK=$DIR/clock"
    start_node d
    join d d
    bind a d g >/dev/null
    expect "$WHAT: before" "$SUCCESS" "$(send_one d a 300)"
    printf '\xb8\x0b\0\0\0\0\0\0' | dd of="$DIR/clock" conv=notrunc status=none
    timely 'a request right behind it' "$UNREACHABLE" send_one d a 301
    say 'warn a request from another node came too late and was not carried out' a
    expect "$WHAT: a counts it" yes "$([ "$(figure a cluster_late_requests_total)" -ge 1 ] && echo yes)"
    for _ in {1..12}; do
        believed && break
        pause 0.5
    done
    expect "$WHAT: it is believed again within seconds" 0 "$(believed; echo $?)"
    for i in 1 2 3 4 5; do
        expect "$WHAT: and then" "$SUCCESS" "$(send_one d a $((310 + i)))"
    done
    expect "$WHAT: a has not got what was refused" '300 311 312 313 314 315' \
        "$(await_codes a 300 301 1) $(await_codes a 311 315 5)"
    stop_node d
}

believed() {
    [ "$(send_one d a 302)" = "$SUCCESS" ]
}

# --- foreign messages --------------------------------------------------------------------------------

# Two more clusters on the same exchange: another prefix, and another db with another key.
other_clusters() {
    local WHAT='three clusters on one exchange' node tokens=() from to
    mark
    start_node e redis.prefix=other:
    start_node f redis.db=1 common.crypto_key=fedcba9876543210
    tokens=("$TOKEN")
    for node in e f; do
        on "$node" sign_up shop
        tokens+=("$TOKEN")
        join "$node" "$node"
        bind "$node" "$node" g >/dev/null
    done
    from=0
    for node in a e f; do
        TOKEN=${tokens[from]}
        from=$((from + 1))
        expect "$WHAT: a send at $node" "$SUCCESS" "$(send_group "$node" $((400 + from)))"
    done
    TOKEN=${tokens[0]}
    expect "$WHAT: each cluster gets its own" '401 402 403' \
        "$(await_codes a 400 409 1) $(await_codes e 400 409 1) $(await_codes f 400 409 1)"
    pause 0.5
    expect "$WHAT: and no other" '401 402 403' "$(codes_of a 400 409) $(codes_of e 400 409) $(codes_of f 400 409)"
    for node in a e f; do
        wait_for eval "[ \$(figure $node rabbitmq_strange_total) -ge 2 ]"
        expect "$WHAT: $node counts the others" yes "$([ "$(figure $node rabbitmq_strange_total)" -ge 2 ] && echo yes)"
        say 'warn.*not of this cluster.*exchange or vhost of its own' $node
    done
    stop_node e
    stop_node f
}

# Anybody who may publish: a message with a node's name and a huge number, and no proof.
forged_number() {
    local WHAT='a forged publication' node life before
    before=$(sum rabbitmq_strange_total)
    crc16 shop:g
    for node in a b; do
        life=$(redis SMEMBERS wspush:nodes | grep ":${NODE_RPC[$node]}/")
        # without publish(), as RabbitMQ's log exchange does it since 4.0
        rabbit_do "X = rabbit_misc:r(<<\"/\">>, exchange, <<\"${ORDER%.order.*}\">>), K = <<\"$((CRC % 16384))\">>,
            B = <<\"{\\\"letter\\\":\\\"publish\\\",\\\"origin\\\":\\\"$life\\\",\
\\\"number\\\":9000000000000000000,\\\"command\\\":\\\"send_to_group\\\",\\\"system\\\":\\\"shop\\\",\
\\\"group\\\":\\\"g\\\",\\\"code\\\":499,\\\"msg\\\":\\\"flow\\\",\\\"data\\\":1}\">>,
            case catch rabbit_basic:publish(X, K, [], B) of
                {'EXIT', {undef, _}} ->
                    Properties = erlang:make_tuple(15, undefined, [{1, 'P_basic'}]),
                    {ok, M} = mc_amqpl:message(X, K, rabbit_basic:build_content(Properties, B)),
                    rabbit_queue_type:publish_at_most_once(X, M);
                Other -> Other
            end"
    done
    for node in a b; do
        expect "$WHAT in the name of $node: its sends go on" "$SUCCESS" "$(send_group "$node" 470)"
    done
    for node in a b; do
        expect "$WHAT: $node gets what was sent, and nothing else" '470 470' "$(await_codes "$node" 470 499 2)"
    done
    expect "$WHAT: it is counted by both nodes, each time" $((before + 4)) "$(sum rabbitmq_strange_total)"
}

# A node with another exchange would hear nobody.
other_exchange() {
    local WHAT='another exchange'
    configure_node c rabbitmq.exchange=elsewhere
    launch_node c
    wait_for node_says c 'warn waiting to join.*another .rabbitmq. exchange, vhost or queue_type: set the same on every node'
    expect "$WHAT: it says so" 1 "$(node_log c | grep -c 'warn waiting to join.*another .rabbitmq. exchange')"
    pause 1
    expect "$WHAT: it does not join" 0 "$(node_log c | grep -c 'joined the cluster')"
    expect_match "$WHAT: nor is it ready" 'not ready: *exchange*' "$(readiness c)"
    stop_node c
}

launch_rabbit
start_redis
open_ways "a:$RABBIT_PORT" "b:$RABBIT_PORT" # each node has one of its own
await_rabbit
for node in "${NODES[@]}"; do
    start_node "$node" rabbitmq.port="${WAY[$node]}" cluster.node_ttl=15
done
at a
sign_up club
CLUB=$TOKEN
sign_up shop
crc16 shop
ORDER=$(rabbit_ctl -q list_queues name | grep "\.order\.$((CRC % 16384 % 16))\$")
for node in "${NODES[@]}"; do
    join "$node" "$node"
    bind "$node" "$node" g >/dev/null
done
if [ $# = 0 ]; then
    set -- queue_gone_idle queue_gone_busy queue_of_another overtaking held_late admitted_deaf clock_stands \
        other_clusters forged_number other_exchange killed_beside_frozen
fi
run_faults "$@"
finish

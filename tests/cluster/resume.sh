#!/usr/bin/env bash
# resume.sh - clients that come back to another node than they left: each message once, their groups told of the move,
# and every way in which a move can fail ends in what the client is told. Then all nodes are restarted, one after the
# other, while messages are sent (CROWD and RATE change how many). The order of it all is in
# tests/unit/test_cluster_adopt.c.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"
# shellcheck source=tests/support/webhook_lib.sh
. "$(dirname "$0")/../support/webhook_lib.sh"
need websocat

# visit NODE NAME [QUERY]: connects a client that can come back; its key is in $KEY, what its first frame says behind
# that in $SAID.
visit() {
    join "$1" "$2" "shop&resume=${3-}"
    SAID=$(head -n 1 "$DIR/$2.out")
    KEY=$(jq -r '.data.resume // ""' <<<"$SAID")
    SAID=$(jq -c '.data | del(.clientId, .resume, .linger)' <<<"$SAID")
}

# lose NODE NAME: ends a client's connection without a close frame, and waits until it is away.
lose() {
    local away
    away=$(figure "$1" resume_away)
    kill -KILL "${PROCESS[$2]}"
    wait "${PROCESS[$2]}"
    is_away() { [ "$(figure "$1" resume_away)" -gt "$away" ]; }
    wait_for is_away "$1"
} 2>/dev/null # where bash would tell that it was killed

# say NODE DATA: sends a message to the group.
say() {
    on "$1" call send_to_group "{'groupName':'g','code':7,'msg':'hello','data':$2}" >/dev/null
}

# heard NAME COUNT: what the next messages of a client say.
heard() {
    messages "$1" "$2" | jq -c .data | xargs
}

moves() {
    local key old new
    start_receiver
    hook
    join b witness
    bind b witness g >/dev/null
    notices witness 1 >/dev/null
    visit a phone
    key=$KEY old=$ID
    bind a phone g ann 'an extend' >/dev/null
    notices phone 1 >/dev/null
    notices witness 1 >/dev/null
    say a 1
    expect 'a message to a client that can come back' 1 "$(heard phone 1)"
    lose a phone
    say b 2
    say a 3
    visit b other "${key::-3}AAA&received=2"
    expect 'a key that is not the client'"'"'s is worth nothing' '{"resumed":false}' "$SAID"
    visit b phone "$key&received=2"
    expect 'on another node it has missed nothing, and has another id' \
        "{\"resumed\":true,\"recovered\":true,\"replay\":2,\"previous\":\"$old\"}" "$SAID"
    expect 'what was sent meanwhile comes first' '2 3' "$(heard phone 2)"
    expect 'its group is told of both ids' "$(notice 1001 "$ID" ann 'an extend')
$(notice 1002 "$old" ann 'an extend')" "$(notices witness 2 | sort)"
    say a 4
    expect 'and then it gets what others get' 4 "$(heard phone 1)"
    expect 'it is in the list once' "$(members phone witness)" "$(online a)"
    expect 'its old id is gone' '200 {"code":-1003,"msg":"client not online","data":[]}' \
        "$(on a call send_to_client "{'clientId':'$old',$MESSAGE}")"
    visit a other "$key&received=2"
    expect 'its old key is worth nothing elsewhere' '{"resumed":false}' "$SAID"
    new=${IDS[phone]}
    visit b phone "$key&received=2"
    expect_match 'on its node it is good until it has sent something, for it may not have got the new one' \
        "$new {\"resumed\":true,\"recovered\":true,\"replay\":[4-6],\"previous\":\"$old\"}" "$ID $SAID"
    echo ping >"$DIR/phone.in"
    wait_for grep -qx pong "$DIR/phone.out"
    has_told() { [ "$(told /events | grep -c "$old\|$new")" -ge 3 ]; } # two nodes: in no order
    wait_for has_told
    expect 'its business system is told that it connects, and what it was' \
        "$(sort <<<"connect null $old
join null $old
connect $old $new")" "$(told /events | jq -r 'select(.clientId == ("'"$old"'", "'"$new"'")) | "\(.type) \(.previous) \(.clientId)"' | sort)"
    expect 'and has nothing to complain of' '' "$(told /wrong)"
    visit b other "$key&received=2"
    expect 'and no longer' '{"resumed":false}' "$SAID"
    key=$KEY
    visit a other "$key&received=0"
    expect 'one without groups moves as well' '{"resumed":true,"recovered":true,"replay":0' "${SAID%%,\"previous*}"
}

# While the receiver of webhooks is not there, clients move to a node that is killed before it can tell of them. The node
# that they left tells of their ends.
unheard() {
    local key old
    start_receiver
    hook
    visit a phone
    key=$KEY old=$ID
    visit a other
    model 'two that can come back'
    told '/status?code=500' >/dev/null
    lose a phone
    visit b phone "$key&received=0"
    expect_match 'one comes back to another node' "{\"resumed\":true*\"previous\":\"$old\"}" "$SAID"
    kill_node b
    told '/status?code=200' >/dev/null
    model 'that is killed unheard'
    expect 'its end is told by the node that it left' "disconnect 1006 moved to a node that is gone" \
        "$(told /events | jq -r 'select(.type == "disconnect" and .clientId == "'"$old"'") | "\(.type) \(.code) \(.reason)"')"
    restart_node b
    wait_for is_ready b
}

gaps() {
    local i key long
    visit a phone
    key=$KEY
    bind a phone g >/dev/null
    notices phone 1 >/dev/null
    lose a phone
    printf -v long %3000s ''
    for ((i = 0; i < 25; i++)); do say a "'$long'"; done
    visit b phone "$key&received=1"
    expect_match 'more than is kept is a gap' '{"resumed":true,"recovered":false,"missed":2[5-9],"previous":"*"}' "$SAID"
    say a '"new"'
    expect 'of which nothing is sent' new "$(heard phone 1)"
}

# Whoever comes back while RabbitMQ is away is told to come again; its node keeps it.
without_rabbit() {
    local key
    visit a phone
    key=$KEY
    bind a phone g >/dev/null
    notices phone 1 >/dev/null
    kill_rabbit
    wait_for node_says b 'RabbitMQ cannot be used'
    wait_for node_says a 'RabbitMQ cannot be used'
    lose a phone
    client_refused b "$key&received=1"
    start_rabbit
    for name in a b c; do wait_for is_ready $name; done
    say b 5
    visit b phone "$key&received=1"
    expect_match 'RabbitMQ is back: the client has missed nothing' '{"resumed":true,"recovered":true,"replay":1,"previous":"*"}' "$SAID"
    expect 'not even what was sent before it came' 5 "$(heard phone 1)"
}

# refused NODE KEY: what a client gets that is turned away.
client_refused() {
    on "$1" client turned "shop&resume=$2"
    expect_match 'without RabbitMQ a client is to come again' '{"code":-1007,"msg":"*","data":\[\]}' "$(head -n 1 "$DIR/turned.out")"
}

silent_nodes() {
    local key
    visit a phone
    key=$KEY
    freeze_node a
    visit b phone "$key&received=0"
    expect 'its node stands still: it begins anew' '{"resumed":false}' "$SAID"
    thaw_node a
    visit a phone
    key=$KEY
    kill_node a
    visit b phone "$key&received=0"
    expect 'its node was killed: it begins anew' '{"resumed":false}' "$SAID"
    restart_node a
}

# crowd CLIENTS RATE: starts clients of all nodes, and sends to them; `order` tells them something.
crowd() {
    rm -f "$DIR/orders"
    mkfifo "$DIR/orders"
    python3 -B tests/cluster/resume.py shop "$TOKEN" "$1" "$2" "${NODE_PORT[a]}" "${NODE_PORT[b]}" "${NODE_PORT[c]}" \
        <"$DIR/orders" >"$DIR/told" 2>"$DIR/told.err" &
    MANY=$!
    exec {ORDERS}>"$DIR/orders"
    wait_for grep -q ready "$DIR/told"
}

order() {
    echo "$@" >&"$ORDERS"
}

# counted: ends them; what they say is in $TOLD.
counted() {
    order end
    wait "$MANY"
    exec {ORDERS}>&-
    TOLD=$(tail -n 1 "$DIR/told" "$DIR/told.err" | grep sent)
}

# All nodes are restarted, one after the other.
rolling() {
    local node
    crowd "${CROWD:-60}" "${RATE:-100}"
    for node in a b c; do
        order down "${NODE_PORT[$node]}"
        pause 0.5
        stop_node $node
        restart_node $node
        wait_for is_ready $node
        order up "${NODE_PORT[$node]}"
    done
    counted
    expect "all nodes are restarted (${TOLD%% moved*}): nothing is lost, nothing comes twice" \
        'gaps 0 anew 0 lost 0 twice 0 behind 0' "gaps ${TOLD##* gaps }"
}

# Connections break while a node stands still or is killed: not all is recovered, but nobody is told that it is.
faults() {
    crowd 40 80
    order cut
    pause 1
    freeze_node b
    order cut
    pause 3
    thaw_node b
    order cut
    pause 1
    order down "${NODE_PORT[c]}"
    order cut
    pause 0.3
    kill_node c
    order cut
    pause 2
    restart_node c
    counted
    expect "connections break (${TOLD%% lost*}): nobody misses more than it is told, nothing comes twice" \
        'lost 0 twice 0 behind 0' "lost ${TOLD##* lost }"
}

launch_rabbit
start_redis
await_rabbit
for node in a b c; do
    configure_node $node "webhook.allow=http://127.0.0.1:$RECEIVER/" common.drain=10 cluster.rpc_timeout=2900 # a busy machine takes its time
    launch_node $node
done
for node in a b c; do
    await_node $node 'joined the cluster' 'RabbitMQ is connected' || broken "the node $node starts" "$DIR/$node.stderr"
done
for node in a b c; do wait_for is_ready $node; done
at a
sign_up shop
PARTS=("$@")
[ $# != 0 ] || PARTS=(moves unheard gaps without_rabbit silent_nodes faults rolling)
for part in "${PARTS[@]}"; do "$part"; done
finish

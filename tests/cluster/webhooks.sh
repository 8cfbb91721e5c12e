#!/usr/bin/env bash
# webhooks.sh - webhooks of three nodes: set through one they are those of all, also of one that starts later; the
# receiver's model is the list of all nodes after one of them is killed, comes back, or stood still and was buried;
# also if their clocks differ, and if the end of one was lost with what the others had to tell.
# build: cluster-asan/wspush
# shellcheck source=tests/support/faults_lib.sh
. "$(dirname "$0")/../support/faults_lib.sh"
# shellcheck source=tests/support/webhook_lib.sh
. "$(dirname "$0")/../support/webhook_lib.sh"

# soon NAME COUNT: the same, within node_ttl and 2 s of $NOW.
soon() {
    local begun=$NOW
    wait_for same_model "$2"
    now
    expect_time "$1: within node_ttl and 2 s" 0 $((TTL + 2000)) $((NOW - begun))
    model "$@"
}

# ends NAME: how many ends of a node the receiver has taken; epochs NAME: how many of its epochs.
ends() {
    told /events | grep -c "\"type\":\"end\".*:${NODE_RPC[$1]}\""
}

epochs() {
    told /epochs | grep -c ":${NODE_RPC[$1]} "
}

# between NAME: expects that the ends of c name no epoch of its present life.
between() {
    local last newest
    last=$(told /events | sed -n "s/.*\"type\":\"end\".*:${NODE_RPC[c]}\",\"epoch\":\([0-9]*\)}/\1/p" | sort -n | tail -n 1)
    newest=$(told /epochs | sed -n "s/.*:${NODE_RPC[c]} //p" | sort -n | tail -n 1)
    expect "$1: what ends is over" yes "$([ "$last" -lt "$newest" ] && echo yes || echo "$last is not less than $newest")"
}

# lost: how many events the nodes a and b have lost.
lost() {
    echo $(($(figure a 'webhook_events_total{result="lost"}') + $(figure b 'webhook_events_total{result="lost"}')))
}

# more COUNT COMMAND...: whether what the command prints is more than COUNT.
more() {
    [ "$("${@:2}")" -gt "$1" ]
}

# gone NAME: whether a node is no longer one of the cluster.
gone() {
    ! redis SMEMBERS wspush:nodes | grep -q ":${NODE_RPC[$1]}/"
}

# start_nodes NAME...: all at the same time.
start_nodes() {
    local node
    for node in "$@"; do launch_node "$node"; done
    for node in "$@"; do await_node "$node" 'joined the cluster' 'RabbitMQ is connected'; done
}

launch_rabbit
start_redis
await_rabbit
for node in a b c; do
    configure_node $node "webhook.allow=http://127.0.0.1:$RECEIVER/" webhook.retry=5
done
start_nodes a b
at a
start_receiver
sign_up shop
join b early
hook
join a one
join b two
model 'set through one node' 3

start_nodes c
wait_for more 0 epochs c
expect 'a node that starts later begins an epoch' 1 "$(epochs c)"
join c three
model 'a node that starts later' 4

# One that comes back to another node than it left. While a cannot be heard, b tells of the move first.
join a phone 'shop&resume='
model 'one that can come back' 5
for node in b c; do
    key=$(head -n 1 "$DIR/phone.out" | jq -r .data.resume)
    kill_process "${PROCESS[phone]}"
    join $node phone "shop&resume=$key&received=0"
    expect_match "it moves to $node" '*"resumed":true*"previous":"*' "$(head -n 1 "$DIR/phone.out")"
    model "it moves to $node" 5
done
bind c phone g ann 'an extend' >/dev/null
model 'and joins a group there' 5
on c call close_client "{'clientId':'$ID'}" >/dev/null
model 'and leaves' 4

now
kill_node c
soon 'a node is killed' 3
start_nodes c
join c four
model 'and comes back' 4
between 'and comes back'

freeze_node b
wait_for more 0 ends b
thaw_node b
now
soon 'a node stands still, is buried, and goes on' 4

before=$(ends c)
kill_node c
restart_node c
join c five
model 'killed and started again at once' 4
wait_for more "$before" ends c
between 'killed and started again at once'

before=$(ends c)
stop_node c
model 'a node stops' 3
expect 'a node stops: it tells its end' yes "$(more "$before" ends c && echo yes)" # others may repeat an older one

# --- clocks --------------------------------------------------------------------------------------

before=$(epochs c)
preload PRELOAD_AHEAD=3600
restart_node c
CLUSTER_WSPUSH=$REAL_WSPUSH
wait_for more "$before" epochs c # with no client: its batch need not be repeated
join c ahead
model 'a node whose clock is an hour ahead' 4
kill_node c
model 'it is killed' 3
restart_node c
join c right
model 'and comes back with the right time' 4
between 'and comes back with the right time'

# --- the end of a node is among the losses ---------------------------------------------------------

before=$(ends c)
lost=$(lost)
told '/status?code=500' >/dev/null
kill_node c
wait_for more "$lost" lost
told '/status?code=200' >/dev/null
model 'an end is lost' 3
expect 'and told again' yes "$(more "$before" ends c && echo yes)"

restart_node c
join c six
model 'three nodes again' 4
told '/status?code=500' >/dev/null
kill_node c
wait_for gone c
before=$(epochs b)
kill_node a
kill_node b
start_nodes a b
told '/status?code=200' >/dev/null
wait_for more "$before" epochs b
expect 'a node begins an epoch, though nobody calls it' yes "$(more "$before" epochs b && echo yes)"
join a seven
model 'an end is lost with the nodes that knew of it' 1

restart_node c
join c eight
model 'three nodes once more' 2
told '/status?code=500' >/dev/null
stop_node c
told '/status?code=200' >/dev/null
model 'a node stops unheard' 1
expect 'the receiver has no trouble' '' "$(cat "$DIR/receiver.err")"
finish

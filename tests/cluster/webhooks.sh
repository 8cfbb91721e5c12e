#!/usr/bin/env bash
# webhooks.sh - webhooks of three nodes: set through one they are those of all, also of one that starts later; the
# receiver's model is the list of all nodes after one of them is killed, comes back, or stood still and was buried.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"
need python3

free_port
RECEIVER=$FREE

# heard PATH: prints what the receiver tells.
heard() {
    local STATUS HEADERS BODY
    exchange 127.0.0.1 "$RECEIVER" "GET $1 HTTP/1.1"$'\r\n\r\n' 20
    printf %s "$BODY"
}

# ids: the clients that the nodes list, sorted.
ids() {
    local answer after=''
    while
        answer=$(on a post /api/list_clients "{\"after\":\"$after\",\"limit\":1000}")
        jq -r '.data.clients[].clientId' <<<"$answer"
        after=$(jq -r .data.next <<<"$answer")
        [ -n "$after" ]
    do :; done | sort
}

same_model() {
    [ "$(heard /model | wc -l)" = "$1" ] && [ "$(heard /model)" = "$(ids)" ]
}

# model NAME COUNT
model() {
    wait_for same_model "$2"
    expect "$1: the receiver's model is the list of all nodes" "$(ids)" "$(heard /model)"
    expect "$1: so many clients" "$2" "$(heard /model | wc -l)"
    expect "$1: it has nothing to complain of" '' "$(heard /wrong)"
}


launch_rabbit
start_redis
await_rabbit
for node in a b c; do
    configure_node $node "webhook.allow=http://127.0.0.1:$RECEIVER/" webhook.retry=5
done
for node in a b; do launch_node $node; done
for node in a b; do await_node $node 'joined the cluster' 'RabbitMQ is connected'; done
at a
python3 -B tests/support/receiver.py "$RECEIVER" "${NODE_PORT[a]}" 2>"$DIR/receiver.err" &
CLIENTS+=($!)
wait_for listens "$RECEIVER"
sign_up shop
join b early
heard "/setup?token=$TOKEN" >/dev/null
call set_webhook "{'url':'http://127.0.0.1:$RECEIVER/'}" >/dev/null
answer_has '"secret":"(whsec_[^"]*)"'
heard "/setup?secret=${BASH_REMATCH[1]//+/%2B}" >/dev/null
join a one
join b two
model 'set through one node' 3

launch_node c
await_node c 'joined the cluster' 'RabbitMQ is connected'
join c three
model 'a node that starts later' 4

kill_node c
model 'a node is killed' 3
launch_node c
await_node c 'joined the cluster' 'RabbitMQ is connected'
join c four
model 'and comes back' 4

freeze_node b
buried() { heard /events | grep -q "\"type\":\"end\".*:${NODE_RPC[b]}\""; }
wait_for buried
thaw_node b
model 'a node stands still, is buried, and goes on' 4

kill_node c
restart_node c
join c five
model 'killed and started again at once' 4

stop_node c
model 'a node stops' 3
expect 'the receiver has no trouble' '' "$(cat "$DIR/receiver.err")"
finish

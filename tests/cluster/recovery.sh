#!/usr/bin/env bash
# recovery.sh - what two nodes make of things that are not as they left them, with real servers: a queue
# or a connection that somebody has removed, presence records that none of them wrote, a registry that
# was away, a death at a bad moment.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

# seen NAME CODE: how many frames of this code a client has received.
seen() {
    grep -c "\"code\":$2," "$DIR/$1.out"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_seen() {
    [ "$(seen "$1" "$2")" -ge "$3" ]
}

# comes NAME CODE COUNT: waits for so many frames of a code, and prints how many there are.
comes() {
    wait_for has_seen "$@"
    seen "$1" "$2"
}

# life NAME: prints what the registry calls a node that runs.
life() {
    redis SMEMBERS wspush:nodes | grep ":${NODE_RPC[$1]}/"
}

# member NODE NAME: a client in the group g.
member() {
    on "$1" client "$2" shop
    on "$1" call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
}

# all_get: a send reaches both members, once.
all_get() {
    local x y
    x=$(seen x 7) y=$(seen y 7)
    expect "$1: a send is answered" "$SUCCESS" \
        "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect "$1: it reaches both" "$((x + 1)) $((y + 1))" \
        "$(comes x 7 $((x + 1))) $(comes y 7 $((y + 1)))"
}

idle_connection() {
    redis CLIENT KILL TYPE normal >/dev/null
    expect_match 'a connection that Redis has closed costs no login' '200 {"code":0,*' \
        "$(TOKEN='' call login "{'systemId':'shop','password':'secret'}")"
    all_get 'connections to Redis closed'
}

deleted_queue() {
    local queue
    queue=$(rabbit_ctl -q list_queues name | grep -F "$(life b)")
    rabbit_ctl -q delete_queue "$queue" >/dev/null 2>&1
    wait_for node_says b "queue was deleted"
    wait_for eval "[ \$(node_log b | grep -c 'RabbitMQ is connected') = 2 ]"
    sleep 0.2
    all_get 'a queue that was deleted is made anew'
}

forged_records() {
    local long
    long=$(printf '%3000s' '' | tr ' ' A)
    redis SADD wspush:nodes 127.0.0.1:1/1 127.0.0.1:2/2 'no node' >/dev/null
    redis HSET wspush:records:127.0.0.1:1/1 \
        one "{\"system\":\"shop\",\"group\":\"g\",\"id\":\"$long\",\"identity\":{}}" \
        two '{"system":"shop","group":"g","id":1,"identity":{}}' \
        three '{"system":"shop","group":"g","identity":{}}' four '{}' five 'nothing' >/dev/null
    wait_for eval '! redis SMEMBERS wspush:nodes | grep -q 127.0.0.1:[12]/'
    dropped() { cat "$DIR/a.log" "$DIR/b.log" | grep -c 'a malformed presence record in Redis was dropped'; }
    wait_for eval "[ \$(dropped) -ge 5 ]" # the log comes later
    expect 'records that no node wrote are dropped, and say so' 5 "$(dropped)"
    expect 'and nobody is told of them' 0 "$(seen x 1002)"
    redis SREM wspush:nodes 'no node' >/dev/null
    all_get 'forged records'
}

# The lease of a cleanup does not last; the tombstone does.
long_freeze() {
    local before
    before=$(seen x 1001)
    freeze_node b
    expect 'the leaves of a frozen node are published' 1 "$(comes x 1002 1)"
    redis --scan --pattern 'wspush:lease:*' | while read -r key; do
        redis DEL "$key" >/dev/null
    done
    thaw_node b
    expect 'it finds its tombstone, and publishes its client again' $((before + 1)) \
        "$(comes x 1001 $((before + 1)))"
    expect_match 'not before it can be reached' '*"count":2,*' \
        "$(call get_online_list "{'groupName':'g'}")"
    all_get 'a long freeze'
}

# A node that is back at the registry does not clean up after those that are not yet.
common_outage() {
    local before now
    before=$(seen x 1002)
    freeze_redis
    freeze_node b
    sleep 5
    thaw_redis
    wait_for node_says a 'Redis is back'
    sleep 1.5
    now=$(seen x 1002)
    thaw_node b
    expect 'nobody is cleaned up after right when Redis is back' "$before" "$now"
    wait_for is_ready b
    sleep 1
    all_get 'Redis and a node were away'
}

# A registry that says that b is dead is wrong as long as b is heard of.
new_node() {
    local before key
    before=$(seen x 1002)
    key="wspush:node:127.0.0.1:${NODE_RPC[b]}"
    redis SET "$key" 1 PX 600000 >/dev/null
    start_node c
    sleep 5
    expect 'a new node does not clean up after one that lives' "$before" "$(seen x 1002)"
    expect 'and reaches its client' "$SUCCESS" \
        "$(on c call send_to_client "{'clientId':'$Y',$MESSAGE}")"
    redis DEL "$key" >/dev/null
    stop_node c
}

# A scope that changes while the nodes run is in the records, for the death of one of them.
changed_scope() {
    local node before
    on a client outsider shop
    on b client insider shop
    before=$(seen outsider 1002)
    for node in a b; do
        sed -i 's/^\[notice\]$/[gone]/; s/^scope = .*//; /^\[gone\]$/d' "$DIR/$node.ini"
        printf '[notice]\nscope = system\n' >>"$DIR/$node.ini"
        kill -HUP "${NODE[$node]}"
        expect "$node takes the scope up" 1 \
            "$(wait_for node_says $node 'SIGHUP: changed.*"scope" from="group" to="system"' && echo 1)"
    done
    sleep 0.5
    kill_node b
    expect 'a node dies: the others of its client'"'"'s system are told, in no group with it' \
        $((before + 1)) "$(comes outsider 1002 $((before + 1)))"
    expect 'Redis came back as often as it was away' 1 "$(($(figure a redis_reconnects_total) >= 1))"
}

# What RabbitMQ could not be told of before a node died is told by the others.
untold_leave() {
    local before
    before=$(seen x 1002)
    kill_rabbit
    wait_for node_says b 'RabbitMQ cannot be used'
    kill "$Y_PROCESS"
    sleep 0.5
    kill_node b
    start_rabbit
    expect 'a client that left while RabbitMQ was away, and whose node then died, is told of' \
        $((before + 1)) "$(comes x 1002 $((before + 1)))"
    sleep 1
    expect 'once' $((before + 1)) "$(seen x 1002)"
}

launch_rabbit
start_redis
await_rabbit
start_node a cluster.node_ttl=2
start_node b cluster.node_ttl=2
at a
sign_up shop
member a x
member b y
Y=$ID Y_PROCESS=$CLIENT
comes x 1001 2 >/dev/null
idle_connection
deleted_queue
forged_records
long_freeze
common_outage
new_node
untold_leave
restart_node b
changed_scope
finish

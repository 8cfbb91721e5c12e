#!/usr/bin/env bash
# redis_failover.sh - Redis behind a name: after a failover in which the old primary lives on as a
# replica, the nodes find the new one; until then they say what Redis says.
# build: cluster-asan/wspush
. "$(dirname "$0")/../support/faults_lib.sh"

READONLY="503 {\"code\":-1007,\"msg\":\"Redis says: READONLY You can't write against a read only replica\",\"data\":[]}"
LOADING='503 {"code":-1007,"msg":"Redis says: LOADING Redis is loading the dataset in memory","data":[]}'
REPLICA='' REPLICA_PORT=''

# start_replica: a second Redis, which follows the first.
start_replica() {
    mkdir -p "$DIR/replica"
    free_port && REPLICA_PORT=$FREE
    redis-server --bind 127.0.0.1 --port "$REPLICA_PORT" --dir "$DIR/replica" --save '' \
        --replicaof 127.0.0.1 "$REDIS_PORT" >"$DIR/replica/out" 2>&1 &
    REPLICA=$!
    wait_for follows || broken 'the replica follows' "$DIR/replica/out"
}

# replica ARGUMENT...: as `redis`.
replica() {
    redis-cli -h 127.0.0.1 -p "$REPLICA_PORT" "$@" 2>/dev/null
}

follows() {
    replica INFO replication | grep -q 'master_link_status:up'
}

sign() { # sign NODE register|login SYSTEM
    on "$1" call "$2" "{'systemId':'$3','password':'secret'}"
}

works() { # works NODE SYSTEM: whether it registers now, or has before
    case $(sign "$1" register "$2") in
    "$SUCCESS" | *already*) return 0 ;;
    esac
    return 1
}

back_in_touch() { # back_in_touch NODE COUNT
    [ "$(node_log "$1" | grep -c 'Redis is back')" -ge "$2" ]
}

out_of_touch() { # out_of_touch NODE COUNT
    [ "$(node_log "$1" | grep -c 'Redis cannot be used')" -ge "$2" ]
}

start_redis
start_replica
open_ways "redis:$REDIS_PORT" # the port that stands for the name
free_port && RABBIT_PORT=$FREE # nobody listens: RabbitMQ has no part in this
for node in a b; do
    configure_node $node redis.port="${WAY[redis]}"
    launch_node $node
    await_node $node 'joined the cluster' || broken "the node $node joins" "$DIR/$node.log"
done
expect 'before: a registers' "$SUCCESS" "$(sign a register before)"
expect_match 'before: b knows it' '200 *"token"*' "$(sign b login before)"

# the name leads to the new primary; the nodes' connections are still with the old one
wait_for replica EXISTS wspush:accounts
replica REPLICAOF NO ONE >/dev/null
way redis to "$REPLICA_PORT"
redis REPLICAOF 127.0.0.1 "$REPLICA_PORT" >/dev/null
for node in a b; do
    expect "failover: $node registers" "$SUCCESS" "$(sign $node register "after-$node")"
done
for node in a b; do
    expect_match "failover: $node knows what b registered" '200 *"token"*' "$(sign $node login after-b)"
    expect_match "failover: $node knows what was before" '200 *"token"*' "$(sign $node login before)"
    expect "failover: $node was told" yes "$(await_node $node READONLY && echo yes)"
    expect "failover: $node is in touch" yes "$(wait_for back_in_touch $node 1 && echo yes)"
    expect "failover: $node is at the new primary" 1 "$(replica EXISTS "wspush:node:127.0.0.1:${NODE_RPC[$node]}")"
    expect "failover: $node never says it could not be reached" 0 "$(node_log $node | grep -c 'Redis.*cannot be reached')"
done

# no primary at all
replica REPLICAOF 127.0.0.1 "$REDIS_PORT" >/dev/null
for node in a b; do
    expect "no primary: $node says so" "$READONLY" "$(sign $node register never)"
done
for node in a b; do
    wait_for out_of_touch $node 2
done
replica REPLICAOF NO ONE >/dev/null
for node in a b; do
    expect "a primary again: $node registers" yes "$(wait_for works $node "again-$node" && echo yes)"
    expect "a primary again: $node is in touch" yes "$(wait_for back_in_touch $node 2 && echo yes)"
done

# the primary restarts, and reads its data for seconds
replica EVAL 'for i = 1, 3000 do redis.call("set", "filler" .. i, i) end' 0 >/dev/null
replica SAVE >/dev/null
kill_process "$REPLICA" TERM
redis-server --bind 127.0.0.1 --port "$REPLICA_PORT" --dir "$DIR/replica" --save '' \
    --key-load-delay 1500 --loading-process-events-interval-bytes 1024 \
    >"$DIR/replica/out" 2>&1 &
REPLICA=$!
wait_for listens "$REPLICA_PORT"
said=''
for _ in {1..200}; do
    said=$(sign a register loaded)
    [ "$said" != "$LOADING" ] || break
    sleep 0.02
done
expect 'loading: a says so' "$LOADING" "$said"
expect 'loaded: a registers' yes "$(wait_for works a loaded && echo yes)"
expect 'loaded: b registers' yes "$(wait_for works b loaded-b && echo yes)"
finish

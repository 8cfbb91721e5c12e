#!/usr/bin/env bash
# ordering.sh - what is sent through one node of a cluster, call after call, arrives in that order at
# every client on every node, whatever way each call takes: by a link, through RabbitMQ, or none.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

ROUNDS=60

# send PATH BODY: one more call on the one connection, with the next number as its code.
send() {
    COUNT=$((COUNT + 1))
    CALLS+=(--next -s -H "Token: $TOKEN" -d "{$2,\"code\":$COUNT,\"msg\":\"in order\",\"data\":0}"
        "http://127.0.0.1:$PORT/api/$1")
}

# codes NAME: the codes of the messages that a client has received.
codes() {
    grep -o '"code":[0-9]*,"msg":"in order"' "$DIR/$1.out" | grep -o '[0-9]*'
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_codes() {
    [ "$(codes "$1" | wc -l)" -ge "$2" ]
}

launch_rabbit
start_redis
await_rabbit
start_node a
start_node b
at a
sign_up shop
client x shop
X=$ID
on b client y shop
Y=$ID
for id in "$X" "$Y"; do
    call bind_to_group "{'clientId':'$id','groupName':'g','userId':'u'}" >/dev/null
    call bind_to_group "{'clientId':'$id','groupName':'h'}" >/dev/null
done

CALLS=() COUNT=0
for ((round = 0; round < ROUNDS; round++)); do
    send send_to_group '"groupName":"g"'
    send send_to_clients "\"clientIds\":[\"$X\",\"$Y\"]"
    send send_to_user '"userId":"u"'
    send send_to_group '"groupName":"h"'
    send send_to_system '"all":true'
    send send_to_client "\"clientId\":\"$X\""
    send send_to_client "\"clientId\":\"$Y\""
    send send_to_group '"groupName":"h"'
done
curl "${CALLS[@]:1}" >"$DIR/answers"
expect 'every call is answered with success' $COUNT \
    "$(grep -o '{"code":0,"msg":"success"' "$DIR/answers" | wc -l)"
for name in x y; do
    other=$([ $name = x ] && echo 7 || echo 6) # which of the eight is for the other one alone
    wait_for has_codes $name $((ROUNDS * 7))
    expect "the client $name gets all that is for it, once, in order" \
        "$(seq $COUNT | awk -v other="$other" '($1 - 1) % 8 + 1 != other')" "$(codes $name)"
done

# What was sent to a group before a client joins it, or leaves it, is not, or is, for that client.
client z shop
Z=$ID
CALLS=() COUNT=0
for ((round = 0; round < ROUNDS; round++)); do
    send send_to_group '"groupName":"i"'
    CALLS+=(--next -s -H "Token: $TOKEN" -d "{\"clientId\":\"$Z\",\"groupName\":\"i\"}"
        "http://127.0.0.1:$PORT/api/bind_to_group")
    send send_to_group '"groupName":"i"'
    CALLS+=(--next -s -H "Token: $TOKEN" -d "{\"clientId\":\"$Z\",\"groupName\":\"i\"}"
        "http://127.0.0.1:$PORT/api/unbind_from_group")
done
on b client w shop
on b call bind_to_group "{'clientId':'$ID','groupName':'i'}" >/dev/null # the group lives elsewhere
curl "${CALLS[@]:1}" >"$DIR/answers"
wait_for has_codes z $ROUNDS
expect 'a member gets what is sent while it is one' "$(seq 2 2 $COUNT)" "$(codes z)"
wait_for has_codes w $COUNT
expect 'one that stays gets all' "$(seq $COUNT)" "$(codes w)"
finish

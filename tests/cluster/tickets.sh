#!/usr/bin/env bash
# tickets.sh - tickets on two nodes: one that a node gives is good on the other, which has to ask Redis about the
# account first; a client comes to all of its groups or to none, though RabbitMQ is killed while clients come.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"
need python3

# ticket NODE BODY: prints a ticket.
ticket() {
    on "$1" post /api/ticket "${2//\'/\"}" | jq -r .data.ticket
}

# A node that has just started knows no account: the ticket, and the call for one, wait until Redis has said.
across() {
    local given
    given=$(ticket a "{'userId':'u1','groups':['g','h']}")
    join b first "shop&ticket=$given"
    expect 'a ticket of another node is good' "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$ID\",\"userId\":\"u1\"}}" \
        "$(head -n 1 "$DIR/first.out")"
    expect 'then its groups tell of it' "$(notice 1001 "$ID" u1)
$(IN=h notice 1001 "$ID" u1)" "$(notices first 2 | sort)"
    expect 'it gets what another node sends to its group' "$SUCCESS $FRAME" \
        "$(on a call send_to_group "{'groupName':'h',$MESSAGE}") $(messages first 1)"
    expect 'and to its user' "$SUCCESS $FRAME" "$(on a call send_to_user "{'userId':'u1',$MESSAGE}") $(messages first 1)"
}

unknown() {
    start_node c
    expect_match 'the first call to a node that has just started' 'eyJ*' "$(ticket c '{}')"
    stop_node c
}

killed() {
    local counts
    python3 tests/cluster/tickets.py "${NODE_PORT[a]}" "$TOKEN" 7 >"$DIR/judged" 2>&1 &
    JUDGE=$!
    sleep 1
    kill_rabbit
    sleep 1
    start_rabbit
    wait "$JUDGE"
    counts=$(cat "$DIR/judged")
    expect_match 'RabbitMQ killed while clients come: some come in, others are refused, nobody is in half of its groups' \
        '[1-9]* [1-9]*' "$counts"
    expect 'and nothing else' '' "$(cut -s -d ' ' -f 3- "$DIR/judged")"
}

launch_rabbit
start_redis
await_rabbit
configure_node a auth.connect=ticket
configure_node b auth.connect=ticket
launch_node a
launch_node b
for node in a b; do await_node $node 'joined the cluster' 'RabbitMQ is connected'; done
at a
sign_up shop
across
unknown
killed
finish

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

# A node does not know the accounts of others: what needs one waits until Redis has said.
across() {
    local given
    given=$(ticket b "{'userId':'u1','groups':['g','h']}")
    expect_match 'the first call for a ticket to a node' 'eyJ*' "$given"
    given=$(login other; ticket a "{'userId':'u1','groups':['g','h']}")
    join b first "other&ticket=$given"
    expect 'a ticket of another node is good' "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$ID\",\"userId\":\"u1\"}}" \
        "$(head -n 1 "$DIR/first.out")"
    expect 'then its groups tell of it' "$(notice 1001 "$ID" u1)
$(IN=h notice 1001 "$ID" u1)" "$(notices first 2 | sort)"
    login other
    expect 'it gets what another node sends to its group' "$SUCCESS $FRAME" \
        "$(on a call send_to_group "{'groupName':'h',$MESSAGE}") $(messages first 1)"
    expect 'and to its user' "$SUCCESS $FRAME" "$(on a call send_to_user "{'userId':'u1',$MESSAGE}") $(messages first 1)"
    login shop
}

killed() {
    local counts
    python3 tests/cluster/tickets.py "${NODE_PORT[a]}" "$TOKEN" 4 >"$DIR/judged" 2>&1 &
    JUDGE=$!
    sleep 1.5
    kill_rabbit
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
sign_up other
sign_up shop
across
killed
finish

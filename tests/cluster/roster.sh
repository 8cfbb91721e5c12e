#!/usr/bin/env bash
# roster.sh - who is there, asked of three nodes: counts add up, lists have all that stays exactly once while others come
# and go; all clients of a user are bound and closed wherever they are; a node that cannot be asked is missed, not
# waited for.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need python3
NODES=(a b c)

launch_rabbit
start_redis
await_rabbit
for node in "${NODES[@]}"; do
    start_node "$node" notice.scope=off
done
for node in "${NODES[@]}"; do
    wait_for is_ready "$node"
done
at a
sign_up shop

while IFS=$'\t' read -r name expected actual; do
    expect "$name" "$expected" "$actual"
done < <(timeout 120 python3 -B tests/support/roster.py shop "$TOKEN" "${NODE_PORT[@]}" 2>&1
    echo "roster.py ends	0	$?")

# A node that has died is missed until the others know.
# shellcheck disable=SC2317,SC2329 # called by wait_for
is_complete() {
    [ "$(on a call list_groups '{}')" = "$(success "{'groups':[],'next':''}")" ]
}

wait_for is_complete
kill_node c
expect 'a count misses a node that is dead' "$(success "{'system':0,'incomplete':true}")" \
    "$(on a call count "{'system':true}")"
expect 'and so does a list' "$(success "{'groups':[],'next':'','incomplete':true}")" "$(on b call list_groups '{}')"
expect_match 'what is done to a user is not known to be done' "$UNREACHABLE" \
    "$(on a call close_user "{'userId':'u'}")"
wait_for is_complete
expect 'until the others know of its death' "$(success "{'closed':0}")" "$(on a call close_user "{'userId':'u'}")"
finish

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
finish

#!/usr/bin/env bash
# chaos.sh - a minute of faults that a seed chooses, or as long as CHAOS_SECONDS says, with the seed CHAOS_SEED.
# Before it the checker is shown what it must find.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

vectors tests/cluster/test_checker.py
vectors tests/cluster/chaos.py --binary "${CLUSTER_WSPUSH:-build/cluster-asan/wspush}" --base "$PORTS" \
    --seconds "${CHAOS_SECONDS:-45}" ${CHAOS_SEED:+--seed "$CHAOS_SEED"} ${CHAOS_NODES:+--nodes "$CHAOS_NODES"}
finish

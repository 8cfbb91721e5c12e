#!/usr/bin/env bash
# chaos.sh - shows the checker of the chaos test what it must find, and has the test run for CHAOS_SECONDS (45),
# with the seed CHAOS_SEED if that is set. `make chaos` runs it longer, and says what it does.
# build: cluster-asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need redis-server rabbitmq-server epmd python3
export PYTHONDONTWRITEBYTECODE=1

vectors tests/cluster/test_checker.py
vectors tests/cluster/chaos.py --quiet --binary "${CLUSTER_WSPUSH:-build/cluster-asan/wspush}" --base "$PORTS" \
    --seconds "${CHAOS_SECONDS:-45}" ${CHAOS_SEED:+--seed "$CHAOS_SEED"}
finish

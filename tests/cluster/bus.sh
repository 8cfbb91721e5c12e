#!/usr/bin/env bash
# bus.sh - cluster_bus.c with a real RabbitMQ: starts one, and runs the unit tests against it.
# build: cluster-asan/test_cluster_bus
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/support/cluster_lib.sh
. tests/support/cluster_lib.sh

start_rabbit
rabbit_ctl add_user poor poor >"$DIR/ctl" 2>&1 &&
    rabbit_ctl set_permissions poor '^$' '^$' '^$' >>"$DIR/ctl" 2>&1 ||
    broken 'RabbitMQ has a user without permissions' "$DIR/ctl"
RABBIT_PORT=$RABBIT_PORT "${TEST_BUS:-build/cluster-asan/test_cluster_bus}"
status=$?
stop
trap - EXIT
rm -rf "$DIR"
exit $status

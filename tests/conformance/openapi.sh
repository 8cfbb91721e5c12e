#!/usr/bin/env bash
# openapi.sh - openapi.yaml against a running server: see openapi.py.
# build: release/wspush asan/wspush cluster-asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

export DIR PORTS WSPUSH CLUSTER_WSPUSH=${CLUSTER_WSPUSH:-build/cluster-asan/wspush}
export PYTHONPATH=.tools/pypi
vectors tests/conformance/openapi.py
finish

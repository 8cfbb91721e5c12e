#!/usr/bin/env bash
# openapi.sh - openapi.yaml against a running server: see openapi.py.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

export DIR PORTS WSPUSH CLUSTER_WSPUSH=${CLUSTER_WSPUSH:-build/cluster-asan/wspush}
export PYTHONPATH=.tools/pypi
vectors tests/openapi.py
finish

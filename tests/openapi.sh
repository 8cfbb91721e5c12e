#!/usr/bin/env bash
# openapi.sh - openapi.yaml against a running server: see openapi.py.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

export DIR PORTS WSPUSH WSPUSH_CLUSTER=${WSPUSH_CLUSTER:-build/cluster-asan/wspush}
export PYTHONPATH=.tools/pypi
vectors tests/openapi.py
finish

#!/usr/bin/env bash
# registry.sh - tests/unit/test_cluster_registry.c with a Redis.
# build: cluster-asan/test_cluster_registry
. "$(dirname "$0")/../support/cluster_lib.sh"

start_redis
export REDIS_PORT
vectors "build/${VARIANT:-cluster-asan}/test_cluster_registry"
finish

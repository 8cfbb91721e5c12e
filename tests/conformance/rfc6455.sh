#!/usr/bin/env bash
# rfc6455.sh - RFC 6455 over a socket: the vectors of rfc6455.c against the echo server, then against
# wspush, which reads frames by the same ws.c but has a session of its own.
# build: asan/wspush asan/echo asan/rfc6455
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

start_echo
vectors build/asan/rfc6455 echo "$PORT"
stop

configure '[websocket]
max_message = 16 MiB'
start
sign_up shop
vectors build/asan/rfc6455 wspush "$PORT" '/ws?systemId=shop'
stop
finish

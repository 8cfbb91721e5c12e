#!/usr/bin/env bash
# client_module.sh - /wspush.js. client_module.mjs runs it with a clock, sockets, a page and a server that are made up.
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

need node
cp wspush.js "$DIR/wspush.mjs" # what Node takes for a module
vectors node tests/e2e/client_module.mjs "$DIR/wspush.mjs"
expect 'at most 8 kB' yes "$([ "$(wc -c <wspush.js)" -le 8192 ] && echo yes)"
finish

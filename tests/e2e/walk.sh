#!/usr/bin/env bash
# walk.sh - the quick start of README.md, typed at terminals and pasted into a browser, with a server of this build;
# tests/fresh/fresh.sh does the same on bare machines, from the first package on.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. tests/support/browser_lib.sh
# shellcheck source=tests/support/walk_lib.sh
. tests/support/walk_lib.sh

expect 'the first lines' 'apt-get git make make' "$(walk_block sh | cut -d ' ' -f 1 | paste -sd ' ')"
free_port
ADMIN=127.0.0.1:$FREE
configure
sed -i 's/^host = .*/host = 0.0.0.0/; /^level/d; s/^drain = .*/drain = 5/; /^file/d' "$DIR/config.ini"
free_port
PORT=$FREE
terminal_open server 'exec bash --norc --noprofile -i'
terminal_type server "$WSPUSH -c $DIR/config.ini $PORT"
walk_welcome server 60
terminal_open second 'exec bash --norc --noprofile -i'
browser_start
browser_open
walk_type second 1
walk_paste
walk_type second 2
walk_browser
printf '\003' >&"${KEYS[server]}"
terminal_await server 60
expect_match 'Ctrl-C ends it, and says how' '*info stopping: clients are closed over drain_ms; a second signal *info stopped*' \
    "$(terminal_screen server)"
wait_for browser_prints 5
expect 'the browser is told' 'closed 1001 going away' "$(tail -n 1 "$DIR/browser.lines")"
finish

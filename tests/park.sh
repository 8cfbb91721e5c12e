#!/usr/bin/env bash
# park.sh - quiet connections are watched by threads of their own, and nobody notices.
. "$(dirname "$0")/lib.sh"

HOLD=build/release/hold
configure '[websocket]
ping = 2
pong_timeout = 2
[limits]
idle_timeout = 20'
start
sign_up shop

mkfifo "$DIR/commands"
"$HOLD" "$PORT" shop "$TOKEN" <"$DIR/commands" >"$DIR/held" 2>"$DIR/held.err" &
CLIENTS+=($!)
exec {commands}>"$DIR/commands"
ANSWERS=0

# ask COMMAND: gives hold a command and prints its answer.
ask() {
    echo "$1" >&"$commands"
    ANSWERS=$((ANSWERS + 1))
    wait_for has_lines "$DIR/held" $ANSWERS
    REPLY=$(sed -n "${ANSWERS}p" "$DIR/held")
}

threads() {
    ls "/proc/$SERVER/task" 2>/dev/null | wc -l
}

online() {
    post /api/get_online_list '{"groupName":"g"}' | jq -r .data.count
}

BASE=$(threads) # the loop, the worker for passwords, and what a sanitizer adds
ask 'open 60'
expect 'up to 64 connections no parking thread is started' "$BASE" "$(threads)"
ask 'open 540'
expect 'clients are taken' 'open 600' "$REPLY"
sleep 0.2
expect '600 clients are parked in three lots' $((BASE + 3)) "$(threads)"
ask 'ping'
expect 'each parked client is answered' 'pongs 600' "$REPLY"
ask 'ping'
expect 'and again, once it is back in its place' 'pongs 600' "$REPLY"
ask 'bind g'
expect 'each parked client can be bound' 'bound 600' "$REPLY"

# each of the 600 that joined told those already there, and itself
JOINED=$((600 * 601 / 2))
ask "frames $JOINED"
expect 'every notice has come' "frames $JOINED" "$REPLY"
post /api/send_to_group '{"groupName":"g","code":1,"msg":"m","data":1}' >/dev/null
ask "frames $((JOINED + 600))"
expect 'a send to the group reaches every parked client' "frames $((JOINED + 600))" "$REPLY"

ask 'requests 300'
expect 'more connections with requests than the loop polls itself' 'answers 900' "$REPLY"

ask 'wait 6000'
expect_match 'parked clients are pinged, and live as long as they answer' \
    'closed 0 going_away 0 pings *' "$REPLY"
PINGS=${REPLY##* }
if [ "$PINGS" -ge 1200 ] && [ "$PINGS" -le 3600 ]; then
    ok 'in the interval that is configured'
else
    bad 'in the interval that is configured' "$PINGS pings in 6 s for 600 clients, interval 2 s"
fi

ask 'drop 200'
gone() { [ "$(online)" = 400 ]; }
if wait_for gone; then
    ok 'parked clients that vanish are noticed'
else
    bad 'parked clients that vanish are noticed' "$(online) are online"
fi
ask 'open 100'
expect 'their places are taken again' 'open 500' "$REPLY"
ask 'ping'
expect 'by clients that are answered' 'pongs 500' "$REPLY"

kill -TERM "$SERVER"
ask 'wait 1500'
expect_match 'on SIGTERM parked clients are told' 'closed 500 going_away 500 pings *' "$REPLY"
exec {commands}>&-
ended
expect 'the clients have nothing to complain of' '' "$(cat "$DIR/held.err")"
finish

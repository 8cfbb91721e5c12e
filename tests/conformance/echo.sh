#!/usr/bin/env bash
# echo.sh - the echo server as clients of others see it: websocat and curl.
# build: asan/echo
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need websocat

# say FILE [ARGUMENT...]: sends a file as one message; what comes back is in $DIR/answer.
say() {
    local file=$DIR/$1
    shift
    timeout 20 websocat "$@" "ws://127.0.0.1:$PORT/" <"$file" >"$DIR/answer" 2>"$DIR/said"
}

# echoes NAME FILE [ARGUMENT...]
echoes() {
    local name=$1
    shift
    say "$@" --no-close --one-message
    expect "$name" same "$(cmp -s "$DIR/$1" "$DIR/answer" && echo same)"
}

# http [CURL-ARGUMENT...]: prints how a request that is no handshake is answered.
http() {
    curl -s --max-time 20 -w ' %{http_code} %{content_type}' "$@" "http://127.0.0.1:$PORT/"
}

# envelope STATUS MSG: prints what http must print.
envelope() {
    echo "{\"code\":-1,\"msg\":\"$2\",\"data\":[]} $1 application/json; charset=utf-8"
}

printf 'hello, \303\244\342\202\254\n' >"$DIR/text"
printf '\000\001\012\015\177\200\377\000' >"$DIR/bytes"
head -c 16777216 /dev/urandom >"$DIR/large"
{ cat "$DIR/large" && printf x; } >"$DIR/larger"

start_echo
echoes 'text' text --text
echoes 'bytes' bytes --binary
echoes '16 MiB' large --binary -B 16777216
say larger --binary -B 16777217 -v -v --no-close
expect 'a byte more is closed with 1009, without an echo' '1 0' \
    "$(grep -c 'status_code: 1009' "$DIR/said") $(wc -c <"$DIR/answer")"
sleep 1.5 | timeout 20 websocat --exit-on-eof --ping-interval 1 --print-ping-rtts "ws://127.0.0.1:$PORT/" \
    >"$DIR/answer" 2>"$DIR/said"
expect_match 'a ping gets a pong' '*RTT*' "$(cat "$DIR/said")"
UPGRADE=(-H 'Connection: Upgrade' -H 'Upgrade: websocket')
expect 'a plain GET' "$(envelope 400 'a WebSocket upgrade is expected here')" "$(http)"
expect 'a GET without a version' "$(envelope 400 'Sec-WebSocket-Version must be present once')" "$(http "${UPGRADE[@]}")"
expect 'a GET with another version' "$(envelope 426 'Sec-WebSocket-Version must be 13')" \
    "$(http "${UPGRADE[@]}" -H 'Sec-WebSocket-Version: 12')"
echoes 'text, afterwards' text --text
stop
finish

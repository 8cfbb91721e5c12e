#!/bin/sh
# echo.sh - talks to the echo server from outside, with websocat and curl.
# ECHO is its binary, seen from the project's folder; ./build/asan/echo if not set.
set -u
cd "$(dirname "$0")/../.." || exit 1

binary=${ECHO:-./build/asan/echo}
websocat=.tools/bin/websocat
passed=0
failed=0
server=
folder=$(mktemp -d) || exit 1

clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# Systems without it have no bound on a client that hangs.
command -v timeout >/dev/null || timeout() { shift; "$@"; }

check() { # check NAME REASON COMMAND...: the test has passed if the command succeeds
    name=$1
    reason=$2
    shift 2
    if "$@"; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name ($reason)"
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

within() { # within TENTHS COMMAND...: tries it until it succeeds
    left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.1
    done
}

talk() { # talk INPUT OPTION...: sends a file as one message; what comes back is in `answer`
    input=$1
    shift
    timeout 10 "$websocat" "$@" "ws://127.0.0.1:$port/" \
        <"$folder/$input" >"$folder/answer" 2>"$folder/said"
}

echoes() { # echoes INPUT OPTION...
    talk "$@" --no-close --one-message && cmp -s "$folder/$input" "$folder/answer"
}

is_refused_with() { # is_refused_with CODE INPUT OPTION...
    code=$1
    shift
    talk "$@" -v -v --no-close
    ! [ -s "$folder/answer" ] && grep -q "status_code: $code" "$folder/said"
}

answers_pings() {
    sleep 1.5 | timeout 10 "$websocat" --exit-on-eof --ping-interval 1 --print-ping-rtts \
        "ws://127.0.0.1:$port/" >/dev/null 2>"$folder/said"
    grep -q '^RTT' "$folder/said"
}

answers() { # answers STATUS MSG CURL-OPTION...: the envelope and nothing else, as JSON
    status=$1
    wanted="{\"code\":-1,\"msg\":\"$2\",\"data\":[]} $1 application/json; charset=utf-8"
    shift 2
    got=$(curl --silent --max-time 10 --write-out ' %{http_code} %{content_type}' "$@" \
        "http://127.0.0.1:$port/")
    [ "$got" = "$wanted" ]
}

is_listening() {
    grep -q '^echo: listening on 127\.0\.0\.1:[1-9]' "$folder/out"
}

has_ended() {
    ! kill -0 "$server" 2>/dev/null
}

printf 'hello, \303\244\342\202\254\n' >"$folder/text"
printf '\000\001\012\015\177\200\377\000' >"$folder/bytes"
dd if=/dev/urandom of="$folder/large" bs=65536 count=256 2>/dev/null
{ cat "$folder/large"; printf x; } >"$folder/larger"

: >"$folder/out" # it is read at once
"$binary" 0 >"$folder/out" 2>"$folder/errors" &
server=$!
check 'echo says where it listens' 'no line within 10 s' within 100 is_listening
[ "$failed" = 0 ] || finish
port=$(sed 's/.*://' "$folder/out")

check 'echo echoes text' 'other bytes came back' echoes text --text
check 'echo echoes bytes' 'other bytes came back' echoes bytes --binary
check 'echo echoes 16 MiB' 'other bytes came back' echoes large --binary -B 16777216
check 'echo refuses a byte more' 'no close 1009' is_refused_with 1009 larger --binary -B 16777217
check 'echo answers pings' 'no pong within 1.5 s' answers_pings
check 'echo answers a plain GET with 400' 'another answer' \
    answers 400 'a WebSocket upgrade is expected here'
check 'echo answers a GET without a version with 400' 'another answer' \
    answers 400 'Sec-WebSocket-Version must be there once' \
    --header 'Connection: Upgrade' --header 'Upgrade: websocket'
check 'echo answers another version with 426' 'another answer' \
    answers 426 'Sec-WebSocket-Version must be 13' --header 'Sec-WebSocket-Version: 12' \
    --header 'Connection: Upgrade' --header 'Upgrade: websocket'
check 'echo still echoes' 'other bytes came back' echoes text --text

kill -TERM "$server" 2>/dev/null
check 'echo ends on TERM' 'it is still there after 20 s' within 200 has_ended
has_ended || kill -KILL "$server"
wait "$server"
check 'echo exits with 0' 'another status' [ $? = 0 ]
server=
check 'echo says nothing on stderr' "$(head -n 1 "$folder/errors")" \
    cmp -s /dev/null "$folder/errors"
finish

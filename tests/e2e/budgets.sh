#!/usr/bin/env bash
# budgets.sh [PART...] - every client and caller has a budget of the loop's time and of its memory. What is about
# time is a ratio of two measures of the same run, or an order; all else is counted.
# build: asan/wspush release/load_client
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

free_port
ADMIN=127.0.0.1:$FREE

at_least() {
    [ "$(metric "$1")" -ge "$2" ]
}

becomes() {
    [ "$(metric "$1")" = "$2" ]
}

# at_most NAME LIMIT ACTUAL
at_most() {
    if [ "$3" -le "$2" ]; then
        ok "$1"
    else
        bad "$1" "$3 is more than $2"
    fi
}

microseconds() {
    echo "${EPOCHREALTIME/[.,]/}"
}

# --- raw connections --------------------------------------------------------------------------

# upgrade SYSTEM: connects a client that reads only when it is told to; it is $RAW.
upgrade() {
    local line LC_ALL=C
    exec {RAW}<>"/dev/tcp/127.0.0.1/$PORT"
    lines "GET /ws?systemId=$1 HTTP/1.1" "${UPGRADE[@]}" >&"$RAW"
    while read -r -t 10 line <&"$RAW" && [ "$line" != $'\r' ]; do :; done
    take_frame
}

# take_frame: reads a short frame of the server's; its first byte is in $OPCODE, in decimal, its text in
# $PAYLOAD.
take_frame() {
    local length LC_ALL=C
    read -r -t 20 -d '' -N 1 OPCODE <&"$RAW" && read -r -t 20 -d '' -N 1 length <&"$RAW" || return 1
    OPCODE=$(printf %d "'$OPCODE")
    OPCODE=$((OPCODE & 255))
    length=$(($(printf %d "'$length") & 255))
    PAYLOAD=''
    [ $length = 0 ] || read -r -t 20 -d '' -N $length PAYLOAD <&"$RAW"
}

# send_frame OPCODE TEXT: with a mask of spaces, which turns letters over.
send_frame() {
    local masked
    masked=$(tr 'a-zA-Z' 'A-Za-z' <<<"$2")
    printf "\\x$(printf %x $((128 + $1)))\\x$(printf %x $((128 + ${#2})))    %s" "$masked" >&"$RAW"
}

# --- the loop's time --------------------------------------------------------------------------

# One token pipelines sends to its crowd. The answers of another system's calls come in between.
pipelining() {
    local crowd=1500 sends=300 begin took longest=0 body i hog other
    start_with_load '[notice]
scope = off'
    other=$TOKEN
    ask "open $crowd"
    body='{"code":0,"msg":"","data":0}'
    for ((i = 0; i < sends; i++)); do
        request send_to_system "$body"
    done >"$DIR/sends"
    sign_up small
    mkfifo "$DIR/calls" "$DIR/called"
    build/release/load_client "$PORT" small "$TOKEN" <"$DIR/calls" >"$DIR/called" 2>>"$DIR/load.err" &
    CLIENTS+=($!)
    exec {hog}<>"/dev/tcp/127.0.0.1/$PORT" {calls}>"$DIR/calls" {called}<"$DIR/called"
    begin=$(microseconds)
    cat "$DIR/sends" >&"$hog"
    timeout 100 grep -c -m $sends 'HTTP/1.1 200' <&"$hog" >"$DIR/hogged" &
    i=0
    while [ ! -s "$DIR/hogged" ] && [ $i -lt 20000 ]; do
        i=$((i + 1))
        echo 'call 1' >&"$calls"
        read -r -t 60 REPLY <&"$called"
        [ "$(value longest)" -le $longest ] || longest=$(value longest)
    done
    took=$(($(microseconds) - begin))
    echo "# $sends sends to $crowd took $took us, $i calls of another system, the longest $longest us"
    at_most 'a call of another system waits for a fraction of what is pipelined' $((took / 3)) $longest
    exec {hog}>&- {calls}>&- {called}<&-
    wait $!
    TOKEN=$other
    ask "frames $((crowd * sends))"
    expect 'all that was sent has come' "frames $((crowd * sends))" "$REPLY"
    stop_with_load
}

# --- notices ----------------------------------------------------------------------------------

# Members that leave in one moment are not told of each other: what is sent does not grow with their square.
leaving() {
    local crowd=900 before sent
    start_with_load
    ask 'open 10'
    ask 'bind stays'
    ask "open $((crowd - 10))"
    ask 'bind g'
    expect 'a crowd' "bound $crowd" "$REPLY"
    ask "frames $((10 * 11 / 2 + crowd * (crowd + 1) / 2))"
    expect 'each was told of those who joined' "frames $((10 * 11 / 2 + crowd * (crowd + 1) / 2))" "$REPLY"
    before=$(metric sent_messages_total)
    freeze "$SERVER"
    ask "drop $crowd"
    thaw "$SERVER"
    wait_for becomes clients 0
    expect 'they have left' '0 0' "$(online_count g) $(online_count stays)"
    sent=$(($(metric sent_messages_total) - before))
    echo "# $crowd members left in one moment, and were sent $sent messages"
    # they come in a few shares of the loop, and not one by one
    at_most 'who leaves is not told who leaves as well' $((crowd * crowd / 8)) $sent
    stop_with_load
}

# Groups with more than max_members members are not told who comes and goes.
crowded_group() {
    local before
    start_with_load '[notice]
max_members = 20'
    ask 'open 60'
    before=$(metric sent_messages_total)
    ask 'bind g'
    expect 'up to max_members each join is told' $((20 * 21 / 2)) $(($(metric sent_messages_total) - before))
    expect_match 'the log says so once, with the group' \
        '1 *notices are off*system="shop"*group="g"*max_members=20*' \
        "$(grep -c 'notices are off' "$DIR/log") $(grep 'notices are off' "$DIR/log")"
    ask "frames $((20 * 21 / 2))"
    freeze "$SERVER"
    ask 'drop 45'
    thaw "$SERVER"
    wait_for becomes clients 15
    at_least() { [ "$(metric sent_messages_total)" -ge "$1" ]; }
    wait_for at_least $((before + 20 * 21 / 2 + 6 * 15))
    expect 'and who leaves is told again from there on' told \
        "$(at_least $((before + 20 * 21 / 2 + 6 * 15)) && echo told)"
    # in one share of the loop, or in several: then some are told who leave as well
    at_most 'but not before' $((20 * 21 / 2 + 20 + 19 + 18 + 17 + 16 + 15)) $(($(metric sent_messages_total) - before))
    stop_with_load
}

# --- memory -----------------------------------------------------------------------------------

# A client pings and reads nothing. Of the pongs that wait only the newest is kept.
pings() {
    local reader
    start_with_load '[websocket]
ping = 300' # it may take long until the client reads
    upgrade shop
    expect_match 'a client' '129 *clientId*' "$OPCODE $PAYLOAD"
    {
        printf '\x89\xfd    %0125d' 0 >"$DIR/ping"
        for _ in 1 2 3 4 5 6; do # 131 bytes each
            cat "$DIR"/ping{,,,,,,,,,} >"$DIR/pings"
            mv "$DIR/pings" "$DIR/ping"
        done
        head -c 13100000 "$DIR/ping" # 100,000 of them: more than the sockets can hold the pongs of
        printf '\x89\x84    LAST'
    } >&"$RAW" &
    wait $!
    wait_for at_least received_bytes_total 13100000
    echo "# 100,000 pongs nobody read: $(metric buffered_bytes) bytes of memory"
    at_most 'no more pongs wait than one read can ask for' 131072 "$(metric buffered_bytes)"
    expect 'the client stays' 1 "$(metric clients)"
    send_frame 1 id
    cat <&"$RAW" >"$DIR/pongs" & # bash itself would take longer than a ping may go unanswered
    reader=$!
    wait_for grep -aq clientId "$DIR/pongs"
    kill_process $reader
    expect 'the newest ping is answered, then what came behind it' 1 \
        "$(LC_ALL=C grep -ac $'\x8a\x04last\x81.*clientId' "$DIR/pongs")"
    exec {RAW}>&-
    stop_with_load
}

# All input that is kept has a limit: beyond it the largest is refused, and who asks for little is served.
half_bodies() {
    local i fd fds=() refused=0 line
    start_with_load '[limits]
max_buffered = 1 MiB
head_timeout = 60
idle_timeout = 60'
    for ((i = 0; i < 40; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
        fds+=($fd)
        lines 'POST /api/send_to_system HTTP/1.1' 'Host: x' "Token: $TOKEN" 'Content-Length: 1000000' >&"$fd"
        head -c 100000 /dev/zero >&"$fd"
    done
    wait_for at_least shed_connections_total 20
    wait_for below buffered_bytes 1048577
    echo "# 40 halves of bodies: $(metric buffered_bytes) bytes kept, $(metric shed_connections_total) refused"
    at_most 'no more is kept than max_buffered' 1048576 "$(metric buffered_bytes)"
    expect_match 'other calls are served' '200 {"code":0,*' "$(call "${LIST[@]}")"
    for fd in "${fds[@]}"; do
        if read -r -t 0 <&"$fd" && read -r -t 5 line <&"$fd"; then
            [[ $line != 'HTTP/1.1 503 '* ]] || refused=$((refused + 1))
        fi
        exec {fd}>&-
    done
    expect 'those that are refused were told' "$(metric shed_connections_total)" $refused
    stop_with_load
}

below() {
    [ "$(metric "$1")" -lt "$2" ]
}

# Output as well: of clients that read nothing the one that most waits for is closed.
unread_pushes() {
    local i
    start_with_load '[limits]
max_buffered = 1 MiB
[websocket]
send_queue = 64 MiB'
    {
        printf '{"code":0,"msg":"","data":"'
        head -c 900000 /dev/zero | tr '\0' x
        printf '"}'
    } >"$DIR/push"
    upgrade shop
    for ((i = 0; i < 30; i++)); do # the sockets hold some of it
        post /api/send_to_system "@$DIR/push" >/dev/null
    done
    wait_for becomes clients 0
    expect 'a client for which too much waits is closed' '0 1' "$(metric clients) $(metric slow_closes_total)"
    at_most 'and what waited for it is gone' 1048576 "$(metric buffered_bytes)"
    exec {RAW}>&-
    stop_with_load
}

# --- a standstill -----------------------------------------------------------------------------

# The server stands still for longer than a client may be silent, while its pong is on the way.
standstill() {
    start_with_load '[websocket]
ping = 1
pong_timeout = 1
[limits]
idle_timeout = 2'
    local api answer
    upgrade shop
    exec {api}<>"/dev/tcp/127.0.0.1/$PORT"
    request "${LIST[@]}" | head -c 200 >&"$api"
    take_frame
    expect 'a ping has a payload' '137 wspush' "$OPCODE $PAYLOAD"
    freeze "$SERVER"
    send_frame 10 wspush
    request "${LIST[@]}" | tail -c +201 >&"$api"
    sleep 4
    thaw "$SERVER"
    read -r -t 20 answer <&"$api"
    expect_match 'what was sent meanwhile came in time' 'HTTP/1.1 200 *' "$answer"
    send_frame 1 ping
    take_frame
    while [ "$OPCODE" = 137 ]; do
        take_frame
    done
    expect 'a client whose pong was waiting stays' '129 pong' "$OPCODE $PAYLOAD"
    while take_frame && [ "$OPCODE" = 137 ]; do :; done # and now it does not answer
    expect_match 'one that is silent is told why it is closed' '136 *no pong' "$OPCODE $PAYLOAD"
    exec {RAW}>&- {api}>&-
    stop_with_load
}

# --- full is told at once ---------------------------------------------------------------------

full() {
    local i answer answered=0
    start_with_load '[limits]
max_connections = 20
head_timeout = 60'
    ask 'open 20'
    ask 'silent 10'
    for ((i = 0; i < 10; i++)); do
        answer=$(call "${LIST[@]}" -m 20)
        case $answer in
        '429 {"code":-1006,'*) answered=$((answered + 1)) ;;
        '000 '*) ;; # closed at once
        *) bad 'beyond the limit a call is refused' "$answer" ;;
        esac
    done
    echo "# $answered of 10 calls beyond max_connections were answered, beside 10 silent connections"
    at_most 'silent connections beyond the limit make room' $answered 5
    expect 'those within it stay' 20 "$(metric clients)"
    stop_with_load
}

# --- the end ----------------------------------------------------------------------------------

# One client is told at once, whatever `drain` is.
few_leave_at_once() {
    DRAIN=300 start_with_load
    stop_load
    client one shop
    kill -TERM "$SERVER"
    expect 'a single client is told to go' '1001 going away' "$(closed one)"
    ended
    expect_match 'the log says that a second signal ends it' '*a second signal ends it at once*' \
        "$(grep ' stopping' "$DIR/log")"
}

PARTS=(pipelining leaving crowded_group pings half_bodies unread_pushes standstill full few_leave_at_once)
[ $# = 0 ] || PARTS=("$@")
touch "$DIR/load.err"
for part in "${PARTS[@]}"; do
    "$part"
done
finish

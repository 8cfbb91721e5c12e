#!/usr/bin/env bash
# websocket.sh - what WebSocket clients see of a running server, from the upgrade to its last close frame. Frames of
# every kind are in tests/conformance/rfc6455.c; slow readers and clients that vanish in misbehaving_clients.sh; Origin
# and the end in signals.sh.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

HELLO='1 {"code":0,"msg":"success","data":{"clientId":"ID"}}'

# frame BYTE [TEXT]: prints a frame with this first byte (in hex digits) and a mask of zeros.
frame() {
    local text=${2-} LC_ALL=C size
    printf -v size '\\x%02x' $((128 + ${#text}))
    [ ${#text} -le 125 ] ||
        printf -v size '\\xfe\\x%02x\\x%02x' $((${#text} / 256)) $((${#text} % 256))
    printf "\\x$1$size\0\0\0\0%s" "$text"
}

# goodbye: a close frame with the code 1000.
goodbye() {
    frame 88 $'\x03\xe8'
}

# letters COUNT
letters() {
    printf "%$1s" '' | tr ' ' x
}

# decode: reads an answer to an upgrade and the frames behind it; prints its status and a line
# "OPCODE PAYLOAD" for each frame, where the payload of a close frame is "CODE REASON".
decode() {
    od -An -v -tu1 | LC_ALL=C awk '
        function text(from, to,   out) {
            for (out = ""; from <= to; from++) out = out sprintf("%c", byte[from])
            return out
        }
        { for (i = 1; i <= NF; i++) byte[++count] = $i }
        END {
            print text(10, 12)
            for (at = 1; at <= count && text(at, at + 3) != "\r\n\r\n"; at++);
            for (at += 4; at <= count; at += size) {
                opcode = byte[at] - 128; size = byte[at + 1]; at += 2
                if (size == 126) { size = byte[at] * 256 + byte[at + 1]; at += 2 }
                if (opcode == 8 && size)
                    print 8, byte[at] * 256 + byte[at + 1], text(at + 2, at + size - 1)
                else
                    print opcode, text(at, at + size - 1)
            }
        }' | sed 's/"clientId":"[0-9a-f]\{16\}"/"clientId":"ID"/; s/ *$//'
}

# ws [QUERY]: upgrades, sends its input, and prints what comes back, decoded.
ws() {
    { lines "GET /ws?${1-systemId=shop} HTTP/1.1" "${UPGRADE[@]}" && cat; } | talk | decode
}

# --- upgrades ---------------------------------------------------------------------------------

upgrade() {
    { lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" && goodbye; } | talk >"$DIR/answer"
    expect 'the answer to an upgrade' 'HTTP/1.1 101 Switching Protocols
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=' \
        "$(tr -d '\r' <"$DIR/answer" | sed '/^$/,$d')"
    expect 'the first frame' "101
$HELLO
8 1000" "$(decode <"$DIR/answer")"
    expect 'a systemId of a form, with a plus for a space' "101
$HELLO
8 1000" "$(goodbye | ws 'systemId=my+%C3%BC%26%2F')"
    expect 'a subprotocol is accepted' 'Sec-WebSocket-Protocol: chat' "$({
        lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" 'Sec-WebSocket-Protocol: chat, superchat'
        goodbye
    } | talk | tr -d '\r' | sed '/^$/,$d' | grep -a '^Sec-WebSocket-Protocol')"
    expect 'a systemId that is percent-encoded' "101
$HELLO
8 1000" "$(goodbye | ws 'x=%20&systemId=my%20%C3%BC%26%2F&y')"
}

unknown_systems() {
    local query long
    long=$(letters 129)
    for query in '' systemId systemId= systemId=none systemId=shop%20 systemId=shop+ systemId=Shop \
        systemid=shop systemId=shop%00 systemId=shop% systemId=%4 systemId=%zz "systemId=$long"; do
        expect_match "no system: ${query:0:20}" '101
1 {"code":-1001,"msg":"?*","data":\[\]}
8 1008 ?*' "$(goodbye | ws "$query")"
    done
    client stranger none
    expect_match 'a real client is closed with 1008' '1008 *' "$(closed stranger)"
}

# upgrade_outcome TARGET LINE...: prints the outcome of an upgrade that fails.
upgrade_outcome() {
    local target=$1
    shift
    lines "$target" 'Connection: close' "$@" | talk >"$DIR/answer"
    tr -d '\r' <"$DIR/answer" | sed '/^$/,$d' >"$DIR/headers"
    sed -n 's/^HTTP\/1.1 \(...\) .*/\1/p' "$DIR/headers" >"$DIR/status"
    sed '1,/^\r$/d' "$DIR/answer" >"$DIR/body"
    outcome
}

# The answer is an envelope; tests/conformance/rfc6455.c has all ways in which an upgrade can be wrong.
bad_upgrades() {
    local get='GET /ws?systemId=shop HTTP/1.1' start=('Host: x' 'Connection: Upgrade' 'Upgrade: websocket')
    expect_match 'no upgrade at all' '400 -1 ?*' "$(upgrade_outcome "$get" 'Host: x')"
    expect_match 'another version' '426 -1 ?*' \
        "$(upgrade_outcome "$get" "${start[@]}" 'Sec-WebSocket-Version: 8' "${UPGRADE[4]}")"
    expect '426 says which version' 1 "$(grep -ci '^Sec-WebSocket-Version: 13' "$DIR/headers")"
}

# --- frames -----------------------------------------------------------------------------------

# said: prints what comes back for the frames in its input, but for what every upgrade brings.
said() {
    ws | sed '1,2d'
}

client_frames() {
    local name sent expected long
    long=$(letters 8192)
    expect 'the text ping is answered' $'1 pong\n8 1000' "$({ frame 81 ping && goodbye; } | said)"
    expect 'also in pieces' $'1 pong\n8 1000' "$({ frame 01 pi && frame 80 ng && goodbye; } | said)"
    expect 'and again' $'1 pong\n1 pong\n8 1000' \
        "$({ frame 81 ping && frame 81 other && frame 81 ping && goodbye; } | said)"
    expect 'nothing else is' '8 1000' "$({
        frame 81 PING && frame 81 'ping ' && frame 81 pin && frame 82 ping && frame 81 '' && goodbye
    } | said)"
    expect 'the text id is answered with the first frame' "$HELLO
1 pong
$HELLO
8 1000" "$({ frame 81 id && frame 81 ping && frame 01 i && frame 80 d && frame 82 id && goodbye; } | said)"
    expect 'a message of 8,192 bytes' $'1 pong\n8 1000' \
        "$({ frame 81 "$long" && frame 82 "$long" && frame 81 ping && goodbye; } | said)"
    while IFS='|' read -r name expected sent; do
        expect_match "$name" "$expected ?*" "$(eval "$sent" | said)"
    done <<END
a text of 8,193 bytes|8 1009|frame 81 x$long
a binary message of 8,193 bytes|8 1009|frame 82 x$long
8,193 bytes in two frames|8 1009|frame 01 $long; frame 80 x
END
    expect 'a close code of the client' '8 4321' "$(frame 88 $'\x10\xe1bye' | said)"
    client talker shop
    echo ping >"$DIR/talker.in"
    expect 'a real client is answered' pong "$(frames talker 1)"
}

max_message() {
    expect 'max_message: that much' '8 1000' "$({ frame 81 "$(letters 100)" && goodbye; } | said)"
    expect_match 'max_message: one more' '8 1009 ?*' "$(frame 81 "$(letters 101)" | said)"
}

# --- signs of life ----------------------------------------------------------------------------

# since TIME: prints the milliseconds that have passed.
since() {
    echo $(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 1000))
}

silence() {
    local begin=$EPOCHREALTIME answer
    answer=$(ws </dev/null)
    begin=$(since "$begin")
    expect 'a client that does not answer is pinged, and closed' "101
$HELLO
9 wspush
8 1001 no pong" "$(uniq <<<"$answer")"
    expect_time 'after ping + pong_timeout, and five seconds to answer that' 6000 12000 "$begin"
    expect 'a client that speaks instead is not' $'9 wspush\n1 pong\n8 1000' "$({
        lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}"
        for _ in {1..12}; do
            frame 81 hello
            sleep 0.2
        done
        frame 81 ping
        goodbye
    } | drip | decode | sed '1,2d' | uniq)"
}

# A client that is closed by a call and never says a word.
silent_end() {
    local fd part
    exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
    lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" >&"$fd"
    while IFS= read -r -t 10 -d '}' -u "$fd" part && [[ $part != *clientId* ]]; do :; done
    part=${part##*:\"}
    request close_client "{'clientId':'${part%\"}'}" 'Connection: close' | talk >"$DIR/silent"
    expect_match 'a client that says nothing can be closed' '*"msg":"success"*' \
        "$(tail -n 1 "$DIR/silent")"
    timeout 15 cat <&"$fd" >"$DIR/silent"
    expect 'and is ended though it does not answer, long before a ping is due' 0 $?
    exec {fd}>&-
}

# --- the end ----------------------------------------------------------------------------------

# Before the drain, balancers are told for a while that this node is going; new clients are served.
drain_wait() {
    local code
    client before shop
    kill -TERM "$SERVER"
    wait_for grep -q ' stopping' "$DIR/log"
    code=$(curl -s -o /dev/null -w '%{http_code}' "http://$ADMIN/readyz")
    client meanwhile shop
    expect 'drain_wait: not ready, and those who come get in' '503 101' "$code 101"
    expect_match 'and are served' '200 {"code":0,*' "$(call client_info "{'clientId':'$ID'}")"
    ended
    expect 'then they are told to go' '1001 going away;1001 going away' \
        "$(closed before);$(closed meanwhile)"
    # by the server's own clock: this machine may stand still meanwhile
    expect 'not before drain_wait is over' '2 1' "$(awk '
        { split($1, at, /[T:Z]/); time = at[2] * 3600 + at[3] * 60 + at[4] }
        / stopping:/ { asked = time }
        / code=1001 / { told++; late += asked && (time < asked ? time + 86400 : time) >= asked + 4 }
        END { print told, late == told }' "$DIR/log")"
}

configure
start
sign_up 'my ü&/'
sign_up shop
upgrade
unknown_systems
bad_upgrades
client_frames
stop

configure '[websocket]
max_message = 100'
start
expect_match 'a token is still good after a restart' '200 {"code":0,*' \
    "$(call "${LIST[@]}")"
max_message
stop

configure '[websocket]
ping = 0.3
pong_timeout = 1.7'
start
silence
stop

configure
start
silent_end
stop

free_port
ADMIN=127.0.0.1:$FREE
DRAIN='30
drain_wait = 4' configure
rm "$DIR/log"
start
drain_wait
finish

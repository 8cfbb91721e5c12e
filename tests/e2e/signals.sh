#!/usr/bin/env bash
# signals.sh - what a server does at SIGHUP, SIGUSR1, SIGTERM; what it logs, and what
# it tells systemd.
# build: asan/wspush release/notify_socket release/load_client
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# change SECTION KEY VALUE: writes it into the configuration, in the place of what was there.
change() {
    awk -v section="[$1]" -v key="$2" -v line="$2 = $3" '
        /^\[/ { inside = $0 == section }
        inside && $1 == key { next }
        { print }
        $0 == section { print line; found = 1 }
        END { if (!found) print section "\n" line }' "$DIR/config.ini" >"$DIR/changed.ini"
    mv "$DIR/changed.ini" "$DIR/config.ini"
}

# hang_up: sends SIGHUP, waits until it has been met, and leaves what was logged of it in $LOGGED,
# without the time.
hang_up() {
    local before
    before=$(grep -c -e 'SIGHUP: the conf' -e 'SIGHUP: reload failed' "$DIR/log")
    kill -HUP "$SERVER"
    wait_for more_than "$before"
    LOGGED=$(awk '/SIGHUP/ { sub(/^[^ ]* /, ""); print }' "$DIR/log" | tail -n +$((SEEN + 1)))
    SEEN=$(grep -c SIGHUP "$DIR/log")
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
more_than() {
    [ "$(grep -c -e 'SIGHUP: the conf' -e 'SIGHUP: reload failed' "$DIR/log")" -gt "$1" ]
}

READ='info SIGHUP: the configuration has been read again'
KEPT='error SIGHUP: reload failed, keeping the old configuration'

nothing_new() {
    hang_up
    expect 'nothing has changed' "$READ" "$LOGGED"
}

log_level() {
    call none '{}' >/dev/null
    change log level warn
    hang_up
    expect 'the level is told while it still can be' \
        "info SIGHUP: changed section=\"log\" key=\"level\" from=\"debug\" to=\"warn\"
$READ" "$LOGGED"
    call none '{}' >/dev/null
    change log level debug
    hang_up
    expect 'and when it can be again' \
        "info SIGHUP: changed section=\"log\" key=\"level\" from=\"warn\" to=\"debug\"
$READ" "$LOGGED"
    call none '{}' >/dev/null
    wait_for called 2
    expect 'between them no call was logged' 2 "$(grep -c 'debug call path="/api/none"' "$DIR/log")"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
called() {
    [ "$(grep -c 'debug call path="/api/none"' "$DIR/log")" -ge "$1" ]
}

limits() {
    expect_match 'a body that is allowed' '400 *' "$(call get_online_list "$(printf '%2000s' ' ')")"
    timeout 60 bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT; cat <&3 && echo closed" >"$DIR/before" &
    local before=$! begin=${EPOCHREALTIME/[.,]/}
    change limits max_body 1000
    change limits api_rate 1
    change limits head_timeout 1.25
    change limits idle_timeout 2.5
    hang_up
    expect 'what has changed is told' "info SIGHUP: changed section=\"limits\" key=\"max_body\" from=\"1048576\" to=\"1000\"
info SIGHUP: changed section=\"limits\" key=\"head_timeout\" from=\"10\" to=\"1.250\"
info SIGHUP: changed section=\"limits\" key=\"idle_timeout\" from=\"75\" to=\"2.500\"
info SIGHUP: changed section=\"limits\" key=\"api_rate\" from=\"0\" to=\"1\"
$READ" "$LOGGED"
    expect_match 'max_body' '413 *' "$(call get_online_list "$(printf '%2000s' ' ')")"
    expect_match 'api_rate' '[1-9]*' "$({
        for _ in {1..40}; do request "${LIST[@]}"; done
        request "${LIST[@]}" 'Connection: close'
    } | talk | grep -ac 'HTTP/1.1 429')"
    expect 'head_timeout' closed "$(timeout 60 bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT; cat <&3 && echo closed")"
    wait $before
    expect 'head_timeout of a connection from before' closed "$(cat "$DIR/before")"
    expect_time 'which is not the old one of 10 s' 0 8000 $(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
    change limits max_body 1 # below what is allowed
    hang_up
    expect_match 'a bad value changes nothing' "$KEPT error=\"$DIR/config.ini:*max_body must be a size*\"" "$LOGGED"
    expect_match 'and says so' '413 *' "$(call get_online_list "$(printf '%2000s' ' ')")"
    change limits max_body '1 MiB'
    change limits api_rate 0
    change limits head_timeout 10
    hang_up
    expect_match 'back again' '200 *' "$(call get_online_list "{'groupName':'g'$(printf '%2000s' ' ')}")"
}

connections() {
    local name
    for name in one two three; do
        client $name shop
    done
    change limits max_connections 3
    hang_up
    expect_match 'max_connections' '429*' "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    expect 'those that are there stay' pong "$(echo ping >"$DIR/one.in"; frames one 1)"
    change limits max_connections 100000000
    hang_up
    expect_match 'a number out of range' "$KEPT*max_connections must be a number*" "$LOGGED"
    change limits max_connections 9000000
    hang_up
    expect_match 'more than there can be' "$KEPT error=\"*max_connections = 9000000 needs * descriptors*raise ulimit*" "$LOGGED"
    change limits max_connections 0
    change limits max_per_ip 3
    hang_up
    expect_match 'max_per_ip counts those that are there' '429*' "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    change limits max_per_ip 4
    hang_up
    expect_match 'one more is one more' '200*' "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    change limits max_per_ip 0
    hang_up
    kill_process "$CLIENT"
    wait_for grep -q 'client lost' "$DIR/log"
    change limits max_per_ip 3
    hang_up
    expect_match 'one that went meanwhile does not count' '200*' "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    change limits max_per_ip 0
    hang_up
}

# upgrade ORIGIN: prints the status of an upgrade.
upgrade() {
    lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" "Origin: $1" >"$DIR/upgrade"
    printf '\x88\x82\0\0\0\0\x03\xe8' >>"$DIR/upgrade"
    talk <"$DIR/upgrade" | head -n 1 | cut -d ' ' -f 2 | tr -d '\0'
} 2>/dev/null # bytes of frames

origins() {
    expect 'any origin' 101 "$(upgrade https://a.example)"
    change websocket allowed_origins 'https://b.example'
    hang_up
    expect 'allowed_origins' '403 101' "$(upgrade https://a.example) $(upgrade https://b.example)"
    expect_match 'who is refused is in the log, escaped' \
        '*info client rejected: its Origin is not among allowed_origins remote="127.0.0.1" origin="https://a.example\\"\\xff"' \
        "$(upgrade $'https://a.example"\xff' >/dev/null; grep 'not among' "$DIR/log" | tail -n 1)"
    change websocket allowed_origins 'https://b.example:443/ https://*.c.example:8443, null'
    hang_up
    expect 'ports, a slash, subdomains, null' '101 403 101 403 101 403' \
        "$(for origin in https://b.example https://b.example:8443 https://x.C.example:8443 https://c.example:8443 \
            null nil; do upgrade "$origin"; done | paste -sd ' ')"
    change websocket allowed_origins 'b.example'
    hang_up
    expect_match 'what no page can match is refused' "$KEPT error=\"$DIR/config.ini:*allowed_origins*not b.example\"" "$LOGGED"
    change websocket allowed_origins '*'
    hang_up
    expect 'a star is all' 101 "$(upgrade https://a.example)"
    change websocket allowed_origins ''
    hang_up
    expect 'none again are all' 101 "$(upgrade https://a.example)"
}

scope() {
    client four shop
    local four=$ID
    client five shop
    frames four 0 >/dev/null
    change notice scope system
    hang_up
    expect 'the scope' "info SIGHUP: changed section=\"notice\" key=\"scope\" from=\"group\" to=\"system\"
$READ" "$LOGGED"
    client six shop
    expect "[notice] scope" "{\"code\":1001,\"msg\":\"client online\",\"data\":{\"clientId\":\"$ID\",\"userId\":\"\",\"extend\":\"\"}}" \
        "$(frames four 1)"
    change notice scope off
    hang_up
    call bind_to_group "{'clientId':'$four','groupName':'g'}" >/dev/null
    change notice scope group
    hang_up
    call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
    expect_match 'scope = off told nobody' "{\"code\":1001*\"$ID\"*" "$(frames four 1)"
}

# A running server cannot do this; it says so and goes on.
restart_needed() {
    change common drain 3
    change auth register key:SECRET
    change redis password PASSWORD
    change admin listen 127.0.0.1:1
    change tls cert "$DIR/none.pem"
    change tls key "$DIR/none.key"
    hang_up
    expect 'what needs a restart' "warn SIGHUP: this change needs a restart section=\"tls\"
warn SIGHUP: this change needs a restart section=\"common\" key=\"drain\"
warn SIGHUP: this change needs a restart section=\"auth\" key=\"register\"
warn SIGHUP: this change needs a restart section=\"admin\" key=\"listen\"
warn SIGHUP: this change needs a restart section=\"redis\" key=\"password\"
$READ" "$LOGGED"
    expect 'no secret is in the log' 0 "$(grep -c -e SECRET -e PASSWORD "$DIR/log")"
    expect_match 'it is not taken up' '200 *' "$(call register "{'systemId':'other','password':'p'}")"
    cp "$DIR/config.ini" "$DIR/kept.ini"
    echo 'nonsense' >>"$DIR/config.ini"
    hang_up
    expect_match 'a file that cannot be read' "$KEPT error=\"$DIR/config.ini:*key = value is expected\"" "$LOGGED"
    rm "$DIR/config.ini"
    hang_up
    expect "a file that is gone is not the defaults'" "$KEPT error=\"$DIR/config.ini: No such file or directory: give a readable file with -c\"" "$LOGGED"
    mv "$DIR/kept.ini" "$DIR/config.ini"
}

# Variables hold at SIGHUP too, and the files that they name are read again.
variables() {
    halt
    printf '1 MiB\n' >"$DIR/max_body"
    configure
    export WSPUSH_LIMITS_MAX_BODY_FILE=$DIR/max_body
    start
    login shop
    SEEN=$(grep -c SIGHUP "$DIR/log")
    change limits max_body 5000
    hang_up
    expect 'the variable goes before what the file says now' "$READ" "$LOGGED"
    printf '1000\n' >"$DIR/max_body"
    hang_up
    expect 'what it names is read again' "info SIGHUP: changed section=\"limits\" key=\"max_body\" from=\"1048576\" to=\"1000\"
$READ" "$LOGGED"
    expect_match 'and taken up' '413 *' "$(call get_online_list "$(printf '%2000s' ' ')")"
    printf '1\n' >"$DIR/max_body"
    hang_up
    expect_match 'a bad value is told by its name' "$KEPT error=\"WSPUSH_LIMITS_MAX_BODY_FILE: max_body must be a size*\"" "$LOGGED"
    unset WSPUSH_LIMITS_MAX_BODY_FILE
    halt
    configure
    start
    login shop
    SEEN=$(grep -c SIGHUP "$DIR/log")
}

# logrotate renames the file and sends SIGUSR1.
reopened() {
    mv "$DIR/log" "$DIR/log.1"
    call none '{}' >/dev/null
    expect 'before the signal lines go to the old file' 1 "$(tail -n 1 "$DIR/log.1" | grep -c 'debug')"
    kill -USR1 "$SERVER"
    wait_for grep -q 'SIGUSR1: the log has been reopened' "$DIR/log"
    call none '{}' >/dev/null
    expect 'then to the new one' 1 "$(grep -c 'debug call' "$DIR/log")"
    rm "$DIR/log"
    mkdir "$DIR/log"
    kill -USR1 "$SERVER"
    call none '{}' >/dev/null
    expect_match 'a file that cannot be opened costs nothing' '404 *' "$(call none '{}')"
    rmdir "$DIR/log"
    kill -USR1 "$SERVER"
    wait_for grep -q 'SIGUSR1: the log has been reopened' "$DIR/log"
    expect_match 'and may be there again' '*reopened' "$(cat "$DIR/log")"
}

# --- what is logged ----------------------------------------------------------------------------

# Everything that is worth a line, in both formats.
events() {
    sign_up shop
    TOKEN=forged call get_online_list '{}' >/dev/null
    call bind_to_group "{'clientId':'x\\\"y\\u0007','groupName':'g'}" >/dev/null
    post $'/api/\xff%22%0a"' '{}' >/dev/null
    client polite shop
    printf '' >"$DIR/polite.in"
    call close_client "{'clientId':'$ID','code':4001,'reason':'a \\\"reason\\\"'}" >/dev/null
    client rude shop
    printf '%9000s\n' x >"$DIR/rude.in"
    client lost shop
    kill_process "$CLIENT"
    client stranger nobody
    lines 'GET / HTTP/1.1' 'Host: x' 'Bad header' | talk >/dev/null
    upgrade https://a.example >/dev/null
    wait_for grep -q 'closed by the client' "$DIR/log"
    client stays shop
    hang_up
}

text_log() {
    events
    halt
    expect 'every line has its time, level and message' '' \
        "$(grep -v -E '^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z (debug|info|warn|error) [a-zA-Z]' "$DIR/log")"
    expect_match 'an API call, at debug' '* debug call path="/api/register" status=200 code=-1004 microseconds=* remote="127.0.0.1" system="shop"' \
        "$(grep '/api/register' "$DIR/log")"
    expect_match 'one that was refused' '* debug call path="/api/get_online_list" status=401 code=-1002 microseconds=* remote="127.0.0.1"' \
        "$(grep 'code=-1002' "$DIR/log")"
    expect_match 'a client that the API closed' '* info client closed client="*" system="shop" remote="127.0.0.1" code=4001 reason="a \\"reason\\"" seconds=* queued=*' \
        "$(grep 'code=4001' "$DIR/log")"
    expect_match 'one that broke a limit' '* info client closed *code=1009 reason="*" seconds=*' "$(grep code=1009 "$DIR/log")"
    expect_match 'one that was lost' '* info client lost *code=1006 reason="closed by the peer" seconds=*' "$(grep code=1006 "$DIR/log")"
    expect_match 'one that closed by itself' '* info client closed *code=1000 reason="closed by the client" seconds=*' \
        "$(grep 'closed by the client' "$DIR/log")"
    expect_match 'one that was not let in' '* info client rejected remote="127.0.0.1" code=1008 reason="systemId is not registered"' \
        "$(grep "client rejected" "$DIR/log")"
    expect_match 'one that the server sent away' '* info client closed *code=1001 reason="going away" seconds=*' "$(grep 'going away' "$DIR/log")"
}

json_log() {
    change log format json
    rm "$DIR/log"
    start
    SEEN=0
    events
    halt
    expect 'jq reads every line, an object each' "$(wc -l <"$DIR/log")" \
        "$(jq -c 'select(type == "object" and (.time | type) == "string" and (.message | type) == "string"
            and (.level | IN("debug", "info", "warn", "error")))' "$DIR/log" | wc -l)"
    expect 'values are what they are' '["string","number"]' \
        "$(jq -c 'select(.code == 4001) | [(.reason | type), (.seconds | type)]' "$DIR/log")"
    expect 'quotes too' 'a "reason"' "$(jq -r 'select(.code == 4001) | .reason' "$DIR/log")"
    expect 'the same events as in text' "$(grep -c . "$DIR/text.log")" "$(wc -l <"$DIR/log")"
}

# --- systemd -----------------------------------------------------------------------------------

notified() {
    build/release/notify_socket "$DIR/notify" >"$DIR/heard" 2>&1 &
    local ear=$!
    wait_for test -S "$DIR/notify"
    export NOTIFY_SOCKET=$DIR/notify
    start
    wait_for grep -q READY "$DIR/heard"
    expect 'systemd hears that it is ready' 'READY=1 STATUS=serving' "$(cat "$DIR/heard")"
    kill -HUP "$SERVER"
    wait_for has_lines "$DIR/heard" 3
    expect_match 'that it reloads, and since when' 'RELOADING=1 MONOTONIC_USEC=[0-9]*' "$(sed -n 2p "$DIR/heard")"
    expect 'the time is that of the steady clock' 1 \
        "$(awk -F = -v now="$(cut -d ' ' -f 1 /proc/uptime)" 'NR == 2 { d = now * 1000000 - $3; print (d > -1000000 && d < 20000000) }' "$DIR/heard")"
    expect 'that it has' READY=1 "$(sed -n 3p "$DIR/heard")"
    client stays shop
    kill -TERM "$SERVER"
    wait_for grep -q STOPPING "$DIR/heard"
    kill -HUP "$SERVER"
    wait_for more_than 1
    ended
    expect 'and that it stops, whatever is read again meanwhile' 'STOPPING=1 STATUS=draining' "$(tail -n 1 "$DIR/heard")"
    expect 'the client was told to go' '1001 going away' "$(closed stays)"
    kill_process $ear
    NOTIFY_SOCKET=$DIR/nobody # where nobody listens
    start
    expect_match 'nobody has to listen' '404 *' "$(call none '{}')"
    stop
    unset NOTIFY_SOCKET
}

# --- the end -------------------------------------------------------------------------------------

# 400 clients, 200 a second: they are told one after the other, and what is queued comes before.
drained() {
    local begin passed steps
    start
    start_load
    ask 'open 400'
    ask 'bind g'
    client last shop
    call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
    frames last 1 >/dev/null
    call send_to_group "{'groupName':'g','code':7,'msg':'bye','data':1}" >/dev/null
    begin=${EPOCHREALTIME/./}
    kill -TERM "$SERVER"
    ask 'closed 400'
    expect_match 'all of them are told to go' 'closed 400 going_away 400 *' "$REPLY"
    ended
    # by the server's own clock; in tenths of a second, for this machine may stand still in some of twenty
    steps=$(sed -n 's/^\([^ ]*:[0-9.]*\)[0-9][0-9]Z .* code=1001 .*/\1/p' "$DIR/log" | sort -u | wc -l)
    expect "one after the other (in $steps tenths of a second)" 1 $((steps >= 5))
    passed=$(((${EPOCHREALTIME/./} - begin) / 1000))
    expect_time 'it takes two seconds, for drain allows more' 1900 15000 $passed
    expect_match 'what was queued came before' '*"code":7,"msg":"bye"*' "$(cat "$DIR/last.out")"
    expect '1001' '1001 going away' "$(closed last)"
    stop_load
}

# The second signal does not wait.
at_once() {
    local begin
    start
    client one shop
    kill -TERM "$SERVER"
    wait_for grep -q 'stopping' "$DIR/log"
    begin=$SECONDS
    kill -TERM "$SERVER"
    ended
    expect 'a second SIGTERM ends at once' '1 1' "$(grep -c stopped "$DIR/log") $((SECONDS - begin < 25))"
}

SEEN=0
configure
start
sign_up shop
nothing_new
log_level
limits
connections
origins
scope
restart_needed
variables
reopened
stop
rm "$DIR/log"
configure
start
text_log
cp "$DIR/log" "$DIR/text.log"
json_log
rm "$DIR/log"
DRAIN=1
configure
notified
DRAIN=30
configure
drained
rm "$DIR/log"
DRAIN=30
configure
at_once
finish

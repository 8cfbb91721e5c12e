#!/usr/bin/env bash
# misbehaving_clients.sh [PART...] - misbehaving peers, many at a time, and resources that run out: the others notice
# nothing, and the server is afterwards as it was before. Lines with figures begin with a #.
# build: asan/wspush release/load_client
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# a sanitizer keeps freed memory for a while, which would look like a leak here
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=8:malloc_context_size=8"
case $WSPUSH in
*asan*) SLACK=65536 ;; # KiB that the process may have more than expected
*) SLACK=8192 ;;
esac

# --- the server, from outside -----------------------------------------------------------------

# memory FIELD: prints so many KiB of the server: VmRSS, or VmHWM, the most since fresh_peak.
memory() {
    awk -v field="$1:" '$1 == field { print $2 }' "/proc/$SERVER/status"
}

fresh_peak() {
    echo 5 >"/proc/$SERVER/clear_refs"
}

descriptors() {
    find "/proc/$SERVER/fd" -mindepth 1 2>/dev/null | wc -l
}

# Those that a limit of 64 allows; one inherited from elsewhere may be above it.
low_descriptors() {
    find "/proc/$SERVER/fd" -mindepth 1 -printf '%f\n' | awk '$1 < 64' | wc -l
}

# has_descriptors COUNT
has_descriptors() {
    [ "$(descriptors)" = "$1" ]
}

# worked: prints the hundredths of a second that the server has computed so far.
worked() {
    awk '{ print $14 + $15 }' "/proc/$SERVER/stat"
}

# within NAME LEAST MOST ACTUAL
within() {
    if [ "$4" -ge "$2" ] && [ "$4" -le "$3" ]; then
        ok "$1"
    else
        bad "$1" "$4 is not from $2 to $3"
    fi
}

figures() {
    echo "# $*"
}

# --- one who does not read --------------------------------------------------------------------

slow_reader() {
    local before
    start_with_load '[notice]
scope = off'
    ask 'open 999'
    ask 'bind g'
    ask 'flood g 16000 40'
    expect_match 'messages to 999 who read' 'sent 40 * whole 999 wrong 0 *' "$REPLY"
    figures "calls while all 999 read: $REPLY"
    ask 'stall 1'
    ask 'bind g'
    expect 'one is there who does not read' 1000 "$(online_count g)"
    jq -r '.data.list[]' "$DIR/body" | sort >"$DIR/before"
    before=$(memory VmRSS)
    fresh_peak
    ask 'flood g 16000 400'
    figures "and with one who does not: $REPLY"
    figures "KiB resident: $before before, $(memory VmHWM) at most, $(memory VmRSS) after"
    expect_match 'the 999 get all that is sent until it is closed' \
        "sent $(value sent) * whole 999 wrong 0 *" "$REPLY"
    within 'that is when more than send_queue waits for it' 66 399 "$(value sent)"
    expect_time 'no call has waited for it' 0 2000 $(($(value longest) / 1000))
    within 'the memory has not grown by much more than send_queue' 0 $((1024 + SLACK)) \
        $(($(memory VmHWM) - before))
    expect_match 'it has got part of it, in order, and is closed with 1013' \
        '* last 1 kept [0-9]* end 1013 slow' "$REPLY"
    expect 'it is not online any more' 999 "$(online_count g)"
    jq -r '.data.list[]' "$DIR/body" | sort >"$DIR/after"
    expect_match 'the log names it, and nobody else' \
        "*warn*slow*$(comm -23 "$DIR/before" "$DIR/after")*system=\"shop\"*127.0.0.1*" \
        "$(grep slow "$DIR/log")"
    expect 'once' 1 "$(grep -c slow "$DIR/log")"
    stop_with_load
}

# --- many sends at once -----------------------------------------------------------------------

# The crowd is so large that not all of it is written to in one turn, and nothing but what waits to
# be written moves the server on at the end. Requests are long and messages short: what is read in
# one turn would be a hundred MB of waiting messages if the crowd got them in shares alone.
backlog() {
    local crowd=4000 sends=1000 before body i api
    start_with_load '[notice]
scope = off
[websocket]
ping = 60
[limits]
head_timeout = 60
idle_timeout = 60'
    case $WSPUSH in
    *release*) ;;
    *) crowd=600 sends=50 ;;
    esac
    ask "open $crowd"
    ask 'bind g'
    expect 'a large crowd' "bound $crowd" "$REPLY"
    before=$(memory VmRSS)
    fresh_peak
    body="$(printf '%1000s' ''){\"groupName\":\"g\",\"code\":1,\"msg\":\"m\",\"data\":1}"
    for ((i = 0; i < sends; i++)); do
        lines 'POST /api/send_to_group HTTP/1.1' 'Host: x' "Token: $TOKEN" \
            "Content-Length: ${#body}"
        printf %s "$body"
    done >"$DIR/sends"
    exec {api}<>"/dev/tcp/127.0.0.1/$PORT"
    cat "$DIR/sends" >&"$api" &
    ask "frames $((crowd * sends))"
    expect 'gets all that is sent to it at once' "frames $((crowd * sends))" "$REPLY"
    wait $!
    exec {api}>&-
    figures "KiB resident: $before before, $(memory VmHWM) at most, $(memory VmRSS) after"
    within 'little of which waits in the memory (KiB)' 0 $((24576 + SLACK)) \
        $(($(memory VmHWM) - before))
    stop_with_load
}

# --- many who vanish --------------------------------------------------------------------------

vanishing() {
    local before
    start_with_load '[websocket]
ping = 1.5
pong_timeout = 3'
    before=$(descriptors)
    ask 'open 310'
    ask 'bind g'
    ask "frames $((310 * 311 / 2))"
    expect 'a group of 310' "frames $((310 * 311 / 2))" "$REPLY"
    ask 'vanish 300'
    ask 'offline'
    figures "1002 of 300 that vanished, ping 1.5 s, pong_timeout 3 s: $REPLY"
    expect_match 'the ten others are told of each of the 300 once' \
        'told 3000 of 3000 right 310 *' "$REPLY"
    expect_time 'not before pong_timeout' 2900 15000 "$(value first)"
    expect_time 'and after ping + pong_timeout' 2900 15000 "$(value last)"
    expect 'those who answer stay' 10 "$(online_count g)"
    ask 'ping'
    expect 'and are served' 'pongs 10' "$REPLY"
    wait_for eval "[ \$(descriptors) -le $((before + 10 + 4)) ]"
    within 'the descriptors are free again' "$before" $((before + 14)) "$(descriptors)"
    stop_with_load
}

# --- many who send slowly ---------------------------------------------------------------------

# check_drip KIND ANSWERED LEAST: checks what became of the 40 of one kind.
check_drip() {
    local line
    line=$(grep -o "$1 ended [0-9]* answered [0-9]* first [0-9]* last [0-9]*" "$DIR/drip")
    expect_match "each $1 that comes a byte at a time is ended" "$1 ended 40 answered $2 *" "$line"
    REPLY=$line
    expect_time "$1: at its deadline" "$3" 15000 "$(value first)"
    expect_time "$1: all of them" "$3" 15000 "$(value last)"
}

slow_senders() {
    local dripper begin rounds=0 served=0 longest=0
    start_with_load '[limits]
head_timeout = 1
idle_timeout = 2'
    ask 'open 20'
    build/release/load_client "$PORT" shop "$TOKEN" <<<'drip 40' >"$DIR/drip" 2>>"$DIR/load.err" &
    dripper=$!
    begin=$SECONDS
    while kill -0 $dripper 2>/dev/null && [ $((SECONDS - begin)) -lt 100 ]; do
        ask 'ping'
        [ "$REPLY" != 'pongs 20' ] || served=$((served + 1))
        ask 'call 10'
        case $REPLY in 'answers 10 '*) served=$((served + 1)) ;; esac
        [ "$(value longest)" -lt $longest ] || longest=$(value longest)
        rounds=$((rounds + 1))
        sleep 0.02
    done
    wait $dripper
    figures "200 that drip, head_timeout 1 s, idle_timeout 2 s: $(cat "$DIR/drip")"
    figures "others meanwhile: $rounds rounds, longest call $longest us"
    check_drip head 40 900
    check_drip body 40 1900
    check_drip chunk 40 1900
    check_drip frame 0 1900
    check_drip pieces 0 1900
    expect 'others are served meanwhile' $((2 * rounds)) $served
    within 'many times' 3 100000 $rounds
    expect_time 'without waiting' 0 2000 $((longest / 1000))
    stop_with_load
}

# --- descriptors run out ----------------------------------------------------------------------

# busy COMMAND...: runs it, which prints nothing, and prints what share of a core the server has
# computed meanwhile, in percent.
busy() {
    local begin=${EPOCHREALTIME/[.,]/} before
    before=$(worked)
    "$@"
    echo $((($(worked) - before) * 1000000 / (${EPOCHREALTIME/[.,]/} - begin)))
}

# crowded: 100 connections that say nothing, where there are fewer descriptors.
crowded() {
    local percent served=''
    ask 'silent 100'
    sleep 0.5
    figures "$(low_descriptors) descriptors of 64 in use"
    percent=$(busy sleep 2)
    figures "computing while connections wait: $percent % of a core"
    within "it does not spin (percent)" 0 20 "$percent"
    for _ in 1 2 3; do
        ask 'ping'
        served+="$REPLY "
        ask 'call 10'
        served+="${REPLY% longest*} "
    done
    expect 'clients and requests are served all the while' \
        'pongs 5 answers 10 pongs 5 answers 10 pongs 5 answers 10 ' "$served"
}

run_out() {
    local before answer all registration
    start_with_load '[limits]
head_timeout = 60
idle_timeout = 60'
    all=$(prlimit --pid "$SERVER" --nofile --noheadings --raw --output SOFT,HARD)
    ask 'open 5'
    ask 'call 1'
    before=$(($(descriptors) + 1))
    exec {registration}<>"/dev/tcp/127.0.0.1/$PORT"
    wait_for has_descriptors $before
    prlimit --pid "$SERVER" --nofile=64:"${all#* }"
    crowded
    expect 'all descriptors are in use' 64 "$(low_descriptors)"
    expect 'the log says so, once' 1 "$(grep -c 'no more connections can be accepted' "$DIR/log")"
    request register "{'systemId':'late','password':'secret'}" >&"$registration"
    read -r -t 100 answer <&"$registration"
    expect_match 'an account cannot be saved then' 'HTTP/1.1 503 *' "$answer"
    ask 'leave 60'
    ask 'speak'
    expect 'those who wait are taken when others leave' 'good 40 refused 0' "$REPLY"
    ask 'open 5'
    expect 'and so are clients' 'open 10' "$REPLY"
    wait_for has_descriptors $((before + 5))
    expect 'no descriptor is lost' $((before + 5)) "$(descriptors)"
    exec {registration}>&-
    expect 'and the account is saved now' '200 {"code":0,"msg":"success","data":[]}' \
        "$(call register "{'systemId':'late','password':'secret'}")"
    prlimit --pid "$SERVER" --nofile="${all/ /:}" # a sanitizer opens files at the end
    stop_with_load
}

few_from_the_start() {
    local whole=$WSPUSH before
    fresh '[limits]
head_timeout = 60
idle_timeout = 60'
    cat >"$DIR/few" <<SH
#!/bin/sh
ulimit -n 64
exec $WSPUSH "\$@"
SH
    chmod +x "$DIR/few"
    expect_match 'it can be started with 64 descriptors' '*is good' \
        "$("$DIR/few" -t -c "$DIR/config.ini" 2>&1)"
    "$DIR/few" -t -c "$DIR/config.ini" >/dev/null 2>&1 || return
    WSPUSH=$DIR/few
    start
    sign_up shop
    start_load
    ask 'open 5'
    ask 'call 1'
    before=$(descriptors)
    crowded # of those beyond the limit each new one ends the one that has been silent longest
    expect_match 'who asks is told, though others beyond the limit say nothing' '*429*' "$(
        for _ in 1 2 3 4; do
            curl -s -o /dev/null -w '%{http_code} ' "http://127.0.0.1:$PORT/nothing"
        done
    )"
    ask 'leave 100'
    wait_for has_descriptors "$before"
    expect 'no descriptor is lost by that' "$before" "$(descriptors)"
    ask 'silent 20'
    ask 'speak'
    expect 'who comes when they have left is answered' 'good 20 refused 0' "$REPLY"
    ask 'open 1'
    expect 'a client is taken then' 'open 6' "$REPLY"
    stop_with_load
    WSPUSH=$whole
}

# --- memory for what all connections keep -------------------------------------------------------

# Bodies that do not end: those that keep most are refused, and nobody else.
shedding() {
    local fd fds=() i line refused=0 waiting=0
    free_port
    local ADMIN=127.0.0.1:$FREE
    start_with_load '[limits]
max_buffered = 1 MiB'
    ask 'open 5'
    expect 'nothing is kept at first' 0 "$(metric buffered_bytes)"
    for i in 1 2 3 4; do
        exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
        fds+=("$fd")
        {
            lines 'POST /api/send_to_system HTTP/1.1' 'Host: h' "Token: $TOKEN" 'Content-Length: 1000000'
            head -c 400000 /dev/zero
        } >&"$fd"
    done
    # shellcheck disable=SC2329 # called by wait_for
    some_are_ended() { [ "$(metric shed_connections_total)" -ge 2 ]; }
    wait_for some_are_ended
    within 'no more than max_buffered is kept' 1 1048576 "$(metric buffered_bytes)"
    for fd in "${fds[@]}"; do
        if IFS= read -r -t 1 line <&"$fd"; then
            [[ $line != 'HTTP/1.1 503 '* ]] || refused=$((refused + 1))
        else
            waiting=$((waiting + 1))
        fi
    done
    expect 'who kept most is refused' "$(metric shed_connections_total)" $refused
    within 'others go on' 1 2 $waiting
    ask 'ping'
    expect 'clients are served' 'pongs 5' "$REPLY"
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
    # shellcheck disable=SC2329
    nothing_is_kept() { [ "$(metric buffered_bytes)" = 0 ]; }
    wait_for nothing_is_kept
    expect 'nothing is kept when they have gone' 0 "$(metric buffered_bytes)"
    stop_with_load
}

# --- coming and going -------------------------------------------------------------------------

storms() {
    local before warm threads i lists=''
    start_with_load '[limits]
max_per_ip = 1000'
    ask 'call 1'
    before=$(($(descriptors) + 2)) # a poller has started, and stays
    ask 'storm 2000'
    expect 'connections that come and go, in ten ways' 'connections 2000 answers 1400 bound 800' "$REPLY"
    wait_for has_descriptors "$before"
    threads=$(find "/proc/$SERVER/task" -mindepth 1 -maxdepth 1 | wc -l)
    warm=$(memory VmRSS)
    SECONDS=0
    ask 'storm 20000'
    figures "20,000 of them took $SECONDS s"
    expect 'and ten times as many' 'connections 20000 answers 14000 bound 8000' "$REPLY"
    wait_for has_descriptors "$before"
    expect 'all descriptors are closed' "$before" "$(descriptors)"
    expect 'there are no more threads' "$threads" \
        "$(find "/proc/$SERVER/task" -mindepth 1 -maxdepth 1 | wc -l)"
    figures "descriptors: $((before - 2)) at the start, $(descriptors) at the end"
    figures "KiB resident: $warm after 2,000, $(memory VmRSS) after 20,000 more"
    within 'the memory is as before (KiB more)' -1000000 $((SLACK / 4)) $(($(memory VmRSS) - warm))
    for i in 0 1 2 3 4 5 6 7; do
        lists+="$(online_count "storm$i") "
    done
    expect 'nobody is online' '0 0 0 0 0 0 0 0 ' "$lists"
    stop_load
    sleep 0.2
    stop
    expect_match 'no connection is left' '*connections=0 *' "$(grep ' stopping: ' "$DIR/log")"
    expect 'and nothing else was to be said' '' "$(grep -E ' (warn|error) ' "$DIR/log")"
}

# --- no room for accounts ---------------------------------------------------------------------

# Where the server sees its data_dir; it may be in another mount namespace.
data() {
    echo "/proc/$SERVER/root$DIR/data"
}

# refused_for REASON: an account cannot be saved; all is as it was.
refused_for() {
    cp "$(data)/accounts" "$DIR/accounts.before"
    expect_match "$1: the answer says so" "503 -1007 *could not be saved: $1*" \
        "$(refusal register "{'systemId':'more','password':'secret'}")"
    expect "$1: nothing is half-written" 'accounts key lock' "$(cd "$(data)" && echo *)"
    expect "$1: the accounts are as they were" '' \
        "$(cmp "$(data)/accounts" "$DIR/accounts.before" 2>&1)"
    expect_match "$1: the server goes on" '200 {"code":0,*' "$(call "${LIST[@]}")"
    expect_match "$1: nor has the name been taken" '200 -1005 *' \
        "$(refusal login "{'systemId':'more','password':'secret'}")"
}

# saved_now REASON: and later it can be.
saved_now() {
    expect "$1: later it succeeds" '200 {"code":0,"msg":"success","data":[]}' \
        "$(call register "{'systemId':'more','password':'secret'}")"
    stop
    start
    expect_match "$1: it is there after a restart" '200 {"code":0,*' \
        "$(call login "{'systemId':'more','password':'secret'}")"
    expect_match "$1: and so are those from before" '200 {"code":0,*' \
        "$(call login "{'systemId':'shop','password':'secret'}")"
    stop
}

file_limit() {
    local size
    fresh
    start
    sign_up shop
    size=$(stat -c %s "$(data)/accounts")
    prlimit --pid "$SERVER" --fsize="$((size - 1)):unlimited" # not even what there is now
    refused_for 'File too large'
    prlimit --pid "$SERVER" --fsize=unlimited
    saved_now 'File too large'
}

# The server sees a small file system of its own where its data_dir is.
disk_full() {
    local whole=$WSPUSH keeper
    fresh
    mkdir -p "$DIR/data"
    # shellcheck disable=SC2016 # expanded there
    unshare -m sh -c 'mount -t tmpfs -o size=64k,mode=700 tmpfs "$1" && echo mounted && exec sleep 500' \
        - "$DIR/data" >"$DIR/mounted" 2>&1 &
    keeper=$!
    CLIENTS+=($keeper)
    if ! wait_for has_lines "$DIR/mounted" 1 || ! grep -qx mounted "$DIR/mounted"; then
        echo "skip a full disk: no file system can be mounted: $(cat "$DIR/mounted")"
        return
    fi
    cat >"$DIR/inside" <<SH
#!/bin/sh
exec nsenter -t $keeper -m $PWD/$WSPUSH "\$@"
SH
    chmod +x "$DIR/inside"
    WSPUSH=$DIR/inside
    start
    sign_up shop
    # its last block is full: one more account needs another
    printf '#%*s\n' $((4094 - $(stat -c %s "$(data)/accounts"))) '' >>"$(data)/accounts"
    expect 'a block of accounts' 4096 "$(stat -c %s "$(data)/accounts")"
    head -c 100000 /dev/zero >"$(data)/.filler" 2>/dev/null # as much as there is room
    refused_for 'No space left on device'
    rm "$(data)/.filler"
    saved_now 'No space left on device'
    kill $keeper
    WSPUSH=$whole
}

read_only() {
    fresh
    if [ "$(id -u)" = 0 ]; then # whom nothing stops
        chmod 711 "$DIR"
        touch "$DIR/log"
        chmod 666 "$DIR/log"
        sed -i 's/^host/user = nobody\nhost/' "$DIR/config.ini"
    fi
    start
    sign_up shop
    chmod 400 "$DIR/data/accounts"
    refused_for 'Permission denied'
    chmod 600 "$DIR/data/accounts"
    saved_now 'Permission denied'
}

PARTS=(slow_reader backlog vanishing slow_senders run_out few_from_the_start shedding storms file_limit disk_full
    read_only)
[ $# = 0 ] || PARTS=("$@")
touch "$DIR/load.err"
for part in "${PARTS[@]}"; do
    "$part"
done
finish

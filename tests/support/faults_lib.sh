# faults_lib.sh - what the tests of faults share: answers that must be there in time, lines of the log since a
# mark, and flows of requests whose answers are compared with what clients received; to be sourced by bash
# scripts in the place of cluster_lib.sh, which it brings along.
#
# $WHAT is the fault, in the name of each test.
# shellcheck shell=bash disable=SC2034
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster_lib.sh"

# the library of preload.c is loaded before that of the sanitizer
export ASAN_OPTIONS="$ASAN_OPTIONS:verify_asan_link_order=0"

ACCOUNT="'password':'secret'}"
PATIENCE=3000 # milliseconds that an answer may take
TTL=3000
LINES=10 # warnings that a node may log for one fault
declare -A MARK # of the logs, by node

# incomplete NAME...: the same if some node could not be asked.
incomplete() {
    members "$@" | sed 's/}}$/,"incomplete":true}}/'
}

# --- time -------------------------------------------------------------------------------------

# now: the time in milliseconds, in $NOW.
now() {
    NOW=$((${EPOCHREALTIME/[.,]/} / 1000))
}

# timely NAME PATTERN COMMAND...: expects that what it prints is like that, and is there in time.
timely() {
    local name="$WHAT: $1" pattern=$2
    shift 2
    expect_match "$name" "$pattern" "$(in_time "$PATIENCE" "$@")"
}

# at_once NAME PATTERN COMMAND...: the same, in half a second.
at_once() {
    PATIENCE=500 timely "$@"
}

# until_ms TIME: sleeps until then.
until_ms() {
    now
    [ "$NOW" -ge "$1" ] || pause "$((($1 - NOW) / 1000)).$(printf %03d $((($1 - NOW) % 1000)))"
}

# mark: from here on the lines of logs count.
mark() {
    local node
    for node in "${!NODE[@]}"; do
        MARK[$node]=$(wc -l <"$DIR/$node.log")
    done
}

# warnings NODE: prints its warnings and errors since then.
warnings() {
    tail -n +$((${MARK[$1]-0} + 1)) "$DIR/$1.log" | grep -E '^[^ ]+ (warn|error) '
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
says() {
    tail -n +$((${MARK[$1]-0} + 1)) "$DIR/$1.log" | grep -q -- "$2"
}

# say PATTERN NODE...: expects that the nodes log that since the mark.
say() {
    local pattern=$1 node
    shift
    for node in "$@"; do
        wait_for says "$node" "$pattern"
        expect "$WHAT: $node says '$pattern'" 1 \
            "$(tail -n +$((${MARK[$node]-0} + 1)) "$DIR/$node.log" | grep -c -- "$pattern")"
    done
}

# calm NODE...: expects few warnings since the mark.
calm() {
    local node count
    for node in "$@"; do
        count=$(warnings "$node" | wc -l)
        expect "$WHAT: $node logs no flood" calm \
            "$([ "$count" -lt $LINES ] && echo calm || warnings "$node" | head -n 15)"
    done
}

# --- flows ------------------------------------------------------------------------------------

# ask_on FD PATH BODY: a request on an open connection; $STATUS, $ANSWER, and $TOOK in microseconds.
ask_on() {
    local begin=${EPOCHREALTIME/[.,]/} line length=0 LC_ALL=C
    STATUS=000 ANSWER=''
    # what bash writes goes out line by line, which makes TCP wait for acknowledgements
    printf -v line 'POST /api/%s HTTP/1.1\r\nHost: x\r\nToken: %s\r\nContent-Length: %d\r\n\r\n%s' \
        "$2" "$TOKEN" $((${#3} + 1)) "$3"
    cat <<<"$line" >&"$1"
    while IFS= read -r -t 60 -u "$1" line && [ "$line" != $'\r' ]; do
        line=${line%$'\r'}
        case ${line,,} in
        http/1.1*) STATUS=${line:9:3} ;;
        content-length:*) length=${line##* } ;;
        esac
    done
    [ "$length" = 0 ] || IFS= read -r -t 60 -N "$length" -u "$1" ANSWER
    TOOK=$((${EPOCHREALTIME/[.,]/} - begin))
}

# aside NODE CALL BODY: prints what is answered to a call, and whether that was in time. It can run
# beside others.
aside() {
    local fd
    exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[$1]}"
    ask_on "$fd" "$2" "${3//\'/\"}"
    exec {fd}>&-
    late $((TOOK / 1000)) $PATIENCE && echo "$STATUS $ANSWER after $TOOK us" ||
        echo "$STATUS $ANSWER in time"
}

# flow NAME NODE PAUSE CALL BODY: asks again and again until `stop_flows`, with CODE in the body
# replaced by another number each time; $DIR/NAME.flow has a line for each: code, status, code of
# the answer, microseconds, time in milliseconds when it was answered.
FLOWS=()
CODE=1000
flow() {
    local name=$1 node=$2 pause=$3 call=$4 body=${5//\'/\"}
    CODE=$((CODE / 10000 * 10000 + 10000))
    (
        exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[$node]}"
        while [ ! -e "$DIR/flow.stop" ]; do
            CODE=$((CODE + 1))
            ask_on "$fd" "$call" "${body//CODE/$CODE}"
            ANSWER=${ANSWER#*:}
            now
            echo "$CODE $STATUS ${ANSWER%%,*} $TOOK $NOW"
            [ "$STATUS" != 000 ] || break
            pause "$pause"
        done >"$DIR/$name.flow"
    ) &
    FLOWS+=($!)
}

# pings NAME NODE: the same with the text `ping` on a connection of a client.
pings() {
    (
        exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[$2]}"
        lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" >&"$fd"
        while IFS= read -r -t 30 -u "$fd" line && [ "$line" != $'\r' ]; do :; done
        while [ ! -e "$DIR/flow.stop" ]; do
            begin=${EPOCHREALTIME/[.,]/}
            printf '\x81\x84\0\0\0\0ping' >&"$fd"
            seen=
            while [[ $seen != *pong ]] && LC_ALL=C IFS= read -r -t 60 -N 1 -u "$fd" letter; do
                seen+=$letter
            done
            [[ $seen = *pong ]] && status=200 || status=000
            now
            echo "0 $status 0 $((${EPOCHREALTIME/[.,]/} - begin)) $NOW"
            [ $status = 200 ] || break
            pause 0.01
        done >"$DIR/$1.flow"
    ) &
    FLOWS+=($!)
}

# steady NAME NODE CLIENT: 1,000 sends to one client on one connection, for ten seconds, measured by
# curl. It ends by itself.
steady() {
    curl -s --max-time 100 --rate 100/s -o /dev/null -H "Token: $TOKEN" \
        -w '0 %{http_code} 0 %{time_total}\n' \
        -d "{\"clientId\":\"${IDS[$3]}\",\"code\":0,\"msg\":\"flow\",\"data\":\"steady\"}" \
        "http://127.0.0.1:${NODE_PORT[$2]}/api/send_to_client?[1-1000]" |
        awk '{ $4 *= 1000000; print }' >"$DIR/$1.flow" &
    FLOWS+=($!)
}

stop_flows() {
    touch "$DIR/flow.stop"
    wait "${FLOWS[@]}"
    rm "$DIR/flow.stop"
    FLOWS=()
}

# answered NAME: expects that each request of a flow was answered, with success or
# 503 and -1007, in time.
answered() {
    local longest
    expect "$WHAT: flow $1: each answer is success or -1007" '' "$(awk '
        !(($2 == 200 && $3 == 0) || ($2 == 503 && $3 == -1007))' "$DIR/$1.flow" | head -n 5)"
    longest=$(awk '$4 > most { most = $4 } END { print int(most / 1000) }' "$DIR/$1.flow")
    expect_time "$WHAT: flow $1: and in time" 0 $PATIENCE "$longest"
}

# percentiles NAME: prints how many there were and how long they took, in milliseconds.
percentiles() {
    sort -n -k 4 "$DIR/$1.flow" | awk -v name="$1" '{ all[NR] = $4; good += $2 == 200 }
        END { printf "     flow %s: %d answers, %d of them success; median %.1f p99 %.1f most %.1f ms\n",
            name, NR, good, all[int((NR + 1) / 2)] / 1000, all[int(NR * 0.99 + 0.99)] / 1000,
            all[NR] / 1000 }'
}

# codes: prints the codes of frames.
codes() {
    sed -n 's/^{"code":\(-*[0-9]*\),.*/\1/p'
}

# arrived NAME FLOW...: prints the codes of these flows that a client has received, as they came.
arrived() {
    local name=$1 flow
    shift
    for flow in "$@"; do cat "$DIR/$flow.flow"; done |
        awk 'NR == FNR { sent[$1]; next } $1 in sent' - <(received flows "$name" | codes)
}

# all_arrived NAME FLOW...: expects that the client has received each message that was answered with
# success exactly once, each other one at most once, and each flow in its order.
all_arrived() {
    local name=$1 flow report
    shift
    pause 0.5
    arrived "$name" "$@" >"$DIR/$name.arrived"
    for flow in "$@"; do cat "$DIR/$flow.flow"; done |
        awk -v name="$name" 'NR == FNR { sent[$1]; if ($2 == 200) good[$1]; next }
            seen[$1]++ { twice++ }
            $1 < last[int($1 / 10000)] { disorder++ }
            { last[int($1 / 10000)] = $1 }
            !($1 in good) { ghosts++ }
            END { for (code in good) { all++; lost += !(code in seen) }
                print lost + 0, "lost,", twice + 0, "twice,", disorder + 0, "out of order"
                printf "     %s: %d sends, %d answered with success, %d delivered in spite of -1007\n",
                    name, length(sent), all, ghosts > "/dev/stderr" }' \
            - "$DIR/$name.arrived" >"$DIR/report" 2>"$DIR/figures"
    expect "$WHAT: $name gets what was answered with success once" '0 lost, 0 twice, 0 out of order' \
        "$(cat "$DIR/report")"
    cat "$DIR/figures"
}

# same_order NAME...: expects that what has arrived at these has come in the same order.
same_order() {
    local first=$1 name
    shift
    for name in "$@"; do
        expect "$WHAT: $name sees the order that $first sees" '' "$(
            cmp <(grep -Fxf "$DIR/$name.arrived" "$DIR/$first.arrived") \
                <(grep -Fxf "$DIR/$first.arrived" "$DIR/$name.arrived") 2>&1)"
    done
}

# ghosts NAME FLOW: prints what was delivered in spite of -1007.
ghosts() {
    awk 'NR == FNR { if ($2 != 200) bad[$1]; next } $1 in bad' "$DIR/$2.flow" "$DIR/$1.arrived"
}

# succeeds_since TIME FLOW: whether it has had success since then.
# shellcheck disable=SC2317,SC2329 # called by wait_for
succeeds_since() {
    awk -v since="$1" '$5 > since && $2 == 200 { found = 1 } END { exit !found }' "$DIR/$2.flow"
}

group_flows() {
    local node
    for node in "${NODES[@]}"; do
        flow "$node" "$node" 0.03 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    done
}

# all_ready NODE...
all_ready() {
    local node
    for node in "$@"; do
        expect "$WHAT: $node is ready" 0 "$(wait_for is_ready "$node"; echo $?)"
    done
}

# --- ways -------------------------------------------------------------------------------------

declare -A WAY # the port where a way begins, by name
WAYS='' WAYS_SAID=''

# open_ways NAME:PORT...: opens ways to these ports; see tests/cluster/proxy.py.
open_ways() {
    local way said='' words=()
    for way in "$@"; do
        free_port && WAY[${way%:*}]=$FREE
        words+=("${way%:*}:$FREE:${way##*:}")
    done
    mkfifo "$DIR/ways.in" "$DIR/ways.out"
    python3 -B tests/cluster/proxy.py "${words[@]}" <"$DIR/ways.in" >"$DIR/ways.out" &
    CLIENTS+=($!)
    exec {WAYS}>"$DIR/ways.in" {WAYS_SAID}<"$DIR/ways.out"
    read -r -t 20 -u "$WAYS_SAID" said
    [ "$said" = ready ] || broken 'the ways open' /dev/null
}

# way NAME COMMAND [ARGUMENT]
way() {
    echo "$2 $1 ${3-}" >&"$WAYS"
    read -r -t 20 -u "$WAYS_SAID" _
}

# preload SETTING=VALUE: from here on nodes start with tests/support/preload.c and this setting.
REAL_WSPUSH=$CLUSTER_WSPUSH
preload() {
    [ -e "$DIR/preload.so" ] ||
        ${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -O1 -shared -fPIC -o "$DIR/preload.so" tests/support/preload.c ||
        broken 'preload.c is compiled' /dev/null
    CLUSTER_WSPUSH=$DIR/preloaded
    printf '#!/bin/sh\nexec env %s LD_PRELOAD=%s %s "$@"\n' "$1" "$DIR/preload.so" "$REAL_WSPUSH" >"$CLUSTER_WSPUSH"
    chmod +x "$CLUSTER_WSPUSH"
}

# run_faults NAME...: the functions of these names, one after the other.
run_faults() {
    local fault
    for fault in "$@"; do
        echo "--- $fault ($SECONDS s)"
        $fault
    done
}

#!/bin/sh
# kill.sh - accounts survive kill -9 at any instant: what was answered with success is on the disk.
set -u
cd "$(dirname "$0")/.." || exit 1

WSPUSH=${WSPUSH:-./build/asan/wspush}
KILLS=50
TOGETHER=3 # registrations sent at the same time
HITS=10    # kills that must have met a registration not answered yet
SAMPLE=10  # systems that log in at the end
FEW=5      # systems looked at whose registration was not answered

# with a sanitizer's book-keeping of freed memory, hashing would take five times as long
QUICK=malloc_context_size=0:quarantine_size_mb=0:thread_local_quarantine_size_kb=0
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}$QUICK"

DIR=$(mktemp -d "${TMPDIR:-/tmp}/wspush-kill.XXXXXX")
SERVER=
PORT=
PASSED=0
FAILED=0

# check STATUS NAME REASON: counts one test, passed if the status is 0.
check() {
    if [ "$1" = 0 ]; then
        PASSED=$((PASSED + 1))
        echo "ok   $2"
    else
        FAILED=$((FAILED + 1))
        echo "FAIL $2 ($3)"
    fi
}

kill_server() {
    [ -n "$SERVER" ] || return 0
    kill -9 "$SERVER"
    wait "$SERVER" 2>/dev/null
    SERVER=
}

finish() {
    kill_server
    rm -rf "$DIR"
    echo "$PASSED passed, $FAILED failed"
    [ $FAILED = 0 ]
    exit
}

trap 'kill_server; rm -rf "$DIR"; exit 1' HUP INT TERM

answers() {
    curl -s -o "$DIR/greeting" --max-time 2 "http://127.0.0.1:$PORT/"
}

# start: starts the server on $PORT and waits until it answers.
start() {
    cat >"$DIR/config.ini" <<INI
[common]
host = 127.0.0.1
port = $PORT
data_dir = $DIR/data
[log]
file = $DIR/log
INI
    "$WSPUSH" -c "$DIR/config.ini" >"$DIR/output" 2>&1 &
    SERVER=$!
    tries=0
    until answers; do
        tries=$((tries + 1))
        if ! kill -0 "$SERVER" 2>/dev/null || [ $tries = 500 ]; then
            kill_server 2>/dev/null
            return 1
        fi
        sleep 0.02
    done
}

# start_somewhere: looks for a port that is free.
start_somewhere() {
    PORT=$((20000 + $$ % 10000))
    for _ in 1 2 3 4 5; do
        PORT=$((PORT + 1))
        answers && continue # somebody else's
        start && return 0
    done
    return 1
}

# post NAME SYSTEM PASSWORD [CURL-ARGUMENT...]: calls /api/NAME.
post() {
    path=/api/$1
    body="{\"systemId\":\"$2\",\"password\":\"$3\"}"
    shift 3
    curl -s --max-time 20 "$@" --data-binary "$body" "http://127.0.0.1:$PORT$path"
}

# code NAME SYSTEM PASSWORD: calls and prints the answer's code alone.
code() {
    post "$@" | sed -n 's/^{"code":\(-\{0,1\}[0-9]*\),.*/\1/p'
}

# send_registrations ROUND: each answer goes to sROUND-n.answer, curl's status to sROUND-n.status.
send_registrations() {
    number=0
    pids=
    while [ $number -lt $TOGETHER ]; do
        number=$((number + 1))
        system=s$1-$number
        (
            post register "$system" "p-$system" -o "$DIR/$system.answer"
            echo $? >"$DIR/$system.status"
        ) &
        pids="$pids $!"
    done
}

# sort_answers ROUND: writes what became of the registrations to the lists.
sort_answers() {
    number=0
    hit=0
    answered=0
    while [ $number -lt $TOGETHER ]; do
        number=$((number + 1))
        system=s$1-$number
        status=$(cat "$DIR/$system.status")
        if [ "$status" = 0 ] && grep -q '^{"code":0,' "$DIR/$system.answer"; then
            echo "$system" >>"$DIR/done"
            answered=$((answered + 1))
            continue
        fi
        case $status in
        18 | 52 | 56) # sent, and the connection ended without an answer
            hit=1
            echo "$system" >>"$DIR/unanswered"
            ;;
        7) ;; # the server was gone before
        *) echo "$system: status $status $(cat "$DIR/$system.answer")" >>"$DIR/strange" ;;
        esac
    done
    hits=$((hits + hit))
}

# calculate EXPRESSION: prints its value.
calculate() {
    awk -v round="$round" "BEGIN { srand(round); printf \"%.3f\", $1 }"
}

# The kill comes after a random part of $longest, so that every stage of a registration is met.
# However slow the machine: $longest grows when nothing was answered, and shrinks when everything
# was.
adapt() {
    case $answered in
    0) longest=$(calculate "$longest < 3 ? $longest * 1.2 : $longest") ;;
    "$TOGETHER") longest=$(calculate "$longest * 0.8") ;;
    esac
}

kill_again_and_again() {
    round=0
    hits=0
    longest=$(post register first p-first -o "$DIR/first.answer" -w '%{time_total}' | tr , .)
    longest=$(calculate "$longest * 2")
    while [ $round -lt $KILLS ]; do
        [ $round = 0 ] || start || return
        round=$((round + 1))
        send_registrations $round
        sleep "$(calculate "rand() * $longest")"
        kill_server
        # shellcheck disable=SC2086 # a list of numbers
        wait $pids
        sort_answers $round
        adapt
    done
}

# all_are CODE NAME LIST: every system of the list is answered with this code; else names those that
# are not in $wrong.
all_are() {
    wrong=
    while read -r system; do
        got=$(code "$2" "$system" "p-$system" </dev/null)
        [ "$got" = "$1" ] || wrong="$wrong $system:$got"
    done <"$3"
    [ -z "$wrong" ]
}

# sample COUNT LIST: so many systems, spread over the list.
sample() {
    awk -v count="$1" '{ line[NR] = $0 }
        END {
            for (i = 0; i < count && i < NR; i++)
                print line[1 + int(i * NR / (count < NR ? count : NR))]
        }' "$2"
}

# Systems whose registration was not answered: some that exist all the same, then some others.
sample_unanswered() {
    while read -r system; do
        ! grep -qs " $system\$" "$DIR/data/accounts" || echo "$system"
    done <"$DIR/unanswered" | head -n $FEW
    sample $FEW "$DIR/unanswered"
}

# whole_or_absent LIST: a system that exists already, or can be registered now, and then logs in.
whole_or_absent() {
    wrong=
    while read -r system; do
        got=$(code register "$system" "p-$system" </dev/null)
        case $got in
        0 | -1004) got=$(code login "$system" "p-$system" </dev/null) ;;
        esac
        [ "$got" = 0 ] || wrong="$wrong $system:$got"
    done <"$1"
    [ -z "$wrong" ]
}

touch "$DIR/done" "$DIR/unanswered" "$DIR/strange"

start_somewhere
check $? 'the server starts' "$(tail -n 3 "$DIR/output")"
[ $FAILED = 0 ] || finish

kill_again_and_again
[ $round = $KILLS ] && start
check $? "it starts again after each of $KILLS kills" "kill $round: $(tail -n 3 "$DIR/output")"
[ $FAILED = 0 ] || finish

[ ! -s "$DIR/strange" ]
check $? 'every answer is success' "$(head -n 3 "$DIR/strange")"

[ $hits -ge $HITS ]
check $? "at least $HITS kills met a registration not answered yet" "$hits did"

count=$(wc -l <"$DIR/done")
[ "$count" -ge $HITS ]
check $? 'registrations were answered between the kills' "$count were"

echo first >>"$DIR/done"
all_are -1004 register "$DIR/done"
check $? 'every system that was answered with success is registered' "$wrong"

sample $SAMPLE "$DIR/done" >"$DIR/sample"
all_are 0 login "$DIR/sample"
check $? 'and logs in with its password' "$wrong"

[ "$(code login first wrong)" = -1005 ]
check $? 'and not with another' 'another password was taken'

sample_unanswered | sort -u >"$DIR/sample"
whole_or_absent "$DIR/sample"
check $? 'a system that was not answered exists whole or not at all' "$wrong"
finish

#!/usr/bin/env bash
# webhook_churn.sh [PART...] - webhooks while clients come and go all the time: whatever fails, the receiver's model of
# who is there, of which user and in which groups, is the server's list in the end. CROWD=10000 has more clients come
# and go than 100.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/webhook_lib.sh
. tests/support/webhook_lib.sh
CROWD=${CROWD:-100}
QUEUE=$((CROWD > 1000 ? 64 : 1)) # MiB

# start_churn NAME CLIENTS [TICKET]: starts churn.py, which `say NAME COMMAND` gives commands.
start_churn() {
    local name=$1 in out
    shift
    mkfifo "$DIR/$name.in" "$DIR/$name.out"
    python3 -B tests/support/churn.py "$PORT" shop "$TOKEN" "$@" <"$DIR/$name.in" >"$DIR/$name.out" 2>>"$DIR/churn.err" &
    CLIENTS+=($!)
    exec {in}>"$DIR/$name.in" {out}<"$DIR/$name.out"
    declare -g "TO_$name=$in" "FROM_$name=$out"
}

say() {
    local to=TO_$1
    echo "$2" >&"${!to}"
}

# hear NAME: the answer is in $REPLY.
hear() {
    local from=FROM_$1
    read -r -t 150 REPLY <&"${!from}" || REPLY="no answer: $(cat "$DIR/churn.err")"
}

# settle NAME [COUNT]: after so many more clients, all stay, and the receiver knows them.
settle() {
    say churn "rest ${2:-$CROWD}"
    hear churn
    echo "# $1: clients so far: $REPLY; events taken, batches repeated, losses told: $(told /counts)"
    model "$1"
    say churn go
}

# sum INDEX: a number that /counts has.
sum() {
    local counts
    read -ra counts <<<"$(told /counts)"
    echo "${counts[$1]}"
}

# Every way to fail, before and after the events were taken: nothing is lost.
faults() {
    local losses
    losses=$(sum 2)
    told "/faults?all=500,bytes,302%2Btaken,chunked,half%2Btaken,large,nothing,bytes,reset%2Btaken,chunked,cut,large" >/dev/null
    told "/faults?all=late%2Btaken,bytes,500%2Btaken,chunked,cut" >/dev/null
    no_faults() { [ -z "$(told /faults)" ]; }
    wait_for no_faults || wait_for no_faults
    expect 'all failures have been' '' "$(told /faults)"
    settle 'a receiver that fails in every way'
    expect 'batches were repeated' 1 "$(($(sum 1) >= 7))"
    expect 'and nothing was lost' "$losses" "$(sum 2)"
}

# The queue overflows, again and again; the receiver lists clients, a few on each page, while they come and go.
overflow() {
    local round most=0 extend
    printf -v extend '%1000s' ''
    start_churn long "$CROWD" "$(post /api/ticket "{\"userId\":\"u\",\"extend\":\"${extend// /x}\"}" | jq -r .data.ticket)"
    told '/setup?page=7' >/dev/null
    for round in 1 2 3; do
        local losses lost
        losses=$(sum 2)
        lost=$(metric 'webhook_events_total{result="lost"}')
        has_lost() {
            local queued
            queued=$(metric webhook_queued_bytes)
            [ "$queued" -le "$most" ] || most=$queued
            [ "$(metric 'webhook_events_total{result="lost"}')" -gt "$lost" ]
        }
        has_listed() { [ "$(sum 2)" -gt "$losses" ]; }
        told '/status?code=500' >/dev/null
        say long go
        wait_for has_lost
        told '/status?code=200' >/dev/null
        wait_for has_listed
        say long 'rest 1'
        hear long
        settle "lost events, round $round"
    done
    expect 'the queue was filled, and no more' 1 "$((most > QUEUE * 512 * 1024 && most <= QUEUE * 1024 * 1024))"
    told '/setup?page=100' >/dev/null
}

# Either side stands still for longer than the time-out.
freezes() {
    freeze "$RECEIVING"
    pause 4
    thaw "$RECEIVING"
    settle 'a receiver that stood still'
    freeze "$SERVER"
    pause 4
    thaw "$SERVER"
    settle 'a server that stood still'
}

# A receiver that is away until events are too old, and has forgotten everything when it comes back.
dead() {
    local lost
    halt
    sed -i 's/^retry = .*/retry = 2/' "$DIR/config.ini"
    start_again
    lost=$(metric 'webhook_events_total{result="lost"}')
    has_lost() { [ "$(metric 'webhook_events_total{result="lost"}')" -gt "$lost" ]; }
    kill_process "$RECEIVING"
    wait_for has_lost || wait_for has_lost
    start_receiver
    told "/setup?token=$TOKEN&secret=${SECRET//+/%2B}" >/dev/null
    settle 'a receiver that was dead'
    expect 'it was told of the losses' 1 "$(($(sum 2) > 0))"
}

kills() {
    local round
    for round in 1 2; do
        kill_process "$SERVER"
        start_again
        settle "kill -9, time $round"
    done
}

# Clients that send as much as they can, also when the receiver takes nothing.
messages() {
    local code
    say churn "rest 1"
    hear churn
    start_churn flood 0
    start_churn members 0
    for code in 200 500; do
        told "/status?code=$code" >/dev/null
        say flood 'flood 1000'
        say members 'send 100'
        hear members
        expect_match "a receiver answers $code: all members get what is sent to them, in order" '20 *' "$REPLY"
        expect_time 'no send has waited for those that flood' 0 2000 "${REPLY#* }"
        hear flood
        expect 'which are all closed' 1000 "$REPLY"
    done
    told '/status?code=200' >/dev/null
    say churn go
    settle 'after the flood'
}

fresh "[webhook]
allow = $URL
queue = $QUEUE MiB
timeout = 3
retry = 60
[resume]
linger = 1
[notice]
scope = off"
start
start_receiver
sign_up shop
hook "'events':['connect','disconnect','join','leave','message']"
start_churn churn "$CROWD"
say churn go
PARTS=(faults overflow freezes dead kills messages)
[ $# = 0 ] || PARTS=("$@")
for part in "${PARTS[@]}"; do
    "$part"
done
halt
expect 'nobody is left' '' "$(told /model)"
expect 'nothing was wrong' '' "$(told /wrong)$(cat "$DIR/receiver.err" "$DIR/churn.err")"
finish

#!/usr/bin/env bash
# bench.sh - what quiet clients cost: the time of a request beside none and beside 10,000 of them,
# and the memory of 19,000. Ratios of one run count; the figures themselves are the machine's.
set -u
cd "$(dirname "$0")/.." || exit 1
DIR=$(mktemp -d "${TMPDIR:-/tmp}/wspush-bench.XXXXXX")
PORT=$((20000 + RANDOM % 12000))
PIDS=()

cleanup() {
    for pid in "${PIDS[@]}"; do
        kill "$pid" 2>/dev/null
    done
    wait
    rm -rf "$DIR"
}
trap cleanup EXIT

cat >"$DIR/config.ini" <<INI
[common]
host = 127.0.0.1
data_dir = $DIR/data
drain = 0
[notice]
scope = off
[log]
file = $DIR/log
INI
build/release/wspush -c "$DIR/config.ini" $PORT &
SERVER=$!
PIDS+=($SERVER)
sleep 0.5
api() {
    curl -s --max-time 10 "http://127.0.0.1:$PORT/api/$1" -d '{"systemId":"bench","password":"bench"}'
}
api register >/dev/null
TOKEN=$(api login | jq -r .data.token)

mkfifo "$DIR/in" "$DIR/out"
build/release/hold $PORT bench "$TOKEN" <"$DIR/in" >"$DIR/out" &
PIDS+=($!)
exec 3>"$DIR/in" 4<"$DIR/out"
ask() { echo "$1" >&3 && read -r -t 300 REPLY <&4; }
resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$SERVER/status" 2>/dev/null || echo 0; }

ask 'time 5000' # the first round of anything is slower
echo 'median of 5,000 requests on one warm connection, in microseconds:'
BEFORE=$(resident)
RATIOS=
for round in 1 2 3 4 5; do
    ask 'time 5000'; none=$(echo "$REPLY" | cut -d ' ' -f 2)
    ask 'open 10000'
    sleep 0.5
    ask 'time 5000'; many=$(echo "$REPLY" | cut -d ' ' -f 2)
    ask 'drop 10000'
    sleep 1
    ratio=$(awk "BEGIN { printf \"%.2f\", $many / $none }")
    RATIOS="$RATIOS $ratio"
    echo "  round $round: no other client $none, 10,000 quiet clients $many, ratio $ratio"
done
echo "  median ratio: $(echo "$RATIOS" | tr ' ' '\n' | grep . | sort -n | sed -n 3p)"

kill "$SERVER"; wait "$SERVER" 2>/dev/null
build/release/wspush -c "$DIR/config.ini" $PORT &
SERVER=$!
PIDS+=($SERVER)
sleep 0.5
BEFORE=$(resident)
ask 'open 19000'
OPENED=${REPLY#open }
ask 'bind bench'
sleep 1
AFTER=$(resident)
echo "memory: $BEFORE bytes at start, $AFTER with $OPENED clients in one group:" \
    "$(((AFTER - BEFORE) / OPENED)) bytes a client"
ask 'time 5000'
echo "the same request beside $OPENED quiet clients: $(echo "$REPLY" | cut -d ' ' -f 2) microseconds"

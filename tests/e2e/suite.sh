#!/usr/bin/env bash
# suite.sh - tests/run.sh: which parts it chooses, what it has `make` build for them, and that a part that fails is
# run once more, alone, and that run counts.
# The parts here are small scripts in a tree of their own.
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# stub NAME FAILURES: a part that fails so many times, and then passes; it notes what runs beside it.
stub() {
    cat >"$DIR/tree/tests/e2e/$1.sh" <<SH
#!/bin/sh
echo run >>"$DIR/$1.runs"
touch "$DIR/$1.now"
sleep 0.3
ls "$DIR" | grep -c '[.]now' >>"$DIR/$1.beside"
rm "$DIR/$1.now"
if [ \$(wc -l <"$DIR/$1.runs") -le $2 ]; then
    echo 'FAIL $1 is unlucky'
    echo '1 passed, 2 failed'
    exit 1
fi
echo '3 passed, 0 failed'
SH
    chmod +x "$DIR/tree/tests/e2e/$1.sh"
}

# suite NAME...: runs these parts; what it prints is in $DIR/said.
suite() {
    rm -f "$DIR"/*.runs "$DIR"/*.beside
    "$DIR/tree/tests/run.sh" "$@" >"$DIR/said" 2>&1
    STATUS=$?
}

mkdir -p "$DIR/tree/tests/e2e"
cp tests/run.sh "$DIR/tree/tests/"

stub limits 1
stub durability 0
suite limits durability
expect 'a part that passes alone has passed' '0 6 passed, 0 failed' "$STATUS $(tail -n 1 "$DIR/said")"
expect_match 'its first failure is shown' '*FAIL limits: status 1, 1 passed, 2 failed*FAIL limits is unlucky*' \
    "$(tr '\n' ' ' <"$DIR/said")"
expect 'and the load' 1 \
    "$(grep -cE '^ *limits failed beside others \(load [0-9]+\.[0-9]+\) and passed alone$' "$DIR/said")"
expect 'it ran twice, the other one once' '2 1' "$(wc -l <"$DIR/limits.runs") $(wc -l <"$DIR/durability.runs")"
expect 'alone the second time' 1 "$(tail -n 1 "$DIR/limits.beside")"

stub limits 9
suite limits durability
expect 'a part that fails again has failed' '1 4 passed, 2 failed' "$STATUS $(tail -n 1 "$DIR/said")"
expect 'it is not run a third time' 2 "$(wc -l <"$DIR/limits.runs")"
expect 'no word of the load then' 0 "$(grep -c 'passed alone' "$DIR/said")"

suite limits
expect 'a part that was alone is not run again' '1 1 passed, 2 failed 1' \
    "$STATUS $(tail -n 1 "$DIR/said") $(wc -l <"$DIR/limits.runs")"

MANY=(limits durability api websocket tls startup signals budgets metrics)
for name in "${MANY[@]}"; do
    stub "$name" 1
done
suite "${MANY[@]}"
expect 'nor are many: that is not the load' '1 9 passed, 18 failed 1' \
    "$STATUS $(tail -n 1 "$DIR/said") $(wc -l <"$DIR/limits.runs")"

suite limits nothing
expect 'a name that no part has' '2 there is no part named nothing' "$STATUS $(cat "$DIR/said")"
suite --unit limits
expect 'a part of another group' '2 there is no part named limits in tests/unit' "$STATUS $(cat "$DIR/said")"
stub limits 0
suite --e2e limits
expect 'a part of this group' '0 3 passed, 0 failed' "$STATUS $(tail -n 1 "$DIR/said")"

mkdir -p "$DIR/tree/tests/unit" "$DIR/tree/tests/cluster"
touch "$DIR/tree/tests/unit/test_json.c"
printf '# build: cluster-asan/wspush asan/wspush\n' >"$DIR/tree/tests/cluster/links.sh"
suite --targets json
expect 'a unit test is not called json but in its group' 2 "$STATUS"
suite --targets --unit json
expect 'there it is, and alone is built' '0 build/asan/test_json ' "$STATUS $(cat "$DIR/said")"
suite --targets links
expect 'what a script says is built' '0 build/asan/wspush build/cluster-asan/wspush ' "$STATUS $(cat "$DIR/said")"
export CC=false # finds no header
suite --targets --unit json
expect 'that needs no library of a cluster' '0 build/asan/test_json ' "$STATUS $(cat "$DIR/said")"
suite links
expect_match 'a part that lacks one says so and fails' '1 *FAIL hiredis is missing: run make deps CLUSTER=1*0 passed, 1 failed' \
    "$STATUS $(cat "$DIR/said")"
suite --targets links
expect 'nothing is built for it' '0 ' "$STATUS $(cat "$DIR/said")"
finish

#!/usr/bin/env bash
# run.sh [--GROUP] [NAME...] - the whole suite, or the parts of a group (unit, e2e, cluster, conformance, fuzz,
# bench), or those named; tests/README.md says what a part is. Four parts run at a time (many of them mostly
# wait). Prints one line for each part as it ends, what failed in full, and the count; what each part took is in
# build/times, the one that took most CPU time first. A part that fails beside others runs once more, alone: that
# run counts. With --targets, prints what `make` has to build for these parts instead.
set -u
cd "$(dirname "$0")/.." || exit 1

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:exitcode=98

AGAIN_MAX=8 # parts that are run again

OUT=$(mktemp -d "${TMPDIR:-/tmp}/wspush-suite.XXXXXX")
export OUT
trap 'rm -rf "$OUT"' EXIT

list_targets='' group='' names=''
for word; do
    case $word in
    --targets) list_targets=1 ;;
    --*) group=${word#--} ;;
    *) names+=" $word" ;;
    esac
done

# run_part NUMBER NAME COMMAND...: runs one program that ends with its own count, which is left in
# $OUT/NUMBER.count. If it fails, the machine's load is in $OUT/NUMBER.failed.
run_part() {
    local files=$OUT/$1 name=$2 begin=$SECONDS status count good failed TIMEFORMAT='%U %S %R'
    shift 2
    { time timeout 900 "$@" >"$files.out" 2>"$files.err" </dev/null; } 2>"$files.time"
    status=$?
    echo "$(cat "$files.time") $name" >"$files.time"
    count=$(tail -n 1 "$files.out" | grep -E '^[0-9]+ passed, [0-9]+ failed$')
    good=${count%% *}
    failed=${count#*, }
    failed=${failed% failed}
    if [ $status = 0 ] && [ -n "$count" ] && [ ! -s "$files.err" ]; then
        echo "ok   $name: $count, $((SECONDS - begin)) s"
    else
        # a part that breaks off, or writes to stderr, has failed whatever it has counted
        [ "${failed:-0}" != 0 ] || failed=1
        uptime | sed 's/.*load averages*: *//; s/,* .*//' >"$files.failed"
        # in one write, though another part may report now
        printf '%s\n' "$(
            echo "FAIL $name: status $status, ${count:-no count}"
            grep -v '^ok ' "$files.out" | head -n 40
            head -n 60 "$files.err"
        )"
    fi
    echo "${good:-0} ${failed:-0}" >"$files.count"
}
export -f run_part

# run_alone NUMBER NAME COMMAND...: runs a part that has failed beside others once more.
run_alone() {
    local load
    load=$(cat "$OUT/$1.failed")
    rm "$OUT/$1.failed"
    run_part "$@"
    [ -e "$OUT/$1.failed" ] || echo "     $2 failed beside others (load $load) and passed alone"
}

# missing_library: prints which library of a cluster build has no header here.
missing_library() {
    has_header hiredis/hiredis.h || { echo hiredis && return; }
    has_header rabbitmq-c/amqp.h || has_header amqp.h || echo rabbitmq-c
}

has_header() {
    echo "#include <$1>" | ${CC:-cc} ${CPPFLAGS-} -E - >/dev/null 2>&1
}
MISSING=$(missing_library)

# targets COMMAND...: prints what a part is built of: its own program, the server of an assignment, and what
# the line `# build:` of a script names.
targets() {
    local word
    for word in "$@"; do
        case $word in
        *build/*) echo "build/${word#*build/}" ;;
        *.sh) sed -n 's/^# build: //p' "$word" | tr ' ' '\n' | sed 's,^,build/,' ;;
        esac
    done
}

# part GROUP NAME[ WAY] COMMAND...: puts a part on the list, if it is wanted. A unit test is named with or
# without its test_ in the group unit.
number=0 found=' '
part() {
    local of=$1 name=${2%% *} wanted
    shift
    [ "${group:-$of}" = "$of" ] || return
    for wanted in ${names:-"$name"}; do
        [ "$wanted" = "$name" ] || [ "$group-test_$wanted" = "unit-$name" ] || continue
        found+="$wanted "
        if [ -n "$MISSING" ] && [[ " $(targets "$@" | tr '\n' ' ')" == *' build/cluster'* ]]; then
            set -- "$1" sh -c "echo 'FAIL $MISSING is missing: run make deps CLUSTER=1'; echo '0 passed, 1 failed'; exit 1"
        fi
        number=$((number + 1))
        printf '%q ' $number "$@" >>"$OUT/list"
        echo >>"$OUT/list"
        targets "$@" >>"$OUT/targets"
        return
    done
}

# scripts GROUP: the parts of a folder that are not on the list yet.
scripts() {
    local source name
    for source in tests/"$1"/*.sh; do
        name=$(basename "$source" .sh)
        [[ " ${LONGEST//[[:space:]]/ } " == *" ${source#tests/} "* ]] || part "$1" "$name" "$source"
    done
}

# The longest ones first, so that none of them is left over at the end.
LONGEST='cluster/faults.sh cluster/faults_presence.sh cluster/across_nodes.sh cluster/faults_bus.sh cluster/links.sh
    cluster/chaos.sh e2e/durability.sh'
for source in $LONGEST; do
    part "${source%/*}" "$(basename "$source" .sh)" "tests/$source"
done
for source in tests/unit/test_*.c; do
    name=$(basename "$source" .c)
    case $name in
    test_cluster_bus | test_cluster_registry) ;; # tests/cluster/*.sh have the servers that they need
    test_cluster* | test_redis) part unit "$name" "${COVERAGE:-build/cluster-asan}/$name" ;;
    *) part unit "$name" "${COVERAGE:-build/asan}/$name" ;;
    esac
done
for name in test_poller test_account test_os test_webhook; do
    part unit "$name (threads)" "build/tsan/$name"
done
scripts e2e
scripts cluster
scripts conformance
part fuzz replay tests/fuzz/replay.sh
part bench bench env BENCH=build/asan/bench tests/bench/bench.sh smoke
part e2e 'misbehaving_clients (figures)' env WSPUSH=build/release/wspush \
    tests/e2e/misbehaving_clients.sh slow_reader backlog storms
part e2e 'idle_connections (TLS)' env TLS=1 tests/e2e/idle_connections.sh
part e2e 'idle_connections (threads)' env WSPUSH=build/tsan/wspush tests/e2e/idle_connections.sh
part cluster 'recovery (threads)' env CLUSTER_WSPUSH=build/cluster-tsan/wspush tests/cluster/recovery.sh

for name in $names; do
    [[ $found == *" $name "* ]] || {
        echo "there is no part named $name${group:+ in tests/$group}" >&2
        exit 2
    }
done
[ $number -gt 0 ] || { echo "there is no group named $group" >&2 && exit 2; }
[ -z "$list_targets" ] || { sort -u "$OUT/targets" | tr '\n' ' ' && exit; }

tr '\n' '\0' <"$OUT/list" | xargs -0 -P 4 --process-slot-var=LANE -I PART bash -c 'run_part PART'

# When many have failed it is not for the load.
failures=("$OUT"/*.failed)
if [ -e "${failures[0]}" ] && [ $number -gt 1 ] && [ ${#failures[@]} -le $AGAIN_MAX ]; then
    export LANE=0
    for file in "${failures[@]}"; do
        name=${file##*/}
        eval "run_alone $(sed -n "${name%.failed}p" "$OUT/list")"
    done
fi

mkdir -p build
cat "$OUT"/*.time | awk '{
    cpu = $1 + $2; wall = $3; all += cpu; $1 = $2 = $3 = ""; sub(/^ +/, ""); printf "%7.1f s of CPU %7.1f s  %s\n", cpu, wall, $0 }
    END { printf "%7.1f s of CPU             all\n", all }' | sort -rn >build/times

read -r passed failed parts <<<"$(cat "$OUT"/*.count |
    awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0, NR }')"
if [ "$parts" != $number ]; then
    echo "FAIL only $parts of $number parts have ended"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

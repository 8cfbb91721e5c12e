#!/usr/bin/env bash
# run.sh [NAME...] - the whole suite, or the parts named: unit tests and end-to-end tests, all in
# the sanitizer build, three parts at a time (many of them mostly wait). Prints one line for each part
# as it ends, what failed in full, and the count. A part that fails beside others runs once more,
# alone: that run counts.
set -u
cd "$(dirname "$0")/.." || exit 1

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:exitcode=98
export PATH="$PWD/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

AGAIN_MAX=8 # parts that are run again

OUT=$(mktemp -d "${TMPDIR:-/tmp}/wspush-suite.XXXXXX")
export OUT
trap 'rm -rf "$OUT"' EXIT

for tool in curl jq openssl websocat redis-server rabbitmq-server nginx chromium chromedriver; do
    command -v $tool >/dev/null || {
        echo "$tool is missing: run make test-deps"
        exit 1
    }
done

# run_part NUMBER NAME COMMAND...: runs one program that ends with its own count, which is left in
# $OUT/NUMBER.count. If it fails, the machine's load is in $OUT/NUMBER.failed.
run_part() {
    local files=$OUT/$1 name=$2 begin=$SECONDS status count good failed
    shift 2
    timeout 400 "$@" >"$files.out" 2>"$files.err" </dev/null
    status=$?
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

only="$*"
for name in $only; do
    compgen -G "tests/*/$name.sh" >/dev/null || [ -f "tests/unit/$name.c" ] || [ "$name" = bench ] || {
        echo "there is no part named $name"
        exit 2
    }
done

# part NAME[ WAY] COMMAND...: puts a part on the list, if it is wanted.
number=0
part() {
    [ -z "$only" ] || case " $only " in *" ${1%% *} "*) ;; *) return ;; esac
    number=$((number + 1))
    printf '%q ' $number "$@" >>"$OUT/list"
    echo >>"$OUT/list"
}

# The longest ones first, so that none of them is left over at the end.
for name in faults faults_presence faults_bus chaos; do
    part "$name" tests/cluster/$name.sh
done
part durability tests/e2e/durability.sh
for source in tests/unit/test_*.c; do
    name=$(basename "$source" .c)
    case $name in
    test_cluster_bus | test_cluster_registry) continue ;; # tests/cluster/*.sh have the servers that they need
    test_cluster* | test_redis) variant=cluster-asan ;; # rooms that only a cluster has
    *) variant=asan ;;
    esac
    part "$name" "build/$variant/$name"
done
for name in test_poller test_account test_os; do
    part "$name (threads)" "build/tsan/$name"
done
for source in tests/e2e/*.sh tests/cluster/*.sh tests/conformance/*.sh; do
    name=$(basename "$source" .sh)
    case $name in
    faults* | chaos | durability) ;; # among the longest ones
    *) part "$name" "$source" ;;
    esac
done
part replay tests/fuzz/replay.sh
part bench tests/bench/bench.sh smoke
part 'misbehaving_clients (figures)' env WSPUSH=build/release/wspush tests/e2e/misbehaving_clients.sh slow_reader backlog storms
part 'idle_connections (TLS)' env TLS=1 tests/e2e/idle_connections.sh
part 'idle_connections (threads)' env WSPUSH=build/tsan/wspush tests/e2e/idle_connections.sh
part 'recovery (threads)' env CLUSTER_WSPUSH=build/cluster-tsan/wspush tests/cluster/recovery.sh

tr '\n' '\0' <"$OUT/list" | xargs -0 -P 3 --process-slot-var=LANE -I PART bash -c 'run_part PART'

# When many have failed it is not for the load.
failures=("$OUT"/*.failed)
if [ -e "${failures[0]}" ] && [ $number -gt 1 ] && [ ${#failures[@]} -le $AGAIN_MAX ]; then
    export LANE=0
    for file in "${failures[@]}"; do
        name=${file##*/}
        eval "run_alone $(sed -n "${name%.failed}p" "$OUT/list")"
    done
fi

read -r passed failed parts <<<"$(cat "$OUT"/*.count |
    awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0, NR }')"
if [ "$parts" != $number ]; then
    echo "FAIL only $parts of $number parts have ended"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

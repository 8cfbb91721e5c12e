#!/usr/bin/env bash
# run.sh [NAME...] - the whole suite, or the parts named: unit tests, then end-to-end tests, all in
# the sanitizer build. Prints one line for each part, what failed in full, and the count.
set -u
cd "$(dirname "$0")/.." || exit 1

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:exitcode=98
export PATH="$PWD/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

OUT=$(mktemp -d "${TMPDIR:-/tmp}/wspush-suite.XXXXXX")
trap 'rm -rf "$OUT"' EXIT
passed=0 failed=0

for tool in curl jq websocat redis-server rabbitmq-server nginx; do
    command -v $tool >/dev/null || {
        echo "$tool is missing: run make test-deps"
        exit 1
    }
done

# part NAME COMMAND...: runs one program that ends with its own count.
part() {
    local name=$1 begin=$SECONDS status count
    shift
    timeout 240 "$@" >"$OUT/out" 2>"$OUT/err" </dev/null
    status=$?
    count=$(tail -n 1 "$OUT/out" | grep -E '^[0-9]+ passed, [0-9]+ failed$')
    if [ -n "$count" ]; then
        passed=$((passed + ${count%% *}))
        failed=$((failed + $(echo "$count" | cut -d ' ' -f 3)))
    fi
    if [ $status = 0 ] && [ -n "$count" ] && [ ! -s "$OUT/err" ]; then
        echo "ok   $name: $count, $((SECONDS - begin)) s"
        return
    fi
    # a part that breaks off, or writes to stderr, has failed whatever it has counted
    case $count in *' 0 failed' | '') failed=$((failed + 1)) ;; esac
    echo "FAIL $name: status $status, ${count:-no count}"
    grep -v '^ok ' "$OUT/out" | head -n 40
    head -n 60 "$OUT/err"
}

wanted() {
    [ $# = 1 ] || return 0
    [ -z "$only" ] || case " $only " in *" $1 "*) ;; *) return 1 ;; esac
}

only="$*"
for name in $only; do
    [ -f "tests/$name.c" ] || [ -f "tests/$name.sh" ] || {
        echo "there is no part named $name"
        exit 2
    }
done
for source in tests/test_*.c; do
    name=$(basename "$source" .c)
    case $name in
    test_task | test_peer) variant=cluster-asan ;; # rooms that only a cluster has
    *) variant=asan ;;
    esac
    wanted "$name" && part "$name" "build/$variant/$name"
done
for name in test_park test_account test_mailbox; do
    wanted "$name" && part "$name (threads)" "build/tsan/$name"
done
for name in layers echo rfc6455 rfc9112 start api limits ws tls park load kill cluster order join fault repair readme; do
    wanted "$name" && part "$name" "tests/$name.sh"
done
wanted load && part 'load (figures)' env WSPUSH=build/release/wspush tests/load.sh slow_reader storms
wanted park && part 'park (TLS)' env TLS=1 tests/park.sh
wanted park && part 'park (threads)' env WSPUSH=build/tsan/wspush tests/park.sh
wanted repair && part 'repair (threads)' env WSPUSH_CLUSTER=build/cluster-tsan/wspush tests/repair.sh
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

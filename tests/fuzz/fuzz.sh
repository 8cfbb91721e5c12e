#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...] - fuzzes all targets, or those named, one after the other for so
# long each. Starts from tests/fuzz/corpus/TARGET/; what it learns goes to build/fuzz/corpus/TARGET/, an
# input that breaks something to build/fuzz/found/, and each fuzzer's own report to
# build/fuzz/TARGET.log.
set -u
cd "$(dirname "$0")/../.." || exit 1
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
seconds=$1 failed=0
shift

if ! echo 'int LLVMFuzzerTestOneInput(const char *at, unsigned long length);
int LLVMFuzzerTestOneInput(const char *at, unsigned long length) { return !at && length; }' |
    "${FUZZ_CC:-clang}" -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null; then
    echo "fuzzing needs clang with libFuzzer: run make fuzz-deps (Debian's clang and libclang-rt-dev)"
    exit 1
fi
"${MAKE:-make}" --no-print-directory -s -j2 fuzz-build || exit 1
[ $# -gt 0 ] || set -- http ws json config token ticket command stream receiver
mkdir -p build/fuzz/found
for target; do
    seeds=tests/fuzz/corpus/$target corpus=build/fuzz/corpus/$target log=build/fuzz/$target.log
    words=()
    [ ! -f "tests/fuzz/fuzz_$target.dict" ] || words=(-dict="tests/fuzz/fuzz_$target.dict")
    mkdir -p "$corpus"
    nice "build/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len=2048 -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="build/fuzz/found/$target-" \
        "${words[@]}" "$corpus" "$seeds" >"$log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $status = 0 ]; then
        echo "ok   $target: $runs executions, $(sed -n 's/^.*DONE *\(cov: [0-9]*\).*/\1/p' "$log")"
    else
        failed=$((failed + 1))
        echo "FAIL $target: status $status after ${runs:-no} executions"
        grep -E 'invariant broken|ERROR|SUMMARY|Test unit written' "$log" | head -n 5
    fi
done
exit $((failed > 0))

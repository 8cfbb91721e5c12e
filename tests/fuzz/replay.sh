#!/usr/bin/env bash
# fuzz.sh - gives each fuzz target the files of its corpus, tests/fuzz/corpus/TARGET/, and variants of
# them, without a fuzzer (see fuzz_replay.c). What a fuzzer has found once stays found.
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0

for source in tests/fuzz/fuzz_*.c; do
    target=$(basename "$source" .c)
    target=${target#fuzz_}
    output=$(timeout 100 "build/asan/replay_$target" "tests/fuzz/corpus/$target"/* 2>&1)
    status=$?
    count=$(tail -n 1 <<<"$output" | grep -E '^[1-9][0-9]* passed, 0 failed$')
    if [ $status = 0 ] && [ -n "$count" ]; then
        passed=$((passed + ${count%% *}))
        echo "ok   $target: ${count%%,*}"
    else
        failed=$((failed + 1))
        echo "FAIL $target: status $status"
        head -n 20 <<<"$output"
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]

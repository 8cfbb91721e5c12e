#!/usr/bin/env bash
# replay.sh - gives each fuzz target the files of its corpus, tests/fuzz/corpus/TARGET/, and variants of
# them, without a fuzzer (see replay.c). What a fuzzer has found once stays found.
# build: asan/replay_http asan/replay_ws asan/replay_json asan/replay_config asan/replay_token asan/replay_ticket asan/replay_resume asan/replay_command asan/replay_stream asan/replay_receiver
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

#!/usr/bin/env bash
# roster.sh - who is there: counts, and lists that have all that stays exactly once while others come and go; limits and
# positions of pages; what is done to all clients of a user; and what a long list costs the others.
# build: asan/wspush release/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

need python3
quick_hashes

configure
start
sign_up shop

for limit in 0 1001 -1; do
    expect "a limit of $limit" '400 -1 field limit must be from 1 to 1000' \
        "$(refusal list_groups "{'limit':$limit}")"
done
for limit in 1 1000; do
    expect "a limit of $limit" "$(success "{'groups':[],'next':''}")" "$(call list_groups "{'limit':$limit}")"
done
for after in x 00000000 zz "$(printf '0%.0s' {1..264})"; do
    expect_match "a forged position in list_groups: ${after:0:9}" '400 -1 field after is no position*' \
        "$(refusal list_groups "{'after':'$after'}")"
    expect_match "a forged position in list_clients: ${after:0:9}" '400 -1 field after is no position*' \
        "$(refusal list_clients "{'after':'$after'}")"
done
names=$(printf ',"%s"' {1..1001})
expect 'a count of too many names' '400 -1 field groupNames has too many entries; the limit is 1000' \
    "$(refusal count "{'groupNames':[${names:1}]}")"
expect 'a count of nothing' "$(success '{}')" "$(call count '{}')"
expect 'a user without clients' "$(success "{'matched':0,'queued':0,'dropped':0}")" \
    "$(call bind_user_to_group "{'userId':'u','groupName':'g'}")"
expect 'is closed' "$(success "{'closed':0}")" "$(call close_user "{'userId':'u'}")"
expect_match 'but not with any code' '400 -1 field code must be*' "$(refusal close_user "{'userId':'u','code':1001}")"

while IFS=$'\t' read -r name expected actual; do
    expect "$name" "$expected" "$actual"
done < <(timeout 120 python3 -B tests/support/roster.py shop "$TOKEN" "$PORT" 2>&1; echo "roster.py ends	0	$?")
halt

# Shares of an iteration, not the whole of it: a ratio, for the machine may be busy.
WSPUSH=build/release/wspush start
sign_up shop
read -r ratio pages < <(timeout 120 python3 -B tests/support/unicast.py shop "$TOKEN" "$PORT" 100000 2>"$DIR/percentiles")
ok "$(tail -n 1 "$DIR/percentiles")"
expect 'the p99 of a unicast is at most twice as long while 100,000 groups are listed' 1 \
    "$(awk -v ratio="${ratio:-9}" 'BEGIN { print ratio <= 2 }')"
expect 'which they were' 1 "$((${pages:-0} > 0))"
finish

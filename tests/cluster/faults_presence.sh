#!/usr/bin/env bash
# faults_presence.sh [FAULT...] - what goes wrong with nodes and Redis: the members of a group are told of each
# client in turn that it came and that it went, and once; a node that lives never looks dead; and a death
# delays no send.
# build: cluster-asan/wspush
# shellcheck source=tests/support/faults_lib.sh
. "$(dirname "$0")/../support/faults_lib.sh"

need python3
NODES=(a b c)
TTL=2000
CROWD=300 # clients of a node that dies
GROUPS_OF_CROWD=12

# told_codes MEMBER NAME: prints the codes of the notices that a member has received of a client, in one line.
told_codes() {
    received notices "$1" | grep -F "\"${IDS[$2]}\"" | codes | paste -sd ' '
}

# expect_codes NAME MEMBER CLIENT CODES: expects them, and nothing behind them.
expect_codes() {
    wait_for eval "[ \$(told_codes $2 $3 | wc -w) -ge $(wc -w <<<"$4") ]"
    expect "$WHAT: $2 is told $1" "$4" "$(told_codes "$2" "$3")"
}

# remember: from here on notices count for `pairs` and `gone`.
declare -A BEFORE
remember() {
    local name
    for name in a b; do
        BEFORE[$name]=$(received notices $name | wc -l)
    done
}

# pairs MEMBER: prints each client of which a member was told something other than 1001, 1002, 1001, ... in turn.
pairs() {
    received notices "$1" | tail -n +$((${BEFORE[$1]-0} + 1)) | jq -r '[.data.clientId, .data.groupName, .code] | @tsv' | awk -F '\t' '
        { name = $1 $2; if ($3 != 1001 + told[name]++ % 2 && !bad[name]++) print name, $3 }'
}

# life NODE: what Redis calls it.
life() {
    redis SMEMBERS wspush:nodes | grep ":${NODE_RPC[$1]}/"
}

# --- a storm ----------------------------------------------------------------------------------

# churn NAME [COUNT]: binds and unbinds a client of b, so many times or until `stop_flows`.
churn() {
    local fd body="{\"clientId\":\"${IDS[$1]}\",\"groupName\":\"g\"}" left=${2-1000000}
    (
        exec {fd}<>"/dev/tcp/127.0.0.1/${NODE_PORT[b]}"
        while [ ! -e "$DIR/flow.stop" ] && [ $((left--)) -gt 0 ]; do
            ask_on "$fd" bind_to_group "$body"
            ask_on "$fd" unbind_from_group "$body"
            echo "$STATUS"
        done >"$DIR/$1.churn"
    ) &
    FLOWS+=($!)
}

storm() {
    local WHAT='joins and leaves beside a slow Redis' name key="wspush:node:127.0.0.1:${NODE_RPC[b]}" gone=0 i
    way redis lag 20
    for name in s1 s2 s3 s4; do
        join b $name
        churn $name
    done
    for ((i = 0; i < 60; i++)); do
        [ "$(redis EXISTS "$key")" = 1 ] || gone=$((gone + 1))
        pause 0.1
    done
    stop_flows
    for ((i = 0; i < 20; i++)); do
        [ "$(redis EXISTS "$key")" = 1 ] || gone=$((gone + 1))
        pause 0.1
    done
    echo "     $(cat "$DIR"/s?.churn | wc -l) times in and out"
    expect "$WHAT: all calls succeed" 200 "$(sort -u "$DIR"/s?.churn)"
    expect "$WHAT: the key of the node never expires" 0 $gone
    expect "$WHAT: it has not been out of touch" 0 "$(node_log b | grep -c 'Redis cannot be used')"
    way redis pass
    wait_for eval '[ "$(figure b cluster_presence_waiting)" = 0 ]'
    expect "$WHAT: nothing waits afterwards" 0 "$(figure b cluster_presence_waiting)"
    for name in a b c; do
        expect "$WHAT: $name is told of each in turn" '' "$(pairs $name)"
    done
    expect "$WHAT: none of them is left" "$(members a b c)" "$(online a)"
    for name in s1 s2 s3 s4; do
        kill "${PROCESS[$name]}"
    done
}

# writes: how many records have been written so far.
writes() {
    redis INFO commandstats | sed -n 's/^cmdstat_hset:calls=\([0-9]*\),.*/\1/p'
}

same_user() {
    local WHAT='binds that say again who the client is' before i
    join b u
    before=$(writes)
    for i in {1..20}; do
        bind b u "of u $i" u7 >/dev/null
    done
    for i in {1..20}; do
        bind b u "of u $i" u7 >/dev/null
    done
    wait_for eval '[ "$(figure b cluster_presence_waiting)" = 0 ]'
    expect "$WHAT: one record each is written" 20 $(($(writes) - before))
    kill "${PROCESS[u]}"
}

# What came and went while RabbitMQ was away costs nothing, however often.
churn_without_rabbit() {
    local WHAT='joins and leaves without RabbitMQ'
    join b v
    bind a v g >/dev/null
    expect_codes 'of its client' a v 1001
    way rabbit cut
    wait_for node_says b 'RabbitMQ cannot be used'
    churn v 500
    wait "${FLOWS[@]}"
    FLOWS=()
    expect "$WHAT: all calls succeed" 200 "$(sort -u "$DIR/v.churn")"
    wait_for eval '[ "$(figure b cluster_presence_waiting)" = 1 ]'
    expect "$WHAT: one change waits" 1 "$(figure b cluster_presence_waiting)"
    way rabbit pass
    expect_codes 'what it is in the end' a v '1001 1002'
    expect "$WHAT: no notice was dropped" 0 "$(figure b cluster_notices_dropped_total)"
    kill "${PROCESS[v]}"
}

# --- deaths -----------------------------------------------------------------------------------

# Left while its node was frozen, whose leaves were published meanwhile.
left_in_freeze() {
    local WHAT='a client left while its node was frozen' name
    join c x
    join c y
    for name in x y; do
        bind a $name g >/dev/null
        expect_codes "of $name" a $name 1001
    done
    freeze_node c
    kill "${PROCESS[x]}"
    expect_codes 'that its node is dead' a x '1001 1002'
    thaw_node c
    for name in a b; do
        expect_codes 'of the one that stayed' $name y '1001 1002 1001'
        expect "$WHAT: $name is told of it once" '1001 1002' "$(told_codes $name x)"
    done
    kill "${PROCESS[y]}"
    expect_codes 'of the one that stayed, which leaves' a y '1001 1002 1001 1002'
}

# The node that cleaned up after a frozen one is stopped; then that one dies.
cleaner_stopped() {
    local WHAT='a node died again, and the one that cleaned up after it first has stopped' teller='' other
    join c z
    bind a z g >/dev/null
    expect_codes 'of its client' a z 1001
    freeze_node c
    for _ in {1..200}; do
        teller=$(redis --scan --pattern '*' | grep -e ':tombstone:' -e ':claim:' | head -n 1)
        [ -z "$teller" ] || break
        pause 0.05
    done
    teller=$(redis GET "$teller")
    [[ $teller == *":${NODE_RPC[a]}/"* ]] && teller=a other=b || teller=b other=a
    expect_codes 'of the freeze' $other z '1001 1002'
    thaw_node c
    expect_codes 'that it is back' $other z '1001 1002 1001'
    stop_node $teller
    kill_node c
    now && begin=$NOW
    expect_codes 'of its death' $other z '1001 1002 1001 1002'
    now
    expect_time "$WHAT: when its TTL is over" 0 $((TTL + 2500)) $((NOW - begin))
    come_back $teller
    come_back c
}

# come_back NODE...: starts nodes again, with their clients.
come_back() {
    local node
    for node in "$@"; do
        restart_node "$node"
        join "$node" "$node"
        bind "$node" "$node" g >/dev/null
        wait_for eval "told_codes a $node | grep -q 1001"
    done
}

term_without_redis() {
    local WHAT='a node stopped while Redis was away' name
    expect_codes 'of its client' a c 1001
    kill_redis
    wait_for node_says c 'Redis cannot be used'
    stop_node c
    start_redis
    for name in a b; do
        expect_codes 'of its client when Redis is back' $name c '1001 1002'
    done
    pause $((TTL / 1000 + 1))
    for name in a b; do
        expect "$WHAT: $name is told once" '1001 1002' "$(told_codes $name c)"
    done
    come_back c
}

# Killed as soon as anybody has been told that its clients are there.
killed_behind_1001() {
    local WHAT='a node killed right behind a 1001' i before
    for i in {1..12}; do
        join c k$i
    done
    before=$(received notices a | wc -l)
    for i in {1..12}; do
        bind c k$i g >/dev/null 2>&1 &
    done
    wait_for has_received notices a $((before + 1))
    kill_node c
    expect_codes 'of its first client' a c '1001 1002'
    for i in {1..12}; do
        wait_for eval "told_codes a k$i | grep -q -e '^\$' -e 1002\$"
        case "$(told_codes a k$i)" in
        '' | 1002 | '1001 1002') ok "$WHAT: client $i is told of once, or not at all" ;;
        *) bad "$WHAT: client $i" "$(told_codes a k$i)" ;;
        esac
    done
    expect "$WHAT: a and b are told the same" "$(received notices a | tail -n +$((before + 1)) | sort)" \
        "$(received notices b | tail -n "$(($(received notices a | wc -l) - before))" | sort)"
    come_back c
}

# --- many memberships -------------------------------------------------------------------------

# crowd GROUP...: connects a crowd to c, all in these groups; its process is $CROWDED.
crowd() {
    rm -f "$DIR/crowd.in" "$DIR/crowd.out"
    mkfifo "$DIR/crowd.in"
    python3 -B tests/cluster/crowd.py "${NODE_PORT[c]}" shop "$TOKEN" $CROWD "$@" \
        <"$DIR/crowd.in" >"$DIR/crowd.out" 2>"$DIR/crowd.err" &
    CROWDED=$!
    exec {CROWD_IN}>"$DIR/crowd.in"
    for _ in 1 2 3; do
        wait_for has_lines "$DIR/crowd.out" 1 && break
    done
    expect "$WHAT: a crowd comes" $((CROWD * $#)) "$(cat "$DIR/crowd.out" "$DIR/crowd.err")"
}

# disperse: it goes.
disperse() {
    exec {CROWD_IN}>&-
    wait "$CROWDED"
}

# gone MEMBER: how many of the crowd the member was told 1002 of.
gone() {
    received notices "$1" | tail -n +$((${BEFORE[$1]} + 1)) | grep -c '"code":1002'
}

# The node that cleans up dies in the middle.
two_steps() {
    local WHAT='a node died, then the one that cleaned up after it' teller other key name
    remember
    crowd g
    for name in a b; do
        wait_for has_received notices $name $((${BEFORE[$name]} + CROWD))
    done
    way redis lag 60
    key=wspush:records:$(life c)
    teller=wspush:lease:$(life c)
    kill_node c
    wait_for eval "[ -n \"\$(redis GET $teller)\" ]"
    [[ $(redis GET "$teller") == *":${NODE_RPC[a]}/"* ]] && teller=a other=b || teller=b other=a
    wait_for eval "[ \$(gone $other) -gt 0 ]"
    kill_node $teller
    way redis pass
    wait_for eval "[ \"\$(redis EXISTS $key)\" = 0 ]"
    pause 0.5
    echo "     $(gone $other) of $CROWD were told of"
    expect "$WHAT: one step is lost at most" yes "$([ "$(gone $other)" -ge $((CROWD - 100)) ] && echo yes)"
    expect "$WHAT: nobody is told twice" '' "$(received notices $other | tail -n +$((${BEFORE[$other]} + 1)) |
        sort | uniq -d)"
    expect "$WHAT: no record is left" 0 "$(redis EXISTS "$key")"
    disperse
    come_back $teller
    come_back c
}

# Sends go before the 1002 of a death: no order of frames has all of these in front of a send.
flood() {
    local WHAT='the death of a node with many memberships' groups=() i longest name
    for ((i = 0; i < GROUPS_OF_CROWD; i++)); do
        groups+=("crowd$i")
        bind a a "crowd$i" >/dev/null
    done
    remember
    crowd "${groups[@]}"
    wait_for has_received notices a $((${BEFORE[a]} + CROWD * GROUPS_OF_CROWD))
    remember
    kill_node c
    for i in 1 2 3; do
        flow "flood$i" a 0.005 send_to_group "{'groupName':'g','code':CODE,'msg':'flow','data':1}"
    done
    for _ in {1..10}; do
        wait_for eval "[ \$(gone a) -ge $((CROWD * GROUPS_OF_CROWD)) ]" && break
    done
    stop_flows
    expect "$WHAT: all are told of" $((CROWD * GROUPS_OF_CROWD + 1)) "$(gone a)"
    for name in flood1 flood2 flood3; do
        answered $name
        expect "$WHAT: flow $name: success only" 0 "$(awk '$2 != 200' "$DIR/$name.flow" | wc -l)"
    done
    longest=$(awk '/"code":1002,/ { run++; if (run > most) most = run }
        /"msg":"flow"/ { run = 0 } END { print most + 0 }' "$DIR/a.out")
    echo "     at most $longest notices came between two sends"
    expect "$WHAT: sends come between the notices" yes \
        "$([ "$longest" -lt $((CROWD * GROUPS_OF_CROWD / 4)) ] && echo yes)"
    disperse
    come_back c
}

launch_rabbit
start_redis
open_ways "redis:$REDIS_PORT" "rabbit:$RABBIT_PORT"
await_rabbit
for node in "${NODES[@]}"; do # those that clean up may be slow, and b without RabbitMQ
    start_node "$node" redis.port="$([ $node = c ] && echo "$REDIS_PORT" || echo "${WAY[redis]}")" \
        rabbitmq.port="$([ $node = b ] && echo "${WAY[rabbit]}" || echo "$RABBIT_PORT")" \
        cluster.node_ttl=$((TTL / 1000))
done
at a
sign_up shop
for node in "${NODES[@]}"; do
    join "$node" "$node"
    bind "$node" "$node" g >/dev/null
done
if [ $# = 0 ]; then
    set -- storm same_user churn_without_rabbit left_in_freeze cleaner_stopped term_without_redis killed_behind_1001 two_steps flood
fi
run_faults "$@"
finish

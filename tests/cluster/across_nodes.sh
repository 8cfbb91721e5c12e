#!/usr/bin/env bash
# across_nodes.sh - three nodes as one, with real servers: whatever is asked of one node is as if there
# were no other, and clients are reached wherever they are.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

NODES=(a b c)
# the clients that stay are a, b and c on these nodes

# --- accounts ---------------------------------------------------------------------------------

accounts() {
    local node account="{'systemId':'shop','password':'secret'}"
    expect 'a system is registered on one node' "$SUCCESS" "$(on a call register "$account")"
    expect_match 'it logs in on another' '200 {"code":0,*{"token":"?*","expiresIn":172800}}' \
        "$(on b call login "$account")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    for node in "${NODES[@]}"; do
        expect "its token is good on $node" "$(members)" "$(online "$node")"
        expect_match "it is registered already on $node" '200 -1004 *registered*' \
            "$(on "$node" refusal register "{'systemId':'shop','password':'another'}")"
        expect "a wrong password on $node" '200 -1005 wrong systemId or password' \
            "$(on "$node" refusal login "{'systemId':'shop','password':'another'}")"
        expect "an unknown system on $node" '200 -1005 wrong systemId or password' \
            "$(on "$node" refusal login "{'systemId':'none','password':'another'}")"
        expect_match "a forged token on $node" '401 -1002 *' \
            "$(TOKEN=${TOKEN}0 on "$node" refusal "${LIST[@]}")"
    done
}

# anew: removes the system from Redis and registers it again, on c.
anew() {
    redis hdel wspush:accounts shop >/dev/null
    on c call register "{'systemId':'shop','password':'secret'}"
}

# refuses NODE: whether the old token is refused there for good.
refuses() {
    [[ $(TOKEN=$old on "$1" refusal "${LIST[@]}") == '401 -1002 Token header revoked'* ]]
}

# An account that is made anew has other tokens, on all nodes.
generations() {
    local node old=$TOKEN
    expect 'a system is registered anew' "$SUCCESS" "$(anew)"
    expect_match 'where it was, its old token is refused' '401 -1002 Token header revoked*' \
        "$(TOKEN=$old on c refusal "${LIST[@]}")"
    TOKEN=$(on b call login "{'systemId':'shop','password':'secret'}" | cut -c 5- | jq -r .data.token)
    for node in "${NODES[@]}"; do
        wait_for works_on "$node"
        expect "the new token is good on $node" "$(members)" "$(online "$node")"
        wait_for refuses "$node"
        expect_match "and the old one is not" '401 -1002 Token header revoked*' \
            "$(TOKEN=$old on "$node" refusal "${LIST[@]}")"
    done
}

# works_on NODE: whether a call succeeds there.
works_on() {
    [[ $(on "$1" call "${LIST[@]}") == '200 '* ]]
}

# race SYSTEM NODE: registers it with the node's name as the password.
race() {
    curl -s --max-time 100 -d "{\"systemId\":\"$1\",\"password\":\"$2\"}" \
        "http://127.0.0.1:${NODE_PORT[$2]}/api/register" | jq .code >"$DIR/$1.$2"
}

# Every fifth time Redis is frozen until both nodes have hashed the password: then they meet.
races() {
    local i first second
    for i in {1..20}; do
        first=${NODES[i % 3]} second=${NODES[(i + 1) % 3]}
        race "race$i" "$first" &
        set -- $!
        race "race$i" "$second" &
        [ $((i % 5)) != 0 ] || { sleep 0.05 && freeze_redis && sleep 0.6 && thaw_redis; }
        wait "$1" $!
        sort -n "$DIR/race$i.$first" "$DIR/race$i.$second" | xargs
    done >"$DIR/races"
    expect 'two nodes are asked to register one name: one success, one -1004, 20 times' \
        '20 -1004 0' "$(sort "$DIR/races" | uniq -c | xargs)"
    for second in "$first" "$second"; do
        expect "whose password is it? not that of a loser ($second)" \
            "$(sed 's/-1004/-1005/' "$DIR/race$i.$second")" \
            "$(on a call login "{'systemId':'race$i','password':'$second'}" | cut -c 5- | jq .code)"
    done
}

# --- one client -------------------------------------------------------------------------------

# Everything that can be asked about client b, whose node is b, of each node.
one_client() {
    local node to_b="'clientId':'${IDS[b]}'" info bad code
    info=$(on b call client_info "{$to_b}")
    expect_match 'client_info' "*{\"clientId\":\"${IDS[b]}\",\"userId\":\"\",\"extend\":\"\",*" \
        "$info"
    for node in "${NODES[@]}"; do
        expect "client_info at $node is that of the owner" "$info" \
            "$(on "$node" call client_info "{$to_b}")"
    done
    for node in "${NODES[@]}"; do
        expect "send_to_client at $node" "$SUCCESS" \
            "$(on "$node" call send_to_client "{$to_b,$MESSAGE}")"
        expect "send_to_client at $node with a receipt" "$(receipt 1)" \
            "$(on "$node" call send_to_client "{$to_b,'sendUserId':'s',$RECEIPT}")"
        expect "send_to_client at $node: the frames" \
            "$FRAME"$'\n'"${FRAME%\}},\"sendUserId\":\"s\",\"messageId\":\"m1\"}" \
            "$(messages b 2)"
        expect "bind_to_group at $node" "$SUCCESS" \
            "$(bind "$node" b "only $node" u1 'e \"é')"
        WHAT="bind_to_group at $node" IN="only $node" told 1001 b u1 'e \"é' b
        expect "bind_to_group at $node, a second time" "$SUCCESS" \
            "$(bind "$node" b "only $node")"
        bad=$(on "$node" refusal close_client "{$to_b,'code':1001}")
        expect_match "a bad code at $node" '400 -1 field code*' "$bad"
    done
    info=$(on b call client_info "{$to_b}")
    expect_match 'client_info with all that' \
        '*"userId":"u1","extend":"e \\"é","groups":\["only *' "$info"
    for node in "${NODES[@]}"; do
        expect "client_info at $node is still that of the owner" "$info" \
            "$(on "$node" call client_info "{$to_b}")"
        expect "the group is known at $node" "$(members b)" "$(online "$node" "only a")"
    done
    for node in "${NODES[@]}"; do
        for code in once twice; do
            expect "unbind_from_group at $node, $code" "$SUCCESS" \
                "$(on "$node" call unbind_from_group "{$to_b,'groupName':'only $node'}")"
        done
        expect "the group is empty at $node" "$(members)" "$(online "$node" "only $node")"
    done
    expect_match 'no groups are left' '*"groups":\[\],*' "$(on a call client_info "{$to_b}")"
    expect 'a client that leaves a group is told nothing' '' "$(notices b 0)"
}

close_client() {
    local node asked name fields="'groupName':'g','code':4000,'msg':'','data':1"
    for node in "${NODES[@]}"; do
        join b closing
        expect "close_client at $node" "$SUCCESS" \
            "$(on "$node" call close_client "{'clientId':'$ID','code':4001,'reason':'bye ü'}")"
        expect "close_client at $node: what the client gets" '4001 bye ü' "$(closed closing)"
        for asked in "${NODES[@]}"; do
            expect "close_client at $node: it is gone at $asked" "$OFFLINE" \
                "$(on "$asked" call client_info "{'clientId':'$ID'}")"
        done
    done
    for node in "${NODES[@]}"; do
        for name in send_to_client bind_to_group unbind_from_group close_client; do
            expect "$name to one that is gone, at $node" "$OFFLINE" \
                "$(on "$node" call "$name" "{'clientId':'$ID',$fields}")"
        done
    done
    join c closing
    on a call close_client "{'clientId':'$ID'}" >/dev/null
    expect 'close_client without code and reason' '1000 ' "$(closed closing)"
}

send_to_clients() {
    local node name forged=${IDS[a]/#????/AAAA} ids all
    all="'${IDS[a]}','${IDS[z]}','${IDS[b]}','$forged','${IDS[c]}'"
    for node in "${NODES[@]}"; do
        expect "send_to_clients at $node names those it has not reached" \
            "$(success "{'failed':['${IDS[z]}','$forged']}")" \
            "$(on "$node" call send_to_clients "{'clientIds':[$all],$MESSAGE}")"
        expect "send_to_clients at $node: its receipt, ids that stand twice among them" \
            "$(receipt 3 | sed "s|{\"messageId|{\"failed\":[\"${IDS[z]}\",\"$forged\"],\"messageId|")" \
            "$(on "$node" call send_to_clients "{'clientIds':['${IDS[c]}',$all,'${IDS[a]}'],$RECEIPT}")"
        for name in "${NODES[@]}"; do
            expect "send_to_clients at $node: $name gets it" "$FRAME"$'\n'"$ID_FRAME" \
                "$(messages "$name" 2)"
        done
        ids="'$forged','0123456789abcdef'"
        expect "send_to_clients at $node, to none of this system" "$(success "{'failed':[$ids]}")" \
            "$(on "$node" call send_to_clients "{'clientIds':[$ids],$MESSAGE}")"
        expect "send_to_clients at $node, to nobody" "$(success "{'failed':[]}")" \
            "$(on "$node" call send_to_clients "{'clientIds':[],$MESSAGE}")"
    done
    expect 'another system has got nothing by that' '' "$(messages z 0)"
}

# --- client ids -------------------------------------------------------------------------------

# What is no id, or one that was altered, is in tests/unit/test_cluster_wire.c.
foreign_ids() {
    local node name fields="'groupName':'g','code':4000,'msg':'','data':1"
    for name in "${NODES[@]}" z; do
        expect "the id of $name is 68 letters of base64" "${IDS[$name]}" \
            "$(grep -xE '[A-Za-z0-9+/]{68}' <<<"${IDS[$name]}")"
    done
    for node in "${NODES[@]}"; do
        for name in 0123456789abcdef "${IDS[b]/#????/AAAA}" "${IDS[z]}"; do
            expect "an id of nobody at $node: '$name'" "$OFFLINE" \
                "$(on "$node" call client_info "{'clientId':'$name'}")"
        done
        for name in send_to_client bind_to_group unbind_from_group close_client; do
            expect "$name to another system's client, at $node" "$OFFLINE" \
                "$(on "$node" call "$name" "{'clientId':'${IDS[z]}',$fields}")"
        done
    done
}

# --- groups, users, systems -------------------------------------------------------------------

# Each client is bound by the node behind its own.
bind_to_group() {
    local node
    expect 'bind a at b' "$SUCCESS" "$(bind b a g u1)"
    WHAT='bind a at b' told 1001 a u1 '' a
    expect 'bind b at c' "$SUCCESS" "$(bind c b g u1 'e é')"
    WHAT='bind b at c' told 1001 b u1 'e é' a b
    expect 'bind c at a' "$SUCCESS" "$(bind a c g)"
    WHAT='bind c at a' told 1001 c '' '' a b c
    expect 'bind c at b, a second time' "$SUCCESS" "$(bind b c g)"
    for node in "${NODES[@]}"; do
        expect "get_online_list at $node" "$(members a b c)" "$(online "$node")"
    done
}

sends_to_many() {
    local node excluded one two system
    excluded="'groupName':'g','exclude':['${IDS[b]}','none','${IDS[z]}','${IDS[c]}']"
    one=${FRAME%\}}',"sendUserId":"x"}' two='{"code":1,"msg":"user","data":2}'
    system='{"code":0,"msg":"","data":{}}'
    for node in "${NODES[@]}"; do
        expect "send_to_group at $node" "$SUCCESS" \
            "$(on "$node" call send_to_group "{'groupName':'g',$MESSAGE}")"
        expect "send_to_group at $node with a receipt" "$(receipt 3)" \
            "$(on "$node" call send_to_group "{'groupName':'g',$RECEIPT}")"
        expect "send_to_group at $node with exclude" "$SUCCESS" \
            "$(on "$node" call send_to_group "{$excluded,'sendUserId':'x',$MESSAGE}")"
        expect "send_to_group at $node with exclude and a receipt" "$(receipt 1)" \
            "$(on "$node" call send_to_group "{$excluded,$RECEIPT}")"
        expect "send_to_group at $node to nobody" "$(receipt 0)" \
            "$(on "$node" call send_to_group "{'groupName':'none',$RECEIPT}")"
        expect "send_to_user at $node" "$SUCCESS" \
            "$(on "$node" call send_to_user "{'userId':'u1','code':1,'msg':'user','data':2}")"
        expect "send_to_user at $node with a receipt" "$(receipt 2)" \
            "$(on "$node" call send_to_user "{'userId':'u1',$RECEIPT}")"
        expect "send_to_user at $node to nobody" "$(receipt 0)" \
            "$(on "$node" call send_to_user "{'userId':'u9',$RECEIPT}")"
        expect "send_to_system at $node" "$SUCCESS" \
            "$(on "$node" call send_to_system "{'code':0,'msg':'','data':{}}")"
        expect "send_to_system at $node with a receipt" "$(receipt 3)" \
            "$(on "$node" call send_to_system "{$RECEIPT}")"
        expect "all that one without exclusion gets from $node" \
            "$(printf '%s\n' "$FRAME" "$ID_FRAME" "$one" "$ID_FRAME" "$two" "$ID_FRAME" "$system" \
                "$ID_FRAME")" "$(messages a 8)"
        expect "all that an excluded one gets from $node" \
            "$(printf '%s\n' "$FRAME" "$ID_FRAME" "$two" "$ID_FRAME" "$system" "$ID_FRAME")" \
            "$(messages b 6)"
        expect "all that an excluded one without a user gets from $node" \
            "$(printf '%s\n' "$FRAME" "$ID_FRAME" "$system" "$ID_FRAME")" "$(messages c 4)"
    done
    expect 'another system has got nothing by that' '' "$(messages z 0)"
}

fresh_receipts() {
    local id name
    on c call send_to_group "{'groupName':'g','receipt':true,$MESSAGE}" >/dev/null
    id=$(jq -r .data.messageId "$DIR/body")
    expect 'a fresh messageId is long enough' 1 $((${#id} >= 16))
    for name in "${NODES[@]}"; do
        expect "$name gets the messageId of the receipt" \
            "${ID_FRAME/m1/$id}" "$(messages "$name" 1)"
    done
}

# A user's clients follow the user, wherever they are.
users() {
    expect 'a bind at another node replaces the user' "$SUCCESS" "$(bind a b g u2)"
    expect 'the old user has one client less' "$(receipt 1)" \
        "$(on c call send_to_user "{'userId':'u1',$RECEIPT}")"
    expect 'and the new one has one' "$(receipt 1)" \
        "$(on c call send_to_user "{'userId':'u2',$RECEIPT}")"
    expect 'the one gets its message' "$ID_FRAME" "$(messages a 1)"
    expect 'and the other its own' "$ID_FRAME" "$(messages b 1)"
    expect 'an empty userId takes it off' "$SUCCESS" \
        "$(on c call bind_to_group "{'clientId':'${IDS[b]}','groupName':'g','userId':''}")"
    expect 'at its node, too' "$(receipt 0)" "$(on b call send_to_user "{'userId':'u2',$RECEIPT}")"
    expect_match 'as is known' '*"userId":"",*' "$(on b call client_info "{'clientId':'${IDS[b]}'}")"
    bind c b g u1 >/dev/null
}

values() {
    local value name
    {
        printf '%s\n' 123456789012345678901234567890 1e400 1.0 -0 \
            '"\u0041"' '"\ud83d\ude00é😀"' '"\/\b\f\n\r\t\"\\"' \
            '{"b":[1,{"a":null}],"a":"\u0000","code":5}' '{"a":1,"a":{"b":2,"b":3}}'
        echo "\"$(head -c 150000 /dev/urandom | base64 -w 0)\""
    } >"$DIR/values"
    while IFS= read -r value; do
        printf '{"groupName":"g","code":1,"msg":"\\u0041","data":%s}' "$value" >"$DIR/request"
        on a call send_to_group "@$DIR/request" >/dev/null
        for name in "${NODES[@]}"; do
            printf '{"code":1,"msg":"\\u0041","data":%s}\n' "$value" >"$DIR/expected"
            messages "$name" 1 >"$DIR/frame"
            expect "data ${value:0:40} arrives at $name as it is" '' \
                "$(cmp "$DIR/expected" "$DIR/frame" 2>&1)"
        done
        printf '{"clientId":"%s","code":1,"msg":"\\u0041","data":%s}' "${IDS[c]}" "$value" \
            >"$DIR/request"
        on b call send_to_client "@$DIR/request" >/dev/null
        messages c 1 >"$DIR/frame"
        expect "data ${value:0:40} arrives at one client as it is" '' \
            "$(cmp "$DIR/expected" "$DIR/frame" 2>&1)"
    done <"$DIR/values"
    for value in 9223372036854775807 -9223372036854775808; do
        on c call send_to_group "{'groupName':'g','code':$value,'msg':'','data':1}" >/dev/null
        for name in "${NODES[@]}"; do
            expect "code $value arrives at $name" "{\"code\":$value,\"msg\":\"\",\"data\":1}" \
                "$(messages "$name" 1)"
        done
    done
}

# --- right after a bind -----------------------------------------------------------------------

# ask NODE NAME BODY: prints a call for curl's configuration.
ask() {
    printf 'url = "http://127.0.0.1:%s/api/%s"\nheader = "Token: %s"\ndata-binary = %s\nnext\n' \
        "${NODE_PORT[$1]}" "$2" "$TOKEN" "${3//\'/\"}"
}

# For each client at the same time: it is bound to groups that were not there before, by each node
# in turn, and each node in turn sends to it at once. Then it leaves in the same way.
after_binding() {
    local i name client group binder sender steps
    for ((i = 0; i < 102; i++)); do
        name=${NODES[i % 3]} binder=${NODES[i / 3 % 3]} sender=${NODES[i / 9 % 3]}
        client="'clientId':'${IDS[$name]}'" group="'groupName':'new$i'"
        {
            ask "$binder" bind_to_group "{$client,$group}"
            ask "$sender" send_to_group "{$group,'code':$i,'msg':'','data':'$name'}"
        } >>"$DIR/$name.binds"
        {
            ask "$binder" unbind_from_group "{$client,$group}"
            ask "$sender" send_to_group "{$group,'code':$i,'msg':'late','data':'$name'}"
        } >>"$DIR/$name.unbinds"
        echo "{\"code\":$i,\"msg\":\"\",\"data\":\"$name\"}" >>"$DIR/$name.expected"
    done
    for steps in binds unbinds; do
        set --
        for name in "${NODES[@]}"; do
            sed '$d' "$DIR/$name.$steps" | curl -s --max-time 100 -K - >"$DIR/$name.answers" &
            set -- "$@" $!
        done
        wait "$@"
        for name in "${NODES[@]}"; do
            expect "34 $steps of $name and sends succeed" 68 \
                "$(grep -oF "${SUCCESS#200 }" "$DIR/$name.answers" | wc -l)"
        done
        [ $steps = unbinds ] || for name in "${NODES[@]}"; do
            expect "what is sent right after a bind reaches $name" \
                "$(sort "$DIR/$name.expected")" "$(messages "$name" 34 | sort)"
            notices "$name" 34 >"$DIR/told"
            expect "$name has been told of each bind" 34 "$(wc -l <"$DIR/told")"
            expect_match "$name has been told of nothing else" \
                "$(IN='new*' notice 1001 "${IDS[$name]}" '*' '*')" "$(sort -u "$DIR/told")"
        done
    done
    on a call send_to_system "{$MESSAGE}" >/dev/null
    for name in "${NODES[@]}"; do
        expect "what is sent after an unbind does not reach $name" "$FRAME" "$(messages "$name" 1)"
    done
}

# A bind is not answered before the broker has what it takes to be reached.
bind_waits() {
    local node
    for node in a b; do # the owner, and another one
        freeze_rabbit
        bind "$node" a "slow $node" >"$DIR/answer" &
        sleep 0.4
        expect "bind_to_group at $node is not answered before RabbitMQ has the binding" '' \
            "$(cat "$DIR/answer")"
        thaw_rabbit
        wait $!
        expect "bind_to_group at $node is answered then" "$SUCCESS" "$(cat "$DIR/answer")"
        expect "what is sent behind that answer of $node is taken" "$SUCCESS" \
            "$(on c call send_to_group "{'groupName':'slow $node',$MESSAGE}")"
        expect "and reaches the client once" "$FRAME" "$(messages a 1)"
        WHAT='after the thaw' IN="slow $node" told 1001 a u1 '' a
    done
}

# --- order ------------------------------------------------------------------------------------

# stream BASE: prints 200 sends with the codes BASE + 1 and so on.
stream() {
    local i
    for ((i = $1 + 1; i <= $1 + 200; i++)); do
        request send_to_group "{'groupName':'order','code':$i,'msg':'','data':1}"
    done
    request get_online_list '{}' 'Connection: close'
}

order() {
    local name base
    for name in "${NODES[@]}"; do
        bind a "$name" order >/dev/null
    done
    notices a 3 >/dev/null
    notices b 2 >/dev/null
    notices c 1 >/dev/null
    set --
    for base in 1000 2000 3000; do
        stream $base >"$DIR/stream.$base"
    done
    for base in 1000 2000 3000; do
        on "${NODES[base / 1000 - 1]}" talk <"$DIR/stream.$base" >"$DIR/answers.$base" &
        set -- "$@" $!
    done
    wait "$@"
    for name in "${NODES[@]}"; do
        messages "$name" 600 | jq -r .code >"$DIR/codes.$name"
        expect "three nodes send 200 messages each at the same time: $name gets each of them once" \
            "$(seq 1001 1200 && seq 2001 2200 && seq 3001 3200)" "$(sort -n "$DIR/codes.$name")"
        expect "$name sees the order that all see" '' \
            "$(cmp "$DIR/codes.a" "$DIR/codes.$name" 2>&1)"
    done
    for base in 1000 2000 3000; do
        expect "the sender of $base is answered" 200 \
            "$(grep -oF "${SUCCESS#200 }" "$DIR/answers.$base" | wc -l)"
        expect "and keeps its order" "$(seq $((base + 1)) $((base + 200)))" \
            "$(awk -v base=$base '$1 > base && $1 <= base + 200' "$DIR/codes.b")"
    done
    # otherwise it would have shown nothing
    expect 'the three have sent at the same time' mixed \
        "$(sort -nc "$DIR/codes.a" 2>/dev/null || echo mixed)"
    for name in "${NODES[@]}"; do
        on b call unbind_from_group "{'clientId':'${IDS[$name]}','groupName':'order'}" >/dev/null
    done
    pause 0.5 # who has left before its turn comes is not told
    notices b 0 >/dev/null
    notices c 0 >/dev/null
}

# --- notices ----------------------------------------------------------------------------------

group_notices() {
    local name WHAT
    WHAT='unbind c at a'
    expect "$WHAT" "$SUCCESS" \
        "$(on a call unbind_from_group "{'clientId':'${IDS[c]}','groupName':'g'}")"
    told 1002 c '' '' a b
    WHAT='bind c at b'
    expect "$WHAT" "$SUCCESS" "$(bind b c g)"
    told 1001 c '' '' a b c
    WHAT='a client of c joins at a'
    join c d
    bind a d g u1 'x' >/dev/null
    told 1001 d u1 x a b c d
    WHAT='a client of c disconnects'
    kill "${PROCESS[d]}"
    told 1002 d u1 x a b c
    WHAT='a client of b is closed at a'
    join b d
    bind c d g >/dev/null
    told 1001 d '' '' a b c d
    on a call close_client "{'clientId':'${IDS[d]}'}" >/dev/null
    told 1002 d '' '' a b c
    expect 'those who have gone are in no list' "$(members a b c)" "$(online b)"
    expect 'nor is anything sent to them' "$(receipt 3)" \
        "$(on b call send_to_group "{'groupName':'g',$RECEIPT}")"
    for name in "${NODES[@]}"; do
        expect "$name is still there" "$ID_FRAME" "$(messages "$name" 1)"
    done
}

# isolation: z is a client of another system on node c.
isolation() {
    local node name send SHOP=$TOKEN
    expect 'another system has a group and a user of the same names' "$SUCCESS" \
        "$(TOKEN=$DEPOT bind a z g u1)"
    WHAT='bind in another system' told 1001 z u1 '' z
    for node in "${NODES[@]}"; do
        TOKEN=$DEPOT
        expect "it has its own members at $node" "$(members z)" "$(online "$node")"
        for send in "send_to_group {'groupName':'g'," "send_to_user {'userId':'u1'," \
            'send_to_system {'; do
            expect "${send%% *} at $node stays in its system" "$(receipt 1)" \
                "$(on "$node" call "${send%% *}" "${send#* }$RECEIPT}")"
        done
        expect "what it gets from $node" "$(printf '%s\n' "$ID_FRAME" "$ID_FRAME" "$ID_FRAME")" \
            "$(messages z 3)"
        TOKEN=$SHOP
        expect "who are none here at $node" "$(members a b c)" "$(online "$node")"
        expect "nobody there can be excluded here at $node" "$(receipt 3)" \
            "$(on "$node" call send_to_group "{'groupName':'g','exclude':['${IDS[z]}'],$RECEIPT}")"
        for name in "${NODES[@]}"; do
            expect "what $name gets from $node" "$ID_FRAME" "$(messages "$name" 1)"
        done
    done
    for name in "${NODES[@]}"; do
        expect "$name has not been told of another system" '' "$(notices "$name" 0)"
    done
}

# --- a node comes and goes --------------------------------------------------------------------

restart() {
    local node name gone=${IDS[c]}
    stop_node c
    expect 'a node that is stopped closes its clients' '1001 going away' "$(closed c)"
    WHAT='a node is stopped' told 1002 c '' '' a b
    for node in a b; do
        expect "its clients are in no list at $node, which is complete" "$(members a b)" \
            "$(online "$node")"
        expect "its client is not online at $node" "$OFFLINE" \
            "$(on "$node" call client_info "{'clientId':'$gone'}")"
        expect "nor counted at $node" "$(receipt 2)" \
            "$(on "$node" call send_to_group "{'groupName':'g',$RECEIPT}")"
    done
    restart_node c
    for node in "${NODES[@]}"; do
        expect "an id from before the restart at $node" "$OFFLINE" \
            "$(on "$node" call client_info "{'clientId':'$gone'}")"
        expect "send_to_clients to it at $node" "$(success "{'failed':['$gone']}")" \
            "$(on "$node" call send_to_clients "{'clientIds':['$gone'],$MESSAGE}")"
    done
    expect_match 'an account is known to a node that has just started' '200 {"code":0,*' \
        "$(TOKEN='' on c call login "{'systemId':'shop','password':'secret'}")"
    join c c
    expect 'its new client has another id' 1 "$([ "${IDS[c]}" != "$gone" ] && echo 1)"
    expect 'and is bound again' "$SUCCESS" "$(bind b c g)"
    WHAT='after the restart' told 1001 c '' '' a b c
    messages a 2 >/dev/null
    messages b 2 >/dev/null
    for node in "${NODES[@]}"; do
        expect "all members are reached from $node again" "$(receipt 3)" \
            "$(on "$node" call send_to_group "{'groupName':'g',$RECEIPT}")"
        for name in "${NODES[@]}"; do
            expect "$name is reached from $node" "$ID_FRAME" "$(messages "$name" 1)"
        done
        expect "get_online_list at $node after the restart" "$(members a b c)" "$(online "$node")"
    done
}

# --- behind nginx -----------------------------------------------------------------------------

# shellcheck disable=SC2016 # these are variables of nginx
PROXY='
map $http_upgrade $connection_upgrade { "" ""; default upgrade; }
upstream wspush { least_conn; SERVERS }
log_format upstream "$upstream_addr $uri";
server {
    listen 127.0.0.1:PORT;
    access_log LOG upstream;
    client_max_body_size 1m;
    location / {
        proxy_pass http://wspush;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_read_timeout 1h;
    }
}'

# shellcheck disable=SC2317,SC2329 # called by wait_for
walked() {
    [ "$(grep -c ' /ws$' "$DIR/upstreams")" = 3 ]
}

# upstreams PATTERN: prints how many nodes nginx has given such requests.
upstreams() {
    grep "$1" "$DIR/upstreams" | cut -d ' ' -f 1 | sort -u | wc -l
}

behind_nginx() {
    local servers='' node name i TOKEN
    free_port
    for node in "${NODES[@]}"; do
        servers+="server 127.0.0.1:${NODE_PORT[$node]}; "
    done
    PROXY=${PROXY/SERVERS/$servers}
    PROXY=${PROXY/LOG/$DIR/upstreams}
    start_nginx "${PROXY/PORT/$FREE}" "$FREE"
    NODE_PORT[nginx]=$NGINX_PORT
    on nginx sign_up walk
    for name in n1 n2 n3; do
        join nginx "$name" walk
        expect "nginx: $name is bound" "$SUCCESS" "$(bind nginx "$name" news "user of $name")"
        WHAT='nginx: bind' IN=news told 1001 "$name" "user of $name" '' n1
    done
    for i in 1 2 3; do
        expect "nginx: the members, asked $i times" "$(members n1 n2 n3)" "$(online nginx news)"
        expect 'nginx: send_to_group' "$(receipt 3)" \
            "$(on nginx call send_to_group "{'groupName':'news',$RECEIPT}")"
        for name in n1 n2 n3; do
            expect "nginx: send_to_client to $name" "$SUCCESS" \
                "$(on nginx call send_to_client "{'clientId':'${IDS[$name]}',$MESSAGE}")"
            expect "nginx: send_to_user to $name" "$(receipt 1)" \
                "$(on nginx call send_to_user "{'userId':'user of $name',$RECEIPT}")"
        done
        for name in n1 n2 n3; do
            expect "nginx: what $name gets" "$(printf '%s\n' "$FRAME" "$ID_FRAME" "$ID_FRAME")" \
                "$(messages "$name" 3 | sort -r)"
        done
    done
    echo ping >"$DIR/n2.in"
    expect 'nginx: ping' pong "$(messages n2 1)"
    expect_match 'nginx: client_info' "*\"userId\":\"user of n2\",*\"groups\":\[\"news\"\],*" \
        "$(on nginx call client_info "{'clientId':'${IDS[n2]}'}")"
    expect 'nginx: unbind' "$SUCCESS" \
        "$(on nginx call unbind_from_group "{'clientId':'${IDS[n2]}','groupName':'news'}")"
    WHAT='nginx: unbind' IN=news told 1002 n2 'user of n2' '' n1
    for name in n1 n2 n3; do
        expect "nginx: close_client $name" "$SUCCESS" "$(on nginx call close_client \
            "{'clientId':'${IDS[$name]}','code':3000,'reason':'end'}")"
        expect "nginx: $name is closed" '3000 end' "$(closed "$name")"
    done
    wait_for walked
    stop_nginx
    expect 'nginx: the clients were on three nodes' 3 "$(upstreams ' /ws$')"
    expect 'nginx: each node was asked' 3 "$(upstreams ' /api/')"
}

# --- notices to a whole system ----------------------------------------------------------------

system_notices() {
    local node name WHAT IN=''
    for node in "${NODES[@]}"; do
        stop_node "$node" # they must agree
    done
    for node in "${NODES[@]}"; do
        configure_node "$node" notice.scope=system
    done
    start_all
    WHAT='scope = system: the first one'
    join a a
    told 1001 a '' '' a
    join b z depot
    WHAT='scope = system: another system' told 1001 z '' '' z
    WHAT='scope = system: the second'
    join b b
    told 1001 b '' '' a b
    WHAT='scope = system: the third'
    join c c
    told 1001 c '' '' a b c
    bind b c g u1 >/dev/null
    bind b a g >/dev/null
    on a call send_to_system "{$MESSAGE}" >/dev/null
    for name in "${NODES[@]}"; do
        expect "scope = system: a message for $name" "$FRAME" "$(messages "$name" 1)"
        expect "scope = system: $name is not told of binds" '' "$(notices "$name" 0)"
    done
    kill "${PROCESS[c]}"
    WHAT='scope = system: the third disconnects' told 1002 c u1 '' a b
    stop_node b
    WHAT='scope = system: a node is stopped' told 1002 b '' '' a
    expect 'scope = system: another system is not told' '' "$(notices z 0)"
}

# What the nodes count of each other and of what they share.
figures() {
    local node
    for node in "${NODES[@]}"; do
        expect "$node knows the others" '2 2 1 1' "$(figure $node cluster_nodes) $(figure $node cluster_links) $(figure $node redis_up) $(figure $node rabbitmq_up)"
        expect "$node: what it publishes is confirmed" "$(figure $node rabbitmq_publishes_total)" \
            "$(figure $node rabbitmq_confirms_total)"
        expect "$node: RabbitMQ was connected once" 1 "$(figure $node rabbitmq_connects_total)"
        expect "$node has nothing to refuse" 0 "$(figure $node rabbitmq_refusals_total)"
    done
    expect 'a has published' 1 "$(($(figure a rabbitmq_publishes_total) > 20))"
    curl -s "http://127.0.0.1:${NODE_ADMIN[a]}/metrics" >"$DIR/metrics"
    expect 'promtool has nothing to say' '0 ' "$(promtool check metrics <"$DIR/metrics" 2>&1; echo "$? ")"
}

# start_all: starts the nodes as they are configured, at the same time.
start_all() {
    local node
    for node in "${NODES[@]}"; do
        launch_node "$node"
    done
    for node in "${NODES[@]}"; do
        await_node "$node" 'joined the cluster' 'RabbitMQ is connected' ||
            broken "the node $node starts" <(cat "$DIR/$node.stderr" "$DIR/$node.log")
    done
}

launch_rabbit
start_redis
for node in "${NODES[@]}"; do
    configure_node "$node"
done
await_rabbit
start_all
accounts
generations
races
SHOP=$TOKEN
on c sign_up depot
DEPOT=$TOKEN TOKEN=$SHOP
join a a
join b b
join c c
join c z depot
one_client
close_client
send_to_clients
foreign_ids
bind_to_group
sends_to_many
fresh_receipts
users
values
after_binding
bind_waits
order
group_notices
isolation
quiet a b c z
restart
figures
behind_nginx
quiet a b c
system_notices
finish

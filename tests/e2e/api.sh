#!/usr/bin/env bash
# api.sh - the HTTP API of a running server, with real clients connected: what is answered and what
# the clients get is compared byte for byte.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

LOGIN="{'systemId':'shop','password':'secret'}"
BAD='400 {"code":-1,"msg":"' # how the refusal of a malformed request begins

# online ID...: prints the answer to get_online_list.
online() {
    local ids
    printf -v ids ",'%s'" "$@"
    [ $# != 0 ] || ids=
    success "{'count':$#,'list':[${ids#,}]}"
}

# repeat TEXT COUNT: prints a text so many times.
repeat() {
    printf "%$2s" '' | sed "s/ /$1/g"
}

# deep COUNT: prints an array in an array in an array.
deep() {
    repeat '[' "$1"
    repeat ']' "$1"
}

# replies: prints "STATUS BODY" for each of the answers that it reads.
replies() {
    LC_ALL=C awk '
        { sub(/\r$/, "") }
        /^{/ {
            next_at = match($0, /HTTP\/1.1 [0-9][0-9][0-9] [A-Z][A-Za-z ]*$/)
            print status, next_at ? substr($0, 1, next_at - 1) : $0
            $0 = next_at ? substr($0, next_at) : ""
        }
        /^HTTP/ { status = $2 }'
}

# judged EXPECTED LINE...: sends the head of a POST, its body of 1 MiB but for the last byte, and expects the
# answer, the connection's last, without it.
judged() {
    local expected=$1
    shift
    expect_match "$* is judged by its head" "HTTP/1.1 ${expected%% *} *Connection: close*${expected#* }*" \
        "$({ lines "$@" 'Host: h' 'Content-Length: 1048576'; head -c 1048575 /dev/zero; } | talk 2>/dev/null | tr '\r\n' '  ')"
}

# judgements: who may not call is told so before the body is read, and is not told to go on.
judgements() {
    local list=/api/get_online_list
    judged '404 *"unknown path"' 'POST /nope HTTP/1.1'
    judged '401 *"Token header missing"' "POST $list HTTP/1.1"
    judged '401 *"Token header forged or expired"' "POST $list HTTP/1.1" 'Token: forged'
    judged '405 *POST*' "PUT $list HTTP/1.1" "Token: $TOKEN"
    judged '405 *' 'POST / HTTP/1.1'
    judged '405 *' 'POST /ws HTTP/1.1'
    judged '415 *"Content-Encoding gzip is not*"' 'POST /api/login HTTP/1.1' 'Content-Encoding: gzip'
    judged '404 *"clients connect to /ws?systemId=*"' 'POST /socket HTTP/1.1' 'Connection: Upgrade' 'Upgrade: websocket'
    expect '401 says which token' Token "$(post "/api/get_online_list" '{}' -H 'Token: forged' >/dev/null; header www-authenticate)"
    call "${LIST[@]}" >/dev/null
    expect 'how long the connection stays' 'timeout=74' "$(header keep-alive)"
    expect 'and that nobody keeps the answer' 'no-store nosniff' \
        "$(header cache-control) $(header x-content-type-options)"
    judged '403 *"Origin http://x is foreign to Host h: *"' 'POST /api/login HTTP/1.1' 'Origin: http://x'
    judged '403 *"Origin http://h is foreign to Host h: *"' 'POST /api/login HTTP/1.1' 'Origin: http://h' \
        'Sec-Fetch-Site: cross-site'
    expect 'nor are they told to go on' '401 1' "$(call "${LIST[@]}" -H 'Token: forged' -H 'Expect: 100-continue' |
        cut -c 1-4)$(grep -c '^HTTP' "$DIR/headers")"
    expect 'a short body is skipped: the connection stays' '401 200' "$({
        TOKEN=forged request "${LIST[@]}"
        request "${LIST[@]}" 'Connection: close'
    } | talk | replies | cut -c 1-3 | xargs)"
}

# cases: reads lines "NAME|PATH|BODY|PATTERN", asks all that in one go, and compares "STATUS BODY".
cases() {
    local name path body pattern i names=() patterns=() answers
    while IFS='|' read -r name path body pattern; do
        names+=("$name") patterns+=("$pattern")
        request "$path" "$body"
    done >"$DIR/requests"
    request get_online_list '{}' 'Connection: close' >>"$DIR/requests"
    mapfile -t answers < <(talk <"$DIR/requests" | replies)
    for i in "${!names[@]}"; do
        expect_match "${names[i]}" "${patterns[i]}" "${answers[i]-}"
    done
}

# --- accounts ---------------------------------------------------------------------------------

accounts() {
    local account="'systemId':'shop','password':'secret'"
    expect 'register answers' "$SUCCESS" "$(call register "{$account}")"
    expect_match 'a systemId is registered once' '200 -1004 *registered*' \
        "$(refusal register "{'systemId':'shop','password':'another'}")"
    expect_match 'login answers with a token, and the old password is still the one' \
        '200 {"code":0,"msg":"success","data":{"token":"?*","expiresIn":172800}}' \
        "$(call login "{$account}")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    expect 'a wrong password' '200 -1005 wrong systemId or password' \
        "$(refusal login "{'systemId':'shop','password':'another'}")"
    expect 'an unknown systemId looks the same' '200 -1005 wrong systemId or password' \
        "$(refusal login "{'systemId':'none','password':'another'}")"
    expect 'the password is neither in the data nor in the log' '' \
        "$(grep -rlE 'secret|another' "$DIR/data" "$DIR/log")"
    expect 'the data is for its owner only' '' "$(find "$DIR/data" -perm /077)"
}

unwritable_accounts() {
    local account="{'systemId':'other','password':'secret'}"
    mv "$DIR/data/accounts" "$DIR/aside"
    mkdir "$DIR/data/accounts"
    expect_match 'accounts that cannot be written' '503 -1007 *saved*' \
        "$(refusal register "$account")"
    rmdir "$DIR/data/accounts"
    mv "$DIR/aside" "$DIR/data/accounts"
    expect 'nothing has changed by that' "$SUCCESS" "$(call register "$account")"
}

longest_account() {
    local account TOKEN=''
    account="{'systemId':'$(repeat ü 64)','password':'$(repeat x 256)'}"
    expect 'the longest systemId and password' "$SUCCESS" "$(call register "$account")"
    expect_match 'can log in' '200 {"code":0,*' "$(call login "$account")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    expect 'and its token works' "$(online)" "$(call "${LIST[@]}")"
}

tokens() {
    local good=$TOKEN name other
    TOKEN=
    for name in send_to_client bind_to_group send_to_group get_online_list send_to_clients \
        send_to_system send_to_user unbind_from_group close_client client_info; do
        expect "$name without a token" '401 -1002 Token header missing' "$(refusal $name '{}')"
    done
    other=0
    [[ $good != *0 ]] || other=1
    for TOKEN in x "${good}0" "${good%?}" "${good%?}$other" "0$good" "${good^^}" "${good/#0/1}" \
        "${good%%.*}.6f74686572.${good##*.}"; do
        expect_match "the token $TOKEN is forged" '401 -1002 Token header forged*' \
            "$(refusal "${LIST[@]}")"
    done
    TOKEN=$good
    expect_match 'two tokens are none' '401 -1002 *' "$(refusal "${LIST[@]}" -H "Token: $good")"
}

# --- one client -------------------------------------------------------------------------------

send_to_client() {
    expect 'send_to_client' "$SUCCESS" \
        "$(call send_to_client "{$TO_A,'code':42,'msg':'hi','data':{'k':[1,2]}}")"
    expect 'its frame' '{"code":42,"msg":"hi","data":{"k":[1,2]}}' "$(frames a 1)"
    expect 'unknown fields are ignored, and the order of fields does not matter' "$SUCCESS" \
        "$(call send_to_client "{'x':{'code':1},'data':[],'groupName':7,'msg':'','code':-1,$TO_A}")"
    expect 'the frame is in the usual order' '{"code":-1,"msg":"","data":[]}' "$(frames a 1)"
    call send_to_client "{'messageId':'n\\\"1','sendUserId':'u',$TO_A,$MESSAGE}" >/dev/null
    expect 'sendUserId and messageId stand behind data' \
        '{"code":7,"msg":"m","data":1,"sendUserId":"u","messageId":"n\"1"}' "$(frames a 1)"
    call send_to_client "{$TO_A,'sendUserId':'',$MESSAGE}" >/dev/null
    expect 'an empty sendUserId is one too' '{"code":7,"msg":"m","data":1,"sendUserId":""}' \
        "$(frames a 1)"
    expect 'a receipt' "$(receipt 1)" "$(call send_to_client "{$TO_A,$RECEIPT}")"
    expect 'the frame has its messageId' "$ID_FRAME" "$(frames a 1)"
    expect 'no receipt' "$SUCCESS" "$(call send_to_client "{$TO_A,'receipt':false,$MESSAGE}")"
    expect 'and no messageId' "$FRAME" "$(frames a 1)"
}

fresh_receipts() {
    local first second
    call send_to_client "{$TO_A,'receipt':true,$MESSAGE}" >/dev/null
    first=$(jq -r .data.messageId "$DIR/body")
    expect 'a fresh messageId is pushed as well' "${ID_FRAME/m1/$first}" "$(frames a 1)"
    call send_to_client "{$TO_A,'receipt':true,$MESSAGE}" >/dev/null
    second=$(jq -r .data.messageId "$DIR/body")
    expect 'so is the next one' "${ID_FRAME/m1/$second}" "$(frames a 1)"
    expect 'they are long enough' 1 $((${#first} >= 16 && ${#second} >= 16))
    expect 'and differ' 1 "$([ "$first" != "$second" ] && echo 1)"
}

not_online() {
    local name id fields="'code':4000" ids
    ids=(0123456789abcdef "${A}0" "${A%?}" "0x${A:2}" "${A/%?/g}" '' ü "$Z")
    [ "$A" = "${A^^}" ] || ids+=("${A^^}")
    for name in close_client send_to_client bind_to_group unbind_from_group client_info; do
        [ $name = close_client ] || fields=$MESSAGE
        for id in "${ids[@]}"; do
            echo "$name to '$id'|$name|{'clientId':'$id','groupName':'g',$fields}|${OFFLINE%??}*"
        done
    done | cases
    expect 'a receipt for one that is not online' "$OFFLINE" \
        "$(call send_to_client "{'clientId':'0123456789abcdef',$RECEIPT}")"
}

close_client() {
    local name fields expected reason
    reason=$(repeat r 123)
    while IFS='|' read -r name fields expected; do
        client e shop
        call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
        expect "close_client $name" "$SUCCESS" "$(call close_client "{'clientId':'$ID'$fields}")"
        expect "close_client $name: it is offline at once" "$OFFLINE" \
            "$(call client_info "{'clientId':'$ID'}")"
        expect "close_client $name: what it gets" "$expected" "$(closed e)"
        expect "close_client $name: the group is told" "$(notice 1001 "$ID" && notice 1002 "$ID")" \
            "$(frames a 2)"
        frames c 2 >/dev/null
    done <<END
without a code||1000 
with 1000|,'code':1000,'reason':'done'|1000 done
with a reason alone|,'reason':'only ü'|1000 only ü
with 3000|,'code':3000|3000 
with 4999 and the longest reason|,'code':4999,'reason':'$reason'|4999 $reason
END
    expect_match 'close_client with a code that is not for it' '400 -1 field code *' \
        "$(refusal close_client "{$TO_A,'code':1001}")"
    expect_match 'close_client with too long a reason' '400 -1 *reason*123*' \
        "$(refusal close_client "{$TO_A,'reason':'r$reason'}")"
}

# --- several clients --------------------------------------------------------------------------

send_to_clients() {
    local gone=0123456789abcdef
    expect 'send_to_clients names those it has not reached' \
        "$(success "{'failed':['$gone','$Z']}")" \
        "$(call send_to_clients "{'clientIds':['$A','$gone','$B','$Z'],$MESSAGE}")"
    expect 'the first gets it' "$FRAME" "$(frames a 1)"
    expect 'the last gets it' "$FRAME" "$(frames b 1)"
    expect 'send_to_clients that reaches all' "$(success "{'failed':[]}")" \
        "$(call send_to_clients "{'clientIds':['$B'],$MESSAGE}")"
    expect 'the one gets it' "$FRAME" "$(frames b 1)"
    expect 'send_to_clients to nobody' "$(success "{'failed':[]}")" \
        "$(call send_to_clients "{'clientIds':[],$MESSAGE}")"
    expect 'its receipt counts those online, and names the others' \
        "$(receipt 2 | sed "s/{\"messageId/{\"failed\":[\"$gone\"],\"messageId/")" \
        "$(call send_to_clients "{'clientIds':['$A','$gone','$C','$A'],$RECEIPT}")"
    expect 'one gets it with its id' "$ID_FRAME" "$(frames a 1)"
    expect 'and so does the other' "$ID_FRAME" "$(frames c 1)"
}

bind_to_group() {
    expect 'a group without members' "$(online)" "$(call "${LIST[@]}")"
    expect 'a send to it is success' "$SUCCESS" \
        "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect 'bind_to_group' "$SUCCESS" "$(call bind_to_group "{$TO_A,'groupName':'g'}")"
    expect 'the member gets its own notice' "$(notice 1001 "$A")" "$(frames a 1)"
    expect 'get_online_list' "$(online "$A")" "$(call "${LIST[@]}")"
    expect 'bind_to_group with userId and extend' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g','userId':'u1','extend':'e é'}")"
    expect 'is told to the members' "$(notice 1001 "$B" u1 'e é')" "$(frames a 1)"
    expect 'and to the new one' "$(notice 1001 "$B" u1 'e é')" "$(frames b 1)"
    expect 'binding twice is success' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g'}")"
    call bind_to_group "{'clientId':'$C','groupName':'g','userId':'u1'}" >/dev/null
    expect 'without a second notice' "$(notice 1001 "$C" u1)" "$(frames a 1)"
    expect 'not even to itself' "$(notice 1001 "$C" u1)" "$(frames b 1)"
    expect 'three members' "$(online "$A" "$B" "$C")" "$(call "${LIST[@]}")"
    frames c 1 >/dev/null
}

sends_to_many() {
    expect 'send_to_group' "$SUCCESS" "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect 'send_to_group with exclude' "$SUCCESS" "$(call send_to_group \
        "{'groupName':'g','exclude':['$B','none','$Z'],'sendUserId':'x',$MESSAGE}")"
    expect 'its receipt' "$(receipt 2)" \
        "$(call send_to_group "{'groupName':'g','exclude':['$A'],$RECEIPT}")"
    expect 'send_to_user' "$SUCCESS" \
        "$(call send_to_user "{'userId':'u1','code':1,'msg':'user','data':2}")"
    expect 'its receipt, over two clients' "$(receipt 2)" \
        "$(call send_to_user "{'userId':'u1',$RECEIPT}")"
    expect 'send_to_user to nobody' "$(receipt 0)" "$(call send_to_user "{'userId':'u9',$RECEIPT}")"
    expect 'send_to_system' "$SUCCESS" "$(call send_to_system "{'code':0,'msg':'','data':{}}")"
    expect 'its receipt' "$(receipt 4)" "$(call send_to_system "{$RECEIPT}")"
    local every='{"code":0,"msg":"","data":{}}'$'\n'"$ID_FRAME"
    expect 'all that a member without a user gets' \
        "$FRAME"$'\n{"code":7,"msg":"m","data":1,"sendUserId":"x"}\n'"$every" "$(frames a 4)"
    expect 'all that the excluded one gets' \
        "$FRAME"$'\n'"$ID_FRAME"$'\n{"code":1,"msg":"user","data":2}\n'"$ID_FRAME"$'\n'"$every" \
        "$(frames b 6)"
    expect 'all that one outside of the group gets' "$every" "$(frames d 2)"
    frames c 7 >/dev/null
}

# info ID: prints the answer to client_info, with the time and the order of groups made the same.
info() {
    call client_info "{'clientId':'$1'}" |
        sed 's/"connectedAt":[0-9]*/"connectedAt":0/; s/\["h","g"\]/["g","h"]/'
}

# known ID USER EXTEND GROUPS: prints what info has to say.
known() {
    local place="'connectedAt':0,'remote':'127.0.0.1'"
    success "{'clientId':'$1','userId':'$2','extend':'$3','groups':[$4],$place}"
}

identity() {
    local age
    call bind_to_group "{'clientId':'$B','groupName':'h'}" >/dev/null
    expect 'a bind without userId and extend leaves them' "$(IN=h notice 1001 "$B" u1 'e é')" \
        "$(frames b 1)"
    expect 'client_info' "$(known "$B" u1 'e é' "'g','h'")" "$(info "$B")"
    age=$(($(date +%s) - $(jq .data.connectedAt "$DIR/body")))
    expect 'it was connected a moment ago' 1 $((age >= 0 && age < 60))
    expect 'client_info of one without anything' "$(known "$D" '' '' '')" "$(info "$D")"
    expect 'a bind that carries them' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g','userId':'u2','extend':''}")"
    expect 'replaces them' "$(known "$B" u2 '' "'g','h'")" "$(info "$B")"
    expect 'it has left its old user' "$(receipt 1)" \
        "$(call send_to_user "{'userId':'u1',$RECEIPT}")"
    expect 'and is the new one' "$(receipt 1)" "$(call send_to_user "{'userId':'u2',$RECEIPT}")"
    frames b 1 >/dev/null
    frames c 1 >/dev/null
    call bind_to_group "{'clientId':'$B','groupName':'g','userId':''}" >/dev/null
    expect 'an empty userId takes it off' "$(known "$B" '' '' "'g','h'")" "$(info "$B")"
    expect 'and nobody is that user' "$(receipt 0)" "$(call send_to_user "{'userId':'u2',$RECEIPT}")"
    call bind_to_group "{'clientId':'$B','groupName':'g','userId':'u2'}" >/dev/null
}

unbind_from_group() {
    expect 'unbind_from_group' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'g'}")"
    expect 'the rest are told' "$(notice 1002 "$B" u2)" "$(frames a 1)"
    expect 'each of them' "$(notice 1002 "$B" u2)" "$(frames c 1)"
    expect 'unbinding twice is success' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'g'}")"
    expect 'and from a group that there is not' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'none'}")"
    expect 'two are left' "$(online "$A" "$C")" "$(call "${LIST[@]}")"
    call send_to_group "{'groupName':'g',$MESSAGE}" >/dev/null
    call send_to_client "{'clientId':'$B',$RECEIPT}" >/dev/null
    expect 'one that has left gets neither notice nor message' "$ID_FRAME" "$(frames b 1)"
    expect 'the others get the message only' "$FRAME" "$(frames a 1)"
    frames c 1 >/dev/null
}

# isolation TOKEN: of the other system, whose client is z.
isolation() {
    local send
    expect 'another system has a group and a user of the same names' "$SUCCESS" \
        "$(TOKEN=$1 call bind_to_group "{'clientId':'$Z','groupName':'g','userId':'u1'}")"
    expect 'with its own members' "$(online "$Z")" \
        "$(TOKEN=$1 call "${LIST[@]}")"
    expect 'who are none here' "$(online "$A" "$C")" "$(call "${LIST[@]}")"
    for send in "send_to_group {'groupName':'g'," "send_to_user {'userId':'u1'," \
        'send_to_system {'; do
        expect "${send%% *} stays in its system" "$(receipt 1)" \
            "$(TOKEN=$1 call "${send%% *}" "${send#* }$RECEIPT}")"
    done
    expect 'nobody there can be excluded here' "$(receipt 2)" \
        "$(call send_to_group "{'groupName':'g','exclude':['$Z'],$RECEIPT}")"
    call send_to_client "{$TO_A,$MESSAGE}" >/dev/null
    expect 'nothing has come from there' "$ID_FRAME"$'\n'"$FRAME" "$(frames a 2)"
    TOKEN=$1 call send_to_client "{'clientId':'$Z',$MESSAGE}" >/dev/null
    expect 'nothing has gone there' "$(notice 1001 "$Z" u1)
$ID_FRAME
$ID_FRAME
$ID_FRAME
$FRAME" "$(frames z 5)"
    frames c 1 >/dev/null
}

# --- what is carried unchanged ----------------------------------------------------------------

values() {
    local value frame
    for value in 123456789012345678901234567890 1e400 1.0 -0 '"\u0041"' \
        '"é😀"' '"\/\b\f\n\r\t\"\\"' null "$(deep 63)" \
        '{"a":1,"a":{"b":2,"b":3}}' '{"b":[1,{"a":null}],"a":"\u0000","code":5}' '{"":{"code":-1,"msg":"x","data":"y"}}'; do
        printf '{"clientId":"%s","code":1,"msg":"","data":%s}' "$A" "$value" >"$DIR/request"
        call send_to_client "@$DIR/request" >/dev/null
        expect "data ${value:0:40} arrives as it is" "{\"code\":1,\"msg\":\"\",\"data\":$value}" \
            "$(frames a 1)"
    done
    for value in 9223372036854775807 -9223372036854775808; do
        call send_to_client "{$TO_A,'code':$value,'msg':'','data':1}" >/dev/null
        expect "code $value" "{\"code\":$value,\"msg\":\"\",\"data\":1}" "$(frames a 1)"
    done
    for value in '"\u0041"' '"é\n\"😀"' '"\ud83d\ude00"'; do
        frame="'msg':$value,'data':1,'sendUserId':$value,'messageId':$value}"
        call send_to_client "{'receipt':true,$TO_A,'code':1,$frame" >/dev/null
        expect "msg, sendUserId and messageId $value" "{\"code\":1,${frame//\'/\"}" "$(frames a 1)"
        expect "messageId $value in the receipt" "$(jq . <<<"$value")" \
            "$(jq .data.messageId "$DIR/body")"
    done
    call send_to_client "{ $TO_A , 'code' : 1 , 'msg' : '' , 'data' : [ 1 , 'a  b' ] }" >/dev/null
    expect 'white space outside of strings does not count' '{"code":1,"msg":"","data":[1,"a  b"]}' \
        "$(frames a 1 | sed 's/\[ *1 *, *"a  b" *\]/[1,"a  b"]/')"
}

megabyte() {
    local message
    message="\"code\":1,\"msg\":\"\",\"data\":\"$(head -c 786432 /dev/urandom | base64 -w 0)\"}"
    echo "{\"groupName\":\"g\",$message" >"$DIR/request"
    echo "{$message" >"$DIR/expected"
    expect 'a string of a megabyte' "$SUCCESS" "$(call send_to_group "@$DIR/request")"
    frames a 1 >"$DIR/frame"
    expect 'arrives as it is' '' "$(cmp "$DIR/expected" "$DIR/frame" 2>&1)"
    frames c 1 >"$DIR/frame"
    expect 'at each member' '' "$(cmp "$DIR/expected" "$DIR/frame" 2>&1)"
}

# --- what is refused --------------------------------------------------------------------------

# One of each kind: tests/unit/test_api.c has every field of every path, and openapi.py sends them to a server.
refusals() {
    local bad=$BAD
    cases <<END
a field that is missing|send_to_client|{'code':7,'msg':'m','data':1}|${bad}field clientId is missing*
a field of another type|send_to_client|{$TO_A,'code':1.0,'msg':'m','data':1}|${bad}field code must be*
a name that is too long|get_online_list|{'groupName':'$(repeat x 129)'}|$bad*groupName*128*
a control character in a name|register|{'systemId':'a\\nb','password':'p'}|$bad*systemId*control*
a body that is cut|get_online_list|{'groupName':'g'|${bad}the body is not valid JSON: *byte *
a key that is there twice|get_online_list|{'groupName':'g','group\\u004eame':'h'}|${bad}the body is not valid JSON: *byte *
bytes that are no UTF-8|get_online_list|{'groupName':'$(printf '\xed\xa0\x80')'}|${bad}the body is not valid JSON: *byte *
END
    printf '{"groupName":"g"}\0' >"$DIR/request"
    expect_match 'a NUL behind the body' '400 -1 *JSON*' "$(refusal get_online_list "@$DIR/request")"
}

# --- HTTP -------------------------------------------------------------------------------------

# Methods and paths are in tests/conformance/openapi.py; versions, chunks and Expect in test_session.c and rfc9112.sh.
connections() {
    local url=http://127.0.0.1:$PORT/api/get_online_list
    expect 'keep-alive: two requests, one connection' $'1\n0' "$(curl -s -o "$DIR/1" -o "$DIR/2" \
        -w '%{num_connects}\n' -H "Token: $TOKEN" -d "${LIST[1]}" "$url" "$url")"
    expect 'keep-alive: two answers' "$(cat "$DIR/1")" "$(cat "$DIR/2")"
    expect 'keep-alive after a refusal too' $'1\n0' "$(curl -s -o "$DIR/1" -o "$DIR/2" \
        -w '%{num_connects}\n' -d '{' "$url" "$url")"
}

pipelining() {
    local i
    {
        request send_to_client "{$TO_A,$RECEIPT}"
        request login "$LOGIN"
        request send_to_client "{$TO_A,$MESSAGE}"
        request register "$LOGIN"
        request get_online_list '{}' 'Connection: close'
    } | talk | replies >"$DIR/answers"
    expect 'pipelining: answers in order, with logins among them' "$(receipt 1)
200 login
$SUCCESS
200 {\"code\":-1004,\"msg\":\"systemId is already registered\",\"data\":[]}
400 {\"code\":-1,\"msg\":\"field groupName is missing\",\"data\":[]}" \
        "$(sed 's/{.*{"token":.*/login/' "$DIR/answers")"
    expect 'pipelining: frames in order' "$ID_FRAME"$'\n'"$FRAME" "$(frames a 2)"
    {
        for ((i = 1; i <= 100; i++)); do
            request send_to_client "{$TO_A,'code':$i,'msg':'','data':1}"
        done
        request get_online_list '{}' 'Connection: close'
    } | talk | replies >"$DIR/answers"
    expect '100 sends in one go: answers' 100 "$(grep -cxF "$SUCCESS" "$DIR/answers")"
    expect '100 sends in one go: frames in order' "$(seq -s ' ' 100)" \
        "$(frames a 100 | jq -r .code | xargs)"
}

# stream BASE: prints 100 sends with the codes BASE + 1 and so on.
stream() {
    local i
    for ((i = $1 + 1; i <= $1 + 100; i++)); do
        request send_to_group "{'groupName':'g','code':$i,'msg':'','data':1}"
    done
    request get_online_list '{}' 'Connection: close'
}

order() {
    local name codes ids=()
    for name in a b c; do
        client "$name" shop
        ids+=("$ID")
        call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
    done
    for name in 1000 2000 3000; do
        stream $name | talk >"$DIR/answers.$name" &
        set -- "$@" $!
    done
    wait "$@"
    for name in a b c; do
        frames $name 300 | jq -r .code >"$DIR/codes.$name"
    done
    for codes in 1000 2000 3000; do
        expect "sends of one connection keep their order ($codes)" \
            "$(seq -s ' ' $((codes + 1)) $((codes + 100)))" \
            "$(awk -v base=$codes '$1 > base && $1 <= base + 100' "$DIR/codes.a" | xargs)"
    done
    for name in b c; do
        expect "every member sees one order ($name)" '' \
            "$(cmp "$DIR/codes.a" "$DIR/codes.$name" 2>&1)"
    done
    call unbind_from_group "{'clientId':'${ids[0]}','groupName':'g'}" >/dev/null
    call unbind_from_group "{'clientId':'${ids[2]}','groupName':'g'}" >/dev/null
    expect 'when the first and the last leave, the second stays' "$(online "${ids[1]}")" \
        "$(call "${LIST[@]}")"
}

# --- limits -----------------------------------------------------------------------------------

body_and_head() {
    local body head
    body=$(printf '%-300s' "{'groupName':'g'}")
    expect_match 'a body of max_body' '200 *' "$(call get_online_list "$body")"
    expect_match 'a body of max_body in chunks' '200 *' \
        "$(call get_online_list "$body" -H 'Transfer-Encoding: chunked')"
    expect_match 'a longer one' '413 -1 *max_body*' "$(refusal get_online_list "$body ")"
    expect_match 'a longer one in chunks' '413 -1 *max_body*' \
        "$(refusal get_online_list "$body " -H 'Transfer-Encoding: chunked')"
    expect_match 'a longer one that waits for 100' '413 -1 *max_body*' \
        "$(refusal get_online_list "$body " -H 'Expect: 100-continue')"
    expect 'is told so instead' 0 "$(grep -c ' 100 ' "$DIR/headers")"
    set -- "${LIST[@]}" 'Connection: close'
    head=$(($(request "$@" 'X: ' | wc -c) - ${#LIST[1]}))
    head=$(repeat x $((700 - head)))
    expect_match 'a head of max_head' '200 *' "$(request "$@" "X: $head" | talk | replies)"
    expect_match 'a longer one' '431 {"code":-1,*head*' \
        "$(request "$@" "X: x$head" | talk | replies)"
    expect_match '431 is an envelope' '431 -1 *' "$(refusal get_online_list '{}' -H "X: $head")"
}

# Requests that are not whole, or not there at all, when their time is over.
timeouts() {
    local waiting=()
    # all at the same time: they wait
    expect_match 'a head that does not come' '408 {"code":-1,*time*' \
        "$(printf 'POST /api/login HTTP/1.1\r\nHost' | talk | replies)" &
    waiting+=($!)
    expect_match 'a body that does not come' '408 {"code":-1,*time*' \
        "$(request login "$LOGIN" | head -c -1 | talk | replies)" &
    waiting+=($!)
    expect 'a connection that asks nothing is closed' '' "$(talk </dev/null)" &
    waiting+=($!)
    expect_match 'and so is one that has asked' '200 *' \
        "$(request "${LIST[@]}" | talk | replies)" &
    waiting+=($!)
    expect 'but it may take longer for the next request' '200 200' "$({
        request "${LIST[@]}"
        sleep 1.5
        request "${LIST[@]}" 'Connection: close'
    } | drip | replies | cut -c 1-3 | xargs)" &
    waiting+=($!)
    wait "${waiting[@]}"
}

# shellcheck disable=SC2329 # called by wait_for
works() {
    [[ $(call "${LIST[@]}") == 200* ]]
}

# rate OTHER-TOKEN: of a system that does not call.
rate() {
    local i begin most
    wait_for works # whole again after what has been called before
    sleep 1
    for ((i = 0; i < 199; i++)); do
        request "${LIST[@]}"
    done >"$DIR/calls"
    request get_online_list '{}' 'Connection: close' >>"$DIR/calls"
    begin=${EPOCHREALTIME/[.,]/}
    talk <"$DIR/calls" >"$DIR/raw"
    most=$((10 + (${EPOCHREALTIME/[.,]/} - begin) / 200000)) # one more each 200 ms
    replies <"$DIR/raw" >"$DIR/answers"
    i=$(grep -c '^200 ' "$DIR/answers")
    expect "as many calls as api_rate allows ($i)" 1 $((i >= 5 && i <= most))
    expect 'the rest are refused' $((200 - i)) \
        "$(grep -c '^429 {"code":-1006,.*api_rate' "$DIR/answers")"
    # the first of those, for a call of its own might come late enough to be allowed
    echo 429 >"$DIR/status"
    sed -n '/HTTP\/1.1 429/,/^\r$/p' "$DIR/raw" | sed '1s/.*HTTP/HTTP/; /^\r$/q' >"$DIR/headers"
    sed -n 's/^429 //p' "$DIR/answers" | head -n 1 >"$DIR/body"
    expect_match 'with an envelope' '429 -1006 *' "$(outcome)"
    expect 'and when to try again' 1 "$(header retry-after)"
    expect_match 'another system is not concerned' '200 *' \
        "$(TOKEN=$1 call "${LIST[@]}")"
    wait_for works
    expect 'after a while it goes on' 200 "$(status)"
}

# connection_limit KEY: which allows two.
connection_limit() {
    local first
    client "$1.1" shop
    first=$CLIENT
    client "$1.2" shop
    expect_match "$1: one more" '429 -1006 *' "$(refusal "${LIST[@]}")"
    expect_match "$1: is told when to try again" '[1-9]*' "$(header retry-after)"
    expect_match "$1: one more client" '429 {"code":-1006,*' \
        "$(lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" | talk | replies)"
    kill "$first"
    wait_for works
    expect_match "$1: when one has left" '200 *' "$(call "${LIST[@]}")"
}

# More registrations at once than wait for the one thread that hashes.
account_jobs() {
    local i fds=() fd
    freeze "$SERVER" # so that it reads them in one go
    for ((i = 0; i < 80; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
        request register "{'systemId':'crowd$i','password':'secret'}" 'Connection: close' >&"$fd"
        fds+=("$fd")
    done
    thaw "$SERVER"
    timeout 60 cat <&"$fd" >"$DIR/answer"
    expect_match 'too many registrations at once' '429 {"code":-1006,*' "$(replies <"$DIR/answer")"
    expect_match 'are told when to try again' 'Retry-After: [1-9]*' \
        "$(grep -i '^retry-after' "$DIR/answer")"
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
    kill -TERM "$SERVER" # a second one, by finish, does not wait for these jobs
    sleep 0.1
}

# --- configurations ---------------------------------------------------------------------------

registration() {
    local TOKEN='' account="{'systemId':'new','password':'secret'}"
    configure '[auth]
register = closed'
    start
    expect_match 'register = closed' '403 -1 *closed*' "$(refusal register "$account")"
    expect_match 'login goes on' '200 {"code":0,*' "$(call login "$LOGIN")"
    stop
    configure '[auth]
register = key:open sesame'
    start
    expect_match 'register = key: without it' '401 -1002 *Register-Key*' \
        "$(refusal register "$account")"
    expect_match 'a wrong one' '401 -1002 *Register-Key*' \
        "$(refusal register "$account" -H 'Register-Key: open sesam')"
    expect 'the right one' "$SUCCESS" "$(call register "$account" -H 'Register-Key: open sesame')"
    expect 'the key is not in the log' 0 "$(grep -c sesam "$DIR/log")"
    stop
}

token_expires() {
    local TOKEN
    configure '[auth]
token_ttl = 1'
    start
    login shop
    expect 'expiresIn is token_ttl' 1 "$(jq .data.expiresIn "$DIR/body")"
    # the second may be over at once: then with another token
    # shellcheck disable=SC2329 # called by wait_for
    fresh() { login shop && works; }
    wait_for fresh
    expect 'a token works at first' 200 "$(status)"
    # shellcheck disable=SC2329
    expired() { ! works; }
    wait_for expired
    expect 'and expires' '401 -1002 Token header forged or expired' "$(outcome)"
    stop
}

# notices SCOPE OTHER-TOKEN: two clients come, join one group, and one leaves.
notices() {
    local first second third leaves marker='{"code":5,"msg":"","data":5}'
    configure "[notice]
scope = $1"
    start
    client first shop
    first=$ID
    client second shop
    second=$ID
    leaves=$CLIENT
    client foreign other
    third=$ID
    client stays shop
    call bind_to_group "{'clientId':'$second','groupName':'g','userId':'u','extend':'x'}" >/dev/null
    call bind_to_group "{'clientId':'$first','groupName':'g'}" >/dev/null
    kill "$leaves"
    # shellcheck disable=SC2329 # called by wait_for
    gone() { [ "$(call "${LIST[@]}")" = "$(online "$first")" ]; }
    wait_for gone
    call send_to_system "{'code':5,'msg':'','data':5}" >/dev/null
    TOKEN=$2 call send_to_system "{'code':5,'msg':'','data':5}" >/dev/null
    case $1 in
    group)
        expect 'scope = group: a member' "$(notice 1001 "$first")
$(notice 1002 "$second" u x)
$marker" "$(frames first 3)"
        expect 'scope = group: others' "$marker" "$(frames stays 1)"
        expect 'scope = group: another system' "$marker" "$(frames foreign 1)"
        ;;
    system)
        local IN=''
        expect 'scope = system: the first one' "$(notice 1001 "$first")
$(notice 1001 "$second")
$(notice 1001 "$ID")
$(notice 1002 "$second" u x)
$marker" "$(frames first 5)"
        expect 'scope = system: others' "$(notice 1001 "$ID")
$(notice 1002 "$second" u x)
$marker" "$(frames stays 3)"
        expect 'scope = system: another system' "$(notice 1001 "$third")
$marker" "$(frames foreign 2)"
        ;;
    off)
        expect 'scope = off: a member' "$marker" "$(frames first 1)"
        expect 'scope = off: others' "$marker" "$(frames stays 1)"
        ;;
    esac
    stop
}

configure '[limits]
max_body = 2 MiB'
start
accounts
unwritable_accounts
longest_account
SHOP=$TOKEN
login other
OTHER=$TOKEN
TOKEN=$SHOP
tokens
client z other && Z=$ID
client a shop && A=$ID TO_A="'clientId':'$ID'"
client b shop && B=$ID
client c shop && C=$ID
client d shop && D=$ID
send_to_client
fresh_receipts
not_online
send_to_clients
bind_to_group
sends_to_many
identity
unbind_from_group
close_client
isolation "$OTHER"
values
megabyte
refusals
judgements
connections
pipelining
stop

configure '[limits]
max_body = 300
max_head = 700
[notice]
scope = off'
start
order
body_and_head
stop

configure '[limits]
head_timeout = 1
idle_timeout = 4'
start
timeouts
stop

configure '[limits]
api_rate = 5'
start
rate "$OTHER"
stop
for key in max_connections max_per_ip; do
    configure "[limits]
$key = 2"
    start
    connection_limit $key
    stop
done
registration
token_expires
for scope in group system off; do
    notices $scope "$OTHER"
done
configure
start
account_jobs
finish

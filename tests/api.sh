#!/usr/bin/env bash
# api.sh - the HTTP API of a running server, with real clients connected: what is answered and what
# the clients get is compared byte for byte.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

SUCCESS='200 {"code":0,"msg":"success","data":[]}'
MESSAGE="'code':7,'msg':'m','data':1"
FRAME='{"code":7,"msg":"m","data":1}'

# notice CODE ID [USER [EXTEND]]: prints the frame of a notice.
notice() {
    local msg=online
    [ "$1" = 1001 ] || msg=offline
    printf '{"code":%s,"msg":"client %s","data":{"clientId":"%s","userId":"%s","extend":"%s"}}\n' \
        "$1" $msg "$2" "${3-}" "${4-}"
}

# receipt ID MATCHED QUEUED: prints the answer to a send that asked for a receipt.
receipt() {
    printf '200 {"code":0,"msg":"success","data":{"messageId":"%s","matched":%s,"queued":%s,"dropped":0}}' \
        "$@"
}

# repeat TEXT COUNT
repeat() {
    printf "%$2s" '' | sed "s/ /$1/g"
}

# replies: prints "STATUS BODY" for each of the answers in its input.
replies() {
    awk '{ sub(/\r$/, "") }
        /^{/ {
            end = match($0, /HTTP\/1.1 [0-9][0-9][0-9] [^{}]*$/)
            print status, end ? substr($0, 1, end - 1) : $0
            if (!end) next
            $0 = substr($0, end)
        }
        /^HTTP/ { status = $2 }'
}

# --- accounts ---------------------------------------------------------------------------------

accounts() {
    local account="'systemId':'shop','password':'a very secret word'" token
    expect 'register answers' "$SUCCESS" "$(call register "{$account}")"
    expect_match 'a systemId is registered once' '200 -1004 *registered*' \
        "$(refusal register "{'systemId':'shop','password':'another'}")"
    token=$(call login "{$account}")
    expect_match 'login answers' \
        '200 {"code":0,"msg":"success","data":{"token":"*","expiresIn":172800}}' "$token"
    TOKEN=$(jq -r .data.token "$DIR/body")
    expect 'a wrong password' '200 -1005 wrong systemId or password' \
        "$(refusal login "{'systemId':'shop','password':'another'}")"
    expect 'an unknown systemId at login looks the same' '200 -1005 wrong systemId or password' \
        "$(refusal login "{'systemId':'none','password':'another'}")"
    expect 'no password in the data or the log' '' "$(grep -rl 'a very secret word' "$DIR/data" "$DIR/log")"
    expect 'the data is for its owner only' '' "$(find "$DIR/data" -perm /077)"
}

longest_account() {
    local name password TOKEN=
    name=$(repeat ü 64) password=$(repeat x 256)
    local account="'systemId':'$name','password':'$password'"
    expect 'the longest systemId and password' "$SUCCESS" "$(call register "{$account}")"
    expect_match 'log in' '200 {"code":0,*' "$(call login "{$account}")"
    TOKEN=$(jq -r .data.token "$DIR/body")
    expect 'and the token works' '200 {"code":0,"msg":"success","data":{"count":0,"list":[]}}' \
        "$(call get_online_list "{'groupName':'g'}")"
}

tokens() {
    local good=$TOKEN body="{'groupName':'g'}" name
    TOKEN=
    for name in send_to_client bind_to_group send_to_group get_online_list send_to_clients \
        send_to_system send_to_user unbind_from_group close_client client_info; do
        expect_match "$name without a token" '401 -1002 Token header missing' \
            "$(refusal $name '{}')"
    done
    for TOKEN in x "${good}0" "${good%?}" "0$good" "${good%?}g" "${good/[0-8]/9}" \
        "${good%%.*}.6f74686572.${good##*.}"; do
        expect_match "the token $TOKEN is forged" '401 -1002 *' "$(refusal get_online_list "$body")"
    done
    expect_match 'two tokens are none' '401 -1002 *' \
        "$(refusal get_online_list "$body" -H "Token: $good")"
    TOKEN=$good
}

# --- endpoints --------------------------------------------------------------------------------

send_to_client() {
    expect 'send_to_client' "$SUCCESS" \
        "$(call send_to_client "{'clientId':'$A','code':42,'msg':'hi','data':{'k':[1,2]}}")"
    expect 'its frame' '{"code":42,"msg":"hi","data":{"k":[1,2]}}' "$(frames a 1)"
    expect 'unknown fields are ignored, the order of fields does not matter' "$SUCCESS" "$(call \
        send_to_client "{'x':{'code':1},'data':null,'groupName':7,'msg':'','code':-1,'clientId':'$A'}")"
    expect 'its frame is in the usual order' '{"code":-1,"msg":"","data":null}' "$(frames a 1)"
    call send_to_client "{'messageId':'n\"1','sendUserId':'u','clientId':'$A',$MESSAGE}" >/dev/null
    call send_to_client "{'sendUserId':'','clientId':'$A',$MESSAGE}" >/dev/null
    expect 'sendUserId and messageId stand behind data' \
        "${FRAME%\}},\"sendUserId\":\"u\",\"messageId\":\"n\\\"1\"}"$'\n'"${FRAME%\}},\"sendUserId\":\"\"}" \
        "$(frames a 2)"
    expect 'receipt with the messageId of the caller' "$(receipt m1 1 1)" \
        "$(call send_to_client "{'clientId':'$A','receipt':true,'messageId':'m1',$MESSAGE}")"
    expect 'the frame has it too' "${FRAME%\}},\"messageId\":\"m1\"}" "$(frames a 1)"
    expect 'no receipt' "$SUCCESS" \
        "$(call send_to_client "{'clientId':'$A','receipt':false,$MESSAGE}")"
    expect 'and no messageId' "$FRAME" "$(frames a 1)"
}

fresh_receipt() {
    local first second
    call send_to_client "{'clientId':'$A','receipt':true,$MESSAGE}" >/dev/null
    first=$(jq -r .data.messageId "$DIR/body")
    call send_to_client "{'clientId':'$A','receipt':true,$MESSAGE}" >/dev/null
    second=$(jq -r .data.messageId "$DIR/body")
    expect 'a fresh messageId is given to the caller and to the client' \
        "${FRAME%\}},\"messageId\":\"$first\"}"$'\n'"${FRAME%\}},\"messageId\":\"$second\"}" \
        "$(frames a 2)"
    expect 'it is not empty' 1 $((${#first} > 7))
    expect 'each one is another' 1 "$([ "$first" != "$second" ] && echo 1)"
}

not_online() {
    local id name answer='200 {"code":-1003,"msg":"client not online","data":[]}'
    for name in send_to_client bind_to_group unbind_from_group close_client client_info; do
        for id in 0123456789abcdef "${A}0" "${A%?}" "0x${A:2}" "${A^^}" '' ü "$Z"; do
            [ "$id" != "$A" ] || continue # all digits: its upper case is itself
            expect "$name to '$id' that is not online" "$answer" \
                "$(call $name "{'clientId':'$id','groupName':'g','msg':'m','data':1}" \
                    | sed s/x/x/)"
        done
    done
}

send_to_clients() {
    local gone=0123456789abcdef
    expect 'send_to_clients names those it has failed to reach' \
        "200 {\"code\":0,\"msg\":\"success\",\"data\":{\"failed\":[\"$gone\",\"$Z\"]}}" \
        "$(call send_to_clients "{'clientIds':['$A','$gone','$B','$Z'],$MESSAGE}")"
    expect 'the first gets it' "$FRAME" "$(frames a 1)"
    expect 'the last gets it' "$FRAME" "$(frames b 1)"
    expect 'none has failed' '200 {"code":0,"msg":"success","data":{"failed":[]}}' \
        "$(call send_to_clients "{'clientIds':['$B'],$MESSAGE}")"
    expect 'one gets it' "$FRAME" "$(frames b 1)"
    expect 'nobody is named' '200 {"code":0,"msg":"success","data":{"failed":[]}}' \
        "$(call send_to_clients "{'clientIds':[],$MESSAGE}")"
    expect 'its receipt counts those online' "$(receipt m2 2 2)" "$(call send_to_clients \
        "{'clientIds':['$A','$gone','$C'],'receipt':true,'messageId':'m2',$MESSAGE}")"
    expect 'the first gets it with its id' "${FRAME%\}},\"messageId\":\"m2\"}" "$(frames a 1)"
    expect 'and so does the last' "${FRAME%\}},\"messageId\":\"m2\"}" "$(frames c 1)"
}

groups() {
    expect 'a group without members has an empty list' \
        '200 {"code":0,"msg":"success","data":{"count":0,"list":[]}}' \
        "$(call get_online_list "{'groupName':'g'}")"
    expect 'a send to it is a success' "$SUCCESS" "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect 'bind_to_group' "$SUCCESS" "$(call bind_to_group "{'clientId':'$A','groupName':'g'}")"
    expect 'the member gets its own notice' "$(notice 1001 "$A")" "$(frames a 1)"
    expect 'get_online_list' \
        "200 {\"code\":0,\"msg\":\"success\",\"data\":{\"count\":1,\"list\":[\"$A\"]}}" \
        "$(call get_online_list "{'groupName':'g'}")"
    expect 'a bind with userId and extend' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g','userId':'u1','extend':'e \\n1'}")"
    expect 'is told to the members' "$(notice 1001 "$B" u1 'e \n1')" "$(frames a 1)"
    expect 'and to the new one' "$(notice 1001 "$B" u1 'e \n1')" "$(frames b 1)"
    expect 'binding twice is success' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g'}")"
    call bind_to_group "{'clientId':'$C','groupName':'g','userId':'u1','extend':''}" >/dev/null
    expect 'without a second notice' "$(notice 1001 "$C" u1)" "$(frames a 1)"
    expect 'nor one to itself' "$(notice 1001 "$C" u1)" "$(frames b 1)"
    expect 'three members' "[\"$A\",\"$B\",\"$C\"]" \
        "$(call get_online_list "{'groupName':'g'}" >/dev/null && jq -c '.data.list' "$DIR/body")"
    frames c 1 >/dev/null
}

sends_to_many() {
    expect 'send_to_group' "$SUCCESS" "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
    expect 'send_to_group with exclude' "$SUCCESS" \
        "$(call send_to_group "{'groupName':'g','exclude':['$B','none','$Z'],$MESSAGE,'sendUserId':'x'}")"
    expect 'send_to_group with a receipt' "$(receipt m3 2 2)" "$(call send_to_group \
        "{'groupName':'g','exclude':['$A'],'receipt':true,'messageId':'m3',$MESSAGE}")"
    expect 'send_to_user' "$SUCCESS" "$(call send_to_user "{'userId':'u1','code':1,'msg':'u','data':2}")"
    expect 'send_to_user with a receipt' "$(receipt m4 2 2)" \
        "$(call send_to_user "{'userId':'u1','receipt':true,'messageId':'m4',$MESSAGE}")"
    expect 'send_to_user to nobody' "$(receipt m5 0 0)" \
        "$(call send_to_user "{'userId':'u9','receipt':true,'messageId':'m5',$MESSAGE}")"
    expect 'send_to_system' "$(receipt m6 4 4)" \
        "$(call send_to_system "{'receipt':true,'messageId':'m6',$MESSAGE}")"
    expect 'send_to_system without a receipt' "$SUCCESS" \
        "$(call send_to_system "{'code':0,'msg':'','data':{}}")"
    local all=$'\n{"code":0,"msg":"","data":{}}' with_id="${FRAME%\}},\"messageId\""
    expect 'what the one without a user has got' \
        "$FRAME"$'\n'"${FRAME%\}},\"sendUserId\":\"x\"}"$'\n'"$with_id:\"m6\"}$all" "$(frames a 4)"
    expect 'what the excluded one has got' \
        "$FRAME"$'\n'"$with_id:\"m3\"}"$'\n{"code":1,"msg":"u","data":2}\n'"$with_id:\"m4\"}"$'\n'"$with_id:\"m6\"}$all" \
        "$(frames b 6)"
    expect 'what the one outside of the group has got' "$with_id:\"m6\"}$all" "$(frames d 2)"
    frames c 7 >/dev/null
}

identity() {
    local info="\"extend\":\"e \\n1\",\"groups\":[\"g\",\"h\"],\"connectedAt\":0,\"remote\":\"127.0.0.1\"}}"
    call bind_to_group "{'clientId':'$B','groupName':'h'}" >/dev/null
    expect 'a bind without userId and extend leaves them' "$(notice 1001 "$B" u1 'e \n1')" \
        "$(frames b 1)"
    call client_info "{'clientId':'$B'}" >"$DIR/info"
    expect 'client_info' \
        "200 {\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$B\",\"userId\":\"u1\",$info" \
        "$(sed 's/"connectedAt":[0-9]*/"connectedAt":0/' "$DIR/info")"
    local age=$(($(date +%s) - $(jq .data.connectedAt "$DIR/body")))
    expect 'connectedAt is a moment ago' 1 $((age >= 0 && age < 60))
    expect 'client_info of one without anything' \
        "200 {\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$D\",\"userId\":\"\",\"extend\":\"\",\"groups\":[],\"connectedAt\":0,\"remote\":\"127.0.0.1\"}}" \
        "$(call client_info "{'clientId':'$D'}" | sed 's/"connectedAt":[0-9]*/"connectedAt":0/')"
    expect 'a bind that carries them replaces them' "$SUCCESS" \
        "$(call bind_to_group "{'clientId':'$B','groupName':'g','userId':'u2','extend':''}")"
    expect 'the client has left its old user' "$(receipt m 1 1)" \
        "$(call send_to_user "{'userId':'u1','receipt':true,'messageId':'m',$MESSAGE}")"
    expect 'and is the new one' "$(receipt m 1 1)" \
        "$(call send_to_user "{'userId':'u2','receipt':true,'messageId':'m',$MESSAGE}")"
    frames b 1 >/dev/null
    frames c 1 >/dev/null
}

unbind() {
    expect 'unbind_from_group' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'g'}")"
    expect 'the rest are told' "$(notice 1002 "$B" u2)" "$(frames a 1)"
    expect 'each of them' "$(notice 1002 "$B" u2)" "$(frames c 1)"
    expect 'unbinding twice is success' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'g'}")"
    expect 'and from a group that there is not' "$SUCCESS" \
        "$(call unbind_from_group "{'clientId':'$B','groupName':'none'}")"
    call send_to_group "{'groupName':'g',$MESSAGE}" >/dev/null
    call send_to_client "{'clientId':'$B','code':8,'msg':'','data':[]}" >/dev/null
    expect 'one that has left gets neither notice nor message' '{"code":8,"msg":"","data":[]}' \
        "$(frames b 1)"
    expect 'the others get the message only' "$FRAME" "$(frames a 1)"
    frames c 1 >/dev/null
}

close_client() {
    local reason
    reason=$(repeat r 123)
    while IFS='|' read -r name fields expected; do
        client e shop
        call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
        expect "close_client $name" "$SUCCESS" "$(call close_client "{'clientId':'$ID'$fields}")"
        expect "close_client $name is what the client gets" "$expected" "$(closed e)"
        expect "close_client $name takes the client offline" \
            '200 {"code":-1003,"msg":"client not online","data":[]}' \
            "$(call client_info "{'clientId':'$ID'}")"
        expect "close_client $name is told to the group" \
            "$(notice 1001 "$ID" && notice 1002 "$ID")" "$(frames a 2)"
        frames c 2 >/dev/null
        leave e
        rm "$DIR/e.in"
    done <<END
without a code||1000 
with 1000|,'code':1000,'reason':'done'|1000 done
with a reason alone|,'reason':'only ü'|1000 only ü
with 3000|,'code':3000|3000 
with 4999|,'code':4999,'reason':'$reason'|4999 $reason
END
    local code
    for code in 999 1001 1005 1006 2999 5000 -1 1000.0 "'1000'" null; do
        expect_match "close_client with code $code" '400 -1 *code*' \
            "$(refusal close_client "{'clientId':'$A','code':$code}")"
    done
    expect_match 'close_client with too long a reason' '400 -1 *reason*123*' \
        "$(refusal close_client "{'clientId':'$A','reason':'r$reason'}")"
}

isolation() {
    local other=$1 answer
    expect 'a group of the same name in another system' "$SUCCESS" \
        "$(TOKEN=$other call bind_to_group "{'clientId':'$Z','groupName':'g','userId':'u1'}")"
    expect 'has its own members' \
        "200 {\"code\":0,\"msg\":\"success\",\"data\":{\"count\":1,\"list\":[\"$Z\"]}}" \
        "$(TOKEN=$other call get_online_list "{'groupName':'g'}")"
    expect 'which do not count here' 2 \
        "$(call get_online_list "{'groupName':'g'}" >/dev/null && jq .data.count "$DIR/body")"
    for answer in "send_to_group 'groupName':'g'," "send_to_user 'userId':'u1'," 'send_to_system '; do
        expect "${answer%% *} stays inside its system" "$(receipt m 1 1)" "$(TOKEN=$other \
            call ${answer%% *} "{${answer#* }'receipt':true,'messageId':'m',$MESSAGE}")"
    done
    expect 'exclude cannot name a client of another system' "$(receipt m 2 2)" "$(call \
        send_to_group "{'groupName':'g','exclude':['$Z'],'receipt':true,'messageId':'m',$MESSAGE}")"
    frames a 1 >/dev/null
    frames c 1 >/dev/null
    call send_to_client "{'clientId':'$A','code':9,'msg':'','data':[]}" >/dev/null
    expect 'nothing else has come from there' '{"code":9,"msg":"","data":[]}' "$(frames a 1)"
    expect 'nor has anything gone there but its own' 4 "$(frames z 4 | wc -l)"
}

# --- what is carried unchanged ----------------------------------------------------------------

data_unchanged() {
    local data
    for data in 123456789012345678901234567890 1e400 1.0 -0 1E+2 '"\u0041"' '"\u00e9\ud83d\ude00"' \
        '"é😀"' '"\/\b\f\n\r\t\"\\"' '""' null true false '[]' '{}' \
        '{"b":[1,{"a":null}],"a":"\u0000"}' '{"":{"code":-1,"msg":"x","data":"y"}}' "$(deep 63)"; do
        post /api/send_to_client "{\"clientId\":\"$A\",\"code\":1,\"msg\":\"\",\"data\":$data}" >/dev/null
        expect "data ${data:0:40} is unchanged" "{\"code\":1,\"msg\":\"\",\"data\":$data}" "$(frames a 1)"
    done
    call send_to_client "{ 'clientId' : '$A' , 'code' : 1 , 'msg' : '' , 'data' : [ 1 , 'a  b' ] }" >/dev/null
    expect 'but for white space outside of strings' '{"code":1,"msg":"","data":[1,"a  b"]}' \
        "$(frames a 1 | sed 's/ \([],1"[]\)/\1/g; s/\([],1[]\) /\1/g')"
    for data in '"\u0041"' '"é\n"' '"\ud83d\ude00"'; do
        post /api/send_to_client "{\"clientId\":\"$A\",\"code\":1,\"msg\":$data,\"data\":1,\"sendUserId\":$data,\"messageId\":$data,\"receipt\":true}" >/dev/null
        expect "msg, sendUserId and messageId $data are unchanged" \
            "{\"code\":1,\"msg\":$data,\"data\":1,\"sendUserId\":$data,\"messageId\":$data}" \
            "$(frames a 1)"
        expect "in the receipt $data means the same" "$(echo "$data" | jq .)" "$(jq .data.messageId "$DIR/body")"
    done
    for data in 9223372036854775807 -9223372036854775808 -0; do
        call send_to_client "{'clientId':'$A','code':$data,'msg':'','data':1}" >/dev/null
        expect "code $data" "{\"code\":$((data)),\"msg\":\"\",\"data\":1}" "$(frames a 1)"
    done
}

# deep N: prints N arrays, each in the one before.
deep() {
    repeat '[' "$1"
    repeat ']' "$1"
}

big_data() {
    head -c 786432 /dev/urandom | base64 -w 0 >"$DIR/big"
    { printf '{"code":1,"msg":"","data":"' && cat "$DIR/big" && echo '"}'; } >"$DIR/expected"
    { printf '{"groupName":"g","code":1,"msg":"","data":"' && cat "$DIR/big" && printf '"}'; } >"$DIR/request"
    expect 'a string of 1 MiB' "$SUCCESS" "$(call send_to_group "@$DIR/request")"
    frames a 1 >"$DIR/got"
    expect 'arrives unchanged' '' "$(cmp "$DIR/expected" "$DIR/got" 2>&1)"
    frames c 1 >"$DIR/got"
    expect 'at each member' '' "$(cmp "$DIR/expected" "$DIR/got" 2>&1)"
}

# --- what is refused --------------------------------------------------------------------------

# Every field of every path: missing, and of another type.
fields() {
    local path body key without=0
    while IFS='|' read -r path optional body; do
        body=${body//\'/\"}
        for key in $(echo "$body" | jq -r 'keys[]'); do
            case " $optional " in
            *" $key "*) ;;
            *) request_raw "$path" "$(echo "$body" | jq -c "del(.$key)")" ;;
            esac
            [ "$key" = data ] || request_raw "$path" "$(echo "$body" | jq -c ".$key = {}")"
        done
    done
}

json_refused() {
    local body
    while IFS= read -r body; do
        expect_match "the body $body" '400 -1 the body is not valid JSON*' "$(refusal get_online_list "$body")"
    done <<'END'

[]
"groupName"
null
{'groupName':'g'
{'groupName':'g'}}
{'groupName':'g'} x
{'groupName':'g',}
{'groupName':'g',,'a':1}
{,'groupName':'g'}
{'groupName':'g','groupName':'g'}
{'groupName':'g','group\u004eame':'h'}
{'groupName':'g','x':{'a':1,'a':2}}
{'groupName':'g','x':[1,]}
{'groupName':'g','x':[1 2]}
{'groupName':'g','x':[}]
{'groupName' 'g'}
{'groupName':}
{groupName:'g'}
{'groupName':g}
{'groupName':'g','x':NaN}
{'groupName':'g','x':Infinity}
{'groupName':'g','x':True}
{'groupName':'g','x':nul}
{'groupName':'g','x':01}
{'groupName':'g','x':+1}
{'groupName':'g','x':.5}
{'groupName':'g','x':1.}
{'groupName':'g','x':1e}
{'groupName':'g','x':-}
{'groupName':'g','x':0x1}
{'groupName':'g','x':'\x41'}
{'groupName':'g','x':'\u00g0'}
{'groupName':'g','x':'\u00'}
{'groupName':'g','x':'open}
{'groupName':'g' /* c */}
{'groupName':'g'} // c
END
}

bytes_refused() {
    local body
    for body in $'\t' $'\n' $'\x01' $'\x1f' $'\xff' $'\xc0\x80' $'\xed\xa0\x80' $'\xf4\x90\x80\x80' \
        $'\xe2\x82' $'\x80'; do
        expect_match "a string with the bytes $(printf '%s' "$body" | od -An -tx1)" \
            '400 -1 the body is not valid JSON*' "$(refusal get_online_list "{'groupName':'g','x':'$body'}")"
    done
    expect_match 'a byte order mark' '400 -1 the body is not valid JSON*' \
        "$(refusal get_online_list $'\xef\xbb\xbf'"{'groupName':'g'}")"
    printf '{"groupName":"g","x":"\0"}' >"$DIR/request"
    expect_match 'a NUL byte' '400 -1 the body is not valid JSON*' "$(refusal get_online_list "@$DIR/request")"
    printf '{"groupName":"g"}\0' >"$DIR/request"
    expect_match 'a NUL byte at the end' '400 -1 the body is not valid JSON*' \
        "$(refusal get_online_list "@$DIR/request")"
    expect_match 'nesting of 64' '200 *' "$(call get_online_list "{'groupName':'g','x':$(deep 63)}")"
    expect_match 'nesting of 65' '400 -1 the body is not valid JSON*' \
        "$(refusal get_online_list "{'groupName':'g','x':$(deep 64)}")"
    expect_match 'white space and every escape are good' '200 *' \
        "$(call get_online_list $'\r\n\t { "group\\u004eame"\t:\n"\\u0067" } \n')"
}

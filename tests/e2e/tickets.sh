#!/usr/bin/env bash
# tickets.sh - who may connect: tickets that /api/ticket gives, what a client is by them from its first frame on, how
# bad ones are refused, when a connection ends, and tickets that foreign libraries sign. What a ticket may be, byte by
# byte, is in tests/unit/test_ticket.c.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need openssl

# ticket [BODY]: prints a ticket of /api/ticket.
ticket() {
    post /api/ticket "${1:-{\}}" | jq -r .data.ticket
}

# base64url: encodes its input.
base64url() {
    openssl base64 -A | tr '+/' '-_' | tr -d =
}

# part NUMBER: prints this part of a ticket that is read, decoded.
part() {
    cut -d . -f "$1" | tr -- '-_' '+/' | jq -Rr @base64d
}

# visit NAME QUERY [WEBSOCAT-ARGUMENT...]: connects a client; in $SEEN is its first frame, with ID for its id, and how
# it was closed, if it was refused.
visit() {
    local name=$1
    client "$@"
    SEEN=$(sed "1!d; s/\"$ID\"/\"ID\"/" "$DIR/$name.out")
    [[ $SEEN == '{"code":0'* ]] || SEEN+=" $(closed "$name")"
}

# refused RESULT: what visit shows of a client whose ticket is not good.
refused() {
    echo "{\"code\":-1002,\"msg\":\"ticket $1\",\"data\":[]} 4401 ticket $1"
}

# expect_visit NAME EXPECTED QUERY [WEBSOCAT-ARGUMENT...]
expect_visit() {
    local name=$1 expected=$2
    shift 2
    visit visitor "$@"
    expect "$name" "$expected" "$SEEN"
}

# ticket_of SYSTEM [BODY]: prints a ticket of another system.
ticket_of() {
    local TOKEN
    login "$1"
    ticket "${2-}"
}

ENTERED='{"code":0,"msg":"success","data":{"clientId":"ID"}}'
ENTERED_U1='{"code":0,"msg":"success","data":{"clientId":"ID","userId":"u1"}}'

# --- entering ---------------------------------------------------------------------------------

entering() {
    local good one
    good=$(ticket '{"userId":"u1","extend":"e","groups":["g","h"],"ttl":30}')
    expect 'a ticket is a JWT' '{"alg":"HS256","typ":"JWT"} {"sys":"shop","exp":N,"sub":"u1","ext":"e","grp":["g","h"]}' \
        "$(part 1 <<<"$good") $(part 2 <<<"$good" | sed 's/"exp":[0-9]*/"exp":N/')"
    expect 'for how long it is good' '30 60' \
        "$(jq .data.expiresIn "$DIR/body") $(post /api/ticket '{}' | jq .data.expiresIn)"
    visit one "shop&ticket=$good"
    one=$ID
    expect 'the first frame names the user' "$ENTERED_U1" "$SEEN"
    expect 'then its groups tell of it' "$(notice 1001 "$one" u1 e)
$(IN=h notice 1001 "$one" u1 e)" "$(frames one 2)"
    echo id >"$DIR/one.in"
    expect 'its id again: the same frame' "$(head -n 1 "$DIR/one.out")" "$(frames one 1)"
    expect 'it is in the groups' "$one" "$(post /api/get_online_list '{"groupName":"h"}' | jq -r '.data.list[]')"
    expect 'and it is the user' "$(receipt 1) $ID_FRAME" "$(call send_to_user "{'userId':'u1',$RECEIPT}") $(frames one 1)"
    expect_visit 'a ticket in the header' "$ENTERED_U1" shop -H="Ticket: $good"
    expect_visit 'a ticket that names nobody' "$ENTERED" "shop&ticket=$(ticket)"
    expect_visit 'no ticket, where none is needed' "$ENTERED" shop
    expect_visit 'a systemId with a space' "$ENTERED" "my+shop&ticket=$(ticket_of 'my shop')"
    expect_visit 'a space is no other letter' "$(refused forged)" "my-shop&ticket=$(ticket_of 'my shop')"
}

# --- refusals ---------------------------------------------------------------------------------

# A ticket that is given is judged, also where none is needed; test_session does that in both modes.
refusals() {
    local good none
    good=$(ticket '{"userId":"u1"}')
    none=$(printf '{"alg":"none"}' | base64url).$(cut -d . -f 2 <<<"$good").
    expect_visit "two tickets" "$(refused malformed)" "shop&ticket=$good" -H="Ticket: $good"
    expect_visit "an empty one" "$(refused malformed)" 'shop&ticket='
    expect_visit "one that is badly encoded" "$(refused malformed)" 'shop&ticket=%zz'
    expect_visit "alg none" "$(refused malformed)" "shop&ticket=$none"
    expect_visit "one that is too long" "$(refused malformed)" "shop&ticket=$good$(printf '%04096d' 0)"
    expect_visit "a changed one" "$(refused forged)" "shop&ticket=${good%??}AA"
    expect_visit "another system's" "$(refused forged)" "shop&ticket=$(ticket_of other)"
    expect_visit "an old one" "$(refused expired)" "shop&ticket=$OLD"
    expect_visit "a system that is not registered" \
        '{"code":-1001,"msg":"systemId is not registered","data":[]} 1008 unknown system' \
        "nobody&ticket=$NOBODY"
    expect_visit "more groups than max_groups" \
        '{"code":-1006,"msg":"too many groups: the ticket has more than max_groups","data":[]} 1013 too many groups' \
        "shop&ticket=$(ticket '{"groups":["1","2","3"]}')"
    expect_visit "a good one" "$ENTERED_U1" "shop&ticket=$good"
}

# reload: has the server read its configuration again.
reload() {
    local before
    before=$(metric 'reloads_total{result="success"}')
    kill -HUP "$SERVER"
    wait_for reloaded "$before"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
reloaded() {
    [ "$(metric 'reloads_total{result="success"}')" -gt "$1" ]
}

needed() {
    configure "$(settings ticket)"
    reload
    expect_visit 'a ticket is needed, from SIGHUP on' "$(refused missing)" shop
    expect_visit 'an unknown system is told before' \
        '{"code":-1001,"msg":"systemId is missing or malformed","data":[]} 1008 unknown system' ''
    expect_visit 'one that is good' "$ENTERED" "shop&ticket=$(ticket)"
    expect 'how long a ticket may be good for, from SIGHUP on' '50 400 -1 field ttl must be from 1 to 200 seconds, ticket_max' \
        "$(post /api/ticket '{}' | jq .data.expiresIn) $(refusal ticket "{'ttl':201}")"
}

# --- the API ----------------------------------------------------------------------------------

calls() {
    local long
    long=$(printf '%01000d' 0)
    expect 'groups that are no names' '400 -1 field groups must be at most 64 names of 1 to 128 bytes, without control characters' \
        "$(refusal ticket "{'groups':['']}")"
    expect 'too many groups' 400 "$(call ticket "{'groups':$(jq -cn '[range(65) | "\(.)"]')}" | cut -d ' ' -f 1)"
    expect 'no array' '400 -1 field groups must be an array of strings' "$(refusal ticket "{'groups':'g'}")"
    expect 'a time that is too short' '400 -1 field ttl must be from 1 to 3600 seconds, ticket_max' "$(refusal ticket "{'ttl':0}")"
    expect 'a time that is too long' '400 -1 field ttl must be from 1 to 3600 seconds, ticket_max' "$(refusal ticket "{'ttl':3601}")"
    expect 'a session' '400 -1 field session must be from 0 to 315360000 seconds' "$(refusal ticket "{'session':-1}")"
    expect 'a fraction' '400 -1 field ttl must be an integer of 64 bits' "$(refusal ticket "{'ttl':1.5}")"
    expect 'a user that is no name' '400 -1 field userId has a control character' "$(refusal ticket '{"userId":"\n"}')"
    expect 'what no ticket has room for' \
        '400 -1 userId, extend and groups are too long together: a ticket has at most 4096 bytes' \
        "$(refusal ticket "{'extend':'$long','groups':$(jq -cn '[range(64) | "\(.)" * 30]')}")"
    expect 'no Token' '401 -1002 Token header missing' "$(TOKEN='' refusal ticket '{}')"
}

# --- the end ----------------------------------------------------------------------------------

over() {
    local first second begin bad good
    bad=("$(ticket '{"userId":"u2"}')" "$(ticket_of other '{"userId":"u1"}')" x)
    good=$(ticket '{"userId":"u1","groups":["h"],"session":600}')
    begin=$SECONDS
    visit short "shop&ticket=$(ticket '{"userId":"u1","session":2}')"
    first=$ID
    visit renewed "shop&ticket=$(ticket '{"userId":"u1","session":4,"groups":["g"]}')"
    second=$ID
    frames renewed 1 >"$DIR/ignored"
    printf 'ticket %s\n' "${bad[@]}" >"$DIR/renewed.in"
    expect 'a new ticket must be good, and the same user'"'s" '{"code":-1002,"msg":"ticket forged","data":[]}
{"code":-1002,"msg":"ticket forged","data":[]}
{"code":-1002,"msg":"ticket malformed","data":[]}' "$(frames renewed 3)"
    echo "ticket $good" >"$DIR/renewed.in"
    expect 'at its end a client is closed' '4401 session over' "$(closed short)"
    expect_time 'and not before' 1000 10000 $(((SECONDS - begin) * 1000))
    sleep 3
    expect 'one with a new ticket stays' pong "$(echo ping >"$DIR/renewed.in"; frames renewed 1)"
    expect 'which moves the end alone' '["g"] true' "$(
        post /api/client_info "{\"clientId\":\"$second\"}" | jq -r '"\(.data.groups) \(.data.userId == "u1")"'
    )"
    expect 'the other one is gone' "$OFFLINE" "$(call send_to_client "{'clientId':'$first',$MESSAGE}")"
}

# --- metrics, log -----------------------------------------------------------------------------

counted() {
    local result
    for result in ok missing malformed forged expired; do
        expect_match "tickets are counted: $result" '[1-9]*' "$(metric "tickets_total{result=\"$result\"}")"
    done
    expect 'no ticket is in the log' 0 "$(grep -c 'eyJ' "$DIR/log")"
}

# settings MODE
settings() {
    printf '[auth]\nconnect = %s\n' "$1"
    [ "$1" = open ] || printf 'ticket_ttl = 50\nticket_max = 200\n'
    printf '[limits]\nmax_groups = 2\n'
}

free_port
ADMIN=127.0.0.1:$FREE
configure "$(settings open)"
quick_hashes
start
for system in other 'my shop' shop; do sign_up "$system"; done
OLD=$(ticket '{"ttl":1}') SINCE=$SECONDS
# the name of a system that is gone when the server has other accounts
NOBODY=$(ticket | sed "s/\.[^.]*\./.$(printf '{"sys":"nobody","exp":%s}' $((EPOCHSECONDS + 60)) | base64url)./")
entering
calls
over
while [ $((SECONDS - SINCE)) -lt 8 ]; do sleep 0.2; done # a second, and five of clocks that differ
refusals
needed
counted
halt
finish

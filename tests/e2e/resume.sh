#!/usr/bin/env bash
# resume.sh - clients that come back, seen from outside: a cut of some seconds that nobody is told of, what the API says
# of a client that is away, how that ends, and the limits. Which messages are recovered is in tests/unit/test_resume.c,
# what comes over one connection in tests/unit/test_session.c.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/webhook_lib.sh
. "$(dirname "$0")/../support/webhook_lib.sh"
need websocat

# happened: the types of the events that have come.
happened() {
    told /events | jq -r .type | xargs
}

has_happened() {
    [ "$(happened)" = "$1" ]
}

# visit NAME [QUERY]: connects a client that can come back; its key is in $KEY, what its first frame says behind that
# in $SAID.
visit() {
    client "$1" "shop&resume=${2-}"
    SAID=$(head -n 1 "$DIR/$1.out")
    KEY=$(jq -r '.data.resume // ""' <<<"$SAID")
    SAID=$(jq -c '.data | del(.clientId, .resume)' <<<"$SAID")
}

# cut: ends the last client's connection without a close frame, and waits until it is away.
cut() {
    local away
    away=$(metric resume_away)
    kill -KILL "$CLIENT"
    wait "$CLIENT"
    is_away() { [ "$(metric resume_away)" -gt "$away" ]; }
    wait_for is_away
} 2>/dev/null # where bash would tell that it was killed

nobody_is_away() {
    [ "$(metric resume_away)" = 0 ]
}

fresh "[webhook]
allow = http://127.0.0.1:$RECEIVER/
[resume]
frames = 4"
start
start_receiver
sign_up shop
hook

# --- a cut that nobody is told of -------------------------------------------------------------

client witness shop
WITNESS=$ID
call bind_to_group "{'clientId':'$WITNESS','groupName':'g'}" >/dev/null
visit phone
PHONE=$ID FIRST_KEY=$KEY
expect 'a first frame that tells how long a client may be away' '{"linger":60}' "$SAID"
call bind_to_group "{'clientId':'$PHONE','groupName':'g'}" >/dev/null
expect 'its notice' "$(notice 1001 "$PHONE")" "$(frames phone 1)"
expect 'a message' "$SUCCESS" "$(call send_to_group "{'groupName':'g',$MESSAGE}")"
expect 'that it gets' "$FRAME" "$(frames phone 1)"
echo 'ack 2' >"$DIR/phone.in"
pause 0.3 # or both are one message
echo ping >"$DIR/phone.in"
expect 'an ack has no answer' pong "$(frames phone 1)"
cut
expect 'a message while it is away is held' \
    "$(success "{'messageId':'m1','matched':2,'queued':2,'dropped':0,'held':1}")" \
    "$(call send_to_group "{'groupName':'g',$RECEIPT}")"
expect 'and one to it alone' "$(success "{'messageId':'m1','matched':1,'queued':1,'dropped':0,'held':1}")" \
    "$(call send_to_client "{'clientId':'$PHONE',$RECEIPT}")"
expect 'it is online' "$WITNESS $PHONE" "$(post /api/get_online_list '{"groupName":"g"}' | jq -r '.data.list | join(" ")')"
expect 'and listed as away' '["",true]' \
    "$(post /api/list_clients '{}' | jq -c ".data.clients[] | select(.clientId == \"$PHONE\") | [.remote, .away]")"
expect 'a message after it' "$SUCCESS" "$(call send_to_system "{$MESSAGE}")"
pause 5 # long enough for whatever would be told
visit phone "$KEY&received=2"
expect 'it is back' "$PHONE {\"linger\":60,\"resumed\":true,\"recovered\":true,\"replay\":3}" "$ID $SAID"
expect 'and gets what it has missed' "$ID_FRAME
$ID_FRAME
$FRAME" "$(frames phone 3)"
expect 'the others were told of no leave' "$(notice 1001 "$WITNESS")
$(notice 1001 "$PHONE")
$FRAME
$ID_FRAME
$FRAME" "$(frames witness 5)"
wait_for has_happened 'start connect join connect join'
expect 'nor was the webhook' 'start connect join connect join' "$(happened)"
echo ping >"$DIR/phone.in"
expect 'it says something' pong "$(frames phone 1)"
visit other "$FIRST_KEY&received=0"
expect 'after which its first key is not good any more' '{"linger":60,"resumed":false}' "$SAID"

# --- a gap ------------------------------------------------------------------------------------

visit full
FULL=$ID FULL_KEY=$KEY
cut
for _ in 1 2 3 4; do
    call send_to_client "{'clientId':'$FULL',$MESSAGE}" >/dev/null
done
expect 'more than [resume] frames is not kept' \
    '200 {"code":-1003,"msg":"away, and too much was sent to it","data":[]}' "$(call send_to_client "{'clientId':'$FULL',$MESSAGE}")"
expect 'a receipt counts it' "$(success "{'messageId':'m1','matched':1,'queued':0,'dropped':1}")" \
    "$(call send_to_client "{'clientId':'$FULL',$RECEIPT}")"
expect 'one of many is named' "$(success "{'failed':['$FULL']}")" \
    "$(call send_to_clients "{'clientIds':['$FULL','$PHONE'],$MESSAGE}")"
visit full "$FULL_KEY&received=0"
expect 'it is told so' "$FULL {\"linger\":60,\"resumed\":true,\"recovered\":false,\"missed\":7}" "$ID $SAID"
call send_to_client "{'clientId':'$FULL',$MESSAGE}" >/dev/null
expect 'and goes on' "$FRAME" "$(frames full 1)"
expect 'counted' '1 1 1 3' "$(metric 'resume_gaps_total{reason="frames"}') $(metric 'resumes_total{result="missed"}') $(
    metric 'resumes_total{result="recovered"}') $(metric resume_replayed_total)"

# --- ends -------------------------------------------------------------------------------------

cut
call close_client "{'clientId':'$FULL','code':3001}" >/dev/null
expect 'one that is away can be closed' 0 "$(metric resume_away)"
visit full "$KEY&received=0"
expect 'and does not come back' '{"linger":60,"resumed":false}' "$SAID"
call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
frames witness 1 >/dev/null
cut
sed -i 's/^\[resume\]/[resume]\nlinger = 0/' "$DIR/config.ini"
kill -HUP "$SERVER"
wait_for nobody_is_away
expect 'linger = 0 ends those away' "$(notice 1002 "$ID")" "$(frames witness 1)"
expect 'they are not online then' "$OFFLINE" "$(call client_info "{'clientId':'$ID'}")"
visit none
expect 'and nobody can come back' '{}' "$SAID"
sed -i 's/^linger = 0/linger = 1/' "$DIR/config.ini"
kill -HUP "$SERVER"
reloaded() { [ "$(metric 'reloads_total{result="success"}')" = 2 ]; }
wait_for reloaded
visit short
call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
cut
wait_for nobody_is_away
expect 'linger is over' "$(notice 1001 "$ID")
$(notice 1002 "$ID")" "$(frames witness 2)"
expect 'and the webhook knows' "disconnect $ID 1006" \
    "$(wait_for eval "told /events | grep -q '\"disconnect\".*$ID'"; told /events | jq -r 'select(.type == "disconnect") | "\(.type) \(.clientId) \(.code)"' | tail -n 1)"

# --- limits, and a restart --------------------------------------------------------------------

stop
fresh '[limits]
max_connections = 3'
start
sign_up shop
visit one
ONE_KEY=$KEY
cut
visit two
client three shop
expect 'those away count' '3 1' "$(metric clients) $(metric resume_away)"
client four shop
wait_for nobody_is_away
expect 'and make room for others' '3 0' "$(metric clients) $(metric resume_away)"
stop
start
login shop
visit one "$ONE_KEY&received=0"
expect 'a key of before the start is unknown' '{"linger":60,"resumed":false}' "$SAID"
cut
stop # it does not wait for those who are away
finish

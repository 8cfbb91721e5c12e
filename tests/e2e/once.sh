#!/usr/bin/env bash
# once.sh - a send with `once` that is repeated: what is answered, and that no client gets it again.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

USED='400 {"code":-1,"msg":"messageId was used for another message","data":[]}'
ONCE="'once':true,$MESSAGE"

# again ID [FIELDS]: prints the answer to a send that is repeated.
again() {
    success "{${2:+$2,}'messageId':'$1','matched':0,'queued':0,'dropped':0,'repeated':true}"
}

# pushed ID...: prints the frames of sends with these messageIds.
pushed() {
    printf "${FRAME%?},\"messageId\":\"%s\"}\n" "$@"
}

# send NAME ID: prints what a send with once to a group is answered.
send() {
    call send_to_group "{'groupName':'$1','messageId':'$2',$ONCE}"
}

# each_once CALL TARGET NAME...: a send to these clients, with the same messageId for all calls, and what comes of it
# when it is repeated.
each_once() {
    local call=$1 body="{$2'messageId':'m',$ONCE}" answer=$SUCCESS fields='' name
    [ "$call" != send_to_clients ] || fields="'failed':[]" answer=$(success "{'failed':[]}")
    expect "$call: sent" "$answer" "$(call "$call" "$body")"
    for name in "${@:3}"; do
        expect "$call: $name gets it" "$(pushed m)" "$(frames "$name" 1)"
    done
    expect "$call: repeated" "$(again m "$fields")" "$(call "$call" "$body")"
    expect "$call: repeated, with a receipt" "$(again m "$fields")" "$(call "$call" "${body%\}},'receipt':true}")"
    [ -n "$fields" ] || expect "$call: other content" "$USED" "$(call "$call" "${body%1\}}2}")"
    expect "$call: no messageId" '400 {"code":-1,"msg":"field messageId is missing: once needs it","data":[]}' \
        "$(call "$call" "${body/\'messageId\':\'m\',/}")"
}

# limit KEY VALUE: the server reads its configuration again, with another limit.
limit() {
    local before
    before=$(grep -c 'SIGHUP: the conf' "$DIR/log")
    configure "[limits]
$1 = $2"
    kill -HUP "$SERVER"
    wait_for eval "[ \$(grep -c 'SIGHUP: the conf' $DIR/log) -gt $before ]"
}

# is_sent_again NAME ID: whether a send is delivered, and not repeated.
# shellcheck disable=SC2317,SC2329 # called by wait_for
is_sent_again() {
    [ "$(send "$1" "$2")" = "$SUCCESS" ]
}

free_port
ADMIN=127.0.0.1:$FREE
configure
start
sign_up shop
client a shop
A=$ID
client b shop
B=$ID
for id in "$A" "$B"; do
    call bind_to_group "{'clientId':'$id','groupName':'g','userId':'g'}" >/dev/null
done
frames a 2 >/dev/null # of the notices
frames b 1 >/dev/null

each_once send_to_client "'clientId':'$A'," a
each_once send_to_clients "'clientIds':['$A','$B']," b
each_once send_to_group "'groupName':'g'," a b
each_once send_to_user "'userId':'g'," a b
each_once send_to_system '' a b
expect 'repetitions are counted, for each client' 13 "$(metric once_repeated_total)"

limit once_max 3
for i in 1 2 3 4; do
    expect "the last 3 are kept: $i" "$SUCCESS" "$(send g $i)"
done
expect 'the last one is kept' "$(again 4)" "$(send g 4)"
expect 'the third last is' "$(again 2)" "$(send g 2)"
expect 'the fourth last is not' "$SUCCESS" "$(send g 1)"
expect 'clients get that one again' "$(pushed 1 2 3 4 1)" "$(frames a 5)"

limit once_ttl 1
expect 'sent with a short once_ttl' "$SUCCESS" "$(send g t)"
wait_for is_sent_again g t
expect 'after that it is forgotten' "$(pushed t t)" "$(frames a 2)"
limit once_ttl 300
expect 'and known again' "$(again t)" "$(send g t)"
finish

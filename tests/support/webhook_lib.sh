# webhook_lib.sh - a receiver of webhooks, tests/support/receiver.py, to be sourced behind lib.sh or cluster_lib.sh.
# shellcheck shell=bash disable=SC2034
need python3
free_port
ADMIN=127.0.0.1:$FREE
free_port
RECEIVER=$FREE
URL=http://127.0.0.1:$RECEIVER/hook

# start_receiver: its process is in $RECEIVING.
start_receiver() {
    python3 -B tests/support/receiver.py "$RECEIVER" "$PORT" 2>"$DIR/receiver.err" &
    RECEIVING=$!
    CLIENTS+=($!)
    wait_for listens "$RECEIVER"
}

# told PATH: prints what the receiver tells.
told() {
    local STATUS HEADERS BODY
    exchange 127.0.0.1 "$RECEIVER" "GET $1 HTTP/1.1"$'\r\n\r\n' 60
    printf %s "$BODY"
}

# hook [BODY-FIELDS]: sets the webhook; its secret is in $SECRET.
hook() {
    told "/setup?token=$TOKEN&unsigned=1" >/dev/null
    call set_webhook "{'url':'$URL'${1+,$1}}" >/dev/null
    answer_has '"secret":"(whsec_[^"]*)"' && SECRET=${BASH_REMATCH[1]}
    told "/setup?token=$TOKEN&secret=${SECRET//+/%2B}" >/dev/null
}

# listed: the clients that the server lists, as the receiver tells them.
listed() {
    local answer after=''
    while
        answer=$(post /api/list_clients "{\"after\":\"$after\",\"limit\":1000,\"groups\":true}")
        jq -r '.data.clients[] | "\(.clientId) \(.userId) \(.extend) \(.groups | sort | join(","))"' <<<"$answer"
        after=$(jq -r .data.next <<<"$answer")
        [ -n "$after" ]
    do :; done | LC_ALL=C sort
}

# same_model [COUNT]: compares what is told and what is listed, which change while clients that are away come to their
# end.
same_model() {
    TOLD_CLIENTS=$(told /clients) LISTED_CLIENTS=$(listed)
    [ "$TOLD_CLIENTS" = "$LISTED_CLIENTS" ] && [ "$(grep -c . <<<"$TOLD_CLIENTS")" = "${1-$(grep -c . <<<"$TOLD_CLIENTS")}" ]
}

# model NAME [COUNT]: the receiver comes to know who is there, with users and groups, and has seen nothing amiss.
model() {
    wait_for same_model "${@:2}"
    [ $# = 1 ] || expect "$1: so many clients" "$2" "$(grep -c . <<<"$TOLD_CLIENTS")"
    expect "$1: the receiver's model is the server's list" '' "$(diff <(echo "$LISTED_CLIENTS") <(echo "$TOLD_CLIENTS"))"
    expect "$1: it has nothing to complain of" '' "$(told /wrong)"
}

# start_again: the server, after its end, on the same port.
start_again() {
    "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for answers
}

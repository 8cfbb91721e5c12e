#!/usr/bin/env bash
# receivers.sh [NAME...] - the receivers of webhooks in examples/: business.py, .php and .js. Who they say is online is what
# list_clients says, whatever happens to clients, to the server and to themselves; what is not signed, or is signed by
# another or long ago, is refused; what is repeated changes nothing; a client that says something is answered. What the
# server sends is verified by the library of Standard Webhooks.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need node php websocat python3

unset "${!PUSH_@}"
export NODE_PATH=$PWD/.tools/node/node_modules
node -e 'require("standardwebhooks")' 2>/dev/null || { bad 'standardwebhooks is missing' 'run make test-deps'; finish; }

NAMES=(python php node)
[ $# = 0 ] || NAMES=("$@")
declare -A AT TOKENS SECRETS RUNS

# receiver NAME: starts it, with the secret that its system has.
receiver() {
    local command
    case $1 in
    python) command=(/usr/bin/python3 -B examples/business.py "${AT[$1]}") ;;
    php) command=(php -S "127.0.0.1:${AT[$1]}" examples/business.php) ;;
    node) command=(node examples/business.js "${AT[$1]}") ;;
    esac
    env PUSH_PASSWORD=secret PUSH_SYSTEM="$1" PUSH_URL="http://127.0.0.1:$PORT" PUSH_SECRET="${SECRETS[$1]}" \
        PUSH_TOKENS="$DIR/tokens" "${command[@]}" >"$DIR/$1.said" 2>"$DIR/$1.complaints" &
    RUNS[$1]=$!
    CLIENTS+=($!)
    wait_for listens "${AT[$1]}" || broken "$1 starts" "$DIR/$1.complaints"
}

# hook NAME [BODY-FIELDS]: sets the webhook of a system.
hook() {
    TOKEN=${TOKENS[$1]}
    call set_webhook "{'url':'http://127.0.0.1:${AT[$1]}/events'${2+,$2}}" >/dev/null
    answer_has '"secret":"(whsec_[^"]*)"' && SECRETS[$1]=${BASH_REMATCH[1]}
}

# Who is online, as the receiver says and as the server says: users with their clients.
told() {
    local fd text
    exec {fd}<>"/dev/tcp/127.0.0.1/${AT[$1]}"
    printf 'GET /online HTTP/1.0\r\nHost: x\r\n\r\n' >&"$fd"
    IFS= read -r -d '' -t 20 -u "$fd" text # to the end
    exec {fd}>&-
    jq -cS 'map_values(sort)' <<<"${text#*$'\r\n\r\n'}"
}

listed() {
    TOKEN=${TOKENS[$1]} post /api/list_clients '{"limit":1000}' |
        jq -cS '[.data.clients[]] | group_by(.userId) | map({key: .[0].userId, value: map(.clientId) | sort}) | from_entries'
}

agrees() {
    [ "$(told "$1")" = "$(listed "$1")" ]
}

# model NAME WHAT: the two become the same.
model() {
    wait_for agrees "$1"
    expect "$1: $2: it knows who is online" "$(listed "$1")" "$(told "$1")"
}

# guest NAME [USER [GROUPS]]: a client with a ticket.
COUNT=0
guest() {
    local body="{'userId':'$2','groups':[${3-}]}"
    TOKEN=${TOKENS[$1]}
    GUEST=guest$((++COUNT))
    call ticket "${body/\'userId\':\'\',/}" >/dev/null
    answer_has '"ticket":"([^"]*)"'
    client $GUEST "$1&ticket=${BASH_REMATCH[1]}"
}

# hears NAME WHAT TEXT: the latest guest says this, and is answered.
hears() {
    echo "$3" >"$DIR/$GUEST.in"
    expect "$1: $2: what a client says is answered" \
        "$(jq -cn --arg text "You said: $3" '{code: 7, msg: "answer", data: $text}')" \
        "$(frames "$GUEST" 1 | jq -c 'del(.messageId)')"
}

comes_and_goes() {
    local name=$1
    TOKEN=${TOKENS[$name]}
    expect "$name: at first nobody is online" '{}' "$(told "$name")"
    guest "$name" ann "'news'"
    guest "$name" ann "'news','sport'"
    call unbind_from_group "{'clientId':'$ID','groupName':'sport'}" >/dev/null
    guest "$name" 7
    guest "$name" ''
    client "$name.late" "$name"
    call bind_to_group "{'clientId':'$ID','groupName':'news','userId':'bob'}" >/dev/null
    model "$name" 'clients with and without a user'
    expect "$name: so many users" 4 "$(told "$name" | jq length)"
    call close_client "{'clientId':'$ID'}" >/dev/null
    call close_user "{'userId':'7'}" >/dev/null
    model "$name" 'some have gone'
    guest "$name" ''
    hears "$name" 'in JSON' 'a "häl\lo" of 🦀'
}

# What it makes of requests of others, see deliver.js. The guest has one answer only to what is repeated.
refuses() {
    expect "$1: requests of others" "unsigned: 401 offline
forged: 401 offline
changed: 401 offline
stale: 401 offline
from the future: 401 offline
two signatures: 200 online
goes: 200 offline
repeated: 200 offline
comes: 200 online
the node starts again: 200 offline
comes: 200 online
moves to another node: 200 online
goes there: 200 offline
what comes late of before it moved: 200 offline
moves, and is not known: 503 offline
comes: 200 online
another node tells of its end: 200 offline
what comes late of before: 200 offline
a gap, and the list has no such node: 503 offline" "$(node tests/support/deliver.js "${AT[$1]}" "${SECRETS[$1]}" "$ID" 2>&1)"
    echo ping >"$DIR/$GUEST.in"
    expect "$1: what is repeated is not answered again" '{"code":7,"msg":"answer","data":"You said: once","messageId":"1.3"}
pong' "$(frames "$GUEST" 2)"
    model "$1" 'after all that'
}

# The secret changes, the receiver dies, and returns with the new one. Meanwhile clients come and go.
returns() {
    local name=$1
    hook "$name" "'events':['connect','disconnect','join','message'],'rotate':true"
    guest "$name" eve
    model "$name" 'with the secret of before'
    kill_process "${RUNS[$name]}"
    guest "$name" fred
    TOKEN=${TOKENS[$name]}
    call close_user "{'userId':'eve'}" >/dev/null
    receiver "$name"
    model "$name" 'it was gone for a while'
    hears "$name" 'with the new secret' 'again'
}

# Events are lost: a new choice of events begins an epoch, and what was queued is lost. What a client says behind that is
# not, though the list of clients takes account of later events.
loses() {
    local name=$1
    kill_process "${RUNS[$name]}"
    guest "$name" gus
    hook "$name" "'events':['connect','disconnect','join','leave','message']"
    guest "$name" hal
    echo 'behind a loss' >"$DIR/$GUEST.in"
    wait_for has_queued 3
    receiver "$name"
    expect "$name: events were lost: what a client says is not" 'You said: behind a loss' \
        "$(frames "$GUEST" 1 | jq -r .data)"
    model "$name" 'events were lost'
}

# has_queued COUNT: whether so many events of the system wait, at most a second after the last of them.
has_queued() {
    [ "$(post /api/list_clients '{}' | jq '.data.seen[0].seq')" -ge "$1" ]
}

# --- the library ------------------------------------------------------------------------------

# A receiver that says of each request which of its secrets are good: those in a file, one a line.
library() {
    cat >"$DIR/library.js" <<'JS'
const { Webhook } = require('standardwebhooks');
const { readFileSync } = require('node:fs');
require('node:http').createServer((request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part)).on('end', () => {
    const body = Buffer.concat(parts).toString();
    const secrets = readFileSync(process.argv[3], 'utf8').trim().split('\n');
    console.log(JSON.parse(body).events.map(event => event.type).join(), '-', secrets.map(secret => {
      try { return new Webhook(secret).verify(body, request.headers).systemId; } catch (error) { return error.message; }
    }).join(', '));
    response.end();
  });
}).listen(process.argv[2], '127.0.0.1');
JS
    hook library
    echo "${SECRETS[library]}" >"$DIR/secrets"
    node "$DIR/library.js" "${AT[library]}" "$DIR/secrets" >"$DIR/library.said" 2>"$DIR/library.complaints" &
    CLIENTS+=($!)
    wait_for has_lines "$DIR/library.said" 1
    guest library 'Ü 1'
    wait_for has_lines "$DIR/library.said" 2
    hook library "'rotate':true"
    echo "${SECRETS[library]}" >>"$DIR/secrets"
    echo 'whsec_b3RoZXI=' >>"$DIR/secrets"
    call close_client "{'clientId':'$ID'}" >/dev/null
    wait_for has_lines "$DIR/library.said" 3
    expect 'what the library of Standard Webhooks makes of it' "start - library
connect - library
disconnect - library, library, No matching signature found" "$(cat "$DIR/library.said" "$DIR/library.complaints")"
}

# --- all together -----------------------------------------------------------------------------

for name in "${NAMES[@]}" library; do
    free_port
    AT[$name]=$FREE
done
configure "[webhook]
allow = $(printf 'http://127.0.0.1:%s/events ' "${AT[@]}")"
quick_hashes
start
for name in "${NAMES[@]}" library; do
    sign_up "$name"
    TOKENS[$name]=$TOKEN
done
library
for name in "${NAMES[@]}"; do
    hook "$name" "'events':['connect','disconnect','join','message']"
    receiver "$name"
    comes_and_goes "$name"
    refuses "$name"
    returns "$name"
    loses "$name"
done

kill_process "$SERVER"
"$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
SERVER=$!
wait_for answers
for name in "${NAMES[@]}"; do
    guest "$name" ann
    model "$name" 'the server was killed, and is back'
done
halt
for name in "${NAMES[@]}"; do
    expect "$name: the server stops: nobody is online" '{}' "$(told "$name")"
done
finish

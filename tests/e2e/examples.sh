#!/usr/bin/env bash
# examples.sh [PART...] - the programs in examples/. They say what is missing. The clients meet a port that refuses, a
# system that is registered later, a server that is killed and returns, one that has lost its keys, and one that is
# silent; the backends push to them meanwhile. They resume when the network is cut. What README.md shows in five
# languages signs tickets that the server takes.
# `tests/e2e/examples.sh hidden_tab` is no part of the suite: the page in a tab that is hidden for eight minutes.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. tests/support/browser_lib.sh

unset "${!PUSH_@}"
export LC_ALL=C.UTF-8 NODE_PATH=/usr/share/nodejs # where Debian's packages are
NAME='a b+c&é' # of the system
MAX_WAIT=1     # seconds, of most clients
NETWORK=''     # the port on which the page reaches the server, if it is another one
BIG=$(head -c 200000 /dev/zero | tr '\0' x)

# The clients: `pypi` is the one for Python with the library of PyPI instead of Debian's; `own` the one for Node with
# the WebSocket of the runtime instead of the library ws.
NAMES=(python pypi node own go shell)
BACKENDS=(python node php java go)
PYTHON=/usr/bin/python3
declare -A CLIENT_OF BACKEND_OF INPUT

need node php java go websocat
"$PYTHON" -c 'import websockets' 2>"$DIR/none" || broken 'websockets for Python is missing: run make test-deps' "$DIR/none"
node -e 'require("ws")' 2>"$DIR/none" || broken 'ws for Node is missing: run make test-deps' "$DIR/none"
tests/support/go.sh ready || broken 'go is older than examples/go.mod asks for' <(go version)

# Where Node has no WebSocket of its own, a flag brings it, or the library that Node has it from.
echo 'delete globalThis.WebSocket;' >"$DIR/library.js"
echo 'globalThis.WebSocket = require("undici").WebSocket;' >"$DIR/own.js"
own=node
if [ "$(node -p 'typeof WebSocket')" != function ]; then
    own='node --no-warnings --experimental-websocket'
    $own -e 0 2>"$DIR/none" || own="node -r $DIR/own.js"
fi
CLIENT_OF=([python]="$PYTHON examples/client.py" [pypi]="env PYTHONPATH=.tools/pypi $PYTHON examples/client.py" [node]="node -r $DIR/library.js examples/client.js" [own]="$own examples/client.js"
    [go]="$DIR/client" [shell]=examples/client.sh)
BACKEND_OF=([python]="$PYTHON examples/push.py" [node]='node examples/push.js' [php]='php examples/push.php'
    [java]='java -XX:TieredStopAtLevel=1 examples/Push.java' [go]="$DIR/push")

build() {
    tests/support/go.sh build -o "$DIR/client" . >"$DIR/go" 2>&1 || broken 'the client for Go is built' "$DIR/go"
    tests/support/go.sh build -o "$DIR/push" push.go >"$DIR/go" 2>&1 || broken 'the backend for Go is built' "$DIR/go"
}

# --- what is missing --------------------------------------------------------------------------

# says WHAT PATTERN COMMAND...: a program ends with status 2 and one line, which matches.
says() {
    local what=$1 pattern=$2
    shift 2
    "$@" >"$DIR/said" 2>&1 </dev/null
    expect_match "$what" "2 1 $pattern" "$? $(wc -l <"$DIR/said") $(cat "$DIR/said")"
}

missing() {
    local name
    for name in "${NAMES[@]}"; do
        # shellcheck disable=SC2086 # a list of words
        says "client, $name: no password" "Set PUSH_PASSWORD to the password of the system $NAME." env PUSH_SYSTEM="$NAME" ${CLIENT_OF[$name]}
    done
    for name in "${BACKENDS[@]}"; do
        # shellcheck disable=SC2086
        says "backend, $name: no password" "Set PUSH_PASSWORD to the password of the system $NAME." env PUSH_SYSTEM="$NAME" ${BACKEND_OF[$name]} news
        # shellcheck disable=SC2086
        says "backend, $name: no group" 'Usage: [pP]ush.* GROUP <LINES' env PUSH_PASSWORD=x ${BACKEND_OF[$name]}
    done
    says 'business.py: no password' 'Set PUSH_PASSWORD *' "$PYTHON" examples/business.py 8000
    says 'business.py: no port' 'Usage: business.py PORT' env PUSH_PASSWORD=x "$PYTHON" examples/business.py
    says 'business.js: no password' 'Set PUSH_PASSWORD *' node examples/business.js 8000
    says 'business.js: no port' 'Usage: business.js PORT' env PUSH_PASSWORD=x node examples/business.js
    says 'client, python: no websockets' '*needs websockets*apt-get install python3-websockets' \
        env PUSH_PASSWORD=x "$PYTHON" -S examples/client.py
    cat >"$DIR/bare.js" <<'JS'
delete globalThis.WebSocket;
const Module = require('module'), load = Module._load;
Module._load = (name, ...others) => { if (name === 'ws') throw new Error(name); return load(name, ...others); };
JS
    says 'client, node: no WebSocket' '*no WebSocket: take Node 22, or install ws*apt-get install node-ws' \
        env PUSH_PASSWORD=x node -r "$DIR/bare.js" examples/client.js
    mkdir "$DIR/few"
    ln -s "$(command -v curl)" "$DIR/few/"
    says 'client, shell: no tools' 'client.sh needs jq websocat. *' env PATH="$DIR/few" PUSH_PASSWORD=x "$BASH" examples/client.sh
}

# --- the clients ------------------------------------------------------------------------------

# run NAME FILE SETTING...: starts a client; what it prints is in $DIR/FILE.out and .err.
run() {
    local name=$1 file=$2
    shift 2
    # shellcheck disable=SC2086 # a list of words
    env PUSH_PASSWORD=secret PUSH_SYSTEM="$NAME" "$@" ${CLIENT_OF[$name]} >"$DIR/$file.out" 2>"$DIR/$file.err" &
    CLIENTS+=("$!")
}

# serve: starts the server on $PORT.
serve() {
    "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for answers || broken 'the server starts' "$DIR/stderr"
}

members() {
    call get_online_list "{'groupName':'news'}" >/dev/null
    jq -c '.data.list | sort' "$DIR/body"
}

all_bound() {
    [ "$(members | jq length)" = $((${#NAMES[@]} + 1)) ]
}

# calls_of NAME: how many calls of it this server has answered.
calls_of() {
    curl -s --max-time 10 "http://$ADMIN/metrics" |
        awk -v path="\"/api/$1\"" '/^wspush_api_requests_total/ && index($0, path) { sum += $2 } END { print sum + 0 }'
}

# copy_page: saves what the page shows, as what another client prints.
copy_page() {
    page_text '#log' >"$DIR/browser.out"
    cp "$DIR/browser.out" "$DIR/browser.err"
}

# shows NAME LINE: whether a client shows a line.
shows() {
    [ "$1" != browser ] || copy_page
    grep -qxFf <(printf '%s\n' "$2") "$DIR/$1.out" # too long for a command line
}

# complains NAME PATTERN: whether a client has said since `mark` that a connection ended so.
complains() {
    [ "$1" != browser ] || copy_page
    tail -n "+$(cat "$DIR/$1.mark")" "$DIR/$1.err" | grep -qE "^($2).*; next try in [0-9.]+ s$"
}

mark() {
    local name
    for name in "${NAMES[@]}" browser; do
        [ "$name" != browser ] || copy_page
        echo $(($(wc -l <"$DIR/$name.err") + 1)) >"$DIR/$name.mark"
    done
}

# await COMMAND...: tries for a minute. What it waits for takes seconds, so it does not try often.
await() {
    local end=$((SECONDS + 60))
    until "$@" >"$DIR/none" 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# each TEST COMMAND [ARGUMENT]...: for each client, COMMAND NAME ARGUMENT... must come true.
each() {
    local test=$1 command=$2 name
    shift 2
    for name in "${NAMES[@]}" browser; do
        if await "$command" "$name" "$@"; then
            ok "$name: $test"
        else
            bad "$name: $test" "$(tail -n 3 "$DIR/$name.out" | cut -c 1-300; tail -n 3 "$DIR/$name.err")"
        fi
    done
}

# waits FILE [FIRST]: prints the times, in seconds, that a client has said it waits.
waits() {
    tail -n "+${2-1}" "$DIR/$1.err" | sed -n 's/.*; next try in \([0-9.]*\) s$/\1/p'
}

# within NAME LOW HIGH: whether all times since `mark` are between them.
within() {
    waits "$1" "$(cat "$DIR/$1.mark")" | awk -v low="$2" -v high="$3" '
        $1 < low - 0.11 || $1 > high + 0.11 { bad = 1 } END { exit bad || !NR }'
}

# said LINE: whether the lines of all backends have come to a client, and in one push each.
pushed() {
    [ "$(jq -r 'select(.code == 7) | .data' "$DIR/python.out" | grep -cF -- "$1")" = ${#BACKENDS[@]} ]
}

# type_line LINE: gives it to all backends, with the name of each.
type_line() {
    local name
    for name in "${BACKENDS[@]}"; do
        printf '%s %s\n' "$1" "$name" >&"${INPUT[$name]}"
    done
}

# each_backend TEST FILE COUNT PATTERN: each has printed so many lines to FILE (out, err), and the last one matches.
each_backend() {
    local name
    for name in "${BACKENDS[@]}"; do
        await has_lines "$DIR/push.$name.$2" "$3"
        expect_match "$name: $1" "$3 $4" "$(wc -l <"$DIR/push.$name.$2") $(tail -n 1 "$DIR/push.$name.$2")"
    done
}

start_backends() {
    local name fd
    for name in "${BACKENDS[@]}"; do
        mkfifo "$DIR/push.$name"
        # shellcheck disable=SC2086 # a list of words
        env PUSH_PASSWORD=secret PUSH_SYSTEM="$NAME" PUSH_URL="http://127.0.0.1:$PORT" PUSH_TOKENS="$DIR/tokens" \
            ${BACKEND_OF[$name]} news <"$DIR/push.$name" >"$DIR/push.$name.out" 2>"$DIR/push.$name.err" &
        CLIENTS+=("$!")
        exec {fd}>"$DIR/push.$name"
        INPUT[$name]=$fd
    done
}

# start_page: the business system on a port of its own, and a browser. Its page is at $PAGE.
start_page() {
    free_port
    env PUSH_PASSWORD=secret PUSH_SYSTEM="$NAME" PUSH_URL="http://127.0.0.1:$PORT" "$PYTHON" examples/business.py "$FREE" \
        >"$DIR/business.out" 2>"$DIR/business.err" &
    CLIENTS+=("$!")
    PAGE="http://127.0.0.1:$FREE/?url=ws://127.0.0.1:${NETWORK:-$PORT}&wait=$MAX_WAIT&system=$(jq -rn --arg name "$NAME" '$name | @uri')"
    wait_for listens "$FREE" || broken 'business.py starts' "$DIR/business.err"
    browser_start
    browser_open
}

# registered: the system is, and has logged in; failed logins of before may keep it waiting for some seconds.
registered() {
    call login "{'systemId':'$NAME','password':'secret'}" >/dev/null
    TOKEN=$(jq -er .data.token "$DIR/body")
}

# comes_back_slowly NAME: whether a client waits longer when only somebody else can help it.
comes_back_slowly() {
    tail -n "+$(cat "$DIR/$1.mark")" "$DIR/$1.err" | sed -n 's/.*(-1005); next try in \([0-9.]*\) s$/\1/p' |
        awk -v low=$MAX_WAIT '$1 < low - 0.11 || $1 > 2 * low + 0.11 { bad = 1 } END { exit bad || !NR }'
}

choose_ports() {
    free_port
    ADMIN=127.0.0.1:$FREE
    free_port
    PORT=$FREE
    configure
}

clients() {
    local name logins before after ALL=$((${#NAMES[@]} + 1))
    choose_ports
    start_page
    free_port
    for name in "${NAMES[@]}"; do
        run "$name" "$name" PUSH_URL="http://127.0.0.1:$PORT" PUSH_MAX_WAIT=$MAX_WAIT
        run "$name" "lonely.$name" PUSH_URL="http://127.0.0.1:$FREE" # for `alone`
    done
    page_goto "$PAGE"

    # Nobody is there.
    for name in "${NAMES[@]}" browser; do echo 1 >"$DIR/$name.mark"; done
    each 'why it has no connection' complains "Post .*connection refused|connect ECONNREFUSED|http://.*Connection refused|\
curl: \(7\)|the business system cannot ask wspush"
    each 'at most a second goes by' within 0 $MAX_WAIT

    # The server is there, the system is not. The page waits for that: too many logins must not fail.
    mark
    page_goto about:blank
    serve
    for name in "${NAMES[@]}"; do
        expect "$name: the system is unknown, so it comes back slowly" yes "$(await comes_back_slowly "$name" && echo yes)"
    done
    TOKEN=
    call register "{'systemId':'$NAME','password':'secret'}" >/dev/null
    await registered
    page_goto "$PAGE"
    await all_bound
    expect 'all are in the group' $ALL "$(members | jq length)"

    # A push; what is between the brackets of the second is longer than what libraries take by default.
    call send_to_group "{'groupName':'news','code':7,'msg':'grün','data':{'price':9.90}}" >/dev/null
    each 'a push' shows '{"code":7,"msg":"grün","data":{"price":9.90}}'
    printf '{"groupName":"news","code":8,"msg":"","data":"%s"}' "$BIG" >"$DIR/big"
    post /api/send_to_group @"$DIR/big" >/dev/null
    each 'a push of 200 kB' shows "{\"code\":8,\"msg\":\"\",\"data\":\"$BIG\"}"

    # The backends.
    start_backends
    type_line 'a "ü" \ of'
    each_backend 'a line' out 1 "queued for $ALL client(s)"
    expect 'the lines have come' yes "$(await pushed 'a "ü" \ of' && echo yes)"
    logins=$(calls_of login)
    type_line 'another of'
    each_backend 'another line' out 2 "queued for $ALL client(s)"
    expect 'without another login' "$logins" "$(calls_of login)"

    # The server is killed, and returns.
    before=$(members)
    mark
    kill_process "$SERVER"
    each 'the server is gone' complains '.*'
    type_line 'a lost one of'
    each_backend 'a server that is gone' err 1 "*127.0.0.1:$PORT*"
    serve
    await all_bound
    after=$(members)
    expect 'all have come back' $ALL "$(jq length <<<"$after")"
    expect 'with new ids' 0 "$(jq -n --argjson a "$before" --argjson b "$after" '$a - ($a - $b) | length')"
    type_line 'a third of'
    each_backend 'a line after that' out 3 "queued for $ALL client(s)"
    expect 'with the tokens that they had' 0 "$(calls_of login)"

    # It returns without its keys: the tokens are worth nothing.
    kill_process "$SERVER"
    rm "$DIR"/data/*key*
    serve
    login "$NAME"
    await all_bound
    type_line 'a fourth of'
    each_backend 'a line when its token is refused' out 4 "queued for $ALL client(s)"
    expect 'all lines have come' yes "$(await pushed 'a fourth of' && echo yes)"
    logins=$(calls_of login)
    type_line 'a fifth of'
    each_backend 'a line after that' out 5 "queued for $ALL client(s)"
    expect 'each has logged in once more' "$logins" "$(calls_of login)"

    silent

    # The server ends, and says so.
    mark
    halt
    NAMES=("${NAMES[@]/shell/}") # to which websocat does not say it
    # shellcheck disable=SC2206 # without the empty one
    NAMES=(${NAMES[@]})
    each 'the server says why it ends' complains 'closed: 1001 going away'
    alone
}

# silent: the server stands still, as behind a cable that is cut. Backends do not wait for ever, and clients find it out.
silent() {
    local name
    mark
    freeze "$SERVER"
    type_line 'a late one of'
    each_backend 'a server that is silent' err 2 '*'
    for name in "${NAMES[@]}"; do
        expect "$name: a server that is silent" yes "$(await complains "$name" '.*' && echo yes)"
    done
    thaw "$SERVER"
    page_goto 'about:blank'
    page_goto "$PAGE"
    await all_bound
}

# alone: those that nobody has answered for half a minute. Each wait is between nothing and a limit that doubles.
alone() {
    local name
    for name in "${NAMES[@]}"; do
        expect_match "$name: waits at random, and longer each time" 'yes *' "$(waits "lonely.$name" | awk '
            { if ($1 > 2 ^ (NR - 1) + 0.11 || $1 > 30.1) bad = 1; if ($1 > 2) grows = 1; said = said " " $1 }
            END { print (bad || NR < 3 || NR > 8 && !grows ? "no" : "yes") said }')"
    done
    expect 'not all the same' yes "$([ "$(for name in "${NAMES[@]}"; do waits "lonely.$name"; done | sort -u | wc -l)" -gt 3 ] && echo yes)"
}

# resuming: the network is cut. All clients come back with the pushes that were sent meanwhile.
resuming() {
    local name before i NAMES=(python pypi node own go shell)
    choose_ports
    serve
    sign_up "$NAME"
    free_port
    NETWORK=$FREE
    start_network "$NETWORK"
    for name in "${NAMES[@]}"; do
        run "$name" "$name" PUSH_URL="http://127.0.0.1:$NETWORK" PUSH_MAX_WAIT=$MAX_WAIT
    done
    start_page
    page_goto "$PAGE"
    await all_bound
    before=$(members)
    mark
    stop_nginx
    each 'the network is cut' complains '.*'
    for i in 1 2 3; do
        call send_to_group "{'groupName':'news','code':7,'msg':'cut','data':$i}" >/dev/null
    done
    start_network "$NETWORK"
    each 'all pushes are there' shows '{"code":7,"msg":"cut","data":3}'
    for name in "${NAMES[@]}" browser; do
        [ "$name" != browser ] || copy_page
        expect "$name: each once, in order" '123 1' \
            "$(grep '"cut"' "$DIR/$name.out" | tr -dc '123') $(grep -c '^resumed, 3 replayed$' "$DIR/$name.err")"
    done
    expect 'they are the clients that they were' "$before" "$(members)"
    stop
    stop_nginx
    kill "${CLIENTS[@]}" 2>"$DIR/none"
    CLIENTS=() NETWORK='' TOKEN=''
    rm -rf "$DIR/data" # for `clients` meets a system that is not registered
}

# --- tickets ----------------------------------------------------------------------------------

# snippet LANGUAGE: the lines of it in the chapter Tickets of README.md.
snippet() {
    awk -v fence="\`\`\`$1" '/^## / { chapter = $0 == "## Tickets" } !chapter { next }
        /^```/ { inside = !inside && $0 == fence; next } inside' README.md
}

# sign LANGUAGE: prints the ticket that these lines make with $KEY.
sign() {
    local program=$DIR/sign/$1
    mkdir -p "$program"
    case $1 in
    php) printf '<?php $key = getenv("KEY"); $user = "ann";\n%s\necho $ticket;' "$(snippet php)" >"$program/sign.php" && php "$program/sign.php" ;;
    js) printf 'const key = process.env.KEY, user = "ann";\n%s\nconsole.log(ticket);' "$(snippet js)" >"$program/sign.js" && node "$program/sign.js" ;;
    python) printf 'import base64, hmac, json, os, time\nkey, user = os.environ["KEY"], "ann"\n%s\nprint(ticket)' "$(snippet python)" |
        "$PYTHON" - ;;
    java) printf 'class Sign { public static void main(String[] arguments) throws Exception {
        String key = System.getenv("KEY"), user = "ann";\n%s\nSystem.out.println(ticket); } }' "$(snippet java)" >"$program/Sign.java"
        java -XX:TieredStopAtLevel=1 "$program/Sign.java" ;;
    go) printf 'package main\nimport ("crypto/hmac"; "crypto/sha256"; "encoding/base64"; "encoding/json"; "fmt"; "os"; "time")
        func main() { key, user := os.Getenv("KEY"), "ann"\n%s\nfmt.Println(ticket); if err != nil { panic(err) } }' "$(snippet go)" >"$program/sign.go"
        tests/support/go.sh run "$program/sign.go" ;;
    esac
}

# greeting TICKET: prints the first frame that a client with it gets, without its id.
greeting() {
    PYTHONPATH=.tools/pypi "$PYTHON" -c 'import sys
from websockets.sync.client import connect
with connect(sys.argv[1], additional_headers={"Ticket": sys.argv[2]}) as socket:
    print(socket.recv())' "ws://127.0.0.1:$PORT/ws?systemId=shop" "$1" | sed 's/"clientId":"[^"]*"/"clientId":"…"/'
}

tickets() {
    local name
    configure $'[auth]\nconnect = ticket'
    start
    sign_up shop
    call ticket_key '{}' >/dev/null
    KEY=$(jq -r .data.key "$DIR/body")
    export KEY
    for name in php js python java go; do
        expect "README.md, $name: the ticket is good" '{"code":0,"msg":"success","data":{"clientId":"…","userId":"ann"}}' \
            "$(greeting "$(sign $name 2>"$DIR/sign.err" || cat "$DIR/sign.err")")"
    done
    call ticket_key "{'rotate':true}" >/dev/null
    KEY=$(jq -r .data.key "$DIR/body")
    expect_match 'another key signs others' '*"userId":"ann"*' "$(greeting "$(sign python)")"
    KEY=${KEY/?/$([ "${KEY:0:1}" = A ] && echo B || echo A)}
    expect_match 'a ticket of another key is not' '*-1002*forged*' "$(greeting "$(sign python)")"
    halt
}

# --- a tab that is hidden ---------------------------------------------------------------------

# The page in a tab that is hidden, where Chromium soon runs timers once a minute.
hidden_tab() {
    local minutes=${MINUTES:-8} tab ticks
    NAMES=()
    choose_ports
    serve
    sign_up "$NAME"
    THROTTLE=1 start_page
    devtools Page.addScriptToEvaluateOnNewDocument "{\"source\":$(json_text '
        window.ticks = [];
        setInterval(() => ticks.push({ at: Date.now(), state: document.visibilityState }), 1000);')}"
    page_goto "$PAGE"
    page_expect 'the page is connected' 'return document.querySelector("#log").textContent.includes("connected")'
    tab=$(driver_value GET /window)
    driver POST /window "{\"handle\":$(driver POST /window/new '{"type":"tab"}' | jq .value.handle)}" >/dev/null
    echo "the tab is hidden for $minutes minutes"
    sleep $((minutes * 60))
    call send_to_group "{'groupName':'news','code':7,'msg':'late','data':null}" >/dev/null
    driver POST /window "{\"handle\":$(json_text "$tab")}" >/dev/null
    page_expect 'a push at the end' 'return document.querySelector("#log").textContent.includes("late")'
    ticks=$(page_run 'return ticks')
    expect 'it was hidden all the time' true "$(jq '[.[5:-5][].state] | all(. == "hidden")' <<<"$ticks")"
    echo "seconds between its timers: $(jq -c '[range(1; length) as $i | .[$i].at - .[$i - 1].at | . / 1000 | round] | group_by(.) | map("\(.[0]) s: \(length)")' <<<"$ticks")"
    expect 'its timers ran once a minute at last' true \
        "$(jq '[range(1; length) as $i | .[$i].at - .[$i - 1].at | select(. > 45000)] | length >= 2' <<<"$ticks")"
    expect 'it has kept its connection' 'connected' "$(page_text '#log' | grep -E '^connected|next try')"
}

PARTS=(missing tickets resuming clients)
[ $# = 0 ] || PARTS=("$@")
build
for part in "${PARTS[@]}"; do
    "$part"
done
finish

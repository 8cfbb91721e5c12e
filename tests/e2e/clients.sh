#!/usr/bin/env bash
# clients.sh - the clients of examples/ against a server that is killed and started again: each gets a
# push, comes back by itself, and gets the next one. One whose runtime is not there is left out, and that is said.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. tests/support/browser_lib.sh

BIG=$(head -c 200000 /dev/zero | tr '\0' x)
NAMES=(python shell)
declare -A PROCESS COMMAND=([python]='/usr/bin/python3 examples/client.py' [shell]=examples/client.sh
    [node]='node examples/client.js')
COMMAND[go]=$DIR/client
export PYTHONPATH=.tools/pypi NODE_PATH=$PWD/.tools/node/node_modules PATH=$PWD/.tools/bin:$PATH
SETTINGS=(WSPUSH_PASSWORD=secret WSPUSH_GROUP=news) # of the clients: a server would refuse them

if ! command -v node >/dev/null; then
    echo 'left out: the client for Node, for node is not installed'
elif [ "$(node -p 'typeof fetch')" != function ]; then
    echo 'left out: the client for Node, for node is older than 18'
else
    NAMES+=(node)
fi
if ! tests/support/go.sh ready; then
    echo 'left out: the client for Go, for go is not installed, or too old for examples/go.mod'
elif tests/support/go.sh build -o "$DIR/client" . >"$DIR/go" 2>&1; then
    NAMES+=(go)
else
    bad 'the client for Go is built' "$(tail -n 5 "$DIR/go")"
fi

# restart: starts the server where it was.
restart() {
    "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for answers || broken 'the server starts again' "$DIR/stderr"
}

# run NAME SYSTEM: starts a client; what it prints is in $DIR/NAME.SYSTEM.out and .err.
run() {
    # shellcheck disable=SC2086 # a list of words
    env "${SETTINGS[@]}" WSPUSH_SYSTEM="$2" ${COMMAND[$1]} >"$DIR/$1.$2.out" 2>"$DIR/$1.$2.err" &
    PROCESS[$1]=$!
    CLIENTS+=("$!")
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
    curl -s "http://$ADMIN/metrics" |
        awk -v path="\"/api/$1\"" '/^wspush_api_requests_total/ && index($0, path) { sum += $2 } END { print sum + 0 }'
}

# copy_page: saves what the page shows, as what another client prints.
copy_page() {
    page_text '#log' >"$DIR/browser.shop.out"
    cp "$DIR/browser.shop.out" "$DIR/browser.shop.err"
}

# shows NAME LINE: whether a client shows a line.
shows() {
    [ "$1" != browser ] || copy_page
    grep -qxFf <(printf '%s\n' "$2") "$DIR/$1.shop.out" # too long for a command line
}

# each_shows TEST LINE
each_shows() {
    local name
    for name in "${NAMES[@]}" browser; do
        if wait_for shows "$name" "$2"; then
            ok "$name: $1"
        else
            bad "$name: $1" "$(tail -n 3 "$DIR/$name.shop.out" | cut -c 1-300; tail -n 3 "$DIR/$name.shop.err")"
        fi
    done
}

# tries NAME: prints the times, in seconds, that a client has said it waits before it tries again.
tries() {
    [ "$1" != browser ] || copy_page
    sed -n 's/.*next try in \([0-9.]*\) s$/\1/p' "$DIR/$1.shop.err"
}

has_tried() {
    [ "$(tries "$1" | wc -l)" -ge "$2" ]
}

free_port
ADMIN=127.0.0.1:$FREE
configure
start
sign_up shop
SETTINGS+=("WSPUSH_URL=http://127.0.0.1:$PORT")

# A system that is not registered: that is the end.
free_port
BUSINESS=$FREE
env "${SETTINGS[@]}" WSPUSH_SYSTEM=shop /usr/bin/python3 examples/business.py "$BUSINESS" 2>"$DIR/business.err" &
CLIENTS+=("$!")
browser_start
browser_open
wait_for listens "$BUSINESS" || broken 'the business system starts' "$DIR/business.err"
for name in "${NAMES[@]}"; do
    run "$name" nobody
done
page_goto "http://127.0.0.1:$BUSINESS/?url=ws://127.0.0.1:$PORT&system=nobody"
page_expect 'browser: an unknown system is told' \
    "return document.querySelector('#log').textContent.includes('closed with 1008')"
expect 'browser: and that is the end' '' "$(page_text '#log' | grep 'next try')"
for name in "${NAMES[@]}"; do
    for _ in {1..500}; do
        runs "${PROCESS[$name]}" || break
        sleep 0.02
    done
    ! runs "${PROCESS[$name]}" || kill "${PROCESS[$name]}"
    wait "${PROCESS[$name]}"
    expect_match "$name: an unknown system is the end" '1 *closed with 1008: the system is not registered' \
        "$? $(cat "$DIR/$name.nobody.err")"
    expect "$name: at once" '' "$(grep 'next try' "$DIR/$name.nobody.err")"
done

# A push; what is between the brackets of the second is longer than what libraries take by default.
for name in "${NAMES[@]}"; do
    run "$name" shop
done
page_goto "http://127.0.0.1:$BUSINESS/?url=ws://127.0.0.1:$PORT&system=shop"
wait_for all_bound
before=$(members)
expect 'all are in the group' $((${#NAMES[@]} + 1)) "$(jq length <<<"$before")"
call send_to_group "{'groupName':'news','code':7,'msg':'grün','data':{'price':9.90}}" >/dev/null
each_shows 'a push' '{"code":7,"msg":"grün","data":{"price":9.90}}'
printf '{"groupName":"news","code":8,"msg":"","data":"%s"}' "$BIG" >"$DIR/big"
post /api/send_to_group @"$DIR/big" >/dev/null
each_shows 'a push of 200 kB' "{\"code\":8,\"msg\":\"\",\"data\":\"$BIG\"}"

# The server is killed. They wait longer each time: a half to the whole of 1, 2 and 4 seconds.
kill_process "$SERVER"
for name in "${NAMES[@]}" browser; do
    wait_for has_tried "$name" 3
    expect_match "$name: waits longer each time" grows "$(tries "$name" | head -n 3 | awk '
        { low = 2 ^ NR / 4; if ($1 < low - 0.11 || $1 > 2 * low + 0.11) bad = 1; said = said " " $1 }
        END { print bad || NR < 3 ? "waits" said : "grows" }')"
done
restart
wait_for all_bound
after=$(members)
expect 'with the tokens that they had' "logins 0, binds $((${#NAMES[@]} + 1))" \
    "logins $(calls_of login), binds $(calls_of bind_to_group)"
expect 'all have come back' $((${#NAMES[@]} + 1)) "$(jq length <<<"$after")"
expect 'with new ids' 0 "$(jq -n --argjson a "$before" --argjson b "$after" '$a - ($a - $b) | length')"
call send_to_group "{'groupName':'news','code':9,'msg':'again','data':null}" >/dev/null
each_shows 'a push after that' '{"code":9,"msg":"again","data":null}'

# The server ends, and says so: the first wait is short again.
for name in "${NAMES[@]}" browser; do
    : "$(tries "$name" | wc -l >"$DIR/$name.tries")"
done
halt
for name in "${NAMES[@]}" browser; do
    count=$(($(cat "$DIR/$name.tries") + 1))
    wait_for has_tried "$name" $count
    expect_match "$name: begins with a short wait again" '[01].*' "$(tries "$name" | sed -n ${count}p)"
done
expect 'the business system has nothing to complain of' '' "$(cat "$DIR/business.err")"
finish

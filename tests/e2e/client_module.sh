#!/usr/bin/env bash
# client_module.sh - /wspush.js: what the server sends, and what it does. client_module.mjs runs it with a clock,
# sockets, a page and a server that are made up. Then it is in a page in Chromium, and nginx is the network between.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. tests/support/browser_lib.sh

need node

# get [CURL-ARGUMENT...]: asks for the module; the body is in $DIR/got.
get() {
    curl -s --max-time 20 -o "$DIR/got" -D "$DIR/headers" -w '%{http_code} %{content_type} %{size_download}' "$@" \
        "$SCHEME://127.0.0.1:$PORT/wspush.js"
}

served() {
    local tag
    expect_match 'the module' '200 text/javascript; charset=utf-8 *' "$(get --compressed)"
    expect 'is the file' '' "$(cmp wspush.js "$DIR/got" 2>&1)"
    expect 'pages of any site may import it, and keep it for five minutes' '* max-age=300 nosniff' \
        "$(header Access-Control-Allow-Origin) $(header Cache-Control) $(header X-Content-Type-Options)"
    tag=$(header ETag)
    expect 'who has it gets nothing' '304 text/javascript; charset=utf-8 0' "$(get -H "If-None-Match: $tag")"
    cp wspush.js "$DIR/wspush.mjs" # what Node takes for a module
}

switched_off() {
    configure $'[console]\nclient = false'
    start
    expect_match 'it can be switched off' '404 *' "$(get)"
    expect_match 'the page stays' '200 text/html*' "$(curl -s -o "$DIR/none" -w '%{http_code} %{content_type}' "$SCHEME://127.0.0.1:$PORT/")"
    halt
}

# --- in Chromium ------------------------------------------------------------------------------

# online / offline: the network between the page and the server comes and goes.
online() {
    start_network "$NETWORK"
    devtools Network.emulateNetworkConditions '{"offline":false,"latency":0,"downloadThroughput":-1,"uploadThroughput":-1}'
}

offline() {
    devtools Network.emulateNetworkConditions '{"offline":true,"latency":0,"downloadThroughput":-1,"uploadThroughput":-1}'
    stop_nginx
}

# serve: starts the server on $PORT.
serve() {
    "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for answers || broken 'the server starts' "$DIR/stderr"
}

# push NUMBER: sends it to the group.
push() {
    call send_to_group "{'groupName':'news','code':7,'msg':'m','data':$1}" >/dev/null
}

# connect NAME [OPTIONS]: imports the module from the server itself, and connects with it; what it tells is in seen.
connect() {
    page_run "window.link?.close();
        window.seen = { states: [], ids: [], pushes: [], lost: 0, tickets: [] };
        const ticket = async () => (await fetch('/ticket', { method: 'POST' })).text();
        return import('$SCHEME://127.0.0.1:$PORT/wspush.js').then(({ connect }) => {
            window.link = connect({ url: 'http://127.0.0.1:$NETWORK', system: 'shop', ticket, maxWait: 1,
                onpush: ({ code, data }) => code === 7 && seen.pushes.push(data), onlost: () => { seen.lost++; },
                onstate: (state, detail) => { seen.states.push(state + (detail.code ? ' ' + detail.code + ' ' + detail.reason : ''));
                    if (state === 'open') seen.ids.push(detail.clientId); },
                ${1-} });
        })" >/dev/null
}

# sees NAME PUSHES LOST CLIENTS: what has come, how often something was missing, and how many clients the page has been.
sees() {
    page_expect "$1: the pushes" 'return seen.states.at(-1) === "open" && seen.pushes.at(-1) === arguments[0]' "${2##*,}"
    expect "$1: each once, in order; what is missing is told" "[$2] $3 $4" \
        "$(page_run 'return JSON.stringify(seen.pushes) + " " + seen.lost + " " + new Set(seen.ids).size')"
}

start_page() {
    local page
    free_port
    page=http://127.0.0.1:$FREE/wspush.js # of the origin that gives tickets
    env PUSH_PASSWORD=secret PUSH_SYSTEM=shop PUSH_URL="http://127.0.0.1:$PORT" python3 examples/business.py "$FREE" \
        >"$DIR/business.out" 2>"$DIR/business.err" &
    CLIENTS+=("$!")
    wait_for listens "$FREE" || broken 'business.py starts' "$DIR/business.err"
    browser_start
    THROTTLE=1 browser_open
    page_goto "$page"
}

networks() {
    connect
    page_expect 'connected' 'return seen.states.at(-1) === "open"'
    push 1
    sees 'a push' 1 0 1
    offline
    page_expect 'offline: it waits' 'return /^waiting 1006/.test(seen.states.at(-1))'
    push 2
    push 3
    online
    sees 'online again' 1,2,3 0 1
    expect 'nobody has closed anything' 0 "$(grep -c 'closed by the client' "$DIR/log")"
}

# Chromium closes the connections of a page that it suspends, with 1001, which ends the session. The page is told.
suspended() {
    devtools Page.setWebLifecycleState '{"state":"frozen"}'
    push 4
    devtools Page.setWebLifecycleState '{"state":"active"}'
    page_expect 'a suspended page connects again' 'return seen.states.at(-1) === "open" && seen.lost === 1'
    push 5
    sees 'a suspended page' 1,2,3,5 1 2
}

# Chromium does the same with a page that it keeps for the Back button. One from business.py must not be kept.
kept() {
    page_goto "$SCHEME://127.0.0.1:$PORT/wspush.js"
    connect 'ticket: undefined'
    page_expect 'a page that may be kept is connected' 'return seen.states.at(-1) === "open"'
    page_goto "$SCHEME://127.0.0.1:$PORT/healthz"
    driver POST /back '{}' >/dev/null
    page_expect 'it comes back, and is told' 'return seen.states.at(-1) === "open" && seen.lost === 1'
}

hidden() {
    local tab
    tab=$(driver_value GET /window)
    driver POST /window "{\"handle\":$(driver POST /window/new '{"type":"tab"}' | jq .value.handle)}" >/dev/null
    stop_nginx
    push 6
    online
    pause 0.5
    push 7
    driver POST /window "{\"handle\":$(json_text "$tab")}" >/dev/null
    sees 'a hidden page' 1,2,3,5,6,7 1 2
}

# later MILLISECONDS: the page's clock goes on, as it would if it had slept.
later() {
    page_run 'window.ahead = (window.ahead ?? 0) + arguments[0]; window.real ??= Date.now.bind(Date);
        Date.now = () => real() + ahead; dispatchEvent(new Event("pageshow"))' "$1" >/dev/null
}

# The server stands still. The page gives its connection up, and a close frame of that one must not end the session.
silent() {
    freeze "$SERVER"
    later 1000
    later 11000
    page_expect 'silence: a ping has no answer' 'return seen.states.some(each => each === "waiting 1006 no answer to a ping")'
    thaw "$SERVER"
    push 8
    sees 'a server that stood still' 1,2,3,5,6,7,8 1 2
    expect 'the old connection was not closed by the page' 1 "$(grep -c 'closed by the client' "$DIR/log")"
}

restarts() {
    kill_process "$SERVER"
    serve
    page_expect 'a server that was killed' 'return seen.lost === 2 && seen.states.at(-1) === "open"'
    login shop
    push 9
    halt
    serve
    page_expect 'one that was stopped' 'return seen.lost === 3 && seen.states.at(-1) === "open"'
    expect 'it has said so' true "$(page_run 'return seen.states.includes("waiting 1001 going away")')"
    push 10
    offline
    push 11
    online
    sees 'a new session counts from 0' 1,2,3,5,6,7,8,9,10,11 3 4
}

tickets() {
    local expired brief
    expired=$(KEY=$(call ticket_key '{}' | sed 's/.*"key":"\([^"]*\)".*/\1/') node -e '
        const { createHmac } = require("crypto"), b64 = value => Buffer.from(JSON.stringify(value)).toString("base64url");
        const body = b64({ alg: "HS256" }) + "." + b64({ sys: "shop", exp: Math.floor(Date.now() / 1000) - 60 });
        console.log(body + "." + createHmac("sha256", Buffer.from(process.env.KEY, "base64url")).update(body).digest("base64url"));')
    connect "ticket: async () => { seen.tickets.push(Date.now()); return seen.tickets.length < 3 ? '$expired' : ticket(); }"
    page_expect 'an expired ticket: another one' 'return seen.states.at(-1) === "open" && seen.tickets.length === 3'
    expect 'the reason' '["waiting 4401 ticket expired"]' "$(page_run 'return JSON.stringify([...new Set(seen.states.filter(each => /^wait/.test(each)))])')"
    brief=$(call ticket "{'session':1}" | sed 's/.*"ticket":"\([^"]*\)".*/\1/')
    connect "ticket: async () => seen.tickets.push(0) === 1 ? '$brief' : ticket()"
    page_expect 'a session that ends: another one' 'return seen.states.at(-1) === "open" && seen.ids.length === 2 && seen.lost === 1'
    expect 'its reason' true "$(page_run 'return seen.states.includes("waiting 4401 session over")')"
    connect "ticket: async () => { seen.tickets.push(performance.now()); return 'forged'; }, maxWait: 0.1"
    page_expect 'refused ones' 'return seen.tickets.length === 4'
    expect 'come a second apart' true "$(page_run 'return seen.tickets.slice(1).every((each, i) => each - seen.tickets[i] > 950)')"
    connect "ticket: async () => { throw new Error('nobody is logged in'); }"
    page_expect 'none: the reason' 'return seen.states.includes("waiting")'
}

ends() {
    connect
    page_expect 'connected again' 'return seen.states.at(-1) === "open"'
    call close_user "{'userId':'browser','code':4001,'reason':'elsewhere'}" >/dev/null
    page_expect 'close_user is final' 'return seen.states.at(-1) === "closed 4001 elsewhere"'
    connect "system: 'nobody', ticket: undefined"
    page_expect 'so is an unknown system' 'return seen.states.at(-1) === "closed 1008 unknown system"'
    connect
    page_expect 'and again' 'return seen.states.at(-1) === "open"'
    page_run 'link.close()' >/dev/null
    wait_for grep -q 'closed by the client' "$DIR/log"
    expect 'close() ends the session at once' '200 {"code":0,"msg":"success","data":{"count":0,"list":[]}}' \
        "$(wait_for none_online; call get_online_list "{'groupName':'news'}")"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
none_online() {
    [ "$(online_count news)" = 0 ]
}

switched_off
configure $'[console]\nenabled = false'
start
served
vectors node tests/e2e/client_module.mjs "$DIR/wspush.mjs"
sign_up shop
free_port
NETWORK=$FREE
start_page
online
networks
suspended
hidden
silent
restarts
tickets
ends
kept
finish

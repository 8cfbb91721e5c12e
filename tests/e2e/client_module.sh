#!/usr/bin/env bash
# client_module.sh - /wspush.js: what the server sends, and what it does. client_module.mjs runs it with a clock,
# sockets, a page and a server that are made up.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

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

switched_off
configure $'[console]\nenabled = false'
start
served
halt
vectors node tests/e2e/client_module.mjs "$DIR/wspush.mjs"
finish

#!/usr/bin/env bash
# console.sh - the console: GET / on the wire, and the page in a real browser, from registering to what is pushed.
# SHOTS=FOLDER saves pictures of it there: in two widths, light and dark, English and Chinese.
# `tests/e2e/console.sh pictures` makes those of the README instead, in half a minute.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. "$(dirname "$0")/../support/browser_lib.sh"

# --- on the wire ------------------------------------------------------------------------------

# field NAME: prints a header line of the last answer of `get`.
field() {
    tr -d '\r' <"$DIR/headers" | sed -n "s/^$1: //Ip"
}

# get CURL-ARGUMENT...: asks for the page; prints the status.
get() {
    : >"$DIR/page"
    curl -s --compressed --max-time 10 -o "$DIR/page" -D "$DIR/headers" -w '%{http_code}' "$@" "$SCHEME://127.0.0.1:$PORT/"
}

on_the_wire() {
    local tag
    expect 'GET / answers' 200 "$(get)"
    tag=$(field etag)
    expect 'it is the page' 'the same' "$(cmp "$DIR/page" console.html && echo the same)"
    expect 'it is HTML in UTF-8' 'text/html; charset=utf-8' "$(field content-type)"
    expect 'it is compressed' gzip "$(field content-encoding)"
    expect 'its length is said' "$(gzip -9nc <console.html | wc -c)" "$(field content-length)"
    expect 'its type is not to be guessed' nosniff "$(field x-content-type-options)"
    expect 'no address is passed on' no-referrer "$(field referrer-policy)"
    expect 'it is asked for each time' no-cache "$(field cache-control)"
    expect_match 'nothing may come from elsewhere' "default-src 'none'; style-src 'sha256-*='; script-src 'sha256-*=' 'self'; connect-src 'self';*frame-ancestors 'none'*" \
        "$(field content-security-policy)"
    expect 'it is not sent to who has it' '304 0' "$(get -H "If-None-Match: $tag") $(wc -c <"$DIR/page")"
    expect 'HEAD answers without it' "200 $(gzip -9nc <console.html | wc -c)" "$(get -I) $(field content-length)"
    expect 'PUT is not taken' '405 -1 this path takes GET' "$(post / '{}' -X PUT >/dev/null; outcome)"
    expect 'it is said what is' 'GET, HEAD, OPTIONS' "$(field allow)"
    expect 'OPTIONS says it too' '200 GET, HEAD, OPTIONS' "$(get -X OPTIONS) $(field allow)"
}

switched_off() {
    configure $'[console]\nenabled = false'
    start
    expect 'a console that is off is not there' '404 {"code":-1,"msg":"unknown path","data":[]}' "$(get) $(cat "$DIR/page")"
    halt
}

# --- the page ---------------------------------------------------------------------------------

# answers_shown: how many.
answers_shown() {
    page_run 'return document.querySelectorAll("#answers > div").length'
}

# mark, answered: waits for an answer that was not there at the mark. The page keeps the last thirty.
mark() {
    page_run 'window.latest = document.querySelector("#answers > div")' >/dev/null
}

answered() {
    page_wait 'return document.querySelector("#answers > div") !== window.latest'
}

# try CALL [FIELD TEXT]...: makes a call with the form, and prints the answer's body as it is shown.
try() {
    mark
    page_click "#kinds input[value=$1]"
    shift
    while [ $# -gt 0 ]; do
        page_type "#$1" "$2"
        shift 2
    done
    page_click '#call .main'
    answered
    page_run 'return document.querySelector("#answers pre.body")?.textContent'
}

# shown SELECTOR: prints the text of the first such element, in the answers the latest, byte for byte.
shown() {
    page_run 'return document.querySelector(arguments[0]).textContent' "$(json_text "$1")"
}

# frames_of NUMBER COUNT: waits until the NUMBERth client shows COUNT frames, and prints the last one.
frames_of() {
    page_wait 'return document.querySelectorAll("#cards > :nth-child(" + arguments[0] + ") .frame").length >= arguments[1]' "$1" "$2"
    page_run 'const f = document.querySelectorAll("#cards > :nth-child(" + arguments[0] + ") .frame");
        return f.length + " " + (f[f.length - 1]?.textContent ?? "")' "$1"
}

id_of() {
    shown "#cards > :nth-child($1) .id"
}

inside() {
    page_wait 'return !document.getElementById("in").hidden'
}

# too_wide: prints by how much the page is wider than the screen.
too_wide() {
    page_run 'return document.documentElement.scrollWidth - arguments[0] + innerWidth - arguments[0]' "$1"
}

# Prints what is hard to read: text whose contrast with what is behind it is below 4.5 (WCAG 2, 1.4.3).
faint='
    const parse = text => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
    return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest("button:disabled, script") &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).filter(e => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
        }).map(e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 30)).join("; ")'

# looks NAME: tests what the page looks like now, in both widths and both schemes, and takes the pictures.
looks() {
    local scheme
    for scheme in light dark; do
        page_scheme $scheme
        expect "$1: the text can be read, $scheme" '' "$(page_run "$faint")"
        [ $scheme = dark ] || expect "$1: axe-core finds nothing" '' "$(page_axe)"
        [ -z "${SHOTS-}" ] || page_shot "$SHOTS/$1-desktop-$scheme.png"
    done
    expect "$1: dark is dark" '' "$(page_run 'return getComputedStyle(document.body).backgroundColor.match(/\d+/g).filter(c => c > 60).join()')"
    page_size 375 812 phone
    expect "$1: nor on a phone in the dark" '' "$(page_axe)"
    for scheme in light dark; do
        [ -n "${SHOTS-}" ] || continue
        page_scheme $scheme
        page_shot "$SHOTS/$1-phone-$scheme.png" whole
    done
    page_size 360 740 phone
    expect "$1: it fits a phone" 0 "$(too_wide 360)"
    page_size 1280 900
    page_scheme light
    expect "$1: it fits a desktop" 0 "$(too_wide 1280)"
}

unlabelled='return [...document.querySelectorAll("input, textarea")].filter(e => !e.labels.length && !e.ariaLabel).length +
    [...document.querySelectorAll("button")].filter(e => !e.textContent).length + [...document.querySelectorAll("svg")].filter(e => !e.ariaLabel && !e.ariaHidden).length'

# strangers: prints the addresses asked for since the last time that are not this server's.
strangers() {
    page_log performance | grep -v -e "^$SCHEME://127\.0\.0\.1:$PORT/" -e "^${SCHEME/http/ws}://127\.0\.0\.1:$PORT/"
}

signing_in() {
    page_goto "http://127.0.0.1:$PORT/"
    expect 'the page is in English' 'en Push to browsers, from here' "$(page_run 'return document.documentElement.lang') $(page_text h2)"
    expect 'everything has a name' 0 "$(page_run "$unlabelled")"
    looks signed-out-en
    expect 'who is new is offered to register' 'Register, Log in; Register a system: any name, any password.' \
        "$(page_text '#first'), $(page_text '#other'); $(page_text '#step1')"
    page_type '#name' shop
    page_type '#password' "it's \"hush\""
    page_click '[value=login]'
    page_expect 'a wrong login is told, and what may be the reason' 'return document.getElementById("loginSaid").textContent === arguments[0]' \
        '"HTTP 200 · code -1005 · wrong systemId or password. Is the name new? Then register it."'
    page_keys "$KEY_ENTER"
    inside
    expect 'a system is registered and logged in' 'false shop' "$(page_run 'return document.getElementById("in").hidden') $(page_text '#system')"
    expect 'its password is nowhere on the page' 'false false' "$(page_run 'return [/hush/.test(document.body.textContent),
        [...document.querySelectorAll("input")].some(e => /hush/.test(e.value))].join(" ")')"
    expect 'nor is its token' false "$(page_run 'return document.documentElement.outerHTML.includes(token)')"
    expect 'nor is either in what the browser keeps, but for the token in this tab' '0 wspush ["shop",token] ' \
        "$(page_run 'return [localStorage.length, Object.keys(sessionStorage), sessionStorage.wspush.replace(JSON.stringify(token), "token"), document.cookie].join(" ")')"
    page_click '#call .main'
    expect 'a call that needs a client says so' 'Connect a client first. connect' "$(page_text '#said') $(page_run 'return document.activeElement.id')"
    looks logged-in-en
    page_goto "http://127.0.0.1:$PORT/"
    expect 'a reload stays logged in' 'false shop' "$(page_run 'return document.getElementById("in").hidden') $(page_text '#system')"
    page_expect 'the server says how many are online' 'return /^0\nonline\n0\nonline in orders$/.test(document.getElementById("server").innerText.replace(/\n+/g, "\n"))'
}

# paste: prints what the clipboard has, by way of a field.
paste() {
    page_type '#data' ''
    page_click '#data'
    page_keys v "$KEY_CONTROL"
    page_run 'return document.getElementById("data").value'
}

NOTICE='{"code":1001,"msg":"client online","data":{"clientId":"%s","userId":"%s","extend":"%s","groupName":"orders"}}'
GOOD='{"code":0,"msg":"success","data":[]}'

binding() {
    page_click '#connect'
    page_click '#connect'
    frames_of 2 1 >/dev/null
    expect_match 'a client shows its first frame' "1 {\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$(id_of 1)\",\"resume\":*}}" "$(frames_of 1 1)"
    FIRST=$(id_of 1)
    SECOND=$(id_of 2)
    expect 'each client has an id of its own' different "$([ "$FIRST" = "$SECOND" ] || echo different)"
    expect 'both are open' 'open open' "$(page_run 'return [...document.querySelectorAll(".state")].map(e => e.textContent).join(" ")')"
    expect 'one is bound' "$GOOD" "$(try bind_to_group clientId "$FIRST" groupName orders userId anna extend '<i>x</i>')"
    # shellcheck disable=SC2059 # it is a format
    expect 'its notice is shown' "2 $(printf "$NOTICE" "$FIRST" anna '<i>x</i>')" "$(frames_of 1 2)"
    expect 'the other one is bound' "$GOOD" "$(try bind_to_group clientId "$SECOND" userId ben extend '')"
    # shellcheck disable=SC2059
    expect 'the notice reaches both' "3 $(printf "$NOTICE" "$SECOND" ben '') 2" "$(frames_of 1 3) $(frames_of 2 2 | cut -d ' ' -f 1)"
    page_expect 'the server counts them' 'return document.querySelector("#server").innerText.replace(/\s+/g, " ") === "2 online 2 online in orders"'
    expect 'beside those of this page' 'On the server, In this page' "$(page_run 'return [...document.querySelectorAll("#numbers h2")].map(e => e.textContent).join(", ")')"
}

# What JSON.parse and a number of JavaScript would not leave as it is.
MSG="it's <b>\"bold\"</b> \\ ü 中 \$HOME \`id\`"
DATA='{"n":123456789012345678901234567890,"f":1.0,"e":1e400,"u":"\u0041","t":"</script><img src=x onerror=document.title=1>","q":"it'\''s"}'
PUSHED="{\"code\":9223372036854775807,\"msg\":\"it's <b>\\\"bold\\\"</b> \\\\ ü 中 \$HOME \`id\`\",\"data\":$DATA"

# receipt ID COUNT [FIELDS]: the answer to a send, with what stands before the receipt.
receipt() {
    printf '{"code":0,"msg":"success","data":{%s"messageId":"%s","matched":%s,"queued":%s,"dropped":0}}' \
        "${3-}" "$1" "$2" "$2"
}

sending() {
    local line copied
    page_click '#kinds input[value=send_to_client]'
    page_click '#receipt'
    expect 'a client is sent to, with every field' "$(receipt "m-'1'" 1)" \
        "$(try send_to_client clientId "$FIRST" code 9223372036854775807 msg "$MSG" data "$DATA" sendUserId boss messageId "m-'1'")"
    expect 'it gets each byte' "4 $PUSHED,\"sendUserId\":\"boss\",\"messageId\":\"m-'1'\"}" "$(frames_of 1 4)"
    expect 'the last answer is said below the form' 'HTTP 200 · code 0 · success' "$(page_text '#said')"

    line=$(shown '#answers pre.curl')
    expect 'as are the data that it brought' "{ \"messageId\": \"m-'1'\", \"matched\": 1, \"queued\": 1, \"dropped\": 0 }" \
        "$(page_run 'return document.getElementById("result").textContent.replace(/\s+/g, " ")')"
    page_click '#answers button'
    expect 'it is said that the curl line is copied' 'Copied' "$(shown '#answers button')"
    copied=$(paste)
    expect 'it is' "$line" "$copied"
    expect_match 'it has the token as a variable' "curl http://127.0.0.1:$PORT/api/send_to_client -H \"Token: \$TOKEN\" -d '*" "$line"
    # away from https and this machine there is no clipboard for scripts
    page_run 'Object.defineProperty(navigator, "clipboard", { value: undefined })' >/dev/null
    page_click '#token'
    copied=$(paste)
    expect_match 'the token can be copied for the shell, also where browsers make it hard' 'TOKEN=*.*.*' "$copied"
    expect 'the curl line does the same' "$(receipt "m-'1'" 1)" "$(
        export "${copied?}"
        bash -c "curl() { command curl -s --max-time 10 \"\$@\"; }; $line" 2>&1
    )"
    expect 'it reaches the client' "5 $PUSHED,\"sendUserId\":\"boss\",\"messageId\":\"m-'1'\"}" "$(frames_of 1 5)"
    TOKEN=${copied#TOKEN=}

    page_click '#kinds input[value=send_to_clients]'
    page_click '#cards > :nth-child(2) button'
    page_click '#cards > :nth-child(1) button'
    expect 'ids are put into the form' "$SECOND $FIRST" "$(page_run 'return document.getElementById("clientIds").value')"
    expect 'several clients are sent to' "$(receipt m2 2 '"failed":[],')" "$(try send_to_clients code -1 msg '' data '[]' sendUserId '' messageId m2)"
    expect 'both get it' '6 {"code":-1,"msg":"","data":[],"messageId":"m2"}' "$(frames_of 1 6)"
    expect 'and the other one' '3 {"code":-1,"msg":"","data":[],"messageId":"m2"}' "$(frames_of 2 3)"
    expect 'a group is sent to but for one' "$(receipt m3 1)" \
        "$(try send_to_group groupName orders exclude "$SECOND" code 7 msg g data ' null ' messageId m3)"
    expect 'a user is sent to' "$(receipt m4 1)" "$(try send_to_user userId ben data '"u"' messageId m4)"
    expect 'it has the one, not the other' '4 {"code":7,"msg":"g","data":"u","messageId":"m4"}' "$(frames_of 2 4)"
    page_click '#receipt'
    expect 'a system is sent to' "$GOOD" "$(try send_to_system data true messageId '')"
    expect 'no data, no block for them' true "$(page_run 'return document.getElementById("result").hidden')"
    expect 'all of it gets it' '8 {"code":7,"msg":"g","data":true}' "$(frames_of 1 8)"
    expect 'and the other' '5 {"code":7,"msg":"g","data":true}' "$(frames_of 2 5)"
    # the last that the first one got but this
    expect 'what was not for all' '{"code":7,"msg":"g","data":null,"messageId":"m3"}' \
        "$(page_run 'return document.querySelectorAll("#cards > :nth-child(1) .frame")[6].textContent.replace(/\s/g, "")')"
}

refusing() {
    local before
    before=$(answers_shown)
    page_type '#data' $'{"a": 1,\n "b": }'
    page_click '#call .main'
    expect_match 'data that is no JSON is not sent' 'data is not JSON: *}*' "$(page_text '#said')"
    expect 'the field says so' 'true data' "$(page_run 'return document.getElementById("data").ariaInvalid + " " + document.activeElement.id')"
    page_type '#data' '1'
    page_type '#code' '1.0'
    page_click '#call .main'
    expect 'nor a code that is no integer' 'code must be an integer' "$(page_text '#said')"
    page_type '#code' 0
    expect 'no call was made' "$before" "$(answers_shown)"
    expect 'data may be as deep as the server takes it' "$GOOD" \
        "$(try send_to_client clientId "$FIRST" data "$(printf '[%.0s' {1..63})$(printf ']%.0s' {1..63})")"
    expect 'what the server refuses is told' '{"code":-1003,"msg":"client not online","data":[]}' "$(try send_to_client clientId nobody)"
    expect_match 'in red, with its words' 'HTTP 200 · code -1003 · * no' "$(page_text '#said') $(page_run 'return document.getElementById("said").className.slice(-2)')"
    expect 'of the badges only that of the code' 'badge soft, badge no' "$(page_run 'return [...document.querySelectorAll("#answers > :first-child .badge")].map(e => e.className).join(", ")')"
    page_type '#clientId' "$FIRST"
}

# card NUMBER SELECTOR: a part of the NUMBERth client's card.
card() {
    echo "#cards > :nth-child($1) $2"
}

viewing() {
    page_type '#filter' 'OFFLINE'
    expect 'frames can be filtered' 0 "$(page_run 'return [...document.querySelectorAll(".frame")].filter(e => e.checkVisibility()).length')"
    page_type '#filter' '123456789012345678901234567890'
    page_click '#pretty'
    expect 'and printed with a line for each value, without a change to any' "{
  \"code\": 9223372036854775807," "$(page_run 'return [...document.querySelectorAll(".frame")].find(e => e.checkVisibility()).textContent.split("\n").slice(0, 2).join("\n")')"
    # shellcheck disable=SC2016 # a script of the page
    expect 'which is the same JSON' true "$(page_run 'return [...document.querySelectorAll(".frame")].every(e =>
        indent(e.raw).replace(/\n */g, "").replace(/": /g, "\":") === e.raw.replace(/\n */g, "").replace(/([,:]) (?=["\d])/g, "$1"))')"
    page_click '#pretty'
    page_click "$(card 1 'button:nth-of-type(2)')"
    expect 'the frames to be seen can be copied' "$(page_run 'return [...document.querySelectorAll("#cards > :first-child .frame")].map(e => e.raw).filter(text => text.includes("123456789012345678901234567890")).join(" ")')" \
        "$(paste | tr '\n' ' ' | sed 's/ $//')"
    page_type '#filter' ''
    expect 'without a filter all are back' true "$(page_run 'return [...document.querySelectorAll(".frame")].every(e => e.checkVisibility())')"
    page_type '#data' 1
}

# The code that the page gives for a language, with the present call in it.
code_for() {
    page_click "#langs input[value=$1]"
    page_run 'return document.getElementById("snippet").innerText'
}

# run_code LANGUAGE COMMAND...: the code for it is run, and prints the answer to its call.
run_code() {
    local language=$1
    shift
    code_for "$language" >"$DIR/push.mjs"
    (
        # in JSON, which a shell puts it into as it is
        export PASSWORD="it's $([ "$language" = curl ] && echo '\"hush\"' || echo '"hush"')" PYTHONPATH=$PWD/.tools/pypi PYTHONUNBUFFERED=1
        timeout 20 "$@" >"$DIR/code" 2>&1 &
        for _ in {1..500}; do
            sleep 0.02
            ! grep -q -e success -e rror "$DIR/code" || break
        done
        kill $! 2>/dev/null
        wait $!
    ) 2>/dev/null
    cat "$DIR/code"
}

coding() {
    local before language command body
    page_click '#yours summary'
    page_click '#kinds input[value=send_to_group]'
    page_type '#exclude' ''
    page_type '#msg' "it's"
    page_type '#data' '{"n": 123456789012345678901234567890}'
    page_click '#kinds input[value=send_to_system]'
    body='{"code":0,"msg":"it'\''s","data":{"n": 123456789012345678901234567890}}'
    for language in Browser curl Node Python PHP; do
        expect "the code for $language has this server, this system and this call, and no password" '' "$(code_for $language |
            awk -v port="127.0.0.1:$PORT" -v what=$language '{ all = all $0 } END { if (!index(all, port) || !index(all, "shop")) print "not this server"
                if (what != "Browser" && (!index(all, "send_to_system") || !index(all, "123456789012345678901234567890"))) print "not this call"
                if (index(all, "hush") || index(all, TOKEN)) print "a secret" }' TOKEN="$TOKEN")"
    done
    command=$(shown '#snippet')
    page_click '#copyCode'
    expect 'it can be copied' "$command" "$(paste)"
    page_type '#data' '{"n": 123456789012345678901234567890}'
    while read -r language command; do
        command -v "$command" >/dev/null || { echo "     $language is left out: no $command" && continue; }
        before=$(page_run 'return document.querySelectorAll("#cards > :first-child .frame").length')
        expect_match "the code for $language runs" '*success*' "$(run_code "$language" "$command" "$DIR/push.mjs")"
        expect "what it pushes arrives ($language)" "$((before + 1)) $body" "$(frames_of 1 $((before + 1)))"
    done <<'LANGUAGES'
curl bash
Python /usr/bin/python3
PHP php
LANGUAGES
    page_click '#yours summary'
    page_type '#msg' hello
}

managing() {
    local gone nasty="<img src=x onerror=\"document.title='hacked'\">"
    expect_match 'a client is told about' '{"code":0,"msg":"success","data":{"clientId":"'"$FIRST"'","userId":"anna","extend":"<i>x</i>","groups":\["orders"],*' \
        "$(try client_info clientId "$FIRST")"
    expect_match 'below the button too' '*"userId": "anna",*' "$(page_text '#result')"
    expect 'a group is listed' '2 true' "$(try get_online_list groupName orders |
        jq -r --arg a "$FIRST" --arg b "$SECOND" '"\(.data.count) \((.data.list | sort) == ([$a, $b] | sort))"')"
    expect 'one is unbound' "$GOOD" "$(try unbind_from_group clientId "$SECOND" groupName orders)"
    expect_match 'the others are told' '* {"code":1002,"msg":"client offline","data":{"clientId":"'"$SECOND"'",*' "$(frames_of 1 10)"
    expect 'a group may have any name' "$GOOD" "$(try bind_to_group clientId "$FIRST" groupName "$nasty" userId '' extend '')"
    expect 'which is shown as it is' "$(json_text "$nasty")" \
        "$(shown '#answers pre.curl' | sed "s/'\\\\''/'/g; s/.*groupName\":\(.*\)}'$/\1/")"
    expect 'nothing of all this has come to life' '1 0 wspush console' "$(page_run 'return [document.images.length,
        document.querySelectorAll("main b *, main i *, .frame *, pre *").length, document.title].join(" ")')"
    expect 'a client is closed' "$GOOD" "$(try close_client clientId "$SECOND" closeCode 3001 reason 'bye <b>now</b>')"
    page_expect 'with code and reason' 'return document.querySelector("#cards > :nth-child(2) .frames p:last-child")?.textContent.endsWith("Closed: 3001 bye <b>now</b> A code from close_client.")'
    gone=$(page_run 'return document.querySelectorAll("#cards > :nth-child(2) .frame").length')
    page_click '#cards > :nth-child(2) button:nth-of-type(3)'
    expect 'a closed one is removed' 1 "$(page_run 'return document.querySelectorAll("#cards > *").length')"
    expect 'none is left to be cleared' false "$(page_run 'return document.getElementById("clear").checkVisibility()')"
    page_click '#connect'
    frames_of 2 1 >/dev/null
    page_click '#cards > :nth-child(2) button:nth-of-type(3)'
    expect 'the last answer is still said' 'HTTP 200 · code 0 · success' "$(page_text '#said')"
    page_expect 'a client can close itself' 'return document.querySelector("#cards > :nth-child(2) .frames b")?.textContent === "Closed: 1000"'
    page_expect 'the figures are right' 'return ["open", "total"].map(id => document.getElementById(id).textContent).join(" ") ===
        "1 " + (document.querySelectorAll(".frame").length + arguments[0])' "$gone" # those of the client removed
    page_expect 'and drawn' 'return /M[\d.]+ 40v-\d+h/.test(document.querySelector("#chart path").getAttribute("d")) &&
        new Set(document.querySelector("#chart .line").getAttribute("d").match(/ [\d.]+/g)).size > 1'
    looks at-work-en
    expect 'nothing is wrong in the console' '' "$(page_log browser)"
    expect 'nobody else was asked' '' "$(strangers)"
}

# told PATH: what the receiver of events tells.
told() {
    curl -s --max-time 10 "http://127.0.0.1:$RECEIVER$1"
}

# set_hook [URL]: sets the webhook by the form, and prints what is said.
set_hook() {
    mark
    [ $# = 0 ] || page_type '#url' "$1"
    page_click '#hookForm .main'
    answered
    page_wait 'return document.getElementById("hookSaid").textContent !== ""'
    page_text '#hookSaid'
}

state() {
    page_expect "$1" 'return document.getElementById("hookState").textContent === arguments[0]' "$(json_text "$2")"
}

hooking() {
    local secret
    free_port
    RECEIVER=$FREE
    python3 -B tests/support/receiver.py "$RECEIVER" "$PORT" 2>"$DIR/receiver.err" &
    CLIENTS+=($!)
    wait_for listens "$RECEIVER"
    told "/setup?token=$TOKEN&unsigned=1" >/dev/null
    page_click '#hook summary'
    state 'there is no webhook' off
    expect 'a receiver must be allowed' "HTTP 400 · code -1 · field url must be empty: [webhook] allow names no receivers" \
        "$(set_hook "http://127.0.0.1:$RECEIVER/hook?x")"
    expect 'it is said how' "The operator allows it in config.ini: under [webhook], allow = http://127.0.0.1:$RECEIVER/. Then: kill -HUP the server." \
        "$(page_text '#allow')"
    printf '[webhook]\nallow = http://127.0.0.1:%s/\n' "$RECEIVER" >>"$DIR/config.ini"
    kill -HUP "$SERVER"
    wait_for grep -q 'configuration has been read again' "$DIR/log"
    page_click '#events label:nth-of-type(5) input'
    expect 'so it is' 'HTTP 200 · code 0 · success' "$(set_hook)"
    expect 'no more has to be done' false "$(page_run 'return document.getElementById("allow").checkVisibility()')"
    secret=$(page_text '#secret')
    expect_match 'the secret is told' 'whsec_*=' "$secret"
    expect 'but not by the answers' '{"code":0,"msg":"success","data":{"secret":"…"}}' "$(shown '#answers pre.body')"
    page_click '#copySecret'
    page_click '#kinds input[value=send_to_system]'
    expect 'it can be copied' "$secret" "$(paste)"
    page_click '#kinds input[value=close_client]'
    told "/setup?token=$TOKEN&secret=${secret//+/%2B}" >/dev/null
    state 'the webhook is on' "on; 127.0.0.1:$PORT: queued 0, lost 0"
    told '/status?code=500' >/dev/null
    page_click '#connect'
    page_expect 'a delivery that fails is seen' 'const [row] = document.querySelectorAll("#deliveries tr"); return row?.cells[1].textContent === "500" &&
        row.cells[1].firstChild.className === "no" && +row.cells[3].textContent > 1 && /^20..-..-.. ..:..:..$/.test(row.cells[0].textContent)'
    told '/status?code=200' >/dev/null
    page_expect 'and that it is repeated' 'const [row] = document.querySelectorAll("#deliveries tr"); return row.cells[1].textContent === "200" &&
        row.cells[1].firstChild.className === "ok" && row.cells[2].textContent === "1" && row.cells[3].textContent > 2'
    expect 'the receiver knows the client, and the secret' "$(id_of 3) " "$(told /model | grep -x "$(id_of 3)") $(told /wrong)"
    looks webhook-en
    page_click '#hook summary'
    page_click '#hook summary'
    page_expect 'what is set is in the form, but for the secret' 'return document.getElementById("url").value === arguments[0] && document.getElementById("secret").textContent === "" &&
        document.querySelectorAll("[name=event]:checked").length === 5' "$(json_text "http://127.0.0.1:$RECEIVER/hook?x")"
    page_click '#rotate'
    page_click '#events label:nth-of-type(1) input'
    set_hook >/dev/null
    expect 'a new secret is another one' whsec_ "$(page_text '#secret' | grep -vxF "$secret" | cut -c 1-6)"
    expect 'once' false "$(page_run 'return document.getElementById("rotate").checked')"
    expect 'no other events are sent' '["disconnect","join","leave","message"]' "$(post /api/webhook_status '{}' | jq -c .data.events)"
    set_hook '' >/dev/null
    state 'it can be switched off' off
    expect 'then there is no secret' false "$(page_run 'return document.getElementById("kept").checkVisibility()')"
    expect 'nothing was wrong with it' '' "$(told /wrong)$(cat "$DIR/receiver.err")$(page_log browser | grep -v 'set_webhook.*status of 400')"
    page_click '#hook summary'
    page_click '#cards > :nth-child(3) button:nth-of-type(3)'
    page_expect 'its client goes' 'return document.querySelectorAll(".state.ok").length === 1'
    page_click '#cards > :nth-child(3) button:nth-of-type(3)'
}

# again [SECTION-TEXT]: starts the server on the same port.
again() {
    configure "${1-}"
    "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for answers
}

stopping() {
    halt
    page_expect 'a server that stops is missed' 'return document.getElementById("banner").textContent === "The server does not answer." &&
        !document.getElementById("banner").hidden'
    expect_match 'its clients know why' '*Broken: 1001 going away The server stops, or *' "$(shown '#cards > :nth-child(1) .frames p:last-child')"
    page_click '#call .main'
    page_expect 'so does who calls' 'return document.getElementById("said").textContent === "The server does not answer."'
    again $'[common]\ncrypto_key = abcdefghijklmnop\n[resume]\nframes = 4'
    page_expect 'its return is seen' 'return document.getElementById("banner").textContent === "The server is back."'
    page_expect 'so is that the token is good no more' 'return document.getElementById("loginSaid").textContent === "The token is no longer good. Log in again." &&
        document.activeElement.id === "password"'
    expect 'nothing but that is wrong in the console' '' "$(page_log browser | grep -v -e ERR_CONNECTION_REFUSED -e 'status of 401')"
    expect 'it is to be a login, for the name is known' 'Log in, Register; Log in: this name is registered.' \
        "$(page_text '#first'), $(page_text '#other'); $(page_text '#step1')"
    page_keys "wrong$KEY_ENTER"
    page_expect 'another password is not taken' 'return /-1005/.test(document.getElementById("loginSaid").textContent)'
    page_type '#password' "it's \"hush\""
    page_keys "$KEY_ENTER"
    inside
    expect 'behind a login no error is left' ',false' "$(page_run 'return [document.getElementById("said").textContent, !document.getElementById("result").hidden].join()')"
    page_expect 'clients come back by themselves; with another key of the server as new ones' 'const [card] = document.getElementById("cards").children;
        return card.querySelector(".state").textContent === "open" && card.textContent.includes("Back as a new client. What was sent meanwhile is lost.")'
    expect 'each with its id' "$(page_run 'return JSON.parse([...document.querySelectorAll("#cards > :first-child .frame")].pop().raw).data.clientId')" "$(id_of 1)"
    page_click '#clear'
    expect 'dead clients can be cleared' 1 "$(page_run 'return document.querySelectorAll("#cards > *").length')"
    page_click '#connect'
    page_expect 'all is well behind a login' 'return document.querySelector("#cards > :last-child .state").textContent === "open"'
    page_type '#clientId' "$(id_of 2)"
    page_run 'token = "forged"; document.getElementById("call").requestSubmit()' >/dev/null
    page_expect 'a token may be over' 'return !document.getElementById("out").hidden'
    page_keys "it's \"hush\"$KEY_ENTER"
    inside
    expect 'the clients are still there' open "$(page_text "$(card 2 .state)")"
    page_log browser >/dev/null
    expect 'and are sent to' "$GOOD" "$(try send_to_client data 5)"
    expect 'as before' '2 {"code":0,"msg":"hello","data":5}' "$(frames_of 2 2)"
}

# The line of the second client is cut and mended.
cutting() {
    local id
    id=$(id_of 2)
    page_click "$(card 2 'button:nth-of-type(4)')"
    page_expect 'a line can be cut' 'return document.querySelector("#cards > :nth-child(2) .frames p:last-child").textContent.endsWith("Broken: 1006 the connection broke ")'
    expect 'it can be sent to all the same' "$GOOD$GOOD" "$(try send_to_client data 6)$(try send_to_client data 7)"
    expect 'it hears nothing' 2 "$(frames_of 2 2 | cut -d ' ' -f 1)"
    looks cut-en
    page_click "$(card 2 'button:nth-of-type(4)')"
    page_expect 'mended, it says what it is sent again' 'return [...document.querySelectorAll("#cards > :nth-child(2) .frames p")].some(e => e.textContent.endsWith("Back; frames sent again: 2"))'
    expect 'all of it' '5 {"code":0,"msg":"hello","data":7}' "$(frames_of 2 5)"
    expect 'to the same client' "$id open" "$(id_of 2) $(page_text "$(card 2 .state)")"
    page_click "$(card 2 'button:nth-of-type(4)')"
    TOKEN=$(page_run 'return token')
    for _ in {1..5}; do
        call send_to_client "{'clientId':'$id','code':0,'msg':'','data':[]}" >/dev/null
    done
    page_click "$(card 2 'button:nth-of-type(4)')"
    page_expect 'when it is too much, it says what is lost' 'return [...document.querySelectorAll("#cards > :nth-child(2) .frames p")].some(e => e.textContent.endsWith("Back; frames lost: 5"))'
    expect 'the client is the same, still' "$id" "$(id_of 2)"
    page_click "$(card 2 'button:nth-of-type(4)')"
    page_click "$(card 2 'button:nth-of-type(3)')"
    # shellcheck disable=SC2317,SC2329 # called by wait_for
    is_gone() { [[ $(call client_info "{'clientId':'$1'}") == *'"code":-1003,'* ]]; }
    wait_for is_gone "$id"
    expect 'closed while its line is cut, it is gone' gone "$(is_gone "$id" && echo gone)"
}

# On a phone.
phone() {
    page_size 375 812 phone
    expect 'the form comes first' true "$(page_run 'const y = id => document.getElementById(id).getBoundingClientRect().top; return y("call") < y("numbers") && y("numbers") < y("cards")')"
    page_click '#connect'
    page_click '#connect'
    page_wait 'return document.querySelectorAll("#cards > *").length >= 3'
    expect 'the newest client is unfolded, the others are folded' ' open' "$(page_run 'return [...document.querySelectorAll("#cards > *")].slice(-2).map(e => e.open ? "open" : "").join(" ")')"
    page_click '#cards > :last-child summary'
    expect 'it can be folded too' 0 "$(page_run 'return document.querySelectorAll("#cards > [open]").length')"
    page_click '#cards > :last-child summary'
    page_size 1280 900
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
left() {
    [ "$(grep -c 'reason="closed by the client"' "$DIR/log")" = "$1" ]
}

# Who logs in next sees nothing of the one before.
leaving() {
    local gone
    gone=$(grep -c 'reason="closed by the client"' "$DIR/log")
    page_click '#logout'
    expect 'who logs out can log in' 'password true' "$(page_run 'return document.activeElement.id + " " + document.getElementById("in").hidden')"
    wait_for left $((gone + 3))
    expect 'the clients that were open go' $((gone + 3)) "$(grep -c 'reason="closed by the client"' "$DIR/log")"
    page_type '#name' another
    page_type '#password' secret
    page_click '[value=register]'
    inside
    expect 'there is nothing of the one before' '0 2  orders' "$(page_run 'return [document.querySelectorAll("#cards > *").length,
        document.querySelectorAll("#answers > div").length, document.getElementById("clientId").value, document.getElementById("groupName").value].join(" ")')"
    expect 'nor of its clients' 'No clients yet. A ticket says who one is.' "$(page_text '#noClient')"
    page_click '#logout'
    page_goto "http://127.0.0.1:$PORT/"
    expect 'who has logged out stays so' 'true null' "$(page_run 'return [document.getElementById("in").hidden, sessionStorage.wspush].join(" ")')"
    page_type '#name' another
    page_type '#password' wrong
    page_click '[value=register]'
    page_expect 'a name that is taken is told' 'return document.getElementById("loginSaid").textContent === "This name is registered, with another password."'
    expect 'the first step is now to log in' 'Log in; Log in: this name is registered.' "$(page_text '#first'); $(page_text '#step1')"
    page_goto "http://127.0.0.1:$PORT/"
    page_type '#name' another
    page_type '#password' secret
    page_keys "$KEY_ENTER"
    inside
    expect 'who registers a name of their own again is logged in' 'code -1004, code 0' "$(page_run 'return [...document.querySelectorAll("#answers .badge:nth-of-type(2)")].map(e => e.textContent).reverse().join(", ")')"
    page_click '#logout'
}

# Every place that Tab leads to, in order: what it is, and whether it is seen.
keyboard() {
    local stops='' place i
    page_goto "http://127.0.0.1:$PORT/"
    page_keys "keys${KEY_TAB}secret$KEY_TAB$KEY_TAB$KEY_ENTER"
    inside
    expect 'one registers by keyboard' connect "$(page_run 'return document.activeElement.id')"
    page_keys "$KEY_ENTER"
    frames_of 1 1 >/dev/null
    for i in {1..27}; do
        page_keys "$KEY_TAB"
        place=$(page_run 'const e = document.activeElement, seen = getComputedStyle(e.type === "radio" ? e.nextSibling : e);
            return (e.id || e.value || e.className || e.tagName) + (e !== document.body && seen.outlineStyle === "none" || e !== document.body && parseInt(seen.outlineWidth) < 1 ? " unseen" : "")')
        stops+=" $place"
    done
    expect 'Tab leads everywhere, and it is seen' \
        ' filter pretty SUMMARY frames small small small small SUMMARY SUMMARY SUMMARY small small small BODY token logout language send_to_client clientId code msg data sendUserId messageId receipt once' "$stops"
    page_keys "$KEY_TAB$KEY_ENTER"
    expect 'a call is made' '2 {"code":0,"msg":"hello","data":{"orderId": 1042, "state": "paid"}}' "$(frames_of 1 2)"
    page_click '#kinds input[value=send_to_client]'
    page_keys "$KEY_RIGHT$KEY_RIGHT$KEY_RIGHT$KEY_RIGHT"
    expect 'the arrows choose another' 'POST /api/send_to_system' "$(page_text '#path')"
    page_keys "${KEY_TAB}9${KEY_TAB}all$KEY_ENTER"
    expect 'Enter sends' '3 {"code":9,"msg":"all","data":{"orderId": 1042, "state": "paid"}}' "$(frames_of 1 3)"
    page_click '#data'
    page_keys "$KEY_ENTER" "$KEY_CONTROL"
    expect 'and with Control where there are lines' 4 "$(frames_of 1 4 | cut -d ' ' -f 1)"
}

# The ticket's user and groups; `keyboard` has a client there.
ticketed() {
    page_type '#asUser' anna
    page_type '#asGroups' "vip, orders"
    page_keys "$KEY_ENTER"
    frames_of 2 3 >/dev/null
    expect_match 'a client has the user of its ticket' "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"$(id_of 2)\",\"userId\":\"anna\",*}}" \
        "$(page_run 'return document.querySelector("#cards > :nth-child(2) .frame").textContent')"
    expect 'it is in the groups of its ticket' 'orders vip' "$(page_run 'return [...document.querySelectorAll("#cards > :nth-child(2) .frame")].slice(1)
        .map(e => JSON.parse(e.raw).data.groupName).sort().join(" ")')"
    expect 'the call for a ticket is shown, the ticket is not' '/api/ticket {"code":0,"msg":"success","data":{"ticket":"…","expiresIn":60}} true' \
        "$(shown '#answers b' | sed 's,^,/api/,') $(shown '#answers pre.body') $(page_run 'return document.querySelector("#answers .curl").textContent.endsWith(`-d \x27{"userId":"anna","groups":["vip","orders"]}\x27`)')"
    page_expect 'the server counts it' 'return document.getElementById("server").innerText.replace(/\s+/g, " ") === "2 online 1 online in vip 1 online in orders"'
    expect 'the user has a client' '{"code":0,"msg":"success","data":{"closed":1}}' "$(try close_user userId anna closeCode 4000)"
    page_expect 'which is closed' 'return document.querySelector("#cards > :nth-child(2) .frames p:last-child").textContent.includes("Closed: 4000")'
}

chinese() {
    browser_open zh-CN
    page_size 1280 900
    page_goto "$SCHEME://127.0.0.1:$PORT/"
    expect 'the page is in Chinese' 'zh-CN 从这里向浏览器推送消息' "$(page_run 'return document.documentElement.lang') $(page_text h2)"
    expect 'each text is there in both languages' '' "$(page_run 'return [...Object.keys(TEXTS).filter(key => !/^[^|]*\|[^|]+$/.test(TEXTS[key]) || TEXTS[key][0] === "|" && key[0] !== "-"),
        ...[...document.querySelectorAll("[data-t], [data-label]")].flatMap(e => [e.dataset.t, e.dataset.label]).filter(key => key && !TEXTS[key])].join()')"
    looks signed-out-zh
    page_type '#name' "$(printf '商店%.0s' {1..12})$(printf 'x%.0s' {1..50})"
    page_type '#password' secret
    page_keys "$KEY_ENTER"
    page_expect 'registering may need a key: its field opens' 'return document.getElementById("keyed").open && document.activeElement.id === "key"'
    page_keys "sesame$KEY_ENTER"
    inside
    page_click '#connect'
    page_click '#connect'
    frames_of 2 1 >/dev/null
    expect 'it works over TLS too' "已连接 $SCHEME" "$(page_text '.state') https"
    try bind_to_group clientId "$(id_of 1)" userId anna >/dev/null
    try bind_to_group clientId "$(id_of 2)" userId ben >/dev/null
    expect 'a call is answered' "$GOOD" "$(try send_to_group groupName orders msg '订单已支付' data '{"orderId": 1042, "total": 129.90}')"
    expect 'what is pushed arrives' '3 {"code":0,"msg":"订单已支付","data":{"orderId": 1042, "total": 129.90}}' "$(frames_of 2 3)"
    looks at-work-zh
    expect 'an error is told in Chinese' '{"code":-1003,"msg":"client not online","data":[]}' "$(try client_info clientId x)"
    expect 'and in the words of the server' 'HTTP 200 · code -1003 · 客户端不在线 · client not online' "$(page_text '#said')"
    page_click '#language'
    expect 'the language can be changed' 'en Connect with a ticket 中文' "$(page_run 'return document.documentElement.lang') $(page_text '#connect') $(page_text '#language')"
    page_goto "$SCHEME://127.0.0.1:$PORT/"
    expect 'and stays' 'en API call' "$(page_run 'return document.documentElement.lang') $(page_text '#call h2')"
    expect 'as the only thing that is kept' 'language=en' "$(page_run 'return Object.entries(localStorage).map(each => each.join("=")).join()')"
    expect 'nothing is wrong in the console' '' "$(page_log browser | grep -v 'register.*status of 401')"
    expect 'nobody else was asked' '' "$(strangers)"
    expect 'the policy is in force' 'TypeError TypeError TypeError true' "$(page_run 'const tried = [
            () => { document.body.innerHTML = "x"; }, () => { document.createElement("script").textContent = "window.bad = 1"; },
            () => fetch("https://127.0.0.1:1/")].map(async act => { try { await act(); } catch (error) { return error.name; } });
        document.body.setAttribute("style", "display: none");
        return Promise.all(tried).then(names => [...names, document.body.checkVisibility()].join(" "))')"
    expect_match 'it is what refused all this' '*TrustedHTML*TrustedScript*connect-src*' "$(page_log browser | tr '\n' ' ')"
}

# A shop at work: docs/img/console.png and docs/img/console-phone.png.
pictures() {
    local order
    PORT=7800
    ! listens $PORT || broken 'port 7800 is free' /dev/null
    again
    browser_start
    browser_open en
    page_size 1280 800
    page_goto "http://127.0.0.1:$PORT/"
    page_type '#name' shop
    page_type '#password' secret
    page_click '[value=register]'
    inside
    login shop
    page_type '#asUser' anna
    page_type '#asGroups' orders
    page_click '#connect'
    sleep 3
    page_type '#asUser' ben
    page_click '#connect'
    frames_of 2 2 >/dev/null
    for order in {1021..1041}; do
        call send_to_group "{'groupName':'orders','code':0,'msg':'order placed','data':{'orderId':$order}}" >/dev/null
        sleep 0.$((order * 7 % 9))
        [ $((order % 4)) != 0 ] ||
            call send_to_user "{'userId':'ben','code':0,'msg':'pack it','data':{'orderId':$((order - 1))}}" >/dev/null
        [ $((order % 7)) != 0 ] || sleep 2
    done
    try get_online_list >/dev/null
    page_click '#kinds input[value=send_to_group]'
    page_click '#receipt'
    try send_to_group msg 'order paid' data '{"orderId": 1042, "total": 129.90}' messageId paid-1042 >/dev/null
    page_run 'document.activeElement.blur(); scrollTo(0, 0)'
    sleep 2
    page_shot docs/img/console.png
    page_size 375 812 phone
    page_scheme dark
    page_run 'scrollTo(0, 0); for (const list of document.querySelectorAll(".frames")) list.scrollTop = list.scrollHeight'
    page_shot docs/img/console-phone.png
}

[ -z "${SHOTS-}" ] || mkdir -p "$SHOTS"
if [ "${1-}" = pictures ]; then
    pictures
    finish
fi
switched_off
configure
start
on_the_wire
browser_start
browser_open en
page_size 1280 900
signing_in
binding
sending
refusing
viewing
coding
managing
hooking
stopping
cutting
phone
leaving
keyboard
ticketed
halt
secure
configure $'[auth]\nregister = key:sesame'
start
chinese
finish

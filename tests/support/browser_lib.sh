# browser_lib.sh - drives a real Chromium without a screen; to be sourced behind lib.sh by bash scripts.
#
# chromedriver starts it, and is told what to do over the WebDriver protocol with curl. Both live in the
# script's own folder, reach nothing but 127.0.0.1, and are ended by their process ids in `stop`, hence by
# `finish` in any case. What the driver refuses is counted as a failed test, with its reason.
#
#   browser_start                               # once
#   browser_open en                             # a browser with a fresh profile that prefers this language
#   page_goto "http://127.0.0.1:$PORT/"
#   page_type '#name' 'shop' && page_click 'button[type=submit]'
#   page_wait 'return document.querySelectorAll("li").length == 2'
#   expect 'the title' 'wspush' "$(page_text h1)"
#   expect 'no errors in the console' '' "$(page_log browser)"
# shellcheck shell=bash disable=SC2034
DRIVER='' DRIVER_PORT='' BROWSER='' WEBDRIVER='' BROWSERS=0

# The keys that have a name; see section 17.4.2 of the WebDriver protocol.
KEY_TAB=$'\ue004' KEY_ENTER=$'\ue007' KEY_SHIFT=$'\ue008' KEY_CONTROL=$'\ue009' KEY_ESCAPE=$'\ue00c' KEY_SPACE=$'\ue00d'
KEY_LEFT=$'\ue012' KEY_UP=$'\ue013' KEY_RIGHT=$'\ue014' KEY_DOWN=$'\ue015' KEY_DELETE=$'\ue017'

# json_text TEXT: prints it as a JSON string.
json_text() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\r'/\\r}
    printf '"%s"' "${text//$'\t'/\\t}"
}

# driver METHOD PATH [BODY]: one command of the protocol, PATH below the session. Prints the answer, an object
# with the member `value`. An error is a failed test.
driver() {
    local answer
    answer=$(curl -s --max-time 60 --noproxy '*' -X "$1" ${3:+-H 'Content-Type: application/json' --data-binary "$3"} \
        "http://127.0.0.1:$DRIVER_PORT/session${WEBDRIVER:+/$WEBDRIVER}$2")
    case $answer in
    '{"value":{"error":'* | '')
        bad "the browser does $1 $2 ${3:0:200}" "$(jq -r '.value.message' <<<"$answer" 2>&1 | head -n 3)" >&3
        return 1
        ;;
    esac
    printf '%s' "$answer"
}
exec 3>&1 # where results go, also from within $( )

# driver_value METHOD PATH [BODY]: the same, but prints the value alone: a string as it is, all else as JSON.
driver_value() {
    local answer value
    answer=$(driver "$@") || return 1
    value=${answer#'{"value":'}
    value=${value%\}}
    case $value in # most answers are plain enough to be read here
    null) echo ;;
    *'{'* | *'['* | *\\*) jq -r '.value | if type == "string" then . else tojson end' <<<"$answer" ;;
    \"*\") value=${value#\"} && echo "${value%\"}" ;;
    *) echo "$value" ;;
    esac
}

# browser_start: starts chromedriver. All that it and the browser write is below $DIR/browser.
browser_start() {
    need chromium chromedriver
    free_port
    DRIVER_PORT=$FREE
    mkdir -p "$DIR/browser"
    : >"$DIR/browser/vain"
    trap 'trap "" PIPE; exec >/dev/null 3>&1; finish' PIPE # nobody reads on: the browser is to end all the same
    env HOME="$DIR/browser" XDG_CONFIG_HOME="$DIR/browser" XDG_CACHE_HOME="$DIR/browser" TMPDIR="$DIR/browser" \
        chromedriver --port="$DRIVER_PORT" --log-path="$DIR/browser/driver.log" >"$DIR/browser/driver.out" 2>&1 3>&- &
    DRIVER=$!
    if ! wait_for listens "$DRIVER_PORT" || ! runs "$DRIVER"; then
        broken 'chromedriver starts' "$DIR/browser/driver.out"
    fi
}

# browser_open [LANGUAGE [ARGUMENT...]]: starts a browser with a profile of its own, which trusts any certificate; the one
# before is ended. The driver turns off that timers of hidden tabs are late; with THROTTLE=1 they are.
browser_open() {
    local language=${1:-en} arguments answer argument without=''
    [ -z "${THROTTLE-}" ] || without='"disable-background-timer-throttling","disable-backgrounding-occluded-windows"'
    shift $(($# > 0))
    browser_close
    BROWSERS=$((BROWSERS + 1))
    set -- --headless=new --user-data-dir="$DIR/browser/profile$BROWSERS" --window-size=1280,900 \
        --lang="$language" --accept-lang="$language" --no-first-run --no-default-browser-check \
        --disable-background-networking --disable-component-update --disable-component-extensions-with-background-pages \
        --disable-default-apps --disable-extensions --disable-sync --disable-breakpad --disable-domain-reliability \
        --disable-client-side-phishing-detection --metrics-recording-only --no-pings --disable-gpu --disable-dev-shm-usage \
        --disable-features=Translate,OptimizationHints,MediaRouter,InterestFeedContentSuggestions \
        --force-device-scale-factor=1 --hide-scrollbars --proxy-server=direct:// \
        --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' "$@"
    [ "$(id -u)" != 0 ] || set -- --no-sandbox "$@" # Chromium's sandbox refuses root
    for argument in "$@"; do
        arguments+=${arguments:+,}$(json_text "$argument")
    done
    WEBDRIVER=''
    answer=$(driver POST '' '{"capabilities":{"alwaysMatch":{"browserName":"chrome","acceptInsecureCerts":true,"timeouts":{"implicit":0,"script":20000},
        "goog:loggingPrefs":{"browser":"ALL","performance":"ALL"},
        "goog:chromeOptions":{"binary":"'"$(command -v chromium)"'","args":['"$arguments"'],"excludeSwitches":['"$without"'],
        "prefs":{"intl.accept_languages":"'"$language"'"}}}}}') || finish
    WEBDRIVER=$(jq -r .value.sessionId <<<"$answer")
    BROWSER=$(jq -r '.value.capabilities."goog:processID" // empty' <<<"$answer")
    # what the browser asks for itself, the blank page of a start for one, is none of a test's business
    page_log performance >/dev/null
}

# browser_close: ends the browser; by its process id if it does not end when it is asked to.
browser_close() {
    [ -n "$WEBDRIVER" ] || return 0
    curl -s -o /dev/null --max-time 10 --noproxy '*' -X DELETE "http://127.0.0.1:$DRIVER_PORT/session/$WEBDRIVER"
    WEBDRIVER=''
    [ -n "$BROWSER" ] || return 0
    for _ in {1..250}; do
        runs "$BROWSER" || break
        sleep 0.02
    done
    ! runs "$BROWSER" || kill -KILL "$BROWSER"
    BROWSER=''
}

# browser_end: ends the browser and the driver.
browser_end() {
    browser_close
    [ -z "$DRIVER" ] || kill_process "$DRIVER" TERM
    DRIVER=''
}

# stop: as in lib.sh, and the browser with it.
stop() {
    browser_end
    halt
}

# --- the page ---------------------------------------------------------------------------------

# page_goto URL: loads a page and waits until it is there.
page_goto() {
    driver POST /url "{\"url\":$(json_text "$1")}" >/dev/null
}

# page_element SELECTOR: prints the id of the first element that a CSS selector finds.
page_element() {
    local answer
    answer=$(driver POST /element "{\"using\":\"css selector\",\"value\":$(json_text "$1")}") || return 1
    [[ $answer =~ \"element-[-0-9a-f]*\":\"([^\"]*)\" ]] && echo "${BASH_REMATCH[1]}"
}

# page_click SELECTOR: as with the mouse: the element must be visible and nothing may lie over it.
page_click() {
    local element
    element=$(page_element "$1") && driver POST "/element/$element/click" '{}' >/dev/null
}

# page_type SELECTOR TEXT: types into a field, in the place of what is there.
page_type() {
    local element keys=$KEY_CONTROL"a"$KEY_CONTROL${2:-$KEY_DELETE}
    element=$(page_element "$1") && driver POST "/element/$element/value" "{\"text\":$(json_text "$keys")}" >/dev/null
}

# page_choose SELECTOR VALUE: chooses an option of a <select> by its value.
page_choose() {
    page_click "$1 option[value=\"$2\"]"
}

# page_text SELECTOR: prints what is to be read in an element.
page_text() {
    local element
    element=$(page_element "$1") && driver_value GET "/element/$element/text"
}

# page_keys TEXT: presses and releases each key of TEXT, wherever the focus is. A key that is to be held goes before
# it as $2: page_keys "$KEY_TAB" "$KEY_SHIFT".
page_keys() {
    local actions='' key i
    for ((i = 0; i < ${#1}; i++)); do
        key=$(json_text "${1:i:1}")
        actions+=",{\"type\":\"keyDown\",\"value\":$key},{\"type\":\"keyUp\",\"value\":$key}"
    done
    [ -z "${2-}" ] || actions=",{\"type\":\"keyDown\",\"value\":\"$2\"}$actions,{\"type\":\"keyUp\",\"value\":\"$2\"}"
    driver POST /actions "{\"actions\":[{\"type\":\"key\",\"id\":\"keyboard\",\"actions\":[${actions#,}]}]}" >/dev/null
}

# page_run SCRIPT [JSON...]: runs the body of a function in the page, with arguments[0]... , and prints what it
# returns; a promise is awaited.
page_run() {
    local script=$1 arguments=''
    shift
    [ $# = 0 ] || arguments=$(printf ',%s' "$@")
    driver_value POST /execute/sync "{\"script\":$(json_text "$script"),\"args\":[${arguments#,}]}"
}

# page_wait SCRIPT [JSON...]: waits up to thirty seconds until a script returns true. Its status tells. Where three of these
# waits were in vain, the others are short: what is broken need not take for ever.
page_wait() {
    local end=$((SECONDS + 30))
    ! has_lines "$DIR/browser/vain" 3 || end=$((SECONDS + 1))
    while [ $SECONDS -lt $end ]; do
        [ "$(page_run "$@")" != true ] || return 0
        sleep 0.02
    done
    echo "$1" >>"$DIR/browser/vain"
    return 1
}

# page_expect NAME SCRIPT [JSON...]: a test that such a wait comes to its end.
page_expect() {
    local name=$1
    shift
    if page_wait "$@"; then
        ok "$name"
    else
        bad "$name" "not in time: $1"
    fi
}

# page_log browser|performance: prints what is new in a log: of the console each warning and error, one a line; of the
# network each address that was asked for, with its scheme, those of WebSockets included, the browser's own and data: not.
page_log() {
    local filter='.value[] | select(.level == "SEVERE" or .level == "WARNING") | .message'
    [ "$1" = browser ] ||
        filter='.value[].message | fromjson.message | (select(.method == "Network.requestWillBeSent").params.request.url),
            (select(.method == "Network.webSocketCreated").params.url) | select(test("^(chrome(-[a-z]+)?|data|blob|about):") | not)'
    driver POST /se/log "{\"type\":\"$1\"}" | jq -r "$filter"
}

# devtools METHOD PARAMETERS: a command of the DevTools protocol.
devtools() {
    driver POST /goog/cdp/execute "{\"cmd\":\"$1\",\"params\":$2}" >/dev/null
}

# page_size WIDTH HEIGHT [phone]: what the page has room for; with `phone`, as one with a touch screen.
page_size() {
    local phone=false
    [ -z "${3-}" ] || phone=true
    devtools Emulation.setDeviceMetricsOverride "{\"width\":$1,\"height\":$2,\"deviceScaleFactor\":0,\"mobile\":$phone}"
    devtools Emulation.setTouchEmulationEnabled "{\"enabled\":$phone}"
}

# page_scheme light|dark: the colours that the user is said to prefer.
page_scheme() {
    devtools Emulation.setEmulatedMedia "{\"features\":[{\"name\":\"prefers-color-scheme\",\"value\":\"$1\"}]}"
}

# page_shot FILE [whole]: saves a picture of what is to be seen, or of the page in its whole length, as PNG.
page_shot() {
    local whole=false
    [ -z "${2-}" ] || whole=true
    driver POST /goog/cdp/execute \
        "{\"cmd\":\"Page.captureScreenshot\",\"params\":{\"format\":\"png\",\"captureBeyondViewport\":$whole}}" |
        jq -r .value.data | base64 -d >"$1"
}

# page_axe: prints what axe-core finds wrong with the page as it is now: each rule, and what breaks it. It comes from
# PyPI (tests/support/requirements.txt); AXE=FILE takes another axe.min.js.
page_axe() {
    local axe=${AXE:-.tools/pypi/axe_playwright_python/axe.min.js}
    [ -e "$axe" ] || {
        echo 'axe-core is missing: run make test-deps'
        return
    }
    if [ "$(page_run 'return typeof axe')" != object ]; then
        jq -Rs '{cmd: "Runtime.evaluate", params: {expression: .}}' "$axe" >"$DIR/axe.json"
        driver POST /goog/cdp/execute "@$DIR/axe.json" >/dev/null
    fi
    page_run 'return axe.run({ resultTypes: ["violations"] }).then(({ violations }) =>
        violations.map(each => each.id + ": " + each.nodes.map(node => node.target.join(" ")).join(", ")).join("; "))'
}

# walk_lib.sh - types the quick start of README.md at terminals and pastes it into a browser; to be sourced behind
# lib.sh and browser_lib.sh by bash scripts. What is typed, and what must then be seen, is cut out of README.md:
#
#   ```sh       the first lines: packages, clone, `make deps run`
#   ```text     what the server prints when it has started
#   ```console  typed behind `$ ` at a second terminal, with what it prints
#   ```js       pasted into the console of a browser
#   ```json     what that console shows, from the beginning
#
# A terminal is a pty of script(1). Ids are masked; localhost:7800 and :7801 become $PORT and $ADMIN.
# shellcheck shell=bash disable=SC2034
WALK_FILE=README.md
declare -A KEYS TYPED_AT
PROMPT='walk> ' # one that no program prints

# walk_block LANGUAGE [NUMBER]: prints a block of code of the quick start.
walk_block() {
    awk -v fence="\`\`\`$1" -v number="${2:-1}" '
        /^## / { chapter = $0 == "## Quick start" } !chapter { next }
        /^```/ { inside = !inside && $0 == fence && ++count == number; if (!inside && count >= number) exit; next }
        inside' $WALK_FILE
}

# terminal_open NAME COMMAND: starts a terminal with a shell that the command starts, `exec bash` or in a chroot.
terminal_open() {
    need script
    local fd
    rm -f "$DIR/$1.keys" "$DIR/$1.screen"
    mkfifo "$DIR/$1.keys"
    TERM=dumb script -qfec "stty cols 2000; export PS1='$PROMPT'; $2" "$DIR/$1.screen" <"$DIR/$1.keys" >"$DIR/$1.script" 2>&1 &
    CLIENTS+=($!)
    exec {fd}>"$DIR/$1.keys"
    KEYS[$1]=$fd
    TYPED_AT[$1]=0
    terminal_await "$1" 20 || bad "the terminal $1 has a shell" "$(terminal_screen "$1")"
}

# terminal_screen NAME: what the terminal has shown since the last line was typed, without that line and the prompt.
terminal_screen() {
    tail -c +$((TYPED_AT[$1] + 1)) "$DIR/$1.screen" | tr -d '\r\0' |
        sed -E 's/\x1b\[[0-9;?]*[a-zA-Z]//g' | sed "1d; \$s/$PROMPT\$//" | sed '$ { /^$/d }'
}

# terminal_type NAME LINE: types a line, with Return.
terminal_type() {
    TYPED_AT[$1]=$(wc -c <"$DIR/$1.screen")
    printf '%s\r' "$2" >&"${KEYS[$1]}"
}

terminal_is_ready() {
    [ "$(tail -c ${#PROMPT} "$DIR/$1.screen" 2>/dev/null; echo .)" = "$PROMPT." ]
}

# terminal_await NAME SECONDS: waits for the prompt behind what was typed; longer on a busy machine is no failure of
# the walk, so SECONDS are generous.
terminal_await() {
    local end=$((SECONDS + $2))
    while [ $SECONDS -lt $end ]; do
        # in this order: the prompt before the line is still there until the line is echoed
        [ "$(wc -c 2>/dev/null <"$DIR/$1.screen" || echo 0)" -gt "${TYPED_AT[$1]}" ] && terminal_is_ready "$1" && return 0
        sleep 0.05
    done
    return 1
}

# terminal_shows NAME SECONDS TEXT: waits until the terminal shows the text.
terminal_shows() {
    local end=$((SECONDS + $2))
    while [ $SECONDS -lt $end ]; do
        [[ $(terminal_screen "$1") != *"$3"* ]] || return 0
        sleep 0.1
    done
    return 1
}

# here: its input with the ports of this run, and ids masked.
here() {
    sed "s/localhost:7800/localhost:$PORT/g; s/port 7800/port $PORT/; s/127\.0\.0\.1:7801/$ADMIN/g; s/localhost:7801/$ADMIN/g"
}

masked() {
    sed -E 's/"clientId":"[0-9a-f]{16}"/"clientId":"ID"/g'
}

# walk_welcome NAME SECONDS: the terminal comes to show what the README says that a start prints.
walk_welcome() {
    local wanted
    wanted=$(walk_block text | here)
    terminal_shows "$1" "$2" "$(tail -n 1 <<<"$wanted")"
    expect 'the server has started, and says what the README shows' "$wanted" \
        "$(terminal_screen "$1" | sed -n '/^wspush .* listens on/,/Ctrl-C/p' | sed 's/ (no config.ini here: defaults)//')"
}

# walk_type NAME BLOCK: types the lines of a block of the kind console, and checks what each prints. A line behind
# `read` is typed as well: the id.
walk_type() {
    local line command='' wanted='' count=0
    while IFS= read -r line <&9; do
        if [ "${line#\$ }" = "$line" ]; then
            wanted+=${wanted:+$'\n'}$line
            continue
        fi
        walk_step "$1"
        command=${line#\$ } wanted=''
    done 9< <(walk_block console "$2" | here; echo '$ ')
    expect "$2. block of commands: there are some" yes "$([ $count -ge 2 ] && echo yes)"
}

walk_step() {
    [ -n "$command" ] || return 0
    count=$((count + 1))
    terminal_type "$1" "$command"
    if [[ $command == 'read '* ]]; then
        sleep 0.2
        printf '%s\r' "$ID" >&"${KEYS[$1]}"
        terminal_await "$1" 60
        return
    fi
    terminal_await "$1" 60
    expect "typed: ${command:0:70}" "$wanted" "$(terminal_screen "$1")"
}

# walk_paste: pastes the lines of JavaScript into the console of a browser that shows the page, as its owner would.
walk_paste() {
    page_goto "http://127.0.0.1:$PORT/"
    : >"$DIR/browser.lines"
    devtools Runtime.evaluate "{\"replMode\":true,\"expression\":$(json_text "$(walk_block js | here | sed 's/localhost/127.0.0.1/')")}"
    wait_for browser_prints 1
    ID=$(head -n 1 "$DIR/browser.lines" | jq -r .data.clientId)
    expect_match 'the browser has a client' '*[0-9a-f][0-9a-f]*' "$ID"
}

# browser_prints COUNT: whether the console of the browser has come to show so many lines, which are in browser.lines.
browser_prints() {
    driver POST /se/log '{"type":"browser"}' | jq -r '.value[] | select(.source == "console-api").message' |
        sed -E 's/^console-api [0-9:]+ //' | jq -r . >>"$DIR/browser.lines"
    has_lines "$DIR/browser.lines" "$1"
}

# walk_browser: what the browser shows at the end.
walk_browser() {
    local wanted
    wanted=$(walk_block json | masked)
    wait_for browser_prints "$(wc -l <<<"$wanted")"
    expect 'the browser has shown what the README says' "$wanted" "$(masked <"$DIR/browser.lines")"
}

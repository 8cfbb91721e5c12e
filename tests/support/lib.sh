# lib.sh - what the end-to-end tests share; to be sourced by bash scripts.
#
# Each script gets a folder of its own, starts the servers it needs on free loopback ports, and ends
# by `finish`, which prints the count. A server must print nothing and exit with 0.
# shellcheck shell=bash disable=SC2034
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

unset "${!WSPUSH_@}" # what a server takes from its environment is the test's own
WSPUSH=${WSPUSH:-build/asan/wspush}
DIR=$(mktemp -d "${TMPDIR:-/tmp}/wspush-test.XXXXXX")
: >"$DIR/results"
mkfifo "$DIR/idle" # nothing comes through it: see `pause`
PATH=$PWD/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin # where websocat and servers are
SERVER='' PORT='' TOKEN='' CLIENTS=()
SCHEME=http # see `secure`
NGINX='' NGINX_PORT=''
TAKEN=' ' # ports given away
PORTS=$((20000 + ${LANE:-0} * 3000)) # the first of those for this lane of the suite

trap 'finish' HUP INT TERM

# ok NAME / bad NAME REASON: counts one test, in a file, so that those in subshells count as well.
ok() {
    echo ok >>"$DIR/results"
    echo "ok   $1"
}

bad() {
    echo bad >>"$DIR/results"
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

# need TOOL...: fails and ends the script if a tool is missing. What needs one says so itself.
need() {
    local tool missing=''
    for tool in "$@"; do
        command -v "$tool" >/dev/null || {
            bad "$tool is missing" 'run make test-deps'
            missing=1
        }
    done
    [ -z "$missing" ] || finish
}

# quick_hashes: without a sanitizer's book-keeping of freed memory. With it, hashing takes five times as long.
quick_hashes() {
    export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}malloc_context_size=0:quarantine_size_mb=0:thread_local_quarantine_size_kb=0"
}

# --- time -------------------------------------------------------------------------------------

# pause SECONDS: sleeps, without a process.
pause() {
    read -r -t "$1" <>"$DIR/idle"
}

# late TOOK LIMIT: whether TOOK milliseconds are more than LIMIT. Where they seem to be, a measured piece of
# work tells how busy this machine is: if that takes N times its CPU time, the limit is N times as long.
late() {
    local TIMEFORMAT='%R %U %S' i
    [ "$1" -gt "$2" ] || return 1
    ({ time for ((i = 0; i < 60000; i++)); do :; done; } 2>&1) |
        awk -v took="$1" -v limit="$2" '{ exit !(took > limit * ($1 > $2 + $3 ? $1 / ($2 + $3) : 1)) }'
}

# expect_time NAME LEAST MOST TOOK: expects a time in milliseconds; MOST is a limit of `late`.
expect_time() {
    if [ "$4" -ge "$2" ] && ! late "$4" "$3"; then
        ok "$1"
    else
        bad "$1" "$4 ms are not from $2 to $3"
    fi
}

# in_time LIMIT COMMAND...: prints what the command prints, and before it how long that took if it was late.
in_time() {
    local limit=$1 begin=${EPOCHREALTIME/[.,]/} answer took
    shift
    answer=$("$@")
    took=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
    ! late $took "$limit" || answer="after $took ms: $answer"
    printf '%s\n' "$answer"
}

# --- processes --------------------------------------------------------------------------------

# listens PORT [ADDRESS]
listens() {
    (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null
}

# free_port: finds a port, which is in $FREE.
free_port() {
    while FREE=$((PORTS + RANDOM % 3000))
        [[ $TAKEN == *" $FREE "* ]] || listens "$FREE"; do :; done
    TAKEN+="$FREE "
}

# runs PID
runs() {
    kill -0 "$1" 2>/dev/null
}

# freeze PID / thaw PID. One that is not frozen is not woken: the leak check at the end of a
# sanitizer's process would wait for ever if it were just then.
declare -A FROZEN
freeze() {
    FROZEN[$1]=1
    kill -STOP "$1"
}

thaw() {
    [ -n "${FROZEN[$1]-}" ] || return 0
    unset "FROZEN[$1]"
    kill -CONT "$1"
}

# kill_process PID [SIGNAL]: ends a process, though it be frozen, and kills it if it has not ended
# after twenty seconds. The status is that of the process.
kill_process() {
    kill "-${2:-KILL}" "$1"
    thaw "$1"
    for _ in {1..1000}; do
        runs "$1" || break
        pause 0.02
    done
    ! runs "$1" || kill -KILL "$1"
    wait "$1"
} 2>/dev/null # where bash would tell that it was killed

# broken NAME FILE: gives up a test whose servers do not start.
broken() {
    bad "$1" "$(tail -n 5 "$2" 2>/dev/null)"
    finish
}

# --- a server ---------------------------------------------------------------------------------

# configure [SECTION-TEXT]: writes the configuration for the next start; text is added to it. $ADMIN is what
# [admin] listens on, if it is to; $DRAIN is the drain, if it is not to be short.
configure() {
    cat >"$DIR/config.ini" <<INI
[common]
host = 127.0.0.1
data_dir = $DIR/data
drain = ${DRAIN-0.1}
[admin]
listen = ${ADMIN-}
[log]
file = $DIR/log
level = debug
${1-}
INI
    [ "$SCHEME" = http ] ||
        printf '[tls]\n%s\n' "cert = $DIR/tls.pem" "key = $DIR/tls.key" >>"$DIR/config.ini"
}

# certificate NAME: makes $DIR/NAME.pem for 127.0.0.1, with its key $DIR/NAME.key.
certificate() {
    need openssl
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj "/CN=$1" -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
        -keyout "$DIR/$1.key" -out "$DIR/$1.pem" 2>"$DIR/openssl" ||
        broken 'openssl makes a certificate' "$DIR/openssl"
}

# secure: has servers configured from now on speak TLS, and clients trust them.
secure() {
    SCHEME=https
    certificate tls
    export CURL_CA_BUNDLE=$DIR/tls.pem SSL_CERT_FILE=$DIR/tls.pem
}

# wait_for COMMAND...: tries for twenty seconds, longer on a busy machine; soon less often, for what it does costs time.
# `finish` says what was waited for in vain: mostly a test that waits for something else than it wants.
wait_for() {
    local tried
    for ((tried = 0; tried < 250; tried++)); do
        "$@" >/dev/null 2>&1 && return 0
        pause 0.0$((tried < 32 ? 1 + tried / 4 : 9))
    done
    echo "# waited in vain: $*" >>"$DIR/vain"
    return 1
}

# exchange ADDRESS PORT TEXT [SECONDS]: sends a request over a connection of its own, and has the answer in $STATUS
# (000: there is none), $HEADERS and $BODY. It starts no process; curl takes 25 ms to start.
exchange() {
    local fd line length=0 LC_ALL=C
    STATUS=000 HEADERS='' BODY=''
    { exec {fd}<>"/dev/tcp/$1/$2"; } 2>/dev/null || return 0
    (trap '' PIPE && printf %s "$3" >&"$fd") 2>/dev/null
    while IFS= read -r -t "${4:-100}" -u "$fd" line && [ "$line" != $'\r' ]; do
        HEADERS+=$line$'\n'
        case ${line,,} in
        http/1.1*) STATUS=${line:9:3} ;;
        content-length:*) length=${line//[!0-9]/} ;;
        esac
    done
    [ "$length" = 0 ] || IFS= read -r -t "${4:-100}" -N "$length" -u "$fd" BODY
    exec {fd}>&-
} 2>/dev/null # where bash would tell of a connection that was reset

# fetch PATH [ADDRESS [SECONDS]]: prints what a GET at the admin listener is answered.
fetch() {
    local STATUS HEADERS BODY address=${2:-$ADMIN}
    exchange "${address%:*}" "${address##*:}" "GET $1 HTTP/1.1"$'\r\n'"Host: $address"$'\r\n\r\n' "${3-}"
    printf %s "$BODY"
}

# A page is compressed, and bash drops its NULs: it would be waited for in vain.
answers() {
    local STATUS HEADERS BODY
    if [ "$SCHEME" = https ]; then
        curl -s -o /dev/null --max-time 10 "https://127.0.0.1:$PORT/"
        return
    fi
    exchange 127.0.0.1 "$PORT" "GET /healthz HTTP/1.1"$'\r\n'"Host: 127.0.0.1:$PORT"$'\r\n\r\n' 10
    [ "$STATUS" != 000 ]
}

# start: starts a server with the present configuration on a free port.
start() {
    for _ in 1 2 3 4 5; do
        PORT=$((PORTS + RANDOM % 3000))
        answers && continue # somebody else's
        "$WSPUSH" -c "$DIR/config.ini" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
        SERVER=$!
        for _ in {1..400}; do
            answers && return 0
            runs "$SERVER" || break
            pause 0.02
        done
        wait "$SERVER"
        grep -q 'Address already in use' "$DIR/stderr" || break
    done
    SERVER=''
    bad 'the server starts' "$(tail -n 3 "$DIR/stderr")"
    finish
}

# start_echo: starts an echo server instead, which chooses its port.
start_echo() {
    : >"$DIR/stdout"
    "${ECHO:-build/asan/echo}" 0 >"$DIR/echo" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for grep -q '^echo: listening on 127\.0\.0\.1:[1-9]' "$DIR/echo" || broken 'the echo server starts' "$DIR/stderr"
    PORT=$(sed 's/.*://' "$DIR/echo")
}

# ended: waits for the server's end and checks how it went.
ended() {
    local status
    wait "$SERVER"
    status=$?
    SERVER=''
    if [ $status != 0 ] || [ -s "$DIR/stdout" ] || [ -s "$DIR/stderr" ]; then
        bad 'the server ends with status 0 and has printed nothing' \
            "status $status: $(head -c 2000 "$DIR/stdout" "$DIR/stderr")"
    fi
}

# halt: ends the server as an operator would.
halt() {
    [ -n "$SERVER" ] || return 0
    kill -TERM "$SERVER" 2>/dev/null # it may have ended by itself, which `ended` judges
    ended
}

# stop: ends all there is; where there is a cluster, that is more.
stop() {
    halt
}

# post PATH BODY [CURL-ARGUMENT...]: prints the answer's body; its status is in $DIR/status, its
# header lines in $DIR/headers. $TOKEN, if set, goes along.
post() {
    local path=$1 body=$2
    shift 2
    if [ "$SCHEME$#" = http0 ] && [[ $body != @* ]]; then
        post_here "$path" "$body"
        return
    fi
    curl -s --max-time 100 -o "$DIR/body" -D "$DIR/headers" -w '%{http_code}' \
        ${TOKEN:+-H "Token: $TOKEN"} "$@" --data-binary "$body" \
                "$SCHEME://127.0.0.1:$PORT$path" >"$DIR/status"
    cat "$DIR/body"
}

# post_here PATH BODY: what `post` does where curl is not needed.
post_here() {
    local STATUS HEADERS BODY LC_ALL=C
    local head="POST $1 HTTP/1.1"$'\r\n'"Host: 127.0.0.1:$PORT"$'\r\n'"${TOKEN:+Token: $TOKEN$'\r\n'}"
    exchange 127.0.0.1 "$PORT" "${head}Content-Length: ${#2}"$'\r\n\r\n'"$2"
    printf %s "$STATUS" >"$DIR/status"
    printf '%s\r\n' "$HEADERS" >"$DIR/headers"
    printf %s "$BODY" >"$DIR/body"
    printf %s "$BODY"
}

status() {
    local status
    read -r status <"$DIR/status"
    echo "$status"
}

# answer_has PATTERN: whether the last answer's body is like that; $BASH_REMATCH is what matches.
answer_has() {
    local body
    IFS= read -r -d '' body <"$DIR/body"
    [[ $body =~ $1 ]]
}

# outcome: prints "STATUS CODE MSG" of the last answer, which must be an envelope without data.
outcome() {
    grep -qi '^content-type: application/json; charset=utf-8' "$DIR/headers" || echo 'not JSON'
    if answer_has '^\{"code":(-?[0-9]+),"msg":"([^"\]*)","data":\[\]\}$'; then
        echo "$(status) ${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
        return
    fi
    echo "$(status) $(jq -r 'if keys_unsorted == ["code", "msg", "data"] and .data == []
        then "\(.code) \(.msg)" else "is no envelope without data: \(.)" end' "$DIR/body")"
}

# call NAME BODY [CURL-ARGUMENT...]: posts to /api/NAME and prints "STATUS BODY"; each ' in the body
# stands for a ".
call() {
    local path=/api/$1 body=${2//\'/\"} answer
    shift 2
    answer=$(post "$path" "$body" "$@")
    echo "$(status) $answer"
}

# metric NAME [ADDRESS]: prints a metric of the server, or of the one whose admin listener has that address.
metric() {
    local text
    text=$(fetch /metrics "${2-}" 20)
    [[ $text =~ $'\n'"wspush_$1 "([^$'\n']*) ]] && echo "${BASH_REMATCH[1]}"
}

# online_count [GROUP]: prints how many clients of a group, or of the system, are online.
online_count() {
    post /api/get_online_list "{\"groupName\":\"${1-}\"}" >/dev/null
    answer_has '"count":([0-9]+)' && echo "${BASH_REMATCH[1]}"
}

# refusal NAME BODY [CURL-ARGUMENT...]: the same, but prints what outcome does.
refusal() {
    call "$@" >/dev/null
    outcome
}

# login SYSTEM: logs a system in; its token is in $TOKEN.
login() {
    call login "{'systemId':'$1','password':'secret'}" >/dev/null
    answer_has '"token":"([^"]*)"'
    TOKEN=${BASH_REMATCH[1]-}
}

# sign_up SYSTEM: registers a system and logs it in.
sign_up() {
    TOKEN=
    call register "{'systemId':'$1','password':'secret'}" >/dev/null
    login "$1"
}

# A call that changes nothing.
LIST=(get_online_list '{"groupName":"g"}')

# What calls are answered, and what clients get.
SUCCESS='200 {"code":0,"msg":"success","data":[]}'
OFFLINE='200 {"code":-1003,"msg":"client not online","data":[]}'
MESSAGE="'code':7,'msg':'m','data':1" # of a send that pushes $FRAME
FRAME='{"code":7,"msg":"m","data":1}'
ID_FRAME='{"code":7,"msg":"m","data":1,"messageId":"m1"}'
RECEIPT="'receipt':true,'messageId':'m1',$MESSAGE"

# success DATA: prints a good answer.
success() {
    echo "200 {\"code\":0,\"msg\":\"success\",\"data\":${1//\'/\"}}"
}

# receipt COUNT: prints the answer to $RECEIPT that has reached COUNT clients.
receipt() {
    success "{'messageId':'m1','matched':$1,'queued':$1,'dropped':0}"
}

# notice CODE ID [USER [EXTEND]]: prints the frame of a notice in the group $IN, or g; in the system
# if that is empty.
notice() {
    local word=online group=${IN-g}
    [ "$1" = 1001 ] || word=offline
    printf '{"code":%s,"msg":"client %s","data":{"clientId":"%s","userId":"%s","extend":"%s"%s}}\n' \
        "$1" $word "$2" "${3-}" "${4-}" "${group:+",\"groupName\":\"$group\""}"
}

# header NAME: prints a field of the last answer.
header() {
    sed -n "s/^$1: *\(.*\)\r$/\1/Ip" "$DIR/headers"
}

# lines LINE...: prints the head of a request.
lines() {
    printf '%s\r\n' "$@" ''
}

# request NAME BODY [LINE...]: prints a POST to /api/NAME.
request() {
    local path=/api/$1 body=${2//\'/\"} LC_ALL=C
    shift 2
    lines "POST $path HTTP/1.1" 'Host: x' "Token: $TOKEN" "Content-Length: ${#body}" "$@"
    printf '%s' "$body"
}

# talk: sends its input over a connection of its own, in one write if it is short; prints what
# comes back until the server closes.
talk() {
    local fd input=$DIR/talk.$BASHPID
    cat >"$input"
    exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
    cat "$input" >&"$fd"
    timeout 60 cat <&"$fd"
    exec {fd}>&-
}

# drip: as talk, but sends its input as it comes.
drip() {
    local fd
    exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
    cat >&"$fd"
    timeout 60 cat <&"$fd"
    exec {fd}>&-
}

# has_lines FILE COUNT
has_lines() {
    local lines=() # also where there is no such file yet
    mapfile -n "$2" lines <"$1"
    [ ${#lines[@]} -ge "$2" ] && [[ $2 = 0 || ${lines[-1]} = *$'\n' ]]
}

# The lines that make a request an upgrade; the key is RFC 6455's example.
UPGRADE=('Host: x' 'Connection: Upgrade' 'Upgrade: websocket' 'Sec-WebSocket-Version: 13'
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==')

# client NAME SYSTEM [WEBSOCAT-ARGUMENT...]: connects a client that stays. What it receives is in
# $DIR/NAME.out, one frame a line; what is written to $DIR/NAME.in is sent, one frame a line. Its id
# is in $ID, its process in $CLIENT.
client() {
    local name=$1 system=$2 fd line
    shift 2
    need websocat
    rm -f "$DIR/$name.in" "$DIR/$name.out" "$DIR/$name.err"
    mkfifo "$DIR/$name.in"
    websocat -nEvv --buffer-size 2000000 --linemode-strip-newlines "$@" \
                "${SCHEME/http/ws}://127.0.0.1:$PORT/ws?systemId=$system" \
        <"$DIR/$name.in" >"$DIR/$name.out" 2>"$DIR/$name.err" &
    CLIENT=$!
    CLIENTS+=("$CLIENT")
    exec {fd}>"$DIR/$name.in" # held open: its end would be the client's
    echo 1 >"$DIR/$name.seen"
    wait_for has_lines "$DIR/$name.out" 1
    ID=''
    read -r line <"$DIR/$name.out"
    [[ $line =~ '"clientId":"'([^\"]*)\" ]] && ID=${BASH_REMATCH[1]}
}

# frames NAME COUNT: waits for COUNT frames behind those already printed, the first one of all not
# counted, and prints what has come.
frames() {
    local seen lines=()
    read -r seen <"$DIR/$1.seen"
    wait_for has_lines "$DIR/$1.out" $((seen + $2))
    mapfile lines <"$DIR/$1.out"
    [[ ${#lines[@]} = 0 || ${lines[-1]} = *$'\n' ]] || unset 'lines[-1]' # which has not come whole
    printf %s "${lines[@]:seen}"
    echo ${#lines[@]} >"$DIR/$1.seen"
}

# closed NAME: waits for the close frame of a client and prints "CODE REASON".
closed() {
    wait_for grep -q 'close message is' "$DIR/$1.err"
    sed -n 's/.*message is .*status_code: \(.*\), reason: "\(.*\)" .*/\1 \2/p' "$DIR/$1.err"
}

# --- nginx ------------------------------------------------------------------------------------

# start_nginx TEXT PORT: starts it with this inside of http { } and waits until it listens on the
# port, which the text names too.
start_nginx() {
    need nginx
    local base=$DIR/nginx kind paths='' user=''
    NGINX_PORT=$2
    mkdir -p "$base"
    for kind in client_body proxy fastcgi uwsgi scgi; do
        paths+="${kind}_temp_path $base/$kind; "
    done
    [ "$(id -u)" != 0 ] || user='user root;' # who else would not get into $DIR
    cat >"$base/nginx.conf" <<CONF
daemon off;
pid $base/pid;
worker_processes 1;
$user
events { worker_connections 4096; }
http {
access_log $base/access.log;
$paths
$1
}
CONF
    nginx -p "$base" -e "$base/error.log" -c "$base/nginx.conf" >"$base/out" 2>&1 &
    NGINX=$!
    if ! wait_for listens "$NGINX_PORT" || ! runs "$NGINX"; then
        broken 'nginx starts' "$base/error.log"
    fi
}

# stop_nginx: with its workers, who would survive it if it were killed.
stop_nginx() {
    [ -z "$NGINX" ] || kill_process "$NGINX" TERM
    NGINX=''
}

# start_network PORT: nginx on this port, as the network between the server and its clients. `stop_nginx` cuts it: then
# no connection is closed by a frame.
start_network() {
    start_nginx "map \$http_upgrade \$kept { default upgrade; '' close; }
        server { listen 127.0.0.1:$1; location / { proxy_pass http://127.0.0.1:$PORT; proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$kept; } }" "$1"
}

# vectors COMMAND...: runs a program that tests the server, and counts its tests as one's own.
vectors() {
    local line
    "$@" >"$DIR/vectors" 2>&1
    expect_match "$1 runs to its end" '[01] * passed, * failed' "$? $(tail -n 1 "$DIR/vectors")"
    while read -r line; do
        case $line in
        'ok '*) echo ok >>"$DIR/results" ;;
        'FAIL '*) echo bad >>"$DIR/results" ;;
        *' passed, '*) continue ;;
        esac
        echo "$line"
    done <"$DIR/vectors"
}

# start_load [PORT]: starts a process that holds many clients of the system shop; see tests/support/load_client.c.
start_load() {
    trap '' PIPE # should it end, the tests are to say so
    rm -f "$DIR/commands" "$DIR/load_out"
    mkfifo "$DIR/commands" "$DIR/load_out"
    build/release/load_client "${1:-$PORT}" shop "$TOKEN" <"$DIR/commands" >"$DIR/load_out" 2>>"$DIR/load.err" &
    LOAD=$!
    CLIENTS+=("$LOAD")
    exec {COMMANDS}>"$DIR/commands" {LOAD_OUT}<"$DIR/load_out"
}

# ask COMMAND: gives it a command; its answer is in $REPLY.
ask() {
    echo "$1" >&"$COMMANDS"
    read -r -t 150 REPLY <&"$LOAD_OUT" || REPLY="no answer: $(cat "$DIR/load.err")"
}

# stop_load: ends it, and its clients with it.
stop_load() {
    exec {COMMANDS}>&- {LOAD_OUT}<&-
    wait "$LOAD"
    expect 'the clients have nothing to complain of' '' "$(cat "$DIR/load.err")"
}

# value NAME: prints what stands behind a word of the last answer of the clients.
value() {
    sed -n "s/.*\b$1 \([^ ]*\).*/\1/p" <<<"$REPLY"
}

# fresh [SECTION-TEXT]: the next server has this configuration, and neither data nor log.
fresh() {
    rm -rf "$DIR/data" "$DIR/log"
    configure "$@"
}

# start_with_load [SECTION-TEXT]: starts one with a system, and what holds its clients.
start_with_load() {
    fresh "$@"
    start
    sign_up shop
    start_load
}

# stop_with_load: the clients go, then the server.
stop_with_load() {
    stop_load
    stop
}

# finish: stops what runs, removes the folder, prints the count.
finish() {
    local pid passed failed
    for pid in "${CLIENTS[@]}"; do
        kill "$pid" 2>/dev/null
    done
        stop
    stop_nginx
    wait
    [ ! -e "$DIR/vain" ] || sort "$DIR/vain" | uniq -c | sed 's/^ *\([0-9]*\) # /# \1 times /'
    passed=$(grep -c ok "$DIR/results")
    failed=$(grep -c bad "$DIR/results")
    rm -rf "$DIR"
    echo "$passed passed, $failed failed"
    exit $((failed > 0))
}

need curl jq

# Any script can be run over TLS as well.
[ -z "${TLS-}" ] || secure

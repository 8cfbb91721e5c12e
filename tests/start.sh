#!/usr/bin/env bash
# start.sh - the command line, the configuration, and what stops the server from starting.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

BINARY=$PWD/$WSPUSH
case $WSPUSH in /*) BINARY=$WSPUSH ;; esac
FREE=$((19000 + RANDOM % 1000)) # a port for servers that do not come to listen

# run ARGUMENT...: runs a server that ends by itself, in $DIR; its output is in $OUT and $ERR, and
# its exit status in $STATUS.
run() {
    OUT=$(cd "$DIR" && timeout 20 "$BINARY" "$@" 2>"$DIR/err")
    STATUS=$?
    ERR=$(cat "$DIR/err")
}

# refused NAME PATTERN ARGUMENT...: the server must not start, and say why on stderr alone.
refused() {
    local name=$1 pattern=$2
    shift 2
    run "$@"
    expect_match "$name" "1 wspush: $pattern" "$STATUS $ERR$OUT"
}

# mode FILE
mode() {
    # shellcheck disable=SC2012 # stat differs from system to system
    ls -ld "$1" | cut -c 1-10
}

command_line() {
    local option
    run -v
    expect_match '-v' '0 wspush [0-9]*features: ?*' "$STATUS $OUT"
    expect '-v leaves stderr alone' '' "$ERR"
    run -h
    expect_match '-h' '0 usage: wspush \[-c FILE\] \[-t\] \[-v\] \[-h\] \[PORT\]*' \
        "$STATUS $OUT"
    expect '-h leaves stderr alone' '' "$ERR"
    expect '-h fits a screen' '1 1' \
        "$(echo "$OUT" | awk 'length > 90 { long = 1 } END { print (NR < 24), !long }')"
    for option in -x --version -c '1 2' '-t -t -c'; do
        # shellcheck disable=SC2086 # several arguments
        run $option
        expect_match "wrong usage: $option" '2 *usage: wspush*' "$STATUS $ERR"
        expect "nothing on stdout: $option" '' "$OUT"
    done
    for option in 0 65536 99999999999999999999 80a '' ' 80' +80; do
        refused "PORT '$option'" 'PORT must be a number from 1 to 65535*' "$option"
    done
    expect 'nothing was created by that' '' "$(find "$DIR" -mindepth 1 ! -name err ! -name results)"
}

test_option() {
    configure
    run -t -c "$DIR/config.ini"
    expect_match '-t with a good file' "0 *config.ini is good" "$STATUS $OUT$ERR"
    run -t
    expect '-t with the file in the working directory' '0 config.ini is good' "$STATUS $OUT$ERR"
    echo '[common' >"$DIR/bad.ini"
    refused '-t with a bad file' 'bad.ini:1: *' -t -c bad.ini
    refused '-t with a file that there is not' 'none.ini: *' -t -c none.ini
    refused 'a file that there is not' 'none.ini: *' -c none.ini
    refused 'a folder instead of a file' 'data: *' -c data
    expect 'the data was not touched by that' '' "$(ls "$DIR/data")"
    rm "$DIR/config.ini"
    run -t
    expect_match 'no file in the working directory' '0 *' "$STATUS $OUT$ERR"
}

# Files of one bad line (the third), and what is said about it.
bad_files() {
    local section line pattern
    while IFS='|' read -r section line pattern; do
        printf '# a comment\n[%s]\n%s\n' "$section" "$line" >"$DIR/bad.ini"
        refused "[$section] $line" "bad.ini:3: *$pattern*" -c bad.ini "$FREE"
    done <<'END'
common|[nonsense]|nonsense
common|[common|section
common|colour = red|colour
websocket|port = 80|port
common|port|key = value
common|port = 80 90|port*80 90
common|port =|port
common|port = 0|port*1*65535
common|port = 65536|port*1*65535
common|port = -1|port
common|port = 80.5|port
common|port = eighty|eighty
common|cluster = yes|cluster*true
common|crypto_key = 123456789012345|16 bytes
common|crypto_key = 12345678901234567|16 bytes
common|drain = soon|drain*soon
common|drain = 3601|drain*3600
common|drain = 3600.001|drain*3600
common|drain = 1.0001|drain
auth|token_ttl = 0|token_ttl
auth|token_ttl = 1h|token_ttl
auth|register = maybe|register*open*closed*key
auth|register = key:|register
websocket|ping = 0|ping
websocket|pong_timeout = 100000|pong_timeout*86400
websocket|max_message = 8 KB|max_message
websocket|max_message = 3|max_message
websocket|send_queue = 1 KiB MiB|send_queue
limits|max_connections = many|max_connections
limits|max_per_ip = -1|max_per_ip
limits|max_body = 1|max_body
limits|max_body = 99999999999999999999|max_body
limits|max_head = 10 MiB|max_head
limits|head_timeout = 0|head_timeout
limits|idle_timeout =|idle_timeout
limits|api_rate = fast|api_rate
notice|scope = all|scope*group
log|level = loud|level*debug
log|format = xml|format*text*json
END
    printf 'port = 80\n' >"$DIR/bad.ini"
    refused 'a key before any section' 'bad.ini:1: *section*port*' -c bad.ini
    printf '[common]\nport = 80\n\n; x\nPORT = 81\n' >"$DIR/bad.ini"
    refused 'a key given twice' 'bad.ini:5: *PORT*' -c bad.ini
    printf '[auth]\nregister = kee:hunter2\n' >"$DIR/bad.ini"
    run -c bad.ini
    expect 'a secret is not repeated' 0 "$(grep -c hunter2 <<<"$ERR$OUT")"
    printf '[common]\ncluster = true\n' >"$DIR/cluster.ini"
    refused 'cluster = true' '*cluster*make CLUSTER=1*' -c cluster.ini "$FREE"
}

good_file() {
    printf '\xef\xbb\xbf%s\r\n' '; a mark, CRLF, any case, comments' >"$DIR/good.ini"
    cat >>"$DIR/good.ini" <<'END'
[ COMMON ]
Host=127.0.0.1 # here
    Port = 7801 ;x
crypto_key = 01234567#9;bcdef
[auth]
register = key:a#b;c
[Limits]
max_body = 2mib
[websocket]
ping = 0.25
allowed_origins =
END
    run -t -c good.ini
    expect 'all that a file may look like' '0 good.ini is good' "$STATUS $OUT$ERR"
}

# --- running ----------------------------------------------------------------------------------

port_argument() {
    local port=$FREE
    configure
    sed -i "s/^host/port = $port\nhost/" "$DIR/config.ini"
    start
    expect_match 'PORT overrides the file' '200 {*' "$(call login '' -X OPTIONS)"
    PORT=$port
    expect 'where nothing listens then' 1 "$(answers || echo 1)"
    stop
}

defaults() {
    local folder=$DIR/empty
    mkdir "$folder"
    PORT=$FREE
    if listens 7801; then
        echo 'skip the start with defaults: port 7801 is taken on this machine'
        return
    fi
    cd "$folder" || return
    "$BINARY" "$PORT" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    cd - >/dev/null || return
    wait_for answers
    expect_match 'without a file it runs with defaults' '200 {*' "$(call login '' -X OPTIONS)"
    expect 'it says what is where, and what to try' "wspush $("$BINARY" -v | sed -n 's/^wspush //p') listens on 0.0.0.0 port $PORT (no config.ini here: defaults).
  Console   http://localhost:$PORT/
  Metrics   http://127.0.0.1:7801/metrics
  Try       curl http://localhost:$PORT/api/register -d '{\"systemId\":\"demo\",\"password\":\"demo\"}'" "$(cat "$DIR/stdout")"
    expect_match 'and logs to stderr' '*info*listening*' "$(cat "$DIR/stderr")"
    expect 'but no single request' 1 "$(wc -l <"$DIR/stderr")"
    expect 'it says on stdout where it is' "$("$BINARY" -v | head -n 1) listens on 0.0.0.0 port $PORT (no config.ini here: defaults).
  Console   http://localhost:$PORT/
  Metrics   http://127.0.0.1:7801/metrics" "$(head -n 3 "$DIR/stdout")"
    expect_match 'where the console is' '200 text/html*' \
        "$(curl -s -o /dev/null -w '%{http_code} %{content_type}' "$(awk '/Console/ { print $2 }' "$DIR/stdout")")"
    expect_match 'and metrics' '200 text/plain*' \
        "$(curl -s -o /dev/null -w '%{http_code} %{content_type}' "$(awk '/Metrics/ { print $2 }' "$DIR/stdout")")"
    expect 'and what to try, which works' '4 {"code":0,"msg":"success","data":[]}' \
        "$(wc -l <"$DIR/stdout") $(bash -c "$(sed -n 's/^  Try *curl/curl -s/p' "$DIR/stdout")")"
    expect 'its data is in the working directory' data "$(ls "$folder")"
    expect 'for its owner only' 'drwx------' "$(mode "$folder/data")"
    kill -TERM "$SERVER"
    wait "$SERVER"
    expect 'it ends with 0' 0 $?
    SERVER=''
}

# started by hand, at a terminal, which a pipe is not
terminal() {
    if ! grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null; then
        echo 'skip addresses of IPv6 in URLs: this machine has none'
        return
    fi
    local port=$FREE
    free_port
    ADMIN="[::1]:$FREE" configure
    sed -i "s/^host = .*/host = ::1/; /^host/a port = $port" "$DIR/config.ini"
    script -qec "echo \$\$ >$DIR/pid; exec $BINARY -c $DIR/config.ini" /dev/null </dev/null >"$DIR/terminal" 2>&1 &
    local script=$!
    wait_for grep -q Try "$DIR/terminal"
    expect 'addresses of IPv6 are in brackets' \
        "[::1]:$port [::1]:$FREE [::1]:$port " "$(grep -o '//[^/]*/' "$DIR/terminal" | tr -d '/' | tr '\n' ' ')"
    kill -TERM "$(cat "$DIR/pid")"
    wait $script
}

# without standard streams: their numbers are nobody else's
without_streams() {
    configure
    sed -i '/^file =/d' "$DIR/config.ini"
    "$BINARY" -c "$DIR/config.ini" "$PORT" <&- >&- 2>&- &
    SERVER=$!
    wait_for answers
    expect 'closed standard streams are /dev/null' '/dev/null /dev/null /dev/null ' \
        "$(readlink "/proc/$SERVER/fd/"{0,1,2} | tr '\n' ' ')"
    kill -TERM "$SERVER"
    wait "$SERVER"
    SERVER=''
}

# what another server that runs already does not allow
conflicts() {
    configure
    start
    sed "s#^data_dir = .*#data_dir = $DIR/data2#" "$DIR/config.ini" >"$DIR/other.ini"
    refused 'a port that is taken' "cannot listen on 127.0.0.1 port $PORT (\[common\] host): *in use*another port*" \
        -c other.ini "$PORT"
    refused 'a data_dir in use' \
        "*data_dir = $DIR/data is in use by another wspush: *another data_dir*" \
        -c config.ini "$FREE"
    sed "s#^listen = .*#listen = 127.0.0.1:$PORT#; s#^data_dir = .*#data_dir = $DIR/data2#" "$DIR/config.ini" >"$DIR/other.ini"
    refused 'a port for /metrics that is taken' \
        "cannot listen on 127.0.0.1 port $PORT (\[admin\] listen): *in use*another port*" -c other.ini "$FREE"
    expect_match 'the first one goes on' '200 {*' "$(call login '' -X OPTIONS)"
    stop
}

# What needs rights that a user has not.
rights() {
    local as=() from
    if [ "$(id -u)" = 0 ]; then
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fi
    rm -rf "$DIR/rights"
    mkdir -m 777 "$DIR/rights"
    chmod 711 "$DIR"
    cp "$BINARY" "$DIR/rights/wspush"
    from=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)
    if [ "$from" -gt 79 ]; then
        OUT=$(cd "$DIR/rights" && timeout 20 "${as[@]}" ./wspush 79 2>&1)
        expect_match 'a port below 1024' \
            '1 wspush: cannot listen on 0.0.0.0 port 79 *below 1024 need rights: choose one above*' "$? $OUT"
    else
        echo 'skip a port below 1024: here everybody may listen on it'
    fi
    echo >"$DIR/rights/secret.ini"
    chmod 0 "$DIR/rights/secret.ini"
    OUT=$(cd "$DIR/rights" && timeout 20 "${as[@]}" ./wspush -c secret.ini 2>&1)
    expect_match 'a file that may not be read' \
        '1 wspush: secret.ini: Permission denied: give a readable file with -c' "$? $OUT"
}

bad_places() {
    touch "$DIR/file"
    configure
    sed "s#^data_dir = .*#data_dir = $DIR/file/data#" "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a data_dir that cannot be created' "*data_dir = $DIR/file/data: *name a directory*" \
        -c bad.ini "$FREE"
    sed "s#^data_dir = .*#data_dir = $DIR/file#" "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a data_dir that is a file' "*data_dir = $DIR/file: *name a directory*" \
        -c bad.ini "$FREE"
    sed "s#^file = .*#file = $DIR/none/log#" "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a log that cannot be written' "*file = $DIR/none/log: *" -c bad.ini "$FREE"
    sed 's/^host = .*/host = 192.0.2.1/' "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a host of another machine' 'cannot listen on 192.0.2.1 *this machine*' \
        -c bad.ini "$FREE"
    printf 'x' >"$DIR/data/key"
    refused 'a key file of another length' '*data/key is damaged*' -c config.ini "$FREE"
    rm "$DIR/data/key"
    printf '# fine\nnonsense\n' >"$DIR/data/accounts"
    refused 'an accounts file that is damaged' '*data/accounts:2: *' -c config.ini "$FREE"
    rm "$DIR/data/accounts"
}

descriptors() {
    configure '[limits]
max_connections = 1000'
    OUT=$(ulimit -n 300 && timeout 20 "$BINARY" -c "$DIR/config.ini" "$FREE" 2>&1)
    expect_match 'max_connections beyond the descriptors' \
        '1 wspush: *max_connections = 1000*300*raise ulimit -n*, or lower max_connections to 2*' "$? $OUT"
    OUT=$(ulimit -n 300 && "$BINARY" -t -c "$DIR/config.ini" 2>&1)
    expect_match '-t says so too' '1 wspush: *ulimit -n*' "$? $OUT"
    OUT=$(ulimit -n 2000 && "$BINARY" -t -c "$DIR/config.ini" 2>&1)
    expect_match 'with enough of them it is good' '0 *is good' "$? $OUT"
}

keys() {
    configure
    start
    sign_up shop
    stop
    expect 'the key is kept in data_dir' '16 -rw-------' \
        "$(wc -c <"$DIR/data/key") $(mode "$DIR/data/key")"
    rm "$DIR/data/key"
    start
    expect_match 'without it tokens are void' '401 -1002 *' \
        "$(refusal "${LIST[@]}")"
    stop
    rm "$DIR/data/key"
    sed -i 's/^host/crypto_key = 0123456789abcdef\nhost/' "$DIR/config.ini"
    start
    login shop
    stop
    expect 'with crypto_key none is kept' accounts "$(cd "$DIR/data" && echo [!l]*)"
    start
    expect_match 'and tokens survive' '200 {"code":0,*' "$(call "${LIST[@]}")"
    stop
    sed -i 's/^crypto_key = 0/crypto_key = x/' "$DIR/config.ini"
    start
    expect_match 'but not under another one' '401 -1002 *' \
        "$(refusal "${LIST[@]}")"
    stop
}

logs() {
    configure
    sed -i 's/^level = .*/level = debug\nformat = json/' "$DIR/config.ini"
    rm -f "$DIR/log"
    start
    client a shop
    kill "$CLIENT"
    client b 'no%22\%0a%ff'
    stop
    expect 'format = json: each line is an object' "$(wc -l <"$DIR/log")" \
        "$(jq -c 'select((.time | test("^[0-9-]+T[0-9:.]+Z$")) and .level and .message)' \
            "$DIR/log" | wc -l)"
    expect 'level = debug: all of it' 'debug info' "$(jq -r .level "$DIR/log" | sort -u | xargs)"
    sed -i 's/^level = .*/level = info/' "$DIR/config.ini"
    rm "$DIR/log"
    start
    stop
    expect 'level = info: without debug' info "$(jq -r .level "$DIR/log" | sort -u | xargs)"
    sed -i 's/^level = .*/level = error/; s/^format = .*/format = text/' "$DIR/config.ini"
    rm "$DIR/log"
    start
    stop
    expect 'level = error: nothing to say' '' "$(cat "$DIR/log")"
}

# lost: the metric.
lost() {
    curl -s --max-time 5 "http://$ADMIN/metrics" | sed -n 's/^wspush_log_lines_lost_total //p'
}

# flood: calls with more lines of the log than a pipe holds; prints how many were answered.
flood() {
    curl -s --max-time 20 "http://127.0.0.1:$PORT/api/none?[1-1500]" | grep -o '"code":-1' | wc -l
}

# A pipe that nobody reads, and a disk that is full.
stalled_log() {
    local held reader count
    free_port
    local ADMIN=127.0.0.1:$FREE
    configure
    sed -i '/^file =/d' "$DIR/config.ini"
    rm -f "$DIR/stderr"
    mkfifo "$DIR/stderr"
    exec {held}<>"$DIR/stderr" # its reader
    start
    expect 'nobody reads the log: calls are answered' 1500 "$(flood)"
    count=$(lost)
    expect "lines are lost, and counted ($count)" 1 $((count > 500))
    cat <&"$held" >"$DIR/read" &
    reader=$!
    wait_for grep -q ' error [0-9]* lines were lost' "$DIR/read"
    expect 'once it is read again it says so by itself' "$(lost)" \
        "$(sed -n 's/.* error \([0-9]*\) lines were lost reason="Resource.*/\1/p' "$DIR/read")"
    call none '{}' >/dev/null
    expect 'and goes on' 0 "$(wait_for sh -c "tail -n 3 '$DIR/read' | grep -q 'debug call '"; echo $?)"
    expect 'no line was torn' 0 "$(grep -cv '^2[0-9-]*T[0-9:.]*Z [a-z]* [a-z0-9]' "$DIR/read")"
    kill_process $reader
    expect 'again nobody reads it' 1500 "$(flood)"
    expect 'more is lost' 1 $(($(lost) > count + 500))
    kill_process "$SERVER" TERM
    expect 'SIGTERM ends it all the same' 0 $?
    SERVER=''
    exec {held}>&-
    rm -f "$DIR/stderr"
    sed -i 's#^level = .*#level = debug\nfile = /dev/full#' "$DIR/config.ini"
    start
    expect_match 'the disk of the log is full: calls are answered' '404 *' "$(call none '{}')"
    expect 'and lines counted' 1 $(($(lost) > 1))
    stop
}

other_user() {
    if [ "$(id -u)" != 0 ]; then
        echo 'skip user = nobody: only root can become another user'
        return
    fi
    rm -rf "$DIR/data"
    chmod 711 "$DIR" # the other user has to reach data_dir
    configure
    sed -i 's/^host/user = nobody\nhost/' "$DIR/config.ini"
    start
    expect 'user = nobody: it runs as nobody' "$(id -u nobody) $(id -u nobody)" \
        "$(awk '$1 == "Uid:" { print $2, $3 }' "/proc/$SERVER/status")"
    sign_up shop
    expect_match 'it can write its data' '200 {*' "$(call "${LIST[@]}")"
    stop
    expect 'all of which is its own' "$(find "$DIR/data")" "$(find "$DIR/data" -user nobody)"
    start
    expect_match 'and is read again' '200 {*' "$(call "${LIST[@]}")"
    stop
    sed 's/^user = .*/user = no-such-user/' "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a user that there is not' '*user = no-such-user: *' -c bad.ini "$FREE"
    chown root "$DIR/data/lock"
    sed 's/^user = .*/user = nobody/' "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'files in data_dir that are not the user'"'"'s' '*/lock: *must belong to nobody*' \
        -c bad.ini "$FREE"
}

command_line
expect 'a single-node build needs neither library of a cluster' 0 \
    "$(grep -c -e libhiredis -e librabbitmq "$WSPUSH")"
mkdir "$DIR/data"
test_option
bad_files
good_file
port_argument
defaults
terminal
without_streams
conflicts
rights
bad_places
descriptors
keys
logs
stalled_log
other_user
finish

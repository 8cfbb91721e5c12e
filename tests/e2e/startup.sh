#!/usr/bin/env bash
# startup.sh - the command line, the configuration, and what stops the server from starting. Formats and levels of the
# log are in signals.sh.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

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
        "$(echo "$OUT" | awk 'length > 90 { long = 1 } END { print (NR < 25), !long }')"
    expect '--help is -h' "$("$BINARY" -h)" "$("$BINARY" --help)"
    expect '--version is -v' "$("$BINARY" -v)" "$("$BINARY" -t --version)"
    for option in -x --versio --helper -c '1 2' '-t -t -c'; do
        # shellcheck disable=SC2086 # several arguments
        run $option
        expect_match "wrong usage: $option" '2 *usage: wspush*' "$STATUS $ERR"
        expect "nothing on stdout: $option" '' "$OUT"
    done
    for option in 0 65536 99999999999999999999 80a '' ' 80' +80; do
        refused "PORT '$option'" 'PORT must be a number from 1 to 65535*' "$option"
    done
    expect 'nothing was created by that' '' "$(find "$DIR" -mindepth 1 ! -name err ! -name results ! -name idle)"
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

# Files of one bad line (the third), and what is said about it: one of each kind, for tests/unit/test_config.c has all.
bad_files() {
    local section line pattern
    while IFS='|' read -r section line pattern; do
        printf '# a comment\n[%s]\n%s\n' "$section" "$line" >"$DIR/bad.ini"
        refused "[$section] $line" "bad.ini:3: *$pattern*" -c bad.ini "$FREE"
    done <<'END'
common|[nonsense]|nonsense
common|prot = 80|prot; did you mean port?
common|port = 65536|port*1*65535
common|data_dir = "data|double quote
common|host = unix:|unix:/run/wspush/socket
common|trusted_proxies = 10.0.0.0/8, localhost|trusted_proxies*10.0.0.0/8*not localhost
websocket|allowed_origins = shop.example|allowed_origins*https://shop.example*not shop.example
cluster|advertise = 0.0.0.0|advertise*not 0.0.0.0
END
    printf '[auth]\nregister = kee:hunter2\n' >"$DIR/bad.ini"
    run -c bad.ini
    expect 'a secret is not repeated' 0 "$(grep -c hunter2 <<<"$ERR$OUT")"
    printf '[common]\ncluster = true\n' >"$DIR/cluster.ini"
    refused 'cluster = true' '*cluster*make CLUSTER=1*' -c cluster.ini "$FREE"
}

# Others keep their configuration in a folder of this name.
other_place() {
    mkdir "$DIR/configs"
    printf '[common]\nport = x\n' >"$DIR/configs/config.ini"
    rm -f "$DIR/config.ini"
    refused 'configs/config.ini is read where there is no config.ini' 'configs/config.ini:2: port*' -t
    refused 'also for a start' 'configs/config.ini:2: port*'
    echo >"$DIR/config.ini"
    run -t
    expect 'config.ini goes first' '0 config.ini is good' "$STATUS $OUT$ERR"
    rm -r "$DIR/config.ini"
    refused 'what -c names goes before both' 'x.ini: *' -t -c x.ini
    rm -r "$DIR/configs"
}

# unstartable NAME PATTERN [SECTION-TEXT]: what a start refuses, and -t refuses in the same words. The key in
# the text goes into the place of the usual one.
unstartable() {
    local key
    configure
    key=$(sed -n '2s/ .*//p' <<<"${3-}")
    [ -z "$key" ] || sed -i "/^$key =/d" "$DIR/config.ini"
    echo "${3-}" >>"$DIR/config.ini"
    set -- "$1" "$2" -c config.ini "$FREE"
    ! grep -q 'host = unix' "$DIR/config.ini" || set -- "${@:1:4}" # which has no port
    refused "$@"
    refused "-t: $1" "$2" -t "${@:3}"
}

# Nothing is created by a test, and what a running server has does not disturb it.
whole_test() {
    local before
    certificate one
    certificate two
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=issuer \
        -keyout "$DIR/ca.key" -out "$DIR/ca.pem" 2>/dev/null
    openssl x509 -req -in <(openssl req -new -key "$DIR/one.key" -subj /CN=leaf) -days 9 -CA "$DIR/ca.pem" \
        -CAkey "$DIR/ca.key" -set_serial 1 -out "$DIR/leaf.pem" 2>/dev/null
    cat "$DIR/leaf.pem" "$DIR/ca.pem" >"$DIR/chain.pem"
    cat "$DIR/leaf.pem" "$DIR/two.pem" "$DIR/ca.pem" >"$DIR/order.pem"
    cat "$DIR/ca.pem" "$DIR/leaf.pem" >"$DIR/reverse.pem"
    rm -rf "$DIR/data" "$DIR/log"
    touch "$DIR/file" "$DIR/err"
    configure "[tls]
cert = $DIR/chain.pem
key = $DIR/one.key"
    before=$(ls "$DIR")
    run -t
    expect '-t: nothing is there yet' '0 config.ini is good' "$STATUS $OUT$ERR"
    expect 'and nothing is made' "$before" "$(ls "$DIR")"
    unstartable 'a chain in another order' "[[]tls] $DIR/order.pem: certificate 2 has not issued *own certificate first*" "[tls]
cert = $DIR/order.pem
key = $DIR/one.key"
    unstartable 'a chain whose issuer comes first' "[[]tls] $DIR/one.key: *own certificate first*" "[tls]
cert = $DIR/reverse.pem
key = $DIR/one.key"
    unstartable 'the port of both listeners' '[[]admin] listen must not have the port of [[]common]: *' "[admin]
listen = 127.0.0.1:$FREE"
    unstartable 'a user that there is not' '[[]common] user = x y: *' '[common]
user = "x y"'
    unstartable 'a log in a folder that there is not' '[[]log] file = /none/log: No such *written, or none*' '[log]
file = /none/log'
    unstartable 'a log that is a folder' '[[]log] file = /: Is a directory*' '[log]
file = /'
    unstartable 'a data_dir below nothing' '[[]common] data_dir = none/data: No such*' '[common]
data_dir = none/data'
    unstartable 'a data_dir that is a file' '[[]common] data_dir = file: Not a directory*' '[common]
data_dir = file'
    unstartable 'an address of another machine' 'cannot listen on 192.0.2.1 port *' '[common]
host = 192.0.2.1'
    unstartable 'a long path' '[[]common] host = unix:*: such a path may have * bytes: *' "[common]
host = unix:$(printf '%0150d' 0)"
    unstartable 'a path that is a file' '[[]common] host = unix:file: * not a socket: *' '[common]
host = unix:file'
    unstartable 'a path below nothing' 'cannot listen on unix:none/s ([[]common] host): No such*' '[common]
host = unix:none/s'
    expect 'a file in the place of a socket stays' 1 "$(find "$DIR/file" | wc -l)"
    configure
    start
    sign_up shop
    run -t "$PORT"
    expect '-t beside a server that runs' '0 config.ini is good' "$STATUS $OUT$ERR"
    halt
    echo x >"$DIR/data/key"
    unstartable 'a key of another length' '*data/key is damaged*'
    rm "$DIR/data/key"
    echo nonsense >>"$DIR/data/accounts"
    unstartable 'accounts that are damaged' '*data/accounts:3: *'
    rm -r "$DIR/data" "$DIR/log"
}

# Variables go before the file.
environment() {
    local port=$FREE
    configure
    export WSPUSH_COMMON_PORT=nowhere
    refused 'an ill-typed variable' 'WSPUSH_COMMON_PORT: port must be*not nowhere' -c config.ini
    refused 'for -t as well' 'WSPUSH_COMMON_PORT: port must be*not nowhere' -t -c config.ini
    export WSPUSH_COMMON_PORT=$port WSPUSH_COMON_HOST=x
    refused 'an unknown variable' 'unknown variable of the environment: WSPUSH_COMON_HOST; did you mean WSPUSH_COMMON_HOST?' -c config.ini
    unset WSPUSH_COMON_HOST
    export WSPUSH_AUTH_REGISTER_FILE=$DIR/secret
    refused 'a file that there is not' "WSPUSH_AUTH_REGISTER_FILE: $DIR/secret: No such*" -c config.ini
    printf 'key:hunter2\n\n' >"$DIR/secret"
    WSPUSH_AUTH_REGISTER=open refused 'both of a pair' \
        'WSPUSH_AUTH_REGISTER and WSPUSH_AUTH_REGISTER_FILE are both set*' -c config.ini
    head -c 70000 /dev/zero >"$DIR/secret"
    refused 'a file that is too large' "WSPUSH_AUTH_REGISTER_FILE: $DIR/secret: File too large*" -c config.ini
    printf 'maybe hunter2\n' >"$DIR/secret"
    refused 'what is in it' 'WSPUSH_AUTH_REGISTER_FILE: register must be*' -c config.ini
    expect 'which is not repeated' 0 "$(grep -c hunter2 <<<"$ERR$OUT")"
    printf 'key:hunter2 # x\r\n' >"$DIR/secret"
    sed -i 's/^host/port = 1\nhost/' "$DIR/config.ini"
    run -t
    expect 'they go before the file' '0 config.ini is good' "$STATUS $OUT$ERR"
    "$BINARY" -c "$DIR/config.ini" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    PORT=$port
    wait_for answers
    expect_match 'a value from a file, without the end of its line' '200 {"code":0,*' \
        "$(call register '{"systemId":"env","password":"p"}' -H 'Register-Key: hunter2 # x')"
    expect_match 'nobody else registers' '401 *' "$(call register '{"systemId":"env2","password":"p"}')"
    halt
    FREE=$((FREE + 1))
    configure
    start
    expect 'PORT goes before the variable' yes "$([ "$PORT" != "$port" ] && answers && echo yes)"
    halt
    unset WSPUSH_COMMON_PORT WSPUSH_AUTH_REGISTER_FILE
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
  Try       curl -w '\n' http://localhost:$PORT/api/register -d '{\"systemId\":\"demo\",\"password\":\"demo\"}'
  Register  Anyone who reaches this port may register. [auth] register restricts it.
  Calls     To log every call, start with WSPUSH_LOG_LEVEL=debug.
  Ctrl-C    Closes all clients and stops, in at most 7 s. Twice: stops at once." "$(cat "$DIR/stdout")"
    expect_match 'and logs to stderr' '*info*listening*' "$(cat "$DIR/stderr")"
    expect 'but no single request' 1 "$(wc -l <"$DIR/stderr")"
    expect 'it says on stdout where it is' "$("$BINARY" -v | head -n 1) listens on 0.0.0.0 port $PORT (no config.ini here: defaults).
  Console   http://localhost:$PORT/
  Metrics   http://127.0.0.1:7801/metrics" "$(head -n 3 "$DIR/stdout")"
    expect_match 'where the console is' '200 text/html*' \
        "$(curl -s -o /dev/null -w '%{http_code} %{content_type}' "$(awk '/Console/ { print $2 }' "$DIR/stdout")")"
    expect_match 'and metrics' '200 text/plain*' \
        "$(curl -s -o /dev/null -w '%{http_code} %{content_type}' "$(awk '/Metrics/ { print $2 }' "$DIR/stdout")")"
    expect 'and what to try, which works' '7 {"code":0,"msg":"success","data":[]}' \
        "$(wc -l <"$DIR/stdout") $(bash -c "$(sed -n 's/^  Try *curl/curl -s/p' "$DIR/stdout")")"
    expect_match 'and which the log tells' '*info system registered system="demo" remote="127.0.0.1"' "$(tail -n 1 "$DIR/stderr")"
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
    wait_for grep -q Ctrl-C "$DIR/terminal"
    expect 'addresses of IPv6 are in brackets' \
        "[::1]:$port [::1]:$FREE [::1]:$port " "$(grep -o '//[^/]*/' "$DIR/terminal" | tr -d '/' | tr '\n' ' ')"
    kill -TERM "$(cat "$DIR/pid")"
    wait $script
    welcome_says 'closed registration: neither a call nor a warning' 0 '[auth]
register = closed' 'Try|Register'
    welcome_says 'a key: the call needs it' 1 '[auth]
register = key:hunter2' "Try .*-H 'Register-Key: \.\.\.'"
    welcome_says 'which is not told, and no warning' 0 '[auth]
register = key:hunter2' 'hunter2|  Register'
    welcome_says 'how long the end may take' 1 '[common]
drain = 60
drain_wait = 0.5' 'in at most 63 s'
    welcome_says 'nothing about calls where they are logged' 0 '' Calls
}

# welcome_says NAME COUNT SECTION-TEXT REGEX: how many lines of what a start prints at a terminal match.
welcome_says() {
    configure "$3"
    rm "$DIR/terminal" # of the one before
    [[ $3 != *drain* ]] || sed -i '/^drain = 0\.1/d' "$DIR/config.ini"
    script -qec "echo \$\$ >$DIR/pid; exec $BINARY -c $DIR/config.ini $FREE" /dev/null </dev/null >"$DIR/terminal" 2>&1 &
    local script=$!
    wait_for grep -q Ctrl-C "$DIR/terminal"
    expect "at a terminal, $1" "$2" "$(grep -cE "$4" "$DIR/terminal")"
    kill -INT "$(cat "$DIR/pid")"
    wait $script
}

# over SOCKET: the status of a request over a Unix-domain socket.
over() {
    curl -s -o /dev/null --max-time 5 -w '%{http_code}' --unix-socket "$1" http://localhost/api/login -X OPTIONS
}

is_answered() {
    [ "$(over "$1")" = 200 ]
}

# start_local NAME: starts a server at $DIR/NAME/socket, whose data and log are beside it.
start_local() {
    mkdir -p "$DIR/$1"
    ADMIN='' configure
    sed "s,^host = .*,host = unix:$DIR/$1/socket,; s,$DIR/\(data\|log\),$DIR/${2-$1}/\1," "$DIR/config.ini" >"$DIR/$1/config.ini"
    "$BINARY" -c "$DIR/$1/config.ini" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for is_answered "$DIR/$1/socket"
}

# host = unix:PATH
unix_socket() {
    local socket=$DIR/one/socket other
    start_local one
    expect 'a server at a path' '200 srw-rw-rw-' "$(over "$socket") $(mode "$socket")"
    expect_match 'its log says where' '*info wspush * is listening host="unix:*/one/socket" max_connections=*' \
        "$(grep 'is listening' "$DIR/one/log")"
    expect 'and no port' 0 "$(grep -c 'port=' "$DIR/one/log")"
    sed "s,^data_dir = .*,data_dir = $DIR/data," "$DIR/one/config.ini" >"$DIR/second.ini"
    refused 'a path that is taken' "cannot listen on unix:$socket ([[]common] host): Address already in use: *another path" \
        -c second.ini
    run -t -c second.ini
    expect 'which a test allows' '0 second.ini is good' "$STATUS $OUT$ERR"
    expect 'the first one goes on' 200 "$(over "$socket")"
    refused 'a path has no port' "[[]common] host = unix:$socket has no port: leave the argument PORT out" -c second.ini 80
    local_proxy "$socket"
    halt
    expect 'the socket is gone with the server' no "$([ -e "$socket" ] && echo yes || echo no)"
    start_local one
    kill_process "$SERVER"
    SERVER=''
    expect 'a server that is killed leaves it' yes "$([ -S "$socket" ] && echo yes)"
    run -t -c one/config.ini
    expect 'a test leaves it as well' '0 yes' "$STATUS $([ -S "$socket" ] && echo yes)"
    start_local one
    expect 'the next one takes its place' 200 "$(over "$socket")"
    # as when one is started while another still drains
    other=$SERVER
    rm "$socket"
    sed "s,$DIR/one/\(data\|log\),$DIR/\1," "$DIR/one/config.ini" >"$DIR/second.ini"
    "$BINARY" -c "$DIR/second.ini" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for is_answered "$socket"
    kill_process "$other" TERM
    expect "a server removes no other one's socket" '200' "$(over "$socket")"
    halt
    rm -r "$DIR/data"
}

# local_proxy SOCKET: nginx in front of it.
local_proxy() {
    free_port
    start_nginx "server { listen 127.0.0.1:$FREE; location / { proxy_pass http://unix:$1:; proxy_http_version 1.1;
        proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$http_connection; } }" "$FREE"
    PORT=$FREE
    sign_up shop
    client a shop
    expect 'a client and a push through nginx' '200 {"code":0,"msg":"success","data":[]} {"code":7,"msg":"m","data":0}' \
        "$(call send_to_client "{'clientId':'$ID','code':7,'msg':'m','data':0}") $(frames a 1)"
    wait_for grep -q ' remote=' "$DIR/one/log"
    expect 'such a peer has no address' 'remote="::"' "$(grep -o 'remote=[^ ]*' "$DIR/one/log" | sort -u)"
    kill_process "$CLIENT"
    stop_nginx
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
            '1 wspush: cannot listen on 0.0.0.0 port 79 *below 1024 need privileges: choose a higher one*' "$? $OUT"
    else
        echo 'skip a port below 1024: here everybody may listen on it'
    fi
    echo >"$DIR/rights/secret.ini"
    chmod 0 "$DIR/rights/secret.ini"
    OUT=$(cd "$DIR/rights" && timeout 20 "${as[@]}" ./wspush -c secret.ini 2>&1)
    expect_match 'a file that may not be read' \
        '1 wspush: secret.ini: Permission denied: give a readable file with -c' "$? $OUT"
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
    OUT=$(ulimit -n 1150 && "$BINARY" -t -c "$DIR/config.ini" 2>&1)
    expect_match 'a hundred are for webhooks, ' '0 *is good' "$? $OUT"
    echo '[webhook]
allow = http://127.0.0.1/' >>"$DIR/config.ini"
    OUT=$(ulimit -n 1150 && "$BINARY" -t -c "$DIR/config.ini" 2>&1)
    expect_match 'if there may be any' '1 wspush: *ulimit -n*' "$? $OUT"
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
    count=$(metric log_lines_lost_total)
    expect "lines are lost, and counted ($count)" 1 $((count > 500))
    cat <&"$held" >"$DIR/read" &
    reader=$!
    wait_for grep -q ' error [0-9]* lines were lost' "$DIR/read"
    expect 'once it is read again it says so by itself' "$(metric log_lines_lost_total)" \
        "$(sed -n 's/.* error \([0-9]*\) lines were lost reason="Resource.*/\1/p' "$DIR/read")"
    call none '{}' >/dev/null
    expect 'and goes on' 0 "$(wait_for sh -c "tail -n 3 '$DIR/read' | grep -q 'debug call '"; echo $?)"
    expect 'no line was torn' 0 "$(grep -cv '^2[0-9-]*T[0-9:.]*Z [a-z]* [a-z0-9]' "$DIR/read")"
    kill_process $reader
    expect 'again nobody reads it' 1500 "$(flood)"
    expect 'more is lost' 1 $(($(metric log_lines_lost_total) > count + 500))
    kill_process "$SERVER" TERM
    expect 'SIGTERM ends it all the same' 0 $?
    SERVER=''
    exec {held}>&-
    rm -f "$DIR/stderr"
    sed -i 's#^level = .*#level = debug\nfile = /dev/full#' "$DIR/config.ini"
    start
    expect_match 'the disk of the log is full: calls are answered' '404 *' "$(call none '{}')"
    expect 'and lines counted' 1 $(($(metric log_lines_lost_total) > 1))
    stop
}

# both_refused NAME PATTERN: of user.ini, with the port on the command line.
both_refused() {
    refused "$1" "$2" -c user.ini "$FREE"
    refused "-t: $1" "$2" -t -c user.ini "$FREE"
}

# What root can read and the user cannot would only fail at a signal.
unreadable() {
    local as='as [[]common] user = nobody, which SIGHUP reads it as'
    cp "$DIR/config.ini" "$DIR/user.ini"
    chmod 600 "$DIR/user.ini"
    both_refused 'a configuration that the user cannot read' "$as: user.ini: Permission denied: *"
    chmod 644 "$DIR/user.ini"
    sed -i "s,^file = .*,file = $DIR/log," "$DIR/user.ini"
    touch "$DIR/log"
    both_refused 'a log that the user cannot write' \
        "[[]log] file = $DIR/log: Permission denied: * written by [[]common] user = nobody, *"
    sed -i "s,^file = .*,file = $DIR/logs/log," "$DIR/user.ini"
    certificate user
    printf '[tls]\ncert = %s\nkey = %s\n' "$DIR/user.pem" "$DIR/user.key" >>"$DIR/user.ini"
    chmod 600 "$DIR/user.key"
    both_refused 'a key that the user cannot read' "$as: [[]tls] $DIR/user.key: Permission denied: *"
    chmod 644 "$DIR/user.key"
    printf 'key:x' >"$DIR/secret"
    chmod 600 "$DIR/secret"
    export WSPUSH_AUTH_REGISTER_FILE=$DIR/secret
    both_refused 'a secret that the user cannot read' "$as: WSPUSH_AUTH_REGISTER_FILE: $DIR/secret: Permission denied*"
    unset WSPUSH_AUTH_REGISTER_FILE
    sed -i "s,^host = .*,host = unix:$DIR/socket," "$DIR/user.ini"
    refused 'a socket where the user cannot make one' "cannot listen on unix:$DIR/socket *: Permission denied: *" -c user.ini
    refused '-t: a socket where the user cannot make one' "cannot listen on unix:$DIR/socket *: Permission denied: *" -t -c user.ini
    sed -i "s,^host = .*,host = unix:$DIR/logs/socket," "$DIR/user.ini"
    run -t -c user.ini
    expect 'where it can, it is good' '0 user.ini is good' "$STATUS $OUT$ERR"
}

other_user() {
    if [ "$(id -u)" != 0 ]; then
        echo 'skip user = nobody: only root can become another user'
        return
    fi
    rm -rf "$DIR/data"
    chmod 711 "$DIR" # the other user has to reach data_dir
    mkdir "$DIR/logs"
    chown nobody "$DIR/logs"
    configure
    sed -i "s/^host/user = nobody\nhost/; s,^file = .*,file = $DIR/logs/log," "$DIR/config.ini"
    run -t "$FREE"
    expect '-t with user = nobody' '0 config.ini is good' "$STATUS $OUT$ERR"
    mkdir -m 700 "$DIR/data" # a start gives it to the user
    run -t "$FREE"
    expect 'and with a data_dir of root' '0 config.ini is good' "$STATUS $OUT$ERR"
    start
    expect 'user = nobody: it runs as nobody' "$(id -u nobody) $(id -u nobody)" \
        "$(awk '$1 == "Uid:" { print $2, $3 }' "/proc/$SERVER/status")"
    sign_up shop
    expect_match 'it can write its data' '200 {*' "$(call "${LIST[@]}")"
    mv "$DIR/logs/log" "$DIR/logs/log.1"
    kill -USR1 "$SERVER"
    wait_for grep -q 'SIGUSR1: the log has been reopened' "$DIR/logs/log"
    kill -HUP "$SERVER"
    wait_for grep -q 'SIGHUP: the conf' "$DIR/logs/log"
    expect 'it can open its log and its configuration again' 2 "$(grep -c 'SIG.* \(re\|read a\)' "$DIR/logs/log")"
    stop
    expect 'all of which is its own' "$(find "$DIR/data")" "$(find "$DIR/data" -user nobody)"
    start
    expect_match 'and is read again' '200 {*' "$(call "${LIST[@]}")"
    stop
    unreadable
    sed 's/^user = .*/user = no-such-user/' "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'a user that there is not' '*user = no-such-user: *' -c bad.ini "$FREE"
    chown root "$DIR/data/lock"
    sed 's/^user = .*/user = nobody/' "$DIR/config.ini" >"$DIR/bad.ini"
    refused 'files in data_dir that are not the user'"'"'s' '*/lock: *must belong to nobody*' \
        -c bad.ini "$FREE"
    refused '-t says so too' '*/lock: *must belong to nobody*' -t -c bad.ini "$FREE"
}

command_line
expect 'a single-node build needs neither library of a cluster' 0 \
    "$(grep -c -e libhiredis -e librabbitmq "$WSPUSH")"
mkdir "$DIR/data"
test_option
bad_files
other_place
whole_test
environment
unix_socket
mkdir -p "$DIR/data"
port_argument
defaults
terminal
without_streams
conflicts
rights
descriptors
keys
stalled_log
other_user
finish

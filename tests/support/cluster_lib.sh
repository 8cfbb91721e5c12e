# cluster_lib.sh - what the tests of a cluster share: Redis, RabbitMQ, nginx and nodes of the test's
# own; to be sourced by bash scripts in the place of lib.sh, which it brings along.
#
# Everything listens on free loopback ports, keeps its files in $DIR, and is ended by `finish`. $WHAT is what a test is
# about, in the names of checks here.
# shellcheck shell=bash disable=SC2034
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CLUSTER_WSPUSH=${CLUSTER_WSPUSH:-build/cluster-asan/wspush}

REDIS='' REDIS_PORT='' REDIS_PASSWORD=''
RABBIT='' RABBIT_PORT='' RABBIT_DIST_PORT='' EPMD='' EPMD_PORT=''
declare -A NODE NODE_PORT NODE_RPC NODE_ADMIN NODE_LOGGED # by name; NODE has the processes of those that run

quick_hashes
UNREACHABLE='503 {"code":-1007,"msg":"?*","data":\[\]}'
NOTICE='^{"code":100[12],"msg":"client o[nf]*line","data"' # how a notice begins
declare -A IDS PROCESS # of clients, by name
WHAT=''

# --- Redis ------------------------------------------------------------------------------------

# start_redis: starts it with what it has written before, on the same port. With a REDIS_PASSWORD
# it asks for one; $REDIS_CONF has more lines of its configuration.
start_redis() {
    need redis-server redis-cli
    mkdir -p "$DIR/redis"
    for _ in 1 2 3; do
        [ -n "$REDIS_PORT" ] || { free_port && REDIS_PORT=$FREE; }
        redis-server - >"$DIR/redis/out" 2>&1 <<CONF &
bind 127.0.0.1
port $REDIS_PORT
dir $DIR/redis
logfile $DIR/redis/log
save ""
appendonly yes
appendfsync always
${REDIS_PASSWORD:+requirepass $REDIS_PASSWORD}
${REDIS_CONF-}
CONF
        REDIS=$!
        for _ in {1..500}; do
            [ "$(redis PING)" != PONG ] || return 0
            runs "$REDIS" || break
            pause 0.02
        done
        kill_redis
        [ ! -d "$DIR/redis/appendonlydir" ] || break
        REDIS_PORT='' # taken by somebody else meanwhile
    done
    broken 'Redis starts' "$DIR/redis/log"
}

# redis ARGUMENT...: a command of redis-cli.
redis() {
    REDISCLI_AUTH=$REDIS_PASSWORD redis-cli -h 127.0.0.1 -p "$REDIS_PORT" "$@" 2>/dev/null
}

kill_redis() {
    [ -z "$REDIS" ] || kill_process "$REDIS"
    REDIS=''
}

stop_redis() {
    [ -z "$REDIS" ] || kill_process "$REDIS" TERM
    REDIS=''
}

freeze_redis() {
    freeze "$REDIS"
}

thaw_redis() {
    thaw "$REDIS"
}

# --- RabbitMQ ---------------------------------------------------------------------------------

# rabbit_tool NAME: prints where a script of RabbitMQ is, but not Debian's wrapper of it, which
# becomes another user.
rabbit_tool() {
    local tool
    for tool in /usr/lib/rabbitmq/bin/$1 /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/"$1"; do
        [ ! -x "$tool" ] || { echo "$tool" && return; }
    done
    command -v "$1"
}

# rabbit_run NAME [ARGUMENT...]: becomes a script of RabbitMQ, which sees nothing of the system's. A test with more
# nodes of RabbitMQ names one in $RABBIT_NODE.
rabbit_run() {
    local tool base=$DIR/${RABBIT_NODE:-rabbit} loopback='-kernel inet_dist_use_interface {127,0,0,1}'
    tool=$(rabbit_tool "$1")
    shift
    exec env -i PATH="$PATH" LANG=C.UTF-8 HOME="$base" \
        ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$EPMD_PORT" \
        RABBITMQ_NODENAME="${RABBIT_NODE:-rabbit}@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT="$RABBIT_PORT" RABBITMQ_DIST_PORT="$RABBIT_DIST_PORT" \
        RABBITMQ_MNESIA_BASE="$base/mnesia" RABBITMQ_LOG_BASE="$base/log" \
        RABBITMQ_CONF_ENV_FILE="$base/none.env" RABBITMQ_CONFIG_FILE="$base/none" \
        RABBITMQ_CONFIG_FILES="$base/none.d" RABBITMQ_ADVANCED_CONFIG_FILE="$base/none.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$base/plugins" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false $loopback" \
        RABBITMQ_CTL_ERL_ARGS="$loopback" \
        detached=1 "$tool" "$@" # detached: the script makes way for the virtual machine
}

# launch_rabbit: starts it with what it has written before, on the same ports. It takes seconds.
launch_rabbit() {
    local base=$DIR/rabbit
    need rabbitmq-server epmd
    mkdir -p "$base"
    echo '[].' >"$base/plugins"
    if [ -z "$EPMD" ]; then
        free_port && EPMD_PORT=$FREE
        free_port && RABBIT_PORT=$FREE
        free_port && RABBIT_DIST_PORT=$FREE
        epmd -address 127.0.0.1 -port "$EPMD_PORT" >"$base/epmd" 2>&1 </dev/null &
        EPMD=$!
        wait_for listens "$EPMD_PORT"
    fi
    rabbit_run rabbitmq-server >"$base/out" 2>&1 </dev/null &
    RABBIT=$!
}

# rabbit_answers: whether it says something to who speaks AMQP to it.
rabbit_answers() {
    local fd
    exec {fd}<>"/dev/tcp/127.0.0.1/$RABBIT_PORT" && printf 'AMQP\0\0\11\1' >&"$fd" &&
        [ "$(timeout 2 head -c 1 <&"$fd" | od -An -tu1)" -eq 1 ] && exec {fd}>&-
} 2>/dev/null

# await_rabbit: waits until it takes connections, for up to a minute.
await_rabbit() {
    for _ in {1..1200}; do
        (rabbit_answers) && return 0
        runs "$RABBIT" || break
        pause 0.05
    done
    broken 'RabbitMQ starts' "$DIR/rabbit/out"
}

start_rabbit() {
    launch_rabbit
    await_rabbit
}

# rabbit_ctl ARGUMENT...: a command of rabbitmqctl; takes a second or more.
rabbit_ctl() {
    (rabbit_run rabbitmqctl "$@")
}

kill_rabbit() {
    [ -z "$RABBIT" ] || kill_process "$RABBIT"
    RABBIT=''
}

freeze_rabbit() {
    freeze "$RABBIT"
}

thaw_rabbit() {
    thaw "$RABBIT"
}

# --- nodes ------------------------------------------------------------------------------------

# configure_node NAME [SECTION.KEY=VALUE...]: writes NAME.ini. A node keeps its ports for good, so
# that it is the same one when it starts again.
configure_node() {
    local name=$1 key
    [ -n "${NODE_PORT[$name]-}" ] || { free_port && NODE_PORT[$name]=$FREE; }
    [ -n "${NODE_RPC[$name]-}" ] || { free_port && NODE_RPC[$name]=$FREE; }
    [ -n "${NODE_ADMIN[$name]-}" ] || { free_port && NODE_ADMIN[$name]=$FREE; }
    local -A settings=(
        [common.host]=127.0.0.1
        [common.cluster]=true
        [common.crypto_key]=0123456789abcdef
        [common.data_dir]=$DIR/$name.data
        [common.drain]=0.1
        [redis.port]=$REDIS_PORT
        [redis.password]=$REDIS_PASSWORD
        [rabbitmq.port]=$RABBIT_PORT
        [cluster.advertise]=127.0.0.1
        [cluster.rpc_port]=${NODE_RPC[$name]}
        [cluster.node_ttl]=3
        [admin.listen]=127.0.0.1:${NODE_ADMIN[$name]}
        [log.level]=debug
        [log.file]=$DIR/$name.log
    )
    shift
    for key in "$@"; do
        settings[${key%%=*}]=${key#*=}
    done
    for key in "${!settings[@]}"; do
        printf '[%s]\n%s = %s\n' "${key%%.*}" "${key#*.}" "${settings[$key]}"
    done >"$DIR/$name.ini"
}

# launch_node NAME: starts it as it is configured, and does not wait.
launch_node() {
    touch "$DIR/$1.log"
    NODE_LOGGED[$1]=$(wc -l <"$DIR/$1.log")
    "$CLUSTER_WSPUSH" -c "$DIR/$1.ini" "${NODE_PORT[$1]}" \
        >"$DIR/$1.stdout" 2>"$DIR/$1.stderr" </dev/null &
    NODE[$1]=$!
}

# node_log NAME: prints what a node has logged since it was last started.
node_log() {
    tail -n +$((NODE_LOGGED[$1] + 1)) "$DIR/$1.log"
}

# node_says NAME PATTERN...: whether it has logged all that since it was last started.
node_says() {
    local name=$1 pattern
    shift
    for pattern in "$@"; do
        node_log "$name" | grep -q -- "$pattern" || return 1
    done
}

# await_node NAME PATTERN...: waits until it has logged all that. False if it has ended before.
await_node() {
    for _ in {1..500}; do
        node_says "$@" && return 0
        runs "${NODE[$1]}" || return 1
        pause 0.05
    done
    return 1
}

# restart_node NAME: starts a node as it is configured, and waits until it is one of the cluster.
restart_node() {
    launch_node "$1"
    await_node "$1" 'joined the cluster' 'RabbitMQ is connected' ||
        broken "the node $1 starts" <(cat "$DIR/$1.stderr" "$DIR/$1.log")
}

# start_node NAME [SECTION.KEY=VALUE...]
start_node() {
    configure_node "$@"
    restart_node "$1"
}

# readiness NAME: prints what a node says of itself.
readiness() {
    fetch /readyz "127.0.0.1:${NODE_ADMIN[$1]}" 5
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
is_ready() {
    [ "$(readiness "$1")" = ready ]
}

# figure NODE NAME: prints a metric of a node.
figure() {
    metric "$2" "127.0.0.1:${NODE_ADMIN[$1]}"
}

# at NAME: directs calls and clients at a node.
at() {
    PORT=${NODE_PORT[$1]}
}

# on NAME COMMAND...: the same for one command.
on() {
    local PORT=${NODE_PORT[$1]}
    shift
    "$@"
}

# --- clients -----------------------------------------------------------------------------------

# join NODE NAME [SYSTEM]: connects a client that stays.
join() {
    on "$1" client "$2" "${3-shop}"
    IDS[$2]=$ID PROCESS[$2]=$CLIENT
    echo 1 >"$DIR/$2.messages" # its id
    echo 0 >"$DIR/$2.notices"
}

# received messages|notices|flows NAME: prints all of the kind that a client has received.
received() {
    head -n "$(wc -l <"$DIR/$2.out")" "$DIR/$2.out" | case $1 in
        notices) grep "$NOTICE" ;;
        flows) grep '"msg":"flow"' ;;
        *) grep -v -e "$NOTICE" -e '"msg":"flow"' ;;
    esac
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_received() {
    [ "$3" = 0 ] || [ "$(received "$1" "$2" | wc -l)" -ge "$3" ]
}

# unread messages|notices NAME COUNT: waits for COUNT frames of the kind behind those already
# printed, and prints what has come. What comes too often is there the next time.
unread() {
    local seen
    read -r seen <"$DIR/$2.$1"
    wait_for has_received "$1" "$2" $((seen + $3))
    received "$1" "$2" >"$DIR/received"
    tail -n +$((seen + 1)) "$DIR/received"
    wc -l <"$DIR/received" >"$DIR/$2.$1"
}

messages() {
    unread messages "$@"
}

notices() {
    unread notices "$@"
}

# told CODE NAME USER EXTEND MEMBER...: expects that the members are told of a client, and once.
told() {
    local code=$1 name=$2 user=$3 extend=$4 member
    shift 4
    for member in "$@"; do
        expect "$WHAT: $member is told $code of $name" \
            "$(notice "$code" "${IDS[$name]}" "$user" "$extend")" "$(notices "$member" 1)"
    done
}

# quiet NAME...: expects that nothing has come that has not been looked at.
quiet() {
    local name
    pause 0.5
    for name in "$@"; do
        expect "${WHAT:+$WHAT: }$name has got nothing else" '' "$(messages "$name" 0 && notices "$name" 0)"
    done
}

# sorted_list: puts the ids of a list in order that is answered.
sorted_list() {
    local answer ids
    read -r answer
    if [[ $answer =~ ^(.*'"list":[')(.*)(\].*)$ ]]; then
        ids=$(sort <<<"${BASH_REMATCH[2]//,/$'\n'}")
        answer=${BASH_REMATCH[1]}${ids//$'\n'/,}${BASH_REMATCH[3]}
    fi
    echo "$answer"
}

# online NODE [GROUP]: prints what a node answers to get_online_list, with the ids in order.
online() {
    on "$1" call get_online_list "{'groupName':'${2-g}'}" | sorted_list | cut -d ' ' -f 2-
}

# members NAME...: prints what online does if these are the members.
members() {
    local name ids=()
    for name in "$@"; do
        ids+=("\"${IDS[$name]}\"")
    done
    printf '{"code":0,"msg":"success","data":{"count":%d,"list":[%s]}}\n' $# \
        "$(printf '%s\n' "${ids[@]}" | sort | paste -sd ,)"
}

# bind NODE NAME GROUP [USER [EXTEND]]
bind() {
    local user=${4:+",'userId':'$4'"} extend=${5:+",'extend':'$5'"}
    on "$1" call bind_to_group "{'clientId':'${IDS[$2]}','groupName':'$3'$user$extend}"
}

# --- the end ------------------------------------------------------------------------------------

# silent NAME STATUS: checks how a node has ended, and that it has printed nothing.
silent() {
    if [ "$2" != 0 ] || [ -s "$DIR/$1.stdout" ] || [ -s "$DIR/$1.stderr" ]; then
        bad "the node $1 ends with status 0 and has printed nothing" \
            "status $2: $(head -c 2000 "$DIR/$1.stdout" "$DIR/$1.stderr")"
    fi
    unset "NODE[$1]"
}

# stop_node NAME: as an operator would.
stop_node() {
    kill_process "${NODE[$1]}" TERM
    silent "$1" $?
}

kill_node() {
    kill_process "${NODE[$1]}"
    silent "$1" 0
}

freeze_node() {
    freeze "${NODE[$1]}"
}

thaw_node() {
    thaw "${NODE[$1]}"
}

# stop: what finish of lib.sh calls.
stop() {
    local name pid
    for name in "${!NODE[@]}"; do
        kill -TERM "${NODE[$name]}" 2>/dev/null # all at the same time
        thaw "${NODE[$name]}" 2>/dev/null
    done
    for name in "${!NODE[@]}"; do
        stop_node "$name"
    done
    stop_nginx
    kill_rabbit
    kill_redis
    [ -z "$EPMD" ] || kill_process "$EPMD"
    EPMD=''
    for pid in $(jobs -p); do # what a script has forgotten
        kill_process "$pid"
    done
}

trap stop EXIT # of a script that has broken off

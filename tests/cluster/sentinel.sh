#!/usr/bin/env bash
# sentinel.sh - Redis with the user of docs/cluster.md, a replica, and three Sentinels: the master is killed under
# load, and what it had not replicated is written again. And the commands that the document lists for the user are
# those that are used.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need redis-server redis-cli rabbitmq-server jq
declare -A SERVER_PORT SERVER_PID # of each Redis and Sentinel

# server NAME [ARGUMENT...]: starts a Redis with $DIR/NAME/conf.
server() {
    local name=$1
    shift
    redis-server "$DIR/$name/conf" "$@" >"$DIR/$name/out" 2>&1 &
    SERVER_PID[$name]=$!
    wait_for listens "${SERVER_PORT[$name]}" || broken "$name starts" "$DIR/$name/out"
}

new_server() {
    free_port && SERVER_PORT[$1]=$FREE
    mkdir -p "$DIR/$1"
}

# to NAME ARGUMENT...: a command of redis-cli, as the operator.
to() {
    local name=$1
    shift
    REDISCLI_AUTH=operator redis-cli -h 127.0.0.1 -p "${SERVER_PORT[$name]}" "$@" 2>/dev/null
}

start_redises() {
    local name
    for name in first second; do
        new_server $name
        cat >"$DIR/$name/conf" <<CONF
bind 127.0.0.1
port ${SERVER_PORT[$name]}
dir $DIR/$name
save ""
appendonly yes
user default on >operator ~* &* +@all
user wspush ${ACL/SECRET/secret}
masteruser default
masterauth operator
repl-diskless-sync-delay 0
CONF
    done
    server first
    server second --replicaof 127.0.0.1 "${SERVER_PORT[first]}"
    wait_for follows || broken 'the replica follows' "$DIR/second/out"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
follows() {
    to second INFO replication | grep -q 'master_link_status:up'
}

start_sentinels() {
    local name
    for name in s1 s2 s3; do
        new_server $name
        cat >"$DIR/$name/conf" <<CONF
bind 127.0.0.1
port ${SERVER_PORT[$name]}
dir $DIR/$name
user watch on >man +sentinel|get-master-addr-by-name
sentinel monitor shop 127.0.0.1 ${SERVER_PORT[first]} 2
sentinel auth-user shop default
sentinel auth-pass shop operator
sentinel down-after-milliseconds shop 1000
sentinel failover-timeout shop 5000
CONF
        server $name --sentinel
    done
    wait_for knows_all || broken 'the Sentinels know each other' "$DIR/s1/out"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
knows_all() {
    to s1 SENTINEL MASTER shop | paste - - | grep -cxE 'num-(slaves.1|other-sentinels.2)' | grep -qx 2
}

# records SERVER NODE: prints for how many clients a node has presence records there.
records() {
    to "$1" HLEN "wspush:records:$(to "$1" SMEMBERS wspush:nodes | grep ":${NODE_RPC[$2]}/")"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
has_records() {
    [ "$(records "$1" "$2")" = "$3" ]
}

# load: sends to the group, and registers systems, until the file $DIR/loaded is there.
load() {
    local i=0 DIR=$DIR
    mkdir "$DIR/load"
    while [ ! -e "$DIR/loaded" ]; do
        i=$((i + 1))
        echo "send $(DIR=$DIR/load on a call send_to_group "{'groupName':'g','code':$i,'msg':'m','data':1}")"
        echo "register $(DIR=$DIR/load on b call register "{'systemId':'shop-$i','password':'secret'}")"
    done >"$DIR/answers"
}

# answers PATTERN: prints how many answers are like that.
answered() {
    grep -c "^$1" "$DIR/answers"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
succeeds_after() {
    [ "$(tail -n +$((LINE + 1)) "$DIR/answers" | grep -c '^register 200 {"code":0')" -ge 3 ]
}

ACL=$(sed -n 's/^ACL SETUSER wspush //p' docs/cluster.md)
expect 'docs/cluster.md has one line for the user' 1 "$(wc -l <<<"${ACL:?}")"
launch_rabbit
start_redises
start_sentinels
await_rabbit
free_port # where no Sentinel is
for node in a b; do
    configure_node $node "redis.sentinels=127.0.0.1:$FREE 127.0.0.1:${SERVER_PORT[s1]}, localhost:${SERVER_PORT[s2]} 127.0.0.1:${SERVER_PORT[s3]}" \
        redis.sentinel_master=shop redis.sentinel_username=watch redis.sentinel_password=man redis.port=1 \
        redis.username=wspush redis.password=secret
    restart_node $node
done
at a
sign_up shop
join a x
join a late
join b y
for pair in 'a x' 'b y'; do
    read -r node name <<<"$pair"
    expect "$name is in the group" "$SUCCESS" "$(bind $node $name g)"
done
wait_for has_records second a 1 && wait_for has_records second b 1
expect 'the replica has the records' '1 1' "$(records second a) $(records second b)"

# what comes from now on is not replicated
to second CONFIG SET masterauth wrong >/dev/null
to second CLIENT KILL TYPE master >/dev/null
wait_for eval '! follows'
expect 'late is in the group' "$SUCCESS" "$(bind a late g)"
wait_for has_records first a 2
expect 'only the master knows that' '2 1' "$(records first a) $(records second a)"
to second CONFIG SET masterauth operator >/dev/null
load &
LOADER=$!
kill_process "${SERVER_PID[first]}"
for node in a b; do
    wait_for node_says $node 'Redis at 127.0.0.1 port '
    expect "$node says that Redis is away" 0 $?
done
for node in a b; do
    wait_for node_says $node 'Redis is back' || wait_for node_says $node 'Redis is back'
    expect "$node is at the new master" 1 "$(to second EXISTS "wspush:node:127.0.0.1:${NODE_RPC[$node]}")"
done
wait_for has_records second a 2
expect 'what the failover lost is written again' '2 1' "$(records second a) $(records second b)"
LINE=$(wc -l <"$DIR/answers")
wait_for succeeds_after
expect 'systems can be registered again' 0 $?
: >"$DIR/loaded"
wait "$LOADER"
expect 'no send has failed' "$(answered send)" "$(answered 'send 200 {"code":0')"
expect 'a call that needs Redis was -1007, or succeeded' "$(answered register)" \
    "$(($(answered 'register 200 {"code":0') + $(answered 'register 503 {"code":-1007')))"
expect 'clients may know no address of Redis' 0 "$(answered '.*127.0.0.1')"
last=$(grep -n '^register 200 {"code":0' "$DIR/answers" | tail -n 1 | cut -d: -f1)
expect_match 'a knows what b has registered' '200 *"token"*' \
    "$(TOKEN='' on a call login "{'systemId':'shop-$((last / 2))','password':'secret'}")"

# a node dies: its records are removed with the same rights
kill_node b
wait_for has_received notices x 4
expect 'the leave of a dead node is published' 1 "$(received notices x | grep -c '"code":1002')"
stop_node a
expect 'and nothing is left' '' "$(to second KEYS 'wspush:node*')"
expect 'the user may do all that it tries' '' "$(to second ACL LOG | head -n 20)"
# words that are no commands, or need no right, or are in the text below the line
sed -n 's/STR("\([A-Z]*\)")/\n+\1\n/gp' cluster_*.c redis.c | grep '^+..' | tr '[:upper:]' '[:lower:]' | sort -u |
    grep -vxE '[+](auth|select|sentinel|count|px|nx|ask|moved|match)' | sed 's/+config/+config|get/' >"$DIR/used"
expect 'the document lists the commands that the source has' "$(cat "$DIR/used")" "$(grep -o '+[a-z|]*' <<<"$ACL" | sort)"
finish

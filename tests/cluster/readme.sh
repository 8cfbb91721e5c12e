#!/usr/bin/env bash
# readme.sh - runs the chapter "Cluster" of docs/operations.md as written: cuts out its files, runs its commands, and
# makes the walk through nginx. Only Redis and RabbitMQ are the test's own.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

# block NAME: prints the block of code behind the line that begins with `NAME`.
block() {
    awk -v name="\`$1\`" '
        index($0, name) == 1 { found = 1; next }
        found && /^```/ { if (begun) exit; begun = 1; next }
        begun { print }' docs/operations.md
}

launch_rabbit
start_redis
await_rabbit
for file in node1.ini node2.ini nginx.conf; do
    block $file | sed "s/^port = 6379$/port = $REDIS_PORT/; s/^port = 5672$/port = $RABBIT_PORT/" \
        >"$DIR/$file"
    expect "$file is there" yes "$([ -s "$DIR/$file" ] && echo yes)"
done
expect 'Redis is the test'"'"'s own' 2 "$(cat "$DIR"/node?.ini | grep -c "^port = $REDIS_PORT$")"

for port in 7810 7811 7812 7821 7822 8811 8812; do
    if listens $port; then
        echo "port $port is taken on this machine: the chapter's nodes are not run"
        finish
    fi
done

# The commands of the chapter, in its folder; ./wspush is the sanitizer build.
cd "$DIR" || finish
ln -s "$OLDPWD/$CLUSTER_WSPUSH" wspush
for name in node1 node2; do
    grep -qxF "./wspush -c $name.ini" "$OLDPWD/docs/operations.md" ||
        bad "the chapter starts $name" 'there is no such line'
    : >$name.stderr # with the log on stderr,
    : >$name.log    # which is read at once
    ./wspush -c $name.ini >$name.stdout 2>$name.log &
    NODE[$name]=$!
    NODE_LOGGED[$name]=0
    await_node $name 'joined the cluster' 'RabbitMQ is connected' || broken "$name starts" $name.log
done
grep -qxF 'nginx -p . -e stderr -c nginx.conf' "$OLDPWD/docs/operations.md" ||
    bad 'the chapter starts nginx' 'there is no such line'
[ "$(id -u)" != 0 ] || sed -i '1i user root;' nginx.conf # who else would not get into $DIR
nginx -p . -e stderr -c nginx.conf >nginx.out 2>&1 &
NGINX=$!
wait_for listens 7810

PORT=7810
sign_up shop
expect_match 'login through nginx' '*.*.*' "$TOKEN"
declare -A IDS
for name in one two three four; do
    client $name shop
    IDS[$name]=$ID
    expect "$name is bound" '200 {"code":0,"msg":"success","data":[]}' \
        "$(call bind_to_group "{'clientId':'$ID','groupName':'news'}")"
done
owners() {
    for node in 7811 7812; do
        curl -s -H "Token: $TOKEN" -d "{\"clientId\":\"${IDS[$1]}\"}" \
            "http://127.0.0.1:$node/api/client_info" | jq -r .code
    done | sort -u
}
for name in one two three four; do
    expect "$name is known to both nodes" 0 "$(owners $name)"
    frames $name 4 >/dev/null
done
expect 'a group send through nginx' \
    '200 {"code":0,"msg":"success","data":{"messageId":"m","matched":4,"queued":4,"dropped":0}}' \
    "$(call send_to_group "{'groupName':'news','code':7,'msg':'hello','data':{'price':9.90},'messageId':'m','receipt':true}")"
for name in one two three four; do
    expect_match "$name gets it" '*{"code":7,"msg":"hello","data":{"price":9.90},"messageId":"m"}' \
        "$(frames $name 1 | tail -n 1)"
done
finish

#!/usr/bin/env bash
# brokers_tls.sh - TLS to RabbitMQ and Redis, which ask for a client's certificate: a certificate must be for the
# host that was dialled, an address as well as a name, and be signed by `ca`; the log says what is wrong. Where the
# build has no TLS to Redis, wspush says so and what helps.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

need openssl redis-server rabbitmq-server jq

# sign NAME ALTERNATIVES: makes $DIR/NAME.pem and $DIR/NAME.key, signed by the authority.
sign() {
    {
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -addext "subjectAltName=$2" \
            -keyout "$DIR/$1.key" -out "$DIR/$1.csr" &&
            openssl x509 -req -in "$DIR/$1.csr" -CA "$DIR/authority.pem" -CAkey "$DIR/authority.key" \
                -CAcreateserial -copy_extensions copy -days 30 -out "$DIR/$1.pem"
    } >"$DIR/openssl" 2>&1 || broken 'openssl signs a certificate' "$DIR/openssl"
}

# refused SECTION [SECTION.KEY=VALUE...]: prints what wspush -t says of a configuration.
refused() {
    configure_node a "${WAY[@]}" "$@"
    "$CLUSTER_WSPUSH" -t -c "$DIR/a.ini" 2>&1 | sed 's/^wspush: //'
}

# told NAME PATTERN [SECTION.KEY=VALUE...]: expects that a node with this configuration logs that.
told() {
    local name=$1 pattern=$2
    shift 2
    configure_node a "${WAY[@]}" "$@"
    launch_node a
    await_node a "$pattern"
    expect "$name" 1 "$(node_log a | grep -c -m 1 -- "$pattern" || node_log a | tail -n 3)"
    kill_node a
}

# tls SECTION: prints the keys for a connection that is good.
tls() {
    printf '%s\n' "$1.tls=true" "$1.ca=$DIR/authority.pem" "$1.cert=$DIR/node.pem" "$1.key=$DIR/node.key"
}

certificate authority
certificate stranger
sign broker DNS:broker.example,IP:127.0.0.1
sign node DNS:node.example
free_port && RABBIT_TLS_PORT=$FREE
mkdir -p "$DIR/rabbit"
cat >"$DIR/rabbit/none.conf" <<CONF
listeners.ssl.1 = 127.0.0.1:$RABBIT_TLS_PORT
ssl_options.cacertfile = $DIR/authority.pem
ssl_options.certfile = $DIR/broker.pem
ssl_options.keyfile = $DIR/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
CONF
launch_rabbit
free_port && REDIS_TLS_PORT=$FREE
REDIS_CONF="tls-port $REDIS_TLS_PORT
tls-cert-file $DIR/broker.pem
tls-key-file $DIR/broker.key
tls-ca-cert-file $DIR/authority.pem"
start_redis
mapfile -t RABBIT_TLS < <(tls rabbitmq)
mapfile -t REDIS_TLS < <(tls redis)
mapfile -t WAY < <(tls redis | sed 's/=.*/=/; /tls/d')

# what -t says of files
expect_match 'a file that is not there' "[[]rabbitmq] ca = $DIR/none.pem: *o such file*: give PEM files that can be read*" \
    "$(refused rabbitmq.tls=true "rabbitmq.ca=$DIR/none.pem")"
expect_match 'a key of another certificate' "[[]rabbitmq] key = $DIR/broker.key: *" \
    "$(refused "${RABBIT_TLS[@]}" "rabbitmq.key=$DIR/broker.key")"
expect_match 'a certificate without its key' '[[]rabbitmq] cert and key belong together: *' \
    "$(refused rabbitmq.tls=true "rabbitmq.cert=$DIR/node.pem")"
expect_match 'files without tls' '[[]rabbitmq] ca, cert and key have no effect without tls = true*' \
    "$(refused "rabbitmq.ca=$DIR/authority.pem")"
expect "files that are good" "$DIR/a.ini is good" "$(refused "${RABBIT_TLS[@]}")"

# Redis
REDIS_ANSWER=$(refused "${REDIS_TLS[@]}")
if [ "$REDIS_ANSWER" = "$DIR/a.ini is good" ]; then
    WAY=("${REDIS_TLS[@]}" redis.port="$REDIS_TLS_PORT")
    told 'Redis: another host' "Redis at localhost port $REDIS_TLS_PORT: its certificate is for broker.example, 127.0.0.1, not for localhost: correct" \
        redis.host=localhost
    told 'Redis: another authority' "Redis at 127.0.0.1 port $REDIS_TLS_PORT: its certificate is not trusted: " \
        "redis.ca=$DIR/stranger.pem"
    told 'Redis: no TLS at this port' "Redis at 127.0.0.1 port $REDIS_PORT: no answer in time to the TLS handshake (is this a TLS port?): " \
        redis.port="$REDIS_PORT"
    told 'Redis: it asks for a certificate' "Redis at 127.0.0.1 port $REDIS_TLS_PORT: " redis.cert= redis.key=
    told 'Redis: the address is among its names' 'joined the cluster'
else
    echo "     TLS to Redis is not tested: ${REDIS_ANSWER%%:*}"
    expect_match 'a build without TLS to Redis says so' \
        '[[]redis] tls = true needs hiredis 1.0 or later with hiredis_ssl, and this wspush was built with hiredis *: build it where libhiredis-dev has it*' \
        "$REDIS_ANSWER"
fi

# RabbitMQ
await_rabbit
WAY+=("${RABBIT_TLS[@]}" rabbitmq.port="$RABBIT_TLS_PORT")
told 'RabbitMQ: another host' "RabbitMQ at localhost port $RABBIT_TLS_PORT: its certificate is for broker.example, 127.0.0.1, not for localhost: correct" \
    rabbitmq.host=localhost
told 'RabbitMQ: another authority' "RabbitMQ at 127.0.0.1 port $RABBIT_TLS_PORT: its certificate is not trusted: " \
    "rabbitmq.ca=$DIR/stranger.pem"
told 'RabbitMQ: no TLS at this port' "RabbitMQ at 127.0.0.1 port $RABBIT_PORT: it does not speak TLS at this port: " \
    rabbitmq.port="$RABBIT_PORT"
told 'RabbitMQ: it asks for a certificate' "RabbitMQ at 127.0.0.1 port $RABBIT_TLS_PORT: " rabbitmq.cert= rabbitmq.key=
told 'RabbitMQ: a name of nobody' 'RabbitMQ at nobody.invalid port .*: this host name is not known: ' \
    rabbitmq.host=nobody.invalid
start_node a "${WAY[@]}"
at a
sign_up shop
join a x
bind a x g >/dev/null
wait_for is_ready a
DATA=$(head -c 400000 /dev/zero | tr '\0' x)
printf '{"groupName":"g","code":7,"msg":"m","data":"%s"}' "$DATA" >"$DIR/long"
for i in 1 2 3; do
    expect "a long message goes through RabbitMQ over TLS ($i)" '{"code":0,"msg":"success","data":[]}' \
        "$(post /api/send_to_group @"$DIR/long")"
done
messages x 3 >"$DIR/got"
printf '{"code":7,"msg":"m","data":"%s"}\n' "$DATA" "$DATA" "$DATA" >"$DIR/expected"
expect 'and arrives' '' "$(cmp "$DIR/expected" "$DIR/got" 2>&1)"
finish

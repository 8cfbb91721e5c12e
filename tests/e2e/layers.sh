#!/usr/bin/env bash
# layers.sh - proves that the rooms know only those below them: each file includes its own header
# first, no room includes one that is not listed for it, no listed one stands above it, and no
# header of a library is included outside the one room that may use it, or in any header.
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0

# room: what it may include. Lowest first; buf and log are open to all above them. single is what
# stands for cluster, and implements its header, in a build without task to cluster.
layers='
buf:
message:
table:
attempts:
deadline:
mailbox:
notify:
log:
file:
json:
origin:
host:
config: host origin
listen: config file
crypto:
tls: crypto
worker: crypto
http:
console: crypto http message
park:
ws: http crypto message
conn: message tls
address: config conn host http table
command: json
account: crypto file table worker
hub: command config conn crypto json table ws
cluster_wire: command crypto
cluster_order: cluster_wire
cluster_pending: cluster_wire table
cluster_lookup: worker
resolver: cluster_lookup mailbox
redis: config resolver worker
cluster_store: cluster_wire config mailbox redis
cluster_member: cluster_store worker
cluster_cleanup: cluster_store worker
cluster_registry: account cluster_cleanup cluster_member cluster_store cluster_wire config redis worker
rabbit: config
cluster_slots: cluster_wire
cluster_stream: cluster_wire
cluster_bus_event: cluster_wire mailbox
cluster_bus_state: cluster_bus_event cluster_slots cluster_stream rabbit
cluster_bus: cluster_bus_event cluster_bus_state config worker
cluster_hello: cluster_wire json
cluster_peer: cluster_lookup cluster_order cluster_wire worker
cluster_link: cluster_hello cluster_peer config conn ws
cluster_state: cluster_bus cluster_link cluster_order cluster_pending cluster_registry config conn hub
cluster_receipt: cluster_state table
cluster_route: cluster_receipt cluster_state
cluster_presence: cluster_state json table
cluster: account cluster_presence cluster_receipt cluster_route cluster_state command config crypto hub
single: cluster
api: account attempts cluster command config conn crypto http hub json table ws
admin: api cluster conn http hub
session: account address admin api cluster command config conn console http hub ws
loop: account address admin api cluster config console crypto deadline hub mailbox notify park session table tls
wspush: account config crypto file listen loop mailbox notify tls
'

# library room...: the rooms that include the library's headers.
libraries='
openssl crypto tls
openssl/ssl tls
hiredis redis
amqp rabbit
rabbitmq-c rabbit
'

check() { # check NAME PROBLEM
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1:$2"
    fi
}

own_headers() {
    sed -n 's/^#include "\([a-z_]*\).h"/\1/p' "$1"
}

below=' buf log '
while IFS=: read -r room allowed; do
    [ -n "$room" ] || continue
    problem=
    for file in "$room.c" "$room.h"; do
        [ -f "$file" ] || continue
        for used in $(own_headers "$file"); do
            [ "$used" = "$room" ] && continue
            case " buf log $allowed " in
            *" $used "*) ;;
            *) problem="$problem $file includes $used.h, which is not listed for it;" ;;
            esac
            case $below in
            *" $used "*) ;;
            *) problem="$problem $file includes $used.h, which is not below it;" ;;
            esac
        done
        while read -r library only; do
                        [ -n "$library" ] || continue
            case " $only " in *" ${file%.c} "*) continue ;; esac
            used=$(grep -oE "^#include <$library[^>]*>" "$file" | tr '\n' ' ')
            [ -z "$used" ] || problem="$problem $file includes $used;"
        done <<<"$libraries"
    done
    if [ "$room" != wspush ]; then
        first=$(own_headers "$room.c" | head -n 1)
        [ "$first" = "${room/single/cluster}" ] || problem="$problem $room.c does not include its own header first;"
    fi
    below="$below$room "
    check "$room" "$problem"
done <<EOF
$layers
EOF

for file in *.c; do
    case $below in
    *" ${file%.c} "*) ;;
    *) check "$file" ' it is not listed' ;;
    esac
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]

#!/usr/bin/env bash
# layers.sh - proves that the rooms know only those below them: each file includes its own header
# first, no room includes one that is not listed for it, no listed one stands above it, and no
# header of a library is included outside the one room that may use it, or in any header.
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0

# room: what it may include. Lowest first; buf and log are open to all above them.
layers='
buf:
table:
limit: table
timer:
log:
json:
origin:
host:
config: host origin
crypto:
os: crypto
tls: crypto
http:
console: crypto http
poller: os
ws: http crypto
conn: tls
listener: config conn os host http table
command: json
account: crypto os table
hub: command config conn crypto json table ws
cluster_wire: command crypto
cluster_order: cluster_wire
cluster_pending: cluster_wire table
cluster_lookup: os
redis: cluster_lookup config os
cluster_store: cluster_wire config os redis
cluster_member: cluster_store os
cluster_cleanup: cluster_store os
cluster_registry: account cluster_cleanup cluster_member cluster_store cluster_wire config redis os
rabbit: config
cluster_stream: cluster_wire os
cluster_bus_state: cluster_stream rabbit
cluster_bus: cluster_bus_state cluster_stream config os
cluster_peer: cluster_lookup cluster_order cluster_wire os
cluster_link: cluster_peer cluster_wire config conn ws
cluster_state: cluster_bus cluster_link cluster_order cluster_pending cluster_registry config conn hub
cluster_receipt: cluster_state table
cluster_route: cluster_receipt cluster_state
cluster_presence: cluster_state json table
cluster: account cluster_presence cluster_receipt cluster_route cluster_state command config crypto hub listener
cluster_listen: cluster
api: account limit cluster command config conn crypto http hub json table ws
metrics: api cluster conn http hub
session: account metrics api cluster command config conn console http hub listener ws
loop: account metrics api cluster config console crypto timer hub listener os poller session table tls
wspush: account cluster config crypto os listener loop tls
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
        [ "$first" = "${room/cluster_listen/cluster}" ] || problem="$problem $room.c does not include its own header first;"
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

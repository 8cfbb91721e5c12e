#!/usr/bin/env bash
# layers.sh - proves what the list of modules says. A file includes its own header first; a module
# includes only those that are listed for it, and these stand above it in the list; the header of a library is
# included by one module alone, and by no header. A server that is built without CLUSTER=1 has no symbol of the
# modules that only a cluster has. No function is defined in two modules, and the name of each begins with that of
# its module, or with one of the prefixes that are listed for it.
# build: release/wspush
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0

# MODULE: WHAT IT MAY INCLUDE. Lowest first; buf and log are open to all above them.
modules='
buf:
table:
limit: table
timer:
log:
json:
host:
crypto:
ticket: crypto json
os: crypto
tls: crypto
http:
dial:
webhook_client: host http os tls
webhook: crypto dial json os table tls webhook_client
config: host webhook_client
inbox: table
console: crypto http
poller: os
ws: http crypto
conn: tls
listener: config conn os host http table
account_store: crypto os
account_queue: account_store os
account_table: account_queue crypto os table
account: account_queue account_store account_table os table
resume: config crypto
channel: conn resume table
once: json
command: channel conn json ws
event: channel conn json webhook
hub: channel command config conn crypto event json once table ticket ws
hub_resume: hub
roster: hub
cluster_crypto: crypto hub tls
cluster_wire: cluster_crypto crypto hub
cluster_order: cluster_wire json
cluster_pending: cluster_wire table ticket
cluster_lookup: os
cluster_tls: config os
redis: cluster_lookup cluster_tls config host os
cluster_store: cluster_wire config os redis
cluster_member: cluster_store os
cluster_cleanup: cluster_store os
cluster_registry: account cluster_cleanup cluster_member cluster_store cluster_wire config redis os
rabbit: cluster_tls config dial host
cluster_stream: cluster_wire os
cluster_bus_state: cluster_stream rabbit
cluster_bus: cluster_bus_state cluster_stream config os
cluster_peer: cluster_lookup cluster_order cluster_wire os
cluster_link: cluster_crypto cluster_peer cluster_wire config conn ws
cluster_state: cluster_bus cluster_link cluster_order cluster_pending cluster_registry config conn hub
cluster_receipt: cluster_state table
cluster_census: cluster_state roster
cluster_farewell: cluster_state event
cluster_adopt: cluster_farewell cluster_state hub_resume json
cluster_route: cluster_adopt cluster_census cluster_receipt cluster_state
cluster_change: account cluster_route cluster_state
cluster_presence: cluster_change cluster_state json table
cluster_batch: cluster_adopt cluster_presence cluster_route cluster_state
cluster: account cluster_adopt cluster_batch cluster_census cluster_change cluster_crypto cluster_farewell cluster_presence cluster_receipt cluster_route cluster_state config crypto hub roster ticket
cluster_listen: cluster_tls config listener redis
api_request: account cluster config crypto http hub json limit table ws
api_account: api_request conn crypto ticket webhook_client
api: account api_account api_request cluster config conn crypto host http hub json ws
metrics: api cluster conn http hub os ticket
session_http: account api cluster config conn console host http hub hub_resume inbox listener metrics os ticket ws
session: config conn event hub hub_resume inbox session_http ws
sessions: listener poller session timer
loop: hub_resume os poller session sessions tls
server: account api cluster config console crypto hub listener loop poller session
wspush: account cluster cluster_listen config crypto listener os server tls
'

# MODULE PREFIX...: the types of their own that a module has. cluster_NAME has NAME for a prefix as well.
prefixes='
buf str utf8 rcbuf fifo bytes
log die
os mailbox
limit throttle buckets quota
wspush main
account_store account
account_queue account
account_table account
api_request api
api_account api
command result
session_http session
webhook_client receiver
cluster_wire msg node hello
cluster_lookup resolver
cluster_stream bus slots
cluster_bus_state bus
cluster_link links
cluster_listen cluster
'

# LIBRARY MODULE...: who includes the headers of the library.
libraries='
openssl crypto tls cluster_crypto cluster_tls
openssl/ssl tls cluster_crypto cluster_tls
hiredis redis
amqp rabbit
rabbitmq-c rabbit
'

# check NAME PROBLEM: counts one test.
check() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: $2"
    fi
}

# own_headers FILE: prints the modules that a file includes.
own_headers() {
    sed -n 's/^#include "\([a-z_]*\).h"/\1/p' "$1"
}

# wrong_includes MODULE WHAT-IT-MAY-INCLUDE MODULES-ABOVE-IT: prints what is wrong with its files.
wrong_includes() {
    local file used library users
    for file in "$1.c" "$1.h"; do
        [ -f "$file" ] || continue
        for used in $(own_headers "$file"); do
            [ "$used" != "$1" ] || continue
            [[ " buf log $2 " == *" $used "* ]] || echo "$file includes $used.h, which is not listed for it"
            [[ $3 == *" $used "* ]] || echo "$file includes $used.h, which is not below it"
        done
        while read -r library users; do
            [[ " $users " != *" ${file%.c} "* ]] || continue
            grep -oE "^#include <${library}[^>]*>" "$file" | sed "s/^/$file has /"
        done <<<"${libraries:1:-1}"
    done
    [ "$1" = wspush ] || [ "$(own_headers "$1.c" | head -n 1)" = "$1" ] ||
        echo "$1.c does not include its own header first"
}

includes() {
    local module allowed below=' buf log ' file
    while IFS=: read -r module allowed; do
        check "$module" "$(wrong_includes "$module" "$allowed" "$below")"
        below+="$module "
    done <<<"${modules:1:-1}"
    for file in *.c; do
        [[ $below == *" ${file%.c} "* ]] || check "$file" 'it is not listed'
    done
}

# functions FILE...: prints "FILE NAME" for each function that is defined there: what begins at the margin, has a
# name before its first parenthesis, and has a body.
functions() {
    awk 'FNR == 1 { name = "" }
        /^[a-zA-Z_].*[(]/ && !/^(typedef|struct [a-z_]+ [{]|enum [a-z_]+ [{])/ {
            name = $0
            sub(/[(].*/, "", name)
            sub(/.*[ *]/, "", name)
        }
        /^[^ \t].*;$/ || /^[ \t].*[)];$/ { name = "" }
        /^[{]/ && name { print FILENAME, name; name = "" }' "$@"
}

# cluster_modules: prints those that only a build for clusters has.
cluster_modules() {
    sed -n 's/^CLUSTER_MODULES = //p' Makefile | tr ' ' '\n'
}

# The functions of a cluster's modules have names of their own, so that a symbol says where it is from.
single_node() {
    local symbols
    symbols=$(nm build/release/wspush | awk '{ print $NF }' | sed 's/[.].*//')
    check 'nm knows the functions of the server' "$(grep -qx loop_run <<<"$symbols" || echo 'loop_run is not there')"
    check 'a server that is alone has no function of a cluster' "$(
        # shellcheck disable=SC2046 # a list of words
        functions $(cluster_modules | sed 's/$/.c/') | awk '{ print $2 }' | sort -u | comm -12 - <(sort -u <<<"$symbols") | xargs
    )"
    check 'nor anything else of one' "$(grep -iE 'cluster|amqp|^redis' <<<"$symbols" | xargs)"
}

names() {
    local file name module allowed
    check 'every function has a name of its own' \
        "$(functions ./*.c | awk '{ print $2 }' | sort | uniq -d | xargs)"
    while IFS=: read -r module _; do
        allowed=$(sed -n "s/^$module //p" <<<"$prefixes")
        check "$module: names" "$(functions "$module.c" | while read -r file name; do
            for prefix in "$module" "${module#cluster_}" $allowed; do
                case $name in "$prefix" | "$prefix"_*) continue 2 ;; esac
            done
            echo "$name"
        done | xargs)"
    done <<<"${modules:1:-1}"
}

includes
names
single_node
echo "$passed passed, $failed failed"
[ $failed = 0 ]

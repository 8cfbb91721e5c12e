#!/usr/bin/env bash
# account_changes.sh - accounts that change, in a cluster: what is over on the node that was asked is over on the others
# within a second, and a node whose link was down learns of it when it is linked again.
# build: cluster-asan/wspush
# shellcheck source=tests/support/cluster_lib.sh
. "$(dirname "$0")/../support/cluster_lib.sh"

# enter NODE PASSWORD: logs in through a node; its token is in $TOKEN.
enter() {
    TOKEN=''
    on "$1" call login "{'systemId':'shop','password':'$2'}" >/dev/null
    TOKEN=$(jq -r .data.token "$DIR/body")
}

# says NODE PATTERN: what a node says of $TOKEN.
# shellcheck disable=SC2317,SC2329 # called by wait_for
says() {
    # shellcheck disable=SC2254 # the pattern is one
    case $(on "$1" refusal "${LIST[@]}") in
    $2) return 0 ;;
    esac
    return 1
}

# soon NAME COMMAND...: expects that a command succeeds, within a second unless the machine is busy.
soon() {
    local name=$1 begin=${EPOCHREALTIME/[.,]/}
    shift
    expect "$name" 0 "$(wait_for "$@"; echo $?)"
    expect_time "$name: within a second" 0 1000 $(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
}

REVOKED='401 -1002 *revoked*'
GOOD='200 is no envelope*' # a list

# Every node knows the token, so none has to ask for the first time.
known() {
    local node
    for node in "$@"; do
        on "$node" call "${LIST[@]}" >/dev/null
        expect "$node knows the token" 0 "$(wait_for says "$node" "$GOOD"; echo $?)"
    done
}

set_password() {
    enter a secret
    known a b
    on a call set_password "{'password':'secret','newPassword':'new'}" >/dev/null
    expect 'a password is set: the token is over where that was asked' 0 "$(says a "$REVOKED"; echo $?)"
    soon 'and on another node' says b "$REVOKED"
    enter b new
    expect 'the new one is good on both' '0 0' "$(says a "$GOOD"; echo -n "$? "; says b "$GOOD"; echo $?)"
}

rotate() {
    local before after
    known a b
    before=$(on b call ticket_key '{}')
    expect 'both nodes tell one key' "$before" "$(on a call ticket_key '{}')"
    after=$(on a call ticket_key "{'rotate':true}")
    expect_match 'it is rotated' '200 {"code":0,"msg":"success","data":{"key":"?*","version":*}}' "$after"
    expect 'which is another one' different "$([ "$before" = "$after" ] || echo different)"
    soon 'the other node tells that one' tells b "$after"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
tells() {
    [ "$(on "$1" call ticket_key '{}')" = "$2" ]
}

delete_system() {
    local node before
    for node in a b; do
        join $node "one$node"
        join $node "two$node"
        bind $node "one$node" g >/dev/null
    done
    known a b
    expect 'a system is deleted' "$SUCCESS" "$(on a call delete_system "{'password':'new'}")"
    for node in a b; do
        expect "its clients on $node are closed" '4401 system deleted' "$(closed "one$node")"
        expect "all on $node" '4401 system deleted' "$(closed "two$node")"
        soon "the token is over on $node" says $node '200 -1001 *'
        join $node "late$node"
        expect_match "nobody can connect to $node" '*"code":-1001,*' "$(head -n 1 "$DIR/late$node.out")"
    done
    expect 'b says why' 1 "$(node_log b | grep -c 'system deleted through another node system="shop"')"
    expect 'no presence record is left' 0 "$(wait_for no_records; echo $?)"
    before=$TOKEN
    TOKEN=''
    on b call register "{'systemId':'shop','password':'secret'}" >/dev/null
    TOKEN=$before
    expect 'registered again: the token of before is not good' '1 1' \
        "$(says a "$GOOD"; echo -n "$? "; says b "$GOOD"; echo $?)"
    enter a secret
    join b back
    expect 'clients connect again' "$SUCCESS" "$(on a call send_to_client "{'clientId':'${IDS[back]}',$MESSAGE}")"
}

# shellcheck disable=SC2317,SC2329 # called by wait_for
no_records() {
    [ -z "$(redis --scan --pattern 'wspush:records:*')" ]
}

# A node that stands still has missed the change, and its link breaks: it is told again.
links_cut() {
    join b cut
    known a b
    freeze_node b
    wait_for node_says a 'the link to a node has broken'
    expect 'while a node is out of touch a system is deleted' "$SUCCESS" \
        "$(on a call delete_system "{'password':'secret'}")"
    thaw_node b
    expect 'when it is linked again its clients are closed' '4401 system deleted' "$(closed cut)"
    expect 'and the token is over' 0 "$(wait_for says b '200 -1001 *'; echo $?)"
    TOKEN=''
    on b call register "{'systemId':'shop','password':'secret'}" >/dev/null
    enter a secret
}

start_redis
start_rabbit
start_node a
start_node b
at a
sign_up shop
set_password
rotate
delete_system
links_cut
finish

#!/usr/bin/env bash
# migrating.sh - docs/migrating-from-go-websocket.md is true of wspush. Each row of its tables on calls and clients is
# tried: what a server says must be what stands in the last cell, in backticks. No row may be left out.
# build: asan/wspush
# shellcheck disable=SC2016 # the backticks are those of the document
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

DOCUMENT=docs/migrating-from-go-websocket.md
BINARY=$PWD/$WSPUSH
case $WSPUSH in /*) BINARY=$WSPUSH ;; esac

# rows CHAPTER: the rows of the table of a chapter, without its head.
rows() {
    awk -v title="## $1" '/^## / { inside = $0 == title } inside && /^\| / && !/^\| \| / && !/^\|---/' "$DOCUMENT"
}

# claims: of rows, what the last cells say of answers, frames and closes, one a line.
claims() {
    awk -F '|' '{ print $(NF - 1) }' | grep -o '`[^`]*`' | tr -d '`' | grep -E '^([0-9]{3} |[0-9]{4}( |$)|\{|pong$)'
}

# row NAME: the row with this first cell.
row() {
    awk -F '|' -v name=" $1 " '/^\| / && $2 == name' "$DOCUMENT"
}

# tried ROW SAID...: what was said, one a line, is what the row claims; ids, tokens and ports are an ellipsis there.
tried() {
    local name=$1
    shift
    echo "$name" >>"$DIR/tried"
    expect "$name" "$(row "$name" | claims)" "$(printf '%s\n' "$@" |
        sed -E 's/("token":")[^"]*/\1…/; s/"[0-9a-f]{16}"/"…"/g; s/(Host )127[.0-9:]*[0-9]/\1…/')"
}

# all_tried CHAPTER: no row of its table was left out, and none made up.
all_tried() {
    rows "$1" | awk -F '|' '{ print $2 }' | sed 's/^ //; s/ $//' | sort >"$DIR/rows"
    expect "every row of \"$1\" was tried" '' "$(sort "$DIR/tried" | diff "$DIR/rows" - | grep '^[<>]')"
    rm "$DIR/tried"
}

calls() {
    local id other gone='"0123456789abcdef"' to text bytes_129
    text="'code':7,'msg':'m','data':'text'"
    bytes_129=$(printf '%0129d' 0)
    configure
    start
    tried 'register' "$(call register "{'systemId':'shop','password':'secret'}")"
    tried 'register without a password' "$(call register "{'systemId':'shop'}")"
    tried 'register a name that is taken' "$(call register "{'systemId':'shop','password':'p'}")"
    tried 'log in' "$(call login "{'systemId':'shop','password':'secret'}")"
    login shop
    expect 'the length of a token' $((99 + 2 * 4)) ${#TOKEN}
    tried 'log in with a wrong password' "$(call login "{'systemId':'shop','password':'p'}")"
    tried 'no `Token`' "$(TOKEN='' call "${LIST[@]}")"
    tried 'a `Token` that is wrong or expired' "$(TOKEN=f34a481f9052da57 call "${LIST[@]}")"
    tried '`SystemId` without `Token`' "$(TOKEN='' call "${LIST[@]}" -H 'SystemId: shop')"
    TOKEN='' call register "{'systemId':'other','password':'p'}" >/dev/null
    client stranger other
    other="'clientId':'$ID'"
    client one shop
    id=$ID to="'clientId':'$ID'"
    tried 'send to a client' "$(call send_to_client "{$to,$text}")"
    tried 'the same with `"receipt":true`' "$(call send_to_client "{$to,$text,'receipt':true}")"
    tried 'send to a client that is gone' "$(call send_to_client "{'clientId':$gone,$text}")"
    tried 'bind a client that is gone' "$(call bind_to_group "{'clientId':$gone,'groupName':'g'}")"
    tried 'send to a client of another system' "$(call send_to_client "{$other,$text}")"
    tried 'send to clients, one of them gone' "$(call send_to_clients "{'clientIds':['$id',$gone],$text}")"
    tried '`code` left out' "$(call send_to_client "{$to,'msg':'m','data':1}")"
    tried '`msg` left out' "$(call send_to_client "{$to,'code':7,'data':1}")"
    tried '`data` left out' "$(call send_to_client "{$to,'code':7,'msg':'m'}")"
    tried '`clientId` left out' "$(call send_to_client "{$text}")"
    tried '`groupName` left out' "$(call send_to_group "{$text}")"
    tried 'a field in other case, such as `"Code"`' "$(call send_to_client "{$to,'Code':7,'msg':'m','data':1}")"
    tried 'a groupName of more than 128 bytes' "$(call bind_to_group "{$to,'groupName':'$bytes_129'}")"
    tried '`code` in a string' "$(call send_to_client "{$to,'code':'7','msg':'m','data':1}")"
    tried 'a body cut short' "$(call send_to_client '{')"
    tried 'text behind the object' "$(call get_online_list "{'groupName':'g'} x")"
    head -c 1048577 /dev/zero >"$DIR/long"
    tried 'a body of more than 1 MiB' "$(call send_to_client "@$DIR/long")"
    tried '`Content-Type: application/x-www-form-urlencoded`, as curl sends it' "$(call "${LIST[@]}")"
    tried 'a page of another site calls register' \
        "$(call register "{'systemId':'page','password':'p'}" -H 'Origin: https://shop.example')"
    tried 'the list of a group that nobody is in' "$(call get_online_list "{'groupName':'nobody'}")"
    call bind_to_group "{$to,'groupName':'g'}" >/dev/null
    expect 'the list names who is in the group' 1 "$(online_count g)"
    tried 'close a client' "$(call close_client "{$to}")"
    wait_for test "$(online_count g)" = 0
    tried 'the list after a client has left' "$(call "${LIST[@]}")"
    tried 'a path that does not exist' "$(call none '{}')"
    tried 'GET' "$(call "${LIST[@]}" -X GET)"
    all_tried 'Calls and answers'
    # the accounts of February 2020 are what /api/register takes
    expect 'an account as go-websocket kept it' "$SUCCESS" \
        "$(call register "{'systemId':'old','password':'secret','register_time':1582366000}")"
    login old
    expect 'can log in' 200 "$(call "${LIST[@]}" | cut -c 1-3)"
    halt
}

# refused_client NAME QUERY: what a client is told that is not let in.
refused_client() {
    client "$1" "$2"
    head -n 1 "$DIR/$1.out"
    closed "$1"
}

# sent FIELDS: what the client `one` gets of a message with these fields.
sent() {
    call send_to_client "{'clientId':'$one',$1}" >/dev/null
    frames one 1
}

clients() {
    local one data='{"b":1,"a":"<&>","n":12345678901234567890,"f":1.0}'
    configure
    start
    sign_up shop
    client one shop
    one=$ID
    tried 'first frame' "$(head -n 1 "$DIR/one.out")"
    tried 'length of the clientId'
    expect 'the clientId' yes "$(grep -qE '^[0-9a-f]{16}$' <<<"$one" && echo yes)"
    tried 'a push' "$(sent "'code':7,'msg':'m','data':'text'")"
    tried 'a push with `sendUserId` and `messageId`' \
        "$(sent "'code':7,'msg':'m','data':'text','sendUserId':'u1','messageId':'m1'")"
    tried "a push whose \`data\` is \`$data\`" "$(sent "'code':7,'msg':'m','data':$data")"
    tried 'systemId missing' "$(refused_client none '')"
    tried 'systemId not registered' "$(refused_client unknown nobody)"
    client two shop
    call bind_to_group "{'clientId':'$one','groupName':'news'}" >/dev/null
    # had there been a notice of the connection, it would come first
    tried 'a client is bound to the group' "$(frames one 1)"
    tried 'another client connects'
    call bind_to_group "{'clientId':'$ID','groupName':'news'}" >/dev/null
    expect 'also to itself' "$(IN=news notice 1001 "$ID")" "$(frames two 1)"
    expect 'and to the others' "$(IN=news notice 1001 "$ID")" "$(frames one 1)"
    kill_process "$CLIENT" # its connection breaks, without a close frame
    tried 'a client of the group disconnects' "$(frames one 1)"
    echo ping >"$DIR/one.in"
    tried 'a client sends the text `ping`' "$(frames one 1)"
    echo id >"$DIR/one.in"
    tried 'a client sends the text `id`' "$(frames one 1)"
    printf '%09000d\n' 0 >"$DIR/one.in"
    tried 'a client sends more than 8,192 bytes' "$(closed one)"
    client three shop
    call close_client "{'clientId':'$ID'}" >/dev/null
    tried 'a client is closed by `/api/close_client`' "$(closed three | sed 's/ $//')"
    halt
    notices_of_the_system
    silence
    all_tried 'What clients receive'
}

# The block of configuration in the document is for this.
notices_of_the_system() {
    configure '[notice]
scope = system'
    start
    sign_up shop
    client one shop
    expect 'a client is told of itself' "$(IN='' notice 1001 "$ID")" "$(frames one 1)"
    client two shop
    tried 'the same with `scope = system`' "$(frames one 1)"
    call bind_to_group "{'clientId':'$ID','groupName':'news'}" >/dev/null
    kill_process "$CLIENT"
    # no notice of the group before it
    tried 'the same with `scope = system` and any client' "$(frames one 1)"
    halt
}

# 35 s are short here.
silence() {
    local said
    configure '[websocket]
ping = 0.2
pong_timeout = 0.2'
    start
    sign_up shop
    said=$(lines 'GET /ws?systemId=shop HTTP/1.1' "${UPGRADE[@]}" | talk | LC_ALL=C tr -d '\0' |
        LC_ALL=C sed -n 's/.*\x03\xe9\(no pong\)$/1001 \1/p')
    tried 'a client is silent and answers no ping' "$said"
    halt
}

# Files of the original, and names in them: an error says what the table says.
configuration() {
    local name section cell
    awk '/^```ini/ { inside = 1; next } /^```/ { inside = 0 } inside' "$DOCUMENT" >"$DIR/its.ini"
    expect_match 'the file in the document is good' '*its.ini is good' "$("$BINARY" -t -c "$DIR/its.ini" 2>&1)"
    expect 'it has both settings' 'port = 666 scope = system' "$(grep ' = ' "$DIR/its.ini" | paste -sd ' ')"
    for name in HttpPort RPCPort CryptoKey amqpurl; do
        section=common
        [ $name != amqpurl ] || section=rabbitMQ
        printf '[%s]\n%s = 1\n' $section $name >"$DIR/theirs.ini"
        cell=$(grep "^| .*\`$name\`.* |" "$DOCUMENT" | awk -F '|' '{ print $(NF - 1) }' | grep -o '`[a-z_]*`' |
            head -n 1 | tr -d '`')
        expect_match "$name is $cell" "*theirs.ini:2: unknown key: $name; in wspush it is *$cell*$DOCUMENT)" \
            "$("$BINARY" -t -c "$DIR/theirs.ini" 2>&1)"
    done
    printf '[common]\ncluster = false\n[etcd]\nEndpoints =\n' >"$DIR/theirs.ini"
    expect_match 'etcd is not used' "*theirs.ini:3: unknown section: etcd; remove *$DOCUMENT)" \
        "$("$BINARY" -t -c "$DIR/theirs.ini" 2>&1)"
    # that of February 2020, with a key
    printf '%s\n' '[common]' 'cluster = false' 'crypto_key = Adba723b7fe06819' '' \
        '[redis]' 'host = 127.0.0.1' 'port = 6379' 'password =' >"$DIR/theirs.ini"
    expect_match 'a file of February 2020 is good as it is' '*theirs.ini is good' \
        "$("$BINARY" -t -c "$DIR/theirs.ini" 2>&1)"
}

# The Chinese document claims the same, row by row.
both_languages() {
    expect 'the Chinese document claims the same' "$(grep '^| ' "$DOCUMENT" | claims)" \
        "$(grep '^| ' "${DOCUMENT%.md}.zh-CN.md" | claims)"
}

quick_hashes
calls
clients
configuration
both_languages
finish

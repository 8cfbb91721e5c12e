#!/usr/bin/env bash
# limits.sh - floods from one address, and guessed passwords: who is not part of them is served all
# the while. And: nothing secret is logged or answered, and no line of the log can be forged.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

quick_hashes
STRANGER=(--interface 127.0.0.2) # an address of its own
LOGIN="{'systemId':'shop','password':'secret'}"

# flood: guesses passwords from the stranger's address, 4 at a time, until $DIR/enough is there or
# 600 have been answered; prints the answers.
# shellcheck disable=SC2329 # called in the background
flood() {
    local i round
    for round in {1..150}; do
        [ ! -e "$DIR/enough" ] || return 0
        for i in {1..4}; do
            curl -s --max-time 300 -w '\n%{http_code}\n' "${STRANGER[@]}" \
                "http://127.0.0.1:$PORT/api/login" \
                -d "{\"systemId\":\"shop\",\"password\":\"guess $round $i\"}" >>"$DIR/guesses.$i" &
        done
        wait
    done
}

# throttled PASSWORD: prints what a login from the stranger's address is told, unless it is the one that
# waits there for its turn.
throttled() {
    TOKEN='' call login "{'systemId':'shop','password':'$1'}" "${STRANGER[@]}" >/dev/null
    [ "$(status)" = 429 ] && echo "429 $(header retry-after)"
}

guessing() {
    local i slowest=0 begin took flood
    flood &
    flood=$!
    SECONDS=0
    wait_for grep -q -- -1005 "$DIR"/guesses.1
    for i in {1..40}; do
        begin=${EPOCHREALTIME/[.,]/}
        call "${LIST[@]}" >/dev/null
        took=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
        [ "$took" -le "$slowest" ] || slowest=$took
        [ "$(status)" = 200 ] || break
    done
    expect "while passwords are guessed, calls are answered (slowest $slowest ms)" '40 200' \
        "$i $(status)"
    expect_match 'and the right password from elsewhere is accepted' '200 {"code":0,*' \
        "$(TOKEN='' call login "$LOGIN")"
    for i in {1..12}; do # on a busy machine ten of them take their time
        ! wait_for grep -q '^429' "$DIR"/guesses.1 || break
    done
    expect_match 'from that address a password is told how long to wait' '429 [1-9]*' \
        "$(throttled guess-a || throttled guess-b || throttled guess-c)"
    expect_match 'but the right one, which has been accepted before, gets in' '200 {"code":0,*' \
        "$(TOKEN='' call login "$LOGIN" "${STRANGER[@]}")"
    touch "$DIR/enough"
    wait $flood
    expect_match 'what was good elsewhere is no reason to let another one in' '200 -1005 *' \
        "$(TOKEN='' refusal login "{'systemId':'shop','password':'Secret'}")"
    expect_match 'another system is not concerned there' '200 -1005 *' \
        "$(TOKEN='' refusal login "{'systemId':'other','password':'guess'}" "${STRANGER[@]}")"
    i=$(cat "$DIR"/guesses.* | grep -c '^200$')
    # ten, those under way at that time, and one each 6 s
    expect "few guesses were answered at all ($i in $SECONDS s)" 1 $((i >= 10 && i <= 30 + SECONDS / 6))
    expect 'and none with a token' 0 "$(cat "$DIR"/guesses.* | grep -c token)"
}

# Many addresses register random names as fast as they are answered: they have their own places, and the
# owner of an account logs in.
crowding() {
    local i crowd=()
    for i in {1..24}; do
        while [ ! -e "$DIR/crowded" ]; do
            curl -s -o /dev/null -w '%{http_code}\n' --max-time 60 --interface "127.0.1.$i" \
                "http://127.0.0.1:$PORT/api/register" \
                -d "{\"systemId\":\"x$RANDOM$RANDOM\",\"password\":\"p\"}" >>"$DIR/crowd.$i"
            sleep 0.2
        done &
        crowd+=($!)
    done
    wait_for grep -q 429 "$DIR"/crowd.*
    expect_match 'a crowd that registers keeps no owner out' '200 {"code":0,*' \
        "$(TOKEN='' call login "{'systemId':'other','password':'secret'}" --interface 127.0.0.5)"
    touch "$DIR/crowded"
    wait "${crowd[@]}"
}

# One address takes all it can get, and keeps it.
hoarding() {
    local fds=() fd i
    client mine shop
    for i in {1..60}; do
        # where bash can bind no address, curl can: a request that does not end before $DIR/hoarded is there
        (until [ -e "$DIR/hoarded" ]; do sleep 0.3; done | curl -s --max-time 100 "${STRANGER[@]}" -T - -o "$DIR/hoard.$i" \
            -w '%{http_code}' "http://127.0.0.1:$PORT/api/login" -X POST \
            >"$DIR/hoard.$i.status" 2>/dev/null) &
    done
    wait_for grep -q 'too many connections' "$DIR"/hoard.*
    expect 'max_per_ip: who hoards connections keeps nobody else out' '200 200 200 200 200' \
        "$(for i in 1 2 3 4 5; do call "${LIST[@]}" >/dev/null; echo -n "$(status) "; done | sed 's/ $//')"
    client other shop
    expect_match 'nor new clients' '[0-9a-f]*' "$ID"
    call send_to_client "{'clientId':'$ID','code':1,'msg':'m','data':1}" >/dev/null
    expect 'nor their messages' '{"code":1,"msg":"m","data":1}' "$(frames other 1)"
    touch "$DIR/hoarded"
    wait_for sh -c "grep -l . '$DIR'/hoard.*.status | wc -l | grep -qx 60"
    expect 'some are told so' yes \
        "$(grep -q '"code":-1006,"msg":"too many connections: ' "$DIR"/hoard.* && echo yes)"
}

# --- secrets ----------------------------------------------------------------------------------

# What must not be read anywhere.
SECRETS=('pass.word-of-shop' 'key.to-register' '0123456789abcdeF')

secrets() {
    local account="{'systemId':'vault','password':'${SECRETS[0]}'}" wrong line TOKEN='' i
    local key=(-H "Register-Key: ${SECRETS[1]}")
    {
        call register "$account" "${key[@]}"
        call register "$account" "${key[@]}"
        call register "$account" -H "Register-Key: ${SECRETS[1]}x"
        call login "${account/:\'pass/:\'Pass}"
        call login "{'systemId':'vault','password':'${SECRETS[0]}"
        call login "{'systemId':'vault','password':['${SECRETS[0]}']}"
        call login "{'systemId':'vault','password':'${SECRETS[0]}$(printf '%0300d' 0)'}"
    } >"$DIR/answers"
    call login "$account" >/dev/null
    TOKEN=$(jq -r .data.token "$DIR/body")
    SECRETS+=("$TOKEN")
    for wrong in "x$TOKEN" "${TOKEN%?}" "${TOKEN/./..}"; do
        TOKEN=$wrong call "${LIST[@]}"
    done >>"$DIR/answers"
    call "${LIST[@]}" -H "Token: $TOKEN" >>"$DIR/answers"
    client a vault
    timeout 2 websocat -nq "ws://127.0.0.1:$PORT/ws?systemId=vault&token=$TOKEN" </dev/null >/dev/null 2>&1
    printf '\xff\xff%s' "$TOKEN" | talk >>"$DIR/answers"
    expect_match 'the calls were what they should be' '*success*-1004*Register-Key*-1005*' \
        "$(tr -d '\n' <"$DIR/answers")"
    for i in "${!SECRETS[@]}"; do
        expect "secret $i is in no answer" 0 "$(grep -acF -e "${SECRETS[i]}" "$DIR/answers")"
        expect "secret $i is not in the log" 0 "$(grep -acF -e "${SECRETS[i]}" "$DIR/log")"
    done
    expect 'nor a password in the accounts' 0 "$(grep -rlF -e "${SECRETS[0]}" "$DIR/data" | wc -l)"
}

# Peers' bytes in every place that the log could take them from.
forgery() {
    local evil=$'x\n2026-01-01T00:00:00.000Z error forged line' encoded='x%0a2026-01-01T00:00:00.000Z%20error%20forged%20line'
    local TOKEN=${SECRETS[3]} id key=(-H "Register-Key: ${SECRETS[1]}")
    client f "vault&x=$encoded"
    client g "$encoded"
    curl -s -o /dev/null "http://127.0.0.1:$PORT/$encoded" -H "User-Agent: $encoded"
    printf 'GET /%s HTTP/1.1\r\n\r\n' "$evil" | talk >/dev/null
    client h vault
    id=$ID
    post /api/bind_to_group "$(jq -nc --arg id "$id" --arg evil "$evil" \
        '{clientId: $id, groupName: "g", userId: "u", extend: $evil}')" >/dev/null
    expect 'a reason of two lines' '{"code":0,"msg":"success","data":[]}' "$(post /api/close_client "$(jq -nc --arg id "$id" --arg evil "$evil" \
        '{clientId: $id, reason: $evil}')")"
    wait_for grep -q 'reason: "x.n2026' "$DIR/h.err"
    # the one thing of a peer that is logged is the name of its system
    TOKEN=
    call register "{'systemId':'q\\\"é','password':'x'}" "${key[@]}" >/dev/null
    call login "{'systemId':'q\\\"é','password':'x'}" >/dev/null
    TOKEN=$(jq -r .data.token "$DIR/body")
    client slow 'q%22%c3%a9'
    kill -STOP "$CLIENT"
    jq -nc '{code: 1, msg: "", data: ("x" * 60000)}' >"$DIR/large"
    for _ in {1..300}; do
        post /api/send_to_system "@$DIR/large" >/dev/null
        ! grep -q 'reads too slowly' "$DIR/log" || break
    done
    kill -CONT "$CLIENT"
    expect_match 'a name with a quotation mark is escaped' '*system="q\\"é"*' \
        "$(grep -a 'reads too slowly' "$DIR/log")"
    expect 'each line of the log is our own' 0 \
        "$(grep -avcE '^20[0-9-]{8}T[0-9:.]{12}Z (debug|info|warn|error) [a-zA-Z]' "$DIR/log")"
    expect 'and none is forged' 0 "$(grep -acE '^[^"]* forged line' "$DIR/log")"
    expect 'all of it is printable' '0 UTF-8' "$(LC_ALL=C grep -acP '[\x00-\x1f\x7f]' "$DIR/log") $(
        iconv -f UTF-8 -t UTF-8 "$DIR/log" >/dev/null 2>&1 && echo UTF-8)"
}

# Files of the server are its user's own, whatever the umask.
modes() {
    expect 'data_dir and what is in it' 'drwx------ data,-rw------- accounts,-rw------- lock' \
        "$(cd "$DIR" && {
            ls -ld data
            ls -l data | tail -n +2
        } | awk '{ print $1, $NF }' | paste -sd,)"
}

# --- behind a proxy ---------------------------------------------------------------------------

# remote: what client_info says of the client $ID.
remote() {
    call client_info "{'clientId':'$ID'}" >/dev/null
    jq -r .data.remote "$DIR/body"
}

# upgrades [CURL-ARGUMENT...]: asks for an upgrade at $AT and prints the status; a client that it
# makes stays until `release`.
upgrades() {
    local out=$DIR/upgrade.$RANDOM line
    curl -s -N "${UPGRADE[@]/#/-H}" --max-time 60 "$@" -D "$out" -o /dev/null \
        "http://127.0.0.1:$AT/ws?systemId=shop" >/dev/null 2>&1 &
    echo $! >>"$DIR/upgraded"
    wait_for grep -q '^HTTP' "$out"
    read -r _ line _ <"$out"
    echo "$line"
}

# release: ends the clients of `upgrades`.
release() {
    xargs -r kill <"$DIR/upgraded" 2>/dev/null
    rm "$DIR/upgraded"
}

# guess_at_once COUNT [CURL-ARGUMENT...]: guesses so many passwords through $AT and prints the statuses.
guess_at_once() {
    local i count=$1
    shift
    for ((i = 0; i < count; i++)); do
        curl -s --max-time 60 -o /dev/null -w '%{http_code}\n' "$@" \
            -d "{\"systemId\":\"shop\",\"password\":\"guess $RANDOM $i\"}" "http://127.0.0.1:$AT/api/login" &
    done
    wait
}

# Clients of nginx, which the server sees at 127.0.0.3, have addresses of their own.
proxied() {
    local AT
    free_port
    AT=$FREE
    start_nginx "map \$http_upgrade \$connection_upgrade { default upgrade; '' ''; }
upstream wspush { server 127.0.0.1:$PORT; keepalive 4; }
server {
    listen 127.0.0.1:$AT;
    location / {
        proxy_pass http://wspush;
        proxy_bind 127.0.0.3;
        proxy_http_version 1.1;
        proxy_set_header Host \$host;
        proxy_set_header Upgrade \$http_upgrade;
        proxy_set_header Connection \$connection_upgrade;
        proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
    }
}" "$AT"
    PORT=$AT client mine shop
    expect 'behind nginx: the remote of a client is its own' 127.0.0.1 "$(PORT=$AT remote)"
    PORT=$AT client forger shop -H='X-Forwarded-For: 203.0.113.5'
    expect 'whatever it says itself' 127.0.0.1 "$(PORT=$AT remote)"
    expect 'max_per_ip is that of clients: one too many' 429 "$(upgrades)"
    expect 'another address' 101 "$(upgrades "${STRANGER[@]}")"
    expect 'has as many places' 101 "$(upgrades "${STRANGER[@]}")"
    expect 'and no more' 429 "$(upgrades "${STRANGER[@]}")"
    expect 'calls of the API are not counted' '200 200 200 200 200 ' \
        "$(for i in 1 2 3 4 5; do PORT=$AT call "${LIST[@]}" >/dev/null; echo -n "$(status) "; done)"
    expect 'the log says so' 2 \
        "$(grep -c 'info client rejected remote="127.0.0.[12]" code=429 reason="max_per_ip is reached"' "$DIR/log")"
    release
    wait_for again "${STRANGER[@]}"
    expect 'a place that is free again is given again' 0 $?
    release
    kill "$CLIENT"
    wait_for grep -q 'client lost.*remote="127.0.0.1"' "$DIR/log"
    expect 'the end of a client names its address' 0 $?
    # ten, one that waits for its turn, and others that are not let wait
    expect 'guesses count for the client' 1 $(($(guess_at_once 16 "${STRANGER[@]}" | grep -c 429) > 0))
    expect 'and for nobody else behind it' 3 "$(guess_at_once 3 | grep -c 200)"
    stop_nginx
}

# again [CURL-ARGUMENT...]: true if an upgrade succeeds.
# shellcheck disable=SC2329 # called by wait_for
again() {
    [ "$(upgrades "$@")" = 101 ]
}

# whom PATTERN: the remotes of calls in the log whose path is like that.
whom() {
    sed -n 's|.*debug call path="/api/'"$1"'".*remote="\([^"]*\)".*|\1|p' "$DIR/log" | tr '\n' ' '
}

# Requests over one connection may be those of several clients; and who is no proxy is not believed.
forwarded() {
    local url="http://127.0.0.1:$PORT/api"
    curl -s --interface 127.0.0.3 -H 'X-Forwarded-For: 203.0.113.1' "$url/one" -o /dev/null \
        --next -s --interface 127.0.0.3 -H 'X-Forwarded-For: 1.1.1.1, 203.0.113.2:80' -H 'X-Forwarded-For: 127.0.0.3' "$url/one" -o /dev/null \
        --next -s --interface 127.0.0.3 "$url/one" -o /dev/null \
        --next -s --interface 127.0.0.3 -H 'X-Forwarded-For: 203.0.113.2, unknown' "$url/one" -o /dev/null \
        --next -s --interface 127.0.0.3 -H 'X-Forwarded-For: 2001:db8::1' "$url/one" -o /dev/null -w '%{num_connects}' >"$DIR/out"
    expect 'each request names its client' '203.0.113.1 203.0.113.2 127.0.0.3 127.0.0.3 2001:db8::1 0' "$(whom one)$(cat "$DIR/out")"
    curl -s -H 'X-Forwarded-For: 203.0.113.1' "$url/two" -o /dev/null
    curl -s "${STRANGER[@]}" -H 'X-Forwarded-For: 127.0.0.3' "$url/two" -o /dev/null
    expect 'who is no trusted proxy is not believed' '127.0.0.1 127.0.0.2 ' "$(whom two)"
    client liar shop -H='X-Forwarded-For: 203.0.113.1'
    expect 'nor is a client' 127.0.0.1 "$(remote)"
    kill "$CLIENT"
}

# The number of connections of an address is known again when max_per_ip changes.
recounted() {
    local AT=$PORT from=(--interface 127.0.0.3 -H 'X-Forwarded-For: 203.0.113.9')
    expect 'two clients of an address' '101 101' "$(upgrades "${from[@]}") $(upgrades "${from[@]}")"
    sed -i 's/^max_per_ip = .*/max_per_ip = 0/' "$DIR/config.ini"
    kill -HUP "$SERVER"
    wait_for grep -q 'changed.*max_per_ip.*to="0"' "$DIR/log"
    expect 'without max_per_ip a third' 101 "$(upgrades "${from[@]}")"
    sed -i 's/^max_per_ip = .*/max_per_ip = 3/' "$DIR/config.ini"
    kill -HUP "$SERVER"
    wait_for grep -q 'changed.*max_per_ip.*to="3"' "$DIR/log"
    expect 'they count when there is one again' 429 "$(upgrades "${from[@]}")"
    release
}

# Whoever comes over a Unix-domain socket is a proxy.
over_a_socket() {
    sed -i "s#^host = .*#host = unix:$DIR/socket#" "$DIR/config.ini"
    "$WSPUSH" -c "$DIR/config.ini" >"$DIR/stdout" 2>"$DIR/stderr" &
    SERVER=$!
    wait_for curl -s -o /dev/null --unix-socket "$DIR/socket" http://x/
    curl -s -o /dev/null --unix-socket "$DIR/socket" -H 'X-Forwarded-For: 203.0.113.77' http://x/api/three
    expect 'the peer of a Unix-domain socket is believed' '203.0.113.77 ' "$(whom three)"
}

configure
start
sign_up other
sign_up shop
guessing
stop
start # it has forgotten who has logged in
crowding
stop

configure '[limits]
max_connections = 20
max_per_ip = 6
head_timeout = 3'
start
prlimit --pid "$SERVER" --nofile=48:48 # few more than such a server needs
login shop
hoarding
stop

configure '[limits]
max_per_ip = 2'
sed -i 's/^host/trusted_proxies = 127.0.0.3\nhost/' "$DIR/config.ini"
start
login shop
proxied
forwarded
recounted
stop
over_a_socket
stop

umask 0
configure "[auth]
register = key:${SECRETS[1]}
[limits]
head_timeout = 1"
sed -i "s/^host/crypto_key = ${SECRETS[2]}\nhost/" "$DIR/config.ini"
rm -rf "$DIR/data" "$DIR/log"
start
secrets
forgery
modes
stop
expect 'nor at the end' 0 "$(grep -acF "${SECRETS[@]/#/-e}" "$DIR/log")"
finish

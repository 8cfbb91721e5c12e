#!/usr/bin/env bash
# tls.sh - https and wss, from outside: with curl, websocat and OpenSSL's own client, against
# certificates made here.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
[ "$SCHEME" = https ] || secure

# peer [ARGUMENT...]: connects OpenSSL's client; it sends its input, and prints what comes.
peer() {
    timeout 60 openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$DIR/tls.pem" \
        -verify_return_error "$@" 2>"$DIR/peer.err"
}

# served: the name of the certificate that new connections get; OpenSSL 3.2 and later print it without spaces.
served() {
    peer </dev/null | openssl x509 -noout -subject -nameopt RFC2253 2>/dev/null | sed 's/^subject=//'
}

# answers_of: how many answers of success there are on stdin.
answers_of() {
    grep -c '"code":0,'
}

calls() {
    local version
    sign_up shop
    expect_match 'the API over https' '200 {"code":0,*' "$(call "${LIST[@]}")"
    for version in 1.2 1.3; do
        expect_match "TLS $version" '200 {"code":0,*' \
            "$(call "${LIST[@]}" --tlsv$version --tls-max $version)"
    done
    call "${LIST[@]}" --tlsv1.0 --tls-max 1.1 --ciphers DEFAULT:@SECLEVEL=0 >/dev/null
    expect 'TLS 1.1 is not spoken' 000 "$(status)"
    CURL_CA_BUNDLE='' SSL_CERT_FILE='' call "${LIST[@]}" >/dev/null
    expect 'who does not trust the certificate does not connect' 000 "$(status)"
    SCHEME=http
    expect 'plain HTTP is told so in plain' '400 -1 TLS is spoken here: use https:// or wss://' \
        "$(refusal "${LIST[@]}")"
    SCHEME=https
}

# What OpenSSL's client says of its connection.
handshakes() {
    local group
    for group in X25519 P-256 P-384; do
        expect "key exchange with $group" 1 "$(peer -tls1_3 -groups $group </dev/null | grep -c 'Cipher is TLS_')"
    done
    for group in P-521 ffdhe2048 ffdhe8192; do
        expect "but not with $group" 0 "$(peer -tls1_3 -groups $group </dev/null | grep -c 'Cipher is TLS_')"
    done
    head -c 9000 /dev/zero | tr '\0' x | sed 's/\(x\{200\}\)/\1,/g' >"$DIR/protocols"
    peer -alpn "$(cat "$DIR/protocols")http/1.1" </dev/null >/dev/null
    expect 'a handshake that is too long is ended' 0 \
        "$(wait_for grep -q 'reason="the handshake is too long"' "$DIR/log"; echo $?)"
    expect_match 'forward secrecy and an authenticated cipher' '*ECDHE-ECDSA-*GCM*' \
        "$(peer -tls1_2 </dev/null | grep Cipher)"
    expect_match 'http/1.1 is agreed on' '*http/1.1*' \
        "$(peer -alpn h2,http/1.1 </dev/null | grep ALPN)"
    peer -alpn h2 </dev/null >"$DIR/out"
    expect_match 'and nothing else' '*no application protocol*' "$(cat "$DIR/peer.err")"
    peer -tls1_2 -sess_out "$DIR/session" </dev/null >/dev/null
    expect 'a session is resumed (1.2)' 1 \
        "$(peer -tls1_2 -sess_in "$DIR/session" </dev/null | grep -c '^Reused')"
    # a ticket of TLS 1.3 comes behind the handshake, with the first answer
    request "${LIST[@]}" 'Connection: close' |
        peer -tls1_3 -ign_eof -sess_out "$DIR/session" >/dev/null
    expect 'a session is resumed (1.3)' 1 \
        "$(peer -tls1_3 -sess_in "$DIR/session" </dev/null | grep -c '^Reused')"
}

requests() {
    local i
    for i in 1 2 3; do
        request "${LIST[@]}"
    done >"$DIR/three"
    request "${LIST[@]}" 'Connection: close' >>"$DIR/three"
    expect 'four requests in one record' 4 "$(peer -quiet -ign_eof <"$DIR/three" | answers_of)"
    {
        for ((i = 0; i < $(wc -c <"$DIR/three"); i += 50)); do
            dd if="$DIR/three" bs=50 skip=$((i / 50)) count=1 2>/dev/null
            sleep 0.02
        done
    } | peer -quiet -ign_eof -max_send_frag 512 >"$DIR/out"
    expect 'and in many' 4 "$(answers_of <"$DIR/out")"
    peer -quiet </dev/null >/dev/null
    expect 'who asks for nothing is told of the end' 0 "$(grep -c 'unexpected eof' "$DIR/peer.err")"
    head -c 900000 /dev/zero | tr '\0' x >"$DIR/large"
    expect_match 'a body of many records' '200 {"code":-1003,*' \
        "$(call send_to_client "{'clientId':'x','code':1,'msg':'m','data':'$(head -c 100000 "$DIR/large")'}")"
    {
        printf '{"clientId":"x","code":1,"msg":"m","data":"'
        cat "$DIR/large"
        printf '"}'
    } >"$DIR/request"
    curl -s -H "Token: $TOKEN" -H 'Transfer-Encoding: chunked' --data-binary @"$DIR/request" \
        "https://127.0.0.1:$PORT/api/send_to_client" >"$DIR/out"
    expect_match 'also in chunks' '{"code":-1003,*' "$(cat "$DIR/out")"
    curl -s -H "Token: $TOKEN" --data-binary @<(cat "$DIR/large" "$DIR/request") \
        "https://127.0.0.1:$PORT/api/send_to_client" -o /dev/null -w '%{http_code}' >"$DIR/out"
    expect 'but not beyond max_body' 413 "$(cat "$DIR/out")"
}

clients() {
    client a shop
    client b shop
    call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
    frames b 1 >/dev/null
    call send_to_group "{'groupName':'g','code':7,'msg':'m','data':1}" >/dev/null
    expect 'a push over wss' '{"code":7,"msg":"m","data":1}' "$(frames b 1)"
    echo ping >"$DIR/a.in"
    expect 'the text ping' pong "$(frames a 1)"
    {
        printf '{"groupName":"g","code":1,"msg":"m","data":"'
        cat "$DIR/large"
        printf '"}'
    } >"$DIR/request"
    curl -s -H "Token: $TOKEN" --data-binary @"$DIR/request" \
        "https://127.0.0.1:$PORT/api/send_to_group" >/dev/null
    frames b 1 >"$DIR/pushed"
    expect 'a push of many records' "$(jq -c .data "$DIR/request" | cksum)" \
        "$(jq -c .data "$DIR/pushed" | cksum)"
    call close_client "{'clientId':'$ID','code':3001,'reason':'bye'}" >/dev/null
    expect 'a close frame' '3001 bye' "$(closed b)"
}

# What is no TLS, or stops being it, costs its own connection.
breaches() {
    local fd
    head -c 3000 /dev/urandom >"$DIR/noise"
    printf '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' >"$DIR/hello"
    expect 'noise is refused without a word in plain' 0 \
        "$(talk <"$DIR/noise" | tr -d '\025\003' | grep -c HTTP)"
    cat "$DIR/hello" "$DIR/noise" | talk >/dev/null
    talk <"$DIR/hello" >/dev/null & # it waits for the rest until head_timeout
    exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
    expect_match 'others are served meanwhile' '200 {"code":0,*' "$(call "${LIST[@]}")"
    expect 'a handshake that does not go on is ended' '' "$(timeout 60 cat <&"$fd" | head -c 100)"
    exec {fd}>&-
    wait_for grep -q 'reason="deadline passed"' "$DIR/log"
    expect 'the log says why' 1 "$(grep -c 'reason="deadline passed"' "$DIR/log" | sed 's/^[2-9]/1/')"
    expect 'and what was wrong with noise' 1 \
        "$(grep -cE 'reason="(wrong version number|unsupported protocol|http request|packet length)' "$DIR/log" | sed 's/^[1-9].*/1/')"
}

slow_reader() {
    local i
    client stuck shop
    call bind_to_group "{'clientId':'$ID','groupName':'slow'}" >/dev/null
    frames stuck 1 >/dev/null
    client other shop
    call bind_to_group "{'clientId':'$ID','groupName':'slow'}" >/dev/null
    kill -STOP "${CLIENTS[-2]}"
    for i in {1..200}; do
        curl -s -H "Token: $TOKEN" --data-binary @"$DIR/slow" \
            "https://127.0.0.1:$PORT/api/send_to_group" >/dev/null
        ! grep -q 'reads too slowly' "$DIR/log" || break
    done
    expect_match 'a client that does not read is named in the log' '*warn client closed: it reads too slowly*' \
        "$(grep 'reads too slowly' "$DIR/log" | head -n 1)"
    kill -CONT "${CLIENTS[-2]}"
    expect 'and closed with 1013, behind the record that was under way' '1013 slow' \
        "$(closed stuck)"
    expect 'what it got is whole' 0 "$(tail -n +3 "$DIR/stuck.out" | cut -c 1-40 |
        grep -cv '^{"code":\(1\|100[12]\),"msg":')"
    # its own notice, all that was sent, and that the other one has gone
    expect 'the other one lost nothing' "$((i + 2))" "$(frames other $((i + 2)) | wc -l)"
}

renewal() {
    client stays shop
    expect 'the certificate at first' CN=tls "$(served)"
    cp "$DIR/tls.pem" "$DIR/old.pem"
    certificate renewed
    cp "$DIR/renewed.key" "$DIR/tls.key"
    echo $'[limits]\nmax_per_ip = 100' >>"$DIR/config.ini"
    kill -HUP "$SERVER"
    wait_for grep -q 'SIGHUP.*keeping the old' "$DIR/log"
    expect_match 'a key that does not fit is refused, and said so' \
        '*error SIGHUP: reload failed, keeping the old configuration error=*key values mismatch*' \
        "$(grep SIGHUP "$DIR/log")"
    expect 'the old one stays' CN=tls "$(served)"
    expect 'and so does all else' 0 "$(grep -c 'SIGHUP: changed' "$DIR/log")"
    cp "$DIR/renewed.pem" "$DIR/tls.pem"
    kill -HUP "$SERVER"
    wait_for grep -q 'SIGHUP.*has been loaded' "$DIR/log"
    expect 'what else was changed is taken up with it' 1 "$(grep -c 'SIGHUP: changed section="limits" key="max_per_ip"' "$DIR/log")"
    expect_match 'a renewed one is loaded' '*info SIGHUP*loaded cert=*tls.pem" days_left=*' \
        "$(grep 'has been' "$DIR/log")"
    expect 'and served' CN=renewed "$(served)"
    expect_match 'calls go on' '200 {"code":0,*' "$(call "${LIST[@]}")"
    call send_to_client "{'clientId':'$ID','code':7,'msg':'m','data':2}" >/dev/null
    expect 'who was there stays' '{"code":7,"msg":"m","data":2}' "$(frames stays 1)"
    rm "$DIR/tls.pem"
    kill -HUP "$SERVER"
    wait_for grep -q 'SIGHUP.*No such file' "$DIR/log"
    cp "$DIR/renewed.pem" "$DIR/tls.pem"
    expect 'a file that is gone does no harm' CN=renewed "$(served)"
}

# refused NAME PATTERN: the configuration that is there must not start.
refused() {
    local out
    out=$(timeout 20 "$WSPUSH" -t -c "$DIR/config.ini" 2>&1)
    expect_match "$1" "1 wspush: $2" "$? $out"
}

starts() {
    configure
    sed -i '/^key = /d' "$DIR/config.ini"
    refused 'a certificate without a key' '\[tls\] cert and key belong together*'
    configure
    sed -i 's/tls\.key/none.key/' "$DIR/config.ini"
    refused 'a key that is not there' '\[tls\] *none.key: No such file*: give*'
    configure
    certificate another
    sed -i 's/tls\.key/another.key/' "$DIR/config.ini"
    refused 'a key of another certificate' '\[tls\] *another.key: key values mismatch: give*'
    openssl ec -aes128 -passout pass:secret -in "$DIR/tls.key" -out "$DIR/another.key" 2>/dev/null
    refused 'a key with a passphrase' '\[tls\] *another.key: *without passphrase*'
    configure
    sed -i 's/tls\.pem/log/' "$DIR/config.ini"
    refused 'a certificate that is none' '\[tls\] *log: no start line: give*'
}

configure '[limits]
head_timeout = 2'
start
calls
handshakes
requests
clients
breaches
renewal
expect 'no secret is in the log' 0 "$(grep -c -e PRIVATE -e secret -e "$TOKEN" "$DIR/log")"
stop

configure '[websocket]
send_queue = 64 KiB'
start
{
    printf '{"groupName":"slow","code":1,"msg":"m","data":"'
    head -c 50000 "$DIR/large"
    printf '"}'
} >"$DIR/slow"
login shop
slow_reader
stop
starts

# A key that only root can read could not be read again at SIGHUP.
if [ "$(id -u)" = 0 ]; then
    chmod 711 "$DIR"
    configure
    mkdir -m 777 "$DIR/logs"
    sed -i "s#^data_dir = .*#data_dir = $DIR/nobody\nuser = nobody#; s#^file = .*#file = $DIR/logs/log#" \
        "$DIR/config.ini"
    chmod 600 "$DIR/tls.key"
    free_port
    expect_match 'user = nobody: a key of root alone stops the start' '1 wspush: as *nobody*tls.key: Permission denied: *' \
        "$(timeout 20 "$WSPUSH" -c "$DIR/config.ini" "$FREE" >"$DIR/out" 2>&1; echo "$? $(cat "$DIR/out")")"
    chmod 644 "$DIR/tls.key"
    start
    expect_match 'one that nobody can read is used' '404 *' "$(call none '{}')"
    chmod 600 "$DIR/tls.key"
    kill -HUP "$SERVER"
    wait_for grep -q SIGHUP "$DIR/logs/log"
    expect_match 'what becomes unreadable later is told at SIGHUP' '*tls.key: Permission denied*' \
        "$(grep SIGHUP "$DIR/logs/log")"
    expect 'which costs nothing' CN=renewed "$(served)"
    stop
else
    echo 'skip user = nobody: only root can become another user'
fi

SCHEME=http
configure
rm "$DIR/log"
start
kill -HUP "$SERVER"
wait_for grep -q SIGHUP "$DIR/log"
expect_match 'without TLS, SIGHUP does no harm' '*info SIGHUP: the configuration has been read again' \
    "$(grep SIGHUP "$DIR/log")"
expect_match 'and TLS is not understood' 000 \
    "$(SCHEME=https call "${LIST[@]}" >/dev/null; status)"
stop
finish

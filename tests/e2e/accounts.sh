#!/usr/bin/env bash
# accounts.sh - accounts that change: a password that is set or reset ends the tokens of before, a deleted system
# loses its clients, and what was answered survives kill -9.
# build: asan/wspush release/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

KILLS=6
KEY=(-H 'Register-Key: open sesame')

quick_hashes

kill_server() {
    kill -9 "$SERVER"
    wait "$SERVER" 2>/dev/null
    SERVER=''
}

# enter PASSWORD [SYSTEM]: logs in; prints the answer's code, the token is in $TOKEN.
enter() {
    TOKEN=$(call login "{'systemId':'${2-shop}','password':'$1'}" | jq -Rr 'ltrimstr("200 ") | fromjson | .data.token?')
    jq .code "$DIR/body"
}

# try PASSWORD [SYSTEM]: the same, without a token.
try() {
    post /api/login "{\"systemId\":\"${2-shop}\",\"password\":\"$1\"}" | jq .code
}

set_password() {
    local old before
    sign_up shop
    old=$TOKEN
    client one shop
    expect 'the password is wrong' '200 -1005 wrong systemId or password' \
        "$(refusal set_password "{'password':'guess','newPassword':'new'}")"
    expect 'the token is good all the same' "$(success "{'count':0,'list':[]}")" "$(call "${LIST[@]}")"
    expect 'a password is set' "$SUCCESS" "$(call set_password "{'password':'secret','newPassword':'new'}")"
    expect_match 'the token of before is over' '401 -1002 *revoked*' "$(refusal "${LIST[@]}")"
    TOKEN=''
    expect 'the old password is' -1005 "$(try secret)"
    enter new >/dev/null
    expect 'a token by the new one is good' "$(success "{'count':0,'list':[]}")" "$(call "${LIST[@]}")"
    before=$TOKEN
    halt
    start
    expect 'so it is after a restart' "$(success "{'count':0,'list':[]}")" "$(call "${LIST[@]}")"
    TOKEN=$old
    expect_match 'and the old one is not' '401 -1002 *revoked*' "$(refusal "${LIST[@]}")"
    TOKEN=$before
}

reset_password() {
    local before=$TOKEN
    TOKEN=''
    expect_match 'without the key no password is reset' '401 -1002 Token header missing*' \
        "$(refusal set_password "{'systemId':'shop','newPassword':'newer'}")"
    expect_match 'nor with another key' '401 -1002 Register-Key*' \
        "$(refusal set_password "{'systemId':'shop','newPassword':'newer'}" -H 'Register-Key: open')"
    expect 'the key resets a password' "$SUCCESS" \
        "$(call set_password "{'systemId':'shop','newPassword':'newer'}" "${KEY[@]}")"
    expect 'not that of a system that is not there' '200 -1001 systemId is not registered' \
        "$(refusal set_password "{'systemId':'nobody','newPassword':'newer'}" "${KEY[@]}")"
    expect 'it lets in' 0 "$(try newer)"
    TOKEN=$before
    expect_match 'the token of before is over' '401 -1002 *revoked*' "$(refusal "${LIST[@]}")"
}

delete_system() {
    local before ids=() name
    call register "{'systemId':'other','password':'secret'}" "${KEY[@]}" >/dev/null
    enter newer >/dev/null
    for name in one two; do
        client $name shop
        ids+=("$ID")
        call bind_to_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
    done
    client other other
    expect 'the password is wrong: it stays' '200 -1005 wrong systemId or password' \
        "$(refusal delete_system "{'password':'new'}")"
    expect 'a system is deleted' "$SUCCESS" "$(call delete_system "{'password':'newer'}")"
    expect 'its clients are closed' '4401 system deleted' "$(closed one)"
    expect 'all of them' '4401 system deleted' "$(closed two)"
    expect 'and are not told of each other' '' "$(grep 1002 "$DIR/one.out" "$DIR/two.out")"
    expect 'the log says so' 1 "$(grep -c 'system deleted system="shop" remote="127.0.0.1"' "$DIR/log")"
    expect 'the token of before is over' '200 -1001 systemId is not registered' "$(refusal "${LIST[@]}")"
    before=$TOKEN
    client late shop
    expect_match 'nobody can connect' '*"code":-1001,*' "$(head -n 1 "$DIR/late.out")"
    TOKEN=''
    expect 'nor log in' -1005 "$(try newer)"
    expect 'it is registered again' "$SUCCESS" "$(call register "{'systemId':'shop','password':'newer'}" "${KEY[@]}")"
    TOKEN=$before
    expect_match 'its token of before is over' '401 -1002 *revoked*' "$(refusal "${LIST[@]}")"
    enter newer >/dev/null
    client new shop
    expect 'a client of before is not found' "$OFFLINE" \
        "$(call send_to_client "{'clientId':'${ids[0]}',$MESSAGE}")"
    expect 'a new one is' "$SUCCESS" "$(call send_to_client "{'clientId':'$ID',$MESSAGE}")"
    expect 'the other system has its client' 1 "$(enter secret other >/dev/null; call count "{'system':true}" |
        sed 's/^200 //' | jq .data.system)"
}

# Passwords are guessed no faster by changes than by logins: of thirteen at once ten are verified, and one waits.
guesses() {
    local i guesses=()
    enter newer >/dev/null
    for i in {1..13}; do
        curl -s --max-time 60 -H "Token: $TOKEN" "http://127.0.0.1:$PORT/api/set_password" \
            --data-binary "{\"password\":\"guess $i\",\"newPassword\":\"x\"}" >"$DIR/guess$i" &
        guesses+=($!)
    done
    expect 'after ten wrong passwords the next ones are too many' 0 \
        "$(wait_for grep -l '"code":-1006,"msg":"too many logins' "$DIR"/guess*; echo $?)"
    kill "${guesses[@]}" 2>/dev/null
    wait "${guesses[@]}" 2>/dev/null
}

# change NAME BODY: calls /api/NAME and kills the server a random part of $longest later. Prints the code of the
# answer, if there was one.
change() {
    local caller
    curl -s --max-time 20 -o "$DIR/answer" -H "Token: $TOKEN" "http://127.0.0.1:$PORT/api/$1" --data-binary "$2" &
    caller=$!
    sleep "$(awk -v seed=$RANDOM -v longest="$longest" 'BEGIN { srand(seed); print rand() * longest }')"
    kill_server
    wait $caller && ANSWER=$(jq .code "$DIR/answer") || ANSWER=''
    rm -f "$DIR/answer"
    start
}

# A change that was answered is there, one that was not is there whole or not at all.
kills() {
    local round password=p0 next old new answered=0 longest
    WSPUSH=${WSPUSH_KILLED:-build/release/wspush}
    configure
    start
    post /api/register "{\"systemId\":\"k\",\"password\":\"p0\"}" -w '%{time_total}' >/dev/null
    longest=$(awk -v took="$(tr , . <"$DIR/status")" 'BEGIN { print 3 * took }') # two hashes, and then some
    for ((round = 1; round <= KILLS; round++)); do
        next=p$round
        enter "$password" k >"$DIR/code"
        [ "$(cat "$DIR/code")" = 0 ] || bad "round $round: $password logs in" "$(cat "$DIR/body")"
        if ((round % 3)); then
            change set_password "{\"password\":\"$password\",\"newPassword\":\"$next\"}"
        else
            change delete_system "{\"password\":\"$password\"}"
        fi
        answered=$((answered + (${#ANSWER} > 0)))
        TOKEN=''
        old=$(try "$password" k)
        if ((round % 3)); then
            new=$(try "$next" k)
        else
            new=$old # it is there or not
            [ "$old" = 0 ] || {
                new=$(post /api/register "{\"systemId\":\"k\",\"password\":\"$next\"}" | jq .code)
            }
        fi
        case "$ANSWER $old $new" in
        '0 -1005 0' | ' -1005 0') password=$next ;;
        ' 0 -1005' | ' 0 0') ;;
        *) bad "round $round: all of a change is there or nothing" "answer '$ANSWER', old $old, new $new" ;;
        esac
    done
    ok "it starts again after each of $KILLS kills, with all of a change or nothing ($answered were answered)"
    expect 'nothing was torn that was answered' 0 "$(grep -c 'crash had torn' "$DIR/log")"
}

configure '[auth]
register = open'
start
set_password
halt
configure '[auth]
register = key:open sesame'
start
reset_password
delete_system
guesses
halt
kills
finish

#!/usr/bin/env bash
# A wspush client in bash with curl, jq and websocat: prints each push as one line, and reconnects when the
# connection ends.
#
#     WSPUSH_SYSTEM=shop WSPUSH_PASSWORD='open sesame' ./client.sh
set -u
url=${WSPUSH_URL:-http://localhost:7800}
export WSPUSH_SYSTEM="${WSPUSH_SYSTEM:-shop}" WSPUSH_PASSWORD
group=${WSPUSH_GROUP:-news}
system=$(jq -rn 'env.WSPUSH_SYSTEM | @uri')

# What the business system would do: only it knows the password. It keeps its token until an answer is -1002 (HTTP
# 401). Neither is on a command line, where other users of the machine could read it.
token=''
bind() { # CLIENT-ID: prints the code of the answer
    jq -n --arg id "$1" --arg group "$group" '{clientId: $id, groupName: $group, userId: "shell"}' |
        curl -s --max-time 10 --data-binary @- -H @<(echo "Token: $token") "$url/api/bind_to_group" | jq .code
}

hand_over() { # CLIENT-ID
    local code
    code=$(bind "$1")
    if [ "$code" = -1002 ]; then
        token=$(jq -n '{systemId: env.WSPUSH_SYSTEM, password: env.WSPUSH_PASSWORD}' |
            curl -s --max-time 10 --data-binary @- "$url/api/login" | jq -r .data.token)
        code=$(bind "$1")
    fi
    [ "$code" = 0 ]
}

trap 'kill ${link-} 2>/dev/null' EXIT
trap exit HUP INT TERM

delay=1000 # milliseconds before the next try, doubled each time
while true; do
    # -U: sends pings only; gives up a connection that does not answer them
    exec {frames}< <(exec websocat -U --no-close --buffer-size 2000000 --ping-interval 15 --ping-timeout 40 \
        "${url/http/ws}/ws?systemId=$system" </dev/null)
    link=$!
    if read -r -t 10 frame <&"$frames"; then # the first frame has our id, or the reason why we get none
        case $(jq .code <<<"$frame") in
        0)
            if hand_over "$(jq -r .data.clientId <<<"$frame")"; then
                delay=1000
                while read -r frame <&"$frames"; do
                    printf '%s\n' "$frame"
                done
            fi
            ;;
        -1001) # the same as close code 1008, which websocat does not report
            echo 'closed with 1008: the system is not registered' >&2
            exit 1
            ;;
        esac
    fi
    kill "$link" 2>/dev/null
    exec {frames}<&-
    wait=$((delay / 2 + RANDOM % (delay / 2))) # so that clients do not all reconnect at once
    printf 'closed, next try in %d.%d s\n' $((wait / 1000)) $((wait % 1000 / 100)) >&2
    sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))"
    delay=$((delay < 15000 ? delay * 2 : 30000))
done

#!/usr/bin/env bash
# A wspush client in bash (4.1 or later): prints each push as one line, reconnects when the connection ends, and then
# gets what it has missed. It sends no acks, so the server keeps its last 128 frames for it.
#
#     PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' ./client.sh
set -u
url=${PUSH_URL:-http://127.0.0.1:7800}
export PUSH_SYSTEM="${PUSH_SYSTEM:-shop}" PUSH_PASSWORD="${PUSH_PASSWORD-}" PUSH_GROUP="${PUSH_GROUP:-news}"
max_wait=${PUSH_MAX_WAIT:-30} # seconds

missing=''
for tool in curl jq websocat; do
    command -v "$tool" >/dev/null || missing+=" $tool"
done
if [ -n "$missing" ]; then
    echo "client.sh needs$missing. For websocat: https://github.com/vi/websocat, or cargo install websocat" >&2
    exit 2
fi
if [ -z "$PUSH_PASSWORD" ]; then
    echo "Set PUSH_PASSWORD to the password of the system $PUSH_SYSTEM." >&2
    exit 2
fi
system=$(jq -rn 'env.PUSH_SYSTEM | @uri')

# What the business system would do: only it knows the password. It keeps its token until an answer is -1002 (HTTP
# 401). Neither is on a command line, where other users of the machine could read it.
token=''
post() { # PATH: posts its input and prints the answer
    curl -sS --max-time 10 --data-binary @- -H @<(echo "Token: $token") "$url$1"
}

ask() { # prints the answer with a ticket, which has to be on a command line: it is good for ten seconds
    jq -n '{groups: [env.PUSH_GROUP], userId: "shell", ttl: 10}' | post /api/ticket
}

code() { # ANSWER
    jq .code <<<"$1"
}

get_ticket() { # leaves the answer in $answer; false: there is none
    answer=$(ask 2>&1)
    [ "$(code "$answer" 2>/dev/null)" = -1002 ] || return 0
    answer=$(jq -n '{systemId: env.PUSH_SYSTEM, password: env.PUSH_PASSWORD}' | post /api/login 2>&1)
    [ "$(code "$answer" 2>/dev/null)" = 0 ] || return 0
    token=$(jq -r .data.token <<<"$answer")
    answer=$(ask 2>&1)
}

trap 'kill ${link-} 2>/dev/null' EXIT
trap exit HUP INT TERM

tries=0 # since the last connection that was of use
key='' received=0 # to resume: from the last first frame, and how many frames have come behind it
while true; do
    patient='' why='the connection broke'
    get_ticket
    if [ "$(code "$answer" 2>/dev/null)" = 0 ]; then
        # -U: sends pings only; gives up a connection that does not answer them
        exec {frames}< <(exec websocat -U --no-close --buffer-size 2000000 --ping-interval 15 --ping-timeout 40 \
            -H="Ticket: $(jq -r .data.ticket <<<"$answer")" \
            "${url/http/ws}/ws?systemId=$system&resume=$key&received=$received" </dev/null 2>/dev/null)
        link=$!
        if ! read -r -t 10 frame <&"$frames"; then
            why='no WebSocket, though the server gave a ticket'
        elif [ "$(code "$frame")" = 0 ]; then # the first frame has our id, or the reason why we get none
            echo "connected, in the group $PUSH_GROUP" >&2
            tries=0
            read -r key result < <(jq -r '.data | "\(.resume) \(.resumed) \(.recovered)"' <<<"$frame")
            if [ "$result" = 'true true' ]; then
                echo "resumed, $(jq .data.replay <<<"$frame") replayed" >&2
            else
                received=0
            fi
            while read -r frame <&"$frames"; do
                printf '%s\n' "$frame"
                received=$((received + 1))
            done
        else
            why="refused: $(jq -r '"\(.msg) (\(.code))"' <<<"$frame")"
        fi
        kill "$link" 2>/dev/null
        exec {frames}<&-
    else # what the server, or else curl, says
        why=$(jq -r '"\(.msg) (\(.code))"' <<<"$answer" 2>/dev/null) || why=$answer
        [[ $why != *'(-1005)' ]] || patient=1
    fi
    # At random, so that clients do not all come back at once. `patient`: only somebody else can fix it, by
    # registering the system.
    wait=$(awk -v max="$max_wait" -v tries=$tries -v patient="$patient" -v seed="$RANDOM$RANDOM" 'BEGIN {
        srand(seed)
        least = 2 ^ tries < max ? 2 ^ tries : max
        printf "%.1f", patient ? max * (1 + rand()) : rand() * least }')
    tries=$((tries < 10 ? tries + 1 : 10))
    echo "$why; next try in $wait s" >&2
    sleep "$wait"
done

#!/usr/bin/env bash
# webhooks.sh - the way back: what a receiver hears of clients, in which order and how often; that its model of who is
# online is that of the server, also after failures, losses and a kill -9; who may be a receiver. How batches are sent
# and repeated, byte by byte, is in tests/unit/test_webhook.c.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/webhook_lib.sh
. tests/support/webhook_lib.sh
need websocat

# events: prints the events that have come since the last call, without what no test can know; ids as their names.
events() {
    told /events | tail -n "+$((TOLD + 1))" | sed "s/\"at\":[0-9]*,\?//; s/\"seconds\":[0-9]*/\"seconds\":N/; $NAMES"
}

# heard COUNT: waits for COUNT events behind those already seen, prints them and counts them as seen.
heard() {
    has_events() { [ "$(told /events | wc -l)" -ge "$((TOLD + $1))" ]; }
    wait_for has_events "$1"
    HEARD=$(events)
    TOLD=$(told /events | wc -l)
}

# named NAME: the client that came last has this name in events.
named() {
    NAMES+="; s/\"$ID\"/\"$1\"/"
}

TOLD=0 NAMES=''
# With another port behind the receiver's, for the server's comes from start.
allowed() {
    fresh "[webhook]
allow = http://127.0.0.1:$RECEIVER/ho, http://[::1]:1/
retry = 5
[websocket]
message_rate = 1"
}

allowed
start
start_receiver
sign_up shop

# --- who may be a receiver --------------------------------------------------------------------

for url in "http://127.0.0.1:$RECEIVER/h" "http://127.0.0.1:1/ho" "https://127.0.0.1:$RECEIVER/ho" http://u@b/ x \
    "http://127.0.0.1:$RECEIVER@evil/ho" "http://127.0.0.1:$RECEIVER/ho/../x"; do
    expect "$url is none" '400 -1 field url must begin with a URL that [webhook] allow names' \
        "$(refusal set_webhook "{'url':'$url'}")"
done
expect 'a webhook needs a URL' '400 -1 field url is missing' "$(refusal set_webhook '{}')"
expect 'and known events' '400 -1 field events must be of connect, disconnect, join, leave and message' \
    "$(refusal set_webhook "{'url':'$URL','events':['connect','end']}")"

# --- events -----------------------------------------------------------------------------------

hook
FIRST=$SECRET
heard 1
expect 'the first event' '{"seq":1,"type":"start","lost":0}' "$HEARD"
client one "shop&ticket=$(post /api/ticket '{"userId":"u1","extend":"e","groups":["g","h"]}' | jq -r .data.ticket)"
named ONE
call bind_to_group "{'clientId':'$ID','groupName':'i'}" >/dev/null
call bind_to_group "{'clientId':'$ID','groupName':'i'}" >/dev/null
call bind_to_group "{'clientId':'$ID','groupName':'i','userId':'u2'}" >/dev/null
call unbind_from_group "{'clientId':'$ID','groupName':'g'}" >/dev/null
call close_client "{'clientId':'$ID','code':3001,'reason':'bye'}" >/dev/null
heard 5
expect 'a client comes, joins, leaves and goes' \
    '{"seq":2,"type":"connect","clientId":"ONE","userId":"u1","extend":"e","remote":"127.0.0.1","groups":["g","h"]}
{"seq":3,"type":"join","clientId":"ONE","userId":"u1","extend":"e","groupName":"i"}
{"seq":4,"type":"join","clientId":"ONE","userId":"u2","extend":"e","groupName":"i"}
{"seq":5,"type":"leave","clientId":"ONE","userId":"u2","extend":"e","groupName":"g"}
{"seq":6,"type":"disconnect","clientId":"ONE","userId":"u2","extend":"e","code":3001,"reason":"bye","seconds":N}' "$HEARD"

# --- messages ---------------------------------------------------------------------------------

hook "'events':['message','connect','disconnect']"
# say TEXT...: a client that sends these, or a binary message for "binary", and then id; prints what it gets behind its
# first frame, without ids, up to the answer to id or the close. Of <TEXT only the beginning is sent, >TEXT is the end of
# a message; @BODY sets the webhook meanwhile.
say() {
    timeout 60 python3 -B - "$PORT" "$TOKEN" "$@" <<'PY'
import socket, sys, urllib.request
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
link.sendall(b"GET /ws?systemId=shop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
stream = link.makefile("rb")
while stream.readline().strip():
    pass
def frame():
    first, size = stream.read(2)
    size = int.from_bytes(stream.read(2), "big") if size == 126 else size
    return first & 15, stream.read(size)
first = frame()[1]
sent = b""
for text in sys.argv[3:] + ["id"]:
    if text[:1] == "@":
        link.sendall(sent + b"\x89\x80\0\0\0\0") # a ping: then all of it has been taken
        sent = b""
        while frame()[0] != 10:
            pass
        urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:%s/api/set_webhook" % sys.argv[1],
            text[1:].encode(), {"Token": sys.argv[2]}))
        continue
    if text[:1] in ("<", ">"):
        sent += bytes([1 if text[0] == "<" else 128, 127 + len(text), 0, 0, 0, 0]) + text[1:].encode()
        continue
    data = text.encode()
    half = len(data) // 2 if len(data) > 7 else 0
    for at, piece in enumerate([data[:half], data[half:]] if half else [data]):
        opcode = (0 if at else 2 if text == "binary" else 1) | (0 if half and not at else 128)
        sent += bytes([opcode, 128 | len(piece), 0, 0, 0, 0]) + piece
link.sendall(sent)
opcode, payload = frame()
while opcode != 8 and payload != first:
    print(payload.decode())
    opcode, payload = frame()
print("%d %s" % (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if opcode == 8 else "id")
PY
}

expect 'a client may speak' 'pong
id' "$(say ping 'ack 12' 'ack x' 'a häl"lo in pieces' '')"
heard 6
expect 'what it says comes' '{"seq":1,"type":"start","lost":0}
{"seq":2,"type":"connect","clientId":"ID","userId":"","extend":"","remote":"127.0.0.1","groups":[]}
{"seq":3,"type":"message","clientId":"ID","userId":"","text":"ack x"}
{"seq":4,"type":"message","clientId":"ID","userId":"","text":"a häl\"lo in pieces"}
{"seq":5,"type":"message","clientId":"ID","userId":"","text":""}
{"seq":6,"type":"disconnect","clientId":"ID","userId":"","extend":"","code":1006,"reason":"","seconds":N}' \
    "$(sed 's/"clientId":"[^"]*"/"clientId":"ID"/' <<<"$HEARD" | sed 's/\\u00e4/ä/')"
expect 'too many are dropped, and the client is told' \
    '{"code":-1006,"msg":"the message is dropped: more than message_rate allows","data":[]} id' \
    "$(say {1..21} | xargs -d '\n')"
expect 'very many end it' '1008 too many messages' "$(say {1..205} | tail -n 1)"
expect 'binary messages end it' '1003 messages must be text' "$(say one binary)"
model messages
last_text() { told /events | jq -r 'select(.type == "message").text' | tail -n "$1" | xargs; }
heard_last() { [ "$(last_text 1)" = last ]; }
say first '<a' '@{"url":""}' '>b' '<c' "@{\"url\":\"$URL\",\"events\":[\"message\"]}" '>d' last >/dev/null
wait_for heard_last
expect 'messages of which only a part was said while somebody listened do not come' 'first last' "$(last_text 2)"
hook "'events':['message','connect','disconnect']"

# --- failures ---------------------------------------------------------------------------------

told '/status?code=500' >/dev/null
for i in 1 2 3; do client "c$i" shop; done
wait_for [ "$(metric webhook_queued_bytes)" != 0 ]
told '/status?code=204' >/dev/null
model 'after 500s'

before=$(told /events | wc -l)
hook "'events':['connect','disconnect'],'rotate':true"
expect 'a new secret' no "$([ "$SECRET" = "$FIRST" ] && echo yes || echo no)"
model 'after a change of a webhook that clients were there for'
expect 'which was told' 1 "$(told /events | tail -n "+$((before + 1))" | grep -c '"type":"start","at":[0-9]*,"lost":[1-9]')"
expect 'list_clients says what it has seen' "$(told /events | tail -n 1 | jq .seq)" \
    "$(post /api/list_clients '{}' | jq '.data.seen[0].seq')"

# --- who may no longer be a receiver ------------------------------------------------------------

reloads() { [ "$(metric 'reloads_total{result="success"}')" = "$1" ]; }
reload() {
    kill -HUP "$SERVER"
    wait_for reloads "$1"
}
before=$(told /events | wc -l)
cp "$DIR/config.ini" "$DIR/allowed.ini"
sed -i 's/^allow =.*/allow =/' "$DIR/config.ini"
reload 1
client unheard shop
expect 'a receiver that is no longer allowed hears nothing' "$before" "$(told /events | wc -l)"
expect 'as the log says' 1 "$(grep -c 'webhook is off.*allow does not name its URL' "$DIR/log")"
cp "$DIR/allowed.ini" "$DIR/config.ini"
reload 2
model 'allowed again'
hook
call delete_system "{'password':'secret'}" >/dev/null
sign_up shop
before=$(told /events | wc -l)
client unheard shop
expect 'the webhook of a deleted system is gone with it' "$before" "$(told /events | wc -l)"
expect 'one of the same name has another secret' no "$(old=$SECRET; hook; [ "$old" = "$SECRET" ] && echo yes || echo no)"
hook
model 'a system of the same name'

# --- a kill -9, and an end ----------------------------------------------------------------------

kill_process "$SERVER"
SERVER=''
before=$(told /events | wc -l)
start_again
has_more() { [ "$(told /events | wc -l)" -gt "$before" ]; }
wait_for has_more
expect 'after a kill -9 comes a start' start "$(told /events | tail -n 1 | jq -r .type)"
expect 'by which all clients are forgotten' '' "$(told /model)"
client last shop
model 'after a kill -9'
halt
expect 'the last event of a node that stops is its end' 'disconnect end' \
    "$(told /events | tail -n 2 | jq -r .type | xargs)"
expect 'and nobody is online' '' "$(told /model)"
expect 'nothing was wrong' '' "$(told /wrong)$(cat "$DIR/receiver.err")"
finish

#!/usr/bin/env bash
# webhook_cost.sh - what webhooks cost: no thread before one is set; with a receiver that never answers, no more memory
# than `queue` for its system, whatever clients do: their messages are refused, and other events lost and counted.
# build: release/wspush
WSPUSH=${WSPUSH:-build/release/wspush}
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need python3
free_port
ADMIN=127.0.0.1:$FREE
free_port
RECEIVER=$FREE
QUEUE=$((4 * 1024 * 1024)) # bytes

# of_process FIELD: prints what /proc says of the server: Threads, or KiB for VmRSS and VmHWM.
of_process() {
    awk -v field="$1:" '$1 == field { print $2 }' "/proc/$SERVER/status"
}

# serve [ALLOW]: a server with a client, to which allowed receivers are configured or not.
serve() {
    fresh "[webhook]
allow = ${1-}"
    start
    sign_up shop
    client one shop
}

# crowd CLIENTS MESSAGES: so many clients come one after the other, with a ticket whose text fills events; each sends so
# many messages of 1,000 bytes, 20 at most, and goes. Prints how many of these were refused.
crowd() {
    timeout 60 python3 -B - "$PORT" "$TICKET" "$@" <<'PY'
import socket, sys
port, ticket, clients, messages = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
refused = 0
for _ in range(clients):
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(b"GET /ws?systemId=shop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Ticket: " + ticket.encode() + b"\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    stream = link.makefile("rb")
    while stream.readline().strip():
        pass
    def frame():
        size = stream.read(2)[1]
        return stream.read(int.from_bytes(stream.read(2), "big") if size == 126 else size)
    first = frame()
    link.sendall((b"\x81\xfe\x03\xe8\0\0\0\0" + b"x" * 1000) * messages + b"\x81\x82\0\0\0\0id")
    while (text := frame()) != first:
        refused += b"-1006" in text
    link.close()
print(refused)
PY
}

serve
threads=$(of_process Threads)
halt
python3 -B -c 'import socket, sys, time
quiet = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
time.sleep(300)' "$RECEIVER" &
CLIENTS+=($!)
wait_for listens "$RECEIVER"
serve "http://127.0.0.1:$RECEIVER/"
expect 'without a webhook there is no thread' "$threads" "$(of_process Threads)"
answer=$(post /api/set_webhook "{\"url\":\"http://127.0.0.1:$RECEIVER/\",\"events\":[\"connect\",\"disconnect\",\"message\"]}")
expect_match 'a webhook is set' '*whsec_*' "$answer"
expect 'it takes one thread' $((threads + 1)) "$(of_process Threads)"
TICKET=$(post /api/ticket "{\"extend\":\"$(printf '%01000d' 1)\",\"ttl\":600}" | jq -r .data.ticket)
before=$(of_process VmRSS)
refused=$(crowd 200 20)
expect 'messages are refused' "$refused" "$(metric 'webhook_events_total{result="refused"}')"
queued=$(metric webhook_queued_bytes)
expect 'by a queue that is three quarters full' yes \
    "$([ "$refused" -gt 1000 ] && [ "$queued" -gt $((QUEUE / 4 * 3 - 2000)) ] && [ "$queued" -lt $QUEUE ] && echo yes)"
expect 'and nothing is lost' 0 "$(metric 'webhook_events_total{result="lost"}')"
crowd 1200 0 >/dev/null
expect 'other events fill it, then all are lost' yes \
    "$([ "$(metric 'webhook_events_total{result="lost"}')" -gt 3000 ] && echo yes)"
expect 'and it fills again' yes "$([ "$(metric webhook_queued_bytes)" -lt $QUEUE ] && echo yes)"
grown=$(($(of_process VmHWM) - before))
echo "$queued bytes queued, $refused messages refused, $(metric 'webhook_events_total{result="lost"}') events lost, $grown KiB of memory more"
expect 'it never took more than the queue and a batch' yes "$([ $grown -lt $((QUEUE / 1024 + 1536)) ] && echo yes)"
stop
finish

#!/usr/bin/env python3
"""unicast.py SYSTEM TOKEN PORT GROUPS - what it costs a unicast that another caller lists many groups: prints the least
of several ratios of the 99th percentiles, those while groups are listed to those while the other caller makes calls
that cost nothing; and how many pages at least were listed meanwhile, each behind a search through all groups."""
import base64
import json
import os
import select
import socket
import subprocess
import sys
import time

SYSTEM, TOKEN, PORT, GROUPS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PER_CLIENT, CALLS, ROUNDS, ENOUGH = 1000, 1500, 6, 1.5


def request(name, **fields):
    body = json.dumps(fields).encode()
    return b"POST /api/%s HTTP/1.1\r\nHost: x\r\nToken: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        name.encode(), TOKEN.encode(), len(body), body)


class Caller:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def answer(self):
        while b"\r\n\r\n" not in self.kept:
            self.more()
        head, _, self.kept = self.kept.partition(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n")[0])
        while len(self.kept) < length:
            self.more()
        body, self.kept = self.kept[:length], self.kept[length:]
        return body

    def more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise SystemExit("the server has closed the connection")
        self.kept += data

    def call(self, name, **fields):
        self.socket.sendall(request(name, **fields))
        return json.loads(self.answer())


def connect():
    client = socket.create_connection(("127.0.0.1", PORT))
    client.sendall(b"GET /ws?systemId=%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
                   % (SYSTEM.encode(), base64.b64encode(os.urandom(16))))
    data = b""
    while b"}}" not in data:
        data += client.recv(4096)
    return client, json.loads(data[data.index(b"{"):])["data"]["clientId"]


def fill(caller):
    """Binds clients to many groups; returns the clients, which stay."""
    clients = [connect() for _ in range((GROUPS + PER_CLIENT - 1) // PER_CLIENT)]
    todo = [request("bind_to_group", clientId=clients[i // PER_CLIENT][1], groupName="g%d" % i) for i in range(GROUPS)]
    for i in range(0, GROUPS, 200):
        caller.socket.sendall(b"".join(todo[i:i + 200]))
        for _ in todo[i:i + 200]:
            caller.answer()
    return clients


def make_calls(name):
    """Another process: calls until its input ends, and prints when it has begun, and how many
    rounds it made."""
    caller, count, after = Caller(), 0, ""
    while not select.select([0], [], [], 0)[0]:
        if name == "list_groups":
            caller.call(name, prefix="none")  # looks at all groups
            after = caller.call(name, limit=1000, after=after)["data"]["next"]
        else:
            caller.call(name)
        count += 1
        if count == 1:
            print("under way", flush=True)
    print(count)


def percentile(caller, client, clientId):
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        caller.socket.sendall(request("send_to_client", clientId=clientId, code=1, msg="m", data=1))
        client.recv(4096)
        times.append(time.perf_counter() - began)
        caller.answer()
    return sorted(times)[len(times) * 99 // 100]


def beside(name, caller, client, clientId):
    other = subprocess.Popen([sys.executable, "-B", *sys.argv, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    result = percentile(caller, client, clientId)
    return result, int(other.communicate()[0])


def main():
    caller = Caller()
    clients = fill(caller)
    client, clientId = connect()
    ratios, pages = [], 1 << 30
    while len(ratios) < ROUNDS and min(ratios, default=9) > ENOUGH:
        without, _ = beside("count", caller, client, clientId)
        during, count = beside("list_groups", caller, client, clientId)
        ratios.append(during / without)
        pages = min(pages, count)
        print("p99 %.0f us beside counts, %.0f us beside lists" % (without * 1e6, during * 1e6), file=sys.stderr)
    print("%.2f %d" % (min(ratios), pages))
    del clients


if len(sys.argv) > 5:
    make_calls(sys.argv[5])
else:
    main()

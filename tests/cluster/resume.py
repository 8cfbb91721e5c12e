#!/usr/bin/env python3
"""resume.py SYSTEM TOKEN CLIENTS RATE PORT... - clients that come back, whatever node they find, while RATE messages a
second are sent to their groups, each with the next number of its group as its code.

Takes commands from stdin, a line each: `down PORT` and `up PORT` (whether a node is used), `cut` (all clients lose their
connections), `end`. At the end it waits until every client has the last message of its group, and prints
    sent N failed N came back N moved N gaps N anew N lost N twice N behind N
where `lost` are messages that a client misses which was told that it has all of them; of those that failed, nothing is
expected."""
import asyncio
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import net  # pylint: disable=wrong-import-position

SYSTEM, TOKEN, CLIENTS, RATE = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
UP = [int(port) for port in sys.argv[5:]]
LIVES = {}         # of a node, by its port: a connection to one that was stopped is not used again
MEMBERS = 5        # of a group
CALLERS = 20       # each sends to groups of its own, so that their numbers come in order
ACK_EVERY = 32
BACK_OFF = 0.5     # seconds, at random
SETTLE_MAX = 60.0


FAILED = set()  # (group, number)


class Counts:
    sent = failed = back = moved = gaps = anew = lost = twice = 0


class Guest:
    """A client of one group."""

    def __init__(self, number):
        self.group, self.key, self.received, self.last, self.sure = "g%d" % (number // MEMBERS), "", 0, 0, True
        self.id, self.client, self.bound = None, None, False

    async def run(self, ended):
        while not ended.is_set():
            over = asyncio.Event()
            try:
                query = SYSTEM + "&resume=%s&received=%d" % (self.key, self.received)
                await net.Client.connect(random.choice(UP), query, self.on_text,
                                                       lambda *_, over=over: over.set(), self.on_first)
            except (OSError, net.Refused, asyncio.TimeoutError):
                await asyncio.sleep(random.uniform(0, BACK_OFF))
                continue
            if not self.bound:
                await self.bind()
            await over.wait()
            await asyncio.sleep(random.uniform(0, BACK_OFF))

    def on_first(self, client, data):
        self.client = client
        if self.key:
            Counts.back += 1
            Counts.moved += data.get("previous") == self.id and self.id is not None
            Counts.gaps += data["resumed"] and not data["recovered"]
            Counts.anew += not data["resumed"]
        if not data.get("recovered"):
            self.received, self.sure = 0, not self.key
        if not data.get("resumed"):
            self.last = 0  # another client, perhaps on a node that is behind
        self.bound = self.bound and data.get("resumed", False)
        self.id, self.key = data["clientId"], data["resume"]

    async def bind(self):
        while not self.bound:
            caller = net.Caller(random.choice(UP))
            answer = await caller.call("bind_to_group", TOKEN, json.dumps({"clientId": self.id, "groupName": self.group}).encode())
            caller.close()
            if answer and answer["code"] == -1003:
                return
            self.bound = answer is not None and answer["code"] == 0
            await asyncio.sleep(0 if self.bound else 0.1)

    def on_text(self, _now, data):
        self.received += 1
        if self.received % ACK_EVERY == 0:
            self.client.send(1, b"ack %d" % self.received)
        number = int(data[8:data.index(b",")])
        if number in (1001, 1002):
            return
        number -= 10000
        if number <= self.last:
            Counts.twice += 1
        elif self.sure and self.last and number > self.last + 1:
            Counts.lost += sum((self.group, i) not in FAILED for i in range(self.last + 1, number))
        self.last, self.sure = max(number, self.last), True


async def push(groups, numbers, ended):
    """Sends to some groups, in turn."""
    callers, pause, due = {}, CALLERS / RATE, time.monotonic()
    while not ended.is_set():
        group = random.choice(groups)
        port = random.choice(UP)
        caller = callers.setdefault((port, LIVES.get(port)), net.Caller(port))
        body = {"groupName": group, "code": 10001 + numbers[group], "msg": "m", "data": 0}
        answer = await caller.call("send_to_group", TOKEN, json.dumps(body).encode())
        good = answer is not None and answer["code"] == 0
        Counts.sent += good
        Counts.failed += not good
        numbers[group] += 1
        if not good:
            FAILED.add((group, numbers[group]))
        due = max(due + pause, time.monotonic() - 1)
        await asyncio.sleep(max(0, due - time.monotonic()))


async def obey(guests):
    """Does what stdin says, until `end`."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while words := (await reader.readline()).decode().split():
        if words[0] == "down" and int(words[1]) in UP:
            UP.remove(int(words[1]))
            LIVES[int(words[1])] = object()
        elif words[0] == "up":
            UP.append(int(words[1]))
        elif words[0] == "cut":
            for guest in guests:
                if guest.client and not guest.client.transport.is_closing():
                    guest.client.reset()
        elif words[0] == "end":
            return


async def main():
    guests = [Guest(i) for i in range(CLIENTS)]
    numbers = {guest.group: 0 for guest in guests}
    sending, ended = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.ensure_future(guest.run(ended)) for guest in guests]
    while not all(guest.bound for guest in guests):
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    names = sorted(numbers)
    pushes = [asyncio.ensure_future(push(names[i::CALLERS], numbers, sending)) for i in range(CALLERS) if names[i::CALLERS]]
    await obey(guests)
    sending.set()
    await asyncio.gather(*pushes)
    until = time.monotonic() + SETTLE_MAX
    awaited = {group: max([i for i in range(1, number + 1) if (group, i) not in FAILED], default=0)
               for group, number in numbers.items()}
    while any(guest.last < awaited[guest.group] for guest in guests) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    behind = sum(guest.last < awaited[guest.group] for guest in guests)
    ended.set()
    for task in tasks:
        task.cancel()
    print("sent %d failed %d came back %d moved %d gaps %d anew %d lost %d twice %d behind %d" % (
        Counts.sent, Counts.failed, Counts.back, Counts.moved, Counts.gaps, Counts.anew, Counts.lost, Counts.twice, behind))


asyncio.run(main())

#!/usr/bin/env python3
"""churn.py PORT SYSTEM TOKEN CLIENTS [TICKET] - clients that come, join and leave groups, speak, and go in every way,
again and again; a server that is away is tried until it is back. Reads commands from its input, one a line:

  go         from now on they come and go
  rest N     N more have come: from now on they stay. Prints how many came in all
  flood N    N more clients send messages as fast as they can, until they are closed. Prints how many are, with 1008
  send N     sends N messages to a group of 20 more clients, one after the other. Prints how many of these got all of
             them, in order, and the longest send in milliseconds
"""
import asyncio
import json
import os
import random
import resource
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../cluster"))
import net  # pylint: disable=wrong-import-position

PORT, SYSTEM, TOKEN, CLIENTS = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
ADDRESS = SYSTEM + "".join("&ticket=" + ticket for ticket in sys.argv[5:])
TEXTS = 300  # of each client that floods, more than ten times what may come at once


class Caller:
    """Calls that many clients share; their answers do not matter."""

    def __init__(self):
        self.lock, self.caller = asyncio.Lock(), net.Caller(PORT)

    async def ask(self, name, **fields):
        async with self.lock:
            await self.caller.call(name, TOKEN, json.dumps(fields).encode())


def connect(on_text=lambda *_: None, on_end=lambda *_: None, more=""):
    return net.Client.connect(PORT, ADDRESS + more, on_text, on_end)


class Churn:
    def __init__(self):
        self.going, self.came = asyncio.Event(), 0

    async def live(self, caller):
        """One client after the other."""
        while True:
            await self.going.wait()
            ended = asyncio.Event()
            try:  # some are online for a while after their connection has ended
                client = await connect(on_end=lambda *_, ended=ended: ended.set(), more=random.choice(("", "&resume=")))
            except (OSError, asyncio.TimeoutError, net.Refused):
                await asyncio.sleep(0.05)
                continue
            self.came += 1
            await self.be(client, caller)
            await self.going.wait()
            if not ended.is_set():
                random.choice((client.close, client.hang_up, client.reset))()
            await ended.wait()

    async def be(self, client, caller):
        for _ in range(random.randrange(3)):
            fields = {"clientId": client.id, "groupName": "g%d" % random.randrange(5)}
            if random.random() < 0.3:
                await caller.ask("unbind_from_group", **fields)
                continue
            if random.random() < 0.5:
                fields["userId"], fields["extend"] = "u%d" % random.randrange(9), random.choice(("", "e"))
            await caller.ask("bind_to_group", **fields)
        client.send(1, b"hello")
        await asyncio.sleep(random.random() * 2)

    async def rest(self, number):
        number += self.came
        while self.came < number:
            await asyncio.sleep(0.01)
        self.going.clear()
        return self.came


async def flood_once(gate):
    """Whether a client that floods is closed for that."""
    ended = asyncio.get_running_loop().create_future()
    async with gate:
        client = await connect(on_end=lambda _, code: ended.set_result(code))
        client.transport.write(b"\x81\x85\0\0\0\0hello" * TEXTS)
        return await asyncio.wait_for(ended, 60) == 1008


async def flood(number):
    gate = asyncio.Semaphore(200)
    return sum(await asyncio.gather(*(flood_once(gate) for _ in range(number))))


async def send(number):
    got, caller, longest = [[] for _ in range(20)], Caller(), 0
    wanted = [b'{"code":%d,"msg":"m","data":1}' % at for at in range(number)]
    for texts in got:
        client = await connect(lambda _, text, texts=texts: texts.append(text))
        await caller.ask("bind_to_group", clientId=client.id, groupName="members")
    for at in range(number):
        begin = time.monotonic()
        await caller.ask("send_to_group", groupName="members", code=at, msg="m", data=1)
        longest = max(longest, time.monotonic() - begin)
        await asyncio.sleep(0.01)
    for _ in range(1000):
        if all(texts[-1:] == wanted[-1:] for texts in got):
            break
        await asyncio.sleep(0.01)
    return "%d %d" % (sum([text for text in texts if b'"m"' in text] == wanted for texts in got), longest * 1000)


async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    churn, callers = Churn(), [Caller() for _ in range(8)]
    lives = [asyncio.ensure_future(churn.live(callers[i % len(callers)])) for i in range(CLIENTS)]
    commands = {"rest": churn.rest, "flood": flood, "send": send}
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        command, _, number = line.strip().partition(" ")
        if command == "go":
            churn.going.set()
        else:
            print(await commands[command](int(number)), flush=True)
    for life in lives:
        life.cancel()


asyncio.run(main())
os._exit(0)

#!/usr/bin/env python3
"""tickets.py PORT TOKEN SECONDS - clients with tickets come to a node, each to eight groups of its own, for so long;
whoever runs this breaks RabbitMQ meanwhile. Prints how many came in, how many were refused, and what is wrong: who came
in is in all of its groups; who was refused is in none, was told -1007, and closed with 1013."""
import asyncio
import json
import sys

import net

CROWD = 8  # at a time
GROUPS = 8


async def ticket(caller, token, groups):
    body = json.dumps({"userId": groups[0], "groups": groups, "ttl": 600}).encode()
    answer = await caller.call("ticket", token, body)
    return answer["data"]["ticket"]


async def come(port, given):
    """Connects, and returns the frames until the first message, or the close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /ws?systemId=shop&ticket=%s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % given.encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    opcode, payload = await frame(reader)
    message = json.loads(payload)
    if message["code"] == 0:
        return message, writer, 0
    opcode, payload = await frame(reader)
    writer.close()
    return message, None, int.from_bytes(payload[:2], "big") if opcode == 8 else -opcode


async def frame(reader):
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    return first & 15, await reader.readexactly(size)


class Judge:
    def __init__(self, port, token, until):
        self.port, self.token, self.until = port, token, until
        self.came, self.refused, self.wrong = [], [], []

    async def crowd(self, name):
        caller, count, loop = net.Caller(self.port), 0, asyncio.get_running_loop()
        while loop.time() < self.until:
            count += 1
            groups = [f"{name}-{count}-{i}" for i in range(GROUPS)]
            given = await ticket(caller, self.token, groups)
            message, writer, code = await come(self.port, given)
            if writer:
                self.came.append((groups, message["data"]["clientId"], writer))
            else:
                self.refused.append(groups)
                if message["code"] != -1007 or code != 1013:
                    self.wrong.append(f"{message} {code}")
            await asyncio.sleep(0.02)

    async def check(self):
        caller = net.Caller(self.port)
        for groups, client, _ in self.came:
            answer = await caller.call("client_info", self.token, json.dumps({"clientId": client}).encode())
            if answer["code"] != 0 or sorted(answer["data"]["groups"]) != sorted(groups):
                self.wrong.append(f"{groups[0]} came in: {answer}")
        for groups in self.refused:
            for group in groups:
                answer = await caller.call("get_online_list", self.token, json.dumps({"groupName": group}).encode())
                if answer["data"]["count"]:
                    self.wrong.append(f"{group} of one that was refused: {answer}")


async def main():
    port, token, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    judge = Judge(port, token, asyncio.get_running_loop().time() + seconds)
    await asyncio.gather(*(judge.crowd(str(i)) for i in range(CROWD)))
    await judge.check()
    print(len(judge.came), len(judge.refused), *judge.wrong[:5], flush=True)


asyncio.run(main())

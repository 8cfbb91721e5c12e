#!/usr/bin/env python3
"""crowd.py PORT SYSTEM TOKEN COUNT GROUP... - connects many clients to a node, binds each to all groups, prints how
many binds were a success, and stays until its input ends."""
import asyncio
import json
import os
import sys

import net

CALLERS = 16


async def bind(port, token, todo):
    caller, bound = net.Caller(port), 0
    while todo:
        client, group = todo.pop()
        body = json.dumps({"clientId": client.id, "groupName": group}).encode()
        answer = await caller.call("bind_to_group", token, body)
        bound += answer is not None and answer["code"] == 0
    return bound


async def main():
    port, system, token, count, groups = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
    clients = [await net.Client.connect(port, system, lambda *_: None, lambda *_: None) for _ in range(count)]
    todo = [(client, group) for group in reversed(groups) for client in clients]
    print(sum(await asyncio.gather(*(bind(port, token, todo) for _ in range(CALLERS)))), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
os._exit(0)

#!/usr/bin/env python3
"""A wspush client in Python (3.9 or later): prints each push as one line, and reconnects when the connection ends.

    PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' python3 client.py

It is its own business system, with the call() of push.py: only that knows the password, and gets the tickets."""
import asyncio
import json
import os
import random
import sys
import urllib.parse

from push import SYSTEM, URL, Refused, call

try:
    from websockets import ConnectionClosed, WebSocketException, connect
    from websockets.version import version
except ImportError:
    print("client.py needs websockets (10.4 or later). On Debian and Ubuntu: sudo apt-get install python3-websockets",
          file=sys.stderr)
    sys.exit(2)

GROUP = os.environ.get("PUSH_GROUP", "news")
HEADERS = "extra_headers" if int(version.split(".")[0]) < 14 else "additional_headers"  # as the library calls them
MAX_WAIT = float(os.environ.get("PUSH_MAX_WAIT", 30))  # seconds

tries = 0  # since the last connection that was of use


async def stay():
    """Runs one connection until it ends."""
    global tries
    # a new ticket each time: it is good for a minute. In a header, because addresses end up in the logs of proxies.
    ticket = (await asyncio.to_thread(call, "/api/ticket", {"userId": "python", "groups": [GROUP]}))["ticket"]
    address = URL.replace("http", "ws", 1) + "/ws?systemId=" + urllib.parse.quote(SYSTEM, safe="")
    # the library pings the server, and gives up a connection that does not answer
    async with connect(address, open_timeout=10, ping_interval=15, ping_timeout=10, max_size=None,
                       **{HEADERS: {"Ticket": ticket}}) as socket:
        first = json.loads(await asyncio.wait_for(socket.recv(), 10))  # has our id, or the reason why we get none
        if first["code"] != 0:
            print(first["msg"], file=sys.stderr, flush=True)
        else:
            print("connected, in the group", GROUP, file=sys.stderr, flush=True)
            tries = 0
        while True:
            print(await socket.recv(), flush=True)


async def main():
    global tries
    while True:
        patient = False  # only somebody else can fix it, by registering the system
        try:
            await stay()
        except ConnectionClosed as end:
            reason = "closed: %d %s" % (end.rcvd.code, end.rcvd.reason) if end.rcvd else str(end)
            patient = end.rcvd is not None and end.rcvd.code == 1008
        except Refused as error:
            reason, patient = error, error.code == -1005
        except (OSError, asyncio.TimeoutError, WebSocketException) as error:
            reason = str(error) or type(error).__name__
        # at random, so that clients do not all come back at once
        wait = MAX_WAIT * random.uniform(1, 2) if patient else random.uniform(0, min(MAX_WAIT, 2 ** tries))
        tries = min(tries + 1, 10)
        print("%s; next try in %.1f s" % (reason, wait), file=sys.stderr, flush=True)
        await asyncio.sleep(wait)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass

#!/usr/bin/env python3
"""A wspush client in Python (3.9 or later): prints each push as one line; reconnects, and resumes its session.

    PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' python3 client.py

It is its own business system, with the call() of push.py: only that knows the password, and gets the tickets."""
import asyncio
import json
import os
import random
import sys
import time
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
key, received = "", 0  # the session: both sides count the messages, except the first of a connection and pong


def say(line):
    print(line, file=sys.stderr, flush=True)


def greet(frame):
    """Takes the first frame, which has our id, or the reason why we get none."""
    global tries, key, received
    if frame["code"] != 0:
        return say(frame["msg"])
    data, tries = frame["data"], 0
    if data.get("recovered"):
        say("resumed, %d replayed" % data["replay"])
    else:
        say("connected, in the group " + GROUP)
        if key:
            say("pushes are missing")
        received = 0
    key = data.get("resume", "")  # another one each time


async def read(socket):
    """Prints pushes until the connection breaks, or a ping has no answer. Says how many there were: at each 32nd, and
    after 15 s."""
    global received
    acked, acked_at, asked = received, time.monotonic(), False
    while True:
        try:
            text, asked = await asyncio.wait_for(socket.recv(), 15), False
            if text != "pong":
                print(text, flush=True)
                received += 1
        except asyncio.TimeoutError:
            if asked:
                socket.transport.abort()  # a close frame would end the session
                raise OSError("no answer to a ping") from None
            asked = True
            await socket.send("ping")
        if key and (received - acked >= 32 or received > acked and time.monotonic() - acked_at >= 15):
            acked, acked_at = received, time.monotonic()
            await socket.send("ack %d" % received)


async def stay():
    """Runs one connection until it ends."""
    # a new ticket each time: it is good for a minute. In a header, because addresses end up in the logs of proxies.
    ticket = (await asyncio.to_thread(call, "/api/ticket", {"userId": "python", "groups": [GROUP]}))["ticket"]
    address = URL.replace("http", "ws", 1) + "/ws?systemId=" + urllib.parse.quote(SYSTEM, safe="") + "&resume=" + key
    if key:
        address += "&received=%d" % received
    async with connect(address, open_timeout=10, ping_interval=None, max_size=None,
                       **{HEADERS: {"Ticket": ticket}}) as socket:
        greet(json.loads(await asyncio.wait_for(socket.recv(), 10)))
        await read(socket)


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
        say("%s; next try in %.1f s" % (reason, wait))
        await asyncio.sleep(wait)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass

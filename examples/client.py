#!/usr/bin/env python3
"""A wspush client in Python: prints each push as one line, and reconnects when the connection ends.

    pip install websockets && WSPUSH_SYSTEM=shop WSPUSH_PASSWORD='open sesame' python3 client.py
"""
import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

URL = os.environ.get("WSPUSH_URL", "http://localhost:7800")
SYSTEM = os.environ.get("WSPUSH_SYSTEM", "shop")
GROUP = os.environ.get("WSPUSH_GROUP", "news")


# What the business system would do: only it knows the password. It keeps its token until an answer is 401.
token = ""


def call(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Token": token})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    if answer["code"] != 0:
        raise OSError(answer["msg"])
    return answer["data"]


def hand_over(client_id):
    global token
    bind = {"clientId": client_id, "groupName": GROUP, "userId": "python"}
    try:
        call("/api/bind_to_group", bind)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        token = call("/api/login", {"systemId": SYSTEM, "password": os.environ["WSPUSH_PASSWORD"]})["token"]
        call("/api/bind_to_group", bind)


delay = 1.0  # seconds before the next try, doubled each time
while True:
    code = 1006  # unless a close frame says otherwise
    try:
        # the library pings the server, and gives up a connection that does not answer
        with connect(URL.replace("http", "ws", 1) + "/ws?systemId=" + urllib.parse.quote(SYSTEM, safe=""),
                     ping_interval=20, ping_timeout=20, max_size=None) as socket:
            first = json.loads(socket.recv(timeout=10))  # the first frame has our id, or the reason why we get none
            if first["code"] == 0:
                hand_over(first["data"]["clientId"])
                delay = 1.0
            while True:
                print(socket.recv(), flush=True)
    except ConnectionClosed as end:
        code = end.rcvd.code if end.rcvd else 1006
    except OSError as error:  # no connection, or the id could not be passed on
        print(error, file=sys.stderr)
    if code == 1008:
        sys.exit("closed with 1008: the system is not registered")
    wait = delay * random.uniform(0.5, 1)  # so that clients do not all reconnect at once
    print("closed with %d, next try in %.1f s" % (code, wait), file=sys.stderr, flush=True)
    time.sleep(wait)
    delay = min(delay * 2, 30)

#!/usr/bin/env python3
"""Pushes from a backend in Python: each line of its input goes to the clients in a group.

    echo hello | PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' python3 push.py news

business.py and client.py use call() as well."""
import http.client
import json
import os
import sys
import urllib.error
import urllib.request

URL = os.environ.get("PUSH_URL", "http://127.0.0.1:7800")
SYSTEM = os.environ.get("PUSH_SYSTEM", "shop")
PASSWORD = os.environ.get("PUSH_PASSWORD")
if not PASSWORD:
    print("Set PUSH_PASSWORD to the password of the system %s." % SYSTEM, file=sys.stderr)
    sys.exit(2)

token = ""  # of the last login: good until an answer is 401


class Refused(OSError):
    """The server answered with a code other than 0."""

    def __init__(self, path, answer):
        super().__init__("%s: %s (%d)" % (path, answer["msg"], answer["code"]))
        self.code = answer["code"]


def post(path, body):
    """Returns the HTTP status and the answer."""
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Token": token})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:  # has an answer too
        return error.code, json.load(error)
    except urllib.error.URLError as error:
        raise OSError("%s: %s" % (URL, error.reason)) from error


def call(path, body):
    """Returns the data of the answer. An OSError says why there is none."""
    global token
    try:
        status, answer = post(path, body)
        if status == 401:  # no token yet, or it has expired
            _, login = post("/api/login", {"systemId": SYSTEM, "password": PASSWORD})
            if login["code"] != 0:
                raise Refused("/api/login", login)
            token = login["data"]["token"]
            _, answer = post(path, body)
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise OSError("%s does not answer as wspush does: %r" % (URL, error)) from error
    if answer["code"] != 0:
        raise Refused(path, answer)
    return answer["data"]


def main():
    if len(sys.argv) != 2:
        print("Usage: push.py GROUP <LINES", file=sys.stderr)
        sys.exit(2)
    for line in sys.stdin:
        try:
            receipt = call("/api/send_to_group", {"groupName": sys.argv[1], "code": 7, "msg": "line",
                                                  "data": line.rstrip("\n"), "receipt": True})
            print("queued for %d client(s)" % receipt["queued"], flush=True)
        except OSError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()

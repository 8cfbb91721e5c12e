#!/usr/bin/env python3
"""The smallest business system: serves browser.html, and binds the id of each page to a group.

    WSPUSH_SYSTEM=shop WSPUSH_PASSWORD='open sesame' python3 business.py 8000

Then open http://localhost:8000/. Only this program knows the password and decides who joins which group."""
import http.server
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

URL = os.environ.get("WSPUSH_URL", "http://localhost:7800")
PAGE = pathlib.Path(__file__).with_name("browser.html").read_bytes()


TOKEN = ""  # of the last login: valid until an answer is 401


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Token": TOKEN})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def call(path, body):
    global TOKEN
    try:
        return post(path, body)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
    login = post("/api/login", {"systemId": os.environ.get("WSPUSH_SYSTEM", "shop"),
                                "password": os.environ["WSPUSH_PASSWORD"]})
    TOKEN = login["data"]["token"]
    return post(path, body)


class Business(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        found = self.path.split("?")[0] == "/"
        self.answer(200 if found else 404, PAGE if found else b"")

    def do_POST(self):  # /client: a page passes its id on
        try:
            client = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["clientId"]
            # a real one would know from its own login who this is
            bound = call("/api/bind_to_group", {"clientId": client, "userId": "browser",
                                                "groupName": os.environ.get("WSPUSH_GROUP", "news")})
            self.answer(200 if bound["code"] == 0 else 502)
        except (OSError, ValueError, KeyError, TypeError):  # wspush is down, or the request is not from our page
            self.answer(502)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Business).serve_forever()

#!/usr/bin/env python3
"""The smallest business system: serves browser.html, and binds the id of each page to a group.

    PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' python3 business.py 8000

Then open http://localhost:8000/. Only this program knows the password and decides who joins which group."""
import http.server
import json
import os
import pathlib
import sys

from push import call

PAGE = pathlib.Path(__file__).with_name("browser.html").read_bytes()
GROUP = os.environ.get("PUSH_GROUP", "news")


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
            call("/api/bind_to_group", {"clientId": client, "userId": "browser", "groupName": GROUP})
            self.answer(200)
        except OSError as error:
            print(error, file=sys.stderr)
            self.answer(502)
        except (ValueError, KeyError, TypeError):  # the request is not from our page
            self.answer(400)

    def log_message(self, *_):
        pass


if len(sys.argv) != 2 or not sys.argv[1].isdigit():
    print("Usage: business.py PORT", file=sys.stderr)
    sys.exit(2)
try:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Business)
except (OSError, OverflowError) as error:
    sys.exit("business.py cannot listen on port %s: %s" % (sys.argv[1], error))
print("Open http://localhost:%s/" % sys.argv[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass

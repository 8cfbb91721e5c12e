#!/usr/bin/env python3
"""The smallest business system: serves browser.html, and gets a ticket for each page.

    PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' python3 business.py 8000

Then open http://localhost:8000/. Only this program knows the password, says which user a page belongs to, and decides
which groups it joins."""
import http.server
import os
import pathlib
import sys

from push import call

HERE = pathlib.Path(__file__).parent
FILES = {"/": (HERE / "browser.html", "text/html"), "/wspush.js": (HERE.parent / "wspush.js", "text/javascript")}
GROUP = os.environ.get("PUSH_GROUP", "news")


class Business(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        file, kind = FILES.get(self.path.split("?")[0], (None, None))
        if file:
            self.answer(200, file.read_bytes(), kind)
        else:
            self.answer(404)

    def do_POST(self):  # a page asks for a ticket
        if self.path != "/ticket":
            return self.answer(404)
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return self.answer(403)  # another site's page asks, with the cookies of our user
        try:
            # a real one would know from its own login who this is
            self.answer(200, call("/api/ticket", {"userId": "browser", "groups": [GROUP]})["ticket"].encode())
        except OSError as error:
            print(error, file=sys.stderr)
            self.answer(502, b"the business system got no ticket")

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

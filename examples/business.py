#!/usr/bin/env python3
"""A business system: serves browser.html, gets a ticket for each page, and receives webhooks: it hears who comes, goes
and speaks, knows who is online, and answers.

    PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' PUSH_SECRET=whsec_... python3 business.py 8000

Then open http://localhost:8000/, and http://localhost:8000/online for who is there. Only this program knows the
password, says which user a page belongs to, and decides which groups it joins. Without PUSH_SECRET, which is what
/api/set_webhook has answered, it takes no events."""
import base64
import hmac
import http.server
import json
import os
import pathlib
import sys
import threading
import time

from push import Refused, call

HERE = pathlib.Path(__file__).parent
FILES = {"GET /": (HERE / "browser.html", "text/html"),
         "GET /wspush.js": (HERE.parent / "wspush.js", "text/javascript")}
GROUP = os.environ.get("PUSH_GROUP", "news")
SECRET = base64.b64decode(os.environ.get("PUSH_SECRET", "").partition("whsec_")[2])
BODY_MAX = 1 << 20  # bytes of a request


def is_signed(headers, body):
    """Whether a request is from wspush, and not an old one sent again: https://www.standardwebhooks.com/."""
    name, when = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not SECRET or not when.isdecimal() or abs(time.time() - int(when)) > 300:
        return False
    mac = hmac.digest(SECRET, ("%s.%s." % (name, when)).encode() + body, "sha256")
    good = b"v1," + base64.b64encode(mac)
    # for a day after the secret was changed, there are two signatures
    return any(hmac.compare_digest(good, one.encode()) for one in headers.get("webhook-signature", "").split())


class Online:
    """Who is online, by the four rules of docs/api.md. Numbers of events are pairs of epoch and seq."""

    def __init__(self):
        self.lock = threading.Lock()
        self.heard = {}  # node: the number of its last event
        self.listed = {}  # node: the number of its last event that the list takes account of
        self.clients = {}  # clientId: its node, its epoch, its userId

    def take(self, batch):
        """Takes the events of a request. After an OSError, which says why it cannot, wspush sends them again."""
        with self.lock:
            for event in batch["events"]:
                self.hear(batch["node"], (batch["epoch"], event["seq"]), event)

    def hear(self, node, number, event):
        epoch, seq = number
        if number <= self.heard.get(node, (0, 0)):
            return  # rule 1: it was here before
        if event["type"] == "start":
            self.forget(node, epoch - 1)  # rule 2
            missed = event["lost"] > 0
        else:
            missed = self.heard.get(node) != (epoch, seq - 1) or \
                "previous" in event and event["previous"] not in self.clients  # it has moved; its old node has yet to tell
        if missed or not self.heard:  # when this program starts, it has heard nothing
            self.list()  # rule 3
            if self.listed.get(node, (0, 0)) < number:
                raise OSError("the other nodes do not list %s yet" % node)
        if event["type"] == "message":  # which no list has
            answer(event, "%d.%d" % number)
        elif number > self.listed.get(node, (0, 0)):
            self.apply(node, epoch, event)
        self.heard[node] = number

    def apply(self, node, epoch, event):
        if event["type"] == "end":
            self.forget(event["node"], event["epoch"])  # rule 2, also for what comes late of these epochs
            self.listed[event["node"]] = max(self.listed.get(event["node"], (0, 0)), (event["epoch"] + 1, 0))
        elif event["type"] == "disconnect":
            self.clients.pop(event["clientId"], None)
        elif event["type"] == "connect" or event["type"] == "join" and event["clientId"] in self.clients:
            self.clients.pop(event.get("previous"), None)  # it has moved here, and has no disconnect
            self.clients[event["clientId"]] = (node, epoch, event["userId"])  # a bind may have changed the user

    def forget(self, node, epoch):
        """Forgets the clients of a node that are of this epoch or older."""
        self.clients = {id: client for id, client in self.clients.items() if client[0] != node or client[1] > epoch}

    def list(self):
        """Gets the clients of all nodes, as they are now."""
        clients, listed, after = {}, {}, None
        while after != "":
            page = call("/api/list_clients", {"after": after or "", "limit": 1000})
            if page.get("incomplete"):
                raise OSError("a node cannot be asked for its clients")
            for seen in page.get("seen", []):  # of the node whose clients are in the page
                listed.setdefault(seen["node"], (seen["epoch"], seen["seq"]))  # that of its first page
                for client in page["clients"]:
                    clients[client["clientId"]] = (seen["node"], seen["epoch"], client["userId"])
            after = page["next"]
        self.clients, self.listed = clients, listed

    def users(self):
        """The ids of the clients of each user that is online: rule 4. Those without a user are under ""."""
        users = {}
        with self.lock:
            if not self.heard:  # this program has just started
                self.list()
            for id, (_, _, user) in self.clients.items():
                users.setdefault(user, []).append(id)
        return users


def answer(event, name):
    """Answers what a client says; once, even if the event comes again after a crash of this program."""
    try:
        call("/api/send_to_client", {"clientId": event["clientId"], "code": 7, "msg": "answer",
                                     "data": "You said: " + event["text"], "messageId": name, "once": True})
    except Refused as error:
        if error.code != -1003:  # it has gone, and needs no answer
            raise


ONLINE = Online()


class Business(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # or wspush would open a connection for each request
    timeout = 60

    def do_GET(self):
        self.respond(b"")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= BODY_MAX:
            return self.respond(self.rfile.read(int(length)))
        self.close_connection = True  # for the body is not read
        self.answer(413)

    def respond(self, body):
        try:
            response = self.serve("%s %s" % (self.command, self.path.split("?")[0]), body)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            response = 503, b"the business system cannot ask wspush"  # which sends events again
        self.answer(*response)

    def serve(self, request, body):
        """Returns what `answer` takes."""
        if request in FILES:
            file, kind = FILES[request]
            return 200, file.read_bytes(), kind
        if request == "GET /online":  # a real one would not tell everybody
            return 200, json.dumps(ONLINE.users()).encode(), "application/json"
        if request == "POST /ticket":
            if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
                return (403,)  # another site's page asks, with the cookies of our user
            # a real one would know from its own login who this is
            return 200, call("/api/ticket", {"userId": "browser", "groups": [GROUP]})["ticket"].encode()
        if request == "POST /events":
            if not is_signed(self.headers, body):
                return (401,)
            ONLINE.take(json.loads(body))
            return (200,)
        return (404,)

    def answer(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

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

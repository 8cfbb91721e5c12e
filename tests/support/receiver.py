#!/usr/bin/env python3
"""receiver.py PORT API_PORT... - a receiver of webhooks that keeps a model of who is online by the four rules of
docs/api.md, and judges what it is sent. The tests control it by GET:

  /setup?token=T&secret=S   whose events, and what signs them; a second secret is one more that is good; unsigned=1: none
  /status?code=N            what it answers from now on, before it looks at the events
  /events                   all events that it has taken, one a line
  /epochs                   all epochs of which it has taken something: node and epoch, one a line
  /model                    the ids of the clients that are online, sorted, one a line
  /wrong                    what it has to complain of, one a line
"""
import base64
import hashlib
import hmac
import http.client
import http.server
import json
import socketserver
import sys
import threading
import time
import urllib.parse

PORT, API_PORTS = int(sys.argv[1]), [int(port) for port in sys.argv[2:]]


class Model:
    def __init__(self):
        self.lock = threading.Lock()
        self.token, self.secrets, self.status = "", [], 200
        self.seen, self.epochs = {}, {}  # (node, epoch): seq; node: its latest epoch
        self.listed = {}  # node: the epoch and seq that list_clients has seen, see rule 3
        self.clients = {}  # id: (node, epoch)
        self.events, self.wrong, self.tried = [], [], {}

    def complain(self, text):
        self.wrong.append(text)

    def check(self, headers, body):
        """The signature, and that a request that is repeated is the same."""
        name, when = headers["webhook-id"], headers["webhook-timestamp"]
        if abs(time.time() - int(when)) > 300:
            self.complain("the timestamp is %s" % when)
        signed = ("%s.%s." % (name, when)).encode() + body
        good = set()
        for secret in self.secrets:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            good.add("v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())
        if self.secrets and not good & set(headers["webhook-signature"].split(" ")):
            self.complain("%s is not signed" % name)
        if self.tried.setdefault(name, body) != body:
            self.complain("%s was repeated with another body" % name)
        batch = json.loads(body)
        if name != "%s.%d.%d" % (batch["node"], batch["epoch"], batch["events"][0]["seq"]):
            self.complain("%s does not name its first event" % name)
        return batch

    def take(self, batch):
        node, epoch = batch["node"], batch["epoch"]
        for event in batch["events"]:
            last = self.seen.get((node, epoch), 0)
            if event["seq"] <= last:
                continue  # rule 1
            if event["seq"] != last + 1:
                self.complain("event %d comes after %d" % (event["seq"], last))
            if not self.apply(node, epoch, event):
                return False
            self.seen[node, epoch] = max(event["seq"], self.seen.get((node, epoch), 0))
            self.events.append(event)
        return True

    def apply(self, node, epoch, event):
        """False: it cannot be done now."""
        kind, client = event["type"], event.get("clientId")
        if kind in ("connect", "disconnect", "join", "leave") and \
                (epoch, event["seq"]) <= self.listed.get(node, (0, 0)):
            return True  # rule 3
        if kind == "start":
            self.forget(node, epoch - 1)  # rule 2
            return not event["lost"] or self.list(node)  # rule 3
        if kind == "end":
            self.forget(event["node"], event["epoch"])
        elif kind == "connect":
            if client in self.clients:
                self.complain("%s connects twice" % client)
            self.clients[client] = (node, epoch)
        elif kind == "disconnect" and not self.clients.pop(client, None):
            self.complain("%s disconnects, and was not connected" % client)
        return True

    def forget(self, node, epoch):
        self.clients = {id: of for id, of in self.clients.items() if of[0] != node or of[1] > epoch}

    def list(self, node):
        """Makes the model what list_clients says of a node, up to the event that its first page has seen."""
        after, first, found = "", None, []
        for count in range(1000):
            if not after and count:
                break
            data = self.call("list_clients", {"after": after, "limit": 100})
            if not data:
                return False
            after = data["next"]
            if data.get("seen", [{"node": ""}])[0]["node"] == node:
                first = first or data["seen"][0]
                found += data["clients"]
        if not first:
            return False  # a node that is not listed yet comes again
        self.forget(node, first["epoch"])
        self.listed[node] = (first["epoch"], first["seq"])
        self.clients.update({client["clientId"]: (node, first["epoch"]) for client in found})
        return True

    def call(self, name, fields):
        answer = {"code": -1007}
        for port in API_PORTS:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("POST", "/api/" + name, json.dumps(fields), {"Token": self.token})
                answer = json.loads(connection.getresponse().read())
                break
            except OSError:
                pass
            finally:
                connection.close()
        if answer["code"] == -1007:
            return None  # not now
        if answer["code"] != 0:
            self.complain("%s: %s" % (name, answer))
        return answer["data"]


MODEL = Model()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with MODEL.lock:
            batch = MODEL.check(self.headers, body)
            status = MODEL.status
            if status // 100 == 2 and not MODEL.take(batch):
                status = 503
        self.answer(status)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        fields = dict(urllib.parse.parse_qsl(query))
        with MODEL.lock:
            lines = []
            if path == "/setup":
                MODEL.token = fields.get("token", MODEL.token)
                if "unsigned" in fields:
                    MODEL.secrets = []
                if "secret" in fields:
                    MODEL.secrets.append(fields["secret"])
            elif path == "/status":
                MODEL.status = int(fields["code"])
            elif path == "/events":
                lines = [json.dumps(event, separators=(",", ":")) for event in MODEL.events]
            elif path == "/epochs":
                lines = ["%s %d" % of for of in MODEL.seen]
            elif path == "/model":
                lines = sorted(MODEL.clients)
            elif path == "/wrong":
                lines = MODEL.wrong
        self.answer(200, "".join(line + "\n" for line in lines))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64


Server(("127.0.0.1", PORT), Handler).serve_forever()

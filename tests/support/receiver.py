#!/usr/bin/env python3
"""receiver.py PORT API_PORT... - a receiver of webhooks that keeps a model of who is online by the four rules of
docs/api.md, and judges what it is sent. The tests control it by GET:

  /setup?token=T&secret=S   whose events, and what signs them; a second secret is one more that is good; unsigned=1: none
                            is needed; page=N: clients of a page when it lists them. Until then it answers 503
  /status?code=N            what it answers from now on, before it looks at the events
  /faults?all=NAME,...      what becomes of the next requests, one after the other: see Handler.fail
  /faults                   those to come
  /events                   all events that it has taken, one a line
  /counts                   events taken, requests that were repeated, starts that told of losses
  /epochs                   all epochs of which it has taken something: node and epoch, one a line
  /model                    the ids of the clients that are online, sorted, one a line
  /clients                  the same with user, extend and groups
  /wrong                    what it has to complain of, one a line
"""
import base64
import hashlib
import hmac
import http.client
import http.server
import json
import math
import random
import socket
import socketserver
import struct
import sys
import threading
import time
import urllib.parse

PORT, API_PORTS = int(sys.argv[1]), [int(port) for port in sys.argv[2:]]
LATE = 5  # seconds; longer than the timeout of the tests


class Model:
    def __init__(self):
        self.lock = threading.Lock()
        self.token, self.secrets, self.status, self.page = "", [], 503, 100
        self.heard = {}  # node: (epoch, seq) of the last event
        self.listed = {}  # node: the same of the last one that is in what was listed,
        self.until = {}  # and of the last one that may be in it
        self.clients = {}  # id: [node, epoch, user, extend, groups]
        self.moved = set()  # ids that clients had on other nodes, which may tell of them later
        self.events, self.wrong, self.tried, self.faults = [], [], {}, []
        self.repeated, self.losses, self.epochs = 0, 0, set()

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
        digest = hashlib.sha256(body).digest()
        self.repeated += name in self.tried
        if self.tried.setdefault(name, digest) != digest:
            self.complain("%s was repeated with another body" % name)
        batch = json.loads(body)
        if name != "%s.%d.%d" % (batch["node"], batch["epoch"], batch["events"][0]["seq"]):
            self.complain("%s does not name its first event" % name)
        return batch

    def take(self, batch):
        node, epoch = batch["node"], batch["epoch"]
        for event in batch["events"]:
            last, this = self.heard.get(node, (0, 0)), (epoch, event["seq"])
            if this <= last:
                continue  # rule 1
            if event["seq"] != (last[1] + 1 if epoch == last[0] else 1):
                self.complain("event %s comes after %s" % (this, last))
            if (event["type"] == "start") != (event["seq"] == 1):
                self.complain("event %s is a %s" % (this, event["type"]))
            new = this > self.listed.get(node, (0, 0)) or event["type"] == "end"  # which is of another node
            if new and not self.apply(node, this, event):
                return False
            self.heard[node] = this
            self.epochs.add((node, epoch))
            self.events.append(event)  # messages, too, of before the list, for no list has them
        return True

    def apply(self, node, this, event):
        """False: it cannot be done now."""
        kind, name = event["type"], event.get("clientId")
        client, sure = self.clients.get(name), this > self.until.get(node, (0, 0))
        if name in self.moved:
            return True
        if kind == "start":
            self.losses += event["lost"] > 0
            self.forget(node, this[0] - 1)  # rule 2
            return not event["lost"] or self.list(node)  # rule 3
        if kind == "end":
            self.forget(event["node"], event["epoch"])
            self.heard[event["node"]] = max((event["epoch"], math.inf), self.heard.get(event["node"], (0, 0)))
        elif kind == "connect":
            if client and sure:
                self.complain("%s connects twice" % name)
            self.clients.pop(event.get("previous"), None)  # it came from another node
            self.clients[name] = [node, this[0], event["userId"], event["extend"], set(event["groups"])]
            if "previous" in event:
                self.moved.add(event["previous"])
                self.clients.pop(event["previous"], None)
        elif kind == "disconnect":
            if not self.clients.pop(name, None) and sure:
                self.complain("%s disconnects, and was not connected" % name)
        elif kind in ("join", "leave") and client:
            client[2:4] = event["userId"], event["extend"]
            (client[4].add if kind == "join" else client[4].discard)(event["groupName"])
        elif sure and not client:
            self.complain("%s is not connected: %s" % (name, kind))
        return True

    def forget(self, node, epoch):
        self.clients = {name: of for name, of in self.clients.items() if of[0] != node or of[1] > epoch}

    def list(self, node):
        """Makes the model what list_clients says of a node, once all pages are there. What its first page has seen is in
        the list; of what came since then, up to what is seen behind the last page, something may be."""
        found, first, asked = {}, None, ""
        for after, data in self.pages():
            if data is None:
                return False
            seen = data.get("seen", [{"node": ""}])[0]
            if seen["node"] == node:
                first, asked = first or (seen["epoch"], seen["seq"]), after
                for client in data["clients"]:
                    found[client["clientId"]] = [node, first[0], client["userId"], client["extend"],
                                                 set(client["groups"])]
        again = first and self.call("list_clients", {"after": asked, "limit": 1})
        if not again:
            return False  # a node that is not listed yet
        self.forget(node, first[0])
        self.clients.update(found)
        self.listed[node] = first
        self.until[node] = (again["seen"][0]["epoch"], again["seen"][0]["seq"])
        return True

    def pages(self):
        """Pages of list_clients, with what they were asked by; None instead of one if no node answers."""
        after = None
        while after != "":
            data = self.call("list_clients", {"after": after or "", "limit": self.page, "groups": True})
            yield after or "", data
            after = data["next"] if data else ""

    def call(self, name, fields):
        """None: no node answers now."""
        for port in API_PORTS:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("POST", "/api/" + name, json.dumps(fields), {"Token": self.token})
                answer = json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                continue
            finally:
                connection.close()
            if answer["code"] == 0:
                return answer["data"]
            if answer["code"] != -1007:
                self.complain("%s: %s" % (name, answer))
        return None


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

    def fail(self, fault):
        """What an awkward receiver does. Those with a "taken" have taken the events, which the answer does not say."""
        if fault in ("half", "nothing", "reset", "late"):
            self.close_connection = True
        if fault == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        elif fault == "late":
            time.sleep(LATE)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "302":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:%d/elsewhere" % PORT)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "bytes":
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
                self.wfile.write(bytes([byte]))
        elif fault == "chunked":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        elif fault == "large":
            self.answer(200, "x" * 65537)
        elif fault != "nothing":
            self.answer(int(fault))

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        with MODEL.lock:
            fault, _, taken = (MODEL.faults.pop(0) if MODEL.faults else "").partition("+")
        if fault == "cut":  # killed within the request
            self.rfile.read(random.randrange(length))
            self.close_connection = True
            return
        body = self.rfile.read(length)
        with MODEL.lock:
            batch = MODEL.check(self.headers, body)
            if self.path == "/elsewhere":
                MODEL.complain("a redirect was followed")
            status = 200 if fault else MODEL.status
            takes = taken if fault not in ("bytes", "chunked", "large") else "taken"
            if status // 100 == 2 and (takes or not fault) and not MODEL.take(batch):
                fault, status = "", 503
        if fault:
            self.fail(fault)
        else:
            self.answer(status)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        fields = dict(urllib.parse.parse_qsl(query))
        with MODEL.lock:
            lines = []
            if path == "/setup":
                MODEL.status = 200
                MODEL.token = fields.get("token", MODEL.token)
                MODEL.page = int(fields.get("page", MODEL.page))
                if "unsigned" in fields:
                    MODEL.secrets = []
                if "secret" in fields:
                    MODEL.secrets.append(fields["secret"])
            elif path == "/status":
                MODEL.status = int(fields["code"])
            elif path == "/faults":
                MODEL.faults += [name for name in fields.get("all", "").split(",") if name]
                lines = MODEL.faults
            elif path == "/events":
                lines = [json.dumps(event, separators=(",", ":")) for event in MODEL.events]
            elif path == "/counts":
                lines = ["%d %d %d" % (len(MODEL.events), MODEL.repeated, MODEL.losses)]
            elif path == "/epochs":
                lines = ["%s %d" % of for of in sorted(MODEL.epochs)]
            elif path == "/model":
                lines = sorted(MODEL.clients)
            elif path == "/clients":
                lines = sorted("%s %s %s %s" % (name, of[2], of[3], ",".join(sorted(of[4])))
                               for name, of in MODEL.clients.items())
            elif path == "/wrong":
                lines = MODEL.wrong
        self.answer(200, "".join(line + "\n" for line in lines))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the server may end one at any time
            super().handle_error(request, client_address)


Server(("127.0.0.1", PORT), Handler).serve_forever()

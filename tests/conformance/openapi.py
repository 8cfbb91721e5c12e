#!/usr/bin/python3
"""openapi.py - whether openapi.yaml is valid, and says of the server what is so.

Every example of it is sent to a real server, with real clients connected, and what comes back is compared
with the example of the answer, and with the schemas, which allow no field that they do not name. The
limits of the fields are tried at the limit and beyond it. See the head of openapi.yaml for how examples
are matched. Run by openapi.sh. A server must print nothing and end with 0."""
import atexit
import base64
import concurrent.futures
import contextlib
import copy
import functools
import glob
import hashlib
import hmac
import http.server
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WORK = os.environ["DIR"]
PORTS = int(os.environ["PORTS"])
GONE = "0000000000000000"
IDS = ["d98eee32b3515427", "4be1b5a4c7e0f2d3"]  # in the document, of the clients that are online
SHOP = {"systemId": "shop", "password": "open sesame"}
EVERYWHERE = {"Date", "Content-Type", "Content-Length", "Connection", "Keep-Alive", "Cache-Control",
              "X-Content-Type-Options"}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}

with open("docs/openapi.yaml", encoding="utf-8") as file:
    DOCUMENT = yaml.safe_load(file)
REGISTRY = Registry().with_resource("urn:wspush", Resource(DOCUMENT, DRAFT202012)).crawl()
passed = failed = 0


def expect(name, good, otherwise=""):
    """Counts one test."""
    global passed, failed
    if good:
        passed += 1
        print("ok  ", name)
    else:
        failed += 1
        print("FAIL", name, "(%s)" % str(otherwise)[:700].replace("\n", " "))


def lookup(value):
    """Follows a $ref."""
    while isinstance(value, dict) and "$ref" in value:
        at = DOCUMENT
        for part in value["$ref"][2:].split("/"):
            at = at[part.replace("~1", "/").replace("~0", "~")]
        value = at
    return value


@functools.lru_cache(maxsize=None)
def validator(text):
    return Draft202012Validator(json.loads(text.replace('"#/', '"urn:wspush#/')), registry=REGISTRY)


def sentences(node):
    """Keys that are the rest of a text: in braces without quotes a comma ends it."""
    if isinstance(node, dict):
        return [key for key in node if " " in str(key)] + sentences(list(node.values()))
    return sum(map(sentences, node), []) if isinstance(node, list) else []


def complaint(value, schema):
    """Why a value does not fit a schema, or ''."""
    errors = validator(json.dumps(schema)).iter_errors(value)
    return "; ".join("%s: %s" % (error.json_path, error.message) for error in errors)


def misspelt(body, schema):
    """Which fields of a body are not written as x-lexical says, which JSON Schema has no word for, or ''."""
    properties = properties_of(schema)[0]
    return "; ".join("%s: %s is not written as an integer" % item for item in body.items()
                     if item[0] in properties and not isinstance(item[1], str) and
                     not re.search(properties[item[0]].get("x-lexical", ""), json.dumps(item[1]))) \
        if isinstance(body, dict) else ""


# --- a server -------------------------------------------------------------------------------------


class Server:
    """One server. Accounts and key are those of the first one, so that its token is good for all."""

    token = None

    def __init__(self, config="", accounts="kept", dataDir="writable", program=None, drain=0.1):
        self.path = os.path.join(WORK, "server%d" % random.getrandbits(40))
        data = self.path + "/data"
        os.mkdir(self.path)
        if os.path.isdir(WORK + "/seed"):
            shutil.copytree(WORK + "/seed", data)
        if accounts == "none":
            os.remove(data + "/accounts")
        if accounts == "new":
            with open(data + "/accounts", "r+", encoding="utf-8") as file:
                lines = [line.split(" ") for line in file.read().splitlines()]
                file.seek(0)
                for line in lines:  # as if each had been registered anew, with another salt
                    salt = {"#": 0, "deleted": 0, "changed": 3, "webhook": 3}.get(line[0], 2)
                    line[salt] = line[salt][::-1] if salt else line[0]
                    file.write(" ".join(line) + "\n")
        if dataDir == "unwritable":  # it is in the way of the file that is written first
            os.mkdir(data + "/accounts.new")
        program = program or os.environ["CLUSTER_WSPUSH" if "cluster = true" in config else "WSPUSH"]
        with open(self.path + "/config.ini", "w", encoding="utf-8") as out:
            # what is given last goes last: sections may come twice
            out.write("[common]\nhost = 127.0.0.1\ndata_dir = %s\ndrain = %s\n[admin]\nlisten =\n"
                      "[log]\nfile = %s/log\n%s" % (data, drain, self.path, config))
        for _ in range(5):
            self.port = PORTS + random.randrange(3000)
            self.process = subprocess.Popen(
                [program, "-c", self.path + "/config.ini", str(self.port)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            atexit.register(self.end)
            if self.listens():
                if dataDir == "unwritable":  # there is no file any more that could be appended to
                    self.serves()
                    os.remove(data + "/accounts")
                return
            said = self.process.communicate()[0]
            if b"Address already in use" not in said:
                break
        raise SystemExit("the server does not start with %r: %s" % (config, said.decode()))

    def end(self):
        """Where a test gives up, no server stays behind."""
        if self.process.poll() is None:
            self.process.kill()

    def serves(self):
        """Waits for an answer: the accounts have been read then."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.recv(1)

    def listens(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                return False
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return True
            except OSError:
                time.sleep(0.05)
        self.process.kill()
        return False

    def stop(self, name):
        self.process.send_signal(signal.SIGTERM)
        try:
            said, status = self.process.communicate(timeout=100)[0], self.process.returncode
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, status = self.process.communicate()[0], "none: it hangs"
        if status != 0 or said:
            expect(name + ": the server ends with 0 and has printed nothing", False, (status, said))


def send(server, head, body=b""):
    """Sends a request on a connection of its own, which is returned."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(head.encode() + body)
    return connection


class Answer:
    """What comes back: `status`, `headers`, `body` as JSON. Reads to the length announced."""

    def __init__(self, connection):
        with connection, connection.makefile("rb") as stream:
            self.status = stream.readline().decode().split(" ")[1:2]
            self.status = int(self.status[0]) if self.status else 0
            self.headers = {}
            while (line := stream.readline().decode().strip()):
                name, value = line.split(":", 1)
                self.headers[name] = value.strip()
            length = int(self.headers.get("Content-Length", 0))
            self.text = stream.read(length).decode() if self.status != 101 else ""
        try:
            self.body = json.loads(self.text)
        except ValueError:
            self.body = self.text

    def __str__(self):
        return "%s %s %s" % (self.status, self.headers, self.text)


def request_bytes(path, method, headers, body, how):
    """The head and the body of a request, changed as x-request says."""
    body = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    length = how.get("bodyLength", len(body))
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": length, **headers,
               **how.get("headers", {})}
    if method == "GET" and "bodyLength" not in how:
        del headers["Content-Length"]
    if how.get("incomplete"):
        headers["Content-Length"] = len(body) + 1
    lines = ["%s %s %s" % (method, path, how.get("version", "HTTP/1.1"))]
    lines += ["%s: %s" % item for item in headers.items() if item[1] is not None]
    lines += ["X-%d: x" % i for i in range(how.get("headerLines", 0) - len(lines) + 1)]
    head = "\r\n".join(lines) + "\r\n\r\n"
    if "headLength" in how:
        head = head[:-2] + "X-Long: " + "x" * (how["headLength"] - len(head) - 10) + "\r\n\r\n"
    return head, body[:length]


def post(server, name, body, how=None):
    headers = {"Token": Server.token} if Server.token else {}
    head, body = request_bytes("/api/" + name, "POST", headers, body, how or {})
    return Answer(send(server, head, body))


# --- clients --------------------------------------------------------------------------------------


class Client:
    """A client; every frame that it gets is compared with the schemas."""

    seen = {"Greeting": 0, "Notice": 0, "Push": 0, "WsRefusal": 0}

    def __init__(self, server, system="shop", ticket="", headers=None):
        self.stack = contextlib.ExitStack()
        self.link = self.stack.enter_context(connect(
            "ws://127.0.0.1:%d/ws?systemId=%s%s" % (server.port, system, ticket and "&ticket=" + ticket),
            additional_headers=headers, ping_interval=None, compression=None, max_size=None))
        self.first = self.take()
        self.id = self.first["data"]["clientId"] if self.first["code"] == 0 else None

    def take(self):
        frame = json.loads(self.link.recv(timeout=60))
        # the first frame that is no greeting is told by its code, as by a client
        kind = {1001: "Notice", 1002: "Notice"}.get(frame["code"], "Push")
        if not hasattr(self, "first"):
            kind = "Greeting" if frame["code"] == 0 else "WsRefusal"
        why = complaint(frame, {"$ref": "#/components/schemas/" + kind})
        if why:
            expect("a frame fits %s" % kind, False, "%s: %s" % (frame, why))
        Client.seen[kind] += 1
        return frame

    def frames(self):
        """All that has come: behind it comes the answer to this ping."""
        self.link.send("ping")
        got = []
        while True:
            frame = self.link.recv(timeout=60)
            if frame == "pong":
                return got
            got.append(json.loads(frame))
            why = complaint(got[-1], {"$ref": "#/components/schemas/Frame"})
            kind = "Notice" if got[-1]["code"] in (1001, 1002) else "Push"
            why = why or complaint(got[-1], {"$ref": "#/components/schemas/" + kind})
            if why:
                expect("a frame fits %s" % kind, False, "%s: %s" % (got[-1], why))
            Client.seen[kind] += 1

    def closed(self):
        """The code and the reason it was closed with."""
        try:
            while True:
                self.link.recv(timeout=60)
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")

    def leave(self):
        self.stack.close()


# --- operations and their examples ----------------------------------------------------------------


def numbered(body, number):
    """A body in whose strings the sign # stands for a number."""
    if not isinstance(body, dict):
        return body
    return {key: value.replace("#", str(number)) if isinstance(value, str) else value
            for key, value in body.items()}


class Operation:
    def __init__(self, path, method, at):
        self.path, self.method = path, method.upper()
        self.name = at["operationId"]
        self.label = "%s %s" % (self.method, path)
        self.secure = at.get("security", DOCUMENT["security"]) != []
        content = at.get("requestBody", {}).get("content", {}).get("application/json", {})
        self.schema = content.get("schema")
        self.requests = {name: lookup(example)["value"]
                         for name, example in content.get("examples", {}).items()}
        self.responses = {int(status): lookup(response)
                          for status, response in at["responses"].items()}
        self.parameters = [lookup(parameter) for parameter in at.get("parameters", [])]

    def answers(self):
        """(status, name, example) for each example of an answer."""
        for status, response in self.responses.items():
            content = response.get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                yield status, name, lookup(example)

    def ask(self, server, body, how=None):
        how = how or {}
        headers = {"Token": Server.token} if self.secure else {}
        path = self.path
        for parameter in self.parameters:
            if parameter.get("example") and parameter["in"] == "header":
                headers[parameter["name"]] = parameter["example"]
            elif parameter.get("example"):
                path += "?%s=%s" % (parameter["name"], parameter["example"])
        if how.get("bodyLength") and not body:
            body = b"x" * min(how["bodyLength"], 10)
        body = how.get("body", body)
        return [send(server, *request_bytes(path, self.method, headers, numbered(body, i), how))
                for i in range(how.get("atOnce", 1))]


OPERATIONS = [Operation(path, method, item[method])
              for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS]


def misfit(answer, response):
    """How an answer differs from what the document says of it, or ''."""
    headers = {name: lookup(header) for name, header in response.get("headers", {}).items()}
    unknown = set(answer.headers) - set(headers) - EVERYWHERE
    if unknown:
        return "undocumented headers %s" % unknown
    for name, header in headers.items():
        value = answer.headers.get(name)
        if value is None:
            if header.get("required"):
                return "no header %s" % name
        else:
            typed = int(value) if header["schema"].get("type") == "integer" else value
            if complaint(typed, header["schema"]):
                return "header " + complaint(typed, header["schema"])
    if "content" not in response:
        return "a body" if answer.text else ""
    if answer.headers.get("Content-Type") != "application/json; charset=utf-8":
        return "not JSON"
    if answer.headers.get("Cache-Control") != "no-store" or answer.headers.get("X-Content-Type-Options") != "nosniff":
        return "to be kept, or guessed at"
    return complaint(answer.body, response["content"]["application/json"]["schema"])


def translate(value, ids):
    """Puts other ids for those in a value, which is JSON."""
    text = json.dumps(value)
    for old, new in ids.items():
        text = text.replace(old, new)
    return json.loads(text)


def settle(value, example):
    """Takes from the example what differs from run to run."""
    value = copy.deepcopy(value)
    data, other = value.get("data"), example["data"]
    if isinstance(data, dict) and isinstance(other, dict):
        for key in {"token", "connectedAt", "ticket", "key", "version", "secret"} & set(data):
            data[key] = other.get(key)
        if bool(data.get("next")) == bool(other.get("next")) and "next" in data:
            data["next"] = other["next"]
        if "clients" in data and len(data["clients"]) == len(other["clients"]):
            if len(other["clients"]) == 1 and other["next"]:  # a page of one: which one it is differs
                data["clients"][0].update({key: other["clients"][0][key] for key in ("clientId", "userId")})
            order = [one["clientId"] for one in other["clients"]]
            data["clients"].sort(key=lambda one: (order + [one["clientId"]]).index(one["clientId"]))
            for one, wanted in zip(data["clients"], other["clients"]):
                one["connectedAt"] = wanted["connectedAt"]
        if set(data.get("list", [])) == set(other.get("list", [])):
            data["list"] = other.get("list")
        data = {key: item for key, item in data.items() if item is not None}
        value["data"] = data
    return value


def recipients(name, body):
    """Which of the two clients of the examples a send is for."""
    if name in ("send_to_client", "send_to_clients"):
        wanted = body.get("clientIds", [body.get("clientId")])
    else:
        everyone = {"send_to_system": IDS, "send_to_group": IDS * (body.get("groupName") == "news"),
                    "send_to_user": IDS[:1] * (body.get("userId") == "ann")}[name]
        wanted = [one for one in everyone if one not in body.get("exclude", [])]
    return [one in wanted for one in IDS]


def check_frames(operation, name, body, answer, clients):
    """What the clients of an example have got."""
    label = "%s, example %s" % (operation.label, name)
    if operation.name in ("close_client", "close_user", "delete_system") and answer.body["code"] == 0:
        properties = properties_of(operation.schema)[0]
        wanted = (4401, "") if operation.name == "delete_system" else \
            tuple(body.get(key, properties[key]["default"]) for key in ("code", "reason"))
        closed = {"close_client": lambda: [clients[IDS.index(body["clientId"])]],
                  "close_user": lambda: clients[:answer.body["data"]["closed"]],
                  "delete_system": lambda: clients}[operation.name]()
        for client in closed:
            got = client.closed()
            expect(label + ": the client is closed so", got[:1 + bool(wanted[1])] == wanted[:1 + bool(wanted[1])], got)
        clients = [client for client in clients if client not in closed]
    pushes = [[frame for frame in client.frames() if frame["code"] not in (1001, 1002)]
              for client in clients]
    if operation.name.startswith("send_") and answer.body["code"] == 0:
        frame = {key: body[key] for key in ("code", "msg", "data", "sendUserId", "messageId")
                 if key in body}
        if body.get("receipt"):
            frame["messageId"] = answer.body["data"]["messageId"]
        wanted = [[frame] * one for one in recipients(operation.name, body)]
        expect(label + ": the clients get it", pushes == wanted, (pushes, wanted))
    else:
        expect(label + ": nobody gets a message", not any(pushes), pushes)


def check_example(server, operation, name, wanted):
    """Sends one example of a request: it is to get this (status, answer)."""
    label = "%s, example %s" % (operation.label, name)
    document_body = operation.requests[name]
    clients = []
    if operation.secure:
        clients = [Client(server), Client(server)]
        post(server, "bind_to_group", {"clientId": clients[0].id, "groupName": "news", "userId": "ann"})
        post(server, "bind_to_group", {"clientId": clients[1].id, "groupName": "news"})
        for client in clients:
            client.frames()
    real = {document: client.id for document, client in zip(IDS, clients)}
    answer = Answer(operation.ask(server, translate(document_body, real))[0])
    status, example = wanted
    body = translate(answer.body, {new: old for old, new in real.items()})
    if isinstance(document_body, dict) and "messageId" not in document_body and \
            isinstance(body.get("data"), dict) and "messageId" in body["data"]:
        body["data"]["messageId"] = example["data"]["messageId"]  # another one each time
    body = settle(body, example) if isinstance(body, dict) else body
    expect(label, (answer.status, body) == (status, example), "%s; wanted %s" % (answer, example))
    expect(label + ": the answer fits", not misfit(answer, operation.responses[status]),
           misfit(answer, operation.responses[status]))
    why = complaint(document_body, operation.schema) or misspelt(document_body, operation.schema)
    expect(label + ": is refused as malformed if its schema says so", (status == 400) == bool(why), why)
    if clients:
        check_frames(operation, name, document_body, answer, clients)
    for client in clients:
        client.leave()
    renew(server, operation, document_body, answer)


def renew(server, operation, body, answer):
    """Makes the account what it was, with a new token, after a call that has changed it."""
    if operation.name not in ("set_password", "delete_system") or answer.body["code"] != 0:
        return
    if operation.name == "delete_system":
        post(server, "register", SHOP)
    else:
        login = post(server, "login", {**SHOP, "password": body["newPassword"]})
        Server.token = login.body["data"]["token"]
        post(server, "set_password", {"password": body["newPassword"], "newPassword": SHOP["password"]})
    Server.token = post(server, "login", SHOP).body["data"]["token"]


def check_examples(server):
    for operation in OPERATIONS:
        wanted = {name: (status, example["value"]) for status, name, example in operation.answers()
                  if "x-request" not in example}
        if operation.schema:
            expect(operation.label + ": each request has its answer",
                   sorted(wanted) == sorted(operation.requests),
                   set(wanted) ^ set(operation.requests))
        for name in operation.requests:
            if name in wanted:
                check_example(server, operation, name, wanted[name])
        if operation.name == "login":
            login = post(server, "login", operation.requests["loggedIn"])
            Server.token = login.body["data"]["token"]


# --- answers with x-request -----------------------------------------------------------------------


def read_until(connections, status):
    """The answers in the order in which they come, up to one of this status; the others are not waited for."""
    answers, waiting = [], list(connections)
    while waiting and not any(answer.status == status for answer in answers):
        for connection in select.select(waiting, [], [], 60)[0] or waiting[:1]:
            waiting.remove(connection)
            answers.append(Answer(connection))
    for connection in waiting:
        connection.close()
    return answers


def is_early(answer, example):
    """A node that joins has not always found out yet why it cannot."""
    return answer.status == 503 and "joining" in answer.body["msg"] and "joining" not in example["value"]["msg"]


def check_special(server, operation, status, name, example):
    """Changes a request as x-request says; gives back what came of it: (name, good, otherwise)."""
    how, answers = example["x-request"], []
    body = next(iter(operation.requests.values()), None)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(how.get("connections", 0))]
    client = Client(server) if "member" in how else None
    if client:  # it is in that group already
        post(server, "bind_to_group", {"clientId": client.id, "groupName": how["member"], "userId": "ann"})
        body = {**body, "clientId": client.id}
    for _ in range(10 if "times" in how or status == 503 else 1):
        # in one go: where calls are counted by the second, a busy machine might take a second for each
        asked = [link for _ in range(how.get("times", 1)) for link in operation.ask(server, body, how)]
        answers = read_until(asked, status)
        if any(answer.status == status for answer in answers) and not is_early(answers[0], example):
            break
        time.sleep(0.2)
    for connection in idle:
        connection.close()
    if client:
        client.leave()
    right = [answer for answer in answers if answer.status == status]
    others = [answer for answer in answers if answer.status not in operation.responses]
    label = "%s, answer %s" % (operation.label, name)
    if not right or others:
        return label, False, "%s; wanted %s" % ((others or answers)[0], status)
    why = misfit(right[0], operation.responses[status])
    got = dict(right[0].body)
    if status == 503:  # behind a colon it says what the system, or Redis, says
        got["msg"] = got["msg"].split(": ")[0] + example["value"]["msg"].partition(": ")[1] + \
            example["value"]["msg"].partition(": ")[2]
    if not why and got != example["value"]:
        why = "wanted %s" % example["value"]
    if not why:
        why = complaint(example["value"],
                        operation.responses[status]["content"]["application/json"]["schema"])
    return label, not why, "%s: %s" % (right[0], why)


CHANGES = ("set_password", "delete_system")


def specials():
    """Those examples by what server they need: (its setting, whether nobody else can use it, examples)."""
    groups = {}
    for operation in OPERATIONS:
        for status, name, example in operation.answers():
            if "x-request" not in example:
                continue
            how = example["x-request"]
            setting = {key: how[key] for key in ("config", "accounts", "dataDir") if key in how}
            # a crowd takes a server whose hashes take their time; what ends the token of all takes one, too
            if how.get("times", 0) > 2 or "atOnce" in how:
                setting["program"] = "build/release/wspush"
            alone = operation.name + name if "program" in setting or operation.name in CHANGES else ""
            groups.setdefault((json.dumps(setting), alone), []).append((operation, status, name, example))
    return [(json.loads(setting), alone, cases) for (setting, alone), cases in groups.items()]


def check_group(setting, alone, cases):
    """Gives back what came of the examples, and the server if it is to be stopped."""
    server = Server(**setting)
    # those that wait for the server's patience to end wait together
    patient = all("incomplete" in case[3]["x-request"] for case in cases)
    with concurrent.futures.ThreadPoolExecutor(len(cases) if patient else 1) as pool:
        results = list(pool.map(lambda case: check_special(server, *case), cases))
    if not alone:
        return results, server
    server.process.kill()  # it has passwords to hash, for seconds
    server.process.communicate()
    return results, None


# --- paths ----------------------------------------------------------------------------------------


def check_paths(server):
    routed = set()
    for source in ["api.c"] + glob.glob("session*.c"):
        with open(source, encoding="utf-8") as file:
            text = file.read()
            routed |= set(re.findall(r'STR(?:_INIT)?\("(/[a-z_/]+[a-z])"\)', text))
            routed |= {"/api/" + name for name in re.findall(r'(?:COMMAND|JOB)\("([a-z_]+)"', text)}
    expect("the paths of the code are those of the document", routed == set(DOCUMENT["paths"]),
           routed ^ set(DOCUMENT["paths"]))
    common = {name: DOCUMENT["components"]["responses"][name]
              for name in ("UnknownPath", "WrongMethod", "Options")}
    texts = {name: example["value"] for response in common.values()
             for name, example in response["content"]["application/json"].get("examples", {}).items()}
    for path, item in DOCUMENT["paths"].items():
        allowed = [method.upper() for method in item if method in METHODS]
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
            if method in allowed:
                continue
            answer = Answer(send(server, *request_bytes(path, method, {}, None, {})))
            kind = "Options" if method == "OPTIONS" else "WrongMethod"
            label = "%s %s" % (method, path)
            expect(label + ": the status", answer.status == (200 if kind == "Options" else 405), answer)
            expect(label + ": the methods",
                   answer.headers.get("Allow") == ", ".join(allowed + ["OPTIONS"]), answer)
            if method == "HEAD":
                continue
            expect(label + ": the answer fits", not misfit(answer, common[kind]),
                   misfit(answer, common[kind]))
            if kind == "WrongMethod":
                expect(label + ": the text", answer.body == texts[allowed[0].lower()], answer)
    answer = Answer(send(server, *request_bytes("*", "OPTIONS", {}, None, {})))
    expect("OPTIONS *", answer.status == 200 and not misfit(answer, common["Options"]), answer)
    for path in ("/api", "/api/", "/api/logins", "/api/login/", "/API/login", "/ws/", "/index.html"):
        answer = Answer(send(server, *request_bytes(path, "POST", {}, b"{}", {})))
        expect(path + " is no path", answer.status == 404 and answer.body == texts["unknownPath"] and
               not misfit(answer, common["UnknownPath"]), answer)


# --- limits of fields -----------------------------------------------------------------------------


def properties_of(schema):
    schema = lookup(schema)
    properties, required = dict(schema.get("properties", {})), list(schema.get("required", []))
    for part in schema.get("allOf", []):
        more, needed = properties_of(part)
        properties.update(more)
        required += needed
    return {name: lookup(property) for name, property in properties.items()}, required


def string_trials(schema):
    """(value, whether it is to be accepted, what the refusal says) for a string."""
    limit = schema.get("x-maxBytes")
    yield "", "minLength" not in schema, "must not be empty"
    if limit:
        for letter, count in (("x", limit), ("😀", limit // 4)):
            yield letter * count, True, ""
            beyond = letter * (count + 1)
            yield beyond, False, "is too long; the limit in bytes is %d" % limit
    else:
        yield "x" * 5000, True, ""
    if "pattern" not in schema:
        yield "\x00\n\x1f\x7f\x80\x9f", True, ""
    for control in ("\x00", "\n", "\x1f", "\x7f", "\x80", "\x9f") if "pattern" in schema else ():
        yield "a%sb" % control, False, "has a control character"
    yield "a\xa0b", True, ""
    for value in (1, True, None, [], {}):
        yield value, False, "must be a string"


def integer_trials(schema):
    ranges = [(schema["minimum"], schema["maximum"])] if "minimum" in schema else \
        [(one.get("const", one.get("minimum")), one.get("const", one.get("maximum")))
         for one in schema["oneOf"]]
    for low, high in ranges:
        yield low, True, ""
        yield high, True, ""
        yield low - 1, False, "must be "
        yield high + 1, False, "must be "
    for value in ("7", True, None, [], 1.5, 1000.0, float("1e30")):
        yield value, False, "must be an integer of 64 bits"


def trials(schema):
    kind = schema.get("type")
    if kind == "string":
        yield from string_trials(schema)
    elif kind == "integer":
        yield from integer_trials(schema)
    elif kind == "boolean":
        for value in (True, False):
            yield value, True, ""
        for value in (0, "true", None):
            yield value, False, "must be true or false"
    elif kind == "array" and "maxItems" in schema:  # of names
        yield [], True, ""
        yield ["n%d" % i for i in range(schema["maxItems"])], True, ""
        yield ["n%d" % i for i in range(schema["maxItems"] + 1)], False, ""
        for value in ("x", None, {}, [1], ["x", None]):
            yield value, False, ""
        for value in ([""], ["x" * 129], ["a\nb"]):
            yield value, "minLength" not in lookup(schema["items"]), ""
    elif kind == "array":
        yield [], True, ""
        yield ["x" * 5000] * 20, True, ""
        for value in ("x", None, {}, [1], ["x", None]):
            yield value, False, "must be an array of strings"
    else:
        for value in (None, True, 0, "", "x" * 5000, [], {}, 1e300, {"a": [1]}):
            yield value, True, ""


# Calls that hash a password, and those that change the account: what they accept is in their examples.
COSTLY = ("login", "set_password", "delete_system")
# Fields of which only examples say what is accepted.
OPAQUE = ("after", "url", "events")
# What the body needs besides for a field to be accepted.
BESIDES = {"once": {"messageId": "limits of once"}}


def fits_bytes(value, schema):
    """What JSON Schema has no word for."""
    return not isinstance(value, str) or len(value.encode()) <= schema.get("x-maxBytes", 1 << 30)


def check_fields(server, operation):
    properties, required = properties_of(operation.schema)
    base = next(iter(operation.requests.values()))
    wrong = []
    for name in required:
        body = {key: value for key, value in base.items() if key != name}
        answer = Answer(operation.ask(server, body)[0])
        expect("%s without %s" % (operation.label, name),
               answer.status == 400 and answer.body["msg"] == "field %s is missing" % name, answer)
    for name, schema in properties.items():
        count = 0
        for value, accepted, word in trials(schema) if name not in OPAQUE else ():
            count += 1
            if accepted and operation.name in COSTLY:
                continue
            if "systemId" in base:  # one that has no failed logins
                base = {**base, "systemId": "limits of %s %d" % (name, count)}
            body = {**base, **BESIDES.get(name, {}), name: value}
            answer = Answer(operation.ask(server, body)[0])
            valid = fits_bytes(value, schema) and \
                not (complaint(body, operation.schema) or misspelt(body, operation.schema))
            told = answer.status == 400 and \
                answer.body["msg"].startswith("field %s %s" % (name, word))
            fits = answer.status in operation.responses and \
                not misfit(answer, operation.responses[answer.status])
            if accepted != valid or not (answer.status == 200 if accepted else told) or not fits:
                wrong.append("%r: %s" % (value, answer))
        expect("%s, limits of %s" % (operation.label, name), name in OPAQUE or count and not wrong, wrong[:2])
        wrong = []
    if operation.name in COSTLY[1:]:
        return
    answer = Answer(operation.ask(server, {**base, "someOtherField": [None]})[0])
    expect(operation.label + ": fields that it does not know", answer.status == 200, answer)


def body_of(length):
    frame = {"code": 7, "msg": "", "data": None}
    frame["msg"] = "x" * (length - len(json.dumps(frame)))
    return json.dumps(frame).encode()


def nested(depth):
    """A body that is so deep."""
    return b'{"code":7,"msg":"","data":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def check_limits(server):
    for operation in OPERATIONS:
        if operation.schema:
            check_fields(server, operation)
    for name, body, how, status in (
            ("the longest body", body_of(1048576), {}, 200),
            ("the deepest body", nested(64), {}, 200),
            ("a body that is deeper", nested(65), {}, 400),
            ("the longest head", body_of(100), {"headLength": 8192}, 200),
            ("the most header lines", body_of(100), {"headerLines": 64}, 200),
            ("a duplicate key", b'{"code":7,"msg":"","data":1,"code":7}', {}, 400),
            ("a trailing comma", b'{"code":7,"msg":"","data":1,}', {}, 400),
            ("invalid UTF-8", b'{"code":7,"msg":"\xff","data":1}', {}, 400),
            ("an integer with a point", b'{"code":7.0,"msg":"","data":1}', {}, 400),
            ("an integer with an exponent", b'{"code":7e0,"msg":"","data":1}', {}, 400),
            ("another Content-Type", body_of(100), {"headers": {"Content-Type": "text/plain"}}, 200)):
        answer = post(server, "send_to_system", body, how)
        expect(name, answer.status == status, answer)


# --- /ws ------------------------------------------------------------------------------------------


def sign(key, claims):
    """A ticket that a business system has signed itself."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
             for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    mac = hmac.digest(base64.urlsafe_b64decode(key + "="), b".".join(parts), "sha256")
    return b".".join(parts + [base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def check_tickets(schemas):
    """Those of the server, those signed with its key, in the address and in the header; and the refusals."""
    server = Server("[auth]\nconnect = ticket\n")
    given = post(server, "ticket", {"userId": "ann", "groups": ["news"]}).body["data"]["ticket"]
    key = post(server, "ticket_key", {}).body["data"]["key"]
    claims = {"sys": "shop", "sub": "ann", "exp": int(time.time()) + 60}
    for name, client in (("given", Client(server, ticket=given)),
                         ("given, in the header", Client(server, headers={"Ticket": given})),
                         ("signed", Client(server, ticket=sign(key, claims)))):
        greeting = {**schemas["Greeting"]["examples"][1], "data": {"clientId": client.id, "userId": "ann"}}
        expect("GET /ws with a ticket, %s: the frame" % name, client.first == greeting, client.first)
        client.leave()
    for text, ticket in (("missing", ""), ("malformed", "x"), ("forged", sign(key[::-1], claims)),
                         ("expired", sign(key, {**claims, "exp": int(time.time()) - 60}))):
        client = Client(server, ticket=ticket)
        expect("GET /ws with a ticket that is %s: the frame" % text, client.first in schemas["WsRefusal"]["examples"] and
               client.first["msg"] == "ticket " + text, client.first)
        expect("GET /ws with a ticket that is %s: the close" % text, client.closed()[0] == 4401)
    server.stop("connect = ticket")


def check_websocket(server):
    operation = next(one for one in OPERATIONS if one.path == "/ws")
    answer = Answer(operation.ask(server, None, {"headers": {}})[0])
    key = next(one["example"] for one in operation.parameters if one["name"] == "Sec-WebSocket-Key")
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    expect("GET /ws: 101", answer.status == 101 and not misfit(answer, operation.responses[101]) and
           answer.headers["Sec-WebSocket-Accept"] == base64.b64encode(digest).decode(),
           "%s: %s" % (answer, misfit(answer, operation.responses[101])))
    schemas = DOCUMENT["components"]["schemas"]
    for system, text in (("nobody", "systemId is not registered"),
                         ("", "systemId is missing or malformed")):
        client = Client(server, system)
        expect("GET /ws with systemId=%s: the frame" % system,
               client.first in schemas["WsRefusal"]["examples"] and client.first["msg"] == text,
               client.first)
        expect("GET /ws with systemId=%s: the close" % system, client.closed()[0] == 1008)
    crowded = Server("[limits]\nmax_clients = 1\n")
    clients = [Client(crowded), Client(crowded)]
    expect("GET /ws beyond max_clients: the frame", clients[1].first == schemas["WsRefusal"]["examples"][2],
           clients[1].first)
    expect("GET /ws beyond max_clients: the close", clients[1].closed() == (1013, "too many clients"))
    clients[0].leave()
    crowded.stop("max_clients")
    check_tickets(schemas)
    for length, code in ((8192, None), (8193, 1009)):
        client = Client(server)
        client.link.send("x" * length)
        if code:
            expect("a message of %d bytes" % length, client.closed()[0] == code)
        else:
            expect("a message of %d bytes" % length, client.frames() == [])
            client.leave()
    for name in ("Greeting", "WsRefusal", "Notice", "Push"):
        for example in schemas[name]["examples"]:
            expect("an example of %s fits" % name,
                   not complaint(example, {"$ref": "#/components/schemas/" + name}) and
                   not complaint(example, {"$ref": "#/components/schemas/Frame"}))
        expect("%s has come" % name, Client.seen[name] > 0)


# --- webhooks -------------------------------------------------------------------------------------


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes every request, and keeps it."""

    protocol_version = "HTTP/1.1"
    taken = []  # (headers, body)

    def do_POST(self):
        Receiver.taken.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def check_delivery(operation, secret, headers, body):
    """Why a request is not what the document says, or ''."""
    parameters = {one["name"]: one["schema"] for one in operation["parameters"]}
    unknown = {name.lower() for name in headers} - set(parameters) - \
        {"host", "user-agent", "content-type", "content-length"}
    if unknown or headers["Content-Type"] != "application/json":
        return "headers %s" % headers.items()
    for name, schema in parameters.items():
        if complaint(headers[name], schema):
            return "%s %s" % (name, complaint(headers[name], schema))
    events = json.loads(body)
    name, when = headers["webhook-id"], headers["webhook-timestamp"]
    mac = hmac.digest(base64.b64decode(secret[6:]), ("%s.%s." % (name, when)).encode() + body, "sha256")
    if "v1," + base64.b64encode(mac).decode() not in headers["webhook-signature"].split(" "):  # an example rotates it
        return "another signature"
    if name != "%s.%d.%d" % (events["node"], events["epoch"], events["events"][0]["seq"]):
        return "another webhook-id"
    return complaint(events, operation["requestBody"]["content"]["application/json"]["schema"])


def check_webhooks(version):
    """What a server sends to a receiver, while a client does all that there are events of."""
    operation = DOCUMENT["webhooks"]["events"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    for name, example in content["examples"].items():
        expect("webhooks, example %s fits" % name, not complaint(example["value"], content["schema"]),
               complaint(example["value"], content["schema"]))
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = "http://127.0.0.1:%d/" % receiver.server_port
    server = Server("[webhook]\nallow = %s\n" % url, drain=5)
    wanted = DOCUMENT["components"]["schemas"]["WebhookWanted"]["properties"]["events"]["items"]["enum"]
    secret = post(server, "set_webhook", {"url": url, "events": wanted}).body["data"]["secret"]
    client = Client(server, ticket=post(server, "ticket", {"userId": "ann", "groups": ["news"]}).body["data"]["ticket"])
    for name in ("bind_to_group", "unbind_from_group"):
        post(server, name, {"clientId": client.id, "groupName": "sport"})
    client.link.send("grüß\n\"Gott\"")
    client.frames()
    answer = post(server, "list_clients", {})
    operations = {one.name: one for one in OPERATIONS}
    expect("list_clients says what it has seen", answer.body["data"]["seen"][0]["seq"] == 5 and
           not misfit(answer, operations["list_clients"].responses[200]), answer)
    client.leave()
    server.stop("with a webhook")
    receiver.shutdown()
    wrong = ["%s: %s %s" % (why, headers.items(), body) for headers, body in Receiver.taken
             if (why := check_delivery(operation, secret, headers, body))]
    expect("webhooks: each request fits", not wrong, wrong)
    agents = {headers["User-Agent"] for headers, _ in Receiver.taken}
    expect("webhooks: the User-Agent", agents == {"wspush/" + version}, agents)
    types = [event["type"] for _, body in Receiver.taken for event in json.loads(body)["events"]]
    expect("webhooks: each type of event comes",
           types == ["start", "connect", "join", "leave", "message", "disconnect", "end"], types)


def main():
    try:
        validate(DOCUMENT)
        expect("openapi.yaml is valid", True)
    except Exception as error:  # whatever the validator raises is a reason
        expect("openapi.yaml is valid", False, error)
    said = subprocess.run([os.environ["WSPUSH"], "-v"], stdout=subprocess.PIPE, check=True).stdout.decode().split()
    expect("its version is the program's", DOCUMENT["info"]["version"] == said[1], said)
    expect("no text has lost its end", not sentences(DOCUMENT), sentences(DOCUMENT))
    server = Server()
    check_examples(server)
    if not Server.token:
        raise SystemExit("no token")
    os.mkdir(WORK + "/seed")
    for name in ("accounts", "key"):
        shutil.copy(server.path + "/data/" + name, WORK + "/seed/")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # the passwords of some are hashed for seconds, while the others are tried
        groups = sorted(specials(), key=lambda group: not group[1])
        futures = [pool.submit(check_group, *group) for group in groups]
        check_paths(server)
        check_limits(server)
        check_websocket(server)
        check_webhooks(said[1])
        server.stop("without a configuration")
        for future, group in zip(futures, groups):
            results, other = future.result()
            for result in results:
                expect(*result)
            if other:
                other.stop("under %s" % group[0])
    print("%d passed, %d failed" % (passed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())

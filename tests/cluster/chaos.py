#!/usr/bin/env python3
"""chaos.py - a cluster under load and faults, and what came of it.

  chaos.py [--seconds N] [--seed N] [--nodes N] [--binary FILE] [--base PORT] [--rate N] [--only FAULTS] [--rules RULES]

Nodes with Redis, RabbitMQ and ways of their own (world.py) have clients that come, join, leave and come back, and
callers that send to them, each with a number of its own. Faults are injected and healed (faults.py). After each, when
all nodes are ready again, load pauses until nothing is owed any more, and checker.py judges what everybody has seen.

The seed, which is printed, chooses the faults and what each client and caller does, but not the exact times: so the
same seed is the same schedule, not the same run. Prints `ok` or `FAIL` for each rule, and a count. On a violation it
prints the rule, the history around it and the folder with all logs, and exits with 1.
"""
import argparse
import asyncio
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time

import checker
from checker import Call, History, INF, Send, Session, Stay, Violation
from faults import KINDS, Faults, mark_recovered
from net import Caller, Client, Refused
from world import Broken, World, wait_until

TTL = 3               # [cluster] node_ttl
READY_MAX = 30.0      # seconds from the end of faults until all nodes are ready
SETTLE_MAX = 30.0     # and then until nothing is owed
REPEAT_MAX = 20.0     # a send with `once` is repeated for so long
MEMORY_MAX = 150000   # KiB that a node may have more than in the beginning, sanitizers aside
SYSTEMS = ("s0", "s1")
GROUPS = ("g0", "g1", "g2")
USERS = ("u0", "u1", "u2", "u3")
FIRST = 10000         # numbers of sends begin behind all codes
FRAME = re.compile(rb'\{"code":(\d+),')
TAILS = (b"1", b"1.0", b'"\\u0041"', b"1e400", b'{"a":1,"a":2}', b"123456789012345678901234567890", b'"' + b"x" * 1000 + b'"',
         b'"' + b"y" * 20000 + b'"')
RULES = ("loss", "resume", "twice", "stray", "order", "ghost", "denied", "live", "notices", "lists", "answer", "closed", "ready", "node")


class Returner:
    """A client that comes back with its session after each end, and is sent numbers in a group of its own."""

    def __init__(self, index, history):
        self.group, self.history, self.client, self.id, self.key, self.received = "r%d" % index, history, None, "", "", 0
        self.last, self.sure, self.bound, self.got = 0, True, False, set()
        self.calls = []  # (code of the answer, begin, end) of each number from 1 on
        self.found = []

    def may_miss(self, number):
        """It was not answered with success, or RabbitMQ may have taken it along."""
        code, begun, ended = self.calls[number - 1]
        return code != 0 or any(fault.kind in ("rabbit", "isolate") and fault.begun < ended + 5 and fault.recovered > begun - 1
                                for fault in self.history.faults)

    def on_first(self, _client, data):
        self.sure &= data.get("recovered", not self.key)
        self.history.seen["returns"] += bool(self.key)
        self.history.seen["recovered"] += data.get("recovered", False)
        if not data.get("recovered"):
            self.received = 0
        if not data.get("resumed"):
            self.bound, self.last, self.got = False, 0, set()  # another client, perhaps on a node that is behind
        self.id, self.key = data["clientId"], data["resume"]

    def on_text(self, now, data):
        self.received += 1
        if b'"msg":"resume"' not in data:
            return
        number = int(FRAME.match(data)[1])
        missing = [i for i in range(self.last + 1, number) if not self.may_miss(i)] if self.last and self.sure else []
        if number in self.got or number <= self.last and self.calls[number - 1][0] == 0:
            self.found.append("%s got %d%s at %.3f, behind %d; its call %r" % (
                self.group, number, " again" if number in self.got else "", now, self.last, self.calls[number - 1]))
        elif missing:
            self.found.append("%s was told that it has all, and misses %s at %.3f" % (self.group, missing[:20], now))
        self.got.add(number)
        self.last, self.sure = max(number, self.last), True


class Chaos:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.world = World(options.binary, folder, options.nodes, options.base, TTL)
        self.history, self.violations = History(), []
        self.history.crash_loses = options.tolerate == "crash"
        self.faults = Faults(self.world, self.history, self.on_end_of_node, options.only)
        self.tokens, self.payloads, self.number, self.keys = {}, {}, FIRST, 0
        self.open, self.busy, self.ended, self.repeated = asyncio.Event(), 0, False, 0
        self.first_memory, self.pace = {}, 1.0
        self.returners = []
        self.node_ended = {}  # by number: when the test ended it last

    def rng(self, name):
        return random.Random("%d/%s" % (self.options.seed, name))

    # --- sessions ---------------------------------------------------------------------------------

    async def join(self, node, system):
        """A session at a node, or None if it does not admit one."""
        session = Session(self.keys, "", system, node.number, INF)
        self.keys += 1
        asked = time.monotonic()
        try:
            client = await Client.connect(node.port, system, lambda now, data: self.on_text(session, now, data),
                                          lambda now, code: self.on_end(session, now, code))
        except (OSError, Refused, asyncio.TimeoutError):
            return None
        session.id, session.opened, session.client = client.id, time.monotonic(), client
        if self.node_ended.get(node.number, 0) > asked:
            session.leaving = session.opened  # its first frame was on its way when its node was ended
        session.stays["system", ""] = [Stay(asked, session.opened)]
        self.history.sessions.append(session)
        return session

    def on_text(self, session, now, data):
        match = FRAME.match(data)
        number = int(match[1]) if match else 0
        if number in (1001, 1002):
            told = json.loads(data)["data"]
            session.notices.setdefault((told["groupName"], told["clientId"]), []).append(number)
        elif self.payloads.get(number, data) == data and number >= FIRST:
            session.frames.append((now, number))
        else:
            session.damaged.append((now, data))

    @staticmethod
    def on_end(session, now, code):
        session.closed, session.code = now, code
        for stays in session.stays.values():
            for stay in stays:
                stay.gone = min(stay.gone, now)

    def on_end_of_node(self, node):
        """The test ends a node: so end its sessions."""
        now = self.node_ended[node.number] = time.monotonic()
        for session in self.history.sessions:
            if session.node == node.number:
                session.leaving = min(session.leaving, now)

    async def leave(self, session, how):
        session.leaving, session.willed = min(session.leaving, time.monotonic()), True
        getattr(session.client, how)()
        # A frozen node cannot answer a close frame: the client does not wait for it.
        if not await wait_until(lambda: session.closed < INF, 1.0):
            session.client.hang_up()

    async def bind(self, session, rng, group, user=None):
        """Binds until it is answered with success, or the session has ended."""
        stay = Stay(time.monotonic())
        session.stays.setdefault(("group", group), []).append(stay)
        for key in [key for key in session.notices if key[0] == group]:
            del session.notices[key]  # it was away, and knows nothing
        body = {"clientId": session.id, "groupName": group}
        if user and ("user", user) not in session.stays:
            session.stays["user", user] = [Stay(stay.asked)]
        if user:
            body["userId"] = user
        while session.closed == INF:
            answer = await self.call("bind_to_group", session.system, rng, body)
            if answer and answer["code"] == 0:
                stay.sure = time.monotonic()
                if user:
                    session.stays["user", user][0].sure = min(session.stays["user", user][0].sure, stay.sure)
                return True
            await asyncio.sleep(0.1)
        return False

    async def unbind(self, session, rng, group):
        stay = session.stay(("group", group))
        stay.leaving = time.monotonic()
        while session.closed == INF:
            answer = await self.call("unbind_from_group", session.system, rng, {"clientId": session.id, "groupName": group})
            if answer and answer["code"] == 0:
                stay.gone = min(stay.gone, time.monotonic())
                return
            await asyncio.sleep(0.1)

    # --- calls ------------------------------------------------------------------------------------

    def some_node(self, rng, home=None):
        """A node to call: seldom one that stands still, for that costs the caller its time."""
        node = self.world.nodes[home] if home is not None and rng.random() < 0.7 else rng.choice(self.world.nodes)
        if (node.frozen or not node.runs()) and rng.random() < 0.95:
            able = [other for other in self.world.nodes if not other.frozen and other.runs()]
            node = rng.choice(able) if able else node
        return node

    async def call(self, name, system, rng, body, node=None):
        node, begun = node or self.some_node(rng), time.monotonic()
        caller = Caller(node.port)
        answer = await caller.call(name, self.tokens[system], json.dumps(body).encode())
        caller.close()
        self.history.calls.append(Call(name, node.number, begun, time.monotonic(), answer and answer["code"]))
        return answer

    def choose(self, rng):
        """(path, kind, system, target, body) of a send."""
        system = rng.choice(SYSTEMS)
        kind = rng.choices(("group", "user", "system", "client", "clients"), (8 if self.pace else 60, 2, 1, 6, 2))[0]
        if kind == "group":
            name = rng.choice(GROUPS)
            return "send_to_group", kind, system, name, {"groupName": name}
        if kind == "user":
            name = rng.choice(USERS)
            return "send_to_user", kind, system, name, {"userId": name}
        if kind == "system":
            return "send_to_system", kind, system, "", {}
        ids = [session.id for session in self.history.sessions if session.system == system and session.closed == INF]
        if not ids:
            return "send_to_system", "system", system, "", {}
        ids = rng.sample(ids, min(len(ids), rng.randint(1, 6) if kind == "clients" else 1))
        if kind == "clients":
            return "send_to_clients", "client", system, tuple(ids), {"clientIds": ids}
        return "send_to_client", "client", system, tuple(ids), {"clientId": ids[0]}

    async def send(self, rng, index, node, caller):
        path, kind, system, target, body = self.choose(rng)
        number, self.number = self.number, self.number + 1
        data = b"[%d,%.6f,%s]" % (number, time.time(), TAILS[number % 40] if number % 40 < len(TAILS) else b"0")
        once = number % 3 == 0
        extra = b',"messageId":"%d"' % number if once else b""
        self.payloads[number] = b'{"code":%d,"msg":"chaos","data":%s%s}' % (number, data, extra)
        text = json.dumps(body)[:-1].encode() + (b", " if body else b"") + b'"code":%d,"msg":"chaos","data":%s%s%s}' % (
            number, data, extra, b',"once":true' if once else b"")
        send = Send(number, kind, system, target, index, node.number, node.life, time.monotonic())
        self.history.sends[number] = send
        answer = await caller.call(path, self.tokens[system], text)
        send.ended = time.monotonic()
        send.code = answer and answer["code"]
        if once and send.unknown:
            answer = await self.repeat(send, path, text, rng)
        if path == "send_to_clients" and send.code == 0:
            send.failed = tuple(answer["data"]["failed"])
        if send.code not in (None, 0, -1003, -1007):
            self.blame("answer", "answered %r" % (answer,), send)

    async def repeat(self, send, path, text, rng):
        """Repeats a send with `once`, through one node or another, until it is known what has become of it."""
        answer, send.again = None, True
        self.history.calls.append(Call(path, send.node, send.begun, send.ended, send.code))
        while send.unknown and time.monotonic() < send.begun + REPEAT_MAX:
            await asyncio.sleep(0.2)
            node, begun = self.some_node(rng), time.monotonic()
            caller = Caller(node.port)
            answer = await caller.call(path, self.tokens[send.system], text)
            caller.close()
            send.ended, send.code = time.monotonic(), answer and answer["code"]
            self.history.calls.append(Call(path, node.number, begun, send.ended, send.code))
        if send.code == -1003:
            send.code = None  # the client has gone, and may have got it before
        self.repeated += send.code == 0
        return answer

    # --- actors -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def working(self):
        """A stretch of work; it begins only while load is on, and load ends when all have ended."""
        await self.open.wait()
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    async def run_caller(self, index):
        rng, callers = self.rng("caller %d" % index), {}
        while True:
            async with self.working():
                node = self.some_node(rng, index % len(self.world.nodes))
                caller = callers.setdefault((node.number, node.life), Caller(node.port))  # no connection to a life that has ended
                await self.send(rng, index, node, caller)
            await asyncio.sleep(rng.expovariate(1) * self.options.callers / self.options.rate * self.pace)

    async def run_resident(self, index):
        """A client that stays as long as its node does."""
        rng, node = self.rng("resident %d" % index), self.world.nodes[index % len(self.world.nodes)]
        system = SYSTEMS[index // len(self.world.nodes) % len(SYSTEMS)]
        while True:
            session = None
            async with self.working():
                session = await self.join(node, system)
                if session:
                    user = rng.choice(USERS)
                    for group in rng.sample(GROUPS, 2):
                        await self.bind(session, rng, group, user)
            while session and session.closed == INF:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)

    async def run_visitor(self, index):
        """A client that comes, stays for a while, and leaves in one way or another."""
        rng = self.rng("visitor %d" % index)
        while True:
            async with self.working():
                session = await self.join(self.some_node(rng), rng.choice(SYSTEMS))
                user = rng.choice([None, *USERS])
                for group in rng.sample(GROUPS, rng.randint(1, 2)) if session else ():
                    await self.bind(session, rng, group, user)
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0.5, 8)]))
            while session and session.closed == INF and rng.random() < 0.5:
                async with self.working():
                    group = rng.choice([name for kind, name in session.stays if kind == "group"] or [GROUPS[0]])
                    stay = session.stay(("group", group))
                    if not stay or stay.leaving < INF:
                        await self.bind(session, rng, group, user)
                    else:
                        await self.unbind(session, rng, group)
                await asyncio.sleep(rng.uniform(0, 2))
            if session and session.closed == INF:
                async with self.working():
                    await self.leave(session, rng.choice(["close", "hang_up", "reset"]))
            await asyncio.sleep(rng.uniform(0, 0.5))

    async def run_returner(self, index):
        returner = Returner(index, self.history)
        self.returners.append(returner)
        await asyncio.gather(self.come_and_go(returner, self.rng("returner %d" % index)),
                             self.tell(returner, self.rng("teller %d" % index)))

    async def come_and_go(self, returner, rng):
        while True:
            async with self.working():
                with contextlib.suppress(OSError, Refused, asyncio.TimeoutError):
                    returner.client = await Client.connect(
                        self.some_node(rng).port, "%s&resume=%s&received=%d" % (SYSTEMS[0], returner.key, returner.received),
                        returner.on_text, lambda *_: None, returner.on_first)
                    if not returner.bound:
                        body = {"clientId": returner.id, "groupName": returner.group}
                        answer = await self.call("bind_to_group", SYSTEMS[0], rng, body)
                        returner.bound = bool(answer) and answer["code"] == 0
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 2)]))
            if returner.client and not returner.client.transport.is_closing():
                getattr(returner.client, rng.choice(["hang_up", "reset"]))()
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 1)]))

    async def tell(self, returner, rng):
        """Sends it one number after the other."""
        while True:
            async with self.working():
                returner.calls.append((None, time.monotonic(), INF))
                answer = await self.call("send_to_group", SYSTEMS[0], rng, {
                    "groupName": returner.group, "code": len(returner.calls), "msg": "resume", "data": 0})
                returner.calls[-1] = (answer and answer["code"], returner.calls[-1][1], time.monotonic())
            await asyncio.sleep(rng.uniform(0, 0.1))

    async def run_reader(self):
        """Asks for lists and clients; only the times of the answers are judged, and codes."""
        rng = self.rng("reader")
        while True:
            async with self.working():
                system = rng.choice(SYSTEMS)
                ids = [session.id for session in self.history.sessions if session.system == system]
                if rng.random() < 0.5 and ids:
                    await self.call("client_info", system, rng, {"clientId": rng.choice(ids)})
                else:
                    await self.call("get_online_list", system, rng, {"groupName": rng.choice(GROUPS)})
            await asyncio.sleep(rng.uniform(0, 0.3))

    async def run_clock(self):
        """How late this test itself is under load: so late may be all that it sees, several times over."""
        while True:
            await self.open.wait()
            begun = time.monotonic()
            await asyncio.sleep(0.05)
            self.history.lag = max(self.history.lag, 4 * (time.monotonic() - begun - 0.05))

    # --- the cycle ----------------------------------------------------------------------------------

    async def run_cycle(self, rng):
        """Load, a fault or two, recovery, rest, judgement. False if there was a violation."""
        self.pace = rng.choice([1.0, 1.0, 0.3, 0.0])  # 0: as fast as the answers come
        self.open.set()
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        first = self.faults.draw(rng)
        second = self.faults.draw(rng, first) if rng.random() < 0.5 else None
        after = rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0, max(first.seconds, 0.5))])
        self.say("%s%s" % (first, "; after %.1f s %s" % (after, second) if second else ""))
        await asyncio.gather(self.faults.run(first), *([self.faults.run(second, after)] if second else []))
        healed = time.monotonic()
        ready = await self.world.await_ready(READY_MAX)
        await asyncio.sleep(0.5)  # a node that stood still has to see first what it missed
        if not ready or not await self.world.await_ready(READY_MAX):
            for node in self.world.nodes:
                if not await node.ready():
                    self.blame("ready", "node %d is not ready %.0f s after all was healed" % (node.number, READY_MAX))
        mark_recovered(self.history)
        recovered = time.monotonic()
        await asyncio.sleep(rng.uniform(0.5, 1.0))
        self.open.clear()
        await wait_until(lambda: self.busy == 0, 30)
        settled = await self.settle()
        self.say("    ready after %.1f s, settled after %.1f s; %d sends, %d sessions, lag %.2f s" % (
            recovered - healed, settled, len(self.history.sends), len(self.history.sessions), self.history.lag))
        self.judge_nodes()
        return not self.violations

    async def settle(self):
        """Waits until nothing is owed, then judges; returns how long that took."""
        begun = time.monotonic()
        while True:
            await asyncio.sleep(0.3)
            owed = self.judged(checker.pending(self.history, time.monotonic())) or self.judged(await self.check_lists())
            if not owed or time.monotonic() - begun > SETTLE_MAX:
                break
        took = time.monotonic() - begun
        found = [Violation("resume", text) for returner in self.returners for text in returner.found]
        self.violations += self.judged(found)
        self.violations += owed + self.judged(checker.final(self.history))
        if not self.violations:
            self.history.forget()
            self.history.faults = [fault for fault in self.history.faults if fault.ended > begun - 60]
            self.history.lag = 0.0
            self.payloads = {}
        return took

    def judged(self, violations):
        return [violation for violation in violations if violation.rule in self.options.rules]

    async def check_lists(self):
        found = []
        for system in SYSTEMS:
            for group in GROUPS:
                for node in self.world.nodes:
                    caller = Caller(node.port)
                    answer = await caller.call("get_online_list", self.tokens[system], b'{"groupName":"%s"}' % group.encode())
                    caller.close()
                    if not answer or answer["code"] != 0 or "incomplete" in answer["data"]:
                        found.append(Violation("lists", "node %d answered %r" % (node.number, answer)))
                    else:
                        found += checker.check_list(self.history, time.monotonic(), node.number, system, group, answer["data"]["list"])
        return found

    def judge_nodes(self):
        for node in self.world.nodes:
            if not node.runs():
                self.blame("node", "node %d has ended with %s" % (node.number, node.proc.returncode))
            if printed := node.printed():
                self.blame("node", "node %d printed: %s" % (node.number, printed))
            memory = node.memory()
            node.peak = max(node.peak, memory)
            if memory > self.first_memory.setdefault(node.number, memory) + MEMORY_MAX:
                self.blame("node", "node %d has %d KiB, and had %d" % (node.number, memory, self.first_memory[node.number]))

    def blame(self, rule, text, send=None):
        self.violations.append(Violation(rule, text, send))

    def say(self, text):
        if not self.options.quiet:
            print("%6.1f s  %s" % (time.monotonic() - self.begun, text), flush=True)

    # --- the whole ----------------------------------------------------------------------------------

    async def sign_up(self):
        caller = Caller(self.world.nodes[0].port)
        for system in SYSTEMS:
            body = b'{"systemId":"%s","password":"secret"}' % system.encode()
            await caller.call("register", "", body)
            self.tokens[system] = (await caller.call("login", "", body))["data"]["token"]
        caller.close()

    async def run(self):
        self.begun = time.monotonic()
        await self.world.start()
        await self.sign_up()
        options = self.options
        actors = [self.run_caller(i) for i in range(options.callers)] + \
            [self.run_resident(i) for i in range(options.residents * options.nodes)] + \
            [self.run_visitor(i) for i in range(options.visitors)] + \
            [self.run_returner(i) for i in range(options.returners)] + [self.run_reader(), self.run_clock()]
        tasks = [asyncio.ensure_future(actor) for actor in actors]
        rng, cycles = self.rng("faults"), 0
        self.say("all is up")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < options.seconds and await self.run_cycle(rng):
                cycles += 1
                for task in tasks:
                    if task.done():
                        task.result()  # raises what ended it
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return cycles

    async def end(self):
        for session in self.history.sessions:
            session.client.hang_up()
        statuses = await self.world.stop()
        for node, status in zip(self.world.nodes, statuses):
            if status != 0 and not self.violations:
                self.blame("node", "node %d ended with %s: %s" % (node.number, status, node.printed()))

    def report(self):
        """The history around the first violation of each rule."""
        told = set()
        for violation in self.violations:
            if violation.rule in told:
                continue
            told.add(violation.rule)
            print("VIOLATION of %s (%d in all)" % (violation.rule, sum(v.rule == violation.rule for v in self.violations)))
            print("  %s" % violation)
            self.tell_context(violation)

    def tell_context(self, violation):
        send = violation.send
        begin, end = (send.begun - 1, send.ended + 5) if send else (-INF, INF)
        for fault in self.history.faults:
            if fault.begun < end and fault.recovered > begin:
                print("  fault: %s, %.3f to %.3f, recovered %.3f" % (fault.text, fault.begun, fault.ended, fault.recovered))
        for session in filter(None, (violation.session, violation.other)):
            print("  session %d (%s): %s at node %d, %.3f to %.3f, left at %.3f, close code %s" % (
                session.key, session.id[-12:], session.system, session.node, session.opened, session.closed, session.leaving, session.code))
            for channel, stays in session.stays.items():
                print("    in %s: %s" % (" ".join(channel), ", ".join(
                    "%.3f/%.3f to %.3f/%.3f" % (s.asked, s.sure, s.leaving, s.gone) for s in stays)))
            times = [(now, number) for now, number in session.frames if begin < now < end]
            middle = sum(now < send.ended for now, _ in times) if send else 0
            print("    got: %s" % ", ".join("%d at %.3f" % (number, now) for now, number in times[max(0, middle - 20):middle + 20]))
        for one in filter(None, (send, violation.second)):
            receivers = ["%d at node %d: %s" % (s.key, s.node, ", ".join("%.3f" % t for t, n in s.frames if n == one.number))
                         for s in self.history.sessions if any(n == one.number for _, n in s.frames)]
            print("  %s; received by: %s" % (one, "; ".join(receivers) or "nobody"))
        near = [other for other in self.history.sends.values() if send and other is not send and
                other.system == send.system and other.node == send.node and abs(other.begun - send.begun) < 0.5]
        for other in near[:12]:
            print("  near it: %s" % other)


async def supervise(chaos):
    """Runs it, and ends it at a signal."""
    task = asyncio.ensure_future(chaos.run())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except Broken as error:
        chaos.blame("node", str(error))
        return 0
    finally:
        await chaos.end()


def read_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--binary", default="build/cluster-asan/wspush")
    parser.add_argument("--base", type=int, default=random.SystemRandom().randrange(10000, 19000, 100), help="ports from there on")
    parser.add_argument("--rate", type=float, default=150, help="sends a second of all callers, while nothing is slow")
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--residents", type=int, default=6, help="clients that stay, on each node")
    parser.add_argument("--visitors", type=int, default=12)
    parser.add_argument("--returners", type=int, default=6, help="clients that lose their connections, and come back")
    parser.add_argument("--only", default="", help="kinds of faults, with commas between: " + ", ".join(KINDS))
    parser.add_argument("--rules", default=",".join(RULES), help="those that are judged")
    parser.add_argument("--tolerate", default="crash", help="crash (the default): what RabbitMQ takes along when it is killed, "
                        "which is counted; none: nothing")
    parser.add_argument("--quiet", action="store_true", help="print no line for each fault")
    options = parser.parse_args()
    unknown = set(filter(None, options.only.split(","))) - set(KINDS)
    if unknown:
        parser.error("there is no fault named " + ", ".join(unknown))
    return options


def main():
    options = read_options()
    folder = tempfile.mkdtemp(prefix="wspush-chaos.")
    chaos = Chaos(options, folder)
    print("seed %d, %d nodes of %s" % (options.seed, options.nodes, options.binary), flush=True)
    cycles = asyncio.run(supervise(chaos))
    chaos.report()
    broken = {violation.rule for violation in chaos.violations}
    seen = chaos.history.seen
    for rule in RULES:
        print("%s %s" % ("FAIL" if rule in broken else "ok  ", rule + (" (see above)" if rule in broken else "")))
    print("%d cycles of faults, %d sends (%d unknown, %d known in the end), %d deliveries, %d losses tolerated, %d returns (%d with all); nodes had at most %s KiB" % (
        cycles, seen["sends"], seen["unknown"], chaos.repeated, seen["deliveries"], seen["tolerated"], seen["returns"], seen["recovered"], [node.peak for node in chaos.world.nodes]))
    if chaos.violations:
        print("seed %d; logs are in %s" % (options.seed, folder))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print("%d passed, %d failed" % (len(RULES) - len(broken), len(broken)))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

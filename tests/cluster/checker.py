"""checker.py - judges what a run of the chaos test has recorded. It knows the contract and nothing of the server.

A history is what was sent, who was connected and bound, which faults there were, and what each session received, all
with times of one clock (seconds). It covers the time since the last settled point: faults are healed, no call is under
way, and nothing more comes. `pending` has the rules that time may still fulfil, so the test waits until it is empty;
`final` has the others. Both are pure functions that return violations. `forget` makes a settled history the beginning
of the next one.

Each stay (of a session in a channel) has four times: it may be a member from `asked`, is one from `sure` (the bind was
answered with success), may have left from `leaving`, and has left at `gone`. What lies between is tolerated both ways.

Rules, and what is tolerated, with its reason:
  loss      A send answered 0 reaches everybody who was a member from before the call until the settled point. Who
            left before it counts only if there was no fault from the call to the leave, and STAY_AFTER between. There
            is no exception for a frozen node or a killed RabbitMQ: the answer 0 says that it was routed to all. If
            `crash_loses` is set there is one: RabbitMQ was killed before the member's node had read it, which is
            within CRASH_AFTER of the answer, or after any fault of that node that lasted until the kill.
  twice     A frame never comes twice to one session, whatever was answered.
  stray     Only who may be a member gets a frame, byte for byte as it was sent. A call that was refused (-1003) sends
            nothing.
  order     What several sessions of one system got of publications (group, user, system) they got in one order. What
            one session got of calls answered 0 one after the other by one life of a node, it got in that order; but
            while RabbitMQ is lost for longer than RPC_TIMEOUT, a call for one client goes over the link, and before
            what RabbitMQ had for the client's node when it was lost, within CRASH_AFTER of the answer. A send that was
            repeated has no place: some got it the first time, some later.
  ghost     Unknown (-1007, or no answer) means: now, or never. A send to one client comes at most GHOST_AFTER behind
            the answer, even if the receiving node was frozen meanwhile: its asker has given up and may have sent
            again. (If that node's clock stood still as well, nothing there tells how old it is.) A publication may be late while a fault lasts (RabbitMQ has it, and no asker can call it back), but
            not later than LATE_AFTER behind the faults' end.
  denied    -1003 only if the client's node may be taken for dead: within DEAD_FOR of a fault of that node. Named as
            failed is who cannot be reached as well, so that takes any fault.
  live      Where there has been no fault for CALM_BEFORE no call is answered -1007, nor not at all.
  notices   For each watcher, group and client 1001 and 1002 alternate (who leaves is not told of itself). There are no more 1001 than joins, unless the
            client's node may have been taken for dead. At the settled point who is there has 1001 last, and who has
            left 1002. Tolerated: nothing came of a stay that a fault may have hidden (came and went unseen); a node
            killed within NOTICE_KILL of a join or leave, or before Redis and RabbitMQ answered it, may have written or
            removed the record without telling; one that stops while Redis or RabbitMQ
            stays away for DRAIN_GRACE may not learn that it removed a record, or not publish that; so may the node that
            tells of a dead one, if it is killed as well; with Redis's data a dead node's records are lost; a killed
            RabbitMQ takes notices along as it takes sends.
  lists     At the settled point each node's list has all sure members, and none who cannot be one.
  answer    Each answer comes within ANSWER_MAX, or what a fault of the called node adds; one that starts may listen
            before it can answer.
  closed    No session ends but by its own will, or with its node.
"""
import collections
import dataclasses

INF = float("inf")
RPC_TIMEOUT = 2.0   # [cluster] rpc_timeout
CRASH_AFTER = 0.5
STAY_AFTER = 2.0    # a calm stay so long behind an answer is long enough to get the frame
GHOST_AFTER = 1.0   # scheduling of the node, and of this test
LATE_AFTER = 5.0
ANSWER_MAX = RPC_TIMEOUT + 1.0
DEAD_FOR = 15.0     # a node is missed for its TTL, and found again a while after the fault's end
DRAIN_GRACE = 2.0   # a node that stops waits so long for Redis and RabbitMQ
NOTICE_KILL = 1.0   # a node that is killed so long behind a join or leave may take the notice along
RECONNECT = 3.0     # a notice that waited for Redis or RabbitMQ leaves so long behind their return
CALM_BEFORE = RPC_TIMEOUT + 1.0  # what a fault has swallowed shows when it should have come back
CALM_STAY = 2.0     # a stay so long is told of

PUBLISHED = ("group", "user", "system")
DEADLY = ("freeze", "pause", "kill", "term", "redis", "isolate")  # a node may be taken for dead


@dataclasses.dataclass(eq=False)
class Stay:
    asked: float
    sure: float = INF
    leaving: float = INF
    gone: float = INF


@dataclasses.dataclass(eq=False)
class Session:
    """A connection of a client. `stays` has its stays by channel: ("system", ""), ("user", name), ("group", name)."""
    key: int
    id: str
    system: str
    node: int
    opened: float
    leaving: float = INF  # it, or the test, has begun to end it
    willed: bool = False  # by itself, not by a fault of its node
    closed: float = INF
    code: int = None
    stays: dict = dataclasses.field(default_factory=dict)
    frames: list = dataclasses.field(default_factory=list)   # (time, number)
    notices: dict = dataclasses.field(default_factory=dict)  # (group, id): [code]
    damaged: list = dataclasses.field(default_factory=list)  # (time, bytes) that are no frame of ours

    def stay(self, channel):
        stays = self.stays.get(channel)
        return stays[-1] if stays else None


@dataclasses.dataclass(eq=False)
class Send:
    number: int
    kind: str        # group, user, system, client
    system: str
    target: object   # the channel's name; for client: a tuple of ids
    caller: int
    node: int
    life: int
    begun: float
    ended: float = INF
    code: int = None
    failed: tuple = ()
    again: bool = False  # it has `once`, and was unknown and repeated; `ended` and `code` are of the last try

    @property
    def unknown(self):
        return self.code in (None, -1007)

    def __str__(self):
        return "send %d to %s %s by caller %d through node %d (life %d): %s, %.3f to %.3f" % (
            self.number, self.kind, self.target if self.kind != "client" else [id[-12:] for id in self.target],
            self.caller, self.node, self.life, self.code, self.begun, self.ended)


@dataclasses.dataclass(eq=False)
class Fault:
    kind: str
    nodes: tuple     # the nodes it concerns
    begun: float
    ended: float = INF      # it was healed
    recovered: float = INF  # all nodes were ready again
    text: str = ""


@dataclasses.dataclass(eq=False)
class Call:
    """A call that is no send, or one try of a send: only its time is judged."""
    name: str
    node: int
    begun: float
    ended: float
    code: int


@dataclasses.dataclass
class Violation:
    rule: str
    text: str
    send: Send = None
    session: Session = None
    other: Session = None
    second: Send = None

    def __str__(self):
        return "%s: %s%s" % (self.rule, self.text, "; " + str(self.send) if self.send else "")


class History:
    def __init__(self):
        self.sends, self.sessions, self.faults, self.calls = {}, [], [], []
        self.first = 0   # sends with smaller numbers were settled before
        self.lag = 0.0   # by how much this test itself was late: the machine is busy
        self.crash_loses, self.tolerated = False, set()
        self.seen = collections.Counter()

    def calm(self, begin, end):
        """No fault, nor what it leaves behind, from begin to end."""
        return not any(fault.begun < end and fault.recovered > begin for fault in self.faults)

    def may_be_dead(self, node, begin, end):
        """A fault may have had the node taken for dead in this time, or have it just now."""
        return any(node in fault.nodes and fault.kind in DEADLY and fault.begun < end and fault.ended + DEAD_FOR > begin
                   for fault in self.faults)

    def killed(self, node, begin, end):
        return any(node in fault.nodes and fault.kind == "kill" and begin <= fault.begun <= end for fault in self.faults)

    def killed_telling(self, node, at):
        """The node was killed before it had surely published a notice of this instant: it waits for Redis and RabbitMQ."""
        until = at + NOTICE_KILL + self.lag
        for fault in sorted(self.faults, key=lambda fault: fault.begun):
            if fault.kind in ("redis", "rabbit", "isolate") and fault.begun <= until and fault.ended >= at:
                until = max(until, fault.ended + RECONNECT + self.lag)
        return self.killed(node, at - 0.001, until)

    def forget(self):
        """What is settled is forgotten, but for who is where."""
        self.first = max(self.sends, default=self.first - 1) + 1
        self.seen["sends"] += len(self.sends)
        self.seen["tolerated"] = len(self.tolerated)
        self.seen["unknown"] += sum(send.unknown for send in self.sends.values())
        self.seen["deliveries"] += sum(len(session.frames) for session in self.sessions)
        self.sends, self.calls = {}, []
        self.sessions = [session for session in self.sessions if session.closed == INF]
        here = {session.id: session for session in self.sessions}
        for session in self.sessions:
            session.frames = []
            for channel in list(session.stays):
                session.stays[channel] = [stay for stay in session.stays[channel] if stay.gone == INF]
                if not session.stays[channel]:
                    del session.stays[channel]
        for session in self.sessions:
            session.notices = {
                (group, who): codes[-1:] for (group, who), codes in session.notices.items() if codes[-1:] == [1001] and
                session.stay(("group", group)) and who in here and here[who].stay(("group", group))}


# --- who must get what ----------------------------------------------------------------------------


def stays_for(session, send):
    """The stays by which a session may be concerned by a send."""
    if session.system != send.system:
        return []
    if send.kind == "client":
        if session.id not in send.target:
            return []
        return [Stay(session.opened, session.opened, session.leaving, session.closed)]
    return session.stays.get((send.kind, "" if send.kind == "system" else send.target), [])


def must_get(history, session, send, now):
    """The session was a member from before the send until now, or for a calm while."""
    for stay in stays_for(session, send):
        leaving = min(stay.leaving, session.leaving, session.closed)
        if stay.sure > send.begun or leaving < send.ended:
            continue
        if leaving > now:
            return True
        if leaving - send.ended >= STAY_AFTER + history.lag and history.calm(send.begun, leaving):
            return True
    return False


def may_get(session, send, time):
    """Who joins between the answer and the delivery may get it: who is a member is looked up when it is delivered."""
    return any(stay.asked < time and stay.gone > send.begun for stay in stays_for(session, send))


def check_loss(history, now):
    found = []
    by_target = collections.defaultdict(list)
    for send in history.sends.values():
        if send.code == 0:
            if send.kind == "client":
                for id in send.target:
                    by_target[send.system, id].append(send)
            else:
                by_target[send.system, send.kind, send.target if send.kind != "system" else ""].append(send)
    for session in history.sessions:
        got = {number for _, number in session.frames}
        sends = list(by_target[session.system, session.id])
        for channel in session.stays:
            sends += by_target[(session.system, *channel)]
        found += [Violation("loss", "session %d at node %d did not get it" % (session.key, session.node), send, session)
                  for send in sends if send.number not in got and session.id not in send.failed
                  and must_get(history, session, send, now) and not was_crashed(history, session, send)]
    return found


def was_crashed(history, session, send):
    """The loss is tolerated: a RabbitMQ that was killed had it for the session's node."""
    if send.kind not in PUBLISHED or not may_crash(history, session.node, send.begun, send.ended):
        return False
    history.tolerated.add((session.key, send.number))
    return True


def may_crash(history, node, begun, ended):
    """RabbitMQ was killed, and may have had for this node what was published from `begun` to `ended`."""
    if not history.crash_loses:
        return False
    for crash in history.faults:
        if crash.kind == "rabbit" and "killed" in crash.text and crash.begun > begun:
            unread = any(node in fault.nodes and fault is not crash and fault.begun <= ended and
                         fault.recovered >= crash.begun for fault in history.faults)
            if unread or crash.begun < ended + CRASH_AFTER + history.lag:
                return True
    return False


def check_frames(history):
    """twice, stray, ghost: each frame by itself."""
    found = []
    for session in history.sessions:
        where = "session %d at node %d " % (session.key, session.node)
        found += [Violation("stray", where + "got %r" % data[:300], None, session) for _, data in session.damaged]
        got = collections.Counter(number for _, number in session.frames)
        for time, number in session.frames:
            send = history.sends.get(number)
            if not send:
                found.append(Violation("ghost", where + "got %d at %.3f, which was settled before" % (number, time),
                                       None, session))
                continue
            if got[number] > 1:
                got[number] = 0
                found.append(Violation("twice", where + "got it at " + ", ".join(
                    "%.3f" % t for t, n in session.frames if n == number), send, session))
            if not may_get(session, send, time):
                found.append(Violation("stray", where + "got it at %.3f and is no member" % time, send, session))
            found += check_ghost(history, session, send, time, where)
    return found


def check_ghost(history, session, send, time, where):
    if not (send.unknown or send.code == 0 and session.id in send.failed):
        if send.code != 0:
            return [Violation("stray", where + "got what was refused, at %.3f" % time, send, session)]
        return []
    if send.kind == "client":
        latest = max(send.ended, send.begun + RPC_TIMEOUT) + GHOST_AFTER + history.lag
        for fault in history.faults:
            if fault.kind == "pause" and session.node in fault.nodes and fault.begun < latest:
                latest = max(latest, fault.ended + GHOST_AFTER + history.lag)
    else:
        latest = send.ended + LATE_AFTER + history.lag
        for fault in sorted(history.faults, key=lambda fault: fault.begun):
            if fault.begun < latest:
                latest = max(latest, fault.recovered + LATE_AFTER + history.lag)
    if time <= latest:
        return []
    return [Violation("ghost", where + "got it at %.3f, %.1f s behind the answer" % (time, time - send.ended),
                      send, session)]


def check_denied(history):
    found = []
    by_id = {session.id: session for session in history.sessions}
    for send in history.sends.values():
        if send.kind != "client" or send.code not in (0, -1003):
            continue
        for id in send.target if send.code == -1003 else send.failed:
            session = by_id.get(id)
            if session and session.opened < send.begun and min(session.leaving, session.closed) > send.ended and not (
                    history.may_be_dead(session.node, send.begun, send.ended) if send.code == -1003 else
                    not history.calm(send.begun - 2, send.ended)):
                found.append(Violation("denied", "session %d at node %d was there" % (session.key, session.node),
                                       send, session))
    return found


def check_live(history):
    return [Violation("live", "%s of node %d is answered %s in quiet, %.3f to %.3f" % (
        getattr(call, "name", "send"), call.node, call.code, call.begun, call.ended),
                      call if isinstance(call, Send) else None)
            for call in [*history.sends.values(), *history.calls]
            if call.code in (None, -1007) and history.calm(call.begun - CALM_BEFORE, call.ended)]


# --- order ----------------------------------------------------------------------------------------


def sort_or_remain(sequences):
    """The numbers that have no place in one order of all sequences: the cycles, and what hangs on them."""
    before, behind = collections.Counter(), collections.defaultdict(set)
    for sequence in sequences:
        for a, b in zip(sequence, sequence[1:]):
            if b not in behind[a]:
                behind[a].add(b)
                before[b] += 1
    free = [a for a in list(behind) if not before[a]]
    while free:
        a = free.pop()
        for b in behind.pop(a, ()):
            before[b] -= 1
            if not before[b]:
                free.append(b)
                del before[b]
    return {b for b, count in before.items() if count}


def check_order_channel(history):
    found = []
    for system in {session.system for session in history.sessions}:
        sessions = [session for session in history.sessions if session.system == system]
        sequences = []
        for session in sessions:
            seen = dict.fromkeys(number for _, number in session.frames
                                 if number in history.sends and history.sends[number].kind in PUBLISHED
                                 and not history.sends[number].again)
            sequences.append(list(seen))
        remain = sort_or_remain(sequences)
        places = [{number: place for place, number in enumerate(n for n in sequence if n in remain)}
                  for sequence in sequences]
        found += find_inversions(history, sessions, places) if remain else []
    return found


def find_inversions(history, sessions, places, most=10):
    """Pairs that two sessions got in different orders; if it takes three to contradict, one that says so."""
    found = []
    for i, mine in enumerate(places):
        for j in range(i):
            common = [number for number in mine if number in places[j]]
            for a, b in zip(common, common[1:]):
                if places[j][a] > places[j][b] and len(found) < most:
                    found.append(Violation("order", "session %d at node %d got %d before %d, session %d at node %d behind it"
                                           % (sessions[i].key, sessions[i].node, a, b, sessions[j].key, sessions[j].node),
                                           history.sends[a], sessions[i], sessions[j], history.sends[b]))
    return found or [Violation("order", "no order of all fits: %s" % sorted(set().union(*places))[:20])]


def check_order_client(history):
    """Behind a call that was answered 0, no frame of a call that the same node answered before it began."""
    found = []
    for session in history.sessions:
        latest = {}  # by life of a node: the frame whose call began last
        for number in dict.fromkeys(number for _, number in session.frames):
            send = history.sends.get(number)
            if not send or send.again:
                continue
            before = latest.get((send.node, send.life))
            if before and send.code == 0 and send.ended < before.begun and session.id not in send.failed and not (
                    was_overtaken(history, send, before)):
                found.append(Violation("order", "session %d at node %d got it behind %d, which was called %.3f s after it was answered"
                                       % (session.key, session.node, before.number, before.begun - send.ended), send, session, None, before))
            if not before or send.begun > before.begun:
                latest[send.node, send.life] = send
    return found


def was_overtaken(history, send, later):
    """RabbitMQ was lost with a publication for the client's node, and the later call went over the link meanwhile."""
    return send.kind in PUBLISHED and later.kind == "client" and any(
        (fault.kind == "isolate" or fault.kind == "rabbit" and any(word in fault.text for word in ("killed", "cut", "hold", "deaf"))) and
        fault.begun <= send.ended + CRASH_AFTER and
        fault.begun + RPC_TIMEOUT <= later.ended and later.begun <= fault.recovered for fault in history.faults)


# --- notices --------------------------------------------------------------------------------------


def check_alternation(history):
    found = []
    by_id = {session.id: session for session in history.sessions}
    for watcher in history.sessions:
        for (group, who), codes in watcher.notices.items():
            subject = by_id.get(who)
            text = "watcher %d at node %d of %s in %s: %s" % (
                watcher.key, watcher.node, "session %d at node %d" % (subject.key, subject.node) if subject else who, group, codes)
            if not subject:
                found.append(Violation("notices", text + ", which was settled before", None, watcher))
                continue
            for a, b in zip(codes, codes[1:]):
                if a == b and subject is not watcher and not may_crash(history, watcher.node, subject.opened, INF) and not (
                        a == 1002 and died_joining(history, subject, group)):
                    found.append(Violation("notices", "%d twice: %s" % (a, text), None, watcher, subject))
                    break
            joins = len(subject.stays.get(("group", group), ()))
            if codes.count(1001) > joins and not history.may_be_dead(subject.node, subject.opened, INF):
                found.append(Violation("notices", "%d joins: %s" % (joins, text), None, watcher, subject))
    return found


def died_joining(history, subject, group):
    """Its node was killed right behind a join: the record was written, and its 1001 may have died with the node."""
    return any(history.killed_telling(subject.node, stay.asked) for stay in subject.stays.get(("group", group), ()))


def check_last_notice(history, now):
    found = []
    members = collections.defaultdict(list)
    for session in history.sessions:
        for kind, name in session.stays:
            if kind == "group":
                members[session.system, name].append(session)
    for (system, group), sessions in members.items():
        for watcher in sessions:
            stay = watcher.stay(("group", group))
            if stay.sure > now or min(stay.leaving, watcher.leaving, watcher.closed) <= now:
                continue
            for subject in sessions:
                if subject is not watcher:
                    found += judge_last(history, watcher, stay, subject, group)
    return found


def judge_last(history, watcher, watching, subject, group):
    stay = subject.stay(("group", group))
    codes = watcher.notices.get((group, subject.id), [])
    leaving = min(stay.leaving, subject.leaving, subject.closed)
    willed = subject.willed or stay.leaving < min(subject.leaving, subject.closed)  # an unbind before its node died
    told = "watcher %d at node %d of session %d at node %d in %s, %.3f to %.3f: %s" % (
        watcher.key, watcher.node, subject.key, subject.node, group, stay.asked, leaving, codes)
    if leaving == INF:
        wrong = codes[-1:] == [1002] or not codes and stay.sure < INF and watching.sure < stay.asked
    elif stay.gone == INF and subject.closed == INF:
        wrong = False  # it may be there or not
    elif codes:
        wrong = codes[-1] == 1001 and not is_excused(history, subject, leaving, willed)
    else:
        noticed = stay.sure + CALM_STAY < leaving and history.calm(stay.asked, stay.sure + CALM_STAY)
        # who joins while the client's node is taken for dead comes behind its 1002
        wrong = noticed and watching.sure < leaving and not is_excused(history, subject, leaving, willed) and \
            not history.may_be_dead(subject.node, watching.asked, leaving)
    told_at = stay.sure if leaving == INF else leaving
    # while its node was taken for dead another one may have told of it
    told_since = min([told_at] + [fault.begun for fault in history.faults
                                  if subject.node in fault.nodes and fault.begun <= told_at <= fault.recovered])
    return [Violation("notices", ("1001" if leaving == INF else "1002") + " is not the last: " + told, None, watcher, subject)] \
        if wrong and not may_crash(history, watcher.node, told_since, told_at) else []


def is_excused(history, subject, leaving, willed):
    """The 1002 of this leave may be lost."""
    if any(fault.kind == "term" and subject.node in fault.nodes and fault.begun <= leaving + 1.0 and
           any(way.kind in ("redis", "rabbit", "isolate") and way.begun <= leaving + 1.0 and way.ended >= fault.begun + DRAIN_GRACE for way in history.faults)
           for fault in history.faults):
        return True
    if not history.killed(subject.node, leaving - 0.001, INF):
        return False
    if willed and history.killed_telling(subject.node, leaving):
        return True
    lost = any(fault.kind == "redis" and "lost" in fault.text for fault in history.faults)
    teller = any(fault.kind == "kill" and subject.node not in fault.nodes and fault.begun > leaving for fault in history.faults)
    return not willed and (lost or teller)


# --- lists, answers, ends -------------------------------------------------------------------------


def check_list(history, now, node, system, group, ids):
    """A node's answer to get_online_list at a settled point."""
    sure, maybe = set(), set()
    for session in history.sessions:
        stay = session.stay(("group", group)) if session.system == system else None
        if stay and min(stay.gone, session.closed) == INF:
            maybe.add(session.id)
            if stay.sure <= now and min(stay.leaving, session.leaving) == INF:
                sure.add(session.id)
    names = {session.id: "session %d at node %d" % (session.key, session.node) for session in history.sessions}
    missing = [names[id] for id in sure - set(ids)]
    surplus = [names.get(id, id) for id in set(ids) - maybe] + (["somebody twice"] if len(ids) != len(set(ids)) else [])
    return [Violation("lists", "node %d on %s of %s: %s" % (node, group, system, text))
            for text in (["misses %s" % missing] if missing else []) + (["has also %s" % surplus] if surplus else [])]


def check_answers(history):
    found = []
    for call in [*history.sends.values(), *history.calls]:
        limit = ANSWER_MAX + history.lag
        for fault in history.faults:
            end = fault.recovered if fault.kind in ("kill", "term") else fault.ended
            if call.node in fault.nodes and fault.kind in ("freeze", "pause", "kill", "term") and \
                    fault.begun < call.ended and end > call.begun:
                limit += end - max(fault.begun, call.begun)
        if call.ended - call.begun > limit and not getattr(call, "again", False):
            found.append(Violation("answer", "after %.2f s, %s of node %d" % (
                call.ended - call.begun, getattr(call, "name", "send"), call.node), call if isinstance(call, Send) else None))
    return found


def check_closed(history):
    return [Violation("closed", "session %d at node %d was closed with %s at %.3f" % (
        session.key, session.node, session.code, session.closed), None, session)
        for session in history.sessions if session.closed < INF and session.leaving == INF]


def pending(history, now):
    """What is still owed: empty at a settled point."""
    return check_loss(history, now) + check_last_notice(history, now)


def final(history):
    """What no waiting mends."""
    return check_frames(history) + check_denied(history) + check_live(history) + check_order_channel(history) + check_order_client(history) + \
        check_alternation(history) + check_answers(history) + check_closed(history)

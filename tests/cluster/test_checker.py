#!/usr/bin/env python3
"""test_checker.py - made-up histories: one that is right, and one for each way to be wrong. The right one has some
of everything that is tolerated, so that a rule that is too strict shows as well."""
import sys

import checker
from chaos import Returner
from checker import Call, Fault, History, INF, Send, Session, Stay

passed = failed = 0
NOW = 100.0


def expect(name, wanted, violations):
    """The rules that were violated, each once."""
    global passed, failed
    rules = sorted({violation.rule for violation in violations})
    if rules == sorted(wanted):
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL %s (expected %s, got %s)" % (name, wanted, [str(violation) for violation in violations]))


def session(history, key, node=0, opened=1.0, group=True, **more):
    one = Session(key, "id%d" % key, "s", node, opened, **more)
    one.stays["system", ""] = [Stay(opened, opened, one.leaving, one.closed)]
    if group:
        one.stays["group", "g"] = [Stay(opened, opened, one.leaving, one.closed)]
    history.sessions.append(one)
    return one


def send(history, number, begun=10.0, code=0, kind="group", target="g", node=0, took=0.01, **more):
    history.sends[number] = Send(number, kind, "s", target, 1, node, 1, begun, begun + took, code, **more)
    return history.sends[number]


def judge(history):
    return checker.pending(history, NOW) + checker.final(history)


def judge_but_live(history):
    """Where something is unknown, and why does not matter."""
    return [violation for violation in judge(history) if violation.rule != "live"]


def world():
    """Two members and a client of no group, at two nodes; three sends that all members got, one to a single client."""
    history = History()
    a, b, c = session(history, 1), session(history, 2, node=1), session(history, 3, group=False)
    for i in range(3):
        send(history, 11 + i, 10.0 + i)
    send(history, 14, 13.0, kind="client", target=("id2",))
    send(history, 15, 14.0, kind="system", target="")
    a.frames = [(10.1, 11), (11.1, 12), (12.1, 13), (14.1, 15)]
    b.frames = [(10.2, 11), (11.2, 12), (12.2, 13), (13.1, 14), (14.2, 15)]
    c.frames = [(14.2, 15)]
    return history, a, b, c


def fault(history, kind, begun, ended, nodes=(0, 1), text=""):
    history.faults.append(Fault(kind, nodes, begun, ended, ended + 1, text))


def test_right():
    history, a, b, _ = world()
    expect("a right history", [], judge(history))
    history.forget()
    expect("and what follows it", [], judge(history))
    history, a, b, _ = world()
    send(history, 16, 20.0, -1007)
    send(history, 17, 21.0, -1007)
    send(history, 18, 22.0, None, took=3.0)
    b.frames += [(21.2, 17), (22.1, 18)]
    a.frames += [(21.3, 17)]
    fault(history, "link", 19.5, 22.5)
    expect("an unknown send reaches nobody, all, or some", [], judge(history))
    repeated = send(history, 16, 20.0, took=5.0, again=True)
    a.frames = a.frames[:4] + [(21.3, 17), (24.9, 16)]
    b.frames = b.frames[:5] + [(20.1, 16), (21.2, 17), (22.1, 18)]
    expect("one that was repeated has no place in the order", [], judge(history))
    a.frames.pop()
    expect("but must reach all", ["loss"], judge(history))
    a.frames += [(24.8, 16), (24.9, 16)]
    expect("and once", ["twice"], judge(history))
    repeated.again, a.frames = False, a.frames[:-1]
    expect("unlike others", ["answer", "order"], judge(history))
    a.frames = a.frames[:5]
    repeated.code, repeated.ended = -1007, 20.01
    send(history, 19, 30.0, kind="client", target=("id1", "id2"), failed=("id2",))
    a.frames.append((30.1, 19))
    fault(history, "link", 28.0, 29.5)
    expect("who is named as failed gets nothing", [], judge(history))
    history, a, b, _ = world()
    b.stays["group", "g"][0].leaving = 9.0
    b.frames.remove((12.2, 13))
    expect("who may have left may get it or not", [], judge(history))


def test_loss():
    for name, frame in (("group", (11.2, 12)), ("client", (13.1, 14)), ("system", (14.2, 15))):
        history, _, b, _ = world()
        b.frames.remove(frame)
        expect("a lost send to a " + name, ["loss"], judge(history))
    history, _, b, _ = world()
    b.frames.remove((11.2, 12))
    fault(history, "freeze", 10.5, 18.0, (1,))
    fault(history, "rabbit", 11.5, 18.0, text="killed")
    expect("a frozen node and a killed RabbitMQ are no excuse", ["loss"], judge(history))
    history.crash_loses = True
    expect("unless that is tolerated", [], judge(history))
    history.faults[0].ended = history.faults[0].recovered = 11.2
    history.faults[1].begun = 11.8
    expect("it is not if the node had time to read it", ["loss"], judge(history))
    history.faults[1].begun = 11.3
    expect("it is right behind the answer", [], judge(history))
    history, _, b, _ = world()
    b.frames.remove((14.2, 15))
    b.leaving = b.closed = 14.5
    b.willed = True
    b.stays["system", ""][0].leaving = b.stays["group", "g"][0].leaving = 14.5
    b.stays["system", ""][0].gone = b.stays["group", "g"][0].gone = 14.5
    expect("who leaves soon need not get it", [], checker.check_loss(history, NOW))
    b.leaving = b.closed = 30.0
    b.stays["system", ""][0].leaving = 30.0
    expect("who leaves late has to", ["loss"], checker.check_loss(history, NOW))
    fault(history, "rabbit", 20.0, 25.0)
    expect("but for a fault", [], checker.check_loss(history, NOW))
    history, _, b, _ = world()
    b.stays["user", "u"] = [Stay(1.0, 12.0)]
    send(history, 16, 11.0, kind="user", target="u")
    expect("who joins during a send need not get it", [], judge(history))
    send(history, 17, 15.0, kind="user", target="u")
    expect("who has joined before has to", ["loss"], judge(history))


def test_frames():
    history, a, _, _ = world()
    a.frames.append((30.0, 12))
    expect("a repetition", ["twice"], judge(history))
    history, a, _, _ = world()
    send(history, 16, 20.0, -1007)
    a.frames += [(20.5, 16), (20.6, 16)]
    expect("a repetition of what was unknown", ["twice"], judge_but_live(history))
    history, _, _, c = world()
    c.frames.append((30.0, 12))
    expect("a send for others", ["stray"], [v for v in judge(history) if v.rule != "order"])
    history, _, b, _ = world()
    b.stays["group", "g"][0].gone = b.stays["group", "g"][0].leaving = 11.5
    b.frames.pop()
    expect("a send begun after the leave", ["stray"], checker.check_frames(history))
    history, a, _, _ = world()
    a.damaged.append((20.0, b"{"))
    expect("a damaged frame", ["stray"], judge(history))
    history, a, _, _ = world()
    send(history, 16, 20.0, -1003, kind="client", target=("id1",))
    fault(history, "freeze", 15.0, 19.0)
    expect("-1003 of a node that may be dead", [], judge(history))
    a.frames.append((20.1, 16))
    expect("a send that was refused", ["stray"], judge(history))
    history, a, _, _ = world()
    send(history, 16, 20.0, -1003, kind="client", target=("id1",))
    expect("-1003 of who is there", ["denied"], judge(history))
    history, a, _, _ = world()
    send(history, 16, 20.0, 0, kind="client", target=("id1", "id2"), failed=("id1", "id2"))
    expect("and in a list", ["denied"], judge(history))


    history, _, _, _ = world()
    send(history, 16, 20.0, -1007)
    expect("unknown for no reason", ["live"], judge(history))
    fault(history, "link", 17.0, 17.5)
    expect("soon behind a fault", [], judge(history))
    history, _, _, _ = world()
    history.calls.append(Call("bind_to_group", 0, 20.0, 20.1, -1007))
    expect("a bind that fails for no reason", ["live"], judge(history))


def test_ghosts():
    history, _, b, _ = world()
    send(history, 16, 20.0, -1007, "client", ("id2",), took=2.0)
    b.frames.append((22.5, 16))
    expect("an unknown send comes soon", [], judge_but_live(history))
    b.frames[-1] = (24.1, 16)
    fault(history, "freeze", 20.1, 24.0, (1,))
    expect("it comes late, though the node was frozen", ["ghost"], judge(history))
    history.faults[0].kind = "pause"
    expect("but not if its clock stood still", [], judge(history))
    history, _, b, _ = world()
    send(history, 16, 20.0, -1007, took=2.0)
    b.frames.append((40.0, 16))
    expect("a publication comes late", ["ghost"], judge_but_live(history))
    fault(history, "rabbit", 19.0, 30.0)
    expect("still later than the fault allows", ["ghost"], judge(history))
    history.faults[0].recovered = 36.0
    expect("as late as the fault allows", [], judge(history))
    history, a, _, _ = world()
    history.forget()
    a.frames.append((30.0, 12))
    expect("what was settled before comes again", ["ghost"], judge(history))


def test_order():
    history, a, _, _ = world()
    send(history, 12, 10.0)
    a.frames[0:2] = [(10.1, 12), (11.1, 11)]
    expect("two members get two sends in different orders", ["order"], judge(history))
    history, a, b, c = world()
    c.stays["group", "g"] = [Stay(1.0, 1.0)]
    for number in (11, 12, 13):
        send(history, number, 10.0, -1007, node=number, took=0.5)
    a.frames, b.frames, c.frames = [(14.1, 15)], [(14.1, 15)], [(14.1, 15)]
    b.frames.insert(0, (13.1, 14))
    a.frames[0:0] = [(10.1, 11), (10.2, 12)]
    b.frames[0:0] = [(10.1, 12), (10.2, 13)]
    c.frames[0:0] = [(10.1, 13), (10.2, 11)]
    expect("it takes three to contradict each other", ["order"], judge_but_live(history))
    history, _, b, _ = world()
    b.frames[2:4] = [(13.1, 14), (13.2, 13)]
    expect("a client gets calls behind each other's answers in another order", ["order"], judge(history))
    history.sends[14].life = 2
    expect("through another life of the node it may", [], judge(history))
    history, _, b, _ = world()
    history.sends[13].begun = history.sends[14].begun
    history.sends[13].ended = history.sends[14].ended
    b.frames[2:4] = [(13.1, 14), (13.2, 13)]
    expect("calls at the same time may", [], judge(history))
    for text, begun, name, wanted in (("rabbit cut for 3", 12.1, "a call may overtake what a lost RabbitMQ still has", []),
                                      ("rabbit lag 50", 12.1, "not a slow one", ["order"]),
                                      ("rabbit cut for 3", 14.0, "not at once", ["order"])):
        history, _, b, _ = world()
        history.sends[14].begun, history.sends[14].ended = 15.0, 15.1
        b.frames[2:5] = [(15.1, 14), (16.0, 13), (16.1, 15)]
        fault(history, "rabbit", begun, 17.0, text=text)
        expect(name, wanted, [v for v in judge(history) if v.rule == "order"])
    history, a, b, _ = world()
    a.frames.remove((11.1, 12))
    b.frames.remove((10.2, 11))
    expect("with holes as well", ["loss"], judge(history))


def told(codes, leaving=INF, joined=20.0, willed=True, node=1):
    """A watcher from 1.0 on, and what it was told of a client that joined later."""
    history = History()
    watcher = session(history, 1)
    subject = session(history, 2, node, joined, leaving=leaving, closed=leaving, willed=willed)
    watcher.notices["g", "id2"] = list(codes)
    subject.notices["g", "id1"] = []
    return history


def test_notices():
    ON, OFF = 1001, 1002
    expect("1001 of who is there", [], judge(told([ON])))
    expect("1001 and 1002 of who has left", [], judge(told([ON, OFF], 30.0)))
    expect("no 1001 of who is there", ["notices"], judge(told([])))
    expect("1002 of who is there", ["notices"], judge(told([ON, OFF])))
    expect("no 1002 of who has left", ["notices"], judge(told([ON], 30.0)))
    expect("neither of a calm stay", ["notices"], judge(told([], 30.0)))
    expect("neither of who came and went", [], judge(told([], 20.5)))
    expect("1001 twice", ["notices"], judge(told([ON, ON])))
    expect("1002 twice", ["notices"], judge(told([ON, OFF, OFF], 30.0)))
    expect("told to have left and come back for no reason", ["notices"], judge(told([ON, OFF, ON])))
    history = told([ON, OFF, ON])
    fault(history, "freeze", 25.0, 32.0, (1,))
    expect("the same of a node that was taken for dead", [], judge(history))
    history = told([ON, OFF, ON])
    fault(history, "freeze", 25.0, 32.0, (0,))
    expect("not because another was", ["notices"], judge(history))
    history = told([ON], 30.0)
    fault(history, "kill", 30.5, 31.0, (1,))
    expect("a 1002 that its node took along", [], judge(history))
    for begun, name, wanted in ((30.2, "the 1002 of an unbind that its node took along", []),
                                (33.0, "not of an unbind long before", ["notices"])):
        history = told([ON], begun, willed=False)
        history.sessions[1].stays["group", "g"][0].leaving = history.sessions[1].stays["group", "g"][0].gone = 30.0
        fault(history, "kill", begun, begun + 1.0, (1,))
        expect(name, wanted, judge(history))
    for begun, ended, killed, name, wanted in ((30.1, 34.0, 33.0, "of an unbind that Redis had not answered yet", []),
                                               (30.1, 33.0, 34.0, "nor told when its node was killed", []),
                                               (30.1, 31.0, 36.0, "not if there was time to tell of it", ["notices"]),
                                               (32.0, 36.0, 33.0, "nor if Redis stood still only later", ["notices"])):
        history = told([ON], 30.0)
        fault(history, "redis", begun, ended)
        fault(history, "kill", killed, killed + 1.0, (1,))
        expect(name, wanted, judge(history))
    for kind, ended, name, wanted in (("redis", 32.5, "a node that stops while Redis stays away", []),
                                      ("rabbit", 32.5, "while RabbitMQ does", []),
                                      ("redis", 31.0, "it waits for a Redis that comes back", ["notices"])):
        history = told([ON], 30.0)
        fault(history, kind, 29.9, ended)
        fault(history, "term", 29.95, 33.0, (1,))
        expect(name, wanted, judge(history))
    history = told([ON], 30.0)
    fault(history, "kill", 33.0, 34.0, (1,))
    expect("not if it was killed later", ["notices"], judge(history))
    for begun, name, wanted in ((20.6, "1002 twice of who joined as its node was killed", []),
                                (22.0, "not if it was killed later than that", ["notices"])):
        history = told([ON, OFF, OFF], begun, willed=False)
        fault(history, "kill", begun, begun + 1.0, (1,))
        expect(name, wanted, judge(history))
    history = told([ON], 30.0, willed=False)
    fault(history, "kill", 30.0, 31.0, (1,))
    expect("who died with its node has to be told of", ["notices"], judge(history))
    fault(history, "kill", 33.0, 34.0, (2,))
    expect("unless who tells is killed as well", [], judge(history))
    history = told([ON], 30.0, willed=False)
    fault(history, "kill", 30.0, 31.0, (1,))
    fault(history, "redis", 29.0, 30.0, (0, 1), "lost")
    expect("or Redis has lost who was there", [], judge(history))
    history = told([], 30.0)
    fault(history, "redis", 20.5, 29.0, (1,))
    expect("a stay that a fault has hidden", [], judge(history))
    history = told([OFF], 30.0)
    history.sessions[1].stays["group", "g"][0] = Stay(0.5, 0.6, 30.0, 30.0)
    expect("1002 of who was there before the watcher", [], judge(history))
    history.sessions[0].notices.clear()
    expect("it has to come", ["notices"], judge(history))
    history = told([ON])
    history.sessions[0].notices["g", "id9"] = [OFF]
    expect("a notice of who is long gone", ["notices"], judge(history))
    history = told([ON])
    history.forget()
    history.sessions[0].notices["g", "id2"].append(ON)
    expect("1001 again behind a settled point", ["notices"], judge(history))


def test_rest():
    history, _, _, _ = world()
    wanted = [("all members", ["id1", "id2"], []), ("one is missing", ["id1"], ["lists"]),
              ("one is no member", ["id1", "id2", "id3"], ["lists"]), ("one stands twice", ["id1", "id2", "id2"], ["lists"])]
    for name, ids, rules in wanted:
        expect("a list: " + name, rules, checker.check_list(history, NOW, 0, "s", "g", ids))
    history.sessions[1].stays["group", "g"][0].leaving = 50.0
    for ids in (["id1"], ["id1", "id2"]):
        expect("a list: one may be a member", [], checker.check_list(history, NOW, 0, "s", "g", ids))
    history, _, _, _ = world()
    history.calls.append(Call("client_info", 0, 20.0, 22.5, -1007))
    expect("an answer in time", [], judge_but_live(history))
    history.calls.append(Call("client_info", 0, 20.0, 24.0, -1007))
    expect("a late answer", ["answer"], judge_but_live(history))
    fault(history, "freeze", 20.5, 23.0, (0,))
    expect("of a node that was frozen", [], judge(history))
    history.faults = [Fault("kill", (0,), 15.0, 20.0, 23.0)]
    expect("of a node that starts", [], judge_but_live(history))
    history, _, b, _ = world()
    b.closed = 50.0
    b.stays["group", "g"][0].gone = b.stays["system", ""][0].gone = 50.0
    expect("a session is closed for no reason", ["closed"], [v for v in judge(history) if v.rule != "notices"])


def test_returners():
    """Of four sends in a row the second was answered with -1007: it may be missing, or come late."""
    cases = [("in order", [1, 2, 3, 4], True, 0), ("without what may be missing", [1, 3, 4], True, 0),
             ("what may be missing, late", [1, 3, 2, 4], True, 0), ("one is missing", [1, 2, 4], True, 1),
             ("with a gap", [1, 2, 4], False, 0), ("one twice", [1, 2, 3, 3, 4], True, 1), ("late, and twice", [1, 3, 2, 2], True, 1),
             ("out of order", [1, 2, 4, 3], False, 1), ("all again", [1, 2, 3, 4, 1], True, 1)]
    for name, numbers, recovered, wrong in cases:
        one = Returner(0, History())
        one.calls = [(code, NOW + at, NOW + at) for at, code in enumerate((0, -1007, 0, 0))]
        one.on_first(None, {"clientId": "a", "resume": "k"})
        for number in numbers:
            if number == numbers[-1]:
                one.on_first(None, {"clientId": "a", "resume": "l", "resumed": True, "recovered": recovered})
            one.on_text(NOW, b'{"code":%d,"msg":"resume","data":0}' % number)
        expect("who comes back: " + name, ["resume"] if wrong else [], [checker.Violation("resume", text, NOW) for text in one.found])


for test in (test_right, test_loss, test_frames, test_ghosts, test_order, test_notices, test_rest, test_returners):
    test()
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)

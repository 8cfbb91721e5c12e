#!/usr/bin/env python3
"""roster.py SYSTEM TOKEN PORT... - pages through the clients and groups of nodes while others come and go, and compares
counts with lists. Prints a line for each check: what it is, what must be, what is, with tabs between them."""
import asyncio
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../cluster"))
import net  # pylint: disable=wrong-import-position

GROUPS = 500  # that stay, with one client or two on different nodes
CLIENTS = 90  # that stay
CALLERS = 16
SYSTEM, TOKEN, PORTS = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]


def check(name, expected, actual):
    print("%s\t%s\t%s" % (name, expected, actual), flush=True)


async def ask(caller, name, **fields):
    answer = await caller.call(name, TOKEN, json.dumps(fields).encode())
    if answer is None or answer["code"] != 0:
        raise SystemExit("%s %s: %s" % (name, fields, answer))
    return answer["data"]


async def pages(caller, name, limit, **fields):
    """All entries of a list, page by page; how many pages; whether one was incomplete or too long."""
    entries, after, count, flaw = [], "", 0, False
    while count == 0 or after:
        data = await ask(caller, name, limit=limit, after=after, **fields)
        page = data["groups" if name == "list_groups" else "clients"]
        entries += page
        flaw = flaw or data.get("incomplete", False) or len(page) > limit or count > 5000
        after, count = data["next"], count + 1
    return entries, count, flaw


async def connect(port):
    return await net.Client.connect(port, SYSTEM, lambda *_: None, lambda *_: None)


async def work(todo):
    caller = {port: net.Caller(port) for port in PORTS}
    while todo:
        port, name, fields = todo.pop()
        await ask(caller[port], name, **fields)


async def do_all(todo):
    await asyncio.gather(*(work(todo) for _ in range(CALLERS)))


async def churn(port, stopped):
    """Clients that come, join groups that come and go with them, and leave."""
    caller, number = net.Caller(port), 0
    while not stopped.is_set():
        clients = [await connect(port) for _ in range(3)]
        for client in clients:
            for _ in range(5):
                number += 1
                await ask(caller, "bind_to_group", clientId=client.id, userId="u%d" % (number % 7),
                          groupName="x%d.%d" % (port, number))
        await ask(caller, "unbind_from_group", clientId=clients[0].id, groupName="x%d.%d" % (port, number))
        for client in clients:
            client.close()


def times(entries, key, names):
    """How often each of the names is in a list: the counts that there are."""
    count = {}
    for entry in entries:
        count[entry[key]] = count.get(entry[key], 0) + 1
    return sorted({count.get(name, 0) for name in names})


async def while_others_change(ids):
    groups, callers = ["g%d" % i for i in range(GROUPS)], [net.Caller(port) for port in PORTS]
    for turn, limit in enumerate((1000, 41)):
        caller = callers[turn % len(callers)]
        entries, _, flaw = await pages(caller, "list_groups", limit)
        check("groups that stay, %d a page" % limit, "[1] False", "%s %s" % (times(entries, "groupName", groups), flaw))
        entries, _, flaw = await pages(caller, "list_clients", limit)
        check("clients that stay, %d a page" % limit, "[1] False", "%s %s" % (times(entries, "clientId", ids), flaw))
    entries, _, _ = await pages(callers[-1], "list_groups", 7, prefix="g1")
    named = [name for name in groups if name.startswith("g1")]
    check("groups with a prefix", "[1] True", "%s %s" % (times(entries, "groupName", named), len(entries) == len(named)))
    entries, _, _ = await pages(callers[0], "list_clients", 7, groupName="all", userId="stays")
    check("clients of a group and a user", "[1] %d" % len(ids), "%s %d" % (times(entries, "clientId", ids), len(entries)))


async def at_rest(clients):
    for port in PORTS:
        caller = net.Caller(port)
        listed, _, _ = await pages(caller, "list_groups", 300)
        names = [entry["groupName"] for entry in listed] + ["nobody's"]
        count = await ask(caller, "count", system=True, groupNames=names, userIds=["stays", "nobody"])
        check("counts of groups are those of the list",
              True, count["groups"] == dict({entry["groupName"]: entry["clients"] for entry in listed}, **{"nobody's": 0}))
        check("groups, and memberships", "%d %d" % (GROUPS + 1, GROUPS * 4 // 3 + CLIENTS),
              "%d %d" % (len(listed), sum(count["groups"].values())))
        people, number, _ = await pages(caller, "list_clients", 10, groups=True)
        check("clients", sorted(client.id for client in clients) == sorted(entry["clientId"] for entry in people),
              count["system"] == len(people) == CLIENTS)
        check("no more pages than needed", True, number <= CLIENTS // 10 + len(PORTS))
        check("a user's", {"stays": CLIENTS, "nobody": 0}, count["users"])
        check("groups of the clients", sum(count["groups"].values()), sum(len(entry["groups"]) for entry in people))
        online = await ask(caller, "get_online_list", groupName="g0")
        entries, _, _ = await pages(caller, "list_clients", 1, groupName="g0")
        check("a group's list", sorted(online["list"]), sorted(entry["clientId"] for entry in entries))


async def main():
    random.seed(1)
    clients = [await connect(PORTS[i % len(PORTS)]) for i in range(CLIENTS)]
    ids, stopped, caller = [client.id for client in clients], asyncio.Event(), net.Caller(PORTS[-1])
    todo = [(random.choice(PORTS), "bind_to_group", {"clientId": ids[i % CLIENTS], "groupName": "g%d" % i})
            for i in range(GROUPS)]
    todo += [(random.choice(PORTS), "bind_to_group", {"clientId": ids[(i + 1) % CLIENTS], "groupName": "g%d" % i})
             for i in range(0, GROUPS - 2, 3)]
    await do_all([(random.choice(PORTS), "bind_to_group", {"clientId": name, "groupName": "first", "userId": "stays"})
                  for name in ids])
    await do_all(todo)
    bound = await ask(caller, "bind_user_to_group", userId="stays", groupName="all")
    check("all clients of a user are bound", {"matched": CLIENTS, "queued": CLIENTS, "dropped": 0}, bound)
    bound = await ask(caller, "unbind_user_from_group", userId="stays", groupName="first")
    check("and unbound", {"matched": CLIENTS, "queued": CLIENTS, "dropped": 0}, bound)
    others = [asyncio.ensure_future(churn(port, stopped)) for port in PORTS]
    await while_others_change(ids)
    stopped.set()
    await asyncio.gather(*others)
    for _ in range(100):
        if (await ask(caller, "count", system=True))["system"] == CLIENTS:
            break
        await asyncio.sleep(0.1)
    await at_rest(clients)
    closed = await ask(caller, "close_user", userId="stays", code=4000, reason="elsewhere", **{"except": [ids[5]]})
    check("all clients of a user but one are closed", {"closed": CLIENTS - 1}, closed)
    for _ in range(100):
        if sum(client.code == 4000 for client in clients) == CLIENTS - 1:
            break
        await asyncio.sleep(0.1)
    check("with the code", [4000, None], [clients[4].code, clients[5].code])
    check("the other one stays", {"stays": 1}, (await ask(caller, "count", userIds=["stays"]))["users"])


asyncio.run(main())
os._exit(0)

"""faults.py - what the chaos test does to the world: each fault is drawn from a seeded generator, begins, lasts, and is
healed. Two of them may overlap if they touch different things."""
import asyncio
import signal
import time

from checker import Fault, INF
from world import START_MAX, Broken, wait_until


KINDS = {"node_stands": 4, "node_dies": 4, "node_is_alone": 2, "rabbit_dies": 3, "rabbit_stands": 1, "queue_goes": 2,
         "redis_dies": 2, "redis_stands": 1, "redis_forgets": 1, "way_fails": 6, "link_fails": 3, "nothing": 1}  # and how often


class Drawn:
    """A fault that has been drawn: `touches` is what no other may touch meanwhile."""

    def __init__(self, kind, text, nodes, touches, seconds, begin, heal):
        self.kind, self.text, self.nodes, self.touches = kind, text, tuple(nodes), set(touches)
        self.seconds, self.begin, self.heal = seconds, begin, heal

    def __str__(self):
        return "%s, %.1f s" % (self.text, self.seconds)


def number(drawn):
    return ["n%d" % node for node in drawn]


class Faults:
    def __init__(self, world, history, on_end_of_node, only=""):
        self.world, self.history, self.on_end_of_node = world, history, on_end_of_node
        names = only.split(",") if only else [name for name in KINDS if world.shim or name != "link_fails"]
        self.kinds, self.weights = [getattr(self, name) for name in names], [KINDS[name] for name in names]

    def draw(self, rng, beside=None):
        """A fault; one that can be beside another, or None if there is none."""
        for _ in range(100):
            drawn = rng.choices(self.kinds, self.weights)[0](rng)
            if not beside or not drawn.touches & beside.touches:
                return drawn
        return None

    async def run(self, drawn, after=0.0):
        """Lets a fault begin, last, and be healed."""
        await asyncio.sleep(after)
        fault = Fault(drawn.kind, drawn.nodes, time.monotonic(), text=drawn.text)
        if drawn.kind != "none":
            self.history.faults.append(fault)
        await drawn.begin()
        try:
            await asyncio.sleep(drawn.seconds)
        finally:
            await drawn.heal()
            fault.ended = time.monotonic()

    def some_node(self, rng):
        return rng.choice(self.world.nodes)

    def nothing(self, rng):
        """No fault, to see what is wrong without one."""
        async def nought():
            pass

        return Drawn("none", "no fault", [], [], rng.uniform(1, 3), nought, nought)

    # --- nodes ------------------------------------------------------------------------------------

    def node_stands(self, rng):
        """A node is frozen, as by a swapping machine; or paused, so that its clock stands still as well."""
        node, world = self.some_node(rng), self.world
        paused = bool(world.shim) and rng.random() < 0.4
        seconds = rng.choice([rng.uniform(0.2, 1.5), rng.uniform(1.5, world.ttl), rng.uniform(world.ttl, world.ttl + 4)])

        async def begin():
            node.freeze()

        async def heal():
            if paused:
                node.shift(node.behind + int(seconds * 1000))
            node.thaw()

        kind = "pause" if paused else "freeze"
        return Drawn(kind, "%s of node %d" % (kind, node.number), [node.number], number([node.number]), seconds, begin, heal)

    def node_dies(self, rng):
        """A node is killed, or stopped in good order, and starts again."""
        node, term = self.some_node(rng), rng.random() < 0.4
        seconds = rng.choice([0.0, rng.uniform(0, 2), rng.uniform(self.world.ttl, self.world.ttl + 3)])

        async def begin():
            self.on_end_of_node(node)
            node.signal(signal.SIGTERM if term else signal.SIGKILL)
            if not await wait_until(lambda: not node.runs(), 25):
                raise Broken("node %d does not end" % node.number)
            if term and node.proc.returncode != 0:
                raise Broken("node %d ended with %d" % (node.number, node.proc.returncode))

        async def heal():
            node.shift(0)
            node.launch()

        kind = "term" if term else "kill"
        return Drawn(kind, "%s of node %d" % (kind, node.number), [node.number], number([node.number]), seconds, begin, heal)

    def node_is_alone(self, rng):
        """A node is cut off from everything but its clients."""
        node = self.some_node(rng)
        names = ["n%d.%s" % (node.number, way) for way in node.ways] + \
            ["n%d.n%d" % (other.number, node.number) for other in self.world.nodes if other is not node]
        mode = rng.choice(["hold", "hold", "cut"])
        seconds = rng.choice([rng.uniform(0.5, 2.5), rng.uniform(self.world.ttl, self.world.ttl + 4)])
        return self.ways_fail("isolate", "node %d alone (%s)" % (node.number, mode), mode, names, [node.number],
                              ["redis", "rabbit", "links", *number([node.number])], seconds)

    # --- Redis and RabbitMQ ---------------------------------------------------------------------------

    def everybody(self):
        return [node.number for node in self.world.nodes]

    def restart(self, kind, process, seconds):
        async def begin():
            process.kill()

        async def heal():
            process.launch()
            if not await wait_until(process.answers, START_MAX):
                raise Broken(kind + " does not start again")

        return Drawn(kind, kind + " killed", self.everybody(), [kind], seconds, begin, heal)

    def stand(self, kind, process, seconds):
        async def begin():
            process.freeze()

        async def heal():
            process.thaw()

        return Drawn(kind, kind + " frozen", self.everybody(), [kind], seconds, begin, heal)

    def rabbit_dies(self, rng):
        return self.restart("rabbit", self.world.rabbit, rng.uniform(0, 1.0))

    def rabbit_stands(self, rng):
        return self.stand("rabbit", self.world.rabbit, rng.uniform(0.3, 5.0))

    def redis_dies(self, rng):
        return self.restart("redis", self.world.redis, rng.choice([0.0, rng.uniform(0, 2), rng.uniform(3, 6)]))

    def redis_stands(self, rng):
        return self.stand("redis", self.world.redis, rng.uniform(0.3, 6.0))

    def redis_forgets(self, rng):
        async def begin():
            self.world.redis.forget()

        async def heal():
            pass

        return Drawn("redis", "redis lost data", self.everybody(), ["redis"], rng.uniform(0.5, 2), begin, heal)

    def queue_goes(self, rng):
        async def begin():
            if not await self.world.rabbit.delete_order_queues():
                raise Broken("there are no order queues")

        async def heal():
            pass

        return Drawn("rabbit", "order queues deleted", self.everybody(), ["rabbit"], rng.uniform(0.5, 2), begin, heal)

    # --- ways ---------------------------------------------------------------------------------------

    def ways_fail(self, kind, text, mode, names, nodes, touches, seconds):
        async def begin():
            self.world.way(mode, *names)

        async def heal():
            self.world.way("pass", *names)

        return Drawn(kind, text, nodes, touches, seconds, begin, heal)

    def way_fails(self, rng):
        """The ways to Redis or RabbitMQ are cut, slow, or a black hole: of one node or of all."""
        kind = rng.choice(["redis", "rabbit", "rabbit"])
        nodes = rng.choice([self.everybody(), [self.some_node(rng).number]])
        mode = rng.choice(["cut", "hold", "deaf", "lag %d" % rng.randint(20, 700)])
        seconds = rng.choice([0.1, rng.uniform(0.5, 2.5), rng.uniform(3, 6)])
        return self.ways_fail(kind, "%s %s for %s" % (kind, mode, number(nodes)), mode,
                              ["n%d.%s" % (node, kind) for node in nodes], nodes, [kind], seconds)

    def link_fails(self, rng):
        """The link between two nodes is cut, slow, a black hole, or deaf in one direction."""
        a, b = rng.sample(self.everybody(), 2)
        mode = rng.choice(["cut", "hold", "deaf", "lag %d" % rng.randint(20, 500)])
        return self.ways_fail("link", "link of %s %s" % (number([a, b]), mode), mode,
                              ["n%d.n%d" % (a, b), "n%d.n%d" % (b, a)], [a, b], ["links"], rng.uniform(0.1, 4.0))


def mark_recovered(history):
    now = time.monotonic()
    for fault in history.faults:
        if fault.recovered == INF:
            fault.recovered = now

"""world.py - what the chaos test runs: Redis, RabbitMQ, nodes, and ways between all of them that can be cut.

All of it listens on 127.0.0.1, on free ports from `base` on, keeps its files in one folder, and is ended by
process id. Nodes reach Redis and RabbitMQ over ways of their own, and each other through
tests/support/preload.c, which is loaded before the node: so a link between two nodes has a way of its own as well, and
a node's clock can be set back."""
import asyncio
import contextlib
import glob
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import net

HERE = os.path.dirname(os.path.abspath(__file__))
START_MAX = 90.0  # seconds for Redis, RabbitMQ and nodes to start on a busy machine


class Broken(Exception):
    """What the test needs is missing, or does not start."""


async def wait_until(check, seconds, step=0.05):
    """Calls `check` until it is true; false after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return True
        if time.monotonic() > end:
            return False
        await asyncio.sleep(step)


def accepts(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 0.3).close()
        return True
    return False


class Process:
    """A process of ours, and what signals do to it. A group of its own, which ends as one."""

    def __init__(self):
        self.proc, self.frozen = None, False

    def spawn(self, words, out, env=None, err=None):
        with open(out, "ab") as stdout, open(err or out, "ab") as stderr:
            self.proc = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env,
                                         start_new_session=True)
        self.frozen = False

    def runs(self):
        return self.proc is not None and self.proc.poll() is None

    def signal(self, number):
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.proc.pid, number)

    def freeze(self):
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self):
        if self.frozen:
            self.signal(signal.SIGCONT)
        self.frozen = False

    def kill(self):
        """Ends it, and waits for that."""
        self.signal(signal.SIGKILL)
        self.frozen = False
        return self.proc.wait() if self.proc else None


class Redis(Process):
    def __init__(self, port, folder):
        super().__init__()
        self.port, self.folder = port, folder
        os.makedirs(folder)

    def launch(self):
        self.spawn(["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder, "--save", "",
                    "--appendonly", "yes", "--appendfsync", "always"], self.folder + "/out")

    def call(self, *words):
        """The beginning of a command's answer; None if there is none."""
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
                sock.settimeout(2)
                sock.sendall(b"*%d\r\n" % len(words) +
                             b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words)))
                return sock.recv(65536)
        return None

    def answers(self):
        return self.call("PING") == b"+PONG\r\n"

    def forget(self):
        """Loses all but the accounts, as a failover to a replica that was behind does."""
        self.call("EVAL", "for _, key in ipairs(redis.call('keys', '*')) do "
                          "if not key:find('accounts') then redis.call('del', key) end end", "0")


class Rabbit(Process):
    """RabbitMQ, with an epmd of its own. Not by Debian's wrappers, which become another user."""

    def __init__(self, port, dist, epmd_port, folder):
        super().__init__()
        self.port, self.dist, self.epmd_port, self.folder, self.epmd = port, dist, epmd_port, folder, Process()
        self.queues = []
        os.makedirs(folder)
        with open(folder + "/plugins", "w", encoding="ascii") as file:
            file.write("[].\n")

    @staticmethod
    def tool(name):
        for place in glob.glob("/usr/lib/rabbitmq/bin/" + name) + \
                glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/" + name):
            if os.access(place, os.X_OK):
                return place
        return shutil.which(name)

    def env(self):
        base, loopback = self.folder, "-kernel inet_dist_use_interface {127,0,0,1}"
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": base, "ERL_EPMD_ADDRESS": "127.0.0.1",
                "ERL_EPMD_PORT": str(self.epmd_port), "RABBITMQ_NODENAME": "chaos@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
                "RABBITMQ_DIST_PORT": str(self.dist), "RABBITMQ_MNESIA_BASE": base + "/mnesia",
                "RABBITMQ_LOG_BASE": base + "/log", "RABBITMQ_CONF_ENV_FILE": base + "/none.env",
                "RABBITMQ_CONFIG_FILE": base + "/none", "RABBITMQ_CONFIG_FILES": base + "/none.d",
                "RABBITMQ_ADVANCED_CONFIG_FILE": base + "/none.config",
                "RABBITMQ_ENABLED_PLUGINS_FILE": base + "/plugins",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                    "-start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none " + loopback,
                "RABBITMQ_CTL_ERL_ARGS": loopback, "detached": "1"}

    def launch(self):
        if not self.epmd.runs():
            self.epmd.spawn(["epmd", "-address", "127.0.0.1", "-port", str(self.epmd_port)], self.folder + "/epmd")
        self.spawn([self.tool("rabbitmq-server")], self.folder + "/out", self.env())

    async def answers(self):
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"AMQP\0\0\x09\x01")
            first = await asyncio.wait_for(reader.read(1), 2)
            writer.close()
            return first == b"\x01"
        return False

    async def ctl(self, *words):
        """What rabbitmqctl prints. It takes a second or two, and gives up after 20."""
        proc = await asyncio.create_subprocess_exec(
            self.tool("rabbitmqctl"), "-q", "-t", "20", *words, env=self.env(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        return (await proc.communicate())[0].decode(errors="replace")

    async def delete_order_queues(self):
        """Deletes the order queues, as a policy or an operator may."""
        if not self.queues:
            self.queues = [name for name in (await self.ctl("list_queues", "name")).split("\n") if ".order" in name]
        frames = [(0, 10, 11, b"\0\0\0\0" + short("PLAIN") + long("\0guest\0guest") + short("en_US")),
                  (0, 10, 31, struct.pack(">HIH", 1, 131072, 0)), (0, 10, 40, short("/") + b"\0\0"), (1, 20, 10, b"\0")]
        frames += [(1, 50, 40, b"\0\0" + short(name) + b"\0") for name in self.queues] + [(0, 10, 50, b"\0" * 7)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"AMQP\0\0\x09\x01")
        for channel, kind, method, arguments in frames:
            text = struct.pack(">HH", kind, method) + arguments
            writer.write(struct.pack(">BHI", 1, channel, len(text)) + text + b"\xce")
        answer = b""
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            answer = await asyncio.wait_for(reader.readuntil(struct.pack(">HH", 10, 51)), 10)  # connection.close-ok
        writer.close()
        return answer.count(struct.pack(">IHH", 8, 50, 41))  # queue.delete-ok


def short(text):
    return bytes([len(text)]) + text.encode()


def long(text):
    return struct.pack(">I", len(text)) + text.encode()


class Node(Process):
    def __init__(self, world, number):
        super().__init__()
        self.world, self.number, self.life = world, number, 0
        self.port, self.rpc, self.admin = world.take(), world.take(), world.take()
        self.folder = "%s/n%d" % (world.folder, number)
        os.makedirs(self.folder)
        self.clock = self.folder + "/clock"
        self.shift(0)
        self.ways, self.behind, self.peak = {}, 0, 0  # ports by what they lead to; ms of the clock; KiB

    def shift(self, milliseconds):
        """The clock is behind by so much, from the next reading on."""
        self.behind = milliseconds
        mode = "r+b" if os.path.exists(self.clock) else "wb"
        with open(self.clock, mode) as file:
            file.write(struct.pack("q", milliseconds))

    def configure(self):
        sections = {
            "common": {"host": "127.0.0.1", "port": self.port, "cluster": "true", "crypto_key": "0123456789abcdef",
                       "data_dir": self.folder + "/data", "drain": 0.3},
            "redis": {"port": self.ways["redis"]}, "rabbitmq": {"port": self.ways["rabbit"]},
            "cluster": {"advertise": "127.0.0.1", "rpc_port": self.rpc, "node_ttl": self.world.ttl},
            "admin": {"listen": "127.0.0.1:%d" % self.admin}, "log": {"level": "debug", "file": self.folder + "/log"}}
        with open(self.folder + "/config.ini", "w", encoding="ascii") as file:
            for section, keys in sections.items():
                file.write("[%s]\n%s\n" % (section, "".join("%s = %s\n" % pair for pair in keys.items())))

    def launch(self):
        env = {key: value for key, value in os.environ.items() if not key.startswith("WSPUSH_")}
        quick = "verify_asan_link_order=0:detect_leaks=1:malloc_context_size=4:quarantine_size_mb=4:" \
                "thread_local_quarantine_size_kb=64"
        env["ASAN_OPTIONS"] = quick
        env["UBSAN_OPTIONS"] = "print_stacktrace=1"
        env["TSAN_OPTIONS"] = "halt_on_error=1"
        if self.world.shim:
            env["LD_PRELOAD"] = self.world.shim
            env["PRELOAD_PORTS"] = ",".join("%d:%d" % (other.rpc, self.ways["n%d" % other.number])
                                     for other in self.world.nodes if other is not self)
            env["PRELOAD_CLOCK"] = self.clock
        self.life += 1
        self.spawn([self.world.binary, "-c", self.folder + "/config.ini"], self.folder + "/stdout", env,
                   self.folder + "/stderr")

    async def ready(self):
        return (await net.get(self.admin, "/readyz"))[0] == 200

    def memory(self):
        """KiB that it has now."""
        with contextlib.suppress(OSError, AttributeError):
            with open("/proc/%d/status" % self.proc.pid, encoding="ascii") as file:
                for line in file:
                    if line.startswith("VmRSS:"):
                        return int(line.split()[1])
        return 0

    def printed(self):
        """What it has written to stdout and stderr: nothing, if all is well."""
        text = ""
        for name in ("stdout", "stderr"):
            with contextlib.suppress(OSError):
                with open("%s/%s" % (self.folder, name), errors="replace") as file:
                    text += file.read(8000)
        return text


class World:
    def __init__(self, binary, folder, count, base, ttl):
        self.binary, self.folder, self.ttl, self.port = os.path.abspath(binary), folder, ttl, base
        self.shim = self.build_shim()
        self.redis = Redis(self.take(), folder + "/redis")
        self.rabbit = Rabbit(self.take(), self.take(), self.take(), folder + "/rabbit")
        self.nodes = [Node(self, i) for i in range(count)]
        self.proxy, self.ways = None, []

    def take(self):
        """A free port."""
        while True:
            self.port += 1
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", self.port))
                return self.port

    def build_shim(self):
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        shim = self.folder + "/preload.so"
        words = [*(compiler or "cc").split(), "-std=c11", "-D_XOPEN_SOURCE=700", "-shared", "-fPIC", "-o", shim,
                 os.path.join(HERE, "../support/preload.c")]
        return shim if compiler and subprocess.run(words, check=False).returncode == 0 else None

    def open_ways(self):
        words = []
        for node in self.nodes:
            targets = {"redis": self.redis.port, "rabbit": self.rabbit.port}
            targets.update({"n%d" % other.number: other.rpc for other in self.nodes if other is not node})
            for name, target in targets.items():
                node.ways[name] = self.take()
                self.ways.append("n%d.%s" % (node.number, name))
                words.append("%s:%d:%d" % (self.ways[-1], node.ways[name], target))
        self.proxy = subprocess.Popen([sys.executable, "-B", HERE + "/proxy.py", *words], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, start_new_session=True)
        if self.proxy.stdout.readline() != b"ready\n":
            raise Broken("the ways do not open")

    def way(self, mode, *names):
        """Has ways, by their names, pass, hold, ... what comes."""
        for name in names:
            what, *lag = mode.split()
            self.proxy.stdin.write(" ".join([what, name, *lag]).encode() + b"\n")
            self.proxy.stdin.flush()
            self.proxy.stdout.readline()

    async def start(self):
        for tool in ("redis-server", "epmd", "erl"):
            if not shutil.which(tool):
                raise Broken(tool + " is missing: run make test-deps")
        if not self.rabbit.tool("rabbitmq-server"):
            raise Broken("rabbitmq-server is missing: run make test-deps")
        self.redis.launch()
        self.rabbit.launch()
        self.open_ways()
        if not await wait_until(self.redis.answers, START_MAX) or not await wait_until(self.rabbit.answers, START_MAX):
            raise Broken("Redis or RabbitMQ does not start")
        for node in self.nodes:
            node.configure()
            node.launch()
        if not await self.await_ready(START_MAX):
            raise Broken("the nodes do not become ready")

    async def await_ready(self, seconds):
        async def check():
            return all(await asyncio.gather(*(node.ready() for node in self.nodes)))

        return await wait_until(check, seconds, 0.1)

    async def stop(self):
        """Ends everything; returns the statuses of the nodes."""
        for node in self.nodes:
            node.thaw()
            node.signal(signal.SIGTERM)
        await wait_until(lambda: not any(node.runs() for node in self.nodes), 20)
        statuses = [node.kill() if node.proc else None for node in self.nodes]
        for process in (self.rabbit, self.redis, self.rabbit.epmd):
            process.kill()
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        return statuses

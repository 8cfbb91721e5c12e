#!/usr/bin/env python3
"""proxy.py - TCP ways that can be cut, held and slowed.

Each argument is a way: NAME:LISTEN:TARGET, two ports of 127.0.0.1. Prints `ready` once all listen, then reads
commands from stdin, a line each, and answers each with `done`; it ends with its input.

  pass NAME       bytes go through
  hold NAME       nothing goes through, in both directions; new connections wait: a black hole
  deaf NAME       nothing comes back from the target; the other direction goes on
  cut NAME        resets all connections and every new one
  lag NAME MS     bytes go through MS later, in order
  to NAME PORT    leads to another target, from the next connection on
  record NAME FILE    what comes for the target is appended to FILE from here on

Nobody here speaks half-closed TCP, so the end of one side ends both, behind what was sent before it.
"""
import asyncio
import collections
import os
import socket
import struct
import sys

HIGH = 4 << 20  # bytes that wait for one side; then the other is not read


class Side(asyncio.Protocol):
    """One of the two connections of a pair: reads, and has `other` write."""

    def __init__(self, way, other=None):
        self.way, self.other, self.back = way, other, other is not None
        self.transport, self.queue, self.bytes, self.timer, self.ended = None, collections.deque(), 0, None, False
        self.start = None

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.way.sides.add(self)
        if self.way.mode == "cut":
            self.reset()
        elif not self.back:
            self.start = asyncio.ensure_future(self.reach())

    async def reach(self):
        """Connects to the target, once the way is no black hole."""
        while self.way.mode == "hold":
            await asyncio.sleep(0.02)
        try:
            _, self.other = await asyncio.get_running_loop().create_connection(
                lambda: Side(self.way, self), "127.0.0.1", self.way.target)
        except OSError:
            self.reset()
            return
        if self.transport.is_closing():
            self.other.reset()
        self.pump()

    def data_received(self, data):
        if self.way.record and not self.back:
            self.way.record.write(data)
        self.queue.append((asyncio.get_running_loop().time() + self.way.lag, data))
        self.bytes += len(data)
        self.pump()
        if self.bytes > HIGH and not self.transport.is_closing():
            self.transport.pause_reading()

    def pump(self):
        """Passes on what is due, unless the way is held in this direction."""
        if not self.other or not self.other.transport or self.way.mode in ("hold", "deaf" if self.back else ""):
            return
        loop = asyncio.get_running_loop()
        while self.queue and self.queue[0][0] <= loop.time():
            data = self.queue.popleft()[1]
            self.bytes -= len(data)
            if not self.other.transport.is_closing():
                self.other.transport.write(data)
        if self.bytes <= HIGH and not self.transport.is_closing():
            self.transport.resume_reading()
        if self.queue:
            if self.timer:
                self.timer.cancel()
            self.timer = loop.call_at(self.queue[0][0], self.pump)
        elif self.ended:
            self.other.transport.close()

    def pause_writing(self):
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self):
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error):
        self.way.sides.discard(self)
        self.ended = True
        if self.start and not self.other:
            self.start.cancel()
        if error and self.other:
            self.other.reset()
        self.pump()

    def reset(self):
        if self.transport:
            sock = self.transport.get_extra_info("socket")
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
            self.transport.abort()


class Way:
    def __init__(self, name, listen, target):
        self.name, self.listen, self.target = name, int(listen), int(target)
        self.mode, self.lag, self.sides, self.record = "pass", 0.0, set(), None

    def obey(self, command, argument="0"):
        if command == "to":
            self.target = int(argument)
        elif command == "record":
            self.record = open(argument, "ab", buffering=0)
        else:
            self.set(command, float(argument) / 1000)

    def set(self, mode, lag):
        self.mode, self.lag = mode, lag
        for side in list(self.sides):
            if mode == "cut":
                side.reset()
            else:
                side.pump()


async def main():
    loop = asyncio.get_running_loop()
    ways = {}
    for text in sys.argv[1:]:
        way = Way(*text.split(":"))
        ways[way.name] = way
        await loop.create_server(lambda way=way: Side(way), "127.0.0.1", way.listen, backlog=128)
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        command, name, *argument = line
        ways[name].obey(command, *argument)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)

"""net.py - a WebSocket client and an HTTP caller for asyncio, of the standard library alone.

Both are for one connection at a time and tell what they saw; neither judges."""
import asyncio
import base64
import json
import os
import socket
import struct
import time

HELLO_MAX = 8.0  # seconds for an upgrade and the first frame


class Refused(Exception):
    """The server, or what is left of it, did not admit the client."""


class Client(asyncio.Protocol):
    """A client of /ws. `on_first(client, data)` gets what the first frame says, `on_text(time, bytes)` each text behind
    it, `on_end(time, code)` the end, with the code of a close frame or None."""

    def __init__(self, on_text, on_end, on_first=None):
        self.on_text, self.on_end, self.on_first = on_text, on_end, on_first
        self.buf, self.upgraded, self.id, self.code, self.transport = b"", False, None, None, None
        self.hello = asyncio.get_running_loop().create_future()

    @staticmethod
    async def connect(port, system, on_text, on_end, on_first=None):
        """`system`: what the query says, from the systemId on."""
        _, client = await asyncio.wait_for(asyncio.get_running_loop().create_connection(
            lambda: Client(on_text, on_end, on_first), "127.0.0.1", port), HELLO_MAX)
        key = base64.b64encode(os.urandom(16)).decode()
        client.transport.write(("GET /ws?systemId=%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
                                % (system, key)).encode())
        try:
            await asyncio.wait_for(client.hello, HELLO_MAX)
        except asyncio.TimeoutError:
            client.reset()
            raise Refused("no first frame") from None
        return client

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data):
        now = time.monotonic()
        self.buf += data
        if not self.upgraded:
            head, mark, rest = self.buf.partition(b"\r\n\r\n")
            if not mark:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.transport.abort()
                return
            self.upgraded, self.buf = True, rest
        while self.take_frame(now):
            pass

    def take_frame(self, now):
        """Takes a frame from the buffer; false if none is whole."""
        buf = self.buf
        if len(buf) < 2:
            return False
        length, at = buf[1] & 127, 2
        if length == 126 and len(buf) >= 4:
            length, at = struct.unpack_from(">H", buf, 2)[0], 4
        elif length == 127 and len(buf) >= 10:
            length, at = struct.unpack_from(">Q", buf, 2)[0], 10
        elif length > 125:
            return False
        if len(buf) < at + length:
            return False
        self.buf = buf[at + length:]
        self.take(now, buf[0] & 15, buf[at:at + length])
        return True

    def take(self, now, opcode, payload):
        if opcode == 9:
            self.send(10, payload)
        elif opcode == 8:
            self.code = int.from_bytes(payload[:2], "big")
            self.send(8, payload[:2])
            self.transport.close()
        elif opcode == 1 and self.id is None:
            first = json.loads(payload)
            if first["code"] == 0 and not self.hello.done():
                self.id = first["data"]["clientId"]
                if self.on_first:
                    self.on_first(self, first["data"])
                self.hello.set_result(None)
        elif opcode == 1:
            self.on_text(now, payload)

    def send(self, opcode, payload):
        if not self.transport.is_closing():
            self.transport.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)

    def connection_lost(self, _error):
        if not self.hello.done():
            self.hello.set_exception(Refused("closed"))
            self.hello.exception()
        elif self.id:
            self.on_end(time.monotonic(), self.code)

    def close(self):
        """Ends in good order."""
        self.send(8, b"\x03\xe8")

    def hang_up(self):
        self.transport.close()

    def reset(self):
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Caller:
    """Calls to the API of one node, one after the other, on a connection that is kept. call() returns the answer's
    body, or None if there was none: the node died, or did not answer for `limit` seconds."""

    def __init__(self, port, limit=15.0):
        self.port, self.limit, self.streams, self.used = port, limit, None, 0.0

    async def call(self, name, token, body):
        if time.monotonic() - self.used > 20:
            self.close()  # the server may be about to
        try:
            return await asyncio.wait_for(self.exchange(name, token, body), self.limit)
        except (OSError, EOFError, asyncio.TimeoutError):
            self.close()
            return None

    async def exchange(self, name, token, body):
        if not self.streams:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = "POST /api/%s HTTP/1.1\r\nHost: x\r\nToken: %s\r\nContent-Length: %d\r\n\r\n" % (name, token, len(body))
        writer.write(head.encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + 15
        answer = json.loads(await reader.readexactly(int(head[at:head.index(b"\r\n", at)])))
        self.used = time.monotonic()
        return answer

    def close(self):
        if self.streams:
            self.streams[1].transport.abort()
            self.streams = None


async def get(port, path):
    """(status, body) of a GET on an admin port; (0, why) if there is none."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 2)
        writer.write(("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path).encode())
        answer = await asyncio.wait_for(reader.read(1 << 20), 2)
        while more := await asyncio.wait_for(reader.read(1 << 20), 2):
            answer += more
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode(errors="replace").strip()
    except (OSError, EOFError, IndexError, ValueError, asyncio.TimeoutError) as error:
        return 0, type(error).__name__

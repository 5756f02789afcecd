"""A client that may say anything: raw HTTP, raw frames, and the three dialects for what is said properly."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from wire import (
    CLOSE,
    PING,
    PONG,
    close_frame,
    frame,
    honest_frame,
    read_string,
    step_1,
    string,
)

PATIENCE = 30.0  # seconds until an expected answer counts as missing


@dataclass(frozen=True)
class Dialect:
    """How one family of clients reaches a room and wraps what it says to it."""

    name: str
    path: Callable[[str], str]

    def wrap(self, room: str, message: bytes) -> bytes:
        return string(room) + message if self.name == "hocuspocus" else message


WEBSOCKET = Dialect("y-websocket", lambda room: f"/ws/{quote(room, safe='')}")
HOCUSPOCUS = Dialect("hocuspocus", lambda room: "/hocuspocus")
YSWEET = Dialect(
    "y-sweet", lambda room: f"/d/{quote(room, safe='')}/ws/{quote(room, safe='')}"
)
DIALECTS = (WEBSOCKET, HOCUSPOCUS, YSWEET)


class Answer(NamedTuple):
    """All that came back on one HTTP connection."""

    status: int  # 0 when the server closed without a word
    headers: str
    body: bytes
    raw: bytes


def upgrade_request(
    path: str,
    port: int,
    *extra: tuple[str, str | bytes],
    method: str = "GET",
    version: str = "1.1",
    without: tuple[str, ...] = (),
    **replaced: str,
) -> bytes:
    """An upgrade as a browser makes it; replaced by name (`sec_websocket_key=…`), left out or added to."""
    headers: dict[str, str] = {
        "host": f"127.0.0.1:{port}",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in replaced.items()}
    lines = [f"{method} {path} HTTP/{version}".encode()]
    lines += [
        f"{name}: {value}".encode()
        for name, value in headers.items()
        if name not in without
    ]
    for name, value in extra:
        lines.append(
            name.encode()
            + b": "
            + (value if isinstance(value, bytes) else value.encode())
        )
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def ask(
    port: int, request: bytes, *, address: str = "127.0.0.1", seconds: float = PATIENCE
) -> Answer:
    """Send bytes to the HTTP side and read until the server closes, or its answer to an upgrade is there."""
    reader, writer = await asyncio.open_connection(address, port)
    raw = b""
    try:
        async with asyncio.timeout(seconds):
            sending = asyncio.create_task(_send_all(writer, request))
            try:
                while chunk := await reader.read(65_536):
                    raw += chunk
                    if raw.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in raw:
                        break
            except ConnectionError:
                pass  # what came before a reset still counts
            finally:
                sending.cancel()
    finally:
        writer.transport.abort()
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head[9:12]) if head.startswith(b"HTTP/1.") else 0
    return Answer(status, head.decode("latin-1").lower(), body, raw)


async def _send_all(writer: asyncio.StreamWriter, request: bytes) -> None:
    try:
        for at in range(0, len(request), 65_536):
            writer.write(request[at : at + 65_536])
            await writer.drain()
    except ConnectionError:
        pass


class Peer:
    """One WebSocket. What arrives is kept as messages; pings are answered unless `is_mute`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader, self.writer = reader, writer
        self.messages: list[bytes] = []
        self.raw_bytes = 0
        self.close_code: int | None = None
        self.close_reason = b""
        self.is_over = False
        self.is_mute = False
        self.is_deaf = False  # stops reading from the socket
        self.pongs = 0
        self.dialect = WEBSOCKET
        self.room = ""
        self._news = asyncio.Condition()
        self._read_on = asyncio.Event()
        self._read_on.set()
        self._reading = asyncio.create_task(self._read())

    # What it says

    def write(self, raw: bytes) -> None:
        """Bytes as they are."""
        if not self.is_over:
            self.writer.write(raw)

    async def flood(self, raw: bytes, times: int = 1, *, portion: int = 65_536) -> None:
        """As much as the server takes, until all is sent or the connection is gone."""
        try:
            for _ in range(times):
                for at in range(0, len(raw), portion):
                    if self.is_over:
                        return
                    self.writer.write(raw[at : at + portion])
                    await self.writer.drain()
        except ConnectionError:
            return

    def say(self, message: bytes) -> None:
        """One message, as this dialect wraps it, in one well-made frame."""
        self.write(honest_frame(self.dialect.wrap(self.room, message)))

    def shout(self, message: bytes) -> None:
        """One frame with exactly these bytes, in whatever dialect."""
        self.write(honest_frame(message))

    # What it hears

    async def _read(self) -> None:
        try:
            while True:
                await self._read_on.wait()
                first, second = await self.reader.readexactly(2)
                length = second & 127
                if length == 126:
                    (length,) = struct.unpack(">H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
                assert not second & 128, "a server must not mask"
                content = await self.reader.readexactly(length)
                self.raw_bytes += length
                await self._hear(first & 15, content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.is_over = True
            async with self._news:
                self._news.notify_all()

    async def _hear(self, opcode: int, content: bytes) -> None:
        if opcode == PING:
            if not self.is_mute:
                self.write(frame(content, PONG))
        elif opcode == PONG:
            self.pongs += 1
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(content[:2], "big") if content else 1005
            self.close_reason = content[2:]
            self.write(close_frame(self.close_code))
        else:
            self.messages.append(content)
        async with self._news:
            self._news.notify_all()

    async def until(
        self, condition: Callable[[], bool], seconds: float = PATIENCE
    ) -> None:
        """Wait for what arrives to make this true; a closed connection makes nothing true any more."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: condition() or self.is_over)
        assert condition(), (
            f"closed with {self.close_code} {self.close_reason!r} instead"
        )

    async def closed(self, seconds: float = PATIENCE) -> int:
        """The close code, 1006 when there was none."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: self.is_over)
        return self.close_code or 1006

    def bodies(self) -> Iterator[bytes]:
        """What was said to this room, without the address of the dialect."""
        for message in self.messages:
            if self.dialect is HOCUSPOCUS:
                if message == b"\x09":
                    continue
                _, at = read_string(message)
                yield message[at:]
            else:
                yield message

    def answers(self, kind: bytes) -> list[bytes]:
        """The messages that begin so."""
        return [body for body in self.bodies() if body.startswith(kind)]

    def updates(self) -> list[bytes]:
        """The updates heard, step 2 aside."""
        return [read_string(body, 2)[0] for body in self.answers(b"\x00\x02")]

    async def document(self) -> bytes:
        """All the room holds, as it answers to an empty state vector now; proves the connection to be alive."""
        before = len(self.answers(b"\x00\x01"))
        self.say(step_1())
        await self.until(lambda: len(self.answers(b"\x00\x01")) > before)
        return read_string(self.answers(b"\x00\x01")[-1], 2)[0]

    def stop_reading(self) -> None:
        """Take nothing more from the socket, not even into our own buffer."""
        self._read_on.clear()
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    # Its end

    def reset(self) -> None:
        """End by RST, as a crashed machine's network does."""
        made = self.writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def leave(self) -> None:
        self._reading.cancel()
        self.writer.transport.abort()
        await asyncio.wait([self._reading])


async def open_socket(
    port: int,
    path: str,
    *extra: tuple[str, str | bytes],
    address: str = "127.0.0.1",
    receive_buffer: int | None = None,
    **replaced: str,
) -> Peer:
    """The handshake and nothing more."""
    made = socket.socket()
    made.setblocking(False)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(made, (address, port))
    reader, writer = await asyncio.open_connection(sock=made)
    try:
        writer.write(upgrade_request(path, port, *extra, **replaced))
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
    except BaseException:
        writer.transport.abort()
        raise
    return Peer(reader, writer)


async def join(
    port: int,
    dialect: Dialect,
    room: str,
    *,
    receive_buffer: int | None = None,
    query: str = "",
    token: str = "",
) -> Peer:
    """A member as its dialect makes one: connected, authenticated where that is asked, in step with the room."""
    shown = (bearer(token),) if token and dialect is not HOCUSPOCUS else ()
    path = dialect.path(room) + query
    peer = await open_socket(port, path, *shown, receive_buffer=receive_buffer)
    peer.dialect, peer.room = dialect, room
    try:
        if dialect is HOCUSPOCUS:
            peer.say(authentication(token))
            await peer.until(lambda: bool(peer.answers(b"\x02\x02")))
        await peer.document()
    except BaseException:
        await peer.leave()
        raise
    return peer


def bearer(token: str) -> tuple[str, str]:
    """The header that shows a token."""
    return "authorization", f"Bearer {token}"


def authentication(token: str = "", version: str | None = "4.8.0") -> bytes:
    """The first message of a Hocuspocus client for a document."""
    return b"\x02\x00" + string(token) + (b"" if version is None else string(version))

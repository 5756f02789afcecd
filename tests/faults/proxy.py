"""A TCP proxy whose two directions can be slowed, cut up, held, broken and tampered with while they run.

async with Proxy("127.0.0.1", port) as proxy:
    proxy.up.is_held = True  # nothing reaches the server; what it says still comes back
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # tests of other folders use the proxy without this one
    from cable import Cable

CHUNK_BYTES = 64 * 1024
MAX_CHUNKS = (
    1000  # on their way in one direction; then reading waits, as with a slow network
)
CUT_SECONDS = 0.05  # for the server to read what it is not to answer

Rewrite = Callable[[bytes], bytes]


@dataclass(slots=True)
class Direction:
    """What happens to the bytes that go one way, in all connections; each may be set at any moment."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0  # at most; the order is kept
    bytes_per_second: float = 0.0  # 0: no bound
    slice_bytes: int = 0  # as many go at a time; 0: as they come
    rewrite: Callable[[], Rewrite] | None = None  # one for each new connection
    _is_held: bool = False
    _is_free: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_held(self) -> bool:
        """A black hole: both ends stay connected and nothing passes; what was sent meanwhile comes afterwards."""
        return self._is_held

    @is_held.setter
    def is_held(self, is_held: bool) -> None:
        self._is_held = is_held
        if is_held:
            self._is_free.clear()
        else:
            self._is_free.set()

    async def pass_through(self) -> None:
        while self._is_held:
            await self._is_free.wait()


class Proxy:
    """Listens on a port of its own for as long as its block lasts. `up` leads to the server, `down` back."""

    def __init__(
        self, host: str, port: int, *, seed: int = 0, cable: Cable | None = None
    ) -> None:
        """With a cable the server is at its near end, and our connections to it come from the far one."""
        self.target, self._cable = (host, port), cable
        self.port = 0
        self.up, self.down = Direction(), Direction()
        self.is_refusing = False  # new connections are reset
        self.cuts_after: bytes | None = None
        self.cut = 0  # connections that were ended so
        self.accepted = 0
        self._chance = random.Random(seed)
        self._links: set[_Link] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *reason: object) -> None:
        assert self._server is not None
        assert self._tasks is not None
        self._server.close()
        self.reset()
        await self._tasks.__aexit__(None, None, None)
        await self._server.wait_closed()

    @property
    def links(self) -> int:
        """Connections that are open."""
        return len(self._links)

    def hold(self) -> None:
        """A partition: nothing passes either way."""
        self.up.is_held = self.down.is_held = True

    def heal(self) -> None:
        """Everything passes again, as it would without us; connections that are rewritten stay so until a reset."""
        for way in (self.up, self.down):
            way.is_held = False
            way.latency_seconds = way.jitter_seconds = way.bytes_per_second = 0.0
            way.slice_bytes = 0
            way.rewrite = None
        self.is_refusing, self.cuts_after = False, None

    def reset(self) -> None:
        """Both ends of every connection see it reset."""
        for link in list(self._links):
            link.end()

    def half_close(self, way: Direction) -> None:
        """Say in this direction that nothing more comes; the other goes on."""
        for link in self._links:
            link.half_close(way)

    def cut_after(self, words: bytes) -> None:
        """From now on: once bytes with these words have gone up, the server gets them and the client a reset, no answer."""
        self.cuts_after = words

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert self._tasks is not None
        self.accepted += 1
        if self.is_refusing:
            _abort(writer)
            return
        link = _Link(self, writer)
        self._links.add(link)
        link.task = self._tasks.create_task(self._connect(link, reader))

    async def _connect(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            await self.up.pass_through()
            if self._cable is None:
                upstream, link.server = await asyncio.open_connection(*self.target)
            else:
                upstream, link.server = await self._cable.connect(self.target[1])
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(self.up, reader, link.server, link))
                tasks.create_task(self._carry(self.down, upstream, link.client, link))
        except* OSError:
            pass  # the other end is gone: so is this one
        finally:
            self._links.discard(link)
            link.abort()

    async def _carry(
        self,
        way: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        link: _Link,
    ) -> None:
        """Read and write are two tasks, so that a delay does not become a bound on speed."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_CHUNKS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(way, reader, queue))
            tasks.create_task(self._give(way, queue, writer, link))

    async def _take(
        self,
        way: Direction,
        reader: asyncio.StreamReader,
        queue: asyncio.Queue[tuple[float, bytes]],
    ) -> None:
        now = asyncio.get_running_loop().time
        rewrite = way.rewrite() if way.rewrite is not None else None
        while chunk := await reader.read(CHUNK_BYTES):
            if rewrite is not None:
                chunk = rewrite(chunk)
            delay = way.latency_seconds + self._chance.random() * way.jitter_seconds
            await queue.put((now() + delay, chunk))
        await queue.put((0.0, b""))

    async def _give(
        self,
        way: Direction,
        queue: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        link: _Link,
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, chunk = await queue.get()
            if due > now():
                await asyncio.sleep(due - now())
            await way.pass_through()
            if not chunk:
                link.half_close(way)
                return
            is_cut = bool(
                way is self.up and self.cuts_after and self.cuts_after in chunk
            )
            step = way.slice_bytes or len(chunk)
            for at in range(0, len(chunk), step):
                piece = chunk[at : at + step]
                await way.pass_through()
                if way in link.closed or link.is_cut:
                    return
                if way.bytes_per_second:
                    await asyncio.sleep(len(piece) / way.bytes_per_second)
                writer.write(piece)
                await writer.drain()
                if way.slice_bytes:
                    await asyncio.sleep(0)
            if is_cut:
                self.cut += 1
                link.is_cut = True
                _abort(link.client)
                await asyncio.sleep(CUT_SECONDS)
                link.abort()
                return


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy, self.client = proxy, client
        self.server: asyncio.StreamWriter | None = None
        self.task: asyncio.Task[None] | None = None
        self.closed: list[Direction] = []
        self.is_cut = False

    def abort(self) -> None:
        _abort(self.client)
        if self.server is not None:
            _abort(self.server)

    def end(self) -> None:
        self.abort()
        if self.task is not None:
            self.task.cancel()

    def half_close(self, way: Direction) -> None:
        if way in self.closed:
            return
        self.closed.append(way)
        writer = self.server if way is self._proxy.up else self.client
        if writer is not None and not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset rather than an orderly end."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""A server that says what a test tells it: badly, too late, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from collab.protocol import yjs
from collab.protocol.varint import Reader


class Line:
    """One connection, from the server's side."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.is_over = asyncio.Event()

    async def greet(
        self,
        epoch: str = "e",
        *,
        is_writable: bool = True,
        max_update_bytes: int = 1 << 19,
    ) -> None:
        """What every server says first: hello, an empty document, and a question where the room takes changes."""
        await self.say(
            yjs.hello(epoch, is_writable=is_writable, max_update_bytes=max_update_bytes)
        )
        if is_writable:
            await self.say(yjs.sync_step_1(b"\x00"))
        await self.say(yjs.sync_step_2(yjs.NOTHING))

    async def say(self, frame: bytes) -> None:
        await self.socket.send(frame)

    async def hear(self, *beginnings: bytes) -> bytes:
        """The next frame that begins so; others are passed over."""
        while True:
            frame = await self.socket.recv()
            assert isinstance(frame, bytes)
            if frame.startswith(beginnings):
                return frame

    async def hear_update(self) -> bytes:
        """The next update or step 2 that holds something."""
        while True:
            frame = await self.hear(b"\x00\x01", b"\x00\x02")
            update = Reader(frame, 2).read_bytes()
            if update != yjs.NOTHING:
                return update

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)
        self.is_over.set()


class Scripted:
    """Where it listens, and who has come."""

    def __init__(self) -> None:
        self.port = 0
        self.lines: asyncio.Queue[Line] = asyncio.Queue()
        self.all: list[Line] = []

    @property
    def came(self) -> int:
        """How many connections there were."""
        return len(self.all)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def line(self) -> Line:
        """The next connection."""
        return await self.lines.get()


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """Listens until the block ends."""
    made = Scripted()

    async def came(socket: ServerConnection) -> None:
        line = Line(socket)
        made.all.append(line)
        await made.lines.put(line)
        await line.is_over.wait()

    async with serve(
        came,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(yjs.COLLAB_V1)],
        compression=None,
        close_timeout=0.1,
    ) as server:
        made.port = next(iter(server.sockets)).getsockname()[1]
        yield made
        for line in made.all:
            line.is_over.set()

"""Clients that write tokens and keep a ledger of what they were told is saved."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pycrdt import Array, Doc, Map, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from collab.protocol.varint import Reader, encode_bytes

ROOT = Path(__file__).parent.parent.parent
ROOM = "kill"
MAX_UNSAVED = 20  # operations a writer has on its way

Operation = tuple[str, str]  # "+" or "-", and the token it is about


class Ledger:
    """What was sent and what was acknowledged; kept by the test, so no crash of the server touches it."""

    def __init__(self) -> None:
        self.sent: set[Operation] = set()
        self.saved: set[Operation] = set()
        self._goal = sys.maxsize
        self._is_reached = asyncio.Event()

    def save(self, operation: Operation) -> None:
        self.saved.add(operation)
        if len(self.saved) >= self._goal:
            self._is_reached.set()

    async def wait_for_saved(self, more: int) -> None:
        self._goal = len(self.saved) + more
        await self._is_reached.wait()
        self._is_reached.clear()

    def faults(self, doc: Doc[Any]) -> list[str]:
        """What a document holds that it should not, or the other way round."""
        found = Counter(tokens(doc))
        added = {token for kind, token in self.sent if kind == "+"}
        removed = {token for kind, token in self.sent if kind == "-"}
        saved = {token for kind, token in self.saved if kind == "+"}
        gone = {token for kind, token in self.saved if kind == "-"}
        return [
            *(f"lost: {token}" for token in sorted(saved - removed - found.keys())),
            *(f"back again: {token}" for token in sorted(gone & found.keys())),
            *(f"invented: {token}" for token in sorted(found.keys() - added)),
            *(f"doubled: {token}" for token, times in found.items() if times > 1),
        ]


def tokens(doc: Doc[Any]) -> list[str]:
    """All tokens of all three roots."""
    text, array, map = roots(doc)
    return [*re.findall("<(.*?)>", str(text)), *array, *map.keys()]


def roots(doc: Doc[Any]) -> tuple[Text, Array[Any], Map[Any]]:
    return (
        doc.get("text", type=Text),
        doc.get("array", type=Array),
        doc.get("map", type=Map),
    )


class Peer:
    """A y-websocket client with a document; with `collab.v1` it reads acknowledgements, else echoes."""

    def __init__(
        self, socket: ClientConnection, ledger: Ledger, *, is_v1: bool
    ) -> None:
        self._socket, self._ledger, self._is_v1 = socket, ledger, is_v1
        self._sequence = 0
        self._unsaved: deque[tuple[int, bytes, Operation]] = deque()
        self._is_heard = asyncio.Event()
        self._is_closed = False
        self._is_synced = asyncio.Event()
        self._own: list[bytes] = []
        self.refusals: list[int] = []
        self.notices: list[str] = []
        self.doc: Doc[Any] = Doc()
        self.doc.observe(lambda event: self._own.append(event.update))

    async def read(self) -> None:
        """Take in what comes until the connection ends."""
        try:
            async for frame in self._socket:
                assert isinstance(frame, bytes)
                await self._take(Reader(frame))
                self._is_heard.set()
        except ConnectionClosed:
            pass
        self._is_closed = True
        self._is_heard.set()

    async def _take(self, reader: Reader) -> None:
        kind = reader.read_varint()
        if kind == 111:
            self._settle_up_to(reader.read_varint())
        elif kind == 112:
            self.refusals.append(reader.read_varint())
        elif kind == 113:
            self.notices.append(reader.read_string(100))
        if kind != 0:
            return
        step, content = reader.read_varint(), reader.read_bytes()
        if step == 0:
            self._sequence += 1
            await self._socket.send(
                b"\x00\x01" + encode_bytes(self.doc.get_update(content))
            )
            return
        self.doc.apply_update(content)
        if step == 1:
            self._is_synced.set()
        elif not self._is_v1:
            self._settle_echo(content)

    def _settle_up_to(self, sequence: int) -> None:
        while self._unsaved and self._unsaved[0][0] <= sequence:
            self._ledger.save(self._unsaved.popleft()[2])

    def _settle_echo(self, update: bytes) -> None:
        for waiting in self._unsaved:
            if waiting[1] == update:
                self._unsaved.remove(waiting)
                self._ledger.save(waiting[2])
                return

    async def sync(self) -> None:
        """Ask for the whole document and wait until it is here."""
        with suppress(ConnectionClosed):
            await self._socket.send(b"\x00\x00" + encode_bytes(self.doc.get_state()))
            await self._is_synced.wait()

    async def write(self, name: str, chance: random.Random) -> None:
        """Add and remove tokens until the connection ends."""
        number = 0
        try:
            while not self._is_closed:
                if len(self._unsaved) >= MAX_UNSAVED:
                    self._is_heard.clear()
                    await self._is_heard.wait()
                    continue
                operation, change = self._choose(f"{name}-{number}", chance)
                number += 1
                await self.edit(operation, change)
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004)))
        except ConnectionClosed:
            pass

    async def edit(self, operation: Operation, change: Callable[[], object]) -> None:
        """Make one change, and send it."""
        self._own.clear()
        change()
        self._ledger.sent.add(operation)
        self._sequence += 1
        (update,) = self._own
        self._unsaved.append((self._sequence, update, operation))
        await self._socket.send(b"\x00\x02" + encode_bytes(update))

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait until what the server says makes this true."""
        while not check():
            assert not self._is_closed, "the server closed the connection"
            self._is_heard.clear()
            await self._is_heard.wait()

    def _choose(
        self, token: str, chance: random.Random
    ) -> tuple[Operation, Callable[[], object]]:
        text, array, map = roots(self.doc)
        match chance.randrange(5):
            case 0:
                at = chance.randrange(len(array) + 1)
                return ("+", token), lambda: array.insert(at, token)
            case 1:
                return ("+", token), lambda: map.update({token: 1})
            case 2 if len(array):
                at = chance.randrange(len(array))
                return ("-", str(array[at])), lambda: array.pop(at)
            case _:
                found = [match.start() for match in re.finditer("<", str(text))]
                at = chance.choice([*found, len(text)])
                return ("+", token), lambda: text.insert(at, f"<{token}>")


class Process:
    """A server process on one data directory."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self.port = process, port

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()

    @asynccontextmanager
    async def peer(self, ledger: Ledger, *, is_v1: bool = True) -> AsyncIterator[Peer]:
        """A client, synced; its reading ends with the block."""
        subprotocols: Any = ["collab.v1"] if is_v1 else None
        address = f"ws://127.0.0.1:{self.port}/ws/{ROOM}"
        async with (
            connect(
                address, subprotocols=subprotocols, ping_interval=None, max_size=None
            ) as socket,
            asyncio.TaskGroup() as tasks,
        ):
            peer = Peer(socket, ledger, is_v1=is_v1)
            reading = tasks.create_task(peer.read())
            synced = tasks.create_task(peer.sync())
            await asyncio.wait(
                (reading, synced), return_when=asyncio.FIRST_COMPLETED, timeout=30
            )
            if not synced.done():
                synced.cancel()
            yield peer
            reading.cancel()

    async def run_writers(
        self, ledger: Ledger, *, count: int, run: str, is_v1: bool, seed: int
    ) -> None:
        """Write until the server is gone."""

        async def work(number: int) -> None:
            try:
                async with self.peer(ledger, is_v1=is_v1) as peer:
                    chance = random.Random(f"{seed} {number}")
                    await peer.write(f"{run}.{number}", chance)
            except (OSError, WebSocketException):
                pass  # it went while this one came

        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(work(number))


@asynccontextmanager
async def serving(
    directory: Path,
    step: str = "",
    nth: int = 0,
    path: Path = ROOT,
    flags: tuple[str, ...] = (),
) -> AsyncIterator[Process]:
    """A server that listens, and whatever happens is gone after the block. `path` comes first in its search for modules."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "crashing.py"),
        step,
        str(nth),
        *("serve", "--port", "0", "--data", str(directory), "--compact-rows", "30"),
        *("--messages-per-second", "100000", "--log-level", "error"),
        *flags,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        found = re.search(rb":(\d+)\s*$", line)
        if not found:  # a step may come while it starts
            assert await process.wait() < 0, "the server did not start"
        yield Process(process, int(found[1]) if found else 0)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()

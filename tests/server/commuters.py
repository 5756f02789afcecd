"""Clients that go from one server to the next when they are sent away, typing all the while."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from collab.protocol.varint import Reader, encode_bytes

SYNC, ACK, NOTICE = 0, 111, 113
STEP_1, STEP_2, UPDATE = 0, 1, 2
PATIENCE_SECONDS = 30.0
AWAY_SECONDS = 5.0
V1: Any = ["collab.v1"]


class Commuter:
    """One client of `collab.v1` with a document of its own, and the words that it was told are saved."""

    def __init__(self, name: str, room: str, places: Sequence[str], start: int) -> None:
        self.name, self.room = name, room
        self._places = itertools.cycle([*places[start:], *places[:start]])
        self.document: Doc[Any] = Doc()
        self._text = self.document.get("text", type=Text)
        self._made: list[bytes] = []
        self._watch = self.document.observe(
            lambda event: self._made.append(event.update)
        )
        self.sent: list[str] = []
        self.saved: set[str] = set()
        self.visits: list[str] = []
        self.codes: list[int | None] = []
        self.away_seconds: list[float] = []
        self.notices: list[tuple[str, int]] = []
        self.is_here = self.is_resting = False
        self._left = 0.0
        self._sequence = 0
        self._waiting: list[tuple[int, str]] = []

    @property
    def text(self) -> str:
        return str(self._text)

    @property
    def is_done(self) -> bool:
        return self.is_here and self.saved == set(self.sent)

    async def live(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        for place in self._places:
            since = loop.time()
            try:
                async with connect(
                    f"{place}/ws/{self.room}",
                    subprotocols=V1,
                    compression=None,
                    ping_interval=None,
                    open_timeout=PATIENCE_SECONDS,
                ) as socket:
                    await self._stay(socket, place, since)
            except (OSError, WebSocketException):
                await asyncio.sleep(0.05)

    async def _stay(self, socket: ClientConnection, place: str, since: float) -> None:
        self._sequence, self._waiting = 0, []
        self.visits.append(place)
        await socket.send(b"\x00\x00" + encode_bytes(self.document.get_state()))
        typing = asyncio.create_task(self._type(socket))
        try:
            async for frame in socket:
                assert isinstance(frame, bytes)
                if await self._take(socket, Reader(frame)):
                    self.is_here = True
                    self._sum_up(since)
        finally:
            self._left = asyncio.get_running_loop().time()
            self.is_here = False
            self.codes.append(socket.close_code)
            typing.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await typing

    def _sum_up(self, since: float) -> None:
        if self._left:
            now = asyncio.get_running_loop().time()
            self.away_seconds.append(now - self._left)

    async def _take(self, socket: ClientConnection, reader: Reader) -> bool:
        """Whether it now has what the room has."""
        kind = reader.read_varint()
        if kind == ACK:
            upto = reader.read_varint()
            self.saved |= {word for at, word in self._waiting if at <= upto}
            self._waiting = [one for one in self._waiting if one[0] > upto]
        elif kind == NOTICE:
            self.notices.append((reader.read_string(100), reader.read_varint()))
        elif kind == SYNC:
            step, content = reader.read_varint(), reader.read_bytes()
            if step == STEP_1:
                self._sequence += 1
                lost = [word for word in self.sent if word not in self.saved]
                self._waiting += [(self._sequence, word) for word in lost]
                update = self.document.get_update(content)
                await socket.send(b"\x00\x01" + encode_bytes(update))
            else:
                self.document.apply_update(content)
                return step == STEP_2
        return False

    async def _type(self, socket: ClientConnection) -> None:
        while True:
            await asyncio.sleep(0.05)
            if not self.is_here or self.is_resting:
                continue
            word = f"{self.name}-{len(self.sent)}"
            self._made.clear()
            self._text.insert(0, word + " ")
            self.sent.append(word)
            self._sequence += 1
            self._waiting.append((self._sequence, word))
            await socket.send(b"\x00\x02" + encode_bytes(self._made[-1]))


@asynccontextmanager
async def commuting(commuters: Sequence[Commuter]) -> Any:
    """They live as long as the block."""
    tasks = [asyncio.create_task(each.live()) for each in commuters]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(
    check: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for what others bring about."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not check():
        assert loop.time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def read(place: str, room: str) -> list[str]:
    """The words in a room, as somebody new sees them."""
    document: Doc[Any] = Doc()
    text = document.get("text", type=Text)
    async with connect(f"{place}/ws/{room}", subprotocols=V1) as socket:
        await socket.send(b"\x00\x00\x01\x00")
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for frame in socket:
                assert isinstance(frame, bytes)
                reader = Reader(frame)
                if reader.read_varint() == SYNC and reader.read_varint() == STEP_2:
                    document.apply_update(reader.read_bytes())
                    return str(text).split()
    raise AssertionError("closed before it said what is there")


async def judge(commuters: Sequence[Commuter], places: Sequence[str]) -> None:
    """Everybody rests, and everything is where it belongs, once, for everybody."""
    for each in commuters:
        each.is_resting = True
    await until(lambda: all(each.is_done for each in commuters))
    rooms = {each.room for each in commuters}
    await until(
        lambda: all(
            len({each.text for each in commuters if each.room == room}) == 1
            for room in rooms
        )
    )
    for room in rooms:
        sent = Counter(
            word for each in commuters if each.room == room for word in each.sent
        )
        for place in places:
            assert Counter(await read(place, room)) == sent
    away = [seconds for each in commuters for seconds in each.away_seconds]
    assert max(away, default=0.0) < AWAY_SECONDS


def crew(count: int, rooms: int, places: Sequence[str]) -> Iterator[Commuter]:
    """So many clients, spread over rooms and places."""
    for n in range(count):
        yield Commuter(f"c{n}", f"r{n % rooms}", places, n % len(places))

"""Clients that type tokens, keep a ledger of what they were told is saved, and come back when they are cut off."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ledger import ADD, REMOVE, Latencies, Ledger, Operation, View
from pycrdt import Array, Doc, Map, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from collab.protocol.statevector import state_vector
from collab.protocol.structs import scan
from collab.protocol.varint import Reader, encode_bytes, encode_varint

SYNC, AWARENESS, HELLO, ACK, REFUSED, NOTICE = 0, 1, 110, 111, 112, 113
STEP_1, STEP_2, UPDATE = 0, 1, 2
MAX_UNSAVED = 60  # operations on their way; then a typist waits
PATIENCE_SECONDS = 5.0  # for a server that says nothing, at the beginning
LEAST_WAIT_SECONDS, MOST_WAIT_SECONDS = 0.05, 1.0
RENEW_SECONDS = 10.0
NAMES = itertools.count(1)

Places = Callable[
    [], Sequence[str]
]  # addresses of replicas, such as ws://127.0.0.1:8000


class Typist:
    """One client with a document of its own, which outlives its connections."""

    def __init__(
        self,
        ledger: Ledger,
        room: str,
        places: Places,
        chance: random.Random,
        *,
        per_second: float = 50.0,
        client_id: int | None = None,
    ) -> None:
        self.name = f"w{next(NAMES)}"
        self.ledger, self.room, self.places = ledger, room, places
        self._chance, self.per_second = chance, per_second
        self.doc: Doc[Any] = Doc() if client_id is None else Doc(client_id=client_id)
        self.text = self.doc.get("text", type=Text)
        self.array: Array[Any] = self.doc.get("array", type=Array)
        self.map: Map[Any] = self.doc.get("map", type=Map)
        self._own: list[bytes] = []
        self.doc.observe(lambda event: self._own.append(event.update))
        self.is_typing = per_second > 0
        self.is_connected = False  # and in step
        self.opened = 0
        self.closes: list[int | None] = []
        self.epochs: list[str] = []
        self.renew_seconds = RENEW_SECONDS
        self.position = 0  # in the log, as the last acknowledgement says
        self.history: list[bytes] = []  # its own updates
        self.keeps_back = False
        self.kept_back: list[tuple[Operation, bytes]] = []
        self.refusals: list[str] = []
        self.notices: list[str] = []
        self.away_seconds: list[float] = []
        self.unsaved_at_drain: list[int] = []  # once it was told to go
        self._is_leaving = (
            False  # told of a drain, it types on with the next connection
        )
        self._away_since = 0.0
        self._number = 0
        self._presence_clock = 0
        self._sequence = self._settled = 0
        self._unsaved: deque[tuple[int, Operation]] = deque()
        self._homeless: set[Operation] = set()  # refused, or sent to who is gone
        self._socket: ClientConnection | None = None
        self._news = asyncio.Event()
        self._is_dead = False
        self.is_barred = (
            False  # told not to come back, or that the history is another one
        )

    @property
    def is_saved(self) -> bool:
        """Whether everything it typed is."""
        return not self._unsaved and not self._homeless

    @property
    def unsaved(self) -> int:
        return len(self._unsaved) + len(self._homeless)

    def retire(self) -> None:
        """Never connect again; a task group may swallow the cancellation that would say so."""
        self._is_dead, self.is_typing = True, False

    def die(self) -> None:
        """Gone without a word, and for ever."""
        self.retire()
        if self._socket is not None and not self._socket.transport.is_closing():
            self._socket.transport.abort()

    async def live(self) -> None:
        """Connect, type, and connect again whatever happens, until it dies or is cancelled."""
        attempt = 0
        self._away_since = asyncio.get_running_loop().time()
        while not self._is_dead and not self.is_barred:
            places = self.places()
            place = self._chance.choice(places) if places else ""
            opened = self.opened
            if place:
                await self._visit(place)
            attempt = 0 if self.opened > opened else attempt + 1
            wait = min(LEAST_WAIT_SECONDS * 2**attempt, MOST_WAIT_SECONDS)
            await asyncio.sleep(wait * (0.5 + self._chance.random() / 2))

    async def _visit(self, place: str) -> None:
        subprotocols: Any = ["collab.v1"]
        try:
            async with connect(
                f"{place}/ws/{self.room}",
                subprotocols=subprotocols,
                ping_interval=None,
                compression=None,
                max_size=None,
                open_timeout=PATIENCE_SECONDS,
                close_timeout=1,
            ) as socket:
                await self._stay(socket)
        except (OSError, WebSocketException, TimeoutError):
            pass
        except AttributeError as error:
            # websockets aborts a transport that is gone already.
            if "call_soon" not in str(error):
                raise

    async def _stay(self, socket: ClientConnection) -> None:
        if self._is_dead:
            return
        self._socket, self._is_leaving = socket, False
        self._sequence = self._settled = 0
        self._homeless.update(operation for _, operation in self._unsaved)
        self._unsaved.clear()
        try:
            await say(socket, b"\x00\x00" + encode_bytes(self.doc.get_state()))
            async with asyncio.TaskGroup() as tasks:
                typing = tasks.create_task(self._type(socket))
                present = tasks.create_task(self._be_present(socket))
                async for frame in socket:
                    assert isinstance(frame, bytes)
                    await self._take(socket, frame)
                    if self.is_barred:
                        break
                typing.cancel()
                present.cancel()
        except* (ConnectionClosed, OSError):
            pass
        finally:
            if self.is_connected:
                self._away_since = asyncio.get_running_loop().time()
            self.is_connected, self._socket = False, None
            if self._is_leaving:
                self.unsaved_at_drain.append(self.unsaved)
            code = socket.close_code
            self.closes.append(code)
            self.is_barred = self.is_barred or (
                code is not None and 4400 <= code < 4500
            )
            self._news.set()

    async def _take(self, socket: ClientConnection, frame: bytes) -> None:
        reader = Reader(frame)
        match reader.read_varint():
            case 0:
                await self._sync(socket, reader)
            case 110:
                reader.read_varint()
                self._meet(reader.read_string(200))
            case 111:
                self._settle(reader.read_varint())
                self.position = max(self.position, reader.read_varint())
            case 112:
                self._refuse(reader.read_varint(), reader.read_string(200))
            case 113:
                self.notices.append(reader.read_string(200))
                self._is_leaving = self._is_leaving or self.notices[-1] == "drain"
        self._news.set()

    def _meet(self, epoch: str) -> None:
        """Its document must not be merged into another history."""
        if epoch and self.epochs and epoch != self.epochs[-1]:
            self.is_barred = True
        elif epoch and not self.epochs:
            self.epochs.append(epoch)

    async def _sync(self, socket: ClientConnection, reader: Reader) -> None:
        step, content = reader.read_varint(), reader.read_bytes()
        if step == STEP_1:
            update = self.doc.get_update(content)
            self._sequence += 1
            self._unsaved.extend((self._sequence, each) for each in self._homeless)
            self._homeless.clear()
            await say(socket, b"\x00\x01" + encode_bytes(update))
            return
        self.doc.apply_update(content)
        if step == STEP_2 and not self.is_connected:
            self.is_connected = True
            self.opened += 1
            now = asyncio.get_running_loop().time()
            self.away_seconds.append(now - self._away_since)

    def _settle(self, sequence: int) -> None:
        self._settled = sequence
        while self._unsaved and self._unsaved[0][0] <= sequence:
            self.ledger.save(self._unsaved.popleft()[1])

    def _refuse(self, sequence: int, code: str) -> None:
        """What the server will ask for again, by a step 1, once it can take it."""
        self.refusals.append(code)
        refused = [one for one in self._unsaved if one[0] == sequence]
        for one in refused:
            self._unsaved.remove(one)
            self._homeless.add(one[1])

    async def _be_present(self, socket: ClientConnection) -> None:
        while True:
            self._presence_clock += 1
            state = json.dumps({"user": {"name": self.name}}).encode()
            entry = (
                b"\x01"
                + encode_varint(self.doc.client_id)
                + encode_varint(self._presence_clock)
                + encode_bytes(state)
            )
            await say(socket, b"\x01" + encode_bytes(entry))
            await asyncio.sleep(self.renew_seconds)

    async def _type(self, socket: ClientConnection) -> None:
        while True:
            if (
                not self.is_typing
                or not self.is_connected
                or self._is_leaving
                or self.unsaved >= MAX_UNSAVED
            ):
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self._news.wait()
                continue
            await self.edit()
            await asyncio.sleep(self._chance.random() * 2 / self.per_second)

    async def edit(self) -> None:
        """One change, sent when there is a connection and otherwise with the next one."""
        self._own.clear()
        operation = self._change()
        self.ledger.send(operation)
        (update,) = self._own
        self.history.append(update)
        if self.keeps_back:
            self.kept_back.append((operation, update))
            return
        if self._socket is None or not self.is_connected:
            self._homeless.add(operation)
            return
        self._unsaved.append((self._sequence + 1, operation))
        await self.send(update)

    async def send_kept_back(self) -> None:
        """What was kept back, behind all that was made after it."""
        self.keeps_back = False
        for operation, update in self.kept_back:
            self._unsaved.append((self._sequence + 1, operation))
            await self.send(update)
        self.kept_back.clear()

    async def bulk(self, size: int, *, key: str = "") -> None:
        """Much that is no token, on a connection that is there; in place of what is under this key."""
        self._own.clear()
        many: Map[Any] = self.doc.get("bulk", type=Map)
        many[key or str(len(many))] = "x" * size
        (update,) = self._own
        await self.send(update)

    async def send(self, update: bytes) -> None:
        """An update, as the next that counts."""
        assert self._socket is not None
        self._sequence += 1
        await say(self._socket, b"\x00\x02" + encode_bytes(update))

    async def barrier(self) -> None:
        """All that was sent on this connection is saved."""
        await self.send(b"\x00\x00")
        sequence = self._sequence
        async with asyncio.timeout(30):
            while self._settled < sequence:
                self._news.clear()
                await self._news.wait()

    def _change(self) -> Operation:
        chance = self._chance
        token = f"{self.name}-{self._number}"
        match chance.randrange(12):
            case 0 if len(self.array):
                at = chance.randrange(len(self.array))
                gone = str(self.array[at])
                self.array.pop(at)
                return Operation(REMOVE, gone)
            case 1 if len(self.map):
                gone = chance.choice(list(self.map.keys()))
                self.map.pop(gone)
                return Operation(REMOVE, gone)
            case 2 if found := list(re.finditer("<(.*?)>", str(self.text))):
                one = chance.choice(found)
                del self.text[one.start() : one.end()]
                return Operation(REMOVE, one[1])
            case 3 | 4 | 5:
                self.array.insert(chance.randrange(len(self.array) + 1), token)
            case 6 | 7:
                self.map[token] = 1
            case 8:
                starts = [one.start() for one in re.finditer("<", str(self.text))]
                self.text.insert(chance.choice([0, *starts]), f"<{token}>")
            case _:
                self.text.insert(len(self.text), f"<{token}>")
        self._number += 1
        return Operation(ADD, token)

    def view(self) -> View:
        return view_of(self.name, self.doc)


async def say(socket: ClientConnection, frame: bytes) -> None:
    """Raises ConnectionClosed or ConnectionResetError when nobody hears it any more."""
    try:
        await socket.send(frame)
    except AttributeError:  # websockets aborts a transport that is gone already
        raise ConnectionResetError from None


def view_of(
    source: str,
    doc: Doc[Any],
    *,
    is_waiting: bool = False,
    present: frozenset[int] | None = None,
) -> View:
    """What a document of pycrdt shows."""
    return View(
        source,
        text=str(doc.get("text", type=Text)),
        array=doc.get("array", type=Array).to_py() or [],
        map=doc.get("map", type=Map).to_py() or {},
        vector=state_vector(doc.get_state()),
        deleted=deletions(doc.get_update()),
        is_waiting=is_waiting,
        present=present,
    )


def deletions(state: bytes) -> dict[int, list[tuple[int, int]]]:
    """The delete set of a whole document, each range as long as it can be."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for client, clock, end in sorted(scan(state).deletes):
        mine = ranges.setdefault(client, [])
        if mine and mine[-1][1] >= clock:
            mine[-1] = (mine[-1][0], max(end, mine[-1][1]))
        else:
            mine.append((clock, end))
    return ranges


def latencies(ledger: Ledger, since: float, until: float) -> Latencies:
    """From edit to acknowledgement, of the edits of that time."""
    return Latencies(
        [
            ledger.saved.get(operation, until) - at
            for operation, at in ledger.sent.items()
            if since <= at < until
        ]
    )

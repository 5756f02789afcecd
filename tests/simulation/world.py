"""Replicas, people and a seed: what happens, and what must be true at the end.

The real Replica, Relay, Link, Room, Document, Journal and Awareness run on a virtual clock; the bus, the store's commits, crashes
and partitions are the seed's. Every person writes tokens and remembers which were acknowledged.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from faulty import FaultyBus, FaultyHub, FaultyStore
from pycrdt import Array, Doc, Map, Text
from rooms import Line

from collab.document.deletions import deletions
from collab.document.document import Document
from collab.errors import CollabError
from collab.metrics import Metrics
from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_bytes, encode_varint
from collab.replica import Replica
from collab.room import Member, Room, RoomState
from collab.store.base import Author
from collab.store.memory import MemoryStore

ROOM = "room"
WIDTH = 8  # characters of a token
STORM_SECONDS = 12.0
CALM_SECONDS = 75.0  # twice the time between two digests, and some


class Broken(AssertionError):
    """What must be true is not; the message says the seed."""


class Person:
    """A client with a document of its own, connected to one replica or none."""

    def __init__(self, number: int, world: World) -> None:
        self.number, self.world = number, world
        self.room: Room | None = None
        self.node: Node | None = None
        self.member: Member | None = None
        self.sent: set[str] = set()
        self.acked: set[str] = set()
        self.deleted: set[str] = set()
        self.acked_deletions: set[str] = set()
        self._lives = self._count = self._clock = self._sequence = 0
        self._waiting: list[
            tuple[int, str]
        ] = []  # sequence; token, or "-" and a deleted one
        self._held: list[str] = []  # in the document, in the order of their making
        self._made: list[bytes] = []
        self._is_applying = False
        self.begin()

    def begin(self) -> None:
        """With an empty document and another client id: what nobody else has is gone."""
        self.disconnect()
        self._lives += 1
        self._held.clear()
        self.doc: Doc[Any] = Doc(client_id=1000 * self._lives + self.number)
        self.text = self.doc.get("text", type=Text)
        self.map: Map[Any] = self.doc.get("map", type=Map)
        self.list: Array[Any] = self.doc.get("list", type=Array)
        self.doc.observe(self._note)

    def _note(self, event: Any) -> None:
        if not self._is_applying:
            self._made.append(event.update)

    async def connect(self, node: Node) -> None:
        """Join through a replica, and exchange what each lacks."""
        self.disconnect()
        try:
            room = await node.replica.open(ROOM)
        except CollabError:
            return
        if node.is_dead or room.state is RoomState.CLOSED:
            return
        name = f"person{self.number}"
        member = Member(
            self._hear, Line(), Author(name, f"{name}-{self._count}"), owner=name
        )
        self.room, self.node, self.member = room, node, member
        node.replica.join(room, member)
        room.introduce(member)
        self._apply(room.document.diff(self.doc.get_state()))
        vector = room.document.state_vector()
        self._send(self.doc.get_update(vector), self._held, precise=True)
        self.appear()

    def disconnect(self) -> None:
        room, node, member = self.room, self.node, self.member
        self.room = self.node = self.member = None
        self._waiting.clear()
        if (
            room is not None
            and node is not None
            and member is not None
            and not node.is_dead
        ):
            node.replica.leave(room, member)

    @property
    def is_connected(self) -> bool:
        return self.room is not None and self.room.state is not RoomState.CLOSED

    def appear(self) -> None:
        """Say that one is here."""
        if (
            self.room is None
            or self.node is None
            or self.member is None
            or not self.is_connected
        ):
            return
        self._clock += 1
        state = b'{"at":%d}' % self._clock
        states = (
            encode_varint(1)
            + encode_varint(self.doc.client_id)
            + encode_varint(self._clock)
            + encode_bytes(state)
        )
        self.room.awareness.apply(states, self.member, self.world.now())
        self.node.replica.present(self.room)

    def edit(self, random: Random) -> None:
        """One random change, sent when there is a connection."""
        token = f"{self.number:02d}-{self._count:05d}"
        self._count += 1
        kind = random.random()
        self._made.clear()
        sent = [token]
        if kind < 0.5:
            length = len(str(self.text)) // WIDTH
            self.text.insert(WIDTH * random.randint(0, length), token)
        elif kind < 0.65:
            self.map[f"k{random.randint(0, 5)}"] = token
            sent = []
        elif kind < 0.8:
            self.list.insert(random.randint(0, len(self.list)), token)
        else:
            sent = []
            length = len(str(self.text)) // WIDTH
            if length:
                at = WIDTH * random.randint(0, length - 1)
                gone = str(self.text)[at : at + WIDTH]
                del self.text[at : at + WIDTH]
                self.deleted.add(gone)
                sent = [f"-{gone}"]
        self.sent.update(sent)
        self._held += sent
        for update in self._made:
            self._send(update, sent)
        self._made.clear()

    def _send(self, update: bytes, tokens: list[str], *, precise: bool = False) -> None:
        if self.room is None or self.member is None or not self.is_connected:
            return
        try:
            self.room.update(self.member, update, precise=precise)
        except CollabError:
            self.disconnect()  # it comes back, and brings everything with it
            return
        self._sequence += 1
        self._waiting += [(self._sequence, token) for token in tokens]
        self.room.owe(
            self.member, yjs.ack(self._sequence, self.room.position), is_cumulative=True
        )

    def _hear(self, frames: bytes) -> None:
        at = 0
        while at < len(frames):
            length, start = frames[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(frames[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(frames[at + 2 : at + 10], "big"), at + 10
            self._read(frames[start : start + length])
            at = start + length

    def _read(self, message: bytes) -> None:
        reader = Reader(message)
        kind = reader.read_varint()
        if kind == 0 and reader.read_varint() in (1, 2):
            self._apply(reader.read_bytes())
        elif kind == yjs.ACK:
            sequence = reader.read_varint()
            for sent, token in self._waiting:
                if sent > sequence:
                    continue
                if token.startswith("-"):
                    self.acked_deletions.add(token[1:])
                else:
                    self.acked.add(token)
            self._waiting = [each for each in self._waiting if each[0] > sequence]

    def _apply(self, update: bytes) -> None:
        self._is_applying = True
        try:
            self.doc.apply_update(update)
        finally:
            self._is_applying = False


class Node:
    """A replica that may be killed or cut off."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.bus = FaultyBus(world.hub)
        self.store = FaultyStore(world.store, world.hub)
        self.replica = Replica(
            self.store,
            Metrics(),
            bus=self.bus,
            name=name,
            idle_room_seconds=2.0,
            compact_rows=1 << 30,
            compact_bytes=1 << 40,
        )
        self.is_dead = False

    def kill(self) -> None:
        """As SIGKILL: nothing more leaves it, and nobody is told."""
        self.is_dead = self.store.is_dead = True
        self.bus.cut()


class World:
    """One run; `ended_at` is the virtual time of its end."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, Random(seed)
        self.hub = FaultyHub(self.random)
        self.store = MemoryStore(is_shared=True, clock=lambda: int(1e6 * self.now()))
        # In such a run the store loses everything now and then, and nobody else loses anything.
        self.is_forgetful = seed % 5 == 0
        self.nodes: list[Node] = []
        self.people: list[Person] = []
        self._named = 0
        self.ended_at = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """A storm, then calm, then judgement. Raises Broken."""
        for _ in range(self.random.randint(2, 3)):
            await self._start()
        self.people = [
            Person(number, self) for number in range(self.random.randint(2, 4))
        ]
        end = self.now() + STORM_SECONDS
        while self.now() < end:
            await asyncio.sleep(self.random.uniform(0.0, 0.4))
            await self._happen()
        await self._calm()
        self.ended_at = self.now()
        self._judge()

    async def _start(self) -> None:
        node = Node(f"replica{self._named}", self)
        self._named += 1
        while True:
            try:
                await node.replica.__aenter__()
                break
            except CollabError:
                await asyncio.sleep(0.1)
        self.nodes.append(node)

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_dead]

    async def _happen(self) -> None:
        random = self.random
        kind = random.random()
        person = random.choice(self.people)
        if not person.is_connected and random.random() < 0.7:
            await person.connect(random.choice(self.living))
        elif kind < 0.75:
            for _ in range(random.randint(1, 3)):
                person.edit(random)
        elif kind < 0.82:
            await person.connect(random.choice(self.living))
        elif kind < 0.86:
            person.disconnect()
        elif kind < 0.90:
            node = random.choice(self.living)
            (node.bus.mend if node.bus.is_cut else node.bus.cut)()
        elif kind < 0.92:
            self.hub.flush()
        elif kind < 0.94:
            if self.hub.is_up:
                self.hub.is_up = False
            else:
                self.hub.heal()
        elif kind < 0.95:
            if self.is_forgetful:
                self.store._rooms.clear()
                self.hub.flush()
            else:
                person.begin()
        elif kind < 0.97 and self._named < 7 and not self.is_forgetful:
            victim = random.choice(self.living)
            victim.kill()
            for each in self.people:
                if each.node is victim:
                    # Half of them go with it, and with what only they have.
                    (each.begin if random.random() < 0.5 else each.disconnect)()
            await self._start()
        else:
            person.appear()

    async def _calm(self) -> None:
        self.hub.is_calm = True
        for node in self.living:
            node.bus.is_cut = False
        self.hub.heal()
        await asyncio.sleep(8.0)  # the journal's longest pause is five seconds
        for person in self.people:
            while not person.is_connected:
                await person.connect(self.random.choice(self.living))
                await asyncio.sleep(0.1)
        end = self.now() + CALM_SECONDS
        while self.now() < end:
            await asyncio.sleep(10.0)
            for person in self.people:
                person.appear()
        await asyncio.sleep(1.0)

    def _judge(self) -> None:
        documents = {f"person{person.number}": person.doc for person in self.people}
        rooms = {}
        for node in self.living:
            room = node.replica.live(ROOM)
            if room is not None and len(room):
                rooms[node.name] = room
                documents[node.name] = room.document._doc
        known = self.store._rooms.get(ROOM)
        stored = Document.load(
            None, [row.update for row in known.rows] if known else []
        )
        self._check(len(stored.gate) == 0, "something waits in the log")
        documents["store"] = stored._doc
        found = {name: _content(doc) for name, doc in documents.items()}
        first = next(iter(found))
        for name, content in found.items():
            self._check(content == found[first], f"{name} differs from {first}")
        for name, room in rooms.items():
            self._check(len(room.document.gate) == 0, f"something waits at {name}")
            self._check(room.is_clean, f"something is unsaved at {name}")
            here = {person.doc.client_id for person in self.people}
            there = {client for client, *_ in room.awareness.states()}
            self._check(there == here, f"presence at {name} is {there}, not {here}")
        for node in self.living:
            self._check(
                node.replica.metrics.divergences == 0, f"divergence at {node.name}"
            )
            self._check(
                node.replica.metrics.bus_refused == 0, f"refusal at {node.name}"
            )
        text, items = str(self.people[0].text), self.people[0].list.to_py()
        tokens = [text[at : at + WIDTH] for at in range(0, len(text), WIDTH)] + (
            items or []
        )
        sent, acked, deleted, gone = (
            set().union(*(getattr(person, kind) for person in self.people))
            for kind in ("sent", "acked", "deleted", "acked_deletions")
        )
        self._check(len(tokens) == len(set(tokens)), "a token is there twice")
        self._check(set(tokens) <= sent, "a token is there that nobody wrote")
        self._check(
            acked <= set(tokens) | deleted,
            f"acknowledged and lost: {acked - set(tokens) - deleted}",
        )
        self._check(not gone & set(tokens), "a deleted token came back")
        self._check(bool(acked), "nothing was acknowledged at all")

    def _check(self, is_so: bool, fault: str) -> None:
        if not is_so:
            raise Broken(f"seed {self.seed}: {fault}")


def _content(doc: Doc[Any]) -> tuple[object, ...]:
    vector = doc.get_state()
    text, items, keys = (
        doc.get("text", type=Text),
        doc.get("list", type=Array),
        doc.get("map", type=Map),
    )
    reader = Reader(vector)
    clocks = sorted(
        (reader.read_varint(), reader.read_varint())
        for _ in range(reader.read_varint())
    )
    return (
        str(text),
        items.to_py(),
        keys.to_py(),
        clocks,
        deletions(doc.get_update(vector)),
    )

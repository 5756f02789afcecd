"""Random histories of two rooms end alike in every store, also when it is closed and opened between two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from collab.errors import CollabError
from collab.store.base import (
    Attributed,
    Author,
    Checkpoint,
    Clock,
    Entry,
    RoomInfo,
    Store,
)
from collab.store.memory import MemoryStore
from collab.store.postgres.store import PostgresStore
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

ROOMS = ("one", "two")


def step(chance: random.Random) -> tuple[str, ...] | tuple[Any, ...]:
    """One thing to do, with everything random in it."""
    room = chance.choice(ROOMS)
    match chance.randrange(19):
        case 0:
            owners = {chance.randrange(3): f"p{chance.randrange(3)}"}
            return "bind", room, owners
        case 1:
            return "checkpoint", room, chance.randrange(40), chance.randrange(-2, 1)
        case 2:
            return "reject", room, chance.randrange(1, 40)
        case 3 if chance.random() < 0.5:
            return "delete", room, chance.random() < 0.2
        case 4:
            return ("reopen",)
        case 5:
            return "create", room, {"n": chance.randrange(9)}
        case 6:
            return "describe", room, {"n": chance.randrange(9)}
        case 7:
            return "retain", room, chance.choice([None, 0, 100, 1000])
        case 8:
            return "restore", room
        case 9:
            return ("tidy",)
        case 18:
            return "attribute", room, chance.randrange(40), chance.randrange(-2, 1)
        case 10:
            return "turn", chance.choice([1, 10, 100, 1000])
        case _:
            entries = []
            for _ in range(chance.randrange(1, 4)):
                ahead = chance.choice([0, 0, 0, 0, 0, 0, 1, -1, -3])
                updates = [
                    chance.randbytes(chance.randrange(6))
                    for _ in range(chance.randrange(1, 5))
                ]
                entries.append((chance.choice(ROOMS), ahead, updates))
            return "append", entries


class Run:
    """The steps carried out on one store, whose clock is turned by hand."""

    def __init__(self, store: Store, hand: list[int]) -> None:
        self.store, self.hand = store, hand
        self.made = 1
        self.last = dict.fromkeys(ROOMS, 0)
        self.epochs = dict.fromkeys(ROOMS, 1)
        self.fences: dict[str, list[int]] = {room: [] for room in ROOMS}

    async def do(self, what: str, *arguments: Any) -> object:
        """The outcome, as far as it must be alike."""
        match what, *arguments:
            case "bind", room, owners:
                # Before the first entry a binding is only remembered, so not when closed and opened.
                return await self.store.bind(room, owners) if self.last[room] else None
            case "checkpoint", room, position, age:
                self.fences[room].append((await self.store.load(room)).fence)
                fence = self.fences[room][max(age - 1, -len(self.fences[room]))]
                checkpoint = Checkpoint(position, b"%d" % position)
                return await self.store.checkpoint(room, checkpoint, fence=fence)
            case "attribute", room, position, age:
                self.fences[room].append((await self.store.load(room)).fence)
                fence = self.fences[room][max(age - 1, -len(self.fences[room]))]
                attributed = Attributed(position, b"%d" % position)
                return await self.store.attribute(room, attributed, fence=fence)
            case "reject", room, position:
                try:
                    return await self.store.reject(room, position, "bad")
                except CollabError as error:
                    return type(error)
            case "delete", room, is_purged:
                await self.store.delete(room, purge=is_purged)
                self.last[room] = 0
                self.made += 1
                self.epochs[room] = self.made
            case "create", room, metadata:
                epoch = f"e{self.epochs[room]}"
                return await self._tried(self.store.create(room, metadata, epoch=epoch))
            case "describe", room, metadata:
                return await self._tried(self.store.describe(room, metadata))
            case "retain", room, seconds:
                return await self._tried(self.store.retain(room, seconds))
            case "restore", room:
                restored = await self._tried(self.store.restore(room))
                if isinstance(restored, RoomInfo):
                    self.last[room] = restored.position
                    self.epochs[room] = int(restored.epoch[1:])
                return restored
            case "tidy", *_:
                await self.store.tidy()
            case "turn", seconds:
                self.hand[0] += seconds * 1000
            case "append", entries:
                return await self._append(entries)
        return None

    async def _tried(self, call: Awaitable[RoomInfo]) -> RoomInfo | type[CollabError]:
        try:
            return (await call)._replace(bytes=0)
        except CollabError as error:
            return type(error)

    async def _append(self, wanted: list[tuple[str, int, list[bytes]]]) -> object:
        entries, last = [], dict(self.last)
        for room, ahead, updates in wanted:
            position = max(1, last[room] + 1 + ahead)
            author = Author("alice", f"c{position % 3}", None)
            if ahead <= 0:
                last[room] = max(last[room], position + len(updates) - 1)
            entries.append(
                Entry(
                    room,
                    f"e{self.epochs[room]}",
                    position,
                    self.hand[0],
                    updates,
                    [author] * len(updates),
                )
            )
        answers: dict[int, object] = {}
        everything = asyncio.Event()

        def done(answered: Sequence[Entry], error: CollabError | None) -> None:
            answers.update((id(one.updates), type(error)) for one in answered)
            if len(answers) == len(entries):
                everything.set()

        self.store.append(entries, done)
        await asyncio.wait_for(everything.wait(), 30)
        self.last = last
        return [answers[id(one.updates)] for one in entries]

    async def seen(self) -> object:
        """All that can be read."""
        found: list[object] = [
            [info[:4] + info[5:] for info in await self.store.rooms()],
            [info[:4] + info[5:] for info in await self.store.rooms(deleted=True)],
        ]
        for room in ROOMS:
            stored = await self.store.load(room)
            found.append((stored[:3], list(stored.tail), stored.owners))
            try:
                # How soon old rows go is a store's own affair.
                info = await self.store.info(room)
                is_kept = info is None or info.history_seconds is None
                covered = stored.checkpoint.position if stored.checkpoint else 0
                start = 0 if is_kept else covered
                found.append(await self.store.history(room, after=start))
                found.append(await self.store.history(room, after=start + 3, limit=2))
                found.append(await self.store.attribution(room))
                found.append(await self.store.checkpoint_before(room, covered))
                found.append(await self.store.checkpoint_before(room, 1 << 70))
            except CollabError as error:
                found.append(type(error))
        return found


async def compare(
    chance: random.Random,
    model_of: Callable[[Clock], MemoryStore],
    real_of: Callable[[Clock], Any],
    *,
    steps: int,
) -> None:
    """Do the same to both, and look at both after each step."""
    hands = [1_000_000], [1_000_000]

    def real_store() -> Any:
        return real_of(lambda: hands[1][0])

    model = Run(model_of(lambda: hands[0][0]), hands[0])
    real = Run(await real_store().__aenter__(), hands[1])
    try:
        for number in range(steps):
            what = step(chance)
            if what[0] == "reopen":
                await real.store.__aexit__()
                real.store = await real_store().__aenter__()
                await model.store.tidy()
                model.fences = {room: [] for room in ROOMS}
                real.fences = {room: [] for room in ROOMS}
            else:
                assert await real.do(*what) == await model.do(*what), (number, what)
            assert await real.seen() == await model.seen(), (number, what)
    finally:
        await real.store.__aexit__()


@pytest.mark.parametrize("seed", range(12))
async def test_random_histories_end_alike(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sweep_seconds = chance.choice([0, 0.002, 3600])

    await compare(
        chance,
        lambda clock: MemoryStore(deleted_room_seconds=500, clock=clock),
        lambda clock: SqliteStore(
            tmp_path,
            window_seconds=0,
            sweep_seconds=sweep_seconds,
            deleted_room_seconds=500,
            clock=clock,
        ),
        steps=100,
    )


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories_end_alike_in_stores_that_replicas_share(
    dsn: str, seed: int
) -> None:
    await compare(
        random.Random(seed),
        lambda clock: MemoryStore(
            is_shared=True, deleted_room_seconds=500, clock=clock
        ),
        lambda clock: PostgresStore(
            dsn, window_seconds=0, deleted_room_seconds=500, clock=clock
        ),
        steps=80,
    )

"""Random histories of two rooms end alike in every store, also when it is closed and opened between two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from collab.errors import CollabError
from collab.store.base import Author, Checkpoint, Entry, Store
from collab.store.memory import MemoryStore
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

ROOMS = ("one", "two")


def step(chance: random.Random) -> tuple[str, ...] | tuple[Any, ...]:
    """One thing to do, with everything random in it."""
    room = chance.choice(ROOMS)
    match chance.randrange(12):
        case 0:
            owners = {chance.randrange(3): f"p{chance.randrange(3)}"}
            return "bind", room, owners
        case 1:
            return "checkpoint", room, chance.randrange(40), chance.randrange(-2, 1)
        case 2:
            return "reject", room, chance.randrange(1, 40)
        case 3 if chance.random() < 0.3:
            return "delete", room
        case 4:
            return ("reopen",)
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
    """The steps carried out on one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
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
            case "reject", room, position:
                try:
                    return await self.store.reject(room, position, "bad")
                except CollabError as error:
                    return type(error)
            case "delete", room:
                self.last[room] = 0
                self.epochs[room] += 1
                return await self.store.delete(room)
            case "append", entries:
                return await self._append(entries)
        return None

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
                    position * 10,
                    updates,
                    [author] * len(updates),
                )
            )
        answers: dict[int, object] = {}
        everything = asyncio.Event()

        def done(answered: Sequence[Entry], error: CollabError | None) -> None:
            answers.update((id(entry), type(error)) for entry in answered)
            if len(answers) == len(entries):
                everything.set()

        self.store.append(entries, done)
        await asyncio.wait_for(everything.wait(), 20)
        self.last = last
        return [answers[id(entry)] for entry in entries]

    async def seen(self) -> object:
        """All that can be read."""
        found: list[object] = [
            [info[:4] + info[5:] for info in await self.store.rooms()]
        ]
        for room in ROOMS:
            stored = await self.store.load(room)
            found.append((stored[:3], list(stored.tail), stored.owners))
            try:
                found.append(await self.store.history(room))
                found.append(await self.store.history(room, after=3, limit=2))
            except CollabError as error:
                found.append(type(error))
        return found


@pytest.mark.parametrize("seed", range(12))
async def test_random_histories_end_alike(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sweep_seconds = chance.choice([0, 0.002, 3600])

    def sqlite() -> SqliteStore:
        return SqliteStore(tmp_path, window_seconds=0, sweep_seconds=sweep_seconds)

    model, real = Run(MemoryStore()), Run(await sqlite().__aenter__())
    for number in range(60):
        what = step(chance)
        if what[0] == "reopen":
            await real.store.__aexit__()
            real.store = await sqlite().__aenter__()
            model.fences = {room: [] for room in ROOMS}
            real.fences = {room: [] for room in ROOMS}
        else:
            assert await real.do(*what) == await model.do(*what), (number, what)
        assert await real.seen() == await model.seen(), (number, what)
    await real.store.__aexit__()

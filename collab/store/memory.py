"""A store that keeps everything in memory: for tests, and for servers that need not remember."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Self

from collab.errors import CollabError, RoomNotFound, StoreCorrupt
from collab.store.base import Checkpoint, Done, Entry, RoomInfo, Row, Stored


class _Room:
    """One history of a room."""

    def __init__(self, epoch: str, created: int) -> None:
        self.epoch, self.created = epoch, created
        self.rows: list[Row] = []  # the row at position n has index n - 1
        self.checkpoints: list[Checkpoint] = []  # the two newest, in order
        self.owners: dict[int, str] = {}
        self.rejected: dict[int, str] = {}
        self.fence = 0


class MemoryStore:
    """Keeps the whole contract, except that nothing outlives the process."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._tombstones: dict[str, set[str]] = {}
        self._tombstone_fences: dict[str, int] = {}
        self._owners: dict[str, dict[int, str]] = {}  # of rooms never written to
        self._fences = count(1)
        self._loading: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        call_soon = asyncio.get_running_loop().call_soon
        logged: list[Entry] = []
        for entry in entries:
            try:
                self._append(entry)
            except CollabError as error:
                call_soon(done, (entry,), error)
            else:
                logged.append(entry)
        if logged:
            call_soon(done, logged, None)

    def _append(self, entry: Entry) -> None:
        name, epoch, position, milliseconds, updates, authors = entry
        room = self._rooms.get(name)
        if epoch in self._tombstones.get(name, ()):
            raise RoomNotFound(f"room {name} was deleted")
        if room is None:
            if position != 1:
                raise StoreCorrupt(f"room {name} does not begin at {position}")
            room = self._rooms[name] = _Room(epoch, milliseconds)
            room.fence = self._tombstone_fences.get(name, 0)
            room.owners = self._owners.pop(name, {})
        if room.epoch != epoch:
            raise RoomNotFound(f"room {name} has begun anew")
        last = len(room.rows)
        if position > last + 1:
            raise StoreCorrupt(
                f"room {name}: an update at {position} cannot follow one at {last}"
            )
        for at in range(last + 1 - position, len(updates)):
            room.rows.append(Row(position + at, milliseconds, authors[at], updates[at]))

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        known = self._rooms.get(room)
        stored = known.owners if known else self._owners.setdefault(room, {})
        for client, principal in owners.items():
            stored.setdefault(client, principal)

    async def load(self, room: str) -> Stored:
        fence = next(self._fences)
        known = self._rooms.get(room)
        if known is None:
            return Stored("", 0, None, (), {}, fence)
        checkpoint = known.checkpoints[-1] if known.checkpoints else None
        tail = [
            (row.position, row.update)
            for row in known.rows[checkpoint.position if checkpoint else 0 :]
            if row.position not in known.rejected
        ]
        return Stored(
            known.epoch, len(known.rows), checkpoint, tail, dict(known.owners), fence
        )

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        known = self._rooms.get(room)
        if known is None or fence < known.fence:
            return False
        newest = known.checkpoints[-1].position if known.checkpoints else 0
        if not newest < checkpoint.position <= len(known.rows):
            return False
        known.checkpoints = [*known.checkpoints[-1:], checkpoint]
        known.fence = fence
        return True

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        if room not in self._rooms:
            raise RoomNotFound(f"there is no room {room}")
        return self._rooms[room].rows[after : after + limit]

    async def rooms(
        self, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> list[RoomInfo]:
        names = sorted(
            name for name in self._rooms if name.startswith(prefix) and name > after
        )
        return [self._info(name, self._rooms[name]) for name in names[:limit]]

    def _info(self, name: str, room: _Room) -> RoomInfo:
        size = sum(len(row.update) for row in room.rows)
        size += sum(len(checkpoint.snapshot) for checkpoint in room.checkpoints)
        newest = room.checkpoints[-1].position if room.checkpoints else 0
        changed = max((row.milliseconds for row in room.rows), default=room.created)
        return RoomInfo(
            name, room.epoch, len(room.rows), newest, size, room.created, changed
        )

    async def reject(self, room: str, position: int, reason: str) -> None:
        if room not in self._rooms:
            raise RoomNotFound(f"there is no room {room}")
        self._rooms[room].rejected[position] = reason

    async def delete(self, room: str) -> None:
        known = self._rooms.pop(room, None)
        self._owners.pop(room, None)
        if known is not None:
            self._tombstones.setdefault(room, set()).add(known.epoch)
            self._tombstone_fences[room] = next(self._fences)

    async def begin_load(self, room: str) -> int:
        earlier = self._loading.get(room, 0)
        self._loading[room] = earlier + 1
        return earlier

    async def end_load(self, room: str) -> None:
        self._loading.pop(room, None)

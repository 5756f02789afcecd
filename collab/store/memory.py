"""A store that keeps everything in memory: for tests, and for servers that need not remember."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, Self

import orjson

from collab.errors import CollabError, Conflict, RoomNotFound, StoreCorrupt
from collab.names import spoken
from collab.store.base import (
    ANSWER_SECONDS,
    DELETED_ROOM_SECONDS,
    MAX_ANSWERS,
    Attributed,
    Checkpoint,
    Clock,
    Done,
    Entry,
    Remembered,
    RoomInfo,
    Row,
    Stored,
    is_landmark,
    wall_clock,
)
from collab.store.records import check_answer, checked_history, encode_metadata


class _Room:
    """One history of a room."""

    def __init__(self, epoch: str, created: int, fence: int) -> None:
        self.epoch, self.created, self.changed = epoch, created, created
        self.rows: list[Row] = []  # the row at position n has index n - 1 - trimmed
        self.trimmed = 0
        self.checkpoints: list[
            Checkpoint
        ] = []  # landmarks and the two newest, in order
        self.attributed: Attributed | None = None
        self.owners: dict[int, str] = {}
        self.rejected: dict[int, str] = {}
        self.metadata = "{}"
        self.history_seconds: int | None = None
        self.fence = fence
        self.origins: dict[str, int] = {}  # the last position that each has counted
        self.deleted: int | None = None
        self.purge = 0  # when a deleted one goes

    @property
    def position(self) -> int:
        return self.trimmed + len(self.rows)

    def after(self, position: int) -> list[Row]:
        return self.rows[max(0, position - self.trimmed) :]

    def trim(self, before: int) -> None:
        """Forget rows that are older, as far as the older of the two newest checkpoints and the attribution cover them.

        And landmarks that no row follows any more.
        """
        if len(self.checkpoints) < 2:
            return
        covered = self.checkpoints[-2].position
        if self.attributed is not None:
            covered = min(covered, self.attributed.position)
        old = 0
        while old < covered - self.trimmed and self.rows[old].milliseconds < before:
            old += 1
        del self.rows[:old]
        self.trimmed += old
        self.checkpoints = [
            each for each in self.checkpoints if each.position >= self.trimmed
        ]


class _Answer(NamedTuple):
    milliseconds: int
    remembered: Remembered


class MemoryStore:
    """Keeps the whole contract, except that nothing outlives the process. Shared, it serves several replicas in one."""

    def __init__(
        self,
        *,
        is_shared: bool = False,
        deleted_room_seconds: float = DELETED_ROOM_SECONDS,
        clock: Clock = wall_clock,
    ) -> None:
        self.is_shared = is_shared
        self.identity = f"memory:{secrets.token_hex(8)}"
        self._next_epochs: dict[str, str] = {}  # of rooms never written to
        self._deleted_room_seconds, self._clock = deleted_room_seconds, clock
        self._rooms: dict[str, _Room] = {}
        self._deleted: dict[str, list[_Room]] = {}  # that can be restored, in order
        self._tombstones: dict[str, set[str]] = {}
        self._tombstone_fences: dict[str, int] = {}
        self._owners: dict[str, dict[int, str]] = {}  # of rooms never written to
        self._answers: dict[str, _Answer] = {}  # in order of time
        self._fences = count(1)
        self._loading: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        call_soon = asyncio.get_running_loop().call_soon
        logged: list[Entry] = []
        take = self._append_shared if self.is_shared else self._append
        for entry in entries:
            try:
                logged.append(take(entry))
            except CollabError as error:
                call_soon(done, (entry,), error)
        if logged:
            call_soon(done, logged, None)

    def _append(self, entry: Entry) -> Entry:
        name, epoch, position, milliseconds, updates, authors = entry[:6]
        room = self._rooms.get(name)
        if room is None:
            if epoch in self._tombstones.get(name, ()):
                raise RoomNotFound(f"room {spoken(name)} was deleted")
            if position != 1:
                raise StoreCorrupt(f"room {spoken(name)} does not begin at {position}")
            room = self._make(name, epoch, milliseconds)
        if room.epoch != epoch:
            raise RoomNotFound(f"room {spoken(name)} has begun anew")
        last = room.position
        if position > last + 1:
            raise StoreCorrupt(
                f"room {spoken(name)}: an update at {position} cannot follow one at {last}"
            )
        for at in range(last + 1 - position, len(updates)):
            room.rows.append(Row(position + at, milliseconds, authors[at], updates[at]))
            room.changed = max(room.changed, milliseconds)
        return entry

    def _append_shared(self, entry: Entry) -> Entry:
        name = entry.room
        room = self._rooms.get(name)
        if room is None:
            if entry.epoch in self._tombstones.get(name, ()):
                raise RoomNotFound(f"room {spoken(name)} was deleted")
            room = self._make(name, entry.epoch, entry.milliseconds)
        if room.epoch != entry.epoch:
            raise RoomNotFound(f"room {spoken(name)} has begun anew")
        known = max(0, room.origins.get(entry.origin, 0) + 1 - entry.position)
        for update, author in list(zip(entry.updates, entry.authors, strict=True))[
            known:
        ]:
            room.rows.append(Row(room.position + 1, entry.milliseconds, author, update))
            room.changed = max(room.changed, entry.milliseconds)
        room.origins[entry.origin] = max(entry.last, room.origins.get(entry.origin, 0))
        return entry._replace(logged=0 if known else room.position)

    def _make(self, name: str, epoch: str, created: int) -> _Room:
        fence = self._tombstone_fences.get(name, 0)
        room = self._rooms[name] = _Room(epoch, created, fence)
        room.owners = self._owners.pop(name, {})
        self._next_epochs.pop(name, None)
        return room

    def _live(self, name: str) -> _Room:
        room = self._rooms.get(name)
        if room is None:
            raise RoomNotFound(f"there is no room {spoken(name)}")
        return room

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        known = self._rooms.get(room)
        stored = known.owners if known else self._owners.setdefault(room, {})
        for client, principal in owners.items():
            stored.setdefault(client, principal)

    async def load(self, room: str) -> Stored:
        fence = next(self._fences)
        known = self._rooms.get(room)
        if known is None:
            next_epoch = ""
            if self.is_shared:
                next_epoch = self._next_epochs.setdefault(room, secrets.token_hex(8))
            return Stored("", 0, None, (), {}, fence, next_epoch)
        checkpoint = known.checkpoints[-1] if known.checkpoints else None
        tail = [
            (row.position, row.update)
            for row in known.after(checkpoint.position if checkpoint else 0)
            if row.position not in known.rejected
        ]
        return Stored(
            known.epoch, known.position, checkpoint, tail, dict(known.owners), fence
        )

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        known = self._rooms.get(room)
        if known is None or fence < known.fence:
            return False
        newest = known.checkpoints[-1].position if known.checkpoints else 0
        if not newest < checkpoint.position <= known.position:
            return False
        _thin(known.checkpoints)
        known.checkpoints.append(checkpoint)
        known.fence = fence
        self._tidy_room(known)
        return True

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        kept = reversed(self._live(room).checkpoints)
        return next((each for each in kept if each.position <= position), None)

    async def attribute(self, room: str, attributed: Attributed, *, fence: int) -> bool:
        known = self._rooms.get(room)
        if known is None or fence < known.fence:
            return False
        last = known.attributed.position if known.attributed else 0
        if not last < attributed.position <= known.position:
            return False
        known.attributed = attributed
        return True

    async def attribution(self, room: str) -> Attributed | None:
        return self._live(room).attributed

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        return self._live(room).after(after)[:limit]

    async def create(
        self,
        room: str,
        metadata: Mapping[str, Any],
        *,
        history_seconds: int | None = None,
        epoch: str = "",
    ) -> RoomInfo:
        encoded, kept = encode_metadata(metadata), checked_history(history_seconds)
        if room in self._rooms:
            raise Conflict("there is a room of this name")
        if epoch in self._tombstones.get(room, ()):
            raise Conflict("this history of the room is over")
        made = self._make(room, epoch or secrets.token_hex(8), self._clock())
        made.metadata, made.history_seconds = encoded, kept
        return _info(room, made)

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        known = self._live(room)
        known.metadata = encode_metadata(metadata)
        return _info(room, known)

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        known = self._live(room)
        known.history_seconds = checked_history(history_seconds)
        return _info(room, known)

    async def info(self, room: str) -> RoomInfo | None:
        known = self._rooms.get(room) or self._last_deleted(room)
        return None if known is None else _info(room, known)

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        return {
            name: self._rooms[name].position for name in rooms if name in self._rooms
        }

    def _last_deleted(self, room: str) -> _Room | None:
        kept = self._deleted.get(room)
        return kept[-1] if kept and kept[-1].purge > self._clock() else None

    async def rooms(
        self,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        deleted: bool = False,
    ) -> list[RoomInfo]:
        found: Mapping[str, _Room | None] = self._rooms
        if deleted:
            found = {name: self._last_deleted(name) for name in self._deleted}
        names = sorted(
            name for name in found if name.startswith(prefix) and name > after
        )
        infos = ((name, found[name]) for name in names)
        return [_info(name, room) for name, room in infos if room is not None][:limit]

    async def reject(self, room: str, position: int, reason: str) -> None:
        self._live(room).rejected[position] = reason

    async def delete(self, room: str, *, purge: bool = False) -> None:
        known = self._rooms.pop(room, None)
        self._owners.pop(room, None)
        if known is not None:
            self._tombstones.setdefault(room, set()).add(known.epoch)
            now = self._clock()
            known.deleted = now
            known.purge = now + int(self._deleted_room_seconds * 1000)
            known.fence = self._tombstone_fences[room] = next(self._fences)
            self._deleted.setdefault(room, []).append(known)
        if purge:
            for each in self._deleted.get(room, ()):
                each.purge = 0
        self._tidy_deleted()

    async def restore(self, room: str) -> RoomInfo:
        if room in self._rooms:
            raise Conflict("there is a room of this name")
        known = self._last_deleted(room)
        if known is None:
            raise RoomNotFound(f"there is no deleted room {spoken(room)}, or no longer")
        self._deleted[room].remove(known)
        self._rooms[room] = known
        known.deleted, known.fence = None, next(self._fences)
        return _info(room, known)

    async def tidy(self) -> None:
        self._tidy_deleted()
        for room in self._rooms.values():
            self._tidy_room(room)
        before = self._clock() - ANSWER_SECONDS * 1000
        old = [key for key, each in self._answers.items() if each.milliseconds < before]
        for key in old:
            del self._answers[key]

    def _tidy_deleted(self) -> None:
        now = self._clock()
        for name, rooms in list(self._deleted.items()):
            kept = [room for room in rooms if room.purge > now]
            if kept:
                self._deleted[name] = kept
            else:
                del self._deleted[name]

    def _tidy_room(self, room: _Room) -> None:
        if room.history_seconds is not None:
            room.trim(self._clock() - room.history_seconds * 1000)

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        check_answer(key, answer)
        self._answers.pop(key, None)
        self._answers[key] = _Answer(self._clock(), Remembered(digest, answer))
        if len(self._answers) > MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]

    async def recall(self, key: str) -> Remembered | None:
        found = self._answers.get(key)
        if found is None or found.milliseconds < self._clock() - ANSWER_SECONDS * 1000:
            return None
        return found.remembered

    async def begin_load(self, room: str) -> int:
        if self.is_shared:  # who shares it ends with it, so nobody's load was cut short
            return 0
        earlier = self._loading.get(room, 0)
        self._loading[room] = earlier + 1
        return earlier

    async def end_load(self, room: str) -> None:
        self._loading.pop(room, None)


def _thin(checkpoints: list[Checkpoint]) -> None:
    """Before one more is there: the older of the two newest stays only as a landmark."""
    if len(checkpoints) > 1:
        before = checkpoints[-3].position if len(checkpoints) > 2 else None
        position, snapshot = checkpoints[-2]
        if not is_landmark(position, len(snapshot), before):
            del checkpoints[-2]


def _info(name: str, room: _Room) -> RoomInfo:
    size = sum(len(row.update) for row in room.rows)
    size += sum(len(checkpoint.snapshot) for checkpoint in room.checkpoints)
    size += len(room.attributed.encoded) if room.attributed else 0
    return RoomInfo(
        name,
        room.epoch,
        room.position,
        room.checkpoints[-1].position if room.checkpoints else 0,
        size,
        room.created,
        room.changed,
        orjson.loads(room.metadata),
        room.history_seconds,
        room.deleted,
    )

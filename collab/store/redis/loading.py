"""Reading rooms from Redis: every record is checked against its checksum before it is believed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from collab import logs
from collab.errors import StoreCorrupt, StoreUnavailable
from collab.names import spoken
from collab.store.base import Checkpoint, Row, Stored
from collab.store.records import Damaged
from collab.store.redis import scripts
from collab.store.redis.entries import (
    Piece,
    checkpoint_checksum,
    unpack_entry,
    unseal,
)
from collab.store.redis.ground import ATTEMPTS, Ground
from collab.store.redis.state import Kept, State

log = logs.logger(__name__)

PAGE = 500  # entries asked for at once
PAGE_BYTES = 4 << 20
MAX_FAILED = 16  # readings of checkpoints, in search of an intact one
# Whose fences are known: a compactor of an older one changes nothing.
MAX_LOADS = 10_000


class Seen(NamedTuple):
    """What a load saw, for the checkpoint that comes of it."""

    epoch: str  # "" where there was no room
    last: int
    mark: bytes  # of the last entry; b"" when there was none


class Loader:
    """Opens rooms, and remembers what it saw by the fence that it gave."""

    def __init__(self, ground: Ground) -> None:
        self.damaged_records = 0
        self._ground = ground
        self._seen: dict[tuple[str, int], Seen] = {}  # in order

    def seen(self, room: str, fence: int) -> Seen | None:
        """None where it is too long ago."""
        return self._seen.get((room, fence))

    def _note(self, room: str, fence: int, seen: Seen) -> None:
        self._seen[room, fence] = seen
        if len(self._seen) > MAX_LOADS:
            del self._seen[next(iter(self._seen))]

    async def load(self, room: str, identity: str) -> Stored:
        """Raises StoreCorrupt when it is not as it was written.

        Another replica may put a checkpoint there, or trim the log, while we read; so damage counts only when the room
        is the same afterwards.
        """
        before: State | None = None
        for _ in range(ATTEMPTS):
            keys = self._ground.keys(room, "room")
            fence, flat = await self._ground.call(room, scripts.OPEN, keys)
            state = State(room, flat)
            if not state.live:
                self._note(room, fence, Seen("", 0, b""))
                return Stored("", 0, None, (), {}, fence, state.next_epoch(identity))
            is_settled = before is not None and state.is_like(before)
            try:
                return await self._load(state, fence, is_settled=is_settled)
            except StoreCorrupt:
                if is_settled:
                    raise
                before = state
        raise StoreUnavailable("the room changes all the time")

    async def _load(self, state: State, fence: int, *, is_settled: bool) -> Stored:
        room, epoch = state.room, state.live
        checkpoint = await self._checkpoint(state, is_settled=is_settled)
        last = start = checkpoint.position if checkpoint else 0
        rejected = state.rejected(epoch)
        tail: list[tuple[int, bytes]] = []
        mark, is_whole = b"", True
        async with aclosing(self._pieces(room, epoch, start)) as pieces:
            async for piece in pieces:
                if piece is None or piece.position > last + 1:
                    is_whole = False
                    break
                for at, update in enumerate(piece.updates, piece.position):
                    if at > last and at not in rejected:
                        tail.append((at, update))
                last, mark = piece.last, piece.mark
        if not is_whole or last < state.number("position", epoch):
            raise StoreCorrupt(
                f"room {spoken(room)}: position {last + 1} is damaged or missing"
            )
        owners = await self._owners(room, epoch)
        self._note(room, fence, Seen(epoch, last, mark))
        return Stored(epoch, last, checkpoint, tail, owners, fence)

    async def _checkpoint(self, state: State, *, is_settled: bool) -> Checkpoint | None:
        """The newest that is intact."""
        for kept in state.checkpoints(state.live):
            snapshot = await self._snapshot(state.room, state.live, kept)
            if snapshot is not None:
                return Checkpoint(kept.position, snapshot)
            if not is_settled:
                raise StoreCorrupt(
                    f"room {spoken(state.room)}: a checkpoint is damaged"
                )
            self.damaged_records += 1
            log.error("damaged checkpoint", room=state.room, position=kept.position)
        return None

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        """The newest intact one with nothing after `position` in it. Raises RoomNotFound.

        One that cannot be read is tried twice: it may have been replaced meanwhile.
        """
        failed: list[Kept] = []
        while len(failed) < MAX_FAILED:
            state = await self._ground.living(room)
            kept = next(
                (
                    each
                    for each in state.checkpoints(state.live)
                    if each.position <= position and failed.count(each) < 2
                ),
                None,
            )
            if kept is None:
                return None
            snapshot = await self._snapshot(room, state.live, kept)
            if snapshot is not None:
                return Checkpoint(kept.position, snapshot)
            if kept in failed:
                self.damaged_records += 1
                log.error("damaged checkpoint", room=room, position=kept.position)
            failed.append(kept)
        return None

    async def _snapshot(self, room: str, epoch: str, kept: Kept) -> bytes | None:
        (key,) = self._ground.keys(room, f"{epoch}:{kept.place}")
        snapshot = await self._ground.pieces(key, kept.pieces)
        checksum = checkpoint_checksum(room, epoch, kept.position, snapshot)
        return snapshot if checksum == kept.checksum else None

    async def _owners(self, room: str, epoch: str) -> dict[int, str]:
        (key,) = self._ground.keys(room, f"{epoch}:owners")
        owners = {}
        for client, record in (await self._ground.run("HGETALL", key)).items():
            try:
                owners[int(client)] = unseal(room, client.decode(), record)
            except (Damaged, ValueError):
                log.error("damaged owner", room=room)
        return owners

    async def _pieces(
        self, room: str, epoch: str, after: int
    ) -> AsyncGenerator[Piece | None, None]:
        """Entries with positions greater than `after`, in order; None for one that is damaged."""
        keys = self._ground.keys(room, f"{epoch}:log")
        start, is_more = f"{after + 1}-0", 1
        while is_more:
            is_more, page = await self._ground.call(
                room, scripts.PAGE, keys, start, PAGE, PAGE_BYTES
            )
            for place, words in page:
                fields = dict(zip(words[::2], words[1::2], strict=True))
                try:
                    yield unpack_entry(room, epoch, place, fields)
                except Damaged:
                    yield None
            if page:
                start = f"({page[-1][0].decode()}"

    async def history(self, room: str, after: int, limit: int) -> list[Row]:
        """Raises RoomNotFound. Damaged rows are left out."""
        epoch = (await self._ground.living(room)).live
        rows: list[Row] = []
        async with aclosing(self._pieces(room, epoch, after)) as pieces:
            async for piece in pieces:
                if piece is None:
                    self.damaged_records += 1
                    log.error("damaged records left aside", room=room, records=1)
                    continue
                rows += (
                    Row(at, piece.milliseconds, author, update)
                    for at, (author, update) in enumerate(
                        zip(piece.authors, piece.updates, strict=True), piece.position
                    )
                    if at > after
                )
                if len(rows) >= limit:
                    break
        return rows[:limit]

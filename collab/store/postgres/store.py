"""The Postgres store: any number of replicas append to the same rooms."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from collab import logs
from collab.errors import (
    Conflict,
    RoomNotFound,
    StoreUnavailable,
)
from collab.names import spoken
from collab.store.base import (
    DELETED_ROOM_SECONDS,
    LANDMARK_BYTES,
    LANDMARK_ROWS,
    Attributed,
    Checkpoint,
    Clock,
    Done,
    Entry,
    Remembered,
    RoomInfo,
    Row,
    Stored,
    wall_clock,
)
from collab.store.postgres import reading
from collab.store.postgres.connections import Connections, allow
from collab.store.postgres.records import (
    about_checksum,
    attribution_checksum,
    checkpoint_checksum,
    room_checksum,
)
from collab.store.postgres.schema import FORMAT, prepare
from collab.store.postgres.tidying import tidy, tidy_sometimes
from collab.store.postgres.writer import Writer
from collab.store.records import check_answer, checked_history, encode_metadata

log = logs.logger(__name__)

PREPARE_SECONDS = 60.0  # that a replica waits until the tables are up to date

# A load is under way as long as its process has a connection. Of processes that have none the notes are counted, as
# one crash however many they are: those of a process that lives, but was cut off for a moment, may be among them.
_BEGIN_LOAD = """
    WITH gone AS (
        DELETE FROM collab.load l WHERE room = $1 AND process <> $2 AND NOT EXISTS (
            SELECT FROM pg_stat_activity a WHERE a.application_name = l.process
        ) RETURNING 1
    ), noted AS (
        INSERT INTO collab.load (room, process, begun) VALUES ($1, $2, $3)
        ON CONFLICT (room, process) DO UPDATE SET begun = excluded.begun
    ), counted AS (
        INSERT INTO collab.crash AS c (room, loads, changed) SELECT $1, 1, $3 FROM gone LIMIT 1
        ON CONFLICT (room) DO UPDATE SET loads = c.loads + 1, changed = excluded.changed RETURNING loads
    )
    SELECT coalesce((SELECT loads FROM counted), (SELECT loads FROM collab.crash WHERE room = $1), 0)
"""
_END_LOADS = """
    WITH ended AS (DELETE FROM collab.load WHERE room = ANY ($1) AND process = $2)
    DELETE FROM collab.crash WHERE room = ANY ($1)
"""
_ATTRIBUTE = """
    INSERT INTO collab.attribution AS a (room, position, crc, encoded)
    SELECT r.id, $4, $5, $6 FROM collab.room r
    WHERE r.id = $1 AND r.deleted IS NULL AND r.fence <= $2 AND r.format <= $3 AND r.position >= $4 AND $4 > 0
    FOR NO KEY UPDATE
    ON CONFLICT (room) DO UPDATE SET position = excluded.position, crc = excluded.crc, encoded = excluded.encoded
    WHERE a.position < excluded.position RETURNING true
"""
_DROP_ATTRIBUTION = "DELETE FROM collab.attribution WHERE room = $1 AND crc = $2"
_MAX_HEADS = 10_000  # loads of which it is known where they ended; the oldest give way
_MAX_ENDED = 10_000  # loads that ended while Postgres was away


class PostgresStore:
    """Keeps rooms in the schema `collab` of one database.

    Needs a session of its own per connection: a pooler between must not share them among transactions.
    """

    is_shared = True

    def __init__(
        self,
        dsn: str,
        *,
        password_file: Path | None = None,
        window_seconds: float = 0.006,
        deleted_room_seconds: float = DELETED_ROOM_SECONDS,
        clock: Clock = wall_clock,
    ) -> None:
        self.identity = ""
        self.damaged_records = 0  # met and left aside
        self._process = f"collab-{secrets.token_hex(8)}"
        self._connections = Connections(dsn, password_file, process=self._process)
        self._writer = Writer(
            self._connections, window_seconds=window_seconds, clock=clock
        )
        self._clock, self._deleted_room_seconds = clock, deleted_room_seconds
        self._heads: dict[int, tuple[int, int]] = {}  # fence → last position, checksum
        self._ended: set[str] = set()  # loads whose notes could not be removed yet
        self._purged = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises ConfigurationError (a newer or foreign database, a wrong password) or StoreUnavailable."""
        db = await self._connections.first()
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                self.identity = f"postgres:{await prepare(db)}"
                promise, is_good = await reading.promise(db)
        except BaseException as error:
            db.terminate()
            if isinstance(error, TimeoutError | asyncpg.PostgresError | OSError):
                raise StoreUnavailable(
                    f"Postgres could not be prepared: {error}"
                ) from None
            raise
        say = log.info if is_good else log.warning
        say("saved means committed in postgres", survives=promise)
        self._writer.adopt(db)
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        writing = tasks.create_task(self._writer.run())
        tidying = tasks.create_task(tidy_sometimes(self._tidy, self._purged))
        self._stack.push_async_callback(self._settle, writing, tidying)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()
        await self._connections.close()

    async def _settle(
        self, writing: asyncio.Task[None], tidying: asyncio.Task[None]
    ) -> None:
        tidying.cancel()
        self._writer.close()
        await asyncio.wait([writing, tidying])

    # Writing

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._writer.append(entries, done)

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        """Of a room that has never been written to, they are stored with the first entry of this process."""
        await self._writer.bind(room, owners)

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        check_answer(key, answer)
        await self._writer.remember(key, digest, answer)

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        position, snapshot = checkpoint
        now = self._clock()
        at, head = self._heads.get(fence, (0, None))
        async with self._connections.borrowed() as (db, limit):
            live = await reading.find(db, room)
            if live is None or fence < live.fence or position > live.position:
                return False
            allow(limit, len(snapshot))
            is_stored: bool = await db.fetchval(
                "SELECT collab.checkpoint_2($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                live.id,
                position,
                fence,
                now,
                checkpoint_checksum(live.key, position, now, snapshot),
                snapshot,
                head if at == position else None,
                LANDMARK_ROWS,
                LANDMARK_BYTES,
            )
            return is_stored

    async def attribute(self, room: str, attributed: Attributed, *, fence: int) -> bool:
        position, encoded = attributed
        async with self._connections.borrowed() as (db, limit):
            live = await reading.find(db, room)
            if live is None:
                return False
            _, damaged = await reading.attribution(db, live, limit)
            if damaged is not None:
                await db.execute(_DROP_ATTRIBUTION, live.id, damaged)
            allow(limit, len(encoded))
            checksum = attribution_checksum(live.key, position, encoded)
            is_stored: bool | None = await db.fetchval(
                _ATTRIBUTE, live.id, fence, FORMAT, position, checksum, encoded
            )
            return is_stored is not None

    async def reject(self, room: str, position: int, reason: str) -> None:
        async with self._connections.borrowed() as (db, _):
            live = await reading.living(db, room)
            await db.execute(
                "INSERT INTO collab.rejected VALUES ($1, $2, $3, $4) ON CONFLICT (room, position) DO UPDATE"
                " SET reason = excluded.reason, milliseconds = excluded.milliseconds",
                live.id,
                position,
                reason,
                self._clock(),
            )

    async def create(
        self,
        room: str,
        metadata: Mapping[str, Any],
        *,
        history_seconds: int | None = None,
        epoch: str = "",
    ) -> RoomInfo:
        encoded, kept = encode_metadata(metadata), checked_history(history_seconds)
        now = self._clock()
        async with self._connections.borrowed() as (db, _):
            epoch = epoch or await reading.next_epoch(db, room, self.identity)
            number = await db.fetchval(
                "INSERT INTO collab.room (name, epoch, created, crc, changed, fence) VALUES ($1, $2, $3, $4, $3,"
                " (SELECT coalesce(max(fence), 0) FROM collab.room WHERE name = $1))"
                " ON CONFLICT DO NOTHING RETURNING id",
                room,
                epoch,
                now,
                room_checksum(room, epoch, now),
            )
            if number is None:
                is_live = await reading.find(db, room) is not None
                raise Conflict(
                    "there is a room of this name"
                    if is_live
                    else "this history of the room is over"
                )
            live = await reading.living(db, room)
            await _say(db, live, "metadata", encoded)
            if kept is not None:
                await _say(db, live, "history", kept)
            made = await reading.info(db, number)
        owners = self._writer.forget(room)
        if owners:
            await self.bind(room, owners)
        return made

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        return await self._say(room, "metadata", encode_metadata(metadata))

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        return await self._say(room, "history", checked_history(history_seconds))

    async def _say(self, room: str, what: str, said: str | int | None) -> RoomInfo:
        async with self._connections.borrowed() as (db, _):
            live = await reading.living(db, room)
            await _say(db, live, what, said)
            return await reading.info(db, live.id)

    async def delete(self, room: str, *, purge: bool = False) -> None:
        self._writer.forget(room)
        now = self._clock()
        async with self._connections.borrowed() as (db, _):
            # The fence keeps a compactor of this history from touching the next one.
            await db.execute(
                "UPDATE collab.room SET deleted = $2, purge = $3, fence = nextval('collab.fence')"
                " WHERE name = $1 AND deleted IS NULL",
                room,
                now,
                now + int(self._deleted_room_seconds * 1000),
            )
            if purge:
                await db.execute(
                    "UPDATE collab.room SET purge = 0 WHERE name = $1 AND deleted IS NOT NULL AND NOT is_purged",
                    room,
                )
        if purge:
            self._purged.set()

    async def restore(self, room: str) -> RoomInfo:
        async with self._connections.borrowed() as (db, _):
            if await reading.find(db, room) is not None:
                raise Conflict("there is a room of this name")
            now = self._clock()
            deleted = await reading.find_deleted(db, room, now)
            restored = deleted and await _restored(db, deleted.id, now)
            if not restored:
                raise RoomNotFound(
                    f"there is no deleted room {spoken(room)}, or no longer"
                )
            return await reading.info(db, restored)

    async def tidy(self) -> None:
        """In many small commits, so that appends are not held up."""
        await self._tidy()

    async def _tidy(self) -> None:
        await tidy(self._connections, self._clock)

    # Reading

    async def load(self, room: str) -> Stored:
        async with self._snapshot() as (db, limit):
            loaded = await reading.load(db, room, self.identity, limit)
        self._count_damaged(room, loaded.damaged)
        stored = loaded.stored
        if loaded.head is not None:
            if len(self._heads) >= _MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[stored.fence] = (stored.position, loaded.head)
        return stored

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        async with self._snapshot() as (db, time_limit):
            rows, damaged = await reading.history(db, room, after, limit, time_limit)
        self._count_damaged(room, damaged)
        return rows

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        async with self._snapshot() as (db, limit):
            live = await reading.living(db, room)
            found, _ = await reading.newest(db, live, limit, until=position)
            return found

    async def attribution(self, room: str) -> Attributed | None:
        async with self._snapshot() as (db, limit):
            live = await reading.living(db, room)
            known, _ = await reading.attribution(db, live, limit)
            return known

    async def rooms(
        self,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        deleted: bool = False,
    ) -> list[RoomInfo]:
        now = self._clock()
        async with self._connections.borrowed() as (db, _):
            return await reading.rooms(
                db, prefix, after, limit, now=now, deleted=deleted
            )

    async def info(self, room: str) -> RoomInfo | None:
        async with self._connections.borrowed() as (db, _):
            return await reading.info_of(db, room, self._clock())

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        async with self._connections.borrowed() as (db, _):
            rows = await db.fetch(
                "SELECT name, position FROM collab.room WHERE deleted IS NULL AND name = ANY($1)",
                list(rooms),
            )
        return dict(map(tuple, rows))

    async def recall(self, key: str) -> Remembered | None:
        async with self._connections.borrowed() as (db, _):
            return await reading.recall(db, key, self._clock())

    def _count_damaged(self, room: str, damaged: int) -> None:
        if damaged:
            self.damaged_records += damaged
            log.error("damaged records left aside", room=room, records=damaged)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[Any, asyncio.Timeout]]:
        """One state of the database, so that what is committed in between is not seen by halves."""
        async with self._connections.borrowed() as (db, limit):
            async with db.transaction(isolation="repeatable_read"):
                yield db, limit

    # Notes of loads

    async def begin_load(self, room: str) -> int:
        """Counts only loads of processes that are gone: one under way on another replica is no crash."""
        async with self._connections.borrowed() as (db, _):
            await self._end_loads(db)
            crashed: int = await db.fetchval(
                _BEGIN_LOAD, room, self._process, self._clock()
            )
            return crashed

    async def end_load(self, room: str) -> None:
        """Where Postgres cannot be told now, it is told at the next load."""
        if len(self._ended) < _MAX_ENDED:
            self._ended.add(room)
        try:
            async with self._connections.borrowed() as (db, _):
                await self._end_loads(db)
        except StoreUnavailable as error:
            log.warning("the end of a load was not noted", reason=str(error))

    async def _end_loads(self, db: Any) -> None:
        if self._ended:
            ended = sorted(self._ended)
            await db.execute(_END_LOADS, ended, self._process)
            self._ended.difference_update(ended)


async def _say(db: Any, live: reading.Live, what: str, said: str | int | None) -> None:
    """`what` names two columns, the one with a checksum over the other."""
    checksum = None if said is None else about_checksum(live.key, str(said))
    await db.execute(
        f"UPDATE collab.room SET {what} = $2, {what}_crc = $3 WHERE id = $1",
        live.id,
        said,
        checksum,
    )


async def _restored(db: Any, number: int, now: int) -> int | None:
    """Undo a deletion. The fence keeps out a compactor of a history that lay between."""
    try:
        found: int | None = await db.fetchval(
            "UPDATE collab.room SET deleted = NULL, purge = NULL, fence = nextval('collab.fence')"
            " WHERE id = $1 AND deleted IS NOT NULL AND NOT is_purged AND purge > $2 RETURNING id",
            number,
            now,
        )
    except asyncpg.UniqueViolationError:
        raise Conflict("there is a room of this name") from None
    return found

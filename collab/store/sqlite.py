"""The SQLite store: one file, one writer thread, one reader thread."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from collab import logs
from collab.errors import RoomNotFound, StoreUnavailable
from collab.store import reading, writing
from collab.store.base import (
    DELETED_ROOM_SECONDS,
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
from collab.store.directory import Directory
from collab.store.records import check_answer, checked_history, encode_metadata
from collab.store.schema import check_current, connect
from collab.store.writer import Append, Job, Writer

log = logs.logger(__name__)

T = TypeVar("T")


class SqliteStore:
    """Keeps rooms in `<directory>/collab.db`, which one process has open at a time.

    With `is_read_only` it takes no lock and writes nothing, and so may look at the directory of a running
    server. `factory` makes the connections; tests hand in one that fails.
    """

    is_shared = False

    def __init__(
        self,
        directory: Path,
        *,
        window_seconds: float = 0.006,
        sweep_seconds: float = 2.0,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        reserve_bytes: int = 16 * 1024 * 1024,
        busy_seconds: float = 5.0,
        is_read_only: bool = False,
        deleted_room_seconds: float = DELETED_ROOM_SECONDS,
        clock: Clock = wall_clock,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.damaged_records = 0  # met and left aside, since a checkpoint covers them
        self._directory = Directory(directory, reserve_bytes=reserve_bytes)
        self.identity = f"sqlite:{socket.gethostname()}:{directory.absolute()}"
        self._window_seconds, self._sweep_seconds = window_seconds, sweep_seconds
        self._connect = partial(
            connect,
            self._directory.database,
            synchronous=synchronous,
            busy_seconds=busy_seconds,
            factory=factory,
        )
        self._is_read_only = is_read_only
        self._clock, self._deleted_room_seconds = clock, deleted_room_seconds
        self._generation = 0
        self._fences = count(1)  # of a store that cannot make checkpoints anyway
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    async def __aenter__(self) -> Self:
        """Raises StoreLocked, StoreCorrupt, ConfigurationError (a newer file) or StoreUnavailable."""
        if self._is_read_only:
            await self._read(lambda db: check_current(db, self._directory.database))
            return self
        try:
            self._directory.lock()
        except OSError as error:
            raise StoreUnavailable(
                f"the data directory cannot be opened: {error}"
            ) from None
        self._writer = writer = Writer(
            self._directory,
            asyncio.get_running_loop(),
            window_seconds=self._window_seconds,
            sweep_seconds=self._sweep_seconds,
            deleted_room_seconds=self._deleted_room_seconds,
            clock=self._clock,
            connect=self._connect,
            failed=self._failed,
        )
        writer.start()
        try:
            await writer.opened
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # The reader first: who closes last empties the write-ahead log, and a reader may not.
        self._reading.shutdown()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._writer is not None:
            self._writer.queue.put(None)
            await asyncio.shield(self._writer.closed)
            self._writer = None
        self._directory.unlock()

    # Writing

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._open_writer().queue.put(Append(self._generation, entries, done))

    async def bind(self, room: str, owners: dict[int, str]) -> None:
        """Of a room that has never been written to, they are stored with its first entry."""
        await self._write(lambda writer: writer.bind(room, owners))

    async def checkpoint(
        self, room: str, checkpoint: Checkpoint, *, fence: int
    ) -> bool:
        return await self._write(
            lambda writer: writer.checkpoint(room, checkpoint, fence)
        )

    async def attribute(self, room: str, attributed: Attributed, *, fence: int) -> bool:
        return await self._write(
            lambda writer: writer.attribute(room, attributed, fence)
        )

    async def reject(self, room: str, position: int, reason: str) -> None:
        await self._write(
            lambda writer: writing.reject(writer.db, room, position, reason, writer.now)
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
        return await self._write(
            lambda writer: writer.create(room, encoded, kept, epoch)
        )

    async def describe(self, room: str, metadata: Mapping[str, Any]) -> RoomInfo:
        encoded = encode_metadata(metadata)
        return await self._write(
            lambda writer: writing.describe(writer.db, room, encoded)
        )

    async def retain(self, room: str, history_seconds: int | None) -> RoomInfo:
        kept = checked_history(history_seconds)
        return await self._write(lambda writer: writing.retain(writer.db, room, kept))

    async def delete(self, room: str, *, purge: bool = False) -> None:
        await self._write(lambda writer: writer.delete(room, purge))

    async def restore(self, room: str) -> RoomInfo:
        return await self._write(
            lambda writer: writing.restore(
                writer.db, room, fence=writer.next_fence(), now=writer.now
            )
        )

    async def tidy(self) -> None:
        """In many small commits, so that appends are not held up."""
        is_done = await self._write(lambda writer: writer.tidy(is_first=True))
        while not is_done:
            is_done = await self._write(lambda writer: writer.tidy(is_first=False))

    async def remember(self, key: str, digest: bytes, answer: bytes) -> None:
        check_answer(key, answer)
        await self._write(
            lambda writer: writing.remember(writer.db, key, digest, answer, writer.now)
        )

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable("the store is not open for writing")
        return self._writer

    async def _write(self, run: Callable[[Writer], T]) -> T:
        writer = self._open_writer()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        writer.queue.put(Job(run, answer))
        return await answer

    def _failed(self, generation: int) -> None:
        self._generation = generation

    # Reading

    async def load(self, room: str) -> Stored:
        fence = self._writer.next_fence() if self._writer else next(self._fences)
        stored, damaged = await self._read(lambda db: reading.load(db, room, fence))
        self._count_damaged(room, damaged)
        return stored

    async def history(
        self, room: str, *, after: int = 0, limit: int = 1000
    ) -> list[Row]:
        rows, damaged = await self._read(
            lambda db: reading.history(db, room, after, limit)
        )
        self._count_damaged(room, damaged)
        return rows

    async def checkpoint_before(self, room: str, position: int) -> Checkpoint | None:
        return await self._read(
            lambda db: reading.checkpoint_before(db, room, position)
        )

    async def attribution(self, room: str) -> Attributed | None:
        return await self._read(lambda db: reading.attribution(db, room))

    async def rooms(
        self,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        deleted: bool = False,
    ) -> list[RoomInfo]:
        now = self._clock()
        return await self._read(
            lambda db: reading.rooms(db, prefix, after, limit, now=now, deleted=deleted)
        )

    async def info(self, room: str) -> RoomInfo | None:
        now = self._clock()
        return await self._read(lambda db: reading.info_of(db, room, now))

    async def ends(self, rooms: Sequence[str]) -> dict[str, int]:
        return await self._read(lambda db: reading.ends(db, rooms))

    async def recall(self, key: str) -> Remembered | None:
        now = self._clock()
        return await self._read(lambda db: reading.recall(db, key, now))

    def _count_damaged(self, room: str, damaged: int) -> None:
        if damaged:
            self.damaged_records += damaged
            log.error("damaged records left aside", room=room, records=damaged)

    async def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_reading_thread(self._read_now, run)

    def _read_now(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """One read transaction, so that a sweep or checkpoint in between is not seen by halves."""
        try:
            if self._reader is None:
                self._reader = self._connect(is_read_only=True)
            self._reader.execute("BEGIN")
            try:
                return run(self._reader)
            finally:
                self._reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
            elif self._is_read_only and not self._directory.database.exists():
                raise RoomNotFound(
                    f"there is no store in {self._directory.path}"
                ) from None
            raise reading.translate(error, "the store cannot be read") from None

    # Notes of loads

    async def begin_load(self, room: str) -> int:
        return await self._in_reading_thread(self._directory.begin_load, room)

    async def end_load(self, room: str) -> None:
        await self._in_reading_thread(self._directory.end_load, room)

    async def _in_reading_thread(
        self, function: Callable[..., T], *arguments: Any
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, function, *arguments)

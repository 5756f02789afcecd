"""The queue of what is appended: one transaction at a time, on a connection of its own, one round trip for each."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from collab import logs
from collab.errors import (
    CollabError,
    RoomNotFound,
    RoomUnavailable,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import spoken
from collab.store.base import MAX_ANSWERS, Author, Clock, Done, Entry
from collab.store.postgres.connections import Connections, allow, close, deadline
from collab.store.postgres.records import (
    encode_author,
    owner_checksum,
    room_checksum,
    room_key,
    row_checksum,
)
from collab.store.postgres.schema import FORMAT
from collab.store.records import answer_checksum

log = logs.logger(__name__)

MAX_BATCH_UPDATES = 5_000  # of one transaction; a larger entry goes alone
MAX_BATCH_BYTES = 4 << 20
_MAX_AUTHORS = 4_000  # remembered as they are written
_MAX_OWNED = (
    10_000  # rooms never written to whose owners are remembered; the oldest give way
)

_APPEND = """
    SELECT entry, format, last, added FROM collab.append_1(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15
    )
"""
_REMEMBER = """
    INSERT INTO collab.answer AS a (key, milliseconds, digest, answer, crc)
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[])
    ON CONFLICT (key) DO UPDATE SET n = excluded.n, milliseconds = excluded.milliseconds, digest = excluded.digest,
        answer = excluded.answer, crc = excluded.crc
    RETURNING n
"""


class _Append(NamedTuple):
    entry: Entry
    done: Done


class _Bind(NamedTuple):
    room: str
    owners: dict[int, str]
    answer: asyncio.Future[None]


class _Remember(NamedTuple):
    key: str
    digest: bytes
    content: bytes
    answer: asyncio.Future[None]


_Item = _Append | _Bind | _Remember
Verdict = tuple[Entry, CollabError | None]


class Columns:
    """A batch as the arrays that `append_1` takes."""

    def __init__(self) -> None:
        self.entries: tuple[list[Any], ...] = ([], [], [], [], [])
        self.updates: tuple[list[Any], ...] = ([], [], [], [], [])
        self.owners: tuple[list[Any], ...] = ([], [], [], [])
        self.size = 0


class Writer:
    """Takes what is appended and commits it, at most once per window; `run` is its only task.

    Its queue is bounded by those who append: they wait for the answer before they give up an entry.
    """

    def __init__(
        self, connections: Connections, *, window_seconds: float, clock: Clock
    ) -> None:
        self._connections, self._clock = connections, clock
        self._window = window_seconds
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._last = 0.0
        self._db: Any = None
        self._authors: dict[Author, bytes] = {}
        self._owned: dict[str, dict[int, str]] = {}  # of rooms never written to

    # From the loop

    def adopt(self, db: Any) -> None:
        """Use this connection, until it fails."""
        self._db = db

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._put([_Append(entry, done) for entry in entries])

    def bind(self, room: str, owners: dict[int, str]) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put([_Bind(room, owners, answer)])
        return answer

    def remember(self, key: str, digest: bytes, content: bytes) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put([_Remember(key, digest, content, answer)])
        return answer

    def forget(self, room: str) -> dict[int, str]:
        """The owners that wait for this room's first entry; they wait no more."""
        return self._owned.pop(room, {})

    def close(self) -> None:
        """Let `run` end once the queue is empty."""
        self._is_closing = True
        self._wake.set()

    def _put(self, items: Sequence[_Item]) -> None:
        if self._is_closing:
            raise StoreUnavailable("the store is not open for writing")
        self._queue.extend(items)
        self._wake.set()

    # The task

    async def run(self) -> None:
        try:
            while await self._turn():
                pass
        finally:
            if self._db is not None:
                await close(self._db)

    async def _turn(self) -> bool:
        await self._wake.wait()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._last + self._window - loop.time()))
        self._last = loop.time()
        batch = self._take()
        if batch:
            try:
                await self._write(batch)
            except StoreUnavailable as error:
                self._fail(batch, error)
            except Exception:
                log.exception("the store failed")
                self._fail(batch, StoreUnavailable("the store failed by its own fault"))
        if not self._queue:
            if self._is_closing:
                return False
            self._wake.clear()
        return True

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        updates = size = 0
        while self._queue and updates < MAX_BATCH_UPDATES and size < MAX_BATCH_BYTES:
            item = self._queue[0]
            if isinstance(item, _Append):
                updates += len(item.entry.updates) + 1
                size += sum(map(len, item.entry.updates))
                if batch and (updates > MAX_BATCH_UPDATES or size > MAX_BATCH_BYTES):
                    break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[_Item]) -> None:
        appends = [item for item in batch if isinstance(item, _Append)]
        binds = [item for item in batch if isinstance(item, _Bind)]
        remembers = [item for item in batch if isinstance(item, _Remember)]
        if appends or binds:
            verdicts = await self._append(
                [item.entry for item in appends], [item[:2] for item in binds]
            )
            _answer(appends, verdicts)
        for bind in binds:
            _settle(bind.answer)
        if remembers:
            try:
                await self._remember(remembers)
            except StoreUnavailable as error:
                self._fail(remembers, error)  # the rest is in the log
            for each in remembers:
                _settle(each.answer)

    def _fail(self, batch: Sequence[_Item], error: StoreUnavailable) -> None:
        """This batch and all that is queued behind it: nothing overtakes."""
        log.error("commit failed", error=str(error))
        items = [*batch, *self._queue]
        self._queue.clear()
        appends = [item for item in items if isinstance(item, _Append)]
        _answer(appends, [(item.entry, error) for item in appends])
        for item in items:
            if not isinstance(item, _Append):
                _settle(item.answer, error)

    # Commits

    async def _append(
        self, entries: list[Entry], binds: list[Any]
    ) -> list[tuple[Entry, CollabError | None]]:
        """What became of each entry, in their order. Raises StoreUnavailable when nothing is known to be logged."""
        columns, refused = self._packed(entries, binds)
        try:
            lines = await self._call(columns)
        except asyncpg.DataError as error:
            # Only the server knows which of them it cannot take.
            if len(entries) + len(binds) > 1:
                verdicts = []
                for entry in entries:
                    verdicts += await self._append([entry], [])
                for bind in binds:
                    await self._append([], [bind])
                return verdicts
            return [(entry, _unstorable(entry, error)) for entry in entries]
        found = {line["entry"]: line for line in lines}
        for room in set(columns.owners[0]):
            self._owned.pop(room, None)
        for number, room in enumerate(columns.owners[0], 1):
            if -number in found:
                self._keep(
                    room, columns.owners[1][number - 1], columns.owners[2][number - 1]
                )
        verdicts, number = [], 0
        for at, entry in enumerate(entries):
            if at in refused:
                verdicts.append((entry, refused[at]))
            else:
                number += 1
                verdicts.append(_verdict(entry, found[number]))
        return verdicts

    def _packed(
        self, entries: list[Entry], binds: list[Any]
    ) -> tuple[Columns, dict[int, CollabError]]:
        columns = Columns()
        refused: dict[int, CollabError] = {}
        seen: dict[tuple[str, str, str], int] = {}
        for at, entry in enumerate(entries):
            try:
                self._pack(entry, columns, seen)
            except (ValueError, TypeError, OverflowError, struct.error) as error:
                refused[at] = _unstorable(entry, error)
        owners = [(entry.room, self._owned.get(entry.room, {})) for entry in entries]
        for room, owned in [*owners, *binds]:
            for client, principal in owned.items():
                crc = owner_checksum(room, client, principal)
                _extend(columns.owners, (room, client, principal, crc))
        return columns, refused

    def _pack(
        self, entry: Entry, columns: Columns, seen: dict[tuple[str, str, str], int]
    ) -> None:
        """Adds all of the entry or, when it raises, nothing."""
        room, epoch, first, milliseconds, updates, authors, origin, _ = entry
        for text in (room, epoch, origin):
            if "\0" in text:
                raise ValueError("a name holds NUL")
        stream = (room, epoch, origin)
        known = seen.get(stream, 0)  # what this batch holds twice
        key, of_entry = room_key(room, epoch), len(columns.entries[0]) + 1
        rows, size = [], 0
        for number, (update, author) in enumerate(
            zip(updates, authors, strict=True), first
        ):
            if number > known:
                who = self._authors.get(author) or self._encoded(author)
                crc = row_checksum(key, milliseconds, who, update)
                rows.append((of_entry, number, who.decode(), crc, update))
                size += len(update) + len(who)
        checksum = room_checksum(room, epoch, milliseconds)
        _extend(columns.entries, (room, epoch, origin, milliseconds, checksum))
        for row in rows:
            _extend(columns.updates, row)
        columns.size += size
        seen[stream] = max(known, entry.last)

    def _encoded(self, author: Author) -> bytes:
        if len(self._authors) >= _MAX_AUTHORS:
            self._authors.clear()
        encoded = self._authors[author] = encode_author(author)
        return encoded

    def _keep(self, room: str, client: int, principal: str) -> None:
        if room not in self._owned and len(self._owned) >= _MAX_OWNED:
            del self._owned[next(iter(self._owned))]
        self._owned.setdefault(room, {}).setdefault(client, principal)

    async def _call(self, columns: Columns) -> list[Any]:
        """One round trip, one transaction. Raises StoreUnavailable, and DataError for a value Postgres does not take."""
        arrays = (*columns.entries, *columns.updates, *columns.owners)
        refusal: asyncpg.DataError | None = None
        async with deadline() as limit:
            try:
                db = await self._connected()
                allow(limit, columns.size)
                found: list[Any] = await db.fetch(_APPEND, *arrays, self._clock())
                return found
            except asyncpg.DataError as error:
                refusal = error
            except BaseException:
                self._drop()  # what it would say next is unknown
                raise
        raise refusal

    async def _remember(self, items: list[_Remember]) -> None:
        latest = {item.key: item for item in items}
        now = self._clock()
        rows = [
            (
                item.key.encode(),
                now,
                item.digest,
                item.content,
                answer_checksum(item.key, now, item.digest, item.content),
            )
            for item in latest.values()
        ]
        async with deadline():
            try:
                db = await self._connected()
                numbers = await db.fetch(_REMEMBER, *map(list, zip(*rows, strict=True)))
                last = max(number for (number,) in numbers)
                await db.execute(
                    "DELETE FROM collab.answer WHERE n <= $1", last - MAX_ANSWERS
                )
            except BaseException:
                self._drop()
                raise

    async def _connected(self) -> Any:
        if self._db is None or self._db.is_closed():
            self._db = None
            self._db = await self._connections.connect()
        return self._db

    def _drop(self) -> None:
        if self._db is not None:
            self._db.terminate()
            self._db = None


def _extend(columns: tuple[list[Any], ...], row: Sequence[Any]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)


def _verdict(entry: Entry, line: Any) -> Verdict:
    if not line["format"]:
        return entry, RoomNotFound(
            f"this history of room {spoken(entry.room)} is over: it was deleted or has begun anew"
        )
    if line["format"] > FORMAT:
        return entry, newer_room(entry.room)
    is_all = line["added"] == len(entry.updates)
    return entry._replace(logged=line["last"] if is_all else 0), None


def newer_room(room: str) -> RoomUnavailable:
    """Why a room is left alone whose records have a format that this program does not know."""
    return RoomUnavailable(
        f"room {spoken(room)} was written by a newer version: a replica of that version opens it"
    )


def _unstorable(entry: Entry, error: Exception) -> StoreCorrupt:
    return StoreCorrupt(
        f"room {spoken(entry.room)}: an entry cannot be stored: {error}"
    )


def _answer(appends: list[_Append], verdicts: list[Verdict]) -> None:
    """In the order of the calls; neighbours with the same callback and fate are answered together."""
    at = 0
    while at < len(appends):
        done, error = appends[at].done, verdicts[at][1]
        answered = []
        while (
            at < len(appends)
            and appends[at].done == done
            and (verdicts[at][1] is error)
        ):
            answered.append(verdicts[at][0])
            at += 1
        try:
            done(answered, error)
        except Exception:
            log.exception("an answer was not taken")


def _settle(answer: asyncio.Future[None], error: CollabError | None = None) -> None:
    if answer.done():  # who waited was cancelled
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)

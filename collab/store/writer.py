"""The thread that writes: group commits, and what to do when the disk fails."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from collab import logs
from collab.errors import (
    CollabError,
    Conflict,
    RoomNotFound,
    StoreCorrupt,
    StoreUnavailable,
)
from collab.names import spoken
from collab.store import writing
from collab.store.base import (
    Attributed,
    Author,
    Checkpoint,
    Clock,
    Done,
    Entry,
    RoomInfo,
)
from collab.store.directory import Directory
from collab.store.reading import (
    Live,
    find,
    last_position,
    translate,
)
from collab.store.records import (
    INTO_AUTHOR,
    MAX_AUTHOR,
    Fields,
    author_checksum,
    pack_entry,
)
from collab.store.runway import Runway
from collab.store.schema import migrate
from collab.store.sweep import Sweep, band_of, begin_purge

log = logs.logger(__name__)

_MAX_ROWS = 768  # of one INSERT statement
_PADDING = (None,) * 6
_MAX_KNOWN = 4_000  # rooms and authors remembered


class Append(NamedTuple):
    """Entries to be logged. After a failed commit all of the same generation fail too, so that none overtakes."""

    generation: int
    entries: Sequence[Entry]
    done: Done


class Job(NamedTuple):
    """Anything else that writes, done in order with the appends around it."""

    run: Callable[[Writer], Any]
    answer: asyncio.Future[Any]


Refusals = list[tuple[Done, Entry, CollabError]]


class _Known:
    """A room the writer has seen."""

    __slots__ = ("authors", "band", "epoch", "id", "last")

    def __init__(self, id: int, epoch: str, last: int) -> None:
        self.id, self.epoch, self.last = id, epoch, last
        # In each band of rows they get new numbers, so that those of rows which were trimmed can go.
        self.band = 0
        self.authors: dict[Author, int] = {}


class Writer(threading.Thread):
    """One thread, one connection, at most one commit per window.

    The loop's only duty is to put appends and jobs into `queue`; the thread answers a whole commit by one
    `call_soon_threadsafe`. A usual commit is one statement, so the thread needs the interpreter lock three
    times per commit and not once per row.
    """

    def __init__(
        self,
        directory: Directory,
        loop: asyncio.AbstractEventLoop,
        *,
        window_seconds: float,
        sweep_seconds: float,
        deleted_room_seconds: float,
        clock: Clock,
        connect: Callable[[], sqlite3.Connection],
        failed: Callable[[int], None],
    ) -> None:
        super().__init__(name="store-writer", daemon=True)
        self.queue: SimpleQueue[Append | Job | None] = SimpleQueue()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._directory, self._loop, self._notify_failed = directory, loop, failed
        self._connect = connect
        self._window = window_seconds
        self._sweep = Sweep(sweep_seconds, clock=clock, ended=self._swept)
        self._clock, self._deleted_room_seconds = clock, deleted_room_seconds
        self._db: sqlite3.Connection
        self._runway = Runway(directory.database)
        self._rooms: dict[str, _Known] = {}
        self._interned = 0  # authors that are known in all rooms together
        self._next_author = 1
        self._owners: dict[str, dict[int, str]] = {}  # of rooms never written to
        self._fences = count(1)
        self._generation = 0  # appends of this one and older ones have failed
        self._is_failing = False
        self._journal_is_known = True  # every room in the journal is in `_rooms`
        self._last_commit = 0.0

    # The thread

    def run(self) -> None:
        try:
            self._db = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._abandon()
                raise
        except Exception as error:
            self._settle(self.opened, error=_shown(error))
            self._settle(self.closed)
            return
        self._settle(self.opened)
        try:
            while self._turn():
                pass
        finally:
            try:
                self._close()
            finally:
                self._settle(self.closed)

    def _turn(self) -> bool:
        """Wait for something to do and do it; False at the end."""
        rest = self._last_commit + self._window - time.monotonic()
        if rest > 0:
            time.sleep(rest)  # what is put into the queue meanwhile wakes nobody
        try:
            first = self.queue.get(timeout=self._patience())
        except Empty:
            self._tidy()
            return True
        work = [first]
        try:
            while work[-1] is not None:
                work.append(self.queue.get_nowait())
        except Empty:
            pass
        is_last = work[-1] is None
        self._last_commit = time.monotonic()
        self._commit([item for item in work if item is not None])
        if self._sweep.due <= time.monotonic():
            self._sweep_some()  # in the rest of the window; the next commit is its commit, too
        if not self._is_failing:
            self._runway.lay()
        return not is_last

    def _patience(self) -> float:
        """How long to wait for work before tidying up."""
        if not self._is_failing and self._db.in_transaction:
            until = self._last_commit + self._window
        else:
            until = self._sweep.due
        return max(0.0, until - time.monotonic())

    def _tidy(self) -> None:
        """While nothing comes: end the transaction of the last sweep, or go on with it."""
        if not self._is_failing and self._db.in_transaction:
            self._contained(lambda: self._db.execute("COMMIT"))
        else:
            self._sweep_some()

    def _sweep_some(self) -> None:
        if self._is_failing:
            self._sweep.postpone()
        else:
            self._contained(self._sweep.run)

    def _contained(self, run: Callable[[], object]) -> None:
        """Run a part of the sweep; after a failure the connection is not used again."""
        try:
            run()
        except Exception as error:
            self._undo()
            if isinstance(error, sqlite3.Error):
                log.warning("sweep failed", error=str(error))
            else:
                log.exception("sweep failed")
            self._is_failing = True
            self._sweep.postpone()

    def _swept(self, is_empty: bool) -> None:
        self._journal_is_known = True
        if len(self._rooms) > _MAX_KNOWN:
            self._rooms.clear()
            self._journal_is_known = is_empty

    def _settle(
        self,
        future: asyncio.Future[Any],
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self._call(_settle, future, result, error)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is gone, and with it all who waited
            log.warning("store outlived its event loop")

    # Opening, failing, mending

    def _prepare(self) -> None:
        directory = self._directory
        migrate(self._db, directory.database)
        self._learn()
        try:
            directory.keep_reserve()
        except OSError as error:
            log.warning("no room for the reserve file", error=str(error))
        self._sweep.run_all()  # what a crash left in the journal

    def _learn(self) -> None:
        """What the writer remembers of the file; all else is read when a room is first seen."""
        db = self._db
        self._rooms.clear()
        self._interned = 0
        self._journal_is_known = False
        (author,) = db.execute(
            "SELECT coalesce(max(id), 0) FROM author WHERE id < ?", (MAX_AUTHOR,)
        ).fetchone()
        (fence,) = db.execute("SELECT coalesce(max(fence), 0) FROM room").fetchone()
        self._next_author = author + 1
        self._fences = count(max(fence + 1, next(self._fences)))
        self._sweep.open(db)

    def next_fence(self) -> int:
        """A number greater than all before it."""
        return next(self._fences)

    def _mend(self) -> None:
        """After a failure: reopen, bring the write-ahead log home, and only then take appends again.

        After a failed fsync the kernel may have dropped what it could not write, so everything since the last
        checkpoint of the file is written and synced anew. The reserve gives a full disk the space to do so,
        and must be whole again before anything is acknowledged.
        """
        self._abandon()
        self._directory.release_reserve()
        self._db = self._connect()
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable("the database is in use by another program")
        try:
            self._directory.keep_reserve()
        except OSError as error:
            raise StoreUnavailable(f"the disk is full: {error}") from None
        self._learn()
        self._is_failing = False
        log.info("store is writable again")

    def _abandon(self) -> None:
        self._runway.end()
        try:
            self._db.close()
        except sqlite3.Error as error:
            log.warning("closing the database failed", error=str(error))

    def _close(self) -> None:
        if not self._is_failing:
            try:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")
                self._sweep.run_all()
            except sqlite3.Error as error:
                log.warning("last sweep failed", error=str(error))
        self._abandon()

    # Commits

    def _commit(self, work: list[Append | Job]) -> None:
        if self._is_failing:
            work = self._without_late(work)
            if not work:
                return
        refused: Refusals = []
        answers: list[tuple[asyncio.Future[Any], Any]] = []
        try:
            if self._is_failing:
                self._mend()
            self._write(work, refused, answers)
        except Exception as error:
            self._undo()
            shown = _shown(error)
            if not isinstance(shown, StoreUnavailable):
                shown = StoreUnavailable(str(shown))
            self._is_failing = True
            self._generation += 1
            self._fail(work, shown)
            return
        for room in self._owners.keys() & self._rooms.keys():
            del self._owners[room]
        self._answer(work, refused, answers)

    def _without_late(self, work: list[Append | Job]) -> list[Append | Job]:
        """What was queued before the loop knew of a failure fails too, or it would overtake."""
        late: list[Append | Job] = []
        rest: list[Append | Job] = []
        for item in work:
            is_late = isinstance(item, Append) and item.generation < self._generation
            (late if is_late else rest).append(item)
        if late:
            self._fail(late, StoreUnavailable("an earlier commit failed"))
        return rest

    def _undo(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.ProgrammingError:
            pass  # it could not be opened again
        except sqlite3.Error as error:
            log.warning("rollback failed", error=str(error))

    def _fail(self, work: Iterable[Append | Job], error: StoreUnavailable) -> None:
        log.error("commit failed", error=str(error))
        appends = [item for item in work if isinstance(item, Append)]
        self._call(self._notify_failed, self._generation)
        for done, entries in _joined(appends):
            self._call(done, entries, error)
        for item in work:
            if isinstance(item, Job):
                self._settle(item.answer, error=error)

    def _answer(
        self,
        work: list[Append | Job],
        refused: Refusals,
        answers: list[tuple[asyncio.Future[Any], Any]],
    ) -> None:
        appends = [item for item in work if isinstance(item, Append)]
        if refused:
            gone = {id(entry) for _, entry, _ in refused}
            for done, entry, error in refused:
                self._call(done, (entry,), error)
            appends = [
                item._replace(
                    entries=[entry for entry in item.entries if id(entry) not in gone]
                )
                for item in appends
            ]
        for done, entries in _joined(appends):
            if entries:
                self._call(done, entries, None)
        for future, result in answers:
            if isinstance(result, CollabError):
                self._settle(future, error=result)
            else:
                self._settle(future, result)

    def _write(
        self,
        work: list[Append | Job],
        refused: Refusals,
        answers: list[tuple[asyncio.Future[Any], Any]],
    ) -> None:
        """One transaction. An appended entry that is refused by itself goes to `refused`, with the reason."""
        rows: list[Fields] = []
        for item in work:
            if isinstance(item, Append):
                for entry in item.entries:
                    try:
                        self._pack(entry, rows)
                    except Exception as error:
                        refused.append((item.done, entry, _refusal(error, entry)))
            else:
                self._insert(rows)
                rows = []
                self._begin()
                try:
                    answers.append((item.answer, item.run(self)))
                except CollabError as error:
                    answers.append((item.answer, error))
        self._sweep.rows = len(rows)
        if rows and not self._db.in_transaction and len(rows) <= _MAX_ROWS:
            self._insert(rows)
            return
        if rows:
            self._begin()
            self._insert(rows)
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _pack(self, entry: Entry, rows: list[Fields]) -> None:
        room, epoch, position, milliseconds, updates, authors = entry[:6]
        known = self._rooms.get(room)
        if known is None or known.epoch != epoch:
            known = self._find(entry)
        if position != known.last + 1:
            if position > known.last:
                raise StoreCorrupt(
                    f"room {spoken(room)}: an update at {position} cannot follow one at {known.last}"
                )
            seen = known.last + 1 - position
            updates, authors, position = updates[seen:], authors[seen:], known.last + 1
        if not updates:
            return
        if known.band != band_of(position):
            known.band = band_of(position)
            self._interned -= len(known.authors)
            known.authors.clear()
        interned = known.authors
        numbers = [
            interned.get(author) or self._intern(known, author) for author in authors
        ]
        rows.append(pack_entry(known.id, position, milliseconds, numbers, updates))
        known.last = position + len(updates) - 1

    def _intern(self, known: _Known, author: Author) -> int:
        number = self._next_author
        self._begin()
        self._db.execute(
            f"INSERT {INTO_AUTHOR}",
            (number, known.id, *author, author_checksum(number, known.id, *author)),
        )
        if self._interned >= _MAX_KNOWN:
            self._interned = 0
            for each in self._rooms.values():
                each.authors.clear()
        self._interned += 1
        known.authors[author] = number
        self._next_author += 1
        return number

    def _find(self, entry: Entry) -> _Known:
        """The room of an entry, made when there is none of that name. RoomNotFound when its epoch is over."""
        live = find(self._db, entry.room)
        if live is None:
            if writing.is_over(self._db, entry.room, entry.epoch):
                raise RoomNotFound(f"room {spoken(entry.room)} was deleted")
            if entry.position != 1:
                raise StoreCorrupt(
                    f"room {spoken(entry.room)} does not begin at {entry.position}"
                )
            return self._make(entry.room, entry.epoch, entry.milliseconds)
        if live.epoch != entry.epoch:
            raise RoomNotFound(f"room {spoken(entry.room)} has begun anew")
        last = last_position(self._db, live.id, with_journal=not self._journal_is_known)
        known = _Known(live.id, live.epoch, last)
        self._rooms[entry.room] = known
        return known

    def _make(self, room: str, epoch: str, created: int) -> _Known:
        self._begin()
        number = writing.make(self._db, room, epoch, created)
        writing.bind(self._db, number, self._owners.get(room, {}))
        known = self._rooms[room] = _Known(number, epoch, 0)
        return known

    def _insert(self, rows: list[Fields]) -> None:
        """Few distinct statements, so that they stay prepared: padding rows fail on NOT NULL and are ignored."""
        for at in range(0, len(rows), _MAX_ROWS):
            some = rows[at : at + _MAX_ROWS]
            size = _rounded(len(some))
            values = list(chain.from_iterable(some))
            values += _PADDING * (size - len(some))
            cursor = self._db.execute(_statement(size), values)
            self._sweep.appended(cursor.lastrowid or 0, len(some))

    # Jobs

    @property
    def db(self) -> sqlite3.Connection:
        """In a transaction."""
        return self._db

    @property
    def now(self) -> int:
        """By the store's clock."""
        return self._clock()

    def bind(self, room: str, owners: dict[int, str]) -> None:
        live = find(self._db, room)
        if live is None:
            self._owners[room] = owners | self._owners.get(room, {})
        else:
            writing.bind(self._db, live.id, owners)

    def checkpoint(self, room: str, checkpoint: Checkpoint, fence: int) -> bool:
        live = self._behind(room, checkpoint.position, fence)
        return live is not None and writing.put_checkpoint(
            self._db, live.id, checkpoint, fence, self.now
        )

    def attribute(self, room: str, attributed: Attributed, fence: int) -> bool:
        live = self._behind(room, attributed.position, fence)
        return live is not None and writing.put_attribution(
            self._db, live.id, attributed
        )

    def _behind(self, room: str, position: int, fence: int) -> Live | None:
        """The room, if its log reaches as far and nobody with a newer fence was there."""
        live = find(self._db, room)
        if live is None or fence < live.fence or position > self._last(room, live.id):
            return None
        return live

    def _last(self, room: str, number: int) -> int:
        known = self._rooms.get(room)
        return (
            known.last if known else last_position(self._db, number, with_journal=True)
        )

    def create(
        self, room: str, metadata: str, history_seconds: int | None, epoch: str
    ) -> RoomInfo:
        if find(self._db, room) is not None:
            raise Conflict("there is a room of this name")
        if writing.is_over(self._db, room, epoch):
            raise Conflict("this history of the room is over")
        known = self._make(room, epoch or secrets.token_hex(8), self.now)
        return writing.tell(self._db, known.id, metadata, history_seconds)

    def delete(self, room: str, is_purged: bool) -> None:
        db, now = self._db, self.now
        self._owners.pop(room, None)
        self._rooms.pop(room, None)
        live = find(db, room)
        if live is not None:
            purge = now + int(self._deleted_room_seconds * 1000)
            writing.bury(db, live.id, fence=self.next_fence(), now=now, purge=purge)
        if is_purged:
            for (number,) in db.execute(
                "SELECT id FROM room WHERE name = ? AND deleted IS NOT NULL AND is_purged = 0",
                (room,),
            ).fetchall():
                begin_purge(db, number)
            self._sweep.hurry()  # the log's rows go in chunks

    def tidy(self, is_first: bool) -> bool:
        """A chunk of what the sweep does by itself; True when there is no more."""
        if is_first:
            self._sweep.hurry()
        return self._sweep.step()


def _settle(
    future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    if future.done():  # who waited was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _shown(error: Exception) -> CollabError:
    """The error in our family; one that is not SQLite's or the system's is a bug, and logged as such."""
    if isinstance(error, CollabError):
        return error
    if isinstance(error, sqlite3.Error):
        return translate(error, "the database cannot be written")
    if isinstance(error, OSError):
        return StoreUnavailable(f"the data directory cannot be written: {error}")
    log.exception("the store failed")
    return StoreUnavailable("the store failed by a fault of its own")


def _refusal(error: Exception, entry: Entry) -> CollabError:
    """Why this entry alone cannot be stored; raises what concerns the whole commit."""
    if isinstance(error, sqlite3.Error):
        error = translate(error, f"room {spoken(entry.room)}")
    if isinstance(error, RoomNotFound | StoreCorrupt):
        return error
    if isinstance(error, ValueError | TypeError | OverflowError | struct.error):
        return StoreCorrupt(
            f"room {spoken(entry.room)}: an entry cannot be stored: {error}"
        )
    raise error


def _joined(appends: list[Append]) -> list[tuple[Done, list[Entry]]]:
    """The entries of each callback: neighbours with the same one are answered together."""
    joined: list[tuple[Done, list[Entry]]] = []
    for _, entries, done in appends:
        if joined and joined[-1][0] == done:
            joined[-1][1].extend(entries)
        else:
            joined.append((done, [*entries]))
    return joined


def _rounded(rows: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, …"""
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if rows <= power * 3 // 4 else power


_statements: dict[int, str] = {}


def _statement(rows: int) -> str:
    statement = _statements.get(rows)
    if statement is None:
        values = ",".join(["(?,?,?,?,?,?)"] * rows)
        statement = _statements[rows] = (
            "INSERT OR IGNORE INTO journal (room, position, last, milliseconds, crc, updates) VALUES "
            + values
        )
    return statement

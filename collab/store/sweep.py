"""The sweep: moves rows from the journal into the log, and removes what its time has come for, a chunk at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import islice

from collab import logs
from collab.store.base import ANSWER_SECONDS, LANDMARK_ROWS, Clock
from collab.store.reading import about, checkpoints
from collab.store.records import Damaged, unpack_entry
from collab.store.schema import SWEEP

log = logs.logger(__name__)

_FIRST_CHUNK, _MAX_CHUNK = 256, 16_384  # rows moved in one transaction
_SECONDS_PER_CHUNK = 0.004
_TIDY_SECONDS = 600.0  # between two looks for what its time has come for
_ROOMS_PER_CHUNK = 64  # looked at for old rows
_CHECKPOINTS_PER_CHUNK = 2  # purged, each as large as its document

_DOOMED = "SELECT id FROM room WHERE deleted IS NOT NULL AND is_purged = 0 AND purge <= ? LIMIT 1"

# The rows at the beginning of a room's log that are old and that a checkpoint covers.
_OLD = """
    WITH some AS (
        SELECT position, last, milliseconds, length(updates) AS size
        FROM log WHERE room = :room ORDER BY position LIMIT :chunk
    ), kept AS (
        SELECT min(position) AS first FROM some WHERE NOT (last <= :covered AND milliseconds < :before)
    )
    SELECT count(*), max(position), max(last), sum(size) FROM some, kept
    WHERE kept.first IS NULL OR position < kept.first
"""

# The older of the two newest checkpoints, or the attribution when that is behind.
_COVERED = """
    SELECT min(older, coalesce((SELECT position FROM attribution WHERE room = :room), older)) FROM (
        SELECT CASE count(*) WHEN 2 THEN min(position) END AS older FROM (
            SELECT position FROM checkpoint WHERE room = :room ORDER BY position DESC LIMIT 2
        )
    )
"""


class Sweep:
    """Works on the writer's connection, between its commits.

    It leaves its transaction open, so that it needs no sync of its own. A chunk is as large as fits into about
    four milliseconds, since the next commit may be waiting for it, but larger than what a commit adds.
    """

    def __init__(
        self, seconds: float, *, clock: Clock, ended: Callable[[bool], None]
    ) -> None:
        """`ended` is called when every row of before is in the log, and told whether the journal is empty."""
        self.rows = 0  # of the last commit
        self._seconds, self._clock, self._ended = seconds, clock, ended
        self._db: sqlite3.Connection
        self._next: float | None = None  # monotonic time; None: the journal is empty
        self._next_tidy = 0.0
        self._tidying: Iterator[None] | None = None
        self._first_row, self._last_row = 1, 0  # of the journal
        self._top: int | None = None  # its last row when the sweep under way began
        self._chunk = _FIRST_CHUNK
        self._oldest_author = 0  # that a row named which was kept; 0: not known

    @property
    def due(self) -> float:
        """When to run next, in monotonic time."""
        return (
            self._next_tidy if self._next is None else min(self._next, self._next_tidy)
        )

    def open(self, db: sqlite3.Connection) -> None:
        """Begin on a new connection."""
        self._db = db
        self._tidying, self._top = None, None
        self._first_row, self._last_row = db.execute(
            "SELECT coalesce((SELECT min(n) FROM journal), 1), coalesce((SELECT max(n) FROM journal), 0)"
        ).fetchone()
        db.executescript(SWEEP)
        self._next = time.monotonic() + self._seconds

    def appended(self, last_row: int, rows: int) -> None:
        """So many rows are new in the journal."""
        self._last_row = last_row
        # Numbers begin anew when the last row is gone.
        self._first_row = min(self._first_row, last_row - rows + 1)
        if self._next is None:
            self._next = time.monotonic() + self._seconds

    def hurry(self) -> None:
        """Look at once for what its time has come for."""
        self._tidying, self._next_tidy = None, 0.0

    def postpone(self) -> None:
        """Nothing can be done for now; what failed while tidying up is not tried again soon."""
        now = time.monotonic()
        self._next, self._next_tidy = now + max(self._seconds, 0.1), now + _TIDY_SECONDS

    def run(self) -> None:
        """One chunk."""
        started = time.monotonic()
        if not self.step():
            elapsed = max(time.monotonic() - started, 1e-4)
            fit = int(self._chunk * _SECONDS_PER_CHUNK / elapsed)
            fit = min(max(fit, self._chunk // 2, 64), self._chunk * 2)
            self._chunk = min(max(fit, 2 * self.rows), _MAX_CHUNK)

    def run_all(self) -> None:
        """Empty the journal, at the start and at the end, when no commit waits. The rest has time."""
        self._chunk, self._top, is_done = _MAX_CHUNK, None, False
        while not is_done:
            is_done = self._move()
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        self._chunk = _FIRST_CHUNK
        self._end()

    def step(self) -> bool:
        """True when there is nothing more to do for now; then the next time is set."""
        if not self._move():
            return False
        if self._tidying is None and self._next_tidy <= time.monotonic():
            self._tidying = self._tidy()
        if self._tidying is not None:
            if next(self._tidying, self) is not self:
                return False
            self._tidying, self._next_tidy = None, time.monotonic() + _TIDY_SECONDS
        self._end()
        return True

    def _end(self) -> None:
        is_empty = self._first_row > self._last_row
        self._top = None
        self._next = None if is_empty else time.monotonic() + self._seconds
        self._ended(is_empty)

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _move(self) -> bool:
        if self._top is None:
            self._top = self._last_row
        if self._first_row <= self._top:
            end = min(self._first_row + self._chunk - 1, self._top)
            self._begin()
            self._db.execute("INSERT INTO sweep VALUES (?)", (end,))
            self._first_row = end + 1
        return self._first_row > self._top

    def _tidy(self) -> Iterator[None]:
        """Stops after each chunk."""
        yield from self._purge()
        yield from self._trim()
        yield from self._forget()

    def _purge(self) -> Iterator[None]:
        db = self._db
        while row := db.execute(_DOOMED, (self._clock(),)).fetchone():
            self._begin()
            begin_purge(db, row[0])
            yield
            is_purged = False
            while not is_purged:
                is_purged = self._purge_chunk(row[0])
                yield

    def _purge_chunk(self, room: int) -> bool:
        self._begin()
        if self._db.execute(
            "DELETE FROM checkpoint WHERE rowid IN (SELECT rowid FROM checkpoint WHERE room = ? LIMIT ?)",
            (room, _CHECKPOINTS_PER_CHUNK),
        ).rowcount:
            return False
        removed = self._db.execute(
            "DELETE FROM log WHERE room = ?1 AND position IN"
            " (SELECT position FROM log WHERE room = ?1 LIMIT ?2)",
            (room, self._chunk),
        ).rowcount
        if removed == self._chunk:
            return False
        removed = self._db.execute(
            "DELETE FROM author WHERE id IN (SELECT id FROM author WHERE room = ? LIMIT ?)",
            (room, self._chunk),
        ).rowcount
        if removed == self._chunk:
            return False
        self._db.execute("UPDATE room SET is_purged = 1 WHERE id = ?", (room,))
        return True

    def _trim(self) -> Iterator[None]:
        room = 0
        while rooms := self._db.execute(
            "SELECT room FROM about WHERE history IS NOT NULL AND room > ? ORDER BY room LIMIT ?",
            (room, _ROOMS_PER_CHUNK),
        ).fetchall():
            for (room,) in rooms:
                yield from self._trim_room(room)
            yield

    def _trim_room(self, room: int) -> Iterator[None]:
        seconds = about(self._db, room).history_seconds
        if seconds is None:  # of a damaged record nothing is believed
            return
        before = self._clock() - seconds * 1000
        while self._trim_chunk(room, before):
            yield
            while self._forget_authors(room):
                yield

    def _trim_chunk(self, room: int, before: int) -> bool:
        db = self._db
        covered = _covered(db, room)
        if covered is None:
            return False
        removed, row, last, size = db.execute(
            _OLD,
            {"room": room, "chunk": self._chunk, "covered": covered, "before": before},
        ).fetchone()
        if not removed or not _are_sound(db, room, covered):
            return False
        self._begin()
        self._oldest_author = _first_author(db, room, last + 1)
        db.execute("DELETE FROM log WHERE room = ? AND position <= ?", (room, row))
        # What is between a landmark before that and the next row is gone.
        db.execute(
            "DELETE FROM checkpoint WHERE room = ? AND position < ?", (room, last)
        )
        db.execute(
            "UPDATE room SET bytes = max(0, bytes - ?) WHERE id = ?", (size, room)
        )
        return True

    def _forget_authors(self, room: int) -> bool:
        """A chunk of those whom no kept row names; False when there is none any more."""
        if not self._oldest_author:
            return False
        self._begin()
        removed = self._db.execute(
            "DELETE FROM author WHERE id IN (SELECT id FROM author WHERE room = ? AND id < ? LIMIT ?)",
            (room, self._oldest_author, self._chunk),
        ).rowcount
        return removed == self._chunk

    def _forget(self) -> Iterator[None]:
        before = self._clock() - ANSWER_SECONDS * 1000
        while True:
            (last,) = self._db.execute(
                "SELECT max(n) FROM (SELECT n, milliseconds FROM answer ORDER BY n LIMIT ?) WHERE milliseconds < ?",
                (_FIRST_CHUNK, before),
            ).fetchone()
            if last is None:
                return
            self._begin()
            self._db.execute("DELETE FROM answer WHERE n <= ?", (last,))
            yield


def _covered(db: sqlite3.Connection, room: int) -> int | None:
    """Up to where old rows of a room may go: neither its document nor its attribution needs them any more."""
    covered: int | None
    (covered,) = db.execute(_COVERED, {"room": room}).fetchone()
    return covered


def band_of(position: int) -> int:
    """In which band of rows an entry is that begins there. No two bands name one row of `author`."""
    return position // LANDMARK_ROWS


def _first_author(db: sqlite3.Connection, room: int, kept: int) -> int:
    """The lowest number that rows from a position on may name; 0 where that cannot be told, as in most cases.

    Numbers rise, and the first entry of a band names none of before: it tells while it is in the log, after another.
    """
    start = band_of(kept) * LANDMARK_ROWS
    fields = db.execute(
        "SELECT room, position, last, milliseconds, crc, updates FROM log"
        " WHERE room = ? AND position >= ? ORDER BY position LIMIT 1",
        (room, start),
    ).fetchone()
    before = db.execute(
        "SELECT last FROM log WHERE room = ? AND position < ? ORDER BY position DESC LIMIT 1",
        (room, start),
    ).fetchone()
    if fields is None or fields[1] != (before[0] + 1 if before else start):
        return 0
    is_filled = db.execute(
        "SELECT 1 FROM rejected WHERE room = ? AND position >= ? AND position < ? LIMIT 1",
        (room, start, fields[1]),
    ).fetchone()
    if is_filled:  # a repair has put it where entries of the band were
        return 0
    try:
        number = min(unpack_entry(fields)[0])
    except Damaged:
        return 0
    # One that a repair has put there may have any number.
    of_room = db.execute("SELECT room FROM author WHERE id = ?", (number,)).fetchone()
    return number if of_room == (room,) else 0


def _are_sound(db: sqlite3.Connection, room: int, covered: int) -> bool:
    """Whether the two newest checkpoints are intact, so that neither need ever be done without."""
    newest = [each.position for each in islice(checkpoints(db, room), 2)]
    return len(newest) == 2 and newest[1] >= covered


def begin_purge(db: sqlite3.Connection, room: int) -> None:
    """Remove all of a deleted room but its log, checkpoints and authors, which go in chunks. It can no longer be restored."""
    db.execute("UPDATE room SET purge = 0 WHERE id = ?", (room,))
    for table in ("journal", "owner", "rejected", "about", "attribution", "aside"):
        db.execute(f"DELETE FROM {table} WHERE room = ?", (room,))

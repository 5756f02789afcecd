"""The sweep: moves rows from the journal into the log, and removes what deleted rooms left, a chunk at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from collab.store.schema import SWEEP

_FIRST_CHUNK, _MAX_CHUNK = 256, 16_384  # rows moved in one transaction
_SECONDS_PER_CHUNK = 0.004


class Sweep:
    """Works on the writer's connection, between its commits.

    It leaves its transaction open, so that it needs no sync of its own. A chunk is as large as fits into about
    four milliseconds, since the next commit may be waiting for it, but larger than what a commit adds.
    """

    def __init__(self, seconds: float, *, ended: Callable[[bool], None]) -> None:
        """`ended` is called when every row of before is in the log, and told whether the journal is empty."""
        self.due: float | None = None  # monotonic time; None: nothing to sweep
        self.rows = 0  # of the last commit
        self._seconds, self._ended = seconds, ended
        self._db: sqlite3.Connection
        self._first_row, self._last_row = 1, 0  # of the journal
        self._top: int | None = None  # its last row when the sweep under way began
        self._chunk = _FIRST_CHUNK
        self._is_purging = True

    def open(self, db: sqlite3.Connection) -> None:
        """Begin on a new connection."""
        self._db = db
        self._is_purging, self._top = True, None
        self._first_row, self._last_row = db.execute(
            "SELECT coalesce((SELECT min(n) FROM journal), 1), coalesce((SELECT max(n) FROM journal), 0)"
        ).fetchone()
        db.executescript(SWEEP)
        self.postpone()

    def appended(self, last_row: int, rows: int) -> None:
        """So many rows are new in the journal."""
        self._last_row = last_row
        # Numbers begin anew when the last row is gone.
        self._first_row = min(self._first_row, last_row - rows + 1)

    def purge(self) -> None:
        """A room was deleted: remove its rows, beginning now."""
        self._is_purging = True
        self.due = time.monotonic()

    def postpone(self) -> None:
        """The next sweep is a whole pause away."""
        self.due = time.monotonic() + self._seconds

    def run(self) -> None:
        """One chunk."""
        started = time.monotonic()
        if not self._step():
            elapsed = max(time.monotonic() - started, 1e-4)
            fit = int(self._chunk * _SECONDS_PER_CHUNK / elapsed)
            fit = min(max(fit, self._chunk // 2, 64), self._chunk * 2)
            self._chunk = min(max(fit, 2 * self.rows), _MAX_CHUNK)

    def run_all(self) -> None:
        """Everything, at the start and at the end, when no commit waits."""
        self._chunk = _MAX_CHUNK
        while self.due is not None:
            self._step()
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        self._chunk = _FIRST_CHUNK

    def _step(self) -> bool:
        """True when there is nothing more to do for now; then the next sweep is set, if there will be one."""
        if self._top is None:
            self._top = self._last_row
        if self._first_row <= self._top:
            end = min(self._first_row + self._chunk - 1, self._top)
            self._begin()
            self._db.execute("INSERT INTO sweep VALUES (?)", (end,))
            self._first_row = end + 1
            if end < self._top:
                return False
        return self._purge_chunk() and self._end()

    def _end(self) -> bool:
        is_empty = self._first_row > self._last_row
        self._top = None
        if is_empty:
            self.due = None
        else:
            self.postpone()
        self._ended(is_empty)
        return True

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _purge_chunk(self) -> bool:
        if not self._is_purging:
            return True
        db = self._db
        row = db.execute(
            "SELECT id FROM room WHERE deleted IS NOT NULL AND is_purged = 0"
        ).fetchone()
        if row is None:
            self._is_purging = False
            return True
        self._begin()
        removed = db.execute(
            "DELETE FROM log WHERE room = ?1 AND position IN"
            " (SELECT position FROM log WHERE room = ?1 LIMIT ?2)",
            (row[0], self._chunk),
        ).rowcount
        if removed < self._chunk:
            db.execute("UPDATE room SET is_purged = 1 WHERE id = ?", row)
        return False

"""Zeros ahead of the end of the write-ahead log: a commit then writes into blocks that the file has already.

A sync of a file that has grown waits for its inode and its block map too, which takes two to three times as long.
SQLite takes zeros behind its last frame for the end of the log.
"""

from __future__ import annotations

import os
from pathlib import Path

_FIRST_BYTES = 256 << 10
_MAX_STEP = 1 << 20  # a few milliseconds more for the commit that syncs it
MAX_BYTES = 20 << 20  # more than the log takes before it begins anew
_PAGE = bytes(4096)  # where the log has come, so much is never zeros alone


class Runway:
    """For the thread that writes the database, between its commits."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-wal")
        self._log: int | None = None  # the file, once it is there
        self._size = 0  # that it has
        self._mark = 0  # once something is written here, more is laid

    def lay(self) -> None:
        """Make the file longer when the log has come near its end; does nothing where that cannot be done."""
        if self._size > MAX_BYTES:
            return
        try:
            if self._log is None:
                self._log = os.open(self._path, os.O_RDWR)
            self._lay(self._log)
        except FileNotFoundError:
            return
        except OSError:  # a full disk: the commits will say so
            self._size = MAX_BYTES + 1

    def end(self) -> None:
        """Let go of the file: the database is closed, and its next log may be another one."""
        if self._log is not None:
            os.close(self._log)
        self._log, self._size, self._mark = None, 0, 0

    def _lay(self, log: int) -> None:
        if self._size and os.pread(log, len(_PAGE), self._mark) in (_PAGE, b""):
            return
        size = os.fstat(log).st_size
        if size > MAX_BYTES:  # as a process that was killed has left it
            self._size = size
            return
        step = min(max(size, _FIRST_BYTES), _MAX_STEP)
        os.pwrite(log, bytes(step), size)  # the next commit syncs it
        self._size = size + step
        self._mark = size + step // 2

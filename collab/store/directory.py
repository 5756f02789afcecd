"""What lies beside the database file: the lock, the reserve for a full disk, and notes of loads under way."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path

from collab.errors import StoreLocked

# That a server waits for the lock of one that has just been killed.
HANDOVER_SECONDS = 1.0
_STAGED = ".staged-"
RESTORING = "restoring"  # what a restore has prepared and will put in place


class Directory:
    """The data directory of one process."""

    def __init__(self, path: Path, *, reserve_bytes: int) -> None:
        self.path = path
        self.database = path / "collab.db"
        self._loading = path / "loading"
        self._reserve = path / "reserve"
        self._reserve_bytes = reserve_bytes
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the directory for this process, until it ends; StoreLocked when another one has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._loading.mkdir(exist_ok=True)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        # A child that a killed server was just starting holds its files until it has become another program.
        deadline = time.monotonic() + HANDOVER_SECONDS
        while not _try(lock):
            if time.monotonic() > deadline:
                os.close(lock)
                raise StoreLocked(
                    f"another process has {self.path} open: stop it, or choose another directory with --data"
                )
            time.sleep(0.01)
        self._lock = lock
        self.finish_restore()
        for left in self.path.glob(f"{_STAGED}*"):  # by one that was killed
            shutil.rmtree(left)

    def stage(self) -> Path:
        """A new directory for files that are to be put in place."""
        staged = self.path / f"{_STAGED}{secrets.token_hex(4)}"
        staged.mkdir(mode=0o700)
        return staged

    def finish_restore(self) -> None:
        """Put in place what a restore has prepared, also one that was killed; each step may be done again."""
        prepared = self.path / RESTORING
        if not prepared.exists():
            return
        for new in prepared.iterdir():
            # A write-ahead log of before would be taken for one of the new file.
            for ending in ("-wal", "-shm", "-journal"):
                (self.path / f"{new.name}{ending}").unlink(missing_ok=True)
            sync(self.path)
            new.replace(self.path / new.name)
        for note in self._loading.iterdir():
            note.unlink()
        sync(self.path)
        shutil.rmtree(prepared)

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def keep_reserve(self) -> None:
        """Allocate the reserve if it is not there; OSError while the disk is full."""
        wanted = self._wanted_reserve()
        try:
            if self._reserve.stat().st_size >= wanted:
                return
        except FileNotFoundError:
            pass
        reserve = os.open(self._reserve, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(reserve, 0, wanted)
        except OSError:
            os.ftruncate(reserve, 0)
            raise
        finally:
            os.close(reserve)

    def release_reserve(self) -> None:
        """Give its space back to a full disk, so that the write-ahead log can be emptied."""
        self._reserve.unlink(missing_ok=True)

    def _wanted_reserve(self) -> int:
        disk = os.statvfs(self.path)
        return min(self._reserve_bytes, disk.f_blocks * disk.f_frsize // 16)

    def begin_load(self, room: str) -> int:
        """Count one more load of this room; returns how many were under way already."""
        note = self._note(room)
        try:
            count = int(note.read_text() or 0)
        except (FileNotFoundError, ValueError):
            count = 0
        note.write_text(str(count + 1))
        return count

    def end_load(self, room: str) -> None:
        self._note(room).unlink(missing_ok=True)

    def _note(self, room: str) -> Path:
        return self._loading / hashlib.sha256(room.encode()).hexdigest()[:32]


def sync(path: Path) -> None:
    """Make sure that a file, or what a directory holds, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""A data directory as one file: a SQLite database, and behind it a digest over every byte."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from collab.errors import ConfigurationError, StoreCorrupt
from collab.store.aside import change_epoch
from collab.store.base import wall_clock
from collab.store.checks import file_faults, room_records
from collab.store.directory import RESTORING, Directory, sync
from collab.store.records import text_checksum
from collab.store.schema import MIGRATIONS, check, check_current, connect, migrate

ACCESS = "access.sqlite"  # the registry of keys and grants, which goes with the rooms
_MAGIC = b"\ncollab-backup-1"
_DIGEST_BYTES = 32
_TRAILER_BYTES = 8 + len(_MAGIC) + _DIGEST_BYTES
_PAGES = 1000  # copied in one step
_CHUNK = 1 << 20
_TABLE = "CREATE TABLE backup (name TEXT PRIMARY KEY, content BLOB NOT NULL)"

Told = Callable[[int, int], None]  # bytes or pages done, and of how many


@contextmanager
def copied(data: Path, file: Path, tell: Told) -> Iterator[sqlite3.Connection]:
    """Copy the directory, also that of a running server; `file` is there, complete, after the block and not before.

    Inside the block the copy can be looked at. Raises ConfigurationError for a file that is no backup and would be
    overwritten.
    """
    if file.exists() and not _is_backup(file):
        raise ConfigurationError(f"{file} is there and is not a backup: name another")
    number, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    os.close(number)
    part = Path(name)
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            _copy(data / "collab.db", copy, tell)
            copy.execute(_TABLE)
            if (data / ACCESS).exists():
                copy.execute("INSERT INTO backup VALUES (?, ?)", _access(data / ACCESS))
            yield copy
        _seal(part)
        part.replace(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def _copy(path: Path, copy: sqlite3.Connection, tell: Told) -> None:
    """One moment of the database. While this reads, nobody who writes waits."""
    with closing(connect(path, is_read_only=True)) as source:
        check_current(source, path)
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_schema").fetchone()  # the moment is now
        source.backup(
            copy,
            pages=_PAGES,
            progress=lambda _, left, total: tell(total - left, total),
        )
        source.execute("ROLLBACK")
    copy.execute("PRAGMA journal_mode = DELETE")


def _access(path: Path) -> tuple[str, bytes]:
    with (
        closing(connect(path, is_read_only=True)) as source,
        closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        return ACCESS, copy.serialize()


def _seal(part: Path) -> None:
    size, digest = part.stat().st_size, _digest(part, lambda done, total: None)
    with part.open("ab") as file:
        file.write(size.to_bytes(8, "big") + _MAGIC + digest)
        file.flush()
        os.fsync(file.fileno())


def _is_backup(file: Path) -> bool:
    return file.is_file() and _trailer(file) is not None


def _trailer(file: Path) -> tuple[int, bytes] | None:
    """Length and digest as the file has them, None when it has none."""
    size = file.stat().st_size
    if size <= _TRAILER_BYTES:
        return None
    with file.open("rb") as opened:
        opened.seek(size - _TRAILER_BYTES)
        trailer = opened.read(_TRAILER_BYTES)
    length = int.from_bytes(trailer[:8], "big")
    if trailer[8:-_DIGEST_BYTES] != _MAGIC or length != size - _TRAILER_BYTES:
        return None
    return length, trailer[-_DIGEST_BYTES:]


def _digest(file: Path, tell: Told, *, length: int | None = None) -> bytes:
    """Of the first `length` bytes."""
    length = file.stat().st_size if length is None else length
    digest, left = sha256(length.to_bytes(8, "big")), length
    with file.open("rb") as opened:
        while left and (chunk := opened.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
            tell(length - left, length)
    return digest.digest()


def check_file(file: Path, tell: Told) -> int:
    """The length of the database in a backup; StoreCorrupt when a single bit of the file is not as written."""
    if not file.is_file():
        raise ConfigurationError(f"there is no file {file}")
    trailer = _trailer(file)
    if trailer is None:
        raise StoreCorrupt(f"{file} is not a backup, or its end is missing")
    length, digest = trailer
    if _digest(file, tell, length=length) != digest:
        raise StoreCorrupt(f"{file} is damaged: it is not what the backup wrote")
    return length


class Restoring:
    """A backup on its way into a data directory that is locked.

    What the directory held stands until `finish`; a crash before leaves it as it was, and one after is made good by
    whoever opens the directory next.
    """

    def __init__(self, file: Path, directory: Directory, tell: Told) -> None:
        """Unpacks and checks. Raises StoreCorrupt and ConfigurationError with nothing changed."""
        length = check_file(file, tell)
        self._directory = directory
        self.staged = directory.stage()
        try:
            with file.open("rb") as source, self.database.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
                target.truncate(length)
            with closing(sqlite3.connect(self.database, isolation_level=None)) as db:
                self._check(db, file)
                self._unpack(db)
            migrated = connect(self.database)
            with closing(migrated):
                migrate(migrated, self.database)
                self.rooms = _begin_anew(migrated)
                migrated.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            self.discard()
            raise StoreCorrupt(f"{file} holds no sound database: {error}") from None
        except BaseException:
            self.discard()
            raise

    @property
    def database(self) -> Path:
        """The database that will be in place."""
        return self.staged / "collab.db"

    def _check(self, db: sqlite3.Connection, file: Path) -> None:
        """Only tables that we would have made ourselves: a trigger or a view could do anything later."""
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        version = check(db, file)
        if not version or _tables(db) != _expected(version):
            raise StoreCorrupt(f"{file} holds tables that no version of this makes")
        faults = file_faults(db)
        if faults:
            raise StoreCorrupt(f"{file} holds no sound database: {faults[0]}")

    def _unpack(self, db: sqlite3.Connection) -> None:
        for name, content in db.execute("SELECT name, content FROM backup").fetchall():
            if name != ACCESS or not isinstance(content, bytes):
                raise StoreCorrupt(
                    "the backup holds a file that no version of this makes"
                )
            path = self.staged / ACCESS
            path.touch(mode=0o600)
            path.write_bytes(content)
            with closing(sqlite3.connect(path)) as access:
                kinds = {kind for kind, _, _ in _tables(access)}
                if file_faults(access) or kinds & {"trigger", "view"}:
                    raise StoreCorrupt("the access registry in the backup is not sound")
        db.execute("DROP TABLE backup")

    def finish(self, *, keep: bool) -> Path | None:
        """Put it in place of what is there; with `keep` that stays in a directory, which is returned."""
        kept = f"replaced-{wall_clock()}" if keep else ""
        return put_in_place(self._directory, self.staged, kept=kept)

    def discard(self) -> None:
        """Leave nothing behind of what was not finished."""
        shutil.rmtree(self.staged, ignore_errors=True)


def put_in_place(directory: Directory, staged: Path, *, kept: str) -> Path | None:
    """Let the files of `staged` take the place of theirs in the directory, all or none, also after a crash.

    Those of before stay in a directory named `kept`, when that is said.
    """
    path = directory.path
    for each in staged.iterdir():
        sync(each)
    sync(staged)
    place = path / kept
    if kept:
        place.mkdir(mode=0o700)
        for name in ("collab.db", "collab.db-wal", ACCESS, f"{ACCESS}-wal"):
            if (path / name).exists():
                os.link(path / name, place / name)
        sync(place)
    staged.rename(path / RESTORING)  # from here on it happens
    sync(path)
    directory.finish_restore()
    return place if kept else None


def _tables(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return {
        (str(kind), str(name), " ".join(str(sql).split()))
        for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_schema")
    }


def _expected(version: int) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(_TABLE)
        return _tables(db)


def _begin_anew(db: sqlite3.Connection) -> int:
    """Give every room an epoch of its own, and end the old one: a client may know more of that than the backup does.

    Returns how many rooms there are.
    """
    now, count = wall_clock(), 0
    db.execute("BEGIN IMMEDIATE")
    for room in room_records(db):
        count += 1
        if not room.is_intact:
            continue  # `repair` gives it one
        change_epoch(db, room.id, room.name, room.created)
        number = db.execute(
            "INSERT INTO room (name, epoch, created, crc, fence, deleted, purge, is_purged)"
            " VALUES (?, ?, ?, 0, 0, ?, 0, 1)",
            (room.name, room.epoch, room.created, now),
        ).lastrowid
        db.execute(
            "UPDATE room SET crc = ? WHERE id = ?",
            (
                text_checksum(number or 0, room.name, room.epoch, str(room.created)),
                number,
            ),
        )
    db.execute("COMMIT")
    return count


def check_target(data: Path, *, replace: bool) -> None:
    """ConfigurationError when there is something in the way."""
    if not data.exists():
        return
    if not data.is_dir():
        raise ConfigurationError(f"{data} is not a directory")
    ours = {"lock", "loading", "reserve"}
    if not replace and any(path.name not in ours for path in data.iterdir()):
        raise ConfigurationError(
            f"{data} is not empty: name a new directory, or say --replace to put the backup in its place"
        )

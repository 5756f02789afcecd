"""Records in one small SQLite file, which a server and commands open at the same time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Self

import orjson

from collab.auth.permissions import Grant
from collab.auth.records import Granted, Key, Record, Revocation
from collab.auth.shelves.base import Held
from collab.errors import (
    CollabError,
    ConfigurationError,
    StoreCorrupt,
    StoreUnavailable,
)

FILE = "access.sqlite"

_APPLICATION = 0x636F6C61  # "cola": tells these files from any other SQLite file
MIGRATIONS = (
    f"""
    CREATE TABLE key (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        principal TEXT NOT NULL,
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        grants TEXT NOT NULL,          -- [[room, operations, is_prefix], …]
        created REAL NOT NULL,
        expires REAL,                  -- NULL is never
        revoked REAL,
        replaced_by TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE granted (
        tenant TEXT NOT NULL,
        principal TEXT NOT NULL,
        room TEXT NOT NULL,
        is_prefix INTEGER NOT NULL,
        operations INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        PRIMARY KEY (tenant, principal, room, is_prefix)
    ) WITHOUT ROWID;
    CREATE TABLE revocation (
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,            -- principal or token
        subject TEXT NOT NULL,
        made REAL NOT NULL,
        expires REAL NOT NULL,
        PRIMARY KEY (tenant, kind, subject)
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION};
    """,
    """
    ALTER TABLE key ADD COLUMN role TEXT NOT NULL DEFAULT '';
    ALTER TABLE key ADD COLUMN on_behalf_of TEXT NOT NULL DEFAULT '';
    """,
)
_COLUMNS = {
    "key": "id, hash, principal, tenant, kind, name, grants, created, expires, revoked, replaced_by, role, on_behalf_of",
    "granted": "tenant, principal, room, is_prefix, operations, created, expires",
    "revocation": "tenant, kind, subject, made, expires",
}


class SqliteShelf:
    """The file is made if need be, for its owner alone: it says who may do what."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            with self._translating():
                self._db = self._open()
        except OSError as error:
            raise StoreUnavailable(
                f"{self._path} cannot be opened: {error.strerror}"
            ) from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def version(self) -> str:
        """SQLite counts what other connections commit, which is all that is asked for."""
        with self._translating():
            return _version(self._connection)

    def read(self) -> Held:
        db = self._connection
        with self._translating():
            db.execute("BEGIN")
            try:
                return Held(_version(db), list(_records(db)))
            except (ValueError, TypeError, KeyError) as error:
                raise StoreCorrupt(f"{self._path} holds what cannot be read") from error
            finally:
                db.execute("ROLLBACK")

    def write(
        self, version: str, put: Sequence[Record], drop: Sequence[Record]
    ) -> str | None:
        db = self._connection
        with self._translating():
            db.execute("BEGIN IMMEDIATE")
            try:
                if _version(db) != version:
                    return None
                for record in drop:
                    _delete(db, record)
                for record in put:
                    _replace(db, record)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        return version  # one's own changes do not move it

    def _open(self) -> sqlite3.Connection:
        _create(self._path)
        db = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        try:
            _prepare(db, self._path)
        except BaseException:
            db.close()
            raise
        return db

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "the shelf is not open"
        return self._db

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from None

    def _translated(self, error: sqlite3.Error) -> CollabError:
        if isinstance(error, sqlite3.OperationalError):
            return StoreUnavailable(f"{self._path}: {error}")
        return StoreCorrupt(f"{self._path}: {error}")


def _create(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)
        if os.geteuid() == 0 and os.fstat(file).st_size == 0:
            # A command run as root must not lock the server out of its own directory.
            directory = path.parent.stat()
            os.fchown(file, directory.st_uid, directory.st_gid)
    except PermissionError:
        pass  # not ours; SQLite says whether it can be used
    finally:
        os.close(file)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION and (tables or version):
        raise StoreCorrupt(f"{path} was not written by this program")
    if version > len(MIGRATIONS):
        raise ConfigurationError(
            f"{path} was written by a newer version: run that version"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    while version < len(MIGRATIONS):
        version = _migrate(db, version)


def _migrate(db: sqlite3.Connection, version: int) -> int:
    """Bring the tables from this version to the next one; which one they have then."""
    try:
        db.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT"
        )
        return version + 1
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == version:
            raise
        return int(found)  # another process has done it meanwhile


def _version(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA data_version").fetchone()[0])


def _records(db: sqlite3.Connection) -> Iterator[Record]:
    for row in _rows(db, "key"):
        id, hash, principal, tenant, kind, name, grants, *moments, by, role, behalf = (
            row
        )
        created, expires, revoked = moments
        yield Key(
            id,
            principal,
            tenant,
            kind,
            name,
            tuple(
                Grant(room, operations, bool(is_prefix))
                for room, operations, is_prefix in orjson.loads(grants)
            ),
            created,
            _moment(expires),
            _moment(revoked),
            by,
            hash,
            role,
            behalf,
        )
    for row in _rows(db, "granted"):
        tenant, principal, room, is_prefix, operations, created, expires = row
        grant = Grant(room, operations, bool(is_prefix))
        yield Granted(tenant, principal, grant, created, _moment(expires))
    for row in _rows(db, "revocation"):
        yield Revocation(*row)


def _rows(db: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    return db.execute(f"SELECT {_COLUMNS[table]} FROM {table}")


def _replace(db: sqlite3.Connection, record: Record) -> None:
    table, row = _row(record)
    places = ", ".join("?" * len(row))
    # By name, so that a column that a newer version adds breaks nothing here.
    db.execute(f"REPLACE INTO {table} ({_COLUMNS[table]}) VALUES ({places})", row)


def _row(record: Record) -> tuple[str, tuple[Any, ...]]:
    match record:
        case Key():
            grants = orjson.dumps([list(grant) for grant in record.grants]).decode()
            return "key", (
                record.id,
                record.hash,
                record.principal,
                record.tenant,
                record.kind,
                record.name,
                grants,
                record.created,
                _finite(record.expires),
                _finite(record.revoked),
                record.replaced_by,
                record.role,
                record.on_behalf_of,
            )
        case Granted(tenant, principal, grant, created, expires):
            return "granted", (
                tenant,
                principal,
                grant.room,
                grant.is_prefix,
                grant.operations,
                created,
                _finite(expires),
            )
        case Revocation():
            return "revocation", record


def _delete(db: sqlite3.Connection, record: Record) -> None:
    match record:
        case Key():
            db.execute("DELETE FROM key WHERE id = ?", (record.id,))
        case Granted(tenant, principal, grant):
            db.execute(
                "DELETE FROM granted WHERE tenant = ? AND principal = ? AND room = ? AND is_prefix = ?",
                (tenant, principal, grant.room, grant.is_prefix),
            )
        case Revocation(tenant, kind, subject):
            db.execute(
                "DELETE FROM revocation WHERE tenant = ? AND kind = ? AND subject = ?",
                (tenant, kind, subject),
            )


def _moment(found: float | None) -> float:
    return inf if found is None else found


def _finite(moment: float) -> float | None:
    """As a column holds it."""
    return None if moment == inf else moment

"""What the registry's file holds: keys, grants, revocations; its tables, and how they are read into memory."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from collab.auth.permissions import Grant, Kind, Principal, names_of
from collab.errors import (
    ConfigurationError,
    Conflict,
    InvalidRequest,
    NothingHere,
    StoreCorrupt,
)
from collab.names import SEPARATOR, room_name

ANY_TENANT = SEPARATOR  # no tenant can be called that
MAX_KEYS, MAX_GRANTS, MAX_REVOCATIONS = 5_000, 20_000, 20_000
TENANT_SHARE = 4  # one tenant has a quarter of these at most: its administrators use up nobody else's

_APPLICATION = 0x636F6C61  # "cola": tells these files from any other SQLite file
_VERSION = 1
_SCHEMA = f"""
    BEGIN IMMEDIATE;
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
    PRAGMA user_version = {_VERSION};
    COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret."""

    id: str
    principal: str
    tenant: str = ""
    kind: Kind = "service"
    name: str = ""
    grants: tuple[Grant, ...] = ()
    created: float = 0.0
    expires: float = inf
    revoked: float = inf
    replaced_by: str = ""

    @property
    def ends(self) -> float:
        """From when on it is good for nothing."""
        return min(self.expires, self.revoked)

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "principal": self.principal,
            "tenant": self.tenant,
            "kind": self.kind,
            "name": self.name,
            "grants": [shown_grant(grant) for grant in self.grants],
            "created": self.created,
            "expires": None if self.expires == inf else self.expires,
            "revoked": None if self.revoked == inf else self.revoked,
            "replaced_by": self.replaced_by or None,
        }


class Granted(NamedTuple):
    """A grant that was made here."""

    tenant: str
    principal: str
    grant: Grant
    created: float
    expires: float

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tenant": self.tenant,
            "principal": self.principal,
            **shown_grant(self.grant),
            "created": self.created,
            "expires": None if self.expires == inf else self.expires,
        }


class Revocation(NamedTuple):
    """All credentials of a principal that were issued until then, or one token, ended before their time."""

    tenant: str
    kind: str
    subject: str
    made: float
    expires: float  # when it is forgotten

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tenant": None if self.tenant == ANY_TENANT else self.tenant,
            self.kind: self.subject,
            "made": self.made,
            "expires": self.expires,
        }


def shown_grant(grant: Grant) -> dict[str, Any]:
    """A grant as JSON: an exact room, or a prefix."""
    return {
        "prefix" if grant.is_prefix else "room": grant.room,
        "operations": names_of(grant.operations),
    }


def checked(grant: Grant) -> Grant:
    """The grant, when it can be meant. Raises InvalidRoomName or InvalidRequest."""
    if grant.is_prefix:
        if grant.room and not grant.room.endswith("/"):
            raise InvalidRequest(
                "a prefix ends in a slash, or is empty and means every room"
            )
        if grant.room:
            room_name(grant.room)
    else:
        room_name(grant.room)
    if not grant.operations:
        raise InvalidRequest("a grant names at least one operation")
    return grant


@dataclass(frozen=True, slots=True)
class State:
    """What the file held when it was last read; never changed, only replaced."""

    keys: dict[str, Key] = field(default_factory=dict)
    hashes: dict[str, bytes] = field(default_factory=dict)
    holders: dict[str, Principal] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)  # of keys, by token id
    granted: dict[tuple[str, str], tuple[Grant, ...]] = field(default_factory=dict)
    grants: tuple[Granted, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    principals: dict[tuple[str, str], float] = field(default_factory=dict)
    tokens: frozenset[tuple[str, str]] = frozenset()
    marked: frozenset[str] = frozenset()  # token ids of which there is anything to say
    next_end: float = inf  # when the next key, grant or revocation ends


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to the file, which is made if need be. Raises StoreCorrupt or ConfigurationError for another's."""
    if path is not None:
        _create(path)
    db = sqlite3.connect(
        path or ":memory:", isolation_level=None, check_same_thread=False, timeout=5.0
    )
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path | None) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION and (tables or version):
        raise StoreCorrupt(f"{path} was not written by this program")
    if version > _VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer version: run that version"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    if version:
        return
    try:
        db.executescript(_SCHEMA)
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        # Another process has made the tables meanwhile.
        if not db.execute("PRAGMA user_version").fetchone()[0]:
            raise


def _create(path: Path) -> None:
    """Only its owner may read it: it says who may do what."""
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


def insert_key(db: sqlite3.Connection, key: Key, hash: bytes) -> None:
    """Raises Conflict when there are too many."""
    grants = orjson.dumps([list(grant) for grant in key.grants]).decode()
    db.execute(
        "INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, '')",
        (
            key.id,
            hash,
            key.principal,
            key.tenant,
            key.kind,
            key.name,
            grants,
            key.created,
            finite(key.expires),
        ),
    )
    bound(db, "key", MAX_KEYS, key.tenant)


def insert_revocation(db: sqlite3.Connection, made: Revocation) -> None:
    """Raises Conflict when there are too many."""
    db.execute("REPLACE INTO revocation VALUES (?, ?, ?, ?, ?)", made)
    bound(db, "revocation", MAX_REVOCATIONS, made.tenant)


def delete_revocation(
    db: sqlite3.Connection, tenant: str, kind: str, subject: str
) -> float:
    """Returns when it was made. Raises NothingHere."""
    where = "FROM revocation WHERE tenant = ? AND kind = ? AND subject = ?"
    row = db.execute(f"SELECT made {where}", (tenant, kind, subject)).fetchone()
    if row is None:
        raise NothingHere("there is no such revocation, or it is forgotten")
    db.execute(f"DELETE {where}", (tenant, kind, subject))
    return float(row[0])


def bound(db: sqlite3.Connection, table: str, limit: int, tenant: str) -> None:
    """Raises Conflict when there are too many now, of all or of a tenant."""
    count, own = db.execute(
        f"SELECT count(*), count(*) FILTER (WHERE tenant = ?) FROM {table}", (tenant,)
    ).fetchone()
    if tenant not in ("", ANY_TENANT) and own > limit // TENANT_SHARE:
        raise Conflict(f"this tenant has {own - 1} of these already; remove some first")
    if count > limit:
        raise Conflict(f"there are {limit} of these already; remove some first")


_KEY = "SELECT id, principal, tenant, kind, name, grants, created, expires, revoked, replaced_by FROM key"


def find_key(db: sqlite3.Connection, id: str, tenant: str | None) -> Key:
    """A key by its id. Raises NothingHere, also for a key of another tenant."""
    for row in db.execute(f"{_KEY} WHERE id = ?", (id,)):
        key = _key(*row)
        if tenant in (None, key.tenant):
            return key
    raise NothingHere("there is no such key")


def _key(
    id: str,
    principal: str,
    tenant: str,
    kind: Kind,
    name: str,
    grants: str,
    created: float,
    expires: float | None,
    revoked: float | None,
    replaced_by: str,
) -> Key:
    return Key(
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
        replaced_by,
    )


def _moment(found: float | None) -> float:
    return inf if found is None else found


def read(db: sqlite3.Connection, now: float) -> State:
    """All that holds now."""
    keys = [_key(*row) for row in db.execute(_KEY)]
    grants = [
        Granted(
            tenant,
            principal,
            Grant(room, operations, bool(is_prefix)),
            created,
            _moment(expires),
        )
        for tenant, principal, room, is_prefix, operations, created, expires in db.execute(
            "SELECT * FROM granted WHERE ifnull(expires, 9e99) > ?", (now,)
        )
    ]
    granted: dict[tuple[str, str], list[Grant]] = {}
    for each in grants:
        granted.setdefault((each.tenant, each.principal), []).append(each.grant)
    revocations = [
        Revocation(*row)
        for row in db.execute("SELECT * FROM revocation WHERE expires > ?", (now,))
    ]
    ends = {key.id: key.ends for key in keys if key.ends != inf}
    moments = (
        *ends.values(),
        *(each.expires for each in grants),
        *(each.expires for each in revocations),
    )
    tokens = frozenset(
        (each.tenant, each.subject) for each in revocations if each.kind == "token"
    )
    return State(
        keys={key.id: key for key in keys},
        hashes=dict(db.execute("SELECT id, hash FROM key")),
        holders={key.id: _principal(key) for key in keys},
        ends=ends,
        granted={who: tuple(found) for who, found in granted.items()},
        grants=tuple(grants),
        revocations=tuple(revocations),
        principals={
            (each.tenant, each.subject): each.made
            for each in revocations
            if each.kind == "principal"
        },
        tokens=tokens,
        marked=frozenset((*ends, *(token for _, token in tokens))),
        next_end=min((moment for moment in moments if moment > now), default=inf),
    )


def _principal(key: Key) -> Principal:
    return Principal(
        key.principal,
        key.tenant,
        key.kind,
        key.name,
        key.grants,
        expires=key.expires,
        token=key.id,
        issued=key.created,
    )


def finite(moment: float) -> float | None:
    """As a column holds it."""
    return None if moment == inf else moment

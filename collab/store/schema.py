"""The tables of the SQLite store, their numbered migrations, and how a connection is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from collab.errors import ConfigurationError, StoreCorrupt

APPLICATION = 0x636F6C6C  # "coll": tells our files from any other SQLite file

MIGRATIONS = (
    """
    -- One row per history of a room; a deleted one stays as a tombstone.
    CREATE TABLE room (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        epoch TEXT NOT NULL,
        created INTEGER NOT NULL,
        crc INTEGER NOT NULL,              -- over the four columns above
        fence INTEGER NOT NULL,            -- of the last checkpoint
        deleted INTEGER,
        is_purged INTEGER NOT NULL DEFAULT 0,
        position INTEGER NOT NULL DEFAULT 0,  -- of what the sweep has moved, like the three below
        changed INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (name, epoch)
    );
    CREATE UNIQUE INDEX room_live ON room (name) WHERE deleted IS NULL;

    -- What a commit appends to, in commit order and without any other index: a table keyed by room would
    -- write one page per changed room and commit. Only `room` is NOT NULL: padding rows fail on it.
    CREATE TABLE journal (
        n INTEGER PRIMARY KEY,
        room INTEGER NOT NULL,
        position INTEGER,
        last INTEGER,
        milliseconds INTEGER,
        crc INTEGER,
        updates BLOB
    );

    -- Where a sweep moves those rows every few seconds.
    CREATE TABLE log (
        room INTEGER NOT NULL,
        position INTEGER NOT NULL,
        last INTEGER NOT NULL,
        milliseconds INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        updates BLOB NOT NULL,
        PRIMARY KEY (room, position)
    ) WITHOUT ROWID;

    CREATE TABLE checkpoint (
        room INTEGER NOT NULL,
        position INTEGER NOT NULL,
        milliseconds INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        snapshot BLOB NOT NULL,
        PRIMARY KEY (room, position)
    );

    CREATE TABLE author (
        id INTEGER PRIMARY KEY,
        principal TEXT NOT NULL,
        connection TEXT NOT NULL,
        turn TEXT,
        crc INTEGER NOT NULL
    );

    CREATE TABLE owner (
        room INTEGER NOT NULL,
        client INTEGER NOT NULL,
        principal TEXT NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (room, client)
    ) WITHOUT ROWID;

    CREATE TABLE rejected (
        room INTEGER NOT NULL,
        position INTEGER NOT NULL,
        reason TEXT NOT NULL,
        milliseconds INTEGER NOT NULL,
        PRIMARY KEY (room, position)
    ) WITHOUT ROWID;
    """,
    """
    -- When the content of a deleted room goes, in Unix milliseconds; 0 when that has begun.
    ALTER TABLE room ADD COLUMN purge INTEGER;
    UPDATE room SET purge = 0 WHERE deleted IS NOT NULL;
    CREATE INDEX room_doomed ON room (purge) WHERE deleted IS NOT NULL AND is_purged = 0;

    -- Not in `room`, whose rows every sweep writes anew.
    CREATE TABLE about (
        room INTEGER PRIMARY KEY,
        metadata TEXT NOT NULL,            -- a JSON object
        history INTEGER,                   -- seconds that the log is kept; NULL for ever
        crc INTEGER NOT NULL
    );
    CREATE INDEX about_history ON about (room) WHERE history IS NOT NULL;

    -- How requests were answered that may come again, in order of time.
    CREATE TABLE answer (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        milliseconds INTEGER NOT NULL,
        digest BLOB NOT NULL,
        answer BLOB NOT NULL,
        crc INTEGER NOT NULL
    );

    -- What a repair took out of its place, as it was found.
    CREATE TABLE aside (
        n INTEGER PRIMARY KEY,
        room INTEGER NOT NULL,
        position INTEGER,                  -- the first and last that were lost with it
        last INTEGER,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        milliseconds INTEGER NOT NULL,
        record TEXT NOT NULL               -- its columns as JSON, bytes as hexadecimal digits
    );
    """,
    """
    -- A JSON object, "" where nothing is known.
    ALTER TABLE author ADD COLUMN about TEXT NOT NULL DEFAULT '';
    -- With which the author goes. NULL in rows of before, which stand for all rooms.
    ALTER TABLE author ADD COLUMN room INTEGER;
    CREATE INDEX author_room ON author (room) WHERE room IS NOT NULL;

    -- Who wrote what of a room, as its log tells up to this position.
    CREATE TABLE attribution (
        room INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        encoded BLOB NOT NULL
    );
    """,
)


SWEEP = """
    -- Inserting a number moves the journal up to that row into the log: one statement, since a thread that shares the
    -- interpreter with a busy event loop may wait milliseconds for its turn after each.
    CREATE TEMP VIEW sweep (n) AS SELECT 0;
    CREATE TEMP TRIGGER move INSTEAD OF INSERT ON sweep BEGIN
        INSERT OR IGNORE INTO log
            SELECT room, position, last, milliseconds, crc, updates FROM journal
            WHERE n <= new.n ORDER BY room, position;
        UPDATE room SET
            position = max(room.position, moved.last),
            changed = max(changed, moved.moment),
            bytes = bytes + moved.size
            FROM (
                SELECT room AS id, max(last) AS last, max(milliseconds) AS moment, sum(length(updates)) AS size
                FROM journal WHERE n <= new.n GROUP BY room
            ) AS moved WHERE room.id = moved.id;
        DELETE FROM journal WHERE n <= new.n;
    END;
"""


def connect(
    path: Path,
    *,
    synchronous: str = "FULL",
    is_read_only: bool = False,
    busy_seconds: float = 5.0,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """A connection in autocommit mode, with our pragmas; creates the file unless `is_read_only`."""
    mode = "ro" if is_read_only else "rwc"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        if is_read_only:
            db.execute("PRAGMA query_only = 1")
        else:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA wal_autocheckpoint = 4000")
            db.execute("PRAGMA secure_delete = ON")  # a deleted room leaves no bytes
            db.execute("PRAGMA journal_size_limit = 33554432")
    except BaseException:
        db.close()
        raise
    return db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to the newest form, each step in its own transaction."""
    version = check(db, path)
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION};"
            f"PRAGMA user_version = {number}; COMMIT"
        )


def check_current(db: sqlite3.Connection, path: Path) -> None:
    """For who may not migrate: ConfigurationError when the tables are not of this version."""
    version = check(db, path)
    if version < len(MIGRATIONS):
        raise ConfigurationError(
            f"{path} was written by an older version (its tables have version {version}, this one needs "
            f"{len(MIGRATIONS)}): start the server on it once, which brings it up to date"
        )


def check(db: sqlite3.Connection, path: Path) -> int:
    """The file's version. StoreCorrupt when it is not ours, ConfigurationError when it is too new."""
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreCorrupt(
            f"{path} cannot be read as a database ({error}): restore a backup"
        ) from None
    if application != APPLICATION and (tables or version):
        raise StoreCorrupt(f"{path} was not written by this program")
    if version > len(MIGRATIONS):
        raise ConfigurationError(
            f"{path} was written by a newer version (its tables have version {version}, "
            f"this one knows {len(MIGRATIONS)}): run that version or restore an older copy"
        )
    return int(version)

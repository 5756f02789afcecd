"""Statements that write to the SQLite store, beside appends; each runs in the transaction of the writer."""

from __future__ import annotations

import sqlite3

from collab.errors import Conflict, RoomNotFound
from collab.names import spoken
from collab.store.base import (
    MAX_ANSWERS,
    Attributed,
    Checkpoint,
    RoomInfo,
    is_landmark,
)
from collab.store.reading import (
    about,
    attribution_of,
    find,
    find_deleted,
    info,
    living,
)
from collab.store.records import (
    about_checksum,
    answer_checksum,
    attribution_checksum,
    checkpoint_checksum,
    encode_metadata,
    text_checksum,
)


def is_over(db: sqlite3.Connection, room: str, epoch: str) -> bool:
    """Whether a room of that name had this epoch, and lives no more."""
    row = db.execute("SELECT 1 FROM room WHERE name = ? AND epoch = ?", (room, epoch))
    return row.fetchone() is not None


def make(db: sqlite3.Connection, room: str, epoch: str, created: int) -> int:
    """A new room where none lives; its number."""
    number = int(
        db.execute(
            "INSERT INTO room (name, epoch, created, crc, fence) VALUES (?1, ?2, ?3, 0,"
            " (SELECT coalesce(max(fence), 0) FROM room WHERE name = ?1))",
            (room, epoch, created),
        ).lastrowid
        or 0
    )
    db.execute(
        "UPDATE room SET crc = ? WHERE id = ?",
        (text_checksum(number, room, epoch, str(created)), number),
    )
    return number


def bind(db: sqlite3.Connection, room: int, owners: dict[int, str]) -> None:
    """The first owner of a client id stays."""
    for client, principal in owners.items():
        db.execute(
            "INSERT OR IGNORE INTO owner VALUES (?, ?, ?, ?)",
            (room, client, principal, text_checksum(room, str(client), principal)),
        )


def put_checkpoint(
    db: sqlite3.Connection, room: int, checkpoint: Checkpoint, fence: int, now: int
) -> bool:
    """In place of the older of the two before, unless that is a landmark; False when there is a newer one."""
    position, snapshot = checkpoint
    (newest,) = db.execute(
        "SELECT coalesce(max(position), 0) FROM checkpoint WHERE room = ?", (room,)
    ).fetchone()
    if newest >= position:
        return False
    checksum = checkpoint_checksum(room, position, now, snapshot)
    db.execute(
        "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?)",
        (room, position, now, checksum, snapshot),
    )
    _thin(db, room, newest)
    db.execute("UPDATE room SET fence = ? WHERE id = ?", (fence, room))
    return True


def _thin(db: sqlite3.Connection, room: int, newest: int) -> None:
    """What was the older of the two newest stays only as a landmark."""
    older = db.execute(
        "SELECT position, length(snapshot) FROM checkpoint"
        " WHERE room = ? AND position < ? ORDER BY position DESC LIMIT 2",
        (room, newest),
    ).fetchall()
    if not older:
        return
    (position, size), *before = older
    if not is_landmark(position, size, before[0][0] if before else None):
        db.execute(
            "DELETE FROM checkpoint WHERE room = ? AND position = ?", (room, position)
        )


def put_attribution(db: sqlite3.Connection, room: int, attributed: Attributed) -> bool:
    """In place of the one before; False when that is of a later position."""
    known = attribution_of(db, room)
    if attributed.position <= (known.position if known else 0):
        return False
    checksum = attribution_checksum(room, *attributed)
    db.execute(
        "INSERT OR REPLACE INTO attribution (room, position, encoded, crc) VALUES (?, ?, ?, ?)",
        (room, *attributed, checksum),
    )
    return True


def reject(
    db: sqlite3.Connection, room: str, position: int, reason: str, now: int
) -> None:
    """Leave a position out of later loads."""
    db.execute(
        "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)",
        (living(db, room).id, position, reason, now),
    )


def tell(
    db: sqlite3.Connection, room: int, metadata: str, history_seconds: int | None
) -> RoomInfo:
    """Replace what is said about a room. The metadata is encoded."""
    checksum = about_checksum(room, metadata, history_seconds)
    db.execute(
        "INSERT OR REPLACE INTO about VALUES (?, ?, ?, ?)",
        (room, metadata, history_seconds, checksum),
    )
    return info(db, room)


def describe(db: sqlite3.Connection, room: str, metadata: str) -> RoomInfo:
    """Replace the metadata alone."""
    live = living(db, room)
    return tell(db, live.id, metadata, about(db, live.id).history_seconds)


def retain(db: sqlite3.Connection, room: str, history_seconds: int | None) -> RoomInfo:
    """Replace the retention alone."""
    live = living(db, room)
    metadata = encode_metadata(about(db, live.id).metadata)
    return tell(db, live.id, metadata, history_seconds)


def bury(
    db: sqlite3.Connection, room: int, *, fence: int, now: int, purge: int
) -> None:
    """Make a tombstone of a room. The fence keeps a compactor of its history from touching the next one."""
    db.execute(
        "UPDATE room SET deleted = ?, purge = ?, fence = ? WHERE id = ?",
        (now, purge, fence, room),
    )


def restore(db: sqlite3.Connection, room: str, *, fence: int, now: int) -> RoomInfo:
    """Undo that. The fence keeps out a compactor of a history that lay between."""
    if find(db, room) is not None:
        raise Conflict("there is a room of this name")
    deleted = find_deleted(db, room, now)
    if deleted is None:
        raise RoomNotFound(f"there is no deleted room {spoken(room)}, or no longer")
    db.execute(
        "UPDATE room SET deleted = NULL, purge = NULL, fence = ? WHERE id = ?",
        (fence, deleted.id),
    )
    return info(db, deleted.id)


def remember(
    db: sqlite3.Connection, key: str, digest: bytes, answer: bytes, now: int
) -> None:
    """Keep an answer, and forget the oldest when there are too many."""
    number = db.execute(
        "INSERT OR REPLACE INTO answer (key, milliseconds, digest, answer, crc) VALUES (?, ?, ?, ?, ?)",
        (key, now, digest, answer, answer_checksum(key, now, digest, answer)),
    ).lastrowid
    db.execute("DELETE FROM answer WHERE n <= ?", ((number or 0) - MAX_ANSWERS,))

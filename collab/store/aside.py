"""Takes damaged records out of their places without dropping them. All of this runs in a transaction of the caller."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

import orjson

from collab.store.base import Author
from collab.store.checks import MISSING, Fault, Lost, shown
from collab.store.records import (
    INTO_AUTHOR,
    MAX_AUTHOR,
    author_checksum,
    pack_entry,
    text_checksum,
)

_EMPTY_UPDATE = b"\x00\x00"
_REPAIR, _UNKNOWN = Author("operator", "repair"), Author("", "repair")
_FILLED_AT_ONCE = 1000  # positions in one row


def set_aside(
    db: sqlite3.Connection, room: int, fault: Fault, milliseconds: int
) -> None:
    """Keep a record as it was found, and take it out of its place. A room's own record is made whole instead."""
    table, where = fault.place.table, fault.place.condition
    cursor = db.execute(f"SELECT * FROM {table} WHERE {where}", fault.place.values)
    names = [column[0] for column in cursor.description]
    for row in cursor.fetchall():
        record = {name: shown(value) for name, value in zip(names, row, strict=True)}
        _keep(db, room, None, None, table, fault.reason, milliseconds, record)
    if table == "room" and len(fault.place.key) > 1:
        _settle_position(db, room)
    elif table == "room":
        _renew(db, room)
    elif table == "author" and fault.reason == MISSING:
        number = fault.place.values[0]
        db.execute(
            f"INSERT OR REPLACE {INTO_AUTHOR}",
            (number, None, *_UNKNOWN, author_checksum(number, None, *_UNKNOWN)),
        )
    else:
        db.execute(f"DELETE FROM {table} WHERE {where}", fault.place.values)


def _keep(
    db: sqlite3.Connection,
    room: int,
    position: int | None,
    last: int | None,
    source: str,
    reason: str,
    milliseconds: int,
    record: dict[str, Any],
) -> None:
    db.execute(
        "INSERT INTO aside (room, position, last, source, reason, milliseconds, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            room,
            position,
            last,
            source,
            reason,
            milliseconds,
            orjson.dumps(record).decode(),
        ),
    )


def _renew(db: sqlite3.Connection, room: int) -> None:
    """A new epoch for a room whose record is damaged, since it is not known what of it is."""
    name, created = db.execute(
        "SELECT name, created FROM room WHERE id = ?", (room,)
    ).fetchone()
    if not isinstance(name, str):
        name = f"damaged-room-{room}"
    change_epoch(db, room, shown(name), created if isinstance(created, int) else 0)


def change_epoch(db: sqlite3.Connection, room: int, name: str, created: int) -> None:
    """Let the room begin a history of its own, which no other copy of it shares."""
    epoch = secrets.token_hex(8)
    db.execute(
        "UPDATE room SET name = ?, epoch = ?, created = ?, crc = ? WHERE id = ?",
        (name, epoch, created, text_checksum(room, name, epoch, str(created)), room),
    )


def fill(
    db: sqlite3.Connection, room: int, lost: Lost, author: int, milliseconds: int
) -> None:
    """Note positions as lost. Where the room could not be opened without them, empty updates take their place."""
    source = "lost" if lost.is_needed else "history"
    _keep(
        db,
        room,
        lost.position,
        lost.last,
        source,
        "no intact record holds these positions",
        milliseconds,
        {"principals": lost.principals},
    )
    if not lost.is_needed:
        return
    for start in range(lost.position, lost.last + 1, _FILLED_AT_ONCE):
        count = min(_FILLED_AT_ONCE, lost.last + 1 - start)
        fields = pack_entry(
            room, start, milliseconds, [author] * count, [_EMPTY_UPDATE] * count
        )
        db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", fields)
        db.executemany(
            "INSERT OR REPLACE INTO rejected VALUES (?, ?, 'lost', ?)",
            [(room, at, milliseconds) for at in range(start, start + count)],
        )


def repair_author(db: sqlite3.Connection) -> int:
    """The number of the author that stands where the true one is lost."""
    row = db.execute(
        "SELECT id FROM author WHERE principal = ? AND connection = ? AND turn IS NULL"
        " AND about = '' AND room IS NULL",
        _REPAIR[:2],
    ).fetchone()
    if row is not None:
        return int(row[0])
    (number,) = db.execute(
        f"SELECT coalesce(max(id), 0) + 1 FROM author WHERE id < {MAX_AUTHOR}"
    ).fetchone()
    db.execute(
        f"INSERT {INTO_AUTHOR}",
        (number, None, *_REPAIR, author_checksum(number, None, *_REPAIR)),
    )
    return int(number)


def _settle_position(db: sqlite3.Connection, room: int) -> None:
    """The last position as the sweep would have noted it."""
    db.execute(
        "UPDATE room SET position = (SELECT coalesce(max(last), 0) FROM log WHERE room = ?1) WHERE id = ?1",
        (room,),
    )

"""Looks at every record of a data file: what is not as it was written, and what is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import error, unpack_from
from typing import Any, NamedTuple

from collab.store.base import Checkpoint
from collab.store.records import (
    AUTHOR,
    Damaged,
    about_checksum,
    answer_checksum,
    attribution_checksum,
    author_checksum,
    checkpoint_checksum,
    text_checksum,
    unpack_entry,
)

MAX_FILLED = 100_000  # lost positions at the end of a room that get a placeholder
MISSING = "it is missing"
_DECODE_AT_MOST = 1000  # authors of a damaged row


# Table → what is its key beside the room
_OF_ROOMS = {
    "log": "position",
    "journal": "n",
    "checkpoint": "rowid",
    "owner": "client",
    "about": "room",
    "attribution": "room",
    "author": "id",
}


class Place(NamedTuple):
    """Where a record lies: its table, and what its key is, whatever type a flipped bit may have given it."""

    table: str
    key: tuple[tuple[str, Any], ...]

    @property
    def condition(self) -> str:
        return " AND ".join(f"{column} IS ?" for column, _ in self.key)

    @property
    def values(self) -> list[Any]:
        return [value for _, value in self.key]


class Fault(NamedTuple):
    """A record that is not what was written."""

    place: Place
    reason: str
    position: int | None = None  # that it claims to have, where it is of a room's log
    last: int | None = None
    principals: tuple[str, ...] = ()  # as far as they can be read


class Lost(NamedTuple):
    """Positions that no intact row of the log holds."""

    position: int
    last: int
    is_needed: (
        bool  # no checkpoint holds what they brought, so the room cannot be opened
    )
    principals: tuple[str, ...] = ()  # as far as they can be read


class RoomRecord(NamedTuple):
    """The row of a room, believed only as far as `is_intact`."""

    id: int
    name: str
    epoch: str
    created: int
    position: int
    deleted: int | None
    is_intact: bool


@dataclass(slots=True)
class Look:
    """All that was found in one room."""

    record: RoomRecord
    faults: list[Fault] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # also those known before
    checkpoints: list[Checkpoint] = field(default_factory=list)  # intact, newest first
    rows: list[tuple[int, bytes]] = field(default_factory=list)  # intact, in order
    rejected: set[int] = field(default_factory=set)
    last: int = 0
    has_whole_log: bool = False

    @property
    def applied(self) -> list[tuple[int, bytes]]:
        """The rows that a load would apply."""
        return [row for row in self.rows if row[0] not in self.rejected]

    def after(self, position: int) -> list[tuple[int, bytes]]:
        return [row for row in self.applied if row[0] > position]


def expect_damage(db: sqlite3.Connection) -> None:
    """Read text also where flipped bits have made it no UTF-8."""
    db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")


def room_record(db: sqlite3.Connection, room: int) -> RoomRecord | None:
    """The room of that number, if it has content now."""
    return next(room_records(db, "AND id = ?", room), None)


def room_records(
    db: sqlite3.Connection, condition: str = "", *values: int
) -> Iterator[RoomRecord]:
    """The rooms that have content, also deleted ones that can be restored."""
    for number, name, epoch, created, checksum, position, deleted in db.execute(
        "SELECT id, name, epoch, created, crc, position, deleted FROM room"
        f" WHERE is_purged = 0 AND (deleted IS NULL OR purge > 0) {condition} ORDER BY id",
        values,
    ).fetchall():
        is_intact = isinstance(name, str) and checksum == text_checksum(
            number, name, epoch, str(created)
        )
        yield RoomRecord(
            number,
            str(shown(name)),
            str(shown(epoch)),
            created,
            position,
            deleted,
            is_intact,
        )


def look(db: sqlite3.Connection, record: RoomRecord) -> Look:
    """Every record of a room against its checksum, and what is missing between them."""
    found = Look(record)
    room = record.id
    if not record.is_intact:
        reason = "name, epoch or time of creation is not what was written"
        found.faults.append(Fault(Place("room", (("id", room),)), reason))
    _look_at_checkpoints(db, found)
    found.rejected = {
        position
        for (position,) in db.execute(
            "SELECT position FROM rejected WHERE room = ?", (room,)
        )
    }
    _look_at_log(db, found)
    for client, principal, checksum in db.execute(
        "SELECT client, principal, crc FROM owner WHERE room = ?", (room,)
    ):
        if checksum != text_checksum(room, str(client), principal):
            place = Place("owner", (("room", room), ("client", client)))
            found.faults.append(Fault(place, "checksum"))
    for metadata, history, checksum in db.execute(
        "SELECT metadata, history, crc FROM about WHERE room = ?", (room,)
    ):
        if checksum != about_checksum(room, metadata, history):
            found.faults.append(Fault(Place("about", (("room", room),)), "checksum"))
    for position, encoded, checksum in db.execute(
        "SELECT position, encoded, crc FROM attribution WHERE room = ?", (room,)
    ):
        try:
            is_intact = checksum == attribution_checksum(room, position, encoded)
        except Exception:  # a flipped bit can turn a column into another type
            is_intact = False
        if not is_intact:
            place = Place("attribution", (("room", room),))
            found.faults.append(Fault(place, "checksum", _number(position)))
    return found


def _look_at_checkpoints(db: sqlite3.Connection, found: Look) -> None:
    for number, position, milliseconds, checksum, snapshot in db.execute(
        "SELECT rowid, position, milliseconds, crc, snapshot FROM checkpoint WHERE room = ? ORDER BY position DESC",
        (found.record.id,),
    ):
        try:
            is_intact = checksum == checkpoint_checksum(
                found.record.id, position, milliseconds, snapshot
            )
        except Exception:  # a flipped bit can turn a column into another type
            is_intact = False
        if is_intact:
            found.checkpoints.append(Checkpoint(position, snapshot))
        else:
            place = Place("checkpoint", (("rowid", number),))
            found.faults.append(Fault(place, "checksum", _number(position)))


_LOG = """
    SELECT position AS number, room, position, last, milliseconds, crc, updates, 'log' FROM log WHERE room = :room
    UNION ALL
    SELECT n, room, position, last, milliseconds, crc, updates, 'journal' FROM journal WHERE room = :room
    ORDER BY 3, 8 DESC
"""


def _look_at_log(db: sqlite3.Connection, found: Look) -> None:
    room = found.record.id
    damaged: list[Fault] = []
    authors: set[int] = set()
    held: list[tuple[int, int]] = []  # ranges of positions
    last = 0
    for number, *fields, table in db.execute(_LOG, {"room": room}):
        try:
            numbers, updates = unpack_entry(fields)
        except Damaged:
            damaged.append(_damaged_row(db, table, number, fields))
            continue
        authors.update(numbers)
        known = max(0, last + 1 - fields[1])
        found.rows += enumerate(updates[known:], fields[1] + known)
        if known < len(updates):
            held.append((fields[1] + known, fields[2]))
            last = fields[2]
    found.faults += damaged
    for author in sorted(authors):
        if not db.execute("SELECT 1 FROM author WHERE id = ?", (author,)).fetchone():
            place = Place("author", (("id", author),))
            found.faults.append(Fault(place, MISSING))
    covered = found.checkpoints[0].position if found.checkpoints else 0
    claimed = found.record.position
    if not isinstance(claimed, int) or claimed > max(last, covered) + MAX_FILLED:
        place = Place("room", (("id", room), ("position", claimed)))
        found.faults.append(Fault(place, "its last position is impossible"))
        claimed = 0
    found.last = max(last, covered, claimed)
    found.gaps = _gaps(held, found.last)
    known_gaps = _known_gaps(db, room)
    for position, end in found.gaps:
        for part, is_needed in (
            ((position, min(end, covered)), False),
            ((max(position, covered + 1), end), True),
        ):
            if part[0] > part[1]:
                continue
            is_trimmed = not is_needed and position == 1
            is_known = any(a <= part[0] and part[1] <= b for a, b in known_gaps)
            if is_needed or not (is_trimmed or is_known):
                found.lost.append(Lost(*part, is_needed, _principals(damaged, part)))
    found.has_whole_log = not found.gaps


def _damaged_row(
    db: sqlite3.Connection, table: str, number: Any, fields: Sequence[Any]
) -> Fault:
    key: tuple[tuple[str, Any], ...] = (("n", number),)
    if table == "log":
        key = (("room", fields[0]), ("position", number))
    principals: set[str] = set()
    for author in _author_numbers(fields):
        row = db.execute(
            f"SELECT room, {AUTHOR}, crc FROM author WHERE id = ?", (author,)
        ).fetchone()
        if row is not None and row[-1] == author_checksum(author, *row[:-1]):
            principals.add(row[1])
    return Fault(
        Place(table, key),
        "checksum",
        _number(fields[1]),
        _number(fields[2]),
        tuple(sorted(principals)),
    )


def _author_numbers(fields: Sequence[Any]) -> Sequence[int]:
    """Who brought the updates of a damaged row in, if that much of it can be read."""
    try:
        count = fields[2] - fields[1] + 1
        if not 0 < count <= _DECODE_AT_MOST:
            return ()
        return unpack_from(f"<{2 * count}I", fields[5])[count:]
    except (TypeError, error):
        return ()


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _gaps(held: list[tuple[int, int]], last: int) -> list[tuple[int, int]]:
    gaps, reached = [], 0
    for position, end in held:
        if position > reached + 1:
            gaps.append((reached + 1, position - 1))
        reached = end
    if last > reached:
        gaps.append((reached + 1, last))
    return gaps


def _known_gaps(db: sqlite3.Connection, room: int) -> list[tuple[int, int]]:
    return db.execute(
        "SELECT position, last FROM aside WHERE room = ? AND source = 'history'",
        (room,),
    ).fetchall()


def _principals(damaged: list[Fault], part: tuple[int, int]) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                principal
                for fault in damaged
                if fault.position is not None
                and fault.last is not None
                and fault.position <= part[1]
                and part[0] <= fault.last
                for principal in fault.principals
            }
        )
    )


def common_faults(db: sqlite3.Connection) -> list[Fault]:
    """What is wrong with records that belong to no room, or to one that is not there."""
    faults = [
        Fault(Place("author", (("id", number),)), "checksum")
        for number, *fields, checksum in db.execute(
            f"SELECT id, room, {AUTHOR}, crc FROM author"
        )
        if checksum != author_checksum(number, *fields)
    ]
    for number, key, milliseconds, digest, answer, checksum in db.execute(
        "SELECT n, key, milliseconds, digest, answer, crc FROM answer"
    ):
        try:
            is_intact = checksum == answer_checksum(key, milliseconds, digest, answer)
        except Exception:  # a flipped bit can turn a column into another type
            is_intact = False
        if not is_intact:
            faults.append(Fault(Place("answer", (("n", number),)), "checksum"))
    for table, column in _OF_ROOMS.items():
        for room, number in db.execute(
            f"SELECT room, {column} FROM {table} WHERE room NOT IN"
            " (SELECT id FROM room WHERE is_purged = 0)"
        ):
            key = (("room", room), (column, number))
            faults.append(Fault(Place(table, key), "it belongs to no room"))
    return faults


def file_faults(db: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its own pages; empty for a sound file."""
    try:
        found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def shown(value: Any) -> Any:
    """A value of any type as JSON can hold it."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value

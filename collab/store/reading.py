"""Reading rooms from the SQLite store: every record is checked against its checksum before it is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from collab import logs
from collab.errors import RoomNotFound, StoreCorrupt, StoreUnavailable
from collab.names import spoken
from collab.store.base import (
    ANSWER_SECONDS,
    Attributed,
    Author,
    Checkpoint,
    Remembered,
    RoomInfo,
    Row,
    Stored,
)
from collab.store.records import (
    AUTHOR,
    Damaged,
    Fields,
    about_checksum,
    answer_checksum,
    attribution_checksum,
    author_checksum,
    checkpoint_checksum,
    text_checksum,
    unpack_entry,
)

log = logs.logger(__name__)

MAX_POSITION = (1 << 63) - 1  # that a column can hold

# The log and what the sweep has not yet moved there. A position can be in both tables: then the log's row counts.
_ROWS = """
    SELECT room, position, last, milliseconds, crc, updates, 0 AS place FROM log
    WHERE room = :room AND position >= coalesce(
        (SELECT max(position) FROM log WHERE room = :room AND position <= :after + 1), 0)
    UNION ALL
    SELECT room, position, last, milliseconds, crc, updates, 1 FROM journal WHERE room = :room
    ORDER BY position, place
"""


class Live(NamedTuple):
    """The row of a room."""

    id: int
    name: str
    epoch: str
    created: int
    fence: int
    position: int


def translate(error: sqlite3.Error, what: str) -> StoreCorrupt | StoreUnavailable:
    """The error to show for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    is_damage = code is None or code & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
    kind = StoreCorrupt if is_damage else StoreUnavailable
    return kind(f"{what}: {error}")


_ROOM = "SELECT id, name, epoch, created, fence, position, crc FROM room WHERE name = ?"
_RESTORABLE = "deleted IS NOT NULL AND is_purged = 0 AND purge > :now"


def find(db: sqlite3.Connection, name: str) -> Live | None:
    """The live room of that name."""
    return _checked(
        name, db.execute(f"{_ROOM} AND deleted IS NULL", (name,)).fetchone()
    )


def living(db: sqlite3.Connection, name: str) -> Live:
    """The same; RoomNotFound."""
    live = find(db, name)
    if live is None:
        raise RoomNotFound(f"there is no room {spoken(name)}")
    return live


def find_deleted(db: sqlite3.Connection, name: str, now: int) -> Live | None:
    """The room of that name that was deleted last, when it can be restored."""
    row = db.execute(
        "SELECT id, name, epoch, created, fence, position, crc FROM room"
        f" WHERE name = :name AND {_RESTORABLE} ORDER BY id DESC LIMIT 1",
        {"name": name, "now": now},
    ).fetchone()
    return _checked(name, row)


def _checked(name: str, row: Sequence[Any] | None) -> Live | None:
    if row is None:
        return None
    *fields, checksum = row
    live = Live(*fields)
    if live.name != name or checksum != text_checksum(
        live.id, name, live.epoch, str(live.created)
    ):
        raise StoreCorrupt(f"room {spoken(name)}: its record is damaged")
    return live


def checkpoints(
    db: sqlite3.Connection, room: int, *, until: int = MAX_POSITION
) -> Iterator[Checkpoint]:
    """The intact checkpoints at `until` and before, newest first."""
    for position, milliseconds, checksum, snapshot in db.execute(
        "SELECT position, milliseconds, crc, snapshot FROM checkpoint"
        " WHERE room = ? AND position <= ? ORDER BY position DESC",
        (room, min(until, MAX_POSITION)),
    ):
        try:
            is_intact = checksum == checkpoint_checksum(
                room, position, milliseconds, snapshot
            )
        except Exception:  # a flipped bit can turn a column into another type
            is_intact = False
        if is_intact:
            yield Checkpoint(position, snapshot)
        else:
            log.error("damaged checkpoint", room_number=room, position=position)


def checkpoint_before(
    db: sqlite3.Connection, name: str, position: int
) -> Checkpoint | None:
    """The newest intact one with nothing after `position` in it. RoomNotFound."""
    return next(checkpoints(db, living(db, name).id, until=position), None)


def attribution(db: sqlite3.Connection, name: str) -> Attributed | None:
    """Who wrote what, if that is kept and intact. RoomNotFound."""
    return attribution_of(db, living(db, name).id)


def attribution_of(db: sqlite3.Connection, room: int) -> Attributed | None:
    """The same by number."""
    row = db.execute(
        "SELECT position, encoded, crc FROM attribution WHERE room = ?", (room,)
    ).fetchone()
    if row is None:
        return None
    position, encoded, checksum = row
    try:
        is_intact = checksum == attribution_checksum(room, position, encoded)
    except Exception:  # a flipped bit can turn a column into another type
        is_intact = False
    if not is_intact:
        log.error("damaged attribution", room_number=room)
        return None
    return Attributed(position, encoded)


def last_position(db: sqlite3.Connection, room: int, *, with_journal: bool) -> int:
    """The position of the last intact update: what `load` says, at less cost."""
    last = 0
    for checkpoint in checkpoints(db, room):
        last = checkpoint.position
        break
    for fields in db.execute(
        "SELECT room, position, last, milliseconds, crc, updates FROM log WHERE room = ? ORDER BY position DESC",
        (room,),
    ):
        if is_intact(fields):
            last = max(last, fields[2])
            break
    if with_journal:
        for fields in db.execute(
            "SELECT room, position, last, milliseconds, crc, updates FROM journal WHERE room = ?",
            (room,),
        ):
            if is_intact(fields):
                last = max(last, fields[2])
    return last


def is_intact(fields: Fields) -> bool:
    try:
        unpack_entry(fields)
    except Damaged:
        return False
    return True


class Reading(NamedTuple):
    """One piece of a room's log, checked."""

    position: int
    milliseconds: int
    authors: list[int]
    updates: list[bytes]


def read(
    db: sqlite3.Connection, room: int, after: int, damaged: list[int]
) -> Iterator[Reading]:
    """Intact rows that hold positions greater than `after`, in order, each position once.

    The positions that damaged rows claim to have are added to `damaged`.
    """
    for *fields, _ in db.execute(_ROWS, {"room": room, "after": after}):
        try:
            authors, updates = unpack_entry(fields)
        except Damaged:
            damaged.append(fields[1] if isinstance(fields[1], int) else 0)
            continue
        position, last, milliseconds = fields[1:4]
        if last <= after:
            continue
        known = max(0, after + 1 - position)
        yield Reading(position + known, milliseconds, authors[known:], updates[known:])
        after = last


def load(db: sqlite3.Connection, name: str, fence: int) -> tuple[Stored, int]:
    """What opening the room needs, and how many damaged rows were left aside since a checkpoint covers them."""
    live = find(db, name)
    if live is None:
        return Stored("", 0, None, (), {}, fence), 0
    rejected = {
        position
        for (position,) in db.execute(
            "SELECT position FROM rejected WHERE room = ?", (live.id,)
        )
    }
    checkpoint = next(checkpoints(db, live.id), None)
    start = checkpoint.position if checkpoint else 0
    damaged: list[int] = []
    tail: list[tuple[int, bytes]] = []
    last = start
    for position, _, _, updates in read(db, live.id, start, damaged):
        if position != last + 1:
            raise StoreCorrupt(
                f"room {spoken(name)}: position {last + 1} is damaged or missing"
            )
        for at, update in enumerate(updates, position):
            if at not in rejected:
                tail.append((at, update))
        last = position + len(updates) - 1
    if live.position > last or (damaged and not _is_covered(damaged, start)):
        raise StoreCorrupt(
            f"room {spoken(name)}: position {last + 1} is damaged or missing"
        )
    owners = {
        client: principal
        for client, principal, checksum in db.execute(
            "SELECT client, principal, crc FROM owner WHERE room = ?", (live.id,)
        )
        if checksum == text_checksum(live.id, str(client), principal)
    }
    return Stored(live.epoch, last, checkpoint, tail, owners, fence), len(damaged)


def _is_covered(damaged: list[int], position: int) -> bool:
    """Whether a checkpoint holds what the damaged rows held, as far as their keys can be believed."""
    return all(0 < claimed <= position for claimed in damaged)


def history(
    db: sqlite3.Connection, name: str, after: int, limit: int
) -> tuple[list[Row], int]:
    """Rows after a position, and how many damaged ones lie between them."""
    live = living(db, name)
    damaged: list[int] = []
    rows: list[Row] = []
    people: dict[int, Author] = {}
    for position, milliseconds, authors, updates in read(db, live.id, after, damaged):
        for at, (number, update) in enumerate(
            zip(authors, updates, strict=True), position
        ):
            if number not in people:
                people[number] = _author(db, number)
            rows.append(Row(at, milliseconds, people[number], update))
        if len(rows) >= limit:
            break
    return rows[:limit], len(damaged)


def _author(db: sqlite3.Connection, number: int) -> Author:
    row = db.execute(
        f"SELECT room, {AUTHOR}, crc FROM author WHERE id = ?", (number,)
    ).fetchone()
    if row is None or row[-1] != author_checksum(number, *row[:-1]):
        raise StoreCorrupt(f"the record of author {number} is damaged")
    return Author(*row[1:-1])


class About(NamedTuple):
    """What is said about a room."""

    metadata: dict[str, Any]
    history_seconds: int | None


def about(db: sqlite3.Connection, room: int) -> About:
    """What is said about a room; nothing where nothing is, or where the record is damaged."""
    return _about(
        room,
        db.execute(
            "SELECT metadata, history, crc FROM about WHERE room = ?", (room,)
        ).fetchone()
        or (None, None, None),
    )


def _about(room: int, row: Sequence[Any]) -> About:
    metadata, history_seconds, checksum = row
    if checksum is None:
        return About({}, None)
    if checksum != about_checksum(room, metadata, history_seconds):
        log.error("damaged metadata", room_number=room)
        return About({}, None)
    return About(orjson.loads(metadata), history_seconds)


# With what the sweep has not yet moved counted in.
_INFOS = """
    SELECT r.id, r.name, r.epoch, max(r.position, coalesce(j.position, 0)),
        coalesce((SELECT max(position) FROM checkpoint WHERE room = r.id), 0),
        r.bytes + coalesce(j.bytes, 0)
            + coalesce((SELECT sum(length(snapshot)) FROM checkpoint WHERE room = r.id), 0)
            + coalesce((SELECT length(encoded) FROM attribution WHERE room = r.id), 0),
        r.created, max(r.created, r.changed, coalesce(j.changed, 0)), r.deleted, a.metadata, a.history, a.crc
    FROM room r LEFT JOIN about a ON a.room = r.id LEFT JOIN (
        SELECT room, max(last) AS position, max(milliseconds) AS changed, sum(length(updates)) AS bytes
        FROM journal GROUP BY room
    ) j ON j.room = r.id
"""


def _info(row: Sequence[Any]) -> RoomInfo:
    number, name, epoch, position, checkpoint, size, created, changed = row[:8]
    metadata, history_seconds = _about(number, row[9:])
    return RoomInfo(
        name,
        epoch,
        position,
        checkpoint,
        size,
        created,
        changed,
        metadata,
        history_seconds,
        deleted_milliseconds=row[8],
    )


def info(db: sqlite3.Connection, room: int) -> RoomInfo:
    """The room of that number."""
    return _info(db.execute(f"{_INFOS} WHERE r.id = ?", (room,)).fetchone())


def info_of(db: sqlite3.Connection, name: str, now: int) -> RoomInfo | None:
    """The live room of that name, else the one that was deleted last and can be restored."""
    found = find(db, name) or find_deleted(db, name, now)
    return None if found is None else info(db, found.id)


def ends(db: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    """The last position of each of these rooms that lives."""
    rows = db.execute(
        """
        SELECT r.name, max(r.position, coalesce(j.position, 0)) FROM room r LEFT JOIN (
            SELECT room, max(last) AS position FROM journal GROUP BY room
        ) j ON j.room = r.id WHERE r.deleted IS NULL AND r.name IN (SELECT value FROM json_each(?))
        """,
        (orjson.dumps(list(names)).decode(),),
    )
    return dict(rows)


LAST_NAME = "\U0010ffff" * 129  # behind every name that a tenant and a room can make


def rooms(
    db: sqlite3.Connection,
    prefix: str,
    after: str,
    limit: int,
    *,
    now: int,
    deleted: bool,
) -> list[RoomInfo]:
    """A page of the live rooms, or of those that can be restored: of each name the last one."""
    which = "deleted IS NULL"
    if deleted:
        which = f"r.id IN (SELECT max(id) FROM room WHERE {_RESTORABLE} GROUP BY name)"
    return [
        _info(row)
        for row in db.execute(
            f"""
            {_INFOS} WHERE {which} AND r.name BETWEEN :prefix AND :end AND r.name > :after
                AND substr(r.name, 1, :length) = :prefix
            ORDER BY r.name LIMIT :limit
            """,
            {
                "prefix": prefix,
                "end": prefix + LAST_NAME,  # so that no further rooms are gone over
                "after": after,
                "length": len(prefix),
                "limit": limit,
                "now": now,
            },
        )
    ]


def recall(db: sqlite3.Connection, key: str, now: int) -> Remembered | None:
    """The answer that is remembered under that key."""
    row = db.execute(
        "SELECT milliseconds, digest, answer, crc FROM answer WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    milliseconds, digest, answer, checksum = row
    if checksum != answer_checksum(key, milliseconds, digest, answer):
        raise StoreCorrupt("the record of an earlier answer is damaged")
    is_over = milliseconds < now - ANSWER_SECONDS * 1000
    return None if is_over else Remembered(digest, answer)

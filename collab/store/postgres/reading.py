"""Reading rooms from Postgres: every record is checked against its checksum before it is believed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from collab import logs
from collab.errors import RoomNotFound, StoreCorrupt
from collab.names import spoken
from collab.store.base import (
    ANSWER_SECONDS,
    Attributed,
    Checkpoint,
    Remembered,
    RoomInfo,
    Row,
    Stored,
)
from collab.store.postgres.connections import allow
from collab.store.postgres.records import (
    about_checksum,
    attribution_checksum,
    checkpoint_checksum,
    decode_author,
    owner_checksum,
    room_checksum,
    room_key,
    row_checksum,
)
from collab.store.postgres.schema import FORMAT
from collab.store.postgres.writer import newer_room
from collab.store.records import answer_checksum

log = logs.logger(__name__)

MAX_POSITION = (1 << 63) - 1  # that a column can hold
LAST_NAME = "\U0010ffff" * 129  # behind every name that a tenant and a room can make

_ROOM = "SELECT id, name, epoch, created, crc, format, fence, position FROM collab.room"
_RESTORABLE = "deleted IS NOT NULL AND NOT is_purged AND purge > $2"
_INFO = """
    SELECT r.id, r.name, r.epoch, r.position, coalesce(c.position, 0) AS checkpoint,
        r.bytes + coalesce(c.bytes, 0) + coalesce(octet_length(a.encoded), 0) AS bytes,
        r.created, greatest(r.created, r.changed) AS changed, r.deleted,
        r.metadata, r.metadata_crc, r.history, r.history_crc
    FROM collab.room r LEFT JOIN collab.attribution a ON a.room = r.id LEFT JOIN LATERAL (
        SELECT max(position) AS position, sum(octet_length(snapshot))::bigint AS bytes
        FROM collab.checkpoint WHERE room = r.id
    ) c ON true
"""
_TAIL = """
    SELECT position, milliseconds, crc, author, update FROM collab.log
    WHERE room = $1 AND position > $2 ORDER BY position LIMIT $3
"""
_TAIL_SIZE = """
    SELECT coalesce(sum(octet_length(update)), 0)::bigint FROM (
        SELECT update FROM collab.log WHERE room = $1 AND position > $2 ORDER BY position LIMIT $3
    ) tail
"""


class Live(NamedTuple):
    """The row of a room."""

    id: int
    name: str
    epoch: str
    key: int  # what begins the checksums of its records
    fence: int
    position: int


async def find(db: Any, name: str) -> Live | None:
    """The live room of that name."""
    return _live(
        name, await db.fetchrow(f"{_ROOM} WHERE name = $1 AND deleted IS NULL", name)
    )


async def living(db: Any, name: str) -> Live:
    """The same; RoomNotFound."""
    live = await find(db, name)
    if live is None:
        raise RoomNotFound(f"there is no room {spoken(name)}")
    return live


async def find_deleted(db: Any, name: str, now: int) -> Live | None:
    """The room of that name that was deleted last, when it can be restored."""
    return _live(
        name,
        await db.fetchrow(
            f"{_ROOM} WHERE name = $1 AND {_RESTORABLE} ORDER BY id DESC LIMIT 1",
            name,
            now,
        ),
    )


def _live(name: str, row: Any) -> Live | None:
    if row is None:
        return None
    id, found, epoch, created, crc, format, fence, position = row
    if found != name or crc != room_checksum(name, epoch, created):
        raise StoreCorrupt(f"room {spoken(name)}: its record is damaged")
    if format > FORMAT:
        raise newer_room(name)
    return Live(id, name, epoch, room_key(name, epoch), fence, position)


async def next_epoch(db: Any, name: str, identity: str) -> str:
    """Of the history that a first entry of this name begins.

    Made from how many there were, so that all replicas say the same and nothing need be written down for a name that
    is only asked for.
    """
    count = await db.fetchval("SELECT count(*) FROM collab.room WHERE name = $1", name)
    return hashlib.sha256(f"{identity}:{count}:{name}".encode()).hexdigest()[:16]


class Loaded(NamedTuple):
    """What opening a room needs, and what the store keeps of it to itself."""

    stored: Stored
    damaged: int = 0  # checkpoints that were left aside
    head: int | None = None  # the checksum of the last row


async def load(db: Any, name: str, identity: str, limit: asyncio.Timeout) -> Loaded:
    """Checkpoint and tail. Raises StoreCorrupt for a hole or a damaged row that no checkpoint covers."""
    fence = await db.fetchval("SELECT nextval('collab.fence')")
    live = await find(db, name)
    if live is None:
        epoch = await next_epoch(db, name, identity)
        return Loaded(Stored("", 0, None, (), {}, fence, epoch))
    checkpoint, damaged = await newest(db, live, limit)
    start = checkpoint.position if checkpoint else 0
    rejected = {
        position
        for (position,) in await db.fetch(
            "SELECT position FROM collab.rejected WHERE room = $1", live.id
        )
    }
    allow(limit, await db.fetchval(_TAIL_SIZE, live.id, start, None))
    tail: list[tuple[int, bytes]] = []
    last, head = start, None
    for row in await db.fetch(_TAIL, live.id, start, None):
        if row["position"] != last + 1 or not _is_intact(live, row):
            raise _lost(name, last + 1)
        last, head = last + 1, row["crc"]
        if last not in rejected:
            tail.append((last, row["update"]))
    if last != live.position:
        raise _lost(name, last + 1)
    owners = {
        client: principal
        for client, principal, crc in await db.fetch(
            "SELECT client, principal, crc FROM collab.owner WHERE room = $1", live.id
        )
        if crc == owner_checksum(name, client, principal)
    }
    stored = Stored(live.epoch, last, checkpoint, tail, owners, fence)
    return Loaded(stored, damaged, head)


def _lost(name: str, position: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"room {spoken(name)}: position {position} is damaged or missing"
    )


def _is_intact(live: Live, row: Any) -> bool:
    author = row["author"].encode()
    return bool(
        row["crc"] == row_checksum(live.key, row["milliseconds"], author, row["update"])
    )


async def newest(
    db: Any, live: Live, limit: asyncio.Timeout, *, until: int = MAX_POSITION
) -> tuple[Checkpoint | None, int]:
    """The newest intact checkpoint up to a position, and how many newer ones are damaged."""
    positions = await db.fetch(
        "SELECT position, octet_length(snapshot) FROM collab.checkpoint"
        " WHERE room = $1 AND position <= $2 ORDER BY position DESC",
        live.id,
        min(until, MAX_POSITION),
    )
    for damaged, (position, size) in enumerate(positions):
        allow(limit, size)
        milliseconds, crc, snapshot = await db.fetchrow(
            "SELECT milliseconds, crc, snapshot FROM collab.checkpoint WHERE room = $1 AND position = $2",
            live.id,
            position,
        )
        if crc == checkpoint_checksum(live.key, position, milliseconds, snapshot):
            return Checkpoint(position, snapshot), damaged
        log.error("damaged checkpoint", room=live.name, position=position)
    return None, len(positions)


async def attribution(
    db: Any, live: Live, limit: asyncio.Timeout
) -> tuple[Attributed | None, int | None]:
    """Who wrote what, if that is kept and intact; when it is not, the checksum that stands beside it."""
    size = await db.fetchval(
        "SELECT octet_length(encoded) FROM collab.attribution WHERE room = $1", live.id
    )
    if size is None:
        return None, None
    allow(limit, size)
    row = await db.fetchrow(
        "SELECT position, crc, encoded FROM collab.attribution WHERE room = $1", live.id
    )
    if row is None:
        return None, None
    position, crc, encoded = row
    if crc == attribution_checksum(live.key, position, encoded):
        return Attributed(position, encoded), None
    log.error("damaged attribution", room=live.name)
    return None, crc


async def has_two_checkpoints(db: Any, live: Live, limit: asyncio.Timeout) -> bool:
    """Whether the two newest are intact, so that neither need ever be done without."""
    rows = await db.fetch(
        "SELECT octet_length(snapshot) FROM collab.checkpoint WHERE room = $1 ORDER BY position DESC LIMIT 2",
        live.id,
    )
    allow(limit, sum(size for (size,) in rows))
    found = await db.fetch(
        "SELECT position, milliseconds, crc, snapshot FROM collab.checkpoint"
        " WHERE room = $1 ORDER BY position DESC LIMIT 2",
        live.id,
    )
    return len(found) > 1 and all(
        crc == checkpoint_checksum(live.key, position, milliseconds, snapshot)
        for position, milliseconds, crc, snapshot in found
    )


async def history(
    db: Any, name: str, after: int, count: int, limit: asyncio.Timeout
) -> tuple[list[Row], int]:
    """Rows after a position, and how many damaged ones lie between them."""
    live = await living(db, name)
    allow(limit, await db.fetchval(_TAIL_SIZE, live.id, after, count))
    found = await db.fetch(_TAIL, live.id, after, count)
    rows = [
        Row(
            row["position"],
            row["milliseconds"],
            decode_author(row["author"]),
            row["update"],
        )
        for row in found
        if _is_intact(live, row)
    ]
    return rows, len(found) - len(rows)


async def info(db: Any, room: int) -> RoomInfo:
    """The room of that number."""
    return _info(await db.fetchrow(f"{_INFO} WHERE r.id = $1", room))


async def info_of(db: Any, name: str, now: int) -> RoomInfo | None:
    """The live room of that name, else the one that was deleted last and can be restored."""
    found = await find(db, name) or await find_deleted(db, name, now)
    return None if found is None else await info(db, found.id)


async def rooms(
    db: Any, prefix: str, after: str, count: int, *, now: int, deleted: bool
) -> list[RoomInfo]:
    """A page of the live rooms, or of those that can be restored: of each name the last one."""
    which = "r.deleted IS NULL AND $5::bigint IS NOT NULL"
    if deleted:
        which = (
            "r.id IN (SELECT max(id) FROM collab.room"
            " WHERE deleted IS NOT NULL AND NOT is_purged AND purge > $5 GROUP BY name)"
        )
    rows = await db.fetch(
        f"{_INFO} WHERE {which} AND r.name >= $1 AND r.name <= $2 AND r.name > $3 AND starts_with(r.name, $1)"
        " ORDER BY r.name LIMIT $4",
        prefix,
        prefix + LAST_NAME,  # so that no further rooms are gone over
        after,
        count,
        now,
    )
    return [_info(row) for row in rows]


def _info(row: Any) -> RoomInfo:
    key = room_key(row["name"], row["epoch"])
    return RoomInfo(
        row["name"],
        row["epoch"],
        row["position"],
        row["checkpoint"],
        row["bytes"],
        row["created"],
        row["changed"],
        orjson.loads(_said(row, "metadata", key) or b"{}"),
        row["history"] if _said(row, "history", key) else None,
        row["deleted"],
    )


def _said(row: Any, what: str, key: int) -> str:
    """What is said about a room; "" where nothing is, or where the record is damaged."""
    if row[what] is None:
        return ""
    said = str(row[what])
    if row[f"{what}_crc"] != about_checksum(key, said):
        log.error("damaged record about a room", room=row["name"], record=what)
        return ""
    return said


async def recall(db: Any, key: str, now: int) -> Remembered | None:
    """The answer that is remembered under that key."""
    row = await db.fetchrow(
        "SELECT milliseconds, digest, answer, crc FROM collab.answer WHERE key = $1",
        key.encode(),
    )
    if row is None:
        return None
    milliseconds, digest, answer, crc = row
    if crc != answer_checksum(key, milliseconds, digest, answer):
        raise StoreCorrupt("the record of an earlier answer is damaged")
    is_over = milliseconds < now - ANSWER_SECONDS * 1000
    return None if is_over else Remembered(digest, answer)


async def promise(db: Any) -> tuple[str, bool]:
    """What a commit in this database survives, as a sentence, and whether that is all that it should."""
    names: Sequence[str] = (
        "synchronous_commit",
        "fsync",
        "full_page_writes",
        "synchronous_standby_names",
    )
    commit, fsync, pages, standbys = [
        await db.fetchval(f"SHOW {name}") for name in names
    ]
    if fsync == "off" or pages == "off":
        return (
            "a crash of the database's machine may damage all of it: fsync or full_page_writes is off",
            False,
        )
    if commit == "off":
        return (
            "a crash of the database loses its last commits: synchronous_commit is off",
            False,
        )
    if standbys and commit in ("on", "remote_apply", "remote_write"):
        return f"on disk here and at the standbys ({commit})", True
    return (
        "on disk at one server: a failover to a standby may lose the last commits",
        True,
    )

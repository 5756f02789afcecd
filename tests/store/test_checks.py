"""A look at every record, and taking out of place what is damaged: any flipped bit is found, and no room stays shut."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from collab.errors import CollabError
from collab.store import reading
from collab.store.aside import fill, repair_author, set_aside
from collab.store.base import Attributed, Author, Checkpoint, Entry
from collab.store.checks import (
    Fault,
    Look,
    common_faults,
    expect_damage,
    look,
    room_record,
    room_records,
)
from collab.store.schema import connect
from collab.store.sqlite import SqliteStore

ROOMS = ("one", "two")


async def make(data: Path) -> None:
    async with SqliteStore(data) as store:
        for room in ROOMS:
            for start in range(1, 31, 3):
                updates = [b"update %d" % at for at in range(start, start + 3)]
                authors = [
                    Author(f"person {at}", "connection", None, '{"kind":"human"}' * at)
                    for at in range(3)
                ]
                logged = asyncio.Event()

                def done(
                    entries: Sequence[Entry],
                    error: CollabError | None,
                    logged: asyncio.Event = logged,
                ) -> None:
                    assert error is None
                    logged.set()

                store.append([Entry(room, "e", start, 5, updates, authors)], done)
                await logged.wait()
            await store.bind(room, {1: "person 1", 2: "person 2"})
            await store.describe(room, {"title": room})
            for position in (6, 9, 18):
                fence = (await store.load(room)).fence
                checkpoint = Checkpoint(position, b"up to %d" % position)
                await store.checkpoint(room, checkpoint, fence=fence)
            await store.attribute(room, Attributed(18, b"who"), fence=fence)
        await store.remember("key", b"digest", b"answer")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    asyncio.run(make(tmp_path))
    with closing(connect(tmp_path / "collab.db")) as db:
        expect_damage(db)
        yield db


def seen(db: sqlite3.Connection) -> tuple[list[Fault], list[Look]]:
    return common_faults(db), [look(db, record) for record in room_records(db)]


def mend(db: sqlite3.Connection) -> None:
    """What a repair does, without native code."""
    for fault in common_faults(db):
        set_aside(db, 0, fault, 7)
    for found in seen(db)[1]:
        room = found.record.id
        for fault in found.faults:
            set_aside(db, room, fault, 7)
        record = room_record(db, room)
        assert record is not None
        for lost in look(db, record).lost:
            fill(db, room, lost, repair_author(db), 7)


COLUMNS = {
    "room": ("name", "epoch", "created", "crc"),
    "log": ("room", "position", "last", "milliseconds", "crc", "updates"),
    "checkpoint": ("room", "position", "milliseconds", "crc", "snapshot"),
    "author": ("id", "principal", "connection", "about", "room", "crc"),
    "owner": ("room", "client", "principal", "crc"),
    "about": ("room", "metadata", "crc"),
    "attribution": ("room", "position", "crc", "encoded"),
    "answer": ("milliseconds", "digest", "answer", "crc"),
}


def flip(db: sqlite3.Connection, chance: random.Random) -> tuple[str, str] | None:
    """Change one bit of one column, or its type; None where a constraint forbids that."""
    table = chance.choice(list(COLUMNS))
    column = chance.choice(COLUMNS[table])
    records = db.execute(f"SELECT * FROM {table}")
    names = [each[0] for each in records.description]
    record = chance.choice(records.fetchall())
    old = record[names.index(column)]
    new: Any
    if chance.random() < 0.1:
        new = chance.choice(["text", b"\xff\xfe", 2.5])
    elif isinstance(old, int):
        new = old ^ (1 << chance.randrange(63))
    elif not old:
        return None
    else:
        content = bytearray(old if isinstance(old, bytes) else old.encode())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(7)
        new = bytes(content) if isinstance(old, bytes) else content.decode()
    where = " AND ".join(f"{name} IS ?" for name in names)
    try:
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new, *record))
    except sqlite3.IntegrityError:
        return None
    return table, column


def test_a_sound_store_has_no_faults(db: sqlite3.Connection) -> None:
    faults, looks = seen(db)

    assert faults == []
    assert [(found.faults, found.lost, found.gaps) for found in looks] == [
        ([], [], [])
    ] * 2
    assert [found.last for found in looks] == [30, 30]


@pytest.mark.parametrize("seed", range(4))
def test_any_flipped_bit_is_found_and_after_a_repair_every_room_opens(
    db: sqlite3.Connection, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        db.execute("BEGIN")
        flipped = [flip(db, chance) for _ in range(chance.choice([1, 1, 3]))]
        if any(flipped):
            faults, looks = seen(db)
            assert faults or any(each.faults or each.lost for each in looks), flipped
            mend(db)
            faults, looks = seen(db)
            assert faults == [], flipped
            assert all(not each.faults and not each.lost for each in looks), flipped
            for (name,) in db.execute("SELECT name FROM room").fetchall():
                stored, damaged = reading.load(db, name, 1)
                assert damaged == 0, flipped
                assert stored.position == 30, flipped
                reading.history(db, name, 0, 1000)
        db.execute("ROLLBACK")


def test_lost_positions_stay_taken_and_are_left_out(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM log WHERE room = 1 AND position IN (22, 28)")

    mend(db)

    stored, _ = reading.load(db, "one", 1)
    assert [at for at, _ in stored.tail] == [19, 20, 21, 25, 26, 27]
    assert stored.position == 30
    assert db.execute(
        "SELECT position, last, source FROM aside WHERE room = 1"
    ).fetchall() == [(22, 24, "lost"), (28, 30, "lost")]


def test_a_damaged_attribution_is_set_aside(db: sqlite3.Connection) -> None:
    db.execute("UPDATE attribution SET encoded = x'00' WHERE room = 1")

    before = [fault.place.table for fault in seen(db)[1][0].faults]
    mend(db)

    assert before == ["attribution"]
    assert reading.attribution(db, "one") is None
    assert reading.attribution(db, "two") == Attributed(18, b"who")
    assert db.execute("SELECT source FROM aside").fetchall() == [("attribution",)]


def test_history_that_was_trimmed_is_not_lost(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM log WHERE room = 1 AND position <= 7")

    found = seen(db)[1][0]

    assert (found.lost, found.gaps) == ([], [(1, 9)])


def test_history_that_is_lost_is_told_once(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM log WHERE room = 1 AND position = 4")

    before = seen(db)[1][0].lost
    mend(db)

    assert [(lost.position, lost.last, lost.is_needed) for lost in before] == [
        (4, 6, False)
    ]
    assert seen(db)[1][0].lost == []

"""What can still be read of a file with damaged pages."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from collab.errors import StoreCorrupt
from collab.store.base import Author, Entry
from collab.store.checks import file_faults
from collab.store.salvage import salvage
from collab.store.sqlite import SqliteStore

PAGE = 4096


async def _make(data: Path) -> None:
    async with SqliteStore(data, window_seconds=0) as store:
        for position in range(1, 200):
            logged = asyncio.Event()
            entries = [
                Entry(
                    name,
                    "e",
                    position,
                    0,
                    [b"update %d" % position],
                    [Author("a", "c")],
                )
                for name in ("one", "two", "three")
            ]
            store.append(entries, lambda *answer, logged=logged: logged.set())
            await logged.wait()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    data = tmp_path_factory.mktemp("data")
    asyncio.run(_make(data))
    return (data / "collab.db").read_bytes()


def records(path: Path, table: str) -> set[Any]:
    with closing(sqlite3.connect(path)) as db:
        assert file_faults(db) == []
        return set(db.execute(f"SELECT * FROM {table}").fetchall())


def test_of_a_sound_file_all_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "collab.db").write_bytes(content)

    salvage(tmp_path / "collab.db", tmp_path / "new")

    for table in ("room", "log", "author"):
        all = records(tmp_path / "collab.db", table)
        assert records(tmp_path / "new", table) == all != set()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_page_costs_what_is_on_it(
    tmp_path: Path, content: bytes, seed: int
) -> None:
    chance = random.Random(seed)
    (tmp_path / "whole").write_bytes(content)
    damaged = bytearray(content)
    start = PAGE * chance.randrange(1, len(content) // PAGE)
    length = chance.choice([PAGE, 40])
    at = start + chance.randrange(PAGE - length + 1)
    damaged[at : at + length] = chance.choice([bytes(length), chance.randbytes(length)])
    (tmp_path / "collab.db").write_bytes(damaged)

    salvage(tmp_path / "collab.db", tmp_path / "new")

    whole, found = (records(tmp_path / name, "log") for name in ("whole", "new"))
    assert len(found) > len(whole) - 250


def test_rooms_whose_record_is_lost_are_known_by_name(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "whole").write_bytes(content)
    with closing(sqlite3.connect(tmp_path / "whole")) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'room'"
        ).fetchone()
    damaged = bytearray(content)
    damaged[PAGE * (page - 1) : PAGE * page] = bytes(PAGE)
    (tmp_path / "collab.db").write_bytes(damaged)

    salvage(tmp_path / "collab.db", tmp_path / "new")

    names = {(row[0], row[1], row[2]) for row in records(tmp_path / "new", "room")}
    assert names == {(1, "one", "e"), (2, "two", "e"), (3, "three", "e")}
    whole, found = (records(tmp_path / name, "log") for name in ("whole", "new"))
    assert whole == found


def test_a_file_without_its_first_page_is_given_up(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "collab.db").write_bytes(bytes(PAGE) + content[PAGE:])

    with pytest.raises(StoreCorrupt):
        salvage(tmp_path / "collab.db", tmp_path / "new")

"""What only the SQLite store does: one process per directory, migrations, the sweep, checksums, torn files."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from collab.errors import (
    CollabError,
    ConfigurationError,
    RoomNotFound,
    StoreCorrupt,
    StoreLocked,
    StoreUnavailable,
)
from collab.store import aside, reading, schema, sweep, writing
from collab.store.base import (
    LANDMARK_ROWS,
    Attributed,
    Author,
    Checkpoint,
    Entry,
    Stored,
)
from collab.store.checks import Lost
from collab.store.records import text_checksum
from collab.store.schema import connect
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

ALICE = Author("alice", "c1")


def entry(position: int, *updates: bytes, room: str = "notes") -> Entry:
    return Entry(room, "e1", position, 1000, updates, [ALICE] * len(updates))


async def append(store: SqliteStore, *entries: Entry) -> list[CollabError | None]:
    """Append in one call; the error of each answer."""
    errors: list[CollabError | None] = []
    left = len(entries)
    everything = asyncio.Event()

    def done(answered: Sequence[Entry], error: CollabError | None) -> None:
        nonlocal left
        errors.append(error)
        left -= len(answered)
        if not left:
            everything.set()

    store.append(entries, done)
    await asyncio.wait_for(everything.wait(), 30)
    return errors


def rows(directory: Path, query: str, *values: Any) -> list[Any]:
    """What a look from outside sees, or does."""
    db = sqlite3.connect(directory / "collab.db")
    try:
        with db:
            return db.execute(query, values).fetchall()
    finally:
        db.close()


def files(directory: Path) -> dict[str, bytes]:
    """What lies in the directory itself."""
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()
    }


# One process


async def test_a_second_store_on_the_directory_is_refused(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path):
        with pytest.raises(StoreLocked, match="another process"):
            await SqliteStore(tmp_path).__aenter__()


async def test_a_second_process_on_the_directory_is_refused(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from collab.store.sqlite import SqliteStore\n"
        "async def main():\n    async with SqliteStore(Path(sys.argv[1])): pass\n"
        "asyncio.run(main())"
    )
    async with SqliteStore(tmp_path):
        result = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, tmp_path],
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert result.returncode != 0
    assert "another process has" in result.stderr


async def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))
        await store.load("notes")

    assert files(tmp_path).keys() == {"collab.db", "lock", "reserve"}


async def test_the_lock_ends_with_the_store(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path):
        pass
    async with SqliteStore(tmp_path):
        pass


async def test_another_program_writing_to_the_file_delays_but_does_not_hang(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path, busy_seconds=0.2) as store:
        await append(store, entry(1, b"a"))
        other = sqlite3.connect(tmp_path / "collab.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        errors = await append(store, entry(2, b"b"))
        other.execute("ROLLBACK")
        other.close()
        again = await append(store, entry(2, b"b"))

    assert isinstance(errors[0], StoreUnavailable)
    assert again == [None]


# Files of other makes and times


async def test_a_newer_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path):
        pass
    rows(tmp_path, "PRAGMA user_version = 99")

    with pytest.raises(ConfigurationError, match="newer version"):
        await SqliteStore(tmp_path).__aenter__()
    with pytest.raises(ConfigurationError, match="newer version"):
        await SqliteStore(tmp_path, is_read_only=True).__aenter__()


async def test_an_older_file_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))
    more = "ALTER TABLE room ADD COLUMN color TEXT", "UPDATE room SET color = 'red'"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *more))

    async with SqliteStore(tmp_path) as store:
        assert list((await store.load("notes")).tail) == [(1, b"a")]

    assert rows(tmp_path, "SELECT color FROM room") == [("red",)]
    assert rows(tmp_path, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))
    bad = "ALTER TABLE room ADD COLUMN color TEXT; UPDATE nothing SET x = 1"
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, bad))
        with pytest.raises((StoreCorrupt, StoreUnavailable)):
            await SqliteStore(tmp_path).__aenter__()

    async with SqliteStore(tmp_path) as store:
        assert (await store.load("notes")).position == 1
    assert "color" not in str(rows(tmp_path, "SELECT sql FROM sqlite_schema"))


FIRST_VERSION = schema.MIGRATIONS[0]


async def test_a_file_of_the_first_version_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "new") as store:
        await append(store, entry(1, b"a"), entry(1, b"b", room="gone"))
    log = rows(tmp_path / "new", "SELECT * FROM log")
    (numbers,) = zip(*rows(tmp_path / "new", "SELECT id FROM author"), strict=True)
    authors = [
        (number, *ALICE[:3], text_checksum(number, *ALICE[:3])) for number in numbers
    ]
    old = connect(tmp_path / "collab.db")
    old.executescript(
        f"{FIRST_VERSION}; PRAGMA application_id = {schema.APPLICATION}; PRAGMA user_version = 1"
    )
    old.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", log)
    old.executemany("INSERT INTO author VALUES (?, ?, ?, ?, ?)", authors)
    columns = "id, name, epoch, created, crc, fence, deleted, is_purged, position, changed, bytes"
    old.executemany(
        f"INSERT INTO room ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows(tmp_path / "new", f"SELECT {columns} FROM room"),
    )
    old.execute("UPDATE room SET deleted = 5 WHERE name = 'gone'")
    old.close()
    with pytest.raises(ConfigurationError, match="older version"):
        await SqliteStore(tmp_path, is_read_only=True).__aenter__()

    async with SqliteStore(tmp_path) as store:
        assert list((await store.load("notes")).tail) == [(1, b"a")]
        assert [row.author for row in await store.history("notes")] == [ALICE]
        assert (await store.describe("notes", {"n": 1})).metadata == {"n": 1}
        assert await store.rooms(deleted=True) == []
        await store.tidy()

    assert rows(tmp_path, "SELECT count(*) FROM log") == [(1,)]
    assert rows(tmp_path, "SELECT is_purged FROM room") == [(0,), (1,)]


async def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    rows(tmp_path, "CREATE TABLE theirs (x)")

    with pytest.raises(StoreCorrupt, match="not written by this program"):
        await SqliteStore(tmp_path).__aenter__()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "collab.db").write_bytes(b"what is this" * 1000)

    with pytest.raises(StoreCorrupt):
        await SqliteStore(tmp_path).__aenter__()


async def test_after_a_refusal_the_directory_is_free(tmp_path: Path) -> None:
    (tmp_path / "collab.db").write_bytes(b"what is this" * 1000)
    with pytest.raises(StoreCorrupt):
        await SqliteStore(tmp_path).__aenter__()
    (tmp_path / "collab.db").unlink()

    async with SqliteStore(tmp_path) as store:
        assert await append(store, entry(1, b"a")) == [None]


# Reading beside a running server


async def test_a_reader_beside_the_server_sees_what_is_logged(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))
        async with SqliteStore(tmp_path, is_read_only=True) as reader:
            await append(store, entry(2, b"b"))

            assert [at for at, _ in (await reader.load("notes")).tail] == [1, 2]
            assert [row.author for row in await reader.history("notes")] == [ALICE] * 2
            assert [info.name for info in await reader.rooms()] == ["notes"]
            with pytest.raises(StoreUnavailable):
                reader.append([entry(3, b"c")], lambda entries, error: None)


async def test_a_reader_works_when_no_server_runs(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))

    async with SqliteStore(tmp_path, is_read_only=True) as reader:
        assert (await reader.load("notes")).position == 1


async def test_a_reader_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(RoomNotFound, match="no store"):
        await SqliteStore(tmp_path / "none", is_read_only=True).__aenter__()

    assert files(tmp_path) == {}


# The sweep


async def test_the_sweep_moves_rows_and_nothing_else_changes(tmp_path: Path) -> None:
    names = [f"room-{n}" for n in range(5)]
    async with SqliteStore(tmp_path, sweep_seconds=3600) as store:
        for position in range(1, 101):
            await append(
                store,
                *[entry(position, b"%d" % position, room=name) for name in names],
            )
        before = [await store.load(name) for name in names]
        ((swept,),) = rows(tmp_path, "SELECT count(*) FROM log")
        assert (
            swept < 100
        )  # the first look for what is to be tidied up may take some along

    async with SqliteStore(tmp_path) as store:
        after = [await store.load(name) for name in names]

    assert rows(tmp_path, "SELECT count(*) FROM journal") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM log") == [(500,)]
    assert [one.tail for one in after] == [one.tail for one in before]
    assert [one.position for one in after] == [100] * 5


def wait_for_the_sweep(directory: Path) -> None:
    while rows(directory, "SELECT count(*) FROM log") == [(0,)]:
        time.sleep(0.001)


def wait_for_the_purge(directory: Path) -> None:
    while rows(directory, "SELECT is_purged FROM room") == [(0,)]:
        time.sleep(0.001)


async def test_a_sweep_ends_by_itself_when_nothing_comes(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        await append(store, entry(1, b"x"))
        await asyncio.to_thread(wait_for_the_sweep, tmp_path)

        assert (await store.load("notes")).position == 1


async def test_loads_during_sweeps_see_every_row_once(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, sweep_seconds=0, window_seconds=0) as store:
        for position in range(1, 200):
            await append(store, entry(position, b"x"))

            tail = (await store.load("notes")).tail
            assert [at for at, _ in tail] == list(range(1, position + 1))


async def test_authors_go_with_their_room(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        await append(store, entry(1, b"a"), entry(1, b"b", room="other"))

        await store.delete("notes", purge=True)
        await store.tidy()

        (author,) = rows(tmp_path, "SELECT room FROM author")
        assert author == rows(tmp_path, "SELECT id FROM room WHERE name = 'other'")[0]
        assert [row.author for row in await store.history("other")] == [ALICE]


async def test_rows_of_a_deleted_room_are_purged(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        for position in range(1, 51):
            await append(store, entry(position, b"secret"))
        await store.delete("notes", purge=True)
        await append(store, entry(1, b"x", room="other"))
        await store.tidy()

    assert rows(tmp_path, "SELECT count(*) FROM log") == [(1,)]
    assert b"secret" not in b"".join(files(tmp_path).values())


async def test_a_large_room_is_purged_in_chunks_beside_appends(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, sweep_seconds=0, window_seconds=0) as store:
        for position in range(1, 3001):
            await append(store, entry(position, b"secret"))
        await store.delete("notes", purge=True)
        position = 1
        purged = "SELECT is_purged FROM room WHERE name = 'notes'"
        while rows(tmp_path, purged) == [(0,)]:
            assert await append(store, entry(position, b"x", room="other")) == [None]
            position += 1

        assert (await store.load("other")).position == position - 1
    assert b"secret" not in b"".join(files(tmp_path).values())


async def test_a_purge_that_was_cut_short_goes_on_by_itself(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"secret"))
        await store.delete("notes")
    rows(tmp_path, "UPDATE room SET purge = 0")

    async with SqliteStore(tmp_path):
        await asyncio.to_thread(wait_for_the_purge, tmp_path)

    assert rows(tmp_path, "SELECT count(*) FROM log") == [(0,)]


async def test_a_deletion_is_remembered_across_restarts(tmp_path: Path) -> None:
    now = 1_000_000
    async with SqliteStore(tmp_path, clock=lambda: now) as store:
        await append(store, entry(1, b"secret"))
        await store.delete("notes")
    async with SqliteStore(tmp_path, clock=lambda: now) as store:
        assert (await store.restore("notes")).position == 1
        await store.delete("notes")
    assert b"secret" in b"".join(files(tmp_path).values())

    now += 8 * 24 * 3600 * 1000
    async with SqliteStore(tmp_path, clock=lambda: now) as store:
        assert await store.info("notes") is None
        await store.tidy()

    assert b"secret" not in b"".join(files(tmp_path).values())


async def test_a_purge_under_way_cannot_be_undone_by_a_clock_that_goes_back(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a"))
        await store.delete("notes")
    rows(tmp_path, "UPDATE room SET purge = 0")  # as the first chunk does

    async with SqliteStore(tmp_path, clock=lambda: 0) as store:
        with pytest.raises(RoomNotFound):
            await store.restore("notes")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("bad"), ValueError("bad")])
async def test_what_cannot_be_tidied_up_holds_up_no_commits(
    tmp_path: Path, error: Exception
) -> None:
    connections = []

    class Driver(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            connections.append(self)

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql.startswith("SELECT room FROM about"):
                raise error
            return super().execute(sql, *values)

    async with SqliteStore(
        tmp_path, window_seconds=0, sweep_seconds=0, factory=Driver
    ) as store:
        answers = [
            await append(store, entry(position, b"x")) for position in range(1, 200)
        ]

    assert answers == [[None]] * 199
    assert len(connections) <= 2


async def test_a_long_log_is_trimmed_in_chunks(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path, window_seconds=0, sweep_seconds=0) as store:
        for position in range(1, 1001):
            await append(store, entry(position, b"x"))
        for position in (900, 950):
            fence = (await store.load("notes")).fence
            await store.checkpoint("notes", Checkpoint(position, b"s"), fence=fence)
        await store.retain("notes", 1)

        await store.tidy()

        assert (await store.history("notes"))[0].position == 901
        info = await store.info("notes")
        assert info is not None
        assert info.bytes == 100 * 9 + 2
        assert (await store.load("notes")).position == 1000


async def test_what_was_said_of_turns_goes_with_the_rows_that_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LANDMARK_ROWS", 100)
    steady = Author("ada", "c")
    counts, named = [], []
    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        for position in range(1, 1001):
            turn = Author("bot", "c", f"t{position}", f"why {position} secret")
            author = steady if position % 2 else turn
            await append(store, entry(position, b"x")._replace(authors=[author]))
        await append(store, entry(1, b"x", room="other")._replace(authors=[turn]))
        await store.retain("notes", 1)
        for position in (150, 199, 230, 260, 299, 650):
            fence = (await store.load("notes")).fence
            for at in (position, position + 1):
                await store.checkpoint("notes", Checkpoint(at, b"s"), fence=fence)
            await store.tidy()
            found = await store.history("notes", limit=1000)
            counts.append(len(rows(tmp_path, "SELECT 1 FROM author")))
            named.append({row.author for row in found})
            assert found[0].position == position + 1
            assert found[-1].author == turn
        again = await append(store, entry(1001, b"x")._replace(authors=[steady]))
        last = (await store.history("notes", after=1000))[0]

    # 50 turns and one who stays in each band, and the other room's.
    assert counts == [51 * bands + 2 for bands in (9, 8, 8, 8, 7, 4)]
    assert all(steady in authors for authors in named)
    assert (again, last.author) == ([None], steady)
    assert b"why 598 secret" not in b"".join(files(tmp_path).values())


async def test_nobody_goes_whom_a_row_names_after_rows_that_were_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LANDMARK_ROWS", 100)
    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        for position in range(1, 201):
            author = ALICE if position % 2 else Author("bot", "c", f"t{position}")
            await append(store, entry(position, b"x")._replace(authors=[author]))
        await store.tidy()
    with closing(sqlite3.connect(tmp_path / "collab.db")) as db, db:
        db.execute("DELETE FROM log WHERE position BETWEEN 95 AND 105")
        aside.fill(db, 1, Lost(95, 105, True), aside.repair_author(db), 1000)

    async with SqliteStore(tmp_path, sweep_seconds=0) as store:
        await store.retain("notes", 1)
        fence = (await store.load("notes")).fence
        for at in (150, 151):
            await store.checkpoint("notes", Checkpoint(at, b"s"), fence=fence)
        await store.tidy()

        found = await store.history("notes")
        assert (found[0].position, found[0].author) == (151, ALICE)


async def test_log_is_kept_where_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE checkpoint SET crc = crc + 1 WHERE position = 10")
    async with SqliteStore(tmp_path) as store:
        await store.retain("notes", 0)
        await store.tidy()

        assert (await store.history("notes"))[0].position == 1


async def test_only_so_many_answers_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_ANSWERS", 3)
    async with SqliteStore(tmp_path) as store:
        for key in "abcde":
            await store.remember(key, b"digest", key.encode())

        recalled = [await store.recall(key) for key in "abcde"]

    assert [each and each.answer for each in recalled] == [None, None, b"c", b"d", b"e"]


async def test_an_answer_is_written_with_the_commit_before_it(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        appended = asyncio.create_task(append(store, entry(1, b"a")))
        await asyncio.sleep(0)
        await store.remember("key", b"digest", b"answer")

        assert (await store.load("notes")).position == 1
        assert await appended == [None]


# Damage


async def test_damaged_metadata_is_not_served_and_harms_no_listing(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path) as store:
        await store.create("notes", {"title": "a"}, history_seconds=5)
    rows(tmp_path, """UPDATE about SET metadata = '{"title":"b"}'""")

    async with SqliteStore(tmp_path) as store:
        (info,) = await store.rooms()

    assert (info.metadata, info.history_seconds) == ({}, None)


async def test_a_damaged_answer_is_not_served(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await store.remember("key", b"digest", b"answer")
        rows(tmp_path, "UPDATE answer SET answer = x'00'")

        with pytest.raises(StoreCorrupt):
            await store.recall("key")


async def stored_with_checkpoints(directory: Path) -> None:
    """Rows 1 to 40 in four entries, checkpoints at 10 and 20."""
    async with SqliteStore(directory) as store:
        for start in range(1, 41, 10):
            updates = [b"update-%d" % at for at in range(start, start + 10)]
            await append(store, entry(start, *updates))
        await append(store, entry(1, b"fine", room="other"))
        for position in (10, 20):
            fence = (await store.load("notes")).fence
            await store.checkpoint(
                "notes", Checkpoint(position, b"snapshot-%d" % position), fence=fence
            )


async def loaded(directory: Path, room: str = "notes") -> Stored:
    async with SqliteStore(directory) as store:
        return await store.load(room)


async def test_a_damaged_checkpoint_gives_way_to_the_older_one(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(
        tmp_path, "UPDATE checkpoint SET snapshot = x'00' || snapshot WHERE position=20"
    )

    stored = await loaded(tmp_path)

    assert stored.checkpoint == Checkpoint(10, b"snapshot-10")
    assert [at for at, _ in stored.tail] == list(range(11, 41))


async def test_without_an_intact_checkpoint_the_log_is_enough(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE checkpoint SET crc = crc + 1")

    stored = await loaded(tmp_path)

    assert stored.checkpoint is None
    assert [at for at, _ in stored.tail] == list(range(1, 41))


async def test_a_damaged_attribution_is_not_served_and_told_anew(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, b"a", b"b", b"c"))
        fence = (await store.load("notes")).fence
        await store.attribute("notes", Attributed(3, b"who"), fence=fence)
        for damage in ("encoded = x'00'", "position = 'x'", "crc = 1.5"):
            rows(tmp_path, f"UPDATE attribution SET {damage}")

            assert await store.attribution("notes") is None
            assert await store.attribute("notes", Attributed(2, b"who"), fence=fence)
            assert await store.attribution("notes") == Attributed(2, b"who")


async def test_a_damaged_landmark_gives_way_to_the_one_before(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path) as store:
        await append(store, entry(1, *[b"x"] * 3 * LANDMARK_ROWS))
        for number in range(1, 6):
            fence = (await store.load("notes")).fence
            checkpoint = Checkpoint(number * LANDMARK_ROWS // 2, b"%d" % number)
            assert await store.checkpoint("notes", checkpoint, fence=fence)
        rows(
            tmp_path,
            "UPDATE checkpoint SET snapshot = x'00' WHERE position = ?",
            LANDMARK_ROWS,
        )

        found = await store.checkpoint_before("notes", LANDMARK_ROWS + 1)

        assert found == Checkpoint(LANDMARK_ROWS // 2, b"1")


async def test_a_damaged_row_under_a_checkpoint_does_no_harm(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE log SET updates = x'ffff' WHERE position = 11")

    stored = await loaded(tmp_path)

    assert [at for at, _ in stored.tail] == list(range(21, 41))


async def test_a_damaged_row_is_counted_in_the_history(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE log SET updates = x'ffff' WHERE position = 11")

    async with SqliteStore(tmp_path) as store:
        positions = [row.position for row in await store.history("notes")]

        assert positions == [*range(1, 11), *range(21, 41)]
        assert store.damaged_records == 1


@pytest.mark.parametrize("position", [21, 31])
async def test_a_damaged_row_after_the_checkpoint_makes_its_room_unavailable(
    tmp_path: Path, position: int
) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE log SET crc = crc + 1 WHERE position = ?", position)

    async with SqliteStore(tmp_path) as store:
        with pytest.raises(StoreCorrupt, match=f"notes.*{position}"):
            await store.load("notes")
        assert (await store.load("other")).tail == [(1, b"fine")]
        assert await append(store, entry(2, b"on", room="other")) == [None]


async def test_a_missing_last_row_is_noticed(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "DELETE FROM log WHERE position = 31")

    with pytest.raises(StoreCorrupt, match=r"notes.*31"):
        await loaded(tmp_path)


async def test_a_damaged_room_record_is_noticed(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE room SET epoch = 'e9' WHERE name = 'notes'")

    async with SqliteStore(tmp_path) as store:
        with pytest.raises(StoreCorrupt):
            await store.load("notes")
        assert isinstance((await append(store, entry(41, b"x")))[0], StoreCorrupt)


async def test_a_damaged_author_is_noticed(tmp_path: Path) -> None:
    await stored_with_checkpoints(tmp_path)
    rows(tmp_path, "UPDATE author SET principal = 'mallory'")

    async with SqliteStore(tmp_path) as store:
        with pytest.raises(StoreCorrupt, match="author"):
            await store.history("notes")


async def test_every_one_of_ten_thousand_flipped_bits_is_noticed(
    tmp_path: Path,
) -> None:
    """Any bit of any column of a row of the log: the room is unavailable, never silently different."""
    async with SqliteStore(tmp_path) as store:
        chance = random.Random(4)
        for position in range(1, 30, 3):
            await append(
                store, entry(position, *[chance.randbytes(20) for _ in range(3)])
            )
    db = connect(tmp_path / "collab.db")
    columns = ("room", "position", "last", "milliseconds", "crc", "updates")
    records = db.execute(f"SELECT {', '.join(columns)} FROM log").fetchall()

    for _ in range(10_000):
        record = chance.choice(records)
        column = chance.randrange(len(columns))
        value = record[column]
        if isinstance(value, bytes):
            flipped = bytearray(value)
            flipped[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
            new: Any = bytes(flipped)
        else:
            bit = 1 << chance.randrange(63)
            new = value ^ bit
        db.execute("BEGIN")
        db.execute(
            f"UPDATE log SET {columns[column]} = ? WHERE position = ?", (new, record[1])
        )
        with pytest.raises(StoreCorrupt):
            reading.load(db, "notes", 1)
        db.execute("ROLLBACK")
    assert reading.load(db, "notes", 1)[0].position == 30
    db.close()


async def test_flipped_bits_anywhere_in_the_file_are_never_served(
    tmp_path: Path,
) -> None:
    """The right content, or an error that says so: never anything else, never a hang."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    await stored_with_checkpoints(original)
    right = await loaded(original)
    content = (original / "collab.db").read_bytes()
    chance = random.Random(5)

    served = 0
    for _ in range(150):
        copy.mkdir(exist_ok=True)
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (copy / "collab.db").write_bytes(flipped)
        try:
            stored = await loaded(copy)
        except (StoreCorrupt, StoreUnavailable, ConfigurationError):
            pass
        else:
            served += 1
            if stored.epoch:  # else the name is no longer found: an empty room
                assert stored.position == right.position
                start = stored.checkpoint.position if stored.checkpoint else 0
                assert list(stored.tail) == [
                    (at, b"update-%d" % at) for at in range(start + 1, 41)
                ]
        shutil.rmtree(copy)
    assert served > 50


# Torn files


async def test_a_copy_torn_at_any_moment_holds_a_prefix(tmp_path: Path) -> None:
    """Database and write-ahead log as a power cut may leave them: what was acknowledged and kept its order."""
    live, torn = tmp_path / "live", tmp_path / "torn"
    chance = random.Random(6)
    lengths = []
    async with SqliteStore(live, window_seconds=0, sweep_seconds=0.01) as store:
        position = 1
        for _ in range(40):
            for _ in range(chance.randrange(1, 6)):
                await append(store, entry(position, b"update-%d" % position))
                position += 1
            torn.mkdir()
            shutil.copy(live / "collab.db", torn)
            shutil.copy(live / "collab.db-wal", torn)
            wal = torn / "collab.db-wal"
            os.truncate(wal, chance.randrange(wal.stat().st_size + 1))
            try:
                stored = await loaded(torn)
            except StoreCorrupt as error:  # cut before the tables were made
                pytest.fail(str(error))
            assert list(stored.tail) == [
                (at, b"update-%d" % at) for at in range(1, stored.position + 1)
            ]
            lengths.append(stored.position)
            shutil.rmtree(torn)

    assert max(lengths) > 0


async def test_an_untorn_copy_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy"
    async with SqliteStore(live, window_seconds=0) as store:
        for position in range(1, 20):
            await append(store, entry(position, b"x"))
        copy.mkdir()
        shutil.copy(live / "collab.db", copy)
        shutil.copy(live / "collab.db-wal", copy)

    assert (await loaded(copy)).position == 19

"""The commands that keep a data directory sound."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from logged import capture_logs
from processes import ROOT, Server
from pycrdt import Doc, Text

from collab import compaction, logs
from collab.cli import main
from collab.commands import maintenance
from collab.commands.progress import Progress
from collab.document.document import Document
from collab.errors import CollabError
from collab.store import base
from collab.store.backup import _seal
from collab.store.base import Author, Checkpoint, Entry
from collab.store.records import checkpoint_checksum
from collab.store.schema import APPLICATION, MIGRATIONS
from collab.store.sqlite import SqliteStore

ALICE = Author("alice", "c1")
BOB = Author("bob", "c2", "turn-7", '{"kind":"agent"}')


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def collab(data: Path, *arguments: str) -> Done:
    """A command, in this process: starting another for each takes longer than most of them."""
    out, err = TextIOWrapper(BytesIO()), TextIOWrapper(BytesIO())
    with (
        pytest.MonkeyPatch.context() as patched,
        capture_logs(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patched.setattr(sys, "argv", ["collab", *arguments, "--data", str(data)])
        patched.setattr(logs, "configure", lambda **options: None)
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    out.seek(0)
    err.seek(0)
    assert code is None or isinstance(code, int)
    return Done(code or 0, out.read(), err.read())


def found(
    data: Path, *arguments: str, code: int = 3, key: str = "findings"
) -> list[dict[str, Any]]:
    """What a command says in JSON."""
    done = collab(data, *arguments, "--json")
    assert done.returncode == code, done.stderr
    said: list[dict[str, Any]] = json.loads(done.stdout)[key]
    return said


def rows(data: Path, query: str, *values: Any) -> list[Any]:
    db = sqlite3.connect(data / "collab.db")
    try:
        with db:
            return db.execute(query, values).fetchall()
    finally:
        db.close()


class Writer:
    """A document, and the update of each of its keystrokes."""

    def __init__(self) -> None:
        self.updates: list[bytes] = []
        self.doc: Doc[Any] = Doc(client_id=7)
        self.doc.observe(lambda event: self.updates.append(event.update))
        self.text = self.doc.get("text", type=Text)

    def write(self, letters: str) -> None:
        for letter in letters:
            self.text.insert(len(str(self.text)), letter)


async def append(store: SqliteStore, *entries: Entry) -> None:
    done = asyncio.Event()
    errors: list[CollabError | None] = []

    def answered(answered: Sequence[Entry], error: CollabError | None) -> None:
        errors.append(error)
        done.set()

    store.append(entries, answered)
    await done.wait()
    assert errors == [None]


LETTERS = "abcdefghijklmnopqrst"


async def _fill(data: Path) -> None:
    writer = Writer()
    snapshots = []
    for letter in LETTERS:
        writer.write(letter)
        snapshots.append(writer.doc.get_update())
    async with SqliteStore(data) as store:
        for start in range(0, 20, 5):
            updates = writer.updates[start : start + 5]
            author = BOB if start == 10 else ALICE
            entry = Entry("notes", "e1", start + 1, start, updates, [author] * 5)
            await append(store, entry)
        await append(store, Entry("other", "e2", 1, 0, writer.updates[:1], [ALICE]))
        await store.bind("notes", {7: "alice"})
        await store.create("acme\x1fplan", {"title": "Plan"})
        for position in (8, 15):
            fence = (await store.load("notes")).fence
            checkpoint = Checkpoint(position, snapshots[position - 1])
            assert await store.checkpoint("notes", checkpoint, fence=fence)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty updates in four rows, checkpoints at 8 and 15; another room; one of a tenant."""
    asyncio.run(_fill(tmp_path / "data"))
    return tmp_path / "data"


def text(data: Path, room: str = "notes") -> str:
    done = collab(data, "export", room)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Verify


def test_a_sound_store_is_called_sound(data: Path) -> None:
    done = collab(data, "verify")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 rooms, 21 updates, 2 checkpoints: all sound\n"
    assert done.stderr == ""


def test_one_room_or_the_rooms_of_a_tenant_are_verified(data: Path) -> None:
    assert json.loads(collab(data, "verify", "notes", "--json").stdout) == {
        "rooms": 1,
        "updates": 20,
        "checkpoints": 2,
        "findings": [],
    }
    assert "1 rooms" in collab(data, "verify", "--tenant", "acme").stdout
    assert "1 rooms" in collab(data, "verify", "plan", "--tenant", "acme").stdout


def test_a_room_that_is_not_there_is_said_so(data: Path) -> None:
    done = collab(data, "verify", "plan")

    assert done.returncode == 1
    assert "no such room" in done.stderr


def test_a_directory_without_a_store_is_said_so(tmp_path: Path) -> None:
    for command in ("verify", "repair", "compact"):
        done = collab(tmp_path, command)

        assert done.returncode == 2
        assert "--data" in done.stderr


def test_progress_is_said_when_asked_for(data: Path) -> None:
    assert "of 3 rooms" in collab(data, "verify", "--progress").stderr


def test_a_server_is_verified_while_it_runs(server: Server) -> None:
    done = server.run("verify")

    assert done.returncode == 0, done.stderr


def test_a_store_that_changes_meanwhile_is_not_called_damaged(tmp_path: Path) -> None:
    async def change(store: SqliteStore) -> None:
        position = 0
        while True:
            for number in range(5):
                name = f"room-{number}"
                for at in (1, 2, 3):
                    update = [b"\x00\x00"]
                    await append(
                        store, Entry(name, f"{position}", at, 0, update, [BOB])
                    )
                fence = (await store.load(name)).fence
                await store.checkpoint(name, Checkpoint(2, b"\x00\x00"), fence=fence)
                await store.delete(name, purge=number % 2 == 0)
            position += 1

    async def verify() -> list[Any]:
        found: list[Any] = []
        async with SqliteStore(tmp_path, window_seconds=0, sweep_seconds=0) as store:
            changing = asyncio.create_task(change(store))
            for _ in range(10):
                some, _ = await maintenance._verify(
                    tmp_path, maintenance.Selection("", ""), Progress(False)
                )
                found += some
            changing.cancel()
        return found

    assert asyncio.run(verify()) == []


def test_a_room_that_is_empty_is_shown_and_exported(data: Path) -> None:
    shown = collab(data, "inspect", "plan", "--tenant", "acme", "--json")
    exported = collab(data, "export", "plan", "--tenant", "acme")

    assert json.loads(shown.stdout)["metadata"] == {"title": "Plan"}
    assert (exported.returncode, exported.stdout) == (0, "")


DAMAGE = {
    "log": ("UPDATE log SET updates = x'ff' || updates WHERE position = 11", "log"),
    "checkpoint": ("UPDATE checkpoint SET crc = 1 WHERE position = 15", "checkpoint"),
    "owner": ("UPDATE owner SET principal = 'mallory'", "owner"),
    "author": ("UPDATE author SET principal = 'mallory' WHERE id = 1", "author"),
    "author gone": ("DELETE FROM author WHERE id = 1", "author"),
    "metadata": ("UPDATE about SET metadata = '{}'", "about"),
    "room": ("UPDATE room SET epoch = 'e9' WHERE name = 'notes'", "room"),
    "position": ("UPDATE room SET position = 1 << 40 WHERE name = 'other'", "room"),
    "type": ("UPDATE log SET milliseconds = 'x' WHERE position = 6", "log"),
    "stray": ("UPDATE log SET room = 99 WHERE position = 11", "log"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_after_a_repair_all_is_sound(
    data: Path, damage: str
) -> None:
    statement, source = DAMAGE[damage]
    rows(data, statement)

    faults = found(data, "verify")
    repaired = found(data, "repair", key="done")

    assert source in {fault["source"] for fault in faults}
    assert source in {each["source"] for each in repaired}
    assert found(data, "verify", code=0) == []
    assert found(data, "repair", code=0, key="done") == []
    assert text(data) == LETTERS
    assert text(data, "other") == "a"


def test_a_dry_run_changes_nothing(data: Path) -> None:
    rows(data, DAMAGE["log"][0])
    before = found(data, "verify")

    would = found(data, "repair", "--dry-run", key="done")

    assert would
    assert found(data, "verify") == before
    assert [each["source"] for each in found(data, "repair", key="done")] == [
        each["source"] for each in would
    ]


def test_what_is_lost_is_said_by_position_and_author(data: Path) -> None:
    rows(data, "UPDATE log SET milliseconds = 1 WHERE position = 11")

    faults = found(data, "verify")

    lost = {fault["source"]: fault for fault in faults}
    assert (lost["log"]["position"], lost["log"]["last"]) == (11, 15)
    assert lost["log"]["principals"] == ["bob"]
    assert (lost["history"]["position"], lost["history"]["last"]) == (11, 15)
    assert "checkpoint holds" in lost["history"]["consequence"]


def test_a_room_with_a_hole_can_be_opened_after_a_repair(data: Path) -> None:
    rows(data, "UPDATE log SET crc = 1 WHERE position = 16")
    assert collab(data, "export", "notes").returncode == 1

    done = collab(data, "repair")

    assert done.returncode == 3
    assert "notes, log, position 16 to 20, by alice" in done.stdout
    assert text(data) == LETTERS[:15]
    assert rows(data, "SELECT position FROM room WHERE name = 'notes'") == [(20,)]
    assert found(data, "verify", code=0) == []


def test_what_was_taken_out_is_kept(data: Path) -> None:
    (before,) = rows(data, "SELECT hex(updates) FROM log WHERE position = 16")
    rows(data, "UPDATE log SET crc = 1 WHERE position = 16")

    collab(data, "repair")

    kept = rows(data, "SELECT record FROM aside WHERE source = 'log'")
    assert json.loads(kept[0][0])["updates"] == {"$bytes": before[0].lower()}


def test_an_update_that_was_lost_comes_back_with_a_client(data: Path) -> None:
    rows(data, "UPDATE log SET crc = 1 WHERE position = 16")
    collab(data, "repair")
    writer = Writer()
    writer.write(LETTERS)
    (data.parent / "copy").write_bytes(writer.doc.get_update())

    done = collab(data, "import", "notes", str(data.parent / "copy"))

    assert done.returncode == 0, done.stderr
    assert text(data) == LETTERS


def test_a_checkpoint_that_is_not_what_the_log_makes_is_found(data: Path) -> None:
    async def swap() -> None:
        async with SqliteStore(data) as store:
            writer = Writer()
            writer.write("something else altogether")
            fence = (await store.load("notes")).fence
            await store.checkpoint(
                "notes", Checkpoint(20, writer.doc.get_update()), fence=fence
            )

    asyncio.run(swap())

    (fault,) = found(data, "verify")
    assert (fault["source"], fault["position"]) == ("checkpoint", 20)
    collab(data, "repair")
    assert text(data) == LETTERS


def test_a_landmark_that_is_not_what_the_log_makes_is_found_alone(data: Path) -> None:
    async def grow() -> None:
        async with SqliteStore(data) as store:
            stored = await store.load("notes")
            assert stored.checkpoint is not None
            updates = [update for at, update in stored.tail if at <= 18]
            document = Document.load(stored.checkpoint.snapshot, updates)
            newest = Checkpoint(18, document.snapshot())
            assert await store.checkpoint("notes", newest, fence=stored.fence)

    asyncio.run(grow())
    writer = Writer()
    writer.write("another")
    (landmark,) = rows(
        data, "SELECT room, milliseconds FROM checkpoint WHERE position = 8"
    )
    snapshot = writer.doc.get_update()
    checksum = checkpoint_checksum(landmark[0], 8, landmark[1], snapshot)
    rows(
        data,
        "UPDATE checkpoint SET snapshot = ?, crc = ? WHERE position = 8",
        *(snapshot, checksum),
    )

    (fault,) = found(data, "verify")
    collab(data, "repair")

    assert (fault["source"], fault["position"]) == ("checkpoint", 8)
    assert found(data, "verify", code=0) == []
    assert rows(data, "SELECT position FROM checkpoint") == [(15,), (18,)]


DEADLY = """
import os, pycrdt
class Native:
    def __init__(self, inner):
        self.inner = inner
    def apply_update(self, transaction, update):
        if b"Z" in update: os.abort()
        self.inner.apply_update(transaction, update)
    def __getattr__(self, name):
        return getattr(self.inner, name)
class Deadly(pycrdt.Doc):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._doc = Native(self._doc)
pycrdt.Doc = Deadly
"""


def test_a_row_that_kills_is_named_and_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code is made to abort in the child processes; this one would not survive it either."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "patch"))

    async def poison() -> None:
        writer = Writer()
        writer.write(LETTERS + "Zu")
        async with SqliteStore(data) as store:
            updates = writer.updates[20:]
            await append(store, Entry("notes", "e1", 21, 0, updates, [BOB] * 2))

    asyncio.run(poison())

    (fault,) = found(data, "verify")
    (done,) = found(data, "repair", key="done")

    assert (fault["source"], fault["position"]) == ("log", 21)
    assert (done["source"], done["position"]) == ("log", 21)
    assert text(data) == LETTERS
    assert found(data, "verify", code=0) == []


def test_a_row_that_guard_and_gate_refuse_is_left_out_too(data: Path) -> None:
    async def poison() -> None:
        async with SqliteStore(data) as store:
            await append(store, Entry("notes", "e1", 21, 0, [b"\xff" * 40], [BOB]))

    asyncio.run(poison())

    (done,) = found(data, "repair", key="done")

    assert (done["source"], done["position"]) == ("log", 21)
    assert text(data) == LETTERS
    assert found(data, "verify", code=0) == []


def scribble(data: Path, page: int) -> None:
    with (data / "collab.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x0a" + b"\xff" * 400)


def grow(data: Path, updates: int) -> None:
    """Each update in a row of its own, so that the log has many pages."""

    async def append_many() -> None:
        writer = Writer()
        async with SqliteStore(data, window_seconds=0) as store:
            for number in range(updates):
                writer.write("x")
                update = writer.updates[number]
                await append(store, Entry("long", "e3", number + 1, 0, [update], [BOB]))

    asyncio.run(append_many())


def test_a_file_with_damaged_pages_is_written_anew(data: Path) -> None:
    grow(data, 300)
    before = (data / "collab.db").read_bytes()
    leaves = [  # of the log, the only index with many entries
        at // 4096 + 1
        for at in range(4096, len(before), 4096)
        if before[at] == 10 and int.from_bytes(before[at + 3 : at + 5], "big") > 20
    ]
    scribble(data, leaves[len(leaves) // 2])
    damaged = (data / "collab.db").read_bytes()

    faults = found(data, "verify")
    would = found(data, "repair", "--dry-run", key="done")
    assert (data / "collab.db").read_bytes() == damaged != before
    done = found(data, "repair", key="done")

    assert "file" in {fault["source"] for fault in faults}
    assert {each["source"] for each in would} == {"file"}
    (lost,) = (each for each in done if each["source"] == "log")
    assert 1 < lost["position"] <= lost["last"] < 300
    assert found(data, "verify", code=0) == []
    assert text(data) == LETTERS
    assert text(data, "long") == "x" * (lost["position"] - 1)
    (kept,) = data.glob("damaged-*")
    assert (kept / "collab.db").read_bytes() == damaged


def test_a_damaged_index_costs_nothing(data: Path) -> None:
    (page,) = rows(data, "SELECT rootpage FROM sqlite_schema WHERE name = 'room_live'")[
        0
    ]
    scribble(data, page)

    done = found(data, "repair", key="done")

    assert {each["source"] for each in done} == {"file"}
    assert found(data, "verify", code=0) == []
    assert text(data) == LETTERS


def test_a_file_of_which_nothing_can_be_read_is_left_alone(data: Path) -> None:
    scribble(data, 1)
    damaged = (data / "collab.db").read_bytes()

    done = collab(data, "repair")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (data / "collab.db").read_bytes() == damaged


def test_a_repair_needs_the_server_to_be_stopped(server: Server) -> None:
    for command in ("repair", "compact"):
        done = server.run(command)

        assert done.returncode == 1
        assert "another process has" in done.stderr


# Compact


def test_compacting_makes_checkpoints_and_gives_space_back(data: Path) -> None:
    async def grow() -> None:
        async with SqliteStore(data) as store:
            await append(store, Entry("gone", "e3", 1, 0, [bytes(3_000_000)], [ALICE]))
            await store.delete("gone", purge=True)

    asyncio.run(grow())

    done = collab(data, "compact", "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["checkpoints"] == 2
    assert said["bytes_after"] < said["bytes_before"] - 2_000_000
    assert rows(data, "SELECT max(position) FROM checkpoint") == [(20,)]
    assert text(data) == LETTERS
    assert found(data, "verify", code=0) == []


def test_compacting_applies_retention(data: Path) -> None:
    async def retain() -> None:
        async with SqliteStore(data) as store:
            await store.retain("notes", 60)

    asyncio.run(retain())

    done = collab(data, "compact", "notes")

    assert done.returncode == 0, done.stderr
    assert rows(data, "SELECT min(position) FROM log WHERE room = 1") == [(16,)]
    assert text(data) == LETTERS
    assert found(data, "verify", code=0) == []


# Backup and restore


def test_landmarks_and_who_wrote_what_are_made_and_come_back_from_a_backup(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "STEP_ROWS", 4)
    monkeypatch.setattr(base, "LANDMARK_ROWS", 4)
    file, other = data.parent / "file", data.parent / "restored"

    compacted = collab(data, "compact")
    verified = found(data, "verify", code=0)
    collab(data, "backup", str(file))
    restored = collab(other, "restore", str(file))

    assert compacted.returncode == restored.returncode == 0
    assert verified == []
    kept = "SELECT position, snapshot FROM checkpoint WHERE room = 1"
    assert [row[0] for row in rows(data, kept)] == [8, 15, 19, 20]
    assert rows(other, kept) == rows(data, kept)
    who = "SELECT position, encoded FROM attribution WHERE room = 1"
    assert rows(data, who)[0][0] == 20
    assert rows(other, who) == rows(data, who)
    authors = "SELECT principal, turn, about FROM author ORDER BY id"
    assert (BOB.principal, BOB.turn, BOB.about) in rows(data, authors)
    assert rows(other, authors) == rows(data, authors)


@pytest.fixture
def file(data: Path) -> Path:
    path = data.parent / "backups" / "one"
    path.parent.mkdir()
    done = collab(data, "backup", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: 3 rooms, ")
    return path


def test_a_backup_comes_back_with_new_epochs(data: Path, file: Path) -> None:
    other = data.parent / "restored"

    done = collab(other, "restore", str(file), "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rooms": 3, "kept_in": None, "findings": []}
    assert text(other) == LETTERS
    assert found(other, "verify", code=0) == []
    epochs = "SELECT name, epoch FROM room WHERE deleted IS NULL ORDER BY name"
    before, after = dict(rows(data, epochs)), dict(rows(other, epochs))
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    assert rows(other, "SELECT count(*) FROM sqlite_schema WHERE name = 'backup'") == [
        (0,)
    ]


def test_an_epoch_from_before_a_restore_is_over(data: Path, file: Path) -> None:
    other = data.parent / "restored"
    collab(other, "restore", str(file))

    async def append_late() -> None:
        async with SqliteStore(other) as store:
            await store.delete("notes", purge=True)
            await append(store, Entry("notes", "e1", 1, 0, [b"late"], [ALICE]))

    with pytest.raises(AssertionError, match="RoomNotFound"):
        asyncio.run(append_late())


def test_a_backup_is_private(file: Path) -> None:
    assert file.stat().st_mode & 0o077 == 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_newer_backup_takes_the_place_of_an_older_one(data: Path, file: Path) -> None:
    before = file.read_bytes()
    collab(data, "import", "new", str(ROOT / "README.md"), "--text", "t")

    done = collab(data, "backup", str(file))

    assert done.returncode == 0, done.stderr
    assert file.read_bytes() != before


def test_no_other_file_is_overwritten(data: Path) -> None:
    done = collab(data, "backup", str(data / "collab.db"))

    assert done.returncode == 2
    assert "is not a backup" in done.stderr
    assert found(data, "verify", code=0) == []


def test_keys_and_grants_go_with_the_rooms(data: Path) -> None:
    made = collab(data, "key", "create", "--principal", "robot", "--prefix", "=read")
    assert made.returncode == 0, made.stderr
    file, other = data.parent / "file", data.parent / "restored"

    collab(data, "backup", str(file))
    done = collab(other, "restore", str(file))

    assert done.returncode == 0, done.stderr
    assert (
        collab(other, "key", "list").stdout == collab(data, "key", "list").stdout != ""
    )


def test_a_restore_into_a_directory_in_use_is_not_written_down(
    data: Path, file: Path
) -> None:
    made = collab(data, "key", "create", "--principal", "robot", "--prefix", "=read")
    assert made.returncode == 0, made.stderr
    before = (data / "audit.jsonl").read_bytes()

    done = collab(data, "restore", str(file))

    assert (done.returncode, "--replace" in done.stderr) == (2, True)
    assert (data / "audit.jsonl").read_bytes() == before


def test_a_running_server_is_backed_up(server: Server) -> None:
    file, other = server.data.parent / "file", server.data.parent / "restored"

    done = server.run("backup", str(file))

    assert done.returncode == 0, done.stderr
    assert collab(other, "restore", str(file)).returncode == 0


def test_a_backup_beside_a_writer_is_one_moment(tmp_path: Path) -> None:
    data, moments = tmp_path / "data", []

    async def write() -> None:
        async with SqliteStore(data, window_seconds=0, sweep_seconds=0) as store:
            saved = 0
            has_come = asyncio.Event()

            async def keep_writing() -> None:
                nonlocal saved
                while True:
                    update = b"%d" % (saved + 1) + bytes(2000)
                    entries = [
                        Entry(room, "e", saved + 1, 0, [update], [BOB])
                        for room in ("one", "two")
                    ]
                    await append(store, *entries)
                    saved += 1
                    has_come.set()

            writing = asyncio.create_task(keep_writing())
            for number in range(5):
                file = tmp_path / f"backup-{number}"
                while saved < 50 * number + 50:
                    has_come.clear()
                    await has_come.wait()
                before = saved
                await asyncio.to_thread(
                    maintenance._backup, data, file, Progress(False)
                )
                moments.append((file, before, saved))
            writing.cancel()

    asyncio.run(write())

    for file, before, after in moments:
        other = tmp_path / f"restored-{file.name}"
        collab(other, "restore", str(file))
        held = rows(other, "SELECT position, substr(updates, 9, 8) FROM log")
        held += rows(other, "SELECT position, substr(updates, 9, 8) FROM journal")
        assert 2 * before <= len(held) <= 2 * after + 2
        for position, update in held:
            assert update.startswith(b"%d\x00" % position)


def test_nothing_is_restored_over_a_directory_in_use(
    data: Path, file: Path, server: Server
) -> None:
    taken = collab(data, "restore", str(file))
    running = server.run("restore", str(file), "--replace")

    assert taken.returncode == 2
    assert "--replace" in taken.stderr
    assert running.returncode == 1
    assert "another process" in running.stderr


def test_what_a_restore_replaces_is_kept(data: Path, file: Path) -> None:
    (data.parent / "text").write_text("later")
    collab(data, "import", "later", str(data.parent / "text"), "--text", "t")

    done = collab(data, "restore", str(file), "--replace", "--json")

    assert done.returncode == 0, done.stderr
    kept = Path(json.loads(done.stdout)["kept_in"])
    assert collab(data, "export", "later").returncode == 1
    assert text(data) == LETTERS
    assert text(kept, "later") == "later"


def test_a_write_ahead_log_of_before_is_not_taken_for_one_of_the_backup(
    data: Path, file: Path
) -> None:
    server = sqlite3.connect(data / "collab.db")
    server.execute("PRAGMA journal_mode = WAL")
    server.execute("UPDATE room SET name = 'changed' WHERE name = 'notes'")
    server.commit()
    assert (data / "collab.db-wal").stat().st_size > 0

    done = collab(data, "restore", str(file), "--replace")
    server.close()

    assert done.returncode == 0, done.stderr
    assert text(data) == LETTERS


def bent(file: Path, name: str) -> Path:
    """The file with something wrong about it."""
    content, path = bytearray(file.read_bytes()), file.parent / "bent"
    match name:
        case "empty":
            content = bytearray()
        case "cut short":
            content = content[: len(content) // 2]
        case "last byte gone":
            content = content[:-1]
        case "something appended":
            content += b"x"
        case "foreign":
            content = bytearray(b"PK\x03\x04" + bytes(5000))
        case "another database":
            sqlite3.connect(path).executescript("CREATE TABLE theirs (x); VACUUM")
            return path
        case "bit flipped":
            content[len(content) // 2] ^= 4
        case "length flipped":
            content[-50] ^= 4
        case "digest flipped":
            content[-1] ^= 4
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "cut short",
        "last byte gone",
        "something appended",
        "foreign",
        "another database",
        "bit flipped",
        "length flipped",
        "digest flipped",
    ],
)
def test_a_file_that_is_not_what_a_backup_wrote_is_refused(
    data: Path, file: Path, name: str
) -> None:
    wrong = bent(file, name)

    done = collab(data, "restore", str(wrong), "--replace")

    assert done.returncode == 1
    assert "backup" in done.stderr
    assert "Traceback" not in done.stderr
    ours = {"collab.db", "collab.db-wal", "collab.db-shm", "loading", "lock", "reserve"}
    assert {path.name for path in data.iterdir()} <= ours
    assert text(data) == LETTERS


HOSTILE = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM log; END",
    "view": "CREATE VIEW v AS SELECT * FROM log",
    "table": "CREATE TABLE more (x)",
    "no table": "DROP TABLE rejected",
    "other column": "ALTER TABLE room ADD COLUMN x",
    "newer": "PRAGMA user_version = 99",
    "none of ours": "PRAGMA application_id = 1",
    "version 0": "PRAGMA user_version = 0",
    "path": "INSERT INTO backup VALUES ('../../evil', x'00')",
    "access is text": "INSERT INTO backup VALUES ('access.sqlite', 'x')",
    "access is none": "INSERT INTO backup VALUES ('access.sqlite', x'0102')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_with_a_right_digest_is_refused(
    data: Path, file: Path, name: str
) -> None:
    content = file.read_bytes()
    wrong = file.parent / "wrong"
    wrong.write_bytes(content[:-56])
    db = sqlite3.connect(wrong, isolation_level=None)
    db.executescript(HOSTILE[name])
    db.close()
    _seal(wrong)

    done = collab(data, "restore", str(wrong), "--replace")

    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("collab: ")
    assert not (data.parent.parent / "evil").exists()
    assert text(data) == LETTERS


def test_an_older_backup_is_brought_up_to_date(data: Path, file: Path) -> None:
    old = file.parent / "old"
    db = sqlite3.connect(old, isolation_level=None)
    db.executescript(
        f"{MIGRATIONS[0]}; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;"
        "CREATE TABLE backup (name TEXT PRIMARY KEY, content BLOB NOT NULL)"
    )
    db.close()
    _seal(old)

    done = collab(data.parent / "restored", "restore", str(old))

    assert done.returncode == 0, done.stderr
    assert found(data.parent / "restored", "verify", code=0) == []


def test_damage_in_a_backup_is_said_when_it_is_made_and_restored(data: Path) -> None:
    rows(data, DAMAGE["log"][0])
    file, other = data.parent / "file", data.parent / "restored"

    made = found(data, "backup", str(file))
    restored = found(other, "restore", str(file))

    assert [each["source"] for each in made] == ["log", "history"]
    assert restored == made
    assert collab(other, "repair").returncode == 3


def test_a_restore_that_was_killed_is_finished_by_who_comes_next(
    data: Path, file: Path
) -> None:
    other = data.parent / "other"
    collab(other, "restore", str(file))
    (data / "restoring").mkdir()
    (other / "collab.db").rename(data / "restoring" / "collab.db")
    epochs = set(rows(data, "SELECT epoch FROM room"))

    done = collab(data, "compact")

    assert done.returncode == 0, done.stderr
    assert not (data / "restoring").exists()
    assert set(rows(data, "SELECT epoch FROM room WHERE deleted IS NULL")) - epochs
    assert text(data) == LETTERS

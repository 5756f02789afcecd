"""Deletes, restores, trims and purges a room, or makes or restores a backup, and is killed at its n-th step.

    python upkeep.py store|backup|restore DIRECTORY

Each run is a process of its own on a copy of the directory, forked from here, so that none has to start anew; it is
killed one step later each time, until one comes to its end. Prints one line a run: what had been acknowledged, and
what the next process finds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from collab import logs
from collab.commands import maintenance
from collab.commands.progress import Progress
from collab.store import backup, directory
from collab.store.base import Attributed, Author, Checkpoint, Entry
from collab.store.checks import common_faults, file_faults, look, room_records
from collab.store.schema import connect
from collab.store.sqlite import SqliteStore

UPDATES = [b"one", b"two", b"three"]
ALICE = Author("alice", "c1")


class Steps:
    """Counts steps, and kills the process at one of them."""

    def __init__(self, last: int) -> None:
        self.last = last

    def take(self) -> None:
        self.last -= 1
        if self.last == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def driver(steps: Steps) -> type[sqlite3.Connection]:
    class Driver(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if not sql.startswith(("SELECT", "PRAGMA")):
                steps.take()
            cursor = super().execute(sql, *values)
            if sql == "COMMIT":
                steps.take()  # before anybody is told
            return cursor

        def executescript(self, sql: str) -> sqlite3.Cursor:
            steps.take()
            return super().executescript(sql)

    return Driver


async def append(store: SqliteStore, position: int, *updates: bytes) -> None:
    logged = asyncio.Event()
    entry = Entry("notes", "e1", position, 0, updates, [ALICE] * len(updates))
    store.append([entry], lambda *answer: logged.set())
    await logged.wait()


async def fill(data: Path) -> None:
    async with SqliteStore(data) as store:
        await append(store, 1, *UPDATES[:2])
        await append(store, 3, UPDATES[2])
        await store.describe("notes", {"title": "Notes"})


async def work(data: Path, steps: Steps, say: Callable[[str], None]) -> None:
    async with SqliteStore(data, factory=driver(steps), sweep_seconds=0) as store:
        await store.delete("notes")
        say("deleted")
        await store.restore("notes")
        say("restored")
        for position in (1, 2, 3):
            fence = (await store.load("notes")).fence
            checkpoint = Checkpoint(position, b"up to %d" % position)
            await store.checkpoint("notes", checkpoint, fence=fence)
            attributed = Attributed(position, b"who up to %d" % position)
            await store.attribute("notes", attributed, fence=fence)
        say("attributed")
        await store.retain("notes", 0)
        await store.tidy()
        say("trimmed")
        await append(store, 4, b"four")
        await store.remember("key", b"digest", b"answer")
        say("remembered")
        await store.delete("notes", purge=True)
        say("purged")
        await store.tidy()
        say("tidied")


async def find(data: Path) -> dict[str, Any]:
    """What there is now, and what is wrong with it."""
    async with SqliteStore(data) as store:
        info = await store.info("notes")
        state = "gone"
        if info is not None:
            state = "live" if info.deleted_milliseconds is None else "deleted"
        if state == "deleted":
            info = await store.restore("notes")
        stored = await store.load("notes")
        await store.tidy()
        attributed = await store.attribution("notes") if stored.epoch else None
        found = {
            "attributed": attributed and attributed.position,
            "state": state,
            "title": info and info.metadata.get("title"),
            "epoch": stored.epoch,
            "position": stored.position,
            "checkpoint": stored.checkpoint and stored.checkpoint.position,
            "tail": [update.decode() for _, update in stored.tail],
            "is_remembered": await store.recall("key") is not None,
        }
    with closing(connect(data / "collab.db", is_read_only=True)) as db:
        faults = [*file_faults(db), *map(str, common_faults(db))]
        for record in room_records(db):
            seen = look(db, record)
            faults += map(str, [*seen.faults, *seen.lost])
        left = sum(
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("log", "checkpoint", "attribution")
        )
        (passed,) = db.execute(
            "SELECT count(*) FROM checkpoint WHERE position < (SELECT min(position) - 1 FROM log)"
        ).fetchone()
    return found | {"faults": faults, "rows": left, "passed": passed}


def step_around_files(steps: Steps) -> None:
    """A step before and after everything that changes a directory."""
    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (directory, "sync"),
        (backup, "sync"),
        (shutil, "rmtree"),
        (os, "link"),
        (backup, "_seal"),
    ):
        setattr(owner, name, stepping(getattr(owner, name), steps))


async def back_up(data: Path, steps: Steps, say: Callable[[str], None]) -> None:
    """In place of the one that is there."""
    step_around_files(steps)
    maintenance._backup(data, data.parent / "backup", Progress(False))
    say("backed up")


async def restore(data: Path, steps: Steps, say: Callable[[str], None]) -> None:
    step_around_files(steps)
    file = data.parent / "backup"
    await maintenance._restore(file, data, Progress(False), is_replacing=True)
    say("restored")


def stepping(function: Callable[..., Any], steps: Steps) -> Callable[..., Any]:
    def stepped(*arguments: Any, **named: Any) -> Any:
        steps.take()
        result = function(*arguments, **named)
        steps.take()
        return result

    return stepped


def forked(run: Callable[[], None]) -> int:
    """The signal or code that a child which runs this ends with."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main(what: str, place: Path) -> None:
    original, data, said = place / "original", place / "data", place / "said"
    if not original.exists():
        forked(lambda: asyncio.run(fill(original)))
    task = {"store": work, "backup": back_up, "restore": restore}[what]

    def run(last: int) -> None:
        with said.open("w") as file:

            def say(word: str) -> None:
                file.write(f"{word} ")
                file.flush()

            asyncio.run(task(data, Steps(last), say))

    def tell() -> None:
        acknowledged = said.read_text().split()
        line = {"acknowledged": acknowledged, **asyncio.run(find(data))}
        if what == "backup":
            backup.check_file(place / "backup", lambda done, of: None)
            line["digest"] = (place / "backup").read_bytes()[-32:].hex()
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    for last in range(1, 1000):
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(original, data)
        code = forked(partial(run, last))
        assert forked(tell) == 0, "the directory cannot be opened"
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
    raise AssertionError("it never came to its end")


if __name__ == "__main__":
    logs.configure(log_format="console", level="critical")
    main(sys.argv[1], Path(sys.argv[2]))

"""The store and the journal on disks that are full, that fail, and that heal: never a false acknowledgement.

A full disk is a small tmpfs (as root) and a limit on the size of files (always); failing fsync is a preloaded
library (with a C compiler) and a driver that fails at each of its calls in turn (always).
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from disks import IS_ROOT, TOO_MUCH, fill

from collab.errors import StoreUnavailable
from collab.journal import Journal
from collab.metrics import Metrics
from collab.store.base import Author, Entry
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

PATHS = [str(place) for place in Path(__file__).parents[:2]]  # of a process of its own
ROOMS = ("one", "two", "three")
ALICE = Author("alice", "c1")


class Writer:
    """Writes numbered updates through a journal, and knows which of them were called saved."""

    def __init__(self) -> None:
        self.journal: Journal
        self.sent = dict.fromkeys(ROOMS, 0)
        self.saved: dict[str, int] = dict.fromkeys(ROOMS, 0)
        self.failures: list[StoreUnavailable] = []
        self.is_failing = asyncio.Event()
        self.is_healed = asyncio.Event()

    def logged(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.position == self.saved[entry.room] + 1, "saved out of order"
            self.saved[entry.room] = entry.last

    def failed(self, error: StoreUnavailable) -> None:
        self.failures.append(error)
        self.is_healed.clear()
        self.is_failing.set()

    def healed(self) -> None:
        self.is_failing.clear()
        self.is_healed.set()

    def write(self, size: int = 20) -> None:
        """One turn: two updates in each room."""
        entries = []
        for room in ROOMS:
            position = self.sent[room] + 1
            updates = [update_at(position, size), update_at(position + 1, size)]
            entries.append(Entry(room, "e1", position, 0, updates, [ALICE, ALICE]))
            self.sent[room] += 2
        self.journal.append(entries)

    async def fail(self, size: int = 20) -> None:
        """Write until that is no longer possible."""
        for _ in range(10_000):
            self.write(size)
            if not await self.journal.flush():
                return
        pytest.fail("the disk never failed")

    async def heal(self) -> None:
        await asyncio.wait_for(self.is_healed.wait(), 30)
        assert await self.journal.flush()


def update_at(position: int, size: int) -> bytes:
    return b"%d:" % position + bytes(size)


@asynccontextmanager
async def writing(directory: Path, **more: Any) -> AsyncIterator[Writer]:
    writer = Writer()
    store = SqliteStore(directory, window_seconds=0.001, busy_seconds=0.2, **more)
    async with (
        store,
        Journal(
            store,
            logged=writer.logged,
            failed=writer.failed,
            healed=writer.healed,
            metrics=Metrics(),
            retry_seconds=0.005,
        ) as journal,
    ):
        writer.journal = journal
        yield writer


async def stored(directory: Path) -> dict[str, int]:
    """The last position of each room, after a look at every row before it."""
    found = {}
    async with SqliteStore(directory) as store:
        for room in ROOMS:
            loaded = await store.load(room)
            assert [at for at, _ in loaded.tail] == list(range(1, loaded.position + 1))
            assert all(row.startswith(b"%d:" % at) for at, row in loaded.tail)
            found[room] = loaded.position
    return found


# Full


@pytest.mark.root
@pytest.mark.skipif(
    not IS_ROOT, reason="mounting needs root; the limit on file size stands in"
)
async def test_a_full_disk_saves_nothing_and_heals_when_there_is_room(
    small_disk: Path,
) -> None:
    filler = small_disk / "filler"
    async with writing(small_disk) as writer:
        writer.write()
        assert await writer.journal.flush()
        fill(filler)

        await writer.fail(size=TOO_MUCH // 6)  # of which six are written in a turn

        saved = dict(writer.saved)
        for _ in range(20):
            await asyncio.sleep(0.01)  # retries go on, and fail
            assert writer.saved == saved
        remove(filler)
        await writer.heal()
        writer.write()
        assert await writer.journal.flush()

    assert "full" in str(writer.failures[0])
    assert await stored(small_disk) == writer.saved == writer.sent


@pytest.mark.root
@pytest.mark.skipif(
    not IS_ROOT, reason="mounting needs root; the limit on file size stands in"
)
async def test_a_process_that_dies_on_a_full_disk_leaves_what_it_called_saved(
    small_disk: Path,
) -> None:
    async with writing(small_disk) as writer:
        fill(small_disk / "filler")
        await writer.fail(size=TOO_MUCH // 6)  # of which six are written in a turn

        copy = small_disk.parent / "copy"
        copy.mkdir()
        for name in ("collab.db", "collab.db-wal"):
            shutil.copy(small_disk / name, copy)
        saved = dict(writer.saved)

    assert await stored(copy) == saved


def make(path: Path) -> None:
    path.touch()


def remove(path: Path) -> None:
    path.unlink()


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_failing_disk import limited
asyncio.run(limited(Path(sys.argv[1])))
"""


async def limited(directory: Path) -> None:
    """In a process of its own: the limit is the process's."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with writing(directory, reserve_bytes=4096) as writer:
        writer.write()
        assert await writer.journal.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        await writer.fail(size=20_000)
        saved = dict(writer.saved)
        await asyncio.sleep(0.1)
        assert writer.saved == saved
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await writer.heal()
    assert await stored(directory) == writer.saved == writer.sent


def run(program: str, *arguments: object, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


def test_files_that_may_not_grow_save_nothing_and_heal_when_they_may(
    tmp_path: Path,
) -> None:
    run(_LIMITED.format(paths=PATHS), tmp_path / "store")


# Failing fsync


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes fsync fail."""
    library = tmp_path_factory.mktemp("shim") / "failing_fsync.so"
    source = Path(__file__).parent / "failing_fsync.c"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
    )
    return library


_FSYNC = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_failing_disk import without_fsync
asyncio.run(without_fsync(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def without_fsync(directory: Path, flag: Path) -> None:
    async with writing(directory) as writer:
        writer.write()
        assert await writer.journal.flush()
        make(flag)
        await writer.fail()
        saved = dict(writer.saved)
        await asyncio.sleep(0.1)
        assert writer.saved == saved
        remove(flag)
        await writer.heal()
        writer.write()
        assert await writer.journal.flush()
    assert "I/O" in str(writer.failures[0])
    assert await stored(directory) == writer.saved == writer.sent


@pytest.mark.skipif(
    shutil.which("cc") is None,
    reason="no C compiler; the driver that fails at each call stands in",
)
def test_when_fsync_fails_nothing_is_saved_until_it_works_again(
    tmp_path: Path, shim: Path
) -> None:
    run(
        _FSYNC.format(paths=PATHS),
        tmp_path / "store",
        tmp_path / "flag",
        LD_PRELOAD=str(shim),
        FAIL_FSYNC=str(tmp_path / "flag"),
    )


# A driver that fails


@contextmanager
def failing_driver(
    failures: dict[int, str],
) -> Iterator[tuple[type[sqlite3.Connection], Callable[[], int]]]:
    """A connection class whose n-th statements fail, before or after they are carried out."""
    calls = 0

    class Driver(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            nonlocal calls
            calls += 1
            failure = failures.get(calls)
            if failure == "after":
                super().execute(sql, *values)
            if failure is not None:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            return super().execute(sql, *values)

    yield Driver, lambda: calls


async def driven(directory: Path, failures: dict[int, str]) -> int:
    """Some turns with these failures; returns how many statements there were."""
    with failing_driver(failures) as (driver, calls):
        async with writing(directory, factory=driver, sweep_seconds=0) as writer:
            for _ in range(4):
                writer.write()
                if not await writer.journal.flush():
                    await writer.heal()
        count = calls()
    assert writer.saved == writer.sent
    assert await stored(directory) == writer.saved
    return count


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_driver_that_fails_at_any_call_loses_and_repeats_nothing(
    tmp_path: Path, moment: str
) -> None:
    count = await driven(tmp_path / "well", {})
    opening = await statements_to_open(tmp_path / "opening")

    for n in range(opening + 1, count):
        await driven(tmp_path / f"{n}", {n: moment})


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_driver_that_fails_while_mending_is_mended_again(
    tmp_path: Path, moment: str
) -> None:
    opening = await statements_to_open(tmp_path / "opening")
    failures = dict.fromkeys(range(opening + 3, opening + 23, 4), moment)

    await driven(tmp_path / "store", failures)


async def statements_to_open(directory: Path) -> int:
    """How many statements opening takes: one that fails there only stops the start."""

    with failing_driver({}) as (driver, calls):
        async with SqliteStore(directory, factory=driver):
            return calls()


async def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with failing_driver({2: "before"}) as (driver, _):
        with pytest.raises(StoreUnavailable, match="cannot be written"):
            await SqliteStore(tmp_path, factory=driver).__aenter__()

    async with SqliteStore(tmp_path):
        pass

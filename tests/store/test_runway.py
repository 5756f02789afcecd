"""Zeros ahead of the write-ahead log: there when a commit comes, and nothing to whoever reads the log."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from collab.errors import CollabError
from collab.store.base import Author, Entry
from collab.store.runway import MAX_BYTES, Runway
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


async def append(store: SqliteStore, position: int, update: bytes) -> None:
    done: asyncio.Future[CollabError | None] = (
        asyncio.get_running_loop().create_future()
    )

    def answer(entries: Sequence[Entry], error: CollabError | None) -> None:
        done.set_result(error)

    author = Author("ada", "a connection")
    store.append([Entry("r", "e", position, 0, [update], [author])], answer)
    assert await done is None


async def test_a_log_with_zeros_behind_its_end_is_read_up_to_its_end(
    tmp_path: Path,
) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy"
    async with SqliteStore(live, sweep_seconds=3600) as store:
        for position in range(1, 41):
            await append(store, position, bytes(20_000))
        await store.bind("r", {1: "ada"})  # after this the runway is laid
        shutil.copytree(live, copy)
        size = (copy / "collab.db-wal").stat().st_size

    async with SqliteStore(copy) as store:
        stored = await store.load("r")

    assert size > 40 * 20_000
    assert stored.position == 40


def test_more_is_laid_only_when_the_log_comes_near_the_end(tmp_path: Path) -> None:
    log = tmp_path / "collab.db-wal"
    log.write_bytes(b"begun")
    runway = Runway(tmp_path / "collab.db")

    runway.lay()
    first = log.stat().st_size
    runway.lay()
    unchanged = log.stat().st_size
    log.write_bytes(b"x" * first)
    runway.lay()

    assert unchanged == first
    assert log.stat().st_size > first


def test_the_runway_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "collab.db-wal"
    log.write_bytes(b"begun")
    runway = Runway(tmp_path / "collab.db")

    for _ in range(100):
        runway.lay()
        log.write_bytes(b"x" * log.stat().st_size)

    assert log.stat().st_size < MAX_BYTES + (2 << 20)


def test_where_there_is_no_log_yet_nothing_is_laid(tmp_path: Path) -> None:
    Runway(tmp_path / "collab.db").lay()

    assert not list(tmp_path.iterdir())


def test_a_log_that_is_long_already_grows_no_longer_however_often_it_is_opened(
    tmp_path: Path,
) -> None:
    log = tmp_path / "collab.db-wal"
    log.write_bytes(b"begun")
    with log.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)

    for _ in range(3):
        Runway(tmp_path / "collab.db").lay()

    assert log.stat().st_size == MAX_BYTES + 1


def test_after_a_failure_the_runway_is_laid_in_the_log_that_is_written(
    tmp_path: Path,
) -> None:
    runway = Runway(tmp_path / "collab.db")
    log = tmp_path / "collab.db-wal"
    log.write_bytes(b"the first")
    runway.lay()
    runway.end()
    log.unlink()
    log.write_bytes(b"another")

    runway.lay()

    assert log.stat().st_size > 1000

"""The server on a disk that fills up: rooms become read-only with a reason, and writable again by themselves."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycrdt import Text
from writers import Ledger, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0,
        reason="mounting needs root; tests/store/test_failing_disk.py has a stand-in",
    ),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "collab-test", place], check=True
    )
    yield place
    subprocess.run(["umount", place], check=True)


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def remove(filler: Path) -> None:
    filler.unlink()


async def test_a_full_disk_makes_rooms_read_only_until_there_is_space(
    small_disk: Path,
) -> None:
    ledger, filler = Ledger(), small_disk / "filler"
    async with (
        serving(small_disk / "data") as server,
        server.peer(ledger) as peer,
        asyncio.timeout(60),
    ):
        text = peer.doc.get("text", type=Text)

        async def add(token: str, size: int) -> None:
            await peer.edit(
                ("+", token), lambda: text.insert(0, f"<{token}>" + "x" * size)
            )

        await add("before", 10)
        await peer.until(lambda: ("+", "before") in ledger.saved)
        fill(filler)
        await add("while full", 450_000)  # more than the log has room for already
        await peer.until(lambda: "read-only" in peer.notices)
        assert ("+", "while full") not in ledger.saved
        await add("too late", 10)
        await peer.until(lambda: bool(peer.refusals))
        remove(filler)
        await peer.until(lambda: "writable" in peer.notices)
        await peer.until(lambda: ("+", "while full") in ledger.saved)
        await add("after", 10)
        await peer.until(lambda: ("+", "after") in ledger.saved)

    async with serving(small_disk / "data") as server, server.peer(Ledger()) as fresh:
        assert ledger.faults(fresh.doc) == []

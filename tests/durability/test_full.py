"""The server on a disk that fills up: rooms become read-only with a reason, and writable again by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from disks import IS_ROOT, TAKING_IT, TOO_MUCH, fill
from pycrdt import Text
from writers import Ledger, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.root,
    pytest.mark.skipif(
        not IS_ROOT,
        reason="mounting needs root; tests/store/test_failing_disk.py has a stand-in",
    ),
]


def remove(filler: Path) -> None:
    filler.unlink()


async def test_a_full_disk_makes_rooms_read_only_until_there_is_space(
    small_disk: Path,
) -> None:
    ledger, filler = Ledger(), small_disk / "filler"
    async with (
        serving(small_disk / "data", flags=TAKING_IT) as server,
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
        await add("while full", TOO_MUCH)
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

"""A log that kills the process which loads it: the row is found and left out, and other rooms are served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text
from writers import ROOM, Ledger, roots, serving

from collab.store.base import Author, Entry
from collab.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

_DEADLY = """
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


async def log_a_poisoned_room(directory: Path) -> None:
    """Three writers, the second of which wrote what native code does not survive."""
    updates = []
    for letter in "aZc":
        doc: Doc[Any] = Doc()
        doc.get("text", type=Text).insert(0, f"<{letter}>")
        updates.append(doc.get_update())
    logged = asyncio.Event()
    async with SqliteStore(directory) as store:
        authors = [Author("alice", "c1")] * 3
        store.append(
            [Entry(ROOM, "e1", 1, 0, updates, authors)], lambda *answer: logged.set()
        )
        await logged.wait()


async def test_a_poisoned_row_takes_the_server_down_once(tmp_path: Path) -> None:
    directory, patch = tmp_path / "data", tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(_DEADLY)
    await log_a_poisoned_room(directory)

    async with serving(directory, path=patch) as server, asyncio.timeout(30):
        await server.run_writers(Ledger(), count=1, run="w", is_v1=True, seed=1)
        assert await server.wait() == -6
    async with serving(directory, path=patch) as server, asyncio.timeout(30):
        async with server.peer(Ledger()) as peer:
            text = str(roots(peer.doc)[0])

    assert "<a>" in text
    assert "<c>" in text
    assert "Z" not in text

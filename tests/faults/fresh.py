"""Readers that come after the faults: Yjs in Node and pycrdt through a replica, and one who opens the store itself."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ledger import View
from pycrdt import Doc
from typists import STEP_1, STEP_2, SYNC, deletions, view_of
from websockets.asyncio.client import connect

from collab import settings
from collab.document.gate import Gate
from collab.protocol.guard import check
from collab.protocol.statevector import state_vector
from collab.protocol.varint import Reader, encode_bytes
from collab.server.app import make_store

HERE = Path(__file__).parent
PACKAGES = HERE.parent / "compat"
PATIENCE_SECONDS = 20.0
SETTLE_SECONDS = 0.2  # for presence to come in


class YjsReader:
    """A Node process with stock clients; one look at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        assert (PACKAGES / "node_modules").is_dir(), "run npm ci in tests/compat"
        self._process = await asyncio.create_subprocess_exec(
            *("node", str(HERE / "reader.mjs"), str(PACKAGES)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 28,
        )
        return self

    async def __aexit__(self, *reason: object) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process._transport.close()  # type: ignore[attr-defined]  # its pipes too

    async def look(self, address: str, room: str) -> View:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "url": address,
            "room": room,
            "seconds": PATIENCE_SECONDS,
            "settles": SETTLE_SECONDS,
        }
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_SECONDS + 10):
            seen = json.loads(await self._process.stdout.readline())
        assert "error" not in seen, f"Yjs through {address}: {seen['error']}"
        return View(
            f"yjs through {address}",
            text=seen["text"],
            array=seen["array"],
            map=seen["map"],
            vector=state_vector(b64decode(seen["vector"])),
            deleted=deletions(b64decode(seen["state"])),
            is_waiting=seen["isWaiting"],
            present=frozenset(seen["present"]),
        )


async def look(address: str, room: str) -> View:
    """A fresh client with a pycrdt document."""
    doc: Doc[Any] = Doc()
    present: set[int] = set()
    is_synced = False
    async with connect(
        f"{address}/ws/{room}", ping_interval=None, compression=None, max_size=None
    ) as socket:
        await socket.send(b"\x00\x00" + encode_bytes(doc.get_state()))
        now = asyncio.get_running_loop().time
        deadline = now() + PATIENCE_SECONDS
        while (patience := deadline - now()) > 0:
            try:
                frame = await asyncio.wait_for(socket.recv(decode=False), patience)
            except TimeoutError:
                break
            reader = Reader(frame)
            kind = reader.read_varint()
            if kind == SYNC:
                step, content = reader.read_varint(), reader.read_bytes()
                if step != STEP_1:
                    doc.apply_update(content)
                if step == STEP_2 and not is_synced:
                    is_synced, deadline = True, now() + SETTLE_SECONDS
            elif kind == 1:
                _take_presence(Reader(reader.read_bytes()), present)
    assert is_synced, f"not synced through {address}"
    return view_of(f"pycrdt through {address}", doc, present=frozenset(present))


def _take_presence(reader: Reader, present: set[int]) -> None:
    for _ in range(reader.read_varint()):
        client = reader.read_varint()
        reader.read_varint()
        if json.loads(reader.read_bytes()) is None:
            present.discard(client)
        else:
            present.add(client)


async def look_into_store(flags: dict[str, Any], room: str) -> View:
    """What the store itself holds, while no server has it open; through guard and gate, as a room takes it in."""
    doc: Doc[Any] = Doc()
    gate = Gate(max_bytes=1 << 22)
    async with make_store(settings.load(flags)) as store:
        stored = await store.load(room)
    snapshot = [stored.checkpoint.snapshot] if stored.checkpoint else []
    for update in (*snapshot, *(update for _, update in stored.tail)):
        runs = check(update, gate.known)
        for ready in gate.admit(update) if runs is None else [update]:
            doc.apply_update(ready)
        if runs is not None:
            for ready in gate.advance(runs):
                doc.apply_update(ready)
    return view_of("the store", doc, is_waiting=len(gate) > 0)

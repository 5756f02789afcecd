"""An agent out of control: edits one room in turns as often as it is told to, and begins anew when it is refused.

    python loadtests/flooding.py ws://127.0.0.1:8000/ws/room 10000

Says each second on standard output how many operations it has made so far, and in how many turns.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pycrdt import Doc, Text, TransactionEvent
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from collab.protocol import yjs
from collab.sdk import messages

BATCH_SECONDS = 0.01
_REFUSED, _TURN_ENDED = bytes((yjs.REFUSED,)), bytes((yjs.TURN_ENDED,))


class Over(Exception):
    """The server takes no more of this turn."""


class Flood:
    """A document for each connection, of which every operation becomes a message of its own."""

    def __init__(self, address: str, rate: float) -> None:
        self.address, self.rate, self.count = address, rate, 0
        self.turns = 0
        self._made: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        self._doc: Doc[Any] = Doc()
        self._text = self._doc.get("text", type=Text)
        self._doc.observe(self._changed)

    def _changed(self, event: TransactionEvent) -> None:
        self._made.append(event.update)

    async def live(self) -> None:
        """Whatever the server does, it comes back."""
        while True:
            try:
                await self._stay()
            except* (Over, OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            await asyncio.sleep(0.1)

    async def _stay(self) -> None:
        self._begin()
        self.turns += 1
        async with connect(
            self.address, subprotocols=[Subprotocol(yjs.COLLAB_V1)], compression=None
        ) as socket:
            await socket.send(yjs.sync_step_1(b"\x00"))
            await socket.send(messages.turn(f"flood{self.turns}", "{}"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(socket))
                tasks.create_task(self._write(socket))

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            if frame[:1] in (_REFUSED, _TURN_ENDED):
                raise Over

    async def _write(self, socket: ClientConnection) -> None:
        due = time.perf_counter()
        while True:
            due = max(due, time.perf_counter() - 0.1) + BATCH_SECONDS
            for _ in range(round(self.rate * BATCH_SECONDS)):
                self._text.insert(0, "x")
                await socket.send(yjs.update_message(self._made.pop()))
                self.count += 1
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)


async def main(address: str, rate: float) -> None:
    flood = Flood(address, rate)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flood.live())
        while True:
            await asyncio.sleep(1)
            sys.stdout.write(f"{flood.count} {flood.turns}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))

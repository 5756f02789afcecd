"""An agent out of control: edits one room in turns as often as it is told to, and begins anew when it is refused.

    python loadtests/flooding.py ws://127.0.0.1:8000/ws/room 10000

Says each second on standard output how many operations it has made so far, and in how many turns. What it sends is made
before: it shares the machine with those whose delay is measured.
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

BATCH_SECONDS = 0.02
TURN_SECONDS = (
    10.0  # of operations, which are made before the turn; then the next begins
)
MAX_BUFFER_BYTES = 1 << 20  # more than that is not handed to the system
_REFUSED, _TURN_ENDED = bytes((yjs.REFUSED,)), bytes((yjs.TURN_ENDED,))


class Over(Exception):
    """Nothing more of this turn is taken, or there is no more of it."""


def batches(count: int, size: int) -> list[bytes]:
    """So many operations of a new client, each in a WebSocket frame of its own (its mask is zeros), some at a time."""
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    made: list[bytes] = []

    def changed(event: TransactionEvent) -> None:
        message = yjs.update_message(event.update)
        made.append(bytes((0x82, 0x80 | len(message), 0, 0, 0, 0)) + message)

    doc.observe(changed)
    for _ in range(count):
        text.insert(0, "x")
    return [b"".join(made[at : at + size]) for at in range(0, count, size)]


class Flood:
    """One connection and one turn after the other."""

    def __init__(self, address: str, rate: float) -> None:
        self.address, self.rate = address, rate
        self.count = self.turns = 0

    async def live(self) -> None:
        """Whatever the server does, it comes back."""
        while True:
            try:
                await self._stay()
            except* (Over, OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            await asyncio.sleep(0.1)

    async def _stay(self) -> None:
        size = round(self.rate * BATCH_SECONDS)
        waiting = batches(round(self.rate * TURN_SECONDS), size)
        self.turns += 1
        async with connect(
            self.address, subprotocols=[Subprotocol(yjs.COLLAB_V1)], compression=None
        ) as socket:
            await socket.send(yjs.sync_step_1(b"\x00"))
            await socket.send(messages.turn(f"flood{self.turns}", "{}"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(socket))
                tasks.create_task(self._write(socket, waiting, size))

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            if frame[:1] in (_REFUSED, _TURN_ENDED):
                raise Over

    async def _write(
        self, socket: ClientConnection, waiting: list[bytes], size: int
    ) -> None:
        due = time.perf_counter()
        for batch in waiting:
            due = max(due, time.perf_counter() - 0.1) + BATCH_SECONDS
            if socket.transport.get_write_buffer_size() < MAX_BUFFER_BYTES:
                socket.transport.write(batch)
                self.count += size
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        raise Over


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

"""Two members of another room who go on editing while a row runs, and must not notice it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from house import House
from peer import WEBSOCKET, Peer, join
from wire import keystroke, read_varint, update_of

# What the server may work while one edit is on its way: its work is what a hostile member can add to. By the clock
# the same edit takes longer whenever other processes have the machine.
BOUND_SECONDS = 1.5
PAUSE_SECONDS = 0.005
LEAST = 2  # exchanges beside every row, however short


class Pair:
    """Two clients that answer each other's keystrokes."""

    def __init__(self, house: House, one: Peer, two: Peer) -> None:
        self.members = (one, two)
        self.sent = 0
        self._house = house
        self._enough = asyncio.Event()
        self._is_over = False

    async def chat(self) -> None:
        """Each in turn types one character, and the other must get exactly that and nothing else."""
        ids = (1_000_001, 1_000_002)
        seen: tuple[list[bytes], list[bytes]] = ([], [])
        clock = 0
        while not self._is_over:
            for here in (0, 1):
                update = keystroke(ids[here], clock, "x")
                expected = seen[1 - here]
                expected.append(update)
                self.members[here].say(update_of(update))
                self.sent += 1
                await self._arrive(self.members[1 - here], ids[here], expected)
            clock += 1
            if clock >= LEAST:
                self._enough.set()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _arrive(self, member: Peer, author: int, expected: list[bytes]) -> None:
        def foreign() -> list[bytes]:
            return [
                update for update in member.updates() if written_by(update) == author
            ]

        worked = self._house.cpu_seconds()
        await member.until(lambda: len(foreign()) >= len(expected))
        assert foreign() == expected
        assert self._house.cpu_seconds() - worked < BOUND_SECONDS
        member.messages.clear()
        expected.clear()

    async def finish(self, chatting: asyncio.Task[None]) -> None:
        """Let them have their last word; raises what they noticed."""
        waiting = asyncio.create_task(self._enough.wait())
        await asyncio.wait([waiting, chatting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._is_over = True
        await chatting


def written_by(update: bytes) -> int:
    """The client id of an update by one client."""
    _, at = read_varint(update, 1)
    return read_varint(update, at)[0]


@asynccontextmanager
async def liveness(house: House) -> AsyncIterator[Pair]:
    room = f"beside-{os.urandom(6).hex()}"
    one = await join(house.port, WEBSOCKET, room, token=house.token)
    two = await join(house.port, WEBSOCKET, room, token=house.token)
    pair = Pair(house, one, two)
    chatting = asyncio.create_task(pair.chat())
    try:
        yield pair
        await pair.finish(chatting)
        assert not one.is_over
        assert not two.is_over
    finally:
        chatting.cancel()
        await asyncio.wait([chatting])
        await one.leave()
        await two.leave()

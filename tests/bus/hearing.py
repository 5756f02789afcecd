"""A subscriber that remembers what it was told, and can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collab.bus.base import Published

PATIENCE_SECONDS = 30.0


class Ear:
    """Remembers everything in order; `until` waits for something to become true of it."""

    def __init__(self) -> None:
        self.entries: list[Published] = []
        self.words: list[bytes] = []
        self.interruptions = 0
        self.drops = 0
        self._news = asyncio.Event()

    def entry(self, published: Published) -> None:
        self.entries.append(published)
        self._news.set()

    def word(self, body: bytes) -> None:
        self.words.append(body)
        self._news.set()

    def interrupted(self) -> None:
        self.interruptions += 1
        self._news.set()

    def dropped(self) -> None:
        self.drops += 1
        self._news.set()

    @property
    def bodies(self) -> list[bytes]:
        return [published.body for published in self.entries]

    @property
    def numbers(self) -> list[int]:
        return [published.number for published in self.entries]

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not check():
                self._news.clear()
                await self._news.wait()


async def eventually(
    check: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """For what nobody tells: look until it is so."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110  # another process does it
            await asyncio.sleep(0.005)

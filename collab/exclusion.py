"""One at a time in a room: among the requests of a process by a lock, among replicas by a claim on the bus."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from collab.bus.base import Bus
from collab.errors import BusUnavailable, Busy

CLAIM_SECONDS = 30.0  # that a replica which died or froze keeps the others waiting
# Of these, so many must be left for what is about to be written to be logged, or the claim to be renewed.
MARGIN_SECONDS = 10.0
WAIT_SECONDS = 5.0  # for another replica, until Busy
PAUSE_SECONDS = 0.05  # between two attempts, on average
MAX_WAITING_OF_ROOM = 8


class Claim:
    """That nobody else is at it in a room, by the clock of this process. Without a bus nobody else can be."""

    def __init__(
        self, bus: Bus | None, room: str, *, clock: Callable[[], float]
    ) -> None:
        self._bus, self._room, self._clock = bus, room, clock
        self._token = secrets.token_hex(16)
        self._until = 0.0
        self.is_kept = False  # somebody else lets it go

    async def take(self) -> bool:
        """Raises BusUnavailable."""
        return self._bus is None or await self._ask(self._bus.claim)

    async def renew(self) -> None:
        """Have the whole time again. Raises Busy when somebody else may have had it meanwhile, and BusUnavailable."""
        if self._bus is not None and not await self._ask(self._bus.renew):
            self._until = 0.0
            self.check()

    async def _ask(self, order: Callable[[str, str, float], Awaitable[bool]]) -> bool:
        asked = self._clock()
        is_ours = await order(self._room, self._token, CLAIM_SECONDS)
        if is_ours:
            self._until = asked + CLAIM_SECONDS
        return is_ours

    def check(self) -> None:
        """Just before something is written, with no wait between. Raises Busy when it is too late."""
        if self._bus is not None and self._clock() > self._until - MARGIN_SECONDS:
            raise Busy("this took too long, and another replica may be at it by now; ask again")  # fmt: skip

    async def release(self) -> None:
        """Where that fails it ends by itself."""
        if self._bus is not None:
            with contextlib.suppress(BusUnavailable):
                await self._bus.release(self._room, self._token)


class Exclusion:
    """Of whatever must not be done twice. Without a bus it is among the requests of this process."""

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[], float] = lambda: 2 * PAUSE_SECONDS * random.random(),
    ) -> None:
        self._bus, self._clock, self._pause = bus, clock, pause
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()  # by room, with who is at it

    @asynccontextmanager
    async def of(self, room: str) -> AsyncIterator[Claim]:
        """Raises Busy when too many wait, or somebody else is at it for too long, and BusUnavailable."""
        with place(self._waiting, room, MAX_WAITING_OF_ROOM):
            async with self._locks.setdefault(room, asyncio.Lock()):
                claim = await self._claim(room)
                try:
                    yield claim
                finally:
                    if not claim.is_kept:
                        await claim.release()

    async def _claim(self, room: str) -> Claim:
        claim = Claim(self._bus, room, clock=self._clock)
        latest = self._clock() + WAIT_SECONDS
        try:
            while not await claim.take():
                if self._clock() > latest:
                    raise Busy("another replica is at it in this room; come back in a moment")  # fmt: skip
                await asyncio.sleep(self._pause())
        except BaseException:
            await claim.release()  # nobody knows whether the last attempt was heard
            raise
        return claim


@contextmanager
def place(waiting: Counter[str], room: str, most: int) -> Iterator[None]:
    """One of so many places for a room. Raises Busy."""
    if waiting[room] >= most:
        raise Busy("too much is asked about the past of this room; come back in a moment")  # fmt: skip
    waiting[room] += 1
    try:
        yield
    finally:
        waiting[room] -= 1
        if not waiting[room]:
            del waiting[room]

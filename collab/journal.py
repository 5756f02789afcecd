"""Updates on their way to the store: nothing is lost, reordered or acknowledged early when the store fails."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from collab import logs
from collab.errors import CollabError, StoreUnavailable
from collab.metrics import Metrics
from collab.store.base import Entry, Store

log = logs.logger(__name__)

_LAST_RETRY_SECONDS = 5.0


class _Arrival:
    """One call of `append` that is not yet wholly answered."""

    __slots__ = ("at", "bytes", "entries", "updates")

    def __init__(self, at: float, entries: int, updates: int, bytes: int) -> None:
        self.at, self.entries, self.updates, self.bytes = at, entries, updates, bytes


class Journal:
    """Hands entries to the store in order and says when they are logged.

    `logged(entries)` is called once per commit. When the store cannot write, `failed(reason)` is called once and
    `is_failing` is true until `healed()`: entries are kept, in order, and tried again with growing pauses; rooms
    are to refuse new ones meanwhile. The same happens when the store is so slow that more than `max_bytes` wait.
    `refused(entries, error)` is called for entries that the store will never take, such as those of a deleted
    room: they are dropped.

    An async context manager: leaving it waits for what is on its way, and gives up on what cannot be written.
    """

    def __init__(
        self,
        store: Store,
        *,
        logged: Callable[[Sequence[Entry]], None],
        failed: Callable[[StoreUnavailable], None],
        healed: Callable[[], None],
        metrics: Metrics,
        refused: Callable[[Sequence[Entry], CollabError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_bytes: int = 64 * 1024 * 1024,
        retry_seconds: float = 0.25,
    ) -> None:
        self.is_failing = False
        self.fault: StoreUnavailable | None = None  # the last one, while it is failing
        self.unsaved_updates = 0
        self.unsaved_bytes = 0
        self._store, self._metrics, self._clock = store, metrics, clock
        self._logged, self._failed, self._healed = logged, failed, healed
        self._refused = refused
        self._max_bytes = max_bytes
        self._done = (
            self._answered
        )  # one object, so that the store can join what it answers
        self._arrivals: deque[_Arrival] = deque()
        self._in_store = 0  # entries the store has not answered
        self._returned: list[Entry] = []  # by a failed commit, in order
        self._waiting: list[Entry] = []  # appended since
        self._retry: asyncio.TimerHandle | None = None
        self._first_pause = self._pause = retry_seconds
        self._idle: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.flush()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.unsaved_updates:
            log.error(
                "ended with updates that could not be saved; nobody was told that they were",
                updates=self.unsaved_updates,
                bytes=self.unsaved_bytes,
            )

    @property
    def oldest_unsaved_seconds(self) -> float:
        """Age of the oldest entry that is not yet logged; 0 when there is none."""
        return self._clock() - self._arrivals[0].at if self._arrivals else 0.0

    def append(self, entries: Sequence[Entry]) -> None:
        """Take the entries of one loop turn; never blocks and never fails."""
        if not entries:
            return
        updates = size = 0
        for entry in entries:
            batch = entry.updates
            updates += len(batch)
            for update in batch:
                size += len(update)
        self._arrivals.append(_Arrival(self._clock(), len(entries), updates, size))
        self.unsaved_updates += updates
        self.unsaved_bytes += size
        if self._returned or self._waiting:
            self._waiting += entries
        else:
            self._in_store += len(entries)
            self._store.append(entries, self._done)
        if self.unsaved_bytes > self._max_bytes and not self.is_failing:
            self._fail(
                StoreUnavailable("the store cannot keep up: too much is waiting for it")
            )

    async def flush(self) -> bool:
        """Wait until everything is logged, or until it is known that it cannot be: then False."""
        while self._arrivals and not self.is_failing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return not self._arrivals

    def _answered(self, entries: Sequence[Entry], error: CollabError | None) -> None:
        self._in_store -= len(entries)
        if error is None:
            self._take_logged(entries)
        elif isinstance(error, StoreUnavailable):
            self._take_failed(entries, error)
        else:
            log.error("entries refused", error=str(error), entries=len(entries))
            self._settle(len(entries))
            if self._refused is not None:
                self._refused(entries, error)
        if self._returned and not self._in_store and self._retry is None:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(self._pause, self._try_again)
            self._pause = min(2 * self._pause, _LAST_RETRY_SECONDS)
        self._wake()

    def _take_logged(self, entries: Sequence[Entry]) -> None:
        now, observe = self._clock(), self._metrics.logged.observe
        for at, count in self._settle(len(entries)):
            observe(now - at, count)
        self._metrics.commits += 1
        self._metrics.logged_updates += sum(len(entry.updates) for entry in entries)
        self._logged(entries)
        if self.is_failing:
            self._heal()

    def _settle(self, entries: int) -> list[tuple[float, int]]:
        """Strike the oldest entries off; returns when they arrived, and how many at once."""
        settled = []
        while entries:
            arrival = self._arrivals[0]
            count = min(entries, arrival.entries)
            entries -= count
            arrival.entries -= count
            settled.append((arrival.at, count))
            if not arrival.entries:
                self._arrivals.popleft()
                self.unsaved_updates -= arrival.updates
                self.unsaved_bytes -= arrival.bytes
        return settled

    def _take_failed(self, entries: Sequence[Entry], error: StoreUnavailable) -> None:
        self._metrics.append_failures += 1
        self._returned += entries
        self._fail(error)

    def _try_again(self) -> None:
        self._retry = None
        entries = self._returned + self._waiting
        self._returned, self._waiting = [], []
        self._in_store += len(entries)
        self._store.append(entries, self._done)

    def _fail(self, error: StoreUnavailable) -> None:
        self.fault = error
        if not self.is_failing:
            self.is_failing = True
            self._failed(error)

    def _heal(self) -> None:
        """After a commit: take up what waited; a slow store must have caught up with half."""
        if self._returned or self.unsaved_bytes > self._max_bytes // 2:
            return
        self._pause = self._first_pause
        self.is_failing, self.fault = False, None
        self._healed()

    def _wake(self) -> None:
        if self._idle and (self.is_failing or not self._arrivals):
            waiters, self._idle = self._idle, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

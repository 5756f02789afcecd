"""A bus and a store between simulated replicas that lose, delay, repeat and reorder what a seed tells them to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Self

from collab.bus.base import Published, Subscriber
from collab.bus.memory import Hub, MemoryBus
from collab.errors import BusUnavailable, CollabError, StoreUnavailable
from collab.store.base import Done, Entry
from collab.store.memory import MemoryStore

KEPT = 12  # entries of a stream: readers that come late find it trimmed


class FaultyHub(Hub):
    """What the buses have in common; `is_calm` ends all faults."""

    def __init__(self, random: Random) -> None:
        super().__init__(clock=lambda: asyncio.get_running_loop().time())
        self.random = random
        self.is_calm = False

    def chance(self, probability: float) -> bool:
        return not self.is_calm and self.random.random() < probability

    def stream(self, channel: str) -> Any:
        found = super().stream(channel)
        if found.entries.maxlen != KEPT:
            found.entries = deque(found.entries, maxlen=KEPT)
        return found


class FaultyBus(MemoryBus):
    """One replica's way to the hub."""

    def __init__(self, hub: FaultyHub) -> None:
        super().__init__(hub)
        self._faults = hub
        self.is_cut = False  # from the hub, as by a partition
        self._leaves_at = 0.0  # what is published keeps its order

    @property
    def is_up(self) -> bool:
        return super().is_up and not self.is_cut

    def cut(self) -> None:
        self.is_cut = True

    def mend(self) -> None:
        self.is_cut = False
        if self._faults.is_up:
            self.reconnect()

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._subscribers[channel] = subscriber
        if self.is_up:
            self._loop.call_later(self._delay(), self._confirm, channel, subscriber)

    def publish(self, channel: str, body: bytes) -> None:
        now = self._loop.time()
        self._leaves_at = max(self._leaves_at, now + self._delay())
        self._loop.call_at(self._leaves_at, self._leave, channel, body)
        if self._faults.chance(0.05):  # a batch that was tried again
            self._loop.call_at(self._leaves_at, self._leave, channel, body)

    def _leave(self, channel: str, body: bytes) -> None:
        if self.is_cut:
            subscriber = self._subscribers.get(channel)
            if subscriber is not None:
                subscriber.dropped()
        else:
            super().publish(channel, body)

    def say(self, channel: str, body: bytes) -> None:
        if not self.is_cut:
            super().say(channel, body)

    def deliver(self, channel: str, message: Published | bytes) -> None:
        subscriber = self._subscribers.get(channel)
        if subscriber is None or self.is_cut or self._faults.chance(0.05):
            return
        times = 2 if self._faults.chance(0.05) else 1
        for _ in range(times):
            delay = self._delay()
            self._loop.call_later(delay, self._tell, channel, subscriber, message)

    def _delay(self) -> float:
        if self._faults.is_calm:
            return 0.001
        random = self._faults.random
        return random.uniform(0.0, 0.3 if random.random() < 0.1 else 0.02)

    def _reach(self) -> Hub:
        if self.is_cut or self._faults.chance(0.05):
            raise BusUnavailable("the bus does not answer")
        return super()._reach()

    async def position(self, channel: str) -> tuple[str, int]:
        await asyncio.sleep(self._delay())
        return await super().position(channel)

    async def read(
        self, channel: str, epoch: str, after: int
    ) -> list[Published] | None:
        await asyncio.sleep(self._delay())
        return await super().read(channel, epoch, after)

    async def beat(self, replica: str, info: bytes) -> Mapping[str, bytes]:
        await asyncio.sleep(self._delay())
        return await super().beat(replica, info)


class FaultyStore:
    """One replica's way to the store that all share: commits take time, fail, and fail after they have happened."""

    def __init__(self, inner: MemoryStore, hub: FaultyHub) -> None:
        self._inner, self._faults = inner, hub
        self.is_shared, self.identity = inner.is_shared, inner.identity
        self.is_dead = False  # with its process
        self._queue: list[tuple[Sequence[Entry], Done]] = []
        self._is_committing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        self._queue.append((entries, done))
        if not self._is_committing:
            self._is_committing = True
            loop = asyncio.get_running_loop()
            random = self._faults.random
            is_slow = self._faults.chance(0.1)
            loop.call_later(
                random.uniform(0.001, 2.0 if is_slow else 0.03), self._commit
            )

    def _commit(self) -> None:
        self._is_committing = False
        queue, self._queue = self._queue, []
        if self.is_dead:
            return
        fails = self._faults.chance(0.05)
        happens = not fails or self._faults.chance(0.5)
        for entries, done in queue:
            taken: list[Entry] = []
            for entry in entries:
                try:
                    taken.append(
                        self._inner._append_shared(_dated(entry)) if happens else entry
                    )
                except CollabError as error:
                    done((entry,), error)
            if taken:
                done(taken, StoreUnavailable("no answer") if fails else None)


def _dated(entry: Entry) -> Entry:
    """By the clock of the run, in microseconds: a log that begins anew has another date than the one that was lost."""
    now = asyncio.get_running_loop().time()
    return entry._replace(milliseconds=int(1e6 * now))

"""A bus within one process: for tests of several replicas, and for a replica that is alone."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Self

from collab.bus.base import (
    EVERYBODY,
    KEPT_ENTRIES,
    MAX_BODY_BYTES,
    PEER_SECONDS,
    Published,
    Subscriber,
)
from collab.errors import BusUnavailable

MAX_KEPT_VALUES = 10_000


class Hub:
    """What the memory buses of several replicas have in common. `is_up` may be switched off, as a network would."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_up = True
        self.buses: list[MemoryBus] = []
        self.clock = clock
        self._streams: dict[str, _Stream] = {}
        self.peers: dict[str, tuple[float, bytes]] = {}
        self.values: dict[str, tuple[float, bytes]] = {}
        # By channel, until when and whose; each goes with its time.
        self.claims: dict[str, tuple[float, str]] = {}

    def stream(self, channel: str) -> _Stream:
        found = self._streams.get(channel)
        if found is None:
            found = self._streams[channel] = _Stream()
        return found

    def known(self, channel: str) -> _Stream | None:
        return self._streams.get(channel)

    def flush(self) -> None:
        """Forget everything, as an emptied Redis does."""
        self._streams.clear()
        self.values.clear()
        self.claims.clear()

    def heal(self) -> None:
        """Come back after `is_up` was off."""
        self.is_up = True
        for bus in self.buses:
            bus.reconnect()


class _Stream:
    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.number = 0
        self.entries: deque[Published] = deque(maxlen=KEPT_ENTRIES)

    def append(self, body: bytes) -> Published:
        self.number += 1
        published = Published(self.epoch, self.number, body)
        self.entries.append(published)
        return published


class MemoryBus:
    """Keeps the whole contract among those who share a hub."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub = hub or Hub()
        self._subscribers: dict[str, Subscriber] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._hub.buses.append(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._hub.buses.remove(self)
        self._subscribers.clear()

    @property
    def is_up(self) -> bool:
        return self._hub.is_up

    @property
    def troubles(self) -> list[str]:
        return [] if self.is_up else ["connection"]

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._subscribers[channel] = subscriber
        if self._hub.is_up:
            self._loop.call_soon(self._confirm, channel, subscriber)

    def _confirm(self, channel: str, subscriber: Subscriber) -> None:
        if self._subscribers.get(channel) is subscriber:
            subscriber.interrupted()

    def unsubscribe(self, channel: str) -> None:
        self._subscribers.pop(channel, None)

    def reconnect(self) -> None:
        for channel, subscriber in list(self._subscribers.items()):
            self._loop.call_soon(self._confirm, channel, subscriber)

    def publish(self, channel: str, body: bytes) -> None:
        assert channel != EVERYBODY, "only rooms have streams"
        if not self._hub.is_up or len(body) > MAX_BODY_BYTES:
            subscriber = self._subscribers.get(channel)
            if subscriber is not None:
                self._loop.call_soon(subscriber.dropped)
            return
        published = self._hub.stream(channel).append(body)
        for bus in self._hub.buses:
            bus.deliver(channel, published)

    def say(self, channel: str, body: bytes) -> None:
        if self._hub.is_up and len(body) <= MAX_BODY_BYTES:
            for bus in self._hub.buses:
                bus.deliver(channel, body)

    def deliver(self, channel: str, message: Published | bytes) -> None:
        subscriber = self._subscribers.get(channel)
        if subscriber is not None:
            self._loop.call_soon(self._tell, channel, subscriber, message)

    def _tell(
        self, channel: str, subscriber: Subscriber, message: Published | bytes
    ) -> None:
        if self._subscribers.get(channel) is not subscriber:
            return
        if isinstance(message, Published):
            subscriber.entry(message)
        else:
            subscriber.word(message)

    def _reach(self) -> Hub:
        if not self._hub.is_up:
            raise BusUnavailable("the bus does not answer")
        return self._hub

    async def position(self, channel: str) -> tuple[str, int]:
        stream = self._reach().known(channel)
        return ("", 0) if stream is None else (stream.epoch, stream.number)

    async def read(
        self, channel: str, epoch: str, after: int
    ) -> list[Published] | None:
        stream = self._reach().known(channel)
        if stream is None or stream.epoch != epoch or after > stream.number:
            return None
        found = [each for each in stream.entries if each.number > after]
        is_whole = len(found) == stream.number - after
        return found if is_whole else None

    async def beat(self, replica: str, info: bytes) -> Mapping[str, bytes]:
        hub = self._reach()
        now = hub.clock()
        hub.peers[replica] = now, info
        for name, (at, _) in list(hub.peers.items()):
            if now - at > PEER_SECONDS:
                del hub.peers[name]
        return {name: said for name, (_, said) in hub.peers.items()}

    async def leave(self, replica: str) -> None:
        self._reach().peers.pop(replica, None)

    async def keep(self, key: str, value: bytes, seconds: float) -> None:
        values = self._reach().values
        values[key] = self._hub.clock() + seconds, value
        if len(values) > MAX_KEPT_VALUES:
            del values[next(iter(values))]

    async def take(self, key: str) -> bytes | None:
        until, value = self._reach().values.pop(key, (0.0, b""))
        return value if self._hub.clock() < until else None

    async def claim(self, channel: str, token: str, seconds: float) -> bool:
        claims, now = self._reach().claims, self._hub.clock()
        for name, (until, _) in list(claims.items()):
            if until <= now:
                del claims[name]
        if channel in claims:
            return False
        claims[channel] = now + seconds, token
        return True

    async def renew(self, channel: str, token: str, seconds: float) -> bool:
        claims, now = self._reach().claims, self._hub.clock()
        until, holder = claims.get(channel, (now, ""))
        if until <= now or holder != token:
            return False
        claims[channel] = now + seconds, token
        return True

    async def release(self, channel: str, token: str) -> None:
        claims = self._reach().claims
        if channel in claims and claims[channel][1] == token:
            del claims[channel]

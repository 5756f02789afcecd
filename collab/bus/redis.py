"""The bus on Redis: numbered streams and sharded channels, on one server, behind Sentinel or on a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self

from collab import logs
from collab.bus.base import (
    EVERYBODY,
    KEPT_ENTRIES,
    MAX_BODY_BYTES,
    MAX_INFO_BYTES,
    MAX_REPLICAS,
    PEER_SECONDS,
    Published,
    Subscriber,
)
from collab.bus.keys import names
from collab.bus.listener import Listener
from collab.bus.publisher import Publisher
from collab.bus.scripts import BEAT, CLAIM, RELEASE, RENEW, entry
from collab.bus.slots import Slots
from collab.bus.wire import Dialer
from collab.connection import (
    COMMAND_SECONDS,
    Client,
    Endpoint,
    ForeignContent,
    Script,
)
from collab.errors import BusUnavailable
from collab.metrics import Metrics

log = logs.logger(__name__)

_REPORT_SECONDS = 1.0
_PAGE = 100  # entries of a stream read at once


class RedisBus:
    """Entering does not need Redis; what is wanted before it answers is done when it does."""

    def __init__(self, endpoint: Endpoint, *, cluster: str, metrics: Metrics) -> None:
        self.metrics = metrics
        self._cluster = cluster
        self._names = partial(names, cluster, endpoint.database)
        self._client = Client(endpoint, unavailable=BusUnavailable)
        dialer = Dialer(endpoint)
        self._slots = Slots(dialer, self._reassign)
        self._listener = Listener(
            dialer, self._slots, names=self._names, metrics=metrics
        )
        self._publisher = Publisher(
            dialer,
            self._slots,
            names=self._names,
            metrics=metrics,
            dropped=self._dropped,
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for forever in (self._slots.run(), self._report()):
            self._stack.callback(tasks.create_task(forever).cancel)
        await self._stack.enter_async_context(self._listener)
        await self._stack.enter_async_context(self._publisher)
        self.metrics.gauges["bus_up"] = lambda: float(self.is_up)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def _report(self) -> None:
        """Say what changes, at most once a second."""
        before: list[str] = []
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            now = self.troubles
            if now and now != before:
                log.warning("the bus is down", reasons=now)
            elif before and not now:
                log.info("the bus is up again")
            before = now

    def _reassign(self) -> None:
        self._publisher.assign()
        self._listener.assign()

    @property
    def is_up(self) -> bool:
        return not self.troubles

    @property
    def troubles(self) -> list[str]:
        """Why messages do not pass, each in one word; empty when they do, as far as is known."""
        return sorted(self._listener.troubles | self._publisher.troubles)

    @property
    def queued_bytes(self) -> int:
        """Of entries that are not published yet."""
        return self._publisher.queued_bytes

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._listener.subscribe(channel, subscriber)

    def unsubscribe(self, channel: str) -> None:
        self._listener.unsubscribe(channel)

    def publish(self, channel: str, body: bytes) -> None:
        assert channel != EVERYBODY, "only rooms have streams"
        self._publisher.publish(channel, body)

    def say(self, channel: str, body: bytes) -> None:
        self._publisher.say(channel, body)

    def _dropped(self, channel: str) -> None:
        subscriber = self._listener.subscriber(channel)
        if subscriber is not None:
            subscriber.dropped()

    async def position(self, channel: str) -> tuple[str, int]:
        try:
            numbering = self._names(channel).numbering
            return _numbering(await self._run("HMGET", numbering, "epoch", "number"))
        except ForeignContent:
            self.metrics.bus_foreign += 1
            return "", 0

    async def read(
        self, channel: str, epoch: str, after: int
    ) -> list[Published] | None:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await self._read(channel, epoch, after)
        except TimeoutError:
            raise BusUnavailable("Redis does not answer in time") from None
        except ForeignContent:
            self.metrics.bus_foreign += 1
            return None

    async def _read(
        self, channel: str, epoch: str, after: int
    ) -> list[Published] | None:
        """The stream first, then how far the numbering is: what came between is read in the next round."""
        of = self._names(channel)
        found: list[Published] = []
        while len(found) <= KEPT_ENTRIES:
            last = after + len(found)
            rows = await self._run(
                "XRANGE", of.stream, f"{last + 1}-0", "+", "COUNT", _PAGE
            )
            now, number = await self.position(channel)
            if now != epoch or number < last + len(rows):
                return None
            for at, (id, fields) in enumerate(rows, last + 1):
                body = dict(fields).get(b"b")
                one = None if body is None else entry(epoch.encode(), b"%d" % at, body)
                if id != b"%d-0" % at or one is None:
                    return None
                found.append(one)
            if number == last + len(rows):
                return found
            if not rows:
                return None
        return None

    async def beat(self, replica: str, info: bytes) -> Mapping[str, bytes]:
        most = int(PEER_SECONDS * 1000)
        self.metrics.bus_round_trips += 1
        try:
            alive = await self._client.call(
                *(BEAT, [self._roster], replica, info, most),
                *(MAX_REPLICAS, MAX_INFO_BYTES),
            )
        except ForeignContent:
            self.metrics.bus_foreign += 1
            raise BusUnavailable("the roster of replicas is not ours") from None
        return {
            name.decode(errors="replace"): said
            for name, said in zip(alive[::2], alive[1::2], strict=True)
        }

    async def leave(self, replica: str) -> None:
        try:
            await self._run("HDEL", self._roster, replica)
        except ForeignContent:
            self.metrics.bus_foreign += 1

    @property
    def _roster(self) -> str:
        return f"{self._cluster}:bus-replicas"

    async def keep(self, key: str, value: bytes, seconds: float) -> None:
        assert len(value) <= MAX_BODY_BYTES, "it is small"
        await self._run(
            "SET", self._kept(key), value, "PX", max(1, int(seconds * 1000))
        )

    async def take(self, key: str) -> bytes | None:
        try:
            value: bytes | None = await self._run("GETDEL", self._kept(key))
            return value
        except ForeignContent:
            self.metrics.bus_foreign += 1
            return None

    def _kept(self, key: str) -> str:
        return f"{self._cluster}:bus-kept:{key}"

    async def claim(self, channel: str, token: str, seconds: float) -> bool:
        return await self._settle(CLAIM, channel, token, int(seconds * 1000))

    async def renew(self, channel: str, token: str, seconds: float) -> bool:
        return await self._settle(RENEW, channel, token, int(seconds * 1000))

    async def release(self, channel: str, token: str) -> None:
        await self._settle(RELEASE, channel, token)

    async def _settle(
        self, script: Script, channel: str, *arguments: str | int
    ) -> bool:
        """Whose a room is, in one step."""
        self.metrics.bus_round_trips += 1
        key = self._names(channel).claim
        try:
            return bool(await self._client.call(script, [key], *arguments))
        except ForeignContent:
            self.metrics.bus_foreign += 1
            return False

    async def _run(self, *command: str | bytes | float) -> Any:
        self.metrics.bus_round_trips += 1
        return await self._client.run(*command)


def _numbering(values: list[bytes | None]) -> tuple[str, int]:
    epoch, number = values
    if epoch is None or number is None:
        return "", 0
    known = entry(epoch, number, b"")
    return ("", 0) if known is None else (known.epoch, known.number)

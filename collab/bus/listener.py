"""What others say on the bus: subscriptions that are made again and again, and own up to every interruption."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import hiredis

from collab.bus.backoff import Backoff
from collab.bus.base import EVERYBODY, Published, Subscriber
from collab.bus.keys import Names
from collab.bus.scripts import decode
from collab.bus.slots import Slots
from collab.bus.wire import Dialer, NotPrimary, Place, Wire, pack, reason_of
from collab.connection import COMMAND_SECONDS
from collab.metrics import Metrics

# A server is asked every second when it is silent; at the second answer that does not come, the link is cut.
_LOOK_SECONDS = 1.0
_MAX_SILENT_LOOKS = 2


class _Channel:
    """A subscription that is wanted."""

    __slots__ = ("asked_at", "ear", "is_confirmed", "name", "names", "subscriber")

    def __init__(self, names: Names, subscriber: Subscriber) -> None:
        self.names, self.subscriber = names, subscriber
        self.name = names.channel.encode()
        self.ear: _Ear | None = None
        self.is_confirmed = False
        self.asked_at = 0.0


class Listener:
    """Subscribers by channel. An async context manager."""

    def __init__(
        self,
        dialer: Dialer,
        slots: Slots,
        *,
        names: Callable[[str], Names],
        metrics: Metrics,
    ) -> None:
        self.dialer, self.slots, self.metrics = dialer, slots, metrics
        self._names = names
        self._channels: dict[str, _Channel] = {}
        self._placeless: set[_Channel] = set()  # nobody is known to have their slots
        self._ears: dict[Place, _Ear] = {}

    async def __aenter__(self) -> Listener:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self.assign()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channels.clear()
        for ear in self._ears.values():
            ear.task.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def troubles(self) -> set[str]:
        """Why something may not be heard, as far as is known."""
        found = {ear.trouble for ear in self._ears.values() if ear.trouble}
        if not self._ears or self._placeless:
            found.add(self.slots.trouble)
        return found

    def subscriber(self, channel: str) -> Subscriber | None:
        found = self._channels.get(channel)
        return None if found is None else found.subscriber

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self.unsubscribe(channel)
        wanted = _Channel(self._names(channel), subscriber)
        self._channels[channel] = wanted
        self._place(wanted)

    def unsubscribe(self, channel: str) -> None:
        found = self._channels.pop(channel, None)
        if found is None:
            return
        self._placeless.discard(found)
        if found.ear is not None:
            found.ear.remove(found)

    def assign(self) -> None:
        """Slots have moved, or are known at last."""
        # All replicas' channel is listened to even while nobody wants it: so it is known whether anything passes.
        self._ear(self._names(EVERYBODY).slot)
        for channel in self._channels.values():
            self._place(channel)
        known = self.slots.places
        for place in self._ears.keys() - known:
            self._ears.pop(place).task.cancel()

    def _place(self, channel: _Channel) -> None:
        ear = self._ear(channel.names.slot)
        if channel.ear is ear is not None:
            return
        if channel.ear is not None:
            channel.ear.hand_over(channel)
        channel.ear = ear
        if ear is None:
            self._placeless.add(channel)
        else:
            self._placeless.discard(channel)
            ear.add(channel)

    def _ear(self, slot: int) -> _Ear | None:
        place = self.slots.place(slot)
        if place is None:
            self.slots.doubt()
            return None
        ear = self._ears.get(place)
        if ear is None:
            ear = self._ears[place] = _Ear(self, place)
            ear.task = self._tasks.create_task(ear.run())
        return ear


class _Ear:
    """The connection to one server, and what is listened to there."""

    def __init__(self, listener: Listener, place: Place) -> None:
        self.place = place
        self.trouble = "connection"
        self.task: asyncio.Task[None]
        self._listener, self._metrics = listener, listener.metrics
        self._channels: dict[bytes, _Channel] = {}
        self._wire: Wire | None = None
        self._leaving: Counter[bytes] = Counter()  # unsubscriptions that we asked for
        self._refused_at = 0.0
        self._backoff = Backoff()
        self._on: dict[bytes, Callable[..., None]] = {
            b"smessage": self._message,
            b"ssubscribe": self._confirmed,
            b"sunsubscribe": self._ended,
        }

    def add(self, channel: _Channel) -> None:
        self._channels[channel.name] = channel
        channel.is_confirmed = False
        self._ask_for(channel)

    def remove(self, channel: _Channel) -> None:
        """Nobody wants it any more."""
        self.hand_over(channel)
        if self._wire is not None:
            self._leaving[channel.name] += 1
            self._wire.write(pack("SUNSUBSCRIBE", channel.name))

    def hand_over(self, channel: _Channel) -> None:
        """Another server has it now; this one has ended the subscription or will."""
        del self._channels[channel.name]
        channel.ear = None

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(COMMAND_SECONDS):
                    self._wire = await self._listener.dialer.dial(
                        self.place, self._heard
                    )
                if not self._wire.is_primary:
                    raise NotPrimary("another may be the primary now")
                self._leaving.clear()
                self._ask_for(*self._channels.values())
                self.trouble = ""
                await self._watch(self._wire)
            except (OSError, hiredis.HiredisError) as error:
                self.trouble = reason_of(error)
            finally:
                if self._wire is not None:
                    self._wire.close()
                    self._wire = None
                for channel in self._channels.values():
                    channel.is_confirmed = False
            self._metrics.bus_failures[self.trouble] += 1
            self._listener.slots.doubt()
            if time.monotonic() - began > 2 * _LOOK_SECONDS:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause())

    async def _watch(self, wire: Wire) -> None:
        """Until the link is gone or as good as gone."""
        silent, news = 0, -1
        while not wire.lost.done():
            if wire.news == news:
                silent += 1
            else:
                silent, news = 0, wire.news
            if silent > _MAX_SILENT_LOOKS:
                raise TimeoutError("it does not answer")
            wire.write(pack("PING"))
            self._ask_again()
            await asyncio.wait((wire.lost,), timeout=_LOOK_SECONDS)
        raise ConnectionResetError("the connection has ended")

    def _ask_for(self, *channels: _Channel) -> None:
        if self._wire is None or not channels:
            return
        now = time.monotonic()
        for channel in channels:
            channel.asked_at = now
        # One command each: those of one command must be in one slot.
        self._wire.write(*(pack("SSUBSCRIBE", one.name) for one in channels))

    def _ask_again(self) -> None:
        """For what is not confirmed in time, since it was refused."""
        late = time.monotonic() - COMMAND_SECONDS
        lacking = [
            channel
            for channel in self._channels.values()
            if not channel.is_confirmed and channel.asked_at < late
        ]
        self._ask_for(*lacking)
        if lacking:
            self.trouble = self.trouble or "timeout"
        elif self._refused_at < late:
            self.trouble = ""

    def _heard(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            kind, *rest = answer
            on = self._on.get(kind)
            if on is not None:
                on(*rest)
        elif isinstance(answer, hiredis.ReplyError):
            reason = reason_of(answer)
            self._metrics.bus_failures[reason] += 1
            if reason == "moved":
                self._listener.slots.moved(answer, self.place)
            else:
                self._refused_at = time.monotonic()
                self.trouble = reason

    def _confirmed(self, name: bytes, _: int) -> None:
        channel = self._channels.get(name)
        if channel is not None:
            channel.is_confirmed = True
            channel.subscriber.interrupted()

    def _ended(self, name: bytes, _: int) -> None:
        """As we wished, or since the slot has gone to another server."""
        if self._leaving[name]:
            self._leaving[name] -= 1
            if not self._leaving[name]:
                del self._leaving[name]
            return
        channel = self._channels.get(name)
        if channel is not None:
            channel.is_confirmed = False
            channel.asked_at = time.monotonic()
            self._listener.slots.doubt()

    def _message(self, name: bytes, message: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        self._metrics.bus_received += 1
        match decode(message):
            case Published() as published:
                channel.subscriber.entry(published)
            case bytes(body):
                channel.subscriber.word(body)
            case None:
                self._metrics.bus_foreign += 1

"""What this replica says on the bus, on its way to Redis: one order, in batches, again after a failure, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import hiredis

from collab.bus.backoff import Backoff
from collab.bus.base import MAX_BODY_BYTES
from collab.bus.keys import Names
from collab.bus.scripts import PUBLISH, publish_command, say_command
from collab.bus.slots import Slots
from collab.bus.wire import Dialer, NotPrimary, Place, Wire, pack, reason_of
from collab.connection import COMMAND_SECONDS
from collab.metrics import Metrics

# Of one room, of all rooms, and of one pipeline. A room beyond its own gives up all that waits, and compares documents.
ROOM_ENTRIES, ROOM_BYTES = 1_000, 2 * MAX_BODY_BYTES
ALL_ENTRIES, ALL_BYTES = 100_000, 64 << 20
PIPELINE_ENTRIES, PIPELINE_BYTES = 1_000, 1 << 20
WORDS, WORDS_BYTES = 1_000, 2 * MAX_BODY_BYTES  # of one server; more are dropped

# A pipeline leaves when so many messages wait, and with fewer ninety times a second, a few of them at once. So somebody who
# types alone waits for nothing, and under load Redis is asked once for so many edits. A store commits several at a time:
# what left with one pipeline beyond the number counts for the next, or a commit of four would wait for the one after it.
GATHER_MESSAGES = 5.2
PIPELINES_PER_SECOND, PIPELINES_AT_ONCE = 90, 4

# After as many failures of pipelines that could be sent, rooms go one by one, and the one at fault gives up.
_PATIENCE = 3


class _Queue:
    """What waits of one room."""

    __slots__ = ("bodies", "bytes", "channel", "failures", "is_aside", "lane", "names")

    def __init__(self, channel: str, names: Names) -> None:
        self.channel, self.names = channel, names
        self.bodies: deque[bytes] = deque()
        self.bytes = 0
        self.lane: _Lane | None = None
        self.failures = 0
        self.is_aside = False  # until a pause after a failure is over


class Publisher:
    """Entries by `publish` arrive in order, or their room is told that they were `dropped`; words by `say` may be lost.

    An async context manager: leaving it gives what waits a moment.
    """

    def __init__(
        self,
        dialer: Dialer,
        slots: Slots,
        *,
        names: Callable[[str], Names],
        metrics: Metrics,
        dropped: Callable[[str], None],
    ) -> None:
        self.dialer, self.slots, self.metrics = dialer, slots, metrics
        self._names = names
        self._dropped = dropped
        self._queues: dict[str, _Queue] = {}
        self._lanes: dict[Place, _Lane] = {}
        self._placeless: set[_Queue] = set()  # nobody is known to have their slots
        self._entries = self.queued_bytes = 0
        self._is_open = True
        self._is_empty = asyncio.Event()

    async def __aenter__(self) -> Publisher:
        self._loop = asyncio.get_running_loop()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self.metrics.gauges["bus_queued_bytes"] = lambda: self.queued_bytes
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._queues:
            self._is_empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), COMMAND_SECONDS)
        self._is_open = False
        self._queues.clear()
        for lane in self._lanes.values():
            lane.task.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def troubles(self) -> set[str]:
        """Why something does not get through, as far as is known."""
        found = {lane.trouble for lane in self._lanes.values() if lane.trouble}
        if self._placeless:
            found.add(self.slots.trouble)
        return found

    def publish(self, channel: str, body: bytes) -> None:
        """Put it behind what waits of this room."""
        queue = self._queues.get(channel)
        if queue is None:
            queue = _Queue(channel, self._names(channel))
            self._queues[channel] = queue
            self._put(queue)
        queue.bodies.append(body)
        queue.bytes += len(body)
        self._entries += 1
        self.queued_bytes += len(body)
        if (
            len(body) > MAX_BODY_BYTES
            or len(queue.bodies) > ROOM_ENTRIES
            or queue.bytes > ROOM_BYTES
            or self._entries > ALL_ENTRIES
            or self.queued_bytes > ALL_BYTES
        ):
            self.drop(queue)
        elif queue.lane is not None and not queue.is_aside:
            queue.lane.wake(queue)

    def say(self, channel: str, body: bytes) -> None:
        """Send it along with the next pipeline, if there is one soon."""
        of = self._names(channel)
        lane = self._lane(of.slot)
        if lane is None or len(body) > MAX_BODY_BYTES:
            self.metrics.bus_dropped += 1
        else:
            lane.say(say_command(of, body))

    def _lane(self, slot: int) -> _Lane | None:
        place = self.slots.place(slot) if self._is_open else None
        if place is None:
            self.slots.doubt()
            return None
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(self, place)
            lane.task = self._tasks.create_task(lane.run())
        return lane

    def assign(self) -> None:
        """Slots have moved: what waits goes to where they are."""
        known = self.slots.places
        for place in self._lanes.keys() - known:
            lane = self._lanes.pop(place)
            lane.task.cancel()
            lane.give_back()
        for queue in list(self._queues.values()):
            self.place(queue)

    def place(self, queue: _Queue) -> None:
        """Into the lane to its slot, unless it is under way: then it comes here again with the answer."""
        if queue.lane is not None and queue.lane.is_sending(queue):
            return
        if not queue.bodies:
            self._forget(queue)
            return
        self._put(queue)
        if queue.lane is not None and not queue.is_aside:
            queue.lane.wake(queue)

    def _put(self, queue: _Queue) -> None:
        lane = self._lane(queue.names.slot)
        if queue.lane is not None and queue.lane is not lane:
            queue.lane.forget(queue)
        queue.lane = lane
        if lane is None:
            self._placeless.add(queue)
        else:
            self._placeless.discard(queue)

    def sent(self, queue: _Queue, count: int) -> None:
        """The first so many of a queue have arrived."""
        queue.failures = 0
        self.metrics.bus_published += count
        for _ in range(count):
            body = queue.bodies.popleft()
            queue.bytes -= len(body)
            self._entries -= 1
            self.queued_bytes -= len(body)
        self.place(queue)

    def again(self, queue: _Queue, pause: float) -> None:
        """It could not be taken now: after a pause, and wherever its slot is by then."""
        queue.is_aside = True
        self._loop.call_later(pause, self._return, queue)

    def _return(self, queue: _Queue) -> None:
        queue.is_aside = False
        if self._queues.get(queue.channel) is queue:
            self.place(queue)

    def drop(self, queue: _Queue) -> None:
        """Give up what waits of a room. What is on its way may still arrive, but is not tried again."""
        self.metrics.bus_dropped += len(queue.bodies)
        self._entries -= len(queue.bodies)
        self.queued_bytes -= queue.bytes
        queue.bodies.clear()
        queue.bytes = 0
        if queue.lane is not None:
            queue.lane.forget(queue)
        self.place(queue)
        self._loop.call_soon(self._dropped, queue.channel)

    def _forget(self, queue: _Queue) -> None:
        del self._queues[queue.channel]
        self._placeless.discard(queue)
        if not self._queues:
            self._is_empty.set()


class _Lane:
    """The way to one server: one connection, and one pipeline at a time."""

    def __init__(self, publisher: Publisher, place: Place) -> None:
        self.place = place
        self.trouble = ""
        self.task: asyncio.Task[None]
        self._publisher, self._metrics = publisher, publisher.metrics
        self._wire: Wire | None = None
        self._run = ""  # which life of the server the wire leads to
        self._knows_script = False
        self._ready: dict[str, _Queue] = {}
        self._sending: dict[str, tuple[_Queue, int]] = {}
        self._words: deque[bytes] = deque()
        self._words_bytes = 0
        self._wanted = asyncio.Event()
        self._enough = asyncio.Event()
        self._allowance = float(PIPELINES_AT_ONCE)  # of pipelines with few messages
        self._allowed_at = time.monotonic()
        self._surplus = 0.0  # of messages that left beyond those to gather
        self._failures = 0  # of pipelines in a row that could be sent
        self._last: Names | None = None
        self._backoff = Backoff()

    def wake(self, queue: _Queue) -> None:
        """Something of this room waits."""
        if queue.channel not in self._sending:
            self._ready[queue.channel] = queue
        self._gathered()

    def say(self, command: bytes) -> None:
        if (
            self.trouble
            or len(self._words) >= WORDS
            or self._words_bytes + len(command) > WORDS_BYTES
        ):
            self._metrics.bus_dropped += 1
            return
        self._words.append(command)
        self._words_bytes += len(command)
        self._gathered()

    def _gathered(self) -> None:
        self._wanted.set()
        if not self._enough.is_set() and self._is_enough():
            self._enough.set()

    def _is_enough(self) -> bool:
        return self._waiting() + self._surplus >= GATHER_MESSAGES

    def _waiting(self) -> int:
        return len(self._words) + sum(len(each.bodies) for each in self._ready.values())

    def is_sending(self, queue: _Queue) -> bool:
        return queue.channel in self._sending

    def forget(self, queue: _Queue) -> None:
        """Nothing of it waits here any more."""
        self._ready.pop(queue.channel, None)
        if queue.channel in self._sending:
            self._sending[queue.channel] = queue, 0

    def give_back(self) -> None:
        """What was under way is not any more, and nobody knows whether it arrived."""
        sending, self._sending = self._sending, {}
        for queue, _ in sending.values():
            self._publisher.place(queue)

    async def run(self) -> None:
        """Send what waits until cancelled."""
        try:
            while True:
                if not self.trouble:
                    await self._wanted.wait()
                self._wanted.clear()
                if not (self._ready or self._words or self.trouble):
                    continue
                try:
                    await self._connect()
                    await self._gather()
                    await self._send()
                except (OSError, hiredis.HiredisError) as error:
                    await self._fail(error)
        finally:
            self._close()

    async def _connect(self) -> None:
        if self._wire is not None and not self._wire.lost.done():
            return
        async with asyncio.timeout(COMMAND_SECONDS):
            wire = await self._publisher.dialer.dial(self.place, lambda _: None)
            self._wire = wire
            if not wire.is_primary:
                raise NotPrimary("it takes no writes")
            said, _ = await self._ask(
                pack("INFO", "server"), pack("SCRIPT", "LOAD", PUBLISH.text)
            )
        if isinstance(said, hiredis.ReplyError):
            raise said
        self._run = _run_id(said)
        self._knows_script = True

    async def _gather(self) -> None:
        """Wait for company, but not for long."""
        self._allow()
        if self._allowance < 1 and not self._is_enough():
            self._enough.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    (1 - self._allowance) / PIPELINES_PER_SECOND
                ):
                    await self._enough.wait()
            self._allow()
        self._allowance = max(-1.0, self._allowance - 1)
        surplus = self._surplus + self._waiting() - GATHER_MESSAGES
        self._surplus = min(max(0.0, surplus), GATHER_MESSAGES)

    def _allow(self) -> None:
        now = time.monotonic()
        earned = (now - self._allowed_at) * PIPELINES_PER_SECOND
        self._allowance = min(PIPELINES_AT_ONCE, self._allowance + earned)
        self._allowed_at = now

    async def _ask(self, *commands: bytes) -> list[Any]:
        assert self._wire is not None, "it was connected"
        self._metrics.bus_round_trips += 1
        return await self._wire.ask(*commands)

    async def _send(self) -> None:
        entries, words = self._take(), self._take_words()
        if self.trouble and not entries:
            # Nothing waits, and whether it would get through is not known: ask.
            entries = self._probe()
        commands = [*entries, *words]
        if not commands:
            self._succeed()
            return
        has_lesson = not self._knows_script
        if has_lesson:
            commands.insert(0, pack("SCRIPT", "LOAD", PUBLISH.text))
        async with asyncio.timeout(COMMAND_SECONDS):
            answers = await self._ask(*commands)
        self._failures = 0
        self._knows_script = True
        answers = answers[has_lesson:]
        for answer in answers[len(entries) :]:
            if isinstance(answer, hiredis.ReplyError):
                self._metrics.bus_dropped += 1
                self._note(answer)
        await self._settle(answers[: len(entries)], has_lesson)

    def _take(self) -> list[bytes]:
        """The next of every room, as many as one pipeline may hold."""
        commands: list[bytes] = []
        count = size = 0
        # After some failures one entry at a time, to find out which one is at fault.
        most = 1 if self._failures >= _PATIENCE else PIPELINE_ENTRIES
        while self._ready and count < most and size < PIPELINE_BYTES:
            queue = self._ready.pop(next(iter(self._ready)))
            bodies: list[bytes] = []
            for body in islice(queue.bodies, most - count):
                if size and size + len(body) > PIPELINE_BYTES:
                    break
                bodies.append(body)
                size += len(body)
            if not bodies:  # it would be too much for this one
                self._ready = {queue.channel: queue, **self._ready}
                break
            count += len(bodies)
            self._sending[queue.channel] = queue, len(bodies)
            self._last = queue.names
            commands.append(self._command(queue.names, bodies))
        if self._ready:
            self._wanted.set()
        return commands

    def _command(self, names: Names, bodies: list[bytes]) -> bytes:
        return publish_command(names, bodies, run=self._run, epoch=secrets.token_hex(8))

    def _probe(self) -> list[bytes]:
        last = self._last
        if last is None or self._publisher.slots.place(last.slot) != self.place:
            return []
        return [self._command(last, [])]

    def _take_words(self) -> list[bytes]:
        words = list(self._words)
        self._words.clear()
        self._words_bytes = 0
        return words

    async def _settle(self, answers: list[Any], had_lesson: bool) -> None:
        """Each room by its own answer. When all were refused, it is the server's fault."""
        refusals = [one for one in answers if isinstance(one, hiredis.ReplyError)]
        reasons = {reason_of(one) for one in refusals}
        if reasons == {"script"} and not had_lesson:
            self._knows_script = False  # it is taught along with the next
            reasons.clear()
        self.trouble = ""
        if not reasons:
            self._backoff.reset()
        elif len(refusals) == len(answers) and reasons != {"moved"}:
            self.trouble = min(reasons)
        pause = self._backoff.pause() if reasons else 0.0
        sending, self._sending = self._sending, {}
        for (queue, count), answer in zip(sending.values(), answers, strict=False):
            if not isinstance(answer, hiredis.ReplyError):
                self._publisher.sent(queue, count)
            elif reasons:
                self._refuse(queue, answer, pause)
            else:
                self._publisher.place(queue)
        for answer in refusals:
            self._note(answer)
        if self.trouble:
            await asyncio.sleep(pause)

    def _refuse(self, queue: _Queue, error: hiredis.ReplyError, pause: float) -> None:
        if reason_of(error) == "other":
            queue.failures += 1
        if queue.failures >= _PATIENCE:
            self._publisher.drop(queue)
        else:
            self._publisher.again(queue, pause)

    def _note(self, error: hiredis.ReplyError) -> None:
        """What a refusal says about the server."""
        reason = reason_of(error)
        self._metrics.bus_failures[reason] += 1
        if reason == "moved":
            self._publisher.slots.moved(error, self.place)
        elif reason in ("read_only", "auth"):
            self._close()  # another may be the primary now, or know us again
            self._publisher.slots.doubt()

    def _succeed(self) -> None:
        self.trouble = ""
        self._backoff.reset()

    async def _fail(self, error: Exception) -> None:
        """Nobody knows what of the last pipeline has arrived: the same again, from the first."""
        was_sent = self._wire is not None and bool(self._sending)
        if was_sent:
            self._failures += 1
        self.trouble = reason_of(error)
        self._metrics.bus_failures[self.trouble] += 1
        self._metrics.bus_dropped += len(self._words)
        self._take_words()
        self._close()
        self._publisher.slots.doubt()
        if self._failures > _PATIENCE and len(self._sending) == 1:
            ((queue, _),) = self._sending.values()
            queue.failures += 1
            if queue.failures >= _PATIENCE:
                self._publisher.drop(queue)
        self.give_back()
        await asyncio.sleep(self._backoff.pause())

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def _run_id(said: bytes | str) -> str:
    """`INFO server` has it on a line of its own; it is another after every start."""
    text = said.decode() if isinstance(said, bytes) else said
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value
    return ""

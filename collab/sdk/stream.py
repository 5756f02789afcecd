"""A text that comes piece by piece, written in batches that end with a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from collab.sdk.errors import Invalid, RateLimited
from collab.sdk.words import MAX_TAKEN, Words


@dataclass(frozen=True, slots=True)
class Limits:
    """How a stream is written, and when it has no end. A batch is written when it has enough bytes or is old enough:
    small ones cost more on the wire than they say.
    """

    batch_bytes: int = 96
    batch_seconds: float = 0.25
    tail_seconds: float = 0.5  # after which what cannot be written yet is shown
    ahead_characters: int = 10_000  # the source is not read beyond that
    characters: int = 1 << 20
    seconds: float = 1800.0


class Sink(Protocol):
    """Where it is written."""

    async def write(self, text: str) -> None:
        """Some of it, in order."""

    def tail(self, text: str) -> None:
        """What has come and cannot be written yet, "" when there is nothing of that any more."""


class _Source:
    """What comes, read by a task of its own: so waiting for the next piece can be given up without losing it."""

    def __init__(self, pieces: AsyncIterable[str], limits: Limits) -> None:
        self.words = Words()
        self.failure: BaseException | None = None
        self.has_ended = False
        self.has_come = asyncio.Event()
        self.has_room = asyncio.Event()
        self._pieces, self._limits = pieces, limits
        self._count = 0

    async def read(self) -> None:
        try:
            async with aclosing(_generator(self._pieces)) as pieces:
                async for piece in pieces:
                    self._take(piece)
                    while len(self.words.held) > self._limits.ahead_characters:
                        self.has_room.clear()
                        await self.has_room.wait()
                    await asyncio.sleep(0)  # a source that never waits holds nobody up
        except asyncio.CancelledError as failure:
            if _is_cancelled():
                raise
            self.failure = failure  # of something that the source waited for
        except Exception as failure:
            self.failure = failure
        finally:
            self.has_ended = True
            self.has_come.set()

    def _take(self, piece: str) -> None:
        if not isinstance(piece, str):
            raise Invalid("a stream is of str")
        most = self._limits.characters
        self._count += len(piece)
        if self._count > most:
            raise RateLimited(f"a stream writes at most {most} characters")
        if piece:
            self.words.add(piece)
            self.has_come.set()


def _is_cancelled() -> bool:
    """Whether this very task is meant."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _generator(pieces: AsyncIterable[str]) -> AsyncGenerator[str, None]:
    """Whatever iterates, with an end that can be reached at any time."""
    iterator = aiter(pieces)
    try:
        async for piece in iterator:
            yield piece
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def pour(sink: Sink, pieces: AsyncIterable[str], limits: Limits) -> None:
    """Write all of it. Raises what the source raises, after what came before that is written; RateLimited when it does
    not end.
    """
    source = _Source(pieces, limits)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(source.read())
        try:
            async with asyncio.timeout(limits.seconds):
                await _write(sink, source, limits)
        except TimeoutError:
            failure = RateLimited(
                f"a stream lasts at most {limits.seconds:.0f} seconds"
            )
        except Exception as error:
            failure = error
        finally:
            reading.cancel()
    if failure is not None:
        raise failure


async def _write(sink: Sink, source: _Source, limits: Limits) -> None:
    now = asyncio.get_running_loop().time
    words = source.words
    due = now() + limits.batch_seconds
    tail, tail_at = "", due + limits.tail_seconds
    while not source.has_ended:
        held = words.held
        if not held:
            await source.has_come.wait()
            source.has_come.clear()
            due = now() + limits.batch_seconds
            tail_at = due + limits.tail_seconds
            continue
        if (
            len(held) < limits.batch_bytes
            and len(held.encode()) < limits.batch_bytes
            and now() < due
        ):
            await _until(source.has_come, due)
            continue
        taken = words.take()
        source.has_room.set()
        if taken:
            await sink.write(taken)
            due = now() + limits.batch_seconds
            tail_at = due + limits.tail_seconds
            if tail:
                tail = ""
                sink.tail("")
            continue
        if now() >= tail_at and held != tail:
            tail, tail_at = held, now() + limits.tail_seconds
            sink.tail(tail)
        await _until(source.has_come, None if held == tail else tail_at)
    while len(words.held) > MAX_TAKEN:
        await sink.write(words.take())
    rest = words.rest()
    if rest:
        await sink.write(rest)
    if tail:
        sink.tail("")
    if source.failure is not None:
        raise source.failure


async def _until(event: asyncio.Event, time: float | None) -> None:
    """Until something has come, or it is time, if there is one."""
    try:
        async with asyncio.timeout_at(time):
            await event.wait()
        event.clear()
    except TimeoutError:
        pass

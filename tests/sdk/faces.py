"""The blocking client behind the words of the asynchronous one, so that one test tries both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

from collab.sdk.sync import Face

_DONE: Any = object()


class Awaited:
    """A `Face` with `await`, `async with` and `async for` where the core has them; its calls block another thread."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._iterator: Iterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._face, name)
        kind = inspect.getattr_static(type(self._face._core), name, None)
        if not inspect.isfunction(kind):
            return awaited(value)
        if not inspect.iscoroutinefunction(kind):
            return lambda *given, **named: awaited(value(*_taken(given), **named))

        async def call(*given: Any, **named: Any) -> Any:
            loop = asyncio.get_running_loop()
            given = tuple(_pulled(one, loop) for one in _taken(given))
            return awaited(await asyncio.to_thread(value, *given, **named))

        return call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Awaited) and other._face == self._face

    def __hash__(self) -> int:
        return hash(self._face)

    async def __aenter__(self) -> Any:
        return awaited(await asyncio.to_thread(self._face.__enter__))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await asyncio.to_thread(self._face.__exit__, kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = iter(self._face)
        return self

    async def __anext__(self) -> Any:
        assert self._iterator is not None
        item = await asyncio.to_thread(next, self._iterator, _DONE)
        if item is _DONE:
            raise StopAsyncIteration
        return awaited(item)


def awaited(value: Any) -> Any:
    """The value, with `await` where the core has it."""
    if isinstance(value, Face):
        return Awaited(value)
    if isinstance(value, dict):
        return {key: awaited(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(awaited(item) for item in value)
    return value


def run(thing: Any, function: Callable[[Any], Any]) -> Any:
    """Call a function with the object of the core, where its raw document may be touched."""
    return thing._face.run(function) if isinstance(thing, Awaited) else function(thing)


def _taken(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one._face if isinstance(one, Awaited) else one for one in given)


def _pulled(one: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """An asynchronous iterator of the test as one that blocks."""
    if not hasattr(one, "__anext__"):
        return one

    def pull() -> Iterator[Any]:
        while True:
            coming = asyncio.run_coroutine_threadsafe(anext(one, _DONE), loop)
            item = coming.result()
            if item is _DONE:
                return
            yield item

    return pull()

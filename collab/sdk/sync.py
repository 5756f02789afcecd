"""The same client for programs that block: each call runs on an event loop with a thread of its own, and is waited for.

Nothing here knows what an agent, a document or a turn can do: whatever waits in the core is wrapped in a `Face`, whose
methods block, whose `async with` is a `with`, and whose `async for` is a `for`.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, update_wrapper
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast

from pycrdt import Doc as Raw

from collab.sdk.agent import Agent
from collab.sdk.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collab.sdk.blocking import BlockingAgent

T = TypeVar("T")
P = ParamSpec("P")

END_SECONDS = 15.0  # for all that still runs when the block is over
CANCEL_SECONDS = 5.0  # for what was interrupted, to put itself in order

_DONE: Any = object()


class Running(Generic[T]):
    """A function on the loop, seen from the thread that asked for it."""

    def __init__(self, function: Callable[[], T | Awaitable[T]]) -> None:
        self._function = function
        self._future: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None

    def begin(self, tasks: asyncio.TaskGroup | None) -> None:
        """On the loop. Without tasks it is over."""
        if tasks is None:
            self._future.set_exception(Unavailable("the block is over"))
        else:
            self._task = tasks.create_task(self._run())

    def cancel(self) -> None:
        """On the loop. Does nothing to what is done."""
        if self._task is not None:
            self._task.cancel()

    def result(self, seconds: float | None = None) -> T:
        """What it gives or raises."""
        return self._future.result(seconds)

    def settle(self, seconds: float) -> None:
        """Wait until it is done, whatever comes of it."""
        self._future.exception(seconds)

    def when_done(self, callback: Callable[[], object]) -> None:
        self._future.add_done_callback(lambda _: callback())

    async def _run(self) -> None:
        try:
            result = self._function()
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError:
            self._future.set_exception(Unavailable("it was interrupted"))
            raise
        except Exception as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class Loop:
    """An event loop on a thread of its own, from entering its block to leaving it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_over: asyncio.Event | None = None
        self._has_begun = threading.Event()
        # A program that ends without leaving the block is not held up.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="collab", daemon=True
        )

    def __enter__(self) -> Self:
        if self._has_begun.is_set():
            raise Conflict("an agent's block is entered once: connect anew")
        self._thread.start()
        self._has_begun.wait()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._is_over is None:
            return
        with suppress(Unavailable):  # it was left before
            self.soon(self._is_over.set)
        self._thread.join(END_SECONDS)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(self._hold())
            await self._is_over.wait()
            self._tasks = None
            holding.cancel()
        self._loop = None

    async def _hold(self) -> None:
        """All that runs, in a group of its own, so that its end cancels what is left."""
        async with asyncio.TaskGroup() as self._tasks:
            self._has_begun.set()
            await asyncio.Event().wait()

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it on the loop. Raises Unavailable when that is over."""
        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it was closed a moment ago
            raise Unavailable("the block has not begun, or is over") from None

    def start(self, function: Callable[[], T | Awaitable[T]]) -> Running[T]:
        """Run it on the loop. It is cancelled when the loop ends, at the latest."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call inside of one would wait for itself")
        running = Running(function)
        self.soon(lambda: running.begin(self._tasks))
        return running

    def call(self, function: Callable[[], T | Awaitable[T]]) -> T:
        """Run it on the loop and wait. What interrupts the wait, such as Ctrl-C, cancels it first."""
        running = self.start(function)
        try:
            return running.result()
        except Exception:
            raise
        except BaseException:
            self.interrupt(running)
            raise

    def interrupt(self, running: Running[Any]) -> None:
        """Cancel it, and wait a bounded time until it has put itself in order."""
        self.soon(running.cancel)
        running.settle(CANCEL_SECONDS)

    def serve(self, function: Callable[[], T | Awaitable[T]], pulls: Pulls) -> T:
        """`call`, while the waiting thread brings what the function asks for: iterators of the caller may block."""
        running = self.start(function)
        running.when_done(pulls.end)
        try:
            pulls.serve(self)
            return running.result()
        except Exception:
            raise
        except BaseException:
            self.interrupt(running)
            raise


class Pulls:
    """Iterators of the thread that waits, for the loop to read from."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[
            tuple[Iterator[Any], asyncio.Future[Any]] | None
        ] = queue.SimpleQueue()
        self.count = 0

    async def read(self, iterator: Iterator[T]) -> AsyncIterator[T]:
        """On the loop: the items of an iterator that only the waiting thread touches."""
        while True:
            coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked.put((iterator, coming))
            item = await coming
            if item is _DONE:
                return
            yield item

    def end(self) -> None:
        self._asked.put(None)

    def serve(self, loop: Loop) -> None:
        """On the waiting thread, until the function is done."""
        while (asked := self._asked.get()) is not None:
            iterator, coming = asked
            try:
                item = next(iterator, _DONE)
            except Exception as error:
                loop.soon(_fail, coming, error)
            else:
                loop.soon(_give, coming, item)


def _give(coming: asyncio.Future[Any], item: Any) -> None:
    if not coming.done():
        coming.set_result(item)


def _fail(coming: asyncio.Future[Any], error: Exception) -> None:
    if not coming.done():
        coming.set_exception(error)


class Visit:
    """An `async with` that is entered and left from another thread: one task does both."""

    def __init__(self, loop: Loop, manager: Any) -> None:
        self._loop, self._manager = loop, manager
        self._entered: Future[Any] = Future()
        self._leaves: asyncio.Future[BaseException | None] | None = None
        self._running: Running[bool] | None = None

    def enter(self) -> Any:
        running: Running[bool] = self._loop.start(self._stay)
        self._running = running
        running.when_done(lambda: _finish(self._entered))
        try:
            entered = self._entered.result()
        except Exception:
            raise
        except BaseException:
            self._loop.interrupt(running)
            raise
        return running.result() if entered is _DONE else entered

    async def _stay(self) -> bool:
        """Whether the error of the block has been dealt with."""
        error: BaseException | None = None
        async with self._manager as value:
            self._leaves = asyncio.get_running_loop().create_future()
            self._entered.set_result(value)
            error = await self._leaves
            if error is not None:
                raise error
        return error is not None

    def leave(self, error: BaseException | None) -> bool:
        """Raises what leaving raises; True when the error of the block has been dealt with."""
        running = self._running
        assert running is not None
        if error is None or isinstance(error, Exception):
            self._loop.soon(self._end, error)
        else:
            # Ctrl-C and the like are no errors of a task: inside, it is cancelled.
            self._loop.interrupt(running)
            return False
        try:
            return running.result()
        except Exception as raised:
            if raised is error:
                return False
            raise
        except BaseException:
            self._loop.interrupt(running)
            raise

    def _end(self, error: BaseException | None) -> None:
        if self._leaves is not None and not self._leaves.done():
            self._leaves.set_result(error)


def _finish(entered: Future[Any]) -> None:
    if not entered.done():
        entered.set_result(_DONE)


class Face:
    """What waits in the core, for a program that blocks: the same names, without `async` and `await`.

    An iterator that is handed to a method is read by the thread that calls it, so it may block. Functions that are
    handed over are called on the loop's thread, and must not.
    """

    __slots__ = ("__weakref__", "_core", "_loop", "_visit")

    def __init__(self, loop: Loop, core: Any) -> None:
        self._loop, self._core = loop, core
        self._visit: Visit | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        core, loop = self._core, self._loop
        kind = inspect.getattr_static(type(core), name, None)
        if not inspect.isfunction(kind):
            value = loop.call(lambda: getattr(core, name))
            return (
                value
                if callable(value) and not waits(type(value))
                else self._show(value)
            )

        def blocking(*arguments: Any, **named: Any) -> Any:
            return self._call(kind, arguments, named)

        blocking.__name__, blocking.__doc__ = name, kind.__doc__
        return blocking

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._core) if not name.startswith("_")]

    def __repr__(self) -> str:
        return f"<blocking {type(self._core).__name__}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Face) and other._core is self._core

    def __hash__(self) -> int:
        return hash(id(self._core))

    def run(self, function: Callable[[Any], T | Awaitable[T]]) -> T:
        """Call a function with the object of the core, on the loop's thread: the only place for its `raw` document."""
        return self._loop.call(lambda: function(self._core))

    def _call(
        self, method: FunctionType, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        names, pulls, core = _parameters(method), Pulls(), self._core
        streams = [*names.values(), *(False for _ in arguments)]
        arguments = tuple(
            _given(argument, pulls, is_stream=is_stream)
            for argument, is_stream in zip(arguments, streams, strict=False)
        )
        named = {
            name: _given(value, pulls, is_stream=names.get(name, False))
            for name, value in named.items()
        }

        def call() -> Any:
            return method(core, *arguments, **named)

        if pulls.count:
            return self._show(self._loop.serve(call, pulls))
        return self._show(self._loop.call(call))

    def _show(self, value: Any) -> Any:
        """The value, behind a face where it waits. A raw document stays on the thread where it is changed."""
        if isinstance(value, Raw):
            raise RuntimeError("a raw document is for the loop's thread alone: see run")
        if waits(type(value)):
            return Face(self._loop, value)
        if isinstance(value, dict):
            return {key: self._show(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._show(item) for item in value)
        return value

    def __enter__(self) -> Any:
        visit = Visit(self._loop, self._core)
        entered = visit.enter()
        self._visit = visit
        return self if entered is self._core else self._show(entered)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        visit, self._visit = self._visit, None
        return visit is not None and visit.leave(error)

    def __iter__(self) -> Iterator[Any]:
        core, loop = self._core, self._loop
        iterator = loop.call(lambda: aiter(core))
        try:
            while True:
                item = loop.call(lambda: anext(iterator, _DONE))
                if item is _DONE:
                    return
                yield self._show(item)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with suppress(Unavailable):  # with the block it ended too
                    loop.call(close)


class SyncAgent(Face):
    """An agent and the loop that it lives on."""

    __slots__ = ()

    def __init__(self, agent: Agent) -> None:
        super().__init__(Loop(), agent)

    def __enter__(self) -> Self:
        self._loop.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self._loop.__exit__()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            return super().__exit__(kind, error, traceback)
        finally:
            self._loop.__exit__()


def waits(kind: type) -> bool:
    """Whether objects of this class live on the loop, so that a blocking program needs a face for them: all of the
    client's own but plain values, and what is there for `async with` and `async for`.
    """
    if kind.__module__.startswith("collab.sdk."):
        return not (
            issubclass(kind, tuple | Enum | BaseException | Face)
            or (is_dataclass(kind) and vars(kind)["__dataclass_params__"].frozen)
        )
    return hasattr(kind, "__aenter__") or hasattr(kind, "__anext__")


@cache
def _parameters(method: FunctionType) -> dict[str, bool]:
    """The names of a method's parameters but `self`; whether each takes what comes piece by piece."""
    _, *parameters = inspect.signature(method).parameters.values()
    return {
        each.name: str(each.annotation).startswith("AsyncItera") for each in parameters
    }


def _given(argument: Any, pulls: Pulls, *, is_stream: bool) -> Any:
    """What the core gets for an argument of a blocking program."""
    if isinstance(argument, Face):
        return argument._core
    if not is_stream or hasattr(argument, "__aiter__"):
        return argument
    pulls.count += 1
    return pulls.read(iter((argument,) if isinstance(argument, str) else argument))


def _blocking(connect: Callable[P, Agent]) -> Callable[P, BlockingAgent]:
    """`connect` with the same options, for programs that block."""

    def connect_sync(*given: P.args, **named: P.kwargs) -> BlockingAgent:
        """`connect` for programs that block: `with collab.connect_sync(…) as agent`; see `Agent`."""
        agent = SyncAgent(connect(*given, **named))
        return cast("BlockingAgent", agent)  # what its faces look like from outside

    return update_wrapper(connect_sync, connect, assigned=(), updated=())


connect_sync = _blocking(Agent)

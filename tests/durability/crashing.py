"""The real server, except that it kills itself at a marked step of the way of an update, or acknowledges too early.

    python crashing.py STEP NTH serve --port 0 …

Production code has no such hooks: they are wrapped around it here.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any

from collab.cli import main
from collab.compaction import Compactor
from collab.document.document import Document
from collab.journal import Journal
from collab.replica import Replica
from collab.server import app
from collab.server.y_websocket import RoomSocket
from collab.store import writing
from collab.store.sqlite import SqliteStore
from collab.store.writer import Writer

DELAY_SECONDS = 0.3  # between the acknowledgement and the commit of the broken build


def die_at(nth: int) -> Callable[[], None]:
    """A function that ends the process at its n-th call; calls come from two threads."""
    lock = threading.Lock()
    calls = 0

    def reach() -> None:
        nonlocal calls
        with lock:
            calls += 1
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def before(owner: type, name: str) -> Callable[[Callable[[], None]], None]:
    """Wrap a method so that a step comes before it."""

    def wrap(reach: Callable[[], None]) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            reach()
            return method(*arguments, **named)

        setattr(owner, name, wrapped)

    return wrap


def after(owner: type, name: str) -> Callable[[Callable[[], None]], None]:
    """Wrap a method so that a step comes after it."""

    def wrap(reach: Callable[[], None]) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            reach()
            return result

        setattr(owner, name, wrapped)

    return wrap


class Driver(sqlite3.Connection):
    """Tells of the statements it executes."""

    reach: Callable[[], None] = staticmethod(lambda: None)
    beginning = ""
    is_after = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        is_it = bool(self.beginning) and sql.startswith(self.beginning)
        if is_it and not self.is_after:
            self.reach()
        cursor = super().execute(sql, *values)
        if is_it and self.is_after:
            self.reach()
        return cursor


def at_statement(
    beginning: str, *, is_after: bool = False
) -> Callable[[Callable[[], None]], None]:
    """Let a step come before or after each statement that begins so."""

    def wrap(reach: Callable[[], None]) -> None:
        Driver.reach, Driver.beginning = staticmethod(reach), beginning
        Driver.is_after = is_after

    return wrap


def at_checkpoint(reach: Callable[[], None]) -> None:
    """A step between the commit of a checkpoint and the answer to the compactor."""
    answer = Writer._answer

    def wrapped(writer: Writer, work: Any, refused: Any, answers: Any) -> None:
        if any(result is True for _, result in answers):
            reach()
        answer(writer, work, refused, answers)

    Writer._answer = wrapped  # type: ignore[method-assign]


# Step → how it is reached, and at which occurrence at most it is to crash
STEPS: dict[str, tuple[Callable[[Callable[[], None]], None], int]] = {
    "an update has come": (before(RoomSocket, "_update"), 60),
    "it is applied": (after(Document, "apply"), 60),
    "it is broadcast": (before(Journal, "append"), 40),
    "it is queued": (after(SqliteStore, "append"), 40),
    "the commit begins": (before(Writer, "_write"), 20),
    "its rows are inserted": (at_statement("INSERT OR IGNORE INTO journal"), 20),
    "it is committed": (after(Writer, "_write"), 20),
    "the loop knows": (before(Journal, "_take_logged"), 20),
    "it is acknowledged": (after(Replica, "_logged"), 20),
    "the sweep begins": (at_statement("INSERT INTO sweep"), 5),
    "rows are moved": (at_statement("INSERT INTO sweep", is_after=True), 5),
    "a room is loaded": (before(Document, "loading"), 1),
    "a checkpoint is written": (at_statement("INSERT INTO checkpoint"), 1),
    "the older checkpoint goes": (at_statement("DELETE FROM checkpoint"), 1),
    "a checkpoint is committed": (at_checkpoint, 1),
}


class Hasty(SqliteStore):
    """A store that says "logged" first and writes later: what the harness must find out."""

    def append(self, entries: Any, done: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(done, entries, None)
        loop.call_later(DELAY_SECONDS, self.write, entries)

    def write(self, entries: Any) -> None:
        super().append(entries, lambda entries, error: None)


if __name__ == "__main__":
    step, nth = sys.argv[1], int(sys.argv[2])
    kind = Hasty if step == "acknowledges first" else SqliteStore
    app.make_store = lambda settings: kind(
        settings.data, window_seconds=0.005, sweep_seconds=0.02, factory=Driver
    )
    # Writers as fast as these would make a landmark of every checkpoint, and none would go.
    writing.is_landmark = lambda *arguments: False
    assert Compactor.__init__.__kwdefaults__ is not None
    Compactor.__init__.__kwdefaults__["rest"] = 1.0  # the sooner there are three
    if step in STEPS:
        STEPS[step][0](die_at(nth))
    sys.argv = ["collab", *sys.argv[3:]]
    main()

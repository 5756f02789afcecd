"""What a long command says while it works: on standard error, for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

_SECONDS = 0.2  # between two lines on a terminal; five times as long elsewhere

Shown = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Say on standard error how far it is; by default when that is a terminal.",
    ),
]


class Progress:
    """Says how much of something is done, now and then."""

    def __init__(self, is_shown: bool | None) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = self._is_terminal if is_shown is None else is_shown
        self._next = 0.0
        self._is_open = False

    def show(self, done: int, what: str, *, total: int = 0) -> None:
        """The last one of a row of calls may go unsaid."""
        now = time.monotonic()
        if not self._is_shown or now < self._next:
            return
        self._next = now + (_SECONDS if self._is_terminal else 5 * _SECONDS)
        line = f"{done} of {total} {what}" if total else f"{done} {what}"
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            self._is_open = True
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def of(self, what: str) -> Callable[[int, int], None]:
        """A function to be told how much is done, and of how much."""
        return lambda done, total: self.show(done, what, total=total)

    def end(self) -> None:
        """Leave an empty line for what comes next."""
        if self._is_open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_open = False

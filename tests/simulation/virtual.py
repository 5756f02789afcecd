"""An event loop whose clock is a number: nothing waits, and the same seed gives the same run."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.SelectSelector):
    """Waits for nobody: the time that the loop would have slept is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits for something that never comes")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs timers in their order, at once. Sockets, threads and processes do not exist in it."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to its end; whatever still runs then is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)

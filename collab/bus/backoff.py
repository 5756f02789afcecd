"""When to try again: soon, then ever later, and never all at once."""

from __future__ import annotations

import random

_FIRST_SECONDS = 0.05
_LAST_SECONDS = 1.0


class Backoff:
    """Pauses that double, with jitter, until something has worked."""

    def __init__(self) -> None:
        self._pause = _FIRST_SECONDS

    def pause(self) -> float:
        """How long to wait now."""
        pause = self._pause
        self._pause = min(2 * pause, _LAST_SECONDS)
        return pause * (0.5 + random.random() / 2)

    def reset(self) -> None:
        self._pause = _FIRST_SECONDS

"""How much of what replicas say is heard: whoever can write to Redis may say any number."""

from __future__ import annotations


class Allowance:
    """So many at once, and so many a second."""

    __slots__ = ("_at", "_at_once", "_left", "_per_second")

    def __init__(self, at_once: float, per_second: float, now: float) -> None:
        self._at_once, self._per_second = at_once, per_second
        self._left, self._at = at_once, now

    def take(self, now: float) -> bool:
        """Whether there is one left; then it is taken."""
        earned = (now - self._at) * self._per_second
        self._left, self._at = min(self._at_once, self._left + earned), now
        if self._left < 1:
            return False
        self._left -= 1
        return True

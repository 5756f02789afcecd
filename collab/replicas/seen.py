"""Which positions of a shared log a replica has taken in."""

from __future__ import annotations

from heapq import heappop, heappush

MAX_ISLANDS = 10_000


class Seen:
    """Ranges of positions, of which `end` is where the first one ends: everything up to it is here."""

    __slots__ = ("_islands", "end")

    def __init__(self, end: int) -> None:
        self.end = end
        self._islands: list[tuple[int, int]] = []  # (before the first, last), a heap

    def add(self, first: int, last: int) -> None:
        """Note positions. Beyond a bound a far range is forgotten: then it is read once more some day."""
        if first > self.end + 1:
            if len(self._islands) < MAX_ISLANDS:
                heappush(self._islands, (first - 1, last))
            return
        if last > self.end:
            self.end = last
        while self._islands and self._islands[0][0] <= self.end:
            island = heappop(self._islands)[1]
            if island > self.end:
                self.end = island

    def reset(self, end: int) -> None:
        """The log has begun anew."""
        self.end = end
        self._islands.clear()

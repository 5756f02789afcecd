"""How much of a document a turn has deleted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from collab.document.deletions import Ranges
from collab.protocol.structs import Range


class Erasure:
    """Begins with what had been deleted before; counts what was there then and goes. Characters count as in Yjs: by
    UTF-16 units, and one for each format or embedded thing.
    """

    __slots__ = ("_deleted", "_known", "gone", "live")

    def __init__(self, known: Mapping[int, int], deleted: Ranges) -> None:
        self._known, self._deleted = dict(known), deleted
        self.live = sum(known.values()) - sum(
            end - clock for ranges in deleted.values() for clock, end in ranges
        )
        self.gone = 0

    def add(self, ranges: Iterable[Range]) -> None:
        """These are to be deleted; what was deleted before, or came later than the beginning, does not count."""
        for client, clock, end in ranges:
            end = min(end, self._known.get(client, 0))
            if clock < end:
                self._add(self._deleted.setdefault(client, []), clock, end)

    def _add(self, ranges: list[tuple[int, int]], clock: int, end: int) -> None:
        """Into ranges that are in order and apart, and stay so."""
        first = bisect_right(ranges, clock, key=lambda each: each[0])
        if first and ranges[first - 1][1] >= clock:
            first -= 1
        last, new = first, end - clock
        start, stop = clock, end
        while last < len(ranges) and ranges[last][0] <= end:
            there = ranges[last]
            new -= max(0, min(end, there[1]) - max(clock, there[0]))
            start, stop = min(start, there[0]), max(stop, there[1])
            last += 1
        ranges[first:last] = [(start, stop)]
        self.gone += new

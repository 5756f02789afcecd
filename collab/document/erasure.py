"""How much of a document a turn has deleted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from collab.document.deletions import Ranges, counted, deletions, joined
from collab.protocol.structs import Range

# Deleted ranges that are remembered; beyond, what is deleted twice may count twice.
MAX_RANGES = 20_000
FEW = 16  # ranges that are put in one by one; more are sorted in


class Erasure:
    """Begins with what had been deleted before, as an update says it; counts what was there then and goes. Characters
    count as in Yjs: by UTF-16 units, and one for each format or embedded thing. `work` is how many ranges it took to
    begin.
    """

    __slots__ = ("_deleted", "_known", "_ranges", "gone", "live", "work")

    def __init__(self, known: Mapping[int, int], update: bytes) -> None:
        self.work, units = counted(update)
        self._known, self.live = dict(known), sum(known.values()) - units
        # More of them are not remembered, nor read.
        is_few = self.work <= MAX_RANGES
        self._deleted: Ranges = deletions(update) if is_few else {}
        self._ranges = self.work if is_few else 0
        self.gone = 0

    def add(self, ranges: Iterable[Range]) -> None:
        """These are to be deleted; what was deleted before, or came later than the beginning, does not count."""
        by_client: dict[int, list[tuple[int, int]]] = {}
        for client, clock, end in ranges:
            end = min(end, self._known.get(client, 0))
            if clock < end:
                by_client.setdefault(client, []).append((clock, end))
        for client, new in by_client.items():
            there = self._deleted.get(client, [])
            before, count = _size(there) if len(new) > FEW else 0, len(there)
            if len(new) > FEW:
                there = joined(sorted(there + new))
                self.gone += _size(there) - before
            else:
                self.gone += sum(_put(there, clock, end) for clock, end in new)
            self._deleted[client] = there
            self._ranges += len(there) - count
        self._bound()

    def _bound(self) -> None:
        if self._ranges > MAX_RANGES:
            self._deleted, self._ranges = {}, 0


def _size(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(end - clock for clock, end in ranges)


def _put(ranges: list[tuple[int, int]], clock: int, end: int) -> int:
    """Put one into ranges that are in order and apart, and stay so; how much of it is new."""
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
    return new

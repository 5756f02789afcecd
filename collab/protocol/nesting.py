"""How deep shared types lie inside each other: bounded, because native code and renderers recurse.

Only what lies inside some shared type is remembered, so a document of flat texts, arrays and maps costs nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from collab.errors import TooLarge

MAX_TYPE_NESTING = 128


# One struct: its client, clock and end; the id that says where it hangs (client -1: at a root, or it is only a gap);
# whether that id is its parent (else a neighbour).
Link = tuple[int, int, int, int, int, bool]


class Line:
    """One client's depths: `depths[i]` holds from `starts[i]` up to the next start."""

    __slots__ = ("depths", "starts")

    def __init__(self) -> None:
        self.starts = array("I", (0,))
        self.depths = bytearray(1)


class Depths(dict[int, Line]):
    """Client → its line. Empty while no shared type lies inside another."""

    __slots__ = ()

    def at(self, client: int, clock: int) -> int:
        """How many shared types this id lies in; 0 for an id never recorded."""
        line = self.get(client)
        return 0 if line is None else line.depths[bisect_right(line.starts, clock) - 1]

    def record(self, client: int, clock: int, depth: int) -> None:
        """All ids of the client from this clock on lie so deep, until the next record; calls come in clock order.

        A call for an earlier clock takes back what was recorded from there on: that update was not applied.
        """
        line = self.get(client)
        if line is None:
            if depth == 0:
                return
            line = self[client] = Line()
        starts, depths = line.starts, line.depths
        while len(starts) > 1 and starts[-1] >= clock:
            starts.pop()
            depths.pop()
        if clock == 0:
            depths[0] = depth
        elif depths[-1] != depth:
            starts.append(clock)
            depths.append(depth)

    def grow(self, links: Iterable[Link], known: Mapping[int, int]) -> None:
        """Record every struct the document does not know yet; `TooLarge` when one lies too deep.

        `links` is one update in its own order, and all of it can be integrated now. Clients may refer to each
        other: a struct that hangs at one not yet recorded waits until that client's part has come so far.
        """
        parts: dict[int, list[Link]] = {}
        for link in links:
            parts.setdefault(link[0], []).append(link)
        done = {client: known.get(client, 0) for client in parts}
        cursors = dict.fromkeys(parts, 0)
        for first in parts:
            going = [first]
            while going:
                client = going[-1]
                mine = parts[client]
                reached = done[client]
                for index in range(cursors[client], len(mine)):
                    _, clock, end, to, to_clock, inside = mine[index]
                    if end <= reached:
                        continue
                    if (
                        to != client
                        and to in done
                        and to_clock >= done[to]
                        and cursors[to] < len(parts[to])
                    ):
                        cursors[client] = index
                        going.append(to)
                        break
                    depth = self.at(to, to_clock) + inside
                    if depth > MAX_TYPE_NESTING:
                        raise TooLarge("type nesting")
                    self.record(client, max(clock, reached), depth)
                    reached = done[client] = end
                else:
                    cursors[client] = len(mine)
                    going.pop()

    def truncate(self, client: int, clock: int) -> None:
        """Forget all from this clock on."""
        line = self.get(client)
        if line is not None:
            while len(line.starts) > 1 and line.starts[-1] >= clock:
                line.starts.pop()
                line.depths.pop()
            if len(line.starts) == 1 and (clock == 0 or line.depths[0] == 0):
                del self[client]

"""Characters inside a shared list, which no client makes: native code never comes back from reading them.

A list holds values and shared types. What a struct hangs in is only known once the whole document is there, so this is
asked of a document before its lists are read, not of each update.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from collab.protocol.structs import Notes, scan

_UNBOUNDED = 1 << 40

# A struct that may be a shared list: of kind 7, with neighbours or a parent, and of type 0.
_may_hold_list = re.compile(
    rb"[\x47\x67\x87\xa7\xc7\xe7](?:[\x80-\xff]*[\x00-\x7f]){2}(?:(?:[\x80-\xff]*[\x00-\x7f]){2})?\x00"
    rb"|[\x07\x27][\x00\x01]",
    re.DOTALL,
).search


def has_characters_in_list(snapshot: bytes) -> bool:
    """Whether a list inside the document holds characters beyond ASCII. Roots need not be looked at: their content
    says what they are.
    """
    if _may_hold_list(snapshot) is None:
        return False
    notes = Notes()
    scan(snapshot, notes, max_structs=_UNBOUNDED)
    if not notes.lists or not notes.foreign:
        return False
    parents = _Parents(notes)
    lists = set(notes.lists)
    return any(parents.of(*each) in lists for each in notes.foreign)


class _Parents:
    """What each struct hangs in: found by going from neighbour to neighbour, remembered on the way."""

    def __init__(self, notes: Notes) -> None:
        self._links: dict[int, list[tuple[int, int, int, int, bool]]] = {}
        for client, clock, end, to, to_clock, inside in notes.links:
            mine = self._links.setdefault(client, [])
            mine.append((clock, end, to, to_clock, inside))
        for mine in self._links.values():
            mine.sort()
        self._starts = {
            client: [link[0] for link in mine] for client, mine in self._links.items()
        }
        self._found: dict[tuple[int, int], tuple[int, int] | None] = {}

    def of(self, client: int, clock: int) -> tuple[int, int] | None:
        """The id of the shared type; None for a root, or when it is gone."""
        way: dict[tuple[int, int], None] = {}
        found = None
        while client in self._starts:
            index = bisect_right(self._starts[client], clock) - 1
            if index < 0 or (client, index) in way:
                break
            if (client, index) in self._found:
                found = self._found[client, index]
                break
            way[client, index] = None
            _, end, to, to_clock, inside = self._links[client][index]
            if clock >= end or to < 0:
                break
            if inside:
                found = (to, to_clock)
                break
            client, clock = to, to_clock
        self._found |= dict.fromkeys(way, found)
        return found

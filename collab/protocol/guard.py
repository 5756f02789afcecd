"""Whether an update may reach native code now: its structure is proven, and the document can integrate all of it.

Native code recurses, reserves what it is promised and panics on nonsense, so nothing unproven may reach it.
One linear pass refuses what breaks a rule and tells whether a document that knows `known` can integrate all of
the update now. No recursion, no native call: a keystroke is read by one regular expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from collab.errors import Refused
from collab.protocol.nesting import Depths
from collab.protocol.pairs import Cut, Pairs, second_halves
from collab.protocol.rewriting import cut_pairs
from collab.protocol.statevector import Vector
from collab.protocol.structs import (
    IDS,
    MAX_CLOCK,
    TAILS,
    Need,
    Notes,
    Scan,
    pattern,
    scan,
)


class Known(Vector):
    """What a document holds: its vector, how deep its shared types are nested, where surrogate pairs are."""

    __slots__ = ("_noted", "depths", "pairs")

    def __init__(self, vector: Mapping[int, int] | None = None) -> None:
        super().__init__(vector or {})
        self.depths = Depths()
        self.pairs = Pairs()
        self._noted: set[int] = set()

    def note(self, update: bytes, notes: Notes) -> None:
        """Record an update that is about to be applied; `TooLarge` when a shared type lies too deep."""
        self.settle()
        self._noted = {link[0] for link in notes.links}
        if self.depths or any(link[5] for link in notes.links):
            self.depths.grow(notes.links, self)
        for client, clock, start, stop in notes.texts:
            reached = self.get(client, 0)
            halves = second_halves(update[start:stop].decode(), clock)
            self.pairs.record(client, [half for half in halves if half >= reached])

    def has_pair_at(self, cuts: Iterable[Cut]) -> bool:
        """Does any of these cuts go through a surrogate pair?"""
        self.settle()
        pairs = self.pairs
        return any(pairs.has_half(client, clock) for client, clock in cuts)

    def settle(self) -> None:
        """Forget what was noted of an update that was not applied after all."""
        if self._noted:
            for client in self._noted:
                self.depths.truncate(client, self.get(client, 0))
                self.pairs.truncate(client, self.get(client, 0))
            self._noted.clear()

    def reset(self, vector: Mapping[int, int]) -> None:
        """Another vector for the same document: what was noted beyond it is forgotten."""
        self.clear()
        self.update(vector)
        self._noted = {*self.depths, *self.pairs}
        self.settle()


# What typing makes: 1 to 4 ASCII characters behind (and before) something, at most one deleted range.
_keystroke = pattern(rb"""
    \x01 \x01 ID CLOCK                  # 1, 2: one struct; who, from which clock
    (?: \x84 | (\xc4) ) WHOSE CLOCK     # 3: is there a right neighbour?  4, 5: the left one
    (?(3) WHOSE CLOCK )                 # 6, 7: the right one
    ( \x01 [\x00-\x7f] | \x02 [\x00-\x7f]{2} | \x03 [\x00-\x7f]{3} | \x04 [\x00-\x7f]{4} )  # 8: length, characters
    (?: \x00 | \x01 WHOSE \x01 CLOCK CLOCK )  # 9, 10, 11: whose text is deleted, from where, how much
    """).fullmatch
# One deleted range and nothing else.
_erasure = pattern(rb"\x00 \x01 ID \x01 CLOCK CLOCK").fullmatch


def check(
    update: bytes, known: Known, found: Scan | None = None
) -> list[tuple[int, int, int]] | None:
    """The (client, clock, end) runs of an update that can be integrated completely now; [] when it only deletes.

    None: it must wait, be split or be mended, which is the gate's work. When runs are returned the caller applies
    the update before anything else: how deep its structs lie and where its pairs are is recorded in `known` already.
    `found` is what `scan` has found in it, if that was asked before.
    """
    tails = TAILS
    match = _keystroke(update)
    if match is not None:
        (
            who,
            start,
            _,
            left,
            left_at,
            right,
            right_at,
            text,
            gone,
            gone_at,
            gone_length,
        ) = match.groups()
        client = IDS[who]
        clock = start[0] + tails[start[1:]]
        left_clock = left_at[0] + tails[left_at[1:]]
        end = clock + text[0]
        if end >= MAX_CLOCK:
            raise Refused("clock")
        reached = known.get(client, 0)
        if clock > reached:
            return None
        if left is None:
            if left_clock >= clock:
                raise Refused("self reference")
        elif left_clock >= known.get(IDS[left], 0):
            return None
        if right_at is not None:
            if right is None:
                if right_at[0] + tails[right_at[1:]] >= clock:
                    raise Refused("self reference")
            elif right_at[0] + tails[right_at[1:]] >= known.get(IDS[right], 0):
                return None
        if gone_at is not None:
            stop = (
                gone_at[0]
                + tails[gone_at[1:]]
                + gone_length[0]
                + tails[gone_length[1:]]
            )
            if gone_length == b"\x00" or stop >= MAX_CLOCK:
                raise Refused("deleted range")
            if stop > (max(reached, end) if gone is None else known.get(IDS[gone], 0)):
                return None
        if known.pairs:
            cuts = [(client if left is None else IDS[left], left_clock + 1)]
            if right_at is not None:
                at = right_at[0] + tails[right_at[1:]]
                cuts.append((client if right is None else IDS[right], at))
            if gone_at is not None:
                whose = client if gone is None else IDS[gone]
                cuts += ((whose, gone_at[0] + tails[gone_at[1:]]), (whose, stop))
            if known.has_pair_at(cuts):
                return None
        if known.depths and end > reached:
            whose = client if left is None else IDS[left]
            depth = known.depths.at(whose, left_clock)
            known.depths.record(client, reached, depth)
        return [(client, clock, end)]
    match = _erasure(update)
    if match is not None:
        gone, gone_at, gone_length = match.groups()
        stop = gone_at[0] + tails[gone_at[1:]] + gone_length[0] + tails[gone_length[1:]]
        if gone_length == b"\x00" or stop >= MAX_CLOCK:
            raise Refused("deleted range")
        if stop > known.get(IDS[gone], 0):
            return None
        if known.pairs:
            client, at = IDS[gone], gone_at[0] + tails[gone_at[1:]]
            if known.has_pair_at([(client, at), (client, stop)]):
                return None
        return []
    notes = Notes() if known.depths or known.pairs else None
    if found is None or notes is not None:
        found = scan(update, notes)
    if not is_ready(found, known):
        return None
    if notes is None and not found.is_plain:
        notes = Notes()
        scan(update, notes)
    if notes is not None:
        known.settle()
        if any(cut_pairs(update, found, notes, known)):
            return None
        known.note(update, notes)
    return [run[:3] for run in found.runs]


def is_ready(found: Scan, known: Mapping[int, int]) -> bool:
    """Can the document integrate every struct and every deletion of this update now?"""
    runs, needs, deletes, _ = found
    get = known.get
    for run in runs:
        if run[1] > get(run[0], 0):
            return False
    inside: Vector | None = None
    for need in needs:
        client, clock = need[4], need[5]
        if clock > get(client, 0):
            if len(runs) == 1:
                return False
            if inside is None:
                inside = {run[0]: run[2] for run in runs}
            if clock > inside.get(client, 0):
                return False
    crossed = inside is not None
    for client, _, end in deletes:
        if end > get(client, 0):
            if inside is None:
                inside = {run[0]: run[2] for run in runs}
            if end > inside.get(client, 0):
                return False
    # Clients that refer to each other inside the update must not do so in a circle.
    return not crossed or all(
        at == run[2] for run, (at, _) in zip(runs, reach(found, known), strict=True)
    )


def reach(found: Scan, known: Mapping[int, int]) -> list[tuple[int, Need | None]]:
    """For each run how far it can be integrated (-1: not at all), and the reference that stops it there.

    Every run has a cursor over its references; a run that stops is woken when the client it waits for has come far
    enough. What refers to itself in a circle is never reached.
    """
    runs, needs, _, _ = found
    todo: list[list[Need]] = [[] for _ in runs]
    for need in needs:
        todo[need[0]].append(need)
    now = dict(known)
    cursors = [0] * len(runs)
    reached: list[tuple[int, Need | None]] = [(-1, None)] * len(runs)
    waiting: dict[int, list[tuple[int, int]]] = {}
    for index, run in enumerate(runs):
        if run[1] > now.get(run[0], 0):
            # There is a hole before it: woken when its own client gets there.
            heappush(waiting.setdefault(run[0], []), (run[1], index))
    active = [index for index, run in enumerate(runs) if run[1] <= known.get(run[0], 0)]
    while active:
        index = active.pop()
        mine = todo[index]
        cursor = cursors[index]
        while cursor < len(mine) and mine[cursor][5] <= now.get(mine[cursor][4], 0):
            cursor += 1
        cursors[index] = cursor
        client, _, end = runs[index][:3]
        stop = mine[cursor] if cursor < len(mine) else None
        if stop is not None:
            heappush(waiting.setdefault(stop[4], []), (stop[5], index))
            end = stop[1]
        reached[index] = (end, stop)
        if end > now.get(client, 0):
            now[client] = end
            queue = waiting.get(client, ())
            while queue and queue[0][0] <= end:
                active.append(heappop(queue)[1])
    return reached

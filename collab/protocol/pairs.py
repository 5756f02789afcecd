"""Where the surrogate pairs of a document are: native code cannot cut one in two.

A clock counts UTF-16 units, so a character outside the basic plane takes two ids, and a client may put something
between them or delete one. Yjs then shows U+FFFD twice. yrs keeps the character whole on one side and counts on as if
it had been cut: from then on its snapshots have other clocks than its state vector. So a pair that somebody cuts is
deleted whole before, which is the same for everybody.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

Cut = tuple[int, int]  # a client, and the first of its ids behind the cut


class Pairs(dict[int, "array[int]"]):
    """Client → the ids of second halves, ascending. Empty while nobody writes such characters."""

    __slots__ = ()

    def has_half(self, client: int, clock: int) -> bool:
        """Is there a pair whose second half has this id?"""
        halves = self.get(client)
        if halves is None:
            return False
        at = bisect_left(halves, clock)
        return at < len(halves) and halves[at] == clock

    def record(self, client: int, halves: Sequence[int]) -> None:
        """Halves behind all that this client has."""
        if halves:
            self.setdefault(client, array("I")).extend(halves)

    def restore(self, client: int, half: int) -> None:
        """Put one back that was forgotten."""
        insort(self.setdefault(client, array("I")), half)

    def forget(self, client: int, half: int) -> None:
        """It is deleted: nobody can cut it any more."""
        halves = self[client]
        del halves[bisect_left(halves, half)]
        if not halves:
            del self[client]

    def truncate(self, client: int, clock: int) -> None:
        """Forget all from this clock on."""
        halves = self.get(client)
        if halves is not None:
            del halves[bisect_left(halves, clock) :]
            if not halves:
                del self[client]


def second_halves(text: str, clock: int) -> Iterator[int]:
    """The ids of second halves in a text whose first id is `clock`."""
    for character in text:
        if character > "\uffff":
            yield clock + 1
            clock += 1
        clock += 1


def cut_through(text: str, clock: int, halves: Iterable[int]) -> str:
    """The text as Yjs shows it when these of its pairs are cut: the same ids, U+FFFD twice for each."""
    gone = set(halves)
    shown = []
    for character in text:
        if character > "\uffff":
            clock += 1
            if clock in gone:
                character = "\ufffd\ufffd"
        shown.append(character)
        clock += 1
    return "".join(shown)

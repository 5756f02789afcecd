"""The turns that a log tells of, and which of them are taken back: plain synchronous code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from collab.document.attribution import Credit
from collab.errors import Conflict, NothingHere
from collab.store.base import Author, Row
from collab.turns import About, read_about

# What a turn says that it takes back, when it is no turn but all that a principal did between two times; no turn can
# be called so.
RANGE = "@"


class Whose(NamedTuple):
    """A turn, by what names it."""

    principal: str
    id: str


@dataclass(slots=True)
class Taken:
    """A turn as the log has it."""

    whose: Whose
    author: Author  # as its last row says
    about: About
    first: int  # positions
    last: int
    began: int  # milliseconds
    ended: int

    def is_of(self, row: Row) -> bool:
        """Whether a row belongs to it."""
        return (row.author.principal, row.author.turn) == self.whose

    @property
    def undoes(self) -> Whose | None:
        """The turn that this one takes back."""
        about = self.about
        if not about.undoes or about.undoes.startswith(RANGE):
            return None
        return Whose(about.by, about.undoes)

    @property
    def span(self) -> tuple[int, int] | None:
        """The times between which this one takes back all that somebody did."""
        if not self.about.undoes.startswith(RANGE):
            return None
        start, _, end = self.about.undoes[1:].partition("-")
        return int(start), int(end)


class Turns:
    """All turns of a room up to a position, and which of them are taken back."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.position = 0
        self.taken: dict[Whose, Taken] = {}
        self._called: dict[str, dict[str, Taken]] = {}  # by id and principal
        self._undos: dict[Whose, list[Taken]] = {}  # by what they take back
        self._ranges: dict[str, list[Taken]] = {}  # by principal
        # What follows from these, made when it is asked for and until there is another undo.
        self._ends: dict[Whose, tuple[Taken, int]] | None = None
        self._holding: dict[str, list[tuple[int, int, Taken]]] = {}

    def note(self, credit: Credit) -> None:
        """Rows of one author."""
        author = credit.author
        if author.turn is None:
            return
        whose = Whose(author.principal, author.turn)
        known = self.taken.get(whose)
        if known is None:
            about = read_about(author.about)
            known = Taken(whose, author, about, *credit[1:])
            self.taken[whose] = known
            self._called.setdefault(author.turn, {})[author.principal] = known
            if known.undoes is not None:
                self._undos.setdefault(known.undoes, []).append(known)
            elif known.span is not None:
                self._ranges.setdefault(about.by, []).append(known)
            if about.undoes:
                self._ends, self._holding = None, {}
            return
        if credit.last > known.last:
            known.author, known.last, known.ended = author, credit.last, credit.ended
        if credit.first < known.first:
            known.first, known.began = credit.first, credit.began

    def find(self, id: str, principal: str, asker: str) -> Taken:
        """The turn of that name: of a principal, else the asker's own, else the only one.

        Raises NothingHere, and Conflict when several principals have one.
        """
        called = self._called.get(id, {})
        if principal or asker in called:
            called = {
                name: each
                for name, each in called.items()
                if name == (principal or asker)
            }
        if not called:
            raise NothingHere("there is no such turn in the log of this room")
        if len(called) > 1:
            raise Conflict("several principals have a turn of this name: say whose")
        return next(iter(called.values()))

    def undos(self) -> list[Taken]:
        """All that took something back, in order."""
        found = [each for each in self.taken.values() if each.about.undoes]
        return sorted(found, key=lambda each: each.first)

    def chain(self, taken: Taken) -> list[tuple[Taken, int]]:
        """A turn and what took it back, or that, and so on: each with how often it turns the first one round."""
        found, at = [(taken, 0)], 0
        while at < len(found):
            turn, depth = found[at]
            found += [(undo, depth + 1) for undo in self._undos.get(turn.whose, ())]
            at += 1
        return found

    def standing(self, taken: Taken) -> Taken | None:
        """What has taken a turn back and holds; None while the turn itself does, or has gone on since."""
        newest, depth = self._end(taken)
        if depth % 2 and not self.has_gone_on(taken):
            return newest
        if taken.undoes is not None:
            return None
        for start, end, undo in self._holding_of(taken.whose.principal):
            if start <= taken.began and taken.ended <= end and taken.last < undo.first:
                return undo
        return None

    def taken_back_until(self, taken: Taken) -> int:
        """The position up to which a turn is taken back, or takes back others itself."""
        if taken.about.undoes or self.standing(taken) is not None:
            return taken.last
        return self.newest(taken).first if self.has_gone_on(taken) else 0

    def has_gone_on(self, taken: Taken) -> bool:
        """Whether there is more of a turn than what was taken back of it."""
        newest, depth = self._end(taken)
        return depth % 2 == 1 and taken.last > newest.first

    def root(self, taken: Taken) -> Taken:
        """The turn that a series of undo and redo is about."""
        while taken.undoes is not None and taken.undoes in self.taken:
            taken = self.taken[taken.undoes]
        return taken

    def newest(self, taken: Taken) -> Taken:
        """The last one of such a series."""
        return self._end(self.root(taken))[0]

    def _end(self, taken: Taken) -> tuple[Taken, int]:
        """The last of what `chain` gives."""
        if self._ends is None:
            self._ends = {}
            for undo in reversed(self.undos()):  # before what it takes back
                if undo.undoes is not None:
                    newest, depth = self._ends.get(undo.whose, (undo, 0))
                    known = self._ends.get(undo.undoes)
                    if known is None or newest.first > known[0].first:
                        self._ends[undo.undoes] = newest, depth + 1
        return self._ends.get(taken.whose, (taken, 0))

    def _holding_of(self, principal: str) -> list[tuple[int, int, Taken]]:
        """What took back all that somebody did from one time to another, and holds."""
        found = self._holding.get(principal)
        if found is None:
            found = self._holding[principal] = [
                (*undo.span, undo)
                for undo in self._ranges.get(principal, ())
                if undo.span is not None and self._end(undo)[1] % 2 == 0
            ]
        return found

    def is_covered(self, row: Row) -> bool:
        """Whether a row is taken back together with all that its author did in some time."""
        return any(
            start <= row.milliseconds <= end and row.position < undo.first
            for start, end, undo in self._holding_of(row.author.principal)
        )

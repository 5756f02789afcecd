"""What changed in a document between two positions of its log, and who did it.

The order of the document before is held against that after: an id that is new came, one that is shown no longer is
gone, and the rows between say who did it. What came and went in between is nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from collab.document.anchor import Id
from collab.document.attribution import Runs
from collab.document.content import values_of
from collab.document.order import Order
from collab.document.pieces import Lines, Piece
from collab.document.shared import ELEMENT, KINDS, keys
from collab.document.units import EMBED, cut_at_unit
from collab.document.values import pointer
from collab.errors import Refused
from collab.protocol.structs import scan

_UNBOUNDED = 1 << 62

Part = tuple[int, int, int]  # ids from and up to a clock, and the number of a row


@dataclass(slots=True)
class Change:
    """At one place of the later document, what is gone and what has come."""

    kind: str  # text, items or key
    root: str
    path: str  # of the shared type, inside the root
    start: int  # in characters or items; 0 of a key
    key: str | None
    old: Any  # characters of a text; else values, of a key one at most
    new: Any
    row: int  # the last that changed it, by its number

    def is_in(self, path: str) -> bool:
        """Whether it is what is at a path, or inside of that."""
        place = self.path if self.key is None else self.path + pointer((self.key,))
        return place == path or place.startswith(path + "/")


class Rows(Protocol):
    """Who brought and deleted what."""

    def inserted(self, client: int, start: int, end: int) -> list[Part]: ...

    def deleted(self, client: int, start: int, end: int) -> list[Part]: ...


class Brought:
    """Which rows brought and deleted which ids: of several the first. Those before the changes are looked at only for
    what had waited since then.
    """

    def __init__(self, updates: Sequence[bytes], after: int) -> None:
        self._updates, self._after = updates, after
        self._inserted: dict[int, Runs] = {}
        self._deleted: dict[int, Runs] = {}
        self._take(after, len(updates))

    def _take(self, first: int, last: int) -> None:
        for number in range(first, last):
            try:
                found = scan(self._updates[number], max_structs=_UNBOUNDED)
            except Refused:
                continue  # it has never entered a document
            for client, clock, end, *_ in found.runs:
                self._inserted.setdefault(client, Runs()).add(clock, end, number + 1, 0)
            for client, clock, end in found.deletes:
                self._deleted.setdefault(client, Runs()).add(clock, end, number + 1, 0)

    def inserted(self, client: int, start: int, end: int) -> list[Part]:
        """Ids in order, with the number of the row that brought them."""
        return self._of(self._inserted, client, start, end)

    def deleted(self, client: int, start: int, end: int) -> list[Part]:
        """The same with the row that deleted them."""
        return self._of(self._deleted, client, start, end)

    def _of(
        self, clients: dict[int, Runs], client: int, start: int, end: int
    ) -> list[Part]:
        runs = clients.get(client, Runs())
        parts = [run[:3] for run in runs.whole(start, end)]
        if self._after and not all(number for *_, number in parts):
            self._take(0, self._after)
            self._after = 0
            return self._of(clients, client, start, end)
        last = len(self._updates)
        return [(first, until, (number or last) - 1) for first, until, number in parts]


class _Alone:
    """All of it by one."""

    def inserted(self, client: int, start: int, end: int) -> list[Part]:
        return [(start, end, 0)]

    deleted = inserted


class _Place(NamedTuple):
    """A shared type in the later document, and what it was in the earlier one, if it was there."""

    root: str
    path: str
    kind: str
    lines: Lines
    was: Lines | None


class _Listing:
    """What changed in one list or text, piece by piece; neighbours of one author are one change."""

    def __init__(
        self, place: _Place, own: object | None, whose: Callable[[int], object]
    ) -> None:
        self._place, self._own, self._whose = place, own, whose
        self.is_text = place.kind == "text"
        self.at = 0
        self.own: Any = "" if self.is_text else []  # what that author made
        self.changes: list[Change] = []
        self._is_next = False  # nothing that stays lies between the last one and here

    def stays(self, size: int) -> None:
        self.at += size
        self._is_next = False

    def came(self, content: Any, row: int) -> None:
        if self._own is not None and self._whose(row) == self._own:
            self.own += content
            self.stays(len(content))
            return
        self._change(row).new += content
        self.at += len(content)

    def gone(self, content: Any, row: int) -> None:
        self._change(row).old += content

    def _change(self, row: int) -> Change:
        """That which a row goes on with."""
        if self._is_next and self._whose(self.changes[-1].row) == self._whose(row):
            last = self.changes[-1]
            last.row = max(last.row, row)
            return last
        self._is_next = True
        place, is_text = self._place, self.is_text
        old: Any = "" if is_text else []
        new: Any = "" if is_text else []
        kind = "text" if is_text else "items"
        found = Change(kind, place.root, place.path, self.at, None, old, new, row)
        self.changes.append(found)
        return found


class Comparison:
    """A later document beside an earlier one; `whose` tells apart the authors of rows."""

    def __init__(
        self,
        order: Order,
        before: Order,
        rows: Rows,
        whose: Callable[[int], object],
    ) -> None:
        self._order, self._before = order, before
        self._known = before.vector()
        self._rows, self._whose = rows, whose

    def found(self, root: str, kind: str) -> list[Change]:
        """All changes in a root by place, those inside of something behind it."""
        lines, was = self._order.lines(root), self._before.lines(root)
        return self._compared(_Place(root, "", kind, lines, was), None)[1]

    def value(self, piece: Piece, clock: int) -> Any:
        """What a piece holds under a clock, as far as one author made it."""
        if piece.lines is None:
            return _content(piece, clock, clock + 1, is_text=False)[0]
        place = _Place("", "", KINDS[piece.lines.kind], piece.lines, None)
        return self._compared(place, self._whose(0))[0]

    def _compared(self, place: _Place, own: object | None) -> tuple[Any, list[Change]]:
        """What one author made of a shared type, as a value, and what else changed in it."""
        inside: list[Change] = []
        listing = self._list(place, own, inside)
        keyed, changes = self._keys(place, own, inside)
        value: Any = listing.own
        if place.kind == "map":
            value = keyed
        elif place.lines.kind == ELEMENT:
            value = {"tag": place.lines.tag, "attributes": keyed, "children": value}
        return value, listing.changes + changes + inside

    def _list(
        self, place: _Place, own: object | None, inside: list[Change]
    ) -> _Listing:
        listing = _Listing(place, own, self._whose)
        is_text = listing.is_text
        line = place.lines.get(None)
        for piece in () if line is None else line.pieces():
            client, clock, end = piece.client, piece.clock, piece.end
            known = max(clock, min(self._known.get(client, 0), end))
            if piece.is_deleted:
                for content, row in self._gone(client, clock, known, is_text=is_text):
                    listing.gone(content, row)
            elif not piece.size:
                continue
            elif piece.lines is not None:
                where = f"{place.path}/{listing.at}"
                by = self._row(client, clock, end)
                value = self._inside(place.root, where, piece, by, inside)
                if by is None:
                    listing.stays(1)
                else:
                    listing.came(EMBED if is_text else [value], by)
            else:
                if clock < known:
                    stayed = _content(piece, clock, known, is_text=is_text)
                    listing.stays(len(stayed))
                for first, last, number in (
                    self._rows.inserted(client, known, end) if known < end else ()
                ):
                    content = _content(piece, first, last, is_text=is_text)
                    listing.came(content, number)
        return listing

    def _keys(
        self, place: _Place, own: object | None, inside: list[Change]
    ) -> tuple[dict[str, Any], list[Change]]:
        """Of a map, or the attributes of an element."""
        mine: dict[str, Any] = {}
        changes: list[Change] = []
        now = dict(keys(place.lines))
        before = dict(keys(place.was)) if place.was is not None else {}
        for key in sorted(now.keys() | before.keys()):
            piece, was = now.get(key), before.get(key)
            old = [] if was is None else [_whole(self._before, was)]
            new: list[Any] = []
            if piece is not None:
                row = self._row(piece.client, piece.end - 1, piece.end)
                where = place.path + pointer((key,))
                value = self._inside(place.root, where, piece, row, inside)
                if row is None:
                    continue
                if own is not None and self._whose(row) == own:
                    mine[key] = value
                    continue
                new = [value]
            elif was is not None:
                row = self._rows.deleted(was.client, was.end - 1, was.end)[0][2]
            else:
                continue
            changes.append(Change("key", place.root, place.path, 0, key, old, new, row))
        return mine, changes

    def _row(self, client: int, clock: int, end: int) -> int | None:
        """Which row brought this, if it was not there before."""
        if clock < self._known.get(client, 0):
            return None
        return self._rows.inserted(client, clock, end)[0][2]

    def _inside(
        self, root: str, path: str, piece: Piece, row: int | None, inside: list[Change]
    ) -> Any:
        """What a piece is as a value, as far as it is of the author of a row; what else changed in it is inside."""
        lines = piece.lines
        if lines is None:
            clock = piece.end - 1
            return _content(piece, clock, clock + 1, is_text=False)[0]
        was = self._before.lines(Id(piece.client, piece.clock)) if row is None else None
        place = _Place(root, path, KINDS[lines.kind], lines, was)
        own = None if row is None else self._whose(row)
        value, changes = self._compared(place, own)
        inside += changes
        return value

    def _gone(
        self, client: int, start: int, end: int, *, is_text: bool
    ) -> Iterator[tuple[Any, int]]:
        """What was shown of these ids, and the rows that deleted it."""
        for piece, clock, until in self._before.shown(client, start, end):
            for first, last, row in self._rows.deleted(client, clock, until):
                if piece.lines is not None and not is_text:
                    yield [_whole(self._before, piece)], row
                else:
                    yield _content(piece, first, last, is_text=is_text), row


def _content(piece: Piece, first: int, last: int, *, is_text: bool) -> Any:
    """Some ids of a piece: characters in a text, else values."""
    text = piece.text
    if text is not None:
        if last < piece.end:
            text, _ = _cut(text, piece.size, piece.units, last - piece.clock)
        if first > piece.clock:
            _, text = _cut(text, len(text), last - piece.clock, first - piece.clock)
        return text if is_text else [*text]
    if is_text:
        return EMBED * (last - first)
    if piece.content is None:
        return []
    return values_of(piece.content, first - piece.clock, last - piece.clock)


def _cut(text: str, size: int, units: int, at: int) -> tuple[str, str]:
    return (text[:at], text[at:]) if size == units else cut_at_unit(text, at)


def _whole(order: Order, piece: Piece) -> Any:
    """All that a piece holds, a key its last value."""
    return Comparison(order, Order(), _Alone(), lambda row: 0).value(
        piece, piece.end - 1
    )

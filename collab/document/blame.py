"""Who wrote what a document shows: characters of texts, items of lists, keys of maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from pycrdt import Doc

from collab.document.attribution import MINUTE, NOBODY, Attribution, Run
from collab.document.export import load
from collab.document.markdown import TEXT_BLOCKS, tag_of
from collab.document.order import Line, Order, Stretch
from collab.document.people import Owners, People
from collab.document.pieces import Lines, Piece
from collab.document.shared import (
    ELEMENT,
    XML_TEXT,
    Shared,
    children,
    chosen_root,
    find,
    keys,
    kinds_of,
)
from collab.errors import InvalidRequest, Refused
from collab.protocol.statevector import encode_state_vector, state_vector

# Of documents whose order is kept, as snapshots; in memory it takes about fifty times as much.
MAX_KEPT_BYTES, MAX_KEPT = 8 << 20, 32

BREAK = "hardbreak"  # how the element that ends a line is called, in small letters


class Part(NamedTuple):
    """A text or list, or one thing that counts as a character, and where it is."""

    size: int
    line: Line | None  # all of a shared type
    ids: tuple[int, int] = (0, 0)  # else what it is
    path: str | None = None  # as an answer says it
    key: str | None = None


def blame(
    order: Order,
    found: Attribution,
    owners: Owners,
    root: str,
    path: str,
    start: int,
    end: int | None,
) -> dict[str, Any]:
    """Who wrote what is at a path, or what of it stands between two places, as far as it reaches.

    XML is counted as its text, which an export gives, a map by its keys in order. Raises RootNotFound, NothingHere,
    InvalidRequest.
    """
    kinds = kinds_of(order)
    root = chosen_root(kinds, root)
    place = find(order, root, kinds.get(root, "empty"), path)
    if place.kind in ("map", "value") and (start or end is not None):
        raise InvalidRequest(f"a {place.kind} has no `start` and no `end`")
    people = People()
    spans: list[dict[str, Any]] = []
    last: dict[str, Any] = {}  # of the spans
    numbers: dict[str | None, dict[int, int]] = {}  # by owner and credit
    credited = found.credits
    finders = {client: runs.finder() for client, runs in found.inserted.items()}
    whose = -1  # client id of the last that was looked at
    for part, base, some in _spans(order, place, start, end):
        number, minute = -1, 0  # of the last span
        more = {
            name: value
            for name, value in (("path", part.path), ("key", part.key))
            if value is not None
        }
        for client, clock, units, within, size in some:
            if client != whose:
                whose, owner = client, owners.get(client)
                find_runs = finders.get(client, _nobody)
                known = numbers.setdefault(owner, {})
            at = base + within
            for first, until, credit, then in find_runs(clock, clock + units):
                by = known.get(credit)
                if by is None:
                    author = credited[credit].author
                    by = known[credit] = people.number(author, owner)
                stop = at + (until - clock) * size // units
                if by == number and then == minute:
                    last["end"] = stop
                    continue
                number, minute = by, then
                begin = at + (first - clock) * size // units
                last = {
                    "start": begin,
                    "end": stop,
                    "author": by,
                    "time": then * MINUTE,
                }
                if more:
                    last |= more
                spans.append(last)
    return {
        "root": root,
        "path": path,
        "kind": place.kind,
        "authors": people.shown,
        "spans": spans,
    }


def _nobody(start: int, end: int) -> Iterable[Run]:
    return ((start, end, NOBODY, 0),)


def _spans(
    order: Order, place: Shared, start: int, end: int | None
) -> Iterator[tuple[Part, int, Iterable[Stretch]]]:
    """The ids of what stands between two places, part by part, and where each part begins."""
    base = 0
    for part in _parts(order, place):
        first = max(start - base, 0)
        last = part.size if end is None else min(end - base, part.size)
        if first < last:
            if part.line is None:
                yield part, base, ((*part.ids, 1, 0, 1),)
            else:
                yield part, base, part.line.spans(first, last)
        base += part.size


def _parts(order: Order, place: Shared) -> Iterator[Part]:
    match place.kind:
        case "value":
            assert place.value is not None
            yield Part(1, None, place.value)
        case "map":
            for key, piece in keys(order.lines(place.name)):
                yield Part(1, None, (piece.client, piece.end - 1), key=key)
        case "xml":
            yield from _text_parts(order.lines(place.name), place.path)
        case _:
            yield _all(order.lines(place.name), None)


def _text_parts(lines: Lines, path: str) -> list[Part]:
    """XML as `markdown.text_of_xml` reads it: a line break is whose the block is that begins with it, and what is in a line
    without being text is one character.
    """
    parts: list[Part] = []
    is_first, is_open = True, False
    is_line = tag_of(lines.tag) in TEXT_BLOCKS or (
        lines.kind == ELEMENT
        and any(
            piece.lines is not None and piece.lines.kind == XML_TEXT
            for piece in children(lines)
        )
    )
    at = -1
    for piece in children(lines):
        at += 1
        where = f"{path}/{at}"
        at += piece.size - 1
        held = piece.lines
        if held is None:
            continue  # a value, which no editor puts here
        is_text = held.kind == XML_TEXT
        is_break = not is_text and (is_line or tag_of(held.tag) == BREAK)
        if not is_first and not (is_open and (is_text or is_break)):
            parts.append(_one(piece, where))
        is_first, is_open = False, is_text or is_break
        if is_text:
            parts.append(_all(held, where))
        elif is_break:
            parts.append(_one(piece, where))
        else:
            parts += _text_parts(held, where)
    return parts


def _all(lines: Lines, path: str | None) -> Part:
    line = lines.get(None)
    return Part(0 if line is None else line.size(), line, path=path)


def _one(piece: Piece, path: str) -> Part:
    return Part(1, None, (piece.client, piece.clock), path)


class Orders:
    """The orders of documents that were asked about last: to make one takes long, to bring one up to date does not."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[bytes, Order, int]] = OrderedDict()
        self._bytes = 0

    def of(self, name: str, snapshot: bytes) -> Order:
        """The order of a document; under one name it only ever grows."""
        digest = sha256(snapshot).digest()
        known, order, size = self._kept.pop(name, (b"", None, 0))
        self._bytes += len(snapshot) - size
        if known != digest or order is None:
            grown = _grown(order, snapshot)
            if grown is None and order is not None:
                order.end()
            order = grown or Order.of(snapshot)
        self._kept[name] = digest, order, len(snapshot)
        while len(self._kept) > MAX_KEPT or (
            self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1
        ):
            _, (_, oldest, size) = self._kept.popitem(last=False)
            self._bytes -= size
            oldest.end()
        return order


def _grown(order: Order | None, snapshot: bytes) -> Order | None:
    """An order with all that a document has more; None when the document does not hold what the order does."""
    if order is None:
        return None
    doc: Doc[Any] = load(snapshot)
    vector, known = order.vector(), state_vector(doc.get_state())
    if any(clock > known.get(client, 0) for client, clock in vector.items()):
        return None
    try:
        order.apply(doc.get_update(encode_state_vector(vector)))
    except Refused:
        return None
    return order

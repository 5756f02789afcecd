"""The shared types of a document as its order has them: what a root is, and where a path inside it leads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from collab.document.anchor import Id, Root
from collab.document.content import EMBEDDED
from collab.document.order import Order
from collab.document.pieces import Lines, Piece
from collab.document.values import Problem, parse, pointer
from collab.errors import InvalidRequest, NothingHere, RootNotFound

ARRAY, MAP, TEXT, ELEMENT, FRAGMENT, XML_TEXT = 0, 1, 2, 3, 4, 6  # as updates say it

KINDS = {
    ARRAY: "array",
    MAP: "map",
    TEXT: "text",
    ELEMENT: "xml",
    FRAGMENT: "xml",
    XML_TEXT: "text",
}
_XML = (ELEMENT, FRAGMENT, XML_TEXT)
_index = re.compile("0|[1-9][0-9]{0,8}").fullmatch

Kinds = Mapping[str, str]  # root → what it holds, as `export.roots` has it


class Shared(NamedTuple):
    """What a path leads to."""

    path: str
    kind: str  # text, xml, array or map, and empty of a root that holds nothing; value of what is no shared type
    name: Root  # of the shared type, or of the one that the value is in
    value: tuple[int, int] | None = None  # its id


def kinds_of(order: Order) -> Kinds:
    """What each root of a document holds. Roots carry no type: what is in them says it, as for an export."""
    return {name: _kind_of(order.lines(name)) for name in sorted(order.roots())}


def _kind_of(lines: Lines) -> str:
    pieces = []
    for piece in children(lines):
        if piece.text is not None:
            return "text"
        pieces.append(piece)
    if any(True for _ in keys(lines)):
        return "map"
    if not pieces:
        return "empty"
    if any(piece.content and piece.content[0] == EMBEDDED for piece in pieces):
        return "text"
    types = (piece.lines.kind for piece in pieces if piece.lines is not None)
    return "xml" if any(kind in _XML for kind in types) else "array"


def children(lines: Lines) -> Iterator[Piece]:
    """What a list or a text shows, in order."""
    line = lines.get(None)
    if line is not None:
        for piece in line.pieces():
            if piece.size:
                yield piece


def keys(lines: Lines) -> Iterator[tuple[str, Piece]]:
    """What a map shows, or an element as its attributes, by the order of the names."""
    for key in sorted(each for each in lines if each is not None):
        last = lines[key].last
        if last is not None and last.size:
            yield key, last


def chosen_root(kinds: Kinds, root: str) -> str:
    """The root that is meant: where none is named the only text, else the only XML, else the only other one.

    Raises RootNotFound, InvalidRequest.
    """
    if root and root not in kinds:
        raise RootNotFound(
            f"the document has no root {root}; it has {', '.join(kinds) or 'none'}"
        )
    if root:
        return root
    for each in (("text",), ("xml",), ("map", "array")):
        names = [name for name, kind in kinds.items() if kind in each]
        if len(names) > 1:
            raise InvalidRequest(
                f"the document has several roots: {', '.join(names)}; name one"
            )
        if names:
            return names[0]
    return ""


def find(order: Order, root: str, kind: str, path: str) -> Shared:
    """What a path (a JSON Pointer) leads to inside a root of that kind. A list, a text and XML are counted from 0.

    Raises InvalidRequest when it is no path, NothingHere when there is nothing.
    """
    try:
        steps = parse(path) if path else ()
    except Problem as problem:
        raise InvalidRequest(str(problem)) from None
    found = Shared(path, kind, root)
    for number, step in enumerate(steps, 1):
        where = pointer(steps[:number])
        if found.value is not None:
            raise NothingHere(
                f"there is nothing at {where}: what holds it is one value"
            )
        at = _child(order, found, step)
        if at is None:
            raise NothingHere(f"there is nothing at {where}")
        piece, clock = at
        if piece.lines is None:
            found = Shared(path, "value", found.name, (piece.client, clock))
        else:
            name = Id(piece.client, piece.clock)
            found = Shared(path, KINDS[piece.lines.kind], name)
    return found


def _child(order: Order, holder: Shared, step: str) -> tuple[Piece, int] | None:
    """What is under a step, and its clock; characters are nothing of their own."""
    lines = order.lines(holder.name)
    if holder.kind == "map":
        line = lines.get(step)
        piece = None if line is None else line.last
        return (piece, piece.end - 1) if piece is not None and piece.size else None
    line = lines.get(None)
    if line is None or not _index(step):
        return None
    piece, at, _ = line.find(int(step))
    if piece is None or piece.text is not None:
        return None
    return piece, piece.clock + at

"""What comes back in maps that come back themselves: native code shows it where it was done, and tells nobody else.

It writes such a value behind the one that it replaces, which stands in the map that is gone: for everybody else it is
in that map. (Yjs had this too, #757.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pycrdt import Array, Doc, Map, Text, TransactionEvent, XmlElement, XmlFragment
from pycrdt._base import BaseType

from collab.document.export import check_lists, root_of
from collab.errors import Refused


def mended(doc: Doc[Any], client: int) -> bytes | None:
    """The update with which everybody else has in their maps what this document has; None when they have it already.

    Nobody else may write under the client id.
    """
    whole = doc.get_update()
    try:
        check_lists(whole)
    except Refused:
        return None  # which cannot be read at all
    theirs: Doc[Any] = Doc(client_id=client)
    theirs.apply_update(whole)
    changes: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        changes.append(event.update)

    pairs = [(root_of(doc, name), root_of(theirs, name)) for name in doc.keys()]
    subscription = theirs.observe(note)
    try:
        with theirs.transaction():
            for ours, other in pairs:
                _mend(ours, other)
    finally:
        theirs.unobserve(subscription)
    return changes[0] if changes else None


def _mend(ours: Any, theirs: Any) -> None:
    todo = [(ours, theirs)]
    while todo:
        ours, theirs = todo.pop()
        if type(ours) is not type(theirs):
            continue
        if isinstance(ours, Map):
            there = set(theirs.keys())
            for key, value in ours.items():
                if key not in there:
                    _put(theirs, key, value)
                elif isinstance(value, BaseType):
                    todo.append((value, theirs[key]))
        elif isinstance(ours, XmlElement):
            there = {key for key, _ in theirs.attributes}
            for key, value in ours.attributes:  # type: ignore[attr-defined]  # pycrdt types its iterator as an iterable
                if key not in there:
                    theirs.attributes[key] = value
        todo += zip(_children(ours), _children(theirs), strict=False)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, Array):
        yield from value
    elif isinstance(value, XmlFragment | XmlElement):
        yield from value.children


def _put(holder: Map[Any], key: str, value: Any) -> None:
    copy = _copy(value)
    if copy is not None or value is None:
        holder[key] = copy
        _dress(value, holder[key])


def _copy(value: Any) -> Any:
    """As deep as it goes, without formats. None for XML, which native code puts into no map."""
    match value:
        case Map():
            items = {key: _copy(item) for key, item in value.items()}
            return Map({key: item for key, item in items.items() if item is not None})
        case Array():
            return Array([_copy(item) for item in value])
        case Text():
            return Text(str(value))
        case BaseType():
            return None
    return value


def _dress(value: Any, copy: Any) -> None:
    """Give the formats to the texts in a copy."""
    match value:
        case Map():
            for key, item in value.items():
                if key in copy:
                    _dress(item, copy[key])
        case Array():
            for item, other in zip(value, copy, strict=True):
                _dress(item, other)
        case Text():
            at = 0
            for piece, attributes in value.diff():
                end = at + len(str(piece).encode())
                if attributes:
                    copy.format(at, end, attributes)
                at = end

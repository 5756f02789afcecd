"""A document as text or JSON for people and programs that do not speak Yjs.

Roots carry no type on the wire: a document only knows that something is named so. What content a root has decides
how it is read, as an exporter without a schema must.
"""

from __future__ import annotations

from typing import Any

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.errors import InvalidMessage, RoomNotFound

_TYPES: dict[str, Any] = {"text": Text, "map": Map, "array": Array, "xml": XmlFragment}


def _load(update: bytes) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    return doc


def roots(update: bytes) -> dict[str, str]:
    """The roots of a document and what each holds: `text`, `map`, `array`, `xml`, or `empty`."""
    # One document for each way of reading: a root that was read in one way cannot be read in another.
    as_text, as_map, as_array = (_load(update) for _ in range(3))
    found = {}
    for name in sorted(as_text.keys()):
        if str(as_text.get(name, type=Text)):
            found[name] = "text"
        elif len(as_map.get(name, type=Map)):
            found[name] = "map"
        else:
            items = list(as_array.get(name, type=Array))
            is_xml = any(
                isinstance(item, XmlElement | XmlText | XmlFragment) for item in items
            )
            found[name] = "xml" if is_xml else "array" if items else "empty"
    return found


def to_json(update: bytes) -> dict[str, Any]:
    """Every root as plain values; text and XML as strings."""
    doc = _load(update)
    return {
        name: None if kind == "empty" else _plain(doc.get(name, type=_TYPES[kind]))
        for name, kind in roots(update).items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Map):
        return {key: _plain(value[key]) for key in sorted(value.keys())}
    if isinstance(value, Array):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)  # Yjs knows one kind of number
    return (
        value
        if isinstance(value, str | int | float | list | dict | None)
        else str(value)
    )


def to_text(update: bytes, root: str = "") -> str:
    """One root as text: the only one with text, where none is named.

    Raises RoomNotFound when the document has no such root, InvalidMessage when it is not clear which is meant.
    """
    kinds = roots(update)
    if not root:
        filled = [name for name, kind in kinds.items() if kind != "empty"]
        texts = [name for name in filled if kinds[name] == "text"] or filled
        if not texts:
            return ""
        if len(texts) > 1:
            raise InvalidMessage(
                f"the document has several roots: {', '.join(texts)}; name one with --root"
            )
        root = texts[0]
    if root not in kinds:
        raise RoomNotFound(
            f"the document has no root {root}; it has {', '.join(kinds) or 'none'}"
        )
    kind = _TYPES.get(kinds[root], Text)
    return str(_load(update).get(root, type=kind if kind is XmlFragment else Text))


def from_text(text: str, root: str) -> bytes:
    """The update that begins a new document with this text."""
    doc: Doc[Any] = Doc()
    doc[root] = Text(text)
    return doc.get_update()

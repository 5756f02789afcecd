"""A document as text, JSON or Markdown for people and programs that do not speak Yjs.

Roots carry no type on the wire: a document only knows that something is named so. What content a root has decides
how it is read, as an exporter without a schema must.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment
from pycrdt import _pycrdt as native
from pycrdt._base import BaseType

from collab.document.markdown import markdown_of_text, markdown_of_xml, text_of_xml
from collab.document.units import EMBED, bytes_of
from collab.errors import (
    CollabError,
    InvalidRequest,
    NothingHere,
    Refused,
    RootNotFound,
    TooLarge,
)
from collab.protocol.lists import has_characters_in_list

_KINDS: dict[type, str] = {Text: "text", Map: "map", Array: "array", XmlFragment: "xml"}


def load(update: bytes) -> Doc[Any]:
    """A copy that may be read in any way."""
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    return doc


def root_of(
    doc: Doc[Any], name: str
) -> Text | Map[Any] | Array[Any] | XmlFragment | None:
    """A root that exists, as what its content says it is; None when it is empty.

    Text is tried first: native code never comes back from reading characters as the items of a list.
    """
    text: Text = doc.get(name, type=Text)
    if len(text) and str(text):
        return text
    shared_map: Map[Any] = doc.get(name, type=Map)
    if len(shared_map):
        return shared_map
    if not len(text):
        return None
    if any(not isinstance(piece, BaseType) for piece, _ in text.diff()):
        return text  # of nothing but pictures: items of lists do not show here
    fragment: XmlFragment = doc.get(name, type=XmlFragment)
    if any(True for _ in fragment.children):
        return fragment
    array: Array[Any] = doc.get(name, type=Array)
    return array if len(array) else None


def roots(update: bytes) -> dict[str, str]:
    """The roots of a document and what each holds: `text`, `map`, `array`, `xml`, or `empty`."""
    return kinds_of(load(update))


def kinds_of(doc: Doc[Any]) -> dict[str, str]:
    """As `roots`, of a document that may be read in any way."""
    return {name: _kind(root_of(doc, name)) for name in sorted(doc.keys())}


def _kind(root: Any) -> str:
    return _KINDS.get(type(root), "empty")


def to_json(update: bytes) -> dict[str, Any]:
    """Every root as plain values; text and XML as strings, an empty root as null.

    Raises Refused when a list holds what native code cannot read.
    """
    doc = load(update)
    found = {name: root_of(doc, name) for name in sorted(doc.keys())}
    if any(isinstance(root, Map | Array) for root in found.values()):
        check_lists(update)
    return {
        name: str(root) if isinstance(root, XmlFragment) else plain(root)
        for name, root in found.items()
    }


def check_lists(update: bytes) -> None:
    """To be asked before lists inside a document are read: `plain` would never come back. Raises Refused."""
    if has_characters_in_list(update):
        raise Refused("characters in a list")


def plain(value: Any, spend: Callable[[int], None] = lambda values: None) -> Any:
    """A shared type as JSON, as deep as it goes: the guard lets nothing in that is too deep for that.

    `spend` is told before a map or a list is read how many values it holds, and may raise.
    """
    if not isinstance(value, BaseType):
        return _plain(value, None, spend)
    with value.doc.transaction() as transaction:
        return _plain(value.integrated, transaction._txn, spend)


def _plain(value: Any, transaction: Any, spend: Callable[[int], None]) -> Any:
    """From the native types: their wrappers take ten times as long."""
    kind = type(value)
    if kind is native.Map:
        keys = value.keys(transaction)
        spend(len(keys))
        return {
            key: _plain(value.get(transaction, key), transaction, spend)
            for key in sorted(keys)
        }
    if kind is native.Array:
        length = value.len(transaction)
        spend(length)
        return [
            _plain(value.get(transaction, at), transaction, spend)
            for at in range(length)
        ]
    if kind is native.Text:
        return _characters(value, transaction)
    if isinstance(value, bytes | bytearray):
        return {"$bytes": value.hex()}
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)  # Yjs knows one kind of number
    if isinstance(value, dict):
        return {key: _plain(item, transaction, spend) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, transaction, spend) for item in value]
    if isinstance(value, str | int | float | None):
        return value
    if kind is native.Doc:
        return value.guid()
    return value.get_string(transaction)  # XML


def characters(text: Text) -> str:
    """What a text says, with U+FFFC for what is no character."""
    with text.doc.transaction() as transaction:
        return _characters(text.integrated, transaction._txn)


def _characters(text: Any, transaction: Any) -> str:
    shown: str = text.get_string(transaction)
    if len(shown) == text.len(transaction) or (
        bytes_of(shown) == text.len(transaction)
    ):
        return shown
    return "".join(
        piece if isinstance(piece, str) else EMBED
        for piece, _ in text.diff(transaction)
    )


def to_text(update: bytes, root: str = "") -> str:
    """One root as text: the only one with text, where none is named. Of XML, its text line by line.

    Raises RootNotFound when the document has no such root, InvalidRequest when it is not clear which is meant or it is
    a map or a list.
    """
    return text_of(_chosen(update, root))


def text_of(shared: Text | XmlFragment | None) -> str:
    """One root as text."""
    if isinstance(shared, XmlFragment):
        return text_of_xml(shared)
    return "" if shared is None else characters(shared)


def to_markdown(update: bytes, root: str = "") -> str:
    """One root as Markdown: a text without formats as it is, since it may be Markdown already; a rich text, and XML as
    ProseMirror and Tiptap make it, by what they say. Elements that Markdown has no word for give their text.

    Raises what `to_text` raises.
    """
    return markdown_of(_chosen(update, root))


def markdown_of(shared: Text | XmlFragment | XmlElement | None) -> str:
    """A root as Markdown, or what is in it."""
    if isinstance(shared, XmlFragment | XmlElement):
        return markdown_of_xml(shared)
    if shared is None:
        return ""
    pieces = shared.diff()
    if any(attributes for _, attributes in pieces) or EMBED in characters(shared):
        return markdown_of_text(pieces)
    return characters(shared)


# In whichever process

FORMS = ("json", "text", "markdown")
_ERRORS: tuple[type[CollabError], ...] = (
    InvalidRequest,
    NothingHere,
    RootNotFound,
    TooLarge,
)


def export(update: bytes, form: str, root: str) -> bytes:
    """The document in one of `FORMS`, encoded. `root` says which one to write as text or Markdown."""
    match form:
        case "json":
            return orjson.dumps(to_json(update))
        case "text":
            return to_text(update, root).encode()
        case _:
            return to_markdown(update, root).encode()


def encode_error(error: CollabError) -> bytes:
    """An error of `export` on its way to another process."""
    told = error.rule if isinstance(error, Refused) else str(error)
    return orjson.dumps([error.code, told])


def decode_error(encoded: bytes) -> CollabError:
    code, told = orjson.loads(encoded)
    known = {kind.code: kind for kind in _ERRORS}
    return known.get(code, Refused)(told)


def _chosen(update: bytes, root: str) -> Text | XmlFragment | None:
    doc = load(update)
    names = sorted(doc.keys())
    if not root:
        found = {name: root_of(doc, name) for name in names}
        filled = [name for name, shared in found.items() if shared is not None]
        texts = [name for name in filled if isinstance(found[name], Text)]
        texts = texts or [
            name for name in filled if isinstance(found[name], XmlFragment)
        ]
        if len(texts) > 1:
            raise InvalidRequest(
                f"the document has several roots: {', '.join(texts)}; name one"
            )
        if not texts and filled:
            raise InvalidRequest(
                f"no root of the document is a text: read {', '.join(filled)} as JSON"
            )
        if not texts:
            return None
        root = texts[0]
    elif root not in names:
        raise RootNotFound(
            f"the document has no root {root}; it has {', '.join(names) or 'none'}"
        )
    shared = root_of(doc, root)
    if shared is None or isinstance(shared, Text | XmlFragment):
        return shared
    raise InvalidRequest(
        f"root {root} is no text, but a map or a list: read it as JSON"
    )


def from_text(text: str, root: str) -> bytes:
    """The update that begins a new document with this text."""
    doc: Doc[Any] = Doc()
    doc[root] = Text(text)
    return doc.get_update()

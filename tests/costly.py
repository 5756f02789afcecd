"""Updates that are made to take long, and a clock by which each step of native code does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from pycrdt import Doc, Text

from collab.protocol.varint import encode_varint as varint

STEP_SECONDS = 0.01


def slow() -> Callable[[], float]:
    """Between one look at it and the next there is a hundredth of a second."""
    ticks = count()
    return lambda: next(ticks) * STEP_SECONDS


def plain(characters: int) -> bytes:
    """Somebody's text."""
    doc: Doc = Doc(client_id=100)
    doc.get("text", type=Text).insert(0, "a" * characters)
    return doc.get_update()


def before_each(characters: int, *, after: int | None = None) -> bytes:
    """Somebody else's insertions at its beginning, each before another of its characters.

    Behind a character of a client `after`, if given.
    """
    structs = [b"\x44\x64" + varint(at) + b"\x01x" for at in range(characters)]
    if after is not None:
        structs.insert(0, b"\x84" + varint(after) + b"\x00\x01x")
    head = b"\x01" + varint(len(structs)) + varint(200) + b"\x00"
    return b"".join((head, *structs, b"\x00"))

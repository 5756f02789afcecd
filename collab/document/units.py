"""Characters (Unicode code points), UTF-8 bytes and UTF-16 units: the one place where they are turned into each other.

Whoever calls us counts characters, native code bytes, and browsers, as the clocks of Yjs do, units.
"""

from __future__ import annotations

import re

from collab.errors import InsideCharacter, InvalidRequest

# What is in a text without being a character: one place in it, as Yjs counts.
EMBED = "\ufffc"

_wide = re.compile("[\U00010000-\U0010ffff]")
# Stretches in which every character has as many units as the others.
_even = re.compile("[\0-\uffff]+|[\U00010000-\U0010ffff]+")
_REPLACED = "\ufffd"  # half a pair, as browsers show it


def bytes_of(text: str) -> int:
    """How many UTF-8 bytes a text has."""
    return len(text) if text.isascii() else len(text.encode())


def units_of(text: str) -> int:
    """How many UTF-16 units a text has."""
    return len(text) if text.isascii() else len(text) + len(_wide.findall(text))


def byte_at(text: str, index: int) -> int:
    """Where a character begins in UTF-8. Raises InvalidRequest beyond the end."""
    _check(index, len(text))
    return index if text.isascii() else len(text[:index].encode())


def unit_at(text: str, index: int) -> int:
    """Where a character begins in UTF-16. Raises InvalidRequest beyond the end."""
    _check(index, len(text))
    return units_of(text[:index])


def index_at_byte(text: str, offset: int) -> int:
    """Which character begins at a byte of UTF-8. Raises InsideCharacter, and InvalidRequest beyond the end."""
    if text.isascii():
        _check(offset, len(text))
        return offset
    encoded = text.encode()
    _check(offset, len(encoded))
    if offset < len(encoded) and encoded[offset] & 0xC0 == 0x80:
        raise InsideCharacter("this byte is inside a character")
    return len(encoded[:offset].decode())


def index_at_unit(text: str, offset: int) -> int:
    """Which character begins at a unit of UTF-16. Raises InsideCharacter, and InvalidRequest beyond the end."""
    index, is_inside = character_of_unit(text, offset)
    if is_inside:
        raise InsideCharacter("this unit is inside a character")
    return index


def character_of_unit(text: str, offset: int) -> tuple[int, bool]:
    """Which character a unit of UTF-16 belongs to, and whether it is the second of two."""
    if text.isascii():
        _check(offset, len(text))
        return offset, False
    _check(offset, units_of(text))
    before = text.encode("utf-16-le")[: 2 * offset]
    is_inside = before[-1:] in _LEADING
    return len(before.decode("utf-16-le", "ignore")), is_inside


def cut_at_unit(text: str, offset: int) -> tuple[str, str]:
    """Both sides of a cut, units kept: a pair that is cut becomes U+FFFD twice, as in Yjs."""
    index, is_inside = character_of_unit(text, offset)
    if is_inside:
        return text[:index] + _REPLACED, _REPLACED + text[index + 1 :]
    return text[:index], text[index:]


def even(text: str) -> list[str]:
    """A text in stretches of characters with one unit each, or two each."""
    return [text] if text.isascii() else _even.findall(text)


_LEADING = frozenset(bytes((high,)) for high in range(0xD8, 0xDC))


def _check(offset: int, end: int) -> None:
    if not 0 <= offset <= end:
        raise InvalidRequest(f"there are places from 0 to {end} here")

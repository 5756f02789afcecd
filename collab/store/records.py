"""How an entry lies in a row: its updates packed into one blob, with a checksum over every field."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, error, pack, unpack_from
from typing import Any
from zlib import crc32

_KEY = Struct("<qqqq").pack  # room, first position, last position, milliseconds
_ONE = Struct("<II").pack  # length and author of a lone update

Fields = tuple[int, int, int, int, int, bytes]
"""Room, first position, last position, milliseconds, checksum, packed updates: the columns of a row."""


class Damaged(Exception):
    """A stored record is not what was written."""


def pack_entry(
    room: int,
    position: int,
    milliseconds: int,
    authors: Sequence[int],
    updates: Sequence[bytes],
) -> Fields:
    """The columns of one row. `authors` are the interned numbers, one per update."""
    count = len(updates)
    if count == 1:
        packed = _ONE(len(updates[0]), authors[0]) + updates[0]
    else:
        head = pack(f"<{2 * count}I", *map(len, updates), *authors)
        packed = b"".join((head, *updates))
    last = position + count - 1
    checksum = crc32(packed, crc32(_KEY(room, position, last, milliseconds)))
    return room, position, last, milliseconds, checksum, packed


def unpack_entry(fields: Sequence[Any]) -> tuple[list[int], list[bytes]]:
    """Authors' numbers and updates of a row; Damaged when any bit of any column is not as written."""
    room, position, last, milliseconds, checksum, packed = fields
    try:
        if crc32(packed, crc32(_KEY(room, position, last, milliseconds))) != checksum:
            raise Damaged
    except (TypeError, error):  # a flipped bit can turn a column into another type
        raise Damaged from None
    count = last - position + 1
    head = unpack_from(f"<{2 * count}I", packed)
    updates, at = [], 8 * count
    for length in head[:count]:
        updates.append(packed[at : at + length])
        at += length
    return list(head[count:]), updates


def checkpoint_checksum(
    room: int, position: int, milliseconds: int, snapshot: bytes
) -> int:
    """The checksum that is stored beside a checkpoint."""
    return crc32(snapshot, crc32(_KEY(room, position, position, milliseconds)))


def text_checksum(number: int, *texts: str | None) -> int:
    """The checksum of a row of names: a room's or an author's."""
    return crc32(repr((number, *texts)).encode("utf-8", "surrogatepass"))

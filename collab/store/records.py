"""How an entry lies in a row: its updates packed into one blob, with a checksum over every field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct, error, pack, unpack_from
from typing import Any
from zlib import crc32

import orjson

from collab.errors import InvalidRequest, TooLarge
from collab.store.base import MAX_ANSWER_BYTES, MAX_METADATA_BYTES

MAX_AUTHOR = (1 << 32) - 1  # the number of an author has four bytes in a row

AUTHOR = "principal, connection, turn, about"  # the columns that make an Author
INTO_AUTHOR = f"INTO author (id, room, {AUTHOR}, crc) VALUES (?, ?, ?, ?, ?, ?, ?)"

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


def attribution_checksum(room: int, position: int, encoded: bytes) -> int:
    """The checksum that is stored beside an attribution."""
    return crc32(encoded, crc32(_KEY(room, position, 0, 0)))


def text_checksum(number: int, *texts: str | None) -> int:
    """The checksum of a row of names: a room's or an author's."""
    return crc32(repr((number, *texts)).encode("utf-8", "surrogatepass"))


def author_checksum(
    number: int,
    room: int | None,
    principal: str,
    connection: str,
    turn: str | None,
    about: str,
) -> int:
    """The checksum of an author; where there is no room, that of the first two versions of the tables."""
    rest = () if room is None and about == "" else (about, str(room))
    return text_checksum(number, principal, connection, turn, *rest)


def about_checksum(room: int, metadata: str, history: int | None) -> int:
    """The checksum of what is said about a room."""
    return text_checksum(room, metadata, str(history))


def answer_checksum(key: str, milliseconds: int, digest: bytes, answer: bytes) -> int:
    """The checksum of a remembered answer."""
    return crc32(answer, crc32(digest, text_checksum(milliseconds, key)))


def checked_history(seconds: int | None) -> int | None:
    """The time a log is kept, unchanged; InvalidRequest when it is none."""
    if seconds is not None and not 0 <= seconds < 1 << 31:
        raise InvalidRequest("the history is kept for 0 to 2147483647 seconds")
    return seconds


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    """As JSON; InvalidRequest when it is none, TooLarge."""
    try:
        encoded = orjson.dumps(dict(metadata))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the metadata is not a JSON object: {error}") from None
    if len(encoded) > MAX_METADATA_BYTES:
        raise TooLarge(f"the metadata is larger than {MAX_METADATA_BYTES} bytes")
    return encoded.decode()


def check_answer(key: str, answer: bytes) -> None:
    """ValueError when this cannot be remembered."""
    key.encode()
    if len(answer) > MAX_ANSWER_BYTES:
        raise ValueError(f"an answer of {len(answer)} bytes is not kept")

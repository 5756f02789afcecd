"""What shared types hold that is no text, read from the bytes that an update has of it: as JSON, like an export."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from
from typing import Any

import orjson

from collab.document.pieces import Content
from collab.protocol.varint import Reader

BINARY, EMBEDDED, VALUES, DOCUMENT = (
    3,
    5,
    8,
    9,
)  # kinds of content, as updates number them


def values_of(content: Content, first: int, last: int) -> list[Any]:
    """Some values of a piece. The guard has proven that they can be read, and how deep they lie in each other."""
    kind, encoded, skipped = content
    return _values(kind, encoded)[skipped + first : skipped + last]


@lru_cache(4)  # a piece that is cut is asked for each of its parts
def _values(kind: int, encoded: bytes) -> list[Any]:
    if kind == BINARY:
        return [{"$bytes": encoded.hex()}]
    if kind == EMBEDDED:
        return [orjson.loads(encoded)]
    if kind == DOCUMENT:
        return [encoded.decode()]
    reader = Reader(encoded)
    found = []
    while not reader.at_end:
        found.append(_value(reader))
    return found


def _value(reader: Reader) -> Any:
    tag = reader.frame[reader.at]
    reader.at += 1
    match tag:
        case 119:
            return reader.read_bytes().decode()
        case 125:
            return _signed(reader)
        case 124:
            return _number(reader, ">f", 4)
        case 123:
            return _number(reader, ">d", 8)
        case 122:
            return _number(reader, ">q", 8)
        case 118:
            count = reader.read_varint()
            return {_key(reader): _value(reader) for _ in range(count)}
        case 117:
            return [_value(reader) for _ in range(reader.read_varint())]
        case 116:
            return {"$bytes": reader.read_bytes().hex()}
        case 120:
            return True
        case 121:
            return False
        case _:
            return None


def _key(reader: Reader) -> str:
    return reader.read_bytes().decode()


def _signed(reader: Reader) -> int:
    """However it is spelt: clients are not strict about it, and neither is the guard."""
    frame, at = reader.frame, reader.at
    first = byte = frame[at]
    value, shift = first & 63, 6
    while byte > 127:
        at += 1
        byte = frame[at]
        value |= (byte & 127) << shift
        shift += 7
    reader.at = at + 1
    return -value if first & 64 else value


def _number(reader: Reader, form: str, size: int) -> Any:
    (number,) = unpack_from(form, reader.frame, reader.at)
    reader.at += size
    if isinstance(number, float) and number.is_integer() and abs(number) < 1 << 53:
        return int(number)  # Yjs knows one kind of number
    return number

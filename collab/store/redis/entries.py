"""How an entry lies in the stream, and how a room's other records look: each with a checksum over all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct, error, unpack_from
from struct import pack as pack_numbers
from typing import NamedTuple
from zlib import crc32

import orjson

from collab.errors import RoomUnavailable
from collab.names import spoken
from collab.store.base import Author, Entry, Remembered
from collab.store.records import Damaged, answer_checksum

FORMAT = 1  # of all that a room consists of; rooms of a newer one are left alone

_CHECKSUM = Struct("<I")
_HEAD = Struct("<BII")  # format, length of the authors, number of updates
_ANSWER = Struct("<IqH")  # checksum, milliseconds, length of the digest


class Piece(NamedTuple):
    """One entry of the stream, checked."""

    position: int  # of the first update
    milliseconds: int
    authors: Sequence[Author]  # one per update
    updates: Sequence[bytes]
    mark: bytes  # tells it from another entry at the same place

    @property
    def last(self) -> int:
        return self.position + len(self.updates) - 1


def pack_entry(entry: Entry) -> bytes:
    """Everything but its place in the log, which the store gives. The checksum is over its room, epoch and time too."""
    people = list(dict.fromkeys(entry.authors))
    numbers = {author: number for number, author in enumerate(people)}
    names = orjson.dumps([each[:3] for each in people])
    count = len(entry.updates)
    body = b"".join(
        (
            _HEAD.pack(FORMAT, len(names), count),
            names,
            pack_numbers(
                f"<{2 * count}I",
                *map(len, entry.updates),
                *(numbers[author] for author in entry.authors),
            ),
            *entry.updates,
        )
    )
    return _CHECKSUM.pack(
        _checksum(entry.room, entry.epoch, entry.milliseconds, body)
    ) + bytes(body)


def pack_abouts(entry: Entry, record: bytes) -> bytes:
    """What is known about the authors of a packed entry, in a field of its own: so the version before reads the rest.

    b"" where that is nothing.
    """
    abouts = [author.about for author in dict.fromkeys(entry.authors)]
    if not any(abouts):
        return b""
    encoded = orjson.dumps(abouts)
    mark = record[: _CHECKSUM.size]
    return _CHECKSUM.pack(crc32(encoded, crc32(mark))) + encoded


def _abouts(field: bytes, record: bytes, people: int) -> list[str]:
    encoded = field[_CHECKSUM.size :]
    mark = record[: _CHECKSUM.size]
    if field[: _CHECKSUM.size] != _CHECKSUM.pack(crc32(encoded, crc32(mark))):
        raise Damaged
    abouts = orjson.loads(encoded)
    if not isinstance(abouts, list) or len(abouts) != people:
        raise Damaged
    return abouts


def _checksum(room: str, epoch: str, milliseconds: int, body: bytes) -> int:
    return crc32(body, crc32(f"{room}\0{epoch}\0{milliseconds}".encode()))


def unpack_entry(
    room: str, epoch: str, place: bytes, fields: Mapping[bytes, bytes]
) -> Piece:
    """What stands at one place of the stream. Damaged when it is not as written, RoomUnavailable when it is newer."""
    try:
        last, milliseconds = int(place.partition(b"-")[0]), int(fields[b"m"])
        record, known = fields[b"e"], int(fields.get(b"s", 0))
        body = record[_CHECKSUM.size :]
        (checksum,) = _CHECKSUM.unpack_from(record)
        if checksum != _checksum(room, epoch, milliseconds, body):
            raise Damaged
        format, length, count = _HEAD.unpack_from(body)
        if format > FORMAT:
            raise RoomUnavailable(
                f"room {spoken(room)} was written by a newer version of the server"
            )
        at = _HEAD.size + length
        names = orjson.loads(body[_HEAD.size : at])
        abouts = [""] * len(names)
        if b"a" in fields:
            abouts = _abouts(fields[b"a"], record, len(names))
        people = [_author(*each) for each in zip(names, abouts, strict=True)]
        numbers = unpack_from(f"<{2 * count}I", body, at)
        authors = [people[number] for number in numbers[count:]]
    except (LookupError, ValueError, TypeError, error):
        raise Damaged from None
    at += 8 * count
    if not 0 <= known < count or at + sum(numbers[:count]) != len(body):
        raise Damaged
    updates = []
    for length in numbers[:count]:
        updates.append(body[at : at + length])
        at += length
    return Piece(
        last - (count - known) + 1,
        milliseconds,
        authors[known:],
        updates[known:],
        record[: _CHECKSUM.size],
    )


def _author(name: Sequence[str], about: str) -> Author:
    principal, connection, turn = name
    if not all(isinstance(each, str) for each in (principal, connection, about)):
        raise TypeError
    if not (turn is None or isinstance(turn, str)):
        raise TypeError
    return Author(principal, connection, turn, about)


def checkpoint_checksum(room: str, epoch: str, position: int, snapshot: bytes) -> int:
    """What stands beside a checkpoint."""
    return crc32(snapshot, crc32(f"{room}\0{epoch}\0{position}".encode()))


def attribution_checksum(room: str, epoch: str, position: int, encoded: bytes) -> int:
    """What stands beside an attribution."""
    return crc32(encoded, crc32(f"{room}\0{epoch}\0attribution {position}".encode()))


def seal(room: str, field: str, text: str) -> str:
    """A small record with its checksum before it."""
    checksum = crc32(f"{room}\0{field}\0{text}".encode())
    return f"{checksum:08x}{text}"


def unseal(room: str, field: str, record: bytes) -> str:
    """The record without it. Raises Damaged."""
    try:
        text = record[8:].decode()
    except ValueError:
        raise Damaged from None
    if seal(room, field, text).encode() != record:
        raise Damaged
    return text


def pack_answer(key: str, milliseconds: int, remembered: Remembered) -> bytes:
    """An answer and its time."""
    digest, answer = remembered
    checksum = answer_checksum(key, milliseconds, digest, answer)
    return _ANSWER.pack(checksum, milliseconds, len(digest)) + digest + answer


def unpack_answer(key: str, record: bytes) -> tuple[int, Remembered]:
    """Its time and the answer. Raises Damaged."""
    try:
        checksum, milliseconds, length = _ANSWER.unpack_from(record)
    except error:
        raise Damaged from None
    rest = record[_ANSWER.size :]
    digest, answer = rest[:length], rest[length:]
    if checksum != answer_checksum(key, milliseconds, digest, answer):
        raise Damaged
    return milliseconds, Remembered(digest, answer)

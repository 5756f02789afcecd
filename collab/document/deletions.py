"""What has been deleted from a document: a state vector does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

from collab.errors import InvalidMessage
from collab.protocol.varint import Reader, encode_varint

Ranges = dict[int, list[tuple[int, int]]]

HASH_BYTES = 16


_numbers = re.compile(rb"[\x80-\xff]*[\x00-\x7f]").findall


def deletions(update: bytes) -> Ranges:
    """Deleted ranges (from, up to) by client, joined and in order, of an update against the document's own vector.

    Raises InvalidMessage when that brings structs.
    """
    reader = Reader(update)
    deleted: Ranges = {}
    try:
        for _ in range(_clients(reader)):
            client, count = reader.read_varint(), reader.read_varint()
            deleted[client], reader.at = _ranges(update, reader.at, count)
    except IndexError:
        raise InvalidMessage("the message ends too early") from None
    return deleted


def counted(update: bytes) -> tuple[int, int]:
    """How many ranges such an update deletes, and how much is in them: in a fraction of the time, where no two overlap.

    Raises InvalidMessage when that brings structs.
    """
    _clients(Reader(update))
    numbers, sizes = _numbers(update), _Sizes()
    at, ranges, units = 2, 0, 0
    while at < len(numbers):
        count = sizes[numbers[at + 1]]
        at += 2
        units += sum(map(sizes.__getitem__, numbers[at + 1 : at + 2 * count : 2]))
        ranges += count
        at += 2 * count
    return ranges, units


def _clients(reader: Reader) -> int:
    if reader.read_varint() != 0:
        raise InvalidMessage("an update against the own state vector brings structs")
    return reader.read_varint()


def _ranges(update: bytes, at: int, count: int) -> tuple[list[tuple[int, int]], int]:
    """So many ranges, and where they end. Number by number by `Reader`, this takes three times as long."""
    found: list[tuple[int, int]] = []
    last, is_ordered = -1, True
    for _ in range(count):
        clock = update[at]
        at += 1
        if clock > 127:
            byte, shift = clock, 7
            clock &= 127
            while byte > 127:
                byte = update[at]
                at += 1
                clock |= (byte & 127) << shift
                shift += 7
        size = update[at]
        at += 1
        if size > 127:
            byte, shift = size, 7
            size &= 127
            while byte > 127:
                byte = update[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
        if clock <= last:
            is_ordered = False
        last = clock + size
        found.append((clock, last))
    return (found if is_ordered else joined(sorted(found))), at


class _Sizes(dict[bytes, int]):
    """Numbers as they are written; most ranges are as long as many others."""

    def __missing__(self, written: bytes) -> int:
        number = self[written] = Reader(written).read_varint()
        return number


def hashed(deleted: Ranges) -> bytes:
    """The same for equal deletions, in whatever order and pieces they came."""
    numbers = []
    for client in sorted(deleted):
        numbers += [client, len(deleted[client])]
        for start, end in deleted[client]:
            numbers += [start, end]
    return sha256(b"".join(map(encode_varint, numbers))).digest()[:HASH_BYTES]


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for clock, end in ranges:
        if found and clock <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((clock, end))
    return found

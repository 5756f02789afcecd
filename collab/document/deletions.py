"""What has been deleted from a document: a state vector does not say."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from collab.errors import InvalidMessage
from collab.protocol.varint import Reader, encode_varint

Ranges = dict[int, list[tuple[int, int]]]

HASH_BYTES = 16


def deletions(update: bytes) -> Ranges:
    """Deleted ranges (from, up to) by client, joined and in order, of an update against the document's own vector.

    Raises InvalidMessage when that brings structs.
    """
    reader = Reader(update)
    if reader.read_varint() != 0:
        raise InvalidMessage("an update against the own state vector brings structs")
    deleted: Ranges = {}
    for _ in range(reader.read_varint()):
        client, count = reader.read_varint(), reader.read_varint()
        ranges = []
        for _ in range(count):
            clock = reader.read_varint()
            ranges.append((clock, clock + reader.read_varint()))
        deleted[client] = joined(sorted(ranges))
    return deleted


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

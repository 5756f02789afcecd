"""State vectors: what of each client somebody has."""

from __future__ import annotations

from collections.abc import Mapping

from collab.errors import Refused
from collab.protocol.structs import IDS, MAX_CLOCK, match_pair, number_at, number_of
from collab.protocol.varint import encode_varint

Vector = dict[int, int]  # client → its next clock


def state_vector(encoded: bytes) -> Vector:
    """A peer's state vector, read as strictly as an update."""
    try:
        count, p = number_at(encoded, 0)
    except IndexError:
        raise Refused("truncated") from None
    if count > len(encoded) - p:
        raise Refused("count")
    vector: Vector = {}
    for _ in range(count):
        match = match_pair(encoded, p)
        if match is None:
            raise Refused("state vector")
        client, clock = IDS[match[1]], number_of(match[2])
        if clock >= MAX_CLOCK:
            raise Refused("clock")
        vector[client] = clock
        p = match.end()
    if p != len(encoded):
        raise Refused("trailing bytes")
    if len(vector) != count:
        raise Refused("client twice")
    return vector


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """The same bytes for equal vectors: clients in order, those never heard of left out."""
    entries = sorted((client, clock) for client, clock in vector.items() if clock > 0)
    parts = [encode_varint(len(entries))]
    for client, clock in entries:
        parts += (encode_varint(client), encode_varint(clock))
    return b"".join(parts)

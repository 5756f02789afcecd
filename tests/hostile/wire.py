"""Bytes as a client writes them, right or wrong: numbers, messages, updates and frames.

Written from the formats' descriptions and not with the server's codec, which these tests are to try.
"""

from __future__ import annotations

import os
import struct as packing
from collections.abc import Iterable

NOTHING = b"\x00\x00"  # the update that holds nothing


# Numbers and strings (lib0)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def padded(number: int, size: int) -> bytes:
    """The number with more bytes than it needs."""
    encoded = [(number >> 7 * at) & 127 | 128 for at in range(size)]
    encoded[-1] &= 127
    return bytes(encoded)


def read_varint(encoded: bytes, at: int = 0) -> tuple[int, int]:
    """The number there and where it ends."""
    value = shift = 0
    while True:
        byte = encoded[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def string(text: str | bytes) -> bytes:
    encoded = text if isinstance(text, bytes) else text.encode()
    return varint(len(encoded)) + encoded


def read_string(encoded: bytes, at: int = 0) -> tuple[bytes, int]:
    length, at = read_varint(encoded, at)
    return encoded[at : at + length], at + length


# Messages (y-protocols)


def step_1(state_vector: bytes = b"\x00") -> bytes:
    return b"\x00\x00" + string(state_vector)


def step_2(update: bytes) -> bytes:
    return b"\x00\x01" + string(update)


def update_of(update: bytes) -> bytes:
    return b"\x00\x02" + string(update)


def awareness(
    *entries: tuple[int, int, str | bytes], count: int | None = None
) -> bytes:
    """Who is here: client id, clock, JSON each; `count` claims another number of them."""
    body = varint(len(entries) if count is None else count)
    for client, clock, json in entries:
        body += varint(client) + varint(clock) + string(json)
    return b"\x01" + string(body)


QUERY_AWARENESS = b"\x03"


def read_awareness(message: bytes) -> list[tuple[int, int, bytes]]:
    """The entries of a presence message."""
    body, _ = read_string(message, 1)
    count, at = read_varint(body)
    entries = []
    for _ in range(count):
        client, at = read_varint(body, at)
        clock, at = read_varint(body, at)
        json, at = read_string(body, at)
        entries.append((client, clock, json))
    return entries


# Updates (Yjs, version 1)

GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, SUBDOCUMENT, SKIP, MOVE = (
    range(12)
)

Id = tuple[int, int]


def item(
    kind: int,
    content: bytes,
    *,
    origin: Id | None = None,
    right: Id | None = None,
    root: str | bytes | None = None,
    parent: Id | None = None,
    key: str | None = None,
) -> bytes:
    """One struct, behind `origin` and before `right` or first in a root or another struct."""
    info = (
        kind
        | (0x80 if origin else 0)
        | (0x40 if right else 0)
        | (0x20 if key is not None else 0)
    )
    encoded = bytes((info,))
    for neighbour in (origin, right):
        if neighbour:
            encoded += varint(neighbour[0]) + varint(neighbour[1])
    if not origin and not right:
        if parent is not None:
            encoded += b"\x00" + varint(parent[0]) + varint(parent[1])
        else:
            encoded += b"\x01" + string("text" if root is None else root)
        if key is not None:
            encoded += string(key)
    return encoded + content


def section(client: int, clock: int, *items: bytes, count: int | None = None) -> bytes:
    """Structs of one client from a clock on."""
    return (
        varint(len(items) if count is None else count)
        + varint(client)
        + varint(clock)
        + b"".join(items)
    )


def deletes(*clients: tuple[int, Iterable[tuple[int, int]]]) -> bytes:
    """Deleted ranges (clock, length) by client."""
    encoded = varint(len(clients))
    for client, ranges in clients:
        spans = list(ranges)
        encoded += (
            varint(client)
            + varint(len(spans))
            + b"".join(varint(c) + varint(n) for c, n in spans)
        )
    return encoded


def update(*sections: bytes, gone: bytes = b"\x00", count: int | None = None) -> bytes:
    return varint(len(sections) if count is None else count) + b"".join(sections) + gone


def insertion(
    client: int,
    clock: int,
    text: str | bytes,
    *,
    root: str = "text",
    origin: Id | None = None,
) -> bytes:
    """Text at the start of a root or behind something."""
    return update(
        section(client, clock, item(STRING, string(text), root=root, origin=origin))
    )


def keystroke(client: int, clock: int, character: str) -> bytes:
    """One more character behind the client's last one."""
    return insertion(
        client, clock, character, origin=(client, clock - 1) if clock else None
    )


def any_of(content: bytes, client: int = 1) -> bytes:
    """An update with one value of lib0's "any" encoding in a root array."""
    return update(section(client, 0, item(ANY, b"\x01" + content, root="array")))


def state_vector(*entries: Id) -> bytes:
    return varint(len(entries)) + b"".join(
        varint(client) + varint(clock) for client, clock in entries
    )


# WebSocket frames (RFC 6455)

CONTINUATION, TEXT, BINARY_FRAME, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NO_MASK = b"\0\0\0\0"  # masked by the letter, without the work


def masked(content: bytes, key: bytes) -> bytes:
    if key == NO_MASK or not content:
        return content
    whole = (key * (len(content) // 4 + 1))[: len(content)]
    return (int.from_bytes(content, "big") ^ int.from_bytes(whole, "big")).to_bytes(
        len(content), "big"
    )


def frame(
    content: bytes,
    opcode: int = BINARY_FRAME,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = NO_MASK,
    length: int | None = None,
) -> bytes:
    """One frame of a client; `mask=None` sends it bare, `length` claims another length."""
    claimed = len(content) if length is None else length
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    bit = 0 if mask is None else 0x80
    if claimed < 126:
        head += bytes((bit | claimed,))
    elif claimed < 65_536:
        head += bytes((bit | 126,)) + packing.pack(">H", claimed)
    else:
        head += bytes((bit | 127,)) + packing.pack(">Q", claimed)
    return head + content if mask is None else head + mask + masked(content, mask)


def honest_frame(content: bytes) -> bytes:
    """As a browser sends it: with a mask nobody can foresee."""
    return frame(content, mask=os.urandom(4))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(code.to_bytes(2, "big") + reason, CLOSE)

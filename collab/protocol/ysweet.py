"""The Y-Sweet dialect: y-websocket's messages, and a barrier that serves as acknowledgement and heart-beat."""

from __future__ import annotations

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import (
    AwarenessUpdate,
    Barrier,
    Message,
    QueryAwareness,
    Unknown,
)
from collab.protocol.varint import Reader, encode_bytes

BARRIER = 102

_BARRIER_TYPE = bytes((BARRIER,))


def decode(frame: bytes) -> list[Message]:
    """The message of one frame: this client writes one in each. Raises InvalidMessage."""
    if not frame:
        raise InvalidMessage("an empty message")
    reader = Reader(frame)
    kind = reader.read_varint()
    message: Message
    if kind == yjs.SYNC:
        message = yjs.read_sync(reader)
    elif kind == yjs.AWARENESS:
        message = AwarenessUpdate(reader.read_bytes())
    elif kind == BARRIER:
        message = Barrier(reader.read_bytes())
    elif kind == yjs.QUERY_AWARENESS:
        return [
            QueryAwareness()
        ]  # its answer to a query is a query with a state behind it; we never ask
    else:
        return [Unknown(kind)]
    reader.expect_end()
    return [message]


def barrier(token: bytes) -> bytes:
    return _BARRIER_TYPE + encode_bytes(token)

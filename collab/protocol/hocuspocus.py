"""The Hocuspocus dialect: many documents on one socket, each message behind the address of its document.

Source: `@hocuspocus/provider` 2 to 4 (`MessageReceiver`, `OutgoingMessages`) and `@hocuspocus/common`. A frame is
`varString address`, `varUint type`, body. The address is the room's name, or the name, NUL and a session id when
the same document is open twice on one socket (version 4). What we send carries the address as we received it.
"""

from __future__ import annotations

from typing import NamedTuple

from collab.errors import InvalidMessage, TooLarge
from collab.protocol import yjs
from collab.protocol.messages import (
    Auth,
    AwarenessUpdate,
    Detach,
    Message,
    Pong,
    QueryAwareness,
    Stateless,
    Unknown,
    Update,
)
from collab.protocol.varint import Reader, encode_string

STATELESS, BROADCAST_STATELESS, CLOSE, SYNC_STATUS, PING, PONG = 5, 6, 7, 8, 9, 10
TOKEN, DENIED, AUTHENTICATED = 0, 1, 2

MAX_ADDRESS_BYTES = 512
MAX_VERSION_BYTES = 64

PING_MESSAGE = bytes((PING,))  # concerns the socket: it has no address
APPLIED = b"\x08\x01"
NOT_APPLIED = b"\x08\x00"
TOKEN_REQUEST = b"\x02\x00"  # say your token again; version 2 passes over it


class Addressed(NamedTuple):
    """A message and the document it is for; the address is as received, its length included."""

    address: bytes
    message: Message


def decode(frame: bytes, *, max_stateless_bytes: int = 65_536) -> Addressed:
    """The message of one frame: these clients write one in each. Raises InvalidMessage."""
    if frame == b"\x0a":
        return Addressed(b"", Pong())
    if not frame:
        raise InvalidMessage("an empty message")
    reader = Reader(frame)
    reader.read_string(MAX_ADDRESS_BYTES)
    at = reader.at
    address = frame[:at]
    if (
        frame[at : at + 2] == b"\x00\x02"
        and len(frame) > at + 2
        and frame[at + 2] == len(frame) - at - 3 < 128
    ):
        return Addressed(address, Update(frame[at + 3 :]))  # a keystroke
    kind = reader.read_varint()
    message: Message
    if kind == yjs.SYNC:
        message = yjs.read_sync(reader)
    elif kind == yjs.AWARENESS:
        message = AwarenessUpdate(reader.read_bytes())
    elif kind == yjs.AUTH:
        message = _read_auth(reader)
    elif kind == yjs.QUERY_AWARENESS:
        message = QueryAwareness()
    elif kind == STATELESS:
        if Reader(frame, reader.at).read_varint() > max_stateless_bytes:
            raise TooLarge("stateless bytes")
        message = Stateless(reader.read_string(max_stateless_bytes))
    elif kind == CLOSE:
        return Addressed(address, Detach())  # some versions add a reason
    else:
        return Addressed(address, Unknown(kind))
    reader.expect_end()
    return Addressed(address, message)


def _read_auth(reader: Reader) -> Auth:
    kind = reader.read_varint()
    if kind != TOKEN:
        raise InvalidMessage(f"unknown authentication message {kind}")
    token = reader.read_string(yjs.MAX_TOKEN_BYTES)
    version = None if reader.at_end else reader.read_string(MAX_VERSION_BYTES)
    return Auth(token, version)


def room_of(address: bytes) -> str:
    """The name of the room an address means; what follows a NUL tells sessions apart. Raises InvalidMessage."""
    name, nul, session = (
        Reader(address).read_string(MAX_ADDRESS_BYTES).partition("\x00")
    )
    if nul and (not session or "\x00" in session):
        raise InvalidMessage(
            "an address is a room's name, or the name, NUL and a session id"
        )
    return name


def authenticated(*, may_write: bool) -> bytes:
    return b"\x02\x02" + encode_string("read-write" if may_write else "readonly")


def permission_denied(reason: str) -> bytes:
    return b"\x02\x01" + encode_string(reason)


def stateless(text: str) -> bytes:
    return bytes((STATELESS,)) + encode_string(text)


def close(reason: str) -> bytes:
    """Ends one document; the client comes back to it only when its socket reconnects."""
    return bytes((CLOSE,)) + encode_string(reason)

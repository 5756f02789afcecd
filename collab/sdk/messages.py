"""What the server says in `collab.v1`, and what a client says beyond a stock one."""

from __future__ import annotations

from typing import NamedTuple

from collab.protocol import yjs
from collab.protocol.messages import AwarenessUpdate, SyncStep1, SyncStep2, Update
from collab.protocol.varint import Reader, encode_string

MAX_STRING_BYTES = 65_536
MAX_UPDATE_BYTES = 1 << 19  # that a server takes which does not say how many


class Hello(NamedTuple):
    """The first message: which protocol and which history, whether this member can edit it now, and how much at once.

    Said once more when the history of an empty room begins.
    """

    version: int
    epoch: str
    is_writable: bool
    max_update_bytes: int = MAX_UPDATE_BYTES


class Ack(NamedTuple):
    """The first so many updates of this connection are in the log."""

    sequence: int
    position: int
    level: int


class RefusedUpdate(NamedTuple):
    """That update of this connection was not taken."""

    sequence: int
    code: str
    reason: str


class Notice(NamedTuple):
    """`drain`, `read-only`, `writable`, `expires`."""

    kind: str
    milliseconds: int


class EndedTurn(NamedTuple):
    """A turn of this connection is over, and not because the member said so."""

    turn: str
    code: str
    reason: str


ServerMessage = (
    Hello
    | Ack
    | RefusedUpdate
    | Notice
    | EndedTurn
    | SyncStep1
    | SyncStep2
    | Update
    | AwarenessUpdate
)


def decode(frame: bytes) -> ServerMessage | None:
    """The message of a frame; None for a type that a later version has added. Raises InvalidMessage."""
    reader = Reader(frame)
    kind = reader.read_varint()
    message: ServerMessage
    if kind == yjs.SYNC:
        message = yjs.read_sync(reader)
    elif kind == yjs.AWARENESS:
        message = AwarenessUpdate(reader.read_bytes())
    elif kind == yjs.ACK:
        message = Ack(reader.read_varint(), reader.read_varint(), reader.read_varint())
    elif kind == yjs.HELLO:
        return _hello(reader)
    elif kind == yjs.REFUSED:
        message = RefusedUpdate(reader.read_varint(), _string(reader), _string(reader))
    elif kind == yjs.NOTICE:
        message = Notice(_string(reader), reader.read_varint())
    elif kind == yjs.TURN_ENDED:
        message = EndedTurn(_string(reader), _string(reader), _string(reader))
    else:
        return None
    reader.expect_end()
    return message


def _hello(reader: Reader) -> Hello:
    """An earlier version ends it sooner, a later one may go on."""
    version, epoch, state = reader.read_varint(), _string(reader), _string(reader)
    if reader.at_end:
        return Hello(version, epoch, state == "live")
    return Hello(version, epoch, state == "live", reader.read_varint())


def _string(reader: Reader) -> str:
    return reader.read_string(MAX_STRING_BYTES)


def token(token: str) -> bytes:
    """The next token of this connection."""
    return bytes((yjs.TOKEN,)) + encode_string(token)


def turn(id: str, about: str) -> bytes:
    """The updates after this belong to that turn; "" ends it."""
    return bytes((yjs.TURN,)) + encode_string(id) + encode_string(about)


def cancel(turn: str, principal: str) -> bytes:
    """Stop that turn, whoever has it."""
    return bytes((yjs.CANCEL,)) + encode_string(turn) + encode_string(principal)

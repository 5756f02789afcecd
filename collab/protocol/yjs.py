"""The y-websocket dialect, which is also the inside of the other two.

A message is `varUint type` and a body (y-protocols `sync.js`, `awareness.js`; y-websocket `y-websocket.js`). A frame
of a client may hold several messages; ours hold one each, since y-websocket 3 and Y-Sweet read only the first.
"""

from __future__ import annotations

from collab.errors import InvalidMessage
from collab.protocol.messages import (
    AwarenessUpdate,
    BeginTurn,
    CancelTurn,
    Message,
    QueryAwareness,
    Renewal,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
)
from collab.protocol.varint import Reader, encode_bytes, encode_string, encode_varint
from collab.turns import MAX_ABOUT_BYTES, MAX_TURN_CHARACTERS, checked_turn, read_said

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = 0, 1, 2, 3
STEP_1, STEP_2, UPDATE = 0, 1, 2

# Subprotocol of clients that want to know more; the numbers avoid every type in use by Hocuspocus and Y-Sweet.
COLLAB_V1 = "collab.v1"
HELLO, ACK, REFUSED, NOTICE, TOKEN = 110, 111, 112, 113, 114
TURN, TURN_ENDED, CANCEL = 115, 116, 117
LOGGED = 2  # level of an acknowledgement: committed to the room's log

# How a browser shows a token: as one more subprotocol, which is never answered.
TOKEN_PREFIX = "collab.token."
MAX_TOKEN_BYTES = 16_384
MAX_PRINCIPAL_BYTES = 256

NOTHING = b"\x00\x00"  # an update that holds nothing
KEEP_ALIVE = b"\x01\x01\x00"  # an awareness update about nobody: the shortest message every client understands


_V1_TYPES = frozenset((TOKEN, TURN, CANCEL))


def keystroke(frame: bytes) -> bytes | None:
    """The update of a frame that holds one short update and nothing else, as nearly all do."""
    if frame[:2] == b"\x00\x02" and len(frame) > 2 and frame[2] == len(frame) - 3 < 128:
        return frame[3:]
    return None


def decode(frame: bytes) -> list[Message]:
    """The messages of one frame of a client. Raises InvalidMessage."""
    if not frame:
        raise InvalidMessage("an empty message")
    reader = Reader(frame)
    messages: list[Message] = []
    while not reader.at_end:
        kind = reader.read_varint()
        if kind == SYNC:
            messages.append(read_sync(reader))
        elif kind == AWARENESS:
            messages.append(AwarenessUpdate(reader.read_bytes()))
        elif kind == QUERY_AWARENESS:
            messages.append(QueryAwareness())
        else:
            messages.append(
                Unknown(kind)
            )  # its length is unknown too: what follows it is skipped
            break
    return messages


def read_sync(reader: Reader) -> SyncStep1 | SyncStep2 | Update:
    """What follows the type of a sync message."""
    step = reader.read_varint()
    if step == UPDATE:
        return Update(reader.read_bytes())
    if step == STEP_2:
        return SyncStep2(reader.read_bytes())
    if step == STEP_1:
        return SyncStep1(reader.read_bytes())
    raise InvalidMessage(f"unknown sync message {step}")


def decode_v1(frame: bytes) -> Renewal | BeginTurn | CancelTurn | None:
    """What only clients of `collab.v1` say; None when the frame says something else. Raises InvalidMessage."""
    kind = frame[0] if frame else SYNC
    if kind not in _V1_TYPES:
        return None
    reader = Reader(frame, 1)
    said: Renewal | BeginTurn | CancelTurn
    if kind == TOKEN:
        said = Renewal(reader.read_string(MAX_TOKEN_BYTES))
    elif kind == TURN:
        id = reader.read_string(MAX_TURN_CHARACTERS)
        about = read_said(reader.read_string(MAX_ABOUT_BYTES))
        said = BeginTurn(id and checked_turn(id), about)
    else:
        id = checked_turn(reader.read_string(MAX_TURN_CHARACTERS))
        said = CancelTurn(id, reader.read_string(MAX_PRINCIPAL_BYTES))
    reader.expect_end()
    return said


def sync_step_1(state_vector: bytes) -> bytes:
    return b"\x00\x00" + encode_bytes(state_vector)


def sync_step_2(update: bytes) -> bytes:
    return b"\x00\x01" + encode_bytes(update)


def update_message(update: bytes) -> bytes:
    n = len(update)
    if n < 128:
        return bytes((SYNC, UPDATE, n)) + update
    return b"\x00\x02" + encode_bytes(update)


def awareness_message(states: bytes) -> bytes:
    return b"\x01" + encode_bytes(states)


def permission_denied(reason: str) -> bytes:
    """Stock clients log it as a warning."""
    return b"\x02\x00" + encode_string(reason)


def hello(epoch: str, *, is_writable: bool, max_update_bytes: int) -> bytes:
    """The first message of `collab.v1`: version of the protocol, history of the room, whether this member can edit it
    now, and how long an update may be.
    """
    return (
        bytes((HELLO, 1))
        + encode_string(epoch)
        + encode_string("live" if is_writable else "read-only")
        + encode_varint(max_update_bytes)
    )


def ack(sequence: int, position: int) -> bytes:
    """All messages that carry updates, up to the `sequence`th of this connection, are in the log up to `position`."""
    return (
        bytes((ACK,))
        + encode_varint(sequence)
        + encode_varint(position)
        + bytes((LOGGED,))
    )


def refused(sequence: int, code: str, reason: str) -> bytes:
    """The `sequence`th update of this connection was not taken."""
    return (
        bytes((REFUSED,))
        + encode_varint(sequence)
        + encode_string(code)
        + encode_string(reason)
    )


def notice(kind: str, milliseconds: int = 0) -> bytes:
    """Something the client should know: `drain`, `read-only`, `writable`, `expires`."""
    return bytes((NOTICE,)) + encode_string(kind) + encode_varint(milliseconds)


def turn(id: str, said: str = "") -> bytes:
    """What is written from now on belongs to this turn, "" being none; `said` is JSON with task, model and reason."""
    return bytes((TURN,)) + encode_string(id) + encode_string(said)


def turn_ended(id: str, code: str, reason: str) -> bytes:
    """No more of this turn is taken, or with `turn_cancelled` soon."""
    return (
        bytes((TURN_ENDED,))
        + encode_string(id)
        + encode_string(code)
        + encode_string(reason)
    )


def cancel(id: str, principal: str = "") -> bytes:
    """Stop this turn of a principal, "" being whoever has it open."""
    return bytes((CANCEL,)) + encode_string(id) + encode_string(principal)

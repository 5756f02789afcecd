"""Every error a peer or an operator can meet, with its stable code, HTTP status and close code."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import ClassVar


class CollabError(Exception):
    """The family of all expected errors; the message is fit to be shown to the peer.

    Close codes 4400 to 4499 tell a client not to come back until something changes,
    4500 to 4599 and the standard 1012 and 1013 to come back later.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    is_audited = False  # the audit log has it, when it belongs there


class ProtocolViolation(CollabError):
    """The peer broke the WebSocket protocol (RFC 6455)."""

    code = "protocol_violation"
    http_status = 400
    close_code = 1002


class UnsupportedFrame(CollabError):
    """A text frame where only binary frames are spoken."""

    code = "unsupported_frame"
    http_status = 415
    close_code = 1003


class FrameTooBig(CollabError):
    """A frame or message is longer than the limit, or comes in too many fragments."""

    code = "frame_too_big"
    http_status = 413
    close_code = 1009


class InvalidMessage(CollabError):
    """The bytes do not follow the protocol."""

    code = "invalid_message"
    http_status = 400
    close_code = 4400


class Refused(InvalidMessage):
    """An update, state vector or presence state breaks a structural rule; `rule` is a constant word for metrics."""

    code = "refused"

    def __init__(self, rule: str) -> None:
        super().__init__(f"refused: {rule}")
        self.rule = rule


class TooLarge(Refused):
    """Well-formed, but more than the limits allow."""

    code = "too_large"
    http_status = 413
    close_code = 4413


class InvalidRoomName(InvalidMessage):
    """Room names are 1 to 256 bytes of UTF-8 in normal form C without control characters, and not `.` or `..`."""

    code = "invalid_room_name"


class Unauthenticated(CollabError):
    """No credential, or one that is not valid: expired, revoked, not ours. The message never says more than that."""

    code = "unauthenticated"
    http_status = 401
    close_code = 4401


class PermissionDenied(CollabError):
    """The member may not do this in this room."""

    code = "permission_denied"
    http_status = 403
    close_code = 4403


class RoomNotFound(CollabError):
    """There is no such room, or it was deleted."""

    code = "room_not_found"
    http_status = 404
    close_code = 4404


class RootNotFound(RoomNotFound):
    """The document has no root of that name."""

    code = "root_not_found"


class InvalidRequest(InvalidMessage):
    """The request's body, query or header is not what the route takes; the message says where."""

    code = "invalid_request"

    def __init__(self, message: str, places: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.places = places  # JSON pointers, and what is expected there


class InsideCharacter(InvalidMessage):
    """An offset between the bytes, or the two UTF-16 units, of one character."""

    code = "inside_character"


class AnchorNotFound(InvalidMessage):
    """The anchor names nothing that the document has or had: an unknown id, or one in a part that is gone whole."""

    code = "anchor_not_found"
    http_status = 404


class NothingHere(InvalidMessage):
    """There is nothing under this address."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(InvalidMessage):
    """The address does not know this method; the answer's `Allow` names those it does."""

    code = "method_not_allowed"
    http_status = 405


class UnsupportedMediaType(InvalidMessage):
    """The request's body is not of a type that the route takes, or is encoded."""

    code = "unsupported_media_type"
    http_status = 415


class Conflict(CollabError):
    """What was asked for contradicts what is there: the room exists, the key was used for something else."""

    code = "conflict"
    http_status = 409
    close_code = 4409


class TextNotFound(Conflict):
    """The text to be replaced is not in the document any more, or never was."""

    code = "text_not_found"


class AmbiguousText(Conflict):
    """The text to be replaced is there more than once; the message says where."""

    code = "ambiguous_text"

    def __init__(self, message: str, positions: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.positions = positions  # in characters, the first few


class TurnCancelled(Conflict):
    """Somebody has stopped this turn: what it still sends is not taken."""

    code = "turn_cancelled"


class LeaseLost(Conflict):
    """Another connection has taken this turn over, or its time is up: what this one still sends is not taken."""

    code = "lease_lost"


class OthersPresent(Conflict):
    """Too much of a document would be rewritten at once while others are in it, and the `rewrite` right is missing."""

    code = "others_present"


class HistoryGone(CollabError):
    """The log does not reach back to what was asked for: it is kept only for so long."""

    code = "history_gone"
    http_status = 410
    close_code = 4410


class PreconditionFailed(CollabError):
    """The document is no longer what `If-Match` names."""

    code = "precondition_failed"
    http_status = 412
    close_code = 4409


class NotYet(CollabError):
    """The log has not reached the position that was asked for."""

    code = "not_yet"
    http_status = 425
    close_code = 1013


class HandshakeTimeout(CollabError):
    """The peer connected and then did not say what it must say first."""

    code = "handshake_timeout"
    http_status = 408
    close_code = 4408


class ClientIdConflict(CollabError):
    """Content under a client id that belongs to another member, or at ids that another client with this id has used."""

    code = "client_id_conflict"
    http_status = 409
    close_code = 4409


class RateLimited(CollabError):
    """More than the limits allow. The reason ends with when to come back: not before."""

    code = "rate_limited"
    http_status = 429
    close_code = 4429

    def __init__(self, message: str, retry_seconds: float = 5.0) -> None:
        self.retry_seconds = ceil(retry_seconds)
        super().__init__(f"{message}; retry in {self.retry_seconds} s")


class Overrun(CollabError):
    """Too much was said before authentication ended, or too many documents opened on one socket.

    The code is the one Hocuspocus clients know.
    """

    code = "overrun"
    http_status = 429
    close_code = 4205


class SlowMember(CollabError):
    """The peer does not read what it is sent."""

    code = "slow_member"
    http_status = 503
    close_code = 1013


class Busy(CollabError):
    """The server has as much as it can hold; come back later."""

    code = "busy"
    http_status = 503
    close_code = 1013


class RoomUnavailable(CollabError):
    """The room cannot be opened now: it is quarantined, or its log could not be read."""

    code = "room_unavailable"
    http_status = 503
    close_code = 1013


class StoreUnavailable(CollabError):
    """The store cannot write, so nothing can be saved: the disk is full or failing."""

    code = "store_unavailable"
    http_status = 503
    close_code = 1013


class BusUnavailable(CollabError):
    """Redis does not answer in time: replicas do not hear each other until it does."""

    code = "bus_unavailable"
    http_status = 503
    close_code = 1013


class StoreLocked(CollabError):
    """Another process has this data directory open."""

    code = "store_locked"


class StoreCorrupt(CollabError):
    """A stored record does not match its checksum, or the file is not ours."""

    code = "store_corrupt"
    http_status = 503
    close_code = 1013


class Draining(CollabError):
    """The server is going down for a restart; reconnect to find another."""

    code = "draining"
    http_status = 503
    close_code = 1012


class DocumentBroken(CollabError):
    """Native code panicked: the live document can no longer be trusted and must be rebuilt from its log."""

    code = "document_broken"


class ConfigurationError(CollabError):
    """The server refuses to start like this; the message says what to change."""

    code = "configuration"

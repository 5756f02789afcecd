"""What can go wrong for a member, by name. The server's codes are translated here, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from collab.errors import CollabError

_retry = re.compile(r"retry in (\d{1,4}) s").search


class SdkError(CollabError):
    """The family of everything that the client raises on purpose."""

    code = "client"


class NotFound(SdkError):
    """The text, section, path, anchor, turn, position of the log or room is not there: not any more, or not yet."""

    code = "not_found"


class Ambiguous(SdkError):
    """What was to be replaced is there more than once; `candidates` says where, each with an anchor and a snippet."""

    code = "ambiguous"

    def __init__(self, message: str, candidates: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class StaleVersion(SdkError):
    """What was read has changed since; `changed` holds the spans that have."""

    code = "stale_version"

    def __init__(self, message: str, changed: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.changed = changed


class Conflict(SdkError):
    """It contradicts what is there: a diff that does not apply, a test that fails, others who are present."""

    code = "conflict"


class Invalid(SdkError, ValueError):
    """What was asked for makes no sense anywhere: an unknown word, a malformed diff, half a surrogate pair, a place
    outside.
    """

    code = "invalid"


class LeaseLost(SdkError):
    """Another connection has taken the turn over: what this one still writes is not taken."""

    code = "lease_lost"


class Forbidden(SdkError):
    """This member may not do this here: no right, a turn of another principal, a credential that is over."""

    code = "forbidden"


class RateLimited(SdkError):
    """More than the budget allows; not before `retry_seconds`."""

    code = "rate_limited"

    def __init__(self, message: str, retry_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Cancelled(SdkError):
    """Somebody has stopped the turn."""

    code = "cancelled"


class Refused(SdkError):
    """The server does not take it, for another reason; the message says which."""

    code = "refused"


class TooLarge(Refused):
    """More than the server takes; `limit_bytes` is how much of one value it takes at once, 0 for another limit."""

    code = "too_large"

    def __init__(self, message: str, limit_bytes: int = 0) -> None:
        super().__init__(message)
        self.limit_bytes = limit_bytes


class Unavailable(SdkError):
    """The server cannot be reached, or cannot save now; nothing is lost, and it is tried again."""

    code = "unavailable"


class AnotherHistory(SdkError):
    """The room was deleted and made anew, or restored from a backup: this document must not be merged into it."""

    code = "another_history"


class NotAcknowledged(SdkError):
    """No server says yet when it has reached this level; `logged` is the highest it speaks of."""

    code = "not_acknowledged"


_BY_CODE: dict[str, type[SdkError]] = {
    "unauthenticated": Forbidden,
    "permission_denied": Forbidden,
    "room_not_found": NotFound,
    "root_not_found": NotFound,
    "not_found": NotFound,
    "text_not_found": NotFound,
    "anchor_not_found": NotFound,
    "history_gone": NotFound,
    "not_yet": NotFound,
    "invalid_request": Invalid,
    "inside_character": Invalid,
    "ambiguous_text": Ambiguous,
    "conflict": Conflict,
    "others_present": Conflict,
    "client_id_conflict": Conflict,
    "precondition_failed": StaleVersion,
    "turn_cancelled": Cancelled,
    "lease_lost": LeaseLost,
    "too_large": TooLarge,
    "rate_limited": RateLimited,
    "overrun": RateLimited,
    "busy": Unavailable,
    "draining": Unavailable,
    "store_unavailable": Unavailable,
    "room_unavailable": Unavailable,
    "bus_unavailable": Unavailable,
}


def error_of(code: str, message: str) -> SdkError:
    """The error for a code of the server."""
    kind = _BY_CODE.get(code, Refused)
    when = _retry(message)
    if kind is RateLimited and when:
        return RateLimited(message, float(when[1]))
    return kind(message)

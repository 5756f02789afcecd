"""When to try again, and when not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import random

from collab import errors
from collab.sdk.errors import (
    Forbidden,
    NotFound,
    RateLimited,
    Refused,
    SdkError,
    Unavailable,
)
from collab.sdk.errors import error_of as error_of_code

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 30.0
MAX_ASKED_SECONDS = 3600.0  # no server makes a client wait longer than this
LIMITED_SECONDS = 5.0  # after too much was said, when the reason does not say

LIMITED = 4429
ABNORMAL = 1006
# The same bytes would be sent again and get the same answer.
_FINAL_STANDARD_CODES = frozenset({1002, 1003, 1007, 1009})

# Where whoever answers to a handshake does not say more. A server of ours does, so it may be somebody else.
_PATH = (
    "check the address: it is the server's own, and its rooms are under /ws/ behind it"
)
_CHECK = {
    401: "check what a proxy before the server asks for",
    403: f"{_PATH}; and what a proxy before it allows",
    404: _PATH,
}

_retry = re.compile(r"retry in (\d{1,4}) s").search

_BY_CLOSE_CODE = {
    4401: "unauthenticated",
    4403: "permission_denied",
    4404: "room_not_found",
    LIMITED: "rate_limited",
}


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection ended: the code and reason of the other side, or what this side makes of it."""

    code: int
    reason: str
    asked_seconds: float = 0.0  # not before: the server has said so
    error: SdkError | None = None  # where it is known better than by the code

    @property
    def is_final(self) -> bool:
        """Whether coming back is of no use until something changes."""
        code = self.code
        return (4400 <= code <= 4499 and code != LIMITED) or (
            code in _FINAL_STANDARD_CODES
        )

    def pause_seconds(self) -> float:
        """Before which there is no use in coming back."""
        if self.code != LIMITED or self.asked_seconds:
            return min(self.asked_seconds, MAX_ASKED_SECONDS)
        found = _retry(self.reason)
        return min(float(found[1]), MAX_ASKED_SECONDS) if found else LIMITED_SECONDS

    def as_error(self) -> SdkError:
        """What to tell a program."""
        if self.error is not None:
            return self.error
        reason = self.reason or f"the connection was closed with {self.code}"
        if self.code == LIMITED:
            return RateLimited(reason, self.pause_seconds())
        if self.code in _BY_CLOSE_CODE:
            return error_of_code(_BY_CLOSE_CODE[self.code], reason)
        return Refused(reason) if self.is_final else Unavailable(reason)


def closing_of_status(status: int, reason: str, retry_after: str | None) -> Closing:
    """For a handshake that was answered over HTTP."""
    seconds = (
        float(retry_after) if retry_after and retry_after.strip().isdecimal() else 0.0
    )
    hint = f": {_CHECK[status]}" if status in _CHECK else ""
    words = reason or f"the server answered with {status}{hint}"
    if status == errors.RateLimited.http_status:
        return Closing(LIMITED, words, seconds or LIMITED_SECONDS)
    if status in (401, 403):
        return Closing(4400 + status - 400, words, error=Forbidden(words))
    if status == 404:
        return Closing(4404, words, error=NotFound(words))
    if status < 300:
        return Closing(ABNORMAL, "what answers there is no such server")
    if status < 500:
        return Closing(4400, words)
    return Closing(ABNORMAL, words, seconds)


def delay(
    attempt: int,
    asked_seconds: float = 0.0,
    chance: Callable[[], float] = random,
) -> float:
    """Seconds to wait before the given attempt, counted from 0: full jitter, so that a herd does not come back as one.

    `asked_seconds` is what a server asked for before it went down: the wait is spread over at least that long.
    """
    grown = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 30))
    return chance() * max(grown, min(asked_seconds, MAX_ASKED_SECONDS))

"""HTTP bodies: orjson, and an error as problem+json (RFC 9457)."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from collab.errors import (
    AmbiguousText,
    CollabError,
    InvalidRequest,
    RateLimited,
    Refused,
)

RETRY_AFTER_SECONDS = 2

# What clients need to go on from an error.
_RETRY = {"retry-after": str(RETRY_AFTER_SECONDS)}
_HEADERS = {401: {"www-authenticate": "Bearer"}, 425: _RETRY, 429: _RETRY, 503: _RETRY}


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def problem(status: int, detail: str, code: str) -> dict[str, Any]:
    """The members that every error has (RFC 9457)."""
    return {
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
        "code": code,
    }


class Problem(Json):
    """What went wrong, for people and programs: `code` is the stable name of an error, as in a close reason.

    There is no `type`: what it would say is what `code` says.
    """

    media_type = "application/problem+json"

    def __init__(self, error: CollabError) -> None:
        content = problem(error.http_status, str(error), error.code)
        if isinstance(error, InvalidRequest) and error.places:
            content["errors"] = [
                {"pointer": pointer, "detail": detail}
                for pointer, detail in error.places
            ]
        if isinstance(error, Refused):
            content["rule"] = error.rule
        if isinstance(error, AmbiguousText):
            content["positions"] = list(error.positions)
        headers = _HEADERS.get(error.http_status)
        if isinstance(error, RateLimited):
            headers = {"retry-after": str(error.retry_seconds)}
        super().__init__(content, status_code=error.http_status, headers=headers)


async def answer_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for every CollabError."""
    assert isinstance(error, CollabError)
    return Problem(error)

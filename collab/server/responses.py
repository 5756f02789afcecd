"""HTTP bodies: orjson, and an error as problem+json (RFC 9457)."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from collab.errors import CollabError


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class Problem(Json):
    """`type` is left out: `code` is the stable name of an error, as in a close reason."""

    media_type = "application/problem+json"

    def __init__(self, error: CollabError) -> None:
        super().__init__(
            {
                "title": error.code,
                "status": error.http_status,
                "detail": str(error),
                "code": error.code,
            },
            status_code=error.http_status,
        )


async def answer_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for every CollabError."""
    assert isinstance(error, CollabError)
    return Problem(error)

"""What those who come first after the start do without: made in a thread, so that nobody's frames wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send


class Later(BaseRoute):
    """Hands all HTTP under a path on, as it came, to an application that is made when it is first asked for.

    `make` runs in a thread, and its imports with it.
    """

    def __init__(self, path: str, make: Callable[[], ASGIApp]) -> None:
        self.path, self._make = path, make
        self.app: ASGIApp | None = None
        self._making = asyncio.Lock()

    async def load(self) -> ASGIApp:
        """The application, once it is made."""
        async with self._making:
            if self.app is None:
                self.app = await asyncio.to_thread(self._make)
        return self.app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"]
        is_ours = path == self.path or path.startswith(f"{self.path}/")
        return (Match.FULL if is_ours and scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app or await self.load())(scope, receive, send)

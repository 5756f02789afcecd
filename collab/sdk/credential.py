"""Credential: the token that a program shows, and where its next one comes from."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from collab.sdk.errors import Forbidden, SdkError, Unavailable

Token = str | Callable[[], str | Awaitable[str]] | None

TOKEN_SECONDS = 15.0  # for the program to bring the next one

_TOKEN = re.compile(r"[!-~]{1,16384}").fullmatch

_log = logging.getLogger(__name__)


class Credential:
    """A token, or a function of the program that brings the next one each time it is asked."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._has_failed = False  # since it last brought one: it is told of once
        self.shown = ""  # over the socket, last

    @property
    def is_renewable(self) -> bool:
        """Whether another token may come."""
        return callable(self._token)

    async def next(self) -> str:
        """The token to show now, "" for none.

        Raises Forbidden for what is no token, Unavailable when the program's function brings none in time or fails, and
        what it raises of the client's own errors.
        """
        token = self._token
        if callable(token):
            token = await self._ask(token)
        if token and not _TOKEN(token):
            raise Forbidden("a token is of letters, digits and signs, without spaces")
        return token or ""

    async def current(self) -> str:
        """The one that the socket has shown, so that a program is not asked for another with each request."""
        return self.shown or await self.next()

    async def _ask(self, bring: Callable[[], str | Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(TOKEN_SECONDS):
                found = bring()
                token = await found if isawaitable(found) else found
        except SdkError:
            raise
        except Exception as error:
            kind = type(error).__name__  # what it says may be a secret
            if not self._has_failed:
                self._has_failed = True
                _log.warning("the program's function for tokens failed: %s", kind)
            raise Unavailable(
                f"the program has no token to show: its function raised {kind}"
            ) from error
        self._has_failed = False
        return token

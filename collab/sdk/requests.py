"""Questions and orders over HTTP, to the server that the socket speaks to and as the same principal."""

from __future__ import annotations

import asyncio
import random
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

import orjson

from collab.sdk.errors import (
    Invalid,
    RateLimited,
    Refused,
    SdkError,
    Unavailable,
    error_of,
)

if TYPE_CHECKING:
    import httpx2

REQUEST_SECONDS = 10.0  # of one attempt
ATTEMPTS = 4  # then Unavailable
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = (
    5.0  # what the server may ask for; with a longer one it is told to the caller
)
MAX_ANSWER_BYTES = 64 << 20
MAX_CONNECTIONS = 4
_LATER = {429, 502, 503, 504}


class Answer(NamedTuple):
    """What a request brought; `tag` is the ETag without quotes, "" when there is none."""

    content: bytes
    tag: str = ""

    def json(self) -> Any:
        """Raises Refused for what is no JSON."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:
            raise Refused("the server did not answer with JSON") from None


def quoted(text: str) -> str:
    """As a part of an address. Raises Invalid."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:  # half a surrogate pair
        raise Invalid("what is asked for is no text") from None


class Requests:
    """One server, by the address that `connection.base_url` gives, and one principal. Connects when it is first needed.

    What fails on the way is tried again, with pauses that grow and are drawn by lot: a reading because nothing comes of
    it, an order because it carries a key under which the server does it once.
    """

    def __init__(
        self,
        address: str,
        token: Callable[[], Awaitable[str]] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._address, self._token, self._tls = address, token, tls
        self._chance = chance or random.Random()
        self._client: httpx2.AsyncClient | None = None
        self._closed: SdkError | None = None  # why nothing is asked any more

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self, error: SdkError | None = None) -> None:
        """Ask nothing from here on: whoever does gets this error, or Unavailable."""
        self._closed = self._closed or error or Unavailable("the room was left")
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, path: str, /, **query: str | int | None) -> Answer:
        """What stands there. Raises the error that the server names."""
        known = {name: value for name, value in query.items() if value is not None}
        for value in known.values():
            quoted(str(value))
        return await self._ask("GET", path, query=known)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """An order, done once however often it has to be sent. Raises the error that the server names."""
        headers = {"idempotency-key": uuid.uuid4().hex}
        if body is None:
            return await self._ask("POST", path, headers=headers)
        headers["content-type"] = "application/json"
        try:
            content = orjson.dumps(body)
        except TypeError as error:
            raise Invalid(f"that is no JSON: {error}") from None
        return await self._ask("POST", path, headers=headers, content=content)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        for attempt in range(ATTEMPTS):
            try:
                return await self._attempt(method, path, query, headers, content)
            except (RateLimited, Unavailable, _UnderWay) as error:
                pause = self._pause(attempt, error)
                if attempt == ATTEMPTS - 1 or pause is None or self._closed is not None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, attempt: int, error: SdkError) -> float | None:
        """Until the next attempt; None when the server asks for more patience than there is here."""
        least = error.retry_seconds if isinstance(error, RateLimited) else 0.0
        if least > LONGEST_PAUSE_SECONDS:
            return None
        longest = FIRST_PAUSE_SECONDS * 2**attempt
        return least + self._chance.uniform(0, longest)

    async def _attempt(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None,
        content: bytes | None,
    ) -> Answer:
        import httpx2

        if self._closed is not None:
            raise self._closed
        client = self._client or self._connectable()
        token = await self._token() if self._token is not None else ""
        known = {"authorization": f"Bearer {token}"} if token else {}
        request = client.build_request(
            method,
            self._address + path,
            params=query,
            content=content,
            headers={"accept": "*/*", **known, **(headers or {})},
        )
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await client.send(request, stream=True)
                try:
                    found = bytearray()
                    async for chunk in response.aiter_bytes():
                        found += chunk
                        if len(found) > MAX_ANSWER_BYTES:
                            raise Refused("the server's answer is too long")
                finally:
                    await response.aclose()
        except TimeoutError:
            raise Unavailable("the server did not answer in time") from None
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError):
            raise Unavailable("the server cannot be reached") from None
        if response.is_success:
            return Answer(bytes(found), response.headers.get("etag", "").strip('"'))
        raise _error(response.status_code, response.headers, bytes(found))

    def _connectable(self) -> httpx2.AsyncClient:
        import httpx2

        self._client = httpx2.AsyncClient(
            verify=self._tls or True,
            follow_redirects=False,  # a token goes to nobody else
            timeout=REQUEST_SECONDS,
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
        )
        return self._client


class _UnderWay(SdkError):
    """The attempt before is still being carried out."""

    code = "conflict"


def _error(status: int, headers: Mapping[str, str], content: bytes) -> SdkError:
    """What a problem body (RFC 9457) says, or what the status alone does."""
    try:
        problem = orjson.loads(content)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, detail = "", f"the server answers with status {status}"
    if code == "conflict" and "under way" in detail:
        return _UnderWay(detail)
    error = error_of(code, detail)
    if status == 429:
        return RateLimited(detail, _seconds(headers.get("retry-after")))
    if status in _LATER and not isinstance(error, Unavailable):
        return Unavailable(detail)
    return error


def _seconds(written: str | None) -> float:
    try:
        return min(max(float(written or ""), 0.0), 3600.0)
    except ValueError:
        return FIRST_PAUSE_SECONDS

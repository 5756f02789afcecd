"""How a socket is opened, and what its end means."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from collab.errors import InvalidRoomName
from collab.names import room_name
from collab.protocol import yjs
from collab.sdk.backoff import ABNORMAL, Closing, closing_of_status
from collab.sdk.errors import Invalid

DIAL_SECONDS = 10.0
PING_SECONDS, SILENCE_SECONDS = 15.0, 30.0
CLOSE_SECONDS = 2.0
MAX_FRAME_BYTES = 80 << 20  # a whole document, and presence of a full room
MAX_REASON_CHARACTERS = 500

# Below this level headers are logged, the token among them.
_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)


class _Dial(connect):
    """Redirects are not followed: the token is for the address that was named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@asynccontextmanager
async def dialled(
    address: str, token: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ClientConnection]:
    """An open socket that speaks `collab.v1`; it is closed with the block, which takes a bounded time."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with asyncio.timeout(DIAL_SECONDS):
        socket = await _Dial(
            address,
            subprotocols=[Subprotocol(yjs.COLLAB_V1)],
            additional_headers=headers,
            compression=None,
            open_timeout=None,
            ping_interval=PING_SECONDS,
            ping_timeout=SILENCE_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_FRAME_BYTES,
            logger=_log,
            ssl=(tls or True) if address.startswith("wss:") else None,
        )
    try:
        if socket.subprotocol != yjs.COLLAB_V1:
            raise InvalidHandshake("not in collab.v1")
        yield socket
    finally:
        await socket.close()


def closing_of(error: Exception) -> Closing:
    """What the failure of a connection, or to make one, means for the next."""
    if isinstance(error, ConnectionClosed):
        if error.rcvd is None:
            return Closing(ABNORMAL, "the connection was lost")
        return Closing(error.rcvd.code, error.rcvd.reason)
    if isinstance(error, InvalidStatus):
        response = error.response
        body = (response.body or b"").decode(errors="replace")[:MAX_REASON_CHARACTERS]
        return closing_of_status(
            response.status_code,
            body.strip() or response.reason_phrase,
            response.headers.get("Retry-After"),
        )
    if isinstance(error, InvalidHandshake):
        return Closing(ABNORMAL, "what answers there is no such server")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Closing(ABNORMAL, "the server's certificate is not trusted")
    if isinstance(error, InvalidURI | ValueError):  # the latter of a host's name
        return Closing(4400, "this is no address of a server")
    if isinstance(error, TimeoutError):
        return Closing(ABNORMAL, "the server does not answer")
    return Closing(ABNORMAL, "the server cannot be reached")


def base_url(url: str) -> str:
    """The server's own address over HTTP, without a slash at its end. Raises Invalid."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - is read only when it is asked for
    except ValueError:
        raise Invalid("this is no address of a server") from None
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(
        parts.scheme.lower()
    )
    if scheme is None or not parts.netloc:
        raise Invalid("a server is named by http://, https://, ws:// or wss://")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise Invalid("the address of a server has no query, fragment or user")
    path = parts.path.rstrip("/")
    path = path.removesuffix("/ws")
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def room_address(url: str, room: str) -> str:
    """Where a room of a server is. Raises Invalid."""
    base = base_url(url)
    try:
        name = quote(room_name(room), safe="/")
    except InvalidRoomName as error:
        raise Invalid(str(error)) from None
    return f"ws{base.removeprefix('http')}/ws/{name}"

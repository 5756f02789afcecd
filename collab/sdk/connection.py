"""One connection: how a socket is opened, what goes over it, and what its end means."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from collab.errors import CollabError, InvalidRoomName
from collab.names import room_name
from collab.protocol import yjs
from collab.sdk import messages
from collab.sdk.backoff import ABNORMAL, Closing, closing_of_status
from collab.sdk.credential import Credential
from collab.sdk.errors import Invalid, Refused, SdkError
from collab.sdk.ledger import Ledger
from collab.sdk.outgoing import Answer, Outgoing, Stretch
from collab.sdk.presence import PAUSE_SECONDS, RENEW_SECONDS

DIAL_SECONDS = 10.0
PING_SECONDS, SILENCE_SECONDS = 15.0, 30.0
CLOSE_SECONDS = 2.0
MAX_FRAME_BYTES = 80 << 20  # a whole document, and presence of a full room
MAX_REASON_CHARACTERS = 500
# How long before its end a token is renewed, at most; how soon at least, and how soon again when that failed.
RENEW_TOKEN_SECONDS, SOON_SECONDS, TOKEN_RETRY_SECONDS = 30.0, 0.5, 5.0
LOCAL = 4000  # this side gave the connection up, and comes back

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


class _Over(Exception):
    """This side ends the connection."""

    def __init__(self, closing: Closing) -> None:
        self.closing = closing


class Connection:
    """What happens over one socket: what waits leaves in order and no faster than it is acknowledged, what comes is handed
    on, presence and token are renewed.

    `receive` is given each frame; when it raises, the connection ends for good. `reject` is given the error of a change
    that cannot be sent, and must not raise. `presence` makes the message that says what is shown.
    """

    def __init__(
        self,
        ledger: Ledger,
        credential: Credential,
        *,
        receive: Callable[[bytes], object],
        reject: Callable[[SdkError], object],
        presence: Callable[[], bytes],
    ) -> None:
        self.outgoing = Outgoing()
        self._ledger, self._credential = ledger, credential
        self._receive, self._reject, self._presence = receive, reject, presence
        self._over: Closing | None = None
        self._renews_token_at = float("inf")
        self._must_renew = asyncio.Event()

    # What is to be said

    def message(self, frame: bytes) -> None:
        """In order with the updates."""
        self.outgoing.message(frame)
        self._check_full()

    def update(self, update: bytes, changes: int) -> None:
        """A local change, with its number."""
        self.outgoing.update(update, changes)
        self._check_full()

    def show(self) -> None:
        """Say before long what is shown now."""
        self._must_renew.set()

    def renew_token(self, left_seconds: float) -> None:
        """The token ends in so many seconds: show the next one before."""
        early = min(RENEW_TOKEN_SECONDS, left_seconds / 4)
        now = asyncio.get_running_loop().time()
        self._renews_token_at = now + max(SOON_SECONDS, left_seconds - early)
        self._must_renew.set()  # wakes who keeps it

    def go_on(self) -> None:
        """There may be room for more on the way."""
        self.outgoing.wake()

    def end(self, closing: Closing) -> None:
        """End soon, from wherever this is called."""
        if self._over is None:
            self._over = closing
            self.outgoing.wake()

    def _check_full(self) -> None:
        """More waits than is worth keeping: the state vectors of another connection say it in less."""
        if self.outgoing.is_full:
            self.end(Closing(LOCAL, "too much waits to be sent"))

    # Saying and hearing it

    async def carry(self, socket: ClientConnection) -> Closing:
        """Until either side ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(socket))
                tasks.create_task(self._keep())
                await self._read(socket)
        except* _Over as over:
            closing: Closing = _first(over).closing
        except* ConnectionClosed as lost:
            closing = closing_of(_first(lost))
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # A group that has errors of its own to raise forgets that it was cancelled meanwhile.
            raise asyncio.CancelledError
        return self._over or closing

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            frame = await socket.recv()
            try:
                if not isinstance(frame, bytes):
                    raise Refused("the server sent a text frame")
                self._receive(frame)
            except CollabError as error:
                fault = error if isinstance(error, SdkError) else Refused(str(error))
                self.end(Closing(4400, "this client cannot go on", error=fault))
            if self._over is not None:
                raise _Over(self._over)

    async def _write(self, socket: ClientConnection) -> None:
        outgoing, ledger = self.outgoing, self._ledger
        while True:
            await outgoing.wait()
            while self._over is None and not ledger.is_window_full:
                item = outgoing.take()
                if item is None:
                    break
                if isinstance(item, SdkError):
                    self._reject(item)
                    break
                await socket.send(self._frame(item))
            if self._over is not None:
                raise _Over(self._over)
            if ledger.is_window_full:
                outgoing.rest()

    def _frame(self, item: bytes | Stretch | Answer | Callable[[], bytes]) -> bytes:
        if isinstance(item, bytes):
            return item
        if not isinstance(item, Stretch | Answer):
            return item()
        self._ledger.send(item.changes, item.size)
        return item.frame()

    async def _keep(self) -> None:
        """Renew what must not grow old: our presence, and the token."""
        now = asyncio.get_running_loop().time
        renew_at = now() + RENEW_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(min(renew_at, self._renews_token_at)):
                    await self._must_renew.wait()
            except TimeoutError:
                if self._renews_token_at <= now():
                    await self._renew_token()
                    continue
            self._must_renew.clear()
            self.outgoing.latest(self._presence)
            renew_at = now() + RENEW_SECONDS
            await asyncio.sleep(PAUSE_SECONDS)

    async def _renew_token(self) -> None:
        loop, credential = asyncio.get_running_loop(), self._credential
        self._renews_token_at = float("inf")
        try:
            token = await credential.next()
        except SdkError:
            token = ""
        if token in ("", credential.shown):
            self._renews_token_at = loop.time() + TOKEN_RETRY_SECONDS
            return
        credential.shown = token
        self.outgoing.message(messages.token(token))


def _first(group: BaseExceptionGroup[Any]) -> Any:
    """One of the errors that ended a connection: the others are what followed from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def closing_of(error: Exception) -> Closing:
    """What the failure of a connection, or to make one, means for the next."""
    if isinstance(error, ConnectionClosed):
        if error.rcvd is None:
            return Closing(ABNORMAL, "the connection was lost")
        return Closing(error.rcvd.code, error.rcvd.reason)
    if isinstance(error, InvalidStatus):
        response = error.response
        body = (response.body or b"").decode(errors="replace")[:MAX_REASON_CHARACTERS]
        words = body.strip()
        return closing_of_status(
            response.status_code,
            "" if words.startswith("<") else words,  # a page of some other server
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

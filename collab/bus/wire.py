"""One connection to one Redis server, for what a pool cannot give: a single order, and word of every interruption."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from collab.connection import Endpoint
from collab.errors import ConfigurationError

Place = tuple[str, int]  # host and port of a server

# Of one answer or push. What is longer nobody of us has written, and it is not waited for.
_MAX_ANSWER_BYTES = 64 << 20

_NOT_YET = object()

# Why the bus fails, in the words of the metric; by the first word of what Redis says.
_REASONS = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "auth",
    "OOM": "memory",
    "READONLY": "read_only",
    "NOREPLICAS": "read_only",
    "MOVED": "moved",
    "ASK": "moved",
    "TRYAGAIN": "moved",
    "CROSSSLOT": "moved",
    "CLUSTERDOWN": "cluster_down",
    "LOADING": "loading",
    "BUSY": "loading",
    "MASTERDOWN": "loading",
    "MISCONF": "disk",
    "NOSCRIPT": "script",
}


class NotPrimary(ConnectionError):
    """The server takes no writes now."""


def reason_of(error: BaseException) -> str:
    """Why something failed: one of a closed set of words."""
    match error:
        case NotPrimary():
            return "read_only"
        case TimeoutError():
            return "timeout"
        case ssl.SSLError():
            return "tls"
        case hiredis.ReplyError():
            return _REASONS.get(str(error).partition(" ")[0], "other")
        case OSError():
            return "connection"
        case _:
            return "other"


def pack(*words: str | bytes | int) -> bytes:
    """A command as Redis reads it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # typed for one word
    return packed


class Wire(asyncio.Protocol):
    """Questions are answered in their order; what comes unasked is `heard`, on the event loop."""

    def __init__(self, heard: Callable[[Any], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.news = 0  # grows with everything that arrives
        self.is_primary = False
        self._heard = heard
        self._loop = loop
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._unread_bytes = 0
        self._questions: deque[tuple[int, list[Any], asyncio.Future[list[Any]]]]
        self._questions = deque()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports without being of that class.
        self._transport = cast(asyncio.Transport, transport)

    def write(self, *commands: bytes) -> None:
        """Without waiting for answers: those are heard."""
        if not self._transport.is_closing():  # uvloop's would raise
            self._transport.write(b"".join(commands))

    async def ask(self, *commands: bytes) -> list[Any]:
        """The answers in order, errors among them. Raises ConnectionError when the connection ends meanwhile.

        Who stops waiting must close the connection, or take what the server may still do.
        """
        if self.lost.done():
            raise ConnectionResetError("the connection has ended")
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        self._questions.append((len(commands), [], answered))
        self.write(*commands)
        return await answered

    def data_received(self, data: bytes) -> None:
        self.news += 1
        self._unread_bytes += len(data)
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NOT_YET:
                self._unread_bytes = 0
                self._take(answer)
        except hiredis.ProtocolError:
            self.close()
        if self._unread_bytes > _MAX_ANSWER_BYTES:
            self.close()

    def _take(self, answer: Any) -> None:
        if not self._questions or isinstance(answer, hiredis.PushNotification):
            self._heard(answer)
            return
        count, answers, answered = self._questions[0]
        answers.append(answer)
        if len(answers) == count:
            self._questions.popleft()
            if not answered.done():
                answered.set_result(answers)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for _, _, answered in self._questions:
            if not answered.done():
                answered.set_exception(ConnectionResetError("the connection has ended"))
        self._questions.clear()

    def close(self) -> None:
        """At once; what was written may or may not arrive."""
        self._transport.abort()


class Dialer:
    """Opens wires to the servers of an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises ConfigurationError when a certificate cannot be used."""
        self.endpoint = endpoint
        self._tls = _tls(endpoint) if endpoint.is_secure else None

    async def dial(self, place: Place, heard: Callable[[Any], None]) -> Wire:
        """Raises OSError or hiredis.HiredisError; has no deadline of its own."""
        wire = await self._connect(place, heard)
        endpoint = self.endpoint
        login: tuple[str, ...] = ()
        if endpoint.password:
            login = ("AUTH", endpoint.user or "default", endpoint.password)
        commands = [pack("HELLO", 3, *login)]
        if endpoint.database:
            commands.append(pack("SELECT", endpoint.database))
        try:
            answers = await wire.ask(*commands)
            for answer in answers:
                if isinstance(answer, hiredis.ReplyError):
                    raise answer
            greeting = answers[0]
            if not isinstance(greeting, dict):
                raise hiredis.ProtocolError("it does not speak RESP3")
            wire.is_primary = greeting.get(b"role") == b"master"
        except BaseException:
            wire.close()
            raise
        return wire

    async def dial_sentinel(self, place: Place) -> Wire:
        """Sentinels have a password of their own, and no users of ours."""
        wire = await self._connect(place, lambda _: None)
        if not self.endpoint.sentinel_password:
            return wire
        try:
            (answer,) = await wire.ask(pack("AUTH", self.endpoint.sentinel_password))
            if isinstance(answer, hiredis.ReplyError):
                raise answer
        except BaseException:
            wire.close()
            raise
        return wire

    async def _connect(self, place: Place, heard: Callable[[Any], None]) -> Wire:
        host, port = place
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: Wire(heard),
            host,
            port,
            ssl=self._tls,
            server_hostname=host if self._tls else None,
        )
        return wire


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=str(endpoint.ca) if endpoint.ca else None
        )
        if endpoint.certificate and endpoint.key:
            context.load_cert_chain(endpoint.certificate, endpoint.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"redis_ca, redis_certificate or redis_key cannot be used: {error.strerror or error}"
        ) from None
    return context

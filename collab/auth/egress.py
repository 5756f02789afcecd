"""What this server asks of others over HTTP: where it may go, how long it waits, how much it takes.

A name is resolved once, its addresses are checked, and the connection goes to the address that was checked: a name
that changes its mind between the two leads nowhere else. Redirects are not followed, proxies of the environment not
used. A host that the operator has written as an address, or as `localhost`, may be in the own network; a name may
lead there only when the operator says so. Link-local addresses, where clouds keep their credentials, never.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

from collab import logs
from collab.errors import Busy, CollabError, ConfigurationError

if TYPE_CHECKING:
    import httpx2

RESOLVED_SECONDS = 10.0
MAX_ADDRESSES = 4  # of one name that are tried
MAX_CONNECTIONS = 100
MAX_UNDER_WAY = 1000

Address = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")

log = logs.logger(__name__)


class Unreachable(Exception):
    """Nothing that counts came back; the message is a constant, fit for a log line."""


class Crowded(Unreachable):
    """It was hardly asked: others' questions took most of the time there was."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


def checked_url(url: str, setting: str) -> SplitResult:
    """An address that this server may ask, or ConfigurationError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{setting} is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{setting} must begin with https:// or http://")
    if parts.username is not None or parts.fragment or not url.isascii():
        raise ConfigurationError(
            f"{setting} must not hold a user, a fragment or other characters than ASCII"
        )
    literal = _literal(host)
    if literal is not None and not is_allowed(literal, may_be_private=True):
        raise ConfigurationError(f"{setting}: no server may be asked at {literal}")
    return parts


def is_allowed(address: Address, *, may_be_private: bool) -> bool:
    """Whether a connection may go there."""
    inner = _inner(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return False
    return may_be_private or inner.is_global


def _inner(address: Address) -> Address:
    """The IPv4 address within an IPv6 address that only carries one."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


class Backend:
    """One URL that is asked. An async context manager: its connections end with it."""

    def __init__(
        self,
        url: SplitResult,
        *,
        seconds: float,
        max_bytes: int,
        allow_private: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._seconds, self._max_bytes = url, seconds, max_bytes
        self._clock = clock
        self._host = str(url.hostname)
        self._literal = _literal(self._host)
        self._may_be_private = (
            allow_private or self._literal is not None or self._host == "localhost"
        )
        self._addresses: Sequence[Address] = ()
        self._resolved_until = -1.0
        self._lookups = Flights()
        self._client: httpx2.AsyncClient | None = None
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def __aenter__(self) -> Self:
        await self._lookups.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lookups.__aexit__()
        if self._client is not None:
            await self._client.aclose()

    async def ask(
        self,
        method: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, its time limit over all: name, connection, answer. Raises Unreachable."""
        import httpx2

        came, had = time.monotonic(), 0.0
        try:
            async with asyncio.timeout(self._seconds), self._free:
                had = self._seconds - (time.monotonic() - came)
                addresses = await self._resolve()
                for at, address in enumerate(addresses):
                    try:
                        return await self._ask(address, method, body, headers or {})
                    except httpx2.ConnectError:
                        if at == len(addresses) - 1:
                            raise
            raise Unreachable("its name has no address")
        except TimeoutError:
            if had < self._seconds / 2:
                raise Crowded("too many wait for it") from None
            raise Unreachable("it did not answer in time") from None
        except httpx2.ConnectError:
            self._resolved_until = -1.0
            raise Unreachable("it could not be connected to") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            raise Unreachable("the connection broke") from None

    async def _resolve(self) -> Sequence[Address]:
        if self._literal is not None:
            return (self._literal,)
        if self._clock() < self._resolved_until:
            return self._addresses
        # One at a time, however many give up waiting: where the resolver hangs, each holds one of the process's few threads.
        found = await self._lookups.get(self._host, self._look_up)
        if found is None:
            raise Unreachable("its name was not found")
        addresses = sorted(
            {ip_address(str(each[4][0]).partition("%")[0]) for each in found},
            key=lambda address: (address.version, address),
        )
        # One that is not allowed spoils all: who answers for this name is not to be trusted with it.
        if not all(is_allowed(each, may_be_private=True) for each in addresses):
            raise Unreachable("its name leads to an address that is never allowed")
        if not self._may_be_private and not all(
            is_allowed(each, may_be_private=False) for each in addresses
        ):
            raise Unreachable(
                "its name leads into the own network, which allow_private_backends does not allow"
            )
        self._addresses = addresses[:MAX_ADDRESSES]
        self._resolved_until = self._clock() + RESOLVED_SECONDS
        return self._addresses

    async def _look_up(self) -> list[tuple[Any, ...]] | None:
        """What the name leads to, None for nowhere."""
        try:
            return list(
                await asyncio.get_running_loop().getaddrinfo(
                    self._host, self._url.port or 0, type=socket.SOCK_STREAM
                )
            )
        except (OSError, UnicodeError):
            return None

    async def _ask(
        self,
        address: Address,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer:
        client = self._client or self._connectable()
        host = f"[{address}]" if address.version == 6 else str(address)
        port = f":{self._url.port}" if self._url.port else ""
        request = client.build_request(
            method,
            self._url._replace(netloc=host + port).geturl(),
            content=body,
            headers={
                "host": self._url.netloc,
                "accept": "application/json",
                "accept-encoding": "identity",
                "user-agent": "collab",
                **headers,
            },
            extensions={"sni_hostname": self._host},
        )
        response = await client.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Unreachable("its answer is compressed")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > self._max_bytes:
                    raise Unreachable("its answer is too long")
            return Answer(response.status_code, bytes(content))
        finally:
            await response.aclose()

    def _connectable(self) -> httpx2.AsyncClient:
        """The client, made when it is first needed: most servers ask nobody."""
        import ssl

        import httpx2

        # The system's certificates, or those of SSL_CERT_FILE; reading them takes a moment.
        verify = (
            ssl.create_default_context()
            if self._url.scheme == "https"
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._client = httpx2.AsyncClient(
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            timeout=self._seconds,
            limits=httpx2.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=RESOLVED_SECONDS,
            ),
        )
        return self._client


class Flights:
    """Questions under way, at most one for each key: whoever asks meanwhile gets the same answer.

    An async context manager, which ends them. Who asks may go away; the question is still answered.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._under_way.values():
            task.cancel()
        await self._tasks.__aexit__(None, None, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._under_way

    def start(
        self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, Any]]
    ) -> asyncio.Task[Any]:
        """Ask, unless that is under way. The task returns the answer or a CollabError. Raises Busy."""
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                raise Busy("too many wait for the same backend")
            task = self._tasks.create_task(_contained(ask))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        return task

    async def get(
        self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """The answer. Raises what asking raises, or Busy."""
        outcome = await asyncio.shield(self.start(key, ask))
        if isinstance(outcome, CollabError):
            raise outcome
        return outcome


async def _contained(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """An error as a value, since one that leaves a task would end all others of its group."""
    try:
        return await ask()
    except CollabError as error:
        return error
    except Exception:
        log.exception("asking a backend failed")
        return Busy("the backend cannot be asked now")

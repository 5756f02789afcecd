"""Who may ask: the Host and Origin headers, checked before anything else sees a request.

Without access control the server is for this machine only. A page of another site can still make a browser here
connect, either openly (its Origin gives it away) or by pointing its own name at 127.0.0.1 (its Host does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from collab import logs

log = logs.logger(__name__)

_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Origins:
    """ASGI middleware: 421 for a foreign Host, 403 for a foreign Origin."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        any_host: bool,
    ) -> None:
        self._app = app
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in allowed_hosts}
        self._origins = frozenset(allowed_origins)
        self._any_host = (
            any_host  # served beyond this machine: its names are not known to us
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if not self._any_host and name_of(host) not in self._hosts:
            await _refuse(scope, send, 421, b"This server does not go by that name.")
        elif b"origin" in headers and not self._is_allowed(
            headers[b"origin"], host, scope["scheme"] in ("https", "wss")
        ):
            await _refuse(
                scope, send, 403, b"Requests from this origin are not allowed."
            )
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, origin: str, host: str, is_secure: bool) -> bool:
        """Our own address, one that was named, or (for who listens on loopback only) any page of this machine.

        Over TLS our own address is one of https: anybody on the way can make a page of the other. Without, there may
        be TLS at a proxy that we do not know of.
        """
        if origin in self._origins or origin == f"https://{host}":
            return True
        if origin == f"http://{host}":
            return not is_secure
        try:
            parts = urlsplit(origin)
            is_plain = (
                parts.scheme in ("http", "https")
                and origin == f"{parts.scheme}://{parts.netloc}"
            )
        except ValueError:
            return False
        return (
            is_plain and not self._any_host and name_of(parts.netloc) in _LOOPBACK_NAMES
        )


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/, ]+)(?::[0-9]{1,5})?")


def name_of(host: str) -> str:
    """The name in a Host header, without the port; nothing when there is more to it than a name and a port."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine as nobody else's name does."""
    return name_of(host) in _LOOPBACK_NAMES


# Asked for each request; addresses are slow to read.
@lru_cache(4096)
def is_loopback(address: str) -> bool:
    """Whether a peer's address is on this machine."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


async def _refuse(scope: Scope, send: Send, status: int, reason: bytes) -> None:
    kind = "websocket.http.response"  # which whoever made the handshake logs and counts
    if scope["type"] == "http":
        kind = "http.response"
        client = scope.get("client")
        log.info("request refused", status=status, address=client[0] if client else "")
        metrics = scope.get("state", {}).get("metrics")
        if metrics is not None:
            metrics.refused_requests[str(status)] += 1
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(reason)).encode()),
    ]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": reason})

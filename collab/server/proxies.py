"""Whose word is taken for where a client comes from: that of the proxies that were named, and of nobody else.

A proxy appends the address it sees, so lists are read from the right, up to the first address that is no proxy of
ours. What stands left of it came from there, and may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from collab.auth.failures import network_of
from collab.server.origins import is_local_name, is_loopback
from collab.server.upgrade import EXTENSION

Header = Literal["x-forwarded-for", "forwarded"]

MAX_PROXIES = 16  # in a row, before a list is not followed any further

_PASSED_ON = frozenset(("forwarded", "via", "x-forwarded-for"))
# With a port or without; IPv6 in brackets, or bare and then without a port.
_NODE = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)"
)
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^"\s;,]*))\s*')


class Trusted:
    """The networks of one's own proxies."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ip_network(network) for network in networks)

    def __contains__(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in each for each in self._networks)

    def key_of(self, address: str) -> str:
        """What is counted as one address, see `network_of`. A proxy on this machine is counted as others are."""
        return address if address in self else network_of(address)


def is_local(connection: HTTPConnection) -> bool:
    """Whether a request was made on this machine, to it, and not passed on by something that runs here.

    A page of another site that points its own name at this machine does not know ours.
    """
    address = connection.client.host if connection.client else ""
    return (
        is_loopback(address)
        and is_local_name(connection.headers.get("host", ""))
        and _PASSED_ON.isdisjoint(connection.headers.keys())
    )


class Proxies:
    """ASGI middleware: a request that a trusted proxy brings has the client and the scheme that the proxy names."""

    def __init__(self, app: ASGIApp, *, trusted: Trusted, header: Header) -> None:
        self._app, self._trusted, self._header = app, trusted, header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if peer and peer[0] in self._trusted:
            self._believe(scope, peer[0])
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope, peer: str) -> None:
        if self._header == "forwarded":
            elements = [_pairs(each) for each in _list(scope, b"forwarded")]
            nodes = [each.get("for", "") for each in elements]
            protocol = elements[-1].get("proto", "") if elements else ""
        else:
            nodes = _list(scope, b"x-forwarded-for")
            protocol = ["", *_list(scope, b"x-forwarded-proto")][-1]
        address = self._client(peer, nodes)
        scope["client"] = (address, 0)
        is_socket = scope["type"] == "websocket"
        if is_socket:
            scope["extensions"][EXTENSION].address = address
        if protocol.lower() in ("http", "https"):
            is_secure = protocol.lower() == "https"
            scope["scheme"] = ("ws" if is_socket else "http") + "s" * is_secure

    def _client(self, peer: str, nodes: list[str]) -> str:
        address = peer
        for node in nodes[: -MAX_PROXIES - 1 : -1]:
            found = _node(node)
            if found is None:
                break  # "unknown", or nonsense: the last one we know stands for it
            address = found
            if address not in self._trusted:
                break
        return address


def _list(scope: Scope, name: bytes) -> list[str]:
    """The elements of a header, in the order of all its lines. Quotes do not hold an element together.

    Otherwise one that a client has left open would swallow what our own proxy appended.
    """
    lines = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return [element.strip() for element in ",".join(lines).split(",")] if lines else []


def _pairs(element: str) -> dict[str, str]:
    """One element of `Forwarded` (RFC 7239); nothing when any part of it is not as it should be."""
    found: dict[str, str] = {}
    for part in element.split(";"):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[1].lower() in found:
            return {}
        found[pair[1].lower()] = pair[2] if pair[2] is not None else pair[3]
    return found


def _node(text: str) -> str | None:
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    address = _address(found[1] or found[2] or found[3])
    return None if address is None else str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found

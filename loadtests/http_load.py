"""A load of HTTP requests over kept connections, and of WebSocket handshakes: plain bytes, as cheap as Python makes them.

The server has a core of its own, so what this costs is not in the figures as long as it is faster than the server.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Iterator, Sequence

CONNECTIONS = 8


class Failed(Exception):
    """An answer that was not expected; the message has its first line."""


def request(
    method: str, path: str, token: str, body: bytes = b"", kind: str = ""
) -> bytes:
    """The bytes of one request."""
    head = [
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {token}",
    ]
    if body:
        head += [f"content-type: {kind}", f"content-length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status = head[:15].split(b" ", 2)[1]
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    body = await reader.readexactly(int(length)) if length else b""
    if not status.startswith(b"2"):
        raise Failed(
            f"{head.splitlines()[0].decode()}: {body[:300].decode(errors='replace')}"
        )
    return body


async def ask(port: int, sent: bytes) -> bytes:
    """One request on a connection of its own; the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await _answer(reader)
    finally:
        writer.close()


async def press(
    port: int, requests: Sequence[Iterator[bytes]], seconds: float
) -> float:
    """One request after the other on each connection; answers a second."""
    until = time.monotonic() + seconds
    counts = [0] * len(requests)

    async def keep(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            while time.monotonic() < until:
                writer.write(next(requests[number]))
                await _answer(reader)
                counts[number] += 1
        finally:
            writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(keep(number) for number in range(len(requests))))
    return sum(counts) / (time.monotonic() - begun)


async def knock(port: int, path: str, tokens: Sequence[str]) -> None:
    """Open a socket with each token and wait until the room has spoken to it; then leave all."""
    writers = []
    at_once = asyncio.Semaphore(50)

    async def enter(token: str) -> None:
        async with at_once:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\nauthorization: Bearer {token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            first = await reader.readexactly(1)
            if b" 101 " not in head[:16] or first != b"\x82":
                raise Failed(head.splitlines()[0].decode())

    try:
        await asyncio.gather(*map(enter, tokens))
    finally:
        for writer in writers:
            writer.close()

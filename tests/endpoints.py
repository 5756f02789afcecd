"""A small real HTTP server that answers as a test tells it: well, badly, slowly, without end, or not at all."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def answer(
    body: bytes | dict[str, Any] = b"", status: int = 200, **headers: str
) -> Answering:
    """One whole answer; headers with underscores for hyphens."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def say(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await writer.drain()

    return say


async def silence(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """No answer as long as the test goes on."""
    await asyncio.Event().wait()


async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no read of its own ever takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """More bytes than anybody wants, without a length."""
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


async def garbage(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xffSSH-2.0\r\n\r\n")
    await writer.drain()
    writer.close()


async def hang_up(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


class Endpoint:
    """Where it listens, what it was asked, and how it answers from now on."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[Asked] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/asked"

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head[:-4].split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                asked = Asked(method, path, headers, body)
                self.asked.append(asked)
                await self.answering(asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def endpoint(
    answering: Answering,
    host: str = "127.0.0.1",
    *,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Endpoint]:
    """Serve until the block ends."""
    made = Endpoint(answering)
    handling: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.get_running_loop().create_task(made.handle(reader, writer))
        handling.add(task)
        task.add_done_callback(handling.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(handling):
            task.cancel()
        if handling:
            await asyncio.wait(handling)
        for writer in writers:  # of those that had not begun, too
            writer.transport.abort()

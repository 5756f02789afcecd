"""An endpoint that speaks like a model: a small HTTP server that answers with what a test has prepared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Endpoint:
    """Answers each request with `pieces`, one write each, and remembers what it was asked."""

    pieces: Iterable[bytes] = ()
    status: int = 200
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(
                line.lower().split(": ", 1) for line in head.strip().split("\r\n")[1:]
            )
            self.headers.append(headers)
            body = await reader.readexactly(int(headers["content-length"]))
            self.asked.append(json.loads(body))
            writer.write(
                f"HTTP/1.1 {self.status} So\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode()
            )
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def endpoint(
    pieces: Iterable[bytes] = (), status: int = 200
) -> AsyncIterator[Endpoint]:
    made = Endpoint(pieces, status)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        made.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield made


def said(*words: str) -> bytes:
    """What a model streams for these words, and that it is done."""
    events = [json.dumps({"choices": [{"delta": {"content": each}}]}) for each in words]
    return "".join(f"data: {each}\n\n" for each in [*events, "[DONE]"]).encode()

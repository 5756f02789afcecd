"""All who lost a server come to another one at once: it takes them in, and those who are there go on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from processes import Server
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from collab.protocol.varint import encode_bytes

pytestmark = pytest.mark.anyio

HERD = int(os.environ.get("HERD", "500"))
ROOMS = 50
# Many times what it takes; a server that serves one after the other, or starves those who are there, needs longer.
ALL_SECONDS = 60.0
SAVED_SECONDS = 5.0

V1: Any = ["collab.v1"]


class Typist:
    """Somebody who is there, and notes how long each edit takes to be saved."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._document: Doc[Any] = Doc()
        self._text = self._document.get("text", type=Text)
        self.seconds: list[float] = []

    async def type(self) -> None:
        sequence = 0
        while True:
            before = self._document.get_state()
            self._text += "x"
            sequence += 1
            begun = time.monotonic()
            update = self._document.get_update(before)
            await self._socket.send(b"\x00\x02" + encode_bytes(update))
            while not (message := await self._socket.recv())[:2] == bytes(
                (111, sequence & 127 | (128 if sequence > 127 else 0))
            ):
                assert isinstance(message, bytes)
            self.seconds.append(time.monotonic() - begun)
            await asyncio.sleep(0.02)


async def come_back(server: Server, number: int) -> ClientConnection:
    """Connect until it works, as providers do, and be told what the room holds."""
    while True:
        try:
            socket = await connect(
                f"{server.address}/ws/room-{number % ROOMS}",
                open_timeout=ALL_SECONDS,
                compression=None,
                ping_interval=None,
            )
        except OSError:
            await asyncio.sleep(0.5)
            continue
        await socket.send(b"\x00\x00\x01\x00")
        while not (await socket.recv())[:2] == b"\x00\x01":  # type: ignore[comparison-overlap]
            pass
        return socket


async def test_a_herd_is_taken_in_while_those_who_are_there_are_served(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    async with connect(f"{server.address}/ws/typing", subprotocols=V1) as socket:
        typist = Typist(socket)
        typing = asyncio.create_task(typist.type())

        async with asyncio.timeout(ALL_SECONDS):
            herd = await asyncio.gather(
                *(come_back(server, number) for number in range(HERD))
            )

        assert not typing.done()
        typing.cancel()
        during = list(typist.seconds)
    await asyncio.gather(*(each.close() for each in herd))
    assert len(herd) == HERD
    assert during
    assert max(during) < SAVED_SECONDS

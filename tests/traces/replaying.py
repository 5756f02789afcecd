"""Plays an editing trace through the server with stock pycrdt providers, as a Python program would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from editing_traces import Trace, ancestry
from pycrdt import Decoder, Doc, Provider, Text
from websockets.asyncio.client import ClientConnection, connect

BREATH = 200  # edits between two looks at the network
STRIDE = 10  # edits of a lone author that make one update: this provider takes its time for each


class WebSocketChannel:
    """A WebSocket as pycrdt's provider wants it."""

    def __init__(self, socket: ClientConnection, path: str) -> None:
        self._socket, self.path = socket, path

    def __aiter__(self) -> WebSocketChannel:
        return self

    async def __anext__(self) -> bytes:
        return await self.recv()

    async def send(self, message: bytes) -> None:
        await self._socket.send(message)

    async def recv(self) -> bytes:
        frame = await self._socket.recv()
        assert isinstance(frame, bytes)
        return frame


class Peer:
    """A document and its text; `client_id` decides whose text comes first where two type at one place."""

    def __init__(self, client_id: int | None = None) -> None:
        self.doc: Doc[Any] = Doc(client_id=client_id) if client_id else Doc()
        self.text = self.doc.get("text", type=Text)

    @asynccontextmanager
    async def join(self, url: str, room: str) -> AsyncIterator[None]:
        """Keep the document in step with the room for as long as the block lasts."""
        address = f"{url.replace('http', 'ws')}/ws/{room}"
        async with (
            connect(address, compression=None, max_queue=None) as socket,
            Provider(self.doc, WebSocketChannel(socket, address)) as provider,
        ):
            await provider.synced.wait()
            yield

    def splice(self, patches: list[tuple[int, int, str]]) -> None:
        with self.doc.transaction():
            for at, removed, inserted in patches:
                if removed:
                    del self.text[at : at + removed]
                if inserted:
                    self.text.insert(at, inserted)

    def clock(self, client: int) -> int:
        """How much of a client's insertions the document holds."""
        decoder = Decoder(self.doc.get_state())
        vector = {
            decoder.read_var_uint(): decoder.read_var_uint()
            for _ in range(decoder.read_var_uint())
        }
        return vector.get(client, 0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for changes until the condition holds."""
        async with self.doc.events() as events:
            if not holds():
                async for _ in events:
                    if holds():
                        return


async def play(url: str, room: str, trace: Trace) -> list[str]:
    """Type a trace into a room, each author over a connection of its own; the texts that two readers end with."""
    readers = [Peer(), Peer()]
    async with readers[0].join(url, room):
        if trace.get("kind") == "concurrent":
            await _perform(url, room, trace)
        else:
            await _type(url, room, trace)
        async with readers[1].join(url, room):
            end = trace["endContent"]
            for reader in readers:
                await reader.until(lambda text=reader.text: len(text) >= len(end))
                await reader.until(lambda text=reader.text: str(text) == end)
    return [str(reader.text) for reader in readers]


async def read(url: str, room: str) -> str:
    """The text of a room as a newcomer gets it."""
    newcomer = Peer()
    async with newcomer.join(url, room):
        return str(newcomer.text)


async def _type(url: str, room: str, trace: Trace) -> None:
    author = Peer()
    async with author.join(url, room):
        for index, start in enumerate(range(0, len(trace["txns"]), STRIDE)):
            txns = trace["txns"][start : start + STRIDE]
            author.splice([patch for txn in txns for patch in txn["patches"]])
            if index % BREATH == 0:
                await asyncio.sleep(0)


async def _perform(url: str, room: str, trace: Trace) -> None:
    """Both authors at once: each sends an edit when all it builds on has come to it from the server."""
    updates = _rehearse(trace)
    news = ancestry(trace)
    clocks = _clocks(trace)

    async def perform(agent: int) -> None:
        author = Peer()
        async with author.join(url, room):
            for index, txn in enumerate(trace["txns"]):
                if txn["agent"] != agent:
                    continue
                if news[index]:
                    other, clock = 2 - agent, clocks[news[index][-1]]
                    await author.until(
                        lambda other=other, clock=clock: author.clock(other) >= clock
                    )
                author.doc.apply_update(updates[index])
                if index % BREATH == 0:
                    await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for agent in range(trace["numAgents"]):
            tasks.create_task(perform(agent))


def _rehearse(trace: Trace) -> list[bytes]:
    """Each edit as an update, made in a document that holds exactly what its author had seen."""
    authors = [Peer(client_id=agent + 1) for agent in range(trace["numAgents"])]
    updates: list[bytes] = []
    for author in authors:
        author.doc.observe(lambda event: updates.append(event.update))
    for index, (txn, news) in enumerate(
        zip(trace["txns"], ancestry(trace), strict=True)
    ):
        author = authors[txn["agent"]]
        for parent in news:
            author.doc.apply_update(updates[parent])
        del updates[index:]  # what was merely taken in
        author.splice(txn["patches"])
    return updates


def _clocks(trace: Trace) -> list[int]:
    """How much each author had inserted after each transaction."""
    inserted = [0] * trace["numAgents"]
    clocks = []
    for txn in trace["txns"]:
        inserted[txn["agent"]] += sum(len(text) for _, _, text in txn["patches"])
        clocks.append(inserted[txn["agent"]])
    return clocks

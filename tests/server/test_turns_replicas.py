"""Turns on real servers that share their rooms through Redis: one that is stopped at one ends at the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from processes import Server
from pycrdt import Doc, Text
from services import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from collab.protocol import yjs
from collab.protocol.varint import Reader

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Each test has a room of its own."""
    directory = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(aof="everysec"))
        servers = []
        for name in ("first", "second"):
            audit = directory / f"{name}.jsonl"
            server = Server(
                directory / name, "--redis", redis.url, "--audit-log", str(audit)
            )
            server.start()
            stack.callback(server.kill)
            servers.append(server)
        yield servers


class Agent:
    """A client of `collab.v1` that streams."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))

    async def write(self, word: str) -> None:
        self.text += word
        await self.socket.send(yjs.update_message(self.made[-1]))

    async def hear(self, kind: int) -> list[str]:
        """The texts of the next message of a kind; of a refusal without its sequence."""
        async with asyncio.timeout(30):
            while True:
                message = await self.socket.recv()
                assert isinstance(message, bytes)
                if message[0] == kind:
                    break
        reader = Reader(message, 1)
        if kind == yjs.REFUSED:
            reader.read_varint()
        found = []
        while not reader.at_end:
            found.append(reader.read_string(256))
        return found

    async def saved(self) -> bool:
        """Whether the server has taken what was written; false when it refused it."""
        async with asyncio.timeout(30):
            while (kind := (await self.socket.recv())[0]) not in (yjs.ACK, yjs.REFUSED):
                pass
        return kind == yjs.ACK


@asynccontextmanager
async def joined(server: Server, room: str) -> AsyncIterator[Agent]:
    async with connect(
        f"{server.address}/ws/{room}", subprotocols=[Subprotocol("collab.v1")]
    ) as socket:
        yield Agent(socket)


def audited(server: Server) -> list[dict[str, Any]]:
    written = (server.data.parent / "first.jsonl").read_text().splitlines()
    return [json.loads(line) for line in written]


async def post(server: Server, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(f"{server.url}{path}")


async def test_a_turn_that_is_stopped_at_one_replica_ends_at_the_other(
    pair: list[Server],
) -> None:
    first, second = pair
    async with joined(first, "one") as agent:
        await agent.socket.send(yjs.turn("t1", '{"task": "stream"}'))
        await agent.write("a")
        await agent.saved()

        answer = await post(second, "/v1/rooms/one/turns/t1/cancel")
        told = await agent.hear(yjs.TURN_ENDED)
        await agent.write("b")  # as if it was on its way
        was_taken = await agent.saved()
        await agent.write("c")
        while await agent.saved():
            await agent.write("c")

    assert answer.status_code == 204
    assert told[:2] == ["t1", "turn_cancelled"]
    assert was_taken


async def test_a_socket_stops_the_turn_of_a_member_of_another_replica(
    pair: list[Server],
) -> None:
    first, second = pair
    async with joined(first, "two") as agent, joined(second, "two") as person:
        await agent.socket.send(yjs.turn("t1"))
        await agent.write("a")
        await agent.saved()

        await person.socket.send(yjs.cancel("t1"))
        told = await agent.hear(yjs.TURN_ENDED)

    assert told[:2] == ["t1", "turn_cancelled"]


async def test_a_turn_that_was_stopped_is_not_begun_again_at_another_replica(
    pair: list[Server],
) -> None:
    first, second = pair
    async with joined(first, "three") as agent, joined(second, "three") as next_one:
        await agent.socket.send(yjs.turn("t1"))
        await agent.write("a")
        await agent.saved()
        await post(first, "/v1/rooms/three/turns/t1/cancel?principal=anonymous")
        await agent.hear(yjs.TURN_ENDED)
        await next_one.socket.send(yjs.turn("t1"))
        told = await next_one.hear(yjs.TURN_ENDED)

    assert told[:2] == ["t1", "turn_cancelled"]


async def test_who_stopped_a_turn_stands_in_the_audit_log_of_its_replica(
    pair: list[Server],
) -> None:
    first = pair[0]

    await post(first, "/v1/rooms/four/turns/t9/cancel?principal=bot")

    [line] = [line for line in audited(first) if line["room"] == "four"]
    assert line["event"] == "turn.cancel"
    assert line["principal"] == "anonymous"
    assert (line["details"]["subject"], line["details"]["turn"]) == ("bot", "t9")

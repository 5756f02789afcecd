"""Who is connected to a room, asked at one of two real servers that share their rooms through Redis."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from processes import Server, close_code
from services import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from collab.protocol.yjs import TOKEN_PREFIX

pytestmark = pytest.mark.anyio

ROBOT = "--kind", "agent", "--role", "reviewer", "--on-behalf-of", "ada"


class Pair:
    """Two replicas, and keys that both know."""

    def __init__(self, servers: list[Server], redis: str) -> None:
        self.servers, self._redis = servers, redis
        self.root = self.key("root", "read,admin")
        self.ada = self.key("ada", "read")
        self.bot = self.key("bot", "read", *ROBOT)

    def key(self, principal: str, may: str, *about: str) -> str:
        done = self.servers[0].run(
            *("key", "create", "--principal", principal, "--prefix", f"={may}"),
            *(*about, "--json", "--redis", self._redis),
        )
        return str(json.loads(done.stdout)["key"])

    @asynccontextmanager
    async def joined(
        self, at: int, room: str, key: str
    ) -> AsyncIterator[ClientConnection]:
        offered = [Subprotocol("collab.v1"), Subprotocol(f"{TOKEN_PREFIX}{key}")]
        address = f"{self.servers[at].address}/ws/{room}"
        async with connect(address, subprotocols=offered) as socket:
            await socket.recv()  # it is in the room then
            yield socket

    async def ask(
        self, at: int, path: str, key: str = "", method: str = "GET"
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key or self.root}"}
        url = f"{self.servers[at].url}/v1/rooms/{path}"
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await client.request(method, url, headers=headers)

    async def members(self, at: int, room: str, key: str = "") -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask(at, f"{room}/members", key)).json()
        found["members"].sort(key=lambda each: each["principal"])
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Each test has a room of its own."""
    directory = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(aof="everysec"))
        servers = []
        for name in ("first", "second"):
            shared = "--redis", redis.url, "--auth", "keys"
            servers.append(Server(directory / name, *shared))
            servers[-1].start()
            stack.callback(servers[-1].kill)
        yield Pair(servers, redis.url)


async def test_members_of_all_replicas_are_listed_at_each(pair: Pair) -> None:
    async with pair.joined(0, "one", pair.ada), pair.joined(1, "one", pair.bot):
        found = [await pair.members(at, "one") for at in (0, 1)]

    assert [each["partial"] for each in found] == [False, False]
    assert found[0]["members"] == found[1]["members"]
    ada, bot = found[0]["members"]
    assert (ada["principal"], bot["principal"]) == ("ada", "bot")
    assert (bot["kind"], bot["role"], bot["on_behalf_of"]) == (
        *("agent", "reviewer"),
        "ada",
    )
    assert (bot["dialect"], bot["operations"]) == ("y-websocket", ["read"])
    assert bot["address"] == "127.0.0.1"


async def test_members_are_listed_where_the_room_is_not_open(pair: Pair) -> None:
    async with pair.joined(1, "two", pair.ada):
        found = await pair.members(0, "two")
        nobody = await pair.members(0, "nobody is here")

    assert [each["principal"] for each in found["members"]] == ["ada"]
    assert nobody == {"members": [], "partial": False}


async def test_addresses_of_other_replicas_are_for_administrators_too(
    pair: Pair,
) -> None:
    async with pair.joined(1, "three", pair.bot):
        (seen,) = (await pair.members(0, "three", pair.ada))["members"]

    assert (seen["principal"], seen["address"]) == ("bot", None)


async def test_a_member_of_another_replica_is_disconnected(pair: Pair) -> None:
    async with (
        pair.joined(1, "four", pair.ada) as ada,
        pair.joined(1, "four", pair.bot),
    ):
        found = (await pair.members(0, "four"))["members"]
        path = f"four/members/{found[0]['connection']}"

        answer = await pair.ask(0, path, method="DELETE")
        code = await close_code(ada)
        left = (await pair.members(0, "four"))["members"]
        again = await pair.ask(0, path, method="DELETE")

    assert (answer.status_code, code) == (204, 4403)
    assert [each["principal"] for each in left] == ["bot"]
    assert again.status_code == 404


async def test_the_list_says_so_when_a_replica_does_not_answer(pair: Pair) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pair.joined(0, "five", pair.ada))
        await stack.enter_async_context(pair.joined(1, "five", pair.bot))
        os.kill(pair.servers[1].pid, signal.SIGSTOP)
        try:
            found = await pair.members(0, "five")
            unknown = await pair.ask(0, "five/members/x", method="DELETE")
        finally:
            os.kill(pair.servers[1].pid, signal.SIGCONT)

    assert [each["principal"] for each in found["members"]] == ["ada"]
    assert found["partial"]
    assert (unknown.status_code, unknown.json()["code"]) == (503, "bus_unavailable")

"""Replicas are restarted one after the other while people type: nothing saved is lost, and nobody is away for long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest
from commuters import commuting, crew, judge, until
from overseen import children
from processes import Server, eventually
from services import Redis
from websockets.asyncio.client import ClientConnection, connect

from collab.bus.base import PEER_SECONDS
from collab.protocol.varint import encode_bytes
from collab.replicas.relay import BEAT_SECONDS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ROOMS = 3


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis(aof="everysec") as one:
        yield one


@pytest.fixture
def flags(redis: Redis, request: pytest.FixtureRequest) -> list[str]:
    """Of replicas that belong together."""
    name = request.node.name.replace("_", "-")[:40]
    return ["--redis", redis.url, "--cluster", name]


async def test_three_replicas_are_restarted_in_turn(
    serve: Callable[..., Server], flags: list[str]
) -> None:
    replicas = [serve(*flags) for _ in range(3)]
    places = [each.address for each in replicas]
    commuters = list(crew(12, ROOMS, places))

    async with commuting(commuters):
        await until(lambda: all(len(each.saved) > 3 for each in commuters))
        codes = []
        for replica in replicas:
            codes.append(await asyncio.to_thread(replica.terminate))
            await asyncio.to_thread(replica.start)
            before = [len(each.saved) for each in commuters]
            await until(
                lambda before=before: all(  # type: ignore[misc]  # mypy cannot infer it
                    len(each.saved) > count + 3
                    for each, count in zip(commuters, before, strict=True)
                )
            )
        await judge(commuters, places)

    assert codes == [0, 0, 0]
    assert {code for each in commuters for code in each.codes[:-1]} == {1012}
    assert all(
        kind == "drain" and milliseconds <= 1000
        for each in commuters
        for kind, milliseconds in each.notices
    )
    assert all(each.notices for each in commuters)


async def test_workers_are_replaced_under_people_who_type(
    serve: Callable[..., Server], flags: list[str]
) -> None:
    server = serve("--workers", "2", *flags)
    commuters = list(crew(12, ROOMS, [server.address]))
    before = children(server.pid)

    async with commuting(commuters):
        await until(lambda: all(len(each.saved) > 3 for each in commuters))
        os.kill(server.pid, signal.SIGUSR1)
        await asyncio.to_thread(
            eventually, lambda: "all workers are replaced" in server.logs(), seconds=60
        )
        await judge(commuters, [server.address])

    after = children(server.pid)
    assert not set(before) & set(after)
    assert all(len(each.visits) > 1 for each in commuters)
    assert {code for each in commuters for code in each.codes[:-1]} == {1012}
    assert await asyncio.to_thread(server.terminate) == 0


async def test_people_come_back_from_a_worker_that_was_killed(
    serve: Callable[..., Server], flags: list[str]
) -> None:
    server = serve("--workers", "2", *flags)
    commuters = list(crew(12, ROOMS, [server.address]))

    async with commuting(commuters):
        await until(lambda: all(len(each.saved) > 3 for each in commuters))
        os.kill(children(server.pid)[0], signal.SIGKILL)
        await until(lambda: any(len(each.visits) > 1 for each in commuters))
        await judge(commuters, [server.address])

    assert await asyncio.to_thread(server.terminate) == 0


async def test_who_was_on_a_replica_that_drains_is_gone_from_the_others_at_once(
    serve: Callable[..., Server], flags: list[str]
) -> None:
    going, staying = serve(*flags), serve(*flags)
    async with (
        connect(f"{going.address}/ws/r") as ada,
        connect(f"{staying.address}/ws/r") as bob,
    ):
        await ada.send(presence(b'{"name":"ada"}'))
        await hears(bob, b'{"name":"ada"}')
        begun = time.monotonic()
        code, _ = await asyncio.gather(
            asyncio.to_thread(going.terminate), hears(bob, b"null")
        )
        ended = time.monotonic()
        async with httpx2.AsyncClient(base_url=staying.url, timeout=30) as client:
            while "\ncollab_replicas 1.0\n" not in (await client.get("/metrics")).text:
                # Later it would be missed, without a word.
                assert time.monotonic() - ended < PEER_SECONDS - BEAT_SECONDS

    assert code == 0
    assert ended - begun < PEER_SECONDS


def presence(state: bytes) -> bytes:
    """What a client with the id 7 says of itself."""
    entry = b"\x01\x07\x01" + encode_bytes(state)
    return b"\x01" + encode_bytes(entry)


async def hears(client: ClientConnection, state: bytes) -> None:
    async with asyncio.timeout(30):
        while state not in await client.recv(decode=False):
            pass

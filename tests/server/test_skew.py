"""Replicas of two releases work together; a room that only the newer one understands is left to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
from commuters import Commuter, commuting, crew, judge, read, until
from processes import Server, close_code
from services import Postgres, Redis
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


class Newer(Server):
    """A server of the next release."""

    def command(self) -> list[str]:
        _, _, _, *served = super().command()
        return [sys.executable, str(Path(__file__).with_name("newer.py")), *served]


@pytest.fixture(scope="module", params=["redis", "postgres"])
def flags(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Of replicas that belong together; the last one says where their rooms are."""
    with Redis() as redis:
        if request.param == "redis":
            yield ["--redis", redis.url]
        else:
            with Postgres() as postgres:
                yield ["--redis", redis.url, "--postgres", postgres.new_dsn()]


async def bring_up_to_date(flags: list[str]) -> None:
    """What a migration of the next release might do to the rooms that there are; on Redis each room has it from the start."""
    if "--postgres" in flags:
        database = await asyncpg.connect(flags[-1])
        await database.execute("UPDATE collab.room SET format = 99")
        await database.close()


@pytest.fixture
def serve_newer(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Server]:
    def start(*flags: str, has_newer_rooms: bool = False) -> Server:
        with monkeypatch.context() as patch:
            if has_newer_rooms:
                patch.setenv("NEWER_ROOMS", "1")
            return serve(*flags, kind=Newer)

    return start


async def test_what_is_unheard_of_between_replicas_is_passed_over(
    serve: Callable[..., Server],
    serve_newer: Callable[..., Server],
    flags: list[str],
) -> None:
    old, new = serve(*flags), serve_newer(*flags)
    places = [old.address, new.address]
    commuters = list(crew(6, 2, places))

    async with commuting(commuters):
        await until(lambda: all(len(each.saved) > 10 for each in commuters))
        await judge(commuters, places)

    async with httpx2.AsyncClient(base_url=old.url, timeout=30) as client:
        figures = (await client.get("/metrics")).text
    assert "\ncollab_bus_refused_total 0.0\n" in figures
    assert "\ncollab_divergences_total 0.0\n" in figures
    await until(lambda: "more than one release away" in old.logs())
    assert '"version": "99.0.0"' in old.logs()


async def test_a_room_of_a_newer_format_is_refused_alone_and_left_as_it_is(
    serve: Callable[..., Server],
    serve_newer: Callable[..., Server],
    flags: list[str],
) -> None:
    old, new = serve(*flags), serve_newer(*flags, has_newer_rooms=True)
    ahead = Commuter("ada", "ahead", [new.address], 0)
    async with commuting([ahead]):
        await until(lambda: len(ahead.saved) > 5)
        await judge([ahead], [new.address])
    await bring_up_to_date(flags)

    async with connect(f"{old.address}/ws/ahead") as socket:
        refused = await close_code(socket)
    behind = Commuter("bob", "behind", [old.address], 0)
    async with commuting([behind]):
        await until(lambda: len(behind.saved) > 5)
        await judge([behind], [old.address])
    async with httpx2.AsyncClient(base_url=old.url, timeout=30) as client:
        ready = await client.get("/readyz")
    code = await asyncio.to_thread(old.terminate)

    assert refused == 1013
    assert ready.status_code == 200
    assert code == 0
    assert sorted(await read(new.address, "ahead")) == sorted(ahead.sent)

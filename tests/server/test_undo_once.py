"""A turn is taken back once, at however many replicas it is asked at the same moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import Server, eventually
from services import Postgres, Redis

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ROUNDS = 20
BEFORE = "what was there"


class Undoing(Server):
    """A server that a test has tampered with."""

    def __init__(self, how: str, data: Path, *flags: str) -> None:
        super().__init__(data, *flags)
        self.how = how

    def command(self) -> list[str]:
        _, _, _, *served = super().command()
        script = str(Path(__file__).with_name("undoing.py"))
        return [sys.executable, script, self.how, *served]


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(params=["redis", "postgres"])
def flags(request: pytest.FixtureRequest, redis: Redis) -> list[str]:
    """Of replicas that belong together."""
    redis.flush()
    flags = ["--redis", redis.url]
    if request.param == "postgres":
        flags += ["--postgres", request.getfixturevalue("postgres").new_dsn()]
    return flags


@pytest.fixture
def tampered(serve: Callable[..., Server]) -> Callable[..., Server]:
    def start(how: str, *flags: str) -> Server:
        return serve(*flags, kind=partial(Undoing, how))

    return start


class Asking:
    """Asks two replicas about one room."""

    def __init__(self, client: httpx2.AsyncClient, *servers: Server) -> None:
        self._client, self.servers = client, servers

    async def __call__(
        self, who: int, method: str, path: str, **options: Any
    ) -> httpx2.Response:
        return await self._client.request(
            method, f"{self.servers[who].url}/v1/rooms/r{path}", **options
        )

    async def edit(self, who: int, turn: str, delete: int, insert: str) -> None:
        splice = {"root": "text", "index": 0, "delete": delete, "insert": insert}
        answer = await self(who, "PATCH", f"/document?turn={turn}", json={"splices": [splice]})  # fmt: skip
        assert answer.status_code == 200, answer.text

    async def at_once(self, path: str, body: dict[str, Any]) -> list[bool]:
        """What both answer, asked at the same moment and again as long as they say so, as clients do."""
        return await asyncio.gather(*(self.settled(who, path, body) for who in (0, 1)))

    async def settled(self, who: int, path: str, body: dict[str, Any]) -> bool:
        while True:
            answer = await self(who, "POST", path, json=body)
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return bool(answer.json()["changed"])
            assert answer.json()["code"] == "busy", answer.text
            assert "retry-after" in answer.headers

    async def reads(self, position: int) -> set[str]:
        """The text at each replica, once it has come that far."""
        found = set()
        for who in (0, 1):
            query = f"/document?format=text&root=text&min_position={position}"
            answer = await self(who, "GET", query)
            assert answer.status_code == 200, answer.text
            found.add(answer.text)
        return found

    async def end(self) -> int:
        position = (await self(0, "GET", "")).json()["position"]
        return int(position)


@pytest.fixture
async def client() -> Any:
    async with httpx2.AsyncClient(timeout=60) as client:
        yield client


async def test_of_two_who_take_a_turn_back_at_once_one_does(
    serve: Callable[..., Server], flags: list[str], client: httpx2.AsyncClient
) -> None:
    ask = Asking(client, serve(*flags), serve(*flags))
    await ask.edit(0, "first", 0, BEFORE)
    for number in range(ROUNDS):
        await ask.edit(number % 2, f"t{number}", len(BEFORE), "something else")

        undone = await ask.at_once(f"/turns/t{number}/undo", {})
        then = await ask.reads(await ask.end())
        redone = await ask.at_once(f"/turns/t{number}/redo", {})
        again = await ask.reads(await ask.end())
        everything = {"principal": "anonymous", "from_time": 0}
        if number < ROUNDS - 1:
            back = await ask.at_once(f"/turns/t{number}/undo", {})
        else:  # all that there ever was, which leaves nothing
            back = await ask.at_once("/undo", everything)

        assert sorted(undone) == sorted(redone) == sorted(back) == [False, True]
        assert (then, again) == ({BEFORE}, {"something else"})
    assert await ask.reads(await ask.end()) == {""}


async def test_a_build_that_grants_every_claim_is_found_out(
    tampered: Callable[..., Server], redis: Redis, client: httpx2.AsyncClient
) -> None:
    redis.flush()
    flags = ("--redis", redis.url)
    ask = Asking(client, *(tampered("claims are granted", *flags) for _ in range(2)))
    answers, texts = [], set()
    for number in range(ROUNDS):
        length = len(texts.pop()) if texts else 0
        await ask.edit(0, f"before{number}", length, BEFORE)
        await ask.edit(0, f"t{number}", len(BEFORE), "something else")

        answers += [await ask.at_once(f"/turns/t{number}/undo", {})]
        texts = await ask.reads(await ask.end())
        if texts != {BEFORE}:
            break

    assert answers[-1] == [True, True]
    assert texts == {2 * BEFORE}


async def test_a_replica_that_froze_over_it_does_not_do_it_later(
    tampered: Callable[..., Server], flags: list[str], client: httpx2.AsyncClient
) -> None:
    here, there = tampered("it is worked out", *flags), tampered("", *flags)
    ask = Asking(client, here, there)
    await ask.edit(0, "before", 0, BEFORE)
    await ask.edit(0, "t", len(BEFORE), "something else")

    late = asyncio.create_task(ask(0, "POST", "/turns/t/undo", json={}))
    assert await asyncio.to_thread(eventually, lambda: is_stopped(here))
    done = await ask.settled(1, "/turns/t/undo", {})
    os.kill(here.pid, signal.SIGCONT)
    refused = await late
    after = await ask.settled(0, "/turns/t/undo", {})

    assert done
    assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    assert not after
    assert await ask.reads(await ask.end()) == {BEFORE}


async def test_a_build_that_freezes_and_grants_every_claim_is_found_out(
    tampered: Callable[..., Server], redis: Redis, client: httpx2.AsyncClient
) -> None:
    redis.flush()
    here = tampered("claims are granted, it is worked out", "--redis", redis.url)
    ask = Asking(client, here, tampered("", "--redis", redis.url))
    await ask.edit(0, "before", 0, BEFORE)
    await ask.edit(0, "t", len(BEFORE), "something else")

    late = asyncio.create_task(ask(0, "POST", "/turns/t/undo", json={}))
    assert await asyncio.to_thread(eventually, lambda: is_stopped(here))
    done = await ask.settled(1, "/turns/t/undo", {})
    os.kill(here.pid, signal.SIGCONT)
    too = await late

    assert (done, too.json()["changed"]) == (True, True)
    assert await ask.reads(await ask.end()) == {2 * BEFORE}


async def test_without_redis_nothing_is_taken_back(
    serve: Callable[..., Server], postgres: Postgres, client: httpx2.AsyncClient
) -> None:
    with Redis() as redis:
        flags = ("--redis", redis.url, "--postgres", postgres.new_dsn())
        ask = Asking(client, serve(*flags))
        await ask.edit(0, "t", 0, BEFORE)
        redis.kill()

        refused = await ask(0, "POST", "/turns/t/undo", json={})
        redis.start()
        async with asyncio.timeout(30):
            while (await ask(0, "POST", "/turns/t/undo", json={})).status_code != 200:  # noqa: ASYNC110  # it connects anew in its own time
                await asyncio.sleep(0.05)

    assert refused.status_code == 503
    assert refused.json()["code"] == "bus_unavailable"
    assert "retry-after" in refused.headers


def is_stopped(server: Server) -> bool:
    state = Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2][0]
    return state == "T"

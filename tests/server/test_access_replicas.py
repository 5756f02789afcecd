"""Access control of real server processes that share their rooms: what one is told, all heed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from endpoints import answer, endpoint
from processes import BUSY_SECONDS, Server, close_code, eventually
from services import Postgres, Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

pytestmark = pytest.mark.anyio

PROMISED_SECONDS = 2.0 + BUSY_SECONDS

Serve = Callable[..., Server]


class Pair:
    """Two servers, and the flags by which commands find what they share."""

    def __init__(self, first: Server, second: Server, way: tuple[str, ...]) -> None:
        self.servers, self.way = (first, second), way

    def run(self, *arguments: str) -> Any:
        done = self.servers[0].run(*arguments, "--json", *self.way)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def key(self, principal: str, *grants: str) -> Any:
        return self.run("key", "create", "--principal", principal, *grants)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis(aof="everysec") as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["redis", "postgres"])
def pair(
    request: pytest.FixtureRequest,
    redis: Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """For all tests that leave both servers as they were; each has principals of its own."""
    directory = tmp_path_factory.mktemp("pair")
    secret = directory / "cluster-key"
    secret.write_text("k" * 64)
    way = ["--redis", redis.url, "--cluster", request.param]
    if request.param == "postgres":
        way += ["--postgres", request.getfixturevalue("postgres").new_dsn()]
    flags = (*way, "--cluster-key-file", str(secret), "--auth", "keys")
    with ExitStack() as stack:
        # On one machine, as workers are: they have one audit log.
        servers = [Server(directory / "data", *flags) for _ in range(2)]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        yield Pair(*servers, tuple(way))


@asynccontextmanager
async def joined(server: Server, token: str) -> AsyncIterator[ClientConnection]:
    """A socket in the room `notes`, let in by a key."""
    async with connect(
        f"{server.address}/ws/notes",
        additional_headers={"authorization": f"Bearer {token}"},
        subprotocols=[Subprotocol("collab.v1")],
    ) as socket:
        await socket.recv()
        yield socket


async def code_of(server: Server, path: str) -> int | None:
    """With what a socket is closed; 0 when it is let in."""
    try:
        async with connect(f"{server.address}{path}") as socket:
            await socket.recv()
            return 0
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd else None
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_a_key_is_good_everywhere_and_its_end_closes_sockets_everywhere(
    pair: Pair,
) -> None:
    made = pair.key("ada", "--room", "notes=read,write")
    first, second = pair.servers

    async with joined(first, made["key"]) as here, joined(second, made["key"]) as there:
        done = first.run("revoke", "ada", *pair.way)
        begun = time.monotonic()
        codes = await asyncio.gather(close_code(here), close_code(there))
        took = time.monotonic() - begun

    assert done.returncode == 0, done.stderr
    assert codes == [4401, 4401]
    assert took < PROMISED_SECONDS


async def test_what_is_said_over_rest_to_one_holds_at_the_other(pair: Pair) -> None:
    root = pair.key("root", "--prefix", "=read,write,presence,history,admin")["key"]
    first, second = pair.servers
    headers = {"authorization": f"Bearer {root}"}
    async with httpx2.AsyncClient(headers=headers) as client:
        made = await client.post(
            f"{first.url}/v1/keys",
            json={
                "principal": "bot",
                "grants": [{"room": "notes", "operations": ["read"]}],
            },
        )
        assert made.status_code == 201, made.text
        async with joined(second, made.json()["token"]) as socket:
            answer = await client.post(
                f"{first.url}/v1/revocations", json={"principal": "bot"}
            )
            begun = time.monotonic()
            code = await close_code(socket)
            took = time.monotonic() - begun

    assert answer.is_success, answer.text
    assert code == 4401
    assert took < PROMISED_SECONDS


async def test_a_ticket_of_one_opens_one_socket_at_the_other(pair: Pair) -> None:
    token = pair.key("ci", "--room", "notes=read,write")["key"]
    first, second = pair.servers
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers) as client:
        asked = await client.post(f"{first.url}/v1/tickets", json={"room": "notes"})
        shown = await client.post(f"{first.url}/doc/notes/auth", json={})
    ticket, client_token = asked.json()["ticket"], shown.json()["token"]

    by_ticket = [
        await code_of(server, f"/ws/notes?ticket={ticket}")
        for server in (second, second, first)
    ]
    by_client_token = [
        await code_of(server, f"/d/notes/ws/notes?token={client_token}")
        for server in (second, first, second)
    ]

    assert by_ticket == [0, 4401, 4401]
    assert by_client_token == [0, 4401, 4401]


async def test_ten_who_show_one_ticket_at_both_get_in_once(pair: Pair) -> None:
    token = pair.key("ci", "--room", "notes=read,write")["key"]
    first, second = pair.servers
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers) as client:
        asked = await client.post(f"{first.url}/v1/tickets", json={"room": "notes"})
    path = f"/ws/notes?ticket={asked.json()['ticket']}"

    codes = await asyncio.gather(
        *(code_of(server, path) for server in (first, second) * 5)
    )

    assert sorted(map(str, codes)) == ["0", *["4401"] * 9]


@pytest.mark.slow
async def test_a_backend_goes_on_deciding_where_its_ticket_was_used(
    serve: Serve, redis: Redis, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    said = {"principal": "alice", "operations": ["read", "write"]}
    way = ("--redis", redis.url, "--cluster", "asking", "--auth", "webhook")

    async with endpoint(answer(said)) as backend, httpx2.AsyncClient() as client:
        flags = (*way, "--webhook-url", backend.url, "--webhook-cache-seconds", "1")
        flags += ("--webhook-secret-file", str(secret))
        first = await asyncio.to_thread(serve, *flags)
        second = await asyncio.to_thread(serve, *flags)
        bearer = {"authorization": "Bearer opaque"}
        made = await client.post(
            f"{first.url}/v1/tickets", json={"room": "notes"}, headers=bearer
        )

        async def may() -> list[str]:
            """What the socket at the second server may do."""
            found = await client.get(
                f"{second.url}/v1/rooms/notes/members", headers=bearer
            )
            operations: list[str] = found.json()["members"][0]["operations"]
            return operations

        address = f"{second.address}/ws/notes?ticket={made.json()['ticket']}"
        async with connect(address) as socket:
            await socket.recv()
            before = await may()
            backend.answering = answer(said | {"operations": ["read"]})
            async with asyncio.timeout(30):
                while await may() == before:  # noqa: ASYNC110  # it is another process
                    await asyncio.sleep(0.05)  # there is a limit on asking
            after = await may()
            backend.answering = answer(b"", 401)
            code = await close_code(socket)

    assert made.status_code == 201, made.text
    assert (before, after, code) == (["read", "write"], ["read"], 4401)


async def test_two_servers_on_one_machine_write_one_audit_log(pair: Pair) -> None:
    token = pair.key("ida", "--room", "notes=read,write")["key"]
    first, second = pair.servers

    async def ask(server: Server) -> None:
        for _ in range(10):
            assert (await ask_ticket(server, token)).status_code == 201

    await asyncio.gather(ask(first), ask(second))

    path = first.data / "audit.jsonl"
    assert eventually(lambda: path.read_text().count('"ida"') >= 21)
    verdict = first.run("audit", "verify")
    assert verdict.returncode == 0, verdict.stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["event"] for line in lines].count("start") == 2


async def ask_ticket(server: Server, token: str) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.post(
            f"{server.url}/v1/tickets",
            json={"room": "notes"},
            headers={"authorization": f"Bearer {token}"},
        )


@pytest.mark.slow
async def test_a_ticket_is_good_where_it_was_made_while_redis_does_not_answer(
    serve: Serve, postgres: Postgres
) -> None:
    with Redis() as redis:
        way = ("--redis", redis.url, "--postgres", postgres.new_dsn())
        pair = Pair(serve(*way, "--auth", "keys"), serve(*way, "--auth", "keys"), way)
        token = pair.key("ci", "--room", "notes=read,write")["key"]
        first, second = pair.servers
        ticket = (await ask_ticket(first, token)).json()["ticket"]
        path = f"/ws/notes?ticket={ticket}"

        redis.stop()
        assert eventually(lambda: all("redis" in reasons(one) for one in pair.servers))
        without = [await code_of(server, path) for server in (second, first, second)]
        redis.cont()
        assert eventually(lambda: redis.do("KEYS", "*ticket*") == [])
        assert eventually(lambda: not any(map(reasons, pair.servers)))
        after = [await code_of(server, path) for server in (second, first)]

    assert without == [1013, 0, 1013]
    assert after == [4401, 4401]


@pytest.mark.slow
async def test_what_is_known_stays_in_force_while_postgres_does_not_answer(
    serve: Serve, redis: Redis
) -> None:
    with Postgres() as postgres:
        way = ("--redis", redis.url, "--cluster", "away", "--postgres", postgres.dsn)
        pair = Pair(serve(*way, "--auth", "keys"), serve(*way, "--auth", "keys"), way)
        good = pair.key("ci", "--room", "notes=read,write")["key"]
        made = pair.key("eve", "--room", "notes=read,write")
        pair.run("key", "revoke", made["id"])
        server = pair.servers[1]
        assert eventually(lambda: asked(server, made["key"]) == 401)

        postgres.kill()
        assert eventually(lambda: "keys and revocations" in reasons(server))
        answers = [
            asked(server, token)
            for token in (good, made["key"], "ck_0000000000000000.unknown")
        ]
        figures = httpx2.get(f"{server.url}/metrics").text
        postgres.start()

        assert answers == [201, 401, 503]
        age = float(figures.partition("\ncollab_rights_age_seconds ")[2].split()[0])
        assert 0 < age < 60
        assert eventually(lambda: "keys and revocations" not in reasons(server))


def asked(server: Server, token: str) -> int:
    """How a server answers who asks for a ticket with this token."""
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.post(
        f"{server.url}/v1/tickets", json={"room": "notes"}, headers=headers
    ).status_code


def reasons(server: Server) -> str:
    """Why it is not as it should be."""
    return " ".join(httpx2.get(f"{server.url}/readyz").json()["reasons"])

"""What `/readyz` says of a Redis that does not do what it should, and that it says so no longer afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import redis as redis_py
from processes import Server, eventually
from services import Postgres, Redis

pytestmark = pytest.mark.slow

# What is done to Redis, the word for it, what mends it.
FAULTS: dict[str, tuple[list[str], str, list[str]]] = {
    "full memory": (["CONFIG SET maxmemory 1mb"], "memory", ["CONFIG SET maxmemory 0"]),
    "a follower": (["REPLICAOF 127.0.0.1 1"], "read_only", ["REPLICAOF NO ONE"]),
    "another password": (
        ["ACL SETUSER default >other", "ACL SETUSER default resetpass >other"],
        "auth",
        ["ACL SETUSER default nopass"],
    ),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def reasons(server: Server) -> tuple[int, str, str]:
    answer = httpx2.get(f"{server.url}/readyz", timeout=30)
    said = answer.json()
    return answer.status_code, said["status"], " ".join(said.get("reasons", []))


@pytest.mark.parametrize("name", FAULTS)
def test_readiness_says_what_is_wrong_with_redis_and_that_it_is_mended(
    serve: Callable[..., Server], postgres: Postgres, name: str
) -> None:
    commands, word, mending = FAULTS[name]
    with Redis() as redis, redis_py.Redis(port=redis.port) as client:
        server = serve("--redis", redis.url, "--postgres", postgres.dsn)
        assert eventually(lambda: reasons(server) == (200, "ready", ""))

        _do(client, commands)
        client.client_kill_filter(_type="pubsub")
        client.client_kill_filter(_type="normal", skipme=True)
        edit(server)  # which is saved, and cannot be told to others
        is_said = eventually(lambda: word in reasons(server)[2])
        told = reasons(server)
        _do(client, mending)

        assert is_said, told
        assert told[:2] == (200, "degraded")
        assert eventually(lambda: reasons(server) == (200, "ready", ""))


def edit(server: Server) -> None:
    splice = {"root": "text", "index": 0, "delete": 0, "insert": "x"}
    answer = httpx2.patch(
        f"{server.url}/v1/rooms/r/document", json={"splices": [splice]}
    )
    assert answer.status_code == 200


def _do(client: Any, commands: list[str]) -> None:
    for command in commands:
        client.execute_command(*command.split())

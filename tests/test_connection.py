"""The way to Redis ends in time whatever Redis does, and says what is wrong with it."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ports import free_port
from processes import BUSY_SECONDS, Server
from services import Cluster, Redis, Sentinels, wait_for
from tls_redis import TlsRedis

from collab import connection
from collab.connection import (
    COMMAND_SECONDS,
    Call,
    Client,
    Endpoint,
    ForeignContent,
    Script,
    endpoint,
)
from collab.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.anyio

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
PUSH = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def client(place: Endpoint | str) -> Client:
    found = endpoint(place) if isinstance(place, str) else place
    return Client(found, unavailable=BusUnavailable)


async def until(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Try until it is available."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await attempt()
            except BusUnavailable:
                await asyncio.sleep(0.05)


# Addresses


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("redis://r", Endpoint("single", (("r", 6379),))),
        (
            "redis://ann%40x@r:7/3",
            Endpoint("single", (("r", 7),), database=3, user="ann@x"),
        ),
        ("redis://[::1]:7/0", Endpoint("single", (("::1", 7),))),
        ("rediss://r", Endpoint("single", (("r", 6379),), is_secure=True)),
        (
            "redis+sentinel://ann@a,b:7/primary",
            Endpoint("sentinel", (("a", 26379), ("b", 7)), "primary", user="ann"),
        ),
        ("redis+cluster://a:1,b:2", Endpoint("cluster", (("a", 1), ("b", 2)))),
        (
            "rediss+cluster://a:1/0",
            Endpoint("cluster", (("a", 1),), is_secure=True),
        ),
    ],
)
def test_addresses_are_understood(address: str, expected: Endpoint) -> None:
    assert endpoint(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "http://r",
        "redis://",
        "redis://r:port",
        "redis://a,b",
        "redis://r/x",
        "redis://r?db=1",
        "redis+sentinel://a",
        "redis+sentinel://a/0",
        "redis+cluster://a/1",
        "redis+cluster://a,,b",
        "redis://ann:secret@r",
    ],
)
def test_other_addresses_are_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        endpoint(address)

    assert "secret" not in str(refused.value)


def test_the_password_comes_from_its_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("between us\n")

    found = endpoint("redis://r", password_file=file)

    assert found.password == "between us"
    assert "between" not in f"{found} {found!r}"


def test_a_password_file_that_says_nothing_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()

    with pytest.raises(ConfigurationError, match="empty"):
        endpoint("redis://r", password_file=empty)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        endpoint("redis://r", password_file=tmp_path / "none")


def test_certificates_that_would_not_be_used_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(ConfigurationError, match="rediss"):
        endpoint("redis://r", ca=file)
    with pytest.raises(ConfigurationError, match="go together"):
        endpoint("rediss://r", certificate=file)
    with pytest.raises(ConfigurationError, match="no file"):
        endpoint("rediss://r", ca=tmp_path / "none")


# Commands


async def test_scripts_run_in_order_and_are_taught_to_a_server_that_forgot_them(
    redis: Redis,
) -> None:
    async with client(redis.url) as ours:
        await ours.check()
        redis.do("SCRIPT", "FLUSH")

        answers = await ours.call_all([Call(PUSH, ["list"], [n]) for n in range(50)])

        assert answers == list(range(1, 51))
        assert await ours.run("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(50)]
        assert await ours.call(ADD, ["sum"], 3) == 3


async def test_one_failing_call_leaves_the_others_alone(redis: Redis) -> None:
    redis.do("SET", "text", "x")

    async with client(redis.url) as ours:
        first, second, third = await ours.call_all(
            [
                Call(ADD, ["one"], [1]),
                Call(PUSH, ["text"], [1]),
                Call(ADD, ["two"], [2]),
            ]
        )

        assert (first, third) == (1, 2)
        assert isinstance(second, ForeignContent)
        with pytest.raises(ForeignContent):
            await ours.call(PUSH, ["text"], 1)


async def test_a_frozen_redis_is_given_up_in_time_and_answers_the_next_one_rightly() -> (
    None
):
    with Redis() as server:
        async with client(server.url) as ours:
            await ours.call(ADD, ["sum"], 1)
            server.stop()
            began = time.monotonic()
            results = await asyncio.gather(
                *(ours.call(ADD, ["sum"], 1) for _ in range(40)),
                ours.run("GET", "sum"),
                return_exceptions=True,
            )
            took = time.monotonic() - began
            server.cont()

            assert {type(one) for one in results} == {BusUnavailable}
            assert took < COMMAND_SECONDS + BUSY_SECONDS
            assert await ours.run("ECHO", "hello") == b"hello"


async def test_who_gives_up_takes_the_connection_along(redis: Redis) -> None:
    async with client(redis.url) as ours:
        await ours.run("SET", "key", "value")
        waiting = asyncio.create_task(ours.run("BLPOP", "nothing", 1))
        assert await asyncio.to_thread(
            wait_for, lambda: "cmd=blpop" in str(redis.do("CLIENT", "LIST"))
        )
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        answers = await asyncio.gather(*(ours.run("GET", "key") for _ in range(20)))

        assert set(answers) == {b"value"}


async def test_a_killed_connection_is_one_failure_and_then_another_connection(
    redis: Redis,
) -> None:
    async with client(redis.url) as ours:
        await ours.run("PING")
        redis.do("CLIENT", "KILL", "TYPE", "normal")

        with pytest.raises(BusUnavailable):
            await ours.run("PING")

        assert await ours.run("PING")


@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
async def test_a_connection_that_was_reset_while_idle_is_one_failure_and_then_another(
    redis: Redis,
) -> None:
    links: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(writer)
        answers, questions = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(carry(answers, writer), carry(reader, questions))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client(f"redis://127.0.0.1:{port}/0") as ours:
            await ours.run("PING")
            (node,) = ours._way.primaries()
            (idle,) = node.connection_pool._available_connections
            (link,) = links
            at_once = struct.pack("ii", 1, 0)
            raw = link.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

            link.transport.abort()
            with pytest.raises(ConnectionResetError):
                await idle._reader.read()
            with pytest.raises(BusUnavailable):
                await ours.run("PING")

            assert await ours.run("PING")


async def test_more_commands_than_places_wait_for_one(redis: Redis) -> None:
    async with client(redis.url) as ours:
        answers = await asyncio.gather(
            *(ours.run("ECHO", str(n)) for n in range(500)), return_exceptions=True
        )

        assert answers == [b"%d" % n for n in range(500)]


async def test_a_crowd_waits_longer_than_one_command_may_take_while_redis_answers(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_IN_FLIGHT", 1)
    monkeypatch.setattr(connection, "COMMAND_SECONDS", 1.5)
    async with client(redis.url) as ours:
        await ours.run("PING")
        naps = [ours.run("BLPOP", f"nothing{n}", 0.4) for n in range(5)]

        assert await asyncio.gather(*naps) == [None] * 5


async def test_who_gives_up_waiting_leaves_the_place_to_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_IN_FLIGHT", 1)
    async with client(redis.url) as ours:
        for _ in range(20):
            asked = [asyncio.create_task(ours.run("ECHO", str(n))) for n in range(9)]
            await asyncio.sleep(0)
            for task in asked[1::2]:
                task.cancel()
            await asyncio.wait(asked)

        assert await ours.run("ECHO", "last") == b"last"


async def test_nobody_there_is_unavailable() -> None:
    async with client(f"redis://127.0.0.1:{free_port()}") as ours:
        with pytest.raises(BusUnavailable):
            await ours.check()
        with pytest.raises(BusUnavailable):
            await ours.run("PING")


async def test_a_wrong_password_or_none_is_a_mistake_in_the_settings(
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")

    with Redis(password="right") as server:
        for place in (
            endpoint(server.url, password_file=file),
            endpoint(server.url),
            endpoint(
                f"redis://ann@127.0.0.1:{server.port}/0",
                password_file=file,
            ),
        ):
            async with client(place) as ours:
                with pytest.raises(ConfigurationError, match="password"):
                    await ours.check()


async def test_a_lone_redis_is_no_cluster(redis: Redis) -> None:
    async with client(f"redis+cluster://127.0.0.1:{redis.port}") as ours:
        with pytest.raises(ConfigurationError, match="no Redis Cluster"):
            await ours.check()


async def test_full_memory_is_unavailable() -> None:
    with Redis(maxmemory="3mb") as server:
        async with client(server.url) as ours:
            big = b"x" * 4_000_000
            await ours.run("SET", "small", 1)
            with pytest.raises(BusUnavailable, match="memory"):
                await ours.run("SET", "big", big)


# TLS, Sentinel, Cluster


async def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    with TlsRedis(tmp_path) as server:
        known = endpoint(
            server.url,
            ca=server.ca,
            certificate=server.certificate,
            key=server.key,
        )
        async with client(known) as ours:
            await ours.check()

            assert await ours.run("ECHO", "hello") == b"hello"
        async with client(server.url) as ours:
            with pytest.raises(ConfigurationError, match="redis_ca"):
                await ours.check()


async def test_behind_sentinels_the_new_primary_is_found() -> None:
    with Sentinels() as group:
        async with client(group.url) as ours:
            await ours.check()
            assert await ours.call(ADD, ["sum"], 1) == 1
            first = group.primary
            assert first.do("WAIT", 1, 10_000) == 1  # until the follower has it too
            first.kill()
            assert wait_for(lambda: group.primary is not first)

            assert await until(lambda: ours.call(ADD, ["sum"], 1)) == 2

            for one in group.sentinels:
                assert "sentinel|masters" not in str(one.do("CLIENT", "LIST"))


@pytest.fixture(scope="module")
def guarded() -> Iterator[Sentinels]:
    """Sentinels that want another password than the servers that they watch."""
    with Sentinels(password="of redis", sentinel_password="of sentinels") as group:
        yield group


@pytest.fixture
def passwords(tmp_path: Path) -> dict[str, Path]:
    """Files of the passwords of `guarded`, and of a wrong one."""
    known = {"redis": "of redis", "sentinels": "of sentinels", "wrong": "wrong secret"}
    files = {name: tmp_path / name for name in known}
    for name, password in known.items():
        files[name].write_text(f"{password}\n")
    return files


async def test_sentinels_with_a_password_of_their_own_are_asked_with_it(
    guarded: Sentinels, passwords: dict[str, Path]
) -> None:
    known = endpoint(
        guarded.url,
        password_file=passwords["redis"],
        sentinel_password_file=passwords["sentinels"],
    )

    async with client(known) as ours:
        await ours.check()

        assert await ours.run("ECHO", "hello") == b"hello"


@pytest.mark.parametrize("name", ["wrong", ""])
async def test_who_the_sentinels_do_not_accept_is_told_which_password_it_is(
    guarded: Sentinels, passwords: dict[str, Path], name: str
) -> None:
    known = endpoint(
        guarded.url,
        password_file=passwords["redis"],
        sentinel_password_file=passwords[name] if name else None,
    )

    async with client(known) as ours:
        with pytest.raises(ConfigurationError) as refused:
            await ours.check()
        with pytest.raises(BusUnavailable) as later:
            await ours.run("PING")

    assert "redis_sentinel_password_file" in str(refused.value)
    assert str(later.value) == "the sentinels of Redis do not accept our password"
    assert "secret" not in f"{refused.value!r}{later.value!r}{known}{known!r}"


def test_a_server_says_no_password_of_sentinels(
    guarded: Sentinels, passwords: dict[str, Path], serve: Callable[..., Server]
) -> None:
    redis = "--redis", guarded.url, "--redis-password-file", str(passwords["redis"])

    server = serve(
        *redis,
        *("--redis-sentinel-password-file", str(passwords["sentinels"])),
        *("--log-level", "debug"),
    )
    edited = httpx2.patch(
        f"{server.url}/v1/rooms/r/document",
        json={"splices": [{"root": "text", "index": 0, "insert": "hello"}]},
    )
    server.terminate()
    refused = server.run(
        *("key", "list", *redis),
        *("--redis-sentinel-password-file", str(passwords["wrong"])),
    )

    assert edited.status_code == 200, edited.text
    assert "of sentinels" not in server.logs()
    assert refused.returncode == 2
    assert "redis_sentinel_password_file" in refused.stderr
    assert "secret" not in refused.stderr


def test_a_password_for_sentinels_is_refused_where_there_are_none(
    passwords: dict[str, Path],
) -> None:
    with pytest.raises(ConfigurationError, match="redis\\+sentinel"):
        endpoint("redis://r", sentinel_password_file=passwords["wrong"])


async def test_a_cluster_answers_for_all_its_slots_and_after_a_failover() -> None:
    with Cluster(has_followers=True) as cluster:
        async with client(cluster.url) as ours:
            await ours.check()
            calls = [Call(ADD, [f"key{n}"], [n]) for n in range(200)]
            assert await ours.call_all(calls) == list(range(200))
            assert len(await ours.run_on_primaries("PING")) == 3
            cluster.nodes[0].kill()

            for script, keys, _ in calls:
                await until(partial(ours.call, script, keys, 1))

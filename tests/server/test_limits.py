"""What one principal, tenant or address may have and do, over all its sockets and requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import Server, close_code, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from collab.auth import failures
from collab.auth.authority import Authority
from collab.auth.base import Credential
from collab.auth.failures import Failures, network_of
from collab.auth.permissions import ANONYMOUS, Principal
from collab.errors import RateLimited, Unauthenticated
from collab.metrics import Metrics
from collab.protocol.varint import encode_string
from collab.server import limits as module
from collab.server.limits import MAX_WAIT_SECONDS, Limits
from collab.server.responses import Problem

pytestmark = pytest.mark.anyio

ADA = Principal("ada", tenant="t")
BEN = Principal("ben", tenant="t")
CAT = Principal("cat")


class Clock:
    """A clock that is held."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(clock: Clock) -> Callable[..., tuple[Limits, Metrics]]:
    def make(**terms: Any) -> tuple[Limits, Metrics]:
        metrics = Metrics()
        return Limits(metrics, clock=clock, **terms), metrics

    return make


Made = Callable[..., tuple[Limits, Metrics]]


def test_a_principal_may_open_so_many_sockets_and_no_more(made: Made) -> None:
    limits, metrics = made(max_sockets_per_principal=2)
    account = limits.of_principal(ADA)
    assert account is not None
    account.add_socket()
    limits.check_sockets(ADA)
    account.add_socket()

    with pytest.raises(RateLimited, match=r"of one principal; retry in 5 s"):
        limits.check_sockets(ADA)

    limits.check_sockets(BEN)
    assert metrics.limited["sockets_per_principal"] == 1


def test_a_socket_that_closes_makes_room(made: Made) -> None:
    limits, _ = made(max_sockets_per_principal=1)
    account = limits.of_principal(ADA)
    assert account is not None
    account.add_socket()

    account.add_socket(-1)

    limits.check_sockets(ADA)


def test_the_sockets_of_a_tenant_are_those_of_all_its_principals(made: Made) -> None:
    limits, metrics = made(max_sockets_per_tenant=2)
    for principal in (ADA, BEN):
        account = limits.of_principal(principal)
        assert account is not None
        account.add_socket()

    with pytest.raises(RateLimited, match="of one tenant"):
        limits.check_sockets(Principal("dan", tenant="t"))

    limits.check_sockets(Principal("dan", tenant="u"))
    limits.check_sockets(CAT)  # of no tenant
    assert metrics.limited["sockets_per_tenant"] == 1


def test_the_same_name_in_two_tenants_is_two_principals(made: Made) -> None:
    limits, _ = made()

    found = {limits.of_principal(Principal("ada", tenant=each)) for each in ("", "t")}

    assert len(found) == 2


def test_without_access_control_there_is_no_account(made: Made) -> None:
    limits, _ = made(requests_per_second_per_principal=1)

    for _ in range(100):
        limits.request(ANONYMOUS)
    limits.charge(ANONYMOUS, 100.0)

    assert limits.of_principal(ANONYMOUS) is None


def test_requests_beyond_the_burst_are_refused_until_time_has_passed(
    made: Made, clock: Clock
) -> None:
    limits, metrics = made(requests_per_second_per_principal=2)
    for _ in range(10):
        limits.request(ADA)

    with pytest.raises(RateLimited):
        limits.request(ADA)
    limits.request(BEN)
    clock.now += 0.5
    limits.request(ADA)

    with pytest.raises(RateLimited):
        limits.request(ADA)
    assert metrics.limited["requests_per_principal"] == 2


def test_work_that_takes_long_counts_as_many_requests(made: Made, clock: Clock) -> None:
    limits, _ = made(requests_per_second_per_principal=10)
    limits.request(ADA)

    limits.charge(ADA, 0.02)  # as long as one request may take
    limits.charge(ADA, 1.0)

    with pytest.raises(RateLimited):
        limits.request(ADA)
    limits.request(BEN)
    clock.now += 0.2
    limits.request(ADA)


def test_a_refusal_says_when_to_come_back_in_words_and_in_the_header(
    made: Made,
) -> None:
    limits, _ = made(requests_per_second_per_principal=0.1)

    with pytest.raises(RateLimited) as refused:
        limits.request(ADA)
    answer = Problem(refused.value)

    assert "retry in 5 s" in str(refused.value)
    assert answer.headers["retry-after"] == "5"
    assert answer.status_code == 429


def test_an_address_has_requests_and_sockets_of_its_own(made: Made) -> None:
    limits, metrics = made(
        max_sockets_per_address=1, requests_per_second_per_address=0.4
    )
    seat = limits.handshake("203.0.113.7")
    assert seat is not None

    with pytest.raises(RateLimited, match="too many sockets of one address"):
        limits.handshake("203.0.113.7")
    with pytest.raises(RateLimited, match="too many requests of one address"):
        limits.arrive("203.0.113.7")
    seat.add_socket(-1)

    assert limits.handshake("203.0.113.8") is not None
    assert metrics.limited == {"sockets_per_address": 1, "requests_per_address": 1}


def test_this_machine_is_not_bounded(made: Made) -> None:
    limits, _ = made(max_sockets_per_address=1, requests_per_second_per_address=0.2)

    seats = [limits.handshake(each) for each in ("127.0.0.1", "::1") * 10]

    assert seats == [None] * 20


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::1", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::1", "2001:0db8:0001:0003::/64"),
        ("127.0.0.1", ""),
        ("127.8.8.8", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, key: str) -> None:
    assert network_of(address) == key


def test_fifty_sockets_of_one_principal_have_one_rate(made: Made, clock: Clock) -> None:
    limits, metrics = made(messages_per_second_per_principal=100)
    account = limits.of_principal(ADA)
    assert account is not None

    waits = [account.lend(50, clock.now) for _ in range(20)]

    # Five seconds' worth is there; each loan after that is waited for behind the ones before.
    assert waits[:10] == [0.0] * 10
    assert waits[10:] == [0.5 * number for number in range(1, 11)]
    assert metrics.limited["messages_per_principal"] == 10


def test_a_tenant_has_one_rate_whoever_speaks(made: Made, clock: Clock) -> None:
    limits, metrics = made(messages_per_second_per_tenant=100)
    for principal in (ADA, BEN):
        account = limits.of_principal(principal)
        assert account is not None
        wait = account.lend(300, clock.now)

    assert wait == 1.0
    assert metrics.limited == {"messages_per_tenant": 1}


def test_nobody_waits_without_end_for_a_loan(made: Made, clock: Clock) -> None:
    limits, _ = made(messages_per_second_per_principal=1)
    account = limits.of_principal(ADA)
    assert account is not None

    assert account.lend(1_000_000, clock.now) == MAX_WAIT_SECONDS


def test_streams_are_bounded_for_a_principal_and_for_all(made: Made) -> None:
    limits, metrics = made(max_streams=3, max_streams_per_principal=2)

    with limits.stream(ADA), limits.stream(ADA):
        with (
            pytest.raises(RateLimited, match="too many streams of one principal"),
            limits.stream(ADA),
        ):
            pass
        with (
            limits.stream(ANONYMOUS),
            pytest.raises(RateLimited, match="too many streams are open"),
            limits.stream(BEN),
        ):
            pass
        assert metrics.gauges["streams"]() == 2

    with limits.stream(ADA):
        assert metrics.gauges["streams"]() == 1
    assert metrics.limited == {"streams_per_principal": 1, "streams": 1}


def test_who_has_nothing_open_is_forgotten_in_the_end(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_ACCOUNTS", 10)
    limits, _ = made(max_sockets_per_principal=1)
    held = [limits.of_principal(Principal(f"held {number}")) for number in range(5)]
    for account in held:
        assert account is not None
        account.add_socket()

    for number in range(1000):
        limits.of_principal(Principal(f"passing {number}"))

    assert len(limits._principals) <= 20
    assert [limits.of_principal(Principal(f"held {n}")) for n in range(5)] == held


def test_a_tenant_that_was_forgotten_meanwhile_is_counted_anew(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_ACCOUNTS", 2)
    limits, _ = made(max_sockets_per_tenant=1)
    limits.of_principal(ADA)
    for number in range(4):
        limits.of_principal(Principal("ada", tenant=f"other {number}"))
        limits.of_principal(ADA)

    for principal in (ADA, BEN):
        account = limits.of_principal(principal)
        assert account is not None
        account.add_socket()

    with pytest.raises(RateLimited, match="of one tenant"):
        limits.check_sockets(ADA)
    with pytest.raises(RateLimited, match="of one tenant"):
        limits.check_sockets(BEN)


# Bad credentials


class Nobody:
    """A verifier that takes one token."""

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        return ADA if credential.token == "good" else None


def authority(clock: Clock, per_minute: int = 3) -> Authority:
    noted = Failures(Metrics(), per_minute=per_minute, clock=clock)
    return Authority([Nobody()], failures=noted)


async def fail(authority: Authority, token: str, address: str = "203.0.113.7") -> None:
    with pytest.raises(Unauthenticated):
        await authority.authenticate(Credential(token, address=address))


async def test_after_some_bad_tokens_an_address_is_not_listened_to(
    clock: Clock,
) -> None:
    found = authority(clock)
    for token in ("a", "b", "c"):
        await fail(found, token)

    clock.now += 20
    with pytest.raises(RateLimited, match="retry in 40 s"):
        await found.authenticate(Credential("good", address="203.0.113.7"))

    assert await found.authenticate(Credential("good", address="203.0.113.8")) == ADA
    clock.now += 40
    assert await found.authenticate(Credential("good", address="203.0.113.7")) == ADA


async def test_one_expired_token_again_and_again_locks_nobody_out(
    clock: Clock,
) -> None:
    found = authority(clock)

    for _ in range(100):
        await fail(found, "expired")

    assert await found.authenticate(Credential("good", address="203.0.113.7")) == ADA


async def test_this_machine_may_fail_as_often_as_it_likes(clock: Clock) -> None:
    found = authority(clock)

    for number in range(100):
        await fail(found, str(number), "127.0.0.1")


async def test_failures_are_kept_for_so_many_addresses(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MAX_ADDRESSES", 10)
    noted = Failures(Metrics(), per_minute=3, clock=clock)

    for number in range(1000):
        noted.note(f"address {number}", "a")

    assert len(noted) == 10


# For real


def behind(number: int) -> dict[str, str]:
    return {"x-forwarded-for": f"203.0.113.{number}"}


async def test_the_sixth_socket_of_an_address_is_refused_and_told_when_to_come_back(
    serve: Callable[..., Server],
) -> None:
    server = serve(
        *("--trusted-proxies", "127.0.0.1", "--max-sockets-per-address", "5")
    )
    address = f"{server.address}/ws/r"
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(
                connect(address, additional_headers=behind(7))
            )
            for _ in range(5)
        ]

        with pytest.raises(InvalidStatus) as refused:
            await connect(address, additional_headers=behind(7))
        async with connect(address, additional_headers=behind(8)) as other:
            await other.ping()
        await sockets[0].close()

        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"] == "5"
        async with asyncio.timeout(30):
            while True:
                try:
                    again = await connect(address, additional_headers=behind(7))
                except InvalidStatus:
                    continue
                await stack.enter_async_context(again)
                break


@pytest.fixture
def keyed(
    serve: Callable[..., Server], tmp_path: Path
) -> Callable[..., tuple[Server, str]]:
    """A server behind a proxy that knows API keys, and one of them for everything."""

    def start(*flags: str) -> tuple[Server, str]:
        data = tmp_path / "data"
        everything = "=read,write,presence,history,admin"
        made = Server(data).run(
            *("key", "create", "--principal", "ada", "--prefix", everything, "--json")
        )
        assert made.returncode == 0, made.stderr
        server = serve(
            *("--auth", "keys", "--trusted-proxies", "127.0.0.1", *flags), data=data
        )
        return server, json.loads(made.stdout)["key"]

    return start


Keyed = Callable[..., tuple[Server, str]]


async def test_a_principal_has_so_many_sockets_from_wherever_it_comes(
    keyed: Keyed,
) -> None:
    server, key = keyed("--max-sockets-per-principal", "2")

    def open_socket(number: int, path: str = "/ws/r") -> connect:
        headers = behind(number) | {"authorization": f"Bearer {key}"}
        return connect(f"{server.address}{path}", additional_headers=headers)

    async with open_socket(1) as first, open_socket(2, "/d/r/ws/r") as second:
        for each in (first, second):
            await each.send(b"\x00\x00\x01\x00")
            await each.recv()  # it has been let in
        async with open_socket(3) as third:
            code = await close_code(third)
            reason = third.close_reason

        await first.ping()
        await second.ping()

    assert code == 4429
    assert reason == "too many sockets of one principal; retry in 5 s"


async def test_a_hocuspocus_socket_that_is_one_too_many_is_told_when_to_come_back(
    keyed: Keyed,
) -> None:
    server, key = keyed("--max-sockets-per-principal", "1")
    token = encode_string("r") + b"\x02\x00" + encode_string(key)

    async with connect(f"{server.address}/hocuspocus") as first:
        await first.send(token)
        answer = await first.recv()
        async with connect(f"{server.address}/hocuspocus") as second:
            await second.send(token)
            code = await close_code(second)
            reason = second.close_reason

    assert answer == encode_string("r") + b"\x02\x02" + encode_string("read-write")
    assert code == 4429
    assert reason == "too many sockets of one principal; retry in 5 s"


async def test_requests_beyond_the_limit_are_answered_429(keyed: Keyed) -> None:
    server, key = keyed("--requests-per-second-per-principal", "0.4")

    async with httpx2.AsyncClient(base_url=server.url) as client:
        headers = {"authorization": f"Bearer {key}"}
        found = [await client.get("/v1/rooms", headers=headers) for _ in range(3)]
        figures = await client.get("/metrics")

    assert found[-1].status_code == 429
    assert found[-1].json()["code"] == "rate_limited"
    assert int(found[-1].headers["retry-after"]) in (2, 3)
    assert 'collab_limited_total{limit="requests_per_principal"}' in figures.text
    assert 'collab_limit{name="requests_per_second_per_principal"} 0.4' in figures.text


async def test_an_address_that_guesses_is_not_listened_to(keyed: Keyed) -> None:
    server, key = keyed("--auth-failures-per-minute", "3")

    async def ask(token: str, number: int) -> int:
        headers = behind(number) | {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=server.url) as client:
            return (await client.get("/v1/rooms", headers=headers)).status_code

    guessed = [await ask(f"ck_{number:016}.x", 7) for number in range(4)]

    assert guessed == [401, 401, 401, 429]
    assert await ask(key, 7) == 429
    assert await ask(key, 8) == 200


async def test_many_sockets_of_one_principal_share_its_rate(keyed: Keyed) -> None:
    server, key = keyed("--messages-per-second-per-principal", "20")
    headers = {"authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(
                connect(
                    f"{server.address}/ws/r",
                    additional_headers=headers,
                    close_timeout=0.1,  # what was sent is read at that rate, and then the goodbye
                )
            )
            for _ in range(5)
        ]

        # Presence of nobody: each socket alone is far below its own rate.
        for socket in sockets:
            for _ in range(60):
                await socket.send(b"\x01\x01\x00")

        async with httpx2.AsyncClient(base_url=server.url) as client:
            async with asyncio.timeout(30):
                while True:
                    figures = (await client.get("/metrics")).text
                    if 'limit="messages_per_principal"' in figures:
                        break
    assert eventually(lambda: "Traceback" not in server.logs())

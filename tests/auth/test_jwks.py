"""Keys under a URL: a real endpoint that is slow, huge, somewhere else or down, and a clock that is held."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from endpoints import (
    Answering,
    answer,
    drip,
    endless,
    endpoint,
    garbage,
    hang_up,
    silence,
)
from forging import Issuer
from logged import capture_logs

from collab.auth import jwks as module
from collab.auth.base import Credential
from collab.auth.jwks import (
    FIRST_RETRY_SECONDS,
    FRESH_SECONDS,
    KEPT_SECONDS,
    RETRY_SECONDS,
    Jwks,
)
from collab.auth.signing import ALGORITHMS
from collab.auth.tokens import Tokens
from collab.errors import Busy, Unauthenticated


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def published(issuer: Issuer) -> Answering:
    return answer(issuer.jwks("EdDSA", "ES256", "RS256"))


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can wait for."""
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.3)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    """Until no task but this one has anything left to do."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    flights = [
        each
        for each in others
        if "_contained" in getattr(each.get_coro(), "__qualname__", "")
    ]
    if flights:
        await asyncio.wait(flights)


@pytest.mark.anyio
async def test_keys_are_fetched_when_the_first_token_comes(
    issuer: Issuer, published: Answering
):
    async with endpoint(published) as backend, Jwks(backend.url, ALGORITHMS) as keys:
        tokens = Tokens(keys)
        assert backend.asked == []

        principals = [
            await tokens.verify(Credential(issuer.sign({}, issuer.claims(), name)), "")
            for name in ("EdDSA", "ES256", "RS256")
        ]

        assert all(principals)
        assert len(backend.asked) == 1
        assert (backend.asked[0].method, backend.asked[0].path) == ("GET", "/asked")
        assert backend.asked[0].headers["host"] == f"127.0.0.1:{backend.port}"


@pytest.mark.anyio
async def test_who_comes_while_the_keys_are_fetched_waits_for_the_same_fetch(
    issuer: Issuer, published: Answering
):
    async with endpoint(published) as backend, Jwks(backend.url, ALGORITHMS) as keys:
        tokens = Tokens(keys)

        await asyncio.gather(
            *(
                tokens.verify(Credential(issuer.token(sub=f"u{n}")), "")
                for n in range(9)
            )
        )

        assert len(backend.asked) == 1


@pytest.mark.anyio
async def test_a_client_that_goes_away_does_not_end_the_fetch_of_the_others(
    issuer: Issuer, published: Answering
):
    gate = asyncio.Event()

    async def late(asked: Any, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await published(asked, writer)

    async with endpoint(late) as backend, Jwks(backend.url, ALGORITHMS) as keys:
        first, second = (asyncio.create_task(keys.find("EdDSA", "EdDSA")) for _ in "12")
        await asyncio.sleep(0)
        first.cancel()
        gate.set()

        assert len(await second) == 1
        assert first.cancelled() or first.cancelling()


@pytest.mark.anyio
@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("answering", "reason"),
    [
        (silence, "in time"),
        (drip, "in time"),
        (endless, "too long"),
        (garbage, "the connection broke"),
        (hang_up, "the connection broke"),
        (answer({"keys": []}, 500), "200"),
        (answer({"keys": []}, 404), "200"),
        (answer(b"", 302, location="http://169.254.169.254/"), "200"),
        (answer(b"x" * 65_537), "too long"),
        (answer(b"{}" + b" " * (10 << 20)), "too long"),
        (answer(b"<html>"), "not JSON"),
        (answer(b"[" * 60_000), "not JSON"),
        (answer(b"[]"), "not an object"),
        (answer({"keys": {}}), "not a JWKS"),
        (answer(b"\x1f\x8b", content_encoding="gzip"), "compressed"),
    ],
)
async def test_a_bad_endpoint_costs_a_named_error_and_no_more(
    issuer: Issuer, answering: Answering, reason: str
):
    async with endpoint(answering) as backend, Jwks(backend.url, ALGORITHMS) as keys:
        tokens = Tokens(keys)

        with capture_logs() as lines, pytest.raises(Busy, match="keys"):
            await tokens.verify(Credential(issuer.token()), "")

        assert [reason in line["reason"] for line in lines] == [True]
        assert len(backend.asked) == 1
        # Nobody makes it be asked again at once.
        with pytest.raises(Busy):
            await tokens.verify(Credential(issuer.token()), "")
        assert len(backend.asked) == 1


@pytest.mark.anyio
async def test_an_endpoint_that_is_not_there_is_tried_again_a_little_later(
    issuer: Issuer, published: Answering
):
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Jwks(f"http://127.0.0.1:{port}/asked", ALGORITHMS, clock=clock) as keys:
        with capture_logs(), pytest.raises(Busy):
            await keys.find("EdDSA", "EdDSA")

        clock.now += FIRST_RETRY_SECONDS

        with capture_logs() as lines, pytest.raises(Busy):
            await keys.find("EdDSA", "EdDSA")
        assert [line["reason"] for line in lines] == ["it could not be connected to"]


@pytest.mark.anyio
async def test_an_unknown_key_id_is_asked_for_once_in_a_while_and_no_more(
    issuer: Issuer, published: Answering
):
    clock = Clock()
    async with (
        endpoint(published) as backend,
        Jwks(backend.url, ALGORITHMS, clock=clock) as keys,
    ):
        tokens = Tokens(keys)
        await tokens.verify(Credential(issuer.token()), "")

        for seconds in (0, RETRY_SECONDS - 1, 1, 5, 5):
            clock.now += seconds
            with pytest.raises(Unauthenticated):
                await tokens.verify(
                    Credential(issuer.sign({"kid": f"k{clock.now}"}, issuer.claims())),
                    "",
                )

        assert len(backend.asked) == 2


@pytest.mark.anyio
async def test_a_new_key_is_found_by_its_id(issuer: Issuer):
    clock = Clock()
    async with (
        endpoint(answer(issuer.jwks("ES256"))) as backend,
        Jwks(backend.url, ALGORITHMS, clock=clock) as keys,
    ):
        await keys.find("ES256", "ES256")
        backend.answering = answer(issuer.jwks("ES256", "EdDSA"))
        clock.now += RETRY_SECONDS

        assert len(await keys.find("EdDSA", "EdDSA")) == 1


@pytest.mark.anyio
async def test_keys_are_renewed_in_the_background_and_a_withdrawn_one_ends_its_tokens(
    issuer: Issuer, published: Answering
):
    clock = Clock()
    async with (
        endpoint(published) as backend,
        Jwks(backend.url, ALGORITHMS, clock=clock) as keys,
    ):
        tokens, credential = Tokens(keys), Credential(issuer.token())
        await tokens.verify(credential, "")
        backend.answering = answer(issuer.jwks("ES256"))
        clock.now += FRESH_SECONDS + 1

        assert await tokens.verify(credential, "") is not None
        await settle()

        assert len(backend.asked) == 2
        with pytest.raises(Unauthenticated):
            await tokens.verify(credential, "")


@pytest.mark.anyio
async def test_old_keys_hold_for_an_hour_while_the_endpoint_fails(
    issuer: Issuer, published: Answering
):
    clock = Clock()
    async with (
        endpoint(published) as backend,
        Jwks(backend.url, ALGORITHMS, clock=clock) as keys,
    ):
        tokens, credential = Tokens(keys), Credential(issuer.token(exp=None))
        await keys.find("EdDSA", "EdDSA")
        backend.answering = answer(b"", 503)
        credential = Credential(issuer.token())

        with capture_logs() as lines:
            for _ in range(int(KEPT_SECONDS / 60) - 1):
                clock.now += 60
                assert await tokens.verify(credential, "") is not None
                await settle()

        assert {line["has_keys"] for line in lines} == {True}
        clock.now += 120
        with capture_logs(), pytest.raises(Busy):
            await tokens.verify(credential, "")
        backend.answering = published
        clock.now += FIRST_RETRY_SECONDS
        assert await tokens.verify(credential, "") is not None


@pytest.mark.anyio
async def test_keys_that_cannot_be_used_are_passed_over_with_a_line(issuer: Issuer):
    small = {"kty": "RSA", "e": "AQAB", "n": "w" * 86, "kid": "small"}
    (secret,) = issuer.jwks("HS256")["keys"]
    good = issuer.jwks("EdDSA")["keys"]
    async with (
        endpoint(answer({"keys": [small, secret, {}, 7, *good]})) as backend,
        Jwks(backend.url, ALGORITHMS) as keys,
    ):
        with capture_logs() as lines:
            found = await keys.find("EdDSA", "EdDSA")

        assert len(found) == 1
        assert [(line["count"], line["used"]) for line in lines] == [(4, 1)]
        assert secret["k"] not in str(lines)
        assert await keys.find("HS256", "HS256") == []


@pytest.mark.anyio
async def test_only_so_many_keys_are_taken(issuer: Issuer):
    (jwk,) = issuer.jwks("EdDSA")["keys"]
    many = [{**jwk, "kid": f"k{n}"} for n in range(100)]
    async with (
        endpoint(answer({"keys": many})) as backend,
        Jwks(backend.url, ALGORITHMS) as keys,
    ):
        with capture_logs():
            assert len(await keys.find("", "EdDSA")) == 16

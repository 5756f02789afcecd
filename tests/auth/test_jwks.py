"""Keys under a URL: a real endpoint that is slow, huge, somewhere else or down, and a clock that is held."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
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
from structlog.testing import capture_logs

from collab.auth import jwks as module
from collab.auth.base import Credential
from collab.auth.egress import Backend, Unreachable, checked_url, is_allowed
from collab.auth.jwks import (
    FIRST_RETRY_SECONDS,
    FRESH_SECONDS,
    KEPT_SECONDS,
    RETRY_SECONDS,
    Jwks,
)
from collab.auth.signing import ALGORITHMS
from collab.auth.tokens import Tokens
from collab.errors import Busy, ConfigurationError, Unauthenticated


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
        clock.now += RETRY_SECONDS
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


# Where this server may go


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "example.com/jwks",
        "//example.com/jwks",
        "http://",
        "http:///jwks",
        "http://user:secret@example.com/",
        "http://example.com/#fragment",
        "http://example.com:99999/",
        "http://[::1/",
        "http://exämple.com/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "",
    ],
)
def test_an_address_that_nobody_may_be_asked_at_stops_the_start(url: str):
    with pytest.raises(ConfigurationError, match="jwt_jwks_url") as refused:
        Jwks(url, ALGORITHMS)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "in_public", "in_private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("100.64.0.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("2002:a9fe:a9fe::", False, False),
        ("fe80::1", False, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
    ],
)
def test_where_a_name_may_lead(address: str, in_public: bool, in_private: bool):
    found = ip_address(address)

    assert is_allowed(found, may_be_private=False) is in_public
    assert is_allowed(found, may_be_private=True) is in_private


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Names that lead where a test says, each time somewhere else."""

    def set_up(*answers: tuple[str, ...]) -> list[str]:
        remaining, asked = list(answers), []

        async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            found = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            return [(0, 0, 0, "", (address, port)) for address in found]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        return asked

    return set_up


def backend_of(url: str, **options: Any) -> Backend:
    return Backend(checked_url(url, "setting"), seconds=2, max_bytes=1000, **options)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.0.0.1",),
        ("169.254.169.254",),
        ("93.184.216.34", "127.0.0.1"),
    ],
)
async def test_a_name_that_leads_into_the_own_network_is_not_followed(
    resolving: Callable[..., list[str]], addresses: tuple[str, ...]
):
    resolving(addresses)
    async with endpoint(answer(b"")) as served:
        async with backend_of(f"http://login.example.com:{served.port}/") as backend:
            with pytest.raises(Unreachable, match="not allowed"):
                await backend.ask("GET")

        assert served.asked == []


@pytest.mark.anyio
async def test_a_name_may_lead_into_the_own_network_when_the_operator_says_so(
    resolving: Callable[..., list[str]],
):
    resolving(("127.0.0.1",))
    async with endpoint(answer(b"yes")) as served:
        url = f"http://backend:{served.port}/jwks?a=b"
        async with backend_of(url, allow_private=True) as backend:
            assert await backend.ask("GET") == (200, b"yes")

        assert served.asked[0].headers["host"] == f"backend:{served.port}"
        assert served.asked[0].path == "/jwks?a=b"


@pytest.mark.anyio
async def test_a_link_local_address_is_never_followed(
    resolving: Callable[..., list[str]],
):
    resolving(("169.254.169.254",))
    async with backend_of("http://backend/", allow_private=True) as backend:
        with pytest.raises(Unreachable, match="not allowed"):
            await backend.ask("GET")


@pytest.mark.anyio
async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    resolving: Callable[..., list[str]],
):
    asked = resolving(("127.0.0.1",), ("127.0.0.2",))
    async with endpoint(answer(b"yes")) as served:
        url = f"http://backend:{served.port}/"
        async with backend_of(url, allow_private=True) as backend:
            await backend.ask("GET")
            await backend.ask("GET")

        assert len(served.asked) == 2
        assert asked == ["backend"]


@pytest.mark.anyio
async def test_the_next_address_of_a_name_is_tried_when_one_does_not_answer(
    resolving: Callable[..., list[str]],
):
    resolving(("127.0.0.1", "127.0.0.9"))
    async with endpoint(answer(b"yes"), "127.0.0.9") as served:
        url = f"http://backend:{served.port}/"
        async with backend_of(url, allow_private=True) as backend:
            assert await backend.ask("GET") == (200, b"yes")


@pytest.mark.anyio
async def test_localhost_is_an_address_in_so_many_words():
    async with endpoint(answer(b"yes")) as served:
        async with backend_of(f"http://localhost:{served.port}/") as backend:
            assert await backend.ask("GET") == (200, b"yes")


# Over TLS


@pytest.fixture
def certified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """A certificate for the name `backend`, by an authority that the system trusts."""
    authority = trustme.CA()
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("backend").configure_cert(context)
    return context


@pytest.mark.anyio
async def test_the_certificate_must_be_for_the_name_and_not_for_the_address(
    resolving: Callable[..., list[str]], certified: ssl.SSLContext
):
    resolving(("127.0.0.1",))
    async with endpoint(answer(b"yes"), context=certified) as served:
        good, other = (
            f"https://{name}:{served.port}/" for name in ("backend", "other")
        )
        async with backend_of(good, allow_private=True) as backend:
            assert await backend.ask("GET") == (200, b"yes")
        async with backend_of(other, allow_private=True) as backend:
            with pytest.raises(Unreachable, match="connected"):
                await backend.ask("GET")

        assert len(served.asked) == 1


@pytest.mark.anyio
async def test_a_certificate_by_nobody_we_know_is_refused(
    resolving: Callable[..., list[str]],
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("backend").configure_cert(context)
    resolving(("127.0.0.1",))
    async with endpoint(answer(b"yes"), context=context) as served:
        url = f"https://backend:{served.port}/"
        async with backend_of(url, allow_private=True) as backend:
            with pytest.raises(Unreachable, match="connected"):
                await backend.ask("GET")

        assert served.asked == []

"""Where this server may go, and that it goes nowhere else."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from endpoints import answer, endpoint, silence
from hypothesis import given
from hypothesis import strategies as st
from logged import capture_logs

from collab.auth import egress as module
from collab.auth.egress import (
    Backend,
    Crowded,
    Flights,
    Unreachable,
    checked_url,
    is_allowed,
)
from collab.errors import Busy, ConfigurationError


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
        checked_url(url, "jwt_jwks_url")

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
            with pytest.raises(Unreachable, match="allow"):
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
        with pytest.raises(Unreachable, match="allow"):
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
async def test_a_resolver_that_hangs_is_asked_once_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[str] = []
    answered = asyncio.Event()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        await answered.wait()
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    async with endpoint(answer(b"yes")) as backend:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        url = f"http://backend.test:{backend.port}/"
        parts = checked_url(url, "setting")
        async with (
            Backend(parts, seconds=0.05, max_bytes=9, allow_private=True) as hasty,
            Backend(parts, seconds=30, max_bytes=9, allow_private=True) as patient,
        ):
            for _ in range(3):
                with pytest.raises(Unreachable):
                    await hasty.ask("GET")
            assert len(asked) == 1

            waiting = asyncio.create_task(patient.ask("GET"))
            answered.set()

            assert (await waiting).body == b"yes"


@pytest.mark.anyio
async def test_localhost_is_an_address_in_so_many_words():
    async with endpoint(answer(b"yes")) as served:
        async with backend_of(f"http://localhost:{served.port}/") as backend:
            assert await backend.ask("GET") == (200, b"yes")


@pytest.mark.anyio
async def test_who_was_not_asked_for_want_of_time_did_not_fail(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    async with endpoint(silence) as served:
        url = checked_url(served.url, "setting")
        async with Backend(url, seconds=0.3, max_bytes=1000) as backend:
            first, second = await asyncio.gather(
                backend.ask("GET"), backend.ask("GET"), return_exceptions=True
            )

        assert (type(first), type(second)) == (Unreachable, Crowded)


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


@given(text=st.text(max_size=60) | st.text(max_size=60).map("http://{}".format))
def test_any_text_is_an_address_or_one_sentence(text: str):
    try:
        found = checked_url(text, "setting")
    except ConfigurationError:
        return

    assert found.scheme in ("http", "https")
    assert found.hostname


# Questions under way


@pytest.mark.anyio
async def test_a_question_is_asked_once_for_all_who_wait():
    asked = []

    async def ask() -> int:
        asked.append(1)
        await asyncio.sleep(0)
        return 7

    async with Flights() as flights:
        answers = await asyncio.gather(*(flights.get("key", ask) for _ in range(5)))

    assert answers == [7] * 5
    assert len(asked) == 1
    assert "key" not in flights


@pytest.mark.anyio
async def test_a_bug_in_asking_is_logged_and_looks_busy_to_who_asks():
    async def ask() -> None:
        raise RuntimeError("a bug")

    async with Flights() as flights:
        with capture_logs() as lines, pytest.raises(Busy):
            await flights.get("key", ask)

        assert await flights.get("key", lambda: asyncio.sleep(0, 7)) == 7
    assert [line["log_level"] for line in lines] == ["error"]


@pytest.mark.anyio
async def test_only_so_many_questions_are_under_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 2)
    async with Flights() as flights:
        for key in "ab":
            flights.start(key, asyncio.Event().wait)

        with pytest.raises(Busy):
            flights.start("c", asyncio.Event().wait)
        assert flights.start("a", asyncio.Event().wait)


@pytest.mark.anyio
async def test_leaving_ends_what_is_under_way():
    async with endpoint(silence) as served:
        async with backend_of(served.url) as backend, Flights() as flights:
            task = flights.start("key", lambda: backend.ask("GET"))
            await asyncio.sleep(0)

        assert task.done()


def test_nobody_else_of_the_server_goes_out():
    root = Path(module.__file__).parents[1]

    users = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] != "sdk"  # which is what clients use
        and re.search(
            r"^\s*(import|from) (httpx2|urllib\.request|http\.client|aiohttp)\b",
            path.read_text(),
            flags=re.MULTILINE,
        )
    }

    assert users == {"auth/egress.py"}

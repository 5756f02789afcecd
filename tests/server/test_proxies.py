"""Who is believed when it says where a client comes from, and what of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from processes import Server
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from collab.server.proxies import MAX_PROXIES, Header, Proxies, Trusted, is_local

pytestmark = pytest.mark.anyio

HOSTILE = (
    "unknown",
    "_hidden",
    "203.0.113.7, ",
    "203.0.113.7;for=1.1.1.1",
    "999.0.0.1",
    "203.0.113.7:99999999",
    "1.1.1.1%eth0",
    "fe80::1%eth0",
    "<script>",
    "203.0.113.7\x00",
    "\u00b2\u00b2.0.113.7",
    "203.0.113.7/8",
    "[203.0.113.7",
    "0x7f.1",
    "localhost",
    '"203.0.113.7',
)


async def seen(
    peer: str,
    *headers: tuple[str, str],
    trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8"),
    header: Header = "x-forwarded-for",
) -> tuple[str, str]:
    """The address and the scheme that the application gets to see."""
    found: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.update(scope)

    scope = {
        "type": "http",
        "client": (peer, 1234),
        "scheme": "http",
        "headers": [(name.encode(), value.encode("utf-8")) for name, value in headers],
    }
    made: Any = Proxies(app, trusted=Trusted(trusted), header=header)
    await made(scope, None, None)
    return found["client"][0], found["scheme"]


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
async def test_a_stranger_is_not_believed(name: Header) -> None:
    said = [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.7;proto=https"),
    ]

    found = await seen("198.51.100.1", *said, header=name)

    assert found == ("198.51.100.1", "http")


async def test_nobody_is_believed_unless_named() -> None:
    said = ("x-forwarded-for", "203.0.113.7")

    assert await seen("127.0.0.1", said, trusted=()) == ("127.0.0.1", "http")


async def test_a_proxy_is_believed() -> None:
    found = await seen(
        "10.0.0.1", ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")
    )

    assert found == ("203.0.113.7", "https")


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("203.0.113.7, fd00::2", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", "10.0.0.1"),
        ("203.0.113.7, , 10.0.0.2", "10.0.0.2"),
    ],
)
async def test_the_right_most_address_that_is_no_proxy_is_the_client(
    said: str, address: str
) -> None:
    assert (await seen("10.0.0.1", ("x-forwarded-for", said)))[0] == address


async def test_several_lines_of_a_header_are_one_list() -> None:
    found = await seen(
        "10.0.0.1", ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")
    )

    assert found[0] == "203.0.113.7"


@pytest.mark.parametrize("value", HOSTILE)
async def test_what_is_no_address_is_ignored(value: str) -> None:
    assert (await seen("10.0.0.1", ("x-forwarded-for", value)))[0] == "10.0.0.1"


@pytest.mark.parametrize("value", HOSTILE)
async def test_what_a_client_said_before_is_not_looked_at(value: str) -> None:
    said = ("x-forwarded-for", f"{value}, 203.0.113.7")

    assert (await seen("10.0.0.1", said))[0] == "203.0.113.7"


@pytest.mark.parametrize("value", ["", "gopher", "https, gopher", "https\x00", "ſ"])
async def test_a_scheme_that_is_none_is_ignored(value: str) -> None:
    assert (await seen("10.0.0.1", ("x-forwarded-proto", value)))[1] == "http"


async def test_a_scheme_is_read_from_the_right() -> None:
    said = ("x-forwarded-proto", "https, http")

    assert (await seen("10.0.0.1", said))[1] == "http"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("for=203.0.113.7;proto=https", ("203.0.113.7", "https")),
        ('For="[2001:db8::1]:4711" ; Proto=https', ("2001:db8::1", "https")),
        ("for=1.1.1.1, for=203.0.113.7, for=10.0.0.2", ("203.0.113.7", "http")),
        ('for="1.1.1.1, for=203.0.113.7', ("203.0.113.7", "http")),
        ("for=1.1.1.1;for=203.0.113.7", ("10.0.0.1", "http")),
        ("for=unknown;proto=https", ("10.0.0.1", "https")),
        ("for=_x;by=1.1.1.1", ("10.0.0.1", "http")),
        ("proto=https;;for=1.1.1.1", ("10.0.0.1", "http")),
        ("203.0.113.7", ("10.0.0.1", "http")),
    ],
)
async def test_forwarded_is_read_as_rfc_7239_has_it(
    said: str, found: tuple[str, str]
) -> None:
    assert await seen("10.0.0.1", ("forwarded", said), header="forwarded") == found


async def test_a_header_that_the_proxy_does_not_write_is_ignored() -> None:
    said = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.7")]

    found = (
        await seen("10.0.0.1", *said),
        await seen("10.0.0.1", *said, header="forwarded"),
    )

    assert [address for address, _ in found] == ["203.0.113.7", "1.1.1.1"]


async def test_a_list_is_not_followed_without_end() -> None:
    said = ("x-forwarded-for", "203.0.113.7" + ", 10.0.0.2" * MAX_PROXIES)

    assert (await seen("10.0.0.1", said))[0] == "10.0.0.2"


@pytest.mark.parametrize(
    ("address", "headers", "answer"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:8000"}, True),
        ("::1", {"host": "localhost"}, True),
        ("203.0.113.7", {"host": "127.0.0.1:8000"}, False),
        ("127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": ""}, False),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}, False),
    ],
)
def test_what_was_passed_on_or_asked_of_another_name_is_not_local(
    address: str, headers: dict[str, str], answer: bool
) -> None:
    scope = {
        "type": "http",
        "client": (address, 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    assert is_local(HTTPConnection(scope)) is answer


def test_a_proxy_on_this_machine_is_counted_and_other_processes_here_are_not() -> None:
    trusted = Trusted(["127.0.0.2"])

    assert trusted.key_of("127.0.0.1") == ""
    assert trusted.key_of("127.0.0.2") == "127.0.0.2"


async def test_the_answer_to_a_y_sweet_client_has_the_scheme_of_the_proxy(
    serve: Callable[..., Server],
) -> None:
    server = serve("--trusted-proxies", "127.0.0.1")

    async with httpx2.AsyncClient(base_url=server.url) as client:
        plain = await client.post("/doc/r/auth")
        secure = await client.post(
            "/doc/r/auth", headers={"x-forwarded-proto": "https"}
        )

    assert plain.json()["url"].startswith("ws://")
    assert secure.json()["url"].startswith("wss://")


async def test_the_log_names_the_client_behind_the_proxy(
    serve: Callable[..., Server],
) -> None:
    server = serve("--trusted-proxies", "127.0.0.1")

    async with httpx2.AsyncClient(base_url=server.url) as client:
        await client.get(
            "/",
            headers={
                "origin": "https://evil.example",
                "x-forwarded-for": "203.0.113.7",
            },
        )

    assert '"address": "203.0.113.7"' in server.logs()

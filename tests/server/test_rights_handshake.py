"""Where a token may be shown, over TCP: in the header, as a subprotocol, in a message, and as a ticket in the address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

import pytest
from forging import AUDIENCE, ISSUER, Issuer
from processes import Server, close_code
from pycrdt import Doc, Provider, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from collab.protocol import yjs
from collab.protocol.varint import encode_string
from collab.server.rooms import KEPT_REFUSALS, REPEAT_SECONDS, Refusals

pytestmark = pytest.mark.anyio

PATHS = ("ws/r", "d/r/ws/r", "hocuspocus")
R, S = encode_string("r"), encode_string("s")
IN, DENIED = b"\x02\x02", b"\x02\x01"


class Door:
    def __init__(self, server: Server, issuer: Issuer) -> None:
        self.server, self.issuer = server, issuer

    def token(self, **claims: Any) -> str:
        return self.issuer.token(**claims)

    def ticket(self) -> str:
        headers = {
            "authorization": f"Bearer {self.token()}",
            "content-type": "application/json",
        }
        with urlopen(
            Request(f"{self.server.url}/v1/tickets", b"{}", headers)
        ) as answer:
            return str(json.load(answer)["ticket"])

    @asynccontextmanager
    async def enter(
        self, path: str, *, bearer: str = "", subprotocol: str = ""
    ) -> AsyncIterator[ClientConnection]:
        async with connect(
            f"{self.server.address}/{path}",
            additional_headers={"authorization": f"Bearer {bearer}"} if bearer else {},
            subprotocols=["x", f"collab.token.{subprotocol}"]  # type: ignore[list-item]
            if subprotocol
            else None,
        ) as socket:
            yield socket


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home, issuer = tmp_path_factory.mktemp("door"), Issuer()
    keys = issuer.write(home / "keys.json")
    flags = ("--auth", "jwt", "--jwt-keys", str(keys), "--jwt-audience", AUDIENCE)
    server = Server(home / "data", *flags, "--jwt-issuer", ISSUER)
    server.start()
    yield Door(server, issuer)
    server.kill()


async def ask(socket: ClientConnection, path: str) -> bytes:
    """Ask for the document as a client of this path does; the kind of the answer."""
    prefix = R if path == "hocuspocus" else b""
    with suppress(ConnectionClosed):
        if prefix:
            await socket.send(prefix + b"\x02\x00" + encode_string(""))
        await socket.send(prefix + yjs.sync_step_1(b"\x00"))
        while True:
            message = (await socket.recv(decode=False)).removeprefix(prefix)
            if message[:2] in (b"\x00\x01", DENIED):
                return message[:2]
    return b""


@pytest.mark.parametrize("how", ["bearer", "subprotocol", "ticket"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_token_is_taken_in_the_handshake(
    door: Door, path: str, how: str
) -> None:
    shown = {} if how == "ticket" else {how: door.token()}
    query = f"?ticket={door.ticket()}" if how == "ticket" else ""

    async with door.enter(path + query, **shown) as socket:
        answer = await ask(socket, path)

    assert answer == b"\x00\x01"


@pytest.mark.parametrize("path", PATHS)
async def test_nobody_enters_without_a_token(door: Door, path: str) -> None:
    async with door.enter(path) as socket:
        answer = await ask(socket, path)

    assert answer == (DENIED if path == "hocuspocus" else b"")


@pytest.mark.parametrize(
    "query", ["?token={token}", "?ticket={token}", "?ticket=tk_wrong"]
)
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_but_a_good_ticket_is_taken_in_the_address(
    door: Door, path: str, query: str
) -> None:
    async with door.enter(path + query.format(token=door.token())) as socket:
        code = await close_code(socket)

    assert code == 4401


async def test_who_comes_back_with_what_was_refused_waits_for_the_answer(
    door: Door,
) -> None:
    took = []
    for token in ("one", "one", "two"):
        began = monotonic()
        async with door.enter("ws/r", subprotocol=token) as socket:
            assert await close_code(socket) == 4401
        took.append(monotonic() - began)

    first, again, other = took
    assert again > REPEAT_SECONDS > first
    assert REPEAT_SECONDS > other


def test_refusals_are_forgotten_after_a_moment_and_when_there_are_many() -> None:
    refusals = Refusals()

    assert not refusals.is_repeat(1, 10.0)
    assert refusals.is_repeat(1, 13.0)
    assert not refusals.is_repeat(1, 18.0)
    assert not any(refusals.is_repeat(-n, 18.0) for n in range(KEPT_REFUSALS))
    assert not refusals.is_repeat(1, 18.0)


@pytest.mark.parametrize("path", PATHS)
async def test_two_tokens_are_one_too_many(door: Door, path: str) -> None:
    async with door.enter(
        path, bearer=door.token(), subprotocol=door.token()
    ) as socket:
        code = await close_code(socket)

    assert code == 4401


async def test_a_reader_with_the_provider_of_pycrdt_reads_on(door: Door) -> None:
    reader = door.token(sub="eve", prefixes={"": ["read"]})
    docs: list[Doc[Any]] = [Doc(), Doc()]
    ada, eve = (doc.get("text", type=Text) for doc in docs)
    news = asyncio.Event()
    eve.observe(lambda event: news.set())
    async with AsyncExitStack() as stack:
        for doc, token in zip(docs, (door.token(), reader), strict=True):
            channel: Any = await stack.enter_async_context(
                door.enter("ws/pycrdt", bearer=token)
            )
            channel.path = ""
            provider = await stack.enter_async_context(Provider(doc, channel))
            await provider.synced.wait()

        for n in range(20):
            ada += f"{n} "
            async with asyncio.timeout(30):
                while str(eve) != str(ada):
                    news.clear()
                    await news.wait()

    assert len(str(eve).split()) == 20


async def test_a_ticket_is_good_for_all_documents_of_one_socket(door: Door) -> None:
    ticket = door.ticket()
    heard = []

    async with door.enter(f"hocuspocus?ticket={ticket}") as socket:
        for address in (R, S):
            await socket.send(address + b"\x02\x00" + encode_string(""))
        while len(heard) < 2:
            heard.append(await socket.recv())
    async with door.enter(f"hocuspocus?ticket={ticket}") as socket:
        again = await close_code(socket)

    assert sorted(heard) == [
        R + IN + encode_string("read-write"),
        S + IN + encode_string("read-write"),
    ]
    assert again == 4401


async def test_a_token_of_the_handshake_is_no_secret_of_the_logs(door: Door) -> None:
    token, wrong = door.token(), door.token(exp=1)
    for shown in (token, wrong):
        for path in PATHS:
            async with door.enter(path, bearer=shown) as socket:
                await ask(socket, path)

    logs = door.server.logs()
    assert "unauthenticated" in logs
    assert token not in logs
    assert wrong not in logs

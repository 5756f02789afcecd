"""The bounds of one HTTP connection, over a real socket; and what the class takes for granted of uvicorn."""

import asyncio
import gc
import inspect
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from collab.metrics import Metrics
from collab.server.http import Http

pytestmark = pytest.mark.anyio

GET = b"GET /there HTTP/1.1\r\nHost: a\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)


class Hurried(Http):
    """The same with less patience."""

    head_seconds = 0.1
    body_seconds = 0.1
    linger_seconds = 0.1


class Taken(asyncio.Protocol):
    """Stands for the WebSocket side: keeps what it was handed."""

    arrived: "asyncio.Queue[Taken]"

    def __init__(self, config: Any, server_state: Any, app_state: Any) -> None:
        self.transport: Any = None
        self.read = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.read += data
        self.arrived.put_nowait(self)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body it read; `/hasty` does not read it."""
    length, more = 0, scope["path"] != "/hasty"
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        length += len(event["body"])
        more = event["more_body"]
    body = b"read %d" % length
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Door:
    """A listening socket with the class under test behind it, and its counters."""

    def __init__(self, protocol: type[Http]) -> None:
        self.metrics = Metrics()
        self.protocols: weakref.WeakSet[Http] = weakref.WeakSet()
        self.taken: asyncio.Queue[Taken] = asyncio.Queue()
        ws = type("TakenHere", (Taken,), {"arrived": self.taken})
        self.config = uvicorn.Config(
            app, http=protocol, ws=ws, lifespan="off", access_log=False, log_config=None
        )
        self.config.load()
        self.state = ServerState()
        self.port = 0

    def protocol(self) -> Http:
        made = self.config.http_protocol_class(
            config=self.config,
            server_state=self.state,
            app_state={"metrics": self.metrics},
            _loop=None,
        )
        assert isinstance(made, Http)
        self.protocols.add(made)
        return made

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, *parts: bytes) -> bytes:
        """All that comes back until the server closes."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


@asynccontextmanager
async def door(protocol: type[Http] = Http) -> AsyncIterator[Door]:
    here = Door(protocol)
    server = await asyncio.get_running_loop().create_server(
        here.protocol, "127.0.0.1", 0
    )
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        await server.wait_closed()


def test_uvicorn_builds_a_connection_with_the_keywords_we_take():
    ours = inspect.signature(Http.__init__).parameters
    theirs = inspect.signature(HttpToolsProtocol.__init__).parameters

    assert list(ours) == list(theirs)
    assert uvicorn.__version__.startswith("0.54.")


def test_uvicorn_has_the_methods_that_we_extend():
    extended = [name for name in vars(Http) if callable(getattr(Http, name))]
    ours = [name for name in extended if name.startswith("_") and "__" not in name]

    assert not [name for name in ours if hasattr(HttpToolsProtocol, name)]
    assert not [
        name
        for name in extended
        if name not in ours and not hasattr(HttpToolsProtocol, name)
    ]


async def test_a_request_is_answered():
    async with door() as here:
        answer = await here.answer(GET + b"Connection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"read 0")
    assert not here.metrics.refused_requests


async def test_a_body_within_the_bound_is_read():
    async with door() as here:
        answer = await here.answer(
            b"POST /there HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 65536\r\n\r\n"
            + b"x" * 65_536
        )

    assert answer.endswith(b"read 65536")


async def test_a_connection_serves_several_requests_one_after_the_other():
    async with door() as here:
        reader, writer = await here.connect()
        answers = []
        for _ in range(3):
            writer.write(GET + b"\r\n")
            answers.append(await reader.readuntil(b"read 0"))
        writer.close()

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        pytest.param(
            414, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", id="target"
        ),
        pytest.param(414, b"GET /" + b"x" * 200_000, id="target that never ends"),
        pytest.param(
            431, GET + b"X: " + b"x" * 9_000 + b"\r\n\r\n", id="one long header"
        ),
        pytest.param(
            431,
            GET + (b"X: " + b"x" * 4_000 + b"\r\n") * 5 + b"\r\n",
            id="long headers",
        ),
        pytest.param(431, GET + b"X: " + b"x" * 500_000, id="header that never ends"),
        pytest.param(431, GET + b"X: y\r\n" * 101 + b"\r\n", id="many headers"),
        pytest.param(431, b"\r\n" * 100_000, id="empty lines that never end"),
        pytest.param(
            413,
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n",
            id="announced body",
        ),
        pytest.param(
            413,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 20,
            id="chunked body that never ends",
        ),
        pytest.param(
            413,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;"
            + b"x" * 500_000,
            id="chunk extension that never ends",
        ),
        pytest.param(
            413,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            + b"T: x\r\n" * 80_000,
            id="trailers that never end",
        ),
        pytest.param(
            400,
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            400,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            id="chunks and length",
        ),
        pytest.param(
            400,
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            id="unknown transfer encoding",
        ),
        pytest.param(400, GET + b"Host: b\r\n\r\n", id="two hosts"),
        pytest.param(
            400, GET + b"Origin: http://a\r\nOrigin: http://b\r\n\r\n", id="two origins"
        ),
        pytest.param(400, b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(400, GET + b"X: a\r\n b\r\n\r\n", id="folded header"),
        pytest.param(400, b"GET / HTTP/1.1\nHost: a\n\n", id="bare line feeds"),
        pytest.param(400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", id="space in a name"),
        pytest.param(400, GET + b"X: a\0b\r\n\r\n", id="NUL in a value"),
        pytest.param(
            400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", id="target not ASCII"
        ),
        pytest.param(
            400, b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="target of a proxy"
        ),
        pytest.param(400, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", id="tunnel"),
        pytest.param(400, b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", id="HTTP/2"),
        pytest.param(505, b"GET /\r\n\r\n", id="HTTP/0.9"),
        pytest.param(
            400,
            b"GET /ws HTTP/1.0\r\nHost: a\r\n" + UPGRADE + b"\r\n",
            id="upgrade on HTTP/1.0",
        ),
        pytest.param(
            400,
            b"POST /ws HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
            id="upgrade of a POST",
        ),
        pytest.param(
            400,
            GET + UPGRADE + b"Content-Length: 4\r\n\r\nbody",
            id="upgrade with a body",
        ),
        pytest.param(
            400,
            GET + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="upgrade with chunks",
        ),
        pytest.param(
            400,
            GET + UPGRADE + b"\r\n\x82\x80\x00\x00\x00\x00",
            id="frame before the handshake",
        ),
        pytest.param(
            400,
            GET + UPGRADE + b"Sec-WebSocket-Key: l\r\n\r\n",
            id="two keys",
        ),
    ],
)
async def test_a_request_beyond_a_bound_is_refused_counted_and_the_connection_closed(
    status: int, request_bytes: bytes
):
    parts = [request_bytes[at : at + 8192] for at in range(0, len(request_bytes), 8192)]

    async with door() as here:
        answer = await here.answer(*parts)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer
    assert here.metrics.refused_requests == {str(status): 1}
    assert here.taken.empty()


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(b"GET / HT", id="head"),
        pytest.param(GET + b"X: ", id="header"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", id="body"
        ),
    ],
)
async def test_a_request_that_does_not_end_is_refused(slow: bytes):
    async with door(Hurried) as here:
        answer = await here.answer(slow)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert here.metrics.refused_requests == {"408": 1}


async def test_a_body_that_never_ends_ends_the_connection_though_it_was_answered():
    async with door() as here:
        answer = await here.answer(
            b"POST /hasty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            *[b"8000\r\n%b\r\n" % (b"x" * 0x8000)] * 20,
        )

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"read 0")
    assert here.metrics.refused_requests == {"413": 1}


async def test_a_second_request_that_does_not_end_is_refused():
    async with door(Hurried) as here:
        answer = await here.answer(GET + b"\r\n", b"GET / HT")

    assert [line[:3] for line in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"408"]


async def test_a_connection_that_asks_nothing_is_closed_without_a_word():
    async with door(Hurried) as here:
        answer = await here.answer()

    assert answer == b""
    assert not here.metrics.refused_requests


async def test_pipelined_requests_are_answered_in_order():
    async with door() as here:
        answer = await here.answer(
            (GET + b"\r\n") * 3 + GET + b"Connection: close\r\n\r\n"
        )

    assert answer.count(b"HTTP/1.1 200 ") == 4


async def test_a_thousand_pipelined_requests_end_the_connection():
    async with door() as here:
        answer = await here.answer((GET + b"\r\n") * 1000)

    assert answer.count(b"HTTP/1.1 200 ") < 20
    assert here.metrics.refused_requests == {"429": 1}


async def test_an_upgrade_to_something_else_is_answered_as_a_plain_request():
    async with door() as here:
        answer = await here.answer(
            GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + b"PRI * "
        )

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


async def test_a_websocket_upgrade_is_handed_over_whole_and_leaves_nothing_behind():
    async with door() as here:
        gc.disable()
        try:
            _, writer = await here.connect()
            writer.write(GET + UPGRADE[:20])
            writer.write(UPGRADE[20:] + b"\r\n")
            taken = await asyncio.wait_for(here.taken.get(), 30)
            left = list(here.protocols)
        finally:
            gc.enable()
        writer.close()
        taken.transport.close()

    assert taken.read.startswith(b"GET /there HTTP/1.1\r\nhost: a\r\n")
    assert taken.read.endswith(b"sec-websocket-version: 13\r\n\r\n")
    assert left == []
    assert not here.state.connections


async def test_a_refused_peer_that_goes_on_sending_is_cut_off():
    async with door(Hurried) as here:
        reader, writer = await here.connect()
        writer.write(b"GET / HTTP/9.9\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"invalid_request"), 30)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(writer), 30)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ")

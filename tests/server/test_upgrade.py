"""The contract with uvicorn and with the handshake: what `Upgrade` relies on, and what the endpoint gets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest
import uvicorn
from processes import Server, close_code
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collab.server.upgrade import Upgrade

pytestmark = pytest.mark.anyio


def test_uvicorn_is_the_minor_version_that_was_tried() -> None:
    assert uvicorn.__version__.startswith("0.54.")


def test_uvicorn_makes_the_class_with_these_keywords() -> None:
    made = inspect.getsource(HttpToolsProtocol.handle_websocket_upgrade)

    for keyword in (
        "config=self.config",
        "server_state=self.server_state",
        "app_state=self.app_state",
    ):
        assert keyword in made
    inspect.signature(Upgrade).bind(config=None, server_state=None, app_state=None)


def test_uvicorn_keeps_connections_and_tasks() -> None:
    state = ServerState()

    assert state.connections == set()
    assert state.tasks == set()


def test_uvicorn_takes_the_class_as_its_websocket_protocol() -> None:
    config = Config("collab.server.app:make_app", ws=Upgrade, lifespan="off")

    assert config.ws is Upgrade


async def test_the_first_subprotocol_is_echoed(house: Server) -> None:
    async with connect(f"{house.address}/ws/r", subprotocols=["x", "y"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "x"


async def test_our_own_subprotocol_goes_first(house: Server) -> None:
    async with connect(
        f"{house.address}/ws/r", subprotocols=["x", "collab.v1"]
    ) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "collab.v1"
        assert (await socket.recv())[0] == 110  # type: ignore[comparison-overlap]


async def test_compression_is_not_offered_back(house: Server) -> None:
    async with connect(f"{house.address}/ws/r", compression="deflate") as socket:
        assert socket.protocol.extensions == []


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a%20b", "a b"),
        ("%C3%A9", "é"),
        ("a%2Fb", "a/b"),
        ("metrics", "metrics"),
    ],
)
async def test_the_whole_path_is_the_room(house: Server, path: str, room: str) -> None:
    since = len(house.logs())

    async with connect(
        f"{house.address}/ws/{path}", subprotocols=["collab.v1"]
    ) as socket:  # type: ignore[list-item]
        await socket.send(
            bytes.fromhex("0002")
            + b"\x0f"
            + bytes.fromhex("01010100040101740161")
            + b"\x00" * 5
        )
        assert await close_code(socket) == 4400

    said = house.logs()[since:].encode().decode("unicode_escape")
    assert f'"rooms": ["{room}"]' in said


async def test_an_unknown_path_is_refused(house: Server) -> None:
    with pytest.raises(InvalidStatus):
        await connect(f"{house.address}/nowhere")


async def test_a_bad_room_name_is_accepted_and_closed_with_its_code(
    house: Server,
) -> None:
    async with connect(f"{house.address}/ws/%00") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


async def test_a_refused_client_that_goes_on_talking_is_not_cut_off(
    house: Server,
) -> None:
    request = (
        f"GET /ws/%01 HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(request.encode())

    answer = await reader.read()  # up to the end of what the server has to say
    for _ in range(20):
        writer.write(
            b"\x82\x84\x00\x00\x00\x00\x00\x00\x01\x00"
        )  # a question, as every client asks
        await writer.drain()
        await asyncio.sleep(0.005)  # a reset takes its time to come back

    assert (4400).to_bytes(2, "big") in answer
    assert not writer.transport.is_closing()
    writer.close()


async def test_connections_that_say_nothing_take_no_places_of_sockets(
    serve: Callable[..., Server],
) -> None:
    server = serve("--max-sockets", "2")
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(5)]

    async with connect(f"{server.address}/ws/r"), connect(f"{server.address}/ws/r"):
        pass

    for _, writer in silent:
        writer.close()


async def test_too_many_sockets_are_told_to_come_later(
    serve: Callable[..., Server],
) -> None:
    server = serve("--max-sockets", "1")
    async with connect(f"{server.address}/ws/r"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.address}/ws/r")

    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["retry-after"]

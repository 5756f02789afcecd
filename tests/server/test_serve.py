"""The server as a process: starts, says what to open, refuses what it must, drains."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import ROOT, Server, close_code
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collab.protocol.varint import Reader, encode_bytes

pytestmark = pytest.mark.anyio


class Peer:
    """A client of `collab.v1` on a real socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.is_greeted = False
        self.acknowledged = 0
        self.notices: list[str] = []
        self.sent = 0
        self.doc.observe(lambda event: self.made.append(event.update))

    async def write(self, word: str) -> None:
        self.text.insert(0, word)
        await self.socket.send(b"\x00\x02" + encode_bytes(self.made[-1]))
        self.sent += 1

    async def read(self, until: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not until():
                self.take(await self.socket.recv())

    def take(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        reader = Reader(message)
        kind = reader.read_varint()
        if kind == 110:
            self.is_greeted = True
        elif kind == 111:
            self.acknowledged = reader.read_varint()
        elif kind == 113:
            self.notices.append(reader.read_string(100))
        elif kind == 0 and reader.read_varint() in (1, 2):
            self.doc.apply_update(reader.read_bytes())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collab", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_health_and_metrics_answer(house: Server) -> None:
    async with httpx2.AsyncClient(base_url=house.url) as client:
        alive, ready, figures = [
            await client.get(path) for path in ("/healthz", "/readyz", "/metrics")
        ]

    assert alive.json() == {"status": "ok"}
    assert ready.json() == {"status": "ready", "reasons": []}
    assert "collab_logged_seconds_bucket" in figures.text


@pytest.mark.parametrize(
    "path", ["/", "/room", "/ws", "/ws-/r", "/v1/rooms/r", "/docs"]
)
async def test_a_socket_under_no_address_of_one_is_told_those_that_there_are(
    house: Server, path: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(house.url.replace("http", "ws") + path)

    assert refused.value.response.status_code == 404
    assert b"/ws/ROOM" in refused.value.response.body


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_no_address_can_hold_is_refused_with_that_reason(
    house: Server, name: str
) -> None:
    async with connect(f"{house.url.replace('http', 'ws')}/ws/{name}") as socket:
        with pytest.raises(ConnectionClosed) as refused:
            await socket.recv()

    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == 4400
    assert "which addresses cannot hold" in refused.value.rcvd.reason


async def test_an_edit_is_acknowledged_and_still_there_after_a_crash(
    server: Server,
) -> None:
    async with connect(f"{server.address}/ws/r", subprotocols=["collab.v1"]) as socket:  # type: ignore[list-item]
        peer = Peer(socket)
        await peer.write("hello")
        await peer.read(lambda: peer.acknowledged == 1)
    server.kill()

    found = server.run("export", "r")

    assert found.stdout == "hello"


async def test_an_export_works_beside_the_running_server(house: Server) -> None:
    async with connect(
        f"{house.address}/ws/beside", subprotocols=["collab.v1"]
    ) as socket:  # type: ignore[list-item]
        peer = Peer(socket)
        await peer.write("hello")
        await peer.read(lambda: peer.acknowledged == 1)

        found = house.run("export", "beside", "--format", "json")

    assert found.stdout.split() == ["{", '"text":', '"hello"', "}"]


async def test_sigterm_acknowledges_everything_and_closes_for_a_restart(
    server: Server,
) -> None:
    async with connect(f"{server.address}/ws/r", subprotocols=["collab.v1"]) as socket:  # type: ignore[list-item]
        peer = Peer(socket)
        for number in range(200):
            await peer.write(f"{number} ")
        os.kill(server.pid, signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await peer.read(lambda: False)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert peer.acknowledged > 0
    assert peer.notices == ["drain"]
    assert server.terminate() == 0
    logged = server.run("export", "r").stdout.split()
    assert len(logged) >= peer.acknowledged
    assert len(set(logged)) == len(logged)


async def test_a_drain_says_unready_and_lets_nobody_in(
    serve: Callable[..., Server],
) -> None:
    server = serve("--drain-seconds", "2")
    async with httpx2.AsyncClient(base_url=server.url) as client:
        sockets = [await connect(f"{server.address}/ws/r") for _ in range(250)]
        os.kill(server.pid, signal.SIGTERM)
        ready = await client.get("/readyz")
        while ready.status_code == 200:
            ready = await client.get("/readyz")
        refused = await client.get(
            "/ws/r",
            headers={
                "connection": "upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )

    codes = {await close_code(socket) for socket in sockets}
    assert ready.json() == {"status": "unready", "reasons": ["draining"]}
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert codes == {1012}
    assert server.terminate() == 0


async def test_a_notice_says_unready_first_and_goes_on_meanwhile(
    serve: Callable[..., Server],
) -> None:
    server = serve("--drain-notice-seconds", "2")
    async with httpx2.AsyncClient(base_url=server.url) as client:
        os.kill(server.pid, signal.SIGTERM)
        ready = await client.get("/readyz")
        while ready.status_code == 200:
            ready = await client.get("/readyz")
        async with connect(
            f"{server.address}/ws/r",
            subprotocols=["collab.v1"],  # type: ignore[list-item]
        ) as socket:
            peer = Peer(socket)
            await peer.write("late")
            await peer.read(lambda: peer.acknowledged == 1)
            closed = await close_code(socket)

    assert ready.json() == {"status": "unready", "reasons": ["draining"]}
    assert closed == 1012
    assert server.terminate() == 0
    assert server.run("export", "r").stdout == "late"


def test_a_second_signal_ends_at_once(server: Server) -> None:
    os.kill(server.pid, signal.SIGTERM)

    assert server.terminate() == 0


def test_two_servers_do_not_share_a_directory(house: Server) -> None:
    found = command("serve", "--port", "0", "--data", str(house.data))

    assert found.returncode == 1
    assert str(house.data) in found.stderr
    assert "Traceback" not in found.stderr


def test_a_taken_port_is_one_sentence(house: Server, tmp_path: Path) -> None:
    found = command(
        "serve", "--port", str(house.port), "--data", str(tmp_path / "other")
    )

    assert found.returncode == 2
    assert str(house.port) in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--host", "0.0.0.0"], "--insecure-no-auth"),
        (["--host", "192.168.1.5"], "--insecure-no-auth"),
        (["--port", "70000"], "port"),
        (["--commit-window-ms", "-1"], "commit_window_ms"),
        (["--config", "/nonexistent.toml"], "nonexistent.toml"),
    ],
)
def test_a_wrong_setting_stops_the_server_with_a_sentence_that_names_it(
    flags: list[str], word: str
) -> None:
    found = command("serve", *flags)

    assert found.returncode == 2
    assert word in found.stderr
    assert "Traceback" not in found.stderr

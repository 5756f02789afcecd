"""Settings → verifiers: a real server, a real backend beside it, and what a member notices when that one goes away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from endpoints import Answering, Asked, Endpoint, answer, endpoint, silence
from forging import AUDIENCE, ISSUER, Issuer
from processes import BUSY_SECONDS, ROOT, Server, close_code
from pycrdt import Doc, Text
from rooms import update_message
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from collab.protocol import yjs
from collab.protocol.varint import Reader

SECRET = "0123456789abcdef0123456789abcdef"
YES = {"principal": "alice", "operations": ["read", "write", "presence"]}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def join(server: Server, token: str, room: str = "r") -> connect:
    return connect(
        f"{server.address}/ws/{room}",
        subprotocols=["collab.v1"],  # type: ignore[list-item]
        additional_headers={"authorization": f"Bearer {token}"},
    )


def ticket_for(server: Server, token: str, room: str) -> str:
    request = Request(
        f"{server.url}/v1/tickets",
        json.dumps({"room": room}).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urlopen(request) as answered:
        return str(json.loads(answered.read())["ticket"])


def figures(server: Server) -> str:
    with urlopen(f"{server.url}/metrics") as answered:
        return str(answered.read().decode())


class Member:
    """Writes letters and hears what becomes of them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))
        self.notices: list[str] = []

    async def write(self) -> bool:
        """Whether the letter was logged; False when it was refused."""
        self.text.insert(0, "x")
        await self.socket.send(update_message(self.made[-1]))
        while True:
            kind = await self.hear()
            if kind in (yjs.ACK, yjs.REFUSED):
                return kind == yjs.ACK

    async def write_on(self) -> None:
        while True:
            await self.write()

    async def hear(self) -> int:
        """The kind of the next message."""
        async with asyncio.timeout(30):
            message = await self.socket.recv()
        assert isinstance(message, bytes)
        if message[0] == yjs.NOTICE:
            self.notices.append(Reader(message, 1).read_string(64))
        return message[0]

    async def until(self, notice: str) -> None:
        while notice not in self.notices:
            await self.hear()


def asking(
    serve: Callable[..., Server], backend: Endpoint, secret: Path, *flags: str
) -> Server:
    return serve(
        *("--auth", "webhook", "--webhook-url", backend.url),
        *("--webhook-secret-file", str(secret), "--webhook-cache-seconds", "1"),
        *flags,
    )


# The webhook


@pytest.mark.anyio
async def test_the_backend_decides_room_by_room(
    serve: Callable[..., Server], secret: Path
):
    async def decide(asked: Asked, writer: asyncio.StreamWriter) -> None:
        question = json.loads(asked.body)
        answers: dict[tuple[str, str], Answering] = {
            ("alices", "r"): answer(YES),
            ("alices", "read"): answer(YES | {"operations": ["read"]}),
            ("alices", "closed"): answer(b"", 403),
        }
        key = question["token"], question["room"]
        await answers.get(key, answer(b"", 401))(asked, writer)

    async with endpoint(decide) as backend:
        server = await asyncio.to_thread(asking, serve, backend, secret)

        async with join(server, "alices") as socket:
            assert await Member(socket).write()
        async with join(server, "alices", "read") as socket:
            assert not await Member(socket).write()
        codes = []
        for token, room in (("alices", "closed"), ("eves", "r"), ("", "r")):
            async with join(server, token, room) as socket:
                codes.append(await close_code(socket))

        assert codes == [4403, 4401, 4401]
        assert {json.loads(asked.body)["address"] for asked in backend.asked} == {
            "127.0.0.1"
        }
        assert "alices" not in server.logs()
        assert "/asked" not in server.logs()


@pytest.mark.anyio
async def test_a_ticket_is_for_what_the_backend_says_of_its_room(
    serve: Callable[..., Server], secret: Path
):
    async def decide(asked: Asked, writer: asyncio.StreamWriter) -> None:
        may = {"": [], "r": ["read", "write"], "other": ["read"]}
        room = json.loads(asked.body)["room"]
        await answer(YES | {"operations": may[room]})(asked, writer)

    async with endpoint(decide) as backend:
        server = await asyncio.to_thread(asking, serve, backend, secret)
        ticket = await asyncio.to_thread(ticket_for, server, "alices", "r")

        async with connect(
            f"{server.address}/ws/r?ticket={ticket}",
            subprotocols=["collab.v1"],  # type: ignore[list-item]
        ) as socket:
            member = Member(socket)
            assert await member.write()
            # Over more than one review, and answers that have run out.
            for _ in range(3):
                assert await member.write()
                await asyncio.sleep(1)
            assert await member.write()


@pytest.mark.anyio
async def test_without_the_backend_a_member_reads_on_and_writes_again_once_it_is_back(
    serve: Callable[..., Server], secret: Path
):
    async with endpoint(answer(YES)) as backend:
        server = await asyncio.to_thread(asking, serve, backend, secret)
        async with join(server, "alices") as socket, join(server, "bobs") as other:
            member = Member(socket)
            assert await member.write()

            backend.answering = silence
            gone = time.monotonic()
            await member.until("read-only")

            # The last answer, a question without one, the review.
            assert time.monotonic() - gone < 1 + 2 + 1 + BUSY_SECONDS
            assert not await member.write()
            async with join(server, "new") as stranger:
                assert await close_code(stranger) == 1013
            assert (
                'backend_questions_total{outcome="webhook_failed"}'
                in await asyncio.to_thread(figures, server)
            )
            backend.answering = answer(YES)
            await member.until("writable")
            assert await member.write()
            assert other.close_code is None


@pytest.mark.anyio
async def test_who_is_refused_by_the_backend_is_closed_within_two_seconds(
    serve: Callable[..., Server], secret: Path
):
    async with endpoint(answer(YES)) as backend:
        server = await asyncio.to_thread(asking, serve, backend, secret)
        async with join(server, "alices") as socket:
            member = Member(socket)
            assert await member.write()

            backend.answering = answer(b"", 401)
            refused = time.monotonic()
            with pytest.raises(ConnectionClosed):
                await member.write_on()

            assert socket.close_code == 4401
            assert time.monotonic() - refused < 2 + BUSY_SECONDS


@pytest.mark.anyio
async def test_a_token_of_our_own_login_is_not_shown_to_the_backend(
    serve: Callable[..., Server], secret: Path, tmp_path: Path
):
    issuer = Issuer()
    keys = issuer.write(tmp_path / "jwks.json")
    async with endpoint(answer(b"", 401)) as backend:
        server = await asyncio.to_thread(
            asking,
            serve,
            backend,
            secret,
            *("--auth", "jwt", "--jwt-keys", str(keys)),
        )
        # The first that is named is asked first.
        async with join(server, issuer.token()) as socket:
            assert await close_code(socket) == 4401
        assert len(backend.asked) == 1

    async with endpoint(answer(b"", 401)) as backend:
        server = await asyncio.to_thread(
            serve,
            *("--auth", "jwt", "--auth", "webhook", "--jwt-keys", str(keys)),
            *("--webhook-url", backend.url, "--webhook-secret-file", str(secret)),
        )
        async with join(server, issuer.token()) as socket:
            assert await Member(socket).write()
        assert backend.asked == []


# Tokens


@pytest.mark.anyio
async def test_each_algorithm_opens_a_room(
    serve: Callable[..., Server], tmp_path: Path
):
    issuer = Issuer()
    server = serve(
        *("--auth", "jwt", "--jwt-keys", str(issuer.write(tmp_path / "jwks.json"))),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
    )

    for algorithm in issuer.keys:
        token = issuer.sign({}, issuer.claims(), algorithm)
        async with join(server, token, algorithm) as socket:
            assert await Member(socket).write()


@pytest.mark.anyio
async def test_a_token_that_runs_out_closes_its_socket(
    serve: Callable[..., Server], tmp_path: Path
):
    issuer = Issuer()
    server = serve(
        "--auth", "jwt", "--jwt-keys", str(issuer.write(tmp_path / "jwks.json"))
    )
    began = time.time()
    async with join(server, issuer.token(exp=began + 6)) as socket:
        assert await Member(socket).write()

        assert await close_code(socket) == 4401

    assert time.time() - began < 6 + BUSY_SECONDS


def refused(*flags: str) -> str:
    """What a server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "collab", "serve", "--port", "0", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_server_with_keys_that_it_must_not_use_does_not_start(tmp_path: Path):
    weak = tmp_path / "weak"
    weak.write_text("too short")
    data = ("--data", str(tmp_path / "data"))

    said = refused(*data, "--auth", "jwt", "--jwt-keys", str(weak))

    assert "less than 32 bytes" in said


def test_a_secret_that_everybody_can_read_is_warned_of(
    serve: Callable[..., Server], secret: Path
):
    secret.chmod(0o644)

    server = serve("--auth", "jwt", "--jwt-keys", str(secret))

    (line,) = [
        json.loads(line) for line in server.logs().splitlines() if "can read" in line
    ]
    assert line["level"] == "warning"
    assert SECRET not in server.logs()

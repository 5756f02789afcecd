"""The audit log of a real server: what it holds, what it never holds, and what a kill leaves of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import Server, close_code, eventually
from pycrdt import Doc, Text
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from collab.audit.chain import read_head
from collab.audit.verdict import judge
from collab.auth.permissions import EVERYTHING, Grant
from collab.auth.registry import Registry
from collab.auth.shelves.sqlite import FILE, SqliteShelf
from collab.protocol import yjs
from collab.protocol.varint import encode_string

WORDS = "the canary sings of a secret"
FORGED = "eyJhbGciOiJIUzI1NiJ9.Y2FuYXJ5Y2FuYXJ5.c2VjcmV0Y2FuYXJ5"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """An API key that may do everything in every room."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with Registry(SqliteShelf(data / FILE)) as registry:
        grants = (Grant("", EVERYTHING, is_prefix=True),)
        return registry.create_key("ada", grants)[1]


@pytest.fixture
def server(serve: Callable[..., Server], key: str, tmp_path: Path) -> Server:
    return serve("--auth", "keys", data=tmp_path / "data")


def lines(server: Server) -> list[dict[str, Any]]:
    path = server.data / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def has(server: Server, event: str, room: str, **fields: Any) -> bool:
    return any(
        line["event"] == event
        and line["room"] == room
        and {**line, **line["details"]}.items() >= fields.items()
        for line in lines(server)
    )


def update() -> bytes:
    doc: Doc[Any] = Doc()
    doc["text"] = Text(WORDS)
    return doc.get_update()


def client(server: Server, key: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=server.url, headers={"authorization": f"Bearer {key}"}
    )


async def edit(address: str, first: bytes, prefix: bytes = b"", **shown: Any) -> None:
    """Write the canary's words over a socket, and stay until the server has them."""
    async with connect(address, compression=None, **shown) as socket:
        if first:
            await socket.send(first)
        await socket.send(prefix + yjs.update_message(update()))
        async for frame in socket:
            if WORDS.encode() in bytes(frame) or prefix + b"\x08\x01" == frame:
                return


@pytest.mark.anyio
async def test_who_did_what_is_written_in_every_dialect_and_no_word_or_token_of_it(
    server: Server, key: str
) -> None:
    bearer = {"authorization": f"Bearer {key}"}
    prefix = encode_string("hocus")
    with client(server, key) as http:
        ticket = http.post("/v1/tickets", json={}).json()["ticket"]
        sweet = http.post("/doc/sweet/auth").json()["token"]
        http.post("/v1/rooms", json={"name": "rest"}).raise_for_status()
        splices = [{"root": "text", "index": 0, "insert": WORDS}]
        http.patch("/v1/rooms/rest/document", json={"splices": splices})
        http.get("/v1/rooms/rest/document")
        state = {"state": {"mood": WORDS}, "client": 7}
        http.put("/v1/rooms/rest/presence", json=state)
        http.delete("/v1/rooms/rest")
        http.get("/v1/rooms", headers={"authorization": f"Bearer {FORGED}"})

    await edit(f"{server.address}/ws/plain", b"", additional_headers=bearer)
    await edit(f"{server.address}/ws/ticket?ticket={ticket}", b"")
    offered = [Subprotocol("y-websocket"), Subprotocol(f"collab.token.{key}")]
    await edit(f"{server.address}/ws/offered", b"", subprotocols=offered)
    hello = prefix + b"\x02\x00" + encode_string(key)
    await edit(f"{server.address}/hocuspocus", hello, prefix)
    await edit(f"{server.address}/d/sweet/ws/sweet?token={sweet}", b"")
    async with connect(f"{server.address}/ws/plain?token={FORGED}") as socket:
        assert await close_code(socket) == 4401
    async with connect(f"{server.address}/ws/plain?ticket={ticket}") as socket:
        assert await close_code(socket) == 4401
    assert server.terminate() == 0

    for room in ("plain", "ticket", "offered", "hocus", "sweet"):
        for event in ("join", "update", "leave"):
            assert has(server, event, room, principal="ada"), (room, event)
    events = Counter(line["event"] for line in lines(server))
    assert events["join"] == events["leave"] == 5
    for event in ("room.create", "update", "room.delete"):
        assert has(server, event, "rest", principal="ada"), event
    assert has(server, "denied", "plain", code="unauthenticated", address="127.0.0.1")
    assert has(server, "denied", "", code="unauthenticated", what="GET /v1/rooms")
    assert [line["event"] for line in lines(server)][-2:] == ["drain", "stop"]
    verdict = judge([server.data / "audit.jsonl"], read_head(server.data))
    assert verdict.broken is None
    written = (server.data / "audit.jsonl").read_text() + server.logs()
    secrets = [key.partition(".")[2], ticket[3:], sweet[3:], WORDS, "canary"]
    secrets += FORGED.split(".")[1:]
    assert [secret for secret in secrets if secret in written] == []


def test_a_verb_that_was_answered_is_in_the_log_after_a_kill(
    server: Server, key: str
) -> None:
    made = []
    for round in range(3):
        with client(server, key) as http:
            for number in range(4):
                name = f"room-{round}-{number}"
                answer = http.post("/v1/rooms", json={"name": name})
                assert answer.status_code == 201
                made.append(name)
        server.kill()
        with (server.data / "audit.jsonl").open("ab") as file:
            file.write(b'{"seq":')  # as a kill in the middle of a write would leave it
        server.start()

    assert eventually(lambda: lines_hold(server))
    created = [line["room"] for line in whole(server) if line["event"] == "room.create"]
    assert created == made


def whole(server: Server) -> list[dict[str, Any]]:
    """The lines that are not torn."""
    text = (server.data / "audit.jsonl").read_bytes()
    return [json.loads(line) for line in text.splitlines() if line.endswith(b"}")]


def lines_hold(server: Server) -> bool:
    verdict = judge([server.data / "audit.jsonl"], read_head(server.data))
    return verdict.broken is None and verdict.torn == 3 and not verdict.unfinished


def test_a_moved_file_is_gone_on_with_in_a_new_one(server: Server, key: str) -> None:
    path = server.data / "audit.jsonl"
    old = path.rename(server.data / "audit.jsonl.1")

    with client(server, key) as http:
        http.post("/v1/rooms", json={"name": "after"}).raise_for_status()

    verdict = judge([path, old], read_head(server.data))
    assert has(server, "room.create", "after")
    assert verdict.broken is None


def test_without_access_control_there_is_no_audit_log_and_with_it_it_can_be_off(
    serve: Callable[..., Server],
) -> None:
    servers = [serve(), serve("--auth", "keys", "--audit-log", "")]

    assert [(each.data / "audit.head").exists() for each in servers] == [False, False]


def test_nothing_is_done_that_cannot_be_written_down(
    serve: Callable[..., Server], key: str, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no full device")
    server = serve("--auth", "keys", data=tmp_path / "data")
    path = server.data / "audit.jsonl"
    path.rename(server.data / "old")
    path.symlink_to("/dev/full")

    with client(server, key) as http:
        answer = http.post("/v1/rooms", json={"name": "unseen"})
        rooms = http.get("/v1/rooms").json()["rooms"]

    assert (answer.status_code, rooms) == (503, [])
    assert answer.json()["code"] == "store_unavailable"

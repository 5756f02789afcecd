"""What a Y-Sweet client may do; its barrier says the truth about what it may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from calling import open_api
from forging import AUDIENCE, ISSUER, Issuer
from peers import open_house
from processes import Server, close_code
from websockets.asyncio.client import connect

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.protocol import yjs, ysweet

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE
BARRIER = ysweet.barrier(b"\x01")


async def test_the_barrier_of_a_reader_with_nothing_of_its_own_comes_back() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")

        eve.ask()
        eve.say(BARRIER)

        assert BARRIER in eve.messages
        assert not eve.heard(b"\x00\x00")


async def test_the_barrier_of_a_reader_with_edits_of_its_own_does_not() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.text.insert(0, "offline")

        eve.ask()
        eve.say(BARRIER)

        assert BARRIER not in eve.messages
        assert yjs.KEEP_ALIVE in eve.messages


async def test_what_a_reader_writes_is_not_called_saved_and_costs_nothing_else() -> (
    None
):
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.ask()

        for word in ("one", "two", "three", "four"):
            eve.write(word)
        eve.say(BARRIER)

        assert BARRIER not in eve.messages
        assert eve.close_code is None
        assert house.text() == ""


async def test_the_barrier_comes_back_once_the_right_to_write_has() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.ask()
        eve.write("too soon")
        eve.say(BARRIER)

        house.grant(eve, ALL)
        eve.answer()
        await eve.until(lambda: BARRIER in eve.messages)

        assert house.text() == "too soon"


class Door:
    """A server with access control, asked as a Y-Sweet client or its backend does."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        self.server, self.issuer = server, issuer

    def ask(self, may: list[str], body: bytes = b"{}") -> tuple[int, dict[str, Any]]:
        token = self.issuer.token(rooms={"r": may}, prefixes=None)
        headers = {"authorization": f"Bearer {token}"}
        try:
            with urlopen(
                Request(f"{self.server.url}/doc/r/auth", body, headers)
            ) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def address(self, answer: dict[str, Any]) -> str:
        return f"{answer['url']}/r?token={answer['token']}"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home, issuer = tmp_path_factory.mktemp("door"), Issuer()
    keys = issuer.write(home / "keys.json")
    flags = ("--auth", "jwt", "--jwt-keys", str(keys), "--jwt-audience", AUDIENCE)
    server = Server(home / "data", *flags, "--jwt-issuer", ISSUER)
    server.start()
    yield Door(server, issuer)
    server.kill()


async def test_a_client_token_says_what_it_is_for_and_opens_one_socket(
    door: Door,
) -> None:
    _, full = door.ask(["read", "write"])
    _, part = door.ask(["read"])
    _, asked = door.ask(["read", "write"], b'{"authorization": "read-only"}')

    shown = [answer["authorization"] for answer in (full, part, asked)]
    async with connect(door.address(asked)) as socket:
        await socket.send(b"\x00\x00\x01\x00")
        first = await socket.recv()
    async with connect(door.address(asked)) as socket:
        again = await close_code(socket)

    assert shown == ["full", "read-only", "read-only"]
    assert first[:2] == b"\x00\x01"  # it was not asked what it has
    assert again == 4401


async def test_a_client_token_is_for_its_room(door: Door) -> None:
    _, answer = door.ask(["read", "write"])
    elsewhere = f"{door.server.address}/d/s/ws/s?token={answer['token']}"

    async with connect(elsewhere) as socket:
        code = await close_code(socket)

    assert code == 4403


async def test_who_may_not_read_gets_no_client_token(door: Door) -> None:
    status, problem = door.ask(["presence"])

    assert (status, problem["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"authorization": "root"}'])
async def test_a_client_token_is_not_given_for_what_is_not_understood(
    door: Door, body: bytes
) -> None:
    status, _ = door.ask(["read"], body)

    assert status == 400


async def test_a_client_token_is_not_asked_for_at_length(door: Door) -> None:
    status, problem = door.ask(["read"], b'{"x": "' + b"x" * 5000 + b'"}')

    assert (status, problem["code"]) == (413, "too_large")


async def test_who_does_not_say_how_it_found_us_gets_no_address() -> None:
    async with open_api(host="192.0.2.1", auth=("keys",)) as call:
        request = call._client.build_request("POST", "http://localhost/doc/r/auth")
        del request.headers["host"]

        answer = await call._client.send(request)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_signed_token_in_the_address_is_refused(door: Door) -> None:
    token = door.issuer.token()

    async with connect(f"{door.server.address}/d/r/ws/r?token={token}") as socket:
        code = await close_code(socket)

    assert code == 4401

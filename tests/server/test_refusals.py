"""What somebody reads whom a real server does not let in: what to do, and nothing of why a token is worth nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pytest
from forging import AUDIENCE, ISSUER, Issuer
from processes import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio

ROOM = "/v1/rooms/r"
NEW = "get a new one"


class Door:
    """A server with access control, and a key that may only read there."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.key = self.make("ada")
        self.ended = self.make("eve")
        server.run("key", "revoke", self.ended.partition(".")[0])

    def make(self, principal: str) -> str:
        made = self.server.run(
            *("key", "create", "--principal", principal, "--prefix", "=read,admin"),
            "--json",
        )
        return str(json.loads(made.stdout)["key"])

    def ask(
        self, token: str, path: str = f"{ROOM}/members", **body: object
    ) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        method = "POST" if body else "GET"
        answer = httpx2.request(
            method, f"{self.server.url}{path}", headers=headers, json=body or None
        )
        return answer.status_code, answer.json().get("detail", "")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("door")
    server = Server(
        home / "data",
        *("--auth", "jwt", "--auth", "keys", "--log-level", "debug"),
        *("--jwt-keys", str(Issuer().write(home / "keys.json"))),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
    )
    server.start()
    yield Door(server)
    server.kill()


def test_who_shows_nothing_is_told_where_to_show_it(door: Door) -> None:
    status, said = door.ask("")

    assert status == 401
    assert "Authorization: Bearer" in said


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("nonsense", "none of --auth knows its kind"),
        ("a.b.c", "not base64url"),
        ("ck_0123456789abcdef.secret", "there is no such key"),
        ("", "it has expired or was revoked"),
    ],
)
def test_why_a_token_is_worth_nothing_only_the_log_says(
    door: Door, token: str, reason: str
) -> None:
    status, said = door.ask(token or door.ended)

    assert status == 401
    assert said == door.ask("nonsense")[1]
    assert NEW in said
    assert reason in door.server.logs()
    assert (token or door.ended) not in door.server.logs()


def test_a_used_ticket_says_where_the_next_one_is(door: Door) -> None:
    headers = {"authorization": f"Bearer {door.key}"}
    made = httpx2.post(f"{door.server.url}/v1/tickets", headers=headers, json={})
    ticket = made.json()["ticket"]
    door.ask(ticket)

    status, said = door.ask(ticket)

    assert status == 401
    assert "POST /v1/tickets" in said


def test_a_right_that_is_missing_is_named(door: Door) -> None:
    reading = door.ask(door.key, f"{ROOM}/turns/t/undo", reason="")
    granting = door.ask(
        *(door.key, "/v1/grants"), principal="bob", room="r", operations=["write"]
    )

    assert reading[0] == granting[0] == 403
    assert "write" in reading[1]
    assert "the right to write" in granting[1]


@pytest.mark.parametrize(
    ("query", "said"),
    [("", "no token was shown"), ("?token=abc", "POST /v1/tickets")],
)
async def test_a_socket_is_closed_with_the_whole_sentence(
    door: Door, query: str, said: str
) -> None:
    async with connect(f"{door.server.address}/ws/r{query}") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    end = closed.value.rcvd
    assert end is not None
    assert end.code == 4401
    assert said in end.reason

"""Stock clients under access control: valid, expired, read-only, revoked and renewed tokens, rights that change."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from driving import Driver
from forging import AUDIENCE, ISSUER, Issuer
from kinds import HOCUSPOCUS, write
from processes import BUSY_SECONDS
from serving import ROOT, Server, serve

# Version 1 of y-websocket has no way to show a token but in the address: it takes a ticket, see below.
Y_WEBSOCKET = ("y-websocket-2", "y-websocket-3", "y-websocket-4")
KINDS = (*Y_WEBSOCKET, *HOCUSPOCUS, "y-sweet")
TOLD = (
    *HOCUSPOCUS,
    "y-sweet",
)  # clients that learn what they may do, and what is saved

READER, WRITER = ["read", "presence"], ["read", "write", "presence"]


class Door:
    """A server with access control, and tokens for it."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        self.server, self.issuer, self.url = server, issuer, server.url

    def token(self, who: str, room: str, may: list[str], **claims: Any) -> str:
        return self.issuer.token(
            sub=f"{who}-{room}", rooms={room: may}, prefixes=None, **claims
        )

    def ticket(self, token: str) -> str:
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
        }
        request = Request(f"{self.url}/v1/tickets", b"{}", headers)
        with urlopen(request) as response:
            return str(json.load(response)["ticket"])

    def run(self, *arguments: str) -> None:
        """A command of the operator."""
        subprocess.run(
            [
                sys.executable,
                "-m",
                "collab",
                *arguments,
                "--data",
                str(self.server.data),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def open(
        self,
        clients: Driver,
        who: str,
        kind: str,
        room: str,
        token: str,
        **options: Any,
    ) -> None:
        clients.open(who, kind, self.url, room, token=token, **options)

    def writer(self, clients: Driver, who: str, kind: str, room: str) -> None:
        """A client that may write, and is in."""
        self.open(clients, who, kind, room, self.token(who, room, WRITER))
        clients.wait(who, "synced")

    def reader(self, clients: Driver, who: str, kind: str, room: str) -> None:
        self.open(clients, who, kind, room, self.token(who, room, READER))
        clients.wait(who, "synced")


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("door")
    issuer = Issuer()
    flags = ("--auth", "jwt", "--jwt-keys", str(issuer.write(home / "keys.json")))
    flags += ("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER)
    with serve(home / "data", *flags) as server:
        yield Door(server, issuer)


def wait_refused(clients: Driver, who: str, kind: str, code: int = 4401) -> None:
    """The client has learnt that it may not be here."""
    if kind in HOCUSPOCUS:
        clients.wait(who, "event", ["authenticationFailed"])
    else:
        clients.wait(who, "closed", code)


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_token_opens_the_room_it_names(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "ada", kind, room)
    door.writer(clients, "bob", "hocuspocus-4", room)

    clients.edit("ada", write("one"))
    clients.wait("bob", "text", "one")
    clients.edit("bob", write(" two", -1))
    clients.wait("ada", "text", "one two")
    clients.wait(["ada", "bob"], "saved")

    assert clients.state("ada")["scope"] == ("write" if kind in TOLD else None)
    assert door.server.export(room).strip() == "one two"


@pytest.mark.parametrize("wrong", ["expired", "another room", "nonsense"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_is_not_good_opens_nothing(
    clients: Driver, door: Door, room: str, kind: str, wrong: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    clients.edit("bob", write("secret"))
    clients.wait("bob", "saved")
    now = int(time.time())
    token = {
        "expired": door.token("eve", room, WRITER, iat=now - 600, exp=now - 300),
        "another room": door.token("eve", f"{room}-other", WRITER),
        "nonsense": "nonsense",
    }[wrong]

    door.open(clients, "eve", kind, room, token)
    if kind == "y-sweet":
        clients.wait("eve", "event", ["asked", 403 if wrong == "another room" else 401])
    else:
        wait_refused(clients, "eve", kind, 4403 if wrong == "another room" else 4401)
    clients.edit("eve", write("leak"))
    clients.edit("bob", write("!", -1))
    clients.wait("bob", "saved")

    assert clients.state("eve")["text"] == "leak"
    assert clients.state("bob")["text"] == "secret!"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_reads_and_what_it_writes_reaches_nobody(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    clients.edit("bob", write("one"))
    door.reader(clients, "eve", kind, room)
    clients.wait("eve", "text", "one")
    clients.wait(["bob", "eve"], "present", ["bob", "eve"])
    if kind in TOLD:
        clients.wait("eve", "saved")  # it has nothing of its own

    clients.edit("eve", write("leak "))
    clients.edit("bob", write(" two", -1))
    clients.wait("bob", "saved")
    clients.wait("eve", "text", "leak one two")
    door.writer(clients, "late", "y-websocket-3", room)

    eve = clients.state("eve")
    assert eve["scope"] == ("read" if kind in TOLD else None)
    assert eve["closes"] == []
    assert eve["isUnsaved"] in (None, True)
    assert clients.state("bob")["text"] == "one two"
    assert clients.state("late")["text"] == "one two"
    assert door.server.export(room).strip() == "one two"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_reader_wrote_offline_reaches_nobody(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    clients.edit("bob", write("one"))
    door.reader(clients, "eve", kind, room)
    clients.wait("eve", "text", "one")
    clients.do("pull", names="eve")
    clients.wait("eve", "dead")
    clients.edit("eve", write("leak "))

    clients.do("plug", names="eve")
    clients.edit("bob", write(" two", -1))
    clients.wait("eve", "text", "leak one two")
    clients.wait("eve", "synced")
    clients.wait("bob", "saved")

    assert clients.state("eve")["isUnsaved"] in (None, True)
    assert clients.state("bob")["text"] == "one two"
    assert door.server.export(room).strip() == "one two"


@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_a_reader_that_goes_on_writing_is_closed(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.reader(clients, "eve", kind, room)

    for _ in range(3):
        clients.edit("eve", write("x"))

    clients.wait("eve", "closed", 4403)
    if kind == "y-websocket-3":  # the one that knows that it need not come back
        clients.wait("eve", "event", ["closed"])


@pytest.mark.parametrize("kind", KINDS)
def test_whose_credentials_are_revoked_is_out_in_two_seconds(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    door.writer(clients, "eve", kind, room)
    clients.edit("eve", write("before "))
    clients.wait("bob", "text", "before ")

    door.run("revoke", f"eve-{room}")
    revoked = time.monotonic()
    wait_refused(clients, "eve", kind)
    took = time.monotonic() - revoked
    clients.edit("eve", write("after "))
    clients.wait("bob", "present", ["bob"])
    clients.edit("bob", write("end", -1))
    clients.wait("bob", "saved")

    assert took < 2 + BUSY_SECONDS
    assert clients.state("bob")["text"] == "before end"
    assert door.server.export(room).strip() == "before end"


@pytest.mark.parametrize("kind", KINDS)
def test_rights_that_change_change_a_live_client(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    door.reader(clients, "eve", kind, room)
    clients.edit("eve", write("too soon "))

    door.run("grant", "add", f"eve-{room}", "--room", f"{room}=write")
    clients.wait("bob", "text", "too soon ")
    clients.edit("eve", write("in time ", -1))
    clients.wait("bob", "text", "too soon in time ")
    clients.wait("eve", "saved") if kind in TOLD else None
    if kind in HOCUSPOCUS:
        clients.wait("eve", "scope", "write")
    door.run("grant", "remove", f"eve-{room}", "--room", room)
    if kind in HOCUSPOCUS:
        clients.wait("eve", "scope", "read")
    else:
        clients.do("pass", seconds=2)
    clients.edit("eve", write("too late", -1))
    clients.edit("bob", write("end", -1))
    clients.wait("bob", "saved")
    clients.wait("eve", "text", clients.state("eve")["text"])

    assert clients.state("bob")["text"] == "too soon in time end"
    assert clients.state("eve")["closes"] == []
    assert door.server.export(room).strip() == "too soon in time end"


@pytest.mark.parametrize("kind", ["hocuspocus-3", "hocuspocus-4"])
def test_a_token_is_renewed_before_it_ends_and_nobody_notices(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    end = int(time.time()) + 7
    door.open(clients, "ada", kind, room, door.token("ada", room, WRITER, exp=end))
    clients.wait("ada", "synced")

    clients.do("show", name="ada", token=door.token("ada", room, WRITER))
    clients.do("token", name="ada")
    clients.do("pass", seconds=end + 2 - time.time())
    clients.edit("ada", write("still here"))
    clients.wait("ada", "saved")

    state = clients.state("ada")
    assert (state["closes"], state["opened"]) == ([], 1)
    assert ["authenticationFailed"] not in [event[:1] for event in state["events"]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hocuspocus-3", "hocuspocus-4"])
def test_a_client_is_asked_for_its_next_token_in_time(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    end = int(time.time()) + 18
    door.open(clients, "ada", kind, room, door.token("ada", room, WRITER, exp=end))
    clients.wait("ada", "synced")

    clients.do("show", name="ada", token=door.token("ada", room, WRITER))
    clients.do("pass", patience=90, seconds=end + 2 - time.time())
    clients.edit("ada", write("still here"))
    clients.wait("ada", "saved")

    assert clients.state("ada")["closes"] == []


@pytest.mark.parametrize("kind", ["hocuspocus-3", "hocuspocus-4"])
def test_nobody_becomes_somebody_else(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "ada", kind, room)

    clients.do("show", name="ada", token=door.token("eve", room, WRITER))
    clients.do("token", name="ada")

    clients.wait("ada", "event", ["authenticationFailed"])


@pytest.mark.parametrize("kind", KINDS)
def test_whose_token_ends_is_out_and_comes_back_with_the_next(
    clients: Driver, door: Door, room: str, kind: str
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    end = int(time.time()) + 6
    door.open(clients, "ada", kind, room, door.token("ada", room, WRITER, exp=end))
    clients.wait("ada", "synced")
    clients.edit("ada", write("one"))
    clients.wait("bob", "text", "one")

    wait_refused(clients, "ada", kind)
    late = time.time() - end
    clients.edit("ada", write(" two", -1))
    clients.do("show", name="ada", token=door.token("ada", room, WRITER))
    if kind in ("hocuspocus-3", "hocuspocus-4"):
        clients.do("token", name="ada")  # on the same socket
    elif kind == "hocuspocus-2":
        clients.do("attach", name="ada")
    elif kind != "y-sweet":  # which comes back by itself
        clients.do("connect", names="ada")
    clients.wait("bob", "text", "one two")
    clients.edit("bob", write("!", -1))
    clients.wait("ada", "text", "one two!")
    clients.wait(["ada", "bob"], "saved")

    assert late < 2 + BUSY_SECONDS
    assert door.server.export(room).strip() == "one two!"


@pytest.mark.parametrize("may", [READER, WRITER], ids=["reader", "writer"])
@pytest.mark.parametrize("kind", ["y-websocket-1", *Y_WEBSOCKET])
def test_a_ticket_in_the_address_opens_one_socket(
    clients: Driver, door: Door, room: str, kind: str, may: list[str]
) -> None:
    door.writer(clients, "bob", "hocuspocus-4", room)
    clients.edit("bob", write("one"))
    params = {"ticket": door.ticket(door.token("ada", room, may))}

    clients.open("ada", kind, door.url, room, params=params)
    clients.wait("ada", "text", "one")
    clients.edit("ada", write("two "))
    clients.edit("bob", write("!", -1))
    clients.wait("bob", "saved")
    clients.wait("ada", "text", "two one!")
    clients.open("eve", kind, door.url, room, params=params)
    clients.wait("eve", "closed", 4401)

    assert clients.state("bob")["text"] == ("two one!" if may is WRITER else "one!")
    assert clients.state("eve")["text"] == ""


def test_a_name_in_the_presence_of_a_stock_client_is_that_of_its_token(
    clients: Driver, door: Door, room: str
) -> None:
    token = door.token("bot", room, WRITER, name="Summariser", kind="agent")
    door.open(clients, "bot", "hocuspocus-4", room, token)
    door.open(
        clients,
        "ada",
        "y-websocket-3",
        room,
        door.token("ada", room, WRITER),
        keepsFrames=True,
    )
    clients.wait(["bot", "ada"], "synced")

    state = {"name": "bot", "user": {"name": "Ada", "kind": "human", "color": "red"}}
    clients.do("presence", name="bot", state=state)
    clients.wait("ada", "present", ["ada", "bot"])

    heard = [one["frame"] for one in clients.do("frames", name="ada")]
    assert any(b'"name":"Summariser"'.hex() in frame for frame in heard)
    assert not any(b'"name":"Ada"'.hex() in frame for frame in heard)

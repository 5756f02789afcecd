"""Servers come and go: clients return, converge, and stop where the server says so."""

from collections.abc import Callable

import pytest
from driving import Driver
from kinds import KINDS, push, write
from serving import Server


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_every_client_comes_back_after_a_restart(
    clients: Driver, serving: Callable[..., Server], room: str, how: str
) -> None:
    server = serving("--drain-seconds", "1")
    for kind in KINDS:
        clients.open(kind, kind, server.url, room)
    clients.wait(KINDS, "synced")
    for kind in KINDS:
        clients.edit(kind, write(f"{kind}\n"), push(kind))
    clients.wait(KINDS, "equal")
    clients.wait(KINDS, "saved")

    getattr(server, how)()
    clients.wait(KINDS, "disconnected")
    for kind in KINDS:
        clients.edit(kind, write(f"{kind} offline\n"))
    server.start()
    clients.wait(KINDS, "synced", seconds=40)
    clients.wait(KINDS, "equal", seconds=40)
    clients.wait(KINDS, "saved")
    for kind in (
        KINDS
    ):  # they forgot each other, and believe only what is newer than they remember
        clients.do("presence", name=kind, state={"name": kind, "cursor": 1})
    clients.wait(KINDS, "present", KINDS)

    written = {f"{kind}{state}" for kind in KINDS for state in ("", " offline")}
    assert sorted(clients.state(KINDS[0])["text"].splitlines()) == sorted(written)
    assert sorted(server.export(room).splitlines()) == sorted(written)


@pytest.mark.timeout(180)
def test_what_was_called_saved_survives_a_kill(
    clients: Driver, serving: Callable[..., Server], room: str
) -> None:
    server = serving()
    for kind in KINDS:
        clients.open(kind, kind, server.url, room)
    clients.wait(KINDS, "synced")
    for kind in KINDS:
        clients.edit(kind, write(f"{kind}\n"))

    clients.wait(KINDS, "saved")
    server.kill()

    assert sorted(server.export(room).splitlines()) == sorted(KINDS)


def test_a_drained_server_says_restart_and_ends_well(
    clients: Driver, serving: Callable[..., Server], room: str
) -> None:
    server = serving("--drain-seconds", "1")
    for kind in KINDS:
        clients.open(kind, kind, server.url, room)
    clients.wait(KINDS, "synced")

    code = server.stop()

    clients.wait(KINDS, "closed", 1012)
    assert code == 0


def test_y_websocket_3_stops_when_it_is_refused_for_good(
    clients: Driver, house: Server
) -> None:
    clients.open("ada", "y-websocket-3", house.url, "a name that is too long " * 20)

    clients.wait("ada", "event", ["closed"])

    state = clients.state("ada")
    assert [close["code"] for close in state["closes"]] == [4400]
    assert not state["isConnected"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_comes_back_when_it_is_told_later(
    clients: Driver, serving: Callable[..., Server], room: str, kind: str
) -> None:
    server = serving("--max-members-per-room", "1")
    clients.open("first", "y-websocket-3", server.url, room)
    clients.wait("first", "synced")
    clients.open("ada", kind, server.url, room)
    clients.wait("ada", "closed", 1013)

    clients.do("close", names="first")

    clients.wait("ada", "synced")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_somebody_else_is_kept_out(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room, origin="https://elsewhere.example")

    clients.wait("ada", "closed", 1006)

    assert clients.state("ada")["opened"] == 0

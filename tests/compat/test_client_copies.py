"""Two clients under one client id, as after a copied profile: what is not kept of one of them is not called saved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driving import Driver
from kinds import KINDS, erase, write
from serving import Server

CLIENT = 77


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_clients_with_one_id_the_second_is_refused(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    names = ("ada", "copy")
    for name in names:
        clients.open(name, kind, house.url, room, clientId=CLIENT)
    clients.wait(names, "synced")

    clients.do("editEach", steps={"ada": [write("one")], "copy": [write("two")]})
    clients.wait(names, "anyClosed", 4409)

    states = {name: clients.state(name) for name in names}
    (kept,) = (name for name in names if not states[name]["closes"])
    clients.wait(kept, "saved")
    assert house.export(room).strip() == states[kept]["text"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stock_client_says_again_after_a_crash_is_no_copy(
    clients: Driver, serving: Callable[..., Server], room: str, kind: str
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", kind, server.url, room)
    clients.open("bob", kind, server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("one 😀"))
    clients.wait("ada", "saved")

    clients.edit("ada", write(" two", -1), erase(0, 1))
    clients.wait("bob", "text", "ne 😀 two")
    server.kill()
    clients.edit("ada", write(" three", -1))
    server.start()
    clients.wait(["ada", "bob"], "text", "ne 😀 two three")

    closes = [
        close["code"]
        for name in ("ada", "bob")
        for close in clients.state(name)["closes"]
    ]
    assert 4409 not in closes

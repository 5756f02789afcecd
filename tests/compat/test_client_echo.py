"""y-websocket 4 takes its own edits coming back as "saved" (its `sync-status`): so ours come back after the commit.

The release candidates decide this in the client. The pre-release that can be installed has no `sync-status` yet, so
clients.mjs applies the same rule to what arrives, for every version.
"""

from collections.abc import Callable

import pytest
from driving import Driver
from kinds import Y_WEBSOCKET, erase, write
from serving import Server


@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_own_edits_come_back_only_after_the_commit(
    clients: Driver, serving: Callable[..., Server], room: str, kind: str
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", kind, server.url, room)
    clients.open("bob", "hocuspocus-4", server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("one"))
    clients.wait("ada", "saved")

    clients.edit("ada", write(" two", -1), erase(0, 1))
    clients.wait("bob", "text", "ne two")
    before = clients.state("ada")["isUnsaved"]
    clients.wait("ada", "saved")
    server.kill()

    assert before
    assert server.export(room).strip() == "ne two"


@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_edits_made_offline_come_back_after_reconnecting(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room)
    clients.wait("ada", "synced")
    clients.edit("ada", write("start"))
    clients.wait("ada", "saved")

    clients.do("pull", names="ada")
    clients.wait("ada", "dead")
    clients.edit("ada", write("offline "), erase(9, 3))
    offline = clients.state("ada")["isUnsaved"]
    clients.do("plug", names="ada")
    clients.wait("ada", "saved")

    assert offline
    assert house.export(room).strip() == "offline st"


@pytest.mark.parametrize("restarts", [False, True], ids=["cut", "restart"])
@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_an_echo_that_was_lost_comes_after_reconnecting(
    clients: Driver,
    serving: Callable[..., Server],
    room: str,
    kind: str,
    *,
    restarts: bool,
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", kind, server.url, room)
    clients.open("bob", "hocuspocus-4", server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("one"))
    clients.wait("ada", "saved")
    clients.edit("ada", write(" two", -1), erase(0, 1))
    clients.wait("bob", "text", "ne two")

    clients.do("pull", names="ada")
    clients.wait("ada", "dead")
    cut = clients.state("ada")["isUnsaved"]
    clients.edit("bob", write("!", -1))
    clients.wait("bob", "saved")  # and all that came before
    if restarts:
        server.kill()
        server.start()
    clients.do("plug", names="ada")

    clients.wait("ada", "saved")
    assert cut


@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_a_deletion_alone_comes_back(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room)
    clients.wait("ada", "synced")
    clients.edit("ada", write("to be or not"))
    clients.wait("ada", "saved")

    clients.edit("ada", erase(0, 6))

    clients.wait("ada", "saved")
    assert house.export(room).strip() == "or not"


@pytest.mark.parametrize("kind", Y_WEBSOCKET)
def test_a_repeated_step_1_is_answered(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("bob", "y-websocket-3", house.url, room)
    clients.open("ada", kind, house.url, room, keepsFrames=True)
    clients.wait(["ada", "bob"], "synced")

    clients.do("disconnect", names="ada")
    clients.wait("ada", "disconnected")
    clients.edit("bob", write("while away"))
    clients.do("connect", names="ada")

    clients.wait(["ada", "bob"], "text", "while away")

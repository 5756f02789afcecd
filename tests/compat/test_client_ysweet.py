"""What a Y-Sweet client is promised: its version comes back once everything before it is saved, and soon."""

from collections.abc import Callable

import pytest
from driving import Driver
from kinds import write
from serving import Server


def test_local_changes_clear_only_after_the_commit(
    clients: Driver, serving: Callable[..., Server], room: str
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", "y-sweet", server.url, room)
    clients.open("bob", "y-websocket-3", server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("one"))
    clients.wait("ada", "saved")

    clients.edit("ada", write(" two", -1))
    clients.wait("bob", "text", "one two")
    before = clients.state("ada")["isUnsaved"]
    clients.wait("ada", "saved")
    server.kill()

    assert before
    assert server.export(room).strip() == "one two"


def test_edits_made_offline_are_not_called_saved_before_they_are(
    clients: Driver, serving: Callable[..., Server], room: str
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", "y-sweet", server.url, room)
    clients.open("bob", "y-websocket-3", server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("one"))
    clients.wait("ada", "saved")
    clients.do("pull", names="ada")
    clients.wait("ada", "dead")
    clients.edit("ada", write("offline "))
    before = len(clients.state("ada")["events"])
    clients.edit("bob", write("!", -1))  # keeps the window of commits open
    clients.wait("bob", "saved")

    clients.do("plug", names="ada")
    clients.wait("ada", "saved")
    server.kill()

    assert ["localChanges", False] in clients.state("ada")["events"][before:]
    assert server.export(room).strip() == "offline one!"


@pytest.mark.slow
def test_the_heart_beat_is_answered(clients: Driver, house: Server, room: str) -> None:
    clients.open("ada", "y-sweet", house.url, room, keepsFrames=True)
    clients.wait("ada", "synced")

    clients.do("pass", seconds=11)  # four times two seconds of silence and more

    frames = [
        one for one in clients.do("frames", name="ada") if one["frame"].startswith("66")
    ]
    asked = [one["frame"] for one in frames if one["from"] == "client"]
    answered = [one["frame"] for one in frames if one["from"] == "server"]
    assert len(asked) >= 4
    assert answered == asked
    assert clients.state("ada")["opened"] == 1


def test_a_room_name_that_needs_escaping_is_reached(
    clients: Driver, house: Server, room: str
) -> None:
    name = f"{room} ü+1/ws/a"
    clients.open("ada", "y-sweet", house.url, name)
    clients.open("bob", "hocuspocus-4", house.url, name)
    clients.wait(["ada", "bob"], "synced")

    clients.edit("ada", write("same room"))

    clients.wait("bob", "text", "same room")

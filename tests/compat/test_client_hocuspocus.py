"""What Hocuspocus providers are promised: their counter, many documents on one socket, the rest of the protocol."""

from collections.abc import Callable

import pytest
from driving import Driver
from kinds import HOCUSPOCUS, write
from serving import Server


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_unsynced_changes_clear_only_after_the_commit(
    clients: Driver, serving: Callable[..., Server], room: str, kind: str
) -> None:
    server = serving("--commit-window-ms", "1000")
    clients.open("ada", kind, server.url, room)
    clients.open("bob", "y-websocket-3", server.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit(
        "ada", write("one")
    )  # after a pause: committed at once, and the window opens
    clients.wait("ada", "saved")

    clients.edit("ada", write(" two", -1))
    clients.wait("bob", "text", "one two")
    before = clients.state("ada")["isUnsaved"]
    clients.wait("ada", "saved")
    server.kill()

    assert before
    assert server.export(room).strip() == "one two"


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_the_counter_returns_to_zero_after_many_edits(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room)
    clients.wait("ada", "synced")

    for number in range(200):
        clients.edit("ada", write(f"{number} ", -1))
    clients.wait("ada", "saved")

    assert house.export(room).strip() == " ".join(map(str, range(200)))


def test_batched_updates_are_counted_once_each(
    clients: Driver, house: Server, room: str
) -> None:
    clients.open("ada", "hocuspocus-4", house.url, room, flushDelay=30)
    clients.open("bob", "hocuspocus-3", house.url, room)
    clients.wait(["ada", "bob"], "synced")

    for number in range(50):
        clients.edit("ada", write(f"{number} ", -1))
    clients.wait("ada", "saved")

    clients.wait(["ada", "bob"], "equal")
    assert clients.state("bob")["text"].split() == [str(number) for number in range(50)]


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_a_forced_sync_is_answered_and_counted(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room, forceSyncInterval=50)
    clients.wait("ada", "synced")

    for _ in range(10):
        clients.do("pass", seconds=0.05)
        clients.edit("ada", write("x"))

    clients.wait("ada", "saved")


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_many_documents_share_one_socket(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    names = [f"{number}" for number in range(30)]
    clients.do("socket", name="wire", kind=kind, url=house.url)

    for name in names:
        clients.open(name, kind, house.url, f"{room}-{name}", socket="wire")
        clients.open(f"other {name}", "y-websocket-3", house.url, f"{room}-{name}")
    clients.wait([*names, *(f"other {name}" for name in names)], "synced")
    for name in names:
        clients.edit(name, write(f"this is {name}"))
    clients.wait(names, "saved")
    for name in names:
        clients.wait(f"other {name}", "text", f"this is {name}")

    assert clients.state(names[0])["opened"] == 1


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_a_client_is_told_it_may_write(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", kind, house.url, room, token="a token")

    clients.wait("ada", "event", ["authenticated"])

    told = ["authenticated", None if kind == "hocuspocus-2" else "read-write"]
    assert told in clients.state("ada")["events"]


def test_version_2_without_a_token_says_none_and_is_let_in(
    clients: Driver, house: Server, room: str
) -> None:
    clients.open("ada", "hocuspocus-2", house.url, room, keepsFrames=True)
    clients.open("bob", "hocuspocus-4", house.url, room)

    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("no token"))
    clients.wait("bob", "text", "no token")

    sent = [
        bytes.fromhex(one["frame"])
        for one in clients.do("frames", name="ada")
        if one["from"] == "client"
    ]
    address = bytes([len(room)]) + room.encode()
    assert all(frame[len(address)] != 2 for frame in sent)


def test_a_token_sent_again_is_accepted_again(
    clients: Driver, house: Server, room: str
) -> None:
    clients.open("ada", "hocuspocus-4", house.url, room)
    clients.wait("ada", "synced")

    clients.do("token", name="ada")
    clients.edit("ada", write("still here"))
    clients.wait("ada", "saved")

    state = clients.state("ada")
    assert state["closes"] == []
    assert ["authenticationFailed"] not in [event[:1] for event in state["events"]]


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_a_stateless_message_reaches_the_other_members_of_its_document(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    for name in ("ada", "bob"):
        clients.open(name, kind, house.url, room)
    clients.open("eve", kind, house.url, f"{room}-other")
    clients.wait(["ada", "bob", "eve"], "synced")

    clients.do("stateless", name="ada", text='{"saved":"ü"}')
    clients.wait("bob", "event", ["stateless", '{"saved":"ü"}'])
    clients.do("stateless", name="bob", text="back")
    clients.wait("ada", "event", ["stateless", "back"])

    heard = {
        name: [e for e in clients.state(name)["events"] if e[0] == "stateless"]
        for name in ("ada", "eve")
    }
    assert heard == {"ada": [["stateless", "back"]], "eve": []}


def test_one_document_twice_on_one_socket_keeps_its_sessions_apart(
    clients: Driver, house: Server, room: str
) -> None:
    clients.do("socket", name="wire", kind="hocuspocus-4", url=house.url)
    names = ["ada", "bob"]

    for name in names:
        clients.open(
            name, "hocuspocus-4", house.url, room, socket="wire", sessionAwareness=True
        )
    clients.open("eve", "hocuspocus-3", house.url, room)
    clients.wait([*names, "eve"], "synced")
    clients.wait([*names, "eve"], "present", ["ada", "bob", "eve"])
    clients.edit("ada", write("A"))
    clients.edit("bob", write("B", -1))
    clients.edit("eve", write("C", -1))
    clients.wait([*names, "eve"], "equal")
    clients.wait([*names, "eve"], "saved")
    clients.do("detach", name="bob")
    clients.wait(["ada", "eve"], "present", ["ada", "eve"])

    assert sorted(clients.state("ada")["text"]) == ["A", "B", "C"]
    assert clients.state("ada")["opened"] == 1


@pytest.mark.parametrize("kind", ["hocuspocus-3", "hocuspocus-4"])
def test_a_document_left_can_be_entered_again_on_the_same_socket(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.do("socket", name="wire", kind=kind, url=house.url)
    clients.open("ada", kind, house.url, room, socket="wire")
    clients.open("stays", kind, house.url, f"{room}-other", socket="wire")
    clients.open("bob", "y-websocket-3", house.url, room)
    clients.wait(["ada", "stays", "bob"], "synced")
    clients.wait("bob", "present", ["ada", "bob"])

    clients.do("detach", name="ada")
    clients.wait("bob", "present", ["bob"])
    clients.edit("bob", write("meanwhile"))
    clients.edit("ada", write("offline "))
    clients.do("attach", name="ada")
    clients.wait(["ada", "bob"], "equal")
    clients.wait("ada", "saved")

    assert sorted(clients.state("bob")["text"]) == sorted("meanwhileoffline ")
    assert clients.state("stays")["closes"] == []


@pytest.mark.parametrize("kind", HOCUSPOCUS)
def test_a_bad_document_name_costs_that_document_only(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.do("socket", name="wire", kind=kind, url=house.url)
    clients.open("good", kind, house.url, room, socket="wire")
    clients.wait("good", "synced")

    clients.open("bad", kind, house.url, "a\x01b", socket="wire")
    clients.wait("bad", "event", ["authenticationFailed"])
    clients.edit("good", write("unharmed"))
    clients.wait("good", "saved")

    assert clients.state("good")["closes"] == []

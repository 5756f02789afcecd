"""Two stock clients of any kinds in one room: they agree with each other and with the server."""

import pytest
from driving import Driver
from kinds import KINDS, PAIRS, erase, push, put, write
from serving import Server

A_CROWD = 7  # more than one connection may announce: stock clients repeat what they hear about others


# By word of the server: a client forgets who has been silent for half a minute.
SOON_SECONDS = 15


def move(clients: Driver, name: str) -> None:
    """A new cursor. Whoever reconnects believes only states newer than those it forgot when it lost its socket."""
    clients.do("presence", name=name, state={"name": name, "cursor": 1})


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_clients_agree_on_what_they_write_at_the_same_time(
    clients: Driver, house: Server, room: str, first: str, second: str
) -> None:
    clients.open("ada", first, house.url, room)
    clients.open("bob", second, house.url, room)
    clients.wait(["ada", "bob"], "synced")

    clients.edit("ada", write("hello "), erase(0, 2), put("ada", 1), put("both", "ada"))
    clients.edit(
        "bob",
        write("wörld 🌍"),
        erase(1, 1),
        put("bob", {"two": 2.5}),
        put("both", "bob"),
    )
    clients.edit("ada", push(1, {"is": ["deep", None]}))
    clients.edit("bob", push("two", False))
    clients.wait(["ada", "bob"], "saved")
    clients.wait(["ada", "bob"], "equal")
    clients.open("eve", "y-websocket-3", house.url, room)
    clients.wait(["ada", "bob", "eve"], "synced")
    clients.wait(["ada", "bob", "eve"], "equal")

    held = clients.state("eve")
    assert sorted(held["text"]) == sorted("llo wrld 🌍")
    assert held["map"] == {"ada": 1, "bob": {"two": 2.5}, "both": held["map"]["both"]}
    assert sorted(map(str, held["array"])) == sorted(
        map(str, [1, {"is": ["deep", None]}, "two", False])
    )


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_what_is_written_apart_meets_again(
    clients: Driver, house: Server, room: str, first: str, second: str
) -> None:
    clients.open("ada", first, house.url, room)
    clients.open("bob", second, house.url, room)
    clients.wait(["ada", "bob"], "synced")
    clients.edit("ada", write("start"))
    clients.wait(["ada", "bob"], "text", "start")
    clients.wait(["ada", "bob"], "saved")

    clients.do("pull", names=["ada", "bob"])
    clients.wait(["ada", "bob"], "dead")
    clients.edit("ada", write("ada ", 0), push("ada"), put("ada", True))
    clients.edit("bob", write(" bob", -1), erase(0, 5), push("bob"))
    clients.do("plug", names=["ada", "bob"])
    clients.wait(["ada", "bob"], "synced")
    clients.wait(["ada", "bob"], "text", "ada  bob")
    clients.wait(["ada", "bob"], "equal")
    clients.wait(["ada", "bob"], "saved")

    assert sorted(clients.state("bob")["array"]) == ["ada", "bob"]
    assert clients.state("bob")["map"] == {"ada": True}


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_sees_the_other_come_go_and_return(
    clients: Driver, house: Server, room: str, first: str, second: str
) -> None:
    clients.open("ada", first, house.url, room)
    clients.open("bob", second, house.url, room)

    clients.wait(["ada", "bob"], "present", ["ada", "bob"])
    clients.do("pull", names="bob")
    clients.wait("ada", "present", ["ada"], seconds=SOON_SECONDS)
    clients.do("plug", names="bob")
    clients.wait("ada", "present", ["ada", "bob"], seconds=SOON_SECONDS)
    move(clients, "ada")

    clients.wait("bob", "present", ["ada", "bob"], seconds=SOON_SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_politely_is_gone_at_once(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", "y-websocket-3", house.url, room)
    clients.open("bob", kind, house.url, room)
    clients.wait(["ada", "bob"], "present", ["ada", "bob"])

    clients.do("close", names="bob")

    clients.wait("ada", "present", ["ada"], seconds=SOON_SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowd_of_one_kind_sees_everybody(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    names = [f"{number}" for number in range(A_CROWD)]

    for name in names:
        clients.open(name, kind, house.url, room)
    clients.wait(names, "synced")
    clients.wait(names, "present", names)
    for name in names:
        clients.edit(name, write(name, -1))
    clients.wait(names, "equal")
    clients.wait(names, "saved")

    assert [clients.state(name)["closes"] for name in names] == [[]] * A_CROWD
    assert sorted(clients.state(names[0])["text"]) == names


@pytest.mark.parametrize("kind", KINDS)
def test_one_who_reconnects_takes_nobody_elses_presence_away(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    clients.open("ada", "y-websocket-3", house.url, room)
    clients.open("eve", "hocuspocus-4", house.url, room)
    clients.open("bob", kind, house.url, room)
    everybody = ["ada", "bob", "eve"]
    clients.wait(everybody, "present", everybody)

    clients.do("pull", names="bob")
    clients.wait(["ada", "eve"], "present", ["ada", "eve"], seconds=SOON_SECONDS)
    clients.do("plug", names="bob")
    clients.wait("bob", "synced")
    clients.edit("bob", write("back"))
    clients.wait(["ada", "eve"], "text", "back")

    clients.wait(["ada", "eve"], "present", everybody, seconds=SOON_SECONDS)
    move(clients, "ada")
    move(clients, "eve")
    clients.wait("bob", "present", everybody, seconds=SOON_SECONDS)


def test_the_server_exports_what_clients_of_every_kind_hold(
    clients: Driver, house: Server, room: str
) -> None:
    for kind in KINDS:
        clients.open(kind, kind, house.url, room)
    clients.wait(KINDS, "synced")

    for kind in KINDS:
        clients.edit(
            kind, write(f"{kind} ü 🌍\n"), put(kind, {"is": [kind, 1]}), push(kind)
        )
        clients.edit(kind, erase(0, 1), put("last", kind))
    clients.wait(KINDS, "saved")
    clients.wait(KINDS, "equal")

    held = clients.state(KINDS[0])
    assert house.export(room).removesuffix("\n") == held["text"].removesuffix("\n")
    assert house.exported(room)["map"] == held["map"]
    assert house.exported(room)["array"] == held["array"]

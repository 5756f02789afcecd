"""What a y-websocket client may do, and how it learns what it may not: stock ones, and those of `collab.v1`."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from peers import Peer, open_house
from processes import Server
from websockets.asyncio.client import connect

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_string

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE


def notices(peer: Peer) -> list[str]:
    return [Reader(one, 1).read_string(64) for one in peer.heard(b"\x71")]


def left(notice: bytes) -> int:
    """The milliseconds in it."""
    reader = Reader(notice, 1)
    reader.read_string(64)
    return reader.read_varint()


def token(text: str) -> bytes:
    return b"\x72" + encode_string(text)


def refusals(peer: Peer) -> list[tuple[int, str]]:
    found = []
    for one in peer.heard(b"\x70"):
        reader = Reader(one, 1)
        found.append((reader.read_varint(), reader.read_string(64)))
    return found


async def test_a_reader_hears_what_writers_write() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)
        ada, eve = await house.y_websocket("ada"), await house.y_websocket("eve")

        update = ada.write("hello")

        await eve.until(lambda: yjs.update_message(update) in eve.messages)


async def test_what_a_reader_writes_reaches_nobody() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)
        ada, eve = await house.y_websocket("ada"), await house.y_websocket("eve")

        eve.write("leak")
        ada.write("sign")
        await ada.until(lambda: ada.heard(b"\x00\x02"))

        assert house.text() == "sign"
        assert len(ada.heard(b"\x00\x02")) == 1


@pytest.mark.parametrize("step", [yjs.update_message, yjs.sync_step_2])
async def test_nobody_looks_into_what_a_reader_writes(step) -> None:  # type: ignore[no-untyped-def]
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve")

        eve.say(step(b"\xff" * 200))

        assert eve.close_code is None
        assert not house.sockets.metrics.refusals


async def test_a_stock_reader_is_warned_twice_and_closed_the_third_time() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve")

        codes = []
        for word in ("one", "two", "three"):
            eve.write(word)
            codes.append(eve.close_code)

        assert codes == [None, None, 4403]
        assert len(eve.heard(b"\x02\x00")) == 3


async def test_a_reader_that_says_what_it_heard_is_not_taken_for_a_writer() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)
        ada = await house.y_websocket("ada")
        ada.write("before ")
        eve = await house.y_websocket("eve")
        for n in range(450):
            ada.write(f"{n} ")

        for _ in range(451):
            eve.say(yjs.update_message(b"heard"))
        codes = [eve.close_code]
        for word in ("one", "two", "three"):
            eve.write(word)
            codes.append(eve.close_code)

        assert codes == [None, None, None, 4403]


async def test_what_was_heard_as_a_writer_is_no_excuse() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await house.y_websocket("ada")
        for n in range(50):
            ada.write(f"{n} ")

        house.grant(ada, READ)
        for n in range(4):
            ada.write(f"{n} ")

        assert ada.close_code == 4403


async def test_a_reader_is_not_asked_and_may_answer_that_it_has_nothing() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve")

        eve.ask()
        for _ in range(5):
            eve.say(yjs.sync_step_2(yjs.NOTHING))

        assert not eve.heard(b"\x00\x00")
        assert eve.heard(b"\x00\x01")
        assert eve.close_code is None


async def test_a_reader_of_v1_is_told_by_hello_and_keeps_its_socket() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve", is_v1=True)

        for word in ("one", "two", "three", "four"):
            eve.write(word)

        assert eve.messages[0] == yjs.hello(
            "", is_writable=False, max_update_bytes=1 << 19
        )
        assert refusals(eve) == [(n, "permission_denied") for n in (1, 2, 3, 4)]
        assert eve.close_code is None


async def test_a_reader_who_goes_on_and_on_is_closed() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve", is_v1=True)

        for _ in range(500):
            eve.say(yjs.update_message(b"\x01"))

        assert eve.close_code == 4429


async def test_who_loses_the_right_to_write_is_told_and_may_read_on() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await house.y_websocket("ada", is_v1=True)
        ada.write("kept")

        house.grant(ada, READ)
        ada.write("lost")

        assert notices(ada) == ["read-only"]
        assert refusals(ada) == [(2, "permission_denied")]
        assert house.text() == "kept"


@pytest.mark.parametrize("is_v1", [True, False])
async def test_who_wins_the_right_to_write_is_asked_for_what_was_refused(
    *, is_v1: bool
) -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_websocket("eve", is_v1=is_v1)
        eve.write("typed too soon")

        house.grant(eve, ALL)
        eve.answer()

        assert house.text() == "typed too soon"
        assert notices(eve) == (["writable"] if is_v1 else [])


async def test_who_may_not_be_seen_is_not() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("ghost", READ)
        ada, ghost = await house.y_websocket("ada"), await house.y_websocket("ghost")

        for clock in range(1, 451):
            ghost.present(7, clock, {"name": "ghost"})
        ada.present(8, 1, {"name": "ada"})
        await ghost.until(lambda: ghost.states)

        assert set(ada.states) == set(ghost.states) == {8}
        assert house.sockets.metrics.denied_presence == 450
        assert ghost.close_code is None


async def test_a_name_cannot_be_forged() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL, name="Summariser", kind="agent")
        house.table.add("ada", ALL)
        bot, ada = await house.y_websocket("bot"), await house.y_websocket("ada")

        bot.present(
            7, 1, {"user": {"name": "Ada", "kind": "human", "color": "red"}, "at": 3}
        )
        await ada.until(lambda: ada.states)

        user = {"id": "bot", "name": "Summariser", "kind": "agent", "color": "red"}
        assert ada.states[7] == {"user": user, "at": 3}


async def test_a_v1_client_is_told_how_long_its_token_lasts() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL, expires=time.time() + 100)

        ada = await house.y_websocket("ada", is_v1=True)

        assert 95_000 < left(ada.messages[1]) <= 100_000


async def test_a_v1_client_goes_on_with_another_token() -> None:
    async with open_house() as house:
        house.table.add("old", READ, id="ada", expires=time.time() + 100)
        house.table.add("new", ALL, id="ada", expires=time.time() + 200)
        ada = await house.y_websocket("old", is_v1=True)

        ada.say(token("new"))
        await ada.until(lambda: len(notices(ada)) == 3)
        ada.write("hello")

        assert notices(ada) == ["expires", "writable", "expires"]
        assert left(ada.heard(b"\x71")[-1]) > 195_000
        assert house.text() == "hello"


@pytest.mark.parametrize(("shown", "code"), [("eve", 4403), ("wrong", 4401)])
async def test_a_v1_client_goes_with_a_token_that_is_not_its_own(
    shown: str, code: int
) -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", ALL)
        ada = await house.y_websocket("ada", is_v1=True)

        ada.say(token(shown))
        await ada.until(lambda: ada.close_code)

        assert ada.close_code == code


@pytest.mark.parametrize(
    "message", [b"\x72", b"\x72\x05abc", b"\x72\x03abcd", b"\x72\x81\x80\x01"]
)
async def test_a_malformed_token_message_closes_the_socket(message: bytes) -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await house.y_websocket("ada", is_v1=True)

        ada.say(message)

        assert ada.close_code == 4400


async def test_a_stock_client_has_no_such_message() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", ALL)
        ada = await house.y_websocket("ada")

        ada.say(token("eve"))

        assert ada.close_code is None


async def test_whose_token_ends_is_closed_and_whose_room_is_taken_is_too() -> None:
    async with open_house() as house:
        principal = house.table.add("ada", ALL, expires=time.time() + 3600)
        ada, bob = await house.y_websocket("ada"), await house.y_websocket("ada")
        members = [peer.socket.members()[0] for peer in (ada, bob)]

        members[0].principal = replace(principal, expires=time.time() - 1)
        members[1].principal = replace(principal, grants=())
        house.access.review()

        assert (ada.close_code, bob.close_code) == (4401, 4403)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (["collab.token.t", "collab.v1"], "collab.v1"),
        (["collab.token.t", "y-websocket"], "y-websocket"),
        (["x", "collab.token.t"], "x"),
        (["collab.token.t"], None),
    ],
)
async def test_a_token_among_the_subprotocols_is_never_answered(
    house: Server, offered: list[str], answered: str | None
) -> None:
    for path in ("ws/r", "hocuspocus"):
        async with connect(f"{house.address}/{path}", subprotocols=offered) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == answered

"""Turns on a socket of `collab.v1`: what the log says of who wrote, who may have a turn, and how one ends."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from peers import House, Peer, open_house

from collab.auth.permissions import PRESENCE, READ, REWRITE, WRITE
from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_string
from collab.store.base import Author
from collab.turns import About, read_about

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE


def said(**fields: str) -> str:
    return json.dumps(fields)


def endings(peer: Peer) -> list[tuple[str, str]]:
    """Turn and code of each turn that this client was told is over."""
    found = []
    for one in peer.heard(b"\x74"):
        reader = Reader(one, 1)
        found.append((reader.read_string(64), reader.read_string(64)))
    return found


def refusals(peer: Peer) -> list[tuple[int, str]]:
    found = []
    for one in peer.heard(b"\x70"):
        reader = Reader(one, 1)
        found.append((reader.read_varint(), reader.read_string(64)))
    return found


async def authors(house: House) -> list[Author]:
    """Of the rows of the log, in order."""
    await house.replica.settle()
    return [row.author for row in await house.replica.store.history("r")]


async def test_every_row_says_whose_turn_it_belongs_to() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL, kind="agent", name="Reviewer", role="executor")
        bot = await house.y_websocket("bot", is_v1=True)

        bot.say(yjs.turn("t1", said(task="issue 5", model="m", reason="tidy")))
        bot.write("one")
        bot.write("two")

        rows = await authors(house)
        assert [(row.principal, row.turn) for row in rows] == [("bot", "t1")] * 2
        assert read_about(rows[0].about) == About(
            name="Reviewer",
            kind="agent",
            role="executor",
            task="issue 5",
            model="m",
            reason="tidy",
        )


async def test_what_is_written_before_and_after_a_turn_belongs_to_none() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL, name="Ada")
        ada = await house.y_websocket("ada", is_v1=True)

        ada.write("before")
        ada.say(yjs.turn("t1", said(reason="tidy")))
        ada.write("in it")
        ada.say(yjs.turn(""))
        ada.write("after")

        rows = await authors(house)
        assert [row.turn for row in rows] == [None, "t1", None]
        assert rows[0].about == rows[2].about == About("Ada", "human").encode()


async def test_a_member_without_turns_has_one_author_for_all_its_rows() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL, name="Ada")
        ada = await house.y_websocket("ada")

        before = ada.socket.members()[0].author
        ada.write("a")
        ada.present(7, 1, {"user": {"name": "Eve", "kind": "agent"}})
        ada.write("b")

        assert ada.socket.members()[0].author is before


async def test_a_turn_goes_on_when_its_client_comes_back() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        first = await house.y_websocket("bot", is_v1=True)
        first.say(yjs.turn("t1"))
        first.write("one")
        first.socket.left()

        second = await house.y_websocket("bot", is_v1=True)
        second.say(yjs.turn("t1"))
        second.write("two")

        assert [row.turn for row in await authors(house)] == ["t1", "t1"]
        assert endings(second) == []


async def test_a_turn_that_is_open_elsewhere_is_taken_over_by_the_same_principal() -> (
    None
):
    async with open_house() as house:
        house.table.add("bot", ALL)
        first = await house.y_websocket("bot", is_v1=True)
        second = await house.y_websocket("bot", is_v1=True)
        first.say(yjs.turn("t1"))

        second.say(yjs.turn("t1"))
        first.write("late")
        second.write("mine")

        assert endings(first) == [("t1", "lease_lost")]
        assert refusals(first) == [(1, "lease_lost")]
        assert house.text() == "mine"
        assert first.close_code is None


async def test_a_turn_of_another_principal_is_not_to_be_had() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("eve", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        eve = await house.y_websocket("eve", is_v1=True)
        bot.say(yjs.turn("t1"))

        eve.say(yjs.turn("t1"))
        eve.write("forged")
        bot.write("mine")

        assert endings(eve) == [("t1", "permission_denied")]
        assert refusals(eve) == [(1, "permission_denied")]
        assert endings(bot) == []
        assert [(row.principal, row.turn) for row in await authors(house)] == [
            ("bot", "t1")
        ]


async def test_who_was_refused_a_turn_may_have_another() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("eve", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        eve = await house.y_websocket("eve", is_v1=True)
        bot.say(yjs.turn("t1"))
        eve.say(yjs.turn("t1"))

        eve.say(yjs.turn("t2"))
        eve.write("her own")

        assert refusals(eve) == []
        assert [(row.principal, row.turn) for row in await authors(house)] == [
            ("eve", "t2")
        ]


async def test_a_name_that_is_free_again_is_another_turn_of_its_next_principal() -> (
    None
):
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("eve", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        eve = await house.y_websocket("eve", is_v1=True)
        bot.say(yjs.turn("t1"))
        bot.write("one")
        bot.say(yjs.turn("t2"))

        eve.say(yjs.turn("t1"))
        eve.write("two")

        assert endings(eve) == []
        assert [(row.principal, row.turn) for row in await authors(house)] == [
            ("bot", "t1"),
            ("eve", "t1"),
        ]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Ada", "kind": "human"},
        {"principal": "ada", "on_behalf_of": "ada", "role": "admin"},
        {"undoes": "t0", "by": "ada"},
    ],
)
async def test_nobody_says_of_its_turn_whose_it_is(fields: dict[str, str]) -> None:
    async with open_house() as house:
        house.table.add("eve", ALL, kind="agent", name="Eve")
        eve = await house.y_websocket("eve", is_v1=True)

        eve.say(yjs.turn("t1", said(reason="r", **fields)))
        eve.write("x")

        [row] = await authors(house)
        assert row.principal == "eve"
        assert read_about(row.about) == About("Eve", "agent", reason="r")


@pytest.mark.parametrize(
    "message",
    [
        b"\x73",
        b"\x73\x02t",
        b"\x73" + encode_string("t" * 65) + encode_string(""),
        b"\x73" + encode_string("a b") + encode_string(""),
        b"\x73" + encode_string("../x") + encode_string(""),
        b"\x73" + encode_string("t\n") + encode_string(""),
        b"\x73\x01\xff\x00",
        yjs.turn("t1", "{"),
        yjs.turn("t1", "[]"),
        yjs.turn("t1", "null"),
        yjs.turn("t1", '"task"'),
        yjs.turn("t1", '{"task": 1}'),
        yjs.turn("t1", '{"task": null}'),
        yjs.turn("t1", '{"reason": "\\u0000"}'),
        yjs.turn("t1", '{"reason": "\\ud800"}'),
        yjs.turn("t1", "[" * 2000),
        yjs.turn("t1", said(task="x" * 2048)),
        yjs.turn("t1") + b"\x00",
        yjs.cancel(""),
        yjs.cancel("a b"),
        yjs.cancel("t1", "p" * 257),
        yjs.cancel("t1")[:-1],
    ],
)
async def test_a_malformed_turn_costs_its_sender_alone(message: bytes) -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", ALL)
        ada = await house.y_websocket("ada", is_v1=True)
        eve = await house.y_websocket("eve", is_v1=True)

        eve.say(message)
        ada.write("hello")

        assert eve.close_code == 4400
        assert ada.close_code is None
        assert house.text() == "hello"


async def test_a_stock_client_has_no_turns() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await house.y_websocket("ada")

        ada.say(yjs.turn("t1"))
        ada.write("x")

        assert [row.turn for row in await authors(house)] == [None]
        assert ada.close_code is None


async def test_presence_is_stamped_with_role_and_on_whose_behalf() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL, kind="agent", role="executor", on_behalf_of="ada")
        bot = await house.y_websocket("bot", is_v1=True)

        bot.present(7, 1, {"user": {"name": "Bob", "role": "boss", "color": "#123"}})

        await bot.until(lambda: bot.states)
        assert bot.states[7]["user"] == {
            "id": "bot",
            "name": "bot",
            "kind": "agent",
            "role": "executor",
            "on_behalf_of": "ada",
            "color": "#123",
        }


async def test_what_the_token_does_not_say_nobody_says_in_its_place() -> None:
    async with open_house() as house:
        house.table.add("eve", ALL)
        eve = await house.y_websocket("eve", is_v1=True)

        eve.present(7, 1, {"user": {"role": "admin", "on_behalf_of": "ada"}})

        await eve.until(lambda: eve.states)
        assert eve.states[7]["user"] == {"id": "eve", "name": "eve", "kind": "human"}


# Without access control


async def test_without_accounts_a_member_is_called_what_it_calls_itself() -> None:
    async with open_house(is_open=True) as house:
        ada = await house.y_websocket("ada")
        bot = await house.y_websocket("bot", is_v1=True)

        ada.present(7, 1, {"user": {"name": "Ada", "color": "#123"}})
        bot.present(8, 1, {"user": {"name": "Bot"}, "agent": {"status": "idle"}})
        ada.write("a")
        bot.say(yjs.turn("t1", said(task="x")))
        bot.write("b")

        rows = await authors(house)
        assert [row.principal for row in rows] == ["anonymous"] * 2
        assert read_about(rows[0].about) == About("Ada", "human")
        assert read_about(rows[1].about) == About("Bot", "agent", task="x")


async def test_before_it_introduces_itself_a_member_is_nobody() -> None:
    async with open_house(is_open=True) as house:
        ada = await house.y_websocket("ada")

        ada.present(7, 1, {"cursor": 5})
        ada.present(7, 2, {"user": {"name": 7}})
        ada.present(7, 3, {"user": "Ada"})
        ada.write("a")

        assert [row.about for row in await authors(house)] == [""]


async def test_a_member_that_renames_itself_all_the_time_makes_no_author_each() -> None:
    async with open_house(is_open=True) as house:
        ada = await house.y_websocket("ada")

        for clock in range(1, 20):
            ada.present(7, clock, {"user": {"name": f"Ada {clock}"}})
            ada.write("a")

        names = {read_about(row.about).name for row in await authors(house)}
        assert names == {"Ada 1"}


async def test_a_long_name_is_cut_in_the_log() -> None:
    async with open_house(is_open=True) as house:
        ada = await house.y_websocket("ada")

        ada.present(7, 1, {"user": {"name": "x" * 250}})
        ada.write("a")

        [row] = await authors(house)
        assert read_about(row.about).name == "x" * 100


async def test_a_new_token_gives_the_next_updates_a_new_name() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL, name="Bot")
        ends = time.time() + 100  # it is told of that
        house.table.add("bot-2", ALL, id="bot", name="Bot, renamed", expires=ends)
        bot = await house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1", said(task="x")))
        bot.write("a")

        bot.say(b"\x72" + encode_string("bot-2"))
        await bot.until(lambda: bot.heard(b"\x71"))
        bot.write("b")

        rows = await authors(house)
        assert [row.turn for row in rows] == ["t1", "t1"]
        assert [read_about(row.about).name for row in rows] == ["Bot", "Bot, renamed"]


async def test_nobody_goes_on_on_another_ones_behalf() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL, on_behalf_of="ada")
        house.table.add("bot-2", ALL, id="bot", on_behalf_of="eve")
        bot = await house.y_websocket("bot", is_v1=True)

        bot.say(b"\x72" + encode_string("bot-2"))
        await bot.until(lambda: bot.close_code)

        assert bot.close_code == 4403


# Stopping a turn


async def refused(peer: Peer) -> str:
    """Goes on writing until it is refused; the code."""
    async with asyncio.timeout(30):
        while not refusals(peer):
            peer.write("more ")
            await asyncio.sleep(0.02)  # as an agent that streams does
    return refusals(peer)[0][1]


async def test_whoever_may_write_stops_a_turn() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("ada", READ | WRITE)
        bot = await house.y_websocket("bot", is_v1=True)
        ada = await house.y_websocket("ada", is_v1=True)
        bot.say(yjs.turn("t1"))

        ada.say(yjs.cancel("t1"))
        bot.write("on its way")

        assert endings(bot) == [("t1", "turn_cancelled")]
        assert house.text() == "on its way"
        assert await refused(bot) == "turn_cancelled"
        assert bot.close_code is None


async def test_after_a_turn_was_stopped_there_may_be_the_next_but_not_the_same() -> (
    None
):
    async with open_house() as house:
        house.table.add("bot", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))
        bot.say(yjs.cancel("t1"))

        bot.say(yjs.turn("t1"))
        bot.write("again ")
        bot.say(yjs.turn("t2"))
        bot.write("next")

        assert refusals(bot) == [(1, "turn_cancelled")]
        assert [row.turn for row in await authors(house)] == ["t2"]


async def test_a_turn_is_stopped_by_the_name_of_its_principal_alone() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("ada", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        ada = await house.y_websocket("ada", is_v1=True)
        bot.say(yjs.turn("t1"))

        ada.say(yjs.cancel("t1", "eve"))

        assert endings(bot) == []
        ada.say(yjs.cancel("t1", "bot"))
        assert endings(bot) == [("t1", "turn_cancelled")]


async def test_a_reader_stops_nobody() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        house.table.add("eve", READ)
        bot = await house.y_websocket("bot", is_v1=True)
        eve = await house.y_websocket("eve", is_v1=True)
        bot.say(yjs.turn("t1"))

        eve.say(yjs.cancel("t1"))

        assert endings(bot) == []
        assert eve.heard(b"\x02\x00") == [
            yjs.permission_denied("this member may only read")
        ]
        assert eve.close_code is None


async def test_a_flood_of_cancels_closes_its_sender() -> None:
    async with open_house() as house:
        house.table.add("eve", ALL)
        eve = await house.y_websocket("eve", is_v1=True)

        for number in range(200):
            eve.say(yjs.cancel(f"t{number}"))

        assert eve.close_code == 4429


# What a turn may not do while others are there


async def in_a_document(house: House, *tokens: str) -> list[Peer]:
    """Members of a document of 200 characters that all of them know."""
    found = [await house.y_websocket(token, is_v1=True) for token in tokens]
    found[0].write("x" * 200)
    await house.replica.settle()
    for peer in found[1:]:
        peer.hear()
    return found


async def test_most_of_a_document_is_not_deleted_in_one_turn_beside_others() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("bot", ALL)
        _, bot = await in_a_document(house, "ada", "bot")
        bot.say(yjs.turn("t1"))

        bot.delete(0, 90)
        bot.delete(0, 20)
        bot.write("and all that comes after")

        assert endings(bot) == [("t1", "others_present")]
        assert refusals(bot) == [(2, "others_present"), (3, "others_present")]
        assert house.text() == "x" * 110
        assert bot.close_code is None


async def test_whoever_is_alone_or_may_rewrite_does() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("bot", ALL | REWRITE)
        ada, bot = await in_a_document(house, "ada", "bot")

        bot.say(yjs.turn("t1"))
        bot.delete(0, 200)
        ada.socket.left()
        other = await house.y_websocket("bot", is_v1=True)

        assert refusals(bot) == refusals(other) == []
        assert house.text() == ""


async def test_another_connection_of_ones_own_is_nobody_else() -> None:
    async with open_house() as house:
        house.table.add("bot", ALL)
        _, bot = await in_a_document(house, "bot", "bot")

        bot.say(yjs.turn("t1"))
        bot.delete(0, 200)

        assert refusals(bot) == []


async def test_what_a_turn_has_written_itself_it_may_delete() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("bot", ALL)
        _, bot = await in_a_document(house, "ada", "bot")

        bot.say(yjs.turn("t1"))
        bot.delete(0, 30)
        bot.write("y" * 500)
        bot.delete(0, 500)

        assert refusals(bot) == []
        assert house.text() == "x" * 170


async def test_what_was_deleted_before_does_not_count_when_it_is_said_again() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("bot", ALL)
        ada, bot = await in_a_document(house, "ada", "bot")
        ada.delete(0, 150)
        await house.replica.settle()
        bot.hear()

        bot.say(yjs.turn("t1"))
        bot.say(yjs.sync_step_2(bot.doc.get_update()))
        bot.delete(0, 20)

        assert refusals(bot) == []


async def test_people_outside_of_turns_delete_what_they_like() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", ALL)
        _, eve = await in_a_document(house, "ada", "eve")

        eve.delete(0, 200)

        assert refusals(eve) == []


# Budgets


async def test_an_agent_over_its_budget_is_told_when_to_come_back() -> None:
    async with open_house(agent_characters_per_minute=60) as house:
        house.table.add("bot", ALL, kind="agent")
        bot = await house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))

        bot.write("x" * 100)
        bot.write("y")

        [ended] = bot.heard(b"\x74")
        assert refusals(bot) == [(2, "rate_limited")]
        assert b"retry in 4" in ended
        assert house.text() == "x" * 100
        assert house.replica.metrics.limited["characters_per_agent"] == 1
        assert house.replica.metrics.withheld_updates == 1


async def test_an_agent_that_writes_too_often_is_told_when_to_come_back() -> None:
    async with open_house(agent_operations_per_second=1) as house:
        house.table.add("bot", ALL)
        bot = await house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))

        for _ in range(30):
            bot.write("x")
        bot.say(yjs.update_message(bot.made[0]))
        bot.delete(0, 1)

        assert endings(bot) == [("t1", "rate_limited")]
        assert refusals(bot) == [(32, "rate_limited")]
        assert house.replica.metrics.limited["operations_per_agent"] == 1


async def test_another_turn_or_connection_is_no_other_budget() -> None:
    async with open_house(agent_characters_per_minute=60) as house:
        house.table.add("bot", ALL)
        first = await house.y_websocket("bot", is_v1=True)
        first.say(yjs.turn("t1"))
        first.write("x" * 100)
        first.say(yjs.turn("t2"))
        first.write("y")
        first.socket.left()

        second = await house.y_websocket("bot", is_v1=True)
        second.say(yjs.turn("t3"))
        second.write("z")

        assert refusals(first) == [(2, "rate_limited")]
        assert refusals(second) == [(1, "rate_limited")]


async def test_people_outside_of_turns_have_no_budget() -> None:
    async with open_house(agent_characters_per_minute=60) as house:
        house.table.add("ada", ALL)
        ada = await house.y_websocket("ada", is_v1=True)

        for _ in range(10):
            ada.write("x" * 100)

        assert refusals(ada) == []
        assert len(house.text()) == 1000


async def test_an_agent_of_a_stock_client_is_asked_for_what_was_refused() -> None:
    async with open_house(agent_characters_per_minute=6000) as house:
        house.table.add("bot", ALL, kind="agent")
        bot = await house.y_websocket("bot")
        bot.ask()

        bot.write("x" * 6050)
        bot.write("y")
        was = house.text()
        asked = len(bot.heard(b"\x00\x00"))
        await bot.until(lambda: len(bot.heard(b"\x00\x00")) > asked)
        bot.answer()

        assert was == "x" * 6050
        assert house.text() == "y" + "x" * 6050


async def test_an_agent_on_a_hocuspocus_socket_has_the_same_budget() -> None:
    async with open_house(agent_characters_per_minute=60) as house:
        house.table.add("bot", ALL, kind="agent")
        bot = house.hocuspocus("bot")
        bot.authenticate()
        await bot.until(lambda: bot.scopes)

        bot.write("x" * 100)
        bot.write("y")
        await house.replica.settle()

        assert bot.statuses == [1, 0]
        assert house.text() == "x" * 100


async def test_agents_leave_the_rest_of_a_document_to_people() -> None:
    async with open_house(
        max_document_bytes=2000, max_agent_document_share=0.5
    ) as house:
        house.table.add("ada", ALL)
        house.table.add("bot", ALL, kind="agent")
        ada = await house.y_websocket("ada", is_v1=True)
        bot = await house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))

        bot.write("x" * 1100)
        bot.write("y")
        ada.write("z" * 500)

        assert refusals(bot) == [(2, "rate_limited")]
        assert refusals(ada) == []
        assert house.replica.metrics.limited["document_share_of_agents"] == 1

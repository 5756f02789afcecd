"""What a Y-Sweet client may do; its barrier says the truth about what it may not."""

from __future__ import annotations

import pytest
from peers import open_house

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.protocol import yjs, ysweet

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE
BARRIER = ysweet.barrier(b"\x01")


async def test_the_barrier_of_a_reader_with_nothing_of_its_own_comes_back() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")

        eve.ask()
        eve.say(BARRIER)

        assert BARRIER in eve.messages
        assert not eve.heard(b"\x00\x00")


async def test_the_barrier_of_a_reader_with_edits_of_its_own_does_not() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.text.insert(0, "offline")

        eve.ask()
        eve.say(BARRIER)

        assert BARRIER not in eve.messages
        assert yjs.KEEP_ALIVE in eve.messages


async def test_what_a_reader_writes_is_not_called_saved_and_costs_nothing_else() -> (
    None
):
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.ask()

        for word in ("one", "two", "three", "four"):
            eve.write(word)
        eve.say(BARRIER)

        assert BARRIER not in eve.messages
        assert eve.close_code is None
        assert house.text() == ""


async def test_the_barrier_comes_back_once_the_right_to_write_has() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await house.y_sweet("eve")
        eve.ask()
        eve.write("too soon")
        eve.say(BARRIER)

        house.grant(eve, ALL)
        eve.answer()
        await eve.until(lambda: BARRIER in eve.messages)

        assert house.text() == "too soon"

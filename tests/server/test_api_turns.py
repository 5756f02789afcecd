"""Stopping a turn over HTTP."""

from __future__ import annotations

import pytest
from calling import open_api

from collab.auth.permissions import READ, WRITE
from collab.protocol import yjs

pytestmark = pytest.mark.anyio

HERE = "/v1/rooms/r/turns/t1/cancel"


async def test_a_turn_is_stopped_and_its_member_told() -> None:
    async with open_api() as call:
        call.house.table.add("bot", READ | WRITE)
        bot = await call.house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))
        call.may("ada", WRITE)

        answer = await call("POST", HERE, token="ada")

        assert answer.status_code == 204
        assert bot.heard(b"\x74") == [
            yjs.turn_ended("t1", "turn_cancelled", "this turn was stopped")
        ]


@pytest.mark.parametrize("query", ["", "?principal=eve"])
async def test_a_turn_that_nobody_has_open_is_not_there(query: str) -> None:
    async with open_api() as call:
        call.house.table.add("bot", READ | WRITE)
        bot = await call.house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1" if query else "t2"))

        answer = await call("POST", HERE + query)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert bot.heard(b"\x74") == []


async def test_who_may_only_read_stops_nothing() -> None:
    async with open_api() as call:
        call.may("eve", READ)

        answer = await call("POST", HERE, token="eve")

        assert answer.status_code == 403


async def test_what_is_no_name_of_a_turn_is_refused() -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/rooms/r/turns/a%20b/cancel")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_message")

"""Who is connected, and ending a connection."""

from __future__ import annotations

import pytest
from calling import Caller, open_api

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.protocol import yjs

pytestmark = pytest.mark.anyio

HERE = "/v1/rooms/r/members"


async def members(call: Caller, token: str = "root") -> list[dict[str, object]]:
    found = (await call("GET", HERE, token=token)).json()["members"]
    assert isinstance(found, list)
    return found


async def test_members_of_every_dialect_are_listed() -> None:
    async with open_api() as call:
        house = call.house
        house.table.add("ada", READ | WRITE, kind="human", name="Ada")
        house.table.add("bot", READ, kind="agent")
        ada, _ = await house.y_websocket("ada"), await house.y_sweet("bot")
        hocuspocus = house.hocuspocus("bot")
        hocuspocus.authenticate()
        await hocuspocus.until(lambda: hocuspocus.scopes)
        await call("PUT", "/v1/rooms/r/presence", json={"state": {}})

        found = await members(call)

        assert [(each["principal"], each["dialect"]) for each in found] == [
            ("ada", "y-websocket"),
            ("bot", "y-sweet"),
            ("bot", "hocuspocus"),
            ("root", "rest"),
        ]
        first = found[0]
        assert (first["name"], first["kind"]) == ("Ada", "human")
        assert first["operations"] == ["read", "write"]
        assert first["connection"] == ada.socket.connection
        assert isinstance(first["since_milliseconds"], int)


async def test_a_member_is_listed_with_its_turn_and_on_whose_behalf_it_acts() -> None:
    async with open_api() as call:
        call.house.table.add(
            "bot", READ | WRITE, kind="agent", role="executor", on_behalf_of="ada"
        )
        bot = await call.house.y_websocket("bot", is_v1=True)
        bot.say(yjs.turn("t1"))

        (found,) = await members(call)

        assert found["on_behalf_of"] == "ada"
        assert (found["role"], found["turn"]) == ("executor", "t1")


async def test_addresses_are_for_administrators() -> None:
    async with open_api() as call:
        call.may("eve", READ | WRITE | PRESENCE)
        call.house.table.add("ada", READ)
        await call.house.y_websocket("ada")

        (seen,) = await members(call, token="eve")
        (known,) = await members(call)

        assert (seen["address"], known["address"]) == (None, "peer")


async def test_a_member_is_disconnected_for_good() -> None:
    async with open_api() as call:
        call.house.table.add("ada", READ)
        ada, eve = (
            await call.house.y_websocket("ada"),
            await call.house.y_websocket("ada"),
        )

        answer = await call("DELETE", f"{HERE}/{ada.socket.connection}")

        assert answer.status_code == 204
        assert (ada.close_code, eve.close_code) == (4403, None)
        assert len(await members(call)) == 1


async def test_a_document_of_a_socket_is_closed_without_the_others() -> None:
    async with open_api() as call:
        call.house.table.principals["ada"] = call.house.table.principals["root"]
        one = call.house.hocuspocus("ada")
        one.authenticate()
        await one.until(lambda: one.scopes)
        two = call.house.hocuspocus("ada", beside=one, room="s")
        two.authenticate()
        await two.until(lambda: two.scopes)

        await call("DELETE", f"{HERE}/{one.socket.connection}")

        assert one.close_code is None
        assert await members(call) == []
        assert call.house.replica.live("s") is not None


async def test_nobody_is_disconnected_by_a_wrong_id() -> None:
    async with open_api() as call:
        call.house.table.add("ada", READ)
        ada = await call.house.y_websocket("ada")

        answers = [
            await call("DELETE", f"{HERE}/nobody"),
            await call("DELETE", f"/v1/rooms/s/members/{ada.socket.connection}"),
        ]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert ada.close_code is None

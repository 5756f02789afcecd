"""Who is present, and being present without a socket."""

from __future__ import annotations

from dataclasses import replace

import pytest
from calling import Caller, open_api

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.server.api import presence

pytestmark = pytest.mark.anyio

HERE = "/v1/rooms/r/presence"


async def present(call: Caller) -> list[dict[str, object]]:
    found = (await call("GET", HERE)).json()["clients"]
    assert isinstance(found, list)
    return found


async def test_a_room_that_nobody_is_in_is_empty() -> None:
    async with open_api() as call:
        assert await present(call) == []
        assert call.house.replica.live("r") is None


async def test_who_is_there_by_socket_is_named_with_its_principal() -> None:
    async with open_api() as call:
        call.house.table.add("ada", READ | PRESENCE)
        ada = await call.house.y_websocket("ada")
        ada.present(7, 1, {"cursor": 3})

        (one,) = await present(call)

        assert (one["client"], one["principal"]) == (7, "ada")
        assert one["connection"] == ada.socket.connection
        user = {"id": "ada", "name": "ada", "kind": "human"}
        assert one["state"] == {"cursor": 3, "user": user}


async def test_members_see_who_is_present_without_a_socket() -> None:
    async with open_api() as call:
        call.house.table.add("eve", READ)
        eve = await call.house.y_websocket("eve")

        answer = await call("PUT", HERE, json={"state": {"cursor": 1}})

        client = answer.json()["client"]
        await eve.until(lambda: client in eve.states)
        assert eve.states[client]["cursor"] == 1


async def test_a_principal_is_one_client_however_often_it_says_so() -> None:
    async with open_api() as call:
        first = await call("PUT", HERE, json={"state": {"n": 1}})
        second = await call("PUT", HERE, json={"state": {"n": 2}})

        (one,) = await present(call)
        assert first.json()["client"] == second.json()["client"] == one["client"]
        assert one["state"]["n"] == 2


async def test_the_user_of_a_state_is_who_the_token_says() -> None:
    async with open_api() as call:
        call.may("bot", PRESENCE | READ, name="Bot", kind="agent")

        await call(
            "PUT",
            HERE,
            json={"state": {"user": {"name": "Ada", "color": "#fff"}}},
            token="bot",
        )

        (one,) = await present(call)
        assert one["state"] == {
            "user": {"name": "Bot", "color": "#fff", "id": "bot", "kind": "agent"}
        }


async def test_leaving_is_told_to_the_others() -> None:
    async with open_api() as call:
        call.house.table.add("eve", READ)
        eve = await call.house.y_websocket("eve")
        await call("PUT", HERE, json={"state": {}})
        await eve.until(lambda: len(eve.states) == 1)

        answer = await call("DELETE", HERE)

        assert answer.status_code == 204
        await eve.until(lambda: eve.states == {})
        assert await present(call) == []
        assert (await call("DELETE", HERE)).status_code == 204


async def test_presence_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_api() as call:
        call.house.table.add("eve", READ)
        eve = await call.house.y_websocket("eve")
        now = presence.time.time()
        monkeypatch.setattr(presence, "RENEWAL_SECONDS", 0.01)
        await call("PUT", HERE, json={"state": {}, "ttl_seconds": 1})
        await eve.until(lambda: len(eve.heard(b"\x01")) > 2)  # it is kept alive

        monkeypatch.setattr(presence.time, "time", lambda: now + 5)

        await eve.until(lambda: eve.states == {})
        assert await present(call) == []


async def test_presence_ends_with_the_right_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        call.may("bot", PRESENCE | READ)
        await call("PUT", HERE, json={"state": {}}, token="bot")
        assert len(await present(call)) == 1

        registry = call.house.access.registry
        await registry.change(registry.revoke_token, "bot", tenant="")

        assert await present(call) == []


async def test_presence_lasts_as_long_as_the_token_that_was_shown_last() -> None:
    async with open_api() as call:
        call.may("eve", PRESENCE | READ)
        call.house.table.principals["next"] = replace(
            call.house.table.principals["eve"], token="next"
        )
        await call("PUT", HERE, json={"state": {}}, token="eve")
        await call("PUT", HERE, json={"state": {}}, token="next")

        call.house.access.registry.revoke_token("eve")
        call.house.access.review()

        assert len(await present(call)) == 1


async def test_presence_ends_with_its_room() -> None:
    async with open_api() as call:
        await call.create()
        await call("PUT", HERE, json={"state": {}})

        await call("DELETE", "/v1/rooms/r")

        answer = await call("PUT", HERE, json={"state": {}})
        assert answer.status_code == 404
        await call("POST", "/v1/rooms/r/restore")
        assert await present(call) == []


async def test_a_state_that_is_too_large_leaves_nobody_there() -> None:
    async with open_api() as call:
        answer = await call("PUT", HERE, json={"state": {"x": "y" * 5000}})

        assert (answer.status_code, answer.json()["code"]) == (400, "refused")
        assert await present(call) == []
        assert call.house.replica.live("r") is None


async def test_presence_in_too_many_rooms_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "MAX_GUESTS_PER_PRINCIPAL", 2)
    async with open_api() as call:
        call.may("other", PRESENCE | READ)
        answers = [
            await call("PUT", f"/v1/rooms/{n}/presence", json={"state": {}})
            for n in range(3)
        ]
        other = await call(
            "PUT", "/v1/rooms/9/presence", json={"state": {}}, token="other"
        )

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert other.status_code == 200
        assert call.house.replica.live("2") is None


async def test_who_may_not_read_a_room_is_not_present_there() -> None:
    async with open_api() as call:
        call.may("eve", PRESENCE)

        answer = await call("PUT", HERE, json={"state": {}}, token="eve")

        assert answer.status_code == 403
        assert call.house.replica.rooms == []


async def test_who_may_only_write_is_not_seen() -> None:
    async with open_api() as call:
        call.may("mute", READ | WRITE)

        answer = await call("PUT", HERE, json={"state": {}}, token="mute")

        assert answer.status_code == 403

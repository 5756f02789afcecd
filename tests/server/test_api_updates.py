"""The log of a room over HTTP: pages, and server-sent events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from calling import Caller, open_api
from processes import Server
from pycrdt import Doc, Text

from collab.auth.permissions import EVERYTHING, HISTORY, READ, WRITE
from collab.server.api import updates

pytestmark = pytest.mark.anyio

HERE = "/v1/rooms/r/updates"
EVENTS = {"accept": "text/event-stream"}


async def write(call: Caller, *words: str) -> None:
    for word in words:
        body = {"splices": [{"root": "text", "index": 0, "insert": word}]}
        answer = await call("PATCH", "/v1/rooms/r/document", json=body)
        assert answer.status_code == 200, answer.text


def text_of(found: list[dict[str, Any]]) -> str:
    doc: Doc[Any] = Doc()
    for each in found:
        doc.apply_update(base64.b64decode(each["update"]))
    return str(doc.get("text", type=Text))


# Pages


async def test_the_log_is_read_page_by_page() -> None:
    async with open_api() as call:
        await write(call, "c", "b", "a")

        first = (await call("GET", f"{HERE}?limit=2")).json()
        second = (await call("GET", f"{HERE}?limit=2&after={first['next']}")).json()

        assert [each["position"] for each in first["updates"]] == [1, 2]
        assert (first["next"], first["position"]) == (2, 3)
        assert [each["position"] for each in second["updates"]] == [3]
        assert second["next"] is None
        assert {each["principal"] for each in first["updates"]} == {"root"}
        assert text_of(first["updates"] + second["updates"]) == "abc"


async def test_every_row_tells_what_is_known_of_its_author() -> None:
    async with open_api() as call:
        call.may("bot", EVERYTHING, kind="agent", name="Bot", on_behalf_of="ada")
        edit = {"splices": [{"root": "text", "index": 0, "insert": "a"}]}

        await call("PATCH", "/v1/rooms/r/document", json=edit, token="bot")

        [row] = (await call("GET", HERE)).json()["updates"]
        known = {name: value for name, value in row["about"].items() if value}
        assert (row["principal"], row["turn"]) == ("bot", None)
        assert known == {"name": "Bot", "kind": "agent", "on_behalf_of": "ada"}


async def test_an_agent_over_its_budget_is_told_when_to_come_back() -> None:
    async with open_api(agent_characters_per_minute=60) as call:
        call.may("bot", EVERYTHING, kind="agent")
        edit = {"splices": [{"root": "text", "index": 0, "insert": "a" * 100}]}

        first, second, of_a_person = [
            await call("PATCH", "/v1/rooms/r/document", json=edit, token=token)
            for token in ("bot", "bot", "root")
        ]

        assert (first.status_code, second.status_code) == (200, 429)
        assert second.json()["code"] == "rate_limited"
        assert int(second.headers["retry-after"]) > 30
        assert of_a_person.status_code == 200


async def test_a_page_has_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "MAX_PAGE_BYTES", 1)
    monkeypatch.setattr(updates, "PORTION", 1)
    async with open_api() as call:
        await write(call, "b", "a")

        page = (await call("GET", HERE)).json()

        assert len(page["updates"]) == 1
        assert page["next"] == 1


async def test_history_is_a_right_of_its_own() -> None:
    async with open_api() as call:
        call.may("editor", READ | WRITE)
        await write(call, "a")

        page = await call("GET", HERE, token="editor")
        stream = await call("GET", HERE, token="editor", headers=EVENTS)

        assert (page.status_code, stream.status_code) == (403, 403)


async def test_a_room_that_is_none_has_no_log() -> None:
    async with open_api() as call:
        page = await call("GET", HERE)
        stream = await call("GET", HERE, headers=EVENTS)

        assert (page.status_code, stream.status_code) == (404, 404)
        assert call.house.replica.live("r") is None


# Events


class Stream:
    """A reader of one stream in this process, who reads only when told to."""

    def __init__(self, response: updates.EventStream) -> None:
        self._source = response._events

    async def next(self) -> dict[str, Any]:
        """The next event; None of them is waited for longer than 5 s."""
        async with asyncio.timeout(30):
            while True:
                found = parsed((await anext(self._source)).decode())
                if found:
                    return found


def parsed(block: str) -> dict[str, Any]:
    """The fields of an event; none of a comment."""
    found: dict[str, Any] = {}
    for line in block.splitlines():
        name, _, value = line.partition(": ")
        if name in ("event", "id"):
            found[name] = value
        elif name == "data":
            found["data"] = json.loads(value)
    return found


@asynccontextmanager
async def following(
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
    path: str = HERE,
    token: str = "root",
    **headers: str,
) -> AsyncGenerator[Stream, None]:
    """A stream whose events are taken one by one: the client of these tests would read all of it first."""
    caught: asyncio.Future[updates.EventStream] = asyncio.Future()
    done = asyncio.Event()

    async def held(self: updates.EventStream, *about: Any) -> None:
        caught.set_result(self)
        try:
            await done.wait()
        finally:
            await self._events.aclose()
            self._close()

    with monkeypatch.context() as patch:
        patch.setattr(updates.EventStream, "__call__", held)
        asking = asyncio.ensure_future(
            call("GET", path, token=token, headers=EVENTS | headers)
        )
        await asyncio.wait([asking, caught], return_when=asyncio.FIRST_COMPLETED)
        assert caught.done(), asking.result().text
        try:
            yield Stream(caught.result())
        finally:
            asking.cancel()
            await asyncio.wait([asking])


async def test_events_begin_after_a_position_and_go_on_as_updates_are_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "c", "b")
        async with following(call, monkeypatch, f"{HERE}?after=1") as stream:
            second = await stream.next()
            await write(call, "a")
            third = await stream.next()

        assert (second["event"], second["id"], third["id"]) == ("update", "2", "3")
        assert third["data"]["principal"] == "root"
        assert third["data"]["position"] == 3


async def test_by_default_only_what_comes_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "b")
        async with following(call, monkeypatch) as stream:
            await write(call, "a")

            assert (await stream.next())["id"] == "2"


async def test_a_client_that_reconnects_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "c", "b", "a")
        last = {"last-event-id": "2"}
        async with following(call, monkeypatch, f"{HERE}?after=0", **last) as stream:
            assert (await stream.next())["id"] == "3"


async def test_many_updates_are_read_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(updates, "PORTION", 2)
    async with open_api() as call:
        await write(call, *"abcdefg")
        async with following(call, monkeypatch, f"{HERE}?after=0") as stream:
            ids = [(await stream.next())["id"] for _ in range(7)]

        assert ids == list("1234567")


async def test_what_the_log_no_longer_holds_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "c", "b", "a")
        history = call.house.replica.store.history

        async def trimmed(*about: Any, **more: Any) -> Any:
            return [row for row in await history(*about, **more) if row.position > 2]

        monkeypatch.setattr(call.house.replica.store, "history", trimmed)
        async with following(call, monkeypatch, f"{HERE}?after=0") as stream:
            gap, update = await stream.next(), await stream.next()

        assert (gap["event"], gap["data"]) == ("gap", {"after": 0, "before": 3})
        assert update["id"] == "3"


@pytest.mark.parametrize("last", ["x", "-1", "1.0", "", "9" * 30])
async def test_what_is_no_position_is_refused(last: str) -> None:
    async with open_api() as call:
        await write(call, "a")

        answer = await call("GET", HERE, headers=EVENTS | {"last-event-id": last})

        assert answer.status_code == 400


async def test_a_position_that_is_not_there_is_not_yet() -> None:
    async with open_api() as call:
        await write(call, "a")

        answer = await call("GET", f"{HERE}?after=2", headers=EVENTS)

        assert (answer.status_code, answer.json()["code"]) == (425, "not_yet")


async def test_a_stream_ends_with_the_right_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "a")
        call.may("reader", READ | HISTORY)
        async with following(call, monkeypatch, token="reader") as stream:
            registry = call.house.access.registry
            await registry.change(registry.revoke_token, "reader", tenant="")
            end = await stream.next()

        assert (end["event"], end["data"]["code"]) == ("end", "unauthenticated")


async def test_a_stream_ends_when_history_alone_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(updates, "BEAT_SECONDS", 0.01)
    async with open_api() as call:
        await write(call, "a")
        call.may("reader", READ | HISTORY)
        async with following(call, monkeypatch, token="reader") as stream:
            room = call.house.replica.live("r")
            assert room is not None
            (member,) = room.members
            member.operations = READ
            end = await stream.next()

        assert (end["event"], end["data"]["code"]) == ("end", "permission_denied")


async def test_a_stream_ends_when_its_room_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:
        await write(call, "a")
        async with following(call, monkeypatch) as stream:
            await call("DELETE", "/v1/rooms/r")
            end = await stream.next()

        assert (end["event"], end["data"]["code"]) == ("end", "room_not_found")


async def test_a_quiet_stream_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(updates, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(updates, "ALIVE_SECONDS", 0.01)
    async with open_api() as call:
        await write(call, "a")
        async with following(call, monkeypatch) as stream:
            async with asyncio.timeout(30):
                blocks = [await anext(stream._source) for _ in range(3)]

        assert blocks == [b"retry: 2000\n\n", b": here\n\n", b": here\n\n"]


async def test_too_many_streams_are_refused_and_a_closed_one_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api(max_streams_per_principal=1) as call:
        await write(call, "a")
        async with following(call, monkeypatch):
            refused = await call("GET", HERE, headers=EVENTS)
        async with following(call, monkeypatch) as stream:
            await write(call, "b")
            assert (await stream.next())["id"] == "2"
        room = call.house.replica.live("r")

        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert room is not None
        assert not room.watchers
        assert not len(room)


async def test_head_of_a_stream_opens_none() -> None:
    async with open_api() as call:
        await write(call, "a")

        answer = await call("HEAD", HERE, headers=EVENTS)

        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert not call.metrics.gauges["streams"]()


# Over TCP


async def test_a_stream_is_read_over_tcp_and_ends_when_the_server_drains(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
        body = {"splices": [{"root": "text", "index": 0, "insert": "é😀"}]}
        await client.patch("/v1/rooms/r/document", json=body)
        found = []
        async with client.stream("GET", f"{HERE}?after=0", headers=EVENTS) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            block = ""
            async for line in lines:
                block += line + "\n"
                if line:
                    continue
                event, block = parsed(block), ""
                if event:
                    found.append(event)
                if event.get("id") == "1":
                    draining = asyncio.create_task(asyncio.to_thread(server.terminate))
            code = await draining

    assert text_of([found[0]["data"]]) == "é😀"
    assert (found[-1]["event"], found[-1]["data"]["code"]) == ("end", "draining")
    assert code == 0


async def test_the_log_is_for_who_may_read_the_document() -> None:
    async with open_api() as call:
        await call.create()
        call.may("eve", HISTORY)

        page = await call("GET", "/v1/rooms/r/updates", token="eve")

        assert page.status_code == 403

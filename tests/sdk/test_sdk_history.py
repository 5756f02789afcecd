"""What the server says of a document's past becomes typed values; what it does not say is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from answering import Answering, answer, answering

from collab.sdk.errors import Refused
from collab.sdk.history import (
    Author,
    History,
    ItemsChange,
    KeyChange,
    Span,
    TextChange,
)
from collab.sdk.requests import Requests

WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
MILLISECONDS = 1_767_323_040_000
ADA = {"principal": "ada", "name": "Ada", "kind": "human", "later": "than us"}
BOT = {"principal": "bot", "kind": "agent", "on_behalf_of": "ada", "turn": "t1"}


@asynccontextmanager
async def history(*answers: bytes) -> AsyncIterator[tuple[History, Answering]]:
    async with (
        answering(*answers) as server,
        Requests(server.address) as requests,
    ):
        yield History(requests, "a/b"), server


@pytest.mark.anyio
async def test_blame_names_each_author() -> None:
    spans = [
        {"start": 0, "end": 5, "author": 0, "time": MILLISECONDS},
        {"start": 5, "end": 9, "author": 1, "time": MILLISECONDS},
    ]
    said = {"epoch": "e", "position": 4, "authors": [ADA, BOT], "spans": spans}
    async with history(answer(200, said)) as (room, server):
        found = await room.blame("text", 0, 9)

    ada, bot = found.spans
    assert ada == Span(0, 5, Author("ada", "Ada", "human"), WHEN)
    assert (bot.author.turn, bot.author.on_behalf_of) == ("t1", "ada")
    assert found.at(5) is bot
    assert found.at(9) is None
    assert server.asked[0].line.startswith(
        "GET /v1/rooms/a%2Fb/blame?root=text&start=0&end=9 "
    )


@pytest.mark.anyio
async def test_blame_of_what_is_inside_of_a_root_says_where_in_it() -> None:
    spans = [
        {"start": 0, "end": 2, "author": 0, "time": MILLISECONDS, "path": "/0/0"},
        {"start": 2, "end": 3, "author": 0, "time": MILLISECONDS, "path": "/1"},
    ]
    more = {"root": "page", "path": "", "kind": "xml"}
    said = {"epoch": "e", "position": 4, "authors": [ADA], "spans": spans, **more}
    async with history(answer(200, said)) as (room, server):
        found = await room.blame("page", path="", at=4)

    assert [span.path for span in found.spans] == ["/0/0", "/1"]
    assert (found.root, found.path, found.kind) == ("page", "", "xml")
    assert server.asked[0].line.startswith(
        "GET /v1/rooms/a%2Fb/blame?root=page&path=&at=4 "
    )


@pytest.mark.anyio
async def test_a_changeset_has_a_type_for_each_kind_of_change() -> None:
    at = {"root": "page", "path": "/a", "author": 0, "time": MILLISECONDS}
    place = {**at, "start": 2, "position": 7}
    changes = [
        {"kind": "text", "old": "x", "new": "y", **place},
        {"kind": "items", "old": [], "new": [1, {"tag": "p"}], **place},
        {"kind": "key", "key": "k", "old": [None], "new": [], **place},
    ]
    said = {"epoch": "e", "from": 1, "to": 7, "authors": [ADA], "changes": changes}
    async with history(answer(200, said)) as (room, _):
        found = await room.changeset(1, path="/a", root="page")

    ada = Author("ada", "Ada", "human")
    assert found.changes == (
        TextChange("page", 2, "x", "y", ada, WHEN, 7, "/a"),
        ItemsChange("page", 2, (), (1, {"tag": "p"}), ada, WHEN, 7, "/a"),
        KeyChange("page", "k", (None,), (), ada, WHEN, 7, "/a"),
    )


@pytest.mark.anyio
async def test_the_document_of_then_comes_with_its_position() -> None:
    async with history(answer(200, "héllo".encode(), etag='"e-p-12"')) as (
        room,
        server,
    ):
        by_place = await room.at(12)
        by_time = await room.at(WHEN)

    assert (by_place.epoch, by_place.position) == ("e-p", 12)
    assert by_place.content == by_time.content == "héllo"
    assert server.asked[0].line.startswith("GET /v1/rooms/a%2Fb/document?")
    assert "at=12" in server.asked[0].line
    assert f"at_time={MILLISECONDS}" in server.asked[1].line


@pytest.mark.anyio
async def test_undo_says_whether_anything_was_left_to_take_back() -> None:
    first = {"epoch": "e", "position": 5, "turn": "u1", "changed": True}
    again = {"epoch": "e", "position": 5, "turn": "", "changed": False}
    async with history(answer(200, first), answer(200, again)) as (room, server):
        done = await room.undo("t1", "bot")
        twice = await room.undo("t1", "bot")

    assert (done.is_changed, done.turn, done.position) == (True, "u1", 5)
    assert not twice.is_changed
    assert server.asked[0].line == "POST /v1/rooms/a%2Fb/turns/t1/undo HTTP/1.1"


@pytest.mark.anyio
async def test_undo_by_says_whom_and_when() -> None:
    said = {"epoch": "e", "position": 5, "turn": "u1", "changed": True}
    async with history(answer(200, said)) as (room, server):
        await room.undo_by("bot", WHEN)

    assert orjson.loads(server.asked[0].body) == {
        "principal": "bot",
        "reason": "",
        "from_time": MILLISECONDS,
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        None,
        "text",
        {"epoch": "e", "position": 1, "authors": [], "spans": [{"author": 0}]},
        {"epoch": "e", "position": 1, "authors": [], "spans": 5},
        {
            "epoch": "e",
            "position": 1,
            "authors": [ADA],
            "spans": [{"start": 0, "end": 1, "author": 7, "time": 0}],
        },
        {
            "epoch": "e",
            "position": 1,
            "authors": [ADA],
            "spans": [{"start": 0, "end": 1, "author": 0, "time": 1e30}],
        },
    ],
)
async def test_an_answer_that_is_none_is_refused(said: Any) -> None:
    async with history(answer(200, said)) as (room, _):
        with pytest.raises(Refused):
            await room.blame()


@pytest.mark.anyio
async def test_a_document_without_a_position_is_refused() -> None:
    async with history(answer(200, b"text")) as (room, _):
        with pytest.raises(Refused):
            await room.at(3)

"""The past of a room, asked of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from faults.proxy import Proxy
from members import SECONDS, reads, text, until
from processes import Server

from collab.sdk.errors import Conflict, Invalid, NotFound
from collab.sdk.history import History
from collab.sdk.provider import Provider
from collab.sdk.requests import Requests

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def member(server: Server, room: str, name: str) -> AsyncIterator[Provider]:
    state = {"user": {"name": name, "kind": "agent"}}
    async with Provider(server.url, room, state=state) as provider:
        await provider.synced(SECONDS)
        yield provider


@asynccontextmanager
async def turned(server: Server, room: str) -> AsyncIterator[tuple[Provider, History]]:
    """Somebody typed something, an agent took the turn `t1`, and somebody typed into what it wrote."""
    async with (
        member(server, room, "Ada") as ada,
        member(server, room, "Bot") as bot,
    ):
        text(ada.doc).insert(0, "Hello.\n")
        await reads(bot, "Hello.\n")
        bot.turn("t1", {"reason": "to help", "task": "greet", "model": "rules"})
        text(bot.doc).insert(7, "Good day to you.\n")
        await bot.flush(timeout=SECONDS)
        bot.turn("")
        await reads(ada, "Hello.\nGood day to you.\n")
        text(ada.doc).insert(11, " old")
        await ada.flush(timeout=SECONDS)
        await reads(bot, "Hello.\nGood old day to you.\n")
        yield ada, History(ada.requests, room)


async def test_each_character_leads_to_its_turn(house: Server, room: str) -> None:
    async with turned(house, room) as (_, history):
        found = await history.blame()

    span = found.at(8)
    assert span is not None
    assert (span.author.turn, span.author.reason) == ("t1", "to help")
    assert (span.author.task, span.author.model) == ("greet", "rules")
    other = found.at(0)
    assert other is not None
    assert other.author.turn == ""
    assert abs(span.when - datetime.now(UTC)) < timedelta(minutes=10)


async def test_a_turn_is_taken_back_and_brought_back(house: Server, room: str) -> None:
    async with turned(house, room) as (ada, history):
        undone = await history.undo("t1", reason="no")
        await reads(ada, "Hello.\n old")
        again = await history.undo("t1")
        record = await history.turn("t1")
        redone = await history.redo("t1")
        await reads(ada, "Hello.\nGood old day to you.\n")

    assert undone.is_changed
    assert not again.is_changed
    assert record.undone_by == undone.turn
    assert redone.is_changed


async def test_what_happened_between_two_positions(house: Server, room: str) -> None:
    async with turned(house, room) as (_, history):
        _, position = await history.position()
        whole = await history.changeset(0)
        last = await history.changeset(position - 1)
        before = await history.at(position - 1)

    assert (
        "".join(each.new for each in whole.changes) == "Hello.\nGood old day to you.\n"
    )
    assert [(each.old, each.new, each.start) for each in last.changes] == [
        ("", " old", 11)
    ]
    assert (before.position, before.content) == (
        position - 1,
        "Hello.\nGood day to you.\n",
    )


async def test_the_document_of_a_time(house: Server, room: str) -> None:
    async with turned(house, room) as (_, history):
        now = await history.at(datetime.now(UTC), format="json")

    assert now.content == {"text": "Hello.\nGood old day to you.\n"}


async def test_activity_names_the_turns(house: Server, room: str) -> None:
    async with turned(house, room) as (_, history):
        found = await history.activity()

    (turn,) = [entry for entry in found.entries if entry.author.turn]
    assert (turn.author.turn, turn.undone_by, turn.inserted) == ("t1", "", 17)
    assert found.next is None


async def test_a_place_that_the_log_does_not_have_is_an_error_of_its_own(
    house: Server, room: str
) -> None:
    async with turned(house, room) as (_, history):
        _, end = await history.position()
        beyond = [
            history.at(end + 1),
            history.blame(at=end + 1),
            history.changeset(0, end + 1),
        ]
        for each in beyond:
            with pytest.raises(NotFound):
                await each
        for each in (history.blame(start=5, end=1), history.changeset(2, 1)):
            with pytest.raises(Conflict):
                await each
        for each in (history.blame(start=-1), history.changeset(-1), history.at(-1)):
            with pytest.raises(Invalid):
                await each


async def test_a_turn_that_nobody_took_is_not_found(house: Server, room: str) -> None:
    async with turned(house, room) as (_, history):
        with pytest.raises(NotFound):
            await history.undo("t2")
        with pytest.raises(NotFound):
            await history.cancel("t2")


async def test_an_undo_whose_answer_was_lost_happens_once(
    house: Server, room: str
) -> None:
    async with (
        turned(house, room) as (ada, history),
        Proxy("127.0.0.1", house.port) as proxy,
        Requests(f"http://127.0.0.1:{proxy.port}") as requests,
    ):
        proxy.cut_after(b"/undo")
        undoing = asyncio.ensure_future(History(requests, room).undo("t1"))
        await until(lambda: proxy.cut > 0)
        proxy.heal()
        undone = await undoing
        await reads(ada, "Hello.\n old")
        found = await history.activity()

        assert undone.is_changed
        assert proxy.accepted > 1
        assert [each.author.undoes for each in found.entries].count("t1") == 1

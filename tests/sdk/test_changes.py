"""Changes as an observer is told of them, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from alone import Alone
from faults.proxy import Proxy
from members import SECONDS, reads, text, until, waits
from processes import Server
from pycrdt import Doc

import collab
from collab.document.anchor import Place
from collab.document.order import Order
from collab.sdk.changes import Change, Changes, Cursor, wait_for
from collab.sdk.connection import base_url
from collab.sdk.errors import AnotherHistory, Invalid, Refused
from collab.sdk.history import History
from collab.sdk.provider import Phase, Provider, Replaced, State
from collab.sdk.requests import Requests

# Long enough that what a test does at once is one burst on a slow machine; a test waits for it once or twice.
DEBOUNCE = 0.15

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def member(url: str, room: str, name: str = "") -> AsyncIterator[Provider]:
    async with Provider(url, room, name=name, chance=lambda: 0.02) as provider:
        await provider.synced(SECONDS)
        yield provider


@asynccontextmanager
async def watching(
    server: Server, provider: Provider, **options: object
) -> AsyncIterator[Changes]:
    def order() -> Order:
        return Order.of(provider.doc.get_update())

    async with Requests(base_url(server.url)) as requests:
        history = History(requests, provider.room)
        options = {"debounce": DEBOUNCE, "max_wait": SECONDS, **options}
        changes = Changes(provider, history, "text", order, **options)
        yield changes
        await changes.aclose()


async def waiting_for(changes: Changes) -> asyncio.Future[Change]:
    """The next change, once it is known where the log ends."""
    waiting = asyncio.ensure_future(anext(changes))
    await until(lambda: changes._position is not None)
    return waiting


async def test_a_burst_of_somebody_is_one_change(house: Server, room: str) -> None:
    async with (
        member(house.url, room, "Ada") as ada,
        member(house.url, room) as agent,
        watching(house, agent) as changes,
    ):
        for number, letter in enumerate("# Plan\n\nBuy milk.\n"):
            text(ada.doc).insert(number, letter)
            await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            change = await anext(changes)

        (edit,) = change.edits
        assert (edit.old, edit.new) == ("", "# Plan\n\nBuy milk.\n")
        assert [author.name for author in change.authors] == ["Ada"]


async def test_a_change_says_in_which_section_it_is_and_where(
    house: Server, room: str
) -> None:
    async with (
        member(house.url, room) as ada,
        member(house.url, room) as agent,
    ):
        text(ada.doc).insert(0, "# A\n\nfirst\n\n## B\n\nGrüße 😀 old end\n")
        await reads(agent, str(text(ada.doc)))
        async with watching(house, agent) as changes:
            start = len("# A\n\nfirst\n\n## B\n\nGrüße 😀 ".encode())
            del text(ada.doc)[start : start + 3]
            text(ada.doc).insert(start, "new")
            async with asyncio.timeout(SECONDS):
                change = await anext(changes)

        assert change.section == ("A", "B")
        assert (change.old, change.new) == ("old", "new")
        order = Order.of(agent.doc.get_update())
        index = str(text(agent.doc)).index("new")
        assert order.resolve(change.start) == Place("text", index)
        assert order.resolve(change.end) == Place("text", index + 3)


async def test_own_edits_wake_nobody(house: Server, room: str) -> None:
    async with (
        member(house.url, room) as ada,
        member(house.url, room) as agent,
        watching(house, agent) as changes,
    ):
        text(agent.doc).insert(0, "mine\n")
        await agent.flush(timeout=SECONDS)
        await reads(ada, "mine\n")
        text(ada.doc).insert(5, "theirs")

        async with asyncio.timeout(SECONDS):
            change = await anext(changes)

        assert [(edit.old, edit.new) for edit in change.edits] == [("", "theirs")]


async def test_own_edits_are_told_to_who_asks_for_them(
    house: Server, room: str
) -> None:
    async with (
        member(house.url, room) as agent,
        watching(house, agent, ignore_self=False) as changes,
    ):
        text(agent.doc).insert(0, "mine")

        async with asyncio.timeout(SECONDS):
            change = await anext(changes)

        assert change.new == "mine"


async def test_a_wait_that_was_given_up_loses_nothing(house: Server, room: str) -> None:
    async with (
        member(house.url, room) as ada,
        member(house.url, room) as agent,
        watching(house, agent) as changes,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(changes)
        text(ada.doc).insert(0, "one")
        await reads(agent, "one")
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        waiting.cancel()
        text(ada.doc).insert(3, " two")
        await reads(agent, "one two")

        async with asyncio.timeout(SECONDS):
            change = await anext(changes)

        assert change.new == "one two"


async def test_a_burst_without_an_end_is_told_when_it_has_lasted_long_enough(
    house: Server, room: str
) -> None:
    async def type_on(ada: Provider) -> None:
        while True:
            text(ada.doc).insert(0, "x")
            await asyncio.sleep(0.01)

    async with (
        member(house.url, room) as ada,
        member(house.url, room) as agent,
        watching(house, agent, debounce=SECONDS, max_wait=0.1) as changes,
    ):
        typing = asyncio.ensure_future(type_on(ada))
        async with asyncio.timeout(SECONDS):
            first, second = await anext(changes), await anext(changes)
        typing.cancel()

        assert set(first.new) == {"x"}
        assert len(second.new) > len(first.new)


async def test_who_is_slow_gets_all_of_it_at_once(house: Server, room: str) -> None:
    async with (
        member(house.url, room) as ada,
        member(house.url, room) as agent,
        watching(house, agent, debounce=0) as changes,
    ):
        for word in ("one\n", "two\n", "three\n"):
            text(ada.doc).insert(0, word)
            await reads(agent, str(text(ada.doc)))

        async with asyncio.timeout(SECONDS):
            change = await anext(changes)

        assert change.new == "three\ntwo\none\n"


async def test_who_is_not_here_is_named_by_the_server(house: Server, room: str) -> None:
    async with member(house.url, room) as agent, watching(house, agent) as changes:
        waiting = await waiting_for(changes)
        splices = [{"root": "text", "index": 0, "insert": "by request"}]
        async with httpx2.AsyncClient(base_url=house.url) as client:
            answer = await client.patch(
                f"/v1/rooms/{room}/document", json={"splices": splices}
            )
        assert answer.status_code == 200

        async with asyncio.timeout(SECONDS):
            change = await waiting

        assert change.new == "by request"
        assert [author.principal for author in change.authors] == ["anonymous"]


async def test_who_only_deleted_is_named_by_the_server(
    house: Server, room: str
) -> None:
    async with (
        member(house.url, room, "Ada") as ada,
        member(house.url, room) as agent,
    ):
        text(ada.doc).insert(0, "one two three")
        await ada.flush(timeout=SECONDS)
        await reads(agent, "one two three")
        async with watching(house, agent) as changes:
            waiting = await waiting_for(changes)
            del text(ada.doc)[3:7]
            async with asyncio.timeout(SECONDS):
                change = await waiting

        assert (change.old, change.new) == (" two", "")
        assert [author.principal for author in change.authors] == ["anonymous"]


async def test_a_document_that_was_replaced_is_told_by_what_differs() -> None:
    provider = Alone()
    text(provider.doc).insert(0, "kept\nrefused\n")
    async with Requests("http://127.0.0.1:1") as requests:
        changes = Changes(provider, History(requests, "room"), "text", Order)
        provider.doc = Doc()
        provider.tell(Replaced(provider.doc, Refused("no")))
        text(provider.doc).insert(0, "kept\n")
        provider.tell(State(Phase.CONNECTING))
        is_told_early = not changes._view.burst.is_empty
        provider.tell(State(Phase.SYNCED))
        text(provider.doc).insert(5, "mine\n")

        found = changes._view.burst.take()
        await changes.aclose()

    assert not is_told_early
    assert [(one.old, one.new) for one in found] == [("refused\n", "")]


async def test_nothing_is_observed_once_it_is_closed(house: Server, room: str) -> None:
    async with member(house.url, room) as agent:
        async with watching(house, agent) as changes:
            await changes.aclose()
            text(agent.doc).insert(0, "x")

            with pytest.raises(StopAsyncIteration):
                await anext(changes)


async def test_leaving_the_room_ends_it(house: Server, room: str) -> None:
    async with Requests(base_url(house.url)) as requests:
        async with member(house.url, room) as agent:
            changes = Changes(agent, History(requests, room), "text", Order)
            waiting = asyncio.ensure_future(anext(changes, None))
            await asyncio.sleep(0)

        async with asyncio.timeout(SECONDS):
            assert await waiting is None


async def test_nothing_is_missed_over_a_reconnect(house: Server, room: str) -> None:
    async with (
        Proxy("127.0.0.1", house.port) as proxy,
        member(house.url, room) as ada,
        member(f"http://127.0.0.1:{proxy.port}", room) as agent,
        watching(house, agent) as changes,
    ):
        text(ada.doc).insert(0, "before\n")
        async with asyncio.timeout(SECONDS):
            first = await anext(changes)
            proxy.reset()
            await waits(agent)
            text(ada.doc).insert(7, "while it was away")
            second = await anext(changes)

        assert first.new == "before\n"
        assert second.new == "while it was away"


async def test_a_cursor_of_nothing_new_waits_for_something_new(
    house: Server, room: str
) -> None:
    async with member(house.url, room) as ada:
        async with (
            member(house.url, room) as agent,
            watching(house, agent) as changes,
        ):
            text(ada.doc).insert(0, "told")
            async with asyncio.timeout(SECONDS):
                cursor = (await anext(changes)).cursor

        async with (
            member(house.url, room) as agent,
            watching(house, agent, after=cursor) as changes,
        ):
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            text(ada.doc).insert(4, " and new")
            async with asyncio.timeout(SECONDS):
                change = await waiting

    assert [(edit.old, edit.new) for edit in change.edits] == [("", " and new")]


async def test_without_the_log_a_cursor_still_tells_what_was_inserted(
    house: Server, room: str
) -> None:
    async with member(house.url, room) as ada:
        text(ada.doc).insert(0, "known 😀 ")
        await ada.flush(timeout=SECONDS)
        told = str(text(ada.doc))
        vector = ada.doc.get_state()
        text(ada.doc).insert(0, "new 🙂 ")
        await ada.flush(timeout=SECONDS)
        async with member(house.url, room) as agent:
            cursor = Cursor(agent.epoch, 1 << 30, 1 << 30, 0, vector).encode()
            async with watching(house, agent, after=cursor) as changes:
                async with asyncio.timeout(SECONDS):
                    change = await anext(changes)

    assert told == "known 😀 "
    assert [(edit.old, edit.new) for edit in change.edits] == [("", "new 🙂 ")]


async def test_when_the_log_was_ahead_of_what_was_told_an_earlier_text_is_compared(
    house: Server, room: str
) -> None:
    async with member(house.url, room) as ada:
        for number in range(5):
            text(ada.doc).insert(2 * number, f"{number} ")
            await ada.flush(timeout=SECONDS)
            if number == 1:
                vector = ada.doc.get_state()
        async with member(house.url, room) as agent:
            cursor = Cursor("", 5, 4, 0, vector).encode()
            async with watching(house, agent, after=cursor) as changes:
                async with asyncio.timeout(SECONDS):
                    change = await anext(changes)

    assert [(edit.old, edit.new) for edit in change.edits] == [("", "2 3 4 ")]


async def test_only_texts_are_told_of(house: Server, room: str) -> None:
    async with collab.connect(house.url) as agent:
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.set("/board", {"a": 1})

        with pytest.raises(Invalid):
            doc.changes(root="board")


async def test_a_cursor_of_another_history_is_told_to_be_one(
    house: Server, room: str
) -> None:
    async with member(house.url, room) as agent:
        cursor = Cursor("another", 1, 1, 0, b"\x00").encode()
        async with watching(house, agent, after=cursor) as changes:
            with pytest.raises(AnotherHistory):
                await anext(changes)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "é",
        "AAAA",
        "a" * 100_000,
        "eJwDAAAAAAE=",
        "eJyLVjJU0lEyAGIjIDYGYhOlWAAmVQPk",
    ],
)
async def test_what_is_no_cursor_is_refused(written: str) -> None:
    with pytest.raises(Invalid):
        Cursor.decode(written)


async def test_a_cursor_comes_back_as_it_was() -> None:
    cursor = Cursor("epoch", 5, 3, (1 << 63) + 1, b"\x01\x05\x07")

    assert Cursor.decode(cursor.encode()) == cursor


async def test_waiting_for_something_that_is_so_already_takes_no_time(
    house: Server, room: str
) -> None:
    async with member(house.url, room) as agent:
        await wait_for(agent, lambda: True, 0)


async def test_waiting_for_what_does_not_come_ends(house: Server, room: str) -> None:
    async with member(house.url, room) as agent:
        with pytest.raises(TimeoutError):
            await wait_for(agent, lambda: False, 0.01)

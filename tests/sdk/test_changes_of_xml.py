"""Changes in the documents of rich editors, as an observer is told of them, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from members import SECONDS, until
from processes import Server
from pycrdt import XmlFragment
from tiptap import NAME, bullets, heading, node, paragraph

import collab
from collab.document.anchor import Place
from collab.sdk.changes import Cursor
from collab.sdk.provider import Provider

pytestmark = pytest.mark.anyio

Connect = Callable[..., Any]


@asynccontextmanager
async def ada(house: Server, room: str, *nodes: Any) -> AsyncIterator[Provider]:
    """A person in a room, who has written these."""
    async with Provider(house.url, room, name="Ada") as provider:
        await provider.synced(SECONDS)
        for each in nodes:
            tree(provider).children.append(each)
        await provider.flush(timeout=SECONDS)
        yield provider


def tree(person: Provider) -> Any:
    return person.doc.get(NAME, type=XmlFragment)


async def first(changes: Any) -> Any:
    """The next change; whoever is tried, and for a bounded time."""
    async with asyncio.timeout(SECONDS):
        return await anext(aiter(changes))


def told(change: Any) -> list[tuple[str, str]]:
    return [(edit.old, edit.new) for edit in change.edits]


def letter() -> list[Any]:
    return [
        heading(1, "Letter"),
        heading(2, "Greeting"),
        paragraph("Dear all."),
        bullets("one", "two"),
        heading(2, "End"),
        paragraph("Yours"),
    ]


async def test_blocks_that_others_have_changed_are_told_and_own_ones_are_not(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, *letter()) as person, connect(house.url) as agent:
        doc = await agent.open(room, editor="tiptap")
        changes = doc.changes(debounce=0.1)
        async with doc.turn() as turn:
            await turn.replace("Yours", "Love")
            await turn.insert("end", "\nA.")
        text = tree(person).children[2].children[0]
        text.insert(5, "to ")
        text.format(0, 4, {"bold": {}})

        change = await first(changes)
        await changes.aclose()

        assert change.section == ("Letter", "Greeting")
        assert told(change) == [("Dear all.", "**Dear** to all.")]
        assert [author.name for author in change.authors] == ["Ada"]
        start = doc.text.index("Dear")
        assert change.edits[0].index == start
        assert doc.resolve(change.start) == Place(NAME, start)
        assert doc.resolve(change.end) == Place(NAME, start + len("Dear to all."))


async def test_what_others_make_of_an_empty_document_is_told(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url) as agent:
        doc = await agent.open(room, editor="tiptap")
        changes = doc.changes(debounce=0.1)
        tree(person).children.append(heading(2, "Plan"))
        tree(person).children.append(bullets("a", "b"))

        change = await first(changes)
        await changes.aclose()

        assert told(change) == [("", "## Plan"), ("", "- a"), ("", "- b")]
        assert [edit.section for edit in change.edits] == [("Plan",)] * 3


async def test_changes_of_xml_go_on_from_a_cursor(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, *letter()) as person:
        async with connect(house.url) as agent:
            doc = await agent.open(room)
            changes = doc.changes(debounce=0.1)
            tree(person).children[5].children[0].insert(5, ", Ada")
            known = await first(changes)
            await changes.aclose()
        del tree(person).children[4]
        tree(person).children[3].children[1].children.append(bullets("deep"))
        await person.flush(timeout=SECONDS)

        async with connect(house.url) as agent:
            doc = await agent.open(room)
            change = await first(doc.changes(after=known.cursor))

    assert told(known) == [("Yours", "Yours, Ada")]
    assert told(change) == [("## End", ""), ("", "  - deep")]
    gone, come = change.edits
    assert [author.principal for author in gone.authors] == ["anonymous"]
    assert [author.name for author in come.authors] == ["Ada"]


async def test_who_only_took_away_or_ticked_is_named_by_the_server(
    house: Server, room: str, connect: Connect
) -> None:
    task = node("taskList", node("taskItem", paragraph("task"), checked=False))
    async with ada(house, room, *letter(), task) as person:
        async with connect(house.url) as agent:
            doc = await agent.open(room)
            changes = doc.changes(debounce=0.1)
            tree(person).children[2].children[0].insert(0, "1")
            await first(changes)
            del tree(person).children[2].children[0][0:6]
            tree(person).children[6].children[0].attributes["checked"] = True
            del tree(person).children[3].children[0]
            await person.flush(timeout=SECONDS)

            change = await first(changes)
            await changes.aclose()

    assert told(change) == [
        ("1Dear all.", "all."),
        ("- one", ""),
        ("- [ ] task", "- [x] task"),
    ]
    assert [len(edit.authors) for edit in change.edits] == [1, 1, 1]
    assert [author.principal for author in change.authors] == ["anonymous"]


async def test_without_the_log_a_cursor_still_tells_which_blocks_are_new(
    house: Server, room: str
) -> None:
    async with ada(house, room, *letter()) as person:
        vector = person.doc.get_state()
        tree(person).children.append(paragraph("new 🙂"))
        await person.flush(timeout=SECONDS)
        async with collab.connect(house.url) as agent:
            doc = await agent.open(room)
            await until(lambda: "new" in doc.text)
            far = Cursor(person.epoch, 1 << 30, 1 << 30, 0, vector).encode()
            change = await first(doc.changes(after=far, debounce=0.1))

    assert told(change) == [("", "new 🙂")]


async def test_a_tree_that_was_replaced_is_told_by_what_differs(
    house: Server, room: str
) -> None:
    async with ada(house, room, *letter()) as person:
        async with collab.connect(house.url) as agent:
            doc = await agent.open(room)
            changes = doc.changes(debounce=0.1)
            view = changes._view
            view._replaced()
            del tree(person).children[2]

            change = await first(changes)
            await changes.aclose()

    assert told(change) == [("Dear all.", "")]

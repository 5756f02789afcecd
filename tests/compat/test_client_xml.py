"""A stock client in a document of a rich editor, and an agent of the Python client that edits it beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from driving import Driver
from sdk.members import until
from serving import Server
from tiptap import fragment, problems

import collab
from collab.document.markdown import markdown_of_xml
from collab.sdk import Doc

pytestmark = pytest.mark.anyio

KINDS = ["y-websocket-3", "hocuspocus-3"]


async def do(function: Callable[..., object], *given: object, **named: object) -> Any:
    """What waits for Node, beside what the agent does meanwhile."""
    return await asyncio.to_thread(function, *given, **named)


def text(*texts: list[Any]) -> dict[str, Any]:
    return {"texts": texts}


def paragraph(*texts: list[Any]) -> dict[str, Any]:
    return {"tag": "paragraph", "children": [text(*texts)] if texts else []}


def item(said: str) -> dict[str, Any]:
    return {"tag": "listItem", "children": [paragraph([said])]}


def heading(said: str) -> dict[str, Any]:
    return {"tag": "heading", "attributes": {"level": 2}, "children": [text([said])]}


PAGE = [
    heading("Plan"),
    paragraph(["Some "], ["bold 😀", {"bold": {}}], [" words of ours."]),
    {"tag": "bulletList", "children": [item("one"), item("two")]},
    heading("End"),
    paragraph(),
]


def xml(doc: Doc) -> str:
    return str(fragment(doc.raw))


def said(doc: Doc) -> str:
    assert problems(doc.raw) == []
    return markdown_of_xml(fragment(doc.raw))


async def same(clients: Driver, doc: Doc, name: str) -> None:
    """Both have all that the other has written. Yjs and yrs write attributes in orders of their own, and tags in small
    letters or not: their text is compared.
    """
    await doc.provider.flush()
    await do(clients.wait, name, "saved")
    shown = (await do(clients.do, "state", name=name))["xml"]
    await until(lambda: plain(xml(doc)) == plain(shown))


def plain(shown: str) -> str:
    return shown.lower().replace('level="2.0"', 'level="2"')


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_edits_what_a_stock_client_has_made_and_all_of_it_is_taken_back(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "said.\n\nMore *of* it.\n\n"
        yield "- a list"

    await do(clients.open, "ada", kind, house.url, room)
    await do(clients.wait, "ada", "synced")
    await do(clients.edit, "ada", {"path": [], "at": 0, "nodes": PAGE})
    await do(clients.wait, "ada", "saved")
    async with collab.connect(house.url, name="Bot") as agent:
        doc = await agent.open(room)
        before = said(doc)

        async with doc.turn(reason="to help") as turn:
            await turn.replace("words of ours", "of our words")
            await turn.insert(doc.find("two")[0], "\nthree")
            await turn.section("Plan").append("1. first `code`\n2. second")
            await turn.delete(doc.find("one\n")[0])
            await turn.format(doc.find("our")[0], italic=True)
            await turn.stream(doc.find("End")[0], pieces())
        await do(clients.edit, "ada", {"path": [1, 0], "at": 5, "insert": "[typed] "})
        await do(clients.wait, "ada", "saved")
        await until(lambda: "[typed]" in xml(doc))

        assert said(doc) == (
            "## Plan\n\nSome \\[typed\\] **bold 😀** of *our* words.\n\n- two\n- three\n\n"
            "1. first `code`\n2. second\n\n## Endsaid.\n\nMore *of* it.\n\n- a list"
        )
        await same(clients, doc, "ada")
        blame = await doc.blame(doc.find("first")[0])
        assert {one.author.turn for one in blame.spans} == {turn.id}
        undone = await doc.undo(turn)
        assert undone.is_changed
        await until(lambda: said(doc).replace("\\[typed\\] ", "") == before)
        assert "[typed]" in xml(doc)
        await same(clients, doc, "ada")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_person_types_into_the_paragraph_that_an_agent_edits_is_kept(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    chance = random.Random(7)
    await do(clients.open, "ada", kind, house.url, room)
    await do(clients.wait, "ada", "synced")
    await do(clients.edit, "ada", {"path": [], "at": 0, "nodes": PAGE})
    await do(clients.wait, "ada", "saved")
    async with collab.connect(house.url, name="Bot") as agent:
        doc = await agent.open(room)

        async def type_on() -> None:
            for number in range(40):
                step = {
                    "path": [1, 0],
                    "at": chance.randint(0, 9),
                    "insert": f"<{number}>",
                }
                await do(clients.edit, "ada", step)

        typing = asyncio.ensure_future(type_on())
        async with doc.turn() as turn:
            number = 0
            while not typing.done() or number < 10:
                number += 1
                line = doc.read(path="/1").text
                match number % 3:
                    case 0:
                        end = doc.read(path="/1").at(len(line))
                        await turn.insert(end, f" new{number}")
                    case 1 if "words" in line:
                        await turn.replace("words", "things")
                    case _ if "things" in line:
                        await turn.replace("things", "words")
                await asyncio.sleep(0)
        await typing
        await same(clients, doc, "ada")

        line = doc.read(path="/1").text
        assert problems(doc.raw) == []
        assert line.count("<") == line.count(">") == 40
        assert ("words" in line) is not ("things" in line)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_person_does_in_an_editor_is_told_block_by_block(
    clients: Driver, house: Server, room: str, kind: str
) -> None:
    await do(clients.open, "ada", kind, house.url, room)
    await do(clients.wait, "ada", "synced")
    async with collab.connect(house.url, name="Bot") as agent:
        doc = await agent.open(room, editor="tiptap")
        changes = doc.changes(debounce=0.2)
        await do(clients.edit, "ada", {"path": [], "at": 0, "nodes": PAGE})
        first = await anext(changes)
        async with doc.turn() as turn:
            await turn.insert(doc.find("End")[0], " of it")
        await do(
            clients.edit,
            "ada",
            {"path": [1, 0], "at": 0, "remove": 5},
            {"path": [2], "at": 0, "remove": 1},
            {"path": [2], "at": 1, "nodes": [item("three")]},
        )

        second = await anext(changes)
        await changes.aclose()

        assert [(edit.old, edit.new) for edit in first.edits] == [
            ("", "## Plan"),
            ("", "Some **bold 😀** words of ours."),
            ("", "- one"),
            ("", "- two"),
            ("", "## End"),
        ]
        assert second.section == ("Plan",)
        assert [(edit.old, edit.new) for edit in second.edits] == [
            ("Some **bold 😀** words of ours.", "**bold 😀** words of ours."),
            ("- one", ""),
            ("", "- three"),
        ]

"""Turns and their edits, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from functools import reduce
from typing import Any

import pytest
from alone import Alone, Other, alone
from members import until
from pycrdt import Array, Map, Text, XmlElement, XmlFragment, XmlText
from pycrdt import Doc as Raw

from collab.document.anchor import Anchor, Id, Place, Side
from collab.sdk.doc import Doc
from collab.sdk.edits import EditResult
from collab.sdk.errors import (
    Ambiguous,
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    LeaseLost,
    NotFound,
    RateLimited,
    SdkError,
    StaleVersion,
)
from collab.sdk.provider import Replaced, TurnEnded
from collab.sdk.stream import Limits
from collab.sdk.turn import Turn
from collab.sdk.words import Words

pytestmark = pytest.mark.anyio


def line(doc: Doc) -> Alone:
    """The provider of a document that is alone."""
    assert isinstance(doc.provider, Alone)
    return doc.provider


async def edited(
    doc: Doc, edit: Callable[[Turn], Awaitable[EditResult]], **options: Any
) -> EditResult:
    """One edit in a turn of its own."""
    async with doc.turn(**options) as turn:
        return await edit(turn)


# Places


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("start", "+a😀b"),
        ("end", "a😀b+"),
        (0, "+a😀b"),
        (1, "a+😀b"),
        (2, "a😀+b"),
        (3, "a😀b+"),
    ],
)
async def test_places_are_counted_in_characters(where: Any, expected: str) -> None:
    doc = alone("a😀b")

    await edited(doc, lambda turn: turn.insert(where, "+"))

    assert doc.text == expected


@pytest.mark.parametrize("where", [-1, 4, "middle", None, 1.5])
async def test_a_place_outside_is_none(where: Any) -> None:
    doc = alone("a😀b")

    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.insert(where, "+"))

    assert doc.text == "a😀b"


async def test_an_anchor_stays_at_its_character() -> None:
    doc = alone("one two")
    anchor = doc.anchor(4)
    Other(doc).type(0, "zero ")

    result = await edited(doc, lambda turn: turn.insert(anchor, "+"))

    assert doc.text == "zero one +two"
    assert result.anchor is not None
    assert doc.resolve(result.anchor) == Place("text", 10)


@pytest.mark.parametrize("side", Side)
async def test_an_anchor_to_half_a_character_is_one_to_the_whole(side: Side) -> None:
    doc = alone("a😀b")
    whole = doc.anchor(1)
    assert whole.item is not None
    half = Anchor(Id(whole.item.client, whole.item.clock + 1), "text", side)

    await edited(doc, lambda turn: turn.insert(half, "+"))

    assert doc.text == ("a+😀b" if side is Side.RIGHT else "a😀+b")


async def test_an_anchor_of_another_document_is_not_found() -> None:
    doc = alone("one two")

    with pytest.raises(NotFound):
        await edited(doc, lambda turn: turn.insert(Anchor(Id(7, 7), "text"), "+"))


async def test_a_place_that_others_deleted_is_a_conflict() -> None:
    doc = alone("one two three")
    anchor = doc.anchor(4)
    Other(doc).erase(3, 7)

    with pytest.raises(StaleVersion):
        await edited(doc, lambda turn: turn.insert(anchor, "+"), on_conflict="reject")
    result = await edited(doc, lambda turn: turn.insert(anchor, "+"))

    assert doc.text == "one+ three"
    assert result.conflict


async def test_what_we_deleted_ourselves_is_no_conflict() -> None:
    doc = alone("one two three")
    reading = doc.read()
    async with doc.turn(on_conflict="reject") as turn:
        await turn.delete(reading.find("two ")[0])
        await turn.insert(reading.at(5), "2 ")
        result = await turn.rewrite("one 2 3")

    assert doc.text == "one 2 3"
    assert not result.conflict


# Edits


async def test_half_a_surrogate_pair_is_no_text() -> None:
    doc = alone("a")

    for bad in ("\ud83d", "a\ude00"):
        with pytest.raises(Invalid):
            await edited(doc, lambda turn, bad=bad: turn.insert(0, bad))
        with pytest.raises(Invalid):
            await edited(doc, lambda turn, bad=bad: turn.replace("a", bad))

    assert doc.text == "a"


@pytest.mark.parametrize(
    "edit",
    [
        lambda turn, long: turn.set("/values/long", long),
        lambda turn, long: turn.insert(0, "x", attributes={"link": {"href": long}}),
        lambda turn, long: turn.format((0, 1), link={"href": long}),
    ],
)
async def test_the_values_of_one_edit_have_a_limit(edit: Callable[..., Any]) -> None:
    """A text has none: it goes in parts."""
    doc = alone("a")

    with pytest.raises(Invalid):
        await edited(doc, lambda turn: edit(turn, "x" * (1 << 19)))

    assert doc.text == "a"


async def test_only_what_differs_is_changed() -> None:
    doc = alone("The quick brown fox jumps over the lazy dog.")
    other = Other(doc)
    marks = [doc.anchor(index) for index in (4, 16, 40)]
    before = [doc.resolve(mark).index for mark in marks]

    result = await edited(
        doc, lambda turn: turn.rewrite("The quick red fox jumps over the lazy dog!")
    )

    other.hear()
    assert other.shown == doc.text == "The quick red fox jumps over the lazy dog!"
    assert [doc.resolve(mark).index for mark in marks] == [before[0], 14, 38]
    assert result.applied


async def test_a_replacement_needs_one_place() -> None:
    doc = alone("a b a b a")

    with pytest.raises(NotFound):
        await edited(doc, lambda turn: turn.replace("c", "d"))
    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.replace("", "d"))
    with pytest.raises(Ambiguous) as caught:
        await edited(doc, lambda turn: turn.replace("a", "d"))

    assert [doc.resolve(match.start).index for match in caught.value.candidates] == [
        0,
        4,
        8,
    ]
    assert all(match.snippet == "a b a b a" for match in caught.value.candidates)
    assert doc.text == "a b a b a"


async def test_the_closest_place_is_replaced() -> None:
    doc = alone("a b a b a")

    await edited(doc, lambda turn: turn.replace("a", "d", near=7))
    with pytest.raises(Ambiguous):
        await edited(doc, lambda turn: turn.replace("b", "d", near=4))

    assert doc.text == "a b a b d"


async def test_a_match_is_replaced_where_it_is_by_then() -> None:
    doc = alone("one two three")
    match = doc.find("two")[0]
    Other(doc).type(0, "zero ")

    await edited(doc, lambda turn: turn.replace(match, "2"))

    assert doc.text == "zero one 2 three"


async def test_what_somebody_put_into_what_is_deleted_stays() -> None:
    doc = alone("one two three")
    match = doc.read().find("two")[0]
    Other(doc).type(5, "!mine!")

    result = await edited(doc, lambda turn: turn.delete(match))

    assert doc.text == "one !mine! three"
    assert [(each.kind, each.text) for each in result.conflict] == [
        ("inserted", "!mine!")
    ]


async def test_a_patch_is_applied_whole_or_not_at_all() -> None:
    doc = alone("one\ntwo\nthree\n")

    with pytest.raises(Conflict):
        await edited(doc, lambda turn: turn.patch("@@\n-one\n+1\n@@\n-four\n+4\n"))
    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.patch("hello"))
    assert doc.text == "one\ntwo\nthree\n"
    await edited(doc, lambda turn: turn.patch("@@\n-one\n+1\n@@\n-three\n+3\n"))

    assert doc.text == "1\ntwo\n3\n"


async def test_a_patch_of_what_was_read_is_merged() -> None:
    doc = alone("one\ntwo two\nthree\n")
    doc.read()
    Other(doc).type(4, "zwei ")
    diff = "@@ -1,3 +1,3 @@\n one\n-two two\n+two too\n three\n"

    result = await edited(doc, lambda turn: turn.patch(diff))

    assert doc.text == "one\nzwei two too\nthree\n"
    assert not result.conflict


async def test_a_patch_that_says_too_little_is_ambiguous() -> None:
    doc = alone("a\nb\na\n")

    with pytest.raises(Ambiguous) as caught:
        await edited(doc, lambda turn: turn.patch("@@\n-a\n+c\n"))

    assert [doc.resolve(match.start).index for match in caught.value.candidates] == [
        0,
        4,
    ]


async def test_sections_are_edited_by_their_titles() -> None:
    doc = alone("# One\n\nFirst.\n\n# Two\n\nSecond.\n")
    async with doc.turn() as turn:
        await turn.section("One").replace("1st.")
        await turn.section("Two").append("More.")
        await turn.section("Two").insert_before("# Between")
        await turn.section("One").rename("Uno")
        await turn.section("Between").delete()
        with pytest.raises(NotFound):
            await turn.section("Three").append("x")

    assert doc.text == "# Uno\n\n1st.\n\n# Two\n\nSecond.\n\nMore.\n"


async def test_a_section_that_others_have_added_to_keeps_that() -> None:
    doc = alone("# One\n\nFirst one.\n\n# Two\n")
    doc.read(section="One")
    Other(doc).type(13, "their ")

    result = await edited(doc, lambda turn: turn.section("One").replace("First two."))

    assert doc.text == "# One\n\nFirst their two.\n\n# Two\n"
    assert result.conflict


async def test_what_others_have_replaced_is_found_where_it_was() -> None:
    doc = alone("a quick fox")
    doc.read()
    other = Other(doc)
    other.erase(2, 7)
    other.type(2, "slow")

    with pytest.raises(StaleVersion) as caught:
        await edited(
            doc,
            lambda turn: turn.replace("quick fox", "quick dog"),
            on_conflict="reject",
        )
    await edited(doc, lambda turn: turn.replace("quick fox", "quick dog"))

    assert [each.text for each in caught.value.changed] == ["quick", "slow"]
    assert doc.text == "a slow dog"


async def test_formats_are_set_and_taken_away() -> None:
    doc = alone("a 😀 b")

    await edited(doc, lambda turn: turn.format((2, 3), bold=True, color="red"))
    await edited(doc, lambda turn: turn.format((2, 3), color=None))

    assert doc.raw.get("text", type=Text).diff() == [
        ("a ", None),
        ("😀", {"bold": True}),
        (" b", None),
    ]


async def test_what_is_no_text_is_not_edited_as_one() -> None:
    doc = alone()
    await edited(doc, lambda turn: turn.set("/text/a", 1))

    with pytest.raises(SdkError):
        await edited(doc, lambda turn: turn.insert(0, "x"))


async def test_a_range_ends_behind_its_beginning() -> None:
    doc = alone("one two")

    await edited(doc, lambda turn: turn.delete((3, "end")))
    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.delete((2, 1)))

    assert doc.text == "one"


async def test_an_anchor_in_a_text_inside_of_a_map_is_a_place_to_write() -> None:
    doc = alone()
    other = Other(doc)
    other.raw["m"] = Map({"t": Text("nested")})
    other.say()
    inside = Anchor(None, Id(other.raw.client_id, 0))

    await edited(doc, lambda turn: turn.insert(inside, "x"))

    assert doc.get("/m/t") == "nestedx"


async def test_sections_of_one_title_are_ambiguous() -> None:
    doc = alone("# A\n\nx\n\n# A\n\ny\n")

    with pytest.raises(Ambiguous) as caught:
        await edited(doc, lambda turn: turn.section("A").replace("z"))
    with pytest.raises(Ambiguous):
        doc.read(section="A")

    starts = [doc.resolve(match.start).index for match in caught.value.candidates]
    assert starts == [0, 8]


async def test_a_section_that_was_read_is_edited_when_others_have_changed_another() -> (
    None
):
    doc = alone("# A\n\nx\n\n# B\n\ny\n")
    doc.read(section="A")
    other = Other(doc)
    other.type(len("# A\n\nx\n\n# B\n\n"), "their ")
    other.type(0, "Title\n\n")

    result = await edited(
        doc, lambda turn: turn.section("A").replace("z"), on_conflict="reject"
    )

    assert not result.conflict
    assert doc.text == "Title\n\n# A\n\nz\n\n# B\n\ntheir y\n"


async def test_text_that_others_have_deleted_whole_is_a_conflict() -> None:
    doc = alone("# A\n\nold\n\n# B\n")
    doc.read()
    Other(doc).erase(5, 8)

    result = await edited(doc, lambda turn: turn.section("A").replace("new"))

    assert [(each.kind, each.text) for each in result.conflict] == [("deleted", "old")]
    assert "# A" in doc.text
    assert "new" in doc.text


async def test_a_word_that_others_have_cut_is_a_conflict() -> None:
    doc = alone("some foxes here")
    doc.read()
    Other(doc).erase(8, 10)

    result = await edited(doc, lambda turn: turn.replace("fox", "dog"))

    assert [each.text for each in result.conflict] == ["es"]


async def test_what_was_read_stays_known_over_many_changes() -> None:
    doc = alone("one two three")
    doc.read()
    other = Other(doc)
    for _ in range(1200):
        other.type(0, "x")

    result = await edited(
        doc, lambda turn: turn.replace("two", "2"), on_conflict="reject"
    )

    assert not result.conflict
    assert doc.text == f"{'x' * 1200}one 2 three"


# Maps and lists


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        "x" * 500_000,
        1 << 70,
        {"a": {1: 2}},
        "\ud83d",
        float("nan"),
        datetime(2026, 1, 1),
        reduce(lambda inner, _: (inner,), range(100_000), ()),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_no_value_is_not_set(value: Any) -> None:
    doc = alone()

    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.set("/m/a", value))

    assert doc.get("/m") is None


async def test_values_that_were_read_first_are_remembered() -> None:
    doc = alone()
    other = Other(doc)
    other.raw["m"] = Map({"a": 1})
    other.say()
    doc.get("/m/a")
    other.raw.get("m", type=Map)["a"] = 2
    other.say()

    async with doc.turn(on_conflict="reject") as turn:
        await turn.insert("end", "x")
        with pytest.raises(StaleVersion):
            await turn.set("/m/a", 3)


async def test_values_in_lists_are_held_against_what_was_read() -> None:
    doc = alone()
    await edited(doc, lambda turn: turn.set("/m", {"l": [{"a": 1}, {"a": 2}]}))
    doc.get("/m/l/1")
    doc.get("/m")
    async with doc.turn(on_conflict="reject") as turn:
        await turn.set("/m/l/0/a", 3)
        await turn.json_patch([{"op": "add", "path": "/m/l/0", "value": {"a": 0}}])
        await turn.set("/m/l/1/a", 4)
        removed = await turn.json_patch([{"op": "remove", "path": "/m/l/2"}])
        nothing = await turn.set("/m/l/1/a", 4)

    assert doc.get("/m") == {"l": [{"a": 0}, {"a": 4}]}
    assert removed.applied
    assert not nothing.applied


async def test_a_text_in_a_map_is_changed_where_it_differs() -> None:
    doc = alone()
    other = Other(doc)
    other.raw["m"] = Map({"t": Text("one two three")})
    other.say()
    nested = doc.raw.get("m", type=Map)["t"]
    events: list[Any] = []
    nested.observe(lambda event: events.append(event.delta))

    await edited(doc, lambda turn: turn.set("/m/t", "one 2 three"))

    assert events == [[{"retain": 4}, {"insert": "2"}, {"delete": 3}]]


async def test_values_are_set_by_path() -> None:
    doc = alone()
    async with doc.turn() as turn:
        await turn.set("/board/title", "Plan")
        await turn.set("/board/tasks", [{"name": "a"}])
        await turn.set("/board/tasks/0/name", "b")
        await turn.set("/board/tasks/-", {"name": "c"})

    assert doc.get("/board") == {
        "title": "Plan",
        "tasks": [{"name": "b"}, {"name": "c"}],
    }
    with pytest.raises(NotFound):
        doc.get("/board/none")
    with pytest.raises(Invalid):
        doc.get("board")


async def test_a_json_patch_is_applied_whole_or_not_at_all() -> None:
    doc = alone()
    await edited(doc, lambda turn: turn.set("/m", {"a": 1, "l": [1, 2]}))
    bad = [
        {"op": "add", "path": "/m/b", "value": 2},
        {"op": "test", "path": "/m/a", "value": 2},
    ]

    with pytest.raises(Conflict):
        await edited(doc, lambda turn: turn.json_patch(bad))
    assert doc.get("/m") == {"a": 1, "l": [1, 2]}
    await edited(
        doc,
        lambda turn: turn.json_patch(
            [
                {"op": "test", "path": "/m/a", "value": 1},
                {"op": "move", "from": "/m/a", "path": "/m/b"},
                {"op": "add", "path": "/m/l/0", "value": 0},
                {"op": "remove", "path": "/m/l/2"},
            ]
        ),
    )

    assert doc.get("/m") == {"b": 1, "l": [0, 1]}


@pytest.mark.parametrize(
    "operation",
    [
        {},
        {"op": "add"},
        {"op": "add", "path": "/m"},
        {"op": "sing", "path": "/m"},
        {"op": "remove", "path": 1},
        7,
        {"op": "add", "path": "m", "value": 1},
        {"op": "add", "path": "/m/a", "value": 1e999},
        {"op": "copy", "path": "/m"},
    ],
)
async def test_a_malformed_json_patch_is_refused(operation: Any) -> None:
    with pytest.raises(Invalid):
        await edited(alone(), lambda turn: turn.json_patch([operation]))


async def test_a_value_that_others_changed_since_it_was_read_is_a_conflict() -> None:
    doc = alone()
    await edited(doc, lambda turn: turn.set("/m", {"a": 1, "b": 1}))
    doc.get("/m")
    other = Other(doc)
    other.raw.get("m", type=type(doc.raw["m"]))["a"] = 2
    other.say()

    with pytest.raises(StaleVersion) as caught:
        await edited(doc, lambda turn: turn.set("/m/a", 3), on_conflict="reject")
    unrelated = await edited(
        doc, lambda turn: turn.set("/m/b", 3), on_conflict="reject"
    )
    result = await edited(doc, lambda turn: turn.set("/m/a", 3))
    again = await edited(doc, lambda turn: turn.set("/m/a", 4), on_conflict="reject")

    assert [(each.path, each.was, each.now) for each in caught.value.changed] == [
        ("/m/a", 1, 2)
    ]
    assert len(result.conflict) == 1
    assert unrelated.conflict == again.conflict == ()


# Reading


async def test_a_text_is_read_with_sections_and_a_version() -> None:
    doc = alone("# One\n\nFirst.\n\n## Part\n\n# Two\n")

    reading = doc.read()

    assert [(each.level, each.title) for each in reading.sections] == [
        (1, "One"),
        (2, "Part"),
        (1, "Two"),
    ]
    assert doc.resolve(reading.section("Part").end) == Place("text", 23)
    assert doc.read(section="Part").text == "## Part\n\n"
    assert reading.version == doc.version()
    with pytest.raises(NotFound):
        reading.section("Three")


async def test_places_in_a_section_are_counted_from_its_beginning() -> None:
    doc = alone("# One\n# 😀wo\nhere\n")
    Other(doc)

    reading = doc.read(section="😀wo")

    assert doc.resolve(reading.find("here")[0].start) == Place("text", 12)
    assert doc.resolve(reading.at(len(reading.text), Side.LEFT)) == Place("text", 17)
    with pytest.raises(Invalid):
        reading.at(99)


async def test_what_is_no_text_is_not_read_as_one() -> None:
    doc = alone()
    await edited(doc, lambda turn: turn.set("/board/a", 1))

    with pytest.raises(Invalid):
        doc.read("board")
    assert doc.read().text == ""


async def test_xml_is_read_by_its_text() -> None:
    raw: Raw[Any] = Raw()
    fragment = raw.get("prosemirror", type=XmlFragment)
    heading = fragment.children.append(XmlElement("heading", {"level": 1}))
    heading.children.append(XmlText("Title"))
    fragment.children.append(XmlElement("paragraph")).children.append(XmlText("Said."))
    doc = Doc(Alone(raw))

    assert doc.read().text == "Title\nSaid."
    assert doc.read(format="markdown").text == "# Title\n\nSaid."
    assert doc.read(format="markdown", section="Title").text == "# Title\n\nSaid."
    assert [each.title for each in doc.read().sections] == ["Title"]


async def test_the_only_root_is_the_one_that_is_meant() -> None:
    raw: Raw[Any] = Raw()
    raw["codemirror"] = Text("hello")
    doc = Doc(Alone(raw))

    await edited(doc, lambda turn: turn.insert("end", "!"))

    assert doc.read().text == "hello!"
    raw["other"] = Text("x")
    with pytest.raises(Invalid):
        doc.read()
    assert doc.read("other").text == "x"


async def test_a_rich_text_is_read_as_markdown() -> None:
    doc = alone("a bold word")
    await edited(doc, lambda turn: turn.format((2, 6), bold=True))

    reading = doc.read(format="markdown")

    assert reading.text == "a **bold** word"
    assert doc.read().text == "a bold word"
    with pytest.raises(Invalid):
        reading.at(0)


async def test_places_of_a_text_are_found() -> None:
    doc = alone("a b a b a")

    assert [doc.resolve(match.start).index for match in doc.find("a")] == [0, 4, 8]
    assert [doc.resolve(match.start).index for match in doc.find("a", near="end")] == [
        8,
        4,
        0,
    ]
    assert doc.find("c") == doc.find("") == []


# A turn's life


async def test_a_turn_says_what_it_is_about() -> None:
    doc = alone()

    async with doc.turn(reason="why", task="t1", model="m") as turn:
        await turn.insert("end", "hello")
        await turn.replace("ello", "i")

    assert (turn.inserted, turn.deleted) == (6, 4)
    assert line(doc).turns == [
        (turn.id, {"reason": "why", "task": "t1", "model": "m"}),
        ("", {}),
    ]
    assert line(doc).said[0] == "writing"
    assert line(doc).shown["agent"] == {"status": "idle"}
    anchor = doc.anchor(2, Side.LEFT).to_json()
    assert line(doc).shown["cursor"] == {"anchor": anchor, "head": anchor}


@pytest.mark.parametrize(
    "kind", [Cancelled, LeaseLost, Forbidden, RateLimited, Conflict]
)
async def test_what_ends_a_turn_is_raised_where_it_waits(kind: type[SdkError]) -> None:
    doc = alone()

    async def work() -> None:
        async with doc.turn() as turn:
            await turn.insert("end", "x")
            asyncio.get_running_loop().call_soon(
                line(doc).tell, TurnEnded(turn.id, kind("over"))
            )
            await asyncio.Event().wait()

    with pytest.raises(kind, match="over"):
        await work()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    assert line(doc).turns[-1] == ("", {})


async def test_several_tasks_of_one_turn_are_stopped_together() -> None:
    doc = alone("a|b")

    async def work() -> None:
        async with doc.turn() as turn, asyncio.TaskGroup() as tasks:
            tasks.create_task(turn.stream("start", endless("one ", 0.001)))
            tasks.create_task(turn.stream("end", endless("two ", 0.001)))
            await until(lambda: "one" in doc.text and "two" in doc.text)
            line(doc).tell(TurnEnded(turn.id, Cancelled("stop")))

    with pytest.raises(Cancelled):
        await work()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_document_that_is_replaced_ends_the_turn() -> None:
    doc = alone("old")
    doc.read()
    provider = line(doc)

    async def work() -> None:
        async with doc.turn(rollback=True) as turn:
            await turn.insert("end", "x")
            provider.doc = Raw()
            provider.tell(Replaced(provider.doc, Forbidden("no right")))
            await turn.insert("end", "y")

    with pytest.raises(Forbidden):
        await work()
    await edited(doc, lambda turn: turn.insert("end", "new"))

    assert doc.text == "new"


async def test_whoever_goes_on_in_an_ended_turn_is_told_again() -> None:
    doc = alone()
    raised = 0
    async with doc.turn() as turn:
        line(doc).tell(TurnEnded(turn.id, Cancelled("stop")))
        for _ in range(3):
            try:
                await turn.insert("end", "x")
            except Cancelled:
                raised += 1

    assert raised == 3
    assert doc.text == ""


async def test_a_turn_that_ended_unseen_is_told_at_the_end_of_its_block() -> None:
    doc = alone()

    async def work() -> None:
        async with doc.turn() as turn:
            line(doc).tell(TurnEnded(turn.id, Cancelled("stop")))

    with pytest.raises(Cancelled):
        await work()
    await asyncio.sleep(0)


async def test_the_end_of_another_turn_is_nothing_to_this_one() -> None:
    doc = alone()

    async with doc.turn() as turn:
        line(doc).tell(TurnEnded("another", Cancelled("stop")))
        await turn.insert("end", "x")

    assert doc.text == "x"


async def test_a_program_that_is_cancelled_itself_stays_cancelled() -> None:
    doc = alone()

    async def work() -> None:
        async with doc.turn() as turn:
            await turn.stream("end", endless())

    task = asyncio.create_task(work())
    await until(lambda: bool(doc.text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert line(doc).turns[-1] == ("", {})
    await edited(doc, lambda turn: turn.insert("end", "."))


async def test_an_error_of_the_program_takes_back_what_was_written() -> None:
    doc = alone("one two")

    async def work() -> None:
        async with doc.turn(rollback=True) as turn:
            await turn.replace("one", "1")
            await turn.set("/m/a", 1)
            await turn.insert("end", " three")
            Other(doc).type(2, "their ")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()

    assert doc.text == "one their two"
    assert doc.get("/m") is None  # it holds nothing


async def test_values_of_a_root_that_others_made_are_taken_back_too() -> None:
    doc = alone()
    other = Other(doc)
    other.raw["m"] = Map({"a": 1, "l": Array([1])})
    other.say()

    async def work() -> None:
        async with doc.turn(rollback=True) as turn:
            await turn.json_patch(
                [
                    {"op": "replace", "path": "/m/a", "value": 2},
                    {"op": "add", "path": "/m/l/-", "value": 2},
                    {"op": "add", "path": "/n/-", "value": 3},
                ]
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()

    assert doc.get("/m") == {"a": 1, "l": [1]}
    assert doc.get("/n") is None


async def test_what_a_stopped_turn_wrote_is_taken_back_in_another() -> None:
    doc = alone("one two")

    async def work() -> None:
        async with doc.turn(rollback=True) as turn:
            await turn.replace("one", "1")
            line(doc).tell(TurnEnded(turn.id, Cancelled("stop")))
            await turn.replace("two", "2")

    with pytest.raises(Cancelled):
        await work()

    assert doc.text == "one two"
    assert line(doc).turns[1][1]["reason"] == f"takes back {line(doc).turns[0][0]}"


async def test_edits_outside_of_the_block_are_none() -> None:
    doc = alone()
    turn = doc.turn()

    with pytest.raises(Conflict):
        await turn.insert("end", "x")
    async with turn:
        pass
    with pytest.raises(Conflict):
        await turn.insert("end", "x")


async def test_many_edits_wait_for_the_server() -> None:
    doc = alone()

    async with doc.turn() as turn:
        for _ in range(450):
            await turn.insert("end", "x")
        flushed = line(doc).flushed
        await turn.insert("end", "x" * (1 << 17))

    assert flushed == 2
    assert line(doc).flushed == 4  # and at the end


# Streams


async def endless(piece: str = "on and ", seconds: float = 0.0) -> AsyncIterator[str]:
    while True:
        yield piece
        await asyncio.sleep(seconds)


async def said(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def test_a_stream_is_written_where_its_own_text_ends() -> None:
    doc = alone("before after")
    other = Other(doc)

    async def source() -> AsyncIterator[str]:
        yield "one two " * 20
        await until(lambda: "one" in doc.text)
        other.hear()
        other.type(0, "zero ")
        other.type(other.shown.index("two"), "(1.5) ")
        yield "three"

    result = await edited(doc, lambda turn: turn.stream(7, source()))

    assert doc.text == f"zero before one (1.5) two {'one two ' * 19}threeafter"
    assert result.anchor is not None
    assert doc.resolve(result.anchor).index == len(doc.text) - len("after")


async def test_a_stream_takes_the_place_of_something() -> None:
    doc = alone("# One\n\nOld text.\n\n# Two\n")
    section = doc.read().section("One")
    Other(doc).type(11, "their ")

    result = await edited(
        doc,
        lambda turn: turn.stream(
            "end", said("New ", "te", "xt."), replace=(section.body, section.end)
        ),
    )

    assert doc.text == "# One\ntheir New text.\n\n# Two\n"
    assert [each.text for each in result.conflict] == ["their "]


async def test_a_stream_without_a_word_changes_nothing() -> None:
    doc = alone("text")

    result = await edited(
        doc, lambda turn: turn.stream("end", said("", ""), replace=(0, 4))
    )

    assert doc.text == "text"
    assert not result.applied


async def test_what_came_before_the_error_of_a_stream_is_written() -> None:
    doc = alone()

    async def broken() -> AsyncIterator[str]:
        yield "some words and mor"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await edited(doc, lambda turn: turn.stream("end", broken()))

    assert doc.text == "some words and mor"


@pytest.mark.parametrize(
    "limits",
    [
        Limits(characters=1000),
        Limits(seconds=0.1),
        Limits(characters=1000, seconds=0.1),
    ],
)
async def test_a_stream_that_does_not_end_is_ended(limits: Limits) -> None:
    doc = alone()
    turn = Turn(doc, limits=limits)
    is_closed = False

    async def source() -> AsyncIterator[str]:
        nonlocal is_closed
        try:
            async for piece in endless("words ", 0.001):
                yield piece
        finally:
            is_closed = True

    async def work() -> None:
        async with turn:
            await turn.stream("end", source())

    with pytest.raises(RateLimited):
        await work()

    assert is_closed
    assert len(doc.text) <= 1000


async def test_a_source_that_never_waits_holds_nobody_up() -> None:
    doc = alone()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def source() -> AsyncIterator[str]:
        for _ in range(2000):
            yield "words "

    task = asyncio.create_task(others())
    await edited(doc, lambda turn: turn.stream("end", source()))
    task.cancel()

    assert doc.text == "words " * 2000
    assert turns > 1000


async def test_a_piece_may_be_a_whole_text() -> None:
    doc = alone()
    whole = "some words " * 40_000

    await edited(doc, lambda turn: turn.stream("end", said(whole)))

    assert doc.text == whole


async def test_a_long_text_is_rewritten_by_little() -> None:
    doc = alone("some words " * 40_000)
    wanted = doc.text.replace("words", "things", 1)

    await edited(doc, lambda turn: turn.rewrite(wanted))

    assert doc.text == wanted


async def test_what_cannot_be_written_yet_is_shown() -> None:
    doc = alone()
    turn = Turn(doc, limits=Limits(batch_seconds=0.01, tail_seconds=0.01))
    provider = line(doc)

    async def source() -> AsyncIterator[str]:
        yield "half a wo"
        await until(lambda: "wo" in provider.said)
        yield "rd"

    async with turn:
        await turn.stream("end", source())

    assert doc.text == "half a word"
    assert provider.said[-1] == "idle"


async def test_a_turn_is_entered_once() -> None:
    doc = alone()
    turn = doc.turn()
    async with turn:
        await turn.insert("end", "one")

    with pytest.raises(Conflict):
        await turn.__aenter__()

    async with doc.turn() as another:
        await another.insert("end", " two")
    assert doc.text == "one two"


async def test_half_a_word_is_not_looked_at_while_nothing_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doc = alone()
    turn = Turn(doc, limits=Limits(batch_seconds=0.0, tail_seconds=0.0))
    looks = 0

    def take(words: Words) -> str:
        nonlocal looks
        looks += 1
        return ""

    async def source() -> AsyncIterator[str]:
        yield "half"
        await until(lambda: "half" in line(doc).said)
        for _ in range(1000):
            await asyncio.sleep(0)

    monkeypatch.setattr(Words, "take", take)
    async with turn:
        await turn.stream("end", source())

    assert doc.text == "half"
    assert looks < 10


async def test_a_character_without_an_end_is_written() -> None:
    doc = alone()
    whole = "e" + "\u0301" * 20_000

    await edited(doc, lambda turn: turn.stream("end", said(whole, " and more")))

    assert doc.text == f"{whole} and more"


async def test_a_source_that_was_cancelled_has_not_come_to_its_end() -> None:
    doc = alone()

    async def source() -> AsyncIterator[str]:
        yield "one "
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await edited(doc, lambda turn: turn.stream("end", source()))

    assert doc.text == "one "


async def test_a_source_is_not_read_far_ahead() -> None:
    doc = alone()
    turn = Turn(doc, limits=Limits(ahead_characters=100))
    most = count = 0

    async def source() -> AsyncIterator[str]:
        nonlocal most, count
        for _ in range(500):
            count += 50
            most = max(most, count - len(doc.text))
            yield "x" * 49 + " "

    async with turn:
        await turn.stream("end", source())

    assert len(doc.text) == 25_000
    assert most < 1000


async def test_what_is_no_text_is_not_streamed() -> None:
    doc = alone()

    async def numbers() -> AsyncIterator[Any]:
        yield 7

    with pytest.raises(Invalid):
        await edited(doc, lambda turn: turn.stream("end", numbers()))


async def test_batches_are_few_and_whole_words() -> None:
    doc = alone()
    batches: list[str] = []
    text = doc.raw.get("text", type=Text)
    text.observe(
        lambda event: batches.extend(
            part["insert"] for part in event.delta if "insert" in part
        )
    )

    async def source() -> AsyncIterator[str]:
        for at in range(0, 4000, 4):
            yield ("words of a few letters, " * 200)[at : at + 4]

    await edited(doc, lambda turn: turn.stream("end", source()))

    assert len(doc.text) == 4000
    assert all(
        batch[0] == " " or batch.startswith(("words", "of", "a", "few", "letters"))
        for batch in batches
    )
    assert sum(len(batch) for batch in batches) / len(batches) > 80

"""Documents of rich editors, and texts inside of maps and lists: an agent's words do there what they do in a text."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alone import Alone, Other
from pycrdt import Array, Map, Text, XmlElement, XmlFragment
from tiptap import (
    NAME,
    bullets,
    edited,
    fragment,
    heading,
    node,
    paragraph,
    problems,
    written,
)

from collab.document.anchor import Orphaned, Place
from collab.document.export import markdown_of
from collab.document.prose import Prose
from collab.sdk.doc import Doc
from collab.sdk.errors import Ambiguous, Invalid, NotFound, StaleVersion

pytestmark = pytest.mark.anyio


def rich(*nodes: XmlElement) -> Doc:
    """A document that nobody is in."""
    return Doc(Alone(written(*nodes)))


def shown(doc: Doc) -> str:
    """As Markdown; and ProseMirror takes it."""
    assert problems(doc.raw) == []
    return markdown_of(fragment(doc.raw))


def letter() -> Doc:
    return rich(
        heading(1, "Letter"),
        heading(2, "Greeting"),
        paragraph("Dear all."),
        heading(2, "End"),
        bullets("Yours", "A."),
    )


async def words(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


# Reading


async def test_it_is_read_as_text_and_its_places_are_found_again() -> None:
    doc = letter()

    reading = doc.read()
    (found,) = doc.find("all")

    assert reading.text == "Letter\nGreeting\nDear all.\nEnd\nYours\nA."
    assert doc.resolve(found.start) == Place(NAME, reading.text.index("all"))
    assert reading.find("all") == [found]
    assert [each.title for each in reading.sections] == ["Letter", "Greeting", "End"]
    assert doc.read(section="End").text == "End\nYours\nA."
    assert doc.read(format="markdown", section="End").text == "## End\n\n- Yours\n- A."


async def test_its_text_is_what_is_read_and_to_ask_for_it_changes_nothing() -> None:
    doc = letter()
    doc.memory.editor = "tiptap"

    assert doc.text == doc.read().text
    doc.raw.get("text", type=Text)  # by the program itself: it holds nothing
    assert doc.text == doc.read().text
    async with doc.turn() as turn:
        await turn.insert(doc.anchor(len(doc.text)), "!")
    assert doc.text.endswith("A.!")


async def test_a_node_is_read_and_searched_by_its_path() -> None:
    doc = letter()

    assert doc.read(path="/4").text == "Yours\nA."
    assert doc.read(path="/4/1").text == "A."
    assert doc.read("default", "markdown", path="/4").text == "- Yours\n- A."
    assert doc.read("default", "markdown", path="/1").text == "## Greeting"
    assert doc.read("default", "markdown", path="/2/0").text == "Dear all."
    assert [each.text for each in doc.find("r", path="/2")] == ["r"]
    with pytest.raises(NotFound):
        doc.read(path="/9")


async def test_an_anchor_in_what_is_gone_leads_to_the_nearest_that_is_left() -> None:
    doc = letter()
    anchor = doc.find("all")[0].start

    async with doc.turn() as turn:
        await turn.delete(doc.read(section="Greeting").section("Greeting"))

    assert isinstance(doc.resolve(anchor), Orphaned)
    assert doc.read().text.startswith("Letter\n")


@pytest.mark.parametrize(
    "where", [{"root": "\ud83d"}, {"path": "/\ud83d"}, {"root": 1}, {"path": 1}]
)
async def test_what_is_no_name_or_path_is_invalid(where: Any) -> None:
    doc = letter()

    for ask in (doc.read, lambda **where: doc.find("a", **where)):
        with pytest.raises(Invalid):
            ask(**where)


# Edits


async def test_a_stream_goes_into_a_list_without_items() -> None:
    doc = rich(node("bulletList"))

    async with doc.turn() as turn:
        await turn.stream("end", words("- one\n", "- two"))

    assert doc.read(format="markdown").text == "- one\n- two"


async def test_edits_are_those_of_a_text() -> None:
    doc = letter()

    async with doc.turn() as turn:
        await turn.replace("Dear all", "Dear Ada")
        await turn.insert(doc.find("Yours")[0], ", as ever")
        await turn.insert("end", "\nPS")
        await turn.format(doc.find("Ada")[0], bold=True)
        await turn.delete(doc.find("\nA.")[0])
        await turn.section("End").rename("Close")
        result = await turn.patch("@@\n Greeting\n-Dear Ada.\n+Dear Ada!\n+Hello.\n")

    assert result.applied
    assert shown(doc) == (
        "# Letter\n\n## Greeting\n\nDear **Ada**!\n\nHello.\n\n## Close\n\n- Yours, as ever\n- PS"
    )


async def test_what_is_there_twice_is_ambiguous_and_the_closest_can_be_meant() -> None:
    doc = rich(paragraph("a cat"), paragraph("a cat"))

    async with doc.turn() as turn:
        with pytest.raises(Ambiguous) as caught:
            await turn.replace("cat", "dog")
        await turn.replace("cat", "dog", near=caught.value.candidates[1].start)
        await turn.replace("cat", "cow", path="/0")

    assert shown(doc) == "a cow\n\na dog"


async def test_a_rewrite_changes_only_what_differs() -> None:
    doc = letter()
    untouched = doc.find("Yours")[0].start

    async with doc.turn() as turn:
        await turn.rewrite("Letter\nGreeting\nDear Bob.\nNew\nEnd\nYours\nA.")

    assert doc.resolve(untouched) == Place(NAME, doc.read().text.index("Yours"))
    assert shown(doc).startswith(
        "# Letter\n\n## Greeting\n\nDear Bob.\n\nNew\n\n## End"
    )


async def test_a_turn_that_fails_is_taken_back() -> None:
    doc = letter()
    before = shown(doc)

    with pytest.raises(ZeroDivisionError):
        await fail(doc)

    assert shown(doc) == before


async def fail(doc: Doc) -> None:
    async with doc.turn(rollback=True) as turn:
        await turn.replace("Dear all.", "Dear\nall of\nyou")
        await turn.delete(doc.find("Yours\nA.")[0])
        raise ZeroDivisionError


# Conflicts


async def test_what_changed_since_it_was_read_is_rejected_or_merged() -> None:
    doc = letter()
    doc.read()
    other = Other(doc)
    fragment(other.raw).children[2].children[0].insert(5, "you ")
    other.say()

    async with doc.turn(on_conflict="reject") as turn:
        with pytest.raises(StaleVersion):
            await turn.replace("Dear all.", "Dear Ada.")
    async with doc.turn() as turn:
        result = await turn.replace("Dear all.", "Dear Ada.")

    assert [one.text for one in result.conflict if hasattr(one, "text")] == ["you "]
    assert "Dear you Ada." in shown(doc)


async def test_own_edits_are_no_conflict() -> None:
    doc = letter()
    doc.read()

    async with doc.turn(on_conflict="reject") as turn:
        await turn.insert("start", "Before\n")
        await turn.insert(doc.find("Letter")[0], "head")
        await turn.delete(doc.find("Before\n")[0])
        await turn.replace("Yours", "Mine\nand yours")
        await turn.delete(doc.find("Mine\n")[0])
        await turn.rewrite(doc.read().text.replace("Letterhead\n", ""))

    assert shown(doc) == "## Greeting\n\nDear all.\n\n## End\n\n- and yours\n- A."


@pytest.mark.parametrize("seed", range(15))
async def test_what_a_person_types_meanwhile_is_kept(seed: int) -> None:
    """Whatever an agent makes of the paragraph that it has read, as long as the paragraph stays."""
    chance = random.Random(seed)
    doc = rich(heading(1, "T"), paragraph("one two three four five"), paragraph("end"))
    other = Other(doc)

    for number in range(12):
        doc.read()
        other.hear()
        text = fragment(other.raw).children[1].children[0]
        text.insert(chance.randint(0, len(text)), f"<{number}>")
        if chance.random() < 0.5:
            other.say()
        async with doc.turn() as turn:
            line = doc.read(path="/1").text
            letters = [at for at, sign in enumerate(line) if sign.isalpha()]
            match chance.randrange(3):
                case 0 if letters:
                    at = chance.choice(letters) + 2
                    await turn.delete((at, at + 1))
                case 1:
                    await turn.insert(chance.randint(2, 2 + len(line)), "new ")
                case _:
                    word = chance.choice([each for each in line.split() if each])
                    if word.isalpha():
                        await turn.replace(doc.find(word, path="/1")[0], "word")
        other.say()

    said = doc.read(path="/1").text
    assert problems(doc.raw) == []
    assert said.count("<") == said.count(">") == 12


@pytest.mark.parametrize("seed", range(30))
async def test_a_view_that_is_renewed_is_the_same_as_a_fresh_one(seed: int) -> None:
    chance = random.Random(seed)
    doc = rich(heading(1, "T"), paragraph("one", node("hardBreak"), "two"), bullets("a", "b"))  # fmt: skip
    other = Other(doc)
    kept = 0

    for _ in range(40):
        before = doc.memory.places.prose(NAME)
        texts = before and [part.id for block in before.blocks for part in block.parts]
        if chance.random() < 0.6 and texts:
            line = chance.randrange(len(doc.read().text) + 1)
            async with doc.turn() as turn:
                await turn.insert(line, chance.choice(("x", "é ", "😀", "\n")))
        else:
            edited(fragment(other.raw), chance)
            other.say()
        other.hear()

        prose = doc.memory.places.prose(NAME)
        assert prose is not None
        fresh = Prose(doc.memory.order, NAME, fragment(doc.raw))
        kept += before is not None and prose._children is before._children
        assert prose.blocks == fresh.blocks
        assert prose.shown == fresh.shown
        assert (prose._parts, prose._children) == (fresh._parts, fresh._children)
        assert (prose._ranges, prose._starts) == (fresh._ranges, fresh._starts)
        assert prose.spans() == fresh.spans()
        middle = len(fresh.shown) // 2
        fresh.freeze()
        assert prose.spans(middle // 2, middle) == fresh.spans(middle // 2, middle)
        assert prose.chapters == fresh.chapters

    assert kept > 5


# Texts inside of maps and lists


def nested() -> Doc:
    doc = rich()
    other = Other(doc)
    other.raw["board"] = Map({"title": Text("Plan"), "cards": Array([Map({"text": Text("one")})])})  # fmt: skip
    other.raw["board"]["n"] = 1
    other.say()
    return doc


async def test_a_text_inside_of_a_map_is_edited_by_its_path() -> None:
    doc = nested()
    board = {"root": "board", "path": "/title"}
    card: Any = {"root": "board", "path": "/cards/0/text"}

    async with doc.turn() as turn:
        await turn.insert("end", " A", **board)
        await turn.replace("Plan", "The plan", **board)
        await turn.stream("end", words(" and", " two"), **card)
        await turn.insert(doc.find("two", **card)[0], "!")
        await turn.delete((0, 2), **card)
        await turn.rewrite("e and two!?", **card)
        await turn.format((0, 1), bold=True, **card)

    assert doc.get("/board/title") == "The plan A"
    assert doc.get("/board/cards/0/text") == "e and two!?"


async def test_what_others_write_in_a_text_inside_of_a_map_is_a_conflict() -> None:
    doc = nested()
    doc.read(root="board", path="/title")
    other = Other(doc)
    other.raw.get("board", type=Map)["title"].insert(2, "XX")
    other.say()

    async with doc.turn(on_conflict="reject") as turn:
        with pytest.raises(StaleVersion):
            await turn.rewrite("Other", root="board", path="/title")


async def test_a_path_to_what_is_no_text_names_what_to_use() -> None:
    doc = nested()

    async with doc.turn() as turn:
        with pytest.raises(Invalid, match="set"):
            await turn.insert("end", "x", root="board", path="/n")
        with pytest.raises(NotFound):
            await turn.insert("end", "x", root="board", path="/none")
        with pytest.raises(Invalid, match="root"):
            await patch_a_part(letter())


async def patch_a_part(doc: Doc) -> None:
    async with doc.turn() as turn:
        await turn.patch("@@\n-Dear all.\n+Hi\n", path="/2")


async def test_a_list_in_a_document_stays_one() -> None:
    doc = rich(node("taskList", node("taskItem", paragraph("t"), checked=True)))

    async with doc.turn() as turn:
        await turn.insert("end", "\nu")

    assert shown(doc) == "- [x] t\n- [ ] u"


# Sections, by Markdown


async def test_markdown_becomes_blocks_of_a_section() -> None:
    doc = letter()

    async with doc.turn() as turn:
        greeting = turn.section("Greeting")
        await greeting.append("How **are** you?\n\n1. well\n2. not so [well](/w)")
        await greeting.append("3. or\n\n```py\nx = 1\n```")
        await turn.section("End").insert_before("> a quote")
        await turn.section("End").append("- PS")
        result = await turn.section("End").append("Last.")

    assert shown(doc) == (
        "# Letter\n\n## Greeting\n\nDear all.\n\nHow **are** you?\n\n"
        "1. well\n2. not so [well](/w)\n3. or\n\n```py\nx = 1\n```\n\n> a quote\n\n"
        "## End\n\n- Yours\n- A.\n- PS\n\nLast."
    )
    assert doc.resolve(result.anchor) == Place(NAME, len(doc.read().text))


async def test_a_section_says_something_else_with_few_changes() -> None:
    doc = rich(
        heading(1, "T"),
        paragraph("First words here."),
        bullets("one", "two"),
        paragraph("Last."),
        heading(1, "U"),
        paragraph("other"),
    )
    kept = [doc.find(said)[0].start for said in ("First", "here", "two", "Last")]
    fragment(doc.raw).children[1].children[0].format(6, 11, {"highlight": {}})

    async with doc.turn() as turn:
        await turn.section("T").replace(
            "First *words* **now** here.\n\n- one\n- new\n- two\n\n## Sub\n\nLast."
        )

    assert shown(doc) == (
        "# T\n\nFirst *words* **now** here.\n\n- one\n- new\n- two\n\n## Sub\n\nLast.\n\n# U\n\nother"
    )
    for said, anchor in zip(("First", "here", "two", "Last"), kept, strict=True):
        assert doc.resolve(anchor) == Place(NAME, doc.read().text.index(said))
    marks = dict(fragment(doc.raw).children[1].children[0].diff())["words"]
    assert marks == {"highlight": {}, "italic": {}}


async def test_a_section_without_a_body_gets_one_and_a_whole_section_goes() -> None:
    doc = rich(heading(1, "T"), heading(2, "A"), heading(2, "B"), paragraph("b"))

    async with doc.turn() as turn:
        await turn.section("A").replace("now")
        await turn.section("B").delete()
        await turn.section("T").rename("Top")

    assert shown(doc) == "# Top\n\n## A\n\nnow"


async def test_what_others_wrote_in_a_section_since_it_was_read_stays() -> None:
    doc = rich(
        heading(1, "T"), paragraph("one two"), paragraph("to go"), heading(1, "U")
    )
    doc.read(section="T")
    other = Other(doc)
    fragment(other.raw).children[1].children[0].insert(3, " and a half")
    fragment(other.raw).children[2].children[0].insert(0, "not ")
    other.say()

    async with doc.turn(on_conflict="reject") as turn:
        with pytest.raises(StaleVersion):
            await turn.section("T").replace("ONE two")
    async with doc.turn() as turn:
        result = await turn.section("T").replace("one TWO")

    assert result.conflict
    assert shown(doc) == "# T\n\none and a half TWO\n\nnot to go\n\n# U"


# Streams


async def test_a_stream_goes_on_in_the_line_it_is_put_into() -> None:
    doc = rich(paragraph("before | after"), paragraph("more"))

    async with doc.turn() as turn:
        await turn.stream(doc.find("| ")[0], words("some ", "wo", "rds **x** "))
        await turn.stream("end", words("new"), replace=doc.find("more")[0])

    assert doc.read().text == "before | some words **x** after\nnew"


async def test_behind_a_line_break_a_stream_is_markdown() -> None:
    doc = rich(heading(1, "T"), paragraph("so"), heading(1, "U"), paragraph())
    provider: Any = doc.provider

    async with doc.turn() as turn:
        end = turn.section("T").end
        await turn.stream(
            end,
            words(" far.\n", "\n## S", "ub\n\n- a", "\n- b\n", "\nlast *wo", "rds*"),
        )
        await turn.stream("end", words("```\nco", "de\n\n\nmore\n```\n", "\nend"))

    assert shown(doc) == (
        "# T\n\nso far.\n\n## Sub\n\n- a\n- b\n\nlast *words*\n\n# U\n\n"
        "```\ncode\n\n\nmore\n```\n\nend"
    )
    assert any("last" in said for said in provider.said)
    assert turn.inserted == len(" far.\nSub\na\nb\nlast words") + len(
        "code\n\n\nmore\nend"
    )


async def test_what_came_of_a_stream_that_fails_is_written() -> None:
    async def failing() -> AsyncIterator[str]:
        yield "\none\n\ntwo "
        raise ZeroDivisionError

    doc = rich(paragraph("begin"))

    async with doc.turn() as turn:
        with pytest.raises(ZeroDivisionError):
            await turn.stream("end", failing())

    assert shown(doc) == "begin\n\none\n\ntwo"


async def test_a_stream_and_a_person_write_in_one_list() -> None:
    doc = rich(bullets("a"))
    other = Other(doc)

    async def pieces() -> AsyncIterator[str]:
        yield "\n- b\n\n"
        yield "- c\n\nover\n\n"
        fragment(other.raw).children[0].children[0].children[0].children[0].insert(
            0, "A"
        )
        other.say()
        yield "end"

    async with doc.turn() as turn:
        await turn.stream("end", pieces())

    assert shown(doc) == "- Aa\n- b\n- c\n\nover\n\nend"


# Editors


@pytest.mark.parametrize(
    ("editor", "root", "expected"),
    [
        (
            "tiptap",
            "default",
            "<paragraph>one</paragraph><paragraph>two</paragraph>"
            "<bulletList><listItem><paragraph><bold>a</bold></paragraph></listItem></bulletList>",
        ),
        (
            "prosemirror",
            "prosemirror",
            "<paragraph>one</paragraph><paragraph>two</paragraph>"
            "<bullet_list><list_item><paragraph><strong>a</strong></paragraph></list_item></bullet_list>",
        ),
    ],
)
async def test_an_empty_document_is_what_its_editor_is_said_to_be(
    editor: Any, root: str, expected: str
) -> None:
    doc = Doc(Alone())
    doc.memory.editor = editor

    async with doc.turn() as turn:
        await turn.insert("end", "one\ntwo")
        await turn.stream("end", words("\n- **a**"))

    assert str(doc.raw.get(root, type=XmlFragment)) == expected
    assert doc.read().text == "one\ntwo\na"


async def test_an_empty_document_of_blocknote_begins_with_a_group() -> None:
    doc = Doc(Alone())
    doc.memory.editor = "blocknote"

    async with doc.turn() as turn:
        await turn.stream("end", words("# T\n\n- a\n  - b"))
        await turn.insert("end", "\nc")

    top = doc.raw.get("document-store", type=XmlFragment)
    (group,) = top.children
    assert [each.children[0].tag for each in group.children] == [
        "heading",
        "bulletListItem",
    ]
    assert markdown_of(top).split("\n\n") == ["# T", "a", "b", "c"]


async def test_code_takes_no_formats() -> None:
    doc = rich(node("codeBlock", "x = 1"), paragraph("y"))

    async with doc.turn() as turn:
        with pytest.raises(Invalid):
            await turn.format((0, 3), bold=True)
        await turn.format(("start", "end"), bold=True)
        await turn.insert(1, "x", attributes={"bold": True})

    assert shown(doc) == "```\nxx = 1\n```\n\n**y**"

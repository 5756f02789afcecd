"""XML as one text: what is read, where anchors lead, and that changes of lines are changes of blocks."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc, XmlText
from tiptap import (
    NAME,
    bullets,
    fragment,
    heading,
    node,
    paragraph,
    problems,
    written,
)

from collab.document.anchor import Place, Side
from collab.document.characters import Change
from collab.document.export import markdown_of, text_of
from collab.document.order import Order
from collab.document.prose import Prose
from collab.document.units import EMBED


def prose(doc: Doc[Any]) -> Prose:
    return Prose(Order.of(doc.get_update()), NAME, fragment(doc))


def changed(doc: Doc[Any], *changes: tuple[int, int, str]) -> str:
    """What the text says after these."""
    with doc.transaction():
        prose(doc).change_all([Change(*change) for change in changes])
    assert problems(doc) == []
    return prose(doc).shown


def rich() -> Doc[Any]:
    return written(
        heading(1, "Title"),
        paragraph("one 😀", node("hardBreak"), "two", node("mention"), "!"),
        node(
            "bulletList",
            node("listItem", paragraph("a"), bullets("a1", "a2")),
            node("listItem", paragraph("b")),
        ),
        node("codeBlock", "x = 1\ny = 2"),
        node("horizontalRule"),
        node("table", node("tableRow", node("tableCell", paragraph("c")))),
        paragraph(),
    )


def test_it_reads_as_an_export_does() -> None:
    doc = rich()

    shown = prose(doc).shown

    assert shown == text_of(fragment(doc))
    assert shown == f"Title\none 😀\ntwo{EMBED}!\na\na1\na2\nb\nx = 1\ny = 2\n\nc\n"


@pytest.mark.parametrize("side", Side)
def test_each_place_has_an_anchor_that_leads_to_it(side: Side) -> None:
    doc = rich()
    order = Order.of(doc.get_update())
    text = Prose(order, NAME)

    for index in range(len(text.shown) + 1):
        place = order.resolve(text.anchor(index, side))

        assert text.index(Place(place.root, place.index)) == index


def test_each_character_is_of_an_id_of_its_own() -> None:
    doc = rich()

    text = prose(doc)
    spans = text.spans()

    ids = {(span.client, span.clock + at) for span in spans for at in range(span.units)}
    assert sum(span.size for span in spans) == len(text.shown)
    assert len(ids) == sum(span.units for span in spans)


def test_what_is_inserted_takes_the_marks_of_what_it_follows_but_for_links() -> None:
    doc = written(paragraph("so bold here"))
    text = fragment(doc).children[0].children[0]
    text.format(3, 7, {"bold": {}})
    text.format(8, 12, {"link": {"href": "/"}})

    changed(doc, (7, 7, "er"))
    changed(doc, (14, 14, "abouts"))

    assert text.diff() == [
        ("so ", None),
        ("bolder", {"bold": {}}),
        (" ", None),
        ("here", {"link": {"href": "/"}}),
        ("abouts", None),
    ]


def test_a_line_that_is_added_is_a_block_like_the_one_beside_it() -> None:
    doc = written(
        heading(2, "T"),
        bullets("a"),
        node("taskList", node("taskItem", paragraph("t"), checked=True)),
        node("blockquote", paragraph("q")),
    )

    assert changed(doc, (1, 1, "\nintro")) == "T\nintro\na\nt\nq"
    assert changed(doc, (9, 9, "\nb")) == "T\nintro\na\nb\nt\nq"
    assert changed(doc, (13, 13, "\nu")) == "T\nintro\na\nb\nt\nu\nq"
    assert changed(doc, (17, 17, "\nr")) == "T\nintro\na\nb\nt\nu\nq\nr"
    assert markdown_of(fragment(doc)) == (
        "## T\n\nintro\n\n- a\n- b\n\n- [x] t\n- [ ] u\n\n> q\n>\n> r"
    )


def test_a_line_break_in_code_is_a_character() -> None:
    doc = rich()
    at = prose(doc).shown.index("x = 1")

    changed(doc, (at, at + 5, "x = 2\nz = 3"))

    assert markdown_of(fragment(doc)).count("```\nx = 2\nz = 3\ny = 2\n```") == 1


def test_a_line_that_goes_takes_along_what_was_only_around_it() -> None:
    doc = written(paragraph("p"), bullets("a"), paragraph("q"))

    assert changed(doc, (1, 3, "")) == "p\nq"

    assert len(fragment(doc).children) == 2


def test_a_document_is_never_without_a_block() -> None:
    doc = rich()

    assert changed(doc, (0, len(prose(doc).shown), "")) == ""

    assert str(fragment(doc)) == "<paragraph></paragraph>"


def test_a_cell_and_an_item_keep_the_block_they_begin_with() -> None:
    doc = written(
        node(
            "table", node("tableRow", *(node("tableCell", paragraph(c)) for c in "ab"))
        ),
        node("bulletList", node("listItem", paragraph("i"), bullets("j"))),
    )

    assert changed(doc, (1, 3, "")) == "a\n\ni\nj"
    assert changed(doc, (2, 4, "")) == "a\n\n\nj"


def test_what_holds_no_text_is_not_written_into() -> None:
    doc = written(paragraph("a"), node("horizontalRule"), paragraph("b"))

    assert changed(doc, (2, 2, "rule")) == "a\n\nrule\nb"

    assert len(fragment(doc).children) == 4


def test_two_lines_become_one_and_one_becomes_two() -> None:
    doc = written(paragraph("one"), paragraph("two"), paragraph("three"))

    assert changed(doc, (3, 4, " ")) == "one two\nthree"
    assert changed(doc, (2, 3, "\n")) == "on\n two\nthree"


def test_in_blocknote_each_block_is_in_a_container_of_its_own() -> None:
    def block(said: str) -> Any:
        return node("blockContainer", paragraph(said), id=said)

    doc = written(node("blockGroup", block("a"), block("b")))

    with doc.transaction():
        prose(doc).change_all([Change(1, 1, "\nnew")])

    group = fragment(doc).children[0]
    assert [child.tag for child in group.children] == ["blockContainer"] * 3
    assert str(group.children[1].children[0]) == "<paragraph>new</paragraph>"
    assert group.children[1].attributes["id"]


@pytest.mark.parametrize("seed", range(40))
def test_random_changes_say_what_was_meant_and_leave_a_document_that_prosemirror_takes(
    seed: int,
) -> None:
    chance = random.Random(seed)
    doc = written(
        heading(1, "Ein Titel"),
        paragraph("Wörter 😀 und 汉字 mehr"),
        bullets("eins", "zwei", "drei"),
        node("blockquote", paragraph("Zitat"), paragraph("mehr")),
        paragraph("Ende", node("mention"), "!"),
        paragraph(),
    )
    model = prose(doc).shown

    for _ in range(25):
        start = chance.randint(0, len(model))
        stop = min(len(model), start + chance.choice((0, 0, 1, 3, 12, 40)))
        insert = chance.choice(("", "x", "Wort 😀 ", "\n", "a\nb", "\nneu\n", "c\n"))
        model = model[:start] + insert + model[stop:]

        assert changed(doc, (start, stop, insert)) == model


@pytest.mark.parametrize("seed", range(20))
def test_what_somebody_types_in_a_line_at_the_same_time_is_kept(seed: int) -> None:
    chance = random.Random(seed)
    doc = written(paragraph("one two three four"), bullets("five six"))
    other: Doc[Any] = Doc()
    other.apply_update(doc.get_update())

    for number in range(20):
        text: XmlText = fragment(other).children[0].children[0]
        text.insert(chance.randint(0, len(text)), f"<{number}>")
        shown = prose(doc).shown
        at = chance.randint(0, shown.index("\n"))
        end = at + (shown[at].isalpha() and chance.random() < 0.5)
        with doc.transaction():
            prose(doc).change_all([Change(at, end, chance.choice(("", "yes ")))])
        if chance.random() < 0.5:
            mine, theirs = doc.get_update(), other.get_update()
            doc.apply_update(theirs)
            other.apply_update(mine)
    doc.apply_update(other.get_update())
    other.apply_update(doc.get_update())

    assert prose(doc).shown == prose(other).shown
    assert problems(doc) == []
    assert prose(doc).shown.count("<") == prose(doc).shown.count(">") == 20

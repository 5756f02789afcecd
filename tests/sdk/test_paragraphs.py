"""What others have changed in XML, block by block."""

from __future__ import annotations

import random

import pytest
from alone import Alone, Other
from pycrdt import XmlElement
from tiptap import NAME, bullets, edited, fragment, heading, node, paragraph, written

from collab.document.export import text_of
from collab.document.markdown import blocks_of_xml
from collab.document.prose import Prose
from collab.sdk.doc import Doc
from collab.sdk.paragraphs import Paragraph, Retold, Revision, paragraphs, revisions


def rich(*nodes: XmlElement) -> Doc:
    doc = Doc(Alone(written(*nodes, client=1)))
    doc.memory.editor = "tiptap"
    return doc


def prose(doc: Doc) -> Prose:
    found = doc.memory.places.prose(NAME)
    assert found is not None
    return found


def now(doc: Doc) -> tuple[Paragraph, ...]:
    return paragraphs(prose(doc))


def said(found: list[Revision]) -> list[tuple[str, str]]:
    """What was and what is."""
    return [
        (
            "" if one.old is None else one.old.said,
            "" if one.new is None else one.new.said,
        )
        for one in found
    ]


def applied(
    state: list[str], found: list[Revision], new: tuple[Paragraph, ...]
) -> list[str]:
    """A state with changes made in it, each at the place that it names in what is there afterwards."""
    state = list(state)
    for one in found:
        number = sum(each.start < one.start for each in new) if one.start else 0
        if one.old is not None:
            assert state.pop(number) == one.old.said
        if one.new is not None:
            state.insert(number, one.new.said)
    return state


PAGE = ("Plan", "one", "two", "three")


def page() -> Doc:
    return rich(
        heading(1, PAGE[0]), paragraph(PAGE[1]), bullets(*PAGE[2:]), paragraph()
    )


@pytest.mark.parametrize("seed", range(40))
def test_all_changes_in_order_make_the_last_state_of_the_first(seed: int) -> None:
    chance = random.Random(seed)
    doc = page()
    other = Other(doc)
    retold = Retold(now(doc))
    doc.raw.observe(lambda event: retold.apply(event.update, is_own=False))
    state = [each.said for each in now(doc)]

    for _ in range(30):
        mine = chance.random() < 0.3
        edited(fragment(doc.raw if mine else other.raw), chance)
        if chance.random() < 0.5:
            other.say()
            other.hear()
        if chance.random() < 0.4:
            new = now(doc)
            state = applied(state, retold.take(new, doc.memory.order), new)
            assert state == [each.said for each in new]


@pytest.mark.parametrize("seed", range(20))
def test_what_only_the_observer_has_changed_is_not_told(seed: int) -> None:
    """Two write in blocks of their own, and each is told of the other's."""
    chance = random.Random(seed)
    doc = rich(*(paragraph(f"{number} ") for number in range(8)))
    other = Other(doc)
    retold = Retold(now(doc))
    kinds: list[bool] = []
    doc.raw.observe(lambda event: retold.apply(event.update, is_own=kinds[-1]))

    theirs: set[int] = set()
    for _ in range(10):
        number, is_own = chance.randrange(8), chance.random() < 0.5
        number = number // 2 * 2 + is_own
        kinds.append(is_own)
        top = fragment(doc.raw if is_own else other.raw)
        top.children[number].children[0].insert(2, "x")
        if not is_own:
            theirs.add(number)
            other.say()
        other.hear()

    found = retold.take(now(doc), doc.memory.order)
    assert {int(one.path[1:]) for one in found} == theirs


def test_a_block_is_told_as_markdown() -> None:
    doc = rich(
        heading(2, "Title"),
        node("paragraph", "some ", node("hardBreak"), "*words*"),
        node("blockquote", paragraph("quoted")),
        node("codeBlock", "x = 1\ny = 2"),
        node("horizontalRule"),
        node(
            "orderedList",
            node("listItem", paragraph("first"), bullets("inner"), paragraph("more")),
            node("listItem", paragraph()),
        ),
        node("taskList", node("taskItem", paragraph("done"), checked=True)),
        node("table", node("tableRow", node("tableCell", paragraph("cell")))),
    )

    assert [each.said for each in now(doc)] == [
        "## Title",
        "some \\\n\\*words\\*",
        "> quoted",
        "```\nx = 1\ny = 2\n```",
        "---",
        "1. first",
        "   - inner",
        "   more",
        "- [x] done",
        "cell",
    ]
    assert len(blocks_of_xml(fragment(doc.raw))) == len(prose(doc).blocks)


def test_a_block_of_blocknote_is_told_as_markdown() -> None:
    def contained(*nodes: XmlElement) -> XmlElement:
        return node("blockContainer", *nodes)

    inner = node("blockGroup", contained(node("checkListItem", "b", checked=False)))
    doc = rich(
        node(
            "blockGroup",
            contained(node("bulletListItem", "a"), inner),
            contained(node("quote", "said")),
            contained(node("numberedListItem", "c")),
        )
    )

    assert [each.said for each in now(doc)] == ["- a", "  - [ ] b", "> said", "1. c"]


@pytest.mark.parametrize("seed", range(20))
def test_each_block_has_its_line(seed: int) -> None:
    chance = random.Random(seed)
    doc = page()

    for _ in range(40):
        edited(fragment(doc.raw), chance)

    blocks = blocks_of_xml(fragment(doc.raw))
    assert len(blocks) == len(prose(doc).blocks)
    assert prose(doc).shown == text_of(fragment(doc.raw))


def test_a_task_that_is_ticked_is_a_change() -> None:
    doc = rich(node("taskList", node("taskItem", paragraph("t"), checked=False)))
    before = now(doc)

    item = fragment(doc.raw).children[0].children[0]
    item.attributes["checked"] = True

    assert said(list(revisions(before, now(doc)))) == [("- [ ] t", "- [x] t")]


def test_what_an_editor_writes_anew_is_told_by_what_differs() -> None:
    doc = page()
    before = now(doc)

    top = fragment(doc.raw)
    del top.children[0:2]
    top.children.insert(0, heading(1, "Plan"))
    top.children.insert(1, heading(2, "one"))

    assert said(list(revisions(before, now(doc)))) == [("one", "## one")]


def test_too_many_updates_are_all_of_others() -> None:
    retold = Retold(())
    doc = page()
    own = now(doc)

    retold.apply(b"", is_own=True)
    for _ in range(1001):
        retold.apply(b"", is_own=False)

    assert len(retold.take(own, doc.memory.order)) == len(own)

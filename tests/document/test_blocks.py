"""Markdown as blocks: what becomes of each form, and that what is written as Markdown is read again as it was."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc
from tiptap import fragment, problems

from collab.document.blocks import (
    Node,
    Words,
    blocks_of,
    complete,
    inline,
    key,
    put,
    read,
    shaped,
)
from collab.document.markdown import markdown_of_xml


def document(text: str, *tags: str) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    top = fragment(doc)
    for node in shaped(blocks_of(text), tags):
        put(top, len(top.children), node, "id")
    return doc


EVERYTHING = """\
# Title

A paragraph with **bold**, *italic*, ***both***, ~~gone~~, `code *x*` and [a link](https://example.org/a_b).\\
A second line\\*.

- one
- two
  - below
    1. deep
  - more
- three

  with more

5. five
6. six

- [x] done
- [ ] open

> quoted
>
> - in it

```python
def f():
    return "\\*"

```

---

汉字 😀 end"""


def test_what_is_written_is_read_again_as_it_was() -> None:
    doc = document(EVERYTHING, "taskList")

    assert problems(doc) == []
    assert markdown_of_xml(fragment(doc)) == EVERYTHING
    nodes = shaped(blocks_of(EVERYTHING), ["taskList"])
    assert [key(read(each)) for each in fragment(doc).children] == [
        key(each) for each in nodes
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [Words("plain")]),
        ("**b** c", [Words("b", {"bold": {}}), Words(" c")]),
        (
            "__b__ _i_",
            [Words("b", {"bold": {}}), Words(" "), Words("i", {"italic": {}})],
        ),
        ("snake_case_name", [Words("snake_case_name")]),
        ("2 * 3 * 4", [Words("2 * 3 * 4")]),
        ("**open", [Words("**open")]),
        (
            "*a **b***",
            [Words("a ", {"italic": {}}), Words("b", {"italic": {}, "bold": {}})],
        ),
        (r"\*no\*", [Words("*no*")]),
        ("`` a`b ``", [Words("a`b", {"code": {}})]),
        ("a ` b", [Words("a ` b")]),
        ("[x](/y 'z')", [Words("x", {"link": {"href": "/y"}})]),
        ("[x] (y)", [Words("[x] (y)")]),
        ("<https://a.b>", [Words("https://a.b", {"link": {"href": "https://a.b"}})]),
        ("a\nb", [Words("a"), Node("hardBreak"), Words("b")]),
        ("~~s~~ ~t~", [Words("s", {"strike": {}}), Words(" ~t~")]),
    ],
)
def test_marks_inside_a_line(text: str, expected: list[Node | Words]) -> None:
    assert inline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("# a #", "a"), ("## # ##", "#"), ("# #", ""), ("#  a#  ", "a#"), ("#", "")],
)
def test_a_heading_may_be_closed(text: str, expected: str) -> None:
    (heading,) = blocks_of(text)

    assert heading.tag == "heading"
    assert heading.children == ([Words(expected)] if expected else [])


def test_what_is_no_emphasis_or_deep_in_it_is_read_however_long_it_is() -> None:
    many = 20_000

    unlike = inline("*a " * many + "b_ " * many)
    nested = inline("*a " * many + " b*" * many)
    (items,) = blocks_of("- a" + "\n" * many + "  b")

    assert unlike == [Words("*a " * many + "b_ " * many)]
    assert nested == [Words("a " * many + " b" * many, {"italic": {}})]
    assert [each.tag for each in items.children[0].children] == ["paragraph"] * 2


def test_lines_of_a_paragraph_are_one_line() -> None:
    (node,) = blocks_of("one\ntwo  \nthree")

    assert node.children == [Words("one two"), Node("hardBreak"), Words("three")]


def test_a_document_says_by_what_names_its_editor_goes() -> None:
    snake = document("- **a**\n\n```\nx\n```", "bullet_list")
    noted = document("- a\n  - b\n\n# T\n\n> q", "blockContainer")

    assert str(fragment(snake)) == (
        "<bullet_list><list_item><paragraph><strong>a</strong></paragraph></list_item></bullet_list>"
        "<code_block>x</code_block>"
    )
    assert [node.children[0].tag for node in fragment(noted).children] == [
        "bulletListItem",
        "heading",
        "quote",
    ]
    assert str(fragment(document("- [ ] a"))) == (
        "<bulletList><listItem><paragraph>[ ] a</paragraph></listItem></bulletList>"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "")),
        ("one", ("", "one")),
        ("one\n\n", ("", "one\n\n")),
        ("one\n\ntwo", ("one\n\n", "two")),
        ("- a\n\n  more", ("", "- a\n\n  more")),
        ("```\na\n\nb", ("", "```\na\n\nb")),
        ("```\na\n\nb\n```\n\nc", ("```\na\n\nb\n```\n\n", "c")),
    ],
)
def test_of_what_is_being_written_the_finished_blocks_are_known(
    text: str, expected: tuple[str, str]
) -> None:
    assert complete(text) == expected


@pytest.mark.parametrize("seed", range(30))
def test_whatever_comes_is_a_document(seed: int) -> None:
    chance = random.Random(seed)
    signs = ["# ", "- ", "1. ", "> ", "```", "\n", "\n\n", "  ", "    ", "**", "*", "_"]
    signs += ["`", "[", "](", ")", "~~", "\\", "a", "b c", "---", "- [ ] ", "😀", "|"]
    text = "".join(chance.choice(signs) for _ in range(300))

    doc = document(text, "taskList")

    assert problems(doc) == []


def test_depth_has_an_end() -> None:
    doc = document("> " * 500 + "x")

    assert problems(doc) == []
    assert "x" in str(fragment(doc))

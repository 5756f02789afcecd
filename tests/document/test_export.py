"""Documents as JSON, text and Markdown."""

from __future__ import annotations

from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document.export import roots, to_json, to_markdown, to_text
from collab.errors import InvalidRequest, RootNotFound


def update(**shared: Any) -> bytes:
    doc: Doc[Any] = Doc()
    for name, root in shared.items():
        doc[name] = root
    return doc.get_update()


def rich(*pieces: tuple[Any, dict[str, Any]]) -> bytes:
    """A document with one rich text."""
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    for what, formats in pieces:
        if isinstance(what, str):
            text.insert(len(text), what, formats)
        else:
            text.insert_embed(len(text), what, formats)
    return doc.get_update()


def test_roots_are_told_apart_by_what_they_hold() -> None:
    content = update(
        text=Text("é😀"),
        map=Map({"a": 1}),
        list=Array(["é😀"]),
        xml=XmlFragment([XmlElement("p")]),
        nothing=Text("x"),
    )
    doc: Doc[Any] = Doc()
    doc.apply_update(content)
    doc.get("nothing", type=Text).clear()

    assert roots(doc.get_update()) == {
        "text": "text",
        "map": "map",
        "list": "array",
        "xml": "xml",
        "nothing": "empty",
    }


def test_json_holds_plain_values_as_deep_as_they_go() -> None:
    content = update(
        map=Map(
            {
                "number": 1,
                "half": 0.5,
                "large": 1 << 40,
                "true": True,
                "null": None,
                "bytes": b"\x00\xff",
                "plain": {"a": [1, {"b": 2.0}]},
                "shared": Map({"list": Array([Map({"text": Text("é😀")})])}),
            }
        ),
        list=Array(["é😀", 3]),
        xml=XmlFragment([XmlElement("p", {"a": "b"}, ["hi"])]),
    )

    assert to_json(content) == {
        "map": {
            "number": 1,
            "half": 0.5,
            "large": 1 << 40,
            "true": True,
            "null": None,
            "bytes": {"$bytes": "00ff"},
            "plain": {"a": [1, {"b": 2}]},
            "shared": {"list": [{"text": "é😀"}]},
        },
        "list": ["é😀", 3],
        "xml": '<p a="b">hi</p>',
    }


def test_what_is_no_character_stands_in_a_text_as_one() -> None:
    content = rich(("é", {}), ({"image": "x.png"}, {}), ("b", {}))

    assert to_text(content) == "é\ufffcb"
    assert to_json(content) == {"text": "é\ufffcb"}


def test_of_xml_the_text_is_told_line_by_line() -> None:
    content = update(
        xml=XmlFragment(
            [
                XmlElement("heading", {"level": "1"}, ["Title"]),
                XmlElement("paragraph", {}, ["one", XmlElement("hardBreak"), "two"]),
            ]
        )
    )

    assert to_text(content) == "Title\none\ntwo"


def test_the_root_need_not_be_named_when_only_one_is_a_text() -> None:
    content = update(text=Text("words"), map=Map({"a": 1}))

    assert to_text(content) == "words"
    assert to_text(b"\0\0") == ""


def test_which_root_is_meant_must_be_clear() -> None:
    content = update(one=Text("1"), two=Text("2"), map=Map({"a": 1}))

    with pytest.raises(InvalidRequest, match="one, two"):
        to_text(content)
    with pytest.raises(RootNotFound, match="three"):
        to_markdown(content, "three")
    with pytest.raises(InvalidRequest, match="as JSON"):
        to_text(content, "map")
    with pytest.raises(InvalidRequest, match="map"):
        to_markdown(update(map=Map({"a": 1})))


def test_a_text_without_formats_is_markdown_already() -> None:
    assert to_markdown(update(text=Text("# *as* it is"))) == "# *as* it is"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("plain ", {}), ("bold", {"bold": True})], "plain **bold**"),
        ([("a ", {}), (" wide ", {"italic": True}), ("b", {})], "a  *wide* b"),
        ([("both", {"bold": True, "italic": True})], "***both***"),
        ([("x", {"bold": True}), ("y", {"bold": True, "italic": True})], "**x*y***"),
        ([("a`b", {"code": True})], "``a`b``"),
        ([("`", {"code": True})], "`` ` ``"),
        ([("here", {"link": "https://e.org/a b"})], "[here](https://e.org/a%20b)"),
        ([("here", {"link": "https://e.org/(a)"})], "[here](<https://e.org/(a)>)"),
        ([("*_[x]_*", {"bold": True})], r"**\*\_\[x\]\_\***"),
        ([("Title", {}), ("\n", {"header": 2})], "## Title"),
        ([("one", {}), ("\n", {"list": "bullet"}), ("two", {}), ("\n", {"list": "bullet"})], "- one\n- two"),
        ([("one", {}), ("\n", {"list": "ordered"}), ("end\n", {})], "1. one\n\nend"),
        ([("done", {}), ("\n", {"list": "checked"})], "- [x] done"),
        ([("said", {}), ("\n", {"blockquote": True})], "> said"),
        ([("a=1", {}), ("\n", {"code-block": True}), ("b", {}), ("\n", {"code-block": True})], "```\na=1\nb\n```"),
        ([("# no\n", {}), ("b", {"bold": True})], "\\# no\n\n**b**"),
        ([("1. no\n", {}), ("b", {"bold": True})], "1\\. no\n\n**b**"),
        ([({"image": "x.png"}, {})], "![](x.png)"),
        ([("a", {"color": "red"})], "a"),
    ],
)  # fmt: skip
def test_a_rich_text_is_written_as_markdown(
    pieces: list[tuple[Any, dict[str, Any]]], expected: str
) -> None:
    assert to_markdown(rich(*pieces)) == expected


def element(tag: str, *children: Any, **attributes: Any) -> XmlElement:
    return XmlElement(tag, attributes, list(children))


def marked(*pieces: tuple[str, dict[str, Any]]) -> bytes:
    """A paragraph as ProseMirror keeps it."""
    doc: Doc[Any] = Doc()
    fragment = doc.get("prosemirror", type=XmlFragment)
    paragraph = fragment.children.append(XmlElement("paragraph"))
    text = paragraph.children.append(XmlText(""))
    for what, formats in pieces:
        text.insert(len(text), what, formats)
    return doc.get_update()


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([element("heading", "Title", level="2"), element("paragraph", "Text.")], "## Title\n\nText."),
        ([element("paragraph", "one", element("hardBreak"), "two")], "one\\\ntwo"),
        ([element("bulletList", element("listItem", element("paragraph", "a")), element("listItem", element("paragraph", "b")))], "- a\n- b"),
        ([element("ordered_list", element("list_item", element("paragraph", "a")), element("list_item", element("paragraph", "b")), start="3")], "3. a\n4. b"),
        ([element("bulletList", element("listItem", element("paragraph", "a"), element("bulletList", element("listItem", element("paragraph", "b")))))], "- a\n  - b"),
        ([element("taskList", element("taskItem", element("paragraph", "a"), checked="true"), element("taskItem", element("paragraph", "b"), checked="false"))], "- [x] a\n- [ ] b"),
        ([element("blockquote", element("paragraph", "a"), element("paragraph", "b"))], "> a\n>\n> b"),
        ([element("codeBlock", "x = `1`\n```", language="py thon")], "````python\nx = `1`\n```\n````"),
        ([element("horizontalRule")], "---"),
        ([element("image", src="a.png", alt="A")], "![A](a.png)"),
        ([element("paragraph", "# *x*")], "\\# \\*x\\*"),
        ([element("table", element("tableRow", element("tableCell", element("paragraph", "a")), element("tableCell", element("paragraph", "b"))))], "a\n\nb"),
        ([element("strange", "words")], "words"),
        ([element("paragraph")], ""),
    ],
)  # fmt: skip
def test_nodes_of_an_editor_are_written_as_markdown(
    nodes: list[XmlElement], expected: str
) -> None:
    assert to_markdown(update(xml=XmlFragment(nodes))) == expected


def test_marks_of_an_editor_are_written_as_markdown() -> None:
    content = marked(
        ("plain ", {}),
        ("bold ", {"bold": {}}),
        ("both", {"bold": {}, "em": {}}),
        (" ", {}),
        ("link", {"link--a1b2": {"href": "https://e.org"}}),
        (" ", {}),
        ("gone", {"strike": {}}),
        (" ", {}),
        ("code", {"code": {}}),
    )

    assert to_markdown(content) == (
        "plain **bold *both*** [link](https://e.org) ~~gone~~ `code`"
    )


def test_as_deep_as_the_guard_allows_is_written_too() -> None:
    node = element("paragraph", "deep")
    for _ in range(120):
        node = element("blockquote", node)

    assert to_markdown(update(xml=XmlFragment([node]))) == "> " * 120 + "deep"

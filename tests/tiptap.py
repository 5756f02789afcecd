"""Documents of rich editors as y-prosemirror writes them: XML under the name that Tiptap gives it."""

from __future__ import annotations

import random
from typing import Any

from pycrdt import Doc, XmlElement, XmlFragment, XmlText

NAME = "default"
BLOCKS = {
    *("paragraph", "heading", "codeBlock", "blockquote", "bulletList", "orderedList"),
    *("taskList", "horizontalRule", "image", "table"),
}
INLINE = {"#text", "hardBreak", "mention"}
# What each node of the schema may hold, and whether it must hold something; and what it must begin with.
SCHEMA: dict[str, tuple[set[str], bool, str]] = {
    "#top": (BLOCKS, True, ""),
    "paragraph": (INLINE, False, ""),
    "heading": (INLINE, False, ""),
    "codeBlock": ({"#text"}, False, ""),
    "blockquote": (BLOCKS, True, ""),
    "bulletList": ({"listItem"}, True, ""),
    "orderedList": ({"listItem"}, True, ""),
    "taskList": ({"taskItem"}, True, ""),
    "listItem": (BLOCKS, True, "paragraph"),
    "taskItem": (BLOCKS, True, "paragraph"),
    "table": ({"tableRow"}, True, ""),
    "tableRow": ({"tableCell", "tableHeader"}, True, ""),
    "tableCell": (BLOCKS, True, ""),
    "tableHeader": (BLOCKS, True, ""),
    **{tag: (set(), False, "") for tag in ("horizontalRule", "image", "hardBreak")},
    "mention": (set(), False, ""),
}
MARKS = {"bold", "italic", "strike", "code", "link", "highlight"}


def node(tag: str, *children: Any, **attributes: Any) -> XmlElement:
    """An element; a string in it is a text of its own."""
    return XmlElement(
        tag,
        attributes,
        [XmlText(child) if isinstance(child, str) else child for child in children],
    )


def paragraph(*said: Any) -> XmlElement:
    return node("paragraph", *said)


def heading(level: int, title: str) -> XmlElement:
    return node("heading", title, level=level)


def bullets(*items: str) -> XmlElement:
    return node("bulletList", *(node("listItem", paragraph(item)) for item in items))


def fragment(doc: Doc[Any]) -> XmlFragment:
    return doc.get(NAME, type=XmlFragment)


def written(*nodes: XmlElement, client: int | None = None) -> Doc[Any]:
    """A document with these, by somebody else."""
    other: Doc[Any] = Doc() if client is None else Doc(client_id=client)
    top = fragment(other)
    for each in nodes:
        top.children.append(each)
    doc: Doc[Any] = Doc()
    doc.apply_update(other.get_update())
    return doc


def edited(top: Any, chance: random.Random) -> None:
    """Something that a person does in an editor."""
    children = top.children
    at = chance.randrange(len(children) + 1)
    fresh = chance.choice("abc") * chance.randint(1, 3)
    blocks = [
        each
        for child in children
        for each in (
            [child] if child.tag in ("paragraph", "heading") else _items(child)
        )
    ]
    texts = [
        each for block in blocks for each in block.children if isinstance(each, XmlText)
    ]
    match chance.randrange(9):
        case 0:
            children.insert(at, chance.choice((paragraph(fresh), paragraph())))
        case 1:
            children.insert(at, heading(chance.randint(1, 3), fresh))
        case 2:
            children.insert(at, bullets(*(chance.choice("xyz") for _ in range(2))))
        case 3 if len(children) > 1:
            del children[min(at, len(children) - 1)]
        case 4 if len(children):  # as an editor makes a heading of a paragraph
            place = min(at, len(children) - 1)
            del children[place]
            children.insert(place, heading(2, fresh))
        case 5 if texts:
            text = chance.choice(texts)
            if len(text) and str(text).isascii():
                text.format(0, 1, {"bold": {}})
        case 6 if texts:
            text = chance.choice(texts)
            if len(text) and str(text).isascii():
                del text[0:1]
        case 7 if blocks:
            block = chance.choice(blocks)
            block.children.append(node("hardBreak"))
            block.children.append(XmlText(fresh))
        case _ if texts:
            text = chance.choice(texts)
            text.insert(0, chance.choice((fresh, "é")))


def _items(holder: Any) -> list[Any]:
    return [part for item in holder.children for part in item.children]


def problems(doc: Doc[Any]) -> list[str]:
    """What ProseMirror would not take, by the schema of Tiptap's starter kit with tables, tasks and mentions."""
    found: list[str] = []
    _look(fragment(doc), "#top", found)
    return found


def _look(at: Any, tag: str, found: list[str]) -> None:
    allowed, must, begins = SCHEMA[tag]
    tags = []
    for child in at.children:
        if isinstance(child, XmlText):
            tags.append("#text")
            _look_at_text(child, tag, found)
            continue
        tags.append(child.tag or "")
        if child.tag not in SCHEMA:
            found.append(f"there is no {child.tag}")
        else:
            _look(child, child.tag, found)
    found += [f"{each} in {tag}" for each in tags if each not in allowed]
    if must and not tags:
        found.append(f"{tag} is empty")
    if begins and tags and tags[0] != begins:
        found.append(f"{tag} begins with {tags[0]}")
    if tag == "heading" and at.attributes.get("level") not in (1, 2, 3, 4, 5, 6):
        found.append("a heading without level")


def _look_at_text(text: XmlText, tag: str, found: list[str]) -> None:
    for piece, marks in text.diff():
        if not isinstance(piece, str):
            found.append(f"something that is no text in {tag}")
        elif "\n" in piece and tag != "codeBlock":
            found.append(f"a line break in a text of {tag}")
        for mark, value in (marks or {}).items():
            if mark not in MARKS or not isinstance(value, dict):
                found.append(f"the mark {mark}")
            elif tag == "codeBlock":
                found.append("a mark in code")

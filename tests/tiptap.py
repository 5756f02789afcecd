"""Documents of rich editors as y-prosemirror writes them: XML under the name that Tiptap gives it."""

from __future__ import annotations

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

"""Rich text and XML as Markdown (CommonMark, with task lists and strike-through as on GitHub)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pycrdt import XmlElement, XmlFragment, XmlText

from collab.document.units import EMBED

Piece = tuple[Any, dict[str, Any] | None]  # of a text: what, and its formats

# What editors call their formats → how Markdown writes them. Earlier ones go around later ones.
_MARKS = {
    "link": "link",
    "bold": "**",
    "strong": "**",
    "italic": "*",
    "em": "*",
    "strike": "~~",
    "strikethrough": "~~",
    "s": "~~",
    "code": "code",
}
_ORDER = ("link", "**", "*", "~~", "code")

_SPECIAL = re.compile(r"[\\`*_\[\]<>~|]|&(?=[#\w])")
_LINE_START = re.compile(r"^(\s*)([#+\-=>]|\d{1,9}(?=[.)]))", re.MULTILINE)
# Items of BlockNote are blocks of text themselves.
ITEM_BLOCKS = {"bulletlistitem", "numberedlistitem", "checklistitem"}
# What is in these is text, or stands in a line of it, also while there is none.
TEXT_BLOCKS = {"paragraph", "heading", "codeblock", "quote"} | ITEM_BLOCKS
# What stands before the first line of a block, and before that of each item of a list.
_SIGNS = {
    "blockquote": "> ",
    "quote": "> ",
    "bulletlistitem": "- ",
    "numberedlistitem": "1. ",
    "checklistitem": "- ",
}
_ITEM_SIGNS = {"bulletlist": "- ", "tasklist": "- ", "orderedlist": "1. "}
_CONTAINERS = {"bulletlist", "orderedlist", "tasklist", "listitem", "taskitem"}


# Rich text: formats of characters stand on them, formats of a line on the line break that ends it (as Quill has it)


def markdown_of_text(pieces: Iterable[Piece]) -> str:
    """A rich text."""
    blocks: list[str] = []
    kinds: list[str] = []
    line: list[Piece] = []
    for what, attributes in pieces:
        if not isinstance(what, str):
            line.append((what, attributes))
            continue
        parts = what.split("\n")
        for part in parts[:-1]:
            line.append((part, attributes))
            _end_line(line, attributes or {}, blocks, kinds)
            line = []
        line.append((parts[-1], attributes))
    if any(what for what, _ in line):
        _end_line(line, {}, blocks, kinds)
    return _joined(blocks, kinds)


def _end_line(
    line: list[Piece], formats: dict[str, Any], blocks: list[str], kinds: list[str]
) -> None:
    """Turn a line into a block, or add it to the code block before it."""
    if formats.get("code-block"):
        text = "".join(what for what, _ in line if isinstance(what, str))
        if kinds and kinds[-1] == "code":
            blocks[-1] += "\n" + text
        else:
            blocks.append(text)
            kinds.append("code")
        return
    shown = _inline(line)
    kind = "text"
    if formats.get("header"):
        shown = _heading(formats["header"], shown)
    elif formats.get("list"):
        kind = "list"
        indent = "  " * min(_number(formats.get("indent"), 0), 8)
        mark = {"ordered": "1.", "checked": "- [x]", "unchecked": "- [ ]"}
        shown = f"{indent}{mark.get(str(formats['list']), '-')} {shown}"
    elif formats.get("blockquote"):
        kind, shown = "quote", f"> {shown}"
    if shown or kind != "text":
        blocks.append(shown)
        kinds.append(kind)


def _joined(blocks: list[str], kinds: list[str]) -> str:
    parts: list[str] = []
    for block, kind, before in zip(blocks, kinds, ["", *kinds], strict=False):
        if before:
            parts.append("\n" if kind == before and kind != "text" else "\n\n")
        parts.append(_fenced(block) if kind == "code" else block)
    return "".join(parts)


# XML, as editors built on ProseMirror keep it


def markdown_of_xml(node: XmlFragment | XmlElement) -> str:
    """All nodes of a fragment, or one element."""
    nodes = [node] if isinstance(node, XmlElement) else list(node.children)
    return "\n\n".join(_blocks(nodes))


def text_of_xml(node: XmlFragment | XmlElement) -> str:
    """Its text, a line for each block; what stands in a line without being text is U+FFFC."""
    lines: list[str] = []
    children = list(node.children)
    is_line = _is_line(node, _tag(node), children)
    is_open = False  # the last line goes on
    for child in children:
        if is_line or isinstance(child, XmlText) or _tag(child) == "hardbreak":
            said = EMBED
            if isinstance(child, XmlText):
                said = _characters(child)
            elif _tag(child) == "hardbreak":
                said = "\n"
            if is_open:
                lines[-1] += said
            else:
                lines.append(said)
            is_open = True
        else:
            lines.append(text_of_xml(child))
            is_open = False
    return "\n".join(lines)


def blocks_of_xml(node: XmlFragment | XmlElement) -> list[str]:
    """Each block for itself, as many as `text_of_xml` has lines; "" for one that says nothing.

    An item bears the sign of its list and the indent of the lists around it. Numbered ones all bear the same number, so
    that nothing in an item changes with what comes before it.
    """
    found: list[str] = []
    _single_blocks(node, "", "", found)
    return found


def _single_blocks(node: Any, first: str, rest: str, found: list[str]) -> None:
    """What is in a node: before its first line stands one thing, before the others another."""
    tag, children = _tag(node), list(node.children)
    first += _SIGNS.get(tag, "")
    if tag in ("taskitem", "checklistitem"):
        first += "[x] " if _attribute(node, "checked") in (True, "true") else "[ ] "
    rest += "> " if tag in ("blockquote", "quote") else ""
    if _is_line(node, tag, children) or (isinstance(node, XmlElement) and not children):
        found.append(_prefixed_if_any(_single(node, tag, children), first, rest))
        return
    sign = _ITEM_SIGNS.get(tag, "")
    run: list[Any] = []
    for child in [*children, None]:
        if isinstance(child, XmlText) or (child and _tag(child) == "hardbreak"):
            run.append(child)
            continue
        if run:
            found.append(_prefixed_if_any(_inline_nodes(run), first, rest))
            first, run = rest, []
        if child is not None:
            within = sign or ("  " if _tag(child) == "blockgroup" and tag else "")
            _single_blocks(child, first + within, rest + " " * len(within), found)
            first = rest


def _single(node: Any, tag: str, children: Sequence[Any]) -> str:
    """One block."""
    if tag == "horizontalrule":
        return "---"
    if tag == "codeblock":
        said = "".join(map(_said, children))
        return _fenced(said) if said else ""
    said = _inline_nodes([node] if _is_inline(node) else children)
    if tag == "heading" and said:
        return _heading(_attribute(node, "level"), said)
    return said


def _is_line(node: Any, tag: str, children: Sequence[Any]) -> bool:
    """Whether all that is in a node is one line."""
    return tag in TEXT_BLOCKS or (
        isinstance(node, XmlElement)
        and any(isinstance(child, XmlText) for child in children)
    )


def _characters(text: XmlText) -> str:
    """With U+FFFC for what is no character, so that places are the same as in any text."""
    return "".join(what if isinstance(what, str) else EMBED for what, _ in text.diff())


def _blocks(nodes: Sequence[Any]) -> list[str]:
    """Each node as a block; text that stands between blocks is one of its own."""
    found: list[str] = []
    loose: list[Any] = []
    for node in [*nodes, None]:
        if isinstance(node, XmlText) or (node is not None and _is_inline(node)):
            loose.append(node)
            continue
        if loose:
            found.append(_inline_nodes(loose))
            loose = []
        if node is not None:
            found += _block(node)
    return [block for block in found if block]


def _block(node: Any) -> list[str]:
    tag, children = _tag(node), list(node.children)
    match tag:
        case "heading":
            return [_heading(_attribute(node, "level"), _inline_nodes(children))]
        case "codeblock":
            language = re.sub(r"[\s`]", "", str(_attribute(node, "language") or ""))
            return [_fenced("".join(map(_said, children)), language)]
        case "blockquote":
            return [_prefixed("\n\n".join(_blocks(children)), "> ", "> ")]
        case "bulletlist" | "tasklist":
            return [_items(children, None)]
        case "orderedlist":
            start = _attribute(node, "start") or _attribute(node, "order")
            return [_items(children, _number(start, 1))]
        case "horizontalrule":
            return ["---"]
        case _:
            return _blocks(children)


def _items(nodes: Sequence[Any], number: int | None) -> str:
    items = []
    for at, node in enumerate(nodes):
        mark = "- " if number is None else f"{number + at}. "
        if isinstance(node, XmlText):
            content = _inline_nodes([node])
        else:
            checked = _attribute(node, "checked")
            if checked is not None:
                mark += "[x] " if checked in (True, "true") else "[ ] "
            parts = list(node.children)
            is_nested = any(_tag(part) in _CONTAINERS for part in parts)
            blocks = _blocks(parts)
            is_tight = len(blocks) < 2 or (is_nested and len(blocks) == 2)
            content = ("\n" if is_tight else "\n\n").join(blocks)
        width = 2 if number is None else len(mark)
        items.append(_prefixed(content, mark, " " * width))
    return "\n".join(items)


def _is_inline(node: Any) -> bool:
    return _tag(node) in ("hardbreak", "image", "mention", "emoji")


def _inline_nodes(nodes: Sequence[Any]) -> str:
    pieces: list[Piece] = []
    for node in nodes:
        if isinstance(node, XmlText):
            pieces += node.diff()
        elif _tag(node) == "hardbreak":
            pieces.append((_Raw("\\\n"), None))
        elif _tag(node) == "image":
            alt = str(_attribute(node, "alt") or "")
            pieces.append((_Raw(_image(alt, str(_attribute(node, "src") or ""))), None))
        else:
            label = _attribute(node, "label") or _attribute(node, "name")
            pieces.append((str(label or text_of_xml(node)), None))
    return _inline(pieces)


def tag_of(tag: str) -> str:
    """`bullet_list` and `bulletList` are the same."""
    return tag.replace("_", "").replace("-", "").lower()


def _tag(node: Any) -> str:
    return tag_of(node.tag or "") if isinstance(node, XmlElement) else ""


def _attribute(node: Any, name: str) -> Any:
    return node.attributes.get(name) if isinstance(node, XmlElement) else None


def _said(node: Any) -> str:
    if isinstance(node, XmlText):
        return "".join(what for what, _ in node.diff() if isinstance(what, str))
    return text_of_xml(node)


# Inside a line


class _Raw(str):
    """Markdown already."""

    __slots__ = ()


def _inline(pieces: Iterable[Piece]) -> str:
    """Characters with their formats. White space stays outside: `** bold**` would be no format."""
    out: list[str] = []
    open_marks: list[tuple[str, str]] = []
    space = ""
    for what, attributes in pieces:
        if not isinstance(what, str):
            source = what.get("image") if isinstance(what, dict) else None
            what = _Raw(_image("", source) if isinstance(source, str) else "\ufffc")
        core = what.strip()
        if not core:
            space += what if isinstance(what, str) else ""
            continue
        if isinstance(what, _Raw):
            core, before, after = str(what), "", ""
        else:
            before = what[: len(what) - len(what.lstrip())]
            after = what[len(what.rstrip()) :]
        marks = _marks(attributes or {})
        same = 0
        while same < min(len(open_marks), len(marks)) and (
            open_marks[same] == marks[same]
        ):
            same += 1
        while len(open_marks) > same:
            out.append(_closing(*open_marks.pop()))
        out.append(space + before)
        space = after
        for mark in marks[same:]:
            out.append(
                "[" if mark[0] == "link" else "" if mark[0] == "code" else mark[0]
            )
            open_marks.append(mark)
        is_code = bool(marks) and marks[-1][0] == "code"
        if isinstance(what, _Raw):
            out.append(core)
        else:
            out.append(_code(core) if is_code else _escaped(core))
    while open_marks:
        out.append(_closing(*open_marks.pop()))
    text = "".join(out) + space
    return _LINE_START.sub(_guarded, text.strip("\n"))


def _marks(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for name, value in attributes.items():
        # Overlapping marks of one kind carry a hash behind their name.
        mark = _MARKS.get(name.split("--")[0])
        if mark is None or value is None or value is False:
            continue
        if mark == "link":
            value = value.get("href") if isinstance(value, dict) else value
            found[mark] = str(value or "")
        else:
            found[mark] = ""
    return [(mark, found[mark]) for mark in _ORDER if mark in found]


def _closing(mark: str, value: str) -> str:
    if mark == "link":
        return f"]({_target(value)})"
    return "" if mark == "code" else mark


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _guarded(match: re.Match[str]) -> str:
    """What would begin a heading, list, quote or rule is a character like others."""
    space, start = match.groups()
    return f"{space}{start}\\" if start.isdigit() else f"{space}\\{start}"


def _code(text: str) -> str:
    fence = "`" * (_longest(text, "`") + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _fenced(text: str, language: str = "") -> str:
    fence = "`" * max(3, _longest(text, "`") + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest(text: str, character: str) -> int:
    runs = re.findall(f"{character}+", text)
    return max(map(len, runs), default=0)


def _image(alt: str, source: str) -> str:
    return f"![{_escaped(alt)}]({_target(source)})"


def _target(address: str) -> str:
    address = re.sub(r"[\s<>\\]", lambda match: f"%{ord(match[0]):02X}", address)
    return f"<{address}>" if re.search(r"[()]", address) or not address else address


def _heading(level: Any, text: str) -> str:
    return f"{'#' * min(max(_number(level, 1), 1), 6)} {text}".replace("\n", " ")


def _number(value: Any, default: int) -> int:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return default


def _prefixed_if_any(text: str, first: str, rest: str) -> str:
    return _prefixed(text, first, rest) if text else ""


def _prefixed(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    others = [f"{rest}{line}".rstrip() for line in lines[1:]]
    return "\n".join([f"{first}{lines[0]}".rstrip(), *others])

"""Markdown as the blocks of a rich editor: CommonMark's headings, lists, quotes, code, rules, emphasis and links, with
task lists and strike-through as on GitHub. What is nothing of that, such as a table or HTML, is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pycrdt import XmlElement, XmlFragment, XmlText

from collab.document.markdown import tag_of

Editor = Literal["tiptap", "prosemirror", "blocknote"]

MAX_DEPTH = 12  # of quotes and lists in each other; what is deeper is text

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})\s*([^\s`]*).*$")
_HEADING = re.compile(r" {0,3}(#{1,6})(?: (.*))?$")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r"( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)| *$|(?= {5}) )")
_TASK = re.compile(r"\[([ xX])\] +(?=\S)")

_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(
    r"(!?)\[((?:\\.|[^\[\]\\]){0,2000})\]"
    r"\(\s*(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}))(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)"
)
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^\s<>]{1,2000})>")
_RUN = re.compile(r"\*+|_+|~~")
_PLAIN = re.compile(r"[^\\`\[!<*_~\n]+")


@dataclass(frozen=True, slots=True)
class Words:
    """Characters with marks, by the names that Tiptap has for them."""

    text: str
    marks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """An element, by the name that Tiptap has for it."""

    tag: str
    children: Sequence[Node | Words] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


# Markdown → nodes


def blocks_of(text: str) -> list[Node]:
    """What a Markdown text says."""
    return list(_blocks(text.expandtabs(4).splitlines(), 0))


def complete(text: str) -> tuple[str, str]:
    """Of a Markdown text that is still being written the blocks that are finished, and what is not."""
    fence, end, at = "", 0, 0
    is_blank = False
    for line in text.splitlines(keepends=True):
        said = line.rstrip("\r\n")
        if is_blank and not fence and said[:1].strip():
            end = at
        mark = _FENCE.match(said)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
        elif mark:
            fence = mark[1]
        is_blank = not said.strip() and line != said
        at += len(line)
    return text[:end], text[end:]


def _blocks(lines: Sequence[str], depth: int) -> Iterator[Node]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
        elif fence := _FENCE.match(line):
            end = at + 1
            while end < len(lines) and not _closes(lines[end], fence[1]):
                end += 1
            code = "\n".join(lines[at + 1 : end])
            language = {"language": fence[2]} if fence[2] else {}
            yield Node("codeBlock", [Words(code)] if code else [], language)
            at = end + 1
        elif heading := _HEADING.match(line):
            said = _titled(heading[2] or "")
            yield Node("heading", inline(said), {"level": len(heading[1])})
            at += 1
        elif _RULE.match(line):
            yield Node("horizontalRule")
            at += 1
        elif depth < MAX_DEPTH and _QUOTE.match(line):
            end = at
            while end < len(lines) and _QUOTE.match(lines[end]):
                end += 1
            inner = [_QUOTE.sub("", each, count=1) for each in lines[at:end]]
            yield Node("blockquote", list(_blocks(inner, depth + 1)) or [_EMPTY])
            at = end
        elif depth < MAX_DEPTH and (item := _ITEM.match(line)):
            found, at = _list(lines, at, item, depth)
            yield found
        else:
            end = at + 1
            while end < len(lines) and not _interrupts(lines[end], depth):
                end += 1
            yield Node("paragraph", inline(_joined(lines[at:end])))
            at = end


def _titled(line: str) -> str:
    """What a heading says, without the signs that may close it."""
    said = line.strip()
    rest = said.rstrip("#")
    return said if rest and not rest.endswith(" ") else rest.rstrip()


def _closes(line: str, fence: str) -> bool:
    found = _FENCE.match(line)
    return found is not None and found[1].startswith(fence) and not found[2]


def _interrupts(line: str, depth: int) -> bool:
    """Whether something else than more of a paragraph begins there."""
    if not line.strip() or any(
        kind.match(line) for kind in (_FENCE, _HEADING, _RULE, _QUOTE)
    ):
        return True
    item = _ITEM.match(line)
    return (
        depth < MAX_DEPTH
        and item is not None
        and item[3] is not None
        and not (item[2][:-1].isdigit() and item[2][:-1] != "1")
    )


def _joined(lines: Sequence[str]) -> str:
    """The lines of a paragraph, in which a break is a hard one."""
    said = ""
    for line in lines[:-1]:
        text = line.strip()
        if text.endswith("\\") and not text.endswith("\\\\"):
            said += text[:-1] + "\n"
        else:
            said += text + ("\n" if line.endswith("  ") else " ")
    return said + lines[-1].strip()


def _list(
    lines: Sequence[str], at: int, first: re.Match[str], depth: int
) -> tuple[Node, int]:
    kind = first[2][-1]
    items: list[list[str]] = []
    while at < len(lines):
        item = _ITEM.match(lines[at])
        if item is None or item[2][-1] != kind or _RULE.match(lines[at]):
            break
        width = item.end()
        body = [lines[at][width:]]
        at += 1
        while at < len(lines):
            line = lines[at]
            if line.strip() and _indent(line) < min(width, 2 + len(item[1])):
                if (
                    not body[-1].strip()
                    or _interrupts(line, depth)
                    or _ITEM.match(line)
                ):
                    break
            end = at + 1
            if not line.strip():
                end = _behind_blank(lines, at)
                if end == len(lines) or _indent(lines[end]) < min(width, 2):
                    break
            body += [each[min(width, _indent(each)) :] for each in lines[at:end]]
            at = end
        items.append(body)
        while at < len(lines) and not lines[at].strip():
            if at + 1 < len(lines) and not lines[at + 1].strip():
                at += 1
                continue
            following = _ITEM.match(lines[at + 1]) if at + 1 < len(lines) else None
            if following is None or following[2][-1] != kind:
                break
            at += 1
    are_tasks = all(_TASK.match(body[0]) for body in items)
    tag = "taskItem" if are_tasks else "listItem"
    nodes = [_item(tag, body, depth) for body in items]
    if are_tasks:
        return Node("taskList", nodes), at
    if kind in ".)":
        start = int(first[2][:-1])
        return Node("orderedList", nodes, {"start": start} if start != 1 else {}), at
    return Node("bulletList", nodes), at


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _behind_blank(lines: Sequence[str], at: int) -> int:
    """Where something follows."""
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at


def _item(tag: str, body: list[str], depth: int) -> Node:
    attributes: dict[str, Any] = {}
    if tag == "taskItem" and (mark := _TASK.match(body[0])):
        attributes = {"checked": mark[1] != " "}
        body = [body[0][mark.end() :], *body[1:]]
    children = list(_blocks(body, depth + 1))
    if not children or children[0].tag != "paragraph":
        children.insert(0, _EMPTY)
    return Node(tag, children, attributes)


_EMPTY = Node("paragraph")


# Inside a line


@dataclass(slots=True)
class _Mark:
    """A run of asterisks, underscores or tildes that may begin or end an emphasis."""

    sign: str
    count: int
    opens: bool
    closes: bool


def inline(text: str) -> list[Node | Words]:
    """The content of a block; a line break is a hard one."""
    parts = list(_parts(text))
    _emphasise(parts)
    found: list[Node | Words] = []
    for part in parts:
        assert not isinstance(part, _Mark)
        if isinstance(part, Words) and not part.text:
            continue
        last = found[-1] if found else None
        if (
            isinstance(part, Words)
            and isinstance(last, Words)
            and last.marks == part.marks
        ):
            found[-1] = Words(last.text + part.text, part.marks)
        else:
            found.append(part)
    return found


def _parts(text: str) -> Iterator[Words | Node | _Mark]:
    at = 0
    while at < len(text):
        if plain := _PLAIN.match(text, at):
            yield Words(plain[0])
            at = plain.end()
        elif escape := _ESCAPE.match(text, at):
            yield Words(escape[1])
            at = escape.end()
        elif code := _CODE.match(text, at):
            said = code[2].replace("\n", " ")
            if said.strip() and said[0] == said[-1] == " ":
                said = said[1:-1]
            yield Words(said, {"code": {}})
            at = code.end()
        elif text[at] == "`":
            end = at + 1
            while text[end : end + 1] == "`":
                end += 1
            yield Words(text[at:end])
            at = end
        elif link := _LINK.match(text, at):
            target = _ESCAPE.sub(r"\1", link[3] if link[3] is not None else link[4])
            mark = {"link": {"href": target}}
            for part in inline(link[2]) or [Words(target)]:
                if isinstance(part, Words):
                    yield replace(part, marks={**part.marks, **mark})
                else:
                    yield part
            at = link.end()
        elif address := _AUTOLINK.match(text, at):
            yield Words(address[1], {"link": {"href": address[1]}})
            at = address.end()
        elif run := _RUN.match(text, at):
            yield _mark_of(text, run)
            at = run.end()
        elif text[at] == "\n":
            yield Node("hardBreak")
            at += 1
        else:
            yield Words(text[at])
            at += 1


def _mark_of(text: str, run: re.Match[str]) -> _Mark:
    """Which sides it can be on (CommonMark 6.2)."""
    before = text[run.start() - 1] if run.start() else " "
    after = text[run.end()] if run.end() < len(text) else " "
    is_left = not after.isspace() and (
        after.isalnum() or before.isspace() or not before.isalnum()
    )
    is_right = not before.isspace() and (
        before.isalnum() or after.isspace() or not after.isalnum()
    )
    sign = run[0][0]
    if sign == "_":
        return _Mark(
            sign,
            len(run[0]),
            is_left and not (is_right and before.isalnum()),
            is_right and not (is_left and after.isalnum()),
        )
    return _Mark(sign, len(run[0]), is_left, is_right)


def _emphasise(parts: list[Words | Node | _Mark]) -> None:
    """Give marks to what stands between runs that belong together, and take from the runs what was used."""
    opening: list[int] = []
    searched: dict[str, int] = {}  # no run of that sign is open before here
    turns: list[list[tuple[str, int]]] = [[] for _ in parts]  # a mark begins, or ends
    for at, part in enumerate(parts):
        if not isinstance(part, _Mark):
            continue
        while part.closes and part.count:
            begin = _opener(parts, opening, part.sign, searched.get(part.sign, 0))
            if begin is None:
                searched[part.sign] = at
                break
            opener = parts[begin]
            assert isinstance(opener, _Mark)
            used = 2 if min(opener.count, part.count) >= 2 else 1
            mark = "strike" if part.sign == "~" else ("italic", "bold")[used - 1]
            turns[begin].append((mark, 1))
            turns[at].append((mark, -1))
            opener.count -= used
            part.count -= used
            while opening[-1] > begin:
                opening.pop()
            if not opener.count:
                opening.pop()
        if part.opens and part.count and not (part.sign == "~" and part.count < 2):
            opening.append(at)
    depths = {"bold": 0, "italic": 0, "strike": 0}
    for at, (part, here) in enumerate(zip(parts, turns, strict=True)):
        for mark, step in here:
            depths[mark] += min(step, 0)
        marks: dict[str, Any] = {mark: {} for mark in depths if depths[mark]}
        if isinstance(part, Words):
            parts[at] = replace(part, marks={**marks, **part.marks})
        elif isinstance(part, _Mark):  # what is left of it is text
            parts[at] = Words(part.sign * part.count, marks)
        for mark, step in here:
            depths[mark] += max(step, 0)


def _opener(
    parts: Sequence[Any], opening: Sequence[int], sign: str, first: int
) -> int | None:
    """The last open run of this sign, of those from `first` on."""
    for at in reversed(opening):
        if at < first:
            break
        if parts[at].sign == sign:
            return at
    return None


# As which elements an editor has them

_SNAKE = {
    "bulletList": "bullet_list",
    "orderedList": "ordered_list",
    "listItem": "list_item",
    "codeBlock": "code_block",
    "hardBreak": "hard_break",
    "horizontalRule": "horizontal_rule",
    "taskList": "task_list",
    "taskItem": "task_item",
}
_ITEMS = {
    "bulletList": "bulletListItem",
    "orderedList": "numberedListItem",
    "taskList": "checkListItem",
}


def shaped(
    nodes: Iterable[Node], tags: Iterable[str], editor: Editor | None = None
) -> list[Node]:
    """The same by the names of an editor, or else by those that a document has already, or else by those of Tiptap.

    A task list is one only where there is one: an editor that knows none would remove it.
    """
    known = set(tags)
    if editor == "blocknote" or (editor is None and "blockContainer" in known):
        return [each for node in nodes for each in _contained(node)]
    is_snake = editor == "prosemirror" or (
        editor is None and any("_" in tag for tag in known)
    )
    has_tasks = any(tag_of(tag) == "tasklist" for tag in known)
    return [_named(node, is_snake, has_tasks) for node in nodes]


def _named(node: Node, is_snake: bool, has_tasks: bool) -> Node:
    if node.tag == "taskList" and not has_tasks:
        node = Node("bulletList", [_untasked(item) for item in node.children])
    attributes = node.attributes
    if is_snake and node.tag == "orderedList" and "start" in attributes:
        attributes = {"order": attributes["start"]}
    children: list[Node | Words] = []
    for child in node.children:
        if isinstance(child, Node):
            children.append(_named(child, is_snake, has_tasks))
        elif is_snake:
            children.append(_plain_marks(child))
        else:
            children.append(_alone(child))
    tag = _SNAKE.get(node.tag, node.tag) if is_snake else node.tag
    return Node(tag, children, attributes)


def _untasked(item: Node | Words) -> Node:
    """An item with its box as characters."""
    assert isinstance(item, Node)
    first, *more = item.children
    assert isinstance(first, Node)
    box = Words("[x] " if item.attributes["checked"] else "[ ] ")
    return Node("listItem", [replace(first, children=[box, *first.children]), *more])


def _alone(words: Words) -> Words:
    """For Tiptap, code has no other mark."""
    return Words(words.text, {"code": {}}) if "code" in words.marks else words


def _plain_marks(words: Words) -> Words:
    """ProseMirror's own schema calls two marks otherwise, and has no strike-through."""
    names = {"bold": "strong", "italic": "em"}
    return Words(
        words.text,
        {
            names.get(mark, mark): value
            for mark, value in words.marks.items()
            if mark != "strike"
        },
    )


def _contained(node: Node | Words, item: str = "") -> Iterator[Node]:
    """As BlockNote has it: each block in a container, and in it what is indented below."""
    assert isinstance(node, Node)
    if node.tag in _ITEMS:
        for child in node.children:
            yield from _contained(child, _ITEMS[node.tag])
        return
    if node.tag in ("listItem", "taskItem"):
        first, *more = node.children
        assert isinstance(first, Node)
        own = Node(item, first.children, node.attributes)
        below = [each for child in more for each in _contained(child)]
    elif node.tag == "blockquote":
        for child in node.children:
            assert isinstance(child, Node)
            if child.tag == "paragraph":
                yield Node("blockContainer", [Node("quote", child.children)])
            else:
                yield from _contained(child)
        return
    elif node.tag == "horizontalRule":
        return
    else:
        own, below = node, []
    group = [Node("blockGroup", below)] if below else []
    yield Node("blockContainer", [own, *group])


# Nodes ↔ shared types

# What Markdown says of marks: others are nobody's business here.
MARKS = {"bold", "strong", "italic", "em", "strike", "code", "link"}
_SAID = ("level", "language", "checked", "start", "order")


def put(parent: XmlFragment | XmlElement, at: int, node: Node, new_id: str) -> None:
    """Insert a node and all that is in it; `new_id` is for an element that must have one."""
    attributes: Any = dict(node.attributes)
    if node.tag == "blockContainer":
        attributes["id"] = new_id
    element = parent.children.insert(at, XmlElement(node.tag, attributes))
    text: XmlText | None = None
    end = 0
    for number, child in enumerate(node.children):
        if isinstance(child, Node):
            put(element, len(element.children), child, f"{new_id}.{number}")
            text = None
            continue
        if text is None:
            text, end = element.children.append(XmlText("")), 0
        text.insert(end, child.text, child.marks)
        end += len(child.text.encode())


def read(element: XmlElement) -> Node:
    """An element as a node, by the names that the document has."""
    children: list[Node | Words] = []
    for child in element.children:
        if isinstance(child, XmlElement):
            children.append(read(child))
        elif isinstance(child, XmlText):
            for piece, marks in child.diff():
                said = piece if isinstance(piece, str) else "\ufffc"
                children.append(Words(said, dict(marks or {})))
    attributes: Any = element.attributes  # iterable, whatever its types say
    return Node(element.tag or "", children, dict(attributes))


def key(node: Node | Words) -> tuple[Any, ...]:
    """What Markdown would say of it: equal for what says the same."""
    if isinstance(node, Words):
        return node.text, tuple(sorted(_mark_keys(node.marks)))
    attributes = {
        name: node.attributes[name]
        for name in _SAID
        if node.attributes.get(name) not in (None, "", False)
    }
    if attributes.get("start") == 1:
        del attributes["start"]
    if attributes.get("order") == 1:
        del attributes["order"]
    merged: list[tuple[Any, ...]] = []
    for child in node.children:
        found = key(child)
        if isinstance(child, Words) and merged and len(merged[-1]) == 2:
            if merged[-1][1] == found[1]:
                merged[-1] = merged[-1][0] + found[0], found[1]
                continue
        merged.append(found)
    return node.tag, tuple(sorted(attributes.items())), tuple(merged)


def shape(node: Node) -> tuple[Any, ...]:
    """What kind of element it is."""
    tag, attributes, _ = key(node)
    return tag, attributes


def text_in(node: Node) -> str | None:
    """Its characters, if it holds nothing else."""
    if any(isinstance(child, Node) for child in node.children):
        return None
    return "".join(child.text for child in node.children if isinstance(child, Words))


def _mark_keys(marks: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in marks.items():
        if name.split("--")[0] in MARKS and value is not None:
            href = value.get("href") if isinstance(value, dict) else ""
            yield name.split("--")[0], str(href or "")

"""The sections of an XML tree, and blocks that come into them: as few of those that are there change as possible."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pycrdt import XmlElement, XmlText

from collab.document.anchor import Root
from collab.document.blocks import (
    MARKS,
    Node,
    Words,
    key,
    put,
    read,
    shape,
    text_in,
)
from collab.document.characters import Change
from collab.document.differences import changes as differences
from collab.document.prose import ITEMS, Chapter, Prose, Step

LISTS = {"bulletlist", "orderedlist", "tasklist"}


class Line(NamedTuple):
    """How a line becomes another one; whether it says exactly that afterwards."""

    changes: list[Change]
    is_exact: bool


class Chapters:
    """What may be done once with the sections of a tree as it is."""

    def __init__(
        self,
        prose: Prose,
        line: Callable[[int, int, str], Line],
        is_foreign: Callable[[int, int], bool],
    ) -> None:
        """`line` tells how what stands between two places becomes something else, `is_foreign` whether others have written
        there what nobody has read: that is not removed.
        """
        self._prose, self._line, self._is_foreign = prose, line, is_foreign

    def replace(self, chapter: Chapter, nodes: Sequence[Node]) -> None:
        """Make the body of a section say this."""
        self._align(chapter.holder, chapter.first, chapter.last, nodes)

    def append(self, chapter: Chapter, nodes: Sequence[Node]) -> tuple[Root, int]:
        """Put blocks at its end, items into the list that ends it; where the last of them is."""
        holder = self._prose.node(chapter.holder)
        last, rest = chapter.last, list(nodes)
        if last > chapter.first:
            self._join(holder.children[last - 1], None, rest)
        return self._put(chapter.holder, last, rest)

    def before(self, chapter: Chapter, nodes: Sequence[Node]) -> None:
        """Put blocks before its heading."""
        self._put(chapter.holder, chapter.first - 1, nodes)

    def behind(self, index: int, nodes: Sequence[Node]) -> tuple[Root, int]:
        """Put blocks behind the one that a place is in, or in its place if it is empty; where the last of them is."""
        prose, rest = self._prose, list(nodes)
        if not prose.blocks:
            if rest and rest[0].tag == "blockContainer":
                rest = [Node("blockGroup", rest)]
            return self._put((), 0, rest)
        block = prose.block_at(index)
        depth = len(block.steps)
        if not depth:
            return self._put((), block.parts[-1].child + 1, rest)
        while depth > 1 and block.steps[depth - 2].tag in LISTS | ITEMS:
            depth -= 1
        unit, holder = block.steps[depth - 1], block.steps[: depth - 1]
        if unit.tag in LISTS:
            element = prose.node(block.steps[:depth])
            below = block.steps[depth:]  # none in a list without items
            self._join(element, below[0].child + 1 if below else 0, rest)
        elif prose.is_bare(block) and rest:
            del prose.node(holder).children[unit.child]
            return self._put(holder, unit.child, rest)
        return self._put(holder, unit.child + 1, rest)

    def _join(self, element: Any, at: int | None, nodes: list[Node]) -> None:
        """A list that comes behind a list of its kind becomes a part of it."""
        if not nodes or not isinstance(element, XmlElement):
            return
        if element.tag != nodes[0].tag or not nodes[0].tag.lower().endswith("list"):
            return
        at = len(element.children) if at is None else at
        for item in reversed(nodes.pop(0).children):
            if isinstance(item, Node):
                put(element, at, item, "")

    def _put(
        self, steps: Sequence[Step], at: int, nodes: Sequence[Node]
    ) -> tuple[Root, int]:
        holder = self._prose.node(steps)
        for number, node in enumerate(nodes):
            put(holder, at + number, node, str(uuid.uuid4()))
        return (steps[-1].id if steps else self._prose.root), at + len(nodes) - 1

    # The same, with the fewest changes

    def _align(
        self,
        steps: tuple[Step, ...],
        first: int,
        last: int,
        nodes: Sequence[Node | Words],
    ) -> None:
        """Make some children of an element say this."""
        holder = self._prose.node(steps)
        old = [_read(holder.children[at]) for at in range(first, last)]
        for gone, come in reversed(list(_aligned(old, nodes))):
            at = first + gone.start
            if len(gone) and len(come):
                new = nodes[come.start]
                if isinstance(new, Node):
                    self._change(steps, at, old[gone.start], new)
                continue
            for number in reversed(gone):
                if not self._is_foreign(*self._extent(steps, first + number)):
                    del holder.children[first + number]
            for number in reversed(come):
                new = nodes[number]
                if isinstance(new, Node):
                    put(holder, at, new, str(uuid.uuid4()))

    def _extent(self, steps: Sequence[Step], at: int) -> tuple[int, int]:
        return self._prose.extent(steps[-1].id if steps else self._prose.root, at)

    def _change(
        self, steps: tuple[Step, ...], at: int, old: Node | Words, new: Node
    ) -> None:
        """One element of the same kind says something else."""
        if not isinstance(old, Node) or key(old) == key(new):
            return
        step = self._prose.step(steps, at)
        said, text = text_in(old), text_in(new)
        if said is not None and text is not None:
            start, end = self._extent(steps, at)
            line = self._line(start, end, text)
            self._prose.splice(self._prose.block_at(start), line.changes)
            if line.is_exact:
                _mark(self._prose.node((*steps, step)), new)
            return
        if not any(
            isinstance(child, Words) for child in (*old.children, *new.children)
        ):
            self._align((*steps, step), 0, len(old.children), new.children)
            return
        holder = self._prose.node(steps)
        put(holder, at + 1, new, str(uuid.uuid4()))
        if not self._is_foreign(*self._extent(steps, at)):
            del holder.children[at]


def _read(child: Any) -> Node | Words:
    return read(child) if isinstance(child, XmlElement) else Words(str(child))


def _aligned(
    old: Sequence[Node | Words], new: Sequence[Node | Words]
) -> Iterator[tuple[range, range]]:
    """Which of the old become which of the new, those that go and those that come; in order."""
    hunks = differences([key(node) for node in old], [key(node) for node in new])
    for start, stop, new_start, new_stop in hunks:
        at, new_at = start, new_start
        inner = differences(_shapes(old[start:stop]), _shapes(new[new_start:new_stop]))
        for gone, gone_end, come, come_end in [
            *inner,
            (stop - start, stop - start, new_stop - new_start, new_stop - new_start),
        ]:
            while at < start + gone:
                yield range(at, at + 1), range(new_at, new_at + 1)
                at, new_at = at + 1, new_at + 1
            if come_end > come:
                yield range(at, at), range(new_at, new_start + come_end)
            if gone_end > gone:
                yield range(at, start + gone_end), range(0)
            at, new_at = start + gone_end, new_start + come_end


def _shapes(nodes: Sequence[Node | Words]) -> list[tuple[Any, ...]]:
    return [shape(node) if isinstance(node, Node) else () for node in nodes]


def _mark(element: Any, new: Node) -> None:
    """Give a text the marks that Markdown says, and take those from it that Markdown could have said; others stay."""
    texts = [child for child in element.children if isinstance(child, XmlText)]
    if len(texts) != 1:
        return
    wanted = [
        (sign, child.marks)
        for child in new.children
        if isinstance(child, Words)
        for sign in child.text
    ]
    at = offset = 0
    changes: list[tuple[int, int, dict[str, Any]]] = []
    for piece, marks in texts[0].diff():
        has = marks or {}
        if not isinstance(piece, str):
            return
        for sign in piece:
            if at >= len(wanted) or wanted[at][0] != sign:
                return  # somebody else's
            size = len(sign.encode())
            change = _difference(has, wanted[at][1])
            if changes and changes[-1][1] == offset and changes[-1][2] == change:
                changes[-1] = changes[-1][0], offset + size, change
            elif change:
                changes.append((offset, offset + size, change))
            at, offset = at + 1, offset + size
    for start, stop, change in changes:
        texts[0].format(start, stop, change)


def _difference(has: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = {
        name: None
        for name in has
        if name.split("--")[0] in MARKS and name.split("--")[0] not in wanted
    }
    for name, value in wanted.items():
        now = [mark for each, mark in has.items() if each.split("--")[0] == name]
        if not now or (name == "link" and _address(now[0]) != _address(value)):
            change[name] = value
    return change


def _address(mark: Any) -> Any:
    return mark.get("href") if isinstance(mark, dict) else mark

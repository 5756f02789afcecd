"""XML as editors built on ProseMirror keep it, as one text: a line for each block.

What stands in a block without being a character, such as an image, counts as one and reads as U+FFFC; a hard break
reads as a line break. A block that holds no text is an empty line. Text is written into the block it belongs to, and a
line that comes or goes is a block that does.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pycrdt import XmlElement, XmlFragment, XmlText

from collab.document.anchor import Anchor, Id, Place, Root, Side
from collab.document.budget import Budget
from collab.document.characters import Change, word_changes
from collab.document.differences import changes as differences
from collab.document.differences import middle
from collab.document.markdown import ITEM_BLOCKS, TEXT_BLOCKS, tag_of
from collab.document.order import Line as Row
from collab.document.order import Order, Span
from collab.document.pieces import Piece
from collab.document.shared import ELEMENT, XML_TEXT
from collab.document.units import EMBED
from collab.document.values import Problem

# These begin with a block of text, whatever follows in them.
ITEMS = {"listitem", "taskitem", "blockcontainer"}
CELLS = {"tablecell", "tableheader"}


Line = str | int  # what a block says; of one that holds no text, its number


class Step(NamedTuple):
    """An element on the way from the top to a block."""

    id: Id
    tag: str  # as `tag_of` has it
    child: int  # of the one above


class Part(NamedTuple):
    """What stands in a block: the characters of one text, or something that is none."""

    start: int
    size: int
    id: Id
    child: int  # of the block
    text: str | None


class Block(NamedTuple):
    """One line. `steps` lead to its element, or to the one that its parts stand in beside other blocks."""

    start: int
    size: int
    steps: tuple[Step, ...]
    held: tuple[Part, ...]  # counted from where it begins, so that it is easily moved
    holds_text: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        """What stands in it, counted as it is."""
        start = self.start
        return tuple([part._replace(start=start + part.start) for part in self.held])

    @property
    def end(self) -> int:
        """Behind its last character."""
        return self.start + self.size

    @property
    def tag(self) -> str:
        """Of its element."""
        return self.steps[-1].tag if self.steps else ""

    @property
    def keeps_breaks(self) -> bool:
        """Whether a line break in it is a character like others."""
        return self.tag == "codeblock"


class Chapter(NamedTuple):
    """A heading and what follows it up to the next one beside it that is no deeper; `first` to `last` are the children of
    the element `holder` that follow.
    """

    level: int
    title: str
    start: int
    body: int
    end: int
    holder: tuple[Step, ...]
    first: int
    last: int


class Prose:
    """An XML tree as it is in an order at this moment. With `shared`, the tree itself, it can be changed, once."""

    def __init__(
        self, order: Order, root: Root, shared: XmlFragment | None = None
    ) -> None:
        self.root = root
        self._order, self._shared = order, shared
        self.blocks: list[Block] = []
        self._ranges: dict[Root, tuple[int, int]] = {}  # of a node, its blocks
        self._children: dict[Root, list[Id]] = {}
        self._parts: dict[Id, tuple[int, int]] = {}  # their blocks, and numbers there
        self._said: list[str] = []  # only while it is made
        self._at = 0
        self._is_frozen = False
        self._walk(root, order.line(root), ())
        self.shown = "".join(self._said)
        self._starts = [block.start for block in self.blocks]

    # How it is made

    def _walk(self, root: Root, within: Row | None, steps: tuple[Step, ...]) -> None:
        first = len(self.blocks)
        pieces = (
            [] if within is None else [each for each in within.pieces() if each.size]
        )
        ids = [Id(piece.client, piece.clock) for piece in pieces]
        self._children[root] = ids
        has_text = bool(steps) and (
            steps[-1].tag in TEXT_BLOCKS
            or any(_kind(piece) == XML_TEXT for piece in pieces)
        )
        run: list[tuple[int, Id, Piece]] = []
        for number, (id_, piece) in enumerate(zip(ids, pieces, strict=True)):
            if has_text or _is_inline(piece):
                run.append((number, id_, piece))
                continue
            if run:
                self._block(steps, run, holds_text=True)
                run = []
            self._element(id_, piece, number, steps)
        if run:
            self._block(steps, run, holds_text=True)
        self._ranges[root] = first, len(self.blocks) - 1

    def _element(
        self, id_: Id, piece: Piece, number: int, steps: tuple[Step, ...]
    ) -> None:
        lines = piece.lines
        if lines is None or lines.kind != ELEMENT:
            raise Problem("this root holds XML and something else at once")
        tag = tag_of(lines.tag)
        below = (*steps, Step(id_, tag, number))
        within = lines.get(None)
        if within is not None and within.size():
            self._walk(id_, within, below)
            return
        self._children[id_] = []
        self._block(below, (), holds_text=tag in TEXT_BLOCKS)
        self._ranges[id_] = len(self.blocks) - 1, len(self.blocks) - 1

    def _block(
        self,
        steps: tuple[Step, ...],
        run: Iterable[tuple[int, Id, Piece]],
        *,
        holds_text: bool,
    ) -> None:
        if self.blocks:
            self._say("\n")
        start = self._at
        parts: list[Part] = []
        for number, id_, piece in run:
            begin, text = self._at, None
            if _kind(piece) == XML_TEXT:
                text = _text(piece)
                self._say(text)
            else:
                is_break = piece.lines is not None and (
                    tag_of(piece.lines.tag) == "hardbreak"
                )
                self._say("\n" if is_break else EMBED)
            self._parts[id_] = len(self.blocks), len(parts)
            parts.append(Part(begin - start, self._at - begin, id_, number, text))
        size = self._at - start
        self.blocks.append(Block(start, size, steps, tuple(parts), holds_text))

    def _say(self, text: str) -> None:
        self._said.append(text)
        self._at += len(text)

    def renewed(self, texts: Iterable[Id]) -> Prose:
        """The same tree, in which only these texts say something else now."""
        fresh = Prose.__new__(Prose)
        fresh.root, fresh._order, fresh._shared = self.root, self._order, self._shared
        fresh._ranges, fresh._children = self._ranges, self._children
        fresh._parts, fresh._is_frozen = self._parts, False
        blocks = fresh.blocks = self.blocks.copy()
        shown = self.shown
        for id_ in texts:
            if id_ not in self._parts:
                continue
            number, at = self._parts[id_]
            start, size, steps, held, holds_text = blocks[number]
            was, text = held[at], self._order.text(id_)
            more = len(text) - was.size
            begin = start + was.start
            shown = f"{shown[:begin]}{text}{shown[begin + was.size :]}"
            parts = (
                *held[:at],
                was._replace(size=len(text), text=text),
                *[part._replace(start=part.start + more) for part in held[at + 1 :]],
            )
            blocks[number] = Block(start, size + more, steps, parts, holds_text)
            if more:
                blocks[number + 1 :] = [
                    Block(begins + more, size, steps, held, holds_text)
                    for begins, size, steps, held, holds_text in blocks[number + 1 :]
                ]
        fresh.shown = shown
        fresh._starts = [block.start for block in blocks]
        return fresh

    # Where what is

    def _number(self, index: int) -> int:
        """The block that a place is in."""
        return max(bisect_right(self._starts, index) - 1, 0)

    @cached_property
    def _spans(self) -> list[Span]:
        """All characters."""
        return self._spans_of(0, len(self.blocks))

    def _spans_of(self, first: int, last: int) -> list[Span]:
        """Those of some blocks; a break between two is there by the id of what begins behind it."""
        found: list[Span] = []
        before = self.blocks[first - 1] if first else None
        for block in self.blocks[first:last]:
            if before is not None:
                id_ = _beginning(before, block)
                found.append(Span(id_.client, id_.clock, 1, block.start - 1, 1))
            for part in block.parts:
                if part.text is None:
                    found.append(Span(part.id.client, part.id.clock, 1, part.start, 1))
                    continue
                for span in self._order.spans(part.id):
                    found.append(span._replace(start=span.start + part.start))
            before = block
        return found

    def freeze(self) -> None:
        """Look at the tree for the last time: what is asked of this moment later on needs no more of it."""
        _ = self._spans, self.chapters
        self._is_frozen = True

    @cached_property
    def nodes(self) -> frozenset[Id]:
        """The elements on the way to its blocks."""
        return frozenset(step.id for block in self.blocks for step in block.steps)

    def block_at(self, index: int) -> Block:
        """The one that a place is in."""
        return self.blocks[self._number(index)]

    def is_bare(self, block: Block) -> bool:
        """Whether it is an empty paragraph that stands for itself."""
        steps = block.steps
        if block.size or block.tag != "paragraph":
            return False
        if len(steps) < 2 or steps[-2].tag not in ITEMS:
            return True
        first, last = self._ranges[steps[-2].id]
        return steps[-2].tag == "blockcontainer" and first == last

    def extent(self, root: Root, child: int) -> tuple[int, int]:
        """From where to where a child of a node stands."""
        return self._extent(self._children[root][child])

    def _extent(self, id_: Id) -> tuple[int, int]:
        if id_ in self._parts:
            part = self._part(id_)
            return part.start, part.start + part.size
        first, last = self._ranges[id_]
        return self.blocks[first].start, self.blocks[last].end

    def _part(self, id_: Id) -> Part:
        number, at = self._parts[id_]
        block = self.blocks[number]
        part = block.held[at]
        return part._replace(start=block.start + part.start)

    def step(self, steps: tuple[Step, ...], child: int) -> Step:
        """The one to a child of an element."""
        root = steps[-1].id if steps else self.root
        for number, piece in enumerate(self._order.children(root)):
            if number == child and piece.lines is not None:
                id_ = Id(piece.client, piece.clock)
                return Step(id_, tag_of(piece.lines.tag), child)
        raise Problem("there is no such element")

    @cached_property
    def tags(self) -> frozenset[str]:
        """Of its elements, as they are written."""
        ids = {step.id for block in self.blocks for step in block.steps}
        return frozenset(self._order.lines(id_).tag for id_ in ids)

    def spans(self, start: int = 0, end: int | None = None) -> list[Span]:
        """Whose characters stand from one place up to another, in order."""
        end = len(self.shown) if end is None else end
        if self._is_frozen:
            spans = self._spans
        else:  # to look at all of it takes long
            spans = self._spans_of(self._number(start), self._number(end) + 1)
        number = bisect_right(spans, start, key=lambda span: span.start) - 1
        found: list[Span] = []
        for span in spans[max(number, 0) :]:
            if span.start >= end:
                break
            first = max(span.start, start) - span.start
            last = min(span.start + span.size, end) - span.start
            if first < last:
                width = span.units // span.size
                found.append(
                    Span(
                        span.client,
                        span.clock + first * width,
                        (last - first) * width,
                        span.start + first,
                        last - first,
                    )
                )
        return found

    def anchor(self, index: int, side: Side = Side.RIGHT) -> Anchor:
        """The place before a character, held by that character or by the one before it, in the same block."""
        if not self.blocks:
            return Anchor(None, self.root, side)
        block = self.blocks[self._number(index)]
        if not block.holds_text:
            return Anchor(block.steps[-1].id, None, Side.LEFT)
        within = block.steps[-1].id if block.steps else self.root
        edge = block.start if side is Side.LEFT else block.end
        if index == edge:
            end = (0 if side is Side.LEFT else -1) if block.parts else None
            part = None if end is None else block.parts[end]
            if part is not None and part.text is not None:
                within = part.id
            return Anchor(None, within, side)
        at = index - (side is Side.LEFT)
        span = self._span(block, at)
        last = span.units - 1 if side is Side.LEFT else 0
        return Anchor(Id(span.client, span.clock + last), None, side)

    def _span(self, block: Block, index: int) -> Span:
        """Of one character of a block."""
        if not self._is_frozen:  # to look at all of it takes long
            for part in block.parts:
                if part.text is not None and 0 <= index - part.start < part.size:
                    at = index - part.start
                    return self._order.spans(part.id, at, at + 1)[0]
        return self.spans(index, index + 1)[0]

    def index(self, place: Place) -> int:
        """Where in the text a place is that is somewhere in the tree, or was when what it is in was still there."""
        root, at = place.root, place.index
        while True:
            if isinstance(root, Id) and root in self._parts:
                return self._part(root).start + at
            children = self._children.get(root)
            if children is not None:
                if at and children:
                    return self._extent(children[min(at, len(children)) - 1])[1]
                first = self._ranges[root][0]
                return self.blocks[first].start if first < len(self.blocks) else 0
            if not isinstance(root, Id):
                return 0
            home = self._order.home(root)
            if home is None:
                return 0
            root, at = home.root, home.index

    def part(self, root: Root) -> tuple[int, int]:
        """From where to where a node of the tree stands."""
        if isinstance(root, Id) and root in self._parts:
            return self._extent(root)
        if root not in self._ranges:
            raise Problem("there is no such node")
        first, last = self._ranges[root]
        if first > last:
            return 0, 0
        return self.blocks[first].start, self.blocks[last].end

    # Changes

    def change_all(
        self, changes: Sequence[Change], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Several changes of a text that is not empty, in order, none of which overlap. What is inserted takes the formats
        of what it replaces or follows, if not told others.
        """
        plan = _Plan()
        for group in self._groups(changes):
            self._plan(group, plan)
        self._remove(plan)
        for number in sorted(plan.touched, reverse=True):
            for text in reversed(plan.after.get(number, ())):
                self._add(number, text, is_after=True)
            if number in plan.removed:
                self._take(plan.removed[number])
            else:
                for change in reversed(plan.inside.get(number, ())):
                    self._splice(self.blocks[number], change, attributes)
            for text in reversed(plan.before.get(number, ())):
                self._add(number, text, is_after=False)

    def _groups(self, changes: Sequence[Change]) -> Iterator[list[Change]]:
        """Those that touch the same blocks."""
        group: list[Change] = []
        for change in changes:
            if group and self._number(change.start) > self._number(group[-1].stop):
                yield group
                group = []
            group.append(change)
        if group:
            yield group

    def _plan(self, group: Sequence[Change], plan: _Plan) -> None:
        first, last = self._number(group[0].start), self._number(group[-1].stop)
        block = self.blocks[first]
        breaks = any("\n" in change.insert for change in group)
        if first == last and block.holds_text and (block.keeps_breaks or not breaks):
            plan.inside[first] = list(group)
            plan.touched.add(first)
            return
        old = [
            self._line(self.blocks[number])
            if self.blocks[number].holds_text
            else number
            for number in range(first, last + 1)
        ]
        new = self._lines(group, first, last)
        for start, stop, new_start, new_stop in differences(old, new):
            both = min(stop - start, new_stop - new_start)
            is_at_end = stop - start != new_stop - new_start and _ends_alike(
                old[start:stop], new[new_start:new_stop]
            )
            at, new_at = (
                (stop - both, new_stop - both) if is_at_end else (start, new_start)
            )
            for number in range(both):
                self._pair(first + at + number, new[new_at + number], plan)
            gone = (start, stop - both) if is_at_end else (start + both, stop)
            plan.gone.update(range(first + gone[0], first + gone[1]))
            come: list[Line] = new[new_start:new_at] if is_at_end else new[new_start + both : new_stop]  # fmt: skip
            if come and (is_at_end or start + both == 0):
                plan.insert(plan.before, first + (stop - both if is_at_end else start), come)  # fmt: skip
            elif come:
                plan.insert(plan.after, first + start + both - 1, come)

    def _line(self, block: Block) -> str:
        return self.shown[block.start : block.end]

    def _lines(self, group: Sequence[Change], first: int, last: int) -> list[Line]:
        """What the lines from one to another say afterwards."""
        lines: list[Line] = [""]
        at = self.blocks[first].start
        for start, stop, insert in group:
            self._keep(lines, at, start)
            keeps_breaks = self.blocks[self._number(start)].keeps_breaks
            head, *more = [insert] if keeps_breaks else insert.split("\n")
            lines[-1] = f"{lines[-1]}{head}"
            lines += more
            at = stop
        self._keep(lines, at, self.blocks[last].end)
        return lines

    def _keep(self, lines: list[Line], start: int, stop: int) -> None:
        first, last = self._number(start), self._number(stop)
        for number in range(first, last + 1):
            block = self.blocks[number]
            if first < number < last and not block.holds_text:
                lines.append(number)
                continue
            said = self.shown[max(start, block.start) : min(stop, block.end)]
            if number > first:
                lines.append(said)
            else:
                lines[-1] = f"{lines[-1]}{said}"

    def _pair(self, number: int, new: Line, plan: _Plan) -> None:
        """One line says something else."""
        block = self.blocks[number]
        if isinstance(new, int):
            return
        if not block.holds_text:  # it stays, and the text goes beside it
            if new:
                plan.insert(plan.after, number, [new])
            return
        old = self._line(block)
        plan.touched.add(number)
        plan.inside[number] = [
            Change(block.start + start, block.start + stop, insert)
            for start, stop, insert in word_changes(old, new, Budget())
        ]

    def _remove(self, plan: _Plan) -> None:
        """Of lines that go, the outermost elements of which nothing is left, as far as what they are in can be without
        them; of others the text alone.
        """
        gone = plan.gone
        if len(gone) == len(self.blocks):
            gone.discard(0)
            self._pair(0, "", plan)
        done = -1
        for number in sorted(gone):
            if number <= done:
                continue
            block, depth = self.blocks[number], len(self.blocks[number].steps)
            while depth > 1 and self._is_gone(block.steps[depth - 2].id, gone):
                depth -= 1
            if not depth or (depth == len(block.steps) and self._is_beside(block)):
                self._pair(number, "", plan)
                continue
            step = block.steps[depth - 1]
            above = block.steps[depth - 2].tag if depth > 1 else ""
            if step.tag in CELLS or (above in ITEMS and not step.child):
                self._pair(number, "", plan)
                continue
            done = self._ranges[step.id][1]
            plan.touched.add(number)
            plan.removed[number] = block.steps[:depth]

    def _is_gone(self, id_: Id, gone: set[int]) -> bool:
        first, last = self._ranges[id_]
        return all(number in gone for number in range(first, last + 1))

    def _is_beside(self, block: Block) -> bool:
        """Whether its parts stand beside other blocks."""
        first, last = self._ranges[block.steps[-1].id]
        return first != last

    # Writing

    def node(self, steps: Sequence[Step]) -> Any:
        """The element that steps lead to."""
        node: Any = self._shared
        for step in steps:
            node = node.children[step.child]
        return node

    def _take(self, steps: Sequence[Step]) -> None:
        del self.node(steps[:-1]).children[steps[-1].child]

    def _add(self, number: int, text: str, *, is_after: bool) -> None:
        """A line beside another, of the same kind."""
        steps = self.blocks[number].steps
        if not steps or self._is_beside(self.blocks[number]):
            steps = (*steps, Step(Id(0, 0), "", self._edge(number, is_after)))
            is_after = False
        own = steps[-1]
        above, at = steps[:-1], own.child + is_after
        node = self.node(above)
        like = own.tag if own.tag in ITEM_BLOCKS else ""
        tag = self.node(steps).tag if like else "paragraph"
        element = _element(tag, text)
        if above and above[-1].tag in ITEMS and not own.child:
            item = above[-1]
            if not is_after or len(node.children) == 1:
                element = _item(node.tag, element)
                node, at = self.node(above[:-1]), item.child + is_after
            elif item.tag == "blockcontainer":
                element, node, at = _item(node.tag, element), node.children[1], 0
        node.children.insert(at, element)

    def _edge(self, number: int, is_after: bool) -> int:
        parts = self.blocks[number].parts
        return parts[-1].child + 1 if is_after else parts[0].child

    def splice(self, block: Block, changes: Sequence[Change]) -> None:
        """Several changes of one block."""
        for change in reversed(changes):
            self._splice(block, change, None)

    def _splice(
        self, block: Block, change: Change, attributes: Mapping[str, Any] | None
    ) -> None:
        """Within a block. First in, then out, as in a text."""
        start, stop, insert = change
        if block.keeps_breaks:
            attributes = {}  # an editor removes code with formats
        node = self.node(block.steps)
        parts = [
            part
            for part in block.parts
            if part.start < stop and start < part.start + part.size
        ]
        added: Id | None = None
        more = 0
        if insert:
            home = self._home(block, start, stop)
            if home is None:
                children = [part.child for part in block.parts if part.start < start]
                first = block.parts[0].child if block.parts else 0
                at = children[-1] + 1 if children else first
                text = node.children.insert(at, XmlText(""))
                text.insert(0, insert, _marks(attributes))
                parts = [
                    part._replace(child=part.child + (part.child >= at))
                    for part in parts
                ]
            else:
                text = node.children[home.child]
                at = self._order.bytes_at(home.id, start - home.start)
                given = attributes
                if given is None:
                    given = format_at(text, start - home.start, is_kept=start < stop)
                text.insert(at, insert, _marks(given))
                added, more = home.id, len(insert.encode())
        for part in reversed(parts):
            if part.text is None:
                del node.children[part.child]
                continue
            first = max(start - part.start, 0)
            last = min(stop - part.start, part.size)
            begin = self._order.bytes_at(part.id, first)
            end = self._order.bytes_at(part.id, last)
            shift = more if part.id == added else 0
            del node.children[part.child][begin + shift : end + shift]

    def _home(self, block: Block, start: int, stop: int) -> Part | None:
        """The text that something inserted goes into: that of what it replaces, else that of what it follows."""
        texts = [part for part in block.parts if part.text is not None]
        if start < stop:
            for part in texts:
                if part.start <= start < part.start + part.size:
                    return part
        for part in texts:
            if part.start <= start <= part.start + part.size:
                return part
        return None

    def may_format(self, start: int, stop: int) -> bool:
        """Whether there is anything that is not code."""
        first, last = self._number(start), self._number(stop)
        return not all(block.keeps_breaks for block in self.blocks[first : last + 1])

    def format(self, start: int, stop: int, attributes: Mapping[str, Any]) -> None:
        """Give characters formats; None takes one away. Code has none."""
        marks = _marks(attributes)
        for block in self.blocks[self._number(start) : self._number(stop) + 1]:
            for part in block.parts:
                first = max(start - part.start, 0)
                last = min(stop - part.start, part.size)
                if part.text is None or first >= last or block.keeps_breaks:
                    continue
                text = self.node(block.steps).children[part.child]
                begin = self._order.bytes_at(part.id, first)
                end = self._order.bytes_at(part.id, last)
                text.format(begin, end, marks)

    # Sections

    @cached_property
    def chapters(self) -> list[Chapter]:
        """All of them, in order; those inside others too."""
        headings = [
            (number, block, self._level(block))
            for number, block in enumerate(self.blocks)
            if block.tag == "heading"
        ]
        found: list[Chapter] = []
        for at, (number, block, level) in enumerate(headings):
            depth = _unit(block)
            holder, unit = block.steps[: depth - 1], block.steps[depth - 1]
            above: Root = holder[-1].id if holder else self.root
            last = len(self._children[above])
            end = self._ranges[above][1] + 1
            for other, beside, others in headings[at + 1 :]:
                if _unit(beside) == depth and beside.steps[: depth - 1] == holder:
                    if others <= level:
                        last, end = beside.steps[depth - 1].child, other
                        break
            body = number + 1
            size = len(self.shown)
            found.append(
                Chapter(
                    level,
                    self._line(block).strip(),
                    block.start,
                    self.blocks[body].start if body < len(self.blocks) else size,
                    self.blocks[end].start if end < len(self.blocks) else size,
                    holder,
                    unit.child + 1,
                    last,
                )
            )
        return found

    def _level(self, block: Block) -> int:
        try:
            return int(float(self.node(block.steps).attributes.get("level") or 1))
        except (TypeError, ValueError, OverflowError):
            return 1


class _Plan:
    """What becomes of which block."""

    def __init__(self) -> None:
        self.inside: dict[int, list[Change]] = {}
        self.before: dict[int, list[str]] = {}
        self.after: dict[int, list[str]] = {}
        self.gone: set[int] = set()
        self.removed: dict[int, tuple[Step, ...]] = {}
        self.touched: set[int] = set()

    def insert(
        self, where: dict[int, list[str]], number: int, lines: Sequence[Line]
    ) -> None:
        come = [line for line in lines if isinstance(line, str)]
        where[number] = where.get(number, []) + come
        self.touched.add(number)


def _text(piece: Piece) -> str:
    """What a text says."""
    line = None if piece.lines is None else piece.lines.get(None)
    return "" if line is None else line.text()


def _kind(piece: Piece) -> int | None:
    return None if piece.lines is None else piece.lines.kind


def _is_inline(piece: Piece) -> bool:
    lines = piece.lines
    if lines is None:
        raise Problem("this root holds XML and something else at once")
    return lines.kind == XML_TEXT or tag_of(lines.tag) == "hardbreak"


def _beginning(before: Block, block: Block) -> Id:
    """What begins with a block and not with the one before it."""
    for number, step in enumerate(block.steps):
        if number >= len(before.steps) or before.steps[number].id != step.id:
            return step.id
    return block.parts[0].id


def _ends_alike(old: Sequence[Line], new: Sequence[Line]) -> bool:
    """Whether the last lines are more alike than the first."""
    if not old or not new:
        return False
    one, other, last, end = (
        "" if isinstance(line, int) else line
        for line in (old[0], new[0], old[-1], new[-1])
    )
    head, _, _ = middle(one, other)
    _, stop, _ = middle(last, end)
    return len(last) - stop > head


def _unit(block: Block) -> int:
    """How deep what stands for a block beside others is: BlockNote wraps each one."""
    depth = len(block.steps)
    return depth - 1 if depth > 1 and block.steps[-2].tag == "blockcontainer" else depth


def _element(tag: str, text: str) -> XmlElement:
    return XmlElement(tag, {}, [XmlText(text)] if text else [])


def _item(tag: str, element: XmlElement) -> XmlElement:
    attributes: Any = {}
    match tag_of(tag):
        case "taskitem":
            attributes = {"checked": False}
        case "blockcontainer":
            attributes = {"id": str(uuid.uuid4())}
    return XmlElement(tag, attributes, [element])


def _marks(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """As y-prosemirror writes them: each with its attributes."""
    return {
        name: {} if value is True else value
        for name, value in (attributes or {}).items()
    }


def format_at(text: XmlText, index: int, *, is_kept: bool) -> dict[str, Any]:
    """The formats of a character, or of the one before; a link ends where its text does."""
    at = 0
    left: dict[str, Any] = {}
    for piece, attributes in text.diff():
        size = len(piece) if isinstance(piece, str) else 1
        here = dict(attributes or {})
        if at <= index < at + size and (is_kept or index > at):
            return here
        if at == index:
            return {
                name: value
                for name, value in left.items()
                if name != "link" or here.get(name) == value
            }
        left, at = here, at + size
    left.pop("link", None)
    return left

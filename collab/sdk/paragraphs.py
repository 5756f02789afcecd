"""What others have changed in XML since it was last told: then and now side by side, block by block, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from collab.document.anchor import Id
from collab.document.differences import changes
from collab.document.markdown import blocks_of_xml
from collab.document.order import Order
from collab.document.pieces import Piece
from collab.document.prose import Prose
from collab.document.shared import ELEMENT

MAX_UPDATES = 1000  # kept; with more all that differs counts as done by others


class Paragraph(NamedTuple):
    """A block that says something."""

    ids: tuple[Id, ...]  # of the elements that lead to it; the last is its own alone
    path: str  # a JSON Pointer to it, inside of the root
    start: int  # where it stands in the text of the whole
    end: int
    said: str  # as Markdown
    parts: tuple[Id, ...]  # of the texts and other things in it


_NOWHERE = Paragraph((), "", 0, 0, "", ())


class Revision(NamedTuple):
    """One paragraph became another, came or went."""

    old: Paragraph | None
    new: Paragraph | None
    start: int  # where what is there now stands
    end: int

    @property
    def path(self) -> str:
        """Where it is, or was."""
        return (self.new or self.old or _NOWHERE).path


def paragraphs(prose: Prose | None) -> tuple[Paragraph, ...]:
    """The blocks of a tree that say something; without a tree there are none."""
    if prose is None:
        return ()
    found: list[Paragraph] = []
    seen: set[Id] = set()
    said = blocks_of_xml(prose.node(()))
    for block, markdown in zip(prose.blocks, said, strict=True):
        ids = tuple(step.id for step in block.steps)
        keys = [str(step.child) for step in block.steps]
        if not ids or ids[-1] in seen:  # several stand beside each other in one element
            ids += (block.parts[0].id,)
            keys.append(str(block.parts[0].child))
        seen.add(ids[-1])
        if markdown:
            path = "".join(f"/{key}" for key in keys)
            parts = tuple(part.id for part in block.parts)
            found.append(Paragraph(ids, path, block.start, block.end, markdown, parts))
    return tuple(found)


def text_of(said: Sequence[Paragraph]) -> str:
    """All of it."""
    return "\n".join(each.said for each in said)


def revisions(old: Sequence[Paragraph], new: Sequence[Paragraph]) -> Iterator[Revision]:
    """What turns one tree into another, in the order of the tree."""
    number_of = {each.ids[-1]: number for number, each in enumerate(new)}
    at = new_at = 0
    for number, each in enumerate(old):
        beside = number_of.get(each.ids[-1], -1)
        if beside >= new_at:
            yield from _between(old, new, (at, number), (new_at, beside))
            if each.said != new[beside].said:
                yield _revision(each, new[beside], new, beside)
            at, new_at = number + 1, beside + 1
    yield from _between(old, new, (at, len(old)), (new_at, len(new)))


def _between(
    old: Sequence[Paragraph],
    new: Sequence[Paragraph],
    gone: tuple[int, int],
    come: tuple[int, int],
) -> Iterator[Revision]:
    """Some paragraphs and what stands in their place; an editor writes the same anew as something else."""
    before = [each.said for each in old[slice(*gone)]]
    after = [each.said for each in new[slice(*come)]]
    for start, stop, new_start, new_stop in changes(before, after):
        for number in range(max(stop - start, new_stop - new_start)):
            place = come[0] + min(new_start + number, new_stop)
            was = old[gone[0] + start + number] if start + number < stop else None
            now = new[place] if new_start + number < new_stop else None
            if was and now and was.ids[:-1] != now.ids[:-1]:  # in another list
                yield _revision(was, None, new, place)
                was = None
            yield _revision(was, now, new, place)


def _revision(
    old: Paragraph | None,
    new: Paragraph | None,
    all_new: Sequence[Paragraph],
    place: int,
) -> Revision:
    if new is not None:
        return Revision(old, new, new.start, new.end)
    end = all_new[place - 1].end if place else 0
    return Revision(old, None, end, end)


class Retold:
    """A tree with everything in it that one observer has not been told of.

    It is given the updates of others, and told that there were own ones: a block in which only the observer has changed
    something is no change. One in which both have is told as it was and as it is.
    """

    def __init__(self, then: tuple[Paragraph, ...]) -> None:
        self._then = then
        self._theirs: list[bytes] | None = []  # None: all that differs was done by them
        self._has_own = False
        self.is_empty = True  # nobody else has changed anything

    def apply(self, update: bytes, *, is_own: bool) -> None:
        """An update that has changed the tree."""
        if is_own:
            self._has_own = True
            return
        self.is_empty = False
        if self._theirs is not None:
            self._theirs.append(update)
            if len(self._theirs) > MAX_UPDATES:
                self._theirs = None

    def replace(self) -> None:
        """The tree is another object now: whatever differs was done by others."""
        self.is_empty, self._theirs = False, None

    def take(self, now: tuple[Paragraph, ...], order: Order) -> list[Revision]:
        """What has been changed; from here on it is known."""
        found = list(revisions(self._then, now))
        if self._has_own and self._theirs is not None:
            theirs = set(_touched(order, self._theirs))
            found = [each for each in found if _is_in(each, theirs)]
        self._then, self._theirs = now, []
        self._has_own, self.is_empty = False, True
        return found


def _touched(order: Order, updates: Sequence[bytes]) -> Iterator[Id]:
    """What these have made or taken away, and the elements in which they have changed something."""
    for update in updates:
        for piece in order.touched(update):
            yield from _up(piece)


def _up(start: Piece) -> Iterator[Id]:
    """What this is in, up to the first element."""
    piece: Piece | None = start
    while piece is not None:
        yield Id(piece.client, piece.clock)
        if piece.lines is not None and piece.lines.kind == ELEMENT:
            break
        piece = None if piece.line is None else piece.line.owner


def _is_in(one: Revision, ids: set[Id]) -> bool:
    return any(
        not ids.isdisjoint((*each.ids, *each.parts))
        for each in (one.old, one.new)
        if each is not None
    )

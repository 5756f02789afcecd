"""What a turn does to a document, at once and without waiting: the smallest changes, held against what was read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import orjson
from pycrdt import Array, Map, Text, UndoManager, XmlFragment

from collab.document.anchor import Anchor, Place, Root, Side
from collab.document.blocks import Node, Words, blocks_of, shaped
from collab.document.budget import Budget
from collab.document.chapters import Chapters, Line
from collab.document.characters import Change, Characters, places, word_changes
from collab.document.edits import Draft
from collab.document.prose import Prose
from collab.document.tree import Patch, Tree
from collab.document.units import bytes_of
from collab.document.values import check_value, checked
from collab.sdk import sections as markdown
from collab.sdk.errors import Ambiguous, Conflict, Invalid, NotFound, StaleVersion
from collab.sdk.memory import Memory, Spot, Where, Within, spans_of
from collab.sdk.patching import locate, read_diff
from collab.sdk.reading import Changed, Known, Match, Section, View
from collab.sdk.values import NOTHING, is_same, steps
from collab.sdk.words import widened

Policy = Literal["merge", "reject"]
Range = Match | Section | tuple[Where, Where]

MAX_VALUE_BYTES = (
    400_000  # of the values of one edit: unlike text, a value goes in no parts
)
MAX_CANDIDATES = 10
_EVER = (1 << 53) - 1  # milliseconds: all of it is undone at once


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """Somebody else has changed what we read at a path."""

    path: str
    was: Any = field(repr=False)  # None also when there was nothing
    now: Any = field(repr=False)


Conflicts = tuple[Changed | ChangedValue, ...]


@dataclass(frozen=True, slots=True)
class EditResult:
    """What became of an edit. `anchor` is the place behind what was inserted, or where something was removed.

    `conflict` says what others have changed of what was edited, since it was read.
    """

    applied: bool
    anchor: Anchor | None = None
    conflict: Conflicts = ()


SectionChange = Callable[[str, markdown.Span, str], tuple[int, int, str]]


class Edits:
    """The edits of one turn, under its id. Each is one transaction, all of it or nothing.

    Raises what documents raise, and the errors of the client.
    """

    def __init__(
        self, memory: Memory, id: str, *, policy: Policy, undoable: bool
    ) -> None:
        self.memory = memory
        self.inserted = self.deleted = 0  # characters
        self.count = self.size = 0  # edits, and their bytes
        self._id, self._policy = id, policy
        self._began = memory.doc
        self._undo: UndoManager | None = None
        self._scopes: set[Root] = set()
        if undoable:
            self._undo = UndoManager(capture_timeout_millis=_EVER)
            self._undo.include_origin(id)

    def can_take_back(self) -> bool:
        """Whether there is something that `take_back` would do."""
        undo = self._undo
        return undo is not None and self.memory.doc is self._began and undo.can_undo()

    def take_back(self) -> None:
        """Undo all of it; what others have written in between stays."""
        while self._undo is not None and self._undo.can_undo():
            self._undo.undo()

    # Texts

    def insert(
        self,
        where: Where,
        text: str,
        within: Within,
        attributes: Mapping[str, Any] | None,
    ) -> EditResult:
        """Put characters at a place."""
        spot = self.memory.spot(where, within)
        conflict = self.taken_away(where, spot)
        change = Change(spot.index, spot.index, self.checked(text))
        given = dict(attributes or {}) or None
        return self._write(
            spot.root, self._characters(spot.root), [change], conflict, given
        )

    def begin(
        self, root: Root, anchor: Anchor, text: str, conflict: Conflicts
    ) -> EditResult:
        """Insert at an anchor, wherever it is and whatever has become of what held it."""
        index = self.memory.places.resolve(anchor).index
        change = Change(index, index, text)
        return self._write(root, self._characters(root), [change], conflict)

    def go_on(
        self, root: Root, anchor: Anchor, text: str, conflict: Conflicts
    ) -> EditResult:
        """The same, where it has begun: of a text that is known to be one nothing is read, however long it is."""
        memory = self.memory
        place = memory.order.resolve(anchor)
        if isinstance(place.root, str) and not memory.places.is_tree(place.root):
            memory.insert(self._id, place.root, place.index, text)
        elif isinstance(place, Place) and "\n" not in text and memory.is_line(place):
            memory.insert_in_line(self._id, place.root, place.index, text)
        else:
            return self.begin(root, anchor, text, conflict)
        self.inserted += len(text)
        self._counted(bytes_of(text))
        end = memory.order.anchor(place.root, place.index + len(text), Side.LEFT)
        return EditResult(True, end, conflict)

    def replace(
        self, old: str | Range, new: str, near: Where | None, within: Within
    ) -> EditResult:
        """Put something else in the place of what says this, or of a range."""
        text = self.checked(new)
        if isinstance(old, str):
            name, *part = self.memory.part(self.memory.text(within))
            return self._replace_text(old, text, near, name, part)
        if isinstance(old, Match | Section):
            old = old.start, old.end
        name, start, stop = self._range(old, within)
        known = self.memory.known(name, start, stop)
        was = None if known is None else known.between(*old)
        return self._exchange(
            name, self._characters(name), start, stop, text, known, was
        )

    def patch(self, diff: str, within: Within) -> EditResult:
        """Apply a unified diff."""
        name = self._whole(within)
        hunks = read_diff(diff)
        characters = self._characters(name)
        shown = characters.shown
        view = self.memory.view(name, 0, len(shown), shown)
        try:
            changes = locate(hunks, shown)
        except Conflict:
            if view is None or not view.is_stale:
                raise
            based = self._words(view.base, locate(hunks, view.base))
            return self._rebase(name, characters, view, based)
        except Ambiguous as found:
            raise self._ambiguous(
                str(found), name, shown, found.candidates, 0
            ) from None
        return self._change(name, characters, self._words(shown, changes))

    def rewrite(self, text: str, within: Within, *, is_shy: bool) -> EditResult:
        """Make a whole text say this. Shy is who does not change most of it."""
        name = self._whole(within)
        characters = self._characters(name)
        shown = characters.shown
        view = self.memory.view(name, 0, len(shown), shown)
        base = shown if view is None else view.base
        changes = word_changes(base, self.checked(text), Budget())
        gone = sum(change.stop - change.start for change in changes)
        if is_shy and 2 * gone > len(base):
            raise Conflict(
                "others are here, and that would change more than half of the text"
            )
        if view is None:
            return self._change(name, characters, changes)
        return self._rebase(name, characters, view, changes)

    def format(
        self, range: Range, within: Within, attributes: dict[str, Any]
    ) -> EditResult:
        """Give characters formats; None takes one away."""
        name, start, stop = self._range(range, within)
        size = _size(attributes)
        characters = self._characters(name)
        conflict = self._conflict(name, characters.shown, start, stop)
        if isinstance(characters, Prose) and not characters.may_format(start, stop):
            raise Invalid("characters in code have no formats")
        if start < stop and attributes:
            self._scope(name, Text)
            with self.memory.doc.transaction(origin=self._id):
                characters.format(start, stop, attributes)
            self._counted(size)
        side = Side.LEFT if stop else Side.RIGHT
        anchor = self.memory.places.anchor(name, stop, side)
        return EditResult(start < stop, anchor, conflict)

    # Sections

    def section(
        self, title: str, within: Within
    ) -> tuple[Root, Characters | Prose, markdown.Span]:
        """Where the section of that title is now. Raises NotFound, or Ambiguous with matches."""
        name = self._whole(within)
        characters = self._characters(name)
        shown = characters.shown
        try:
            found = markdown.titled(self.memory.sections(name), title)
        except Ambiguous as error:
            at = [span.start for span in error.candidates]
            raise self._ambiguous(str(error), name, shown, at, len(title)) from None
        return name, characters, found

    def edit_section(
        self, edit: SectionChange, title: str, text: str, within: Within
    ) -> EditResult:
        """Change a section, found by its title."""
        name, characters, span = self.section(title, within)
        if isinstance(characters, Prose):
            if edit in (markdown.replaced, markdown.appended, markdown.before):
                return self._edit_chapter(edit, name, characters, span, text)
            if edit is markdown.renamed:
                end = span.start + len(span.title)
                return self._exchange(
                    name, characters, span.start, end, " ".join(text.split())
                )
        start, stop, insert = edit(characters.shown, span, self.checked(text))
        if isinstance(characters, Prose) and stop == len(characters.shown):
            start = max(start - 1, 0)  # the last line goes with the break before it
        known, was = None, None
        if edit is markdown.replaced:
            known, was = self._read_body(name, title, span)
        return self._exchange(name, characters, start, stop, insert, known, was)

    def _read_body(
        self, root: Root, title: str, span: markdown.Span
    ) -> tuple[Known | None, tuple[int, int] | None]:
        """Which of what was read is the body of this section."""
        known = self.memory.known(root, span.start, span.end)
        if known is None:
            return None, None
        prose = known.prose
        spans = markdown.sections(known.text) if prose is None else spans_of(prose)
        same = [each for each in spans if each.title == title]
        if len(same) != 1:
            return None, None
        if prose is not None:
            return known, markdown.content(prose.shown, same[0])
        start, stop = markdown.content(known.text, same[0])
        return known, (known.start + start, known.start + stop)

    def _edit_chapter(
        self,
        edit: SectionChange,
        root: Root,
        prose: Prose,
        span: markdown.Span,
        text: str,
    ) -> EditResult:
        """The same in an XML tree, where Markdown becomes blocks."""
        nodes = self._nodes(prose, text)
        chapter = next(each for each in prose.chapters if each.start == span.start)
        chapters = self._chapters(root, prose)
        conflict: Conflicts = ()
        if edit is markdown.appended:
            return self._arrange(
                root, prose, text, conflict, lambda: chapters.append(chapter, nodes)
            )
        if edit is markdown.before:
            return self._arrange(
                root, prose, text, conflict, lambda: chapters.before(chapter, nodes)
            )
        start, stop = markdown.content(prose.shown, span)
        if start < stop:
            known, was = self._read_body(root, span.title, span)
            conflict = self._conflict(root, prose.shown, start, stop, known, was)
        return self._arrange(
            root, prose, text, conflict, lambda: chapters.replace(chapter, nodes)
        )

    def _nodes(self, prose: Prose, text: str) -> list[Node]:
        return shaped(blocks_of(self.checked(text)), prose.tags, self.memory.editor)

    def _chapters(self, root: Root, prose: Prose) -> Chapters:
        shown = prose.shown

        def line(start: int, stop: int, new: str) -> Line:
            view = self.memory.view(root, start, stop, shown)
            now = shown[start:stop]
            if view is not None and view.base != now:
                changes = word_changes(view.base, new, Budget())
                return Line(view.rebased(changes), is_exact=False)
            return Line(
                [
                    Change(start + each.start, start + each.stop, each.insert)
                    for each in word_changes(now, new, Budget())
                ],
                is_exact=True,
            )

        def is_foreign(start: int, stop: int) -> bool:
            view = self.memory.view(root, start, stop, shown)
            return view is not None and any(
                part.kind == "foreign" for part in view.parts
            )

        return Chapters(prose, line, is_foreign)

    def line_of(
        self, root: Root, anchor: Anchor, text: str, *, has_begun: bool
    ) -> tuple[str, str | None]:
        """Of what is to be written at an anchor, what goes into the line there; and what is Markdown, behind a line break or
        where there is no line of text yet: None of a text that is no XML, and of code.
        """
        if has_begun and "\n" not in text:
            return text, None
        prose = self.memory.places.prose(root)
        if prose is None:
            return text, None
        if not prose.blocks:
            return "", text
        block = prose.block_at(self.memory.places.resolve(anchor).index)
        if not has_begun and (prose.is_bare(block) or not block.holds_text):
            return "", text
        if block.keeps_breaks or "\n" not in text:
            return text, None
        line, _, rest = text.partition("\n")
        return line, rest

    def write_blocks(
        self, root: Root, anchor: Anchor, text: str, conflict: Conflicts
    ) -> EditResult:
        """Put Markdown behind the block that an anchor is in."""
        prose = self._characters(root)
        if not isinstance(prose, Prose):
            raise Conflict("what is written into is no XML any more")
        nodes = self._nodes(prose, text)
        if not nodes:
            return EditResult(False, anchor, conflict)
        index = self.memory.places.resolve(anchor).index
        chapters = self._chapters(root, prose)
        return self._arrange(
            root, prose, text, conflict, lambda: chapters.behind(index, nodes)
        )

    def _arrange(
        self,
        root: Root,
        prose: Prose,
        text: str,
        conflict: Conflicts,
        change: Callable[[], tuple[Root, int] | None],
    ) -> EditResult:
        """Change blocks, in one transaction. `change` tells the node, and which child of it, that was put there last."""
        memory = self.memory
        self._scope(root, XmlFragment)
        last: list[tuple[Root, int] | None] = []
        memory.rearrange(self._id, lambda: last.append(change()))
        now = memory.places.prose(root)
        shown = "" if now is None else now.shown
        changes = word_changes(prose.shown, shown, Budget())
        self.inserted += sum(len(each.insert) for each in changes)
        self.deleted += sum(each.stop - each.start for each in changes)
        self._counted(bytes_of(text))
        if now is None:
            return EditResult(True, None, conflict)
        end = 0
        if last[0] is not None:
            end = now.extent(*last[0])[1]
        elif changes:
            at = sum(len(each.insert) - each.stop + each.start for each in changes)
            end = changes[-1].stop + at
        return EditResult(True, now.anchor(end, Side.LEFT), conflict)

    # Maps and lists

    def set(self, path: str, value: Any) -> EditResult:
        """Make what is at a path this value."""
        place = steps(path)
        is_new = place[-1] == "-" or self.memory.value(place) is NOTHING
        patch = Patch("add" if is_new else "replace", path, value)
        # What is no map or list is written in one step, which is done or not.
        return self._patch([patch], is_tried=isinstance(value, dict | list))

    def json_patch(self, operations: Sequence[Mapping[str, Any]]) -> EditResult:
        """Apply a JSON Patch."""
        return self._patch([_patch_of(each) for each in operations], is_tried=True)

    def _patch(self, patches: Sequence[Patch], *, is_tried: bool) -> EditResult:
        memory = self.memory
        size = _size(*(patch.value for patch in patches))
        conflict = [
            changed
            for patch in patches
            if (changed := self._changed_value(patch)) is not None
        ]
        if conflict and self._policy == "reject":
            raise StaleVersion("others have changed it since it was read", conflict)
        if is_tried:
            Draft(memory.doc.get_update(), random.getrandbits(32)).edit(patches)
        for patch in patches:
            self._scope(steps(patch.path)[0], _kind_of(patch))

        def change(tree: Tree) -> None:
            for patch in patches:
                tree.apply(patch)

        has_changed = memory.transact(self._id, change)
        for patch in patches:
            self._note(patch)
        self._counted(size)
        return EditResult(has_changed, None, tuple(conflict))

    def _changed_value(self, patch: Patch) -> ChangedValue | None:
        """What others have put where this writes, since it was read."""
        place = steps(patch.path)
        is_known, was = self.memory.values.expected(place)
        if not is_known or patch.op == "test" or place[-1] == "-":
            return None
        now = self.memory.value(place)
        if is_same(was, now):
            return None
        was, now = (None if each is NOTHING else each for each in (was, now))
        return ChangedValue(patch.path, was, now)

    def _note(self, patch: Patch) -> None:
        """What we have written is known."""
        memory = self.memory
        for written in (patch.path, *([patch.source] if patch.op == "move" else [])):
            place = steps(written)
            if len(place) > 1 and isinstance(memory.value(place[:-1]), list):
                place = place[:-1]  # those behind it have moved
            memory.values.wrote(place, memory.value(place))

    # Inside

    def _whole(self, within: Within) -> Root:
        """A text that is no part of another. Raises Invalid."""
        found = self.memory.text(within)
        if self.memory.places.top(found) != found:
            raise Invalid(
                "that is a part of an XML tree: name its root, or edit by `insert` and `replace`"
            )
        return found

    def _characters(self, root: Root) -> Characters | Prose:
        return self.memory.characters(root)

    def checked(self, text: str) -> str:
        """The text, when it can be inserted."""
        if not isinstance(text, str):
            raise Invalid("a text is a str")
        return checked(text)

    def _range(self, range: Range, within: Within) -> tuple[Root, int, int]:
        """Root, from where to where."""
        if isinstance(range, Match | Section):
            range = range.start, range.end
        first, last = (self.memory.spot(each, within) for each in range)
        if first.root != last.root or first.index > last.index:
            raise Invalid("the range ends before it begins")
        return first.root, first.index, last.index

    def held(self, range: Range, within: Within) -> tuple[Anchor, Anchor]:
        """Both ends of a range, by the characters inside it."""
        if isinstance(range, Match | Section):
            return range.start, range.end
        name, start, stop = self._range(range, within)
        order = self.memory.places
        side = Side.LEFT if stop else Side.RIGHT
        return order.anchor(name, start), order.anchor(name, stop, side)

    def taken_away(self, where: Where, spot: Spot) -> Conflicts:
        """The conflict of a place that is gone."""
        if not spot.is_taken_away:
            return ()
        anchor = self.memory.places.anchor(spot.root, spot.index)
        conflict = (Changed("deleted", anchor, anchor, ""),)
        if self._policy == "reject":
            raise StaleVersion("others have deleted what was there", conflict)
        return conflict

    def _conflict(
        self,
        root: Root,
        shown: str,
        start: int,
        stop: int,
        known: Known | None = None,
        was: tuple[int, int] | None = None,
    ) -> Conflicts:
        """What others have done there since it was read. Raises StaleVersion when that is the policy."""
        view = self.memory.view(root, *widened(shown, start, stop), shown, known, was)
        if view is None or not view.is_stale:
            return ()
        return self._held_against(view.changed(self.memory.places))

    def _held_against(self, conflict: Conflicts) -> Conflicts:
        if conflict and self._policy == "reject":
            raise StaleVersion("others have changed it since it was read", conflict)
        return conflict

    def _replace_text(
        self,
        old: str,
        new: str,
        near: Where | None,
        root: Root,
        part: Sequence[int],
    ) -> EditResult:
        if not old:
            raise Invalid("there is nothing to look for")
        characters = self._characters(root)
        shown = characters.shown
        found = list(
            islice(
                places(shown, old, *part),
                None if near is not None else MAX_CANDIDATES + 1,
            )
        )
        if near is not None and found:
            place = self.memory.spot_in(near, root).index
            closest = min(abs(at - place) for at in found)
            found = [at for at in found if abs(at - place) == closest]
        if len(found) > 1:
            raise self._ambiguous(
                "the text says that more than once", root, shown, found, len(old)
            )
        if not found:
            return self._replace_past(old, new, root, characters)
        return self._exchange(root, characters, found[0], found[0] + len(old), new)

    def _replace_past(
        self, old: str, new: str, root: Root, characters: Characters | Prose
    ) -> EditResult:
        """What is not there any more was perhaps read, and changed by others since."""
        shown = characters.shown
        view = self.memory.view(root, 0, len(shown), shown)
        if view is not None and view.is_stale:
            base = view.base
            found = list(islice(places(base, old), 2))
            if len(found) == 1:
                at = found[0]
                changes = [
                    Change(start + at, stop + at, insert)
                    for start, stop, insert in word_changes(old, new, Budget())
                ]
                whole = view.touched(at, at + len(old))
                return self._rebase(root, characters, view, changes, whole)
        raise NotFound("the text does not say that")

    def _exchange(
        self,
        root: Root,
        characters: Characters | Prose,
        start: int,
        stop: int,
        new: str,
        known: Known | None = None,
        was: tuple[int, int] | None = None,
    ) -> EditResult:
        """Make some characters say something else. Where others have changed them, what they put there stays."""
        shown = characters.shown
        conflict = self._conflict(root, shown, start, stop, known, was)
        now = shown[start:stop]
        view = (
            self.memory.view(root, start, stop, shown, known, was) if conflict else None
        )
        base = now if view is None else view.base
        changes = word_changes(base, new, Budget())
        if view is None or base == now:
            moved = [
                Change(start + each.start, start + each.stop, each.insert)
                for each in changes
            ]
        else:
            moved = view.rebased(changes)
        return self._write(root, characters, moved, conflict)

    def _words(self, shown: str, changes: Iterable[Change]) -> list[Change]:
        """The same changes, of words only."""
        budget = Budget()
        return [
            Change(start + first, start + last, part)
            for start, stop, insert in changes
            for first, last, part in word_changes(shown[start:stop], insert, budget)
        ]

    def _change(
        self, root: Root, characters: Characters | Prose, changes: Sequence[Change]
    ) -> EditResult:
        """Several changes of what is there now."""
        conflict: list[Changed | ChangedValue] = []
        for start, stop, _ in changes:
            if start < stop:
                conflict += self._conflict(root, characters.shown, start, stop)
        return self._write(root, characters, changes, tuple(conflict))

    def _rebase(
        self,
        root: Root,
        characters: Characters | Prose,
        view: View,
        changes: Sequence[Change],
        touched: Sequence[Any] = (),
    ) -> EditResult:
        """Several changes of what was read."""
        parts = list(touched)
        for start, stop, _ in changes:
            parts += [part for part in view.touched(start, stop) if part not in parts]
        conflict = self._held_against(view.changed(self.memory.places, parts))
        return self._write(root, characters, view.rebased(changes), conflict)

    def _write(
        self,
        root: Root,
        characters: Characters | Prose,
        changes: Sequence[Change],
        conflict: Conflicts,
        attributes: dict[str, Any] | None = None,
    ) -> EditResult:
        memory = self.memory
        if attributes:
            _size(attributes)
        real = [each for each in changes if each.insert or each.start < each.stop]
        if not real:
            return EditResult(False, None, conflict)
        inserted = sum(len(change.insert) for change in real)
        size = sum(bytes_of(change.insert) for change in real)
        if isinstance(characters, Prose) and not characters.blocks:
            return self._begin_tree(root, characters, real, conflict, attributes)
        self._scope(root, Text)
        behind = len(characters.shown) - real[-1].stop
        memory.write(self._id, root, characters, real, attributes)
        deleted = sum(change.stop - change.start for change in real)
        self.inserted += inserted
        self.deleted += deleted
        self._counted(size)
        side = Side.LEFT if real[-1].insert else Side.RIGHT
        index = max(memory.places.length(root) - behind, 0)
        return EditResult(True, memory.places.anchor(root, index, side), conflict)

    def _begin_tree(
        self,
        root: Root,
        prose: Prose,
        changes: Sequence[Change],
        conflict: Conflicts,
        attributes: dict[str, Any] | None,
    ) -> EditResult:
        """The first lines of an XML tree, as paragraphs."""
        text = "".join(change.insert for change in changes)
        lines = [
            Node("paragraph", [Words(line, dict(attributes or {}))] if line else [])
            for line in text.split("\n")
        ]
        nodes = shaped(lines, (), self.memory.editor)
        chapters = self._chapters(root, prose)
        return self._arrange(
            root, prose, text, conflict, lambda: chapters.behind(0, nodes)
        )

    def _scope(self, root: Root, kind: type[Any]) -> None:
        """What is done in this root can be taken back; one that holds nothing yet becomes of this kind."""
        if self._undo is None or root in self._scopes:
            return
        self._scopes.add(root)
        shared = self.memory.places.shared(root)
        if shared is None and isinstance(root, str):
            shared = self.memory.doc.get(root, type=kind)
        self._undo.expand_scope(shared)

    def _ambiguous(
        self, message: str, root: Root, shown: str, found: Iterable[Any], length: int
    ) -> Ambiguous:
        matches = [
            self.memory.match(root, shown, at, length)
            for at in islice(found, MAX_CANDIDATES)
        ]
        return Ambiguous(message, matches)

    def _counted(self, size: int) -> None:
        self.size += size
        self.count += 1


def _size(*values: Any) -> int:
    """Of values in bytes of JSON, which they must be. What is nested too deep would end the process here. Raises Invalid
    when it is too much.
    """
    size = sum(len(orjson.dumps(check_value(value))) for value in values)
    if size > MAX_VALUE_BYTES:
        raise Invalid(f"one edit writes values of at most {MAX_VALUE_BYTES} bytes")
    return size


def _kind_of(patch: Patch) -> type[Any]:
    """What a root becomes that holds nothing yet."""
    path = steps(patch.path)
    if len(path) > 1:
        return Array if path[1] == "-" else Map
    if isinstance(patch.value, list):
        return Array
    return Text if isinstance(patch.value, str) else Map


_MEMBERS = {
    "add": {"value"},
    "replace": {"value"},
    "test": {"value"},
    "remove": set[str](),
    "move": {"from"},
    "copy": {"from"},
}


def _patch_of(written: Mapping[str, Any]) -> Patch:
    """One operation. Raises Invalid."""
    if not isinstance(written, Mapping) or written.get("op") not in _MEMBERS:
        raise Invalid(
            "an operation has an op: add, remove, replace, move, copy or test"
        )
    missing = ({"path"} | _MEMBERS[written["op"]]) - written.keys()
    if missing:
        raise Invalid(f"the operation lacks {', '.join(sorted(missing))}")
    source = written.get("from", "")
    if not isinstance(written["path"], str) or not isinstance(source, str):
        raise Invalid("a path is a str")
    return Patch(written["op"], written["path"], written.get("value"), source)

"""Turn: edits as a unit, credited and stopped together; each as small as it can be, and held against what was read."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pycrdt import Array, Map, Text, UndoManager

from collab.document.anchor import Anchor, Side
from collab.document.budget import Budget
from collab.document.characters import Change, Characters, places, word_changes
from collab.document.edits import Draft
from collab.document.export import root_of
from collab.document.tree import Patch, Tree
from collab.document.values import check_value, checked
from collab.sdk import sections as markdown
from collab.sdk.errors import (
    Ambiguous,
    Conflict,
    Invalid,
    NotFound,
    SdkError,
    StaleVersion,
)
from collab.sdk.memory import Memory, Spot, Where, translated
from collab.sdk.patching import locate, read_diff
from collab.sdk.provider import Event, Provider, Replaced, TurnEnded
from collab.sdk.reading import Changed, Known, Match, Section, Version, View
from collab.sdk.stream import Limits, pour
from collab.sdk.values import NOTHING, is_same, steps
from collab.sdk.words import widened

if TYPE_CHECKING:
    from collab.sdk.doc import Doc

Policy = Literal["merge", "reject"]
Range = Match | Section | tuple[Where, Where]

MAX_EDIT_CHARACTERS = 1 << 18  # of one edit; a stream takes more
MAX_CANDIDATES = 10
MAX_SHOWN_CHARACTERS = 256
# What may be on its way before an edit waits until it is logged.
WINDOW_BYTES, WINDOW_EDITS = 1 << 16, 200
STALL_SECONDS = 30.0  # how long it waits, at most
FLUSH_SECONDS = 30.0
SYNC_SECONDS = 30.0
_EVER = (1 << 53) - 1  # milliseconds: all of a turn is undone at once


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


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """What a turn has done, in characters; `position` is that of its last edit in the room's log."""

    id: str
    inserted: int
    deleted: int
    version: Version
    position: int


class Turn:
    """Edits of one document, from entering the block to leaving it; one at a time in a document.

    Leaving it waits until all is logged. An exception ends it at once. Somebody else may stop it: the block is cancelled
    wherever it waits, and raises `Cancelled`; likewise `LeaseLost`, `Forbidden`, `RateLimited`, `Conflict`. Whoever
    takes on in spite of it gets the same error from each further edit.
    """

    def __init__(
        self,
        doc: Doc,
        *,
        reason: str = "",
        task: str = "",
        model: str = "",
        on_conflict: Policy = "merge",
        rollback: bool = False,
        limits: Limits | None = None,
    ) -> None:
        if on_conflict not in ("merge", "reject"):
            raise ValueError(f"there is no policy {on_conflict!r}")
        self.id = uuid.uuid4().hex
        self.reason, self.task, self.model = reason, task, model
        self.on_conflict = on_conflict
        self.inserted = self.deleted = 0  # characters
        self.record: TurnRecord | None = None
        self._doc = doc
        self._limits = limits or Limits()
        self._must_take_back = rollback
        self._undo: UndoManager | None = None
        self._scopes: set[str] = set()
        self._is_open = self._is_delivered = False
        self._error: SdkError | None = None
        self._body: asyncio.Task[Any] | None = None
        self._inside: dict[
            asyncio.Task[Any], int
        ] = {}  # and how often each was cancelled before
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._window_bytes = self._window_edits = 0
        self._before: Any = None  # what was shown of us

    # Its life

    async def __aenter__(self) -> Self:
        """Waits until the document is in step with the room. Raises Unavailable when that takes too long, and Conflict
        when another turn is open in this document.
        """
        await self._provider.synced(SYNC_SECONDS)
        self._doc.begin(self)
        about = {"task": self.task, "model": self.model, "reason": self.reason}
        try:
            self._provider.turn(
                self.id, {key: each for key, each in about.items() if each}
            )
        except BaseException:
            self._doc.end(self)
            raise
        self._end_observing = self._provider.observe(self._told)
        if self._must_take_back:
            self._undo = UndoManager(capture_timeout_millis=_EVER)
            self._undo.include_origin(self.id)
        self._began = self._provider.doc
        task = asyncio.current_task()
        assert task is not None
        self._body, self._cancelled_before = task, task.cancelling()
        self._is_open = True
        self._before = self._provider.shown.get("agent")
        self.show("writing")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        told = self._error
        is_ours = told is not None and await self._take_in(kind)
        self._is_open = False
        provider = self._provider
        has_failed = kind is not None or told is not None
        try:
            try:
                if has_failed:
                    self._take_back()
            finally:
                provider.turn("")
            if not has_failed:
                position = await provider.flush("logged", FLUSH_SECONDS)
                self.record = self._recorded(position)
        finally:
            self._end_observing()
            self._doc.end(self)
            if self._before is not None:
                self._present({"agent": self._before})
        if told is not None and (is_ours or (kind is None and not self._is_delivered)):
            raise told from None

    def _recorded(self, position: int) -> TurnRecord:
        version = self._doc.version()
        return TurnRecord(self.id, self.inserted, self.deleted, version, position)

    async def _take_in(self, kind: type[BaseException] | None) -> bool:
        """The cancellation that we ourselves have asked for is not one of the program: whether it is all there is."""
        body = self._body
        if body not in self._cancelled or body is None:
            return False
        is_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if not is_cancelled:  # it has not come yet
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                pass
        self._cancelled.discard(body)
        return body.uncancel() <= self._cancelled_before and is_cancelled

    def _take_back(self) -> None:
        """Undo what was written, when that was asked for."""
        undo = self._undo
        if undo is None or self._provider.doc is not self._began or not undo.can_undo():
            return
        if self._error is not None:  # nothing more is taken of this one
            about = {"task": self.task, "reason": f"takes back {self.id}"}
            self._provider.turn(uuid.uuid4().hex, about)
        while undo.can_undo():
            undo.undo()

    def _told(self, event: Event) -> None:
        match event:
            case TurnEnded(self.id, error) | Replaced(_, error):
                self._stop(error)

    def _stop(self, error: SdkError) -> None:
        """Nothing more is written; whoever waits in this turn is told."""
        if self._error is not None or not self._is_open:
            return
        self._error = error
        for task in {self._body, *self._inside}:
            if task is not None and not task.done():
                self._cancelled.add(task)
                task.cancel()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One edit, or several: what ends the turn ends it too, with its error."""
        self.check()
        task = asyncio.current_task()
        assert task is not None
        is_first = task not in self._inside
        if is_first:
            self._inside[task] = task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            if self._error is None or task not in self._cancelled:
                raise
            self._cancelled.discard(task)
            if task.uncancel() > self._inside[task]:
                raise
            self._is_delivered = True
            raise self._error from None
        finally:
            if is_first:
                del self._inside[task]

    def check(self) -> None:
        """Raises what has ended the turn, and Conflict outside of its block."""
        if self._error is not None:
            self._is_delivered = True
            raise self._error
        if not self._is_open:
            raise Conflict("the turn has not begun, or is over")

    # Edits of texts

    async def insert(
        self,
        where: Where,
        text: str,
        *,
        root: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> EditResult:
        """Put characters at a place; of a match or section, behind it."""
        with self._working(), translated():
            spot = self._memory.spot(where, root)
            conflict = self._taken_away(where, spot)
            characters = self._characters(spot.root)
            change = Change(spot.index, spot.index, self._text(text))
            result = self._write(
                spot.root,
                characters,
                [change],
                conflict,
                dict(attributes or {}) or None,
            )
            await self._done(result)
        return result

    async def replace(
        self,
        old: str | Range,
        new: str,
        *,
        near: Where | None = None,
        root: str | None = None,
    ) -> EditResult:
        """Put something else in the place of the one that says `old`, or the one closest to `near`.

        Raises NotFound, or Ambiguous with the first ten places as matches.
        """
        with self._working(), translated():
            text = self._text(new)
            if isinstance(old, str):
                result = self._replace_text(old, text, near, self._memory.root(root))
            else:
                result = self._replace_range(old, text, root)
            await self._done(result)
        return result

    async def delete(self, range: Range, *, root: str | None = None) -> EditResult:
        """Remove characters: those that were meant; what others have put between them since it was read stays."""
        return await self.replace(range, "", root=root)

    async def patch(self, diff: str, *, root: str | None = None) -> EditResult:
        """Apply a unified diff of one text, all of it or nothing. Its hunks are found by what they say.

        Raises Invalid for what is no diff, Conflict when a hunk does not apply, Ambiguous when it applies twice.
        """
        with self._working(), translated():
            name = self._memory.root(root)
            hunks = read_diff(diff)
            characters = self._characters(name)
            shown = characters.shown
            view = self._memory.view(name, 0, len(shown), shown)
            try:
                changes = locate(hunks, shown)
            except Conflict:
                if view is None or not view.is_stale:
                    raise
                based = self._words(view.base, locate(hunks, view.base))
                result = self._rebase(name, characters, view, based)
            except Ambiguous as found:
                raise self._ambiguous(
                    str(found), name, shown, found.candidates, 0
                ) from None
            else:
                result = self._change(name, characters, self._words(shown, changes))
            await self._done(result)
        return result

    async def rewrite(
        self, text: str, *, root: str | None = None, force: bool = False
    ) -> EditResult:
        """Make a whole text say this, changing only the words that differ from what was read.

        Raises Conflict when that is more than half of it while others are here, if not forced.
        """
        with self._working(), translated():
            name = self._memory.root(root)
            characters = self._characters(name)
            shown = characters.shown
            view = self._memory.view(name, 0, len(shown), shown)
            base = shown if view is None else view.base
            changes = word_changes(base, self._text(text), Budget())
            gone = sum(change.stop - change.start for change in changes)
            if not force and 2 * gone > len(base) and self._provider.peers:
                raise Conflict(
                    "others are here, and that would change more than half of the text"
                )
            if view is None:
                result = self._change(name, characters, changes)
            else:
                result = self._rebase(name, characters, view, changes)
            await self._done(result)
        return result

    async def format(
        self, range: Range, *, root: str | None = None, **attributes: Any
    ) -> EditResult:
        """Give characters of a rich text formats, such as `bold=True`; None takes one away."""
        with self._working(), translated():
            name, start, stop = self._range(range, root)
            check_value(attributes)
            characters = self._characters(name)
            conflict = self._conflict(name, characters.shown, start, stop)
            order = self._memory.order
            if start < stop and attributes:
                first, last = order.bytes_at(name, start), order.bytes_at(name, stop)
                self._scope(name, Text)
                shared = self._provider.doc.get(name, type=Text)
                with self._provider.doc.transaction(origin=self.id):
                    shared.format(first, last, attributes)
            anchor = self._memory.order.anchor(name, stop, Side.LEFT)
            await self._pace()
        return EditResult(start < stop, anchor, conflict)

    async def stream(
        self,
        where: Where,
        pieces: AsyncIterable[str],
        *,
        replace: Range | None = None,
        root: str | None = None,
    ) -> EditResult:
        """Write a text while it comes, such as the tokens of a model: each time behind what was written last, wherever
        that is by then, and never a part of a word.

        `replace` is removed when the first of it is written. The iterator is closed at the end, its errors are raised
        here. Raises RateLimited for a stream that does not end.
        """
        with self._working():
            with translated():
                target = None if replace is None else self._held(replace, root)
                place = where if target is None else target[1]
                spot = self._memory.spot(place, root)
                conflict = self._taken_away(place, spot) if target is None else ()
                side = Side.LEFT if spot.index else Side.RIGHT
                anchor = self._memory.order.anchor(spot.root, spot.index, side)
            flow = Flow(self, spot.root, anchor, target, conflict)
            await pour(flow, pieces, self._limits)
        return flow.result

    def section(self, title: str, *, root: str | None = None) -> SectionEdit:
        """The section of a Markdown text under that heading, to be edited."""
        return SectionEdit(self, title, root)

    # Edits of maps and lists

    async def set(self, path: str, value: Any) -> EditResult:
        """Make what is at a path (a JSON Pointer whose first part names the root) this value, changing only what
        differs.
        """
        with self._working(), translated():
            place = steps(path)
            now = self._doc.value(place)
            is_new = now is NOTHING or place[-1] == "-"
            patch = Patch("add" if is_new else "replace", path, value)
            result = self._patch([patch], is_tried=isinstance(value, dict | list))
            await self._done(result)
        return result

    async def json_patch(self, operations: Sequence[Mapping[str, Any]]) -> EditResult:
        """Apply a JSON Patch (RFC 6902) to maps and lists, all of it or nothing; the first part of a path names the root.

        Raises Invalid for what is none, Conflict when a path leads nowhere or a test fails.
        """
        with self._working(), translated():
            result = self._patch(
                [_patch_of(each) for each in operations], is_tried=True
            )
            await self._done(result)
        return result

    def _patch(self, patches: Sequence[Patch], *, is_tried: bool) -> EditResult:
        values, memory = self._doc.values, self._memory
        conflict: list[ChangedValue] = []
        for patch in patches:
            place = steps(patch.path)
            is_known, was = values.expected(place)
            if patch.op != "test" and is_known and place[-1] != "-":
                now = self._doc.value(place)
                if not is_same(was, now):
                    conflict.append(
                        ChangedValue(
                            patch.path,
                            *(None if each is NOTHING else each for each in (was, now)),
                        )
                    )
        if conflict and self.on_conflict == "reject":
            raise StaleVersion("others have changed it since it was read", conflict)
        doc = self._provider.doc
        if is_tried:
            Draft(doc.get_update(), random.getrandbits(32)).edit(patches)
        before = doc.get_state()

        def change(tree: Tree) -> None:
            for patch in patches:
                tree.apply(patch)

        for patch in patches:
            self._scope(steps(patch.path)[0], _kind_of(patch))
        memory.transact(self.id, change)
        for patch in patches:
            self._note(patch)
        self._count(sum(len(str(patch.value)) for patch in patches))
        return EditResult(before != doc.get_state(), None, tuple(conflict))

    def _note(self, patch: Patch) -> None:
        """What we have written is known."""
        for written in (patch.path, *([patch.source] if patch.op == "move" else [])):
            place = steps(written)
            if len(place) > 1 and isinstance(self._doc.value(place[:-1]), list):
                place = place[:-1]  # those behind it have moved
            self._doc.values.wrote(place, self._doc.value(place))

    # Inside

    @property
    def _provider(self) -> Provider:
        return self._doc.provider

    @property
    def _memory(self) -> Memory:
        return self._doc.memory

    def _characters(self, root: str) -> Characters:
        return self._memory.characters(root)

    def _text(self, text: str) -> str:
        if not isinstance(text, str):
            raise Invalid("a text is a str")
        if len(text) > MAX_EDIT_CHARACTERS:
            raise Invalid(f"one edit inserts at most {MAX_EDIT_CHARACTERS} characters")
        return checked(text)

    def _range(self, range: Range, root: str | None) -> tuple[str, int, int]:
        """Root, from where to where."""
        if isinstance(range, Match | Section):
            range = range.start, range.end
        first, last = (self._memory.spot(each, root) for each in range)
        if first.root != last.root or first.index > last.index:
            raise Invalid("the range ends before it begins")
        return first.root, first.index, last.index

    def _held(self, range: Range, root: str | None) -> tuple[Anchor, Anchor]:
        """Both ends of a range, by the characters inside it."""
        if isinstance(range, Match | Section):
            return range.start, range.end
        name, start, stop = self._range(range, root)
        order = self._memory.order
        side = Side.LEFT if stop else Side.RIGHT
        return order.anchor(name, start), order.anchor(name, stop, side)

    def _taken_away(self, where: Where, spot: Spot) -> Conflicts:
        """The conflict of a place that is gone."""
        if not spot.is_taken_away:
            return ()
        anchor = self._memory.order.anchor(spot.root, spot.index)
        conflict = (Changed("deleted", anchor, anchor, ""),)
        if self.on_conflict == "reject":
            raise StaleVersion("others have deleted what was there", conflict)
        return conflict

    def _conflict(
        self,
        root: str,
        shown: str,
        start: int,
        stop: int,
        known: Known | None = None,
        was: tuple[int, int] | None = None,
    ) -> Conflicts:
        """What others have done there since it was read. Raises StaleVersion when that is the policy."""
        view = self._memory.view(root, *widened(shown, start, stop), shown, known, was)
        if view is None or not view.is_stale:
            return ()
        return self._held_against(view.changed(self._memory.order))

    def _held_against(self, conflict: Conflicts) -> Conflicts:
        if conflict and self.on_conflict == "reject":
            raise StaleVersion("others have changed it since it was read", conflict)
        return conflict

    def _replace_text(
        self, old: str, new: str, near: Where | None, root: str
    ) -> EditResult:
        if not old:
            raise Invalid("there is nothing to look for")
        characters = self._characters(root)
        shown = characters.shown
        found = list(
            islice(places(shown, old), None if near is not None else MAX_CANDIDATES + 1)
        )
        if near is not None and found:
            place = self._memory.spot(near, root).index
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
        self, old: str, new: str, root: str, characters: Characters
    ) -> EditResult:
        """What is not there any more was perhaps read, and changed by others since."""
        shown = characters.shown
        view = self._memory.view(root, 0, len(shown), shown)
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

    def _replace_range(self, range: Range, new: str, root: str | None) -> EditResult:
        if isinstance(range, Match | Section):
            range = range.start, range.end
        name, start, stop = self._range(range, root)
        known = self._memory.known(name, start, stop)
        was = None if known is None else known.between(*range)
        return self._exchange(
            name, self._characters(name), start, stop, new, known, was
        )

    def _exchange(
        self,
        root: str,
        characters: Characters,
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
            self._memory.view(root, start, stop, shown, known, was)
            if conflict
            else None
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
        self, root: str, characters: Characters, changes: Sequence[Change]
    ) -> EditResult:
        """Several changes of what is there now."""
        conflict: list[Changed | ChangedValue] = []
        for start, stop, _ in changes:
            if start < stop:
                conflict += self._conflict(root, characters.shown, start, stop)
        return self._write(root, characters, changes, tuple(conflict))

    def _rebase(
        self,
        root: str,
        characters: Characters,
        view: View,
        changes: Sequence[Change],
        touched: Sequence[Any] = (),
    ) -> EditResult:
        """Several changes of what was read."""
        parts = list(touched)
        for start, stop, _ in changes:
            parts += [part for part in view.touched(start, stop) if part not in parts]
        conflict = self._held_against(view.changed(self._memory.order, parts))
        return self._write(root, characters, view.rebased(changes), conflict)

    def _write(
        self,
        root: str,
        characters: Characters,
        changes: Sequence[Change],
        conflict: Conflicts,
        attributes: dict[str, Any] | None = None,
    ) -> EditResult:
        memory = self._memory
        if attributes:
            check_value(attributes)
        real = [each for each in changes if each.insert or each.start < each.stop]
        if not real:
            return EditResult(False, None, conflict)
        self._scope(root, Text)
        memory.write(self.id, root, characters, real, attributes)
        inserted = sum(len(change.insert) for change in real)
        deleted = sum(change.stop - change.start for change in real)
        self.inserted += inserted
        self.deleted += deleted
        self._count(sum(len(change.insert.encode()) for change in real))
        last = real[-1]
        index = last.stop + inserted - deleted
        side = Side.LEFT if last.insert else Side.RIGHT
        return EditResult(True, memory.order.anchor(root, index, side), conflict)

    def _scope(self, root: str, kind: type[Any]) -> None:
        """What is done in this root can be taken back; one that holds nothing yet becomes of this kind."""
        if self._undo is None or root in self._scopes:
            return
        self._scopes.add(root)
        doc = self._provider.doc
        shared = root_of(doc, root)
        self._undo.expand_scope(doc.get(root, type=kind) if shared is None else shared)

    def _ambiguous(
        self, message: str, root: str, shown: str, found: Iterable[Any], length: int
    ) -> Ambiguous:
        matches = [
            self._memory.match(root, shown, at, length)
            for at in islice(found, MAX_CANDIDATES)
        ]
        return Ambiguous(message, matches)

    def _count(self, size: int) -> None:
        self._window_bytes += size
        self._window_edits += 1

    async def _done(self, result: EditResult) -> None:
        """Show where it was, and go on in due time."""
        if result.anchor is not None:
            self.point(result.anchor)
        await self._pace()

    async def _pace(self) -> None:
        """Be told what ends the turn; and do not run ahead of what the server has logged."""
        await asyncio.sleep(0)
        if self._window_bytes >= WINDOW_BYTES or self._window_edits >= WINDOW_EDITS:
            await self._provider.flush("logged", STALL_SECONDS)
            self._window_bytes = self._window_edits = 0

    def show(self, status: str, tail: str = "") -> None:
        """Say what this agent is doing, in this room."""
        doing = {
            "status": status,
            "task": self.task[:MAX_SHOWN_CHARACTERS],
            "turn": self.id,
            "tail": tail[-MAX_SHOWN_CHARACTERS:],
        }
        self._present({"agent": {key: each for key, each in doing.items() if each}})

    def point(self, anchor: Anchor) -> None:
        """Show where this agent writes."""
        where = anchor.to_json()
        self._present({"cursor": {"anchor": where, "head": where}})

    def _present(self, what: Mapping[str, Any]) -> None:
        """Show it beside all else, if this is somebody who shows what it does."""
        shown = self._provider.shown
        if "agent" in shown:
            with suppress(ValueError):  # too much to show is no reason to stop
                self._provider.show({**shown, **what})


class Flow:
    """Where a stream is written: behind its own last character."""

    def __init__(
        self,
        turn: Turn,
        root: str,
        anchor: Anchor,
        target: tuple[Anchor, Anchor] | None,
        conflict: Conflicts,
    ) -> None:
        self._turn, self._root, self._anchor = turn, root, anchor
        self._target, self._conflict = target, conflict
        self._has_begun = False

    @property
    def result(self) -> EditResult:
        return EditResult(self._has_begun, self._anchor, self._conflict)

    async def write(self, text: str) -> None:
        """Some of it, up to the end of a word."""
        turn = self._turn
        turn.check()
        with translated():
            if self._target is not None:
                target, self._target = self._target, None
                removed = turn._replace_range(target, "", self._root)
                self._conflict = (*self._conflict, *removed.conflict)
            memory = turn._memory
            index = memory.order.resolve(self._anchor).index
            characters = memory.characters(self._root)
            result = turn._write(
                self._root, characters, [Change(index, index, text)], self._conflict
            )
            assert result.anchor is not None
            self._anchor = result.anchor
            if not self._has_begun:
                self._has_begun = True
                # Held by what follows: it stays behind our own text without being said again.
                turn.point(memory.order.anchor(self._root, index + len(text)))
        await turn._pace()

    def tail(self, text: str) -> None:
        """What has come and is not written yet."""
        self._turn.show("writing", text)


class SectionEdit:
    """A section of a Markdown text, found anew by its title at each edit. Raises NotFound, or Ambiguous with matches."""

    def __init__(self, turn: Turn, title: str, root: str | None) -> None:
        self._turn, self._title, self._root = turn, title, root

    @property
    def end(self) -> Anchor:
        """Behind the last thing said in it: where a stream goes on."""
        with translated():
            root, characters, span = self._found()
            _, stop = markdown.content(characters.shown, span)
            return self._turn._memory.order.anchor(root, stop, Side.LEFT)

    async def replace(self, text: str) -> EditResult:
        """Make its body say this, and what is below it go."""
        return await self._edit(markdown.replaced, text)

    async def append(self, text: str) -> EditResult:
        """Add a block at its end, or an item to the list or table that ends it."""
        return await self._edit(markdown.appended, text)

    async def insert_before(self, text: str) -> EditResult:
        """Put a block before its heading."""
        return await self._edit(markdown.before, text)

    async def rename(self, title: str) -> EditResult:
        """Give its heading another title."""
        return await self._edit(markdown.renamed, title)

    async def delete(self) -> EditResult:
        """Remove it, heading and all."""
        return await self._edit(lambda text, span, _: markdown.removed(text, span), "")

    async def _edit(self, edit: Any, text: str) -> EditResult:
        turn = self._turn
        with turn._working(), translated():
            new = turn._text(text)
            root, characters, span = self._found()
            start, stop, insert = edit(characters.shown, span, new)
            known, was = None, None
            if edit is markdown.replaced:
                known, was = self._read(root, span)
            result = turn._exchange(root, characters, start, stop, insert, known, was)
            await turn._done(result)
        return result

    def _found(self) -> tuple[str, Characters, markdown.Span]:
        turn = self._turn
        root = turn._memory.root(self._root)
        characters = turn._characters(root)
        shown = characters.shown
        try:
            return (
                root,
                characters,
                markdown.titled(markdown.sections(shown), self._title),
            )
        except Ambiguous as found:
            at = [span.start for span in found.candidates]
            raise turn._ambiguous(
                str(found), root, shown, at, len(self._title)
            ) from None

    def _read(
        self, root: str, span: markdown.Span
    ) -> tuple[Known | None, tuple[int, int] | None]:
        """Which of what was read is its body."""
        known = self._turn._memory.known(root, span.start, span.end)
        if known is None:
            return None, None
        same = [
            each for each in markdown.sections(known.text) if each.title == self._title
        ]
        if len(same) != 1:
            return None, None
        start, stop = markdown.content(known.text, same[0])
        return known, (known.start + start, known.start + stop)


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

"""Turn: edits as a unit, credited, shown and stopped together."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from collab.document.anchor import Anchor, Side
from collab.document.blocks import complete
from collab.sdk import sections as markdown
from collab.sdk.edits import (
    Conflicts,
    EditResult,
    Edits,
    Policy,
    Range,
    SectionChange,
)
from collab.sdk.errors import Conflict, Invalid, SdkError
from collab.sdk.memory import Where, Within, translated
from collab.sdk.provider import Event, Phase, Provider, Replaced, State, TurnEnded
from collab.sdk.reading import Version
from collab.sdk.stream import Limits, pour

if TYPE_CHECKING:
    from collab.sdk.doc import Doc

# What may be on its way before an edit waits until it is logged.
WINDOW_BYTES, WINDOW_EDITS = 1 << 16, 200
STALL_SECONDS = 30.0  # how long it waits, at most
FLUSH_SECONDS = 30.0
SYNC_SECONDS = 30.0
SETTLE_SECONDS = 0.2  # for the answers to what was on its way when the turn was ended
MAX_SHOWN_CHARACTERS = 256


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
            raise Invalid(f"there is no policy {on_conflict!r}")
        self.id = uuid.uuid4().hex
        self.reason, self.task, self.model = reason, task, model
        self.on_conflict = on_conflict
        self.record: TurnRecord | None = None
        self._doc = doc
        self._limits = limits or Limits()
        self._rollback = rollback
        self._edits: Edits | None = None
        self._is_open = False
        self._error: SdkError | None = None
        self._is_delivered = False
        self._body: asyncio.Task[Any] | None = None
        # Who is in an edit, and how often each was cancelled before.
        self._inside: dict[asyncio.Task[Any], int] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._sent_edits = self._sent_bytes = 0
        self._before: Any = None  # what was shown of us

    @property
    def inserted(self) -> int:
        """Characters, so far."""
        return 0 if self._edits is None else self._edits.inserted

    @property
    def deleted(self) -> int:
        """Characters, so far."""
        return 0 if self._edits is None else self._edits.deleted

    # Its life

    async def __aenter__(self) -> Self:
        """Waits until the document is in step with the room. Raises Unavailable when that takes too long, Conflict when
        another turn is open in this document or this one was entered before, and Invalid for a reason, task or model
        that is too long or no text.
        """
        if self._edits is not None:
            raise Conflict("a turn is entered once: take another")
        provider = self._provider
        await provider.synced(SYNC_SECONDS)
        about = {"task": self.task, "model": self.model, "reason": self.reason}
        self._doc.begin(self)
        try:
            provider.turn(self.id, {key: each for key, each in about.items() if each})
        except BaseException:
            self._doc.end(self)
            raise
        self._edits = Edits(
            self._doc.memory, self.id, policy=self.on_conflict, undoable=self._rollback
        )
        self._end_observing = provider.observe(self._told)
        task = asyncio.current_task()
        assert task is not None
        self._body, self._cancelled_before = task, task.cancelling()
        self._is_open = True
        self._before = provider.shown.get("agent")
        self.show("writing")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        told, edits, provider = self._error, self._edits, self._provider
        assert edits is not None
        is_ours = told is not None and await self._take_in(kind)
        self._is_open = False
        has_failed = kind is not None or told is not None
        try:
            try:
                if has_failed:
                    self._take_back(edits)
            finally:
                provider.turn("")
            if told is not None:
                # What was on its way is taken or refused; the program need not hear of that too.
                with suppress(SdkError):
                    await provider.flush("logged", SETTLE_SECONDS)
            elif not has_failed:
                position = await provider.flush("logged", FLUSH_SECONDS)
                self.record = TurnRecord(
                    self.id,
                    edits.inserted,
                    edits.deleted,
                    self._doc.version(),
                    position,
                )
        finally:
            self._end_observing()
            self._doc.end(self)
            if self._before is not None:
                self._present({"agent": self._before})
        if told is not None and (
            is_ours
            or (kind is None and not self._is_delivered)
            or _is_nothing_else(error, told)
        ):
            raise told from None

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

    def _take_back(self, edits: Edits) -> None:
        """Undo what was written, when that was asked for."""
        if not edits.can_take_back():
            return
        if self._error is not None:  # of this turn nothing more is taken
            about = {"task": self.task, "reason": f"takes back {self.id}"}
            self._provider.turn(uuid.uuid4().hex, about)
        edits.take_back()

    def _told(self, event: Event) -> None:
        match event:
            case TurnEnded(self.id, error):
                self._stop(error)
            case Replaced(_, SdkError() as error) | State(
                Phase.REFUSED, _, SdkError() as error
            ):
                self._stop(error)
                self._provider.heard(error)

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
    def working(self) -> Iterator[Edits]:
        """One edit."""
        with self._waiting(), translated():
            yield self.check()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """What ends the turn ends this too, with its error."""
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

    def check(self) -> Edits:
        """Raises what has ended the turn, and Conflict outside of its block."""
        if self._error is not None:
            self._is_delivered = True
            raise self._error
        if self._edits is None or not self._is_open:
            raise Conflict("the turn has not begun, or is over")
        return self._edits

    # Texts

    async def insert(
        self,
        where: Where,
        text: str,
        *,
        root: str | None = None,
        path: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> EditResult:
        """Put characters at a place; of a match or section, behind it."""
        with self.working() as edits:
            return await self.done(
                edits.insert(where, text, Within(root, path), attributes)
            )

    async def replace(
        self,
        old: str | Range,
        new: str,
        *,
        near: Where | None = None,
        root: str | None = None,
        path: str | None = None,
    ) -> EditResult:
        """Put something else in the place of the one that says `old`, or the one closest to `near`.

        Raises NotFound, or Ambiguous with the first ten places as matches.
        """
        with self.working() as edits:
            return await self.done(edits.replace(old, new, near, Within(root, path)))

    async def delete(
        self, range: Range, *, root: str | None = None, path: str | None = None
    ) -> EditResult:
        """Remove characters: those that were meant; what others have put between them since it was read stays."""
        return await self.replace(range, "", root=root, path=path)

    async def patch(
        self, diff: str, *, root: str | None = None, path: str | None = None
    ) -> EditResult:
        """Apply a unified diff of one text, all of it or nothing. Its hunks are found by what they say.

        Raises Invalid for what is no diff, Conflict when a hunk does not apply, Ambiguous when it applies twice.
        """
        with self.working() as edits:
            return await self.done(edits.patch(diff, Within(root, path)))

    async def rewrite(
        self,
        text: str,
        *,
        root: str | None = None,
        path: str | None = None,
        force: bool = False,
    ) -> EditResult:
        """Make a whole text say this, changing only the words that differ from what was read.

        Raises Conflict when that is more than half of it while others are here, if not forced.
        """
        with self.working() as edits:
            is_shy = not force and bool(self._provider.peers)
            return await self.done(
                edits.rewrite(text, Within(root, path), is_shy=is_shy)
            )

    async def format(
        self,
        range: Range,
        *,
        root: str | None = None,
        path: str | None = None,
        **attributes: Any,
    ) -> EditResult:
        """Give characters of a rich text formats, such as `bold=True`; None takes one away."""
        with self.working() as edits:
            return await self.done(edits.format(range, Within(root, path), attributes))

    async def stream(
        self,
        where: Where,
        pieces: AsyncIterable[str],
        *,
        replace: Range | None = None,
        root: str | None = None,
        path: str | None = None,
    ) -> EditResult:
        """Write a text while it comes, such as the tokens of a model: each time behind what was written last, wherever
        that is by then, and never a part of a word.

        `replace` is removed when the first of it is written. The iterator is closed at the end, its errors are raised
        here. Raises RateLimited for a stream that does not end.
        """
        with self._waiting():
            with translated():
                flow = Flow(self, self.check(), where, replace, Within(root, path))
            failure: Exception | None = None
            try:
                await pour(flow, pieces, self._limits)
            except Exception as error:
                failure = error
            await flow.end()
            if failure is not None:
                raise failure
        return flow.result

    def section(
        self, title: str, *, root: str | None = None, path: str | None = None
    ) -> SectionEdit:
        """The section of a Markdown text under that heading, to be edited."""
        return SectionEdit(self, title, Within(root, path))

    # Maps and lists

    async def set(self, path: str, value: Any) -> EditResult:
        """Make what is at a path (a JSON Pointer whose first part names the root) this value, changing only what
        differs.
        """
        with self.working() as edits:
            return await self.done(edits.set(path, value))

    async def json_patch(self, operations: Sequence[Mapping[str, Any]]) -> EditResult:
        """Apply a JSON Patch (RFC 6902) to maps and lists, all of it or nothing; the first part of a path names the root.

        Raises Invalid for what is none, Conflict when a path leads nowhere or a test fails.
        """
        with self.working() as edits:
            return await self.done(edits.json_patch(operations))

    # Around an edit

    @property
    def _provider(self) -> Provider:
        return self._doc.provider

    async def done(self, result: EditResult) -> EditResult:
        """Show where it was, and go on in due time."""
        if result.anchor is not None:
            self.point(result.anchor)
        await self.pace()
        return result

    async def pace(self) -> None:
        """Be told what ends the turn; and do not run ahead of what the server has logged."""
        await asyncio.sleep(0)
        edits = self._edits
        if edits is not None and (
            edits.count - self._sent_edits >= WINDOW_EDITS
            or edits.size - self._sent_bytes >= WINDOW_BYTES
        ):
            self._sent_edits, self._sent_bytes = edits.count, edits.size
            await self._provider.flush("logged", STALL_SECONDS)

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
            with suppress(Invalid):  # too much to show is no reason to stop
                self._provider.show({**shown, **what})


def _is_nothing_else(error: BaseException | None, told: SdkError) -> bool:
    """Whether what several tasks of a block have raised is all the same."""
    return (
        isinstance(error, BaseExceptionGroup)
        and error.subgroup(
            lambda each: not isinstance(each, BaseExceptionGroup) and each is not told
        )
        is None
    )


class Flow:
    """Where a stream is written: behind its own last character."""

    def __init__(
        self,
        turn: Turn,
        edits: Edits,
        where: Where,
        replace: Range | None,
        within: Within,
    ) -> None:
        self._turn, self._edits = turn, edits
        self._conflict: Conflicts = ()
        self._has_begun = False
        self._target = None if replace is None else edits.held(replace, within)
        place = where if self._target is None else self._target[1]
        spot = edits.memory.spot(place, within)
        if self._target is None:
            self._conflict = edits.taken_away(place, spot)
        side = Side.LEFT if spot.index else Side.RIGHT
        self._root = spot.root
        self._anchor = edits.memory.places.anchor(spot.root, spot.index, side)
        # Of Markdown for an XML tree, what is no whole block yet; None in a line of it, and in any text.
        self._block: str | None = None

    @property
    def result(self) -> EditResult:
        """What has become of it so far."""
        return EditResult(self._has_begun, self._anchor, self._conflict)

    async def write(self, text: str) -> None:
        """Some of it, up to the end of a word."""
        self._turn.check()
        with translated():
            anchor = self._write(text)
        if anchor is not None:
            self._turn.point(anchor)
        await self._turn.pace()

    def _write(self, text: str) -> Anchor | None:
        """Where to show ourselves, the first time."""
        edits = self._edits
        if self._target is not None:
            target, self._target = self._target, None
            removed = edits.replace(target, "", None, Within())
            self._conflict = removed.conflict
        if self._block is None:
            text, rest = edits.line_of(
                self._root, self._anchor, text, has_begun=self._has_begun
            )
            anchor = self._write_line(text) if text else None
            if rest is None:
                return anchor
            self._block, text = "", rest
        whole, self._block = complete(self._block + text)
        self._write_blocks(whole)
        return None if self._has_begun else self._anchor

    def _write_blocks(self, text: str) -> None:
        if text:
            result = self._edits.write_blocks(
                self._root, self._anchor, text, self._conflict
            )
            self._has_begun = self._has_begun or result.applied
            self._anchor = result.anchor or self._anchor
        self.tail("")

    def _write_line(self, text: str) -> Anchor | None:
        edits = self._edits
        write = edits.go_on if self._has_begun else edits.begin
        result = write(self._root, self._anchor, text, self._conflict)
        if result.anchor is not None:
            self._anchor = result.anchor
        if self._has_begun:
            return None
        self._has_begun = True
        # Held by what follows, so that it stays behind our own text without being said again.
        order = edits.memory.places
        return order.anchor(self._root, order.resolve(self._anchor).index)

    async def end(self) -> None:
        """Write the last block, which nothing has closed."""
        if self._block:
            self._turn.check()
            text, self._block = self._block, ""
            with translated():
                self._write_blocks(text)
            await self._turn.pace()

    def tail(self, text: str) -> None:
        """What has come and is not written yet."""
        self._turn.show("writing", (self._block or "") + text)


class SectionEdit:
    """A section of a Markdown text, found anew by its title at each edit. Raises NotFound, or Ambiguous with matches."""

    def __init__(self, turn: Turn, title: str, within: Within) -> None:
        self._turn, self._title, self._within = turn, title, within

    @property
    def end(self) -> Anchor:
        """Behind the last thing said in it: where a stream goes on."""
        edits = self._turn.check()
        with translated():
            root, characters, span = edits.section(self._title, self._within)
            _, stop = markdown.content(characters.shown, span)
            return edits.memory.places.anchor(root, stop, Side.LEFT)

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

    async def _edit(self, edit: SectionChange, text: str) -> EditResult:
        turn = self._turn
        with turn.working() as edits:
            result = edits.edit_section(edit, self._title, text, self._within)
            return await turn.done(result)

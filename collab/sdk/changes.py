"""What others change in a document, told burst by burst: in which section, what was and is there, and who did it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

from collab.document.anchor import Anchor, Side
from collab.document.differences import middle
from collab.document.order import Order, Span
from collab.document.prose import Prose
from collab.errors import CollabError
from collab.protocol.statevector import Vector, encode_state_vector, state_vector
from collab.sdk.errors import (
    AnotherHistory,
    Invalid,
    NotFound,
    SdkError,
    Unavailable,
)
from collab.sdk.history import (
    Author,
    History,
    LoggedChange,
)
from collab.sdk.presence import Peer
from collab.sdk.provider import Phase, Provider
from collab.sdk.views import NOBODY, Edit, Found, TextView, TreeView, View

DEBOUNCE_SECONDS, MAX_WAIT_SECONDS = 1.0, 10.0
MAX_CURSOR_CHARACTERS = 1 << 16
# What is only asked to say more about a change holds it up no longer than this.
ASKED_SECONDS = 2.0
MAX_STEPS_BACK = 16  # in the log, for a position of which everything was told
NOTHING = b"\x00"  # an empty state vector


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that others did in one burst, in the order of the text; there is at least one edit.

    `cursor` is for `changes(after=…)`: what comes after this change is told then, to whoever holds it.
    """

    edits: tuple[Edit, ...]
    cursor: str = field(repr=False)

    @property
    def section(self) -> tuple[str, ...]:
        """The innermost section that all of it is in."""
        first, *others = (edit.section for edit in self.edits)
        depth = len(first)
        for other in others:
            depth = min(depth, len(other))
            while first[:depth] != other[:depth]:
                depth -= 1
        return first[:depth]

    @property
    def old(self) -> str:
        """What was there, a line for each edit."""
        return "\n".join(edit.old for edit in self.edits)

    @property
    def new(self) -> str:
        """What is there, a line for each edit."""
        return "\n".join(edit.new for edit in self.edits)

    @property
    def start(self) -> Anchor:
        """Where the first edit begins."""
        return self.edits[0].start

    @property
    def end(self) -> Anchor:
        """Where the last edit ends."""
        return self.edits[-1].end

    @property
    def authors(self) -> tuple[Author, ...]:
        """Of all edits, each once."""
        return tuple(dict.fromkeys(one for edit in self.edits for one in edit.authors))


@dataclass(frozen=True, slots=True)
class Cursor:
    """How much of a text somebody was told of.

    At `position` of the log the text had this `digest`, unless others were writing just then; at `before` it said
    nothing yet that was not told. `vector` tells what is new where the log cannot be read.
    """

    epoch: str
    position: int
    before: int
    digest: int
    vector: bytes

    def encode(self) -> str:
        """As letters that need no quoting anywhere."""
        encoded = base64.urlsafe_b64encode(self.vector).decode()
        parts = [self.epoch, self.position, self.before, self.digest, encoded]
        written = base64.urlsafe_b64encode(zlib.compress(orjson.dumps(parts))).decode()
        if len(written) > MAX_CURSOR_CHARACTERS and self.vector:
            return replace(self, vector=b"").encode()
        return written

    @classmethod
    def decode(cls, written: str) -> Self:
        """Raises Invalid for what `encode` did not write."""
        try:
            if len(written) > MAX_CURSOR_CHARACTERS:
                raise ValueError
            packed = base64.b64decode(written, b"-_", validate=True)
            unpacking = zlib.decompressobj()
            parts = orjson.loads(
                unpacking.decompress(packed, 2 * MAX_CURSOR_CHARACTERS)
            )
            epoch, position, before, digest, encoded = parts
            vector = base64.b64decode(encoded, b"-_", validate=True)
            numbers = (position, before, digest)
            if type(epoch) is not str or any(type(one) is not int for one in numbers):
                raise ValueError
            if vector:
                state_vector(vector)
        except (ValueError, TypeError, zlib.error, binascii.Error, CollabError):
            raise Invalid("this is no cursor of a change") from None
        return cls(epoch, position, before, digest, vector)


class Changes:
    """The changes of one text or XML tree, as an asynchronous iterator for one task; from when it is made, or from a cursor on.

    A burst ends when there was nothing new for `debounce` seconds, or after `max_wait`. Whoever is slow gets more in one
    change, never a queue. It goes on over reconnects, ends when the room is left, and raises the error of a server that
    refuses. Who stops waiting loses nothing: the next wait goes on.
    """

    def __init__(
        self,
        provider: Provider,
        history: History,
        root: str,
        order: Callable[[], Order],
        prose: Callable[[], Prose | None] | None = None,
        *,
        debounce: float = DEBOUNCE_SECONDS,
        max_wait: float = MAX_WAIT_SECONDS,
        ignore_self: bool = True,
        after: str | None = None,
    ) -> None:
        self._provider, self._history, self._root = provider, history, root
        self._order = order
        self._debounce, self._max_wait = debounce, max_wait
        self._ignores_self = ignore_self
        self._resumed = Cursor.decode(after) if after is not None else None
        self._view: View = (
            TextView(provider, root, order, ignore_self)
            if prose is None
            else TreeView(provider, root, order, prose, ignore_self)
        )
        self._end = weakref.finalize(self, View.close, self._view)
        self._vector: Vector = order().vector()
        self._epoch = provider.epoch  # "" while nothing was ever written
        self._position: int | None = None  # of the log, not beyond what was told
        # What was found and not handed out yet, and from which position on it is in the log.
        self._told: tuple[Change, Sequence[str], int] | None = None

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Watch no longer."""
        self._end()

    async def __anext__(self) -> Change:
        if self._told is None:
            self._told = await self._next()
        change = await self._credited(*self._told)
        self._told = None
        return change

    async def _next(self) -> tuple[Change, Sequence[str], int]:
        if self._position is None:
            self._position = await self._log_position()
        if self._resumed is not None:
            after = self._resumed.before
            found = await self._since(self._resumed)
            self._resumed = None
            if found:
                return *self._change(found, self._position or 0), after
        while True:
            await self._burst()
            position = await self._log_position()
            found = self._view.take()
            if found:
                after = self._position
                return *self._change(found, position), after
            if self._view.is_over:
                raise StopAsyncIteration

    async def _burst(self) -> None:
        """Wait until there is something new, and then until there is nothing newer for a moment."""
        view, now = self._view, asyncio.get_running_loop().time
        await view.wait()
        latest = now() + self._max_wait
        while not view.is_over:
            view.is_moved.clear()
            try:
                async with asyncio.timeout(min(self._debounce, latest - now())):
                    await view.is_moved.wait()
            except TimeoutError:
                return

    async def _log_position(self) -> int:
        """Where the log ends; when it cannot be asked, what is known of it."""
        try:
            async with asyncio.timeout(ASKED_SECONDS):
                self._epoch, position = await self._history.position()
        except (SdkError, TimeoutError):
            return self._position or 0
        return position

    def _change(
        self, found: Sequence[Found], position: int
    ) -> tuple[Change, Sequence[str]]:
        """What was found in the document as it is now, and the path to each."""
        view = self._view
        vector = self._order().vector()
        cursor = Cursor(
            self._epoch,
            position,
            self._position or 0,
            digest(view.text),
            encode_state_vector(vector),
        )
        people = view.people()
        known, self._vector, self._position = self._vector, vector, position
        outline, size = view.outline()
        edits = []
        for one in found:
            start = view.anchor(one.start, Side.RIGHT)
            end = view.anchor(one.end, Side.LEFT)
            titles = tuple(
                each.title
                for each in outline
                if each.start <= one.start < each.end or one.start == each.end == size
            )
            authors = self._authors(one, known, people)
            edits.append(Edit(titles, one.old, one.new, start, end, one.start, authors))
        return Change(tuple(edits), cursor.encode()), [one.path for one in found]

    def _authors(
        self, one: Found, known: Vector, people: Mapping[int, Peer]
    ) -> tuple[Author, ...]:
        """Who inserted what is new in it; NOBODY for whom presence does not know."""
        found: dict[Author, None] = {}
        own = self._provider.doc.client_id
        for span in self._view.spans(one.start, one.end):
            if span.clock + span.units <= known.get(span.client, 0):
                continue
            if span.client == own:
                continue
            peer = people.get(span.client)
            found[_author(peer) if peer is not None else NOBODY] = None
        return tuple(found)

    async def _credited(
        self, change: Change, paths: Sequence[str], after: int
    ) -> Change:
        """Ask the log, from that position on, for those whom presence does not know, and for who only deleted."""
        if all(edit.authors and NOBODY not in edit.authors for edit in change.edits):
            return change
        try:
            async with asyncio.timeout(ASKED_SECONDS):
                found = await self._history.changeset(after, root=self._root)
        except (SdkError, TimeoutError):
            logged: tuple[LoggedChange, ...] = ()
        else:
            logged = found.changes
        edits = tuple(
            self._view.credited(edit, path, logged)
            for edit, path in zip(change.edits, paths, strict=True)
        )
        return replace(change, edits=edits)

    # From a cursor on

    async def _since(self, cursor: Cursor) -> Sequence[Found]:
        """What is new since then, by the log, or else by ids."""
        if cursor.epoch and cursor.epoch != self._epoch:
            raise AnotherHistory("the cursor belongs to another history of this room")
        view = self._view
        if digest(view.text) == cursor.digest:
            view.take()
            return ()
        try:
            old = await self._old(cursor)
        except SdkError:
            old = None
        if cursor.vector:
            self._vector = state_vector(cursor.vector)
        view.take()
        found = self._newer() if old is None else view.since(old)
        return [one for one in found if not await self._is_own(one)]

    async def _old(self, cursor: Cursor) -> Any:
        """The document as it was told of last; or an earlier one, so that something may be told twice but nothing never."""
        view = self._view
        old = await view.past(self._history, cursor.position)
        if digest(view.text_of(old)) == cursor.digest:
            return old
        # The log may have been ahead of us, or we of it.
        told, position = state_vector(cursor.vector or NOTHING), cursor.before
        for _ in range(MAX_STEPS_BACK):
            past = await self._history.at(position, format="update")
            order = Order.of(past.content)
            if all(end <= told.get(one, 0) for one, end in order.vector().items()):
                return view.read(order, past.content)
            position //= 2
        raise NotFound("the log does not say what was told")

    def _newer(self) -> Sequence[Found]:
        """What has been inserted since: of what was deleted nothing is known here."""
        own = self._provider.doc.client_id if self._ignores_self else None
        return self._view.inserted(self._runs(self._view.spans(), own))

    def _runs(
        self, spans: Sequence[Span], own: int | None = None
    ) -> list[tuple[int, int]]:
        """From where to where what is new stands among these, but what is our own."""
        runs: list[tuple[int, int]] = []
        for span in spans:
            new = span.clock + span.units - self._vector.get(span.client, 0)
            if new <= 0 or span.client == own:
                continue
            end = span.start + span.size
            start = max(span.start, end - new * span.size // span.units)
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((start, end))
        return runs

    async def _is_own(self, one: Found) -> bool:
        """Whether it is an insertion of this very principal, by another connection before."""
        user = self._provider.user.id
        start, old_end, new_end = middle(one.old, one.new)
        if not self._ignores_self or not user or old_end > start:
            return False
        runs = [(one.start + start, one.start + new_end)]
        if self._view.is_tree:  # Markdown has more characters than what it is made of
            runs = self._runs(self._view.spans(one.start, one.end))
        if not runs:
            return False
        try:
            blame = await self._history.blame(self._root, runs[0][0], runs[-1][1])
        except SdkError:
            return False
        authors = {
            span.author.principal
            for span in blame.spans
            if any(first < span.end and span.start < last for first, last in runs)
        }
        return authors == {user}


async def wait_for(
    provider: Provider,
    is_so: Callable[[], bool],
    timeout: float | None = None,  # noqa: ASYNC109 - the blocking façade has it too
) -> None:
    """Wait until something is true of a document, whoever makes it so. Asked now and after each change, once for all that
    come together. Raises TimeoutError, and the error of a server that refuses.
    """
    moved = asyncio.Event()

    def observed(_: object) -> None:
        moved.set()

    doc = provider.doc
    subscription = doc.observe(observed)
    end = provider.observe(observed)
    try:
        async with asyncio.timeout(timeout):
            while not is_so():
                state = provider.state
                if state.phase in (Phase.REFUSED, Phase.CLOSED):
                    raise state.error or Unavailable("the room was left")
                if provider.doc is not doc:
                    doc.unobserve(subscription)
                    doc = provider.doc
                    subscription = doc.observe(observed)
                await moved.wait()
                moved.clear()
    finally:
        end()
        doc.unobserve(subscription)


def digest(text: str) -> int:
    """Tells texts apart that are not made to be taken for each other."""
    return zlib.crc32(text.encode()) << 32 | zlib.adler32(text.encode())


def _author(peer: Peer) -> Author:
    user = peer.user
    turn = peer.agent.turn if peer.agent is not None else ""
    task = peer.agent.task if peer.agent is not None else ""
    return Author(
        user.id, user.name, user.kind, user.on_behalf_of, user.role, turn, task
    )

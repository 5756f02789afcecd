"""What can be asked about a document and awaited in it: who wrote what, what it was, taking back, and what others do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, Self

from collab.document.prose import Prose
from collab.sdk.changes import DEBOUNCE_SECONDS, MAX_WAIT_SECONDS, Changes, wait_for
from collab.sdk.errors import Invalid
from collab.sdk.history import (
    Activity,
    Blame,
    Changeset,
    Format,
    History,
    LoggedTurn,
    Past,
    Undone,
)
from collab.sdk.memory import Memory, Where, translated
from collab.sdk.provider import Provider
from collab.sdk.reading import Match, Section


class Named(Protocol):
    """A turn, or what is left of one."""

    @property
    def id(self) -> str: ...


class Observed:
    """The part of `Doc` that writes nothing itself. Places are characters of the document as it is now."""

    provider: Provider
    memory: Memory

    @property
    def history(self) -> History:
        """The same questions in the words of the log: roots, numbers and principals."""
        return History(self.provider.requests, self.provider.room)

    async def blame(
        self,
        range: Match | Section | tuple[Where, Where] | None = None,
        *,
        root: str | None = None,
        path: str | None = None,
        at: int | None = None,
    ) -> Blame:
        """Who wrote a part of the document, or all of it: each character leads to a principal and, if it was one, a turn.

        A root may be of any kind, and a path (a JSON Pointer) leads to what is inside of it. The spans count characters, of
        XML those of its text, items of a list, and the keys of a map; all that they say is within what was asked for.
        With `at` as it was at that position of the log, and then the range is of numbers. What is not saved yet is not
        known: `flush` first. Raises NotFound, and Forbidden without the right to read history.
        """
        if range is None:
            name = root if root is not None else self._root()
            return await self.history.blame(name, path=path, at=at)
        first, last = range if isinstance(range, tuple) else (range.start, range.end)
        if at is not None or (isinstance(first, int) and isinstance(last, int)):
            with translated():
                name = self.memory.root(root)
            start, end = _number(first), _number(last)
            return await self.history.blame(name, start, end, path=path, at=at)
        with translated():
            name, inside, start, end = self.memory.named(first, last, root, path)
        return await self.history.blame(name, start, end, path=inside)

    def _root(self) -> str | None:
        """The text that is meant; None when there is none."""
        with translated():
            name = self.memory.root(None)
        return name if name in self.memory.doc.keys() else None

    async def changeset(
        self,
        after: int,
        to: int | None = None,
        *,
        root: str | None = None,
        path: str | None = None,
    ) -> Changeset:
        """What happened after one position of the log, up to another or to the end, and who did it: anywhere, in one root,
        or in what is at a path (a JSON Pointer) inside of it.
        """
        return await self.history.changeset(after, to, root=root, path=path)

    async def activity(
        self, *, after: int = 0, before: int | None = None, limit: int = 50
    ) -> Activity:
        """Who did what, the newest first: one entry for each turn and for each sitting of a person."""
        return await self.history.activity(after=after, before=before, limit=limit)

    async def logged_turn(
        self, turn: str | Named, principal: str | None = None
    ) -> LoggedTurn:
        """A turn as the log has it, and whether it was taken back. Raises NotFound."""
        return await self.history.turn(_id(turn), principal)

    async def at(
        self, when: int | datetime, *, format: Format = "text", root: str | None = None
    ) -> Past:
        """The document at a position of the log, or at a time. Raises NotFound for what the log does not reach back to."""
        name = root
        if root is None and format in ("text", "markdown"):
            with translated():
                name = self.memory.root(None)
        return await self.history.at(when, format=format, root=name)

    async def undo(
        self, turn: str | Named, principal: str | None = None, *, reason: str = ""
    ) -> Undone:
        """Take a turn back, whenever it was, as a new turn; what others wrote stays, inside of it too.

        Without a principal it is one's own turn, or the only one of that id. One's own turns and those on one's behalf
        need the right to write, others that of an administrator: else Forbidden. What is taken back already is left as
        it is.
        """
        return await self.history.undo(_id(turn), principal, reason=reason)

    async def redo(
        self, turn: str | Named, principal: str | None = None, *, reason: str = ""
    ) -> Undone:
        """Take back what took this turn back."""
        return await self.history.redo(_id(turn), principal, reason=reason)

    async def undo_by(
        self,
        principal: str,
        since: datetime,
        until: datetime | None = None,
        *,
        reason: str = "",
    ) -> Undone:
        """Take back everything that a principal did from one time to another, or until now."""
        return await self.history.undo_by(principal, since, until, reason=reason)

    async def cancel(self, turn: str | Named, principal: str | None = None) -> None:
        """Stop a turn of anybody, at whatever replica it is taken. Raises NotFound when nobody has it open."""
        await self.history.cancel(_id(turn), principal)

    def changes(
        self,
        *,
        after: str | None = None,
        root: str | None = None,
        debounce: float = DEBOUNCE_SECONDS,
        max_wait: float = MAX_WAIT_SECONDS,
        ignore_self: bool = True,
    ) -> Changes:
        """What others change in a text or in XML from now on, or since the `cursor` of a change, for an `async for`.

        A change is told when nothing new came for `debounce` seconds, or `max_wait` after it began; see `Changes`. Of XML
        it has an edit for each block. Raises Invalid for a root that is a map or a list.
        """
        memory = self.memory
        with translated(missing=Invalid):
            name = memory.root(root)
            is_tree = isinstance(memory.characters(name), Prose)
        return Changes(
            self.provider,
            self.history,
            name,
            lambda: memory.order,
            (lambda: memory.places.prose(name)) if is_tree else None,
            debounce=debounce,
            max_wait=max_wait,
            ignore_self=ignore_self,
            after=after,
        )

    async def wait_for(
        self,
        predicate: Callable[[Self], bool],
        timeout: float | None = None,  # noqa: ASYNC109 - the blocking façade has it too
    ) -> None:
        """Wait until something is true of this document, whoever makes it so; the predicate must not wait.

        Raises TimeoutError.
        """
        await wait_for(self.provider, lambda: predicate(self), timeout)


def _id(turn: str | Named) -> str:
    return turn if isinstance(turn, str) else turn.id


def _number(where: Where) -> int:
    if not isinstance(where, int):
        raise TypeError("a place in the past is a number")
    return where

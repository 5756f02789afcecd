"""Doc: a room's document as an agent sees it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import pycrdt

from collab.document.anchor import Anchor, Orphaned, Place, Side
from collab.document.characters import places
from collab.document.export import markdown_of, root_of, text_of
from collab.sdk import sections as markdown
from collab.sdk.edits import Policy
from collab.sdk.errors import Conflict, Invalid, NotFound
from collab.sdk.memory import ROOT, Memory, Where, translated
from collab.sdk.observed import Observed
from collab.sdk.provider import Provider
from collab.sdk.reading import MAX_MATCHES, Match, Reading, Version
from collab.sdk.turn import Turn
from collab.sdk.values import NOTHING, steps

if TYPE_CHECKING:
    from collab.sdk.agent import Agent

Format = Literal["text", "markdown"]


class Doc(Observed):
    """One open document. Offsets are characters."""

    def __init__(self, provider: Provider, agent: Agent | None = None) -> None:
        self.provider, self.agent = provider, agent
        self.memory = Memory(provider)
        self._turn: Turn | None = None

    @property
    def raw(self) -> pycrdt.Doc[Any]:
        """The pycrdt document itself; another one after the server has refused something in it."""
        return self.provider.doc

    @property
    def text(self) -> str:
        """The root text named `text`."""
        return self.memory.characters(ROOT).shown

    # Reading

    def read(
        self,
        root: str | None = None,
        format: Format = "text",
        section: str | None = None,
    ) -> Reading:
        """A text, or a section of it by its title. Edits are held against what was read.

        Without a root it is `text`, or the only text that there is. Raises NotFound, Invalid for a map or a list and when
        it is not clear which root is meant, Ambiguous when several sections bear that title.
        """
        with translated():
            name, version = self.memory.root(root), self.version()
            shared = root_of(self.raw, name)
            if isinstance(shared, pycrdt.Map | pycrdt.Array):
                raise Invalid("that root is no text, but a map or a list: see `get`")
            text = text_of(shared)
            shown = markdown_of(shared) if format == "markdown" else text
            if isinstance(shared, pycrdt.XmlFragment) or shown != text:
                if section is not None:
                    found = markdown.titled(markdown.sections(shown), section)
                    shown = shown[found.start : found.end]
                return Reading(shown, name, version, None)
            start = 0
            if section is not None:
                found = markdown.titled(markdown.sections(text), section)
                start, text = found.start, text[found.start : found.end]
            known = self.memory.remember(name, start, text, is_whole=section is None)
            return Reading(text, name, version, known)

    def find(
        self, text: str, near: Where | None = None, root: str | None = None
    ) -> list[Match]:
        """The places where a text says this, the first hundred of them; those closest to `near` first, if given."""
        with translated():
            name = self.memory.root(root)
            shown = self.memory.characters(name).shown
            found = list(islice(places(shown, text), MAX_MATCHES)) if text else []
            if near is not None:
                place = self.memory.spot(near, name).index
                found.sort(key=lambda at: abs(at - place))
            return [self.memory.match(name, shown, at, len(text)) for at in found]

    def get(self, path: str) -> Any:
        """What is at a path (a JSON Pointer whose first part names the root), as plain values. Edits by path are held
        against it. Raises NotFound.
        """
        place = steps(path)
        with translated():
            value = self.memory.value(place)
        if value is NOTHING:
            raise NotFound("there is nothing at that path")
        self.memory.values.remember(place, value)
        return value

    def version(self) -> Version:
        """Which document this is now."""
        return Version(self.provider.epoch, self.raw.get_state())

    # Places

    def anchor(
        self, index: int, side: Side = Side.RIGHT, root: str | None = None
    ) -> Anchor:
        """The place before a character of the text as it is now, held by that character or by the one before it."""
        with translated():
            return self.memory.order.anchor(self.memory.root(root), index, side)

    def resolve(self, anchor: Anchor) -> Place | Orphaned:
        """Where an anchor is now. Raises NotFound when the document has never had what it names."""
        with translated():
            return self.memory.order.resolve(anchor)

    # Writing

    def turn(
        self,
        *,
        reason: str = "",
        task: str = "",
        model: str = "",
        on_conflict: Policy = "merge",
        rollback: bool = False,
    ) -> Turn:
        """A unit of edits, for an `async with`: credited, shown, stopped and undone together. See `Turn`.

        `on_conflict` says what becomes of an edit of something that others have changed since it was read: `merge`
        applies it to what is there now and says so in its result, `reject` raises StaleVersion. With `rollback` an
        exception takes back what the turn has written.
        """
        return Turn(
            self,
            reason=reason,
            task=task,
            model=model,
            on_conflict=on_conflict,
            rollback=rollback,
        )

    def begin(self, turn: Turn) -> None:
        """The turn is on. Raises Conflict when there is one already: what is written belongs to one."""
        if self._turn is not None:
            raise Conflict("a turn is on in this document already")
        self._turn = turn

    def end(self, turn: Turn) -> None:
        """The turn is over."""
        if self._turn is turn:
            self._turn = None

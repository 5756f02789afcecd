"""Doc: a room's document as an agent sees it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import pycrdt

from collab.document.anchor import Anchor, Orphaned, Place, Side
from collab.document.characters import places
from collab.document.export import markdown_of, text_of
from collab.sdk import sections as markdown
from collab.sdk.edits import Policy
from collab.sdk.errors import Conflict, Invalid, NotFound
from collab.sdk.memory import HERE, Memory, Where, Within, translated
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
        """All that `read()` would say, without edits being held against it. Raises Invalid when there are several roots."""
        with translated():
            return self.memory.characters(self.memory.text(HERE)).shown

    # Reading

    def read(
        self,
        root: str | None = None,
        format: Format = "text",
        section: str | None = None,
        path: str | None = None,
    ) -> Reading:
        """A text, or a section of it by its title. Edits are held against what was read.

        Without a root it is `text`, or the only text that there is, or the only XML; with a path, a JSON Pointer inside
        of the root, a text in a map or a list, or a node of XML. XML is read as a line for each block. Raises NotFound,
        Invalid for a map or a list and when it is not clear which root is meant, Ambiguous when several sections bear
        that title.
        """
        if format not in ("text", "markdown"):
            raise Invalid(f"there is no format {format!r}")
        memory = self.memory
        with translated():
            within, version = Within(root, path), self.version()
            name, text = memory.root(root), memory.text(within)
            shared = memory.places.shared(text)
            if isinstance(shared, pycrdt.Map | pycrdt.Array):
                raise Invalid("that root is no text, but a map or a list: see `get`")
            top, start, stop = memory.part(text)
            prose = memory.places.prose(top)
            said = text_of(shared) if prose is None else prose.shown[start:stop]
            shown = said
            if format == "markdown":
                shown = markdown_of(shared)
                if shown != said or prose is not None:
                    if prose is not None:
                        memory.remember(top, start, said, is_whole=top == text)
                    if section is not None:
                        found = markdown.titled(markdown.sections(shown), section)
                        shown = shown[found.start : found.end]
                    return Reading(shown, name, version, None)
            outline = None if prose is None else tuple(memory.sections(top))
            if section is not None:
                spans = markdown.sections(said) if outline is None else outline
                found = markdown.titled(spans, section)
                start, stop = found.start, found.end
                said = (said if prose is None else prose.shown)[start:stop]
            is_whole = section is None and top == text
            known = memory.remember(top, start, said, is_whole=is_whole)
            return Reading(said, name, version, known, outline)

    def find(
        self,
        text: str,
        near: Where | None = None,
        root: str | None = None,
        path: str | None = None,
    ) -> list[Match]:
        """The places where a text says this, the first hundred of them; those closest to `near` first, if given."""
        with translated():
            within = self.memory.text(Within(root, path))
            name, *part = self.memory.part(within)
            shown = self.memory.characters(name).shown
            found = list(islice(places(shown, text, *part), MAX_MATCHES))
            if not text:
                found = []
            if near is not None:
                place = self.memory.spot_in(near, within).index
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
        self,
        index: int,
        side: Side = Side.RIGHT,
        root: str | None = None,
        path: str | None = None,
    ) -> Anchor:
        """The place before a character of the text as it is now, held by that character or by the one before it."""
        with translated():
            spot = self.memory.spot(index, Within(root, path))
            return self.memory.places.anchor(spot.root, spot.index, side)

    def resolve(self, anchor: Anchor) -> Place | Orphaned:
        """Where an anchor is now. Raises NotFound when the document has never had what it names."""
        with translated():
            return self.memory.places.resolve(anchor)

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

"""A text or XML tree under observation: what others have changed in it, what it was, and where it is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pycrdt import Text, TransactionEvent, XmlFragment

from collab.document.anchor import Anchor, Side
from collab.document.export import load
from collab.document.order import Order, Span
from collab.document.prose import Prose
from collab.sdk import sections as markdown
from collab.sdk.burst import Burst, Difference, between
from collab.sdk.errors import Refused, SdkError
from collab.sdk.history import (
    Author,
    History,
    ItemsChange,
    KeyChange,
    LoggedChange,
    TextChange,
)
from collab.sdk.memory import spans_of
from collab.sdk.mirror import REMOTE
from collab.sdk.paragraphs import Retold, Revision, paragraphs, revisions, text_of
from collab.sdk.places import Places
from collab.sdk.presence import Peer
from collab.sdk.provider import Event, PeersChanged, Phase, Provider, Replaced, State

NOBODY = Author()  # somebody of whom nothing is known here
MAX_REMEMBERED = 1000  # people who left while a burst went on


@dataclass(frozen=True, slots=True)
class Edit:
    """At one place `old` became `new`; where something was only deleted, `new` is empty.

    In XML that is one block, as Markdown: a line of an item bears the sign of its list, and a block that says nothing
    counts as none. `start` and `end` hold on to the first and last character of what is there now. `authors` are those who inserted
    something of it, or who deleted where nothing was inserted, as far as presence tells, or the log since the change before
    or the first wait.
    """

    section: tuple[str, ...]  # titles of the headings above, outermost first
    old: str
    new: str
    start: Anchor
    end: Anchor
    index: int  # of the first character, when this was told
    authors: tuple[Author, ...] = ()


class Found(NamedTuple):
    """At one place, from character to character, `old` became `new`; in XML that is a block, at a path."""

    start: int
    end: int
    old: str
    new: str
    path: str = ""


class View(ABC):
    """A document under observation. It holds nothing that would keep `Changes` alive."""

    is_tree = False

    def __init__(self, provider: Provider, root: str, ignores_self: bool) -> None:
        self._provider, self._root, self._ignores_self = provider, root, ignores_self
        self.is_moved = asyncio.Event()
        self.is_over = False
        self._error: SdkError | None = None
        self._left: dict[int, Peer] = {}
        self._is_stale = (
            False  # the document was replaced, and what the room holds has not come yet
        )
        self._end = provider.observe(self._happened)

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Nobody has changed anything that is to be told."""

    @property
    @abstractmethod
    def text(self) -> str:
        """All that it says now."""

    @abstractmethod
    def take(self) -> Sequence[Found]:
        """What has been changed; from here on it is known."""

    @abstractmethod
    def _unobserve(self) -> None: ...

    @abstractmethod
    def _replaced(self) -> None:
        """It is another object now."""

    # Places in it as it is now

    @abstractmethod
    def outline(self) -> tuple[Sequence[markdown.Span], int]:
        """Its sections, and where it ends."""

    @abstractmethod
    def anchor(self, index: int, side: Side) -> Anchor: ...

    @abstractmethod
    def spans(self, start: int = 0, end: int | None = None) -> Sequence[Span]:
        """Whose characters stand from one place up to another."""

    # What it was

    @abstractmethod
    async def past(self, history: History, position: int) -> Any:
        """As it was at a position of the log, for the three that follow."""

    @abstractmethod
    def read(self, order: Order, update: bytes) -> Any:
        """The same, of an update that holds all of it."""

    @abstractmethod
    def text_of(self, old: Any) -> str: ...

    @abstractmethod
    def since(self, old: Any) -> Sequence[Found]:
        """What differs."""

    @abstractmethod
    def inserted(self, runs: Sequence[tuple[int, int]]) -> Sequence[Found]:
        """What stands in these places as something new."""

    @abstractmethod
    def credited(self, edit: Edit, path: str, logged: Sequence[LoggedChange]) -> Edit:
        """With the authors of what the log has at its place."""

    # What happens to it

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._end()
            self._unobserve()
        self.is_moved.set()

    async def wait(self) -> None:
        """Until somebody has changed something, or it is over. Raises the error of a server that refuses."""
        while self.is_empty and not self.is_over:
            if self._error is not None:
                raise self._error
            self.is_moved.clear()
            await self.is_moved.wait()

    def people(self) -> Mapping[int, Peer]:
        """Those who are here, and those who were when the burst began."""
        people = {**self._left, **self._provider.peers}
        self._left.clear()
        return people

    def _is_own(self, transaction: Any) -> bool:
        return self._ignores_self and transaction.origin != REMOTE

    def _happened(self, event: Event) -> None:
        match event:
            case PeersChanged(peers):
                if len(self._left) < MAX_REMEMBERED:
                    self._left.update(peers)
            case Replaced():
                self._is_stale = True
            case State(Phase.CLOSED):
                self.close()
            case State(Phase.REFUSED, error=error):
                self._error = error or Refused("the server does not take this document")
                self.is_moved.set()
            case State(phase) if self._is_stale and phase is not Phase.CONNECTING:
                self._is_stale = False
                self._replaced()
                self.is_moved.set()


class TextView(View):
    """A text."""

    def __init__(
        self,
        provider: Provider,
        root: str,
        order: Callable[[], Order],
        ignores_self: bool,
    ) -> None:
        super().__init__(provider, root, ignores_self)
        self._order = order
        self._observe()
        self.burst = Burst(self._shared.diff())

    def _observe(self) -> None:
        self._shared = self._provider.doc.get(self._root, type=Text)
        self._subscription = self._shared.observe(self._edited)

    def _unobserve(self) -> None:
        self._shared.unobserve(self._subscription)

    def _replaced(self) -> None:
        self._observe()
        self.burst.replace(self._shared.diff())

    def _edited(self, event: Any, transaction: Any) -> None:
        is_own = self._is_own(transaction)
        self.burst.apply(event.delta, is_own=is_own)
        if not is_own:
            self.is_moved.set()

    @property
    def is_empty(self) -> bool:
        return self.burst.is_empty

    @property
    def text(self) -> str:
        return self.burst.text

    def take(self) -> Sequence[Found]:
        return _found(self.burst.take())

    def outline(self) -> tuple[Sequence[markdown.Span], int]:
        text = self.text
        return markdown.sections(text), len(text)

    def anchor(self, index: int, side: Side) -> Anchor:
        return self._order().anchor(self._root, index, side)

    def spans(self, start: int = 0, end: int | None = None) -> Sequence[Span]:
        return self._order().spans(self._root, start, end)

    async def past(self, history: History, position: int) -> Any:
        return str((await history.at(position, root=self._root)).content)

    def read(self, order: Order, update: bytes) -> Any:
        return order.text(self._root)

    def text_of(self, old: Any) -> str:
        return str(old)

    def since(self, old: Any) -> Sequence[Found]:
        return _found(between(old, self.text))

    def inserted(self, runs: Sequence[tuple[int, int]]) -> Sequence[Found]:
        text = self.text
        return [Found(start, end, "", text[start:end]) for start, end in runs]

    def credited(self, edit: Edit, path: str, logged: Sequence[LoggedChange]) -> Edit:
        texts = [each for each in logged if isinstance(each, TextChange)]
        end = edit.index + len(edit.new)
        if edit.authors:
            return _with_authors(
                edit,
                (
                    each
                    for each in texts
                    if each.start < end and edit.index < each.start + len(each.new)
                ),
            )
        return _with_authors(
            edit,
            (each for each in texts if each.old and edit.index <= each.start <= end),
        )


class TreeView(View):
    """XML, block by block."""

    is_tree = True

    def __init__(
        self,
        provider: Provider,
        root: str,
        order: Callable[[], Order],
        prose: Callable[[], Prose | None],
        ignores_self: bool,
    ) -> None:
        self._order, self._prose = order, prose
        self._is_here = self._is_theirs = False  # of the transaction that ends
        self._retold = Retold(paragraphs(prose()))
        super().__init__(provider, root, ignores_self)
        self._observe()

    def _observe(self) -> None:
        self._doc = self._provider.doc
        self._shared = self._doc.get(self._root, type=XmlFragment)
        self._subscriptions = (
            self._shared.observe_deep(self._touched),
            self._doc.observe(self._ended),
        )

    def _unobserve(self) -> None:
        tree, whole = self._subscriptions
        self._shared.unobserve(tree)
        self._doc.unobserve(whole)

    def _replaced(self) -> None:
        self._observe()
        self._retold.replace()

    def _touched(self, events: Any, transaction: Any) -> None:
        self._is_here, self._is_theirs = True, not self._is_own(transaction)

    def _ended(self, event: TransactionEvent) -> None:
        if not self._is_here:
            return
        self._is_here = False
        self._retold.apply(event.update, is_own=not self._is_theirs)
        if self._is_theirs:
            self.is_moved.set()

    @property
    def is_empty(self) -> bool:
        return self._retold.is_empty

    @property
    def text(self) -> str:
        return text_of(paragraphs(self._prose()))

    def take(self) -> Sequence[Found]:
        return _revised(self._retold.take(paragraphs(self._prose()), self._order()))

    def outline(self) -> tuple[Sequence[markdown.Span], int]:
        prose = self._prose()
        return ((), 0) if prose is None else (spans_of(prose), len(prose.shown))

    def anchor(self, index: int, side: Side) -> Anchor:
        prose = self._prose()
        if prose is None:
            return Anchor(None, self._root, side)
        return prose.anchor(index, side)

    def spans(self, start: int = 0, end: int | None = None) -> Sequence[Span]:
        prose = self._prose()
        return () if prose is None else prose.spans(start, end)

    async def past(self, history: History, position: int) -> Any:
        update = (await history.at(position, format="update")).content
        return self.read(Order.of(update), update)

    def read(self, order: Order, update: bytes) -> Any:
        return paragraphs(
            Places(order, load(update), has_editor=True).prose(self._root)
        )

    def text_of(self, old: Any) -> str:
        return text_of(old)

    def since(self, old: Any) -> Sequence[Found]:
        return _revised(revisions(old, paragraphs(self._prose())))

    def inserted(self, runs: Sequence[tuple[int, int]]) -> Sequence[Found]:
        return [
            Found(each.start, each.end, "", each.said, each.path)
            for each in paragraphs(self._prose())
            if any(start < each.end and each.start < end for start, end in runs)
        ]

    def credited(self, edit: Edit, path: str, logged: Sequence[LoggedChange]) -> Edit:
        if not edit.new:
            return _with_authors(edit, _gone_from(path, logged))
        return _with_authors(edit, (each for each in logged if _is_at(path, each)))


def _found(differences: Sequence[Difference]) -> list[Found]:
    return [Found(one.start, one.end, one.old, one.new) for one in differences]


def _revised(found: Iterable[Revision]) -> list[Found]:
    return [
        Found(
            one.start,
            one.end,
            "" if one.old is None else one.old.said,
            "" if one.new is None else one.new.said,
            one.path,
        )
        for one in found
    ]


def _is_at(path: str, one: LoggedChange) -> bool:
    """Whether the log tells with it of a change of the block at that path."""
    if isinstance(one, KeyChange) and f"{path}/".startswith(f"{one.path}/"):
        return True
    if isinstance(one, ItemsChange) and path.startswith(f"{one.path}/"):
        child = int(path[len(one.path) + 1 :].partition("/")[0])
        return one.start <= child < one.start + len(one.new)
    return f"{one.path}/".startswith(f"{path}/")


def _gone_from(path: str, logged: Sequence[LoggedChange]) -> Iterable[LoggedChange]:
    """What the log tells of a block that was at that path: that something was taken out of the innermost of what it was in."""
    found = [
        one
        for one in logged
        if isinstance(one, ItemsChange) and one.old and path.startswith(f"{one.path}/")
    ]
    depth = max((len(one.path) for one in found), default=0)
    return [one for one in found if len(one.path) == depth] or [
        one for one in logged if f"{one.path}/".startswith(f"{path}/")
    ]


def _with_authors(edit: Edit, logged: Iterable[LoggedChange]) -> Edit:
    if edit.authors and NOBODY not in edit.authors:
        return edit
    found = [one for one in edit.authors if one != NOBODY]
    found += [each.author for each in logged]
    return replace(edit, authors=tuple(dict.fromkeys(found)))

"""What an agent knows of a document: the order of its characters, what of it was read, and what it deleted itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pycrdt import Doc, Subscription, Text, TransactionEvent

from collab.document.anchor import Anchor, Id, Orphaned, Place, Root, Side
from collab.document.blocks import Editor
from collab.document.budget import Budget
from collab.document.characters import Change, Characters
from collab.document.document import NOTHING
from collab.document.export import check_lists, root_of
from collab.document.order import Order
from collab.document.pieces import read as read_update
from collab.document.prose import Prose, format_at
from collab.document.shared import XML_TEXT
from collab.document.tree import Tree
from collab.document.values import Path, Problem, checked
from collab.errors import CollabError, Refused
from collab.sdk import sections as markdown
from collab.sdk.errors import Conflict, Invalid, NotFound, SdkError
from collab.sdk.places import Places
from collab.sdk.provider import Event, Phase, Provider, Replaced, State
from collab.sdk.reading import Known, Match, Section, View, snippet
from collab.sdk.values import NOTHING as NO_VALUE
from collab.sdk.values import Values

ROOT = "text"  # the root that is meant where none is named
# The same in a document of an editor: what its makers call it.
ROOTS: dict[Editor, str] = {
    "tiptap": "default",
    "prosemirror": "prosemirror",
    "blocknote": "document-store",
}
MAX_READINGS = (
    16  # the oldest is forgotten then, and no edit is held against it any more
)
MAX_WAITING = (
    1000  # updates that the order has not taken yet; more cost more than a new order
)
MAX_DROPPED = (
    10_000  # runs of ids that we deleted; older ones count as deleted by others
)

MAX_TEXTS = 16  # that are renewed in a view of XML; for more a new one is made

# Nobody else waits, and an edit must not stop half-way.
_PLENTY = 1 << 62

_KINDS: dict[str, type[SdkError]] = {
    "anchor_not_found": NotFound,
    "text_not_found": NotFound,
    "root_not_found": NotFound,
    "not_found": NotFound,
    "conflict": Conflict,
}


Where = Anchor | Match | Section | int | Literal["start", "end"]


class Within(NamedTuple):
    """Which text is meant: a root, the one that there is if none is named, or what is at a path inside of it."""

    root: str | None = None
    path: str | None = None


HERE = Within()


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a text: a root, or one that is somewhere in a root."""

    root: Root
    index: int
    is_taken_away: bool = False  # others have deleted what it was held by


@contextmanager
def translated(missing: type[SdkError] = Conflict) -> Iterator[None]:
    """What documents raise, as errors of the client; `missing` is for a path that leads nowhere."""
    try:
        yield
    except SdkError:
        raise
    except Problem as problem:
        kind = _KINDS.get(problem.error.code, Invalid)
        raise (missing if kind is Conflict else kind)(str(problem)) from None
    except CollabError as error:
        raise _KINDS.get(error.code, Invalid)(str(error)) from None


def spans_of(prose: Prose) -> list[markdown.Span]:
    """The sections of an XML tree."""
    return [
        markdown.Span(each.level, each.title, each.start, each.body, each.end)
        for each in prose.chapters
    ]


def _texts(order: Order, updates: Sequence[bytes]) -> set[Id] | None:
    """The texts inside of XML in which alone these have changed something; None when it was elsewhere too, or in many."""
    found: set[Id] = set()
    for update in updates:
        for piece in order.touched(update):
            owner = None if piece.line is None else piece.line.owner
            if owner is None or owner.lines is None or owner.lines.kind != XML_TEXT:
                return None
            found.add(Id(owner.client, owner.clock))
        if len(found) > MAX_TEXTS:
            return None
    return found


class Memory:
    """Of one document at a time: with another one after a refusal, nothing is known any more."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.editor: Editor | None = None  # whose document it is, if that was said
        self._subscription: Subscription | None = None
        self._doc: Doc[Any] | None = None
        self._begin()
        self._end_observing = provider.observe(self._told)

    def _begin(self) -> None:
        self._order: Order | None = None
        self._places: Places | None = None
        self._waiting: list[bytes] = []
        self._known: deque[Known] = deque(maxlen=MAX_READINGS)
        self._dropped: deque[tuple[int, int, int]] = deque(maxlen=MAX_DROPPED)
        self._checked: bytes | None = None
        self.values = Values()

    @property
    def doc(self) -> Doc[Any]:
        """The document as it is now."""
        return self._provider.doc

    def _told(self, event: Event) -> None:
        match event:
            case Replaced():
                self._let_go()
            case State(Phase.CLOSED):
                self._let_go()
                self._end_observing()

    def _let_go(self) -> None:
        if self._doc is not None and self._subscription is not None:
            self._doc.unobserve(self._subscription)
        self._doc = self._subscription = None
        self._begin()

    def _observed(self, event: TransactionEvent) -> None:
        if self._order is None:
            return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(event.update)
        else:
            self._order = None
            self._waiting.clear()

    @property
    def order(self) -> Order:
        """As it is now."""
        doc = self.doc
        if self._doc is not doc:
            if self._doc is not None:
                self._let_go()
            self._doc, self._subscription = doc, doc.observe(self._observed)
        order = self._order
        if order is not None:
            waiting, self._waiting = self._waiting, []
            try:
                for update in waiting:
                    order.apply(update)
                if waiting and self._places is not None:
                    texts = _texts(order, waiting)
                    places, self._places = self._places, None
                    if texts is not None:
                        self._places = places.renewed(texts)
            except Refused:
                order = None
        if order is None:
            order = self._order = Order.of(doc.get_update())
            self._places = None
        return order

    @property
    def places(self) -> Places:
        """Where what is, as it is now."""
        order = self.order
        if self._places is None:
            self._places = Places(order, self.doc, has_editor=self.editor is not None)
        return self._places

    # Roots

    def root(self, name: str | None) -> str:
        """The root that is meant, where none is named: `text`, or the only text, or the only XML. Raises Invalid when it
        is not clear which one.
        """
        if name is not None:
            return checked(name)
        doc = self.doc
        names = list(doc.keys())
        if ROOT in names and len(doc.get(ROOT, type=Text)):
            return ROOT
        places = self.places
        trees = [
            each for each in names if places.order.first(each) and places.is_tree(each)
        ]
        texts = [
            each
            for each in names
            if each not in trees and isinstance(root_of(doc, each), Text)
        ]
        for named in (texts, trees):
            if len(named) > 1:
                raise Invalid(f"there are several roots: {', '.join(named)}")
            if named:
                return named[0]
        return ROOT if self.editor is None else ROOTS[self.editor]

    def text(self, within: Within) -> Root:
        """The text that is meant. Raises NotFound."""
        name, path = self.root(within.root), within.path
        if path is None:
            return name
        return self.places.inside(name, path)

    def part(self, root: Root) -> tuple[Root, int, int]:
        """The text that something is a part of, and from where to where: all of it, or a node of an XML tree."""
        places = self.places
        top = places.top(root)
        prose = places.prose(top)
        if prose is None or top == root:
            return top, 0, places.length(top)
        return top, *prose.part(root)

    def characters(self, root: Root) -> Characters | Prose:
        """A text; a root that holds nothing yet becomes one."""
        places = self.places
        prose = places.prose(root)
        if prose is not None:
            return prose
        budget = Budget(_PLENTY)
        if isinstance(root, str):
            return Tree(self.doc, budget).text(root)
        shared = places.shared(root)
        if not isinstance(shared, Text):
            raise NotFound("that text is gone")
        return Characters(shared, budget)

    def value(self, path: Path) -> Any:
        """What is at a path, `values.NOTHING` when there is nothing."""
        try:
            with translated(missing=NotFound):
                return self.tree(self.doc).read(path)
        except NotFound:
            return NO_VALUE

    # Places

    def spot(self, where: Where, within: Within = HERE) -> Spot:
        """Where that is now; of a match or a section, behind it. Raises Invalid, AnchorNotFound."""
        if isinstance(where, Match | Section):
            where = where.end
        if isinstance(where, Anchor):
            place = self.places.resolve(where)
            return Spot(place.root, place.index, self._is_taken_away(where, place))
        return self.spot_in(where, self.text(within))

    def spot_in(self, where: Where, root: Root) -> Spot:
        """The same in a text that is known, or a part of it."""
        if isinstance(where, Anchor | Match | Section):
            return self.spot(where)
        top, start, stop = self.part(root)
        if where == "start":
            return Spot(top, start)
        if where == "end":
            return Spot(top, stop)
        if isinstance(where, int) and 0 <= where <= stop - start:
            return Spot(top, start + where)
        raise Invalid(
            f"a place is an anchor, a match, start, end, or 0 to {stop - start}"
        )

    def named(
        self, first: Where, last: Where, root: str | None, path: str | None
    ) -> tuple[str, str | None, int, int]:
        """A part of a text in the words of the log: its root, the path inside of that, from where and to where. Raises
        Invalid when it is not in one text.
        """
        within = Within(root, path)
        start, end = self.spot(first, within), self.spot(last, within)
        text, begin = start.root, 0
        if path is not None:
            text, begin, _ = self.part(self.text(within))
        if start.root != text or end.root != text:
            raise Invalid("both places must be in the text that is meant")
        if path is None:
            name, inside = self.places.named(text)
        else:
            name, inside = self.root(root), path
        return name, inside or None, start.index - begin, end.index - begin

    def _is_taken_away(self, anchor: Anchor, place: Place | Orphaned) -> bool:
        """Whether somebody else has deleted what an anchor holds on to."""
        if anchor.item is None or isinstance(place, Place):
            return False
        client, clock = anchor.item
        return bool(self._without_dropped(client, clock, clock + 1))

    def match(self, root: Root, shown: str, at: int, length: int) -> Match:
        """Some characters of a root."""
        places, stop = self.places, at + length
        return Match(
            places.anchor(root, at),
            places.anchor(root, stop, Side.LEFT if stop else Side.RIGHT),
            snippet(shown, at, stop),
            shown[at:stop],
        )

    def sections(self, root: Root) -> list[markdown.Span]:
        """Those of a Markdown text, or of an XML tree."""
        prose = self.places.prose(root)
        if prose is None:
            return markdown.sections(self.characters(root).shown)
        return spans_of(prose)

    def tree(self, doc: Doc[Any]) -> Tree:
        """The maps and lists of this document."""
        state = doc.get_state()
        if state != self._checked:
            check_lists(doc.get_update())
            self._checked = state
        return Tree(doc, Budget())

    # What was read

    def remember(self, root: Root, start: int, text: str, *, is_whole: bool) -> Known:
        """It has been read: from now on edits are held against it."""
        order = self.places
        spans = order.spans(root, start, start + len(text))
        prose = order.prose(root)
        if prose is not None:
            prose.freeze()
        known = Known(root, start, text, spans, is_whole=is_whole, prose=prose)
        for older in list(self._known):
            if older.root == root and known.covers(order, *older.bounds(order)):
                self._known.remove(older)
        self._known.append(known)
        return known

    def known(self, root: Root, start: int, stop: int) -> Known | None:
        """What was read of these characters, last."""
        order = self.places
        for known in reversed(self._known):
            if known.root == root and known.covers(order, start, stop):
                return known
        return None

    def view(
        self,
        root: Root,
        start: int,
        stop: int,
        text: str,
        known: Known | None = None,
        was: tuple[int, int] | None = None,
    ) -> View | None:
        """What is known of these characters; None when they were not read."""
        known = known or self.known(root, start, stop)
        if known is None:
            return None
        if was is None and (start, stop) == known.bounds(self.places):
            was = known.start, known.end
        return known.compare(
            self.places,
            start,
            stop,
            own=self.doc.client_id,
            dropped=self._without_dropped,
            text=text,
            was=was,
        )

    def _without_dropped(
        self, client: int, clock: int, end: int
    ) -> Sequence[tuple[int, int]]:
        """What of a run of ids we have not deleted ourselves."""
        left = [(clock, end)]
        for other, start, stop in self._dropped:
            if other != client or stop <= clock or end <= start:
                continue
            left = [
                (first, last)
                for begin, finish in left
                for first, last in (
                    (begin, min(finish, start)),
                    (max(begin, stop), finish),
                )
                if first < last
            ]
        return left

    # Writing

    def write(
        self,
        origin: Hashable,
        root: Root,
        characters: Characters | Prose,
        changes: Sequence[Change],
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Change a text, in one transaction."""
        if isinstance(characters, Prose):
            self.rearrange(origin, lambda: characters.change_all(changes, attributes))
            return
        order = self.order
        for change in changes:
            if change.start < change.stop:
                for span in order.spans(root, change.start, change.stop):
                    self._drop(span.client, span.clock, span.clock + span.units)
        with self.doc.transaction(origin=origin):
            characters.change_all(changes, attributes)

    def rearrange(self, origin: Hashable, change: Callable[[], None]) -> None:
        """Change an XML tree, in one transaction: what goes with it is known only afterwards."""
        for update in self._recorded(origin, change):
            for client, start, end in read_update(update)[1]:
                self._drop(client, start, end)

    def insert(self, origin: Hashable, root: str, index: int, text: str) -> None:
        """Insert into a root that is a text, in one transaction."""
        offset = self.order.bytes_at(root, index)
        shared = self.doc.get(root, type=Text)
        with self.doc.transaction(origin=origin):
            shared.insert(offset, text)

    def is_line(self, place: Place) -> bool:
        """Whether it is in a text that is somewhere in XML."""
        root = place.root
        return not isinstance(root, str) and (self.order.lines(root).kind == XML_TEXT)

    def insert_in_line(
        self, origin: Hashable, root: Root, index: int, text: str
    ) -> None:
        """Insert into a text that is somewhere in XML, in one transaction."""
        offset = self.order.bytes_at(root, index)
        shared = self.places.shared(root)
        with self.doc.transaction(origin=origin):
            shared.insert(offset, text, format_at(shared, index, is_kept=False))

    def _drop(self, client: int, start: int, end: int) -> None:
        last = self._dropped[-1] if self._dropped else None
        if last is not None and last[0] == client and last[2] == start:
            self._dropped[-1] = client, last[1], end
        else:
            self._dropped.append((client, start, end))

    def transact(self, origin: Hashable, change: Callable[[Tree], None]) -> bool:
        """Change maps and lists, in one transaction; whether that has changed anything."""
        tree = self.tree(self.doc)
        updates = self._recorded(origin, lambda: change(tree))
        return any(update != NOTHING for update in updates)

    def _recorded(self, origin: Hashable, change: Callable[[], None]) -> list[bytes]:
        """What a change has done, in one transaction."""
        doc = self.doc
        updates: list[bytes] = []
        subscription = doc.observe(lambda event: updates.append(event.update))
        try:
            with doc.transaction(origin=origin):
                change()
        finally:
            doc.unobserve(subscription)
        return updates

"""Places of a document as an agent counts them: in each text its characters, in each XML tree those of all its texts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pycrdt import Array, Doc, Map, XmlElement, XmlFragment

from collab.document.anchor import Anchor, Id, Orphaned, Place, Root, Side
from collab.document.export import root_of
from collab.document.order import Order, Span
from collab.document.prose import Prose
from collab.document.shared import ELEMENT, FRAGMENT, XML_TEXT, find, kinds_of
from collab.document.values import pointer
from collab.sdk.errors import Invalid, NotFound


class Places:
    """An order, with XML trees as `Prose` has them; as it is at one moment."""

    def __init__(
        self, order: Order, doc: Doc[Any], *, has_editor: bool = False
    ) -> None:
        """With an editor, a root that holds nothing is an XML tree."""
        self.order = order
        self._has_editor = has_editor
        self._doc = doc
        self._prose: dict[Root, Prose | None] = {}

    def prose(self, root: Root) -> Prose | None:
        """A root, or a shared type inside of one, that is an XML tree; None when it is none."""
        if root not in self._prose:
            is_tree = self.is_tree(root)
            shared = self.shared(root) if is_tree else None
            self._prose[root] = (
                Prose(self.order, root, shared) if shared is not None else None
            )
        return self._prose[root]

    def renewed(self, texts: Collection[Id]) -> Places:
        """As it is now that only these texts, which are in XML, have changed."""
        fresh = Places(self.order, self._doc, has_editor=self._has_editor)
        fresh._prose = {
            root: None if prose is None else prose.renewed(texts)
            for root, prose in self._prose.items()
        }
        return fresh

    def is_tree(self, root: Root) -> bool:
        """Whether it is XML, or what is in it."""
        order = self.order
        if isinstance(root, Id):
            return order.lines(root).kind in (ELEMENT, FRAGMENT)
        first = order.first(root)
        if first is None:
            return self._has_editor and not order.lines(root)
        lines = first.lines
        return lines is not None and lines.kind in (ELEMENT, XML_TEXT)

    def top(self, root: Root) -> Root:
        """The outermost tree that an XML node lies in; anything else is its own."""
        top = at = root
        while isinstance(at, Id):
            if self.order.lines(at).kind not in (ELEMENT, FRAGMENT, XML_TEXT):
                break
            top = at
            home = self.order.home(at)
            if home is None:
                break
            at = home.root
        if isinstance(at, str) and at != root and self.is_tree(at):
            return at
        return top

    def shared(self, root: Root) -> Any:
        """The shared type itself; None when it is not there."""
        way = self._way(root)
        if way is None:
            return None
        name, steps = way
        shared: Any = None
        if self.is_tree(name):  # to look at all that is in it takes long
            shared = self._doc.get(name, type=XmlFragment)
        else:
            shared = root_of(self._doc, name)
        for key in steps:
            match shared:
                case XmlFragment() | XmlElement():
                    shared = shared.children[int(key)]
                case Map() | Array():
                    shared = shared[key]
                case _:
                    return None
        return shared

    def named(self, root: Root) -> tuple[str, str]:
        """The root that it is or lies in, and the path to it there. Raises NotFound."""
        way = self._way(root)
        if way is None:
            raise NotFound("that text is gone")
        name, steps = way
        return name, pointer(tuple(map(str, steps)))

    def _way(self, root: Root) -> tuple[str, list[Any]] | None:
        """A root, and what leads from there to what lies in it; None when that is gone."""
        steps: list[str | int] = []
        while isinstance(root, Id):
            step = self.order.step(root)
            if step is None:
                return None
            root, key = step
            steps.append(key)
        return root, steps[::-1]

    def inside(self, root: str, path: str) -> Root:
        """The text or the XML at a path inside of a root. Raises NotFound, and Invalid for anything else."""
        kind = "xml" if self.is_tree(root) else kinds_of(self.order).get(root, "")
        found = find(self.order, root, kind, path)
        if found.kind not in ("text", "xml"):
            raise Invalid("what is at that path is no text: see `get` and `set`")
        return found.name

    # As an order has it

    def length(self, root: Root) -> int:
        """How many characters there are."""
        prose = self.prose(root)
        return self.order.length(root) if prose is None else len(prose.shown)

    def spans(self, root: Root, start: int = 0, end: int | None = None) -> list[Span]:
        """Whose characters stand from one place up to another, in order."""
        prose = self.prose(root)
        if prose is None:
            return self.order.spans(root, start, end)
        return prose.spans(start, end)

    def anchor(self, root: Root, index: int, side: Side = Side.RIGHT) -> Anchor:
        """The place before a character, held by that character or by the one before it."""
        prose = self.prose(root)
        if prose is None:
            return self.order.anchor(root, index, side)
        return prose.anchor(index, side)

    def resolve(self, anchor: Anchor) -> Place | Orphaned:
        """Where an anchor leads now; in an XML tree, in the text of all of it."""
        place = self.order.resolve(anchor)
        top = self.top(place.root)
        prose = self.prose(top)
        if prose is None:
            return place
        index = prose.index(Place(place.root, place.index))
        return type(place)(top, index)

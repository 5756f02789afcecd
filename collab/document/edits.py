"""Edits by text and by path, tried on a copy of a document: all or nothing, and never more than differs.

Places are counted in characters. What is in a text without being one, such as an image, counts as one and reads as
U+FFFC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import thread_time
from typing import Any

from pycrdt import Doc

from collab.document.budget import LOAD_BYTE_SECONDS, LOAD_SECONDS, Budget
from collab.document.characters import Characters, places
from collab.document.document import Document
from collab.document.export import check_lists
from collab.document.tree import Patch, Tree
from collab.document.values import Ambiguous, Problem, check_value, checked
from collab.errors import AmbiguousText, InvalidRequest, TextNotFound, TooLarge
from collab.protocol.division import steps

MAX_OPERATIONS = 1000
MAX_CANDIDATES = 10


@dataclass(frozen=True, slots=True)
class Splice:
    """At a place in a text, delete so many characters and insert others."""

    root: str
    index: int
    delete: int = 0
    insert: str = ""
    attributes: dict[str, Any] | None = None  # of what is inserted, in a rich text


@dataclass(frozen=True, slots=True)
class Replacement:
    """Replace the one place where a text says `old`; the one closest to `near`, if given."""

    root: str
    old: str
    new: str
    near: int | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Make a text say this, changing only what differs."""

    root: str
    text: str


Operation = Splice | Replacement | Rewrite | Patch


def edit(
    document: Document, client: int, operations: Sequence[Operation]
) -> bytes | None:
    """The update that does all of this; see `Draft.edit`. The document stays as it is."""
    return Draft(document.snapshot(), client).edit(operations)


class Draft:
    """A copy of a document that writes under a client id of its own.

    No second copy may write under that id unless it holds everything that was ever written under it.
    """

    def __init__(
        self,
        snapshot: bytes,
        client: int,
        *,
        is_proven: bool = False,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        """Raises TooLarge when it takes out of proportion long to make. One that `is_proven` is made in one go."""
        self._doc: Doc[Any] = Doc(client_id=client)
        until = clock() + LOAD_SECONDS + LOAD_BYTE_SECONDS * len(snapshot)
        # By parts it takes five times as long.
        for part in [snapshot] if is_proven else steps(snapshot):
            self._doc.apply_update(part)
            if clock() > until:
                raise TooLarge("too costly")
        self._is_checked = False
        self.bytes = len(snapshot)  # about what it holds

    def edit(self, operations: Sequence[Operation]) -> bytes | None:
        """Apply the operations one after the other; the update that repeats them elsewhere, None when nothing changed.

        Raises InvalidRequest, Conflict (what an operation speaks of is not there, or not once; a `test` fails),
        TooLarge, or Refused for a document with lists that cannot be read: the copy is of no use after that.
        """
        if len(operations) > MAX_OPERATIONS:
            raise TooLarge("operations")
        if not self._is_checked and any(
            isinstance(operation, Patch) for operation in operations
        ):
            check_lists(self._doc.get_update())
            self._is_checked = True  # no edit of ours puts characters into a list
        updates: list[bytes] = []
        subscription = self._doc._doc.observe(
            lambda event: updates.append(event.update)
        )
        try:
            with self._doc.transaction():
                attempt = _Attempt(self._doc)
                for number, operation in enumerate(operations):
                    attempt.apply(number, operation)
        except Exception:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            reason = f"native code failed on a copy: {type(error).__name__}"
            raise RuntimeError(reason) from None
        finally:
            subscription.drop()
        if not updates:
            return None
        self.bytes += len(updates[0])
        return updates[0]


class _Attempt:
    """The operations of one request, inside one transaction."""

    def __init__(self, doc: Doc[Any]) -> None:
        self._budget = Budget()
        self._tree = Tree(doc, self._budget)
        self._texts: dict[str, Characters] = {}

    def apply(self, number: int, operation: Operation) -> None:
        try:
            match operation:
                case Splice():
                    self._splice(operation)
                case Replacement():
                    self._replace(operation)
                case Rewrite():
                    self._text(operation.root).rewrite(checked(operation.text))
                case Patch():
                    self._texts.clear()  # a path may change a text too
                    self._tree.apply(operation)
        except Ambiguous as problem:
            message = f"operation {number}: {problem}"
            raise AmbiguousText(message, problem.positions) from None
        except Problem as problem:
            raise problem.error(f"operation {number}: {problem}") from None

    def _text(self, root: str) -> Characters:
        text = self._texts.get(root)
        if text is None:
            text = self._texts[root] = self._tree.text(root)
        return text

    def _splice(self, splice: Splice) -> None:
        text = self._text(splice.root)
        index, delete, length = splice.index, splice.delete, len(text.shown)
        if not 0 <= index <= index + delete <= length:
            raise Problem(f"from {index}, {delete} characters: the text has {length}")
        if splice.attributes is not None:
            check_value(splice.attributes)
        text.splice(index, delete, checked(splice.insert), splice.attributes)

    def _replace(self, replacement: Replacement) -> None:
        text = self._text(replacement.root)
        old, new, near = replacement.old, checked(replacement.new), replacement.near
        if not old:
            raise Problem("there is nothing to look for", InvalidRequest)
        most = MAX_CANDIDATES + 1 if near is None else None
        found = list(islice(places(text.shown, old), most))
        self._budget.spend(len(text.shown) + 50 * len(found))
        if not found:
            raise Problem("`old` is not in the text", TextNotFound)
        if near is not None:
            closest = min(abs(place - near) for place in found)
            found = [place for place in found if abs(place - near) == closest]
        if len(found) > 1:
            shown = ", ".join(map(str, found[:MAX_CANDIDATES]))
            more = " and further on" if len(found) > MAX_CANDIDATES else ""
            message = f"`old` is in the text at {shown}{more}"
            raise Ambiguous(message, found[:MAX_CANDIDATES])
        text.change(found[0], old, new)

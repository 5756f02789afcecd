"""A shared text in characters (Unicode code points); native code counts UTF-8 bytes, browsers UTF-16 units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pycrdt import Text

from collab.document.budget import VALUE_WORK, Budget
from collab.document.differences import changes, middle
from collab.document.units import EMBED, byte_at, bytes_of
from collab.document.values import Problem

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


class Change(NamedTuple):
    """In a text, from one character up to another, what is to stand there instead."""

    start: int
    stop: int
    insert: str


def word_changes(old: str, new: str, budget: Budget) -> list[Change]:
    """What differs, word by word, and of each word only what does."""
    start, stop, end = middle(old, new)
    budget.spend(20 * (stop + end - 2 * start))
    words, others = _WORDS.findall(old[start:stop]), _WORDS.findall(new[start:end])
    places = [start]
    for word in words:
        places.append(places[-1] + len(word))
    found = []
    for first, last, new_first, new_last in changes(words, others, budget):
        at, instead = places[first], "".join(others[new_first:new_last])
        start, stop, end = middle(old[at : places[last]], instead)
        found.append(Change(at + start, at + stop, instead[start:end]))
    return found


class Characters:
    """A shared text in characters."""

    def __init__(self, shared: Text, budget: Budget, shown: str | None = None) -> None:
        self._shared, self._budget = shared, budget
        budget.spend(len(shared) + VALUE_WORK)
        self.shown = str(shared) if shown is None else shown
        self._embeds: list[int] = []  # where something is that is no character
        self._is_rich: bool | None = None  # not known yet
        if len(shared) != bytes_of(self.shown):
            pieces = []
            at = 0
            for piece, _ in shared.diff():
                if not isinstance(piece, str):
                    self._embeds.append(at)
                    piece = EMBED
                pieces.append(piece)
                at += len(piece)
            self.shown = "".join(pieces)
            if self._offset(len(self.shown)) != len(shared):
                raise Problem("this root holds a text and a list at once")

    def splice(
        self,
        index: int,
        delete: int,
        insert: str,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Within bounds. What is inserted in place of something takes its format, if not told another."""
        if not delete and not insert:
            return
        self._budget.spend(4 * len(self.shown) + VALUE_WORK)
        start, stop = self._offset(index), self._offset(index + delete)
        if attributes is None and delete and insert:
            attributes = self._format(index)
        # First in, then out: so it stands where that stood for whoever deletes or inserts there at the same time.
        if insert:
            self._shared.insert(start, insert, attributes)
            if attributes:
                self._is_rich = None
        if delete:
            more = bytes_of(insert)
            del self._shared[start + more : stop + more]
        self.shown = self.shown[:index] + insert + self.shown[index + delete :]
        if self._embeds:
            shift = len(insert) - delete
            self._embeds = [
                at + shift if at >= index + delete else at
                for at in self._embeds
                if not index <= at < index + delete
            ]

    def format(self, start: int, stop: int, attributes: dict[str, Any]) -> None:
        """Give characters formats; None takes one away."""
        self._shared.format(self._offset(start), self._offset(stop), attributes)
        self._is_rich = None

    def change(self, index: int, old: str, new: str) -> None:
        """Replace what is at a place, except for where it begins and ends alike."""
        start, stop, end = middle(old, new)
        self.splice(index + start, stop - start, new[start:end])

    def change_all(
        self, changes: Sequence[Change], attributes: dict[str, Any] | None = None
    ) -> None:
        """Several changes of the text as it is, in order, none of which overlap."""
        for start, stop, insert in reversed(changes):
            self.splice(start, stop - start, insert, attributes)

    def rewrite(self, text: str) -> None:
        """Change word by word what differs."""
        self.change_all(word_changes(self.shown, text, self._budget))

    def _offset(self, index: int) -> int:
        """Where a character begins, as native code counts."""
        offset = byte_at(self.shown, index)
        if self._embeds:
            offset -= sum(at < index for at in self._embeds) * (bytes_of(EMBED) - 1)
        return offset

    def _format(self, index: int) -> dict[str, Any] | None:
        """How a character is formatted; None when nothing in this text is."""
        if self._is_rich is False:
            return None
        pieces = self._shared.diff()
        self._is_rich = any(attributes for _, attributes in pieces)
        if not self._is_rich:
            return None
        at = 0
        for piece, attributes in pieces:
            at += len(piece) if isinstance(piece, str) else 1
            if at > index:
                return dict(attributes or {})
        return None


def places(
    text: str, old: str, start: int = 0, end: int | None = None
) -> Iterator[int]:
    """Where a text, or a part of it, says this, overlapping or not."""
    at = text.find(old, start, end)
    while at >= 0:
        yield at
        at = text.find(old, at + 1, end)

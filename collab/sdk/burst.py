"""What others have changed in a text since it was last told: then and now side by side, however much happens between."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collab.document.differences import changes, middle
from collab.document.units import EMBED

MAX_PIECES = (
    256  # then the closest two changes become one, with what stands between them
)
MAX_WIDENED = 64  # characters to the end of a word, on either side
MAX_BETWEEN = 24  # characters between two changes of one line that are told as one
_EMBED = b"\xff"  # no byte of UTF-8


@dataclass(frozen=True, slots=True)
class Difference:
    """`old` became `new`, which now stands from `start` to `end`; in characters."""

    start: int
    end: int
    old: str
    new: str


@dataclass(slots=True)
class _Piece:
    """So many bytes of the text as it is now; `old` is what they were, None when it is the same."""

    length: int
    old: bytes | None = None


class Burst:
    """A text with everything in it that one observer has not been told of.

    It is fed with the deltas of the text's events, which count UTF-8 bytes, as native code does. What the observer has done
    itself is no change: it stands on both sides. Takes as much memory as the text, now and then, and MAX_PIECES pieces.
    """

    def __init__(self, pieces: Iterable[tuple[Any, Any]] = ()) -> None:
        self._now = b"".join(_encoded(what) for what, _ in pieces)
        self._pieces = [_Piece(len(self._now))]

    @property
    def text(self) -> str:
        """As it is now."""
        return _shown(self._now)

    @property
    def is_empty(self) -> bool:
        """Nobody else has changed anything."""
        return all(piece.old is None for piece in self._pieces)

    def apply(self, delta: Iterable[Mapping[str, Any]], *, is_own: bool) -> None:
        """The delta of one event of the text."""
        at = 0
        for part in delta:
            if "insert" in part:
                inserted = _encoded(part["insert"])
                self._splice(at, 0, inserted, is_own)
                at += len(inserted)
            elif "delete" in part:
                self._splice(at, part["delete"], b"", is_own)
            else:
                at += part["retain"]
        while len(self._pieces) > MAX_PIECES:
            self._join_closest()

    def replace(self, pieces: Iterable[tuple[Any, Any]]) -> None:
        """The text is another object now: whatever differs was done by others."""
        new = b"".join(_encoded(what) for what, _ in pieces)
        old = self._then()
        self._now = new
        self._pieces = [_Piece(len(new), None if old == new else old)]

    def take(self) -> list[Difference]:
        """What has been changed, in the order of the text and as few words as it takes; from here on it is known."""
        found = list(self._found())
        self._pieces = [_Piece(len(self._now))]
        return readable(self.text, found)

    def _then(self) -> bytes:
        at, parts = 0, []
        for piece in self._pieces:
            kept = self._now[at : at + piece.length]
            parts.append(kept if piece.old is None else piece.old)
            at += piece.length
        return b"".join(parts)

    def _found(self) -> Iterator[Difference]:
        at = characters = 0
        for piece in self._pieces:
            new = _shown(self._now[at : at + piece.length])
            if piece.old is not None:
                old = _shown(piece.old)
                yield Difference(characters, characters + len(new), old, new)
            at += piece.length
            characters += len(new)

    def _splice(self, at: int, count: int, inserted: bytes, is_own: bool) -> None:
        first, last = self._cut(at), self._cut(at + count)
        old, place = b"", at  # of what goes: as the observer knows it
        for piece in self._pieces[first:last]:
            if piece.old is not None:
                old += piece.old
            elif not is_own:
                old += self._now[place : place + piece.length]
            place += piece.length
        self._now = self._now[:at] + inserted + self._now[at + count :]
        put = [_Piece(len(inserted), None)] if is_own else []
        if old or not is_own:
            put.insert(0, _Piece(0 if is_own else len(inserted), old))
        self._pieces[first:last] = put
        self._tidy(max(0, first - 1), first + len(put) + 1)

    def _cut(self, at: int) -> int:
        """Make a piece begin here; its number."""
        for number, piece in enumerate(self._pieces):
            if at <= 0:
                return number
            if at < piece.length:
                rest = _Piece(piece.length - at, None if piece.old is None else b"")
                piece.length = at
                self._pieces.insert(number + 1, rest)
                return number + 1
            at -= piece.length
        return len(self._pieces)

    def _tidy(self, first: int, last: int) -> None:
        """Join what is alike and adjacent, drop what is nothing."""
        tidy: list[_Piece] = []
        for piece in self._pieces[first:last]:
            if not piece.length and not piece.old:
                continue
            if tidy and (tidy[-1].old is None) == (piece.old is None):
                tidy[-1].length += piece.length
                if tidy[-1].old is not None and piece.old is not None:
                    tidy[-1].old += piece.old
            else:
                tidy.append(piece)
        self._pieces[first:last] = tidy

    def _join_closest(self) -> None:
        """Of the kept pieces between two changes the shortest becomes a part of them."""
        inner = range(1, len(self._pieces) - 1)
        number = min(
            (each for each in inner if self._pieces[each].old is None),
            key=lambda each: self._pieces[each].length,
        )
        at = sum(piece.length for piece in self._pieces[:number])
        kept = self._pieces[number]
        kept.old = self._now[at : at + kept.length]
        self._tidy(number - 1, number + 2)


def between(old: str, new: str) -> list[Difference]:
    """What turns one text into another, readable."""
    return readable(new, [Difference(0, len(new), old, new)])


def readable(text: str, found: Iterable[Difference]) -> list[Difference]:
    """Of the changes of a text those that are some, by whole words; what is close together on a line is one."""
    close: list[Difference] = []
    for one in (part for each in found for part in _small(each)):
        if close and _is_close(text, close[-1], one):
            close[-1] = _joined(text, close[-1], one)
        else:
            close.append(one)
    told: list[Difference] = []
    for number, one in enumerate(close):
        least = told[-1].end if told else 0
        most = close[number + 1].start if number + 1 < len(close) else len(text)
        told.append(_widened(text, one, least, most))
    return told


def _small(one: Difference) -> Iterator[Difference]:
    """The parts of a change that really differ: by lines, and within them from the first difference to the last."""
    start, old_end, new_end = middle(one.old, one.new)
    if old_end == start == new_end:
        return
    if "\n" in one.old[start:old_end] or "\n" in one.new[start:new_end]:
        start = one.old.rfind("\n", 0, start) + 1
        rest = one.new.find("\n", new_end) + 1 or len(one.new)
        old_end, new_end = old_end + rest - new_end, rest
    before = one.old[start:old_end].splitlines(keepends=True)
    after = one.new[start:new_end].splitlines(keepends=True)
    at, line = one.start + start, 0
    for a, b, c, d in changes(before, after):
        at += sum(map(len, after[line:c]))
        said, says = "".join(before[a:b]), "".join(after[c:d])
        first, last, end = middle(said, says)
        yield Difference(at + first, at + end, said[first:last], says[first:end])
        at, line = at + len(says), d


def _is_of_word(text: str, index: int) -> bool:
    """Whether a character belongs to the word beside it: where words are not set apart, each stands for itself."""
    if not 0 <= index < len(text):
        return False
    one = text[index]
    if unicodedata.combining(one):
        return True
    return (one.isalnum() or one == "_") and (one < "\u2e80" or "가" <= one <= "힣")


def _widened(text: str, one: Difference, least: int, most: int) -> Difference:
    """To the ends of the words it begins and ends in, within these bounds."""
    least, most = max(least, one.start - MAX_WIDENED), min(most, one.end + MAX_WIDENED)
    start, end = one.start, one.end
    while start > least and _touches(one, 0) and _is_of_word(text, start - 1):
        start -= 1
    while end < most and _touches(one, -1) and _is_of_word(text, end):
        end += 1
    before, after = text[start : one.start], text[one.end : end]
    return Difference(start, end, before + one.old + after, before + one.new + after)


def _touches(one: Difference, index: int) -> bool:
    """Whether it begins, or ends, inside a word."""
    return any(
        _is_of_word(said, index % len(said)) for said in (one.old, one.new) if said
    )


def _is_close(text: str, one: Difference, other: Difference) -> bool:
    kept = text[one.end : other.start]
    return len(kept) <= MAX_BETWEEN and "\n" not in kept


def _joined(text: str, one: Difference, other: Difference) -> Difference:
    kept = text[one.end : other.start]
    return Difference(
        one.start, other.end, one.old + kept + other.old, one.new + kept + other.new
    )


def _encoded(what: Any) -> bytes:
    return what.encode() if isinstance(what, str) else _EMBED


def _shown(encoded: bytes) -> str:
    if _EMBED not in encoded:
        return encoded.decode()
    return EMBED.join(part.decode() for part in encoded.split(_EMBED))

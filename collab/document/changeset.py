"""What changed in the texts of a document between two positions of its log, and who did it.

Each row is applied alone, and native code says what it did to each text. What came and went in between is nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pycrdt import Doc, Text

from collab.document.units import EMBED

# Stands for an embed where characters are counted in bytes: no character begins with it.
_EMBED = b"\xff"


class Change(NamedTuple):
    """At a place of the later text, what is gone and what has come; one of them may be empty."""

    root: str
    start: int  # in characters
    old: str
    new: str
    row: int  # the last that changed it, by its number


class Changes:
    """The texts of a document while rows are applied to it."""

    def __init__(self, doc: Doc[Any], roots: Sequence[str]) -> None:
        self._row = 0
        self._texts = {name: _Pieces(doc.get(name, type=Text)) for name in roots}
        self._kept = [
            (text, text.observe(self._noting(self._texts[name])))
            for name in roots
            for text in (doc.get(name, type=Text),)
        ]

    def _noting(self, pieces: _Pieces) -> Callable[[Any], None]:
        def note(event: Any) -> None:
            pieces.take(event.delta, self._row)

        return note

    def begin(self, row: int) -> None:
        """What is applied from now on comes from this row."""
        self._row = row

    def close(self) -> None:
        """Observe no longer, which would keep the document for ever."""
        for text, subscription in self._kept:
            text.unobserve(subscription)

    def found(self, whose: Callable[[int], object]) -> list[Change]:
        """All changes by root and place; neighbours of which `whose` says the same for both rows are one."""
        return [
            Change(name, *change)
            for name, pieces in self._texts.items()
            for change in pieces.found(whose)
        ]


class _Piece:
    """Characters that were there before, or came, or are gone."""

    __slots__ = ("content", "is_gone", "row")

    def __init__(self, content: bytes, row: int, *, is_gone: bool = False) -> None:
        self.content = content
        self.row = row  # -1: it was there before
        self.is_gone = is_gone


class _Pieces:
    """One text; places are counted in bytes of UTF-8, as native code counts, an embed as one."""

    def __init__(self, text: Text) -> None:
        content = b"".join(
            piece.encode() if isinstance(piece, str) else _EMBED
            for piece, _ in text.diff()
        )
        self._pieces = [_Piece(content, -1)] if content else []
        self._at = self._start = 0  # where it was last: a piece and what stands before

    def take(self, delta: Sequence[dict[str, Any]], row: int) -> None:
        place = 0
        for step in delta:
            if "retain" in step:
                place += step["retain"]
            elif "delete" in step:
                self._delete(place, step["delete"], row)
            else:
                new = step["insert"]
                content = new.encode() if isinstance(new, str) else _EMBED
                self._pieces.insert(self._find(place), _Piece(content, row))
                place += len(content)

    def _find(self, place: int) -> int:
        """The number of the piece that begins at a place, cut there if need be."""
        pieces, at, start = self._pieces, self._at, self._start
        while start > place:
            at -= 1
            start -= 0 if pieces[at].is_gone else len(pieces[at].content)
        while start < place:
            piece = pieces[at]
            size = 0 if piece.is_gone else len(piece.content)
            if start + size > place:
                rest = _Piece(piece.content[place - start :], piece.row)
                piece.content = piece.content[: place - start]
                pieces.insert(at + 1, rest)
                size = len(piece.content)
            at += 1
            start += size
        self._at, self._start = at, start
        return at

    def _delete(self, place: int, size: int, row: int) -> None:
        at = self._find(place)
        while size > 0:
            piece = self._pieces[at]
            if piece.is_gone:
                at += 1
                continue
            if len(piece.content) > size:
                rest = _Piece(piece.content[size:], piece.row)
                piece.content = piece.content[:size]
                self._pieces.insert(at + 1, rest)
            size -= len(piece.content)
            if piece.row < 0:
                piece.row, piece.is_gone = row, True
                at += 1
            else:
                del self._pieces[at]

    def found(self, whose: Callable[[int], object]) -> list[tuple[int, str, str, int]]:
        changes: list[tuple[int, str, str, int]] = []
        start = 0
        is_next = False  # nothing that stayed lies between the last change and here
        for piece in self._pieces:
            text = piece.content.replace(_EMBED, EMBED.encode()).decode()
            if piece.row < 0:
                start += len(text)
                is_next = False
                continue
            old, new = (text, "") if piece.is_gone else ("", text)
            last = changes[-1] if changes and is_next else None
            if last is not None and whose(last[3]) == whose(piece.row):
                changes[-1] = (
                    last[0],
                    last[1] + old,
                    last[2] + new,
                    max(last[3], piece.row),
                )
            else:
                changes.append((start, old, new, piece.row))
            start += len(new)
            is_next = True
        return changes

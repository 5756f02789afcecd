"""Where a text that is still coming may be cut: between words, never inside a character or what looks like one."""

from __future__ import annotations

import re
import unicodedata

# Of one word; a longer one is cut, between what looks like characters, if there is such a place.
MAX_HELD = 256

MAX_TAKEN = 1 << 16  # at once

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_JOINER = "\u200d"


class Words:
    """What has come of a text and was not taken yet. Pieces may end anywhere, even inside a surrogate pair."""

    def __init__(self) -> None:
        self._held = ""
        self._high = ""  # half a surrogate pair: the other half comes next

    @property
    def held(self) -> str:
        """What was not taken yet."""
        return self._held

    def add(self, piece: str) -> None:
        """Take in what comes next."""
        if self._high or _HALF.search(piece):
            piece = self._high + piece
            self._high = ""
            if "\ud800" <= piece[-1:] <= "\udbff":
                piece, self._high = piece[:-1], piece[-1]
            piece = _HALF.sub("\ufffd", _PAIR.sub(_paired, piece))
        self._held += piece

    def take(self) -> str:
        """All up to the end of the last word that has ended, but not more than MAX_TAKEN characters."""
        return self._split(boundary(self._held[:MAX_TAKEN]))

    def rest(self) -> str:
        """All: nothing comes any more."""
        if self._high:
            self._held += "\ufffd"
            self._high = ""
        return self._split(len(self._held))

    def _split(self, at: int) -> str:
        taken, self._held = self._held[:at], self._held[at:]
        return taken


def boundary(text: str) -> int:
    """The last place where a text that goes on may be cut, 0 when there is none."""
    for at in range(len(text) - 1, 0, -1):
        if _is_between_words(text, at):
            return at
    if len(text) > MAX_HELD:
        for at in range(len(text) - 1, 0, -1):
            if is_between_characters(text, at):
                return at
        return len(text) - 1
    return 0


def _is_between_words(text: str, at: int) -> bool:
    """Beside white space, or in a script that is written without it."""
    before, after = text[at - 1], text[at]
    if before.isspace() or after.isspace():
        return is_between_characters(text, at)
    return (
        _is_unspaced(before) and _is_unspaced(after) and is_between_characters(text, at)
    )


def is_between_characters(text: str, at: int) -> bool:
    """Whether no character that is seen as one is cut (Unicode annex 29, on the safe side)."""
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if _JOINER in (before, after) or _extends(after):
        return False
    if unicodedata.combining(before) == 9:  # a virama joins what follows
        return False
    if _is_flag(before) and _is_flag(after):
        start = at
        while start and _is_flag(text[start - 1]):
            start -= 1
        return (at - start) % 2 == 0
    return not (_is_hangul_part(before) and _is_hangul_part(after))


def _extends(character: str) -> bool:
    """It changes the one before: marks, variation selectors, skin tones, tags."""
    return (
        unicodedata.category(character)[0] == "M"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
        or character == "\u200c"
    )


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_hangul_part(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97f"
        or "\uac00" <= character <= "\ud7ff"
    )


def _is_unspaced(character: str) -> bool:
    """Chinese and Japanese."""
    return (
        "\u3000" <= character <= "\u30fb"
        or "\u3400" <= character <= "\u9fff"
        or "\uf900" <= character <= "\ufaff"
        or "\uff00" <= character <= "\uff60"
        or "\U00020000" <= character <= "\U0003ffff"
    )


def is_word(character: str) -> bool:
    """Whether it belongs to the word beside it."""
    return character.isalnum() or character == "_" or _extends(character)


def is_inside_word(text: str, at: int) -> bool:
    """Whether a place has a word on both sides."""
    return 0 < at < len(text) and is_word(text[at - 1]) and is_word(text[at])


def widened(text: str, start: int, stop: int) -> tuple[int, int]:
    """To the ends of the words that this begins and ends in."""
    if start < stop:
        while is_inside_word(text, start):
            start -= 1
        while is_inside_word(text, stop):
            stop += 1
    return start, stop


def _paired(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")

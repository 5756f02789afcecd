"""What users do to a text. Places are counted in characters; pycrdt counts bytes of UTF-8."""

from __future__ import annotations

import random

from pycrdt import Text

# Of a room's text, so that a long run does not become one of large documents; the oldest goes when it is exceeded.
MAX_CHARACTERS, LESS_CHARACTERS = 20_000, 1_000
WORDS = (
    "the room holds one shared document, merged as everybody writes; "
    "quick brown foxes, naïve façades — 速い狐 and 🦊 too. "
).split()


def words(count: int, chance: random.Random) -> str:
    """Some of them, each with a space behind it."""
    return "".join(f"{chance.choice(WORDS)} " for _ in range(count))


def insert(text: Text, character: int, content: str) -> None:
    """Insert at a place, or at the end when the text is shorter."""
    before = str(text)
    if len(before) > MAX_CHARACTERS:
        gone = len(before) - MAX_CHARACTERS + LESS_CHARACTERS
        del text[: _bytes(before, gone)]
        before = before[gone:]
    text.insert(_bytes(before, character), content)


def append(text: Text, content: str) -> None:
    insert(text, len(str(text)), content)


def erase(text: Text, character: int, count: int) -> None:
    """Delete characters, as many as are there."""
    before = str(text)
    start, end = _bytes(before, character), _bytes(before, character + count)
    if end > start:
        del text[start:end]


def _bytes(text: str, characters: int) -> int:
    return len(text[:characters].encode())

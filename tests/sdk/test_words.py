"""Where a stream may be cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.sdk.words import MAX_HELD, Words, boundary, is_between_characters

# Each is seen as one character, and stands alone or in a word.
WHOLE = [
    "e\u0301",
    "👩‍👩‍👧",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪",
    "ק\u05b8",
    "क्ष",
    "한",
    "한",
    "\r\n",
    "🏴\U000e0067\U000e007f",
]
TOKENS = st.lists(
    st.sampled_from([*WHOLE, "a", "bc", " ", "\n", "你", "好", ",", "🇩", "🇪", "😀"])
)


@given(TOKENS, st.lists(st.integers(1, 5)))
def test_what_is_taken_is_what_came_and_cut_between_words_only(
    tokens: list[str], lengths: list[int]
) -> None:
    text = "".join(tokens)
    units = text.encode("utf-16-le")
    words = Words()
    taken: list[str] = []
    at = 0
    for length in [*lengths, len(units)]:  # cut anywhere, even inside surrogate pairs
        piece = units[2 * at : 2 * (at + length)].decode("utf-16-le", "surrogatepass")
        at += length
        words.add(piece)
        taken.append(words.take())
    taken.append(words.rest())

    assert "".join(taken) == text
    place = 0
    for part in taken[:-1]:
        place += len(part)
        if 0 < place < len(text) and part:
            before, after = text[place - 1], text[place]
            assert before.isspace() or after.isspace() or (before + after).isalpha()
            assert not (
                before.isascii() and after.isascii() and (before + after).isalnum()
            )
            assert is_between_characters(text, place)


@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_seen_as_one_character_is_not_cut(whole: str) -> None:
    assert not any(is_between_characters(whole, at) for at in range(1, len(whole)))


def test_two_flags_are_cut_between_them() -> None:
    assert is_between_characters("🇩🇪🇫🇷", 2)
    assert not is_between_characters("🇩🇪🇫🇷", 3)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 0),
        ("word", 0),
        ("word ", 4),
        ("two wor", 4),
        ("a\n\nb", 3),
        ("你好", 1),
        ("a, b", 3),
        ("3.14", 0),
        ("😀😀", 0),
    ],
)
def test_a_text_that_goes_on_is_cut_at_the_end_of_a_word(text: str, place: int) -> None:
    assert boundary(text) == place


def test_a_word_without_an_end_is_cut_at_last() -> None:
    assert boundary("x" * MAX_HELD) == 0
    assert boundary("x" * (MAX_HELD + 1)) == MAX_HELD


def test_a_character_without_an_end_is_cut_too() -> None:
    assert boundary("e" + "\u0301" * MAX_HELD) == MAX_HELD


def test_half_a_pair_that_nothing_follows_is_shown_as_what_it_is() -> None:
    words = Words()

    words.add("a\ud83d")
    words.add("b\ude00")
    words.add("\ud83d")

    assert words.rest() == "a\ufffdb\ufffd\ufffd"

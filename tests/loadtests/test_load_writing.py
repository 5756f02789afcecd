"""The users' edits: places are characters, and no text grows for ever."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from pycrdt import Doc, Text

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

import writing


@pytest.fixture
def text() -> Text:
    return Doc().get("text", type=Text)


def test_places_are_characters(text: Text) -> None:
    text += "ä🦊狐z"

    writing.insert(text, 2, "é")
    writing.erase(text, 1, 1)
    writing.append(text, "!")

    assert str(text) == "äé狐z!"


def test_a_place_beyond_the_end_is_the_end(text: Text) -> None:
    writing.insert(text, 99, "one ")
    writing.insert(text, 99, "two")
    writing.erase(text, 99, 5)

    assert str(text) == "one two"


def test_the_oldest_goes_when_a_text_is_long(text: Text) -> None:
    chance = random.Random(1)

    for _ in range(100):
        writing.append(text, writing.words(60, chance))
    writing.append(text, "the newest")

    assert len(str(text)) <= writing.MAX_CHARACTERS + 1000
    assert str(text).endswith("the newest")

"""What others changed since one was last told, from the deltas of real documents."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text, TextEvent

from collab.sdk.burst import MAX_PIECES, Burst, Difference, between


class Watched:
    """A text under a burst: `mine` edits are our own, `theirs` those of others. Places are characters."""

    def __init__(self, text: str = "") -> None:
        self._text = Doc().get("text", type=Text)
        self._text.insert(0, text)
        self.burst = Burst(self._text.diff())
        self._is_own = False
        self._text.observe(self._changed)

    def _changed(self, event: TextEvent) -> None:
        self.burst.apply(event.delta, is_own=self._is_own)

    def __str__(self) -> str:
        return str(self._text)

    def theirs(self, at: int, count: int = 0, text: str = "") -> None:
        now = str(self._text)
        first, last = len(now[:at].encode()), len(now[: at + count].encode())
        if last > first:
            del self._text[first:last]
        if text:
            self._text.insert(first, text)

    def mine(self, at: int, count: int = 0, text: str = "") -> None:
        self._is_own = True
        self.theirs(at, count, text)
        self._is_own = False


def said(found: list[Difference]) -> list[tuple[str, str]]:
    return [(one.old, one.new) for one in found]


def test_what_others_typed_is_told_by_whole_words() -> None:
    watched = Watched("The quick fox.")

    for at, letter in enumerate("ly"):
        watched.theirs(9 + at, text=letter)

    assert watched.burst.take() == [Difference(4, 11, "quick", "quickly")]


def test_what_was_told_is_not_told_again() -> None:
    watched = Watched("one")
    watched.theirs(3, text=" two")

    watched.burst.take()

    assert watched.burst.is_empty
    assert watched.burst.take() == []


def test_own_edits_are_nothing_new() -> None:
    watched = Watched("one three")

    watched.mine(4, text="two ")
    watched.mine(0, 3, "1")

    assert watched.burst.is_empty
    assert watched.burst.text == "1 two three"


def test_an_own_edit_inside_of_theirs_stands_on_both_sides() -> None:
    watched = Watched("")
    watched.theirs(0, text="hello world")

    watched.mine(5, text=",")

    assert said(watched.burst.take()) == [(",", "hello, world")]


def test_what_i_take_out_of_theirs_was_never_there() -> None:
    watched = Watched("begin end")
    watched.theirs(6, text="something ")

    watched.mine(6, 10)

    assert watched.burst.take() == []


def test_what_they_put_in_place_of_something_and_i_take_out_is_gone() -> None:
    watched = Watched("a b c")
    watched.theirs(2, 1, "B")

    watched.mine(2, 1)

    assert said(watched.burst.take()) == [("b", "")]


def test_typed_and_deleted_again_is_nothing() -> None:
    watched = Watched("stays")
    watched.theirs(5, text=" or not")

    watched.theirs(5, 7)

    assert watched.burst.take() == []


def test_two_places_of_a_line_are_told_as_one_and_those_far_apart_are_not() -> None:
    watched = Watched("one two three\n" + "x" * 80 + "\nlast line")

    watched.theirs(0, 3, "1")
    watched.theirs(6, 5, "3")
    watched.theirs(len(str(watched)) - 4, 4, "row")

    assert said(watched.burst.take()) == [
        ("one two three", "1 two 3"),
        ("line", "row"),
    ]


def test_a_text_written_anew_is_told_by_what_differs() -> None:
    watched = Watched("# A\n\nfirst\n\nsecond\n\nthird\n")

    watched.theirs(0, len(str(watched)), "# A\n\nfirst\n\n2nd\n\nthird\n")

    assert said(watched.burst.take()) == [("second", "2nd")]


def test_words_that_are_not_set_apart_stand_for_themselves() -> None:
    watched = Watched("你好世界")

    watched.theirs(2, text="新")

    assert watched.burst.take() == [Difference(2, 3, "", "新")]


def test_an_accent_is_told_with_what_it_stands_on() -> None:
    watched = Watched("cafe is open")

    watched.theirs(4, text="\u0301")

    assert said(watched.burst.take()) == [("cafe", "cafe\u0301")]


def test_what_is_no_character_counts_as_one() -> None:
    text = Doc().get("text", type=Text)
    text.insert(0, "ab")
    text.insert_embed(1, {"image": "x"})
    burst = Burst(text.diff())
    text.observe(lambda event: burst.apply(event.delta, is_own=False))

    text.insert(2, "é")
    text.insert_embed(0, {"image": "y"})

    assert burst.text == "\ufffca\ufffcéb"
    assert said(burst.take()) == [("a\ufffcb", "\ufffca\ufffcéb")]


def test_another_document_in_its_place_is_told_as_a_difference() -> None:
    burst = Burst([("kept\nold\n", None)])

    burst.replace([("kept\nnew\n", None)])

    assert said(burst.take()) == [("old", "new")]


def test_changes_in_very_many_places_take_bounded_memory() -> None:
    words = [f"word{number}" for number in range(1000)]
    watched = Watched("\n\n".join(words))

    for number in range(1000):
        watched.theirs(str(watched).index(words[number]), 4, "Wort")

    assert len(watched.burst._pieces) <= MAX_PIECES
    now = str(watched)
    assert put_back(now, watched.burst.take()) == "\n\n".join(words)


def put_back(text: str, found: list[Difference]) -> str:
    for one in reversed(found):
        assert text[one.start : one.end] == one.new
        text = text[: one.start] + one.old + text[one.end :]
    return text


@pytest.mark.parametrize("seed", range(30))
def test_taking_the_changes_back_gives_what_was_known_before(seed: int) -> None:
    chance = random.Random(seed)
    watched = Watched("Grüße, 世界! 👩‍👩‍👧 end of line\nand another one\n" * 3)
    before = str(watched)

    for _ in range(chance.randrange(1, 60)):
        now = len(str(watched))
        at = chance.randrange(now + 1)
        count = min(chance.choice([0, 0, 1, 7]), now - at)
        watched.theirs(at, count, chance.choice(["", "x", "ö", "😀 ", "a\nb", "世"]))

    assert put_back(str(watched), watched.burst.take()) == before


@pytest.mark.parametrize("seed", range(30))
def test_with_own_edits_between_the_text_is_still_known_exactly(seed: int) -> None:
    chance = random.Random(seed)
    watched = Watched("mine and theirs, in one line\n" * 4)

    for _ in range(60):
        edit = chance.choice([watched.mine, watched.theirs])
        now = len(str(watched))
        at = chance.randrange(now + 1)
        edit(
            at, min(chance.choice([0, 2, 9]), now - at), chance.choice(["", "ab", "é"])
        )
        assert watched.burst.text == str(watched)

    found = watched.burst.take()
    assert all(str(watched)[one.start : one.end] == one.new for one in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@given(
    st.text(alphabet="ab é\n世", max_size=60), st.text(alphabet="ab é\n世", max_size=60)
)
def test_the_difference_of_two_texts_leads_from_one_to_the_other(
    old: str, new: str
) -> None:
    assert put_back(new, between(old, new)) == old

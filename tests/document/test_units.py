"""Characters, bytes and units: the same place in each, and an error for a place inside a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.document.units import (
    byte_at,
    bytes_of,
    character_of_unit,
    cut_at_unit,
    even,
    index_at_byte,
    index_at_unit,
    unit_at,
    units_of,
)
from collab.errors import InsideCharacter, InvalidRequest

texts = st.text(
    st.sampled_from("ab\n ß中語한ﷺ\u0301😀👩\u200d𝒳\uffff\U00010000\U0010ffff"),
    max_size=30,
)
MIXED = "a中😀e\u0301"


@given(texts)
def test_every_character_is_found_again_from_its_bytes_and_units(text: str) -> None:
    places = range(len(text) + 1)

    assert [index_at_byte(text, byte_at(text, index)) for index in places] == [*places]
    assert [index_at_unit(text, unit_at(text, index)) for index in places] == [*places]
    assert byte_at(text, len(text)) == bytes_of(text) == len(text.encode())
    assert unit_at(text, len(text)) == units_of(text)
    assert units_of(text) == len(text.encode("utf-16-le")) // 2


@given(texts)
def test_a_place_inside_a_character_is_an_error(text: str) -> None:
    starts = {unit_at(text, index) for index in range(len(text) + 1)}
    begins = {byte_at(text, index) for index in range(len(text) + 1)}

    for offset in set(range(units_of(text))) - starts:
        with pytest.raises(InsideCharacter):
            index_at_unit(text, offset)
        assert character_of_unit(text, offset) == (
            index_at_unit(text, offset - 1),
            True,
        )
    for offset in set(range(bytes_of(text))) - begins:
        with pytest.raises(InsideCharacter):
            index_at_byte(text, offset)


@pytest.mark.parametrize("place", [byte_at, unit_at, index_at_byte, index_at_unit])
@pytest.mark.parametrize("offset", [-1, 12, 1 << 40])
def test_a_place_beyond_the_end_is_an_error(place, offset: int) -> None:  # type: ignore[no-untyped-def]  # any of four
    with pytest.raises(InvalidRequest):
        place(MIXED, offset)


def test_a_pair_that_is_cut_becomes_two_replacements() -> None:
    assert cut_at_unit(MIXED, 2) == ("a中", "😀e\u0301")
    assert cut_at_unit(MIXED, 3) == ("a中\ufffd", "\ufffde\u0301")


@given(texts, st.data())
def test_a_cut_keeps_every_unit(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, units_of(text)))

    head, tail = cut_at_unit(text, offset)

    assert units_of(head) == offset
    assert units_of(head + tail) == units_of(text)


@given(texts)
def test_stretches_have_one_width_each(text: str) -> None:
    stretches = even(text)

    assert "".join(stretches) == text
    assert all(units_of(each) in (len(each), 2 * len(each)) for each in stretches)

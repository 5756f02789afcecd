"""The fewest changes that turn one sequence into another."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from collab.document.differences import changes, middle


@given(
    st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_the_changes_turn_one_sequence_into_the_other(
    old: list[int], new: list[int]
) -> None:
    result = list(old)

    for start, stop, new_start, new_stop in reversed(changes(old, new)):
        result[start:stop] = new[new_start:new_stop]

    assert result == new


def test_few_changes_are_found_exactly() -> None:
    old, new = list("abcabba"), list("cbabac")

    found = changes(old, new)

    assert sum(stop - start for start, stop, _, _ in found) == 3
    assert sum(stop - start for _, _, start, stop in found) == 2


def test_what_takes_too_long_is_one_change() -> None:
    old, new = list(range(2000)), list(range(2000, 0, -1))

    assert changes(old, new) == [(0, 2000, 0, 2000)]


@given(st.text("ab😀", max_size=8), st.text("ab😀", max_size=8))
def test_the_middle_is_what_two_texts_have_not_in_common(old: str, new: str) -> None:
    start, stop, end = middle(old, new)

    assert old[:start] == new[:start]
    assert old[stop:] == new[end:]
    assert start <= stop
    assert start <= end
    if start < stop and start < end:
        assert old[start] != new[start]
        assert old[stop - 1] != new[end - 1]

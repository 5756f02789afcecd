"""What is known of a turn: read strictly from its member, written small, read back from any version."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InvalidMessage
from collab.turns import About, Turn, checked_turn, read_about, read_said

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(st.builds(About, *[texts] * 9))
def test_what_is_written_of_a_turn_is_read_again(about: About) -> None:
    assert read_about(about.encode()) == about


def test_nothing_known_takes_no_space() -> None:
    assert About().encode() == ""
    assert read_about("") == About()


def test_what_a_newer_version_knows_is_passed_over() -> None:
    assert read_about('{"name": "Ada", "mood": "good"}') == About("Ada")


def test_a_member_says_task_model_and_reason_and_no_more() -> None:
    said = read_said(
        '{"task": "t", "model": "m", "reason": "a\\nb", "name": "x", "n": 1}'
    )

    assert said == About(task="t", model="m", reason="a\nb")


@given(texts | st.recursive(st.none() | st.integers() | texts, st.lists).map(json.dumps))  # fmt: skip
def test_whatever_a_member_says_is_read_or_refused(said: str) -> None:
    try:
        about = read_said(said)
    except InvalidMessage:
        return

    assert About(task=about.task, model=about.model, reason=about.reason) == about


@pytest.mark.parametrize("id", ["a", "A-z.9_~", "x" * 64])
def test_an_id_is_taken_as_it_is(id: str) -> None:
    assert checked_turn(id) == id


@pytest.mark.parametrize("id", ["", "x" * 65, "a b", "a/b", "é", "a\n", "\x00"])
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(InvalidMessage):
        checked_turn(id)


def test_the_first_reason_ends_a_turn() -> None:
    turn, first = Turn("t1", About()), InvalidMessage("first")

    turn.end(first)
    turn.end(InvalidMessage("second"))

    assert turn.ended is first

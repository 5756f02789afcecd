"""Unified diffs: read strictly, found by what they say."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.sdk.errors import Ambiguous, Conflict, Invalid, SdkError
from collab.sdk.patching import MAX_HUNKS, locate, read_diff

LINES = st.lists(st.sampled_from(["a", "b", "", "- x", "+", "@@", "é 🙂", "\\ x"]))


def patched(diff: str, text: str) -> str:
    """The text that a diff makes of another."""
    last = len(text)
    for start, stop, insert in reversed(locate(read_diff(diff), text)):
        assert 0 <= start <= stop <= last
        text = text[:start] + insert + text[stop:]
        last = start
    return text


def diff_of(old: str, new: str, context: int = 3) -> str:
    """As `diff -u` writes it."""
    out = []
    for line in difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), n=context
    ):
        out.append(line)
        if not line.endswith("\n"):
            out.append("\n\\ No newline at end of file\n")
    return "".join(out)


@given(LINES, LINES, st.booleans(), st.booleans(), st.integers(0, 3))
def test_a_diff_of_two_texts_makes_the_one_of_the_other(
    old: list[str], new: list[str], cut: bool, new_cut: bool, context: int
) -> None:
    one = "\n".join(old) + ("" if cut or not old else "\n")
    other = "\n".join(new) + ("" if new_cut or not new else "\n")
    diff = diff_of(one, other, context)

    assert one == other or patched(diff, one) == other


def test_a_hunk_is_found_where_lines_have_come_before_it() -> None:
    diff = "@@ -2,3 +2,3 @@\n two\n-three\n+THREE\n four\n"

    assert (
        patched(diff, "zero\nzero\nzero\none\ntwo\nthree\nfour")
        == "zero\nzero\nzero\none\ntwo\nTHREE\nfour"
    )


def test_the_closest_of_several_places_is_taken() -> None:
    text = "a\nb\na\nb\na\nb\n"

    assert patched("@@ -3,2 +3,2 @@\n a\n-b\n+c\n", text) == "a\nb\na\nc\na\nb\n"


def test_a_diff_without_numbers_needs_one_place() -> None:
    assert patched("@@\n-b\n+c\n", "a\nb\n") == "a\nc\n"
    with pytest.raises(Ambiguous) as caught:
        patched("@@ ... @@\n-b\n+c\n", "b\na\nb\n")

    assert list(caught.value.candidates) == [0, 4]


def test_two_places_equally_close_are_ambiguous() -> None:
    with pytest.raises(Ambiguous):
        patched("@@ -2,1 +2,1 @@\n-b\n+c\n", "b\na\nb\n")


def test_hunks_stand_in_order_and_do_not_overlap() -> None:
    diff = "@@\n-b\n+c\n@@\n-b\n+d\n"

    with pytest.raises(SdkError):
        patched(diff, "a\nb\n")


def test_a_diff_keeps_a_text_without_a_break_at_its_end_so() -> None:
    assert patched("@@ -1,1 +1,2 @@\n a\n+b\n", "a") == "a\nb"
    assert patched("@@ -1,2 +1,1 @@\n a\n-b\n", "a\nb") == "a"


def test_only_what_differs_is_changed() -> None:
    diff = "@@ -1,3 +1,4 @@\n a\n-b\n+B\n c\n+d\n"

    assert locate(read_diff(diff), "a\nb\nc\n") == [(2, 4, "B\n"), (6, 6, "d\n")]


def test_what_is_not_there_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        patched("@@ -1 +1 @@\n-x\n+y\n", "a\n")
    with pytest.raises(Conflict):
        patched("@@ -9,0 +10 @@\n+y\n", "a\n")


@pytest.mark.parametrize(
    "diff",
    [
        "",
        "hello",
        "--- a\n+++ b\n",
        "@@ -1 +1 @@",
        "@@ -1 +1 @@\n-a\n",
        "@@ -1 +1 @@\n-a\n+b\n+c\n",
        "@@ -1,2 +1,2 @@\n a\n b\n",
        "@@ -1 +1 @@\n*a\n+b\n",
        "@@ -1 +1 @@\n\\ No newline at end of file\n",
        "@@ -99999999999 +1 @@\n-a\n+b\n",
        "@@ -1,1 +1,-1 @@\n-a\n+b\n",
        "@@ hello @@\n-a\n+b\n",
        "@@ -1 +1 @@\n-a\n+b\n--- c\n+++ d\n@@ -1 +1 @@\n-a\n+b\n",
        "@@\n+a\n" * (MAX_HUNKS + 1),
        "@@\n+" + "x" * (1 << 20),
    ],
)
def test_a_malformed_diff_is_refused(diff: str) -> None:
    with pytest.raises(Invalid):
        read_diff(diff)


@given(st.text(alphabet="@ -+,019ab\\\n"), st.text(alphabet="ab\n"))
def test_any_text_is_a_diff_or_a_typed_error(diff: str, text: str) -> None:
    try:
        patched(f"@@{diff}", text)
    except SdkError:
        pass


def test_many_equal_lines_cost_little() -> None:
    diff = "@@\n" + " \n" * 50_000 + "+x\n"

    with pytest.raises(Ambiguous):
        patched(diff, "\n" * 500_000)

"""Sections of Markdown, and edits of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.sdk.errors import Ambiguous, NotFound
from collab.sdk.sections import (
    Span,
    appended,
    before,
    removed,
    renamed,
    replaced,
    sections,
    titled,
)

TEXT = """Preface

# One #

First.

## Part

- a
- b

# Two

```
# no heading
```

# Empty
# Last
end"""


def edited(
    edit: Callable[[str, Span, str], tuple[int, int, str]], title: str, new: str
) -> str:
    start, stop, insert = edit(TEXT, titled(sections(TEXT), title), new)
    return TEXT[:start] + insert + TEXT[stop:]


def test_headings_divide_a_text() -> None:
    found = [
        (span.level, span.title, TEXT[span.body : span.end]) for span in sections(TEXT)
    ]

    assert found == [
        (1, "One", "\nFirst.\n\n## Part\n\n- a\n- b\n\n"),
        (2, "Part", "\n- a\n- b\n\n"),
        (1, "Two", "\n```\n# no heading\n```\n\n"),
        (1, "Empty", ""),
        (1, "Last", "end"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "#no",
        "    # no",
        "####### no",
        "\\# no",
        "> # no",
        "~~~\n# no\n~~~",
        "````\n```\n# no",
    ],
)
def test_what_looks_like_a_heading_is_none(line: str) -> None:
    assert sections(line) == []


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("# a", "a"),
        ("   ## a b ##  ", "a b"),
        ("#", ""),
        ("# #", ""),
        ("#\ta\r", "a"),
        ("# a#", "a#"),
    ],
)
def test_a_heading_has_a_title(line: str, title: str) -> None:
    assert [span.title for span in sections(line)] == [title]


def test_a_section_that_is_not_there_or_there_twice_is_not_taken() -> None:
    with pytest.raises(NotFound):
        titled(sections(TEXT), "Three")
    with pytest.raises(Ambiguous) as caught:
        titled(sections("# a\n# a\n"), "a")

    assert [span.start for span in caught.value.candidates] == [0, 4]


def test_a_body_is_replaced_between_the_empty_lines_around_it() -> None:
    assert "# Two\n\nNew.\n\n# Empty\n" in edited(replaced, "Two", "New.\n")


def test_a_section_without_a_body_gets_one() -> None:
    assert "# Empty\n\nNew.\n\n# Last\n" in edited(replaced, "Empty", "New.")
    assert edited(appended, "Last", "New.").endswith("# Last\nend\n\nNew.")


def test_a_block_is_added_at_the_end_of_a_section() -> None:
    assert "- b\n\nNew.\n\n# Two" in edited(appended, "One", "New.")


def test_an_item_goes_on_with_the_list_at_the_end() -> None:
    assert "- a\n- b\n- c\n\n# Two" in edited(appended, "Part", "- c")


def test_something_is_put_before_a_section() -> None:
    assert "- b\n\n# New\n\n# Two\n" in edited(before, "Two", "# New")


def test_a_section_is_removed_with_what_is_below_it() -> None:
    start, stop, _ = removed(TEXT, titled(sections(TEXT), "One"))

    assert (TEXT[:start] + TEXT[stop:]).startswith("Preface\n\n# Two\n")


def test_a_section_is_renamed() -> None:
    assert "\n\n# Uno\n\nFirst." in edited(renamed, "One", "Uno")
    assert "\n## A b\n" in edited(renamed, "Part", " A\n b ")


@given(st.text(alphabet="# a`~\n\r-"))
def test_sections_lie_within_a_text_and_each_other(text: str) -> None:
    for span in sections(text):
        assert 0 <= span.start < span.body <= span.end <= len(text)
        assert text[span.start : span.body].strip(" ").startswith("#" * span.level)


@given(st.text(alphabet="# a\n"), st.sampled_from(["x", "- x", "x\n\ny"]))
def test_what_is_added_to_a_section_is_its_own(text: str, new: str) -> None:
    for number, span in enumerate(sections(text)):
        for edit in (appended, replaced):
            start, stop, insert = edit(text, span, new)
            after = sections(text[:start] + insert + text[stop:])

            assert span.start < start <= stop <= span.end
            assert after[number].title == span.title
            assert (
                new
                in (text[:start] + insert + text[stop:])[span.start : after[number].end]
            )

"""Which versions work together."""

from __future__ import annotations

import pytest

from collab.replicas.versions import is_near


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.1.0", "0.1.9"),
        ("0.1.0", "0.2.0"),
        ("0.9.3", "1.0.0"),
        ("1.4", "1.5.0rc1"),
        ("dev", "dev"),
    ],
)
def test_the_release_before_and_the_one_after_are_near(one: str, other: str) -> None:
    assert is_near(one, other)
    assert is_near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.1.0", "0.3.0"), ("1.0.0", "3.0.0"), ("0.1.0", "dev"), ("0.1.0", "")],
)
def test_everything_else_is_far(one: str, other: str) -> None:
    assert not is_near(one, other)
    assert not is_near(other, one)
